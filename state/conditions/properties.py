"""Match properties of events and values of traits against filters.

>>> from domain.event import Track
>>> mugs = matcher({"category": ("mugs", "cups"), "price": PropertyFilter(at_least=5)})
>>> mugs(Track(event="Product Viewed", properties={"category": "mugs", "price": 9.5}))
True
>>> mugs(Track(event="Product Viewed", properties={"category": "mugs"}))
False
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from domain.event import Event, Page, Screen, Track
from domain.playbook.condition import PropertyFilter, Value

PropertyFilters = Mapping[str, Value | tuple[Value, ...] | PropertyFilter]
ValueTest = Callable[[Any], bool]


def typed(value: Value) -> tuple[str, Value]:
    """Text, numbers and yes/no never equal each other: 1 is not true, "1" is not 1."""
    return ("yes" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"), value


def parse_number(value: Any) -> float | None:
    """A number, also when it came as a text; None for what is none.

    >>> parse_number("19.90"), parse_number(3), parse_number(True), parse_number("many"), parse_number(float("inf"))
    (19.9, 3.0, None, None, None)
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, str))
        or (isinstance(value, str) and (len(value) > 40 or "_" in value))
    ):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def get_property(event: Event, name: str) -> Any:
    """What an event says under this name; None when it says nothing. The category of a page is a property of it."""
    found = event.properties if isinstance(event, (Track, Page, Screen)) else None
    value = found.get(name) if found is not None else None
    if value is None and name == "category" and isinstance(event, (Page, Screen)):
        return event.category
    return value


def matcher(wanted: PropertyFilters) -> Callable[[Event], bool]:
    """A test of an event's properties: all that is wanted must be there."""
    tests = [(name, value_matcher(value)) for name, value in wanted.items()]
    if not tests:
        return lambda event: True
    if len(tests) == 1:
        [(only, test)] = tests
        return lambda event: test(get_property(event, only))

    def matches(event: Event) -> bool:
        return all(test(get_property(event, name)) for name, test in tests)

    return matches


def value_matcher(wanted: Value | tuple[Value, ...] | PropertyFilter) -> ValueTest:
    """A test of one value.

    >>> value_matcher(PropertyFilter(contains="MUG"))("a mug"), value_matcher(PropertyFilter(exists=False))(None)
    (True, True)
    >>> value_matcher(1)(True)
    False
    """
    if isinstance(wanted, PropertyFilter):
        return _filter_matcher(wanted)
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    names = frozenset(one for one in several if isinstance(one, str))
    if len(names) == len(several):
        return lambda value: isinstance(value, str) and value in names
    values = frozenset(typed(one) for one in several)

    def among(value: Any) -> bool:
        return isinstance(value, (str, int, float, bool)) and typed(value) in values

    return among


def _filter_matcher(wanted: PropertyFilter) -> ValueTest:
    tests: list[ValueTest] = []
    if wanted.exists is not None:
        known = wanted.exists
        tests.append(lambda value: (value is not None and value != "") is known)
    if wanted.is_not is not None:
        excluded = value_matcher(wanted.is_not)
        tests.append(lambda value: not excluded(value))
    if wanted.at_least is not None:
        least = wanted.at_least
        tests.append(lambda value: (found := parse_number(value)) is not None and found >= least)
    if wanted.below is not None:
        most = wanted.below
        tests.append(lambda value: (found := parse_number(value)) is not None and found < most)
    if wanted.contains is not None:
        parts = [text.lower() for text in _as_tuple(wanted.contains)]
        tests.append(lambda value: isinstance(value, str) and any(part in value.lower() for part in parts))
    if wanted.starts_with is not None:
        heads = _as_tuple(wanted.starts_with)
        tests.append(lambda value: isinstance(value, str) and value.startswith(heads))
    return lambda value: all(test(value) for test in tests)


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,)


def describe(wanted: PropertyFilters) -> str:
    """Describe property filters; empty if there are none.

    >>> describe({"category": ("mugs", "cups"), "price": PropertyFilter(at_least=5), "sale": True})
    'category is mugs or cups, price is at least 5, sale is true'
    """
    return ", ".join(f"{name} {_describe_value(value)}" for name, value in wanted.items())


def _describe_value(value: Value | tuple[Value, ...] | PropertyFilter) -> str:
    if not isinstance(value, PropertyFilter):
        return "is " + _join_values(value)
    parts = []
    if value.exists is not None:
        parts.append("is known" if value.exists else "is not known")
    if value.is_not is not None:
        parts.append("is not " + _join_values(value.is_not))
    if value.at_least is not None:
        parts.append(f"is at least {value.at_least:g}")
    if value.below is not None:
        parts.append(f"is below {value.below:g}")
    if value.contains is not None:
        parts.append("contains " + _join_values(value.contains))
    if value.starts_with is not None:
        parts.append("begins with " + _join_values(value.starts_with))
    return " and ".join(parts)


def _join_values(value: Value | tuple[Value, ...]) -> str:
    each = value if isinstance(value, tuple) else (value,)
    return " or ".join(
        str(one).lower() if isinstance(one, bool) else f"{one:g}" if isinstance(one, float) else str(one)
        for one in each
    )
