"""Event traces: which of very many traces one event concerns, without trying each of them.

    "Product Viewed" ─┬─ product_id ─┬─ sku-1 ─▶ the traces that count views of sku-1
                      │              └─ sku-2 ─▶ …
                      └─ always ─▶ those that want no certain value
    what was counted ──▶ the sequences of which it is a step, as far as the person has their rarest step

So ten thousand campaigns, each about a product of its own, cost an event about as much as one of them. A sequence that
misses a step has not been completed, so it is not looked at before the step that fewest others share is there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from domain.condition import Filter
from domain.event import Event
from state.person import Facts
from state.properties import property_of, typed
from state.traces import TraceRule, by_event, complete, fold

Numbered = tuple[int, TraceRule]


class EventTraces:
    """The traces that events of one name concern, in the order of `rules`: sequences behind everything else."""

    __slots__ = ("_always", "_chains", "_steps", "_tables")

    def __init__(self, rules: Sequence[TraceRule]) -> None:
        counted = [(n, rule) for n, rule in enumerate(rules) if rule.chain is None]
        told = Counter(name for name, _ in {(name, value) for _, rule in counted for name, value in _values(rule)})
        always: list[Numbered] = []
        tables: dict[str, dict[Any, list[Numbered]]] = {}
        for n, rule in counted:
            values = _values(rule)
            if not values:
                always.append((n, rule))
                continue
            most = max((name for name, _ in values), key=lambda name: (told[name], name))
            for name, value in values:
                if name == most:
                    tables.setdefault(name, {}).setdefault(value, []).append((n, rule))
        self._always = tuple(always)
        self._tables = tuple(tables.items())
        chains = [(n, rule, frozenset(rule.chain[0])) for n, rule in enumerate(rules) if rule.chain is not None]
        shared = Counter(key for _, _, keys in chains for key in keys)
        self._steps = frozenset(shared)
        self._chains: dict[str, list[tuple[int, TraceRule, frozenset[str]]]] = {}
        for chain in chains:
            self._chains.setdefault(min(chain[2], key=lambda key: (shared[key], key)), []).append(chain)

    def remember(self, facts: Facts, event: Event, at: int) -> None:
        """Fold one event, at its place in event time (`at`, ms), into every trace that it concerns.

        `facts` is the facet the event is of.
        """
        found: Sequence[Numbered] = self._always
        for name, table in self._tables:
            value = property_of(event, name)
            if isinstance(value, (str, int, float)):
                some = table.get(typed(value))
                if some is not None:
                    found = [*found, *some]
        if len(found) > len(self._always):
            found = sorted(found, key=_number)
        steps, done = self._steps, set[str]()
        for _, rule in found:
            if fold(facts, rule, event, at) and rule.key in steps:
                done.add(rule.key)
        if done:
            chains = [chain for key in self._chains.keys() & facts.traces.keys() for chain in self._chains[key]
                      if not done.isdisjoint(chain[2])]
            for _, rule, _ in sorted(chains, key=_number):
                complete(facts, rule)


def event_traces(rules: Mapping[str, TraceRule]) -> dict[str, EventTraces]:
    """By the name of the event.

    >>> from domain.condition import Condition, Did
    >>> from domain.event import Track
    >>> from state.traces import of_conditions
    >>> wanted = [Condition(did=Did("Product Viewed", where={"product_id": f"sku-{n}"})) for n in range(1_000)]
    >>> facts = Facts()
    >>> found = event_traces(of_conditions(wanted))["Product Viewed"]
    >>> found.remember(facts, Track(event="Product Viewed", properties={"product_id": "sku-7"}), 5)
    >>> [trace.times for trace in facts.traces.values()]
    [[5]]
    """
    return {event: EventTraces(some) for event, some in by_event(rules).items()}


def _values(rule: TraceRule) -> list[tuple[str, Any]]:
    """The values one of which it wants, by property; nothing of properties that may have any."""
    return [(name, value) for name, wanted in rule.where.items() if not isinstance(wanted, Filter)
            for value in dict.fromkeys(typed(one) for one in (wanted if isinstance(wanted, tuple) else (wanted,)))]


def _number(numbered: tuple[int, *tuple[Any, ...]]) -> int:
    return numbered[0]
