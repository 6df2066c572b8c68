"""score: the live model's word on a visit, bands that do not flicker, and one evenly chosen moment."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.action import Move
from domain.event import Page, Track
from domain.model import Model, Quality
from domain.playbook import Playbook
from operators import score
from operators.score import ENOUGH, LIKELY, UNDECIDED, UNLIKELY, Ready
from state.context import Context, Due
from state.features import NAMES, named, row
from state.person import Cart, CartItem, Count, Facts, Order, Person, ProductSeen, Session
from state.rules import compile_rules
from state.sessions import chance, session_id
from tests.people import T0, typical
from tests.visits import Street

BASE = Quality(examples=1_000, positives=100, base_rate=0.1)
"""Base odds 1 : 9, so likely begins at 3 : 9 = 0.25 and ends below 2 : 9 = 0.182; unlikely at 0.5 : 9 = 0.0526."""


def model(quality: Quality = BASE, intercept: float = 0.0, **weights: float) -> Model:
    return Model("propensity", 1, "h" + str(weights), weights, intercept=intercept, quality=quality)


def scored(person: Person, model: Model | None) -> list[Move]:
    """What happens at the next page of this visit."""
    assert person.session is not None
    person.session.events += 1
    context = Context(0, compile_rules(Playbook()), model)
    context.begin("clicks-0-1", T0, T0)
    effects = score.step(person, Page(), context)
    assert [move for move in effects if isinstance(move, Move)] == context.moves
    return context.moves


def visitor() -> Person:
    return Person(id="a:x", session=Session(session_id("a:x", T0), T0, T0, "x"))


numbers = st.floats(-5, 5)


@given(st.dictionaries(st.sampled_from([*NAMES, "unknown to us"]), numbers), st.lists(numbers, min_size=len(NAMES),
                                                                                      max_size=len(NAMES)), numbers)
def test_the_fast_prediction_is_the_models(weights: dict[str, float], values: list[float], intercept: float) -> None:
    made = Model("propensity", 1, "h", weights, dict.fromkeys(weights, 0.3), dict.fromkeys(weights, 1.7), intercept)
    assert Ready(made).predict(tuple(values)) == pytest.approx(made.predict(dict(zip(NAMES, values, strict=True))))


def test_a_scale_of_nothing_counts_for_nothing() -> None:
    made = Model("propensity", 1, "h", {"events": 3.0}, {"events": 1.0}, {"events": 0.0}, 0.5)
    values = (9.0,) * len(NAMES)
    assert Ready(made).predict(values) == pytest.approx(made.predict({"events": 9.0}))


def test_without_a_model_there_is_no_score_and_no_band() -> None:
    person = visitor()
    assert scored(person, None) == []
    assert (person.score, person.band, person.segments) == (None, "", {})


def test_every_event_is_scored_after_it_was_folded() -> None:
    person = visitor()
    scored(person, model(events=1.0))
    first = person.score
    scored(person, model(events=1.0))
    assert first is not None
    assert person.score is not None
    assert person.score > first


def at(person: Person, probability: float) -> list[tuple[str, bool]]:
    """Score this person at a probability; who moves?"""
    from math import log

    moves = scored(person, model(intercept=log(probability / (1 - probability))))
    return [(move.segment, move.entered) for move in moves]


def test_bands_have_hysteresis() -> None:
    person = visitor()
    assert at(person, 0.20) == [(UNDECIDED, True)]
    assert at(person, 0.24) == []
    assert at(person, 0.26) == [(UNDECIDED, False), (LIKELY, True)]
    for probability in (0.24, 0.20, 0.26, 0.19):
        assert at(person, probability) == [], "it does not flicker"
    assert at(person, 0.17) == [(LIKELY, False), (UNDECIDED, True)]
    assert at(person, 0.06) == []
    assert at(person, 0.05) == [(UNDECIDED, False), (UNLIKELY, True)]
    assert at(person, 0.06) == []
    assert at(person, 0.08) == [(UNLIKELY, False), (UNDECIDED, True)]
    assert at(person, 0.01) == [(UNDECIDED, False), (UNLIKELY, True)]
    assert at(person, 0.90) == [(UNLIKELY, False), (LIKELY, True)]
    assert (person.band, list(person.segments)) == (LIKELY, [LIKELY])


def test_a_move_says_why() -> None:
    person = visitor()
    made = model()
    (move,) = scored(person, made)
    assert (move.id, move.person, move.anonymous_id, move.at) == ("clicks-0-1-score-0", "a:x", "x", T0)
    assert move.because.model == made.hash
    assert move.because.held == ("score 0.5000",)
    assert person.segments == {LIKELY: T0}


@pytest.mark.parametrize(("examples", "positives"), [(0, 0), (1_000, ENOUGH - 1), (1_000, 1_000 - ENOUGH + 1)])
def test_a_model_that_has_seen_too_little_puts_nobody_into_a_band(examples: int, positives: int) -> None:
    person = visitor()
    assert scored(person, model(Quality(examples=examples, positives=positives))) == []
    assert person.score == 0.5
    assert scored(person, model(Quality(examples=2 * ENOUGH, positives=ENOUGH))) != []


def test_bands_mean_the_same_where_many_buy() -> None:
    person = visitor()
    scored(person, model(Quality(examples=100, positives=60, base_rate=0.6), intercept=2.0))
    assert person.band == LIKELY, "0.88 is more than three times the odds of 0.6"


def test_who_has_ordered_in_this_visit_has_no_score_and_no_band() -> None:
    person = visitor()
    at(person, 0.9)
    assert person.session is not None
    person.session.ordered = True
    assert at(person, 0.9) == [(LIKELY, False)]
    assert (person.score, person.band, person.segments) == (None, "", {})
    assert at(person, 0.9) == []


def test_timers_are_not_scored() -> None:
    person = visitor()
    context = Context(0, compile_rules(Playbook()), model())
    assert score.step(person, Due("session_end", "", T0), context) == ()
    assert person.score is None


# -- the moment ------------------------------------------------------------------------------------------------------


def test_each_moment_of_a_visit_is_kept_as_often_as_any_other() -> None:
    kept: Counter[float] = Counter()
    for n in range(4_000):
        person = Person(id=f"a:{n}", session=Session(session_id(f"a:{n}", T0), T0, T0))
        for minute in range(8):
            assert person.session is not None
            person.session.last_at = T0 + minute
            scored(person, None)
        assert person.session is not None
        assert person.session.snapshots == 8
        kept[person.session.snapshot_at - T0] += 1
    assert sorted(kept) == list(range(8))
    assert all(430 < n < 570 for n in kept.values()), kept  # 500 each; 3 standard deviations are 63


def test_draws_are_even_and_do_not_depend_on_one_another() -> None:
    pairs: Counter[tuple[bool, bool]] = Counter()
    for n in range(4_000):
        visit = session_id("a:x", n)
        pairs[chance(visit, 2) < 0.5, chance(visit, 3) < 0.5] += 1
    assert all(900 < n < 1_100 for n in pairs.values()), pairs


def test_the_moment_is_the_same_in_a_rerun_and_has_the_score_of_its_time() -> None:
    made = model(events=0.7)
    moments = []
    for _ in range(2):
        person = visitor()
        for _ in range(9):
            scored(person, made)
        session = person.session
        assert session is not None
        moments.append((session.snapshot, session.snapshot_score, session.snapshot_model))
        assert session.snapshot_score == pytest.approx(made.predict(session.snapshot))
    assert moments[0] == moments[1]
    assert moments[0][2] == made.hash


def test_the_first_moment_is_always_kept_and_none_after_an_order() -> None:
    street = Street()
    page = Page(anonymous_id="x")
    person = street.happens(page, T0)
    assert person.session is not None
    assert person.session.snapshot["events"] == pytest.approx(0.6931, abs=1e-4)
    bought = Track(event="Order Completed", anonymous_id="x", properties={"order_id": "o", "revenue": 5})
    street.happens(bought, T0 + 1)
    before = dict(person.session.snapshot)
    for n in range(50):
        street.happens(page, T0 + 2 + n)
    assert person.session.snapshot == before
    street.pass_until(T0 + 10_000_000)
    assert [one.label for one in street.outcomes] == [True]


def test_the_features_of_an_outcome_know_nothing_of_the_order() -> None:
    """Two visits that differ only in how they end give the same features."""
    found = []
    for last in ("Order Completed", "Anything"):
        street = Street()
        for n, name in enumerate(("Product Viewed", "Product Added", "Product Viewed", last)):
            properties = {"product_id": "p", "price": 5, "order_id": "o"}
            street.happens(Track(event=name, anonymous_id="x", properties=properties), T0 + n * 1_000)
            if n == 2:
                person = street.person("a:x")
                assert person.session is not None
                person.session.snapshot = named(row(person, person.session.last_at))  # as if it were drawn last
                moments = named(row(person, person.session.last_at))
        street.pass_until(T0 + 10_000_000)
        (outcome,) = street.outcomes
        found.append((outcome.label, moments, outcome.features == moments))
    assert [label for label, _, _ in found] == [True, False]
    assert found[0][1] == found[1][1]
    assert found[0][2], "the drawn moment is the one before the order"
    assert "orders" not in found[0][1]


# -- features --------------------------------------------------------------------------------------------------------


def test_features_are_plain_numbers_of_a_like_size() -> None:
    rich = typical()
    rich.own().orders = [Order("o", T0 - 86_400_000, 500)]
    rich.own().order_count, rich.own().last_order_at, rich.own().sessions = 3, T0 - 30 * 86_400_000, 40
    assert rich.session is not None
    rich.session.last_at = T0 + 3_600_000
    rich.session.events = rich.session.products = 5_000
    assert rich.cart is not None
    rich.cart.items["x"] = CartItem(10, 1_000_000)
    rich.cart.checkout_at = T0
    for person in (rich, visitor(), Person(id="a:y"), typical()):
        values = row(person, T0 + 3_600_000)
        assert len(values) == len(NAMES)
        assert all(type(value) is float for value in values)
        assert all(0.0 <= value <= 10.0 for value in values), dict(zip(NAMES, values, strict=True))
    assert named(row(rich, T0))["order_recency"] == pytest.approx(0.5)


def test_features_never_go_wrong_on_an_odd_clock() -> None:
    person = Person(id="a:x", session=Session("00aa", T0, T0), cart=Cart(),
                    facets={"a:x": Facts(last_order_at=T0 + 99, counts={"x": Count()}, products=[ProductSeen("p")])})
    values = row(person, T0 - 1_000)
    assert all(value >= 0.0 for value in values)
