"""Campaigns: content, trigger, eligible people, frequency caps and experiments.

>>> campaign = msgspec.convert({"name": "hello", "format": "bar", "trigger": {"exit_intent": True},
...                             "content": {"default": {"title": "Hello"}}}, Campaign)
>>> campaign.trigger.kind, campaign.frequency_caps.per_session, campaign.content.device_key("mobile")
('exit_intent', 1, 'default')
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.duration import Duration
from domain.playbook.condition import EVERYONE, Condition, PropertyMatch, Share, Text
from domain.playbook.trigger import Name, Trigger

Device = Literal["desktop", "mobile", "tablet"]
DEVICES = ("desktop", "mobile", "tablet")


class Copy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content that is shown. All fields are Liquid templates: `{{ product.name }}`, `{{ cart.value | money }}`."""

    title: Annotated[str, Meta(max_length=1_000, description="the heading (in an email: the subject), plain text")] = ""
    body: Annotated[str, Meta(max_length=50_000, description="simple HTML")] = ""
    template: Annotated[str, Meta(max_length=200, description="or a file in templates/, such as `exit.liquid`")] = ""
    button: Annotated[str, Meta(max_length=1_000, description="the label of the button")] = ""
    url: Annotated[str, Meta(max_length=2_000, description="the link of the button: a path, or http(s)")] = ""
    image_url: Annotated[str, Meta(max_length=2_000, description="an image: a path, or http(s)")] = ""
    coupon: Annotated[str, Meta(max_length=200, description="a coupon code to show, the same for everyone")] = ""


class Creative(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content, with variants per device. A device inherits missing fields from `default`."""

    default: Annotated[Copy, Meta(description="for all devices")]
    desktop: Annotated[Copy | None, Meta(description="on a computer")] = None
    mobile: Annotated[Copy | None, Meta(description="on a phone")] = None
    tablet: Annotated[Copy | None, Meta(description="on a tablet")] = None

    def device_key(self, device: str) -> str:
        """Return the key of the content for a device: the device, or `default`."""
        return device if device in DEVICES and getattr(self, device) is not None else "default"

    def copy_for(self, device_key: str) -> Copy:
        """Return the content of a device; missing fields are inherited from `default`.

        >>> content = Creative(default=Copy(title="Hello", body="<p>x</p>"), mobile=Copy(template="short.liquid"))
        >>> content.copy_for("mobile")
        Copy(title='Hello', body='', template='short.liquid', button='', url='', image_url='', coupon='')
        """
        own: Copy | None = getattr(self, device_key)
        if own is None or device_key == "default":
            return self.default
        return inherit_copy(own, self.default)


def inherit_copy(copy: Copy, fallback: Copy) -> Copy:
    """Fill the missing fields of a copy from a fallback. A body and a template exclude each other."""
    merged = {name: getattr(copy, name) or getattr(fallback, name) for name in Copy.__struct_fields__}
    if copy.body or copy.template:
        merged.update(body=copy.body, template=copy.template)
    return Copy(**merged)


ONSITE_FORMATS = ("popup", "banner", "bar", "slot")
OFFSITE_FORMATS = ("email", "sms", "push", "chat", "webhook", "file")
Format = Literal["popup", "banner", "bar", "slot", "email", "sms", "push", "chat", "webhook", "file"]
CampaignCap = Annotated[int, Meta(ge=1, le=1_000_000)]
LocalDateTime = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d{2}-\d{2}( \d{2}:\d{2})?$",
        description='a date or a date and time: "2026-12-01", "2026-12-01 09:00"',
    ),
]


class FrequencyCaps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often one person may see the campaign. Only exposures count.

    A campaign that was sent and can still be shown counts until it expires. The same content in a slot on another page
    is not another exposure. When only time has to pass, a preloaded exit offer, or a campaign that waits for its second
    on the site, is eligible again at that moment.
    """

    per_session: Annotated[CampaignCap, Meta(description="in one session; only on the site")] = 1
    per_day: Annotated[CampaignCap | None, Meta(description="in one day of the person's time zone")] = None
    per_week: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(description="in the last seven days of the person's time zone, today included"),
    ] = None
    total: Annotated[CampaignCap | None, Meta(description="in total")] = None
    min_interval: Annotated[Duration | None, Meta(description="minimum time between two exposures")] = None


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One variant of an experiment. It inherits missing content from the campaign."""

    weight: Annotated[
        Annotated[float, Meta(gt=0, le=1_000)], Meta(description="its weight relative to the other variants")
    ] = 1.0
    content: Annotated[Creative | None, Meta(description="its own content; default: the content of the campaign")] = (
        None
    )


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The conversion that measures the effect of the campaign.

    While a goal is pending, another exposure belongs to the same goal.
    """

    event: Annotated[Text, Meta(description="the conversion event")] = "Order Completed"
    where: Annotated[PropertyMatch, Meta(description="with these properties")] = {}
    within: Annotated[
        Duration, Meta(description="the attribution window: the time after the exposure (or holdout)")
    ] = "7d"
    value: Annotated[
        str,
        Meta(
            max_length=64,
            description="the property with the value of the conversion: a number, or an amount "
            "(`revenue`, `total`, `value`, `subtotal`, `price`, `shipping`, `tax`, `discount`), which is reported in "
            "minor units of the shop's currency",
        ),
    ] = ""


