"""Conditions: the language of `when`. `docs/playbook.md` is generated from it.

    [when]
    has = { country = "CA" }
    session = { first_session = true, pages_at_least = 3, seconds_at_least = 60 }

All fields of a table must be true. A list of values means any of them. A condition on an unknown value is false.
`state/conditions/compile.py` compiles conditions. A new predicate needs a struct here, a function there and a test.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from domain.duration import Duration

PositiveCount = Annotated[int, Meta(ge=1, le=1_000_000)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
TextOrList = Text | Annotated[tuple[Text, ...], Meta(min_length=1, max_length=100)]
Value = str | int | float | bool
PropertyName = Annotated[str, Meta(min_length=1, max_length=64)]
MAX_EVENT_TIMES = 100
"""Stored timestamps of one event per person (the newest), for counts and sums within a time."""
ExposureCount = Annotated[int, Meta(ge=1, le=MAX_EVENT_TIMES)]
MAX_EXPOSURE_TIMES = 50
"""Stored exposures of one campaign per person, the newest."""

SCORE_BANDS = ("likely_buyers", "undecided", "unlikely")
"""Learned segments, which need no file."""

RFM_GROUPS = ("champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating", "lost")
"""Groups of RFM cells. Each group (`rfm_champions`) and each cell (`rfm_543`) is a segment."""


class PropertyFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A test of a property or trait. All fields must be true."""

    is_not: Annotated[Value | tuple[Value, ...] | None, Meta(description="none of these values")] = None
    at_least: Annotated[float | None, Meta(description="a number of at least this")] = None
    below: Annotated[float | None, Meta(description="a number less than this")] = None
    contains: Annotated[TextOrList | None, Meta(description="a text that contains this, in upper or lower case")] = None
    starts_with: Annotated[TextOrList | None, Meta(description="a text that starts with this")] = None
    exists: Annotated[bool | None, Meta(description="whether there is a value")] = None


PropertyMatch = Annotated[
    dict[PropertyName, Value | Annotated[tuple[Value, ...], Meta(max_length=100)] | PropertyFilter], Meta(max_length=20)
]


class Sum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The sum of a number in the events, to three decimals. A value that is not a number counts as 0."""

    of: Annotated[PropertyName, Meta(description="the property with the number: `total`, `value`, `quantity`, …")]
    at_least: Annotated[float | None, Meta(description="a sum of at least this")] = None
    below: Annotated[float | None, Meta(description="a sum of less than this")] = None


class Did(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An event of the person, at any time or within a time that ends now.

    With `where`, `sum`, `after`, `before`, or `within` and a count, only the newest 100 events are stored. If the event
    in `after` or `before` never happened, the condition is false. `where` does not search lists of products.
    """

    event: Annotated[Text, Meta(description='the event, such as "Product Viewed" or "Order Completed"')]
    where: Annotated[PropertyMatch, Meta(description='only those with these properties: { category = "mugs" }')] = {}
    at_least: Annotated[PositiveCount, Meta(description="how many times")] = 1
    within: Annotated[Duration | None, Meta(description="count and sum only events less than this long ago")] = None
    sum: Annotated[Sum | None, Meta(description="and the sum of a number in the events")] = None
    last_before: Annotated[Duration | None, Meta(description="the last time is at least this long ago")] = None
    first_within: Annotated[Duration | None, Meta(description="the first time is less than this long ago")] = None
    after: Annotated[Text | None, Meta(description="count only events after the last occurrence of this event")] = None
    before: Annotated[Text | None, Meta(description="count only events before the last occurrence of this event")] = (
        None
    )


