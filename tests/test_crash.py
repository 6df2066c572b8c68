"""Kill -9 at any point: nothing lost, nothing repeated that is not recognised.

Real processes, a real Redis, a real log; the failpoints of `domain/failpoint.py` one by one, then kills at random under
load. `ATTIMO_CRASH_ROUNDS` sets how many random rounds there are (5 here; 50 before a release).
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
import redis

from domain import model as models
from domain import outcome as outcomes
from domain.action import channel
from state import rerun as reruns
from state.rules import rules_from
from state.store_sqlite import SqliteStore
from tests.system import House, house

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]
ROUNDS = int(os.environ.get("ATTIMO_CRASH_ROUNDS", "5"))

EVENTS = ("Product Viewed", "Product Added", "Exit Intent", "Order Completed")
SHOP = """
currency = "EUR"
timezone = "Europe/Rome"
"""
CAMPAIGN = """
name = "added"
format = "bar"
valid_for = "10m"
[trigger]
event = "Product Added"
[content.default]
title = "It is in your cart"
"""


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    """A shop that says something at every product added, without a limit: what must come out can be counted."""
    folder = tmp_path / "shop"
    (folder / "campaigns").mkdir(parents=True)
    (folder / "shop.toml").write_text(SHOP)
    (folder / "campaigns" / "added.toml").write_text(CAMPAIGN)
    return folder


class Crowd:
    """People who put things into their carts, and send every message until it is accepted (and some of them twice)."""

    def __init__(self, house: House, seed: int, people: int = 40) -> None:
        self.house, self.random = house, random.Random(seed)
        self.people = [f"visitor-{seed}-{n}" for n in range(people)]
        self.accepted: dict[str, tuple[str, str]] = {}
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.n = 0

    def message(self) -> dict[str, object]:
        who, self.n = self.random.choice(self.people), self.n + 1
        event = self.random.choice(EVENTS)
        cup = {"product_id": f"p{self.n % 7}", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}
        order = {"order_id": f"o-{who}-{self.n}", "revenue": 9.5, "currency": "EUR", "products": [cup]}
        properties = {"Exit Intent": {}, "Order Completed": order}.get(event, cup)
        return {"type": "track", "event": event, "messageId": f"m-{who}-{self.n}", "anonymousId": who,
                "properties": properties}

    def send(self, count: int) -> None:
        batch = [self.message() for _ in range(count)]
        self.house.post("/v1/batch", {"batch": batch})
        if self.random.random() < 0.3:
            self.house.post("/v1/batch", {"batch": batch})
        for one in batch:
            self.accepted[str(one["messageId"])] = (str(one["anonymousId"]), str(one["event"]))

    def has(self, count: int) -> bool:
        """Whether so many messages were accepted."""
        return len(self.accepted) >= count

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self.send(self.random.randint(1, 6))
                time.sleep(self.random.random() * 0.02)
        except BaseException as failed:  # noqa: BLE001 - shown by the test that waits for this thread
            self.failures.append(failed)

    def __enter__(self) -> "Crowd":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.failures, self.failures[0]


class Listener:
    """A plain subscriber of every channel: what it hears, it notes."""

    def __init__(self, url: str, shop: str) -> None:
        self.heard: list[str] = []
        self._redis = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
        self._pubsub.psubscribe(**{channel(shop, "*"): self._note})
        self._thread = self._pubsub.run_in_thread(sleep_time=0.01)

    def _note(self, message: dict[str, bytes]) -> None:
        plain = msgspec.json.decode(message["data"])
        if plain["type"] == "send":
            self.heard.append(plain["id"])

    def close(self) -> None:
        self._thread.stop()
        self._thread.join(5)
        self._redis.close()


def check(house: House, crowd: Crowd, heard: list[str]) -> None:
    """Every accepted message folded exactly once; `actions` holds each send once after de-duplication, none missing."""
    house.wait(house.drained, "everything is applied and published", 60)
    assert [record.value for record in house.records("rejects")] == [], house.logs()
    persons = house.persons()
    expected: Counter[tuple[str, str]] = Counter(crowd.accepted.values())
    found = Counter({(name[2:], event): count.n for name, person in persons.items()
                     for event, count in person.own().counts.items() if event in EVENTS})
    assert found == expected
    told = Counter(record.value for record in house.records("actions", "outcomes"))
    decided = {msgspec.json.decode(body)["id"]: body for body in told}
    assert len(decided) == len(told), "one id, two decisions"
    assert decided == rerun(house)
    sends = {known for known, body in decided.items() if body.startswith(b'{"type":"send"')}
    assert {who for who, event in crowd.accepted.values() if event == "Product Added"} == {
        msgspec.json.decode(decided[known])["anonymous_id"] for known in sends}
    assert set(heard) == sends, "what was heard is not what was decided"


def rerun(house: House) -> dict[str, bytes]:
    """The recorded turns, run again from the log, give the same persons byte for byte; what was decided, by id."""
    from flows import warm_up
    from flows.onsite import STEPS

    store, decided = house.store(), dict[str, bytes]()
    with house.log() as log:
        for partition in range(house.settings.partitions):
            turns = store.turns(partition)
            again = SqliteStore(house.folder / "again" / f"{partition}.db", house.settings.partitions)
            rows = reruns.rerun(
                partition, turns, log.fetch, again, STEPS, house.settings.partitions,
                lambda known: rules_from(store.kept("playbook", known) or b""), lambda known: model_of(store, known),
                warmed=lambda p, before, rules, head: warm_up.again(p, before, rules, head, log.fetch))
            assert again.persons(partition) == store.persons(partition)
            again.close()
            decided.update({row.id: row.body for row in rows if row.stream in ("actions", "outcomes")})
    store.close()
    return decided


def model_of(store: SqliteStore, known: str) -> models.Model | None:
    """The model of a turn, by its hash."""
    return models.decode(store.kept("model", known) or b"") if known else None


@pytest.fixture
def home(tmp_path: Path, playbook: Path) -> Iterator[House]:
    with house(tmp_path / "data", playbook) as made:
        yield made


@pytest.fixture
def listener(home: House) -> Iterator[Listener]:
    made = Listener(home.settings.redis, home.settings.shop)
    yield made
    made.close()


@pytest.mark.parametrize("point", ["onsite:after_commit", "onsite:after_publish"])
@pytest.mark.parametrize("nth", [1, 7])
def test_the_onsite_flow_dies_at_a_failpoint(home: House, listener: Listener, point: str, nth: int) -> None:
    home.start("edge")
    home.start("onsite", crash_at=f"{point}#{nth}")
    with Crowd(home, seed=nth) as crowd:
        assert home.died("onsite") == 137
        home.start("onsite")
        time.sleep(1)
    check(home, crowd, listener.heard)
    assert home.stop("onsite") == 0


def test_the_collector_dies_between_log_and_answer(home: House, listener: Listener) -> None:
    home.start("onsite")
    home.start("edge", crash_at="collector:after_append#3")
    with Crowd(home, seed=3) as crowd:
        assert home.died("edge") == 137
        home.start("edge")
        time.sleep(1)
    check(home, crowd, listener.heard)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_random_under_load(home: House, listener: Listener, seed: int) -> None:
    chance = random.Random(1_000 + seed)
    names = ["edge", "onsite", "learning"]
    for name in names:
        home.start(name)
    with Crowd(home, seed=100 + seed) as crowd:
        for done in range(4):
            # On a busy machine little gets through between two kills: the count decides, not the time.
            home.wait(partial(crowd.has, 30 * (done + 1)), "messages come in")
            time.sleep(chance.random())
            name = chance.choice(names)
            home.kill(name)
            home.start(name)
    check(home, crowd, listener.heard)
    ended = {outcomes.decode(record.value).id for record in home.records("outcomes")}
    home.wait(lambda: learned(home) == len(ended), "every outcome is learned, once")
    assert [home.stop(name) for name in names] == [0, 0, 0]


def learned(home: House) -> int:
    """How many examples the latest model has seen."""
    published = [models.decode(record.value) for record in home.records("models")]
    return max((model.quality.examples for model in published), default=0)
