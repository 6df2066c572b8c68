"""Reading: plain values become a declared noun, or all the mistakes in them, in words.

>>> from domain.segment import Segment
>>> for path, text in convert({"name": "a", "when": {"session": {"pages": 3, "first_visit": "yes"}}}, Segment).mistakes:
...     print(".".join(map(str, path)), text, sep=": ")
when.session.pages: there is nothing called "pages" here; did you mean "pages_at_least"?
when.session.first_visit: should be true or false, is "yes"; write first_visit = true
"""

import math
import re
import typing
from collections.abc import Callable, Iterator
from datetime import date, time
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from domain.declared import (
    example,
    fields_at,
    literals,
    metas,
    needed_at,
    pattern_words,
    type_at,
    unwrapped,
    whereabouts,
)
from domain.event_names import meant, suggest
from domain.problem import Path

T = TypeVar("T")
Mistake = tuple[Path, str]

AT_MOST = 20
"""Mistakes that are looked for in one file."""


class Read(NamedTuple, Generic[T]):
    """What became of plain values: the noun, where nothing is wrong with them; else the mistakes, and as `rest` the
    noun without all that has one, where that can be. `place` says of a field of the rest where it was written.
    """

    value: T | None
    mistakes: list[Mistake]
    rest: T | None
    place: Callable[[Path], Path]


def convert(raw: dict[str, Any], kind: type[T]) -> Read[T]:
    """A value of `kind` from plain values. What is wrong is taken out, so that what else is wrong is found, too.

    >>> from domain.segment import Segment
    >>> read = convert({"name": "a", "when": {"all": [{"cart": 1}, {"crat": {}}, {"in_segment": "b"}]}}, Segment)
    >>> [path for path, _ in read.mistakes], read.rest.when.all[-1].in_segment
    ([('when', 'all', 0, 'cart'), ('when', 'all', 1, 'crat')], 'b')
    """
    work = _copy(raw)
    found: list[Mistake] = []
    gone: set[Path] = set()
    rest: T | None = None

    def place(path: Path) -> Path:
        return _written(work, path)

    for path in reversed(list(_no_numbers(work, ()))):  # the last first: the places of the others stay
        found.insert(0, (path, f"should be a number, is {_at(raw, path)}"))
        _take_out(work, path, gone)
    while len(found) < AT_MOST:
        try:
            rest = msgspec.convert(work, kind)
            break
        except msgspec.ValidationError as wrong:
            mistakes = _explained(str(wrong), work, kind)
            gone |= {place(path) for path in _misspelled(mistakes[0], kind)}
            found += [mistake for path, text in mistakes if (mistake := (place(path), text))[0] not in gone]
            if not _take_out(work, mistakes[0][0], gone):
                break
    return Read(None if found else rest, found, rest, place)


def _no_numbers(value: Any, path: Path) -> Iterator[Path]:
    """Where TOML's `nan` and `inf` stand: no comparison means anything with them, and JSON cannot keep them."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, one in inside:
        yield from _no_numbers(one, (*path, part))


class _Entries(list[Any]):
    """A list that knows at which place each of its entries was written."""

    def __init__(self, entries: typing.Iterable[Any]) -> None:
        super().__init__(entries)
        self.places = list(range(len(self)))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return _Entries(map(_copy, value)) if isinstance(value, list) else value


def _written(work: Any, path: Path) -> Path:
    """A path as it was before anything was taken out."""
    found: Path = ()
    for part in path:
        here = isinstance(part, int) and isinstance(work, _Entries) and part < len(work)
        found = (*found, work.places[part] if here else part)
        work = _at(work, (part,))
    return found


def _take_out(work: Any, path: Path, gone: set[Path]) -> bool:
    """Take out what stands there, else what it stands in. Whoever misses it later on is not to blame."""
    for length in range(len(path), 0, -1):
        around, last = _at(work, path[:length - 1]), path[length - 1]
        gone.add(_written(work, path[:length]))
        if isinstance(around, dict) and last in around:
            del around[last]
            return True
        if isinstance(around, _Entries) and isinstance(last, int) and last < len(around):
            gone.add(_written(work, path[:length - 1]))
            del around[last], around.places[last]
            return True
    return False


def _at(value: Any, path: Path) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


# -- the words ---------------------------------------------------------------------------------------------------

_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "a table",
          "array": "a list", "null": "nothing", "date": "a day", "datetime": "a time", "time": "a time"}
_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def _split(message: str, raw: Any, kind: Any) -> tuple[str, Path]:
    """What is wrong, and where. Of a table with names of one's own the message tells not which: it is looked for."""
    text, _, where = message.partition(" - at `$")
    path: Path = ()
    for n, piece in enumerate(where.rstrip("`").split("[...]")):
        if n:
            found = _culprit(_at(raw, path), path, kind)
            if found is None:
                break
            path = (*path, found)
        path = (*path, *(int(index) if index else name for name, index in _PART.findall(piece)))
    return text, path


