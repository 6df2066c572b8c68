"""choose_actions: what we would say now, and what the browser should hold ready.

    an event, a segment entered or left, a second on the site  ->  proposals, for respect_limits to decide
    exit intent                                                ->  Arm, Disarm, decided ahead (operators/arm_ahead.py)

The timer `seconds:` is the next second of the visit at which a campaign may fire; it is looked at again when it fires.

What is late is no occasion. On the site nothing is said because of what happened off it, or longer ago than a visit
goes on by itself, whatever the shop calls late.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from operator import attrgetter

from domain.effect import Effect
from domain.letter import Letter
from operators.arm_ahead import arm_ahead, forget
from operators.propose import propose
from state.audience import NEVER, Holding, audience_of, lost
from state.context import Context, Due, Happening
from state.person import Facts, Person
from state.rules import CampaignRule
from state.sessions import SESSION_FOR
from state.view import known

SECONDS_TIMER = "seconds:"

_rank = attrgetter("rank")


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Propose what fires now; arm and disarm what fires in the browser.

    >>> import msgspec
    >>> from domain.event import Track
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> context = Context(0, compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook)))
    >>> context.begin("clicks-0-1", 5_000, 5_000)
    >>> step(Person(id="a:ann"), Track(event="Quiz Finished"), context)
    ()
    >>> [proposal.rule.name for proposal in context.proposals]
    ['hello']
    """
    rules = context.rules
    if person.bot or person.alias_of:
        lost(person)
        return forget(person, context) if person.armed else ()
    facts = known(person)
    come: list[Iterator[CampaignRule]] = []
    if not isinstance(event, (Due, Letter)) and event.name in rules.on_event and not context.late:
        ranks = [rank for rank in rules.on_event[event.name].find(event, person, facts)
                 if rules.ranked[rank].matches(event)]
        if ranks:
            come.append(_holding(ranks, person, facts, context))
    for move in context.moves:
        finder = (rules.on_entered if move.entered else rules.on_left).get(move.segment)
        if finder is not None and (ranks := finder.find(person, facts)):
            come.append(_holding(ranks, person, facts, context))
    if come and _elsewhere(event, context):
        come = [_off_site(some) for some in come]
    effects: Sequence[Effect] = ()
    session = person.session
    if session is None:
        lost(person)
        if SECONDS_TIMER in person.timers:
            del person.timers[SECONDS_TIMER]
        if person.armed:
            effects = forget(person, context)
    elif rules.exits or rules.seconds:
        audience = audience_of(person, facts, context)
        if _count_seconds(person, facts, audience.seconds, context):
            come.append(rule for rule in audience.seconds.each(person, facts, context.now)
                        if rule.name not in session.sent)
        exits = audience.exits
        if person.armed or exits.ranks or exits.more(person, facts, context.now) or exits.times:
            effects = arm_ahead(person, facts, session, audience, event, context)
    elif person.armed:
        effects = forget(person, context)
    if come:
        propose(person, facts, come[0] if len(come) == 1 else merge(*come, key=_rank), context)
    return effects


def _elsewhere(event: Happening, context: Context) -> bool:
    """Whether this did not happen on the site just now."""
    if isinstance(event, (Due, Letter)):
        return False
    seen = event.context.attimo if event.context is not None else None
    return (seen is not None and seen.offline) or context.now - context.event_time >= SESSION_FOR


def _off_site(rules: Iterator[CampaignRule]) -> Iterator[CampaignRule]:
    return (rule for rule in rules if not rule.on_site)


def _holding(ranks: Iterable[int], person: Person, facts: Facts, context: Context) -> Iterator[CampaignRule]:
    ranked, now = context.rules.ranked, context.now
    for rank in ranks:
        rule = ranked[rank]
        if rule.holds(person, facts, now):
            yield rule


def _count_seconds(person: Person, facts: Facts, seconds: Holding, context: Context) -> bool:
    """Whether a second of the visit has come for somebody; set the timer for the next one."""
    while seconds.more(person, facts, context.now):
        pass
    if seconds.times:
        due = min(seconds.times.values())
        if due < person.timers.get(SECONDS_TIMER, NEVER):
            person.timers[SECONDS_TIMER] = due
    return bool(seconds.ranks)
