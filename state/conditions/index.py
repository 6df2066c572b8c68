"""Index: which of a row of conditions must be asked again, as bit masks. The cost is that of what changed.

Finder: which of very many conditions could be true of a person, without asking each of them.

Every condition is filed under statements that are necessary for it (`state/conditions/compile.py`), the most selective
one first:

    country ─┬─ CA ─▶ pages ─┬─ 2 or more ─▶ 17, 203
             │               └─ 5 or more ─▶ 4
             └─ IT ─▶ 8, 90
    always ──▶ 1, 12

Only the branches of what the person has are looked into. What is found *may* hold: each must still be asked. What is
not found cannot hold.

Watched: the campaigns whose audience is followed between their occasions, by what can change it.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from domain.event import Event
from domain.playbook.condition import PropertyFilter
from state.conditions.compile import Clause
from state.conditions.predicate import Getter, IndexKey
from state.conditions.properties import PropertyFilters, get_property, typed
from state.person.model import Person, ProfileFragment

SCAN_LIMIT = 4
"""Up to this number, campaigns are tested one by one, because a lookup would cost as much."""
MAX_RANGES = 8
"""Branches of a statement about a number, at most; what is filed in one of them may want a little more than it says."""
MAX_DEPTH = 8

NumberedClause = tuple[int, Clause]


class _Node:
    """`always` are found by everybody who comes here; the others have a way to read and a way on (`leads`: if any).

    Of `steps` it stands beside the floors what is found below the first of them, the first two and so on, and where
    it goes on from there.
    """

    __slots__ = ("always", "any_of", "at_least", "equals", "has_children", "substring")

    def __init__(self) -> None:
        self.always: tuple[int, ...] = ()
        self.has_children = False
        self.equals: tuple[tuple[Getter, dict[Any, _Node]], ...] = ()
        self.any_of: tuple[tuple[Getter, dict[Any, _Node]], ...] = ()
        self.substring: tuple[tuple[Getter, dict[Any, _Node]], ...] = ()
        self.at_least: tuple[tuple[Getter, list[float], list[tuple[int, ...]], list[tuple[_Node, ...]]], ...] = ()


class PredicateIndex:
    """Over numbered conditions: (number, the ways it can become true). It is false when there are none.

    Up to `few` conditions are tested one by one. Set it to 0 if a test is expensive.
    """

    __slots__ = ("_empty", "_may_repeat", "_root")

    def __init__(self, conditions: Iterable[tuple[int, Sequence[Clause]]], scan_limit: int = SCAN_LIMIT) -> None:
        entries = [(number, way) for number, ways in conditions for way in ways]
        self._empty = not entries
        self._root = _build(entries, 0, scan_limit)
        self._may_repeat = len({number for number, _ in entries}) < len(entries) or any(
            len(access.values) > 1 for _, way in entries for access in way if access.kind in ("any_of", "substring")
        )

    def __bool__(self) -> bool:
        return not self._empty

    def candidates(self, person: Person, profile: ProfileFragment) -> list[int]:
        """Return the numbers of the conditions that may be true, in ascending order.

        >>> from domain.playbook.condition import Condition, Has
        >>> from domain.playbook.shop import Shop
        >>> from state.conditions.compile import dnf_clauses
        >>> countries = ["CA", "IT", "CA", "DE", "IT", "IT"]
        >>> conditions = [Condition(has=Has(country=country)) for country in countries]
        >>> index = PredicateIndex((n, dnf_clauses(one, Shop())) for n, one in enumerate(conditions))
        >>> index.candidates(Person("a:x"), ProfileFragment(country="CA"))
        [0, 2]
        >>> index.candidates(Person("a:x"), ProfileFragment(country="FR"))
        []
        """
        if self._empty:
            return []
        node = self._root
        found = list(node.always)
        todo = [node]
        for node in todo:  # grows on the way
            for read, table in node.equals:
                then = table.get(read(person, profile))
                if then is not None:
                    found += then.always
                    if then.has_children:
                        todo.append(then)
            for read, table in node.any_of:
                for value in read(person, profile):
                    then = table.get(value)
                    if then is not None:
                        found += then.always
                        if then.has_children:
                            todo.append(then)
            for read, table in node.substring:
                text = read(person, profile)
                if text:
                    for part, then in table.items():
                        if part in text:
                            found += then.always
                            if then.has_children:
                                todo.append(then)
            for read, floors, below, onward in node.at_least:
                have = read(person, profile)
                if have is not None:
                    at = bisect_right(floors, have)
                    found += below[at]
                    todo += onward[at]
        if len(found) < 2:
            return found
        if self._may_repeat:
            return sorted(set(found))
        found.sort()
        return found


class EventIndex:
    """Over what waits for one event: (number, the properties that are wanted of it, the ways it can become true)."""

    __slots__ = ("_by_property", "_unfiltered")

    def __init__(self, waiting: Iterable[tuple[int, PropertyFilters, Sequence[Clause]]]) -> None:
        others: list[tuple[int, Sequence[Clause]]] = []
        filed: dict[str, dict[Any, list[tuple[int, Sequence[Clause]]]]] = {}
        for number, wanted, ways in waiting:
            for name, value in sorted(wanted.items()):
                if not isinstance(value, PropertyFilter):
                    for one in dict.fromkeys(typed(one) for one in (value if isinstance(value, tuple) else (value,))):
                        filed.setdefault(name, {}).setdefault(one, []).append((number, ways))
                    break
            else:
                others.append((number, ways))
        self._unfiltered = PredicateIndex(others, scan_limit=1)
        self._by_property = tuple(
            (name, {value: PredicateIndex(some) for value, some in values.items()}) for name, values in filed.items()
        )

    def candidates(self, event: Event, person: Person, profile: ProfileFragment) -> list[int]:
        """The numbers of what may be meant by this event, and hold, in rising order."""
        found = self._unfiltered.candidates(person, profile)
        for name, values in self._by_property:
            value = get_property(event, name)
            if isinstance(value, (str, int, float)):
                finder = values.get(typed(value))
                if finder is not None:
                    found += finder.candidates(person, profile)
        return sorted(found) if self._by_property else found


def _build(entries: list[NumberedClause], depth: int, scan_limit: int) -> _Node:
    node = _Node()
    if len(entries) <= scan_limit or depth >= MAX_DEPTH:
        node.always = tuple(sorted({number for number, _ in entries}))
        return node
    always: set[int] = set()
    chosen: dict[tuple[str, str], list[tuple[IndexKey, NumberedClause]]] = {}
    sharing = Counter(key for _, way in entries for access in way for key in _shared_keys(access))
    for number, way in entries:
        if not way:
            always.add(number)
            continue
        best = (
            way[0]
            if len(way) == 1
            else min(way, key=lambda access: access.selectivity * sum([sharing[key] for key in _shared_keys(access)]))
        )
        rest = tuple(access for access in way if access is not best)
        chosen.setdefault((best.kind, best.attribute), []).append((best, (number, rest)))
    tables: dict[str, list[tuple[Getter, dict[Any, _Node]]]] = {"equals": [], "any_of": [], "substring": []}
    steps: list[tuple[Getter, list[float], list[tuple[int, ...]], list[tuple[_Node, ...]]]] = []
    for (kind, _), filed in chosen.items():
        if len(filed) <= scan_limit // 2:
            always.update(number for _, (number, _) in filed)
        elif kind == "at_least":
            steps.append(_range_table(filed, depth, scan_limit))
        else:
            tables[kind].append(_hash_table(filed, depth, scan_limit))
    node.always, node.at_least = tuple(sorted(always)), tuple(steps)
    node.equals, node.any_of, node.substring = (
        tuple(tables["equals"]),
        tuple(tables["any_of"]),
        tuple(tables["substring"]),
    )
    node.has_children = bool(chosen)
    return node


def _shared_keys(key: IndexKey) -> list[tuple[str, Any]]:
    """What others share with a statement: each value; of a number, that it is asked for at all."""
    return [(key.attribute, value) for value in key.values] if key.values else [(key.attribute, None)]


def _hash_table(
    keyed_clauses: list[tuple[IndexKey, NumberedClause]], depth: int, scan_limit: int
) -> tuple[Getter, dict[Any, _Node]]:
    values: dict[Any, list[NumberedClause]] = {}
    for access, entry in keyed_clauses:
        for value in dict.fromkeys(access.values):
            values.setdefault(value, []).append(entry)
    return keyed_clauses[0][0].getter, {
        value: _build(entries, depth + 1, scan_limit) for value, entries in values.items()
    }


def _range_table(
    keyed_clauses: list[tuple[IndexKey, NumberedClause]], depth: int, scan_limit: int
) -> tuple[Getter, list[float], list[tuple[int, ...]], list[tuple[_Node, ...]]]:
    """Branches by rising numbers; a condition stands in the last one that it surely needs."""
    keyed_clauses.sort(key=lambda one: one[0].minimum)
    wanted = sorted({access.minimum for access, _ in keyed_clauses})
    size = -(-len(wanted) // MAX_RANGES)
    floors = wanted[::size]
    branches: list[list[NumberedClause]] = [[] for _ in floors]
    for access, (number, rest) in keyed_clauses:
        at = bisect_right(floors, access.minimum) - 1
        branches[at].append((number, rest if access.minimum == floors[at] and size == 1 else (*rest, access)))
    below: list[tuple[int, ...]] = [()]
    onward: list[tuple[_Node, ...]] = [()]
    for entries in branches:
        then = _build(entries, depth + 1, scan_limit)
        below.append((*below[-1], *then.always))
        onward.append((*onward[-1], then) if then.has_children else onward[-1])
    return keyed_clauses[0][0].getter, floors, below, onward


MAX_CACHED_INDEXES = 500
"""Combinations of changes for which a finder of its own is kept; they are made as they come up."""


class DependencyIndex:
    """Named conditions that depend on things: bit n of a mask stands for the n-th.

    Non-members are tested only against candidate conditions.
    """

    __slots__ = ("_bits", "_clauses", "_full_index", "_indexes", "all_mask", "masks")

    def __init__(self, conditions: Iterable[tuple[str, Iterable[str], Sequence[Clause]]]) -> None:
        self.masks: dict[str, int] = {}
        self.all_mask = 0
        self._bits: dict[str, int] = {}
        self._clauses: list[Sequence[Clause]] = []
        for n, (name, needs, ways) in enumerate(conditions):
            self._bits[name] = 1 << n
            self._clauses.append(ways)
            self.all_mask |= 1 << n
            for need in needs:
                self.masks[need] = self.masks.get(need, 0) | 1 << n
        self._full_index = PredicateIndex(enumerate(self._clauses), scan_limit=0)
        self._indexes: dict[tuple[str, ...], tuple[int, PredicateIndex]] = {}

    def affected(self, changed: Sequence[str] | None) -> int:
        """Return the mask of the conditions whose result may have changed.

        >>> index = DependencyIndex([("a", ("pages",), [()]), ("b", ("cart", "event:Exit Intent"), [()]),
        ...                ("c", ("pages", "score"), [()])])
        >>> bin(index.affected(["pages"])), index.affected(["event:Page Viewed"]), bin(index.affected(None))
        ('0b101', 0, '0b111')
        """
        if changed is None:
            return self.all_mask
        masks, mask = self.masks, 0
        for need in changed:
            if need in masks:
                mask |= masks[need]
        return mask

    def candidates(self, changed: Sequence[str] | None, person: Person, profile: ProfileFragment) -> int:
        """Of those, the conditions in which the person is, and those that could hold of them.

        What is left out does not hold of them, and time alone does not change that.
        """
        if changed is None:
            mask, finder = self.all_mask, self._full_index
        else:
            masks = self.masks
            key = tuple([need for need in changed if need in masks])
            mask, finder = self._indexes.get(key) or self._index_for(key)
        if not mask:
            return 0
        found = 0
        for n in finder.candidates(person, profile):
            found |= 1 << n
        bits = self._bits
        for name in person.segments:
            if name in bits:
                found |= bits[name]
        return mask & found

    def _index_for(self, changed: tuple[str, ...]) -> tuple[int, PredicateIndex]:
        mask = self.affected(changed)
        finder = PredicateIndex(((n, ways) for n, ways in enumerate(self._clauses) if mask >> n & 1), scan_limit=0)
        if len(self._indexes) >= MAX_CACHED_INDEXES:
            self._indexes.clear()
        self._indexes[changed] = mask, finder
        return mask, finder


MAX_CACHED_COMBINATIONS = 500
"""Combinations of changes that are kept; they are made as they come up."""
SPLIT_ABOVE = 1_000
"""Of so many campaigns each need has a finder of its own: one for a combination would take too long to make."""


class AffectedCampaigns(NamedTuple):
    """What depends on a combination of changes: the ranks, and how to find those of them that could hold now."""

    ranks: tuple[frozenset[int], ...]
    indexes: tuple[PredicateIndex, ...]


class TriggerDependencies:
    """Over campaigns: (rank, what their condition needs, the ways it can become true)."""

    __slots__ = ("_cache", "_clauses", "_indexes", "_ranks")

    def __init__(self, campaigns: Iterable[tuple[int, frozenset[str], Sequence[Clause]]]) -> None:
        ranks: dict[str, set[int]] = {}
        self._clauses: dict[int, Sequence[Clause]] = {}
        for rank, needs, ways in campaigns:
            self._clauses[rank] = ways
            for need in needs:
                ranks.setdefault(need, set()).add(rank)
        self._ranks = {need: frozenset(some) for need, some in ranks.items()}
        self._indexes = (
            {need: self._build_index(some) for need, some in ranks.items()}
            if len(self._clauses) > SPLIT_ABOVE
            else None
        )
        self._cache: dict[tuple[str, ...], AffectedCampaigns] = {}

    def affected_by(self, changed: Sequence[str]) -> AffectedCampaigns | None:
        """Return what depends on these changes; None if nothing does.

        >>> watched = TriggerDependencies([(3, frozenset({"pages", "cart"}), [()]), (5, frozenset({"cart"}), [()])])
        >>> [sorted(ranks) for ranks in watched.affected_by(["pages", "last_seen"]).ranks]
        [[3]]
        >>> watched.affected_by(["last_seen"]) is None
        True
        """
        known = self._ranks
        key = tuple([need for need in changed if need in known])
        if not key:
            return None
        kept = self._cache.get(key)
        if kept is None:
            if len(self._cache) >= MAX_CACHED_COMBINATIONS:
                self._cache.clear()
            kept = self._cache[key] = self._select(key)
        return kept

    def _select(self, key: tuple[str, ...]) -> AffectedCampaigns:
        some = tuple(self._ranks[need] for need in key)
        if self._indexes is not None:
            return AffectedCampaigns(some, tuple(self._indexes[need] for need in key))
        whole = frozenset().union(*some)
        return AffectedCampaigns((whole,), (self._build_index(whole),))

    def _build_index(self, ranks: Iterable[int]) -> PredicateIndex:
        return PredicateIndex((rank, self._clauses[rank]) for rank in sorted(ranks))
