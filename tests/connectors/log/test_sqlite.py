"""What the embedded log promises beyond the conformance suite: crashes, power cuts, clocks."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.log import sqlite, sqlite_checkpoint
from connectors.log.log import LogError
from connectors.log.sqlite import MAX_TRANSACTION_ROWS, SqliteLog, SqliteReader
from domain.record import PUBLIC_STREAMS, SHARD_INPUT_STREAMS, SHARD_MESSAGES, NewRecord, Record
from tests.harness.support import ROOT

STREAM_PARTITIONS = [(stream, partition) for stream in SHARD_INPUT_STREAMS for partition in range(4)]


def make_click(number: int, log_time: int | None = None, stream: str = "clicks", key: bytes = b"a") -> NewRecord:
    return NewRecord(stream, key, b"%d" % number, None, log_time)


def read_all(log: SqliteLog, limit: int = 1000) -> list[Record]:
    reader = log.reader(STREAM_PARTITIONS, {})
    found: list[Record] = []
    while batch := reader.poll(limit, 0):
        found += batch
    reader.close()
    return found


WRITER = """
import sys
from pathlib import Path
from connectors.log.sqlite import SqliteLog
from domain.record import NewRecord
log = SqliteLog(Path(sys.argv[1]), 4)
for number in range(1_000_000):
    log.append([NewRecord("clicks", b"a", b"%d" % (number * 3 + row)) for row in range(3)])
    print(number * 3 + 2, flush=True)
