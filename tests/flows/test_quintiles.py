"""Tests of RFM quintiles with processes: each customer counts once wherever learning is killed."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain import action as outcomes
from domain import model as models
from domain.action import Outcome
from domain.model import Model
from domain.record import OUTCOMES, PURCHASES, NewRecord, partition_of
from flows.simulation import replay as replays
from operators.steps import STEPS
from state.membership.quintiles import Quintiles
from state.person import codec
from state.person.model import PopulationSnapshot
from state.playbook import rfm
from state.playbook.compiled import rules_from_source
from state.store.learner import LearnerStore
from state.store.sqlite import SqliteStore
from tests.harness.instance import RunningInstance, running_instance
from tests.operators.test_learn import planted_outcomes
from tests.state.membership.test_rfm import random_customers, rfm_outcome

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4


class LearnerHarness:
    """A learning process with outcomes of customers and, in between, of sessions."""

    def __init__(self, folder: Path) -> None:
        self.instance = RunningInstance(folder, "", folder / "shop", partitions=PARTITIONS)
        self.stream: list[Outcome] = []
        people = random_customers(3, 600)
        sessions = planted_outcomes(600, seed=5)
        for n, one in enumerate(people):
            self.stream += [
                rfm_outcome(n, PopulationSnapshot(), one),
                msgspec.structs.replace(sessions[n], id=f"session-{n}"),
            ]
        self.appended = 0

    def append_outcomes(self, n: int, times: int = 1) -> None:
        part = self.stream[self.appended : self.appended + n]
        self.appended += n
        with self.instance.open_log() as log:
            for _ in range(times):
                log.append([NewRecord(OUTCOMES, b"x", outcomes.encode_outcome(one), partition=2) for one in part])

    def published(self, kind: str = rfm.MODEL_KIND) -> list[Model]:
        found = [models.decode_model(one.value) for one in self.instance.records("models")]
        return [one for one in found if one.kind == kind]

    def is_caught_up(self) -> bool:
        models = self.published("propensity")
        return bool(models) and models[-1].quality.examples == self.appended // 2

    def expected(self) -> Quintiles:
        quintiles = Quintiles()
        for one in self.stream[: self.appended]:
            if one.kind == rfm.MODEL_KIND:
                quintiles.learn(one)
        return quintiles


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[LearnerHarness]:
    made = LearnerHarness(tmp_path)
    yield made
    made.instance.close()


def stored_quintiles(learner: LearnerHarness) -> Quintiles:
    """The stored quintiles of the learner."""
    store = LearnerStore(learner.instance.folder / "store" / "learner.db")
    quintiles = Quintiles(store.learners[rfm.MODEL_KIND])
    store.close()
    return quintiles


def same_cuts(one: Quintiles, other: Quintiles) -> bool:
    return (one.days, one.orders, one.money, one.clock) == (other.days, other.orders, other.money, other.clock)


def test_quintiles_require_a_hundred_customers(learner: LearnerHarness) -> None:
    learner.append_outcomes(198)
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "99 customers are counted")
    assert learner.published() == []
    learner.append_outcomes(2)
    learner.instance.wait_until(lambda: len(learner.published()) == 1, "the hundredth customer is counted")
    assert learner.instance.stop("learning") == 0
    [model] = learner.published()
    assert (model.version, model.quality.examples, model.weights) == (1, 100, {})
    assert {name: tuple(row) for name, row in model.thresholds.items()} == learner.expected().cuts()


@pytest.mark.parametrize("failpoint", ["learning:after_commit", "learning:after_publish", "learning:after_publish#2"])
def test_crash_at_failpoint_counts_each_customer_once(learner: LearnerHarness, failpoint: str) -> None:
    learner.instance.start("learning", crash_at=failpoint)
    learner.append_outcomes(400, times=2)
    assert learner.instance.wait_for_exit("learning") == 137
    learner.append_outcomes(200)
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "the rest is counted")
    assert learner.instance.stop("learning") == 0
    assert same_cuts(stored_quintiles(learner), learner.expected())
    by_version: dict[int, set[str]] = {}
    for model in learner.published():
        by_version.setdefault(model.version, set()).add(model.hash)
    assert all(len(hashes) == 1 for hashes in by_version.values()), "a version is always the same model"
    assert sorted(by_version) == list(range(1, max(by_version) + 1)), "no version is missing"


def test_random_kills_count_each_customer_once(learner: LearnerHarness) -> None:
    for n in range(3):
        learner.instance.start("learning")
        for _ in range(5):
            learner.append_outcomes(40)
            time.sleep(0.05 * n)
        learner.instance.processes["learning"].send_signal(signal.SIGKILL)
        learner.instance.wait_for_exit("learning")
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "all are counted")
    assert learner.instance.stop("learning") == 0
    assert same_cuts(stored_quintiles(learner), learner.expected())


# -- end to end -------------------------------------------------------------------------------------------------------

SHOP = """
currency = "EUR"
[rfm]
quintiles = true
"""


def order_records(n: int, first: int, total: float) -> list[NewRecord]:
    """One order of each of n customers."""
    found = []
    for who in range(first, first + n):
        key = f"c{who}"
        body: dict[str, Any] = {
            "type": "track",
            "event": "Order Completed",
            "userId": key,
            "messageId": f"m{who}",
            "properties": {"order_id": f"o{who}", "total": total + who % 100},
        }
        found.append(
            NewRecord(
                PURCHASES, key.encode(), msgspec.json.encode(body), partition=partition_of(key.encode(), PARTITIONS)
            )
        )
    return found


@pytest.mark.redis
def test_orders_change_quintiles_and_quintiles_change_cells(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "segments").mkdir(parents=True)
    (folder / "shop.toml").write_text(SHOP)
    with running_instance(tmp_path / "data", folder, partitions=PARTITIONS) as home:
        home.start("onsite")
        home.start("learning")
        with home.open_log() as log:
            log.append(order_records(100, 0, 1.0))
        home.wait_until(
            lambda: any(one.quality.examples == 100 for one in published_quintiles(home)),
            "the first hundred customers are counted",
        )
        home.wait_until(
            lambda: money_class_counts(home) == {1: 20, 2: 20, 3: 20, 4: 20, 5: 20}, "everybody is re-evaluated"
        )
        with home.open_log() as log:
            log.append(order_records(100, 100, 1_000.0))
        home.wait_until(
            lambda: any(one.thresholds["monetary"][3] > 100_000 for one in published_quintiles(home)),
            "the thresholds have risen",
        )
        home.wait_until(
            lambda: money_class_counts(home).get(5, 0) <= 45 and sum(money_class_counts(home).values()) == 200,
            "the former top class is re-evaluated",
        )
        assert [home.stop(name) for name in ("onsite", "learning")] == [0, 0]
        live = {one.hash for one in published_quintiles(home)}
        used = {batch.model_hash.rpartition("+")[2] for batch in batch_records(home)} & live
        assert len(used) >= 2, "batch records have the live quintiles"
        check_replay(home)


def published_quintiles(instance: RunningInstance) -> list[Model]:
    found = [models.decode_model(one.value) for one in instance.records("models")]
    return [one for one in found if one.kind == rfm.MODEL_KIND]


def money_class_counts(instance: RunningInstance) -> dict[int, int]:
    """The number of customers by monetary class."""
    found: dict[int, int] = {}
    store = instance.store()
    for partition in range(PARTITIONS):
        for _, value in store.persons(partition):
            cell = codec.decode(value).rfm
            if cell:
                found[int(cell[2])] = found.get(int(cell[2]), 0) + 1
    store.close()
    return found


def batch_records(instance: RunningInstance) -> list[Any]:
    store = instance.store()
    found = [batch for partition in range(PARTITIONS) for batch in store.batch_records(partition)]
    store.close()
    return found


def check_replay(instance: RunningInstance) -> None:
    """A replay gives the same persons, byte for byte."""
    store = instance.store()
    with instance.open_log() as log:
        for partition in range(PARTITIONS):
            fresh = SqliteStore(instance.folder / "again" / f"{partition}.db", PARTITIONS)
            replays.replay(
                partition,
                store.batch_records(partition),
                log.fetch,
                fresh,
                STEPS,
                PARTITIONS,
                lambda known: rules_from_source(store.get_blob("playbook", known) or b""),
                lambda known: models.decode_model(store.get_blob("model", known) or b""),
            )
            assert fresh.persons(partition) == store.persons(partition)
            fresh.close()
    store.close()
