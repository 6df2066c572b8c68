"""Replay: apply the batch records of a shard again, from the log into an empty store; the state is equal byte for byte.

A batch record contains the offsets in reading order, the playbook and models, and the time of the tick.
"""

from collections.abc import Callable, Sequence

from domain.action import OutboxRow
from domain.model import Model, split_hashes
from domain.record import SHARD_INPUT_STREAMS, Record
from state.context import StepFunction
from state.playbook.compiled import Rules
from state.shard.backfill import BackfilledCounters, merge_pending
from state.shard.shard import Shard
from state.store.store import BatchRecord, Store, WriteBatch


class ReplayError(RuntimeError):
    """A batch ended differently: the log, the code or the playbook differs from the original."""


def replay(
    partition: int,
    batch_records: Sequence[BatchRecord],
    fetch: Callable[[tuple[str, int], int, int], list[Record]],
    store: Store,
    steps: Sequence[StepFunction],
    partitions: int,
    load_rules: Callable[[str], Rules],
    load_model: Callable[[str], Model | None],
    secret: bytes = b"",
    backfilled: Callable[[Shard, Rules, Rules], BackfilledCounters] = lambda shard, before, rules: {},
) -> list[OutboxRow]:
    """Apply the batch records to an empty `store`; return every effect, in order.

    `fetch((stream, partition), first, last)` reads the log. `load_rules` and `load_model` return playbooks and models
    by hash. `secret` is the shop's secret, from which coupon codes are generated. `backfilled(shard, before, rules)`
    returns the counters that were backfilled when a playbook went live.
    """
    store.claim([partition], "replay")
    shard = Shard(partition, store, steps, partitions, cache_size=10_000, secret=secret)
    rows: list[OutboxRow] = []
    before: Rules | None = None
    for record in batch_records:
        inputs: list[Record] = []
        for stream, first, last in record.offset_ranges:
            inputs += fetch((SHARD_INPUT_STREAMS[stream], partition), first, last)
        model, quintiles = split_hashes(record.model_hash)
        rules = load_rules(record.playbook_hash) if before is None or before.hash != record.playbook_hash else before
        if before is not None and rules is not before:
            shard.backfilled = merge_pending(shard.backfilled, backfilled(shard, before, rules), rules.counter_specs)
        before = rules
        shard.apply(
            inputs,
            record.tick,
            rules,
            load_model(model) if model else None,
            load_model(quintiles) if quintiles else None,
        )
        batch = WriteBatch()
        shard.stage(batch)
        store.commit(batch, [row.seq for row in store.outbox()])
        if shard.checkpoint.clock != record.clock_after:
            raise ReplayError(
                f"shard {partition}: clock {shard.checkpoint.clock} after a batch that ended at "
                f"{record.clock_after}; offsets of the batch: {record.offset_ranges}"
            )
        rows += batch.outbox_rows
    return rows
