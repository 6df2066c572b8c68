"""Throughput of two on-site workers compared with one.

The same backlog is read twice: by one worker with all partitions, and by two workers with half of them each, over one
store, as with `attimo run onsite --worker I/N`. The measurement is between two markers for each half of the
partitions, from the first marker message on Redis to the last. Two workers need a core each; Redis and this process
need part of a third.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.bench_throughput import WARM_UP_EVENTS
from benchmarks.data import EventTemplate
from benchmarks.instance import TIMEOUT, BenchmarkInstance
from benchmarks.report import Budget, Result, make_result
from domain.record import partition_of

ONE_WORKER = ("onsite",)
TWO_WORKERS = ("onsite 0/2", "onsite 1/2")


class Run(NamedTuple):
    """One backlog with one or two workers; CPU of all workers."""

    events_per_second: float
    cpu_us: float


def measure(instance: BenchmarkInstance, events: int, rounds: int) -> list[Result]:
    """Measure events per second and CPU per event of two workers; one is the floor."""
    runs: dict[tuple[str, ...], list[Run]] = {ONE_WORKER: [], TWO_WORKERS: []}
    for n in range(rounds):
        for workers in (ONE_WORKER, TWO_WORKERS) if n % 2 == 0 else (TWO_WORKERS, ONE_WORKER):
            runs[workers].append(_run(instance, workers, events, 300 + 2 * n + len(workers)))
    one, two = runs[ONE_WORKER], runs[TWO_WORKERS]
    return [
        make_result(
            "throughput of two workers",
            "events/s",
            [run.events_per_second for run in two],
            [run.events_per_second for run in one],
            Budget(">= 1.8x one", min_ratio=1.8),
            f"{instance.persons:,} persons, {events:,} events per round",
        ),
        make_result(
            "CPU of two workers per event", "us", [run.cpu_us for run in two], [run.cpu_us for run in one], Budget("-")
        ),
    ]


def _make_markers(instance: BenchmarkInstance) -> dict[str, EventTemplate]:
    """One marker per half of the partitions, by anonymous id."""
    found: dict[int, EventTemplate] = {}
    while len(found) < len(TWO_WORKERS):
        one = instance.make_marker()
        found.setdefault(partition_of(one.anonymous_id.encode(), instance.settings.partitions) % len(TWO_WORKERS), one)
    return {one.anonymous_id: one for one in found.values()}


def _run(instance: BenchmarkInstance, workers: tuple[str, ...], events: int, seed: int) -> Run:
    instance.append(instance.next_events(WARM_UP_EVENTS, seed))
    first, last = _make_markers(instance), _make_markers(instance)
    instance.append(first.values())
    instance.append(instance.next_events(events, seed + 1_000))
    instance.append(last.values())
    for name in workers:
        instance.start_attimo(name)
    heard: dict[str, int] = {}
    _collect_markers(instance, heard, lambda: not heard.keys().isdisjoint(first), f"{len(workers)} have started")
    before = sum(map(instance.cpu, workers))
    _collect_markers(instance, heard, lambda: heard.keys() >= last.keys(), f"{len(workers)} have processed the backlog")
    spent = sum(map(instance.cpu, workers)) - before
    for name in workers:
        instance.stop(name)
    took = max(heard[who] for who in last) - min(heard[who] for who in first if who in heard)
    return Run(events / (max(1, took) / 1e9), spent / 1_000 / events)


def _collect_markers(
    instance: BenchmarkInstance, received: dict[str, int], condition: Callable[[], bool], activity: str
) -> None:
    """Record when (monotonic ns) each marker message arrives.

    Markers of one batch can arrive out of order: a worker applies a batch partition by partition.
    """
    end = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"no message for {TIMEOUT:.0f} s: {activity}\n{instance.log_tails()}")
        instance.check_alive(activity)
        for one in instance.subscriber.read(0.25):
            if one.is_marker:
                received.setdefault(one.anonymous_id, one.at)
