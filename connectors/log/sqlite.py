"""The embedded log for one machine: SQLite files in WAL mode, without a server.

    data/log/public.db     clicks, carts, purchases, people
    data/log/internal.db   shard-messages, actions, messages, outcomes, dead-letters
    data/log/models.db     models

An offset is the id of a row. The streams of a file share the ids, so the offsets of a stream partition increase with
gaps. Ids and log times are assigned inside BEGIN IMMEDIATE, so ids, commits and log times have the same order.

- A record with its own log time (recorded history, effects) keeps it. In the public file log times never decrease: an
  earlier one is rejected. The other files hold effects of shards with different clocks, so log times may decrease
  there; a reader returns the shard messages of a partition with non-decreasing log times.
- An append of more than 50 records commits 50 at a time. In the public file it pauses between commits, so that single
  appends are not delayed.
- A process crash loses nothing; neither does a power cut if `log_sync` is "full". With "normal" a power cut may lose
  the last commits, so ids jump ahead after a restart of the machine: an offset is never assigned twice.

A reader runs one SELECT per file and poll, merges the files by log time, and is woken by the writers.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, Self

from connectors.log.log import AT_END, LogError, MergeInput, StreamPartition, partition_for, release_ready
from connectors.log.sqlite_checkpoint import WalCheckpointer, disable_autocheckpoint, finish_checkpoint
from connectors.log.sqlite_wakeup import Notifier, WakeupSocket, wakeup_folder
from domain.record import (
    DEFAULT_PARTITIONS,
    INTERNAL_STREAMS,
    MODELS,
    PUBLIC_STREAMS,
    SHARD_INPUT_STREAMS,
    SHARD_MESSAGES,
    NewRecord,
    Record,
    partition_count,
)

FILES: Final = ("public", "internal", "models")
FILE_OF: Final = {
    **dict.fromkeys(PUBLIC_STREAMS, "public"),
    **dict.fromkeys(INTERNAL_STREAMS, "internal"),
    MODELS: "models",
}

SCHEMA_VERSION: Final = 2
"""Version of the tables, in PRAGMA user_version."""
RESTART_ID_GAP: Final = 1_000_000
"""Added to ids after a restart of the machine: more rows than are written between two syncs of the WAL."""
LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for another writer."""

_SCHEMA = """
CREATE TABLE records (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    stream    TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    log_time  INTEGER NOT NULL,
    key       BLOB,
    value     BLOB    NOT NULL
);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE end_offsets (
    stream      TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    last_offset INTEGER NOT NULL,
    PRIMARY KEY (stream, partition)
) WITHOUT ROWID;
"""

END_OFFSETS_INTERVAL: Final = 10_000
"""New ids after which the table end_offsets is updated."""


def sqlite_error_text(error: sqlite3.Error) -> str:
    """Return the message of an SQLite error, with a hint how to fix it if there is one."""
    message = str(error)
    if "readonly" in message or "unable to open" in message:
        return f"{message}: check the owner and permissions of the data folder"
    if "disk is full" in message:
        return f"{message}: nothing was written; free disk space and try again"
    return message


def connect(path: Path, sync: str = "normal", lock_timeout: float = LOCK_TIMEOUT) -> sqlite3.Connection:
    """Open a connection in autocommit mode that waits `lock_timeout` seconds for a lock."""
    try:
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        disable_autocheckpoint(connection)
        if lock_timeout != LOCK_TIMEOUT:
            connection.execute(f"PRAGMA busy_timeout = {round(lock_timeout * 1000)}")
    except sqlite3.Error as error:
        raise LogError(f"{path}: {sqlite_error_text(error)}") from error
    return connection


def begin_immediate(connection: sqlite3.Connection) -> None:
    """BEGIN IMMEDIATE, waiting for other writers in steps of 50 µs to 2 ms (SQLite's own wait starts at 1 ms).

    For connections with a busy timeout of 0.
    """
    pause = 0.000_05
    deadline = 0.0
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise LogError(sqlite_error_text(error)) from error
            now = time.monotonic()
            deadline = deadline or now + LOCK_TIMEOUT
            if now > deadline:
                raise LogError("the log is locked by another process; nothing was written") from error
        time.sleep(pause)
        pause = min(pause * 2, 0.002)


