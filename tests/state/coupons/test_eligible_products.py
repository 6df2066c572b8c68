"""What a coupon is good for: nobody is told that it goes for something else, or for less than it asks for."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.action import Preload, Send, Suppress
from domain.playbook.shop import Shop
from domain.validation.validate import validate
from tests.harness.person import PersonHarness, make_playbook

LAMP = {"product_id": "lamp", "name": "Arco lamp", "price": 120, "category": "Light", "url": "/lamp"}
POT = {"product_id": "pot", "name": "Moka pot", "price": 38, "category": "Kitchen", "url": "/pot"}


def person_for_coupon(
    trigger: dict[str, Any] | None = None, pool: dict[str, Any] | None = None, **words: str
) -> PersonHarness:
    """Somebody in a shop whose one campaign promises a coupon for the lamp."""
    return PersonHarness(
        make_playbook(
            campaigns={
                "offer": {
                    "format": "popup" if "exit_intent" in (trigger or {}) else "bar",
                    "coupon": "ten",
                    "frequency_caps": {"per_session": 9},
                    "trigger": trigger or {"event": "Product Viewed"},
                    "content": {"default": words or {"title": "10 % off {{ product.name }}"}},
                }
            },
            coupons=[{"name": "ten", "size": 100_000, **(pool or {"percent": 10, "products": ["lamp"]})}],
        )
    )


def titles_or_reasons(found: list[Any]) -> list[str]:
    """Titles, and reasons of silence; that the first code is fetched is none."""
    told = [
        one.content.title if isinstance(one, (Send, Preload)) else one.because.reason
        for one in found
        if isinstance(one, (Send, Preload, Suppress))
    ]
    return [one for one in told if one != "coupon_pending"]


def test_coupon_needs_a_covered_trigger_product() -> None:
    ann = person_for_coupon()
    ann.emit(0, "Page Viewed")
    held = [one for one in ann.emit(1, "Product Viewed", **POT) if isinstance(one, Suppress)]
    assert [(one.because.reason, one.because.detail) for one in held] == [
        ("coupon_product_not_covered", "ten does not cover pot")
    ]
    assert ann.person.coupons == [], "nor is one reserved"
    assert titles_or_reasons(ann.emit(2, "Product Viewed", **LAMP)) == ["10 % off Arco lamp"]


def test_unrestricted_coupon_covers_every_trigger() -> None:
    ann = person_for_coupon(pool={"percent": 10})
    assert titles_or_reasons(ann.emit(0, "Product Viewed", **POT)) == ["10 % off Moka pot"]


@pytest.mark.parametrize(
    ("event", "properties", "told"),
    [
        ("Product Clicked", {"sku": "pot"}, "coupon_product_not_covered"),
        ("Product Added", {**POT, "quantity": 1}, "coupon_product_not_covered"),
        ("Cart Viewed", {"products": [{**POT, "quantity": 1}]}, "coupon_product_not_covered"),
        ("Cart Viewed", {"products": [{**POT, "quantity": 1}, {**LAMP, "quantity": 1}]}, "10 %"),
        ("Order Completed", {"order_id": "o1", "products": [{**POT, "quantity": 1}]}, "10 %"),
        ("Page Viewed", {}, "10 %"),
    ],
)
def test_products_of_a_trigger(event: str, properties: dict[str, Any], told: str) -> None:
    """An order is past: the coupon is for the next one. Where no product is named, nothing is said of one."""
    ann = person_for_coupon({"event": event}, title="10 %")
    ann.emit(0, "Products Searched", query="lamp")
    assert titles_or_reasons(ann.emit(1, event, **properties)) == [told]


def test_cart_products_count_when_trigger_has_none() -> None:
    ann = person_for_coupon({"event": "Checkout Started"}, title="10 %")
    ann.emit(0, "Product Added", **POT, quantity=1)
    assert titles_or_reasons(ann.emit(1, "Checkout Started")) == ["coupon_product_not_covered"]
    ann.emit(2, "Product Added", **LAMP, quantity=1)
    assert titles_or_reasons(ann.emit(3, "Checkout Started")) == ["10 %"]


MINIMUM_FORTY = {"amount": 5, "min_value": 40}


def test_coupon_minimum_value_must_be_reached() -> None:
    ann = person_for_coupon(pool=MINIMUM_FORTY, title="5 euros off")
    held = [one for one in ann.emit(0, "Product Viewed", **POT) if isinstance(one, Suppress)]
    assert [(one.because.reason, one.because.detail) for one in held] == [
        ("coupon_below_min_value", "ten requires 40.00; the cart would be 38.00")
    ]
    ann.emit(1, "Product Added", **{**POT, "product_id": "cup", "price": 2}, quantity=1)
    assert titles_or_reasons(ann.emit(2, "Product Viewed", **POT)) == ["5 euros off"], (
        "together with the cart it is worth enough"
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, {"title": "5 euros off, from {{ coupon.min_value | money }}"}),
        ({"price": None}, {"title": "5 euros off"}),
        ({"price": 38, "currency": "XTS"}, {"title": "5 euros off"}),
    ],
)
def test_content_stating_the_minimum_value_is_allowed(more: dict[str, Any], words: Any) -> None:
    """And where nobody knows a price, nobody can say that it is too low."""
    found = titles_or_reasons(
        person_for_coupon(pool=MINIMUM_FORTY, **words).emit(0, "Product Viewed", **{**POT, **more})
    )
    assert [one[:11] for one in found] == ["5 euros off"]


def test_content_lists_viewed_eligible_products() -> None:
    ann = person_for_coupon(
        {"exit_intent": True},
        title="10 % off {{ coupon.products.first.name }}",
        body="<p>{% for p in coupon.products %}{{ p.name }},{% endfor %}</p>",
        url="{{ coupon.products.first.url }}",
    )
    assert titles_or_reasons(ann.emit(0, "Product Viewed", **POT)) == []
    assert titles_or_reasons(ann.emit(1, "Exit Intent")) == ["missing coupon.products"]
    assert ann.person.coupons == [], "what cannot be said is not promised"
    [arm] = [one for one in ann.emit(2, "Product Viewed", **LAMP) if isinstance(one, Preload)]
    content = arm.content
    assert (content.title, content.html, content.url) == ("10 % off Arco lamp", "<p>Arco lamp,</p>", "/lamp")
    assert titles_or_reasons(ann.emit(3, "Product Viewed", **POT)) == [], "what the coupon is not for changes nothing"
    assert titles_or_reasons(ann.emit(4, "Product Viewed", **{**LAMP, "name": "Arco"})) == ["10 % off Arco"]


def test_more_than_four_eligible_products_are_listed() -> None:
    ann = person_for_coupon({"event": "Page Viewed"}, title="{% for p in coupon.products %}{{ p.name }},{% endfor %}")
    ann.emit(0, "Product Viewed", **LAMP)
    for n in range(6):
        ann.emit(n + 1, "Product Viewed", **{**POT, "product_id": f"pot-{n}"})
    assert titles_or_reasons(ann.emit(9, "Page Viewed")) == ["Arco lamp,"], (
        "what it is good for was looked at long before"
    )


@pytest.mark.parametrize("pool", [{"percent": 10, "products": ["lamp"]}, {"percent": 10}])
def test_content_validation_uses_coupon_products(pool: dict[str, Any]) -> None:
    ann = person_for_coupon(pool=pool, title="{{ coupon.products.first.name }}")
    found = validate(ann.context.rules.playbook)
    assert [one.message for one in found if one.path[:1] == ("content",)] == []


def test_coupon_is_reserved_only_when_content_renders() -> None:
    ann = person_for_coupon(
        {"event": "Page Viewed"}, {"percent": 10}, title="{{ first_name }}: {{ coupon }}, {{ coupon.expires }}"
    )
    assert titles_or_reasons(ann.emit(0, "Page Viewed")) == ["missing first_name"]
    assert ann.person.coupons == []
    ann.emit(1, "Identified", first_name="Ann")
    [told] = titles_or_reasons(ann.emit(2, "Page Viewed"))
    [coupon] = ann.person.coupons
    assert told.startswith(f"Ann: {coupon.code}, 20")


def test_new_playbook_retries_failed_content() -> None:
    ann = person_for_coupon({"event": "Page Viewed"}, {"percent": 10}, title="{{ shop.name }}: {{ coupon }}")
    assert titles_or_reasons(ann.emit(0, "Page Viewed")) == ["missing shop.name"]
    ann.switch_playbook(replace(ann.context.rules.playbook, shop=Shop(name="Lume")))
    assert titles_or_reasons(ann.emit(1, "Page Viewed"))[0].startswith("Lume: ")
