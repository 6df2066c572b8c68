"""The SQLite store: one file in WAL mode, one transaction per batch.

    persons        (partition, id) -> bytes       encoded persons
    timers         (partition, person) -> due     the soonest timer of a person, or a little earlier
    checkpoints    partition -> ShardCheckpoint   clock, positions
    owners         partition -> owner             the worker that may commit
    outbox         seq -> effects of one commit   decided, not yet known to be sent
    ownership      epoch                          raised by every claim: detects changes of owners with one read
    batch_records  seq -> records                 the input of each batch
    blobs          (kind, name) -> bytes          playbooks and models

With `synchronous = NORMAL`, a killed process loses nothing; a power failure may lose the last commits, which are then
applied again from the log. FULL survives that too. Continuous writers pass a checkpointer, which checkpoints the WAL
outside of commits (`connectors/log/sqlite_checkpoint.py`); without one, commits do it from time to time.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from domain.action import OutboxRow
from state.store.store import BatchRecord, ShardCheckpoint, StoreError, WriteBatch

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS persons (
    partition INTEGER, id TEXT, bytes BLOB, PRIMARY KEY (partition, id));
CREATE TABLE IF NOT EXISTS timers (
    partition INTEGER, person TEXT, due INTEGER, PRIMARY KEY (partition, person)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS timers_by_due ON timers (partition, due, person);
CREATE TABLE IF NOT EXISTS checkpoints (partition INTEGER PRIMARY KEY, checkpoint BLOB);
CREATE TABLE IF NOT EXISTS owners (partition INTEGER PRIMARY KEY, owner TEXT);
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, owner TEXT, effects BLOB);
CREATE TABLE IF NOT EXISTS ownership (epoch INTEGER);
INSERT INTO ownership VALUES (0);
CREATE TABLE IF NOT EXISTS batch_records (seq INTEGER PRIMARY KEY, records BLOB);
CREATE TABLE IF NOT EXISTS blobs (kind TEXT, name TEXT, bytes BLOB, PRIMARY KEY (kind, name)) WITHOUT ROWID;
"""
_SELECT_PERSON = "SELECT bytes FROM persons WHERE partition = ? AND id = ?"
_SELECT_PERSONS = "SELECT id, bytes FROM persons WHERE partition = ? ORDER BY id"
_SELECT_IDS = "SELECT id FROM persons WHERE partition = ? AND id > ? ORDER BY id LIMIT ?"
_SELECT_DUE_TIME = "SELECT due FROM timers WHERE partition = ? AND person = ?"
_SELECT_DUE_PERSONS = (
    "SELECT due, person FROM timers WHERE partition = ? AND (due, person) > (?, ?) AND due <= ? "
    "ORDER BY due, person LIMIT ?"
)
_UPSERT_PERSON = "INSERT INTO persons VALUES (?, ?, ?) ON CONFLICT (partition, id) DO UPDATE SET bytes = excluded.bytes"
"""Updates in place, so that the index stays unchanged."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_rows = msgspec.msgpack.Decoder(list[OutboxRow]).decode


class Checkpointer(Protocol):
    """Checkpoints the write-ahead log."""

    def disable_autocheckpoint(self, connection: sqlite3.Connection) -> None:
        """Disable the auto-checkpoint of a connection, unless the WAL grows far too long."""
        ...

    def add(self, path: Path) -> None:
        """Add a file that is written from now on."""
        ...

    def should_finish(self, path: Path) -> bool:
        """Return once whether nearly all of the WAL is checkpointed, so that the writer should finish the rest."""
        ...


class SqliteStore:
    """The embedded store. One connection, used by one thread."""

    def __init__(
        self,
        path: Path,
        partitions: int,
        sync: str = "normal",
        read_only: bool = False,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self._path, self._checkpointer = path, checkpointer
        self._owner = ""
        self._partitions: list[int] = []
        self._ownership_epoch = -1
        if read_only:
            if not path.exists():
                raise StoreError(f"no store at {path}: start attimo with this data folder first")
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
            self._check(path, partitions)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10, cached_statements=64)
        run = self._db.execute
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        if checkpointer is not None:
            checkpointer.disable_autocheckpoint(self._db)
        run("PRAGMA cache_size = -65536")
        run("PRAGMA temp_store = MEMORY")
        run("BEGIN IMMEDIATE")
        found = run("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id = {0x61740000 + partitions}")
            run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        run("COMMIT")
        self._check(path, partitions)
        if checkpointer is not None:
            checkpointer.add(path)

    def _check(self, path: Path, partitions: int) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # SQLite's default, before anything is written
            raise StoreError(f"{path} is empty: attimo was only just started there; try again")
        if version != SCHEMA_VERSION:
            raise StoreError(f"{path} has store version {version}; this program needs version {SCHEMA_VERSION}")
        kept = self._db.execute("PRAGMA application_id").fetchone()[0] - 0x61740000
        if kept != partitions:
            raise StoreError(
                f"{path} was created with {kept} partitions, not {partitions}; the number cannot be changed"
            )

    def claim(self, partitions: Sequence[int], owner: str) -> None:
        self._owner, self._partitions = owner, list(partitions)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO owners VALUES (?, ?)", [(p, owner) for p in partitions])
        self._db.execute("UPDATE ownership SET epoch = epoch + 1")
        # Take over the unsent outbox rows of these shards from the former owners. They must be sent before new effects
        # of the same shard: of two messages to one person, only those in sequence are accepted.
        own = set(partitions)
        others = self._db.execute("SELECT seq, effects FROM outbox WHERE owner != ? ORDER BY seq", (owner,)).fetchall()
        for seq, packed in others:
            rows = _unpack_rows(packed)
            taken = [row for row in rows if row.shard in own]
            left = [row for row in rows if row.shard not in own]
            if taken:
                self._db.execute("INSERT INTO outbox (owner, effects) VALUES (?, ?)", (owner, _pack(taken)))
            if taken and left:
                self._db.execute("UPDATE outbox SET effects = ? WHERE seq = ?", (_pack(left), seq))
            elif taken:
                self._db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
        # Take over the rows of owners without any shard.
        self._db.execute("UPDATE outbox SET owner = ? WHERE owner NOT IN (SELECT owner FROM owners)", (owner,))
        self._db.execute("COMMIT")

    def shard_checkpoint(self, partition: int) -> ShardCheckpoint:
        row = self._db.execute("SELECT checkpoint FROM checkpoints WHERE partition = ?", (partition,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=ShardCheckpoint) if row else ShardCheckpoint()

    def person(self, partition: int, person: str) -> bytes | None:
        found = self._db.execute(_SELECT_PERSON, (partition, person)).fetchone()
        return found[0] if found else None

    def persons(self, partition: int) -> list[tuple[str, bytes]]:
        """Return every person of a shard, by id; for replays and inspection."""
        return self._db.execute(_SELECT_PERSONS, (partition,)).fetchall()

    def person_ids(self, partition: int, after: str, limit: int) -> list[str]:
        return [found[0] for found in self._db.execute(_SELECT_IDS, (partition, after, limit))]

    def due_persons(self, partition: int, after: tuple[int, str], until: int, limit: int) -> list[tuple[int, str]]:
        return self._db.execute(_SELECT_DUE_PERSONS, (partition, *after, until, limit)).fetchall()

    def due_time(self, partition: int, person: str) -> int | None:
        found = self._db.execute(_SELECT_DUE_TIME, (partition, person)).fetchone()
        return found[0] if found else None

    def next_due(self, partition: int) -> int | None:
        found = self._db.execute("SELECT min(due) FROM timers WHERE partition = ?", (partition,)).fetchone()
        due: int | None = found[0]
        return due

    def commit(self, batch: WriteBatch, sent: Sequence[int]) -> int:
        db, first = self._db, 0
        db.execute("BEGIN IMMEDIATE")
        try:
            epoch = db.execute("SELECT epoch FROM ownership").fetchone()[0]
            if epoch != self._ownership_epoch:
                held = db.execute("SELECT count(*) FROM owners WHERE owner = ?", (self._owner,)).fetchone()[0]
                if held != len(self._partitions):
                    raise StoreError("another worker has taken over shards of this worker; this worker stops")
                self._ownership_epoch = epoch
            if sent:
                db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in sent])
            if batch.persons:
                db.executemany(_UPSERT_PERSON, [(p, person, value) for (p, person), value in batch.persons.items()])
            if batch.due_times:
                gone = [key for key, due in batch.due_times.items() if due is None]
                kept = [(p, person, due) for (p, person), due in batch.due_times.items() if due is not None]
                if gone:
                    db.executemany("DELETE FROM timers WHERE partition = ? AND person = ?", gone)
                if kept:
                    db.executemany("INSERT OR REPLACE INTO timers VALUES (?, ?, ?)", kept)
            if batch.checkpoints:
                db.executemany(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)",
                    [(p, _pack(checkpoint)) for p, checkpoint in batch.checkpoints.items()],
                )
            if batch.outbox_rows:
                added = db.execute(
                    "INSERT INTO outbox (owner, effects) VALUES (?, ?)", (self._owner, _pack(batch.outbox_rows))
                )
                first = added.lastrowid or 0
            if batch.batch_records:
                db.execute("INSERT INTO batch_records (records) VALUES (?)", (_pack(batch.batch_records),))
            db.execute("COMMIT")
        except BaseException:  # re-raised: nothing of this batch may remain
            db.execute("ROLLBACK")
            raise
        return first

    def outbox(self) -> list[OutboxRow]:
        found = self._db.execute("SELECT seq, effects FROM outbox WHERE owner = ? ORDER BY seq", (self._owner,))
        return [row._replace(seq=seq) for seq, rows in found for row in _unpack_rows(rows)]

    def batch_records(self, partition: int) -> list[BatchRecord]:
        found: list[BatchRecord] = []
        for (packed,) in self._db.execute("SELECT records FROM batch_records ORDER BY seq"):
            found += [
                record
                for record in msgspec.msgpack.decode(packed, type=list[BatchRecord])
                if record.partition == partition
            ]
        return found

    def all_batch_records(self) -> list[BatchRecord]:
        """Return the batch records of all shards, in the order of their commits."""
        found = self._db.execute("SELECT records FROM batch_records ORDER BY seq")
        return [record for (packed,) in found for record in msgspec.msgpack.decode(packed, type=list[BatchRecord])]

    def prune_batches(self, before: int, limit: int = 100) -> bool:
        """Delete batch records older than `before` (ms), of up to `limit` commits; return whether there may be more."""
        found = self._db.execute("SELECT seq, records FROM batch_records ORDER BY seq LIMIT ?", (limit,)).fetchall()
        last = 0
        for seq, packed in found:
            if any(record.clock_after >= before for record in msgspec.msgpack.decode(packed, type=list[BatchRecord])):
                break
            last = seq
        if last:
            self._db.execute("DELETE FROM batch_records WHERE seq <= ?", (last,))
        return last != 0 and last == found[-1][0] and len(found) == limit

    def put_blob(self, kind: str, hash: str, content: bytes) -> None:
        self._db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (kind, hash, content))

    def put_named(self, kind: str, name: str, content: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", (kind, name, content))

    def get_blob(self, kind: str, hash: str) -> bytes | None:
        found = self._db.execute("SELECT bytes FROM blobs WHERE kind = ? AND name = ?", (kind, hash)).fetchone()
        return found[0] if found else None

    def maintain(self) -> None:
        if self._checkpointer is not None and self._checkpointer.should_finish(self._path):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        self._db.close()
