"""The collector, over real HTTP: what goes in, what the log then has."""

import base64
import gzip
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import requests

from connectors.http import segment_protocol
from connectors.http.browser_binding import user_hash
from connectors.http.collector import image_request
from domain import record as domain_record
from domain.event import decode
from tests.harness.http_server import CHROME, SECRET, SERVER_KEY, WRITE_KEY, RunningServer, running_server
from tests.harness.support import ROOT, redis_server

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def server(redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("edge"), redis, allowed_origins=("https://shop.example",)) as running:
        yield running


def last_event(server: RunningServer) -> dict[str, Any]:
    records = server.records()
    return dict(orjson.loads(max(records, key=lambda record: record.offset).value))


def iso_ago(**delta: float) -> str:
    return (datetime.now(UTC) - timedelta(**delta)).isoformat()


MINIMAL_CALL = {"anonymousId": "a1", "event": "Thing Done"}


@pytest.mark.parametrize(
    ("path", "kind", "stream"),
    [
        ("/v1/t", "track", "clicks"),
        ("/v1/track", "track", "clicks"),
        ("/v1/p", "page", "clicks"),
        ("/v1/page", "page", "clicks"),
        ("/v1/s", "screen", "clicks"),
        ("/v1/screen", "screen", "clicks"),
        ("/v1/i", "identify", "people"),
        ("/v1/identify", "identify", "people"),
        ("/v1/g", "group", "people"),
        ("/v1/group", "group", "people"),
        ("/v1/a", "alias", "people"),
        ("/v1/alias", "alias", "people"),
        ("/api/s/track", "track", "clicks"),
        ("/api/s/page", "page", "clicks"),
        ("/v1/track/", "track", "clicks"),
    ],
)
def test_every_path_accepts_events(server: RunningServer, path: str, kind: str, stream: str) -> None:
    who = f"path-{path}"
    answer = server.post(path, {**MINIMAL_CALL, "anonymousId": who, "type": None})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    record = next(record for record in server.records() if record.key == who.encode())
    assert record.stream == stream
    assert orjson.loads(record.value)["type"] == kind
    decode(record.value)


@pytest.mark.parametrize("path", ["/v1/b", "/v1/batch", "/v1/import"])
def test_batch_events_go_to_their_streams(server: RunningServer, path: str) -> None:
    batch = [
        {"type": "track", "event": "Order Completed", "anonymousId": path},
        {"type": "identify", "anonymousId": path, "traits": {"plan": "gold"}},
        {"event": "Product Added", "anonymousId": path},
    ]
    answer = server.post(path, {"batch": batch, "sentAt": iso_ago()})
    assert answer.json() == {"success": True, "accepted": 3, "rejected": 0}
    assert {record.stream for record in server.records() if record.key == path.encode()} == {
        "purchases",
        "people",
        "carts",
    }


def test_valid_batch_items_are_kept_and_errors_listed(server: RunningServer) -> None:
    batch = [
        {"type": "track", "event": "Good", "anonymousId": "mixed"},
        {"type": "track", "anonymousId": "mixed"},
        7,
        {"type": "dance", "anonymousId": "mixed"},
        {"type": "page"},
        {"type": "track", "event": "x", "anonymousId": "y" * 257},
    ]
    answer = server.post("/v1/batch", {"batch": batch})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["accepted"], found["rejected"]) == (1, 5)
    assert [(one["index"], one["code"], one["field"]) for one in found["errors"]] == [
        (1, "invalid", "event"),
        (2, "invalid", "batch[2]"),
        (3, "invalid", "type"),
        (4, "missing_id", "anonymousId"),
        (5, "too_long", "anonymousId"),
    ]
    kept = [domain_record.decode_dead_letter(record.value) for record in server.records("dead-letters")]
    assert {"event: should be the name of the event", "anonymousId: is longer than 256 characters"} <= {
        one.reason for one in kept
    }
    assert all(len(one.raw) <= 512 for one in kept)


