r"""Positions of fields in TOML text, and hints for syntax errors.

>>> toml = 'priority = 1\n[when]\nany = [\n  { has = { country = "CA" } },\n  { has = { country = "US" } },\n]'
>>> line_of(toml, ("when", "any", 1, "has", "country")), line_of(toml, ("when", "any", 0, "cart")), line_of(toml, ())
(5, 4, 1)
>>> hint_for('format = "bar"\npriority = 1,000', "Expected newline after a statement (at line 2, column 13)")
SyntaxHint(line=2, path=('priority',), message='a number has no commas: priority = 1000')
>>> hint_for("title = “Hello”", "Invalid value (at line 1, column 9)").message
'text needs straight quotes: title = "Hello"'
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from domain.diagnostics import FieldPath

MAX_NESTING = 100
"""Maximum depth of nested tables and of dotted names."""

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"""[\s\S]*'
    r"|'''[\s\S]*"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|[\"'][^\n]*"
    r"|\#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.\#\"']+",
    re.DOTALL,
)
"""Tokens of TOML; unclosed quotes extend to the end of the line or of the text."""


class TextLine(int):
    """The last part of a path: a line (from 1) in a multi-line text."""


class Positions(NamedTuple):
    """The line of each field, the first line of each multi-line text, a duplicate field, and an unclosed bracket."""

    fields: dict[FieldPath, int]
    text_starts: dict[FieldPath, int]
    duplicate: tuple[FieldPath, int] | None = None
    unclosed: tuple[FieldPath, int] | None = None


def line_of(toml: str, path: FieldPath) -> int:
    r"""Return the line (from 1) of a field in TOML; for a missing field, the line of its table.

    >>> line_of('title = "x"', ("slot",)), line_of('a = 1\n[when.cart]\nempty = true', ("when",))
    (1, 2)
    >>> line_of("body = '''\n<p>\n{{ x }}'''", ("body", TextLine(2)))
    3
    """
    found = positions(toml)
    if path and isinstance(path[-1], TextLine):
        begins = found.text_starts.get(path[:-1])
        return begins + path[-1] - 1 if begins else line_of(toml, path[:-1])
    for length in range(len(path), 0, -1):
        if path[:length] in found.fields:
            return found.fields[path[:length]]
    return 1


@lru_cache(maxsize=32)
def positions(toml: str) -> Positions:
    r"""Where everything in a TOML text stands. What is no TOML is followed as far as it can be understood.

    >>> found = positions("[[steps]]\nwait = '1d'\n[[steps]]\n[steps.wait_for]\nevent = 'x'").fields
    >>> found["steps", 0, "wait"], found["steps", 1], found["steps", 1, "wait_for", "event"]
    (2, 3, 5)
    """
    reading = _PositionParser()
    for lexeme in _TOKEN.finditer(toml.replace("\r\n", "\n")):
        reading.feed(lexeme[0])
        if len(reading.open_brackets) > MAX_NESTING or len(reading.key_parts) > MAX_NESTING:
            break
    reading.end_line()
    unclosed = reading.open_brackets[-1][0] if reading.open_brackets else None
    if unclosed and reading.open_brackets[-1][1]:
        unclosed = unclosed[:-1]
    return Positions(
        reading.fields,
        reading.text_starts,
        reading.duplicate,
        None if unclosed is None else (unclosed, reading.fields.get(unclosed, 1)),
    )


