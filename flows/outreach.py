"""Outreach: what was decided to be said off the site is handed to its channel, once, and what came of it is told.

    messages ─▶ read ─▶ send ─▶ report ─▶ people
                          └─ a channel worker (connectors/channel*.py)

    python -m attimo run outreach          or, inside a clone:  python -m bytewax.run flows.outreach:flow

Send first, then tell, then note the position: after a crash at any point in between, the messages come again, the
channel knows those it has sent, and their feedback has the same `messageId`, so the shard knows it. A slow or dead
channel delays nothing but its own messages.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from connectors import metrics
from connectors.channel import ELSEWHERE, Channel, ChannelError, Told, feedback, routes
from connectors.channel_file import FileChannel
from connectors.log import Log, LogError, Reader
from connectors.open_log import open_log
from connectors.settings import load
from domain import message as messages
from domain.failpoint import failpoint
from domain.message import Message
from domain.record import UNREADABLE, Outgoing, Record
from domain.settings import Settings
from domain.streams import MESSAGES
from flows import stopping
from flows.stopping import Stopping
from state.outreach_store import OutreachStore

LIMIT = 500
"""Messages read at a time."""
PENDING = 2_000
"""Messages that wait in memory for their time, or for their channel; further ones wait in the log."""
ROUND = 200
"""Messages handed over at a time, at most; then it is told and noted."""
WAIT = 0.25
"""Seconds a quiet flow sleeps; a new message wakes it."""
AGAIN = 1_000
"""Milliseconds until a message is handed over again that a channel could not take."""
TIDY = 60.0
"""Seconds between two looks for ids that may be forgotten."""

logger = structlog.get_logger()


class Item:
    """A message on its way through, and its place in the log."""

    __slots__ = ("message", "partition", "place", "withdrawn")

    def __init__(self, message: Message, partition: int, place: list[int]) -> None:
        self.message = message
        self.partition = partition
        self.place = place
        self.withdrawn = False


class Done(NamedTuple):
    """A message that was dealt with for now, and what became of it."""

    item: Item
    told: Told


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the outreach dataflow. There is one in a deployment: run it in one process, with one worker."""
    outreach = Outreach(settings or load({}))
    sending = Dataflow("outreach")

    # What was decided, from all partitions; each message when its time has come.
    due = op.input("read", sending, Messages(outreach))

    # To the worker of its channel. What comes too late, or what nobody takes, is held.
    done = op.flat_map_batch("send", due, outreach.send)

    # What became of it goes to the person, as feedback; then, and only then, the position moves.
    op.output("report", done, Feedback(outreach))
    return sending


def run(settings: Settings) -> None:
    """Send until SIGTERM or SIGINT."""
    stopping.on_signals()
    routes(settings.channels)
    metrics.serve(metrics.port_of(settings, "outreach"))
    cli_main(flow(settings))


def wall() -> int:
    """The wall clock in ms. Only the edge of the flow asks for it."""
    return time.time_ns() // 1_000_000


def outbox(settings: Settings) -> Path:
    """Where the file channel writes."""
    return Path(settings.data) / "outbox"


