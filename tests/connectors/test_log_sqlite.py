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

from connectors import log_sqlite_file, wal
from connectors.log import LogError
from connectors.log_sqlite import BULK, SqliteLog
from connectors.log_sqlite_reader import SqliteReader
from domain.record import Outgoing, Record
from domain.streams import LETTERS, PUBLIC, SHARD_INPUT
from tests.support import ROOT

PLACES = [(stream, partition) for stream in SHARD_INPUT for partition in range(4)]


def click(number: int, log_time: int | None = None, stream: str = "clicks", key: bytes = b"a") -> Outgoing:
    return Outgoing(stream, key, b"%d" % number, None, log_time)


def read_all(log: SqliteLog, limit: int = 1000) -> list[Record]:
    reader = log.reader(PLACES, {})
    found: list[Record] = []
    while batch := reader.poll(limit, 0):
        found += batch
    reader.close()
    return found


WRITER = """
import sys
from pathlib import Path
from connectors.log_sqlite import SqliteLog
from domain.record import Outgoing
log = SqliteLog(Path(sys.argv[1]), 4)
for number in range(1_000_000):
    log.append([Outgoing("clicks", b"a", b"%d" % (number * 3 + row)) for row in range(3)])
    print(number * 3 + 2, flush=True)
"""


def test_kill_9_in_mid_append_loses_nothing_acknowledged(tmp_path: Path) -> None:
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


def test_after_a_restart_of_the_machine_no_offset_is_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteLog(tmp_path, 4) as log:
        log.append([click(number) for number in range(10)])
        seen = read_all(log)[-1].offset
    # A power cut takes the last five, which a reader has seen already.
    with sqlite3.connect(tmp_path / "log" / "public.db") as file:
        file.execute("DELETE FROM records WHERE id > ?", (seen - 5,))
        file.execute("UPDATE sqlite_sequence SET seq = ?", (seen - 5,))
    file.close()
    monkeypatch.setattr(log_sqlite_file, "boot", lambda: "another start")
    with SqliteLog(tmp_path, 4) as log:
        log.append([click(11)])
        reader = log.reader(PLACES, dict.fromkeys([place for place in PLACES if place[0] == "clicks"], seen))
        assert [int(record.value) for record in reader.poll(10, 0)] == [11]
        reader.close()
        assert [record.offset > seen for record in read_all(log)[-1:]] == [True]
    with SqliteLog(tmp_path, 4) as log:  # the same start of the machine: no jump
        before = log.ends(PLACES)
        log.append([click(12)])
        assert max(log.ends(PLACES).values()) == max(before.values()) + 1


def test_a_position_of_another_log_is_an_error(tmp_path: Path) -> None:
    with SqliteLog(tmp_path, 4) as log:
        log.append([click(1)])
        with pytest.raises(LogError, match="lost records"):
            log.reader(PLACES, {("clicks", 0): 2})


def test_log_time_does_not_follow_a_clock_that_is_set_back(tmp_path: Path) -> None:
    times = iter([1000, 400, 1500])
    with SqliteLog(tmp_path, 4, now=lambda: next(times)) as log:
        for number in range(3):
            log.append([click(number)])
        log._now = lambda: 2000
        assert [record.log_time for record in read_all(log)] == [1000, 1000, 1500]


def test_an_earlier_log_time_is_refused_in_public_and_kept_for_effects(tmp_path: Path) -> None:
    with SqliteLog(tmp_path, 4, now=lambda: 9000) as log:
        log.append([click(1, 5000)])
        with pytest.raises(LogError, match="already holds later records"):
            log.append([click(2, 5001), click(3, 4999)])
        assert len(read_all(log)) == 1, "a refused append leaves nothing behind"
        for moment in (5000, 4000, 6000):
            log.append([click(moment, moment, LETTERS)])
        found = [record for record in read_all(log) if record.stream == LETTERS]
        assert [record.value for record in found] == [b"5000", b"4000", b"6000"]
        assert [record.log_time for record in found] == [5000, 5000, 6000]


def test_a_bulk_append_leaves_room_for_others(tmp_path: Path) -> None:
    sizes: list[int] = []
    with SqliteLog(tmp_path, 4) as log:
        write = log._write

        def counted(file: str, records: list[Outgoing]) -> None:
            sizes.append(len(records))
            write(file, records)

        log._write = counted  # type: ignore[method-assign, assignment]  # it counts, and then does the same
        log.append([click(number) for number in range(BULK * 2 + 7)])
    assert sizes == [BULK, BULK, 7]


def test_records_of_one_moment_are_merged_however_many(tmp_path: Path) -> None:
    streams = [*PUBLIC, LETTERS]
    with SqliteLog(tmp_path, 4, now=lambda: 7000) as log:
        for number in range(200):
            log.append([click(number, 5000, streams[number % 5])])
        log.append([click(200, 6000)])
        records = read_all(log, limit=10)
    assert [record.stream for record in records] == [stream for stream in streams for _ in range(40)] + ["clicks"]


