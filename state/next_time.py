"""The next time: when it will be a time of day, or a day of the week, where a person lives.

>>> from datetime import datetime
>>> def said(at: int) -> str: return datetime.fromtimestamp(at / 1000, zone("Europe/Rome")).strftime("%a %H:%M")
>>> thursday = 1_700_000_000_000 - 13_200_000  # 19:33:20 in Rome
>>> said(next_time(WaitUntil(time="09:30"), thursday, "Europe/Rome"))
'Wed 09:30'
>>> said(next_time(WaitUntil(weekday=("monday", "friday")), thursday, "Europe/Rome"))
'Fri 00:00'
"""

from datetime import datetime, timedelta

from domain.workflow import WaitUntil
from state.days import at, zone

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

MOST_DAYS = 15
"""A weekday comes within seven days, or within fourteen where a country once left out a day."""


def next_time(until: WaitUntil, now: int, name: str, otherwise: str = "UTC") -> int:
    """The first moment, from `now` on, at which it is so in the time zone `name` (ms since 1970).

    A moment that is exactly `now` counts. Each day has one such moment: the first at which clocks on the wall show the
    time, or, where a clock change skips it, the change itself.
    """
    where = zone(name, otherwise)
    hour, _, minute = (until.time or "00:00").partition(":")
    wanted = until.weekday if isinstance(until.weekday, tuple) else (until.weekday,) if until.weekday else WEEKDAYS
    today = datetime.fromtimestamp(now / 1000, where).date()
    for n in range(MOST_DAYS):
        day = today + timedelta(days=n)
        if WEEKDAYS[day.weekday()] not in wanted:
            continue
        moment = at(day.year, day.month, day.day, int(hour), int(minute), where)
        if moment >= now and datetime.fromtimestamp(moment / 1000, where).date() == day:
            return moment
    return now + MOST_DAYS * 86_400_000
