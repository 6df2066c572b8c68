"""`attimo top`: what is in the metrics and in the log is what it draws."""

import io
import re
import socket
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from connectors import metrics
from connectors.log.open import open_log
from connectors.metrics import parse_samples, scrape
from connectors.ops.top import LOOKBACK_OFFSETS, MAX_DECISIONS, MAX_EVENTS, DecisionTail, percentile, top
from domain import action, record
from domain import action as messages
from domain.action import Message
from domain.model import Model, ModelQuality
from domain.record import NewRecord
from domain.settings import Settings
from tests.harness.support import free_port


def suppress_record(n: int, reason: str = "limit") -> NewRecord:
    because = action.Explanation(trigger="exit_intent", reason=reason)
    said = action.Suppress(id=f"h{n}", at=1_600_000_000_000 + n, person=f"a:{n}", campaign="exit", because=because)
    return NewRecord("actions", str(n).encode(), action.encode_action(said))


def draw_screen(settings: Settings) -> str:
    out = io.StringIO()
    with open_log(settings) as log:
        top(settings, log, once=True, console=Console(file=out, width=160))
    return out.getvalue()


def test_top_shows_metrics_and_newest_decisions(tmp_path: Path) -> None:
    port = free_port() - 10
    settings = Settings(data=str(tmp_path), metrics_port=port)
    metrics.RECORDS_APPLIED.labels("clicks").inc(7)
    metrics.PUBLISH_LATENCY.observe(0.0012)
    metrics.MISROUTED_RECORDS.inc(20)
    metrics.MISROUTED_RATIO.set(0.5)
    metrics.set_model_metrics(
        Model("propensity", 3, "h", {}, quality=ModelQuality(examples=40, positives=4, roc_auc=0.75))
    )
    with open_log(settings) as log:
        log.append([suppress_record(n) for n in range(MAX_DECISIONS + 5)])
        log.append([NewRecord("actions", b"x", b"not an action"), NewRecord("clicks", b"x", b"no event")])
        page = b'{"type":"page","anonymousId":"secret-id","properties":{"path":"/cups"}}'
        log.append([NewRecord("clicks", b"secret-id", page)] * (MAX_EVENTS - 1))
        refused = record.DeadLetter("r", "carts", 1, 2, "invalid", "properties.price: should be a number")
        log.append([NewRecord("dead-letters", b"r", record.encode_dead_letter(refused))])
    served = metrics.serve_metrics(metrics.metrics_port(settings, "onsite"))
    assert served
    try:
        shown = draw_screen(settings)
    finally:
        served[0].shutdown()
        served[0].server_close()
        served[1].join()
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert shown.startswith("50 % of the records of the public streams are in the wrong partition")
    assert lines["onsite"][1] == "running"
    assert lines["edge"][1:] == ["no", "response"]
    assert float(lines["clicks"][1]) >= 7
    assert re.search(r"to Redis: p50 \d", shown)
    assert f"a:{MAX_DECISIONS + 4} " in shown
    assert shown.count("limit; exit_intent") == MAX_DECISIONS
    assert shown.count("Page Viewed") == shown.count("/cups") == MAX_EVENTS - 1
    assert re.search(r"invalid +properties.price: should be a number +carts", shown)
    assert "secret-id" not in shown
    metrics.MODEL_VERSION.set(0)
    metrics.MISROUTED_RATIO.set(0)


def test_decision_tail_shows_nothing_twice(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), partitions=2)
    with open_log(settings) as log:
        log.append([suppress_record(n) for n in range(3 * LOOKBACK_OFFSETS)])
        tail = DecisionTail(log)
        tail.poll()
        first = [said.id for said in tail.newest]
        assert first == [f"h{n}" for n in range(3 * LOOKBACK_OFFSETS - MAX_DECISIONS, 3 * LOOKBACK_OFFSETS)]
        log.append([suppress_record(999), suppress_record(3 * LOOKBACK_OFFSETS - 1)])
        tail.poll()
        assert [said.id for said in tail.newest] == [*first[1:], "h999"]


def test_messages_are_listed_and_counted(tmp_path: Path) -> None:
    port = free_port() - 10
    settings = Settings(data=str(tmp_path), metrics_port=port)
    assert "messages: none yet" in draw_screen(settings)
    because = action.Explanation(trigger='event "Checkout Started"')
    message = Message(
        id="m",
        at=1_600_000_000_000,
        person="u:ann",
        channel="email",
        campaign="reminder",
        content_key="k",
        not_before=1,
        not_after=2,
        addresses={"email": "ann@x.example"},
        because=because,
    )
    with open_log(settings) as log:
        log.append(
            [
                suppress_record(1),
                NewRecord("messages", b"ann", messages.encode_message(message)),
                NewRecord("messages", b"x", b"no"),
            ]
        )
    metrics.MESSAGES.labels("delivered").inc(3)
    served = metrics.serve_metrics(metrics.metrics_port(settings, "outreach"))
    assert served
    try:
        shown = draw_screen(settings)
    finally:
        served[0].shutdown()
        served[0].server_close()
        served[1].join()
    assert re.search(r"messages: .*\b\d+ delivered", shown)
    assert re.search(r'u:ann +email +reminder +event "Checkout Started"', shown)
    assert "ann@x" not in shown


def test_scrape_reads_only_requested_metrics() -> None:
    port = free_port()
    served = metrics.serve_metrics(port)
    assert served
    try:
        asked = scrape(port, ["attimo_outbox_pending", "attimo_misrouted_records_total"])
    finally:
        served[0].shutdown()
        served[0].server_close()
        served[1].join()
    assert asked is not None
    assert sorted(name for name, _ in asked) == ["attimo_misrouted_records_total", "attimo_outbox_pending"]
    assert scrape(port) is None
    with socket.create_server(("127.0.0.1", port)) as other:

        def answer() -> None:
            line, _ = other.accept()
            with line:
                line.recv(4096)
                line.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")

        Thread(target=answer, daemon=True).start()
        assert scrape(port) is None


def test_percentiles_since_the_last_scrape() -> None:
    text = "# TYPE attimo_t histogram\n" + "\n".join(
        f'attimo_t_bucket{{le="{bound}"}} {count}' for bound, count in (("0.1", 90), ("1.0", 100), ("+Inf", 100))
    )
    before, now = (
        parse_samples(text),
        parse_samples(text.replace("90", "100").replace('le="+Inf"} 100', 'le="+Inf"} 110')),
    )
    assert percentile(before, "attimo_t", 0.9) == pytest.approx(0.1)
    assert percentile(now, "attimo_t", 0.5, before) == pytest.approx(0.05)
