"""The publisher: Redis may go away, come back, and come back empty; what was decided arrives, or is held as stale."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from connectors.log.sqlite import SqliteLog
from connectors.redis.publisher import MAX_BUFFERED, Publisher
from domain import action as actions
from domain.action import (
    Action,
    Cancel,
    CouponEvent,
    OutboxRow,
    Preload,
    RenderedContent,
    SegmentChange,
    Send,
    WorkflowProgress,
    preloaded_key,
    pubsub_channel,
)
from domain.record import NewRecord, Record
from tests.harness.support import RedisServer

pytestmark = pytest.mark.redis
SHOP = "demo"


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "data") as made:
        yield made


def outbox_row(seq: int, action: Action, history: int = 0) -> OutboxRow:
    return OutboxRow(seq, action.id, "actions", b"ann", action.at, history, actions.encode_action(action))


def make_preload(n: int, campaign: str = "exit", lifetime: int = 60_000) -> Preload:
    return Preload(
        id=f"a{n}",
        at=now(),
        person="a:ann",
        anonymous_id="ann",
        campaign=campaign,
        format="popup",
        content=RenderedContent(title="Stay"),
        not_after=now() + lifetime,
    )


def make_send(n: int, lifetime: int = 60_000) -> Send:
    return Send(
        id=f"s{n}",
        at=now(),
        person="a:ann",
        anonymous_id="ann",
        campaign=f"now-{n}",
        format="bar",
        content=RenderedContent(title="Hello"),
        not_after=now() + lifetime,
    )


def preloaded_campaigns(url: str) -> set[str]:
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        return {str(name) for name in client.hkeys(preloaded_key(SHOP, "ann"))}
    finally:
        client.close()


def read_stream(log: SqliteLog, stream: str) -> list[Record]:
    places = [(stream, p) for p in range(log.partitions)]
    return [one for place, end in log.end_offsets(places).items() if end >= 0 for one in log.fetch(place, 0, end)]


def test_preload_is_cached_and_published_atomically(redis_server: RedisServer, log: SqliteLog) -> None:
    client = redis.Redis.from_url(redis_server.url)
    heard = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
    heard.subscribe(pubsub_channel(SHOP, "ann"))
    heard.get_message(timeout=1)
    publisher = Publisher(log, redis_server.url, SHOP, now)
    publisher.publish(
        [
            outbox_row(1, make_preload(1)),
            outbox_row(1, make_send(1)),
            outbox_row(2, Cancel(id="d1", at=now(), person="a:ann", anonymous_id="ann", campaign="exit")),
        ]
    )
    messages: list[dict[str, str]] = []
    while len(messages) < 3:
        if message := heard.get_message(timeout=5):
            messages.append(json.loads(message["data"]))
    assert [(one["type"], one["id"]) for one in messages] == [("preload", "a1"), ("send", "s1"), ("cancel", "d1")]
    assert preloaded_campaigns(redis_server.url) == {"now-1"}
    assert publisher.pop_acknowledged() == [1, 2]
    assert publisher.pending_count() == 0
    assert len(read_stream(log, "actions")) == 3
    heard.close()
    client.close()
    publisher.close()


def test_internal_actions_are_not_published_to_redis(redis_server: RedisServer, log: SqliteLog) -> None:
    client = redis.Redis.from_url(redis_server.url)
    heard = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py
    heard.subscribe(pubsub_channel(SHOP, "ann"))
    heard.get_message(timeout=1)
    publisher = Publisher(log, redis_server.url, SHOP, now)
    publisher.publish(
        [
            outbox_row(
                1, SegmentChange(id="m", at=now(), person="a:ann", anonymous_id="ann", segment="vip", entered=True)
            ),
            outbox_row(
                1,
                WorkflowProgress(
                    id="p", at=now(), person="a:ann", anonymous_id="ann", workflow="w", version="v", transition="goal"
                ),
            ),
            outbox_row(
                1,
                CouponEvent(
                    id="c", at=now(), person="a:ann", anonymous_id="ann", pool="p", code="X", status="reserved"
                ),
            ),
            outbox_row(2, make_send(1)),
        ]
    )
    message = None
    while message is None:
        message = heard.get_message(timeout=5)
    assert json.loads(message["data"])["id"] == "s1", "the first that a browser hears of"
    assert publisher.pop_acknowledged() == [1, 2]
    assert len(read_stream(log, "actions")) == 4
    heard.close()
    client.close()
    publisher.close()


def test_buffered_actions_are_sent_after_an_outage(redis_server: RedisServer, log: SqliteLog) -> None:
    publisher = Publisher(log, redis_server.url, SHOP, now)
    redis_server.kill()
    publisher.publish([outbox_row(1, make_preload(1)), outbox_row(1, make_send(2, lifetime=1))])
    assert publisher.pop_acknowledged() == [], "the log has it, Redis has not"
    assert publisher.pending_count() == 2
    publisher.publish([outbox_row(2, make_preload(3, "other"))])
    redis_server.start()
    time.sleep(0.25)
    publisher.retry_redis()
    assert preloaded_campaigns(redis_server.url) == {"exit", "other"}, "what became stale meanwhile is held"
    assert publisher.pop_acknowledged() == [1, 2]
    held = [json.loads(record.value) for record in read_stream(log, "people")]
    assert [(event["event"], event["properties"]["action_id"]) for event in held] == [("Offer Suppressed", "s2")]
    publisher.close()


def test_empty_redis_is_rebuilt_from_the_actions(redis_server: RedisServer, log: SqliteLog) -> None:
    publisher = Publisher(log, redis_server.url, SHOP, now)
    gone = Cancel(id="d", at=now(), person="a:ann", anonymous_id="ann", campaign="gone")
    publisher.publish(
        [
            outbox_row(1, make_preload(1)),
            outbox_row(1, make_preload(2, "gone")),
            outbox_row(1, gone),
            outbox_row(1, make_preload(3, "brief", lifetime=200)),
        ]
    )
    assert preloaded_campaigns(redis_server.url) == {"exit", "brief"}
    redis_server.kill()
    time.sleep(0.25)
    redis_server.start()
    publisher.publish([outbox_row(2, make_preload(4, "next"))])
    time.sleep(0.25)
    publisher.retry_redis()
    assert preloaded_campaigns(redis_server.url) == {"exit", "next"}
    publisher.close()


def test_undecodable_actions_do_not_block_the_rebuild(redis_server: RedisServer, log: SqliteLog) -> None:
    log.append(
        [
            NewRecord("actions", b"ann", value)
            for value in (
                b'{"type":"preload"}',
                b'{"type":"send"',
                b'{"type":"cancel","campaign":"\xff"}',
                actions.encode_action(make_preload(1)),
                b'{"type":"send","content":' + b"[" * 100_000,
            )
        ]
    )
    publisher = Publisher(log, redis_server.url, SHOP, now)
    publisher.retry_redis()
    assert preloaded_campaigns(redis_server.url) == {"exit"}
    publisher.close()


def test_empty_redis_is_rebuilt_while_idle(redis_server: RedisServer, log: SqliteLog) -> None:
    publisher = Publisher(log, redis_server.url, SHOP, now)
    publisher.publish([outbox_row(1, make_preload(1))])
    redis_server.kill()
    redis_server.start()
    for _ in range(100):
        publisher.retry_redis()
        if preloaded_campaigns(redis_server.url):
            break
        time.sleep(0.05)
    assert preloaded_campaigns(redis_server.url) == {"exit"}
    publisher.close()


def test_stale_actions_are_suppressed(redis_server: RedisServer, log: SqliteLog) -> None:
    publisher = Publisher(log, redis_server.url, SHOP, now)
    publisher.publish(
        [
            outbox_row(1, make_send(1, lifetime=-1)),
            outbox_row(1, make_send(2, lifetime=-1), history=1),
            outbox_row(1, make_preload(3, lifetime=-1)),
        ]
    )
    assert preloaded_campaigns(redis_server.url) == set()
    assert [json.loads(record.value)["messageId"] for record in read_stream(log, "people")] == ["suppressed-s1"]
    assert publisher.pop_acknowledged() == [1]
    publisher.close()


def test_outbox_row_is_published_once(redis_server: RedisServer, log: SqliteLog) -> None:
    publisher = Publisher(log, redis_server.url, SHOP, now)
    rows = [outbox_row(1, make_preload(1))]
    publisher.publish(rows)
    publisher.publish(rows)
    assert len(read_stream(log, "actions")) == 1
    publisher.close()


def test_log_appends_are_batched(redis_server: RedisServer, log: SqliteLog) -> None:
    client = redis.Redis.from_url(redis_server.url)
    publisher = Publisher(log, redis_server.url, SHOP, now, flush_interval=3_600)
    publisher.publish([outbox_row(1, make_preload(1))])
    publisher.publish([outbox_row(2, make_preload(2, "other"))])
    assert client.hgetall(preloaded_key(SHOP, "ann")), "people are told at once"
    assert read_stream(log, "actions") == []
    assert (publisher.has_buffered, publisher.pop_acknowledged(), publisher.pending_count()) == (True, [], 2)
    publisher.flush()
    assert [json.loads(one.value)["id"] for one in read_stream(log, "actions")] == ["a1", "a2"]
    assert (publisher.has_buffered, publisher.pop_acknowledged(), publisher.pending_count()) == (False, [1, 2], 0)
    publisher.flush()
    assert len(read_stream(log, "actions")) == 2
    publisher.close()
    client.close()


def test_shard_messages_and_full_batches_are_flushed_at_once(redis_server: RedisServer, log: SqliteLog) -> None:
    publisher = Publisher(log, redis_server.url, SHOP, now, flush_interval=3_600)
    letter = OutboxRow(
        2, "l1", "shard-messages", b"ann", now(), 0, b'{"kind":"claim","sender":"u:b","to":"a:ann","seq":1}'
    )
    publisher.publish([outbox_row(1, make_preload(1))])
    publisher.publish([letter])
    assert len(read_stream(log, "shard-messages")) == len(read_stream(log, "actions")) == 1, (
        "nor is what was decided before them"
    )
    publisher.publish([outbox_row(3 + n, make_preload(2 + n)) for n in range(MAX_BUFFERED - 1)])
    assert len(read_stream(log, "actions")) == 1
    publisher.publish([outbox_row(100, make_preload(100))])
    assert len(read_stream(log, "actions")) == 1 + MAX_BUFFERED
    publisher.close()


def test_missing_lua_script_is_loaded_again(redis_server: RedisServer, log: SqliteLog) -> None:
    client = redis.Redis.from_url(redis_server.url)
    publisher = Publisher(log, redis_server.url, SHOP, now)
    for n, rows in enumerate(([make_preload(1)], [make_preload(2, "other"), make_preload(3, "third")])):
        client.script_flush()
        publisher.publish([outbox_row(n + 1, one) for one in rows])
        assert publisher.pop_acknowledged() == [n + 1]
    assert sorted(client.hkeys(preloaded_key(SHOP, "ann"))) == [b"exit", b"other", b"third"]
    publisher.close()
    client.close()
