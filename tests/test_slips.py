"""What is no TOML is said with its field and what was meant, and is TOML when it is written as it is said."""

import re
import tomllib

import pytest

from domain.slips import slip
from tests.test_check import BAR, C, S, mistakes


def said_of(text: str) -> tuple[int, str, str]:
    with pytest.raises(tomllib.TOMLDecodeError) as wrong:
        tomllib.loads(text)
    line, path, words = slip(text, str(wrong.value))
    return line, ".".join(map(str, path)), words


@pytest.mark.parametrize(("text", "line", "field", "said"), [
    # quotes
    ("a = 1\ntitle = Hello, you!  # so", 2, "title", 'text stands in quotes: title = "Hello, you!"'),
    ("title = “Hello”", 1, "title", 'text stands in straight quotes: title = "Hello"'),
    ("title = „Hello“", 1, "title", 'text stands in straight quotes: title = "Hello"'),
    ("title = ‘Hello’", 1, "title", 'text stands in straight quotes: title = "Hello"'),
    ('title = "Hello\nb = 1', 1, "title", 'the quotes are not closed: title = "Hello"'),
    ('title = "Hello”', 1, "title", 'the quotes are not closed: title = "Hello"'),
    ('a = 1\nbody = """x\ny\nz = 1', 2, "body", "the quotes are not closed: three of them end what three began"),
    ('title = "say "hi" now"', 1, "title", "stand it in others, title = 'say \"hi\" now'"),
    ("title = 'it's'", 1, "title", 'stand it in others, title = "it\'s"'),
    ('title = "C:\\q"', 1, "title", "a backslash is written twice"),
    ('title = "x",', 1, "title", 'nothing stands between one line and the next: title = "x"'),
    ('“title” = "x"', 1, "", "the name of a field stands without quotes"),
    # what is true
    ("[content]\nonce = True", 2, "content.once", "should be true or false, in small letters: once = true"),
    ("once = yes", 1, "once", "should be true or false, in small letters: once = true"),
    ("cart = { empty = No }", 1, "cart.empty", "should be true or false, in small letters: empty = false"),
    # numbers and times
    ("cart = { value_at_least = €50 }", 1, "cart.value_at_least", "a number stands alone, without a sign: "
                                                                   "value_at_least = 50"),
    ("amount = 50 EUR", 1, "amount", "a number stands alone, without a sign: amount = 50"),
    ("percent = 10%", 1, "percent", "a number stands alone, without a sign: percent = 10"),
    ("amount = 1,000", 1, "amount", "a number has no commas: amount = 1000"),
    ("cart = { value_at_least = 1,000 }", 1, "cart.value_at_least", "a number has no commas: value_at_least = 1000"),
    ("amount = 9,5", 1, "amount", "a decimal is written with a point: amount = 9.5"),
    ("share = .5", 1, "share", "a number does not begin with a point: share = 0.5"),
    ("total = 05", 1, "total", "a number does not begin with 0: total = 5"),
    ("wait = 7d", 1, "wait", 'a duration stands in quotes: wait = "7d"'),
    ("wait = 30 minutes", 1, "wait", 'a duration stands in quotes: wait = "30m"'),
    ("begin = 9:30", 1, "begin", 'a time of day stands in quotes: begin = "09:30"'),
    ("start = 2026-13-01", 1, "start", 'a day stands in quotes: start = "2026-13-01"'),
    # fields and tables
    ("title = 'a'\nbutton = 'b'\ntitle = 'c'", 3, "title", "stands twice in this table; the first time in line 1"),
    ("cart = { empty = true, empty = false }", 1, "cart.empty", "stands twice in this table"),
    ("[when]\na = 1\n[when]\nb = 1", 3, "when", "stands twice in this table; the first time in line 1"),
    ("title: 'Hello'", 1, "", "between a field and its value stands =, as in title = 'Hello'"),
    ("title 'Hello'", 1, "", "between a field and its value stands =, as in title = 'Hello'"),
    ("percent == 10", 1, "percent", "one = is enough: percent = 10"),
    ("valid for = '7d'", 1, "", "a name has no blanks: valid_for = '7d'"),
    ("title = ", 1, "title", "a value is missing: title = …"),
    ("a = 1 b = 2", 1, "a", "each field stands in a line of its own"),
    ("has = { country = 'CA',\n device = 'mobile' }", 1, "has", "a table in braces stands on one line"),
    ("[when]\nhas = { country = 'CA', }", 2, "when.has", "for several lines write [when.has] and below it"),
    ("has = { country = 'CA'", 1, "has", "the bracket that is opened here is not closed"),
    ("a = 1\nevents = ['x'\nb = 2\n", 2, "events", "the bracket that is opened here is not closed"),
    ("events = [Quiz, 'x']", 1, "events", 'text stands in quotes: "Quiz"'),
    ("events = [\n  'x',\n  Quiz Finished,\n]", 3, "events.1", 'text stands in quotes: "Quiz Finished"'),
    ("[when\na = 1", 1, "", "the name of a table stands in brackets, with points between its parts: [when]"),
    ("[[steps]\na = 1", 1, "", "[[steps]]"),
    ("[content default]\na = 1", 1, "", "[content.default]"),
    ("a = 1\nevents = ['x'\n[when]\nb = 1", 2, "events", "the bracket that is opened here is not closed"),
    ("when = { a = 1\n[content]\nb = 1", 1, "when", "the bracket that is opened here is not closed"),
    ("when = { a = 1 b = 'x' }", 1, "when", "a comma is missing before b = 'x'"),
    ("when = { a = true b = false }", 1, "when", "a comma is missing before b = false"),
    ("events = ['x' 'y']", 1, "events", "a comma is missing before 'y'"),
    ("events = [\n  'x',\n  'y'\n  'z'\n]", 4, "events", "a comma is missing before 'z'"),
    ("trigger = { a = true,\nb = 1 }", 1, "trigger", "for several lines write [trigger] and below it"),
    ("trigger = { a = true\nb = 1 }", 1, "trigger", "for several lines write [trigger] and below it"),
    ("trigger = { a = 1 }\n[trigger.properties]\nb = 1", 2, "trigger",
     "stands in braces in line 1: write all of it there, or all of it below [trigger]"),
    ("[steps]\na = 1\n[[steps]]\na = 2", 3, "steps",
     "began with [steps] in line 1: each of several begins with [[steps]]"),
    ("[[steps]]\na = 1\n[steps]\na = 2", 3, "steps", "each of several begins with [[steps]], as in line 1"),
    ("a = 1\n= 2", 2, "", "before = stands the name of a field"),
    ("// so\na = 1", 1, "", "a comment begins with #"),
    ("a = 1 // so", 1, "a", "a comment begins with #"),
    ("a = 1;", 1, "a", "nothing stands between one line and the next: a = 1"),
    ('[trait]\ngröße = "x"', 2, "trait.größe", 'a name with other letters than a to z stands in quotes: "größe" = "x"'),
    # what cannot be guessed
    ("- a", 1, "", "this is no TOML: Expected '='"),
])
def test_a_slip_is_said_with_what_was_meant(text: str, line: int, field: str, said: str) -> None:
    found = said_of(text)
    assert found[:2] == (line, field), found
    assert said in found[2], found
    if (written := re.search(r"[:,] (\w+ = [^…]+)$", found[2])) is not None:
        assert tomllib.loads(written[1]), "what is to be written is TOML"


def test_slips_are_reported_with_file_line_and_field() -> None:
    assert mistakes({S: "[when]\ncart = { empty = True }"}) == [
        "segments/x.toml, line 2, when.cart.empty: should be true or false, in small letters: empty = true"]
    assert mistakes({C: BAR.replace('"Hello"', "“Hello”")}) == [
        'campaigns/x.toml, line 4, content.default.title: text stands in straight quotes: title = "Hello"']


@pytest.mark.parametrize("text", ["x" * 200_000, "a = [" + "1," * 100_000, 'a = "' + '\\"' * 100_000,
                                  'a = """\n' + '\\"""\n' * 30_000, "a = 1" + ",000" * 50_000, "a = " + "“" * 100_000])
def test_a_long_line_is_looked_at_in_no_time(text: str) -> None:
    assert said_of(text)[0] >= 1
