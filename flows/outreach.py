"""The outreach flow: sends each off-site message to its channel once, and appends feedback to the log.

    messages ─▶ read ─▶ send ─▶ report ─▶ people
                          └─ a channel (connectors/channels/)

    python -m attimo run outreach          or, inside a clone:  python -m bytewax.run flows.outreach:flow

The order is: send, append feedback, commit the position. After a crash in between, the messages are read again. The
channel skips those it has sent, and the shard skips feedback with a known `messageId`. A slow or unavailable channel
delays only its own messages.
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
from connectors.channels.channel import EXTERNAL, Channel, ChannelError, SendResult, feedback_event, route_table
from connectors.channels.file import FileChannel
from connectors.log.log import Log, LogError, Reader
from connectors.log.open import open_log
from connectors.settings import load
from domain import action as messages
from domain.action import Message
from domain.failpoint import failpoint
from domain.record import DECODE_ERRORS, MESSAGES, NewRecord, Record
from domain.settings import Settings
from flows import bytewax
from flows.bytewax import StopFlag
from state.store.outreach import OutreachStore

MAX_RECORDS_PER_POLL = 500
"""Messages per poll."""
MAX_PENDING = 2_000
"""Messages in memory that wait for their send time or their channel; further ones stay in the log."""
MAX_SEND_BATCH = 200
"""Most messages per batch; feedback and positions follow each batch."""
POLL_TIMEOUT = 0.25
"""Longest sleep (seconds) of an idle flow; a new message ends it."""
RETRY_DELAY_MS = 1_000
"""Milliseconds until an unavailable channel is tried again."""
PRUNE_INTERVAL = 60.0
"""Seconds between two deletions of expired message ids."""

logger = structlog.get_logger()


class OutboundMessage:
    """A message in flight, with its position in the log."""

    __slots__ = ("message", "offset_entry", "partition", "withdrawn")

    def __init__(self, message: Message, partition: int, offset_entry: list[int]) -> None:
        self.message = message
        self.partition = partition
        self.offset_entry = offset_entry
        self.withdrawn = False


class HandledMessage(NamedTuple):
    """A message with the result of its channel."""

    outbound: OutboundMessage
    result: SendResult


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the outreach dataflow. Run it once per deployment, in one process with one worker."""
    outreach = Outreach(settings or load({}))
    sending = Dataflow("outreach")

    # Read: the messages of all partitions, each at its send time.
    due = op.input("read", sending, MessageSource(outreach))

    # Send: to the channel of the message. Stale messages and messages without a channel are suppressed.
    done = op.flat_map_batch("send", due, outreach.send)

    # Report: append feedback about the person, then commit the positions.
    op.output("report", done, FeedbackSink(outreach))
    return sending


def run(settings: Settings) -> None:
    """Send until SIGTERM or SIGINT."""
    bytewax.handle_stop_signals()
    route_table(settings.channels)
    metrics.serve_metrics(metrics.metrics_port(settings, "outreach"))
    cli_main(flow(settings))


def now_ms() -> int:
    """The wall clock in ms. Only the source and the sink of a flow read it."""
    return time.time_ns() // 1_000_000


def outbox_path(settings: Settings) -> Path:
    """The folder that the file channel writes to."""
    return Path(settings.data) / "outbox"


