"""Checkpoints of a store file, off the hot path: the write-ahead log is folded into the file from a thread of its own.

SQLite does the work outside the interpreter's lock and beside the writer, who is never kept waiting. The writer begins
the log anew as soon as all of it is in the file; where that never happens by itself, because the writer is never at
rest, `pages` tells the writer how far the log has grown.
"""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Final

START: Final = 4 << 20
"""Bytes of write-ahead log at which a checkpoint begins."""
KEPT: Final = 256 << 20
"""Bytes the log may keep when it starts anew (`journal_size_limit` of the writer). Cutting a file takes tens of
milliseconds, inside a commit: so it is not cut in daily work, only after a rush."""
TRIES: Final = 4
"""The writer goes on meanwhile: each try folds what came during the last one, so they become short quickly."""


class Checkpoints:
    """The thread of one store file. It ends with `close`, or with the process."""

    def __init__(self, path: Path, every: float = 0.2) -> None:
        self._path = path
        self._every = every
        self.pages = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-checkpoints", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        done = 0
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            while not self._stop.wait(self._every):
                try:
                    wal = os.stat(f"{self._path}-wal")
                    if wal.st_size < START or wal.st_mtime_ns == done:
                        continue
                    for _ in range(TRIES):
                        busy, pages, folded = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                        self.pages = pages
                        if busy or pages == folded:
                            break
                    done = wal.st_mtime_ns
                except (OSError, sqlite3.Error):
                    continue  # tried again; the writer checkpoints by itself when the log grows far
        finally:
            connection.close()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
