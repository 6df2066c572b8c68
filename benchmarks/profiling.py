"""A CPU profile of the on-site flow by phase, by step and by function, with the worker in this process.

    python -m benchmarks.profiling [EVENTS [PERSONS]]

The first third of the backlog gives CPU per event by phase (read, apply, publish). The second has a clock around each
step; the rest of `apply` is the shard (decoding, people, effects). The last third runs under cProfile, which
overstates small functions, and gives the order of the functions. Timers that fire meanwhile are included. Bytewax is
not included.
"""

import cProfile
import io
import pstats
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.instance import BenchmarkInstance, benchmark_instance
from benchmarks.side_by_side import timed_step
from connectors.log.log import Reader
from flows import bytewax
from flows.worker import MAX_RECORDS_PER_POLL, Worker
from operators.steps import STEPS
from state.context import StepFunction

TOP = 15
WARM_UP_EVENTS = 1_000
"""Events before the measurement, to warm up caches and templates."""


def profile(instance: BenchmarkInstance, events: int, top: int = TOP) -> str:
    """CPU per event by phase and by step, and the most expensive functions, as text."""
    third = events // 3
    parts, done, passes = profile_backlog(instance, third, 5, STEPS)
    spent: dict[str, int] = {}
    watched, counted, _ = profile_backlog(instance, third, 6, [timed_step(step, spent) for step in STEPS])
    profiler = cProfile.Profile(time.thread_time_ns, 1e-9)  # CPU time, without other processes
    _, profiled, _ = profile_backlog(instance, third, 7, STEPS, profiler)
    whole = sum(parts.values())
    lines = [
        f"CPU per event: {whole / done:.1f} us without the profiler ({done:,} events, {passes} batches, "
        f"{instance.persons:,} persons)"
    ]
    lines += [f"  {name:<8} {took / done:6.1f} us" for name, took in parts.items()]
    lines += ["", f"Of apply, with a clock around each step, over the next {counted:,} events:"]
    lines += [f"  {name:<18} {ns / 1_000 / counted:6.1f} us" for name, ns in spent.items()]
    lines += [f"  {'the shard':<18} {(watched['apply'] - sum(spent.values()) / 1_000) / counted:6.1f} us"]
    lines += ["", f"Under the profiler, {profiled:,} events; us per event, own and cumulative time:"]
    return "\n".join(lines + _slowest_functions(profiler, profiled, top))


def profile_backlog(
    instance: BenchmarkInstance,
    events: int,
    seed: int,
    steps: Sequence[StepFunction],
    profiler: cProfile.Profile | None = None,
) -> tuple[dict[str, float], int, int]:
    """Run a worker over a new backlog; the first LEAD events warm it up."""
    instance.append(instance.next_events(WARM_UP_EVENTS + events + 2 * MAX_RECORDS_PER_POLL, seed))
    worker = Worker(instance.settings, steps)
    partitions = range(instance.settings.partitions)
    worker.claim_partitions(partitions)
    reader = worker.reader(partitions)
    bytewax.collect_and_freeze()  # as flows/bytewax.py does
    try:
        _run_loop(worker, reader, WARM_UP_EVENTS)
        if profiler is not None:
            profiler.enable()
        found = _run_loop(worker, reader, events)
        if profiler is not None:
            profiler.disable()
    finally:
        reader.close()
        worker.drain_and_close()
        bytewax.restore_gc()
    return found


def _run_loop(worker: Worker, reader: Reader, event_count: int) -> tuple[dict[str, float], int, int]:
    """CPU (us) by phase over at least `upto` events, with the numbers of events and batches."""
    parts = {"read": 0.0, "apply": 0.0, "publish": 0.0}
    done = passes = 0
    partitions = range(worker.settings.partitions)
    while done < event_count:
        begun = time.thread_time_ns()
        work = worker.read(reader, partitions)
        was_read = time.thread_time_ns()
        for _, one in work:
            worker.apply(one)
            done += len(one[1])
        applied = time.thread_time_ns()
        worker.publish()
        bytewax.collect_young()
        parts["read"] += (was_read - begun) / 1_000
        parts["apply"] += (applied - was_read) / 1_000
        parts["publish"] += (time.thread_time_ns() - applied) / 1_000
        passes += 1
    return parts, done, passes


def _slowest_functions(profiler: cProfile.Profile, events: int, top: int) -> list[str]:
    out = io.StringIO()
    stats = pstats.Stats(profiler, stream=out)
    rows = []
    for (file, line, name), (_, calls, own, whole, _) in stats.stats.items():  # type: ignore[attr-defined]  # untyped
        where = name if file == "~" else f"{_short(file)}:{line} {name}"
        rows.append((own, whole, calls, re.sub(r" at 0x[0-9a-f]+", "", where)))
    rows.sort(reverse=True)
    lines = [f"  {'own':>6} {'whole':>6} {'calls':>6}  function"]
    lines += [
        f"  {own * 1e6 / events:6.2f} {whole * 1e6 / events:6.2f} {calls / events:6.2f}  {where}"
        for own, whole, calls, where in rows[:top]
    ]
    return lines


def _short(file: str) -> str:
    parts = Path(file).parts
    return "/".join(parts[-2:])


def main() -> None:
    """Fill a store, then profile."""
    given = [int(one) for one in sys.argv[1:]]
    events, persons = given + [100_000, 20_000][len(given) :]
    with benchmark_instance(persons) as home:
        home.fill_store()
        print(profile(home, events, 60))


if __name__ == "__main__":
    main()
