"""HTTP responses: JSON results and errors, CORS, and the static files of `web/`.

Static files are compressed once and cached in memory; a file is read again if its size or time changes. The plain and
the gzipped form have separate ETags. Scripts for shop pages are served without comments and indentation.
"""

import gzip
import hashlib
import re
from collections.abc import Sequence
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope, Send

Header = tuple[bytes, bytes]

ALLOW_HEADERS: Final = b"authorization, content-type, content-encoding, anonymousid, x-write-key, x-retry-count"
_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")


class HTTPError(Exception):
    """A rejected request: HTTP status, code for programs, message for people, and the invalid field."""

    def __init__(self, status: int, code: str, message: str, field: str = "", retry_after: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.retry_after = status, code, message, field, retry_after

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the response.

        >>> HTTPError(400, "invalid", "body: is not JSON", "body").to_json()
        {'success': False, 'code': 'invalid', 'message': 'body: is not JSON', 'field': 'body'}
        """
        found: dict[str, Any] = {"success": False, "code": self.code, "message": self.message}
        if self.field:
            found["field"] = self.field
        return found


def header(scope: Scope, name: bytes) -> str:
    """Return the first header with this lower-case name as text; empty if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def send_response(
    send: Send, status: int, body: bytes, headers: Sequence[Header] = (), content_type: bytes = b"application/json"
) -> None:
    """Send a complete response that must not be cached."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: HTTPError, headers: Sequence[Header] = ()) -> None:
    """Send an error response."""
    more: list[Header] = list(headers)
    if error.retry_after:
        more.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        more.append((b"www-authenticate", b'Basic realm="write key"'))
    await send_response(send, error.status, orjson.dumps(error.to_json()), more)


def host_of(scope: Scope) -> str:
    """Return the Host header if it is valid, else empty. Responses may contain it."""
    host = header(scope, b"host")
    return host if _HOST.fullmatch(host) else ""


class CorsPolicy:
    """The origins that browsers may call from: the listed ones and the edge's own.

    >>> shop = CorsPolicy(("https://shop.example",), "")
    >>> def call(origin): return {"headers": [(b"host", b"events.example"), (b"origin", origin)]}
    >>> [shop.allows(call(origin)) for origin in (b"https://shop.example", b"https://events.example", b"https://evil")]
    [True, True, False]
    """

    def __init__(self, allowed_origins: Sequence[str], public_url: str) -> None:
        self._allowed_origins = {origin.strip().rstrip("/").lower() for origin in allowed_origins if origin.strip()}
        if public_url:
            self._allowed_origins.add("/".join(public_url.lower().split("/")[:3]))

    def allows(self, scope: Scope) -> bool:
        """Return True for an allowed origin, and for requests without one (not from a browser)."""
        origin = header(scope, b"origin").lower()
        if not origin or origin in self._allowed_origins:
            return True
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest == host_of(scope).lower() != ""

    def response_headers(self, scope: Scope) -> list[Header]:
        """Return the CORS headers of a response; none for a foreign origin, and never a wildcard."""
        origin = header(scope, b"origin")
        if not origin or not self.allows(scope):
            return [(b"vary", b"origin")]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", b"retry-after"),
            (b"vary", b"origin"),
        ]

    def preflight_headers(self, scope: Scope) -> list[Header]:
        """Return the headers of the response to OPTIONS."""
        found = self.response_headers(scope)
        if len(found) > 1:
            found += [
                (b"access-control-allow-methods", b"GET, POST"),
                (b"access-control-allow-headers", ALLOW_HEADERS),
                (b"access-control-max-age", b"86400"),
            ]
        return found

    def check_origin(self, scope: Scope) -> None:
        """Raise HTTPError if the call comes from a page of a foreign origin."""
        if not self.allows(scope):
            raise HTTPError(
                403,
                "origin_not_allowed",
                "origin: not allowed; add it to allowed_origins (ATTIMO_ALLOWED_ORIGINS)",
                "origin",
            )


MEDIA_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
}
_STRIP_PATTERN: Final = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"""  # strings
    r"""|/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/)"""  # regular expressions (or two divisions on a line)
    r"""|[ ]*//[^\n]*|(?<=\n)[ ]+""",
    re.DOTALL,
)
_ZERO_WEIGHT: Final = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")


