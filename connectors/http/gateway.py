"""The gateway: sends the actions for a browser over server-sent events (SSE).

    Redis onsite:{shop}:{id} ────▶ Subscriptions ─▶ Gateway ─▶ SseConnection ─▶ GET /v1/stream
    Redis preloaded:{shop}:{id} ────(snapshot)─────────┘

A stream needs a token, and a token needs the cookie that the collector bound to the id. The first event is `snapshot`:
the list of all current actions of the browser. It is sent again after a reconnection to Redis. If Redis is empty, the
gateway waits until the publisher has rebuilt the cache (`connectors/redis/publisher.py`).
"""

import asyncio
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from connectors.http import browser_binding
from connectors.http.browser_binding import MAX_TOKEN_LENGTH, TOKEN_TTL, Binder
from connectors.http.responses import Header, HTTPError, send_response
from connectors.metrics import EDGE_ACTIONS_DELIVERED, EDGE_SLOW_CONNECTIONS, EDGE_SSE_CONNECTIONS, EDGE_STALE_ACTIONS
from connectors.redis.pubsub import Subscriptions
from domain.action import cache_ready_key, preloaded_key, pubsub_channel
from domain.settings import Settings

MAX_QUEUED_EVENTS: Final = 64
"""Queued events of a slow browser; one more ends the stream. The browser reconnects and gets a snapshot."""

MAX_SENT_IDS: Final = 512
"""Action ids stored per stream."""


def sse_event(event: str, data: bytes) -> bytes:
    r"""Encode a server-sent event. JSON has no raw line breaks.

    >>> sse_event("snapshot", b"[]")
    b'event: snapshot\ndata: []\n\n'
    """
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)


class SseConnection:
    """One event stream of one browser. Live actions wait in `backlog` until the snapshot is sent (`synced`)."""

    __slots__ = (
        "_has_events",
        "_queue",
        "_sent_ids",
        "anonymous_id",
        "backlog",
        "ended",
        "generation",
        "snapshot_times",
        "synced",
    )

    def __init__(self, anonymous_id: str) -> None:
        self.anonymous_id = anonymous_id
        self.synced = False
        self.generation = 0
        self.backlog: list[dict[str, Any]] = []
        self.snapshot_times: dict[str, int] = {}
        self.ended = asyncio.Event()
        self._sent_ids: OrderedDict[str, None] = OrderedDict()
        self._queue: deque[bytes] = deque()
        self._has_events = asyncio.Event()

    def is_new(self, action: dict[str, Any]) -> bool:
        """Return True if a live action was sent neither live nor in the snapshot.

        The snapshot is read on another connection, so older live actions may arrive after it. An action that is not
        newer than the one of its campaign in the snapshot is already included.
        """
        campaign = action.get("campaign")
        if (
            isinstance(campaign, str)
            and campaign in self.snapshot_times
            and _action_time(action) <= self.snapshot_times[campaign]
        ):
            return False
        return action["id"] not in self._sent_ids

    def mark_sent(self, action_id: str) -> None:
        """Record that an action was sent."""
        self._sent_ids[action_id] = None
        if len(self._sent_ids) > MAX_SENT_IDS:
            self._sent_ids.popitem(last=False)

    def send_snapshot(self, actions: list[dict[str, Any]]) -> None:
        """Send the list of all current actions."""
        self.snapshot_times = {str(action.get("campaign")): _action_time(action) for action in actions}
        for action in actions:
            self.mark_sent(action["id"])
        self.enqueue(sse_event("snapshot", orjson.dumps(actions)))

    def enqueue(self, event: bytes) -> bool:
        """Queue an event. If the queue is full, end the stream and return False."""
        if len(self._queue) >= MAX_QUEUED_EVENTS:
            self.ended.set()
            return False
        self._queue.append(event)
        self._has_events.set()
        return True

    async def next_chunk(self, keep_alive: float) -> bytes:
        """Return all queued events, or a comment after `keep_alive` seconds without events."""
        if not self._queue:
            self._has_events.clear()
            try:
                async with asyncio.timeout(keep_alive):
                    await self._has_events.wait()
            except TimeoutError:
                return b": keep-alive\n\n"
        chunk = b"".join(self._queue)
        self._queue.clear()
        return chunk


def _action_time(action: dict[str, Any]) -> int:
    at = action.get("at")
    return at if isinstance(at, int) else 0


