"""The collector: Segment-compatible HTTP in, canonical events in the log out.

    POST /v1/track  ─▶ key ─▶ size ─▶ JSON ─▶ shape, ids, times ─▶ log ─▶ {"success": true}
                        └───────┴───────┴──────────┴─▶ 4xx naming the field, and `rejects`

The answer is given only after the log has the event. It is a plain ASGI application, because this is the path that
every click takes.
"""

import asyncio
import base64
import hashlib
import math
import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from connectors import bots, geo, identity_tokens, wire
from connectors.answers import Header, Origins, Problem, answer, header, refuse
from connectors.binding import Binder
from connectors.group_commit import GroupCommit
from connectors.log import LogError
from connectors.metrics import EDGE_ACCEPTED, EDGE_REJECTS, EDGE_REQUESTS
from connectors.rate_limit import Buckets
from domain import reject
from domain.failpoint import failpoint
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import PEOPLE, REJECTS

GIF: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
SLOW: Final = 10.0
"""Seconds a client may take to send a body."""

SHOWN: Final = 20
"""Rejects named in an answer; the stream `rejects` has them all."""

_OK: Final = b'{"success":true}'
log = structlog.get_logger("collector")


class Collector:
    """One per process. `limits` of the key and of the address are in events a second."""

    def __init__(self, settings: Settings, commits: GroupCommit, binder: Binder, origins: Origins) -> None:
        self._settings, self._commits, self._binder, self._origins = settings, commits, binder, origins
        rate = max(1, settings.rate_per_key)
        self._keys = Buckets(rate, max(2.0 * rate, wire.MAX_EVENTS))
        self._networks = Buckets(max(1.0, rate / 10), max(rate / 5, wire.MAX_EVENTS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send, call: str) -> None:
        """Answer one call; `call` is the last part of its path ("track", "t", "batch", "pixel.gif", "m")."""
        headers = self._origins.headers(scope)
        try:
            if scope["method"] == "OPTIONS":
                await answer(send, 204, b"", self._origins.preflight(scope))
                return
            self._origins.check(scope)
            if call == "m":
                await answer(send, 204, b"", headers)
            elif call == "pixel.gif":
                await self._pixel(scope, send, headers)
            else:
                await self._post(scope, receive, send, headers, call)
            EDGE_REQUESTS.labels("ok").inc()
        except Problem as problem:
            EDGE_REQUESTS.labels(problem.code).inc()
            await refuse(send, problem, headers)
        except LogError as wrong:
            EDGE_REQUESTS.labels("log_unavailable").inc()
            log.warning("the log refuses", because=str(wrong))
            await refuse(send, Problem(503, "log_unavailable", "the event was not kept; send it again",
                                       retry_after=1), headers)

    async def _post(self, scope: Scope, receive: Receive, send: Send, headers: list[Header], call: str) -> None:
        if scope["method"] != "POST":
            raise Problem(405, "method_not_allowed", "method: only POST is answered here", "method")
        kind = wire.CALLS[call]
        cap = wire.MAX_BATCH if kind == "batch" else wire.MAX_CALL
        named = self._named(scope)
        caller = self._caller(scope, trusted=self._trusts(named))
        if not caller.trusted:
            self._limit(self._networks, geo.network(caller.address), 1)
        try:
            raw = await _body(scope, receive, cap)
            body = wire.read(raw)
            named = named or wire.write_key(body.get("writeKey"))
            trusted = self._check(named)
            caller = caller._replace(trusted=trusted)
            items, sent_at = self._items(body, kind)
        except wire.Refused as wrong:
            EDGE_REJECTS.labels(wrong.kind).inc()
            raise _problem(wrong) from wrong
        self._limit(self._keys, "server" if trusted else "browser", len(items))
        if not trusted and len(items) > 1:
            self._limit(self._networks, geo.network(caller.address), len(items) - 1)
        deep = len(items) > 1 or raw.count(b"{") + raw.count(b"[") > wire.MAX_DEPTH or rb"\u0000" in raw
        events: list[wire.Canonical] = []
        refused: list[tuple[int, wire.Refused]] = []
        records: list[Outgoing] = []
        if not trusted:
            caller = caller._replace(foreign=await self._foreign(scope, items))
        for index, item in enumerate(items):
            try:
                if not isinstance(item, dict):
                    raise wire.Refused("unreadable", f"batch[{index}]", "should be an object")
                if deep:
                    wire.check_shape(item)
                event = wire.canonical(item, kind, caller, sent_at)
                events.append(event)
                records.append(Outgoing(event.stream, event.key, event.value))
            except wire.Refused as wrong:
                refused.append((index, wrong))
                records.append(_rejected(item, wrong, caller.received_at))
        await self._keep(records, events)
        for _, why in refused:
            EDGE_REJECTS.labels(why.kind).inc()
        if refused and not events:
            raise _problem(refused[0][1])
        if not trusted and (cookie := await self._cookie(scope, events)):
            headers.append((b"set-cookie", cookie.encode("latin-1")))
        await answer(send, 200, _report(events, refused) if kind == "batch" else _OK, headers)

    async def _cookie(self, scope: Scope, events: Sequence[wire.Canonical]) -> str | None:
        """The cookie to set: for a browser's first id one that proves it, and none any more after a withdrawal."""
        ids: list[str | None] = []
        withdrawn: set[str | None] = set()
        for event in events:
            analytics = _analytics(event) if event.stream == PEOPLE else None
            if analytics is False:
                withdrawn.add(event.anonymous_id)
                ids.clear()  # what came before is over
                continue
            if analytics is True:
                withdrawn.discard(event.anonymous_id)
            ids.append(event.anonymous_id)
        gone = await self._binder.unbind(scope, withdrawn) if withdrawn else None
        return await self._binder.bind(scope, [one for one in ids if one not in withdrawn]) or gone

    async def _foreign(self, scope: Scope, items: Sequence[Any]) -> frozenset[str]:
        """The anonymous ids beside a `userId` that are another browser's: nobody takes somebody else's history."""
        named = [one for item in items if isinstance(item, dict) and item.get("userId")
                 and isinstance(one := item.get("anonymousId"), str) and one]
        return await self._binder.foreign(scope, named) if named else frozenset()

    async def _pixel(self, scope: Scope, send: Send, headers: list[Header]) -> None:
        """The 1x1 GIF: mail that was opened, pages without script. Each call counts; nothing is bound."""
        if scope["method"] not in ("GET", "HEAD"):
            raise Problem(405, "method_not_allowed", "method: only GET is answered here", "method")
        asked = query(scope)
        trusted = self._check(self._named(scope))
        if trusted:
            raise Problem(400, "server_key_in_url", "writeKey: the server key is a secret and never part of an "
                                                    "address; replace it", "writeKey")
        caller = self._caller(scope, trusted=False)
        self._limit(self._networks, geo.network(caller.address), 1)
        self._limit(self._keys, "browser", 1)
        context: dict[str, Any] = {"user_hash": asked.get("user_hash") or asked.get("userHash")}
        if referer := header(scope, b"referer"):
            context["page"] = {"url": referer[:2_048]}
        item: dict[str, Any] = {
            "messageId": asked.get("messageId") or f"pixel-{uuid.uuid4().hex}",
            "anonymousId": asked.get("anonymousId"),
            "userId": asked.get("userId"),
            "context": context,
            "properties": {name[2:]: value for name, value in asked.items() if name.startswith("p_")},
        }
        kind = "page"
        if name := asked.get("event"):
            kind, item["event"] = "track", name
        try:
            wire.check_shape(item)
            event = wire.canonical(item, kind, reading(caller))
        except wire.Refused as wrong:
            EDGE_REJECTS.labels(wrong.kind).inc()
            raise _problem(wrong) from wrong
        await self._keep([Outgoing(event.stream, event.key, event.value)], [event])
        await answer(send, 200, GIF if scope["method"] == "GET" else b"", headers, b"image/gif")

    async def _keep(self, records: Sequence[Outgoing], events: Sequence[wire.Canonical]) -> None:
        await self._commits.append(records)
        failpoint("collector:after_append")
        for event in events:
            EDGE_ACCEPTED.labels(event.stream).inc()

    def _named(self, scope: Scope) -> str:
        """The write key outside the body: Basic user, X-Write-Key, ?writeKey=."""
        asked = query(scope).get("writeKey") if b"writeKey" in scope["query_string"] else None
        return wire.write_key(wire.basic(header(scope, b"authorization")), header(scope, b"x-write-key"), asked)

    def _trusts(self, key: str) -> bool:
        """Whether this is the secret server key (Jitsu's clients write `id:secret`)."""
        wanted = self._settings.server_key
        return bool(wanted) and (identity_tokens.same(key, wanted) or identity_tokens.same(
            key.rpartition(":")[2], wanted))

    def _check(self, key: str) -> bool:
        """Whether the caller is trusted; Problem when the key is none of ours."""
        if not key:
            raise Problem(401, "no_write_key", "writeKey: is missing (Basic user, X-Write-Key, ?writeKey= or "
                                               "body.writeKey)", "writeKey")
        if self._trusts(key):
            return True
        if self._settings.write_key in (key, key.partition(":")[0]):
            return False
        raise Problem(401, "wrong_write_key", "writeKey: is not known here", "writeKey")

    def _caller(self, scope: Scope, *, trusted: bool) -> wire.Caller:
        return wire.Caller(
            received_at=time.time_ns() // 1_000_000,
            trusted=trusted,
            secret=self._settings.secret,
            address=self.address(scope),
            user_agent=header(scope, b"user-agent"),
            demo=self._settings.demo,
        )

    def address(self, scope: Scope) -> str:
        """The caller's address."""
        peer = scope["client"][0] if scope.get("client") else ""
        return geo.client(peer, header(scope, b"x-forwarded-for"), self._settings.trust_proxy)

    def allow(self, scope: Scope) -> None:
        """Problem when this address asks too often; for what is no event."""
        self._limit(self._networks, geo.network(self.address(scope)), 1)

    @staticmethod
    def _limit(buckets: Buckets, name: str, tokens: int) -> None:
        wait = buckets.take(name, tokens, time.monotonic())
        if wait:
            raise Problem(429, "too_many", "rate: too many events; wait as long as Retry-After says",
                          retry_after=min(300, math.ceil(wait)))

    @staticmethod
    def _items(body: dict[str, Any], kind: str) -> tuple[list[Any], Any]:
        if kind != "batch":
            return [body], None
        items = body.get("batch")
        if not isinstance(items, list):
            raise wire.Refused("unreadable", "batch", "should be a list of events")
        if len(items) > wire.MAX_EVENTS:
            raise wire.Refused("too_large", "batch", f"has more than {wire.MAX_EVENTS} events")
        sent_at = body.get("sentAt")
        wire.moment(sent_at, "sentAt")
        return items, sent_at


async def _body(scope: Scope, receive: Receive, cap: int) -> bytes:
    """The body, inflated; it is not read beyond the cap."""
    encoding = header(scope, b"content-encoding").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise Problem(415, "unsupported_encoding", "content-encoding: only gzip is understood", "content-encoding")
    declared = header(scope, b"content-length")
    if declared.isdecimal() and int(declared[:18]) > cap:
        raise wire.Refused("too_large", "body", f"is larger than {cap} bytes")
    message = await receive()
    raw: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [raw], len(raw)
        try:
            async with asyncio.timeout(SLOW):
                while message.get("more_body") and size <= cap:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "unreadable", "body: the connection ended before it was whole", "body")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
        except TimeoutError as wrong:
            raise Problem(408, "too_slow", f"body: took longer than {SLOW:.0f} seconds", "body") from wrong
        raw = b"".join(parts)
    if len(raw) > cap:
        raise wire.Refused("too_large", "body", f"is larger than {cap} bytes")
    if encoding.endswith("gzip") or raw[:2] == b"\x1f\x8b":
        return wire.inflate(raw, cap)
    return raw


