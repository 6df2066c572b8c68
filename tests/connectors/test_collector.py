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

from connectors import wire
from connectors.collector import reading
from connectors.identity_tokens import user_hash
from domain import reject
from domain.event import decode
from tests.edges import CHROME, SECRET, SERVER_KEY, WRITE_KEY, House, house
from tests.support import ROOT, redis_server

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def shared(redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("edge"), redis, origins=("https://shop.example",)) as running:
        yield running


def last(running: House) -> dict[str, Any]:
    records = running.records()
    return dict(orjson.loads(max(records, key=lambda record: record.offset).value))


def ago(**delta: float) -> str:
    return (datetime.now(UTC) - timedelta(**delta)).isoformat()


BASIC = {"anonymousId": "a1", "event": "Thing Done"}


@pytest.mark.parametrize(("path", "kind", "stream"), [
    ("/v1/t", "track", "clicks"), ("/v1/track", "track", "clicks"), ("/v1/p", "page", "clicks"),
    ("/v1/page", "page", "clicks"), ("/v1/s", "screen", "clicks"), ("/v1/screen", "screen", "clicks"),
    ("/v1/i", "identify", "people"), ("/v1/identify", "identify", "people"), ("/v1/g", "group", "people"),
    ("/v1/group", "group", "people"), ("/v1/a", "alias", "people"), ("/v1/alias", "alias", "people"),
    ("/api/s/track", "track", "clicks"), ("/api/s/page", "page", "clicks"), ("/v1/track/", "track", "clicks"),
])
def test_every_path_long_and_short(shared: House, path: str, kind: str, stream: str) -> None:
    who = f"path-{path}"
    answer = shared.post(path, {**BASIC, "anonymousId": who, "type": None})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    record = next(record for record in shared.records() if record.key == who.encode())
    assert record.stream == stream
    assert orjson.loads(record.value)["type"] == kind
    decode(record.value)


@pytest.mark.parametrize("path", ["/v1/b", "/v1/batch", "/v1/import"])
def test_batches(shared: House, path: str) -> None:
    batch = [{"type": "track", "event": "Order Completed", "anonymousId": path},
             {"type": "identify", "anonymousId": path, "traits": {"plan": "gold"}},
             {"event": "Product Added", "anonymousId": path}]
    answer = shared.post(path, {"batch": batch, "sentAt": ago()})
    assert answer.json() == {"success": True, "accepted": 3, "rejected": 0}
    assert {record.stream for record in shared.records() if record.key == path.encode()} == {
        "purchases", "people", "carts"}


def test_the_good_ones_of_a_batch_are_kept_and_the_bad_ones_explained(shared: House) -> None:
    batch = [{"type": "track", "event": "Good", "anonymousId": "mixed"}, {"type": "track", "anonymousId": "mixed"},
             7, {"type": "dance", "anonymousId": "mixed"}, {"type": "page"},
             {"type": "track", "event": "x", "anonymousId": "y" * 257}]
    answer = shared.post("/v1/batch", {"batch": batch})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["accepted"], found["rejected"]) == (1, 5)
    assert [(one["index"], one["code"], one["field"]) for one in found["rejects"]] == [
        (1, "unreadable", "event"), (2, "unreadable", "batch[2]"), (3, "unreadable", "type"),
        (4, "no_person", "anonymousId"), (5, "too_long", "anonymousId")]
    kept = [reject.decode(record.value) for record in shared.records("rejects")]
    assert {"event: should be the name of the event", "anonymousId: is longer than 256 characters"} <= {
        one.because for one in kept}
    assert all(len(one.raw) <= 512 for one in kept)


def test_a_batch_of_only_bad_ones_is_refused(shared: House) -> None:
    answer = shared.post("/v1/batch", {"batch": [{"type": "page"}]})
    assert (answer.status_code, answer.json()["code"]) == (400, "no_person")


def test_metrics_of_clients_are_thrown_away(shared: House) -> None:
    answer = shared.post("/v1/m", {"series": []})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "a/b", ""])
def test_any_content_type(shared: House, kind: str) -> None:
    assert shared.post("/v1/track", BASIC, headers={"Content-Type": kind}).status_code == 200


