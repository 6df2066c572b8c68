"""The edge: collector, gateway and pages as one ASGI application on uvicorn. See `docs/http.md`.

    POST /v1/track …  ─▶ collector          GET /v1/stream, POST /v1/stream/token ─▶ gateway
    GET  /pixel.js, /widget.js, /shop/, /live, /live/feed, /healthz …              ─▶ Starlette

Collector paths are dispatched by one dictionary lookup before Starlette, for speed. The pages are health, settings for
Segment and RudderStack clients, the demo shop and the live page.
"""

import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import orjson
import structlog
import uvicorn
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from connectors import metrics
from connectors.http import browser_binding, client, responses, segment_protocol
from connectors.http.browser_binding import Binder, is_https
from connectors.http.collector import Collector, query_params
from connectors.http.gateway import Gateway
from connectors.http.live_feed import LiveFeed
from connectors.http.responses import CorsPolicy, HTTPError, header, host_of, send_error, send_response
from connectors.log.group_commit import GroupCommit
from connectors.log.log import Log
from connectors.metrics import EDGE_REQUESTS
from connectors.redis import server as redis_server
from connectors.settings import with_secret
from domain.settings import Settings

_ROOT: Final = Path(__file__).resolve().parents[2]
WEB_FOLDER: Final = _ROOT / "web" if (_ROOT / "web").is_dir() else _ROOT / "attimo_web"  # a clone, or a wheel
MAX_LOGIN_BYTES: Final = 1_024
_CSP: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: https:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PAGE_HEADERS: Final = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cache-control": "no-cache",
}
_SCRIPT_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "cache-control": "public, max-age=300",  # a new version is live within five minutes
    "cross-origin-resource-policy": "cross-origin",  # shops load pixel and widget from here
}


def page_routes(edge: "Edge") -> list[BaseRoute]:
    """Return the routes of all pages."""
    page = Pages(edge)
    found: list[BaseRoute] = [
        Route("/", page.index, methods=["GET"]),
        Route("/healthz", page.health, methods=["GET"]),
        Route("/v1/projects/{key}/settings", page.segment_settings, methods=["GET", "OPTIONS"]),
        Route("/sourceConfig", page.rudder_settings, methods=["GET", "OPTIONS"]),
        Route("/sourceConfig/", page.rudder_settings, methods=["GET", "OPTIONS"]),
        Route("/live", page.live, methods=["GET"]),
        Route("/live/feed", LiveFeedEndpoint(edge), methods=["GET"]),
        Route("/{name}", page.script, methods=["GET"]),
    ]
    if edge.settings.demo:
        found.insert(0, Route("/shop/login", page.login, methods=["POST"]))
        if (WEB_FOLDER / "demo").is_dir():
            found.append(Mount("/shop", DemoShopFiles(directory=WEB_FOLDER / "demo", html=True)))
    return found


def may_view_live(edge: "Edge", scope: Scope) -> bool:
    """Return True if the client may see the live feed: everyone in demo mode, else this machine only.

    Proxied requests are denied, because a local proxy makes all clients look local. A foreign Host header is denied,
    because it indicates DNS rebinding.
    """
    if edge.settings.demo:
        return True
    if header(scope, b"x-forwarded-for") or header(scope, b"forwarded") or header(scope, b"x-real-ip"):
        return False
    name = host_of(scope).rpartition(":")[0] or host_of(scope)
    peer = scope["client"][0] if scope.get("client") else ""
    return client.is_loopback(peer) and (name == "localhost" or client.is_loopback(name.strip("[]")))


class DemoShopFiles(StaticFiles):
    """Serves the files of the demo shop with page headers."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        """Return the response for one file."""
        if Path(full_path).suffix in responses.MEDIA_TYPES and status_code == 200:
            return responses.file_response(Path(full_path), Headers(scope=scope), _PAGE_HEADERS)
        response = super().file_response(full_path, stat_result, scope, status_code)
        for name, value in _PAGE_HEADERS.items():
            response.headers[name] = value
        return response


class LiveFeedEndpoint:
    """GET /live/feed as a plain ASGI application."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream the live feed."""
        if not may_view_live(self._edge, scope):
            await send_error(send, HTTPError(403, "local_only", "live: available on this machine only"))
        elif self._edge.live_feed.full:
            await send_error(send, HTTPError(503, "at_capacity", "live: too many viewers; retry later", retry_after=10))
        else:
            await self._edge.live_feed.stream(scope, receive, send)


