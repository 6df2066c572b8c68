"""redeem: what becomes of coupons: an order names their codes, it is cancelled, or their time is up.

    "Order Completed" (coupon, coupons, discount_codes, products[].coupon)  ->  redeemed
    "Order Cancelled"                                                       ->  good again, while it lasts
    timer `coupon:<code>`                                                   ->  expired

"Coupon Applied" and its like change nothing here: the person who typed a code has it or has not, and only an order uses
it up. Goods sent back ("Order Refunded") do not bring a coupon back, a cancelled order does.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from domain.effect import Effect
from domain.event import Event, Track, text_id
from state.context import Context
from state.coupons import give_back, settle
from state.coupons import redeem as redeem_codes
from state.person import Person

MOST_CODES = 50
"""Codes that are read of one order."""

LONGEST_CODE = 64


def ordered(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    """An order was placed: the codes it names are redeemed, and what is only for a first order falls away."""
    if not isinstance(event, Track) or not (person.coupons or context.rules.pools):
        return ()
    codes = list(dict.fromkeys(codes_in(event.properties)))
    effects = redeem_codes(person, codes, _order_id(event), context) if codes else []
    return [*effects, *settle(person, context)] if person.coupons else effects


def cancelled(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    """An order was cancelled: what it had redeemed is good again."""
    if not person.coupons or not isinstance(event, Track):
        return ()
    return give_back(person, _order_id(event), context)


def codes_in(properties: Any) -> Iterator[str]:
    """The codes that an order names, at most 50; whatever else stands there is passed over.

    >>> list(codes_in({"coupon": "A", "discount_codes": [{"code": "B"}, "C"], "products": [{"coupon": "D"}, 7]}))
    ['A', 'B', 'C', 'D']
    """
    found = 0
    named: list[Any] = []
    for name in ("coupon", "coupons", "discount_code", "discount_codes"):
        value = properties.get(name)
        named += value if isinstance(value, list) else [value]
    products = properties.get("products")
    if isinstance(products, list):
        named += [one.get("coupon") for one in products if isinstance(one, dict)]
    for one in named:
        code = one.get("code") if isinstance(one, dict) else one
        if isinstance(code, str) and 0 < len(code.strip()) <= LONGEST_CODE and found < MOST_CODES:
            found += 1
            yield code


def _order_id(event: Track) -> str:
    """As `state/shop_events.py` names the order."""
    return text_id(event.properties.get("order_id")) or (event.message_id and "m:" + event.message_id) or ""
