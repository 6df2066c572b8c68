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

from connectors import identity_tokens, metrics, mistakes_file
from connectors.binding import bound_key
from connectors.identity_tokens import COOKIE, COOKIE_SECONDS, Binding, user_hash
from connectors.listener import QUEUE, Listener
from domain.action import armed_key, channel, filled_key
from domain.misrouted import FEW, problem
from domain.mistakes import Mistakes
from domain.model import Model, Quality, encode
from domain.problem import Problem
from domain.record import Outgoing
from domain.streams import MODELS
from tests.edges import CHROME, SECRET, House, house
from tests.support import free_port, redis_binary, redis_server

pytestmark = pytest.mark.redis
SHOP = "demo"


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def shared(redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("edge"), redis) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(redis: str) -> Iterator["redis_client.Redis"]:
    with redis_client.Redis.from_url(redis) as client:
        yield client


def now() -> int:
    return time.time_ns() // 1_000_000


def action(
    name: str, campaign: str = "exit", kind: str = "arm", at: int | None = None, lasts: int = 60_000
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "id": name, "at": now() if at is None else at, "campaign": campaign, "v": 1}
    if kind != "disarm":
        found |= {"not_after": now() + lasts, "expires_in_ms": 99, "format": "popup", "content": {"title": name}}
    return found


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def lines(answer: requests.Response) -> Iterator[str]:
    return (line.decode() for line in answer.iter_lines(chunk_size=1))


class Browser:
    """A visitor's browser: its cookies, and the stream it listens to."""

    def __init__(self, running: House, anonymous_id: str) -> None:
        self.house, self.anonymous_id = running, anonymous_id
        self.session = requests.Session()
        self.session.headers["User-Agent"] = CHROME
        self.heard: Queue[tuple[str, Any]] = Queue()
        self._open: requests.Response | None = None
        self.ended = threading.Event()

    def visit(self) -> requests.Response:
        return self.house.post("/v1/page", {"anonymousId": self.anonymous_id}, session=self.session)

    def ask(self, anonymous_id: str | None = None) -> requests.Response:
        return self.house.post(
            "/v1/stream/token", {"anonymousId": anonymous_id or self.anonymous_id}, None, session=self.session)

    def get(self, token: str) -> requests.Response:
        return self.session.get(f"{self.house.url}/v1/stream", params={"token": token}, stream=True, timeout=30)

    def listen(self) -> "Browser":
        self._open = self.get(self.ask().json()["token"])
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
                    self.heard.put((name, json.loads(line[6:])))
        except (requests.RequestException, AttributeError, ValueError):
            pass  # closed from either side
        self.ended.set()

    def next(self) -> tuple[str, Any]:
        return self.heard.get(timeout=20)

    def close(self) -> None:
        if self._open is not None:
            if not self.ended.is_set():
                self._open.raw.shutdown()  # wakes the reading thread
            self.ended.wait(20)
            self._open.close()


@pytest.fixture
def visitor(shared: House, request: pytest.FixtureRequest) -> Iterator[Browser]:
    browser = Browser(shared, f"visitor-{request.node.name}")
    browser.visit()
    yield browser
    browser.close()


# -- whose history it is -------------------------------------------------------------------------------------------


def test_a_login_takes_nobody_elses_history(shared: House, visitor: Browser) -> None:
    thief = Browser(shared, "thief")
    thief.visit()
    known = {"userId": "eve", "context": {"userHash": user_hash(SECRET, "eve")}, "anonymousId": visitor.anonymous_id}
    assert thief.house.post("/v1/identify", {**known, "messageId": "stolen"}, session=thief.session).status_code == 200
    alias = {**known, "previousId": visitor.anonymous_id, "messageId": "stolen-alias"}
    assert thief.house.post("/v1/alias", alias, session=thief.session).status_code == 200
    mine = {**known, "anonymousId": "thief", "messageId": "own"}
    assert thief.house.post("/v1/identify", mine, session=thief.session).status_code == 200
    events = {event["messageId"]: event for event in shared.events() if event.get("userId") == "eve"}
    assert [events[name].get("anonymousId") for name in ("stolen", "stolen-alias", "own")] == [None, None, "thief"]
    assert events["stolen-alias"].get("previousId") is None


