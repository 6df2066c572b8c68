"""Amounts in words: how often, and how many of what.

>>> times(1), times(1_200), some(1, "page"), some(3, "page")
('once', '1,200 times', '1 page', '3 pages')
"""


def times(n: int) -> str:
    """How often."""
    return "once" if n == 1 else f"{n:,} times"


def some(n: int, one: str, many: str = "") -> str:
    """How many of what; `many` where that is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
