"""Compiled entry triggers: what adds a person to a static segment, and what removes them.

    event with these properties, or segment change ──▶ is `when` true at that time? ──▶ triggered

The segments that a trigger refers to are updated before the trigger is evaluated.
"""

from collections.abc import Sequence

from domain.action import SegmentChange, ShardMessage
from domain.duration import parse_duration
from domain.playbook.segment import Segment
from domain.playbook.shop import Shop
from domain.playbook.trigger import EntryTrigger
from state.conditions.compile import compile_condition
from state.conditions.properties import matcher
from state.person.model import Person, ProfileFragment


class TriggerRule:
    """An occasion made ready. `need` is what brings it about, in the words of `state/membership/changes.py`."""

    __slots__ = (
        "_explain",
        "_is_met",
        "_matches",
        "dependency",
        "description",
        "event",
        "on_exit",
        "properties",
        "references",
        "segment",
        "when",
    )

    def __init__(self, trigger: EntryTrigger, shop: Shop) -> None:
        when = compile_condition(trigger.when, shop)
        self._is_met, self._explain = when.is_met, when.explain
        self.when, self.properties = trigger.when, trigger.properties
        self._matches = matcher(trigger.properties)
        self.event = trigger.event or ""
        self.on_exit = trigger.segment is None
        self.segment = trigger.segment or trigger.exited_segment or ""
        self.dependency = "event:" + self.event if self.event else "segment:" + self.segment
        self.description = (
            f'event "{self.event}"'
            if self.event
            else f"left {self.segment}"
            if self.on_exit
            else f"entered {self.segment}"
        )
        self.references = [need[8:] for need in when.depends_on if need.startswith("segment:")]
        if not self.event:
            self.references.append(self.segment)

    def fires(
        self,
        person: Person,
        profile: ProfileFragment,
        event: object,
        segment_changes: Sequence[SegmentChange],
        now: int,
    ) -> bool:
        """Whether this happening (an event, or the moves it has led to so far) is the occasion."""
        if self.event:
            if getattr(event, "name", "") != self.event or isinstance(event, ShardMessage) or not self._matches(event):  # type: ignore[arg-type] # only events have a name that is not empty
                return False
        elif not any(move.segment == self.segment and move.entered is not self.on_exit for move in segment_changes):
            return False
        return self._is_met(person, profile, now)

    def explain(self, person: Person, profile: ProfileFragment, now: int) -> tuple[str, ...]:
        """Describe why the trigger fired."""
        return (self.description, *self._explain(person, profile, now)[0])


class StaticSegmentRule:
    """A compiled static segment: triggers that add and remove people, and membership time (ms; 0 = no end)."""

    __slots__ = ("depends_on", "enter_on", "exit_on", "expiry_timer", "max_stay", "references")

    def __init__(self, segment: Segment, shop: Shop) -> None:
        self.enter_on = tuple(TriggerRule(one, shop) for one in segment.enter_on)
        self.exit_on = tuple(TriggerRule(one, shop) for one in segment.exit_on)
        self.max_stay = parse_duration(segment.expires_after) if segment.expires_after is not None else 0
        self.expiry_timer = "untag:" + segment.name
        self.depends_on = frozenset(one.dependency for one in (*self.enter_on, *self.exit_on))
        self.references = sorted({name for one in (*self.enter_on, *self.exit_on) for name in one.references})


def static_segment_rules(segments: Sequence[Segment], shop: Shop) -> dict[str, StaticSegmentRule]:
    """Compile the static segments among these segments.

    >>> [*static_segment_rules([Segment("vip", static=True), Segment("all")], Shop())]
    ['vip']
    """
    return {segment.name: StaticSegmentRule(segment, shop) for segment in segments if segment.static}
