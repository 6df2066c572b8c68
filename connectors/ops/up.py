"""`attimo up`: runs all processes on one machine, and shows their addresses and states.

On a terminal the table of processes is redrawn in place when a state changes; elsewhere each change is one line.
"""

import errno
import http.client
import os
import socket
import sys
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors import metrics
from connectors.channels.channel import route_table
from connectors.clock import format_local_time
from connectors.ops.supervisor import ManagedProcess, Program, SignalWaiter, Supervisor
from connectors.playbook import status
from connectors.redis import server
from connectors.settings import with_secret
from domain.diagnostics import PlaybookStatus
from domain.settings import SECRET_FIELDS, Settings

STATE_STYLES = {"ready": "green", "starting": "yellow", "waiting": "red", "stopped": "dim"}


def version() -> str:
    """Return the version of attimo, installed or from the pyproject.toml of a clone."""
    try:
        return metadata.version("attimo")
    except metadata.PackageNotFoundError:
        declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
        return str(declared["project"]["version"])


def addresses(settings: Settings) -> list[tuple[str, str]]:
    """Return the addresses to open and example commands, as (label, line).

    >>> addresses(Settings(demo=True, port=9000))[0]
    ('shop', 'http://127.0.0.1:9000/shop/')
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    here = settings.public_url.rstrip("/") or f"http://{host}:{settings.port}"
    lines = [("shop", f"{here}/shop/")] if settings.demo else []
    lines.append(("live", f"{here}/live"))
    ports = [f"{metrics.metrics_port(settings, name)} {name}" for name in metrics.PROCESSES]
    lines.append(("metrics", f"http://127.0.0.1:PORT/metrics ({', '.join(ports)})" if settings.metrics_port else "off"))
    lines.append(("log", f"SQLite, in {settings.data}/log" if settings.log == "sqlite" else settings.log))
    lines.append(("messages", message_destination(settings)))
    url = server.configured_url(settings)
    redis = f"-u {server.redact_password(url)}" if url else f"-s {settings.data}/run/redis.sock"
    lines.append(("listen", f"redis-cli {redis} psubscribe 'onsite:*'"))
    event = '{"type":"track","anonymousId":"me","event":"Product Viewed","properties":{"product_id":"scarf"}}'
    # An empty user agent, because curl's own would be classified as a bot.
    lines.append(("feed", f"curl -A '' -u {settings.write_key}: {here}/v1/track -d '{event}'"))
    return lines


def message_destination(settings: Settings) -> str:
    """Describe where messages outside the site go.

    >>> message_destination(Settings(channels=("file", "email:external")))
    'data/outbox/YYYY-MM-DD.jsonl (channels: file, email:external)'
    """
    named = ", ".join(settings.channels)
    return f"{settings.data}/outbox/YYYY-MM-DD.jsonl (channels: {named})" if "file" in named else f"channels: {named}"


def process_detail(process: ManagedProcess) -> str:
    """Describe the restarts of a process; empty if there were none."""
    if process.state == "waiting" and process.restarts:
        detail = f": {process.last_log_line()}" if process.exit_reason.startswith("exit") else ""
        return f"exited ({process.exit_reason}), restarting in {process.backoff:g} s{detail}"
    if process.restarts:
        times = "1 time" if process.restarts == 1 else f"{process.restarts} times"
        return f"restarted {times}, last exit {process.exit_reason} (see {process.log_path})"
    return ""


class UpScreen:
    """The terminal output of `attimo up`."""

    def __init__(self, settings: Settings, processes: Sequence[ManagedProcess], file: IO[str] | None = None) -> None:
        self.settings = settings
        self.processes = processes
        self.console = Console(file=file, highlight=False)
        self._live: Live | None = None
        self._printed_states: dict[str, tuple[str, int]] = {}
        self._was_ready = False
        self._status_lines: list[Text] = []
        self._misrouted_warning = ""
        self._exit_stack = ExitStack()

    def __enter__(self) -> Self:
        where = f"   data in {self.settings.data}/, playbook in {self.settings.playbook}/"
        self.print_line(Text(f"attimo {version()}", "bold"), Text(where))
        self.print_line()
        for word, line in addresses(self.settings):
            self.print_line(Text(f"  {word:<9}", "cyan"), Text(line))
        self.print_line()
        if self.console.is_terminal:
            self._live = self._exit_stack.enter_context(Live(self._render(), console=self.console, auto_refresh=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit_stack.close()

    def print_line(self, *parts: Text) -> None:
        """Print one line without wrapping, so that it can be copied."""
        self.console.print(Text.assemble(*parts), soft_wrap=True)

    def show_playbook_status(self, status: PlaybookStatus | None) -> None:
        """Show the errors of the playbook; None if it is valid again."""
        valid = Text(f"  {self.settings.playbook}/: playbook is valid again")
        lines = [Text(f"  {line}") for line in status.report_lines(format_local_time)] if status else [valid]
        self._status_lines = lines if status else []
        if self._live:
            self.refresh()
            return
        for line in lines:
            self.print_line(line)

    def show_misrouted(self, warning: str) -> None:
        """Show the warning about misrouted records; empty if they are below the threshold again."""
        before, self._misrouted_warning = self._misrouted_warning, warning
        if self._live:
            self.refresh()
        elif bool(before) != bool(warning):  # print no changes of the ratio
            self.print_line(Text(f"  {warning or 'misrouted records are below the threshold again'}"))

    def refresh(self) -> None:
        """Show the states that have changed."""
        if self._live:
            self._live.update(self._render(), refresh=True)
            return
        for process in self.processes:
            now = (process.state, process.restarts)
            if self._printed_states.get(process.program.name, ("waiting", 0)) != now:
                self._printed_states[process.program.name] = now
                detail = process_detail(process)
                self.print_line(
                    Text(f"  {process.program.name} is {process.state}" + (f"; {detail}" if detail else ""))
                )
        ready = all(process.state == "ready" for process in self.processes)
        if ready and not self._was_ready:
            self.print_line(Text(f"  {self._ready_line()}"))
        self._was_ready = ready

    def show_stopping(self) -> None:
        """Show that the processes are being stopped."""
        self._exit_stack.close()
        self._live = None
        self.print_line(Text("  stopping; press Ctrl-C again to kill the remaining processes"))

    def show_stopped(self, killed: Sequence[str]) -> None:
        """Print the last line."""
        self.print_line(Text(f"  stopped; killed {', '.join(killed)}" if killed else "  stopped"))

    def _ready_line(self) -> str:
        return f"ready: open {addresses(self.settings)[0][1]} (press Ctrl-C to stop)"

    def _render(self) -> Group:
        warnings = [f"  {self._misrouted_warning}"] if self._misrouted_warning else []
        return Group(
            self._process_table(),
            *(Text(line, "red") for line in [*(line.plain for line in self._status_lines), *warnings]),
        )

    def _process_table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=True)
        for process in self.processes:
            table.add_row(
                process.program.name,
                Text(process.state, STATE_STYLES[process.state]),
                str(process.pid or ""),
                Text(process_detail(process), "dim"),
            )
        if all(process.state == "ready" for process in self.processes):
            table.caption = Text(self._ready_line(), "bold green", justify="left")
        else:
            table.caption = Text("starting ...", "dim", justify="left")
        table.caption_justify = "left"
        return table


STOP_ORDER = ("edge", "onsite", "outreach", "learning", "redis")
"""The edge stops accepting requests first, then the workers drain; Redis stops last."""
POLL_INTERVAL = 1.0
"""Maximum seconds between two checks of the playbook status."""


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the children: the current one and all settings, so that options of `up` apply.

    >>> settings = Settings(port=9000, allowed_origins=("https://a.example", "https://b.example"))
    >>> child_environment(settings)["ATTIMO_ALLOWED_ORIGINS"]
    'https://a.example,https://b.example'
    """
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    for name, value in msgspec.structs.asdict(settings).items():
        if name not in SECRET_FIELDS:
            text = ",".join(value) if isinstance(value, tuple) else env_value(value)
            environment["ATTIMO_" + name.upper()] = text
    return environment


