"""Warm-up: before a playbook that counts something new goes live, what the log holds of it is gathered in the shadow.

    the log from its beginning ─▶ a slice whenever there is time ─▶ Warmth by partition ─▶ the swap, whole

The live playbook decides meanwhile. When every shard's own place in the log is reached, the new one is swapped in.
Letters are read, too: what was sent on to somebody counts with them (`state/sent_on.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from connectors.log import Log, Place
from connectors.merge import order
from domain.event import Event
from domain.record import Record
from domain.streams import SHARD_INPUT
from operators.fold_profile import readable
from state.rules import Rules
from state.sent_on import SentOn, horizon
from state.shard import Shard
from state.traces import TraceRule
from state.warmth import Warm, Warmth, missing, unknown

SLICE = 500
"""Records that are read at a time: some milliseconds."""


class WarmUp:
    """One new playbook on its way to these shards."""

    def __init__(self, log: Log, shards: Mapping[int, Shard], rules: Rules, wanted: Mapping[str, TraceRule]) -> None:
        self.rules = rules
        self._log, self._shards, self._wanted = log, shards, wanted
        self._places = [(stream, partition) for stream in SHARD_INPUT for partition in shards]
        self._begin()

    def _begin(self) -> None:
        self._reader = self._log.reader(self._places, {})
        self._read: dict[Place, int] = {}
        self._ahead: dict[Place, list[Record]] = {}
        self._horizons = self._horizons_now()
        readable = readable_by(self.rules)
        self._warmth = {partition: Warmth(self._wanted, readable, SentOn(shard), self._horizons[partition])
                        for partition, shard in self._shards.items()}

    def _horizons_now(self) -> dict[int, int]:
        return {partition: horizon(shard.head.clock) for partition, shard in self._shards.items()}

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
        if len(records) == SLICE or not all(map(self._reached, self._places)):
            return False
        if self._horizons != self._horizons_now():  # it moves every few days: gathered anew, that all count from it
            self.close()
            self._begin()
            return False
        return True

    def _reached(self, place: Place) -> bool:
        """Whether all that the shard has read there was read here too, or is no longer in the log."""
        read, at = self._read.get(place, -1), self._at(place)
        if read < at and self._reader.caught_up(place[1]) and not self._log.fetch(place, read + 1, at):
            self._read[place] = read = at
        return read >= at

    def finish(self) -> dict[int, Warm]:
        """What was found, by partition, exactly up to where the shards stand now. To be called when `step` says so."""
        while not self.step():
            pass
        for record in _merged(self._ahead.values()):
            if record.offset <= self._at((record.stream, record.partition)):
                self._warmth[record.partition].read(record)
        self._ahead.clear()
        self.close()
        return {partition: warmth.found() for partition, warmth in self._warmth.items()}

    def close(self) -> None:
        """Let go of the log."""
        self._reader.close()

    def _at(self, place: Place) -> int:
        return self._shards[place[1]].head.positions.get(place[0], -1)


def readable_by(rules: Rules) -> Callable[[Event], bool]:
    """Whether the engine folds an event, with these rules, or refuses it."""
    return lambda event: readable(event, rules)


def again(shard: Shard, before: Rules, rules: Rules, fetch: Callable[[Place, int, int], list[Record]]) -> Warm:
    """What was found when `rules` went live after `before`, with the shard as it is: once more, from the log."""
    wanted = missing(rules.remembered, before.remembered)
    warmth = Warmth(wanted, readable_by(rules), SentOn(shard), horizon(shard.head.clock))
    if wanted:
        for record in _merged(fetch((stream, shard.partition), 0, position)
                              for stream, position in shard.head.positions.items()):
            warmth.read(record)
    return unknown(warmth.found(), before.remembered)


def _merged(places: Iterable[Sequence[Record]]) -> list[Record]:
    """Records by place in the order in which a reader gives them: of what is bounded the newest is kept."""
    found: list[Record] = []
    for records in places:
        last = 0
        for record in records:
            last = max(last, record.log_time)
            found.append(record if record.log_time == last else record._replace(log_time=last))
    return sorted(found, key=order)
