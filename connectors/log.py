"""The log: the spine of attimo. One interface, two logs: SQLite (embedded) and Kafka.

    with open_log(settings) as log:
        log.append([Outgoing("clicks", b"a1", b'{"type":"page"}')])

`tests/connectors/test_log_conformance.py` holds both to what is said here.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from domain.record import Outgoing, Record

Place = tuple[str, int]
"""(stream, partition)."""


class LogError(RuntimeError):
    """The log refuses, or cannot be reached; the message says what to do."""


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

    def reader(self, places: Sequence[Place], start: Mapping[Place, int]) -> Reader:
        """Read these places, each after the offset in `start` (from the beginning where it is not named).

        LogError when a start lies beyond the end of the log.
        """
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
