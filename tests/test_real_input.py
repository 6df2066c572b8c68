"""Three hours of a real shop through the whole system: every message accounted for, the same decisions on both logs.

Needs the reference data (`ATTIMO_REFERENCE`, see `tests/support.py`); the log on Kafka needs a broker too.
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
from connectors.scrape import Samples
from domain.action import channel
from domain.model import Model, encode
from domain.rehearsal import decode
from domain.settings import Settings
from state.sweep import PEOPLE_KEYS
from state.view import known
from tests.kafka_broker import kafka_broker
from tests.support import ROOT, data_path, free_port, redis_server
from tests.system import House

pytestmark = [pytest.mark.redis, pytest.mark.timeout(400)]
EXPECTED = {"Product Viewed": 17_055, "Product Added": 165, "Order Completed": 214, "Exit Intent": 4_975}
PINNED = Model(kind="propensity", version=1, hash="pinned", weights={"products": 0.4, "cart_value": 1.5, "orders": 0.8},
               intercept=-3.0)
REHEARSED = {
    "thanks": 'format = "bar"\ntrigger = { event = "Order Completed" }\n',
    "again": 'format = "bar"\ntrigger = { segment = "buyers" }\n',
    "friends": 'format = "bar"\ntrigger = { segment = "friends" }\n',
    "later": 'format = "banner"\ntrigger = { seconds_on_site = 60 }\nwhen = { cart = { items_at_least = 1 } }\n',
    "leaving": 'format = "popup"\ntrigger = { exit_intent = true }\nwhen = { cart = { items_at_least = 1 } }\n',
    "abroad": 'format = "popup"\ntrigger = { exit_intent = true }\nwhen = { has = { country = "CA" } }\n',
}
COUNTED = ({"abroad": (4_975, 0), "again": (19, 19), "later": (4_518, 106), "leaving": (4_975, 60),
            "thanks": (214, 214)}, 242, 373)
"""How often the occasion of each came and its conditions held; how many people were told something, and how often."""
_OFFSETS = re.compile(rb'"(clicks|carts|purchases|people|letters)-(\d+)-\d+-')


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The messages as JSON lines."""
    script = data_path("rees46_to_events.py")
    path = tmp_path_factory.mktemp("real") / "messages.jsonl"
    with path.open("wb") as out:
        subprocess.run([sys.executable, script], stdout=out, stderr=subprocess.DEVNULL, check=True)
    return path


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


class Run(NamedTuple):
    """A house that has gone through the three hours: what it decided, what the world heard, what it counted."""

    home: House
    decided: dict[str, list[bytes]]
    """The decisions of every person, in order, without offsets."""
    heard: list[bytes]
    told: Samples

    def kinds(self) -> Counter[str]:
        """How many decisions there are of each kind."""
        return Counter(msgspec.json.decode(body)["type"] for bodies in self.decided.values() for body in bodies)

    def said(self) -> Counter[str]:
        """What was heard, by kind."""
        return Counter(msgspec.json.decode(one)["type"] for one in self.heard)


@contextmanager
def listening(url: str) -> Iterator[list[bytes]]:
    """Everything that is said to browsers meanwhile."""
    heard: list[bytes] = []
    with client.Redis.from_url(url) as server:
        said = server.pubsub(ignore_subscribe_messages=True)
        said.psubscribe(**{channel("*", "*"): lambda message: heard.append(message["data"])})
        thread = said.run_in_thread(sleep_time=0.01)
        try:
            yield heard
            server.publish(channel("test", "end"), b"end")
            while heard[-1:] != [b"end"]:
                sleep(0.01)
            heard.pop()
        finally:
            thread.stop()
            thread.join(5)


def run(folder: Path, redis: str, messages: Path, **settings: Any) -> Run:
    """Ingest the three hours and decide."""
    folder.mkdir()
    (folder / "model.json").write_bytes(encode(PINNED))
    port = free_port([metrics.port_of(Settings(metrics_port=1), "onsite") - 1])
    home = House(folder / "data", redis, ROOT / "shop", pinned_model=str(folder / "model.json"), metrics_port=port,
                 **settings)
    try:
        if home.settings.log != "sqlite":
            attimo(home, "topics", "create")
        attimo(home, "ingest", "--history", str(messages))
        with listening(redis) as heard:
            home.start("onsite")
            home.wait(home.drained, "three hours are applied", 120)
            home.wait(partial(over, home), "what time alone brought has come, too", 120)
            told = home.scraped("onsite")
            assert home.stop("onsite") == 0
    finally:
        home.close()
    decided: dict[str, list[bytes]] = {}
    for record in sorted(home.records("actions"), key=lambda record: (record.partition, record.offset)):
        person = msgspec.json.decode(record.value)["person"]
        decided.setdefault(person, []).append(_OFFSETS.sub(rb'"\1-\2-', record.value))
    return Run(home, decided, heard, told)


