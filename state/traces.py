"""Traces: what is remembered of the events that conditions count within a time, by property, as sums or in sequence.

    needed(playbook) -> {key: TraceRule}       every kind of event that some condition of the playbook counts so
    fold(facts, rule, event, at)               one event more of it, in its place in event time
    complete(facts, rule)                      whether a sequence has been done by it (`state/event_traces.py`: which)

A trace has a key made of what it counts (event, properties, summed number), so that two conditions that count the same
share one, and a changed playbook goes on with those it still needs. What a plain `did` asks (ever, or the last time) is
in `Facts.counts`: it needs no trace. Bounded: of one trace the newest 100 times, of one facet the 200 traces that were
counted last (`state/person.py`); `n`, `total` and `first_at` go on counting when old times fall out.

A sequence has a trace of its own beside those of its steps, with the newest moment at which it was complete: what was
once done in order stays done, also when the times of its steps fall out one day.

>>> from domain.condition import Condition, Did
>>> from domain.event import Track
>>> rules = of_conditions([Condition(did=Did("Product Viewed", at_least=2, within="7d"))])
>>> facts, [rule] = Facts(), rules.values()
>>> [fold(facts, rule, Track(event="Product Viewed"), at) for at in (5, 9, 7)]
[True, True, True]
>>> facts.traces[rule.key]
Trace(n=3, total=0.0, first_at=5, times=[5, 7, 9], amounts=[])
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from domain import condition as conditions
from domain.condition import Condition, Did
from domain.duration import parse
from domain.event import Event
from domain.playbook import Playbook
from domain.workflow import Workflow
from state.person import MAX_TIMES, MAX_TRACES, Facts, Person, Trace
from state.properties import matcher, number, property_of

DECIMALS = 3
"""Digits behind the point that sums are exact to."""

MOST = 1e10
"""Numbers beyond this are no amounts: they count as 0, so that sums stay exact."""

_bytes = msgspec.json.Encoder(order="sorted").encode


class TraceRule:
    """One kind of event to be remembered. Where `chain` is set it is a sequence: the keys of its steps, in order, and
    what it may take from the first to the last (ms; None: as long as it likes).
    """

    __slots__ = ("chain", "events", "key", "matches", "of", "where")

    def __init__(self, key: str, events: tuple[str, ...], where: conditions.Values, of: str = "",
                 chain: tuple[tuple[str, ...], int | None] | None = None) -> None:
        self.key = key
        self.events = events
        self.where = where
        self.matches = matcher(where)
        self.of = of
        self.chain = chain


# -- which -----------------------------------------------------------------------------------------------------


def plain(did: Did) -> bool:
    """Whether how often, first when and last when answer this already.

    >>> plain(Did("Product Viewed", within="7d")), plain(Did("Product Viewed", within="7d", at_least=2))
    (True, False)
    """
    if did.where or did.sum is not None:
        return False
    if did.at_least > 1:
        return did.within is None and did.after is None and did.before is None
    if did.before is not None:
        return did.within is None and did.last_before is None and did.after is None
    return did.after is None or did.first_within is None


def key_of(did: Did) -> str:
    """The key of what a `did` counts: the same for the same event, properties and number.

    >>> key_of(Did("Product Viewed")) == key_of(Did("Product Viewed", at_least=5, within="1d")), len(key_of(Did("X")))
    (True, 12)
    """
    return _key([did.event, did.where, did.sum.of if did.sum is not None else ""])


def steps_of(sequence: conditions.Sequence) -> tuple[Did, ...]:
    """The steps of a sequence, each as a `did`. ValueError for a step that says more than `event` and `where`."""
    steps = tuple(Did(step) if isinstance(step, str) else step for step in sequence.steps)
    for step in steps:
        if step != Did(step.event, step.where):
            raise ValueError(f'a step of a sequence has nothing but `event` and `where`: "{step.event}"')
    return steps


def chain_of(sequence: conditions.Sequence) -> TraceRule:
    """The trace of a whole sequence."""
    steps = steps_of(sequence)
    keys = tuple(key_of(step) for step in steps)
    within = parse(sequence.within) if sequence.within is not None else None
    events = tuple(dict.fromkeys(step.event for step in steps))
    return TraceRule(_key(["sequence", keys, within]), events, {}, chain=(keys, within))


def _key(what: Any) -> str:
    return blake2b(_bytes(what), digest_size=6).hexdigest()


def of_conditions(some: Iterable[Condition]) -> dict[str, TraceRule]:
    """The traces that these conditions need, and those inside them; a sequence stands behind its steps."""
    rules: dict[str, TraceRule] = {}
    for condition in some:
        for part in _parts(condition):
            if isinstance(part, Did):
                _add(rules, part)
            else:
                for step in steps_of(part):
                    _add(rules, step)
                rule = chain_of(part)
                rules.setdefault(rule.key, rule)
    return rules


def _add(rules: dict[str, TraceRule], did: Did) -> None:
    key = key_of(did)
    if key not in rules:
        rules[key] = TraceRule(key, (did.event,), did.where, did.sum.of if did.sum is not None else "")


def _parts(condition: Condition) -> Iterator[Did | conditions.Sequence]:
    for part in (condition.did, condition.did_not):
        for did in part if isinstance(part, tuple) else () if part is None else (part,):
            if not plain(did):
                yield did
    if condition.sequence is not None:
        yield condition.sequence
    for child in (*condition.all, *condition.any, *(() if condition.not_ is None else (condition.not_,))):
        yield from _parts(child)


def conditions_of(playbook: Playbook) -> Iterator[Condition]:
    """Every condition that stands in a playbook."""
    for stage in playbook.shop.funnel:
        yield stage.when
    for segment in playbook.segments:
        yield segment.when
        for occasion in (*segment.enter_on, *segment.leave_on):
            yield occasion.when
    for campaign in playbook.campaigns:
        yield campaign.when
        if campaign.unless is not None:
            yield campaign.unless
    for workflow in (*playbook.workflows, *playbook.past):
        yield from _of_workflow(workflow)


def _of_workflow(workflow: Workflow) -> Iterator[Condition]:
    for occasion in workflow.occasions:
        yield occasion.when
    if workflow.leaves is not None:
        yield workflow.leaves
    for step in workflow.steps:
        if step.wait_for is not None and step.wait_for.when is not None:
            yield step.wait_for.when
        for way in step.branch:
            yield way.when


def needed(playbook: Playbook) -> dict[str, TraceRule]:
    """The traces that a playbook needs, by key; a sequence stands behind its steps."""
    return of_conditions(conditions_of(playbook))


def by_event(rules: Mapping[str, TraceRule]) -> dict[str, tuple[TraceRule, ...]]:
    """The same by the name of the event, in the same order."""
    found: dict[str, list[TraceRule]] = {}
    for rule in rules.values():
        for event in rule.events:
            found.setdefault(event, []).append(rule)
    return {event: tuple(some) for event, some in found.items()}


# -- folding ---------------------------------------------------------------------------------------------------


def fold(facts: Facts, rule: TraceRule, event: Event, at: int) -> bool:
    """One event more, at its place in event time (`at`, ms); False, and nothing, when its properties are others.

    `facts` is the facet the event is of. A sequence counts no events: see `complete`.
    """
    if not rule.matches(event):
        return False
    trace = facts.traces.get(rule.key)
    if trace is None:
        trace = _begin(facts, rule.key)
    trace.n += 1
    if at < trace.first_at or not trace.first_at:
        trace.first_at = at
    times = trace.times
    place = len(times) if not times or at >= times[-1] else bisect_right(times, at)
    times.insert(place, at)
    if rule.of:
        amount = amount_of(property_of(event, rule.of))
        trace.amounts.insert(place, amount)
        trace.total = round(trace.total + amount, DECIMALS)
    if len(times) > MAX_TIMES:
        del times[0]
        if rule.of:
            del trace.amounts[0]
    return True


def complete(facts: Facts, rule: TraceRule) -> None:
    """Note when the steps of this sequence were last done in order, if they were. Fold the steps before.

    How often that became known is not counted: it depends on the order in which late events and letters came.
    """
    assert rule.chain is not None
    end = newest_end(facts.traces, *rule.chain)
    if end is None:
        return
    trace = facts.traces.get(rule.key)
    if trace is None:
        trace = _begin(facts, rule.key)
    elif end <= trace.times[-1]:
        return
    trace.n, trace.first_at, trace.times = 1, end, [end]


def amount_of(value: Any) -> float:
    """A number to be summed, to three decimals; what is no number, or an absurd one, is worth 0.

    >>> amount_of("19.90"), amount_of(None), amount_of(1e300)
    (19.9, 0.0, 0.0)
    """
    found = number(value)
    return 0.0 if found is None or not -MOST <= found <= MOST else round(found, DECIMALS)


def forget(person: Person, rules: Container[str]) -> None:
    """Drop the traces that no condition needs any more, of every facet."""
    for facts in person.facets.values():
        gone = [key for key in facts.traces if key not in rules]
        if gone:
            facts.version += 1
            for key in gone:
                del facts.traces[key]


def combine(facets: Iterable[Facts]) -> dict[str, Trace]:
    """The traces of several facets as one person's: what was counted adds up, the newest times of all are kept."""
    whole: dict[str, Trace] = {}
    for facts in facets:
        for key, trace in facts.traces.items():
            have = whole.get(key)
            whole[key] = trace if have is None else _both(have, trace)
    if len(whole) > MAX_TRACES:
        for key in sorted(whole, key=lambda key: (_newest(whole[key]), key))[:len(whole) - MAX_TRACES]:
            del whole[key]
    return whole


