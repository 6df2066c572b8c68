"""Campaigns: what to say, to whom, on what occasion, how often at most, and in which words.

>>> campaign = msgspec.convert({"name": "hello", "format": "bar", "trigger": {"exit_intent": True},
...                             "content": {"default": {"title": "Hello"}}}, Campaign)
>>> campaign.trigger.kind, campaign.limits.per_session, campaign.content.variant("mobile")
('exit_intent', 1, 'default')
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.condition import EVERYONE, Condition, Share, Text, Values
from domain.content import DEVICES, Content, Device, Words
from domain.duration import Duration
from domain.trigger import KINDS, Name, Trigger

__all__ = ["DEVICES", "KINDS", "Campaign", "Content", "Device", "Goal", "Limits", "Trigger", "Variant", "Words"]

ON_SITE = ("popup", "banner", "bar", "slot")
OFF_SITE = ("email", "sms", "push", "chat", "webhook", "file")
Format = Literal["popup", "banner", "bar", "slot", "email", "sms", "push", "chat", "webhook", "file"]
Times = Annotated[int, Meta(ge=1, le=1_000_000)]
Moment = Annotated[
    str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}( \d{2}:\d{2})?$", description='a day or a minute: "2026-12-01", '
             '"2026-12-01 09:00"')
]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often one person may see it. What is not shown does not count.

    What was sent and may still be shown counts until its time is over. What fills a slot again on another page, with
    the same words, is no further showing. Where only time has to pass, what is armed for an exit, or waits for its
    second on the site, comes at that very moment.
    """

    per_session: Annotated[Times, Meta(description="in one visit; only on the site")] = 1
    per_day: Annotated[Times | None, Meta(description="in one day of the person's time zone")] = None
    per_week: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(description="in the last seven days of the person's time zone, today included")] = None
    total: Annotated[Times | None, Meta(description="ever")] = None
    every: Annotated[Duration | None, Meta(description="the least time between two of them")] = None


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One side of an experiment. What its words leave out is as in the campaign's `content`."""

    share: Annotated[
        Annotated[float, Meta(gt=0, le=1_000)], Meta(description="its weight beside the other variants'")] = 1.0
    content: Annotated[Content | None, Meta(description="its own words; left out: the campaign's")] = None


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What it is for, so that it can be told whether it works.

    While one goal is open, another showing belongs to it.
    """

    event: Annotated[Text, Meta(description="the event that is hoped for")] = "Order Completed"
    where: Annotated[Values, Meta(description="with these properties")] = {}
    within: Annotated[Duration, Meta(description="this soon after it was shown (or held out)")] = "7d"
    value: Annotated[
        str, Meta(max_length=64, description="the property that says what it is worth: a number, or an amount "
                  "(`revenue`, `total`, `value`, `subtotal`, `price`, `shipping`, `tax`, `discount`), which is told in "
                  "minor units of the shop's currency")
    ] = ""


AMOUNTS = frozenset(("revenue", "total", "value", "subtotal", "price", "shipping", "tax", "discount"))
"""Properties that are amounts of money: as the value of a goal they are in minor units of the shop's currency."""


class Campaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One standing offer, on the site or by message.

    Of several whose moment comes together they are asked in the order of their priority, then by name; also where they
    waited for it, by a delay or through quiet hours. A place that one of them takes is not there for the next.
    """

    name: Name
    format: Annotated[Format, Meta(description="how it looks, or the channel it goes through")]
    trigger: Annotated[Trigger, Meta(description="on what occasion")]
    content: Annotated[Content, Meta(description="in which words")]
    description: Annotated[str, Meta(max_length=2_000, description="what it is for, in your words")] = ""
    slot: Annotated[
        str,
        Meta(max_length=200, description="with format = \"slot\": the element that it fills, as a CSS selector "
             "(`#hero`)")
    ] = ""
    when: Annotated[Condition, Meta(description="to whom; left out: everyone")] = EVERYONE
    unless: Annotated[Condition | None, Meta(description="but not to whom this is true of")] = None
    priority: Annotated[
        int, Meta(ge=-1_000_000, le=1_000_000, description="of several for the same place, the highest is shown")
    ] = 0
    group: Annotated[
        Name | None,
        Meta(description="a group of shop.toml: at one moment one of the group wins, and they share its limits")
    ] = None
    limits: Annotated[Limits, Meta(description="how often at most")] = Limits()
    purpose: Annotated[
        Text, Meta(description="the consent it needs; `service` needs none (an order confirmation, say)")
    ] = "marketing"
    urgent: Annotated[bool, Meta(description="may go out in quiet hours too (messages)")] = False
    start: Annotated[Moment | None, Meta(description="not before, in the shop's time zone")] = None
    end: Annotated[Moment | None, Meta(description="not from then on, in the shop's time zone")] = None
    holdout: Annotated[
        Share, Meta(description="the share of people who never get it, so that its effect can be told")] = 0.0
    variants: Annotated[
        dict[Name, Variant],
        Meta(max_length=20, description="an experiment: each person always gets the same one")] = {}
    goal: Annotated[Goal | None, Meta(description="what it is for")] = None
    coupon: Annotated[
        Name | None,
        Meta(description="a coupon of this pool is reserved for the person; `{{ coupon.code }}` in the words. "
             "A coupon of it that they hold already is used again"),
    ] = None
    valid_for: Annotated[
        Duration | None,
        Meta(description="how long it may be shown (or sent) after it was decided; left out: 30s, 30m on exit "
             "intent, 1d for messages"),
    ] = None
    disarm_on: Annotated[
        tuple[Text, ...],
        Meta(max_length=20, description="events that take it back while it was not shown yet; what is armed for an "
             "exit may come back with the next event")
    ] = ()

    @property
    def on_site(self) -> bool:
        """Whether a browser shows it; else a channel sends it."""
        return self.format in ON_SITE
