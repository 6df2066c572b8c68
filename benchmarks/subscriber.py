"""A raw Redis subscriber that records arrival times (monotonic ns)."""

import re
import select
import socket
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import MARKER_CAMPAIGN

_FRAME = re.compile(rb"\*4\r\n\$8\r\npmessage\r\n\$\d+\r\n[^\r]+\r\n\$\d+\r\n([^\r]+)\r\n\$(\d+)\r\n")
_CAMPAIGN = re.compile(rb'"campaign": ?"%s"' % MARKER_CAMPAIGN.encode())


class ReceivedMessage(NamedTuple):
    """One received message."""

    at: int
    anonymous_id: str
    body: bytes

    @property
    def is_marker(self) -> bool:
        """Whether it is a marker message."""
        return _CAMPAIGN.search(self.body) is not None


class RedisSubscriber:
    """A subscription to a pattern over a Unix socket."""

    def __init__(self, path: Path, pattern: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.settimeout(10)
        self._socket.sendall(f"PSUBSCRIBE {pattern}\r\n".encode())
        self._buffer = self._socket.recv(4096).partition(b":1\r\n")[2]
        self._unread: list[ReceivedMessage] = []

    def read(self, seconds: float) -> list[ReceivedMessage]:
        """Return received messages; wait up to `seconds` for the first."""
        if self._unread:
            kept, self._unread = self._unread, []
            return kept
        if not select.select([self._socket], (), (), seconds)[0]:
            return []
        chunk = self._socket.recv(1 << 18)
        at = time.monotonic_ns()
        if not chunk:
            raise RuntimeError("Redis has closed the connection")
        found, self._buffer = parse_frames(self._buffer + chunk)
        return [ReceivedMessage(at, name.decode().rpartition(":")[2], body) for name, body in found]

    def unread(self, messages: list[ReceivedMessage]) -> None:
        """Push messages back, to be read first."""
        self._unread = messages + self._unread

    def close(self) -> None:
        """Close."""
        self._socket.close()


def parse_frames(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    r"""Parse the complete messages (channel, body) of raw Redis output; return them and the rest.

    >>> parse_frames(b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$2\r\n{}\r\n*4\r\n$8")
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
