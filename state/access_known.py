"""Access to what is known of a person: who they are, what they did and bought, where they belong."""

from collections.abc import Iterable
from typing import Any

from domain.condition import BANDS, Did, Filter, Has, Holds, Orders, Rfm, Score, Sequence, WasSaid
from domain.event_names import EVENTS
from domain.money import to_minor
from domain.rfm_groups import group_of
from domain.shop import Shop
from state import traces
from state.access import Access, Read, equals, includes, reaches
from state.leaves import texts
from state.person import Facts, Person
from state.properties import typed


def has(part: Has) -> list[Access]:
    """Who they are."""
    found: list[Access] = []
    if part.country is not None:
        found.append(equals("country", texts(part.country), _country, 0.15))
    if part.device is not None:
        found.append(equals("device", texts(part.device), _device, 0.4))
    if part.language is not None:
        wanted = dict.fromkeys(text.lower().replace("_", "-") for text in texts(part.language))
        found.append(includes("language", wanted, _languages, 0.2))
    for noun, came, read in (("source", part.source, _last("source")), ("medium", part.medium, _last("medium")),
                             ("campaign", part.campaign, _last("campaign")),
                             ("first source", part.first_source, _first_source)):
        if came is not None:
            found.append(equals(noun, texts(came), read, 0.05))
    if part.visits_at_least is not None:
        found.append(reaches("visits", part.visits_at_least, lambda p, f: f.sessions))
    for name, value in part.trait.items():
        if not isinstance(value, Filter):
            values = value if isinstance(value, tuple) else (value,)
            found.append(equals("trait " + name, dict.fromkeys(typed(one) for one in values), _trait(name), 0.05))
    return found


def _country(person: Person, facts: Facts) -> Any:
    session = person.session
    return (session is not None and session.country) or facts.country


def _device(person: Person, facts: Facts) -> Any:
    session = person.session
    return (session is not None and session.device) or facts.device


def _languages(person: Person, facts: Facts) -> tuple[str, ...]:
    locale = facts.locale.lower().replace("_", "-")
    return locale, locale.partition("-")[0]


def _last(noun: str) -> Read:
    def read(person: Person, facts: Facts) -> Any:
        return None if facts.last_source is None else getattr(facts.last_source, noun)

    return read


def _first_source(person: Person, facts: Facts) -> Any:
    return facts.first_source.source if facts.first_source is not None else None


def _trait(name: str) -> Read:
    def read(person: Person, facts: Facts) -> Any:
        trait = facts.traits.get(name)
        return None if trait is None or trait.value is None else typed(trait.value)

    return read


def orders(part: Orders, shop: Shop) -> list[Access]:
    """What they bought."""
    found: list[Access] = []
    if part.count_at_least is not None:
        found.append(reaches("orders", part.count_at_least, lambda p, f: f.order_count, 0.15))
    if part.count_is is not None:
        share = 0.15 if part.count_is else 0.8
        found.append(equals("order count", (part.count_is,), lambda p, f: f.order_count, share))
    if part.value_at_least is not None and part.value_at_least > 0:
        found.append(reaches("revenue", to_minor(part.value_at_least, shop.currency), lambda p, f: f.revenue, 0.1))
    if part.last_within is not None or part.last_before is not None:
        found.append(equals("ordered", (True,), lambda p, f: f.last_order_at > 0, 0.15))
    if part.contains_product is not None:
        found.append(includes("bought", texts(part.contains_product), _bought, 0.01))
    if part.contains_category is not None:
        found.append(includes("bought of", texts(part.contains_category), _bought_of, 0.05))
    return found


def _bought(person: Person, facts: Facts) -> set[str]:
    return {product for order in facts.orders for product in order.products}


def _bought_of(person: Person, facts: Facts) -> set[str]:
    return {category for order in facts.orders for category in order.categories}


def score(part: Score) -> list[Access]:
    """How likely they are to buy."""
    found: list[Access] = []
    if part.at_least is not None:
        found.append(reaches("score", part.at_least, lambda p, f: p.score, 0.2))
    if part.band is not None:
        found.append(equals("band", (part.band,), lambda p, f: p.band, 0.2))
    return found


def in_segment(names: tuple[str, ...]) -> list[Access]:
    """They are in a learned segment, or in one of the others: one of these statements is true."""
    bands = [name for name in names if name in BANDS]
    others = [name for name in names if name not in BANDS]
    found: list[Access] = []
    if bands:
        found.append(equals("band", bands, lambda p, f: p.band, 0.3))
    if others:
        found.append(includes("segment", others, lambda p, f: p.segments, 0.1))
    return found


def rfm(part: Rfm) -> list[Access]:
    """Where they stand by recency, frequency and money."""
    found: list[Access] = []
    if part.group is not None:
        found.append(equals("rfm", texts(part.group), lambda p, f: group_of(p.rfm), 0.05))
    for place, name, least, most in ((0, "recency", part.recency_at_least, part.recency_at_most),
                                     (1, "frequency", part.frequency_at_least, part.frequency_at_most),
                                     (2, "money", part.money_at_least, part.money_at_most)):
        if least is not None or most is not None:
            found.append(equals("rfm " + name, map(str, range(least or 1, (most or 5) + 1)), _digit(place), 0.1))
    return found


def _digit(place: int) -> Read:
    def read(person: Person, facts: Facts) -> str:
        return person.rfm[place:place + 1]

    return read


def did(part: Did) -> list[Access]:
    """It happened so often; when, and what it came to, is another question.

    Everybody sees pages and products, so only how often tells people apart. An event of the shop's own, and what has
    certain properties, few have done at all.
    """
    if traces.plain(part):
        often = reaches("did " + part.event, part.at_least, _count(part.event), 0.2)
        if part.event in EVENTS:
            return [often]
        ever = includes("did", (part.event,), lambda p, f: f.counts, 0.05)
    else:
        key = traces.key_of(part)
        often = reaches("trace " + key, part.at_least, _trace(key), 0.15)
        ever = includes("trace", (key,), _traces, 0.1)
    return [ever, often] if part.at_least > 1 else [ever]


def sequence(part: Sequence) -> list[Access]:
    """It was done in this order before, or each step of it was done."""
    whole = traces.chain_of(part).key
    return [includes("trace", (whole, key), _traces, 0.1)
            for key in dict.fromkeys(traces.key_of(step) for step in traces.steps_of(part))]


def was_said(part: WasSaid) -> Access:
    """They were told one of these campaigns."""
    return includes("said", texts(part.campaign), lambda p, f: p.said, 0.1)


def _traces(person: Person, facts: Facts) -> Iterable[str]:
    return facts.traces


def _count(event: str) -> Read:
    def read(person: Person, facts: Facts) -> int | None:
        count = facts.counts.get(event)
        return None if count is None else count.n

    return read


def _trace(key: str) -> Read:
    def read(person: Person, facts: Facts) -> int | None:
        trace = facts.traces.get(key)
        return None if trace is None else trace.n

    return read


def coupon(part: Holds) -> Access:
    """They were offered a coupon of the pool."""
    return includes("coupon", texts(part.pool), lambda p, f: {one.pool for one in p.coupons}, 0.05)
