"""Backfill: computes the counters that a new playbook adds from the log, before that playbook goes live.

    the log from its beginning ─▶ CounterBackfill by partition, in small steps ─▶ swap to the new playbook

The live playbook keeps deciding meanwhile. The swap follows when the backfill has reached the position of every shard.

Forwarded records: if a person was merged into another one, the shard forwards later records of the old id as shard
messages, and the holder of the merged person counts them. The backfill counts each such record once: from its shard
message, or in its own partition if it is so old that retention may have deleted the message. (Shard messages have a
shorter retention than events.)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from connectors.log.log import Log, StreamPartition, merge_key
from domain.event import Event
from domain.record import SHARD_INPUT_STREAMS, Record
from operators.update_profile import is_parsable
from state.conditions.counters import CounterSpec
from state.person.model import FirstMerge, ordered_positions
from state.playbook.compiled import Rules
from state.shard.backfill import BackfilledCounters, CounterBackfill, new_counters, only_new
from state.shard.shard import Shard

DAY: Final = 86_400_000
MIN_FORWARD_AGE: Final = 2 * DAY
"""Minimum age of a forwarded record to be counted in its own partition: its shard message has long been read."""
CUTOFF_STEP: Final = 10 * DAY
"""Granularity of the cutoff, so that shards whose clocks differ by seconds use the same one."""


def cutoff(clock: int) -> int:
    """Time in ms after which forwarded records count by shard message; earlier ones count in their own partition.

    >>> cutoff(25 * DAY) // DAY, cutoff(31 * DAY) // DAY, cutoff(32 * DAY) // DAY
    (20, 20, 30)
    """
    return (clock - MIN_FORWARD_AGE) // CUTOFF_STEP * CUTOFF_STEP


class ForwardedRecords:
    """Tells which records of a shard, up to its position, were forwarded; merges are looked up once per person."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._cache: dict[str, tuple[FirstMerge | None, Sequence[int]]] = {}

    def __call__(self, key: str, stream: str, offset: int) -> bool:
        """Whether this record of `key` was forwarded."""
        rank = SHARD_INPUT_STREAMS.index(stream)
        merge, checked_to = self._cache.get(key, (None, ()))
        if merge is None and (not checked_to or offset > checked_to[rank]):
            person = self._shard.cache.peek(key)
            merge = person.first_merge if person is not None else None
            self._cache[key] = merge, ordered_positions(self._shard.checkpoint.positions)
        return merge is not None and offset > merge.positions[rank]


RECORDS_PER_STEP = 500
"""Records per step, which takes a few milliseconds."""


class Backfill:
    """The backfill of one new playbook for these shards."""

    def __init__(self, log: Log, shards: Mapping[int, Shard], rules: Rules, specs: Mapping[str, CounterSpec]) -> None:
        self.rules = rules
        self._log, self._shards, self._specs = log, shards, specs
        self._stream_partitions = [(stream, partition) for stream in SHARD_INPUT_STREAMS for partition in shards]
        self._restart()

    def _restart(self) -> None:
        self._reader = self._log.reader(self._stream_partitions, {})
        self._positions: dict[StreamPartition, int] = {}
        self._read_ahead: dict[StreamPartition, list[Record]] = {}
        self._cutoffs = self._current_cutoffs()
        readable = event_filter(self.rules)
        self._counter_backfills = {
            partition: CounterBackfill(self._specs, readable, ForwardedRecords(shard), self._cutoffs[partition])
            for partition, shard in self._shards.items()
        }

    def _current_cutoffs(self) -> dict[int, int]:
        return {partition: cutoff(shard.checkpoint.clock) for partition, shard in self._shards.items()}

    def step(self) -> bool:
        """Read some records; return whether the backfill has reached the positions of all shards."""
        records = self._reader.poll(RECORDS_PER_STEP, 0.0)
        for record in records:
            stream_partition = record.stream, record.partition
            self._positions[stream_partition] = record.offset
            if stream_partition in self._read_ahead or record.offset > self._shard_position(stream_partition):
                self._read_ahead.setdefault(stream_partition, []).append(record)
            else:
                self._counter_backfills[record.partition].read(record)
        if len(records) == RECORDS_PER_STEP or not all(map(self._is_caught_up, self._stream_partitions)):
            return False
        if self._cutoffs != self._current_cutoffs():  # the cutoff has moved (every 10 days): start again
            self.close()
            self._restart()
            return False
        return True

    def _is_caught_up(self, stream_partition: StreamPartition) -> bool:
        """Whether the backfill has read all that the shard has read there and that is still in the log."""
        read, target = self._positions.get(stream_partition, -1), self._shard_position(stream_partition)
        if (
            read < target
            and self._reader.caught_up(stream_partition[1])
            and not self._log.fetch(stream_partition, read + 1, target)
        ):
            self._positions[stream_partition] = read = target
        return read >= target

    def finish(self) -> dict[int, BackfilledCounters]:
        """Return the counters by partition, exactly up to the shards' positions. Call it once `step` returns True."""
        while not self.step():
            pass
        for record in _merge_records(self._read_ahead.values()):
            if record.offset <= self._shard_position((record.stream, record.partition)):
                self._counter_backfills[record.partition].read(record)
        self._read_ahead.clear()
        self.close()
        return {partition: backfill.result() for partition, backfill in self._counter_backfills.items()}

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def _shard_position(self, stream_partition: StreamPartition) -> int:
        return self._shards[stream_partition[1]].checkpoint.positions.get(stream_partition[0], -1)


def event_filter(rules: Rules) -> Callable[[Event], bool]:
    """Return a function: whether the engine applies an event under these rules."""
    return lambda event: is_parsable(event, rules)


def rebuild_backfill(
    shard: Shard, previous: Rules, rules: Rules, fetch: Callable[[StreamPartition, int, int], list[Record]]
) -> BackfilledCounters:
    """Compute again, from the log, the counters that `rules` added to `previous`, up to the shard's positions."""
    specs = new_counters(rules.counter_specs, previous.counter_specs)
    backfill = CounterBackfill(specs, event_filter(rules), ForwardedRecords(shard), cutoff(shard.checkpoint.clock))
    if specs:
        for record in _merge_records(
            fetch((stream, shard.partition), 0, position) for stream, position in shard.checkpoint.positions.items()
        ):
            backfill.read(record)
    return only_new(backfill.result(), previous.counter_specs)


def _merge_records(batches: Iterable[Sequence[Record]]) -> list[Record]:
    """Merge records by stream and partition into reader order. Bounded counters keep the newest, so order matters."""
    merged: list[Record] = []
    for records in batches:
        last = 0
        for record in records:
            last = max(last, record.log_time)
            merged.append(record if record.log_time == last else record._replace(log_time=last))
    return sorted(merged, key=merge_key)