class Pages:
    """Handlers of the pages."""

    def __init__(self, edge: "Edge") -> None:
        self._edge, self._settings = edge, edge.settings

    async def index(self, _: Request) -> Response:
        """Handle GET /: redirect to the demo shop in demo mode."""
        if self._settings.demo:
            return RedirectResponse("/shop/")
        raise HTTPException(404)

    async def health(self, _: Request) -> Response:
        """Handle GET /healthz: 200 while events are accepted, with the state of the Redis connection."""
        connected = self._edge.gateway is not None and self._edge.gateway.connected
        return _json_response({"ok": True, "redis": connected})

    async def segment_settings(self, request: Request) -> Response:
        """Handle GET /v1/projects/{key}/settings, which analytics.js reads first."""
        if request.method == "OPTIONS":
            return self._with_cors_headers(request, Response(status_code=204), preflight=True)
        key = self._check_write_key(request.path_params["key"])
        origin = self._public_origin(request)
        scheme, _, host = origin.partition("://")
        return self._with_cors_headers(
            request,
            _json_response(
                {
                    "integrations": {"Segment.io": {"apiKey": key, "apiHost": f"{host}/v1", "protocol": scheme}},
                    "plan": {"track": {"__default": {"enabled": True}}},
                    "metrics": {"sampleRate": 0},
                }
            ),
        )

    async def rudder_settings(self, request: Request) -> Response:
        """Handle GET /sourceConfig/, which RudderStack clients read first."""
        if request.method == "OPTIONS":
            return self._with_cors_headers(request, Response(status_code=204), preflight=True)
        basic = segment_protocol.basic_user(request.headers.get("authorization", ""))
        key = self._check_write_key(segment_protocol.first_write_key(request.query_params.get("writeKey"), basic))
        quiet = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
        return self._with_cors_headers(
            request,
            _json_response(
                {
                    "source": {
                        "id": self._settings.shop,
                        "name": self._settings.shop,
                        "writeKey": key,
                        "workspaceId": "attimo",
                        "enabled": True,
                        "config": {"statsCollection": quiet},
                        "destinations": [],
                        "connections": [],
                        "dataplanes": {},
                    },
                    "updatedAt": "2026-01-01T00:00:00Z",
                    "consentManagementMetadata": {"providers": []},
                }
            ),
        )

    async def script(self, request: Request) -> Response:
        """Handle GET /pixel.js, /widget.js and other scripts, styles and images directly in `web`."""
        path = WEB_FOLDER / request.path_params["name"]
        served = path.suffix in responses.MEDIA_TYPES and path.suffix != ".html"
        if not served or path.parent != WEB_FOLDER or path.name.startswith(".") or not path.is_file():
            raise HTTPException(404)
        return responses.file_response(path, request.headers, _SCRIPT_HEADERS, strip=True)

    async def live(self, request: Request) -> Response:
        """Handle GET /live."""
        if not may_view_live(self._edge, request.scope):
            raise HTTPException(403)
        if not (WEB_FOLDER / "live.html").is_file():
            raise HTTPException(404)
        return responses.file_response(WEB_FOLDER / "live.html", request.headers, _PAGE_HEADERS)

    async def login(self, request: Request) -> Response:
        """Handle POST /shop/login {user_id} of the demo shop: return the user hash."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_LOGIN_BYTES:
                raise HTTPException(413)
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            parsed = None
        user_id = parsed.get("user_id") if isinstance(parsed, dict) else None
        if not isinstance(user_id, str) or not 0 < len(user_id) <= 64 or not user_id.isprintable():
            return _json_response(
                {
                    "success": False,
                    "code": "invalid",
                    "field": "user_id",
                    "message": "user_id: should be a text of 1 to 64 characters",
                },
                400,
            )
        return _json_response(
            {"user_id": user_id, "user_hash": browser_binding.user_hash(self._settings.secret, user_id)}
        )

    def _check_write_key(self, key: str) -> str:
        if key != self._settings.write_key:
            raise HTTPException(404)
        return key

    def _public_origin(self, request: Request) -> str:
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/")
        scheme = "https" if is_https(request.scope, self._settings) else "http"
        return f"{scheme}://{host_of(request.scope)}"

    def _with_cors_headers(self, request: Request, response: Response, *, preflight: bool = False) -> Response:
        cors = self._edge.cors
        for name, value in cors.preflight_headers(request.scope) if preflight else cors.response_headers(request.scope):
            response.headers[name.decode()] = value.decode("latin-1")
        return response


def _json_response(body: dict[str, Any], status: int = 200) -> Response:
    return Response(
        orjson.dumps(body),
        status,
        {"cache-control": "no-store", "x-content-type-options": "nosniff"},
        "application/json",
    )


_ERROR_TEXTS: Final = {
    403: ("local_only", "live: available on this machine only"),
    404: ("not_found", "not found"),
    405: ("method_not_allowed", "method not allowed"),
    413: ("too_large", "body too large"),
}


async def handle_exception(_: Request, error: Exception) -> Response:
    """Return errors as a JSON object with `code` and `message`."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code, message = _ERROR_TEXTS.get(status, ("internal_error", "internal error; it was logged"))
    return _json_response({"success": False, "code": code, "message": message}, status)


EXCEPTION_HANDLERS: Final[dict[Any, Any]] = {HTTPException: handle_exception, Exception: handle_exception}


MAX_TOKEN_BODY: Final = 4_096
COLLECTOR_PATHS: Final = {
    **{f"/v1/{name}": name for name in (*segment_protocol.CALL_OF_ENDPOINT, "m", "pixel.gif")},
    **{f"/api/s/{name}": name for name in segment_protocol.CALL_OF_ENDPOINT if len(name) > 1},
    **{f"/v1/{name}/": name for name in segment_protocol.CALL_OF_ENDPOINT if len(name) > 1},
}
logger = structlog.get_logger("edge")


