"""Index: which of a row of conditions depend on what, as bit masks; the cost is that of what changed, not of all."""

from collections.abc import Iterable, Sequence


class Index:
    """Which of a row of conditions depend on what: bit n of a mask stands for the n-th."""

    __slots__ = ("everything", "masks")

    def __init__(self, needs: Iterable[Iterable[str]]) -> None:
        self.masks: dict[str, int] = {}
        self.everything = 0
        for n, some in enumerate(needs):
            self.everything |= 1 << n
            for need in some:
                self.masks[need] = self.masks.get(need, 0) | 1 << n

    def affected(self, changed: Sequence[str] | None) -> int:
        """The mask of the conditions whose answer may have changed.

        >>> index = Index([("pages",), ("cart", "event:Exit Intent"), ("pages", "score")])
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
