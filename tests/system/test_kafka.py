"""End-to-end tests on Kafka: standard producers write events, standard Redis subscribers receive actions.

Uses a real broker, confluent-kafka with two partitioners, kcat and redis-cli.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from connectors.log.kafka_admin import create_topics
from domain.action import pubsub_channel
from state.profile.profile import merged_profile
from tests.harness import full_playbook
from tests.harness.instance import RunningInstance
from tests.harness.pubsub import RedisSubscriber
from tests.harness.support import redis_server
from tests.system.test_crash import LoadGenerator, check_instance

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}


@pytest.fixture
def instance(tmp_path: Path, broker: str, request: pytest.FixtureRequest) -> Iterator[RunningInstance]:
    """A running instance on Kafka, with a shop id of its own."""
    folder = full_playbook.write_playbook(tmp_path / "shop")
    shop = request.node.name.replace("_", "").replace("[", "").replace("]", "")[:40]
    with redis_server() as redis:
        made = RunningInstance(tmp_path / "data", redis, folder, log=f"kafka://{broker}", shop=shop, partitions=8)
        create_topics(made.settings)
        try:
            yield made
        finally:
            made.close()


def product_added(who: str, n: int = 0) -> bytes:
    """A minimal event, as a backend would write it."""
    return json.dumps(
        {"type": "track", "event": "Product Added", "anonymousId": who, "messageId": f"{who}-{n}", "properties": CUP}
    ).encode()


@pytest.mark.parametrize("partitioner", ["murmur2_random", "consistent_random"])
def test_any_producer_partitioner_is_accepted(instance: RunningInstance, broker: str, partitioner: str) -> None:
    instance.start("onsite")
    listener = RedisSubscriber(instance.settings.redis, instance.settings.shop)
    producer = Producer({"bootstrap.servers": broker, "partitioner": partitioner, "linger.ms": 0})
    people = [f"{partitioner}-{n}" for n in range(20)]
    for who in people:
        for n in range(3):
            producer.produce(f"{instance.settings.shop}.carts", key=who.encode(), value=product_added(who, n))
    assert producer.flush(20) == 0
    instance.wait_until(lambda: len(set(listener.received)) >= len(people), "everybody gets an action")
    instance.wait_until(instance.is_drained, "everything is applied")
    persons = instance.persons()
    for who in people:
        assert merged_profile(persons[f"a:{who}"]).lifetime_counts["Product Added"].count == 3
    listener.close()
    assert instance.stop("onsite") == 0


@contextmanager
def redis_cli_subscriber(instance: RunningInstance, who: str) -> Iterator[Callable[[], list[str]]]:
    """Run `redis-cli SUBSCRIBE` for one person; yield a function that reads the next message as lines."""
    socket = instance.settings.redis.removeprefix("unix://")
    with subprocess.Popen(
        ["redis-cli", "-s", socket, "SUBSCRIBE", pubsub_channel(instance.settings.shop, who)],
        stdout=subprocess.PIPE,
        text=True,
    ) as cli:
        assert cli.stdout is not None
        lines = cli.stdout

        def next_message() -> list[str]:
            return [lines.readline().strip() for _ in range(3)]

        try:
            assert next_message()[0] == "subscribe"
            yield next_message
        finally:
            cli.terminate()


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="needs redis-cli")
def test_producer_to_redis_cli_end_to_end(instance: RunningInstance, broker: str) -> None:
    instance.start("onsite")
    with redis_cli_subscriber(instance, "kim") as next_message:
        producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2_random", "linger.ms": 0})
        producer.produce(f"{instance.settings.shop}.carts", key=b"kim", value=product_added("kim"))
        assert producer.flush(20) == 0
        message = next_message()
    action = json.loads(message[2])
    assert message[:2] == ["message", f"onsite:{instance.settings.shop}:kim"]
    assert (action["type"], action["campaign"]) == ("send", "added")
    assert action["content"]["title"].startswith("It is in your cart")
    assert "person" not in action


@pytest.mark.skipif(not shutil.which("kcat"), reason="needs kcat")
def test_kcat_to_subscriber_end_to_end(instance: RunningInstance, broker: str) -> None:
    instance.start("onsite")
    listener = RedisSubscriber(instance.settings.redis, instance.settings.shop)
    subprocess.run(
        [
            "kcat",
            "-P",
            "-b",
            broker,
            "-t",
            f"{instance.settings.shop}.carts",
            "-K",
            "|",
            "-X",
            "partitioner=murmur2_random",
        ],
        input=b"kim|" + product_added("kim"),
        check=True,
        timeout=30,
    )
    instance.wait_until(lambda: "added" in [campaign for _, campaign in listener.sent.values()], "kim gets an action")
    assert {who for who, _ in listener.sent.values()} == {"kim"}
    listener.close()


def test_crash_on_kafka(instance: RunningInstance) -> None:
    """With workflows, coupons and messages."""
    instance.start("edge")
    instance.start("outreach")
    listener = RedisSubscriber(instance.settings.redis, instance.settings.shop)
    instance.start("onsite", crash_at="onsite:after_commit#5")
    with LoadGenerator(instance, 5, listener) as crowd:
        assert instance.wait_for_exit("onsite", 60) == 137, instance.logs()
        instance.start("onsite")
        crowd.wait_for_more()
        instance.kill("onsite")
        instance.kill("edge")
        instance.start("onsite")
        instance.start("edge")
        crowd.wait_for_more()
    check_instance(instance, crowd)
    listener.close()
