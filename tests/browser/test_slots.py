"""Slots: elements of the shop's own page that a campaign fills for one person, and gives back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.shop_server import ShopServer
from tests.browser.steps import Offer, Until, arm, connected

pytestmark = pytest.mark.browser

BODY = """<style>#hero { width: 300px } #hero h2, #side h2 { color: rgb(1, 2, 3) }</style>
    <div id="hero"><p id="own">For everybody</p> and some words</div><aside class="side" id="side">Side</aside>"""
OWN = '<p id="own">For everybody</p> and some words'


def slot(offer: Offer, campaign: str = "hero", selector: Any = "#hero", **more: Any) -> dict[str, Any]:
    content = {"title": "For you", "html": "<p>The <b>lamps</b> you looked at.</p>", "button": "Show me",
               "coupon": "", **more.pop("content", {})}
    return offer("send", "slot", campaign, slot=selector, content=content, **more)


def marks(shop: ShopServer, event: str) -> list[str]:
    return [one["properties"]["campaign"] for one in shop.tracked(event)]


def own(page: Page) -> str:
    return str(page.evaluate("document.getElementById('hero').innerHTML"))


def test_a_slot_is_filled_in_the_shops_own_style_and_reported(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    shop.page("/offer")
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, slot(offer, content={"image_url": "/shop/img/vento-radio.svg", "coupon": "STAY10"}))
    hero = page.locator("#hero")
    expect(hero.get_by_role("heading", name="For you")).to_have_css("color", "rgb(1, 2, 3)")
    expect(hero).to_contain_text("The lamps you looked at.")
    expect(hero).to_contain_text("STAY10")
    expect(hero.locator("img")).to_have_attribute("alt", "")
    expect(page.get_by_text("For everybody")).to_have_count(0)
    assert hero.get_by_role("button").all_text_contents() == ["Copy"], "nothing in it is closed by hand"
    assert hero.evaluate("(one) => [...one.querySelectorAll('*')].every((it) => !it.className && !it.id)"), \
        "no name of ours meets one of the shop's"
    assert until(page, lambda: shop.tracked("Offer Shown"))[0]["properties"] == {
        "action_id": "clicks-1-hero-0", "campaign": "hero"}
    hero.get_by_role("link", name="Show me").click()
    page.wait_for_url("**/offer")
    until(page, lambda: marks(shop, "Offer Clicked") == ["hero"])
    assert marks(shop, "Offer Shown") == ["hero"]


def test_links_and_buttons_count_and_leave_the_slot_as_it_is(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=f"<form action='/gone'>{BODY}</form>"))
    arm(page, shop, slot(offer, content={"url": "", "html": "<p><a href='#lamps'>Lamps</a></p>"}))
    page.get_by_role("button", name="Show me").click()
    page.get_by_role("link", name="Lamps").click()
    until(page, lambda: len(shop.tracked("Offer Clicked")) == 2)
    expect(page.get_by_role("heading", name="For you")).to_be_visible()
    assert page.url == shop.url + "/#lamps", "a button in a form of the shop's does not send it"


def test_it_does_not_hold_back_who_goes_back(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    """A page that may not be left says so by the event of the exit intent; a slot is no reason."""
    connected(page, shop, until, shop.page(body=BODY))
    leave = "document.dispatchEvent(new CustomEvent('attimo:exit-intent', {cancelable: true}))"
    arm(page, shop, slot(offer))
    assert page.evaluate(leave) is True
    arm(page, shop, offer(campaign="stay"))
    assert page.evaluate(leave) is False


DISARM = {"type": "disarm", "id": "d", "at": 1, "campaign": "hero", "v": 1, "shop": "demo"}


@pytest.mark.parametrize("happens", [
    "attimo.consent({marketing: false})", "attimo.consent({analytics: false})", "attimo.reset()",
    "attimo.track('Order Completed', {order_id: '1'})", "attimo.track('Product Added', {product_id: 'p'})", "disarm",
])
def test_what_stood_there_comes_back(
    page: Page, shop: ShopServer, until: Until, offer: Offer, happens: str
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    page.evaluate("document.getElementById('own').onclick = () => { window.alive = true; }")
    arm(page, shop, slot(offer, disarm_on=["Product Added"]))
    arm(page, shop, slot(offer, "side", ".side", content={"title": "Aside"}))
    if happens == "disarm":
        shop.push("disarm", DISARM)
    else:
        page.evaluate(f"() => {{ {happens} }}")
    until(page, lambda: own(page) == OWN)
    page.locator("#own").click()
    assert page.evaluate("window.alive"), "the very same elements, with what listens to them"
    all_of_it = happens != "disarm" and "Added" not in happens
    assert ("Aside" in page.locator("#side").inner_text()) is not all_of_it
    assert not shop.tracked("Offer Dismissed")


def test_other_events_and_a_new_armed_set_leave_it_alone(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, slot(offer, disarm_on=["Product Added"]))
    page.evaluate("attimo.track('Product Viewed', {product_id: 'p'})")
    page.evaluate("attimo.page()")
    shop.armed = [offer(campaign="else")]
    shop.hang_up()
    until(page, lambda: page.locator("attimo-offer[data-format=popup]").count() == 1)
    expect(page.get_by_role("heading", name="For you")).to_be_visible()


def test_several_slots_at_once_beside_the_other_formats(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, slot(offer))
    arm(page, shop, slot(offer, "side", "aside.side", content={"title": "Aside"}))
    arm(page, shop, offer("send", "banner", "note", content={"title": "A note"}))
    expect(page.locator("#hero h2")).to_have_text("For you")
    expect(page.locator("#side h2")).to_have_text("Aside")
    expect(page.get_by_role("region", name="A note")).to_be_visible()
    until(page, lambda: set(marks(shop, "Offer Shown")) == {"hero", "side", "note"})
    page.get_by_role("button", name="No, thanks").click()
    expect(page.locator("#hero h2")).to_have_text("For you")


def test_in_one_element_the_latest_of_equals_and_no_lesser_one(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, slot(offer))
    arm(page, shop, slot(offer, "next", "div#hero", content={"title": "Next"}))
    expect(page.locator("#hero h2")).to_have_text("Next")
    arm(page, shop, slot(offer, id="again", content={"title": "Again"}))
    expect(page.locator("#hero h2")).to_have_text("Again")
    arm(page, shop, slot(offer, "low", priority=-1, content={"title": "Low"}), "armed")
    arm(page, shop, slot(offer, "side", "#side", content={"title": "Aside"}))
    expect(page.locator("#hero h2")).to_have_text("Again")
    shop.push("disarm", DISARM)
    expect(page.locator("#hero h2")).to_have_text("Low")
    shop.push("disarm", {**DISARM, "campaign": "low"})
    until(page, lambda: own(page) == OWN)


def test_an_element_that_comes_later_is_waited_for(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body="<main></main>"))
    arm(page, shop, slot(offer), "armed")
    page.evaluate("""() => new Promise((done) => setTimeout(done, 100)).then(() => {
        document.querySelector('main').innerHTML = '<section><div id=hero>Loading</div></section>'; })""")
    expect(page.locator("#hero h2")).to_have_text("For you")
    until(page, lambda: marks(shop, "Offer Shown") == ["hero"])


def test_an_element_that_comes_too_late_stays_as_it_is(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body="<main></main>"))
    page.evaluate("""() => { window.gone = new Promise((done) =>
        document.addEventListener('attimo:disarmed', (event) => done(event.detail.reason))); }""")
    shop.push("send", slot(offer, expires_in_ms=50))
    assert page.evaluate("window.gone") == "expired"
    page.evaluate("document.querySelector('main').innerHTML = '<div id=hero>Late</div>'")
    arm(page, shop, offer("send", "bar", "mark"))
    assert page.locator("#hero").inner_text() == "Late"
    assert marks(shop, "Offer Shown") in ([], ["mark"])


def test_a_page_drawn_anew_is_filled_when_the_engine_says_so_again(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=f"<main>{BODY}</main>"))
    arm(page, shop, slot(offer))
    page.evaluate("html => { document.querySelector('main').innerHTML = html }", BODY)
    assert own(page) == OWN
    arm(page, shop, slot(offer, id="again"))
    expect(page.locator("#hero h2")).to_have_text("For you")
    page.evaluate("html => { document.getElementById('hero').innerHTML = html }", "<p>The shop's news</p>")
    shop.push("disarm", DISARM)
    arm(page, shop, offer("send", "bar", "mark"))
    assert own(page) == "<p>The shop's news</p>", "what the shop wrote over it is the shop's"


def test_what_the_page_drops_at_once_was_not_shown(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    page.evaluate("""document.addEventListener('attimo:shown', ({detail}) =>
        detail.campaign === 'hero' && document.getElementById('hero').remove())""")
    arm(page, shop, slot(offer))
    arm(page, shop, slot(offer, "side", "#side"))
    until(page, lambda: "side" in marks(shop, "Offer Shown"))
    assert marks(shop, "Offer Shown") == ["side"]


def test_an_element_that_the_shop_has_drawn_anew_is_free(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, slot(offer, priority=9))
    page.evaluate("document.getElementById('hero').textContent = 'News'")
    arm(page, shop, slot(offer, "low", content={"title": "Low"}))
    expect(page.locator("#hero h2")).to_have_text("Low")
    shop.push("disarm", {**DISARM, "campaign": "low"})
    until(page, lambda: own(page) == "News")


def test_what_no_page_had_a_place_for_waits_for_the_next_one(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    action = slot(offer)
    connected(page, shop, until, shop.page(body="<p>No place</p>"))
    arm(page, shop, action, "armed")
    shop.armed = [action]
    connected(page, shop, until, shop.page("/next", body=BODY))
    expect(page.locator("#hero h2")).to_have_text("For you")
    until(page, lambda: shop.tracked("Offer Shown"))
    connected(page, shop, until, shop.page("/last", body=BODY))
    arm(page, shop, offer("send", "bar", "mark"))
    assert own(page) == OWN, "an action is carried out once; the next page needs one of its own"


def test_two_tabs_side_by_side_fill_it_once(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer
) -> None:
    context, url = visitor(), shop.page(body=BODY)
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        connected(tab, shop, until, url)
    shop.push("send", slot(offer))
    until(tabs[0], lambda: shop.tracked("Offer Shown"))
    has, other = sorted(tabs, key=lambda tab: -tab.locator("#hero h2").count())
    assert (has.locator("#hero h2").count(), other.locator("#hero h2").count()) == (1, 0)
    has.evaluate("""() => { window.heard = new Promise((done) => window.addEventListener('storage', (event) =>
        event.key === 'attimo.done' && setTimeout(done))); }""")
    other.evaluate("""() => { const done = JSON.parse(localStorage.getItem('attimo.done'));
        localStorage.setItem('attimo.done', JSON.stringify([...done, 'another'])); }""")
    has.evaluate("window.heard")
    expect(has.locator("#hero h2")).to_have_text("For you")
    assert marks(shop, "Offer Shown") == ["hero"], "what another tab did takes nothing back"


@pytest.mark.parametrize("selector", [
    "", "###", "#hero:nth(", "div[", "a{}", "html", "body", "head", "title", ":root", "#none", 7, None, ["#hero"],
    {"a": 1}, "<img src=x onerror='window.hurt=1'>", "x" * 5000,
])
def test_a_selector_that_names_nothing_on_the_page_is_ignored(
    page: Page, shop: ShopServer, until: Until, offer: Offer, selector: Any
) -> None:
    connected(page, shop, until, shop.page(body=BODY.replace('id="hero"', 'id="hero2"')))
    before = page.evaluate("document.body.innerHTML")
    shop.push("send", slot(offer, selector=selector))
    arm(page, shop, offer(campaign="sound"))
    page.evaluate("document.querySelectorAll('attimo-offer').forEach((one) => one.remove())")
    assert page.evaluate("document.body.innerHTML") == before
    assert page.evaluate("window.hurt") is None
    assert not shop.tracked("Offer Shown")


@pytest.mark.parametrize("element", [
    "<script id=bait type=text/plain>0</script>", "<style id=bait>p {}</style>", "<textarea id=bait>0</textarea>",
    "<iframe id=bait></iframe>", "<noscript id=bait></noscript>", "<template id=bait></template>",
    "<svg id=bait></svg>", "<select id=bait></select>", "<input id=bait>",
])
def test_hostile_words_in_any_element_do_nothing(
    page: Page, shop: ShopServer, until: Until, offer: Offer, element: str
) -> None:
    words = "window.hurt=1; * { position: fixed }"
    connected(page, shop, until, shop.page(body=element + BODY))
    html = f"{words}<script>{words}</script><img src=x onerror='window.hurt=1'><style>{words}</style>" \
        "<div style='position:fixed;inset:0' class='hero' id='own' onclick='window.hurt=1'>over</div>" \
        "<form action='https://evil.example'><button formaction='javascript:window.hurt=1'>pay</button></form>" \
        "<a href='javascript:window.hurt=1'>bait</a><slot name=x></slot></p></div></body>"
    harm = {"title": "<script>window.hurt=1</script>", "html": html, "url": "javascript:window.hurt=1",
            "image_url": "data:image/svg+xml,<svg/>", "button": "<b>go</b>", "coupon": "<img src=x>"}
    arm(page, shop, slot(offer, "hero", content=harm))
    arm(page, shop, slot(offer, "bait", "#bait", content=harm))
    page.locator("#hero").get_by_text("over").click()
    page.locator("#hero").get_by_text("bait").click()
    page.locator("#hero").get_by_role("button", name="<b>go</b>").click()
    left = page.evaluate("""[...document.querySelectorAll('#hero *, #bait *')].map((one) => one.localName + ' '
        + [...one.attributes].map((it) => it.name + '=' + it.value).join(' '))""")
    allowed = {"attimo-offer", "h2", "div", "p", "a", "img", "button", "code"}
    assert {one.split()[0] for one in left} <= allowed
    assert not [one for one in left if any(bad in one for bad in ("javascript", " on", "id=", "class=", "data:i"))]
    page.wait_for_timeout(50)
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("getComputedStyle(document.getElementById('side')).position") == "static"
    assert page.url == shop.url + "/"


def test_content_of_the_wrong_kind_is_survived(
    page: Page, shop: ShopServer, until: Until, offer: Offer, errors: list[str]
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    for n, content in enumerate(("null", "7", "[]", '{"title": {"a": 1}, "html": 7, "url": [], "button": true}')):
        shop.push("send", {**slot(offer, f"odd{n}", "#side"), "content": json.loads(content)})
    arm(page, shop, slot(offer))
    expect(page.get_by_role("heading", name="For you")).to_be_visible()
    errors.clear()  # the console may say what it could not read


def test_a_slot_takes_no_focus_and_does_not_move(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    body = BODY.replace("width: 300px", "width: 300px; height: 400px; overflow: auto")
    connected(page, shop, until, shop.page(body=f"<button id=before>Before</button>{body}"))
    page.locator("#before").focus()
    page.evaluate("""() => { window.moved = 0; new PerformanceObserver((list) => list.getEntries().forEach((one) => {
        window.moved += one.value; })).observe({type: 'layout-shift', buffered: false}); }""")
    arm(page, shop, slot(offer))
    until(page, lambda: shop.tracked("Offer Shown"))
    assert page.evaluate("document.activeElement.id") == "before"
    assert page.evaluate("document.getElementById('hero').getAnimations({subtree: true}).length") == 0
    shop.push("disarm", DISARM)
    until(page, lambda: own(page) == OWN)
    assert page.evaluate("document.activeElement.id") == "before"
    assert page.evaluate("window.moved") == 0, "an element with its height reserved moves nothing"