class Sequence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Events in a given order, with any events in between. A completed sequence stays true."""

    steps: Annotated[
        tuple[Text | Did, ...],
        Meta(
            min_length=2,
            max_length=6,
            description='events in this order: ["Product Viewed", '
            '"Product Added"]; '
            "a table gives an event and its `where`",
        ),
    ]
    within: Annotated[
        Duration | None, Meta(description="the time from the first to the last event is less than this")
    ] = None
    last_within: Annotated[Duration | None, Meta(description="the last event is less than this long ago")] = None


class Has(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The profile of the person. UTM sources, mediums and campaigns are case-sensitive: `Google` is not `google`."""

    country: Annotated[TextOrList | None, Meta(description='the country, as ISO codes: "CA" or ["CA", "US"]')] = None
    device: Annotated[
        Literal["desktop", "mobile", "tablet"] | tuple[Literal["desktop", "mobile", "tablet"], ...] | None,
        Meta(description="the current device, or the last one"),
    ] = None
    language: Annotated[TextOrList | None, Meta(description='the language: "fr", or "fr-CA" for one region')] = None
    source: Annotated[TextOrList | None, Meta(description="the latest utm_source")] = None
    first_source: Annotated[TextOrList | None, Meta(description="the first utm_source")] = None
    medium: Annotated[TextOrList | None, Meta(description="the latest utm_medium")] = None
    campaign: Annotated[TextOrList | None, Meta(description="the latest utm_campaign")] = None
    consent: Annotated[
        TextOrList | None, Meta(description="the purpose with consent (given, or granted by default)")
    ] = None
    trait: Annotated[
        PropertyMatch,
        Meta(
            description='traits and their values, all of which must match: { plan = "gold", age = { at_least = 18 } }'
        ),
    ] = {}
    address: Annotated[
        Literal["email", "phone", "push"] | tuple[Literal["email", "phone", "push"], ...] | None,
        Meta(description="a known address that is not suppressed"),
    ] = None
    sessions_at_least: Annotated[PositiveCount | None, Meta(description="sessions so far, including the open one")] = (
        None
    )
    identified: Annotated[
        bool | None, Meta(description="whether the person is an identified customer, not an anonymous visitor")
    ] = None
    first_seen_within: Annotated[Duration | None, Meta(description="first seen less than this long ago")] = None
    last_seen_before: Annotated[Duration | None, Meta(description="last seen at least this long ago")] = None


class InSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The open session. Without an open session all of this is false.

    UTM values and parts of addresses are case-sensitive: `Google` is not `google`.
    """

    pages_at_least: Annotated[PositiveCount | None, Meta(description="pages viewed")] = None
    products_at_least: Annotated[PositiveCount | None, Meta(description="products viewed")] = None
    searches_at_least: Annotated[PositiveCount | None, Meta(description="searches made")] = None
    seconds_at_least: Annotated[
        PositiveCount | None, Meta(description="seconds since the start of the session; true from that second on")
    ] = None
    first_session: Annotated[bool | None, Meta(description="whether this is the first session")] = None
    landing_page_contains: Annotated[TextOrList | None, Meta(description="part of the address of the first page")] = (
        None
    )
    referrer_contains: Annotated[TextOrList | None, Meta(description="part of the address of the referrer")] = None
    source: Annotated[TextOrList | None, Meta(description="the utm_source of this session")] = None
    medium: Annotated[TextOrList | None, Meta(description="the utm_medium of this session")] = None
    campaign: Annotated[TextOrList | None, Meta(description="the utm_campaign of this session")] = None
    ordered: Annotated[bool | None, Meta(description="whether the person ordered in this session")] = None


class InCart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The current cart. No cart is an empty cart. All fields but `empty` are true only if the cart has items."""

    items_at_least: Annotated[PositiveCount | None, Meta(description="items in the cart")] = None
    value_at_least: Annotated[Amount | None, Meta(description="the value of the items, in the shop's currency")] = None
    value_below: Annotated[Amount | None, Meta(description="the items are worth less than this")] = None
    empty: Annotated[bool | None, Meta(description="whether the cart is empty")] = None
    contains_category: Annotated[TextOrList | None, Meta(description="a product of this category is in it")] = None
    contains_product: Annotated[TextOrList | None, Meta(description="this product (its product_id) is in it")] = None
    older_than: Annotated[Duration | None, Meta(description="the cart was started at least this long ago")] = None
    untouched_for: Annotated[Duration | None, Meta(description="the cart has not changed for this long")] = None


