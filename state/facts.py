"""Facts: how one happening changes what is known under one id. Bounded, deterministic, in place.

Money here is in minor units of the shop's currency; what is in a currency without a rate is kept and never added up.
"""

from operator import attrgetter

from domain.product import Product
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
    Trait,
)
from state.seen import HASH, digest
from state.view import earlier

ALWAYS_COUNTED = frozenset({
    "Page Viewed", "Screen Viewed", "Products Searched", "Product List Viewed", "Product Clicked", "Product Viewed",
    "Product Added", "Product Removed", "Cart Viewed", "Cart Updated", "Cart Cleared", "Checkout Started",
    "Checkout Step Viewed", "Checkout Step Completed", "Payment Info Entered", "Order Completed", "Order Updated",
    "Order Refunded", "Order Cancelled", "Coupon Entered", "Coupon Applied", "Coupon Denied",
    "Product Added to Wishlist", "Exit Intent", "Offer Shown", "Offer Clicked", "Offer Dismissed", "Identified",
    "Signed Out", "Consent Updated",
})
"""Names that are never given up: a flood of invented names must not make anybody forget an order."""

_at = attrgetter("at")


def count(facts: Facts, name: str, at: int) -> None:
    """One more of `name` at `at`. When there are too many names, the one used least, longest ago gives way.

    >>> facts = Facts()
    >>> count(facts, "Exit Intent", 9); count(facts, "Exit Intent", 5)
    >>> facts.counts
    {'Exit Intent': Count(n=2, first_at=5, last_at=9)}
    """
    counts = facts.counts
    counted = counts.get(name)
    if counted is None:
        if len(counts) >= MAX_COUNTS:
            gone = min((counted.n, counted.last_at, known) for known, counted in counts.items()
                       if known not in ALWAYS_COUNTED)
            del counts[gone[2]]
        counts[name] = Count(1, at, at)
        return
    counted.n += 1
    if at > counted.last_at:
        counted.last_at = at
    elif at < counted.first_at:
        counted.first_at = at


def viewed(facts: Facts, product: Product, at: int) -> None:
    """A product was looked at: its latest data, its views, newest last; a late view changes the number alone."""
    products = facts.products
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
        interested(facts, product.category)
    if place >= 0:
        del products[place]
    seen = ProductSeen(product.product_id, product.name, product.category, product.brand, product.price, product.url,
                       product.image_url, views, at, product.currency)
    if not products or at >= products[-1].at:
        products.append(seen)
    else:
        products.append(seen)
        products.sort(key=_at)
    if len(products) > MAX_PRODUCTS:
        del products[0]


def interested(facts: Facts, category: str) -> None:
    """One more look at a category; the one looked at least gives way when there are too many."""
    categories = facts.categories
    n = categories.get(category)
    if n is None:
        if len(categories) >= MAX_CATEGORIES:
            del categories[min((n, known) for known, n in categories.items())[1]]
        n = 0
    categories[category] = n + 1


def searched(facts: Facts, query: str, at: int) -> None:
    """They searched for this; the same words again take the place of the earlier time.

    >>> facts = Facts()
    >>> searched(facts, "tea", 1); searched(facts, "mug", 2); searched(facts, "tea", 3)
    >>> [search.query for search in facts.searches]
    ['mug', 'tea']
    """
    searches = facts.searches
    for n, have in enumerate(searches):
        if have.query == query:
            if have.at > at:
                return
            del searches[n]
            break
    searches.append(Search(query, at))
    searches.sort(key=_at)
    if len(searches) > MAX_SEARCHES:
        del searches[0]


def learn_trait(traits: dict[str, Trait], name: str, trait: Trait, most: int) -> None:
    """Take over a trait unless a later one is known; of the same time the greater mark. The oldest one gives way.

    >>> traits = {"plan": Trait(5, "gold")}
    >>> learn_trait(traits, "plan", Trait(4, "free"), 64); traits["plan"].value
    'gold'
    """
    have = traits.get(name)
    if have is not None:
        if (trait.at, trait.mark) >= (have.at, have.mark):
            traits[name] = trait
        return
    if len(traits) >= most:
        oldest = min((known.at, known.mark, name) for name, known in traits.items())
        if trait.at < oldest[0]:
            return
        del traits[oldest[2]]
    traits[name] = trait


def find_order(person: Person, order_id: str) -> tuple[Facts, Order] | None:
    """An order of this person, under whichever id it was reported."""
    for facts in person.facets.values():
        for order in facts.orders:
            if order.order_id == order_id:
                return facts, order
    return None


def is_older_order(person: Person, order_id: str) -> bool:
    """Whether this order was counted long ago and is no longer in the list."""
    wanted = None
    for facts in person.facets.values():
        row = facts.older_orders
        if row:
            wanted = wanted or digest(order_id)
            at = row.find(wanted)
            while at >= 0:
                if at % HASH == 0:
                    return True
                at = row.find(wanted, at + 1)
    return False


def ordered(facts: Facts, order: Order) -> None:
    """A new order: it counts, and what was paid for it counts if its currency has a rate."""
    facts.order_count += 1
    if order.offline:
        facts.offline_orders += 1
    if not order.currency:
        facts.revenue += order.value
    facts.first_order_at = earlier(facts.first_order_at, order.at)
    facts.last_order_at = max(facts.last_order_at, order.at)
    orders = facts.orders
    late = bool(orders) and order.at < orders[-1].at
    orders.append(order)
    if late:
        orders.sort(key=_at)
    if len(orders) > MAX_ORDERS:
        gone = orders.pop(0)
        facts.older_orders = (facts.older_orders + digest(gone.order_id))[-HASH * MAX_OLDER_ORDERS:]


def reprice(facts: Facts, order: Order, value: int, currency: str) -> None:
    """An order has another value now; what came back of it cannot be more than that."""
    before = _net(order)
    order.value, order.currency = value, currency
    order.refunded = min(order.refunded, value)
    facts.revenue += _net(order) - before


def refund(facts: Facts, order: Order, value: int | None, currency: str) -> None:
    """Money goes back: `value` of it, or all of it when nobody says how much. Never more than was paid.

    >>> facts, order = Facts(order_count=1, revenue=900), Order("o", 5, 900)
    >>> refund(facts, order, 400, ""); (facts.revenue, order.refunded)
    (500, 400)
    >>> refund(facts, order, None, ""); (facts.revenue, order.refunded, facts.order_count)
    (0, 900, 1)
    """
    before = _net(order)
    if value is None:
        order.refunded = order.value
    elif currency == order.currency:
        order.refunded = min(order.value, order.refunded + value)
    facts.revenue += _net(order) - before
    facts.refunds += 1


def cancel(facts: Facts, order: Order) -> None:
    """The order does not count any more; a second time changes nothing."""
    if order.cancelled:
        return
    before = _net(order)
    order.cancelled = True
    facts.revenue -= before
    facts.order_count -= 1
    if order.offline:
        facts.offline_orders -= 1


def _net(order: Order) -> int:
    return 0 if order.cancelled or order.currency else order.value - order.refunded
