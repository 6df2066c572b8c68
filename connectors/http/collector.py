"""The collector: receives Segment-compatible HTTP calls and appends canonical events to the log.

    POST /v1/track  ─▶ key ─▶ size ─▶ JSON ─▶ structure, ids, times ─▶ log ─▶ {"success": true}
                        └───────┴───────┴──────────┴─▶ 4xx with the field, and the stream `dead-letters`

The response is sent only after the log has the event. It is a plain ASGI application for speed: every click takes this
path.
"""

import asyncio
import base64
import hashlib
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from connectors.http import browser_binding, client, segment_protocol
from connectors.http.browser_binding import Binder
from connectors.http.responses import CorsPolicy, Header, HTTPError, header, send_error, send_response
from connectors.log.group_commit import GroupCommit
from connectors.log.log import LogError
from connectors.metrics import EDGE_EVENTS_ACCEPTED, EDGE_EVENTS_REJECTED, EDGE_REQUESTS
from domain import record
from domain.failpoint import failpoint
from domain.record import DEAD_LETTERS, PEOPLE, NewRecord
from domain.settings import Settings


class TokenBuckets:
    """Rate limiter: one token bucket per key, refilled at `rate` tokens a second up to `burst`.

    A request larger than the available tokens succeeds if the bucket is not empty, and leaves a debt: a large batch
    passes once, then its sender waits. The least recently used buckets are dropped.

    >>> buckets = TokenBuckets(rate=10, burst=20)
    >>> buckets.consume("key", 25, now=0.0), buckets.consume("key", 1, now=0.0), buckets.consume("key", 1, now=1.0)
    (0.0, 0.6, 0.0)
    """

    def __init__(self, rate: float, burst: float, max_buckets: int = 50_000) -> None:
        if rate <= 0 or burst <= 0:
            raise ValueError("rate and burst must be above zero")
        self._rate, self._burst, self._max_buckets = rate, burst, max_buckets
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def consume(self, key: str, tokens: float, now: float) -> float:
        """Consume tokens at `now` (seconds, monotonic). Return 0 if granted, else the seconds until the next token."""
        levels = self._levels
        level, at = levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        granted = level >= 1
        if granted:
            level -= tokens
        levels[key] = (level, now)
        if len(levels) > self._max_buckets:
            levels.popitem(last=False)
        return 0.0 if granted else (1 - level) / self._rate

    def __len__(self) -> int:
        return len(self._levels)


TRACKING_GIF: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
BODY_TIMEOUT: Final = 10.0
"""Seconds that a client has to send the body."""

MAX_REPORTED_ERRORS: Final = 20
"""Maximum errors in a response; the stream `dead-letters` has all of them."""

_SUCCESS_BODY: Final = b'{"success":true}'
logger = structlog.get_logger("collector")


