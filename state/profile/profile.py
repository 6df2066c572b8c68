"""Profile: how events change a fragment, and the merged view of all fragments.

Fragments are bounded and changed in place. Money is in minor units of the shop's currency; amounts in a currency
without an exchange rate are stored and never added up.

A person has one fragment per id. Conditions, features and templates read `merged_profile(person)`, never a fragment.
If there is one fragment (most people), it is returned as is. Otherwise:

- Counters add up; first times are the earliest, last times the latest.
- Lists (products, searches, orders) are united and keep the newest entries. An order in two fragments counts once.
  Event counters add up and keep the newest times.
- Traits and consent: the later value wins, then the greater tiebreak. Consent yes and no at the same time is no.
- Country, device, locale and time zone come from the fragment seen last that has them.

The result is read-only: it may be the fragment itself or a cached value.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from domain.product import Product
from state.conditions.counters import merge as combine_traces
from state.person.dedup import HASH_BYTES, digest
from state.person.model import (
    MAX_CATEGORIES,
    MAX_EVICTED_ORDERS,
    MAX_LIFETIME_COUNTS,
    MAX_ORDERS,
    MAX_SEARCHES,
    MAX_VIEWED_PRODUCTS,
    LifetimeCount,
    Order,
    Person,
    ProfileFragment,
    Search,
    Source,
    Trait,
    ViewedProduct,
)

_by_time = attrgetter("at")
_EMPTY = ProfileFragment()


def merged_profile(person: Person) -> ProfileFragment:
    """Return the combined profile of a person (read-only).

    >>> fragments = {"u:ann": ProfileFragment(version=1, pages=2), "a:x": ProfileFragment(version=1, pages=3)}
    >>> merged_profile(Person(id="u:ann", fragments=fragments)).pages
    5
    """
    fragments = person.fragments
    if len(fragments) < 2:
        return fragments.get(person.id) or next(iter(fragments.values()), _EMPTY)
    stamp = sum([fragment.version for fragment in fragments.values()]) * 64 + len(fragments)
    derived = person.derived
    if derived.profile is None or derived.profile_stamp != stamp:
        derived.profile = merge_fragments([fragments[origin] for origin in sorted(fragments)])
        derived.profile_stamp = stamp
    return derived.profile


def merge_fragments(fragments: Iterable[ProfileFragment]) -> ProfileFragment:
    """Combine fragments. Their order matters only for ties."""
    ordered = sorted(fragments, key=attrgetter("last_seen"))
    merged = ProfileFragment()
    for fragment in ordered:
        merged.version += fragment.version
        merged.sessions += fragment.sessions
        merged.pages += fragment.pages
        merged.offline_orders += fragment.offline_orders
        merged.refunds += fragment.refunds
        merged.order_count += fragment.order_count
        merged.revenue += fragment.revenue
        merged.first_seen = earliest(merged.first_seen, fragment.first_seen)
        merged.last_seen = max(merged.last_seen, fragment.last_seen)
        merged.first_order_at = earliest(merged.first_order_at, fragment.first_order_at)
        merged.last_order_at = max(merged.last_order_at, fragment.last_order_at)
        merged.country = fragment.country or merged.country
        merged.device = fragment.device or merged.device
        merged.locale = fragment.locale or merged.locale
        merged.timezone = fragment.timezone or merged.timezone
        _merge_counts(merged.lifetime_counts, fragment.lifetime_counts)
        for category, n in fragment.category_views.items():
            merged.category_views[category] = merged.category_views.get(category, 0) + n
        merge_latest(merged.traits, fragment.traits)
        merge_latest(merged.consent, fragment.consent, prefer_denial=True)
        merged.first_source = _choose_source(merged.first_source, fragment.first_source, earliest_wins=True)
        merged.last_source = _choose_source(merged.last_source, fragment.last_source, earliest_wins=False)
    _evict(
        merged.lifetime_counts,
        MAX_LIFETIME_COUNTS,
        lambda name: (merged.lifetime_counts[name].count, merged.lifetime_counts[name].last_at, name),
    )
    _evict(merged.category_views, MAX_CATEGORIES, lambda name: (merged.category_views[name], name))
    merged.viewed_products = _merge_products(ordered)
    merged.searches = _merge_searches(ordered)
    merged.counters = combine_traces(ordered)
    _merge_orders(merged, ordered)
    return merged


def earliest(first: int, second: int) -> int:
    """Return the earlier of two times, where 0 means never.

    >>> earliest(0, 5), earliest(7, 5), earliest(0, 0)
    (5, 5, 0)
    """
    return min(first, second) if first and second else first or second


def merge_latest(target: dict[str, Trait], source: dict[str, Trait], *, prefer_denial: bool = False) -> None:
    """Take every later value from `source`; at the same time the greater tiebreak wins.

    With `prefer_denial`, no wins over yes of the same time.
    """
    for name, trait in source.items():
        have = target.get(name)
        if have is None or _trait_rank(trait, prefer_denial) > _trait_rank(have, prefer_denial):
            target[name] = trait


def _trait_rank(trait: Trait, prefer_denial: bool) -> tuple[int, bool, int, str]:
    return trait.at, prefer_denial and not trait.value, trait.tiebreak, repr(trait.value)


def _merge_counts(target: dict[str, LifetimeCount], source: dict[str, LifetimeCount]) -> None:
    for name, count in source.items():
        have = target.get(name)
        if have is None:
            target[name] = LifetimeCount(count.count, count.first_at, count.last_at)
        else:
            have.count += count.count
            have.first_at = earliest(have.first_at, count.first_at)
            have.last_at = max(have.last_at, count.last_at)


def _evict(entries: dict[str, LifetimeCount] | dict[str, int], limit: int, rank: Callable[[str], Any]) -> None:
    if len(entries) > limit:
        for name in sorted(entries, key=rank)[: len(entries) - limit]:
            del entries[name]


def _choose_source(left: Source | None, right: Source | None, *, earliest_wins: bool) -> Source | None:
    if left is None or right is None:
        return left or right
    if left.at == right.at:
        return min(left, right, key=lambda source: (source.source, source.medium, source.campaign))
    return left if (left.at < right.at) is earliest_wins else right


def _merge_products(fragments: list[ProfileFragment]) -> list[ViewedProduct]:
    newest: dict[str, ViewedProduct] = {}
    for fragment in fragments:
        for seen in fragment.viewed_products:
            have = newest.get(seen.product_id)
            if have is None:
                newest[seen.product_id] = seen
            else:
                late, soon = (seen, have) if seen.at >= have.at else (have, seen)
                newest[seen.product_id] = ViewedProduct(
                    late.product_id,
                    late.name,
                    late.category,
                    late.brand,
                    late.price,
                    late.url,
                    late.image_url,
                    late.views + soon.views,
                    late.at,
                    late.currency,
                )
    return sorted(newest.values(), key=_by_time)[-MAX_VIEWED_PRODUCTS:]


def _merge_searches(fragments: list[ProfileFragment]) -> list[Search]:
    newest: dict[str, Search] = {}
    for fragment in fragments:
        for search in fragment.searches:
            have = newest.get(search.query)
            if have is None or search.at > have.at:
                newest[search.query] = search
    return sorted(newest.values(), key=_by_time)[-MAX_SEARCHES:]


def _merge_orders(merged: ProfileFragment, fragments: list[ProfileFragment]) -> None:
    """Unite the orders; an order in several fragments is deducted from the counters once per duplicate."""
    found: dict[str, Order] = {}
    hashes: list[bytes] = []
    for fragment in fragments:
        hashes.extend(
            fragment.evicted_orders[at : at + HASH_BYTES] for at in range(0, len(fragment.evicted_orders), HASH_BYTES)
        )
        for order in fragment.orders:
            have = found.get(order.order_id)
            if have is None:
                found[order.order_id] = order
                continue
            keep, drop = (have, order) if _order_rank(have) >= _order_rank(order) else (order, have)
            found[order.order_id] = keep
            if not drop.cancelled:
                merged.order_count -= 1
                merged.offline_orders -= drop.offline
                if not drop.currency:
                    merged.revenue -= drop.value - drop.refunded
    ordered = sorted(found.values(), key=attrgetter("at", "order_id"))
    merged.orders = ordered[-MAX_ORDERS:]
    hashes.extend(digest(order.order_id) for order in ordered[:-MAX_ORDERS])
    merged.evicted_orders = b"".join(dict.fromkeys(hashes))[-HASH_BYTES * MAX_EVICTED_ORDERS :]


def _order_rank(order: Order) -> tuple[bool, int, bool, int]:
    return order.cancelled, order.refunded, not order.offline, order.value


NEVER_EVICTED = frozenset(
    {
        "Page Viewed",
        "Screen Viewed",
        "Products Searched",
        "Product List Viewed",
        "Product Clicked",
        "Product Viewed",
        "Product Added",
        "Product Removed",
        "Cart Viewed",
        "Cart Updated",
        "Cart Cleared",
        "Checkout Started",
        "Checkout Step Viewed",
        "Checkout Step Completed",
        "Payment Info Entered",
        "Order Completed",
        "Order Updated",
        "Order Refunded",
        "Order Cancelled",
        "Coupon Entered",
        "Coupon Applied",
        "Coupon Denied",
        "Product Added to Wishlist",
        "Exit Intent",
        "Offer Shown",
        "Offer Clicked",
        "Offer Dismissed",
        "Identified",
        "Signed Out",
        "Consent Updated",
    }
)
"""Event names whose count is never evicted, so that a flood of invented names cannot displace orders."""


def count_event(fragment: ProfileFragment, name: str, at: int) -> None:
    """Count an event. Beyond the maximum, the name with the lowest count and the oldest event is evicted.

    >>> fragment = ProfileFragment()
    >>> count_event(fragment, "Exit Intent", 9); count_event(fragment, "Exit Intent", 5)
    >>> fragment.lifetime_counts
    {'Exit Intent': LifetimeCount(count=2, first_at=5, last_at=9)}
    """
    counts = fragment.lifetime_counts
    counted = counts.get(name)
    if counted is None:
        if len(counts) >= MAX_LIFETIME_COUNTS:
            gone = min(
                (counted.count, counted.last_at, known)
                for known, counted in counts.items()
                if known not in NEVER_EVICTED
            )
            del counts[gone[2]]
        counts[name] = LifetimeCount(1, at, at)
        return
    counted.count += 1
    if at > counted.last_at:
        counted.last_at = at
    elif at < counted.first_at:
        counted.first_at = at


def add_product_view(fragment: ProfileFragment, product: Product, at: int) -> None:
    """Record a product view, newest last. A late view only raises the count."""
    products = fragment.viewed_products
    views = 1
    place = -1
    for n, have in enumerate(products):
        if have.product_id == product.product_id:
            if at < have.at:
                have.views += 1
                return
            views, place = have.views + 1, n
            break
    if product.category:
        add_category_view(fragment, product.category)
    if place >= 0:
        del products[place]
    seen = ViewedProduct(
        product.product_id,
        product.name,
        product.category,
        product.brand,
        product.price,
        product.url,
        product.image_url,
        views,
        at,
        product.currency,
    )
    if not products or at >= products[-1].at:
        products.append(seen)
    else:
        products.append(seen)
        products.sort(key=_by_time)
    if len(products) > MAX_VIEWED_PRODUCTS:
        del products[0]


def add_category_view(fragment: ProfileFragment, category: str) -> None:
    """Count a category view. Beyond the maximum, the category viewed least is evicted."""
    categories = fragment.category_views
    n = categories.get(category)
    if n is None:
        if len(categories) >= MAX_CATEGORIES:
            del categories[min((n, known) for known, n in categories.items())[1]]
        n = 0
    categories[category] = n + 1


def add_search(fragment: ProfileFragment, query: str, at: int) -> None:
    """Record a search. A repeated query replaces the earlier time.

    >>> fragment = ProfileFragment()
    >>> add_search(fragment, "tea", 1); add_search(fragment, "mug", 2); add_search(fragment, "tea", 3)
    >>> [search.query for search in fragment.searches]
    ['mug', 'tea']
    """
    searches = fragment.searches
    for n, have in enumerate(searches):
        if have.query == query:
            if have.at > at:
                return
            del searches[n]
            break
    searches.append(Search(query, at))
    searches.sort(key=_by_time)
    if len(searches) > MAX_SEARCHES:
        del searches[0]


def set_trait(traits: dict[str, Trait], name: str, trait: Trait, limit: int) -> None:
    """Set a trait unless a later value is known. Beyond the limit, the oldest trait is evicted.

    >>> traits = {"plan": Trait(5, "gold")}
    >>> set_trait(traits, "plan", Trait(4, "free"), 64); traits["plan"].value
    'gold'
    """
    have = traits.get(name)
    if have is not None:
        if (trait.at, trait.tiebreak) >= (have.at, have.tiebreak):
            traits[name] = trait
        return
    if len(traits) >= limit:
        oldest = min((known.at, known.tiebreak, name) for name, known in traits.items())
        if trait.at < oldest[0]:
            return
        del traits[oldest[2]]
    traits[name] = trait


def find_order(person: Person, order_id: str) -> tuple[ProfileFragment, Order] | None:
    """Return an order of this person and its fragment."""
    for fragment in person.fragments.values():
        for order in fragment.orders:
            if order.order_id == order_id:
                return fragment, order
    return None


def is_evicted_order(person: Person, order_id: str) -> bool:
    """Return whether this order was counted and evicted from the list."""
    wanted = None
    for fragment in person.fragments.values():
        row = fragment.evicted_orders
        if row:
            wanted = wanted or digest(order_id)
            at = row.find(wanted)
            while at >= 0:
                if at % HASH_BYTES == 0:
                    return True
                at = row.find(wanted, at + 1)
    return False


def add_order(fragment: ProfileFragment, order: Order) -> None:
    """Add a new order. Its value counts if its currency has an exchange rate."""
    fragment.order_count += 1
    if order.offline:
        fragment.offline_orders += 1
    if not order.currency:
        fragment.revenue += order.value
    fragment.first_order_at = earliest(fragment.first_order_at, order.at)
    fragment.last_order_at = max(fragment.last_order_at, order.at)
    orders = fragment.orders
    late = bool(orders) and order.at < orders[-1].at
    orders.append(order)
    if late:
        orders.sort(key=_by_time)
    if len(orders) > MAX_ORDERS:
        gone = orders.pop(0)
        fragment.evicted_orders = (fragment.evicted_orders + digest(gone.order_id))[-HASH_BYTES * MAX_EVICTED_ORDERS :]


def update_order_value(fragment: ProfileFragment, order: Order, value: int, currency: str) -> None:
    """Change the value of an order; the refund is capped at the new value."""
    before = _net_value(order)
    order.value, order.currency = value, currency
    order.refunded = min(order.refunded, value)
    fragment.revenue += _net_value(order) - before


def refund_order(fragment: ProfileFragment, order: Order, value: int | None, currency: str) -> None:
    """Refund `value` of an order, or all of it if `value` is None. Never more than was paid.

    >>> fragment, order = ProfileFragment(order_count=1, revenue=900), Order("o", 5, 900)
    >>> refund_order(fragment, order, 400, ""); (fragment.revenue, order.refunded)
    (500, 400)
    >>> refund_order(fragment, order, None, ""); (fragment.revenue, order.refunded, fragment.order_count)
    (0, 900, 1)
    """
    before = _net_value(order)
    if value is None:
        order.refunded = order.value
    elif currency == order.currency:
        order.refunded = min(order.value, order.refunded + value)
    fragment.revenue += _net_value(order) - before
    fragment.refunds += 1


def cancel_order(fragment: ProfileFragment, order: Order) -> None:
    """Cancel an order. Repeating this changes nothing."""
    if order.cancelled:
        return
    before = _net_value(order)
    order.cancelled = True
    fragment.revenue -= before
    fragment.order_count -= 1
    if order.offline:
        fragment.offline_orders -= 1


def _net_value(order: Order) -> int:
    return 0 if order.cancelled or order.currency else order.value - order.refunded
