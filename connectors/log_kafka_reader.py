"""Reading the Kafka log: one consumer for all places, merged by log time, and how the end is known.

**Live**, records are handed on as they come. **Catching up** (from the start until every stream of a partition was
read to its end, and again whenever a poll comes back full), those of a partition wait until it is known that no
stream has an earlier one. **In history**, they wait for the markers: a partition is released up to the smallest time
that its public streams have reached.

**The end.** That nothing comes from a broker does not say that there is nothing. So the reader asks, every 100 ms,
where the topics end; a partition that has been read up to that answer had been read to its end when it was asked.
The clock of a broker may be behind ours, and a record is visible only when its copies are made: `polled_at` stays
200 ms behind for that. A record that is later still is applied at the clock that the shard has then.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.kafka_client import client_settings, given_time, marker_of, said
from connectors.kafka_topics import offsets
from connectors.log import LogError, Place
from connectors.merge import AT_END, UNKNOWN, Lane, order, release
from domain.record import Record
from domain.streams import PUBLIC, SHARD_INPUT

ASK: Final = 0.1
"""Seconds between two questions where the topics end."""
STALE: Final = 2.0
"""Seconds after which an unanswered question means that the end is unknown."""
BEHIND: Final = 200
"""Milliseconds that `polled_at` stays behind the question; see the module."""


class Stream(Lane):
    """One topic partition, read onward from a position (the next offset)."""

    __slots__ = ("end", "partition", "position", "reached", "seen", "shard", "stream", "topic")

    def __init__(self, topic: str, place: Place, position: int, end: int, shard: "Partition | None") -> None:
        super().__init__()
        self.topic = topic
        self.stream, self.partition = place
        self.position = position
        self.end = end
        self.seen = UNKNOWN
        self.reached: int | None = None
        """How far recorded history has come; nothing outside of it."""
        self.shard = shard


class Partition:
    """The streams of one partition that are merged."""

    __slots__ = ("ended", "live", "public", "streams")

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.public: list[Stream] = []
        self.ended: set[str] = set()
        """Streams whose history has ended while that of others has not."""
        self.live = False

    def in_history(self) -> bool:
        """Whether recorded history is being read here."""
        return bool(self.ended) or any(stream.reached is not None for stream in self.public)

    def mark(self, stream: Stream, reached: int | None) -> None:
        """A marker was read: history has come so far, or (None) has ended."""
        self.live = False
        before, stream.reached = stream.reached, reached
        if reached is None and (before is not None or self.in_history()):
            self.ended.add(stream.stream)
            if len(self.ended) == len(self.public):
                self.ended.clear()

    def set_bounds(self) -> None:
        """Say of each stream what cannot come any more."""
        history = self.in_history()
        for stream in self.streams:
            if history and stream.stream in PUBLIC:
                if stream.reached is not None:
                    stream.bound = stream.reached + 1
                else:
                    stream.bound = AT_END if stream.stream in self.ended else UNKNOWN
            else:
                stream.bound = AT_END if stream.position >= stream.end else stream.seen


class KafkaReader:
    """A position in some partitions of some streams. See connectors.log.Reader."""

    def __init__(
        self, bootstrap: str, admin: AdminClient, topics: Mapping[str, str], places: Sequence[Place],
        start: Mapping[Place, int], history: Mapping[Place, int],
        fetch: Callable[[Place, int, int], list[Record]], now: Callable[[], int],
    ) -> None:
        self._admin = admin
        self._now = now
        self._question: dict[TopicPartition, OffsetSpec] = {
            TopicPartition(topics[stream], p): OffsetSpec.latest() for stream, p in places
        }
        self._streams: dict[tuple[str, int], Stream] = {}
        self._shards: dict[int, Partition] = {}
        self._held: set[Partition] = set()
        self._behind: dict[int, set[Stream]] = {}
        self._ready: list[Record] = []
        self._asked = (0, 0.0)
        self._answers: dict[TopicPartition, Future[Any]] = {}
        self._answered = (0, 0.0)
        self._open(topics, places, start, history, fetch)
        self._consumer = Consumer({
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
        })
        self._consumer.assign([
            TopicPartition(stream.topic, stream.partition, stream.position) for stream in self._streams.values()
        ])

    def _open(
        self, topics: Mapping[str, str], places: Sequence[Place], start: Mapping[Place, int],
        history: Mapping[Place, int], fetch: Callable[[Place, int, int], list[Record]],
    ) -> None:
        """Find where each place begins and ends, and where it stands in history."""
        first = offsets(self._admin, self._question, OffsetSpec.earliest())
        last = offsets(self._admin, self._question, OffsetSpec.latest())
        for place in places:
            name = (topics[place[0]], place[1])
            position = start.get(place, -1) + 1
            if position > last[name]:
                raise LogError(
                    f"{place[0]}/{place[1]} is to be read after offset {position - 1}, but topic {name[0]} ends at"
                    f" {last[name] - 1}: it has lost records, or it is not the topic that was read before"
                )
            if 0 < position < first[name]:
                raise LogError(
                    f"{place[0]}/{place[1]} is to be read after offset {position - 1}, but topic {name[0]} begins at"
                    f" {first[name]}: its retention has deleted records that were not read"
                )
            shard = self._shards.setdefault(place[1], Partition()) if place[0] in SHARD_INPUT else None
            stream = Stream(name[0], place, max(position, first[name]), last[name], shard)
            self._streams[name] = stream
            self._behind.setdefault(place[1], set()).add(stream)
            if shard is not None:
                shard.streams.append(stream)
                if place[0] in PUBLIC:
                    shard.public.append(stream)
                    stream.reached = history.get(place)
        self._held = set(self._shards.values())
        for shard in self._shards.values():
            if not shard.in_history():
                continue
            for stream in shard.public:
                place = (stream.stream, stream.partition)
                if stream.reached is None and (at := start.get(place, -1)) >= 0:
                    found = [marker_of(record.key, record.value) for record in fetch(place, at, at)]
                    if found and found[0] is not None and found[0].ended:
                        shard.ended.add(stream.stream)

    # -- read --------------------------------------------------------------------------------------------------

    def poll(self, limit: int, wait: float) -> list[Record]:
        """What is new: waits up to `wait` seconds for the first record, then takes what is there, up to `limit`."""
        self._ask()
        if not self._ready:
            self._read(self._consume(limit, 0), limit)
            deadline = time.monotonic() + wait
            while not self._ready and (left := deadline - time.monotonic()) > 0:
                # The client counts in whole milliseconds, and less than one would not be a wait.
                if not (messages := self._consume(1, max(left, 0.001))):
                    break
                messages += self._consume(limit - 1, 0)
                self._read(messages, limit)
        taken, self._ready = self._ready[:limit], self._ready[limit:]
        return taken

    def _consume(self, count: int, wait: float) -> list[Message]:
        if count < 1:
            return []
        try:
            return self._consumer.consume(count, wait)
        except KafkaException as wrong:
            raise LogError(f"the log cannot be read: {said(wrong)}") from wrong

    def _read(self, messages: list[Message], limit: int) -> None:
        """Sort out what came; what can be released becomes ready."""
        if len(messages) == limit:
            self._fall_behind()
        released: list[Record] = []
        for message in messages:
            if (error := message.error()) is not None:
                self._trouble(message, error)
                continue
            stream = self._streams[message.topic(), message.partition()]  # type: ignore[index]  # a record has both
            offset = message.offset() or 0
            key, value, log_time = message.key(), message.value() or b"", message.timestamp()[1]
            stream.position = offset + 1
            if (shard := stream.shard) is None:
                released.append(Record(stream.stream, stream.partition, offset, log_time, key, value))
                continue
            if key is None and stream.stream in PUBLIC and (marker := marker_of(key, value)) is not None:
                shard.mark(stream, None if marker.ended else marker.reached)
                self._held.add(shard)
                log_time = _recorded(message, stream, log_time)
            elif stream.stream not in PUBLIC or (not shard.live and stream.reached is not None):
                log_time = _recorded(message, stream, log_time)
            stream.seen = log_time = max(stream.seen, log_time)
            record = Record(stream.stream, stream.partition, offset, log_time, key, value)
            if shard.live:
                released.append(record)
            else:
                stream.rows.append(record)
        if len(released) > 1:
            released.sort(key=order)
        self._ready += released
        if self._held:
            self._merge()
        self._note_ends(messages)

    def _merge(self) -> None:
        """Release what the partitions that are not live hold and may release."""
        for shard in list(self._held):
            for stream in shard.streams:
                if stream.position >= stream.end:
                    stream.end = max(stream.end, self._known_end(stream))
            shard.set_bounds()
            self._ready += release(shard.streams)
            if all(stream.bound == AT_END for stream in shard.streams) and not shard.in_history():
                shard.live = True
                self._held.discard(shard)

    def _known_end(self, stream: Stream) -> int:
        """Where a topic partition ended when something of it came last."""
        found = self._consumer.get_watermark_offsets(TopicPartition(stream.topic, stream.partition), cached=True)
        return found[1] if found else -1

    def _fall_behind(self) -> None:
        """There is more than one poll takes: merge again, until every stream was read to its end."""
        for shard in self._shards.values():
            if shard.live:
                shard.live = False
                self._held.add(shard)
                for stream in shard.streams:
                    stream.end = max(stream.end, self._known_end(stream))

    def _trouble(self, message: Message, error: KafkaError) -> None:
        """The end of a place is no trouble; what the client will mend by itself stops the clock until it has."""
        if error.code() == KafkaError._PARTITION_EOF:
            stream = self._streams[message.topic(), message.partition()]  # type: ignore[index]  # an end has both
            stream.position = max(stream.position, message.offset() or 0)
            return
        lost = {KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC,
                KafkaError._UNKNOWN_PARTITION, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION}
        if error.fatal() or error.code() in lost:
            raise LogError(f"the log cannot be read: {error.str()}")
        self._answered = (self._answered[0], 0.0)

    # -- the end -----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask where the topics end, every now and then, and take the answers."""
        if self._answers:
            if not all(future.done() for future in self._answers.values()):
                return
            answers, self._answers = self._answers, {}
            ends: dict[tuple[str, int], int] = {}
            for name, future in answers.items():
                if future.exception() is not None:
                    return  # a broker is away: the last answer grows stale
                ends[name.topic, name.partition] = future.result().offset
            self._answered = self._asked
            for place, end in ends.items():
                stream = self._streams[place]
                stream.end = max(stream.end, end)
                if stream.position < end:
                    self._behind[stream.partition].add(stream)
                else:
                    self._behind[stream.partition].discard(stream)
        now = time.monotonic()
        if now - self._asked[1] >= ASK:
            self._asked = (self._now(), now)
            self._answers = self._admin.list_offsets(
                self._question, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=STALE
            )

    def _note_ends(self, messages: list[Message]) -> None:
        """Take out of `behind` what has been read up to the last answer."""
        for message in messages:
            if message.partition() is not None:
                behind = self._behind[message.partition()]  # type: ignore[index]  # it is none but None: asked above
                if behind:
                    for stream in [stream for stream in behind if stream.position >= stream.end]:
                        behind.discard(stream)

    def caught_up(self, partition: int) -> bool:
        """Whether every stream of this partition had been read to its end when the topics were asked last."""
        if self._ready or not self._answered[1] or time.monotonic() - self._answered[1] > STALE:
            return False
        if self._behind.get(partition):
            return False
        shard = self._shards.get(partition)
        return shard is None or not any(stream.rows for stream in shard.streams)

    def polled_at(self) -> int:
        """The moment (ms) up to which the end is known; see the module."""
        return max(0, self._answered[0] - BEHIND)

    def lag(self) -> dict[str, int]:
        """Records not yet read, by stream, as of the last answer."""
        found = {stream.stream: 0 for stream in self._streams.values()}
        for stream in self._streams.values():
            found[stream.stream] += max(0, stream.end - stream.position) + len(stream.rows)
        for record in self._ready:
            found[record.stream] += 1
        return found

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def _recorded(message: Message, stream: Stream, appended: int) -> int:
    """The log time of a letter, and inside recorded history: the one the record brings along, else that of the record
    before it.
    """
    given = given_time(message.headers(), appended)
    if given is not None:
        return given
    return appended if stream.reached is None else max(stream.seen, stream.reached)
