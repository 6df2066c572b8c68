r"""What is wrong with a template that is no Liquid: in which line, at which tag or variable, what was probably meant.

>>> explain("<p>\n{% iff cart %}x{% endif %}")
(2, 'iff', 'there is no tag "iff"; did you mean "if"?')
>>> explain("{{ first_name }}\n{% if cart %}\n<p>")
(2, 'if', '{% if cart %} is never closed: {% endif %} is missing')
>>> explain("{{ first_name | }}")
(1, 'first_name', '{{ first_name | }}: expected word, found end of expression')
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from domain.event_names import meant, offered
from domain.template import TAGS_OF_LIQUID, Template, Unparsable

_PIECE = re.compile(r"\{\{(?:(?!\{\{).)*?\}\}|\{%(?:(?!\{%).)*?%\}", re.DOTALL)
_PLAIN = re.compile(r"\{%-?\s*(comment|raw)\s*-?%\}(?:(?!\{%-?\s*\1).)*?\{%-?\s*end\1\s*-?%\}", re.DOTALL)
"""What is not read as Liquid, whatever stands in it. (Neither looks further than to where the next one begins.)"""
_UNEXPECTED = re.compile(r"unexpected tag '([^']*)'")
_HALF = re.compile(r"\{[{%][^{}%\"']{0,200}\}(?!\})")
"""What ends in one bracket where there should be two."""
_NAME = re.compile(r"\{[{%]-?\s*([\w.#]*)")

_BLOCKS = ("if", "unless", "for", "case", "capture", "comment")
_WITHIN = {"else": "if", "elsif": "if", "when": "case"}
"""Tags that stand within a block, and one that each may stand in."""
_INNER = (*_WITHIN, *(f"end{name}" for name in _BLOCKS))
WRITTEN = tuple(sorted(TAGS_OF_LIQUID - {"content", "output", "#"}))
"""The tags that stand by themselves, and those that begin something, as people write them."""
_FILES = ("include", "render", "extends", "block", "macro", "call")
SHOWN = 60


class _Piece(NamedTuple):
    """A tag or an output: where it begins, its text, the tag's name or the variable's."""

    at: int
    text: str
    name: str

    @property
    def is_tag(self) -> bool:
        return self.text.startswith("{%")


def explain(source: str) -> tuple[int, str, str] | None:
    """The line (from 1), the tag or variable, and what is wrong with it; None of what is Liquid."""
    try:
        Template(source)
    except Unparsable as wrong:
        said, index, text = str(wrong), wrong.index, ""
    else:
        return None
    pieces = list(_pieces(source))
    half = next((found for found in _HALF.finditer(source) if found.start() <= index < found.end() + 2), None)
    if half is not None:
        piece = _piece(half.start(), half[0])
        text = f"{_shown(piece)} is never closed: {'%}' if piece.is_tag else '}}'} is missing"
    elif said.startswith("expected tag end") and (left := _open(pieces)) is not None:
        piece, text = left, f"{_shown(left)} is never closed: {{% end{left.name} %}} is missing"
    elif index >= 0:
        piece = _at(source, pieces, index)
    else:
        piece = next(filter(_fails, pieces), _piece(0, source))
    if unexpected := _UNEXPECTED.match(said):
        piece = piece._replace(name=unexpected[1])
    line = source.count("\n", 0, max(index, piece.at)) + 1
    return line, piece.name or piece.text[:2], text or _said(piece, said)


def _said(piece: _Piece, said: str) -> str:
    name = piece.name
    if piece.is_tag and name in _FILES:
        return f'the tag "{name}" is not allowed here: every template stands for itself'
    if _UNEXPECTED.match(said):
        if name in _INNER:
            return f'the tag "{name}" belongs to nothing that is open here'
        return f'there is no tag "{name}"{meant(name, (*WRITTEN, *_INNER)) or offered(name, WRITTEN)}'
    return f"{_shown(piece)}: {said}" + ('; did you mean "=="?' if said.endswith("found '='") else "")


def _pieces(source: str) -> Iterator[_Piece]:
    source = _PLAIN.sub(lambda plain: " " * len(plain[0]), source)
    return (_piece(found.start(), found[0]) for found in _PIECE.finditer(source))


def _piece(at: int, text: str) -> _Piece:
    name = _NAME.match(text)
    return _Piece(at, text, name[1] if name else "")


def _at(source: str, pieces: list[_Piece], index: int) -> _Piece:
    """The piece around this place of the template; what is never closed begins there."""
    around = (piece for piece in pieces if piece.at <= index < piece.at + len(piece.text))
    return next(around, _piece(index, source[index:]))


def _open(pieces: list[_Piece]) -> _Piece | None:
    """The block that was opened last of those that are never closed."""
    left: list[_Piece] = []
    for piece in pieces:
        if piece.is_tag and piece.name in _BLOCKS:
            left.append(piece)
        elif piece.is_tag and piece.name.startswith("end") and left:
            left.pop()
    return left[-1] if left else None


def _fails(piece: _Piece) -> bool:
    """Whether it is wrong by itself, with what belongs to it."""
    block = _WITHIN.get(piece.name, piece.name)
    alone = piece.text
    if piece.is_tag:
        if piece.name.startswith("end"):
            return False
        if block != piece.name:
            alone = f"{{% {block} x %}}{alone}"
        if block in _BLOCKS:
            alone += f"{{% end{block} %}}"
    try:
        Template(alone)
    except Unparsable:
        return True
    return False


def _shown(piece: _Piece) -> str:
    text = " ".join(piece.text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
