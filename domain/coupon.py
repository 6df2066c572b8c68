"""Coupons: pools of codes. A code is reserved when it is offered, and redeemed by an order.

>>> pool = msgspec.convert({"name": "winback", "percent": 10}, Pool)
>>> pool.size, pool.valid_for
(100000, '14d')
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.condition import Amount, Text
from domain.duration import Duration
from domain.trigger import Name

Code = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!-~]+$", description="letters, digits and signs, "
                           'without blanks or accents, such as "SPRING-7"')]
Prefix = Annotated[str, Meta(max_length=16, pattern=r"^[A-Z0-9-]*$",
                             description='capital letters, digits and -, such as "SPRING-"')]
MOST_CODES = 100_000


MADE_UP = 100_000
"""How many codes are made up where nobody says it."""


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pool of codes, each for one person. The codes are made up, or listed in `codes/NAME.txt` beside this file."""

    name: Name
    description: Annotated[str, Meta(max_length=2_000, description="what it is for, in your words")] = ""
    percent: Annotated[Annotated[float, Meta(gt=0, le=100)] | None, Meta(description="the discount in percent")] = None
    amount: Annotated[Amount | None, Meta(description="or as an amount, in the shop's currency")] = None
    free_shipping: Annotated[bool, Meta(description="or that nothing is charged for shipping")] = False
    min_value: Annotated[Amount | None, Meta(description="for carts worth at least this")] = None
    products: Annotated[
        tuple[Text, ...], Meta(max_length=1_000, description="only for these products (product_id)")] = ()
    prefix: Annotated[
        Prefix, Meta(description="how made-up codes begin: capital letters, digits and -")] = ""
    size: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)], Meta(description="how many made-up codes there are")] = MADE_UP
    codes: Annotated[
        tuple[Code, ...],
        Meta(max_length=MOST_CODES, description="the codes, where they are not made up (read from codes/NAME.txt)")
    ] = ()
    valid_for: Annotated[Duration, Meta(description="how long a code is good after it was reserved")] = "14d"
    once: Annotated[bool, Meta(description="a person gets a coupon of this pool only once")] = True
    first_order_only: Annotated[bool, Meta(description="never for who has ordered before")] = False
    not_with: Annotated[
        tuple[Name, ...], Meta(max_length=50, description="never for who holds (or used) a coupon of these pools")] = ()