class Collector:
    """Handles the calls of one process."""

    def __init__(self, settings: Settings, group_commit: GroupCommit, binder: Binder, cors: CorsPolicy) -> None:
        self._settings, self._group_commit, self._binder, self._cors = settings, group_commit, binder, cors
        rate = max(1, settings.rate_limit_per_key)
        self._key_buckets = TokenBuckets(rate, max(2.0 * rate, segment_protocol.MAX_BATCH_EVENTS))
        self._network_buckets = TokenBuckets(max(1.0, rate / 10), max(rate / 5, segment_protocol.MAX_BATCH_EVENTS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send, endpoint: str) -> None:
        """Handle one call; `endpoint` is the last part of its path ("track", "t", "batch", "pixel.gif", "m")."""
        headers = self._cors.response_headers(scope)
        try:
            if scope["method"] == "OPTIONS":
                await send_response(send, 204, b"", self._cors.preflight_headers(scope))
                return
            self._cors.check_origin(scope)
            if endpoint == "m":
                await send_response(send, 204, b"", headers)
            elif endpoint == "pixel.gif":
                await self._tracking_gif(scope, send, headers)
            else:
                await self._post(scope, receive, send, headers, endpoint)
            EDGE_REQUESTS.labels("ok").inc()
        except HTTPError as error:
            EDGE_REQUESTS.labels(error.code).inc()
            await send_error(send, error, headers)
        except LogError as error:
            EDGE_REQUESTS.labels("log_unavailable").inc()
            logger.warning("log append failed", error=str(error))
            message = "log: unavailable, the event was not stored; retry"
            await send_error(send, HTTPError(503, "log_unavailable", message, retry_after=1), headers)

    async def _post(self, scope: Scope, receive: Receive, send: Send, headers: list[Header], endpoint: str) -> None:
        if scope["method"] != "POST":
            raise HTTPError(405, "method_not_allowed", "method: use POST", "method")
        kind = segment_protocol.CALL_OF_ENDPOINT[endpoint]
        max_bytes = segment_protocol.MAX_BATCH_BYTES if kind == "batch" else segment_protocol.MAX_CALL_BYTES
        key = self._write_key(scope)
        request = self._request_context(scope, trusted=self._is_server_key(key))
        if not request.trusted:
            self._check_rate(self._network_buckets, client.rate_limit_network(request.address), 1)
        try:
            raw = await _read_body(scope, receive, max_bytes)
            body = segment_protocol.parse_body(raw)
            key = key or segment_protocol.first_write_key(body.get("writeKey"))
            trusted = self._check_write_key(key)
            request = request._replace(trusted=trusted)
            items, sent_at = self._batch_items(body, kind)
        except segment_protocol.InvalidCall as error:
            EDGE_EVENTS_REJECTED.labels(error.code).inc()
            raise _to_http_error(error) from error
        self._check_rate(self._key_buckets, "server" if trusted else "browser", len(items))
        if not trusted and len(items) > 1:
            self._check_rate(self._network_buckets, client.rate_limit_network(request.address), len(items) - 1)
        # A single call with few brackets and no NUL cannot fail the structure check.
        needs_check = (
            len(items) > 1 or raw.count(b"{") + raw.count(b"[") > segment_protocol.MAX_DEPTH or rb"\u0000" in raw
        )
        events: list[segment_protocol.NormalizedEvent] = []
        rejected: list[tuple[int, segment_protocol.InvalidCall]] = []
        records: list[NewRecord] = []
        if not trusted:
            request = request._replace(foreign_ids=await self._foreign_ids(scope, items))
        for index, item in enumerate(items):
            try:
                if not isinstance(item, dict):
                    raise segment_protocol.InvalidCall("invalid", f"batch[{index}]", "should be an object")
                if needs_check:
                    segment_protocol.check_shape(item)
                event = segment_protocol.normalize(item, kind, request, sent_at)
                events.append(event)
                records.append(NewRecord(event.stream, event.key, event.value))
            except segment_protocol.InvalidCall as error:
                rejected.append((index, error))
                records.append(_dead_letter(item, error, request.received_at))
        await self._append(records, events)
        for _, reason in rejected:
            EDGE_EVENTS_REJECTED.labels(reason.code).inc()
        if rejected and not events:
            raise _to_http_error(rejected[0][1])
        if not trusted and (cookie := await self._binding_cookie(scope, events)):
            headers.append((b"set-cookie", cookie.encode("latin-1")))
        await send_response(send, 200, _batch_response(events, rejected) if kind == "batch" else _SUCCESS_BODY, headers)

    async def _binding_cookie(self, scope: Scope, events: Sequence[segment_protocol.NormalizedEvent]) -> str | None:
        """Return the Set-Cookie header: bind a browser's first id, or delete the cookie after consent is withdrawn."""
        ids: list[str | None] = []
        withdrawn: set[str | None] = set()
        for event in events:
            analytics = _analytics_consent(event) if event.stream == PEOPLE else None
            if analytics is False:
                withdrawn.add(event.anonymous_id)
                ids.clear()  # earlier ids do not count
                continue
            if analytics is True:
                withdrawn.discard(event.anonymous_id)
            ids.append(event.anonymous_id)
        deletion = await self._binder.unbind(scope, withdrawn) if withdrawn else None
        return await self._binder.bind(scope, [name for name in ids if name not in withdrawn]) or deletion

    async def _foreign_ids(self, scope: Scope, items: Sequence[Any]) -> frozenset[str]:
        """Return the anonymous ids sent with a `userId` that are bound to another browser; they must not be merged."""
        anonymous_ids = [
            name
            for item in items
            if isinstance(item, dict)
            and item.get("userId")
            and isinstance(name := item.get("anonymousId"), str)
            and name
        ]
        return await self._binder.find_foreign_ids(scope, anonymous_ids) if anonymous_ids else frozenset()

    async def _tracking_gif(self, scope: Scope, send: Send, headers: list[Header]) -> None:
        """Handle the 1x1 GIF for opened emails and pages without scripts. It binds no browser."""
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPError(405, "method_not_allowed", "method: use GET", "method")
        query = query_params(scope)
        trusted = self._check_write_key(self._write_key(scope))
        if trusted:
            raise HTTPError(
                400, "server_key_in_url", "writeKey: the server key must not appear in a URL; rotate it", "writeKey"
            )
        request = self._request_context(scope, trusted=False)
        self._check_rate(self._network_buckets, client.rate_limit_network(request.address), 1)
        self._check_rate(self._key_buckets, "browser", 1)
        context: dict[str, Any] = {"user_hash": query.get("user_hash") or query.get("userHash")}
        if referer := header(scope, b"referer"):
            context["page"] = {"url": referer[:2_048]}
        item: dict[str, Any] = {
            "messageId": query.get("messageId") or f"pixel-{uuid.uuid4().hex}",
            "anonymousId": query.get("anonymousId"),
            "userId": query.get("userId"),
            "context": context,
            "properties": {name[2:]: value for name, value in query.items() if name.startswith("p_")},
        }
        kind = "page"
        if name := query.get("event"):
            kind, item["event"] = "track", name
        try:
            segment_protocol.check_shape(item)
            event = segment_protocol.normalize(item, kind, image_request(request))
        except segment_protocol.InvalidCall as error:
            EDGE_EVENTS_REJECTED.labels(error.code).inc()
            raise _to_http_error(error) from error
        await self._append([NewRecord(event.stream, event.key, event.value)], [event])
        await send_response(send, 200, TRACKING_GIF if scope["method"] == "GET" else b"", headers, b"image/gif")

    async def _append(self, records: Sequence[NewRecord], events: Sequence[segment_protocol.NormalizedEvent]) -> None:
        await self._group_commit.append(records)
        failpoint("collector:after_append")
        for event in events:
            EDGE_EVENTS_ACCEPTED.labels(event.stream).inc()

    def _write_key(self, scope: Scope) -> str:
        """Return the write key outside of the body: Basic user, X-Write-Key or ?writeKey=."""
        in_query = query_params(scope).get("writeKey") if b"writeKey" in scope["query_string"] else None
        basic = segment_protocol.basic_user(header(scope, b"authorization"))
        return segment_protocol.first_write_key(basic, header(scope, b"x-write-key"), in_query)

    def _is_server_key(self, key: str) -> bool:
        """Return True for the secret server key (Jitsu clients send `id:secret`)."""
        expected = self._settings.server_key
        return bool(expected) and (
            browser_binding.constant_time_equal(key, expected)
            or browser_binding.constant_time_equal(key.rpartition(":")[2], expected)
        )

    def _check_write_key(self, key: str) -> bool:
        """Return True for the server key, False for the write key; raise HTTPError for other keys."""
        if not key:
            raise HTTPError(
                401,
                "missing_write_key",
                "writeKey: missing; send it as the Basic user, X-Write-Key, ?writeKey= or body.writeKey",
                "writeKey",
            )
        if self._is_server_key(key):
            return True
        if self._settings.write_key in (key, key.partition(":")[0]):
            return False
        raise HTTPError(401, "invalid_write_key", "writeKey: unknown", "writeKey")

    def _request_context(self, scope: Scope, *, trusted: bool) -> segment_protocol.RequestContext:
        return segment_protocol.RequestContext(
            received_at=time.time_ns() // 1_000_000,
            trusted=trusted,
            secret=self._settings.secret,
            address=self.client_address(scope),
            user_agent=header(scope, b"user-agent"),
            demo=self._settings.demo,
        )

    def client_address(self, scope: Scope) -> str:
        """Return the address of the client."""
        peer = scope["client"][0] if scope.get("client") else ""
        return client.client_address(peer, header(scope, b"x-forwarded-for"), self._settings.trust_proxy)

    def check_client_rate(self, scope: Scope) -> None:
        """Raise HTTPError if this address sends too many requests; for requests other than events."""
        self._check_rate(self._network_buckets, client.rate_limit_network(self.client_address(scope)), 1)

    @staticmethod
    def _check_rate(buckets: TokenBuckets, key: str, tokens: int) -> None:
        wait = buckets.consume(key, tokens, time.monotonic())
        if wait:
            raise HTTPError(
                429,
                "rate_limited",
                "rate: too many events; retry after the seconds in Retry-After",
                retry_after=min(300, math.ceil(wait)),
            )

    @staticmethod
    def _batch_items(body: dict[str, Any], call: str) -> tuple[list[Any], Any]:
        if call != "batch":
            return [body], None
        items = body.get("batch")
        if not isinstance(items, list):
            raise segment_protocol.InvalidCall("invalid", "batch", "should be a list of events")
        if len(items) > segment_protocol.MAX_BATCH_EVENTS:
            raise segment_protocol.InvalidCall(
                "too_large", "batch", f"has more than {segment_protocol.MAX_BATCH_EVENTS} events"
            )
        sent_at = body.get("sentAt")
        segment_protocol.parse_timestamp(sent_at, "sentAt")
        return items, sent_at


async def _read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Read and decompress the body, up to `max_bytes`."""
    encoding = header(scope, b"content-encoding").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise HTTPError(415, "unsupported_encoding", "content-encoding: expected gzip or identity", "content-encoding")
    declared = header(scope, b"content-length")
    if declared.isdecimal() and int(declared[:18]) > max_bytes:
        raise segment_protocol.InvalidCall("too_large", "body", f"is larger than {max_bytes} bytes")
    message = await receive()
    raw: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [raw], len(raw)
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while message.get("more_body") and size <= max_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HTTPError(400, "invalid", "body: connection closed before the body was complete", "body")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
        except TimeoutError as error:
            raise HTTPError(
                408, "request_timeout", f"body: not received within {BODY_TIMEOUT:.0f} seconds", "body"
            ) from error
        raw = b"".join(parts)
    if len(raw) > max_bytes:
        raise segment_protocol.InvalidCall("too_large", "body", f"is larger than {max_bytes} bytes")
    if encoding.endswith("gzip") or raw[:2] == b"\x1f\x8b":
        return segment_protocol.inflate(raw, max_bytes)
    return raw


def query_params(scope: Scope) -> dict[str, str]:
    """Parse the query string; the last value of a repeated field counts."""
    try:
        found = parse_qsl(scope["query_string"][:16_384].decode("latin-1"), max_num_fields=600, errors="replace")
    except ValueError as error:
        raise HTTPError(400, "invalid", "query: has too many fields", "query") from error
    return dict(found)


def _analytics_consent(event: segment_protocol.NormalizedEvent) -> bool | None:
    """Return the analytics consent of a "Consent Updated" event; None for other events."""
    if b'"Consent Updated"' not in event.value:
        return None
    found = orjson.loads(event.value)
    answer = found["properties"].get("analytics") if found.get("event") == "Consent Updated" else None
    return answer if isinstance(answer, bool) else None


def image_request(request: segment_protocol.RequestContext) -> segment_protocol.RequestContext:
    """Return the context of a GIF request, without the address and user agent of an email client or proxy.

    >>> request = segment_protocol.RequestContext(5, address="203.0.113.9", user_agent="YahooMailProxy")
    >>> image_request(request).address
    ''
    """
    if client.is_mail_client(request.user_agent):
        request = request._replace(address="", user_agent="")
    return request._replace(is_image=True)


def _to_http_error(error: segment_protocol.InvalidCall) -> HTTPError:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if error.code == "too_large" else HTTPStatus.BAD_REQUEST
    return HTTPError(status, error.code, str(error), error.field)


def _dead_letter(item: Any, error: segment_protocol.InvalidCall, at: int) -> NewRecord:
    raw = record.redact(item)
    name = "http-" + hashlib.blake2b(f"{error}\0{raw}".encode(), digest_size=8).hexdigest()
    found = record.DeadLetter(
        id=name, stream="http", partition=0, offset=0, kind=error.code, reason=str(error)[:512], raw=raw, at=at
    )
    return NewRecord(DEAD_LETTERS, name.encode(), record.encode_dead_letter(found))


def _batch_response(
    events: Sequence[segment_protocol.NormalizedEvent], errors: Sequence[tuple[int, segment_protocol.InvalidCall]]
) -> bytes:
    if not errors:
        return b'{"success":true,"accepted":%d,"rejected":0}' % len(events)
    return orjson.dumps(
        {
            "success": True,
            "accepted": len(events),
            "rejected": len(errors),
            "errors": [
                {"index": index, "code": error.code, "field": error.field, "message": str(error)}
                for index, error in errors[:MAX_REPORTED_ERRORS]
            ],
        }
    )
