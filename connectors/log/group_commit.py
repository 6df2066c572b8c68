"""Group commit: concurrent requests share one append to the log.

One append has at most 50 records, so that other writers of the log do not wait long.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from connectors.log.log import Log, LogError, PendingAppend
from connectors.metrics import EDGE_APPEND_DURATION
from domain.record import NewRecord

MAX_GROUP_RECORDS: Final = 50
MAX_QUEUED_RECORDS: Final = 50_000
"""Maximum number of queued records; further appends are rejected."""


class _AppendRequest:
    """The records of one caller, possibly in several groups; complete when all are appended or failed."""

    __slots__ = ("error", "future", "remaining")

    def __init__(self, remaining: int, future: asyncio.Future[None]) -> None:
        self.remaining, self.future = remaining, future
        self.error: LogError | None = None

    def complete(self, error: LogError | None) -> None:
        """Count one record as appended or failed."""
        self.remaining -= 1
        self.error = self.error or error
        if self.remaining or self.future.done():
            return
        if self.error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(LogError(str(self.error)))


_PendingGroup = tuple[PendingAppend, list[_AppendRequest], float]


class GroupCommit:
    """Appends on the event loop of the caller. SQLite appends take microseconds; Kafka appends are polled."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._queue: deque[tuple[NewRecord, _AppendRequest]] = deque()
        self._pending: deque[_PendingGroup] = deque()
        self._flush_scheduled = False
        self._pending_task: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[NewRecord]) -> None:
        """Append in order and return when all records are in the log; raise LogError if any fails."""
        if not records:
            return
        if len(self._queue) + len(records) > MAX_QUEUED_RECORDS:
            raise LogError(f"log: more than {MAX_QUEUED_RECORDS} events are queued")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = _AppendRequest(len(records), future)
        self._queue.extend((record, request) for record in records)
        self._schedule()
        await future

    def _schedule(self) -> None:
        if self._queue and not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        group = [self._queue.popleft() for _ in range(min(MAX_GROUP_RECORDS, len(self._queue)))]
        requests = [request for _, request in group]
        started = time.perf_counter()
        try:
            pending = self._log.start_append([record for record, _ in group])
            done = pending.done()
        except LogError as error:
            _complete_all(requests, error)
        else:
            if done:
                EDGE_APPEND_DURATION.observe(time.perf_counter() - started)
                _complete_all(requests, None)
            else:
                self._pending.append((pending, requests, started))
                if self._pending_task is None or self._pending_task.done():
                    self._pending_task = asyncio.get_running_loop().create_task(self._await_pending())
        self._schedule()

    async def _await_pending(self) -> None:
        """Poll the pending appends in order, without blocking the event loop."""
        pause = 0.0005
        while self._pending:
            pending, requests, started = self._pending[0]
            try:
                done = pending.done()
            except LogError as error:
                self._pending.popleft()
                _complete_all(requests, error)
                continue
            if done:
                self._pending.popleft()
                EDGE_APPEND_DURATION.observe(time.perf_counter() - started)
                _complete_all(requests, None)
                pause = 0.0005
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.02)


def _complete_all(requests: Sequence[_AppendRequest], error: LogError | None) -> None:
    for request in requests:
        request.complete(error)