"""


def test_kill_9_during_append_keeps_acknowledged_records(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(150)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().splitlines() if line]
        writer.stdout.close()
        writer.wait(10)
        with SqliteLog(tmp_path, 4) as log:
            numbers = [int(record.value) for record in read_all(log)]
            last = len(numbers) - 1 - numbers[::-1].index(0)  # where the last writer began
            numbers = numbers[last:]
            assert numbers == list(range(len(numbers)))
            assert len(numbers) > told[-1]
            assert len(numbers) % 3 == 0, "an append is there as a whole or not at all"


def test_offsets_are_not_reused_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteLog(tmp_path, 4) as log:
        log.append([make_click(number) for number in range(10)])
        seen = read_all(log)[-1].offset
    # A power cut takes the last five, which a reader has seen already.
    with sqlite3.connect(tmp_path / "log" / "public.db") as file:
        file.execute("DELETE FROM records WHERE id > ?", (seen - 5,))
        file.execute("UPDATE sqlite_sequence SET seq = ?", (seen - 5,))
    file.close()
    monkeypatch.setattr(sqlite, "boot_id", lambda: "another start")
    with SqliteLog(tmp_path, 4) as log:
        log.append([make_click(11)])
        reader = log.reader(
            STREAM_PARTITIONS, dict.fromkeys([place for place in STREAM_PARTITIONS if place[0] == "clicks"], seen)
        )
        assert [int(record.value) for record in reader.poll(10, 0)] == [11]
        reader.close()
        assert [record.offset > seen for record in read_all(log)[-1:]] == [True]
    with SqliteLog(tmp_path, 4) as log:  # the same start of the machine: no jump
        before = log.end_offsets(STREAM_PARTITIONS)
        log.append([make_click(12)])
        assert max(log.end_offsets(STREAM_PARTITIONS).values()) == max(before.values()) + 1


def test_offset_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    with SqliteLog(tmp_path, 4) as log:
        log.append([make_click(1)])
        with pytest.raises(LogError, match="lost records"):
            log.reader(STREAM_PARTITIONS, {("clicks", 0): 2})


def test_log_time_never_goes_back(tmp_path: Path) -> None:
    times = iter([1000, 400, 1500])
    with SqliteLog(tmp_path, 4, clock=lambda: next(times)) as log:
        for number in range(3):
            log.append([make_click(number)])
        log._clock = lambda: 2000
        assert [record.log_time for record in read_all(log)] == [1000, 1000, 1500]


def test_earlier_log_time_is_rejected_on_public_streams(tmp_path: Path) -> None:
    with SqliteLog(tmp_path, 4, clock=lambda: 9000) as log:
        log.append([make_click(1, 5000)])
        with pytest.raises(LogError, match="already holds later records"):
            log.append([make_click(2, 5001), make_click(3, 4999)])
        assert len(read_all(log)) == 1, "a refused append leaves nothing behind"
        for moment in (5000, 4000, 6000):
            log.append([make_click(moment, moment, SHARD_MESSAGES)])
        found = [record for record in read_all(log) if record.stream == SHARD_MESSAGES]
        assert [record.value for record in found] == [b"5000", b"4000", b"6000"]
        assert [record.log_time for record in found] == [5000, 5000, 6000]


def test_bulk_append_commits_in_small_batches(tmp_path: Path) -> None:
    sizes: list[int] = []
    with SqliteLog(tmp_path, 4) as log:
        write = log._write_transaction

        def counted(file: str, records: list[NewRecord]) -> None:
            sizes.append(len(records))
            write(file, records)

        log._write_transaction = counted  # type: ignore[method-assign, assignment]  # it counts, and then does the same
        log.append([make_click(number) for number in range(MAX_TRANSACTION_ROWS * 2 + 7)])
    assert sizes == [MAX_TRANSACTION_ROWS, MAX_TRANSACTION_ROWS, 7]


def test_records_with_equal_log_time_are_merged(tmp_path: Path) -> None:
    streams = [*PUBLIC_STREAMS, SHARD_MESSAGES]
    with SqliteLog(tmp_path, 4, clock=lambda: 7000) as log:
        for number in range(200):
            log.append([make_click(number, 5000, streams[number % 5])])
        log.append([make_click(200, 6000)])
        records = read_all(log, limit=10)
    assert [record.stream for record in records] == [stream for stream in streams for _ in range(40)] + ["clicks"]


@pytest.mark.parametrize(
    "wanted",
    [
        [("clicks", 1), ("carts", 2)],
        [("shard-messages", 0)],
        [("clicks", partition) for partition in (0, 2)],
        [("clicks", 3), ("shard-messages", 3), ("models", 0)],
    ],
)
def test_only_requested_partitions_are_read(tmp_path: Path, wanted: list[tuple[str, int]]) -> None:
    with SqliteLog(tmp_path, 4) as log:
        for stream in ("clicks", "carts", "actions", "shard-messages"):
            log.append([NewRecord(stream, None, b"x", partition) for partition in range(4)])
        log.append([NewRecord("models", b"m", b"x")])
        reader = log.reader(wanted, {})
        found = [record[:2] for _ in range(3) for record in reader.poll(10, 0)]
        assert sorted(found) == sorted(wanted)
        assert reader.caught_up(0)
        reader.close()


def test_idle_partition_does_not_slow_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old positions of quiet places are not where reading begins."""
    with SqliteLog(tmp_path, 4) as log:
        log.append([NewRecord("people", None, b"x", 0)])
        start = {("people", 0): log.end_offsets([("people", 0)])["people", 0]}
        log.append([NewRecord("clicks", None, b"x", 1) for _ in range(500)])
        start["clicks", 1] = log.end_offsets([("clicks", 1)])["clicks", 1]
        reader = log.reader(STREAM_PARTITIONS, start)
        assert {tail.position for tail in reader._cursors} == {501, 0}
        reader.close()
        # A restart of the keeper's list gives the same.
        monkeypatch.setattr(sqlite, "END_OFFSETS_INTERVAL", 1)
        first = log.end_offsets(STREAM_PARTITIONS)
        log.append([NewRecord("clicks", None, b"x", 2)])
        assert log.end_offsets(STREAM_PARTITIONS) == {**first, ("clicks", 2): 502}
        assert log.end_offsets(STREAM_PARTITIONS) == {**first, ("clicks", 2): 502}


