"""Recorded: what the turns of live shards say of a past time: which model was live, what was read in which order."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from domain.record import Record
from domain.streams import SHARD_INPUT
from state.store import Turn

Place = tuple[str, int]
"""(stream, partition)."""


class Models:
    """Which model (by its hash) was live for a record, or at a time, in each partition.

    >>> turns = [Turn(0, 0, 10, ((0, 1, 4),), 0, "r", "m1"), Turn(0, 10, 20, ((0, 5, 9),), 0, "r", "m2")]
    >>> models = Models(turns)
    >>> models.of("clicks", 0, 4), models.of("clicks", 0, 5), models.at(0, 10), models.at(0, 11), models.at(0, 99)
    ('m1', 'm2', 'm1', 'm2', 'm2')
    """

    def __init__(self, turns: Iterable[Turn]) -> None:
        self.hashes: set[str] = set()
        self._of: dict[tuple[str, int], tuple[list[int], list[str]]] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._last: dict[int, str] = {}
        for turn in turns:
            self._learn(turn)

    def _learn(self, turn: Turn) -> None:
        partition = turn.partition
        if self._last.get(partition) != turn.model:
            self._last[partition] = turn.model
            self.hashes.add(turn.model)
            for stream in SHARD_INPUT:
                self._begin(stream, partition, self._positions.get((stream, partition), -1), turn.model)
            self._begin("", partition, turn.clock_before, turn.model)
        for stream_index, _, last in turn.runs:
            self._positions[SHARD_INPUT[stream_index], partition] = last

    def _begin(self, stream: str, partition: int, after: int, model: str) -> None:
        bounds, models = self._of.setdefault((stream, partition), ([], []))
        if bounds and bounds[-1] == after:
            models[-1] = model
        else:
            bounds.append(after)
            models.append(model)

    def of(self, stream: str, partition: int, offset: int) -> str:
        """The model that a record was applied with; the last one, if it was not applied yet; empty without any."""
        found = self._of.get((stream, partition))
        if found is None:
            return ""
        return found[1][max(0, bisect_left(found[0], offset) - 1)]

    def at(self, partition: int, time: int) -> str:
        """The model that a timer of this time was fired with."""
        return self.of("", partition, time)


class Step(NamedTuple):
    """One record as a live shard read it: at which clock."""

    record: Record
    clock: int


def followed(turns: Sequence[Turn], records: Mapping[Place, Sequence[Record]]) -> tuple[list[Step], int]:
    """What one shard read, in the order in which it read it, and where its clock stood at last.

    `records` are those of the partition, by place and in the order of their offsets; what was not read yet is left out.
    """
    found: list[Step] = []
    at = dict.fromkeys(records, 0)
    clock = 0
    for turn in turns:
        clock = max(clock, turn.clock_before)
        for index, first, last in turn.runs:
            place = SHARD_INPUT[index], turn.partition
            rows = records.get(place, ())
            n = at.get(place, 0)
            while n < len(rows) and rows[n].offset <= last:
                if rows[n].offset >= first:
                    clock = max(clock, rows[n].log_time)
                    found.append(Step(rows[n], clock))
                n += 1
            at[place] = n
        clock = max(clock, turn.clock_after)
    return found, clock
