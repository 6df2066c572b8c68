"""Tests of the learning process: it learns each outcome once, within a second, wherever it is killed."""

import signal
import time
from pathlib import Path

import pytest
from bytewax.testing import cluster_main

import flows.learning
from connectors import metrics
from connectors.log.open import open_log
from domain import action as outcomes
from domain import model as models
from domain.action import Outcome
from domain.model import Model
from domain.record import OUTCOMES, NewRecord, Record
from domain.settings import Settings
from flows.learning import flow
from operators.learn import Learner
from state.store.learner import LearnerStore
from tests.harness.instance import RunningInstance
from tests.operators.test_learn import planted_outcomes

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4


class LearnerHarness:
    """A learning process with outcomes to learn."""

    def __init__(self, folder: Path) -> None:
        self.instance = RunningInstance(folder, "", folder / "shop", partitions=PARTITIONS)
        self.stream = planted_outcomes(400, seed=5)
        self.appended = 0

    def append_outcomes(self, n: int, times: int = 1) -> None:
        """Append the next n outcomes, `times` times."""
        part = self.stream[self.appended : self.appended + n]
        self.appended += n
        with self.instance.open_log() as log:
            for _ in range(times):
                log.append([outcome_record(one) for one in part])

    def published(self) -> list[Model]:
        return [models.decode_model(one.value) for one in self.instance.records("models")]

    def is_caught_up(self) -> bool:
        found = self.published()
        return bool(found) and found[-1].quality.examples == self.appended


def outcome_record(one: Outcome) -> NewRecord:
    return NewRecord(OUTCOMES, b"someone", outcomes.encode_outcome(one), partition=2)


@pytest.fixture
def learner(tmp_path: Path):  # type: ignore[no-untyped-def] # a generator fixture
    made = LearnerHarness(tmp_path)
    yield made
    made.instance.close()


def expected_model(stream: list[Outcome]) -> Model:
    """The model that results without a process, a log or a crash."""
    learner = Learner()
    for one in stream:
        learner.learn(one)
    return learner.to_model(1, 0)


def test_outcomes_become_a_model_and_the_process_stops_cleanly(learner: LearnerHarness) -> None:
    learner.append_outcomes(100)
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "100 outcomes are learned")
    last = learner.published()[-1]
    expected = expected_model(learner.stream[:100])
    assert (last.hash, last.weights, last.quality) == (expected.hash, expected.weights, expected.quality)
    learner.append_outcomes(1)
    learner.instance.wait_until(learner.is_caught_up, "one more is learned")
    versions = [model.version for model in learner.published()]
    assert versions == list(range(1, len(versions) + 1))
    assert learner.instance.stop("learning") == 0
    assert len(learner.published()) == len(versions), "a clean stop publishes nothing again"


class FakeReader:
    """Outcomes at given times, and the clock of the learner, which waiting advances."""

    def __init__(self, given: list[tuple[float, Outcome]]) -> None:
        self.scheduled, self.now, self.read = given, 0.0, 0

    def monotonic(self) -> float:
        return self.now

    def poll(self, limit: int, wait: float) -> list[Record]:
        self.now += 0.001
        soonest = self.scheduled[self.read][0] if self.read < len(self.scheduled) else self.now + wait
        self.now = max(self.now, min(soonest, self.now + wait))
        due = [one for at, one in self.scheduled[self.read :] if at <= self.now][:limit]
        self.read += len(due)
        return [
            Record(OUTCOMES, 2, self.read - len(due) + n, 0, b"x", outcomes.encode_outcome(one))
            for n, one in enumerate(due)
        ]

    def lag(self) -> dict[str, int]:
        return {OUTCOMES: 7}

    def close(self) -> None:
        """Do nothing: it was never open."""


