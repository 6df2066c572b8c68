"""The store in SQLite: one file, WAL, one transaction a batch.

    persons  (partition, id) -> bytes          what is remembered
    dues     (partition, person) -> due        the soonest timer of a person, or a little before it
    heads    partition -> Head                 clock, positions, owner
    outbox   seq -> effects of one commit      decided, not yet known to be sent
    claims   how often shards changed hands    one look tells whether the owners are still the same
    turns    seq -> turns                      what each batch was made of
    kept     (kind, hash) -> bytes             playbooks and models, by content

`synchronous = NORMAL`: a killed process loses nothing, a power cut may lose the last commits (which the log then brings
again); FULL survives that too. Whoever writes all the time hands in a keeper, who folds the write-ahead log into the
file beside the commits (`connectors/wal.py`); without one, now and then a commit does it.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from domain.effect import Row
from state.store import Batch, Head, StoreError, Turn

VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS persons (
    partition INTEGER, id TEXT, bytes BLOB, PRIMARY KEY (partition, id));
CREATE TABLE IF NOT EXISTS dues (
    partition INTEGER, person TEXT, due INTEGER, PRIMARY KEY (partition, person)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dues_by_time ON dues (partition, due, person);
CREATE TABLE IF NOT EXISTS heads (partition INTEGER PRIMARY KEY, head BLOB);
CREATE TABLE IF NOT EXISTS owners (partition INTEGER PRIMARY KEY, owner TEXT);
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, owner TEXT, rows BLOB);
CREATE TABLE IF NOT EXISTS claims (n INTEGER);
INSERT INTO claims VALUES (0);
CREATE TABLE IF NOT EXISTS turns (seq INTEGER PRIMARY KEY, turns BLOB);
CREATE TABLE IF NOT EXISTS kept (kind TEXT, hash TEXT, bytes BLOB, PRIMARY KEY (kind, hash)) WITHOUT ROWID;
"""
_PERSON = "SELECT bytes FROM persons WHERE partition = ? AND id = ?"
_ALL = "SELECT id, bytes FROM persons WHERE partition = ? ORDER BY id"
_IDS = "SELECT id FROM persons WHERE partition = ? AND id > ? ORDER BY id LIMIT ?"
_DUE = "SELECT due FROM dues WHERE partition = ? AND person = ?"
_DUES = ("SELECT due, person FROM dues WHERE partition = ? AND (due, person) > (?, ?) AND due <= ? "
         "ORDER BY due, person LIMIT ?")
_UPSERT = ("INSERT INTO persons VALUES (?, ?, ?) "
           "ON CONFLICT (partition, id) DO UPDATE SET bytes = excluded.bytes")
"""A person whose bytes change is written where they are: the index stays as it is."""

_pack = msgspec.msgpack.Encoder().encode
_rows = msgspec.msgpack.Decoder(list[Row]).decode


class Keeper(Protocol):
    """Who keeps the write-ahead log short."""

    def spare(self, connection: sqlite3.Connection) -> None:
        """Have who writes by this connection leave the log to the keeper, unless it grows far too long."""
        ...

    def add(self, path: Path) -> None:
        """A file that is written from now on."""
        ...

    def ready(self, path: Path) -> bool:
        """Whether nearly all of it is in the file, so that the writer should fold the rest; it is said once."""
        ...


