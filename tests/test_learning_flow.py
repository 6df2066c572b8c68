"""The learning flow as a process: within a second, each outcome once, wherever it is killed."""

import signal
import time
from pathlib import Path

import pytest
from bytewax.testing import cluster_main

import flows.learning
from connectors import metrics
from connectors.open_log import open_log
from domain import model as models
from domain import outcome as outcomes
from domain.model import Model
from domain.outcome import Outcome
from domain.record import Outgoing, Record
from domain.settings import Settings
from domain.streams import OUTCOMES
from flows.learning import flow
from operators.learn import Learner
from state.learner_store import LearnerStore
from tests.system import House
from tests.test_learning import planted

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4


class School:
    """A learner of one's own, with outcomes to learn from."""

    def __init__(self, folder: Path) -> None:
        self.house = House(folder, "", folder / "shop", partitions=PARTITIONS)
        self.stream = planted(400, seed=5)
        self.given = 0

    def give(self, n: int, times: int = 1) -> None:
        """The next n outcomes are written (each as often as said)."""
        part = self.stream[self.given:self.given + n]
        self.given += n
        with self.house.log() as log:
            for _ in range(times):
                log.append([record(one) for one in part])

    def published(self) -> list[Model]:
        return [models.decode(one.value) for one in self.house.records("models")]

    def caught_up(self) -> bool:
        found = self.published()
        return bool(found) and found[-1].quality.examples == self.given


def record(one: Outcome) -> Outgoing:
    return Outgoing(OUTCOMES, b"someone", outcomes.encode(one), partition=2)


@pytest.fixture
def school(tmp_path: Path):  # type: ignore[no-untyped-def] # a generator of a class that is above
    made = School(tmp_path)
    yield made
    made.house.close()


def straight(stream: list[Outcome]) -> Model:
    """What comes out without process, log and crash."""
    learner = Learner()
    for one in stream:
        learner.learn(one)
    return learner.model(1, 0)


def test_outcomes_become_a_model_and_the_process_stops_cleanly(school: School) -> None:
    school.give(100)
    school.house.start("learning")
    school.house.wait(school.caught_up, "100 outcomes are learned")
    last = school.published()[-1]
    expected = straight(school.stream[:100])
    assert (last.hash, last.weights, last.quality) == (expected.hash, expected.weights, expected.quality)
    school.give(1)
    school.house.wait(school.caught_up, "one more is learned")
    versions = [model.version for model in school.published()]
    assert versions == list(range(1, len(versions) + 1))
    assert school.house.stop("learning") == 0
    assert len(school.published()) == len(versions), "a clean stop repeats nothing"


class Day:
    """Outcomes that come at times of the test's own, and the clock by which the learner lives: waiting moves it on."""

    def __init__(self, given: list[tuple[float, Outcome]]) -> None:
        self.given, self.now, self.read = given, 0.0, 0

    def monotonic(self) -> float:
        return self.now

    def poll(self, limit: int, wait: float) -> list[Record]:
        self.now += 0.001
        soonest = self.given[self.read][0] if self.read < len(self.given) else self.now + wait
        self.now = max(self.now, min(soonest, self.now + wait))
        came = [one for at, one in self.given[self.read:] if at <= self.now][:limit]
        self.read += len(came)
        return [Record(OUTCOMES, 2, self.read - len(came) + n, 0, b"x", outcomes.encode(one))
                for n, one in enumerate(came)]

    def lag(self) -> dict[str, int]:
        return {OUTCOMES: 7}

    def close(self) -> None:
        """It was never open."""


def test_the_model_is_published_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While outcomes keep coming for five seconds, and after one that comes alone."""
    stream = planted(501, seed=5)
    day = Day([*((0.01 * n, one) for n, one in enumerate(stream[:500])), (20.0, stream[500])])
    monkeypatch.setattr(flows.learning, "time", day)
    learning = flows.learning.Learning(Settings(data=str(tmp_path), partitions=PARTITIONS), lambda: int(day.now * 1000))
    reading = flows.learning.Outcomes(learning).build("read", 0, 1)
    reading.reader.close()
    monkeypatch.setattr(reading, "reader", day)
    learn, said = flows.learning.Learn(learning), flows.learning.Models(learning).build("publish", 0, 1)
    published: list[tuple[float, int]] = []
    while day.now < 25:
        for _, records in reading.next_batch():
            found, _ = learn.on_batch([records])
            said.write_batch([("learner", model) for model in found])
            published += [(day.now, model.quality.examples) for model in found]
    for n, (came, _) in enumerate(day.given, 1):
        assert min(at for at, examples in published if examples >= n) - came < 1, f"outcome {n}"
    assert len(published) < 40, "nor does it publish a model for every outcome"
    assert metrics.LAG.labels(OUTCOMES)._value.get() == 7
    reading.close()
    said.close()


def test_without_outcomes_there_is_no_model(school: School) -> None:
    school.house.start("learning")
    store = school.house.folder / "store" / "learner.db"
    school.house.wait(store.exists, "the learner has opened its store")
    assert school.house.stop("learning") == 0
    assert school.published() == []


@pytest.mark.parametrize("place", ["learning:after_commit", "learning:after_publish", "learning:after_commit#2"])
def test_killed_at_a_failpoint_each_outcome_is_learned_once(school: School, place: str) -> None:
    school.house.start("learning", crash_at=place)
    school.give(30, times=2)
    if place.endswith("#2"):
        school.house.wait(school.caught_up, "the first ones are learned")
        school.give(10)
    assert school.house.died("learning") == 137
    school.give(20)
    school.house.start("learning")
    school.house.wait(school.caught_up, "the rest is learned")
    assert school.house.stop("learning") == 0
    assert school.published()[-1].hash == straight(school.stream[:school.given]).hash
    by_version: dict[int, set[str]] = {}
    for model in school.published():
        by_version.setdefault(model.version, set()).add(model.hash)
    assert all(len(hashes) == 1 for hashes in by_version.values()), "a version is always the same model"
    assert sorted(by_version) == list(range(1, max(by_version) + 1)), "none is missing"


def test_killed_at_any_time_under_load_each_outcome_is_learned_once(school: School) -> None:
    for n in range(4):
        school.house.start("learning")
        for _ in range(5):
            school.give(15)
            time.sleep(0.05 * n)
        school.house.running["learning"].send_signal(signal.SIGKILL)
        school.house.died("learning")
    school.house.start("learning")
    school.house.wait(school.caught_up, "all is learned")
    assert school.house.stop("learning") == 0
    assert school.published()[-1].hash == straight(school.stream[:school.given]).hash


def test_what_is_no_outcome_is_passed_over(school: School) -> None:
    with school.house.log() as log:
        log.append([Outgoing(OUTCOMES, b"x", b"{broken", partition=0), Outgoing(OUTCOMES, b"x", b"{}", partition=2),
                    Outgoing(OUTCOMES, b"x", b'{"features":' + b"[" * 100_000, partition=2)])
    school.give(5)
    school.house.start("learning")
    school.house.wait(school.caught_up, "the readable ones are learned")
    assert school.house.stop("learning") == 0
    store = LearnerStore(school.house.folder / "store" / "learner.db")
    assert set(store.positions) == {0, 2}
    store.close()


def test_two_workers_are_refused(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), partitions=PARTITIONS)
    open_log(settings).close()
    with pytest.raises(Exception, match=r"one worker|RuntimeError|panic|error"):
        cluster_main(flow(settings), [], 0, worker_count_per_proc=2)
