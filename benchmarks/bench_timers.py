"""What do a million people cost who wait in a workflow, while nobody of them does anything?

Two houses over the same traffic: in the store of one of them lie the timers, written there directly, due in an hour at
the soonest. They take turns. First nothing at all for some seconds (CPU of the loop that looks at clock and log), all
rounds of it, because what people do sets timers for the next minutes; then backlogs (CPU per event, between two marks),
in which one house stands still for a fraction of a second while the other works: the speed of a shared machine changes
from minute to minute by more than what is asked here.
"""

import time

from benchmarks.house import PATIENCE, House, house
from benchmarks.report import Budget, Result, result
from domain.partition import partition_of
from flows.worker import store_path
from state import codec
from state.person import Count, Facts, Person, Run, routing_key
from state.runs import TIMER
from state.store import Batch
from state.store_sqlite import SqliteStore

SLICE = 0.3
"""Seconds that a house works until it is the other one's turn."""
SLOWEST = 500
"""Events a second at which something is the matter."""
LEAD = 2_000
"""Events before the first mark: caches fill, templates are parsed."""
MONTH = 30 * 86_400_000
HOUR = 3_600_000


def measure(home: House, timers: int, events: int, seconds: float, rounds: int) -> list[Result]:
    """Rows: CPU per event, and of idling, with the timers; without them is the floor."""
    idle: dict[str, list[float]] = {"with": [], "without": []}
    busy: dict[str, list[float]] = {"with": [], "without": []}
    with house(home.persons) as other:
        for one in (home, other):  # everybody is looked at when a playbook is new: let that be over
            one.attimo("onsite")
            one.ready("onsite")
            time.sleep(1.0)
            one.stop("onsite")
        size = write_timers(home, timers)
        both = (("with", home), ("without", other))
        for n in range(rounds):
            for name, one in both if n % 2 == 0 else reversed(both):
                idle[name].append(_idle(one, seconds))
        for n in range(rounds):
            for name, spent in _busy(dict(both if n % 2 == 0 else both[::-1]), events, 700 + n).items():
                busy[name].append(spent)
    note = f"{timers:,} people wait, {size >> 20} MB of them in the store"
    return [
        result("CPU of onsite per event, timers pending", "us", busy["with"], busy["without"],
               Budget("<= 1.05x without", ratio=1.05), note),
        result("CPU of onsite idling, timers pending", "% of a core", idle["with"], idle["without"],
               Budget("<= 1.1x without", ratio=1.1)),
    ]


def write_timers(home: House, timers: int) -> int:
    """Put so many people who wait into the store; the bytes they take."""
    now, size = time.time_ns() // 1_000_000, 0
    partitions = home.settings.partitions
    store = SqliteStore(store_path(home.settings), partitions)
    store.claim(range(partitions), "bench_timers")
    for start in range(0, timers, 10_000):
        batch = Batch()
        for n in range(start, min(start + 10_000, timers)):
            person = waiting(n, now)
            value = codec.encode(person)
            partition = partition_of(routing_key(person.id), partitions)
            batch.persons[partition, person.id] = value
            batch.dues[partition, person.id] = next(iter(person.timers.values()))
            size += len(value)
        store.commit(batch, [])
    store.close()
    return size


def waiting(n: int, now: int) -> Person:
    """Somebody who looked at something a day ago and waits in a workflow."""
    began, until = now - 86_400_000, now + HOUR + n * 7_919 % MONTH
    name = f"welcome-{n:012x}"
    return Person(
        id=f"a:waits-{n}", rules="-" * 12,
        facets={f"a:waits-{n}": Facts(3, began, began, 1, 2, {"Page Viewed": Count(2, began, began)}, device="mobile",
                                      country="IT", timezone="Europe/Rome")},
        runs={name: Run("welcome", "0" * 12, began, 1, began, until, "time to pass", 'event "Page Viewed"', 2, "rest")},
        timers={TIMER + name: until})


def _idle(home: House, seconds: float) -> float:
    """The share of a core (%) that the engine takes while nothing happens."""
    home.attimo("onsite")
    home.ready("onsite")
    time.sleep(2.0)  # what is left to tidy is tidied
    before, began = home.cpu("onsite"), time.monotonic_ns()
    time.sleep(seconds)
    share = (home.cpu("onsite") - before) / (time.monotonic_ns() - began) * 100
    home.stop("onsite")
    return share


class _Turn:
    """One house at work on a backlog, which lies between two marks; it stands still when it is not its turn."""

    def __init__(self, home: House, events: int, seed: int) -> None:
        self.home, self.events = home, events
        home.append(home.traffic(LEAD, seed))
        first, last = home.signal(), home.signal()
        home.append([first])
        home.append(home.traffic(events, seed + 100))
        home.append([last])
        self._first, self._last = first.anonymous_id, last.anonymous_id
        self._before, self.spent = 0, 0.0
        home.attimo("onsite")
        home.pause("onsite")

    def take(self) -> None:
        """Work for a moment, and take down when the marks were passed."""
        self.home.resume("onsite")
        end = time.monotonic() + SLICE
        while not self.spent and (left := end - time.monotonic()) > 0:
            for one in self.home.listening.read(left):
                if one.is_mark and one.anonymous_id == self._first:
                    self._before = self.home.cpu("onsite")
                elif one.is_mark and one.anonymous_id == self._last:
                    self.spent = (self.home.cpu("onsite") - self._before) / 1_000 / self.events
        self.home.check("onsite has done the backlog")
        if not self.spent:
            self.home.pause("onsite")


def _busy(homes: dict[str, House], events: int, seed: int) -> dict[str, float]:
    """CPU (us) per event of a backlog in each of the houses. They work in turns of a fraction of a second, so what
    else the machine does meanwhile weighs the same on both.
    """
    turns = {name: _Turn(home, events, seed) for name, home in homes.items()}
    patience = (PATIENCE + events / SLOWEST) * len(turns)
    end = time.monotonic() + patience
    while waiting := [one for one in turns.values() if not one.spent]:
        if time.monotonic() > end:
            raise RuntimeError(f"the backlog was not done in {patience:.0f} s\n{waiting[0].home.said()}")
        for one in waiting:
            one.take()
    for home in homes.values():
        home.stop("onsite")
    return {name: one.spent for name, one in turns.items()}
