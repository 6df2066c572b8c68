"""Durations as text ("30s", "5m", "2h", "7d", "2w") and in milliseconds, and counts as text.

>>> parse_duration("90s"), parse_duration("1h 30m")
(90000, 5400000)
>>> format_duration(90_000), format_duration(3_600_000), format_duration(7 * 86_400_000)
('90 s', '1 hour', '7 days')
>>> format_times(1), format_times(1_200), pluralize(1, "page"), pluralize(3, "page"), pluralize(0.5, "point")
('once', '1,200 times', '1 page', '3 pages', '0.5 points')
"""

import re
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta

UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
DURATION_PATTERN: Final = r"^[0-9]{1,7}[smhdw]( ?[0-9]{1,7}[smhdw])*$"
MAX_DURATION: Final = 10 * 366 * UNIT_MS["d"]
"""Ten years, the longest duration in a playbook."""

Duration = Annotated[
    str, Meta(pattern=DURATION_PATTERN, max_length=40, description='a duration such as "30s", "5m", "2h", "7d", "2w"')
]

_DURATION_PART = re.compile(r"([0-9]+)([smhdw])")


@lru_cache(1_024)  # conditions are described with every segment change
def parse_duration(text: str) -> int:
    """Return a duration in ms. Raises ValueError for invalid text and for more than ten years.

    >>> parse_duration("soon")
    Traceback (most recent call last):
        ...
    ValueError: should be a duration such as "30s", "5m", "2h", "7d", "2w", is "soon"
    """
    if len(text) > 40 or re.fullmatch(DURATION_PATTERN[1:-1], text) is None:
        raise ValueError(f'should be a duration such as "30s", "5m", "2h", "7d", "2w", is "{text[:40]}"')
    total = sum(int(number) * UNIT_MS[unit] for number, unit in _DURATION_PART.findall(text))
    if total > MAX_DURATION:
        raise ValueError(f'should be at most ten years, is "{text}"')
    return total


def format_duration(milliseconds: int) -> str:
    """Format a duration in the largest exact unit.

    >>> format_duration(1_500), format_duration(0), format_duration(1_209_600_000)
    ('1.5 s', '0 s', '14 days')
    """
    for size, one in ((UNIT_MS["d"], "day"), (UNIT_MS["h"], "hour")):
        if milliseconds and milliseconds % size == 0:
            count = milliseconds // size
            return f"{count} {one}" if count == 1 else f"{count} {one}s"
    if milliseconds >= 5 * UNIT_MS["m"] and milliseconds % UNIT_MS["m"] == 0:
        return f"{milliseconds // UNIT_MS['m']} minutes"
    return f"{milliseconds / 1000:g} s"


_MONTH_MS, _YEAR_MS = 30.4375 * UNIT_MS["d"], 365.25 * UNIT_MS["d"]


def format_rough_duration(milliseconds: int) -> str:
    """Format a duration approximately, rounded down.

    >>> format_rough_duration(61_400), format_rough_duration(4_500_000), format_rough_duration(19_230_000)
    ('61 s', '75 minutes', '5 hours 20 minutes')
    >>> format_rough_duration(7 * 86_400_000), format_rough_duration(273_600_500)
    ('7 days', '3 days 4 hours')
    >>> format_rough_duration(40 * 86_400_000), format_rough_duration(225_814_000_000)
    ('40 days', '7 years')
    """
    day, hour, minute = UNIT_MS["d"], UNIT_MS["h"], UNIT_MS["m"]
    if milliseconds < 10 * minute:
        return format_duration(milliseconds if milliseconds < 10_000 else milliseconds // 1000 * 1000)
    for size, one, least in ((_YEAR_MS, "year", 2 * _YEAR_MS), (_MONTH_MS, "month", 60 * day), (day, "day", 10 * day)):
        if milliseconds >= least:
            return pluralize(int(milliseconds // size), one)
    if milliseconds < 2 * hour and milliseconds % hour:
        return pluralize(milliseconds // minute, "minute")
    large, small = (("day", day), ("hour", hour)) if milliseconds >= day else (("hour", hour), ("minute", minute))
    rest = milliseconds % large[1] // small[1]
    return pluralize(milliseconds // large[1], large[0]) + (f" {pluralize(rest, small[0])}" if rest else "")


def format_times(count: int) -> str:
    """Format how often: once, 2 times, ..."""
    return "once" if count == 1 else f"{count:,} times"


def pluralize(count: float, singular: str, plural: str = "") -> str:
    """Format a count with its noun; the default plural adds an s."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {singular if count == 1 else plural or singular + 's'}"
