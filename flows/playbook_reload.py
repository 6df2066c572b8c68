"""The live playbook of a worker: read, checked, compiled, and swapped between two batches.

    folder ─▶ read and checked ─▶ new counters are backfilled from the log (flows/backfill.py) ─▶ swapped in
       └─ errors: the last valid playbook stays live, and the errors are reported (connectors/playbook/status.py)

Large playbooks are read and compiled in a thread. Every playbook that was live is stored under its content hash, so
that decisions can be replayed. Without a live playbook, an invalid folder prevents the start.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from connectors import metrics
from connectors.log.log import Log
from connectors.playbook import status
from connectors.playbook.folder import PlaybookWatcher, read_playbook, unused_files
from connectors.settings import secret_of
from domain.diagnostics import Diagnostic, PlaybookError, PlaybookStatus
from domain.failpoint import failpoint
from domain.playbook import playbook as playbooks
from domain.playbook.playbook import Playbook, carry_over_versions
from domain.settings import Settings
from flows.backfill import Backfill, rebuild_backfill
from state.playbook.compiled import Rules, compile_rules, rules_from_source
from state.shard.backfill import (
    BackfilledCounters,
    merge_pending,
    new_counters,
    only_new,
    pack_counters,
    unpack_counters,
)
from state.shard.reevaluation import playbook_of_stamp
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import Store, StoreError


def startup_errors(settings: Settings) -> tuple[Diagnostic, ...]:
    """Return the errors of the folder that prevent a start; empty if a playbook is valid or was live before."""
    if _has_live_playbook(settings):
        return ()
    try:
        read_playbook(settings.playbook)
    except PlaybookError as error:
        return error.diagnostics
    return ()


def require_playbook(settings: Settings) -> None:
    """Raise PlaybookError, and write the status file, if a worker has no valid playbook to start with."""
    try:
        if _has_live_playbook(settings):
            return
    except StoreError:  # another worker is creating the store, or opening it for writing reports the error
        return
    try:
        compile_or_raise(read_playbook(settings.playbook), secret_of(settings).encode())
        return
    except PlaybookError as error:
        errors = error.diagnostics
    path, now = status.status_path(settings.data), time.time_ns() // 1_000_000
    before = status.read_status(path)
    with suppress(OSError):  # the exception reports the errors too
        since = before.since if before else now
        status.write_status(path, PlaybookStatus.from_errors(settings.playbook, errors, since))
    raise PlaybookError(errors)


def compile_or_raise(playbook: Playbook, secret: bytes) -> Rules:
    """Compile a valid playbook. Raise PlaybookError if it cannot be used here, for example without a secret."""
    try:
        rules = compile_rules(playbook)
    except ValueError as error:  # an error that validation does not find must not stop the worker either
        raise PlaybookError([Diagnostic("the playbook", 0, "", str(error))]) from error
    generated = [name for name, rule in rules.pools.items() if not rule.pool.codes]
    if generated and not secret:
        raise PlaybookError(
            [
                Diagnostic(
                    f"coupons/{generated[0]}.toml",
                    0,
                    "",
                    "generating codes needs a secret, and none is set. Set ATTIMO_SECRET to the same value as for the "
                    f"edge, or list the codes in codes/{generated[0]}.txt",
                )
            ]
        )
    return rules


def _has_live_playbook(settings: Settings) -> bool:
    path = Path(settings.data) / "store" / "store.db"
    if not path.exists():
        return False
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        return bool(store.get_blob("live", "playbook"))
    finally:
        store.close()


BACKGROUND_LOAD_ABOVE = 500
"""Segments and campaigns of the live playbook above which changes are loaded in a thread."""

logger = structlog.get_logger()


class LivePlaybook:
    """The live `rules` and their replacement. Raise PlaybookError if there is no valid playbook to start with."""

    def __init__(self, settings: Settings, log: Log, store: Store, secret: bytes) -> None:
        self.watcher = PlaybookWatcher(Path(settings.playbook))
        self._log, self._store, self._secret = log, store, secret
        self._backfill: Backfill | None = None
        self._next_rules: Rules | None = None
        self._executor = ThreadPoolExecutor(1, "playbook")
        self._pending_load: Future[Rules | None] | None = None
        self._compile_errors: tuple[Diagnostic, ...] = ()
        """Errors of a playbook that is valid in itself, but cannot be used here."""
        self._unused_files: list[Diagnostic] = []
        self._status_path = status.status_path(settings.data)
        self._reported: tuple[tuple[Diagnostic, ...], str] | None = None
        self.rules = self._load_first()
        self._report_status(self.rules)

    def _load_first(self) -> Rules:
        """Return the rules to start with: the folder's, or the last live ones if the folder's need a backfill."""
        live = self._last_live()
        self._warn_unused_files()
        try:
            rules = self._compile_successor(self.watcher.load_first(), self._last_live_source())
        except PlaybookError as error:
            if live is None:
                self._report_status(None)
                raise
            logger.warning("invalid playbook; the last valid one stays live", errors=str(error))
            return live
        if live is None or not new_counters(rules.counter_specs, live.counter_specs):
            self._store_live(rules)
            return rules
        self._next_rules = rules
        return live

    def _last_live(self) -> Rules | None:
        """The rules that were live last, in this worker or another one of the same store."""
        last = self._store.get_blob("live", "playbook")
        source = self._store.get_blob("playbook", last.decode()) if last else None
        try:
            return None if source is None else rules_from_source(source)
        except msgspec.ValidationError as error:
            logger.warning("stored playbook cannot be decoded; runs of removed workflows exit", error=str(error))
            return None

    def _last_live_source(self, live: Rules | None = None) -> bytes | None:
        """The encoded playbook that was live last, in this worker or another one."""
        last = self._store.get_blob("live", "playbook")
        if live is not None and last == live.hash.encode():
            return live.source
        return self._store.get_blob("playbook", last.decode()) if last else None

    def _compile_successor(self, playbook: Playbook, source: bytes | None) -> Rules:
        """Compile a playbook; `source` is the previous one, whose workflow versions stay for people in them.

        Raise PlaybookError if it cannot be used here.
        """
        if source is not None:
            try:
                playbook = carry_over_versions(playbooks.decode_playbook(source), playbook)
            except msgspec.ValidationError:  # `_last_live` has logged it
                pass
        try:
            rules = compile_or_raise(playbook, self._secret)
        except PlaybookError as error:
            self._compile_errors = error.diagnostics
            raise
        self._compile_errors = ()
        return rules

    def _store_live(self, rules: Rules) -> None:
        self._store.put_blob("playbook", rules.hash, rules.source)
        if self._store.get_blob("live", "playbook") != rules.hash.encode():
            self._store.put_named("live", "since", str(now_ms()).encode())
        self._store.put_named("live", rules.short_hash, rules.hash.encode())
        self._store.put_named("live", "playbook", rules.hash.encode())

    def _warn_unused_files(self) -> None:
        """Log each unused file of the folder once."""
        before, self._unused_files = self._unused_files, unused_files(self.watcher.folder)
        for file in self._unused_files:
            if file not in before:
                logger.warning("unused file in the playbook folder", file=str(file))

    # -- status --------------------------------------------------------------------------------------------------

    def _report_status(self, live: Rules | None) -> None:
        """Write the errors of the folder and the live version to the status file; remove it if there are none."""
        errors, short = self.watcher.diagnostics or self._compile_errors, live.short_hash if live is not None else ""
        if (errors, short) == self._reported:
            return
        metrics.PLAYBOOK_ERRORS.set(len(errors))
        before = status.read_status(self._status_path) if errors else None
        since = self._store.get_blob("live", "since") if live is not None else None
        report = (
            PlaybookStatus.from_errors(
                str(self.watcher.folder), errors, before.since if before else now_ms(), short, int(since or 0)
            )
            if errors
            else None
        )
        try:
            status.write_status(self._status_path, report)
        except OSError as error:  # the errors are logged too, so the worker continues
            logger.warning("cannot write the playbook status file", error=str(error))
            return
        self._reported = errors, short

    # -- swapping --------------------------------------------------------------------------------------------------

    def poll(self, shards: Mapping[int, Shard]) -> bool:
        """Load a changed folder; return whether another playbook is live now."""
        try:
            self._next_rules = self._poll_folder() or self._next_rules
        except PlaybookError as error:
            logger.warning("playbook rejected; the last valid one stays live", errors=str(error))
            return False
        finally:
            self._report_status(self.rules)
        if self._next_rules is None:
            return False
        rules, self._next_rules = self._next_rules, None
        if self._backfill is not None:
            self._backfill.close()
            self._backfill = None
        specs = new_counters(rules.counter_specs, self.rules.counter_specs)
        if specs and shards and any(shard.checkpoint.positions for shard in shards.values()):
            self._backfill = Backfill(self._log, shards, rules, specs)
            logger.info("playbook backfill started", version=rules.hash[:12], counters=len(specs))
            return False
        self._swap(rules, {}, shards)
        return True

    def _poll_folder(self) -> Rules | None:
        """The rules of a changed folder once they are compiled. Raise PlaybookError if they cannot be used here."""
        if self._pending_load is None:
            now, source = time.monotonic(), self._last_live_source(self.rules)
            if len(self.rules.campaigns) + len(self.rules.segments) < BACKGROUND_LOAD_ABOVE:
                return self._load_changes(now, source)
            self._pending_load = self._executor.submit(self._load_changes, now, source)
        if not self._pending_load.done():
            return None
        load, self._pending_load = self._pending_load, None
        return load.result()

    def _load_changes(self, now: float, source: bytes | None) -> Rules | None:
        before, changed = self.watcher.diagnostics, self.watcher.poll(now)
        if changed is not None or self.watcher.diagnostics != before:
            self._warn_unused_files()
        return None if changed is None else self._compile_successor(changed, source)

    @property
    def backfilling(self) -> bool:
        """Whether a backfill is running."""
        return self._backfill is not None

    def backfill_step(self, shards: Mapping[int, Shard]) -> bool:
        """Run one backfill step; return whether the next playbook is live now."""
        if self._backfill is None:
            return False
        done = self._backfill.step()
        failpoint("onsite:backfilling")
        if not done:
            return False
        backfill, self._backfill = self._backfill, None
        self._swap(backfill.rules, backfill.finish(), shards)
        return True

    def _swap(self, rules: Rules, counters: Mapping[int, BackfilledCounters], shards: Mapping[int, Shard]) -> None:
        """Make these rules live for the next batch.

        First store the backfilled counters, together with those of the previous playbook that people who are not
        re-evaluated yet still lack.
        """
        before = self.rules.short_hash
        for partition, shard in shards.items():
            if playbook_of_stamp(shard.checkpoint.playbook_stamp) in ("", before):
                fresh = only_new(counters.get(partition, {}), self.rules.counter_specs)
                shard.backfilled = merge_pending(shard.backfilled, fresh, rules.counter_specs)
            else:  # the shard has applied no batch with the previous playbook yet
                shard.backfilled = self._rebuild_backfill(shard, rules)
            self._store_backfill(partition, rules.short_hash, shard.backfilled)
        failpoint("onsite:swapping")
        self._store_live(rules)
        self.rules = rules
        for partition in shards if before != rules.short_hash else ():
            self._retain_backfill(partition, before)
        logger.info("playbook live", version=rules.hash[:12])

    # -- backfilled counters of people who are not re-evaluated yet ----------------------------------------------------

    def resume_backfill(self, shard: Shard) -> None:
        """Load the stored counters of a shard, or compute them if another worker has swapped the playbook before."""
        live, checkpoint = self.rules, shard.checkpoint
        last = playbook_of_stamp(checkpoint.playbook_stamp)
        if last == live.short_hash and checkpoint.reevaluated_to is None:
            return
        packed = self._store.get_blob("backfill", _backfill_name(shard.partition, live.short_hash))
        if packed and last == live.short_hash:
            shard.backfilled = unpack_counters(packed)
        elif last not in ("", live.short_hash):
            shard.backfilled = self._rebuild_backfill(shard, live)
            self._store_backfill(shard.partition, live.short_hash, shard.backfilled)
            self._retain_backfill(shard.partition, last)

    def _retain_backfill(self, partition: int, short_hash: str) -> None:
        """Keep the counters of a playbook until everybody is re-evaluated under a later one.

        If another playbook follows before that, the shard continues with these counters.
        """
        name = str(partition)
        retained = self._store.get_blob("backfill", name) or b""
        if short_hash.encode() not in retained.split():
            self._store.put_named("backfill", name, retained + b" " + short_hash.encode())

    def reevaluated(self, shard: Shard) -> bool:
        """Whether a finished re-evaluation was under the live playbook; if so, delete the stored counters."""
        partition = shard.partition
        if playbook_of_stamp(shard.checkpoint.playbook_stamp) != self.rules.short_hash:
            return False
        retained = self._store.get_blob("backfill", str(partition)) or b""
        for short in (*retained.decode().split(), self.rules.short_hash):
            self._store_backfill(partition, short, {})
        if retained:
            self._store.put_named("backfill", str(partition), b"")
        return True

    def _rebuild_backfill(self, shard: Shard, rules: Rules) -> BackfilledCounters:
        """Compute the counters that `rules` add to those of the shard's last batch, up to its position."""
        last = playbook_of_stamp(shard.checkpoint.playbook_stamp)
        full_hash = self._store.get_blob("live", last)
        source = self._store.get_blob("playbook", full_hash.decode()) if full_hash else None
        if source is None:
            return {}
        packed = self._store.get_blob("backfill", _backfill_name(shard.partition, last))
        pending = unpack_counters(packed) if packed and shard.checkpoint.reevaluated_to is not None else {}
        rebuilt = rebuild_backfill(shard, rules_from_source(source), rules, self._log.fetch)
        return merge_pending(pending, rebuilt, rules.counter_specs)

    def _store_backfill(self, partition: int, short_hash: str, counters: BackfilledCounters) -> None:
        name = _backfill_name(partition, short_hash)
        if counters or self._store.get_blob("backfill", name):
            self._store.put_named("backfill", name, pack_counters(counters) if counters else b"")


def now_ms() -> int:
    """The wall clock in ms."""
    return time.time_ns() // 1_000_000


def _backfill_name(partition: int, short_hash: str) -> str:
    """The blob name of a shard's counters for one playbook."""
    return f"{partition}-{short_hash}"
