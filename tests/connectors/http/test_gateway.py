"""The gateway: who may listen, what a listener is given, and what happens when Redis goes away."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import msgspec
import orjson
import pytest
import redis as redis_client
import requests

from connectors import metrics
from connectors.http import browser_binding
from connectors.http.browser_binding import COOKIE_MAX_AGE, COOKIE_NAME, Binding, bound_key, user_hash
from connectors.http.gateway import MAX_QUEUED_EVENTS, SseConnection
from connectors.playbook import status
from domain.action import cache_ready_key, preloaded_key, pubsub_channel
from domain.diagnostics import Diagnostic, PlaybookStatus
from domain.model import Model, ModelQuality, encode_model
from domain.record import MIN_MISROUTED_RECORDS, MODELS, NewRecord, describe_misrouted
from tests.harness.http_server import CHROME, SECRET, RunningServer, running_server
from tests.harness.support import free_port, redis_binary, redis_server

pytestmark = pytest.mark.redis
SHOP = "demo"


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def server(redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("edge"), redis) as running:
        yield running


@pytest.fixture(scope="module")
def redis_connection(redis: str) -> Iterator["redis_client.Redis"]:
    with redis_client.Redis.from_url(redis) as client:
        yield client


def now() -> int:
    return time.time_ns() // 1_000_000


def action(
    name: str, campaign: str = "exit", kind: str = "preload", at: int | None = None, lasts: int = 60_000
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "id": name, "at": now() if at is None else at, "campaign": campaign, "v": 1}
    if kind != "cancel":
        found |= {"not_after": now() + lasts, "expires_in_ms": 99, "format": "popup", "content": {"title": name}}
    return found


def wait_until(condition: Callable[[], bool], description: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, description
        time.sleep(0.01)


def lines(answer: requests.Response) -> Iterator[str]:
    return (line.decode() for line in answer.iter_lines(chunk_size=1))


class BrowserClient:
    """A visitor's browser: its cookies, and the stream it listens to."""

    def __init__(self, server: RunningServer, anonymous_id: str) -> None:
        self.server, self.anonymous_id = server, anonymous_id
        self.session = requests.Session()
        self.session.headers["User-Agent"] = CHROME
        self.received: Queue[tuple[str, Any]] = Queue()
        self._open: requests.Response | None = None
        self.ended = threading.Event()

    def send_page(self) -> requests.Response:
        return self.server.post("/v1/page", {"anonymousId": self.anonymous_id}, session=self.session)

    def request_token(self, anonymous_id: str | None = None) -> requests.Response:
        return self.server.post(
            "/v1/stream/token", {"anonymousId": anonymous_id or self.anonymous_id}, None, session=self.session
        )

    def open_stream(self, token: str) -> requests.Response:
        return self.session.get(f"{self.server.url}/v1/stream", params={"token": token}, stream=True, timeout=30)

    def listen(self) -> "BrowserClient":
        self._open = self.open_stream(self.request_token().json()["token"])
        assert self._open.status_code == 200
        threading.Thread(target=self._read, args=(self._open,), daemon=True).start()
        return self

    def _read(self, answer: requests.Response) -> None:
        name = ""
        try:
            for line in lines(answer):
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    self.received.put((name, json.loads(line[6:])))
        except (requests.RequestException, AttributeError, ValueError):
            pass  # closed from either side
        self.ended.set()

    def next_message(self) -> tuple[str, Any]:
        return self.received.get(timeout=20)

    def close(self) -> None:
        if self._open is not None:
            if not self.ended.is_set():
                self._open.raw.shutdown()  # wakes the reading thread
            self.ended.wait(20)
            self._open.close()


@pytest.fixture
def bound_client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[BrowserClient]:
    browser = BrowserClient(server, f"visitor-{request.node.name}")
    browser.send_page()
    yield browser
    browser.close()


# -- whose history it is -------------------------------------------------------------------------------------------


