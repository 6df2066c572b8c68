"""What do a hundred times as many campaigns cost?

Two shops over the same visits, in turns of 500 events (`benchmarks/street.py`): one with 100 campaigns, the floor, and
one with 10,000, of which all but a hundred are for niches. Then the same with 10,000 that are all as broad as the
hundred, so that very many hold for everybody at any time. CPU is that of the shard: the log and Redis are left out,
which makes the ratio greater than it is for the whole.
"""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.playbooks import many
from benchmarks.report import Budget, Result, result
from benchmarks.street import Lap, Street
from domain.playbook import Playbook

FEW, MANY = "100 campaigns", "10,000 campaigns"


def measure(persons: int, events: int, rounds: int, campaigns: int = 10_000) -> list[Result]:
    """Rows: CPU per event with many campaigns for niches, and with many broad ones, and by step; 100 is the floor."""
    niches, compiled, note = _side_by_side(many(campaigns), persons, events, rounds)
    broad, compiled_broad, note_broad = _side_by_side(many(campaigns, broad=True), persons, events, rounds)
    return [
        result("CPU of a shard per event, 10,000 campaigns", "us", niches[MANY], niches[FEW],
               Budget("<= 1.3x 100 campaigns", ratio=1.3),
               f"{note}; compiled in {compiled:.1f} s"),
        result("CPU of a shard per event, 10,000 broad ones", "us", broad[MANY], broad[FEW], Budget("-"),
               f"{note_broad}; compiled in {compiled_broad:.1f} s"),
        *_by_step(persons, events, campaigns),
    ]


def _side_by_side(playbook: Playbook, persons: int, events: int, rounds: int) -> tuple[dict[str, list[float]], float,
                                                                                       str]:
    """CPU per event (us) by round with few and with many; what compiling took (s); how much was said."""
    laps: dict[str, list[Lap]] = {FEW: [], MANY: []}
    with tempfile.TemporaryDirectory(prefix="attimo-street-") as folder:
        street = Street(Path(folder), {FEW: many(100), MANY: playbook}, persons)
        try:
            street.lap(events, 1)
            for n in range(rounds):
                for name, lap in street.lap(events, 2 + n).items():
                    laps[name].append(lap)
        finally:
            street.close()
    said = {name: median([lap.actions / lap.events for lap in some]) for name, some in laps.items()}
    return ({name: [lap.each for lap in some] for name, some in laps.items()}, street.shops[MANY].compiled,
            f"{said[MANY]:.2f} actions an event ({said[FEW]:.2f} with 100)")


def _by_step(persons: int, events: int, campaigns: int) -> list[Result]:
    """What each step takes of an event, in two more shops that are watched."""
    with tempfile.TemporaryDirectory(prefix="attimo-street-") as folder:
        street = Street(Path(folder), {FEW: many(100), MANY: many(campaigns)}, persons, watched=True)
        try:
            for shop in street.shops.values():
                shop.spent.update(dict.fromkeys(shop.spent, 0))
            laps = street.lap(events, 1)
            few, more = ({step: spent / laps[name].events / 1_000 for step, spent in street.shops[name].spent.items()}
                         for name in (FEW, MANY))
        finally:
            street.close()
    return [result(f"{step} per event, 10,000 campaigns", "us", [more[step]], [few[step]], Budget("-"),
                   "one round, with the clock around it" if n == 0 else "") for n, step in enumerate(few)]
