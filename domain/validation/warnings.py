"""Warnings: settings of a valid playbook that are probably not intended. They do not stop it from going live."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from domain.duration import UNIT_MS, format_duration, parse_duration
from domain.event import EVENT_NAMES, did_you_mean, did_you_mean_or_list
from domain.playbook.campaign import Campaign, Copy, Creative, Goal
from domain.playbook.condition import Condition, Did, PropertyFilter
from domain.playbook.playbook import Playbook
from domain.playbook.shop import Shop
from domain.playbook.trigger import TRIGGER_KINDS, EntryTrigger, Trigger
from domain.playbook.workflow import WaitFor, Workflow
from domain.validation.conditions import all_nodes, implies, required
from domain.validation.coupons import issued_pools
from domain.validation.names import PURPOSES, Finding, Findings, PlaybookNames, as_tuple
from domain.validation.satisfiability import SESSION_TIMEOUT, why_unsatisfiable

_HTML_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ELEMENT_NAME = re.compile(r"[a-z][a-z0-9]*")
_PAGE_ELEMENTS = frozenset(
    (
        "a",
        "article",
        "aside",
        "body",
        "button",
        "dialog",
        "div",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "img",
        "label",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "picture",
        "section",
        "span",
        "table",
        "td",
        "ul",
    )
)
"""HTML elements that are plausible slots."""

_EVENTS_WITH_PRODUCTS = (
    "Order Completed",
    "Order Updated",
    "Order Cancelled",
    "Order Refunded",
    "Checkout Started",
    "Cart Viewed",
    "Cart Updated",
    "Product List Viewed",
    "Product List Filtered",
)
_PRODUCT_PROPERTIES = ("product_id", "sku", "category", "brand", "name", "price", "quantity")
"""Events with a list of products, and the properties in it."""
_PRODUCT_CONDITIONS = {"product_id": "contains_product", "category": "contains_category"}


def content_warnings(playbook: Playbook) -> Iterator[Finding]:
    """Yield warnings about content, slots and events."""
    yield from (Finding("shop", "", path, text) for path, text in _similar_events(playbook.shop))
    for one in playbook.campaigns:
        yield from (Finding("campaigns", one.name, path, text) for path, text in _campaign_content(one))
    yield from _nested_product_properties(playbook)


def _similar_events(shop: Shop) -> Findings:
    theirs = {name.lower(): name for name in EVENT_NAMES}
    for n, name in enumerate(shop.custom_events):
        if name not in EVENT_NAMES and (other := theirs.get(name.lower())):
            yield ("custom_events", n), f'differs from "{other}" only in upper and lower case, and is a different event'


def _campaign_content(campaign: Campaign) -> Findings:
    if campaign.slot and _ELEMENT_NAME.fullmatch(campaign.slot) and campaign.slot not in _PAGE_ELEMENTS:
        yield ("slot",), f'matches every <{campaign.slot}> of the page; did you mean "#{campaign.slot}"?'
    for path, content in (
        (("content",), campaign.content),
        *((("variants", name, "content"), side.content) for name, side in campaign.variants.items()),
    ):
        if isinstance(content, Creative):
            for device in ("default", "desktop", "mobile", "tablet"):
                words = getattr(content, device)
                for field in ("title", "button") if words is not None else ():
                    if tag := _HTML_TAG.search(getattr(words, field)):
                        yield (*path, device, field), f"is plain text: {tag[0][:40]} is shown literally"
    names = list(campaign.variants)
    for n, name in enumerate(names):
        same = next(
            (other for other in names[:n] if campaign.variants[other].content == campaign.variants[name].content), None
        )
        if same is not None:
            yield ("variants", name), f'has the same content as "{same}": the experiment compares nothing'


def _nested_product_properties(playbook: Playbook) -> Iterator[Finding]:
    """Yield filters on properties that are in a list of products."""
    for part, name, path, piece in all_nodes(playbook):
        if (
            not isinstance(piece, (Did, WaitFor, EntryTrigger, Trigger, Goal))
            or piece.event not in _EVENTS_WITH_PRODUCTS
        ):
            continue
        field = "properties" if isinstance(piece, (EntryTrigger, Trigger)) else "where"
        for asked, value in getattr(piece, field).items():
            if asked in _PRODUCT_PROPERTIES:
                yield Finding(
                    part,
                    name,
                    (*path, field, asked),
                    (
                        f'is a property of each product in "{piece.event}", but `{field}` does not search lists of '
                        f"products" + _product_hint(piece, asked, value)
                    ),
                )


def _product_hint(node: object, property_name: str, value: object) -> str:
    about = getattr(node, "event", "")
    noun = "orders" if about.startswith("Order") else "cart" if about.startswith(("Cart", "Checkout")) else ""
    first = next((one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, str)), "")
    if not noun or property_name not in _PRODUCT_CONDITIONS or not first or isinstance(node, Goal):
        return ""
    return f'; did you mean {noun} = {{ {_PRODUCT_CONDITIONS[property_name]} = "{first}" }}?'


def unused_items(playbook: Playbook, symbols: PlaybookNames, scenario_names: frozenset[str]) -> Iterator[Finding]:
    """Yield unused segments, coupon pools, templates and groups; `scenario_names` are names used in scenarios.

    Funnel stages are never unused.
    """
    asked, templates = _referenced(playbook)
    for segment in playbook.segments:
        if segment.name not in asked and segment.name not in scenario_names:
            yield Finding(
                "segments",
                segment.name,
                ("static",) if segment.static else ("when",),
                "unused segment: no campaign, workflow, other segment or scenario refers to it",
            )
    handed = issued_pools(playbook)
    for pool in playbook.coupons:
        if pool.name not in handed:
            yield Finding(
                "coupons",
                pool.name,
                (),
                (
                    f'unused coupon pool: no campaign (coupon = "{pool.name}") and no workflow step hands out its '
                    f"coupons"
                ),
            )
    for name in sorted(playbook.templates):
        if name not in templates:
            yield Finding("templates", name, (), f'unused template: no campaign refers to it (template = "{name}")')
    members = Counter(one.group for one in playbook.campaigns)
    for name in playbook.shop.groups:
        if not members[name]:
            yield Finding("shop", "", ("groups", name), f'unused group: no campaign belongs to it (group = "{name}")')
        elif members[name] == 1:
            only = next(one.name for one in playbook.campaigns if one.group == name)
            yield Finding(
                "shop",
                "",
                ("groups", name),
                f'only "{only}" belongs to it: frequency_caps in the campaign would be enough',
            )


def _referenced(playbook: Playbook) -> tuple[set[str], set[str]]:
    """Return the segments and the templates that are used."""
    segments, templates = set[str](), set[str]()
    for part, name, _, piece in all_nodes(playbook):
        segments.update(one for one in _segments_in(piece) if (part, name) != ("segments", one))
        if isinstance(piece, Copy):
            templates.add(piece.template)
    return segments, templates


def _segments_in(node: Any) -> tuple[str, ...]:
    if isinstance(node, Condition):
        return as_tuple(node.in_segment)
    if isinstance(node, (EntryTrigger, Trigger)):
        return (node.segment or "", node.exited_segment or "")
    return ()


ADDRESS_TYPES = {"email": "email", "sms": "phone", "push": "push"}
"""The `has.address` value of each format."""

ON_SITE_EQUIVALENTS = {
    "Message Delivered": "Offer Shown",
    "Message Opened": "Offer Shown",
    "Message Clicked": "Offer Clicked",
    "Message Suppressed": "Offer Suppressed",
    "Message Bounced": "Offer Suppressed",
}
MESSAGE_EQUIVALENTS = {
    "Offer Shown": "Message Delivered",
    "Offer Clicked": "Message Clicked",
    "Offer Suppressed": "Message Suppressed",
    "Offer Dismissed": "Unsubscribed",
}
"""Corresponding events of messages and on-site campaigns."""

MAX_COMPARED = 20
"""Maximum number of campaigns with the same slot and priority that each one is compared with."""


def warnings(playbook: Playbook, scenario_names: Iterable[str] = (), now: int | None = None) -> list[Finding]:
    """Return all warnings. `scenario_names` are names used in scenarios; `now` (ms) decides which ends are past.

    >>> from domain.playbook.condition import Condition, InCart
    >>> from domain.playbook.segment import Segment
    >>> warnings(Playbook(segments=(Segment("full", Condition(cart=InCart(items_at_least=9))),)))[0].message
    'unused segment: no campaign, workflow, other segment or scenario refers to it'
    """
    known = PlaybookNames(playbook, {})
    found = [Finding("shop", "", path, text) for path, text in _shop_warnings(playbook.shop, known)]
    for one in playbook.campaigns:
        found += [Finding("campaigns", one.name, path, text) for path, text in _campaign_warnings(one, known)]
    for flow in playbook.workflows:
        found += [Finding("workflows", flow.name, path, text) for path, text in _workflow_warnings(flow, known)]
    if now is not None:
        found += _ended_campaigns(playbook, now)
    found += _slot_ties(playbook, known)
    found += _impossible_feedback(playbook, known)
    found += content_warnings(playbook)
    found += unused_items(playbook, known, frozenset(scenario_names))
    return found


def _shop_warnings(shop: Shop, symbols: PlaybookNames) -> Findings:
    own = [name for name in shop.consent.purposes if ":" not in name and name not in PURPOSES]
    asked = {one.purpose for one in symbols.playbook.campaigns}
    for name in own:
        near = did_you_mean(name, (*PURPOSES, *ADDRESS_TYPES))
        if near and name not in asked and name not in ADDRESS_TYPES:
            yield ("consent", "purposes", name), f"is a custom purpose that no campaign uses{near}"
    for n, stage in enumerate(shop.funnel):
        for later in shop.funnel[n + 1 :]:
            if implies(stage.when, later.when):
                yield (
                    ("funnel", n),
                    (
                        f'no one is ever at this stage: everyone here is also at "{later.name}", '
                        "and the furthest stage counts"
                    ),
                )
                break


# -- campaigns ---------------------------------------------------------------------------------------------------


def _campaign_warnings(campaign: Campaign, symbols: PlaybookNames) -> Findings:
    yield from _unreachable_caps(campaign, symbols.shop)
    yield from _caps_beyond_interval(campaign)
    if campaign.on_site:
        yield from _session_cap_warnings(campaign)
    else:
        yield from _message_warnings(campaign, symbols)
    pool = next((pool for pool in symbols.playbook.coupons if pool.name == campaign.coupon), None)
    if (
        pool is not None
        and campaign.goal is not None
        and campaign.goal.event == "Order Completed"
        and parse_duration(pool.valid_for) < parse_duration(campaign.goal.within)
    ):
        yield (
            ("goal", "within"),
            (
                f"orders count for {format_duration(parse_duration(campaign.goal.within))}, but a coupon of "
                f"{pool.name} is "
                f"valid for {format_duration(parse_duration(pool.valid_for))}: orders without it count too"
            ),
        )
    if (
        campaign.goal is not None
        and campaign.goal.event == campaign.trigger.event != "Order Completed"
        and not campaign.goal.where
    ):
        yield (
            ("goal", "event"),
            ("is also the trigger: every repetition counts as a conversion; use goal.where to select the right ones"),
        )


def _unreachable_caps(campaign: Campaign, shop: Shop) -> Findings:
    """Yield caps that can never be reached because of a lower cap."""
    group = shop.groups.get(campaign.group or "")
    for field in ("per_session", "per_day", "per_week"):
        own = getattr(campaign.frequency_caps, field)
        if own is None or (field == "per_session" and (own == 1 or not campaign.on_site)):
            continue
        if group is not None and (most := getattr(group, field)) is not None and own > most:
            yield ("frequency_caps", field), f"is never reached: its group {campaign.group} allows {most}"
        elif (
            field != "per_week"
            and campaign.purpose != "service"
            and campaign.format != "slot"
            and own > getattr(shop.frequency_caps, field)
        ):
            yield (
                ("frequency_caps", field),
                (
                    f"is never reached: [frequency_caps] in shop.toml allows {getattr(shop.frequency_caps, field)} "
                    "for all campaigns together"
                ),
            )


def _ended_campaigns(playbook: Playbook, now: int) -> Iterator[Finding]:
    """Yield campaigns whose end is past."""
    zone = ZoneInfo(playbook.shop.timezone)
    for one in playbook.campaigns:
        if one.end is not None and datetime.fromisoformat(one.end).replace(tzinfo=zone).timestamp() * 1_000 <= now:
            yield Finding("campaigns", one.name, ("end",), f"is past ({one.end}): the campaign is not shown any more")


def _slot_ties(playbook: Playbook, symbols: PlaybookNames) -> Iterator[Finding]:
    """Yield campaigns with the same slot and priority for the same people."""
    places: dict[tuple[str, int], list[Campaign]] = {}
    for one in playbook.campaigns:
        if one.format == "slot":
            places.setdefault((one.slot, one.priority), []).append(one)
    for some in places.values():
        for n, one in enumerate(some):
            for other in some[max(0, n - MAX_COMPARED) : n]:
                if _same_trigger(one.trigger, other.trigger) and not why_unsatisfiable(
                    _combined_condition(one, other), symbols.condition_segments, symbols.stage_names
                ):
                    yield Finding(
                        "campaigns",
                        one.name,
                        ("priority",),
                        (
                            f'is the same as that of "{other.name}", which also fills {one.slot}: the name decides '
                            "for people who match both; give one of them a higher priority"
                        ),
                    )
                    break


def _same_trigger(one: Trigger, other: Trigger) -> bool:
    """Return whether two triggers can match the same event."""
    if one.kind == "workflow" or any(
        getattr(one, field) != getattr(other, field) for field in (*TRIGGER_KINDS, "delay")
    ):
        return False
    for name, value in one.properties.items():
        beside = other.properties.get(name, value)
        some, more = (each if isinstance(each, tuple) else (each,) for each in (value, beside))
        if not any(isinstance(each, PropertyFilter) for each in (*some, *more)) and not set(some) & set(more):
            return False
    return True


def _combined_condition(one: Campaign, other: Campaign) -> Condition:
    no = tuple(Condition(not_=each.unless) for each in (one, other) if each.unless is not None)
    return Condition(all=(one.when, other.when, *no))


def _caps_beyond_interval(campaign: Campaign) -> Findings:
    """Yield caps that can never be reached because of min_interval."""
    every = parse_duration(campaign.frequency_caps.min_interval or "0s")
    for field, span in (("per_day", UNIT_MS["d"]), ("per_week", UNIT_MS["w"])):
        most = getattr(campaign.frequency_caps, field)
        if most is not None and most > 1 and (most - 1) * every >= span:
            yield (
                ("frequency_caps", field),
                f"is never reached: min_interval keeps two of them at least {format_duration(every)} apart",
            )


def _session_cap_warnings(campaign: Campaign) -> Findings:
    if campaign.frequency_caps.min_interval is None:
        return
    every = parse_duration(campaign.frequency_caps.min_interval)
    if campaign.frequency_caps.per_session == 1 and every <= SESSION_TIMEOUT:
        yield (
            ("frequency_caps", "min_interval"),
            (
                f"has no effect: the campaign is shown once per session, and sessions are more than "
                f"{format_duration(SESSION_TIMEOUT)} apart; to show it more often in a session, raise per_session"
            ),
        )
    elif campaign.frequency_caps.per_session > 1 and every >= UNIT_MS["d"]:
        yield (
            ("frequency_caps", "per_session"),
            f"is never reached: min_interval keeps two of them at least {format_duration(every)} apart",
        )


def _message_warnings(campaign: Campaign, symbols: PlaybookNames) -> Findings:
    if campaign.frequency_caps.per_session != 1:
        yield (
            ("frequency_caps", "per_session"),
            "has no effect on messages: use per_day, per_week, total or min_interval",
        )
    needed = ADDRESS_TYPES.get(campaign.format)
    for path, when in required(campaign.when):
        asked = as_tuple(when.has.address) if when.has is not None else ()
        if needed and asked and needed not in asked:
            yield (
                ("when", *path, "has", "address"),
                (
                    f'is not the address that {campaign.format} needs; did you mean "{needed}"? (That address is '
                    "required in any case.)"
                ),
            )
    if campaign.purpose != "service" and not _has_frequency_cap(campaign, symbols):
        yield (
            ("frequency_caps",),
            (
                "no frequency cap of its own; only the shop-wide cap of "
                f"{symbols.shop.frequency_caps.per_day} per day applies: set per_week or min_interval, use a group "
                "with caps, or set [contact_pressure] in shop.toml"
            ),
        )


def _has_frequency_cap(campaign: Campaign, symbols: PlaybookNames) -> bool:
    """Return whether the frequency of a message is limited."""
    limits, group, pressure = (
        campaign.frequency_caps,
        symbols.shop.groups.get(campaign.group or ""),
        symbols.shop.contact_pressure,
    )
    if (limits.per_day, limits.per_week, limits.total, limits.min_interval) != (None, None, None, None):
        return True
    if group is not None and (group.per_day is not None or group.per_week is not None):
        return True
    if pressure.per_day is not None or pressure.per_week is not None:
        return True
    senders = [flow for flow in symbols.playbook.workflows if any(step.send == campaign.name for step in flow.steps)]
    return bool(senders) and all(flow.reentry != "always" for flow in senders)


# -- workflows ---------------------------------------------------------------------------------------------------


def quiet_hours_delay(shop: Shop, campaign: Campaign) -> int:
    """Return how long (ms) a campaign can wait for the end of quiet hours."""
    quiet = shop.quiet_hours
    if (
        quiet is None
        or campaign.on_site
        or campaign.ignore_quiet_hours
        or (quiet.channels and campaign.format not in quiet.channels)
    ):
        return 0
    begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in (quiet.start, quiet.end))
    return (end - begin) % (24 * 60) * UNIT_MS["m"]


def _workflow_warnings(workflow: Workflow, symbols: PlaybookNames) -> Findings:
    yield from _waits_for_unsent(workflow, symbols)
    for n, step in enumerate(workflow.steps):
        sent = symbols.campaigns_by_name.get(step.send or "")
        if sent is None:
            continue
        if step.timeout is not None and parse_duration(step.timeout) < (quiet := quiet_hours_delay(symbols.shop, sent)):
            yield (
                ("steps", n, "timeout"),
                (
                    f"is shorter than the quiet hours ({format_duration(quiet)}): people who reach this step in the "
                    "evening never get the message; without a timeout the run waits for the end of the quiet hours"
                ),
            )
        if sent.on_site and step.timeout is None and n and workflow.steps[n - 1].kind in ("wait", "wait_until"):
            yield (
                ("steps", n, "send"),
                (
                    f'"{sent.name}" is shown on the site, where few people are right after a wait: '
                    'timeout = "7d" waits for their next session'
                ),
            )
        yield from _waits_into_quiet_hours(workflow, n, sent, symbols.shop)
        before = workflow.steps[n - 1] if n else None
        if before is not None and before.send == step.send and before.goto in (None, workflow.step_id(n)):
            yield (
                ("steps", n, "send"),
                (f'"{sent.name}" is also sent by the previous step, at the same moment; add a wait between them'),
            )
        onward = step.goto or (workflow.step_id(n + 1) if n + 1 < len(workflow.steps) else None)
        if step.else_ is not None and step.else_ == onward:
            yield ("steps", n, "else"), "names the step that follows anyway: leave it out"


def _waits_into_quiet_hours(workflow: Workflow, n: int, campaign: Campaign, shop: Shop) -> Findings:
    """Yield a wait until a time of day in the quiet hours before a message."""
    quiet, before = shop.quiet_hours, workflow.steps[n - 1] if n else None
    if (
        quiet is None
        or not quiet_hours_delay(shop, campaign)
        or before is None
        or before.goto
        or before.wait_until is None
    ):
        return
    at = before.wait_until.time or "00:00"
    if (quiet.start <= at < quiet.end) if quiet.start < quiet.end else (at >= quiet.start or at < quiet.end):
        yield (
            ("steps", n - 1, "wait_until"),
            (
                f'ends at {at}, in the quiet hours: "{campaign.name}" is sent at '
                f"{quiet.end}; wait until then, or set ignore_quiet_hours"
            ),
        )


def _waits_for_unsent(workflow: Workflow, symbols: PlaybookNames) -> Findings:
    """Yield waits for feedback to campaigns that the workflow does not send."""
    sent = {step.send for step in workflow.steps}
    for n, step in enumerate(workflow.steps):
        wait = step.wait_for
        if wait is None or wait.event is None or not wait.event.startswith(("Message ", "Offer ")):
            continue
        asked = wait.where.get("campaign")
        named = [one for one in (asked if isinstance(asked, tuple) else (asked,)) if isinstance(one, str)]
        if named and all(one in symbols.campaigns_by_name and one not in sent for one in named):
            yield (
                ("steps", n, "wait_for", "where", "campaign"),
                (
                    f'this workflow never sends "{named[0]}"'
                    + did_you_mean_or_list(named[0], sorted(one for one in sent if one))
                ),
            )


# -- feedback events -------------------------------------------------------------------------


def _impossible_feedback(playbook: Playbook, symbols: PlaybookNames) -> Iterator[Finding]:
    """Yield conditions on feedback events that a campaign cannot have, such as an opened SMS."""
    for part, name, path, piece in all_nodes(playbook):
        if (
            not isinstance(piece, (Did, WaitFor, EntryTrigger, Trigger))
            or piece.event is None
            or not piece.event.startswith(("Message ", "Offer "))
        ):
            continue
        field = "properties" if isinstance(piece, (EntryTrigger, Trigger)) else "where"
        asked = getattr(piece, field).get("campaign")
        for one in asked if isinstance(asked, tuple) else (asked,):
            if isinstance(one, str) and (text := _why_no_feedback(piece.event, one, symbols)):
                yield Finding(part, name, (*path, field, "campaign"), text)


def _why_no_feedback(event: str, name: str, symbols: PlaybookNames) -> str:
    one = symbols.campaigns_by_name.get(name)
    if one is None:
        return f'there is no campaign "{name}"{did_you_mean(name, symbols.campaign_names)}'
    if one.on_site and event in ON_SITE_EQUIVALENTS:
        return (
            f'"{name}" is shown on the site and has no "{event}" events; '
            f'did you mean event = "{ON_SITE_EQUIVALENTS[event]}"?'
        )
    if not one.on_site and event in MESSAGE_EQUIVALENTS:
        return (
            f'"{name}" is sent by {one.format} and has no "{event}" events; '
            f'did you mean event = "{MESSAGE_EQUIVALENTS[event]}"?'
        )
    if one.format == "sms" and event == "Message Opened":
        return (
            f'"{name}" is sent by sms, which does not report opens; did you mean '
            'event = "Message Clicked" or "Message Delivered"?'
        )
    return ""