def test_login_cannot_claim_another_browsers_history(server: RunningServer, bound_client: BrowserClient) -> None:
    thief = BrowserClient(server, "thief")
    thief.send_page()
    known = {
        "userId": "eve",
        "context": {"userHash": user_hash(SECRET, "eve")},
        "anonymousId": bound_client.anonymous_id,
    }
    assert thief.server.post("/v1/identify", {**known, "messageId": "stolen"}, session=thief.session).status_code == 200
    alias = {**known, "previousId": bound_client.anonymous_id, "messageId": "stolen-alias"}
    assert thief.server.post("/v1/alias", alias, session=thief.session).status_code == 200
    mine = {**known, "anonymousId": "thief", "messageId": "own"}
    assert thief.server.post("/v1/identify", mine, session=thief.session).status_code == 200
    events = {event["messageId"]: event for event in server.events() if event.get("userId") == "eve"}
    assert [events[name].get("anonymousId") for name in ("stolen", "stolen-alias", "own")] == [None, None, "thief"]
    assert events["stolen-alias"].get("previousId") is None


# -- who may listen ------------------------------------------------------------------------------------------------


def test_first_browser_with_an_id_is_bound(server: RunningServer, redis_connection: "redis_client.Redis") -> None:
    browser = BrowserClient(server, "first")
    cookie = browser.send_page().headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    nonce = browser_binding.read_cookie(SECRET, SHOP, browser.session.cookies[COOKIE_NAME] or "")
    assert nonce is not None
    assert redis_connection.get(bound_key(SHOP, "first")) == browser_binding.nonce_hash(nonce.nonce).encode()
    assert "set-cookie" not in browser.send_page().headers
    assert browser.request_token().json()["expires_in"] == 300


def test_cookie_is_secure_on_https(redis: str, tmp_path: Path) -> None:
    with running_server(tmp_path, redis, trust_proxy=True) as running:
        answer = running.post("/v1/page", {"anonymousId": "tls"}, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_second_browser_with_the_same_id_is_not_bound(server: RunningServer, bound_client: BrowserClient) -> None:
    thief = BrowserClient(server, bound_client.anonymous_id)
    assert "set-cookie" not in thief.send_page().headers
    answer = thief.request_token()
    assert (answer.status_code, answer.json()["code"]) == (403, "not_bound")


def test_binding_survives_a_restart(redis: str, tmp_path: Path) -> None:
    for wanted in (True, False):
        with running_server(tmp_path, redis) as running:
            assert ("set-cookie" in BrowserClient(running, "durable").send_page().headers) is wanted


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"User-Agent": "curl/8.0"}, {"User-Agent": ""}])
def test_client_without_cookies_is_not_bound(server: RunningServer, headers: dict[str, str]) -> None:
    call = {"anonymousId": "kept-free"}
    assert "set-cookie" not in server.post("/v1/page", call, headers=headers).headers
    assert "set-cookie" not in server.post("/v1/page", call, server.settings.server_key).headers


def test_unbound_id_can_be_bound_later(server: RunningServer) -> None:
    assert "set-cookie" in server.post("/v1/page", {"anonymousId": "kept-free-2"}).headers


def test_last_id_of_a_batch_is_bound_unless_too_many(server: RunningServer) -> None:
    browser = BrowserClient(server, "after-sign-out")
    batch = [{"type": "page", "anonymousId": one} for one in ("before-sign-out", "after-sign-out")]
    server.post("/v1/batch", {"batch": batch}, session=browser.session)
    assert browser.request_token().status_code == 200
    batch = [{"type": "page", "anonymousId": f"relayed-{n}"} for n in range(4)]
    assert "set-cookie" not in server.post("/v1/batch", {"batch": batch}).headers


