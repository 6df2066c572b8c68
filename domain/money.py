"""Money: integer minor units and a currency.

>>> to_minor(19.99, "EUR"), to_minor("1500", "JPY"), to_minor(1.5, "KWD")
(1999, 1500, 1500)
>>> to_major(1999, "EUR"), to_major(1500, "JPY")
('19.99', '1500')
"""

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

MINOR_UNIT_DIGITS: dict[str, int] = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "UYI",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""Decimal digits (ISO 4217) of currencies that do not have two."""

MAX_MINOR_UNITS = 10**15
"""Largest accepted amount; the lifetime sums of a person stay far below 64 bits."""

_MINOR_UNITS_PER_MAJOR: dict[str, int] = {currency: 10**digits for currency, digits in MINOR_UNIT_DIGITS.items()}


def is_currency(code: str) -> bool:
    """Return whether a code has the form of ISO 4217: three capital letters.

    >>> is_currency("EUR"), is_currency("euro")
    (True, False)
    """
    return len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()


def to_minor(value: float | str | Decimal, currency: str) -> int:
    """Convert an amount in major units to integer minor units, rounding half away from zero.

    Raises ValueError for values that are not finite numbers or larger than 10**15 minor units.

    >>> to_minor(1.005, "EUR"), to_minor("-3,50".replace(",", "."), "EUR")
    (101, -350)
    >>> to_minor(float("nan"), "EUR")
    Traceback (most recent call last):
        ...
    ValueError: should be an amount of money, is nan
    """
    factor = _MINOR_UNITS_PER_MAJOR.get(currency, 100)
    if isinstance(value, bool):
        raise ValueError("should be an amount of money, is true or false")
    if isinstance(value, int):
        minor = value * factor
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"should be an amount of money, is {value}")
        scaled = value * factor
        if not -MAX_MINOR_UNITS <= scaled <= MAX_MINOR_UNITS:
            raise ValueError(f"should be an amount of money, is too large ({value:.3g})")
        minor = round(scaled)
        if abs(abs(scaled - minor) - 0.5) < 1e-3:
            minor = _round_to_minor(Decimal(repr(value)), factor)
    elif isinstance(value, str):
        minor = _round_to_minor(_parse_decimal(value), factor)
    elif isinstance(value, Decimal):
        minor = _round_to_minor(value, factor)
    else:
        raise ValueError(f"should be an amount of money, is {_describe_type(value)}")
    if not -MAX_MINOR_UNITS <= minor <= MAX_MINOR_UNITS:
        raise ValueError("should be an amount of money, is too large")
    return minor


def to_major(minor: int, currency: str) -> str:
    """Format minor units as major units, with the decimal digits of the currency.

    >>> to_major(-5, "EUR"), to_major(1234, "KWD")
    ('-0.05', '1.234')
    """
    digits = MINOR_UNIT_DIGITS.get(currency, 2)
    if not digits:
        return str(minor)
    whole, part = divmod(abs(minor), 10**digits)
    return f"{'-' if minor < 0 else ''}{whole}.{part:0{digits}d}"


def convert(minor: int, from_currency: str, to_currency: str, rates: Mapping[str, float]) -> int | None:
    """Convert an amount to another currency; None without an exchange rate.

    `rates` has the value of one unit of each currency in `to_currency`.

    >>> convert(1000, "USD", "EUR", {"USD": 0.9}), convert(1000, "JPY", "EUR", {"JPY": 0.006})
    (900, 600)
    >>> convert(1000, "XXX", "EUR", {}) is None
    True
    """
    if from_currency == to_currency:
        return minor
    rate = rates.get(from_currency)
    if rate is None:
        return None
    worth = (
        Decimal(minor)
        * Decimal(repr(rate))
        * _MINOR_UNITS_PER_MAJOR.get(to_currency, 100)
        / _MINOR_UNITS_PER_MAJOR.get(from_currency, 100)
    )
    if not worth.is_finite() or abs(worth) > MAX_MINOR_UNITS:
        return None
    return int(worth.to_integral_value(ROUND_HALF_UP))


def _parse_decimal(text: str) -> Decimal:
    if len(text) > 40 or "_" in text:
        raise ValueError(f"should be an amount of money, is {text[:40]!r}")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"should be an amount of money, is {text!r}") from None


def _round_to_minor(value: Decimal, factor: int) -> int:
    if not value.is_finite():
        raise ValueError(f"should be an amount of money, is {value}")
    if abs(value) > MAX_MINOR_UNITS:
        raise ValueError("should be an amount of money, is too large")
    return int((value * factor).to_integral_value(ROUND_HALF_UP))


def _describe_type(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
