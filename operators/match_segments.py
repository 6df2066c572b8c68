"""match_segments: where what is now known puts a person; who enters and who leaves, and at which moment.

Only the segments are looked at that this happening can change. What becomes true or false by the mere passing of time
does so at that very moment, by the timer `segment:<name>`, and is looked at again when it fires.
"""

from collections.abc import Sequence

from domain.action import Because, Move
from domain.condition import BANDS
from domain.effect import Effect
from domain.letter import Letter
from state.changes import changes
from state.context import Context, Due, Happening
from state.person import Facts, Person
from state.rules import SegmentRule
from state.view import known

NAME = "match_segments"


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
        return ()
    facts = known(person)
    context.changed = changed = changes(person, facts, event)
    moves: list[Move] = []
    if person.rules != rules.short:
        person.rules = rules.short
        context.changed = changed = None
        _drop_removed(person, context, moves)
    index = rules.segment_index
    todo = index.affected(changed)
    if isinstance(event, Due) and event.kind == "segment" and event.id in rules.segment:
        todo |= 1 << rules.segment[event.id].order
    if todo:
        now, mine, timers, masks = context.now, person.segments, person.timers, index.masks
        while todo:  # the lowest bit first: segments stand behind those they refer to
            low = todo & -todo
            todo ^= low
            rule = rules.segments[low.bit_length() - 1]
            holds = rule.holds(person, facts, now)
            if holds != (rule.name in mine):
                moves.append(_move(person, facts, rule, holds, event, context))
                todo |= masks.get(rule.need, 0)
            if rule.timed:
                change = rule.next_change(person, facts, now)
                if change is not None and change < timers.get(rule.timer, change + 1):
                    timers[rule.timer] = change
    if moves:
        context.moves.extend(moves)
        if changed is not None:
            changed += [f"segment:{move.segment}" for move in moves]
    return moves


def _move(person: Person, facts: Facts, rule: SegmentRule, entered: bool, event: Happening, context: Context) -> Move:
    if entered:
        person.segments[rule.name] = context.now
    else:
        del person.segments[rule.name]
    held, failed = rule.explain(person, facts, context.now)
    trigger = "time" if isinstance(event, Due) else "letter" if isinstance(event, Letter) else event.name
    return Move(
        id=context.id(NAME), at=context.now, person=person.id, segment=rule.name, entered=entered,
        anonymous_id=person.session.anonymous_id if person.session is not None else "",
        because=Because(trigger=trigger, held=held, failed=failed, playbook=context.rules.short))


def _drop_removed(person: Person, context: Context, moves: list[Move]) -> None:
    """Leave the segments that the new playbook no longer has. Learned ones belong to the engine."""
    for name in [name for name in person.segments if name not in context.rules.segment and name not in BANDS]:
        del person.segments[name]
        moves.append(Move(
            id=context.id(NAME), at=context.now, person=person.id, segment=name, entered=False,
            anonymous_id=person.session.anonymous_id if person.session is not None else "",
            because=Because(trigger="playbook", reason="removed", playbook=context.rules.short)))
    for timer in [timer for timer in person.timers
                  if timer.startswith("segment:") and timer[8:] not in context.rules.segment]:
        del person.timers[timer]
