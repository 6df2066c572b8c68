"""Checkpoints the write-ahead logs (WAL) of SQLite files in a background thread.

    checkpointer thread   many new pages?  ──▶ checkpoint repeatedly, until few pages are left ──▶ mark the file
    writer                file marked?     ──▶ checkpoint the remaining pages: SQLite restarts the WAL

A passive checkpoint releases the GIL and does not block writers. But SQLite restarts a WAL only when all of it is
checkpointed, which never happens by itself under continuous writes. So the writer checkpoints the last pages.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from connectors.log.log import LogError

CHECK_INTERVAL: Final = 0.2
"""Seconds between two checks of the WAL files."""
MAX_SKIPPED_CHECKS: Final = 10
"""Maximum number of checks between two checkpoints while few pages are written."""
WORTHWHILE_PAGES: Final = 1_000
"""Pages (4 kB each) that are worth a checkpoint: a page that is written repeatedly is checkpointed once."""
WRITER_PAGES: Final = 64
"""Pages that the writer may checkpoint after a commit."""
RESTART_PAGES: Final = 8_000
"""Size in pages at which a WAL is restarted: reads get slower as it grows."""
AUTOCHECKPOINT_PAGES: Final = 64_000
"""Size in pages at which SQLite checkpoints in the commit itself: the thread cannot keep up, or has stopped."""
JOURNAL_SIZE_LIMIT: Final = 2 * RESTART_PAGES * 4_096
"""Bytes that a WAL file keeps after a restart (`journal_size_limit`): truncating costs tens of ms in a commit."""
MAX_PASSES: Final = 6
"""Maximum passes of one checkpoint; each handles the pages written during the previous one."""

_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"


def disable_autocheckpoint(connection: sqlite3.Connection) -> None:
    """Disable checkpoints in commits of this connection, unless the WAL grows far too long."""
    connection.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE_LIMIT}")


def finish_checkpoint(connection: sqlite3.Connection) -> None:
    """Checkpoint the remaining pages, between two transactions of the writer. Pages that readers use stay."""
    with suppress(sqlite3.Error):  # committed data is safe; a later commit reports write errors
        connection.execute(_CHECKPOINT)


class _WalFile:
    """One WAL file and its state at the last checkpoint. Used by the checkpointer thread only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real_path = os.path.realpath(path)
        self._connection: sqlite3.Connection | None = None
        self._descriptor = -1
        self._mtime = self._size = self._checkpointed_pages = 0
        self._skip_checks, self._checks_left = 1, 0

    def should_checkpoint(self) -> bool:
        """Return True if the WAL changed and either grew or enough checks have passed."""
        # Use stat, never open: closing a descriptor would release the locks that SQLite holds on the file.
        wal = os.stat(f"{self.path}-wal")
        self._checks_left -= 1
        if wal.st_mtime_ns == self._mtime or (self._checks_left > 0 and wal.st_size <= self._size):
            return False
        self._mtime, self._size = wal.st_mtime_ns, wal.st_size
        return True

    def checkpoint(self) -> bool:
        """Checkpoint as far as readers and writers allow; return True if the writer should finish it."""
        if self._connection is None:
            self._connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        for _ in range(MAX_PASSES):
            busy, pages, checkpointed = self._connection.execute(_CHECKPOINT).fetchone()
            if busy:
                return False
            self._sync()
            if pages - checkpointed <= WRITER_PAGES:
                break
        # A lower count than before means that the WAL was restarted.
        previous = self._checkpointed_pages if checkpointed >= self._checkpointed_pages else 0
        is_worthwhile = checkpointed - previous >= WORTHWHILE_PAGES
        self._checkpointed_pages = checkpointed
        self._skip_checks = (
            max(1, self._skip_checks // 2) if is_worthwhile else min(MAX_SKIPPED_CHECKS, self._skip_checks + 1)
        )
        self._checks_left = self._skip_checks
        return bool(pages >= RESTART_PAGES and (pages - checkpointed <= WRITER_PAGES or pages >= 2 * RESTART_PAGES))

    def _sync(self) -> None:
        """Flush the database file to disk, so that the writer does not wait for it at the end of the checkpoint.

        Uses a descriptor that SQLite opened, because closing a new one would release SQLite's locks. Where open
        descriptors cannot be listed (no /proc), the writer waits.
        """
        with suppress(OSError):
            if not self._is_database(self._descriptor):
                self._descriptor = next(filter(self._is_database, map(int, os.listdir("/proc/self/fd"))), -1)
            if self._descriptor >= 0:
                os.fdatasync(self._descriptor)

    def _is_database(self, descriptor: int) -> bool:
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}") == self._real_path
        except OSError:  # closed meanwhile
            return False

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class WalCheckpointer:
    """Runs checkpoints for the files that a process writes; calls `on_checkpoint` after each one."""

    def __init__(self, on_checkpoint: Callable[[Path], object] | None = None, interval: float = CHECK_INTERVAL) -> None:
        self._wal_files: tuple[_WalFile, ...] = ()
        self._finishable: set[Path] = set()
        self._on_checkpoint = on_checkpoint
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def disable_autocheckpoint(self, connection: sqlite3.Connection) -> None:
        """Leave checkpoints of this connection to the checkpointer."""
        disable_autocheckpoint(connection)

    def add(self, path: Path) -> None:
        """Add a file that this process writes."""
        self._wal_files = (*self._wal_files, _WalFile(path))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="wal-checkpointer", daemon=True)
            self._thread.start()

    def should_finish(self, path: Path) -> bool:
        """Return True, once, if the writer should call `finish_checkpoint` now."""
        if not self._finishable or path not in self._finishable:
            return False
        self._finishable.discard(path)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for wal in self._wal_files:
                try:
                    if not wal.should_checkpoint():
                        continue
                    if wal.checkpoint():
                        self._finishable.add(wal.path)
                    if self._on_checkpoint is not None:
                        self._on_checkpoint(wal.path)
                except (OSError, sqlite3.Error, LogError):
                    wal.close()  # retried; if the WAL grows far too long, a commit checkpoints it
        for wal in self._wal_files:
            wal.close()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
