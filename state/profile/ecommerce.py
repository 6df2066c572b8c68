"""Events of the e-commerce spec: parsing and application to a profile.

`HANDLERS` maps an event name to two functions. `parse` (properties, rates, event) returns the payload or raises
InvalidField, and changes nothing. `apply` (person, fragment, session, payload, at, offline) changes the person and
returns whether the event counts. To support another event, add one line.

Traits and consent are plain values under plain names:

>>> parse_traits({"plan": "gold", "address": {"city": "Roma"}, "tags": ["a"], "consent": {"marketing": "granted"}})
([('plan', 'gold'), ('address.city', 'Roma')], [('marketing', True)])
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from domain.event import Track
from domain.product import (
    MAX_PRODUCT_ID_LENGTH,
    ExchangeRates,
    InvalidField,
    Product,
    parse_amount,
    parse_product,
    parse_products,
    parse_text,
)
from state.person.model import MAX_TEXT_LENGTH, Order, Person, ProfileFragment, Session
from state.profile import cart
from state.profile.profile import (
    add_category_view,
    add_order,
    add_product_view,
    add_search,
    cancel_order,
    find_order,
    is_evicted_order,
    refund_order,
    update_order_value,
)

MAX_ORDER_PRODUCTS = 50
"""Product ids and categories stored per order."""

Properties = Mapping[str, Any]
OpenSession = Session | None
Parse = Callable[[Properties, ExchangeRates, Track], Any]
Apply = Callable[[Person, ProfileFragment, OpenSession, Any, int, bool], bool]


class EventHandler(NamedTuple):
    """The functions that parse and apply an event."""

    parse: Parse
    apply: Apply


class CartPayload(NamedTuple):
    """Cart data of an event: lines (None: not stated), cart id, the shop's currency."""

    products: list[Product] | None
    cart_id: str
    currency: str


class OrderPayload(NamedTuple):
    """Order data of an event. `value` is None if it is not stated."""

    order_id: str
    value: int | None
    currency: str
    items: int
    products: tuple[str, ...]
    categories: tuple[str, ...]


def _parse_product(properties: Properties, prices: ExchangeRates, _event: Track) -> Product:
    return parse_product(properties, "properties", prices)


def _parse_cart_line(properties: Properties, prices: ExchangeRates, _event: Track) -> CartPayload:
    return CartPayload([parse_product(properties, "properties", prices)], _parse_cart_id(properties), prices.currency)


def _parse_cart(properties: Properties, prices: ExchangeRates, _event: Track) -> CartPayload:
    return CartPayload(parse_products(properties, prices), _parse_cart_id(properties), prices.currency)


def _parse_cart_id(properties: Properties) -> str:
    found = properties.get("cart_id")
    return parse_text(found, "properties", "cart_id", MAX_PRODUCT_ID_LENGTH) if found is not None else ""


def _parse_query(properties: Properties, _prices: ExchangeRates, _event: Track) -> str:
    return parse_text(properties.get("query"), "properties", "query", MAX_TEXT_LENGTH).strip()


def _parse_category(properties: Properties, _prices: ExchangeRates, _event: Track) -> str:
    return parse_text(properties.get("category"), "properties", "category", 128)


def _parse_order(properties: Properties, prices: ExchangeRates, event: Track) -> OrderPayload:
    """Parse an order. The value is `revenue`, else `total`, else `value`, else the sum of the lines.

    Without an `order_id`, the message id is used.
    """
    order_id = properties.get("order_id")
    if order_id is None or order_id == "":
        order_id = event.message_id and "m:" + event.message_id[: MAX_PRODUCT_ID_LENGTH - 2]
    if isinstance(order_id, int) and not isinstance(order_id, bool):
        order_id = str(order_id)
    if not isinstance(order_id, str) or not order_id:
        raise InvalidField("properties.order_id", "is missing or not a string")
    if len(order_id) > MAX_PRODUCT_ID_LENGTH:
        raise InvalidField("properties.order_id", f"is longer than {MAX_PRODUCT_ID_LENGTH} characters", "too_long")
    lines = parse_products(properties, prices, require_id=False)
    value, currency = _parse_order_value(properties, lines, prices)
    items = sum([line.quantity or 1 for line in lines]) if lines else 0
    products = tuple([line.product_id for line in lines if line.product_id][:MAX_ORDER_PRODUCTS]) if lines else ()
    categories = (
        tuple(dict.fromkeys([line.category for line in lines if line.category]))[:MAX_ORDER_PRODUCTS] if lines else ()
    )
    return OrderPayload(order_id, value, currency, items, products, categories)


