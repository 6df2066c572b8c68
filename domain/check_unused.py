"""What nobody asks for: segments, coupons, templates and groups that a playbook declares and does not use."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from domain.check_condition import everything
from domain.check_coupons import handed_out
from domain.condition import Condition
from domain.content import Words
from domain.known import Finding, Known, several
from domain.playbook import Playbook
from domain.trigger import Occasion, Trigger


def unused(playbook: Playbook, known: Known, told: frozenset[str]) -> Iterator[Finding]:
    """Everything that nobody refers to; `told` are names that stories speak of.

    Stages tell how far people come, whether or not anybody asks for them.
    """
    asked, templates = _asked(playbook)
    for segment in playbook.segments:
        if segment.name not in asked and segment.name not in told:
            yield Finding("segments", segment.name, ("static",) if segment.static else ("when",),
                          "nobody asks for it: no campaign, no workflow, no other segment, no story")
    handed = handed_out(playbook)
    for pool in playbook.coupons:
        if pool.name not in handed:
            yield Finding("coupons", pool.name, (), (
                f'nobody is given one: no campaign (coupon = "{pool.name}") and no step of a workflow hands them out'))
    for name in sorted(playbook.templates):
        if name not in templates:
            yield Finding("templates", name, (), f'no campaign shows it (template = "{name}")')
    members = Counter(one.group for one in playbook.campaigns)
    for name in playbook.shop.groups:
        if not members[name]:
            yield Finding("shop", "", ("groups", name), f'no campaign belongs to it (group = "{name}")')
        elif members[name] == 1:
            only = next(one.name for one in playbook.campaigns if one.group == name)
            yield Finding("shop", "", ("groups", name), f'only "{only}" belongs to it: limits of its own would do')


def _asked(playbook: Playbook) -> tuple[set[str], set[str]]:
    """The segments that somebody asks for, and the templates that somebody shows."""
    segments, templates = set[str](), set[str]()
    for part, name, _, piece in everything(playbook):
        segments.update(one for one in _segments(piece) if (part, name) != ("segments", one))
        if isinstance(piece, Words):
            templates.add(piece.template)
    return segments, templates


def _segments(piece: Any) -> tuple[str, ...]:
    if isinstance(piece, Condition):
        return several(piece.in_segment)
    if isinstance(piece, (Occasion, Trigger)):
        return (piece.segment or "", piece.left_segment or "")
    return ()
