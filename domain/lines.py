r"""Lines: where in a TOML text each field stands, entries of lists and lines of long texts included.

>>> toml = 'priority = 1\n[when]\nany = [\n  { has = { country = "CA" } },\n  { has = { country = "US" } },\n]'
>>> line_of(toml, ("when", "any", 1, "has", "country")), line_of(toml, ("when", "any", 0, "cart")), line_of(toml, ())
(5, 4, 1)
"""

import re
from functools import lru_cache
from typing import NamedTuple

from domain.problem import Path

DEEPEST = 100
"""Tables in tables, and names in a dotted name, that are followed; what is deeper is no playbook."""

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"""[\s\S]*' r"|'''[\s\S]*"
    r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'" r"|[\"'][^\n]*"
    r"|\#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.\#\"']+", re.DOTALL)
"""The words of a TOML text; quotes that are never closed go to the end of the line, or of the text."""


class Line(int):
    """At the end of a path: the line (from 1) of a text that has several."""


class Places(NamedTuple):
    """The line of each field, and for each text the line where its words begin; what stands there once more, and which
    list or table in braces is never closed, where there is one.
    """

    fields: dict[Path, int]
    words: dict[Path, int]
    twice: tuple[Path, int] | None = None
    unclosed: tuple[Path, int] | None = None


def line_of(toml: str, path: Path) -> int:
    r"""The line (from 1) where a field stands in a TOML text; of what is not there, that of the table it is missing in.

    >>> line_of('title = "x"', ("slot",)), line_of('a = 1\n[when.cart]\nempty = true', ("when",))
    (1, 2)
    >>> line_of("body = '''\n<p>\n{{ x }}'''", ("body", Line(2)))
    3
    """
    found = places(toml)
    if path and isinstance(path[-1], Line):
        begins = found.words.get(path[:-1])
        return begins + path[-1] - 1 if begins else line_of(toml, path[:-1])
    for length in range(len(path), 0, -1):
        if path[:length] in found.fields:
            return found.fields[path[:length]]
    return 1


@lru_cache(maxsize=32)
def places(toml: str) -> Places:
    r"""Where everything in a TOML text stands. What is no TOML is followed as far as it can be understood.

    >>> found = places("[[steps]]\nwait = '1d'\n[[steps]]\n[steps.wait_for]\nevent = 'x'").fields
    >>> found["steps", 0, "wait"], found["steps", 1], found["steps", 1, "wait_for", "event"]
    (2, 3, 5)
    """
    reading = _Reading()
    for token in _TOKEN.finditer(toml.replace("\r\n", "\n")):
        reading.take(token[0])
        if len(reading.open) > DEEPEST or len(reading.names) > DEEPEST:
            break
    reading.finish()
    unclosed = reading.open[-1][0] if reading.open else None
    if unclosed and reading.open[-1][1]:
        unclosed = unclosed[:-1]
    return Places(reading.fields, reading.words, reading.twice,
                  None if unclosed is None else (unclosed, reading.fields.get(unclosed, 1)))


class _Reading:
    """A TOML text, taken apart word by word."""

    def __init__(self) -> None:
        self.fields: dict[Path, int] = {}
        self.words: dict[Path, int] = {}
        self.open: list[tuple[Path, bool]] = []
        """The tables in braces and the lists (True) that are open; of a list, the path of its present entry."""
        self.names: list[str] = []
        self.twice: tuple[Path, int] | None = None
        self._tables: set[Path] = set()
        self._line = 1
        self._begun = 1
        self._table: Path = ()
        self._lists: dict[Path, int] = {}
        self._header = 0
        self._here: Path = ()
        self._awaits = "name"

    def take(self, word: str) -> None:
        if word == "\n":
            if not self.open:
                self.finish()
            self._line += 1
        elif word[0] == "#":
            return
        elif self._awaits == "name":
            self._name(word)
        elif self._awaits == "value":
            self._value(word)
        elif self.open and word == ",":
            self._next()
        elif self.open and word in "]}":
            self.open.pop()
        self._line += word.count("\n") if len(word) > 1 else 0

    def finish(self) -> None:
        """The end of a line that is not within a list or a table."""
        if self._header and self.names:
            self._table = self._opened(self.names, several=self._header > 1)
            if self._table in self._tables:
                self.twice = self.twice or (self._table, self._begun)
            self._tables.add(self._table)
            self.fields.setdefault(self._table, self._begun)
        self.names, self._header, self._awaits = [], 0, "name"

    def _opened(self, names: list[str], *, several: bool) -> Path:
        path: Path = ()
        for n, name in enumerate(names):
            path = (*path, name)
            if several and n == len(names) - 1:
                self.fields.setdefault(path, self._begun)
                self._lists[path] = self._lists.get(path, -1) + 1
            else:
                self.fields.setdefault(path, self._begun)
            if path in self._lists:
                path = (*path, self._lists[path])
        return path

    def _name(self, word: str) -> None:
        if word == "[" and not self.open and not self.names:
            self._header += 1
            self._begun = self._line
        elif word == "=" and not self._header:
            self._here = self.open[-1][0] if self.open else self._table
            for name in self.names:
                self._here = (*self._here, name)
                if self._here in self.fields and len(self._here) == len(self.names) + len(
                        self.open[-1][0] if self.open else self._table):
                    self.twice = self.twice or (self._here, self._begun)
                self.fields.setdefault(self._here, self._begun)
            self._awaits = "value"
        elif word == ",":
            self.names = []
        elif word == "}" and self.open:
            self.open.pop()
            self._awaits = "end"
        elif word not in ("]", "."):
            if not self.names:
                self._begun = self._line
            self.names.append(word[1:-1] if word[0] in "\"'" else word)

    def _value(self, word: str) -> None:
        if word == "]" and self.open:  # an empty list, or one with a comma at its end
            self.open.pop()
            self._awaits = "end"
            return
        self.fields.setdefault(self._here, self._line)
        if word == "[":
            self._here = (*self._here, 0)
            self.open.append((self._here, True))
        elif word == "{":
            self.open.append((self._here, False))
            self.names, self._awaits = [], "name"
        else:
            if word[:3] in ('"""', "'''"):
                self.words[self._here] = self._line + (word[3:4] == "\n")
            self._awaits = "end"

    def _next(self) -> None:
        """After a comma: the next entry of a list, or the next name of a table."""
        last, is_list = self.open[-1]
        if is_list:
            self._here = (*last[:-1], int(last[-1]) + 1)
            self.open[-1], self._awaits = (self._here, True), "value"
        else:
            self.names, self._awaits = [], "name"
