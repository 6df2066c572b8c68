"""Retention: what is older than the shop keeps it, and has been read by all who have to, leaves the SQLite log.

    public.db     clicks, carts, purchases, people                `retention_days`
    internal.db   letters, actions, messages, outcomes, rejects   `retention_internal_days`

The edge does it, from a thread of its own, some rows at a time with pauses, so that no append waits for it. Age is
counted from the newest record of the file: recorded days that were read in yesterday do not go at once. The oldest
record that somebody still has to read (a shard, the learner, outreach), or that is too young, stops it: nothing behind
it goes before it. Kafka does the same by itself (`retention.ms`, set when topics are made).
"""

import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from connectors.log import LogError, Place
from connectors.log_sqlite_file import begin, connect, ends, text
from domain.settings import Settings
from domain.streams import MESSAGES, OUTCOMES, SHARD_INPUT
from flows.worker import DAY, store_path
from state import outreach_store
from state.learner_store import LearnerStore
from state.store_sqlite import SqliteStore

EVERY: Final = 60.0
"""Seconds between two looks."""
SLICE: Final = 50
"""Rows of one transaction, as of a bulk append."""
PAUSE: Final = 0.005
"""Seconds between two of them."""
UNREAD: Final = -1

_OLDEST = "SELECT id, stream, partition, time FROM records WHERE id <= ? ORDER BY id LIMIT ?"
_NEWEST = "SELECT id, time FROM records ORDER BY id DESC LIMIT 1"

logger = structlog.get_logger("retention")


def positions(settings: Settings) -> dict[Place, int]:
    """The last offset that was read of each place that somebody has to read; UNREAD where nothing was."""
    found: dict[Place, int] = {}
    every = range(settings.partitions)
    folder = store_path(settings).parent
    heads = {}
    if store_path(settings).exists():
        store = SqliteStore(store_path(settings), settings.partitions, read_only=True)
        heads = {partition: store.head(partition).positions for partition in every}
        store.close()
    for partition in every:
        for stream in SHARD_INPUT:
            found[stream, partition] = heads.get(partition, {}).get(stream, UNREAD)
    if (path := folder / "learner.db").exists():
        learner = LearnerStore(path)
        found |= {(OUTCOMES, partition): learner.positions.get(partition, UNREAD) for partition in every}
        learner.close()
    if (path := folder / "outreach.db").exists():
        told = outreach_store.shown(path)
        found |= {(MESSAGES, partition): told.get(partition, UNREAD) for partition in every}
    return found


def trim(path: Path, keep: int, read: Mapping[Place, int], stop: threading.Event) -> int:
    """Delete what is more than `keep` ms older than the newest record of this file, and read; how many that were."""
    ends(path)  # where places end must be known of those, too, of which no record is left
    gone = 0
    connection = connect(path, patience=0)
    try:
        upto = int(connection.execute("SELECT value FROM about WHERE name = 'ends_upto'").fetchone()[0])
        newest = connection.execute(_NEWEST).fetchone()
        while newest is not None and not stop.wait(PAUSE):
            last = 0
            rows = connection.execute(_OLDEST, (min(upto, newest[0] - 1), SLICE)).fetchall()
            for row, stream, partition, time in rows:
                if time >= newest[1] - keep or row > read.get((stream, partition), row):
                    break
                last, gone = row, gone + 1
            if last:
                begin(connection)
                connection.execute("DELETE FROM records WHERE id <= ?", (last,))
                connection.execute("COMMIT")
            if len(rows) < SLICE or last != rows[-1][0]:
                break
    except sqlite3.Error as wrong:
        raise LogError(f"{path}: {text(wrong)}") from wrong
    finally:
        connection.close()
    return gone


class Retention:
    """Trims the SQLite log every minute, from a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, if there is anything to keep to."""
        if self._settings.log == "sqlite":
            threading.Thread(target=self._run, name="retention", daemon=True).start()

    def look(self) -> int:
        """Trim both files once; how many records went."""
        folder, gone = Path(self._settings.data) / "log", 0
        read = positions(self._settings)
        kept = {"public": self._settings.retention_days, "internal": self._settings.retention_internal_days}
        for file, days in kept.items():
            if days and (path := folder / f"{file}.db").exists():
                gone += trim(path, days * DAY, read, self._stop)
        return gone

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                if gone := self.look():
                    logger.info("what is older than its retention has left the log", records=gone)
            except (LogError, sqlite3.Error, OSError) as wrong:
                logger.warning("the log could not be trimmed; it is tried again", because=str(wrong))
