"""Occasions: what makes a campaign speak, a workflow begin, a tag stick."""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.condition import EVERYONE, Condition, Text, Values
from domain.duration import Duration

NAME = r"^[a-z][a-z0-9_-]{0,63}$"
Name = Annotated[str, Meta(pattern=NAME, description="lower case letters, digits, - and _, as in the file's name")]


class Occasion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A moment: exactly one of `event`, `segment`, `left_segment`; and who it goes for."""

    event: Annotated[Text | None, Meta(description='this event happens: "Product Added"')] = None
    properties: Annotated[Values, Meta(description="and its properties have these values (only with `event`)")] = {}
    segment: Annotated[Name | None, Meta(description="the person enters this segment")] = None
    left_segment: Annotated[Name | None, Meta(description="the person leaves this segment")] = None
    when: Annotated[Condition, Meta(description="and this is true of the person then")] = EVERYONE


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The occasion: exactly one of `event`, `segment`, `left_segment`, `exit_intent`, `seconds_on_site`, `workflow`."""

    event: Annotated[Text | None, Meta(description='this event happens: "Product Added"')] = None
    properties: Annotated[Values, Meta(description="and its properties have these values (only with `event`)")] = {}
    segment: Annotated[Name | None, Meta(description="the person enters this segment")] = None
    left_segment: Annotated[Name | None, Meta(description="the person leaves this segment")] = None
    exit_intent: Annotated[
        bool, Meta(description="they are about to leave; decided ahead, shown by the browser with no delay")
    ] = False
    seconds_on_site: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)] | None,
        Meta(description="the visit is this old: at that second, or as soon after as `when` holds and nothing "
             "holds it back; once a visit"),
    ] = None
    workflow: Annotated[bool, Meta(description="only when a workflow says so")] = False
    delay: Annotated[
        Duration | None,
        Meta(description="this long after the occasion, if `when` holds then too (with `event`, `segment`, "
             "`left_segment`)"),
    ] = None

    @property
    def kind(self) -> str:
        """Which one it is; empty unless exactly one is given."""
        given = [name for name in KINDS if getattr(self, name)]
        return given[0] if len(given) == 1 else ""


KINDS = ("event", "segment", "left_segment", "exit_intent", "seconds_on_site", "workflow")
