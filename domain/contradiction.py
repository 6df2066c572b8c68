"""Contradictions: conditions that can never hold, through whatever segments they refer to.

Of a condition, the plain bounds that must hold together are collected; where two of them leave no room, it never holds.

>>> from domain.condition import Condition, InCart
>>> both = Condition(all=(Condition(cart=InCart(empty=True)), Condition(cart=InCart(value_at_least=5))))
>>> contradiction(both, {}, ())
'something is in the cart, and the cart is empty'
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from domain.amounts import some, times
from domain.condition import BANDS, Condition, Did
from domain.duration import parse, say
from domain.excluded import excluded
from domain.known import is_cell, several
from domain.rfm_groups import CELLS
from domain.segment import Segment

VISIT = 30 * 60_000
"""A visit is open for so many ms after its last event (`state/sessions.py`)."""
DEEPEST = 20
MOST_WAYS = 64


class Bound(NamedTuple):
    """What must hold of one thing: low <= it < high, or it is among these; `said` in words."""

    about: str
    said: str
    low: float = float("-inf")
    high: float = float("inf")
    among: frozenset[Any] | None = None
    did: Did | None = None
    """What was done (with `low`) or was not (with `high`): it is compared across times, too."""


def contradiction(condition: Condition, segments: Mapping[str, Segment], stages: tuple[str, ...]) -> str:
    """Why a condition can never hold, in words; empty when nothing speaks against it."""
    return _never(list(_bounds(condition, segments, stages, 0)), _ways(condition), segments, stages, 0) or (
        "all that is ruled out is asked for" if excluded(condition, segments) else "")


def _never(bounds: list[Bound], ways: list[tuple[Condition, ...]], segments: Mapping[str, Segment],
           stages: tuple[str, ...], depth: int) -> str:
    if clash := _clash(bounds):
        return clash
    if depth > 3:
        return ""
    for choices in ways[:4]:
        said = []
        for way in choices[:MOST_WAYS]:
            more = list(_bounds(way, segments, stages, 0))
            clash = _never([*bounds, *more], _ways(way), segments, stages, depth + 1)
            if not clash:
                break
            said.append(clash)
        else:
            return said[0] if len(set(said)) == 1 else "none of the ways in `any` is possible: " + said[0]
    return ""


def _clash(bounds: list[Bound]) -> str:
    by: dict[str, list[Bound]] = {}
    for bound in bounds:
        by.setdefault(bound.about, []).append(bound)
    for those in by.values():
        low, high = max(those, key=lambda one: one.low), min(those, key=lambda one: one.high)
        if low.low >= high.high:
            return f"{low.said}, and {high.said}"
        for n, one in enumerate(those):
            for other in those[:n]:
                if one.among is not None and other.among is not None and one.among.isdisjoint(other.among):
                    return f"{other.said}, and {one.said}"
    return _undone([bound for bound in bounds if bound.did is not None])


def _undone(bounds: list[Bound]) -> str:
    """What was done within a time, and was not done within a longer one."""
    for done in bounds:
        for other in bounds:
            one, no = done.did, other.did
            if one is None or no is None or done.low == float("-inf") or done.low < other.high or one.event != no.event:
                continue
            inside = no.within is None or (one.within is not None and _span(one.within) <= _span(no.within))
            if inside and (one.after, one.before) == (no.after, no.before) and no.where.items() <= one.where.items():
                return f"{done.said}, and {other.said}"
    return ""


def _ways(condition: Condition) -> list[tuple[Condition, ...]]:
    found = [condition.any] if condition.any else []
    for child in condition.all:
        found += _ways(child)
    return found


def _bounds(condition: Condition, segments: Mapping[str, Segment], stages: tuple[str, ...],
            depth: int) -> Iterator[Bound]:
    """What must hold for the condition to hold (not all of it: what is not understood is left out).

    `segments` holds the stages of the funnel, too, as funnel_NAME.
    """
    if depth > DEEPEST:
        return
    for child in condition.all:
        yield from _bounds(child, segments, stages, depth + 1)
    if len(condition.any) == 1:
        yield from _bounds(condition.any[0], segments, stages, depth + 1)
    for did in _list(condition.did):
        yield from _did(did)
    for did in _list(condition.did_not):
        if did.last_before is None and did.first_within is None and did.sum is None:
            yield Bound(_key(did), f'"{did.event}" was not done{_often(did)}', high=did.at_least, did=did)
    if condition.sequence is not None:
        steps = [Did(step) if isinstance(step, str) else step for step in condition.sequence.steps]
        for step in steps[:-1]:
            yield from _did(step)
        yield from _did(msgspec.structs.replace(steps[-1], within=condition.sequence.last_within))
    yield from _about(condition)
    yield from _cart(condition)
    yield from _orders(condition)
    if condition.not_ is not None:
        yield from _not(condition.not_)
    names = several(condition.in_segment)
    if len(names) == 1:
        [name] = names
        yield Bound(f"segment {name}", f'they are in "{name}"', low=1)
        if name in BANDS:
            yield Bound("band", f"they are {name}", among=frozenset(names))
        elif name.startswith("funnel_"):
            yield Bound("stage", f"they are at the stage {name[7:]}", among=frozenset((name[7:],)))
        elif name.removeprefix("rfm_") in CELLS:
            yield from _groups((name.removeprefix("rfm_"),))
        elif is_cell(name):
            yield from _cells((name[4:],), f"they are in the cell {name[4:]}")
        if name in segments and not segments[name].static:
            for bound in _bounds(segments[name].when, segments, stages, depth + 1):
                yield bound._replace(said=f'{bound.said} (in "{name}")')
    if condition.funnel is not None:
        wanted = several(condition.funnel.stage)
        if wanted:
            yield Bound("stage", f"they are at the stage {' or '.join(wanted)}", among=frozenset(wanted))
        if len(wanted) == 1 and (stage := segments.get(f"funnel_{wanted[0]}")) is not None:
            for bound in _bounds(stage.when, segments, stages, depth + 1):
                yield bound._replace(said=f"{bound.said} (at the stage {wanted[0]})")
        if condition.funnel.at_least in stages:
            later = stages[stages.index(condition.funnel.at_least):]
            yield Bound("stage", f"they are at {condition.funnel.at_least} or further", among=frozenset(later))


def _list(value: Did | tuple[Did, ...] | None) -> tuple[Did, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _key(did: Did) -> str:
    extra = (did.where, did.within, did.after, did.before)
    return f"did {did.event} {msgspec.json.encode(extra).decode()}"


def _often(did: Did) -> str:
    often = f" {did.at_least} times" if did.at_least > 1 else ""
    return often + (f" in the last {_say(did.within)}" if did.within else "")


def _say(text: str) -> str:
    try:
        return say(parse(text))
    except ValueError:
        return text


def _ms(text: str | None) -> float | None:
    try:
        return None if text is None else parse(text)
    except ValueError:
        return None


def _span(text: str) -> float:
    found = _ms(text)
    return float("nan") if found is None else found


def _did(did: Did) -> Iterator[Bound]:
    yield Bound(_key(did), f'"{did.event}" was done{_often(did)}', low=did.at_least, did=did)
    age = f"age of {did.event} {msgspec.json.encode((did.where, did.before)).decode()}"
    if (newly := _ms(did.first_within)) is not None:
        yield Bound(age, f'the first "{did.event}" is less than {_say(did.first_within or "")} ago', high=newly)
    if (within := _ms(did.within)) is not None:
        yield Bound(age, f'the last "{did.event}" is less than {_say(did.within or "")} ago', high=within)
    if (before := _ms(did.last_before)) is not None:
        yield Bound(age, f'the last "{did.event}" is at least {_say(did.last_before or "")} ago', low=before)
    if did.sum is not None and did.sum.at_least is not None and did.sum.below is not None:
        about = f"sum {did.sum.of} {_key(did)}"
        yield Bound(about, f"the sum of {did.sum.of} is at least {did.sum.at_least:g}", low=did.sum.at_least)
        yield Bound(about, f"it is below {did.sum.below:g}", high=did.sum.below)


def _about(condition: Condition) -> Iterator[Bound]:
    if (has := condition.has) is not None:
        for field in ("country", "device"):
            if names := several(getattr(has, field)):
                yield Bound(field, f"the {field} is {' or '.join(names)}", among=frozenset(names))
        if has.visits_at_least is not None:
            yield Bound("visits", f"they were here at least {times(has.visits_at_least)}", low=has.visits_at_least)
        if (newly := _ms(has.first_seen_within)) is not None:
            yield Bound("last seen", f"they were first seen less than {_say(has.first_seen_within or '')} ago",
                        high=newly)
        if (before := _ms(has.last_seen_before)) is not None:
            yield Bound("last seen", f"they were last seen at least {_say(has.last_seen_before or '')} ago", low=before)
        if has.known is not None:
            yield Bound("known", "they are a known customer" if has.known else "they are anonymous",
                        among=frozenset((has.known,)))
    if (visit := condition.session) is not None:
        yield Bound("last seen", "a visit is open", high=VISIT)
        if visit.first_visit:
            yield Bound("visits", "it is the first visit", high=2)
        if visit.first_visit is not None:
            yield Bound("first visit", "it is the first visit" if visit.first_visit else "it is not the first visit",
                        among=frozenset((visit.first_visit,)))
        if visit.ordered is not None:
            yield Bound("ordered", f"they {'ordered' if visit.ordered else 'did not order'} in this visit",
                        among=frozenset((visit.ordered,)))
        for field in ("source", "medium", "campaign"):
            if names := several(getattr(visit, field)):
                yield Bound(f"visit {field}", f"this visit's {field} is {' or '.join(names)}", among=frozenset(names))
    if (score := condition.score) is not None:
        yield Bound("score", f"the score is at least {score.at_least or 0:g}", low=score.at_least or 0)
        if score.below is not None:
            yield Bound("score", f"the score is below {score.below:g}", high=score.below)
        if score.band is not None:
            yield Bound("band", f"they are {score.band}", among=frozenset((score.band,)))
    if (rfm := condition.rfm) is not None:
        yield Bound("orders", "they have ordered", low=1)
        for field in ("recency", "frequency", "money"):
            least, most = getattr(rfm, f"{field}_at_least"), getattr(rfm, f"{field}_at_most")
            if least is not None:
                yield Bound(f"rfm {field}", f"{field} is at least {least}", low=least)
            if most is not None:
                yield Bound(f"rfm {field}", f"{field} is at most {most}", high=most + 1)
        if groups := several(rfm.group):
            yield from _groups(groups)


def _groups(groups: tuple[str, ...]) -> Iterator[Bound]:
    """What groups of RFM cells say of recency, frequency and money."""
    yield from _cells(tuple(cell for group in groups for cell in CELLS[group]), f"they are {' or '.join(groups)}")


def _cells(cells: tuple[str, ...], said: str) -> Iterator[Bound]:
    yield Bound("rfm cell", said, among=frozenset(cells))
    yield Bound("orders", "they have ordered", low=1)
    for n, field in enumerate(("recency", "frequency", "money")):
        digits = [int(cell[n]) for cell in cells]
        least, most = min(digits), max(digits)
        yield Bound(f"rfm {field}", f"{said} ({_digits(field, least, most)})", low=least, high=most + 1)


def _digits(field: str, least: int, most: int) -> str:
    return f"{field} {least}" if least == most else f"{field} {least} to {most}"


def _cart(condition: Condition) -> Iterator[Bound]:
    cart = condition.cart
    if cart is None:
        return
    if cart.empty is not None:
        yield (Bound("pieces in the cart", "the cart is empty", high=1) if cart.empty
               else Bound("pieces in the cart", "something is in the cart", low=1))
    if cart.items_at_least is not None:
        least = cart.items_at_least
        said = f"at least {least} {'is' if least == 1 else 'are'} in the cart"
        yield Bound("pieces in the cart", said, low=least)
    elif any(getattr(cart, field) is not None for field in (
            "value_at_least", "value_below", "contains_category", "contains_product", "older_than", "untouched_for")):
        yield Bound("pieces in the cart", "something is in the cart", low=1)
    if cart.value_at_least is not None:
        yield Bound("cart value", f"the cart is worth at least {cart.value_at_least:g}", low=cart.value_at_least)
    if cart.value_below is not None:
        yield Bound("cart value", f"the cart is worth less than {cart.value_below:g}", high=cart.value_below)


def _orders(condition: Condition) -> Iterator[Bound]:
    orders = condition.orders
    if orders is None:
        return
    if orders.count_at_least is not None:
        yield Bound("orders", f"they have at least {some(orders.count_at_least, 'order')}", low=orders.count_at_least)
    if orders.count_is is not None:
        exactly = orders.count_is
        yield Bound("orders", f"they have exactly {some(exactly, 'order')}", exactly, exactly + 1)
    if any(getattr(orders, field) is not None for field in (
            "contains_product", "contains_category", "last_within", "last_before")) or (orders.value_at_least or 0) > 0:
        yield Bound("orders", "they have ordered", low=1)
    if orders.value_at_least is not None:
        yield Bound("order value", f"their orders are worth at least {orders.value_at_least:g}",
                    low=orders.value_at_least)
    if orders.value_below is not None:
        yield Bound("order value", f"they are worth less than {orders.value_below:g}", high=orders.value_below)
    if (within := _ms(orders.last_within)) is not None:
        yield Bound("age of the last order", f"the last order is less than {_say(orders.last_within or '')} ago",
                    high=within)
    if (before := _ms(orders.last_before)) is not None:
        yield Bound("age of the last order", f"the last order is at least {_say(orders.last_before or '')} ago",
                    low=before)


def _not(condition: Condition) -> Iterator[Bound]:
    """The opposite of a condition that is a single plain statement."""
    names = several(condition.in_segment)
    if condition == Condition(in_segment=condition.in_segment) and names:
        for name in names:
            yield Bound(f"segment {name}", f'they are not in "{name}"', high=1)
    dids = _list(condition.did)
    if len(dids) == 1 and condition == Condition(did=condition.did):
        [did] = dids
        if did == Did(did.event, where=did.where, at_least=did.at_least, within=did.within):
            yield Bound(_key(did), f'"{did.event}" was not done{_often(did)}', high=did.at_least, did=did)
    if condition.cart is not None and condition == Condition(cart=type(condition.cart)(empty=condition.cart.empty)):
        yield (Bound("pieces in the cart", "something is in the cart", low=1) if condition.cart.empty
               else Bound("pieces in the cart", "the cart is empty", high=1))
    if condition.orders is not None and condition == Condition(
            orders=type(condition.orders)(count_at_least=condition.orders.count_at_least)):
        least = condition.orders.count_at_least or 0
        yield Bound("orders", f"they have fewer than {some(least, 'order')}", high=least)