# -- who may listen ------------------------------------------------------------------------------------------------


def test_the_first_browser_with_an_id_is_bound(shared: House, publisher: "redis_client.Redis") -> None:
    browser = Browser(shared, "first")
    cookie = browser.visit().headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    nonce = identity_tokens.read_cookie(SECRET, SHOP, browser.session.cookies[COOKIE] or "")
    assert nonce is not None
    assert publisher.get(bound_key(SHOP, "first")) == identity_tokens.nonce_hash(nonce.nonce).encode()
    assert "set-cookie" not in browser.visit().headers
    assert browser.ask().json()["expires_in"] == 300


def test_secure_on_https(redis: str, tmp_path: Path) -> None:
    with house(tmp_path, redis, trust_proxy=True) as running:
        answer = running.post("/v1/page", {"anonymousId": "tls"}, headers={"X-Forwarded-Proto": "https"})
        assert "Secure" in answer.headers["set-cookie"].split("; ")


def test_a_second_browser_with_the_same_id_is_not(shared: House, visitor: Browser) -> None:
    thief = Browser(shared, visitor.anonymous_id)
    assert "set-cookie" not in thief.visit().headers
    answer = thief.ask()
    assert (answer.status_code, answer.json()["code"]) == (403, "not_bound")


def test_nor_after_a_restart(redis: str, tmp_path: Path) -> None:
    for wanted in (True, False):
        with house(tmp_path, redis) as running:
            assert ("set-cookie" in Browser(running, "durable").visit().headers) is wanted


@pytest.mark.parametrize("headers", [
    {"Sec-Fetch-Site": "cross-site"}, {"User-Agent": "curl/8.0"}, {"User-Agent": ""},
])
def test_who_could_not_keep_a_cookie_takes_no_binding(shared: House, headers: dict[str, str]) -> None:
    call = {"anonymousId": "kept-free"}
    assert "set-cookie" not in shared.post("/v1/page", call, headers=headers).headers
    assert "set-cookie" not in shared.post("/v1/page", call, shared.settings.server_key).headers


def test_it_was_kept_free(shared: House) -> None:
    assert "set-cookie" in shared.post("/v1/page", {"anonymousId": "kept-free-2"}).headers


def test_the_last_id_of_a_batch_is_bound_and_many_are_nobody(shared: House) -> None:
    browser = Browser(shared, "after-sign-out")
    batch = [{"type": "page", "anonymousId": one} for one in ("before-sign-out", "after-sign-out")]
    shared.post("/v1/batch", {"batch": batch}, session=browser.session)
    assert browser.ask().status_code == 200
    batch = [{"type": "page", "anonymousId": f"relayed-{n}"} for n in range(4)]
    assert "set-cookie" not in shared.post("/v1/batch", {"batch": batch}).headers


def test_no_token_for_somebody_else(shared: House, visitor: Browser) -> None:
    known = visitor.ask("after-sign-out")
    unknown = visitor.ask("never-seen")
    nobody = requests.post(f"{shared.url}/v1/stream/token", json={"anonymousId": visitor.anonymous_id}, timeout=10)
    assert [answer.status_code for answer in (known, unknown, nobody)] == [403, 403, 403]
    assert known.content == unknown.content == nobody.content  # who else exists is nobody's business


def test_who_asks_for_a_token_stays_bound(visitor: Browser, publisher: "redis_client.Redis") -> None:
    """A cookie that is nearly over in Redis, or that an empty Redis has forgotten, is as good as new."""
    key = bound_key(SHOP, visitor.anonymous_id)
    kept = publisher.get(key)
    publisher.expire(key, 60)
    assert visitor.ask().status_code == 200
    assert publisher.ttl(key) > COOKIE_SECONDS - 60
    publisher.delete(key)
    assert visitor.ask().status_code == 200
    assert publisher.get(key) == kept
    assert publisher.ttl(key) > COOKIE_SECONDS - 60
    publisher.set(key, "somebody else's", ex=60)
    assert visitor.ask().status_code == 200
    assert publisher.get(key) == b"somebody else's", "what is bound to another is not taken from them"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"anonymousId":7}', b'{"anonymousId":""}', b"\xff"])
