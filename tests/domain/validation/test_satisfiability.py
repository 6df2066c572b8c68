"""What is said never to hold never holds: of whomever, at whatever moment, as the words say."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from domain.playbook.condition import Condition
from domain.validation.satisfiability import is_excluded_by_negation, why_unsatisfiable
from state.person.model import Person
from tests.models.conditions import is_true
from tests.strategies.conditions import (
    PREDICATE_KINDS,
    change_times,
    conditions,
    past_of,
    persons,
    profile_with_counters,
)

BEHAVIOUR = [
    PREDICATE_KINDS[kind] for kind in ("plain", "often in a window", "after", "before", "last", "first", "sequence")
]


def to_condition(plain: dict[str, Any]) -> Condition:
    return msgspec.convert(plain, Condition)


def check_never_true(plain: dict[str, Any], person: Person) -> None:
    profile_with_counters(person, plain)
    assert not any(is_true(plain, person, moment, past_of(person)) for moment in change_times(person))


@st.composite
def wider_conditions(draw: st.DrawFn, plain: dict[str, Any]) -> dict[str, Any]:
    """What asks for less: parts left out, lists longer, numbers lower; now and then for something else."""
    wide: dict[str, Any] = {}
    for word, what in plain.items():
        if word in ("all", "any"):
            wide[word] = [draw(wider_conditions(one)) for one in what]
        elif word in ("has", "session", "cart", "orders", "rfm", "holds_coupon", "was_shown") and isinstance(
            what, dict
        ):
            kept = draw(st.sets(st.sampled_from(sorted(what)), min_size=1)) | ({"pool", "campaign"} & set(what))
            wide[word] = {field: draw(loosen(value)) for field, value in what.items() if field in kept}
        else:
            wide[word] = what
    return wide


@st.composite
def loosen(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, list) and value:
        return [*value, *draw(st.lists(st.sampled_from(value), max_size=1))]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(1, value + draw(st.integers(-1, value < 5)))
    return value


@given(persons(), conditions, conditions, st.data())
def test_excluded_conditions_are_never_true(
    person: Person, one: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    ruled_out = data.draw(wider_conditions(one))
    plain = {"all": [one, other], "not": ruled_out}
    if is_excluded_by_negation(to_condition(plain), {}):
        check_never_true(plain, person)


@given(persons(), st.lists(st.sampled_from(BEHAVIOUR).flatmap(lambda kind: kind), min_size=2, max_size=4))
def test_contradicting_conditions_are_never_true(person: Person, parts: list[dict[str, Any]]) -> None:
    plain = {"all": parts}
    if why_unsatisfiable(to_condition(plain), {}, ()):
        check_never_true(plain, person)


def test_before_and_within_do_not_contradict() -> None:
    assert not why_unsatisfiable(
        to_condition(
            {
                "all": [
                    {"did": {"event": "Product Viewed", "before": "Product Added", "last_before": "2h"}},
                    {"did": {"event": "Product Viewed", "within": "1h"}},
                ]
            }
        ),
        {},
        (),
    )
