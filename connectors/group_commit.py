"""Group commit: requests that arrive together share one append. The log is asked once, everybody is answered after.

At most 50 records go into one append, so that no other writer of the log waits long for its turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from connectors.log import Log, LogError, Ticket
from connectors.metrics import EDGE_APPEND
from domain.record import Outgoing

GROUP: Final = 50
WAITING: Final = 50_000
"""Records that may wait; beyond that the caller is told to come back."""


class _Request:
    """Records of one caller, perhaps spread over several groups; answered when the last of them is settled."""

    __slots__ = ("left", "waiter", "wrong")

    def __init__(self, left: int, waiter: asyncio.Future[None]) -> None:
        self.left, self.waiter = left, waiter
        self.wrong: LogError | None = None

    def settle(self, wrong: LogError | None) -> None:
        """One record is in the log, or never will be."""
        self.left -= 1
        self.wrong = self.wrong or wrong
        if self.left or self.waiter.done():
            return
        if self.wrong is None:
            self.waiter.set_result(None)
        else:
            self.waiter.set_exception(LogError(str(self.wrong)))


_Group = tuple[Ticket, list[_Request], float]


class GroupCommit:
    """Appends on the event loop of the caller: SQLite answers in microseconds, Kafka through tickets, none blocks."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._queue: deque[tuple[Outgoing, _Request]] = deque()
        self._under_way: deque[_Group] = deque()
        self._scheduled = False
        self._watcher: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[Outgoing]) -> None:
        """Return when the log has these records, in order; LogError when it will never have them all."""
        if not records:
            return
        if len(self._queue) + len(records) > WAITING:
            raise LogError("too many events are waiting for the log")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = _Request(len(records), waiter)
        self._queue.extend((record, request) for record in records)
        self._schedule()
        await waiter

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        group = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
        requests = [request for _, request in group]
        started = time.perf_counter()
        try:
            ticket = self._log.begin([record for record, _ in group])
            done = ticket.done()
        except LogError as wrong:
            _settle(requests, wrong)
        else:
            if done:
                EDGE_APPEND.observe(time.perf_counter() - started)
                _settle(requests, None)
            else:
                self._under_way.append((ticket, requests, started))
                if self._watcher is None or self._watcher.done():
                    self._watcher = asyncio.get_running_loop().create_task(self._watch())
        self._schedule()

    async def _watch(self) -> None:
        """Wait for tickets in their order, without blocking the loop."""
        pause = 0.0005
        while self._under_way:
            ticket, requests, started = self._under_way[0]
            try:
                done = ticket.done()
            except LogError as wrong:
                self._under_way.popleft()
                _settle(requests, wrong)
                continue
            if done:
                self._under_way.popleft()
                EDGE_APPEND.observe(time.perf_counter() - started)
                _settle(requests, None)
                pause = 0.0005
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.02)


def _settle(requests: Sequence[_Request], wrong: LogError | None) -> None:
    for request in requests:
        request.settle(wrong)
