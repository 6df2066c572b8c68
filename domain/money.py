"""Money: integer minor units and a currency. No fraction of a cent is ever stored.

>>> to_minor(19.99, "EUR"), to_minor("1500", "JPY"), to_minor(1.5, "KWD")
(1999, 1500, 1500)
>>> to_major(1999, "EUR"), to_major(1500, "JPY")
('19.99', '1500')
"""

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

DIGITS: dict[str, int] = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV",
                     "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""Digits after the point (ISO 4217), where they are not two."""

MOST = 10**15
"""Minor units that are believed; sums of a person's whole life stay far below 64 bits."""

_FACTORS: dict[str, int] = {currency: 10**digits for currency, digits in DIGITS.items()}


def is_currency(code: str) -> bool:
    """Whether this looks like an ISO 4217 code: three capital letters.

    >>> is_currency("EUR"), is_currency("euro")
    (True, False)
    """
    return len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()


def to_minor(value: float | str | Decimal, currency: str) -> int:
    """An amount in major units as integer minor units of its currency, halves away from zero.

    ValueError for what is no number, not finite, or beyond belief (more than 10**15 minor units).

    >>> to_minor(1.005, "EUR"), to_minor("-3,50".replace(",", "."), "EUR")
    (101, -350)
    >>> to_minor(float("nan"), "EUR")
    Traceback (most recent call last):
        ...
    ValueError: should be an amount of money, is nan
    """
    factor = _FACTORS.get(currency, 100)
    if isinstance(value, bool):
        raise ValueError("should be an amount of money, is true or false")
    if isinstance(value, int):
        minor = value * factor
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"should be an amount of money, is {value}")
        scaled = value * factor
        if not -MOST <= scaled <= MOST:
            raise ValueError(f"should be an amount of money, is absurdly large ({value:.3g})")
        minor = round(scaled)
        if abs(abs(scaled - minor) - 0.5) < 1e-3:
            minor = _exact(Decimal(repr(value)), factor)
    elif isinstance(value, str):
        minor = _exact(_read(value), factor)
    elif isinstance(value, Decimal):
        minor = _exact(value, factor)
    else:
        raise ValueError(f"should be an amount of money, is {_shown(value)}")
    if not -MOST <= minor <= MOST:
        raise ValueError("should be an amount of money, is absurdly large")
    return minor


def to_major(minor: int, currency: str) -> str:
    """An amount as people write it, with the digits its currency has.

    >>> to_major(-5, "EUR"), to_major(1234, "KWD")
    ('-0.05', '1.234')
    """
    digits = DIGITS.get(currency, 2)
    if not digits:
        return str(minor)
    whole, part = divmod(abs(minor), 10**digits)
    return f"{'-' if minor < 0 else ''}{whole}.{part:0{digits}d}"


def convert(minor: int, frm: str, to: str, rates: Mapping[str, float]) -> int | None:
    """The same worth in the currency `to`; None when nobody said what `frm` is worth (it is kept, and not summed).

    `rates` says how many units of `to` one unit of a currency is worth.

    >>> convert(1000, "USD", "EUR", {"USD": 0.9}), convert(1000, "JPY", "EUR", {"JPY": 0.006})
    (900, 600)
    >>> convert(1000, "XXX", "EUR", {}) is None
    True
    """
    if frm == to:
        return minor
    rate = rates.get(frm)
    if rate is None:
        return None
    worth = Decimal(minor) * Decimal(repr(rate)) * _FACTORS.get(to, 100) / _FACTORS.get(frm, 100)
    if not worth.is_finite() or abs(worth) > MOST:
        return None
    return int(worth.to_integral_value(ROUND_HALF_UP))


def _read(text: str) -> Decimal:
    if len(text) > 40 or "_" in text:
        raise ValueError(f"should be an amount of money, is {text[:40]!r}")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"should be an amount of money, is {text!r}") from None


def _exact(value: Decimal, factor: int) -> int:
    if not value.is_finite():
        raise ValueError(f"should be an amount of money, is {value}")
    if abs(value) > MOST:
        raise ValueError("should be an amount of money, is absurdly large")
    return int((value * factor).to_integral_value(ROUND_HALF_UP))


def _shown(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
