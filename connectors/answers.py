"""Answers over HTTP: JSON for what went well and for what did not, and who may read them from another origin."""

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson
from starlette.types import Scope, Send

Header = tuple[bytes, bytes]

ALLOW_HEADERS: Final = b"authorization, content-type, content-encoding, anonymousid, x-write-key, x-retry-count"
_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")


class Problem(Exception):
    """A request that is refused: HTTP status, a short code for programs, a sentence for people, the field at fault."""

    def __init__(self, status: int, code: str, message: str, field: str = "", retry_after: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.retry_after = status, code, message, field, retry_after

    def body(self) -> dict[str, Any]:
        """The JSON object that is answered.

        >>> Problem(400, "unreadable", "body: is not JSON", "body").body()
        {'success': False, 'code': 'unreadable', 'message': 'body: is not JSON', 'field': 'body'}
        """
        found: dict[str, Any] = {"success": False, "code": self.code, "message": self.message}
        if self.field:
            found["field"] = self.field
        return found


def header(scope: Scope, name: bytes) -> str:
    """The first header of this (lower-case) name, as text; empty when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def answer(
    send: Send, status: int, body: bytes, headers: Sequence[Header] = (), kind: bytes = b"application/json"
) -> None:
    """Send a whole answer that no cache keeps."""
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *headers,
        ],
    })
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, problem: Problem, headers: Sequence[Header] = ()) -> None:
    """Answer a problem."""
    more: list[Header] = list(headers)
    if problem.retry_after:
        more.append((b"retry-after", str(problem.retry_after).encode()))
    if problem.status == 401:
        more.append((b"www-authenticate", b'Basic realm="write key"'))
    await answer(send, problem.status, orjson.dumps(problem.body()), more)


def host_of(scope: Scope) -> str:
    """The Host header when it looks like one, else empty (it is echoed into configuration replies)."""
    host = header(scope, b"host")
    return host if _HOST.fullmatch(host) else ""


class Origins:
    """Which other origins a browser may call from: those listed, and our own.

    >>> shop = Origins(("https://shop.example",), "")
    >>> def call(origin): return {"headers": [(b"host", b"events.example"), (b"origin", origin)]}
    >>> [shop.allows(call(origin)) for origin in (b"https://shop.example", b"https://events.example", b"https://evil")]
    [True, True, False]
    """

    def __init__(self, listed: Sequence[str], public_url: str) -> None:
        self._listed = {origin.strip().rstrip("/").lower() for origin in listed if origin.strip()}
        if public_url:
            self._listed.add("/".join(public_url.lower().split("/")[:3]))

    def allows(self, scope: Scope) -> bool:
        """Whether the caller is no page of a foreign origin (what is no browser sends no Origin)."""
        origin = header(scope, b"origin").lower()
        if not origin or origin in self._listed:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest == host_of(scope).lower() != ""

    def headers(self, scope: Scope) -> list[Header]:
        """What lets the page read the answer. Nothing for a foreign origin; never a wildcard."""
        origin = header(scope, b"origin")
        if not origin or not self.allows(scope):
            return [(b"vary", b"origin")]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", b"retry-after"),
            (b"vary", b"origin"),
        ]

    def preflight(self, scope: Scope) -> list[Header]:
        """The answer to OPTIONS."""
        found = self.headers(scope)
        if len(found) > 1:
            found += [
                (b"access-control-allow-methods", b"GET, POST"),
                (b"access-control-allow-headers", ALLOW_HEADERS),
                (b"access-control-max-age", b"86400"),
            ]
        return found

    def check(self, scope: Scope) -> None:
        """Problem when the call comes from a page of a foreign origin."""
        if not self.allows(scope):
            raise Problem(403, "origin_not_allowed",
                          "origin: this page may not call; name its origin in ATTIMO_ORIGINS", "origin")
