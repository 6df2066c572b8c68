"""Discounts: a page hears what the coupon in an offer is worth, and the demo shop shows its prices with it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.shop_server import ShopServer
from tests.browser.steps import Offer, Until, arm, connected

pytestmark = pytest.mark.browser

HOUR = 3_600_000
HEARD = """window.heard = [];
    document.addEventListener('attimo:discount', (event) => window.heard.push(event.detail));"""


def worth(**more: Any) -> dict[str, Any]:
    return {"code": "LAMP-X37RPR9Q6J", "percent": 15.0, "expires_at": int(time.time() * 1000) + HOUR, **more}


def promising(offer: Offer, kind: str = "send", format: str = "bar", discount: Any = None, **more: Any
              ) -> dict[str, Any]:
    action = offer(kind, format, more.pop("campaign", "price"), discount=discount or worth(), slot="#hero", **more)
    return {"not_after": int(time.time() * 1000) + action["expires_in_ms"], **action}


def codes(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate("window.heard.map((one) => one && one.code)")
    return found


@pytest.mark.parametrize(("kind", "format"), [
    ("send", "popup"), ("send", "banner"), ("send", "bar"), ("send", "slot"), ("arm", "popup")])
def test_a_page_hears_of_it_when_it_is_shown_and_so_do_the_next_ones(
    page: Page, shop: ShopServer, until: Until, offer: Offer, kind: str, format: str
) -> None:
    page.add_init_script(HEARD)
    connected(page, shop, until, shop.page(body="<div id=hero></div>"))
    assert page.evaluate("attimo.discount()") is None
    action = promising(offer, kind, format)
    if kind == "arm":
        arm(page, shop, action)
        assert codes(page) == [], "not before it is shown"
        page.evaluate("document.dispatchEvent(new CustomEvent('attimo:exit-intent', {cancelable: true}))")
    else:
        arm(page, shop, action)
    assert page.evaluate("window.heard") == [action["discount"]]
    assert page.evaluate("attimo.discount()") == action["discount"]
    page.goto(shop.page("/next"))
    until(page, lambda: page.evaluate("window.heard") == [action["discount"]])
    assert page.evaluate("attimo.discount()") == action["discount"]


def test_what_is_not_shown_promises_nothing(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    page.add_init_script(HEARD)
    connected(page, shop, until, shop.page())
    arm(page, shop, promising(offer, format="slot"), "armed")
    arm(page, shop, offer("send", "banner", "plain"))
    assert codes(page) == []
    assert page.evaluate("Object.keys(sessionStorage)") == []


@pytest.mark.parametrize("happens", [
    "attimo.consent({marketing: false})", "attimo.consent({analytics: false})", "attimo.reset()",
    "attimo.track('Order Completed', {order_id: '1'})",
])
def test_it_is_taken_back(page: Page, shop: ShopServer, until: Until, offer: Offer, happens: str) -> None:
    page.add_init_script(HEARD)
    connected(page, shop, until, shop.page())
    arm(page, shop, promising(offer))
    page.evaluate(f"() => {{ {happens}; attimo.page(); }}")
    assert codes(page) == ["LAMP-X37RPR9Q6J", None]
    assert page.evaluate("attimo.discount()") is None
    assert page.evaluate("Object.keys(sessionStorage)") == []


def test_it_ends_by_the_servers_clock(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    page.add_init_script(HEARD + "Date.now = () => 1e12 + (window.ahead || 0);")  # a visitor's clock, in 2001
    connected(page, shop, until, shop.page())
    arm(page, shop, promising(offer))
    assert page.evaluate("attimo.discount().code") == "LAMP-X37RPR9Q6J"
    page.evaluate(f"window.ahead = {HOUR - 60_000}")
    assert page.evaluate("attimo.discount().code") == "LAMP-X37RPR9Q6J"
    page.evaluate(f"window.ahead = {HOUR + 1000}")
    assert page.evaluate("attimo.discount()") is None
    arm(page, shop, promising(offer, campaign="endless", format="banner", discount={"code": "EVER", "percent": 5.0}))
    assert page.evaluate("attimo.discount().code") == "EVER"


def test_a_browser_without_storage_still_knows_it_on_this_page(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', {get() { throw new Error('no'); }});")
    connected(page, shop, until, shop.page())
    arm(page, shop, promising(offer))
    assert page.evaluate("attimo.discount().code") == "LAMP-X37RPR9Q6J"


# The demo shop


def enter(page: Page, shop: ShopServer, until: Until, path: str = "") -> None:
    """Arrive, agree, and wait for the stream."""
    connected_before = shop.opened
    page.goto(f"{shop.url}/shop/{path}")
    page.get_by_role("button", name="Allow").click()
    until(page, lambda: shop.opened > connected_before)


def test_the_price_with_the_coupon_from_the_product_page_to_the_order(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    enter(page, shop, until, "product.html?id=arco-lamp")
    price = page.locator(".product .price")
    expect(price).to_have_text("€129.00")
    arm(page, shop, promising(offer))
    expect(price.locator("s")).to_have_text("Instead of €129.00")
    expect(price.locator("strong")).to_have_text("€109.65")
    expect(price).to_contain_text("with coupon LAMP-X37RPR9Q6J")
    page.goto(shop.url + "/shop/product.html?id=sole-candle")
    expect(price.locator("strong")).to_have_text("€20.40")
    page.goto(shop.url + "/shop/product.html?id=arco-lamp")
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("link", name="Go to the cart").click()
    sums = page.get_by_role("complementary")
    expect(sums).to_contain_text("Coupon LAMP-X37RPR9Q6J")
    expect(sums).to_contain_text("-€19.35")
    page.get_by_role("link", name="Check out").click()
    page.get_by_role("button", name="Buy for €109.65").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    order = until(page, lambda: shop.tracked("Order Completed"))[0]["properties"]
    assert (order["coupon"], order["discount"], order["total"]) == ("LAMP-X37RPR9Q6J", 19.35, 109.65)
    assert [one["properties"]["coupon_id"] for one in shop.tracked("Coupon Applied")] == ["LAMP-X37RPR9Q6J"]
    viewed = shop.tracked("Product Viewed")[0]["properties"]
    assert viewed["price"] == 129, "what is told of a product is its own price"
    page.goto(shop.url + "/shop/product.html?id=arco-lamp")
    expect(price).to_have_text("€129.00")
    assert page.evaluate("attimo.discount()") is None, "it was good for one order"


def test_the_cart_applies_it_from_its_least_value_on(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    enter(page, shop, until, "product.html?id=sole-candle")
    arm(page, shop, promising(offer, discount={
        "code": "CIAO-1", "amount": 5.0, "currency": "EUR", "min_value": 40.0, "expires_at": worth()["expires_at"]}))
    expect(page.locator(".product .price")).to_have_text("€24.00 €5.00 less from €40.00, with coupon CIAO-1")
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("link", name="Go to the cart").click()
    sums = page.get_by_role("complementary")
    expect(page.get_by_role("status")).to_have_text("CIAO-1 counts from €40.00.")
    expect(sums).to_contain_text("€30.90")
    assert not shop.tracked("Coupon Applied")
    page.get_by_role("button", name="One Sole candle more").click()
    expect(sums).to_contain_text("-€5.00")
    expect(sums).to_contain_text("€49.90")
    until(page, lambda: shop.tracked("Coupon Applied"))
    page.get_by_role("button", name="One Sole candle less").click()
    expect(sums).to_contain_text("€30.90")
    page.goto(shop.url + "/shop/checkout.html")
    page.get_by_role("button", name="Buy for €30.90").click()
    order = until(page, lambda: shop.tracked("Order Completed"))[0]["properties"]
    assert "coupon" not in order
    assert order["discount"] == 0


@pytest.mark.parametrize(("discount", "total"), [
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
])
def test_every_kind_of_discount_and_nonsense(
    page: Page, shop: ShopServer, until: Until, offer: Offer, discount: dict[str, Any], total: str
) -> None:
    enter(page, shop, until, "product.html?id=sole-candle")
    page.get_by_role("button", name="Add to cart").click()
    connected(page, shop, until, shop.url + "/shop/cart.html")
    arm(page, shop, promising(offer, discount=discount))
    expect(page.locator("dl dd").last).to_have_text(total)
    assert page.evaluate("window.hurt") is None


def test_a_code_that_was_typed_stays_and_what_is_taken_back_goes(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    enter(page, shop, until, "product.html?id=sole-candle")
    page.get_by_role("button", name="Add to cart").click()
    connected(page, shop, until, shop.url + "/shop/cart.html")
    page.get_by_label("Coupon code").fill("STAY20")
    page.get_by_role("button", name="Apply").click()
    arm(page, shop, promising(offer))
    expect(page.get_by_label("Coupon code")).to_have_value("STAY20")
    page.get_by_label("Coupon code").fill("lamp-x37rpr9q6j")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("dl dd").nth(1)).to_have_text("-€3.60")
    page.get_by_role("button", name="Privacy choices").click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.get_by_label("Coupon code")).to_have_value("")
    expect(page.locator("dl dd").last).to_have_text("€30.90")


def test_the_first_place_of_the_shop_is_filled_for_one(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer
) -> None:
    page = visitor(viewport={"width": 320, "height": 700}).new_page()
    for path in ("", "lighting.html"):
        if path:
            connected(page, shop, until, f"{shop.url}/shop/{path}")
        else:
            enter(page, shop, until)
        arm(page, shop, offer("send", "slot", "home", slot="#for-you", id="home" + path, content={
            "title": "Where you left off", "image_url": "/shop/img/arco-lamp.svg"}))
        place = page.locator("#for-you")
        expect(place.get_by_role("heading", name="Where you left off")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        button = place.get_by_role("link", name="Show me").bounding_box()
        assert button is not None
        assert button["height"] >= 44
