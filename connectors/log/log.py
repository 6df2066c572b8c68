"""The log interface, implemented by SQLite (embedded) and Kafka, and the merge of streams by log time.

    with open_log(settings) as log:
        log.append([NewRecord("clicks", b"a1", b'{"type":"page"}')])

`tests/connectors/log/test_conformance.py` tests both implementations against this interface.

A shard reads its streams merged by (log time, stream, offset). Each merge input has a watermark: no later record of it
has a lower log time. Records below the lowest watermark of all inputs are released; the others wait.

>>> clicks, carts = MergeInput(), MergeInput()
>>> clicks.records = [Record("clicks", 0, 1, 10, None, b""), Record("clicks", 0, 2, 30, None, b"")]
>>> carts.records = [Record("carts", 0, 1, 20, None, b"")]
>>> clicks.watermark, carts.watermark = 30, 20
>>> [record.log_time for record in release_ready([clicks, carts])]
[10]
>>> carts.watermark = AT_END
>>> [record.log_time for record in release_ready([clicks, carts])]
[20]
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, Self
from zlib import crc32

from domain.record import ALL_STREAMS, SHARD_INPUT_STREAMS, NewRecord, Record, partition_count, partition_of

StreamPartition = tuple[str, int]
"""(stream, partition)."""


class LogError(RuntimeError):
    """The log rejects a request or is unavailable. The message says how to fix it."""


def partition_for(record: NewRecord, partitions: int) -> int:
    """Return the partition of a record: the given one, else by key, else by value (it is forwarded later).

    >>> partition_for(NewRecord("clicks", b"foobar", b"{}"), 64), partition_for(NewRecord("clicks", None, b"{}", 7), 64)
    (62, 7)
    """
    count = partition_count(record.stream, partitions)
    if record.partition is None:
        return crc32(record.value) % count if record.key is None else partition_of(record.key, count)
    if not 0 <= record.partition < count:
        raise LogError(f"stream {record.stream} has no partition {record.partition}; it has {count} partitions")
    return record.partition


class PendingAppend(Protocol):
    """An append that may not be complete yet."""

    def done(self) -> bool:
        """Return True if the records are in the log. Raise LogError if the append failed."""
        ...


class Reader(Protocol):
    """Reads some partitions of some streams, forward from a position."""

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """Return up to `limit` new records; wait up to `timeout` seconds for the first one.

        The order within (stream, partition) always holds. Within a partition, streams are merged by (log time, stream,
        offset) as far as the log allows. A waiting reader wakes up within a millisecond of an append.
        """
        ...

    def caught_up(self, partition: int) -> bool:
        """Return True if every stream of this partition was read to its end at the start of the last poll."""
        ...

    def watermark(self) -> int:
        """Return the time (ms) below which no more records are expected; it never decreases.

        A partition that is `caught_up` has returned every record below it, and new appends get a log time at or above
        it, so the clock of a shard may advance to it. Records with their own log time (effects) may be earlier.
        """
        ...

    def lag(self) -> dict[str, int]:
        """Return an estimate of the unread records by stream, for metrics."""
        ...

    def close(self) -> None: ...


class Log(Protocol):
    """Streams of partitions of records."""

    partitions: int

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append in order and return when all records are in the log; raise LogError if not."""
        ...

    def start_append(self, records: Sequence[NewRecord]) -> PendingAppend:
        """Start to append in order, without waiting for the log."""
        ...

    def reader(
        self,
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        history_progress: Mapping[StreamPartition, int] | None = None,
    ) -> Reader:
        """Return a reader of `stream_partitions`, each after its offset in `positions` (else from the beginning).

        `history_progress` names those inside recorded history, with the time of the last history marker read. Raise
        LogError if a position is beyond the end of the log.
        """
        ...

    def latest_log_time(self) -> int:
        """Return the log time of the newest record in the public streams; -1 if they are empty."""
        ...

    def end_offsets(self, stream_partitions: Sequence[StreamPartition]) -> dict[StreamPartition, int]:
        """Return the last offset of each stream partition; -1 if it is empty."""
        ...

    def fetch(self, stream_partition: StreamPartition, first: int, last: int) -> list[Record]:
        """Return the records of one stream partition from offset `first` to `last`, both included; for replays."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


NOTHING_READ: Final = -1
"""Watermark of an input that was not read yet."""
AT_END: Final = 1 << 62
"""Watermark of an input that was read to its end."""

STREAM_RANK: Final = {
    stream: rank
    for rank, stream in enumerate(
        [*SHARD_INPUT_STREAMS, *(name for name in ALL_STREAMS if name not in SHARD_INPUT_STREAMS)]
    )
}
"""Order of records with the same log time."""


def merge_key(record: Record) -> tuple[int, int, int]:
    """Return the sort key of a merge.

    >>> merge_key(Record("carts", 3, 7, 1000, None, b""))
    (1000, 1, 7)
    """
    return record[3], STREAM_RANK[record[0]], record[2]


class MergeInput:
    """Records read but not released, in log order; no later record of this input is below `watermark`."""

    __slots__ = ("records", "watermark")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.watermark = NOTHING_READ


def release_ready(inputs: Sequence[MergeInput]) -> list[Record]:
    """Remove and return the records below the lowest watermark, merged."""
    horizon = min(source.watermark for source in inputs)
    released: list[Record] = []
    for source in inputs:
        if records := source.records:
            if horizon == AT_END:
                released += records
                source.records = []
            else:
                released += [record for record in records if record[3] < horizon]
                source.records = [record for record in records if record[3] >= horizon]
    if len(released) > 1:
        released.sort(key=merge_key)
    return released
