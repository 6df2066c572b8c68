"""Check of campaigns: triggers, frequency caps, experiments, content, links and coupons."""

import re
from collections.abc import Iterator
from datetime import datetime

from domain.diagnostics import FieldPath
from domain.duration import UNIT_MS, pluralize
from domain.event import did_you_mean, did_you_mean_or_list
from domain.playbook.campaign import OFFSITE_FORMATS, Campaign, Copy, Creative, FrequencyCaps, inherit_copy
from domain.playbook.condition import EVERYONE, Condition, InSession
from domain.playbook.coupon import CouponPool
from domain.playbook.shop import pressure_weight
from domain.playbook.template import VARIABLES, is_safe_url
from domain.playbook.template_sandbox import TokenError, tokens
from domain.playbook.trigger import TRIGGER_KINDS, EntryTrigger, Trigger
from domain.validation.conditions import check_condition, check_duration, why_unreachable
from domain.validation.names import Findings, PlaybookNames, UnresolvedName
from domain.validation.satisfiability import why_unsatisfiable
from domain.validation.templates import check_template
from domain.validation.toml_source import TextLine

COPY_FIELDS = ("title", "body", "button", "url", "image_url", "coupon")
TITLE_REQUIRED = {
    "email": "it is the subject of the email",
    "push": "it is the headline of the notification",
    "sms": "it is the text of the message",
}
"""Formats that need a title, and why."""
MESSAGE_FORMATS = ("email", "sms", "push", "chat")
"""Messages that people read outside of the site."""

_OUTPUT_TAG = re.compile(r"\{\{-?\s*([a-z_]+)(?:\s*\.\s*([a-z_]+))?\s*(.*?)-?\}\}", re.DOTALL)
_CONDITION_TAG = re.compile(r"\{%-?\s*(?:if|elsif|unless|case|for)\b(.*?)%\}", re.DOTALL)
_LINK = re.compile(r"""\b(?:href|src)\s*=\s*["']([^"'{]*)["']""", re.IGNORECASE)


def check_content(campaign: Campaign, symbols: PlaybookNames) -> Findings:
    """Yield all errors in the content of a campaign."""
    yield from _check_copy(campaign.content, ("content",), campaign, symbols, is_complete=True)
    for name, variant in campaign.variants.items():
        if variant.content is not None:
            yield from _check_copy(variant.content, ("variants", name, "content"), campaign, symbols, is_complete=False)
    if campaign.format in TITLE_REQUIRED and not all(words.title for words in _variant_copies(campaign, "default")):
        yield ("content", "default", "title"), f"is missing: {TITLE_REQUIRED[campaign.format]}"


def _variant_copies(campaign: Campaign, device: str) -> list[Copy]:
    """Return the content for a device, for each variant of the experiment."""
    plain = campaign.content.copy_for(campaign.content.device_key(device))
    return [
        plain
        if variant.content is None
        else inherit_copy(variant.content.copy_for(variant.content.device_key(device)), plain)
        for variant in campaign.variants.values()
    ] or [plain]


def _check_copy(
    content: Creative, path: FieldPath, campaign: Campaign, symbols: PlaybookNames, *, is_complete: bool
) -> Findings:
    for device in ("default", "desktop", "mobile", "tablet"):
        own = getattr(content, device)
        if own is None:
            continue
        here = (*path, device)
        if own.body and own.template:
            yield here, "has both a body and a template: choose one"
        if own.template and own.template not in symbols.playbook.templates:
            yield (
                (*here, "template"),
                UnresolvedName(
                    f'there is no "{own.template}" in templates/'
                    + did_you_mean_or_list(own.template, sorted(symbols.playbook.templates))
                ),
            )
        if (
            is_complete
            and device == "default"
            and not (own.title or own.body or own.template or campaign.format in TITLE_REQUIRED)
        ):
            yield here, "is empty: it needs a title, a body or a template"
        words = content.copy_for(device)
        if is_complete and words.button and not words.url and campaign.format != "sms":
            yield (*here, "button"), "needs a url"
        for field in COPY_FIELDS:
            for line, _, text in check_template(getattr(own, field), html=field == "body"):
                yield (*here, field, TextLine(line)), UnresolvedName(text)
        yield from _check_links(own, here, campaign, symbols)
        if campaign.format == "sms":
            for field in ("body", "template", "button", "image_url"):
                if getattr(own, field):
                    yield (*here, field), "is not allowed with sms: a text message consists of its title only"
        if own.coupon and campaign.coupon:
            yield (*here, "coupon"), "is not allowed here: the campaign already reserves a coupon for each person"
        else:
            coded = (
                words.coupon
                or campaign.content.copy_for(campaign.content.device_key(device)).coupon
                or all(side.coupon for side in _variant_copies(campaign, device))
            )
            yield from _check_variables(own, here, campaign, symbols, has_code=bool(coded))


