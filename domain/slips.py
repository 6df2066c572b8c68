r"""Slips: what was probably meant where a text is no TOML; of the commonest slips, with the line as it should be.

>>> slip('format = "bar"\npriority = 1,000', "Expected newline after a statement (at line 2, column 13)")
Slip(line=2, path=('priority',), text='a number has no commas: priority = 1000')
>>> slip("title = “Hello”", "Invalid value (at line 1, column 9)").text
'text stands in straight quotes: title = "Hello"'
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from domain.lines import Places, places
from domain.problem import Path

_WHERE = re.compile(r" \(at (?:line (\d+)(?:, column (\d+))?|end of document).*\)$")
_FIELD = re.compile(r"""([\w-]+|"[^"]*")\s*=\s*""")
_CURLY = "“”„‟‘’‚«»"
_UNIT = {"s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m", "h": "h", "hour": "h", "d": "d",
         "day": "d", "w": "w", "week": "w"}


LONGEST = 1_000
"""Characters of a line that are looked at, before and behind the place."""


class Slip(NamedTuple):
    """In which line and which field, and what to write instead."""

    line: int
    path: Path
    text: str


def slip(toml: str, message: str) -> Slip:
    """What the reader's message is about, in words that help."""
    found = places(toml)
    lines = toml.splitlines() or [""]
    where = _WHERE.search(message)
    words = _WHERE.sub("", message)
    if where is not None and where[1] is not None:
        line, column = min(int(where[1]), len(lines)), int(where[2] or 1)
    else:
        line = max((n for n, text in enumerate(lines, 1) if text.strip()), default=1)
        column = len(lines[line - 1])
    if words.startswith("Cannot") and (said := _table(found, lines, line)):
        return said
    if found.twice and words.startswith(("Cannot", "Duplicate")):
        path, second = found.twice
        return Slip(second, path, f"stands twice in this table; the first time in line {found.fields[path]}")
    if "Unterminated" in words and found.words:
        path = max(found.words, key=lambda one: found.words[one])
        return Slip(found.fields[path], path, "the quotes are not closed: three of them end what three began")
    if "Unclosed" in words and found.unclosed is not None:
        path, opened = found.unclosed
        return Slip(opened, path, _OPEN)
    if "Unclosed" in words:
        return _not_closed(found, lines, line, column - 1, "table" in words)
    begin = max(0, column - LONGEST)
    return _in_line(found, line, lines[line - 1][begin:column + LONGEST], column - 1 - begin, words)


_OPEN = "the bracket that is opened here is not closed"


def _not_closed(found: Places, lines: list[str], line: int, column: int, braces: bool) -> Slip:
    """A table in braces, or a list, that goes on where it should end, or have a comma."""
    rest = lines[line - 1][column:].partition(" #")[0].strip(" \t,]}")
    before = [path for path, number in found.fields.items() if number < line or (number == line and column > 0)]
    path = before[-1] if before else ()
    while path and (isinstance(path[-1], int) or (braces and len(path) > 1)):
        path = path[:-1]
        if path and not isinstance(path[-1], int) and "{" in lines[found.fields[path] - 1]:
            break
    opened = found.fields.get(path, line)
    if rest and not (column == 0 and (rest[0] == "[" or _FIELD.match(rest))):
        return Slip(line, path, f"a comma is missing before {rest[:60]}")
    following = lines[line].strip() if line < len(lines) else ""
    if braces and following[:1] not in ("", "["):
        return Slip(opened, path, _on_one_line(path))
    return Slip(opened, path, _OPEN)


def _on_one_line(table: Path) -> str:
    header = ".".join(part for part in table if isinstance(part, str))
    return ("a table in braces stands on one line, with no comma at its end; for several lines "
            f"write [{header}] and below it one field a line")