def test_the_model_is_published_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both under a steady load of five seconds, and after a single outcome."""
    stream = planted_outcomes(501, seed=5)
    reader = FakeReader([*((0.01 * n, one) for n, one in enumerate(stream[:500])), (20.0, stream[500])])
    monkeypatch.setattr(flows.learning, "time", reader)
    learning = flows.learning.Learning(
        Settings(data=str(tmp_path), partitions=PARTITIONS), lambda: int(reader.now * 1000)
    )
    source = flows.learning.OutcomeSource(learning).build("read", 0, 1)
    source.reader.close()
    monkeypatch.setattr(source, "reader", reader)
    learn, sink = flows.learning.LearnLogic(learning), flows.learning.ModelSink(learning).build("publish", 0, 1)
    published: list[tuple[float, int]] = []
    while reader.now < 25:
        for _, records in source.next_batch():
            found, _ = learn.on_batch([records])
            sink.write_batch([("learner", model) for model in found])
            published += [(reader.now, model.quality.examples) for model in found]
    for n, (at_outcome, _) in enumerate(reader.scheduled, 1):
        assert min(at for at, examples in published if examples >= n) - at_outcome < 1, f"outcome {n}"
    assert len(published) < 40, "not one model per outcome"
    assert metrics.LAG_RECORDS.labels(OUTCOMES)._value.get() == 7
    source.close()
    sink.close()


def test_no_model_is_published_without_outcomes(learner: LearnerHarness) -> None:
    learner.instance.start("learning")
    store = learner.instance.folder / "store" / "learner.db"
    learner.instance.wait_until(store.exists, "the learner has opened its store")
    assert learner.instance.stop("learning") == 0
    assert learner.published() == []


@pytest.mark.parametrize("failpoint", ["learning:after_commit", "learning:after_publish", "learning:after_commit#2"])
def test_crash_at_failpoint_learns_each_outcome_once(learner: LearnerHarness, failpoint: str) -> None:
    learner.instance.start("learning", crash_at=failpoint)
    learner.append_outcomes(30, times=2)
    if failpoint.endswith("#2"):
        learner.instance.wait_until(learner.is_caught_up, "the first outcomes are learned")
        learner.append_outcomes(10)
    assert learner.instance.wait_for_exit("learning") == 137
    learner.append_outcomes(20)
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "the rest is learned")
    assert learner.instance.stop("learning") == 0
    assert learner.published()[-1].hash == expected_model(learner.stream[: learner.appended]).hash
    by_version: dict[int, set[str]] = {}
    for model in learner.published():
        by_version.setdefault(model.version, set()).add(model.hash)
    assert all(len(hashes) == 1 for hashes in by_version.values()), "a version is always the same model"
    assert sorted(by_version) == list(range(1, max(by_version) + 1)), "no version is missing"


def test_random_kills_learn_each_outcome_once(learner: LearnerHarness) -> None:
    for n in range(4):
        learner.instance.start("learning")
        for _ in range(5):
            learner.append_outcomes(15)
            time.sleep(0.05 * n)
        learner.instance.processes["learning"].send_signal(signal.SIGKILL)
        learner.instance.wait_for_exit("learning")
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "all outcomes are learned")
    assert learner.instance.stop("learning") == 0
    assert learner.published()[-1].hash == expected_model(learner.stream[: learner.appended]).hash


def test_undecodable_outcomes_are_skipped(learner: LearnerHarness) -> None:
    with learner.instance.open_log() as log:
        log.append(
            [
                NewRecord(OUTCOMES, b"x", b"{broken", partition=0),
                NewRecord(OUTCOMES, b"x", b"{}", partition=2),
                NewRecord(OUTCOMES, b"x", b'{"features":' + b"[" * 100_000, partition=2),
            ]
        )
    learner.append_outcomes(5)
    learner.instance.start("learning")
    learner.instance.wait_until(learner.is_caught_up, "the valid outcomes are learned")
    assert learner.instance.stop("learning") == 0
    store = LearnerStore(learner.instance.folder / "store" / "learner.db")
    assert set(store.positions) == {0, 2}
    store.close()


def test_two_learning_workers_are_rejected(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), partitions=PARTITIONS)
    open_log(settings).close()
    with pytest.raises(Exception, match=r"one worker|RuntimeError|panic|error"):
        cluster_main(flow(settings), [], 0, worker_count_per_proc=2)
