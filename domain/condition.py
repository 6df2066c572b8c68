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
Field = Annotated[str, Meta(min_length=1, max_length=64)]
MOST_REMEMBERED = 100
"""Times of one kind of event that are remembered of a person, the newest, for counts and sums within a time."""
Few = Annotated[int, Meta(ge=1, le=MOST_REMEMBERED)]
MOST_SHOWN = 50
"""Times that one campaign was said to a person that are remembered, the newest."""

BANDS = ("likely_buyers", "undecided", "unlikely")
"""Segments that nobody declares: the engine learns who belongs to them."""

RFM_GROUPS = ("champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating", "lost")
"""Groups of RFM cells, segments of their own (`rfm_champions`), beside the cells (`rfm_543`)."""


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a property or trait must be. Everything written side by side must hold of it."""

    is_not: Annotated[Value | tuple[Value, ...] | None, Meta(description="none of these values")] = None
    at_least: Annotated[float | None, Meta(description="a number, this or more")] = None
    below: Annotated[float | None, Meta(description="a number less than this")] = None
    contains: Annotated[Texts | None, Meta(description="a text with this in it, whether or not in capitals")] = None
    begins_with: Annotated[Texts | None, Meta(description="a text that begins like this")] = None
    known: Annotated[bool | None, Meta(description="whether there is a value at all")] = None


Values = Annotated[dict[Field, Value | Annotated[tuple[Value, ...], Meta(max_length=100)] | Filter],
                   Meta(max_length=20)]


class Sum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A number in each of the events, added up as it stands there, to three decimals; what is no number is 0."""

    of: Annotated[Field, Meta(description="the property with the number: `total`, `value`, `quantity`, …")]
    at_least: Annotated[float | None, Meta(description="together this or more")] = None
    below: Annotated[float | None, Meta(description="together less than this")] = None


