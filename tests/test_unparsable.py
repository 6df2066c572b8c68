"""Whatever is wrong with a template is said with its line, what stands there, and what was probably meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.check_template import problems
from domain.template import Template, Unparsable
from domain.unparsable import explain

PIECES = ("{{", "}}", "{%", "%}", " if ", " endif ", " for x in products ", "endfor", " comment ", "raw", "endraw",
          "case", " when 1 ", "else", "include 'y'", "first_name", " | ", "default: ''", "'", "\n", "<p>", "-",
          "liquid", "=", "(")


@pytest.mark.parametrize(("source", "line", "name", "said"), [
    ("a\n{{ x | }}", 2, "x", "{{ x | }}: expected word"),
    ("<p>\n{{ x", 2, "x", "{{ x: expected '}}'"),
    ("<p>\n{{ cart.count } things: {{ cart.value | money }}", 2, "cart.count",
     "{{ cart.count } is never closed: }} is missing"),
    ("{% if first_name }x{% endif %}", 1, "if", "{% if first_name } is never closed: %} is missing"),
    ("{{ }}", 1, "{{", "{{ }}: expected a primitive expression"),
    ("\n{% for x %}{% endfor %}", 2, "for", "{% for x %}: expected in"),
    ("{% if a = b %}{% endif %}", 1, "if", 'found \'=\'; did you mean "=="?'),
    ("{% if x %}\n{% elseif y %}{% endif %}", 2, "elseif", 'there is no tag "elseif"; did you mean "elsif"?'),
    ("{% date %}", 1, "date", 'there is no tag "date"; there are assign, break'),
    ("{% liquid\nfoo %}", 2, "foo", 'there is no tag "foo"'),
    ("x\n{% endif %}", 2, "endif", 'the tag "endif" belongs to nothing that is open here'),
    ("{% render 'x' %}", 1, "render", 'the tag "render" is not allowed here'),
    ("{% if x %}\n{% for y in z %}\n{% else %}", 2, "for", "{% for y in z %} is never closed: {% endfor %} is missing"),
    ("{% comment %}{% if %}{% endcomment %}\n{% if x %}", 2, "if", "{% if x %} is never closed"),
    ("{% if x %}" * 25 + "{% endif %}" * 25, 1, "if", "{% if x %}: block nesting limit reached"),
    ("\n{{ " + "(" * 3_000 + "}}", 2, "{{", "…: "),
    # what can be parsed, and says what there is not
    ("\n{{ prodct.name }}", 2, "prodct", 'did you mean "product"?'),
    ("{{ product.nmae }}", 1, "product.nmae", 'did you mean "name"?'),
    ("\n{% for one in cart.items %}{{ one.url }}{% endfor %}", 2, "one.url", "there are id, name"),
    ("{{ first_name | upcas }}", 1, "upcas", 'did you mean "upcase"?'),
    ("{% increment x %}", 1, "increment", "is not allowed here; there are assign"),
    ("<p>\n<script></script>", 2, "<script>", "is not allowed; there are a, img"),
    ("<blockqoute>", 1, "<blockqoute>", 'did you mean "blockquote"?'),
    ("<p onclick='x'>", 1, "<p onclick>", "<p> has no attributes here"),
    ("<img srcset='/x'>", 1, "<img srcset>", "is not allowed; there are alt, height, src and width"),
    ("<a href='javascript:x'>", 1, "<a href>", "should be a path, or begin with https:// or http://"),
])
def test_a_mistake_in_a_template_has_its_line_and_what_stands_there(
        source: str, line: int, name: str, said: str) -> None:
    [found] = problems(source, html=True)
    assert found[:2] == (line, name)
    assert said in found[2]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_every_template_is_liquid_or_has_something_said_of_it(source: str) -> None:
    wrong = explain(source)
    try:
        Template(source)
    except Unparsable:
        assert wrong is not None
        line, name, text = wrong
        assert 1 <= line <= source.count("\n") + 1
        assert name
        assert text
    else:
        assert wrong is None
