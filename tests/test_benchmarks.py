"""The benchmarks run, in miniature, and say something sane. No number decides anything here."""

import doctest
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import redis

from benchmarks import (
    bench_campaigns,
    bench_exit_intent,
    bench_http,
    bench_latency,
    bench_steps,
    bench_throughput,
    bench_timers,
    bench_workers,
    data,
    listening,
    report,
)
from benchmarks.house import SHOP, house
from benchmarks.profiling import profile
from benchmarks.report import Budget, Report, Result, begin, result, table
from benchmarks.run import BENCHES, FULL, QUICK
from connectors.playbook_folder import read
from domain import event as events
from domain.action import channel
from flows.onsite import STEPS
from state.rules import compile_rules
from tests.support import examples

pytestmark = pytest.mark.redis
PATIENT = pytest.mark.skipif(examples(1) == 1, reason="it takes long: make search plays it")


def sane(rows: list[Result], names: int) -> None:
    assert len(rows) == names
    for row in rows:
        assert row.ours > 0
        assert row.floor is not None
        assert row.floor >= 0  # so little may be done before anybody has looked at what it costs
        assert all(row.rounds[whose] for whose in ("ours", "floor"))
        assert all((row.name, row.unit, row.budget))


def test_the_same_seed_gives_the_same_traffic() -> None:
    one, other = data.Traffic(1_000, 7), data.Traffic(1_000, 7)
    made = [next(one) for _ in range(3_000)]
    assert made == [next(other) for _ in range(3_000)]
    marked = [each.anonymous_id for each in made if each.name == data.MARK]
    assert len(marked) == len(set(marked)), "nobody is marked twice"
    assert 0.01 < len(marked) / len(made) < 0.03


def test_events_are_what_the_collector_writes() -> None:
    traffic = data.Traffic(1_000, 7)
    sizes = []
    for _ in range(2_000):
        one = next(traffic)
        record = one.outgoing(1_700_000_000_000)
        event = events.decode(record.value)
        assert event.name == one.name
        assert event.anonymous_id == one.anonymous_id
        assert events.event_time(event, 1_800_000_000_000) == 1_700_000_000_000
        sizes.append(len(record.value))
    assert 400 < sum(sizes) / len(sizes) < 520


def test_the_playbook_has_a_hundred_campaigns(tmp_path: Path) -> None:
    rules = compile_rules(read(data.write_playbook(tmp_path)))
    kinds = [rule.kind for rule in rules.campaigns.values()]
    assert len(rules.segments) == 50
    assert len(rules.workflows.live) == 20
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "event": 20, "segment": 30, "exit_intent": 30, "seconds_on_site": 20, "workflow": 20}


def test_what_comes_behind_a_mark_is_heard_next() -> None:
    """A benchmark that is slow to listen reads several marks at once."""
    with house(persons=1) as home, redis.Redis.from_url(home.settings.redis) as out:
        for who in ("ann", "ben", "kim"):
            out.publish(channel(SHOP, who), msgspec.json.encode({"campaign": data.CAMPAIGN}))
        assert home.hear("ann", "ann", 20)[0].anonymous_id == "ann"
        assert [one.anonymous_id for one in home.hear("kim", "kim", 20)[1]] == ["ben", "kim"]


@pytest.mark.slow
def test_the_flow_in_miniature() -> None:
    with house(persons=300) as home:
        home.warm()
        sane(bench_latency.measure(home, rate=200, seconds=1.0, rounds=1), 2)
        sane(bench_throughput.measure(home, events=1_000, rounds=1), 2)
        sane(bench_steps.measure(home, events=500, rounds=1), 1)
        sane(bench_workers.measure(home, events=1_000, rounds=1), 2)
        text = profile(home, events=500, top=5)
    assert "CPU per event" in text
    assert "publish" in text


@pytest.mark.slow
def test_many_campaigns_in_miniature() -> None:
    rows = bench_campaigns.measure(persons=40, events=200, rounds=1, campaigns=300)
    sane(rows, 2 + len(STEPS))
    assert [row.name.partition(" ")[0] for row in rows[2:]] == [step.__module__.partition(".")[2] for step in STEPS]


@pytest.mark.slow
@PATIENT
def test_the_edge_in_miniature() -> None:
    with house(persons=300) as home:
        rows = bench_http.measure(home, rate=100, listeners=10, seconds=1.0, rounds=1)
    sane(rows, 2)
    assert "0 missing, 0 posts refused" in rows[0].note


@pytest.mark.slow
@PATIENT
def test_timers_in_miniature() -> None:
    with house(persons=100) as home:
        rows = bench_timers.measure(home, timers=2_000, events=1_500, seconds=0.5, rounds=1)
    sane(rows, 2)
    assert "2,000 people wait" in rows[0].note


@pytest.mark.browser
@pytest.mark.slow
def test_exit_intent_in_miniature() -> None:
    if bench_exit_intent.CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    with house(persons=10) as home:
        sane(bench_exit_intent.measure(home, times=1), 2)


@pytest.mark.parametrize("module", [data, listening, report])
def test_examples_hold(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_report_is_json_and_a_table() -> None:
    made = begin(quick=True)
    made.results.append(result("p99", "ms", [3.0, 9.0, 4.0], [2.0], Budget("<= 5 ms, <= 2x floor", most=5, ratio=2)))
    again = msgspec.json.decode(msgspec.json.encode(made), type=Report)
    assert again == made
    assert again.results[0].met
    assert not result("p99", "ms", [4.1], [2.0], Budget("", most=5, ratio=2)).met
    assert result("two", "events/s", [3.6], [2.0], Budget("", least_ratio=1.8)).met
    assert not result("two", "events/s", [3.5], [2.0], Budget("", least_ratio=1.8)).met
    assert "p99" in table(made)
    assert set(BENCHES) == {"latency", "http", "exit_intent", "throughput", "steps", "workers", "campaigns", "timers"}
    assert QUICK.persons < FULL.persons == 100_000