class Outreach:
    """Log, store, channels and messages in flight; opened when the flow starts, not when it is wired."""

    log: Log
    store: OutreachStore
    reader: Reader
    channels: dict[str, Channel]

    def __init__(self, settings: Settings, clock: Callable[[], int] = now_ms) -> None:
        self.settings = settings
        self.clock = clock
        self.routes = route_table(settings.channels)
        self.poll_timeout = POLL_TIMEOUT
        self.unreadable = 0
        self._sequence = 0
        self._queue: list[tuple[int, int, OutboundMessage]] = []
        self._in_flight: dict[str, OutboundMessage] = {}
        """Messages that are read and not reported yet, by id."""
        self._offsets: dict[int, deque[list[int]]] = {}
        """Uncommitted offsets by partition, in order: [offset, 1 if processed]."""
        self._gauges_at = self._pruned_at = 0.0

    def open(self) -> None:
        """Open log, store and channels, and continue at the committed positions."""
        self.store = OutreachStore(Path(self.settings.data) / "store" / "outreach.db", self.settings.log_sync)
        self.log = open_log(self.settings)
        self.channels = {"file": FileChannel(outbox_path(self.settings), self.clock)}
        stream_partitions = [(MESSAGES, partition) for partition in range(self.settings.partitions)]
        start = {(MESSAGES, partition): offset for partition, offset in self.store.positions.items()}
        self.reader = self.log.reader(stream_partitions, start)

    # -- read --------------------------------------------------------------------------------------------------

    def next_due(self) -> list[OutboundMessage]:
        """Return the messages that are due; sleep briefly if none is."""
        self._housekeeping()
        room = min(MAX_RECORDS_PER_POLL, MAX_PENDING - len(self._in_flight))
        wait = self._wait_seconds()
        if room > 0:
            records = self.reader.poll(room, wait)
            for record in records:
                self._accept_record(record)
            if len(records) == room and len(self._in_flight) < MAX_PENDING:
                return []  # more records follow, which may withdraw a message
        elif wait:
            time.sleep(wait)
        now, due = self.clock(), list[OutboundMessage]()
        while self._queue and len(due) < MAX_SEND_BATCH and self._queue[0][0] <= now:
            due.append(heapq.heappop(self._queue)[2])
        if not due:
            self._commit_positions([])
        return due

    def _wait_seconds(self) -> float:
        """Seconds until the next message is due, at most the poll timeout."""
        return (
            min(self.poll_timeout, max(0, self._queue[0][0] - self.clock()) / 1000)
            if self._queue
            else self.poll_timeout
        )

    def _accept_record(self, record: Record) -> None:
        offset_entry = [record.offset, 0]
        self._offsets.setdefault(record.partition, deque()).append(offset_entry)
        try:
            message = messages.decode_message(record.value)
        except DECODE_ERRORS as error:
            self.unreadable += 1
            logger.warning("cannot decode message", partition=record.partition, offset=record.offset, error=str(error))
            offset_entry[1] = 1
            return
        if message.withdrawn_id:
            if (waiting := self._in_flight.get(message.withdrawn_id)) is not None:
                waiting.withdrawn = True
            offset_entry[1] = 1
        elif (
            message.history
            or self.routes.get(message.channel) == EXTERNAL
            or message.id in self._in_flight
            or self.store.is_processed(message.id)
        ):
            offset_entry[1] = 1
        else:
            item = self._in_flight[message.id] = OutboundMessage(message, record.partition, offset_entry)
            # A stale message is suppressed at once, even if it is due later.
            self._enqueue(item, min(message.not_before, message.not_after))

    def _enqueue(self, item: OutboundMessage, at: int) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (at, self._sequence, item))

    # -- send --------------------------------------------------------------------------------------------------

    def send(self, items: list[OutboundMessage]) -> list[HandledMessage]:
        """Send messages to their channels; suppress stale messages and messages without a channel."""
        now, done, by_channel = self.clock(), list[HandledMessage](), dict[str, list[OutboundMessage]]()
        for item in items:
            message = item.message
            worker = self.routes.get(message.channel, "")
            if item.withdrawn:
                done.append(HandledMessage(item, SendResult("suppressed", "withdrawn")))
            elif message.not_after <= now:
                done.append(HandledMessage(item, SendResult("suppressed", "stale")))
            elif not worker:
                done.append(
                    HandledMessage(
                        item, SendResult("suppressed", "no_channel", f"no channel sends {message.channel[:40]}")
                    )
                )
            else:
                by_channel.setdefault(worker, []).append(item)
        for worker, batch in by_channel.items():
            done += map(HandledMessage, batch, self._send_to_channel(worker, [item.message for item in batch]))
        failpoint("outreach:after_send")
        return done

    def _send_to_channel(self, worker: str, batch: Sequence[Message]) -> Sequence[SendResult]:
        try:
            return self.channels[worker].send(batch)
        except ChannelError as error:
            logger.warning("channel unavailable", channel=worker, error=str(error), messages=len(batch))
            return [SendResult("retry")] * len(batch)

    # -- report ------------------------------------------------------------------------------------------------

    def report(self, handled: Sequence[HandledMessage]) -> None:
        """Append feedback for final results and commit positions; queue the messages to retry again."""
        final = [message for message in handled if message.result.status != "retry"]
        feedback = [feedback_event(item.message, result) for item, result in final if result.reason != "withdrawn"]
        if feedback and not self._append_feedback(feedback):
            return
        failpoint("outreach:after_feedback")
        for item, result in final:
            metrics.MESSAGES.labels(result.status).inc()
            del self._in_flight[item.message.id]
            item.offset_entry[1] = 1
        for item, result in handled:
            if result.status == "retry":
                self._enqueue(item, min(self.clock() + RETRY_DELAY_MS, item.message.not_after))
        self._commit_positions([item.message for item, _ in final])

    def _append_feedback(self, records: list[NewRecord]) -> bool:
        """Append feedback, retrying until it succeeds. Return False if the flow must stop first."""
        while True:
            try:
                self.log.append(records)
                return True
            except LogError as error:
                logger.warning("cannot append feedback", error=str(error))
                if StopFlag.requested:
                    return False
                time.sleep(RETRY_DELAY_MS / 1000)

    def _commit_positions(self, handled: Sequence[Message]) -> None:
        """Commit the positions up to the first unprocessed message, and the ids of the handled messages."""
        positions: dict[int, int] = {}
        for partition, entries in self._offsets.items():
            while entries and entries[0][1]:
                positions[partition] = entries.popleft()[0]
        if positions or handled:
            self.store.commit(positions, {message.id: message.not_after for message in handled})
            failpoint("outreach:after_commit")

    def _housekeeping(self) -> None:
        """Update the gauges and delete expired message ids."""
        moment = time.monotonic()
        if moment - self._gauges_at > 1:
            self._gauges_at = moment
            metrics.LAG_RECORDS.labels(MESSAGES).set(self.reader.lag().get(MESSAGES, 0))
            metrics.MESSAGES_PENDING.set(len(self._in_flight))
        if moment - self._pruned_at > PRUNE_INTERVAL:
            self._pruned_at = moment
            self.store.prune(self.clock())
            self.store.write_positions()

    def close(self) -> None:
        """Close channels, store and log."""
        for channel in self.channels.values():
            channel.close()
        self.store.close()
        self.log.close()


class _MessageSourcePartition(StatelessSourcePartition[OutboundMessage]):
    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach
        outreach.open()

    def next_batch(self) -> list[OutboundMessage]:
        if StopFlag.requested:
            raise StopIteration
        return self.outreach.next_due()

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC)  # at once: the wait is inside next_batch

    def close(self) -> None:
        self.outreach.reader.close()


class MessageSource(DynamicSource[OutboundMessage]):
    """The stream `messages`, read by one worker."""

    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _MessageSourcePartition:
        if worker_count > 1:
            raise ValueError(f"outreach needs exactly one worker, not {worker_count}")
        return _MessageSourcePartition(self.outreach)


class _FeedbackSinkPartition(StatelessSinkPartition[HandledMessage]):
    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach

    def write_batch(self, items: list[HandledMessage]) -> None:
        self.outreach.report(items)

    def close(self) -> None:
        self.outreach.close()


class FeedbackSink(DynamicSink[HandledMessage]):
    """Appends to the stream `people`, then commits the positions."""

    def __init__(self, outreach: Outreach) -> None:
        self.outreach = outreach

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _FeedbackSinkPartition:
        return _FeedbackSinkPartition(self.outreach)
