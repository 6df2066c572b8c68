"""Segments: a named condition and being in it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.condition import Condition

NAME = r"^[a-z][a-z0-9_-]{0,63}$"
Name = Annotated[str, Meta(pattern=NAME, description="lower case letters, digits, - and _, as in the file's name")]


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The people of whom `when` is true, from the very moment it is until the very moment it is no longer.

    >>> engaged = msgspec.convert({"name": "engaged", "when": {"session": {"pages_at_least": 3}}}, Segment)
    >>> engaged.when.session.pages_at_least
    3
    """

    name: Name
    when: Annotated[Condition, Meta(description="who belongs to it")]
    description: Annotated[str, Meta(max_length=2_000, description="what it is for, in your words")] = ""