def test_a_bad_request_for_a_token(shared: House, body: bytes) -> None:
    answer = shared.post("/v1/stream/token", body, None)
    assert answer.status_code == 400
    assert answer.json()["code"] == "unreadable"


def test_a_huge_request_for_a_token(shared: House) -> None:
    assert shared.post("/v1/stream/token", b"x" * 10_000, None).status_code == 413


def forged(visitor: Browser) -> list[str]:
    token = visitor.ask().json()["token"]
    head, who, expires, signature = token.split(".")
    owner = identity_tokens.read_cookie(SECRET, SHOP, visitor.session.cookies[COOKIE] or "")
    assert owner is not None
    return [
        "", "x", "v1...", "v1.a.b.c", "\0", "é" * 50, "x" * 5_000,
        f"{head}.{who}.{int(expires) + 1}.{signature}",  # longer than it was given
        f"{head}.YmFk.{expires}.{signature}",  # somebody else's
        token[:-2], token.replace("v1", "v2"),
        identity_tokens.stream_token(SECRET, SHOP, owner, now() - 301_000),  # expired
        identity_tokens.stream_token("another secret", SHOP, owner, now()),
        identity_tokens.stream_token(SECRET, "another shop", owner, now()),
        identity_tokens.stream_token(SECRET, SHOP, Binding(owner.anonymous_id, "another nonce"), now()),
        visitor.session.cookies[COOKIE] or "",
    ]


def test_forged_and_expired_tokens(visitor: Browser) -> None:
    for token in forged(visitor):
        answer = visitor.get(token)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_bound"), token


def test_a_token_is_worthless_without_the_cookie(shared: House, visitor: Browser) -> None:
    token = visitor.ask().json()["token"]
    assert requests.get(f"{shared.url}/v1/stream", params={"token": token}, timeout=10).status_code == 403
    thief = Browser(shared, "thief")
    thief.visit()
    assert thief.get(token).status_code == 403


@pytest.mark.parametrize("cookie", ["", "x", "v1.a.b.c", "v1.YTE.nonce.", "é", '"', "v1." + "A" * 5_000])
def test_a_forged_cookie(shared: House, cookie: str) -> None:
    answer = shared.post("/v1/stream/token", {"anonymousId": "a1"}, None,
                         headers={"Cookie": f"other=a b{{c}}; {COOKIE}={cookie}".encode()})
    assert answer.status_code == 403


def test_a_cookie_beside_strange_ones(shared: House, visitor: Browser) -> None:
    cookie = f'strange={{"a":"b,c"}}; {COOKIE}={visitor.session.cookies[COOKIE]}; x=y'
    answer = shared.post("/v1/stream/token", {"anonymousId": visitor.anonymous_id}, None, headers={"Cookie": cookie})
    assert answer.status_code == 200


# -- who takes it back ---------------------------------------------------------------------------------------------


def withdrawal(anonymous_id: str, analytics: Any = False) -> dict[str, Any]:
    return {"type": "track", "event": "Consent Updated", "anonymousId": anonymous_id,
            "properties": {"analytics": analytics, "marketing": False}}


def says(browser: Browser, *calls: dict[str, Any]) -> str:
    """The cookie that is set in answer to a batch."""
    return browser.house.post("/v1/batch", {"batch": calls}, session=browser.session).headers.get("set-cookie", "")


def test_withdrawing_analytics_ends_the_binding(visitor: Browser, publisher: "redis_client.Redis") -> None:
    who = visitor.anonymous_id
    held = visitor.session.cookies[COOKIE]
    assert publisher.exists(bound_key(SHOP, who))
    for no_withdrawal in (withdrawal(who, True), withdrawal(who, "false"), withdrawal(who, None),
                          {**withdrawal(who), "type": "identify"}, {**withdrawal(who), "event": "Consent Asked"}):
        assert says(visitor, no_withdrawal) == ""
    cookie = says(visitor, withdrawal(who))
    assert cookie == f"{COOKIE}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
    assert not publisher.exists(bound_key(SHOP, who))
    assert COOKIE not in visitor.session.cookies
    assert visitor.ask().status_code == 403
    heir = Browser(visitor.house, who)
    assert COOKIE in heir.visit().headers["set-cookie"]  # nobody was bound
    visitor.session.headers["Cookie"] = f"{COOKIE}={held}"  # kept in spite of all
    says(visitor, withdrawal(who))
    assert heir.ask().status_code == 200
    assert publisher.exists(bound_key(SHOP, who))


