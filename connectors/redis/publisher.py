"""The publisher: sends effects from the outbox to Redis and the log, in order, and reports which have arrived.

    rows ──▶ Redis   atomically { HSET preloaded:… ; PEXPIRE ; PUBLISH onsite:… }   send, preload, cancel (not stale)
         └─▶ log     actions, shard-messages, outcomes, dead-letters

Redis messages are sent immediately. Log records are buffered for a few milliseconds (`flush_interval`), because an
append costs half as much as an event. Shard messages are not buffered, because another shard waits for them.

A row is acknowledged when Redis and the log have it. While Redis is unavailable, rows wait in memory (they are in the
outbox too) and are sent later, unless they are stale by then. After a crash an effect may be sent twice, with one id.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import redis

from connectors import metrics
from connectors.log.log import Log, PendingAppend
from domain import action as actions
from domain.action import (
    Cancel,
    OutboxRow,
    Preload,
    Send,
    browser_payload,
    cache_ready_key,
    preloaded_key,
    pubsub_channel,
)
from domain.failpoint import failpoint
from domain.record import ACTIONS, DECODE_ERRORS, PEOPLE, SHARD_MESSAGES, NewRecord

MAX_BUFFERED = 50
"""Number of buffered records at which the buffer is flushed."""
RETRY_DELAY = 0.2
MAX_MEASURED_DELAY_MS = 60_000
"""Milliseconds: a timer that fires later than this was due while the worker was down; its latency is ignored."""
CACHE_CHECK_INTERVAL = 1.0
"""Seconds between two checks that Redis was not emptied."""
REBUILD_TIMEOUT = 10.0
"""Seconds to read the log for a rebuild."""
MAX_REBUILD_ACTIONS = 200_000
"""Latest actions per partition that are read to rebuild the cache of an emptied Redis."""

_BROWSER_ACTIONS = (b'{"type":"send"', b'{"type":"preload"', b'{"type":"cancel"')
_encode = msgspec.json.Encoder().encode

_PUBLISH_SCRIPT = """
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3], 'NX')
  redis.call('PEXPIRE', KEYS[1], ARGV[3], 'GT')
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', ARGV[4], ARGV[2])
return redis.call('EXISTS', KEYS[2])
"""
"""Publishes one action atomically. KEYS: hash of preloaded actions, cache-ready marker. ARGV: campaign, payload, time
to live (ms; 0 deletes), channel. A script, because a MULTI of five commands takes the client twice as long."""
_PUBLISH_SCRIPT_SHA = hashlib.sha1(_PUBLISH_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Publisher:
    """Publishes the effects of one worker. `clock` returns the wall clock in ms, for staleness.

    Log records are buffered for up to `flush_interval` seconds; an idle caller calls `flush`.
    """

    def __init__(self, log: Log, url: str, shop: str, clock: Callable[[], int], flush_interval: float = 0.0) -> None:
        self._log = log
        self._flush_interval = flush_interval
        self._buffer: list[NewRecord] = []
        self._buffer_seqs: dict[int, None] = {}
        self._buffered_since = 0.0
        self._shop = shop
        self._clock = clock
        self._redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1)
        self._cache_ready_key = cache_ready_key(shop)
        self._redis_backlog: list[OutboxRow] = []
        self._retry_at = 0.0
        self._pending_appends: list[tuple[PendingAppend, list[int]]] = []
        self._partially_sent: Counter[int] = Counter()
        self._logged_seqs: list[int] = []
        self._in_flight: Counter[int] = Counter()
        self._cache_ready = False

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Publish rows in order. Raise LogError if an append fails; an unavailable Redis raises nothing."""
        rows = [row for row in rows if row.seq not in self._in_flight]
        if not rows:
            return
        self._in_flight.update([row.seq for row in rows])
        onsite = [row for row in rows if row.stream == ACTIONS and row.body.startswith(_BROWSER_ACTIONS)]
        feedback: list[NewRecord] = []
        if onsite:
            # Acknowledged when both Redis and the log have the row.
            self._partially_sent.update([row.seq for row in onsite])
            if self._redis_backlog:
                self._redis_backlog += onsite
            else:
                feedback = self._publish_to_redis(onsite)
                failpoint("onsite:after_redis")
        if not self._buffer:
            self._buffered_since = time.monotonic()
        self._buffer += [NewRecord(row.stream, row.key, row.body, None, row.at) for row in rows]
        self._buffer += feedback
        self._buffer_seqs.update(dict.fromkeys([row.seq for row in rows]))
        if self.flush_due or len(self._buffer) >= MAX_BUFFERED or any(row.stream == SHARD_MESSAGES for row in rows):
            self.flush()

    @property
    def has_buffered(self) -> bool:
        """True if records are buffered."""
        return bool(self._buffer)

    @property
    def flush_due(self) -> bool:
        """True if the buffer is older than `flush_interval`."""
        return bool(self._buffer) and time.monotonic() - self._buffered_since >= self._flush_interval

    def flush(self) -> None:
        """Append the buffered records; raise LogError if it fails."""
        if self._buffer:
            self._pending_appends.append((self._log.start_append(self._buffer), list(self._buffer_seqs)))
            self._buffer, self._buffer_seqs = [], {}

    def _publish_to_redis(self, rows: list[OutboxRow]) -> list[NewRecord]:
        """Publish rows and return feedback on suppressed stale ones. Rows are queued while Redis is unavailable."""
        now, stale = self._clock(), list[tuple[OutboxRow, Send | Preload]]()
        publishable = list[Send | Preload | Cancel]()
        for row in rows:
            action = actions.decode_action(row.body)
            if isinstance(action, Send | Preload) and action.not_after <= now:
                stale.append((row, action))
            elif isinstance(action, Send | Preload | Cancel):
                publishable.append(action)
        try:
            if not self._cache_ready:
                self._rebuild_cache()
            if publishable and not self._publish_actions(publishable, now):
                # Redis was emptied between two messages: rebuild the cache and publish again.
                self._rebuild_cache()
                self._publish_actions(publishable, now)
        except (redis.RedisError, OSError):
            self._redis_backlog += rows
            self._retry_at = time.monotonic() + RETRY_DELAY
            self._cache_ready = False
            return []
        done = self._clock()
        for row in rows:
            self._partially_sent[row.seq] -= 1
            if not self._partially_sent[row.seq]:
                del self._partially_sent[row.seq]
            latency = max(0, done - row.at)
            # History imports and overdue timers say nothing about latency.
            if not row.history and (latency < MAX_MEASURED_DELAY_MS or not row.id.startswith("timer-")):
                metrics.PUBLISH_LATENCY.observe(latency / 1000)
        if stale:
            metrics.STALE_ACTIONS.inc(len(stale))
        return [_suppressed_event(row, action) for row, action in stale if isinstance(action, Send) and not row.history]

    def _publish_actions(self, publishable: Sequence[Send | Preload | Cancel], now: int) -> bool:
        """Publish actions; return False if Redis was emptied."""
        calls = [self._script_args(action, now) for action in publishable]
        try:
            return self._eval(calls)
        except redis.exceptions.NoScriptError:  # a new Redis, which has executed none of them
            self._redis.script_load(_PUBLISH_SCRIPT)
            return self._eval(calls)

    def _script_args(self, action: Send | Preload | Cancel, now: int) -> tuple[str | bytes | int, ...]:
        text = _encode(browser_payload(action, self._shop, now))
        time_to_live = 0 if isinstance(action, Cancel) else max(1, action.not_after - now)
        return (
            preloaded_key(self._shop, action.anonymous_id),
            self._cache_ready_key,
            action.campaign,
            text,
            time_to_live,
            pubsub_channel(self._shop, action.anonymous_id),
        )

    def _eval(self, script_args: Sequence[tuple[str | bytes | int, ...]]) -> bool:
        if len(script_args) == 1:
            return bool(self._redis.evalsha(_PUBLISH_SCRIPT_SHA, 2, *script_args[0]))
        pipe = self._redis.pipeline(transaction=False)
        for call in script_args:
            pipe.evalsha(_PUBLISH_SCRIPT_SHA, 2, *call)
        return bool(pipe.execute()[-1])

    def _rebuild_cache(self) -> None:
        """If Redis is empty, restore the preloaded actions from the stream `actions`."""
        if not self._redis.exists(self._cache_ready_key):
            now, latest = self._clock(), dict[tuple[str, str], Send | Preload]()
            places = [(ACTIONS, p) for p in range(self._log.partitions)]
            ends = self._log.end_offsets(places)
            reader = self._log.reader(
                places, {place: max(-1, end - MAX_REBUILD_ACTIONS) for place, end in ends.items()}
            )
            try:
                left = {place: end for place, end in ends.items() if end >= 0}
                until = time.monotonic() + REBUILD_TIMEOUT
                while left and time.monotonic() < until:
                    for record in reader.poll(1000, 0.1):
                        if record.offset >= left.get((record.stream, record.partition), record.offset + 1):
                            del left[record.stream, record.partition]
                        if not record.value.startswith(_BROWSER_ACTIONS):
                            continue
                        try:
                            action = actions.decode_action(record.value)
                        except DECODE_ERRORS:  # another version, or a foreign record
                            continue
                        if isinstance(action, Send | Preload) and action.not_after > now:
                            latest[action.anonymous_id, action.campaign] = action
                        elif isinstance(action, Cancel):
                            latest.pop((action.anonymous_id, action.campaign), None)
            finally:
                reader.close()
            pipe = self._redis.pipeline(transaction=False)
            for action in latest.values():
                key = preloaded_key(self._shop, action.anonymous_id)
                pipe.hsetnx(key, action.campaign, _encode(browser_payload(action, self._shop, now)))
                pipe.pexpire(key, action.not_after - now, nx=True)
                pipe.pexpire(key, action.not_after - now, gt=True)
            pipe.set(self._cache_ready_key, now)  # last: an interrupted rebuild runs again
            pipe.execute()
        self._cache_ready = True

    def retry_redis(self) -> None:
        """Publish queued rows again, and check periodically whether Redis was emptied."""
        moment = time.monotonic()
        if moment < self._retry_at:
            return
        self._retry_at = moment + CACHE_CHECK_INTERVAL
        rows, self._redis_backlog = self._redis_backlog, []
        if rows:
            if feedback := self._publish_to_redis(rows):
                self._log.append(feedback)
            return
        try:
            self._rebuild_cache()
        except (redis.RedisError, OSError):
            self._cache_ready = False

    def pop_acknowledged(self) -> list[int]:
        """Return the commits acknowledged since the last call; raise LogError if an append failed."""
        if self._pending_appends:
            pending = []
            for append, seqs in self._pending_appends:
                if append.done():
                    self._logged_seqs += seqs
                else:
                    pending.append((append, seqs))
            self._pending_appends = pending
        if not self._logged_seqs:
            return []
        if not self._partially_sent:
            done, self._logged_seqs = self._logged_seqs, []
        else:
            done = [seq for seq in self._logged_seqs if seq not in self._partially_sent]
            self._logged_seqs = [seq for seq in self._logged_seqs if seq in self._partially_sent]
        for seq in done:
            del self._in_flight[seq]
        return done

    def pending_count(self) -> int:
        """Return the number of rows that are not acknowledged."""
        return self._in_flight.total()

    def close(self) -> None:
        self._redis.close()


def _suppressed_event(row: OutboxRow, action: Send) -> NewRecord:
    """Return the feedback event for a stale action; a duplicate has the same message id."""
    person = {"userId": action.person[2:]} if action.person.startswith("u:") else {"anonymousId": action.person[2:]}
    event = {
        "type": "track",
        "event": "Offer Suppressed",
        "messageId": f"suppressed-{action.id}",
        **person,
        "properties": {"action_id": action.id, "campaign": action.campaign, "reason": "stale"},
    }
    return NewRecord(PEOPLE, row.key, _encode(event))
