"""Events per second and CPU per event of one on-site worker.

The log has a backlog before the engine starts. The measurement is between two markers in it, when their messages
arrive on Redis, so that it excludes the start, and everything before the second marker is committed and published.
Floor and attimo read the same backlog in alternation, each with a core of its own; Redis and this process use the
other.

The budget is in `bench_steps.py` (docs/decisions.md says why): the floor here is not durable.
"""

from typing import NamedTuple

import msgspec

from benchmarks.instance import BenchmarkInstance
from benchmarks.report import Budget, Result, make_result

WARM_UP_EVENTS = 5_000
"""Events before the first marker, to warm up caches and templates."""


class Run(NamedTuple):
    """One engine over one backlog; `messages` counts everything published on Redis."""

    events_per_second: float
    cpu_us: float
    messages: int
    resident: int


def measure(instance: BenchmarkInstance, events: int, rounds: int) -> list[Result]:
    """Measure events per second and CPU per event."""
    runs: dict[str, list[Run]] = {"floor": [], "onsite": []}
    for n in range(rounds):
        before = {f"{stream}/{p}": end for (stream, p), end in instance.end_offsets().items()}
        instance.append(instance.next_events(WARM_UP_EVENTS, 10 + n))
        first, last = instance.make_marker(), instance.make_marker()
        instance.append([first])
        instance.append(instance.next_events(events, 100 + n))
        instance.append([last])
        for engine in ("floor", "onsite") if n % 2 == 0 else ("onsite", "floor"):
            if engine == "floor":
                instance.start_module("floor", "floor", msgspec.json.encode(before).decode())
            else:
                instance.start_attimo("onsite")
            runs[engine].append(_run(instance, engine, first.anonymous_id, last.anonymous_id, events))
            instance.stop(engine)
    ours, floor = runs["onsite"], runs["floor"]
    messages = sum(run.messages for run in ours) / (rounds * events)
    note = (
        f"{instance.persons:,} persons, {events:,} events per round; {messages:.1%} of the events caused a message; "
        f"{max(run.resident for run in ours) >> 20} MB resident"
    )
    return [
        make_result(
            "throughput of onsite, one core",
            "events/s",
            [run.events_per_second for run in ours],
            [run.events_per_second for run in floor],
            Budget("-"),
            note,
        ),
        make_result(
            "CPU of onsite per event", "us", [run.cpu_us for run in ours], [run.cpu_us for run in floor], Budget("-")
        ),
    ]


def _run(instance: BenchmarkInstance, engine: str, first: str, last: str, events: int) -> Run:
    begun, _ = instance.wait_for_marker(first, f"{engine} has started")
    cpu = instance.cpu(engine)
    ended, heard = instance.wait_for_marker(last, f"{engine} has processed the backlog")
    cpu = instance.cpu(engine) - cpu
    seconds = max(1, ended.at - begun.at) / 1e9  # a few events may arrive at once
    return Run(events / seconds, cpu / 1_000 / events, len(heard), instance.resident_memory(engine))
