"""What a person did, as leaves: how often, how lately, with which properties, to what sum, in which order.

What is asked of every event of a name, ever or the last time, is in `Facts.counts`; the rest is in `Facts.traces`, the
newest 100 times of it (`state/traces.py`). Events at the very same millisecond are neither before nor after each other.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from math import fsum
from typing import NamedTuple

from domain.condition import MOST_REMEMBERED, Did, Sequence, Sum
from domain.duration import parse, roughly, say
from state import properties, traces
from state.leaves import Leaf, age
from state.person import Facts, Person
from state.traces import DECIMALS, newest_end


def did(part: Did) -> Leaf:
    """They did this, ever or lately. ValueError for more times than are remembered."""
    if part.at_least > MOST_REMEMBERED and (part.within or part.after or part.before):
        raise ValueError(f"the newest {MOST_REMEMBERED} times are remembered: at_least = {part.at_least} is more")
    others = tuple("event:" + other for other in (part.after, part.before) if other is not None)
    leaf = _plain(part) if traces.plain(part) else _traced(part)
    return leaf._replace(also=others)


# -- by the counts ---------------------------------------------------------------------------------------------


def _plain(part: Did) -> Leaf:
    event, least, needs = part.event, part.at_least, "event:" + part.event
    if part == Did(event, at_least=least):
        def often(p: Person, f: Facts, now: int) -> bool:
            count = f.counts.get(event)
            return count is not None and count.n >= least

        return Leaf(often, lambda p, f, now: f"{_said(part)} (has {_n(f, event)})", needs)
    window, lately, newly = _spans(part)

    def test(p: Person, f: Facts, now: int) -> bool:
        count = f.counts.get(event)
        if count is None or count.n < least:
            return False
        if window is not None and now >= count.last_at + window:
            return False
        if part.after is not None and not 0 < _last(f, part.after) < count.last_at:
            return False
        if part.before is not None and count.first_at >= _last(f, part.before):
            return False
        return (lately is None or now >= count.last_at + lately) and (newly is None or now < count.first_at + newly)

    def change(p: Person, f: Facts, now: int) -> int | None:
        count = f.counts.get(event)
        if count is None:
            return None
        turns = (count.last_at + (window or 0), count.last_at + (lately or 0), count.first_at + (newly or 0))
        return _first_turn(turns, now, lambda at: test(p, f, at))

    def words(p: Person, f: Facts, now: int) -> str:
        count = f.counts.get(event)
        if least > 1:
            return f"{_said(part)} (has {count.n if count else 0})"
        return f"{_said(part)} ({f'last {roughly(age(now, count.last_at))} ago' if count else 'never'})"

    timed = window is not None or lately is not None or newly is not None
    return Leaf(test, words, needs, change if timed else None)


def _first_turn(turns: tuple[int, ...], now: int, truth: Callable[[int], bool]) -> int | None:
    """The first of these moments after `now` at which it is no longer as it is now."""
    ahead = [at for at in turns if at > now]
    if not ahead:
        return None
    is_now = truth(now)
    return min([at for at in ahead if truth(at) != is_now], default=None)


# -- by a trace ------------------------------------------------------------------------------------------------


class Counted(NamedTuple):
    """What is counted: how many and the sum (of all, or of those between the other events), and the times of them."""

    n: int
    total: float
    first_at: int
    times: list[int]
    amounts: list[float]


def _traced(part: Did) -> Leaf:
    key, least, wanted = traces.key_of(part), part.at_least, part.sum
    window, lately, newly = _spans(part)
    if part == Did(part.event, part.where, least, part.within):
        return _often(part, key, window)
    falls = (window is not None and wanted is not None and wanted == Sum(wanted.of, wanted.at_least)
             and lately is None and newly is None)
    fall = wanted.at_least or 0.0 if wanted is not None else 0.0
    between = part.after is not None or part.before is not None

    def counted(f: Facts) -> Counted | None:
        trace = f.traces.get(key)
        if trace is None or not trace.times:
            return None
        if between:
            return _between(trace.times, trace.amounts, trace.first_at, part, f)
        return Counted(trace.n, trace.total, trace.first_at, trace.times, trace.amounts)

    def enough(n: int, total: float) -> bool:
        return n >= least and (wanted is None or ((wanted.at_least is None or total >= wanted.at_least)
                                                  and (wanted.below is None or total < wanted.below)))

    def in_time(found: Counted, now: int) -> bool:
        return ((lately is None or now >= found.times[-1] + lately)
                and (newly is None or now < found.first_at + newly))

    def test(p: Person, f: Facts, now: int) -> bool:
        found = counted(f)
        return found is not None and enough(*_within(found, window, now)) and in_time(found, now)

    def change(p: Person, f: Facts, now: int) -> int | None:
        found = counted(f)
        if found is None:
            return None
        times, amounts = found.times, found.amounts
        if falls and min(amounts) >= 0:
            return over if (over := _until(found, least, fall, window or 0)) > now else None
        n, total = _within(found, window, now)
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

    def words(p: Person, f: Facts, now: int) -> str:
        found = counted(f)
        n, total = _within(found, window, now) if found is not None else (0, 0.0)
        return f"{_said(part)} (has {n}{f', together {total:g}' if wanted is not None else ''})"

    timed = window is not None or lately is not None or newly is not None
    return Leaf(test, words, "event:" + part.event, change if timed else None)


def _often(part: Did, key: str, window: int | None) -> Leaf:
    """So many times, ever or in a window: what is asked most."""
    least = part.at_least

    def test(p: Person, f: Facts, now: int) -> bool:
        trace = f.traces.get(key)
        if trace is None:
            return False
        if window is None:
            return trace.n >= least
        return len(trace.times) >= least and now < trace.times[-least] + window

    def change(p: Person, f: Facts, now: int) -> int | None:
        trace = f.traces.get(key)
        if trace is None or len(trace.times) < least:
            return None
        at = trace.times[-least] + (window or 0)
        return at if at > now else None

    def words(p: Person, f: Facts, now: int) -> str:
        trace = f.traces.get(key)
        n = 0 if trace is None else trace.n if window is None else (
            len(trace.times) - bisect_right(trace.times, now - window))
        return f"{_said(part)} (has {n})"

    return Leaf(test, words, "event:" + part.event, None if window is None else change)


def _until(found: Counted, least: int, amount: float, window: int) -> int:
    """Until when (ms) so many of the window come to so much; 0: they never do. For sums that only fall by waiting."""
    total = 0.0
    for n, (at, more) in enumerate(zip(reversed(found.times), reversed(found.amounts), strict=False), 1):
        total = round(total + more, DECIMALS)
        if n >= least and total >= amount:
            return at + window
    return 0


def _within(found: Counted, window: int | None, now: int) -> tuple[int, float]:
    """How many and their sum, in the window that ends now."""
    if window is None:
        return found.n, found.total
    since = bisect_right(found.times, now - window)
    total = round(fsum(found.amounts[since:]), DECIMALS) if found.amounts else 0.0
    return len(found.times) - since, total


def _between(times: list[int], amounts: list[float], first_at: int, part: Did, f: Facts) -> Counted | None:
    """Those after the last time of one event and before the last time of another, of the remembered ones."""
    low, high = 0, len(times)
    if part.after is not None:
        last = _last(f, part.after)
        if not last:
            return None
        low = bisect_right(times, last)
    if part.before is not None:
        high = bisect_left(times, _last(f, part.before))
    if low >= high:
        return None
    kept = times[low:high]
    first = kept[0] if part.after is not None else first_at
    return Counted(high - low, round(fsum(amounts[low:high]), DECIMALS), first, kept, amounts[low:high])


# -- in sequence -----------------------------------------------------------------------------------------------


def sequence(part: Sequence) -> Leaf:
    """They did this in this order. ValueError for a step that says more than `event` and `where`."""
    steps, rule = traces.steps_of(part), traces.chain_of(part)
    assert rule.chain is not None
    keys, within = rule.chain
    last = parse(part.last_within) if part.last_within is not None else None

    def end(p: Person, f: Facts) -> int:
        """The newest moment at which it was complete; 0: never. Of several ids the steps are looked at together."""
        done = f.traces.get(rule.key)
        newest = done.times[-1] if done is not None and done.times else 0
        if len(p.facets) > 1 and (last is not None or not newest):
            newest = max(newest, newest_end(f.traces, keys, within) or 0)
        return newest

    def ever(p: Person, f: Facts, now: int) -> bool:
        return end(p, f) > 0

    def lately(p: Person, f: Facts, now: int) -> bool:
        return (at := end(p, f)) > 0 and now < at + (last or 0)

    def change(p: Person, f: Facts, now: int) -> int | None:
        at = end(p, f)
        return at + (last or 0) if at and now < at + (last or 0) else None

    order = ", then ".join(_event(step) for step in steps)
    said = order + (f", all in less than {say(within)}" if within is not None else "") + (
        f", in the last {say(last)}" if last is not None else "")

    def words(p: Person, f: Facts, now: int) -> str:
        at = end(p, f)
        return f"did {said} ({f'last {roughly(age(now, at))} ago' if at else 'never'})"

    needs = ["event:" + name for name in rule.events]
    return Leaf(ever if last is None else lately, words, needs[0], None if last is None else change,
                also=tuple(needs[1:]))


# -- words -----------------------------------------------------------------------------------------------------


def _said(part: Did) -> str:
    window, lately, newly = _spans(part)
    parts = [f"did {_event(part)}"]
    if part.at_least > 1:
        parts.append(f"at least {part.at_least} times")
    if window is not None:
        parts.append(f"in the last {say(window)}")
    if part.after is not None:
        parts.append(f'after the last "{part.after}"')
    if part.before is not None:
        parts.append(f'before the last "{part.before}"')
    said = " ".join(parts)
    if part.sum is not None:
        both = (("at least", part.sum.at_least), ("less than", part.sum.below))
        bounds = [f"{word} {bound:g}" for word, bound in both if bound is not None]
        said += f", {part.sum.of} together {' and '.join(bounds)}"
    if lately is not None:
        said += f", the last at least {say(lately)} ago"
    if newly is not None:
        said += f", the first less than {say(newly)} ago"
    return said


def _event(part: Did) -> str:
    return f'"{part.event}"' + (f" ({properties.words(part.where)})" if part.where else "")


def _n(f: Facts, event: str) -> int:
    count = f.counts.get(event)
    return count.n if count is not None else 0


def _last(f: Facts, event: str) -> int:
    """The last time of an event (ms); 0: never."""
    count = f.counts.get(event)
    return count.last_at if count is not None else 0


def _spans(part: Did) -> tuple[int | None, int | None, int | None]:
    window, lately, newly = (parse(text) if text is not None else None
                             for text in (part.within, part.last_before, part.first_within))
    return window, lately, newly