class _PositionParser:
    """A tolerant parser that records the positions of fields."""

    def __init__(self) -> None:
        self.fields: dict[FieldPath, int] = {}
        self.text_starts: dict[FieldPath, int] = {}
        self.open_brackets: list[tuple[FieldPath, bool]] = []
        """Open inline tables (False) and lists (True); for a list, the path of the current entry."""
        self.key_parts: list[str] = []
        self.duplicate: tuple[FieldPath, int] | None = None
        self._tables_seen: set[FieldPath] = set()
        self._line = 1
        self._start_line = 1
        self._table: FieldPath = ()
        self._array_indexes: dict[FieldPath, int] = {}
        self._header_brackets = 0
        self._path: FieldPath = ()
        self._expected = "name"

    def feed(self, lexeme: str) -> None:
        if lexeme == "\n":
            if not self.open_brackets:
                self.end_line()
            self._line += 1
        elif lexeme[0] == "#":
            return
        elif self._expected == "name":
            self._read_key(lexeme)
        elif self._expected == "value":
            self._read_value(lexeme)
        elif self.open_brackets and lexeme == ",":
            self._next_item()
        elif self.open_brackets and lexeme in "]}":
            self.open_brackets.pop()
        self._line += lexeme.count("\n") if len(lexeme) > 1 else 0

    def end_line(self) -> None:
        """The end of a line that is not within a list or a table."""
        if self._header_brackets and self.key_parts:
            self._table = self._open_table(self.key_parts, is_array=self._header_brackets > 1)
            if self._table in self._tables_seen:
                self.duplicate = self.duplicate or (self._table, self._start_line)
            self._tables_seen.add(self._table)
            self.fields.setdefault(self._table, self._start_line)
        self.key_parts, self._header_brackets, self._expected = [], 0, "name"

    def _open_table(self, key_parts: list[str], *, is_array: bool) -> FieldPath:
        path: FieldPath = ()
        for n, name in enumerate(key_parts):
            path = (*path, name)
            if is_array and n == len(key_parts) - 1:
                self.fields.setdefault(path, self._start_line)
                self._array_indexes[path] = self._array_indexes.get(path, -1) + 1
            else:
                self.fields.setdefault(path, self._start_line)
            if path in self._array_indexes:
                path = (*path, self._array_indexes[path])
        return path

    def _read_key(self, lexeme: str) -> None:
        if lexeme == "[" and not self.open_brackets and not self.key_parts:
            self._header_brackets += 1
            self._start_line = self._line
        elif lexeme == "=" and not self._header_brackets:
            self._path = self.open_brackets[-1][0] if self.open_brackets else self._table
            for name in self.key_parts:
                self._path = (*self._path, name)
                if self._path in self.fields and len(self._path) == len(self.key_parts) + len(
                    self.open_brackets[-1][0] if self.open_brackets else self._table
                ):
                    self.duplicate = self.duplicate or (self._path, self._start_line)
                self.fields.setdefault(self._path, self._start_line)
            self._expected = "value"
        elif lexeme == ",":
            self.key_parts = []
        elif lexeme == "}" and self.open_brackets:
            self.open_brackets.pop()
            self._expected = "end"
        elif lexeme not in ("]", "."):
            if not self.key_parts:
                self._start_line = self._line
            self.key_parts.append(lexeme[1:-1] if lexeme[0] in "\"'" else lexeme)

    def _read_value(self, lexeme: str) -> None:
        if lexeme == "]" and self.open_brackets:  # an empty list, or a trailing comma
            self.open_brackets.pop()
            self._expected = "end"
            return
        self.fields.setdefault(self._path, self._line)
        if lexeme == "[":
            self._path = (*self._path, 0)
            self.open_brackets.append((self._path, True))
        elif lexeme == "{":
            self.open_brackets.append((self._path, False))
            self.key_parts, self._expected = [], "name"
        else:
            if lexeme[:3] in ('"""', "'''"):
                self.text_starts[self._path] = self._line + (lexeme[3:4] == "\n")
            self._expected = "end"

    def _next_item(self) -> None:
        """Continue after a comma with the next entry of a list, or the next name of a table."""
        last, is_list = self.open_brackets[-1]
        if is_list:
            self._path = (*last[:-1], int(last[-1]) + 1)
            self.open_brackets[-1], self._expected = (self._path, True), "value"
        else:
            self.key_parts, self._expected = [], "name"


