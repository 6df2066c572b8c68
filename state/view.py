"""The view: what is known of a person, whichever id it was learned under.

A person holds one facet per id. Conditions, features and templates ask for `known(person)` and never for a facet.
Who has a single facet (most people) is answered with that facet itself; else the facets are put together:

- counters add up; first times are the earliest, last times the latest;
- lists (products, searches, orders) are united and keep the newest entries; an order that two facets report
  is one order, once in the counters; traces add up and keep the newest times;
- traits and consent: the later value wins, then the greater mark; consent said yes and no at the same time is a no;
- country, device, locale, time zone come from the facet that was seen last and knows them.

What comes back is to be read, never to be changed: it may be the facet, and it may be kept for the next reader.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from state.person import (
    MAX_CATEGORIES,
    MAX_COUNTS,
    MAX_OLDER_ORDERS,
    MAX_ORDERS,
    MAX_PRODUCTS,
    MAX_SEARCHES,
    Count,
    Facts,
    Order,
    Person,
    ProductSeen,
    Search,
    Source,
    Trait,
)
from state.seen import HASH, digest
from state.traces import combine as combine_traces

_at = attrgetter("at")
_NOTHING = Facts()


def known(person: Person) -> Facts:
    """What is known of this person, put together over the facets (read only).

    >>> person = Person(id="u:ann", facets={"u:ann": Facts(version=1, pages=2), "a:x": Facts(version=1, pages=3)})
    >>> known(person).pages
    5
    """
    facets = person.facets
    if len(facets) < 2:
        return facets.get(person.id) or next(iter(facets.values()), _NOTHING)
    stamp = sum([facts.version for facts in facets.values()]) * 64 + len(facets)
    kept = person.__dict__.get("known")
    if kept is not None and kept[0] == stamp:
        found: Facts = kept[1]
        return found
    combined = combine([facets[origin] for origin in sorted(facets)])
    person.__dict__["known"] = (stamp, combined)
    return combined


def combine(facets: Iterable[Facts]) -> Facts:
    """Several facets as one. The order of the facets decides nothing but ties."""
    ordered = sorted(facets, key=attrgetter("last_seen"))
    whole = Facts()
    for facts in ordered:
        whole.version += facts.version
        whole.sessions += facts.sessions
        whole.pages += facts.pages
        whole.offline_orders += facts.offline_orders
        whole.refunds += facts.refunds
        whole.order_count += facts.order_count
        whole.revenue += facts.revenue
        whole.first_seen = earlier(whole.first_seen, facts.first_seen)
        whole.last_seen = max(whole.last_seen, facts.last_seen)
        whole.first_order_at = earlier(whole.first_order_at, facts.first_order_at)
        whole.last_order_at = max(whole.last_order_at, facts.last_order_at)
        whole.country = facts.country or whole.country
        whole.device = facts.device or whole.device
        whole.locale = facts.locale or whole.locale
        whole.timezone = facts.timezone or whole.timezone
        _add_counts(whole.counts, facts.counts)
        for category, n in facts.categories.items():
            whole.categories[category] = whole.categories.get(category, 0) + n
        latest(whole.traits, facts.traits)
        latest(whole.consent, facts.consent, wary=True)
        whole.first_source = _source(whole.first_source, facts.first_source, first=True)
        whole.last_source = _source(whole.last_source, facts.last_source, first=False)
    _trim(whole.counts, MAX_COUNTS, lambda name: (whole.counts[name].n, whole.counts[name].last_at, name))
    _trim(whole.categories, MAX_CATEGORIES, lambda name: (whole.categories[name], name))
    whole.products = _products(ordered)
    whole.searches = _searches(ordered)
    whole.traces = combine_traces(ordered)
    _orders(whole, ordered)
    return whole


def earlier(one: int, other: int) -> int:
    """The earlier of two moments, where 0 means never.

    >>> earlier(0, 5), earlier(7, 5), earlier(0, 0)
    (5, 5, 0)
    """
    return min(one, other) if one and other else one or other


def latest(into: dict[str, Trait], more: dict[str, Trait], *, wary: bool = False) -> None:
    """Take over every value that is later; of two at the same time the one with the greater mark.

    When `wary`, a no wins over a yes of the same time.
    """
    for name, trait in more.items():
        have = into.get(name)
        if have is None or _rank(trait, wary) > _rank(have, wary):
            into[name] = trait


def _rank(trait: Trait, wary: bool) -> tuple[int, bool, int, str]:
    return trait.at, wary and not trait.value, trait.mark, repr(trait.value)


def _add_counts(into: dict[str, Count], more: dict[str, Count]) -> None:
    for name, count in more.items():
        have = into.get(name)
        if have is None:
            into[name] = Count(count.n, count.first_at, count.last_at)
        else:
            have.n += count.n
            have.first_at = earlier(have.first_at, count.first_at)
            have.last_at = max(have.last_at, count.last_at)


def _trim(names: dict[str, Count] | dict[str, int], most: int, rank: Callable[[str], Any]) -> None:
    if len(names) > most:
        for name in sorted(names, key=rank)[:len(names) - most]:
            del names[name]


def _source(one: Source | None, other: Source | None, *, first: bool) -> Source | None:
    if one is None or other is None:
        return one or other
    if one.at == other.at:
        return min(one, other, key=lambda source: (source.source, source.medium, source.campaign))
    return one if (one.at < other.at) is first else other


def _products(facets: list[Facts]) -> list[ProductSeen]:
    newest: dict[str, ProductSeen] = {}
    for facts in facets:
        for seen in facts.products:
            have = newest.get(seen.product_id)
            if have is None:
                newest[seen.product_id] = seen
            else:
                late, soon = (seen, have) if seen.at >= have.at else (have, seen)
                newest[seen.product_id] = ProductSeen(
                    late.product_id, late.name, late.category, late.brand, late.price, late.url, late.image_url,
                    late.views + soon.views, late.at, late.currency)
    return sorted(newest.values(), key=_at)[-MAX_PRODUCTS:]


def _searches(facets: list[Facts]) -> list[Search]:
    newest: dict[str, Search] = {}
    for facts in facets:
        for search in facts.searches:
            have = newest.get(search.query)
            if have is None or search.at > have.at:
                newest[search.query] = search
    return sorted(newest.values(), key=_at)[-MAX_SEARCHES:]


def _orders(whole: Facts, facets: list[Facts]) -> None:
    """The orders of all facets; what two of them report is taken out of the counters once."""
    found: dict[str, Order] = {}
    hashes: list[bytes] = []
    for facts in facets:
        hashes.extend(facts.older_orders[at:at + HASH] for at in range(0, len(facts.older_orders), HASH))
        for order in facts.orders:
            have = found.get(order.order_id)
            if have is None:
                found[order.order_id] = order
                continue
            keep, drop = (have, order) if _order_rank(have) >= _order_rank(order) else (order, have)
            found[order.order_id] = keep
            if not drop.cancelled:
                whole.order_count -= 1
                whole.offline_orders -= drop.offline
                if not drop.currency:
                    whole.revenue -= drop.value - drop.refunded
    ordered = sorted(found.values(), key=attrgetter("at", "order_id"))
    whole.orders = ordered[-MAX_ORDERS:]
    hashes.extend(digest(order.order_id) for order in ordered[:-MAX_ORDERS])
    whole.older_orders = b"".join(dict.fromkeys(hashes))[-HASH * MAX_OLDER_ORDERS:]


def _order_rank(order: Order) -> tuple[bool, int, bool, int]:
    return order.cancelled, order.refunded, not order.offline, order.value
