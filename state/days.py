"""Days: where one begins and ends for a person, and other questions to a clock on the wall.

Zones are named by people's browsers, so a name may be anything: one that nobody knows counts as the shop's, else UTC.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WEEK = 7
"""Days that "this week" looks back, today included."""

_days: dict[tuple[str, str], tuple[int, int, int, int]] = {}


def zone(name: str, otherwise: str = "UTC") -> tzinfo:
    """A time zone by its name, else the other one, else UTC.

    >>> str(zone("Europe/Rome")), str(zone("Mars/Base", "Asia/Tokyo")), str(zone("../etc/passwd", "?"))
    ('Europe/Rome', 'Asia/Tokyo', 'UTC')
    """
    return _zone(name) or _zone(otherwise) or UTC


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def written(at: int, name: str = "UTC") -> str:
    """A time (ms) as people read it on a wall of this zone.

    >>> written(1_569_888_000_000), written(1_569_888_000_000, "Europe/Rome")
    ('2019-10-01 00:00:00', '2019-10-01 02:00:00')
    """
    return datetime.fromtimestamp(at / 1000, zone(name)).strftime("%Y-%m-%d %H:%M:%S")


def local_day(now: int, name: str, otherwise: str = "UTC") -> int:
    """The number of the day (days since the year 1) in a time zone; an unknown zone counts as `otherwise`.

    >>> local_day(1_569_888_000_000, "Europe/Rome") - local_day(1_569_888_000_000, "America/Montreal")
    1
    """
    return _today(now, name, otherwise)[2]


def week_began(now: int, name: str, otherwise: str = "UTC") -> int:
    """When the last seven days of a time zone began, today included (ms since 1970).

    >>> (1_569_888_000_000 - week_began(1_569_888_000_000, "Europe/Rome")) / 3_600_000  # 02:00 on the first of October
    146.0
    """
    return _today(now, name, otherwise)[3]


def day_ends(now: int, name: str, otherwise: str = "UTC") -> int:
    """When the next day of a time zone begins (ms since 1970).

    >>> (day_ends(1_569_888_000_000, "Europe/Rome") - 1_569_888_000_000) / 3_600_000  # 02:00 on the first of October
    22.0
    """
    where = zone(name, otherwise)
    after = datetime.fromtimestamp(now / 1000, where) + timedelta(days=1)
    return at(after.year, after.month, after.day, 0, 0, where)


def _today(now: int, name: str, otherwise: str) -> tuple[int, int, int, int]:
    """From when until when this may be said again, the day's number, and when its week began."""
    kept = _days.get((name, otherwise))
    if kept is not None and kept[0] <= now < kept[1]:  # the same day as the last time somebody asked
        return kept
    where = zone(name, otherwise)
    day = datetime.fromtimestamp(now / 1000, where)
    first = day - timedelta(days=WEEK - 1)
    begin = at(day.year, day.month, day.day, 0, 0, where)
    week = at(first.year, first.month, first.day, 0, 0, where)
    after = day + timedelta(days=1)
    end = at(after.year, after.month, after.day, 0, 0, where)
    if datetime.fromtimestamp(begin / 1000 + 1_800, where).date() != day.date():
        begin = end = now  # clocks go back over midnight: the day begins twice
    if len(_days) >= 1024:
        _days.clear()
    found = _days[name, otherwise] = begin, end, day.toordinal(), week
    return found


def at(year: int, month: int, day: int, hour: int, minute: int, where: tzinfo) -> int:
    """A moment on the wall, in ms since 1970. A time that a clock change skips is the moment of the change; of one
    that comes twice it is the first.

    >>> rome = zone("Europe/Rome")
    >>> at(2024, 3, 31, 2, 30, rome) == at(2024, 3, 31, 3, 0, rome), at(2024, 3, 31, 3, 0, rome) // 60_000 % 1440
    (True, 60)
    """
    asked = datetime(year, month, day, hour, minute, tzinfo=where)
    moment = round(asked.timestamp() * 1000)
    before, after = asked.utcoffset() or timedelta(), asked.replace(fold=1).utcoffset() or timedelta()
    if before == after:  # no change is near (and no day beyond the calendar, where its last one is asked for)
        return moment
    if datetime.fromtimestamp(moment / 1000, where).replace(tzinfo=None) == asked.replace(tzinfo=None):
        return moment
    # Skipped: the clock jumps over it. Before the jump its offset is the one of fold=0, after it that of fold=1.
    late, early = moment, round((asked.replace(fold=1)).timestamp() * 1000)
    while late - early > 1:  # the change is where the offset turns from `before` to `after`
        middle = (late + early) // 2
        if datetime.fromtimestamp(middle / 1000, where).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late
