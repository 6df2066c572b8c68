"""The outreach store: how far `messages` was read, and which messages were dealt with, in one transaction.

The only place where that is kept, whichever log there is. One SQLite file, used by one process: it is locked while it
is open. A message may stand in the stream twice (effects are sent again after a crash), so ids are remembered for as
long as the message could be sent, and a while longer.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     store = OutreachStore(Path(folder) / "outreach.db")
...     store.commit({3: 17}, {"m1": 1_000})
...     store.close()
...     again = OutreachStore(Path(folder) / "outreach.db")
...     print(again.positions, again.has("m1"), again.has("m2"))
...     again.forget(2_000 + KEPT); print(again.has("m1"))
...     again.close()
{3: 17} True False
False
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

KEPT = 48 * 3_600_000
"""Milliseconds after a message's end for which its id is remembered."""


class OutreachStoreError(RuntimeError):
    """The file is in use by another process, or damaged."""


class OutreachStore:
    """One connection, used by one thread. `positions` is the last offset of each partition that is dealt with."""

    def __init__(self, path: Path, sync: str = "normal", patience: float = 5.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=patience)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
            self._db.execute("CREATE TABLE IF NOT EXISTS positions (part INTEGER PRIMARY KEY, position INTEGER)")
            self._db.execute("CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, until INTEGER) WITHOUT ROWID")
            self._db.execute("CREATE INDEX IF NOT EXISTS done_until ON done (until)")
            self.positions: dict[int, int] = dict(self._db.execute("SELECT part, position FROM positions"))
        except sqlite3.OperationalError as wrong:
            self._db.close()
            if "locked" in str(wrong):
                raise OutreachStoreError(f"{path} is in use: another `attimo run outreach` works on this folder; there "
                                         "is one in a deployment") from wrong
            raise OutreachStoreError(f"{path}: {wrong}") from wrong
        except sqlite3.DatabaseError as wrong:
            self._db.close()
            raise OutreachStoreError(f"{path} is damaged: {wrong}") from wrong

    def has(self, message_id: str) -> bool:
        """Whether this message was dealt with."""
        return self._db.execute("SELECT 1 FROM done WHERE id = ?", (message_id,)).fetchone() is not None

    def commit(self, positions: Mapping[int, int], done: Mapping[str, int]) -> None:
        """Keep how far it was read, and the ids that were dealt with, each with the end of its message (ms)."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO done VALUES (?, ?) ON CONFLICT DO NOTHING", done.items())
            self._db.executemany("INSERT INTO positions VALUES (?, ?) "
                                 "ON CONFLICT (part) DO UPDATE SET position = excluded.position", positions.items())
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        self.positions.update(positions)

    def forget(self, now: int) -> None:
        """Forget the ids of messages whose end is long past."""
        self._db.execute("DELETE FROM done WHERE until < ?", (now - KEPT,))

    def show(self) -> None:
        """Write down beside the file how far it was read: the file itself is locked. A crash in between does no harm,
        since what it says then was passed already.
        """
        beside = _beside(self._path)
        beside.with_suffix(".new").write_bytes(msgspec.json.encode(self.positions))
        beside.with_suffix(".new").replace(beside)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def shown(path: Path) -> dict[int, int]:
    """How far the messages were read at least, for whoever is not outreach; nothing while it was not said."""
    try:
        return msgspec.json.decode(_beside(path).read_bytes(), type=dict[int, int])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _beside(path: Path) -> Path:
    return path.with_suffix(".read.json")
