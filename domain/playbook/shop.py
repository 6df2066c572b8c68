"""The shop (`shop.toml`): settings of the whole playbook, and the RFM groups.

>>> Shop().currency, Shop().consent.default
('EUR', 'granted')

An RFM cell has three digits, each from 1 (worst) to 5 (best). "543" is recency 5, frequency 4, monetary 3.
The group follows from the recency and from the worth: the mean of frequency and monetary, rounded up.

    recency   worth 5 4                3                    2                1
    5 4       champions                loyal (F 3 to 5), promising (F 2)
    3         loyal                    needs_attention      needs_attention  hibernating
    2         at_risk                  at_risk              hibernating      hibernating
    1         at_risk                  lost                 lost             lost

Frequency 1 with recency 4 or 5 is always new_customers.

>>> rfm_group("555"), rfm_group("415"), rfm_group("155"), rfm_group("")
('champions', 'new_customers', 'at_risk', '')
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.duration import Duration
from domain.playbook.campaign import ONSITE_FORMATS
from domain.playbook.condition import RFM_GROUPS, Condition, Share, Text
from domain.playbook.trigger import Name
from domain.playbook.workflow import TimeOfDay

ConsentStatus = Literal["granted", "denied"]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description='an ISO 4217 code such as "EUR"')]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$", description='a two-letter code such as "IT"')]
ShopCap = Annotated[int, Meta(ge=1, le=1_000)]
PressurePoints = Annotated[float, Meta(ge=0, le=1_000)]


class ShopFrequencyCaps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Frequency caps over all campaigns together, per person.

    Only what was shown counts. Slots do not count. `service` campaigns count, but are never suppressed by these caps.
    """

    per_session: Annotated[ShopCap, Meta(description="campaigns on the site in one session")] = 3
    per_day: Annotated[ShopCap, Meta(description="campaigns on the site in one day of the person's time zone")] = 6
    cooldown: Annotated[Duration, Meta(description="minimum time between two popups")] = "0s"


class ContactPressure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One budget per person over all campaigns, on the site and in messages. Each format costs points.

    Only what was shown or sent counts. `service` campaigns count, but are never suppressed by the budget.
    """

    per_day: Annotated[PressurePoints | None, Meta(description="points in one day of the person's time zone")] = None
    per_week: Annotated[
        PressurePoints | None,
        Meta(description="points in the last seven days of the person's time zone, today included"),
    ] = None
    weights: Annotated[
        dict[str, PressurePoints],
        Meta(
            max_length=20,
            description="points by format: { popup = 1, email = 3 }; default: 1 on the site, 0 for slots, 3 for "
            "messages",
        ),
    ] = {}


class CampaignGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A group of campaigns: at one moment only one of them wins, and they share these caps."""

    per_session: Annotated[ShopCap | None, Meta(description="campaigns of the group on the site in one session")] = None
    per_day: Annotated[ShopCap | None, Meta(description="in one day of the person's time zone")] = None
    per_week: Annotated[
        ShopCap | None, Meta(description="in the last seven days of the person's time zone, today included")
    ] = None


class QuietHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Hours without messages, in the person's time zone. A message that falls into them waits for their end."""

    start: Annotated[TimeOfDay, Meta(description='"21:00"')] = "21:00"
    end: Annotated[TimeOfDay, Meta(description='"08:00"')] = "08:00"
    channels: Annotated[
        tuple[str, ...], Meta(max_length=10, description="only for these channels; default: all channels")
    ] = ()