def query(scope: Scope) -> dict[str, str]:
    """The fields of the query; of a repeated one the last."""
    try:
        found = parse_qsl(scope["query_string"][:16_384].decode("latin-1"), max_num_fields=600, errors="replace")
    except ValueError as wrong:
        raise Problem(400, "unreadable", "query: has too many fields", "query") from wrong
    return dict(found)


def _analytics(event: wire.Canonical) -> bool | None:
    """What a "Consent Updated" says about analytics; None for everything else."""
    if b'"Consent Updated"' not in event.value:
        return None
    found = orjson.loads(event.value)
    answer = found["properties"].get("analytics") if found.get("event") == "Consent Updated" else None
    return answer if isinstance(answer, bool) else None


def reading(caller: wire.Caller) -> wire.Caller:
    """Who loads the GIF, as far as that tells of who reads: a mail program is no robot, a provider's place not theirs.

    >>> reading(wire.Caller(5, address="203.0.113.9", user_agent="YahooMailProxy; https://help.yahoo.com")).address
    ''
    """
    if bots.is_mail(caller.user_agent):
        caller = caller._replace(address="", user_agent="")
    return caller._replace(image=True)


def _problem(wrong: wire.Refused) -> Problem:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if wrong.kind == "too_large" else HTTPStatus.BAD_REQUEST
    return Problem(status, wrong.kind, str(wrong), wrong.field)


def _rejected(item: Any, wrong: wire.Refused, at: int) -> Outgoing:
    raw = reject.evidence(item)
    name = "http-" + hashlib.blake2b(f"{wrong}\0{raw}".encode(), digest_size=8).hexdigest()
    found = reject.Reject(
        id=name, stream="http", partition=0, offset=0, kind=wrong.kind, because=str(wrong)[:512], raw=raw, at=at,
    )
    return Outgoing(REJECTS, name.encode(), reject.encode(found))


def _report(events: Sequence[wire.Canonical], refused: Sequence[tuple[int, wire.Refused]]) -> bytes:
    if not refused:
        return b'{"success":true,"accepted":%d,"rejected":0}' % len(events)
    return orjson.dumps({
        "success": True,
        "accepted": len(events),
        "rejected": len(refused),
        "rejects": [
            {"index": index, "code": wrong.kind, "field": wrong.field, "message": str(wrong)}
            for index, wrong in refused[:SHOWN]
        ],
    })
