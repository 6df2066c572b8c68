"""All benchmarks, or some: prints a table and writes it as JSON. `benchmarks/README.md` says how to read it."""

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
from benchmarks.house import House, house
from benchmarks.profiling import profile
from benchmarks.report import Result, begin, table

RESULTS = Path(__file__).with_name("results.json")
PROFILE = Path(__file__).with_name("profile.txt")


class Size(NamedTuple):
    """How much of everything."""

    persons: int
    backlog: int
    rate: int
    seconds: float
    http_rate: int
    listeners: int
    http_seconds: float
    visits: int
    rounds: int
    profiled: int
    timers: int
    idle_seconds: float
    visited: int


FULL = Size(100_000, 200_000, 2_000, 12.0, 1_000, 1_000, 12.0, 12, 3, 100_000, 1_000_000, 10.0, 5_000)
QUICK = Size(20_000, 50_000, 2_000, 5.0, 1_000, 300, 5.0, 4, 1, 40_000, 50_000, 3.0, 2_000)

Bench = Callable[[House, Size], list[Result]]
BENCHES: dict[str, tuple[bool, Bench]] = {
    "latency": (True, lambda home, size: bench_latency.measure(home, size.rate, size.seconds, size.rounds)),
    "http": (False, lambda home, size: bench_http.measure(
        home, size.http_rate, size.listeners, size.http_seconds, size.rounds)),
    "exit_intent": (False, lambda home, size: bench_exit_intent.measure(home, size.visits)),
    "throughput": (True, lambda home, size: bench_throughput.measure(home, size.backlog, size.rounds)),
    "steps": (True, lambda home, size: bench_steps.measure(home, size.profiled // 4, size.rounds)),
    "workers": (True, lambda home, size: bench_workers.measure(home, size.backlog, size.rounds)),
    "campaigns": (False, lambda home, size: bench_campaigns.measure(2_000, size.visited, max(2, size.rounds))),
    "timers": (False, lambda home, size: bench_timers.measure(
        home, size.timers, size.backlog, size.idle_seconds, size.rounds)),
}
"""Name -> whether all persons must be in the store before, and how it is measured."""


def run(names: list[str], size: Size) -> tuple[list[Result], str]:
    """The rows, in the order of BENCHES, and a profile when a row about the flow missed its budget."""
    rows: dict[str, list[Result]] = {}
    where = ""
    warm = [name for name in names if BENCHES[name][0]]
    if warm:
        with house(size.persons) as home:
            say(f"warming the store: {size.persons:,} persons")
            home.warm()
            for name in warm:
                rows[name] = _one(name, home, size)
            if not all(row.met for name in warm for row in rows[name]):
                say("a budget is missed: profiling the flow")
                where = profile(home, size.profiled)
    for name in names:
        if name not in warm:
            with house(size.persons) as home:
                rows[name] = _one(name, home, size)
    return [row for name in BENCHES if name in rows for row in rows[name]], where


def _one(name: str, home: House, size: Size) -> list[Result]:
    say(name)
    try:
        return BENCHES[name][1](home, size)
    except RuntimeError as wrong:
        raise SystemExit(f"benchmark {name}: {wrong}") from wrong


def say(text: str) -> None:
    """Progress, beside the results."""
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure attimo against the floor.")
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="this one (may be given several times)")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs, proves no budget")
    parser.add_argument("--json", type=Path, metavar="PATH", help=f"where the results go; a full run: {RESULTS.name}")
    given = parser.parse_args()
    names = given.only or list(BENCHES)
    report = begin(given.quick)
    report.results, where = run([name for name in BENCHES if name in names], QUICK if given.quick else FULL)
    print(table(report))
    if where:
        print(f"\nWhere the time of the on-site flow goes:\n\n{where}")
    whole = not given.quick and not given.only
    path = given.json or (RESULTS if whole else None)
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        print(f"\nwritten to {path}")
    if whole and where:
        PROFILE.write_text(where + "\n", "utf-8")


if __name__ == "__main__":
    main()
