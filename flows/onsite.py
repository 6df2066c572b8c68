"""The on-site flow: applies events to people and decides what they see next.

    clicks, carts, purchases, people, shard-messages ─┐
                                     models, playbook ─┴▶ read ─▶ shards ─▶ publish
                 Redis, actions, messages, shard-messages, outcomes, dead-letters ◀─┘

Bytewax does the following:

- partitioned input: every worker reads its own partitions of the log;
- keyed shards: a batch goes to the worker that owns its shard, in order, also between threads and processes;
- output: it hands the batches of one read to the worker in one call;
- scaling: independent processes (`--worker i/n`), threads (`bytewax.run -w n`) or a cluster (`-a`), with the same
  answers.

Everything else happens in the shard (`state/shard/shard.py`): it applies each event to one person with the steps of
`operators/steps.py`, fires timers, and stages what changed. The worker (`flows/worker.py`) commits this to the store,
with the positions in the log, and publishes. Recovery is the store's: a restarted worker goes on from its positions.
Bytewax's recovery may be on or off; it restores nothing that the store does not have.

python -m attimo run onsite            or, inside a clone:  python -m bytewax.run flows.onsite:flow
"""

from collections.abc import Sequence

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.run import cli_main

from connectors import metrics
from connectors.settings import load
from domain.settings import Settings
from flows import bytewax
from flows.bytewax import LogSource, RouteToShard, ShardSink, Workers
from flows.playbook_reload import require_playbook
from operators.steps import STEPS
from state.context import StepFunction


def flow(
    settings: Settings | None = None, steps: Sequence[StepFunction] = STEPS, share: tuple[int, int] = (0, 1)
) -> Dataflow:
    """Wire the on-site dataflow. `share` (i, n) takes the partitions p with p mod n = i."""
    workers = Workers(settings or load({}), steps, share)
    onsite = Dataflow("onsite")

    # Partitioned input: the log, and ticks of the clock, as one batch per shard.
    batches = op.input("read", onsite, LogSource(workers))

    # Keyed shards: each batch goes to the worker that owns the shard.
    routed = op.stateful_batch("shards", batches, lambda _: RouteToShard())

    # Output: apply the steps, one commit for all changed shards, then Redis and the log.
    op.output("publish", routed, ShardSink(workers))
    return onsite


def run(settings: Settings, share: tuple[int, int] = (0, 1)) -> None:
    """Run this worker until SIGTERM or SIGINT. Raise PlaybookError if there is no valid playbook to start with."""
    bytewax.handle_stop_signals()
    require_playbook(settings)  # before the flow is built: Bytewax would wrap the error
    metrics.serve_metrics(metrics.metrics_port(settings, "onsite", share[0]))
    try:
        cli_main(flow(settings, share=share))
    except BytewaxRuntimeError as wrapped:
        raise root_cause(wrapped) from wrapped


def root_cause(error: BaseException) -> BaseException:
    """Return the original error that Bytewax wrapped.

    >>> outer = BytewaxRuntimeError("error building")
    >>> outer.__cause__ = ValueError("port: taken")
    >>> root_cause(outer)
    ValueError('port: taken')
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return error
