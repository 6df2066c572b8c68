"""Cost of a million people who wait in a workflow without any events.

Two instances get the same traffic; the store of one also has the timers, which are due in an hour at the earliest.
They alternate. First all rounds without events (CPU of the loop that reads clock and log), because events set timers
for the next minutes. Then backlogs (CPU per event between two markers), in which the instances alternate within a
fraction of a second: the speed of a shared machine varies by more than the measured difference.
"""

import time

from benchmarks.instance import TIMEOUT, BenchmarkInstance, benchmark_instance
from benchmarks.report import Budget, Result, make_result
from domain.record import partition_of
from flows.worker import store_path
from state.membership.workflow_runs import RUN_TIMER
from state.person import codec
from state.person.model import LifetimeCount, Person, ProfileFragment, WorkflowRun, routing_key
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch

TURN_SECONDS = 0.3
"""Seconds between two switches of the running instance."""
MIN_EVENTS_PER_SECOND = 500
"""Events per second below which a run is considered broken."""
WARM_UP_EVENTS = 2_000
"""Events before the first marker, to warm up caches and templates."""
MONTH = 30 * 86_400_000
HOUR = 3_600_000


def measure(instance: BenchmarkInstance, timers: int, events: int, seconds: float, rounds: int) -> list[Result]:
    """Measure CPU per event and while idle with timers; without timers is the floor."""
    idle: dict[str, list[float]] = {"with": [], "without": []}
    busy: dict[str, list[float]] = {"with": [], "without": []}
    with benchmark_instance(instance.persons) as other:
        for one in (instance, other):  # wait until the re-evaluation under the new playbook is finished
            one.start_attimo("onsite")
            one.wait_until_ready("onsite")
            time.sleep(1.0)
            one.stop("onsite")
        size = write_timers(instance, timers)
        both = (("with", instance), ("without", other))
        for n in range(rounds):
            for name, one in both if n % 2 == 0 else reversed(both):
                idle[name].append(_measure_idle(one, seconds))
        for n in range(rounds):
            for name, spent in _measure_busy(dict(both if n % 2 == 0 else both[::-1]), events, 700 + n).items():
                busy[name].append(spent)
    note = f"{timers:,} people wait, {size >> 20} MB of them in the store"
    return [
        make_result(
            "CPU of onsite per event, timers pending",
            "us",
            busy["with"],
            busy["without"],
            Budget("<= 1.05x without", max_ratio=1.05),
            note,
        ),
        make_result(
            "CPU of onsite idling, timers pending",
            "% of a core",
            idle["with"],
            idle["without"],
            Budget("<= 1.1x without", max_ratio=1.1),
        ),
    ]


def write_timers(instance: BenchmarkInstance, timers: int) -> int:
    """Store people with pending timers; return their size in bytes."""
    now, size = time.time_ns() // 1_000_000, 0
    partitions = instance.settings.partitions
    store = SqliteStore(store_path(instance.settings), partitions)
    store.claim(range(partitions), "bench_timers")
    for start in range(0, timers, 10_000):
        batch = WriteBatch()
        for n in range(start, min(start + 10_000, timers)):
            person = waiting_person(n, now)
            value = codec.encode(person)
            partition = partition_of(routing_key(person.id), partitions)
            batch.persons[partition, person.id] = value
            batch.due_times[partition, person.id] = next(iter(person.timers.values()))
            size += len(value)
        store.commit(batch, [])
    store.close()
    return size


def waiting_person(n: int, now: int) -> Person:
    """A person who viewed a product a day ago and waits in a workflow."""
    began, until = now - 86_400_000, now + HOUR + n * 7_919 % MONTH
    name = f"welcome-{n:012x}"
    return Person(
        id=f"a:waits-{n}",
        playbook_hash="-" * 12,
        fragments={
            f"a:waits-{n}": ProfileFragment(
                3,
                began,
                began,
                1,
                2,
                {"Page Viewed": LifetimeCount(2, began, began)},
                device="mobile",
                country="IT",
                timezone="Europe/Rome",
            )
        },
        runs={
            name: WorkflowRun(
                "welcome", "0" * 12, began, 1, began, until, "time to pass", 'event "Page Viewed"', 2, "rest"
            )
        },
        timers={RUN_TIMER + name: until},
    )


def _measure_idle(instance: BenchmarkInstance, seconds: float) -> float:
    """CPU of the engine without events, in percent of a core."""
    instance.start_attimo("onsite")
    instance.wait_until_ready("onsite")
    time.sleep(2.0)  # finish housekeeping
    before, began = instance.cpu("onsite"), time.monotonic_ns()
    time.sleep(seconds)
    share = (instance.cpu("onsite") - before) / (time.monotonic_ns() - began) * 100
    instance.stop("onsite")
    return share


class _BacklogRun:
    """One instance over a backlog between two markers; stopped while the other one runs."""

    def __init__(self, instance: BenchmarkInstance, events: int, seed: int) -> None:
        self.home, self.events = instance, events
        instance.append(instance.next_events(WARM_UP_EVENTS, seed))
        first, last = instance.make_marker(), instance.make_marker()
        instance.append([first])
        instance.append(instance.next_events(events, seed + 100))
        instance.append([last])
        self._first_marker, self._last_marker = first.anonymous_id, last.anonymous_id
        self._cpu_before, self.cpu_per_event = 0, 0.0
        instance.start_attimo("onsite")
        instance.pause("onsite")

    def work(self) -> None:
        """Run for a moment, and record when the markers are passed."""
        self.home.resume("onsite")
        end = time.monotonic() + TURN_SECONDS
        while not self.cpu_per_event and (left := end - time.monotonic()) > 0:
            for one in self.home.subscriber.read(left):
                if one.is_marker and one.anonymous_id == self._first_marker:
                    self._cpu_before = self.home.cpu("onsite")
                elif one.is_marker and one.anonymous_id == self._last_marker:
                    self.cpu_per_event = (self.home.cpu("onsite") - self._cpu_before) / 1_000 / self.events
        self.home.check_alive("onsite has done the backlog")
        if not self.cpu_per_event:
            self.home.pause("onsite")


def _measure_busy(homes: dict[str, BenchmarkInstance], events: int, seed: int) -> dict[str, float]:
    """CPU per event (us) of a backlog in each instance.

    They alternate within a fraction of a second, so that other load of the machine affects both equally.
    """
    turns = {name: _BacklogRun(home, events, seed) for name, home in homes.items()}
    patience = (TIMEOUT + events / MIN_EVENTS_PER_SECOND) * len(turns)
    end = time.monotonic() + patience
    while waiting := [one for one in turns.values() if not one.cpu_per_event]:
        if time.monotonic() > end:
            raise RuntimeError(f"the backlog was not processed in {patience:.0f} s\n{waiting[0].home.log_tails()}")
        for one in waiting:
            one.work()
    for home in homes.values():
        home.stop("onsite")
    return {name: one.cpu_per_event for name, one in turns.items()}
