"""What one worker of the on-site flow holds, and the three things it does. `flows/adapter.py` hands them to Bytewax.

    Worker.read()     the log, the models, the playbook  ->  work by shard
    Worker.apply()    one shard's work                   ->  staged in memory
    Worker.publish()  one commit for all shards touched, then Redis and the log
"""

import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from connectors import metrics, valkey
from connectors.log import Log, Reader
from connectors.open_log import open_log
from connectors.publisher import Publisher
from connectors.settings import secret_of
from connectors.wal import Keeper
from domain import model as models
from domain.effect import Row
from domain.failpoint import failpoint
from domain.model import Model
from domain.record import UNREADABLE, Record
from domain.settings import Settings
from domain.streams import MODELS, PUBLIC, SHARD_INPUT
from flows.live_playbook import LivePlaybook
from state import rfm
from state.context import Step
from state.shard import HELD, SLICE, Shard
from state.store import Batch
from state.store_sqlite import SqliteStore
from state.tally import Misrouted, Tally

LIMIT = 1_000
"""Records read at a time."""
WAIT = 0.005
"""Seconds a worker sleeps at most without looking at the clock."""
GATHER = 0.005
"""Seconds that the log may wait to be told what was decided, while there is more to do."""
ROUND = 0.5
"""Seconds between two rounds of looking after things."""
TICKED = 4
"""Shards whose timers fire between two reads, those that are due longest first: who has an event waits for no more.
With many records there are more of them, for half as many timers as records: a rush of timers must not feed itself."""
AT_REST = 1_000
"""Reads without anything new (some seconds), after which there is time to look at everything that is in memory."""
BUSY = 10
"""Reads after which a new playbook warms up a little, however busy the worker is."""
ELSEWHERE = 250
"""How often (ms) a shard that lives in another process is offered a tick."""
MINUTE = 60.0
"""Seconds between two looks at turns that are old."""
DAY = 86_400_000
PROPENSITY = "propensity"
"""The kind of model that says how likely a visit ends in an order; the other one is that of the fifths."""

logger = structlog.get_logger()
Work = tuple[int, list[Record], int]
"""(partition, records in order, tick, 0 or HELD): plain, so that it crosses processes."""


def shard_key(partition: int) -> str:
    """The Bytewax key of a shard.

    >>> shard_key(7)
    's07'
    """
    return f"s{partition:02d}"


def store_path(settings: Settings) -> Path:
    """The store's file."""
    return Path(settings.data) / "store" / "store.db"


def wall() -> int:
    """The wall clock in ms. Only the edge of the flow asks for it."""
    return time.time_ns() // 1_000_000


