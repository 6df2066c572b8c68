"""The publisher: Redis may go away, come back, and come back empty; what was decided arrives, or is held as stale."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from connectors.log_sqlite import SqliteLog
from connectors.publisher import GATHERED, Publisher
from domain import action as actions
from domain.action import Action, Arm, Content, CouponNews, Disarm, Move, Progress, Send, armed_key, channel
from domain.effect import Row
from domain.record import Outgoing, Record
from tests.support import Server

pytestmark = pytest.mark.redis
SHOP = "demo"


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "data") as made:
        yield made


def row(seq: int, action: Action, history: int = 0) -> Row:
    return Row(seq, action.id, "actions", b"ann", action.at, history, actions.encode(action))


def arm(n: int, campaign: str = "exit", lives: int = 60_000) -> Arm:
    return Arm(id=f"a{n}", at=now(), person="a:ann", anonymous_id="ann", campaign=campaign, format="popup",
               content=Content(title="Stay"), not_after=now() + lives)


def send(n: int, lives: int = 60_000) -> Send:
    return Send(id=f"s{n}", at=now(), person="a:ann", anonymous_id="ann", campaign=f"now-{n}", format="bar",
                content=Content(title="Hello"), not_after=now() + lives)


def armed(url: str) -> set[str]:
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        return {str(name) for name in client.hkeys(armed_key(SHOP, "ann"))}
    finally:
        client.close()


def written(log: SqliteLog, stream: str) -> list[Record]:
    places = [(stream, p) for p in range(log.partitions)]
    return [one for place, end in log.ends(places).items() if end >= 0 for one in log.fetch(place, 0, end)]


def test_armed_and_published_in_one_go(server: Server, log: SqliteLog) -> None:
    client = redis.Redis.from_url(server.url)
    heard = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
    heard.subscribe(channel(SHOP, "ann"))
    heard.get_message(timeout=1)
    publisher = Publisher(log, server.url, SHOP, now)
    publisher.send([row(1, arm(1)), row(1, send(1)), row(2, Disarm(
        id="d1", at=now(), person="a:ann", anonymous_id="ann", campaign="exit"))])
    messages: list[dict[str, str]] = []
    while len(messages) < 3:
        if message := heard.get_message(timeout=5):
            messages.append(json.loads(message["data"]))
    assert [(one["type"], one["id"]) for one in messages] == [("arm", "a1"), ("send", "s1"), ("disarm", "d1")]
    assert armed(server.url) == {"now-1"}
    assert publisher.acknowledged() == [1, 2]
    assert publisher.pending() == 0
    assert len(written(log, "actions")) == 3
    heard.close()
    client.close()
    publisher.close()


def test_what_is_nobody_s_business_outside_goes_to_the_log_alone(server: Server, log: SqliteLog) -> None:
    client = redis.Redis.from_url(server.url)
    heard = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
    heard.subscribe(channel(SHOP, "ann"))
    heard.get_message(timeout=1)
    publisher = Publisher(log, server.url, SHOP, now)
    publisher.send([
        row(1, Move(id="m", at=now(), person="a:ann", anonymous_id="ann", segment="vip", entered=True)),
        row(1, Progress(id="p", at=now(), person="a:ann", anonymous_id="ann", workflow="w", version="v", what="goal")),
        row(1, CouponNews(id="c", at=now(), person="a:ann", anonymous_id="ann", pool="p", code="X", what="reserved")),
        row(2, send(1))])
    message = None
    while message is None:
        message = heard.get_message(timeout=5)
    assert json.loads(message["data"])["id"] == "s1", "the first that a browser hears of"
    assert publisher.acknowledged() == [1, 2]
    assert len(written(log, "actions")) == 4
    heard.close()
    client.close()
    publisher.close()


def test_what_waits_while_redis_is_away_goes_out_when_it_is_back(server: Server, log: SqliteLog) -> None:
    publisher = Publisher(log, server.url, SHOP, now)
    server.kill()
    publisher.send([row(1, arm(1)), row(1, send(2, lives=1))])
    assert publisher.acknowledged() == [], "the log has it, Redis has not"
    assert publisher.pending() == 2
    publisher.send([row(2, arm(3, "other"))])
    server.start()
    time.sleep(0.25)
    publisher.retry()
    assert armed(server.url) == {"exit", "other"}, "what became stale meanwhile is held"
    assert publisher.acknowledged() == [1, 2]
    held = [json.loads(record.value) for record in written(log, "people")]
    assert [(event["event"], event["properties"]["action_id"]) for event in held] == [("Offer Held", "s2")]
    publisher.close()


def test_an_empty_redis_is_filled_from_the_actions(server: Server, log: SqliteLog) -> None:
    publisher = Publisher(log, server.url, SHOP, now)
    gone = Disarm(id="d", at=now(), person="a:ann", anonymous_id="ann", campaign="gone")
    publisher.send([row(1, arm(1)), row(1, arm(2, "gone")), row(1, gone), row(1, arm(3, "brief", lives=200))])
    assert armed(server.url) == {"exit", "brief"}
    server.kill()
    time.sleep(0.25)
    server.start()
    publisher.send([row(2, arm(4, "next"))])
    time.sleep(0.25)
    publisher.retry()
    assert armed(server.url) == {"exit", "next"}
    publisher.close()


def test_what_is_no_action_keeps_no_redis_empty(server: Server, log: SqliteLog) -> None:
    log.append([Outgoing("actions", b"ann", value) for value in (
        b'{"type":"arm"}', b'{"type":"send"', b'{"type":"disarm","campaign":"\xff"}', actions.encode(arm(1)),
        b'{"type":"send","content":' + b"[" * 100_000)])
    publisher = Publisher(log, server.url, SHOP, now)
    publisher.retry()
    assert armed(server.url) == {"exit"}
    publisher.close()


def test_an_empty_redis_is_filled_though_nothing_is_said(server: Server, log: SqliteLog) -> None:
    publisher = Publisher(log, server.url, SHOP, now)
    publisher.send([row(1, arm(1))])
    server.kill()
    server.start()
    for _ in range(100):
        publisher.retry()
        if armed(server.url):
            break
        time.sleep(0.05)
    assert armed(server.url) == {"exit"}
    publisher.close()


def test_what_is_stale_is_held_and_recorded_days_are_not_answered(server: Server, log: SqliteLog) -> None:
    publisher = Publisher(log, server.url, SHOP, now)
    publisher.send([row(1, send(1, lives=-1)), row(1, send(2, lives=-1), history=1), row(1, arm(3, lives=-1))])
    assert armed(server.url) == set()
    assert [json.loads(record.value)["messageId"] for record in written(log, "people")] == ["held-s1"]
    assert publisher.acknowledged() == [1]
    publisher.close()


def test_a_row_is_sent_once_by_one_publisher(server: Server, log: SqliteLog) -> None:
    publisher = Publisher(log, server.url, SHOP, now)
    rows = [row(1, arm(1))]
    publisher.send(rows)
    publisher.send(rows)
    assert len(written(log, "actions")) == 1
    publisher.close()


def test_the_log_is_told_of_several_in_one_go(server: Server, log: SqliteLog) -> None:
    client = redis.Redis.from_url(server.url)
    publisher = Publisher(log, server.url, SHOP, now, gather=3_600)
    publisher.send([row(1, arm(1))])
    publisher.send([row(2, arm(2, "other"))])
    assert client.hgetall(armed_key(SHOP, "ann")), "people are told at once"
    assert written(log, "actions") == []
    assert (publisher.gathers, publisher.acknowledged(), publisher.pending()) == (True, [], 2)
    publisher.flush()
    assert [json.loads(one.value)["id"] for one in written(log, "actions")] == ["a1", "a2"]
    assert (publisher.gathers, publisher.acknowledged(), publisher.pending()) == (False, [1, 2], 0)
    publisher.flush()
    assert len(written(log, "actions")) == 2
    publisher.close()
    client.close()


def test_letters_and_many_rows_are_not_kept_back(server: Server, log: SqliteLog) -> None:
    publisher = Publisher(log, server.url, SHOP, now, gather=3_600)
    letter = Row(2, "l1", "letters", b"ann", now(), 0, b'{"kind":"claim","sender":"u:b","to":"a:ann","seq":1}')
    publisher.send([row(1, arm(1))])
    publisher.send([letter])
    assert len(written(log, "letters")) == len(written(log, "actions")) == 1, "nor is what was decided before them"
    publisher.send([row(3 + n, arm(2 + n)) for n in range(GATHERED - 1)])
    assert len(written(log, "actions")) == 1
    publisher.send([row(100, arm(100))])
    assert len(written(log, "actions")) == 1 + GATHERED
    publisher.close()


def test_a_redis_that_forgot_the_script_is_told_it_again(server: Server, log: SqliteLog) -> None:
    client = redis.Redis.from_url(server.url)
    publisher = Publisher(log, server.url, SHOP, now)
    for n, rows in enumerate(([arm(1)], [arm(2, "other"), arm(3, "third")])):
        client.script_flush()
        publisher.send([row(n + 1, one) for one in rows])
        assert publisher.acknowledged() == [n + 1]
    assert sorted(client.hkeys(armed_key(SHOP, "ann"))) == [b"exit", b"other", b"third"]
    publisher.close()
    client.close()
