"""Check of campaigns: occasions that never come, limits that contradict each other, words that cannot be shown."""

from datetime import datetime

from domain.campaign import Campaign, Limits
from domain.check_condition import condition, duration
from domain.condition import EVERYONE
from domain.content import Content
from domain.duration import UNITS
from domain.event_names import meant
from domain.known import Found, Known
from domain.problem import Path
from domain.template import Template, is_safe_url
from domain.trigger import KINDS, Trigger

RESERVED = ("holdout", "global_holdout", "default")
"""Names that no variant may have: they say something else wherever variants are counted."""


def campaign(one: Campaign, known: Known) -> Found:
    """All mistakes of one campaign."""
    yield from _trigger(one.trigger, known)
    for path, text in condition(one.when, known):
        yield ("when", *path), text
    if one.unless is not None:
        if one.unless == EVERYONE:
            yield ("unless",), "says nothing: nobody would be left"
        for path, text in condition(one.unless, known):
            yield ("unless", *path), text
    if one.purpose not in known.purposes:
        yield ("purpose",), f'there is no purpose "{one.purpose}"{meant(one.purpose, known.purposes)}'
    least = UNITS["m"] if one.trigger.exit_intent else UNITS["s"]
    yield from duration(("valid_for",), one.valid_for, least)
    for event in one.disarm_on:
        yield from known.event_at(("disarm_on",), event)
    if one.group is not None and one.group not in known.shop.groups:
        yield ("group",), f'shop.toml has no [groups.{one.group}]{meant(one.group, known.shop.groups)}'
    yield from known.pool_at(("coupon",), one.coupon)
    if one.goal is not None:
        yield from known.event_at(("goal", "event"), one.goal.event)
        yield from duration(("goal", "within"), one.goal.within, UNITS["m"])
    yield from _limits(one.limits)
    yield from _channel(one)
    yield from _dates(one)
    yield from _experiment(one)
    yield from _content(one, known)


def _trigger(trigger: Trigger, known: Known) -> Found:
    if not trigger.kind:
        yield ("trigger",), f"should be exactly one of {', '.join(KINDS)}"
    yield from known.event_at(("trigger", "event"), trigger.event)
    yield from known.segment_at(("trigger", "segment"), trigger.segment)
    yield from known.segment_at(("trigger", "left_segment"), trigger.left_segment)
    if trigger.properties and trigger.event is None:
        yield ("trigger", "properties"), "go only with `event`"
    if trigger.delay is not None:
        if trigger.kind not in ("event", "segment", "left_segment"):
            yield ("trigger", "delay"), "goes only with event, segment or left_segment"
        yield from duration(("trigger", "delay"), trigger.delay, UNITS["s"])


def _limits(limits: Limits) -> Found:
    for narrow, wide in (("per_day", "per_week"), ("per_day", "total"), ("per_week", "total"),
                         ("per_session", "total")):
        less, more = getattr(limits, narrow), getattr(limits, wide)
        if less is not None and more is not None and less > more:
            yield ("limits", narrow), f"is more than the {wide} of {more}: it would never be reached"
    if limits.every is not None:
        yield from duration(("limits", "every"), limits.every, UNITS["s"])


def _channel(one: Campaign) -> Found:
    if (one.format == "slot") != bool(one.slot):
        yield ("slot",), ("is missing: which element is filled?" if one.format == "slot"
                          else 'goes only with format = "slot"')
    if any(sign in one.slot for sign in "{}<;\n") or one.slot != one.slot.strip():
        yield ("slot",), "should be a CSS selector such as `#hero`"
    if one.on_site:
        if one.urgent:
            yield ("urgent",), "goes only with messages: on the site there are no quiet hours"
    else:
        if one.trigger.kind in ("exit_intent", "seconds_on_site"):
            yield ("trigger", one.trigger.kind), (f"is an occasion on the site, and {one.format} goes out by message: "
                                                  "choose an event, a segment or a workflow")
        for device in ("desktop", "mobile", "tablet"):
            if getattr(one.content, device) is not None:
                yield ("content", device), "a message is read on any device: use content.default"


def _dates(one: Campaign) -> Found:
    moments = {}
    for field in ("start", "end"):
        text = getattr(one, field)
        if text is not None:
            try:
                moments[field] = datetime.fromisoformat(text)
            except ValueError:
                yield (field,), f'there is no such day or time: "{text}"'
    if len(moments) == 2 and moments["start"] >= moments["end"]:
        yield ("end",), f"is not after the start ({one.start}): it would never be shown"


def _experiment(one: Campaign) -> Found:
    if one.holdout >= 1:
        yield ("holdout",), "holds out everybody: it would never be shown"
    for name in one.variants:
        if name in RESERVED:
            yield ("variants", name), f'"{name}" means something else: choose another name'
    if len(one.variants) == 1:
        yield ("variants",), "an experiment needs at least two variants (for one against nothing, use holdout)"


def _content(one: Campaign, known: Known) -> Found:
    yield from _words(one.content, ("content",), one, known, whole=True)
    for name, variant in one.variants.items():
        if variant.content is not None:
            yield from _words(variant.content, ("variants", name, "content"), one, known, whole=False)


def _words(content: Content, path: Path, one: Campaign, known: Known, *, whole: bool) -> Found:
    for device in ("default", "desktop", "mobile", "tablet"):
        own = getattr(content, device)
        if own is None:
            continue
        here = (*path, device)
        if own.body and own.template:
            yield here, "has both a body and a template: choose one"
        if own.template and own.template not in known.playbook.templates:
            yield (*here, "template"), (f'there is no "{own.template}" in templates/'
                                        + meant(own.template, known.playbook.templates))
        if whole and device == "default" and not (own.title or own.body or own.template):
            yield here, "shows nothing: it needs a title, a body or a template"
        words = content.words(device)
        if whole and words.button and not words.url:
            yield (*here, "button"), "leads nowhere: it needs a url"
        for field in ("title", "body", "button", "url", "image_url", "coupon"):
            for text in template(getattr(own, field), html=field == "body"):
                yield (*here, field), text
        for field in ("url", "image_url"):
            url = getattr(own, field)
            if url and "{" not in url and not is_safe_url(url):
                yield (*here, field), f'should be a path, or begin with https:// or http://, is "{url[:80]}"'
        if own.coupon and one.coupon:
            yield (*here, "coupon"), "the campaign has a coupon of its own for each person already"


def template(source: str, *, html: bool) -> list[str]:
    """What is wrong with a template."""
    try:
        return Template(source, html=html).problems()
    except ValueError as wrong:
        return [str(wrong)]
