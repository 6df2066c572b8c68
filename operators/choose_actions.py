"""choose_actions: what we would say now, and what the browser should hold ready.

    an event, an entered segment, a second on the site  ->  proposals, for respect_limits to decide
    exit intent                                         ->  Arm and Disarm, decided ahead (operators/arm_ahead.py)

The timer `seconds:` is the next second of the visit at which a campaign may fire; it is looked at again when it fires.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter

from domain.effect import Effect
from domain.letter import Letter
from operators.arm_ahead import arm_ahead, forget
from state.audience import NEVER, Audience, audience_of, lost
from state.context import Context, Due, Happening
from state.limits import Proposal
from state.person import Facts, Person, Session
from state.view import known

SECONDS_TIMER = "seconds:"


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Propose what fires now; arm and disarm what fires in the browser."""
    rules = context.rules
    if person.bot or person.alias_of:
        lost(person)
        return forget(person, context) if person.armed else ()
    facts = known(person)
    if not isinstance(event, (Due, Letter)) and event.name in rules.on_event:
        for rule in rules.on_event[event.name]:
            if rule.matches(event) and rule.holds(person, facts, context.now):
                context.proposals.append(Proposal(rule))
    for move in context.moves:
        if move.entered:
            for rule in rules.on_segment.get(move.segment, ()):
                if rule.holds(person, facts, context.now):
                    context.proposals.append(Proposal(rule))
    session = person.session
    if session is None:
        lost(person)
        if SECONDS_TIMER in person.timers:
            del person.timers[SECONDS_TIMER]
        return forget(person, context) if person.armed else ()
    if rules.watched:
        audience = audience_of(person, facts, context)
        changed = context.changed
        if rules.seconds and (audience.mask & rules.seconds_mask or audience.seconds_until < NEVER or changed is None
                              or "visit" in changed or isinstance(event, Due)):
            _count_seconds(person, facts, session, audience, event, context)
        if person.armed or audience.mask & rules.exit_mask or audience.exit_until < NEVER:
            return arm_ahead(person, facts, session, audience, event, context)
    elif person.armed:
        return forget(person, context)
    return ()


def _count_seconds(person: Person, facts: Facts, session: Session, audience: Audience, event: Happening,
                   context: Context) -> None:
    """Propose what this second of the visit has reached and not yet shown; set the timer for what comes next."""
    rules, now, changed = context.rules, context.now, context.changed
    candidates = audience.mask & rules.seconds_mask
    while candidates:
        low = candidates & -candidates
        candidates ^= low
        rule = rules.ranked[low.bit_length() - 1]
        if session.started_at + rule.seconds <= now and rule.name not in session.sent:
            context.proposals.append(Proposal(rule))
    due = audience.seconds_until
    if changed is None or "visit" in changed or isinstance(event, Due):
        due = min(due, _next_second(person, facts, session, context))
    if due < NEVER and due < person.timers.get(SECONDS_TIMER, NEVER):
        person.timers[SECONDS_TIMER] = due


def _next_second(person: Person, facts: Facts, session: Session, context: Context) -> int:
    """When the next campaign may fire for which this visit is not the wrong one anyway."""
    seconds, now = context.rules.seconds, context.now
    for rule in seconds[bisect_right(seconds, now - session.started_at, key=_second):]:
        if rule.possible(person, facts, now):
            return session.started_at + rule.seconds
    return NEVER


_second = attrgetter("seconds")
