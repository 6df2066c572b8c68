"""`attimo top`: a live view in a terminal, with rates and latency, decisions and events.

It is read-only, so it can run beside all other processes.
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

from connectors import metrics
from connectors.clock import format_local_time
from connectors.http.live_feed import to_entry
from connectors.log.log import Log, Reader
from connectors.metrics import Samples, misrouted_warning, scrape
from connectors.playbook import status
from connectors.playbook.status import StatusWatcher
from domain import action as actions
from domain import action as messages
from domain.action import Action, CouponEvent, Message, SegmentChange, WorkflowProgress, target_name
from domain.record import ACTIONS, DEAD_LETTERS, MESSAGES, PUBLIC_STREAMS
from domain.settings import Settings

MAX_DECISIONS = 15
"""Number of decisions shown."""
MAX_EVENTS = 5
"""Number of events and dead letters shown."""
DEFAULT_WIDTH = 160
"""Width in characters if the output is not a terminal."""
MIN_COLUMN_WIDTHS = {"at": 8, "person": 8, "action": 6, "event": 6, "subject": 16}
"""Minimum widths by column; in a narrow terminal the other columns shrink first."""
LOOKBACK_OFFSETS = 40
"""Offsets per partition that the first poll goes back."""


def percentile(samples: Samples, name: str, quantile: float, previous: Samples | None = None) -> float | None:
    """Return a percentile of a histogram in seconds, since the samples `previous`; None without observations.

    Values between two bounds are interpolated; above the last bound the result is the last bound.

    >>> samples = {("t_bucket", "1.0"): 8.0, ("t_bucket", "2.0"): 10.0, ("t_bucket", "+Inf"): 10.0}
    >>> percentile(samples, "t", 0.9), percentile(samples, "t", 0.5), percentile({}, "t", 0.5)
    (1.5, 0.625, None)
    """
    bounds = sorted(
        (float(label), value - (previous or {}).get((metric, label), 0.0))
        for (metric, label), value in samples.items()
        if metric == name + "_bucket"
    )
    if not bounds or bounds[-1][1] <= 0:
        return None
    wanted, low, counted = quantile * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - counted) / (count - counted)
        low, counted = bound, count
    return low


class DecisionTail:
    """The newest decisions, segment changes and messages in the log."""

    def __init__(self, log: Log) -> None:
        places = [(stream, partition) for stream in (ACTIONS, MESSAGES) for partition in range(log.partitions)]
        ends = log.end_offsets(places)
        self._reader: Reader = log.reader(
            places, {place: max(-1, end - LOOKBACK_OFFSETS) for place, end in ends.items()}
        )
        self.newest: deque[Action | Message] = deque(maxlen=MAX_DECISIONS)

    def poll(self) -> None:
        """Read to the end of the log."""
        found: list[Action | Message] = []
        while records := self._reader.poll(1000, 0.0):
            for record in records:
                try:
                    found.append(_decode_decision(record.stream, record.value))
                except msgspec.DecodeError:  # written by another program or a later release
                    continue
        found.sort(key=lambda action: action.at)
        seen = {action.id for action in self.newest}
        self.newest.extend(action for action in found if action.id not in seen)


class EventTail:
    """The newest events and dead letters, in the format of `/live/feed`."""

    def __init__(self, log: Log) -> None:
        places = [
            (stream, partition) for stream in (*PUBLIC_STREAMS, DEAD_LETTERS) for partition in range(log.partitions)
        ]
        ends = log.end_offsets(places)
        self._reader: Reader = log.reader(places, {place: max(-1, end - MAX_EVENTS) for place, end in ends.items()})
        self.newest: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)

    def poll(self) -> None:
        """Read to the end of the log."""
        while records := self._reader.poll(1000, 0.0):
            self.newest.extend(sorted(filter(None, map(to_entry, records)), key=itemgetter("at")))


def _decode_decision(stream: str, value: bytes) -> Action | Message:
    return messages.decode_message(value) if stream == MESSAGES else actions.decode_action(value)


def describe_decision(action: Action | Message) -> tuple[str, str, str]:
    """Return the kind of a decision, its campaign or segment, and its reason.

    >>> because = actions.Explanation(trigger="exit_intent", passed=("cart.value >= 50",))
    >>> describe_decision(actions.Suppress(id="i", at=0, person="a:x", campaign="exit", because=because))
    ('suppress', 'exit', 'exit_intent; cart.value >= 50')
    """
    because = action.because
    reason = "; ".join(part for part in (because.reason, because.detail, because.trigger, *because.passed) if part)
    if isinstance(action, Message):
        return ("withdraw" if action.withdrawn_id else action.channel), action.campaign, reason
    if isinstance(action, SegmentChange):
        return ("entered" if action.entered else "exited"), action.segment, reason
    if isinstance(action, WorkflowProgress):
        return action.transition, target_name(action), reason
    if isinstance(action, CouponEvent):
        return action.status, target_name(action), reason
    return str(action.__struct_config__.tag), action.campaign, reason


def format_milliseconds(seconds: float | None) -> str:
    """Format a latency.

    >>> [format_milliseconds(seconds) for seconds in (0.00123, 2.5, metrics.BUCKETS[-1], None)]
    ['1.2 ms', '2500 ms', 'over 10 s', '-']
    """
    if seconds is not None and seconds >= metrics.BUCKETS[-1]:
        return f"over {metrics.BUCKETS[-1]:.0f} s"
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def format_latency(samples: Samples, previous: Samples | None = None) -> str:
    """Format the percentiles of the latency from the log to Redis."""
    quantiles = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    return ", ".join(
        f"{label} {format_milliseconds(percentile(samples, 'attimo_publish_latency_seconds', quantile, previous))}"
        for label, quantile in quantiles
    )


class TopView:
    """Polls metrics and log, keeps the previous samples for rates, and renders."""

    def __init__(self, settings: Settings, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = {name: metrics.metrics_port(settings, name) for name in metrics.PROCESSES}
        self._decision_tail = DecisionTail(log)
        self._status_watcher = StatusWatcher(status.status_path(settings.data))
        self._event_tail = EventTail(log)
        self._clock = clock
        self._samples: dict[str, Samples | None] = {}
        self._previous_samples: dict[str, Samples | None] = {}
        self._polled_at = self._interval = 0.0

    def poll(self) -> None:
        """Scrape every process and read the log once."""
        self._previous_samples = self._samples
        self._samples = {name: scrape(port) if port else None for name, port in self._ports.items()}
        now = self._clock()
        self._interval, self._polled_at = now - self._polled_at, now
        self._decision_tail.poll()
        self._status_watcher.poll()
        self._event_tail.poll()

    def render(self) -> RenderableType:
        """Render the result of the last poll."""
        errors = (
            [Text(line, "red") for line in self._status_watcher.status.report_lines(format_local_time)]
            if self._status_watcher.status
            else []
        )
        if warning := misrouted_warning(self._samples.get("onsite") or {}):
            errors.append(Text(warning, "red"))
        return Group(
            *errors,
            *([Text()] if errors else []),
            self._processes(),
            Text(),
            self._streams(),
            Text(),
            self._latency(),
            self._messages(),
            self._model(),
            Text(),
            self._events(),
            Text(),
            self._decisions(),
        )

    def _rate(self, process: str, key: tuple[str, str]) -> float | None:
        now, before = self._samples.get(process), self._previous_samples.get(process)
        return (
            (now.get(key, 0.0) - before.get(key, 0.0)) / self._interval if now and before and self._interval else None
        )

    def _processes(self) -> Table:
        table = borderless_table("process", "", "CPU", "memory")
        for name in self._ports:
            now, cpu = self._samples.get(name), self._rate(name, ("process_cpu_seconds_total", ""))
            if now is None:
                table.add_row(name, Text("no response", "red"), "", "")
            else:
                table.add_row(
                    name,
                    Text("running", "green"),
                    "-" if cpu is None else f"{cpu:.0%}",
                    f"{now.get(('process_resident_memory_bytes', ''), 0) / 1e6:.0f} MB",
                )
        return table

    def _streams(self) -> Table:
        now = self._samples.get("onsite") or {}
        table = borderless_table("stream", "records", "per second", "lag")
        for metric, stream in sorted(now):
            if metric == "attimo_records_applied_total":
                rate = self._rate("onsite", (metric, stream))
                table.add_row(
                    stream,
                    f"{now[metric, stream]:.0f}",
                    "-" if rate is None else f"{rate:.1f}",
                    f"{now.get(('attimo_lag_records', stream), 0):.0f}",
                )
        return table

    def _latency(self) -> Text:
        now, before = self._samples.get("onsite") or {}, self._previous_samples.get("onsite")
        recent = f"; since the last refresh: {format_latency(now, before)}" if before else ""
        return Text(f"latency from log to Redis: {format_latency(now)}{recent}")

    def _messages(self) -> Text:
        now = self._samples.get("outreach") or {}
        counts = [
            f"{value:.0f} {result}" for (name, result), value in sorted(now.items()) if name == "attimo_messages_total"
        ]
        pending = now.get(("attimo_messages_pending", ""), 0) + now.get(("attimo_lag_records", MESSAGES), 0)
        if not counts and not pending:
            return Text("messages: none yet", "dim")
        return Text(f"messages: {', '.join(counts) or 'none yet'}" + (f"; {pending:.0f} pending" if pending else ""))

    def _model(self) -> Text:
        now = self._samples.get("learning") or self._samples.get("onsite") or {}
        if not now.get(("attimo_model_version", "")):
            return Text("model: none yet", "dim")
        value = {
            name: now.get(("attimo_model_" + name, ""), 0.0)
            for name in ("version", "examples", "positives", "roc_auc", "log_loss", "base_log_loss")
        }
        return Text(
            "model {version:.0f}: {examples:.0f} examples, {positives:.0f} with an order, "
            "ROC AUC {roc_auc:.3f}, log loss {log_loss:.4f} (base rate {base_log_loss:.4f})".format(**value)
        )

    def _events(self) -> Table:
        table = borderless_table("at", "person", "event", "detail", "stream")
        today = datetime.now().astimezone().date()
        for entry in self._event_tail.newest:
            is_dead_letter = entry["kind"] == "dead_letter"
            table.add_row(
                format_local_time(entry["at"], today),
                entry["person"],
                Text(entry["subject"], "red" if is_dead_letter else ""),
                Text(entry["error" if is_dead_letter else "detail"]),
                entry["stream"],
            )
        if not self._event_tail.newest:
            table.add_row("", "", Text("no event yet", "dim"), "", "")
        return table

    def _decisions(self) -> Table:
        table = borderless_table("at", "person", "action", "subject", "reason")
        today = datetime.now().astimezone().date()
        for action in self._decision_tail.newest:
            kind, subject, reason = describe_decision(action)
            person = action.person if len(action.person) <= 20 else action.person[:19] + "…"
            table.add_row(format_local_time(action.at, today), Text(person), kind, Text(subject), Text(reason, "dim"))
        if not self._decision_tail.newest:
            table.add_row("", Text("no decision yet", "dim"), "", "", "")
        return table


def borderless_table(*columns: str) -> Table:
    """Return a table without borders."""
    table = Table(box=None, pad_edge=False, caption_justify="left", header_style="cyan", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, min_width=MIN_COLUMN_WIDTHS.get(column))
    return table


def top(settings: Settings, log: Log, once: bool = False, console: Console | None = None) -> None:
    """Print the view once, or refresh it every second until Ctrl-C."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = DEFAULT_WIDTH
    view = TopView(settings, log)
    view.poll()
    if once:
        console.print(view.render())
        return
    with suppress(KeyboardInterrupt), Live(view.render(), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(1)
            view.poll()
            live.update(view.render(), refresh=True)
