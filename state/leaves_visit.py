"""What is open right now, as leaves: the visit and the cart."""

from operator import attrgetter

from domain.amounts import some
from domain.condition import InCart, InSession
from domain.duration import parse, roughly, say
from domain.money import to_major, to_minor
from domain.shop import Shop
from state.leaves import Leaf, Test, age, either, texts
from state.person import Cart, Facts, Person

_ONE = {"pages": "page", "products": "product", "searches": "search"}


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

        found.append(Leaf(visit, lambda p, f, now: "first visit" if first else "has been here before", "visit"))
    for field, wanted, verb in (("landing_page", part.landing_page_contains, "began on a page with"),
                                ("referrer", part.referrer_contains, "came from an address with")):
        if wanted is not None:
            found.append(_contains(field, texts(wanted), verb))
    for field, value in (("source", part.source), ("medium", part.medium), ("campaign", part.campaign)):
        if value is not None:
            found.append(_came(field, texts(value)))
    if part.ordered is not None:
        ordered = part.ordered
        found.append(Leaf(
            lambda p, f, now: p.session is not None and p.session.ordered is ordered,
            lambda p, f, now: "ordered in this visit" if ordered else "has not ordered in this visit", "ordered"))
    return found


def _came(field: str, wanted: tuple[str, ...]) -> Leaf:
    """Where this visit came from."""
    among, read = frozenset(wanted), attrgetter(field)
    verb = "came from" if field == "source" else f"came by the {field}"

    def test(p: Person, f: Facts, now: int) -> bool:
        return p.session is not None and read(p.session) in among

    return Leaf(test, lambda p, f, now: f"this visit {verb} {either(wanted)}", "visit")


def _at_least(noun: str, least: int) -> Leaf:
    read = attrgetter(noun)
    said = f"at least {some(least, _ONE[noun], noun)} this visit"
    tests: dict[str, Test] = {
        "pages": lambda p, f, now: p.session is not None and p.session.pages >= least,
        "products": lambda p, f, now: p.session is not None and p.session.products >= least,
        "searches": lambda p, f, now: p.session is not None and p.session.searches >= least,
    }

    def words(p: Person, f: Facts, now: int) -> str:
        return f"{said} (has {read(p.session) if p.session is not None else 0})"

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

    return Leaf(test, lambda p, f, now: f"{verb} {either(wanted)}", "visit")


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
            lambda p, f, now: f"something of {either(sorted(categories))} in the cart", "cart"))
    if part.contains_product is not None:
        products = frozenset(texts(part.contains_product))
        found.append(Leaf(
            lambda p, f, now: p.cart is not None and not products.isdisjoint(p.cart.items),
            lambda p, f, now: f"product {either(sorted(products))} in the cart", "cart"))
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
        ago = roughly(age(now, read(p.cart))) + " ago" if p.cart is not None and p.cart.items else "empty"
        return f"{what} at least {say(span)} ago ({ago})"

    return Leaf(test, words, "cart", change)
