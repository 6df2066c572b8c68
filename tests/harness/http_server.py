"""An edge for tests: the real application on a real port, over a real log, in a thread of the test's process."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import redis as redis_client
import requests

from connectors.http.app import WEB_FOLDER, Edge, create_server
from connectors.log.log import Log
from connectors.log.sqlite import SqliteLog
from domain.action import cache_ready_key
from domain.record import PUBLIC_STREAMS, Record
from domain.settings import Settings
from tests.harness.support import free_port

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
SECRET, SERVER_KEY, WRITE_KEY = "a-secret-of-the-tests", "server-key-of-the-tests", "demo-browser"
__all__ = ["CHROME", "SECRET", "SERVER_KEY", "WEB_FOLDER", "WRITE_KEY", "RunningServer", "running_server"]


class RunningServer:
    """A running edge: its address, its settings, and what its log holds."""

    def __init__(self, settings: Settings, opened: Log) -> None:
        self.settings, self.log = settings, opened
        self.url = f"http://127.0.0.1:{settings.port}"

    def post(self, path: str, body: Any, key: str | None = WRITE_KEY, **more: Any) -> requests.Response:
        """POST JSON (or bytes) as a browser would."""
        headers = {"User-Agent": CHROME, "Content-Type": "text/plain", **more.pop("headers", {})}
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sender = more.pop("session", requests)
        found: requests.Response = sender.post(
            self.url + path, data=data, headers=headers, auth=(key, "") if key else None, timeout=10, **more
        )
        return found

    def records(self, *streams: str) -> list[Record]:
        """Everything in these streams, in the order of the log."""
        places = [(stream, number) for stream in streams or PUBLIC_STREAMS for number in range(self.log.partitions)]
        reader = self.log.reader(places, {})
        try:
            found: list[Record] = []
            while got := reader.poll(10_000, 0):
                found += got
            return found
        finally:
            reader.close()

    def events(self) -> list[dict[str, Any]]:
        """All public events."""
        return [orjson.loads(record.value) for record in self.records()]


@contextmanager
def running_server(folder: Path, redis_url: str, **more: Any) -> Iterator[RunningServer]:
    """Run an edge until the block ends."""
    settings = Settings(
        **{
            "data": str(folder),
            "redis": redis_url,
            "port": free_port(),
            "metrics_port": 0,
            "partitions": 4,
            "write_key": WRITE_KEY,
            "server_key": SERVER_KEY,
            "secret": SECRET,
            **more,
        }
    )
    with redis_client.Redis.from_url(redis_url) as client, suppress(redis_client.ConnectionError):
        client.set(cache_ready_key(settings.shop), 1)  # as an onsite flow does that runs beside it
    running = create_server(Edge(settings, lambda: SqliteLog(Path(settings.data), settings.partitions)))
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(running.serve())
        except BaseException as error:  # shown by the test that waits for the edge
            wrong.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not running.started and not wrong:
        assert time.monotonic() < end, "the edge did not start"
        time.sleep(0.005)
    assert not wrong, wrong
    try:
        with SqliteLog(folder, settings.partitions) as opened:
            yield RunningServer(settings, opened)
    finally:
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the edge did not stop"
