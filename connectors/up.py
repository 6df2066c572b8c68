"""`attimo up`: the whole house on one machine. Which programs there are, when each is ready, the loop around them."""

import errno
import http.client
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from connectors import metrics, misrouted, mistakes_file, valkey
from connectors.channel import routes
from connectors.settings import with_secret
from connectors.signals import Signals
from connectors.supervisor import Program, Supervisor
from connectors.terminal import Screen
from domain.settings import SECRET_FIELDS, Settings

STOP_ORDER = ("edge", "onsite", "outreach", "learning", "redis")
"""First nobody comes in, then what has come in is dealt with, and what was said is kept last."""
LOOK = 1.0
"""Seconds after which what is wrong with the playbook is seen at the latest."""


def environment(settings: Settings) -> dict[str, str]:
    """The environment of the children: ours, and every setting in force, so that a flag of `up` reaches all of them.

    >>> environment(Settings(port=9000, origins=("https://a.example", "https://b.example")))["ATTIMO_ORIGINS"]
    'https://a.example,https://b.example'
    """
    passed = dict(os.environ, PYTHONUNBUFFERED="1")
    for name, value in msgspec.structs.asdict(settings).items():
        if name not in SECRET_FIELDS:
            passed["ATTIMO_" + name.upper()] = ",".join(value) if isinstance(value, tuple) else plain(value)
    return passed


def plain(value: Any) -> str:
    """A setting as the environment writes it.

    >>> plain(True), plain(64)
    ('true', '64')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def programs(settings: Settings, attimo: Sequence[str]) -> list[Program]:
    """What to start, in this order. `attimo` is the command line of attimo itself."""
    found = []
    if not valkey.given(settings):
        path = valkey.socket_path(settings)
        found.append(Program("redis", valkey.command(settings), lambda: valkey.answers(path), gate=True))
    for name in ("edge", "onsite", "outreach", "learning"):
        port = metrics.port_of(settings, name)
        ready = partial(healthy, settings) if name == "edge" else partial(listens, port)
        found.append(Program(name, (*attimo, "run", name), ready))
    return found


def healthy(settings: Settings) -> bool:
    """Whether the edge answers GET /healthz with 200."""
    host = "127.0.0.1" if settings.host in {"", "0.0.0.0"} else settings.host  # noqa: S104 - compared, not bound
    line = http.client.HTTPConnection(host, settings.port, timeout=0.5)
    try:
        line.request("GET", "/healthz")
        return line.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()


def listens(port: int) -> bool:
    """Whether somebody listens on this loopback port; yes when there is none to ask (0)."""
    if not port:
        return True
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        return False


def free(host: str, port: int, setting: str) -> None:
    """ValueError when somebody else has this port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as wrong:
            if wrong.errno == errno.EADDRINUSE:
                flag = setting.replace("_", "-")
                raise ValueError(f"{setting}: {port} on {host} is in use; choose another with --{flag}") from wrong
            raise ValueError(f"{setting}: cannot listen on {host} port {port}: {wrong.strerror}") from wrong


def up(settings: Settings, attimo: Sequence[str] = (sys.executable, "-m", "attimo")) -> int:
    """Run everything until a stop signal; 0 when all stopped by themselves. ValueError when it cannot begin."""
    data = Path(settings.data)
    if named := valkey.given(settings):
        valkey.check(named)
    with_secret(settings)
    routes(settings.channels)
    supervisor = Supervisor(data / "run", environment(settings))  # the lock first: it may be running already
    with supervisor:
        free(settings.host, settings.port, "port")
        for name in metrics.PROCESSES:
            if port := metrics.port_of(settings, name):
                free("127.0.0.1", port, "metrics_port")
        supervisor.add(programs(settings, attimo), STOP_ORDER)
        playbook = mistakes_file.Look(mistakes_file.path_of(settings.data))
        mistakes_file.tell(playbook.path, None)  # what was wrong when the house stopped may be right by now
        astray = misrouted.Look(settings)
        with Signals() as signals, Screen(settings, supervisor.children) as screen:
            while not signals.stopping:
                if supervisor.turn():
                    screen.show()
                if playbook.again():
                    screen.mistakes(playbook.now)
                if astray.again():
                    screen.misrouted(astray.now)
                signals.wait(min(supervisor.next_turn(), LOOK))
            screen.stopping()
            killed = supervisor.close(hurry=lambda: signals.stopping > 1)
            screen.stopped(killed)
    return 1 if killed else 0
