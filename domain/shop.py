"""The shop: `shop.toml`, what holds for everything else in the playbook.

>>> Shop().currency, Shop().consent.default
('EUR', 'granted')
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.condition import Text
from domain.duration import Duration

Answer = Literal["granted", "denied"]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description='an ISO 4217 code such as "EUR"')]
Times = Annotated[int, Meta(ge=1, le=1_000)]


class ShopLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much one person is to see of everything together. What is not shown does not count."""

    per_session: Annotated[Times, Meta(description="in one visit")] = 3
    per_day: Annotated[Times, Meta(description="in one day of the person's time zone")] = 6
    cooldown: Annotated[Duration, Meta(description="the least time between two popups")] = "0s"


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds for people who have not answered. An answer always counts."""

    default: Annotated[Answer, Meta(description="for every purpose that is not named")] = "granted"
    purposes: Annotated[
        dict[str, Answer], Meta(max_length=50, description='purposes of your own: { profiling = "denied" }')
    ] = {}


class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The shop itself."""

    name: Annotated[str, Meta(max_length=200, description="what it is called; `{{ shop.name }}` in templates")] = ""
    url: Annotated[str, Meta(max_length=2_000, description="where it is; `{{ shop.url }}` in templates")] = ""
    currency: Annotated[Currency, Meta(description="its currency; all amounts in the playbook are in it")] = "EUR"
    country: Annotated[
        Annotated[str, Meta(pattern="^[A-Z]{2}$")] | None, Meta(description='where it is at home, such as "IT"')
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
    events: Annotated[
        tuple[Text, ...], Meta(max_length=500, description="names of events of your own, so that a slip is noticed")
    ] = ()
