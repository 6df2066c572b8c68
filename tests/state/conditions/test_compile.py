"""Conditions: the closures against a naive reading of the same words; exact in time; explained."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from domain.playbook.condition import Condition
from state.conditions.compile import CompiledCondition, compile_condition
from state.person.model import Cart, CartItem, LifetimeCount, Person, ProfileFragment, Session
from tests.harness.support import examples
from tests.models.conditions import T0, is_true
from tests.strategies.conditions import (
    PREDICATE_KINDS,
    SHOP,
    change_times,
    conditions,
    past_of,
    persons,
    profile_with_counters,
    timestamps,
)

# -- laws ----------------------------------------------------------------------------------------------------------


def compile_with_profile(plain: Any, person: Person) -> tuple[CompiledCondition, ProfileFragment]:
    """The condition compiled, and what is known of the person with the traces it needs."""
    return compile_condition(msgspec.convert(plain, Condition), SHOP), profile_with_counters(person, plain)


@given(conditions, persons(), timestamps)
@settings(max_examples=examples(50), deadline=None)
def test_compiled_conditions_match_the_reference_model(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = compile_with_profile(plain, person)
    for moment in (now, *change_times(person)):
        assert compiled.is_met(person, facts, moment) == is_true(plain, person, moment, past_of(person)), moment - T0


@given(conditions, persons(), timestamps)
@settings(max_examples=examples(40), deadline=None)
def test_no_change_happens_before_next_change(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = compile_with_profile(plain, person)
    change = compiled.next_change(person, facts, now)
    assert change is None or change > now
    before = is_true(plain, person, now, past_of(person))
    for moment in change_times(person):
        if now < moment and (change is None or moment < change):
            assert is_true(plain, person, moment, past_of(person)) == before, f"at {moment - T0}, foretold {change}"
    if change is not None:
        assert is_true(plain, person, change - 1, past_of(person)) == before


@given(conditions, persons(), timestamps)
@settings(max_examples=examples(40), deadline=None)
def test_next_change_visits_every_change(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = compile_with_profile(plain, person)
    visited, at = [], now
    for _ in range(400):
        change = compiled.next_change(person, facts, at)
        if change is None:
            break
        visited.append(change)
        at = change
    else:
        raise AssertionError("it never comes to rest")
    truth = is_true(plain, person, now, past_of(person))
    for moment in change_times(person):
        if moment > now and is_true(plain, person, moment, past_of(person)) != truth:
            truth = not truth
            assert moment in visited


@pytest.mark.parametrize("kind", PREDICATE_KINDS)
def test_next_change_is_exact_for_a_single_predicate(kind: str) -> None:
    @given(PREDICATE_KINDS[kind], persons(), timestamps)
    @settings(max_examples=examples(40), deadline=None)
    def law(plain: Any, person: Any, now: Any) -> None:
        compiled, facts = compile_with_profile(plain, person)
        past, turns = past_of(person), [now]
        while (change := compiled.next_change(person, facts, turns[-1])) is not None:
            turns.append(change)
        truth = is_true(plain, person, now, past)
        for moment in sorted({now, *turns, *change_times(person)}):
            holds = compiled.is_met(person, facts, moment)
            assert holds == is_true(plain, person, moment, past), moment - T0
            if moment > now:
                assert (holds != truth) == (moment in turns), moment - T0
                truth = holds

    law()


@given(conditions, persons(), timestamps)
@settings(max_examples=examples(40), deadline=None)
def test_explanation_lists_passed_or_failed_predicates(plain: Any, person: Any, now: Any) -> None:
    compiled, facts = compile_with_profile(plain, person)
    held, failed = compiled.explain(person, facts, now)
    if compiled.is_met(person, facts, now):
        assert held
        assert not failed
    else:
        assert failed


# -- one by one ----------------------------------------------------------------------------------------------------

CLARA = Person(
    id="a:clara",
    session=Session("s", T0, T0, pages=4, products=1, first_session=True),
    cart=Cart(items={"p": CartItem(2, 1000, "Mug")}, created_at=T0, updated_at=T0),
    fragments={
        "a:clara": ProfileFragment(
            country="CA",
            lifetime_counts={"Product Viewed": LifetimeCount(3, T0, T0)},
            order_count=1,
            revenue=5000,
            last_order_at=T0 - 3_600_000,
        )
    },
)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"session": {"pages_at_least": 3}}, "at least 3 pages this session (has 4)"),
        ({"session": {"pages_at_least": 1}}, "at least 1 page this session (has 4)"),
        ({"session": {"products_at_least": 1}}, "at least 1 product this session (has 1)"),
        ({"session": {"searches_at_least": 1}}, "at least 1 search this session (has 0)"),
        ({"session": {"searches_at_least": 2}}, "at least 2 searches this session (has 0)"),
        ({"has": {"sessions_at_least": 1}}, "at least 1 session (has 0)"),
        ({"has": {"sessions_at_least": 2}}, "at least 2 sessions (has 0)"),
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
        ({"in_segment": "engaged"}, "is in engaged"),
        ({"has": {"trait": {"vip": True}}}, "vip is true (not known)"),
    ],
)
def test_each_predicate_has_a_description(plain: Any, words: Any) -> None:
    compiled = compile_condition(msgspec.convert(plain, Condition), SHOP)
    held, failed = compiled.explain(CLARA, CLARA.own_fragment(), T0 + 5_000)
    assert (*held, *failed) == (words,)


def test_only_true_alternatives_are_reasons() -> None:
    plain = {"any": [{"session": {"pages_at_least": 3}}, {"cart": {"empty": True}}]}
    compiled = compile_condition(msgspec.convert(plain, Condition), SHOP)
    assert compiled.explain(CLARA, CLARA.own_fragment(), T0) == (("at least 3 pages this session (has 4)",), ())


@pytest.mark.parametrize(
    "plain",
    [
        {"did": {"event": "X", "at_least": 101, "within": "7d"}},
        {"did": {"event": "X", "at_least": 101, "after": "Y"}},
        {"did_not": {"event": "X", "at_least": 101, "before": "Y"}},
        {"sequence": {"steps": ["X", {"event": "Y", "at_least": 2}]}},
    ],
)
def test_conditions_beyond_stored_history_are_rejected(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"100 times are remembered|nothing but `event` and `where`"):
        compile_condition(msgspec.convert(plain, Condition))
