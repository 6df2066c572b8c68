"""What is declared: the fields of a noun, what each may be, and an example of it; for errors, the page and the schema.

>>> from domain.campaign import Campaign
>>> fields_at(Campaign, ("goal",)), example(type_at(Campaign, ("trigger",)), "exit_intent")
(['event', 'where', 'within', 'value'], '{ exit_intent = true }')
"""

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Meta

from domain.problem import Path

DEEPEST = 3
"""Tables in tables that an example shows, and in which a field is looked for."""


def unwrapped(kind: Any) -> Iterator[Any]:
    """The plain types in a type: without Annotated, out of unions."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from unwrapped(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(kind):
            yield from unwrapped(one)
    else:
        yield kind


def metas(kind: Any) -> Iterator[Meta]:
    """What is said about a type, the inner before the outer."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        yield from metas(arguments[0])
        yield from (one for one in arguments[1:] if isinstance(one, Meta))
    elif origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from metas(one)


def pattern_words(kind: Any) -> str:
    """The pattern of a text in words; empty where there is none."""
    return next((meta.description for meta in metas(kind) if meta.pattern and meta.description), "")


def literals(kind: Any) -> list[Any]:
    """The values that are possible, where only some are."""
    found: list[Any] = []
    for one in unwrapped(kind):
        if typing.get_origin(one) is typing.Literal:
            found += typing.get_args(one)
        elif typing.get_origin(one) is tuple:
            found += literals(typing.get_args(one)[0])
        elif typing.get_origin(one) is dict:
            found += literals(typing.get_args(one)[1])
    return list(dict.fromkeys(found))


def type_at(kind: Any, path: Path) -> Any:
    """The declared type of a field; None when there is no such field."""
    for part in path:
        following = None
        for one in unwrapped(kind):
            if isinstance(part, int):
                if typing.get_origin(one) is tuple:
                    following = typing.get_args(one)[0]
            elif typing.get_origin(one) is dict:
                following = typing.get_args(one)[1]
            elif is_struct(one):
                following = hints(one).get(part, following)
        if following is None:
            return None
        kind = following
    return kind


def is_struct(kind: Any) -> bool:
    """Whether this is a noun with fields."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of a noun as they are written, and their types."""
    found = typing.get_type_hints(struct, include_extras=True)
    return {field.encode_name: found[field.name] for field in msgspec.structs.fields(struct)}


def fields_at(kind: Any, path: Path) -> list[str]:
    """The fields that a table may have."""
    return [name for one in unwrapped(type_at(kind, path)) if is_struct(one) for name in hints(one)]


def needed_at(kind: Any, path: Path) -> list[str]:
    """The fields that a table must have."""
    return [field.encode_name for one in unwrapped(type_at(kind, path)) if is_struct(one)
            for field in msgspec.structs.fields(one) if field.required]


def whereabouts(kind: Any, field: str) -> str:
    """The nearest table inside that has such a field, dotted; empty when there is none.

    >>> from domain.campaign import Campaign
    >>> whereabouts(Campaign, "pages_at_least"), whereabouts(Campaign, "title"), whereabouts(Campaign, "colour")
    ('when.session', 'content.default', '')
    """
    todo: list[tuple[tuple[str, ...], Any]] = [((), kind)]
    while todo:
        path, here = todo.pop(0)
        for one in unwrapped(here):
            if not is_struct(one):
                continue
            if path and field in hints(one):
                return ".".join(path)
            if len(path) < DEEPEST:
                todo += [((*path, name), hint) for name, hint in hints(one).items() if name not in path]
    return ""


def example(kind: Any, preferred: str = "", depth: int = 0) -> str:
    """A value of this type as TOML; of a table with the preferred field, else with those it needs, else with one.

    >>> from domain.campaign import Campaign
    >>> example(type_at(Campaign, ("valid_for",))), example(type_at(Campaign, ("when",)))
    ('"30s"', '{ did = { event = "Product Viewed" } }')
    >>> example(type_at(Campaign, ("limits",))), example(type_at(Campaign, ("trigger",)))
    ('{ per_session = 1 }', '{ event = "Product Added" }')
    """
    one = next(one for one in unwrapped(kind) if one is not type(None))
    origin, arguments = typing.get_origin(one), typing.get_args(one)
    said = [meta for meta in metas(kind) if meta.description]
    if origin is typing.Literal:
        return f'"{arguments[0]}"'
    if origin is tuple:
        return f"[{example(arguments[0], depth=depth)}]"
    if origin is dict:
        return f"{{ name = {example(arguments[1], depth=depth)} }}"
    if is_struct(one):
        if depth >= DEEPEST:
            return "{ … }"
        inner = hints(one)
        simple = [name for name, hint in inner.items() if one not in _inside(hint)]
        shown = {name: f"{name} = {example(inner[name], depth=depth + 1)}" for name in [
            *([preferred] if preferred in inner else needed_at(one, ()) or simple)]}
        if preferred not in inner and not needed_at(one, ()):
            return f"{{ {next((text for text in shown.values() if '…' not in text), shown[simple[0]])} }}"
        return f"{{ {', '.join(shown.values())} }}"
    if one in (int, float):
        return str(next((meta.ge for meta in metas(kind) if meta.ge), 1))
    if one is bool:
        return "true"
    quoted = [found[1] for meta in said if (found := re.search(r'"([^"]+)"', meta.description or ""))]
    return f'"{quoted[0] if quoted else "…"}"'


def _inside(kind: Any) -> set[Any]:
    return {inner for one in unwrapped(kind) for inner in (
        unwrapped(typing.get_args(one)[0]) if typing.get_origin(one) is tuple else (one,))
        if not typing.get_origin(inner)}
