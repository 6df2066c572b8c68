"""The store interface: where a worker stores its shards.

All changes of one batch are written by one atomic `commit`: persons, checkpoints, due times, outbox, batch records.
Values are bytes and plain numbers; the store does not interpret them.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from domain.action import OutboxRow


class StoreError(RuntimeError):
    """The store refuses: another owner, another version, or another number of partitions."""


HISTORY_OPEN = 1 << 60
"""Later than any time (ms): the history import is running."""


class ShardCheckpoint(msgspec.Struct, array_like=True):
    """The state of a shard: its clock (ms), the last applied offset per stream, the number of shard messages sent.

    `history_reached` holds the progress of a history import per public stream (ms). Inputs up to `history_until` belong
    to the import; it is HISTORY_OPEN while the import runs, then its last moment. `playbook_stamp` is the playbook (and
    the quintiles) of the last re-evaluation; while one runs, `reevaluated_to` is the last person re-evaluated
    (`state/shard/reevaluation.py`), else None.
    """

    clock: int = 0
    positions: dict[str, int] = {}
    message_seq: int = 0
    history_reached: dict[str, int] = {}
    playbook_stamp: str = ""
    reevaluated_to: str | None = None
    history_until: int = 0


class BatchRecord(msgspec.Struct, array_like=True, frozen=True):
    """The input of one batch of one shard, for an exact replay.

    `offset_ranges` are the offsets read, in order: (index in SHARD_INPUT_STREAMS, first, last). `tick` is the time of
    the tick, 0 for none, -1 if timers of other persons waited too.
    """

    partition: int
    clock_before: int
    clock_after: int
    offset_ranges: tuple[tuple[int, int, int], ...]
    tick: int
    playbook_hash: str
    model_hash: str


class WriteBatch:
    """The changes of one commit."""

    __slots__ = ("batch_records", "checkpoints", "due_times", "outbox_rows", "persons")

    def __init__(self) -> None:
        self.persons: dict[tuple[int, str], bytes | None] = {}
        self.due_times: dict[tuple[int, str], int | None] = {}
        self.checkpoints: dict[int, ShardCheckpoint] = {}
        self.outbox_rows: list[OutboxRow] = []
        self.batch_records: list[BatchRecord] = []

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.persons or self.outbox_rows)


class Store(Protocol):
    """The store as one worker uses it."""

    def claim(self, partitions: Sequence[int], owner: str) -> None:
        """Become the owner of these shards; former owners can no longer commit to them."""
        ...

    def shard_checkpoint(self, partition: int) -> ShardCheckpoint: ...

    def person(self, partition: int, person: str) -> bytes | None: ...

    def person_ids(self, partition: int, after: str, limit: int) -> list[str]:
        """Return at most `limit` person ids of a shard after `after`, in order."""
        ...

    def due_persons(self, partition: int, after: tuple[int, str], until: int, limit: int) -> list[tuple[int, str]]:
        """Return at most `limit` (due, person) after `after` with due <= until, soonest first."""
        ...

    def due_time(self, partition: int, person: str) -> int | None: ...

    def next_due(self, partition: int) -> int | None: ...

    def commit(self, batch: WriteBatch, sent: Sequence[int]) -> int:
        """Write a batch and delete the outbox rows of the commits `sent`.

        Return the number that the rows of this commit share (0 without rows). Raise StoreError if a shard has another
        owner.
        """
        ...

    def outbox(self) -> list[OutboxRow]:
        """Return the effects not known to be sent, oldest first."""
        ...

    def batch_records(self, partition: int) -> list[BatchRecord]: ...

    def put_blob(self, kind: str, hash: str, content: bytes) -> None:
        """Store a playbook or a model by its content hash, for replays."""
        ...

    def put_named(self, kind: str, name: str, content: bytes) -> None:
        """Store the latest value of a named blob ("live", "playbook")."""
        ...

    def get_blob(self, kind: str, hash: str) -> bytes | None: ...

    def maintain(self) -> None:
        """Do maintenance between batches, for a few milliseconds."""
        ...

    def close(self) -> None: ...