_LOCATION = re.compile(r" \(at (?:line (\d+)(?:, column (\d+))?|end of document).*\)$")
_ASSIGNMENT = re.compile(r"""([\w-]+|"[^"]*")\s*=\s*""")
_CURLY_QUOTES = "“”„‟‘’‚«»"
_UNIT_ALIASES = {
    "s": "s",
    "sec": "s",
    "second": "s",
    "m": "m",
    "min": "m",
    "minute": "m",
    "h": "h",
    "hour": "h",
    "d": "d",
    "day": "d",
    "w": "w",
    "week": "w",
}


LINE_WINDOW = 1_000
"""Characters before and after the error that are examined."""


class SyntaxHint(NamedTuple):
    """A syntax error: line, field and suggestion."""

    line: int
    path: FieldPath
    message: str


def hint_for(toml: str, message: str) -> SyntaxHint:
    """Return a hint for a syntax error of tomllib."""
    found = positions(toml)
    lines = toml.splitlines() or [""]
    where = _LOCATION.search(message)
    words = _LOCATION.sub("", message)
    if where is not None and where[1] is not None:
        line, column = min(int(where[1]), len(lines)), int(where[2] or 1)
    else:
        line = max((n for n, text in enumerate(lines, 1) if text.strip()), default=1)
        column = len(lines[line - 1])
    if words.startswith("Cannot") and (hint := _redefined_table_hint(found, lines, line)):
        return hint
    if found.duplicate and words.startswith(("Cannot", "Duplicate")):
        path, second = found.duplicate
        return SyntaxHint(second, path, f"is defined twice in this table, first in line {found.fields[path]}")
    if "Unterminated" in words and found.text_starts:
        path = max(found.text_starts, key=lambda one: found.text_starts[one])
        return SyntaxHint(
            found.fields[path], path, "the quotes are not closed: text that starts with three quotes ends with three"
        )
    if "Unclosed" in words and found.unclosed is not None:
        path, opened = found.unclosed
        return SyntaxHint(opened, path, _UNCLOSED_BRACKET)
    if "Unclosed" in words:
        return _unclosed_hint(found, lines, line, column - 1, "table" in words)
    begin = max(0, column - LINE_WINDOW)
    return _line_hint(found, line, lines[line - 1][begin : column + LINE_WINDOW], column - 1 - begin, words)


_UNCLOSED_BRACKET = "this bracket is not closed"


def _unclosed_hint(located: Positions, lines: list[str], line: int, column: int, is_table: bool) -> SyntaxHint:
    """Return a hint for an inline table or a list without a comma or an end."""
    rest = lines[line - 1][column:].partition(" #")[0].strip(" \t,]}")
    before = [path for path, number in located.fields.items() if number < line or (number == line and column > 0)]
    path = before[-1] if before else ()
    while path and (isinstance(path[-1], int) or (is_table and len(path) > 1)):
        path = path[:-1]
        if path and not isinstance(path[-1], int) and "{" in lines[located.fields[path] - 1]:
            break
    opened = located.fields.get(path, line)
    if rest and not (column == 0 and (rest[0] == "[" or _ASSIGNMENT.match(rest))):
        return SyntaxHint(line, path, f"a comma is missing before {rest[:60]}")
    following = lines[line].strip() if line < len(lines) else ""
    if is_table and following[:1] not in ("", "["):
        return SyntaxHint(opened, path, _inline_table_hint(path))
    return SyntaxHint(opened, path, _UNCLOSED_BRACKET)


def _inline_table_hint(table: FieldPath) -> str:
    header = ".".join(part for part in table if isinstance(part, str))
    return (
        "a table in braces must be on one line, without a comma at its end; for several lines "
        f"write [{header}] and one field per line below it"
    )


def _redefined_table_hint(located: Positions, lines: list[str], line: int) -> SyntaxHint | None:
    """Return a hint for a table that is already defined in another form."""
    text = lines[line - 1].strip()
    if not text.startswith("["):
        return None
    names = tuple(name.strip(" \"'") for name in text.partition("#")[0].strip("[] ").split("."))
    for length in range(len(names), 0, -1):
        path, name = names[:length], ".".join(names[:length])
        before = located.fields.get(path, line)
        if before >= line:
            continue
        there = lines[before - 1].strip()
        if not there.startswith("["):
            return (
                SyntaxHint(
                    line,
                    path,
                    f"is already defined in braces in line {before}: write all fields there, or all of them below "
                    f"[{name}]",
                )
                if "{" in there
                else None
            )
        if there.startswith("[[") and not text.startswith("[["):
            return SyntaxHint(line, path, f"each entry starts with [[{name}]], as in line {before}")
        if text.startswith("[[") and not there.startswith("[["):
            return SyntaxHint(line, path, f"is defined as [{name}] in line {before}: each entry starts with [[{name}]]")
    return None


