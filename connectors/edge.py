"""The edge: collector, gateway, and the few pages of attimo, as one ASGI application on uvicorn.

    POST /v1/track …  ─▶ collector          GET /v1/stream, POST /v1/stream/token ─▶ gateway
    GET  /pixel.js, /widget.js, /shop/, /live, /live/feed, /healthz …              ─▶ Starlette

What every click takes is dispatched by one dictionary look-up before Starlette sees it. `docs/http.md` is the manual.
"""

import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Final

import structlog
import uvicorn
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from connectors import metrics, pages, valkey, wire
from connectors.answers import Origins, Problem, answer, header, refuse
from connectors.binding import Binder
from connectors.collector import Collector, query
from connectors.gateway import Gateway
from connectors.group_commit import GroupCommit
from connectors.live_feed import LiveFeed
from connectors.log import Log
from connectors.metrics import EDGE_REQUESTS
from connectors.settings import with_secret
from domain.settings import Settings

MAX_TOKEN_BODY: Final = 4_096
INGEST: Final = {
    **{f"/v1/{name}": name for name in (*wire.CALLS, "m", "pixel.gif")},
    **{f"/api/s/{name}": name for name in wire.CALLS if len(name) > 1},
    **{f"/v1/{name}/": name for name in wire.CALLS if len(name) > 1},
}
log = structlog.get_logger("edge")


class Edge:
    """The application. `opener` opens the log; it is called once for the collector and once for each live feed."""

    def __init__(self, settings: Settings, opener: Callable[[], Log]) -> None:
        if not settings.secret:
            raise ValueError("secret: the edge needs a signing secret (see connectors.settings.with_secret)")
        if settings.server_key and settings.server_key == settings.write_key:
            raise ValueError("server_key: is the same as write_key, and that one is public")
        self.settings, self._opener = settings, opener
        self.origins = Origins(settings.origins, settings.public_url)
        self.feed = LiveFeed(opener, settings)
        self.gateway: Gateway | None = None
        self.collector: Collector | None = None
        self._pages = Starlette(
            routes=pages.routes(self), lifespan=self._lifespan, exception_handlers=pages.HANDLERS)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        url = valkey.url(self.settings)
        redis: Redis = Redis.from_url(
            url, protocol=2, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
        with self._opener() as opened:
            binder = Binder(self.settings, redis)
            self.gateway = Gateway(self.settings, redis, url, binder)
            self.collector = Collector(self.settings, GroupCommit(opened), binder, self.origins)
            self.gateway.start()
            try:
                yield
            finally:
                self.end_streams()
                await self.gateway.stop()
                await redis.aclose()

    def end_streams(self) -> None:
        """Let every event stream end, so that the server can stop."""
        self.feed.end()
        if self.gateway is not None:
            self.gateway.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (or the start and the end of the server)."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        path: str = scope["path"]
        call = INGEST.get(path)
        if call is None and path not in ("/v1/stream", "/v1/stream/token"):
            await self._pages(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._dispatch(scope, receive, watched, path, call)
        except Exception as wrong:  # the outermost edge: counted, told, and the next caller is served
            EDGE_REQUESTS.labels("internal").inc()
            log.exception("a request failed", path=path, because=type(wrong).__name__)
            if not started:
                await refuse(send, Problem(500, "internal", "something went wrong here; it has been noted"))

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send, path: str, call: str | None) -> None:
        assert self.collector is not None  # the server starts us before it accepts calls
        assert self.gateway is not None
        if call is not None:
            await self.collector(scope, receive, send, call)
            return
        headers = self.origins.headers(scope)
        try:
            if scope["method"] == "OPTIONS":
                await answer(send, 204, b"", self.origins.preflight(scope))
                return
            self.origins.check(scope)
            wanted = "POST" if path.endswith("token") else "GET"
            if scope["method"] != wanted:
                raise Problem(405, "method_not_allowed", f"method: only {wanted} is answered here", "method")
            self.collector.allow(scope)
            if wanted == "POST":
                body = await read_small(scope, receive, MAX_TOKEN_BODY)
                await self.gateway.token(scope, body, send, headers)
            else:
                await self.gateway.stream(scope, receive, send, headers, query(scope).get("token", ""))
        except Problem as problem:
            await refuse(send, problem, headers)


async def read_small(scope: Scope, receive: Receive, cap: int) -> bytes:
    """The body of a small request; Problem when it is larger than `cap` bytes."""
    declared = header(scope, b"content-length")
    body, more = b"", True
    while more and len(body) <= cap and not (declared.isdecimal() and int(declared[:18]) > cap):
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
    if more:
        raise Problem(413, "too_large", f"body: is larger than {cap} bytes", "body")
    return body


class Server(uvicorn.Server):
    """Ends the event streams first when it is told to stop; else they would hold the server up."""

    def __init__(self, config: uvicorn.Config, edge: Edge) -> None:
        super().__init__(config)
        self._edge = edge

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._edge.end_streams()
        await super().shutdown(sockets)


def server(edge: Edge) -> Server:
    """The server for an edge, not yet running."""
    settings = edge.settings
    return Server(uvicorn.Config(
        edge, host=settings.host, port=settings.port, loop="uvloop", http="httptools", ws="none", lifespan="on",
        proxy_headers=False,  # who is trusted about addresses is decided in connectors/geo.py
        server_header=False, access_log=False, log_config=None, timeout_graceful_shutdown=5, timeout_keep_alive=30,
        backlog=2_048,
    ), edge)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end with exit code 0; metrics on loopback."""
    from connectors.open_log import open_log

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # uvicorn takes the signals over, and raises them again when it has stopped

    settings = with_secret(settings)
    edge = Edge(settings, lambda: open_log(settings))
    metrics.serve(metrics.port_of(settings, "edge"))
    log.info("listening", host=settings.host, port=settings.port, shop=settings.shop, demo=settings.demo)
    gc.freeze()  # what was imported lives as long as the process: no collection needs to look at it again
    server(edge).run()
