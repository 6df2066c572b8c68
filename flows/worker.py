"""The worker of the on-site flow: its state and its three phases. `flows/bytewax.py` connects them to Bytewax.

Worker.read()     the log, the models, the playbook  ->  one batch per shard
Worker.apply()    one shard's batch                  ->  staged in memory
Worker.publish()  one commit for all changed shards, then Redis and the log
"""

import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from connectors import metrics
from connectors.log.log import Log, Reader
from connectors.log.open import open_log
from connectors.log.sqlite_checkpoint import WalCheckpointer
from connectors.redis import server
from connectors.redis.publisher import Publisher
from connectors.settings import secret_of
from domain import model as models
from domain.action import OutboxRow
from domain.failpoint import failpoint
from domain.model import Model
from domain.record import DECODE_ERRORS, MODELS, PUBLIC_STREAMS, SHARD_INPUT_STREAMS, Record
from domain.settings import Settings
from flows.playbook_reload import LivePlaybook
from state.context import StepFunction
from state.playbook import rfm
from state.shard.counts import MisroutedMonitor, ShardCounts
from state.shard.shard import NO_TICK, TIMERS_PER_BATCH, Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch

MAX_RECORDS_PER_POLL = 1_000
"""Records per poll."""
POLL_TIMEOUT = 0.005
"""Longest sleep (seconds) of a worker between two looks at the clock."""
FLUSH_INTERVAL = 0.005
"""Longest delay (seconds) of buffered log records while the worker has more to do."""
HOUSEKEEPING_INTERVAL = 0.5
"""Seconds between two rounds of housekeeping."""
MAX_TIMER_SHARDS = 4
"""Shards whose timers fire between two polls, the longest overdue first, so that events do not wait for timers.
A poll with many records allows more shards (half as many timers as records), so that timers do not pile up."""
IDLE_READS = 1_000
"""Empty polls in a row (a few seconds) after which a full garbage collection is affordable."""
BACKFILL_EVERY_READS = 10
"""Polls between two backfill steps of a busy worker."""
REMOTE_TICK_INTERVAL_MS = 250
"""Milliseconds between two ticks for shards of other processes."""
PRUNE_INTERVAL = 60.0
"""Seconds between two deletions of expired batch records."""
DAY_MS = 86_400_000
PROPENSITY = "propensity"
"""The kind of the model that predicts whether a session ends in an order. The other kind holds the RFM quintiles."""

logger = structlog.get_logger()
ShardBatch = tuple[int, list[Record], int]
"""(partition, records in order, tick, which is a time in ms, 0 or NO_TICK): plain data that crosses processes."""


def shard_key(partition: int) -> str:
    """The Bytewax key of a shard.

    >>> shard_key(7)
    's07'
    """
    return f"s{partition:02d}"


def store_path(settings: Settings) -> Path:
    """The file of the shard store."""
    return Path(settings.data) / "store" / "store.db"


def now_ms() -> int:
    """The wall clock in ms. Only the source and the sink of a flow read it."""
    return time.time_ns() // 1_000_000


