"""Run all or some benchmarks; print a table and write it as JSON. See `benchmarks/README.md`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import (
    bench_campaigns,
    bench_exit_intent,
    bench_http,
    bench_latency,
    bench_steps,
    bench_throughput,
    bench_timers,
    bench_workers,
)
from benchmarks.instance import BenchmarkInstance, benchmark_instance
from benchmarks.profiling import profile
from benchmarks.report import Result, new_report, table

RESULTS = Path(__file__).with_name("results.json")
PROFILE = Path(__file__).with_name("profile.txt")


class Size(NamedTuple):
    """The size of a run."""

    persons: int
    backlog_events: int
    rate: int
    seconds: float
    http_rate: int
    listeners: int
    http_seconds: float
    visits: int
    rounds: int
    profiled_events: int
    timers: int
    idle_seconds: float
    campaign_persons: int


FULL = Size(100_000, 200_000, 2_000, 12.0, 1_000, 1_000, 12.0, 12, 3, 100_000, 1_000_000, 10.0, 5_000)
QUICK = Size(20_000, 50_000, 2_000, 5.0, 1_000, 300, 5.0, 4, 1, 40_000, 50_000, 3.0, 2_000)

Bench = Callable[[BenchmarkInstance, Size], list[Result]]
BENCHES: dict[str, tuple[bool, Bench]] = {
    "latency": (True, lambda home, size: bench_latency.measure(home, size.rate, size.seconds, size.rounds)),
    "http": (
        False,
        lambda home, size: bench_http.measure(home, size.http_rate, size.listeners, size.http_seconds, size.rounds),
    ),
    "exit_intent": (False, lambda home, size: bench_exit_intent.measure(home, size.visits)),
    "throughput": (True, lambda home, size: bench_throughput.measure(home, size.backlog_events, size.rounds)),
    "steps": (True, lambda home, size: bench_steps.measure(home, size.profiled_events // 4, size.rounds)),
    "workers": (True, lambda home, size: bench_workers.measure(home, size.backlog_events, size.rounds)),
    "campaigns": (False, lambda home, size: bench_campaigns.measure(2_000, size.campaign_persons, max(2, size.rounds))),
    "timers": (
        False,
        lambda home, size: bench_timers.measure(home, size.timers, size.backlog_events, size.idle_seconds, size.rounds),
    ),
}
"""Whether a benchmark needs a filled store, and its function, by name."""


def run(names: list[str], size: Size) -> tuple[list[Result], str]:
    """Run benchmarks; return the rows in the order of BENCHES, and a profile if the flow misses a budget."""
    rows: dict[str, list[Result]] = {}
    where = ""
    warm = [name for name in names if BENCHES[name][0]]
    if warm:
        with benchmark_instance(size.persons) as home:
            print_progress(f"filling the store: {size.persons:,} people")
            home.fill_store()
            for name in warm:
                rows[name] = _run_benchmark(name, home, size)
            if not all(row.met for name in warm for row in rows[name]):
                print_progress("a budget is not met: profiling the flow")
                where = profile(home, size.profiled_events)
    for name in names:
        if name not in warm:
            with benchmark_instance(size.persons) as home:
                rows[name] = _run_benchmark(name, home, size)
    return [row for name in BENCHES if name in rows for row in rows[name]], where


def _run_benchmark(name: str, instance: BenchmarkInstance, size: Size) -> list[Result]:
    print_progress(name)
    try:
        return BENCHES[name][1](instance, size)
    except RuntimeError as error:
        raise SystemExit(f"benchmark {name}: {error}") from error


def print_progress(text: str) -> None:
    """Print progress to standard error."""
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure attimo against the floor.")
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="run this one (repeatable)")
    parser.add_argument("--quick", action="store_true", help="a small, short run that proves no budget")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help=f"file for the results; default of a full run: {RESULTS.name}"
    )
    options = parser.parse_args()
    names = options.only or list(BENCHES)
    report = new_report(options.quick)
    report.results, where = run([name for name in BENCHES if name in names], QUICK if options.quick else FULL)
    print(table(report))
    if where:
        print(f"\nWhere the time of the on-site flow goes:\n\n{where}")
    whole = not options.quick and not options.only
    path = options.json or (RESULTS if whole else None)
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        print(f"\nwritten to {path}")
    if whole and where:
        PROFILE.write_text(where + "\n", "utf-8")


if __name__ == "__main__":
    main()
