r"""Check of templates: syntax errors, unknown variables, fields, filters and tags, and unsafe HTML.

>>> check_template("<p>{{ first_name }}\n{{ prodct.name }}</p>", html=True)
[(2, 'prodct', 'there is no variable "prodct"; did you mean "product"?')]

>>> explain_syntax_error("<p>\n{% iff cart %}x{% endif %}")
(2, 'iff', 'there is no tag "iff"; did you mean "if"?')
>>> explain_syntax_error("{{ first_name }}\n{% if cart %}\n<p>")
(2, 'if', '{% if cart %} is not closed: {% endif %} is missing')
>>> explain_syntax_error("{{ first_name | }}")
(1, 'first_name', '{{ first_name | }}: expected word, found end of expression')
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import islice
from typing import NamedTuple

from liquid.span import Span
from liquid.static_analysis import TemplateAnalysis, Variable

from domain.event import did_you_mean, did_you_mean_or_list
from domain.playbook.template import (
    HTML_TAGS,
    LIQUID_FILTERS,
    LIQUID_TAGS,
    LIST_ITEM_FIELDS,
    VARIABLES,
    Template,
    TemplateSyntaxError,
    is_safe_url,
)
from domain.playbook.template_sandbox import tokens

_TOKEN = re.compile(r"\{\{(?:(?!\{\{).)*?\}\}|\{%(?:(?!\{%).)*?%\}", re.DOTALL)
_VERBATIM = re.compile(r"\{%-?\s*(comment|raw)\s*-?%\}(?:(?!\{%-?\s*\1).)*?\{%-?\s*end\1\s*-?%\}", re.DOTALL)
"""Text that is not parsed as Liquid. Each pattern stops where the next block starts, which keeps it linear."""
_UNEXPECTED_TAG = re.compile(r"unexpected tag '([^']*)'")
_HALF_CLOSED = re.compile(r"\{[{%][^{}%\"']{0,200}\}(?!\})")
"""A tag or output with one closing bracket missing."""
_TOKEN_NAME = re.compile(r"\{[{%]-?\s*([\w.#]*)")

_BLOCKS = ("if", "unless", "for", "case", "capture", "comment")
_PARENT_BLOCK = {"else": "if", "elsif": "if", "when": "case"}
"""Tags inside a block, and a block that may contain each."""
_INNER_TAGS = (*_PARENT_BLOCK, *(f"end{name}" for name in _BLOCKS))
TAG_NAMES = tuple(sorted(LIQUID_TAGS - {"content", "output", "#"}))
"""The tags that start a statement or a block."""
_FILE_TAGS = ("include", "render", "extends", "block", "macro", "call")
MAX_EXCERPT = 60


class _Token(NamedTuple):
    """A tag or an output: its start, its text, and the name of the tag or variable."""

    start: int
    text: str
    name: str

    @property
    def is_tag(self) -> bool:
        return self.text.startswith("{%")


def explain_syntax_error(source: str) -> tuple[int, str, str] | None:
    """Return the line (from 1), the tag or variable, and the error; None if the syntax is valid."""
    try:
        Template(source)
    except TemplateSyntaxError as error:
        message, index, text = str(error), error.offset, ""
    else:
        return None
    pieces = list(_tokenize(source))
    half = next((found for found in _HALF_CLOSED.finditer(source) if found.start() <= index < found.end() + 2), None)
    if half is not None:
        piece = _token(half.start(), half[0])
        text = f"{_excerpt(piece)} is not closed: {'%}' if piece.is_tag else '}}'} is missing"
    elif message.startswith("expected tag end") and (left := _last_unclosed(pieces)) is not None:
        piece, text = left, f"{_excerpt(left)} is not closed: {{% end{left.name} %}} is missing"
    elif index >= 0:
        piece = _token_at(source, pieces, index)
    else:
        piece = next(filter(_is_invalid, pieces), _token(0, source))
    if unexpected := _UNEXPECTED_TAG.match(message):
        piece = piece._replace(name=unexpected[1])
    line = source.count("\n", 0, max(index, piece.start)) + 1
    return line, piece.name or piece.text[:2], text or _syntax_message(piece, message)


def _syntax_message(token: _Token, error: str) -> str:
    name = token.name
    if token.is_tag and name in _FILE_TAGS:
        return f'the tag "{name}" is not allowed here: a template cannot use other templates'
    if _UNEXPECTED_TAG.match(error):
        if name in _INNER_TAGS:
            return f'the tag "{name}" has no open tag to belong to'
        hint = did_you_mean(name, (*TAG_NAMES, *_INNER_TAGS)) or did_you_mean_or_list(name, TAG_NAMES)
        return f'there is no tag "{name}"{hint}'
    return f"{_excerpt(token)}: {error}" + ('; did you mean "=="?' if error.endswith("found '='") else "")


def _tokenize(source: str) -> Iterator[_Token]:
    source = _VERBATIM.sub(lambda plain: " " * len(plain[0]), source)
    return (_token(found.start(), found[0]) for found in _TOKEN.finditer(source))


def _token(start: int, text: str) -> _Token:
    name = _TOKEN_NAME.match(text)
    return _Token(start, text, name[1] if name else "")


def _token_at(source: str, tokens: list[_Token], index: int) -> _Token:
    """Return the token at an offset, or the rest of the template."""
    around = (piece for piece in tokens if piece.start <= index < piece.start + len(piece.text))
    return next(around, _token(index, source[index:]))


def _last_unclosed(tokens: list[_Token]) -> _Token | None:
    """The block that was opened last of those that are never closed."""
    left: list[_Token] = []
    for piece in tokens:
        if piece.is_tag and piece.name in _BLOCKS:
            left.append(piece)
        elif piece.is_tag and piece.name.startswith("end") and left:
            left.pop()
    return left[-1] if left else None


def _is_invalid(token: _Token) -> bool:
    """Return whether a token is invalid on its own, with the block that it needs."""
    block = _PARENT_BLOCK.get(token.name, token.name)
    alone = token.text
    if token.is_tag:
        if token.name.startswith("end"):
            return False
        if block != token.name:
            alone = f"{{% {block} x %}}{alone}"
        if block in _BLOCKS:
            alone += f"{{% end{block} %}}"
    try:
        Template(alone)
    except TemplateSyntaxError:
        return True
    return False


def _excerpt(token: _Token) -> str:
    text = " ".join(token.text.split())
    return text if len(text) <= MAX_EXCERPT else text[:MAX_EXCERPT] + "…"


TemplateDiagnostic = tuple[int, str, str]
"""A line (from 1) of a template; a variable, filter or tag; and the error."""

_PLACEHOLDER = "\u2063"
"""Placeholder for Liquid output; it surrounds the line breaks of the tag."""
_PLACEHOLDERS = re.compile(f"{_PLACEHOLDER}\n*{_PLACEHOLDER}")
_UNCLOSED_HTML = re.compile(r"<[!?][^<>]*|<[a-zA-Z/][^<>]*(?=<|\Z)")
MAX_UNCLOSED_HTML = 200
"""Comments, and tags without an end. For the end of each the whole rest is looked through: 4,000 take 2 s, and twice as
many four times as long."""
_FOR_TAG = re.compile(r"\{%-?\s*for\s+(\w+)\s+in\s+([\w.]+)")
_ASSIGN_TAG = re.compile(r"\{%-?\s*(?:assign|capture)\s+(\w+)")


def check_template(source: str, *, html: bool) -> list[TemplateDiagnostic]:
    """Return the errors of a template, each once, ordered by line."""
    if error := explain_syntax_error(source):
        return [error]
    analysis = Template(source, html=html).analysis()
    found = list(_check_liquid(source, analysis)) if analysis is not None else []
    if html:
        found += _check_html(source)
    first = dict[str, tuple[int, str]]()
    for line, name, text in sorted(found):
        first.setdefault(text, (line, name))
    return [(*where, text) for text, where in first.items()]


def _check_liquid(source: str, analysis: TemplateAnalysis) -> Iterator[TemplateDiagnostic]:
    for root, uses in analysis.globals.items():
        fields = VARIABLES.get(str(root))
        for use in uses:
            line = _line_of(source, use.span)
            if fields is None:
                yield line, str(root), f'there is no variable "{root}"{_variable_hint(str(root))}'
            elif fields and (second := _field_of(use)) and second not in fields:
                yield (
                    line,
                    f"{root}.{second}",
                    f'"{root}" has no field "{second}"{did_you_mean_or_list(second, fields)}',
                )
    for root, fields in _loop_fields(source).items():
        for use in analysis.variables.get(root, ()):
            if (second := _field_of(use)) and second not in fields:
                yield (
                    _line_of(source, use.span),
                    f"{root}.{second}",
                    f'"{root}" has no field "{second}"{did_you_mean_or_list(second, fields)}',
                )
    for name, spans in analysis.filters.items():
        if name not in LIQUID_FILTERS:
            yield (
                _line_of(source, spans[0]),
                name,
                f'there is no filter "{name}"{did_you_mean_or_list(name, sorted(LIQUID_FILTERS))}',
            )
    for name, spans in analysis.tags.items():
        if name not in LIQUID_TAGS:
            yield (
                _line_of(source, spans[0]),
                name,
                f'the tag "{name}" is not allowed here{did_you_mean_or_list(name, TAG_NAMES)}',
            )


def _line_of(source: str, span: Span) -> int:
    return source.count("\n", 0, max(span.index, 0)) + 1


def _field_of(use: Variable) -> str:
    """Return the field of a variable; empty if there is none."""
    second = use.segments[1] if len(use.segments) > 1 else None
    return second if isinstance(second, str) else ""


def _variable_hint(root: str) -> str:
    """Return a suggestion: a variable with a similar name, or a variable with such a field."""
    if hint := did_you_mean(root, VARIABLES):
        return hint
    holders = [f'"{name}.{root}"' for name, fields in VARIABLES.items() if root in fields]
    return f"; did you mean {' or '.join(holders)}?" if holders else did_you_mean_or_list(root, VARIABLES)


def _loop_fields(source: str) -> dict[str, tuple[str, ...]]:
    """Return the loop variables with the fields of their list; names with two meanings are left out."""
    loops = dict[str, set[str]]()
    for name, among in _FOR_TAG.findall(source):
        loops.setdefault(name, set()).add(among)
    taken = {*_ASSIGN_TAG.findall(source), *VARIABLES}
    return {
        name: LIST_ITEM_FIELDS[among.pop()]
        for name, among in loops.items()
        if name not in taken and len(among) == 1 and among <= LIST_ITEM_FIELDS.keys()
    }


# -- HTML --------------------------------------------------------------------------------------------------------


class _HTMLChecker(HTMLParser):
    """Finds HTML that the sanitizer would remove."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[TemplateDiagnostic] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line = self.getpos()[0]
        if tag not in HTML_TAGS:
            hint = did_you_mean(tag, HTML_TAGS) if len(tag) > 2 else ""
            self.errors.append(
                (line, f"<{tag}>", f"<{tag}> is not allowed{hint or did_you_mean_or_list('', HTML_TAGS)}")
            )
            return
        for name, value in attrs:
            where = f"<{tag} {name}>"
            if name not in HTML_TAGS[tag]:
                left = (
                    did_you_mean_or_list(name, sorted(HTML_TAGS[tag]))
                    if HTML_TAGS[tag]
                    else f": <{tag}> has no attributes here"
                )
                self.errors.append((line, where, f'<{tag} {name}="…"> is not allowed{left}'))
            elif name in ("href", "src") and not is_safe_url(_PLACEHOLDERS.sub("x", value or "")):
                shown = (value or "")[:60]
                self.errors.append(
                    (line, where, f'<{tag} {name}="{shown}">: should be a path, or start with https:// or http://')
                )

    handle_startendtag = handle_starttag


def _check_html(source: str) -> list[TemplateDiagnostic]:
    text = _without_liquid(source)
    doubtful = list(islice(_UNCLOSED_HTML.finditer(text), MAX_UNCLOSED_HTML + 1))
    if len(doubtful) > MAX_UNCLOSED_HTML:
        line, shown = text.count("\n", 0, doubtful[0].start()) + 1, doubtful[0][0][:20]
        return [
            (
                line,
                shown,
                f"{shown} and more than {MAX_UNCLOSED_HTML} others are comments, or are never closed: "
                'write "&lt;" for a "<" that is no tag',
            )
        ]
    look = _HTMLChecker()
    look.feed(text)
    look.close()
    return look.errors


def _without_liquid(source: str) -> str:
    """Return the HTML without Liquid, with the same line numbers."""
    parts, done = list[str](), 0
    for start, end in tokens(source):
        parts += source[done:start], _PLACEHOLDER, "\n" * source.count("\n", start, end), _PLACEHOLDER
        done = end
    return "".join((*parts, source[done:]))
