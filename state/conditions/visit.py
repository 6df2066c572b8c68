"""Predicates and index keys on the current session and the cart."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from domain.duration import format_duration, format_rough_duration, parse_duration, pluralize
from domain.money import to_major, to_minor
from domain.playbook.condition import InCart, InSession
from domain.playbook.shop import Shop
from state.conditions.predicate import (
    Getter,
    IndexKey,
    Predicate,
    Test,
    any_of,
    as_tuple,
    at_least,
    elapsed,
    equals,
    join_or,
    substring,
)
from state.person.model import Cart, Person, ProfileFragment

_SINGULAR = {"pages": "page", "products": "product", "searches": "search"}


def session_predicates(condition: InSession) -> list[Predicate]:
    """Build the predicates on the current session."""
    found: list[Predicate] = []
    for noun, least in (
        ("pages", condition.pages_at_least),
        ("products", condition.products_at_least),
        ("searches", condition.searches_at_least),
    ):
        if least is not None:
            found.append(_count_predicate(noun, least))
    if condition.seconds_at_least is not None:
        found.append(_duration_predicate(condition.seconds_at_least))
    if condition.first_session is not None:
        first = condition.first_session

        def visit(p: Person, f: ProfileFragment, now: int) -> bool:
            return p.session is not None and p.session.first_session is first

        found.append(
            Predicate(visit, lambda p, f, now: "first session" if first else "has been here before", "session")
        )
    for field, wanted, verb in (
        ("landing_page", condition.landing_page_contains, "began on a page with"),
        ("referrer", condition.referrer_contains, "came from an address with"),
    ):
        if wanted is not None:
            found.append(_substring_predicate(field, as_tuple(wanted), verb))
    for field, value in (("source", condition.source), ("medium", condition.medium), ("campaign", condition.campaign)):
        if value is not None:
            found.append(_source_predicate(field, as_tuple(value)))
    if condition.ordered is not None:
        ordered = condition.ordered
        found.append(
            Predicate(
                lambda p, f, now: p.session is not None and p.session.ordered is ordered,
                lambda p, f, now: "ordered in this session" if ordered else "has not ordered in this session",
                "ordered",
            )
        )
    return found


def _source_predicate(field: str, wanted: tuple[str, ...]) -> Predicate:
    """Build the predicate on the session's source, medium or campaign."""
    among, read = frozenset(wanted), attrgetter(field)
    verb = "came from" if field == "source" else f"came by the {field}"

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return p.session is not None and read(p.session) in among

    return Predicate(test, lambda p, f, now: f"this session {verb} {join_or(wanted)}", "session")


def _count_predicate(field: str, minimum: int) -> Predicate:
    read = attrgetter(field)
    said = f"at least {pluralize(minimum, _SINGULAR[field], field)} this session"
    tests: dict[str, Test] = {
        "pages": lambda p, f, now: p.session is not None and p.session.pages >= minimum,
        "products": lambda p, f, now: p.session is not None and p.session.products >= minimum,
        "searches": lambda p, f, now: p.session is not None and p.session.searches >= minimum,
    }

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        return f"{said} (has {read(p.session) if p.session is not None else 0})"

    return Predicate(tests[field], words, field)


def _duration_predicate(seconds: int) -> Predicate:
    span = seconds * 1000

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        session = p.session
        return session is not None and now >= session.started_at + span

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        session = p.session
        return session.started_at + span if session is not None and now < session.started_at + span else None

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        spent = max(0, now - p.session.started_at) // 1000 if p.session is not None else 0
        return f"at least {seconds} s on the site (has {spent})"

    return Predicate(test, words, "session", change)


def _substring_predicate(field: str, wanted: tuple[str, ...], verb: str) -> Predicate:
    read = attrgetter(field)

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return p.session is not None and any(text in read(p.session) for text in wanted)

    return Predicate(test, lambda p, f, now: f"{verb} {join_or(wanted)}", "session")


def cart_predicates(condition: InCart, shop: Shop) -> list[Predicate]:
    """Build the predicates on the cart."""
    found: list[Predicate] = []
    if condition.empty is not None:
        empty = condition.empty

        def is_empty(p: Person, f: ProfileFragment, now: int) -> bool:
            return (p.cart is None or not p.cart.items) is empty

        found.append(
            Predicate(is_empty, lambda p, f, now: "nothing in the cart" if empty else "something in the cart", "cart")
        )
    if condition.items_at_least is not None:
        pieces = condition.items_at_least
        found.append(
            Predicate(
                lambda p, f, now: _item_count(p.cart) >= pieces,
                lambda p, f, now: f"at least {pieces} in the cart (has {_item_count(p.cart)})",
                "cart",
            )
        )
    for amount, least in ((condition.value_at_least, True), (condition.value_below, False)):
        if amount is not None:
            found.append(_cart_value(to_minor(amount, shop.currency), least, shop.currency))
    if condition.contains_category is not None:
        categories = frozenset(as_tuple(condition.contains_category))
        found.append(
            Predicate(
                lambda p, f, now: p.cart is not None and any(i.category in categories for i in p.cart.items.values()),
                lambda p, f, now: f"something of {join_or(sorted(categories))} in the cart",
                "cart",
            )
        )
    if condition.contains_product is not None:
        products = frozenset(as_tuple(condition.contains_product))
        found.append(
            Predicate(
                lambda p, f, now: p.cart is not None and not products.isdisjoint(p.cart.items),
                lambda p, f, now: f"product {join_or(sorted(products))} in the cart",
                "cart",
            )
        )
    for field, span, what in (
        ("created_at", condition.older_than, "cart begun"),
        ("updated_at", condition.untouched_for, "cart not touched since"),
    ):
        if span is not None:
            found.append(_cart_age(field, parse_duration(span), what))
    return found


