"""Where does the time of the on-site flow go? The worker in this process over a backlog: by part, and by function.

    python -m benchmarks.profiling [EVENTS [PERSONS]]

Half of the backlog runs bare and gives CPU per event by part (read, apply, publish). The other half runs under
cProfile, which makes small functions look dearer than they are, and gives the order of the functions. Timers that come
due meanwhile are part of it (a function called more than once an event may be due to them). Bytewax itself
is left out.
"""

import cProfile
import io
import pstats
import re
import sys
import time
from pathlib import Path

from benchmarks.house import House, house
from connectors.log import Reader
from flows import garbage
from flows.onsite import STEPS
from flows.worker import Worker

TOP = 15


def profile(home: House, events: int, top: int = TOP) -> str:
    """A text: CPU per event by part, and the dearest functions."""
    home.append(home.traffic(events // 2, 5))
    worker = Worker(home.settings, STEPS)
    partitions = range(home.settings.partitions)
    worker.own(partitions)
    reader = worker.reader(partitions)
    garbage.settle()  # as flows/adapter.py does
    try:
        parts, done, passes = _bare(worker, reader, events // 2)
        home.append(home.traffic(events // 2, 6))
        profiler = cProfile.Profile(time.thread_time_ns, 1e-9)  # CPU: what else the machine does is not ours
        profiler.enable()
        profiled = _bare(worker, reader, events // 2)[1]
        profiler.disable()
    finally:
        reader.close()
        worker.finish()
        garbage.leave()
    whole = sum(parts.values())
    lines = [f"CPU per event: {whole / done:.1f} us without the profiler ({done:,} events, {passes} batches, "
             f"{home.persons:,} persons)"]
    lines += [f"  {name:<8} {spent / done:6.1f} us" for name, spent in parts.items()]
    lines += ["", f"Under the profiler, {profiled:,} events; us per event, own time and with what is called:"]
    return "\n".join(lines + _dearest(profiler, profiled, top))


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
