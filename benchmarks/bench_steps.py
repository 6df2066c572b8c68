"""What does an event cost with everything on, beside a durable worker that knows and decides nothing?

Two workers in this process over the same store, in turns, each over a backlog of its own: one with no step at all (it
reads, brings persons in, writes them down, commits), and one with all of them. The first is what durability and a shard
cost by themselves, so it is the floor. Bytewax is left out.
"""

from benchmarks.house import House
from benchmarks.profiling import worked
from benchmarks.report import Budget, Result, result
from flows.onsite import STEPS


def measure(house: House, events: int, rounds: int) -> list[Result]:
    """One row: CPU per event with all steps; without any is the floor."""
    with_all: list[float] = []
    without: list[float] = []
    for n in range(rounds):
        turns = [(STEPS, with_all), ((), without)]
        for steps, found in turns if n % 2 == 0 else reversed(turns):
            parts, done, _ = worked(house, events, 400 + len(with_all) + len(without), steps)
            found.append(sum(parts.values()) / done)
    return [result("CPU of a worker per event, everything on", "us", with_all, without,
                   Budget("<= 5x a durable worker without steps", ratio=5), f"{events:,} events a turn")]