def over(home: House) -> bool:
    """Whether all is applied, and nobody has a timer that is due by now."""
    now = time_ns() // 1_000_000
    return home.drained() and all(due > now for person in home.persons().values() for due in person.timers.values())


def attimo(home: House, *words: str) -> str:
    """A command, as one types it."""
    done = subprocess.run([sys.executable, "-m", "attimo", *words], env=home.environment({}), cwd=home.folder,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory, redis: str, messages: Path) -> Run:
    return run(tmp_path_factory.mktemp("sqlite") / "run", redis, messages)


def test_every_message_is_accounted_for(on_sqlite: Run) -> None:
    home = on_sqlite.home
    persons = {key: person for key, person in home.persons().items() if key[:2] in PEOPLE_KEYS}
    assert len(persons) == 4_504
    counts: Counter[str] = Counter()
    for person in persons.values():
        for name, count in known(person).counts.items():
            counts[name] += count.n
    assert Counter({name: n for name, n in counts.items() if name != "Offer Held"}) == EXPECTED
    assert home.records("rejects") == []
    assert sum(known(person).order_count for person in persons.values()) == 214


def test_hundreds_of_decisions_and_all_of_them_stale(on_sqlite: Run) -> None:
    """Moves between segments are not counted among them. An offer that was never shown may be taken back aloud."""
    kinds = on_sqlite.kinds()
    assert kinds.keys() == {"move", "send", "arm", "disarm", "hold"}
    assert kinds["move"] > 2 * 4_504, "everybody comes and goes"
    assert 400 < kinds["send"] + kinds["arm"] + kinds["disarm"] + kinds["hold"] < 4_504
    assert on_sqlite.told["attimo_stale_total", ""] == kinds["send"] + kinds["arm"] > 214, "more than orders"
    assert on_sqlite.said() == {"disarm": kinds["disarm"]}, "something from 2019 was said to somebody"
    with client.Redis.from_url(on_sqlite.home.settings.redis) as server:
        assert server.keys("armed:*") == [], "something from 2019 was put in front of somebody"


def test_the_three_hours_rehearsed(messages: Path, tmp_path: Path) -> None:
    """A playbook of its own, so that the numbers stay when the shipped one changes."""
    for name, body in REHEARSED.items():
        (tmp_path / "shop" / "campaigns").mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / "campaigns" / f"{name}.toml").write_text(body + '[content.default]\ntitle = "Hello"\n')
    (tmp_path / "shop" / "segments").mkdir()
    (tmp_path / "shop" / "segments" / "buyers.toml").write_text("when = { orders = { count_at_least = 2 } }\n")
    (tmp_path / "shop" / "segments" / "friends.toml").write_text('when = { has = { address = "email" } }\n')
    home = House(tmp_path / "data", "", tmp_path / "shop")
    attimo(home, "ingest", "--history", str(messages))
    page = attimo(home, "rehearse", "--json", "report.json", "--processes", "1")
    first = (home.folder / "report.json").read_bytes()
    attimo(home, "rehearse", "--json", "report.json", "--processes", "2")
    assert (home.folder / "report.json").read_bytes() == first, "the same bytes, in however many processes"
    found = decode(first).found
    assert (found.events, found.people) == (sum(EXPECTED.values()), 4_504)
    chances = {name: (one.came, one.fitted) for name, one in found.chances.items()}
    assert chances["thanks"] == (214, 214)
    assert chances["leaving"][0] == chances["abroad"][0] == 4_975
    assert chances["abroad"][1] == 0
    assert chances["later"][0] > 4_504, "a second of the visit comes in every visit"
    assert (chances, found.reached, found.things) == COUNTED
    assert found.chances["abroad"].failed == {"is in CA": 4_975}
    assert "friends" not in found.chances
    for line in ("  abroad   came 4,975 times, and what failed most often is: is in CA (4,975 times)",
                 "  friends  its occasion never came: entered friends; what failed most often for friends is: can be "
                 "reached by email (4,504 people)"):
        assert line in page.splitlines(), page


@pytest.mark.kafka
def test_kafka_gives_the_same_decisions(on_sqlite: Run, tmp_path: Path, redis: str, messages: Path) -> None:
    with kafka_broker() as bootstrap:
        found = run(tmp_path / "run", redis, messages, log=f"kafka://{bootstrap}", shop="kafka")
    assert found.decided == on_sqlite.decided
    assert found.said() == on_sqlite.said()
