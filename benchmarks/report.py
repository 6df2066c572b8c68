"""Results: one row per budget, as a table and as JSON."""

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """A budget: bounds of the measured value, and of its ratio to the floor."""

    text: str
    at_most: float | None = None
    at_least: float | None = None
    max_ratio: float | None = None
    min_ratio: float | None = None

    def is_met(self, ours: float, ratio: float | None) -> bool:
        """Whether the budget is met.

        >>> Budget("at most 5 and twice the floor", at_most=5, max_ratio=2).is_met(4.0, 2.1)
        False
        """
        return not (
            (self.at_most is not None and ours > self.at_most)
            or (self.at_least is not None and ours < self.at_least)
            or (self.max_ratio is not None and (ratio is None or ratio > self.max_ratio))
            or (self.min_ratio is not None and (ratio is None or ratio < self.min_ratio))
        )


class Result(msgspec.Struct, frozen=True):
    """One row: medians over the rounds, the rounds, and a note."""

    name: str
    ours: float
    floor: float | None
    ratio: float | None
    unit: str
    budget: str
    met: bool
    rounds: dict[str, list[float]]
    note: str = ""


class Report(msgspec.Struct):
    """The report of one run."""

    machine: dict[str, str]
    command: str
    date: str
    quick: bool
    results: list[Result] = []
    v: int = 1


def make_result(name: str, unit: str, ours: list[float], floor: list[float], budget: Budget, note: str = "") -> Result:
    """Build a row from rounds.

    The ratio is the median of the ratios by round, since the speed of the machine varies more between rounds than
    within one.

    >>> make_result("p99", "ms", [3.0, 2.0, 9.0], [1.0, 2.0, 4.0], Budget("<= 5 ms", at_most=5)).ratio
    2.25
    """
    mine, base = median(ours), median(floor) if floor else None
    ratio = None
    if base:
        pairs = list(zip(ours, floor, strict=True)) if len(ours) == len(floor) and all(floor) else [(mine, base)]
        ratio = round(median([one / other for one, other in pairs]), 2)
    rounds = {"ours": [_rounded(one) for one in ours], "floor": [_rounded(one) for one in floor]}
    return Result(
        name,
        _rounded(mine),
        _rounded(base) if base is not None else None,
        ratio,
        unit,
        budget.text,
        budget.is_met(mine, ratio),
        rounds,
        note,
    )


def percentile(values: list[float], share: float) -> float:
    """A percentile by nearest rank.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


def new_report(quick: bool) -> Report:
    """A new report with machine, command and time."""
    return Report(
        machine(),
        " ".join(["python -m benchmarks", *sys.argv[1:]]),
        datetime.now(UTC).isoformat(timespec="seconds"),
        quick,
    )


def machine() -> dict[str, str]:
    """Properties of the machine; `load` is the one-minute average."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": str(_cores()),
        "load": f"{os.getloadavg()[0]:.2f}",
    }
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["cpu"] = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        facts["memory"] = f"{int(Path('/proc/meminfo').read_text().split()[1]) // 1_048_576} GiB"
    except OSError:
        facts["cpu"] = platform.processor()
    return facts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(report: Report) -> str:
    """Format the rows as a table."""
    head = ("what", "ours", "floor", "ratio", "unit", "budget", "met")
    rows = [head] + [
        (
            one.name,
            f"{one.ours:g}",
            "-" if one.floor is None else f"{one.floor:g}",
            "-" if one.ratio is None else f"{one.ratio:g}",
            one.unit,
            one.budget,
            "yes" if one.met else "NO",
        )
        for one in report.results
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    facts = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    notes = [f"  {one.name}: {one.note}" for one in report.results if one.note]
    return "\n".join([*lines, "", *notes, f"  {facts}", f"  {report.command}  ({report.date})"])


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
