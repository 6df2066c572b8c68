"""The learner: it learns what is there, and only that; it comes back from plain numbers without losing a bit."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgpack  # type: ignore[import-untyped] # it ships no types
import pytest

from domain import event as events
from domain.event import Event, milliseconds
from domain.model import Quality
from domain.outcome import Outcome
from domain.playbook import Playbook
from domain.shop import Shop
from operators.learn import RECENT, WATCH, Learner
from state.features import NAMES
from state.learner_store import LearnerStore, LearnerStoreError
from tests.support import data_path
from tests.visits import outcomes_of

USED = ("products", "minutes", "added", "price")


def planted(n: int, seed: int, turns_at: int = 0, base: float = -2.5) -> list[Outcome]:
    """Visits whose end depends on four of the features; after `turns_at` the other way round."""
    draw = random.Random(seed)
    weights = dict(zip(USED, (1.5, -1.0, 2.0, -1.5), strict=True))
    found = []
    for at in range(n):
        features = {name: max(0.0, draw.gauss(1.0, 0.5)) for name in NAMES}
        way = -1 if turns_at and at >= turns_at else 1
        odds = base + way * sum(weight * (features[name] - 1) for name, weight in weights.items())
        found.append(outcome(at, features, draw.random() < 1 / (1 + math.exp(-odds))))
    return found


def outcome(n: int, features: dict[str, float], label: bool) -> Outcome:
    return Outcome(kind="propensity", id=f"o-{n}", person="a:x", at=n, taken_at=n, label=label, features=features)


def shuffled(outcomes: Sequence[Outcome], seed: int = 1) -> list[Outcome]:
    """The same visits with somebody else's ends."""
    labels = [one.label for one in outcomes]
    random.Random(seed).shuffle(labels)
    return [outcome(n, one.features, label) for n, (one, label) in enumerate(zip(outcomes, labels, strict=True))]


def learned(outcomes: Sequence[Outcome]) -> Learner:
    learner = Learner()
    for one in outcomes:
        learner.learn(one)
    return learner


def gain(quality: Quality) -> float:
    """How much of the base rate's loss is saved."""
    return 1 - quality.log_loss / quality.base_log_loss


def test_a_planted_signal_is_found() -> None:
    quality = learned(planted(4_000, seed=1)).quality()
    assert quality.examples == 4_000
    assert gain(quality) > 0.10
    assert quality.roc_auc > 0.75
    assert quality.drifts == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_shuffled_labels_there_is_nothing_to_find(seed: int) -> None:
    quality = learned(shuffled(planted(4_000, seed=1), seed)).quality()
    assert gain(quality) <= 0.0
    assert abs(quality.roc_auc - 0.5) < 0.05


def test_the_model_says_what_the_pipeline_says() -> None:
    learner = learned(planted(500, seed=2))
    model = learner.model(1, 0)
    for one in planted(50, seed=3):
        learner.regression.intercept = model.intercept
        assert model.predict(one.features) == pytest.approx(learner.pipeline.predict_proba_one(one.features)[True])
    assert set(model.weights) == set(NAMES)


def test_predictions_are_calibrated() -> None:
    learner = learned(planted(6_000, seed=4))
    model = learner.model(1, 0)
    later = planted(4_000, seed=5)
    expected = sum(model.predict(one.features) for one in later)
    assert expected == pytest.approx(sum(one.label for one in later), rel=0.12)


def test_a_repeated_outcome_is_learned_once() -> None:
    stream = planted(300, seed=1)
    learner = learned([one for one in stream for _ in range(2)])
    assert learner.examples == 300
    assert learner.repeated == 300
    assert learner.model(1, 0) == learned(stream).model(1, 0)


def test_recent_ids_are_bounded() -> None:
    learner = Learner()
    learner._recent = {n.to_bytes(8, "big"): None for n in range(RECENT)}
    learner.learn(planted(1, seed=1)[0])
    assert len(learner._recent) == RECENT


@pytest.mark.parametrize("at", [1, 7, WATCH, 2 * WATCH - 1, 2 * WATCH, 2 * WATCH + 1])
def test_a_restart_at_any_point_changes_nothing(at: int) -> None:
    stream = planted(2 * WATCH + 400, seed=6, turns_at=2 * WATCH + 50)
    whole = learned(stream)
    half = learned(stream[:at])
    resumed = Learner(msgpack.unpackb(msgpack.packb(half.plain())))
    for one in stream[at:]:
        resumed.learn(one)
    assert msgpack.packb(resumed.plain()) == msgpack.packb(whole.plain())
    assert resumed.model(1, 0) == whole.model(1, 0)


