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
from domain.action import Outcome
from domain.event import Event, epoch_ms
from domain.model import ModelQuality
from domain.playbook.playbook import Playbook
from domain.playbook.shop import Shop
from operators.learn import DRIFT_WINDOW, MAX_RECENT_IDS, Learner
from state.profile.session import FEATURE_NAMES
from state.store.learner import LearnerStore, LearnerStoreError
from tests.harness.step_runner import outcomes_of
from tests.harness.support import data_path

USED_FEATURES = ("products", "minutes", "cart_adds", "price")


def planted_outcomes(n: int, seed: int, drift_at: int = 0, base: float = -2.5) -> list[Outcome]:
    """Visits whose end depends on four of the features; after `turns_at` the other way round."""
    draw = random.Random(seed)
    weights = dict(zip(USED_FEATURES, (1.5, -1.0, 2.0, -1.5), strict=True))
    found = []
    for at in range(n):
        features = {name: max(0.0, draw.gauss(1.0, 0.5)) for name in FEATURE_NAMES}
        way = -1 if drift_at and at >= drift_at else 1
        odds = base + way * sum(weight * (features[name] - 1) for name, weight in weights.items())
        found.append(make_outcome(at, features, draw.random() < 1 / (1 + math.exp(-odds))))
    return found


def make_outcome(n: int, features: dict[str, float], label: bool) -> Outcome:
    return Outcome(kind="propensity", id=f"o-{n}", person="a:x", at=n, features_at=n, label=label, features=features)


def shuffle_labels(outcomes: Sequence[Outcome], seed: int = 1) -> list[Outcome]:
    """The same visits with somebody else's ends."""
    labels = [one.label for one in outcomes]
    random.Random(seed).shuffle(labels)
    return [make_outcome(n, one.features, label) for n, (one, label) in enumerate(zip(outcomes, labels, strict=True))]


def learn_all(outcomes: Sequence[Outcome]) -> Learner:
    learner = Learner()
    for one in outcomes:
        learner.learn(one)
    return learner


def loss_reduction(quality: ModelQuality) -> float:
    """How much of the base rate's loss is saved."""
    return 1 - quality.log_loss / quality.base_log_loss


def test_a_planted_signal_is_found() -> None:
    quality = learn_all(planted_outcomes(4_000, seed=1)).quality()
    assert quality.examples == 4_000
    assert loss_reduction(quality) > 0.10
    assert quality.roc_auc > 0.75
    assert quality.drifts == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_labels_give_no_gain(seed: int) -> None:
    quality = learn_all(shuffle_labels(planted_outcomes(4_000, seed=1), seed)).quality()
    assert loss_reduction(quality) <= 0.0
    assert abs(quality.roc_auc - 0.5) < 0.05


def test_model_matches_the_river_pipeline() -> None:
    learner = learn_all(planted_outcomes(500, seed=2))
    model = learner.to_model(1, 0)
    for one in planted_outcomes(50, seed=3):
        learner.regression.intercept = model.intercept
        assert model.predict(one.features) == pytest.approx(learner.pipeline.predict_proba_one(one.features)[True])
    assert set(model.weights) == set(FEATURE_NAMES)


def test_predictions_are_calibrated() -> None:
    learner = learn_all(planted_outcomes(6_000, seed=4))
    model = learner.to_model(1, 0)
    later = planted_outcomes(4_000, seed=5)
    expected = sum(model.predict(one.features) for one in later)
    assert expected == pytest.approx(sum(one.label for one in later), rel=0.12)


def test_a_repeated_outcome_is_learned_once() -> None:
    stream = planted_outcomes(300, seed=1)
    learner = learn_all([one for one in stream for _ in range(2)])
    assert learner.examples == 300
    assert learner.duplicates == 300
    assert learner.to_model(1, 0) == learn_all(stream).to_model(1, 0)


def test_recent_ids_are_bounded() -> None:
    learner = Learner()
    learner._recent_ids = {n.to_bytes(8, "big"): None for n in range(MAX_RECENT_IDS)}
    learner.learn(planted_outcomes(1, seed=1)[0])
    assert len(learner._recent_ids) == MAX_RECENT_IDS


@pytest.mark.parametrize("at", [1, 7, DRIFT_WINDOW, 2 * DRIFT_WINDOW - 1, 2 * DRIFT_WINDOW, 2 * DRIFT_WINDOW + 1])
def test_a_restart_at_any_point_changes_nothing(at: int) -> None:
    stream = planted_outcomes(2 * DRIFT_WINDOW + 400, seed=6, drift_at=2 * DRIFT_WINDOW + 50)
    whole = learn_all(stream)
    half = learn_all(stream[:at])
    resumed = Learner(msgpack.unpackb(msgpack.packb(half.to_dict())))
    for one in stream[at:]:
        resumed.learn(one)
    assert msgpack.packb(resumed.to_dict()) == msgpack.packb(whole.to_dict())
    assert resumed.to_model(1, 0) == whole.to_model(1, 0)


