"""Tests of playbook changes with real shards and a real log: an interrupted swap loses no counters, and a replay of the
batch records gives the same persons.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from time import sleep

import pytest
from structlog.testing import capture_logs

from connectors.log.sqlite import SqliteLog
from connectors.playbook import status
from domain.diagnostics import PlaybookError, PlaybookStatus
from domain.playbook.playbook import Playbook
from domain.record import PUBLIC_STREAMS, NewRecord, partition_of
from domain.settings import Settings
from flows import backfill, playbook_reload
from flows.playbook_reload import LivePlaybook
from flows.simulation.replay import replay
from operators.steps import STEPS
from state.person import codec
from state.playbook.compiled import Rules, compile_rules, rules_from_source
from state.shard.reevaluation import PERSONS_PER_TICK
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch
from tests.harness.shard import record

PARTITIONS = 2
T0 = 1_700_000_000_000
PEOPLE = PERSONS_PER_TICK * 3
GROUPS = ("cups", "mugs", "pots")
"""Everybody views one product of each group; each segment counts another group."""


class SharedFolder:
    """A playbook folder, a log and a store for several workers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.playbook_folder = folder, folder / "shop"
        (self.playbook_folder / "segments").mkdir(parents=True)
        (self.playbook_folder / "shop.toml").write_text('currency = "EUR"\n')
        self.log = SqliteLog(folder / "log", PARTITIONS)
        for n in range(PEOPLE * len(GROUPS)):
            seen = {"product_id": "p", "category": GROUPS[n // PEOPLE]}
            one = record(f"v{n % PEOPLE}", "Product Viewed", messageId=f"m{n}", properties=seen)
            self.log.append([NewRecord(one.stream, one.key, one.value, log_time=T0 + n)])
        self.store = SqliteStore(folder / "store.db", PARTITIONS)

    def write_segments(self, *groups: str) -> None:
        """Write a playbook with these segments."""
        for path in (self.playbook_folder / "segments").glob("*.toml"):
            path.unlink()
        for group in groups:
            (self.playbook_folder / "segments" / f"{group}.toml").write_text(
                f'when = {{ did = {{ event = "Product Viewed", where = {{ category = "{group}" }} }} }}\n'
            )

    def read_status(self) -> PlaybookStatus | None:
        """Read the playbook status file."""
        return status.read_status(status.status_path(str(self.folder)))

    def segment_members(self) -> dict[str, set[str]]:
        """The segments by person."""
        return {
            key: set(codec.decode(value).segments) for p in range(PARTITIONS) for key, value in self.store.persons(p)
        }

    def replay_matches(self) -> bool:
        """Whether a replay gives the same persons, byte for byte."""
        for p in range(PARTITIONS):
            again = SqliteStore(self.folder / f"again{p}.db", PARTITIONS)
            replay(
                p,
                self.store.batch_records(p),
                self.log.fetch,
                again,
                STEPS,
                PARTITIONS,
                lambda known: rules_from_source(self.store.get_blob("playbook", known) or b""),
                lambda known: None,
                backfilled=lambda shard, before, after: backfill.rebuild_backfill(shard, before, after, self.log.fetch),
            )
            same = again.persons(p) == self.store.persons(p)
            again.close()
            if not same:
                return False
        return True


class SimulatedWorker:
    """A worker over some shards; `kill` drops its state in memory."""

    def __init__(self, shared: SharedFolder, partitions: Sequence[int] = range(PARTITIONS)) -> None:
        self.shared = shared
        self.store = SqliteStore(shared.folder / "store.db", PARTITIONS)
        self.store.claim(partitions, f"worker {min(partitions)}")
        settings = Settings(playbook=str(shared.playbook_folder), data=str(shared.folder))
        self.playbook = LivePlaybook(settings, shared.log, self.store, b"")
        self.shards = {p: Shard(p, self.store, STEPS, PARTITIONS, 1_000) for p in partitions}
        for shard in self.shards.values():
            self.playbook.resume_backfill(shard)

    def read(self) -> None:
        for p, shard in self.shards.items():
            found = [
                one
                for stream in PUBLIC_STREAMS
                for one in self.shared.log.fetch((stream, p), shard.checkpoint.positions.get(stream, -1) + 1, 1 << 60)
            ]
            shard.apply(found, 0, self.playbook.rules, None)
            self._commit(shard)

    def wait_until_live(self, *segments: str) -> None:
        """Poll until the playbook with these segments is live."""
        for _ in range(100):
            self.poll_playbook()
            if self.playbook.backfilling:
                self.playbook.backfill_step(self.shards)
            if set(self.playbook.rules.segments_by_name) == set(segments):
                return
        raise AssertionError(f"{segments} never went live")

    def poll_playbook(self) -> None:
        """Poll the folder now."""
        self.playbook.watcher._next_poll = 0.0
        self.playbook.poll(self.shards)

    def reevaluate(self, slices: int = 1 << 30) -> None:
        """Re-evaluate people, at most `slices` batches per shard."""
        for shard in self.shards.values():
            for _ in range(slices):
                shard.apply([], shard.checkpoint.clock + 1, self.playbook.rules, None)
                self._commit(shard)
                if shard.checkpoint.reevaluated_to is None:
                    self.playbook.reevaluated(shard)
                    break

    def _commit(self, shard: Shard) -> None:
        assert not shard.errors, shard.errors
        batch = WriteBatch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])

    def kill(self) -> None:
        self.store.close()


