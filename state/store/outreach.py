"""The outreach store: positions in `messages`, and the ids of processed messages, in one transaction.

One SQLite file, locked by one process while it is open. A message may be in the stream twice (effects are sent again
after a crash), so ids are stored for as long as the message could be sent, and 48 hours longer.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     store = OutreachStore(Path(folder) / "outreach.db")
...     store.commit({3: 17}, {"m1": 1_000})
...     store.close()
...     again = OutreachStore(Path(folder) / "outreach.db")
...     print(again.positions, again.is_processed("m1"), again.is_processed("m2"))
...     again.prune(2_000 + ID_TTL); print(again.is_processed("m1"))
...     again.close()
{3: 17} True False
False
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

ID_TTL = 48 * 3_600_000
"""Milliseconds after the end of a message for which its id is stored."""


class OutreachStoreError(RuntimeError):
    """The file is in use by another process, or damaged."""


class OutreachStore:
    """One connection, used by one thread. `positions` is the last processed offset of each partition."""

    def __init__(self, path: Path, sync: str = "normal", lock_timeout: float = 5.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=lock_timeout)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
            self._db.execute("CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, position INTEGER)")
            self._db.execute("CREATE TABLE IF NOT EXISTS processed (id TEXT PRIMARY KEY, until INTEGER) WITHOUT ROWID")
            self._db.execute("CREATE INDEX IF NOT EXISTS processed_until ON processed (until)")
            self.positions: dict[int, int] = dict(self._db.execute("SELECT partition, position FROM positions"))
        except sqlite3.OperationalError as wrong:
            self._db.close()
            if "locked" in str(wrong):
                raise OutreachStoreError(
                    f"{path} is in use by another `attimo run outreach`; a deployment runs exactly one"
                ) from wrong
            raise OutreachStoreError(f"{path}: {wrong}") from wrong
        except sqlite3.DatabaseError as wrong:
            self._db.close()
            raise OutreachStoreError(f"{path} is damaged: {wrong}") from wrong

    def is_processed(self, message_id: str) -> bool:
        """Return whether this message was processed."""
        return self._db.execute("SELECT 1 FROM processed WHERE id = ?", (message_id,)).fetchone() is not None

    def commit(self, positions: Mapping[int, int], processed: Mapping[str, int]) -> None:
        """Store positions and processed ids, each with the end of its message (ms)."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO processed VALUES (?, ?) ON CONFLICT DO NOTHING", processed.items())
            self._db.executemany(
                "INSERT INTO positions VALUES (?, ?) "
                "ON CONFLICT (partition) DO UPDATE SET position = excluded.position",
                positions.items(),
            )
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        self.positions.update(positions)

    def prune(self, now: int) -> None:
        """Delete the ids of messages that ended more than ID_TTL ago."""
        self._db.execute("DELETE FROM processed WHERE until < ?", (now - ID_TTL,))

    def write_positions(self) -> None:
        """Write the positions to a file next to the locked database, for other processes.

        After a crash the file may be behind, never ahead.
        """
        beside = _positions_path(self._path)
        beside.with_suffix(".new").write_bytes(msgspec.json.encode(self.positions))
        beside.with_suffix(".new").replace(beside)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def read_positions(path: Path) -> dict[int, int]:
    """Return positions that outreach has at least reached; empty if unknown."""
    try:
        return msgspec.json.decode(_positions_path(path).read_bytes(), type=dict[int, int])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _positions_path(path: Path) -> Path:
    return path.with_suffix(".positions.json")