def _check_links(copy: Copy, path: FieldPath, campaign: Campaign, symbols: PlaybookNames) -> Findings:
    for field in ("url", "image_url"):
        url = getattr(copy, field)
        if url.startswith(_WWW):
            yield (*path, field), _SCHEME_MISSING.format(url[:80])
        elif url and "{" not in url and not is_safe_url(url):
            yield (*path, field), f'should be a path, or start with https:// or http://, is "{url[:80]}"'
        elif _is_relative_in_message(url, campaign, symbols):
            yield (*path, field), _RELATIVE_URL.format(url[:80])
    for field, source in _template_sources(copy, symbols):
        if field in ("body", "template"):
            for url in dict.fromkeys(_LINK.findall(source)):
                if url.startswith(_WWW):
                    yield (*path, field), _SCHEME_MISSING.format(url[:80])
                elif _is_relative_in_message(url, campaign, symbols):
                    yield (*path, field), _RELATIVE_URL.format(url[:80])


_WWW, _SCHEME_MISSING = "www.", 'should start with https://, is "{}"'
_RELATIVE_URL = '"{}" is relative and does not work in a message: start it with https://, or set url in shop.toml'


def _is_relative_in_message(url: str, campaign: Campaign, symbols: PlaybookNames) -> bool:
    """Return whether a URL in a message is relative and the shop has no url."""
    return (
        bool(url)
        and campaign.format in MESSAGE_FORMATS
        and not symbols.shop.url
        and "{" not in url
        and is_safe_url(url)
        and not url.startswith(("https://", "http://"))
    )


# -- values that are never known ---------------------------------------------------------------------------------


def _check_variables(
    copy: Copy, path: FieldPath, campaign: Campaign, symbols: PlaybookNames, *, has_code: bool
) -> Findings:
    """Yield variables without a value, which would suppress the campaign. `has_code`: the content has a coupon code."""
    pool = next((pool for pool in symbols.playbook.coupons if pool.name == campaign.coupon), None)
    for field, source in _template_sources(copy, symbols):
        for root, asked in unguarded_variables(source):
            if root == "shop" and asked in ("name", "url") and not getattr(symbols.shop, asked):
                yield (*path, field), f"uses {{{{ shop.{asked} }}}}, but shop.toml has no {asked}"
            if root != "coupon" or (asked and asked not in VARIABLES["coupon"]):
                continue
            if campaign.coupon is None and not has_code:
                yield (
                    (*path, field),
                    (
                        'uses a coupon, but the campaign has none: name a pool (coupon = "…"), '
                        "or set one code for everyone in content.default.coupon"
                    ),
                )
            elif campaign.coupon is None and asked not in ("", "code"):
                yield (
                    (*path, field),
                    (
                        f"uses {{{{ coupon.{asked} }}}}: a code for everyone has only "
                        "{{ coupon.code }}; the coupons of a pool have more fields"
                    ),
                )
            elif pool is not None and asked not in ("", "code", "expires", "products") and not getattr(pool, asked):
                yield (
                    (*path, field),
                    (
                        f"uses {{{{ coupon.{asked} }}}}, but coupons/{pool.name}.toml has no "
                        f"{asked}{_discount_hint(pool, asked)}"
                    ),
                )


def _discount_hint(pool: CouponPool, field: str) -> str:
    """Return a suggestion for a coupon field."""
    given = [name for name in ("percent", "amount") if getattr(pool, name)]
    return f"; did you mean {{{{ coupon.{given[0]} }}}}?" if given and field in ("percent", "amount") else ""


def _template_sources(copy: Copy, symbols: PlaybookNames) -> Iterator[tuple[str, str]]:
    for field in COPY_FIELDS:
        yield field, getattr(copy, field)
    yield "template", symbols.playbook.templates.get(copy.template, "")


