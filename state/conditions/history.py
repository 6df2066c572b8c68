"""What passed between a person and the shop, as leaves: orders, coupons, what was said.

Access to what is known of a person: who they are, what they did and bought, where they belong.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from domain.duration import format_duration, format_rough_duration, parse_duration, pluralize
from domain.duration import format_times as so_often
from domain.event import EVENT_NAMES
from domain.money import to_major, to_minor
from domain.playbook.condition import (
    MAX_EXPOSURE_TIMES,
    SCORE_BANDS,
    Did,
    Has,
    HoldsCoupon,
    Orders,
    PropertyFilter,
    Rfm,
    Score,
    Sequence,
    WasShown,
)
from domain.playbook.shop import Shop, rfm_group
from state.conditions import counters
from state.conditions.predicate import Getter, IndexKey, Predicate, any_of, as_tuple, at_least, elapsed, equals, join_or
from state.conditions.properties import typed
from state.person.model import Coupon, Person, ProfileFragment


def order_predicates(condition: Orders, shop: Shop) -> list[Predicate]:
    """What they bought."""
    found: list[Predicate] = []
    if condition.count_at_least is not None:
        least, at_least = condition.count_at_least, "at least " + pluralize(condition.count_at_least, "order")
        found.append(
            Predicate(
                lambda p, f, now: f.order_count >= least,
                lambda p, f, now: f"{at_least} (has {f.order_count})",
                "orders",
            )
        )
    if condition.count_is is not None:
        exactly, said = condition.count_is, "exactly " + pluralize(condition.count_is, "order")
        found.append(
            Predicate(
                lambda p, f, now: f.order_count == exactly, lambda p, f, now: f"{said} (has {f.order_count})", "orders"
            )
        )
    for amount, or_more in ((condition.value_at_least, True), (condition.value_below, False)):
        if amount is not None:
            found.append(_order_value(to_minor(amount, shop.currency), or_more, shop.currency))
    for text, recent in ((condition.last_within, True), (condition.last_before, False)):
        if text is not None:
            found.append(_last_order(parse_duration(text), recent))
    for what, wanted in (("product", condition.contains_product), ("category", condition.contains_category)):
        if wanted is not None:
            found.append(_ordered_item(what, as_tuple(wanted)))
    return found


def _ordered_item(kind: str, wanted: tuple[str, ...]) -> Predicate:
    """Build the predicate on items of the newest stored orders, without cancelled ones."""
    among = frozenset(wanted)
    read = attrgetter("products" if kind == "product" else "categories")

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return any(not order.cancelled and not among.isdisjoint(read(order)) for order in f.orders)

    return Predicate(test, lambda p, f, now: f"has ordered {kind} {join_or(wanted)}", "orders")


def _order_value(minor: int, is_minimum: bool, currency: str) -> Predicate:
    def words(p: Person, f: ProfileFragment, now: int) -> str:
        word = "at least" if is_minimum else "less than"
        return f"orders worth {word} {to_major(minor, currency)} {currency} (is {to_major(f.revenue, currency)})"

    return Predicate(lambda p, f, now: (f.revenue >= minor) is is_minimum, words, "orders")


def _last_order(span: int, recent: bool) -> Predicate:
    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return f.last_order_at > 0 and (now < f.last_order_at + span) is recent

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        return f.last_order_at + span if f.last_order_at > 0 and now < f.last_order_at + span else None

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        ago = f"{format_rough_duration(elapsed(now, f.last_order_at))} ago" if f.last_order_at else "never"
        return f"last order {'less than' if recent else 'at least'} {format_duration(span)} ago ({ago})"

    return Predicate(test, words, "orders", change)


def coupon_predicate(condition: HoldsCoupon) -> Predicate:
    """Build the predicate on a valid coupon of these pools: reserved, unused, perhaps expiring soon."""
    pools = frozenset(as_tuple(condition.pool))
    last = parse_duration(condition.expires_within) if condition.expires_within is not None else None

    def good(coupon: Coupon, now: int) -> bool:
        return now < coupon.until and (last is None or now >= coupon.until - last)

    def held(p: Person) -> list[Coupon]:
        return [one for one in p.coupons if one.state == "reserved" and one.pool in pools]

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return bool(p.coupons) and any(good(one, now) for one in held(p))

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        if not p.coupons:
            return None
        mine = held(p)
        turns = [at for one in mine for at in (one.until, one.until - (last or 0)) if at > now]
        truth = any(good(one, now) for one in mine)
        return min([at for at in turns if any(good(one, at) for one in mine) != truth], default=None)

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        until = [one.until for one in held(p) if now < one.until]
        left = f"for another {format_rough_duration(min(until) - now)}" if until else "has none"
        return (
            f"holds a coupon of {join_or(as_tuple(condition.pool))}"
            + (f" that ends within {format_duration(last)}" if last is not None else "")
            + f" ({left})"
        )

    return Predicate(test, words, "coupons", change)


def shown_predicate(condition: WasShown) -> Predicate:
    """Build the predicate on exposures to these campaigns. ValueError if the count exceeds the stored times."""
    if condition.within is not None and condition.at_least > MAX_EXPOSURE_TIMES:
        raise ValueError(
            f"the newest {MAX_EXPOSURE_TIMES} times are remembered: at_least = {condition.at_least} is more"
        )
    campaigns, least = as_tuple(condition.campaign), condition.at_least
    window = parse_duration(condition.within) if condition.within is not None else None
    needs = tuple("shown:" + name for name in campaigns)

    def over(p: Person, name: str) -> int:
        """Return when the condition becomes false for this campaign (ms); 0 if it never was true."""
        said = p.exposures.get(name)
        return said.times[-least] + (window or 0) if said is not None and len(said.times) >= least else 0

    def ever(p: Person, f: ProfileFragment, now: int) -> bool:
        return any((said := p.exposures.get(name)) is not None and said.total >= least for name in campaigns)

    def lately(p: Person, f: ProfileFragment, now: int) -> bool:
        return any(over(p, name) > now for name in campaigns)

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        at = max([over(p, name) for name in campaigns])
        return at if at > now else None

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        times = f" at least {least} times" if least > 1 else ""
        known = [p.exposures[name] for name in campaigns if name in p.exposures]
        if window is None:
            return f"was told {join_or(campaigns)}{times} ({so_often(sum([said.total for said in known]))} so far)"
        last = max([said.last_at for said in known], default=0)
        ago = f"last {format_rough_duration(elapsed(now, last))} ago" if last else "never"
        return f"was told {join_or(campaigns)}{times} in the last {format_duration(window)} ({ago})"

    if window is None:
        return Predicate(ever, words, needs[0], also_depends_on=needs[1:])
    return Predicate(lately, words, needs[0], change, also_depends_on=needs[1:])


def profile_keys(condition: Has) -> list[IndexKey]:
    """Who they are."""
    found: list[IndexKey] = []
    if condition.country is not None:
        found.append(equals("country", as_tuple(condition.country), _read_country, 0.15))
    if condition.device is not None:
        found.append(equals("device", as_tuple(condition.device), _read_device, 0.4))
    if condition.language is not None:
        wanted = dict.fromkeys(text.lower().replace("_", "-") for text in as_tuple(condition.language))
        found.append(any_of("language", wanted, _read_languages, 0.2))
    for noun, came, read in (
        ("source", condition.source, _last_source_getter("source")),
        ("medium", condition.medium, _last_source_getter("medium")),
        ("campaign", condition.campaign, _last_source_getter("campaign")),
        ("first source", condition.first_source, _read_first_source),
    ):
        if came is not None:
            found.append(equals(noun, as_tuple(came), read, 0.05))
    if condition.sessions_at_least is not None:
        found.append(at_least("sessions", condition.sessions_at_least, lambda p, f: f.sessions))
    for name, value in condition.trait.items():
        if not isinstance(value, PropertyFilter):
            values = value if isinstance(value, tuple) else (value,)
            found.append(
                equals("trait " + name, dict.fromkeys(typed(one) for one in values), _trait_getter(name), 0.05)
            )
    return found


def _read_country(person: Person, profile: ProfileFragment) -> Any:
    session = person.session
    return (session is not None and session.country) or profile.country


def _read_device(person: Person, profile: ProfileFragment) -> Any:
    session = person.session
    return (session is not None and session.device) or profile.device


def _read_languages(person: Person, profile: ProfileFragment) -> tuple[str, ...]:
    locale = profile.locale.lower().replace("_", "-")
    return locale, locale.partition("-")[0]


def _last_source_getter(field: str) -> Getter:
    def read(person: Person, facts: ProfileFragment) -> Any:
        return None if facts.last_source is None else getattr(facts.last_source, field)

    return read


def _read_first_source(person: Person, profile: ProfileFragment) -> Any:
    return profile.first_source.source if profile.first_source is not None else None


def _trait_getter(name: str) -> Getter:
    def read(person: Person, facts: ProfileFragment) -> Any:
        trait = facts.traits.get(name)
        return None if trait is None or trait.value is None else typed(trait.value)

    return read


def order_keys(condition: Orders, shop: Shop) -> list[IndexKey]:
    """What they bought."""
    found: list[IndexKey] = []
    if condition.count_at_least is not None:
        found.append(at_least("orders", condition.count_at_least, lambda p, f: f.order_count, 0.15))
    if condition.count_is is not None:
        share = 0.15 if condition.count_is else 0.8
        found.append(equals("order count", (condition.count_is,), lambda p, f: f.order_count, share))
    if condition.value_at_least is not None and condition.value_at_least > 0:
        found.append(
            at_least("revenue", to_minor(condition.value_at_least, shop.currency), lambda p, f: f.revenue, 0.1)
        )
    if condition.last_within is not None or condition.last_before is not None:
        found.append(equals("ordered", (True,), lambda p, f: f.last_order_at > 0, 0.15))
    if condition.contains_product is not None:
        found.append(any_of("ordered product", as_tuple(condition.contains_product), _read_ordered_products, 0.01))
    if condition.contains_category is not None:
        found.append(any_of("ordered category", as_tuple(condition.contains_category), _read_ordered_categories, 0.05))
    return found


def _read_ordered_products(person: Person, profile: ProfileFragment) -> set[str]:
    return {product for order in profile.orders for product in order.products}


def _read_ordered_categories(person: Person, profile: ProfileFragment) -> set[str]:
    return {category for order in profile.orders for category in order.categories}


def score_keys(condition: Score) -> list[IndexKey]:
    """How likely they are to buy."""
    found: list[IndexKey] = []
    if condition.at_least is not None:
        found.append(at_least("score", condition.at_least, lambda p, f: p.score, 0.2))
    if condition.band is not None:
        found.append(equals("band", (condition.band,), lambda p, f: p.band, 0.2))
    return found


def segment_keys(names: tuple[str, ...]) -> list[IndexKey]:
    """They are in a learned segment, or in one of the others: one of these statements is true."""
    bands = [name for name in names if name in SCORE_BANDS]
    others = [name for name in names if name not in SCORE_BANDS]
    found: list[IndexKey] = []
    if bands:
        found.append(equals("band", bands, lambda p, f: p.band, 0.3))
    if others:
        found.append(any_of("segment", others, lambda p, f: p.segments, 0.1))
    return found


def rfm_keys(condition: Rfm) -> list[IndexKey]:
    """Where they stand by recency, frequency and money."""
    found: list[IndexKey] = []
    if condition.group is not None:
        found.append(equals("rfm", as_tuple(condition.group), lambda p, f: rfm_group(p.rfm), 0.05))
    for place, name, least, most in (
        (0, "recency", condition.recency_at_least, condition.recency_at_most),
        (1, "frequency", condition.frequency_at_least, condition.frequency_at_most),
        (2, "monetary", condition.monetary_at_least, condition.monetary_at_most),
    ):
        if least is not None or most is not None:
            found.append(
                equals("rfm " + name, map(str, range(least or 1, (most or 5) + 1)), _rfm_digit_getter(place), 0.1)
            )
    return found


def _rfm_digit_getter(position: int) -> Getter:
    def read(person: Person, facts: ProfileFragment) -> str:
        return person.rfm[position : position + 1]

    return read


def did_keys(condition: Did) -> list[IndexKey]:
    """It happened so often; when, and what it came to, is another question.

    Everybody sees pages and products, so only how often tells people apart. An event of the shop's own, and what has
    certain properties, few have done at all.
    """
    if counters.uses_lifetime_count(condition):
        often = at_least("event " + condition.event, condition.at_least, _lifetime_count_getter(condition.event), 0.2)
        if condition.event in EVENT_NAMES:
            return [often]
        ever = any_of("did", (condition.event,), lambda p, f: f.lifetime_counts, 0.05)
    else:
        key = counters.counter_key(condition)
        often = at_least("trace " + key, condition.at_least, _counter_getter(key), 0.15)
        ever = any_of("counter", (key,), _read_counter_keys, 0.1)
    return [ever, often] if condition.at_least > 1 else [ever]


def sequence_keys(condition: Sequence) -> list[IndexKey]:
    """It was done in this order before, or each step of it was done."""
    whole = counters.sequence_spec(condition).key
    return [
        any_of("counter", (whole, key), _read_counter_keys, 0.1)
        for key in dict.fromkeys(counters.counter_key(step) for step in counters.sequence_steps(condition))
    ]


def shown_key(condition: WasShown) -> IndexKey:
    """They were told one of these campaigns."""
    return any_of("shown", as_tuple(condition.campaign), lambda p, f: p.exposures, 0.1)


def _read_counter_keys(person: Person, profile: ProfileFragment) -> Iterable[str]:
    return profile.counters


def _lifetime_count_getter(event: str) -> Getter:
    def read(person: Person, facts: ProfileFragment) -> int | None:
        count = facts.lifetime_counts.get(event)
        return None if count is None else count.count

    return read


def _counter_getter(key: str) -> Getter:
    def read(person: Person, facts: ProfileFragment) -> int | None:
        trace = facts.counters.get(key)
        return None if trace is None else trace.count

    return read


def coupon_key(condition: HoldsCoupon) -> IndexKey:
    """They were offered a coupon of the pool."""
    return any_of("coupon", as_tuple(condition.pool), lambda p, f: {one.pool for one in p.coupons}, 0.05)
