"""Conditions read naively: what the words say, asked from scratch of everything that ever happened to somebody.

Nothing here counts, indexes or remembers: each question goes through the whole past again.
"""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from state.person.addresses import hash_address
from state.person.model import Cart, Person, ProfileFragment, Session
from state.profile.profile import merged_profile

T0 = 1_700_000_000_000
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
STAGES = ("looking", "buying")
SERVER_EVENTS = ("Identified", "Consent Updated", "Offer Shown", "Signed Out", "Order Cancelled", "Order Refunded")
"""What somebody else tells about a person: they were not here for it."""

GROUPS = {  # by recency, then by what they are worth (1 to 5)
    5: ("promising", "promising", "promising", "champions", "champions"),
    4: ("promising", "promising", "promising", "champions", "champions"),
    3: ("hibernating", "needs_attention", "needs_attention", "loyal", "loyal"),
    2: ("hibernating", "hibernating", "at_risk", "at_risk", "at_risk"),
    1: ("lost", "lost", "lost", "at_risk", "at_risk"),
}


class PastEvent(NamedTuple):
    """Something they did: its event time in ms, and under which of their ids."""

    name: str
    properties: dict[str, Any]
    at: int
    id_owner: str = "mine"


Past = list[PastEvent]


def is_true(condition: dict[str, Any], p: Person, now: int, past: Past) -> bool:
    """What the words say, read one after the other."""
    f, s, cart = merged_profile(p), p.session, p.cart
    answers: list[bool] = []
    for word, what in condition.items():
        if word == "all":
            answers.append(all(is_true(one, p, now, past) for one in what))
        elif word == "any":
            answers.append(any(is_true(one, p, now, past) for one in what))
        elif word == "not":
            answers.append(not is_true(what, p, now, past))
        elif word in ("did", "did_not"):
            answers += [did_matches(one, past, now) is (word == "did") for one in as_list(what)]
        elif word == "sequence":
            answers.append(sequence_matches(what, past, now))
        elif word == "has":
            answers += [person_matches(field, value, p, f, past, now) for field, value in what.items()]
        elif word == "session":
            answers += [s is not None and session_matches(field, value, s, now) for field, value in what.items()]
        elif word == "cart":
            answers += [cart_matches(field, value, cart, now) for field, value in what.items()]
        elif word == "orders":
            answers += [orders_match(field, value, f, now) for field, value in what.items()]
        elif word == "rfm":
            answers += [rfm_matches(field, value, p.rfm) for field, value in what.items()]
        elif word == "funnel":
            answers += [
                any(
                    "funnel_" + one in p.segments
                    for one in (as_list(value) if field == "stage" else STAGES[STAGES.index(value) :])
                )
                for field, value in what.items()
            ]
        elif word == "score":
            answers += [
                p.band == value
                if field == "band"
                else p.score is not None and (p.score >= value if field == "at_least" else p.score < value)
                for field, value in what.items()
            ]
        elif word == "holds_coupon":
            answers.append(
                any(
                    one.pool in as_list(what["pool"])
                    and one.state == "reserved"
                    and one.until > now
                    and ("expires_within" not in what or one.until - now <= to_ms(what["expires_within"]))
                    for one in p.coupons
                )
            )
        elif word == "was_shown":
            answers.append(any(was_shown_matches(what, name, p, now) for name in as_list(what["campaign"])))
        else:
            assert word == "in_segment"
            answers.append(any(name in p.segments or p.band == name for name in as_list(what)))
    return all(answers)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def to_ms(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


# -- what they did -------------------------------------------------------------------------------------------------


def did_matches(one: dict[str, Any], past: Past, now: int) -> bool:
    mine = sorted(
        (h for h in past if h.name == one["event"] and where_matches(h.properties, one.get("where", {}))),
        key=lambda h: h.at,
    )
    for word in ("after", "before"):
        if word in one:
            last = max((h.at for h in past if h.name == one[word]), default=None)
            mine = [h for h in mine if last is not None and (h.at > last if word == "after" else h.at < last)]
    lately = [h for h in mine if "within" not in one or now - h.at < to_ms(one["within"])]
    if len(lately) < one.get("at_least", 1):
        return False
    if "sum" in one:
        total = sum((to_decimal(h.properties.get(one["sum"]["of"])) for h in lately), Decimal(0))
        if "at_least" in one["sum"] and total < Decimal(str(one["sum"]["at_least"])):
            return False
        if "below" in one["sum"] and total >= Decimal(str(one["sum"]["below"])):
            return False
    if "last_before" in one and now - mine[-1].at < to_ms(one["last_before"]):
        return False
    return "first_within" not in one or now - mine[0].at < to_ms(one["first_within"])


def sequence_matches(one: dict[str, Any], past: Past, now: int) -> bool:
    steps = [step if isinstance(step, dict) else {"event": step} for step in one["steps"]]
    rows = [
        [h.at for h in past if h.name == step["event"] and where_matches(h.properties, step.get("where", {}))]
        for step in steps
    ]
    return any(
        ("within" not in one or last - first < to_ms(one["within"]))
        and ("last_within" not in one or now - last < to_ms(one["last_within"]))
        for first in rows[0]
        for last in sequence_ends(first, rows[1:])
    )


def sequence_ends(at: int, rows: list[list[int]]) -> set[int]:
    """Where going on from `at` through these rows, always later, can end."""
    if not rows:
        return {at}
    return {end for later in rows[0] if later > at for end in sequence_ends(later, rows[1:])}


def to_decimal(value: Any) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)


