"""Watched: the campaigns whose audience is followed between their occasions, by what can change it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from state.finder import Finder
from state.ways import Way

MOST_KEPT = 500
"""Combinations of changes that are kept; they are made as they come up."""
MANY = 1_000
"""Of so many campaigns each need has a finder of its own: one for a combination would take too long to make."""


class Turn(NamedTuple):
    """What depends on a combination of changes: the ranks, and how to find those of them that could hold now."""

    ranks: tuple[frozenset[int], ...]
    finders: tuple[Finder, ...]


class Watched:
    """Over campaigns: (rank, what their condition needs, the ways it can become true)."""

    __slots__ = ("_finders", "_kept", "_ranks", "_ways")

    def __init__(self, campaigns: Iterable[tuple[int, frozenset[str], Sequence[Way]]]) -> None:
        ranks: dict[str, set[int]] = {}
        self._ways: dict[int, Sequence[Way]] = {}
        for rank, needs, ways in campaigns:
            self._ways[rank] = ways
            for need in needs:
                ranks.setdefault(need, set()).add(rank)
        self._ranks = {need: frozenset(some) for need, some in ranks.items()}
        self._finders = {need: self._finder(some) for need, some in ranks.items()} if len(self._ways) > MANY else None
        self._kept: dict[tuple[str, ...], Turn] = {}

    def turn(self, changed: Sequence[str]) -> Turn | None:
        """What these changes concern; None for nothing.

        >>> watched = Watched([(3, frozenset({"pages", "cart"}), [()]), (5, frozenset({"cart"}), [()])])
        >>> [sorted(some) for some in watched.turn(["pages", "seen"]).ranks], watched.turn(["seen"])
        ([[3]], None)
        """
        known = self._ranks
        key = tuple([need for need in changed if need in known])
        if not key:
            return None
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            kept = self._kept[key] = self._made(key)
        return kept

    def _made(self, key: tuple[str, ...]) -> Turn:
        some = tuple(self._ranks[need] for need in key)
        if self._finders is not None:
            return Turn(some, tuple(self._finders[need] for need in key))
        whole = frozenset().union(*some)
        return Turn((whole,), (self._finder(whole),))

    def _finder(self, ranks: Iterable[int]) -> Finder:
        return Finder((rank, self._ways[rank]) for rank in sorted(ranks))