def test_no_token_for_another_id(server: RunningServer, bound_client: BrowserClient) -> None:
    known = bound_client.request_token("after-sign-out")
    unknown = bound_client.request_token("never-seen")
    nobody = requests.post(f"{server.url}/v1/stream/token", json={"anonymousId": bound_client.anonymous_id}, timeout=10)
    assert [answer.status_code for answer in (known, unknown, nobody)] == [403, 403, 403]
    assert known.content == unknown.content == nobody.content  # who else exists is nobody's business


def test_token_request_renews_the_binding(bound_client: BrowserClient, redis_connection: "redis_client.Redis") -> None:
    """A cookie that is nearly over in Redis, or that an empty Redis has forgotten, is as good as new."""
    key = bound_key(SHOP, bound_client.anonymous_id)
    kept = redis_connection.get(key)
    redis_connection.expire(key, 60)
    assert bound_client.request_token().status_code == 200
    assert redis_connection.ttl(key) > COOKIE_MAX_AGE - 60
    redis_connection.delete(key)
    assert bound_client.request_token().status_code == 200
    assert redis_connection.get(key) == kept
    assert redis_connection.ttl(key) > COOKIE_MAX_AGE - 60
    redis_connection.set(key, "somebody else's", ex=60)
    assert bound_client.request_token().status_code == 200
    assert redis_connection.get(key) == b"somebody else's", "what is bound to another is not taken from them"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"anonymousId":7}', b'{"anonymousId":""}', b"\xff"])
def test_invalid_token_request_is_rejected(server: RunningServer, body: bytes) -> None:
    answer = server.post("/v1/stream/token", body, None)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid"


def test_oversized_token_request_is_rejected(server: RunningServer) -> None:
    assert server.post("/v1/stream/token", b"x" * 10_000, None).status_code == 413


def forged_tokens(visitor: BrowserClient) -> list[str]:
    token = visitor.request_token().json()["token"]
    head, who, expires, signature = token.split(".")
    owner = browser_binding.read_cookie(SECRET, SHOP, visitor.session.cookies[COOKIE_NAME] or "")
    assert owner is not None
    return [
        "",
        "x",
        "v1...",
        "v1.a.b.c",
        "\0",
        "é" * 50,
        "x" * 5_000,
        f"{head}.{who}.{int(expires) + 1}.{signature}",  # longer than it was given
        f"{head}.YmFk.{expires}.{signature}",  # somebody else's
        token[:-2],
        token.replace("v1", "v2"),
        browser_binding.stream_token(SECRET, SHOP, owner, now() - 301_000),  # expired
        browser_binding.stream_token("another secret", SHOP, owner, now()),
        browser_binding.stream_token(SECRET, "another shop", owner, now()),
        browser_binding.stream_token(SECRET, SHOP, Binding(owner.anonymous_id, "another nonce"), now()),
        visitor.session.cookies[COOKIE_NAME] or "",
    ]


def test_forged_and_expired_tokens_are_rejected(bound_client: BrowserClient) -> None:
    for token in forged_tokens(bound_client):
        answer = bound_client.open_stream(token)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_bound"), token


def test_token_requires_the_cookie(server: RunningServer, bound_client: BrowserClient) -> None:
    token = bound_client.request_token().json()["token"]
    assert requests.get(f"{server.url}/v1/stream", params={"token": token}, timeout=10).status_code == 403
    thief = BrowserClient(server, "thief")
    thief.send_page()
    assert thief.open_stream(token).status_code == 403


@pytest.mark.parametrize("cookie", ["", "x", "v1.a.b.c", "v1.YTE.nonce.", "é", '"', "v1." + "A" * 5_000])
def test_forged_cookie_is_rejected(server: RunningServer, cookie: str) -> None:
    answer = server.post(
        "/v1/stream/token",
        {"anonymousId": "a1"},
        None,
        headers={"Cookie": f"other=a b{{c}}; {COOKIE_NAME}={cookie}".encode()},
    )
    assert answer.status_code == 403


