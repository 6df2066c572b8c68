"""A minimal HTTP client with keep-alive posts and event streams, so that its own cost is small."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast

REQUEST_HEADERS = (
    "Host: 127.0.0.1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36\r\nSec-Fetch-Site: same-origin\r\n"
)


class Response(NamedTuple):
    """Status, raw header, body."""

    status: int
    headers: bytes
    body: bytes


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self, on_free: Callable[["Connection"], None]) -> None:
        self._on_free = on_free
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent

    def send(self, request: bytes, waiter: asyncio.Future[Response]) -> None:
        """Send a request; resolve the waiter with the response."""
        assert self._transport is not None
        self._waiter = waiter
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if len(body) < int(length or 0):
            return
        self._buffer = b""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(Response(int(head[9:12]), head, body))
        self._on_free(self)

    def connection_lost(self, wrong: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """Close."""
        assert self._transport is not None
        self._transport.close()


class Client:
    """A pool of keep-alive connections to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[Connection] = []
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[bytes, asyncio.Future[Response]]] = deque()

    async def connect(self, count: int) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, line = await loop.create_connection(lambda: Connection(self._release), "127.0.0.1", self._port)
            self._connections.append(line)
            self._idle.append(line)

    def post(self, path: str, body: bytes, cookie: str = "") -> asyncio.Future[Response]:
        """POST JSON; return a future of the response."""
        cookies = f"Cookie: {cookie}\r\n" if cookie else ""
        request = (
            f"POST {path} HTTP/1.1\r\n{REQUEST_HEADERS}{cookies}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        if self._idle:
            self._idle.popleft().send(request, waiter)
        else:
            self._waiting.append((request, waiter))
        return waiter

    def _release(self, line: Connection) -> None:
        if self._waiting:
            line.send(*self._waiting.popleft())
        else:
            self._idle.append(line)

    def close(self) -> None:
        """Close."""
        for line in self._connections:
            line.close()


class Stream(asyncio.Protocol):
    """One event stream; records when (monotonic ns) a given text first arrives."""

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.arrived = 0
        self.ended = False

    @classmethod
    async def open(cls, port: int, path: str, cookie: str, wanted: bytes) -> "Stream":
        """Open a stream and wait for its first event."""
        loop = asyncio.get_running_loop()
        transport, stream = await loop.create_connection(lambda: cls(wanted), "127.0.0.1", port)
        cookies = f"Cookie: {cookie}\r\n" if cookie else ""
        transport.write(f"GET {path} HTTP/1.1\r\n{REQUEST_HEADERS}{cookies}Accept: text/event-stream\r\n\r\n".encode())
        status = await asyncio.wait_for(stream.opened, 20)
        if status != 200:
            raise RuntimeError(f"the stream was refused with {status}: {stream._buffer[:500]!r}")
        return stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent

    def data_received(self, data: bytes) -> None:
        at = time.monotonic_ns()
        self._buffer += data
        if not self.opened.done():
            head, end, _ = self._buffer.partition(b"\r\n\r\n")
            if end and (b"event:" in self._buffer or b" 200 " not in head):
                self.opened.set_result(int(head[9:12]))
                if b" 200 " in head:
                    self._buffer = b""
        elif not self.arrived:
            if self._expected in self._buffer:
                self.arrived = at
            self._buffer = self._buffer[-65_536:]

    def connection_lost(self, wrong: Exception | None) -> None:
        self.ended = True
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the server closed the stream"))

    def close(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()
