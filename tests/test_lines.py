"""Every mistake is shown where it stands, however the file is written."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.lines import line_of, places
from tests.support import ROOT
from tests.test_check import FLOW, MAIL, C, F, P, S, mistakes

LISTS = "[when]\nany = [\n  { has = { device = 'mobile' } },\n  { has = { country = 'Canada' } },\n]"
BRANCH = FLOW + """[[steps]]
branch = [
  { when = { cart = { empty = true } }, go = 'end' },
  { when = { cart = { items_at_least = 1 } }, go = 'ende' },
]
[[steps]]
id = 'end'
exit = true
"""


def fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from fields(one, (*path, key))


@pytest.mark.parametrize("file", sorted((ROOT / "shop").rglob("*.toml")), ids=lambda path: path.name)
def test_every_field_of_the_shipped_shop_has_its_line(file: Path) -> None:
    text = file.read_text()
    lines = text.splitlines()
    for path in fields(tomllib.loads(text)):
        number = places(text).fields[path]
        if isinstance(path[-1], str):
            assert path[-1] in lines[number - 1], path


@pytest.mark.parametrize(("file", "text", "said"), [
    (S, LISTS, "line 4, when.any[2].has.country: should be a two-letter code"),
    (S, "[when]\ndid = [\n  { event = 'Product Added' },\n  { event = 'Product Aded' },\n]",
     'line 4, when.did[2].event: there is no event "Product Aded"'),
    (S, "[when]\nall = [ # both\n  { cart = { empty = true } },\n  { did = { event = 'Product Viewd' } }\n]",
     'line 4, when.all[2].did.event: there is no event "Product Viewd"'),
    (S, "[when]\nhas = { country = [\n  'CA',\n  'US', 'Mexico',\n] }", "line 2, when.has.country: should be a two"),
    (F, BRANCH, 'line 5, steps[1].branch[2].go: there is no step "ende"; did you mean "end"?'),
    (F, FLOW + "[[steps]]\nwait = '1d'\n[[steps]]\n[steps.wait_for]\nwithin = '2d'\nevent = 'Message Opend'",
     "line 7, steps[2].wait_for.event: there is no event"),
    # in texts of several lines
    (C, MAIL + "[content.default]\ntitle = 'x'\nbody = \"\"\"\n<p>\n{{ first_name }}\n{{ frist_name }}</p>\"\"\"",
     'line 8, content.default.body: there is no variable "frist_name"'),
    (C, MAIL + "[content.default]\ntitle = 'x'\nbody = \'\'\'<p>\n\n<script></script></p>\'\'\'",
     "line 7, content.default.body: <script> is not allowed"),
    (C, MAIL + "[content.default]\ntitle = 'x'\nbody = \'\'\'\n<p>\n{% if x %}\n\'\'\'",
     "line 7, content.default.body: {% if x %} is never closed: {% endif %} is missing"),
    ("templates/x.liquid", "<p>\n<a href='{{\nproduct.url }}'>\n<b onclick='x'>",
     'templates/x.liquid, line 4, <b onclick>: <b onclick="…"> is not allowed: <b> has no attributes here'),
    ("templates/x.liquid", "<p>\n\n{{ frist_name }}", "templates/x.liquid, line 3, frist_name: there is no variable"),
    # of the whole file, or of what is missing in a table
    (P, "valid_for = '7d'\namount = 5", "coupons/x.toml, line 1, prefix: is missing, as in coupons/winback.toml"),
    (S, "description = 'x'\n[when]\ncart = { empty = true }\n\n[[when.any]]\nin_segment = 'x'\n[[when.any]]\n"
        "cart = { empty = true }", "line 6, when.any[1].in_segment: segments refer to each other in a circle: x -> x"),
    ("segments/Engaged.toml", "[when]\ncart = { empty = true }", "Engaged.toml, line 1, name: should be lower"),
    (S, "[when]\ncart = { empty = true }\nx = " + "[" * 5000 + "]" * 5000, "segments/x.toml, line 3: nests too deep"),
])
def test_a_mistake_has_the_line_it_stands_in(file: str, text: str, said: str) -> None:
    found = mistakes({file: text})
    assert any(said in problem for problem in found), found


def test_what_cannot_be_understood_is_followed_as_far_as_it_can() -> None:
    for text in ("", "]", "}", "a = ]", "a = { b = ] }", "a = [ }", "[a", "[[", "= 1", "a = \"", ", , ,", "[] = 1"):
        assert line_of(text, ("a", "b", 0)) == 1, text
