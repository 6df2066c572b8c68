"""Amounts in words: how often, and how many of what.

>>> times(1), times(1_200), some(1, "page"), some(3, "page"), some(0.5, "point")
('once', '1,200 times', '1 page', '3 pages', '0.5 points')
"""


def times(n: int) -> str:
    """How often."""
    return "once" if n == 1 else f"{n:,} times"


def some(n: float, one: str, many: str = "") -> str:
    """How many of what; `many` where that is not `one` with an s."""
    number = f"{n:,}" if isinstance(n, int) else f"{n:g}"
    return f"{number} {one if n == 1 else many or one + 's'}"
