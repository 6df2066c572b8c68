"""Local time: day bounds, and the next matching time of day or weekday.

Browsers report time zones, so a name may be anything. For an unknown name the shop's time zone applies, else UTC.

>>> from datetime import datetime
>>> def local(at: int) -> str: return datetime.fromtimestamp(at / 1000, zone_info("Europe/Rome")).strftime("%a %H:%M")
>>> thursday = 1_700_000_000_000 - 13_200_000  # 19:33:20 in Rome
>>> local(next_matching_time(WaitUntil(time="09:30"), thursday, "Europe/Rome"))
'Wed 09:30'
>>> local(next_matching_time(WaitUntil(weekday=("monday", "friday")), thursday, "Europe/Rome"))
'Fri 00:00'
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.playbook.workflow import WaitUntil

DAYS_PER_WEEK = 7
"""Days covered by "this week", including today."""

_day_cache: dict[tuple[str, str], tuple[int, int, int, int]] = {}


def zone_info(timezone: str, fallback: str = "UTC") -> tzinfo:
    """Return a time zone by name, else the fallback, else UTC.

    >>> str(zone_info("Europe/Rome")), str(zone_info("Mars/Base", "Asia/Tokyo")), str(zone_info("../etc/passwd", "?"))
    ('Europe/Rome', 'Asia/Tokyo', 'UTC')
    """
    return _load_zone(timezone) or _load_zone(fallback) or UTC


@lru_cache(maxsize=1024)
def _load_zone(timezone: str) -> tzinfo | None:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def format_local_time(at: int, timezone: str = "UTC") -> str:
    """Format a time (ms) in a time zone.

    >>> format_local_time(1_569_888_000_000), format_local_time(1_569_888_000_000, "Europe/Rome")
    ('2019-10-01 00:00:00', '2019-10-01 02:00:00')
    """
    return datetime.fromtimestamp(at / 1000, zone_info(timezone)).strftime("%Y-%m-%d %H:%M:%S")


def local_day(now: int, timezone: str, fallback: str = "UTC") -> int:
    """Return the number of the day (days since year 1) in a time zone.

    >>> local_day(1_569_888_000_000, "Europe/Rome") - local_day(1_569_888_000_000, "America/Montreal")
    1
    """
    return _day_bounds(now, timezone, fallback)[2]


def week_start(now: int, timezone: str, fallback: str = "UTC") -> int:
    """Return when the last seven days of a time zone began, including today (ms since 1970).

    >>> (1_569_888_000_000 - week_start(1_569_888_000_000, "Europe/Rome")) / 3_600_000  # 02:00 on the first of October
    146.0
    """
    return _day_bounds(now, timezone, fallback)[3]


def day_end(now: int, timezone: str, fallback: str = "UTC") -> int:
    """Return when the next day of a time zone begins (ms since 1970).

    >>> (day_end(1_569_888_000_000, "Europe/Rome") - 1_569_888_000_000) / 3_600_000  # 02:00 on the first of October
    22.0
    """
    where = zone_info(timezone, fallback)
    after = datetime.fromtimestamp(now / 1000, where) + timedelta(days=1)
    return local_timestamp(after.year, after.month, after.day, 0, 0, where)


def _day_bounds(now: int, timezone: str, fallback: str) -> tuple[int, int, int, int]:
    """Return (start, end, day number, week start): valid for every time in [start, end)."""
    kept = _day_cache.get((timezone, fallback))
    if kept is not None and kept[0] <= now < kept[1]:  # the same day as in the previous call
        return kept
    where = zone_info(timezone, fallback)
    day = datetime.fromtimestamp(now / 1000, where)
    first = day - timedelta(days=DAYS_PER_WEEK - 1)
    begin = local_timestamp(day.year, day.month, day.day, 0, 0, where)
    week = local_timestamp(first.year, first.month, first.day, 0, 0, where)
    after = day + timedelta(days=1)
    end = local_timestamp(after.year, after.month, after.day, 0, 0, where)
    if datetime.fromtimestamp(begin / 1000 + 1_800, where).date() != day.date():
        begin = end = now  # clocks go back across midnight: the day begins twice, so do not cache it
    if len(_day_cache) >= 1024:
        _day_cache.clear()
    found = _day_cache[timezone, fallback] = begin, end, day.toordinal(), week
    return found


def local_timestamp(year: int, month: int, day: int, hour: int, minute: int, zone: tzinfo) -> int:
    """Return a local date and time in ms since 1970.

    A time skipped by a clock change gives the moment of the change; of a repeated time the first one counts.

    >>> rome = zone_info("Europe/Rome")
    >>> local_timestamp(2024, 3, 31, 2, 30, rome) == local_timestamp(2024, 3, 31, 3, 0, rome)
    True
    >>> local_timestamp(2024, 3, 31, 3, 0, rome) // 60_000 % 1440
    60
    """
    asked = datetime(year, month, day, hour, minute, tzinfo=zone)
    moment = round(asked.timestamp() * 1000)
    before, after = asked.utcoffset() or timedelta(), asked.replace(fold=1).utcoffset() or timedelta()
    if before == after:  # no clock change nearby
        return moment
    if datetime.fromtimestamp(moment / 1000, zone).replace(tzinfo=None) == asked.replace(tzinfo=None):
        return moment
    # Skipped local time: the offset is that of fold=0 before the change and that of fold=1 after it.
    late, early = moment, round((asked.replace(fold=1)).timestamp() * 1000)
    while late - early > 1:  # bisect for the moment at which the offset changes
        middle = (late + early) // 2
        if datetime.fromtimestamp(middle / 1000, zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

MAX_SEARCH_DAYS = 15
"""A weekday occurs within seven days, or within fourteen where a country once skipped a day."""


def next_matching_time(wait: WaitUntil, now: int, timezone: str, fallback: str = "UTC") -> int:
    """Return the first matching time at or after `now` in a time zone (ms since 1970).

    Each day has one matching time: the first moment with this local time or, if a clock change skips it, the change.
    """
    where = zone_info(timezone, fallback)
    hour, _, minute = (wait.time or "00:00").partition(":")
    wanted = wait.weekday if isinstance(wait.weekday, tuple) else (wait.weekday,) if wait.weekday else WEEKDAYS
    today = datetime.fromtimestamp(now / 1000, where).date()
    for n in range(MAX_SEARCH_DAYS):
        day = today + timedelta(days=n)
        if WEEKDAYS[day.weekday()] not in wanted:
            continue
        moment = local_timestamp(day.year, day.month, day.day, int(hour), int(minute), where)
        if moment >= now and datetime.fromtimestamp(moment / 1000, where).date() == day:
            return moment
    return now + MAX_SEARCH_DAYS * 86_400_000
