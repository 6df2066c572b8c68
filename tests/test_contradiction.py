"""What is said never to hold never holds: of whomever, at whatever moment, as the words say."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from domain.condition import Condition
from domain.contradiction import contradiction
from domain.excluded import excluded
from state.person import Person
from tests.arbitrary import KINDS, conditions, past_of, people, remembering, turning_points
from tests.naive import naive

BEHAVIOUR = [KINDS[kind] for kind in ("plain", "often in a window", "after", "before", "last", "first", "sequence")]


def says(plain: dict[str, Any]) -> Condition:
    return msgspec.convert(plain, Condition)


def never_holds(plain: dict[str, Any], person: Person) -> None:
    remembering(person, plain)
    assert not any(naive(plain, person, moment, past_of(person)) for moment in turning_points(person))


@st.composite
def wider(draw: st.DrawFn, plain: dict[str, Any]) -> dict[str, Any]:
    """What asks for less: parts left out, lists longer, numbers lower; now and then for something else."""
    wide: dict[str, Any] = {}
    for word, what in plain.items():
        if word in ("all", "any"):
            wide[word] = [draw(wider(one)) for one in what]
        elif word in ("has", "session", "cart", "orders", "rfm", "holds_coupon", "was_said") and isinstance(what, dict):
            kept = draw(st.sets(st.sampled_from(sorted(what)), min_size=1)) | ({"pool", "campaign"} & set(what))
            wide[word] = {field: draw(loosened(value)) for field, value in what.items() if field in kept}
        else:
            wide[word] = what
    return wide


@st.composite
def loosened(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, list) and value:
        return [*value, *draw(st.lists(st.sampled_from(value), max_size=1))]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(1, value + draw(st.integers(-1, value < 5)))
    return value


@given(people(), conditions, conditions, st.data())
def test_what_a_not_excludes(person: Person, one: dict[str, Any], other: dict[str, Any], data: st.DataObject) -> None:
    ruled_out = data.draw(wider(one))
    plain = {"all": [one, other], "not": ruled_out}
    if excluded(says(plain), {}):
        never_holds(plain, person)


@given(people(), st.lists(st.sampled_from(BEHAVIOUR).flatmap(lambda kind: kind), min_size=2, max_size=4))
def test_what_two_statements_of_behaviour_leave_no_room_for(person: Person, parts: list[dict[str, Any]]) -> None:
    plain = {"all": parts}
    if contradiction(says(plain), {}, ()):
        never_holds(plain, person)


def test_behaviour_before_something_else_may_be_long_ago_and_go_on_after_it() -> None:
    assert not contradiction(says({"all": [
        {"did": {"event": "Product Viewed", "before": "Product Added", "last_before": "2h"}},
        {"did": {"event": "Product Viewed", "within": "1h"}}]}), {}, ())