def _table(found: Places, lines: list[str], line: int) -> Slip | None:
    """A table whose name is taken by what was written in another way."""
    text = lines[line - 1].strip()
    if not text.startswith("["):
        return None
    names = tuple(name.strip(" \"'") for name in text.partition("#")[0].strip("[] ").split("."))
    for length in range(len(names), 0, -1):
        path, name = names[:length], ".".join(names[:length])
        before = found.fields.get(path, line)
        if before >= line:
            continue
        there = lines[before - 1].strip()
        if not there.startswith("["):
            return Slip(line, path, f"stands in braces in line {before}: write all of it there, or all of it below "
                                    f"[{name}]") if "{" in there else None
        if there.startswith("[[") and not text.startswith("[["):
            return Slip(line, path, f"each of several begins with [[{name}]], as in line {before}")
        if text.startswith("[[") and not there.startswith("[["):
            return Slip(line, path, f"began with [{name}] in line {before}: each of several begins with [[{name}]]")
    return None


def _in_line(found: Places, line: int, text: str, column: int, words: str) -> Slip:
    """A slip at a column (from 0) of a line."""
    fields = [match for match in _FIELD.finditer(text) if match.start() < max(column, 1)]
    if not fields:
        inside = [path for path, number in found.fields.items() if number == line and path
                  and isinstance(path[-1], int)]
        if inside and (said := _meant(text[column:].strip())):
            return Slip(line, inside[-1], "{}: {}".format(*said))
        return Slip(line, (), _no_field(text, words))
    name, value = fields[-1][1], text[fields[-1].end():].strip()
    path = _path(found, line, name.strip('"'))
    if "key part" in words:
        table = path if value.startswith("{") else path[:-1]
        return Slip(line, table, _on_one_line(table))
    if "after a key" in words and not name.strip('"').isascii():
        return Slip(line, path, f'a name with other letters than a to z stands in quotes: "{name}" = {value}')
    if "Expected newline" in words and text[column:].startswith("//"):
        return Slip(line, path, "a comment begins with #")
    if "Expected newline" in words and text[column:].strip() in (";", ","):
        return Slip(line, path, f"nothing stands between one line and the next: {name} = {value[:-1].strip()}")
    if not value:
        return Slip(line, path, f"a value is missing: {name} = …")
    if value.startswith("[") and column > fields[-1].end() and (said := _meant(text[column:].strip())):
        return Slip(line, path, "{}: {}".format(*said))
    if "Expected newline" in words and _FIELD.match(text, column):
        return Slip(line, path, "each field stands in a line of its own")
    quoted = value[0] in "'\"" and not value.startswith(("'''", '"""'))
    if quoted:
        return Slip(line, path, _quotes(name, value, words) or f"this is no TOML: {words}")
    if said := _meant(value, whole=not re.search(r"[{\[]", text)):
        return Slip(line, path, f"{said[0]}: {name} = {said[1]}")
    return Slip(line, path, f"this is no TOML: {words}")


def _path(found: Places, line: int, name: str) -> Path:
    there = [path for path, number in found.fields.items() if number == line and name in path]
    return there[-1][:there[-1].index(name) + 1] if there and there[-1].count(name) == 1 else (name,)


def _meant(value: str, *, whole: bool = False) -> tuple[str, str] | None:
    """Why a value is none, and how what was meant is written. `whole`: it has the line for itself."""
    for pattern, meant in _MEANT:
        if found := re.match(pattern, value):
            return meant(found)
    if value[:1].isalpha():
        end = r"\s+#.*" if whole else r"[,}\]#].*"
        return "text stands in quotes", f'"{re.sub(end, "", value).strip()}"'
    return None


