"""Checking: is a playbook whole, and does it tell the stories it should?

    shop/ ─▶ read and checked ─▶ scenarios/*.md told to the engine ─▶ what is wrong, with file and line
                    └─▶ warnings: what may be meant, and more likely is not
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from connectors.playbook_folder import located, read_with_files
from connectors.scenario_folder import scenarios
from connectors.strays import strays
from domain.check_warnings import warnings
from domain.playbook import Playbook
from domain.problem import PlaybookError, Problem
from domain.scenario import Scenario
from flows.scenarios import tell
from state.rules import compile_rules

NO_STORIES = "there are none: a story says in a table what somebody must be shown (docs/scenarios.md)"


class Checked(NamedTuple):
    """A playbook without mistakes, its stories with what came differently, what is wrong with their files; and what
    may be wrong, but keeps nothing from going live.
    """

    playbook: Playbook
    told: list[tuple[Scenario, list[Problem]]]
    unreadable: list[Problem]
    warnings: list[Problem]

    @property
    def problems(self) -> list[Problem]:
        """Everything that is to be put right."""
        return self.unreadable + [problem for _, wrong in self.told for problem in wrong]


def check(folder: Path, heard: Callable[[Scenario, list[Problem]], None] = lambda scenario, wrong: None,
          now: int | None = None) -> Checked:
    """Check a folder; `heard` is called after each story, and `now` (ms) tells what is over.

    PlaybookError when the playbook itself has mistakes.
    """
    playbook, files = read_with_files(folder)
    rules = compile_rules(playbook)
    stories, unreadable = scenarios(folder)
    told = []
    for story in stories:
        wrong = tell(story, rules)
        told.append((story, wrong))
        heard(story, wrong)
    spoken_of = {row.which for story in stories for row in story.rows if row.what != "does"}
    if unreadable:  # nobody knows what their stories would speak of
        spoken_of |= {segment.name for segment in playbook.segments}
    doubts = strays(folder) + located(files, warnings(playbook, spoken_of, now))
    if not stories and not unreadable:
        doubts.append(Problem("scenarios", 0, "", NO_STORIES))
    return Checked(playbook, told, unreadable, doubts)


def report(folder: str, say: Callable[[str], None], now: int) -> str:
    """Check a folder and say everything as it is found; the summary. ValueError when something is to be put right."""

    def heard(story: Scenario, wrong: list[Problem]) -> None:
        say(f"  {'not as told' if wrong else 'as told':<12} {story.title}")
        for problem in wrong:
            say(f"               {problem}")

    try:
        checked = check(Path(folder), heard, now)
    except PlaybookError as wrong:
        for problem in wrong.problems:
            say(str(problem))
        for stray in strays(Path(folder)):  # what is missing may lie in a folder that nobody reads
            say(f"warning: {stray}")
        raise ValueError(f"{folder}: {len(wrong.problems)} to put right; what is live stays live") from wrong
    for problem in checked.unreadable:
        say(str(problem))
    for warning in checked.warnings:
        say(f"warning: {warning}")
    if checked.problems:
        raise ValueError(f"{folder}: {len(checked.problems)} to put right in its scenarios")
    playbook = checked.playbook
    parts = (("segments", playbook.segments), ("campaigns", playbook.campaigns), ("workflows", playbook.workflows),
             ("coupons", playbook.coupons), ("templates", playbook.templates), ("scenarios", checked.told))
    many = len(checked.warnings)
    doubts = f", with {many} warning{'s' if many > 1 else ''}" if many else ""
    return f"{folder}: nothing is wrong{doubts} ({', '.join(f'{name}: {len(some)}' for name, some in parts)})"