def test_cookie_is_read_beside_malformed_cookies(server: RunningServer, bound_client: BrowserClient) -> None:
    cookie = f'strange={{"a":"b,c"}}; {COOKIE_NAME}={bound_client.session.cookies[COOKIE_NAME]}; x=y'
    answer = server.post(
        "/v1/stream/token", {"anonymousId": bound_client.anonymous_id}, None, headers={"Cookie": cookie}
    )
    assert answer.status_code == 200


# -- who takes it back ---------------------------------------------------------------------------------------------


def consent_call(anonymous_id: str, analytics: Any = False) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Consent Updated",
        "anonymousId": anonymous_id,
        "properties": {"analytics": analytics, "marketing": False},
    }


def set_cookie_after(browser: BrowserClient, *calls: dict[str, Any]) -> str:
    """The cookie that is set in answer to a batch."""
    return browser.server.post("/v1/batch", {"batch": calls}, session=browser.session).headers.get("set-cookie", "")


def test_analytics_withdrawal_removes_the_binding(
    bound_client: BrowserClient, redis_connection: "redis_client.Redis"
) -> None:
    who = bound_client.anonymous_id
    held = bound_client.session.cookies[COOKIE_NAME]
    assert redis_connection.exists(bound_key(SHOP, who))
    for no_withdrawal in (
        consent_call(who, True),
        consent_call(who, "false"),
        consent_call(who, None),
        {**consent_call(who), "type": "identify"},
        {**consent_call(who), "event": "Consent Asked"},
    ):
        assert set_cookie_after(bound_client, no_withdrawal) == ""
    cookie = set_cookie_after(bound_client, consent_call(who))
    assert cookie == f"{COOKIE_NAME}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
    assert not redis_connection.exists(bound_key(SHOP, who))
    assert COOKIE_NAME not in bound_client.session.cookies
    assert bound_client.request_token().status_code == 403
    heir = BrowserClient(bound_client.server, who)
    assert COOKIE_NAME in heir.send_page().headers["set-cookie"]  # nobody was bound
    bound_client.session.headers["Cookie"] = f"{COOKIE_NAME}={held}"  # kept in spite of all
    set_cookie_after(bound_client, consent_call(who))
    assert heir.request_token().status_code == 200
    assert redis_connection.exists(bound_key(SHOP, who))


def test_withdrawal_requires_the_bound_browser(
    bound_client: BrowserClient, redis_connection: "redis_client.Redis"
) -> None:
    stranger = BrowserClient(bound_client.server, "stranger")
    stranger.send_page()
    for who in (bound_client.anonymous_id, "nobody-in-particular"):
        assert "Max-Age=0" in set_cookie_after(stranger, consent_call(who))
        stranger.session.cookies.clear()
    assert redis_connection.exists(bound_key(SHOP, bound_client.anonymous_id), bound_key(SHOP, "stranger")) == 2
    assert bound_client.request_token().status_code == 200
    answer = bound_client.server.post(
        "/v1/track", consent_call(bound_client.anonymous_id), bound_client.server.settings.server_key
    )
    assert "set-cookie" not in answer.headers, "a server has no cookie"


def test_withdrawal_inside_a_batch(bound_client: BrowserClient, redis_connection: "redis_client.Redis") -> None:
    who, page = bound_client.anonymous_id, {"type": "page"}
    before, after = {**page, "anonymousId": f"{who}-before"}, {**page, "anonymousId": f"{who}-after"}
    assert set_cookie_after(bound_client, consent_call(who), consent_call(who, True)) == "", "the last word counts"
    assert "Max-Age=0" in set_cookie_after(bound_client, before, {**page, "anonymousId": who}, consent_call(who))
    assert not redis_connection.exists(bound_key(SHOP, who), bound_key(SHOP, f"{who}-before"))
    new = set_cookie_after(bound_client, consent_call(who), after)  # withdrawn, and agreed anew under a new id
    assert COOKIE_NAME in new
    assert "Max-Age=0" not in new
    assert redis_connection.exists(bound_key(SHOP, f"{who}-after"))


