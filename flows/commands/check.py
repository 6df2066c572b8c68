"""`attimo check`: validates a playbook and runs its scenarios.

shop/ ─▶ read and validated ─▶ scenarios/*.md run in the engine ─▶ errors with file and line
                └─▶ warnings: valid, but probably not intended
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from connectors.playbook.folder import locate_diagnostics, read_scenarios, read_with_files, unused_files
from domain.diagnostics import Diagnostic, PlaybookError
from domain.duration import pluralize
from domain.playbook.playbook import Playbook
from domain.playbook.scenario import Scenario
from domain.validation.warnings import warnings
from flows.scenarios.run import run_scenario
from state.playbook.compiled import compile_rules

NO_SCENARIOS = "no scenarios. A scenario tests what people are shown (docs/scenarios.md)"


class CheckResult(NamedTuple):
    """A valid playbook, its scenarios with their failures, errors in scenario files, and warnings."""

    playbook: Playbook
    scenario_results: list[tuple[Scenario, list[Diagnostic]]]
    invalid_scenarios: list[Diagnostic]
    warnings: list[Diagnostic]

    @property
    def errors(self) -> list[Diagnostic]:
        """All errors: in scenario files, and of failed scenarios."""
        return self.invalid_scenarios + [failure for _, failures in self.scenario_results for failure in failures]


def check(
    folder: Path,
    on_scenario: Callable[[Scenario, list[Diagnostic]], None] = lambda scenario, failures: None,
    now: int | None = None,
) -> CheckResult:
    """Check a folder. `on_scenario` is called after each scenario; `now` (ms) is the time for warnings about the past.

    Raise PlaybookError if the playbook itself has errors.
    """
    playbook, files = read_with_files(folder)
    rules = compile_rules(playbook)
    scenarios, invalid = read_scenarios(folder)
    results = []
    for scenario in scenarios:
        failures = run_scenario(scenario, rules)
        results.append((scenario, failures))
        on_scenario(scenario, failures)
    referenced = {row.name for scenario in scenarios for row in scenario.rows if row.step != "does"}
    if invalid:  # an invalid scenario may refer to any segment
        referenced |= {segment.name for segment in playbook.segments}
    found = unused_files(folder) + locate_diagnostics(files, warnings(playbook, referenced, now))
    if not scenarios and not invalid:
        found.append(Diagnostic("scenarios", 0, "", NO_SCENARIOS))
    return CheckResult(playbook, results, invalid, found)


def report(folder: str, echo: Callable[[str], None], now: int) -> str:
    """Check a folder, print each finding, and return the summary. Raise ValueError if there are errors."""

    def print_scenario(scenario: Scenario, failures: list[Diagnostic]) -> None:
        echo(f"  {'failed' if failures else 'passed':<7} {scenario.title}")
        for failure in failures:
            echo(f"          {failure}")

    try:
        checked = check(Path(folder), print_scenario, now)
    except PlaybookError as error:
        for diagnostic in error.diagnostics:
            echo(str(diagnostic))
        for file in unused_files(Path(folder)):  # a missing part may be in an unused file
            echo(f"warning: {file}")
        errors = pluralize(len(error.diagnostics), "error")
        raise ValueError(f"{folder}: {errors}. The last valid playbook stays live.") from error
    for diagnostic in checked.invalid_scenarios:
        echo(str(diagnostic))
    for warning in checked.warnings:
        echo(f"warning: {warning}")
    if checked.errors:
        raise ValueError(f"{folder}: {pluralize(len(checked.errors), 'error')} in scenarios")
    playbook = checked.playbook
    parts = (
        ("segments", playbook.segments),
        ("campaigns", playbook.campaigns),
        ("workflows", playbook.workflows),
        ("coupons", playbook.coupons),
        ("templates", playbook.templates),
        ("scenarios", checked.scenario_results),
    )
    count = len(checked.warnings)
    with_warnings = f", {pluralize(count, 'warning')}" if count else ""
    return f"{folder}: no errors{with_warnings} ({', '.join(f'{name}: {len(items)}' for name, items in parts)})"
