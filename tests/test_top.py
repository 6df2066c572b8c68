"""`attimo top`: what is in the metrics and in the log is what it draws."""

import io
import re
import socket
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from connectors import metrics
from connectors.open_log import open_log
from connectors.scrape import read, scrape
from connectors.top import BACK, EVENTS, LINES, Tail, percentile, top
from domain import action, reject
from domain import message as messages
from domain.message import Message
from domain.model import Model, Quality
from domain.record import Outgoing
from domain.settings import Settings
from tests.support import free_port


def hold(n: int, reason: str = "limit") -> Outgoing:
    because = action.Because(trigger="exit_intent", reason=reason)
    said = action.Hold(id=f"h{n}", at=1_600_000_000_000 + n, person=f"a:{n}", campaign="exit", because=because)
    return Outgoing("actions", str(n).encode(), action.encode(said))


def drawn(settings: Settings) -> str:
    out = io.StringIO()
    with open_log(settings) as log:
        top(settings, log, once=True, console=Console(file=out, width=160))
    return out.getvalue()


def test_it_shows_the_metrics_and_the_newest_decisions(tmp_path: Path) -> None:
    port = free_port() - 10
    settings = Settings(data=str(tmp_path), metrics_port=port)
    metrics.EVENTS.labels("clicks").inc(7)
    metrics.LATENCY.observe(0.0012)
    metrics.MISROUTED.inc(20)
    metrics.MISROUTED_SHARE.set(0.5)
    metrics.learned(Model("propensity", 3, "h", {}, quality=Quality(examples=40, positives=4, roc_auc=0.75)))
    with open_log(settings) as log:
        log.append([hold(n) for n in range(LINES + 5)])
        log.append([Outgoing("actions", b"x", b"not an action"), Outgoing("clicks", b"x", b"no event")])
        page = b'{"type":"page","anonymousId":"secret-id","properties":{"path":"/cups"}}'
        log.append([Outgoing("clicks", b"secret-id", page)] * (EVENTS - 1))
        refused = reject.Reject("r", "carts", 1, 2, "unreadable", "properties.price: should be a number")
        log.append([Outgoing("rejects", b"r", reject.encode(refused))])
    served = metrics.serve(metrics.port_of(settings, "onsite"))
    assert served
    try:
        shown = drawn(settings)
    finally:
        served[0].shutdown()
        served[0].server_close()
        served[1].join()
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert shown.startswith("50 % of the records of the public streams lie in the wrong partition")
    assert lines["onsite"][1] == "running"
    assert lines["edge"][1:] == ["does", "not", "answer"]
    assert float(lines["clicks"][1]) >= 7
    assert re.search(r"to Redis: p50 \d", shown)
    assert f"a:{LINES + 4} " in shown
    assert shown.count("limit; exit_intent") == LINES
    assert shown.count("Page Viewed") == shown.count("/cups") == EVENTS - 1
    assert re.search(r"unreadable +properties.price: should be a number +carts", shown)
    assert "secret-id" not in shown
    metrics.MODEL_VERSION.set(0)
    metrics.MISROUTED_SHARE.set(0)


def test_the_tail_reads_on_and_says_nothing_twice(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), partitions=2)
    with open_log(settings) as log:
        log.append([hold(n) for n in range(3 * BACK)])
        tail = Tail(log)
        tail.look()
        first = [said.id for said in tail.newest]
        assert first == [f"h{n}" for n in range(3 * BACK - LINES, 3 * BACK)]
        log.append([hold(999), hold(3 * BACK - 1)])
        tail.look()
        assert [said.id for said in tail.newest] == [*first[1:], "h999"]


def test_messages_are_seen_among_the_decisions_and_counted(tmp_path: Path) -> None:
    port = free_port() - 10
    settings = Settings(data=str(tmp_path), metrics_port=port)
    assert "messages: none yet" in drawn(settings)
    because = action.Because(trigger='event "Checkout Started"')
    message = Message(id="m", at=1_600_000_000_000, person="u:ann", channel="email", campaign="reminder",
                      content_key="k", not_before=1, not_after=2, addresses={"email": "ann@x.example"}, because=because)
    with open_log(settings) as log:
        log.append([hold(1), Outgoing("messages", b"ann", messages.encode(message)), Outgoing("messages", b"x", b"no")])
    metrics.MESSAGES.labels("delivered").inc(3)
    served = metrics.serve(metrics.port_of(settings, "outreach"))
    assert served
    try:
        shown = drawn(settings)
    finally:
        served[0].shutdown()
        served[0].server_close()
        served[1].join()
    assert re.search(r"messages: .*\b\d+ delivered", shown)
    assert re.search(r'u:ann +email +reminder +event "Checkout Started"', shown)
    assert "ann@x" not in shown


def test_only_the_metrics_that_are_asked_for_and_none_of_who_answers_with_something_else() -> None:
    port = free_port()
    served = metrics.serve(port)
    assert served
    try:
        asked = scrape(port, ["attimo_outbox", "attimo_misrouted_total"])
    finally:
        served[0].shutdown()
        served[0].server_close()
        served[1].join()
    assert asked is not None
    assert sorted(name for name, _ in asked) == ["attimo_misrouted_total", "attimo_outbox"]
    assert scrape(port) is None
    with socket.create_server(("127.0.0.1", port)) as other:
        def answer() -> None:
            line, _ = other.accept()
            with line:
                line.recv(4096)
                line.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")

        Thread(target=answer, daemon=True).start()
        assert scrape(port) is None


def test_percentiles_of_what_came_since() -> None:
    text = "# TYPE attimo_t histogram\n" + "\n".join(
        f'attimo_t_bucket{{le="{bound}"}} {count}' for bound, count in (("0.1", 90), ("1.0", 100), ("+Inf", 100)))
    before, now = read(text), read(text.replace("90", "100").replace('le="+Inf"} 100', 'le="+Inf"} 110'))
    assert percentile(before, "attimo_t", 0.9) == pytest.approx(0.1)
    assert percentile(now, "attimo_t", 0.5, before) == pytest.approx(0.05)