def _parse_order_value(
    properties: Properties, lines: list[Product] | None, prices: ExchangeRates
) -> tuple[int | None, str]:
    for name in ("revenue", "total", "value"):
        if (found := properties.get(name)) is not None:
            return parse_amount(found, "properties", name, properties.get("currency"), prices)
    if not lines:
        return None, ""
    currencies = {line.currency for line in lines if line.price}
    if len(currencies) > 1:
        return sum([line.price * (line.quantity or 1) for line in lines if not line.currency]), ""
    return sum([line.price * (line.quantity or 1) for line in lines]), currencies.pop() if currencies else ""


def _on_product_viewed(
    _person: Person, fragment: ProfileFragment, session: OpenSession, payload: Product, at: int, _offline: bool
) -> bool:
    add_product_view(fragment, payload, at)
    if session is not None:
        session.products += 1
    return True


def _on_list_viewed(
    _person: Person, fragment: ProfileFragment, _session: OpenSession, payload: str, _at: int, _offline: bool
) -> bool:
    if payload:
        add_category_view(fragment, payload)
    return True


def _on_searched(
    _person: Person, fragment: ProfileFragment, session: OpenSession, payload: str, at: int, _offline: bool
) -> bool:
    if payload:
        add_search(fragment, payload, at)
    if session is not None:
        session.searches += 1
    return True


def _on_product_added(
    person: Person, _fragment: ProfileFragment, session: OpenSession, payload: CartPayload, at: int, _offline: bool
) -> bool:
    if payload.products and not _ordered_online_since(person, at):
        cart.add_item(person, payload.products[0], payload.cart_id, payload.currency, at)
    if session is not None:
        session.cart_adds += 1
    return True


def _on_product_removed(
    person: Person, _fragment: ProfileFragment, _session: OpenSession, payload: CartPayload, at: int, _offline: bool
) -> bool:
    if payload.products and not _ordered_online_since(person, at):
        cart.remove_item(person, payload.products[0], payload.cart_id, payload.currency, at)
    return True


def _on_cart_updated(
    person: Person, _fragment: ProfileFragment, _session: OpenSession, payload: CartPayload, at: int, _offline: bool
) -> bool:
    if payload.products is not None and not _ordered_online_since(person, at):
        cart.replace_items(person, payload.products, payload.cart_id, payload.currency, at)
    return True


def _on_cart_cleared(
    person: Person, _fragment: ProfileFragment, _session: OpenSession, _payload: None, at: int, _offline: bool
) -> bool:
    cart.clear(person, at)
    return True


def _on_checkout_started(
    person: Person, fragment: ProfileFragment, session: OpenSession, payload: CartPayload, at: int, offline: bool
) -> bool:
    if not _ordered_online_since(person, at):
        if payload.products:
            _on_cart_updated(person, fragment, session, payload, at, offline)
        cart.start_checkout(person, at)
    return True


def _on_order_completed(
    person: Person, fragment: ProfileFragment, session: OpenSession, payload: OrderPayload, at: int, offline: bool
) -> bool:
    """Add a new order; a known order changes no counter.

    An online order empties the cart and marks the session as ordered; an offline order does neither. If the offline
    report of an online order came first, the online report still does both, once.
    """
    found = find_order(person, payload.order_id)
    new = found is None and not is_evicted_order(person, payload.order_id)
    online = new and not offline
    if new:
        add_order(
            fragment,
            Order(
                payload.order_id,
                at,
                payload.value or 0,
                payload.currency,
                payload.items,
                offline,
                products=payload.products,
                categories=payload.categories,
            ),
        )
    elif found is not None and found[1].offline and not offline:
        owner, order = found
        order.offline, online = False, True
        owner.version += 1
        owner.offline_orders -= not order.cancelled
    if online:
        cart.clear(person, at)
        if session is not None and not session.ordered:
            session.ordered, session.ordered_at = True, at
    return new


def _on_order_updated(
    person: Person, _fragment: ProfileFragment, _session: OpenSession, payload: OrderPayload, _at: int, _offline: bool
) -> bool:
    if found := find_order(person, payload.order_id):
        owner, order = found
        owner.version += 1
        if payload.value is not None:
            update_order_value(owner, order, payload.value, payload.currency)
        if payload.products:
            order.items, order.products, order.categories = payload.items, payload.products, payload.categories
    return True


def _on_order_refunded(
    person: Person, fragment: ProfileFragment, _session: OpenSession, payload: OrderPayload, _at: int, _offline: bool
) -> bool:
    """Record a refund. For an evicted order, only a stated amount can be deducted."""
    if found := find_order(person, payload.order_id):
        found[0].version += 1
        refund_order(*found, payload.value, payload.currency)
        return True
    if is_evicted_order(person, payload.order_id) and not payload.currency:
        fragment.revenue -= payload.value or 0
    fragment.refunds += 1
    return True