def test_concept_drift_is_detected_and_learned() -> None:
    stream = planted_outcomes(8_000, seed=3, drift_at=5_000, base=-1.5)
    before, whole = learn_all(stream[:5_000]), learn_all(stream)
    assert before.drifts == 0
    assert whole.drifts == 1, "the turn, once"
    model = whole.to_model(1, 0)
    assert model.weights["cart_adds"] < 0 < before.to_model(1, 0).weights["cart_adds"]


def test_non_finite_features_are_ignored() -> None:
    learner = learn_all([make_outcome(1, {"events": float("nan"), "products": float("inf"), "invented": 5.0}, True)])
    assert learner.to_model(1, 0).means["events"] == 0.0
    assert "invented" not in learner.to_model(1, 0).weights


def test_base_rate_stays_between_zero_and_one() -> None:
    learner = Learner()
    learner.base_rate = 1e-4
    learner.learn(make_outcome(1, {}, False))
    assert 0 < learner.base_rate < 1
    assert math.isfinite(learner.quality().base_log_loss)


def test_model_hash_depends_only_on_the_weights() -> None:
    learner = learn_all(planted_outcomes(20, seed=1))
    assert learner.to_model(1, 5).hash == learner.to_model(2, 9).hash
    learner.learn(make_outcome(99, {"events": 1.0}, True))
    assert learner.to_model(1, 5).hash != learn_all(planted_outcomes(20, seed=1)).to_model(1, 5).hash


def test_store_commits_learner_and_offsets_atomically(tmp_path: Path) -> None:
    path = tmp_path / "learner.db"
    store = LearnerStore(path)
    assert (store.learners, store.positions, store.versions, store.unpublished) == ({}, {}, {}, set())
    store.commit({"propensity": learn_all(planted_outcomes(30, seed=1)).to_dict()}, {5: 30}, {"propensity": 1})
    store.close()
    again = LearnerStore(path)
    assert (again.positions, again.versions, again.unpublished) == ({5: 30}, {"propensity": 1}, {"propensity"})
    assert Learner(again.learners["propensity"]).examples == 30  # type: ignore[arg-type] # plain numbers
    again.confirm_published("propensity", 1)
    again.close()
    last = LearnerStore(path)
    assert not last.unpublished
    last.commit({"propensity": {"v": 1}, "rfm": {"v": 1}}, {}, {"propensity": 1, "rfm": 1})
    assert last.unpublished == {"rfm"}, "the other one is out already"
    last._db.execute("UPDATE learner SET body = x'c1'")
    last.close()
    with pytest.raises(LearnerStoreError):
        LearnerStore(path)


def test_old_store_format_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "learner.db"
    store = LearnerStore(path)
    body = msgpack.packb(
        {"v": 1, "learner": learn_all(planted_outcomes(9, seed=1)).to_dict(), "positions": {5: 9}, "version": 3}
    )
    store._db.execute("INSERT INTO learner VALUES (1, ?, 1)", (body,))
    store.close()
    again = LearnerStore(path)
    assert (again.positions, again.versions, again.unpublished) == ({5: 9}, {"propensity": 3}, set())
    assert Learner(again.learners["propensity"]).examples == 9  # type: ignore[arg-type] # plain numbers
    again.close()


# -- a real shop's three hours -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded_events() -> list[tuple[Event, int]]:
    """The events of the recorded shop with their times. Its exit intents are left out: they were made up from how the
    session ended, so they would tell the label."""
    script = data_path("rees46_to_events.py")
    data_path("rees46_multicategory_2019-Oct_head17k.csv.gz")
    lines = subprocess.run([sys.executable, str(script)], check=True, capture_output=True).stdout.splitlines()
    found = [events.decode(line) for line in lines if json.loads(line)["event"] != "Exit Intent"]
    return [(event, epoch_ms(event.timestamp)) for event in found if event.timestamp is not None]


@pytest.fixture(scope="module")
def recorded_outcomes(recorded_events: list[tuple[Event, int]]) -> list[Outcome]:
    """One outcome a visit, in the order of the moments they were taken at.

    The order in which labels become known is not fair: orders are known at once, the rest 30 minutes later, so a
    learner could tell the first half hour from the last and would seem to know more than it does.
    """
    found = outcomes_of(recorded_events, Playbook(shop=Shop(currency="USD")))
    return sorted(found, key=lambda one: (one.features_at, one.id))


def test_every_session_yields_at_most_one_outcome(recorded_outcomes: list[Outcome]) -> None:
    assert len(recorded_outcomes) > 4_000
    assert len({one.id for one in recorded_outcomes}) == len(recorded_outcomes)
    assert 100 < sum(one.label for one in recorded_outcomes) <= 214


def test_model_beats_the_base_rate_on_recorded_traffic(recorded_outcomes: list[Outcome]) -> None:
    quality = learn_all(recorded_outcomes).quality()
    assert loss_reduction(quality) > 0.02
    examples = random.Random(7).sample(recorded_outcomes, len(recorded_outcomes))
    assert loss_reduction(learn_all(examples).quality()) > 0.02, "and in any other order of the visits"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_gain_on_recorded_traffic_with_shuffled_labels(recorded_outcomes: list[Outcome], seed: int) -> None:
    assert loss_reduction(learn_all(shuffle_labels(recorded_outcomes, seed)).quality()) <= 0.0
