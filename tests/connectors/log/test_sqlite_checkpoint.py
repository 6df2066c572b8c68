"""Write-ahead logs begin anew while somebody writes all the time, and nothing of what was written is lost."""

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.log import sqlite_checkpoint
from connectors.log.log import LogError
from connectors.log.sqlite import SqliteLog, connect
from connectors.log.sqlite_checkpoint import WalCheckpointer, finish_checkpoint
from domain.record import NewRecord
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch

TIMEOUT = 30.0


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are long soon."""
    monkeypatch.setattr(sqlite_checkpoint, "RESTART_PAGES", 200)
    monkeypatch.setattr(sqlite_checkpoint, "WORTHWHILE_PAGES", 50)


@pytest.fixture
def checkpointer() -> Iterator[WalCheckpointer]:
    one = WalCheckpointer(interval=0.01)
    yield one
    one.close()


def checkpoint_sequence(path: Path) -> int:
    """How often the log began anew: the checkpoint sequence number of its header."""
    with open(f"{path}-wal", "rb") as log:  # nobody holds locks on this one
        return int.from_bytes(log.read(16)[12:])


@pytest.mark.usefixtures("small_limits")
def test_busy_store_restarts_its_wal(tmp_path: Path, checkpointer: WalCheckpointer) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, 4, checkpointer=checkpointer)
    try:
        store.claim([0], "me")
        n, first = 0, checkpoint_sequence(path)
        end = time.monotonic() + TIMEOUT
        while checkpoint_sequence(path) < first + 3:
            assert time.monotonic() < end, f"never begun anew, {n} commits"
            batch = WriteBatch()
            batch.persons[0, f"a:{n % 50}"] = b"%d" % n + bytes(2_000)
            store.commit(batch, [])
            store.maintain()
            n += 1
        assert os.stat(f"{path}-wal").st_size < 4_000 * 4_096
        for one in range(50):
            kept = store.person(0, f"a:{one}")
            assert kept is not None
            assert int(kept[:-2_000]) == max(k for k in range(n) if k % 50 == one)
    finally:
        store.close()


def test_store_and_log_use_the_same_checkpoint_settings(
    tmp_path: Path, checkpointer: WalCheckpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_checkpoint, "AUTOCHECKPOINT_PAGES", 123)
    monkeypatch.setattr(sqlite_checkpoint, "JOURNAL_SIZE_LIMIT", 456_000)
    store, kept = SqliteStore(tmp_path / "store.db", 4, checkpointer=checkpointer), connect(tmp_path / "log.db")
    try:
        for connection in (store._db, kept):
            assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (123,)
            assert connection.execute("PRAGMA journal_size_limit").fetchone() == (456_000,)
    finally:
        store.close()
        kept.close()


@pytest.mark.usefixtures("small_limits")
def test_busy_log_restarts_its_wal(tmp_path: Path) -> None:
    path = tmp_path / "log" / "internal.db"
    with SqliteLog(tmp_path, 4) as log:
        log._checkpointer.close()
        log._checkpointer = WalCheckpointer(interval=0.01)
        log.append([NewRecord("actions", b"a", b"the first")])
        n, first = 1, checkpoint_sequence(path)
        end = time.monotonic() + TIMEOUT
        while checkpoint_sequence(path) < first + 3:
            assert time.monotonic() < end, f"never begun anew, {n} appends"
            log.append([NewRecord("actions", b"a", b"x" * 3_000)])
            n += 1
        assert os.stat(f"{path}-wal").st_size < 4_000 * 4_096
        reader = log.reader([("actions", p) for p in range(4)], {})
        found = 0
        while records := reader.poll(1_000, 0):
            found += len(records)
        reader.close()
        assert found == n


def test_few_writes_are_checkpointed_rarely(tmp_path: Path) -> None:
    """Somebody who writes now and then does not make the disk sync each time."""
    folds = list[Path]()
    keeper = WalCheckpointer(on_checkpoint=folds.append, interval=0.01)
    path = tmp_path / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("CREATE TABLE t (a)")
    keeper.add(path)
    try:
        for n in range(100):
            writer.execute("INSERT INTO t VALUES (?)", (n,))
            time.sleep(0.01)
        assert 1 <= len(folds) <= 50
        assert not keeper.should_finish(path)
    finally:
        keeper.close()
        writer.close()


def test_checkpoint_keeps_a_readers_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    writer.execute("INSERT INTO t VALUES (1)")
    finish_checkpoint(writer)
    writer.execute("INSERT INTO t VALUES (2)")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (2,)
    reader.close()
    writer.close()


def test_failing_callback_does_not_stop_the_checkpointer(tmp_path: Path) -> None:
    """The thread goes on."""
    calls = list[int]()

    def fail(path: Path) -> None:
        calls.append(1)
        raise LogError("the file is gone")

    keeper = WalCheckpointer(on_checkpoint=fail, interval=0.01)
    path = tmp_path / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    keeper.add(path)
    try:
        end = time.monotonic() + TIMEOUT
        while len(calls) < 2:
            assert time.monotonic() < end
            writer.execute("INSERT INTO t VALUES (1)")
            time.sleep(0.01)
    finally:
        keeper.close()
        writer.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell which files are open")
def test_checkpoint_is_synced_before_the_wal_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[str]()
    monkeypatch.setattr(os, "fdatasync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    (tmp_path / "link").symlink_to(tmp_path)
    path = tmp_path / "link" / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    log = sqlite_checkpoint._WalFile(path)
    try:
        assert log.should_checkpoint()
        log.checkpoint()
        assert synced == [str((tmp_path / "one.db").resolve())]
        assert not log.should_checkpoint(), "nothing was written since"
    finally:
        log.close()
        writer.close()
