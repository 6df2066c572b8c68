"""On site: what a shopper does now decides what they see next.

    clicks carts purchases people letters ─▶ read ─▶ shards ─▶ publish ─▶ Redis, actions, letters, outcomes, rejects
                        models, playbook ────┘

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
from flows import stopping
from flows.adapter import FromLog, Shards, ToOutside
from flows.first_playbook import begin
from operators import (
    advance_workflows,
    choose_actions,
    fold_profile,
    match_segments,
    resolve_identity,
    respect_limits,
    score,
)
from state.context import Step

STEPS: Sequence[Step] = (
    resolve_identity.step,   # who is this? one person, under however many ids
    fold_profile.step,       # what do we now know of them?
    score.step,              # what does the model make of it?
    match_segments.step,     # where does that put them?
    advance_workflows.step,  # how far are they on the ways they are going with us?
    choose_actions.step,     # what would we say?
    respect_limits.step,     # and do we say it, or hold our tongue?
)


def flow(settings: Settings | None = None, steps: Sequence[Step] = STEPS, share: tuple[int, int] = (0, 1)) -> Dataflow:
    """Wire the on-site dataflow. `share` (i, n) takes the partitions p with p mod n = i."""
    settings = settings or load({})
    onsite = Dataflow("onsite")

    # What happened, and what time it is: whole batches by shard, as bytes.
    work = op.input("read", onsite, FromLog(settings, steps, share))

    # One shard is one ordered history of many persons; each record goes through the steps above.
    done = op.stateful_batch("shards", work, lambda _: Shards(settings, steps))

    # One commit for all of it, and only then the outside.
    op.output("publish", done, ToOutside(settings, steps))
    return onsite


def run(settings: Settings, share: tuple[int, int] = (0, 1)) -> None:
    """Run this worker until SIGTERM or SIGINT. PlaybookError when it has none to begin with."""
    stopping.on_signals()
    begin(settings)  # out here: what goes wrong while a flow is built brings Bytewax down in its own, longer words
    metrics.serve(metrics.port_of(settings, "onsite", share[0]))
    try:
        cli_main(flow(settings, share=share))
    except BytewaxRuntimeError as wrapped:
        raise root_of(wrapped) from wrapped


def root_of(error: BaseException) -> BaseException:
    """What Bytewax wrapped: the error that somebody can do something about.

    >>> outer = BytewaxRuntimeError("error building")
    >>> outer.__cause__ = ValueError("port: taken")
    >>> root_of(outer)
    ValueError('port: taken')
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return error
