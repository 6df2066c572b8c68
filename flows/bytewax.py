"""The adapters between Bytewax and the worker: a source, a keyed step and a sink (`flows/onsite.py`).

One source per Bytewax worker reads all of its input. Batches are keyed by shard, so the result does not depend on the
number of workers.

Garbage collection: Python's automatic collector is off, since a full collection takes tens of milliseconds and people
hold no reference cycles. Instead, the sink collects the young generation between two batches and freezes the rest.

Clean stop: SIGTERM and SIGINT set a flag; the source reads it and ends its input.
"""

import gc
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Final

from bytewax import operators as op
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from domain.settings import Settings
from flows.worker import ShardBatch, Worker
from state.context import StepFunction

MIN_YOUNG_OBJECTS: Final = 2_000
"""New containers that make a young collection worthwhile. It takes 0.3 to 0.5 ms after batches of about 50 events, and
up to 5 ms after batches of several hundred."""


def collect_and_freeze() -> None:
    """Collect everything once (tenths of a second), freeze it, and turn off the automatic collector."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.disable()


def collect_young() -> None:
    """Collect and freeze the young generation if it is large enough."""
    if gc.get_count()[0] >= MIN_YOUNG_OBJECTS:
        gc.collect(0)
        gc.freeze()


def restore_gc() -> None:
    """Turn the automatic collector on again."""
    gc.unfreeze()
    gc.enable()


class StopFlag:
    """Whether this process was asked to stop."""

    requested: bool = False


def handle_stop_signals() -> None:
    """Make SIGTERM and SIGINT request a clean stop."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        StopFlag.requested = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


_IMMEDIATELY = datetime(2000, 1, 1, tzinfo=UTC)
"""Call `next_batch` again at once: it waits itself. (With a time just past, Bytewax waits another 0.1 ms.)"""


class Workers:
    """The workers of this process by Bytewax worker index: the source and the sink with one index share one worker.

    `share` (i, n): this process takes the partitions p with p mod n = i.
    """

    def __init__(self, settings: Settings, steps: Sequence[StepFunction], share: tuple[int, int]) -> None:
        self.settings, self.steps, self.share = settings, steps, share
        self._by_index: dict[int, Worker] = {}

    def get(self, index: int) -> Worker:
        """Return the worker of this index; the first call makes it, in the thread that will use it."""
        if index not in self._by_index:
            self._by_index[index] = Worker(self.settings, self.steps)
        return self._by_index[index]

    def partitions(self, index: int, count: int) -> list[int]:
        """Return the partitions that worker `index` of `count` reads."""
        i, n = self.share
        return [p for p in range(self.settings.partitions) if p % n == i][index::count]


class _LogSourcePartition(StatelessSourcePartition[tuple[str, ShardBatch]]):
    def __init__(self, worker: Worker, partitions: Sequence[int], single_worker: bool) -> None:
        self.worker, self.partitions = worker, partitions
        if single_worker:
            worker.claim_partitions(partitions)
        self.reader = worker.reader(partitions)
        collect_and_freeze()

    def next_batch(self) -> list[tuple[str, ShardBatch]]:
        if StopFlag.requested:
            raise StopIteration
        if self.worker.playbook_retired():
            collect_and_freeze()
        return self.worker.read(self.reader, self.partitions)

    def next_awake(self) -> datetime | None:
        return _IMMEDIATELY

    def close(self) -> None:
        self.reader.close()
        restore_gc()


class LogSource(DynamicSource[tuple[str, ShardBatch]]):
    """The partitioned input: each worker reads its partitions and gives one batch per shard."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _LogSourcePartition:
        worker, partitions = self.workers.get(worker_index), self.workers.partitions(worker_index, worker_count)
        return _LogSourcePartition(worker, partitions, single_worker=worker_count == 1)


class RouteToShard(op.StatefulBatchLogic[ShardBatch, ShardBatch, int]):
    """The keyed step: Bytewax moves each batch to the worker that owns the shard, and keeps the batches in order.

    The state of a shard is in the store, so the snapshot for Bytewax's recovery is empty.
    """

    def on_batch(self, values: list[ShardBatch]) -> tuple[list[ShardBatch], bool]:
        return values, False

    def snapshot(self) -> int:
        return 0


class _ShardPartition(StatelessSinkPartition[tuple[str, ShardBatch]]):
    def __init__(self, worker: Worker) -> None:
        self.worker, self._failed = worker, False

    def write_batch(self, items: list[tuple[str, ShardBatch]]) -> None:
        try:
            for _, batch in items:
                self.worker.apply(batch)
            self.worker.publish()
        except BaseException:  # `close` must not fail a second time
            self._failed = True
            raise
        collect_young()  # after publishing, when no response waits for it

    def close(self) -> None:
        if self._failed:  # a second failure here would hide the first one
            self.worker.close()
        else:
            self.worker.drain_and_close()


class ShardSink(DynamicSink[tuple[str, ShardBatch]]):
    """The output: apply the batches, then one commit for all changed shards of the worker, then Redis and the log."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _ShardPartition:
        return _ShardPartition(self.workers.get(worker_index))
