"""Problems: what is wrong with a playbook, said so that whoever wrote it can put it right.

>>> print(Problem("segments/engaged.toml", 4, "when.sesion", 'there is nothing called "sesion" here'))
segments/engaged.toml, line 4, when.sesion: there is nothing called "sesion" here
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

Path = tuple[str | int, ...]
"""Where something stands in a file: names of fields, and places (from 0) in lists."""


class Problem(NamedTuple):
    """One mistake: in which file, at which line (0: of no line), in which field, and what is expected there."""

    file: str
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        file, line, field, text = self.tellable()
        where = [file, f"line {line}" if line else "", field]
        return ", ".join(part for part in where if part) + f": {text}"

    def tellable(self) -> Self:
        r"""The same in text that any file and any terminal takes: names of files need not be text at all.

        >>> print(Problem("segments/\udcff.toml", 1, "when", "is missing").tellable().file)
        segments/\udcff.toml
        """
        return self._replace(file=_plain(self.file), field=_plain(self.field), text=_plain(self.text))


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class PlaybookError(ValueError):
    """A playbook that cannot be taken, with all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
