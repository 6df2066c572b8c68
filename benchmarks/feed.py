"""The feeder: appends events to the log one by one at a fixed rate, independent of the engine.

    python -m benchmarks.feed PLAN        (settings from ATTIMO_*; PLAN is JSON)

It writes a JSON file with the append time (monotonic ns) of each marker and the delay of the feeder itself.
"""

import gc
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.data import MARKER_EVENT, EventGenerator
from connectors.log.open import open_log
from connectors.settings import load


class FeedOrder(msgspec.Struct):
    """The plan of a feeder: `rate` events per second for `seconds`."""

    persons: int
    seed: int
    marked_persons: int
    rate: int
    seconds: float
    report: str


class FeedReport(msgspec.Struct):
    """The result: times of the markers by anonymous id, just before their append, and sorted delays (ms)."""

    events: int
    marked_persons: int
    marker_times: dict[str, int]
    late_p99_ms: float
    seconds: float


def feed(order: FeedOrder) -> FeedReport:
    """Append the events and write the result."""
    traffic = EventGenerator(order.persons, order.seed, order.marked_persons)
    made = [next(traffic) for _ in range(int(order.rate * order.seconds))]
    gap = 1_000_000_000 // order.rate
    marks: dict[str, int] = {}
    late: list[int] = []
    with open_log(load({})) as log:
        gc.collect()
        gc.disable()
        start = time.monotonic_ns() + 10_000_000
        for n, one in enumerate(made):
            due = start + n * gap
            while (ahead := due - time.monotonic_ns()) > 0:
                time.sleep(ahead / 1e9)
            record = one.to_record(time.time_ns() // 1_000_000)
            now = time.monotonic_ns()
            log.append([record])
            late.append(now - due)
            if one.name == MARKER_EVENT:
                marks[one.anonymous_id] = now
        seconds = (time.monotonic_ns() - start) / 1e9
    late.sort()
    return FeedReport(len(made), traffic.marked_persons, marks, late[len(late) * 99 // 100] / 1e6, seconds)


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=FeedOrder)
    Path(given.report).write_bytes(msgspec.json.encode(feed(given)))
