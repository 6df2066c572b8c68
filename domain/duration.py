"""Durations as a marketer writes them: "30s", "5m", "2h", "7d", "2w". Inside, they are milliseconds.

>>> parse("90s"), parse("1h 30m")
(90000, 5400000)
>>> say(90_000), say(3_600_000), say(7 * 86_400_000)
('90 s', '1 hour', '7 days')
"""

import re
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta

UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
PATTERN: Final = r"^[0-9]{1,7}[smhdw]( ?[0-9]{1,7}[smhdw])*$"
LONGEST: Final = 10 * 366 * UNITS["d"]
"""Ten years: nothing in a playbook waits longer."""

Duration = Annotated[
    str, Meta(pattern=PATTERN, max_length=40, description='a duration such as "30s", "5m", "2h", "7d", "2w"')
]

_PART = re.compile(r"([0-9]+)([smhdw])")


@lru_cache(1_024)  # conditions are put into words with every move
def parse(text: str) -> int:
    """A duration in ms. ValueError for what is none, and for more than ten years.

    >>> parse("soon")
    Traceback (most recent call last):
        ...
    ValueError: should be a duration such as "30s", "5m", "2h", "7d", "2w", is "soon"
    """
    if len(text) > 40 or re.fullmatch(PATTERN[1:-1], text) is None:
        raise ValueError(f'should be a duration such as "30s", "5m", "2h", "7d", "2w", is "{text[:40]}"')
    total = sum(int(number) * UNITS[unit] for number, unit in _PART.findall(text))
    if total > LONGEST:
        raise ValueError(f'should be at most ten years, is "{text}"')
    return total


def say(milliseconds: int) -> str:
    """A duration in words, in the largest unit that is exact.

    >>> say(1_500), say(0), say(1_209_600_000)
    ('1.5 s', '0 s', '14 days')
    """
    for size, one in ((UNITS["d"], "day"), (UNITS["h"], "hour")):
        if milliseconds and milliseconds % size == 0:
            count = milliseconds // size
            return f"{count} {one}" if count == 1 else f"{count} {one}s"
    if milliseconds >= 5 * UNITS["m"] and milliseconds % UNITS["m"] == 0:
        return f"{milliseconds // UNITS['m']} minutes"
    return f"{milliseconds / 1000:g} s"


_MONTH, _YEAR = 30.4375 * UNITS["d"], 365.25 * UNITS["d"]


def roughly(milliseconds: int) -> str:
    """How long something is ago, or yet to come, in words that one can picture: cut off, never rounded up.

    >>> roughly(61_400), roughly(4_500_000), roughly(19_230_000)
    ('61 s', '75 minutes', '5 hours 20 minutes')
    >>> roughly(7 * 86_400_000), roughly(273_600_500), roughly(40 * 86_400_000), roughly(225_814_000_000)
    ('7 days', '3 days 4 hours', '40 days', '7 years')
    """
    day, hour, minute = UNITS["d"], UNITS["h"], UNITS["m"]
    if milliseconds < 10 * minute:
        return say(milliseconds if milliseconds < 10_000 else milliseconds // 1000 * 1000)
    for size, one, least in ((_YEAR, "year", 2 * _YEAR), (_MONTH, "month", 60 * day), (day, "day", 10 * day)):
        if milliseconds >= least:
            return _some(int(milliseconds // size), one)
    if milliseconds < 2 * hour and milliseconds % hour:
        return _some(milliseconds // minute, "minute")
    large, small = (("day", day), ("hour", hour)) if milliseconds >= day else (("hour", hour), ("minute", minute))
    rest = milliseconds % large[1] // small[1]
    return _some(milliseconds // large[1], large[0]) + (f" {_some(rest, small[0])}" if rest else "")


def _some(count: int, one: str) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
