"""Three hours of a real shop through the whole system: every message accounted for, the same decisions on both logs.

Needs the reference data (`ATTIMO_REFERENCE`, see `tests/harness/support.py`); the log on Kafka needs a broker too.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep, time_ns
from typing import Any, NamedTuple

import msgspec
import pytest
import redis as client

from connectors import metrics
from connectors.metrics import Samples
from domain.action import pubsub_channel
from domain.model import Model, encode_model
from domain.settings import Settings
from flows.backtest.counts import decode_report
from state.profile.profile import merged_profile
from state.shard.reevaluation import PERSON_PREFIXES
from tests.harness.instance import RunningInstance
from tests.harness.kafka_broker import kafka_broker
from tests.harness.support import ROOT, data_path, free_port, redis_server

pytestmark = [pytest.mark.redis, pytest.mark.timeout(400)]
EXPECTED = {"Product Viewed": 17_055, "Product Added": 165, "Order Completed": 214, "Exit Intent": 4_975}
PINNED = Model(
    kind="propensity",
    version=1,
    hash="pinned",
    weights={"products": 0.4, "cart_value": 1.5, "orders": 0.8},
    intercept=-3.0,
)
BACKTEST_CAMPAIGNS = {
    "thanks": 'format = "bar"\ntrigger = { event = "Order Completed" }\n',
    "again": 'format = "bar"\ntrigger = { segment = "buyers" }\n',
    "friends": 'format = "bar"\ntrigger = { segment = "friends" }\n',
    "later": 'format = "banner"\ntrigger = { seconds_on_site = 60 }\nwhen = { cart = { items_at_least = 1 } }\n',
    "leaving": 'format = "popup"\ntrigger = { exit_intent = true }\nwhen = { cart = { items_at_least = 1 } }\n',
    "abroad": 'format = "popup"\ntrigger = { exit_intent = true }\nwhen = { has = { country = "CA" } }\n',
}
EXPECTED_REACH = (
    {"abroad": (4_975, 0), "again": (19, 19), "later": (4_518, 106), "leaving": (4_975, 60), "thanks": (214, 214)},
    242,
    373,
)
"""How often the occasion of each came and its conditions held; how many people were told something, and how often."""
_OFFSETS = re.compile(rb'"(clicks|carts|purchases|people|shard-messages)-(\d+)-\d+-')


@pytest.fixture(scope="module")
def messages_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded events as JSON lines."""
    script = data_path("rees46_to_events.py")
    path = tmp_path_factory.mktemp("real") / "messages.jsonl"
    with path.open("wb") as out:
        subprocess.run([sys.executable, script], stdout=out, stderr=subprocess.DEVNULL, check=True)
    return path


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


class RunResult(NamedTuple):
    """The result of a run over the three recorded hours: decisions, published actions and metrics."""

    instance: RunningInstance
    decided: dict[str, list[bytes]]
    """The decisions of every person, in order, without offsets."""
    published: list[bytes]
    metrics: Samples

    def decision_counts(self) -> Counter[str]:
        """The number of decisions by type."""
        return Counter(msgspec.json.decode(body)["type"] for bodies in self.decided.values() for body in bodies)

    def published_counts(self) -> Counter[str]:
        """The number of published actions by type."""
        return Counter(msgspec.json.decode(one)["type"] for one in self.published)


@contextmanager
def record_published(url: str) -> Iterator[list[bytes]]:
    """Record everything published to browsers meanwhile."""
    published: list[bytes] = []
    with client.Redis.from_url(url) as server:
        subscription = server.pubsub(ignore_subscribe_messages=True)
        subscription.psubscribe(**{pubsub_channel("*", "*"): lambda message: published.append(message["data"])})
        thread = subscription.run_in_thread(sleep_time=0.01)
        try:
            yield published
            server.publish(pubsub_channel("test", "end"), b"end")
            while published[-1:] != [b"end"]:
                sleep(0.01)
            published.pop()
        finally:
            thread.stop()
            thread.join(5)


def run_instance(folder: Path, redis: str, messages: Path, **settings: Any) -> RunResult:
    """Import the three hours and run the on-site flow."""
    folder.mkdir()
    (folder / "model.json").write_bytes(encode_model(PINNED))
    port = free_port([metrics.metrics_port(Settings(metrics_port=1), "onsite") - 1])
    home = RunningInstance(
        folder / "data", redis, ROOT / "shop", pinned_model=str(folder / "model.json"), metrics_port=port, **settings
    )
    try:
        if home.settings.log != "sqlite":
            run_attimo(home, "topics", "create")
        run_attimo(home, "ingest", "--history", str(messages))
        with record_published(redis) as published:
            home.start("onsite")
            home.wait_until(home.is_drained, "three hours are applied", 120)
            home.wait_until(partial(is_idle, home), "all due timers have fired", 120)
            samples = home.scrape_metrics("onsite")
            assert home.stop("onsite") == 0
    finally:
        home.close()
    decided: dict[str, list[bytes]] = {}
    for record in sorted(home.records("actions"), key=lambda record: (record.partition, record.offset)):
        person = msgspec.json.decode(record.value)["person"]
        decided.setdefault(person, []).append(_OFFSETS.sub(rb'"\1-\2-', record.value))
    return RunResult(home, decided, published, samples)