def create_or_check(path: Path, partitions: int) -> None:
    """Create the file or check its version and partitions; after a restart of the machine, advance the ids."""
    connection = connect(path, "full", 0)
    try:
        _enable_wal(connection)
        begin_immediate(connection)
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("partitions", str(partitions)), ("boot_id", boot_id()), ("end_offsets_through", "0")],
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _check_schema(connection, path, partitions)
        if (current := boot_id()) != _read_meta(connection, "boot_id") or not current:
            connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'records'", (RESTART_ID_GAP,))
            connection.execute("UPDATE meta SET value = ? WHERE name = 'boot_id'", (current,))
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise LogError(f"{path}: {sqlite_error_text(error)}") from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode; several processes may do so at the same time."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def _check_schema(connection: sqlite3.Connection, path: Path, partitions: int) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise LogError(
            f"{path} has schema version {version}; this release reads version {SCHEMA_VERSION}: use a new data folder"
        )
    created = int(_read_meta(connection, "partitions"))
    if created != partitions:
        raise LogError(
            f"{path} was created with {created} partitions, but the setting is {partitions}:"
            f" the count is fixed when the log is created; set partitions = {created}, or use another data folder"
        )


def _read_meta(connection: sqlite3.Connection, name: str) -> str:
    return str(connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])


def boot_id() -> str:
    """Return an id of the current boot of the machine; empty if unknown (then ids advance at every start).

    Only a restart of the machine can lose commits that a process has read.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def last_id(connection: sqlite3.Connection) -> int:
    """Return the last id that was assigned or skipped; 0 if there is none."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return int(found[0]) if found else 0


def read_end_offsets(path: Path) -> tuple[dict[StreamPartition, int], int]:
    """Return the last offset of each non-empty stream partition, and the last offset of the file.

    The result is stored in the file, so that the next call scans new rows only.
    """
    connection = connect(path)
    try:
        connection.execute("BEGIN")
        upto, last = int(_read_meta(connection, "end_offsets_through")), last_id(connection)
        found = {
            (row[0], row[1]): row[2]
            for row in connection.execute("SELECT stream, partition, last_offset FROM end_offsets")
        }
        fresh = connection.execute(
            "SELECT stream, partition, max(id) FROM records WHERE id > ? GROUP BY stream, partition", (upto,)
        ).fetchall()
        connection.execute("COMMIT")
        found |= {(row[0], row[1]): row[2] for row in fresh}
        if last > upto + END_OFFSETS_INTERVAL:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO end_offsets VALUES (?, ?, ?) ON CONFLICT (stream, partition)"
                " DO UPDATE SET last_offset = max(last_offset, excluded.last_offset)",
                fresh,
            )
            connection.execute(
                "UPDATE meta SET value = max(CAST(value AS INTEGER), ?) WHERE name = 'end_offsets_through'", (last,)
            )
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise LogError(f"{path}: {sqlite_error_text(error)}") from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()
    return found, last


WRITER_CHECK_INTERVAL_MS: Final = 5
"""Milliseconds between two checks that no append is in progress."""
UNMERGED_POLL_INTERVAL_MS: Final = 20
"""Milliseconds between two reads of unmerged files (`models`) if merged files are read too."""
MAX_SAME_TIME_ROWS: Final = 1 << 17
"""Rows with one log time that are buffered for the merge; further rows keep the order of the append."""
LAG_SAMPLE_ROWS: Final = 1_000
"""Rows that are counted for the lag; a longer lag is estimated."""
MAX_SCANNED_IDS: Final = 50_000
"""Maximum ids that one filtered poll scans."""

_SELECT_RECORDS: Final = "SELECT stream, partition, id, log_time, key, value FROM records WHERE id > ? AND id <= ?"


