"""arm_ahead: which exit offer the browser should hold ready; told to it whenever that changes.

The timer `arm:exit_intent` is the next moment at which time alone may change what is armed, or at which it must be
renewed; it is looked at again when it fires. So it is when what was decided after it took up a place, or freed one.
"""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from domain.action import Arm, Because, Disarm
from domain.effect import Effect
from domain.letter import Letter
from operators.render import content_key, prepare
from operators.speak import Silence, Words, promise, words
from state.audience import NEVER, Audience
from state.context import Context, Due, Happening
from state.decisions import because, remember
from state.experiments import NOBODY, Side, side_of
from state.limits import Proposal, blocked, freed_at
from state.person import Armed, Facts, Person, Session
from state.rules import SERVICE, CampaignRule

NAME = "choose_actions"
SLOT = "exit_intent"
ARM_TIMER = "arm:exit_intent"

ENDS_OFFERS = frozenset(("Order Completed", "Signed Out", "Consent Updated"))
"""On these the widget forgets by itself all that it held ready."""

_encode = msgspec.json.Encoder().encode


def arm_ahead(person: Person, facts: Facts, session: Session, audience: Audience, event: Happening,
         context: Context) -> Sequence[Effect]:
    """Decide which exit offer the browser should hold, and tell it when that changes."""
    rules, now = context.rules, context.now
    name = "" if isinstance(event, (Due, Letter)) else event.name
    if context.late and name == "Exit Intent":  # whoever left then is back
        name = ""
    effects: list[Effect] = []
    armed = had = person.armed.get(SLOT)
    if not isinstance(event, Due):
        session.taken_back = ""
    if armed is not None:
        rule = rules.campaigns.get(armed.campaign)
        taken_back = rule is not None and name in rule.disarm_on
        if taken_back or name in ENDS_OFFERS or armed.anonymous_id != session.anonymous_id:
            session.taken_back = armed.campaign if taken_back else ""
            effects.append(_disarm(person, armed, event, context))
            armed = None
    change = NEVER
    best: Proposal | None = None
    winner: CampaignRule | None = None
    full = False
    for rule in audience.exits.each(person, facts, now) if session.anonymous_id else ():
        # by rank: the first that may be shown wins
        if rule.name == session.taken_back or (full and rule.purpose != SERVICE):
            continue
        reason, detail = blocked(person, facts, rule, rules, now)
        side = side_of(person, rule, rules) if not reason else NOBODY
        if side.held_out:
            if name == "Exit Intent":  # that it would have been shown now counts
                context.proposals.append(Proposal(rule, side.held_out, "so that the effect can be told"))
            continue
        if not reason:
            reason, detail = _hold_ready(person, facts, session, rule, side, armed, context, effects)
        if not reason:
            winner = rule
            break
        best = best or Proposal(rule, reason, detail)
        if (freed := freed_at(person, facts, rule, rules, reason, now)) is not None:
            change = min(change, freed)
        if reason == "shop_limit":  # that goes for all of them, but not for what people asked for themselves
            full = True
        if full and rule.rank >= rules.last_exempt_exit:
            break
    change = min(change, audience.exits.until())
    if winner is not None:
        until = person.armed[SLOT].until
        renewed = until - _margin(winner)  # what a coupon limits cannot be renewed: it ends with the coupon
        change = min(change, renewed if renewed > now else until)
    elif armed is not None:
        effects.append(_disarm(person, armed, event, context))
    if change < person.timers.get(ARM_TIMER, NEVER):
        person.timers[ARM_TIMER] = change
    if name == "Exit Intent" and had is None and winner is None and best is not None:
        context.proposals.append(best)
    return effects


def look_again(person: Person, before: Sequence[str], context: Context) -> None:
    """The places that are held for sends are not those of `before` (action ids): may that change what is armed?"""
    if person.session is None or not context.rules.exits:
        return
    held = [one.action_id for one in person.reserved]
    if held != before and (person.armed or not set(before).issubset(held)):
        person.timers[ARM_TIMER] = context.now


