"""Where does the time of the on-site flow go? The worker in this process over a backlog: by part, and by function.

    python -m benchmarks.profiling [EVENTS [PERSONS]]

A third of the backlog runs bare and gives CPU per event by part (read, apply, publish). Another third runs with a
clock around each step: what is left of `apply` is the shard's (events and persons in, persons and effects out). The
last third runs under cProfile, which makes small functions look dearer than they are, and gives the order of the
functions. Timers that come due meanwhile are part of it (a function called more than once an event may be due to
them). Bytewax itself is left out.
"""

import cProfile
import io
import pstats
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.house import House, house
from benchmarks.street import timed
from connectors.log import Reader
from flows import garbage
from flows.onsite import STEPS
from flows.worker import LIMIT, Worker
from state.context import Step

TOP = 15
LEAD = 1_000
"""Events before anything is measured: caches fill, templates are parsed."""


def profile(home: House, events: int, top: int = TOP) -> str:
    """A text: CPU per event by part and by step, and the dearest functions."""
    third = events // 3
    parts, done, passes = worked(home, third, 5, STEPS)
    spent: dict[str, int] = {}
    watched, counted, _ = worked(home, third, 6, [timed(step, spent) for step in STEPS])
    profiler = cProfile.Profile(time.thread_time_ns, 1e-9)  # CPU: what else the machine does is not ours
    _, profiled, _ = worked(home, third, 7, STEPS, profiler)
    whole = sum(parts.values())
    lines = [f"CPU per event: {whole / done:.1f} us without the profiler ({done:,} events, {passes} batches, "
             f"{home.persons:,} persons)"]
    lines += [f"  {name:<8} {took / done:6.1f} us" for name, took in parts.items()]
    lines += ["", f"Of apply, with a clock around each step, over the next {counted:,} events:"]
    lines += [f"  {name:<18} {ns / 1_000 / counted:6.1f} us" for name, ns in spent.items()]
    lines += [f"  {'the shard':<18} {(watched['apply'] - sum(spent.values()) / 1_000) / counted:6.1f} us"]
    lines += ["", f"Under the profiler, {profiled:,} events; us per event, own time and with what is called:"]
    return "\n".join(lines + _dearest(profiler, profiled, top))


def worked(home: House, events: int, seed: int, steps: Sequence[Step],
            profiler: cProfile.Profile | None = None) -> tuple[dict[str, float], int, int]:
    """A worker over a new backlog, the first LEAD of it to warm up; what `_bare` found of the rest. As it stops behind
    a whole batch, some more lie there.
    """
    home.append(home.traffic(LEAD + events + 2 * LIMIT, seed))
    worker = Worker(home.settings, steps)
    partitions = range(home.settings.partitions)
    worker.own(partitions)
    reader = worker.reader(partitions)
    garbage.settle()  # as flows/adapter.py does
    try:
        _bare(worker, reader, LEAD)
        if profiler is not None:
            profiler.enable()
        found = _bare(worker, reader, events)
        if profiler is not None:
            profiler.disable()
    finally:
        reader.close()
        worker.finish()
        garbage.leave()
    return found


def _bare(worker: Worker, reader: Reader, upto: int) -> tuple[dict[str, float], int, int]:
    """CPU (us) by part over `upto` events or a little more; how many they were, in how many batches."""
    parts = {"read": 0.0, "apply": 0.0, "publish": 0.0}
    done = passes = 0
    partitions = range(worker.settings.partitions)
    while done < upto:
        begun = time.thread_time_ns()
        work = worker.read(reader, partitions)
        was_read = time.thread_time_ns()
        for _, one in work:
            worker.apply(one)
            done += len(one[1])
        applied = time.thread_time_ns()
        worker.publish()
        garbage.step()
        parts["read"] += (was_read - begun) / 1_000
        parts["apply"] += (applied - was_read) / 1_000
        parts["publish"] += (time.thread_time_ns() - applied) / 1_000
        passes += 1
    return parts, done, passes


def _dearest(profiler: cProfile.Profile, events: int, top: int) -> list[str]:
    out = io.StringIO()
    stats = pstats.Stats(profiler, stream=out)
    rows = []
    for (file, line, name), (_, calls, own, whole, _) in stats.stats.items():  # type: ignore[attr-defined]  # untyped
        where = name if file == "~" else f"{_short(file)}:{line} {name}"
        rows.append((own, whole, calls, re.sub(r" at 0x[0-9a-f]+", "", where)))
    rows.sort(reverse=True)
    lines = [f"  {'own':>6} {'whole':>6} {'calls':>6}  function"]
    lines += [f"  {own * 1e6 / events:6.2f} {whole * 1e6 / events:6.2f} {calls / events:6.2f}  {where}"
              for own, whole, calls, where in rows[:top]]
    return lines


def _short(file: str) -> str:
    parts = Path(file).parts
    return "/".join(parts[-2:])


def main() -> None:
    """Warm a shop, then profile."""
    given = [int(one) for one in sys.argv[1:]]
    events, persons = given + [100_000, 20_000][len(given):]
    with house(persons) as home:
        home.warm()
        print(profile(home, events, 60))


if __name__ == "__main__":
    main()