class FileCursor(MergeInput):
    """Reads one file forward from a position."""

    def __init__(
        self,
        path: Path,
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        partitions: int,
    ) -> None:
        super().__init__()
        found, last = read_end_offsets(path)
        self._start_offsets: dict[StreamPartition, int] = {}
        for place in stream_partitions:
            begin = positions.get(place, -1)
            if begin > last:
                raise LogError(
                    f"{place[0]}/{place[1]}: the position is offset {begin}, but {path} ends at {last}:"
                    " the log has lost records, or it is not the log that was read before"
                )
            # A stream partition without new records starts at the end, so that nothing is scanned for it.
            self._start_offsets[place] = last if found.get(place, -1) <= begin else begin
        streams = sorted({stream for stream, _ in stream_partitions})
        numbers = sorted({partition for _, partition in stream_partitions})
        where = ""
        if len(streams) < sum(FILE_OF[stream] == FILE_OF[streams[0]] for stream in FILE_OF):
            where += f" AND stream IN ({', '.join(repr(stream) for stream in streams)})"
        if len(numbers) < partition_count(streams[0], partitions):
            where += f" AND partition IN ({', '.join(map(str, numbers))})"
        self._reads_all = not where
        self._is_monotonic = FILE_OF[streams[0]] != FILE_OF[SHARD_MESSAGES]
        self._last_log_times: dict[int, int] = {}
        self._select = f"{_SELECT_RECORDS}{where} ORDER BY id LIMIT ?"
        self.position = min(self._start_offsets.values())
        # Up to here rows are filtered one by one; after it, every selected row is returned.
        is_product = len(streams) * len(numbers) == len(self._start_offsets)
        self._filter_until = max(self._start_offsets.values()) if is_product else AT_END
        self._connection = connect(path)
        self._lock_probe = connect(path, lock_timeout=0)
        self.at_end = False

    def read(self, limit: int) -> None:
        """Read up to `limit` more rows."""
        try:
            last = upto = AT_END
            if not self._reads_all:  # do not scan the filtered rows again
                last = last_id(self._connection)
                if last <= self.position:
                    self.watermark, self.at_end = AT_END, True
                    return
                upto = min(last, self.position + MAX_SCANNED_IDS)
            rows = self._connection.execute(self._select, (self.position, upto, limit)).fetchall()
        except sqlite3.Error as error:
            raise LogError(f"the log cannot be read: {sqlite_error_text(error)}") from error
        if rows:
            before, self.position = self.position, rows[-1][2]
            records = list(map(Record._make, rows))
            if before < self._filter_until:
                start = self._start_offsets
                records = [record for record in records if record[2] > start.get(record[:2], AT_END)]
            self.records += records if self._is_monotonic else self._clamp_log_times(records)
            self.watermark = max(self.watermark, rows[-1][3]) if self.watermark != AT_END else rows[-1][3]
        self.at_end = len(rows) < limit and upto == last
        if self.at_end:
            self.watermark = AT_END
        if len(rows) < limit and upto != AT_END:
            self.position = max(self.position, upto)

    def _clamp_log_times(self, records: list[Record]) -> list[Record]:
        """Make log times non-decreasing within a partition: shards with different clocks wrote the records."""
        seen = self._last_log_times
        for index, record in enumerate(records):
            last = seen.get(record[1], 0)
            if record[3] < last:
                records[index] = record._replace(log_time=last)
            else:
                seen[record[1]] = record[3]
        return records

    def skip_read(self) -> None:
        """Skip reading in this poll; the end of the file is unknown then."""
        if self.records:
            self.watermark, self.at_end = self.records[-1][3], False

    def lag(self) -> dict[str, int]:
        """Return the number of unread rows by stream."""
        last = self._connection.execute("SELECT max(id) FROM records").fetchone()[0] or 0
        if last <= self.position:
            return {}
        counts = dict(
            self._connection.execute(
                "SELECT stream, count(*) FROM (SELECT stream FROM records WHERE id > ? LIMIT ?) GROUP BY stream",
                (self.position, LAG_SAMPLE_ROWS),
            ).fetchall()
        )
        counted = sum(counts.values())
        scale = (last - self.position) / counted if counted == LAG_SAMPLE_ROWS else 1
        return {stream: round(count * scale) for stream, count in counts.items()}

    def no_writer_active(self) -> bool:
        """Return True if no append is in progress: later appends then get a later log time."""
        try:
            self._lock_probe.execute("BEGIN IMMEDIATE")
            self._lock_probe.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise LogError(f"the log cannot be read: {sqlite_error_text(error)}") from error
        return True

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._lock_probe.close()


