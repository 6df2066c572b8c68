"""The learner store: learner state and positions, in one row and one transaction.

One SQLite file with one row of MessagePack: the state of every learner by kind of model, the positions in `outcomes`,
the versions of the last models, and whether they are known to be published. Not a pickle, so reading it cannot run
code.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     store = LearnerStore(Path(folder) / "learner.db")
...     store.commit({"propensity": {"weights": {"pages": 0.5}}}, {3: 17}, {"propensity": 2})
...     store.close()
...     again = LearnerStore(Path(folder) / "learner.db")
...     print(again.learners, again.positions, again.versions, again.unpublished)
...     again.close()
{'propensity': {'weights': {'pages': 0.5}}} {3: 17} {'propensity': 2} {'propensity'}
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped] # it ships no types

VERSION = 2


class LearnerStoreError(RuntimeError):
    """The file is of another version, or damaged."""


class LearnerStore:
    """One connection, used by one thread.

    `learners` is the last committed state by kind of model, `positions` the last learned offset of each partition,
    `versions` the number of publications of each kind, `unpublished` the kinds whose last version is not known to have
    reached the log.
    """

    def __init__(self, path: Path, sync: str = "normal") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS learner (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB, published INTEGER)"
        )
        self.learners: dict[str, dict[str, Any]] = {}
        self.positions: dict[int, int] = {}
        self.versions: dict[str, int] = {}
        self.unpublished: set[str] = set()
        row = self._db.execute("SELECT body, published FROM learner").fetchone()
        if row is not None:
            self._load(path, *row)

    def _load(self, path: Path, body: bytes, published: int) -> None:
        try:
            kept = msgpack.unpackb(body, strict_map_key=False)
        except (ValueError, msgpack.UnpackException) as wrong:
            raise LearnerStoreError(f"{path} is damaged: {wrong}") from wrong
        if kept["v"] == 1:  # one learner alone, as before there were fifths; to go with release 1.0
            kept = {
                "v": VERSION,
                "learners": {"propensity": kept["learner"]},
                "positions": kept["positions"],
                "versions": {"propensity": kept["version"]},
            }
        if kept["v"] != VERSION:
            raise LearnerStoreError(f"{path} is of version {kept['v']}, this program reads version {VERSION}")
        self.learners, self.positions, self.versions = kept["learners"], kept["positions"], kept["versions"]
        self.unpublished = set() if published else {kind for kind, version in self.versions.items() if version}

    def commit(
        self, learners: Mapping[str, Mapping[str, Any]], positions: Mapping[int, int], versions: Mapping[str, int]
    ) -> None:
        """Store learner states and positions together. A new version is unpublished until `confirm_published`."""
        unpublished = self.unpublished | {
            kind for kind, version in versions.items() if version != self.versions.get(kind, 0)
        }
        body = msgpack.packb(
            {
                "v": VERSION,
                "learners": {kind: dict(plain) for kind, plain in learners.items()},
                "positions": dict(positions),
                "versions": dict(versions),
            }
        )
        self._db.execute(
            "INSERT INTO learner VALUES (1, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body, published = excluded.published",
            (body, int(not unpublished)),
        )
        self.learners = {kind: dict(plain) for kind, plain in learners.items()}
        self.positions, self.versions, self.unpublished = dict(positions), dict(versions), unpublished

    def confirm_published(self, kind: str, version: int) -> None:
        """Record that the model of this kind and version has reached the log."""
        if version == self.versions.get(kind) and kind in self.unpublished:
            self.unpublished.discard(kind)
            if not self.unpublished:
                self._db.execute("UPDATE learner SET published = 1 WHERE id = 1")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
