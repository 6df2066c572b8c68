"""Tests of retention: old records that are consumed are deleted; unread and young ones stay."""

import threading
from pathlib import Path

import pytest

from connectors.log import sqlite
from connectors.log.sqlite import SqliteLog
from domain.record import DEFAULT_PARTITIONS, SHARD_INPUT_STREAMS, NewRecord
from domain.settings import Settings
from flows.retention import NOTHING_READ, Retention, consumer_positions, trim_file
from flows.worker import DAY_MS, store_path
from state.store import outreach as store_outreach
from state.store.learner import LearnerStore
from state.store.outreach import OutreachStore
from state.store.sqlite import SqliteStore
from state.store.store import BatchRecord, ShardCheckpoint, WriteBatch

NEVER = threading.Event()


@pytest.fixture(autouse=True)
def write_ends_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write end offsets on every read."""
    monkeypatch.setattr(sqlite, "END_OFFSETS_INTERVAL", 0)


def write_days(folder: Path, stream: str, days: int) -> list[int]:
    """Append one record per day from day 1 on; return the offsets."""
    with SqliteLog(folder) as log:
        log.append([NewRecord(stream, b"ann", str(day).encode(), None, day * DAY_MS) for day in range(1, days + 1)])
    return stored_offsets(folder, stream)


def stored_offsets(folder: Path, stream: str) -> list[int]:
    with SqliteLog(folder) as log:
        reader = log.reader([(stream, p) for p in range(DEFAULT_PARTITIONS)], {})
        found = []
        while batch := reader.poll(1_000, 0.0):
            found += [record.offset for record in batch]
        reader.close()
    return found


def write_checkpoint(settings: Settings, **read: int) -> None:
    store = SqliteStore(store_path(settings), DEFAULT_PARTITIONS)
    store.claim(range(DEFAULT_PARTITIONS), "test")
    batch = WriteBatch()
    batch.checkpoints = {p: ShardCheckpoint(0, dict(read)) for p in range(DEFAULT_PARTITIONS)}
    store.commit(batch, [])
    store.close()


def test_old_records_are_trimmed_and_the_end_is_kept(tmp_path: Path) -> None:
    offsets = write_days(tmp_path, "clicks", 500)
    path = tmp_path / "log" / "public.db"
    assert trim_file(path, 100 * DAY_MS, {}, NEVER) == 399
    assert stored_offsets(tmp_path, "clicks") == offsets[399:]
    assert trim_file(path, 100 * DAY_MS, {}, NEVER) == 0
    with SqliteLog(tmp_path) as log:
        log.append([NewRecord("carts", b"ann", b"x", None, 9_000 * DAY_MS)])
    trim_file(path, DAY_MS, {}, NEVER)
    assert stored_offsets(tmp_path, "clicks") == []
    with SqliteLog(tmp_path) as log:
        assert max(log.end_offsets([("clicks", p) for p in range(DEFAULT_PARTITIONS)]).values()) == offsets[-1]


def test_unread_records_are_kept(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), retention_days=10)
    offsets = write_days(tmp_path, "clicks", 100)
    assert Retention(settings).trim_files() == 0, "no shard has read anything"
    write_checkpoint(settings, clicks=offsets[49])
    assert Retention(settings).trim_files() == 50
    write_checkpoint(settings, clicks=offsets[99])
    assert Retention(settings).trim_files() == 39
    assert stored_offsets(tmp_path, "clicks") == offsets[89:]


@pytest.mark.parametrize(
    "settings",
    [Settings(retention_days=0, retention_internal_days=0), Settings(retention_days=100, retention_internal_days=100)],
)
def test_young_records_are_kept(tmp_path: Path, settings: Settings) -> None:
    write_days(tmp_path, "actions", 100)
    placed = Settings(
        data=str(tmp_path),
        retention_days=settings.retention_days,
        retention_internal_days=settings.retention_internal_days,
    )
    assert Retention(placed).trim_files() == 0
    assert Retention(Settings(data=str(tmp_path))).trim_files() == 69, "actions have no consumer"


def test_records_unread_by_learner_or_outreach_are_kept(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    assert consumer_positions(settings) == {
        (stream, p): NOTHING_READ for stream in SHARD_INPUT_STREAMS for p in range(DEFAULT_PARTITIONS)
    }
    outcomes, messages = write_days(tmp_path, "outcomes", 100), write_days(tmp_path / "m", "messages", 100)
    learner = LearnerStore(tmp_path / "store" / "learner.db")
    outreach = OutreachStore(tmp_path / "store" / "outreach.db")  # stays open and locked
    (tmp_path / "m" / "store").symlink_to(tmp_path / "store")
    other = Settings(data=str(tmp_path / "m"))
    assert (Retention(settings).trim_files(), Retention(other).trim_files()) == (0, 0)
    learner.commit({}, dict.fromkeys(range(DEFAULT_PARTITIONS), outcomes[9]), {})
    outreach.commit(dict.fromkeys(range(DEFAULT_PARTITIONS), messages[19]), {})
    outreach.write_positions()
    assert store_outreach.read_positions(tmp_path / "store" / "outreach.db")[0] == messages[19]
    assert (Retention(settings).trim_files(), Retention(other).trim_files()) == (10, 20)
    learner.close()
    outreach.close()


def test_batch_records_are_pruned_with_their_records(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", DEFAULT_PARTITIONS)
    store.claim([0], "test")
    for day in range(1, 301):
        batch = WriteBatch()
        batch.batch_records = [BatchRecord(0, 0, day * DAY_MS, (), 0, "", "")]
        store.commit(batch, [])
    assert [store.prune_batches(251 * DAY_MS) for _ in range(4)] == [True, True, False, False]
    assert [batch_record.clock_after // DAY_MS for batch_record in store.batch_records(0)] == list(range(251, 301))
    store.close()
