"""Products in events: lenient parsing where it is safe, an error with the field name otherwise.

Numbers may be text, and ids may be numbers. Prices are converted to the shop's currency. Without an exchange rate the
price stays in minor units of its own currency, and `currency` names it, so that it is not summed.

>>> parse_product({"product_id": 7, "name": "Mug", "price": "12.90"}, "properties", ExchangeRates("EUR"))
Product(product_id='7', name='Mug', category='', brand='', price=1290, currency='', quantity=0, url='', image_url='')
>>> parse_product({"product_id": "m", "price": "cheap"}, "properties", ExchangeRates("EUR"))
Traceback (most recent call last):
    ...
domain.product.InvalidField: properties.price: should be an amount of money, is 'cheap'
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from domain.money import convert, to_minor

MAX_PRODUCTS_PER_EVENT = 500
"""Maximum number of products in one event."""

MAX_PRODUCT_ID_LENGTH = 128
MAX_PRODUCT_NAME_LENGTH = 256
MAX_CATEGORY_LENGTH = 128
MAX_URL_LENGTH = 1_024
MAX_QUANTITY = 100_000


class InvalidField(ValueError):
    """An invalid field: its path and the reason."""

    def __init__(self, field: str, reason: str, kind: str = "invalid") -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason, self.kind = field, reason, kind


class ExchangeRates:
    """The shop's currency, and the value of one unit of other currencies in it."""

    __slots__ = ("currency", "rates")

    def __init__(self, currency: str, rates: Mapping[str, float] | None = None) -> None:
        self.currency = currency
        self.rates = rates or {}


