"""Every mistake is shown where it stands, however the file is written."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.validation.toml_source import hint_for, line_of, positions
from tests.domain.validation.test_validate import BAR, FLOW, MAIL, C, F, P, S, errors_of
from tests.harness.support import ROOT

LIST_FILES = "[when]\nany = [\n  { has = { device = 'mobile' } },\n  { has = { country = 'Canada' } },\n]"
BRANCH_FILE = (
    FLOW
    + """[[steps]]
branch = [
  { when = { cart = { empty = true } }, goto = 'end' },
  { when = { cart = { items_at_least = 1 } }, goto = 'ende' },
]
[[steps]]
id = 'end'
exit = true
"""
)


def field_paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from field_paths(one, (*path, key))


@pytest.mark.parametrize("file", sorted((ROOT / "shop").rglob("*.toml")), ids=lambda path: path.name)
def test_every_field_of_the_shipped_shop_has_a_line(file: Path) -> None:
    text = file.read_text()
    lines = text.splitlines()
    for path in field_paths(tomllib.loads(text)):
        number = positions(text).fields[path]
        if isinstance(path[-1], str):
            assert path[-1] in lines[number - 1], path


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (S, LIST_FILES, "line 4, when.any[2].has.country: should be a two-letter code"),
        (
            S,
            "[when]\ndid = [\n  { event = 'Product Added' },\n  { event = 'Product Aded' },\n]",
            'line 4, when.did[2].event: there is no event "Product Aded"',
        ),
        (
            S,
            "[when]\nall = [ # both\n  { cart = { empty = true } },\n  { did = { event = 'Product Viewd' } }\n]",
            'line 4, when.all[2].did.event: there is no event "Product Viewd"',
        ),
        (
            S,
            "[when]\nhas = { country = [\n  'CA',\n  'US', 'Mexico',\n] }",
            "line 2, when.has.country: should be a two",
        ),
        (F, BRANCH_FILE, 'line 5, steps[1].branch[2].goto: there is no step "ende"; did you mean "end"?'),
        (
            F,
            FLOW + "[[steps]]\nwait = '1d'\n[[steps]]\n[steps.wait_for]\nwithin = '2d'\nevent = 'Message Opend'",
            "line 7, steps[2].wait_for.event: there is no event",
        ),
        # in texts of several lines
        (
            C,
            MAIL + '[content.default]\ntitle = \'x\'\nbody = """\n<p>\n{{ first_name }}\n{{ frist_name }}</p>"""',
            'line 8, content.default.body: there is no variable "frist_name"',
        ),
        (
            C,
            MAIL + "[content.default]\ntitle = 'x'\nbody = '''<p>\n\n<script></script></p>'''",
            "line 7, content.default.body: <script> is not allowed",
        ),
        (
            C,
            MAIL + "[content.default]\ntitle = 'x'\nbody = '''\n<p>\n{% if x %}\n'''",
            "line 7, content.default.body: {% if x %} is not closed: {% endif %} is missing",
        ),
        (
            "templates/x.liquid",
            "<p>\n<a href='{{\nproduct.url }}'>\n<b onclick='x'>",
            'templates/x.liquid, line 4, <b onclick>: <b onclick="…"> is not allowed: <b> has no attributes here',
        ),
        (
            "templates/x.liquid",
            "<p>\n\n{{ frist_name }}",
            "templates/x.liquid, line 3, frist_name: there is no variable",
        ),
        # of the whole file, or of what is missing in a table
        (P, "valid_for = '7d'\namount = 5", "coupons/x.toml, line 1, prefix: is missing, as in coupons/winback.toml"),
        (
            S,
            "description = 'x'\n[when]\ncart = { empty = true }\n\n[[when.any]]\nin_segment = 'x'\n[[when.any]]\n"
            "cart = { empty = true }",
            "line 6, when.any[1].in_segment: circular segment references: x -> x",
        ),
        ("segments/Engaged.toml", "[when]\ncart = { empty = true }", "Engaged.toml, line 1, name: should be lower"),
        (
            S,
            "[when]\ncart = { empty = true }\nx = " + "[" * 5000 + "]" * 5000,
            "segments/x.toml, line 3: is nested too deeply",
        ),
    ],
)
def test_errors_have_the_right_line(file: str, text: str, expected: str) -> None:
    found = errors_of({file: text})
    assert any(expected in problem for problem in found), found


def test_positions_of_broken_toml_do_not_fail() -> None:
    for text in ("", "]", "}", "a = ]", "a = { b = ] }", "a = [ }", "[a", "[[", "= 1", 'a = "', ", , ,", "[] = 1"):
        assert line_of(text, ("a", "b", 0)) == 1, text


def hint_of(text: str) -> tuple[int, str, str]:
    with pytest.raises(tomllib.TOMLDecodeError) as error:
        tomllib.loads(text)
    line, path, words = hint_for(text, str(error.value))
    return line, ".".join(map(str, path)), words


@pytest.mark.parametrize(
    ("text", "line", "field", "expected"),
    [
        # quotes
        ("a = 1\ntitle = Hello, you!  # so", 2, "title", 'text needs quotes: title = "Hello, you!"'),
        ("title = “Hello”", 1, "title", 'text needs straight quotes: title = "Hello"'),
        ("title = „Hello“", 1, "title", 'text needs straight quotes: title = "Hello"'),
        ("title = ‘Hello’", 1, "title", 'text needs straight quotes: title = "Hello"'),
        ('title = "Hello\nb = 1', 1, "title", 'the quotes are not closed: title = "Hello"'),
        ('title = "Hello”', 1, "title", 'the quotes are not closed: title = "Hello"'),
        (
            'a = 1\nbody = """x\ny\nz = 1',
            2,
            "body",
            "the quotes are not closed: text that starts with three quotes ends with three",
        ),
        ('title = "say "hi" now"', 1, "title", "use the other quotes, title = 'say \"hi\" now'"),
        ("title = 'it's'", 1, "title", 'use the other quotes, title = "it\'s"'),
        ('title = "C:\\q"', 1, "title", "write the backslash twice"),
        ('title = "x",', 1, "title", 'a line ends without a comma or semicolon: title = "x"'),
        ('“title” = "x"', 1, "", "write the name of a field without quotes"),
        # booleans
        ("[content]\nonce = True", 2, "content.once", "should be true or false, in lower case: once = true"),
        ("once = yes", 1, "once", "should be true or false, in lower case: once = true"),
        ("cart = { empty = No }", 1, "cart.empty", "should be true or false, in lower case: empty = false"),
        # numbers and times
        (
            "cart = { value_at_least = €50 }",
            1,
            "cart.value_at_least",
            "write the number without a unit or sign: value_at_least = 50",
        ),
        ("amount = 50 EUR", 1, "amount", "write the number without a unit or sign: amount = 50"),
        ("percent = 10%", 1, "percent", "write the number without a unit or sign: percent = 10"),
        ("amount = 1,000", 1, "amount", "a number has no commas: amount = 1000"),
        (
            "cart = { value_at_least = 1,000 }",
            1,
            "cart.value_at_least",
            "a number has no commas: value_at_least = 1000",
        ),
        ("amount = 9,5", 1, "amount", "write decimals with a point: amount = 9.5"),
        ("share = .5", 1, "share", "a number does not start with a point: share = 0.5"),
        ("total = 05", 1, "total", "a number does not start with 0: total = 5"),
        ("wait = 7d", 1, "wait", 'a duration needs quotes: wait = "7d"'),
        ("wait = 30 minutes", 1, "wait", 'a duration needs quotes: wait = "30m"'),
        ("begin = 9:30", 1, "begin", 'a time of day needs quotes: begin = "09:30"'),
        ("start = 2026-13-01", 1, "start", 'a date needs quotes: start = "2026-13-01"'),
        # fields and tables
        ("title = 'a'\nbutton = 'b'\ntitle = 'c'", 3, "title", "is defined twice in this table, first in line 1"),
        ("cart = { empty = true, empty = false }", 1, "cart.empty", "is defined twice in this table"),
        ("[when]\na = 1\n[when]\nb = 1", 3, "when", "is defined twice in this table, first in line 1"),
        ("title: 'Hello'", 1, "", "write = between a field and its value, as in title = 'Hello'"),
        ("title 'Hello'", 1, "", "write = between a field and its value, as in title = 'Hello'"),
        ("percent == 10", 1, "percent", "write a single =: percent = 10"),
        ("valid for = '7d'", 1, "", "a name has no spaces: valid_for = '7d'"),
        ("title = ", 1, "title", "a value is missing: title = …"),
        ("a = 1 b = 2", 1, "a", "write each field on its own line"),
        ("has = { country = 'CA',\n device = 'mobile' }", 1, "has", "a table in braces must be on one line"),
        ("[when]\nhas = { country = 'CA', }", 2, "when.has", "for several lines write [when.has] and one field"),
        ("has = { country = 'CA'", 1, "has", "this bracket is not closed"),
        ("a = 1\nevents = ['x'\nb = 2\n", 2, "events", "this bracket is not closed"),
        ("events = [Quiz, 'x']", 1, "events", 'text needs quotes: "Quiz"'),
        ("events = [\n  'x',\n  Quiz Finished,\n]", 3, "events.1", 'text needs quotes: "Quiz Finished"'),
        ("[when\na = 1", 1, "", "write the name of a table in brackets, with dots between its parts: [when]"),
        ("[[steps]\na = 1", 1, "", "[[steps]]"),
        ("[content default]\na = 1", 1, "", "[content.default]"),
        ("a = 1\nevents = ['x'\n[when]\nb = 1", 2, "events", "this bracket is not closed"),
        ("when = { a = 1\n[content]\nb = 1", 1, "when", "this bracket is not closed"),
        ("when = { a = 1 b = 'x' }", 1, "when", "a comma is missing before b = 'x'"),
        ("when = { a = true b = false }", 1, "when", "a comma is missing before b = false"),
        ("events = ['x' 'y']", 1, "events", "a comma is missing before 'y'"),
        ("events = [\n  'x',\n  'y'\n  'z'\n]", 4, "events", "a comma is missing before 'z'"),
        ("trigger = { a = true,\nb = 1 }", 1, "trigger", "for several lines write [trigger] and one field"),
        ("trigger = { a = true\nb = 1 }", 1, "trigger", "for several lines write [trigger] and one field"),
        (
            "trigger = { a = 1 }\n[trigger.properties]\nb = 1",
            2,
            "trigger",
            "is already defined in braces in line 1: write all fields there, or all of them below [trigger]",
        ),
        (
            "[steps]\na = 1\n[[steps]]\na = 2",
            3,
            "steps",
            "is defined as [steps] in line 1: each entry starts with [[steps]]",
        ),
        ("[[steps]]\na = 1\n[steps]\na = 2", 3, "steps", "each entry starts with [[steps]], as in line 1"),
        ("a = 1\n= 2", 2, "", "the name of a field is missing before ="),
        ("// so\na = 1", 1, "", "a comment starts with #"),
        ("a = 1 // so", 1, "a", "a comment starts with #"),
        ("a = 1;", 1, "a", "a line ends without a comma or semicolon: a = 1"),
        ('[trait]\ngröße = "x"', 2, "trait.größe", 'a name with letters other than a to z needs quotes: "größe" = "x"'),
        # without a suggestion
        ("- a", 1, "", "this is not valid TOML: Expected '='"),
    ],
)
def test_toml_syntax_error_gets_a_hint(text: str, line: int, field: str, expected: str) -> None:
    found = hint_of(text)
    assert found[:2] == (line, field), found
    assert expected in found[2], found
    if (written := re.search(r"[:,] (\w+ = [^…]+)$", found[2])) is not None:
        assert tomllib.loads(written[1]), "the suggestion is valid TOML"


def test_syntax_hints_have_file_line_and_field() -> None:
    assert errors_of({S: "[when]\ncart = { empty = True }"}) == [
        "segments/x.toml, line 2, when.cart.empty: should be true or false, in lower case: empty = true"
    ]
    assert errors_of({C: BAR.replace('"Hello"', "“Hello”")}) == [
        'campaigns/x.toml, line 4, content.default.title: text needs straight quotes: title = "Hello"'
    ]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 200_000,
        "a = [" + "1," * 100_000,
        'a = "' + '\\"' * 100_000,
        'a = """\n' + '\\"""\n' * 30_000,
        "a = 1" + ",000" * 50_000,
        "a = " + "“" * 100_000,
    ],
)
def test_syntax_hint_is_fast_on_long_lines(text: str) -> None:
    assert hint_of(text)[0] >= 1
