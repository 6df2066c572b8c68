"""Check of conditions: names that nobody declares, parts that say nothing, what can never hold."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from domain import countries
from domain.condition import (
    MOST_REMEMBERED,
    MOST_SHOWN,
    Condition,
    Did,
    Filter,
    Funnel,
    Has,
    Holds,
    Rfm,
    Sequence,
    Sum,
    WasSaid,
)
from domain.contradiction import contradiction
from domain.duration import parse
from domain.event_names import offered
from domain.known import Found, Known, NoSuch, several
from domain.money import to_minor
from domain.playbook import Playbook
from domain.problem import Path
from domain.trigger import Occasion

DEEPEST = 8
MOST_PARTS = 200
"""How deep conditions nest, and how many parts they have, at most."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")

DURATIONS = ("within", "older_than", "untouched_for", "last_within", "last_before", "first_within",
             "first_seen_within", "last_seen_before", "ends_within")


def condition(when: Condition, known: Known) -> Found:
    """All mistakes of a condition; the path of what concerns the whole is empty."""
    mistakes = list(_parts(when, known))
    yield from mistakes
    if not mistakes and (why := contradiction(when, known.conditions, known.stages)):
        yield (), f"can never hold: {why}"


def never_comes(moment: Occasion, known: Known, leaves: Condition | None = None) -> str:
    """Why an occasion never comes for anybody for whom it goes, in words; empty when nothing speaks against it.

    With `leaves`, for anybody who does not leave at once.
    """
    parts = [moment.when]
    if moment.event is not None:  # what happened longer ago than this is no occasion
        parts.append(Condition(did=Did(moment.event, where=moment.properties, within=known.shop.late_after)))
    if moment.segment is not None:
        parts.append(Condition(in_segment=moment.segment))
    if moment.left_segment is not None:
        parts.append(Condition(not_=Condition(in_segment=moment.left_segment)))
    return contradiction(Condition(all=tuple(parts), not_=leaves), known.conditions, known.stages)


def duration(path: Path, text: str | None, least: int = 0) -> Found:
    """That a text is a duration, of at least so many ms."""
    if text is None:
        return
    try:
        if parse(text) < least:
            yield path, NoSuch(f'should be at least {least // 1000}s, is "{text}"')
    except ValueError as wrong:
        yield path, NoSuch(wrong)


def _parts(when: Condition, known: Known) -> Found:
    for parts, (path, part, depth) in enumerate(walk(when)):
        if depth > DEEPEST:
            yield path, f"conditions nest at most {DEEPEST} deep"
            return
        if parts >= MOST_PARTS:
            yield (), f"a condition has at most {MOST_PARTS} parts"
            return
        if path and not isinstance(part, (Did, Sum, Sequence, Holds, WasSaid)) and part == type(part)():
            yield path, "says nothing"
        yield from _names(path, part, known)
        yield from _impossible(path, part, known)
        for field in DURATIONS:
            yield from duration((*path, field), getattr(part, field, None))


def walk(when: msgspec.Struct) -> Iterator[tuple[Path, Any, int]]:
    """A condition (or whatever else), its parts, and the conditions inside: (path, part, depth)."""
    return _walk(when, (), 0)


def _walk(part: Any, path: Path, depth: int) -> Iterator[tuple[Path, Any, int]]:
    yield path, part, depth
    if depth > DEEPEST:
        return
    for field, name in zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True):
        value = getattr(part, field)
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


def asks_more(one: Condition, other: Condition) -> bool:
    """Whether a condition asks for all that another asks for, and perhaps for more.

    >>> from domain.condition import InCart
    >>> full, known = InCart(items_at_least=1), Has(known=True)
    >>> asks_more(Condition(cart=full, has=known), Condition(cart=full)), asks_more(Condition(cart=full), Condition())
    (True, True)
    """
    return all(getattr(one, field) == getattr(other, field) for field in other.__struct_fields__
               if getattr(other, field))


def must(when: Condition, path: Path = ()) -> Iterator[tuple[Path, Condition]]:
    """The conditions inside one that all have to hold for it to hold, itself included."""
    yield path, when
    for n, one in enumerate(when.all):
        yield from must(one, (*path, "all", n))


def everything(playbook: Playbook) -> Iterator[tuple[str, str, Path, Any]]:
    """All that a playbook declares, piece by piece: (part, name, path, piece)."""
    yield from (("shop", "", path, piece) for path, piece, _ in walk(playbook.shop))
    for part in ("segments", "campaigns", "workflows", "coupons"):
        for one in getattr(playbook, part):
            yield from ((part, one.name, path, piece) for path, piece, _ in walk(one))


