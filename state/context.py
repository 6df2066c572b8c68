"""What a step is given besides the person and the event, and what may happen to a person."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from domain.action import Move
from domain.effect import Effect
from domain.event import Event
from domain.letter import Letter
from domain.model import Model
from domain.streams import PARTITIONS
from state.person import Person
from state.rules import Rules

AGAIN = "+"
"""What is added to the origin of a happening for the one that follows it at once (the timer `again:`)."""


class Due(msgspec.Struct, frozen=True, gc=False):
    """A timer of a person has come: `kind` and `id` as it was set, `due` in ms. Steps see it like an event."""

    kind: str
    id: str
    due: int

    @property
    def name(self) -> str:
        """No condition counts timers."""
        return ""


Happening = Event | Due | Letter


def occasion_of(event: Happening) -> str:
    """What happened, in a word: the event's name, else time, letter or playbook.

    >>> occasion_of(Due("session_end", "", 5)), occasion_of(Due("playbook", "", 5))
    ('time', 'playbook')
    """
    if isinstance(event, Due):
        return "playbook" if event.kind == "playbook" else "time"
    return "letter" if isinstance(event, Letter) else event.name


def _nobody(key: str) -> Person:
    raise LookupError(f"no shard is here to ask for {key}")


class Context:
    """The circumstances of one happening, the same for every step.

    `now` is the shard's clock in ms: the log time of what was read, never the wall clock. `event_time` is when the
    event happened at its source (never later than `now`); `late` is true when that is longer ago than the shop's
    `late_after`: what happened is folded, but begins nothing. `origin` names the happening; `id(step)` gives the
    next effect id of a step. `moves` are the segment moves of this happening, in order. `history` is true of what
    belongs to recorded days: of all that is not later than `recorded`, also of a timer that fires when they were read.
    `changed` are the needs of conditions that this happening may have changed
    (`state/changes.py`; None: anything). `letters` counts the letters the shard has sent: who writes one raises it
    first. `positions` is where the shard stands in its streams. `neighbour` gives another person of the same shard, to
    be changed like the one at hand (a desk that hands out coupons, say; whoever is asked for must live in this
    partition of `partitions`, and new timers are not noticed).
    `quintiles` is the learned model of kind "rfm". `secret` is the shop's secret: codes are derived from it. `news` are
    effects of what a step asked for on the way (a coupon, the letters of desks); they go out behind those of the steps.
    """

    __slots__ = ("_counts", "changed", "event_time", "history", "late", "letters", "model", "moves", "neighbour",
                 "news", "now", "offset", "origin", "partition", "partitions", "positions", "proposals", "quintiles",
                 "recorded", "rules", "secret", "stream")

    def __init__(self, partition: int, rules: Rules, model: Model | None = None) -> None:
        self.partition = partition
        self.rules = rules
        self.model = model
        self.now = 0
        self.event_time = 0
        self.late = False
        self.origin = ""
        self.stream = ""
        self.offset = 0
        self.history = False
        self.recorded = 0
        self.letters = 0
        self.changed: list[str] | None = None
        self.moves: list[Move] = []
        self.proposals: list[Any] = []
        self.news: list[Effect] = []
        self.quintiles: Model | None = None
        self.secret = b""
        self.partitions = PARTITIONS
        self.positions: Mapping[str, int] = {}
        self.neighbour: Callable[[str], Person] = _nobody
        self._counts: Counter[str] = Counter()

    def begin(self, origin: str, now: int, event_time: int) -> None:
        """Turn to the next happening."""
        self.origin, self.now, self.event_time, self.changed = origin, now, event_time, None
        self.late = now - event_time >= self.rules.late_after
        self.history = now <= self.recorded
        if self.moves:
            self.moves = []
        if self.proposals:
            self.proposals = []
        if self.news:
            self.news = []
        if self._counts:
            self._counts.clear()

    def at_once(self) -> int:
        """How many happenings have followed each other at this one instant, each because of the one before."""
        return len(self.origin) - len(self.origin.rstrip(AGAIN))

    def id(self, step: str) -> str:
        """The next effect id of `step` within this happening."""
        n = self._counts[step]
        self._counts[step] = n + 1
        return f"{self.origin}-{step}-{n}"


class Step(Protocol):
    """The shape of a verb: it changes the person in place and says what should be done outside."""

    def __call__(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]: ...


class Unreadable(ValueError):
    """An event that cannot be folded: raised before anything was changed. It names the field and the reason.

    >>> str(Unreadable("properties.price", "should be a number, is 'abc'"))
    "properties.price: should be a number, is 'abc'"
    """

    def __init__(self, field: str, reason: str, kind: str = "unreadable") -> None:
        super().__init__(f"{field}: {reason}")
        self.kind = kind
