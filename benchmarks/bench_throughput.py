"""How many events does one on-site worker do in a second, everything on, and what does one cost?

A backlog lies in the log before the engine starts. It is measured between two marks in it, when their messages come out
on Redis: so the start is not counted, and everything before the second mark has been committed and published. Floor and
attimo read the same backlog, one after the other, in turn; each has a core to itself, Redis and this process the other.

The budget is in `bench_steps.py` (docs/decisions.md says why): the floor here does not keep anything.
"""

from typing import NamedTuple

import msgspec

from benchmarks.house import House
from benchmarks.report import Budget, Result, result

LEAD = 5_000
"""Events before the first mark: caches fill, templates are parsed."""


class Run(NamedTuple):
    """One engine over one backlog. `messages` are all that came out on Redis."""

    events_per_second: float
    cpu_us: float
    messages: int
    resident: int


def measure(house: House, events: int, rounds: int) -> list[Result]:
    """Rows: events a second; CPU per event."""
    runs: dict[str, list[Run]] = {"floor": [], "onsite": []}
    for n in range(rounds):
        before = {f"{stream}/{p}": end for (stream, p), end in house.ends().items()}
        house.append(house.traffic(LEAD, 10 + n))
        first, last = house.signal(), house.signal()
        house.append([first])
        house.append(house.traffic(events, 100 + n))
        house.append([last])
        for engine in ("floor", "onsite") if n % 2 == 0 else ("onsite", "floor"):
            if engine == "floor":
                house.module("floor", "floor", msgspec.json.encode(before).decode())
            else:
                house.attimo("onsite")
            runs[engine].append(_run(house, engine, first.anonymous_id, last.anonymous_id, events))
            house.stop(engine)
    ours, floor = runs["onsite"], runs["floor"]
    messages = sum(run.messages for run in ours) / (rounds * events)
    note = (f"{house.persons:,} persons, {events:,} events a round; {messages:.1%} of the events gave a message; "
            f"{max(run.resident for run in ours) >> 20} MB resident")
    return [
        result("throughput of onsite, one core", "events/s", [run.events_per_second for run in ours],
               [run.events_per_second for run in floor], Budget("-"), note),
        result("CPU of onsite per event", "us", [run.cpu_us for run in ours], [run.cpu_us for run in floor],
               Budget("-")),
    ]


def _run(house: House, engine: str, first: str, last: str, events: int) -> Run:
    begun, _ = house.hear(first, f"{engine} has begun")
    cpu = house.cpu(engine)
    ended, heard = house.hear(last, f"{engine} has done the backlog")
    cpu = house.cpu(engine) - cpu
    seconds = max(1, ended.at - begun.at) / 1e9  # a few events may come out in one breath
    return Run(events / seconds, cpu / 1_000 / events, len(heard), house.resident(engine))
