"""How much more do two on-site workers do than one?

The same backlog is read twice: by one worker that has all partitions, and by two that have half of them each, over one
store file as `attimo run onsite --worker I/N` shares it. It is measured between two marks for each half of the
partitions: from the first message of a mark on Redis to the last. Two workers want a core each, and Redis and this
process some of a third.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.bench_throughput import LEAD
from benchmarks.data import Happening
from benchmarks.house import PATIENCE, House
from benchmarks.report import Budget, Result, result
from domain.partition import partition_of

ONE = ("onsite",)
TWO = ("onsite 0/2", "onsite 1/2")


class Run(NamedTuple):
    """One backlog, done by one or by two. The CPU is that of all workers."""

    events_per_second: float
    cpu_us: float


def measure(house: House, events: int, rounds: int) -> list[Result]:
    """Rows: events a second, and CPU per event, of two workers; one is the floor."""
    runs: dict[tuple[str, ...], list[Run]] = {ONE: [], TWO: []}
    for n in range(rounds):
        for workers in (ONE, TWO) if n % 2 == 0 else (TWO, ONE):
            runs[workers].append(_run(house, workers, events, 300 + 2 * n + len(workers)))
    one, two = runs[ONE], runs[TWO]
    return [
        result("throughput of two workers", "events/s", [run.events_per_second for run in two],
               [run.events_per_second for run in one], Budget(">= 1.8x one", least_ratio=1.8),
               f"{house.persons:,} persons, {events:,} events a round"),
        result("CPU of two workers per event", "us", [run.cpu_us for run in two], [run.cpu_us for run in one],
               Budget("-")),
    ]


def _marks(house: House) -> dict[str, Happening]:
    """A mark for each half of the partitions: of whom -> the mark."""
    found: dict[int, Happening] = {}
    while len(found) < len(TWO):
        one = house.signal()
        found.setdefault(partition_of(one.anonymous_id.encode(), house.settings.partitions) % len(TWO), one)
    return {one.anonymous_id: one for one in found.values()}


def _run(house: House, workers: tuple[str, ...], events: int, seed: int) -> Run:
    house.append(house.traffic(LEAD, seed))
    first, last = _marks(house), _marks(house)
    house.append(first.values())
    house.append(house.traffic(events, seed + 1_000))
    house.append(last.values())
    for name in workers:
        house.attimo(name)
    heard: dict[str, int] = {}
    _listen(house, heard, lambda: not heard.keys().isdisjoint(first), f"{len(workers)} have begun")
    before = sum(map(house.cpu, workers))
    _listen(house, heard, lambda: heard.keys() >= last.keys(), f"{len(workers)} have done the backlog")
    spent = sum(map(house.cpu, workers)) - before
    for name in workers:
        house.stop(name)
    took = max(heard[who] for who in last) - min(heard[who] for who in first if who in heard)
    return Run(events / (max(1, took) / 1e9), spent / 1_000 / events)


def _listen(house: House, heard: dict[str, int], until: Callable[[], bool], doing: str) -> None:
    """Note when (monotonic ns) whose mark was answered. Of marks that were read at once the later may come first: a
    worker goes through a batch partition by partition.
    """
    end = time.monotonic() + PATIENCE
    while not until():
        if time.monotonic() > end:
            raise RuntimeError(f"heard nothing for {PATIENCE:.0f} s: {doing}\n{house.said()}")
        house.check(doing)
        for one in house.listening.read(0.25):
            if one.is_mark:
                heard.setdefault(one.anonymous_id, one.at)
