r"""Check of templates: unknown variables, fields, filters and tags; unsafe HTML; each with its line.

>>> problems("<p>{{ first_name }}\n{{ prodct.name }}</p>", html=True)
[(2, 'prodct', 'there is no variable "prodct"; did you mean "product"?')]
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import islice

from liquid.span import Span
from liquid.static_analysis import TemplateAnalysis, Variable

from domain.event_names import meant, offered
from domain.pieces import pieces
from domain.template import ENTRIES, FILTERS, TAGS, TAGS_OF_LIQUID, VARIABLES, Template, is_safe_url
from domain.unparsable import WRITTEN, explain

Wrong = tuple[int, str, str]
"""A line (from 1) of a template; what stands there (a variable, filter or tag); and what is wrong with it."""

_HOLE = "\u2063"
"""Stands around the line breaks of what Liquid will put there."""
_HOLES = re.compile(f"{_HOLE}\n*{_HOLE}")
_DOUBTFUL = re.compile(r"<[!?][^<>]*|<[a-zA-Z/][^<>]*(?=<|\Z)")
MOST_DOUBTFUL = 200
"""Comments, and tags without an end. For the end of each the whole rest is looked through: 4,000 take 2 s, and twice as
many four times as long."""
_LOOP = re.compile(r"\{%-?\s*for\s+(\w+)\s+in\s+([\w.]+)")
_SAID = re.compile(r"\{%-?\s*(?:assign|capture)\s+(\w+)")


def problems(source: str, *, html: bool) -> list[Wrong]:
    """What is wrong with a template, each thing once, in the order of its lines."""
    if wrong := explain(source):
        return [wrong]
    analysis = Template(source, html=html).analysis()
    found = list(_liquid(source, analysis)) if analysis is not None else []
    if html:
        found += _unsafe(source)
    first = dict[str, tuple[int, str]]()
    for line, name, text in sorted(found):
        first.setdefault(text, (line, name))
    return [(*where, text) for text, where in first.items()]


def _liquid(source: str, analysis: TemplateAnalysis) -> Iterator[Wrong]:
    for root, uses in analysis.globals.items():
        fields = VARIABLES.get(str(root))
        for use in uses:
            line = _line(source, use.span)
            if fields is None:
                yield line, str(root), f'there is no variable "{root}"{_variable(str(root))}'
            elif fields and (second := _second(use)) and second not in fields:
                yield line, f"{root}.{second}", f'"{root}" has no field "{second}"{offered(second, fields)}'
    for root, fields in _entries(source).items():
        for use in analysis.variables.get(root, ()):
            if (second := _second(use)) and second not in fields:
                yield (_line(source, use.span), f"{root}.{second}",
                       f'"{root}" has no field "{second}"{offered(second, fields)}')
    for name, spans in analysis.filters.items():
        if name not in FILTERS:
            yield _line(source, spans[0]), name, f'there is no filter "{name}"{offered(name, sorted(FILTERS))}'
    for name, spans in analysis.tags.items():
        if name not in TAGS_OF_LIQUID:
            yield (_line(source, spans[0]), name,
                   f'the tag "{name}" is not allowed here{offered(name, WRITTEN)}')


def _line(source: str, span: Span) -> int:
    return source.count("\n", 0, max(span.index, 0)) + 1


def _second(use: Variable) -> str:
    """The field that is asked for; empty when none is named."""
    second = use.segments[1] if len(use.segments) > 1 else None
    return second if isinstance(second, str) else ""


def _variable(root: str) -> str:
    """What was probably meant: a variable of nearly this name, or the variable that has such a field."""
    if hint := meant(root, VARIABLES):
        return hint
    holders = [f'"{name}.{root}"' for name, fields in VARIABLES.items() if root in fields]
    return f"; did you mean {' or '.join(holders)}?" if holders else offered(root, VARIABLES)


def _entries(source: str) -> dict[str, tuple[str, ...]]:
    """The names that loops give to the entries of lists, with the fields there are; no name that is used twice."""
    loops = dict[str, set[str]]()
    for name, among in _LOOP.findall(source):
        loops.setdefault(name, set()).add(among)
    taken = {*_SAID.findall(source), *VARIABLES}
    return {name: ENTRIES[among.pop()] for name, among in loops.items()
            if name not in taken and len(among) == 1 and among <= ENTRIES.keys()}


# -- HTML --------------------------------------------------------------------------------------------------------


class _Look(HTMLParser):
    """Reads the HTML a marketer wrote and notes what the sanitiser would take away."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Wrong] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line = self.getpos()[0]
        if tag not in TAGS:
            hint = meant(tag, TAGS) if len(tag) > 2 else ""
            self.found.append((line, f"<{tag}>", f"<{tag}> is not allowed{hint or offered('', TAGS)}"))
            return
        for name, value in attrs:
            where = f"<{tag} {name}>"
            if name not in TAGS[tag]:
                left = offered(name, sorted(TAGS[tag])) if TAGS[tag] else f": <{tag}> has no attributes here"
                self.found.append((line, where, f'<{tag} {name}="…"> is not allowed{left}'))
            elif name in ("href", "src") and not is_safe_url(_HOLES.sub("x", value or "")):
                shown = (value or "")[:60]
                self.found.append((
                    line, where, f'<{tag} {name}="{shown}">: should be a path, or begin with https:// or http://'))

    handle_startendtag = handle_starttag


def _unsafe(source: str) -> list[Wrong]:
    text = _with_holes(source)
    doubtful = list(islice(_DOUBTFUL.finditer(text), MOST_DOUBTFUL + 1))
    if len(doubtful) > MOST_DOUBTFUL:
        line, shown = text.count("\n", 0, doubtful[0].start()) + 1, doubtful[0][0][:20]
        return [(line, shown, f"{shown} and more than {MOST_DOUBTFUL} others are comments, or are never closed: "
                              'write "&lt;" for a "<" that is no tag')]
    look = _Look()
    look.feed(text)
    look.close()
    return look.found


def _with_holes(source: str) -> str:
    """The HTML around what is Liquid, each line where it was."""
    parts, done = list[str](), 0
    for start, end in pieces(source):
        parts += source[done:start], _HOLE, "\n" * source.count("\n", start, end), _HOLE
        done = end
    return "".join((*parts, source[done:]))
