"""The embedded log: SQLite files in WAL mode, for one machine; no server.

    data/log/public.db     clicks, carts, purchases, people
    data/log/internal.db   letters, actions, messages, outcomes, rejects
    data/log/models.db     models

An offset is the row's id, shared by the streams of a file: rising per place, with gaps. Id and log time are given
inside BEGIN IMMEDIATE, so the order of ids is the order of commits and of log times. What is promised:

- A record that brings its own log time (recorded history, effects) keeps it. In the public file log times never fall:
  an earlier one is refused, because the log already holds later records. In the other files effects of shards with
  different clocks meet, so there they may; a reader gives the letters of a partition log times that never fall.
- An append of more than 50 records commits 50 at a time, and in the public file it pauses in between, so that single
  appends get their turn.
- A crash of the process loses nothing; with `sync` "full" a power cut neither. With "normal" a power cut may lose the
  last commits, so after a restart of the machine ids jump ahead: an offset somebody has seen is never given twice.

Reading is in `log_sqlite_reader.py`, the files themselves in `log_sqlite_file.py`.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from connectors.bell import Ringer, folder_of
from connectors.log import LogError, Place, partition_for
from connectors.log_sqlite_file import FILE_OF, FILES, begin, connect, ends, prepare, text
from connectors.log_sqlite_reader import SqliteReader
from connectors.wal import Keeper, finish
from domain.record import Outgoing, Record
from domain.streams import PARTITIONS

BULK: Final = 50
"""Rows of one transaction."""
PAUSE: Final = 0.0005
"""Seconds between the transactions of a bulk append to the file where single appends are waited for by people."""
PAUSING: Final = "public"

Row = tuple[str, int, int, bytes | None, bytes]
"""stream, partition, log time, key, value."""

_INSERT = "INSERT INTO records (stream, partition, time, key, value) VALUES (?, ?, ?, ?, ?)"
_LAST = "SELECT time FROM records ORDER BY id DESC LIMIT 1"


def wall() -> int:
    """The wall clock in ms."""
    return time.time_ns() // 1_000_000


class Written:
    """The ticket of an append that is done."""

    def done(self) -> bool:
        return True


_WRITTEN = Written()


class SqliteLog:
    """See the module. One log may be shared by threads; a reader belongs to one thread."""

    def __init__(
        self, data: Path, partitions: int = PARTITIONS, sync: str = "normal", now: Callable[[], int] = wall
    ) -> None:
        self.partitions = partitions
        self._folder = data / "log"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._bells = folder_of(data)
        self._ringer = Ringer(self._bells)
        self._sync = sync
        self._now = now
        self._lock = threading.Lock()
        self._connections: dict[str, sqlite3.Connection] = {}
        self._keeper = Keeper(after=ends)  # a list of ends that is fresh: no start has to look through the whole log
        self._closed = False
        self._paths = {file: self._folder / f"{file}.db" for file in FILES}
        for path in self._paths.values():
            prepare(path, partitions)

    # -- append ------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Outgoing]) -> None:
        """Append, in order, and return when the log has them all; LogError when not."""
        files: dict[str, list[Outgoing]] = {}
        for record in records:
            if (file := FILE_OF.get(record[0])) is None:
                raise LogError(f"there is no stream {record[0]!r}")
            files.setdefault(file, []).append(record)
        for file, rows in files.items():
            for start in range(0, len(rows), BULK):
                if start and file == PAUSING:
                    time.sleep(PAUSE)
                with self._lock:
                    self._write(file, rows[start : start + BULK])
                    self._ringer.ring({row[0] for row in rows[start : start + BULK]})

    def begin(self, records: Sequence[Outgoing]) -> Written:
        """Append; the ticket is done at once."""
        self.append(records)
        return _WRITTEN

    def _write(self, file: str, records: Sequence[Outgoing]) -> None:
        """One transaction."""
        connection = self._connections.get(file) or self._writer(file)
        begin(connection)
        try:
            found = connection.execute(_LAST).fetchone() if file == "public" else None
            rows = self._rows(file, records, found[0] if found else -1)
            if len(rows) == 1:
                connection.execute(_INSERT, rows[0])
            else:
                connection.executemany(_INSERT, rows)
            connection.execute("COMMIT")
            if self._keeper.ready(self._paths[file]):
                finish(connection)
        except sqlite3.Error as wrong:
            raise LogError(f"{file}.db: {text(wrong)}") from wrong
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _rows(self, file: str, records: Sequence[Outgoing], last: int) -> list[Row]:
        """The rows to insert, with partition and log time."""
        now = self._now()
        rows: list[Row] = []
        for record in records:
            stream, key, value, _, given = record
            partition = partition_for(record, self.partitions)
            if file != "public":
                rows.append((stream, partition, now if given is None else given, key, value))
                continue
            if given is None:
                last = max(last, now)
            elif given > now:
                raise LogError(f"a record of {stream} has log time {given}, later than now ({now})")
            elif given >= last:
                last = given
            else:
                raise LogError(
                    f"the log already holds later records: the last one has log time {last}, one of {stream} {given}"
                )
            rows.append((stream, partition, last, key, value))
        return rows

    def _writer(self, file: str) -> sqlite3.Connection:
        """The connection that writes a file."""
        if self._closed:
            raise LogError("the log is closed")
        connection = connect(self._paths[file], self._sync, 0)
        self._connections[file] = connection
        self._keeper.add(self._paths[file])
        return connection

    # -- read --------------------------------------------------------------------------------------------------

    def reader(
        self, places: Sequence[Place], start: Mapping[Place, int], history: Mapping[Place, int] | None = None
    ) -> SqliteReader:
        """Read these places; `history` is not needed here: the files are in the order of log time already."""
        return SqliteReader(self._folder, self._bells, places, start, self.partitions, self._now)

    def ends(self, places: Sequence[Place]) -> dict[Place, int]:
        """The last offset of each place (-1 for an empty one)."""
        found: dict[Place, int] = {}
        for file in {FILE_OF[stream] for stream, _ in places}:
            found |= ends(self._paths[file])[0]
        return {place: found.get(place, -1) for place in places}

    def latest(self) -> int:
        """The log time of the newest record in the public streams; -1 when they are empty."""
        connection = connect(self._paths["public"])
        try:
            found = connection.execute(_LAST).fetchone()
        finally:
            connection.close()
        return int(found[0]) if found else -1

    def fetch(self, place: Place, first: int, last: int) -> list[Record]:
        """The records of one place from offset `first` to offset `last`, both included."""
        connection = connect(self._paths[FILE_OF[place[0]]])
        try:
            return [
                Record._make(row)
                for row in connection.execute(
                    "SELECT stream, partition, id, time, key, value FROM records"
                    " WHERE id BETWEEN ? AND ? AND stream = ? AND partition = ? ORDER BY id",
                    (first, last, *place),
                )
            ]
        finally:
            connection.close()

    def close(self) -> None:
        """Close the files; readers close on their own."""
        with self._lock:
            self._closed = True
            self._keeper.close()
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()
            self._ringer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
