"""The log: the spine of attimo. One interface, two logs: SQLite (embedded) and Kafka.

    with open_log(settings) as log:
        log.append([Outgoing("clicks", b"a1", b'{"type":"page"}')])

`tests/connectors/test_log_conformance.py` holds both to what is said here.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self
from zlib import crc32

from domain.partition import partition_of
from domain.record import Outgoing, Record
from domain.streams import partitions_of

Place = tuple[str, int]
"""(stream, partition)."""


class LogError(RuntimeError):
    """The log refuses, or cannot be reached; the message says what to do."""


def partition_for(record: Outgoing, partitions: int) -> int:
    """The partition a record goes to: the given one, else its key's, else one by its value (it is forwarded later).

    >>> partition_for(Outgoing("clicks", b"foobar", b"{}"), 64), partition_for(Outgoing("clicks", None, b"{}", 7), 64)
    (62, 7)
    """
    count = partitions_of(record.stream, partitions)
    if record.partition is None:
        return crc32(record.value) % count if record.key is None else partition_of(record.key, count)
    if not 0 <= record.partition < count:
        raise LogError(f"{record.stream} has {count} partitions: there is no partition {record.partition}")
    return record.partition


class Ticket(Protocol):
    """An append under way."""

    def done(self) -> bool:
        """True once the log has the records; raises LogError when it will never have them."""
        ...


class Reader(Protocol):
    """A position in some partitions of some streams, moving forward."""

    def poll(self, limit: int, wait: float) -> list[Record]:
        """What is new: waits up to `wait` seconds for the first record, then takes what is there, up to `limit`.

        Within a partition the records of all streams come merged by (log time, stream, offset) as far as the log can
        know; the order within (stream, partition) always holds. Wakes within a fraction of a millisecond.
        """
        ...

    def caught_up(self, partition: int) -> bool:
        """Whether, at the start of the last poll, every stream of this partition had been read to its end."""
        ...

    def polled_at(self) -> int:
        """The moment (ms) up to which the end is known; never falls.

        A partition that is `caught_up` has given every record whose log time is below it, and what is appended from
        now on has a log time at or above it. So a clock may move there. The exception are records that carry their
        own log time (effects): their clock may be earlier.
        """
        ...

    def lag(self) -> dict[str, int]:
        """Records not yet read, by stream (an estimate, cheap; for metrics)."""
        ...

    def close(self) -> None: ...


class Log(Protocol):
    """Streams of partitions of records."""

    partitions: int

    def append(self, records: Sequence[Outgoing]) -> None:
        """Append, in order, and return when the log has them all; LogError when not."""
        ...

    def begin(self, records: Sequence[Outgoing]) -> Ticket:
        """Start to append, in order; the ticket tells when the log has them."""
        ...

    def reader(
        self, places: Sequence[Place], start: Mapping[Place, int], history: Mapping[Place, int] | None = None
    ) -> Reader:
        """Read these places, each after the offset in `start` (from the beginning where it is not named).

        `history` names the places that are inside recorded history, with the time it has reached there (the last
        "history" marker read). LogError when a start lies beyond the end of the log.
        """
        ...

    def latest(self) -> int:
        """The log time of the newest record in the public streams; -1 when they are empty."""
        ...

    def ends(self, places: Sequence[Place]) -> dict[Place, int]:
        """The last offset of each place (-1 for an empty one)."""
        ...

    def fetch(self, place: Place, first: int, last: int) -> list[Record]:
        """The records of one place from offset `first` to offset `last`, both included; for re-runs."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
