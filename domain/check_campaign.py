"""Check of campaigns: occasions that never come, limits that contradict each other, experiments without a side."""

import re
from datetime import datetime

from domain.amounts import some
from domain.campaign import OFF_SITE, Campaign, Limits
from domain.check_condition import condition, duration, never_comes
from domain.check_words import content
from domain.condition import EVERYONE, Condition, InSession
from domain.contradiction import contradiction
from domain.duration import UNITS
from domain.event_names import meant, offered
from domain.known import Found, Known, NoSuch
from domain.shop import weight_of
from domain.trigger import KINDS, Occasion, Trigger

_NO_SELECTOR = re.compile(r"[.#](?![\w\\-]|[^\x00-\x7f])(?![^\[]*\])")
"""A point or a # without a name behind it, but for within brackets."""

RESERVED = ("holdout", "global_holdout", "default")
"""Names that no variant may have: they say something else wherever variants are counted."""


def campaign(one: Campaign, known: Known) -> Found:
    """All mistakes of one campaign."""
    yield from _trigger(one.trigger, known)
    yield from _audience(one, known)
    yield from _purpose(one, known)
    least = UNITS["m"] if one.trigger.exit_intent else UNITS["s"]
    yield from duration(("valid_for",), one.valid_for, least)
    for event in one.disarm_on:
        yield from known.event_at(("disarm_on",), event)
    if one.group is not None and one.group not in known.shop.groups:
        yield ("group",), NoSuch(f'shop.toml has no [groups.{one.group}]{meant(one.group, known.shop.groups)}')
    yield from known.pool_at(("coupon",), one.coupon)
    if one.goal is not None:
        yield from known.event_at(("goal", "event"), one.goal.event)
        yield from duration(("goal", "within"), one.goal.within, UNITS["m"])
    yield from _limits(one.limits)
    yield from _channel(one)
    yield from _dates(one)
    yield from _experiment(one)
    yield from content(one, known)


def _audience(one: Campaign, known: Known) -> Found:
    mistakes = [(("when", *path), text) for path, text in condition(one.when, known)]
    if one.unless is not None:
        if one.unless == EVERYONE:
            mistakes.append((("unless",), "says nothing: nobody would be left"))
        mistakes += [(("unless", *path), text) for path, text in condition(one.unless, known)]
        asked = (one.when, *([Condition(session=InSession(seconds_at_least=one.trigger.seconds_on_site))]
                             if one.trigger.seconds_on_site is not None else []))
        if not mistakes and (why := contradiction(Condition(all=asked, not_=one.unless), known.conditions,
                                                  known.stages)):
            mistakes.append((("unless",), f"leaves nobody: {why}"))
    yield from mistakes
    if not mistakes and one.trigger.delay is None:
        moment = one.trigger
        when = one.when if one.unless is None else Condition(all=(one.when,), not_=one.unless)
        occasion = Occasion(moment.event, moment.properties, moment.segment, moment.left_segment, when)
        if (occasion.event or occasion.segment or occasion.left_segment) and (why := never_comes(occasion, known)):
            yield ("when",), f"can never hold on this occasion: {why}"


def _purpose(one: Campaign, known: Known) -> Found:
    if one.purpose not in known.purposes:
        channel, colon, purpose = one.purpose.rpartition(":")
        if colon and channel in OFF_SITE:
            yield ("purpose",), (f'names a channel: write purpose = "{purpose}"; what people said of it by '
                                 f"{channel} is asked for as well where it goes out by {channel}")
        else:
            yield ("purpose",), NoSuch(
                f'there is no purpose "{one.purpose}"{offered(one.purpose, sorted(known.purposes))}')
    if one.purpose == "service":
        if one.holdout:
            yield ("holdout",), "does not go with what is for `service`: that is owed to everybody"
        return
    weight, budget = weight_of(one.format, known.shop), known.shop.pressure
    for points, span in ((budget.per_day, "day"), (budget.per_week, "week")):
        if points is not None and weight > points:
            yield ("format",), (f"{one.format} weighs {some(weight, 'point')}, and the pressure budget of shop.toml is "
                                f"{points:g} a {span}: it would never be said")
            return


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
    if any(sign in one.slot for sign in "{}<;\n") or one.slot != one.slot.strip() or _NO_SELECTOR.search(one.slot) \
            or any(one.slot.count(begin) != one.slot.count(end) for begin, end in ("[]", "()")):
        yield ("slot",), "should be a CSS selector such as `#hero`"
    if one.format == "slot" and one.trigger.exit_intent:
        yield ("trigger", "exit_intent"), ("does not go with a slot, which is part of the page from the beginning: "
                                           "choose popup, banner or bar")
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
