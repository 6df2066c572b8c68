"""What the events of the e-commerce spec mean for a person: how each is read, and how it is folded.

`KNOWN` maps an event's name to two functions: `read` (properties, prices, event) gives the news or refuses a field by
name, and changes nothing; `fold` (person, facts, session, news, at, offline) changes the person and says whether the
event is to be counted. To add an event: one line in the table.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from domain.event import Track
from domain.product import MAX_PRODUCT_ID, Prices, Product, WrongField, amount, read, read_all, text
from state import cart
from state.facts import (
    cancel,
    find_order,
    interested,
    is_older_order,
    ordered,
    refund,
    reprice,
    searched,
    viewed,
)
from state.person import MAX_TEXT, Facts, Order, Person, Session

MAX_ORDERED = 50
"""Product ids, and categories, that are kept of one order."""

Properties = Mapping[str, Any]
Open = Session | None
Read = Callable[[Properties, Prices, Track], Any]
Fold = Callable[[Person, Facts, Open, Any, int, bool], bool]


class How(NamedTuple):
    """How an event is read and folded."""

    read: Read
    fold: Fold


class CartNews(NamedTuple):
    """What an event says about the cart: lines (None: it does not say), its id, the shop's currency."""

    products: list[Product] | None
    cart_id: str
    currency: str


class OrderNews(NamedTuple):
    """What an event says about an order. `value` is None when it does not say."""

    order_id: str
    value: int | None
    currency: str
    items: int
    products: tuple[str, ...]
    categories: tuple[str, ...]


def _product(properties: Properties, prices: Prices, _event: Track) -> Product:
    return read(properties, "properties", prices)


def _line(properties: Properties, prices: Prices, _event: Track) -> CartNews:
    return CartNews([read(properties, "properties", prices)], _cart_id(properties), prices.currency)


def _content(properties: Properties, prices: Prices, _event: Track) -> CartNews:
    return CartNews(read_all(properties, prices), _cart_id(properties), prices.currency)


def _cart_id(properties: Properties) -> str:
    found = properties.get("cart_id")
    return text(found, "properties", "cart_id", MAX_PRODUCT_ID) if found is not None else ""


def _query(properties: Properties, _prices: Prices, _event: Track) -> str:
    return text(properties.get("query"), "properties", "query", MAX_TEXT).strip()


def _category(properties: Properties, _prices: Prices, _event: Track) -> str:
    return text(properties.get("category"), "properties", "category", 128)


def _order(properties: Properties, prices: Prices, event: Track) -> OrderNews:
    """An order: its value is `revenue`, else `total`, else `value`, else the sum of its lines.

    Without an `order_id` the message's own id stands for it.
    """
    order_id = properties.get("order_id")
    if order_id is None or order_id == "":
        order_id = event.message_id and "m:" + event.message_id[:MAX_PRODUCT_ID - 2]
    if isinstance(order_id, int) and not isinstance(order_id, bool):
        order_id = str(order_id)
    if not isinstance(order_id, str) or not order_id:
        raise WrongField("properties.order_id", "is missing, or is no text")
    if len(order_id) > MAX_PRODUCT_ID:
        raise WrongField("properties.order_id", f"is longer than {MAX_PRODUCT_ID} characters", "too_long")
    lines = read_all(properties, prices, named=False)
    value, currency = _value(properties, lines, prices)
    items = sum([line.quantity or 1 for line in lines]) if lines else 0
    products = tuple([line.product_id for line in lines if line.product_id][:MAX_ORDERED]) if lines else ()
    categories = tuple(dict.fromkeys([line.category for line in lines if line.category]))[:MAX_ORDERED] if lines else ()
    return OrderNews(order_id, value, currency, items, products, categories)


def _value(properties: Properties, lines: list[Product] | None, prices: Prices) -> tuple[int | None, str]:
    for name in ("revenue", "total", "value"):
        if (found := properties.get(name)) is not None:
            return amount(found, "properties", name, properties.get("currency"), prices)
    if not lines:
        return None, ""
    currencies = {line.currency for line in lines if line.price}
    if len(currencies) > 1:
        return sum([line.price * (line.quantity or 1) for line in lines if not line.currency]), ""
    return sum([line.price * (line.quantity or 1) for line in lines]), currencies.pop() if currencies else ""


def _viewed(
    _person: Person, facts: Facts, session: Open, news: Product, at: int, _offline: bool
) -> bool:
    viewed(facts, news, at)
    if session is not None:
        session.products += 1
    return True


def _list_viewed(_person: Person, facts: Facts, _session: Open, news: str, _at: int, _offline: bool) -> bool:
    if news:
        interested(facts, news)
    return True