def _line_hint(located: Positions, line: int, text: str, column: int, error: str) -> SyntaxHint:
    """Return a hint for an error at a column (from 0) of a line."""
    fields = [match for match in _ASSIGNMENT.finditer(text) if match.start() < max(column, 1)]
    if not fields:
        inside = [
            path for path, number in located.fields.items() if number == line and path and isinstance(path[-1], int)
        ]
        if inside and (hint := _corrected_value(text[column:].strip())):
            return SyntaxHint(line, inside[-1], "{}: {}".format(*hint))
        return SyntaxHint(line, (), _malformed_line_hint(text, error))
    name, value = fields[-1][1], text[fields[-1].end() :].strip()
    path = _field_path(located, line, name.strip('"'))
    if "key part" in error:
        table = path if value.startswith("{") else path[:-1]
        return SyntaxHint(line, table, _inline_table_hint(table))
    if "after a key" in error and not name.strip('"').isascii():
        return SyntaxHint(line, path, f'a name with letters other than a to z needs quotes: "{name}" = {value}')
    if "Expected newline" in error and text[column:].startswith("//"):
        return SyntaxHint(line, path, "a comment starts with #")
    if "Expected newline" in error and text[column:].strip() in (";", ","):
        return SyntaxHint(line, path, f"a line ends without a comma or semicolon: {name} = {value[:-1].strip()}")
    if not value:
        return SyntaxHint(line, path, f"a value is missing: {name} = …")
    if value.startswith("[") and column > fields[-1].end() and (hint := _corrected_value(text[column:].strip())):
        return SyntaxHint(line, path, "{}: {}".format(*hint))
    if "Expected newline" in error and _ASSIGNMENT.match(text, column):
        return SyntaxHint(line, path, "write each field on its own line")
    quoted = value[0] in "'\"" and not value.startswith(("'''", '"""'))
    if quoted:
        return SyntaxHint(line, path, _quote_hint(name, value, error) or f"this is not valid TOML: {error}")
    if hint := _corrected_value(value, whole_line=not re.search(r"[{\[]", text)):
        return SyntaxHint(line, path, f"{hint[0]}: {name} = {hint[1]}")
    return SyntaxHint(line, path, f"this is not valid TOML: {error}")


def _field_path(located: Positions, line: int, name: str) -> FieldPath:
    there = [path for path, number in located.fields.items() if number == line and name in path]
    return there[-1][: there[-1].index(name) + 1] if there and there[-1].count(name) == 1 else (name,)


def _corrected_value(value: str, *, whole_line: bool = False) -> tuple[str, str] | None:
    """Return (reason, corrected value) of an invalid value. `whole_line`: no other value is on the line."""
    for pattern, meant in _VALUE_FIXES:
        if found := re.match(pattern, value):
            return meant(found)
    if value[:1].isalpha():
        end = r"\s+#.*" if whole_line else r"[,}\]#].*"
        return "text needs quotes", f'"{re.sub(end, "", value).strip()}"'
    return None


