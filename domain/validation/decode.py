"""Decoding: plain values become a struct, or a list of all errors in them.

>>> from domain.playbook.segment import Segment
>>> for path, text in convert({"name": "a", "when": {"session": {"pages": 3, "first_session": "yes"}}}, Segment).errors:
...     print(".".join(map(str, path)), text, sep=": ")
when.session.pages: unknown field "pages"; did you mean "pages_at_least"?
when.session.first_session: should be true or false, is "yes"; write first_session = true
"""

import math
import re
import typing
from collections.abc import Callable, Iterator
from datetime import date, time
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from domain.diagnostics import FieldPath
from domain.event import closest, did_you_mean
from domain.playbook.introspect import (
    example,
    field_names,
    find_table,
    literal_values,
    metas,
    pattern_description,
    plain_types,
    required_fields,
    type_at,
)
from domain.playbook.renamed_fields import RENAMED_VALUES, current_name

T = TypeVar("T")
FieldError = tuple[FieldPath, str]

MAX_ERRORS = 20
"""Maximum number of errors per file."""


class Decoded(NamedTuple, Generic[T]):
    """The result of decoding: the value, or the errors.

    `partial` is the value without the invalid fields, if possible. `original_path` maps a path of it to the file.
    """

    value: T | None
    errors: list[FieldError]
    partial: T | None
    original_path: Callable[[FieldPath], FieldPath]


def convert(raw: dict[str, Any], kind: type[T]) -> Decoded[T]:
    """Decode plain values. Invalid fields are removed one by one, so that all errors are found.

    >>> from domain.playbook.segment import Segment
    >>> read = convert({"name": "a", "when": {"all": [{"cart": 1}, {"crat": {}}, {"in_segment": "b"}]}}, Segment)
    >>> [path for path, _ in read.errors], read.partial.when.all[-1].in_segment
    ([('when', 'all', 0, 'cart'), ('when', 'all', 1, 'crat')], 'b')
    """
    work = _tracked_copy(raw)
    found: list[FieldError] = []
    gone: set[FieldPath] = set()
    rest: T | None = None

    def place(path: FieldPath) -> FieldPath:
        return _original_path(work, path)

    for path in reversed(list(_non_finite_paths(work, ()))):  # the last one first: other indexes stay valid
        found.insert(0, (path, f"should be a number, is {_get(raw, path)}"))
        _remove(work, path, gone)
    while len(found) < MAX_ERRORS:
        try:
            rest = msgspec.convert(work, kind)
            break
        except msgspec.ValidationError as failure:
            errors = _explain(str(failure), work, kind)
            gone |= {place(path) for path in _intended_fields(errors[0], kind)}
            found += [error for path, text in errors if (error := (place(path), text))[0] not in gone]
            if not _remove(work, errors[0][0], gone):
                break
    return Decoded(None if found else rest, found, rest, place)


