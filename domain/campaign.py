"""Campaigns: what to say, to whom, on what occasion, how often at most, and in which words.

>>> campaign = msgspec.convert({"name": "hello", "format": "bar", "trigger": {"exit_intent": True},
...                             "content": {"default": {"title": "Hello"}}}, Campaign)
>>> campaign.trigger.kind, campaign.limits.per_session, campaign.content.variant("mobile")
('exit_intent', 1, 'default')
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.condition import EVERYONE, Condition, Text, Values
from domain.duration import Duration
from domain.segment import Name

Device = Literal["desktop", "mobile", "tablet"]
Times = Annotated[int, Meta(ge=1, le=1_000_000)]


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The occasion: exactly one of `event`, `segment`, `exit_intent`, `seconds_on_site`."""

    event: Annotated[Text | None, Meta(description="this event happens")] = None
    properties: Annotated[Values, Meta(description="and its properties have these values (only with `event`)")] = {}
    segment: Annotated[Name | None, Meta(description="the person enters this segment")] = None
    exit_intent: Annotated[
        bool, Meta(description="they are about to leave; decided ahead, shown by the browser with no delay")
    ] = False
    seconds_on_site: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)] | None,
        Meta(description="the visit is this old: at that second, or as soon after as `when` holds; once a visit"),
    ] = None

    @property
    def kind(self) -> str:
        """Which one it is; empty unless exactly one is given."""
        given = [name for name in KINDS if getattr(self, name)]
        return given[0] if len(given) == 1 else ""


KINDS = ("event", "segment", "exit_intent", "seconds_on_site")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often one person may see it. What is not shown does not count."""

    per_session: Annotated[Times, Meta(description="in one visit")] = 1
    per_day: Annotated[Times | None, Meta(description="in one day of the person's time zone")] = None
    total: Annotated[Times | None, Meta(description="ever")] = None


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is shown. All of it is Liquid: `{{ product.name }}`, `{{ cart.value | money }}`."""

    title: Annotated[str, Meta(max_length=1_000, description="the heading, plain text")] = ""
    body: Annotated[str, Meta(max_length=50_000, description="simple HTML")] = ""
    template: Annotated[str, Meta(max_length=200, description="or a file in templates/, such as `exit.liquid`")] = ""
    button: Annotated[str, Meta(max_length=1_000, description="what the button says")] = ""
    url: Annotated[str, Meta(max_length=2_000, description="where it leads: a path, or http(s)")] = ""
    image_url: Annotated[str, Meta(max_length=2_000, description="a picture: a path, or http(s)")] = ""
    coupon: Annotated[str, Meta(max_length=200, description="a code to show")] = ""


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The words, and other words for a device. What a device leaves out is as in `default`."""

    default: Annotated[Words, Meta(description="for everybody")]
    desktop: Annotated[Words | None, Meta(description="on a computer")] = None
    mobile: Annotated[Words | None, Meta(description="on a phone")] = None
    tablet: Annotated[Words | None, Meta(description="on a tablet")] = None

    def variant(self, device: str) -> str:
        """The name of the words for a device."""
        return device if device in DEVICES and getattr(self, device) is not None else "default"

    def words(self, variant: str) -> Words:
        """The words of a variant, with what it leaves out taken from `default`.

        >>> content = Content(default=Words(title="Hello", body="<p>x</p>"), mobile=Words(template="short.liquid"))
        >>> content.words("mobile")
        Words(title='Hello', body='', template='short.liquid', button='', url='', image_url='', coupon='')
        """
        own: Words | None = getattr(self, variant)
        if own is None or variant == "default":
            return self.default
        merged = {name: getattr(own, name) or getattr(self.default, name) for name in Words.__struct_fields__}
        if own.body or own.template:
            merged.update(body=own.body, template=own.template)
        return Words(**merged)


DEVICES = ("desktop", "mobile", "tablet")


class Campaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One standing offer."""

    name: Name
    format: Annotated[Literal["popup", "banner", "bar"], Meta(description="how it looks")]
    trigger: Annotated[Trigger, Meta(description="on what occasion")]
    content: Annotated[Content, Meta(description="in which words")]
    description: Annotated[str, Meta(max_length=2_000, description="what it is for, in your words")] = ""
    when: Annotated[Condition, Meta(description="to whom; left out: everyone")] = EVERYONE
    priority: Annotated[
        int, Meta(ge=-1_000_000, le=1_000_000, description="of several for the same place, the highest is shown")
    ] = 0
    limits: Annotated[Limits, Meta(description="how often at most")] = Limits()
    purpose: Annotated[
        Text, Meta(description="the consent it needs; `service` needs none (an order confirmation, say)")
    ] = "marketing"
    valid_for: Annotated[
        Duration | None,
        Meta(description="how long it may be shown after it was decided; left out: 30s, and 30m on exit intent"),
    ] = None
    disarm_on: Annotated[
        tuple[Text, ...], Meta(max_length=20, description="events that take it back while it was not shown yet")
    ] = ()