class Edge:
    """The ASGI application. `log_factory` is called for the collector and for each start of the live feed."""

    def __init__(self, settings: Settings, log_factory: Callable[[], Log]) -> None:
        if not settings.secret:
            raise ValueError("secret: the edge needs a signing secret (see connectors.settings.with_secret)")
        if settings.server_key and settings.server_key == settings.write_key:
            raise ValueError("server_key: must differ from write_key, which is public")
        self.settings, self._log_factory = settings, log_factory
        self.cors = CorsPolicy(settings.allowed_origins, settings.public_url)
        self.live_feed = LiveFeed(log_factory, settings)
        self.gateway: Gateway | None = None
        self.collector: Collector | None = None
        self._starlette = Starlette(
            routes=page_routes(self), lifespan=self._lifespan, exception_handlers=EXCEPTION_HANDLERS
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        url = redis_server.redis_url(self.settings)
        redis: Redis = Redis.from_url(
            url, protocol=2, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
        )
        with self._log_factory() as opened:
            binder = Binder(self.settings, redis)
            self.gateway = Gateway(self.settings, redis, url, binder)
            self.collector = Collector(self.settings, GroupCommit(opened), binder, self.cors)
            self.gateway.start()
            try:
                yield
            finally:
                self.end_streams()
                await self.gateway.stop()
                await redis.aclose()

    def end_streams(self) -> None:
        """End all event streams, so that the server can stop."""
        self.live_feed.end_streams()
        if self.gateway is not None:
            self.gateway.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the start and end of the server."""
        if scope["type"] != "http":
            await self._starlette(scope, receive, send)
            return
        path: str = scope["path"]
        call = COLLECTOR_PATHS.get(path)
        if call is None and path not in ("/v1/stream", "/v1/stream/token"):
            await self._starlette(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._dispatch(scope, receive, watched, path, call)
        except Exception as error:  # last resort: log it and serve the next request
            EDGE_REQUESTS.labels("internal_error").inc()
            logger.exception("request failed", path=path, error=type(error).__name__)
            if not started:
                await send_error(send, HTTPError(500, "internal_error", "internal error; it was logged"))

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send, path: str, endpoint: str | None) -> None:
        assert self.collector is not None  # set in the lifespan, before requests
        assert self.gateway is not None
        if endpoint is not None:
            await self.collector(scope, receive, send, endpoint)
            return
        headers = self.cors.response_headers(scope)
        try:
            if scope["method"] == "OPTIONS":
                await send_response(send, 204, b"", self.cors.preflight_headers(scope))
                return
            self.cors.check_origin(scope)
            expected = "POST" if path.endswith("token") else "GET"
            if scope["method"] != expected:
                raise HTTPError(405, "method_not_allowed", f"method: use {expected}", "method")
            self.collector.check_client_rate(scope)
            if expected == "POST":
                body = await read_limited_body(scope, receive, MAX_TOKEN_BODY)
                await self.gateway.issue_token(scope, body, send, headers)
            else:
                await self.gateway.stream(scope, receive, send, headers, query_params(scope).get("token", ""))
        except HTTPError as error:
            await send_error(send, error, headers)


async def read_limited_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Return the body of a small request. Raise HTTPError if it is larger than `max_bytes`."""
    declared = header(scope, b"content-length")
    body, more = b"", True
    while more and len(body) <= max_bytes and not (declared.isdecimal() and int(declared[:18]) > max_bytes):
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
    if more:
        raise HTTPError(413, "too_large", f"body: is larger than {max_bytes} bytes", "body")
    return body


class EdgeServer(uvicorn.Server):
    """Ends the event streams at shutdown; otherwise they would delay it."""

    def __init__(self, config: uvicorn.Config, edge: Edge) -> None:
        super().__init__(config)
        self._edge = edge

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._edge.end_streams()
        await super().shutdown(sockets)


def create_server(edge: Edge) -> EdgeServer:
    """Return a server for an edge, not yet running."""
    settings = edge.settings
    return EdgeServer(
        uvicorn.Config(
            edge,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            proxy_headers=False,  # connectors/http/client.py decides which addresses to trust
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=30,
            backlog=2_048,
        ),
        edge,
    )


def _exit_cleanly(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then exit with code 0. Serve metrics on loopback."""
    from connectors.log.open import open_log

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn replaces these handlers, and raises the signal again after its shutdown.
        signal.signal(number, _exit_cleanly)

    settings = with_secret(settings)
    edge = Edge(settings, lambda: open_log(settings))
    metrics.serve_metrics(metrics.metrics_port(settings, "edge"))
    logger.info("listening", host=settings.host, port=settings.port, shop=settings.shop, demo=settings.demo)
    gc.freeze()  # imported objects live as long as the process, so the garbage collector can skip them
    create_server(edge).run()
