"""What the Kafka log promises beyond the conformance suite: the partitioner, topics, brokers that go away."""

import time
from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from connectors.log.kafka import KafkaLog
from connectors.log.kafka_admin import create_topics
from connectors.log.log import LogError
from connectors.log.open import open_log
from domain.record import ALL_STREAMS, NewRecord, Record, partition_of
from domain.settings import Settings
from tests.connectors.log.conftest import PARTITIONS
from tests.harness.kafka_broker import running_broker
from tests.harness.support import examples

pytestmark = pytest.mark.kafka
STREAM_PARTITIONS = [
    (stream, partition) for stream in ("clicks", "carts", "shard-messages") for partition in range(PARTITIONS)
]


@pytest.fixture
def log(kafka_settings: Settings) -> Iterator[KafkaLog]:
    with open_log(kafka_settings) as found:
        assert isinstance(found, KafkaLog)
        yield found


@pytest.fixture(scope="module")
def wide_topic(broker: str) -> str:
    """A topic of 64 partitions."""
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic("wide", 64, 1)])["wide"].result(10)
    return "wide"


@hypothesis_settings(
    max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=50, max_size=200))
def test_partition_matches_the_clients_murmur2(broker: str, wide_topic: str, keys: list[bytes]) -> None:
    placed: list[tuple[bytes, int]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        placed.append((message.key() or b"", message.partition() or 0))

    producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2_random", "linger.ms": 1})
    for key in keys:
        producer.produce(wide_topic, key=key, value=b"", on_delivery=delivered)
    producer.flush(20)
    assert sorted(placed) == sorted((key, partition_of(key, 64)) for key in keys)


def test_topics_use_log_append_time(broker: str) -> None:
    settings = Settings(log=f"kafka://{broker}", shop="once", partitions=3)
    with pytest.raises(LogError, match="attimo topics create"):
        open_log(settings)
    assert create_topics(settings) == [f"once.{stream}" for stream in ALL_STREAMS]
    assert create_topics(settings) == []
    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
    assert {name: len(topic.partitions) for name, topic in topics.items() if name.startswith("once.")} == {
        f"once.{stream}": 1 if stream == "models" else 3 for stream in ALL_STREAMS
    }
    open_log(settings).close()
    with pytest.raises(LogError, match="has 3 partitions, expected 5"):
        create_topics(msgspec.structs.replace(settings, partitions=5))


def test_topic_with_create_time_is_rejected(broker: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic("theirs.clicks", 3, 1)])["theirs.clicks"].result(10)
    with pytest.raises(LogError, match="LogAppendTime"):
        create_topics(Settings(log=f"kafka://{broker}", shop="theirs", partitions=3))


def test_log_time_header_is_used_only_where_allowed(kafka_settings: Settings, log: KafkaLog, broker: str) -> None:
    """Whoever writes to a public topic cannot set the clock. A letter has the time it was written at, whenever it is
    read, so that a re-run finds the clock where it was; never one that is still to come.
    """
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(
        f"{kafka_settings.shop}.clicks", value=b"{}", key=b"a", partition=0, headers={"attimo-log-time": "5"}
    )
    producer.produce(
        f"{kafka_settings.shop}.shard-messages",
        value=b"{}",
        key=b"a",
        partition=1,
        headers={"attimo-log-time": "9" * 16},
    )
    producer.flush(10)
    log.append([NewRecord("shard-messages", b"a", b"{}", 0, 7), NewRecord("shard-messages", b"a", b"{}", 0, 6)])
    with closing(log.reader(STREAM_PARTITIONS, {})) as reader:
        records: list[Record] = []
        while len(records) < 4:
            records += reader.poll(10, 0.1)
    times = {(record.stream, record.partition, record.offset): record.log_time for record in records}
    assert (times["shard-messages", 0, 0], times["shard-messages", 0, 1]) == (7, 7), (
        "they never fall within a partition"
    )
    assert all(
        1_600_000_000_000 < times[place] < 4_000_000_000_000 for place in (("clicks", 0, 0), ("shard-messages", 1, 0))
    )
    fetched = [*log.fetch(("shard-messages", 0), 0, 1), *log.fetch(("shard-messages", 1), 0, 0)]
    assert [record.log_time for record in fetched] == [7, 6, times["shard-messages", 1, 0]]


def test_transactions_are_read_after_commit(kafka_settings: Settings, log: KafkaLog, broker: str) -> None:
    """Their markers take offsets that no record has; the end is known all the same."""
    producer = Producer({"bootstrap.servers": broker, "transactional.id": kafka_settings.shop})
    producer.init_transactions(20)
    found: list[Record] = []
    with closing(log.reader(STREAM_PARTITIONS, {})) as reader:
        for number in range(2):
            producer.begin_transaction()
            producer.produce(f"{kafka_settings.shop}.clicks", value=b"%d" % number, key=b"a", partition=0)
            producer.commit_transaction(20)
            while len(found) <= number:
                found += reader.poll(10, 0.1)
        moment = time.time_ns() // 1_000_000
        while not reader.caught_up(0) or reader.watermark() < moment:
            assert reader.poll(10, 0.05) == []
        assert [record.value for record in found] == [b"0", b"1"]
    start = {("clicks", 0): found[-1].offset}
    with closing(log.reader(STREAM_PARTITIONS, start)) as reader:
        while not reader.caught_up(0):
            assert reader.poll(10, 0.05) == []


def test_unreachable_broker_is_an_error(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.log.kafka_admin.REQUEST_TIMEOUT", 0.5)
    with pytest.raises(LogError, match="no response from Kafka"):
        open_log(msgspec.structs.replace(kafka_settings, log="kafka://127.0.0.1:1"))


@pytest.mark.slow
def test_broker_outage_stops_the_clock_and_loses_nothing() -> None:
    with running_broker() as broker:
        settings = Settings(log=f"kafka://{broker.bootstrap}", shop="gone", partitions=PARTITIONS)
        create_topics(settings)
        with open_log(settings) as log, closing(log.reader(STREAM_PARTITIONS, {})) as reader:
            log.append([NewRecord("clicks", b"a", b"0")])
            found: list[Record] = []
            while not found or not reader.caught_up(0):
                found += reader.poll(10, 0.05)
            broker.kill()
            while reader.caught_up(0):
                assert reader.poll(10, 0.05) == []
            stopped = reader.watermark()
            ticket = log.start_append([NewRecord("clicks", b"a", b"1")])
            assert reader.poll(10, 0.3) == []
            assert reader.watermark() == stopped
            broker.start()
            while not ticket.done() or len(found) < 2 or not reader.caught_up(0):
                found += reader.poll(10, 0.05)
            assert reader.watermark() > stopped
            assert [record.value for record in found] == [b"0", b"1"]