def _quotes(name: str, value: str, words: str) -> str:
    """A text that begins with a quote, and goes wrong."""
    if "Illegal character" in words or "Unterminated" in words:
        return f"the quotes are not closed: {name} = {value[0]}{value[1:].rstrip(_CURLY + ' ,;')}{value[0]}"
    if "escape" in words.lower():
        return f"a backslash is written twice (\\\\), or the text stands in single quotes: {name} = '…'"
    if "Expected newline" in words:
        closed = re.match(r"""("[^"]*"|'[^']*')\s*[,;]\s*$""", value)
        if closed:
            return f"nothing stands between one line and the next: {name} = {closed[1]}"
        inner, other = value[1:].rstrip("'\" "), "'" if value[0] == '"' else '"'
        if value[0] in value[1:].rstrip()[:-1]:
            return (f"the text ends at the second quote: stand it in others, {name} = {other}{inner}{other}"
                    if other not in inner else f"the text ends at the second quote: write \\\" for quotes in {name}")
    return ""


def _no_field(text: str, words: str) -> str:
    """A line without a field that could be read."""
    text = text.strip()
    if text.startswith("="):
        return "before = stands the name of a field"
    if text.startswith(("//", "/*")):
        return "a comment begins with #"
    if text.startswith("["):
        closing = "]]" if text.startswith("[[") else "]"
        inner = re.sub(r"[\s.]+", ".", text.strip("[] ").partition("#")[0].strip())
        return f"the name of a table stands in brackets, with points between its parts: {closing.replace(']', '[')}" \
               f"{inner}{closing}"
    if colon := re.match(r"([\w-]+)\s*:\s*(.+)$", text) or re.match(r"([\w-]+)\s+([\"'\d].*)$", text):
        return f"between a field and its value stands =, as in {colon[1]} = {colon[2]}"
    if blanks := re.match(r"([\w-]+(?: +[\w-]+)+)\s*=\s*(.+)$", text):
        return f"a name has no blanks: {'_'.join(blanks[1].split())} = {blanks[2]}"
    if text[:1] in _CURLY:
        return "the name of a field stands without quotes, or in straight ones"
    return f"this is no TOML: {words}"


def _duration(found: re.Match[str]) -> tuple[str, str]:
    unit = found[2].lower()
    return "a duration stands in quotes", f'"{found[1]}{_UNIT.get(unit) or _UNIT[unit.rstrip("s")]}"'


def _yes(found: re.Match[str]) -> tuple[str, str]:
    return "should be true or false, in small letters", "true" if found[1].lower() in ("true", "yes", "on") else "false"


_MEANT: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str]]], ...] = (
    (rf"[{_CURLY}]([^{_CURLY}\"]*)", lambda m: ("text stands in straight quotes", f'"{m[1].strip()}"')),
    (r"(?i)(true|false|yes|no|on|off)\b", _yes),
    (r"(?i)(?:none|null|nil)\b", lambda m: ("there is no such value; leave the field out, or say what it is", "…")),
    (r"(?i)(\d+)\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?|w|weeks?)\b", _duration),
    (r"(\d{4}-\d{2}-\d{2}(?: \d{2}:\d{2})?)(?![\d:])", lambda m: ("a day stands in quotes", f'"{m[1]}"')),
    (r"(\d{1,2}:\d{2})\b", lambda m: ("a time of day stands in quotes", f'"{m[1]:0>5}"')),
    (r"[€$£¥]\s*(\d+(?:\.\d+)?)", lambda m: ("a number stands alone, without a sign", m[1])),
    (r"(\d+(?:\.\d+)?)\s*(?:[€$£¥%]|[A-Z]{3}\b|percent\b)", lambda m: ("a number stands alone, without a sign", m[1])),
    (r"(\d{1,3}(?:,\d{3})+)(?!\d)", lambda m: ("a number has no commas", m[1].replace(",", ""))),
    (r"(\d+),(\d+)", lambda m: ("a decimal is written with a point", f"{m[1]}.{m[2]}")),
    (r"0+(\d+)", lambda m: ("a number does not begin with 0", m[1])),
    (r"\.(\d+)", lambda m: ("a number does not begin with a point", f"0.{m[1]}")),
    (r"=\s*(\S.*)", lambda m: ("one = is enough", m[1])),
)
"""How a value begins that is none, and what was meant."""