MAX_STREAMS_PER_ID: Final = 16
"""Maximum streams of one browser, one per tab."""

MAX_STREAMS: Final = 20_000
KEEP_ALIVE_INTERVAL: Final = 15.0
CACHE_READY_TIMEOUT: Final = 10.0
"""Seconds to wait until an empty Redis is rebuilt; then the snapshot is sent anyway."""
SSE_RETRY: Final = b"retry: 2000\n\n"
_ACTION_TYPES: Final = frozenset({"send", "preload", "cancel"})


def now_ms() -> int:
    """Return the wall clock in ms, for staleness."""
    return time.time_ns() // 1_000_000


class Gateway:
    """Manages all event streams of one process."""

    def __init__(
        self, settings: Settings, redis: Redis, url: str, binder: Binder, clock: Callable[[], int] = now_ms
    ) -> None:
        self._settings, self._redis, self._binder, self._clock = settings, redis, binder, clock
        self._connections: defaultdict[str, set[SseConnection]] = defaultdict(set)
        self._subscriptions = Subscriptions(url, self._on_message, self._on_subscribed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stream_count = 0
        self._stopping = False

    def start(self) -> None:
        """Subscribe to Redis."""
        self._subscriptions.start()

    async def stop(self) -> None:
        """End all streams and unsubscribe."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await self._subscriptions.stop()

    def end_streams(self) -> None:
        """End all streams, so that the server can stop; browsers reconnect by themselves."""
        self._stopping = True
        for connections in self._connections.values():
            for connection in connections:
                connection.ended.set()

    @property
    def connected(self) -> bool:
        """True while subscribed to Redis."""
        return self._subscriptions.connected

    async def issue_token(self, scope: Scope, body: bytes, send: Send, headers: list[Header]) -> None:
        """POST /v1/stream/token {anonymousId} -> {token, expires_in}; 403 without the cookie of that id."""
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise HTTPError(400, "invalid", f"body: is not JSON ({error})", "body") from error
        anonymous_id = parsed.get("anonymousId") if isinstance(parsed, dict) else None
        if not isinstance(anonymous_id, str) or not anonymous_id:
            raise HTTPError(400, "invalid", "anonymousId: should be text", "anonymousId")
        binding = self._binder.read_binding(scope)
        if binding is None or binding.anonymous_id != anonymous_id:
            raise HTTPError(403, "not_bound", "anonymousId: is not bound to this browser", "anonymousId")
        await self._binder.renew(binding)
        token = browser_binding.stream_token(self._settings.secret, self._settings.shop, binding, self._clock())
        await send_response(send, 200, orjson.dumps({"token": token, "expires_in": TOKEN_TTL}), headers)

    def _authenticate(self, scope: Scope, token: str) -> str:
        found = browser_binding.read_token(
            self._settings.secret,
            self._settings.shop,
            token[: MAX_TOKEN_LENGTH + 1],
            self._binder.read_binding(scope),
            self._clock(),
        )
        if found is None:
            raise HTTPError(403, "not_bound", "token: invalid or expired; request a new one", "token")
        return found

    async def stream(self, scope: Scope, receive: Receive, send: Send, headers: list[Header], token: str) -> None:
        """GET /v1/stream?token=: server-sent events until either side ends it."""
        anonymous_id = self._authenticate(scope, token)
        name = pubsub_channel(self._settings.shop, anonymous_id)
        if self._stream_count >= MAX_STREAMS or self._stopping:
            raise HTTPError(503, "at_capacity", "stream: server is at capacity; retry later", retry_after=10)
        if len(self._connections.get(name, ())) >= MAX_STREAMS_PER_ID:
            raise HTTPError(429, "too_many_streams", "stream: too many open streams for this browser", retry_after=10)
        connection = SseConnection(anonymous_id)
        self._stream_count += 1
        EDGE_SSE_CONNECTIONS.inc()
        self._connections[name].add(connection)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"text/event-stream; charset=utf-8"),
                        (b"cache-control", b"no-store"),
                        (b"x-accel-buffering", b"no"),
                        (b"x-content-type-options", b"nosniff"),
                        *headers,
                    ],
                }
            )
            await send({"type": "http.response.body", "body": SSE_RETRY, "more_body": True})
            if len(self._connections[name]) == 1:
                await self._subscriptions.add(name)
            elif self._subscriptions.is_confirmed(name):
                self._schedule_snapshot(connection)
            loop = asyncio.get_running_loop()
            writing = loop.create_task(_write_events(connection, send))
            tasks = [writing, loop.create_task(_until_disconnect(receive)), loop.create_task(connection.ended.wait())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if connection.ended.is_set():
                await self._end_stream(send, writing)
        finally:
            for task in tasks:
                task.cancel()
            self._stream_count -= 1
            EDGE_SSE_CONNECTIONS.dec()
            connections = self._connections[name]
            connections.discard(connection)
            if not connections:
                del self._connections[name]
                await self._subscriptions.remove(name)

    @staticmethod
    async def _end_stream(send: Send, write_task: asyncio.Task[Any]) -> None:
        """End a stream from the server side. If the browser does not read, uvicorn closes the connection."""
        write_task.cancel()
        try:
            async with asyncio.timeout(0.5):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            pass

    def _on_subscribed(self, channel_name: str) -> None:
        """Send a snapshot after Redis confirmed a channel, also after a reconnection."""
        for connection in self._connections.get(channel_name, ()):
            self._schedule_snapshot(connection)

    def _schedule_snapshot(self, connection: SseConnection) -> None:
        connection.synced = False
        connection.generation += 1
        task = asyncio.get_running_loop().create_task(self._load_snapshot(connection, connection.generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load_snapshot(self, connection: SseConnection, generation: int) -> None:
        key, marker = preloaded_key(self._settings.shop, connection.anonymous_id), cache_ready_key(self._settings.shop)
        deadline = 0.0
        while connection.generation == generation and not connection.ended.is_set():
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.exists(marker)  # first, because a rebuild writes the marker last
                    pipe.hgetall(key)
                    is_ready, stored = await pipe.execute()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(0.2)
                continue
            deadline = deadline or time.monotonic() + CACHE_READY_TIMEOUT
            if not is_ready and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                continue
            if connection.generation != generation:
                return
            now = self._clock()
            actions = [action for action in map(_parse_action, stored.values()) if action is not None]
            connection.send_snapshot(
                [_with_time_left(action, now) for action in actions if not self._is_stale(action, now)]
            )
            EDGE_ACTIONS_DELIVERED.labels("snapshot").inc()
            connection.synced = True
            backlog, connection.backlog = connection.backlog, []
            for action in backlog:
                self._deliver(connection, action, now)
            return

    def _on_message(self, channel_name: str, data: bytes) -> None:
        connections = self._connections.get(channel_name)
        action = _parse_action(data) if connections else None
        if action is None or not connections:
            return
        now = self._clock()
        for connection in tuple(connections):
            if connection.synced:
                self._deliver(connection, action, now)
            else:
                connection.backlog.append(action)
                if len(connection.backlog) > MAX_STREAMS_PER_ID * 16:
                    connection.ended.set()

    def _deliver(self, connection: SseConnection, action: dict[str, Any], now: int) -> None:
        if not connection.is_new(action) or self._is_stale(action, now):
            return
        connection.mark_sent(action["id"])
        if connection.enqueue(sse_event(action["type"], orjson.dumps(_with_time_left(action, now)))):
            EDGE_ACTIONS_DELIVERED.labels(action["type"]).inc()
        else:
            EDGE_SLOW_CONNECTIONS.inc()

    @staticmethod
    def _is_stale(action: dict[str, Any], now: int) -> bool:
        if action["type"] == "cancel" or action["not_after"] > now:
            return False
        EDGE_STALE_ACTIONS.inc()
        return True


def _parse_action(data: bytes | str) -> dict[str, Any] | None:
    """Parse a published action; return None for other messages (Redis may be shared)."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.get("type") not in _ACTION_TYPES or not isinstance(found.get("id"), str):
        return None
    if found["type"] != "cancel" and type(found.get("not_after")) is not int:
        return None
    return found


def _with_time_left(action: dict[str, Any], now: int) -> dict[str, Any]:
    """Add the remaining time at the moment of sending, because clocks of browsers are unreliable."""
    if "not_after" not in action:
        return action
    return {**action, "expires_in_ms": action["not_after"] - now}


async def _write_events(connection: SseConnection, send: Send) -> None:
    while True:
        body = await connection.next_chunk(KEEP_ALIVE_INTERVAL)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_disconnect(receive: Receive) -> None:
    while True:
        if (await receive())["type"] == "http.disconnect":
            return
