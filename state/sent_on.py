"""Sent on: which records of its partition a shard did not count itself, because they are somebody's who is elsewhere.

    a record of who had logged in before ─▶ a letter to whom they became ─▶ counted there, whenever it arrives

A warm-up counts such a record once: by its letter, or, when that may have left the log already, where the record
stands. Letters are kept for a shorter time than what the shop's side has written.
"""

from collections.abc import Sequence
from typing import Final

from domain.streams import SHARD_INPUT
from state.dealings import Moved, stands
from state.shard import Shard

DAY: Final = 86_400_000
FORGIVEN: Final = 2 * DAY
"""How old what was sent on must be at least to be counted where it stands: its letter has long been read."""
STRETCH: Final = 10 * DAY
"""All shards count from the same moment on, which moves only so often: their clocks are seconds apart."""


def horizon(clock: int) -> int:
    """What was sent on after this moment is counted by its letters, and what was earlier where it stands (ms).

    >>> horizon(25 * DAY) // DAY, horizon(31 * DAY) // DAY, horizon(32 * DAY) // DAY
    (20, 20, 30)
    """
    return (clock - FORGIVEN) // STRETCH * STRETCH


class SentOn:
    """Asked about records up to where the shard stands; who moved is looked up once."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._known: dict[str, tuple[Moved | None, Sequence[int]]] = {}

    def __call__(self, key: str, stream: str, offset: int) -> bool:
        """Whether this record of `key` was sent on."""
        place = SHARD_INPUT.index(stream)
        moved, until = self._known.get(key, (None, ()))
        if moved is None and (not until or offset > until[place]):
            person = self._shard.memory.glance(key)
            moved = person.moved if person is not None else None
            self._known[key] = moved, stands(self._shard.head.positions)
        return moved is not None and offset > moved.after[place]
