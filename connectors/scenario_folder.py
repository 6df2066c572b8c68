"""The stories of a playbook: `scenarios/*.md` without a README or a hidden file, read as text and taken apart."""

from pathlib import Path

from connectors.strays import is_read, unreadable
from domain.problem import Problem
from domain.scenario import Scenario, read

LARGEST = 256 * 1024
MOST = 1_000
"""Bytes of one file, and files, that are read."""


def scenarios(folder: Path) -> tuple[list[Scenario], list[Problem]]:
    """All stories in `folder`/scenarios, in the order of their files, and what is wrong with the files."""
    found: list[Scenario] = []
    problems: list[Problem] = []
    try:
        paths = sorted(path for path in (folder / "scenarios").iterdir() if is_read(path.name, "scenarios"))
    except (FileNotFoundError, NotADirectoryError):
        paths = []
    except OSError as wrong:
        return [], [unreadable("scenarios", wrong)]
    if len(paths) > MOST:
        problems.append(Problem("scenarios", 0, "", f"has more than {MOST} files"))
    for path in paths[:MOST]:
        name = f"scenarios/{path.name}"
        try:
            if path.stat().st_size > LARGEST:
                problems.append(Problem(name, 0, "", f"is larger than {LARGEST // 1024} kB"))
                continue
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            problems.append(Problem(name, 0, "", "should be UTF-8 text"))
            continue
        except OSError as wrong:
            problems.append(unreadable(name, wrong))
            continue
        stories, mistakes = read(name, text)
        found += stories
        problems += mistakes
    return found, problems
