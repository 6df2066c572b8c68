"""Products as events carry them: read leniently where that is safe, refused by name where it is not.

Numbers may come as text, ids as numbers. Prices are turned into the shop's currency; of a currency without a rate the
price is kept in its own minor units and `currency` names it, so that nobody adds it up.

>>> read({"product_id": 7, "name": "Mug", "price": "12.90"}, "properties", Prices("EUR"))
Product(product_id='7', name='Mug', category='', brand='', price=1290, currency='', quantity=0, url='', image_url='')
>>> read({"product_id": "m", "price": "cheap"}, "properties", Prices("EUR"))
Traceback (most recent call last):
    ...
domain.product.WrongField: properties.price: should be an amount of money, is 'cheap'
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from domain.money import convert, to_minor

MAX_PRODUCTS_READ = 500
"""Products in one event; more is no cart."""

MAX_PRODUCT_ID = 128
MAX_NAME = 256
MAX_CATEGORY = 128
MAX_LINK = 1_024
MAX_QUANTITY = 100_000


class WrongField(ValueError):
    """A field that cannot be read: its path and the reason."""

    def __init__(self, field: str, reason: str, kind: str = "unreadable") -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason, self.kind = field, reason, kind


class Prices:
    """The shop's currency, and what one unit of another one is worth in it."""

    __slots__ = ("currency", "rates")

    def __init__(self, currency: str, rates: Mapping[str, float] | None = None) -> None:
        self.currency = currency
        self.rates = rates or {}


class Product(msgspec.Struct, frozen=True, gc=False):
    """One product in an event. `price` is of one piece, `quantity` is 0 where none was named.

    `currency` is empty for the shop's own.
    """

    product_id: str
    name: str = ""
    category: str = ""
    brand: str = ""
    price: int = 0
    currency: str = ""
    quantity: int = 0
    url: str = ""
    image_url: str = ""


def read(
    values: Mapping[str, Any], where: str, prices: Prices, currency: str | None = None, *, named: bool = True
) -> Product:
    """The product that an event (or one line of it) names; `currency` is the one of the whole event.

    WrongField when a field is of no use (not text, no number, absurdly large), or when there is no product id, unless
    `named` is false: a line of an order may do without.
    """
    get = values.get
    product_id = get("product_id")
    if type(product_id) is not str or not 0 < len(product_id) <= MAX_PRODUCT_ID:
        product_id = _id(values, where, named)
    name = get("name") or ""
    if type(name) is not str or len(name) > MAX_NAME:
        name = text(name, where, "name", MAX_NAME)
    category = get("category") or ""
    if type(category) is not str or len(category) > MAX_CATEGORY:
        category = text(category, where, "category", MAX_CATEGORY)
    brand = get("brand") or ""
    if type(brand) is not str or len(brand) > MAX_NAME:
        brand = text(brand, where, "brand", MAX_NAME)
    minor, kept = 0, ""
    price = get("price")
    if price is not None:
        minor, kept = amount(price, where, "price", get("currency") or currency, prices)
    count = get("quantity")
    if count is None:
        count = 0
    elif type(count) is not int or not 0 <= count <= MAX_QUANTITY:
        count, minor = _quantity(count, where, minor)
    url = get("url")
    image_url = get("image_url")
    return Product(product_id, name, category, brand, minor, kept, count, link(url) if url else "",
                   link(image_url) if image_url else "")


def read_all(values: Mapping[str, Any], prices: Prices, *, named: bool = True) -> list[Product] | None:
    """The `products` of an event; None when it names none at all."""
    lines = values.get("products")
    if lines is None:
        return None
    if not isinstance(lines, list):
        raise WrongField("properties.products", "should be a list")
    if len(lines) > MAX_PRODUCTS_READ:
        raise WrongField("properties.products", f"holds {len(lines)} products, at most {MAX_PRODUCTS_READ} are read")
    currency = values.get("currency")
    found = []
    for n, line in enumerate(lines):
        where = f"properties.products[{n}]"
        if not isinstance(line, dict):
            raise WrongField(where, "should be a product")
        found.append(read(line, where, prices, currency, named=named))
    return found


def amount(value: Any, where: str, name: str, currency: Any, prices: Prices) -> tuple[int, str]:
    """An amount in minor units of the shop's currency and "", or of another one without a rate and its code.

    >>> amount(10, "properties", "revenue", "usd", Prices("EUR", {"USD": 0.9}))
    (900, '')
    >>> amount(10, "properties", "revenue", "XTS", Prices("EUR"))
    (1000, 'XTS')
    """
    own = prices.currency
    if currency is None or currency == own:
        currency = own
    elif type(currency) is str and len(currency) <= 8:
        currency = currency.upper()
    else:
        raise WrongField(f"{where}.currency", "should be the code of a currency, such as \"EUR\"")
    try:
        minor = to_minor(value, currency)
    except ValueError as wrong:
        raise WrongField(f"{where}.{name}", str(wrong)) from None
    if minor < 0:
        raise WrongField(f"{where}.{name}", f"should not be negative, is {value!s:.20}")
    if currency == own:
        return minor, ""
    worth = convert(minor, currency, own, prices.rates)
    return (minor, currency) if worth is None else (worth, "")


def text(value: Any, where: str, name: str, most: int) -> str:
    """Text, cut at `most` characters; numbers are text too.

    >>> text(7, "properties", "brand", 10), text("x" * 12, "properties", "brand", 10)
    ('7', 'xxxxxxxxxx')
    """
    if isinstance(value, str):
        return value[:most]
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:most]
    raise WrongField(f"{where}.{name}", f"should be text, is {_shown(value)}")


def link(value: Any) -> str:
    """A link that may be shown: http, https or a path, and not too long; anything else is none.

    >>> link("https://shop.example/p"), link("/p"), link("javascript:alert(1)"), link("//evil.example")
    ('https://shop.example/p', '/p', '', '')
    """
    if type(value) is not str or len(value) > MAX_LINK:
        return ""
    if value.startswith(("https://", "http://")) or (value[:1] == "/" and value[1:2] not in ("/", "\\")):
        return value
    return ""


def _id(values: Mapping[str, Any], where: str, named: bool) -> str:
    for name in ("product_id", "sku"):
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise WrongField(f"{where}.{name}", f"should be text, is {_shown(value)}")
        if len(value) > MAX_PRODUCT_ID:
            raise WrongField(f"{where}.{name}", f"is longer than {MAX_PRODUCT_ID} characters", "too_long")
        return value
    if named:
        raise WrongField(f"{where}.product_id", "is missing")
    return ""


def _quantity(value: Any, where: str, price: int) -> tuple[int, int]:
    """How many pieces. A part of one (1.5 kg) is one piece at that part of the price."""
    number = value
    if isinstance(value, str) and len(value) <= 20:
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise WrongField(f"{where}.quantity", f"should be a number, is {_shown(value)}")
    if not 0 <= number <= MAX_QUANTITY:
        raise WrongField(f"{where}.quantity", f"should be between 0 and {MAX_QUANTITY}, is {value!s:.20}")
    if number == int(number):
        return int(number), price
    return 1, round(price * number)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value[:40])
    return "true or false" if isinstance(value, bool) else f"a {type(value).__name__}"
