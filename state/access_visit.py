"""Access to what is open right now: the visit and the cart."""

from collections.abc import Iterable
from typing import Any

from domain.condition import InCart, InSession
from domain.money import to_minor
from domain.shop import Shop
from state.access import Access, Read, contains, equals, includes, reaches
from state.leaves import texts
from state.person import Cart, Facts, Person


def session(part: InSession) -> list[Access]:
    """The visit that is open."""
    found: list[Access] = []
    for noun, least in (("pages", part.pages_at_least), ("products", part.products_at_least),
                        ("searches", part.searches_at_least)):
        if least is not None:
            found.append(reaches("visit " + noun, least, _of_visit(noun)))
    if part.first_visit is not None:
        found.append(equals("first visit", (part.first_visit,), _of_visit("first_visit"), 0.5))
    for noun, parts in (("landing_page", part.landing_page_contains), ("referrer", part.referrer_contains)):
        if parts is not None:
            found.append(contains("visit " + noun, texts(parts), _of_visit(noun), 0.1))
    for noun, wanted in (("source", part.source), ("medium", part.medium), ("campaign", part.campaign)):
        if wanted is not None:
            found.append(equals("visit " + noun, texts(wanted), _of_visit(noun), 0.05))
    return found


def _of_visit(noun: str) -> Read:
    def read(person: Person, facts: Facts) -> Any:
        session = person.session
        return None if session is None else getattr(session, noun)

    return read


def cart(part: InCart, shop: Shop) -> list[Access]:
    """The cart as it stands."""
    if part.empty is True:
        return [equals("cart filled", (False,), _filled, 0.8)]
    found = [equals("cart filled", (True,), _filled, 0.2)]
    if part.items_at_least is not None:
        found.append(reaches("cart pieces", part.items_at_least, _pieces, 0.1))
    if part.value_at_least is not None:
        found.append(reaches("cart value", to_minor(part.value_at_least, shop.currency), _value, 0.1))
    if part.contains_category is not None:
        found.append(includes("cart category", texts(part.contains_category), _categories, 0.03))
    if part.contains_product is not None:
        found.append(includes("cart product", texts(part.contains_product), _products, 0.005))
    return found


def _lines(person: Person) -> Cart | None:
    cart = person.cart
    return cart if cart is not None and cart.items else None


def _filled(person: Person, facts: Facts) -> bool:
    return _lines(person) is not None


def _pieces(person: Person, facts: Facts) -> int | None:
    cart = _lines(person)
    return None if cart is None else sum([item.quantity for item in cart.items.values()])


def _value(person: Person, facts: Facts) -> int | None:
    cart = _lines(person)
    return None if cart is None else cart.value


def _categories(person: Person, facts: Facts) -> Iterable[str]:
    cart = person.cart
    return () if cart is None else {item.category for item in cart.items.values()}


def _products(person: Person, facts: Facts) -> Iterable[str]:
    cart = person.cart
    return () if cart is None else cart.items
