"""Quiet hours: when nobody is written to, where the person is. What falls into them waits for their end.

On the site there are none: who is there is awake. `urgent` campaigns do not wait; `service` alone is no reason not to.
"""

from datetime import datetime, timedelta

from domain.shop import QuietHours
from state.days import at, zone
from state.person import Facts
from state.rules import CampaignRule, Rules


def quiet_until(rule: CampaignRule, facts: Facts, rules: Rules, now: int) -> int:
    """When the quiet hours end that this message falls into (ms); 0 when it falls into none."""
    quiet = rules.shop.quiet_hours
    if quiet is None or rule.on_site or rule.campaign.urgent or (quiet.channels and rule.format not in quiet.channels):
        return 0
    return end_of(quiet, now, facts.timezone, rules.shop.timezone)


def end_of(quiet: QuietHours, now: int, name: str, otherwise: str = "UTC") -> int:
    """When the quiet hours end in which `now` is, in a time zone; 0 when it is in none.

    They begin and end when a clock on the wall says so, also when it was changed in between.

    >>> night = QuietHours("22:00", "08:00")
    >>> hour = 3_600_000
    >>> midnight = 1_711_839_600_000  # 2024-03-31 in Rome; at 02:00 it is 03:00
    >>> [(end_of(night, midnight + n * hour, "Europe/Rome") - midnight) // hour for n in (-1, 0, 6)]
    [7, 7, 7]
    >>> end_of(night, midnight + 7 * hour, "Europe/Rome")
    0
    """
    begin, end = _minutes(quiet.begin), _minutes(quiet.end)
    if begin == end:
        return 0
    where = zone(name, otherwise)
    today = datetime.fromtimestamp(now / 1000, where)
    for days in (-1, 0):
        day = today + timedelta(days=days)
        last = day + timedelta(days=int(end < begin))
        begins = at(day.year, day.month, day.day, *divmod(begin, 60), where)
        ends = at(last.year, last.month, last.day, *divmod(end, 60), where)
        if begins <= now < ends:
            return ends
    return 0


def _minutes(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)
