"""Records in the wrong partition cause a warning, until there are no more of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from connectors import metrics
from connectors.log.sqlite import SqliteLog
from connectors.metrics import (
    MISROUTED_POLL_INTERVAL,
    MISROUTED_RATIO_NAME,
    MISROUTED_RECORDS_NAME,
    MisroutedWatcher,
    misrouted_warning,
    scrape,
)
from domain.record import MIN_MISROUTED_RECORDS, NewRecord
from domain.settings import Settings
from flows.worker import Worker
from operators.steps import STEPS
from state.shard.counts import DECAY_WINDOW, MisroutedMonitor
from tests.harness.shard import encode
from tests.harness.support import free_port


def metric_value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("wrong", "of", "told"), [(949, 953, True), (19, 19, False), (20, 1_999, True), (20, 2_000, False), (0, 9, False)]
)
def test_misrouted_share_above_one_percent_warns_once(wrong: int, of: int, told: bool) -> None:
    seen = MisroutedMonitor()
    said = [seen.add(n < wrong, 1) for n in reversed(range(of))]
    assert sum(map(bool, said)) == told
    assert bool(seen.warning) is told


def test_misrouted_warning_repeats_and_then_ends() -> None:
    seen = MisroutedMonitor()
    said = [n for n in range(0, 5 * DECAY_WINDOW, 100) if seen.add(50, 100)]
    assert len(said) == 6
    for _ in range(0, 8 * DECAY_WINDOW, 100):
        seen.add(0, 100)
    assert (seen.warning, seen.share < 0.01) == ("", True)


def test_misrouted_warning_is_polled_rarely() -> None:
    settings = Settings(metrics_port=free_port() - 10)
    now = [0.0]
    look = MisroutedWatcher(settings, lambda: now[0])
    assert (look.poll(), look.warning) == (False, ""), "no metrics server yet"
    metrics.MISROUTED_RECORDS.inc(MIN_MISROUTED_RECORDS)
    metrics.MISROUTED_RATIO.set(0.25)
    served = metrics.serve_metrics(metrics.metrics_port(settings, "onsite"))
    assert served
    try:
        assert not look.poll(), "it was polled a moment ago"
        now[0] += MISROUTED_POLL_INTERVAL
        assert look.poll()
        assert look.warning.startswith("25 % of the records of the public streams are in the wrong partition")
        assert look.warning == misrouted_warning(scrape(metrics.metrics_port(settings, "onsite")) or {})
        now[0] += MISROUTED_POLL_INTERVAL
        assert not look.poll(), "nothing has changed"
        metrics.MISROUTED_RATIO.set(0.004)
        now[0] += MISROUTED_POLL_INTERVAL
        assert (look.poll(), look.warning) == (True, "")
    finally:
        metrics.MISROUTED_RATIO.set(0)
        served[0].shutdown()
        served[0].server_close()
        served[1].join()


@pytest.mark.parametrize(
    ("wrong", "of"), [(949, 953), (19, 19), (20, 1_999), (20, 2_000), (0, 9), (3 * DECAY_WINDOW, 4 * DECAY_WINDOW)]
)
def test_metrics_match_the_workers_warning(wrong: int, of: int) -> None:
    seen = MisroutedMonitor()
    for n in range(of):
        seen.add(n < wrong, 1)
    assert (
        misrouted_warning({(MISROUTED_RECORDS_NAME, ""): wrong, (MISROUTED_RATIO_NAME, ""): seen.share}) == seen.warning
    )


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker of all shards, over a log of its own."""
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.toml").write_text("")
    found = Worker(Settings(data=str(tmp_path), playbook=str(shop), redis="unix:///nowhere"), STEPS)
    found.claim_partitions(range(64))
    yield found
    found.store.close()
    found.log.close()


def test_worker_counts_misrouted_public_records(worker: Worker, tmp_path: Path) -> None:
    people = [f"p{n}" for n in range(60)]
    with SqliteLog(tmp_path) as log:
        log.append([NewRecord("clicks", b"the same", encode({"type": "page", "anonymousId": who})) for who in people])
    reader = worker.reader(range(64))
    names = [
        ("attimo_records_applied_total", {"stream": "clicks"}),
        ("attimo_records_applied_total", {"stream": "shard-messages"}),
        ("attimo_shard_operations_total", {"operation": "forwarded"}),
        ("attimo_misrouted_records_total", {}),
    ]
    before = [metric_value(name, **labels) for name, labels in names]
    with capture_logs() as logs:
        for _ in range(20):
            for _, work in worker.read(reader, range(64)):
                worker.apply(work)
            worker.publish()
        worker._update_metrics()
    reader.close()
    clicks, shard_messages, forwarded, misrouted = (
        metric_value(name, **labels) - was for (name, labels), was in zip(names, before, strict=True)
    )
    assert (clicks, shard_messages) == (60, forwarded)
    assert 50 <= misrouted == forwarded <= 60
    assert metric_value("attimo_misrouted_ratio") == misrouted / 60
    assert [one["hint"] for one in logs if "partitioner=murmur2_random" in one.get("hint", "")] == [
        worker.misrouted_monitor.warning
    ]
    shown = {
        sample.labels["stream"]
        for family in REGISTRY.collect()
        if family.name == "attimo_records_applied"
        for sample in family.samples
        if sample.name == "attimo_records_applied_total"
    }
    assert shown <= {"clicks", "carts", "purchases", "people", "shard-messages"}
