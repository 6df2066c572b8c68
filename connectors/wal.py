"""Keeps the write-ahead logs of SQLite files short, beside those who write.

    keeper's thread   much waits  ──▶ fold it into the file, and what came meanwhile … until little is left ──▶ ready
    writer            ready?      ──▶ fold that little, too: now all of it is in the file, and the log begins anew

SQLite folds (it says "checkpoint") outside the interpreter's lock and keeps no writer waiting. But a log begins anew
only at a moment when all of it is in the file, and that moment never comes by itself while somebody writes all the
time. Only the writer can bring it about, by not writing for the few milliseconds that the rest takes.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from connectors.log import LogError

EVERY: Final = 0.2
"""Seconds between two looks at the logs."""
SELDOM: Final = 10
"""Looks, at most, from one fold to the next while little is written."""
MUCH: Final = 1_000
"""Pages (4 kB each) that are worth a fold: what is written again and again meanwhile is folded once."""
LITTLE: Final = 64
"""Pages that the writer may fold in passing."""
LONG: Final = 8_000
"""Pages of a log that is to begin anew. It is read the slower the longer it is."""
TOO_LONG: Final = 64_000
"""Pages of a log that begins anew whatever the writer has to wait: the thread cannot keep up, or is gone."""
KEPT: Final = 2 * LONG * 4_096
"""Bytes that the file of a log may keep (`journal_size_limit`): cutting it takes tens of milliseconds, in a commit."""
TRIES: Final = 6
"""Each try folds what came during the last one, so they become short quickly."""

_FOLD = "PRAGMA wal_checkpoint(PASSIVE)"


def spare(connection: sqlite3.Connection) -> None:
    """Spare whoever writes by this connection the folding, unless the log grows far too long."""
    connection.execute(f"PRAGMA wal_autocheckpoint = {TOO_LONG}")
    connection.execute(f"PRAGMA journal_size_limit = {KEPT}")


def finish(connection: sqlite3.Connection) -> None:
    """The writer's part, between two transactions. What readers are still in the middle of stays for the next time."""
    with suppress(sqlite3.Error):  # what was written stays written; a commit that cannot write will say so itself
        connection.execute(_FOLD)


class _Log:
    """One write-ahead log: what it looked like when it was folded last. All of it belongs to the keeper's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = os.path.realpath(path)
        self._connection: sqlite3.Connection | None = None
        self._descriptor = -1
        self._written = self._size = self._folded = 0
        self._pause, self._left = 1, 0

    def is_worth_it(self) -> bool:
        """Whether it was written since, and long enough ago, or much of it."""
        # Only asked about, never opened: closing it would take away the locks that SQLite holds on it.
        wal = os.stat(f"{self.path}-wal")
        self._left -= 1
        if wal.st_mtime_ns == self._written or (self._left > 0 and wal.st_size <= self._size):
            return False
        self._written, self._size = wal.st_mtime_ns, wal.st_size
        return True

    def fold(self) -> bool:
        """Fold what waits, as far as writers and readers let it; whether the writer should do the rest."""
        if self._connection is None:
            self._connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        for _ in range(TRIES):
            busy, pages, folded = self._connection.execute(_FOLD).fetchone()
            if busy:
                return False
            self._sync()
            if pages - folded <= LITTLE:
                break
        much = folded - (self._folded if folded >= self._folded else 0) >= MUCH  # less: it has begun anew
        self._folded = folded
        self._pause = max(1, self._pause // 2) if much else min(SELDOM, self._pause + 1)
        self._left = self._pause
        return bool(pages >= LONG and (pages - folded <= LITTLE or pages >= 2 * LONG))

    def _sync(self) -> None:
        """Bring what was folded to the disk. SQLite does so when all of it is folded: the writer would wait for it.

        By a descriptor that SQLite has opened itself: closing one of our own would take away its locks. Where the
        system does not tell which ones there are, the writer waits.
        """
        with suppress(OSError):
            if not self._is_ours(self._descriptor):
                self._descriptor = next(filter(self._is_ours, map(int, os.listdir("/proc/self/fd"))), -1)
            if self._descriptor >= 0:
                os.fdatasync(self._descriptor)

    def _is_ours(self, descriptor: int) -> bool:
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}") == self._real
        except OSError:  # closed in the meantime
            return False

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Keeper:
    """The thread that folds the logs of the files a process writes. `after` is called when one was folded."""

    def __init__(self, after: Callable[[Path], object] | None = None, every: float = EVERY) -> None:
        self._logs: tuple[_Log, ...] = ()
        self._ready: set[Path] = set()
        self._after = after
        self._every = every
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def spare(self, connection: sqlite3.Connection) -> None:
        """Whoever writes a kept file by this connection leaves its log to the keeper."""
        spare(connection)

    def add(self, path: Path) -> None:
        """Keep a file that is written here."""
        self._logs = (*self._logs, _Log(path))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wal-keeper", daemon=True)
            self._thread.start()

    def ready(self, path: Path) -> bool:
        """Whether the writer is to `finish` now. It is said once."""
        if not self._ready or path not in self._ready:
            return False
        self._ready.discard(path)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for log in self._logs:
                try:
                    if not log.is_worth_it():
                        continue
                    if log.fold():
                        self._ready.add(log.path)
                    if self._after is not None:
                        self._after(log.path)
                except (OSError, sqlite3.Error, LogError):
                    log.close()  # tried again; a commit folds by itself when the log is far too long
        for log in self._logs:
            log.close()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
