"""Checking: is a playbook whole, and does it tell the stories it should?

    shop/ ─▶ read and checked ─▶ scenarios/*.md told to the engine ─▶ what is wrong, with file and line
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from connectors.playbook_folder import read
from connectors.scenario_folder import scenarios
from domain.playbook import Playbook
from domain.problem import Problem
from domain.scenario import Scenario
from flows.scenarios import tell
from state.rules import compile_rules


class Checked(NamedTuple):
    """A playbook without mistakes, its stories with what came differently, and what is wrong with their files."""

    playbook: Playbook
    told: list[tuple[Scenario, list[Problem]]]
    unreadable: list[Problem]

    @property
    def problems(self) -> list[Problem]:
        """Everything that is to be put right."""
        return self.unreadable + [problem for _, wrong in self.told for problem in wrong]


def check(folder: Path, heard: Callable[[Scenario, list[Problem]], None] = lambda scenario, wrong: None) -> Checked:
    """Check a folder; `heard` is called after each story. PlaybookError when the playbook itself has mistakes."""
    playbook = read(folder)
    rules = compile_rules(playbook)
    stories, unreadable = scenarios(folder)
    told = []
    for story in stories:
        wrong = tell(story, rules)
        told.append((story, wrong))
        heard(story, wrong)
    return Checked(playbook, told, unreadable)
