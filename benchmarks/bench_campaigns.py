"""Cost of a hundred times as many campaigns.

Two playbooks over the same events, alternating every 500 events (`benchmarks/side_by_side.py`): one with 100
campaigns, the floor, and one with 10,000, of which all but 100 are for niches. Then the same with 10,000 broad
campaigns, of which many are eligible at any time. CPU is that of the shard without the log and Redis, so the ratio is
higher than in production.
"""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.playbooks import make_playbook
from benchmarks.report import Budget, Result, make_result
from benchmarks.side_by_side import Measurement, PlaybookComparison
from domain.playbook.playbook import Playbook

FEW, MANY = "100 campaigns", "10,000 campaigns"


def measure(persons: int, events: int, rounds: int, campaigns: int = 10_000) -> list[Result]:
    """Measure CPU per event with niche campaigns, with broad ones, and by step; 100 campaigns are the floor."""
    niches, compiled, note = _compare(make_playbook(campaigns), persons, events, rounds)
    broad, compiled_broad, note_broad = _compare(make_playbook(campaigns, broad=True), persons, events, rounds)
    return [
        make_result(
            "CPU of a shard per event, 10,000 campaigns",
            "us",
            niches[MANY],
            niches[FEW],
            Budget("<= 1.3x 100 campaigns", max_ratio=1.3),
            f"{note}; compiled in {compiled:.1f} s",
        ),
        make_result(
            "CPU of a shard per event, 10,000 broad ones",
            "us",
            broad[MANY],
            broad[FEW],
            Budget("-"),
            f"{note_broad}; compiled in {compiled_broad:.1f} s",
        ),
        *_by_step(persons, events, campaigns),
    ]


def _compare(playbook: Playbook, persons: int, events: int, rounds: int) -> tuple[dict[str, list[float]], float, str]:
    """CPU per event (us) by round, compile time (s), and actions per event."""
    laps: dict[str, list[Measurement]] = {FEW: [], MANY: []}
    with tempfile.TemporaryDirectory(prefix="attimo-street-") as folder:
        street = PlaybookComparison(Path(folder), {FEW: make_playbook(100), MANY: playbook}, persons)
        try:
            street.measure(events, 1)
            for n in range(rounds):
                for name, lap in street.measure(events, 2 + n).items():
                    laps[name].append(lap)
        finally:
            street.close()
    said = {name: median([lap.actions / lap.events for lap in some]) for name, some in laps.items()}
    return (
        {name: [lap.cpu_per_event for lap in some] for name, some in laps.items()},
        street.runs[MANY].compile_seconds,
        f"{said[MANY]:.2f} actions per event ({said[FEW]:.2f} with 100)",
    )


def _by_step(persons: int, events: int, campaigns: int) -> list[Result]:
    """CPU per event by step, in two more runs with a clock around each step."""
    with tempfile.TemporaryDirectory(prefix="attimo-street-") as folder:
        street = PlaybookComparison(
            Path(folder), {FEW: make_playbook(100), MANY: make_playbook(campaigns)}, persons, time_steps=True
        )
        try:
            for shop in street.runs.values():
                shop.step_ns.update(dict.fromkeys(shop.step_ns, 0))
            laps = street.measure(events, 1)
            few, more = (
                {step: spent / laps[name].events / 1_000 for step, spent in street.runs[name].step_ns.items()}
                for name in (FEW, MANY)
            )
        finally:
            street.close()
    return [
        make_result(
            f"{step} per event, 10,000 campaigns",
            "us",
            [more[step]],
            [few[step]],
            Budget("-"),
            "one round, with a clock around each step" if n == 0 else "",
        )
        for n, step in enumerate(few)
    ]
