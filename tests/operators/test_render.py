"""render: words for one person, safe whatever went in."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import RenderedContent
from domain.playbook.template import MissingVariable
from operators.render import content_fingerprint, prepare_content, render_content, sanitize_html
from state.person.model import Cart, CartItem, Order, Person, ProfileFragment, Session, Trait, ViewedProduct
from state.playbook.compiled import Rules, compile_rules
from tests.harness.person import T0, make_playbook
from tests.harness.support import examples


def rules_with(templates: dict[str, str] | None = None, **words: str) -> Rules:
    made = make_playbook(
        shop={"currency": "EUR", "name": "Bottega"},
        campaigns={"c": {"trigger": {"exit_intent": True}, "content": {"default": words}}},
    )
    return compile_rules(msgspec.structs.replace(made, templates=templates or {}))


def rendered(
    facts: ProfileFragment | None = None,
    cart: Cart | None = None,
    templates: dict[str, str] | None = None,
    **words: str,
) -> RenderedContent:
    rules = rules_with(templates, **words)
    session = Session("s", T0, T0, device="mobile")
    person = Person(id="a:x", fragments={"a:x": facts or ProfileFragment()}, cart=cart, session=session)
    return render_content(prepare_content(rules.campaigns["c"], "mobile", rules), person, person.own_fragment(), rules)


EVIL = '<img src=x onerror=alert(1)>"><script>alert(2)</script>'
EVIL_PRODUCT = ProfileFragment(
    viewed_products=[ViewedProduct("p", name=EVIL, price=1990, url="/p", image_url="https://i.example/p.jpg")]
)


def test_all_template_variables() -> None:
    facts = ProfileFragment(
        viewed_products=[
            ViewedProduct("a", "Mug", price=950, at=1),
            ViewedProduct("b", "Cup", "tea", "Tazza", 700, "/b", at=2),
        ],
        traits={"first_name": Trait(1, "Ann"), "plan": Trait(1, "gold")},
        country="CA",
        device="desktop",
        orders=[Order("o1", 5, 2_500, items=2)],
    )
    cart = Cart(items={"a": CartItem(2, 950, "Mug")})
    title = (
        "{{ product.id }} {{ product.name }} {{ product.category }} {{ product.brand }} "
        "{{ product.price | money }} {% for p in products %}{{ p.name }},{% endfor %} {{ first_name }} "
        "{{ traits.plan }} {{ country }} {{ device }} {{ shop.name }} {{ cart.count }} {{ cart.value | money }} "
        "{{ cart.items[0].name }} {{ order.id }} {{ order.value | money }} {{ order.items }} {{ coupon }}"
    )
    found = rendered(facts, cart, title=title, coupon="SPRING")
    assert found.title == ("b Cup tea Tazza €7.00 Cup,Mug, Ann gold CA mobile Bottega 2 €19.00 Mug o1 €25.00 2 SPRING")


def test_inserted_values_are_escaped() -> None:
    found = rendered(EVIL_PRODUCT, body="<p>{{ product.name }}</p>", title="{{ product.name }}")
    assert "<img" not in found.html
    assert "<script" not in found.html
    assert "&lt;img" in found.html
    assert found.title == EVIL, "plain text: whoever shows it sets it as text"


@pytest.mark.parametrize(
    "evil",
    [
        "<script>x</script>",
        "<img src=x onerror=y>",
        '<a href="javascript:x">y</a>',
        "<iframe src=//e></iframe>",
        "<svg/onload=x>",
        '<a href="//evil.example">y</a>',
        '<a href=" java\tscript:x">y</a>',
        "<style>*{}</style>",
        '<p style="position:fixed">y</p>',
        '<form action="/x"><input name="card"></form>',
        '<a href="data:text/html,x">y</a>',
        "<math><mi xlink:href='javascript:x'>",
        "<object data=x></object>",
        "<base href='//evil.example'>",
        "<meta http-equiv=refresh content=0>",
        "<!--<script>-->",
    ],
)
def test_sanitized_html_has_no_active_content(evil: str) -> None:
    found = sanitize_html(evil).lower()
    for bad in (
        "script",
        "onerror",
        "onload",
        "iframe",
        "style",
        "form",
        "input",
        "data:",
        "object",
        "base",
        "meta",
        "//evil",
        "svg",
        "math",
    ):
        assert bad not in found, found


@given(st.text(max_size=200) | st.text(alphabet="<>\"'&/= ajvscriptonerlhfimg:", max_size=80))
@settings(max_examples=examples(300), deadline=None)
def test_values_cannot_create_tags(value: str) -> None:
    facts = ProfileFragment(viewed_products=[ViewedProduct("p", name=value or "x")])
    html = rendered(facts, body='<p>{{ product.name }}</p><img src="/x" alt="{{ product.name }}">').html
    assert html.count("<") == 3, html


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "//evil.example/x", "data:text/html,x", "/a b", "\\\\evil", "ftp://x"]
)
@pytest.mark.parametrize("field", ["url", "image_url"])
def test_urls_from_values_must_be_a_path_or_http(url: str, field: str) -> None:
    facts = ProfileFragment(viewed_products=[ViewedProduct("p", url=url)])
    with pytest.raises(ValueError, match=f"{field}: should be a path"):
        rendered(facts, None, None, title="x", **{field: "{{ product.url }}"})


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("{{ first_name }}", "first_name"),
        ("{{ product.name }}", "product"),
        ("{{ cart.value | money }}", "cart"),
        ("{% for p in products %}{{ p.name }}{% endfor %}", "products"),
        ("{{ traits.plan }}", "traits"),
        ("{{ first_name | upcase }}", "first_name"),
    ],
)
def test_missing_value_is_an_error(source: str, missing: str) -> None:
    with pytest.raises(MissingVariable, match=missing):
        rendered(title=source)


def test_empty_value_counts_as_missing() -> None:
    with pytest.raises(MissingVariable, match=r"product\.name"):
        rendered(ProfileFragment(viewed_products=[ViewedProduct("p", name="", price=0)]), title="{{ product.name }}")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ first_name | default: 'you' }}", "you"),
        ("{% if first_name %}{{ first_name }}{% else %}all{% endif %}", "all"),
        ("{% unless products %}none{% endunless %}", "none"),
        ("{% if cart.value > 5 %}much{% else %}little{% endif %}", "little"),
    ],
)
def test_default_filter_replaces_a_missing_value(source: str, text: str) -> None:
    assert rendered(title=source).title == text


def test_foreign_amount_without_a_rate_is_missing() -> None:
    with pytest.raises(MissingVariable, match=r"product\.price"):
        rendered(
            ProfileFragment(viewed_products=[ViewedProduct("p", "X", price=900, currency="XTS")]),
            title="{{ product.price }}",
        )


def test_runaway_template_is_stopped() -> None:
    with pytest.raises(ValueError, match="limit"):
        rendered(title="{% for i in (1..1000000) %}x{% endfor %}")
    with pytest.raises(ValueError, match="more than 30,000 steps"):
        rendered(body="{% assign s = 'xxxxxxxxxx' %}{% for i in (1..30) %}{% assign s = s | append: s %}{% endfor %}")


def test_titles_are_one_line_of_bounded_length() -> None:
    assert rendered(title="a\n\t b").title == "a b"
    assert (
        len(
            rendered(
                ProfileFragment(searches=[], traits={"first_name": Trait(1, "x" * 256)}),
                title="{{ first_name }}{{ first_name }}",
            ).title
        )
        == 300
    )


def test_template_files_are_rendered() -> None:
    templates = {"a.liquid": "<p>{{ country }}</p>"}
    assert rendered(ProfileFragment(country="CA"), templates=templates, template="a.liquid").html == "<p>CA</p>"


@given(st.data())
@settings(max_examples=examples(100), deadline=None)
def test_content_fingerprint_changes_with_the_content(data: Any) -> None:
    rules = rules_with(
        title="{{ product.name | default: '-' }} {{ cart.count | default: 0 }} {{ first_name }}",
        body="<p>{% for p in products %}{{ p.price | default: 0 }} {% endfor %}</p>",
    )
    prepared = prepare_content(rules.campaigns["c"], "desktop", rules)

    def draw() -> Person:
        products = data.draw(
            st.lists(
                st.builds(
                    ViewedProduct,
                    product_id=st.sampled_from("pq"),
                    name=st.sampled_from(["Mug", "Cup"]),
                    price=st.sampled_from([100, 200]),
                ),
                min_size=1,
                max_size=3,
            )
        )
        return Person(
            id="a:x",
            fragments={
                "a:x": ProfileFragment(
                    viewed_products=products,
                    pages=data.draw(st.integers(0, 5)),
                    traits={
                        "first_name": Trait(data.draw(st.integers(0, 5)), data.draw(st.sampled_from(["Ann", "Bob"])))
                    },
                )
            },
            cart=data.draw(st.none() | st.builds(Cart, items=st.just({"p": CartItem(data.draw(st.integers(1, 2)))}))),
        )

    one, other = draw(), draw()
    same_key = content_fingerprint(prepared, one, one.own_fragment()) == content_fingerprint(
        prepared, other, other.own_fragment()
    )
    if render_content(prepared, one, one.own_fragment(), rules) != render_content(
        prepared, other, other.own_fragment(), rules
    ):
        assert not same_key


def test_templates_are_parsed_once_per_playbook() -> None:
    rules = rules_with(title="{{ country }}")
    rule = rules.campaigns["c"]
    assert prepare_content(rule, "mobile", rules) is prepare_content(rule, "tablet", rules), (
        "both are the default words"
    )
