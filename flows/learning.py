"""Learning: what became of a visit changes what we make of the next one; every order moves the fifths of all customers.

    outcomes ─▶ read ─▶ learn ─▶ publish ─▶ models
                          └─ weights and positions, one transaction

    python -m attimo run learning          or, inside a clone:  python -m bytewax.run flows.learning:flow

Each kind of model has a learner of its own: `propensity` (operators/learn.py) is published whenever something was
learned, `rfm` (state/quintiles.py) when a cut moved noticeably.

Commit first, then publish. After a crash between the two the committed model is published again, as the same version.
What was learned and not committed is read and learned again: all learners and positions are one row.
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
from connectors.log import Log, LogError
from connectors.open_log import open_log
from connectors.settings import load
from domain import model as models
from domain import outcome as outcomes
from domain.failpoint import failpoint
from domain.model import Model
from domain.record import UNREADABLE, Outgoing, Record
from domain.settings import Settings
from domain.streams import MODELS, OUTCOMES
from flows import stopping
from flows.stopping import Stopping
from operators.learn import Learner
from state import rfm
from state.learner_store import LearnerStore
from state.quintiles import Quintiles

LIMIT = 1_000
"""Outcomes read at a time."""
WAIT = 0.1
"""Seconds a quiet learner sleeps; a new outcome wakes it."""
EVERY = 0.2
"""Seconds between two publications while outcomes keep coming."""
AGAIN = 0.5
"""Seconds until a log that refused a model is asked again."""

PROPENSITY = "propensity"
"""The kind of model that says how likely a visit ends in an order."""

logger = structlog.get_logger()


def flow(settings: Settings | None = None) -> Dataflow:
    """Wire the learning dataflow. There is one learner in a deployment: run it in one process, with one worker."""
    learner = Learning(settings or load({}))
    learning = Dataflow("learning")

    # How visits ended, from all partitions, as they come; an empty batch says that nothing more is there now.
    ended = op.input("read", learning, Outcomes(learner))

    # Each one is predicted, measured and learned. A model comes out with every commit.
    learned = op.stateful_batch("learn", ended, lambda _: Learn(learner))

    # The model goes to the log, where the on-site flow finds it.
    op.output("publish", learned, Models(learner))
    return learning


def run(settings: Settings) -> None:
    """Learn until SIGTERM or SIGINT."""
    stopping.on_signals()
    metrics.serve(metrics.port_of(settings, "learning"))
    cli_main(flow(settings))


def wall() -> int:
    """The wall clock in ms. Only the edge of the flow asks for it."""
    return time.time_ns() // 1_000_000


class Learning:
    """The learners, their store and their log; opened when the flow starts, not when it is wired."""

    log: Log
    store: LearnerStore
    learner: Learner
    fifths: Quintiles

    def __init__(self, settings: Settings, clock: Callable[[], int] = wall) -> None:
        self.settings = settings
        self.wall = clock
        self.positions: dict[int, int] = {}
        self.unreadable = 0
        self._dirty = self._learned = False
        self._committed_at = 0.0
        self._last: Model | None = None

    def open(self) -> None:
        """Open log and store, and stand where the last commit stood."""
        self.log = open_log(self.settings)
        self.store = LearnerStore(Path(self.settings.data) / "store" / "learner.db", self.settings.log_sync)
        self.learner = Learner(self.store.learners.get(PROPENSITY))  # type: ignore[arg-type] # its version is checked
        self.fifths = Quintiles(self.store.learners.get(rfm.KIND))
        self.positions = dict(self.store.positions)
        if self.learner.examples:
            self._show(self._model(PROPENSITY))

    def learn(self, records: list[Record]) -> None:
        """Learn these outcomes; what cannot be read is passed over and counted."""
        for record in records:
            if record.offset <= self.positions.get(record.partition, -1):
                continue
            self.positions[record.partition] = record.offset
            self._dirty = True
            try:
                outcome = outcomes.decode(record.value)
            except UNREADABLE as wrong:
                self.unreadable += 1
                logger.warning("an outcome cannot be read", partition=record.partition, offset=record.offset,
                               why=str(wrong))
                continue
            if outcome.kind == PROPENSITY:
                self._learned |= self.learner.learn(outcome)
            elif outcome.kind == rfm.KIND:
                self.fifths.learn(outcome)

    def due(self, quiet: bool) -> bool:
        """Whether it is time to commit: nothing more is there, or enough time has passed."""
        return self._dirty and (quiet or time.monotonic() - self._committed_at >= EVERY)

    def commit(self) -> list[Model]:
        """Keep what was learned, and say what is to be published: new models, and those that never got out."""
        if self._dirty:
            versions = dict(self.store.versions)
            for kind, news in ((PROPENSITY, self._learned), (rfm.KIND, self.fifths.settle())):
                if news:
                    versions[kind] = versions.get(kind, 0) + 1
            learners = {PROPENSITY: self.learner.plain(), rfm.KIND: self.fifths.plain()}
            self.store.commit(learners, self.positions, versions)
            failpoint("learning:after_commit")
            self._dirty = self._learned = False
            self._committed_at = time.monotonic()
        return [self._model(kind) for kind in sorted(self.store.unpublished)]

    def _model(self, kind: str) -> Model:
        """What was last committed of this kind, as it travels."""
        version = self.store.versions[kind]
        if kind == rfm.KIND:
            return self.fifths.model(version, self.wall())
        return self.learner.model(version, self.wall())

    def publish(self, model: Model) -> None:
        """Append the model to the log, as long as it takes, and note that it is there."""
        outgoing = Outgoing(MODELS, model.kind.encode(), models.encode(model))
        while True:
            try:
                self.log.append([outgoing])
                break
            except LogError as wrong:
                logger.warning("the log does not take the model", why=str(wrong))
                if Stopping.now:
                    return  # it is committed as unpublished: the next start sends it
                time.sleep(AGAIN)
        failpoint("learning:after_publish")
        self.store.note(model.kind, model.version)
        self._show(model)

    def _show(self, model: Model) -> None:
        if model.kind == PROPENSITY:
            self._last = model
            metrics.learned(model)

    def look(self, lag: int) -> None:
        """Show how old the model is, and how much is left to learn."""
        metrics.LAG.labels(OUTCOMES).set(lag)
        if self._last is not None:
            metrics.MODEL_AGE.set(max(0, self.wall() - self._last.at) / 1000)

    def close(self) -> None:
        """Let go of store and log."""
        self.store.close()
        self.log.close()


class _Reading(StatelessSourcePartition[tuple[str, list[Record]]]):
    def __init__(self, learning: Learning) -> None:
        self.learning = learning
        learning.open()
        places = [(OUTCOMES, partition) for partition in range(learning.settings.partitions)]
        start = {(OUTCOMES, partition): offset for partition, offset in learning.positions.items()}
        self.reader = learning.log.reader(places, start)
        self.fresh = self.waiting = True
        self.looked_at = 0.0

    def next_batch(self) -> list[tuple[str, list[Record]]]:
        if Stopping.now:
            raise StopIteration
        if self.fresh:  # what was committed and perhaps not published comes first
            self.fresh = False
            return [("learner", [])]
        records = self.reader.poll(LIMIT, WAIT)
        if time.monotonic() - self.looked_at > 1:
            self.looked_at = time.monotonic()
            self.learning.look(self.reader.lag().get(OUTCOMES, 0))
        if not records and not self.waiting:
            return []
        self.waiting = bool(records)
        return [("learner", records)]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC)  # at once: the wait is inside next_batch

    def close(self) -> None:
        self.reader.close()


class Outcomes(DynamicSource[tuple[str, list[Record]]]):
    """The whole stream `outcomes`, read by one worker."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Reading:
        if worker_count > 1:
            raise ValueError(f"learning runs with one worker, not with {worker_count}: there is one learner")
        return _Reading(self.learning)


class Learn(op.StatefulBatchLogic[list[Record], Model, tuple[str, int]]):
    """The keyed step: learns, and hands out the model that goes with each commit."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def on_batch(self, values: list[list[Record]]) -> tuple[list[Model], bool]:
        for records in values:
            self.learning.learn(records)
        quiet = not values[-1]
        return (self.learning.commit() if quiet or self.learning.due(quiet) else []), False

    def on_eof(self) -> tuple[list[Model], bool]:
        return self.learning.commit(), False

    def snapshot(self) -> tuple[str, int]:
        return ("learner", 1)


class _Publishing(StatelessSinkPartition[tuple[str, Model]]):
    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def write_batch(self, items: list[tuple[str, Model]]) -> None:
        newest = {model.kind: model for _, model in items}
        for model in newest.values():
            self.learning.publish(model)

    def close(self) -> None:
        self.learning.close()


class Models(DynamicSink[tuple[str, Model]]):
    """The stream `models`; of several models of a kind at once the last one."""

    def __init__(self, learning: Learning) -> None:
        self.learning = learning

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Publishing:
        return _Publishing(self.learning)
