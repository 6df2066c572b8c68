"""Check: what is wrong with a playbook although every field has the right type.

Names that nobody declares, conditions that say nothing or can never hold, steps nobody reaches, limits that contradict
each other, templates that cannot be shown. The parts are in `domain/check_*.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.campaign import OFF_SITE, ON_SITE
from domain.check_campaign import campaign, template
from domain.check_condition import condition, duration, walk
from domain.check_workflow import occasion, workflow
from domain.condition import BANDS, Condition
from domain.coupon import Pool
from domain.duration import parse
from domain.event_names import meant
from domain.known import PURPOSES, Found, Known, is_cell, several
from domain.playbook import Playbook
from domain.problem import Path
from domain.segment import Segment
from domain.shop import RfmCuts, Shop

__all__ = ["LONGEST_CHAIN", "PURPOSES", "Finding", "findings"]

LONGEST_CHAIN = 50
"""How many segments refer to each other in a row, at most."""


class Finding(NamedTuple):
    """One mistake: in which part ("shop" or the folder: "segments", …), of what name, in which field."""

    part: str
    name: str
    path: Path
    text: str


def findings(playbook: Playbook, broken: Mapping[str, Iterable[str]] | None = None) -> list[Finding]:
    """All mistakes. `broken` (by folder) names files that could not be read: who refers to them is not to blame.

    >>> from domain.condition import Did
    >>> findings(Playbook(segments=(Segment("a", Condition(did=Did("Product Aded"))),)))[0].text
    'there is no event "Product Aded"; did you mean "Product Added"?'
    """
    known = Known(playbook, broken or {})
    found = [Finding("shop", "", path, text) for path, text in _shop(playbook.shop, known)]
    for segment in playbook.segments:
        found += [Finding("segments", segment.name, path, text) for path, text in _segment(segment, known)]
    found += [Finding("segments", name, ("when",), text) for name, text in _circles(playbook)]
    for one in playbook.campaigns:
        found += [Finding("campaigns", one.name, path, text) for path, text in campaign(one, known)]
    for flow in playbook.workflows:
        found += [Finding("workflows", flow.name, path, text) for path, text in workflow(flow, known)]
    for pool in playbook.coupons:
        found += [Finding("coupons", pool.name, path, text) for path, text in _pool(pool, known)]
    found += _codes(playbook.coupons)
    for name, source in sorted(playbook.templates.items()):
        found += [Finding("templates", name, (), text) for text in template(source, html=True)]
    if not known.broken.get("workflows"):
        found += _never_sent(playbook)
    return found


def _never_sent(playbook: Playbook) -> Iterator[Finding]:
    sent = {step.send for flow in playbook.workflows for step in flow.steps}
    for one in playbook.campaigns:
        if one.trigger.workflow and one.name not in sent:
            yield Finding("campaigns", one.name, ("trigger", "workflow"), "no workflow ever sends it")


# -- the shop ----------------------------------------------------------------------------------------------------


def _shop(shop: Shop, known: Known) -> Found:
    try:
        ZoneInfo(shop.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield ("timezone",), f'there is no time zone "{shop.timezone}"; they are called like "Europe/Rome"'
    if shop.url and not shop.url.startswith(("http://", "https://")):
        yield ("url",), f'should begin with https:// or http://, is "{shop.url}"'
    if shop.currency in shop.rates:
        yield ("rates", shop.currency), "is the shop's own currency"
    if "service" in shop.consent.purposes:
        yield ("consent", "purposes", "service"), "never needs consent; choose another name"
    yield from duration(("limits", "cooldown"), shop.limits.cooldown)
    pressure = shop.pressure
    if pressure.per_day is not None and pressure.per_week is not None and pressure.per_day > pressure.per_week:
        yield ("pressure", "per_day"), f"is more than the per_week of {pressure.per_week:g}: it would never be reached"
    for name in pressure.weights:
        if name not in (*ON_SITE, *OFF_SITE):
            yield ("pressure", "weights", name), f'there is no format "{name}"{meant(name, (*ON_SITE, *OFF_SITE))}'
    for name, group in shop.groups.items():
        if group.per_day is not None and group.per_week is not None and group.per_day > group.per_week:
            yield ("groups", name, "per_day"), f"is more than the per_week of {group.per_week}"
    if shop.quiet_hours is not None:
        if shop.quiet_hours.begin == shop.quiet_hours.end:
            yield ("quiet_hours", "end"), "is when they begin: nothing would be quiet, or everything"
        for name in shop.quiet_hours.channels:
            if name not in OFF_SITE:
                yield ("quiet_hours", "channels"), f'there is no channel "{name}"{meant(name, OFF_SITE)}'
    if shop.holdout >= 1:
        yield ("holdout",), "holds out everybody: nothing would ever be said"
    names: set[str] = set()
    for n, stage in enumerate(shop.funnel):
        if stage.name in names:
            yield ("funnel", n, "name"), f'there is a stage "{stage.name}" already'
        names.add(stage.name)
        if stage.when == Condition():
            yield ("funnel", n, "when"), "says nothing: everybody would be at this stage"
        for path, text in condition(stage.when, known):
            yield ("funnel", n, "when", *path), text
        for path, part, _ in walk(stage.when):
            if isinstance(part, Condition) and (part.funnel is not None or any(
                    name.startswith("funnel_") for name in several(part.in_segment))):
                yield ("funnel", n, "when", *path), "a stage cannot ask for a stage"
    if shop.rfm is not None:
        yield from _rfm(shop.rfm)


def _rfm(cuts: RfmCuts) -> Found:
    recency: list[float] = []
    for text in cuts.recency:
        try:
            recency.append(parse(text))
        except ValueError as wrong:
            yield ("rfm", "recency"), str(wrong)
    for field, values in (("recency", recency), ("frequency", list(cuts.frequency)), ("money", list(cuts.money))):
        if any(later <= earlier for earlier, later in pairwise(values)):
            yield ("rfm", field), "each should be more than the one before it"


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
    for path, text in condition(segment.when, known):
        yield ("when", *path), text
    for field in ("enter_on", "leave_on"):
        for n, moment in enumerate(getattr(segment, field)):
            yield from occasion(moment, (field, n), known)
    yield from duration(("stays",), segment.stays, 1_000)


def _circles(playbook: Playbook) -> Iterator[tuple[str, str]]:
    """Segments that refer to themselves, through whatever others."""
    refers = {segment.name: sorted(set(_referred(segment))) for segment in playbook.segments}
    stages = playbook.shop.funnel
    for n, stage in enumerate(stages):  # who is at a later stage is not at this one
        refers[f"funnel_{stage.name}"] = sorted({*_in(stage.when), *(f"funnel_{one.name}" for one in stages[n + 1:])})
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
                where = [one for one in path if not one.startswith("funnel_")] or path
                yield where[-1], "segments refer to each other in a circle: " + " -> ".join(circle)
            elif name in refers and name not in state:
                if len(path) >= LONGEST_CHAIN:
                    yield name, f"more than {LONGEST_CHAIN} segments refer to each other in a row"
                    return
                state[name] = 1
                path.append(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(refers[name])]


def _referred(segment: Segment) -> Iterator[str]:
    yield from _in(segment.when)
    for moment in (*segment.enter_on, *segment.leave_on):
        yield from (name for name in (moment.segment, moment.left_segment) if name is not None)
        yield from _in(moment.when)


def _in(when: Condition) -> Iterator[str]:
    for _, part, _ in walk(when):
        if isinstance(part, Condition):
            yield from several(part.in_segment)
            if part.funnel is not None:
                yield from (f"funnel_{one}" for one in (*several(part.funnel.stage), *several(part.funnel.at_least)))


# -- coupons -----------------------------------------------------------------------------------------------------


def _pool(pool: Pool, known: Known) -> Found:
    worth = [name for name in ("percent", "amount", "free_shipping") if getattr(pool, name)]
    if len(worth) != 1:
        yield (), "should be worth exactly one of percent, amount, free_shipping"
    yield from duration(("valid_for",), pool.valid_for, 60_000)
    if pool.codes and pool.prefix:
        yield ("prefix",), "goes only with codes that are made up, and codes/ lists them"
    for other in pool.not_with:
        yield from known.pool_at(("not_with",), other)
        if other == pool.name:
            yield ("not_with",), "names itself; `once` says that a person gets only one"


def _codes(pools: Iterable[Pool]) -> Iterator[Finding]:
    """Codes that stand in two places: two people would be given the same one."""
    seen: dict[str, str] = {}
    for pool in pools:
        twice: dict[str, str] = {}
        for code in pool.codes:
            other = seen.setdefault(code.upper(), pool.name)
            if other != pool.name:
                twice.setdefault(other, code)
        if len({code.upper() for code in pool.codes}) < len(pool.codes):
            yield Finding("coupons", pool.name, ("codes",), "lists a code twice (capitals make no difference)")
        for other, code in twice.items():
            yield Finding("coupons", pool.name, ("codes",), f'has a code that coupons/{other} has too: "{code}"')
