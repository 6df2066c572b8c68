"""Recorded history: what the log holds of a time, for reading only.

The files of the SQLite log are opened read-only, so that nothing of a live shop can be touched by a rehearsal; of Kafka
a consumer of its own reads every partition up to the end that it had when reading began. Records come in the order of
the file, or of their partitions; whoever needs them in the order of time sorts them.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from connectors.kafka_client import MARKER
from connectors.log import LogError
from connectors.log_sqlite_file import FILE_OF, text
from connectors.open_log import KAFKA, open_log
from domain.record import Record
from domain.settings import Settings
from domain.streams import partitions_of

AT_A_TIME: Final = 2_000
_SELECT: Final = "SELECT stream, partition, id, time, key, value FROM records WHERE stream IN ({}) AND time < ?"


def recorded(settings: Settings, streams: Sequence[str], end: int) -> Iterator[Record]:
    """The records of these streams with a log time before `end` (ms); markers of history are left out.

    LogError when the log cannot be read. What is older than its retention has left the log.
    """
    read = _kafka if settings.log.startswith(KAFKA) else _sqlite
    for record in read(settings, streams, end):
        if not record.value.startswith(MARKER):
            yield record


def _sqlite(settings: Settings, streams: Sequence[str], end: int) -> Iterator[Record]:
    if settings.log != "sqlite":
        open_log(settings).close()  # says what the setting should be
    for file in dict.fromkeys(FILE_OF[stream] for stream in streams):
        path = Path(settings.data) / "log" / f"{file}.db"
        if not path.exists():
            raise LogError(f"there is no log in {settings.data}/: nothing was recorded ({path} is not there)")
        wanted = [stream for stream in streams if FILE_OF[stream] == file]
        connection = _read_only(path)
        try:
            found = connection.execute(_SELECT.format(", ".join("?" * len(wanted))) + " ORDER BY id", (*wanted, end))
            while rows := found.fetchmany(AT_A_TIME):
                yield from map(Record._make, rows)
        except sqlite3.Error as wrong:
            raise LogError(f"{path}: {text(wrong)}") from wrong
        finally:
            connection.close()


def _read_only(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        connection.execute("PRAGMA query_only = 1")
    except sqlite3.Error as wrong:
        raise LogError(f"{path}: {text(wrong)}") from wrong
    return connection


def _kafka(settings: Settings, streams: Sequence[str], end: int) -> Iterator[Record]:
    with open_log(settings) as log:
        places = [(stream, p) for stream in streams for p in range(partitions_of(stream, log.partitions))]
        left = {place: last for place, last in log.ends(places).items() if last >= 0}
        if not left:
            return
        reader = log.reader(places, {})
        try:
            while left:
                for record in reader.poll(AT_A_TIME, 0.1):
                    place = record[0], record[1]
                    if place in left and record.offset >= left[place]:
                        del left[place]
                    if record.log_time < end:
                        yield record
                for place in [place for place in left if reader.caught_up(place[1])]:
                    del left[place]
        finally:
            reader.close()
