"""Predicates on events: frequency, recency, properties, sums and sequences.

Lifetime counts are in `lifetime_counts`. All other counts are in `counters`, with the newest 100 times of each
(`state/conditions/counters.py`). Events of the same millisecond are neither before nor after each other.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from math import fsum
from typing import NamedTuple

from domain.duration import format_duration, format_rough_duration, parse_duration
from domain.playbook.condition import MAX_EVENT_TIMES, Did, Sequence, Sum
from state.conditions import counters, properties
from state.conditions.counters import DECIMALS, latest_completion
from state.conditions.predicate import Predicate, elapsed
from state.person.model import Person, ProfileFragment


def did_predicate(condition: Did) -> Predicate:
    """Build the predicate of a `did` condition. ValueError if `at_least` exceeds the stored times."""
    if condition.at_least > MAX_EVENT_TIMES and (condition.within or condition.after or condition.before):
        raise ValueError(f"the newest {MAX_EVENT_TIMES} times are remembered: at_least = {condition.at_least} is more")
    others = tuple("event:" + other for other in (condition.after, condition.before) if other is not None)
    leaf = _lifetime_predicate(condition) if counters.uses_lifetime_count(condition) else _counter_predicate(condition)
    return leaf._replace(also_depends_on=others)


# -- lifetime counts ---------------------------------------------------------------------------------------------


def _lifetime_predicate(condition: Did) -> Predicate:
    event, least, needs = condition.event, condition.at_least, "event:" + condition.event
    if condition == Did(event, at_least=least):

        def often(p: Person, f: ProfileFragment, now: int) -> bool:
            count = f.lifetime_counts.get(event)
            return count is not None and count.count >= least

        return Predicate(often, lambda p, f, now: f"{_describe(condition)} (has {_lifetime_count(f, event)})", needs)
    window, lately, newly = _time_bounds(condition)

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        count = f.lifetime_counts.get(event)
        if count is None or count.count < least:
            return False
        if window is not None and now >= count.last_at + window:
            return False
        if condition.after is not None and not 0 < _last_time(f, condition.after) < count.last_at:
            return False
        if condition.before is not None and count.first_at >= _last_time(f, condition.before):
            return False
        return (lately is None or now >= count.last_at + lately) and (newly is None or now < count.first_at + newly)

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        count = f.lifetime_counts.get(event)
        if count is None:
            return None
        turns = (count.last_at + (window or 0), count.last_at + (lately or 0), count.first_at + (newly or 0))
        return _first_change(turns, now, lambda at: test(p, f, at))

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        count = f.lifetime_counts.get(event)
        if least > 1:
            return f"{_describe(condition)} (has {count.count if count else 0})"
        return (
            f"{_describe(condition)} "
            f"({f'last {format_rough_duration(elapsed(now, count.last_at))} ago' if count else 'never'})"
        )

    timed = window is not None or lately is not None or newly is not None
    return Predicate(test, words, needs, change if timed else None)


def _first_change(times: tuple[int, ...], now: int, test: Callable[[int], bool]) -> int | None:
    """Return the first of `times` after `now` at which the result of `test` differs from its result now."""
    ahead = [at for at in times if at > now]
    if not ahead:
        return None
    is_now = test(now)
    return min([at for at in ahead if test(at) != is_now], default=None)


# -- event counters ------------------------------------------------------------------------------------------------


class Occurrences(NamedTuple):
    """Counted events: number, sum, first time, stored times and amounts; limited by `after` and `before`."""

    n: int
    total: float
    first_at: int
    times: list[int]
    amounts: list[float]


def _counter_predicate(condition: Did) -> Predicate:
    key, least, wanted = counters.counter_key(condition), condition.at_least, condition.sum
    window, lately, newly = _time_bounds(condition)
    if condition == Did(condition.event, condition.where, least, condition.within):
        return _frequency_predicate(condition, key, window)
    falls = (
        window is not None
        and wanted is not None
        and wanted == Sum(wanted.of, wanted.at_least)
        and lately is None
        and newly is None
    )
    fall = wanted.at_least or 0.0 if wanted is not None else 0.0
    between = condition.after is not None or condition.before is not None

    def counted(f: ProfileFragment) -> Occurrences | None:
        trace = f.counters.get(key)
        if trace is None or not trace.times:
            return None
        if between:
            return _between_events(trace.times, trace.amounts, trace.first_at, condition, f)
        return Occurrences(trace.count, trace.total, trace.first_at, trace.times, trace.amounts)

    def enough(n: int, total: float) -> bool:
        return n >= least and (
            wanted is None
            or (
                (wanted.at_least is None or total >= wanted.at_least) and (wanted.below is None or total < wanted.below)
            )
        )

    def in_time(found: Occurrences, now: int) -> bool:
        return (lately is None or now >= found.times[-1] + lately) and (newly is None or now < found.first_at + newly)

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        found = counted(f)
        return found is not None and enough(*_in_window(found, window, now)) and in_time(found, now)

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        found = counted(f)
        if found is None:
            return None
        times, amounts = found.times, found.amounts
        if falls and min(amounts) >= 0:
            return over if (over := _true_until(found, least, fall, window or 0)) > now else None
        n, total = _in_window(found, window, now)
        is_now, gone = enough(n, total) and in_time(found, now), len(times) - n
        turns = [times[-1] + (lately or 0), found.first_at + (newly or 0)]
        if window is not None:
            turns += [at + window for at in times[gone:]]
        for at in sorted({at for at in turns if at > now}):
            while window is not None and gone < len(times) and times[gone] + window <= at:
                n -= 1
                if amounts:
                    total = round(total - amounts[gone], DECIMALS)
                gone += 1
            if (enough(n, total) and in_time(found, at)) != is_now:
                return at
        return None

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        found = counted(f)
        n, total = _in_window(found, window, now) if found is not None else (0, 0.0)
        return f"{_describe(condition)} (has {n}{f', together {total:g}' if wanted is not None else ''})"

    timed = window is not None or lately is not None or newly is not None
    return Predicate(test, words, "event:" + condition.event, change if timed else None)


def _frequency_predicate(condition: Did, key: str, window: int | None) -> Predicate:
    """Build the predicate for a minimum count, in total or in a window. This is the most frequent case."""
    least = condition.at_least

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        trace = f.counters.get(key)
        if trace is None:
            return False
        if window is None:
            return trace.count >= least
        return len(trace.times) >= least and now < trace.times[-least] + window

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        trace = f.counters.get(key)
        if trace is None or len(trace.times) < least:
            return None
        at = trace.times[-least] + (window or 0)
        return at if at > now else None

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        trace = f.counters.get(key)
        n = (
            0
            if trace is None
            else trace.count
            if window is None
            else (len(trace.times) - bisect_right(trace.times, now - window))
        )
        return f"{_describe(condition)} (has {n})"

    return Predicate(test, words, "event:" + condition.event, None if window is None else change)


def _true_until(occurrences: Occurrences, minimum: int, amount: float, window: int) -> int:
    """Return until when (ms) count and sum of the window suffice; 0 if never. Amounts must not be negative."""
    total = 0.0
    for n, (at, more) in enumerate(zip(reversed(occurrences.times), reversed(occurrences.amounts), strict=False), 1):
        total = round(total + more, DECIMALS)
        if n >= minimum and total >= amount:
            return at + window
    return 0


def _in_window(occurrences: Occurrences, window: int | None, now: int) -> tuple[int, float]:
    """Return count and sum of the window that ends now."""
    if window is None:
        return occurrences.n, occurrences.total
    since = bisect_right(occurrences.times, now - window)
    total = round(fsum(occurrences.amounts[since:]), DECIMALS) if occurrences.amounts else 0.0
    return len(occurrences.times) - since, total


def _between_events(
    times: list[int], amounts: list[float], first_at: int, condition: Did, profile: ProfileFragment
) -> Occurrences | None:
    """Select the stored times after the last `after` event and before the last `before` event."""
    low, high = 0, len(times)
    if condition.after is not None:
        last = _last_time(profile, condition.after)
        if not last:
            return None
        low = bisect_right(times, last)
    if condition.before is not None:
        high = bisect_left(times, _last_time(profile, condition.before))
    if low >= high:
        return None
    kept = times[low:high]
    first = kept[0] if condition.after is not None else first_at
    return Occurrences(high - low, round(fsum(amounts[low:high]), DECIMALS), first, kept, amounts[low:high])


# -- sequences -----------------------------------------------------------------------------------------------


def sequence_predicate(condition: Sequence) -> Predicate:
    """Build the predicate of a sequence. ValueError for a step with fields other than `event` and `where`."""
    steps, rule = counters.sequence_steps(condition), counters.sequence_spec(condition)
    assert rule.sequence is not None
    keys, within = rule.sequence
    last = parse_duration(condition.last_within) if condition.last_within is not None else None

    def end(p: Person, f: ProfileFragment) -> int:
        """Return the newest completion time; 0 if never. The steps of several fragments are combined."""
        done = f.counters.get(rule.key)
        newest = done.times[-1] if done is not None and done.times else 0
        if len(p.fragments) > 1 and (last is not None or not newest):
            newest = max(newest, latest_completion(f.counters, keys, within) or 0)
        return newest

    def ever(p: Person, f: ProfileFragment, now: int) -> bool:
        return end(p, f) > 0

    def lately(p: Person, f: ProfileFragment, now: int) -> bool:
        return (at := end(p, f)) > 0 and now < at + (last or 0)

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        at = end(p, f)
        return at + (last or 0) if at and now < at + (last or 0) else None

    order = ", then ".join(_describe_event(step) for step in steps)
    said = (
        order
        + (f", all in less than {format_duration(within)}" if within is not None else "")
        + (f", in the last {format_duration(last)}" if last is not None else "")
    )

    def words(p: Person, f: ProfileFragment, now: int) -> str:
        at = end(p, f)
        return f"did {said} ({f'last {format_rough_duration(elapsed(now, at))} ago' if at else 'never'})"

    needs = ["event:" + name for name in rule.events]
    return Predicate(
        ever if last is None else lately,
        words,
        needs[0],
        None if last is None else change,
        also_depends_on=tuple(needs[1:]),
    )


# -- descriptions -----------------------------------------------------------------------------------------------------


def _describe(condition: Did) -> str:
    window, lately, newly = _time_bounds(condition)
    parts = [f"did {_describe_event(condition)}"]
    if condition.at_least > 1:
        parts.append(f"at least {condition.at_least} times")
    if window is not None:
        parts.append(f"in the last {format_duration(window)}")
    if condition.after is not None:
        parts.append(f'after the last "{condition.after}"')
    if condition.before is not None:
        parts.append(f'before the last "{condition.before}"')
    said = " ".join(parts)
    if condition.sum is not None:
        both = (("at least", condition.sum.at_least), ("less than", condition.sum.below))
        bounds = [f"{word} {bound:g}" for word, bound in both if bound is not None]
        said += f", {condition.sum.of} together {' and '.join(bounds)}"
    if lately is not None:
        said += f", the last at least {format_duration(lately)} ago"
    if newly is not None:
        said += f", the first less than {format_duration(newly)} ago"
    return said


def _describe_event(condition: Did) -> str:
    return f'"{condition.event}"' + (f" ({properties.describe(condition.where)})" if condition.where else "")


def _lifetime_count(profile: ProfileFragment, event: str) -> int:
    count = profile.lifetime_counts.get(event)
    return count.count if count is not None else 0


def _last_time(profile: ProfileFragment, event: str) -> int:
    """Return the last time of an event (ms); 0 if never."""
    count = profile.lifetime_counts.get(event)
    return count.last_at if count is not None else 0


def _time_bounds(condition: Did) -> tuple[int | None, int | None, int | None]:
    window, lately, newly = (
        parse_duration(text) if text is not None else None
        for text in (condition.within, condition.last_before, condition.first_within)
    )
    return window, lately, newly