class SqliteReader:
    """Implements `connectors.log.log.Reader`."""

    def __init__(
        self,
        folder: Path,
        wakeup_folder: Path,
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        partitions: int,
        clock: Callable[[], int],
    ) -> None:
        for stream, partition in stream_partitions:
            if stream not in FILE_OF or not 0 <= partition < partition_count(stream, partitions):
                raise LogError(f"the log has no stream partition {stream}/{partition}")
        self._clock = clock
        files = [file for file in FILES if any(FILE_OF[stream] == file for stream, _ in stream_partitions)]
        self._wakeup_socket = WakeupSocket(wakeup_folder, sorted({stream for stream, _ in stream_partitions}))
        self._cursors = [
            FileCursor(
                folder / f"{file}.db",
                [place for place in stream_partitions if FILE_OF[place[0]] == file],
                positions,
                partitions,
            )
            for file in files
        ]
        shards = {FILE_OF[stream] for stream in SHARD_INPUT_STREAMS}
        self._merged_cursors = [cursor for cursor, file in zip(self._cursors, files, strict=True) if file in shards]
        self._unmerged_cursors = [
            cursor for cursor, file in zip(self._cursors, files, strict=True) if file not in shards
        ]
        self._streams = sorted({stream for stream, _ in stream_partitions})
        self._ready: list[Record] = []
        self._at_end = False
        self._watermark = 0
        self._writer_checked_at = 0
        self._unmerged_polled_at = 0

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """Return up to `limit` new records; wait up to `timeout` seconds for the first one."""
        if self._ready:
            return self._pop_ready(limit)
        self._read_files(limit)
        if self._ready or timeout <= 0:
            return self._pop_ready(limit)
        deadline = time.monotonic() + timeout
        while not self._ready and (left := deadline - time.monotonic()) > 0:
            self._wakeup_socket.wait(left)
            self._read_files(limit)
        return self._pop_ready(limit)

    def _pop_ready(self, limit: int) -> list[Record]:
        records = self._ready
        if len(records) > limit:
            records, self._ready = records[:limit], records[limit:]
        else:
            self._ready = []
        return records

    def _read_files(self, limit: int) -> None:
        """Read the files and release what can be merged."""
        now = self._clock()
        no_append_in_progress = False
        if self._at_end and not 0 <= now - self._writer_checked_at < WRITER_CHECK_INTERVAL_MS:
            self._writer_checked_at = now
            no_append_in_progress = all(cursor.no_writer_active() for cursor in self._merged_cursors)
        if not self._merged_cursors or not 0 <= now - self._unmerged_polled_at < UNMERGED_POLL_INTERVAL_MS:
            self._unmerged_polled_at = now
            for cursor in self._unmerged_cursors:
                cursor.read(limit)
                self._ready += cursor.records
                cursor.records = []
        if self._merged_cursors:
            self._ready += self._merge(limit)
        self._at_end = all(cursor.at_end for cursor in self._cursors) and not any(
            cursor.records for cursor in self._merged_cursors
        )
        if self._at_end and no_append_in_progress:
            self._watermark = max(self._watermark, now)

    def _merge(self, limit: int) -> list[Record]:
        for cursor in self._merged_cursors:
            if len(cursor.records) < limit:
                cursor.read(limit)
            else:
                cursor.skip_read()
        while not (released := release_ready(self._merged_cursors)):
            unfinished = [cursor for cursor in self._merged_cursors if not cursor.at_end]
            if not unfinished or not any(cursor.records for cursor in self._merged_cursors):
                break
            # All rows read have one log time, and there may be more of them.
            cursor = min(unfinished, key=lambda cursor: cursor.watermark)
            if len(cursor.records) >= MAX_SAME_TIME_ROWS:
                cursor.watermark += 1
            else:
                cursor.read(max(limit, len(cursor.records)))
        return released

    def caught_up(self, partition: int) -> bool:
        """Return True if all streams of all partitions were read to their end at the start of the last poll."""
        return self._at_end and not self._ready

    def watermark(self) -> int:
        """Return the time (ms) of the last read to the end while no append was in progress."""
        return self._watermark

    def lag(self) -> dict[str, int]:
        """Return an estimate of the unread records by stream; it counts all partitions of a file."""
        found: dict[str, int] = {}
        for cursor in self._cursors:
            found |= cursor.lag()
        for record in chain(self._ready, *(cursor.records for cursor in self._cursors)):
            found[record[0]] = found.get(record[0], 0) + 1
        return {stream: found.get(stream, 0) for stream in self._streams}

    def close(self) -> None:
        """Close the files and the wake-up socket."""
        for cursor in self._cursors:
            cursor.close()
        self._wakeup_socket.close()


