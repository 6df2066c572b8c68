"""Excluded: conditions whose `not` rules out all that the rest of them asks for.

A statement asks for at least as much as another when whoever fits it fits the other, too: 3 pages for 2 pages, Canada
for Canada or the United States. What cannot be told counts as not asked for, so whatever is found never holds.

>>> from domain.condition import Condition, Has
>>> excluded(Condition(has=Has(country="CA"), not_=Condition(has=Has(country=("CA", "US")))), {})
True
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from domain.condition import Condition, Holds, WasSaid
from domain.known import several
from domain.segment import Segment

DEEPEST = 20
APART = ("has", "session", "cart", "orders", "rfm", "funnel", "score")
"""Statements whose fields each say something of their own: they may stand in different places."""

WHOLE = ("did", "did_not", "sequence", "holds_coupon", "was_said")
"""Statements that are about one and the same thing."""

MORE = ("at_least",)
LESS = ("below", "at_most")
"""How fields with a number end of which more (or less) asks for more."""


def excluded(condition: Condition, segments: Mapping[str, Segment]) -> bool:
    """Whether a `not` that must hold rules out what must hold as well, through whatever segments are referred to."""
    asked = list(_must(condition, segments, 0))
    return any(one.not_ is not None and _asks(asked, one.not_) for one in asked)


def _must(condition: Condition, segments: Mapping[str, Segment], depth: int) -> Iterator[Condition]:
    if depth > DEEPEST:
        return
    yield condition
    inside = [*condition.all, *(condition.any if len(condition.any) == 1 else ())]
    names = several(condition.in_segment)
    if len(names) == 1 and names[0] in segments and not segments[names[0]].static:
        inside.append(segments[names[0]].when)
    for one in inside:
        yield from _must(one, segments, depth + 1)


def _asks(asked: list[Condition], wanted: Condition) -> bool:
    """Whether these together ask for all that is wanted."""
    if wanted.not_ is not None or wanted == Condition():
        return False
    if wanted.any and not any(_asks(asked, one) for one in wanted.any):
        return False
    if wanted.in_segment is not None and not any(
            one.in_segment is not None and _covered("in_segment", one.in_segment, wanted.in_segment) for one in asked):
        return False
    return (all(_asks(asked, one) for one in wanted.all)
            and all(_each(asked, name, getattr(wanted, name)) for name in APART)
            and all(_whole([mine for one in asked for mine in _list(getattr(one, name))], other)
                    for name in WHOLE for other in _list(getattr(wanted, name))))


def _each(asked: list[Condition], name: str, wanted: msgspec.Struct | None) -> bool:
    """Whether each field of a statement is asked for, wherever."""
    mine = [getattr(one, name) for one in asked if getattr(one, name) is not None]
    return wanted is None or all(
        any(getattr(one, field) is not None and _covered(field, getattr(one, field), value) for one in mine)
        for field, value in _given(wanted))


def _whole(mine: list[msgspec.Struct], wanted: msgspec.Struct) -> bool:
    """Whether one statement asks for all of another."""
    return any(one == wanted or (isinstance(one, Holds | WasSaid) and all(
        _covered(field, getattr(one, field), value) for field, value in _given(wanted))) for one in mine)


def _given(statement: msgspec.Struct) -> list[tuple[str, Any]]:
    return [(one.name, value) for one in msgspec.structs.fields(type(statement))
            if (value := getattr(statement, one.name)) not in (None, {}, ())]


def _covered(field: str, mine: Any, wanted: Any) -> bool:
    """Whether whoever fits this value of a field fits the other one, too."""
    if mine == wanted:
        return True
    if isinstance(mine, (str, tuple)) and isinstance(wanted, tuple):  # of a list any is enough
        return set(several(mine)) <= set(wanted)
    if isinstance(mine, bool) or not isinstance(mine, (int, float)) or not isinstance(wanted, (int, float)):
        return False
    return mine >= wanted if field.endswith(MORE) else mine <= wanted if field.endswith(LESS) else False


def _list(value: Any) -> tuple[Any, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)
