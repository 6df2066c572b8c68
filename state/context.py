"""What a step receives besides the person: its input and the context."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from domain.action import Effect, SegmentChange, ShardMessage
from domain.event import Event
from domain.model import Model
from domain.record import DEFAULT_PARTITIONS
from state.person.model import Person
from state.playbook.compiled import Rules

if TYPE_CHECKING:
    from state.decisions.frequency import Candidate

CONTINUE_SUFFIX = "+"
"""Appended to an input id for the input that follows at the same instant (timer `again:`)."""


class TimerFired(msgspec.Struct, frozen=True, gc=False):
    """A timer of a person fired: `kind` and `id` as set, `due` in ms. Steps handle it like an event."""

    kind: str
    id: str
    due: int

    @property
    def name(self) -> str:
        """Return "": conditions do not count timers."""
        return ""


Input = Event | TimerFired | ShardMessage


def trigger_name(event: Input) -> str:
    """Return the trigger of a decision: the event name, else time, shard_message or playbook.

    >>> trigger_name(TimerFired("session_end", "", 5)), trigger_name(TimerFired("playbook", "", 5))
    ('time', 'playbook')
    """
    if isinstance(event, TimerFired):
        return "playbook" if event.kind == "playbook" else "time"
    return "shard_message" if isinstance(event, ShardMessage) else event.name


def _no_sibling(key: str) -> Person:
    raise LookupError(f"no shard to load {key} from")


class StepContext:
    """The circumstances of one input, the same for every step.

    Fields:

    - `now`: the shard's clock in ms: the log time, never the wall clock.
    - `event_time`: when the event happened at its source, never later than `now`.
    - `late`: the event is older than `late_after` of the shop. Late events change the profile and trigger nothing.
    - `input_id`: the id of the input; `next_effect_id` derives effect ids from it.
    - `history`: the input belongs to a history import, which ends at `history_until` (timers included).
    - `changed_dependencies`: what this input may have changed (see `state/membership/changes.py`); None: all.
    - `segment_changes`: segment changes of this input, in order. `candidates`: campaigns to decide.
    - `emitted`: additional effects (coupon events, lease requests), sent after the effects of the steps.
    - `message_seq`: the number of shard messages sent; raise it before writing a message.
    - `positions`: the positions of the shard in its streams.
    - `sibling`: returns another person of the same partition, to be changed in the same commit (a code cache, for
      example). Timers set on a sibling are not scheduled.
    - `quintiles`: the learned model of kind "rfm". `secret`: the shop's secret; coupon codes are derived from it.
    """

    __slots__ = (
        "_effect_counts",
        "candidates",
        "changed_dependencies",
        "emitted",
        "event_time",
        "history",
        "history_until",
        "input_id",
        "late",
        "message_seq",
        "model",
        "now",
        "offset",
        "partition",
        "partitions",
        "positions",
        "quintiles",
        "rules",
        "secret",
        "segment_changes",
        "sibling",
        "stream",
    )

    def __init__(self, partition: int, rules: Rules, model: Model | None = None) -> None:
        self.partition = partition
        self.rules = rules
        self.model = model
        self.now = 0
        self.event_time = 0
        self.late = False
        self.input_id = ""
        self.stream = ""
        self.offset = 0
        self.history = False
        self.history_until = 0
        self.message_seq = 0
        self.changed_dependencies: list[str] | None = None
        self.segment_changes: list[SegmentChange] = []
        self.candidates: list[Candidate] = []
        self.emitted: list[Effect] = []
        self.quintiles: Model | None = None
        self.secret = b""
        self.partitions = DEFAULT_PARTITIONS
        self.positions: Mapping[str, int] = {}
        self.sibling: Callable[[str], Person] = _no_sibling
        self._effect_counts: Counter[str] = Counter()

    def start_input(self, input_id: str, now: int, event_time: int) -> None:
        """Begin the next input."""
        self.input_id, self.now, self.event_time, self.changed_dependencies = input_id, now, event_time, None
        self.late = now - event_time >= self.rules.late_after
        self.history = now <= self.history_until
        if self.segment_changes:
            self.segment_changes = []
        if self.candidates:
            self.candidates = []
        if self.emitted:
            self.emitted = []
        if self._effect_counts:
            self._effect_counts.clear()

    def continuation_depth(self) -> int:
        """Return how many inputs have followed one another at this instant."""
        return len(self.input_id) - len(self.input_id.rstrip(CONTINUE_SUFFIX))

    def next_effect_id(self, step: str) -> str:
        """Return the next effect id of `step` within this input."""
        n = self._effect_counts[step]
        self._effect_counts[step] = n + 1
        return f"{self.input_id}-{step}-{n}"


class StepFunction(Protocol):
    """A step: changes the person in place and returns effects."""

    def __call__(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]: ...


class InvalidEvent(ValueError):
    """An event that cannot be applied; raised before any change. Names the field and the reason.

    >>> str(InvalidEvent("properties.price", "should be a number, is 'abc'"))
    "properties.price: should be a number, is 'abc'"
    """

    def __init__(self, field: str, reason: str, kind: str = "invalid") -> None:
        super().__init__(f"{field}: {reason}")
        self.kind = kind