def _both(one: Trace, other: Trace) -> Trace:
    first = min(one.first_at, other.first_at) if one.first_at and other.first_at else one.first_at or other.first_at
    joined = Trace(one.n + other.n, round(one.total + other.total, DECIMALS), first)
    if one.amounts or other.amounts:
        pairs = sorted([*zip(one.times, one.amounts, strict=False), *zip(other.times, other.amounts, strict=False)])
        joined.times = [at for at, _ in pairs[-MAX_TIMES:]]
        joined.amounts = [amount for _, amount in pairs[-MAX_TIMES:]]
    else:
        joined.times = sorted([*one.times, *other.times])[-MAX_TIMES:]
    return joined


def newest_end(traces: Mapping[str, Trace], keys: Sequence[str], within: int | None) -> int | None:
    """The newest moment at which all steps were done, each after the one before it; None: never.

    >>> newest_end({"a": Trace(times=[1, 5]), "b": Trace(times=[3, 9])}, ("a", "b"), 4)
    3
    """
    rows = []
    for key in keys:
        trace = traces.get(key)
        if trace is None or not trace.times:
            return None
        rows.append(trace.times)
    *before, last = rows
    for end in reversed(last):
        at = end
        for row in reversed(before):  # each step as late as it can be: the whole is then as short as it can be
            n = bisect_left(row, at)
            if not n:
                return None  # and for an earlier end there is no room either
            at = row[n - 1]
        if within is None or end - at < within:
            return end
    return None


def _begin(facts: Facts, key: str) -> Trace:
    traces = facts.traces
    if len(traces) >= MAX_TRACES:
        del traces[min(traces, key=lambda key: (_newest(traces[key]), key))]
    trace = traces[key] = Trace()
    return trace


def _newest(trace: Trace) -> int:
    return trace.times[-1] if trace.times else 0
