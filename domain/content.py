"""Content: the words of a campaign, and other words for a device."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Device = Literal["desktop", "mobile", "tablet"]
DEVICES = ("desktop", "mobile", "tablet")


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is shown. All of it is Liquid: `{{ product.name }}`, `{{ cart.value | money }}`."""

    title: Annotated[
        str, Meta(max_length=1_000, description="the heading (of a message: its subject), plain text")] = ""
    body: Annotated[str, Meta(max_length=50_000, description="simple HTML")] = ""
    template: Annotated[str, Meta(max_length=200, description="or a file in templates/, such as `exit.liquid`")] = ""
    button: Annotated[str, Meta(max_length=1_000, description="what the button says")] = ""
    url: Annotated[str, Meta(max_length=2_000, description="where it leads: a path, or http(s)")] = ""
    image_url: Annotated[str, Meta(max_length=2_000, description="a picture: a path, or http(s)")] = ""
    coupon: Annotated[str, Meta(max_length=200, description="a code to show that is the same for everybody")] = ""


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
        return inherit(own, self.default)


def inherit(own: Words, rest: Words) -> Words:
    """Words, with what they leave out taken from others; a body and a template exclude each other."""
    merged = {name: getattr(own, name) or getattr(rest, name) for name in Words.__struct_fields__}
    if own.body or own.template:
        merged.update(body=own.body, template=own.template)
    return Words(**merged)
