"""Index: which of a row of conditions must be asked again, as bit masks. The cost is that of what changed."""

from collections.abc import Iterable, Sequence

from state.finder import Finder
from state.person import Facts, Person
from state.ways import Way

MOST_KEPT = 500
"""Combinations of changes for which a finder of its own is kept; they are made as they come up."""


class Index:
    """Named conditions that depend on things: bit n of a mask stands for the n-th.

    Whoever is in none of them needs to be asked only about those that could hold.
    """

    __slots__ = ("_bits", "_everybody", "_finders", "_ways", "everything", "masks")

    def __init__(self, conditions: Iterable[tuple[str, Iterable[str], Sequence[Way]]]) -> None:
        self.masks: dict[str, int] = {}
        self.everything = 0
        self._bits: dict[str, int] = {}
        self._ways: list[Sequence[Way]] = []
        for n, (name, needs, ways) in enumerate(conditions):
            self._bits[name] = 1 << n
            self._ways.append(ways)
            self.everything |= 1 << n
            for need in needs:
                self.masks[need] = self.masks.get(need, 0) | 1 << n
        self._everybody = Finder(enumerate(self._ways), few=0)
        self._finders: dict[tuple[str, ...], tuple[int, Finder]] = {}

    def affected(self, changed: Sequence[str] | None) -> int:
        """The mask of the conditions whose answer may have changed.

        >>> index = Index([("a", ("pages",), [()]), ("b", ("cart", "event:Exit Intent"), [()]),
        ...                ("c", ("pages", "score"), [()])])
        >>> bin(index.affected(["pages"])), index.affected(["event:Page Viewed"]), bin(index.affected(None))
        ('0b101', 0, '0b111')
        """
        if changed is None:
            return self.everything
        masks, mask = self.masks, 0
        for need in changed:
            if need in masks:
                mask |= masks[need]
        return mask

    def concerned(self, changed: Sequence[str] | None, person: Person, facts: Facts) -> int:
        """Of those, the conditions in which the person is, and those that could hold of them.

        What is left out does not hold of them, and time alone does not change that.
        """
        if changed is None:
            mask, finder = self.everything, self._everybody
        else:
            masks = self.masks
            key = tuple([need for need in changed if need in masks])
            mask, finder = self._finders.get(key) or self._finder(key)
        if not mask:
            return 0
        found = 0
        for n in finder.find(person, facts):
            found |= 1 << n
        bits = self._bits
        for name in person.segments:
            if name in bits:
                found |= bits[name]
        return mask & found

    def _finder(self, changed: tuple[str, ...]) -> tuple[int, Finder]:
        mask = self.affected(changed)
        finder = Finder(((n, ways) for n, ways in enumerate(self._ways) if mask >> n & 1), few=0)
        if len(self._finders) >= MOST_KEPT:
            self._finders.clear()
        self._finders[changed] = mask, finder
        return mask, finder