class Product(msgspec.Struct, frozen=True, gc=False):
    """One product in an event. `price` is the unit price; `quantity` is 0 if missing.

    `currency` is empty for the shop's own currency.
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


def parse_product(
    values: Mapping[str, Any],
    path: str,
    exchange: ExchangeRates,
    currency: str | None = None,
    *,
    require_id: bool = True,
) -> Product:
    """Parse the product of an event or of a line in it; `currency` is the currency of the event.

    Raises InvalidField for an invalid field, and for a missing product id if `require_id`.
    """
    get = values.get
    product_id = get("product_id")
    if type(product_id) is not str or not 0 < len(product_id) <= MAX_PRODUCT_ID_LENGTH:
        product_id = _parse_product_id(values, path, require_id)
    name = get("name") or ""
    if type(name) is not str or len(name) > MAX_PRODUCT_NAME_LENGTH:
        name = parse_text(name, path, "name", MAX_PRODUCT_NAME_LENGTH)
    category = get("category") or ""
    if type(category) is not str or len(category) > MAX_CATEGORY_LENGTH:
        category = parse_text(category, path, "category", MAX_CATEGORY_LENGTH)
    brand = get("brand") or ""
    if type(brand) is not str or len(brand) > MAX_PRODUCT_NAME_LENGTH:
        brand = parse_text(brand, path, "brand", MAX_PRODUCT_NAME_LENGTH)
    minor, kept = 0, ""
    price = get("price")
    if price is not None:
        minor, kept = parse_amount(price, path, "price", get("currency") or currency, exchange)
    count = get("quantity")
    if count is None:
        count = 0
    elif type(count) is not int or not 0 <= count <= MAX_QUANTITY:
        count, minor = _parse_quantity(count, path, minor)
    url = get("url")
    image_url = get("image_url")
    return Product(
        product_id,
        name,
        category,
        brand,
        minor,
        kept,
        count,
        safe_url(url) if url else "",
        safe_url(image_url) if image_url else "",
    )


def parse_products(
    values: Mapping[str, Any], exchange: ExchangeRates, *, require_id: bool = True
) -> list[Product] | None:
    """Parse the `products` of an event; None if the field is missing."""
    lines = values.get("products")
    if lines is None:
        return None
    if not isinstance(lines, list):
        raise InvalidField("properties.products", "should be a list")
    if len(lines) > MAX_PRODUCTS_PER_EVENT:
        raise InvalidField(
            "properties.products", f"has {len(lines)} products, at most {MAX_PRODUCTS_PER_EVENT} are accepted"
        )
    currency = values.get("currency")
    found = []
    for n, line in enumerate(lines):
        where = f"properties.products[{n}]"
        if not isinstance(line, dict):
            raise InvalidField(where, "should be a product")
        found.append(parse_product(line, where, exchange, currency, require_id=require_id))
    return found


def parse_amount(value: Any, path: str, field: str, currency: Any, exchange: ExchangeRates) -> tuple[int, str]:
    """Return (minor units of the shop's currency, ""), or (minor units, code) of a currency without a rate.

    >>> parse_amount(10, "properties", "revenue", "usd", ExchangeRates("EUR", {"USD": 0.9}))
    (900, '')
    >>> parse_amount(10, "properties", "revenue", "XTS", ExchangeRates("EUR"))
    (1000, 'XTS')
    """
    own = exchange.currency
    if currency is None or currency == own:
        currency = own
    elif type(currency) is str and len(currency) <= 8:
        currency = currency.upper()
    else:
        raise InvalidField(f"{path}.currency", 'should be a currency code such as "EUR"')
    try:
        minor = to_minor(value, currency)
    except ValueError as error:
        raise InvalidField(f"{path}.{field}", str(error)) from None
    if minor < 0:
        raise InvalidField(f"{path}.{field}", f"should not be negative, is {value!s:.20}")
    if currency == own:
        return minor, ""
    worth = convert(minor, currency, own, exchange.rates)
    return (minor, currency) if worth is None else (worth, "")


def parse_text(value: Any, path: str, field: str, max_length: int) -> str:
    """Return text, cut at `max_length` characters; numbers are converted.

    >>> parse_text(7, "properties", "brand", 10), parse_text("x" * 12, "properties", "brand", 10)
    ('7', 'xxxxxxxxxx')
    """
    if isinstance(value, str):
        return value[:max_length]
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:max_length]
    raise InvalidField(f"{path}.{field}", f"should be text, is {_describe_value(value)}")


def safe_url(value: Any) -> str:
    """Return the URL if it is http, https or a path and not too long, else "".

    >>> safe_url("https://shop.example/p"), safe_url("/p"), safe_url("javascript:alert(1)"), safe_url("//evil.example")
    ('https://shop.example/p', '/p', '', '')
    """
    if type(value) is not str or len(value) > MAX_URL_LENGTH:
        return ""
    if value.startswith(("https://", "http://")) or (value[:1] == "/" and value[1:2] not in ("/", "\\")):
        return value
    return ""


def _parse_product_id(values: Mapping[str, Any], path: str, require_id: bool) -> str:
    for name in ("product_id", "sku"):
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise InvalidField(f"{path}.{name}", f"should be text, is {_describe_value(value)}")
        if len(value) > MAX_PRODUCT_ID_LENGTH:
            raise InvalidField(f"{path}.{name}", f"is longer than {MAX_PRODUCT_ID_LENGTH} characters", "too_long")
        return value
    if require_id:
        raise InvalidField(f"{path}.product_id", "is missing")
    return ""


def _parse_quantity(value: Any, path: str, price: int) -> tuple[int, int]:
    """Return (quantity, unit price). A fraction (1.5 kg) is one item at that fraction of the price."""
    number = value
    if isinstance(value, str) and len(value) <= 20:
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidField(f"{path}.quantity", f"should be a number, is {_describe_value(value)}")
    if not 0 <= number <= MAX_QUANTITY:
        raise InvalidField(f"{path}.quantity", f"should be between 0 and {MAX_QUANTITY}, is {value!s:.20}")
    if number == int(number):
        return int(number), price
    return 1, round(price * number)


def _describe_value(value: object) -> str:
    if isinstance(value, str):
        return repr(value[:40])
    return "true or false" if isinstance(value, bool) else f"a {type(value).__name__}"