def test_gzip_announced_or_not(shared: House) -> None:
    body = gzip.compress(orjson.dumps({**BASIC, "anonymousId": "zip"}))
    assert shared.post("/v1/track", body, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert shared.post("/v1/track", body).status_code == 200
    assert sum(record.key == b"zip" for record in shared.records()) == 2


@pytest.mark.parametrize(("where", "status"), [
    ({"key": WRITE_KEY}, 200), ({"body": WRITE_KEY}, 200), ({"header": WRITE_KEY}, 200), ({"query": WRITE_KEY}, 200),
    ({"body": WRITE_KEY, "header": "***"}, 200), ({"header": f"{WRITE_KEY}:secret"}, 200), ({"key": SERVER_KEY}, 200),
    ({}, 401), ({"key": "wrong"}, 401), ({"body": "***"}, 401), ({"body": 7}, 401),
    ({"key": "wrong", "body": WRITE_KEY}, 401),
])
def test_where_the_write_key_may_be(shared: House, where: dict[str, Any], status: int) -> None:
    body = {**BASIC, **({"writeKey": where["body"]} if "body" in where else {})}
    headers = {"X-Write-Key": where["header"]} if "header" in where else {}
    params = {"writeKey": where["query"]} if "query" in where else {}
    answer = shared.post("/v1/track", body, where.get("key"), headers=headers, params=params)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["code"] in ("no_write_key", "wrong_write_key")
        assert answer.json()["field"] == "writeKey"
    assert WRITE_KEY.encode() not in orjson.dumps(last(shared))


def nested(depth: int) -> bytes:
    inner = b"1"
    for _ in range(depth):
        inner = b'{"a":' + inner + b"}"
    return b'{"event":"x","anonymousId":"a1","properties":' + inner + b"}"


BAD: list[tuple[str, bytes | dict[str, Any], int, str, str]] = [
    ("broken JSON", b'{"event": ', 400, "unreadable", "body"),
    ("nothing", b"", 400, "unreadable", "body"),
    ("no UTF-8", b'{"event":"\xff\xfe"}', 400, "unreadable", "body"),
    ("half a surrogate", b'{"event":"\\ud800","anonymousId":"a"}', 400, "unreadable", "body"),
    ("a list", b"[]", 400, "unreadable", "body"),
    ("not a number", b'{"event":"x","anonymousId":"a","properties":{"price":NaN}}', 400, "unreadable", "body"),
    ("no event", {"anonymousId": "a1"}, 400, "unreadable", "event"),
    ("a number for an event", {"event": 7, "anonymousId": "a1"}, 400, "unreadable", "event"),
    ("a long event", {"event": "x" * 257, "anonymousId": "a1"}, 400, "too_long", "event"),
    ("nobody", {"event": "x"}, 400, "no_person", "anonymousId"),
    ("nulls for ids", {"event": "x", "anonymousId": None, "userId": None}, 400, "no_person", "anonymousId"),
    ("an object for an id", {"event": "x", "anonymousId": {"a": 1}}, 400, "unreadable", "anonymousId"),
    ("a truth for an id", {"event": "x", "anonymousId": True}, 400, "unreadable", "anonymousId"),
    ("a long id", {"event": "x", "anonymousId": "a" * 257}, 400, "too_long", "anonymousId"),
    ("a line break in an id", {"event": "x", "anonymousId": "a\nb"}, 400, "unreadable", "anonymousId"),
    ("NUL in an id", {"event": "x", "anonymousId": "a\0b"}, 400, "nul", "anonymousId"),
    ("NUL in a value", {**BASIC, "properties": {"q": "a\0"}}, 400, "nul", "q"),
    ("NUL in a name", {**BASIC, "properties": {"q\0": "a"}}, 400, "nul", "q"),
    ("NUL in a list", {**BASIC, "properties": {"q": ["\0"]}}, 400, "nul", "body"),
    ("text for properties", {**BASIC, "properties": "cheap"}, 400, "unreadable", "properties"),
    ("a list for the context", {**BASIC, "context": []}, 400, "unreadable", "context"),
    ("a number for a url", {**BASIC, "context": {"page": {"url": 7}}}, 400, "unreadable", "context.page.url"),
    ("too many properties", {**BASIC, "properties": dict.fromkeys(map(str, range(501)), 1)}, 413, "too_large",
     "properties"),
    ("too deep", nested(40), 400, "too_deep", "body"),
    ("far too deep", nested(5_000), 400, "unreadable", "body"),
    ("too large", {**BASIC, "properties": {"x": "y" * 33_000}}, 413, "too_large", "body"),
    ("no time", {**BASIC, "timestamp": "yesterday"}, 400, "unreadable", "timestamp"),
    ("a number for a time", {**BASIC, "timestamp": 5}, 400, "unreadable", "timestamp"),
    ("future", {**BASIC, "timestamp": "2999-01-01T00:00:00Z"}, 400, "future", "timestamp"),
    ("ancient", {**BASIC, "originalTimestamp": "1970-01-01T00:00:00Z"}, 400, "ancient", "originalTimestamp"),
    ("the end of time", {**BASIC, "timestamp": "9999-12-31T23:59:59-14:00", "sentAt": "9999-12-31T23:59:59Z"}, 400,
     "unreadable", "timestamp"),
    ("its beginning", {**BASIC, "timestamp": "0001-01-01T00:00:00+14:00"}, 400, "unreadable", "timestamp"),
    ("a long message id", {**BASIC, "messageId": "m" * 257}, 400, "too_long", "messageId"),
    ("an unverified user alone", {"event": "x", "userId": "ann"}, 400, "no_person", "userId"),
]


@pytest.mark.parametrize(("body", "status", "code", "field"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_calls_are_told_what_is_wrong(
    shared: House, body: bytes | dict[str, Any], status: int, code: str, field: str
) -> None:
    before = len(shared.records())
    answer = shared.post("/v1/track", body)
    found = answer.json()
    assert (answer.status_code, found["success"], found["code"], found["field"]) == (status, False, code, field)
    assert found["message"].startswith(field)
    assert len(shared.records()) == before


def test_a_gzip_bomb_stops_at_the_cap(shared: House) -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    assert len(bomb) < 100_000
    answer = shared.post("/v1/batch", bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(("body", "code"), [
    (b"\x1f\x8bnonsense", "unreadable"), (gzip.compress(b"{}", mtime=0)[:-9], "unreadable"),
    (gzip.compress(b"{}", mtime=0) + b"more", "unreadable"),
])
def test_broken_gzip(shared: House, body: bytes, code: str) -> None:
    answer = shared.post("/v1/track", body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_an_unknown_encoding(shared: House) -> None:
    assert shared.post("/v1/track", b"x", headers={"Content-Encoding": "br"}).status_code == 415


def test_a_huge_body_is_not_read(shared: House) -> None:
    def parts() -> Iterator[bytes]:  # of unknown length: counted while it comes
        for _ in range(100):
            yield b"x" * 10_000

    answer = requests.post(f"{shared.url}/v1/batch", data=parts(), auth=(WRITE_KEY, ""), timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert shared.post("/v1/batch", b"x" * 600_000).status_code == 413


def test_a_batch_of_too_many(shared: House) -> None:
    answer = shared.post("/v1/batch", {"batch": [{}] * 2_501})
    assert (answer.status_code, answer.json()["field"]) == (413, "batch")


def test_a_full_batch_is_taken_whole(shared: House) -> None:
    batch = [{"type": "page", "anonymousId": "many"}] * 2_500
    answer = shared.post("/v1/batch", {"batch": batch}, SERVER_KEY)
    assert answer.json() == {"success": True, "accepted": 2_500, "rejected": 0}
    assert sum(record.key == b"many" for record in shared.records()) == 2_500


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/x/y", "/api/s/dance", "/v2/track"])
def test_no_such_path(shared: House, path: str) -> None:
    answer = shared.post(path, BASIC)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_only_post(shared: House) -> None:
    answer = requests.get(f"{shared.url}/v1/track", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def test_a_user_nobody_vouches_for_is_only_a_claim(shared: House) -> None:
    shared.post("/v1/identify", {"anonymousId": "guest", "userId": "ann", "traits": {"a": 1}})
    event = last(shared)
    assert (event["anonymousId"], event["userId"]) == ("guest", None)
    assert event["context"]["attimo"]["claimedUserId"] == "ann"
    shared.post("/v1/alias", {"anonymousId": "guest", "userId": "ann", "previousId": "someone-else"})
    event = last(shared)
    assert (event["userId"], event["previousId"]) == (None, None)


@pytest.mark.parametrize("name", ["user_hash", "userHash"])
def test_the_shop_vouches_for_a_user(shared: House, name: str) -> None:
    context, browser = {name: user_hash(SECRET, "ann")}, requests.Session()
    shared.post("/v1/identify", {"anonymousId": name, "userId": "ann", "context": context}, session=browser)
    event = last(shared)
    assert (event["userId"], event["context"]) == ("ann", {"attimo": {"device": "desktop"}})
    assert any(record.key == b"ann" for record in shared.records("people"))
    shared.post("/v1/identify", {"anonymousId": name, "userId": "bob", "context": context}, session=browser)
    assert last(shared)["userId"] is None
    alias = {"anonymousId": name, "userId": "ann", "context": context}
    shared.post("/v1/alias", {**alias, "previousId": "victim"}, session=browser)
    assert last(shared)["previousId"] is None
    shared.post("/v1/alias", {**alias, "previousId": name}, session=browser)
    assert last(shared)["previousId"] == name


def test_the_server_key_is_believed(shared: House) -> None:
    context = {"ip": "8.8.8.8", "attimo": {"device": "mobile", "offline": True}}
    shared.post("/v1/track", {"event": "Order Completed", "userId": 42, "context": context}, SERVER_KEY)
    event = last(shared)
    assert (event["userId"], event["context"]) == (
        "42", {"attimo": {"country": "US", "offline": True, "device": "mobile"}})


def test_a_browser_says_nothing_about_itself_that_counts(shared: House) -> None:
    lies = {"country": "CA", "device": "tv", "bot": True, "claimedUserId": "x", "offline": True}
    shared.post("/v1/track", {**BASIC, "context": {"ip": "8.8.8.8", "attimo": lies}})
    assert last(shared)["context"] == {"attimo": {"device": "desktop"}}


def test_the_demo_may_pretend_a_country(redis: str, tmp_path: Path) -> None:
    with house(tmp_path, redis, demo=True) as running:
        running.post("/v1/track", {**BASIC, "context": {"attimo": {"country": "CA"}}})
        assert last(running)["context"]["attimo"]["country"] == "CA"
        answer = running.post("/v1/track", {**BASIC, "context": {"attimo": {"country": "Canada"}}})
        assert answer.json()["field"] == "context.attimo.country"


@pytest.mark.parametrize(("trust", "country"), [(True, "US"), (False, None)])
def test_the_address_becomes_a_country_and_is_never_written(
    redis: str, tmp_path: Path, trust: bool, country: str | None
) -> None:
    with house(tmp_path, redis, trust_proxy=trust) as running:
        running.post("/v1/track", BASIC, headers={"X-Forwarded-For": "200.1.2.3, 8.8.8.8"})
        assert last(running)["context"]["attimo"].get("country") == country
        assert b"8.8.8.8" not in running.records()[0].value
        assert b"127.0.0.1" not in running.records()[0].value


def test_bots_are_marked(shared: House) -> None:
    shared.post("/v1/track", BASIC, headers={"User-Agent": "Mozilla/5.0 (compatible; Unheard/1.0; +http://x.example)"})
    assert last(shared)["context"]["attimo"] == {"device": "bot", "bot": True}
    said = {"userAgent": CHROME, "userAgentData": {"mobile": True}}
    shared.post("/v1/track", {**BASIC, "context": said}, headers={"User-Agent": "analytics-python/2"})
    assert last(shared)["context"]["attimo"] == {"device": "mobile"}


def test_the_clock_of_the_client_is_corrected(shared: House) -> None:
    off = timedelta(hours=3)  # its clock is three hours fast; the event was a minute before it was sent
    sent = datetime.now(UTC) + off
    body = {**BASIC, "originalTimestamp": (sent - timedelta(minutes=1)).isoformat(), "sentAt": sent.isoformat()}
    shared.post("/v1/track", body)
    event = last(shared)
    stamp, received = (datetime.fromisoformat(event[name]) for name in ("timestamp", "receivedAt"))
    assert timedelta(minutes=1) <= received - stamp < timedelta(minutes=1, seconds=10)
    assert "sentAt" not in event


def test_the_clock_of_the_client_is_corrected_in_a_batch(shared: House) -> None:
    """What the pixel and Segment's clients send: one `sentAt` for all. An event's own says nothing beside it."""
    off = timedelta(hours=3)
    sent = datetime.now(UTC) - off
    minutes = (1, 30, 90)
    batch = [{**BASIC, "type": "track", "messageId": f"skewed-{n}", "sentAt": ago(hours=9),
              "originalTimestamp": (sent - timedelta(minutes=n)).isoformat()} for n in minutes]
    assert shared.post("/v1/batch", {"batch": batch, "sentAt": sent.isoformat()}).json()["accepted"] == 3
    found = {event["messageId"]: event for event in shared.events()}
    for n in minutes:
        stamp, received = (datetime.fromisoformat(found[f"skewed-{n}"][name]) for name in ("timestamp", "receivedAt"))
        assert timedelta(minutes=n) <= received - stamp < timedelta(minutes=n, seconds=20)
    answer = shared.post("/v1/batch", {"batch": batch, "sentAt": "yesterday"})
    assert (answer.status_code, answer.json()["field"]) == (400, "sentAt")


def test_never_in_the_future(shared: House) -> None:
    shared.post("/v1/track", {**BASIC, "timestamp": ago(hours=-5)})
    event = last(shared)
    assert event["timestamp"] == event["receivedAt"]


def test_a_missing_message_id_is_made_of_the_payload(shared: House) -> None:
    body = {**BASIC, "timestamp": ago(minutes=5)}
    ids = []
    for sent in (ago(seconds=9), ago(seconds=1)):
        shared.post("/v1/track", {**body, "sentAt": sent})
        ids.append(last(shared)["messageId"])
    assert ids[0] == ids[1]
    shared.post("/v1/track", {**body, "properties": {"x": 2}})
    assert last(shared)["messageId"] != ids[0]


def test_the_same_call_makes_the_same_bytes() -> None:
    caller = wire.Caller(received_at=1_760_000_000_000)
    item = {"event": "x", "anonymousId": "a", "messageId": "m", "context": {"locale": "en", "ip": "1.2.3.4"},
            "timestamp": "2025-10-09T08:00:00.000Z", "properties": {"b": 1, "a": 2}, "_metadata": {}, "writeKey": "k"}
    mixed = dict(reversed(item.items()))
    assert wire.canonical(item, "track", caller).value == wire.canonical(mixed, "track", caller).value == (
        b'{"type":"track","event":"x","messageId":"m","anonymousId":"a","userId":null,'
        b'"timestamp":"2025-10-09T08:00:00.000Z","originalTimestamp":"2025-10-09T08:00:00.000Z",'
        b'"receivedAt":"2025-10-09T08:53:20.000Z","properties":{"b":1,"a":2},'
        b'"context":{"locale":"en","attimo":{}}}')


def test_rejects_keep_no_secret_and_no_name() -> None:
    raw = reject.evidence({"writeKey": "k", "traits": {"email": "a@b.example"}, "event": 7,
                         "context": {"ip": "1.2.3.4", "user_hash": "h", "traits": {"phone": "1"}, "locale": "en"}})
    assert orjson.loads(raw) == {"event": 7, "context": {"locale": "en"}}


def test_the_gif(shared: House) -> None:
    params = {"writeKey": WRITE_KEY, "event": "Message Opened", "userId": "ann", "user_hash": user_hash(SECRET, "ann"),
              "p_message_id": "m-1"}
    answer = requests.get(f"{shared.url}/v1/pixel.gif", params=params, headers={"User-Agent": CHROME}, timeout=10)
    assert (answer.status_code, answer.headers["content-type"], answer.headers["cache-control"]) == (
        200, "image/gif", "no-store")
    assert answer.content.startswith(b"GIF89a")
    event = last(shared)
    assert (event["event"], event["userId"], event["properties"]) == ("Message Opened", "ann", {"message_id": "m-1"})
    page = {"writeKey": WRITE_KEY, "anonymousId": "noscript"}
    requests.get(f"{shared.url}/v1/pixel.gif", params=page, headers={"Referer": "http://shop.example/p"}, timeout=10)
    event = last(shared)
    assert (event["type"], event["context"]["page"]["url"]) == ("page", "http://shop.example/p")
    for wrong, status in (({"event": "x"}, 401), ({"writeKey": WRITE_KEY, "event": "x"}, 400),
                          ({"writeKey": SERVER_KEY, "event": "x", "userId": "a"}, 400)):
        answer = requests.get(f"{shared.url}/v1/pixel.gif", params=wrong, timeout=10)
        assert answer.status_code == status
        assert answer.json()["success"] is False


@pytest.mark.parametrize(("agent", "seen"), [
    ("Mozilla/5.0", {}),
    ("Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)", {}),
    ("python-requests/2.32", {"device": "bot", "bot": True, "image": True}), (CHROME, {"device": "desktop"})])
def test_who_loads_the_gif(shared: House, agent: str, seen: dict[str, Any]) -> None:
    for params in ({"event": "Message Opened"}, {}):
        requests.get(f"{shared.url}/v1/pixel.gif", params={"writeKey": WRITE_KEY, "anonymousId": "reader", **params},
                     headers={"User-Agent": agent}, timeout=10)
        assert last(shared)["context"]["attimo"] == seen


def test_the_country_of_a_mail_proxy_is_not_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.geo.country", lambda address: "US")
    for agent, seen in (("Mozilla/5.0", {}), (CHROME, {"country": "US", "device": "desktop"})):
        caller = reading(wire.Caller(1_760_000_000_000, address="203.0.113.9", user_agent=agent))
        event = orjson.loads(wire.canonical({"anonymousId": "a"}, "page", caller).value)
        assert event["context"]["attimo"] == seen


def test_cross_origin(shared: House) -> None:
    preflight = requests.options(f"{shared.url}/v1/t", timeout=10, headers={
        "Origin": "https://shop.example", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type"})
    assert preflight.status_code == 204
    allowed = preflight.headers["access-control-allow-headers"]
    assert {"authorization", "content-type", "anonymousid", "x-write-key", "x-retry-count"} <= set(allowed.split(", "))
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert preflight.headers["access-control-max-age"]
    answer = shared.post("/v1/t", BASIC, headers={"Origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    for foreign in ("https://evil.example", "null", "https://shop.example.evil.example"):
        preflight = requests.options(f"{shared.url}/v1/t", timeout=10, headers={"Origin": foreign})
        assert "access-control-allow-origin" not in preflight.headers
        answer = shared.post("/v1/t", BASIC, headers={"Origin": foreign})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert shared.post("/v1/t", BASIC, headers={"Origin": shared.url}).status_code == 200


def test_configuration_for_clients(shared: House) -> None:
    found = requests.get(f"{shared.url}/v1/projects/{WRITE_KEY}/settings", timeout=10).json()
    host = shared.url.removeprefix("http://")
    assert found["integrations"]["Segment.io"] == {"apiKey": WRITE_KEY, "apiHost": f"{host}/v1", "protocol": "http"}
    assert requests.get(f"{shared.url}/v1/projects/wrong/settings", timeout=10).status_code == 404
    coded = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
    for more in ({"params": {"writeKey": WRITE_KEY}}, {"headers": {"Authorization": f"Basic {coded}"}}):
        found = requests.get(f"{shared.url}/sourceConfig/", timeout=10, **more).json()  # type: ignore[arg-type]  # two kinds
        assert found["source"]["writeKey"] == WRITE_KEY


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For limits: on a busy machine more than a second may lie between two calls, and then one more is let in."""
    monkeypatch.setattr("connectors.collector.time", SimpleNamespace(monotonic=lambda: 0.0, time_ns=time.time_ns))


@pytest.mark.usefixtures("no_time_passes")
def test_rate_limits(redis: str, tmp_path: Path) -> None:
    with house(tmp_path, redis, rate_per_key=1) as running:  # a burst of 2,500, then one a second
        batch = {"batch": [{"type": "page", "anonymousId": "a"}] * 2_500}
        assert running.post("/v1/batch", batch).status_code == 200
        answer = running.post("/v1/batch", batch)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
        assert int(answer.headers["retry-after"]) >= 1
        assert len(running.records()) == 2_500
        assert running.post("/v1/track", {**BASIC, "userId": "u"}, SERVER_KEY).status_code == 200


@pytest.mark.usefixtures("no_time_passes")
def test_a_key_has_a_limit_however_many_addresses_use_it(redis: str, tmp_path: Path) -> None:
    """A network may send 2,500 at once here, and so may a key: from a second network only the key can refuse."""
    with house(tmp_path, redis, rate_per_key=1, trust_proxy=True) as running:
        def post(body: Any, network: int, key: str = WRITE_KEY) -> requests.Response:
            path = "/v1/batch" if "batch" in body else "/v1/track"
            return running.post(path, body, key, headers={"X-Forwarded-For": f"203.0.{network}.9"})

        batch = {"batch": [{"type": "page", "anonymousId": "a"}] * 2_500}
        assert post(batch, 1).status_code == 200
        answer = post(BASIC, 2)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
        assert int(answer.headers["retry-after"]) >= 1
        gif = requests.get(f"{running.url}/v1/pixel.gif", timeout=10, headers={"X-Forwarded-For": "203.0.3.9"},
                           params={"writeKey": WRITE_KEY, "anonymousId": "a"})
        assert gif.status_code == 429
        assert len(running.records()) == 2_500, "what is refused is not kept"
        assert post(batch, 4, SERVER_KEY).status_code == 200, "the shop's servers have a limit of their own"
        assert post({**BASIC, "userId": "u"}, 5, SERVER_KEY).status_code == 429


def test_without_redis_events_are_accepted_and_nobody_is_bound(tmp_path: Path) -> None:
    with house(tmp_path, f"unix://{tmp_path}/nobody") as running:
        answer = running.post("/v1/track", BASIC)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert len(running.records()) == 1


def test_killed_after_the_append_and_sent_again(redis: str, tmp_path: Path) -> None:
    """The log has it, nobody was told; the retry carries the same message id."""
    program = (
        "import sys; from domain.settings import Settings; from connectors.edge import serve\n"
        "s = Settings(data=sys.argv[1], redis=sys.argv[2], port=int(sys.argv[3]), secret='s', metrics_port=0)\n"
        "serve(s)\n")
    from connectors.log_sqlite import SqliteLog
    from tests.support import free_port

    port = free_port()
    body = orjson.dumps({**BASIC, "writeKey": WRITE_KEY, "timestamp": "2026-01-01T00:00:00Z"})
    for crash, ends in (({"ATTIMO_CRASH_AT": "collector:after_append"}, 137), ({}, 0)):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), redis, str(port)], cwd=ROOT,
                                   env={"PATH": "", "PYTHONPATH": str(ROOT), **crash})
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


def test_traits_of_rudderstack_clients_are_found_in_the_context(shared: House) -> None:
    shared.post("/v1/identify", {"userId": "ann", "context": {"traits": {"plan": "gold"}}}, SERVER_KEY)
    event = last(shared)
    assert event["traits"] == {"plan": "gold"}
    assert "traits" not in event["context"]
    shared.post("/v1/track", {**BASIC, "context": {"traits": {"email": "a@b.example"}}})
    assert b"a@b.example" not in orjson.dumps(last(shared))


def test_secrets_are_needed_and_differ(tmp_path: Path) -> None:
    from connectors.edge import Edge
    from connectors.log_sqlite import SqliteLog
    from domain.settings import Settings

    with pytest.raises(ValueError, match="secret"):
        Edge(Settings(), lambda: SqliteLog(tmp_path))
    with pytest.raises(ValueError, match="server_key"):
        Edge(Settings(secret="s", server_key="same", write_key="same"), lambda: SqliteLog(tmp_path))


