"""What a coupon is good for: nobody is told that it goes for something else, or for less than it asks for."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.action import Arm, Hold, Send
from domain.check import findings
from domain.shop import Shop
from tests.visitor import Visitor, playbook

LAMP = {"product_id": "lamp", "name": "Arco lamp", "price": 120, "category": "Light", "url": "/lamp"}
POT = {"product_id": "pot", "name": "Moka pot", "price": 38, "category": "Kitchen", "url": "/pot"}


def visitor(trigger: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **words: str) -> Visitor:
    """Somebody in a shop whose one campaign promises a coupon for the lamp."""
    return Visitor(playbook(
        campaigns={"offer": {
            "format": "popup" if "exit_intent" in (trigger or {}) else "bar", "coupon": "ten",
            "limits": {"per_session": 9}, "trigger": trigger or {"event": "Product Viewed"},
            "content": {"default": words or {"title": "10 % off {{ product.name }}"}}}},
        coupons=[{"name": "ten", "size": 100_000, **(pool or {"percent": 10, "products": ["lamp"]})}]))


def said(found: list[Any]) -> list[str]:
    """Titles, and reasons of silence; that the first code is fetched is none."""
    told = [one.content.title if isinstance(one, (Send, Arm)) else one.because.reason for one in found
            if isinstance(one, (Send, Arm, Hold))]
    return [one for one in told if one != "coupon_pending"]


def test_a_coupon_is_not_spoken_of_because_of_a_product_that_it_does_not_cover() -> None:
    ann = visitor()
    ann.does(0, "Page Viewed")
    held = [one for one in ann.does(1, "Product Viewed", **POT) if isinstance(one, Hold)]
    assert [(one.because.reason, one.because.detail) for one in held] == [
        ("coupon_products", "of ten, not good for pot")]
    assert ann.person.coupons == [], "nor is one reserved"
    assert said(ann.does(2, "Product Viewed", **LAMP)) == ["10 % off Arco lamp"]


def test_a_coupon_for_everything_is_spoken_of_on_every_occasion() -> None:
    ann = visitor(pool={"percent": 10})
    assert said(ann.does(0, "Product Viewed", **POT)) == ["10 % off Moka pot"]


@pytest.mark.parametrize(("event", "properties", "told"), [
    ("Product Clicked", {"sku": "pot"}, "coupon_products"),
    ("Product Added", {**POT, "quantity": 1}, "coupon_products"),
    ("Cart Viewed", {"products": [{**POT, "quantity": 1}]}, "coupon_products"),
    ("Cart Viewed", {"products": [{**POT, "quantity": 1}, {**LAMP, "quantity": 1}]}, "10 %"),
    ("Order Completed", {"order_id": "o1", "products": [{**POT, "quantity": 1}]}, "10 %"),
    ("Page Viewed", {}, "10 %"),
])
def test_what_an_occasion_is_about(event: str, properties: dict[str, Any], told: str) -> None:
    """An order is past: the coupon is for the next one. Where no product is named, nothing is said of one."""
    ann = visitor({"event": event}, title="10 %")
    ann.does(0, "Products Searched", query="lamp")
    assert said(ann.does(1, event, **properties)) == [told]


def test_what_is_in_the_cart_counts_where_the_occasion_names_nothing() -> None:
    ann = visitor({"event": "Checkout Started"}, title="10 %")
    ann.does(0, "Product Added", **POT, quantity=1)
    assert said(ann.does(1, "Checkout Started")) == ["coupon_products"]
    ann.does(2, "Product Added", **LAMP, quantity=1)
    assert said(ann.does(3, "Checkout Started")) == ["10 %"]


FROM_FORTY = {"amount": 5, "min_value": 40}


def test_a_coupon_from_a_value_is_not_promised_for_less() -> None:
    ann = visitor(pool=FROM_FORTY, title="5 euros off")
    held = [one for one in ann.does(0, "Product Viewed", **POT) if isinstance(one, Hold)]
    assert [(one.because.reason, one.because.detail) for one in held] == [
        ("coupon_min_value", "of ten, from 40.00; this would be 38.00")]
    ann.does(1, "Product Added", **{**POT, "product_id": "cup", "price": 2}, quantity=1)
    assert said(ann.does(2, "Product Viewed", **POT)) == ["5 euros off"], "together with the cart it is worth enough"


@pytest.mark.parametrize(("more", "words"), [
    ({}, {"title": "5 euros off, from {{ coupon.min_value | money }}"}),
    ({"price": None}, {"title": "5 euros off"}),
    ({"price": 38, "currency": "XTS"}, {"title": "5 euros off"}),
])
def test_words_that_say_from_what_value_are_true_for_everybody(more: dict[str, Any], words: Any) -> None:
    """And where nobody knows a price, nobody can say that it is too low."""
    found = said(visitor(pool=FROM_FORTY, **words).does(0, "Product Viewed", **{**POT, **more}))
    assert [one[:11] for one in found] == ["5 euros off"]


def test_words_may_list_what_they_looked_at_and_the_coupon_is_good_for() -> None:
    ann = visitor({"exit_intent": True}, title="10 % off {{ coupon.products.first.name }}",
                  body="<p>{% for p in coupon.products %}{{ p.name }},{% endfor %}</p>",
                  url="{{ coupon.products.first.url }}")
    assert said(ann.does(0, "Product Viewed", **POT)) == []
    assert said(ann.does(1, "Exit Intent")) == ["missing coupon.products"]
    assert ann.person.coupons == [], "what cannot be said is not promised"
    [arm] = [one for one in ann.does(2, "Product Viewed", **LAMP) if isinstance(one, Arm)]
    content = arm.content
    assert (content.title, content.html, content.url) == ("10 % off Arco lamp", "<p>Arco lamp,</p>", "/lamp")
    assert said(ann.does(3, "Product Viewed", **POT)) == [], "what the coupon is not for changes nothing"
    assert said(ann.does(4, "Product Viewed", **{**LAMP, "name": "Arco"})) == ["10 % off Arco"]


def test_more_than_four_products_are_listed() -> None:
    ann = visitor({"event": "Page Viewed"}, title="{% for p in coupon.products %}{{ p.name }},{% endfor %}")
    ann.does(0, "Product Viewed", **LAMP)
    for n in range(6):
        ann.does(n + 1, "Product Viewed", **{**POT, "product_id": f"pot-{n}"})
    assert said(ann.does(9, "Page Viewed")) == ["Arco lamp,"], "what it is good for was looked at long before"


@pytest.mark.parametrize("pool", [{"percent": 10, "products": ["lamp"]}, {"percent": 10}])
def test_the_check_of_words_knows_what_a_coupon_is_good_for(pool: dict[str, Any]) -> None:
    ann = visitor(pool=pool, title="{{ coupon.products.first.name }}")
    found = findings(ann.context.rules.playbook)
    assert [one.text for one in found if one.path[:1] == ("content",)] == []


def test_what_cannot_be_said_is_not_promised_and_said_as_soon_as_it_can_be() -> None:
    ann = visitor({"event": "Page Viewed"}, {"percent": 10},
                  title="{{ first_name }}: {{ coupon }}, {{ coupon.expires }}")
    assert said(ann.does(0, "Page Viewed")) == ["missing first_name"]
    assert ann.person.coupons == []
    ann.does(1, "Identified", first_name="Ann")
    [told] = said(ann.does(2, "Page Viewed"))
    [coupon] = ann.person.coupons
    assert told.startswith(f"Ann: {coupon.code}, 20")


def test_another_playbook_tries_its_words_anew() -> None:
    ann = visitor({"event": "Page Viewed"}, {"percent": 10}, title="{{ shop.name }}: {{ coupon }}")
    assert said(ann.does(0, "Page Viewed")) == ["missing shop.name"]
    ann.swaps(replace(ann.context.rules.playbook, shop=Shop(name="Lume")))
    assert said(ann.does(1, "Page Viewed"))[0].startswith("Lume: ")
