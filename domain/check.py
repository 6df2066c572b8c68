"""Check: what is wrong with a playbook although every field has the right type.

Names that nobody declares, conditions that say nothing or can never hold, templates that cannot be shown.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from domain.campaign import Campaign, Trigger
from domain.condition import BANDS, Condition, Did
from domain.duration import UNITS, parse
from domain.event_names import EVENTS, meant
from domain.money import to_minor
from domain.playbook import Playbook
from domain.problem import Path
from domain.shop import Shop
from domain.template import Template, is_safe_url

DEEPEST = 8
MOST_PARTS = 200
LONGEST_CHAIN = 50
"""How deep conditions nest, how many they are, and how many segments refer to each other in a row, at most."""

PURPOSES = ("marketing", "personalization", "analytics", "service")
"""Purposes that need no declaration."""


class Finding(NamedTuple):
    """One mistake: in which part ("shop", "segments", "campaigns", "templates"), of what name, in which field."""

    part: str
    name: str
    path: Path
    text: str


def findings(playbook: Playbook, broken: Iterable[str] = ()) -> list[Finding]:
    """All mistakes. `broken` names segments that could not be read: who refers to them is not to blame.

    >>> from domain.segment import Segment
    >>> findings(Playbook(segments=(Segment("a", Condition(did=Did("Product Aded"))),)))[0].text
    'there is no event "Product Aded"; did you mean "Product Added"?'
    """
    names = {*(segment.name for segment in playbook.segments), *BANDS, *broken}
    events = EVENTS | set(playbook.shop.events)
    found = [Finding("shop", "", path, text) for path, text in _shop(playbook.shop)]
    for segment in playbook.segments:
        if segment.name in BANDS:
            found.append(Finding("segments", segment.name, ("name",), "is the name of a learned segment"))
        if segment.when == Condition():
            found.append(Finding("segments", segment.name, ("when",), "says nothing: everybody would belong to it"))
        found += [Finding("segments", segment.name, ("when", *path), text)
                  for path, text in _condition(segment.when, playbook.shop, events, names)]
    found += [Finding("segments", name, ("when",), text) for name, text in _circles(playbook)]
    for campaign in playbook.campaigns:
        found += [Finding("campaigns", campaign.name, path, text)
                  for path, text in _campaign(campaign, playbook, events, names)]
    for name, source in sorted(playbook.templates.items()):
        found += [Finding("templates", name, (), text) for text in _template(source, html=True)]
    return found


Found = Iterator[tuple[Path, str]]


def _shop(shop: Shop) -> Found:
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
    yield from _duration(("limits", "cooldown"), shop.limits.cooldown)


def _duration(path: Path, text: str | None, least: int = 0) -> Found:
    if text is None:
        return
    try:
        if parse(text) < least:
            yield path, f'should be at least {least // 1000}s, is "{text}"'
    except ValueError as wrong:
        yield path, str(wrong)


def _event(path: Path, event: str, events: Iterable[str]) -> Found:
    if event not in events:
        yield path, (f'there is no event "{event}"'
                     + (meant(event, events) or f'; if it is your own, shop.toml names it: events = ["{event}"]'))


# -- conditions --------------------------------------------------------------------------------------------------


def _condition(condition: Condition, shop: Shop, events: Iterable[str], segments: Iterable[str]) -> Found:
    for parts, (path, part, depth) in enumerate(_walk(condition, (), 0)):
        if depth > DEEPEST:
            yield path, f"conditions nest at most {DEEPEST} deep"
            return
        if parts >= MOST_PARTS:
            yield (), f"a condition has at most {MOST_PARTS} parts"
            return
        if path and not isinstance(part, Did) and part == type(part)():
            yield path, "says nothing"
        if isinstance(part, Condition):
            names = part.in_segment if isinstance(part.in_segment, tuple) else (part.in_segment,)
            for name in names:
                if name is not None and name not in segments:
                    yield (*path, "in_segment"), f'there is no segment "{name}"{meant(name, segments)}'
        elif isinstance(part, Did):
            yield from _event((*path, "event"), part.event, events)
            if part.within is not None and part.at_least > 1:
                yield (*path, "at_least"), ("counting within a time is not possible yet: leave out `within`, "
                                            "or write at_least = 1")
        yield from _impossible(path, part, shop)
        for field in ("within", "older_than", "untouched_for", "last_within", "last_before"):
            yield from _duration((*path, field), getattr(part, field, None))


def _walk(part: Any, path: Path, depth: int) -> Iterator[tuple[Path, Any, int]]:
    """A condition, its parts, and the conditions inside."""
    yield path, part, depth
    if depth > DEEPEST or not isinstance(part, Condition):
        return
    for field in msgspec.structs.fields(Condition):
        value = getattr(part, field.name)
        if isinstance(value, tuple):
            for n, one in enumerate(value):
                if isinstance(one, msgspec.Struct):
                    yield from _walk(one, (*path, field.encode_name, n), depth + 1)
        elif isinstance(value, msgspec.Struct):
            yield from _walk(value, (*path, field.encode_name), depth + isinstance(value, Condition))


def _impossible(path: Path, part: Any, shop: Shop) -> Found:
    """Lower bounds that no upper bound leaves room for."""
    for low, high in (("value_at_least", "value_below"), ("at_least", "below")):
        least, most = getattr(part, low, None), getattr(part, high, None)
        if least is not None and most is not None and least >= most:
            yield (*path, high), f"can never hold: nothing is at least {least:g} and less than {most:g}"
    for field in ("value_at_least", "value_below"):
        amount = getattr(part, field, None)
        if amount is not None:
            try:
                to_minor(amount, shop.currency)
            except ValueError as wrong:
                yield (*path, field), str(wrong)
    exact, least = getattr(part, "count_is", None), getattr(part, "count_at_least", None)
    if exact is not None and least is not None and exact < least:
        yield (*path, "count_is"), f"can never hold: {exact} is less than {least}"
    if getattr(part, "empty", None) and (
            part.items_at_least is not None or part.value_at_least is not None or part.value_below is not None
            or part.contains_category is not None or part.contains_product is not None
            or part.older_than is not None or part.untouched_for is not None):
        yield (*path, "empty"), "can never hold: the rest asks for something in the cart"
    countries = getattr(part, "country", None)
    for country in countries if isinstance(countries, tuple) else (countries,):
        if country is not None and not (len(country) == 2 and country.isascii() and country.isalpha()
                                        and country.isupper()):
            yield (*path, "country"), f'should be a two-letter code such as "CA", is "{country}"'


def _circles(playbook: Playbook) -> Iterator[tuple[str, str]]:
    """Segments that refer to themselves, through whatever others."""
    refers = {segment.name: sorted(set(_referred(segment.when))) for segment in playbook.segments}
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
                yield path[-1], "segments refer to each other in a circle: " + " -> ".join(circle)
            elif name in refers and name not in state:
                if len(path) >= LONGEST_CHAIN:
                    yield name, f"more than {LONGEST_CHAIN} segments refer to each other in a row"
                    return
                state[name] = 1
                path.append(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(refers[name])]


def _referred(condition: Condition) -> Iterator[str]:
    for _, part, _ in _walk(condition, (), 0):
        if isinstance(part, Condition) and part.in_segment is not None:
            yield from part.in_segment if isinstance(part.in_segment, tuple) else (part.in_segment,)


# -- campaigns ---------------------------------------------------------------------------------------------------


def _campaign(campaign: Campaign, playbook: Playbook, events: Iterable[str], segments: Iterable[str]) -> Found:
    yield from _trigger(campaign.trigger, events, segments)
    for path, text in _condition(campaign.when, playbook.shop, events, segments):
        yield ("when", *path), text
    purposes = {*PURPOSES, *playbook.shop.consent.purposes}
    if campaign.purpose not in purposes:
        yield ("purpose",), f'there is no purpose "{campaign.purpose}"{meant(campaign.purpose, purposes)}'
    least = UNITS["m"] if campaign.trigger.exit_intent else UNITS["s"]
    yield from _duration(("valid_for",), campaign.valid_for, least)
    for event in campaign.disarm_on:
        yield from _event(("disarm_on",), event, events)
    total = campaign.limits.total
    if total is not None and campaign.limits.per_day is not None and campaign.limits.per_day > total:
        yield ("limits", "per_day"), f"is more than the total of {total}"
    yield from _content(campaign, playbook)


def _trigger(trigger: Trigger, events: Iterable[str], segments: Iterable[str]) -> Found:
    if not trigger.kind:
        yield ("trigger",), "should be exactly one of event, segment, exit_intent, seconds_on_site"
    if trigger.event is not None:
        yield from _event(("trigger", "event"), trigger.event, events)
    if trigger.segment is not None and trigger.segment not in segments:
        yield ("trigger", "segment"), f'there is no segment "{trigger.segment}"{meant(trigger.segment, segments)}'
    if trigger.properties and trigger.event is None:
        yield ("trigger", "properties"), "go only with `event`"


def _content(campaign: Campaign, playbook: Playbook) -> Found:
    for variant in ("default", "desktop", "mobile", "tablet"):
        own = getattr(campaign.content, variant)
        if own is None:
            continue
        path = ("content", variant)
        if own.body and own.template:
            yield path, "has both a body and a template: choose one"
        if own.template and own.template not in playbook.templates:
            yield (*path, "template"), (f'there is no "{own.template}" in templates/'
                                        + meant(own.template, playbook.templates))
        if variant == "default" and not (own.title or own.body or own.template):
            yield path, "shows nothing: it needs a title, a body or a template"
        if campaign.content.words(variant).button and not campaign.content.words(variant).url:
            yield (*path, "button"), "leads nowhere: it needs a url"
        for field in ("title", "body", "button", "url", "image_url", "coupon"):
            for text in _template(getattr(own, field), html=field == "body"):
                yield (*path, field), text
        for field in ("url", "image_url"):
            url = getattr(own, field)
            if url and "{" not in url and not is_safe_url(url):
                yield (*path, field), f'should be a path, or begin with https:// or http://, is "{url[:80]}"'


def _template(source: str, *, html: bool) -> list[str]:
    try:
        return Template(source, html=html).problems()
    except ValueError as wrong:
        return [str(wrong)]
