"""choose_actions: what we would say now, and what the browser should hold ready.

    an event, an entered segment, a second on the site  ->  proposals, for respect_limits to decide
    exit intent                                         ->  Arm, decided ahead; Disarm, when it no longer holds

Timers: `seconds:` is the next second of the visit at which a campaign may fire, `arm:exit_intent` the next moment at
which time alone may change what is armed (or at which it must be renewed). Both are looked at again when they fire.
"""

from collections.abc import Sequence
from typing import Any

from domain.action import Arm, Because, Content, Disarm
from domain.effect import Effect
from domain.event import Page, Screen, Track
from domain.letter import Letter
from domain.template import Missing
from operators.render import content_key, prepare, render
from state.context import Context, Due, Happening
from state.decisions import remember
from state.leaves import typed
from state.limits import Proposal, blocked, cooled_at
from state.person import Armed, Facts, Person, Session
from state.rules import CampaignRule
from state.view import known

NAME = "choose_actions"
SLOT = "exit_intent"
ARM_TIMER = "arm:exit_intent"
SECONDS_TIMER = "seconds:"

ENDS_OFFERS = frozenset(("Order Completed", "Signed Out", "Consent Updated"))
"""On these the widget forgets by itself all that it held ready."""


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Propose what fires now; arm and disarm what fires in the browser."""
    rules = context.rules
    if person.bot or person.alias_of:
        return _forget(person, context) if person.armed else ()
    facts = known(person)
    if not isinstance(event, (Due, Letter)) and event.name in rules.on_event:
        for rule in rules.on_event[event.name]:
            if _matches(rule, event) and rule.holds(person, facts, context.now):
                context.proposals.append(Proposal(rule))
    for move in context.moves:
        if move.entered:
            for rule in rules.on_segment.get(move.segment, ()):
                if rule.holds(person, facts, context.now):
                    context.proposals.append(Proposal(rule))
    session = person.session
    if session is None:
        if SECONDS_TIMER in person.timers:
            del person.timers[SECONDS_TIMER]
        return _forget(person, context) if person.armed else ()
    if rules.seconds:
        _count_seconds(person, facts, session, context)
    if person.armed or (rules.exit_intent and session.anonymous_id):
        return _arm(person, facts, session, event, context)
    return ()


def _matches(rule: CampaignRule, event: Any) -> bool:
    """Whether the event's properties are those the trigger names."""
    if not rule.properties:
        return True
    found = event.properties if isinstance(event, (Track, Page, Screen)) else {}
    for name, wanted in rule.properties:
        value = found.get(name)
        if value is None and name == "category":
            value = getattr(event, "category", None)
        if not isinstance(value, (str, int, float, bool)) or typed(value) not in wanted:
            return False
    return True


def _count_seconds(person: Person, facts: Facts, session: Session, context: Context) -> None:
    """Propose what this second of the visit has reached and not yet shown; set the timer for what comes next."""
    now, start = context.now, session.started_at
    due: int | None = None
    for rule in context.rules.seconds:  # the earliest second first
        if start + rule.seconds > now:
            if rule.possible(person, facts, now):
                due = _sooner(due, start + rule.seconds)
                break
        elif rule.name not in session.sent:
            if rule.holds(person, facts, now):
                context.proposals.append(Proposal(rule))
            elif rule.timed:
                due = _sooner(due, rule.next_change(person, facts, now))
    if due is not None and due < person.timers.get(SECONDS_TIMER, due + 1):
        person.timers[SECONDS_TIMER] = due


def _arm(person: Person, facts: Facts, session: Session, event: Happening, context: Context) -> Sequence[Effect]:
    """Decide which exit offer the browser should hold, and tell it when that changes."""
    rules, now = context.rules, context.now
    name = "" if isinstance(event, (Due, Letter)) else event.name
    effects: list[Effect] = []
    armed = had = person.armed.get(SLOT)
    excluded = ""
    if armed is not None:
        rule = rules.campaigns.get(armed.campaign)
        taken_back = rule is not None and name in rule.disarm_on
        if taken_back or name in ENDS_OFFERS or armed.anonymous_id != session.anonymous_id:
            excluded = armed.campaign if taken_back else ""
            effects.append(_disarm(person, armed, event, context))
            armed = None
    change: int | None = None
    best: Proposal | None = None
    winner: CampaignRule | None = None
    for rule in rules.exit_intent if session.anonymous_id else ():  # the first that may be shown wins
        if rule.name == excluded:
            continue
        if rule.timed:
            change = _sooner(change, rule.next_change(person, facts, now))
        if not rule.holds(person, facts, now):
            continue
        reason, detail = blocked(person, facts, rule, rules, now)
        if not reason:
            reason, detail = _hold_ready(person, facts, session, rule, armed, context, effects)
        if not reason:
            winner = rule
            break
        best = best or Proposal(rule, reason, detail)
        if reason == "cooldown":
            change = _sooner(change, cooled_at(person, rules))
    if winner is not None:
        until = person.armed[SLOT].until
        change = _sooner(change, until - _margin(winner))
    elif armed is not None:
        effects.append(_disarm(person, armed, event, context))
    if change is not None and change < person.timers.get(ARM_TIMER, change + 1):
        person.timers[ARM_TIMER] = change
    if name == "Exit Intent" and had is None and winner is None and best is not None:
        context.proposals.append(best)
    return effects


def _hold_ready(person: Person, facts: Facts, session: Session, rule: CampaignRule, armed: Armed | None,
                context: Context, effects: list[Effect]) -> tuple[str, str]:
    """See that the browser holds this offer as it is now; the reason when its words cannot be made."""
    rules, now = context.rules, context.now
    prepared = prepare(rule, session.device or facts.device, rules)
    key = content_key(prepared, person, facts)
    same = armed is not None and armed.campaign == rule.name
    if armed is not None and same and armed.content_key == key and now < armed.until - _margin(rule):
        return "", ""
    unready: dict[str, tuple[str, str]] = person.__dict__.setdefault("unready", {})
    failed_key, failure = unready.get(rule.name, ("", ""))
    if failed_key == key:  # nothing that it lacked has changed since
        return failure, ""
    try:
        content = render(prepared, person, facts, rules)
    except Missing as missing:
        unready[rule.name] = key, f"missing {missing}"
        return f"missing {missing}", ""
    except ValueError as wrong:
        unready[rule.name] = key, "template"
        return "template", str(wrong)
    if armed is not None and not same:
        effects.append(_disarm(person, armed, None, context))
    effects.append(_armed(person, facts, session, rule, content, prepared.variant, key, context))
    return "", ""


def _armed(person: Person, facts: Facts, session: Session, rule: CampaignRule, content: Content, variant: str,
           key: str, context: Context) -> Arm:
    held, failed = rule.explain(person, facts, context.now)
    until = context.now + rule.valid_for
    action = Arm(
        id=context.id(NAME), at=context.now, person=person.id, anonymous_id=session.anonymous_id, campaign=rule.name,
        format=rule.format, content=content, not_after=until, priority=rule.priority,
        disarm_on=rule.campaign.disarm_on,
        because=Because(trigger=rule.occasion, held=held, failed=failed, playbook=context.rules.short,
                        model=context.model.hash if context.model is not None else "", variant=variant))
    person.armed[SLOT] = Armed(rule.name, action.id, key, until, session.anonymous_id)
    remember(person, rule.name, context.now, "arm", action_id=action.id)
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


def _forget(person: Person, context: Context) -> Sequence[Effect]:
    """The visit is over (or is somebody else's now): the browser holds nothing more."""
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


def _sooner(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
