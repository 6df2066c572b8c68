"""Wake-up sockets: a writer of the SQLite log wakes its readers immediately.

Each reader binds a Unix datagram socket in one folder; a writer sends one byte to each, without blocking. Wake-ups are
an optimization: a reader that receives none reads the log when its timeout ends.
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

from domain.record import ALL_STREAMS

REFRESH_INTERVAL: Final = 0.2
"""Seconds after which a writer lists the sockets again."""
STREAM_CODES: Final = {stream: chr(ord("a") + n) for n, stream in enumerate(ALL_STREAMS)}
STREAMS_BY_CODE: Final = {code: stream for stream, code in STREAM_CODES.items()}
"""One code per stream in the name of a socket, because socket paths must be short."""
MAX_SOCKET_PATH: Final = 100
"""Bytes that fit a Unix socket address everywhere (limits: 104 on macOS, 108 on Linux)."""


def wakeup_folder(data_folder: Path) -> Path:
    """Return the folder of the sockets: in the data folder, or in the temporary folder if its path is too long."""
    folder = data_folder / "run" / "wakeup"
    if len(os.fsencode(folder.absolute())) + 40 > MAX_SOCKET_PATH:
        name = sha256(os.fsencode(data_folder.absolute())).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"attimo-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OSError(errno.EPERM, "belongs to another user", str(folder))
    return folder.absolute()


class WakeupSocket:
    """The socket of a reader, for appends to the named streams."""

    def __init__(self, folder: Path, streams: Sequence[str]) -> None:
        self.path = folder / f"{os.getpid()}-{token_hex(3)}.{''.join(STREAM_CODES[stream] for stream in streams)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self._readable = [self._socket]

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a wake-up; return True if one arrived."""
        if not select.select(self._readable, (), (), seconds)[0]:
            return False
        try:
            while self._socket.recv(16):
                pass
        except BlockingIOError:
            pass  # all pending wake-ups are read
        return True

    def close(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


class Notifier:
    """The sending side of a writer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._sockets_by_stream: dict[str, list[str]] = {}
        self._folder_mtime = -1
        self._refresh_at = 0.0

    def notify(self, streams: Collection[str]) -> None:
        """Wake all readers of these streams."""
        now = time.monotonic()
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_INTERVAL
            self._refresh()
        for path in self._sockets_of(streams):
            try:
                self._socket.sendto(b".", path)
            except BlockingIOError:
                pass  # its queue is full, so it wakes up anyway
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # macOS: the queue is full
                self._refresh_at = 0.0
                if error.errno == errno.ECONNREFUSED:
                    Path(path).unlink(missing_ok=True)  # its reader died without removing it

    def _sockets_of(self, streams: Collection[str]) -> Collection[str]:
        if len(streams) == 1:
            (stream,) = streams
            return self._sockets_by_stream.get(stream, ())
        return {path for stream in streams for path in self._sockets_by_stream.get(stream, ())}

    def _refresh(self) -> None:
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed == self._folder_mtime:
                return
            found = list(self._folder.iterdir())
        except OSError:
            found, changed = [], 0  # no folder, no sockets
        # A socket created within the same clock tick would not change the modification time again.
        self._folder_mtime = changed if time.time_ns() - changed > 1_000_000_000 else -1
        self._sockets_by_stream = {}
        for path in found:
            for code in path.suffix[1:]:
                if code in STREAMS_BY_CODE:
                    self._sockets_by_stream.setdefault(STREAMS_BY_CODE[code], []).append(str(path))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
