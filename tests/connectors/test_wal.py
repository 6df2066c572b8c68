"""Write-ahead logs begin anew while somebody writes all the time, and nothing of what was written is lost."""

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors import wal
from connectors.log import LogError
from connectors.log_sqlite import SqliteLog
from connectors.log_sqlite_file import connect
from connectors.wal import Keeper, finish
from domain.record import Outgoing
from state.store import Batch
from state.store_sqlite import SqliteStore

PATIENCE = 30.0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are long soon."""
    monkeypatch.setattr(wal, "LONG", 200)
    monkeypatch.setattr(wal, "MUCH", 50)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    one = Keeper(every=0.01)
    yield one
    one.close()


def begun(path: Path) -> int:
    """How often the log began anew: the checkpoint sequence number of its header."""
    with open(f"{path}-wal", "rb") as log:  # nobody holds locks on this one
        return int.from_bytes(log.read(16)[12:])


@pytest.mark.usefixtures("short")
def test_a_store_that_is_never_at_rest_begins_its_log_anew(tmp_path: Path, keeper: Keeper) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, 4, keeper=keeper)
    try:
        store.claim([0], "me")
        n, first = 0, begun(path)
        end = time.monotonic() + PATIENCE
        while begun(path) < first + 3:
            assert time.monotonic() < end, f"never begun anew, {n} commits"
            batch = Batch()
            batch.persons[0, f"a:{n % 50}"] = b"%d" % n + bytes(2_000)
            store.commit(batch, [])
            store.tidy()
            n += 1
        assert os.stat(f"{path}-wal").st_size < 4_000 * 4_096
        for one in range(50):
            kept = store.person(0, f"a:{one}")
            assert kept is not None
            assert int(kept[:-2_000]) == max(k for k in range(n) if k % 50 == one)
    finally:
        store.close()


def test_store_and_log_leave_their_logs_to_the_keeper_in_one_way(tmp_path: Path, keeper: Keeper,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "TOO_LONG", 123)
    monkeypatch.setattr(wal, "KEPT", 456_000)
    store, kept = SqliteStore(tmp_path / "store.db", 4, keeper=keeper), connect(tmp_path / "log.db")
    try:
        for connection in (store._db, kept):
            assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (123,)
            assert connection.execute("PRAGMA journal_size_limit").fetchone() == (456_000,)
    finally:
        store.close()
        kept.close()


@pytest.mark.usefixtures("short")
def test_a_log_that_is_always_written_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log" / "internal.db"
    with SqliteLog(tmp_path, 4) as log:
        log._keeper.close()
        log._keeper = Keeper(every=0.01)
        log.append([Outgoing("actions", b"a", b"the first")])
        n, first = 1, begun(path)
        end = time.monotonic() + PATIENCE
        while begun(path) < first + 3:
            assert time.monotonic() < end, f"never begun anew, {n} appends"
            log.append([Outgoing("actions", b"a", b"x" * 3_000)])
            n += 1
        assert os.stat(f"{path}-wal").st_size < 4_000 * 4_096
        reader = log.reader([("actions", p) for p in range(4)], {})
        found = 0
        while records := reader.poll(1_000, 0):
            found += len(records)
        reader.close()
        assert found == n


def test_little_is_not_folded_all_the_time(tmp_path: Path) -> None:
    """Somebody who writes now and then does not make the disk sync each time."""
    folds = list[Path]()
    keeper = Keeper(after=folds.append, every=0.01)
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
        assert not keeper.ready(path)
    finally:
        keeper.close()
        writer.close()


def test_a_reader_in_the_middle_keeps_its_view(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    writer.execute("INSERT INTO t VALUES (1)")
    finish(writer)
    writer.execute("INSERT INTO t VALUES (2)")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (2,)
    reader.close()
    writer.close()


def test_what_follows_a_fold_may_fail(tmp_path: Path) -> None:
    """The thread goes on."""
    calls = list[int]()

    def fail(path: Path) -> None:
        calls.append(1)
        raise LogError("the file is gone")

    keeper = Keeper(after=fail, every=0.01)
    path = tmp_path / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    keeper.add(path)
    try:
        end = time.monotonic() + PATIENCE
        while len(calls) < 2:
            assert time.monotonic() < end
            writer.execute("INSERT INTO t VALUES (1)")
            time.sleep(0.01)
    finally:
        keeper.close()
        writer.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell which files are open")
def test_what_was_folded_is_on_the_disk_before_the_writer_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[str]()
    monkeypatch.setattr(os, "fdatasync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    (tmp_path / "link").symlink_to(tmp_path)
    path = tmp_path / "link" / "one.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    log = wal._Log(path)
    try:
        assert log.is_worth_it()
        log.fold()
        assert synced == [str((tmp_path / "one.db").resolve())]
        assert not log.is_worth_it(), "nothing was written since"
    finally:
        log.close()
        writer.close()
