"""Subscriptions: one Redis connection that hears the channels somebody listens to, and says when it lost them.

The connection is ours to lose: redis-py's own PubSub reconnects silently, and a listener must know, because what was
published meanwhile has to be read from the armed set.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from connectors.metrics import EDGE_SUBSCRIBED

CONTROL: Final = "attimo:gateway"
"""A channel nobody writes to: it keeps the connection in subscribed mode."""

PING: Final = 10.0
"""Seconds between two proofs of life; a connection that is silent for three of them is dead."""

log = structlog.get_logger("gateway")


class Subscriptions:
    """`heard(channel, data)` for every message, `subscribed(channel)` each time Redis confirms (also after a loss)."""

    def __init__(self, url: str, heard: Callable[[str, bytes], None], subscribed: Callable[[str], None]) -> None:
        self._client: Redis = Redis.from_url(
            url, protocol=2, socket_connect_timeout=2, socket_timeout=None, retry=Retry(NoBackoff(), 0))
        self._heard, self._subscribed = heard, subscribed
        self._wanted: set[str] = {CONTROL}
        self._confirmed: set[str] = set()
        self._connection: Any = None
        self._sending = asyncio.Lock()
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, and keep at it."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    @property
    def alive(self) -> bool:
        """Whether Redis is heard at the moment."""
        return CONTROL in self._confirmed

    def is_confirmed(self, channel: str) -> bool:
        """Whether Redis has confirmed this channel on the connection that is open now."""
        return channel in self._confirmed

    async def add(self, channel: str) -> None:
        """Listen to a channel from now on; `subscribed` tells when it holds."""
        self._wanted.add(channel)
        await self._send("SUBSCRIBE", channel)

    async def remove(self, channel: str) -> None:
        """Listen to it no more."""
        self._wanted.discard(channel)
        self._confirmed.discard(channel)
        await self._send("UNSUBSCRIBE", channel)

    async def _send(self, *words: str) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            async with self._sending:
                await connection.send_command(*words)
        except (RedisError, OSError):
            pass  # the reader learns of the loss and subscribes to everything that is wanted again

    async def _run(self) -> None:
        pause, told = 0.05, False
        while True:
            beat: asyncio.Task[None] | None = None
            connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis has no type here
            try:
                await connection.connect()
                self._last = asyncio.get_running_loop().time()
                self._connection = connection
                async with self._sending:
                    await connection.send_command("SUBSCRIBE", *sorted(self._wanted))
                beat = asyncio.get_running_loop().create_task(self._beat(connection))
                while True:
                    self._take(await connection.read_response(disable_decoding=True))
                    pause, told = 0.05, False
            except (RedisError, OSError, TimeoutError) as wrong:
                if not told:
                    log.warning("Redis is away", because=type(wrong).__name__)
                    told = True
            finally:
                self._connection = None
                self._confirmed.clear()
                EDGE_SUBSCRIBED.set(0)
                if beat is not None:
                    beat.cancel()
                try:
                    await connection.disconnect(nowait=True)
                except (RedisError, OSError):
                    pass
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    def _take(self, message: Any) -> None:
        self._last = asyncio.get_running_loop().time()
        if not isinstance(message, list) or len(message) != 3:
            return  # an answer to PING
        kind, channel, data = bytes(message[0]), bytes(message[1]).decode("utf-8", "replace"), message[2]
        if kind == b"message":
            self._heard(channel, data)
        elif kind == b"subscribe" and channel in self._wanted:
            self._confirmed.add(channel)
            if channel == CONTROL:
                EDGE_SUBSCRIBED.set(1)
            else:
                self._subscribed(channel)

    async def _beat(self, connection: Any) -> None:
        while True:
            await asyncio.sleep(PING)
            if asyncio.get_running_loop().time() - self._last > 3 * PING:
                await connection.disconnect(nowait=True)
                return
            await self._send("PING")
