"""What a template can cost is bounded, whatever stands in it: to parse it, to check it, and to make words with it."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liquid import Environment
from liquid.lex import get_lexer

from domain.playbook.template import LIQUID_FILTERS, Price, Template, TemplateSyntaxError
from domain.playbook.template_sandbox import (
    CHARACTERS_PER_STEP,
    FILTER_COST,
    MAX_BLANKS,
    MAX_BODY_COST,
    MAX_TOKENS_LENGTH,
    CostContext,
    TokenError,
    tokens,
)
from domain.validation.campaigns import unguarded_variables
from domain.validation.templates import check_template
from tests.harness.support import examples

SIZE = 256 * 1024
"""The largest file that is read."""


def repeat_to_size(text: str) -> str:
    return text * (SIZE // len(text))


@pytest.mark.parametrize(
    ("source", "line", "expected"),
    [
        ("x\n" + repeat_to_size("{{"), 2, "expected '}}', found end of file"),
        ("x\n" + repeat_to_size("{%"), 2, "expected '%}', found end of file"),
        ("x\n" + repeat_to_size("{% a "), 2, "expected '%}', found end of file"),
        ("{{ a }}\n" * 9 + repeat_to_size("{{ b "), 10, "expected '}}', found end of file"),
        ("\n\n" + repeat_to_size("{% raw %}"), 3, "{% raw %}: expected '{% endraw %}', found end of file"),
        ("{% if a %}\n{% else" + " " * SIZE + "%}{% endif %}", 2, "{% else %}: longer than 2,000 characters"),
        ("\n{{" + " " * SIZE + "}}", 2, "longer than 2,000 characters"),
        ("\n{{" + " " * (MAX_BLANKS + 1) + "}}", 2, "more than 200 blanks in a row"),
        ("\n{{ a" + "[a" * 21 + "]" * 21 + " }}", 2, "more than 20 brackets"),
        ("\n{% " + "a" * SIZE, 2, "expected '%}', found end of file"),
        ("{{ a" + repeat_to_size("['a") + " }}", 1, "longer than 2,000 characters"),
        ("{{ a" + repeat_to_size(" | upcase") + " }}", 1, "longer than 2,000 characters"),
        ("{% if a" + repeat_to_size(" and a") + " %}{% endif %}", 1, "longer than 2,000 characters"),
        (repeat_to_size("{{a}}"), 1, "{{a}}: the tags and variables up to here have more than 32,000 characters"),
        ("{% if a %}" + repeat_to_size("{% elsif a %}") + "{% endif %}", 1, "have more than 32,000 characters"),
        ("{% for a in b %}" * 25 + "{% endfor %}" * 25, 1, "block nesting limit reached"),
        ("{% liquid\n" + "if a\n" * 25 + "endif\n" * 25 + "%}", 22, "block nesting limit reached"),
    ],
)
def test_hostile_template_is_rejected_early(source: str, line: int, expected: str) -> None:
    [found] = check_template(source, html=True)
    assert found[0] == line
    assert expected in found[2]
    assert len(found[2]) < 200
    unguarded_variables(source)


def test_raw_blocks_may_contain_anything() -> None:
    source = "{% raw %}" + repeat_to_size("{{a") + "{% endraw %}"
    assert check_template(source, html=True) == []
    assert unguarded_variables(source) == []
    assert Template("{% raw %}{{ x{% endraw %}").render({}) == "{{ x"


@pytest.mark.parametrize(
    "source",
    [
        "{{ a" + " | upcase" * 210 + " }}",
        "{{" + " " * MAX_BLANKS + "}}",
        ("{% if a %}{% else" + " " * MAX_BLANKS + "%}{% endif %}") * 130,
        ("{{ " + " \n." * 498 + "}}") * 20,
        ("{{ a" + "['a" * 20 + " }}") * 400,
        ("{{ a" + "(" * 1_900 + "1..2 }}") * 16,
        "{{a}}" * (MAX_TOKENS_LENGTH // 5),
        "{% if a %}" + "{% elsif a %}" * 2_400 + "{% endif %}",
        "{% if a" + " and a" * 300 + " %}{% endif %}",
        ("{{ a" + "[a" * 20 + "]" * 20 + " }}") * 400,
    ],
)
def test_templates_at_the_limit_are_parsed_or_reported(source: str) -> None:
    check_template(source, html=True)
    assert list(tokens(source))[-1][1] == len(source)


def test_template_length_error_has_a_position() -> None:
    assert Template("{{a}}" * (MAX_TOKENS_LENGTH // 5)).variables == ("a",)
    with pytest.raises(TemplateSyntaxError, match="more than 32,000 characters") as wrong:
        Template("{{a}}" * (MAX_TOKENS_LENGTH // 5 + 1))
    assert wrong.value.offset == MAX_TOKENS_LENGTH


TEMPLATE_PARTS = (
    "{{",
    "}}",
    "{%",
    "%}",
    " raw ",
    "endraw",
    " doc ",
    " if a ",
    "-",
    " ",
    "\n",
    "x",
    "{",
    "}",
    "%",
    "comment",
    "|",
)


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(TEMPLATE_PARTS), max_size=16).map("".join))
def test_tokens_match_the_parser(source: str) -> None:
    try:
        ours = [start for start, _ in tokens(source)]
    except TokenError:
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
def test_unclosed_html_is_rejected_early(text: str) -> None:
    [found] = check_template("<p>\n" + repeat_to_size(text), html=True)
    assert found[0] == 2
    assert "and more than 200 others are comments, or are never closed" in found[2]


@pytest.mark.parametrize("text", ["<a b='>", "<a b=\"'>", "<p></p>", "<script>", "<p>&", "a < b ", "<b>" * 3 + "<a "])
def test_closed_html_is_parsed(text: str) -> None:
    check_template("<!-- ours -->" * 100 + text * (20_000 // len(text)), html=True)


# -- rendering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
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
        (
            "{% assign p = x | split: ',' %}{% assign p = p | concat: p | concat: p | concat: p %}{{ p }}",
            "value is limited to 60,000",
        ),
        ("{{ x | append: x | append: x | append: x | append: x }}", "value is limited to 60,000"),
        ("{% assign n = 99 %}" + "{% assign n = n | times: n %}" * 20, "number is limited to 300 digits"),
        ("{{ x }}{{ x }}{{ x }}{{ x }}", "output stream limit"),
    ],
)
def test_rendered_content_is_bounded(source: str, expected: str) -> None:
    """Rounds of loops, ranges, texts, lists, numbers, and what is written."""
    with pytest.raises(ValueError, match=expected):
        Template(source, html=True).render({"x": "a" * 20_000})


def in_loop(body: str) -> str:
    return "{% for i in (1..2000) %}" + body + "{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        in_loop("{% if i > 1 %}{% endif %}" * 9),
        in_loop("{% assign y = i" + " | plus: 1" * 9 + " %}"),
        in_loop("{% if 1" + " and 1" * 30 + " %}{% endif %}"),
        in_loop("{% if nobody" + ".x" * 30 + " %}{% endif %}"),
        in_loop("{% capture y %}{{ i }}{% endcapture %}" * 3),
        in_loop("{% case i %}{% when " + "0, " * 20 + "0 %}{% endcase %}"),
        in_loop("{% if x == y %}{% endif %}"),
        in_loop("{% if false %}{% elsif i > 0 %}" + "{% assign y = 1 %}" * 9 + "{% endif %}"),
        in_loop("{% if i == 0 %}{% else %}" + "{% assign y = 1 %}" * 9 + "{% endif %}"),
        in_loop("{% unless i == 0 %}" + "{% cycle 1, 2 %}" * 9 + "{% endunless %}"),
        in_loop("{% liquid\n" + "assign y = 1\n" * 9 + "%}"),
        in_loop("{% capture y %}" + "a" * 400 + "{% endcapture %}"),
        "{% for i in (1..1000) %}{% for j in (1..2000) limit: 1 %}{% endfor %}{% endfor %}",
        "{% case 1 %}{% when 1"
        + ", 1" * 99
        + " %}"
        + "{% case 1 %}{% when 1"
        + ", 1" * 99
        + " %}"
        + "{% assign y = 1 %}"
        + "{% endcase %}{% endcase %}",
        "{% assign y = x | split: '' | uniq %}",
        "{% assign y = x | replace: 'a', '<a b ' | strip_html %}",
        in_loop("{% if (1..2000) contains 'a' %}{% endif %}"),
        in_loop("{% assign y = traits | truncate: 9 %}"),
        "{% capture y %}{{ x }}{% endcapture %}" * 200,
    ],
)
def test_rendering_cost_is_bounded(source: str) -> None:
    traits = {f"t{n}": "a" * 200 for n in range(20)}
    with pytest.raises(ValueError, match="it takes more than 30,000 steps to make"):
        Template(source, html=True).render({"x": "a" * 2_000, "y": "b" * 2_000, "traits": traits})


FILTER_ARGUMENTS = {
    **dict.fromkeys(
        (
            "append",
            "prepend",
            "join",
            "map",
            "reject",
            "split",
            "remove",
            "remove_first",
            "remove_last",
            "where",
            "has",
            "times",
            "divided_by",
            "modulo",
            "at_least",
            "at_most",
            "minus",
            "plus",
        ),
        ": '1'",
    ),
    **dict.fromkeys(("replace", "replace_first", "replace_last", "find", "find_index"), ": '1', '2'"),
    **dict.fromkeys(("slice", "truncate", "truncatewords"), ": 1"),
    "concat": ": few",
}
NUMBER_FILTERS = (
    "times",
    "divided_by",
    "modulo",
    "at_least",
    "at_most",
    "minus",
    "plus",
    "abs",
    "ceil",
    "floor",
    "round",
    "money",
)


@pytest.mark.parametrize("name", sorted(LIQUID_FILTERS))
def test_filter_cost_grows_with_its_input(name: str) -> None:
    few, many = ("7", "7" * 600) if name in NUMBER_FILTERS else (["1"], ["1"] * 2_000)
    source = f"{{% assign y = x | {name}{FILTER_ARGUMENTS.get(name, '')} %}}"
    assert render_cost(in_loop(source), {"x": few, "few": few}) >= 2_000 * FILTER_COST
    less = render_cost(source, {"x": few, "few": few})
    assert render_cost(source, {"x": many, "few": few}) >= less + 600 // CHARACTERS_PER_STEP


def render_cost(source: str, values: dict[str, object]) -> int:
    """What it costs, at most a little more than it may."""
    found = list[CostContext]()

    class Seen(CostContext):
        def __init__(self, *args: Any, **words: Any) -> None:
            super().__init__(*args, **words)
            found.append(self)

    template = Template(source, html=True)
    assert template._parsed is not None
    template._parsed.context_class = Seen
    with suppress(ValueError):
        template.render(values)
    return found[0].cost


def test_one_line_text_has_a_lower_cost_limit() -> None:
    source = in_loop("{% if i > 1 %}{{ i }}{% endif %}")
    assert Template(source, html=True).render({}).endswith("19992000")
    with pytest.raises(ValueError, match="it takes more than 5,000 steps to make"):
        Template(source).render({})


def test_full_cart_costs_a_quarter_of_the_limit() -> None:
    source = (
        "{% for one in cart.items %}<tr><td>{{ one.name }}</td><td>{{ one.quantity }}</td>"
        "<td>{{ one.price | money }}</td><td>"
        "{% if one.category %}{{ one.category }}{% else %}-{% endif %}</td></tr>{% endfor %}"
    )
    item = {"name": "A mug of some kind", "category": "mugs", "price": Price("9.50"), "quantity": 2}
    assert 4_000 < render_cost(source, {"cart": {"items": [item] * 100}}) < MAX_BODY_COST // 4


def test_ranges_in_conditions_are_bounded() -> None:
    for source in (
        "{% if (1..9999999) contains 'a' %}{% endif %}",
        "{% assign r = (1..9999999) %}{% if r contains 'a' %}{% endif %}",
    ):
        with pytest.raises(ValueError, match="range is limited to 2,000"):
            Template(source).render({})
    assert Template("{% if (1..9) contains 3 %}yes{% endif %}").render({}) == "yes"


def test_template_variables_are_bounded() -> None:
    assert Template("{% assign y = x %}" * 20, html=True).render({"x": "a" * 9_000}) == ""
    with pytest.raises(ValueError, match="local namespace limit"):
        Template("".join(f"{{% assign y{n} = x %}}" for n in range(20)), html=True).render({"x": "a" * 9_000})


def test_huge_amount_is_not_expanded() -> None:
    assert Template("{{ x | money }}").render({"x": "1e999999999"}) == "1e999999999"
    assert Template("{{ x | money }}").render({"x": "1e6"}) == "€1,000,000.00"


def test_ordinary_templates_are_within_the_limits() -> None:
    source = (
        "{% for i in (1..3) %}{{ i }}{% endfor %}{{ x | replace: 'a', 'bc' | split: 'c' | join: '-' }}"
        "{{ 2 | times: 3 }}"
    )
    assert Template(source).render({"x": "aa"}) == "123b-b-6"