def _item_count(cart: Cart | None) -> int:
    return 0 if cart is None else sum([item.quantity for item in cart.items.values()])


def _cart_value(minor: int, is_minimum: bool, currency: str) -> Predicate:
    amount = f"{to_major(minor, currency)} {currency}"

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        cart = p.cart
        return cart is not None and bool(cart.items) and (cart.value >= minor) is is_minimum

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        worth = f"{to_major(p.cart.value, currency)}" if p.cart is not None and p.cart.items else "empty"
        return f"cart worth {'at least' if is_minimum else 'less than'} {amount} (is {worth})"

    return Predicate(test, words, "cart")


def _cart_age(field: str, span: int, description: str) -> Predicate:
    read = attrgetter(field)

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        cart = p.cart
        return cart is not None and bool(cart.items) and now >= read(cart) + span

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        cart = p.cart
        return read(cart) + span if cart is not None and cart.items and now < read(cart) + span else None

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        ago = (
            format_rough_duration(elapsed(now, read(p.cart))) + " ago"
            if p.cart is not None and p.cart.items
            else "empty"
        )
        return f"{description} at least {format_duration(span)} ago ({ago})"

    return Predicate(test, words, "cart", change)


def session_keys(condition: InSession) -> list[IndexKey]:
    """Return the index keys of the current session."""
    found: list[IndexKey] = []
    for noun, least in (
        ("pages", condition.pages_at_least),
        ("products", condition.products_at_least),
        ("searches", condition.searches_at_least),
    ):
        if least is not None:
            found.append(at_least("session " + noun, least, _session_getter(noun)))
    if condition.first_session is not None:
        found.append(equals("first session", (condition.first_session,), _session_getter("first_session"), 0.5))
    for noun, parts in (("landing_page", condition.landing_page_contains), ("referrer", condition.referrer_contains)):
        if parts is not None:
            found.append(substring("session " + noun, as_tuple(parts), _session_getter(noun), 0.1))
    for noun, wanted in (("source", condition.source), ("medium", condition.medium), ("campaign", condition.campaign)):
        if wanted is not None:
            found.append(equals("session " + noun, as_tuple(wanted), _session_getter(noun), 0.05))
    return found


def _session_getter(field: str) -> Getter:
    def read(person: Person, facts: ProfileFragment) -> Any:
        session_key = person.session
        return None if session_key is None else getattr(session_key, field)

    return read


def cart_keys(condition: InCart, shop: Shop) -> list[IndexKey]:
    """Return the index keys of the cart."""
    if condition.empty is True:
        return [equals("cart filled", (False,), _read_has_items, 0.8)]
    found = [equals("cart filled", (True,), _read_has_items, 0.2)]
    if condition.items_at_least is not None:
        found.append(at_least("cart items", condition.items_at_least, _read_quantity, 0.1))
    if condition.value_at_least is not None:
        found.append(at_least("cart value", to_minor(condition.value_at_least, shop.currency), _read_value, 0.1))
    if condition.contains_category is not None:
        found.append(any_of("cart category", as_tuple(condition.contains_category), _read_categories, 0.03))
    if condition.contains_product is not None:
        found.append(any_of("cart product", as_tuple(condition.contains_product), _read_products, 0.005))
    return found


def _filled_cart(person: Person) -> Cart | None:
    cart_key = person.cart
    return cart_key if cart_key is not None and cart_key.items else None


def _read_has_items(person: Person, profile: ProfileFragment) -> bool:
    return _filled_cart(person) is not None


def _read_quantity(person: Person, profile: ProfileFragment) -> int | None:
    cart_key = _filled_cart(person)
    return None if cart_key is None else sum([item.quantity for item in cart_key.items.values()])


def _read_value(person: Person, profile: ProfileFragment) -> int | None:
    cart_key = _filled_cart(person)
    return None if cart_key is None else cart_key.value


def _read_categories(person: Person, profile: ProfileFragment) -> Iterable[str]:
    cart_key = person.cart
    return () if cart_key is None else {item.category for item in cart_key.items.values()}


def _read_products(person: Person, profile: ProfileFragment) -> Iterable[str]:
    cart_key = person.cart
    return () if cart_key is None else cart_key.items
