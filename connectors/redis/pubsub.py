"""Subscriptions: one Redis connection for all channels, with a callback after each (re)subscription.

redis-py's own PubSub reconnects silently. The gateway must know about a reconnection, because it has to read the
messages that it missed from the hash of preloaded actions.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from connectors.metrics import EDGE_REDIS_CONNECTED

CONTROL_CHANNEL: Final = "attimo:gateway"
"""A channel without messages; it keeps the connection in subscribed mode."""

PING_INTERVAL: Final = 10.0
"""Seconds between two PINGs; a connection without a reply for three intervals is closed."""

logger = structlog.get_logger("gateway")


class Subscriptions:
    """Calls `on_message(channel, data)` for each message and `on_subscribed(channel)` after each confirmation."""

    def __init__(
        self, url: str, on_message: Callable[[str, bytes], None], on_subscribed: Callable[[str], None]
    ) -> None:
        self._client: Redis = Redis.from_url(
            url, protocol=2, socket_connect_timeout=2, socket_timeout=None, retry=Retry(NoBackoff(), 0)
        )
        self._on_message, self._on_subscribed = on_message, on_subscribed
        self._channels: set[str] = {CONTROL_CHANNEL}
        self._confirmed: set[str] = set()
        self._connection: Any = None
        self._send_lock = asyncio.Lock()
        self._last_received = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to listen; reconnect as needed."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    @property
    def connected(self) -> bool:
        """True while subscribed to Redis."""
        return CONTROL_CHANNEL in self._confirmed

    def is_confirmed(self, channel: str) -> bool:
        """Return True if Redis has confirmed this channel on the current connection."""
        return channel in self._confirmed

    async def add(self, channel: str) -> None:
        """Subscribe to a channel; `on_subscribed` is called when Redis confirms it."""
        self._channels.add(channel)
        await self._send("SUBSCRIBE", channel)

    async def remove(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        self._channels.discard(channel)
        self._confirmed.discard(channel)
        await self._send("UNSUBSCRIBE", channel)

    async def _send(self, *command: str) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            async with self._send_lock:
                await connection.send_command(*command)
        except (RedisError, OSError):
            pass  # _run notices the loss and subscribes to all channels again

    async def _run(self) -> None:
        pause, logged = 0.05, False
        while True:
            heartbeat: asyncio.Task[None] | None = None
            connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis has no type here
            try:
                await connection.connect()
                self._last_received = asyncio.get_running_loop().time()
                self._connection = connection
                async with self._send_lock:
                    await connection.send_command("SUBSCRIBE", *sorted(self._channels))
                heartbeat = asyncio.get_running_loop().create_task(self._heartbeat(connection))
                while True:
                    self._handle_reply(await connection.read_response(disable_decoding=True))
                    pause, logged = 0.05, False
            except (RedisError, OSError, TimeoutError) as error:
                if not logged:
                    logger.warning("Redis connection lost", error=type(error).__name__)
                    logged = True
            finally:
                self._connection = None
                self._confirmed.clear()
                EDGE_REDIS_CONNECTED.set(0)
                if heartbeat is not None:
                    heartbeat.cancel()
                try:
                    await connection.disconnect(nowait=True)
                except (RedisError, OSError):
                    pass
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    def _handle_reply(self, message: Any) -> None:
        self._last_received = asyncio.get_running_loop().time()
        if not isinstance(message, list) or len(message) != 3:
            return  # a reply to PING
        kind, channel, data = bytes(message[0]), bytes(message[1]).decode("utf-8", "replace"), message[2]
        if kind == b"message":
            self._on_message(channel, data)
        elif kind == b"subscribe" and channel in self._channels:
            self._confirmed.add(channel)
            if channel == CONTROL_CHANNEL:
                EDGE_REDIS_CONNECTED.set(1)
            else:
                self._on_subscribed(channel)

    async def _heartbeat(self, connection: Any) -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL)
            if asyncio.get_running_loop().time() - self._last_received > 3 * PING_INTERVAL:
                await connection.disconnect(nowait=True)
                return
            await self._send("PING")
