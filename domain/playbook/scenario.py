"""Scenarios: tests of a playbook, as tables in Markdown. `docs/scenarios.md` describes the format.

    # Six days to Canada

    | at  | step        | name           | details             |
    |-----|-------------|----------------|---------------------|
    |     | given       | country        | CA                  |
    | 0s  | does        | Page Viewed    | url=/shop/          |
    | 5s  | does        | Page Viewed    |                     |
    | 9s  | does        | Page Viewed    |                     |
    | 60s | time passes |                |                     |
    |     | shown       | welcome_canada | title contains ship |

Rows run from top to bottom. `does` and `time passes` are actions; the rows after them are expectations about the time
since. A campaign that is shown or sent and that no row mentions is a failure.
"""

import re
from collections.abc import Iterator, Mapping

import msgspec

from domain.diagnostics import Diagnostic
from domain.duration import parse_duration as duration
from domain.event import did_you_mean
from domain.playbook.renamed_fields import RENAMED_COLUMNS, RENAMED_PRECONDITIONS, RENAMED_STEPS

STEP_ACTIONS = ("does", "time passes")
EXPECTATIONS = (
    "shown",
    "not shown",
    "suppressed",
    "preloaded",
    "cancelled",
    "message",
    "enters",
    "exits",
    "is in",
    "is not in",
    "coupon",
    "workflow",
    "nothing",
)
STEP_NAMES = ("given", *STEP_ACTIONS, *EXPECTATIONS)
PRECONDITIONS = (
    "country",
    "device",
    "language",
    "timezone",
    "start",
    "customer",
    "score",
    "trait",
    "consent",
    "source",
)
COLUMNS = ("at", "person", "step", "name", "details")
MAX_ROWS = 500
DetailValue = str | int | float | bool


class ScenarioRow(msgspec.Struct, frozen=True):
    """One row of a scenario. `at` is in ms since the start, None if empty.

    `values` are the details of the form name=value.
    """

    line: int
    step: str
    name: str = ""
    at: int | None = None
    person: str = ""
    details: tuple[str, ...] = ()
    values: dict[str, DetailValue] = {}


class Scenario(msgspec.Struct, frozen=True):
    """One scenario: a heading and its table."""

    file: str
    line: int
    title: str
    rows: tuple[ScenarioRow, ...]


def parse_scenarios(file: str, text: str) -> tuple[list[Scenario], list[Diagnostic]]:
    r"""Return the scenarios of a file, and its errors.

    >>> scenarios, errors = parse_scenarios("a", "# A\n|at|step|name|\n|---|---|---|\n|0s|dose|Page Viewed|")
    >>> len(scenarios), str(errors[0])
    (0, 'a, line 4, step: unknown step "dose"; did you mean "does"?')
    """
    scenarios: list[Scenario] = []
    errors: list[Diagnostic] = []
    title, title_line, columns = "", 0, list[str]()
    rows: list[ScenarioRow] = []
    clock = 0

    def finish() -> None:
        nonlocal rows, clock
        if rows and not errors:
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
            columns = [cell.lower() for cell in _split_cells(stripped)]
            if not set(columns) & set(COLUMNS):
                errors.append(
                    Diagnostic(
                        file, number, "", (f"a table starts with its column headings: | {' | '.join(COLUMNS)} |")
                    )
                )
                break
            errors += [
                Diagnostic(
                    file,
                    number,
                    column,
                    f'unknown column "{column}"' + _hint(column, RENAMED_COLUMNS, COLUMNS, "columns"),
                )
                for column in columns
                if column not in COLUMNS
            ]
        else:
            written = _split_cells(stripped)
            if len(written) > len(columns):
                errors.append(
                    Diagnostic(
                        file,
                        number,
                        "",
                        (
                            f"the row has {len(written)} cells, but the table has {len(columns)} columns; write \\| "
                            f"for a bar "
                            "inside a cell"
                        ),
                    )
                )
            cells = dict(zip(columns, written, strict=False))
            row, row_errors = _parse_row(number, cells, clock)
            errors += [Diagnostic(file, number, field, message) for field, message in row_errors]
            if len(rows) >= MAX_ROWS:
                errors.append(Diagnostic(file, number, "", f"a scenario can have at most {MAX_ROWS} rows"))
                break
            rows.append(row)
            if row.step in STEP_ACTIONS and row.at is not None:
                clock = row.at
    finish()
    if not scenarios and not errors:
        errors.append(Diagnostic(file, 1, "", "the file has no scenario: write a heading, and a table below it"))
    return scenarios, errors


def _hint(word: str, renamed: Mapping[str, str], words: tuple[str, ...], plural: str) -> str:
    if word in renamed:
        return f'; it is now called "{renamed[word]}"'
    return did_you_mean(word, words) or f"; the {plural} are {', '.join(words)}"


def _split_cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def _parse_row(line: int, cells: dict[str, str], previous_at: int) -> tuple[ScenarioRow, list[tuple[str, str]]]:
    errors: list[tuple[str, str]] = []
    step = re.sub(r"\s+", " ", cells.get("step", "").lower())
    if step not in STEP_NAMES:
        errors.append(("step", f'unknown step "{step}"' + _hint(step, RENAMED_STEPS, STEP_NAMES, "steps")))
    name = cells.get("name", "").strip('`"')
    if step == "given" and name.partition(" ")[0] not in PRECONDITIONS:
        errors.append(
            (
                "name",
                f'unknown precondition "{name}"' + _hint(name, RENAMED_PRECONDITIONS, PRECONDITIONS, "preconditions"),
            )
        )
    if step not in ("given", "time passes", "nothing") and not name:
        errors.append(("name", "is missing"))
    at = None
    text = cells.get("at", "")
    if text:
        try:
            at = previous_at + duration(text[1:].strip()) if text.startswith("+") else duration(text)
        except ValueError as error:
            errors.append(("at", str(error) + (f'; did you mean "{text}s"?' if text.lstrip("+").isdecimal() else "")))
    if step in STEP_ACTIONS and at is not None and at < previous_at:
        errors.append(("at", "is earlier than the row above"))
    if step == "time passes" and not text:
        errors.append(("at", "is missing: write until when, for example 2d"))
    details, values = [], dict[str, DetailValue]()
    for part in _split_details(cells.get("details", "")):
        field, equals, value = part.partition("=")
        if equals and re.fullmatch(r"[\w.:]+\s*", field):
            values[field.strip()] = _parse_value(value.strip())
        else:
            details.append(part)
    return ScenarioRow(line, step, name, at, cells.get("person", ""), tuple(details), values), errors


def _split_details(text: str) -> Iterator[str]:
    """Yield the parts between commas outside of quotation marks."""
    for part in re.findall(r'(?:[^,"]|"[^"]*")+', text):
        if whole := re.fullmatch(r'"([^"]*)"', part.strip()):
            yield whole[1].strip()
        elif part.strip():
            yield part.strip()


def _parse_value(text: str) -> DetailValue:
    """Parse a value: a number, true or false, else text.

    >>> _parse_value("12.5"), _parse_value("3"), _parse_value("true"), _parse_value('"3"'), _parse_value("Blue mug")
    (12.5, 3, True, '3', 'Blue mug')
    """
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d{1,15}", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,15}\.\d{1,10}", text):
        return float(text)
    return text.strip('"')
