"""Conditions: what must be true of a person. This is the whole language of `when`; `docs/playbook.md` derives from it.

    [when]
    has = { country = "CA" }
    session = { first_visit = true, pages_at_least = 3, seconds_at_least = 60 }

Everything written side by side must hold; a list of values means any of them; what is not known does not hold.
`state/conditions.py` makes closures of it. To add a kind: one struct here, one function there, one test.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from domain.duration import Duration

Whole = Annotated[int, Meta(ge=1, le=1_000_000)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Texts = Text | Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100)]
Value = str | int | float | bool
Values = Annotated[dict[str, Value | tuple[Value, ...]], Meta(max_length=20)]

BANDS = ("likely_buyers", "undecided", "unlikely")
"""Segments that nobody declares: the engine learns who belongs to them."""


class Did(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something the person did, ever or within a time that ends now.

    `within` looks at the latest time only, so it goes with `at_least = 1`.
    """

    event: Annotated[Text, Meta(description='the event, such as "Product Viewed" or "Order Completed"')]
    at_least: Annotated[Whole, Meta(description="how many times, over the whole time the person is known")] = 1
    within: Annotated[Duration | None, Meta(description="the last time is less than this long ago")] = None


class Has(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of the person."""

    country: Annotated[Texts | None, Meta(description='where they are, as ISO codes: "CA" or ["CA", "US"]')] = None
    device: Annotated[
        Literal["desktop", "mobile", "tablet"] | tuple[Literal["desktop", "mobile", "tablet"], ...] | None,
        Meta(description="what they are using now, else what they used last"),
    ] = None
    language: Annotated[Texts | None, Meta(description='what they read: "fr", or "fr-CA" for one region')] = None
    source: Annotated[Texts | None, Meta(description="the utm_source that brought them here last")] = None
    consent: Annotated[Texts | None, Meta(description="the purpose they agreed to (or the default grants it)")] = None
    trait: Annotated[
        Values, Meta(description='traits and their values, all of which must match: { plan = "gold", vip = true }')
    ] = {}


class InSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The visit that is open. Between visits none of this holds."""

    pages_at_least: Annotated[Whole | None, Meta(description="pages seen")] = None
    products_at_least: Annotated[Whole | None, Meta(description="products looked at")] = None
    searches_at_least: Annotated[Whole | None, Meta(description="searches made")] = None
    seconds_at_least: Annotated[
        Whole | None, Meta(description="seconds since the visit began; it holds from that very second on")
    ] = None
    first_visit: Annotated[bool | None, Meta(description="whether this is their first visit")] = None
    landing_page_contains: Annotated[Texts | None, Meta(description="part of the address of the first page")] = None
    referrer_contains: Annotated[Texts | None, Meta(description="part of the address they came from")] = None
    source: Annotated[Texts | None, Meta(description="the utm_source of this visit")] = None


class InCart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The cart as it stands. No cart is an empty cart; all but `empty` hold only with something in it."""

    items_at_least: Annotated[Whole | None, Meta(description="pieces in the cart")] = None
    value_at_least: Annotated[Amount | None, Meta(description="what the goods cost, in the shop's currency")] = None
    value_below: Annotated[Amount | None, Meta(description="they cost less than this")] = None
    empty: Annotated[bool | None, Meta(description="whether there is nothing in it")] = None
    contains_category: Annotated[Texts | None, Meta(description="a product of this category is in it")] = None
    contains_product: Annotated[Texts | None, Meta(description="this product (its product_id) is in it")] = None
    older_than: Annotated[Duration | None, Meta(description="it was begun at least this long ago")] = None
    untouched_for: Annotated[Duration | None, Meta(description="nothing in it has changed for this long")] = None


class Orders(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Orders placed, on line and off line, without the cancelled ones. Nobody's orders count 0 and are worth 0."""

    count_at_least: Annotated[Whole | None, Meta(description="how many, or more")] = None
    count_is: Annotated[Annotated[int, Meta(ge=0, le=1_000_000)] | None, Meta(description="exactly how many")] = None
    value_at_least: Annotated[Amount | None, Meta(description="what they are worth together, net of refunds")] = None
    value_below: Annotated[Amount | None, Meta(description="together they are worth less than this")] = None
    last_within: Annotated[Duration | None, Meta(description="the last one is less than this long ago")] = None
    last_before: Annotated[Duration | None, Meta(description="the last one is at least this long ago")] = None


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How likely the person is to buy in this visit, as learned; nothing holds before there is a model."""

    at_least: Annotated[Share | None, Meta(description="the probability, between 0 and 1")] = None
    below: Annotated[Share | None, Meta(description="the probability is less than this")] = None
    band: Annotated[
        Literal["likely_buyers", "undecided", "unlikely"] | None, Meta(description="the learned segment they are in")
    ] = None


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What must be true. Everything written side by side must hold."""

    all: Annotated["tuple[Condition, ...]", Meta(description="all of these hold")] = ()
    any: Annotated["tuple[Condition, ...]", Meta(description="at least one of these holds")] = ()
    not_: "Annotated[Condition | None, Meta(description='this does not hold')]" = field(default=None, name="not")
    did: Annotated[Did | tuple[Did, ...] | None, Meta(description="the person did this (of a list: all of it)")] = None
    did_not: Annotated[Did | tuple[Did, ...] | None, Meta(description="they did not (of a list: none of it)")] = None
    has: Annotated[Has | None, Meta(description="what is known of them")] = None
    session: Annotated[InSession | None, Meta(description="the visit that is open")] = None
    cart: Annotated[InCart | None, Meta(description="the cart as it stands")] = None
    orders: Annotated[Orders | None, Meta(description="what they bought")] = None
    score: Annotated[Score | None, Meta(description="how likely they are to buy")] = None
    in_segment: Annotated[Texts | None, Meta(description="they belong to this segment (of a list: to any)")] = None


EVERYONE = Condition()
"""No condition at all."""
