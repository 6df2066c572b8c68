"""The log on Kafka, for production and for several machines. The topics are "{shop}.{stream}".

Log time is the broker's append time. Recorded history and effects carry their own log time in the header
`attimo-log-time`. For shard messages it always applies, so that a replay sees the same times; for public streams it
applies only between the history markers of a partition. It is never later than the append time.

One consumer reads all stream partitions. A partition is in one of three modes:

- **Live**: records are returned as they arrive.
- **Catching up** (from the start until every stream is read to its end, and again after each full poll): a record waits
  until no stream of the partition can have an earlier one.
- **In history**: records wait for the markers. A partition is released up to the lowest time that all of its public
  streams have reached.

An empty fetch does not prove that a topic has no more records. So the reader requests the end offsets every 100 ms: a
partition that is read up to them was at its end at the time of the request. `watermark` stays 200 ms behind that time,
because broker clocks may be behind and a record becomes visible only when it is replicated. A shard applies an even
later record at its current clock.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Self

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.log.kafka_admin import (
    LOG_TIME_HEADER,
    REQUEST_TIMEOUT,
    admin_settings,
    call_broker,
    check_topics,
    client_settings,
    header_log_time,
    kafka_error_text,
    list_offsets,
    parse_marker,
    topic_name,
)
from connectors.log.kafka_admin import create_topics as create_topics
from connectors.log.log import (
    AT_END,
    NOTHING_READ,
    LogError,
    MergeInput,
    StreamPartition,
    merge_key,
    partition_for,
    release_ready,
)
from domain.record import (
    ALL_STREAMS,
    DEFAULT_PARTITIONS,
    PUBLIC_STREAMS,
    SHARD_INPUT_STREAMS,
    NewRecord,
    Record,
    partition_count,
)

END_QUERY_INTERVAL: Final = 0.1
"""Seconds between two requests of the end offsets."""
END_QUERY_TIMEOUT: Final = 2.0
"""Seconds after which the end counts as unknown if the request is not answered."""
WATERMARK_DELAY_MS: Final = 200
"""Milliseconds that `watermark` stays behind the request; see the module."""


class TopicCursor(MergeInput):
    """Reads one topic partition forward. `position` is the next offset."""

    __slots__ = (
        "end_offset",
        "history_time",
        "last_log_time",
        "partition",
        "partition_merge",
        "position",
        "stream",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        stream_partition: StreamPartition,
        position: int,
        end_offset: int,
        partition_merge: "PartitionMerge | None",
    ) -> None:
        super().__init__()
        self.topic = topic
        self.stream, self.partition = stream_partition
        self.position = position
        self.end_offset = end_offset
        self.last_log_time = NOTHING_READ
        self.history_time: int | None = None
        """The time that recorded history has reached; None outside of history."""
        self.partition_merge = partition_merge


class PartitionMerge:
    """Merges the streams of one partition."""

    __slots__ = ("cursors", "history_ended", "live", "public_cursors")

    def __init__(self) -> None:
        self.cursors: list[TopicCursor] = []
        self.public_cursors: list[TopicCursor] = []
        self.history_ended: set[str] = set()
        """Streams whose history has ended while history continues in others."""
        self.live = False

    def in_history(self) -> bool:
        """Return True while recorded history is being read."""
        return bool(self.history_ended) or any(stream.history_time is not None for stream in self.public_cursors)

    def apply_marker(self, cursor: TopicCursor, history_time: int | None) -> None:
        """Apply a history marker: the time that history has reached, or None at its end."""
        self.live = False
        before, cursor.history_time = cursor.history_time, history_time
        if history_time is None and (before is not None or self.in_history()):
            self.history_ended.add(cursor.stream)
            if len(self.history_ended) == len(self.public_cursors):
                self.history_ended.clear()

    def update_watermarks(self) -> None:
        """Update the watermark of each stream."""
        history = self.in_history()
        for stream in self.cursors:
            if history and stream.stream in PUBLIC_STREAMS:
                if stream.history_time is not None:
                    stream.watermark = stream.history_time + 1
                else:
                    stream.watermark = AT_END if stream.stream in self.history_ended else NOTHING_READ
            else:
                stream.watermark = AT_END if stream.position >= stream.end_offset else stream.last_log_time


class KafkaReader:
    """Implements `connectors.log.log.Reader`."""

    def __init__(
        self,
        bootstrap: str,
        admin: AdminClient,
        topics: Mapping[str, str],
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        history_progress: Mapping[StreamPartition, int],
        fetch: Callable[[StreamPartition, int, int], list[Record]],
        clock: Callable[[], int],
    ) -> None:
        self._admin = admin
        self._clock = clock
        self._end_query: dict[TopicPartition, OffsetSpec] = {
            TopicPartition(topics[stream], p): OffsetSpec.latest() for stream, p in stream_partitions
        }
        self._cursors: dict[tuple[str, int], TopicCursor] = {}
        self._merges: dict[int, PartitionMerge] = {}
        self._not_live: set[PartitionMerge] = set()
        self._behind: dict[int, set[TopicCursor]] = {}
        self._ready: list[Record] = []
        self._query_sent = (0, 0.0)
        self._query_futures: dict[TopicPartition, Future[Any]] = {}
        self._query_answered = (0, 0.0)
        self._init_cursors(topics, stream_partitions, positions, history_progress, fetch)
        self._consumer = Consumer(
            {
                **client_settings(bootstrap),
                "group.id": "attimo",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 50,
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": 32_768,
            }
        )
        self._consumer.assign(
            [TopicPartition(stream.topic, stream.partition, stream.position) for stream in self._cursors.values()]
        )

    def _init_cursors(
        self,
        topics: Mapping[str, str],
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        history_progress: Mapping[StreamPartition, int],
        fetch: Callable[[StreamPartition, int, int], list[Record]],
    ) -> None:
        """Find the first and last offset of each stream partition, and its state in history."""
        first = list_offsets(self._admin, self._end_query, OffsetSpec.earliest())
        last = list_offsets(self._admin, self._end_query, OffsetSpec.latest())
        for place in stream_partitions:
            name = (topics[place[0]], place[1])
            position = positions.get(place, -1) + 1
            if position > last[name]:
                raise LogError(
                    f"{place[0]}/{place[1]}: the position is offset {position - 1}, but topic {name[0]} ends at"
                    f" {last[name] - 1}: the topic has lost records, or it is not the topic that was read before"
                )
            if 0 < position < first[name]:
                raise LogError(
                    f"{place[0]}/{place[1]}: the position is offset {position - 1}, but topic {name[0]} begins at"
                    f" {first[name]}: its retention has deleted records that were not read"
                )
            shard = self._merges.setdefault(place[1], PartitionMerge()) if place[0] in SHARD_INPUT_STREAMS else None
            stream = TopicCursor(name[0], place, max(position, first[name]), last[name], shard)
            self._cursors[name] = stream
            self._behind.setdefault(place[1], set()).add(stream)
            if shard is not None:
                shard.cursors.append(stream)
                if place[0] in PUBLIC_STREAMS:
                    shard.public_cursors.append(stream)
                    stream.history_time = history_progress.get(place)
        self._not_live = set(self._merges.values())
        for shard in self._merges.values():
            if not shard.in_history():
                continue
            for stream in shard.public_cursors:
                place = (stream.stream, stream.partition)
                if stream.history_time is None and (at := positions.get(place, -1)) >= 0:
                    found = [parse_marker(record.key, record.value) for record in fetch(place, at, at)]
                    if found and found[0] is not None and found[0].ended:
                        shard.history_ended.add(stream.stream)

    # -- read --------------------------------------------------------------------------------------------------

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """Return up to `limit` new records; wait up to `timeout` seconds for the first one."""
        self._query_ends()
        if not self._ready:
            self._process_messages(self._consume(limit, 0), limit)
            deadline = time.monotonic() + timeout
            while not self._ready and (left := deadline - time.monotonic()) > 0:
                # The client rounds down to milliseconds, so less than one would not wait.
                if not (messages := self._consume(1, max(left, 0.001))):
                    break
                messages += self._consume(limit - 1, 0)
                self._process_messages(messages, limit)
        records, self._ready = self._ready[:limit], self._ready[limit:]
        return records

    def _consume(self, count: int, timeout: float) -> list[Message]:
        if count < 1:
            return []
        try:
            return self._consumer.consume(count, timeout)
        except KafkaException as error:
            raise LogError(f"the log cannot be read: {kafka_error_text(error)}") from error

    def _process_messages(self, messages: list[Message], limit: int) -> None:
        """Convert messages to records, and release those that can be released."""
        if len(messages) == limit:
            self._resume_merging()
        released: list[Record] = []
        for message in messages:
            if (error := message.error()) is not None:
                self._handle_error(message, error)
                continue
            stream = self._cursors[message.topic(), message.partition()]  # type: ignore[index]  # a record has both
            offset = message.offset() or 0
            key, value, log_time = message.key(), message.value() or b"", message.timestamp()[1]
            stream.position = offset + 1
            if (shard := stream.partition_merge) is None:
                released.append(Record(stream.stream, stream.partition, offset, log_time, key, value))
                continue
            if key is None and stream.stream in PUBLIC_STREAMS and (marker := parse_marker(key, value)) is not None:
                shard.apply_marker(stream, None if marker.ended else marker.reached)
                self._not_live.add(shard)
                log_time = _record_log_time(message, stream, log_time)
            elif stream.stream not in PUBLIC_STREAMS or (not shard.live and stream.history_time is not None):
                log_time = _record_log_time(message, stream, log_time)
            stream.last_log_time = log_time = max(stream.last_log_time, log_time)
            record = Record(stream.stream, stream.partition, offset, log_time, key, value)
            if shard.live:
                released.append(record)
            else:
                stream.records.append(record)
        if len(released) > 1:
            released.sort(key=merge_key)
        self._ready += released
        if self._not_live:
            self._merge()
        self._update_behind(messages)

    def _merge(self) -> None:
        """Release the records of partitions that are not live, as far as possible."""
        for shard in list(self._not_live):
            for stream in shard.cursors:
                if stream.position >= stream.end_offset:
                    stream.end_offset = max(stream.end_offset, self._cached_end_offset(stream))
            shard.update_watermarks()
            self._ready += release_ready(shard.cursors)
            if all(stream.watermark == AT_END for stream in shard.cursors) and not shard.in_history():
                shard.live = True
                self._not_live.discard(shard)

    def _cached_end_offset(self, cursor: TopicCursor) -> int:
        """Return the end offset that came with the last fetch of a topic partition."""
        found = self._consumer.get_watermark_offsets(TopicPartition(cursor.topic, cursor.partition), cached=True)
        return found[1] if found else -1

    def _resume_merging(self) -> None:
        """A poll was full: merge again until every stream is read to its end."""
        for shard in self._merges.values():
            if shard.live:
                shard.live = False
                self._not_live.add(shard)
                for stream in shard.cursors:
                    stream.end_offset = max(stream.end_offset, self._cached_end_offset(stream))

    def _handle_error(self, message: Message, error: KafkaError) -> None:
        """Raise LogError for permanent errors. Temporary errors stop the watermark until the client recovers."""
        if error.code() == KafkaError._PARTITION_EOF:
            stream = self._cursors[message.topic(), message.partition()]  # type: ignore[index]  # EOF has both
            stream.position = max(stream.position, message.offset() or 0)
            return
        lost = {
            KafkaError._AUTO_OFFSET_RESET,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_TOPIC,
            KafkaError._UNKNOWN_PARTITION,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError._AUTHENTICATION,
        }
        if error.fatal() or error.code() in lost:
            raise LogError(f"the log cannot be read: {error.str()}")
        self._query_answered = (self._query_answered[0], 0.0)

    # -- end offsets -----------------------------------------------------------------------------------------------

    def _query_ends(self) -> None:
        """Request the end offsets periodically, and process the responses."""
        if self._query_futures:
            if not all(future.done() for future in self._query_futures.values()):
                return
            answers, self._query_futures = self._query_futures, {}
            ends: dict[tuple[str, int], int] = {}
            for name, future in answers.items():
                if future.exception() is not None:
                    return  # a broker is unavailable: keep the last response, which becomes stale
                ends[name.topic, name.partition] = future.result().offset
            self._query_answered = self._query_sent
            for place, end in ends.items():
                stream = self._cursors[place]
                stream.end_offset = max(stream.end_offset, end)
                if stream.position < end:
                    self._behind[stream.partition].add(stream)
                else:
                    self._behind[stream.partition].discard(stream)
        now = time.monotonic()
        if now - self._query_sent[1] >= END_QUERY_INTERVAL:
            self._query_sent = (self._clock(), now)
            self._query_futures = self._admin.list_offsets(
                self._end_query, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=END_QUERY_TIMEOUT
            )

    def _update_behind(self, messages: list[Message]) -> None:
        """Remove the cursors that have reached the known end from `_behind`."""
        for message in messages:
            if message.partition() is not None:
                behind = self._behind[message.partition()]  # type: ignore[index]  # not None: checked above
                if behind:
                    for stream in [stream for stream in behind if stream.position >= stream.end_offset]:
                        behind.discard(stream)

    def caught_up(self, partition: int) -> bool:
        """Return True if every stream of this partition was at its end at the time of the last request."""
        if self._ready or not self._query_answered[1] or time.monotonic() - self._query_answered[1] > END_QUERY_TIMEOUT:
            return False
        if self._behind.get(partition):
            return False
        shard = self._merges.get(partition)
        return shard is None or not any(stream.records for stream in shard.cursors)

    def watermark(self) -> int:
        """Return the time (ms) below which no more records are expected; see the module."""
        return max(0, self._query_answered[0] - WATERMARK_DELAY_MS)

    def lag(self) -> dict[str, int]:
        """Return the number of unread records by stream, as of the last response."""
        found = {stream.stream: 0 for stream in self._cursors.values()}
        for stream in self._cursors.values():
            found[stream.stream] += max(0, stream.end_offset - stream.position) + len(stream.records)
        for record in self._ready:
            found[record.stream] += 1
        return found

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _record_log_time(message: Message, cursor: TopicCursor, append_time: int) -> int:
    """Return the log time of a shard message or of a record in history: its own, else that of the previous record."""
    given = header_log_time(message.headers(), append_time)
    if given is not None:
        return given
    return append_time if cursor.history_time is None else max(cursor.last_log_time, cursor.history_time)


DELIVERY_TIMEOUT_MS: Final = 30_000
"""Milliseconds after which an append without acknowledgement has failed."""


def now_ms() -> int:
    """Return the wall clock in ms."""
    return time.time_ns() // 1_000_000


class KafkaAppend:
    """An append that may not be complete yet."""

    __slots__ = ("_error", "_pending", "_producer")

    def __init__(self, producer: Producer, count: int) -> None:
        self._producer = producer
        self._pending = count
        self._error: str | None = None

    def on_delivery(self, error: KafkaError | None, _: Any) -> None:
        """Count one record as appended or failed. The client calls it from poll()."""
        self._pending -= 1
        if error is not None:
            self._error = error.str()

    def done(self) -> bool:
        """Return True if all records are in the log; raise LogError if any failed."""
        if self._pending:
            self._producer.poll(0)
        if self._error is not None:
            raise LogError(f"Kafka append failed: {self._error}")
        return not self._pending


class KafkaLog:
    """Implements `connectors.log.log.Log`. Threads may share it; a reader belongs to one thread."""

    def __init__(
        self, bootstrap: str, shop: str, partitions: int = DEFAULT_PARTITIONS, clock: Callable[[], int] = now_ms
    ) -> None:
        self.partitions = partitions
        self._bootstrap = bootstrap
        self._shop = shop
        self._clock = clock
        self._topics = {stream: topic_name(shop, stream) for stream in ALL_STREAMS}
        self._fatal_error: str | None = None
        self._lock = threading.Lock()
        self._fetch_consumer: Consumer | None = None
        self._admin = AdminClient(admin_settings(bootstrap))
        check_topics(self._admin, shop, partitions)
        self._producer = Producer(
            {
                **client_settings(bootstrap),
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "message.timeout.ms": DELIVERY_TIMEOUT_MS,
                "error_cb": self._on_error,
            }
        )

    def _on_error(self, error: KafkaError) -> None:
        """Store a fatal error; the client retries after all others."""
        if error.fatal():
            self._fatal_error = error.str()

    # -- append ------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append in order and return when all records are in the log; raise LogError if not."""
        pending = self.start_append(records)
        while not pending.done():
            self._producer.poll(0.05)

    def start_append(self, records: Sequence[NewRecord]) -> KafkaAppend:
        """Start to append, in order within each stream partition."""
        if self._fatal_error is not None:
            raise LogError(f"fatal error of the Kafka producer: {self._fatal_error}; restart the process")
        ready: list[tuple[NewRecord, int]] = []
        for record in records:  # check all records before the first one is sent
            if record.stream not in self._topics:
                raise LogError(f"unknown stream {record.stream!r}")
            if record.log_time is not None and record.stream in PUBLIC_STREAMS and record.log_time > self._clock():
                raise LogError(f"a record of {record.stream} has log time {record.log_time}, which is in the future")
            ready.append((record, partition_for(record, self.partitions)))
        pending = KafkaAppend(self._producer, len(ready))
        for record, partition in ready:
            self._produce(self._topics[record.stream], record, partition, pending)
        self._producer.poll(0)
        return pending

    def _produce(self, topic: str, record: NewRecord, partition: int, pending: KafkaAppend) -> None:
        headers: list[tuple[str, str | bytes]] = []
        if record.log_time is not None:
            headers = [(LOG_TIME_HEADER, str(record.log_time))]
        deadline = time.monotonic() + DELIVERY_TIMEOUT_MS / 1000
        while True:
            try:
                self._producer.produce(
                    topic,
                    value=record.value,
                    key=record.key,
                    partition=partition,
                    headers=headers,
                    on_delivery=pending.on_delivery,
                )
            except BufferError as error:
                if time.monotonic() > deadline:
                    raise LogError("Kafka append failed: the producer's queue is full") from error
                self._producer.poll(0.05)
            except KafkaException as error:
                raise LogError(f"Kafka append failed: {kafka_error_text(error)}") from error
            else:
                return

    # -- read --------------------------------------------------------------------------------------------------

    def reader(
        self,
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        history_progress: Mapping[StreamPartition, int] | None = None,
    ) -> KafkaReader:
        """Return a reader. See `connectors.log.log.Log.reader`."""
        for place in stream_partitions:
            self._check_exists(place)
        return KafkaReader(
            self._bootstrap,
            self._admin,
            self._topics,
            stream_partitions,
            positions,
            history_progress or {},
            self.fetch,
            self._clock,
        )

    def _check_exists(self, stream_partition: StreamPartition) -> None:
        stream, partition = stream_partition
        if stream not in self._topics or not 0 <= partition < partition_count(stream, self.partitions):
            raise LogError(f"the log has no stream partition {stream}/{partition}")

    def end_offsets(self, stream_partitions: Sequence[StreamPartition]) -> dict[StreamPartition, int]:
        """Return the last offset of each stream partition; -1 if it is empty."""
        names = {(self._topics[stream], partition): (stream, partition) for stream, partition in stream_partitions}
        found = list_offsets(self._admin, [TopicPartition(*name) for name in names], OffsetSpec.latest())
        return {names[name]: offset - 1 for name, offset in found.items()}

    def latest_log_time(self) -> int:
        """Return the log time of the newest record in the public streams; -1 if they are empty.

        Log times from headers apply here, also outside history.
        """
        ends = self.end_offsets([(stream, p) for stream in PUBLIC_STREAMS for p in range(self.partitions)])
        wanted = [TopicPartition(self._topics[place[0]], place[1], end) for place, end in ends.items() if end >= 0]
        return max((log_time for *_, log_time in self._fetch_messages(wanted, len(wanted))), default=-1)

    def fetch(self, stream_partition: StreamPartition, first: int, last: int) -> list[Record]:
        """Return the records of one stream partition from offset `first` to `last`, both included.

        Log times from headers apply here, also outside history.
        """
        self._check_exists(stream_partition)
        end = self.end_offsets([stream_partition])[stream_partition]
        if last < first or first > end:
            return []
        found: list[Record] = []
        topic, last = self._topics[stream_partition[0]], min(last, end)
        for _, _, message, log_time in self._fetch_messages(
            [TopicPartition(topic, stream_partition[1], first)], 1, last
        ):
            found.append(
                Record(*stream_partition, message.offset() or 0, log_time, message.key(), message.value() or b"")
            )
        return found

    def _fetch_messages(
        self, start_positions: list[TopicPartition], partition_count: int, last: int = -1
    ) -> list[tuple[str, int, Any, int]]:
        """Return (topic, partition, message, log time): one per start position, or all of a single one up to `last`."""
        if not start_positions:
            return []
        found: list[tuple[str, int, Any, int]] = []
        with self._lock:
            if self._fetch_consumer is None:
                self._fetch_consumer = Consumer(
                    {
                        **client_settings(self._bootstrap),
                        "group.id": "attimo",
                        "enable.auto.commit": False,
                        "enable.partition.eof": True,
                        "auto.offset.reset": "earliest",
                        "fetch.wait.max.ms": 10,
                    }
                )
            self._fetch_consumer.assign(start_positions)
            done: set[tuple[str | None, int | None]] = set()
            deadline = time.monotonic() + REQUEST_TIMEOUT
            while len(done) < partition_count:
                if time.monotonic() > deadline:
                    raise LogError(f"the records cannot be read: no response from Kafka within {REQUEST_TIMEOUT:.0f} s")
                for message in call_broker(partial(self._fetch_consumer.consume, 1000, 0.05), "Kafka"):
                    place = (message.topic(), message.partition())
                    if (error := message.error()) is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            done.add(place)
                        elif error.fatal() or not error.retriable():
                            raise LogError(f"the records cannot be read: {error.str()}")
                        continue
                    deadline = time.monotonic() + REQUEST_TIMEOUT
                    if place not in done and (last < 0 or message.offset() <= last):
                        appended = message.timestamp()[1]
                        given = header_log_time(message.headers(), appended)
                        found.append((*place, message, appended if given is None else given))
                    if last < 0 or message.offset() >= last:
                        done.add(place)
            self._fetch_consumer.unassign()
        return found

    def close(self) -> None:
        """Send the remaining records and close."""
        self._producer.flush(REQUEST_TIMEOUT)
        with self._lock:
            if self._fetch_consumer is not None:
                self._fetch_consumer.close()
                self._fetch_consumer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
