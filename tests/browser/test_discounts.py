"""Discounts: a page hears what the coupon in an offer is worth, and the demo shop shows its prices with it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.harness.browser import Offer, Until, open_connected, push_and_wait
from tests.harness.fake_server import FakeServer

pytestmark = pytest.mark.browser

HOUR = 3_600_000
RECORD_DISCOUNTS = """window.heard = [];
    document.addEventListener('attimo:discount', (event) => window.heard.push(event.detail));"""


def make_discount(**more: Any) -> dict[str, Any]:
    return {"code": "LAMP-X37RPR9Q6J", "percent": 15.0, "expires_at": int(time.time() * 1000) + HOUR, **more}


def action_with_discount(
    make_action: Offer, kind: str = "send", format: str = "bar", discount: Any = None, **more: Any
) -> dict[str, Any]:
    action = make_action(
        kind, format, more.pop("campaign", "price"), discount=discount or make_discount(), slot="#hero", **more
    )
    return {"not_after": int(time.time() * 1000) + action["expires_in_ms"], **action}


def announced_codes(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate("window.heard.map((one) => one && one.code)")
    return found


@pytest.mark.parametrize(
    ("kind", "format"), [("send", "popup"), ("send", "banner"), ("send", "bar"), ("send", "slot"), ("preload", "popup")]
)
def test_discount_event_fires_on_show_and_on_later_pages(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, kind: str, format: str
) -> None:
    page.add_init_script(RECORD_DISCOUNTS)
    open_connected(page, server, wait_until, server.page(body="<div id=hero></div>"))
    assert page.evaluate("attimo.discount()") is None
    action = action_with_discount(make_action, kind, format)
    if kind == "preload":
        push_and_wait(page, server, action)
        assert announced_codes(page) == [], "not before it is shown"
        page.evaluate("document.dispatchEvent(new CustomEvent('attimo:exit-intent', {cancelable: true}))")
    else:
        push_and_wait(page, server, action)
    assert page.evaluate("window.heard") == [action["discount"]]
    assert page.evaluate("attimo.discount()") == action["discount"]
    page.goto(server.page("/next"))
    wait_until(page, lambda: page.evaluate("window.heard") == [action["discount"]])
    assert page.evaluate("attimo.discount()") == action["discount"]


def test_discount_is_not_announced_before_the_offer_is_shown(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    page.add_init_script(RECORD_DISCOUNTS)
    open_connected(page, server, wait_until, server.page())
    push_and_wait(page, server, action_with_discount(make_action, format="slot"), "preloaded")
    push_and_wait(page, server, make_action("send", "banner", "plain"))
    assert announced_codes(page) == []
    assert page.evaluate("Object.keys(sessionStorage)") == []


@pytest.mark.parametrize(
    "happens",
    [
        "attimo.consent({marketing: false})",
        "attimo.consent({analytics: false})",
        "attimo.reset()",
        "attimo.track('Order Completed', {order_id: '1'})",
    ],
)
def test_discount_is_removed_when_the_offer_is_cancelled(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, happens: str
) -> None:
    page.add_init_script(RECORD_DISCOUNTS)
    open_connected(page, server, wait_until, server.page())
    push_and_wait(page, server, action_with_discount(make_action))
    page.evaluate(f"() => {{ {happens}; attimo.page(); }}")
    assert announced_codes(page) == ["LAMP-X37RPR9Q6J", None]
    assert page.evaluate("attimo.discount()") is None
    assert page.evaluate("Object.keys(sessionStorage)") == []


def test_discount_expires_by_server_time(page: Page, server: FakeServer, wait_until: Until, make_action: Offer) -> None:
    page.add_init_script(
        RECORD_DISCOUNTS + "Date.now = () => 1e12 + (window.ahead || 0);"
    )  # a visitor's clock, in 2001
    open_connected(page, server, wait_until, server.page())
    push_and_wait(page, server, action_with_discount(make_action))
    assert page.evaluate("attimo.discount().code") == "LAMP-X37RPR9Q6J"
    page.evaluate(f"window.ahead = {HOUR - 60_000}")
    assert page.evaluate("attimo.discount().code") == "LAMP-X37RPR9Q6J"
    page.evaluate(f"window.ahead = {HOUR + 1000}")
    assert page.evaluate("attimo.discount()") is None
    push_and_wait(
        page,
        server,
        action_with_discount(
            make_action, campaign="endless", format="banner", discount={"code": "EVER", "percent": 5.0}
        ),
    )
    assert page.evaluate("attimo.discount().code") == "EVER"


def test_discount_works_on_the_page_without_storage(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', {get() { throw new Error('no'); }});")
    open_connected(page, server, wait_until, server.page())
    push_and_wait(page, server, action_with_discount(make_action))
    assert page.evaluate("attimo.discount().code") == "LAMP-X37RPR9Q6J"


# The demo shop


def open_with_consent(page: Page, server: FakeServer, wait_until: Until, path: str = "") -> None:
    """Arrive, agree, and wait for the stream."""
    connected_before = server.streams_opened
    page.goto(f"{server.url}/shop/{path}")
    page.get_by_role("button", name="Allow").click()
    wait_until(page, lambda: server.streams_opened > connected_before)


def test_discounted_price_from_product_page_to_order(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_with_consent(page, server, wait_until, "product.html?id=arco-lamp")
    price = page.locator(".product .price")
    expect(price).to_have_text("€129.00")
    push_and_wait(page, server, action_with_discount(make_action))
    expect(price.locator("s")).to_have_text("Instead of €129.00")
    expect(price.locator("strong")).to_have_text("€109.65")
    expect(price).to_contain_text("with coupon LAMP-X37RPR9Q6J")
    page.goto(server.url + "/shop/product.html?id=sole-candle")
    expect(price.locator("strong")).to_have_text("€20.40")
    page.goto(server.url + "/shop/product.html?id=arco-lamp")
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("link", name="Go to the cart").click()
    sums = page.get_by_role("complementary")
    expect(sums).to_contain_text("Coupon LAMP-X37RPR9Q6J")
    expect(sums).to_contain_text("-€19.35")
    page.get_by_role("link", name="Check out").click()
    page.get_by_role("button", name="Buy for €109.65").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    order = wait_until(page, lambda: server.tracked("Order Completed"))[0]["properties"]
    assert (order["coupon"], order["discount"], order["total"]) == ("LAMP-X37RPR9Q6J", 19.35, 109.65)
    assert [one["properties"]["coupon_id"] for one in server.tracked("Coupon Applied")] == ["LAMP-X37RPR9Q6J"]
    viewed = server.tracked("Product Viewed")[0]["properties"]
    assert viewed["price"] == 129, "what is told of a product is its own price"
    page.goto(server.url + "/shop/product.html?id=arco-lamp")
    expect(price).to_have_text("€129.00")
    assert page.evaluate("attimo.discount()") is None, "it was good for one order"


def test_cart_applies_discount_from_the_minimum_value(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_with_consent(page, server, wait_until, "product.html?id=sole-candle")
    push_and_wait(
        page,
        server,
        action_with_discount(
            make_action,
            discount={
                "code": "CIAO-1",
                "amount": 5.0,
                "currency": "EUR",
                "min_value": 40.0,
                "expires_at": make_discount()["expires_at"],
            },
        ),
    )
    expect(page.locator(".product .price")).to_have_text("€24.00 €5.00 less from €40.00, with coupon CIAO-1")
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("link", name="Go to the cart").click()
    sums = page.get_by_role("complementary")
    expect(page.get_by_role("status")).to_have_text("CIAO-1 applies to orders of at least €40.00.")
    expect(sums).to_contain_text("€30.90")
    assert not server.tracked("Coupon Applied")
    page.get_by_role("button", name="Add one Sole candle").click()
    expect(sums).to_contain_text("-€5.00")
    expect(sums).to_contain_text("€49.90")
    wait_until(page, lambda: server.tracked("Coupon Applied"))
    page.get_by_role("button", name="Remove one Sole candle").click()
    expect(sums).to_contain_text("€30.90")
    page.goto(server.url + "/shop/checkout.html")
    page.get_by_role("button", name="Buy for €30.90").click()
    order = wait_until(page, lambda: server.tracked("Order Completed"))[0]["properties"]
    assert "coupon" not in order
    assert order["discount"] == 0


@pytest.mark.parametrize(
    ("discount", "total"),
    [
        ({"code": "A", "percent": 50.0, "products": ["arco-lamp"]}, "€30.90"),
        ({"code": "A", "percent": 50.0, "products": ["sole-candle"]}, "€18.90"),
        ({"code": "A", "amount": 999.0, "currency": "EUR"}, "€6.90"),
        ({"code": "A", "amount": 9.0, "currency": "USD"}, "€30.90"),
        ({"code": "A", "free_shipping": True}, "€24.00"),
        ({"code": "A", "free_shipping": True, "min_value": 30.0}, "€30.90"),
        ({"code": "A", "percent": 900}, "€6.90"),
        ({"code": "A", "percent": -900}, "€30.90"),
        ({"code": "A", "percent": "<b>9</b>", "products": 7, "min_value": {}}, "€30.90"),
        ({"code": "<img src=x onerror='window.hurt=1'>", "percent": 25}, "€24.90"),
        ({"code": 7, "percent": 25}, "€30.90"),
        ({"percent": 25}, "€30.90"),
    ],
)
def test_every_discount_kind_and_invalid_discounts(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, discount: dict[str, Any], total: str
) -> None:
    open_with_consent(page, server, wait_until, "product.html?id=sole-candle")
    page.get_by_role("button", name="Add to cart").click()
    open_connected(page, server, wait_until, server.url + "/shop/cart.html")
    push_and_wait(page, server, action_with_discount(make_action, discount=discount))
    expect(page.locator("dl dd").last).to_have_text(total)
    assert page.evaluate("window.hurt") is None


def test_typed_code_stays_and_cancelled_code_is_removed(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_with_consent(page, server, wait_until, "product.html?id=sole-candle")
    page.get_by_role("button", name="Add to cart").click()
    open_connected(page, server, wait_until, server.url + "/shop/cart.html")
    page.get_by_label("Coupon code").fill("STAY20")
    page.get_by_role("button", name="Apply").click()
    push_and_wait(page, server, action_with_discount(make_action))
    expect(page.get_by_label("Coupon code")).to_have_value("STAY20")
    page.get_by_label("Coupon code").fill("lamp-x37rpr9q6j")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("dl dd").nth(1)).to_have_text("-€3.60")
    page.get_by_role("button", name="Privacy choices").click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.get_by_label("Coupon code")).to_have_value("")
    expect(page.locator("dl dd").last).to_have_text("€30.90")


def test_home_page_slot_is_filled_for_one_person(
    new_context: Callable[..., BrowserContext], server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    page = new_context(viewport={"width": 320, "height": 700}).new_page()
    for path in ("", "lighting.html"):
        if path:
            open_connected(page, server, wait_until, f"{server.url}/shop/{path}")
        else:
            open_with_consent(page, server, wait_until)
        push_and_wait(
            page,
            server,
            make_action(
                "send",
                "slot",
                "home",
                slot="#for-you",
                id="home" + path,
                content={"title": "Where you left off", "image_url": "/shop/img/arco-lamp.svg"},
            ),
        )
        place = page.locator("#for-you")
        expect(place.get_by_role("heading", name="Where you left off")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        button = place.get_by_role("link", name="Show me").bounding_box()
        assert button is not None
        assert button["height"] >= 44
