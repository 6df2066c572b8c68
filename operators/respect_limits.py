"""respect_limits: and do we say it, or hold our tongue?

A proposal becomes a `Send`, or a `Hold` with its reason. A send reserves its place under the limits; "Offer Shown"
spends it; its end (timer `reserved:<action id>`) or a hold at the edge ("Offer Held") gives it back
(`state/exposures.py`, `operators/offers.py`). Only what was shown counts for good. The same hold is said once, until
something else is decided.

Reasons: consent, dismissed, limit, shop_limit, cooldown, already_reserved, lower_priority, not_on_site,
missing <variable>, template.
"""

from collections.abc import Sequence

from domain.action import Because, Disarm, Hold, Send
from domain.effect import Effect
from domain.letter import Letter
from domain.template import Missing
from operators.render import prepare, render
from state.context import Context, Due, Happening
from state.decisions import because, remember, told
from state.exposures import released, reserve
from state.limits import Proposal, blocked
from state.person import Facts, Person, Reserved
from state.rules import CampaignRule
from state.view import known

NAME = "respect_limits"


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Decide what choose_actions proposed; keep the books about what was shown."""
    if isinstance(event, Due):
        if event.kind == "reserved":
            released(person, event.id)
        effects: list[Effect] = []
    elif isinstance(event, Letter):
        effects = []
    else:
        effects = []
        if person.reserved and event.name in context.rules.disarming:
            effects = _take_back(person, event.name, context)
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
    reserve(person, Reserved(action.id, rule.name, action.not_after, session.anonymous_id))
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


def _take_back(person: Person, name: str, context: Context) -> list[Effect]:
    """The sends that were not shown yet and that this event makes pointless."""
    effects: list[Effect] = []
    for reserved in list(person.reserved):
        rule = context.rules.campaigns.get(reserved.campaign)
        if rule is not None and name in rule.disarm_on:
            released(person, reserved.action_id)
            effects.append(Disarm(
                id=context.id(NAME), at=context.now, person=person.id, anonymous_id=reserved.anonymous_id,
                campaign=reserved.campaign, because=Because(trigger=name, playbook=context.rules.short)))
            remember(person, reserved.campaign, context.now, "disarm", name, action_id=reserved.action_id)
    return effects