class Worker:
    """Shards, store, log, Redis, playbook and models of one worker thread."""

    def __init__(self, settings: Settings, steps: Sequence[StepFunction], clock: Callable[[], int] = now_ms) -> None:
        self.settings = settings
        self.steps = steps
        self.clock = clock
        self.log: Log = open_log(settings)
        self.checkpointer = WalCheckpointer()
        self.store = SqliteStore(
            store_path(settings), settings.partitions, settings.log_sync, checkpointer=self.checkpointer
        )
        self.publisher = Publisher(self.log, server.redis_url(settings), settings.shop, clock, FLUSH_INTERVAL)
        self.shards: dict[int, Shard] = {}
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.secret = secret_of(settings).encode()
        self.playbook = LivePlaybook(settings, self.log, self.store, self.secret)
        self.model = load_pinned_model(settings) or self._last_live_model(PROPENSITY)
        if self.model is not None:
            metrics.set_model_metrics(self.model)
        self.quintiles = self._last_live_model(rfm.MODEL_KIND)
        self.counts = ShardCounts()
        self.misrouted_monitor = MisroutedMonitor()
        self._dirty: dict[int, None] = {}
        self._wakeups: dict[int, int] = {}
        self._reevaluating: dict[int, None] = {}
        self._idle_reads = self._read_count = 0
        self._housekeeping_at = self._prune_at = 0.0
        self._remote_tick_at = 0
        self._retired = self._backfilling = False
        self._ticking: frozenset[int] = frozenset()
        self._latest_clock = 0  # no shard's clock is later

    def claim_partitions(self, partitions: Sequence[int]) -> None:
        """Take ownership of these shards: load their checkpoints and publish their outbox."""
        fresh = [p for p in partitions if p not in self.shards]
        if not fresh:
            return
        self.store.claim([*self.shards, *fresh], self.owner)
        hot = max(100, self.settings.person_cache_size // max(1, len(self.shards) + len(fresh)))
        for partition in fresh:
            self.shards[partition] = Shard(
                partition, self.store, self.steps, self.settings.partitions, hot, self.counts, self.secret
            )
            self._latest_clock = max(self._latest_clock, self.shards[partition].checkpoint.clock)
            self.playbook.resume_backfill(self.shards[partition])
            self._schedule_wakeup(partition)
            self._reevaluating[partition] = None
        self.publisher.publish(self.store.outbox())

    def _schedule_wakeup(self, partition: int) -> None:
        """Set the time of the shard's next timer; none during a history import, where records set the clock."""
        shard = self.shards[partition]
        if shard.checkpoint.reevaluated_to is not None:
            self._reevaluating[partition] = None
        elif partition in self._reevaluating and self.playbook.reevaluated(shard):
            del self._reevaluating[partition]
        due = None if shard.checkpoint.history_reached else shard.next_due()
        if due is None:
            self._wakeups.pop(partition, None)
        else:
            self._wakeups[partition] = due

    # -- read --------------------------------------------------------------------------------------------------

    def reader(self, partitions: Sequence[int]) -> Reader:
        """Return a reader of all input streams of these shards, from their checkpoints on."""
        stream_partitions = [(stream, p) for stream in SHARD_INPUT_STREAMS for p in partitions]
        checkpoints = {
            p: self.shards[p].checkpoint if p in self.shards else self.store.shard_checkpoint(p) for p in partitions
        }
        start = {
            (stream, p): checkpoints[p].positions[stream]
            for stream, p in stream_partitions
            if stream in checkpoints[p].positions
        }
        history = {
            (stream, p): checkpoints[p].history_reached[stream]
            for stream, p in stream_partitions
            if stream in checkpoints[p].history_reached
        }
        return self.log.reader([*stream_partitions, (MODELS, 0)], start, history)

    def read(self, reader: Reader, partitions: Sequence[int]) -> list[tuple[str, ShardBatch]]:
        """Return the batches to apply now; sleep until a record arrives or a timer is due."""
        soonest = min(self._wakeups.values(), default=None)
        wait = POLL_TIMEOUT
        if soonest is not None:
            wait = min(POLL_TIMEOUT, max(0.0, (soonest - self.clock()) / 1000))
        if self._reevaluating or self.playbook.backfilling:
            wait = 0.0
        records = reader.poll(MAX_RECORDS_PER_POLL, 0.0 if self.publisher.has_buffered else wait)
        if self.publisher.flush_due:
            self.publisher.flush()
        if not records and self.publisher.has_buffered:  # no records: flush instead of waiting
            self.publisher.flush()
            records = reader.poll(MAX_RECORDS_PER_POLL, wait)
        work: dict[int, list[Record]] = {}
        for record in records:
            if record.stream == MODELS:
                self._load_model(record)
            elif (batch := work.get(record.partition)) is not None:
                batch.append(record)
            else:
                work[record.partition] = [record]
        now = reader.watermark()
        ticks = self._ticks(reader, partitions, now, soonest, MAX_TIMER_SHARDS + len(records) // (2 * TIMERS_PER_BATCH))
        self.publisher.retry_redis()
        self._idle_reads = 0 if records else self._idle_reads + 1
        if self._may_backfill(bool(records)) and self.playbook.backfill_step(self.shards):
            self._reevaluating.update(dict.fromkeys(self.shards))
        self._read_count += 1
        if (monotonic := time.monotonic()) >= self._housekeeping_at:
            self._housekeeping_at = monotonic + HOUSEKEEPING_INTERVAL
            self._housekeeping(reader)
        if work or ticks:
            return [
                (shard_key(p), (p, work.get(p, []), ticks.get(p) or self._default_tick(p))) for p in {**work, **ticks}
            ]
        return []

    def _may_backfill(self, busy: bool) -> bool:
        """Whether to run a backfill step now.

        All shards tick first: the cutoff for forwarded records depends on their clocks (`flows/backfill.py`).
        """
        if not self.playbook.backfilling:
            self._backfilling = False
            return False
        if not self._backfilling:
            self._backfilling = True
            self._reevaluating.update(dict.fromkeys(self.shards))
        return not self._read_count % BACKFILL_EVERY_READS if busy else not self._reevaluating

    def playbook_retired(self) -> bool:
        """Whether the worker is idle and has replaced a playbook since the last call that returned True."""
        if not self._retired or self._idle_reads < IDLE_READS:
            return False
        self._retired = False
        return True

    def _default_tick(self, partition: int) -> int:
        """NO_TICK, or 0 for a shard whose timers may fire now or that imports history."""
        shard = self.shards.get(partition)
        return (
            NO_TICK
            if shard is not None and not shard.checkpoint.history_reached and partition not in self._ticking
            else 0
        )

    def _ticks(
        self, reader: Reader, partitions: Sequence[int], now: int, earliest_due: int | None, max_shards: int
    ) -> dict[int, int]:
        """The time (ms) by partition for shards whose clock must advance without a record.

        A shard ticks if it has a due timer (the earliest is at `earliest_due`) and has read all records before it. At
        most `max_shards` shards fire timers. While `now` is unknown (0), timers fire by the shard's own clock.
        """
        due: list[int] = []
        if earliest_due is not None and (earliest_due <= now or earliest_due <= self._latest_clock):
            due = [
                partition for partition, at in self._wakeups.items() if at <= now or at <= self._shard_clock(partition)
            ]
        if len(due) > max_shards:
            due = sorted(due, key=self._wakeups.__getitem__)[:max_shards]
        self._ticking = frozenset(due)
        if len(self.shards) < len(partitions) and now >= self._remote_tick_at:
            # In a cluster of Bytewax processes the shard may run elsewhere; it ignores a tick that it does not need.
            self._remote_tick_at = now + REMOTE_TICK_INTERVAL_MS
            due += [partition for partition in partitions if partition not in self.shards]
        if self._reevaluating:  # one shard at a time
            due += [partition for partition in self._reevaluating if reader.caught_up(partition)][:1]
        ticks = {partition: now or self._shard_clock(partition) for partition in due if reader.caught_up(partition)}
        return {partition: tick for partition, tick in ticks.items() if tick}

    def _shard_clock(self, partition: int) -> int:
        """The clock of a shard in ms; 0 for a shard of another process."""
        shard = self.shards.get(partition)
        return shard.checkpoint.clock if shard is not None else 0

    def _last_live_model(self, kind: str) -> Model | None:
        """The model of this kind that was live last, so that a restart changes no scores or segments."""
        name = self.store.get_blob("live", kind)
        encoded = self.store.get_blob("model", name.decode()) if name else None
        return models.decode_model(encoded) if encoded else None

    def _load_model(self, record: Record) -> None:
        """Make a model live, unless it is older than the live one: the stream is read from its beginning."""
        try:
            model = models.decode_model(record.value)
        except DECODE_ERRORS as error:
            logger.warning("cannot decode model", offset=record.offset, error=str(error))
            return
        if model.kind == PROPENSITY and not self.settings.pinned_model:
            if self.model is not None and model.at < self.model.at:
                return
            self.model = model
            metrics.set_model_metrics(model)
        elif model.kind == rfm.MODEL_KIND:
            if self.quintiles is not None and (model.at < self.quintiles.at or model.hash == self.quintiles.hash):
                return
            self.quintiles = model
            declared = self.playbook.rules.rfm_thresholds
            if declared is not None and declared.learned:
                self._reevaluating.update(dict.fromkeys(self.shards))
        else:
            return
        self.store.put_blob("model", model.hash, record.value)
        self.store.put_named("live", model.kind, model.hash.encode())

    def _housekeeping(self, reader: Reader) -> None:
        """Poll the playbook folder, remove acknowledged outbox rows, prune, and update the metrics."""
        if self.playbook.poll(self.shards):
            self._reevaluating.update(dict.fromkeys(self.shards))
            self._retired = True
        if self._idle_reads and (sent := self.publisher.pop_acknowledged()):
            self.store.commit(WriteBatch(), sent)
        if self._idle_reads and self.settings.retention_days and time.monotonic() >= self._prune_at:
            self._prune_batches()
        metrics.OUTBOX_PENDING.set(self.publisher.pending_count())
        for stream, records in reader.lag().items():
            metrics.LAG_RECORDS.labels(stream).set(records)
        if self.model is not None and self.model.at:  # a pinned model may have no time
            metrics.MODEL_AGE.set(max(0, self.clock() - self.model.at) / 1000)
        self._update_metrics()

    def _prune_batches(self) -> None:
        """Delete batch records older than the retention of the log; continue soon if more are left."""
        newest = max((shard.checkpoint.clock for shard in self.shards.values()), default=0)
        more = self.store.prune_batches(newest - self.settings.retention_days * DAY_MS)
        self._prune_at = time.monotonic() + (0 if more else PRUNE_INTERVAL)

    def _update_metrics(self) -> None:
        """Move the counts of the shards to the metrics."""
        events, kinds = self.counts.events, self.counts.effects
        misrouted = events["misrouted"]
        metrics.MISROUTED_RECORDS.inc(misrouted)
        if hint := self.misrouted_monitor.add(misrouted, sum(events[stream] for stream in PUBLIC_STREAMS)):
            logger.warning("too many misrouted records", hint=hint)
        metrics.MISROUTED_RATIO.set(self.misrouted_monitor.share)
        for stream in SHARD_INPUT_STREAMS:
            metrics.RECORDS_APPLIED.labels(stream).inc(events[stream])
        for operation in ("forwarded", "duplicate", "timer_fired"):
            metrics.SHARD_OPERATIONS.labels(operation).inc(events[operation])
        for (kind, reason), n in kinds.items():
            metrics.EFFECTS.labels(kind).inc(n)
            if kind == "suppress":
                metrics.SUPPRESSED.labels(reason).inc(n)
            elif kind == "dead_letter":
                metrics.DEAD_LETTERS.labels(reason).inc(n)
        events.clear()
        kinds.clear()
        for shard in self.shards.values():
            if shard.errors:
                logger.error(
                    "step failed; records written to dead-letters", count=len(shard.errors), error=shard.errors[-1]
                )
                shard.errors.clear()

    # -- apply -------------------------------------------------------------------------------------------------

    def apply(self, batch: ShardBatch) -> None:
        """Apply one shard's batch in memory."""
        partition, records, tick = batch
        if partition not in self.shards:
            self.claim_partitions([partition])
        shard = self.shards[partition]
        shard.apply(records, tick, self.playbook.rules, self.model, self.quintiles)
        self._dirty[partition] = None
        if shard.checkpoint.clock > self._latest_clock:
            self._latest_clock = shard.checkpoint.clock

    # -- publish -----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Commit all changed shards, then publish: a published effect is always durable."""
        if not self._dirty:
            return
        batch = WriteBatch()
        for partition in self._dirty:
            self.shards[partition].stage(batch)
        sent = self.publisher.pop_acknowledged()
        started = time.perf_counter()
        seq = self.store.commit(batch, sent)
        metrics.COMMIT_DURATION.observe(time.perf_counter() - started)
        failpoint("onsite:after_commit")
        if batch.outbox_rows:
            self.publisher.publish([OutboxRow(seq, *row[1:]) for row in batch.outbox_rows])
        failpoint("onsite:after_publish")
        if self._reevaluating:
            failpoint("onsite:reevaluating")
        for partition in self._dirty:
            self._schedule_wakeup(partition)
        self._dirty.clear()
        self.store.maintain()

    def drain_and_close(self) -> None:
        """Stop cleanly: publish, wait up to 5 seconds for acknowledgements, and close."""
        self.publish()
        self.publisher.flush()
        deadline = time.monotonic() + 5
        while self.publisher.pending_count() and time.monotonic() < deadline:
            self.publisher.retry_redis()
            if sent := self.publisher.pop_acknowledged():
                self.store.commit(WriteBatch(), sent)
            else:
                time.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Close everything. Effects without an acknowledgement stay in the outbox for the next owner."""
        self.publisher.close()
        self.checkpointer.close()
        self.store.close()
        self.log.close()


def load_pinned_model(settings: Settings) -> Model | None:
    """The model file that the setting `pinned_model` names, or None. No learned model replaces it."""
    if not settings.pinned_model:
        return None
    return models.decode_model(Path(settings.pinned_model).read_bytes())
