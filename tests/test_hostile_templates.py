"""What a template can cost is bounded, whatever stands in it: to parse it, to check it, and to make words with it."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liquid import Environment
from liquid.lex import get_lexer

from domain.check_template import problems
from domain.check_words import printed
from domain.pieces import BLANKS, MOST, Refused, pieces
from domain.render_work import CHARACTERS, FILTER, STEPS, Context
from domain.template import FILTERS, Price, Template, Unparsable
from tests.support import examples

SIZE = 256 * 1024
"""The largest file that is read."""


def filled(text: str) -> str:
    return text * (SIZE // len(text))


@pytest.mark.parametrize(("source", "line", "said"), [
    ("x\n" + filled("{{"), 2, "expected '}}', found end of file"),
    ("x\n" + filled("{%"), 2, "expected '%}', found end of file"),
    ("x\n" + filled("{% a "), 2, "expected '%}', found end of file"),
    ("{{ a }}\n" * 9 + filled("{{ b "), 10, "expected '}}', found end of file"),
    ("\n\n" + filled("{% raw %}"), 3, "{% raw %}: expected '{% endraw %}', found end of file"),
    ("{% if a %}\n{% else" + " " * SIZE + "%}{% endif %}", 2, "{% else %}: longer than 2,000 characters"),
    ("\n{{" + " " * SIZE + "}}", 2, "longer than 2,000 characters"),
    ("\n{{" + " " * (BLANKS + 1) + "}}", 2, "more than 200 blanks in a row"),
    ("\n{{ a" + "[a" * 21 + "]" * 21 + " }}", 2, "more than 20 brackets"),
    ("\n{% " + "a" * SIZE, 2, "expected '%}', found end of file"),
    ("{{ a" + filled("['a") + " }}", 1, "longer than 2,000 characters"),
    ("{{ a" + filled(" | upcase") + " }}", 1, "longer than 2,000 characters"),
    ("{% if a" + filled(" and a") + " %}{% endif %}", 1, "longer than 2,000 characters"),
    (filled("{{a}}"), 1, "{{a}}: the tags and variables up to here have more than 32,000 characters"),
    ("{% if a %}" + filled("{% elsif a %}") + "{% endif %}", 1, "have more than 32,000 characters"),
    ("{% for a in b %}" * 25 + "{% endfor %}" * 25, 1, "block nesting limit reached"),
    ("{% liquid\n" + "if a\n" * 25 + "endif\n" * 25 + "%}", 22, "block nesting limit reached"),
])
def test_what_no_one_would_write_is_refused_before_it_costs_time(source: str, line: int, said: str) -> None:
    [found] = problems(source, html=True)
    assert found[0] == line
    assert said in found[2]
    assert len(found[2]) < 200
    printed(source)


def test_what_is_written_verbatim_may_look_like_anything() -> None:
    source = "{% raw %}" + filled("{{a") + "{% endraw %}"
    assert problems(source, html=True) == []
    assert printed(source) == []
    assert Template("{% raw %}{{ x{% endraw %}").render({}) == "{{ x"


@pytest.mark.parametrize("source", [
    "{{ a" + " | upcase" * 210 + " }}",
    "{{" + " " * BLANKS + "}}",
    ("{% if a %}{% else" + " " * BLANKS + "%}{% endif %}") * 130,
    ("{{ " + " \n." * 498 + "}}") * 20,
    ("{{ a" + "['a" * 20 + " }}") * 400,
    ("{{ a" + "(" * 1_900 + "1..2 }}") * 16,
    "{{a}}" * (MOST // 5),
    "{% if a %}" + "{% elsif a %}" * 2_400 + "{% endif %}",
    "{% if a" + " and a" * 300 + " %}{% endif %}",
    ("{{ a" + "[a" * 20 + "]" * 20 + " }}") * 400,
])
def test_what_is_just_allowed_is_read_or_has_something_said_of_it(source: str) -> None:
    problems(source, html=True)
    assert list(pieces(source))[-1][1] == len(source)


def test_a_template_is_refused_at_the_tag_that_is_too_much() -> None:
    assert Template("{{a}}" * (MOST // 5)).roots == ("a",)
    with pytest.raises(Unparsable, match="more than 32,000 characters") as wrong:
        Template("{{a}}" * (MOST // 5 + 1))
    assert wrong.value.index == MOST


PARTS = ("{{", "}}", "{%", "%}", " raw ", "endraw", " doc ", " if a ", "-", " ", "\n", "x", "{", "}", "%", "comment",
         "|")


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(PARTS), max_size=16).map("".join))
def test_the_pieces_are_those_that_are_parsed(source: str) -> None:
    try:
        ours = [start for start, _ in pieces(source)]
    except Refused:
        ours = []
    if ours and Environment().tokenizer() is get_lexer():
        try:
            theirs = [token.start_index for token in get_lexer()(source) if token.kind == "output"]
        except Exception:  # noqa: BLE001 - it says in its own ways that it is no Liquid
            return
        if "comment" not in source:  # what stands in comments is no piece for them
            assert set(theirs) <= set(ours)
            assert len(theirs) == sum(source.startswith("{{", start) for start in ours)


@pytest.mark.parametrize("text", ["<a ", "<!--", "<!-->", "<a b='", "<![CDATA[", "<![CDATA[>", "</", "<?", "<!x>"])
def test_html_without_an_end_is_refused_before_it_costs_time(text: str) -> None:
    [found] = problems("<p>\n" + filled(text), html=True)
    assert found[0] == 2
    assert "and more than 200 others are comments, or are never closed" in found[2]


@pytest.mark.parametrize("text", ["<a b='>", '<a b="\'>', "<p></p>", "<script>", "<p>&", "a < b ", "<b>" * 3 + "<a "])
def test_html_that_has_ends_is_read(text: str) -> None:
    problems("<!-- ours -->" * 100 + text * (20_000 // len(text)), html=True)


# -- rendering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "said"), [
    ("{% for i in (1..999999999) %}x{% endfor %}", "range is limited to 2,000"),
    ("{% for i in (1..999999999) reversed limit: 1 %}x{% endfor %}", "range is limited to 2,000"),
    ("{% for i in (1..999999999) offset: 999999990 %}x{% endfor %}", "range is limited to 2,000"),
    ("{% for i in (1..x.size) reversed %}x{% endfor %}", "range is limited to 2,000"),
    ("{{ (1..999999999) | join }}", "range is limited to 2,000"),
    ("{{ (1..999999999) | sum }}", "range is limited to 2,000"),
    ("{% assign r = (1..999999999) %}{% for i in r reversed %}{% endfor %}", "range is limited to 2,000"),
    ("{% for i in (1..1500) %}{% endfor %}{% for i in (1..501) %}{% endfor %}", "loop iteration limit"),
    ("{% for i in (1..50) %}{% for j in (1..50) %}{% endfor %}{% endfor %}", "loop iteration limit"),
    ("{{ x | replace: 'a', x }}", "value is limited to 60,000"),
    ("{{ x | replace: '', x }}", "value is limited to 60,000"),
    ("{{ x | slice: 0, 2000 | split: '' | join: x }}", "value is limited to 60,000"),
    ("{% assign p = x | split: ',' %}{% assign p = p | concat: p | concat: p | concat: p %}{{ p }}",
     "value is limited to 60,000"),
    ("{{ x | append: x | append: x | append: x | append: x }}", "value is limited to 60,000"),
    ("{% assign n = 99 %}" + "{% assign n = n | times: n %}" * 20, "number is limited to 300 digits"),
    ("{{ x }}{{ x }}{{ x }}{{ x }}", "output stream limit"),
])
def test_what_words_are_made_of_is_bounded(source: str, said: str) -> None:
    """Rounds of loops, ranges, texts, lists, numbers, and what is written."""
    with pytest.raises(ValueError, match=said):
        Template(source, html=True).render({"x": "a" * 20_000})


def often(body: str) -> str:
    return "{% for i in (1..2000) %}" + body + "{% endfor %}"


@pytest.mark.parametrize("source", [
    often("{% if i > 1 %}{% endif %}" * 9),
    often("{% assign y = i" + " | plus: 1" * 9 + " %}"),
    often("{% if 1" + " and 1" * 30 + " %}{% endif %}"),
    often("{% if nobody" + ".x" * 30 + " %}{% endif %}"),
    often("{% capture y %}{{ i }}{% endcapture %}" * 3),
    often("{% case i %}{% when " + "0, " * 20 + "0 %}{% endcase %}"),
    often("{% if x == y %}{% endif %}"),
    often("{% if false %}{% elsif i > 0 %}" + "{% assign y = 1 %}" * 9 + "{% endif %}"),
    often("{% if i == 0 %}{% else %}" + "{% assign y = 1 %}" * 9 + "{% endif %}"),
    often("{% unless i == 0 %}" + "{% cycle 1, 2 %}" * 9 + "{% endunless %}"),
    often("{% liquid\n" + "assign y = 1\n" * 9 + "%}"),
    often("{% capture y %}" + "a" * 400 + "{% endcapture %}"),
    "{% for i in (1..1000) %}{% for j in (1..2000) limit: 1 %}{% endfor %}{% endfor %}",
    "{% case 1 %}{% when 1" + ", 1" * 99 + " %}" + "{% case 1 %}{% when 1" + ", 1" * 99 + " %}"
    + "{% assign y = 1 %}" + "{% endcase %}{% endcase %}",
    "{% assign y = x | split: '' | uniq %}",
    "{% assign y = x | replace: 'a', '<a b ' | strip_html %}",
    often("{% if (1..2000) contains 'a' %}{% endif %}"),
    often("{% assign y = traits | truncate: 9 %}"),
    "{% capture y %}{{ x }}{% endcapture %}" * 200,
])
def test_what_words_cost_to_make_is_bounded_whatever_it_is_that_costs(source: str) -> None:
    traits = {f"t{n}": "a" * 200 for n in range(20)}
    with pytest.raises(ValueError, match="it takes more than 30,000 steps to make"):
        Template(source, html=True).render({"x": "a" * 2_000, "y": "b" * 2_000, "traits": traits})


GIVEN = {
    **dict.fromkeys(("append", "prepend", "join", "map", "reject", "split", "remove", "remove_first", "remove_last",
                     "where", "has", "times", "divided_by", "modulo", "at_least", "at_most", "minus", "plus"), ": '1'"),
    **dict.fromkeys(("replace", "replace_first", "replace_last", "find", "find_index"), ": '1', '2'"),
    **dict.fromkeys(("slice", "truncate", "truncatewords"), ": 1"), "concat": ": few"}
NUMBERS = ("times", "divided_by", "modulo", "at_least", "at_most", "minus", "plus", "abs", "ceil", "floor", "round",
           "money")


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_a_filter_costs_whatever_it_is_and_more_the_more_it_is_given(name: str) -> None:
    few, many = ("7", "7" * 600) if name in NUMBERS else (["1"], ["1"] * 2_000)
    source = f"{{% assign y = x | {name}{GIVEN.get(name, '')} %}}"
    assert steps(often(source), {"x": few, "few": few}) >= 2_000 * FILTER
    less = steps(source, {"x": few, "few": few})
    assert steps(source, {"x": many, "few": few}) >= less + 600 // CHARACTERS


def steps(source: str, values: dict[str, object]) -> int:
    """What it costs, at most a little more than it may."""
    found = list[Context]()

    class Seen(Context):
        def __init__(self, *args: Any, **words: Any) -> None:
            super().__init__(*args, **words)
            found.append(self)

    template = Template(source, html=True)
    assert template._parsed is not None
    template._parsed.context_class = Seen
    with suppress(ValueError):
        template.render(values)
    return found[0].steps


def test_a_line_may_cost_less_than_a_text() -> None:
    source = often("{% if i > 1 %}{{ i }}{% endif %}")
    assert Template(source, html=True).render({}).endswith("19992000")
    with pytest.raises(ValueError, match="it takes more than 5,000 steps to make"):
        Template(source).render({})


def test_a_full_cart_told_of_line_by_line_costs_a_quarter_of_what_it_may() -> None:
    source = ("{% for one in cart.items %}<tr><td>{{ one.name }}</td><td>{{ one.quantity }}</td>"
              "<td>{{ one.price | money }}</td><td>"
              "{% if one.category %}{{ one.category }}{% else %}-{% endif %}</td></tr>{% endfor %}")
    item = {"name": "A mug of some kind", "category": "mugs", "price": Price("9.50"), "quantity": 2}
    assert 4_000 < steps(source, {"cart": {"items": [item] * 100}}) < STEPS // 4


def test_ranges_in_conditions_are_bounded() -> None:
    for source in ("{% if (1..9999999) contains 'a' %}{% endif %}",
                   "{% assign r = (1..9999999) %}{% if r contains 'a' %}{% endif %}"):
        with pytest.raises(ValueError, match="range is limited to 2,000"):
            Template(source).render({})
    assert Template("{% if (1..9) contains 3 %}yes{% endif %}").render({}) == "yes"


def test_what_is_kept_in_variables_is_bounded_and_what_takes_its_place_is_not_counted_twice() -> None:
    assert Template("{% assign y = x %}" * 20, html=True).render({"x": "a" * 9_000}) == ""
    with pytest.raises(ValueError, match="local namespace limit"):
        Template("".join(f"{{% assign y{n} = x %}}" for n in range(20)), html=True).render({"x": "a" * 9_000})


def test_an_amount_from_outside_is_no_long_text() -> None:
    assert Template("{{ x | money }}").render({"x": "1e999999999"}) == "1e999999999"
    assert Template("{{ x | money }}").render({"x": "1e6"}) == "€1,000,000.00"


def test_what_people_write_is_within_the_limits() -> None:
    source = ("{% for i in (1..3) %}{{ i }}{% endfor %}{{ x | replace: 'a', 'bc' | split: 'c' | join: '-' }}"
              "{{ 2 | times: 3 }}")
    assert Template(source).render({"x": "aa"}) == "123b-b-6"