def test_nobody_withdraws_for_another(visitor: Browser, publisher: "redis_client.Redis") -> None:
    stranger = Browser(visitor.house, "stranger")
    stranger.visit()
    for who in (visitor.anonymous_id, "nobody-in-particular"):
        assert "Max-Age=0" in says(stranger, withdrawal(who))
        stranger.session.cookies.clear()
    assert publisher.exists(bound_key(SHOP, visitor.anonymous_id), bound_key(SHOP, "stranger")) == 2
    assert visitor.ask().status_code == 200
    answer = visitor.house.post("/v1/track", withdrawal(visitor.anonymous_id), visitor.house.settings.server_key)
    assert "set-cookie" not in answer.headers, "a server has no cookie"


def test_a_withdrawal_among_other_calls(visitor: Browser, publisher: "redis_client.Redis") -> None:
    who, page = visitor.anonymous_id, {"type": "page"}
    before, after = {**page, "anonymousId": f"{who}-before"}, {**page, "anonymousId": f"{who}-after"}
    assert says(visitor, withdrawal(who), withdrawal(who, True)) == "", "the last word counts"
    assert "Max-Age=0" in says(visitor, before, {**page, "anonymousId": who}, withdrawal(who))
    assert not publisher.exists(bound_key(SHOP, who), bound_key(SHOP, f"{who}-before"))
    new = says(visitor, withdrawal(who), after)  # withdrawn, and agreed anew under a new id
    assert COOKIE in new
    assert "Max-Age=0" not in new
    assert publisher.exists(bound_key(SHOP, f"{who}-after"))


# -- what a listener is given --------------------------------------------------------------------------------------


def arm(publisher: "redis_client.Redis", who: str, found: dict[str, Any]) -> None:
    """What the publisher of the engine does."""
    with publisher.pipeline() as pipe:
        if found["type"] == "disarm":
            pipe.hdel(armed_key(SHOP, who), found["campaign"])
        else:
            pipe.hset(armed_key(SHOP, who), found["campaign"], orjson.dumps(found))
        pipe.publish(channel(SHOP, who), orjson.dumps(found))
        pipe.execute()


def test_the_armed_set_first_then_what_happens(visitor: Browser, publisher: "redis_client.Redis") -> None:
    who = visitor.anonymous_id
    arm(publisher, who, action("old", "one"))
    arm(publisher, who, action("stale", "two", lasts=-1))
    answer = visitor.get(visitor.ask().json()["token"])
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    answer.close()
    visitor.listen()
    name, armed = visitor.next()
    assert (name, [one["id"] for one in armed]) == ("armed", ["old"])
    assert 50_000 < armed[0]["expires_in_ms"] <= 60_000  # as of now, not as it was published
    for found in (action("new", "three"), action("now", "four", "send"), action("gone", "three", "disarm", now() + 1)):
        arm(publisher, who, found)
    assert [(name, data["id"]) for name, data in (visitor.next(), visitor.next(), visitor.next())] == [
        ("arm", "new"), ("send", "now"), ("disarm", "gone")]


def test_an_empty_redis_is_asked_once_it_was_filled(visitor: Browser, publisher: "redis_client.Redis") -> None:
    """A browser that was told of an empty set at once would let go of what it holds, and never hear of it again."""
    publisher.delete(filled_key(SHOP))
    try:
        visitor.listen()
        with pytest.raises(Empty):
            visitor.heard.get(timeout=0.3)
        publisher.hset(armed_key(SHOP, visitor.anonymous_id), "one", orjson.dumps(action("kept", "one")))
    finally:
        publisher.set(filled_key(SHOP), 1)
    name, armed = visitor.next()
    assert (name, [one["id"] for one in armed]) == ("armed", ["kept"])