def test_batch_without_valid_items_is_rejected(server: RunningServer) -> None:
    answer = server.post("/v1/batch", {"batch": [{"type": "page"}]})
    assert (answer.status_code, answer.json()["code"]) == (400, "missing_id")


def test_client_metrics_are_discarded(server: RunningServer) -> None:
    answer = server.post("/v1/m", {"series": []})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "a/b", ""])
def test_any_content_type_is_accepted(server: RunningServer, kind: str) -> None:
    assert server.post("/v1/track", MINIMAL_CALL, headers={"Content-Type": kind}).status_code == 200


def test_gzip_is_detected_with_and_without_header(server: RunningServer) -> None:
    body = gzip.compress(orjson.dumps({**MINIMAL_CALL, "anonymousId": "zip"}))
    assert server.post("/v1/track", body, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert server.post("/v1/track", body).status_code == 200
    assert sum(record.key == b"zip" for record in server.records()) == 2


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ({"key": WRITE_KEY}, 200),
        ({"body": WRITE_KEY}, 200),
        ({"header": WRITE_KEY}, 200),
        ({"query": WRITE_KEY}, 200),
        ({"body": WRITE_KEY, "header": "***"}, 200),
        ({"header": f"{WRITE_KEY}:secret"}, 200),
        ({"key": SERVER_KEY}, 200),
        ({}, 401),
        ({"key": "wrong"}, 401),
        ({"body": "***"}, 401),
        ({"body": 7}, 401),
        ({"key": "wrong", "body": WRITE_KEY}, 401),
    ],
)
def test_write_key_locations(server: RunningServer, where: dict[str, Any], status: int) -> None:
    body = {**MINIMAL_CALL, **({"writeKey": where["body"]} if "body" in where else {})}
    headers = {"X-Write-Key": where["header"]} if "header" in where else {}
    params = {"writeKey": where["query"]} if "query" in where else {}
    answer = server.post("/v1/track", body, where.get("key"), headers=headers, params=params)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["code"] in ("missing_write_key", "invalid_write_key")
        assert answer.json()["field"] == "writeKey"
    assert WRITE_KEY.encode() not in orjson.dumps(last_event(server))


def nested_json(depth: int) -> bytes:
    inner = b"1"
    for _ in range(depth):
        inner = b'{"a":' + inner + b"}"
    return b'{"event":"x","anonymousId":"a1","properties":' + inner + b"}"