AMOUNT_PROPERTIES = frozenset(("revenue", "total", "value", "subtotal", "price", "shipping", "tax", "discount"))
"""Properties with amounts of money. As the value of a goal they are in minor units of the shop's currency."""


class Campaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One campaign, on the site or in messages.

    If several campaigns are triggered at the same moment, also after a delay or quiet hours, they are decided by
    priority, then by name. A placement that one of them takes is not available to the next.
    """

    name: Name
    format: Annotated[Format, Meta(description="how it is shown on the site, or the channel of the message")]
    trigger: Annotated[Trigger, Meta(description="what triggers the campaign")]
    content: Annotated[Creative, Meta(description="the content")]
    description: Annotated[str, Meta(max_length=2_000, description="a note for your team")] = ""
    slot: Annotated[
        str, Meta(max_length=200, description='with format = "slot": the element to fill, as a CSS selector (`#hero`)')
    ] = ""
    when: Annotated[Condition, Meta(description="who is eligible; default: everyone")] = EVERYONE
    unless: Annotated[Condition | None, Meta(description="who is excluded")] = None
    priority: Annotated[
        int,
        Meta(
            ge=-1_000_000,
            le=1_000_000,
            description="of several campaigns for the same placement, the highest priority wins",
        ),
    ] = 0
    group: Annotated[
        Name | None,
        Meta(
            description="a group from shop.toml: at one moment one campaign of the group wins, and all share its caps"
        ),
    ] = None
    frequency_caps: Annotated[FrequencyCaps, Meta(description="how often one person may see it")] = FrequencyCaps()
    purpose: Annotated[
        Text, Meta(description="the consent it needs; `service` needs none (for example an order confirmation)")
    ] = "marketing"
    ignore_quiet_hours: Annotated[bool, Meta(description="send in quiet hours too (messages)")] = False
    start: Annotated[LocalDateTime | None, Meta(description="first moment, in the shop's time zone")] = None
    end: Annotated[LocalDateTime | None, Meta(description="end (exclusive), in the shop's time zone")] = None
    holdout: Annotated[
        Share, Meta(description="the share of people who never get the campaign, to measure its effect")
    ] = 0.0
    variants: Annotated[
        dict[Name, Variant], Meta(max_length=20, description="an experiment: a person always gets the same variant")
    ] = {}
    goal: Annotated[Goal | None, Meta(description="the conversion to measure")] = None
    coupon: Annotated[
        Name | None,
        Meta(
            description="a coupon of this pool is reserved for the person; `{{ coupon.code }}` in the content. "
            "A coupon of the pool that the person holds already is used again"
        ),
    ] = None
    valid_for: Annotated[
        Duration | None,
        Meta(
            description="how long it may be shown (or sent) after the decision; default: 30s, 30m on exit "
            "intent, 1d for messages"
        ),
    ] = None
    cancel_on: Annotated[
        tuple[Text, ...],
        Meta(
            max_length=20,
            description="events that cancel it before it is shown; a preloaded exit offer can return with the next "
            "event",
        ),
    ] = ()

    @property
    def on_site(self) -> bool:
        """Whether a browser shows the campaign; otherwise a channel sends it."""
        return self.format in ONSITE_FORMATS
