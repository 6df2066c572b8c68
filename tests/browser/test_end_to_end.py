"""The demo shop against the real house: look, add, leave, and the popup is there in the same frame, with no network."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from domain import action as actions
from domain.action import Cancel, Preload, Send
from state.profile.profile import merged_profile
from tests.harness.instance import HEADERS, RunningInstance, running_instance
from tests.harness.support import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(300)]
VISITOR = {"user_agent": HEADERS["User-Agent"]}
PRODUCTS = ("arco-lamp", "moka-pot", "tazza-mug")

CANDLE_PRICE = """format = "bar"
coupon = "lighting"
trigger = { event = "Product Viewed", properties = { product_id = "sole-candle" } }
[content.default]
title = "Your {{ coupon.percent }} percent are already off"
"""

POPUP_IN_SAME_FRAME = """() => new Promise(done => {
  const popup = () => {
    const host = [...document.querySelectorAll("*")].find(one => one.shadowRoot
        && one.shadowRoot.querySelector("[role=dialog]"));
    const box = host && host.shadowRoot.querySelector("[role=dialog]");
    return Boolean(box) && box.getClientRects().length > 0 && getComputedStyle(box).visibility === "visible";
  };
  const before = popup();
  document.addEventListener("mouseout", left => {
    if (left.relatedTarget || left.clientY > 0) return;
    const at = performance.now();
    requestAnimationFrame(() => done({before, shown: popup(), ms: performance.now() - at}));
  }, {capture: true});
})"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    base = tmp_path_factory.mktemp("house")
    playbook = shutil.copytree(ROOT / "shop", base / "shop")
    (playbook / "campaigns" / "candle_price.toml").write_text(CANDLE_PRICE)
    with running_instance(base / "data", playbook) as made:
        for name in ("edge", "onsite", "learning", "outreach"):
            made.start(name)
        yield made


@pytest.fixture
def base_url(instance: RunningInstance) -> str:
    return instance.url


def anonymous_id_of(context: BrowserContext) -> str:
    """The anonymous id that the pixel keeps."""
    return next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "attimo_id")


def cookie_names(context: BrowserContext) -> set[str]:
    return {str(cookie["name"]) for cookie in context.cookies()}


def decisions_for(instance: RunningInstance, anonymous_id: str, kind: type[Any]) -> list[Any]:
    return [
        action
        for record in instance.records("actions")
        if isinstance(action := actions.decode_action(record.value), kind) and action.anonymous_id == anonymous_id
    ]


def browse_products(page: Page, base_url: str) -> None:
    """Agree, look at three products, put the last one into the cart."""
    page.goto(f"{base_url}/shop/")
    page.get_by_role("button", name="Allow").click()
    for product in PRODUCTS:
        page.goto(f"{base_url}/shop/product.html?id={product}")
    page.get_by_role("button", name="Add to cart").click()


