"""Check of conditions: unknown names, empty parts, and conditions that can never be true."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from domain.diagnostics import FieldPath
from domain.duration import parse_duration
from domain.event import did_you_mean_or_list
from domain.money import to_minor
from domain.playbook.condition import (
    MAX_EVENT_TIMES,
    MAX_EXPOSURE_TIMES,
    Condition,
    Did,
    Funnel,
    Has,
    HoldsCoupon,
    PropertyFilter,
    Rfm,
    Sequence,
    Sum,
    WasShown,
)
from domain.playbook.playbook import Playbook
from domain.playbook.trigger import EntryTrigger
from domain.validation import names as validation_names
from domain.validation.names import Findings, PlaybookNames, UnresolvedName, as_tuple
from domain.validation.satisfiability import why_unsatisfiable

MAX_DEPTH = 8
MAX_NODES = 200
"""How deep conditions nest, and how many parts they have, at most."""

_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")

DURATION_FIELDS = (
    "within",
    "older_than",
    "untouched_for",
    "last_within",
    "last_before",
    "first_within",
    "first_seen_within",
    "last_seen_before",
    "expires_within",
)


def check_condition(when: Condition, symbols: PlaybookNames) -> Findings:
    """Yield all errors of a condition; an error of the whole condition has an empty path."""
    errors = list(_check_nodes(when, symbols))
    yield from errors
    if not errors and (why := why_unsatisfiable(when, symbols.condition_segments, symbols.stage_names)):
        yield (), f"can never be true: {why}"


def why_unreachable(trigger: EntryTrigger, symbols: PlaybookNames, exit_when: Condition | None = None) -> str:
    """Return why a trigger can never match; empty if it can.

    With `exit_when`, only people for whom that condition is false count.
    """
    parts = [trigger.when]
    if trigger.event is not None:  # a later event is late and triggers nothing
        parts.append(Condition(did=Did(trigger.event, where=trigger.properties, within=symbols.shop.late_after)))
    if trigger.segment is not None:
        parts.append(Condition(in_segment=trigger.segment))
    if trigger.exited_segment is not None:
        parts.append(Condition(not_=Condition(in_segment=trigger.exited_segment)))
    return why_unsatisfiable(
        Condition(all=tuple(parts), not_=exit_when), symbols.condition_segments, symbols.stage_names
    )


def check_duration(path: FieldPath, text: str | None, min_ms: int = 0) -> Findings:
    """Check that a text is a duration of at least `min_ms`."""
    if text is None:
        return
    try:
        if parse_duration(text) < min_ms:
            yield path, UnresolvedName(f'should be at least {min_ms // 1000}s, is "{text}"')
    except ValueError as error:
        yield path, UnresolvedName(error)


def _check_nodes(when: Condition, symbols: PlaybookNames) -> Findings:
    for parts, (path, part, depth) in enumerate(walk(when)):
        if depth > MAX_DEPTH:
            yield path, f"conditions can be nested at most {MAX_DEPTH} levels deep"
            return
        if parts >= MAX_NODES:
            yield (), f"a condition can have at most {MAX_NODES} parts"
            return
        if path and not isinstance(part, (Did, Sum, Sequence, HoldsCoupon, WasShown)) and part == type(part)():
            yield path, "is empty"
        yield from _check_names(path, part, symbols)
        yield from _check_impossible_values(path, part, symbols)
        for field in DURATION_FIELDS:
            yield from check_duration((*path, field), getattr(part, field, None))


def walk(when: msgspec.Struct) -> Iterator[tuple[FieldPath, Any, int]]:
    """Yield a struct and all structs inside it: (path, struct, depth). `depth` counts conditions."""
    return _walk(when, (), 0)


def _walk(node: Any, path: FieldPath, depth: int) -> Iterator[tuple[FieldPath, Any, int]]:
    yield path, node, depth
    if depth > MAX_DEPTH:
        return
    for field, name in zip(node.__struct_fields__, node.__struct_encode_fields__, strict=True):
        value = getattr(node, field)
        deeper = depth + isinstance(value, Condition)
        if isinstance(value, msgspec.Struct):
            yield from _walk(value, (*path, name), deeper)
        elif isinstance(value, tuple):
            for n, one in enumerate(value):
                if isinstance(one, msgspec.Struct):
                    yield from _walk(one, (*path, name, n), depth + isinstance(one, Condition))
        elif isinstance(value, dict):
            for key, one in value.items():
                if isinstance(one, msgspec.Struct):
                    yield from _walk(one, (*path, name, key), depth)


def implies(stronger: Condition, weaker: Condition) -> bool:
    """Return whether a condition has all the fields of a weaker one, with the same values.

    >>> from domain.playbook.condition import InCart
    >>> full, known = InCart(items_at_least=1), Has(identified=True)
    >>> implies(Condition(cart=full, has=known), Condition(cart=full)), implies(Condition(cart=full), Condition())
    (True, True)
    """
    return all(
        getattr(stronger, field) == getattr(weaker, field)
        for field in weaker.__struct_fields__
        if getattr(weaker, field)
    )


def required(when: Condition, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Condition]]:
    """Yield the conditions that must all be true, including the condition itself."""
    yield path, when
    for n, one in enumerate(when.all):
        yield from required(one, (*path, "all", n))


def all_nodes(playbook: Playbook) -> Iterator[tuple[str, str, FieldPath, Any]]:
    """Yield all structs of a playbook: (section, name, path, struct)."""
    yield from (("shop", "", path, piece) for path, piece, _ in walk(playbook.shop))
    for part in ("segments", "campaigns", "workflows", "coupons"):
        for one in getattr(playbook, part):
            yield from ((part, one.name, path, piece) for path, piece, _ in walk(one))


def _check_names(path: FieldPath, node: Any, symbols: PlaybookNames) -> Findings:
    if isinstance(node, Condition):
        for name in as_tuple(node.in_segment):
            yield from symbols.check_segment_name((*path, "in_segment"), name)
    elif isinstance(node, Did):
        for field in ("event", "after", "before"):
            yield from symbols.check_event_name((*path, field), getattr(node, field))
    elif isinstance(node, Sequence):
        for n, step in enumerate(node.steps):
            if isinstance(step, str):
                yield from symbols.check_event_name((*path, "steps", n), step)
            elif step != Did(step.event, where=step.where):
                yield (*path, "steps", n), "a step of a sequence can have only event and where"
    elif isinstance(node, HoldsCoupon):
        for name in as_tuple(node.pool):
            yield from symbols.check_pool_name((*path, "pool"), name)
    elif isinstance(node, WasShown):
        for name in as_tuple(node.campaign):
            yield from symbols.check_campaign_name((*path, "campaign"), name)
    elif isinstance(node, Funnel):
        for field, names in (("stage", as_tuple(node.stage)), ("at_least", as_tuple(node.at_least))):
            for name in names:
                if name not in symbols.stage_names:
                    hint = (
                        did_you_mean_or_list(name, symbols.stage_names)
                        if symbols.stage_names
                        else "; shop.toml has no [[funnel]]"
                    )
                    yield (*path, field), UnresolvedName(f'there is no stage "{name}"{hint}')
    elif isinstance(node, Rfm) and symbols.shop.rfm is None:
        yield path, "can never be true: shop.toml has no [rfm]"
    elif isinstance(node, Has):
        for name in as_tuple(node.consent):
            yield from symbols.check_consent_name((*path, "consent"), name)
        for country in as_tuple(node.country):
            if error := validation_names.country_error(country):
                yield (*path, "country"), UnresolvedName(error)
        for language in as_tuple(node.language):
            if _LANGUAGE_TAG.fullmatch(language) is None:
                yield (
                    (*path, "language"),
                    UnresolvedName(f'should be a language code such as "fr" or "fr-CA", is "{language}"'),
                )


def _check_impossible_values(path: FieldPath, node: Any, symbols: PlaybookNames) -> Findings:
    """Yield values of one struct that can never match."""
    for low, high in (("value_at_least", "value_below"), ("at_least", "below")):
        least, most = getattr(node, low, None), getattr(node, high, None)
        if least is not None and most is not None and least >= most:
            yield (*path, high), f"can never be true: no value is at least {least:g} and less than {most:g}"
    for field in ("value_at_least", "value_below"):
        amount = getattr(node, field, None)
        if amount is not None:
            try:
                to_minor(amount, symbols.shop.currency)
            except ValueError as error:
                yield (*path, field), str(error)
    exact, least = getattr(node, "count_is", None), getattr(node, "count_at_least", None)
    if exact is not None and least is not None and exact < least:
        yield (*path, "count_is"), f"can never be true: {exact} is less than {least}"
    if getattr(node, "empty", None) and any(
        getattr(node, field) is not None
        for field in (
            "items_at_least",
            "value_at_least",
            "value_below",
            "contains_category",
            "contains_product",
            "older_than",
            "untouched_for",
        )
    ):
        yield (*path, "empty"), "can never be true: the other fields need something in the cart"
    if isinstance(node, Did):
        remembered = node.where or node.sum is not None or node.after or node.before or node.within
        if node.at_least > MAX_EVENT_TIMES and (node.within or node.after or node.before):
            yield (
                (*path, "at_least"),
                (
                    f"only the newest {MAX_EVENT_TIMES} times are stored: with within, after or before, "
                    "at_least cannot be higher"
                ),
            )
        if node.sum is not None and node.sum.at_least is None and node.sum.below is None:
            yield (*path, "sum"), "needs at_least or below"
        if remembered and node.event in ("Identified", "Grouped", "Aliased") and node.where:
            yield (*path, "where"), "this event has no properties; use `has.trait` for traits"
    if isinstance(node, WasShown) and node.within is not None and node.at_least > MAX_EXPOSURE_TIMES:
        yield (
            (*path, "at_least"),
            (f"only the newest {MAX_EXPOSURE_TIMES} times are stored: with within, at_least cannot be higher"),
        )
    if isinstance(node, PropertyFilter) and node.exists is False and node != PropertyFilter(exists=False):
        yield path, "can never be true: a property that does not exist has no value"
    if isinstance(node, Rfm):
        for field in ("recency", "frequency", "monetary"):
            least, most = getattr(node, f"{field}_at_least"), getattr(node, f"{field}_at_most")
            if least is not None and most is not None and least > most:
                yield (*path, f"{field}_at_most"), f"can never be true: no value is at least {least} and at most {most}"
