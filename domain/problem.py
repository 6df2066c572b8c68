"""Problems: what is wrong with a playbook, said so that whoever wrote it can put it right.

>>> print(Problem("segments/engaged.toml", 4, "when.sesion", 'there is nothing called "sesion" here'))
segments/engaged.toml, line 4, when.sesion: there is nothing called "sesion" here
"""

import re
import types
import typing
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from domain.event_names import meant

Path = tuple[str | int, ...]
T = TypeVar("T")

AT_MOST = 20
"""Problems that are looked for in one file."""


class Problem(NamedTuple):
    """One mistake: in which file, at which line (0: not known), in which field, and what is expected there."""

    file: str
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        where = [self.file, f"line {self.line}" if self.line else "", self.field]
        return ", ".join(part for part in where if part) + f": {self.text}"


class PlaybookError(ValueError):
    """A playbook that cannot be taken, with all that is wrong with it."""

    def __init__(self, problems: typing.Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def convert(raw: dict[str, Any], kind: type[T]) -> tuple[T | None, list[tuple[Path, str]]]:
    """A value of `kind` from plain values, or all the mistakes in them: (field, what is expected).

    >>> from domain.segment import Segment
    >>> for problem in convert({"name": "a", "when": {"session": {"pages": 3, "first_visit": "yes"}}}, Segment)[1]:
    ...     print(problem)
    (('when', 'session', 'pages'), 'there is nothing called "pages" here; did you mean "pages_at_least"?')
    (('when', 'session', 'first_visit'), 'should be true or false, is text')
    """
    work, found, taken = _copy(raw), list[tuple[Path, str]](), set[Path]()
    while len(found) < AT_MOST:
        try:
            value = msgspec.convert(work, kind)
        except msgspec.ValidationError as wrong:
            path, text = _explained(str(wrong), raw, kind)
            if path in taken:  # it lacks what was taken out of it: nothing more can be found
                break
            found.append((path, text))
            if not _remove(work, _cut(path)):
                break
            taken.add(_cut(path))
        else:
            return (None if found else value), found
    return None, found


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _cut(path: Path) -> Path:
    """The key to take out: a list goes as a whole, so that what comes behind keeps its place."""
    for n, part in enumerate(path):
        if isinstance(part, int):
            return path[:n]
    return path


def _remove(work: Any, path: Path) -> bool:
    for part in path[:-1]:
        work = work[part] if isinstance(work, dict) and part in work else None
    if path and isinstance(work, dict) and path[-1] in work:
        del work[path[-1]]
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
          "array": "a list", "null": "nothing"}
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
            msgspec.convert(value, _type_at(kind, (*path, name)))
        except msgspec.ValidationError:
            return name
        except TypeError:
            return None
    return None


def _explained(message: str, raw: Any, kind: type[Any]) -> tuple[Path, str]:
    text, path = _split(message.replace(" - at `key` in `$", " - at `$"), raw, kind)
    if "at `key` in" in message:
        keys = [typing.get_args(one)[0] for one in unwrapped(_type_at(kind, path)) if typing.get_origin(one) is dict]
        described = next((meta.description for key in keys for meta in metas(key) if meta.description), "texts")
        return path, f"the names in it should each be {described}"
    if unknown := re.match(r"Object contains unknown field `(.*)`", text):
        fields = _fields(kind, path)
        word = unknown[1]
        return (*path, word), (f'there is nothing called "{word}" here'
                               + (meant(word, fields) or f"; possible are {', '.join(fields)}"))
    if missing := re.match(r"Object missing required field `(.*)`", text):
        return (*path, missing[1]), "is missing"
    value = _at(raw, path)
    allowed = _type_at(kind, path)
    if text.startswith("Invalid enum value"):
        choices = [one for one in _literals(allowed) if isinstance(one, str)]
        hint = meant(value, choices) if isinstance(value, str) else ""
        return path, f"should be one of {', '.join(map(_quoted, choices))}, is {_quoted(value)}{hint}"
    if "matching regex" in text:
        described = next((meta.description for meta in metas(allowed) if meta.pattern and meta.description), "")
        return path, f"should be {described or text.split('matching ', 1)[1]}, is {_quoted(value)}"
    if wrong := re.match(r"Expected `([^`]+)`, got `([^`]+)`", text):
        wanted = [_KINDS.get(one, one) for one in wrong[1].split(" | ") if one != "null"]
        return path, f"should be {' or '.join(dict.fromkeys(wanted))}, is {_KINDS.get(wrong[2], wrong[2])}"
    if bound := re.match(r"Expected `(\w+)` (>=|<=|>|<) ([-\d.e+]+)", text):
        words = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[bound[2]]
        return path, f"should be {_KINDS.get(bound[1], bound[1])} of {words} {float(bound[3]):g}, is {_quoted(value)}"
    if length := re.match(r"Expected `(\w+)` of length (>=|<=) (\d+)", text):
        words = "at least" if length[2] == ">=" else "at most"
        one = "character" if length[1] == "str" else "entry"
        many = "characters" if length[1] == "str" else "entries"
        return path, f"should have {words} {length[3]} {one if length[3] == '1' else many}"
    return path, text


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value[:60]}"' if isinstance(value, str) else str(value)[:60]


def unwrapped(kind: Any) -> typing.Iterator[Any]:
    """The plain types in a type: without Annotated, out of unions."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from unwrapped(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(kind):
            yield from unwrapped(one)
    else:
        yield kind


def metas(kind: Any) -> typing.Iterator[Meta]:
    """What is said about a type, the inner before the outer."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        yield from metas(arguments[0])
        yield from (one for one in arguments[1:] if isinstance(one, Meta))
    elif origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from metas(one)


def _literals(kind: Any) -> list[Any]:
    found: list[Any] = []
    for one in unwrapped(kind):
        if typing.get_origin(one) is typing.Literal:
            found += typing.get_args(one)
        elif typing.get_origin(one) is tuple:
            found += _literals(typing.get_args(one)[0])
        elif typing.get_origin(one) is dict:
            found += _literals(typing.get_args(one)[1])
    return list(dict.fromkeys(found))


def _type_at(kind: Any, path: Path) -> Any:
    """The declared type of a field; None when there is no such field."""
    for part in path:
        following = None
        for one in unwrapped(kind):
            if isinstance(part, int):
                if typing.get_origin(one) is tuple:
                    following = typing.get_args(one)[0]
            elif typing.get_origin(one) is dict:
                following = typing.get_args(one)[1]
            elif isinstance(one, type) and issubclass(one, msgspec.Struct):
                hints = typing.get_type_hints(one, include_extras=True)
                names = {field.encode_name: field.name for field in msgspec.structs.fields(one)}
                if part in names:
                    following = hints[names[part]]
        if following is None:
            return None
        kind = following
    return kind


def _fields(kind: Any, path: Path) -> list[str]:
    return [field.encode_name for one in unwrapped(_type_at(kind, path))
            if isinstance(one, type) and issubclass(one, msgspec.Struct) for field in msgspec.structs.fields(one)]
