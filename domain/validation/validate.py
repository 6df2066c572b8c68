"""Check of a playbook: errors in files in which every field has the right type.

Unknown names, conditions that can never be true, unreachable steps, contradicting caps, invalid templates. The other
modules of `domain/validation` check the parts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.diagnostics import FieldPath
from domain.duration import parse_duration
from domain.event import did_you_mean
from domain.playbook.campaign import OFFSITE_FORMATS, ONSITE_FORMATS
from domain.playbook.condition import EVERYONE, SCORE_BANDS, Condition
from domain.playbook.playbook import Playbook
from domain.playbook.segment import Segment
from domain.playbook.shop import RfmSettings, Shop
from domain.playbook.trigger import EntryTrigger
from domain.validation import names as validation_names
from domain.validation.campaigns import check_campaign
from domain.validation.conditions import check_condition, check_duration, walk
from domain.validation.coupons import check_pool, duplicate_codes, never_issued
from domain.validation.names import Finding, Findings, PlaybookNames, UnresolvedName, as_tuple, is_rfm_cell
from domain.validation.templates import check_template
from domain.validation.toml_source import TextLine
from domain.validation.workflows import check_entry_trigger, check_workflow

MIN_LATE_AFTER = 60_000
"""Minimum of `late_after` in ms."""


def check_shop(shop: Shop, symbols: PlaybookNames) -> Findings:
    """Yield all errors of shop.toml."""
    try:
        ZoneInfo(shop.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield ("timezone",), f'there is no time zone "{shop.timezone}"; write a name such as "Europe/Rome"'
    if shop.country and (error := validation_names.country_error(shop.country)):
        yield ("country",), error
    if shop.url and not shop.url.startswith(("http://", "https://")):
        yield ("url",), f'should start with https:// or http://, is "{shop.url}"'
    if shop.currency in shop.exchange_rates:
        yield ("exchange_rates", shop.currency), "is the shop's own currency"
    for name in shop.consent.purposes:
        if name == "service":
            yield ("consent", "purposes", name), "never needs consent; choose another name"
        elif ":" in name:
            yield from symbols.check_consent_name(("consent", "purposes", name), name)
    yield from check_duration(("frequency_caps", "cooldown"), shop.frequency_caps.cooldown)
    yield from _check_late_after(shop)
    pressure = shop.contact_pressure
    if pressure.per_day is not None and pressure.per_week is not None and pressure.per_day > pressure.per_week:
        yield (
            ("contact_pressure", "per_day"),
            f"is more than the per_week of {pressure.per_week:g}: it would never be reached",
        )
    for name in pressure.weights:
        if name not in (*ONSITE_FORMATS, *OFFSITE_FORMATS):
            yield (
                ("contact_pressure", "weights", name),
                f'there is no format "{name}"{did_you_mean(name, (*ONSITE_FORMATS, *OFFSITE_FORMATS))}',
            )
    for name, group in shop.groups.items():
        if group.per_day is not None and group.per_week is not None and group.per_day > group.per_week:
            yield ("groups", name, "per_day"), f"is more than the per_week of {group.per_week}"
    if shop.quiet_hours is not None:
        if shop.quiet_hours.start == shop.quiet_hours.end:
            yield ("quiet_hours", "end"), "is the same as start: quiet hours need a start and a later end"
        for name in shop.quiet_hours.channels:
            if name not in OFFSITE_FORMATS:
                yield ("quiet_hours", "channels"), f'there is no channel "{name}"{did_you_mean(name, OFFSITE_FORMATS)}'
    if shop.holdout >= 1:
        yield ("holdout",), "holds out everyone: no campaign would ever be shown"
    yield from _check_funnel(shop, symbols)
    if shop.rfm is not None:
        yield from _check_rfm(shop.rfm)


def _check_late_after(shop: Shop) -> Findings:
    try:
        if parse_duration(shop.late_after) < MIN_LATE_AFTER:
            yield ("late_after",), "should be at least 1m: every event arrives with some delay"
    except ValueError as error:
        yield ("late_after",), str(error)


def _check_funnel(shop: Shop, symbols: PlaybookNames) -> Findings:
    names: set[str] = set()
    for n, stage in enumerate(shop.funnel):
        if stage.name in names:
            yield ("funnel", n, "name"), f'duplicate stage "{stage.name}"'
        names.add(stage.name)
        if stage.when == Condition():
            yield ("funnel", n, "when"), "is empty: everyone would be at this stage"
        for path, text in check_condition(stage.when, symbols):
            yield ("funnel", n, "when", *path), text
        for path, part, _ in walk(stage.when):
            if isinstance(part, Condition) and (
                part.funnel is not None or any(name.startswith("funnel_") for name in as_tuple(part.in_segment))
            ):
                yield ("funnel", n, "when", *path), "a stage cannot refer to a stage"


def _check_rfm(cuts: RfmSettings) -> Findings:
    recency: list[float] = []
    for text in cuts.recency:
        try:
            recency.append(parse_duration(text))
        except ValueError as error:
            yield ("rfm", "recency"), str(error)
    for field, values in (("recency", recency), ("frequency", list(cuts.frequency)), ("monetary", list(cuts.monetary))):
        if any(later <= earlier for earlier, later in pairwise(values)):
            yield ("rfm", field), "each value should be greater than the one before it"


MAX_SEGMENT_CHAIN = 50
"""Maximum length of a chain of segment references."""


def validate(playbook: Playbook, unreadable: Mapping[str, Iterable[str]] | None = None) -> list[Finding]:
    """Return all errors. References to `unreadable` files (names by folder) are no errors.

    >>> from domain.playbook.condition import Did
    >>> validate(Playbook(segments=(Segment("a", Condition(did=Did("Product Aded"))),)))[0].message
    'there is no event "Product Aded"; did you mean "Product Added"?'
    """
    symbols = PlaybookNames(playbook, unreadable or {})
    found = [Finding("shop", "", path, text) for path, text in check_shop(playbook.shop, symbols)]
    for segment in playbook.segments:
        found += [Finding("segments", segment.name, path, text) for path, text in _check_segment(segment, symbols)]
    found += _segment_cycles(playbook)
    for one in playbook.campaigns:
        found += [Finding("campaigns", one.name, path, text) for path, text in check_campaign(one, symbols)]
    for flow in playbook.workflows:
        found += [Finding("workflows", flow.name, path, text) for path, text in check_workflow(flow, symbols)]
    for coupons in playbook.coupons:
        found += [Finding("coupons", coupons.name, path, text) for path, text in check_pool(coupons, symbols)]
    found += duplicate_codes(playbook.coupons)
    found += never_issued(playbook, symbols)
    for name, source in sorted(playbook.templates.items()):
        found += [
            Finding("templates", name, (what, TextLine(line)), text)
            for line, what, text in check_template(source, html=True)
        ]
    if not symbols.unreadable.get("workflows"):
        found += _unsent_campaigns(playbook)
    return found


def unresolved_names(section: str, item: Any, symbols: PlaybookNames) -> Findings:
    """Yield unknown names and invalid values in a file that was decoded only in part.

    Other errors are left out, because missing fields could cause them.
    """
    look: dict[str, Callable[[Any, PlaybookNames], Findings]] = {
        "shop": check_shop,
        "segments": _check_segment,
        "campaigns": check_campaign,
        "workflows": check_workflow,
        "coupons": check_pool,
    }
    yield from ((path, text) for path, text in look[section](item, symbols) if isinstance(text, UnresolvedName))


def _unsent_campaigns(playbook: Playbook) -> Iterator[Finding]:
    sent = {step.send for flow in playbook.workflows for step in flow.steps}
    for one in playbook.campaigns:
        if one.trigger.workflow and one.name not in sent:
            yield Finding("campaigns", one.name, ("trigger", "workflow"), "no workflow sends this campaign")


# -- segments ----------------------------------------------------------------------------------------------------


def _check_segment(segment: Segment, symbols: PlaybookNames) -> Findings:
    name = segment.name
    if name in SCORE_BANDS:
        yield ("name",), "is reserved for a learned segment"
    elif name.startswith("funnel_"):
        yield ("name",), "is reserved for a funnel stage: segments named funnel_… come from [[funnel]] in shop.toml"
    elif name.startswith("rfm_") or is_rfm_cell(name):
        yield ("name",), "is reserved for an RFM cell: segments named rfm_… come from [rfm] in shop.toml"
    if segment.static:
        if segment.when != Condition():
            yield ("when",), "is not allowed in a static segment: enter_on and workflows add people to it"
    else:
        if segment.when == Condition():
            yield ("when",), "is empty: everyone would be in the segment"
        for field in ("enter_on", "exit_on", "expires_after"):
            if getattr(segment, field):
                yield (field,), "is allowed only with static = true"
    if segment.static and not segment.enter_on and name not in symbols.tagged_segments:
        yield ("static",), 'no one can ever be in it: add enter_on, or a workflow step with add_to_segment = "…"'
    for path, text in check_condition(segment.when, symbols):
        yield ("when", *path), text
    for field in ("enter_on", "exit_on"):
        for n, moment in enumerate(getattr(segment, field)):
            yield from check_entry_trigger(moment, (field, n), symbols)
    for n, entry in enumerate(segment.enter_on):
        for m, exit_trigger in enumerate(segment.exit_on):
            if _subsumes(exit_trigger, entry):
                yield (
                    ("enter_on", n),
                    (
                        f"adds no one: exit_on[{m + 1}] matches the same event, and exits win; make them differ in "
                        "`properties` or `when`"
                    ),
                )
    yield from check_duration(("expires_after",), segment.expires_after, 1_000)


def _subsumes(general: EntryTrigger, specific: EntryTrigger) -> bool:
    """Return whether the general trigger matches whenever the specific one does."""
    return (
        general.when == EVERYONE
        and general.properties in ({}, specific.properties)
        and (general.event, general.segment, general.exited_segment)
        == (specific.event, specific.segment, specific.exited_segment)
    )


def _segment_cycles(playbook: Playbook) -> Iterator[Finding]:
    """Yield segments that refer to themselves, directly or through others."""
    places = {
        segment.name: {name: path for path, name in reversed(list(_segment_references(segment)))}
        for segment in playbook.segments
    }
    refers = {name: sorted(place) for name, place in places.items()}
    stages = playbook.shop.funnel
    for n, stage in enumerate(stages):  # a later stage excludes this one
        asked = {
            name for _, name in _references_in(stage.when) if not name.startswith("funnel_")
        }  # reported by _check_funnel
        refers[f"funnel_{stage.name}"] = sorted({*asked, *(f"funnel_{one.name}" for one in stages[n + 1 :])})
    state: dict[str, int] = {}
    for start in sorted(refers):
        path, todo = list[str](), [(start, False)]
        while todo:
            name, leaving = todo.pop()
            if leaving:
                path.pop()
                state[name] = 2
            elif state.get(name) == 1:
                cycle = [*path[path.index(name) :], name]
                n = max((n for n, one in enumerate(path) if one in places), default=0)
                onward = path[n + 1] if n + 1 < len(path) else name
                yield Finding(
                    "segments",
                    path[n],
                    places.get(path[n], {}).get(onward, ("when",)),
                    "circular segment references: " + " -> ".join(cycle),
                )
            elif name in refers and name not in state:
                if len(path) >= MAX_SEGMENT_CHAIN:
                    yield Finding(
                        "segments", name, ("when",), f"more than {MAX_SEGMENT_CHAIN} segment references in a row"
                    )
                    return
                state[name] = 1
                path.append(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(refers[name])]


def _segment_references(segment: Segment) -> Iterator[tuple[FieldPath, str]]:
    """Yield the segments that a segment refers to, with their paths."""
    yield from ((("when", *path), name) for path, name in _references_in(segment.when))
    for field in ("enter_on", "exit_on"):
        for n, moment in enumerate(getattr(segment, field)):
            yield from (
                ((field, n, which), name)
                for which in ("segment", "exited_segment")
                if (name := getattr(moment, which)) is not None
            )
            yield from (((field, n, "when", *path), name) for path, name in _references_in(moment.when))


def _references_in(when: Condition) -> Iterator[tuple[FieldPath, str]]:
    for path, part, _ in walk(when):
        if isinstance(part, Condition):
            yield from (((*path, "in_segment"), name) for name in as_tuple(part.in_segment))
            if part.funnel is not None:
                yield from (
                    ((*path, "funnel"), f"funnel_{one}")
                    for one in (*as_tuple(part.funnel.stage), *as_tuple(part.funnel.at_least))
                )