def test_each_id_once_and_nothing_stale(visitor: Browser, publisher: "redis_client.Redis") -> None:
    who = visitor.anonymous_id
    found = action("known", "one")
    arm(publisher, who, found)
    visitor.listen()
    assert visitor.next()[0] == "armed"
    arm(publisher, who, found)  # sent again after a crash
    arm(publisher, who, action("late", "two", lasts=-1))
    publisher.publish(channel(SHOP, who), b"nonsense")
    publisher.publish(channel(SHOP, who), b'{"type":"send","id":"no-end"}')
    publisher.publish(channel(SHOP, who), b'{"type":"dance","id":"x","not_after":99999999999999}')
    arm(publisher, who, action("first", "three"))
    arm(publisher, who, action("first", "three"))
    arm(publisher, who, action("second", "four"))
    assert [visitor.next()[1]["id"] for _ in range(2)] == ["first", "second"]


def test_nobody_hears_what_is_meant_for_another(shared: House, publisher: "redis_client.Redis") -> None:
    both = [Browser(shared, "ann"), Browser(shared, "bob")]
    for browser in both:
        browser.visit()
        assert browser.listen().next()[0] == "armed"
    arm(publisher, "ann", action("for-ann"))
    arm(publisher, "bob", action("for-bob"))
    assert [browser.next()[1]["id"] for browser in both] == ["for-ann", "for-bob"]
    assert all(browser.heard.empty() for browser in both)
    for browser in both:
        browser.close()


def test_two_tabs_hear_the_same_and_redis_is_told_when_the_last_leaves(
    visitor: Browser, publisher: "redis_client.Redis"
) -> None:
    name = channel(SHOP, visitor.anonymous_id)
    visitor.listen()
    assert visitor.next()[0] == "armed"
    tab = Browser(visitor.house, visitor.anonymous_id)
    tab.session.cookies.update(visitor.session.cookies)
    assert tab.listen().next()[0] == "armed"
    arm(publisher, visitor.anonymous_id, action("both"))
    assert visitor.next()[1]["id"] == tab.next()[1]["id"] == "both"
    assert publisher.pubsub_numsub(name) == [(name.encode(), 1)]
    tab.close()
    arm(publisher, visitor.anonymous_id, action("one"))
    assert visitor.next()[1]["id"] == "one"
    visitor.close()
    until(lambda: publisher.pubsub_numsub(name) == [(name.encode(), 0)], "the gateway unsubscribes")


def test_too_many_tabs(visitor: Browser) -> None:
    token = visitor.ask().json()["token"]
    tabs = [visitor.get(token) for _ in range(17)]
    assert [tab.status_code for tab in tabs] == [200] * 16 + [429]
    for tab in tabs:
        tab.close()


