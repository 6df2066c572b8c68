"""The fifths of all customers as processes: each is counted once wherever the learner is killed; the shop sees it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain import model as models
from domain import outcome as outcomes
from domain.model import Model
from domain.outcome import Outcome
from domain.partition import partition_of
from domain.record import Outgoing
from domain.streams import OUTCOMES, PURCHASES
from flows.onsite import STEPS
from state import codec, rfm
from state import rerun as reruns
from state.learner_store import LearnerStore
from state.person import Counted
from state.quintiles import Quintiles
from state.rules import rules_from
from state.store_sqlite import SqliteStore
from tests.system import House, house
from tests.test_learning import planted
from tests.test_rfm import population, told

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4


class School:
    """A learner of one's own that is told of customers (and, in between, of visits)."""

    def __init__(self, folder: Path) -> None:
        self.house = House(folder, "", folder / "shop", partitions=PARTITIONS)
        self.stream: list[Outcome] = []
        people = population(3, 600)
        visits = planted(600, seed=5)
        for n, one in enumerate(people):
            self.stream += [told(n, Counted(), one), msgspec.structs.replace(visits[n], id=f"visit-{n}")]
        self.given = 0

    def give(self, n: int, times: int = 1) -> None:
        part = self.stream[self.given:self.given + n]
        self.given += n
        with self.house.log() as log:
            for _ in range(times):
                log.append([Outgoing(OUTCOMES, b"x", outcomes.encode(one), partition=2) for one in part])

    def published(self, kind: str = rfm.KIND) -> list[Model]:
        found = [models.decode(one.value) for one in self.house.records("models")]
        return [one for one in found if one.kind == kind]

    def caught_up(self) -> bool:
        visits = self.published("propensity")
        return bool(visits) and visits[-1].quality.examples == self.given // 2

    def expected(self) -> Quintiles:
        fifths = Quintiles()
        for one in self.stream[:self.given]:
            if one.kind == rfm.KIND:
                fifths.learn(one)
        return fifths


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    made = School(tmp_path)
    yield made
    made.house.close()


def settled(school: School) -> Quintiles:
    """What the learner has counted, as it is kept."""
    store = LearnerStore(school.house.folder / "store" / "learner.db")
    fifths = Quintiles(store.learners[rfm.KIND])
    store.close()
    return fifths


def same(one: Quintiles, other: Quintiles) -> bool:
    return (one.days, one.orders, one.money, one.clock) == (other.days, other.orders, other.money, other.clock)


def test_a_hundred_customers_make_a_model_and_fewer_none(school: School) -> None:
    school.give(198)
    school.house.start("learning")
    school.house.wait(school.caught_up, "99 customers are counted")
    assert school.published() == []
    school.give(2)
    school.house.wait(lambda: len(school.published()) == 1, "the hundredth one is there")
    assert school.house.stop("learning") == 0
    [model] = school.published()
    assert (model.version, model.quality.examples, model.weights) == (1, 100, {})
    assert {name: tuple(row) for name, row in model.cuts.items()} == school.expected().cuts()


@pytest.mark.parametrize("place", ["learning:after_commit", "learning:after_publish", "learning:after_publish#2"])
def test_killed_at_a_failpoint_each_customer_is_counted_once(school: School, place: str) -> None:
    school.house.start("learning", crash_at=place)
    school.give(400, times=2)
    assert school.house.died("learning") == 137
    school.give(200)
    school.house.start("learning")
    school.house.wait(school.caught_up, "the rest is counted")
    assert school.house.stop("learning") == 0
    assert same(settled(school), school.expected())
    by_version: dict[int, set[str]] = {}
    for model in school.published():
        by_version.setdefault(model.version, set()).add(model.hash)
    assert all(len(hashes) == 1 for hashes in by_version.values()), "a version is always the same model"
    assert sorted(by_version) == list(range(1, max(by_version) + 1)), "none is missing"


def test_killed_at_any_time_each_customer_is_counted_once(school: School) -> None:
    for n in range(3):
        school.house.start("learning")
        for _ in range(5):
            school.give(40)
            time.sleep(0.05 * n)
        school.house.running["learning"].send_signal(signal.SIGKILL)
        school.house.died("learning")
    school.house.start("learning")
    school.house.wait(school.caught_up, "all are counted")
    assert school.house.stop("learning") == 0
    assert same(settled(school), school.expected())


# -- the whole way ---------------------------------------------------------------------------------------------------

SHOP = """
currency = "EUR"
[rfm]
learned = true
"""


def orders(n: int, first: int, total: float) -> list[Outgoing]:
    """An order of each of n customers."""
    found = []
    for who in range(first, first + n):
        key = f"c{who}"
        body: dict[str, Any] = {
            "type": "track", "event": "Order Completed", "userId": key, "messageId": f"m{who}",
            "properties": {"order_id": f"o{who}", "total": total + who % 100}}
        found.append(Outgoing(PURCHASES, key.encode(), msgspec.json.encode(body),
                              partition=partition_of(key.encode(), PARTITIONS)))
    return found


@pytest.mark.redis
def test_orders_move_the_fifths_and_the_fifths_move_the_customers(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "segments").mkdir(parents=True)
    (folder / "shop.toml").write_text(SHOP)
    with house(tmp_path / "data", folder, partitions=PARTITIONS) as home:
        home.start("onsite")
        home.start("learning")
        with home.log() as log:
            log.append(orders(100, 0, 1.0))
        home.wait(lambda: any(one.quality.examples == 100 for one in fifths(home)), "the first hundred are counted")
        home.wait(lambda: money_classes(home) == {1: 20, 2: 20, 3: 20, 4: 20, 5: 20},
                  "everybody was looked at again, also who did nothing more")
        with home.log() as log:
            log.append(orders(100, 100, 1_000.0))
        home.wait(lambda: any(one.cuts["money"][3] > 100_000 for one in fifths(home)), "the shop has grown richer")
        home.wait(lambda: money_classes(home).get(5, 0) <= 45 and sum(money_classes(home).values()) == 200,
                  "and who was at the top is there no more")
        assert [home.stop(name) for name in ("onsite", "learning")] == [0, 0]
        live = {one.hash for one in fifths(home)}
        used = {turn.model.rpartition("+")[2] for turn in turns(home)} & live
        assert len(used) >= 2, "a turn keeps which cuts were live"
        again(home)


def fifths(home: House) -> list[Model]:
    found = [models.decode(one.value) for one in home.records("models")]
    return [one for one in found if one.kind == rfm.KIND]


def money_classes(home: House) -> dict[int, int]:
    """How many customers are in each class of money."""
    found: dict[int, int] = {}
    store = home.store()
    for partition in range(PARTITIONS):
        for _, value in store.persons(partition):
            cell = codec.decode(value).rfm
            if cell:
                found[int(cell[2])] = found.get(int(cell[2]), 0) + 1
    store.close()
    return found


def turns(home: House) -> list[Any]:
    store = home.store()
    found = [turn for partition in range(PARTITIONS) for turn in store.turns(partition)]
    store.close()
    return found


def again(home: House) -> None:
    """The turns run once more give the same persons, byte for byte."""
    store = home.store()
    with home.log() as log:
        for partition in range(PARTITIONS):
            fresh = SqliteStore(home.folder / "again" / f"{partition}.db", PARTITIONS)
            reruns.rerun(
                partition, store.turns(partition), log.fetch, fresh, STEPS, PARTITIONS,
                lambda known: rules_from(store.kept("playbook", known) or b""),
                lambda known: models.decode(store.kept("model", known) or b""))
            assert fresh.persons(partition) == store.persons(partition)
            fresh.close()
    store.close()
