"""Segments: named groups of people.

A dynamic segment has a condition (`when`). A static segment keeps the people that a trigger or a workflow added.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from domain.duration import Duration
from domain.playbook.condition import EVERYONE, Condition
from domain.playbook.trigger import EntryTrigger, Name


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A dynamic segment has the people for whom `when` is true now. A static segment has the people that a trigger
    added, until a trigger removes them or `expires_after` is over.

    At the same moment exits are applied first, then entries, then expiry. Memberships of a static segment are kept on
    login. A change of `expires_after` does not affect people who are in the segment already.

    >>> engaged = msgspec.convert({"name": "engaged", "when": {"session": {"pages_at_least": 3}}}, Segment)
    >>> engaged.when.session.pages_at_least, engaged.static
    (3, False)
    """

    name: Name
    when: Annotated[Condition, Meta(description="who is in it (dynamic segment)")] = EVERYONE
    description: Annotated[str, Meta(max_length=2_000, description="a note for your team")] = ""
    static: Annotated[bool, Meta(description="people are added and removed by triggers or by workflows")] = False
    enter_on: Annotated[
        tuple[EntryTrigger, ...], Meta(max_length=20, description="any of these adds the person (static segment)")
    ] = ()
    exit_on: Annotated[
        tuple[EntryTrigger, ...], Meta(max_length=20, description="any of these removes the person (static segment)")
    ] = ()
    expires_after: Annotated[
        Duration | None,
        Meta(description="how long people stay after the latest `enter_on` (static segment); default: forever"),
    ] = None