def test_redis_goes_away_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def start() -> subprocess.Popen[bytes]:
        path.unlink(missing_ok=True)
        server = subprocess.Popen(
            [redis_binary(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL)
        until(path.exists, "Redis starts")
        return server

    server = start()
    try:
        with house(tmp_path / "data", f"unix://{path}") as running:
            browser = Browser(running, "patient")
            browser.visit()
            with redis_client.Redis(unix_socket_path=str(path)) as client:
                arm(client, "patient", action("before", "one"))
            assert [one["id"] for one in browser.listen().next()[1]] == ["before"]
            server.kill()
            server.wait()
            until(lambda: not requests.get(f"{running.url}/healthz", timeout=10).json()["redis"], "the loss is seen")
            assert running.post("/v1/page", {"anonymousId": "patient"}).status_code == 200
            server = start()
            with redis_client.Redis(unix_socket_path=str(path)) as client:
                client.set(filled_key(SHOP), 1)
                arm(client, "patient", action("meanwhile", "two"))  # heard, or found in the armed set
                seen: list[str] = []
                while "meanwhile" not in seen:
                    name, data = browser.next()
                    seen += [one["id"] for one in data] if name == "armed" else [data["id"]]
                arm(client, "patient", action("after", "three"))
                while "after" not in seen:
                    name, data = browser.next()
                    seen += [one["id"] for one in data] if name == "armed" else [data["id"]]
            assert not browser.ended.is_set()
    finally:
        server.kill()
        server.wait()


def test_a_stream_opened_while_redis_is_away_gets_its_set_later(tmp_path: Path) -> None:
    binding = Binding("early", "nonce")
    path = tmp_path / "s"
    with house(tmp_path / "data", f"unix://{path}") as running:
        browser = Browser(running, "early")
        browser.session.cookies.set(COOKIE, identity_tokens.cookie_value(SECRET, SHOP, binding))
        browser.listen()
        with pytest.raises(Empty):
            browser.heard.get(timeout=0.2)
        server = subprocess.Popen(
            [redis_binary(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL)
        try:
            until(path.exists, "Redis starts")
            with redis_client.Redis(unix_socket_path=str(path)) as client:
                client.set(filled_key(SHOP), 1)
            assert browser.next() == ("armed", [])
        finally:
            server.kill()
            server.wait()


def test_the_server_stops_although_somebody_listens(redis: str, tmp_path: Path) -> None:
    with house(tmp_path, redis) as running:
        browser = Browser(running, "listening-on")
        browser.visit()
        assert browser.listen().next()[0] == "armed"
    assert browser.ended.wait(20)


# -- one listener --------------------------------------------------------------------------------------------------


def test_a_slow_browser_is_let_go() -> None:
    listener = Listener("slow")
    assert all(listener.give(b"x") for _ in range(QUEUE))
    assert not listener.ended.is_set()
    assert not listener.give(b"x")
    assert listener.ended.is_set()


def test_what_led_to_the_armed_set_and_arrives_after_it_is_not_news() -> None:
    listener = Listener("a")
    listener.armed([action("b", "exit", at=20)])
    assert not listener.is_news(action("a", "exit", at=10))
    assert not listener.is_news(action("off", "exit", "disarm", at=20))  # of the one before b
    assert not listener.is_news(action("b", "exit", at=20))
    assert listener.is_news(action("c", "exit", at=21))
    assert listener.is_news(action("off", "exit", "disarm", at=21))
    assert listener.is_news(action("x", "other", at=1))


# -- the live feed and the pages -----------------------------------------------------------------------------------


def test_the_live_feed(shared: House) -> None:
    with requests.get(f"{shared.url}/live/feed", stream=True, timeout=30) as answer:
        assert answer.status_code == 200
        said = (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))
        assert next(said)["kind"] == "watching"
        shared.post("/v1/track", {"event": "Product Viewed", "anonymousId": "seen", "properties": {"name": "Scarf"}})
        shared.post("/v1/track", {"event": 7, "anonymousId": "seen"})
        shown = [next(said), next(said)]
    by_kind = {one["kind"]: one for one in shown}
    assert by_kind["event"].items() >= {"what": "Product Viewed", "detail": "Scarf", "device": "desktop"}.items()
    assert "seen" not in json.dumps(shown)
    assert by_kind["reject"]["because"] == "event: should be the name of the event"


def published(version: int, **more: Any) -> Outgoing:
    quality = Quality(examples=100 * version, positives=7, log_loss=0.25, base_log_loss=0.3, roc_auc=0.75)
    model = Model(kind="propensity", version=version, hash="h", weights={"pages": 1.0}, quality=quality, at=version)
    return Outgoing(MODELS, b"propensity", encode(msgspec.structs.replace(model, **more)))


def test_the_live_feed_tells_about_the_newest_model(redis: str, tmp_path: Path) -> None:
    with house(tmp_path, redis) as running, ExitStack() as watching:

        def watch() -> Iterator[dict[str, Any]]:
            answer = watching.enter_context(requests.get(f"{running.url}/live/feed", stream=True, timeout=30))
            return (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))

        running.log.append([published(1), published(2)])
        first = watch()
        assert next(first)["kind"] == "watching"
        assert next(first) == {"kind": "model", "at": 2, "version": 2, "quality": {
            "examples": 200, "positives": 7, "log_loss": 0.25, "base_log_loss": 0.3, "roc_auc": 0.75, "drifts": 0}}
        running.log.append([published(3), published(4), published(9, kind="another"), Outgoing(MODELS, b"x", b"{")])
        assert next(first)["version"] == 4  # of several at once the last one, and only what it is
        second = watch()
        assert next(second)["version"] == 4
        running.log.append([published(5)])
        assert next(first)["version"] == next(second)["version"] == 5


def test_the_live_feed_tells_what_is_wrong_with_the_playbook(redis: str, tmp_path: Path) -> None:
    with house(tmp_path, redis) as running, ExitStack() as watching:

        def watch() -> Iterator[dict[str, Any]]:
            answer = watching.enter_context(requests.get(f"{running.url}/live/feed", stream=True, timeout=30))
            return (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))

        path = mistakes_file.path_of(running.settings.data)
        first = watch()
        assert next(first)["kind"] == "watching"
        mistakes_file.tell(path, Mistakes.of("shop", [Problem("shop.toml", 2, "", "is wrong")], since=5, live="v"))
        wrong = {"kind": "playbook", "problems": ["shop.toml, line 2: is wrong"], "count": 1, "folder": "shop",
                 "since": 5, "live": "v", "live_since": 0}
        assert next(first) == wrong
        assert next(watch()) == wrong, "who comes later is told too"
        mistakes_file.tell(path, None)
        assert next(first) == {"kind": "playbook", "problems": []}


def test_the_live_feed_tells_of_records_in_the_wrong_partition(redis: str, tmp_path: Path) -> None:
    port = free_port()
    metrics.MISROUTED.inc(FEW)
    metrics.MISROUTED_SHARE.set(0.5)
    served = metrics.serve(port)
    assert served
    try:
        with house(tmp_path, redis, metrics_port=port - 10) as running, ExitStack() as watching:
            def watch() -> Iterator[dict[str, Any]]:
                answer = watching.enter_context(requests.get(f"{running.url}/live/feed", stream=True, timeout=30))
                return (json.loads(line[6:]) for line in lines(answer) if line.startswith("data: "))

            first = watch()
            assert next(first)["kind"] == "watching"
            wrong = {"kind": "misrouted", "problem": problem(FEW, 0.5)}
            assert next(first) == wrong
            assert next(watch()) == wrong, "who comes later is told too"
    finally:
        metrics.MISROUTED_SHARE.set(0)
        served[0].shutdown()
        served[0].server_close()
        served[1].join()


@pytest.mark.parametrize("headers", [
    {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Host": "rebound.example"}, {"Host": ""},
])
def test_the_live_feed_is_not_for_the_world(shared: House, headers: dict[str, str]) -> None:
    for path in ("/live/feed", "/live"):
        answer = requests.get(shared.url + path, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_here")


def test_pages(shared: House, redis: str, tmp_path: Path) -> None:
    assert requests.get(f"{shared.url}/healthz", timeout=10).json() == {"ok": True, "redis": True}
    assert shared.post("/shop/login", {"user_id": "ann"}).status_code == 404
    assert requests.get(f"{shared.url}/shop/", timeout=10).status_code == 404
    with house(tmp_path, redis, demo=True) as demo:
        found = demo.post("/shop/login", {"user_id": "ann"}).json()
        assert found == {"user_id": "ann", "user_hash": identity_tokens.user_hash(SECRET, "ann")}
        for bad in (b"", b"{}", b'{"user_id":""}', b'{"user_id":7}', orjson.dumps({"user_id": "x" * 65})):
            assert demo.post("/shop/login", bad).status_code == 400
        assert demo.post("/shop/login", b"x" * 2_000).status_code == 413


@pytest.mark.parametrize("path", [
    "/..%2fpyproject.toml", "/%2e%2e/pyproject.toml", "/shop/..%2f..%2fpyproject.toml", "/shop/%2e%2e/%2e%2e/attimo.py",
    "/package.json", "/.npmrc", "/node_modules/x.js", "/shop/../pixel.js/../../attimo.py", "/pixel.js%00", "/con.js",
])
def test_nothing_but_the_pages_is_served(redis: str, tmp_path: Path, path: str) -> None:
    with house(tmp_path, redis, demo=True) as running:
        curl = shutil.which("curl")
        if curl is None:
            pytest.skip("curl is not there: it sends paths as they are written")
        code = subprocess.run([curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", running.url + path],
                              capture_output=True, text=True, check=True).stdout
        assert code == "404"
