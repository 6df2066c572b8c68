"""What `attimo up` says in a terminal: one screen with the addresses and how each process fares.

On a terminal the table of processes is redrawn in place when something changes; elsewhere each change is one line.
"""

import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import IO, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors import metrics, valkey
from connectors.supervisor import Child
from connectors.wall_clock import on_the_wall
from domain.mistakes import Mistakes
from domain.settings import Settings

STYLES = {"ready": "green", "starting": "yellow", "waiting": "red", "stopped": "dim"}


def version() -> str:
    """The version of attimo, installed or in a clone that was not."""
    try:
        return metadata.version("attimo")
    except metadata.PackageNotFoundError:
        declared = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
        return str(declared["project"]["version"])


def addresses(settings: Settings) -> list[tuple[str, str]]:
    """What there is to open and how to feed it, as (word, line).

    >>> addresses(Settings(demo=True, port=9000))[0]
    ('shop', 'http://127.0.0.1:9000/shop/')
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    here = settings.public_url.rstrip("/") or f"http://{host}:{settings.port}"
    lines = [("shop", f"{here}/shop/")] if settings.demo else []
    lines.append(("live", f"{here}/live"))
    ports = [f"{metrics.port_of(settings, name)} {name}" for name in metrics.PROCESSES]
    lines.append(("metrics", f"http://127.0.0.1:PORT/metrics ({', '.join(ports)})" if settings.metrics_port else "off"))
    lines.append(("log", f"SQLite, in {settings.data}/log" if settings.log == "sqlite" else settings.log))
    lines.append(("messages", outbox(settings)))
    named = valkey.given(settings)
    redis = f"-u {valkey.without_password(named)}" if named else f"-s {settings.data}/run/redis.sock"
    lines.append(("listen", f"redis-cli {redis} psubscribe 'onsite:*'"))
    event = '{"type":"track","anonymousId":"me","event":"Product Viewed","properties":{"product_id":"scarf"}}'
    # Without a user agent it is nobody's browser and no robot either; curl's own would mark the person as a robot.
    lines.append(("feed", f"curl -A '' -u {settings.write_key}: {here}/v1/track -d '{event}'"))
    return lines


def outbox(settings: Settings) -> str:
    """Where messages go that are sent off the site.

    >>> outbox(Settings(channels=("file", "email:elsewhere")))
    'data/outbox/YYYY-MM-DD.jsonl (channels: file, email:elsewhere)'
    """
    named = ", ".join(settings.channels)
    return f"{settings.data}/outbox/YYYY-MM-DD.jsonl (channels: {named})" if "file" in named else f"channels: {named}"


def note(child: Child) -> str:
    """What is worth saying about a child beside its state."""
    if child.state == "waiting" and child.restarts:
        why = f": {child.last_words()}" if child.ended.startswith("exit") else ""
        return f"ended ({child.ended}), starts again in {child.backoff:g} s{why}"
    if child.restarts:
        times = "once" if child.restarts == 1 else f"{child.restarts} times"
        return f"started again {times}, last after {child.ended} (see {child.log})"
    return ""


class Screen:
    """The screen of `attimo up`, from its first line to its last."""

    def __init__(self, settings: Settings, children: Sequence[Child], file: IO[str] | None = None) -> None:
        self.settings = settings
        self.children = children
        self.console = Console(file=file, highlight=False)
        self._live: Live | None = None
        self._said: dict[str, tuple[str, int]] = {}
        self._was_ready = False
        self._wrong: list[Text] = []
        self._astray = ""
        self._open = ExitStack()

    def __enter__(self) -> Self:
        where = f"   data in {self.settings.data}/, playbook in {self.settings.playbook}/"
        self.line(Text(f"attimo {version()}", "bold"), Text(where))
        self.line()
        for word, line in addresses(self.settings):
            self.line(Text(f"  {word:<9}", "cyan"), Text(line))
        self.line()
        if self.console.is_terminal:
            self._live = self._open.enter_context(Live(self._picture(), console=self.console, auto_refresh=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def line(self, *parts: Text) -> None:
        """One line, never wrapped, so that it can be copied."""
        self.console.print(Text.assemble(*parts), soft_wrap=True)

    def mistakes(self, mistakes: Mistakes | None) -> None:
        """Say what is wrong with the playbook from now on; None: nothing is any more."""
        in_order = Text(f"  {self.settings.playbook}/ is in order again")
        said = [Text(f"  {line}") for line in mistakes.lines(on_the_wall)] if mistakes else [in_order]
        self._wrong = said if mistakes else []
        if self._live:
            self.show()
            return
        for line in said:
            self.line(line)

    def misrouted(self, problem: str) -> None:
        """Say that records lie in the wrong partition from now on; empty: they do no more."""
        before, self._astray = self._astray, problem
        if self._live:
            self.show()
        elif bool(before) != bool(problem):  # how many they are is no news
            self.line(Text(f"  {problem or 'records lie in the right partition again'}"))

    def show(self) -> None:
        """Say what has changed."""
        if self._live:
            self._live.update(self._picture(), refresh=True)
            return
        for child in self.children:
            now = (child.state, child.restarts)
            if self._said.get(child.program.name, ("waiting", 0)) != now:
                self._said[child.program.name] = now
                said = note(child)
                self.line(Text(f"  {child.program.name} is {child.state}" + (f"; {said}" if said else "")))
        ready = all(child.state == "ready" for child in self.children)
        if ready and not self._was_ready:
            self.line(Text(f"  {self._ready_line()}"))
        self._was_ready = ready

    def stopping(self) -> None:
        """Say that it ends."""
        self._open.close()
        self._live = None
        self.line(Text("  stopping; Ctrl-C once more kills what is left"))

    def stopped(self, killed: Sequence[str]) -> None:
        """The last line."""
        self.line(Text(f"  stopped; had to kill {', '.join(killed)}" if killed else "  stopped"))

    def _ready_line(self) -> str:
        return f"ready: open {addresses(self.settings)[0][1]} (Ctrl-C stops everything)"

    def _picture(self) -> Group:
        astray = [f"  {self._astray}"] if self._astray else []
        return Group(self._table(), *(Text(line, "red") for line in [*(said.plain for said in self._wrong), *astray]))

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2), pad_edge=True)
        for child in self.children:
            table.add_row(child.program.name, Text(child.state, STYLES[child.state]),
                          str(child.pid or ""), Text(note(child), "dim"))
        if all(child.state == "ready" for child in self.children):
            table.caption = Text(self._ready_line(), "bold green", justify="left")
        else:
            table.caption = Text("starting ...", "dim", justify="left")
        table.caption_justify = "left"
        return table
