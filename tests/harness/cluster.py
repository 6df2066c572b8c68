"""All shards in one process and in virtual time, with a real store.

Shard messages are delivered at once, or later with `feed(..., deliver=False)`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from domain.action import Effect, OutboxRow
from domain.model import Model
from domain.record import DEFAULT_PARTITIONS, SHARD_MESSAGES, Record, partition_of
from state.context import StepFunction
from state.person import codec
from state.person.model import Person, routing_key
from state.playbook.compiled import Rules
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch


class ShardCluster:
    """All shards; `rows` has all outbox rows in order."""

    def __init__(self, folder: Path, steps: Sequence[StepFunction], rules: Rules, model: Model | None = None) -> None:
        self.store = SqliteStore(folder / "cluster.db", DEFAULT_PARTITIONS)
        self.store.claim(range(DEFAULT_PARTITIONS), "test")
        self.shards = [Shard(p, self.store, steps, DEFAULT_PARTITIONS, 1_000) for p in range(DEFAULT_PARTITIONS)]
        self.rules, self.model = rules, model
        self.quintiles: Model | None = None
        self.rows: list[OutboxRow] = []
        self.pending_messages: list[OutboxRow] = []
        self.clock = 0
        self._offset = 0

    def feed(self, *records: Record, deliver: bool = True) -> list[OutboxRow]:
        """Apply records one by one; with `deliver`, deliver shard messages after each."""
        before = len(self.rows)
        for record in records:
            self.clock = max(self.clock, record.log_time)
            self._apply_batch(record.partition, [record], 0)
            if deliver:
                self.deliver()
        return self.rows[before:]

    def deliver(self) -> None:
        """Deliver shard messages until none is pending."""
        while self.pending_messages:
            pending, self.pending_messages = self.pending_messages, []
            for row in pending:
                self._offset += 1
                partition = partition_of(row.key, DEFAULT_PARTITIONS)
                self._apply_batch(
                    partition, [Record(SHARD_MESSAGES, partition, self._offset, self.clock, row.key, row.body)], 0
                )

    def tick(self, now: int) -> list[OutboxRow]:
        """Tick all shards until no timer is due at `now`."""
        before = len(self.rows)
        self.clock = max(self.clock, now)
        for shard in self.shards:
            while (due := shard.next_due()) is not None and due <= now:
                self._apply_batch(shard.partition, [], now)
        self.deliver()
        return self.rows[before:]

    def _apply_batch(self, partition: int, records: Sequence[Record], tick: int) -> None:
        shard = self.shards[partition]
        shard.apply(records, tick, self.rules, self.model, self.quintiles)
        batch = WriteBatch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])
        self.rows += batch.outbox_rows
        self.pending_messages += [row for row in batch.outbox_rows if row.stream == SHARD_MESSAGES]
        assert not shard.errors, shard.errors

    def person(self, key: str) -> Person | None:
        """Load a person from the store."""
        encoded = self.store.person(partition_of(routing_key(key), DEFAULT_PARTITIONS), key)
        return None if encoded is None else codec.decode(encoded)

    def decoded(self, stream: str, decode: Callable[[bytes], Effect]) -> list[Effect]:
        """The decoded effects of a stream."""
        return [decode(row.body) for row in self.rows if row.stream == stream]
