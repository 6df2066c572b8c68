"""Check: what is wrong with a playbook although every field has the right type.

Names that nobody declares, conditions that say nothing or can never hold, steps nobody reaches, limits that contradict
each other, templates that cannot be shown. The parts are in `domain/check_*.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from domain.check_campaign import campaign
from domain.check_condition import condition, duration, walk
from domain.check_coupons import codes, never_held, pool
from domain.check_shop import shop_wide
from domain.check_template import problems
from domain.check_workflow import occasion, workflow
from domain.condition import BANDS, EVERYONE, Condition
from domain.known import PURPOSES, Finding, Found, Known, NoSuch, is_cell, several
from domain.lines import Line
from domain.playbook import Playbook
from domain.problem import Path
from domain.segment import Segment
from domain.trigger import Occasion

__all__ = ["LONGEST_CHAIN", "PURPOSES", "Finding", "findings", "names"]

LONGEST_CHAIN = 50
"""How many segments refer to each other in a row, at most."""


def findings(playbook: Playbook, broken: Mapping[str, Iterable[str]] | None = None) -> list[Finding]:
    """All mistakes. `broken` (by folder) names files that could not be read: who refers to them is not to blame.

    >>> from domain.condition import Did
    >>> findings(Playbook(segments=(Segment("a", Condition(did=Did("Product Aded"))),)))[0].text
    'there is no event "Product Aded"; did you mean "Product Added"?'
    """
    known = Known(playbook, broken or {})
    found = [Finding("shop", "", path, text) for path, text in shop_wide(playbook.shop, known)]
    for segment in playbook.segments:
        found += [Finding("segments", segment.name, path, text) for path, text in _segment(segment, known)]
    found += _circles(playbook)
    for one in playbook.campaigns:
        found += [Finding("campaigns", one.name, path, text) for path, text in campaign(one, known)]
    for flow in playbook.workflows:
        found += [Finding("workflows", flow.name, path, text) for path, text in workflow(flow, known)]
    for coupons in playbook.coupons:
        found += [Finding("coupons", coupons.name, path, text) for path, text in pool(coupons, known)]
    found += codes(playbook.coupons)
    found += never_held(playbook, known)
    for name, source in sorted(playbook.templates.items()):
        found += [Finding("templates", name, (what, Line(line)), text)
                  for line, what, text in problems(source, html=True)]
    if not known.broken.get("workflows"):
        found += _never_sent(playbook)
    return found


def names(part: str, one: Any, known: Known) -> Found:
    """Of a part of which not everything could be read: the names in it that nobody declares, and values that are none.

    Whatever else is said of it may be wrong, because something is missing.
    """
    look: dict[str, Callable[[Any, Known], Found]] = {
        "shop": shop_wide, "segments": _segment, "campaigns": campaign, "workflows": workflow, "coupons": pool}
    yield from ((path, text) for path, text in look[part](one, known) if isinstance(text, NoSuch))


def _never_sent(playbook: Playbook) -> Iterator[Finding]:
    sent = {step.send for flow in playbook.workflows for step in flow.steps}
    for one in playbook.campaigns:
        if one.trigger.workflow and one.name not in sent:
            yield Finding("campaigns", one.name, ("trigger", "workflow"), "no workflow ever sends it")


# -- segments ----------------------------------------------------------------------------------------------------


def _segment(segment: Segment, known: Known) -> Found:
    name = segment.name
    if name in BANDS:
        yield ("name",), "is the name of a learned segment"
    elif name.startswith("funnel_"):
        yield ("name",), "is the name of a stage: names that begin with funnel_ come from [[funnel]] in shop.toml"
    elif name.startswith("rfm_") or is_cell(name):
        yield ("name",), "is the name of an RFM cell: names that begin with rfm_ come from [rfm] in shop.toml"
    if segment.static:
        if segment.when != Condition():
            yield ("when",), "a static segment has none: people are put in by enter_on or by workflows"
    else:
        if segment.when == Condition():
            yield ("when",), "says nothing: everybody would belong to it"
        for field in ("enter_on", "leave_on", "stays"):
            if getattr(segment, field):
                yield (field,), "goes only with static = true"
    if segment.static and not segment.enter_on and name not in known.tagged:
        yield ("static",), "nobody is ever in it: it needs enter_on, or a workflow with a step that tags (tag = \"…\")"
    for path, text in condition(segment.when, known):
        yield ("when", *path), text
    for field in ("enter_on", "leave_on"):
        for n, moment in enumerate(getattr(segment, field)):
            yield from occasion(moment, (field, n), known)
    for n, enters in enumerate(segment.enter_on):
        for m, leaves in enumerate(segment.leave_on):
            if _covers(leaves, enters):
                yield ("enter_on", n), (f"puts nobody in: leave_on[{m + 1}] takes out at the same moment, and what "
                                        "takes out wins; tell them apart by properties or `when`")
    yield from duration(("stays",), segment.stays, 1_000)


def _covers(one: Occasion, other: Occasion) -> bool:
    """Whether whenever the other comes this one does, too, for whomever."""
    return (one.when == EVERYONE and one.properties in ({}, other.properties)
            and (one.event, one.segment, one.left_segment) == (other.event, other.segment, other.left_segment))


def _circles(playbook: Playbook) -> Iterator[Finding]:
    """Segments that refer to themselves, through whatever others."""
    places = {segment.name: {name: path for path, name in reversed(list(_referred(segment)))}
              for segment in playbook.segments}
    refers = {name: sorted(place) for name, place in places.items()}
    stages = playbook.shop.funnel
    for n, stage in enumerate(stages):  # who is at a later stage is not at this one
        asked = {name for _, name in _in(stage.when) if not name.startswith("funnel_")}  # that is said elsewhere
        refers[f"funnel_{stage.name}"] = sorted({*asked, *(f"funnel_{one.name}" for one in stages[n + 1:])})
    state: dict[str, int] = {}
    for start in sorted(refers):
        path, todo = list[str](), [(start, False)]
        while todo:
            name, leaving = todo.pop()
            if leaving:
                path.pop()
                state[name] = 2
            elif state.get(name) == 1:
                circle = [*path[path.index(name):], name]
                n = max((n for n, one in enumerate(path) if one in places), default=0)
                onward = path[n + 1] if n + 1 < len(path) else name
                yield Finding("segments", path[n], places.get(path[n], {}).get(onward, ("when",)),
                              "segments refer to each other in a circle: " + " -> ".join(circle))
            elif name in refers and name not in state:
                if len(path) >= LONGEST_CHAIN:
                    yield Finding("segments", name, ("when",),
                                  f"more than {LONGEST_CHAIN} segments refer to each other in a row")
                    return
                state[name] = 1
                path.append(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(refers[name])]


def _referred(segment: Segment) -> Iterator[tuple[Path, str]]:
    """The segments that a segment refers to, and where."""
    yield from ((("when", *path), name) for path, name in _in(segment.when))
    for field in ("enter_on", "leave_on"):
        for n, moment in enumerate(getattr(segment, field)):
            yield from (((field, n, which), name) for which in ("segment", "left_segment")
                        if (name := getattr(moment, which)) is not None)
            yield from (((field, n, "when", *path), name) for path, name in _in(moment.when))


def _in(when: Condition) -> Iterator[tuple[Path, str]]:
    for path, part, _ in walk(when):
        if isinstance(part, Condition):
            yield from (((*path, "in_segment"), name) for name in several(part.in_segment))
            if part.funnel is not None:
                yield from (((*path, "funnel"), f"funnel_{one}")
                            for one in (*several(part.funnel.stage), *several(part.funnel.at_least)))
