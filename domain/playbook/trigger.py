"""Triggers: what starts a campaign or a workflow, or adds a person to a static segment."""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.duration import Duration
from domain.playbook.condition import EVERYONE, Condition, PropertyMatch, Text

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"
Name = Annotated[
    str, Meta(pattern=NAME_PATTERN, description="lower case letters, digits, - and _, as in the file's name")
]


class EntryTrigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A trigger of a segment or workflow: exactly one of `event`, `segment`, `exited_segment`."""

    event: Annotated[Text | None, Meta(description='this event happens: "Product Added"')] = None
    properties: Annotated[
        PropertyMatch, Meta(description="and the event has these properties (only with `event`)")
    ] = {}
    segment: Annotated[Name | None, Meta(description="the person enters this segment")] = None
    exited_segment: Annotated[Name | None, Meta(description="the person exits this segment")] = None
    when: Annotated[Condition, Meta(description="and this is true of the person at that moment")] = EVERYONE


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A trigger: exactly one of `event`, `segment`, `exited_segment`, `exit_intent`, `seconds_on_site`, `workflow`."""

    event: Annotated[Text | None, Meta(description='this event happens: "Product Added"')] = None
    properties: Annotated[
        PropertyMatch, Meta(description="and the event has these properties (only with `event`)")
    ] = {}
    segment: Annotated[Name | None, Meta(description="the person enters this segment")] = None
    exited_segment: Annotated[Name | None, Meta(description="the person exits this segment")] = None
    exit_intent: Annotated[
        bool,
        Meta(
            description="the person is about to leave the site; preloaded, so that the browser shows it without delay"
        ),
    ] = False
    seconds_on_site: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)] | None,
        Meta(
            description="the session is this old: at that second, or later, as soon as `when` is true and nothing "
            "suppresses "
            "it; once per session"
        ),
    ] = None
    workflow: Annotated[bool, Meta(description="only a workflow sends it")] = False
    delay: Annotated[
        Duration | None,
        Meta(
            description="this long after the trigger, if `when` is still true (with `event`, `segment`, "
            "`exited_segment`)"
        ),
    ] = None

    @property
    def kind(self) -> str:
        """The kind of trigger; empty unless exactly one is given."""
        given = [name for name in TRIGGER_KINDS if getattr(self, name)]
        return given[0] if len(given) == 1 else ""


TRIGGER_KINDS = ("event", "segment", "exited_segment", "exit_intent", "seconds_on_site", "workflow")