def unguarded_variables(source: str) -> list[tuple[str, str]]:
    """Return the (variable, field) pairs that a template prints without `default` and without an `if`.

    >>> unguarded_variables("{{ coupon.code }} {{ coupon.percent | default: '' }} {% if cart %}{{ cart }}{% endif %}")
    [('coupon', 'code')]
    """
    texts = list(_tag_texts(source))
    asked = set(
        re.findall(r"[a-z_]+", " ".join(match[1] for text in texts if (match := _CONDITION_TAG.fullmatch(text))))
    )
    found = (
        (match[1], match[2] or "")
        for text in texts
        if (match := _OUTPUT_TAG.fullmatch(text)) and "default" not in match[3]
    )
    return list(dict.fromkeys((root, field) for root, field in found if root not in asked))


def _tag_texts(source: str) -> Iterator[str]:
    """Yield the tags and outputs of a template, up to the first syntax error."""
    try:
        for start, end in tokens(source):
            yield source[start:end]
    except TokenError:  # reported by check_template
        return


_EMPTY_SELECTOR = re.compile(r"[.#](?![\w\\-]|[^\x00-\x7f])(?![^\[]*\])")
"""A dot or # without a name, outside of brackets."""

RESERVED_VARIANTS = ("holdout", "global_holdout", "default")
"""Reserved names, which have another meaning in variant counts."""


def check_campaign(campaign: Campaign, symbols: PlaybookNames) -> Findings:
    """Yield all errors of a campaign."""
    yield from _check_trigger(campaign.trigger, symbols)
    yield from _check_conditions(campaign, symbols)
    yield from _check_purpose(campaign, symbols)
    least = UNIT_MS["m"] if campaign.trigger.exit_intent else UNIT_MS["s"]
    yield from check_duration(("valid_for",), campaign.valid_for, least)
    for event in campaign.cancel_on:
        yield from symbols.check_event_name(("cancel_on",), event)
    if campaign.group is not None and campaign.group not in symbols.shop.groups:
        yield (
            ("group",),
            UnresolvedName(
                f"shop.toml has no [groups.{campaign.group}]{did_you_mean(campaign.group, symbols.shop.groups)}"
            ),
        )
    yield from symbols.check_pool_name(("coupon",), campaign.coupon)
    if campaign.goal is not None:
        yield from symbols.check_event_name(("goal", "event"), campaign.goal.event)
        yield from check_duration(("goal", "within"), campaign.goal.within, UNIT_MS["m"])
    yield from _check_limits(campaign.frequency_caps)
    yield from _check_channel(campaign)
    yield from _check_dates(campaign)
    yield from _check_experiment(campaign)
    yield from check_content(campaign, symbols)


def _check_conditions(campaign: Campaign, symbols: PlaybookNames) -> Findings:
    errors = [(("when", *path), text) for path, text in check_condition(campaign.when, symbols)]
    if campaign.unless is not None:
        if campaign.unless == EVERYONE:
            errors.append((("unless",), "is empty: it would exclude everyone"))
        errors += [(("unless", *path), text) for path, text in check_condition(campaign.unless, symbols)]
        asked = (
            campaign.when,
            *(
                [Condition(session=InSession(seconds_at_least=campaign.trigger.seconds_on_site))]
                if campaign.trigger.seconds_on_site is not None
                else []
            ),
        )
        if not errors and (
            why := why_unsatisfiable(
                Condition(all=asked, not_=campaign.unless), symbols.condition_segments, symbols.stage_names
            )
        ):
            errors.append((("unless",), f"excludes everyone: {why}"))
    yield from errors
    if not errors and campaign.trigger.delay is None:
        trigger = campaign.trigger
        when = campaign.when if campaign.unless is None else Condition(all=(campaign.when,), not_=campaign.unless)
        entry = EntryTrigger(trigger.event, trigger.properties, trigger.segment, trigger.exited_segment, when)
        if (entry.event or entry.segment or entry.exited_segment) and (why := why_unreachable(entry, symbols)):
            yield ("when",), f"can never be true for this trigger: {why}"


def _check_purpose(campaign: Campaign, symbols: PlaybookNames) -> Findings:
    if campaign.purpose not in symbols.purposes:
        channel, colon, purpose = campaign.purpose.rpartition(":")
        if colon and channel in OFFSITE_FORMATS:
            yield (
                ("purpose",),
                (f'names a channel: write purpose = "{purpose}"; consent for {channel} is checked as well'),
            )
        else:
            yield (
                ("purpose",),
                UnresolvedName(
                    f"there is no purpose "
                    f'"{campaign.purpose}"{did_you_mean_or_list(campaign.purpose, sorted(symbols.purposes))}'
                ),
            )
    if campaign.purpose == "service":
        if campaign.holdout:
            yield ("holdout",), "is not allowed with the purpose `service`: everyone gets service messages"
        return
    weight, budget = pressure_weight(campaign.format, symbols.shop), symbols.shop.contact_pressure
    for points, span in ((budget.per_day, "day"), (budget.per_week, "week")):
        if points is not None and weight > points:
            yield (
                ("format",),
                (
                    f"{campaign.format} costs {pluralize(weight, 'point')}, but contact_pressure in shop.toml allows "
                    f"{points:g} per {span}: it could never be sent"
                ),
            )
            return