def _culprit(table: Any, path: Path, kind: Any) -> str | int | None:
    """The entry of a table (or list) that is not what it should be."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for name, value in entries:
        try:
            msgspec.convert(value, type_at(kind, (*path, name)))
        except msgspec.ValidationError:
            return name
        except TypeError:
            return None
    return None


def _explained(message: str, work: Any, kind: type[Any]) -> list[Mistake]:
    """What the decoder says, in words: one mistake, or everything that one table lacks."""
    text, path = _split(message.replace(" - at `key` in `$", " - at `$"), work, kind)
    value, allowed = _at(work, path), type_at(kind, path)
    if "at `key` in" in message:
        keys = [typing.get_args(one)[0] for one in unwrapped(allowed) if typing.get_origin(one) is dict]
        described = next((meta.description for key in keys for meta in metas(key) if meta.description), "texts")
        return [(path, f"the names in it should each be {described}")]
    if unknown := re.match(r"Object contains unknown field `(.*)`", text):
        return [((*path, unknown[1]), _unknown(unknown[1], kind, path))]
    if re.match(r"Object missing required field", text):
        missing = [name for name in needed_at(kind, path) if name not in value]
        return [((*path, name), _missing(name, type_at(kind, (*path, name)))) for name in missing]
    return [(path, _wrong(text, value, allowed, path))]


def _unknown(word: str, kind: Any, path: Path) -> str:
    fields = fields_at(kind, path)
    inside = whereabouts(type_at(kind, path), word)
    names = [part for part in path if isinstance(part, str)]
    around = next((length for length in range(len(path) - 1, -1, -1) if word in fields_at(kind, path[:length])), None)
    if around is not None and names and not inside and not suggest(word, fields):
        return f"does not belong into {'.'.join(names)}" + (
            ": write it above the first [table]" if around == 0 else ", but beside it")
    return f'there is nothing called "{word}" here' + (
        (f"; it belongs into {_header(path, inside)}" if inside else "") or meant(word, fields)
        or f"; possible are {', '.join(fields)}")


def _misspelled(mistake: Mistake, kind: Any) -> Iterator[Path]:
    """The field that somebody meant and misspelled: it is missing, and that is no second mistake."""
    *around, word = mistake[0]
    fields = fields_at(kind, tuple(around))
    if isinstance(word, str) and word not in fields and (right := suggest(word, fields)):
        yield (*around, right)


def _header(path: Path, inside: str) -> str:
    if any(isinstance(part, int) for part in path):
        return inside
    return f"[{'.'.join([*map(str, path), inside])}]"


def _missing(name: str, allowed: Any) -> str:
    shown = example(allowed)
    if "…" in shown:
        return "is missing"
    if shown.startswith("[{ "):
        return f"is missing; write [[{name}]] and below it {shown.strip('[{ }]')}, say"
    return f"is missing; write {name} = {shown}, say"


def _wrong(text: str, value: Any, allowed: Any, path: Path) -> str:
    if text.startswith("Invalid enum value"):
        choices = [one for one in literals(allowed) if isinstance(one, str)]
        hint = meant(value, choices) if isinstance(value, str) else ""
        return f"should be one of {', '.join(map(_quoted, choices))}, is {_quoted(value)}{hint}"
    if "matching regex" in text:
        return f"should be {pattern_words(allowed) or text.split('matching ', 1)[1]}, is {_quoted(value)}"
    if wrong := re.match(r"Expected `([^`]+)`, got `([^`]+)`", text):
        wanted = [one for one in wrong[1].split(" | ") if one != "null"]
        if wanted == ["str"] and (described := pattern_words(allowed)):
            return f"should be {described}, is {_quoted(value)}"
        words = dict.fromkeys(_KINDS.get(one, one) for one in wanted)
        given = _quoted(value) if isinstance(value, (str, int, float)) else _KINDS.get(wrong[2], wrong[2])
        return f"should be {' or '.join(words)}, is {given}{_instead(wanted, value, allowed, path)}"
    if bound := re.match(r"Expected `(\w+)` (>=|<=|>|<) ([-\d.e+]+)", text):
        words_of = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
        return (f"should be {_KINDS.get(bound[1], bound[1])} of {words_of[bound[2]]} {float(bound[3]):g}, "
                f"is {_quoted(value)}")
    if length := re.match(r"Expected `(\w+)` of length (>=|<=|)\s*(\d+)", text):
        least = {">=": "at least", "<=": "at most"}.get(length[2], "exactly")
        one = "character" if length[1] == "str" else "entry"
        many = "characters" if length[1] == "str" else "entries"
        return f"should have {least} {length[3]} {one if length[3] == '1' else many}"
    return text


def _instead(wanted: list[str], value: Any, allowed: Any, path: Path) -> str:
    """What to write instead, where it can be guessed."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    header = ".".join(part for part in path if isinstance(part, str))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if "array" not in wanted and isinstance(value, list) and "object" in wanted:
        return f"; write [{header}] in place of [[{header}]]" if path and isinstance(path[-1], str) else ""
    if wanted == ["array"] and isinstance(value, dict):
        return f"; write [[{header}]] in place of [{header}]"
    if wanted == ["array"] and isinstance(value, str):
        return f"; write {name} = [{_quoted(value)}]"
    if "str" in wanted and (number or isinstance(value, (date, time))):
        return f"; write it in quotes: {name} = \"{value}\""
    if "bool" in wanted and isinstance(value, str):
        return f"; write {name} = {'false' if value.lower() in ('no', 'false', 'off', 'n') else 'true'}"
    if isinstance(value, str) and {"int", "float"} & set(wanted) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return f"; write it without quotes: {name} = {value}"
    if "object" in wanted and not isinstance(value, dict) and allowed is not None:
        struct = next(iter(_structs(allowed)), None)
        if struct is not None:
            shown = example(struct, value if isinstance(value, str) else "")
            return f"; write {shown}, say" if isinstance(path[-1], int) else f"; write {name} = {shown}, say"
    return ""


def _structs(kind: Any) -> Iterator[Any]:
    yield from (one for one in unwrapped(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct))


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value[:60]}"' if isinstance(value, str) else str(value)[:60]
