"""A raw subscriber: what comes out on Redis, and the moment (monotonic ns) at which it came."""

import re
import select
import socket
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import CAMPAIGN

_FRAME = re.compile(rb"\*4\r\n\$8\r\npmessage\r\n\$\d+\r\n[^\r]+\r\n\$\d+\r\n([^\r]+)\r\n\$(\d+)\r\n")
_CAMPAIGN = re.compile(rb'"campaign": ?"%s"' % CAMPAIGN.encode())


class Heard(NamedTuple):
    """One message."""

    at: int
    anonymous_id: str
    body: bytes

    @property
    def is_mark(self) -> bool:
        """Whether it is the message that a mark is answered with."""
        return _CAMPAIGN.search(self.body) is not None


class Listening:
    """Subscribed to a pattern, over a Unix socket, from now on."""

    def __init__(self, path: Path, pattern: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.settimeout(10)
        self._socket.sendall(f"PSUBSCRIBE {pattern}\r\n".encode())
        self._rest = self._socket.recv(4096).partition(b":1\r\n")[2]
        self._kept: list[Heard] = []

    def read(self, seconds: float) -> list[Heard]:
        """What has come, waiting at most so long for the first message."""
        if self._kept:
            kept, self._kept = self._kept, []
            return kept
        if not select.select([self._socket], (), (), seconds)[0]:
            return []
        chunk = self._socket.recv(1 << 18)
        at = time.monotonic_ns()
        if not chunk:
            raise RuntimeError("Redis has closed the connection")
        found, self._rest = frames(self._rest + chunk)
        return [Heard(at, name.decode().rpartition(":")[2], body) for name, body in found]

    def keep(self, heard: list[Heard]) -> None:
        """What was read and not wanted yet: it is read first, next time."""
        self._kept = heard + self._kept

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


def frames(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    r"""The whole messages (channel, body) in what came from Redis, and the rest.

    >>> frames(b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$2\r\n{}\r\n*4\r\n$8")
    ([(b'c', b'{}')], b'*4\r\n$8')
    """
    found, at = [], 0
    while match := _FRAME.match(raw, at):
        start = match.end()
        end = start + int(match[2])
        if len(raw) < end + 2:
            break
        found.append((match[1], raw[start:end]))
        at = end + 2
    return found, raw[at:]
