"""The pages: health, what Segment and RudderStack clients fetch before they send, the demo shop, the live page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from connectors import assets, geo, identity_tokens, wire
from connectors.answers import Problem, header, host_of, refuse
from connectors.binding import is_https

if TYPE_CHECKING:
    from connectors.edge import Edge

WEB: Final = Path(__file__).resolve().parent.parent / "web"
MAX_LOGIN: Final = 1_024
_CSP: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: https:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PAGE: Final = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cache-control": "no-cache",
}
_SCRIPT: Final = {
    "x-content-type-options": "nosniff",
    "cache-control": "public, max-age=300",  # a new version is everywhere within five minutes
    "cross-origin-resource-policy": "cross-origin",  # shops load pixel and widget from here
}


def routes(edge: "Edge") -> list[BaseRoute]:
    """All pages, bound to one edge."""
    page = Pages(edge)
    found: list[BaseRoute] = [
        Route("/", page.home, methods=["GET"]),
        Route("/healthz", page.health, methods=["GET"]),
        Route("/v1/projects/{key}/settings", page.segment_settings, methods=["GET", "OPTIONS"]),
        Route("/sourceConfig", page.rudder_settings, methods=["GET", "OPTIONS"]),
        Route("/sourceConfig/", page.rudder_settings, methods=["GET", "OPTIONS"]),
        Route("/live", page.live, methods=["GET"]),
        Route("/live/feed", LiveEndpoint(edge), methods=["GET"]),
        Route("/{name}", page.script, methods=["GET"]),
    ]
    if edge.settings.demo:
        found.insert(0, Route("/shop/login", page.login, methods=["POST"]))
        if (WEB / "demo").is_dir():
            found.append(Mount("/shop", Shop(directory=WEB / "demo", html=True)))
    return found


def may_watch(edge: "Edge", scope: Scope) -> bool:
    """Whether the caller may see the live feed: everybody in the demo, else only this very machine.

    A proxy on this machine makes everybody look local, so any sign of one counts against; a foreign Host header is a
    page of somebody else's that had its name pointed here.
    """
    if edge.settings.demo:
        return True
    if header(scope, b"x-forwarded-for") or header(scope, b"forwarded") or header(scope, b"x-real-ip"):
        return False
    name = host_of(scope).rpartition(":")[0] or host_of(scope)
    peer = scope["client"][0] if scope.get("client") else ""
    return geo.is_loopback(peer) and (name == "localhost" or geo.is_loopback(name.strip("[]")))


class Shop(StaticFiles):
    """The demo shop's files, with the headers of a page."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        """One file."""
        if Path(full_path).suffix in assets.KINDS and status_code == 200:
            return assets.answer(Path(full_path), Headers(scope=scope), _PAGE)
        answered = super().file_response(full_path, stat_result, scope, status_code)
        for name, value in _PAGE.items():
            answered.headers[name] = value
        return answered


class LiveEndpoint:
    """GET /live/feed as a plain ASGI application."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream what happens to a page on this machine."""
        if not may_watch(self._edge, scope):
            await refuse(send, Problem(403, "not_here", "live: is shown on this machine only"))
        elif self._edge.feed.full:
            await refuse(send, Problem(503, "full", "live: too many are watching", retry_after=10))
        else:
            await self._edge.feed.stream(scope, receive, send)


