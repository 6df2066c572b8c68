"""The demo shop: a visit from the first page to the receipt, told to attimo as the Segment spec has it."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.harness.fake_server import WEB, FakeServer

pytestmark = pytest.mark.browser

WaitUntil = Callable[..., Any]


def accept_consent(page: Page, base_url: str) -> None:
    page.goto(base_url + "/shop/")
    page.get_by_role("button", name="Allow").click()


def click_and_wait(page: Page, base_url: str, path: str, click: Callable[[], None]) -> None:
    """Click what leads to another page, and wait until its scripts have run, as people do."""
    click()
    page.wait_for_url(base_url + path)


def add_to_cart(page: Page, base_url: str, product: str) -> None:
    page.goto(f"{base_url}/shop/product.html?id={product}")
    page.get_by_role("button", name="Add to cart").click()
    expect(page.get_by_role("status")).to_contain_text("In your cart")


def test_purchase_from_product_list_to_receipt_is_tracked(
    page: Page, server: FakeServer, base_url: str, wait_until: WaitUntil
) -> None:
    accept_consent(page, base_url)
    click_and_wait(
        page, base_url, "/shop/product.html?id=arco-lamp", page.get_by_role("link", name="Arco table lamp").click
    )
    page.get_by_role("button", name="Add to cart").click()
    add_to_cart(page, base_url, "sole-candle")
    click_and_wait(page, base_url, "/shop/cart.html", page.get_by_role("link", name="Cart").first.click)
    page.get_by_role("button", name="Add one Sole candle").click()
    page.get_by_role("button", name="Remove one Sole candle").click()
    page.get_by_label("Coupon code").fill("nonsense")
    page.get_by_role("button", name="Apply").click()
    page.get_by_label("Coupon code").fill("stay10")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("complementary")).to_contain_text("€137.70")
    click_and_wait(page, base_url, "/shop/checkout.html", page.get_by_role("link", name="Check out").click)
    page.get_by_role("button", name="Buy for €137.70").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    wait_until(page, lambda: server.tracked("Order Completed"))
    page.reload()
    wait_until(page, lambda: server.message_names()[-1] == "page")
    assert [name for name in server.message_names() if name != "page"] == [
        "Consent Updated",
        "Product List Viewed",
        "Product Viewed",
        "Product Added",
        "Product Viewed",
        "Product Added",
        "Cart Viewed",
        "Product Added",
        "Product Removed",
        "Coupon Denied",
        "Coupon Applied",
        "Checkout Started",
        "Order Completed",
    ]
    viewed, added = server.tracked("Product Viewed")[0], server.tracked("Product Added")[0]
    for key in ("product_id", "name", "category", "price", "currency", "image_url", "url"):
        assert viewed["properties"][key] == added["properties"][key]
    order = server.tracked("Order Completed")[0]["properties"]
    assert (order["subtotal"], order["shipping"], order["discount"], order["total"]) == (137.7, 0, 15.3, 137.7)
    assert [(one["product_id"], one["quantity"]) for one in order["products"]] == [("arco-lamp", 1), ("sole-candle", 1)]
    assert order["order_id"] == server.tracked("Checkout Started")[0]["properties"]["order_id"]


def test_sign_in_and_sign_out_are_tracked(page: Page, server: FakeServer, base_url: str, wait_until: WaitUntil) -> None:
    accept_consent(page, base_url)
    page.goto(base_url + "/shop/login.html")
    page.get_by_label("Name").fill("ann@example.org")
    click_and_wait(page, base_url, "/shop/", page.get_by_role("button", name="Sign in").click)
    click_and_wait(page, base_url, "/shop/", page.get_by_role("button", name="Sign out ann@example.org").click)
    wait_until(page, lambda: server.tracked("Signed Out"))
    told = server.tracked("identify")[0]
    assert (told["userId"], told["context"]["user_hash"]) == ("ann@example.org", "vouched")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    wait_until(page, lambda: server.unique_messages()[-1]["userId"] is None)


@pytest.mark.parametrize(("answer", "names"), [("No", []), ("Statistics only", ["Consent Updated", "page"])])
def test_each_consent_choice_is_stored_and_sent(
    page: Page, server: FakeServer, base_url: str, wait_until: WaitUntil, answer: str, names: list[str]
) -> None:
    page.goto(base_url + "/shop/cart.html")
    buttons = page.get_by_role("region", name="Privacy choices").get_by_role("button")
    sizes = buttons.evaluate_all("all => all.map((one) => [one.offsetWidth, one.offsetHeight])")
    assert sizes == [sizes[0]] * 3
    page.get_by_role("button", name=answer, exact=True).click()
    page.goto(base_url + "/shop/product.html?id=moka-pot")
    expect(page.get_by_role("region", name="Privacy choices")).to_have_count(0)
    page.wait_for_timeout(200)
    assert server.message_names()[:2] == names
    assert server.streams == []
    page.get_by_role("button", name="Privacy choices").click()
    page.get_by_role("button", name="Allow").click()
    wait_until(page, lambda: server.streams)
    assert server.tracked("Consent Updated")[-1]["properties"] == {"analytics": True, "marketing": True}


def test_country_override_in_the_demo_shop(
    page: Page, server: FakeServer, base_url: str, wait_until: WaitUntil
) -> None:
    accept_consent(page, base_url)
    page.get_by_label("Pretend to be in Canada").check()
    wait_until(page, lambda: server.unique_messages()[-1]["context"].get("attimo") == {"country": "CA"})
    expect(page.get_by_label("Pretend to be in Canada")).to_be_checked()


def test_search_and_filters_narrow_the_product_list(
    page: Page, server: FakeServer, base_url: str, wait_until: WaitUntil
) -> None:
    accept_consent(page, base_url)
    click_and_wait(page, base_url, "/shop/?category=Kitchen", page.get_by_role("link", name="Kitchen").click)
    expect(page.locator(".card")).to_have_count(3)
    page.get_by_role("searchbox").fill("<b>kettle")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_text("Nothing here by that name.")).to_be_visible()
    assert wait_until(page, lambda: server.tracked("Products Searched"))[0]["properties"] == {"query": "<b>kettle"}


@pytest.mark.parametrize(
    "path", ["index.html", "product.html?id=nothing", "cart.html", "checkout.html", "order.html", "lighting.html"]
)
@pytest.mark.parametrize("width", [320, 1200])
def test_every_page_fits_the_screen_and_renders_without_data(
    new_context: Callable[..., BrowserContext], base_url: str, path: str, width: int
) -> None:
    page = new_context(viewport={"width": width, "height": 700}).new_page()
    page.goto(f"{base_url}/shop/{path}")
    expect(page.get_by_role("link", name="Casa Lume")).to_be_visible()
    assert page.locator("#main > *").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_demo_shop_has_twelve_products_with_images(page: Page, base_url: str) -> None:
    page.goto(base_url + "/shop/")
    products = page.evaluate("window.PRODUCTS.map((one) => one.id)")
    assert len(set(products)) == 12
    assert all((WEB / "demo" / "img" / f"{one}.svg").is_file() for one in products)
    assert page.locator(".card img").count() == 12