def _on_order_cancelled(
    person: Person, _fragment: ProfileFragment, _session: OpenSession, payload: OrderPayload, _at: int, _offline: bool
) -> bool:
    if found := find_order(person, payload.order_id):
        found[0].version += 1
        cancel_order(*found)
    return True


def _parse_nothing(_properties: Properties, _prices: ExchangeRates, _event: Track) -> None:
    return None


def _ordered_online_since(person: Person, at: int) -> bool:
    """Return whether there is an online order after `at`; earlier cart events are then ignored."""
    for fragment in person.fragments.values():
        if fragment.last_order_at > at and any(order.at > at and not order.offline for order in fragment.orders):
            return True
    return False


HANDLERS: dict[str, EventHandler] = {
    "Product Viewed": EventHandler(_parse_product, _on_product_viewed),
    "Product List Viewed": EventHandler(_parse_category, _on_list_viewed),
    "Products Searched": EventHandler(_parse_query, _on_searched),
    "Product Added": EventHandler(_parse_cart_line, _on_product_added),
    "Wishlist Product Added to Cart": EventHandler(_parse_cart_line, _on_product_added),
    "Product Removed": EventHandler(_parse_cart_line, _on_product_removed),
    "Cart Viewed": EventHandler(_parse_cart, _on_cart_updated),
    "Cart Updated": EventHandler(_parse_cart, _on_cart_updated),
    "Cart Cleared": EventHandler(_parse_nothing, _on_cart_cleared),
    "Checkout Started": EventHandler(_parse_cart, _on_checkout_started),
    "Order Completed": EventHandler(_parse_order, _on_order_completed),
    "Order Updated": EventHandler(_parse_order, _on_order_updated),
    "Order Refunded": EventHandler(_parse_order, _on_order_refunded),
    "Order Cancelled": EventHandler(_parse_order, _on_order_cancelled),
}


TraitValue = str | int | float | bool | None

MAX_TRAIT_NAME = 128
MAX_TRAITS_PER_CALL = 256
"""Traits in one call."""

_CONSENT_VALUES: Mapping[Any, bool] = {
    "true": True,
    "granted": True,
    "yes": True,
    "1": True,
    "false": False,
    "denied": False,
    "no": False,
    "0": False,
}


def parse_traits(traits: Mapping[str, Any]) -> tuple[list[tuple[str, TraitValue]], list[tuple[str, bool]]]:
    """Return (traits, consent). Objects are read one level deep ("address.city"); lists are ignored.

    Raise InvalidField for excessive sizes and for consent that is neither yes nor no.
    """
    found: list[tuple[str, TraitValue]] = []
    answers: list[tuple[str, bool]] = []
    for name, value in traits.items():
        if name == "consent" and isinstance(value, dict):
            answers = parse_consent(value, "traits.consent")
        elif isinstance(value, dict):
            _check_name(name)
            for part, inner in value.items():
                _add_trait(found, f"{name}.{_check_name(part)}", inner)
        else:
            _add_trait(found, _check_name(name), value)
        if len(found) > MAX_TRAITS_PER_CALL:
            raise InvalidField("traits", f"holds more than {MAX_TRAITS_PER_CALL} traits", "too_long")
    return found, answers


def parse_consent(values: Mapping[str, Any], path: str) -> list[tuple[str, bool]]:
    """Return the purposes with yes (true, "granted") or no (false, "denied").

    >>> parse_consent({"marketing": False, "analytics": "granted"}, "properties")
    [('marketing', False), ('analytics', True)]
    """
    if len(values) > MAX_TRAITS_PER_CALL:
        raise InvalidField(path, f"holds more than {MAX_TRAITS_PER_CALL} purposes", "too_long")
    found = []
    for purpose, answer in values.items():
        _check_name(purpose, path)
        yes = answer if isinstance(answer, bool) else _CONSENT_VALUES.get(str(answer)[:8].lower())
        if yes is None:
            raise InvalidField(f"{path}.{purpose}", "should be true or false")
        found.append((purpose, yes))
    return found


def _check_name(name: str, path: str = "traits") -> str:
    if not 0 < len(name) <= MAX_TRAIT_NAME:
        raise InvalidField(
            f"{path}.{name[:40]}", f"a name should have between 1 and {MAX_TRAIT_NAME} characters", "too_long"
        )
    return name


def _add_trait(traits: list[tuple[str, TraitValue]], name: str, value: Any) -> None:
    if isinstance(value, str):
        traits.append((name, value[:MAX_TEXT_LENGTH]))
    elif isinstance(value, bool) or value is None or isinstance(value, float):
        traits.append((name, value))
    elif isinstance(value, int):
        traits.append((name, value if -(1 << 63) <= value < 1 << 63 else str(value)[:MAX_TEXT_LENGTH]))