class Did(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something the person did, ever or within a time that ends now.

    Of what has `where`, `sum`, `after`, `before`, or `within` beside a count, the newest 100 times are remembered.
    After (or before) something that never happened there is nothing. `where` does not look into lists of products.
    """

    event: Annotated[Text, Meta(description='the event, such as "Product Viewed" or "Order Completed"')]
    where: Annotated[Values, Meta(description='only those with these properties: { category = "mugs" }')] = {}
    at_least: Annotated[Whole, Meta(description="how many times")] = 1
    within: Annotated[
        Duration | None, Meta(description="counting, and summing, only those less than this long ago")] = None
    sum: Annotated[Sum | None, Meta(description="and what a number in them comes to")] = None
    last_before: Annotated[Duration | None, Meta(description="the last time is at least this long ago")] = None
    first_within: Annotated[Duration | None, Meta(description="the first time is less than this long ago")] = None
    after: Annotated[
        Text | None, Meta(description="counting only those after the last time of this other event")] = None
    before: Annotated[
        Text | None, Meta(description="counting only those before the last time of this other event")] = None


class Sequence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Things done one after another, with whatever else between them. What was done once in this order stays done."""

    steps: Annotated[tuple[Text | Did, ...],
                     Meta(min_length=2, max_length=6, description='events in this order: ["Product Viewed", '
             '"Product Added"]; '
                          "a table gives an event and its `where`")]
    within: Annotated[Duration | None, Meta(description="from the first to the last takes less than this")] = None
    last_within: Annotated[Duration | None, Meta(description="the last of them is less than this long ago")] = None


class Has(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of the person. Of sources, mediums and campaigns (utm) capitals count: `Google` is not `google`."""

    country: Annotated[Texts | None, Meta(description='where they are, as ISO codes: "CA" or ["CA", "US"]')] = None
    device: Annotated[
        Literal["desktop", "mobile", "tablet"] | tuple[Literal["desktop", "mobile", "tablet"], ...] | None,
        Meta(description="what they are using now, else what they used last"),
    ] = None
    language: Annotated[Texts | None, Meta(description='what they read: "fr", or "fr-CA" for one region')] = None
    source: Annotated[Texts | None, Meta(description="the utm_source that brought them here last")] = None
    first_source: Annotated[Texts | None, Meta(description="the utm_source that brought them here first")] = None
    medium: Annotated[Texts | None, Meta(description="the utm_medium that brought them here last")] = None
    campaign: Annotated[Texts | None, Meta(description="the utm_campaign that brought them here last")] = None
    consent: Annotated[Texts | None, Meta(description="the purpose they agreed to (or the default grants it)")] = None
    trait: Annotated[
        Values,
        Meta(description='traits and their values, all of which must match: { plan = "gold", age = { at_least = 18 } }')
    ] = {}
    address: Annotated[
        Literal["email", "phone", "push"] | tuple[Literal["email", "phone", "push"], ...] | None,
        Meta(description="an address we may write to: known, and not given up as unreachable"),
    ] = None
    visits_at_least: Annotated[Whole | None, Meta(description="visits so far, the open one included")] = None
    known: Annotated[
        bool | None, Meta(description="whether they are a known customer, not an anonymous visitor")] = None
    first_seen_within: Annotated[Duration | None, Meta(description="first seen less than this long ago")] = None
    last_seen_before: Annotated[Duration | None, Meta(description="last seen at least this long ago")] = None


class InSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The visit that is open. Between visits none of this holds.

    Of utm values and parts of addresses capitals count: `Google` is not `google`.
    """

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
    medium: Annotated[Texts | None, Meta(description="the utm_medium of this visit")] = None
    campaign: Annotated[Texts | None, Meta(description="the utm_campaign of this visit")] = None
    ordered: Annotated[bool | None, Meta(description="whether they ordered in this visit")] = None


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
    contains_product: Annotated[Texts | None, Meta(description="this product was in one of the last 20 of them")] = None
    contains_category: Annotated[
        Texts | None, Meta(description="a product of this category was in one of the last 20 of them")] = None


Digit = Annotated[int, Meta(ge=1, le=5)]


class Rfm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where they stand by recency, frequency and money, each from 1 (worst) to 5 (best).

    Who never ordered stands nowhere.
    """

    group: Annotated[
        Literal["champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating", "lost"]
        | tuple[Literal["champions", "loyal", "promising", "new_customers", "needs_attention", "at_risk", "hibernating",
                        "lost"], ...] | None,
        Meta(description="the group of cells"),
    ] = None
    recency_at_least: Annotated[Digit | None, Meta(description="the last order was lately enough")] = None
    recency_at_most: Annotated[Digit | None, Meta(description="the last order was long enough ago")] = None
    frequency_at_least: Annotated[Digit | None, Meta(description="they order often enough")] = None
    frequency_at_most: Annotated[Digit | None, Meta(description="they order seldom enough")] = None
    money_at_least: Annotated[Digit | None, Meta(description="they spend enough")] = None
    money_at_most: Annotated[Digit | None, Meta(description="they spend little enough")] = None


class Funnel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The stage they are at: the furthest stage of `shop.toml` whose condition holds."""

    stage: Annotated[Texts | None, Meta(description="exactly this stage (of a list: any of them)")] = None
    at_least: Annotated[Text | None, Meta(description="this stage or a later one")] = None


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How likely the person is to buy in this visit, as learned; nothing holds before there is a model."""

    at_least: Annotated[Share | None, Meta(description="the probability, between 0 and 1")] = None
    below: Annotated[Share | None, Meta(description="the probability is less than this")] = None
    band: Annotated[
        Literal["likely_buyers", "undecided", "unlikely"] | None, Meta(description="the learned segment they are in")
    ] = None


class Holds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A coupon of theirs that is still good: offered, neither used nor expired."""

    pool: Annotated[Texts, Meta(description="from coupons/NAME.toml (of a list: from any)")]
    ends_within: Annotated[Duration | None, Meta(description="it expires in this time or less")] = None


class WasSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What we have told them: a campaign that was shown, or a message that was accepted for delivery."""

    campaign: Annotated[Texts, Meta(description="the campaign (of a list: any)")]
    at_least: Annotated[Few, Meta(description="how many times; within a time at most 50, so many are remembered")] = 1
    within: Annotated[Duration | None, Meta(description="counting only what is less than this long ago")] = None


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What must be true. Everything written side by side must hold."""

    all: Annotated["tuple[Condition, ...]", Meta(description="all of these hold")] = ()
    any: Annotated["tuple[Condition, ...]", Meta(description="at least one of these holds")] = ()
    not_: "Annotated[Condition | None, Meta(description='this does not hold')]" = field(default=None, name="not")
    did: Annotated[Did | tuple[Did, ...] | None, Meta(description="the person did this (of a list: all of it)")] = None
    did_not: Annotated[Did | tuple[Did, ...] | None, Meta(description="they did not (of a list: none of it)")] = None
    sequence: Annotated[Sequence | None, Meta(description="they did this in this order")] = None
    has: Annotated[Has | None, Meta(description="what is known of them")] = None
    session: Annotated[InSession | None, Meta(description="the visit that is open")] = None
    cart: Annotated[InCart | None, Meta(description="the cart as it stands")] = None
    orders: Annotated[Orders | None, Meta(description="what they bought")] = None
    rfm: Annotated[Rfm | None, Meta(description="recency, frequency and money")] = None
    funnel: Annotated[Funnel | None, Meta(description="the stage of the shop's own funnel")] = None
    score: Annotated[Score | None, Meta(description="how likely they are to buy")] = None
    in_segment: Annotated[Texts | None, Meta(description="they belong to this segment (of a list: to any)")] = None
    holds_coupon: Annotated[Holds | None, Meta(description="they hold a coupon that is still good")] = None
    was_said: Annotated[WasSaid | None, Meta(description="we told them this")] = None


EVERYONE = Condition()
"""No condition at all."""