class Pages:
    """The handlers."""

    def __init__(self, edge: "Edge") -> None:
        self._edge, self._settings = edge, edge.settings

    async def home(self, _: Request) -> Response:
        """GET /: the demo shop, where there is one."""
        if self._settings.demo:
            return RedirectResponse("/shop/")
        raise HTTPException(404)

    async def health(self, _: Request) -> Response:
        """GET /healthz: 200 while events are accepted; says whether Redis is heard."""
        alive = self._edge.gateway is not None and self._edge.gateway.alive
        return _json({"ok": True, "redis": alive})

    async def segment_settings(self, request: Request) -> Response:
        """GET /v1/projects/{key}/settings: what analytics.js reads before it sends."""
        if request.method == "OPTIONS":
            return self._allowed(request, Response(status_code=204), preflight=True)
        key = self._known(request.path_params["key"])
        origin = self._public(request)
        scheme, _, host = origin.partition("://")
        return self._allowed(request, _json({
            "integrations": {"Segment.io": {"apiKey": key, "apiHost": f"{host}/v1", "protocol": scheme}},
            "plan": {"track": {"__default": {"enabled": True}}},
            "metrics": {"sampleRate": 0},
        }))

    async def rudder_settings(self, request: Request) -> Response:
        """GET /sourceConfig/: what RudderStack's clients read before they send."""
        if request.method == "OPTIONS":
            return self._allowed(request, Response(status_code=204), preflight=True)
        basic = wire.basic(request.headers.get("authorization", ""))
        key = self._known(wire.write_key(request.query_params.get("writeKey"), basic))
        quiet = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
        return self._allowed(request, _json({
            "source": {"id": self._settings.shop, "name": self._settings.shop, "writeKey": key, "workspaceId": "attimo",
                       "enabled": True, "config": {"statsCollection": quiet}, "destinations": [], "connections": [],
                       "dataplanes": {}},
            "updatedAt": "2026-01-01T00:00:00Z",
            "consentManagementMetadata": {"providers": []},
        }))

    async def script(self, request: Request) -> Response:
        """GET /pixel.js, /widget.js and what else lies directly in `web`: scripts, styles, pictures."""
        path = WEB / request.path_params["name"]
        served = path.suffix in assets.KINDS and path.suffix != ".html"
        if not served or path.parent != WEB or path.name.startswith(".") or not path.is_file():
            raise HTTPException(404)
        return assets.answer(path, request.headers, _SCRIPT, spare=True)

    async def live(self, request: Request) -> Response:
        """GET /live: the page that shows the feed."""
        if not may_watch(self._edge, request.scope):
            raise HTTPException(403)
        if not (WEB / "live.html").is_file():
            raise HTTPException(404)
        return assets.answer(WEB / "live.html", request.headers, _PAGE)

    async def login(self, request: Request) -> Response:
        """POST /shop/login {user_id}: the demo shop's server vouching for whoever signs in. Demo only."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_LOGIN:
                raise HTTPException(413)
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            asked = None
        user_id = asked.get("user_id") if isinstance(asked, dict) else None
        if not isinstance(user_id, str) or not 0 < len(user_id) <= 64 or not user_id.isprintable():
            return _json({"success": False, "code": "unreadable", "field": "user_id",
                          "message": "user_id: should be a text of 1 to 64 characters"}, 400)
        return _json({"user_id": user_id, "user_hash": identity_tokens.user_hash(self._settings.secret, user_id)})

    def _known(self, key: str) -> str:
        if key != self._settings.write_key:
            raise HTTPException(404)
        return key

    def _public(self, request: Request) -> str:
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/")
        scheme = "https" if is_https(request.scope, self._settings) else "http"
        return f"{scheme}://{host_of(request.scope)}"

    def _allowed(self, request: Request, answered: Response, *, preflight: bool = False) -> Response:
        origins = self._edge.origins
        for name, value in origins.preflight(request.scope) if preflight else origins.headers(request.scope):
            answered.headers[name.decode()] = value.decode("latin-1")
        return answered


def _json(found: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(found), status, {"cache-control": "no-store", "x-content-type-options": "nosniff"},
                    "application/json")


_WORDS: Final = {403: ("not_here", "this is shown on this machine only"), 404: ("not_found", "there is nothing here"),
                 405: ("method_not_allowed", "this method is not answered here"),
                 413: ("too_large", "the body is too large")}


async def refused(_: Request, wrong: Exception) -> Response:
    """Every error is a JSON object with `code` and `message`."""
    status = wrong.status_code if isinstance(wrong, HTTPException) else 500
    code, message = _WORDS.get(status, ("internal", "something went wrong here; it has been noted"))
    return _json({"success": False, "code": code, "message": message}, status)


HANDLERS: Final[dict[Any, Any]] = {HTTPException: refused, Exception: refused}
