"""A few shards in memory, shared among workers that crash at given batches.

    cluster = ClusterWithFailures(rules, workers=3); cluster.apply(record); cluster.advance(until)

Shard messages are delivered at once, so that the result does not depend on the number of workers.
"""

from collections.abc import Sequence

from domain.action import OutboxRow
from domain.record import SHARD_MESSAGES, Record, partition_of
from flows.simulation.virtual_time import InMemoryStore
from operators.steps import STEPS
from state.person import codec
from state.person.model import Person
from state.playbook.compiled import Rules
from state.shard.shard import Shard
from state.store.store import ShardCheckpoint, WriteBatch

PARTITION_COUNT = 6


class CheckpointStore(InMemoryStore):
    """A store that keeps checkpoints, so that shards can restart."""

    def __init__(self, codes_available: str = "") -> None:
        super().__init__(codes_available)
        self.checkpoints: dict[int, ShardCheckpoint] = {}
        self.encoded_persons: dict[tuple[int, str], bytes] = {}

    def shard_checkpoint(self, partition: int) -> ShardCheckpoint:
        return self.checkpoints.get(partition, ShardCheckpoint())

    def commit(self, batch: WriteBatch, sent: Sequence[int]) -> int:
        self.checkpoints.update(batch.checkpoints)
        self.encoded_persons.update({key: value for key, value in batch.persons.items() if value is not None})
        return super().commit(batch, sent)


class ClusterWithFailures:
    """`crash_batches` are the batches (from 0) in which the worker crashes before its commit.

    With `codes_available`, code caches have codes from the start, as in a backtest.
    """

    def __init__(
        self,
        rules: Rules,
        workers: int = 1,
        crash_batches: Sequence[int] = (),
        cache_size: int = 1_000,
        codes_available: bool = False,
    ) -> None:
        self.rules, self.crash_batches, self.cache_size = rules, set(crash_batches), cache_size
        self.stores = [CheckpointStore(rules.short_hash if codes_available else "") for _ in range(workers)]
        self.shards = [self._new_shard(p) for p in range(PARTITION_COUNT)]
        self.rows: list[OutboxRow] = []
        self.message_count = self.batch_count = 0

    def _new_shard(self, partition: int) -> Shard:
        return Shard(
            partition, self.stores[partition % len(self.stores)], STEPS, PARTITION_COUNT, self.cache_size, secret=b"s"
        )

    def apply(self, *records: Record) -> None:
        """Apply records, one batch per shard."""
        for partition in dict.fromkeys(record.partition for record in records):
            self._apply_batch(partition, [record for record in records if record.partition == partition], 0)

    def advance(self, until: int) -> None:
        """Tick all shards to `until`."""
        for partition, shard in enumerate(self.shards):
            while (due := self.shards[partition].next_due()) is not None and due <= until:
                self._apply_batch(partition, [], until)
            if shard.checkpoint.clock < until:
                self._apply_batch(partition, [], until)

    def _apply_batch(self, partition: int, records: list[Record], tick: int) -> None:
        shard = self.shards[partition]
        shard.apply(records, tick, self.rules, None)
        if self.batch_count in self.crash_batches:
            shard = self.shards[partition] = self._new_shard(partition)
            shard.apply(records, tick, self.rules, None)
        self.batch_count += 1
        assert not shard.errors, shard.errors
        batch = WriteBatch()
        shard.stage(batch)
        self.stores[partition % len(self.stores)].commit(batch, ())
        self.rows += batch.outbox_rows
        for row in batch.outbox_rows:
            if row.stream == SHARD_MESSAGES:
                self.message_count += 1
                to_partition = partition_of(row.key, PARTITION_COUNT)
                self._apply_batch(
                    to_partition,
                    [
                        Record(
                            SHARD_MESSAGES, to_partition, self.message_count, shard.checkpoint.clock, row.key, row.body
                        )
                    ],
                    0,
                )

    def persons(self) -> dict[str, bytes]:
        """The encoded persons by key."""
        return {key: value for store in self.stores for (_, key), value in sorted(store.encoded_persons.items())}

    def person(self, key: str) -> Person:
        """The person with this key."""
        return codec.decode(self.persons()[key])
