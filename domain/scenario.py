"""Scenarios: stories that a playbook must tell, as tables in Markdown. `docs/scenarios.md` explains the words.

    # Six days to Canada

    | at  | what        | which          | details             |
    |-----|-------------|----------------|---------------------|
    |     | given       | country        | CA                  |
    | 0s  | does        | Page Viewed    | url=/shop/          |
    | 5s  | does        | Page Viewed    |                     |
    | 9s  | does        | Page Viewed    |                     |
    | 60s | time passes |                |                     |
    |     | shown       | welcome_canada | title contains ship |

Rows are read from top to bottom. `does` and `time passes` move the story on; the rows behind say what must have come of
it since the row that moved it on before. What reaches the person and no row mentions is a failure.
"""

import re
from collections.abc import Iterator

import msgspec

from domain.duration import parse as duration
from domain.event_names import meant
from domain.problem import Problem

MOVES = ("does", "time passes")
EXPECTS = ("shown", "not shown", "held", "armed", "taken back", "message", "enters", "leaves", "is in", "is not in",
           "coupon", "workflow", "nothing")
WORDS = ("given", *MOVES, *EXPECTS)
GIVEN = ("country", "device", "language", "timezone", "starts", "customer", "score", "trait", "consent", "source")
COLUMNS = ("at", "who", "what", "which", "details")
MOST_ROWS = 500
Value = str | int | float | bool


class Row(msgspec.Struct, frozen=True):
    """One row of a story. `at` is in ms from its beginning, None where it says nothing; `details` are its words.

    `values` are the details written as name=value.
    """

    line: int
    what: str
    which: str = ""
    at: int | None = None
    who: str = ""
    details: tuple[str, ...] = ()
    values: dict[str, Value] = {}


class Scenario(msgspec.Struct, frozen=True):
    """One story: everything under one heading."""

    file: str
    line: int
    title: str
    rows: tuple[Row, ...]


def read(file: str, text: str) -> tuple[list[Scenario], list[Problem]]:
    r"""The stories of a file, and what is wrong with it.

    >>> stories, problems = read("a.md", "# Hello\n| at | what | which |\n|---|---|---|\n| 0s | dose | Page Viewed |")
    >>> len(stories), str(problems[0])
    (0, 'a.md, line 4, what: there is no "dose"; did you mean "does"?')
    """
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    title, title_line, columns = "", 0, list[str]()
    rows: list[Row] = []
    clock = 0

    def finish() -> None:
        nonlocal rows, clock
        if rows and not problems:
            scenarios.append(Scenario(file, title_line, title or file, tuple(rows)))
        rows, clock = [], 0

    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if heading := re.match(r"#{1,6}\s+(.*)", stripped):
            finish()
            title, title_line, columns = heading[1].strip(), number, []
        elif not stripped.startswith("|"):
            columns = []
        elif re.fullmatch(r"[|\s:-]+", stripped):
            continue
        elif not columns:
            columns = [cell.lower() for cell in _cells(stripped)]
            if not set(columns) & set(COLUMNS):
                problems.append(Problem(file, number, "", (
                    f"a table begins with its heading: | {' | '.join(COLUMNS)} |")))
                break
            problems += [Problem(file, number, column, f"the columns are {', '.join(COLUMNS)}{meant(column, COLUMNS)}")
                         for column in columns if column not in COLUMNS]
        else:
            written = _cells(stripped)
            if len(written) > len(columns):
                problems.append(Problem(file, number, "", (
                    f"the row has {len(written)} cells, and the heading of the table has {len(columns)}; a bar that is "
                    "part of the words is written \\|")))
            cells = dict(zip(columns, written, strict=False))
            row, mistakes = _row(number, cells, clock)
            problems += [Problem(file, number, field, words) for field, words in mistakes]
            if len(rows) >= MOST_ROWS:
                problems.append(Problem(file, number, "", f"a story has at most {MOST_ROWS} rows"))
                break
            rows.append(row)
            if row.what in MOVES and row.at is not None:
                clock = row.at
    finish()
    if not scenarios and not problems:
        problems.append(Problem(file, 1, "", "there is no story in it: a heading, and a table below it"))
    return scenarios, problems


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def _row(number: int, cells: dict[str, str], clock: int) -> tuple[Row, list[tuple[str, str]]]:
    mistakes: list[tuple[str, str]] = []
    what = re.sub(r"\s+", " ", cells.get("what", "").lower())
    if what not in WORDS:
        mistakes.append(("what", f'there is no "{what}"'
                         + (meant(what, WORDS) or f"; possible are {', '.join(WORDS)}")))
    which = cells.get("which", "").strip("`\"")
    if what == "given" and which.partition(" ")[0] not in GIVEN:
        mistakes.append(("which", f'"{which}" cannot be given' + (meant(which, GIVEN)
                         or f"; possible are {', '.join(GIVEN)}")))
    if what not in ("given", "time passes", "nothing") and not which:
        mistakes.append(("which", "is missing"))
    at = None
    text = cells.get("at", "")
    if text:
        try:
            at = clock + duration(text[1:].strip()) if text.startswith("+") else duration(text)
        except ValueError as wrong:
            mistakes.append(("at", str(wrong) + (f'; did you mean "{text}s"?' if text.lstrip("+").isdecimal() else "")))
    if what in MOVES and at is not None and at < clock:
        mistakes.append(("at", "is before the row above: time runs forward"))
    if what == "time passes" and not text:
        mistakes.append(("at", "is missing: until when?"))
    details, values = [], dict[str, Value]()
    for part in _parts(cells.get("details", "")):
        name, equals, value = part.partition("=")
        if equals and re.fullmatch(r"[\w.:]+\s*", name):
            values[name.strip()] = _value(value.strip())
        else:
            details.append(part)
    return Row(number, what, which, at, cells.get("who", ""), tuple(details), values), mistakes


def _parts(text: str) -> Iterator[str]:
    """What stands between commas, but not within quotation marks."""
    for part in re.findall(r'(?:[^,"]|"[^"]*")+', text):
        if whole := re.fullmatch(r'"([^"]*)"', part.strip()):
            yield whole[1].strip()
        elif part.strip():
            yield part.strip()


def _value(text: str) -> Value:
    """A value as it is written: a number, true or false, else a text.

    >>> _value("12.5"), _value("3"), _value("true"), _value('"3"'), _value("Blue mug")
    (12.5, 3, True, '3', 'Blue mug')
    """
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d{1,15}", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,15}\.\d{1,10}", text):
        return float(text)
    return text.strip('"')
