"""Time from the append of an event to its message on Redis.

A feeder appends events one by one at a fixed rate, independent of the engine; this process subscribes to Redis. Floor
and attimo alternate. The clock starts just before the append and stops when this process reads the message.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.feed import FeedOrder, FeedReport
from benchmarks.instance import BenchmarkInstance
from benchmarks.report import Budget, Result, make_result, percentile
from benchmarks.subscriber import ReceivedMessage

SETTLE_SECONDS = 1.0
"""Seconds at the start of a round whose markers are not counted."""


class Run(NamedTuple):
    """One round of one engine; latencies in ms."""

    latencies: list[float]
    late_p99_ms: float
    missing: int
    messages: int
    events: int


def measure(instance: BenchmarkInstance, rate: int, seconds: float, rounds: int) -> list[Result]:
    """Measure p50 and p99."""
    runs: dict[str, list[Run]] = {"floor": [], "onsite": []}
    for n in range(rounds):
        for engine in ("floor", "onsite") if n % 2 == 0 else ("onsite", "floor"):
            if engine == "floor":
                instance.start_module("floor", "floor", "{}")
            else:
                instance.start_attimo("onsite")
            instance.wait_until_ready(engine)
            runs[engine].append(_run(instance, rate, seconds, seed=1_000 + 10 * n + (engine == "floor")))
            instance.stop(engine)
    ours, floor = runs["onsite"], runs["floor"]
    every = [one for run in ours for one in run.latencies]
    note = (
        f"{len(every)} messages timed in {rounds} rounds of {seconds:g} s at {rate:,} events/s; "
        f"p99.9 of all {percentile(every, 0.999):.3g} ms; {sum(run.missing for run in ours)} missing; "
        f"{sum(run.messages for run in ours) / sum(run.events for run in ours):.1%} of the events caused a message; "
        f"the feeder was {max(run.late_p99_ms for run in ours):.2g} ms late at its p99"
    )
    name = f"log append -> Redis message, {rate:,} events/s"
    return [
        make_result(
            f"{name}, p50",
            "ms",
            [percentile(run.latencies, 0.5) for run in ours],
            [percentile(run.latencies, 0.5) for run in floor],
            Budget("<= 1.5 ms", at_most=1.5),
            note,
        ),
        make_result(
            f"{name}, p99",
            "ms",
            [percentile(run.latencies, 0.99) for run in ours],
            [percentile(run.latencies, 0.99) for run in floor],
            Budget("<= 5 ms, <= 2x floor", at_most=5, max_ratio=2),
        ),
    ]


def _run(instance: BenchmarkInstance, rate: int, seconds: float, seed: int) -> Run:
    report = Path(instance.folder / f"fed-{seed}.json")
    order = FeedOrder(instance.persons, seed, instance.marked_persons, rate, seconds + SETTLE_SECONDS, str(report))
    instance.start_module("feed", "feed", msgspec.json.encode(order).decode())
    feeder = instance.processes["feed"]
    heard: list[ReceivedMessage] = []
    while feeder.poll() is None:
        heard += instance.subscriber.read(0.1)
    while more := instance.subscriber.read(0.5):
        heard += more
    instance.check_alive("the feeder has fed")
    instance.stop("feed")
    fed = msgspec.json.decode(report.read_bytes(), type=FeedReport)
    instance.marked_persons = fed.marked_persons
    arrived = {one.anonymous_id: one.at for one in reversed(heard) if one.is_marker}
    after = min(fed.marker_times.values(), default=0) + int(SETTLE_SECONDS * 1e9)
    counted = {who: at for who, at in fed.marker_times.items() if at >= after}
    latencies = [(arrived[who] - at) / 1e6 for who, at in counted.items() if who in arrived]
    if not latencies:
        raise RuntimeError(f"none of {len(counted)} markers caused a message\n{instance.log_tails()}")
    return Run(latencies, fed.late_p99_ms, len(counted) - len(latencies), len(heard), fed.events)
