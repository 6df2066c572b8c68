"""The store: where a worker keeps its shards. An interface, so that SQLite and others answer alike.

Everything one batch changed goes in with one `commit`, whole or not at all: persons, positions, due times, outbox,
turns.
Values are bytes and plain numbers; the store knows nothing of what they mean.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from domain.effect import Row


class StoreError(RuntimeError):
    """The store refuses: another owner, another version, another number of partitions."""


ALWAYS = 1 << 60
"""Later than any time (ms): that recorded days have not ended yet."""


class Head(msgspec.Struct, array_like=True):
    """Where a shard stands: its clock (ms), the last offset applied of each stream, the letters it has sent.

    `history` holds, while recorded days are being read, how far each public stream has been reached (ms); what is not
    later than `recorded` belongs to recorded days, `ALWAYS` while they are being read, then their last moment.
    `rules` is the playbook (and the population's cuts) that everybody was last looked at with; while that goes on,
    `sweep` is the last person looked at (`state/sweep.py`), else None.
    """

    clock: int = 0
    positions: dict[str, int] = {}
    letters: int = 0
    history: dict[str, int] = {}
    rules: str = ""
    sweep: str | None = None
    recorded: int = 0


class Turn(msgspec.Struct, array_like=True, frozen=True):
    """What one batch of one shard was made of: enough to run it again, exactly.

    `runs` are the offsets read, in order: (index in SHARD_INPUT, first, last). `tick` is the moment it ticked to, 0
    for none, or -1 where other people's timers waited, too.
    """

    partition: int
    clock_before: int
    clock_after: int
    runs: tuple[tuple[int, int, int], ...]
    tick: int
    rules: str
    model: str


class Batch:
    """All that one commit writes."""

    __slots__ = ("dues", "heads", "persons", "rows", "turns")

    def __init__(self) -> None:
        self.persons: dict[tuple[int, str], bytes | None] = {}
        self.dues: dict[tuple[int, str], int | None] = {}
        self.heads: dict[int, Head] = {}
        self.rows: list[Row] = []
        self.turns: list[Turn] = []

    def __bool__(self) -> bool:
        return bool(self.heads or self.persons or self.rows)


class Store(Protocol):
    """One worker's view of the store."""

    def claim(self, partitions: Sequence[int], owner: str) -> None:
        """Become the owner of these shards; from now on, nobody who owned them before can commit to them."""
        ...

    def head(self, partition: int) -> Head: ...

    def person(self, partition: int, person: str) -> bytes | None: ...

    def ids(self, partition: int, after: str, limit: int) -> list[str]:
        """The ids of a shard's persons behind `after`, in order, at most `limit`."""
        ...

    def dues(self, partition: int, after: tuple[int, str], until: int, limit: int) -> list[tuple[int, str]]:
        """(due, person) after `after` with due <= until, soonest first, at most `limit`."""
        ...

    def due(self, partition: int, person: str) -> int | None: ...

    def next_due(self, partition: int) -> int | None: ...

    def commit(self, batch: Batch, sent: Sequence[int]) -> int:
        """Write a batch and forget the outbox rows of the commits `sent`; StoreError when a shard has another owner.

        The rows of one commit share a number, which is returned (0 without rows).
        """
        ...

    def outbox(self) -> list[Row]:
        """What was decided and is not known to have been sent, oldest first."""
        ...

    def turns(self, partition: int) -> list[Turn]: ...

    def keep(self, kind: str, hash: str, content: bytes) -> None:
        """Keep a playbook or a model by its content hash, for re-runs."""
        ...

    def note(self, kind: str, name: str, content: bytes) -> None:
        """Keep the latest value of something that has a name ("live", "playbook")."""
        ...

    def kept(self, kind: str, hash: str) -> bytes | None: ...

    def tidy(self) -> None:
        """House-keeping, when everybody has been told: a few milliseconds now and then."""
        ...

    def close(self) -> None: ...