def _non_finite_paths(value: Any, path: FieldPath) -> Iterator[FieldPath]:
    """Yield the paths of `nan` and `inf`, which conditions cannot compare and JSON cannot store."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, one in inside:
        yield from _non_finite_paths(one, (*path, part))


class _TrackedList(list[Any]):
    """A list that keeps the original index of each entry."""

    def __init__(self, items: typing.Iterable[Any]) -> None:
        super().__init__(items)
        self.original_indexes = list(range(len(self)))


def _tracked_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tracked_copy(one) for key, one in value.items()}
    return _TrackedList(map(_tracked_copy, value)) if isinstance(value, list) else value


def _original_path(work: Any, path: FieldPath) -> FieldPath:
    """Return a path as it was before removals."""
    found: FieldPath = ()
    for part in path:
        here = isinstance(part, int) and isinstance(work, _TrackedList) and part < len(work)
        found = (*found, work.original_indexes[part] if here else part)
        work = _get(work, (part,))
    return found


def _remove(work: Any, path: FieldPath, removed: set[FieldPath]) -> bool:
    """Remove the value at a path, or its nearest existing parent, and record the removed paths."""
    for length in range(len(path), 0, -1):
        around, last = _get(work, path[: length - 1]), path[length - 1]
        removed.add(_original_path(work, path[:length]))
        if isinstance(around, dict) and last in around:
            del around[last]
            return True
        if isinstance(around, _TrackedList) and isinstance(last, int) and last < len(around):
            removed.add(_original_path(work, path[: length - 1]))
            del around[last], around.original_indexes[last]
            return True
    return False


def _get(value: Any, path: FieldPath) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


# -- messages ---------------------------------------------------------------------------------------------------

_TYPE_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "null": "nothing",
    "date": "a date",
    "datetime": "a time",
    "time": "a time",
}
_PATH_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def _parse_message(message: str, raw: Any, kind: Any) -> tuple[str, FieldPath]:
    """Split a msgspec message into text and path. For a dict the message has no key: it is searched for."""
    text, _, where = message.partition(" - at `$")
    path: FieldPath = ()
    for n, piece in enumerate(where.rstrip("`").split("[...]")):
        if n:
            found = _invalid_key(_get(raw, path), path, kind)
            if found is None:
                break
            path = (*path, found)
        path = (*path, *(int(index) if index else name for name, index in _PATH_PART.findall(piece)))
    return text, path


def _invalid_key(table: Any, path: FieldPath, kind: Any) -> str | int | None:
    """Return the key of the first invalid entry of a table or list."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for name, value in entries:
        try:
            msgspec.convert(value, type_at(kind, (*path, name)))
        except msgspec.ValidationError:
            return name
        except TypeError:
            return None
    return None


def _explain(message: str, work: Any, kind: type[Any]) -> list[FieldError]:
    """Convert a message of msgspec into errors: one error, or all missing fields of a table."""
    text, path = _parse_message(message.replace(" - at `key` in `$", " - at `$"), work, kind)
    value, allowed = _get(work, path), type_at(kind, path)
    if "at `key` in" in message:
        keys = [typing.get_args(one)[0] for one in plain_types(allowed) if typing.get_origin(one) is dict]
        described = next((meta.description for key in keys for meta in metas(key) if meta.description), "texts")
        return [(path, f"each name in it should be {described}")]
    if unknown := re.match(r"Object contains unknown field `(.*)`", text):
        return [((*path, unknown[1]), _unknown_field(unknown[1], kind, path))]
    if re.match(r"Object missing required field", text):
        missing = [name for name in required_fields(kind, path) if name not in value]
        return [((*path, name), _missing_field(name, type_at(kind, (*path, name)))) for name in missing]
    return [(path, _invalid_value(text, value, allowed, path))]


def _renamed_field(field: str, kind: Any, path: FieldPath) -> str:
    """The current name of a former field of the table at `path`; empty if there is none."""
    return next((name for one in plain_types(type_at(kind, path)) if (name := current_name(one, field))), "")


def _unknown_field(field: str, kind: Any, path: FieldPath) -> str:
    if name := _renamed_field(field, kind, path):
        return f'unknown field "{field}"; it is now called "{name}"'
    fields = field_names(kind, path)
    inside = find_table(type_at(kind, path), field)
    names = [part for part in path if isinstance(part, str)]
    around = next(
        (length for length in range(len(path) - 1, -1, -1) if field in field_names(kind, path[:length])), None
    )
    if around is not None and names and not inside and not closest(field, fields):
        return f"does not belong in {'.'.join(names)}" + (
            ": write it above the first [table]" if around == 0 else "; write it one level higher"
        )
    return f'unknown field "{field}"' + (
        (f"; it belongs in {_table_header(path, inside)}" if inside else "")
        or did_you_mean(field, fields)
        or f"; the fields here are {', '.join(fields)}"
    )


def _intended_fields(error: FieldError, kind: Any) -> Iterator[FieldPath]:
    """Yield the field that was probably meant, so that it is not reported as missing, too."""
    *around, word = error[0]
    fields = field_names(kind, tuple(around))
    if not isinstance(word, str) or word in fields:
        return
    if name := _renamed_field(word, kind, tuple(around)) or closest(word, fields):
        yield (*around, name)


