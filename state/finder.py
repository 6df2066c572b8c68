"""Finder: which of very many conditions could be true of a person, without asking each of them.

Every condition is filed under statements that are necessary for it (`state/ways.py`), the most selective one first:

    country ─┬─ CA ─▶ pages ─┬─ 2 or more ─▶ 17, 203
             │               └─ 5 or more ─▶ 4
             └─ IT ─▶ 8, 90
    always ──▶ 1, 12

Only the branches of what the person has are looked into. What is found *may* hold: each must still be asked. What is
not found cannot hold.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from domain.condition import Filter
from domain.event import Event
from state.access import Access, Read
from state.person import Facts, Person
from state.properties import Wanted, property_of, typed
from state.ways import Way

FEW = 4
"""So few campaigns are asked one by one: looking them up would cost as much."""
STEPS = 8
"""Branches of a statement about a number, at most; what is filed in one of them may want a little more than it says."""
DEEPEST = 8

Entry = tuple[int, Way]


class _Node:
    """`always` are found by everybody who comes here; the others have a way to read and a way on (`leads`: if any).

    Of `steps` it stands beside the floors what is found below the first of them, the first two and so on, and where
    it goes on from there.
    """

    __slots__ = ("always", "leads", "many", "one", "parts", "steps")

    def __init__(self) -> None:
        self.always: tuple[int, ...] = ()
        self.leads = False
        self.one: tuple[tuple[Read, dict[Any, _Node]], ...] = ()
        self.many: tuple[tuple[Read, dict[Any, _Node]], ...] = ()
        self.parts: tuple[tuple[Read, dict[Any, _Node]], ...] = ()
        self.steps: tuple[tuple[Read, list[float], list[tuple[int, ...]], list[tuple[_Node, ...]]], ...] = ()


class Finder:
    """Over numbered conditions: (number, the ways it can become true). It is false when there are none.

    So `few` conditions are not worth looking up: whoever asks a condition dearly, sets it to 0.
    """

    __slots__ = ("_empty", "_root", "_twice")

    def __init__(self, conditions: Iterable[tuple[int, Sequence[Way]]], few: int = FEW) -> None:
        entries = [(number, way) for number, ways in conditions for way in ways]
        self._empty = not entries
        self._root = _filed(entries, 0, few)
        self._twice = len({number for number, _ in entries}) < len(entries) or any(
            len(access.values) > 1 for _, way in entries for access in way if access.kind in ("many", "part"))

    def __bool__(self) -> bool:
        return not self._empty

    def find(self, person: Person, facts: Facts) -> list[int]:
        """The numbers of the conditions that may hold, in rising order.

        >>> from domain.condition import Condition, Has
        >>> from domain.shop import Shop
        >>> from state.ways import ways
        >>> countries = ["CA", "IT", "CA", "DE", "IT", "IT"]
        >>> finder = Finder((n, ways(Condition(has=Has(country=one)), Shop())) for n, one in enumerate(countries))
        >>> finder.find(Person("a:x"), Facts(country="CA")), finder.find(Person("a:x"), Facts(country="FR"))
        ([0, 2], [])
        """
        if self._empty:
            return []
        node = self._root
        found = list(node.always)
        todo = [node]
        for node in todo:  # grows on the way
            for read, table in node.one:
                then = table.get(read(person, facts))
                if then is not None:
                    found += then.always
                    if then.leads:
                        todo.append(then)
            for read, table in node.many:
                for value in read(person, facts):
                    then = table.get(value)
                    if then is not None:
                        found += then.always
                        if then.leads:
                            todo.append(then)
            for read, table in node.parts:
                text = read(person, facts)
                if text:
                    for part, then in table.items():
                        if part in text:
                            found += then.always
                            if then.leads:
                                todo.append(then)
            for read, floors, below, onward in node.steps:
                have = read(person, facts)
                if have is not None:
                    at = bisect_right(floors, have)
                    found += below[at]
                    todo += onward[at]
        if len(found) < 2:
            return found
        if self._twice:
            return sorted(set(found))
        found.sort()
        return found


class EventFinder:
    """Over what waits for one event: (number, the properties that are wanted of it, the ways it can become true)."""

    __slots__ = ("_by_property", "_others")

    def __init__(self, waiting: Iterable[tuple[int, Wanted, Sequence[Way]]]) -> None:
        others: list[tuple[int, Sequence[Way]]] = []
        filed: dict[str, dict[Any, list[tuple[int, Sequence[Way]]]]] = {}
        for number, wanted, ways in waiting:
            for name, value in sorted(wanted.items()):
                if not isinstance(value, Filter):
                    for one in dict.fromkeys(typed(one) for one in (value if isinstance(value, tuple) else (value,))):
                        filed.setdefault(name, {}).setdefault(one, []).append((number, ways))
                    break
            else:
                others.append((number, ways))
        self._others = Finder(others, few=1)
        self._by_property = tuple((name, {value: Finder(some) for value, some in values.items()})
                                  for name, values in filed.items())

    def find(self, event: Event, person: Person, facts: Facts) -> list[int]:
        """The numbers of what may be meant by this event, and hold, in rising order."""
        found = self._others.find(person, facts)
        for name, values in self._by_property:
            value = property_of(event, name)
            if isinstance(value, (str, int, float)):
                finder = values.get(typed(value))
                if finder is not None:
                    found += finder.find(person, facts)
        return sorted(found) if self._by_property else found


def _filed(entries: list[Entry], depth: int, few: int) -> _Node:
    node = _Node()
    if len(entries) <= few or depth >= DEEPEST:
        node.always = tuple(sorted({number for number, _ in entries}))
        return node
    always: set[int] = set()
    chosen: dict[tuple[str, str], list[tuple[Access, Entry]]] = {}
    sharing = Counter(key for _, way in entries for access in way for key in _keys(access))
    for number, way in entries:
        if not way:
            always.add(number)
            continue
        best = way[0] if len(way) == 1 else min(
            way, key=lambda access: access.share * sum([sharing[key] for key in _keys(access)]))
        rest = tuple(access for access in way if access is not best)
        chosen.setdefault((best.kind, best.about), []).append((best, (number, rest)))
    tables: dict[str, list[tuple[Read, dict[Any, _Node]]]] = {"one": [], "many": [], "part": []}
    steps: list[tuple[Read, list[float], list[tuple[int, ...]], list[tuple[_Node, ...]]]] = []
    for (kind, _), filed in chosen.items():
        if len(filed) <= few // 2:
            always.update(number for _, (number, _) in filed)
        elif kind == "least":
            steps.append(_steps(filed, depth, few))
        else:
            tables[kind].append(_table(filed, depth, few))
    node.always, node.steps = tuple(sorted(always)), tuple(steps)
    node.one, node.many, node.parts = tuple(tables["one"]), tuple(tables["many"]), tuple(tables["part"])
    node.leads = bool(chosen)
    return node


def _keys(access: Access) -> list[tuple[str, Any]]:
    """What others share with a statement: each value; of a number, that it is asked for at all."""
    return [(access.about, value) for value in access.values] if access.values else [(access.about, None)]


def _table(filed: list[tuple[Access, Entry]], depth: int, few: int) -> tuple[Read, dict[Any, _Node]]:
    values: dict[Any, list[Entry]] = {}
    for access, entry in filed:
        for value in dict.fromkeys(access.values):
            values.setdefault(value, []).append(entry)
    return filed[0][0].read, {value: _filed(entries, depth + 1, few) for value, entries in values.items()}


def _steps(filed: list[tuple[Access, Entry]], depth: int, few: int) -> tuple[
        Read, list[float], list[tuple[int, ...]], list[tuple[_Node, ...]]]:
    """Branches by rising numbers; a condition stands in the last one that it surely needs."""
    filed.sort(key=lambda one: one[0].least)
    wanted = sorted({access.least for access, _ in filed})
    size = -(-len(wanted) // STEPS)
    floors = wanted[::size]
    branches: list[list[Entry]] = [[] for _ in floors]
    for access, (number, rest) in filed:
        at = bisect_right(floors, access.least) - 1
        branches[at].append((number, rest if access.least == floors[at] and size == 1 else (*rest, access)))
    below: list[tuple[int, ...]] = [()]
    onward: list[tuple[_Node, ...]] = [()]
    for entries in branches:
        then = _filed(entries, depth + 1, few)
        below.append((*below[-1], *then.always))
        onward.append((*onward[-1], then) if then.leads else onward[-1])
    return filed[0][0].read, floors, below, onward
