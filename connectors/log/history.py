"""Read-only access to the records of a log, for backtests.

SQLite files are opened read-only, so a backtest cannot change a live shop. On Kafka a separate consumer reads every
partition up to its end at the start of the call. Records come in file or partition order, not sorted by time.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from connectors.log.kafka_admin import MARKER_PREFIX
from connectors.log.log import LogError
from connectors.log.open import KAFKA_SCHEME, open_log
from connectors.log.sqlite import FILE_OF, sqlite_error_text
from domain.record import Record, partition_count
from domain.settings import Settings

FETCH_SIZE: Final = 2_000
_SELECT: Final = "SELECT stream, partition, id, log_time, key, value FROM records WHERE stream IN ({}) AND log_time < ?"


def read_history(settings: Settings, streams: Sequence[str], end: int) -> Iterator[Record]:
    """Yield the records of `streams` with a log time before `end` (ms), without history markers.

    Raise LogError if the log cannot be read. Records older than the retention are no longer in the log.
    """
    read = _read_kafka if settings.log.startswith(KAFKA_SCHEME) else _read_sqlite
    for record in read(settings, streams, end):
        if not record.value.startswith(MARKER_PREFIX):
            yield record


def _read_sqlite(settings: Settings, streams: Sequence[str], end: int) -> Iterator[Record]:
    if settings.log != "sqlite":
        open_log(settings).close()  # raises LogError with the expected value
    for file in dict.fromkeys(FILE_OF[stream] for stream in streams):
        path = Path(settings.data) / "log" / f"{file}.db"
        if not path.exists():
            raise LogError(f"no log in {settings.data}/: {path} does not exist, so no history was recorded")
        wanted = [stream for stream in streams if FILE_OF[stream] == file]
        connection = _open_read_only(path)
        try:
            found = connection.execute(_SELECT.format(", ".join("?" * len(wanted))) + " ORDER BY id", (*wanted, end))
            while rows := found.fetchmany(FETCH_SIZE):
                yield from map(Record._make, rows)
        except sqlite3.Error as error:
            raise LogError(f"{path}: {sqlite_error_text(error)}") from error
        finally:
            connection.close()


def _open_read_only(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=10)
        connection.execute("PRAGMA query_only = 1")
    except sqlite3.Error as error:
        raise LogError(f"{path}: {sqlite_error_text(error)}") from error
    return connection


def _read_kafka(settings: Settings, streams: Sequence[str], end: int) -> Iterator[Record]:
    with open_log(settings) as log:
        places = [(stream, p) for stream in streams for p in range(partition_count(stream, log.partitions))]
        left = {place: last for place, last in log.end_offsets(places).items() if last >= 0}
        if not left:
            return
        reader = log.reader(places, {})
        try:
            while left:
                for record in reader.poll(FETCH_SIZE, 0.1):
                    place = record[0], record[1]
                    if place in left and record.offset >= left[place]:
                        del left[place]
                    if record.log_time < end:
                        yield record
                for place in [place for place in left if reader.caught_up(place[1])]:
                    del left[place]
        finally:
            reader.close()
