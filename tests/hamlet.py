"""A hamlet for tests: a few shards in memory, shared among workers, that may be killed at any moment.

    hamlet = Hamlet(rules, workers=3); hamlet.happens(record); hamlet.passes(until)

Letters are delivered at once, so that the same history is the same history however it is shared.
"""

from collections.abc import Sequence

from domain.effect import Row
from domain.partition import partition_of
from domain.record import Record
from domain.streams import LETTERS
from flows.onsite import STEPS
from state import codec
from state.person import Person
from state.rules import Rules
from state.shard import Shard
from state.store import Batch, Head
from state.virtual import Scratch

PARTITIONS = 6


class Kept(Scratch):
    """A store that keeps where its shards stand, so that they can begin anew."""

    def __init__(self, stocked: str = "") -> None:
        super().__init__(stocked)
        self.heads: dict[int, Head] = {}
        self.everybody: dict[tuple[int, str], bytes] = {}

    def head(self, partition: int) -> Head:
        return self.heads.get(partition, Head())

    def commit(self, batch: Batch, sent: Sequence[int]) -> int:
        self.heads.update(batch.heads)
        self.everybody.update({key: value for key, value in batch.persons.items() if value is not None})
        return super().commit(batch, sent)


class Hamlet:
    """`deaths` are the turns (counted from 0) in which the worker dies before it has committed.

    `stocked`: desks of coupons have codes from the beginning, as in a rehearsal.
    """

    def __init__(self, rules: Rules, workers: int = 1, deaths: Sequence[int] = (), hot: int = 1_000,
                 stocked: bool = False) -> None:
        self.rules, self.deaths, self.hot = rules, set(deaths), hot
        self.stores = [Kept(rules.short if stocked else "") for _ in range(workers)]
        self.shards = [self._shard(p) for p in range(PARTITIONS)]
        self.rows: list[Row] = []
        self.letters = self.turns = 0

    def _shard(self, partition: int) -> Shard:
        return Shard(partition, self.stores[partition % len(self.stores)], STEPS, PARTITIONS, self.hot, secret=b"s")

    def happens(self, *records: Record) -> None:
        """Records come in, in batches by shard."""
        for partition in dict.fromkeys(record.partition for record in records):
            self._turn(partition, [record for record in records if record.partition == partition], 0)

    def passes(self, until: int) -> None:
        """Time passes; nothing more is recorded before `until`."""
        for partition, shard in enumerate(self.shards):
            while (due := self.shards[partition].next_due()) is not None and due <= until:
                self._turn(partition, [], until)
            if shard.head.clock < until:
                self._turn(partition, [], until)

    def _turn(self, partition: int, records: list[Record], tick: int) -> None:
        shard = self.shards[partition]
        shard.apply(records, tick, self.rules, None)
        if self.turns in self.deaths:
            shard = self.shards[partition] = self._shard(partition)
            shard.apply(records, tick, self.rules, None)
        self.turns += 1
        assert not shard.bugs, shard.bugs
        batch = Batch()
        shard.stage(batch)
        self.stores[partition % len(self.stores)].commit(batch, ())
        self.rows += batch.rows
        for row in batch.rows:
            if row.stream == LETTERS:
                self.letters += 1
                there = partition_of(row.key, PARTITIONS)
                self._turn(there, [Record(LETTERS, there, self.letters, shard.head.clock, row.key, row.body)], 0)

    def people(self) -> dict[str, bytes]:
        """Everybody, as they are kept."""
        return {key: value for store in self.stores for (_, key), value in sorted(store.everybody.items())}

    def person(self, key: str) -> Person:
        """Somebody."""
        return codec.decode(self.people()[key])
