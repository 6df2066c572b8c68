"""Template errors have a line, a name, and a suggestion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.playbook.template import Template, TemplateSyntaxError
from domain.validation.templates import check_template, explain_syntax_error

FRAGMENTS = (
    "{{",
    "}}",
    "{%",
    "%}",
    " if ",
    " endif ",
    " for x in products ",
    "endfor",
    " comment ",
    "raw",
    "endraw",
    "case",
    " when 1 ",
    "else",
    "include 'y'",
    "first_name",
    " | ",
    "default: ''",
    "'",
    "\n",
    "<p>",
    "-",
    "liquid",
    "=",
    "(",
)


@pytest.mark.parametrize(
    ("source", "line", "name", "expected"),
    [
        ("a\n{{ x | }}", 2, "x", "{{ x | }}: expected word"),
        ("<p>\n{{ x", 2, "x", "{{ x: expected '}}'"),
        (
            "<p>\n{{ cart.count } things: {{ cart.value | money }}",
            2,
            "cart.count",
            "{{ cart.count } is not closed: }} is missing",
        ),
        ("{% if first_name }x{% endif %}", 1, "if", "{% if first_name } is not closed: %} is missing"),
        ("{{ }}", 1, "{{", "{{ }}: expected a primitive expression"),
        ("\n{% for x %}{% endfor %}", 2, "for", "{% for x %}: expected in"),
        ("{% if a = b %}{% endif %}", 1, "if", "found '='; did you mean \"==\"?"),
        ("{% if x %}\n{% elseif y %}{% endif %}", 2, "elseif", 'there is no tag "elseif"; did you mean "elsif"?'),
        ("{% date %}", 1, "date", 'there is no tag "date"; there are assign, break'),
        ("{% liquid\nfoo %}", 2, "foo", 'there is no tag "foo"'),
        ("x\n{% endif %}", 2, "endif", 'the tag "endif" has no open tag to belong to'),
        ("{% render 'x' %}", 1, "render", 'the tag "render" is not allowed here'),
        (
            "{% if x %}\n{% for y in z %}\n{% else %}",
            2,
            "for",
            "{% for y in z %} is not closed: {% endfor %} is missing",
        ),
        ("{% comment %}{% if %}{% endcomment %}\n{% if x %}", 2, "if", "{% if x %} is not closed"),
        ("{% if x %}" * 25 + "{% endif %}" * 25, 1, "if", "{% if x %}: block nesting limit reached"),
        ("\n{{ " + "(" * 3_000 + "}}", 2, "{{", "…: "),
        # unknown names
        ("\n{{ prodct.name }}", 2, "prodct", 'did you mean "product"?'),
        ("{{ product.nmae }}", 1, "product.nmae", 'did you mean "name"?'),
        ("\n{% for one in cart.items %}{{ one.url }}{% endfor %}", 2, "one.url", "there are id, name"),
        ("{{ first_name | upcas }}", 1, "upcas", 'did you mean "upcase"?'),
        ("{% increment x %}", 1, "increment", "is not allowed here; there are assign"),
        ("<p>\n<script></script>", 2, "<script>", "is not allowed; there are a, img"),
        ("<blockqoute>", 1, "<blockqoute>", 'did you mean "blockquote"?'),
        ("<p onclick='x'>", 1, "<p onclick>", "<p> has no attributes here"),
        ("<img srcset='/x'>", 1, "<img srcset>", "is not allowed; there are alt, height, src and width"),
        ("<a href='javascript:x'>", 1, "<a href>", "should be a path, or start with https:// or http://"),
    ],
)
def test_template_error_has_line_and_text(source: str, line: int, name: str, expected: str) -> None:
    [found] = check_template(source, html=True)
    assert found[:2] == (line, name)
    assert expected in found[2]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join))
def test_every_invalid_template_has_an_error(source: str) -> None:
    error = explain_syntax_error(source)
    try:
        Template(source)
    except TemplateSyntaxError:
        assert error is not None
        line, name, text = error
        assert 1 <= line <= source.count("\n") + 1
        assert name
        assert text
    else:
        assert error is None
