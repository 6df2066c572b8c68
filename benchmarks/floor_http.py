"""The floor of the edge: a minimal Starlette app that forwards posts to Redis, and Redis messages to streams.

    python -m benchmarks.floor_http      (settings from ATTIMO_*)

No log, no flow, no decisions, no validation. uvicorn serves it with the same loop and parser as the edge.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.data import MARKER_CAMPAIGN, MARKER_EVENT
from connectors.settings import load
from domain.action import pubsub_channel
from domain.settings import Settings

OK = Response(b'{"success":true}', media_type="application/json")


class Floor:
    """The handlers of the app and its Redis connection."""

    def __init__(self, settings: Settings) -> None:
        self._shop = settings.shop
        self._redis: Redis = Redis.from_url(settings.redis, protocol=2)
        self._listeners: dict[str, asyncio.Queue[bytes]] = {}
        self.app = Starlette(
            lifespan=self._lifespan,
            routes=[
                Route("/v1/track", self.post, methods=["POST"]),
                Route("/v1/page", self.post, methods=["POST"]),
                Route("/v1/stream", self.stream),
                Route("/healthz", self.health),
            ],
        )

    async def post(self, request: Request) -> Response:
        """Publish a marker; accept everything else."""
        event = orjson.loads(await request.body())
        if event.get("event") == MARKER_EVENT:
            who = event["anonymousId"]
            body = orjson.dumps({"type": "send", "campaign": MARKER_CAMPAIGN, "anonymous_id": who})
            await self._redis.publish(pubsub_channel(self._shop, who), body)
        return OK

    async def stream(self, request: Request) -> Response:
        """The SSE stream of one id."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._listeners[request.query_params["id"]] = queue

        async def events() -> AsyncIterator[bytes]:
            yield b"event: armed\ndata: []\n\n"
            while True:
                yield b"event: send\ndata: %s\n\n" % await queue.get()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def health(self, _: Request) -> Response:
        """Health check."""
        return Response(b"ok")

    async def _fan_out(self) -> None:
        """Forward one subscription to all streams."""
        async with self._redis.pubsub() as subscription:
            await subscription.psubscribe(pubsub_channel(self._shop, "*"))
            async for message in subscription.listen():
                if message["type"] == "pmessage":
                    queue = self._listeners.get(message["channel"].decode().rpartition(":")[2])
                    if queue is not None:
                        queue.put_nowait(message["data"])

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Subscribe to Redis while serving."""
        task = asyncio.create_task(self._fan_out())
        yield
        task.cancel()


def main() -> None:
    """Serve until SIGTERM."""
    settings = load({})
    uvicorn.run(
        Floor(settings).app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
