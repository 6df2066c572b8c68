"""The learning flow: trains models on outcomes and publishes them to the log.

    outcomes ─▶ read ─▶ learn ─▶ publish ─▶ models
                          └─ weights and positions, one transaction

    python -m attimo run learning          or, inside a clone:  python -m bytewax.run flows.learning:flow

Each kind of model has its own learner. `propensity` (operators/learn.py) is published after every commit that changed
it, `rfm` (state/membership/quintiles.py) when a threshold moved noticeably.

The order is: commit, then publish. After a crash in between, the committed model is published again with the same
version. All learners and positions are one row, so uncommitted outcomes are read and learned again.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from connectors import metrics
from connectors.log.log import Log, LogError
from connectors.log.open import open_log
from connectors.settings import load
from domain import action as outcomes
from domain import model as models
from domain.failpoint import failpoint
from domain.model import Model
from domain.record import DECODE_ERRORS, MODELS, OUTCOMES, NewRecord, Record
from domain.settings import Settings
from flows import bytewax
from flows.bytewax import StopFlag
from operators.learn import Learner
from state.membership.quintiles import Quintiles
from state.playbook import rfm
from state.store.learner import LearnerStore

MAX_RECORDS_PER_POLL = 1_000
"""Outcomes per poll."""
POLL_TIMEOUT = 0.1
"""Longest sleep (seconds) of an idle learner; a new outcome ends it."""
COMMIT_INTERVAL = 0.2
"""Seconds between two commits while outcomes keep arriving."""
RETRY_DELAY = 0.5
"""Seconds until a failed append is retried."""

PROPENSITY = "propensity"
"""The kind of the model that predicts whether a session ends in an order."""

logger = structlog.get_logger()


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the learning dataflow. Run it once per deployment, in one process with one worker."""
    learner = Learning(settings or load({}))
    learning = Dataflow("learning")

    # Read: the outcomes of all partitions. An empty batch means that the log has no more now.
    ended = op.input("read", learning, OutcomeSource(learner))

    # Learn: predict, measure and learn each outcome. A commit returns the models to publish.
    learned = op.stateful_batch("learn", ended, lambda _: LearnLogic(learner))

    # Publish: append the models to the log, where the on-site flow reads them.
    op.output("publish", learned, ModelSink(learner))
    return learning


def run(settings: Settings) -> None:
    """Learn until SIGTERM or SIGINT."""
    bytewax.handle_stop_signals()
    metrics.serve_metrics(metrics.metrics_port(settings, "learning"))
    cli_main(flow(settings))


def now_ms() -> int:
    """The wall clock in ms. Only the source and the sink of a flow read it."""
    return time.time_ns() // 1_000_000


