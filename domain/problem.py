"""Problems: what is wrong with a playbook, said so that whoever wrote it can put it right.

>>> print(Problem("segments/engaged.toml", 4, "when.sesion", 'there is nothing called "sesion" here'))
segments/engaged.toml, line 4, when.sesion: there is nothing called "sesion" here
"""

from collections.abc import Sequence
from typing import NamedTuple

Path = tuple[str | int, ...]
"""Where something stands in a file: names of fields, and places (from 0) in lists."""


class Problem(NamedTuple):
    """One mistake: in which file, at which line (0: of no line), in which field, and what is expected there."""

    file: str
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        where = [self.file, f"line {self.line}" if self.line else "", self.field]
        return ", ".join(part for part in where if part) + f": {self.text}"


class PlaybookError(ValueError):
    """A playbook that cannot be taken, with all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