def where_matches(properties: dict[str, Any], where: dict[str, Any]) -> bool:
    return all(value_matches(properties.get(name), wanted) for name, wanted in where.items())


def value_matches(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return value is not None and any(equal_values(value, one) for one in as_list(wanted))
    number = None if isinstance(value, bool) or value is None or value in ("", "many") else value
    answers: dict[str, Callable[[Any], bool]] = {
        "exists": lambda w: (value not in (None, "")) is w,
        "is_not": lambda w: value is None or not any(equal_values(value, one) for one in as_list(w)),
        "at_least": lambda w: number is not None and is_number(number) and float(number) >= w,
        "below": lambda w: number is not None and is_number(number) and float(number) < w,
        "contains": lambda w: isinstance(value, str) and any(one.lower() in value.lower() for one in as_list(w)),
        "starts_with": lambda w: isinstance(value, str) and any(value.startswith(one) for one in as_list(w)),
    }
    return all(answers[word](w) for word, w in wanted.items())


def is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def equal_values(have: Any, wanted: Any) -> bool:
    return isinstance(have, bool) == isinstance(wanted, bool) and bool(have == wanted)


# -- what is known -------------------------------------------------------------------------------------------------


def person_matches(field: str, value: Any, p: Person, f: ProfileFragment, past: Past, now: int) -> bool:
    s = p.session
    if field == "country":
        return ((s.country if s else "") or f.country) in as_list(value)
    if field == "device":
        return ((s.device if s else "") or f.device) in as_list(value)
    if field == "language":
        locale = f.locale.lower().replace("_", "-")
        return any(locale == one.lower() or locale.split("-")[0] == one.lower() for one in as_list(value))
    if field in ("source", "medium", "campaign"):
        return f.last_source is not None and getattr(f.last_source, field) in as_list(value)
    if field == "first_source":
        return f.first_source is not None and f.first_source.source in as_list(value)
    if field == "consent":
        return any(bool(f.consent[one].value) if one in f.consent else one == "marketing" for one in as_list(value))
    if field == "address":
        return any(has_address(kind, p, f) for kind in as_list(value))
    if field == "sessions_at_least":
        return bool(f.sessions >= value)
    if field == "identified":
        return p.id.startswith("u:") is value
    if field == "first_seen_within":
        return bool(past) and now - min(h.at for h in past) < to_ms(value)
    if field == "last_seen_before":
        here = [h.at for h in past if h.name not in SERVER_EVENTS]
        return bool(here) and now - max(here) >= to_ms(value)
    assert field == "trait"
    return all(
        value_matches(f.traits[name].value if name in f.traits else None, wanted) for name, wanted in value.items()
    )


def has_address(kind: str, p: Person, f: ProfileFragment) -> bool:
    name = "push_token" if kind == "push" else kind
    value = str(f.traits[name].value) if name in f.traits else ""
    looks = {"email": "@" in value, "phone": value.startswith("+39"), "push": len(value) >= 16}[kind]
    channel = {"email": "email", "phone": "sms", "push": "push"}[kind]
    return looks and f"{channel}:{hash_address(value)}" not in p.suppressed_addresses


def rfm_matches(field: str, value: Any, cell: str) -> bool:
    if not cell:
        return False
    r, f, m = (int(digit) for digit in cell)
    if field == "group":
        group = GROUPS[r][-((-f - m) // 2) - 1]
        if r >= 4:
            group = "new_customers" if f == 1 else "loyal" if group == "promising" and f > 2 else group
        return group in as_list(value)
    name, _, bound = field.partition("_at_")
    digit = {"recency": r, "frequency": f, "monetary": m}[name]
    return bool(digit >= value if bound == "least" else digit <= value)


def was_shown_matches(what: dict[str, Any], name: str, p: Person, now: int) -> bool:
    said = p.exposures.get(name)
    if said is None:
        return False
    often = said.total
    if "within" in what:
        often = len([at for at in said.times if now - at < to_ms(what["within"])])
    return bool(often >= what.get("at_least", 1))


def session_matches(field: str, value: Any, s: Session, now: int) -> bool:
    if field == "seconds_at_least":
        return now - s.started_at >= int(value) * 1000
    if field in ("first_session", "ordered"):
        return getattr(s, field) is value
    if field.endswith("_contains"):
        return any(one in getattr(s, field.removesuffix("_contains")) for one in as_list(value))
    if field in ("source", "medium", "campaign"):
        return getattr(s, field) in as_list(value)
    return bool(getattr(s, field.removesuffix("_at_least")) >= value)


def cart_matches(field: str, value: Any, cart: Cart | None, now: int) -> bool:
    lines = cart.items if cart else {}
    if field == "empty":
        return (not lines) is value
    if not lines or cart is None:
        return False
    worth = sum(line.quantity * line.price for line in lines.values())
    answers: dict[str, Callable[[], bool]] = {
        "items_at_least": lambda: sum(line.quantity for line in lines.values()) >= value,
        "value_at_least": lambda: worth >= round(value * 100),
        "value_below": lambda: worth < round(value * 100),
        "contains_category": lambda: any(line.category in as_list(value) for line in lines.values()),
        "contains_product": lambda: any(one in lines for one in as_list(value)),
        "older_than": lambda: now - cart.created_at >= to_ms(value),
        "untouched_for": lambda: now - cart.updated_at >= to_ms(value),
    }
    return answers[field]()


def orders_match(field: str, value: Any, f: ProfileFragment, now: int) -> bool:
    good = [order for order in f.orders if not order.cancelled]
    answers: dict[str, Callable[[], bool]] = {
        "count_at_least": lambda: f.order_count >= value,
        "count_is": lambda: f.order_count == value,
        "value_at_least": lambda: f.revenue >= value * 100,
        "value_below": lambda: f.revenue < value * 100,
        "last_within": lambda: f.last_order_at > 0 and now - f.last_order_at < to_ms(value),
        "last_before": lambda: f.last_order_at > 0 and now - f.last_order_at >= to_ms(value),
        "contains_product": lambda: any(one in order.products for order in good for one in as_list(value)),
        "contains_category": lambda: any(one in order.categories for order in good for one in as_list(value)),
    }
    return answers[field]()