class Orders(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Orders, online and offline, without cancelled ones. Without orders the count and the value are 0."""

    count_at_least: Annotated[PositiveCount | None, Meta(description="at least this many")] = None
    count_is: Annotated[Annotated[int, Meta(ge=0, le=1_000_000)] | None, Meta(description="exactly this many")] = None
    value_at_least: Annotated[Amount | None, Meta(description="the total value, net of refunds")] = None
    value_below: Annotated[Amount | None, Meta(description="the total value is less than this")] = None
    last_within: Annotated[Duration | None, Meta(description="the last order is less than this long ago")] = None
    last_before: Annotated[Duration | None, Meta(description="the last order is at least this long ago")] = None
    contains_product: Annotated[
        TextOrList | None, Meta(description="this product was in one of the last 20 orders")
    ] = None
    contains_category: Annotated[
        TextOrList | None, Meta(description="a product of this category was in one of the last 20 orders")
    ] = None


RfmClass = Annotated[int, Meta(ge=1, le=5)]


class Rfm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The RFM classes of recency, frequency and monetary value, each from 1 (worst) to 5 (best).

    People without orders have no RFM cell.
    """

    group: Annotated[
        Literal["champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating", "lost"]
        | tuple[
            Literal[
                "champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating", "lost"
            ],
            ...,
        ]
        | None,
        Meta(description="the RFM group"),
    ] = None
    recency_at_least: Annotated[RfmClass | None, Meta(description="the last order is recent enough")] = None
    recency_at_most: Annotated[RfmClass | None, Meta(description="the last order is long enough ago")] = None
    frequency_at_least: Annotated[RfmClass | None, Meta(description="orders are frequent enough")] = None
    frequency_at_most: Annotated[RfmClass | None, Meta(description="orders are rare enough")] = None
    monetary_at_least: Annotated[RfmClass | None, Meta(description="spending is high enough")] = None
    monetary_at_most: Annotated[RfmClass | None, Meta(description="spending is low enough")] = None


class Funnel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The funnel stage: the last stage in `shop.toml` whose condition is true."""

    stage: Annotated[TextOrList | None, Meta(description="exactly this stage (list: any of them)")] = None
    at_least: Annotated[Text | None, Meta(description="this stage or a later one")] = None


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The learned probability of an order in this session. Without a model all of this is false."""

    at_least: Annotated[Share | None, Meta(description="the probability, between 0 and 1")] = None
    below: Annotated[Share | None, Meta(description="the probability is less than this")] = None
    band: Annotated[
        Literal["likely_buyers", "undecided", "unlikely"] | None, Meta(description="the learned segment of the person")
    ] = None


class HoldsCoupon(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A valid coupon of the person: reserved, not redeemed and not expired."""

    pool: Annotated[TextOrList, Meta(description="the pool, coupons/NAME.toml (list: any of them)")]
    expires_within: Annotated[Duration | None, Meta(description="the coupon expires within this time")] = None


class WasShown(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exposures: a campaign that was shown, or a message that was accepted for delivery."""

    campaign: Annotated[TextOrList, Meta(description="the campaign (list: any of them)")]
    at_least: Annotated[
        ExposureCount, Meta(description="how many times; with `within` at most 50, the number that is stored")
    ] = 1
    within: Annotated[Duration | None, Meta(description="count only exposures less than this long ago")] = None


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A condition. All fields must be true."""

    all: Annotated["tuple[Condition, ...]", Meta(description="all of these are true")] = ()
    any: Annotated["tuple[Condition, ...]", Meta(description="at least one of these is true")] = ()
    not_: "Annotated[Condition | None, Meta(description='this is false')]" = field(default=None, name="not")
    did: Annotated[Did | tuple[Did, ...] | None, Meta(description="the person did this (list: all of them)")] = None
    did_not: Annotated[
        Did | tuple[Did, ...] | None, Meta(description="the person did not do this (list: none of them)")
    ] = None
    sequence: Annotated[Sequence | None, Meta(description="the person did this in this order")] = None
    has: Annotated[Has | None, Meta(description="the profile of the person")] = None
    session: Annotated[InSession | None, Meta(description="the open session")] = None
    cart: Annotated[InCart | None, Meta(description="the current cart")] = None
    orders: Annotated[Orders | None, Meta(description="the orders")] = None
    rfm: Annotated[Rfm | None, Meta(description="recency, frequency and monetary value")] = None
    funnel: Annotated[Funnel | None, Meta(description="the stage of the shop's own funnel")] = None
    score: Annotated[Score | None, Meta(description="the learned probability of an order")] = None
    in_segment: Annotated[
        TextOrList | None, Meta(description="the person is in this segment (list: in any of them)")
    ] = None
    holds_coupon: Annotated[HoldsCoupon | None, Meta(description="the person holds a valid coupon")] = None
    was_shown: Annotated[WasShown | None, Meta(description="the person was shown this")] = None


EVERYONE = Condition()
"""The condition that is true for everyone."""
