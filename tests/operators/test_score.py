"""score: the live model's word on a visit, bands that do not flicker, and one evenly chosen moment."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.action import SegmentChange
from domain.event import Page, Track
from domain.model import Model, ModelQuality
from domain.playbook.playbook import Playbook
from operators import score
from operators.score import LIKELY, MIN_EXAMPLES_PER_CLASS, UNDECIDED, UNLIKELY, CompiledModel
from state.context import StepContext, TimerFired
from state.person.model import Cart, CartItem, LifetimeCount, Order, Person, ProfileFragment, Session, ViewedProduct
from state.playbook.compiled import compile_rules
from state.profile.session import FEATURE_NAMES, feature_values, name_features, session_id, session_uniform
from tests.harness.step_runner import StepRunner
from tests.strategies.persons import T0, typical_person

BASE = ModelQuality(examples=1_000, positives=100, base_rate=0.1)
"""Base odds 1 : 9, so likely begins at 3 : 9 = 0.25 and ends below 2 : 9 = 0.182; unlikely at 0.5 : 9 = 0.0526."""


def model(quality: ModelQuality = BASE, intercept: float = 0.0, **weights: float) -> Model:
    return Model("propensity", 1, "h" + str(weights), weights, intercept=intercept, quality=quality)


def score_once(person: Person, model: Model | None) -> list[SegmentChange]:
    """What happens at the next page of this visit."""
    assert person.session is not None
    person.session.events += 1
    context = StepContext(0, compile_rules(Playbook()), model)
    context.start_input("clicks-0-1", T0, T0)
    effects = score.step(person, Page(), context)
    assert [move for move in effects if isinstance(move, SegmentChange)] == context.segment_changes
    return context.segment_changes


def person_in_session() -> Person:
    return Person(id="a:x", session=Session(session_id("a:x", T0), T0, T0, "x"))


numbers = st.floats(-5, 5)


@given(
    st.dictionaries(st.sampled_from([*FEATURE_NAMES, "unknown to us"]), numbers),
    st.lists(numbers, min_size=len(FEATURE_NAMES), max_size=len(FEATURE_NAMES)),
    numbers,
)
def test_fast_prediction_equals_the_models(weights: dict[str, float], values: list[float], intercept: float) -> None:
    made = Model("propensity", 1, "h", weights, dict.fromkeys(weights, 0.3), dict.fromkeys(weights, 1.7), intercept)
    assert CompiledModel(made).predict(tuple(values)) == pytest.approx(
        made.predict(dict(zip(FEATURE_NAMES, values, strict=True)))
    )


def test_zero_scale_feature_is_ignored() -> None:
    made = Model("propensity", 1, "h", {"events": 3.0}, {"events": 1.0}, {"events": 0.0}, 0.5)
    values = (9.0,) * len(FEATURE_NAMES)
    assert CompiledModel(made).predict(values) == pytest.approx(made.predict({"events": 9.0}))


def test_without_a_model_there_is_no_score_and_no_band() -> None:
    person = person_in_session()
    assert score_once(person, None) == []
    assert (person.score, person.band, person.segments) == (None, "", {})


def test_every_event_is_scored_after_the_profile_update() -> None:
    person = person_in_session()
    score_once(person, model(events=1.0))
    first = person.score
    score_once(person, model(events=1.0))
    assert first is not None
    assert person.score is not None
    assert person.score > first


def score_at(person: Person, probability: float) -> list[tuple[str, bool]]:
    """Score this person at a probability; who moves?"""
    from math import log

    moves = score_once(person, model(intercept=log(probability / (1 - probability))))
    return [(move.segment, move.entered) for move in moves]


def test_bands_have_hysteresis() -> None:
    person = person_in_session()
    assert score_at(person, 0.20) == [(UNDECIDED, True)]
    assert score_at(person, 0.24) == []
    assert score_at(person, 0.26) == [(UNDECIDED, False), (LIKELY, True)]
    for probability in (0.24, 0.20, 0.26, 0.19):
        assert score_at(person, probability) == [], "it does not flicker"
    assert score_at(person, 0.17) == [(LIKELY, False), (UNDECIDED, True)]
    assert score_at(person, 0.06) == []
    assert score_at(person, 0.05) == [(UNDECIDED, False), (UNLIKELY, True)]
    assert score_at(person, 0.06) == []
    assert score_at(person, 0.08) == [(UNLIKELY, False), (UNDECIDED, True)]
    assert score_at(person, 0.01) == [(UNDECIDED, False), (UNLIKELY, True)]
    assert score_at(person, 0.90) == [(UNLIKELY, False), (LIKELY, True)]
    assert (person.band, list(person.segments)) == (LIKELY, [LIKELY])


def test_segment_change_records_its_reason() -> None:
    person = person_in_session()
    made = model()
    (move,) = score_once(person, made)
    assert (move.id, move.person, move.anonymous_id, move.at) == ("clicks-0-1-score-0", "a:x", "x", T0)
    assert move.because.model == made.hash
    assert move.because.passed == ("score 0.5000",)
    assert person.segments == {LIKELY: T0}


@pytest.mark.parametrize(
    ("examples", "positives"),
    [(0, 0), (1_000, MIN_EXAMPLES_PER_CLASS - 1), (1_000, 1_000 - MIN_EXAMPLES_PER_CLASS + 1)],
)
def test_undertrained_model_assigns_no_band(examples: int, positives: int) -> None:
    person = person_in_session()
    assert score_once(person, model(ModelQuality(examples=examples, positives=positives))) == []
    assert person.score == 0.5
    assert (
        score_once(person, model(ModelQuality(examples=2 * MIN_EXAMPLES_PER_CLASS, positives=MIN_EXAMPLES_PER_CLASS)))
        != []
    )


def test_bands_are_relative_to_the_base_rate() -> None:
    person = person_in_session()
    score_once(person, model(ModelQuality(examples=100, positives=60, base_rate=0.6), intercept=2.0))
    assert person.band == LIKELY, "0.88 is more than three times the odds of 0.6"


def test_no_score_after_an_order_in_the_session() -> None:
    person = person_in_session()
    score_at(person, 0.9)
    assert person.session is not None
    person.session.ordered = True
    assert score_at(person, 0.9) == [(LIKELY, False)]
    assert (person.score, person.band, person.segments) == (None, "", {})
    assert score_at(person, 0.9) == []


def test_timers_are_not_scored() -> None:
    person = person_in_session()
    context = StepContext(0, compile_rules(Playbook()), model())
    assert score.step(person, TimerFired("session_end", "", T0), context) == ()
    assert person.score is None


# -- the moment ------------------------------------------------------------------------------------------------------


def test_snapshot_is_sampled_uniformly() -> None:
    kept: Counter[float] = Counter()
    for n in range(4_000):
        person = Person(id=f"a:{n}", session=Session(session_id(f"a:{n}", T0), T0, T0))
        for minute in range(8):
            assert person.session is not None
            person.session.last_at = T0 + minute
            score_once(person, None)
        assert person.session is not None
        assert person.session.snapshot_candidates == 8
        kept[person.session.snapshot_at - T0] += 1
    assert sorted(kept) == list(range(8))
    assert all(430 < n < 570 for n in kept.values()), kept  # 500 each; 3 standard deviations are 63


def test_random_draws_are_uniform_and_independent() -> None:
    pairs: Counter[tuple[bool, bool]] = Counter()
    for n in range(4_000):
        visit = session_id("a:x", n)
        pairs[session_uniform(visit, 2) < 0.5, session_uniform(visit, 3) < 0.5] += 1
    assert all(900 < n < 1_100 for n in pairs.values()), pairs


def test_snapshot_is_identical_in_a_replay() -> None:
    made = model(events=0.7)
    moments = []
    for _ in range(2):
        person = person_in_session()
        for _ in range(9):
            score_once(person, made)
        session = person.session
        assert session is not None
        moments.append((session.snapshot, session.snapshot_score, session.snapshot_model))
        assert session.snapshot_score == pytest.approx(made.predict(session.snapshot))
    assert moments[0] == moments[1]
    assert moments[0][2] == made.hash


def test_snapshot_keeps_the_first_event_and_stops_at_order() -> None:
    street = StepRunner()
    page = Page(anonymous_id="x")
    person = street.apply(page, T0)
    assert person.session is not None
    assert person.session.snapshot["events"] == pytest.approx(0.6931, abs=1e-4)
    bought = Track(event="Order Completed", anonymous_id="x", properties={"order_id": "o", "revenue": 5})
    street.apply(bought, T0 + 1)
    before = dict(person.session.snapshot)
    for n in range(50):
        street.apply(page, T0 + 2 + n)
    assert person.session.snapshot == before
    street.advance(T0 + 10_000_000)
    assert [one.label for one in street.outcomes] == [True]


def test_outcome_features_do_not_leak_the_order() -> None:
    """Two visits that differ only in how they end give the same features."""
    found = []
    for last in ("Order Completed", "Anything"):
        street = StepRunner()
        for n, name in enumerate(("Product Viewed", "Product Added", "Product Viewed", last)):
            properties = {"product_id": "p", "price": 5, "order_id": "o"}
            street.apply(Track(event=name, anonymous_id="x", properties=properties), T0 + n * 1_000)
            if n == 2:
                person = street.person("a:x")
                assert person.session is not None
                person.session.snapshot = name_features(
                    feature_values(person, person.session.last_at)
                )  # as if it were drawn last
                moments = name_features(feature_values(person, person.session.last_at))
        street.advance(T0 + 10_000_000)
        (outcome,) = street.outcomes
        found.append((outcome.label, moments, outcome.features == moments))
    assert [label for label, _, _ in found] == [True, False]
    assert found[0][1] == found[1][1]
    assert found[0][2], "the drawn moment is the one before the order"
    assert "orders" not in found[0][1]


# -- features --------------------------------------------------------------------------------------------------------


def test_features_are_finite_and_of_similar_scale() -> None:
    rich = typical_person()
    rich.own_fragment().orders = [Order("o", T0 - 86_400_000, 500)]
    rich.own_fragment().order_count, rich.own_fragment().last_order_at, rich.own_fragment().sessions = (
        3,
        T0 - 30 * 86_400_000,
        40,
    )
    assert rich.session is not None
    rich.session.last_at = T0 + 3_600_000
    rich.session.events = rich.session.products = 5_000
    assert rich.cart is not None
    rich.cart.items["x"] = CartItem(10, 1_000_000)
    rich.cart.checkout_at = T0
    for person in (rich, person_in_session(), Person(id="a:y"), typical_person()):
        values = feature_values(person, T0 + 3_600_000)
        assert len(values) == len(FEATURE_NAMES)
        assert all(type(value) is float for value in values)
        assert all(0.0 <= value <= 10.0 for value in values), dict(zip(FEATURE_NAMES, values, strict=True))
    assert name_features(feature_values(rich, T0))["order_recency"] == pytest.approx(0.5)


def test_features_are_not_negative_on_clock_skew() -> None:
    person = Person(
        id="a:x",
        session=Session("00aa", T0, T0),
        cart=Cart(),
        fragments={
            "a:x": ProfileFragment(
                last_order_at=T0 + 99, lifetime_counts={"x": LifetimeCount()}, viewed_products=[ViewedProduct("p")]
            )
        },
    )
    values = feature_values(person, T0 - 1_000)
    assert all(value >= 0.0 for value in values)