ALL_PERSONS = {f"a:v{n}" for n in range(PEOPLE)}


def test_playbook_change_during_reevaluation(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    worker.read()
    shared.write_segments("cups", "mugs")
    worker.wait_until_live("cups", "mugs")
    worker.reevaluate(1)
    shared.write_segments("cups", "mugs", "pots")
    worker.wait_until_live("cups", "mugs", "pots")
    worker.reevaluate(1)
    worker.kill()
    worker = SimulatedWorker(shared)
    assert set(worker.playbook.rules.segments_by_name) == {"cups", "mugs", "pots"}
    worker.reevaluate()
    assert shared.segment_members() == {key: {"cups", "mugs", "pots"} for key in ALL_PERSONS}
    shared.write_segments("mugs", "pots")  # adds no counters
    worker.wait_until_live("mugs", "pots")
    worker.reevaluate()
    assert shared.segment_members() == {key: {"mugs", "pots"} for key in ALL_PERSONS}
    assert shared.replay_matches()


def test_playbook_without_new_counters_keeps_the_backfill(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    worker.read()
    shared.write_segments("cups", "mugs")
    worker.wait_until_live("cups", "mugs")
    worker.reevaluate(1)
    shared.write_segments("mugs")
    worker.wait_until_live("mugs")
    worker.kill()
    worker = SimulatedWorker(shared)
    worker.reevaluate()
    assert shared.segment_members() == {key: {"mugs"} for key in ALL_PERSONS}
    assert shared.replay_matches()


def test_fast_playbook_changes_keep_the_backfill(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    worker.read()
    shared.write_segments("cups", "mugs")
    worker.wait_until_live("cups", "mugs")
    worker.reevaluate(1)
    shared.write_segments("mugs")
    worker.wait_until_live("mugs")
    shared.write_segments("cups", "mugs")
    worker.wait_until_live("cups", "mugs")
    assert worker.shards[0].backfilled
    worker.reevaluate()
    assert shared.segment_members() == {key: {"cups", "mugs"} for key in ALL_PERSONS}
    assert shared.replay_matches()


def test_crashed_worker_resumes_after_two_playbook_changes(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    workers = [SimulatedWorker(shared, [p]) for p in range(PARTITIONS)]
    for worker in workers:
        worker.read()
    shared.write_segments("cups", "mugs")
    for worker in workers:
        worker.wait_until_live("cups", "mugs")
    workers[1].reevaluate(1)
    workers[1].kill()
    shared.write_segments("mugs")
    workers[0].wait_until_live("mugs")
    for _ in range(2):
        workers[1] = SimulatedWorker(shared, [1])
        workers[1].kill()
    workers[1] = SimulatedWorker(shared, [1])
    shared.write_segments("cups", "mugs")
    for worker in workers:
        worker.wait_until_live("cups", "mugs")
        worker.reevaluate()
    assert shared.segment_members() == {key: {"cups", "mugs"} for key in ALL_PERSONS}
    assert shared.replay_matches()


def test_crashed_worker_resumes_after_a_playbook_change(tmp_path: Path) -> None:
    """Each worker runs its own backfill; the live version is shared."""
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    workers = [SimulatedWorker(shared, [p]) for p in range(PARTITIONS)]
    for worker in workers:
        worker.read()
    shared.write_segments("cups", "mugs")
    workers[0].wait_until_live("cups", "mugs")
    workers[1].poll_playbook()
    workers[1].poll_playbook()
    assert workers[1].playbook.backfilling
    workers[1].kill()
    workers[1] = SimulatedWorker(shared, [1])
    assert set(workers[1].playbook.rules.segments_by_name) == {"cups", "mugs"}, "another worker has made it live"
    for worker in workers:
        worker.reevaluate()
    assert shared.segment_members() == {key: {"cups", "mugs"} for key in ALL_PERSONS}
    assert partition_of(b"v0", PARTITIONS) != partition_of(b"v1", PARTITIONS), "each partition has people"
    assert shared.replay_matches()
    workers[0].kill()
    worker = SimulatedWorker(shared, [0])
    assert not worker.shards[0].backfilled, "everybody is re-evaluated"


def test_large_playbook_is_compiled_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playbook_reload, "BACKGROUND_LOAD_ABOVE", 0)
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    started, may_continue = Event(), Event()

    def compile_slowly(playbook: Playbook) -> Rules:
        started.set()
        assert may_continue.wait(30)
        return compile_rules(playbook)

    monkeypatch.setattr(playbook_reload, "compile_rules", compile_slowly)
    shared.write_segments("mugs")
    for _ in range(1_000):
        worker.poll_playbook()
        if started.wait(0.01):
            break
    worker.poll_playbook()
    worker.read()
    assert set(worker.playbook.rules.segments_by_name) == {"cups"}, "batches continue meanwhile"
    may_continue.set()
    for _ in range(1_000):
        worker.poll_playbook()
        if worker.playbook.backfilling and worker.playbook.backfill_step(worker.shards):
            break
        sleep(0.01)
    assert set(worker.playbook.rules.segments_by_name) == {"mugs"}
    worker.reevaluate()
    assert shared.segment_members() == {key: {"mugs"} for key in ALL_PERSONS}


def test_unusable_large_playbook_keeps_the_live_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playbook_reload, "BACKGROUND_LOAD_ABOVE", 0)
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    (shared.playbook_folder / "coupons").mkdir()
    (shared.playbook_folder / "coupons" / "ten.toml").write_text("percent = 10\n")
    with capture_logs() as logs:
        for _ in range(1_000):
            worker.poll_playbook()
            if any("playbook rejected" in entry["event"] for entry in logs):
                break
            sleep(0.01)
        else:
            raise AssertionError("no warning was logged")
    assert set(worker.playbook.rules.segments_by_name) == {"cups"}


def test_folder_errors_are_reported_until_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playbook_reload, "now_ms", lambda: T0)
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    assert shared.read_status() is None
    monkeypatch.setattr(playbook_reload, "now_ms", lambda: T0 + 60_000)
    (shared.playbook_folder / "segments" / "cups.toml").write_text("[when]\nsesion = { pages_at_least = 3 }\n")
    for _ in range(2):
        worker.poll_playbook()
    report = shared.read_status()
    assert report is not None
    assert [str(one) for one in report.errors] == [
        'segments/cups.toml, line 2, when.sesion: unknown field "sesion"; did you mean "session"?'
    ]
    assert (report.since, report.live_hash, report.live_since) == (T0 + 60_000, worker.playbook.rules.short_hash, T0)
    worker.kill()
    monkeypatch.setattr(playbook_reload, "now_ms", lambda: T0 + 120_000)
    worker = SimulatedWorker(shared)
    assert shared.read_status() == report, "a restart keeps the report"
    (shared.playbook_folder / "shop.toml").write_text("currency = ")
    for _ in range(2):
        worker.poll_playbook()
    report = shared.read_status()
    assert report is not None
    assert (report.error_count, report.since) == (2, T0 + 60_000)
    (shared.playbook_folder / "shop.toml").write_text('currency = "EUR"\n')
    shared.write_segments("cups")
    for _ in range(2):
        worker.poll_playbook()
    assert shared.read_status() is None


def test_unused_files_are_logged_once(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    (shared.playbook_folder / "campaign").mkdir()

    def warnings(*groups: str) -> list[str]:
        """The files in new warnings after a change to these segments."""
        if groups:
            shared.write_segments(*groups)
        with capture_logs() as logs:
            for _ in range(4):
                worker.poll_playbook()
        return [entry["file"] for entry in logs if "file" in entry]

    with capture_logs() as logs:
        worker = SimulatedWorker(shared)
    warned = [entry for entry in logs if "file" in entry]
    assert [(entry["log_level"], entry["file"]) for entry in warned] == [
        ("warning", "campaign/: unused folder; did you mean campaigns/?")
    ]
    assert warnings() == warnings("cups", "mugs") == [], "logged before"
    (shared.playbook_folder / "segments" / "pots.TOML").write_text("")
    assert warnings() == [], "an unused file causes no reload"
    assert warnings("cups") == [
        'segments/pots.TOML: unused file: files in segments/ end in .toml; did you mean "pots.toml"?'
    ]
    (shared.playbook_folder / "campaign").rename(shared.playbook_folder / "campagne")
    (shared.playbook_folder / "segments" / "bad.toml").write_text("when = 7")
    assert warnings() == ["campagne/: unused folder; did you mean campaigns/?"], "with errors too"


def test_unusable_playbook_is_reported_until_fixed(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    (shared.playbook_folder / "coupons").mkdir()
    (shared.playbook_folder / "coupons" / "ten.toml").write_text("percent = 10\n")
    for _ in range(4):
        worker.poll_playbook()
    report = shared.read_status()
    assert report is not None
    assert "Set ATTIMO_SECRET" in str(report.errors[0])
    (shared.playbook_folder / "coupons" / "ten.toml").write_text("percent = \n")
    for _ in range(2):
        worker.poll_playbook()
    (shared.playbook_folder / "coupons" / "ten.toml").write_text("percent = 10\n")
    for _ in range(2):
        worker.poll_playbook()
    assert shared.read_status() == report, "the same error as before"
    (shared.playbook_folder / "coupons" / "ten.toml").unlink()
    for _ in range(2):
        worker.poll_playbook()
    assert shared.read_status() is None


def test_compile_error_keeps_the_live_playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_few(playbook: Playbook) -> Rules:
        if len(playbook.segments) > 1:
            raise ValueError("51 exceed the maximum")
        return compile_rules(playbook)

    monkeypatch.setattr(playbook_reload, "compile_rules", compile_few)
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    shared.write_segments("cups", "mugs")
    for _ in range(4):
        worker.poll_playbook()
    report = shared.read_status()
    assert report is not None
    assert "51 exceed the maximum" in str(report.errors[0])
    assert set(worker.playbook.rules.segments_by_name) == {"cups"}
    shared.write_segments("cups")
    for _ in range(2):
        worker.poll_playbook()
    assert shared.read_status() is None


def test_first_playbook_with_errors_reports_no_live_version(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    (shared.playbook_folder / "shop.toml").write_text("currency = ")
    with pytest.raises(PlaybookError):
        SimulatedWorker(shared)
    report = shared.read_status()
    assert report is not None
    assert report.live_hash == ""
    assert "no playbook is live" in next(report.report_lines(str))


def test_worker_continues_when_status_cannot_be_written(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    shared.write_segments("cups")
    worker = SimulatedWorker(shared)
    (tmp_path / "run").write_text("not a folder")
    (shared.playbook_folder / "shop.toml").write_text("currency = ")
    with capture_logs() as logs:
        for _ in range(2):
            worker.poll_playbook()
    assert any("cannot write the playbook status file" in entry["event"] for entry in logs)
    shared.write_segments("cups", "mugs")
    (shared.playbook_folder / "shop.toml").write_text('currency = "EUR"\n')
    worker.wait_until_live("cups", "mugs")