# -- what a listener is given --------------------------------------------------------------------------------------


def push_preload(publisher: "redis_client.Redis", anonymous_id: str, found: dict[str, Any]) -> None:
    """What the publisher of the engine does."""
    with publisher.pipeline() as pipe:
        if found["type"] == "cancel":
            pipe.hdel(preloaded_key(SHOP, anonymous_id), found["campaign"])
        else:
            pipe.hset(preloaded_key(SHOP, anonymous_id), found["campaign"], orjson.dumps(found))
        pipe.publish(pubsub_channel(SHOP, anonymous_id), orjson.dumps(found))
        pipe.execute()


def test_stream_starts_with_the_snapshot(bound_client: BrowserClient, redis_connection: "redis_client.Redis") -> None:
    who = bound_client.anonymous_id
    push_preload(redis_connection, who, action("old", "one"))
    push_preload(redis_connection, who, action("stale", "two", lasts=-1))
    answer = bound_client.open_stream(bound_client.request_token().json()["token"])
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    answer.close()
    bound_client.listen()
    name, snapshot = bound_client.next_message()
    assert (name, [one["id"] for one in snapshot]) == ("snapshot", ["old"])
    assert 50_000 < snapshot[0]["expires_in_ms"] <= 60_000  # as of now, not as it was published
    for found in (action("new", "three"), action("now", "four", "send"), action("gone", "three", "cancel", now() + 1)):
        push_preload(redis_connection, who, found)
    assert [
        (name, data["id"])
        for name, data in (bound_client.next_message(), bound_client.next_message(), bound_client.next_message())
    ] == [("preload", "new"), ("send", "now"), ("cancel", "gone")]


def test_snapshot_waits_until_the_cache_is_rebuilt(
    bound_client: BrowserClient, redis_connection: "redis_client.Redis"
) -> None:
    """A browser that was told of an empty set at once would let go of what it holds, and never hear of it again."""
    redis_connection.delete(cache_ready_key(SHOP))
    try:
        bound_client.listen()
        with pytest.raises(Empty):
            bound_client.received.get(timeout=0.3)
        redis_connection.hset(
            preloaded_key(SHOP, bound_client.anonymous_id), "one", orjson.dumps(action("kept", "one"))
        )
    finally:
        redis_connection.set(cache_ready_key(SHOP), 1)
    name, snapshot = bound_client.next_message()
    assert (name, [one["id"] for one in snapshot]) == ("snapshot", ["kept"])


def test_each_action_is_sent_once_and_never_stale(
    bound_client: BrowserClient, redis_connection: "redis_client.Redis"
) -> None:
    who = bound_client.anonymous_id
    found = action("known", "one")
    push_preload(redis_connection, who, found)
    bound_client.listen()
    assert bound_client.next_message()[0] == "snapshot"
    push_preload(redis_connection, who, found)  # sent again after a crash
    push_preload(redis_connection, who, action("late", "two", lasts=-1))
    redis_connection.publish(pubsub_channel(SHOP, who), b"nonsense")
    redis_connection.publish(pubsub_channel(SHOP, who), b'{"type":"send","id":"no-end"}')
    redis_connection.publish(pubsub_channel(SHOP, who), b'{"type":"dance","id":"x","not_after":99999999999999}')
    push_preload(redis_connection, who, action("first", "three"))
    push_preload(redis_connection, who, action("first", "three"))
    push_preload(redis_connection, who, action("second", "four"))
    assert [bound_client.next_message()[1]["id"] for _ in range(2)] == ["first", "second"]


def test_actions_reach_only_their_own_browser(server: RunningServer, redis_connection: "redis_client.Redis") -> None:
    both = [BrowserClient(server, "ann"), BrowserClient(server, "bob")]
    for browser in both:
        browser.send_page()
        assert browser.listen().next_message()[0] == "snapshot"
    push_preload(redis_connection, "ann", action("for-ann"))
    push_preload(redis_connection, "bob", action("for-bob"))
    assert [browser.next_message()[1]["id"] for browser in both] == ["for-ann", "for-bob"]
    assert all(browser.received.empty() for browser in both)
    for browser in both:
        browser.close()


