"""CPU per event of a complete worker, compared with a durable worker without steps.

Two workers in this process over the same store alternate, each over its own backlog: one without steps (it reads, loads
people, stores them and commits), and one with all steps. The first is the floor: the cost of durability and of a shard.
Bytewax is not included.
"""

from benchmarks.instance import BenchmarkInstance
from benchmarks.profiling import profile_backlog
from benchmarks.report import Budget, Result, make_result
from operators.steps import STEPS


def measure(instance: BenchmarkInstance, events: int, rounds: int) -> list[Result]:
    """Measure CPU per event with all steps; without steps is the floor."""
    with_all: list[float] = []
    without: list[float] = []
    for n in range(rounds):
        turns = [(STEPS, with_all), ((), without)]
        for steps, found in turns if n % 2 == 0 else reversed(turns):
            parts, done, _ = profile_backlog(instance, events, 400 + len(with_all) + len(without), steps)
            found.append(sum(parts.values()) / done)
    return [
        make_result(
            "CPU of a worker per event, everything on",
            "us",
            with_all,
            without,
            Budget("<= 5x a durable worker without steps", max_ratio=5),
            f"{events:,} events per run",
        )
    ]
