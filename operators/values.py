"""values: what templates may ask for (named in `domain/template.py`), as it is of one person.

VALUES gives the value of a variable, STAMPS something small that changes whenever it may print differently, NEEDS what
changes it, in the words of `state/changes.py`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from domain.action import Discount
from domain.money import to_minor
from domain.template import Price, Voucher
from state.coupons import held
from state.covers import covered
from state.days import zone
from state.person import CartItem, Facts, Person, ProductSeen
from state.rules import Rules
from state.view import known


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}


def _price(minor: int, currency: str, rules: Rules) -> Price | None:
    """An amount; nothing when it is not in the shop's currency."""
    return None if currency else Price(rules.money(minor))


def _product(seen: ProductSeen, rules: Rules) -> dict[str, Any]:
    return _filled(
        id=seen.product_id, name=seen.name, category=seen.category, brand=seen.brand, url=seen.url,
        image_url=seen.image_url, price=_price(seen.price, seen.currency, rules) if seen.price else None)


def _item(product_id: str, item: CartItem, rules: Rules) -> dict[str, Any]:
    return _filled(id=product_id, name=item.name, category=item.category, quantity=item.quantity,
                   price=_price(item.price, item.currency, rules) if item.price else None)


def _cart(person: Person, facts: Facts, rules: Rules) -> dict[str, Any] | None:
    cart = person.cart
    if cart is None or not cart.items:
        return None
    return _filled(items=[_item(product_id, item, rules) for product_id, item in cart.items.items()],
                   value=Price(rules.money(cart.value)), count=sum([item.quantity for item in cart.items.values()]))


def _order(person: Person, facts: Facts, rules: Rules) -> dict[str, Any] | None:
    if not facts.orders:
        return None
    order = facts.orders[-1]
    return _filled(id=order.order_id, value=_price(order.value, order.currency, rules), items=order.items or None)


def _trait(facts: Facts, *names: str) -> Any:
    for name in names:
        trait = facts.traits.get(name)
        if trait is not None and trait.value not in (None, ""):
            return trait.value
    return None


def _device(person: Person, facts: Facts) -> str:
    return (person.session.device if person.session is not None else "") or facts.device


VALUES: dict[str, Callable[[Person, Facts, Rules], Any]] = {
    "product": lambda p, f, rules: _product(f.products[-1], rules) if f.products else None,
    "products": lambda p, f, rules: [_product(seen, rules) for seen in reversed(f.products)],
    "cart": _cart,
    "order": _order,
    "first_name": lambda p, f, rules: _trait(f, "first_name", "firstName"),
    "last_name": lambda p, f, rules: _trait(f, "last_name", "lastName"),
    "traits": lambda p, f, rules: {name: t.value for name, t in f.traits.items() if t.value not in (None, "")},
    "country": lambda p, f, rules: f.country,
    "device": lambda p, f, rules: _device(p, f),
    "search": lambda p, f, rules: f.searches[-1].query if f.searches else None,
    "shop": lambda p, f, rules: _filled(name=rules.shop.name, url=rules.shop.url, currency=rules.shop.currency),
}

STAMPS: dict[str, Callable[[Person, Facts], Any]] = {
    "product": lambda p, f: _stamp(f.products[-1]) if f.products else None,
    "products": lambda p, f: [_stamp(seen) for seen in f.products],
    "cart": lambda p, f: [(key, i.quantity, i.price, i.name) for key, i in p.cart.items.items()] if p.cart else None,
    "order": lambda p, f: (f.orders[-1].order_id, f.orders[-1].value, f.orders[-1].items) if f.orders else None,
    "first_name": lambda p, f: _trait(f, "first_name", "firstName"),
    "last_name": lambda p, f: _trait(f, "last_name", "lastName"),
    "traits": lambda p, f: sorted((name, repr(t.value)) for name, t in f.traits.items()),
    "country": lambda p, f: f.country,
    "device": _device,
    "search": lambda p, f: f.searches[-1].query if f.searches else None,
}

NEEDS: dict[str, tuple[str, ...]] = {
    "product": ("event:Product Viewed",), "products": ("event:Product Viewed",), "cart": ("cart",),
    "order": ("orders",), "search": ("event:Products Searched",),
}
"""What changes the other variables (traits, the playbook itself) is never named: then everything is asked again."""


def _stamp(seen: ProductSeen) -> tuple[Any, ...]:
    return seen.product_id, seen.name, seen.price, seen.url, seen.image_url, seen.category, seen.brand


# -- a coupon of their own -----------------------------------------------------------------------------------------


def coupon_values(person: Person, worth: Discount, rules: Rules, *, products: bool = False) -> Voucher:
    """`coupon`: its code, and what it is `worth`.

    `expires` is the day on which it ends where the person is, as "2026-12-24". With `products`: what they looked at and
    it is good for, newest first.
    """
    currency, facts = rules.shop.currency, known(person)

    def price(amount: float) -> Price | None:
        return Price(rules.money(to_minor(amount, currency))) if amount else None

    ends = datetime.fromtimestamp(worth.expires_at / 1000, zone(facts.timezone, rules.shop.timezone))
    return Voucher(_filled(
        code=worth.code, percent=Price(f"{worth.percent:g}") if worth.percent else None, amount=price(worth.amount),
        min_value=price(worth.min_value), free_shipping=worth.free_shipping or None,
        expires=ends.strftime("%Y-%m-%d"),
        products=[_product(seen, rules) for seen in reversed(covered(facts.products, worth.products))] or None
        if products else None))


def coupon_stamp(person: Person, pool: str, products: tuple[str, ...] | None = None) -> tuple[Any, ...] | None:
    """Their coupon of this pool; with the `products` it is good for (none named: all), those that they looked at.

    >>> from state.person import Coupon
    >>> coupon_stamp(Person(id="a:ann", coupons=[Coupon("TEN-1", "ten", "reserved", at=0, until=9_000)]), "ten")
    (('TEN-1', 9000),)
    """
    coupon = held(person, pool)
    seen = covered(known(person).products, products) if products is not None else ()
    if coupon is None and not seen:
        return None
    return (coupon.code, coupon.until) if coupon is not None else (), *map(_stamp, seen)