def test_exit_popup_opens_in_the_same_frame_offline(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    context = new_context(**VISITOR)
    page = context.new_page()
    browse_products(page, base_url)
    instance.wait_until(lambda: bool(decisions_for(instance, anonymous_id_of(context), Preload)), "an offer is armed")
    page.wait_for_timeout(3_200)  # the pixel ignores a pointer that leaves in the first three seconds
    context.set_offline(True)
    page.mouse.move(500, 400)
    page.wait_for_timeout(100)
    page.evaluate(f"() => {{ window.__seen = ({POPUP_IN_SAME_FRAME})(); }}")
    for y in (300, 150, 50, 5):
        page.mouse.move(500, y)
    page.mouse.move(500, -5)
    found = page.evaluate("() => window.__seen")
    assert (found["before"], found["shown"]) == (False, True), found
    assert page.get_by_role("dialog").get_by_text("Your cart waits for you").is_visible()
    page.keyboard.press("Escape")
    context.set_offline(False)
    instance.wait_until(
        lambda: "Offer Shown" in merged_profile(instance.persons()[f"a:{anonymous_id_of(context)}"]).lifetime_counts,
        "the engine was told",
    )
    assert "exit_offer" in {one.campaign for one in decisions_for(instance, anonymous_id_of(context), Cancel)}
    person = instance.persons()[f"a:{anonymous_id_of(context)}"]
    counts = merged_profile(person).lifetime_counts
    assert (counts["Product Viewed"].count, counts["Product Added"].count, counts["Offer Shown"].count) == (3, 1, 1)
    assert "exit_offer" in person.exposures


def test_login_and_order_are_one_person_and_one_message(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    context = new_context(**VISITOR)
    page = context.new_page()
    browse_products(page, base_url)
    page.goto(f"{base_url}/shop/login.html")
    page.get_by_role("textbox").first.fill("ann@example.org")
    page.get_by_role("textbox").first.press("Enter")
    page.get_by_text("Sign out").first.wait_for()
    page.goto(f"{base_url}/shop/cart.html")
    page.get_by_role("main").get_by_role("link", name=re.compile("check ?out", re.IGNORECASE)).click()
    page.wait_for_url("**/checkout.html*")
    page.locator("form [type=submit], form button, main button").last.click()
    page.wait_for_url("**/order.html*")
    anonymous_id = anonymous_id_of(context)
    instance.wait_until(
        lambda: any(merged_profile(person).order_count for person in instance.persons().values()), "the order is known"
    )
    instance.wait_until(instance.is_drained, "everything is applied")
    people = {name: person for name, person in instance.persons().items() if merged_profile(person).order_count}
    assert len(people) == 1
    ((name, person),) = people.items()
    assert name.startswith("u:")
    assert merged_profile(person).lifetime_counts["Product Viewed"].count == 3
    assert instance.persons()[f"a:{anonymous_id}"].merged_into == name
    outcomes = [json.loads(record.value) for record in instance.records("outcomes")]
    assert [outcome["label"] for outcome in outcomes if outcome["kind"] == "propensity"] == [True]
    assert decisions_for(instance, anonymous_id, Send) or decisions_for(instance, anonymous_id, Preload)


def was_shown_times(instance: RunningInstance, person: str, n: int) -> bool:
    counts = merged_profile(instance.persons()[person]).lifetime_counts
    return "Offer Shown" in counts and counts["Offer Shown"].count == n


def test_home_page_slot_is_personal_on_every_page_view(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    context = new_context(**VISITOR)
    page = context.new_page()
    browse_products(page, base_url)
    place = page.locator("#for-you")
    for n in (1, 2):
        page.goto(f"{base_url}/shop/")
        expect(place.get_by_role("heading", name="Where you left off")).to_be_visible(timeout=20_000)
        expect(place).to_contain_text("Tazza mug")
        person = f"a:{anonymous_id_of(context)}"
        instance.wait_until(partial(was_shown_times, instance, person, n), "the engine knows that it was shown")
    page.get_by_role("link", name="Look again").click()
    page.wait_for_url("**/product.html?id=tazza-mug")
    instance.wait_until(
        lambda: "Offer Clicked" in merged_profile(instance.persons()[person]).lifetime_counts, "the click is known"
    )
    assert instance.persons()[person].exposures["at_home"].total == 1, "shown again, counted once"


def test_discounted_price_is_shown_until_redemption(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    context = new_context(**VISITOR)
    page = context.new_page()
    page.goto(f"{base_url}/shop/")
    page.get_by_role("button", name="Allow").click()
    price = page.locator(".product .price strong")
    page.goto(f"{base_url}/shop/product.html?id=sole-candle")
    page.get_by_role("region", name="Your 15 percent are already off").wait_for(timeout=30_000)
    expect(price).to_have_text("€20.40")
    page.get_by_role("button", name="Add to cart").click()
    page.goto(f"{base_url}/shop/checkout.html")
    page.get_by_role("button", name="Buy for €27.30").click()
    page.wait_for_url("**/order.html*")
    instance.wait_until(
        lambda: [one.state for one in instance.persons()[f"a:{anonymous_id_of(context)}"].coupons] == ["redeemed"],
        "the coupon is redeemed",
    )
    page.goto(f"{base_url}/shop/product.html?id=luna-blanket")
    assert page.evaluate("attimo.discount()") is None


def test_live_page_shows_events_and_reasons(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    watcher = new_context(**VISITOR).new_page()
    watcher.goto(f"{base_url}/live")
    watcher.get_by_text("Connected").wait_for()
    page = new_context(**VISITOR).new_page()
    browse_products(page, base_url)
    watcher.get_by_text(re.compile("exit.offer")).first.wait_for()
    watcher.get_by_text(re.compile("with.cart")).first.wait_for()
    watcher.get_by_text("Product Added").first.wait_for()


def test_refused_consent_stores_nothing(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    before = len(instance.persons())
    context = new_context(**VISITOR)
    page = context.new_page()
    page.goto(f"{base_url}/shop/")
    page.get_by_role("button", name="No", exact=True).click()
    page.goto(f"{base_url}/shop/product.html?id=arco-lamp")
    page.wait_for_timeout(500)
    assert not [cookie for cookie in context.cookies() if cookie["name"] in ("attimo_id", "attimo_bind")]
    instance.wait_until(instance.is_drained, "everything is applied")
    assert len(instance.persons()) == before


def test_consent_withdrawal_removes_all_cookies(
    new_context: Callable[..., BrowserContext], instance: RunningInstance, base_url: str
) -> None:
    context = new_context(**VISITOR)
    page = context.new_page()
    browse_products(page, base_url)
    instance.wait_until(lambda: "attimo_bind" in cookie_names(context), "the browser is bound")
    page.evaluate("() => attimo.consent({ analytics: false, marketing: false })")
    instance.wait_until(lambda: not cookie_names(context) & {"attimo_id", "attimo_bind"}, "no cookie is left")
