"""The log on Kafka: topics "{shop}.{stream}", for production and for more than one machine.

Log time is the broker's append time. A record may bring its own in the header `attimo-log-time`: recorded history and
effects do. In letters it counts (so that they have the same time whenever they are read again), in public streams only
between the history markers of its partition; and never for more than the append time.

Reading is in `log_kafka_reader.py`; the topics and their settings in `kafka_topics.py`.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.kafka_client import LOG_TIME, admin_settings, client_settings, given_time, said
from connectors.kafka_topics import PATIENCE, answer, check_topics, offsets, topic_of
from connectors.kafka_topics import create_topics as create_topics
from connectors.log import LogError, Place, partition_for
from connectors.log_kafka_reader import KafkaReader
from domain.record import Outgoing, Record
from domain.streams import ALL, PARTITIONS, PUBLIC, partitions_of

GIVE_UP: Final = 30_000
"""Milliseconds after which an append that the brokers do not acknowledge has failed."""


def wall() -> int:
    """The wall clock in ms."""
    return time.time_ns() // 1_000_000


class Sending:
    """The ticket of an append under way."""

    __slots__ = ("_pending", "_producer", "_wrong")

    def __init__(self, producer: Producer, count: int) -> None:
        self._producer = producer
        self._pending = count
        self._wrong: str | None = None

    def delivered(self, error: KafkaError | None, _: Any) -> None:
        """Hear from one record (the client calls it from poll)."""
        self._pending -= 1
        if error is not None:
            self._wrong = error.str()

    def done(self) -> bool:
        """True once the log has the records; raises LogError when it will never have them all."""
        if self._pending:
            self._producer.poll(0)
        if self._wrong is not None:
            raise LogError(f"Kafka did not take a record: {self._wrong}")
        return not self._pending


class KafkaLog:
    """See the module. One log may be shared by threads; a reader belongs to one thread."""

    def __init__(
        self, bootstrap: str, shop: str, partitions: int = PARTITIONS, now: Callable[[], int] = wall
    ) -> None:
        self.partitions = partitions
        self._bootstrap = bootstrap
        self._shop = shop
        self._now = now
        self._topics = {stream: topic_of(shop, stream) for stream in ALL}
        self._fatal: str | None = None
        self._lock = threading.Lock()
        self._looker: Consumer | None = None
        self._admin = AdminClient(admin_settings(bootstrap))
        check_topics(self._admin, shop, partitions)
        self._producer = Producer({
            **client_settings(bootstrap),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            "message.timeout.ms": GIVE_UP,
            "error_cb": self._error,
        })

    def _error(self, error: KafkaError) -> None:
        """Remember what cannot heal; the client retries the rest by itself."""
        if error.fatal():
            self._fatal = error.str()

    # -- append ------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Outgoing]) -> None:
        """Append, in order, and return when the log has them all; LogError when not."""
        ticket = self.begin(records)
        while not ticket.done():
            self._producer.poll(0.05)

    def begin(self, records: Sequence[Outgoing]) -> Sending:
        """Start to append, in order within each place; the ticket tells when the log has them."""
        if self._fatal is not None:
            raise LogError(f"the Kafka producer is out of order: {self._fatal}")
        ready: list[tuple[Outgoing, int]] = []
        for record in records:  # all are checked before the first one leaves
            if record.stream not in self._topics:
                raise LogError(f"there is no stream {record.stream!r}")
            if record.log_time is not None and record.stream in PUBLIC and record.log_time > self._now():
                raise LogError(f"a record of {record.stream} has log time {record.log_time}, later than now")
            ready.append((record, partition_for(record, self.partitions)))
        sending = Sending(self._producer, len(ready))
        for record, partition in ready:
            self._produce(self._topics[record.stream], record, partition, sending)
        self._producer.poll(0)
        return sending

    def _produce(self, topic: str, record: Outgoing, partition: int, sending: Sending) -> None:
        headers: list[tuple[str, str | bytes]] = []
        if record.log_time is not None:
            headers = [(LOG_TIME, str(record.log_time))]
        deadline = time.monotonic() + GIVE_UP / 1000
        while True:
            try:
                self._producer.produce(
                    topic, value=record.value, key=record.key, partition=partition, headers=headers,
                    on_delivery=sending.delivered,
                )
            except BufferError as wrong:
                if time.monotonic() > deadline:
                    raise LogError("Kafka takes no records: the producer's queue is full") from wrong
                self._producer.poll(0.05)
            except KafkaException as wrong:
                raise LogError(f"Kafka did not take a record: {said(wrong)}") from wrong
            else:
                return

    # -- read --------------------------------------------------------------------------------------------------

    def reader(
        self, places: Sequence[Place], start: Mapping[Place, int], history: Mapping[Place, int] | None = None
    ) -> KafkaReader:
        """Read these places, each after the offset in `start`. See connectors.log.Log."""
        for place in places:
            self._check(place)
        return KafkaReader(
            self._bootstrap, self._admin, self._topics, places, start, history or {}, self.fetch, self._now
        )

    def _check(self, place: Place) -> None:
        stream, partition = place
        if stream not in self._topics or not 0 <= partition < partitions_of(stream, self.partitions):
            raise LogError(f"there is no {stream}/{partition} in this log")

    def ends(self, places: Sequence[Place]) -> dict[Place, int]:
        """The last offset of each place (-1 for an empty one)."""
        names = {(self._topics[stream], partition): (stream, partition) for stream, partition in places}
        found = offsets(self._admin, [TopicPartition(*name) for name in names], OffsetSpec.latest())
        return {names[name]: offset - 1 for name, offset in found.items()}

    def latest(self) -> int:
        """The log time of the newest record in the public streams; -1 when they are empty.

        A log time that a record brought along is believed here, also outside history.
        """
        ends = self.ends([(stream, p) for stream in PUBLIC for p in range(self.partitions)])
        wanted = [TopicPartition(self._topics[place[0]], place[1], end) for place, end in ends.items() if end >= 0]
        return max((log_time for *_, log_time in self._look(wanted, len(wanted))), default=-1)

    def fetch(self, place: Place, first: int, last: int) -> list[Record]:
        """The records of one place from offset `first` to offset `last`, both included.

        A log time that a record of a public stream brought along is believed here, also outside history.
        """
        self._check(place)
        end = self.ends([place])[place]
        if last < first or first > end:
            return []
        found: list[Record] = []
        topic, last = self._topics[place[0]], min(last, end)
        for _, _, message, log_time in self._look([TopicPartition(topic, place[1], first)], 1, last):
            found.append(Record(*place, message.offset() or 0, log_time, message.key(), message.value() or b""))
        return found

    def _look(self, starts: list[TopicPartition], places: int, last: int = -1) -> list[tuple[str, int, Any, int]]:
        """(topic, partition, message, log time): one of each place, or, of a single place, all up to offset `last`."""
        if not starts:
            return []
        found: list[tuple[str, int, Any, int]] = []
        with self._lock:
            if self._looker is None:
                self._looker = Consumer({
                    **client_settings(self._bootstrap),
                    "group.id": "attimo",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 10,
                })
            self._looker.assign(starts)
            done: set[tuple[str | None, int | None]] = set()
            deadline = time.monotonic() + PATIENCE
            while len(done) < places:
                if time.monotonic() > deadline:
                    raise LogError("Kafka does not answer: the records cannot be read")
                for message in answer(partial(self._looker.consume, 1000, 0.05), "Kafka"):
                    place = (message.topic(), message.partition())
                    if (error := message.error()) is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            done.add(place)
                        elif error.fatal() or not error.retriable():
                            raise LogError(f"the records cannot be read: {error.str()}")
                        continue
                    deadline = time.monotonic() + PATIENCE
                    if place not in done and (last < 0 or message.offset() <= last):
                        appended = message.timestamp()[1]
                        given = given_time(message.headers(), appended)
                        found.append((*place, message, appended if given is None else given))
                    if last < 0 or message.offset() >= last:
                        done.add(place)
            self._looker.unassign()
        return found

    def close(self) -> None:
        """Send what is still to be sent, and let go."""
        self._producer.flush(PATIENCE)
        with self._lock:
            if self._looker is not None:
                self._looker.close()
                self._looker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
