r"""Pieces of a template: its tags and outputs, found in one pass, and refused before they cost time.

Whoever parses Liquid looks for the end of a tag as far as the text goes, from each opening and each blank anew: 256 kB
of nothing but "{{" had not been parsed after three minutes. So what has no end, and what is absurdly long, never gets
as far as that.

>>> list(pieces("<p>{{ first_name }}{% raw %}{{{% endraw %}"))
[(3, 19), (19, 28), (30, 42)]
>>> list(pieces("{{ first_name }} {{ last_name"))
Traceback (most recent call last):
    ...
domain.pieces.Refused: expected '}}', found end of file
"""

import re
from collections.abc import Iterator

LONGEST = 2_000
BLANKS = 200
BRACKETS = 20
"""Characters of one tag or output; blanks in a row, and opening brackets, in it. To parse it takes the square of the
first two (0.13 s for 2,000 blanks, 2.3 s for 8,000), and more than that of the last (2 s for 600)."""
MOST = 32_000
"""Characters of all tags and outputs of a template together: what it costs to parse them (a second at the very worst),
and to go through a loop of them. What a template gives may have 20,000."""

_OPENING = re.compile(r"\{\{|\{%")
_BLANK = re.compile(rf"\s{{{BLANKS + 1}}}")
_VERBATIM = re.compile(r"\{%-?\s*(raw|doc)\s*-?%\}")
_ENDS = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("raw", "doc")}
"""What stands between these is no Liquid, whatever it looks like."""


class Refused(ValueError):
    """A template that nobody should try to parse: why, and at which place of it."""

    def __init__(self, said: str, index: int) -> None:
        self.index = index
        super().__init__(said)


def pieces(source: str) -> Iterator[tuple[int, int]]:
    """Where each tag and output of a template begins and ends, in time that grows with its length and no faster.

    Refused when one of them is never closed or too long, or when they are too much together.
    """
    at = taken = 0
    while (opening := _OPENING.search(source, at)) is not None:
        start, verbatim = opening.start(), _VERBATIM.match(source, opening.start())
        at = _end(source, start, "}}" if opening[0] == "{{" else "%}")
        if at - start > LONGEST:
            raise Refused(f"longer than {LONGEST:,} characters", start)
        if _BLANK.search(source, start, at) is not None:
            raise Refused(f"more than {BLANKS} blanks in a row", start)
        if source.count("[", start, at) > BRACKETS:
            raise Refused(f"more than {BRACKETS} brackets", start)
        taken += at - start
        if taken > MOST:
            raise Refused(f"the tags and variables up to here have more than {MOST:,} characters", start)
        yield start, at
        if verbatim is not None:
            end = _ENDS[verbatim[1]].search(source, at)
            if end is None:
                raise Refused(f"expected '{{% end{verbatim[1]} %}}', found end of file", start)
            yield end.span()
            at = end.end()


def _end(source: str, start: int, mark: str) -> int:
    end = source.find(mark, start + 2)
    if end < 0:
        raise Refused(f"expected '{mark}', found end of file", start)
    return end + 2
