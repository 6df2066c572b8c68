"""Conditions read naively: random people, random conditions, and what the words say about them."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from domain.shop import Consent, Shop
from state.person import Cart, CartItem, Count, Facts, Person, Session, Source, Trait

T0 = 1_700_000_000_000
SHOP = Shop(consent=Consent(default="denied", purposes={"marketing": "granted"}))
EVENTS = ("Product Viewed", "Order Completed")
UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000}

# -- people and conditions -----------------------------------------------------------------------------------------

moments = st.integers(0, 400).map(lambda n: T0 + n * 500)
durations = st.sampled_from(["1s", "30s", "1m", "90s"])

sessions = st.none() | st.builds(
    Session, id=st.just("s"), started_at=moments, last_at=moments, first_visit=st.booleans(), pages=st.integers(0, 4),
    products=st.integers(0, 3), searches=st.integers(0, 2), landing_page=st.sampled_from(["", "/sale/x", "/home"]),
    referrer=st.sampled_from(["", "https://a.example"]), source=st.sampled_from(["", "ads", "mail"]),
    device=st.sampled_from(["", "mobile"]), country=st.sampled_from(["", "CA"]))
items = st.builds(CartItem, quantity=st.integers(1, 3), price=st.integers(0, 3000), category=st.sampled_from(["", "a"]))
carts = st.none() | st.builds(
    Cart, items=st.dictionaries(st.sampled_from(["p", "q"]), items, max_size=2), created_at=moments, updated_at=moments)
traits = st.dictionaries(st.sampled_from(["plan", "vip"]), st.builds(
    Trait, at=moments, value=st.sampled_from(["gold", True, 1, 1.0, None])), max_size=2)
knowledge = st.builds(
    Facts, counts=st.dictionaries(st.sampled_from(EVENTS), st.builds(
        Count, n=st.integers(1, 4), first_at=moments, last_at=moments)),
    order_count=st.integers(0, 3), revenue=st.integers(0, 9000), last_order_at=st.just(0) | moments, traits=traits,
    country=st.sampled_from(["", "CA", "IT"]), device=st.sampled_from(["", "desktop"]),
    locale=st.sampled_from(["", "fr-CA", "fr", "en_US"]),
    last_source=st.none() | st.builds(Source, source=st.sampled_from(["ads", "mail"])),
    consent=st.dictionaries(st.sampled_from(["marketing", "profiling"]), st.builds(
        Trait, at=moments, value=st.booleans()), max_size=2))


@st.composite
def people(draw: st.DrawFn) -> Person:
    return Person(
        id="a:x", facets={"a:x": draw(knowledge)}, session=draw(sessions), cart=draw(carts),
        segments=dict.fromkeys(draw(st.sets(st.sampled_from(["one", "two"]))), T0),
        score=draw(st.none() | st.sampled_from([0.1, 0.5, 0.9])), band=draw(st.sampled_from(["", "undecided"])))


def some(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


def one_or_more(values: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=2)


dids = st.fixed_dictionaries({"event": st.sampled_from(EVENTS)}, optional={"within": durations}) | \
    st.fixed_dictionaries({"event": st.sampled_from(EVENTS), "at_least": st.integers(1, 4)})
leaves = some(
    did=dids | st.lists(dids, min_size=1, max_size=2), did_not=dids | st.lists(dids, min_size=1, max_size=2),
    has=some(country=one_or_more(["CA", "IT"]), device=one_or_more(["mobile", "desktop"]),
             language=one_or_more(["fr", "en-us", "fr-CA"]), source=one_or_more(["ads", "mail"]),
             consent=one_or_more(["marketing", "profiling"]),
             trait=st.fixed_dictionaries({}, optional={"plan": st.sampled_from(["gold", True]),
                                                       "vip": st.sampled_from([True, 1, [1.0, "gold"]])}).filter(bool)),
    session=some(pages_at_least=st.integers(1, 4), seconds_at_least=st.sampled_from([1, 30, 90]),
                 products_at_least=st.integers(1, 3), searches_at_least=st.integers(1, 2), first_visit=st.booleans(),
                 landing_page_contains=one_or_more(["sale", "home"]), referrer_contains=st.just("a.ex"),
                 source=one_or_more(["ads", "mail"])),
    cart=some(items_at_least=st.integers(1, 4), value_at_least=st.sampled_from([0, 10, 29.99]),
              value_below=st.sampled_from([10, 30]), empty=st.booleans(), contains_category=one_or_more(["a", "b"]),
              contains_product=one_or_more(["p", "z"]), older_than=durations, untouched_for=durations),
    orders=some(count_at_least=st.integers(1, 3), count_is=st.integers(0, 3), value_at_least=st.sampled_from([0, 50]),
                value_below=st.sampled_from([50, 90]), last_within=durations, last_before=durations),
    score=some(at_least=st.sampled_from([0.1, 0.5]), below=st.sampled_from([0.5, 0.95]),
               band=st.sampled_from(["undecided", "unlikely"])),
    in_segment=one_or_more(["one", "two", "undecided"]))


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> dict[str, Any]:
    kind = draw(st.sampled_from(["leaf", "leaf", "all", "any", "not"] if depth < 3 else ["leaf"]))
    if kind == "leaf":
        return draw(leaves)
    if kind == "not":
        return {"not": draw(trees(depth + 1))}
    return {kind: [draw(trees(depth + 1)) for _ in range(draw(st.integers(1, 3)))]}


conditions = trees()

# -- the naive reading ---------------------------------------------------------------------------------------------


def naive(c: dict[str, Any], p: Person, now: int) -> bool:
    """What the words say, read one after the other."""
    f, s, cart = p.own(), p.session, p.cart
    answers: list[bool] = []
    for word, what in c.items():
        if word == "all":
            answers.append(all(naive(one, p, now) for one in what))
        elif word == "any":
            answers.append(any(naive(one, p, now) for one in what))
        elif word == "not":
            answers.append(not naive(what, p, now))
        elif word in ("did", "did_not"):
            answers += [did(one, f, now) is (word == "did") for one in many(what)]
        elif word == "has":
            answers += [has(field, value, p) for field, value in what.items()]
        elif word == "session":
            answers += [s is not None and visit(field, value, s, now) for field, value in what.items()]
        elif word == "cart":
            answers += [in_cart(field, value, cart, now) for field, value in what.items()]
        elif word == "orders":
            answers += [orders(field, value, f, now) for field, value in what.items()]
        elif word == "score":
            answers += [p.band == value if field == "band" else p.score is not None and
                        (p.score >= value if field == "at_least" else p.score < value)
                        for field, value in what.items()]
        else:
            answers.append(any(name in p.segments or p.band == name for name in many(what)))
    return all(answers)


def many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def ms(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


def did(one: dict[str, Any], f: Facts, now: int) -> bool:
    count = f.counts.get(one["event"])
    if count is None:
        return False
    if "within" in one:
        return now - count.last_at < ms(one["within"])
    return count.n >= int(one.get("at_least", 1))


def has(field: str, value: Any, p: Person) -> bool:
    f, s = p.own(), p.session
    if field == "country":
        return ((s.country if s else "") or f.country) in many(value)
    if field == "device":
        return ((s.device if s else "") or f.device) in many(value)
    if field == "language":
        locale = f.locale.lower().replace("_", "-")
        return any(locale == one.lower() or locale.split("-")[0] == one.lower() for one in many(value))
    if field == "source":
        return f.last_source is not None and f.last_source.source in many(value)
    if field == "consent":
        return any(bool(f.consent[one].value) if one in f.consent else one == "marketing" for one in many(value))
    return all(name in f.traits and any(same(f.traits[name].value, one) for one in many(wanted))
               for name, wanted in value.items())


def same(have: Any, wanted: Any) -> bool:
    return isinstance(have, bool) == isinstance(wanted, bool) and bool(have == wanted)


def visit(field: str, value: Any, s: Session, now: int) -> bool:
    if field == "seconds_at_least":
        return now - s.started_at >= int(value) * 1000
    if field == "first_visit":
        return s.first_visit is value
    if field.endswith("_contains"):
        return any(one in getattr(s, field.removesuffix("_contains")) for one in many(value))
    if field == "source":
        return s.source in many(value)
    return bool(getattr(s, field.removesuffix("_at_least")) >= value)


def in_cart(field: str, value: Any, cart: Cart | None, now: int) -> bool:
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
        "contains_category": lambda: any(line.category in many(value) for line in lines.values()),
        "contains_product": lambda: any(one in lines for one in many(value)),
        "older_than": lambda: now - cart.created_at >= ms(value),
        "untouched_for": lambda: now - cart.updated_at >= ms(value),
    }
    return answers[field]()


def orders(field: str, value: Any, f: Facts, now: int) -> bool:
    answers: dict[str, Callable[[], bool]] = {
        "count_at_least": lambda: f.order_count >= value,
        "count_is": lambda: f.order_count == value,
        "value_at_least": lambda: f.revenue >= value * 100,
        "value_below": lambda: f.revenue < value * 100,
        "last_within": lambda: f.last_order_at > 0 and now - f.last_order_at < ms(value),
        "last_before": lambda: f.last_order_at > 0 and now - f.last_order_at >= ms(value),
    }
    return answers[field]()