def _names(path: Path, part: Any, known: Known) -> Found:
    if isinstance(part, Condition):
        for name in several(part.in_segment):
            yield from known.segment_at((*path, "in_segment"), name)
    elif isinstance(part, Did):
        for field in ("event", "after", "before"):
            yield from known.event_at((*path, field), getattr(part, field))
    elif isinstance(part, Sequence):
        for n, step in enumerate(part.steps):
            if isinstance(step, str):
                yield from known.event_at((*path, "steps", n), step)
            elif step != Did(step.event, where=step.where):
                yield (*path, "steps", n), "a step of a sequence has an event and its `where`, nothing else"
    elif isinstance(part, Holds):
        for name in several(part.pool):
            yield from known.pool_at((*path, "pool"), name)
    elif isinstance(part, WasSaid):
        for name in several(part.campaign):
            yield from known.campaign_at((*path, "campaign"), name)
    elif isinstance(part, Funnel):
        for field, names in (("stage", several(part.stage)), ("at_least", several(part.at_least))):
            for name in names:
                if name not in known.stages:
                    hint = offered(name, known.stages) if known.stages else "; shop.toml has no [[funnel]]"
                    yield (*path, field), NoSuch(f'there is no stage "{name}"{hint}')
    elif isinstance(part, Rfm) and known.shop.rfm is None:
        yield path, "nobody has an RFM cell: shop.toml has no [rfm]"
    elif isinstance(part, Has):
        for name in several(part.consent):
            yield from known.consent_at((*path, "consent"), name)
        for country in several(part.country):
            if wrong := countries.slip(country):
                yield (*path, "country"), NoSuch(wrong)
        for language in several(part.language):
            if _LANGUAGE.fullmatch(language) is None:
                yield (*path, "language"), NoSuch(f'should be a code such as "fr" or "fr-CA", is "{language}"')


def _impossible(path: Path, part: Any, known: Known) -> Found:
    """What one part alone rules out."""
    for low, high in (("value_at_least", "value_below"), ("at_least", "below")):
        least, most = getattr(part, low, None), getattr(part, high, None)
        if least is not None and most is not None and least >= most:
            yield (*path, high), f"can never hold: nothing is at least {least:g} and less than {most:g}"
    for field in ("value_at_least", "value_below"):
        amount = getattr(part, field, None)
        if amount is not None:
            try:
                to_minor(amount, known.shop.currency)
            except ValueError as wrong:
                yield (*path, field), str(wrong)
    exact, least = getattr(part, "count_is", None), getattr(part, "count_at_least", None)
    if exact is not None and least is not None and exact < least:
        yield (*path, "count_is"), f"can never hold: {exact} is less than {least}"
    if getattr(part, "empty", None) and any(getattr(part, field) is not None for field in (
            "items_at_least", "value_at_least", "value_below", "contains_category", "contains_product", "older_than",
            "untouched_for")):
        yield (*path, "empty"), "can never hold: the rest asks for something in the cart"
    if isinstance(part, Did):
        remembered = part.where or part.sum is not None or part.after or part.before or part.within
        if part.at_least > MOST_REMEMBERED and (part.within or part.after or part.before):
            yield (*path, "at_least"), (f"the newest {MOST_REMEMBERED} times are remembered: more cannot be counted "
                                        "within a time, or before or after something")
        if part.sum is not None and part.sum.at_least is None and part.sum.below is None:
            yield (*path, "sum"), "needs at_least or below"
        if remembered and part.event in ("Identified", "Grouped", "Aliased") and part.where:
            yield (*path, "where"), "this event has no properties; its traits are asked for with `has.trait`"
    if isinstance(part, WasSaid) and part.within is not None and part.at_least > MOST_SHOWN:
        yield (*path, "at_least"), (f"the newest {MOST_SHOWN} times are remembered: more cannot be counted within a "
                                    "time")
    if isinstance(part, Filter) and part.known is False and part != Filter(known=False):
        yield path, "can never hold: what is not known has no value"
    if isinstance(part, Rfm):
        for field in ("recency", "frequency", "money"):
            least, most = getattr(part, f"{field}_at_least"), getattr(part, f"{field}_at_most")
            if least is not None and most is not None and least > most:
                yield (*path, f"{field}_at_most"), f"can never hold: nothing is at least {least} and at most {most}"
