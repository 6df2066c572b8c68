"""Re-run: the recorded turns of a shard once more, from the log, into an empty store: the same state, byte for byte.

A turn says which offsets were read, in which order, with which playbook and models, and to which moment the clock
ticked.
"""

from collections.abc import Callable, Sequence

from domain.effect import Row
from domain.model import Model, each_hash
from domain.record import Record
from domain.streams import SHARD_INPUT
from state.context import Step
from state.rules import Rules
from state.shard import Shard
from state.store import Batch, Store, Turn
from state.warmth import Warm, together


class RerunError(RuntimeError):
    """A turn did not end where it ended before: the log, the code or the playbook is not the one it was made with."""


def rerun(
    partition: int,
    turns: Sequence[Turn],
    fetch: Callable[[tuple[str, int], int, int], list[Record]],
    store: Store,
    steps: Sequence[Step],
    partitions: int,
    rules_of: Callable[[str], Rules],
    model_of: Callable[[str], Model | None],
    secret: bytes = b"",
    warmed: Callable[[Shard, Rules, Rules], Warm] = lambda shard, before, rules: {},
) -> list[Row]:
    """Apply the turns to `store` (an empty one); returns every effect, in order.

    `fetch(place, first, last)` reads the log; `rules_of` and `model_of` find playbooks and models by their hash.
    `secret` is the shop's: codes of coupons that are made up are made from it.
    `warmed(shard, before, rules)` finds again what was gathered from the log when a playbook was swapped in.
    """
    store.claim([partition], "rerun")
    shard = Shard(partition, store, steps, partitions, hot=10_000, secret=secret)
    rows: list[Row] = []
    before: Rules | None = None
    for turn in turns:
        records: list[Record] = []
        for stream, first, last in turn.runs:
            records += fetch((SHARD_INPUT[stream], partition), first, last)
        model, quintiles = each_hash(turn.model)
        rules = rules_of(turn.rules) if before is None or before.hash != turn.rules else before
        if before is not None and rules is not before:
            shard.warm = together(shard.warm, warmed(shard, before, rules), rules.remembered)
        before = rules
        shard.apply(records, turn.tick, rules, model_of(model) if model else None,
                    model_of(quintiles) if quintiles else None)
        batch = Batch()
        shard.stage(batch)
        store.commit(batch, [row.seq for row in store.outbox()])
        if shard.head.clock != turn.clock_after:
            raise RerunError(f"shard {partition}: the clock is {shard.head.clock} after a turn that ended at "
                             f"{turn.clock_after}; records of the turn: {turn.runs}")
        rows += batch.rows
    return rows
