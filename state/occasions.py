"""Occasions, made ready: what puts a person into a static segment, and what takes them out.

    an event with these properties ── or ── a segment entered or left ──▶ does `when` hold then? ──▶ it is one

An occasion is a moment and leaves nothing behind. Of what one happening brings, the segments that an occasion speaks
of have settled before it is asked.
"""

from collections.abc import Sequence

from domain.action import Move
from domain.duration import parse
from domain.letter import Letter
from domain.segment import Segment
from domain.shop import Shop
from domain.trigger import Occasion
from state.conditions import compile_condition
from state.person import Facts, Person
from state.properties import matcher


class OccasionRule:
    """An occasion made ready. `need` is what brings it about, in the words of `state/changes.py`."""

    __slots__ = ("_explain", "_holds", "_matches", "event", "left", "need", "properties", "refers", "segment", "when",
                 "words")

    def __init__(self, occasion: Occasion, shop: Shop) -> None:
        when = compile_condition(occasion.when, shop)
        self._holds, self._explain = when.holds, when.explain
        self.when, self.properties = occasion.when, occasion.properties
        self._matches = matcher(occasion.properties)
        self.event = occasion.event or ""
        self.left = occasion.segment is None
        self.segment = occasion.segment or occasion.left_segment or ""
        self.need = "event:" + self.event if self.event else "segment:" + self.segment
        self.words = (f'event "{self.event}"' if self.event else
                      f"left {self.segment}" if self.left else f"entered {self.segment}")
        self.refers = [need[8:] for need in when.needs if need.startswith("segment:")]
        if not self.event:
            self.refers.append(self.segment)

    def comes(self, person: Person, facts: Facts, event: object, moves: Sequence[Move], now: int) -> bool:
        """Whether this happening (an event, or the moves it has led to so far) is the occasion."""
        if self.event:
            if getattr(event, "name", "") != self.event or isinstance(event, Letter) or not self._matches(
                    event):  # type: ignore[arg-type] # only events have a name that is not empty
                return False
        elif not any(move.segment == self.segment and move.entered is not self.left for move in moves):
            return False
        return self._holds(person, facts, now)

    def why(self, person: Person, facts: Facts, now: int) -> tuple[str, ...]:
        """What made it one, in words."""
        return (self.words, *self._explain(person, facts, now)[0])


class StaticRule:
    """A static segment made ready: what puts in, what takes out, how long they stay (ms; 0: for good)."""

    __slots__ = ("enter", "leave", "needs", "refers", "stays", "timer")

    def __init__(self, segment: Segment, shop: Shop) -> None:
        self.enter = tuple(OccasionRule(one, shop) for one in segment.enter_on)
        self.leave = tuple(OccasionRule(one, shop) for one in segment.leave_on)
        self.stays = parse(segment.stays) if segment.stays is not None else 0
        self.timer = "untag:" + segment.name
        self.needs = frozenset(one.need for one in (*self.enter, *self.leave))
        self.refers = sorted({name for one in (*self.enter, *self.leave) for name in one.refers})


def static_rules(segments: Sequence[Segment], shop: Shop) -> dict[str, StaticRule]:
    """The static ones of these segments, made ready.

    >>> [*static_rules([Segment("vip", static=True), Segment("all")], Shop())]
    ['vip']
    """
    return {segment.name: StaticRule(segment, shop) for segment in segments if segment.static}
