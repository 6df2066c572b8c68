"""The whole house for tests: real processes, a real Redis, a log and a store in a temporary folder; kill -9 at will."""

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
from connectors.log import Log
from connectors.open_log import open_log
from connectors.scrape import Samples, scrape
from domain.record import Record
from domain.settings import Settings
from state import codec
from state.person import Person
from state.store import StoreError
from state.store_sqlite import SqliteStore
from tests.support import ROOT, free_port, redis_server

HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
}
SECRETS = {"ATTIMO_SECRET": "a-secret-of-the-tests", "ATTIMO_SERVER_KEY": "server-key"}


class House:
    """Processes of attimo over one data folder."""

    def __init__(self, folder: Path, redis: str, playbook: Path, **settings: Any) -> None:
        self.settings = Settings(
            data=str(folder), redis=redis, playbook=str(playbook), port=free_port(),
            **{"demo": True, "rate_per_key": 1_000_000, "metrics_port": 0, **settings})
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        plain = {f"ATTIMO_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
                 for name, value in msgspec.structs.asdict(self.settings).items()
                 if value not in ("", ()) and name not in ("server_key", "secret")}
        return {**os.environ, **plain, **SECRETS, "PYTHONPATH": str(ROOT), **extra}

    def start(self, name: str, crash_at: str = "", worker: str = "") -> None:
        extra = {"ATTIMO_CRASH_AT": crash_at} if crash_at else {}
        command = [sys.executable, "-m", "attimo", "run", name, *(["--worker", worker] if worker else [])]
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name + worker] = subprocess.Popen(
                command, env=self.environment(extra), cwd=self.folder, stdout=out, stderr=out)
        if name == "edge" and not crash_at:
            self.wait(self.healthy, "the edge answers")

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        """The clean stop; the exit code."""
        process = self.running.pop(name)
        process.terminate()
        return process.wait(60)

    def died(self, name: str, timeout: float = 60) -> int:
        """Wait until a process has ended by itself; the exit code."""
        return self.running.pop(name).wait(timeout)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        self.running.clear()

    def wait(self, until: Callable[[], bool], what: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain: {what}\n{self.logs()}")
            time.sleep(0.02)

    def logs(self) -> str:
        ends = {path.name: path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")}
        return "\n".join(f"--- {name}\n{text}" for name, text in ends.items())

    # -- as a user ---------------------------------------------------------------------------------------------

    def post(self, path: str, body: Any, key: str | None = None, retries: int = 1_000) -> dict[str, Any]:
        """POST as a careful client does: again, with the same body, until the answer is there."""
        data = json.dumps({"writeKey": key or self.settings.write_key, **body}).encode()
        for _ in range(retries):
            try:
                request = urllib.request.Request(self.url + path, data, HEADERS)
                with urllib.request.urlopen(request, timeout=5) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except urllib.error.HTTPError as refused:
                if refused.code < 500 and refused.code != 429:
                    raise
            except (OSError, HTTPException):
                pass  # it died in mid-answer
            time.sleep(0.05)
        raise AssertionError(f"no answer from {path}\n{self.logs()}")

    def scraped(self, name: str) -> Samples:
        """What a process says of itself to Prometheus."""
        for _ in range(50):
            if (found := scrape(metrics.port_of(self.settings, name))) is not None:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{name} does not answer\n{self.logs()}")

    # -- looking inside ----------------------------------------------------------------------------------------

    def log(self) -> Log:
        return open_log(self.settings)

    def records(self, *streams: str) -> list[Record]:
        """Everything in these streams."""
        with self.log() as log:
            found: list[Record] = []
            for stream in streams:
                places = [(stream, p) for p in range(1 if stream == "models" else log.partitions)]
                ends = {place: end for place, end in log.ends(places).items() if end >= 0}
                for place, end in ends.items():
                    found += log.fetch(place, 0, end)
        return found

    def store(self) -> SqliteStore:
        return SqliteStore(self.folder / "store" / "store.db", self.settings.partitions, read_only=True)

    def persons(self) -> dict[str, Person]:
        try:
            store = self.store()
        except StoreError:
            return {}  # nothing was ever applied
        try:
            rows = [row for p in range(self.settings.partitions) for row in store.persons(p)]
            return {name: codec.decode(value) for name, value in rows}
        finally:
            store.close()

    def drained(self) -> bool:
        """Whether the on-site flow has applied everything in the log and nothing waits in the outbox.

        Where the log ends is looked at last: what was published meanwhile lies behind what had been applied before.
        """
        streams = ("clicks", "carts", "purchases", "people", "letters")
        try:
            store = self.store()
        except StoreError:
            return False  # it is not there yet
        try:
            heads = {p: store.head(p) for p in range(self.settings.partitions)}
            if store._db.execute("SELECT count(*) FROM outbox").fetchone()[0]:
                return False
            with self.log() as log:
                ends = log.ends([(stream, p) for stream in streams for p in heads])
            return all(end <= heads[p].positions.get(stream, -1) for (stream, p), end in ends.items())
        finally:
            store.close()


@contextmanager
def house(folder: Path, playbook: Path, **settings: Any) -> Iterator[House]:
    """A house with its own Redis; everything is ended at the end."""
    with redis_server() as redis:
        made = House(folder, redis, playbook, **settings)
        try:
            yield made
        finally:
            made.close()