def test_tabs_share_a_subscription_until_the_last_closes(
    bound_client: BrowserClient, redis_connection: "redis_client.Redis"
) -> None:
    name = pubsub_channel(SHOP, bound_client.anonymous_id)
    bound_client.listen()
    assert bound_client.next_message()[0] == "snapshot"
    tab = BrowserClient(bound_client.server, bound_client.anonymous_id)
    tab.session.cookies.update(bound_client.session.cookies)
    assert tab.listen().next_message()[0] == "snapshot"
    push_preload(redis_connection, bound_client.anonymous_id, action("both"))
    assert bound_client.next_message()[1]["id"] == tab.next_message()[1]["id"] == "both"
    assert redis_connection.pubsub_numsub(name) == [(name.encode(), 1)]
    tab.close()
    push_preload(redis_connection, bound_client.anonymous_id, action("one"))
    assert bound_client.next_message()[1]["id"] == "one"
    bound_client.close()
    wait_until(lambda: redis_connection.pubsub_numsub(name) == [(name.encode(), 0)], "the gateway unsubscribes")


def test_too_many_streams_are_rejected(bound_client: BrowserClient) -> None:
    token = bound_client.request_token().json()["token"]
    tabs = [bound_client.open_stream(token) for _ in range(17)]
    assert [tab.status_code for tab in tabs] == [200] * 16 + [429]
    for tab in tabs:
        tab.close()