class Worker:
    """Shards, store, log, Redis, playbook and models of one worker thread."""

    def __init__(self, settings: Settings, steps: Sequence[Step], clock: Callable[[], int] = wall) -> None:
        self.settings = settings
        self.steps = steps
        self.wall = clock
        self.log: Log = open_log(settings)
        self.keeper = Keeper()
        self.store = SqliteStore(store_path(settings), settings.partitions, settings.log_sync, keeper=self.keeper)
        self.publisher = Publisher(self.log, valkey.url(settings), settings.shop, clock, GATHER)
        self.shards: dict[int, Shard] = {}
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.secret = secret_of(settings).encode()
        self.playbook = LivePlaybook(settings, self.log, self.store, self.secret)
        self.model = pinned(settings) or self._last(PROPENSITY)
        if self.model is not None:
            metrics.learned(self.model)
        self.quintiles = self._last(rfm.KIND)
        self.tally = Tally()
        self.misrouted = Misrouted()
        self._touched: dict[int, None] = {}
        self._dues: dict[int, int] = {}
        self._sweeping: dict[int, None] = {}
        self._quiet = self._reads = 0
        self._round_at = self._turns_at = 0.0
        self._elsewhere_at = 0
        self._let_go = self._warming = False
        self._turn: frozenset[int] = frozenset()
        self._newest = 0  # no shard's clock is later

    def own(self, partitions: Sequence[int]) -> None:
        """Take these shards over: load where they stand, and send what their last owner could not."""
        fresh = [p for p in partitions if p not in self.shards]
        if not fresh:
            return
        self.store.claim([*self.shards, *fresh], self.owner)
        hot = max(100, self.settings.hot_persons // max(1, len(self.shards) + len(fresh)))
        for partition in fresh:
            self.shards[partition] = Shard(
                partition, self.store, self.steps, self.settings.partitions, hot, self.tally, self.secret)
            self._newest = max(self._newest, self.shards[partition].head.clock)
            self.playbook.resume(self.shards[partition])
            self._look_ahead(partition)
            self._sweeping[partition] = None
        self.publisher.send(self.store.outbox())

    def _look_ahead(self, partition: int) -> None:
        """Note when this shard has to be woken; not while it reads recorded days, which bring their own time."""
        shard = self.shards[partition]
        if shard.head.sweep is not None:
            self._sweeping[partition] = None
        elif partition in self._sweeping and self.playbook.looked(shard):
            del self._sweeping[partition]
        due = None if shard.head.history else shard.next_due()
        if due is None:
            self._dues.pop(partition, None)
        else:
            self._dues[partition] = due

    # -- read --------------------------------------------------------------------------------------------------

    def reader(self, partitions: Sequence[int]) -> Reader:
        """A reader of everything these shards need, from where they stand."""
        places = [(stream, p) for stream in SHARD_INPUT for p in partitions]
        heads = {p: self.shards[p].head if p in self.shards else self.store.head(p) for p in partitions}
        start = {(stream, p): heads[p].positions[stream] for stream, p in places if stream in heads[p].positions}
        history = {(stream, p): heads[p].history[stream] for stream, p in places if stream in heads[p].history}
        return self.log.reader([*places, (MODELS, 0)], start, history)

    def read(self, reader: Reader, partitions: Sequence[int]) -> list[tuple[str, Work]]:
        """What there is to do now: sleeps until there is something, or until a timer comes due."""
        soonest = min(self._dues.values(), default=None)
        wait = WAIT
        if soonest is not None:
            wait = min(WAIT, max(0.0, (soonest - self.wall()) / 1000))
        if self._sweeping or self.playbook.warming:
            wait = 0.0
        records = reader.poll(LIMIT, 0.0 if self.publisher.gathers else wait)
        if self.publisher.overdue:
            self.publisher.flush()
        if not records and self.publisher.gathers:  # there is time now
            self.publisher.flush()
            records = reader.poll(LIMIT, wait)
        work: dict[int, list[Record]] = {}
        for record in records:
            if record.stream == MODELS:
                self._learned(record)
            elif (found := work.get(record.partition)) is not None:
                found.append(record)
            else:
                work[record.partition] = [record]
        now = reader.polled_at()
        ticks = self._ticks(reader, partitions, now, soonest, TICKED + len(records) // (2 * SLICE))
        self.publisher.retry()
        self._quiet = 0 if records else self._quiet + 1
        if self._may_warm(bool(records)) and self.playbook.warm(self.shards):
            self._sweeping.update(dict.fromkeys(self.shards))
        self._reads += 1
        if (moment := time.monotonic()) >= self._round_at:
            self._round_at = moment + ROUND
            self._round(reader)
        if work or ticks:
            return [(shard_key(p), (p, work.get(p, []), ticks.get(p) or self._otherwise(p)))
                    for p in {**work, **ticks}]
        return []

    def _may_warm(self, busy: bool) -> bool:
        """Whether it is time for the next playbook to warm up: first the clocks of shards to which nothing has happened
        for days are moved on, for what was sent on counts by them (`state/sent_on.py`).
        """
        if not self.playbook.warming:
            self._warming = False
            return False
        if not self._warming:
            self._warming = True
            self._sweeping.update(dict.fromkeys(self.shards))
        return not self._reads % BUSY if busy else not self._sweeping

    def has_let_go(self) -> bool:
        """Whether a playbook was let go of a while ago, and there is rest to clear it away. It is said once."""
        if not self._let_go or self._quiet < AT_REST:
            return False
        self._let_go = False
        return True

    def _otherwise(self, partition: int) -> int:
        """What a shard gets instead of a tick: HELD, unless it is its turn, or it reads recorded days at their pace."""
        shard = self.shards.get(partition)
        return HELD if shard is not None and not shard.head.history and partition not in self._turn else 0

    def _ticks(self, reader: Reader, partitions: Sequence[int], now: int, soonest: int | None,
               room: int) -> dict[int, int]:
        """The shards whose clock should move on its own: something is due (the soonest of it at `soonest`), and
        everything before it has been read.

        There is room for so many to fire timers; while there is something to be read yet, they do it by its clock.
        """
        due: list[int] = []
        if soonest is not None and (soonest <= now or soonest <= self._newest):
            due = [partition for partition, at in self._dues.items() if at <= now or at <= self._clock(partition)]
        if len(due) > room:
            due = sorted(due, key=self._dues.__getitem__)[:room]
        self._turn = frozenset(due)
        if len(self.shards) < len(partitions) and now >= self._elsewhere_at:
            # Within a cluster of Bytewax processes a shard may live elsewhere: it knows whether a tick is of use.
            self._elsewhere_at = now + ELSEWHERE
            due += [partition for partition in partitions if partition not in self.shards]
        if self._sweeping:  # a slice of one shard at a time, and only when there is nothing else to do
            due += [partition for partition in self._sweeping if reader.caught_up(partition)][:1]
        moments = {partition: now or self._clock(partition) for partition in due if reader.caught_up(partition)}
        return {partition: moment for partition, moment in moments.items() if moment}

    def _clock(self, partition: int) -> int:
        """The clock of a shard: as long as nobody knows whether all was read, it is what its timers go by."""
        shard = self.shards.get(partition)
        return shard.head.clock if shard is not None else 0

    def _last(self, kind: str) -> Model | None:
        """The model of this kind that was live last: so that nobody moves only because the worker starts again."""
        name = self.store.kept("live", kind)
        kept = self.store.kept("model", name.decode()) if name else None
        return models.decode(kept) if kept else None

    def _learned(self, record: Record) -> None:
        """Take a model over, between two batches. The stream is read from its beginning: older ones are passed by."""
        try:
            model = models.decode(record.value)
        except UNREADABLE as wrong:
            logger.warning("a model cannot be read", offset=record.offset, why=str(wrong))
            return
        if model.kind == PROPENSITY and not self.settings.pinned_model:
            if self.model is not None and model.at < self.model.at:
                return
            self.model = model
            metrics.learned(model)
        elif model.kind == rfm.KIND:
            if self.quintiles is not None and (model.at < self.quintiles.at or model.hash == self.quintiles.hash):
                return
            self.quintiles = model
            declared = self.playbook.rules.rfm
            if declared is not None and declared.learned:
                self._sweeping.update(dict.fromkeys(self.shards))
        else:
            return
        self.store.keep("model", model.hash, record.value)
        self.store.note("live", model.kind, model.hash.encode())

    def _round(self, reader: Reader) -> None:
        """Twice a second, busy or not: the playbook, what has arrived outside, house-keeping, what is shown of us."""
        if self.playbook.look(self.shards):
            self._sweeping.update(dict.fromkeys(self.shards))
            self._let_go = True
        if self._quiet and (sent := self.publisher.acknowledged()):
            self.store.commit(Batch(), sent)
        if self._quiet and self.settings.retention_days and time.monotonic() >= self._turns_at:
            self._forget_turns()
        metrics.OUTBOX.set(self.publisher.pending())
        for stream, records in reader.lag().items():
            metrics.LAG.labels(stream).set(records)
        if self.model is not None and self.model.at:  # a file need not say when it was learned
            metrics.MODEL_AGE.set(max(0, self.wall() - self.model.at) / 1000)
        self._show()

    def _forget_turns(self) -> None:
        """Turns go with the records that they tell of: some now, and the next look comes soon where more may go."""
        newest = max((shard.head.clock for shard in self.shards.values()), default=0)
        more = self.store.forget_turns(newest - self.settings.retention_days * DAY)
        self._turns_at = time.monotonic() + (0 if more else MINUTE)

    def _show(self) -> None:
        """Hand what was counted to the metrics."""
        events, kinds = self.tally.events, self.tally.kinds
        wrong = events["misrouted"]
        metrics.MISROUTED.inc(wrong)
        if said := self.misrouted.add(wrong, sum(events[stream] for stream in PUBLIC)):
            logger.warning(said)
        metrics.MISROUTED_SHARE.set(self.misrouted.share)
        for stream in SHARD_INPUT:
            metrics.EVENTS.labels(stream).inc(events[stream])
        for what in ("forwarded", "repeated", "timers"):
            metrics.HANDLED.labels(what).inc(events[what])
        for (kind, reason), n in kinds.items():
            metrics.EFFECTS.labels(kind).inc(n)
            if kind == "hold":
                metrics.HOLDS.labels(reason).inc(n)
            elif kind == "reject":
                metrics.REJECTS.labels(reason).inc(n)
        events.clear()
        kinds.clear()
        for shard in self.shards.values():
            if shard.bugs:
                logger.error("a step failed; its records were set aside", times=len(shard.bugs), last=shard.bugs[-1])
                shard.bugs.clear()

    # -- apply -------------------------------------------------------------------------------------------------

    def apply(self, work: Work) -> None:
        """One shard's work, staged in memory."""
        partition, records, tick = work
        if partition not in self.shards:
            self.own([partition])
        shard = self.shards[partition]
        shard.apply(records, tick, self.playbook.rules, self.model, self.quintiles)
        self._touched[partition] = None
        if shard.head.clock > self._newest:
            self._newest = shard.head.clock

    # -- publish -----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Commit first, then publish: nobody is shown what the engine would not remember."""
        if not self._touched:
            return
        batch = Batch()
        for partition in self._touched:
            self.shards[partition].stage(batch)
        sent = self.publisher.acknowledged()
        begun = time.perf_counter()
        seq = self.store.commit(batch, sent)
        metrics.COMMIT.observe(time.perf_counter() - begun)
        failpoint("onsite:after_commit")
        if batch.rows:
            self.publisher.send([Row(seq, *row[1:]) for row in batch.rows])
        failpoint("onsite:after_publish")
        if self._sweeping:
            failpoint("onsite:sweeping")
        for partition in self._touched:
            self._look_ahead(partition)
        self._touched.clear()
        self.store.tidy()

    def finish(self) -> None:
        """The clean stop: wait for what is out, note that it arrived, let go."""
        self.publish()
        self.publisher.flush()
        until = time.monotonic() + 5
        while self.publisher.pending() and time.monotonic() < until:
            self.publisher.retry()
            if sent := self.publisher.acknowledged():
                self.store.commit(Batch(), sent)
            else:
                time.sleep(0.01)
        self.leave()

    def leave(self) -> None:
        """Close everything. What was decided and is not out stays in the outbox, for whoever comes next."""
        self.publisher.close()
        self.keeper.close()
        self.store.close()
        self.log.close()


def pinned(settings: Settings) -> Model | None:
    """The model that settings pin, if they do: nothing learned replaces it."""
    if not settings.pinned_model:
        return None
    return models.decode(Path(settings.pinned_model).read_bytes())
