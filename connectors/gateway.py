"""The gateway: what the engine publishes for one browser, pushed to that browser over server-sent events.

    Redis onsite:{shop}:{id} ─▶ Subscriptions ─▶ Gateway ─▶ Listener ─▶ GET /v1/stream
    Redis armed:{shop}:{id} ─────(first)────────────┘

A stream is opened only with a token, and the token only with the cookie that the collector bound to the id. The first
event is `armed`: the list of what the browser should hold now; it comes again, whole, after Redis was away. A Redis
that came back empty is asked once it was filled (`connectors/publisher.py`): what it does not know yet is not nothing.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from connectors import identity_tokens
from connectors.answers import Header, Problem, answer
from connectors.binding import Binder
from connectors.identity_tokens import MAX_TOKEN, TOKEN_SECONDS
from connectors.listener import Listener, sse
from connectors.metrics import EDGE_DELIVERED, EDGE_DROPPED, EDGE_LISTENERS, EDGE_STALE
from connectors.subscriptions import Subscriptions
from domain.action import armed_key, channel, filled_key
from domain.settings import Settings

PER_ID: Final = 16
"""Open streams of one browser: its tabs."""

TOTAL: Final = 20_000
KEEP_ALIVE: Final = 15.0
FILLED: Final = 10.0
"""Seconds that an empty Redis is given to be filled; after them there is nobody who could."""
RETRY: Final = b"retry: 2000\n\n"
_TYPES: Final = frozenset({"send", "arm", "disarm"})


def wall() -> int:
    """The wall clock, ms: staleness is measured against it."""
    return time.time_ns() // 1_000_000


class Gateway:
    """One per process."""

    def __init__(
        self, settings: Settings, redis: Redis, url: str, binder: Binder, clock: Callable[[], int] = wall
    ) -> None:
        self._settings, self._redis, self._binder, self._clock = settings, redis, binder, clock
        self._channels: defaultdict[str, set[Listener]] = defaultdict(set)
        self._subscriptions = Subscriptions(url, self._heard, self._subscribed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._ending = False

    def start(self) -> None:
        """Listen to Redis."""
        self._subscriptions.start()

    async def stop(self) -> None:
        """End all streams, then stop listening."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await self._subscriptions.stop()

    def end_streams(self) -> None:
        """Let every stream end, so that the server can stop; the browsers come back on their own."""
        self._ending = True
        for listeners in self._channels.values():
            for listener in listeners:
                listener.ended.set()

    @property
    def alive(self) -> bool:
        """Whether Redis is heard."""
        return self._subscriptions.alive

    async def token(self, scope: Scope, body: bytes, send: Send, headers: list[Header]) -> None:
        """POST /v1/stream/token {anonymousId} -> {token, expires_in}; 403 without the cookie of that id."""
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError as wrong:
            raise Problem(400, "unreadable", f"body: is not JSON ({wrong})", "body") from wrong
        anonymous_id = asked.get("anonymousId") if isinstance(asked, dict) else None
        if not isinstance(anonymous_id, str) or not anonymous_id:
            raise Problem(400, "unreadable", "anonymousId: should be text", "anonymousId")
        binding = self._binder.read(scope)
        if binding is None or binding.anonymous_id != anonymous_id:
            raise Problem(403, "not_bound", "anonymousId: is not bound to this browser", "anonymousId")
        await self._binder.renew(binding)
        token = identity_tokens.stream_token(self._settings.secret, self._settings.shop, binding, self._clock())
        await answer(send, 200, orjson.dumps({"token": token, "expires_in": TOKEN_SECONDS}), headers)

    def _who(self, scope: Scope, token: str) -> str:
        found = identity_tokens.read_token(
            self._settings.secret, self._settings.shop, token[:MAX_TOKEN + 1], self._binder.read(scope), self._clock())
        if found is None:
            raise Problem(403, "not_bound", "token: opens nothing here; ask for a new one", "token")
        return found

    async def stream(self, scope: Scope, receive: Receive, send: Send, headers: list[Header], token: str) -> None:
        """GET /v1/stream?token=: server-sent events until either side ends it."""
        anonymous_id = self._who(scope, token)
        name = channel(self._settings.shop, anonymous_id)
        if self._open >= TOTAL or self._ending:
            raise Problem(503, "full", "stream: no place left, try later", retry_after=10)
        if len(self._channels.get(name, ())) >= PER_ID:
            raise Problem(429, "too_many", "stream: this browser has too many open", retry_after=10)
        listener = Listener(anonymous_id)
        self._open += 1
        EDGE_LISTENERS.inc()
        self._channels[name].add(listener)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await send({
                "type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"),
                            (b"x-accel-buffering", b"no"), (b"x-content-type-options", b"nosniff"), *headers],
            })
            await send({"type": "http.response.body", "body": RETRY, "more_body": True})
            if len(self._channels[name]) == 1:
                await self._subscriptions.add(name)
            elif self._subscriptions.is_confirmed(name):
                self._restore(listener)
            loop = asyncio.get_running_loop()
            writing = loop.create_task(_write(listener, send))
            tasks = [writing, loop.create_task(_gone(receive)), loop.create_task(listener.ended.wait())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if listener.ended.is_set():
                await self._end(send, writing)
        finally:
            for task in tasks:
                task.cancel()
            self._open -= 1
            EDGE_LISTENERS.dec()
            listeners = self._channels[name]
            listeners.discard(listener)
            if not listeners:
                del self._channels[name]
                await self._subscriptions.remove(name)

    @staticmethod
    async def _end(send: Send, writing: asyncio.Task[Any]) -> None:
        """End a stream from our side. A browser that does not even read this is left to the server."""
        writing.cancel()
        try:
            async with asyncio.timeout(0.5):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            pass

    def _subscribed(self, name: str) -> None:
        """Redis confirmed a channel (for the first time, or again after it was away): the armed set comes next."""
        for listener in self._channels.get(name, ()):
            self._restore(listener)

    def _restore(self, listener: Listener) -> None:
        listener.ready = False
        listener.turn += 1
        task = asyncio.get_running_loop().create_task(self._read_armed(listener, listener.turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_armed(self, listener: Listener, turn: int) -> None:
        key, marker = armed_key(self._settings.shop, listener.anonymous_id), filled_key(self._settings.shop)
        until = 0.0
        while listener.turn == turn and not listener.ended.is_set():
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.exists(marker)  # first: the marker is the last thing that a fill writes
                    pipe.hgetall(key)
                    filled, kept = await pipe.execute()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(0.2)
                continue
            until = until or time.monotonic() + FILLED
            if not filled and time.monotonic() < until:
                await asyncio.sleep(0.1)
                continue
            if listener.turn != turn:
                return
            now = self._clock()
            actions = [action for action in map(_read, kept.values()) if action is not None]
            listener.armed([_as_of(action, now) for action in actions if not self._stale(action, now)])
            EDGE_DELIVERED.labels("armed").inc()
            listener.ready = True
            waiting, listener.waiting = listener.waiting, []
            for action in waiting:
                self._give(listener, action, now)
            return

    def _heard(self, name: str, data: bytes) -> None:
        listeners = self._channels.get(name)
        action = _read(data) if listeners else None
        if action is None or not listeners:
            return
        now = self._clock()
        for listener in tuple(listeners):
            if listener.ready:
                self._give(listener, action, now)
            else:
                listener.waiting.append(action)
                if len(listener.waiting) > PER_ID * 16:
                    listener.ended.set()

    def _give(self, listener: Listener, action: dict[str, Any], now: int) -> None:
        if not listener.is_news(action) or self._stale(action, now):
            return
        listener.remember(action["id"])
        if listener.give(sse(action["type"], orjson.dumps(_as_of(action, now)))):
            EDGE_DELIVERED.labels(action["type"]).inc()
        else:
            EDGE_DROPPED.inc()

    @staticmethod
    def _stale(action: dict[str, Any], now: int) -> bool:
        if action["type"] == "disarm" or action["not_after"] > now:
            return False
        EDGE_STALE.inc()
        return True


def _read(data: bytes | str) -> dict[str, Any] | None:
    """A published action; None for what is none (Redis is shared, and anybody may publish nonsense)."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.get("type") not in _TYPES or not isinstance(found.get("id"), str):
        return None
    if found["type"] != "disarm" and type(found.get("not_after")) is not int:
        return None
    return found


def _as_of(action: dict[str, Any], now: int) -> dict[str, Any]:
    """The action as it is handed over now: browsers' clocks are wrong, so the time left counts."""
    if "not_after" not in action:
        return action
    return {**action, "expires_in_ms": action["not_after"] - now}


async def _write(listener: Listener, send: Send) -> None:
    while True:
        body = await listener.next(KEEP_ALIVE)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while True:
        if (await receive())["type"] == "http.disconnect":
            return