INVALID_CALLS: list[tuple[str, bytes | dict[str, Any], int, str, str]] = [
    ("broken JSON", b'{"event": ', 400, "invalid", "body"),
    ("nothing", b"", 400, "invalid", "body"),
    ("no UTF-8", b'{"event":"\xff\xfe"}', 400, "invalid", "body"),
    ("half a surrogate", b'{"event":"\\ud800","anonymousId":"a"}', 400, "invalid", "body"),
    ("a list", b"[]", 400, "invalid", "body"),
    ("not a number", b'{"event":"x","anonymousId":"a","properties":{"price":NaN}}', 400, "invalid", "body"),
    ("no event", {"anonymousId": "a1"}, 400, "invalid", "event"),
    ("a number for an event", {"event": 7, "anonymousId": "a1"}, 400, "invalid", "event"),
    ("a long event", {"event": "x" * 257, "anonymousId": "a1"}, 400, "too_long", "event"),
    ("nobody", {"event": "x"}, 400, "missing_id", "anonymousId"),
    ("nulls for ids", {"event": "x", "anonymousId": None, "userId": None}, 400, "missing_id", "anonymousId"),
    ("an object for an id", {"event": "x", "anonymousId": {"a": 1}}, 400, "invalid", "anonymousId"),
    ("a truth for an id", {"event": "x", "anonymousId": True}, 400, "invalid", "anonymousId"),
    ("a long id", {"event": "x", "anonymousId": "a" * 257}, 400, "too_long", "anonymousId"),
    ("a line break in an id", {"event": "x", "anonymousId": "a\nb"}, 400, "invalid", "anonymousId"),
    ("NUL in an id", {"event": "x", "anonymousId": "a\0b"}, 400, "nul_character", "anonymousId"),
    ("NUL in a value", {**MINIMAL_CALL, "properties": {"q": "a\0"}}, 400, "nul_character", "q"),
    ("NUL in a name", {**MINIMAL_CALL, "properties": {"q\0": "a"}}, 400, "nul_character", "q"),
    ("NUL in a list", {**MINIMAL_CALL, "properties": {"q": ["\0"]}}, 400, "nul_character", "body"),
    ("text for properties", {**MINIMAL_CALL, "properties": "cheap"}, 400, "invalid", "properties"),
    ("a list for the context", {**MINIMAL_CALL, "context": []}, 400, "invalid", "context"),
    ("a number for a url", {**MINIMAL_CALL, "context": {"page": {"url": 7}}}, 400, "invalid", "context.page.url"),
    (
        "too many properties",
        {**MINIMAL_CALL, "properties": dict.fromkeys(map(str, range(501)), 1)},
        413,
        "too_large",
        "properties",
    ),
    ("too deep", nested_json(40), 400, "too_deep", "body"),
    ("far too deep", nested_json(5_000), 400, "invalid", "body"),
    ("too large", {**MINIMAL_CALL, "properties": {"x": "y" * 33_000}}, 413, "too_large", "body"),
    ("no time", {**MINIMAL_CALL, "timestamp": "yesterday"}, 400, "invalid", "timestamp"),
    ("a number for a time", {**MINIMAL_CALL, "timestamp": 5}, 400, "invalid", "timestamp"),
    (
        "timestamp_in_future",
        {**MINIMAL_CALL, "timestamp": "2999-01-01T00:00:00Z"},
        400,
        "timestamp_in_future",
        "timestamp",
    ),
    (
        "timestamp_too_old",
        {**MINIMAL_CALL, "originalTimestamp": "1970-01-01T00:00:00Z"},
        400,
        "timestamp_too_old",
        "originalTimestamp",
    ),
    (
        "the end of time",
        {**MINIMAL_CALL, "timestamp": "9999-12-31T23:59:59-14:00", "sentAt": "9999-12-31T23:59:59Z"},
        400,
        "invalid",
        "timestamp",
    ),
    ("its beginning", {**MINIMAL_CALL, "timestamp": "0001-01-01T00:00:00+14:00"}, 400, "invalid", "timestamp"),
    ("a long message id", {**MINIMAL_CALL, "messageId": "m" * 257}, 400, "too_long", "messageId"),
    ("an unverified user alone", {"event": "x", "userId": "ann"}, 400, "missing_id", "userId"),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "field"), [bad[1:] for bad in INVALID_CALLS], ids=[bad[0] for bad in INVALID_CALLS]
)
def test_invalid_calls_get_a_specific_error(
    server: RunningServer, body: bytes | dict[str, Any], status: int, code: str, field: str
) -> None:
    before = len(server.records())
    answer = server.post("/v1/track", body)
    found = answer.json()
    assert (answer.status_code, found["success"], found["code"], found["field"]) == (status, False, code, field)
    assert found["message"].startswith(field)
    assert len(server.records()) == before