def test_a_turn_of_the_world_is_noticed_and_followed() -> None:
    stream = planted(8_000, seed=3, turns_at=5_000, base=-1.5)
    before, whole = learned(stream[:5_000]), learned(stream)
    assert before.drifts == 0
    assert whole.drifts == 1, "the turn, once"
    model = whole.model(1, 0)
    assert model.weights["added"] < 0 < before.model(1, 0).weights["added"]


def test_what_is_no_number_is_nothing() -> None:
    learner = learned([outcome(1, {"events": float("nan"), "products": float("inf"), "invented": 5.0}, True)])
    assert learner.model(1, 0).means["events"] == 0.0
    assert "invented" not in learner.model(1, 0).weights


def test_the_base_rate_of_endless_noes_stays_a_probability() -> None:
    learner = Learner()
    learner.base = 1e-4
    learner.learn(outcome(1, {}, False))
    assert 0 < learner.base < 1
    assert math.isfinite(learner.quality().base_log_loss)


def test_the_hash_is_of_the_numbers_alone() -> None:
    learner = learned(planted(20, seed=1))
    assert learner.model(1, 5).hash == learner.model(2, 9).hash
    learner.learn(outcome(99, {"events": 1.0}, True))
    assert learner.model(1, 5).hash != learned(planted(20, seed=1)).model(1, 5).hash


def test_the_store_keeps_both_or_neither(tmp_path: Path) -> None:
    path = tmp_path / "learner.db"
    store = LearnerStore(path)
    assert (store.learners, store.positions, store.versions, store.unpublished) == ({}, {}, {}, set())
    store.commit({"propensity": learned(planted(30, seed=1)).plain()}, {5: 30}, {"propensity": 1})
    store.close()
    again = LearnerStore(path)
    assert (again.positions, again.versions, again.unpublished) == ({5: 30}, {"propensity": 1}, {"propensity"})
    assert Learner(again.learners["propensity"]).examples == 30  # type: ignore[arg-type] # plain numbers
    again.note("propensity", 1)
    again.close()
    last = LearnerStore(path)
    assert not last.unpublished
    last.commit({"propensity": {"v": 1}, "rfm": {"v": 1}}, {}, {"propensity": 1, "rfm": 1})
    assert last.unpublished == {"rfm"}, "the other one is out already"
    last._db.execute("UPDATE learner SET body = x'c1'")
    last.close()
    with pytest.raises(LearnerStoreError):
        LearnerStore(path)


def test_a_store_of_one_learner_becomes_one_of_several(tmp_path: Path) -> None:
    path = tmp_path / "learner.db"
    store = LearnerStore(path)
    body = msgpack.packb({"v": 1, "learner": learned(planted(9, seed=1)).plain(), "positions": {5: 9}, "version": 3})
    store._db.execute("INSERT INTO learner VALUES (1, ?, 1)", (body,))
    store.close()
    again = LearnerStore(path)
    assert (again.positions, again.versions, again.unpublished) == ({5: 9}, {"propensity": 3}, set())
    assert Learner(again.learners["propensity"]).examples == 9  # type: ignore[arg-type] # plain numbers
    again.close()


# -- a real shop's three hours -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_hours() -> list[tuple[Event, int]]:
    """The events of the recorded shop with their times. Its exit intents are left out: they were made up from how the
    session ended, so they would tell the label."""
    script = data_path("rees46_to_events.py")
    data_path("rees46_multicategory_2019-Oct_head17k.csv.gz")
    lines = subprocess.run([sys.executable, str(script)], check=True, capture_output=True).stdout.splitlines()
    found = [events.decode(line) for line in lines if json.loads(line)["event"] != "Exit Intent"]
    return [(event, milliseconds(event.timestamp)) for event in found if event.timestamp is not None]


@pytest.fixture(scope="module")
def visits(three_hours: list[tuple[Event, int]]) -> list[Outcome]:
    """One outcome a visit, in the order of the moments they were taken at.

    The order in which labels become known is not fair: orders are known at once, the rest 30 minutes later, so a
    learner could tell the first half hour from the last and would seem to know more than it does.
    """
    found = outcomes_of(three_hours, Playbook(shop=Shop(currency="USD")))
    return sorted(found, key=lambda one: (one.taken_at, one.id))


def test_every_visit_gives_at_most_one_outcome(visits: list[Outcome]) -> None:
    assert len(visits) > 4_000
    assert len({one.id for one in visits}) == len(visits)
    assert 100 < sum(one.label for one in visits) <= 214


def test_on_three_real_hours_the_model_beats_the_base_rate(visits: list[Outcome]) -> None:
    quality = learned(visits).quality()
    assert gain(quality) > 0.02
    examples = random.Random(7).sample(visits, len(visits))
    assert gain(learned(examples).quality()) > 0.02, "and in any other order of the visits"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_three_real_hours_with_shuffled_labels_it_does_not(visits: list[Outcome], seed: int) -> None:
    assert gain(learned(shuffled(visits, seed)).quality()) <= 0.0
