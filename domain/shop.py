"""The shop: `shop.toml`, what holds for everything else in the playbook.

>>> Shop().currency, Shop().consent.default
('EUR', 'granted')
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.campaign import ON_SITE
from domain.condition import Condition, Share, Text
from domain.duration import Duration
from domain.trigger import Name
from domain.workflow import Clock

Answer = Literal["granted", "denied"]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description='an ISO 4217 code such as "EUR"')]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$", description='a two-letter code such as "IT"')]
Times = Annotated[int, Meta(ge=1, le=1_000)]
Weight = Annotated[float, Meta(ge=0, le=1_000)]


class ShopLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much one person is to see of everything together. What is not shown does not count, nor does what fills a
    slot; what is for `service` counts and is not held back.
    """

    per_session: Annotated[Times, Meta(description="on the site in one visit")] = 3
    per_day: Annotated[Times, Meta(description="in one day of the person's time zone")] = 6
    cooldown: Annotated[Duration, Meta(description="the least time between two popups")] = "0s"


class Pressure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One budget per person over everything we say, on the site and off it. Each channel weighs; what is not shown
    does not.

    Campaigns of the purpose `service` count and are never held back by it.
    """

    per_day: Annotated[Weight | None, Meta(description="points in one day of the person's time zone")] = None
    per_week: Annotated[
        Weight | None,
        Meta(description="points in the last seven days of the person's time zone, today included")] = None
    weights: Annotated[
        dict[str, Weight],
        Meta(max_length=20, description="points by format: { popup = 1, email = 3 }; left out: on site 1, slots "
             "0, messages 3"),
    ] = {}


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Campaigns that belong together: at one moment one of them wins, and they share these limits."""

    per_session: Annotated[Times | None, Meta(description="of the whole group on the site in one visit")] = None
    per_day: Annotated[Times | None, Meta(description="in one day of the person's time zone")] = None
    per_week: Annotated[
        Times | None, Meta(description="in the last seven days of the person's time zone, today included")] = None


class QuietHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When nobody is written to, in the person's time zone. A message that falls into it waits for its end."""

    begin: Annotated[Clock, Meta(description='"21:00"')] = "21:00"
    end: Annotated[Clock, Meta(description='"08:00"')] = "08:00"
    channels: Annotated[
        tuple[str, ...], Meta(max_length=10, description="only for these channels; left out: for all messages")] = ()


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One stage of the funnel, a segment of its own: `funnel_NAME`."""

    name: Name
    when: Annotated[Condition, Meta(description="who has come this far")]
    description: Annotated[str, Meta(max_length=2_000, description="in your words")] = ""


Cuts = tuple[Annotated[float, Meta(ge=0, le=1e12)], Annotated[float, Meta(ge=0, le=1e12)],
             Annotated[float, Meta(ge=0, le=1e12)], Annotated[float, Meta(ge=0, le=1e12)]]


class RfmCuts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the five classes of recency, frequency and money begin. `learned` lets them move with your customers."""

    learned: Annotated[
        bool,
        Meta(description="fifths of all customers, learned as they order; until there are 100, the cuts below")] = False
    recency: Annotated[
        tuple[Duration, Duration, Duration, Duration],
        Meta(description="the last order is less than this long ago: class 5, 4, 3, 2; else 1")
    ] = ("30d", "90d", "180d", "365d")
    frequency: Annotated[Cuts, Meta(description="at least so many orders: class 2, 3, 4, 5; else 1")] = (2, 3, 5, 10)
    money: Annotated[
        Cuts, Meta(description="orders worth at least this: class 2, 3, 4, 5; else 1")] = (50, 100, 250, 500)


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds for people who have not answered. An answer always counts."""

    default: Annotated[Answer, Meta(description="for every purpose that is not named")] = "granted"
    purposes: Annotated[
        dict[str, Answer],
        Meta(max_length=50, description='purposes of your own, or on one channel: { profiling = "denied", '
             '"email:marketing" = "denied" }'),
    ] = {}


class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The shop itself."""

    name: Annotated[str, Meta(max_length=200, description="what it is called; `{{ shop.name }}` in templates")] = ""
    url: Annotated[str, Meta(max_length=2_000, description="where it is; `{{ shop.url }}` in templates")] = ""
    currency: Annotated[Currency, Meta(description="its currency; all amounts in the playbook are in it")] = "EUR"
    country: Annotated[
        Country | None, Meta(description='where it is at home, such as "IT"')
    ] = None
    timezone: Annotated[
        Text, Meta(description='where its days begin and end, such as "Europe/Rome", unless a person\'s own is known')
    ] = "UTC"
    rates: Annotated[
        dict[Currency, Annotated[float, Meta(gt=0, le=1e9)]],
        Meta(max_length=200, description="what one unit of another currency is worth in the shop's: { USD = 0.92 }"),
    ] = {}
    limits: Annotated[ShopLimits, Meta(description="how much one person is to see")] = ShopLimits()
    consent: Annotated[Consent, Meta(description="what holds until somebody answers")] = Consent()
    pressure: Annotated[Pressure, Meta(description="one budget over everything, on the site and off it")] = Pressure()
    groups: Annotated[
        dict[Name, Group],
        Meta(max_length=100, description="groups of campaigns, and what they share: [groups.discounts]")] = {}
    quiet_hours: Annotated[
        QuietHours | None, Meta(description="when nobody is written to; left out: no such hours")] = None
    holdout: Annotated[Share, Meta(description="the share of people to whom nothing is said but `service`, "
                                   "so that the effect of everything together can be told")] = 0.0
    late_after: Annotated[
        Duration,
        Meta(description="what happened longer ago than this when it arrives counts, but is no occasion: it starts no "
             "campaign or workflow")] = "30m"
    funnel: Annotated[
        tuple[Stage, ...], Meta(max_length=20, description="the stages of your funnel, the first one first")] = ()
    rfm: Annotated[RfmCuts | None, Meta(description="recency, frequency, money; left out: nobody has a cell")] = None
    events: Annotated[
        tuple[Text, ...], Meta(max_length=500, description="names of events of your own, so that a slip is noticed")
    ] = ()


def weight_of(format: str, shop: Shop) -> float:
    """What one showing weighs in the pressure budget: as the shop says, else on site 1, slots 0, messages 3.

    >>> weight_of("email", Shop()), weight_of("slot", Shop(pressure=Pressure(weights={"slot": 2})))
    (3.0, 2)
    """
    return shop.pressure.weights.get(format, 0.0 if format == "slot" else 1.0 if format in ON_SITE else 3.0)
