"""An engineer's afternoon: any producer writes to a topic, a plain subscriber of Redis hears the action.

A real broker, a plain confluent-kafka producer with and without the right partitioner, kcat, and redis-cli.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from connectors.kafka_topics import create_topics
from domain.action import channel
from state.view import known
from tests import whole_playbook
from tests.listening import Listener
from tests.support import redis_server
from tests.system import House
from tests.test_crash import Crowd, check

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}


@pytest.fixture
def home(tmp_path: Path, broker: str, request: pytest.FixtureRequest) -> Iterator[House]:
    """The on-site flow over Kafka, in a shop of the test's own."""
    folder = whole_playbook.write(tmp_path / "shop")
    shop = request.node.name.replace("_", "").replace("[", "").replace("]", "")[:40]
    with redis_server() as redis:
        made = House(tmp_path / "data", redis, folder, log=f"kafka://{broker}", shop=shop, partitions=8)
        create_topics(made.settings)
        try:
            yield made
        finally:
            made.close()


def added(who: str, n: int = 0) -> bytes:
    """What a shop's own backend would write: no more than the spec asks for."""
    return json.dumps({"type": "track", "event": "Product Added", "anonymousId": who, "messageId": f"{who}-{n}",
                       "properties": CUP}).encode()


@pytest.mark.parametrize("partitioner", ["murmur2_random", "consistent_random"])
def test_a_plain_producer_with_and_without_the_right_partitioner(home: House, broker: str, partitioner: str) -> None:
    home.start("onsite")
    listener = Listener(home.settings.redis, home.settings.shop)
    producer = Producer({"bootstrap.servers": broker, "partitioner": partitioner, "linger.ms": 0})
    people = [f"{partitioner}-{n}" for n in range(20)]
    for who in people:
        for n in range(3):
            producer.produce(f"{home.settings.shop}.carts", key=who.encode(), value=added(who, n))
    assert producer.flush(20) == 0
    home.wait(lambda: len(set(listener.heard)) >= len(people), "everybody is answered")
    home.wait(home.drained, "everything is applied")
    persons = home.persons()
    for who in people:
        assert known(persons[f"a:{who}"]).counts["Product Added"].n == 3
    listener.close()
    assert home.stop("onsite") == 0


@contextmanager
def subscribed(home: House, who: str) -> Iterator[Callable[[], list[str]]]:
    """A plain `redis-cli SUBSCRIBE` to what one person is told; gives the next message, line by line."""
    where = home.settings.redis.removeprefix("unix://")
    with subprocess.Popen(["redis-cli", "-s", where, "SUBSCRIBE", channel(home.settings.shop, who)],
                          stdout=subprocess.PIPE, text=True) as cli:
        assert cli.stdout is not None
        lines = cli.stdout

        def heard() -> list[str]:
            return [lines.readline().strip() for _ in range(3)]

        try:
            assert heard()[0] == "subscribe"
            yield heard
        finally:
            cli.terminate()


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="needs redis-cli")
def test_a_plain_producer_in_and_redis_cli_out(home: House, broker: str) -> None:
    home.start("onsite")
    with subscribed(home, "kim") as heard:
        producer = Producer({"bootstrap.servers": broker, "partitioner": "murmur2_random", "linger.ms": 0})
        producer.produce(f"{home.settings.shop}.carts", key=b"kim", value=added("kim"))
        assert producer.flush(20) == 0
        message = heard()
    action = json.loads(message[2])
    assert message[:2] == ["message", f"onsite:{home.settings.shop}:kim"]
    assert (action["type"], action["campaign"]) == ("send", "added")
    assert action["content"]["title"].startswith("It is in your cart")
    assert "person" not in action


@pytest.mark.skipif(not shutil.which("kcat"), reason="needs kcat")
def test_kcat_in(home: House, broker: str) -> None:
    home.start("onsite")
    listener = Listener(home.settings.redis, home.settings.shop)
    subprocess.run(["kcat", "-P", "-b", broker, "-t", f"{home.settings.shop}.carts", "-K", "|",
                    "-X", "partitioner=murmur2_random"], input=b"kim|" + added("kim"), check=True, timeout=30)
    home.wait(lambda: "added" in [campaign for _, campaign in listener.told.values()], "kim is answered")
    assert {who for who, _ in listener.told.values()} == {"kim"}
    listener.close()


def test_killed_on_kafka_too(home: House) -> None:
    """With workflows and coupons, and messages that go out by way of the topics `messages` and `people`."""
    home.start("edge")
    home.start("outreach")
    listener = Listener(home.settings.redis, home.settings.shop)
    home.start("onsite", crash_at="onsite:after_commit#5")
    with Crowd(home, 5, listener) as crowd:
        assert home.died("onsite", 60) == 137, home.logs()
        home.start("onsite")
        crowd.goes_on()
        home.kill("onsite")
        home.kill("edge")
        home.start("onsite")
        home.start("edge")
        crowd.goes_on()
    check(home, crowd)
    listener.close()
