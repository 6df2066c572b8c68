"""Leaves: the single statements that conditions are made of, each a test with its words.

A leaf says what can change its answer (`needs`), when time alone will (`change`), and whether anything in the open
visit can (`fixed`). `state/conditions.py` joins leaves to trees.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from domain.condition import Did, Filter, Has, InCart, InSession, Orders, Score, Value
from domain.duration import parse, say
from domain.money import to_major, to_minor
from domain.shop import Shop
from state import properties
from state.person import Cart, Facts, Person
from state.properties import accepts

Test = Callable[[Person, Facts, int], bool]
Words = Callable[[Person, Facts, int], str]
Change = Callable[[Person, Facts, int], int | None]


class Leaf(NamedTuple):
    """One testable statement. `change` is there when time alone can turn it; `fixed` when nothing in a visit can."""

    test: Test
    words: Words
    needs: str
    change: Change | None = None
    fixed: bool = False


def granted(facts: Facts, purpose: str, shop: Shop) -> bool:
    """Whether the person agreed to this purpose, or the shop's default does where they have not answered."""
    answer = facts.consent.get(purpose)
    if answer is None or answer.value is None:
        return shop.consent.purposes.get(purpose, shop.consent.default) == "granted"
    return answer.value is True or answer.value == "granted"


def texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One text or several, as several."""
    return value if isinstance(value, tuple) else (value,)


def _or(names: Iterable[str]) -> str:
    return " or ".join(names)

def did(part: Did) -> Leaf:
    """They did this, ever or lately."""
    event, least, needs = part.event, part.at_least, "event:" + part.event
    if part.within is None:
        def often(p: Person, f: Facts, now: int) -> bool:
            count = f.counts.get(event)
            return count is not None and count.n >= least

        def words(p: Person, f: Facts, now: int) -> str:
            count = f.counts.get(event)
            times = f" at least {least} times" if least > 1 else ""
            return f'did "{event}"{times} (has {count.n if count else 0})'

        return Leaf(often, words, needs)
    if least > 1:
        raise ValueError("`within` counts only the last time: `at_least` above 1 beside it is not possible yet")
    window = parse(part.within)

    def lately(p: Person, f: Facts, now: int) -> bool:
        count = f.counts.get(event)
        return count is not None and now < count.last_at + window

    def over(p: Person, f: Facts, now: int) -> int | None:
        count = f.counts.get(event)
        return count.last_at + window if count is not None and now < count.last_at + window else None

    def ago(p: Person, f: Facts, now: int) -> str:
        count = f.counts.get(event)
        last = f"last {say(max(0, now - count.last_at))} ago" if count else "never"
        return f'did "{event}" in the last {say(window)} ({last})'

    return Leaf(lately, ago, needs, over)


def has(part: Has, shop: Shop) -> list[Leaf]:
    """What is known of the person."""
    found: list[Leaf] = []
    if part.country is not None:
        found.append(_among("country", frozenset(texts(part.country)), "is in"))
    if part.device is not None:
        found.append(_among("device", frozenset(texts(part.device)), "is using"))
    if part.language is not None:
        wanted = frozenset(text.lower().replace("_", "-") for text in texts(part.language))
        named = _or(texts(part.language))

        def reads(p: Person, f: Facts, now: int) -> bool:
            locale = f.locale.lower().replace("_", "-")
            return locale in wanted or locale.partition("-")[0] in wanted

        found.append(Leaf(reads, lambda p, f, now: f"reads {named} ({f.locale or 'not known'})", "about"))
    if part.source is not None:
        sources = frozenset(texts(part.source))
        origin = _or(texts(part.source))

        def came(p: Person, f: Facts, now: int) -> bool:
            return f.last_source is not None and f.last_source.source in sources

        def whence(p: Person, f: Facts, now: int) -> str:
            return f"came from {origin} ({f.last_source.source if f.last_source else 'not known'})"

        found.append(Leaf(came, whence, "about"))
    if part.consent is not None:
        purposes = texts(part.consent)

        def agreed(p: Person, f: Facts, now: int) -> bool:
            return any(granted(f, purpose, shop) for purpose in purposes)

        found.append(Leaf(agreed, lambda p, f, now: f"agreed to {_or(purposes)}", "person"))
    found += [_trait(name, value) for name, value in part.trait.items()]
    return found


def _among(field: str, wanted: frozenset[str], verb: str) -> Leaf:
    """Country or device: of the open visit, else the last one known."""
    read = attrgetter(field)
    named = _or(sorted(wanted))

    def value(p: Person, f: Facts) -> Any:
        session = p.session
        return (session is not None and read(session)) or read(f)

    def country(p: Person, f: Facts, now: int) -> bool:
        session = p.session
        return ((session is not None and session.country) or f.country) in wanted

    def device(p: Person, f: Facts, now: int) -> bool:
        session = p.session
        return ((session is not None and session.device) or f.device) in wanted

    return Leaf(country if field == "country" else device,
                lambda p, f, now: f"{verb} {named} ({value(p, f) or 'not known'})", "about")


def _trait(name: str, wanted: Value | tuple[Value, ...] | Filter) -> Leaf:
    accepted = accepts(wanted)
    said = properties.words({name: wanted})

    def test(p: Person, f: Facts, now: int) -> bool:
        trait = f.traits.get(name)
        return accepted(None if trait is None else trait.value)

    def words(p: Person, f: Facts, now: int) -> str:
        return f"{said} ({'as it is' if test(p, f, now) else 'not so' if name in f.traits else 'not known'})"

    return Leaf(test, words, "person")


def session(part: InSession) -> list[Leaf]:
    """The visit that is open."""
    found: list[Leaf] = []
    for noun, least in (("pages", part.pages_at_least), ("products", part.products_at_least),
                        ("searches", part.searches_at_least)):
        if least is not None:
            found.append(_at_least(noun, least))
    if part.seconds_at_least is not None:
        found.append(_seconds(part.seconds_at_least))
    if part.first_visit is not None:
        first = part.first_visit

        def visit(p: Person, f: Facts, now: int) -> bool:
            return p.session is not None and p.session.first_visit is first

        found.append(Leaf(visit, lambda p, f, now: "first visit" if first else "has been here before", "visit",
                          fixed=True))
    for field, wanted, verb in (("landing_page", part.landing_page_contains, "began on a page with"),
                                ("referrer", part.referrer_contains, "came from an address with")):
        if wanted is not None:
            found.append(_contains(field, texts(wanted), verb))
    if part.source is not None:
        sources = frozenset(texts(part.source))
        origin = _or(texts(part.source))

        def came(p: Person, f: Facts, now: int) -> bool:
            return p.session is not None and p.session.source in sources

        found.append(Leaf(came, lambda p, f, now: f"this visit came from {origin}", "visit", fixed=True))
    return found


def _at_least(noun: str, least: int) -> Leaf:
    read = attrgetter(noun)
    tests: dict[str, Test] = {
        "pages": lambda p, f, now: p.session is not None and p.session.pages >= least,
        "products": lambda p, f, now: p.session is not None and p.session.products >= least,
        "searches": lambda p, f, now: p.session is not None and p.session.searches >= least,
    }

    def words(p: Person, f: Facts, now: int) -> str:
        return f"at least {least} {noun} this visit (has {read(p.session) if p.session is not None else 0})"

    return Leaf(tests[noun], words, noun)


def _seconds(least: int) -> Leaf:
    span = least * 1000

    def test(p: Person, f: Facts, now: int) -> bool:
        session = p.session
        return session is not None and now >= session.started_at + span

    def change(p: Person, f: Facts, now: int) -> int | None:
        session = p.session
        return session.started_at + span if session is not None and now < session.started_at + span else None

    def words(p: Person, f: Facts, now: int) -> str:
        spent = max(0, now - p.session.started_at) // 1000 if p.session is not None else 0
        return f"at least {least} s on the site (has {spent})"

    return Leaf(test, words, "visit", change)


def _contains(field: str, wanted: tuple[str, ...], verb: str) -> Leaf:
    read = attrgetter(field)

    def test(p: Person, f: Facts, now: int) -> bool:
        return p.session is not None and any(text in read(p.session) for text in wanted)

    return Leaf(test, lambda p, f, now: f"{verb} {_or(wanted)}", "visit", fixed=True)


def cart(part: InCart, shop: Shop) -> list[Leaf]:
    """The cart as it stands."""
    found: list[Leaf] = []
    if part.empty is not None:
        empty = part.empty

        def is_empty(p: Person, f: Facts, now: int) -> bool:
            return (p.cart is None or not p.cart.items) is empty

        found.append(Leaf(
            is_empty, lambda p, f, now: "nothing in the cart" if empty else "something in the cart", "cart"))
    if part.items_at_least is not None:
        pieces = part.items_at_least
        found.append(Leaf(
            lambda p, f, now: _pieces(p.cart) >= pieces,
            lambda p, f, now: f"at least {pieces} in the cart (has {_pieces(p.cart)})",
            "cart"))
    for amount, least in ((part.value_at_least, True), (part.value_below, False)):
        if amount is not None:
            found.append(_worth(to_minor(amount, shop.currency), least, shop.currency))
    if part.contains_category is not None:
        categories = frozenset(texts(part.contains_category))
        found.append(Leaf(
            lambda p, f, now: p.cart is not None and any(i.category in categories for i in p.cart.items.values()),
            lambda p, f, now: f"something of {_or(sorted(categories))} in the cart", "cart"))
    if part.contains_product is not None:
        products = frozenset(texts(part.contains_product))
        found.append(Leaf(
            lambda p, f, now: p.cart is not None and not products.isdisjoint(p.cart.items),
            lambda p, f, now: f"product {_or(sorted(products))} in the cart", "cart"))
    for field, span, what in (("created_at", part.older_than, "cart begun"),
                              ("updated_at", part.untouched_for, "cart not touched since")):
        if span is not None:
            found.append(_aged(field, parse(span), what))
    return found


def _pieces(cart: Cart | None) -> int:
    return 0 if cart is None else sum([item.quantity for item in cart.items.values()])


def _worth(minor: int, least: bool, currency: str) -> Leaf:
    amount = f"{to_major(minor, currency)} {currency}"

    def test(p: Person, f: Facts, now: int) -> bool:
        cart = p.cart
        return cart is not None and bool(cart.items) and (cart.value >= minor) is least

    def words(p: Person, f: Facts, now: int) -> str:
        worth = f"{to_major(p.cart.value, currency)}" if p.cart is not None and p.cart.items else "empty"
        return f"cart worth {'at least' if least else 'less than'} {amount} (is {worth})"

    return Leaf(test, words, "cart")


def _aged(field: str, span: int, what: str) -> Leaf:
    read = attrgetter(field)

    def test(p: Person, f: Facts, now: int) -> bool:
        cart = p.cart
        return cart is not None and bool(cart.items) and now >= read(cart) + span

    def change(p: Person, f: Facts, now: int) -> int | None:
        cart = p.cart
        return read(cart) + span if cart is not None and cart.items and now < read(cart) + span else None

    def words(p: Person, f: Facts, now: int) -> str:
        age = say(max(0, now - read(p.cart))) + " ago" if p.cart is not None and p.cart.items else "empty"
        return f"{what} at least {say(span)} ago ({age})"

    return Leaf(test, words, "cart", change)


def orders(part: Orders, shop: Shop) -> list[Leaf]:
    """What they bought."""
    found: list[Leaf] = []
    if part.count_at_least is not None:
        least = part.count_at_least
        found.append(Leaf(lambda p, f, now: f.order_count >= least,
                          lambda p, f, now: f"at least {least} orders (has {f.order_count})", "orders"))
    if part.count_is is not None:
        exactly = part.count_is
        found.append(Leaf(lambda p, f, now: f.order_count == exactly,
                          lambda p, f, now: f"exactly {exactly} orders (has {f.order_count})", "orders"))
    for amount, at_least in ((part.value_at_least, True), (part.value_below, False)):
        if amount is not None:
            found.append(_spent(to_minor(amount, shop.currency), at_least, shop.currency))
    for text, recent in ((part.last_within, True), (part.last_before, False)):
        if text is not None:
            found.append(_last_order(parse(text), recent))
    return found


def _spent(minor: int, least: bool, currency: str) -> Leaf:
    def words(p: Person, f: Facts, now: int) -> str:
        word = "at least" if least else "less than"
        return f"orders worth {word} {to_major(minor, currency)} {currency} (is {to_major(f.revenue, currency)})"

    return Leaf(lambda p, f, now: (f.revenue >= minor) is least, words, "orders")


def _last_order(span: int, recent: bool) -> Leaf:
    def test(p: Person, f: Facts, now: int) -> bool:
        return f.last_order_at > 0 and (now < f.last_order_at + span) is recent

    def change(p: Person, f: Facts, now: int) -> int | None:
        return f.last_order_at + span if f.last_order_at > 0 and now < f.last_order_at + span else None

    def words(p: Person, f: Facts, now: int) -> str:
        ago = f"{say(max(0, now - f.last_order_at))} ago" if f.last_order_at else "never"
        return f"last order {'less than' if recent else 'at least'} {say(span)} ago ({ago})"

    return Leaf(test, words, "orders", change)


def score(part: Score) -> list[Leaf]:
    """How likely they are to buy."""
    found: list[Leaf] = []
    for share, least in ((part.at_least, True), (part.below, False)):
        if share is not None:
            found.append(_probability(share, least))
    if part.band is not None:
        found.append(band(part.band))
    return found


def _probability(share: float, least: bool) -> Leaf:
    def words(p: Person, f: Facts, now: int) -> str:
        is_now = "not known" if p.score is None else f"{p.score:.2f}"
        return f"{'at least' if least else 'less than'} {share:g} likely to buy ({is_now})"

    if least:
        return Leaf(lambda p, f, now: p.score is not None and p.score >= share, words, "score")
    return Leaf(lambda p, f, now: p.score is not None and p.score < share, words, "score")


def band(name: str) -> Leaf:
    """They are in this learned segment."""
    return Leaf(lambda p, f, now: p.band == name,
                lambda p, f, now: f"belongs to {name} ({p.band or 'not known'})", "score")


def member(name: str) -> Leaf:
    """They belong to this segment."""
    return Leaf(lambda p, f, now: name in p.segments, lambda p, f, now: f"belongs to {name}", "segment:" + name)
