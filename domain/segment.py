"""Segments: a name for people who belong together.

A dynamic segment has a condition (`when`); a static one keeps whom an occasion put there (`enter_on`).
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.condition import EVERYONE, Condition
from domain.duration import Duration
from domain.trigger import NAME, Name, Occasion

__all__ = ["NAME", "Name", "Segment"]


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The people of whom `when` is true, from the very moment it is until the very moment it is no longer; or those
    whom an occasion tagged, until another takes them out or `stays` is over.

    Where one moment brings both, what takes out comes before what puts in, and what puts in before the end of a stay.
    Tags move along on login. Changing `stays` does not change a stay that has begun.

    >>> engaged = msgspec.convert({"name": "engaged", "when": {"session": {"pages_at_least": 3}}}, Segment)
    >>> engaged.when.session.pages_at_least, engaged.static
    (3, False)
    """

    name: Name
    when: Annotated[Condition, Meta(description="who belongs to it (a dynamic segment)")] = EVERYONE
    description: Annotated[str, Meta(max_length=2_000, description="what it is for, in your words")] = ""
    static: Annotated[bool, Meta(description="people are put in and taken out: by `enter_on`, or by workflows")] = False
    enter_on: Annotated[
        tuple[Occasion, ...], Meta(max_length=20, description="any of these puts them in (static)")] = ()
    leave_on: Annotated[
        tuple[Occasion, ...], Meta(max_length=20, description="any of these takes them out (static)")] = ()
    stays: Annotated[
        Duration | None, Meta(description="how long after the latest `enter_on` they stay (static); left out: for good")
    ] = None