class Learning:
    """Learners, store and log; opened when the flow starts, not when it is wired."""

    log: Log
    store: LearnerStore
    learner: Learner
    quintiles: Quintiles

    def __init__(self, settings: Settings, clock: Callable[[], int] = now_ms) -> None:
        self.settings = settings
        self.clock = clock
        self.positions: dict[int, int] = {}
        self.unreadable = 0
        self._dirty = self._model_changed = False
        self._committed_at = 0.0
        self._last_published: Model | None = None

    def open(self) -> None:
        """Open log and store, and continue at the committed positions."""
        self.log = open_log(self.settings)
        self.store = LearnerStore(Path(self.settings.data) / "store" / "learner.db", self.settings.log_sync)
        self.learner = Learner(self.store.learners.get(PROPENSITY))  # type: ignore[arg-type] # its version is checked
        self.quintiles = Quintiles(self.store.learners.get(rfm.MODEL_KIND))
        self.positions = dict(self.store.positions)
        if self.learner.examples:
            self._set_last_published(self._build_model(PROPENSITY))

    def learn(self, records: list[Record]) -> None:
        """Learn these outcomes; skip and count those that cannot be decoded."""
        for record in records:
            if record.offset <= self.positions.get(record.partition, -1):
                continue
            self.positions[record.partition] = record.offset
            self._dirty = True
            try:
                outcome = outcomes.decode_outcome(record.value)
            except DECODE_ERRORS as error:
                self.unreadable += 1
                logger.warning(
                    "cannot decode outcome", partition=record.partition, offset=record.offset, error=str(error)
                )
                continue
            if outcome.kind == PROPENSITY:
                self._model_changed |= self.learner.learn(outcome)
            elif outcome.kind == rfm.MODEL_KIND:
                self.quintiles.learn(outcome)

    def should_commit(self, idle: bool) -> bool:
        """Whether to commit now: the log has no more outcomes, or COMMIT_INTERVAL has passed."""
        return self._dirty and (idle or time.monotonic() - self._committed_at >= COMMIT_INTERVAL)

    def commit(self) -> list[Model]:
        """Commit and return the models to publish: changed ones, and those committed but never published."""
        if self._dirty:
            versions = dict(self.store.versions)
            changes = ((PROPENSITY, self._model_changed), (rfm.MODEL_KIND, self.quintiles.update_published()))
            for kind, changed in changes:
                if changed:
                    versions[kind] = versions.get(kind, 0) + 1
            learners = {PROPENSITY: self.learner.to_dict(), rfm.MODEL_KIND: self.quintiles.to_dict()}
            self.store.commit(learners, self.positions, versions)
            failpoint("learning:after_commit")
            self._dirty = self._model_changed = False
            self._committed_at = time.monotonic()
        return [self._build_model(kind) for kind in sorted(self.store.unpublished)]

    def _build_model(self, kind: str) -> Model:
        """The last committed model of this kind, as published."""
        version = self.store.versions[kind]
        if kind == rfm.MODEL_KIND:
            return self.quintiles.to_model(version, self.clock())
        return self.learner.to_model(version, self.clock())

    def publish(self, model: Model) -> None:
        """Append the model to the log, retrying until it succeeds, and mark it as published."""
        outgoing = NewRecord(MODELS, model.kind.encode(), models.encode_model(model))
        while True:
            try:
                self.log.append([outgoing])
                break
            except LogError as error:
                logger.warning("cannot append model", error=str(error))
                if StopFlag.requested:
                    return  # the store has it as unpublished: the next start appends it
                time.sleep(RETRY_DELAY)
        failpoint("learning:after_publish")
        self.store.confirm_published(model.kind, model.version)
        self._set_last_published(model)

    def _set_last_published(self, model: Model) -> None:
        if model.kind == PROPENSITY:
            self._last_published = model
            metrics.set_model_metrics(model)

    def update_gauges(self, lag: int) -> None:
        """Update the gauges of lag and model age."""
        metrics.LAG_RECORDS.labels(OUTCOMES).set(lag)
        if self._last_published is not None:
            metrics.MODEL_AGE.set(max(0, self.clock() - self._last_published.at) / 1000)

    def close(self) -> None:
        """Close store and log."""
        self.store.close()
        self.log.close()


class _OutcomeSourcePartition(StatelessSourcePartition[tuple[str, list[Record]]]):
    def __init__(self, learning: Learning) -> None:
        self.learning = learning
        learning.open()
        stream_partitions = [(OUTCOMES, partition) for partition in range(learning.settings.partitions)]
        start = {(OUTCOMES, partition): offset for partition, offset in learning.positions.items()}
        self.reader = learning.log.reader(stream_partitions, start)
        self.starting = self.idle_pending = True
        self.gauges_at = 0.0

    def next_batch(self) -> list[tuple[str, list[Record]]]:
        if StopFlag.requested:
            raise StopIteration
        if self.starting:  # publish models that were committed, but perhaps not published
            self.starting = False
            return [("learner", [])]
        records = self.reader.poll(MAX_RECORDS_PER_POLL, POLL_TIMEOUT)
        if time.monotonic() - self.gauges_at > 1:
            self.gauges_at = time.monotonic()
            self.learning.update_gauges(self.reader.lag().get(OUTCOMES, 0))
        if not records and not self.idle_pending:
            return []
        self.idle_pending = bool(records)
        return [("learner", records)]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC)  # at once: the wait is inside next_batch

    def close(self) -> None:
        self.reader.close()


class OutcomeSource(DynamicSource[tuple[str, list[Record]]]):
    """The stream `outcomes`, read by one worker."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _OutcomeSourcePartition:
        if worker_count > 1:
            raise ValueError(f"learning needs exactly one worker, not {worker_count}")
        return _OutcomeSourcePartition(self.learning)


class LearnLogic(op.StatefulBatchLogic[list[Record], Model, tuple[str, int]]):
    """The keyed step: learns, and returns the models of each commit."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def on_batch(self, values: list[list[Record]]) -> tuple[list[Model], bool]:
        for records in values:
            self.learning.learn(records)
        idle = not values[-1]
        return (self.learning.commit() if idle or self.learning.should_commit(idle) else []), False

    def on_eof(self) -> tuple[list[Model], bool]:
        return self.learning.commit(), False

    def snapshot(self) -> tuple[str, int]:
        return ("learner", 1)


class _ModelSinkPartition(StatelessSinkPartition[tuple[str, Model]]):
    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def write_batch(self, items: list[tuple[str, Model]]) -> None:
        newest = {model.kind: model for _, model in items}
        for model in newest.values():
            self.learning.publish(model)

    def close(self) -> None:
        self.learning.close()


class ModelSink(DynamicSink[tuple[str, Model]]):
    """Appends to the stream `models`; of several models of one kind only the last."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _ModelSinkPartition:
        return _ModelSinkPartition(self.learning)
