"""A running attimo for tests: real processes, a real Redis, a log and a store in a temporary folder."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec

from connectors import metrics
from connectors.log.log import Log
from connectors.log.open import open_log
from connectors.metrics import Samples, scrape
from domain.record import Record
from domain.settings import Settings
from state.person import codec
from state.person.model import Person
from state.store.sqlite import SqliteStore
from state.store.store import StoreError
from tests.harness.support import ROOT, free_port, redis_server

HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
}
SECRETS = {"ATTIMO_SECRET": "a-secret-of-the-tests", "ATTIMO_SERVER_KEY": "server-key"}


class RunningInstance:
    """Processes of attimo over one data folder."""

    def __init__(self, folder: Path, redis_url: str, playbook: Path, **settings: Any) -> None:
        self.settings = Settings(
            data=str(folder),
            redis=redis_url,
            playbook=str(playbook),
            port=free_port(),
            **{"demo": True, "rate_limit_per_key": 1_000_000, "metrics_port": 0, **settings},
        )
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        plain = {
            f"ATTIMO_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in msgspec.structs.asdict(self.settings).items()
            if value not in ("", ()) and name not in ("server_key", "secret")
        }
        return {**os.environ, **plain, **SECRETS, "PYTHONPATH": str(ROOT), **extra}

    def start(self, name: str, crash_at: str = "", worker_share: str = "") -> None:
        extra = {"ATTIMO_CRASH_AT": crash_at} if crash_at else {}
        command = [sys.executable, "-m", "attimo", "run", name, *(["--worker", worker_share] if worker_share else [])]
        with (self.folder / f"{name}.log").open("ab") as out:
            self.processes[name + worker_share] = subprocess.Popen(
                command, env=self.environment(extra), cwd=self.folder, stdout=out, stderr=out
            )
        if name == "edge" and not crash_at:
            self.wait_until(self.is_healthy, "the edge is healthy")

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self, name: str) -> None:
        """Kill a process with SIGKILL."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        """Stop a process cleanly; return its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(60)

    def wait_for_exit(self, name: str, timeout: float = 60) -> int:
        """Wait until a process exits by itself; return its exit code."""
        return self.processes.pop(name).wait(timeout)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()

    def wait_until(self, condition: Callable[[], bool], description: str, timeout: float = 90) -> None:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"timeout after {timeout} s: {description}\n{self.logs()}")
            time.sleep(0.02)

    def logs(self) -> str:
        ends = {path.name: path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")}
        return "\n".join(f"--- {name}\n{text}" for name, text in ends.items())

    # -- as a client -------------------------------------------------------------------------------------------

    def post(self, path: str, body: Any, key: str | None = None, retries: int = 1_000) -> dict[str, Any]:
        """POST and retry with the same body until a response arrives."""
        data = json.dumps({"writeKey": key or self.settings.write_key, **body}).encode()
        for _ in range(retries):
            try:
                request = urllib.request.Request(self.url + path, data, HEADERS)
                with urllib.request.urlopen(request, timeout=5) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise
            except (OSError, HTTPException):
                pass  # the edge was killed during the response
            time.sleep(0.05)
        raise AssertionError(f"no response from {path}\n{self.logs()}")

    def scrape_metrics(self, name: str) -> Samples:
        """Scrape the metrics of a process."""
        for _ in range(50):
            if (found := scrape(metrics.metrics_port(self.settings, name))) is not None:
                return found
            time.sleep(0.1)
        raise AssertionError(f"no metrics from {name}\n{self.logs()}")

    # -- inspection --------------------------------------------------------------------------------------------

    def open_log(self) -> Log:
        return open_log(self.settings)

    def records(self, *streams: str) -> list[Record]:
        """All records of these streams."""
        with self.open_log() as log:
            found: list[Record] = []
            for stream in streams:
                stream_partitions = [(stream, p) for p in range(1 if stream == "models" else log.partitions)]
                ends = {key: end for key, end in log.end_offsets(stream_partitions).items() if end >= 0}
                for key, end in ends.items():
                    found += log.fetch(key, 0, end)
        return found

    def store(self) -> SqliteStore:
        return SqliteStore(self.folder / "store" / "store.db", self.settings.partitions, read_only=True)

    def persons(self) -> dict[str, Person]:
        try:
            store = self.store()
        except StoreError:
            return {}  # the store does not exist yet
        try:
            rows = [row for p in range(self.settings.partitions) for row in store.persons(p)]
            return {name: codec.decode(value) for name, value in rows}
        finally:
            store.close()

    def is_drained(self) -> bool:
        """Whether the on-site flow has applied the whole log and its outbox is empty.

        The log ends are read last, so that records published meanwhile count as not applied.
        """
        streams = ("clicks", "carts", "purchases", "people", "shard-messages")
        try:
            store = self.store()
        except StoreError:
            return False  # the store does not exist yet
        try:
            checkpoints = {p: store.shard_checkpoint(p) for p in range(self.settings.partitions)}
            if store._db.execute("SELECT count(*) FROM outbox").fetchone()[0]:
                return False
            with self.open_log() as log:
                ends = log.end_offsets([(stream, p) for stream in streams for p in checkpoints])
            return all(end <= checkpoints[p].positions.get(stream, -1) for (stream, p), end in ends.items())
        finally:
            store.close()


@contextmanager
def running_instance(folder: Path, playbook: Path, **settings: Any) -> Iterator[RunningInstance]:
    """A running instance with its own Redis."""
    with redis_server() as redis:
        made = RunningInstance(folder, redis, playbook, **settings)
        try:
            yield made
        finally:
            made.close()
