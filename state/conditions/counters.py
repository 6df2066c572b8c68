"""Traces: what is remembered of the events that conditions count within a time, by property, as sums or in sequence.

    needed(playbook) -> {key: TraceRule}       every kind of event that some condition of the playbook counts so
    fold(facts, rule, event, at)               one event more of it, in its place in event time
    complete(facts, rule)                      whether a sequence has been done by it (`state/conditions/counters.py`:
    which)

A trace has a key made of what it counts (event, properties, summed number), so that two conditions that count the same
share one, and a changed playbook goes on with those it still needs. What a plain `did` asks (ever, or the last time) is
in `Facts.counts`: it needs no trace. Bounded: of one trace the newest 100 times, of one facet the 200 traces that were
counted last (`state/person/model.py`); `n`, `total` and `first_at` go on counting when old times fall out.

A sequence has a trace of its own beside those of its steps, with the newest moment at which it was complete: what was
once done in order stays done, also when the times of its steps fall out one day.

>>> from domain.playbook.condition import Condition, Did
>>> from domain.event import Track
>>> rules = specs_for_conditions([Condition(did=Did("Product Viewed", at_least=2, within="7d"))])
>>> facts, [rule] = ProfileFragment(), rules.values()
>>> [add(facts, rule, Track(event="Product Viewed"), at) for at in (5, 9, 7)]
[True, True, True]
>>> facts.counters[rule.key]
EventCounter(count=3, total=0.0, first_at=5, times=[5, 7, 9], amounts=[])

Event traces: which of very many traces one event concerns, without trying each of them.

    "Product Viewed" ─┬─ product_id ─┬─ sku-1 ─▶ the traces that count views of sku-1
                      │              └─ sku-2 ─▶ …
                      └─ always ─▶ those that want no certain value
    what was counted ──▶ the sequences of which it is a step, as far as the person has their rarest step

So ten thousand campaigns, each about a product of its own, cost an event about as much as one of them. A sequence that
misses a step has not been completed, so it is not looked at before the step that fewest others share is there.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from domain.duration import parse_duration
from domain.event import Event
from domain.playbook import condition as conditions
from domain.playbook.condition import Condition, Did, PropertyFilter
from domain.playbook.playbook import Playbook
from domain.playbook.workflow import Workflow
from state.conditions.properties import get_property, matcher, parse_number, typed
from state.person.model import MAX_COUNTER_TIMES, MAX_COUNTERS, EventCounter, Person, ProfileFragment

DECIMALS = 3
"""Number of decimals of sums."""

MAX_AMOUNT = 1e10
"""Numbers beyond this are no amounts: they count as 0, so that sums stay exact."""

_canonical_json = msgspec.json.Encoder(order="sorted").encode


class CounterSpec:
    """One kind of event to be remembered. Where `chain` is set it is a sequence: the keys of its steps, in order, and
    what it may take from the first to the last (ms; None: as long as it likes).
    """

    __slots__ = ("events", "key", "matches", "sequence", "sum_property", "where")

    def __init__(
        self,
        key: str,
        events: tuple[str, ...],
        where: conditions.PropertyMatch,
        sum_property: str = "",
        sequence: tuple[tuple[str, ...], int | None] | None = None,
    ) -> None:
        self.key = key
        self.events = events
        self.where = where
        self.matches = matcher(where)
        self.sum_property = sum_property
        self.sequence = sequence


# -- which -----------------------------------------------------------------------------------------------------


def uses_lifetime_count(did: Did) -> bool:
    """Whether how often, first when and last when answer this already.

    >>> uses_lifetime_count(Did("Product Viewed", within="7d"))
    True
    >>> uses_lifetime_count(Did("Product Viewed", within="7d", at_least=2))
    False
    """
    if did.where or did.sum is not None:
        return False
    if did.at_least > 1:
        return did.within is None and did.after is None and did.before is None
    if did.before is not None:
        return did.within is None and did.last_before is None and did.after is None
    return did.after is None or did.first_within is None


def counter_key(did: Did) -> str:
    """The key of what a `did` counts: the same for the same event, properties and number.

    >>> counter_key(Did("Product Viewed")) == counter_key(Did("Product Viewed", at_least=5, within="1d"))
    True
    >>> len(counter_key(Did("X")))
    12
    """
    return _hash_key([did.event, did.where, did.sum.of if did.sum is not None else ""])


def sequence_steps(sequence: conditions.Sequence) -> tuple[Did, ...]:
    """The steps of a sequence, each as a `did`. ValueError for a step that says more than `event` and `where`."""
    steps = tuple(Did(step) if isinstance(step, str) else step for step in sequence.steps)
    for step in steps:
        if step != Did(step.event, step.where):
            raise ValueError(f'a step of a sequence has nothing but `event` and `where`: "{step.event}"')
    return steps


def sequence_spec(sequence: conditions.Sequence) -> CounterSpec:
    """Return the event counter of a whole sequence."""
    steps = sequence_steps(sequence)
    keys = tuple(counter_key(step) for step in steps)
    within = parse_duration(sequence.within) if sequence.within is not None else None
    events = tuple(dict.fromkeys(step.event for step in steps))
    return CounterSpec(_hash_key(["sequence", keys, within]), events, {}, sequence=(keys, within))


def _hash_key(content: Any) -> str:
    return blake2b(_canonical_json(content), digest_size=6).hexdigest()


def specs_for_conditions(some_conditions: Iterable[Condition]) -> dict[str, CounterSpec]:
    """The traces that these conditions need, and those inside them; a sequence stands behind its steps."""
    rules: dict[str, CounterSpec] = {}
    for condition in some_conditions:
        for part in _counted_parts(condition):
            if isinstance(part, Did):
                _add_spec(rules, part)
            else:
                for step in sequence_steps(part):
                    _add_spec(rules, step)
                rule = sequence_spec(part)
                rules.setdefault(rule.key, rule)
    return rules


def _add_spec(specs: dict[str, CounterSpec], did: Did) -> None:
    key = counter_key(did)
    if key not in specs:
        specs[key] = CounterSpec(key, (did.event,), did.where, did.sum.of if did.sum is not None else "")


def _counted_parts(condition: Condition) -> Iterator[Did | conditions.Sequence]:
    for part in (condition.did, condition.did_not):
        for did in part if isinstance(part, tuple) else () if part is None else (part,):
            if not uses_lifetime_count(did):
                yield did
    if condition.sequence is not None:
        yield condition.sequence
    for child in (*condition.all, *condition.any, *(() if condition.not_ is None else (condition.not_,))):
        yield from _counted_parts(child)


def all_conditions(playbook: Playbook) -> Iterator[Condition]:
    """Yield every condition of a playbook."""
    for stage in playbook.shop.funnel:
        yield stage.when
    for segment in playbook.segments:
        yield segment.when
        for occasion in (*segment.enter_on, *segment.exit_on):
            yield occasion.when
    for campaign in playbook.campaigns:
        yield campaign.when
        if campaign.unless is not None:
            yield campaign.unless
    for workflow in (*playbook.workflows, *playbook.previous_workflows):
        yield from _workflow_conditions(workflow)


def _workflow_conditions(workflow: Workflow) -> Iterator[Condition]:
    for occasion in workflow.entry_triggers:
        yield occasion.when
    if workflow.exit_when is not None:
        yield workflow.exit_when
    for step in workflow.steps:
        if step.wait_for is not None and step.wait_for.when is not None:
            yield step.wait_for.when
        for way in step.branch:
            yield way.when


def required_specs(playbook: Playbook) -> dict[str, CounterSpec]:
    """Return the event counters of a playbook by key; a sequence follows its steps."""
    return specs_for_conditions(all_conditions(playbook))


def specs_by_event(specs: Mapping[str, CounterSpec]) -> dict[str, tuple[CounterSpec, ...]]:
    """The same by the name of the event, in the same order."""
    found: dict[str, list[CounterSpec]] = {}
    for rule in specs.values():
        for event in rule.events:
            found.setdefault(event, []).append(rule)
    return {event: tuple(some) for event, some in found.items()}


# -- folding ---------------------------------------------------------------------------------------------------


def add(fragment: ProfileFragment, spec: CounterSpec, event: Event, at: int) -> bool:
    """One event more, at its place in event time (`at`, ms); False, and nothing, when its properties are others.

    `facts` is the facet the event is of. A sequence counts no events: see `complete`.
    """
    if not spec.matches(event):
        return False
    trace = fragment.counters.get(spec.key)
    if trace is None:
        trace = _new_counter(fragment, spec.key)
    trace.count += 1
    if at < trace.first_at or not trace.first_at:
        trace.first_at = at
    times = trace.times
    place = len(times) if not times or at >= times[-1] else bisect_right(times, at)
    times.insert(place, at)
    if spec.sum_property:
        amount = parse_amount(get_property(event, spec.sum_property))
        trace.amounts.insert(place, amount)
        trace.total = round(trace.total + amount, DECIMALS)
    if len(times) > MAX_COUNTER_TIMES:
        del times[0]
        if spec.sum_property:
            del trace.amounts[0]
    return True


def update_sequence(fragment: ProfileFragment, spec: CounterSpec) -> None:
    """Note when the steps of this sequence were last done in order, if they were. Fold the steps before.

    How often that became known is not counted: it depends on the order in which late events and letters came.
    """
    assert spec.sequence is not None
    end = latest_completion(fragment.counters, *spec.sequence)
    if end is None:
        return
    trace = fragment.counters.get(spec.key)
    if trace is None:
        trace = _new_counter(fragment, spec.key)
    elif end <= trace.times[-1]:
        return
    trace.count, trace.first_at, trace.times = 1, end, [end]


def parse_amount(value: Any) -> float:
    """A number to be summed, to three decimals; what is no number, or an absurd one, is worth 0.

    >>> parse_amount("19.90"), parse_amount(None), parse_amount(1e300)
    (19.9, 0.0, 0.0)
    """
    found = parse_number(value)
    return 0.0 if found is None or not -MAX_AMOUNT <= found <= MAX_AMOUNT else round(found, DECIMALS)


def prune(person: Person, keep_keys: Container[str]) -> None:
    """Drop the event counters that no condition needs, in every profile fragment."""
    for facts in person.fragments.values():
        gone = [key for key in facts.counters if key not in keep_keys]
        if gone:
            facts.version += 1
            for key in gone:
                del facts.counters[key]


def merge(fragments: Iterable[ProfileFragment]) -> dict[str, EventCounter]:
    """Merge the event counters of several profile fragments: add the counts, keep the newest times."""
    whole: dict[str, EventCounter] = {}
    for facts in fragments:
        for key, trace in facts.counters.items():
            have = whole.get(key)
            whole[key] = trace if have is None else _merge_pair(have, trace)
    if len(whole) > MAX_COUNTERS:
        for key in sorted(whole, key=lambda key: (_last_time(whole[key]), key))[: len(whole) - MAX_COUNTERS]:
            del whole[key]
    return whole


def _merge_pair(left: EventCounter, right: EventCounter) -> EventCounter:
    first = min(left.first_at, right.first_at) if left.first_at and right.first_at else left.first_at or right.first_at
    joined = EventCounter(left.count + right.count, round(left.total + right.total, DECIMALS), first)
    if left.amounts or right.amounts:
        pairs = sorted([*zip(left.times, left.amounts, strict=False), *zip(right.times, right.amounts, strict=False)])
        joined.times = [at for at, _ in pairs[-MAX_COUNTER_TIMES:]]
        joined.amounts = [amount for _, amount in pairs[-MAX_COUNTER_TIMES:]]
    else:
        joined.times = sorted([*left.times, *right.times])[-MAX_COUNTER_TIMES:]
    return joined


def latest_completion(counters: Mapping[str, EventCounter], keys: Sequence[str], within: int | None) -> int | None:
    """The newest moment at which all steps were done, each after the one before it; None: never.

    >>> latest_completion({"a": EventCounter(times=[1, 5]), "b": EventCounter(times=[3, 9])}, ("a", "b"), 4)
    3
    """
    rows = []
    for key in keys:
        trace = counters.get(key)
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


def _new_counter(fragment: ProfileFragment, key: str) -> EventCounter:
    traces = fragment.counters
    if len(traces) >= MAX_COUNTERS:
        del traces[min(traces, key=lambda key: (_last_time(traces[key]), key))]
    trace = traces[key] = EventCounter()
    return trace


def _last_time(counter: EventCounter) -> int:
    return counter.times[-1] if counter.times else 0


NumberedSpec = tuple[int, CounterSpec]


class CounterIndex:
    """The traces that events of one name concern, in the order of `rules`: sequences behind everything else."""

    __slots__ = ("_by_value", "_sequences", "_step_keys", "_unfiltered")

    def __init__(self, specs: Sequence[CounterSpec]) -> None:
        counted = [(n, rule) for n, rule in enumerate(specs) if rule.sequence is None]
        told = Counter(
            name for name, _ in {(name, value) for _, rule in counted for name, value in _required_values(rule)}
        )
        always: list[NumberedSpec] = []
        tables: dict[str, dict[Any, list[NumberedSpec]]] = {}
        for n, rule in counted:
            values = _required_values(rule)
            if not values:
                always.append((n, rule))
                continue
            most = max((name for name, _ in values), key=lambda name: (told[name], name))
            for name, value in values:
                if name == most:
                    tables.setdefault(name, {}).setdefault(value, []).append((n, rule))
        self._unfiltered = tuple(always)
        self._by_value = tuple(tables.items())
        chains = [(n, rule, frozenset(rule.sequence[0])) for n, rule in enumerate(specs) if rule.sequence is not None]
        shared = Counter(key for _, _, keys in chains for key in keys)
        self._step_keys = frozenset(shared)
        self._sequences: dict[str, list[tuple[int, CounterSpec, frozenset[str]]]] = {}
        for chain in chains:
            self._sequences.setdefault(min(chain[2], key=lambda key: (shared[key], key)), []).append(chain)

    def add_event(self, fragment: ProfileFragment, event: Event, at: int) -> None:
        """Fold one event, at its place in event time (`at`, ms), into every trace that it concerns.

        `facts` is the facet the event is of.
        """
        found: Sequence[NumberedSpec] = self._unfiltered
        for name, table in self._by_value:
            value = get_property(event, name)
            if isinstance(value, (str, int, float)):
                some = table.get(typed(value))
                if some is not None:
                    found = [*found, *some]
        if len(found) > len(self._unfiltered):
            found = sorted(found, key=_position)
        steps, done = self._step_keys, set[str]()
        for _, rule in found:
            if add(fragment, rule, event, at) and rule.key in steps:
                done.add(rule.key)
        if done:
            chains = [
                chain
                for key in self._sequences.keys() & fragment.counters.keys()
                for chain in self._sequences[key]
                if not done.isdisjoint(chain[2])
            ]
            for _, rule, _ in sorted(chains, key=_position):
                update_sequence(fragment, rule)


def index_by_event(specs: Mapping[str, CounterSpec]) -> dict[str, CounterIndex]:
    """By the name of the event.

    >>> from domain.playbook.condition import Condition, Did
    >>> from domain.event import Track
    >>> from state.conditions.counters import specs_for_conditions
    >>> wanted = [Condition(did=Did("Product Viewed", where={"product_id": f"sku-{n}"})) for n in range(1_000)]
    >>> facts = ProfileFragment()
    >>> found = index_by_event(specs_for_conditions(wanted))["Product Viewed"]
    >>> found.add_event(facts, Track(event="Product Viewed", properties={"product_id": "sku-7"}), 5)
    >>> [trace.times for trace in facts.counters.values()]
    [[5]]
    """
    return {event: CounterIndex(some) for event, some in specs_by_event(specs).items()}


def _required_values(spec: CounterSpec) -> list[tuple[str, Any]]:
    """The values one of which it wants, by property; nothing of properties that may have any."""
    return [
        (name, value)
        for name, wanted in spec.where.items()
        if not isinstance(wanted, PropertyFilter)
        for value in dict.fromkeys(typed(one) for one in (wanted if isinstance(wanted, tuple) else (wanted,)))
    ]


def _position(numbered: tuple[int, *tuple[Any, ...]]) -> int:
    return numbered[0]