def env_value(value: Any) -> str:
    """Format a setting for the environment.

    >>> env_value(True), env_value(64)
    ('true', '64')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def programs(settings: Settings, attimo_command: Sequence[str]) -> list[Program]:
    """Return the programs to start, in order. `attimo_command` is the command line of attimo."""
    found = []
    if not server.configured_url(settings):
        path = server.socket_path(settings)
        found.append(
            Program(
                "redis", server.server_command(settings), lambda: server.is_responding(path), must_be_ready_first=True
            )
        )
    for name in ("edge", "onsite", "outreach", "learning"):
        port = metrics.metrics_port(settings, name)
        ready = partial(is_healthy, settings) if name == "edge" else partial(is_listening, port)
        found.append(Program(name, (*attimo_command, "run", name), ready))
    return found


def is_healthy(settings: Settings) -> bool:
    """Return True if GET /healthz of the edge returns 200."""
    host = "127.0.0.1" if settings.host in {"", "0.0.0.0"} else settings.host  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, settings.port, timeout=0.5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_listening(port: int) -> bool:
    """Return True if a process listens on this loopback port, or if the port is 0."""
    if not port:
        return True
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        return False


def check_port_free(host: str, port: int, setting: str) -> None:
    """Raise ValueError if the port is in use."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                flag = setting.replace("_", "-")
                raise ValueError(f"{setting}: {port} on {host} is in use; use another one with --{flag}") from error
            raise ValueError(f"{setting}: cannot listen on {host} port {port}: {error.strerror}") from error


def run_up(settings: Settings, attimo_command: Sequence[str] = (sys.executable, "-m", "attimo")) -> int:
    """Run until a stop signal; return 1 if a process was killed, else 0. Raise ValueError if it cannot start."""
    data = Path(settings.data)
    if url := server.configured_url(settings):
        server.check_reachable(url)
    with_secret(settings)
    route_table(settings.channels)
    supervisor = Supervisor(
        data / "run", child_environment(settings)
    )  # first: takes the lock, so a second instance stops here
    with supervisor:
        check_port_free(settings.host, settings.port, "port")
        for name in metrics.PROCESSES:
            if port := metrics.metrics_port(settings, name):
                check_port_free("127.0.0.1", port, "metrics_port")
        supervisor.add(programs(settings, attimo_command), STOP_ORDER)
        playbook = status.StatusWatcher(status.status_path(settings.data))
        status.write_status(playbook.path, None)  # the stored errors may be outdated
        misrouted = metrics.MisroutedWatcher(settings)
        with SignalWaiter() as signals, UpScreen(settings, supervisor.processes) as screen:
            while not signals.stop_count:
                if supervisor.poll_once():
                    screen.refresh()
                if playbook.poll():
                    screen.show_playbook_status(playbook.status)
                if misrouted.poll():
                    screen.show_misrouted(misrouted.warning)
                signals.wait(min(supervisor.next_poll_delay(), POLL_INTERVAL))
            screen.show_stopping()
            killed = supervisor.close(kill_now=lambda: signals.stop_count > 1)
            screen.show_stopped(killed)
    return 1 if killed else 0