def _quote_hint(name: str, value: str, error: str) -> str:
    """Return a hint for a text with invalid quotes; empty if there is none."""
    if "Illegal character" in error or "Unterminated" in error:
        return f"the quotes are not closed: {name} = {value[0]}{value[1:].rstrip(_CURLY_QUOTES + ' ,;')}{value[0]}"
    if "escape" in error.lower():
        return f"write the backslash twice (\\\\), or put the text in single quotes: {name} = '…'"
    if "Expected newline" in error:
        closed = re.match(r"""("[^"]*"|'[^']*')\s*[,;]\s*$""", value)
        if closed:
            return f"a line ends without a comma or semicolon: {name} = {closed[1]}"
        inner, other = value[1:].rstrip("'\" "), "'" if value[0] == '"' else '"'
        if value[0] in value[1:].rstrip()[:-1]:
            return (
                f"the text ends at the second quote: use the other quotes, {name} = {other}{inner}{other}"
                if other not in inner
                else f'the text ends at the second quote: write \\" for quotes in {name}'
            )
    return ""


def _malformed_line_hint(text: str, error: str) -> str:
    """Return a hint for a line without a field."""
    text = text.strip()
    if text.startswith("="):
        return "the name of a field is missing before ="
    if text.startswith(("//", "/*")):
        return "a comment starts with #"
    if text.startswith("["):
        closing = "]]" if text.startswith("[[") else "]"
        inner = re.sub(r"[\s.]+", ".", text.strip("[] ").partition("#")[0].strip())
        return (
            f"write the name of a table in brackets, with dots between its parts: {closing.replace(']', '[')}"
            f"{inner}{closing}"
        )
    if colon := re.match(r"([\w-]+)\s*:\s*(.+)$", text) or re.match(r"([\w-]+)\s+([\"'\d].*)$", text):
        return f"write = between a field and its value, as in {colon[1]} = {colon[2]}"
    if blanks := re.match(r"([\w-]+(?: +[\w-]+)+)\s*=\s*(.+)$", text):
        return f"a name has no spaces: {'_'.join(blanks[1].split())} = {blanks[2]}"
    if text[:1] in _CURLY_QUOTES:
        return "write the name of a field without quotes, or in straight quotes"
    return f"this is not valid TOML: {error}"


def _duration_fix(match: re.Match[str]) -> tuple[str, str]:
    unit = match[2].lower()
    return "a duration needs quotes", f'"{match[1]}{_UNIT_ALIASES.get(unit) or _UNIT_ALIASES[unit.rstrip("s")]}"'


def _boolean_fix(match: re.Match[str]) -> tuple[str, str]:
    return "should be true or false, in lower case", "true" if match[1].lower() in ("true", "yes", "on") else "false"


_VALUE_FIXES: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str]]], ...] = (
    (rf"[{_CURLY_QUOTES}]([^{_CURLY_QUOTES}\"]*)", lambda m: ("text needs straight quotes", f'"{m[1].strip()}"')),
    (r"(?i)(true|false|yes|no|on|off)\b", _boolean_fix),
    (r"(?i)(?:none|null|nil)\b", lambda m: ("there is no such value; leave the field out, or give it a value", "…")),
    (r"(?i)(\d+)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?|w|weeks?)\b", _duration_fix),
    (r"(\d{4}-\d{2}-\d{2}(?: \d{2}:\d{2})?)(?![\d:])", lambda m: ("a date needs quotes", f'"{m[1]}"')),
    (r"(\d{1,2}:\d{2})\b", lambda m: ("a time of day needs quotes", f'"{m[1]:0>5}"')),
    (r"[€$£¥]\s*(\d+(?:\.\d+)?)", lambda m: ("write the number without a unit or sign", m[1])),
    (
        r"(\d+(?:\.\d+)?)\s*(?:[€$£¥%]|[A-Z]{3}\b|percent\b)",
        lambda m: ("write the number without a unit or sign", m[1]),
    ),
    (r"(\d{1,3}(?:,\d{3})+)(?!\d)", lambda m: ("a number has no commas", m[1].replace(",", ""))),
    (r"(\d+),(\d+)", lambda m: ("write decimals with a point", f"{m[1]}.{m[2]}")),
    (r"0+(\d+)", lambda m: ("a number does not start with 0", m[1])),
    (r"\.(\d+)", lambda m: ("a number does not start with a point", f"0.{m[1]}")),
    (r"=\s*(\S.*)", lambda m: ("write a single =", m[1])),
)
"""Patterns of invalid values, with their correction."""
