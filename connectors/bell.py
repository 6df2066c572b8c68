"""Doorbells: how a writer of the SQLite log wakes its readers at once.

Each reader binds a Unix datagram socket in the folder of bells; whoever appends sends one byte to each, without
waiting. Nothing depends on it: a reader that hears no bell looks by itself when its wait is over.
"""

import errno
import os
import select
import socket
import tempfile
import time
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Final

from domain.streams import ALL

REFRESH: Final = 0.2
"""Seconds after which a writer looks again which bells there are."""
LETTER: Final = {stream: chr(ord("a") + n) for n, stream in enumerate(ALL)}
STREAM: Final = {letter: stream for stream, letter in LETTER.items()}
"""A bell's name says what it rings for, in one letter a stream: a socket's path must be short."""
LONGEST_PATH: Final = 100
"""Bytes that surely fit a Unix socket address (104 on macOS, 108 on Linux)."""


def folder_of(data: Path) -> Path:
    """Where the bells of a data folder are: in it, or, if its path is too long for a socket, in a temporary folder."""
    folder = data / "run" / "bells"
    if len(os.fsencode(folder.absolute())) + 40 > LONGEST_PATH:
        name = sha256(os.fsencode(data.absolute())).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"attimo-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OSError(errno.EPERM, "belongs to somebody else", str(folder))
    return folder.absolute()


class Bell:
    """A reader's bell; it rings for appends to the named streams."""

    def __init__(self, folder: Path, streams: Sequence[str]) -> None:
        self.path = folder / f"{os.getpid()}-{token_hex(3)}.{''.join(LETTER[stream] for stream in streams)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self._waiting = [self._socket]

    def wait(self, seconds: float) -> bool:
        """Sleep until it rings, at most so long; whether it rang."""
        if not select.select(self._waiting, (), (), seconds)[0]:
            return False
        try:
            while self._socket.recv(16):
                pass
        except BlockingIOError:
            pass  # all rings so far are heard
        return True

    def close(self) -> None:
        """Take the bell down."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


class Ringer:
    """A writer's hand: rings every bell that listens to a stream."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._bells: dict[str, list[str]] = {}
        self._changed = -1
        self._look = 0.0

    def ring(self, streams: Collection[str]) -> None:
        """Wake whoever reads one of these streams."""
        now = time.monotonic()
        if now >= self._look:
            self._look = now + REFRESH
            self._refresh()
        for bell in self._listening(streams):
            try:
                self._socket.sendto(b".", bell)
            except BlockingIOError:
                pass  # its queue is full of rings: it will wake
            except OSError as wrong:
                if wrong.errno == errno.ENOBUFS:
                    continue  # macOS says so when the queue is full
                self._look = 0.0
                if wrong.errno == errno.ECONNREFUSED:
                    Path(bell).unlink(missing_ok=True)  # its reader died without taking it down

    def _listening(self, streams: Collection[str]) -> Collection[str]:
        if len(streams) == 1:
            (stream,) = streams
            return self._bells.get(stream, ())
        return {bell for stream in streams for bell in self._bells.get(stream, ())}

    def _refresh(self) -> None:
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed == self._changed:
                return
            found = list(self._folder.iterdir())
        except OSError:
            found, changed = [], 0  # no folder, no bells
        # A bell hung within the clock tick of this look would not change the folder's time again.
        self._changed = changed if time.time_ns() - changed > 1_000_000_000 else -1
        self._bells = {}
        for path in found:
            for letter in path.suffix[1:]:
                if letter in STREAM:
                    self._bells.setdefault(STREAM[letter], []).append(str(path))

    def close(self) -> None:
        """Let go."""
        self._socket.close()