def test_end_is_unknown_during_an_append(tmp_path: Path) -> None:
    clock = 1000

    def now() -> int:
        return clock

    with SqliteLog(tmp_path, 4, clock=now) as log:
        reader: SqliteReader = log.reader(STREAM_PARTITIONS, {})
        reader.poll(10, 0)
        clock = 1100
        reader.poll(10, 0)
        assert reader.watermark() == 1100
        other = sqlite3.connect(tmp_path / "log" / "public.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # it has taken its log time, and commits later
        other.execute("INSERT INTO records (stream, partition, log_time, value) VALUES ('clicks', 0, 1150, 'x')")
        clock = 1200
        assert reader.poll(10, 0) == []
        assert reader.watermark() == 1100
        other.execute("COMMIT")
        other.close()
        assert [record.log_time for record in reader.poll(10, 0)] == [1150]
        clock = 1300
        reader.poll(10, 0)
        assert reader.watermark() == 1300
        reader.close()


def test_writer_times_out_waiting_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteLog(tmp_path, 4) as log:
        other = sqlite3.connect(tmp_path / "log" / "public.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.05)
        with pytest.raises(LogError, match="locked"):
            log.append([make_click(1)])
        other.execute("ROLLBACK")
        other.close()
        log.append([make_click(2)])
        assert [int(record.value) for record in read_all(log)] == [2]


def test_sync_full_syncs_every_commit(tmp_path: Path) -> None:
    for sync, expected in (("normal", 1), ("full", 2)):
        with SqliteLog(tmp_path / sync, 4, sync) as log:
            log.append([make_click(1)])
            assert log._connections["public"].execute("PRAGMA synchronous").fetchone() == (expected,)


def test_long_wal_is_checkpointed_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_checkpoint, "WORTHWHILE_PAGES", 50)
    with SqliteLog(tmp_path, 4) as log:
        for _ in range(30):
            log.append([NewRecord("clicks", b"a", b"x" * 1000) for _ in range(50)])
        main = tmp_path / "log" / "public.db"
        while main.stat().st_size < 1_000_000:  # the keeper looks five times a second; the test has a limit of its own
            time.sleep(0.05)
        assert len(read_all(log)) == 1500


def test_closed_log_rejects_appends(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 4)
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append([make_click(1)])


def test_newer_file_version_is_rejected(tmp_path: Path) -> None:
    SqliteLog(tmp_path, 4).close()
    with sqlite3.connect(tmp_path / "log" / "models.db") as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(LogError, match="version 99"):
        SqliteLog(tmp_path, 4)


def test_invalid_log_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "public.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LogError, match=r"public\.db"):
        SqliteLog(tmp_path, 4)


def test_random_reads_return_appended_records(tmp_path: Path, random_sizes: Callable[[int], list[int]]) -> None:
    """Appends and polls of any size, in turns: nothing is lost, doubled or out of order."""
    with SqliteLog(tmp_path, 4) as log:
        reader = log.reader(STREAM_PARTITIONS, {})
        written: list[int] = []
        found: list[Record] = []
        for size in random_sizes(60):
            fresh = range(len(written), len(written) + size)
            log.append([make_click(number, None, PUBLIC_STREAMS[number % 4], b"%d" % (number % 9)) for number in fresh])
            written += fresh
            found += reader.poll(size // 2 + 1, 0)
        while batch := reader.poll(50, 0):
            found += batch
        reader.close()
    assert sorted(int(record.value) for record in found) == written
    for place in STREAM_PARTITIONS:
        numbers = [json.loads(record.value) for record in found if (record.stream, record.partition) == place]
        assert numbers == sorted(numbers)


@pytest.fixture
def random_sizes() -> Callable[[int], list[int]]:
    """Sizes from 1 to 120, the same in every run."""
    from random import Random

    return lambda count: [Random(count * 1000 + n).randint(1, 120) for n in range(count)]
