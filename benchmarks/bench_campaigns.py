"""What do a hundred times as many campaigns cost?

Three shops over the same visits, in turns of 500 events (`benchmarks/street.py`): one with 100 campaigns, one with
10,000, of which all but a hundred are for niches, and one with 10,000 that are all as broad as the hundred, so that
very many hold for everybody at any time. The first is the floor of the others. CPU is that of the shard: the log and
Redis are left out, which makes the ratio greater than it is for the whole.
"""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.playbooks import many
from benchmarks.report import Budget, Result, result
from benchmarks.street import Lap, Street

FEW, MANY, BROAD = "100 campaigns", "10,000 campaigns", "10,000 broad campaigns"


def measure(persons: int, events: int, rounds: int, campaigns: int = 10_000) -> list[Result]:
    """Rows: CPU per event with many campaigns for niches, and with many broad ones; with 100 is the floor."""
    playbooks = {FEW: many(100), MANY: many(campaigns), BROAD: many(campaigns, broad=True)}
    laps: dict[str, list[Lap]] = {name: [] for name in playbooks}
    with tempfile.TemporaryDirectory(prefix="attimo-street-") as folder:
        street = Street(Path(folder), playbooks, persons)
        try:
            street.lap(events, 1)
            for n in range(rounds):
                for name, lap in street.lap(events, 2 + n).items():
                    laps[name].append(lap)
            steps = _by_step(Path(folder) / "steps", persons, events, campaigns)
            compiled = {name: shop.compiled for name, shop in street.shops.items()}
        finally:
            street.close()
    each = {name: [lap.each for lap in some] for name, some in laps.items()}
    notes = {name: f"{median([lap.actions / lap.events for lap in laps[name]]):.2f} actions an event "
                   f"({median([lap.actions / lap.events for lap in laps[FEW]]):.2f} with 100); "
                   f"compiled in {compiled[name]:.2f} s" for name in (MANY, BROAD)}
    return [
        result("CPU of a shard per event, 10,000 campaigns", "us", each[MANY], each[FEW],
               Budget("<= 1.3x 100 campaigns", ratio=1.3), f"{notes[MANY]}; us by step, with {FEW} and more: {steps}"),
        result("CPU of a shard per event, 10,000 broad ones", "us", each[BROAD], each[FEW], Budget("-"), notes[BROAD]),
    ]


def _by_step(folder: Path, persons: int, events: int, campaigns: int) -> str:
    """What each step costs, in two more shops that are watched."""
    street = Street(folder, {FEW: many(100), MANY: many(campaigns)}, persons, watched=True)
    try:
        for shop in street.shops.values():
            shop.spent.update(dict.fromkeys(shop.spent, 0))
        laps = street.lap(events, 1)
        few, more = ({step: spent / laps[name].events / 1_000 for step, spent in street.shops[name].spent.items()}
                     for name in (FEW, MANY))
    finally:
        street.close()
    return ", ".join(f"{step} {few[step]:.1f} {more[step]:.1f}" for step in few)