MAX_TRANSACTION_ROWS: Final = 50
"""Maximum rows of one transaction."""
BULK_PAUSE: Final = 0.0005
"""Seconds between the transactions of a bulk append to `BULK_PAUSE_FILE`, where requests wait for their append."""
BULK_PAUSE_FILE: Final = "public"

RecordRow = tuple[str, int, int, bytes | None, bytes]
"""stream, partition, log time, key, value."""

_INSERT = "INSERT INTO records (stream, partition, log_time, key, value) VALUES (?, ?, ?, ?, ?)"
_SELECT_LAST_TIME = "SELECT log_time FROM records ORDER BY id DESC LIMIT 1"


def now_ms() -> int:
    """Return the wall clock in ms."""
    return time.time_ns() // 1_000_000


class CompletedAppend:
    """An append that is complete."""

    def done(self) -> bool:
        return True


_COMPLETED = CompletedAppend()


class SqliteLog:
    """Implements `connectors.log.log.Log`. Threads may share it; a reader belongs to one thread."""

    def __init__(
        self,
        data_folder: Path,
        partitions: int = DEFAULT_PARTITIONS,
        sync: str = "normal",
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.partitions = partitions
        self._folder = data_folder / "log"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._wakeup_folder = wakeup_folder(data_folder)
        self._notifier = Notifier(self._wakeup_folder)
        self._sync = sync
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: dict[str, sqlite3.Connection] = {}
        self._checkpointer = WalCheckpointer(
            on_checkpoint=read_end_offsets  # keeps the table end_offsets fresh, so that starts are fast
        )
        self._closed = False
        self._paths = {file: self._folder / f"{file}.db" for file in FILES}
        for path in self._paths.values():
            create_or_check(path, partitions)

    # -- append ------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[NewRecord]) -> None:
        """Append in order and return when all records are in the log; raise LogError if not."""
        files: dict[str, list[NewRecord]] = {}
        for record in records:
            if (file := FILE_OF.get(record[0])) is None:
                raise LogError(f"unknown stream {record[0]!r}")
            files.setdefault(file, []).append(record)
        for file, rows in files.items():
            for start in range(0, len(rows), MAX_TRANSACTION_ROWS):
                if start and file == BULK_PAUSE_FILE:
                    time.sleep(BULK_PAUSE)
                with self._lock:
                    self._write_transaction(file, rows[start : start + MAX_TRANSACTION_ROWS])
                    self._notifier.notify({row[0] for row in rows[start : start + MAX_TRANSACTION_ROWS]})

    def start_append(self, records: Sequence[NewRecord]) -> CompletedAppend:
        """Append; the result is complete immediately."""
        self.append(records)
        return _COMPLETED

    def _write_transaction(self, file: str, records: Sequence[NewRecord]) -> None:
        """Append records to one file in one transaction."""
        connection = self._connections.get(file) or self._open_writer(file)
        begin_immediate(connection)
        try:
            found = connection.execute(_SELECT_LAST_TIME).fetchone() if file == "public" else None
            rows = self._build_rows(file, records, found[0] if found else -1)
            if len(rows) == 1:
                connection.execute(_INSERT, rows[0])
            else:
                connection.executemany(_INSERT, rows)
            connection.execute("COMMIT")
            if self._checkpointer.should_finish(self._paths[file]):
                finish_checkpoint(connection)
        except sqlite3.Error as error:
            raise LogError(f"{file}.db: {sqlite_error_text(error)}") from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _build_rows(self, file: str, records: Sequence[NewRecord], last_time: int) -> list[RecordRow]:
        """Return the rows to insert, with partition and log time."""
        now = self._clock()
        rows: list[RecordRow] = []
        for record in records:
            stream, key, value, _, given = record
            partition = partition_for(record, self.partitions)
            if file != "public":
                rows.append((stream, partition, now if given is None else given, key, value))
                continue
            if given is None:
                last_time = max(last_time, now)
            elif given > now:
                raise LogError(f"a record of {stream} has log time {given}, which is in the future (now: {now})")
            elif given >= last_time:
                last_time = given
            else:
                raise LogError(
                    f"the log already holds later records: the last log time is {last_time},"
                    f" a record of {stream} has {given}"
                )
            rows.append((stream, partition, last_time, key, value))
        return rows

    def _open_writer(self, file: str) -> sqlite3.Connection:
        """Open the connection that writes a file."""
        if self._closed:
            raise LogError("the log is closed")
        connection = connect(self._paths[file], self._sync, 0)
        self._connections[file] = connection
        self._checkpointer.add(self._paths[file])
        return connection

    # -- read --------------------------------------------------------------------------------------------------

    def reader(
        self,
        stream_partitions: Sequence[StreamPartition],
        positions: Mapping[StreamPartition, int],
        history_progress: Mapping[StreamPartition, int] | None = None,
    ) -> SqliteReader:
        """Return a reader. `history_progress` is unused: the files are in the order of log time already."""
        return SqliteReader(
            self._folder, self._wakeup_folder, stream_partitions, positions, self.partitions, self._clock
        )

    def end_offsets(self, stream_partitions: Sequence[StreamPartition]) -> dict[StreamPartition, int]:
        """Return the last offset of each stream partition; -1 if it is empty."""
        found: dict[StreamPartition, int] = {}
        for file in {FILE_OF[stream] for stream, _ in stream_partitions}:
            found |= read_end_offsets(self._paths[file])[0]
        return {place: found.get(place, -1) for place in stream_partitions}

    def latest_log_time(self) -> int:
        """Return the log time of the newest record in the public streams; -1 if they are empty."""
        connection = connect(self._paths["public"])
        try:
            found = connection.execute(_SELECT_LAST_TIME).fetchone()
        finally:
            connection.close()
        return int(found[0]) if found else -1

    def fetch(self, stream_partition: StreamPartition, first: int, last: int) -> list[Record]:
        """Return the records of one stream partition from offset `first` to `last`, both included."""
        connection = connect(self._paths[FILE_OF[stream_partition[0]]])
        try:
            return [
                Record._make(row)
                for row in connection.execute(
                    "SELECT stream, partition, id, log_time, key, value FROM records"
                    " WHERE id BETWEEN ? AND ? AND stream = ? AND partition = ? ORDER BY id",
                    (first, last, *stream_partition),
                )
            ]
        finally:
            connection.close()

    def close(self) -> None:
        """Close the files. Readers are closed separately."""
        with self._lock:
            self._closed = True
            self._checkpointer.close()
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()
            self._notifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
