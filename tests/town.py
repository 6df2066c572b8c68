"""All shards of a shop in one process, in virtual time: records go in, letters are delivered, clocks tick.

The same `Shard` class as in production, over a real store; letters can be delivered late (`feed(..., post=False)`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from domain.effect import Effect, Row
from domain.model import Model
from domain.partition import partition_of
from domain.record import Record
from domain.streams import LETTERS, PARTITIONS
from state import codec
from state.context import Step
from state.person import Person, routing_key
from state.rules import Rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore


class Town:
    """Every shard; `rows` is everything that was decided, in the order in which it was decided."""

    def __init__(self, folder: Path, steps: Sequence[Step], rules: Rules, model: Model | None = None) -> None:
        self.store = SqliteStore(folder / "town.db", PARTITIONS)
        self.store.claim(range(PARTITIONS), "town")
        self.shards = [Shard(p, self.store, steps, PARTITIONS, 1_000) for p in range(PARTITIONS)]
        self.rules, self.model = rules, model
        self.quintiles: Model | None = None
        self.rows: list[Row] = []
        self.letters: list[Row] = []
        self.clock = 0
        self._offset = 0

    def feed(self, *records: Record, post: bool = True) -> list[Row]:
        """Apply records one by one; deliver the letters after each, unless `post` is false."""
        before = len(self.rows)
        for record in records:
            self.clock = max(self.clock, record.log_time)
            self._turn(record.partition, [record], 0)
            if post:
                self.deliver()
        return self.rows[before:]

    def deliver(self) -> None:
        """Deliver letters until none is left."""
        while self.letters:
            letters, self.letters = self.letters, []
            for row in letters:
                self._offset += 1
                there = partition_of(row.key, PARTITIONS)
                self._turn(there, [Record(LETTERS, there, self._offset, self.clock, row.key, row.body)], 0)

    def tick(self, now: int) -> list[Row]:
        """Let time pass everywhere until nothing is due any more by `now`."""
        before = len(self.rows)
        self.clock = max(self.clock, now)
        for shard in self.shards:
            while (due := shard.next_due()) is not None and due <= now:
                self._turn(shard.partition, [], now)
        self.deliver()
        return self.rows[before:]

    def _turn(self, partition: int, records: Sequence[Record], tick: int) -> None:
        shard = self.shards[partition]
        shard.apply(records, tick, self.rules, self.model, self.quintiles)
        batch = Batch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])
        self.rows += batch.rows
        self.letters += [row for row in batch.rows if row.stream == LETTERS]
        assert not shard.bugs, shard.bugs

    def person(self, key: str) -> Person | None:
        """Somebody, as the store has them."""
        kept = self.store.person(partition_of(routing_key(key), PARTITIONS), key)
        return None if kept is None else codec.decode(kept)

    def said(self, stream: str, decode: Callable[[bytes], Effect]) -> list[Effect]:
        """What was written to a stream."""
        return [decode(row.body) for row in self.rows if row.stream == stream]
