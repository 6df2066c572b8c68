"""match_segments: where what is now known puts a person; who enters and who leaves, and at which moment.

    RFM cell (state/customers.py) ──▶ static segments, stages of the funnel and dynamic segments, each behind those it
                                     refers to

Only the segments are looked at that this happening can change. What becomes true or false by the mere passing of time
does so at that very moment, by the timers `segment:<name>`, `untag:<name>` and `rfm:`. Whatever is due at one moment is
looked at together when the first of these timers fires: nobody is seen between two stages.

A late event moves people like any other, since where they belong now is true now; but its moves begin nothing.
"""

from collections.abc import Sequence

from domain.action import Because, Move
from domain.condition import BANDS
from domain.effect import Effect
from domain.letter import Letter
from state import tags
from state.changes import changes
from state.context import Context, Due, Happening, occasion_of
from state.customers import is_standing, stand, tell
from state.person import Facts, Person
from state.rules import SegmentRule
from state.view import known

_TIMERS = ("segment", "untag")
_NO_EVENT = (Due, Letter)
_QUIET = ("playbook", "warmed")
"""Happenings by which the playbook has changed and not the person."""


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Update `person.segments`; every move is an effect, and stands in `context.moves` for the steps behind.

    >>> from domain.condition import Condition, InSession
    >>> from domain.event import Page
    >>> from domain.playbook import Playbook
    >>> from domain.segment import Segment
    >>> from state.person import Session
    >>> from state.rules import compile_rules
    >>> engaged = Segment("engaged", Condition(session=InSession(pages_at_least=3)))
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=3))
    >>> context = Context(0, compile_rules(Playbook(segments=(engaged,))))
    >>> [(move.segment, move.entered) for move in step(person, Page(), context)]
    [('engaged', True)]
    """
    rules = context.rules
    if person.bot or person.alias_of:
        return tell(person, None, context) if person.counted is not None else ()
    facts = known(person)
    context.changed = changed = changes(person, facts, event)
    fresh = person.rules != rules.short
    effects: list[Effect] = []
    if (rules.rfm is not None or fresh) and (facts.order_count or person.rfm) and (
            changed is None or fresh or "orders" in changed or isinstance(event, Due)
            or person.__dict__.get("cuts") is not context.quintiles):
        before = person.rfm
        effects += stand(person, facts, event, context)
        if changed is not None and person.rfm != before:
            changed.append("rfm")
    if fresh:
        person.rules = rules.short
        context.changed = changed = None
        _drop_removed(person, context, effects)
    moves = context.moves
    if moves and changed is not None:
        changed += [f"segment:{move.segment}" for move in moves]
    index = rules.segment_index
    todo, quiet = index.concerned(changed, person, facts), False
    if isinstance(event, _NO_EVENT):
        quiet = event.kind in _QUIET
        if isinstance(event, Due):
            todo |= _due(person, event, context)
    if person.tags and (fresh or isinstance(event, Letter)):
        tags.settle(person, context)
    if todo:
        began, now, mine, timers, masks = len(moves), context.now, person.segments, person.timers, index.masks
        while todo:  # the lowest bit first: segments stand behind those they refer to
            low = todo & -todo
            todo ^= low
            rule = rules.segments[low.bit_length() - 1]
            if rule.static is not None:
                for move in tags.turn(person, facts, rule, event, [] if quiet else moves, context):
                    todo |= masks.get("segment:" + move.segment, 0)
                continue
            holds = rule.holds(person, facts, now)
            if holds != (rule.name in mine):
                _move(person, facts, rule, holds, event, context)
                todo |= masks.get(rule.need, 0)
            if rule.timed:
                change = rule.next_change(person, facts, now)
                if change is not None and change < timers.get(rule.timer, change + 1):
                    timers[rule.timer] = change
        if len(moves) > began:
            news = moves[began:]
            effects += news
            if changed is not None:
                changed += [f"segment:{move.segment}" for move in news]
    if quiet or context.late:  # it is no occasion for anything
        context.moves = []
    return effects


def _due(person: Person, event: Due, context: Context) -> int:
    """The segments that are due by now, as a mask; what is due at this very moment is taken from the timers."""
    rules, timers, now = context.rules.segment, person.timers, context.now
    mask = 1 << rules[event.id].order if event.kind in _TIMERS and event.id in rules else 0
    for timer, due in list(timers.items()):
        if due <= now:
            kind, _, name = timer.partition(":")
            if kind in _TIMERS and name in rules:
                mask |= 1 << rules[name].order
                if kind == "segment":
                    del timers[timer]
    return mask


def _move(person: Person, facts: Facts, rule: SegmentRule, entered: bool, event: Happening, context: Context) -> Move:
    trigger = occasion_of(event)
    held, failed = rule.explain(person, facts, context.now)
    return tags.move(person, rule.name, entered, context, Because(
        trigger=trigger, held=held, failed=failed, playbook=context.rules.short))


def _drop_removed(person: Person, context: Context, effects: list[Effect]) -> None:
    """Leave the segments that the new playbook no longer has. Learned ones belong to the engine."""
    because = Because(trigger="playbook", reason="removed", playbook=context.rules.short)
    rules = context.rules.segment
    gone = [name for name in person.segments
            if name not in rules and name not in BANDS and not is_standing(name, person)]
    effects += [tags.move(person, name, False, context, because) for name in gone]
    for timer in [timer for timer in person.timers
                  if timer.startswith("segment:") and timer[8:] not in rules]:
        del person.timers[timer]
