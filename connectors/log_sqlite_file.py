"""A file of the SQLite log: its table, how it is opened, and where its places end."""

import sqlite3
import time
from pathlib import Path
from typing import Final

from connectors.log import LogError, Place
from connectors.wal import spare
from domain.streams import INTERNAL, MODELS, PUBLIC

FILES: Final = ("public", "internal", "models")
FILE_OF: Final = {**dict.fromkeys(PUBLIC, "public"), **dict.fromkeys(INTERNAL, "internal"), MODELS: "models"}

VERSION: Final = 1
"""Of the tables, in PRAGMA user_version."""
RESERVE: Final = 1_000_000
"""How far ids jump after a restart of the machine: more than is ever written between two syncs of the WAL."""
PATIENCE: Final = 10.0
"""Seconds to wait for another writer before giving up."""

_TABLES = """
CREATE TABLE records (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    stream    TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    time      INTEGER NOT NULL,
    key       BLOB,
    value     BLOB    NOT NULL
);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE ends (
    stream    TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    PRIMARY KEY (stream, partition)
) WITHOUT ROWID;
"""

ENDS_EVERY: Final = 10_000
"""Ids after which the list of ends is written down again."""


def text(wrong: sqlite3.Error) -> str:
    """What SQLite said, with a remedy where there is one."""
    said = str(wrong)
    if "readonly" in said or "unable to open" in said:
        return f"{said}: check who owns the data folder"
    if "disk is full" in said:
        return f"{said}: nothing was written; make room and try again"
    return said


def connect(path: Path, sync: str = "normal", patience: float = PATIENCE) -> sqlite3.Connection:
    """A connection that begins no transactions by itself and waits `patience` seconds for a lock."""
    try:
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        spare(connection)
        if patience != PATIENCE:
            connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
    except sqlite3.Error as wrong:
        raise LogError(f"{path}: {text(wrong)}") from wrong
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """BEGIN IMMEDIATE, waiting for other writers in steps of 50 µs to 2 ms (SQLite's own wait starts at 1 ms).

    For connections whose own patience is 0.
    """
    pause = 0.000_05
    deadline = 0.0
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as wrong:
            if wrong.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise LogError(text(wrong)) from wrong
            now = time.monotonic()
            deadline = deadline or now + PATIENCE
            if now > deadline:
                raise LogError("the log is locked by another process; nothing was written") from wrong
        time.sleep(pause)
        pause = min(pause * 2, 0.002)


def prepare(path: Path, partitions: int) -> None:
    """Create the file, or check that it fits; after a restart of the machine, let ids jump ahead."""
    connection = connect(path, "full", 0)
    try:
        _wal(connection)
        begin(connection)
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO about VALUES (?, ?)",
                [("partitions", str(partitions)), ("boot", boot()), ("ends_upto", "0")],
            )
            connection.execute(f"PRAGMA user_version = {VERSION}")
        _check(connection, path, partitions)
        if (booted := boot()) != _about(connection, "boot") or not booted:
            connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'records'", (RESERVE,))
            connection.execute("UPDATE about SET value = ? WHERE name = 'boot'", (booted,))
        connection.execute("COMMIT")
    except sqlite3.Error as wrong:
        raise LogError(f"{path}: {text(wrong)}") from wrong
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()


def _wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; several processes may try at once."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as wrong:
            if wrong.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def _check(connection: sqlite3.Connection, path: Path, partitions: int) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise LogError(f"{path} has version {version}, this program reads version {VERSION}")
    created = int(_about(connection, "partitions"))
    if created != partitions:
        raise LogError(
            f"{path} was created with {created} partitions, the setting says {partitions}:"
            f" the count is fixed when the log is created; set partitions = {created}, or use another data folder"
        )


def _about(connection: sqlite3.Connection, name: str) -> str:
    return str(connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()[0])


def boot() -> str:
    """Which start of the machine this is; empty where it cannot be told (then ids jump at every opening).

    Only a restart of the machine can lose commits that a process has seen.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def sequence(connection: sqlite3.Connection) -> int:
    """The last id given out (or skipped); 0 for none."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return int(found[0]) if found else 0


def ends(path: Path) -> tuple[dict[Place, int], int]:
    """The last offset of each place that has one, and the file's last offset, both as of now.

    What was found is kept in the file, so that only what is new since then is looked through.
    """
    connection = connect(path)
    try:
        connection.execute("BEGIN")
        upto, last = int(_about(connection, "ends_upto")), sequence(connection)
        found = {(row[0], row[1]): row[2] for row in connection.execute("SELECT stream, partition, last FROM ends")}
        fresh = connection.execute(
            "SELECT stream, partition, max(id) FROM records WHERE id > ? GROUP BY stream, partition", (upto,)
        ).fetchall()
        connection.execute("COMMIT")
        found |= {(row[0], row[1]): row[2] for row in fresh}
        if last > upto + ENDS_EVERY:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO ends VALUES (?, ?, ?)"
                " ON CONFLICT (stream, partition) DO UPDATE SET last = max(last, excluded.last)",
                fresh,
            )
            connection.execute(
                "UPDATE about SET value = max(CAST(value AS INTEGER), ?) WHERE name = 'ends_upto'", (last,)
            )
            connection.execute("COMMIT")
    except sqlite3.Error as wrong:
        raise LogError(f"{path}: {text(wrong)}") from wrong
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()
    return found, last
