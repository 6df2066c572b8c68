"""Covers: what a coupon is good for. Which products, and from what value of a cart.

An occasion about something that the coupon is not good for is no occasion to speak of it: words made for "this product"
would promise what the till refuses. What was ordered is past, and a coupon is for the next time.
"""

from collections.abc import Collection, Iterable, Sequence

from domain.coupon import Pool
from domain.event import Track
from domain.money import to_minor
from domain.product import Prices, Product, WrongField, read, read_all
from domain.streams import CARTS, PURCHASES, stream_of
from state.context import Happening
from state.person import Person, ProductSeen
from state.rules import Rules

PRODUCTS, MIN_VALUE = "coupon_products", "coupon_min_value"


def covered(seen: Iterable[ProductSeen], products: Collection[str]) -> list[ProductSeen]:
    """Of what they looked at, what a coupon for these products (none named: for all) is good for; in the same order.

    >>> [one.product_id for one in covered([ProductSeen("lamp"), ProductSeen("mug")], ("lamp",))]
    ['lamp']
    """
    return [one for one in seen if not products or one.product_id in products]


def unfit(person: Person, pool: Pool, event: Happening, rules: Rules, *, told: bool) -> tuple[str, str]:
    """Why this happening is no occasion to speak of a coupon of the pool, as (reason, detail); ("", "") when it is.

    `told` is whether the words say themselves from what value it is good. Reasons: coupon_products, coupon_min_value.
    """
    if not (pool.products or pool.min_value) or not isinstance(event, Track):
        return "", ""
    stream = stream_of("track", event.event)
    if stream == PURCHASES:
        return "", ""
    about = _about(event, rules)
    cart = person.cart.items if person.cart is not None and stream == CARTS else {}
    if pool.products:
        ids = [one.product_id for one in about if one.product_id] or list(cart)
        if ids and not any(one in pool.products for one in ids):
            return PRODUCTS, f"of {pool.name}, not good for {', '.join(ids[:3])}"
    if pool.min_value and not told and (about or cart):
        worth, least = _worth(person, about), to_minor(pool.min_value, rules.shop.currency)
        if worth is not None and worth < least:
            return MIN_VALUE, f"of {pool.name}, from {rules.money(least)}; this would be {rules.money(worth)}"
    return "", ""


def _about(event: Track, rules: Rules) -> Sequence[Product]:
    """The products that an event is about; none where it does not say, or says it badly."""
    prices, said = Prices(rules.shop.currency, rules.shop.rates), event.properties
    try:
        return read_all(said, prices, named=False) or ([read(said, "properties", prices)] if _names_one(said) else [])
    except WrongField:
        return ()


def _names_one(said: Collection[str]) -> bool:
    return "product_id" in said or "sku" in said


def _worth(person: Person, about: Sequence[Product]) -> int | None:
    """What the cart is worth with these in it (minor units); None when a price is not known."""
    cart = person.cart
    inside = cart.items if cart is not None else {}
    more = [one for one in about if one.product_id not in inside]
    if any(not one.price or one.currency for one in more):
        return None
    return (cart.value if cart is not None else 0) + sum(one.price * (one.quantity or 1) for one in more)
