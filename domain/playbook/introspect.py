"""Introspection of the playbook structs: fields, types and examples, for errors, the reference page and the schema.

>>> from domain.playbook.campaign import Campaign
>>> field_names(Campaign, ("goal",)), example(type_at(Campaign, ("trigger",)), "exit_intent")
(['event', 'where', 'within', 'value'], '{ exit_intent = true }')
"""

import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Meta

from domain.diagnostics import FieldPath

MAX_DEPTH = 3
"""Maximum depth of nested tables in an example and in a search."""


def plain_types(annotation: Any) -> Iterator[Any]:
    """Yield the types of an annotation, without Annotated and unions."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from plain_types(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for one in typing.get_args(annotation):
            yield from plain_types(one)
    else:
        yield annotation


def metas(annotation: Any) -> Iterator[Meta]:
    """Yield the Meta objects of an annotation, the inner before the outer."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from metas(arguments[0])
        yield from (one for one in arguments[1:] if isinstance(one, Meta))
    elif origin in (typing.Union, types.UnionType):
        for one in arguments:
            yield from metas(one)


def pattern_description(annotation: Any) -> str:
    """Return the description of a text pattern; empty if there is none."""
    return next((meta.description for meta in metas(annotation) if meta.pattern and meta.description), "")


def literal_values(annotation: Any) -> list[Any]:
    """Return the values of the Literals in an annotation."""
    found: list[Any] = []
    for one in plain_types(annotation):
        if typing.get_origin(one) is typing.Literal:
            found += typing.get_args(one)
        elif typing.get_origin(one) is tuple:
            found += literal_values(typing.get_args(one)[0])
        elif typing.get_origin(one) is dict:
            found += literal_values(typing.get_args(one)[1])
    return list(dict.fromkeys(found))


def type_at(annotation: Any, path: FieldPath) -> Any:
    """Return the type of a field; None if there is no such field."""
    for part in path:
        following = None
        for one in plain_types(annotation):
            if isinstance(part, int):
                if typing.get_origin(one) is tuple:
                    following = typing.get_args(one)[0]
            elif typing.get_origin(one) is dict:
                following = typing.get_args(one)[1]
            elif is_struct(one):
                following = field_types(one).get(part, following)
        if following is None:
            return None
        annotation = following
    return annotation


def is_struct(annotation: Any) -> bool:
    """Return whether an annotation is a struct."""
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def field_types(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the encoded field names of a struct, with their types."""
    found = typing.get_type_hints(struct, include_extras=True)
    return {field.encode_name: found[field.name] for field in msgspec.structs.fields(struct)}


def field_names(annotation: Any, path: FieldPath) -> list[str]:
    """Return the fields of a table."""
    return [name for one in plain_types(type_at(annotation, path)) if is_struct(one) for name in field_types(one)]


def required_fields(annotation: Any, path: FieldPath) -> list[str]:
    """Return the required fields of a table."""
    return [
        field.encode_name
        for one in plain_types(type_at(annotation, path))
        if is_struct(one)
        for field in msgspec.structs.fields(one)
        if field.required
    ]


def find_table(annotation: Any, field: str) -> str:
    """Return the dotted path of the nearest inner table with a field; empty if there is none.

    >>> from domain.playbook.campaign import Campaign
    >>> find_table(Campaign, "pages_at_least"), find_table(Campaign, "title"), find_table(Campaign, "colour")
    ('when.session', 'content.default', '')
    """
    todo: list[tuple[tuple[str, ...], Any]] = [((), annotation)]
    while todo:
        path, here = todo.pop(0)
        for one in plain_types(here):
            if not is_struct(one):
                continue
            if path and field in field_types(one):
                return ".".join(path)
            if len(path) < MAX_DEPTH:
                todo += [((*path, name), hint) for name, hint in field_types(one).items() if name not in path]
    return ""


def example(annotation: Any, preferred: str = "", depth: int = 0) -> str:
    """Return an example value as TOML; a table has the preferred field, else its required fields, else one field.

    >>> from domain.playbook.campaign import Campaign
    >>> example(type_at(Campaign, ("valid_for",))), example(type_at(Campaign, ("when",)))
    ('"30s"', '{ did = { event = "Product Viewed" } }')
    >>> example(type_at(Campaign, ("frequency_caps",))), example(type_at(Campaign, ("trigger",)))
    ('{ per_session = 1 }', '{ event = "Product Added" }')
    """
    one = next(one for one in plain_types(annotation) if one is not type(None))
    origin, arguments = typing.get_origin(one), typing.get_args(one)
    described = [meta for meta in metas(annotation) if meta.description]
    if origin is typing.Literal:
        return f'"{arguments[0]}"'
    if origin is tuple:
        return f"[{example(arguments[0], depth=depth)}]"
    if origin is dict:
        return f"{{ name = {example(arguments[1], depth=depth)} }}"
    if is_struct(one):
        if depth >= MAX_DEPTH:
            return "{ … }"
        inner = field_types(one)
        simple = [name for name, hint in inner.items() if one not in _nested_types(hint)]
        shown = {
            name: f"{name} = {example(inner[name], depth=depth + 1)}"
            for name in [*([preferred] if preferred in inner else required_fields(one, ()) or simple)]
        }
        if preferred not in inner and not required_fields(one, ()):
            return f"{{ {next((text for text in shown.values() if '…' not in text), shown[simple[0]])} }}"
        return f"{{ {', '.join(shown.values())} }}"
    if one in (int, float):
        return str(next((meta.ge for meta in metas(annotation) if meta.ge), 1))
    if one is bool:
        return "true"
    quoted = [found[1] for meta in described if (found := re.search(r'"([^"]+)"', meta.description or ""))]
    return f'"{quoted[0] if quoted else "…"}"'


def _nested_types(annotation: Any) -> set[Any]:
    return {
        inner
        for one in plain_types(annotation)
        for inner in (plain_types(typing.get_args(one)[0]) if typing.get_origin(one) is tuple else (one,))
        if not typing.get_origin(inner)
    }
