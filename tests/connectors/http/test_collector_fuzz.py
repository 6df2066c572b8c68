"""Whatever arrives: never a 5xx, never an exception, always JSON, and what is kept can be read."""

import asyncio
import contextlib
import gzip
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from connectors.http import segment_protocol
from connectors.http.browser_binding import Binder
from connectors.http.collector import Collector
from connectors.http.responses import CorsPolicy
from connectors.log.group_commit import GroupCommit
from connectors.log.log import LogError
from domain import record as domain_record
from domain.event import decode, event_time
from domain.record import DEAD_LETTERS, PUBLIC_STREAMS, NewRecord
from domain.settings import Settings
from tests.harness.http_server import SECRET, SERVER_KEY, WRITE_KEY
from tests.harness.support import examples

EXAMPLES = settings(max_examples=examples(120), deadline=None)
SHOP = Settings(secret=SECRET, server_key=SERVER_KEY, write_key=WRITE_KEY, rate_limit_per_key=1_000_000)


class MemoryLog:
    """A log in memory, as far as the collector needs one."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []

    def start_append(self, records: Sequence[NewRecord]) -> "MemoryLog":
        self.records += records
        return self

    def done(self) -> bool:
        return True


class UnavailableRedis:
    async def set(self, *_: Any, **__: Any) -> None:
        raise OSError("nobody is there")

    async def mget(self, *_: Any) -> None:
        raise OSError("nobody is there")


def call(
    path: str,
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]] = (),
    query: bytes = b"",
    method: str = "POST",
    kept: MemoryLog | None = None,
) -> tuple[int, bytes, list[NewRecord]]:
    """One call, without a network."""
    kept = kept or MemoryLog()
    binder = Binder(SHOP, UnavailableRedis())  # type: ignore[arg-type]  # it only has to be away
    commits = GroupCommit(kept)  # type: ignore[arg-type]  # a log that only takes
    collector = Collector(SHOP, commits, binder, CorsPolicy((), ""))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "client": ("127.0.0.1", 5),
        "scheme": "http",
    }
    parts: list[Message] = [
        {"type": "http.request", "body": body[at : at + 1_000], "more_body": at + 1_000 < len(body)}
        for at in range(0, max(1, len(body)), 1_000)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(collector(scope, receive, send, path))
    return sent[0]["status"], sent[1]["body"], kept.records


def check_response(status: int, body: bytes, records: Sequence[NewRecord]) -> None:
    found = orjson.loads(body)
    assert status in (200, 400, 401, 403, 405, 413, 415)
    assert found["success"] is (status == 200)
    if status != 200:
        assert found["code"]
        assert found["message"]
    for record in records:
        if record.stream == DEAD_LETTERS:
            assert domain_record.decode_dead_letter(record.value).reason
            assert len(record.value) < 6_000
        else:
            assert record.stream in PUBLIC_STREAMS
            event = decode(record.value)
            assert record.key == (event.user_id or event.anonymous_id or "").encode()
            assert event_time(event, 10**14) > segment_protocol.MIN_TIMESTAMP - 1
            assert event.received_at is not None
            assert event.timestamp is not None
            assert event.timestamp <= event.received_at


class FailingLog(MemoryLog):
    """A log that refuses."""

    def start_append(self, records: Sequence[NewRecord]) -> MemoryLog:
        raise LogError("the disk is full")


def test_log_failure_returns_503() -> None:
    headers = [(b"x-write-key", WRITE_KEY.encode())]
    status, body, records = call("track", b'{"event":"x","anonymousId":"a"}', headers, kept=FailingLog())
    assert (status, orjson.loads(body)["code"], records) == (503, "log_unavailable", [])


TEXT = st.one_of(st.text(max_size=20), st.sampled_from(["\0", "track", "a" * 300, "2026-01-01T00:00:00Z", "***"]))
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
FIELDS = [
    "type",
    "event",
    "anonymousId",
    "userId",
    "previousId",
    "groupId",
    "messageId",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "receivedAt",
    "context",
    "properties",
    "traits",
    "name",
    "category",
    "batch",
]
TIMES = st.datetimes().map(lambda at: at.isoformat()) | st.sampled_from(
    ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", "2026W471", "1969-12-31T23:59:59Z", "24:00"]
)
CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "page": ANY,
        "campaign": ANY,
        "attimo": ANY,
        "userAgent": ANY,
        "userAgentData": ANY,
        "ip": ANY,
        "library": ANY,
        "user_hash": ANY,
        "userHash": ANY,
        "traits": ANY,
        "locale": ANY,
    },
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS, ANY),
        "event": st.just("Thing") | ANY,
        "anonymousId": st.just("a1") | ANY,
        "timestamp": TIMES | ANY,
        "originalTimestamp": TIMES,
        "sentAt": TIMES,
        "context": CONTEXT | ANY,
        "type": st.sampled_from(sorted(segment_protocol.EVENT_TYPES)) | ANY,
    },
)
KEYS = st.sampled_from([WRITE_KEY, SERVER_KEY])


@EXAMPLES
@given(st.sampled_from(sorted(segment_protocol.CALL_OF_ENDPOINT)), st.binary(max_size=3_000))
def test_any_bytes_get_a_json_response(path: str, body: bytes) -> None:
    for one in (body, gzip.compress(body), gzip.compress(body)[:-3], b"\x1f\x8b" + body):
        check_response(*call(path, one, [(b"x-write-key", WRITE_KEY.encode())]))


@EXAMPLES
@given(st.sampled_from(sorted(segment_protocol.CALL_OF_ENDPOINT)), ANY, KEYS)
def test_any_json_gets_a_json_response(path: str, body: Any, key: str) -> None:
    check_response(*call(path, orjson.dumps(body), [(b"x-write-key", key.encode())]))


@EXAMPLES
@given(st.sampled_from(sorted(set(segment_protocol.CALL_OF_ENDPOINT) - {"b", "batch", "import"})), ITEM, KEYS)
def test_almost_valid_calls(path: str, item: dict[str, Any], key: str) -> None:
    check_response(*call(path, orjson.dumps(item), [(b"x-write-key", key.encode())]))


@EXAMPLES
@given(st.lists(ITEM | ANY, max_size=6), KEYS, TIMES)
def test_almost_valid_batches(items: list[Any], key: str, sent_at: str) -> None:
    status, body, records = call("batch", orjson.dumps({"batch": items, "writeKey": key, "sentAt": sent_at}))
    check_response(status, body, records)
    if status == 200:
        found = orjson.loads(body)
        assert found["accepted"] + found["rejected"] == len(items) == len(records)


@EXAMPLES
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"authorization",
                    b"x-write-key",
                    b"content-encoding",
                    b"content-length",
                    b"origin",
                    b"host",
                    b"cookie",
                    b"user-agent",
                    b"x-forwarded-for",
                    b"sec-fetch-site",
                ]
            ),
            st.binary(max_size=40),
        ),
        max_size=6,
    ),
    st.binary(max_size=60),
)
def test_any_headers_and_query(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    check_response(*call("track", b'{"event":"x","anonymousId":"a"}', headers, query))


@EXAMPLES
@given(st.binary(max_size=200))
def test_any_gif_query(query: bytes) -> None:
    status, body, _ = call("pixel.gif", b"", (), query + b"&writeKey=" + WRITE_KEY.encode(), "GET")
    assert (status == 200 and body.startswith(b"GIF89a")) or orjson.loads(body)["code"]


@EXAMPLES
@given(st.binary(max_size=200))
def test_log_decoder_raises_only_expected_errors(value: bytes) -> None:
    """What anybody writes to Kafka is read, or refused with the errors the flow expects, and no other."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        assert decode(value).name is not None
