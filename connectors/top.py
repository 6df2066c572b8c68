"""`attimo top`: what is happening, in a terminal. Rates and latency from the metrics, decisions, events and
rejects from the log.

It only reads, so it may run beside anything. A process that does not answer is shown as such.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Any

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors import metrics, mistakes_file
from connectors.live_feed import line
from connectors.log import Log, Reader
from connectors.misrouted import problem_in
from connectors.mistakes_file import Look
from connectors.scrape import Samples, scrape
from connectors.wall_clock import on_the_wall
from domain import action as actions
from domain import message as messages
from domain.action import Action, CouponNews, Move, Progress, subject
from domain.message import Message
from domain.settings import Settings
from domain.streams import ACTIONS, MESSAGES, PUBLIC, REJECTS

LINES = 15
"""Decisions shown."""
EVENTS = 5
"""Events and rejects shown."""
WIDTH = 160
"""Columns where there is no terminal."""
LEAST = {"at": 8, "person": 8, "what": 6, "about": 16}
"""Columns that a narrow terminal may not take; the reasons give way first."""
BACK = 40
"""How far back (in offsets, by partition) the first look goes."""


def percentile(samples: Samples, name: str, share: float, before: Samples | None = None) -> float | None:
    """A percentile of a histogram in seconds, of what came since `before`; None when nothing did.

    Between two bounds the value is interpolated; beyond the last bound it is the last bound.

    >>> some = {("t_bucket", "1.0"): 8.0, ("t_bucket", "2.0"): 10.0, ("t_bucket", "+Inf"): 10.0}
    >>> percentile(some, "t", 0.9), percentile(some, "t", 0.5), percentile({}, "t", 0.5)
    (1.5, 0.625, None)
    """
    bounds = sorted((float(label), value - (before or {}).get((metric, label), 0.0))
                    for (metric, label), value in samples.items() if metric == name + "_bucket")
    if not bounds or bounds[-1][1] <= 0:
        return None
    wanted, low, counted = share * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - counted) / (count - counted)
        low, counted = bound, count
    return low


class Tail:
    """The newest decisions, segment moves and messages in the log."""

    def __init__(self, log: Log) -> None:
        places = [(stream, partition) for stream in (ACTIONS, MESSAGES) for partition in range(log.partitions)]
        ends = log.ends(places)
        self._reader: Reader = log.reader(places, {place: max(-1, end - BACK) for place, end in ends.items()})
        self.newest: deque[Action | Message] = deque(maxlen=LINES)

    def look(self) -> None:
        """Read on, to the end of the log."""
        found: list[Action | Message] = []
        while records := self._reader.poll(1000, 0.0):
            for record in records:
                try:
                    found.append(_read(record.stream, record.value))
                except msgspec.DecodeError:  # written by somebody else, or by a later release
                    continue
        found.sort(key=lambda action: action.at)
        seen = {action.id for action in self.newest}
        self.newest.extend(action for action in found if action.id not in seen)


class News:
    """The newest events, and what was refused, in the words of the page `/live`."""

    def __init__(self, log: Log) -> None:
        places = [(stream, partition) for stream in (*PUBLIC, REJECTS) for partition in range(log.partitions)]
        ends = log.ends(places)
        self._reader: Reader = log.reader(places, {place: max(-1, end - EVENTS) for place, end in ends.items()})
        self.newest: deque[dict[str, Any]] = deque(maxlen=EVENTS)

    def look(self) -> None:
        """Read on, to the end of the log."""
        while records := self._reader.poll(1000, 0.0):
            self.newest.extend(sorted(filter(None, map(line, records)), key=itemgetter("at")))


def _read(stream: str, value: bytes) -> Action | Message:
    return messages.decode(value) if stream == MESSAGES else actions.decode(value)


def sentence(action: Action | Message) -> tuple[str, str, str]:
    """A decision in words: what, about which campaign or segment, and why.

    >>> because = actions.Because(trigger="exit_intent", held=("cart.value >= 50",))
    >>> sentence(actions.Hold(id="i", at=0, person="a:x", campaign="exit", because=because))
    ('hold', 'exit', 'exit_intent; cart.value >= 50')
    """
    because = action.because
    said = "; ".join(part for part in (because.reason, because.detail, because.trigger, *because.held) if part)
    if isinstance(action, Message):
        return ("withdraw" if action.withdraws else action.channel), action.campaign, said
    if isinstance(action, Move):
        return ("enters" if action.entered else "leaves"), action.segment, said
    if isinstance(action, (Progress, CouponNews)):
        return action.what, subject(action), said
    return type(action).__name__.lower(), action.campaign, said


def milliseconds(seconds: float | None) -> str:
    """How a latency is written.

    >>> milliseconds(0.00123), milliseconds(2.5), milliseconds(metrics.BUCKETS[-1]), milliseconds(None)
    ('1.2 ms', '2500 ms', 'over 10 s', '-')
    """
    if seconds is not None and seconds >= metrics.BUCKETS[-1]:
        return f"over {metrics.BUCKETS[-1]:.0f} s"
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def latency(samples: Samples, before: Samples | None = None) -> str:
    """The percentiles of the way from the log to Redis, as a line."""
    shares = (("p50", .5), ("p99", .99), ("p99.9", .999))
    return ", ".join(f"{word} {milliseconds(percentile(samples, 'attimo_latency_seconds', share, before))}"
                     for word, share in shares)


class Top:
    """Looks, remembers the last look, and draws."""

    def __init__(self, settings: Settings, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = {name: metrics.port_of(settings, name) for name in metrics.PROCESSES}
        self._tail = Tail(log)
        self._mistakes = Look(mistakes_file.path_of(settings.data))
        self._news = News(log)
        self._clock = clock
        self._now: dict[str, Samples | None] = {}
        self._before: dict[str, Samples | None] = {}
        self._at = self._seconds = 0.0

    def look(self) -> None:
        """Ask every process and the log once."""
        self._before = self._now
        self._now = {name: scrape(port) if port else None for name, port in self._ports.items()}
        now = self._clock()
        self._seconds, self._at = now - self._at, now
        self._tail.look()
        self._mistakes.again()
        self._news.look()

    def picture(self) -> RenderableType:
        """What the last look saw."""
        wrong = [Text(said, "red") for said in self._mistakes.now.lines(on_the_wall)] if self._mistakes.now else []
        if astray := problem_in(self._now.get("onsite") or {}):
            wrong.append(Text(astray, "red"))
        return Group(*wrong, *([Text()] if wrong else []), self._processes(), Text(), self._streams(), Text(),
                     self._latency(), self._messages(), self._model(), Text(), self._events(), Text(),
                     self._decisions())

    def _rate(self, process: str, key: tuple[str, str]) -> float | None:
        now, before = self._now.get(process), self._before.get(process)
        return (now.get(key, 0.0) - before.get(key, 0.0)) / self._seconds if now and before and self._seconds else None

    def _processes(self) -> Table:
        table = plain("process", "", "CPU", "memory")
        for name in self._ports:
            now, cpu = self._now.get(name), self._rate(name, ("process_cpu_seconds_total", ""))
            if now is None:
                table.add_row(name, Text("does not answer", "red"), "", "")
            else:
                table.add_row(name, Text("running", "green"), "-" if cpu is None else f"{cpu:.0%}",
                              f"{now.get(('process_resident_memory_bytes', ''), 0) / 1e6:.0f} MB")
        return table

    def _streams(self) -> Table:
        now = self._now.get("onsite") or {}
        table = plain("stream", "events", "per second", "not yet read")
        for metric, stream in sorted(now):
            if metric == "attimo_events_total":
                rate = self._rate("onsite", (metric, stream))
                table.add_row(stream, f"{now[metric, stream]:.0f}", "-" if rate is None else f"{rate:.1f}",
                              f"{now.get(('attimo_lag', stream), 0):.0f}")
        return table

    def _latency(self) -> Text:
        now, before = self._now.get("onsite") or {}, self._before.get("onsite")
        lately = f"; since the last look: {latency(now, before)}" if before else ""
        return Text(f"from the log to Redis: {latency(now)}{lately}")

    def _messages(self) -> Text:
        now = self._now.get("outreach") or {}
        counts = [f"{value:.0f} {outcome}" for (name, outcome), value in sorted(now.items())
                  if name == "attimo_messages_total"]
        waiting = now.get(("attimo_messages_waiting", ""), 0) + now.get(("attimo_lag", MESSAGES), 0)
        if not counts and not waiting:
            return Text("messages: none yet", "dim")
        return Text(f"messages: {', '.join(counts) or 'none yet'}" + (f"; {waiting:.0f} waiting" if waiting else ""))

    def _model(self) -> Text:
        now = self._now.get("learning") or self._now.get("onsite") or {}
        if not now.get(("attimo_model_version", "")):
            return Text("model: none yet", "dim")
        value = {name: now.get(("attimo_model_" + name, ""), 0.0) for name in
                 ("version", "examples", "positives", "roc_auc", "log_loss", "base_log_loss")}
        return Text("model {version:.0f}: {examples:.0f} examples, {positives:.0f} with an order, "
                    "ROC AUC {roc_auc:.3f}, log loss {log_loss:.4f} (base rate {base_log_loss:.4f})".format(**value))

    def _events(self) -> Table:
        table = plain("at", "person", "what", "about", "stream")
        today = datetime.now().astimezone().date()
        for one in self._news.newest:
            refused = one["kind"] == "reject"
            table.add_row(on_the_wall(one["at"], today), one["who"], Text(one["what"], "red" if refused else ""),
                          Text(one["because" if refused else "detail"]), one["stream"])
        if not self._news.newest:
            table.add_row("", "", Text("no event yet", "dim"), "", "")
        return table

    def _decisions(self) -> Table:
        table = plain("at", "person", "what", "about", "because")
        today = datetime.now().astimezone().date()
        for action in self._tail.newest:
            kind, about, because = sentence(action)
            person = action.person if len(action.person) <= 20 else action.person[:19] + "…"
            table.add_row(on_the_wall(action.at, today), Text(person), kind, Text(about), Text(because, "dim"))
        if not self._tail.newest:
            table.add_row("", Text("no decision yet", "dim"), "", "", "")
        return table


def plain(*columns: str) -> Table:
    """A table without lines."""
    table = Table(box=None, pad_edge=False, caption_justify="left", header_style="cyan", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, min_width=LEAST.get(column))
    return table


def top(settings: Settings, log: Log, once: bool = False, console: Console | None = None) -> None:
    """Draw once, or again every second until Ctrl-C."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    view = Top(settings, log)
    view.look()
    if once:
        console.print(view.picture())
        return
    with suppress(KeyboardInterrupt), Live(view.picture(), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(1)
            view.look()
            live.update(view.picture(), refresh=True)