def _searched(_person: Person, facts: Facts, session: Open, news: str, at: int, _offline: bool) -> bool:
    if news:
        searched(facts, news, at)
    if session is not None:
        session.searches += 1
    return True


def _added(person: Person, _facts: Facts, session: Open, news: CartNews, at: int, _offline: bool) -> bool:
    if news.products and not _paid_since(person, at):
        cart.put(person, news.products[0], news.cart_id, news.currency, at)
    if session is not None:
        session.added += 1
    return True


def _removed(person: Person, _facts: Facts, _session: Open, news: CartNews, at: int, _offline: bool) -> bool:
    if news.products and not _paid_since(person, at):
        cart.take(person, news.products[0], news.cart_id, news.currency, at)
    return True


def _seen_cart(
    person: Person, _facts: Facts, _session: Open, news: CartNews, at: int, _offline: bool
) -> bool:
    if news.products is not None and not _paid_since(person, at):
        cart.replace(person, news.products, news.cart_id, news.currency, at)
    return True


def _cleared(person: Person, _facts: Facts, _session: Open, _news: None, at: int, _offline: bool) -> bool:
    cart.clear(person, at)
    return True


def _checkout(
    person: Person, facts: Facts, session: Open, news: CartNews, at: int, offline: bool
) -> bool:
    if not _paid_since(person, at):
        if news.products:
            _seen_cart(person, facts, session, news, at, offline)
        cart.check_out(person, at)
    return True


def _completed(person: Person, facts: Facts, session: Open, news: OrderNews, at: int, offline: bool) -> bool:
    """A new order counts; one that is known already changes no counter, whoever reports it again.

    An order on the web empties the cart and is what the visit ended in; an order at the till does neither. Where the
    till's report of a web order came first, the web's report still does both, once.
    """
    found = find_order(person, news.order_id)
    new = found is None and not is_older_order(person, news.order_id)
    web = new and not offline
    if new:
        ordered(facts, Order(news.order_id, at, news.value or 0, news.currency, news.items, offline,
                             products=news.products, categories=news.categories))
    elif found is not None and found[1].offline and not offline:
        where, order = found
        order.offline, web = False, True
        where.version += 1
        where.offline_orders -= not order.cancelled
    if web:
        cart.clear(person, at)
        if session is not None and not session.ordered:
            session.ordered, session.ordered_at = True, at
    return new


def _updated(person: Person, _facts: Facts, _session: Open, news: OrderNews, _at: int, _offline: bool) -> bool:
    if found := find_order(person, news.order_id):
        facts, order = found
        facts.version += 1
        if news.value is not None:
            reprice(facts, order, news.value, news.currency)
        if news.products:
            order.items, order.products, order.categories = news.items, news.products, news.categories
    return True


def _refunded(person: Person, facts: Facts, _session: Open, news: OrderNews, _at: int, _offline: bool) -> bool:
    """Money went back. Of an order no longer in the list only what is named can be taken off."""
    if found := find_order(person, news.order_id):
        found[0].version += 1
        refund(*found, news.value, news.currency)
        return True
    if is_older_order(person, news.order_id) and not news.currency:
        facts.revenue -= news.value or 0
    facts.refunds += 1
    return True


def _cancelled(person: Person, _facts: Facts, _session: Open, news: OrderNews, _at: int, _off: bool) -> bool:
    if found := find_order(person, news.order_id):
        found[0].version += 1
        cancel(*found)
    return True


def _nothing(_properties: Properties, _prices: Prices, _event: Track) -> None:
    return None


def _paid_since(person: Person, at: int) -> bool:
    """Whether an order on the web came after `at`: late news of the cart before it brings nothing back."""
    for facts in person.facets.values():
        if facts.last_order_at > at and any(order.at > at and not order.offline for order in facts.orders):
            return True
    return False


KNOWN: dict[str, How] = {
    "Product Viewed": How(_product, _viewed),
    "Product List Viewed": How(_category, _list_viewed),
    "Products Searched": How(_query, _searched),
    "Product Added": How(_line, _added),
    "Wishlist Product Added to Cart": How(_line, _added),
    "Product Removed": How(_line, _removed),
    "Cart Viewed": How(_content, _seen_cart),
    "Cart Updated": How(_content, _seen_cart),
    "Cart Cleared": How(_nothing, _cleared),
    "Checkout Started": How(_content, _checkout),
    "Order Completed": How(_order, _completed),
    "Order Updated": How(_order, _updated),
    "Order Refunded": How(_order, _refunded),
    "Order Cancelled": How(_order, _cancelled),
}
