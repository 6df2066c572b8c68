"""Conditions that can never be true, including conditions of the segments that they refer to.

Two tests are made: bounds that contradict each other, and a `not` that excludes everything that the rest requires. A
condition that is reported is never true; not every contradiction is found.

>>> from domain.playbook.condition import Condition, Has, InCart
>>> both = Condition(all=(Condition(cart=InCart(empty=True)), Condition(cart=InCart(value_at_least=5))))
>>> why_unsatisfiable(both, {}, ())
'something is in the cart, and the cart is empty'
>>> is_excluded_by_negation(Condition(has=Has(country="CA"), not_=Condition(has=Has(country=("CA", "US")))), {})
True
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from domain.duration import format_duration, parse_duration, pluralize
from domain.playbook.condition import SCORE_BANDS, Condition, Did, HoldsCoupon, WasShown
from domain.playbook.segment import Segment
from domain.playbook.shop import RFM_CELLS_BY_GROUP
from domain.validation.names import as_tuple, is_rfm_cell

MAX_DEPTH = 20
INDEPENDENT_FIELDS = ("has", "session", "cart", "orders", "rfm", "funnel", "score")
"""Predicates whose fields are independent: they may be in different conditions."""

INDIVISIBLE_FIELDS = ("did", "did_not", "sequence", "holds_coupon", "was_shown")
"""Predicates whose fields belong together."""

LOWER_BOUND_SUFFIXES = ("at_least",)
UPPER_BOUND_SUFFIXES = ("below", "at_most")
"""Suffixes of numeric fields: a higher (or lower) number is stricter."""


def is_excluded_by_negation(condition: Condition, segments: Mapping[str, Segment]) -> bool:
    """Return whether a required `not` excludes what the other required conditions imply."""
    asked = list(_required(condition, segments, 0))
    return any(one.not_ is not None and _all_imply(asked, one.not_) for one in asked)


def _required(condition: Condition, segments: Mapping[str, Segment], depth: int) -> Iterator[Condition]:
    if depth > MAX_DEPTH:
        return
    yield condition
    inside = [*condition.all, *(condition.any if len(condition.any) == 1 else ())]
    names = as_tuple(condition.in_segment)
    if len(names) == 1 and names[0] in segments and not segments[names[0]].static:
        inside.append(segments[names[0]].when)
    for one in inside:
        yield from _required(one, segments, depth + 1)


def _all_imply(required: list[Condition], target: Condition) -> bool:
    """Return whether the required conditions together imply the target."""
    if target.not_ is not None or target == Condition():
        return False
    if target.any and not any(_all_imply(required, one) for one in target.any):
        return False
    if target.in_segment is not None and not any(
        one.in_segment is not None and _value_implies("in_segment", one.in_segment, target.in_segment)
        for one in required
    ):
        return False
    return (
        all(_all_imply(required, one) for one in target.all)
        and all(_imply_fields(required, name, getattr(target, name)) for name in INDEPENDENT_FIELDS)
        and all(
            _imply_statement([mine for one in required for mine in _as_tuple(getattr(one, name))], other)
            for name in INDIVISIBLE_FIELDS
            for other in _as_tuple(getattr(target, name))
        )
    )


def _imply_fields(required: list[Condition], name: str, target: msgspec.Struct | None) -> bool:
    """Return whether each field of the target is implied by some required condition."""
    mine = [getattr(one, name) for one in required if getattr(one, name) is not None]
    return target is None or all(
        any(getattr(one, field) is not None and _value_implies(field, getattr(one, field), value) for one in mine)
        for field, value in _set_fields(target)
    )


def _imply_statement(statements: list[msgspec.Struct], target: msgspec.Struct) -> bool:
    """Return whether a predicate implies the target."""
    return any(
        one == target
        or (
            isinstance(one, HoldsCoupon | WasShown)
            and all(_value_implies(field, getattr(one, field), value) for field, value in _set_fields(target))
        )
        for one in statements
    )


def _set_fields(statement: msgspec.Struct) -> list[tuple[str, Any]]:
    return [
        (one.name, value)
        for one in msgspec.structs.fields(type(statement))
        if (value := getattr(statement, one.name)) not in (None, {}, ())
    ]


def _value_implies(field: str, value: Any, target: Any) -> bool:
    """Return whether a value of a field implies the target value."""
    if value == target:
        return True
    if isinstance(value, (str, tuple)) and isinstance(target, tuple):  # a list means any of its values
        return set(as_tuple(value)) <= set(target)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isinstance(target, (int, float)):
        return False
    return (
        value >= target
        if field.endswith(LOWER_BOUND_SUFFIXES)
        else value <= target
        if field.endswith(UPPER_BOUND_SUFFIXES)
        else False
    )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)


SESSION_TIMEOUT = 30 * 60_000
"""A session ends this many ms after its last event (`state/profile/session.py`)."""
MAX_ALTERNATIVES = 64


class Interval(NamedTuple):
    """A bound of one subject: low <= value < high, or one of `values`; `description` is the text for errors."""

    subject: str
    description: str
    low: float = float("-inf")
    high: float = float("inf")
    values: frozenset[Any] | None = None
    did: Did | None = None
    """The event that was done (with `low`) or not done (with `high`), to compare different periods."""


def why_unsatisfiable(condition: Condition, segments: Mapping[str, Segment], stages: tuple[str, ...]) -> str:
    """Why a condition can never be true, in words; empty when nothing speaks against it."""
    return _find_conflict(
        list(_intervals(condition, segments, stages, 0)), _alternatives(condition), segments, stages, 0
    ) or ("`not` excludes everything that the rest requires" if is_excluded_by_negation(condition, segments) else "")


def _find_conflict(
    intervals: list[Interval],
    alternatives: list[tuple[Condition, ...]],
    segments: Mapping[str, Segment],
    stages: tuple[str, ...],
    depth: int,
) -> str:
    if clash := _conflict(intervals):
        return clash
    if depth > 3:
        return ""
    for choices in alternatives[:4]:
        reasons = []
        for way in choices[:MAX_ALTERNATIVES]:
            more = list(_intervals(way, segments, stages, 0))
            clash = _find_conflict([*intervals, *more], _alternatives(way), segments, stages, depth + 1)
            if not clash:
                break
            reasons.append(clash)
        else:
            return reasons[0] if len(set(reasons)) == 1 else "no alternative in `any` is possible: " + reasons[0]
    return ""


def _conflict(intervals: list[Interval]) -> str:
    by: dict[str, list[Interval]] = {}
    for bound in intervals:
        by.setdefault(bound.subject, []).append(bound)
    for those in by.values():
        low, high = max(those, key=lambda one: one.low), min(those, key=lambda one: one.high)
        if low.low >= high.high:
            return f"{low.description}, and {high.description}"
        for n, one in enumerate(those):
            for other in those[:n]:
                if one.values is not None and other.values is not None and one.values.isdisjoint(other.values):
                    return f"{other.description}, and {one.description}"
    return _event_conflict([bound for bound in intervals if bound.did is not None])


def _event_conflict(intervals: list[Interval]) -> str:
    """Return the conflict between an event within a period and no event within a longer one."""
    for done in intervals:
        for other in intervals:
            one, no = done.did, other.did
            if one is None or no is None or done.low == float("-inf") or done.low < other.high or one.event != no.event:
                continue
            inside = no.within is None or (one.within is not None and _ms_or_nan(one.within) <= _ms_or_nan(no.within))
            if inside and (one.after, one.before) == (no.after, no.before) and no.where.items() <= one.where.items():
                return f"{done.description}, and {other.description}"
    return ""


def _alternatives(condition: Condition) -> list[tuple[Condition, ...]]:
    found = [condition.any] if condition.any else []
    for child in condition.all:
        found += _alternatives(child)
    return found


def _intervals(
    condition: Condition, segments: Mapping[str, Segment], stages: tuple[str, ...], depth: int
) -> Iterator[Interval]:
    """Yield bounds that are necessary for the condition (an incomplete set).

    `segments` includes the funnel stages as funnel_NAME.
    """
    if depth > MAX_DEPTH:
        return
    for child in condition.all:
        yield from _intervals(child, segments, stages, depth + 1)
    if len(condition.any) == 1:
        yield from _intervals(condition.any[0], segments, stages, depth + 1)
    for did in _as_tuple(condition.did):
        yield from _event_intervals(did)
    for did in _as_tuple(condition.did_not):
        if did.last_before is None and did.first_within is None and did.sum is None:
            yield Interval(_event_key(did), f'"{did.event}" was not done{_frequency(did)}', high=did.at_least, did=did)
    if condition.sequence is not None:
        steps = [Did(step) if isinstance(step, str) else step for step in condition.sequence.steps]
        for step in steps[:-1]:
            yield from _event_intervals(step)
        yield from _event_intervals(msgspec.structs.replace(steps[-1], within=condition.sequence.last_within))
    yield from _profile_intervals(condition)
    yield from _cart_intervals(condition)
    yield from _order_intervals(condition)
    if condition.not_ is not None:
        yield from _negated_intervals(condition.not_)
    names = as_tuple(condition.in_segment)
    if len(names) == 1:
        [name] = names
        yield Interval(f"segment {name}", f'they are in "{name}"', low=1)
        if name in SCORE_BANDS:
            yield Interval("band", f"they are {name}", values=frozenset(names))
        elif name.startswith("funnel_"):
            yield Interval("stage", f"they are at the stage {name[7:]}", values=frozenset((name[7:],)))
        elif name.removeprefix("rfm_") in RFM_CELLS_BY_GROUP:
            yield from _rfm_group_intervals((name.removeprefix("rfm_"),))
        elif is_rfm_cell(name):
            yield from _rfm_cell_intervals((name[4:],), f"they are in the cell {name[4:]}")
        if name in segments and not segments[name].static:
            for bound in _intervals(segments[name].when, segments, stages, depth + 1):
                yield bound._replace(description=f'{bound.description} (in "{name}")')
    if condition.funnel is not None:
        wanted = as_tuple(condition.funnel.stage)
        if wanted:
            yield Interval("stage", f"they are at the stage {' or '.join(wanted)}", values=frozenset(wanted))
        if len(wanted) == 1 and (stage := segments.get(f"funnel_{wanted[0]}")) is not None:
            for bound in _intervals(stage.when, segments, stages, depth + 1):
                yield bound._replace(description=f"{bound.description} (at the stage {wanted[0]})")
        if condition.funnel.at_least in stages:
            later = stages[stages.index(condition.funnel.at_least) :]
            yield Interval("stage", f"they are at {condition.funnel.at_least} or further", values=frozenset(later))


def _event_key(did: Did) -> str:
    extra = (did.where, did.within, did.after, did.before)
    return f"did {did.event} {msgspec.json.encode(extra).decode()}"


def _frequency(did: Did) -> str:
    often = f" {did.at_least} times" if did.at_least > 1 else ""
    return often + (f" in the last {_format_duration(did.within)}" if did.within else "")


def _format_duration(text: str) -> str:
    try:
        return format_duration(parse_duration(text))
    except ValueError:
        return text


def _parse_ms(text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError:
        return None


def _ms_or_nan(text: str) -> float:
    found = _parse_ms(text)
    return float("nan") if found is None else found


def _event_intervals(did: Did) -> Iterator[Interval]:
    yield Interval(_event_key(did), f'"{did.event}" was done{_frequency(did)}', low=did.at_least, did=did)
    age = f"age of {did.event} {msgspec.json.encode((did.where, did.before)).decode()}"
    if (newly := _parse_ms(did.first_within)) is not None:
        yield Interval(
            age, f'the first "{did.event}" is less than {_format_duration(did.first_within or "")} ago', high=newly
        )
    if (within := _parse_ms(did.within)) is not None:
        yield Interval(
            age, f'the last "{did.event}" is less than {_format_duration(did.within or "")} ago', high=within
        )
    if (before := _parse_ms(did.last_before)) is not None:
        yield Interval(
            age, f'the last "{did.event}" is at least {_format_duration(did.last_before or "")} ago', low=before
        )
    if did.sum is not None and did.sum.at_least is not None and did.sum.below is not None:
        about = f"sum {did.sum.of} {_event_key(did)}"
        yield Interval(about, f"the sum of {did.sum.of} is at least {did.sum.at_least:g}", low=did.sum.at_least)
        yield Interval(about, f"it is below {did.sum.below:g}", high=did.sum.below)


def _profile_intervals(condition: Condition) -> Iterator[Interval]:
    if (has := condition.has) is not None:
        for field in ("country", "device"):
            if names := as_tuple(getattr(has, field)):
                yield Interval(field, f"the {field} is {' or '.join(names)}", values=frozenset(names))
        if has.sessions_at_least is not None:
            yield Interval(
                "sessions",
                f"they have had at least {pluralize(has.sessions_at_least, 'session')}",
                low=has.sessions_at_least,
            )
        if (newly := _parse_ms(has.first_seen_within)) is not None:
            yield Interval(
                "last seen",
                f"they were first seen less than {_format_duration(has.first_seen_within or '')} ago",
                high=newly,
            )
        if (before := _parse_ms(has.last_seen_before)) is not None:
            yield Interval(
                "last seen",
                f"they were last seen at least {_format_duration(has.last_seen_before or '')} ago",
                low=before,
            )
        if has.identified is not None:
            yield Interval(
                "identified",
                "they are identified" if has.identified else "they are anonymous",
                values=frozenset((has.identified,)),
            )
    if (session := condition.session) is not None:
        yield Interval("last seen", "a session is open", high=SESSION_TIMEOUT)
        if session.first_session:
            yield Interval("sessions", "it is the first session", high=2)
        if session.first_session is not None:
            yield Interval(
                "first session",
                "it is the first session" if session.first_session else "it is not the first session",
                values=frozenset((session.first_session,)),
            )
        if session.ordered is not None:
            yield Interval(
                "ordered",
                f"they {'ordered' if session.ordered else 'did not order'} in this session",
                values=frozenset((session.ordered,)),
            )
        for field in ("source", "medium", "campaign"):
            if names := as_tuple(getattr(session, field)):
                yield Interval(
                    f"session {field}", f"the {field} of this session is {' or '.join(names)}", values=frozenset(names)
                )
    if (score := condition.score) is not None:
        yield Interval("score", f"the score is at least {score.at_least or 0:g}", low=score.at_least or 0)
        if score.below is not None:
            yield Interval("score", f"the score is below {score.below:g}", high=score.below)
        if score.band is not None:
            yield Interval("band", f"they are {score.band}", values=frozenset((score.band,)))
    if (rfm := condition.rfm) is not None:
        yield Interval("orders", "they have ordered", low=1)
        for field in ("recency", "frequency", "monetary"):
            least, most = getattr(rfm, f"{field}_at_least"), getattr(rfm, f"{field}_at_most")
            if least is not None:
                yield Interval(f"rfm {field}", f"{field} is at least {least}", low=least)
            if most is not None:
                yield Interval(f"rfm {field}", f"{field} is at most {most}", high=most + 1)
        if groups := as_tuple(rfm.group):
            yield from _rfm_group_intervals(groups)


def _rfm_group_intervals(groups: tuple[str, ...]) -> Iterator[Interval]:
    """What groups of RFM cells say of recency, frequency and money."""
    yield from _rfm_cell_intervals(
        tuple(cell for group in groups for cell in RFM_CELLS_BY_GROUP[group]), f"they are {' or '.join(groups)}"
    )


def _rfm_cell_intervals(cells: tuple[str, ...], description: str) -> Iterator[Interval]:
    yield Interval("rfm cell", description, values=frozenset(cells))
    yield Interval("orders", "they have ordered", low=1)
    for n, field in enumerate(("recency", "frequency", "monetary")):
        digits = [int(cell[n]) for cell in cells]
        least, most = min(digits), max(digits)
        yield Interval(f"rfm {field}", f"{description} ({_digit_range(field, least, most)})", low=least, high=most + 1)


def _digit_range(field: str, low: int, high: int) -> str:
    return f"{field} {low}" if low == high else f"{field} {low} to {high}"


def _cart_intervals(condition: Condition) -> Iterator[Interval]:
    cart = condition.cart
    if cart is None:
        return
    if cart.empty is not None:
        yield (
            Interval("items in the cart", "the cart is empty", high=1)
            if cart.empty
            else Interval("items in the cart", "something is in the cart", low=1)
        )
    if cart.items_at_least is not None:
        least = cart.items_at_least
        description = f"at least {least} {'is' if least == 1 else 'are'} in the cart"
        yield Interval("items in the cart", description, low=least)
    elif any(
        getattr(cart, field) is not None
        for field in (
            "value_at_least",
            "value_below",
            "contains_category",
            "contains_product",
            "older_than",
            "untouched_for",
        )
    ):
        yield Interval("items in the cart", "something is in the cart", low=1)
    if cart.value_at_least is not None:
        yield Interval("cart value", f"the cart is worth at least {cart.value_at_least:g}", low=cart.value_at_least)
    if cart.value_below is not None:
        yield Interval("cart value", f"the cart is worth less than {cart.value_below:g}", high=cart.value_below)


def _order_intervals(condition: Condition) -> Iterator[Interval]:
    orders = condition.orders
    if orders is None:
        return
    if orders.count_at_least is not None:
        yield Interval(
            "orders", f"they have at least {pluralize(orders.count_at_least, 'order')}", low=orders.count_at_least
        )
    if orders.count_is is not None:
        exactly = orders.count_is
        yield Interval("orders", f"they have exactly {pluralize(exactly, 'order')}", exactly, exactly + 1)
    if (
        any(
            getattr(orders, field) is not None
            for field in ("contains_product", "contains_category", "last_within", "last_before")
        )
        or (orders.value_at_least or 0) > 0
    ):
        yield Interval("orders", "they have ordered", low=1)
    if orders.value_at_least is not None:
        yield Interval(
            "order value", f"their orders are worth at least {orders.value_at_least:g}", low=orders.value_at_least
        )
    if orders.value_below is not None:
        yield Interval("order value", f"they are worth less than {orders.value_below:g}", high=orders.value_below)
    if (within := _parse_ms(orders.last_within)) is not None:
        yield Interval(
            "age of the last order",
            f"the last order is less than {_format_duration(orders.last_within or '')} ago",
            high=within,
        )
    if (before := _parse_ms(orders.last_before)) is not None:
        yield Interval(
            "age of the last order",
            f"the last order is at least {_format_duration(orders.last_before or '')} ago",
            low=before,
        )


def _negated_intervals(condition: Condition) -> Iterator[Interval]:
    """The opposite of a condition that is a single plain statement."""
    names = as_tuple(condition.in_segment)
    if condition == Condition(in_segment=condition.in_segment) and names:
        for name in names:
            yield Interval(f"segment {name}", f'they are not in "{name}"', high=1)
    dids = _as_tuple(condition.did)
    if len(dids) == 1 and condition == Condition(did=condition.did):
        [did] = dids
        if did == Did(did.event, where=did.where, at_least=did.at_least, within=did.within):
            yield Interval(_event_key(did), f'"{did.event}" was not done{_frequency(did)}', high=did.at_least, did=did)
    if condition.cart is not None and condition == Condition(cart=type(condition.cart)(empty=condition.cart.empty)):
        yield (
            Interval("items in the cart", "something is in the cart", low=1)
            if condition.cart.empty
            else Interval("items in the cart", "the cart is empty", high=1)
        )
    if condition.orders is not None and condition == Condition(
        orders=type(condition.orders)(count_at_least=condition.orders.count_at_least)
    ):
        least = condition.orders.count_at_least or 0
        yield Interval("orders", f"they have fewer than {pluralize(least, 'order')}", high=least)
