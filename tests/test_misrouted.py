"""Records in the wrong partition are told of, at whatever rate they come, until they come no more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from connectors import metrics
from connectors.log_sqlite import SqliteLog
from connectors.misrouted import EVERY, SHARE, WRONG, Look, problem_in
from connectors.scrape import scrape
from domain.misrouted import FEW
from domain.record import Outgoing
from domain.settings import Settings
from flows.onsite import STEPS
from flows.worker import Worker
from state.tally import WINDOW, Misrouted
from tests.shards import encode
from tests.support import free_port


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(("wrong", "of", "told"), [
    (949, 953, True), (19, 19, False), (20, 1_999, True), (20, 2_000, False), (0, 9, False)])
def test_more_than_one_in_a_hundred_is_told_once(wrong: int, of: int, told: bool) -> None:
    seen = Misrouted()
    said = [seen.add(n < wrong, 1) for n in reversed(range(of))]
    assert sum(map(bool, said)) == told
    assert bool(seen.problem) is told


def test_it_is_said_again_while_it_lasts_and_ends_some_time_after_it_does() -> None:
    seen = Misrouted()
    said = [n for n in range(0, 5 * WINDOW, 100) if seen.add(50, 100)]
    assert len(said) == 6
    for _ in range(0, 8 * WINDOW, 100):
        seen.add(0, 100)
    assert (seen.problem, seen.share < 0.01) == ("", True)


def test_it_is_seen_by_whoever_looks_and_asked_for_seldom() -> None:
    settings = Settings(metrics_port=free_port() - 10)
    now = [0.0]
    look = Look(settings, lambda: now[0])
    assert (look.again(), look.now) == (False, ""), "nobody answers yet"
    metrics.MISROUTED.inc(FEW)
    metrics.MISROUTED_SHARE.set(0.25)
    served = metrics.serve(metrics.port_of(settings, "onsite"))
    assert served
    try:
        assert not look.again(), "it was asked a moment ago"
        now[0] += EVERY
        assert look.again()
        assert look.now.startswith("25 % of the records of the public streams lie in the wrong partition")
        assert look.now == problem_in(scrape(metrics.port_of(settings, "onsite")) or {})
        now[0] += EVERY
        assert not look.again(), "nothing has changed"
        metrics.MISROUTED_SHARE.set(0.004)
        now[0] += EVERY
        assert (look.again(), look.now) == (True, "")
    finally:
        metrics.MISROUTED_SHARE.set(0)
        served[0].shutdown()
        served[0].server_close()
        served[1].join()


@pytest.mark.parametrize(("wrong", "of"), [
    (949, 953), (19, 19), (20, 1_999), (20, 2_000), (0, 9), (3 * WINDOW, 4 * WINDOW)])
def test_the_metrics_say_what_the_worker_says(wrong: int, of: int) -> None:
    seen = Misrouted()
    for n in range(of):
        seen.add(n < wrong, 1)
    assert problem_in({(WRONG, ""): wrong, (SHARE, ""): seen.share}) == seen.problem


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker of all shards, over a log of its own."""
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.toml").write_text("")
    found = Worker(Settings(data=str(tmp_path), playbook=str(shop), redis="unix:///nowhere"), STEPS)
    found.own(range(64))
    yield found
    found.store.close()
    found.log.close()


def test_a_worker_counts_public_records_and_says_so(worker: Worker, tmp_path: Path) -> None:
    people = [f"p{n}" for n in range(60)]
    with SqliteLog(tmp_path) as log:
        log.append([Outgoing("clicks", b"the same", encode({"type": "page", "anonymousId": who})) for who in people])
    reader = worker.reader(range(64))
    names = [("attimo_events_total", {"stream": "clicks"}), ("attimo_events_total", {"stream": "letters"}),
             ("attimo_handled_total", {"what": "forwarded"}), ("attimo_misrouted_total", {})]
    before = [metric(name, **labels) for name, labels in names]
    with capture_logs() as logs:
        for _ in range(20):
            for _, work in worker.read(reader, range(64)):
                worker.apply(work)
            worker.publish()
        worker._show()
    reader.close()
    clicks, letters, forwarded, misrouted = (metric(name, **labels) - was for (name, labels), was in
                                             zip(names, before, strict=True))
    assert (clicks, letters) == (60, forwarded)
    assert 50 <= misrouted == forwarded <= 60
    assert metric("attimo_misrouted_share") == misrouted / 60
    assert [one["event"] for one in logs if "partitioner=murmur2_random" in one["event"]] == [worker.misrouted.problem]
    shown = {sample.labels["stream"] for family in REGISTRY.collect() if family.name == "attimo_events"
             for sample in family.samples if sample.name == "attimo_events_total"}
    assert shown <= {"clicks", "carts", "purchases", "people", "letters"}