def test_gzip_bomb_is_rejected(server: RunningServer) -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    assert len(bomb) < 100_000
    answer = server.post("/v1/batch", bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x1f\x8bnonsense", "invalid"),
        (gzip.compress(b"{}", mtime=0)[:-9], "invalid"),
        (gzip.compress(b"{}", mtime=0) + b"more", "invalid"),
    ],
)
def test_broken_gzip_is_rejected(server: RunningServer, body: bytes, code: str) -> None:
    answer = server.post("/v1/track", body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_unknown_encoding_is_rejected(server: RunningServer) -> None:
    assert server.post("/v1/track", b"x", headers={"Content-Encoding": "br"}).status_code == 415


def test_oversized_body_is_rejected(server: RunningServer) -> None:
    def parts() -> Iterator[bytes]:  # of unknown length: counted while it comes
        for _ in range(100):
            yield b"x" * 10_000

    answer = requests.post(f"{server.url}/v1/batch", data=parts(), auth=(WRITE_KEY, ""), timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert server.post("/v1/batch", b"x" * 600_000).status_code == 413


def test_oversized_batch_is_rejected(server: RunningServer) -> None:
    answer = server.post("/v1/batch", {"batch": [{}] * 2_501})
    assert (answer.status_code, answer.json()["field"]) == (413, "batch")


def test_full_batch_is_accepted(server: RunningServer) -> None:
    batch = [{"type": "page", "anonymousId": "many"}] * 2_500
    answer = server.post("/v1/batch", {"batch": batch}, SERVER_KEY)
    assert answer.json() == {"success": True, "accepted": 2_500, "rejected": 0}
    assert sum(record.key == b"many" for record in server.records()) == 2_500


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/x/y", "/api/s/dance", "/v2/track"])
def test_unknown_path_is_not_found(server: RunningServer, path: str) -> None:
    answer = server.post(path, MINIMAL_CALL)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_get_is_not_allowed(server: RunningServer) -> None:
    answer = requests.get(f"{server.url}/v1/track", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_user_id_without_user_hash_is_only_a_claim(server: RunningServer) -> None:
    server.post("/v1/identify", {"anonymousId": "guest", "userId": "ann", "traits": {"a": 1}})
    event = last_event(server)
    assert (event["anonymousId"], event["userId"]) == ("guest", None)
    assert event["context"]["attimo"]["claimedUserId"] == "ann"
    server.post("/v1/alias", {"anonymousId": "guest", "userId": "ann", "previousId": "someone-else"})
    event = last_event(server)
    assert (event["userId"], event["previousId"]) == (None, None)


@pytest.mark.parametrize("name", ["user_hash", "userHash"])
def test_user_hash_verifies_the_user_id(server: RunningServer, name: str) -> None:
    context, browser = {name: user_hash(SECRET, "ann")}, requests.Session()
    server.post("/v1/identify", {"anonymousId": name, "userId": "ann", "context": context}, session=browser)
    event = last_event(server)
    assert (event["userId"], event["context"]) == ("ann", {"attimo": {"device": "desktop"}})
    assert any(record.key == b"ann" for record in server.records("people"))
    server.post("/v1/identify", {"anonymousId": name, "userId": "bob", "context": context}, session=browser)
    assert last_event(server)["userId"] is None
    alias = {"anonymousId": name, "userId": "ann", "context": context}
    server.post("/v1/alias", {**alias, "previousId": "victim"}, session=browser)
    assert last_event(server)["previousId"] is None
    server.post("/v1/alias", {**alias, "previousId": name}, session=browser)
    assert last_event(server)["previousId"] == name


def test_server_key_may_set_user_id_and_context(server: RunningServer) -> None:
    context = {"ip": "8.8.8.8", "attimo": {"device": "mobile", "offline": True}}
    server.post("/v1/track", {"event": "Order Completed", "userId": 42, "context": context}, SERVER_KEY)
    event = last_event(server)
    assert (event["userId"], event["context"]) == (
        "42",
        {"attimo": {"country": "US", "offline": True, "device": "mobile"}},
    )


def test_browser_cannot_set_server_context(server: RunningServer) -> None:
    lies = {"country": "CA", "device": "tv", "bot": True, "claimedUserId": "x", "offline": True}
    server.post("/v1/track", {**MINIMAL_CALL, "context": {"ip": "8.8.8.8", "attimo": lies}})
    assert last_event(server)["context"] == {"attimo": {"device": "desktop"}}


def test_demo_mode_may_override_the_country(redis: str, tmp_path: Path) -> None:
    with running_server(tmp_path, redis, demo=True) as running:
        running.post("/v1/track", {**MINIMAL_CALL, "context": {"attimo": {"country": "CA"}}})
        assert last_event(running)["context"]["attimo"]["country"] == "CA"
        answer = running.post("/v1/track", {**MINIMAL_CALL, "context": {"attimo": {"country": "Canada"}}})
        assert answer.json()["field"] == "context.attimo.country"


@pytest.mark.parametrize(("trust", "country"), [(True, "US"), (False, None)])
def test_ip_address_is_reduced_to_a_country(redis: str, tmp_path: Path, trust: bool, country: str | None) -> None:
    with running_server(tmp_path, redis, trust_proxy=trust) as running:
        running.post("/v1/track", MINIMAL_CALL, headers={"X-Forwarded-For": "200.1.2.3, 8.8.8.8"})
        assert last_event(running)["context"]["attimo"].get("country") == country
        assert b"8.8.8.8" not in running.records()[0].value
        assert b"127.0.0.1" not in running.records()[0].value


def test_bots_are_marked(server: RunningServer) -> None:
    server.post(
        "/v1/track", MINIMAL_CALL, headers={"User-Agent": "Mozilla/5.0 (compatible; Unheard/1.0; +http://x.example)"}
    )
    assert last_event(server)["context"]["attimo"] == {"device": "bot", "bot": True}
    said = {"userAgent": CHROME, "userAgentData": {"mobile": True}}
    server.post("/v1/track", {**MINIMAL_CALL, "context": said}, headers={"User-Agent": "analytics-python/2"})
    assert last_event(server)["context"]["attimo"] == {"device": "mobile"}


def test_client_clock_skew_is_corrected(server: RunningServer) -> None:
    off = timedelta(hours=3)  # its clock is three hours fast; the event was a minute before it was sent
    sent = datetime.now(UTC) + off
    body = {**MINIMAL_CALL, "originalTimestamp": (sent - timedelta(minutes=1)).isoformat(), "sentAt": sent.isoformat()}
    server.post("/v1/track", body)
    event = last_event(server)
    stamp, received = (datetime.fromisoformat(event[name]) for name in ("timestamp", "receivedAt"))
    assert timedelta(minutes=1) <= received - stamp < timedelta(minutes=1, seconds=10)
    assert "sentAt" not in event


def test_client_clock_skew_is_corrected_in_a_batch(server: RunningServer) -> None:
    """What the pixel and Segment's clients send: one `sentAt` for all. An event's own says nothing beside it."""
    off = timedelta(hours=3)
    sent = datetime.now(UTC) - off
    minutes = (1, 30, 90)
    batch = [
        {
            **MINIMAL_CALL,
            "type": "track",
            "messageId": f"skewed-{n}",
            "sentAt": iso_ago(hours=9),
            "originalTimestamp": (sent - timedelta(minutes=n)).isoformat(),
        }
        for n in minutes
    ]
    assert server.post("/v1/batch", {"batch": batch, "sentAt": sent.isoformat()}).json()["accepted"] == 3
    found = {event["messageId"]: event for event in server.events()}
    for n in minutes:
        stamp, received = (datetime.fromisoformat(found[f"skewed-{n}"][name]) for name in ("timestamp", "receivedAt"))
        assert timedelta(minutes=n) <= received - stamp < timedelta(minutes=n, seconds=20)
    answer = server.post("/v1/batch", {"batch": batch, "sentAt": "yesterday"})
    assert (answer.status_code, answer.json()["field"]) == (400, "sentAt")


def test_timestamp_is_never_in_the_future(server: RunningServer) -> None:
    server.post("/v1/track", {**MINIMAL_CALL, "timestamp": iso_ago(hours=-5)})
    event = last_event(server)
    assert event["timestamp"] == event["receivedAt"]


def test_missing_message_id_is_derived_from_the_payload(server: RunningServer) -> None:
    body = {**MINIMAL_CALL, "timestamp": iso_ago(minutes=5)}
    ids = []
    for sent in (iso_ago(seconds=9), iso_ago(seconds=1)):
        server.post("/v1/track", {**body, "sentAt": sent})
        ids.append(last_event(server)["messageId"])
    assert ids[0] == ids[1]
    server.post("/v1/track", {**body, "properties": {"x": 2}})
    assert last_event(server)["messageId"] != ids[0]


def test_same_call_is_encoded_to_the_same_bytes() -> None:
    caller = segment_protocol.RequestContext(received_at=1_760_000_000_000)
    item = {
        "event": "x",
        "anonymousId": "a",
        "messageId": "m",
        "context": {"locale": "en", "ip": "1.2.3.4"},
        "timestamp": "2025-10-09T08:00:00.000Z",
        "properties": {"b": 1, "a": 2},
        "_metadata": {},
        "writeKey": "k",
    }
    mixed = dict(reversed(item.items()))
    values = [segment_protocol.normalize(each, "track", caller).value for each in (item, mixed)]
    assert (
        values[0]
        == values[1]
        == (
            b'{"type":"track","event":"x","messageId":"m","anonymousId":"a","userId":null,'
            b'"timestamp":"2025-10-09T08:00:00.000Z","originalTimestamp":"2025-10-09T08:00:00.000Z",'
            b'"receivedAt":"2025-10-09T08:53:20.000Z","properties":{"b":1,"a":2},'
            b'"context":{"locale":"en","attimo":{}}}'
        )
    )


def test_dead_letters_contain_no_secrets_or_names() -> None:
    raw = domain_record.redact(
        {
            "writeKey": "k",
            "traits": {"email": "a@b.example"},
            "event": 7,
            "context": {"ip": "1.2.3.4", "user_hash": "h", "traits": {"phone": "1"}, "locale": "en"},
        }
    )
    assert orjson.loads(raw) == {"event": 7, "context": {"locale": "en"}}


def test_gif_pixel_records_an_event(server: RunningServer) -> None:
    params = {
        "writeKey": WRITE_KEY,
        "event": "Message Opened",
        "userId": "ann",
        "user_hash": user_hash(SECRET, "ann"),
        "p_message_id": "m-1",
    }
    answer = requests.get(f"{server.url}/v1/pixel.gif", params=params, headers={"User-Agent": CHROME}, timeout=10)
    assert (answer.status_code, answer.headers["content-type"], answer.headers["cache-control"]) == (
        200,
        "image/gif",
        "no-store",
    )
    assert answer.content.startswith(b"GIF89a")
    event = last_event(server)
    assert (event["event"], event["userId"], event["properties"]) == ("Message Opened", "ann", {"message_id": "m-1"})
    page = {"writeKey": WRITE_KEY, "anonymousId": "noscript"}
    requests.get(f"{server.url}/v1/pixel.gif", params=page, headers={"Referer": "http://shop.example/p"}, timeout=10)
    event = last_event(server)
    assert (event["type"], event["context"]["page"]["url"]) == ("page", "http://shop.example/p")
    for wrong, status in (
        ({"event": "x"}, 401),
        ({"writeKey": WRITE_KEY, "event": "x"}, 400),
        ({"writeKey": SERVER_KEY, "event": "x", "userId": "a"}, 400),
    ):
        answer = requests.get(f"{server.url}/v1/pixel.gif", params=wrong, timeout=10)
        assert answer.status_code == status
        assert answer.json()["success"] is False


@pytest.mark.parametrize(
    ("agent", "seen"),
    [
        ("Mozilla/5.0", {}),
        ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)", {}),
        ("python-requests/2.32", {"device": "bot", "bot": True, "trackingImage": True}),
        (CHROME, {"device": "desktop"}),
    ],
)
def test_gif_pixel_classifies_the_client(server: RunningServer, agent: str, seen: dict[str, Any]) -> None:
    for params in ({"event": "Message Opened"}, {}):
        requests.get(
            f"{server.url}/v1/pixel.gif",
            params={"writeKey": WRITE_KEY, "anonymousId": "reader", **params},
            headers={"User-Agent": agent},
            timeout=10,
        )
        assert last_event(server)["context"]["attimo"] == seen


def test_mail_proxy_country_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.http.client.country", lambda address: "US")
    for agent, seen in (("Mozilla/5.0", {}), (CHROME, {"country": "US", "device": "desktop"})):
        caller = image_request(
            segment_protocol.RequestContext(1_760_000_000_000, address="203.0.113.9", user_agent=agent)
        )
        event = orjson.loads(segment_protocol.normalize({"anonymousId": "a"}, "page", caller).value)
        assert event["context"]["attimo"] == seen


def test_cross_origin_requests(server: RunningServer) -> None:
    preflight = requests.options(
        f"{server.url}/v1/t",
        timeout=10,
        headers={
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 204
    allowed = preflight.headers["access-control-allow-headers"]
    assert {"authorization", "content-type", "anonymousid", "x-write-key", "x-retry-count"} <= set(allowed.split(", "))
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert preflight.headers["access-control-max-age"]
    answer = server.post("/v1/t", MINIMAL_CALL, headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    for foreign in ("https://evil.example", "null", "https://shop.example.evil.example"):
        preflight = requests.options(f"{server.url}/v1/t", timeout=10, headers={"Origin": foreign})
        assert "access-control-allow-origin" not in preflight.headers
        answer = server.post("/v1/t", MINIMAL_CALL, headers={"Origin": foreign})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert server.post("/v1/t", MINIMAL_CALL, headers={"Origin": server.url}).status_code == 200


def test_client_configuration_endpoint(server: RunningServer) -> None:
    found = requests.get(f"{server.url}/v1/projects/{WRITE_KEY}/settings", timeout=10).json()
    host = server.url.removeprefix("http://")
    assert found["integrations"]["Segment.io"] == {"apiKey": WRITE_KEY, "apiHost": f"{host}/v1", "protocol": "http"}
    assert requests.get(f"{server.url}/v1/projects/wrong/settings", timeout=10).status_code == 404
    coded = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
    for more in ({"params": {"writeKey": WRITE_KEY}}, {"headers": {"Authorization": f"Basic {coded}"}}):
        found = requests.get(f"{server.url}/sourceConfig/", timeout=10, **more).json()  # type: ignore[arg-type]  # two kinds
        assert found["source"]["writeKey"] == WRITE_KEY


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For limits: on a busy machine more than a second may lie between two calls, and then one more is let in."""
    monkeypatch.setattr("connectors.http.collector.time", SimpleNamespace(monotonic=lambda: 0.0, time_ns=time.time_ns))


@pytest.mark.usefixtures("frozen_clock")
def test_rate_limits(redis: str, tmp_path: Path) -> None:
    with running_server(tmp_path, redis, rate_limit_per_key=1) as running:  # a burst of 2,500, then one a second
        batch = {"batch": [{"type": "page", "anonymousId": "a"}] * 2_500}
        assert running.post("/v1/batch", batch).status_code == 200
        answer = running.post("/v1/batch", batch)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
        assert len(running.records()) == 2_500
        assert running.post("/v1/track", {**MINIMAL_CALL, "userId": "u"}, SERVER_KEY).status_code == 200


@pytest.mark.usefixtures("frozen_clock")
def test_write_key_has_a_rate_limit_across_networks(redis: str, tmp_path: Path) -> None:
    """A network may send 2,500 at once here, and so may a key: from a second network only the key can refuse."""
    with running_server(tmp_path, redis, rate_limit_per_key=1, trust_proxy=True) as running:

        def post(body: Any, network: int, key: str = WRITE_KEY) -> requests.Response:
            path = "/v1/batch" if "batch" in body else "/v1/track"
            return running.post(path, body, key, headers={"X-Forwarded-For": f"203.0.{network}.9"})

        batch = {"batch": [{"type": "page", "anonymousId": "a"}] * 2_500}
        assert post(batch, 1).status_code == 200
        answer = post(MINIMAL_CALL, 2)
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) >= 1
        gif = requests.get(
            f"{running.url}/v1/pixel.gif",
            timeout=10,
            headers={"X-Forwarded-For": "203.0.3.9"},
            params={"writeKey": WRITE_KEY, "anonymousId": "a"},
        )
        assert gif.status_code == 429
        assert len(running.records()) == 2_500, "what is refused is not kept"
        assert post(batch, 4, SERVER_KEY).status_code == 200, "the shop's servers have a limit of their own"
        assert post({**MINIMAL_CALL, "userId": "u"}, 5, SERVER_KEY).status_code == 429


def test_events_are_accepted_without_redis(tmp_path: Path) -> None:
    with running_server(tmp_path, f"unix://{tmp_path}/nobody") as running:
        answer = running.post("/v1/track", MINIMAL_CALL)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert len(running.records()) == 1


def test_retry_after_crash_keeps_the_message_id(redis: str, tmp_path: Path) -> None:
    """The log has it, nobody was told; the retry carries the same message id."""
    program = (
        "import sys; from domain.settings import Settings; from connectors.http.app import serve\n"
        "s = Settings(data=sys.argv[1], redis=sys.argv[2], port=int(sys.argv[3]), secret='s', metrics_port=0)\n"
        "serve(s)\n"
    )
    from connectors.log.sqlite import SqliteLog
    from tests.harness.support import free_port

    port = free_port()
    body = orjson.dumps({**MINIMAL_CALL, "writeKey": WRITE_KEY, "timestamp": "2026-01-01T00:00:00Z"})
    for crash, ends in (({"ATTIMO_CRASH_AT": "collector:after_append"}, 137), ({}, 0)):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), redis, str(port)],
            cwd=ROOT,
            env={"PATH": "", "PYTHONPATH": str(ROOT), **crash},
        )
        try:
            for _ in range(500):
                try:
                    requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
                    break
                except requests.ConnectionError:
                    time.sleep(0.02)
            if ends:
                with pytest.raises(requests.ConnectionError):
                    requests.post(f"http://127.0.0.1:{port}/v1/track", data=body, timeout=10)
            else:
                assert requests.post(f"http://127.0.0.1:{port}/v1/track", data=body, timeout=10).status_code == 200
                process.terminate()
            assert process.wait(20) == ends
        finally:
            process.kill()
            process.wait()
    with SqliteLog(tmp_path) as log:
        places = [("clicks", number) for number in range(64)]
        records = log.reader(places, {}).poll(10, 0)
    assert len(records) == 2
    assert len({orjson.loads(record.value)["messageId"] for record in records}) == 1


def test_rudderstack_traits_are_read_from_the_context(server: RunningServer) -> None:
    server.post("/v1/identify", {"userId": "ann", "context": {"traits": {"plan": "gold"}}}, SERVER_KEY)
    event = last_event(server)
    assert event["traits"] == {"plan": "gold"}
    assert "traits" not in event["context"]
    server.post("/v1/track", {**MINIMAL_CALL, "context": {"traits": {"email": "a@b.example"}}})
    assert b"a@b.example" not in orjson.dumps(last_event(server))


def test_secrets_are_required_and_must_differ(tmp_path: Path) -> None:
    from connectors.http.app import Edge
    from connectors.log.sqlite import SqliteLog
    from domain.settings import Settings

    with pytest.raises(ValueError, match="secret"):
        Edge(Settings(), lambda: SqliteLog(tmp_path))
    with pytest.raises(ValueError, match="server_key"):
        Edge(Settings(secret="s", server_key="same", write_key="same"), lambda: SqliteLog(tmp_path))
