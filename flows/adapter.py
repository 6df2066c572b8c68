"""Between Bytewax and the worker: a source, a keyed step, a sink; nothing but hand-over.

One source per Bytewax worker reads everything that worker needs; the work is keyed by shard, so several workers give
the same answers: a shard lives where its key lands. What is remembered is in the store; Bytewax's snapshots are tokens.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bytewax import operators as op
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from domain.settings import Settings
from flows import garbage
from flows.stopping import Stopping
from flows.worker import Work, Worker
from state.context import Step

_workers: dict[int, Worker] = {}

_AT_ONCE = datetime(2000, 1, 1, tzinfo=UTC)
"""Come back at once: the wait is inside `next_batch`. (A moment that is just past makes Bytewax wait 0.1 ms more.)"""


def worker_here(settings: Settings, steps: Sequence[Step]) -> Worker:
    """The worker of this thread: Bytewax runs one worker a thread.

    Found by the thread's number: Bytewax's threads are not Python's, and what `threading.local` keeps for them is gone
    whenever they let go of the interpreter.
    """
    here = threading.get_ident()
    worker = _workers.get(here)
    if worker is None:
        worker = _workers[here] = Worker(settings, steps)
    return worker


class _Reading(StatelessSourcePartition[tuple[str, Work]]):
    def __init__(self, worker: Worker, partitions: Sequence[int], alone: bool) -> None:
        self.worker, self.partitions = worker, partitions
        if alone:
            worker.own(partitions)
        self.reader = worker.reader(partitions)
        garbage.settle()

    def next_batch(self) -> list[tuple[str, Work]]:
        if Stopping.now:
            raise StopIteration
        if self.worker.has_let_go():
            garbage.settle()
        return self.worker.read(self.reader, self.partitions)

    def next_awake(self) -> datetime | None:
        return _AT_ONCE

    def close(self) -> None:
        self.reader.close()
        garbage.leave()


class FromLog(DynamicSource[tuple[str, Work]]):
    """Everything a worker needs, from one place. Worker i of n (process or Bytewax worker) takes p mod n = i."""

    def __init__(self, settings: Settings, steps: Sequence[Step], share: tuple[int, int]) -> None:
        self.settings, self.steps, self.share = settings, steps, share

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Reading:
        i, n = self.share
        mine = [p for p in range(self.settings.partitions) if p % n == i]
        here = [p for at, p in enumerate(mine) if at % worker_count == worker_index]
        return _Reading(worker_here(self.settings, self.steps), here, alone=worker_count == 1)


class Shards(op.StatefulBatchLogic[Work, int, tuple[str, int]]):
    """The keyed step: hands one shard its work."""

    def __init__(self, settings: Settings, steps: Sequence[Step]) -> None:
        self.settings, self.steps = settings, steps

    def on_batch(self, values: list[Work]) -> tuple[list[int], bool]:
        worker = worker_here(self.settings, self.steps)
        for work in values:
            worker.apply(work)
        return [values[0][0]], False

    def snapshot(self) -> tuple[str, int]:
        return ("shard", 1)


class _Publishing(StatelessSinkPartition[Any]):
    def __init__(self, worker: Worker) -> None:
        self.worker, self._failed = worker, False

    def write_batch(self, items: list[Any]) -> None:
        try:
            self.worker.publish()
        except BaseException:  # passed on: noted, so that closing does not fail once more
            self._failed = True
            raise
        garbage.step()  # who waited for an answer has it

    def close(self) -> None:
        if self._failed:  # Bytewax closes what failed, too: to fail once more here would end it without a word of why
            self.worker.leave()
        else:
            self.worker.finish()
        _workers.pop(threading.get_ident(), None)


class ToOutside(DynamicSink[Any]):
    """One commit for everything the worker's shards did, then Redis and the log."""

    def __init__(self, settings: Settings, steps: Sequence[Step]) -> None:
        self.settings, self.steps = settings, steps

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Publishing:
        return _Publishing(worker_here(self.settings, self.steps))