class Outreach:
    """Log, store and channels, and the messages in between; opened when the flow starts, not when it is wired."""

    log: Log
    store: OutreachStore
    reader: Reader
    channels: dict[str, Channel]

    def __init__(self, settings: Settings, clock: Callable[[], int] = wall) -> None:
        self.settings = settings
        self.wall = clock
        self.routes = routes(settings.channels)
        self.patience = WAIT
        self.unreadable = 0
        self._order = 0
        self._heap: list[tuple[int, int, Item]] = []
        self._known: dict[str, Item] = {}
        """Everything that was read and not yet reported, by id."""
        self._places: dict[int, deque[list[int]]] = {}
        """By partition what was read and not yet noted, in order: [offset, dealt with]."""
        self._looked_at = self._tidied_at = 0.0

    def open(self) -> None:
        """Open log, store and channels, and stand where the last commit stood."""
        self.store = OutreachStore(Path(self.settings.data) / "store" / "outreach.db", self.settings.log_sync)
        self.log = open_log(self.settings)
        self.channels = {"file": FileChannel(outbox(self.settings), self.wall)}
        places = [(MESSAGES, partition) for partition in range(self.settings.partitions)]
        start = {(MESSAGES, partition): offset for partition, offset in self.store.positions.items()}
        self.reader = self.log.reader(places, start)

    # -- read --------------------------------------------------------------------------------------------------

    def take(self) -> list[Item]:
        """The messages whose time has come; sleeps a little when there are none."""
        self._look()
        room = min(LIMIT, PENDING - len(self._known))
        wait = self._until_next()
        if room > 0:
            records = self.reader.poll(room, wait)
            for record in records:
                self._read(record)
            if len(records) == room and len(self._known) < PENDING:
                return []  # there is more: among it may be what takes something back
        elif wait:
            time.sleep(wait)
        now, due = self.wall(), list[Item]()
        while self._heap and len(due) < ROUND and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        if not due:
            self._note([])
        return due

    def _until_next(self) -> float:
        """Seconds until the next message's time has come, or until it is of use to look."""
        return min(self.patience, max(0, self._heap[0][0] - self.wall()) / 1000) if self._heap else self.patience

    def _read(self, record: Record) -> None:
        place = [record.offset, 0]
        self._places.setdefault(record.partition, deque()).append(place)
        try:
            message = messages.decode(record.value)
        except UNREADABLE as wrong:
            self.unreadable += 1
            logger.warning("a message cannot be read", partition=record.partition, offset=record.offset, why=str(wrong))
            place[1] = 1
            return
        if message.withdraws:
            if (waiting := self._known.get(message.withdraws)) is not None:
                waiting.withdrawn = True
            place[1] = 1
        elif (message.history or self.routes.get(message.channel) == ELSEWHERE or message.id in self._known
              or self.store.has(message.id)):
            place[1] = 1
        else:
            item = self._known[message.id] = Item(message, record.partition, place)
            # What is late is said so at once, even if it is not to go out before some later time.
            self._put(item, min(message.not_before, message.not_after))

    def _put(self, item: Item, at: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, item))

    # -- send --------------------------------------------------------------------------------------------------

    def send(self, items: list[Item]) -> list[Done]:
        """Hand messages to their channels; hold what is too late, and what nobody takes."""
        now, done, going = self.wall(), list[Done](), dict[str, list[Item]]()
        for item in items:
            message = item.message
            worker = self.routes.get(message.channel, "")
            if item.withdrawn:
                done.append(Done(item, Told("held", "withdrawn")))
            elif message.not_after <= now:
                done.append(Done(item, Told("held", "stale")))
            elif not worker:
                done.append(Done(item, Told("held", "no_channel", f"nobody sends {message.channel[:40]}")))
            else:
                going.setdefault(worker, []).append(item)
        for worker, those in going.items():
            done += map(Done, those, self._carry(worker, [item.message for item in those]))
        failpoint("outreach:after_send")
        return done

    def _carry(self, worker: str, those: Sequence[Message]) -> Sequence[Told]:
        try:
            return self.channels[worker].send(those)
        except ChannelError as wrong:
            logger.warning("a channel takes nothing now", channel=worker, why=str(wrong), messages=len(those))
            return [Told("later")] * len(those)

    # -- report ------------------------------------------------------------------------------------------------

    def report(self, done: Sequence[Done]) -> None:
        """Tell what became of messages, and note that they are dealt with; those to come later wait once more."""
        final = [one for one in done if one.told.state != "later"]
        told = [feedback(item.message, told) for item, told in final if told.reason != "withdrawn"]
        if told and not self._tell(told):
            return
        failpoint("outreach:after_feedback")
        for item, told_of in final:
            metrics.MESSAGES.labels(told_of.state).inc()
            del self._known[item.message.id]
            item.place[1] = 1
        for one in done:
            if one.told.state == "later":
                self._put(one.item, min(self.wall() + AGAIN, one.item.message.not_after))
        self._note([item.message for item, _ in final])

    def _tell(self, told: list[Outgoing]) -> bool:
        """Append feedback, as long as it takes; False when the flow is to stop: it comes again at the next start."""
        while True:
            try:
                self.log.append(told)
                return True
            except LogError as wrong:
                logger.warning("the log does not take feedback", why=str(wrong))
                if Stopping.now:
                    return False
                time.sleep(AGAIN / 1000)

    def _note(self, dealt_with: Sequence[Message]) -> None:
        """Move the positions over everything that is dealt with, and keep the ids."""
        positions: dict[int, int] = {}
        for partition, places in self._places.items():
            while places and places[0][1]:
                positions[partition] = places.popleft()[0]
        if positions or dealt_with:
            self.store.commit(positions, {message.id: message.not_after for message in dealt_with})
            failpoint("outreach:after_commit")

    def _look(self) -> None:
        """Show what waits, and forget what is long past."""
        moment = time.monotonic()
        if moment - self._looked_at > 1:
            self._looked_at = moment
            metrics.LAG.labels(MESSAGES).set(self.reader.lag().get(MESSAGES, 0))
            metrics.MESSAGES_WAITING.set(len(self._known))
        if moment - self._tidied_at > TIDY:
            self._tidied_at = moment
            self.store.forget(self.wall())
            self.store.show()

    def close(self) -> None:
        """Let go of channels, store and log."""
        for channel in self.channels.values():
            channel.close()
        self.store.close()
        self.log.close()


class _Reading(StatelessSourcePartition[Item]):
    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach
        outreach.open()

    def next_batch(self) -> list[Item]:
        if Stopping.now:
            raise StopIteration
        return self.outreach.take()

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC)  # at once: the wait is inside next_batch

    def close(self) -> None:
        self.outreach.reader.close()


class Messages(DynamicSource[Item]):
    """The whole stream `messages`, read by one worker."""

    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Reading:
        if worker_count > 1:
            raise ValueError(f"outreach runs with one worker, not with {worker_count}: there is one outbox")
        return _Reading(self.outreach)


class _Reporting(StatelessSinkPartition[Done]):
    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach

    def write_batch(self, items: list[Done]) -> None:
        self.outreach.report(items)

    def close(self) -> None:
        self.outreach.close()


class Feedback(DynamicSink[Done]):
    """The stream `people`; with it the positions."""

    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Reporting:
        return _Reporting(self.outreach)
