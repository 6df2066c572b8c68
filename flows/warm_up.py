"""Warm-up: before a playbook that counts something new goes live, what the log holds of it is gathered in the shadow.

    the log from its beginning ─▶ a slice whenever there is time ─▶ Warmth by partition ─▶ the swap, whole

The live playbook decides meanwhile. When every shard's own place in the log is reached, the new one is swapped in.
"""

from collections.abc import Callable, Mapping, Sequence

from connectors.log import Log
from domain.event import Event
from domain.record import Record
from domain.streams import PUBLIC
from operators.fold_profile import readable
from state.rules import Rules
from state.store import Head
from state.traces import TraceRule
from state.warmth import Warm, Warmth, missing

SLICE = 500
"""Records that are read at a time: some milliseconds."""


class WarmUp:
    """One new playbook on its way. `heads(partition)` says where a shard stands."""

    def __init__(self, log: Log, partitions: Sequence[int], rules: Rules, wanted: Mapping[str, TraceRule],
                 heads: Callable[[int], Head]) -> None:
        self.rules = rules
        self._heads = heads
        self._places = [(stream, partition) for stream in PUBLIC for partition in partitions]
        self._reader = log.reader(self._places, {})
        self._read: dict[tuple[str, int], int] = {}
        self._ahead: dict[tuple[str, int], list[Record]] = {}
        self._warmth = {partition: Warmth(wanted, readable_by(rules)) for partition in partitions}

    def step(self) -> bool:
        """Read a slice; whether all that the shards have read was read here too."""
        records = self._reader.poll(SLICE, 0.0)
        for record in records:
            place = record.stream, record.partition
            self._read[place] = record.offset
            if place in self._ahead or record.offset > self._at(place):
                self._ahead.setdefault(place, []).append(record)
            else:
                self._warmth[record.partition].read(record)
        return len(records) < SLICE and all(self._read.get(place, -1) >= self._at(place) for place in self._places)

    def finish(self) -> dict[int, Warm]:
        """What was found, by partition, exactly up to where the shards stand now. To be called when `step` says so."""
        while not self.step():
            pass
        for place, ahead in self._ahead.items():
            until = self._at(place)
            for record in ahead:
                if record.offset <= until:
                    self._warmth[place[1]].read(record)
        self._ahead.clear()
        self.close()
        return {partition: warmth.found() for partition, warmth in self._warmth.items()}

    def close(self) -> None:
        """Let go of the log."""
        self._reader.close()

    def _at(self, place: tuple[str, int]) -> int:
        return self._heads(place[1]).positions.get(place[0], -1)


def readable_by(rules: Rules) -> Callable[[Event], bool]:
    """Whether the engine folds an event, with these rules, or refuses it."""
    return lambda event: readable(event, rules)


def again(partition: int, before: Rules, rules: Rules, head: Head,
          fetch: Callable[[tuple[str, int], int, int], list[Record]]) -> Warm:
    """What was found when `rules` went live after `before`, with the shard at `head`: once more, from the log."""
    wanted = missing(rules.remembered, before.remembered)
    warmth = Warmth(wanted, readable_by(rules))
    if wanted:
        for stream, position in head.positions.items():
            if stream in PUBLIC:
                for record in fetch((stream, partition), 0, position):
                    warmth.read(record)
    return warmth.found()
