"""How long from the append of an event to the log until its message is out on Redis?

A feeder appends events one by one at a fixed rate, whatever the engine does; this process listens on Redis. Floor and
attimo take turns. The clock starts just before the append and stops when the message is read here.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.feed import Fed, Order
from benchmarks.house import House
from benchmarks.listening import Heard
from benchmarks.report import Budget, Result, percentile, result

SETTLE = 1.0
"""Seconds at the start of a round whose marks are not counted."""


class Run(NamedTuple):
    """One engine for one round; latencies in ms."""

    latencies: list[float]
    late_p99_ms: float
    missing: int
    messages: int
    events: int


def measure(house: House, rate: int, seconds: float, rounds: int) -> list[Result]:
    """Rows: p50 and p99."""
    runs: dict[str, list[Run]] = {"floor": [], "onsite": []}
    for n in range(rounds):
        for engine in ("floor", "onsite") if n % 2 == 0 else ("onsite", "floor"):
            if engine == "floor":
                house.module("floor", "floor", "{}")
            else:
                house.attimo("onsite")
            house.ready(engine)
            runs[engine].append(_run(house, rate, seconds, seed=1_000 + 10 * n + (engine == "floor")))
            house.stop(engine)
    ours, floor = runs["onsite"], runs["floor"]
    every = [one for run in ours for one in run.latencies]
    note = (f"{len(every)} messages timed in {rounds} rounds of {seconds:g} s at {rate:,} events/s; "
            f"p99.9 of all {percentile(every, 0.999):.3g} ms; {sum(run.missing for run in ours)} missing; "
            f"{sum(run.messages for run in ours) / sum(run.events for run in ours):.1%} of the events gave a message; "
            f"the feeder was {max(run.late_p99_ms for run in ours):.2g} ms late at its p99")
    name = f"log append -> Redis message, {rate:,} events/s"
    return [
        result(f"{name}, p50", "ms", [percentile(run.latencies, 0.5) for run in ours],
               [percentile(run.latencies, 0.5) for run in floor], Budget("<= 1.5 ms", most=1.5), note),
        result(f"{name}, p99", "ms", [percentile(run.latencies, 0.99) for run in ours],
               [percentile(run.latencies, 0.99) for run in floor],
               Budget("<= 5 ms, <= 2x floor", most=5, ratio=2)),
    ]


def _run(house: House, rate: int, seconds: float, seed: int) -> Run:
    report = Path(house.folder / f"fed-{seed}.json")
    order = Order(house.persons, seed, house.marked, rate, seconds + SETTLE, str(report))
    house.module("feed", "feed", msgspec.json.encode(order).decode())
    feeder = house.running["feed"]
    heard: list[Heard] = []
    while feeder.poll() is None:
        heard += house.listening.read(0.1)
    while more := house.listening.read(0.5):
        heard += more
    house.check("the feeder has fed")
    house.stop("feed")
    fed = msgspec.json.decode(report.read_bytes(), type=Fed)
    house.marked = fed.marked
    arrived = {one.anonymous_id: one.at for one in reversed(heard) if one.is_mark}
    after = min(fed.marks.values(), default=0) + int(SETTLE * 1e9)
    counted = {who: at for who, at in fed.marks.items() if at >= after}
    latencies = [(arrived[who] - at) / 1e6 for who, at in counted.items() if who in arrived]
    if not latencies:
        raise RuntimeError(f"not one of {len(counted)} marks was answered\n{house.said()}")
    return Run(latencies, fed.late_p99_ms, len(counted) - len(latencies), len(heard), fed.events)