def test_stream_survives_a_redis_outage(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def start() -> subprocess.Popen[bytes]:
        path.unlink(missing_ok=True)
        server = subprocess.Popen(
            [redis_binary(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )
        wait_until(path.exists, "Redis starts")
        return server

    server = start()
    try:
        with running_server(tmp_path / "data", f"unix://{path}") as running:
            browser = BrowserClient(running, "patient")
            browser.send_page()
            with redis_client.Redis(unix_socket_path=str(path)) as client:
                push_preload(client, "patient", action("before", "one"))
            assert [one["id"] for one in browser.listen().next_message()[1]] == ["before"]
            server.kill()
            server.wait()
            wait_until(
                lambda: not requests.get(f"{running.url}/healthz", timeout=10).json()["redis"], "the loss is seen"
            )
            assert running.post("/v1/page", {"anonymousId": "patient"}).status_code == 200
            server = start()
            with redis_client.Redis(unix_socket_path=str(path)) as client:
                client.set(cache_ready_key(SHOP), 1)
                push_preload(client, "patient", action("meanwhile", "two"))  # heard, or found in the snapshot
                seen: list[str] = []
                while "meanwhile" not in seen:
                    name, data = browser.next_message()
                    seen += [one["id"] for one in data] if name == "snapshot" else [data["id"]]
                push_preload(client, "patient", action("after", "three"))
                while "after" not in seen:
                    name, data = browser.next_message()
                    seen += [one["id"] for one in data] if name == "snapshot" else [data["id"]]
            assert not browser.ended.is_set()
    finally:
        server.kill()
        server.wait()


def test_stream_opened_without_redis_gets_a_late_snapshot(tmp_path: Path) -> None:
    binding = Binding("early", "nonce")
    path = tmp_path / "s"
    with running_server(tmp_path / "data", f"unix://{path}") as running:
        browser = BrowserClient(running, "early")
        browser.session.cookies.set(COOKIE_NAME, browser_binding.cookie_value(SECRET, SHOP, binding))
        browser.listen()
        with pytest.raises(Empty):
            browser.received.get(timeout=0.2)
        server = subprocess.Popen(
            [redis_binary(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(path.exists, "Redis starts")
            with redis_client.Redis(unix_socket_path=str(path)) as client:
                client.set(cache_ready_key(SHOP), 1)
            assert browser.next_message() == ("snapshot", [])
        finally:
            server.kill()
            server.wait()


def test_server_stops_with_open_streams(redis: str, tmp_path: Path) -> None:
    with running_server(tmp_path, redis) as running:
        browser = BrowserClient(running, "listening-on")
        browser.send_page()
        assert browser.listen().next_message()[0] == "snapshot"
    assert browser.ended.wait(20)


# -- one listener --------------------------------------------------------------------------------------------------


def test_slow_browser_is_disconnected() -> None:
    listener = SseConnection("slow")
    assert all(listener.enqueue(b"x") for _ in range(MAX_QUEUED_EVENTS))
    assert not listener.ended.is_set()
    assert not listener.enqueue(b"x")
    assert listener.ended.is_set()


def test_actions_older_than_the_snapshot_are_dropped() -> None:
    listener = SseConnection("a")
    listener.send_snapshot([action("b", "exit", at=20)])
    assert not listener.is_new(action("a", "exit", at=10))
    assert not listener.is_new(action("off", "exit", "cancel", at=20))  # of the one before b
    assert not listener.is_new(action("b", "exit", at=20))
    assert listener.is_new(action("c", "exit", at=21))
    assert listener.is_new(action("off", "exit", "cancel", at=21))
    assert listener.is_new(action("x", "other", at=1))


# -- the live feed and the pages -----------------------------------------------------------------------------------


def test_live_feed_sends_all_kinds_of_lines(server: RunningServer) -> None:
    with requests.get(f"{server.url}/live/feed", stream=True, timeout=30) as answer:
        assert answer.status_code == 200
        said = (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))
        assert next(said)["kind"] == "connected"
        server.post("/v1/track", {"event": "Product Viewed", "anonymousId": "seen", "properties": {"name": "Scarf"}})
        server.post("/v1/track", {"event": 7, "anonymousId": "seen"})
        shown = [next(said), next(said)]
    by_kind = {one["kind"]: one for one in shown}
    assert by_kind["event"].items() >= {"subject": "Product Viewed", "detail": "Scarf", "device": "desktop"}.items()
    assert "seen" not in json.dumps(shown)
    assert by_kind["dead_letter"]["error"] == "event: should be the name of the event"


def model_record(version: int, **more: Any) -> NewRecord:
    quality = ModelQuality(examples=100 * version, positives=7, log_loss=0.25, base_log_loss=0.3, roc_auc=0.75)
    model = Model(kind="propensity", version=version, hash="h", weights={"pages": 1.0}, quality=quality, at=version)
    return NewRecord(MODELS, b"propensity", encode_model(msgspec.structs.replace(model, **more)))


def test_live_feed_reports_the_newest_model(redis: str, tmp_path: Path) -> None:
    with running_server(tmp_path, redis) as running, ExitStack() as watching:

        def watch() -> Iterator[dict[str, Any]]:
            answer = watching.enter_context(requests.get(f"{running.url}/live/feed", stream=True, timeout=30))
            return (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))

        running.log.append([model_record(1), model_record(2)])
        first = watch()
        assert next(first)["kind"] == "connected"
        assert next(first) == {
            "kind": "model",
            "at": 2,
            "version": 2,
            "quality": {
                "examples": 200,
                "positives": 7,
                "log_loss": 0.25,
                "base_log_loss": 0.3,
                "roc_auc": 0.75,
                "drifts": 0,
            },
        }
        running.log.append(
            [model_record(3), model_record(4), model_record(9, kind="another"), NewRecord(MODELS, b"x", b"{")]
        )
        assert next(first)["version"] == 4  # of several at once the last one, and only what it is
        second = watch()
        assert next(second)["version"] == 4
        running.log.append([model_record(5)])
        assert next(first)["version"] == next(second)["version"] == 5


def test_live_feed_reports_playbook_errors(redis: str, tmp_path: Path) -> None:
    with running_server(tmp_path, redis) as running, ExitStack() as watching:

        def watch() -> Iterator[dict[str, Any]]:
            answer = watching.enter_context(requests.get(f"{running.url}/live/feed", stream=True, timeout=30))
            return (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))

        path = status.status_path(running.settings.data)
        first = watch()
        assert next(first)["kind"] == "connected"
        status.write_status(
            path,
            PlaybookStatus.from_errors("shop", [Diagnostic("shop.toml", 2, "", "is wrong")], since=5, live_hash="v"),
        )
        wrong = {
            "kind": "playbook",
            "errors": ["shop.toml, line 2: is wrong"],
            "count": 1,
            "folder": "shop",
            "since": 5,
            "live": "v",
            "live_since": 0,
        }
        assert next(first) == wrong
        assert next(watch()) == wrong, "who comes later is told too"
        status.write_status(path, None)
        assert next(first) == {"kind": "playbook", "errors": []}


def test_live_feed_reports_misrouted_records(redis: str, tmp_path: Path) -> None:
    port = free_port()
    metrics.MISROUTED_RECORDS.inc(MIN_MISROUTED_RECORDS)
    metrics.MISROUTED_RATIO.set(0.5)
    served = metrics.serve_metrics(port)
    assert served
    try:
        with running_server(tmp_path, redis, metrics_port=port - 10) as running, ExitStack() as watching:

            def watch() -> Iterator[dict[str, Any]]:
                answer = watching.enter_context(requests.get(f"{running.url}/live/feed", stream=True, timeout=30))
                return (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))

            first = watch()
            assert next(first)["kind"] == "connected"
            wrong = {"kind": "misrouted", "warning": describe_misrouted(MIN_MISROUTED_RECORDS, 0.5)}
            assert next(first) == wrong
            assert next(watch()) == wrong, "who comes later is told too"
    finally:
        metrics.MISROUTED_RATIO.set(0)
        served[0].shutdown()
        served[0].server_close()
        served[1].join()


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Host": "rebound.example"}, {"Host": ""}],
)
def test_live_feed_is_not_public(server: RunningServer, headers: dict[str, str]) -> None:
    for path in ("/live/feed", "/live"):
        answer = requests.get(server.url + path, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (403, "local_only")


def test_health_and_demo_pages(server: RunningServer, redis: str, tmp_path: Path) -> None:
    assert requests.get(f"{server.url}/healthz", timeout=10).json() == {"ok": True, "redis": True}
    assert server.post("/shop/login", {"user_id": "ann"}).status_code == 404
    assert requests.get(f"{server.url}/shop/", timeout=10).status_code == 404
    with running_server(tmp_path, redis, demo=True) as demo:
        found = demo.post("/shop/login", {"user_id": "ann"}).json()
        assert found == {"user_id": "ann", "user_hash": browser_binding.user_hash(SECRET, "ann")}
        for bad in (b"", b"{}", b'{"user_id":""}', b'{"user_id":7}', orjson.dumps({"user_id": "x" * 65})):
            assert demo.post("/shop/login", bad).status_code == 400
        assert demo.post("/shop/login", b"x" * 2_000).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/..%2fpyproject.toml",
        "/%2e%2e/pyproject.toml",
        "/shop/..%2f..%2fpyproject.toml",
        "/shop/%2e%2e/%2e%2e/attimo.py",
        "/package.json",
        "/.npmrc",
        "/node_modules/x.js",
        "/shop/../pixel.js/../../attimo.py",
        "/pixel.js%00",
        "/con.js",
    ],
)
def test_only_known_pages_are_served(redis: str, tmp_path: Path, path: str) -> None:
    with running_server(tmp_path, redis, demo=True) as running:
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("curl is not there: it sends paths as they are written")
        code = subprocess.run(
            [curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", running.url + path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert code == "404"