def is_idle(instance: RunningInstance) -> bool:
    """Whether all records are applied and no timer is due."""
    now = time_ns() // 1_000_000
    return instance.is_drained() and all(
        due > now for person in instance.persons().values() for due in person.timers.values()
    )


def run_attimo(instance: RunningInstance, *words: str) -> str:
    """Run a command of the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "attimo", *words],
        env=instance.environment({}),
        cwd=instance.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sqlite_run(tmp_path_factory: pytest.TempPathFactory, redis_url: str, messages_file: Path) -> RunResult:
    return run_instance(tmp_path_factory.mktemp("sqlite") / "run", redis_url, messages_file)


def test_every_message_is_accounted_for(sqlite_run: RunResult) -> None:
    home = sqlite_run.instance
    persons = {key: person for key, person in home.persons().items() if key[:2] in PERSON_PREFIXES}
    assert len(persons) == 4_504
    counts: Counter[str] = Counter()
    for person in persons.values():
        for name, count in merged_profile(person).lifetime_counts.items():
            counts[name] += count.count
    assert Counter({name: n for name, n in counts.items() if name != "Offer Suppressed"}) == EXPECTED
    assert home.records("dead-letters") == []
    assert sum(merged_profile(person).order_count for person in persons.values()) == 214


def test_recorded_decisions_are_all_stale(sqlite_run: RunResult) -> None:
    """Actions are suppressed as stale; only a `cancel` may be published late."""
    kinds = sqlite_run.decision_counts()
    assert kinds.keys() == {"segment_change", "send", "preload", "cancel", "suppress"}
    assert kinds["segment_change"] > 2 * 4_504, "everybody enters and exits a segment"
    assert 400 < kinds["send"] + kinds["preload"] + kinds["cancel"] + kinds["suppress"] < 4_504
    assert sqlite_run.metrics["attimo_stale_actions_total", ""] == kinds["send"] + kinds["preload"] > 214, (
        "more than orders"
    )
    assert sqlite_run.published_counts() == {"cancel": kinds["cancel"]}, "an action from 2019 was published"
    with client.Redis.from_url(sqlite_run.instance.settings.redis) as server:
        assert server.keys("preloaded:*") == [], "an action from 2019 was preloaded"


def test_backtest_of_recorded_traffic(messages_file: Path, tmp_path: Path) -> None:
    """Uses its own playbook, so that changes of the shipped one do not change the numbers."""
    for name, body in BACKTEST_CAMPAIGNS.items():
        (tmp_path / "shop" / "campaigns").mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / "campaigns" / f"{name}.toml").write_text(body + '[content.default]\ntitle = "Hello"\n')
    (tmp_path / "shop" / "segments").mkdir()
    (tmp_path / "shop" / "segments" / "buyers.toml").write_text("when = { orders = { count_at_least = 2 } }\n")
    (tmp_path / "shop" / "segments" / "friends.toml").write_text('when = { has = { address = "email" } }\n')
    home = RunningInstance(tmp_path / "data", "", tmp_path / "shop")
    run_attimo(home, "ingest", "--history", str(messages_file))
    page = run_attimo(home, "rehearse", "--json", "report.json", "--processes", "1")
    first = (home.folder / "report.json").read_bytes()
    run_attimo(home, "rehearse", "--json", "report.json", "--processes", "2")
    assert (home.folder / "report.json").read_bytes() == first, "equal bytes with one and two processes"
    found = decode_report(first).result
    assert (found.events, found.people) == (sum(EXPECTED.values()), 4_504)
    reach = {name: (one.triggered, one.eligible) for name, one in found.eligibility.items()}
    assert reach["thanks"] == (214, 214)
    assert reach["leaving"][0] == reach["abroad"][0] == 4_975
    assert reach["abroad"][1] == 0
    assert reach["later"][0] > 4_504, "the time-on-site trigger fires in every session"
    assert (reach, found.reached, found.contacts) == EXPECTED_REACH
    assert found.eligibility["abroad"].failed_conditions == {"is in CA": 4_975}
    assert "friends" not in found.eligibility
    for line in (
        "  abroad   triggered 4,975 times, never eligible; the condition that failed most often: is in CA "
        "(4,975 times)",
        "  friends  never triggered: entered friends; the condition of friends that failed most often: can be "
        "reached by email (4,504 people)",
    ):
        assert line in page.splitlines(), page


@pytest.mark.kafka
def test_kafka_gives_the_same_decisions(
    sqlite_run: RunResult, tmp_path: Path, redis_url: str, messages_file: Path
) -> None:
    with kafka_broker() as bootstrap:
        found = run_instance(tmp_path / "run", redis_url, messages_file, log=f"kafka://{bootstrap}", shop="kafka")
    assert found.decided == sqlite_run.decided
    assert found.published_counts() == sqlite_run.published_counts()
