"""Conditions: the closures against a naive reading of the same words; exact in time; explained."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from domain.condition import Condition
from state.conditions import Compiled, compile_condition
from state.person import Cart, CartItem, Count, Facts, Person, Session
from tests.arbitrary import KINDS, SHOP, conditions, moments, past_of, people, remembering, turning_points
from tests.naive import T0, naive
from tests.support import examples

# -- laws ----------------------------------------------------------------------------------------------------------


def ready(plain: Any, person: Person) -> tuple[Compiled, Facts]:
    """The condition compiled, and what is known of the person with the traces it needs."""
    return compile_condition(msgspec.convert(plain, Condition), SHOP), remembering(person, plain)


@given(conditions, people(), moments)
@settings(max_examples=examples(50), deadline=None)
def test_the_closures_say_what_the_words_say(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = ready(plain, person)
    for moment in (now, *turning_points(person)):
        assert compiled.holds(person, facts, moment) == naive(plain, person, moment, past_of(person)), moment - T0


@given(conditions, people(), moments)
@settings(max_examples=examples(40), deadline=None)
def test_nothing_changes_by_time_alone_before_it_was_foretold(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = ready(plain, person)
    change = compiled.next_change(person, facts, now)
    assert change is None or change > now
    before = naive(plain, person, now, past_of(person))
    for moment in turning_points(person):
        if now < moment and (change is None or moment < change):
            assert naive(plain, person, moment, past_of(person)) == before, f"at {moment - T0}, foretold {change}"
    if change is not None:
        assert naive(plain, person, change - 1, past_of(person)) == before


@given(conditions, people(), moments)
@settings(max_examples=examples(40), deadline=None)
def test_following_what_was_foretold_visits_every_change(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = ready(plain, person)
    visited, at = [], now
    for _ in range(400):
        change = compiled.next_change(person, facts, at)
        if change is None:
            break
        visited.append(change)
        at = change
    else:
        raise AssertionError("it never comes to rest")
    truth = naive(plain, person, now, past_of(person))
    for moment in turning_points(person):
        if moment > now and naive(plain, person, moment, past_of(person)) != truth:
            truth = not truth
            assert moment in visited


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_statement_every_moment_that_is_foretold_turns_it_and_no_other(kind: str) -> None:
    @given(KINDS[kind], people(), moments)
    @settings(max_examples=examples(40), deadline=None)
    def law(plain: Any, person: Any, now: Any) -> None:
        compiled, facts = ready(plain, person)
        past, turns = past_of(person), [now]
        while (change := compiled.next_change(person, facts, turns[-1])) is not None:
            turns.append(change)
        truth = naive(plain, person, now, past)
        for moment in sorted({now, *turns, *turning_points(person)}):
            holds = compiled.holds(person, facts, moment)
            assert holds == naive(plain, person, moment, past), moment - T0
            if moment > now:
                assert (holds != truth) == (moment in turns), moment - T0
                truth = holds

    law()


@given(conditions, people(), moments)
@settings(max_examples=examples(40), deadline=None)
def test_an_explanation_gives_what_held_or_what_failed(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = ready(plain, person)
    held, failed = compiled.explain(person, facts, now)
    if compiled.holds(person, facts, now):
        assert held
        assert not failed
    else:
        assert failed


# -- one by one ----------------------------------------------------------------------------------------------------

CLARA = Person(
    id="a:clara", session=Session("s", T0, T0, pages=4, products=1, first_visit=True),
    cart=Cart(items={"p": CartItem(2, 1000, "Mug")}, created_at=T0, updated_at=T0),
    facets={"a:clara": Facts(country="CA", counts={"Product Viewed": Count(3, T0, T0)}, order_count=1, revenue=5000,
                             last_order_at=T0 - 3_600_000)})


@pytest.mark.parametrize(("plain", "words"), [
    ({"session": {"pages_at_least": 3}}, "at least 3 pages this visit (has 4)"),
    ({"session": {"pages_at_least": 1}}, "at least 1 page this visit (has 4)"),
    ({"session": {"products_at_least": 1}}, "at least 1 product this visit (has 1)"),
    ({"session": {"searches_at_least": 1}}, "at least 1 search this visit (has 0)"),
    ({"session": {"searches_at_least": 2}}, "at least 2 searches this visit (has 0)"),
    ({"has": {"visits_at_least": 1}}, "at least 1 visit (has 0)"),
    ({"has": {"visits_at_least": 2}}, "at least 2 visits (has 0)"),
    ({"orders": {"count_at_least": 1}}, "at least 1 order (has 1)"),
    ({"orders": {"count_is": 1}}, "exactly 1 order (has 1)"),
    ({"orders": {"count_is": 0}}, "exactly 0 orders (has 1)"),
    ({"session": {"seconds_at_least": 60}}, "at least 60 s on the site (has 5)"),
    ({"has": {"country": ["US", "CA"]}}, "is in CA or US (CA)"),
    ({"cart": {"value_at_least": 50}}, "cart worth at least 50.00 EUR (is 20.00)"),
    ({"cart": {"untouched_for": "30m"}}, "cart not touched since at least 30 minutes ago (5 s ago)"),
    ({"did": {"event": "Product Viewed", "at_least": 2}}, 'did "Product Viewed" at least 2 times (has 3)'),
    ({"did_not": {"event": "Exit Intent", "within": "7d"}}, 'not: did "Exit Intent" in the last 7 days (never)'),
    ({"orders": {"last_before": "90d"}}, "last order at least 90 days ago (60 minutes ago)"),
    ({"score": {"at_least": 0.5}}, "at least 0.5 likely to buy (not known)"),
    ({"in_segment": "engaged"}, "belongs to engaged"),
    ({"has": {"trait": {"vip": True}}}, "vip is true (not known)"),
])
def test_each_statement_has_its_words(plain: Any, words: Any) -> None:
    compiled = compile_condition(msgspec.convert(plain, Condition), SHOP)
    held, failed = compiled.explain(CLARA, CLARA.own(), T0 + 5_000)
    assert (*held, *failed) == (words,)


def test_of_alternatives_only_the_ones_that_held_are_a_reason() -> None:
    plain = {"any": [{"session": {"pages_at_least": 3}}, {"cart": {"empty": True}}]}
    compiled = compile_condition(msgspec.convert(plain, Condition), SHOP)
    assert compiled.explain(CLARA, CLARA.own(), T0) == (("at least 3 pages this visit (has 4)",), ())


@pytest.mark.parametrize("plain", [
    {"did": {"event": "X", "at_least": 101, "within": "7d"}},
    {"did": {"event": "X", "at_least": 101, "after": "Y"}},
    {"did_not": {"event": "X", "at_least": 101, "before": "Y"}},
    {"sequence": {"steps": ["X", {"event": "Y", "at_least": 2}]}},
])
def test_what_is_not_remembered_is_refused_not_faked(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"100 times are remembered|nothing but `event` and `where`"):
        compile_condition(msgspec.convert(plain, Condition))
