"""Tests that run the benchmarks at small scale. Measured numbers are not checked."""

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
    report,
    subscriber,
)
from benchmarks.instance import SHOP, benchmark_instance
from benchmarks.profiling import profile
from benchmarks.report import Budget, Report, Result, make_result, new_report, table
from benchmarks.run import BENCHES, FULL, QUICK
from connectors.playbook.folder import read_playbook
from domain import event as events
from domain.action import pubsub_channel
from operators.steps import STEPS
from state.playbook.compiled import compile_rules

pytestmark = [pytest.mark.redis, pytest.mark.acceptance]


def check_rows(rows: list[Result], names: int) -> None:
    assert len(rows) == names
    for row in rows:
        assert row.ours > 0
        assert row.floor is not None
        assert row.floor >= 0  # a small run may be too short to measure CPU time
        assert all(row.rounds[side] for side in ("ours", "floor"))
        assert all((row.name, row.unit, row.budget))


def test_same_seed_generates_the_same_events() -> None:
    one, other = data.EventGenerator(1_000, 7), data.EventGenerator(1_000, 7)
    made = [next(one) for _ in range(3_000)]
    assert made == [next(other) for _ in range(3_000)]
    marked = [each.anonymous_id for each in made if each.name == data.MARKER_EVENT]
    assert len(marked) == len(set(marked)), "each person has one marker"
    assert 0.01 < len(marked) / len(made) < 0.03


def test_generated_events_match_the_collector_format() -> None:
    generator = data.EventGenerator(1_000, 7)
    sizes = []
    for _ in range(2_000):
        one = next(generator)
        record = one.to_record(1_700_000_000_000)
        event = events.decode(record.value)
        assert event.name == one.name
        assert event.anonymous_id == one.anonymous_id
        assert events.event_time(event, 1_800_000_000_000) == 1_700_000_000_000
        sizes.append(len(record.value))
    assert 400 < sum(sizes) / len(sizes) < 520


def test_benchmark_playbook_has_100_campaigns(tmp_path: Path) -> None:
    rules = compile_rules(read_playbook(data.write_playbook(tmp_path)))
    kinds = [rule.trigger_kind for rule in rules.campaigns.values()]
    assert len(rules.segments) == 50
    assert len(rules.workflows.live) == 20
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "event": 20,
        "segment": 30,
        "exit_intent": 30,
        "seconds_on_site": 20,
        "workflow": 20,
    }


def test_messages_after_a_marker_are_read_next() -> None:
    """A slow subscriber reads several markers at once."""
    with benchmark_instance(persons=1) as home, redis.Redis.from_url(home.settings.redis) as out:
        for who in ("ann", "ben", "kim"):
            out.publish(pubsub_channel(SHOP, who), msgspec.json.encode({"campaign": data.MARKER_CAMPAIGN}))
        assert home.wait_for_marker("ann", "ann", 20)[0].anonymous_id == "ann"
        assert [one.anonymous_id for one in home.wait_for_marker("kim", "kim", 20)[1]] == ["ben", "kim"]


@pytest.mark.slow
def test_flow_benchmarks_run_small() -> None:
    with benchmark_instance(persons=300) as home:
        home.fill_store()
        check_rows(bench_latency.measure(home, rate=200, seconds=1.0, rounds=1), 2)
        check_rows(bench_throughput.measure(home, events=1_000, rounds=1), 2)
        check_rows(bench_steps.measure(home, events=500, rounds=1), 1)
        check_rows(bench_workers.measure(home, events=1_000, rounds=1), 2)
        text = profile(home, events=500, top=5)
    assert "CPU per event" in text
    assert "publish" in text


@pytest.mark.slow
def test_campaign_benchmark_runs_small() -> None:
    rows = bench_campaigns.measure(persons=40, events=200, rounds=1, campaigns=300)
    check_rows(rows, 2 + len(STEPS))
    assert [row.name.partition(" ")[0] for row in rows[2:]] == [step.__module__.partition(".")[2] for step in STEPS]


@pytest.mark.slow
def test_http_benchmark_runs_small() -> None:
    with benchmark_instance(persons=300) as home:
        rows = bench_http.measure(home, rate=100, listeners=10, seconds=1.0, rounds=1)
    check_rows(rows, 2)
    assert "0 missing, 0 posts refused" in rows[0].note


@pytest.mark.slow
def test_timer_benchmark_runs_small() -> None:
    with benchmark_instance(persons=100) as home:
        rows = bench_timers.measure(home, timers=2_000, events=1_500, seconds=0.5, rounds=1)
    check_rows(rows, 2)
    assert "2,000 people wait" in rows[0].note


@pytest.mark.browser
@pytest.mark.slow
def test_exit_intent_benchmark_runs_small() -> None:
    if bench_exit_intent.CHROMIUM is None:
        pytest.skip("no Chromium on the path")
    with benchmark_instance(persons=10) as home:
        check_rows(bench_exit_intent.measure(home, times=1), 2)


@pytest.mark.parametrize("module", [data, subscriber, report])
def test_docstring_examples_pass(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_report_is_json_and_a_table() -> None:
    made = new_report(quick=True)
    made.results.append(
        make_result("p99", "ms", [3.0, 9.0, 4.0], [2.0], Budget("<= 5 ms, <= 2x floor", at_most=5, max_ratio=2))
    )
    again = msgspec.json.decode(msgspec.json.encode(made), type=Report)
    assert again == made
    assert again.results[0].met
    assert not make_result("p99", "ms", [4.1], [2.0], Budget("", at_most=5, max_ratio=2)).met
    assert make_result("two", "events/s", [3.6], [2.0], Budget("", min_ratio=1.8)).met
    assert not make_result("two", "events/s", [3.5], [2.0], Budget("", min_ratio=1.8)).met
    assert "p99" in table(made)
    assert set(BENCHES) == {"latency", "http", "exit_intent", "throughput", "steps", "workers", "campaigns", "timers"}
    assert QUICK.persons < FULL.persons == 100_000
