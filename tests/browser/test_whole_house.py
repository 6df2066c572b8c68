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
from domain.action import Arm, Disarm, Send
from state.view import known
from tests.support import ROOT
from tests.system import HEADERS, House, house

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(300)]
VISITOR = {"user_agent": HEADERS["User-Agent"]}
PRODUCTS = ("arco-lamp", "moka-pot", "tazza-mug")

CANDLE_PRICE = """format = "bar"
coupon = "lighting"
trigger = { event = "Product Viewed", properties = { product_id = "sole-candle" } }
[content.default]
title = "Your {{ coupon.percent }} percent are already off"
"""

IN_THE_SAME_FRAME = """() => new Promise(done => {
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
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    base = tmp_path_factory.mktemp("house")
    playbook = shutil.copytree(ROOT / "shop", base / "shop")
    (playbook / "campaigns" / "candle_price.toml").write_text(CANDLE_PRICE)
    with house(base / "data", playbook) as made:
        for name in ("edge", "onsite", "learning", "outreach"):
            made.start(name)
        yield made


@pytest.fixture
def base_url(home: House) -> str:
    return home.url


def who(context: BrowserContext) -> str:
    """The anonymous id that the pixel keeps."""
    return next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "attimo_id")


def names(context: BrowserContext) -> set[str]:
    return {str(cookie["name"]) for cookie in context.cookies()}


def decided(home: House, anonymous_id: str, kind: type[Any]) -> list[Any]:
    return [action for record in home.records("actions")
            if isinstance(action := actions.decode(record.value), kind) and action.anonymous_id == anonymous_id]


def walk(page: Page, base_url: str) -> None:
    """Agree, look at three products, put the last one into the cart."""
    page.goto(f"{base_url}/shop/")
    page.get_by_role("button", name="Allow").click()
    for product in PRODUCTS:
        page.goto(f"{base_url}/shop/product.html?id={product}")
    page.get_by_role("button", name="Add to cart").click()


def test_exit_intent_is_answered_in_the_same_frame_without_the_network(
    visitor: Callable[..., BrowserContext], home: House, base_url: str
) -> None:
    context = visitor(**VISITOR)
    page = context.new_page()
    walk(page, base_url)
    home.wait(lambda: bool(decided(home, who(context), Arm)), "an offer is armed")
    page.wait_for_timeout(3_200)  # the pixel ignores a pointer that leaves in the first three seconds
    context.set_offline(True)
    page.mouse.move(500, 400)
    page.wait_for_timeout(100)
    page.evaluate(f"() => {{ window.__seen = ({IN_THE_SAME_FRAME})(); }}")
    for y in (300, 150, 50, 5):
        page.mouse.move(500, y)
    page.mouse.move(500, -5)
    found = page.evaluate("() => window.__seen")
    assert (found["before"], found["shown"]) == (False, True), found
    assert page.get_by_role("dialog").get_by_text("Your cart waits for you").is_visible()
    page.keyboard.press("Escape")
    context.set_offline(False)
    home.wait(lambda: "Offer Shown" in known(home.persons()[f"a:{who(context)}"]).counts, "the engine was told")
    assert "exit_offer" in {one.campaign for one in decided(home, who(context), Disarm)}
    person = home.persons()[f"a:{who(context)}"]
    counts = known(person).counts
    assert (counts["Product Viewed"].n, counts["Product Added"].n, counts["Offer Shown"].n) == (3, 1, 1)
    assert "exit_offer" in person.said


def test_a_login_and_an_order_are_one_person_and_one_thank_you(
    visitor: Callable[..., BrowserContext], home: House, base_url: str
) -> None:
    context = visitor(**VISITOR)
    page = context.new_page()
    walk(page, base_url)
    page.goto(f"{base_url}/shop/login.html")
    page.get_by_role("textbox").first.fill("ann@example.org")
    page.get_by_role("textbox").first.press("Enter")
    page.get_by_text("Sign out").first.wait_for()
    page.goto(f"{base_url}/shop/cart.html")
    page.get_by_role("main").get_by_role("link", name=re.compile("check ?out", re.IGNORECASE)).click()
    page.wait_for_url("**/checkout.html*")
    page.locator("form [type=submit], form button, main button").last.click()
    page.wait_for_url("**/order.html*")
    anonymous_id = who(context)
    home.wait(lambda: any(known(person).order_count for person in home.persons().values()), "the order is known")
    home.wait(home.drained, "everything is applied")
    people = {name: person for name, person in home.persons().items() if known(person).order_count}
    assert len(people) == 1
    (name, person), = people.items()
    assert name.startswith("u:")
    assert known(person).counts["Product Viewed"].n == 3
    assert home.persons()[f"a:{anonymous_id}"].alias_of == name
    outcomes = [json.loads(record.value) for record in home.records("outcomes")]
    assert [outcome["label"] for outcome in outcomes if outcome["kind"] == "propensity"] == [True]
    assert decided(home, anonymous_id, Send) or decided(home, anonymous_id, Arm)


def shown_times(home: House, person: str, n: int) -> bool:
    counts = known(home.persons()[person]).counts
    return "Offer Shown" in counts and counts["Offer Shown"].n == n


def test_the_first_page_is_theirs_on_every_visit_to_it(
    visitor: Callable[..., BrowserContext], home: House, base_url: str
) -> None:
    context = visitor(**VISITOR)
    page = context.new_page()
    walk(page, base_url)
    place = page.locator("#for-you")
    for n in (1, 2):
        page.goto(f"{base_url}/shop/")
        expect(place.get_by_role("heading", name="Where you left off")).to_be_visible(timeout=20_000)
        expect(place).to_contain_text("Tazza mug")
        person = f"a:{who(context)}"
        home.wait(partial(shown_times, home, person, n), "the engine knows that it was shown")
    page.get_by_role("link", name="Look again").click()
    page.wait_for_url("**/product.html?id=tazza-mug")
    home.wait(lambda: "Offer Clicked" in known(home.persons()[person]).counts, "the click is known")
    assert home.persons()[person].said["at_home"].total == 1, "shown again, counted once"


def test_the_price_with_the_coupon_already_off_until_it_is_redeemed(
    visitor: Callable[..., BrowserContext], home: House, base_url: str
) -> None:
    context = visitor(**VISITOR)
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
    home.wait(lambda: [one.state for one in home.persons()[f"a:{who(context)}"].coupons] == ["redeemed"],
              "the coupon is redeemed")
    page.goto(f"{base_url}/shop/product.html?id=luna-blanket")
    assert page.evaluate("attimo.discount()") is None


def test_the_live_page_shows_what_happens_and_why(
    visitor: Callable[..., BrowserContext], home: House, base_url: str
) -> None:
    watcher = visitor(**VISITOR).new_page()
    watcher.goto(f"{base_url}/live")
    watcher.get_by_text("Watching").wait_for()
    page = visitor(**VISITOR).new_page()
    walk(page, base_url)
    watcher.get_by_text(re.compile("exit.offer")).first.wait_for()
    watcher.get_by_text(re.compile("with.cart")).first.wait_for()
    watcher.get_by_text("Product Added").first.wait_for()


def test_no_consent_no_trace(visitor: Callable[..., BrowserContext], home: House, base_url: str) -> None:
    before = len(home.persons())
    context = visitor(**VISITOR)
    page = context.new_page()
    page.goto(f"{base_url}/shop/")
    page.get_by_role("button", name="No", exact=True).click()
    page.goto(f"{base_url}/shop/product.html?id=arco-lamp")
    page.wait_for_timeout(500)
    assert not [cookie for cookie in context.cookies() if cookie["name"] in ("attimo_id", "attimo_bind")]
    home.wait(home.drained, "everything is applied")
    assert len(home.persons()) == before


def test_withdrawing_takes_every_cookie_away(
    visitor: Callable[..., BrowserContext], home: House, base_url: str
) -> None:
    context = visitor(**VISITOR)
    page = context.new_page()
    walk(page, base_url)
    home.wait(lambda: "attimo_bind" in names(context), "the browser is bound")
    page.evaluate("() => attimo.consent({ analytics: false, marketing: false })")
    home.wait(lambda: not names(context) & {"attimo_id", "attimo_bind"}, "no cookie is left")