def _check_trigger(trigger: Trigger, symbols: PlaybookNames) -> Findings:
    if not trigger.kind:
        yield ("trigger",), f"should be exactly one of {', '.join(TRIGGER_KINDS)}"
    yield from symbols.check_event_name(("trigger", "event"), trigger.event)
    yield from symbols.check_segment_name(("trigger", "segment"), trigger.segment)
    yield from symbols.check_segment_name(("trigger", "exited_segment"), trigger.exited_segment)
    if trigger.properties and trigger.event is None:
        yield ("trigger", "properties"), "is allowed only with `event`"
    if trigger.delay is not None:
        if trigger.kind not in ("event", "segment", "exited_segment"):
            yield ("trigger", "delay"), "is allowed only with event, segment or exited_segment"
        yield from check_duration(("trigger", "delay"), trigger.delay, UNIT_MS["s"])


def _check_limits(limits: FrequencyCaps) -> Findings:
    for narrow, wide in (
        ("per_day", "per_week"),
        ("per_day", "total"),
        ("per_week", "total"),
        ("per_session", "total"),
    ):
        less, more = getattr(limits, narrow), getattr(limits, wide)
        if less is not None and more is not None and less > more:
            yield ("frequency_caps", narrow), f"is more than the {wide} of {more}: it would never be reached"
    if limits.min_interval is not None:
        yield from check_duration(("frequency_caps", "min_interval"), limits.min_interval, UNIT_MS["s"])


def _check_channel(campaign: Campaign) -> Findings:
    if (campaign.format == "slot") != bool(campaign.slot):
        yield (
            ("slot",),
            (
                "is missing: name the element to fill, such as `#hero`"
                if campaign.format == "slot"
                else 'is allowed only with format = "slot"'
            ),
        )
    if (
        any(sign in campaign.slot for sign in "{}<;\n")
        or campaign.slot != campaign.slot.strip()
        or _EMPTY_SELECTOR.search(campaign.slot)
        or any(campaign.slot.count(begin) != campaign.slot.count(end) for begin, end in ("[]", "()"))
    ):
        yield ("slot",), "should be a CSS selector such as `#hero`"
    if campaign.format == "slot" and campaign.trigger.exit_intent:
        yield (
            ("trigger", "exit_intent"),
            ("is not allowed with a slot, which is always part of the page: use popup, banner or bar"),
        )
    if campaign.on_site:
        if campaign.ignore_quiet_hours:
            yield ("ignore_quiet_hours",), "is allowed only for messages: quiet hours do not apply on the site"
    else:
        if campaign.trigger.kind in ("exit_intent", "seconds_on_site"):
            yield (
                ("trigger", campaign.trigger.kind),
                (f"is an on-site trigger, but {campaign.format} is sent as a message: use event, segment or workflow"),
            )
        for device in ("desktop", "mobile", "tablet"):
            if getattr(campaign.content, device) is not None:
                yield (
                    ("content", device),
                    "is not allowed in a message, which is read on any device: use content.default",
                )


def _check_dates(campaign: Campaign) -> Findings:
    moments = {}
    for field in ("start", "end"):
        text = getattr(campaign, field)
        if text is not None:
            try:
                moments[field] = datetime.fromisoformat(text)
            except ValueError:
                yield (field,), f'is not a valid date or time: "{text}"'
    if len(moments) == 2 and moments["start"] >= moments["end"]:
        yield ("end",), f"is not after start ({campaign.start}): the campaign would never be shown"


def _check_experiment(campaign: Campaign) -> Findings:
    if campaign.holdout >= 1:
        yield ("holdout",), "holds out everyone: the campaign would never be shown"
    for name in campaign.variants:
        if name in RESERVED_VARIANTS:
            yield ("variants", name), f'"{name}" is a reserved name: choose another'
    if len(campaign.variants) == 1:
        yield (
            ("variants",),
            "an experiment needs at least two variants (to compare with no message at all, use holdout)",
        )
