"""Check of shop.toml: limits that contradict each other, consent to what there is not, stages nobody comes to."""

from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain import countries
from domain.campaign import OFF_SITE, ON_SITE
from domain.check_condition import condition, duration, walk
from domain.condition import Condition
from domain.duration import parse
from domain.event_names import meant
from domain.known import Found, Known, several
from domain.shop import RfmCuts, Shop

SOONEST_LATE = 60_000
"""Milliseconds: what has been under way for less is not late."""


def shop_wide(shop: Shop, known: Known) -> Found:
    """All mistakes of shop.toml."""
    try:
        ZoneInfo(shop.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield ("timezone",), f'there is no time zone "{shop.timezone}"; they are called like "Europe/Rome"'
    if shop.country and (wrong := countries.slip(shop.country)):
        yield ("country",), wrong
    if shop.url and not shop.url.startswith(("http://", "https://")):
        yield ("url",), f'should begin with https:// or http://, is "{shop.url}"'
    if shop.currency in shop.rates:
        yield ("rates", shop.currency), "is the shop's own currency"
    for name in shop.consent.purposes:
        if name == "service":
            yield ("consent", "purposes", name), "never needs consent; choose another name"
        elif ":" in name:
            yield from known.consent_at(("consent", "purposes", name), name)
    yield from duration(("limits", "cooldown"), shop.limits.cooldown)
    yield from _late_after(shop)
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
    yield from _funnel(shop, known)
    if shop.rfm is not None:
        yield from _rfm(shop.rfm)


def _late_after(shop: Shop) -> Found:
    try:
        if parse(shop.late_after) < SOONEST_LATE:
            yield ("late_after",), "should be a minute or more: nothing arrives at the moment it happens"
    except ValueError as wrong:
        yield ("late_after",), str(wrong)


def _funnel(shop: Shop, known: Known) -> Found:
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
