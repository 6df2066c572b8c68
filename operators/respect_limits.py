"""respect_limits: and do we say it, or hold our tongue?

A proposal becomes a `Send`, or a `Hold` with its reason. A send reserves its place under the limits; "Offer Shown"
spends it; its end (timer `reserved:<action id>`) or a hold at the edge ("Offer Held") gives it back. Only what was
shown counts for good. The same hold is said once, until something else is decided.

Reasons: consent, dismissed, limit, shop_limit, cooldown, already_reserved, lower_priority, not_on_site,
missing <variable>, template.
"""

from collections.abc import Sequence

from domain.action import Because, Disarm, Hold, Send
from domain.effect import Effect
from domain.event import Track
from domain.letter import Letter
from domain.template import Missing
from operators.render import prepare, render
from state.context import Context, Due, Happening
from state.decisions import because, remember, remember_shown, told
from state.limits import Proposal, blocked, local_day, spend
from state.person import Facts, Person, Reserved
from state.rules import CampaignRule
from state.view import known

NAME = "respect_limits"
MAX_DISMISSED = 50


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Decide what choose_actions proposed; keep the books about what was shown."""
    if isinstance(event, Due):
        if event.kind == "reserved":
            _release(person, event.id)
        effects: list[Effect] = []
    elif isinstance(event, Letter):
        effects = []
    else:
        effects = _offer(person, event, context) if type(event) is Track and event.event in _OFFERS else []
        if person.reserved and event.name in context.rules.disarming:
            effects += _take_back(person, event.name, context)
    if context.proposals:
        effects += _decide(person, context)
    return effects


# -- deciding --------------------------------------------------------------------------------------------------


def _decide(person: Person, context: Context) -> list[Effect]:
    facts = known(person)
    effects: list[Effect] = []
    won: dict[str, str] = {}
    proposals = {proposal.rule.name: proposal for proposal in context.proposals}
    for proposal in sorted(proposals.values(), key=lambda one: one.rule.rank):
        reason, detail = _why_not(person, facts, proposal, won, context)
        if not reason:
            reason, detail = _send(person, facts, proposal.rule, context, effects)
        if not reason:
            won[proposal.rule.format] = proposal.rule.name
        elif not told(person, proposal.rule.name, reason):
            effects.append(_hold(person, facts, proposal.rule, reason, detail, context))
    return effects


def _why_not(person: Person, facts: Facts, proposal: Proposal, won: dict[str, str],
             context: Context) -> tuple[str, str]:
    rule = proposal.rule
    if proposal.reason:
        return proposal.reason, proposal.detail
    session = person.session
    if session is None or not session.anonymous_id:
        return "not_on_site", "no browser of this person is open"
    reason, detail = blocked(person, facts, rule, context.rules, context.now)
    if reason:
        return reason, detail
    if rule.format in won:
        return "lower_priority", f"{won[rule.format]} is shown"
    for waiting in person.reserved:
        other = context.rules.campaigns.get(waiting.campaign)
        if other is not None and other.format == rule.format:
            return "already_reserved", f"{waiting.campaign} was sent and not shown yet"
    return "", ""


def _send(person: Person, facts: Facts, rule: CampaignRule, context: Context,
          effects: list[Effect]) -> tuple[str, str]:
    session = person.session
    assert session is not None, "_why_not has seen the session"
    prepared = prepare(rule, session.device or facts.device, context.rules)
    try:
        content = render(prepared, person, facts, context.rules)
    except Missing as missing:
        return f"missing {missing}", ""
    except ValueError as wrong:
        return "template", str(wrong)
    held, failed = rule.explain(person, facts, context.now)
    action = Send(
        id=context.id(NAME), at=context.now, person=person.id, anonymous_id=session.anonymous_id, campaign=rule.name,
        format=rule.format, content=content, not_after=context.now + rule.valid_for, priority=rule.priority,
        disarm_on=rule.campaign.disarm_on,
        because=Because(trigger=rule.occasion, held=held, failed=failed, playbook=context.rules.short,
                        model=context.model.hash if context.model is not None else "", variant=prepared.variant))
    person.reserved.append(Reserved(action.id, rule.name, action.not_after, session.anonymous_id))
    person.timers["reserved:" + action.id] = action.not_after
    if rule.seconds:
        session.sent.append(rule.name)
    remember(person, rule.name, context.now, "send", rule.occasion, because(held), action.id)
    effects.append(action)
    return "", ""


def _hold(person: Person, facts: Facts, rule: CampaignRule, reason: str, detail: str, context: Context) -> Hold:
    held, failed = rule.explain(person, facts, context.now)
    remember(person, rule.name, context.now, "hold", reason, detail)
    return Hold(
        id=context.id(NAME), at=context.now, person=person.id, campaign=rule.name,
        anonymous_id=person.session.anonymous_id if person.session is not None else "",
        because=Because(trigger=rule.occasion, held=held, failed=failed, reason=reason, detail=detail,
                        playbook=context.rules.short,
                        model=context.model.hash if context.model is not None else ""))


# -- what became of it -----------------------------------------------------------------------------------------


def _offer(person: Person, event: Track, context: Context) -> list[Effect]:
    """An offer was shown, dismissed, or held at the edge. Browsers say so, so nothing of it is taken for granted."""
    action_id, campaign = event.properties.get("action_id"), event.properties.get("campaign")
    if not isinstance(action_id, str) or not isinstance(campaign, str):
        return []
    return list(_OFFERS[event.event](person, action_id, campaign, context))


def _shown(person: Person, action_id: str, campaign: str, context: Context) -> Sequence[Effect]:
    last = person.decisions.get(campaign)
    if last is not None and last.kind == "shown" and last.action_id == action_id:
        return ()
    ours = _release(person, action_id)
    armed = [slot for slot, one in person.armed.items() if one.campaign == campaign]
    if not ours and not armed and campaign not in context.rules.campaigns:
        return ()
    at, facts, session = context.event_time or context.now, known(person), person.session
    visit = session.id if session is not None and at >= session.started_at else ""
    zone = context.rules.shop.timezone
    spend(person, campaign, visit, local_day(at, facts.timezone or zone, zone), at)
    remember_shown(person, campaign, context.now, action_id)
    return _clear(person, campaign, context, "shown")


def _dismissed(person: Person, action_id: str, campaign: str, context: Context) -> Sequence[Effect]:
    session = person.session
    if session is None or campaign not in context.rules.campaigns:
        return ()
    if campaign not in session.dismissed and len(session.dismissed) < MAX_DISMISSED:
        session.dismissed.append(campaign)
    if any(armed.campaign == campaign for armed in person.armed.values()):
        return _clear(person, campaign, context, "dismissed")
    return ()


def _held(person: Person, action_id: str, campaign: str, context: Context) -> Sequence[Effect]:
    """What was decided came too late to be shown: its place is free again."""
    _release(person, action_id)
    for slot in [slot for slot, armed in person.armed.items() if armed.action_id == action_id]:
        del person.armed[slot]
    return ()


def _release(person: Person, action_id: str) -> bool:
    for n, reserved in enumerate(person.reserved):
        if reserved.action_id == action_id:
            del person.reserved[n]
            person.timers.pop("reserved:" + action_id, None)
            return True
    return False


def _clear(person: Person, campaign: str, context: Context, reason: str) -> list[Effect]:
    """Nothing of this campaign waits in the browser any more; what is on the screen stays there."""
    for slot in [slot for slot, armed in person.armed.items() if armed.campaign == campaign]:
        del person.armed[slot]
    session = person.session
    if session is None or not session.anonymous_id:
        return []
    return [Disarm(id=context.id(NAME), at=context.now, person=person.id, anonymous_id=session.anonymous_id,
                   campaign=campaign, because=Because(reason=reason, playbook=context.rules.short))]


def _take_back(person: Person, name: str, context: Context) -> list[Effect]:
    """The sends that were not shown yet and that this event makes pointless."""
    effects: list[Effect] = []
    for reserved in list(person.reserved):
        rule = context.rules.campaigns.get(reserved.campaign)
        if rule is not None and name in rule.disarm_on:
            _release(person, reserved.action_id)
            effects.append(Disarm(
                id=context.id(NAME), at=context.now, person=person.id, anonymous_id=reserved.anonymous_id,
                campaign=reserved.campaign, because=Because(trigger=name, playbook=context.rules.short)))
            remember(person, reserved.campaign, context.now, "disarm", name, action_id=reserved.action_id)
    return effects


_OFFERS = {"Offer Shown": _shown, "Offer Dismissed": _dismissed, "Offer Held": _held}