def _table_header(path: FieldPath, table: str) -> str:
    if any(isinstance(part, int) for part in path):
        return table
    return f"[{'.'.join([*map(str, path), table])}]"


def _missing_field(name: str, allowed: Any) -> str:
    shown = example(allowed)
    if "…" in shown:
        return "is missing"
    if shown.startswith("[{ "):
        return f"is missing; write [[{name}]] and below it {shown.strip('[{ }]')}, for example"
    return f"is missing; write {name} = {shown}, for example"


def _invalid_value(message: str, value: Any, allowed: Any, path: FieldPath) -> str:
    if message.startswith("Invalid enum value"):
        choices = [one for one in literal_values(allowed) if isinstance(one, str)]
        hint = ""
        if isinstance(value, str):
            current = RENAMED_VALUES.get(value, "")
            hint = f'; it is now called "{current}"' if current in choices else did_you_mean(value, choices)
        return f"should be one of {', '.join(map(_quote, choices))}, is {_quote(value)}{hint}"
    if "matching regex" in message:
        return f"should be {pattern_description(allowed) or message.split('matching ', 1)[1]}, is {_quote(value)}"
    if mismatch := re.match(r"Expected `([^`]+)`, got `([^`]+)`", message):
        wanted = [one for one in mismatch[1].split(" | ") if one != "null"]
        if wanted == ["str"] and (described := pattern_description(allowed)):
            return f"should be {described}, is {_quote(value)}"
        words = dict.fromkeys(_TYPE_NAMES.get(one, one) for one in wanted)
        given = _quote(value) if isinstance(value, (str, int, float)) else _TYPE_NAMES.get(mismatch[2], mismatch[2])
        return f"should be {' or '.join(words)}, is {given}{_suggestion(wanted, value, allowed, path)}"
    if bound := re.match(r"Expected `(\w+)` (>=|<=|>|<) ([-\d.e+]+)", message):
        words_of = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
        return (
            f"should be {_TYPE_NAMES.get(bound[1], bound[1])} of {words_of[bound[2]]} {float(bound[3]):g}, "
            f"is {_quote(value)}"
        )
    if length := re.match(r"Expected `(\w+)` of length (>=|<=|)\s*(\d+)", message):
        least = {">=": "at least", "<=": "at most"}.get(length[2], "exactly")
        one = "character" if length[1] == "str" else "entry"
        many = "characters" if length[1] == "str" else "entries"
        return f"should have {least} {length[3]} {one if length[3] == '1' else many}"
    return message


def _suggestion(expected: list[str], value: Any, allowed: Any, path: FieldPath) -> str:
    """Return a suggestion for a value of the wrong type; empty if there is none."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    header = ".".join(part for part in path if isinstance(part, str))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if "array" not in expected and isinstance(value, list) and "object" in expected:
        return f"; write [{header}] in place of [[{header}]]" if path and isinstance(path[-1], str) else ""
    if expected == ["array"] and isinstance(value, dict):
        return f"; write [[{header}]] in place of [{header}]"
    if expected == ["array"] and isinstance(value, str):
        return f"; write {name} = [{_quote(value)}]"
    if "str" in expected and (number or isinstance(value, (date, time))):
        return f'; write it in quotes: {name} = "{value}"'
    if "bool" in expected and isinstance(value, str):
        return f"; write {name} = {'false' if value.lower() in ('no', 'false', 'off', 'n') else 'true'}"
    if isinstance(value, str) and {"int", "float"} & set(expected) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return f"; write it without quotes: {name} = {value}"
    if "object" in expected and not isinstance(value, dict) and allowed is not None:
        struct = next(iter(_structs(allowed)), None)
        if struct is not None:
            shown = example(struct, value if isinstance(value, str) else "")
            return (
                f"; write {shown}, for example"
                if isinstance(path[-1], int)
                else f"; write {name} = {shown}, for example"
            )
    return ""


def _structs(kind: Any) -> Iterator[Any]:
    yield from (one for one in plain_types(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct))


def _quote(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value[:60]}"' if isinstance(value, str) else str(value)[:60]