def _hold_ready(person: Person, facts: Facts, session: Session, rule: CampaignRule, side: Side, armed: Armed | None,
                context: Context, effects: list[Effect]) -> tuple[str, str]:
    """See that the browser holds this offer as it is now; the reason when there is no coupon, or its words fail."""
    rules, now = context.rules, context.now
    prepared = prepare(rule, session.device or facts.device, rules, side.variant)
    same = armed is not None and armed.campaign == rule.name
    lasts = armed is not None and same and now < armed.until - _margin(rule)
    if lasts and context.changed is not None and prepared.needs.isdisjoint(context.changed):
        return "", ""
    try:
        until = promise(person, facts, rule, prepared, context)
    except Silence as silence:
        return silence.reason, silence.detail
    made = content_key(prepared, person, facts)
    lasts = lasts or (armed is not None and same and now < armed.until and until <= armed.until)
    was_made, _, was_told = armed.content_key.partition("/") if lasts and armed is not None else ("", "", "")
    if was_made == made:
        return "", ""
    unready: dict[str, tuple[str, str, str]] = person.__dict__.setdefault("unready", {})
    failed_with, failure, detail = unready.get(rule.name, ("", "", ""))
    if failed_with == made:  # nothing that it lacked has changed since
        return failure, detail
    try:
        said = words(person, facts, prepared, until, context)
    except Silence as silence:
        unready[rule.name] = made, silence.reason, silence.detail
        return silence.reason, silence.detail
    told = _told(rule, said)
    key = f"{made}/{told}"
    if armed is not None and was_told == told:  # made of something else, and the browser holds just this
        armed.content_key = key
        return "", ""
    if armed is not None and not same:
        effects.append(_disarm(person, armed, None, context))
    effects.append(_armed(person, facts, session, rule, side, said, key, context))
    return "", ""


def _told(rule: CampaignRule, said: Words) -> str:
    told = [said.prepared.variant, rule.format, rule.priority, rule.campaign.disarm_on, said.content, said.discount]
    return blake2b(_encode(told), digest_size=8).hexdigest()


def _armed(person: Person, facts: Facts, session: Session, rule: CampaignRule, side: Side, said: Words, key: str,
           context: Context) -> Arm:
    held, failed = rule.explain(person, facts, context.now)
    action = Arm(
        id=context.id(NAME), at=context.now, person=person.id, anonymous_id=session.anonymous_id, campaign=rule.name,
        format=rule.format, content=said.content, not_after=said.until, priority=rule.priority,
        disarm_on=rule.campaign.disarm_on, discount=said.discount,
        because=Because(trigger=rule.occasion, held=held, failed=failed, playbook=context.rules.short,
                        model=context.model.hash if context.model is not None else "", variant=said.prepared.variant,
                        propensity=side.propensity))
    person.armed[SLOT] = Armed(rule.name, action.id, key, said.until, session.anonymous_id, side.variant,
                               side.propensity)
    remember(person, rule.name, context.now, "arm", rule.occasion, because(held), action.id)
    return action


def _disarm(person: Person, armed: Armed, event: Happening | None, context: Context) -> Disarm:
    person.armed.pop(SLOT, None)
    trigger = "" if event is None or isinstance(event, Letter) else "time" if isinstance(event, Due) else event.name
    action = Disarm(
        id=context.id(NAME), at=context.now, person=person.id, anonymous_id=armed.anonymous_id, campaign=armed.campaign,
        because=Because(trigger=trigger, reason="replaced" if event is None else "no longer holds",
                        playbook=context.rules.short))
    remember(person, armed.campaign, context.now, "disarm", action.because.reason, action_id=armed.action_id)
    return action


def forget(person: Person, context: Context) -> Sequence[Effect]:
    """The visit is over (or somebody else's, or nothing can be armed any more): the browser holds nothing.

    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> ann = Person(id="a:ann", armed={"exit_intent": Armed("stay", "an-action", "key", 9_000, "ann")})
    >>> [(one.campaign, one.because.reason) for one in forget(ann, Context(0, compile_rules(Playbook())))], ann.armed
    ([('stay', 'the visit is over')], {})
    """
    person.timers.pop(ARM_TIMER, None)
    gone = list(person.armed.values())
    person.armed.clear()
    return [
        Disarm(id=context.id(NAME), at=context.now, person=person.id, anonymous_id=armed.anonymous_id,
               campaign=armed.campaign, because=Because(reason="the visit is over", playbook=context.rules.short))
        for armed in gone
    ]


def _margin(rule: CampaignRule) -> int:
    """How long before its end an arm is renewed (ms)."""
    return min(60_000, rule.valid_for // 10)
