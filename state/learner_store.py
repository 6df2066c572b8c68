"""The learner's store: what it has learned and how far it has read, in one row and one transaction.

One SQLite file with one row of MessagePack: the learner in plain numbers, the positions in `outcomes`, the version of
the last model and whether it is known to be published. Never a pickle: any program can read it, none runs code from it.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     store = LearnerStore(Path(folder) / "learner.db")
...     store.commit({"weights": {"pages": 0.5}}, {3: 17}, version=2)
...     store.close()
...     again = LearnerStore(Path(folder) / "learner.db")
...     print(again.learner, again.positions, again.version, again.published)
...     again.close()
{'weights': {'pages': 0.5}} {3: 17} 2 False
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped] # it ships no types

VERSION = 1


class LearnerStoreError(RuntimeError):
    """The file is of another version, or damaged."""


class LearnerStore:
    """One connection, used by one thread.

    `learner` is what was last committed (None at the beginning), `positions` the last offset learned of each partition,
    `version` counts publications, `published` says whether that version is known to have reached the log.
    """

    def __init__(self, path: Path, sync: str = "normal") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        self._db.execute("CREATE TABLE IF NOT EXISTS learner (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB, "
                         "published INTEGER)")
        self.learner: dict[str, Any] | None = None
        self.positions: dict[int, int] = {}
        self.version = 0
        self.published = True
        row = self._db.execute("SELECT body, published FROM learner").fetchone()
        if row is not None:
            self._read(path, *row)

    def _read(self, path: Path, body: bytes, published: int) -> None:
        try:
            kept = msgpack.unpackb(body, strict_map_key=False)
        except (ValueError, msgpack.UnpackException) as wrong:
            raise LearnerStoreError(f"{path} is damaged: {wrong}") from wrong
        if kept["v"] != VERSION:
            raise LearnerStoreError(f"{path} is of version {kept['v']}, this program reads version {VERSION}")
        self.learner, self.positions = kept["learner"], kept["positions"]
        self.version, self.published = kept["version"], bool(published)

    def commit(self, learner: Mapping[str, Any], positions: Mapping[int, int], version: int) -> None:
        """Keep what was learned and how far, together. The model of `version` counts as unpublished until `note`."""
        body = msgpack.packb({"v": VERSION, "learner": learner, "positions": dict(positions), "version": version})
        self._db.execute("INSERT INTO learner VALUES (1, ?, 0) "
                         "ON CONFLICT (id) DO UPDATE SET body = excluded.body, published = 0", (body,))
        self.learner, self.positions = dict(learner), dict(positions)
        self.version, self.published = version, False

    def note(self, version: int) -> None:
        """The model of this version has reached the log."""
        if version == self.version:
            self._db.execute("UPDATE learner SET published = 1 WHERE id = 1")
            self.published = True

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