class Asset(NamedTuple):
    """A cached file. `signature` is (mtime in ns, size); `gzipped` is empty if gzip does not make it smaller."""

    signature: tuple[int, int]
    body: bytes
    gzipped: bytes
    etag: str
    last_modified: str


_cache: dict[tuple[Path, bool], Asset] = {}


def strip_comments(script: str) -> str:
    r"""Remove line comments and indentation from a script.

    Strings, templates, regular expressions and line breaks stay, so line numbers in errors match the file.

    >>> strip_comments('  a("//", /[/]\\//); // why\n\n  // how\n  b(`\n  //`)')
    'a("//", /[/]\\//);\n\n\nb(`\n  //`)'
    """
    return _STRIP_PATTERN.sub(lambda found: found[1] or "", "\n" + script)[1:]


def load_asset(path: Path, strip: bool = False) -> Asset:
    """Return a file from the cache or the disk; `strip` removes comments from scripts. Raise OSError."""
    stat = path.stat()
    current = (stat.st_mtime_ns, stat.st_size)
    found = _cache.get((path, strip))
    if found is None or found.signature != current:
        plain = (
            strip_comments(path.read_text("utf-8")).encode() if strip and path.suffix == ".js" else path.read_bytes()
        )
        compressed = gzip.compress(plain, 9, mtime=0)
        tag = hashlib.blake2b(plain, digest_size=8).hexdigest()
        found = _cache[path, strip] = Asset(
            current,
            plain,
            compressed if len(compressed) < len(plain) else b"",
            tag,
            formatdate(stat.st_mtime, usegmt=True),
        )
    return found


def file_response(path: Path, request_headers: Headers, headers: dict[str, str], strip: bool = False) -> Response:
    """Return the response for a file: gzipped if the client accepts it, or 304."""
    asset = load_asset(path, strip)
    zipped = bool(asset.gzipped) and accepts_gzip(request_headers.get("accept-encoding", ""))
    tag = f'"{asset.etag}-gzip"' if zipped else f'"{asset.etag}"'
    sent = {**headers, "etag": tag, "last-modified": asset.last_modified, "vary": "accept-encoding"}
    if is_not_modified(request_headers, tag, asset.last_modified):
        return Response(status_code=304, headers=sent)
    if zipped:
        sent["content-encoding"] = "gzip"
    return Response(asset.gzipped if zipped else asset.body, headers=sent, media_type=MEDIA_TYPES[path.suffix])


def accepts_gzip(accept_encoding: str) -> bool:
    """Return True if an Accept-Encoding header allows gzip.

    >>> [accepts_gzip(value) for value in ("gzip, deflate, br", "br, GZIP;q=0.5", "*", "*;q=0, gzip")]
    [True, True, True, True]
    >>> [accepts_gzip(value) for value in ("", "br", "identity", "gzip;q=0", "*, gzip; q=0.0", "*;q=0")]
    [False, False, False, False, False, False]
    """
    found: dict[str, bool] = {}
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.partition(";")
        found[name.strip()] = _ZERO_WEIGHT.fullmatch(weight) is None
    return found.get("gzip", found.get("*", False))


def is_not_modified(request_headers: Headers, etag: str, last_modified: str) -> bool:
    """Return True if the client's copy is current. If-None-Match has priority over If-Modified-Since.

    >>> at = "Tue, 01 Oct 2019 00:00:00 GMT"
    >>> def check(tags="", since=""):
    ...     return is_not_modified(Headers({"if-none-match": tags, "if-modified-since": since}), '"a"', at)
    >>> check('"b", W/"a"'), check("*"), check(since=at)
    (True, True, True)
    >>> check(), check('"b"', since=at), check(since="yesterday"), check(since="Mon, 30 Sep 2019 23:59:59 GMT")
    (False, False, False, False)
    """
    if known := request_headers.get("if-none-match"):
        return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known.split(","))
    since = request_headers.get("if-modified-since")
    try:
        return since is not None and parsedate_to_datetime(since) >= parsedate_to_datetime(last_modified)
    except (ValueError, TypeError, OverflowError):  # no date, no time zone, or out of range
        return False
