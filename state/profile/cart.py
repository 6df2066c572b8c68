"""The cart, independent of the order in which events arrive.

Each line carries the time of its last change. An order removes the lines that were added before it. An empty cart is
stored as `person.cart = None`.
"""

from collections.abc import Iterable

from domain.product import Product
from state.person.model import MAX_CART_ITEMS, Cart, CartItem, Person

MAX_QUANTITY = 1_000_000
"""Maximum quantity of one product in a cart."""


def _get_or_create(person: Person, cart_id: str, currency: str, at: int) -> Cart:
    cart = person.cart
    if cart is None:
        cart = person.cart = Cart(currency=currency, created_at=at)
    if cart_id:
        cart.cart_id = cart_id
    if at > cart.updated_at:
        cart.updated_at = at
    return cart


def add_item(person: Person, product: Product, cart_id: str, currency: str, at: int) -> None:
    """Add a product, by its quantity or 1. In a full cart, the line changed longest ago is evicted.

    >>> person = Person(id="a:x")
    >>> add_item(person, Product("mug", price=450, quantity=2), "", "EUR", 5)
    >>> add_item(person, Product("mug", price=450), "", "EUR", 6)
    >>> person.cart.value, person.cart.updated_at
    (1350, 6)
    """
    cart = _get_or_create(person, cart_id, currency, at)
    quantity = product.quantity or 1
    have = cart.items.pop(product.product_id, None)
    if have is None:
        if len(cart.items) >= MAX_CART_ITEMS:
            del cart.items[min((item.at, known) for known, item in cart.items.items())[1]]
        have = _cart_item(product, quantity, at)
    elif at >= have.at:
        have = CartItem(
            min(have.quantity + quantity, MAX_QUANTITY),
            product.price or have.price,
            product.name or have.name,
            product.category or have.category,
            at,
            product.currency if product.price else have.currency,
        )
    else:
        have.quantity = min(have.quantity + quantity, MAX_QUANTITY)
    cart.items[product.product_id] = have


def remove_item(person: Person, product: Product, cart_id: str, currency: str, at: int) -> None:
    """Remove a product, by its quantity or the whole line."""
    if person.cart is None:
        return
    cart = _get_or_create(person, cart_id, currency, at)
    have = cart.items.get(product.product_id)
    if have is None:
        return
    left = have.quantity - product.quantity if product.quantity else 0
    if left > 0:
        have.quantity = left
        have.at = max(have.at, at)
    else:
        del cart.items[product.product_id]
        if not cart.items:
            person.cart = None


def replace_items(person: Person, products: Iterable[Product], cart_id: str, currency: str, at: int) -> None:
    """Set the whole cart as of `at`; ignored if the stored cart is newer.

    Unchanged lines keep their change time.
    """
    if person.cart is not None and at < person.cart.updated_at:
        return
    lines: dict[str, CartItem] = {}
    before = person.cart.items if person.cart is not None else {}
    for product in products:
        if product.product_id in lines:
            lines[product.product_id].quantity += product.quantity or 1
            continue
        if len(lines) >= MAX_CART_ITEMS:
            break
        line = _cart_item(product, product.quantity or 1, at)
        have = before.get(product.product_id)
        if have is not None:
            line.name, line.category = line.name or have.name, line.category or have.category
            if not product.price:
                line.price, line.currency = have.price, have.currency
            if (line.quantity, line.price) == (have.quantity, have.price):
                line.at = have.at
        lines[product.product_id] = line
    if not lines:
        person.cart = None
        return
    cart = _get_or_create(person, cart_id, currency, at)
    cart.items = lines


def start_checkout(person: Person, at: int) -> None:
    """Record the start of the checkout."""
    if person.cart is not None:
        person.cart.checkout_at = max(person.cart.checkout_at, at)


def clear(person: Person, at: int) -> None:
    """Remove the lines changed until `at`, after an order or when the cart was cleared.

    >>> person = Person(id="a:x")
    >>> add_item(person, Product("mug"), "", "EUR", 5); add_item(person, Product("tea"), "", "EUR", 9)
    >>> clear(person, 7); list(person.cart.items)
    ['tea']
    """
    cart = person.cart
    if cart is None:
        return
    if at >= cart.updated_at:
        person.cart = None
        return
    cart.items = {product_id: item for product_id, item in cart.items.items() if item.at > at}
    if not cart.items:
        person.cart = None
        return
    cart.created_at = max(cart.created_at, min([item.at for item in cart.items.values()]))
    if cart.checkout_at <= at:
        cart.checkout_at = 0


def _cart_item(product: Product, quantity: int, at: int) -> CartItem:
    return CartItem(quantity, product.price, product.name, product.category, at, product.currency)