class FunnelStage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One stage of the funnel. Each stage is also a segment: `funnel_NAME`."""

    name: Name
    when: Annotated[Condition, Meta(description="who has reached this stage")]
    description: Annotated[str, Meta(max_length=2_000, description="a note for your team")] = ""


RfmClassBounds = tuple[
    Annotated[float, Meta(ge=0, le=1e12)],
    Annotated[float, Meta(ge=0, le=1e12)],
    Annotated[float, Meta(ge=0, le=1e12)],
    Annotated[float, Meta(ge=0, le=1e12)],
]


class RfmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds of the five classes of recency, frequency and monetary value."""

    quintiles: Annotated[
        bool,
        Meta(
            description="learn the bounds as quintiles of all customers; until there are 100 customers, the bounds "
            "below apply"
        ),
    ] = False
    recency: Annotated[
        tuple[Duration, Duration, Duration, Duration],
        Meta(description="the last order is less than this long ago: class 5, 4, 3, 2; else 1"),
    ] = ("30d", "90d", "180d", "365d")
    frequency: Annotated[RfmClassBounds, Meta(description="at least this many orders: class 2, 3, 4, 5; else 1")] = (
        2,
        3,
        5,
        10,
    )
    monetary: Annotated[RfmClassBounds, Meta(description="orders worth at least this: class 2, 3, 4, 5; else 1")] = (
        50,
        100,
        250,
        500,
    )


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Consent of people who have not answered. An answer always takes precedence."""

    default: Annotated[ConsentStatus, Meta(description="for every purpose that is not listed in `purposes`")] = (
        "granted"
    )
    purposes: Annotated[
        dict[str, ConsentStatus],
        Meta(
            max_length=50,
            description='your own purposes, or a purpose on one channel: { profiling = "denied", '
            '"email:marketing" = "denied" }',
        ),
    ] = {}


class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The shop itself."""

    name: Annotated[str, Meta(max_length=200, description="the name of the shop; `{{ shop.name }}` in templates")] = ""
    url: Annotated[
        str, Meta(max_length=2_000, description="the address of the shop; `{{ shop.url }}` in templates")
    ] = ""
    currency: Annotated[Currency, Meta(description="its currency; all amounts in the playbook are in it")] = "EUR"
    country: Annotated[Country | None, Meta(description='the country of the shop, such as "IT"')] = None
    timezone: Annotated[
        Text, Meta(description='the time zone of the shop, such as "Europe/Rome"; used for people whose own is unknown')
    ] = "UTC"
    exchange_rates: Annotated[
        dict[Currency, Annotated[float, Meta(gt=0, le=1e9)]],
        Meta(
            max_length=200,
            description="the value of one unit of another currency in the shop's currency: { USD = 0.92 }",
        ),
    ] = {}
    frequency_caps: Annotated[ShopFrequencyCaps, Meta(description="how many campaigns one person sees at most")] = (
        ShopFrequencyCaps()
    )
    consent: Annotated[Consent, Meta(description="consent of people who have not answered")] = Consent()
    contact_pressure: Annotated[ContactPressure, Meta(description="one budget over all campaigns and messages")] = (
        ContactPressure()
    )
    groups: Annotated[
        dict[Name, CampaignGroup],
        Meta(max_length=100, description="groups of campaigns and their shared caps: [groups.discounts]"),
    ] = {}
    quiet_hours: Annotated[QuietHours | None, Meta(description="hours without messages; default: none")] = None
    holdout: Annotated[
        Share,
        Meta(
            description="the share of people who get only `service` campaigns, to measure the effect of all "
            "campaigns together"
        ),
    ] = 0.0
    late_after: Annotated[
        Duration,
        Meta(description="an event that arrives later than this counts, but triggers no campaign and no workflow"),
    ] = "30m"
    funnel: Annotated[
        tuple[FunnelStage, ...], Meta(max_length=20, description="the stages of your funnel, in order")
    ] = ()
    rfm: Annotated[
        RfmSettings | None, Meta(description="recency, frequency, monetary value; default: no one has an RFM cell")
    ] = None
    custom_events: Annotated[
        tuple[Text, ...],
        Meta(max_length=500, description="the names of your own events, so that typing errors are found"),
    ] = ()


def pressure_weight(format: str, shop: Shop) -> float:
    """Return the points of one exposure: the shop's weight, else 1 on the site, 0 for slots, 3 for messages.

    >>> shop = Shop(contact_pressure=ContactPressure(weights={"slot": 2}))
    >>> pressure_weight("email", Shop()), pressure_weight("slot", shop)
    (3.0, 2)
    """
    return shop.contact_pressure.weights.get(
        format, 0.0 if format == "slot" else 1.0 if format in ONSITE_FORMATS else 3.0
    )


def rfm_group(cell: str) -> str:
    """Return the group of an RFM cell; empty for people without a cell."""
    return RFM_GROUP_BY_CELL.get(cell, "")


def _classify_rfm(recency: int, frequency: int, monetary: int) -> str:
    worth = (frequency + monetary + 1) // 2
    if recency >= 4:
        if frequency == 1:
            return "new_customers"
        if worth >= 4:
            return "champions"
        return "loyal" if frequency >= 3 else "promising"
    if recency == 3:
        return "loyal" if worth >= 4 else "needs_attention" if worth >= 2 else "hibernating"
    if recency == 2:
        return "at_risk" if worth >= 3 else "hibernating"
    return "at_risk" if worth >= 4 else "lost"


RFM_GROUP_BY_CELL = {
    f"{r}{f}{m}": _classify_rfm(r, f, m) for r in range(1, 6) for f in range(1, 6) for m in range(1, 6)
}
"""The group of each cell."""

RFM_CELLS_BY_GROUP = {
    group: tuple(cell for cell in sorted(RFM_GROUP_BY_CELL) if RFM_GROUP_BY_CELL[cell] == group) for group in RFM_GROUPS
}
"""The cells of each group."""
