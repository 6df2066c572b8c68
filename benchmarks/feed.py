"""The feeder: appends shop events to the log, one by one, at a fixed rate, whatever the engine does (an open loop).

    python -m benchmarks.feed ORDER        (settings from ATTIMO_*; ORDER: JSON, see Order)

It writes a JSON file: when (monotonic ns) each mark was appended, and how late the feeder itself was.
"""

import gc
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.data import MARK, Traffic
from connectors.open_log import open_log
from connectors.settings import load


class Order(msgspec.Struct):
    """What to feed: `rate` events a second for `seconds`; marks from the `marked`-th person on."""

    persons: int
    seed: int
    marked: int
    rate: int
    seconds: float
    report: str


class Fed(msgspec.Struct):
    """What was fed. `marks` maps anonymous ids to the moment just before the append; `late_ms` is sorted."""

    events: int
    marked: int
    marks: dict[str, int]
    late_p99_ms: float
    seconds: float


def feed(order: Order) -> Fed:
    """Feed, and say what was fed."""
    traffic = Traffic(order.persons, order.seed, order.marked)
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
            record = one.outgoing(time.time_ns() // 1_000_000)
            now = time.monotonic_ns()
            log.append([record])
            late.append(now - due)
            if one.name == MARK:
                marks[one.anonymous_id] = now
        seconds = (time.monotonic_ns() - start) / 1e9
    late.sort()
    return Fed(len(made), traffic.marked, marks, late[len(late) * 99 // 100] / 1e6, seconds)


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=Order)
    Path(given.report).write_bytes(msgspec.json.encode(feed(given)))
