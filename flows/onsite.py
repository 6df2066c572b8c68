"""The on-site flow: applies events to people and decides what they see next.

    clicks, carts, purchases, people, shard-messages ─┐
                                     models, playbook ─┴▶ read ─▶ shards ─▶ publish
                 Redis, actions, messages, shard-messages, outcomes, dead-letters ◀─┘

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
from flows.bytewax import LogSource, PublishSink, ShardLogic
from flows.playbook_reload import require_playbook
from operators import (
    advance_workflows,
    decide,
    match_segments,
    resolve_identity,
    score,
    select_campaigns,
    update_profile,
)
from state.context import StepFunction

STEPS: Sequence[StepFunction] = (
    resolve_identity.step,  # merge ids that belong to one person
    update_profile.step,  # update the profile, the session and the counters
    score.step,  # score the session with the model
    match_segments.step,  # enter and exit segments
    advance_workflows.step,  # start, advance and end workflow runs
    select_campaigns.step,  # select candidate campaigns
    decide.step,  # send, preload or suppress them
)


def flow(
    settings: Settings | None = None, steps: Sequence[StepFunction] = STEPS, share: tuple[int, int] = (0, 1)
) -> Dataflow:
    """Wire the on-site dataflow. `share` (i, n) takes the partitions p with p mod n = i."""
    settings = settings or load({})
    onsite = Dataflow("onsite")

    # Read: batches of encoded records and ticks, one per shard.
    work = op.input("read", onsite, LogSource(settings, steps, share))

    # Apply: a shard is the ordered history of many people; each record passes through the steps above.
    done = op.stateful_batch("shards", work, lambda _: ShardLogic(settings, steps))

    # Publish: one commit for all shards, then Redis and the log.
    op.output("publish", done, PublishSink(settings, steps))
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