@pytest.mark.parametrize("wanted", [
    [("clicks", 1), ("carts", 2)],
    [("letters", 0)],
    [("clicks", partition) for partition in (0, 2)],
    [("clicks", 3), ("letters", 3), ("models", 0)],
])
def test_only_the_places_asked_for_are_read(tmp_path: Path, wanted: list[tuple[str, int]]) -> None:
    with SqliteLog(tmp_path, 4) as log:
        for stream in ("clicks", "carts", "actions", "letters"):
            log.append([Outgoing(stream, None, b"x", partition) for partition in range(4)])
        log.append([Outgoing("models", b"m", b"x")])
        reader = log.reader(wanted, {})
        found = [record[:2] for _ in range(3) for record in reader.poll(10, 0)]
        assert sorted(found) == sorted(wanted)
        assert reader.caught_up(0)
        reader.close()


def test_a_place_without_news_does_not_make_the_start_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old positions of quiet places are not where reading begins."""
    with SqliteLog(tmp_path, 4) as log:
        log.append([Outgoing("people", None, b"x", 0)])
        start = {("people", 0): log.ends([("people", 0)])["people", 0]}
        log.append([Outgoing("clicks", None, b"x", 1) for _ in range(500)])
        start["clicks", 1] = log.ends([("clicks", 1)])["clicks", 1]
        reader = log.reader(PLACES, start)
        assert {tail.position for tail in reader._tails} == {501, 0}
        reader.close()
        # A restart of the keeper's list gives the same.
        monkeypatch.setattr(log_sqlite_file, "ENDS_EVERY", 1)
        first = log.ends(PLACES)
        log.append([Outgoing("clicks", None, b"x", 2)])
        assert log.ends(PLACES) == {**first, ("clicks", 2): 502}
        assert log.ends(PLACES) == {**first, ("clicks", 2): 502}


def test_the_end_is_not_known_while_somebody_is_appending(tmp_path: Path) -> None:
    clock = 1000

    def now() -> int:
        return clock

    with SqliteLog(tmp_path, 4, now=now) as log:
        reader: SqliteReader = log.reader(PLACES, {})
        reader.poll(10, 0)
        clock = 1100
        reader.poll(10, 0)
        assert reader.polled_at() == 1100
        other = sqlite3.connect(tmp_path / "log" / "public.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # it has taken its log time, and commits later
        other.execute("INSERT INTO records (stream, partition, time, value) VALUES ('clicks', 0, 1150, 'x')")
        clock = 1200
        assert reader.poll(10, 0) == []
        assert reader.polled_at() == 1100
        other.execute("COMMIT")
        other.close()
        assert [record.log_time for record in reader.poll(10, 0)] == [1150]
        clock = 1300
        reader.poll(10, 0)
        assert reader.polled_at() == 1300
        reader.close()


def test_a_writer_waits_for_another_and_then_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteLog(tmp_path, 4) as log:
        other = sqlite3.connect(tmp_path / "log" / "public.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(log_sqlite_file, "PATIENCE", 0.05)
        with pytest.raises(LogError, match="locked"):
            log.append([click(1)])
        other.execute("ROLLBACK")
        other.close()
        log.append([click(2)])
        assert [int(record.value) for record in read_all(log)] == [2]


def test_sync_full_syncs_every_commit(tmp_path: Path) -> None:
    for sync, expected in (("normal", 1), ("full", 2)):
        with SqliteLog(tmp_path / sync, 4, sync) as log:
            log.append([click(1)])
            assert log._connections["public"].execute("PRAGMA synchronous").fetchone() == (expected,)


def test_a_long_wal_is_checkpointed_behind_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "MUCH", 50)
    with SqliteLog(tmp_path, 4) as log:
        for _ in range(30):
            log.append([Outgoing("clicks", b"a", b"x" * 1000) for _ in range(50)])
        main = tmp_path / "log" / "public.db"
        while main.stat().st_size < 1_000_000:  # the keeper looks five times a second; the test has a limit of its own
            time.sleep(0.05)
        assert len(read_all(log)) == 1500


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 4)
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append([click(1)])


def test_a_file_of_a_later_program_is_left_alone(tmp_path: Path) -> None:
    SqliteLog(tmp_path, 4).close()
    with sqlite3.connect(tmp_path / "log" / "models.db") as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(LogError, match="version 99"):
        SqliteLog(tmp_path, 4)


def test_a_file_that_is_no_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "public.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LogError, match=r"public\.db"):
        SqliteLog(tmp_path, 4)


def test_random_reads_are_what_was_appended(tmp_path: Path, random_sizes: Callable[[int], list[int]]) -> None:
    """Appends and polls of any size, in turns: nothing is lost, doubled or out of order."""
    with SqliteLog(tmp_path, 4) as log:
        reader = log.reader(PLACES, {})
        written: list[int] = []
        found: list[Record] = []
        for size in random_sizes(60):
            fresh = range(len(written), len(written) + size)
            log.append([click(number, None, PUBLIC[number % 4], b"%d" % (number % 9)) for number in fresh])
            written += fresh
            found += reader.poll(size // 2 + 1, 0)
        while batch := reader.poll(50, 0):
            found += batch
        reader.close()
    assert sorted(int(record.value) for record in found) == written
    for place in PLACES:
        numbers = [json.loads(record.value) for record in found if (record.stream, record.partition) == place]
        assert numbers == sorted(numbers)


@pytest.fixture
def random_sizes() -> Callable[[int], list[int]]:
    """Sizes from 1 to 120, the same in every run."""
    from random import Random

    return lambda count: [Random(count * 1000 + n).randint(1, 120) for n in range(count)]