class SqliteStore:
    """The embedded store. One connection, used by one thread."""

    def __init__(self, path: Path, partitions: int, sync: str = "normal", read_only: bool = False,
                 keeper: Keeper | None = None) -> None:
        self._path, self._keeper = path, keeper
        self._owner = ""
        self._owned: list[int] = []
        self._claims = -1
        if read_only:
            if not path.exists():
                raise StoreError(f"there is no store at {path}: has attimo run here?")
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
            self._check(path, partitions)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10, cached_statements=64)
        run = self._db.execute
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        if keeper is not None:
            keeper.spare(self._db)
        run("PRAGMA cache_size = -65536")
        run("PRAGMA temp_store = MEMORY")
        run("BEGIN IMMEDIATE")
        found = run("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id = {0x61740000 + partitions}")
            run(f"PRAGMA user_version = {VERSION}")
        run("COMMIT")
        self._check(path, partitions)
        if keeper is not None:
            keeper.add(path)

    def _check(self, path: Path, partitions: int) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # SQLite's own, before anything is written
            raise StoreError(f"there is nothing in {path} yet: attimo has only just been started there")
        if version != VERSION:
            raise StoreError(f"{path} was written by version {version} of the store; this is version {VERSION}")
        kept = self._db.execute("PRAGMA application_id").fetchone()[0] - 0x61740000
        if kept != partitions:
            raise StoreError(f"{path} was created with {kept} partitions, not {partitions}: that is fixed at creation")

    def claim(self, partitions: Sequence[int], owner: str) -> None:
        self._owner, self._owned = owner, list(partitions)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO owners VALUES (?, ?)", [(p, owner) for p in partitions])
        self._db.execute("UPDATE claims SET n = n + 1")
        # What the shards' former owners had decided and not sent is now ours to send: of each shard with the shard, for
        # what it decides from now on must not come before it (of two letters to one person the later one alone counts).
        ours = set(partitions)
        others = self._db.execute("SELECT seq, rows FROM outbox WHERE owner != ? ORDER BY seq", (owner,)).fetchall()
        for seq, packed in others:
            rows = _rows(packed)
            taken = [row for row in rows if row.shard in ours]
            left = [row for row in rows if row.shard not in ours]
            if taken:
                self._db.execute("INSERT INTO outbox (owner, rows) VALUES (?, ?)", (owner, _pack(taken)))
            if taken and left:
                self._db.execute("UPDATE outbox SET rows = ? WHERE seq = ?", (_pack(left), seq))
            elif taken:
                self._db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
        # And what is left of somebody who has no shard any more.
        self._db.execute("UPDATE outbox SET owner = ? WHERE owner NOT IN (SELECT owner FROM owners)", (owner,))
        self._db.execute("COMMIT")

    def head(self, partition: int) -> Head:
        row = self._db.execute("SELECT head FROM heads WHERE partition = ?", (partition,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Head) if row else Head()

    def person(self, partition: int, person: str) -> bytes | None:
        found = self._db.execute(_PERSON, (partition, person)).fetchone()
        return found[0] if found else None

    def persons(self, partition: int) -> list[tuple[str, bytes]]:
        """Every person of a shard, by id; for re-runs and inspection."""
        return self._db.execute(_ALL, (partition,)).fetchall()

    def ids(self, partition: int, after: str, limit: int) -> list[str]:
        return [found[0] for found in self._db.execute(_IDS, (partition, after, limit))]

    def dues(self, partition: int, after: tuple[int, str], until: int, limit: int) -> list[tuple[int, str]]:
        return self._db.execute(_DUES, (partition, *after, until, limit)).fetchall()

    def due(self, partition: int, person: str) -> int | None:
        found = self._db.execute(_DUE, (partition, person)).fetchone()
        return found[0] if found else None

    def next_due(self, partition: int) -> int | None:
        found = self._db.execute("SELECT min(due) FROM dues WHERE partition = ?", (partition,)).fetchone()
        due: int | None = found[0]
        return due

    def commit(self, batch: Batch, sent: Sequence[int]) -> int:
        db, first = self._db, 0
        db.execute("BEGIN IMMEDIATE")
        try:
            claims = db.execute("SELECT n FROM claims").fetchone()[0]
            if claims != self._claims:
                held = db.execute("SELECT count(*) FROM owners WHERE owner = ?", (self._owner,)).fetchone()[0]
                if held != len(self._owned):
                    raise StoreError("another worker has taken over shards of this one: this one stops")
                self._claims = claims
            if sent:
                db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in sent])
            if batch.persons:
                db.executemany(_UPSERT, [(p, person, value) for (p, person), value in batch.persons.items()])
            if batch.dues:
                gone = [key for key, due in batch.dues.items() if due is None]
                kept = [(p, person, due) for (p, person), due in batch.dues.items() if due is not None]
                if gone:
                    db.executemany("DELETE FROM dues WHERE partition = ? AND person = ?", gone)
                if kept:
                    db.executemany("INSERT OR REPLACE INTO dues VALUES (?, ?, ?)", kept)
            if batch.heads:
                db.executemany("INSERT OR REPLACE INTO heads VALUES (?, ?)",
                               [(p, _pack(head)) for p, head in batch.heads.items()])
            if batch.rows:
                added = db.execute("INSERT INTO outbox (owner, rows) VALUES (?, ?)", (self._owner, _pack(batch.rows)))
                first = added.lastrowid or 0
            if batch.turns:
                db.execute("INSERT INTO turns (turns) VALUES (?)", (_pack(batch.turns),))
            db.execute("COMMIT")
        except BaseException:  # passed on: whatever ended it, nothing of this batch may stay
            db.execute("ROLLBACK")
            raise
        return first

    def outbox(self) -> list[Row]:
        found = self._db.execute("SELECT seq, rows FROM outbox WHERE owner = ? ORDER BY seq", (self._owner,))
        return [row._replace(seq=seq) for seq, rows in found for row in _rows(rows)]

    def turns(self, partition: int) -> list[Turn]:
        found: list[Turn] = []
        for (packed,) in self._db.execute("SELECT turns FROM turns ORDER BY seq"):
            found += [turn for turn in msgspec.msgpack.decode(packed, type=list[Turn]) if turn.partition == partition]
        return found

    def every_turn(self) -> list[Turn]:
        """The turns of all shards, in the order of their commits."""
        found = self._db.execute("SELECT turns FROM turns ORDER BY seq")
        return [turn for (packed,) in found for turn in msgspec.msgpack.decode(packed, type=list[Turn])]

    def forget_turns(self, before: int, limit: int = 100) -> bool:
        """Forget the oldest turns, of up to `limit` commits, that ended before this (ms); whether there may be more."""
        found = self._db.execute("SELECT seq, turns FROM turns ORDER BY seq LIMIT ?", (limit,)).fetchall()
        last = 0
        for seq, packed in found:
            if any(turn.clock_after >= before for turn in msgspec.msgpack.decode(packed, type=list[Turn])):
                break
            last = seq
        if last:
            self._db.execute("DELETE FROM turns WHERE seq <= ?", (last,))
        return last != 0 and last == found[-1][0] and len(found) == limit

    def keep(self, kind: str, hash: str, content: bytes) -> None:
        self._db.execute("INSERT OR IGNORE INTO kept VALUES (?, ?, ?)", (kind, hash, content))

    def note(self, kind: str, name: str, content: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (kind, name, content))

    def kept(self, kind: str, hash: str) -> bytes | None:
        found = self._db.execute("SELECT bytes FROM kept WHERE kind = ? AND hash = ?", (kind, hash)).fetchone()
        return found[0] if found else None

    def tidy(self) -> None:
        if self._keeper is not None and self._keeper.ready(self._path):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self._db.close()
