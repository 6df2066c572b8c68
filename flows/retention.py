"""Retention: deletes expired records from the SQLite log once every consumer has read them.

    public.db     clicks, carts, purchases, people                              `retention_days`
    internal.db   shard-messages, actions, messages, outcomes, dead-letters     `retention_internal_days`

The edge runs it in a thread, a few rows at a time with pauses, so that appends do not wait. Age is relative to the
newest record of the file, so imported history is not deleted at once. Deletion proceeds in log order and stops at the
first record that is too young or that a consumer (a shard, learning, outreach) has not read. Kafka applies its own
`retention.ms`, which is set when topics are created.
"""

import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from connectors.log.log import LogError, StreamPartition
from connectors.log.sqlite import begin_immediate, connect, read_end_offsets, sqlite_error_text
from domain.record import MESSAGES, OUTCOMES, SHARD_INPUT_STREAMS
from domain.settings import Settings
from flows.worker import DAY_MS, store_path
from state.store import outreach
from state.store.learner import LearnerStore
from state.store.sqlite import SqliteStore

TRIM_INTERVAL: Final = 60.0
"""Seconds between two runs."""
ROWS_PER_TRANSACTION: Final = 50
"""Rows per transaction."""
TRANSACTION_PAUSE: Final = 0.005
"""Seconds between two transactions."""
NOTHING_READ: Final = -1

_SELECT_OLDEST = "SELECT id, stream, partition, log_time FROM records WHERE id <= ? ORDER BY id LIMIT ?"
_SELECT_NEWEST = "SELECT id, log_time FROM records ORDER BY id DESC LIMIT 1"

logger = structlog.get_logger("retention")


def consumer_positions(settings: Settings) -> dict[StreamPartition, int]:
    """The last offset that each consumer has read, by stream and partition; NOTHING_READ where it read none."""
    found: dict[StreamPartition, int] = {}
    partitions = range(settings.partitions)
    folder = store_path(settings).parent
    checkpoints = {}
    if store_path(settings).exists():
        store = SqliteStore(store_path(settings), settings.partitions, read_only=True)
        checkpoints = {partition: store.shard_checkpoint(partition).positions for partition in partitions}
        store.close()
    for partition in partitions:
        for stream in SHARD_INPUT_STREAMS:
            found[stream, partition] = checkpoints.get(partition, {}).get(stream, NOTHING_READ)
    if (path := folder / "learner.db").exists():
        learner = LearnerStore(path)
        found |= {(OUTCOMES, partition): learner.positions.get(partition, NOTHING_READ) for partition in partitions}
        learner.close()
    if (path := folder / "outreach.db").exists():
        positions = outreach.read_positions(path)
        found |= {(MESSAGES, partition): positions.get(partition, NOTHING_READ) for partition in partitions}
    return found


def trim_file(path: Path, retention_ms: int, consumed: Mapping[StreamPartition, int], stop: threading.Event) -> int:
    """Delete consumed records more than `retention_ms` older than the newest of this file; return their number."""
    read_end_offsets(path)  # end offsets must survive the deletion of the last record
    deleted = 0
    connection = connect(path, lock_timeout=0)
    try:
        through = int(connection.execute("SELECT value FROM meta WHERE name = 'end_offsets_through'").fetchone()[0])
        newest = connection.execute(_SELECT_NEWEST).fetchone()
        while newest is not None and not stop.wait(TRANSACTION_PAUSE):
            last = 0
            rows = connection.execute(_SELECT_OLDEST, (min(through, newest[0] - 1), ROWS_PER_TRANSACTION)).fetchall()
            for row, stream, partition, log_time in rows:
                if log_time >= newest[1] - retention_ms or row > consumed.get((stream, partition), row):
                    break
                last, deleted = row, deleted + 1
            if last:
                begin_immediate(connection)
                connection.execute("DELETE FROM records WHERE id <= ?", (last,))
                connection.execute("COMMIT")
            if len(rows) < ROWS_PER_TRANSACTION or last != rows[-1][0]:
                break
    except sqlite3.Error as error:
        raise LogError(f"{path}: {sqlite_error_text(error)}") from error
    finally:
        connection.close()
    return deleted


class Retention:
    """Trims the SQLite log every minute in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread; do nothing for a Kafka log."""
        if self._settings.log == "sqlite":
            threading.Thread(target=self._run, name="retention", daemon=True).start()

    def trim_files(self) -> int:
        """Trim both files once; return the number of deleted records."""
        folder, deleted = Path(self._settings.data) / "log", 0
        consumed = consumer_positions(self._settings)
        retention = {"public": self._settings.retention_days, "internal": self._settings.retention_internal_days}
        for file, days in retention.items():
            if days and (path := folder / f"{file}.db").exists():
                deleted += trim_file(path, days * DAY_MS, consumed, self._stop)
        return deleted

    def _run(self) -> None:
        while not self._stop.wait(TRIM_INTERVAL):
            try:
                if deleted := self.trim_files():
                    logger.info("expired records deleted", records=deleted)
            except (LogError, sqlite3.Error, OSError) as error:
                logger.warning("retention failed; retrying", error=str(error))
