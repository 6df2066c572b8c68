"""Slots: elements of the shop's own page that a campaign fills for one person, and gives back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.harness.browser import Offer, Until, open_connected, push_and_wait
from tests.harness.fake_server import FakeServer

pytestmark = pytest.mark.browser

BODY = """<style>#hero { width: 300px } #hero h2, #side h2 { color: rgb(1, 2, 3) }</style>
    <div id="hero"><p id="own">For everybody</p> and some words</div><aside class="side" id="side">Side</aside>"""
ORIGINAL_HTML = '<p id="own">For everybody</p> and some words'


def slot_action(make_action: Offer, campaign: str = "hero", selector: Any = "#hero", **more: Any) -> dict[str, Any]:
    content = {
        "title": "For you",
        "html": "<p>The <b>lamps</b> you looked at.</p>",
        "button": "Show me",
        "coupon": "",
        **more.pop("content", {}),
    }
    return make_action("send", "slot", campaign, slot=selector, content=content, **more)


def reported_campaigns(server: FakeServer, event: str) -> list[str]:
    return [one["properties"]["campaign"] for one in server.tracked(event)]


def slot_html(page: Page) -> str:
    return str(page.evaluate("document.getElementById('hero').innerHTML"))


def test_slot_is_filled_in_shop_style_and_reported(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    server.page("/offer")
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(
        page, server, slot_action(make_action, content={"image_url": "/shop/img/vento-radio.svg", "coupon": "STAY10"})
    )
    hero = page.locator("#hero")
    expect(hero.get_by_role("heading", name="For you")).to_have_css("color", "rgb(1, 2, 3)")
    expect(hero).to_contain_text("The lamps you looked at.")
    expect(hero).to_contain_text("STAY10")
    expect(hero.locator("img")).to_have_attribute("alt", "")
    expect(page.get_by_text("For everybody")).to_have_count(0)
    assert hero.get_by_role("button").all_text_contents() == ["Copy"], "nothing in it is closed by hand"
    assert hero.evaluate("(one) => [...one.querySelectorAll('*')].every((it) => !it.className && !it.id)"), (
        "no name of ours meets one of the shop's"
    )
    assert wait_until(page, lambda: server.tracked("Offer Shown"))[0]["properties"] == {
        "action_id": "clicks-1-hero-0",
        "campaign": "hero",
    }
    hero.get_by_role("link", name="Show me").click()
    page.wait_for_url("**/offer")
    wait_until(page, lambda: reported_campaigns(server, "Offer Clicked") == ["hero"])
    assert reported_campaigns(server, "Offer Shown") == ["hero"]


def test_clicks_are_reported_and_keep_the_slot_filled(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=f"<form action='/gone'>{BODY}</form>"))
    push_and_wait(
        page, server, slot_action(make_action, content={"url": "", "html": "<p><a href='#lamps'>Lamps</a></p>"})
    )
    page.get_by_role("button", name="Show me").click()
    page.get_by_role("link", name="Lamps").click()
    wait_until(page, lambda: len(server.tracked("Offer Clicked")) == 2)
    expect(page.get_by_role("heading", name="For you")).to_be_visible()
    assert page.url == server.url + "/#lamps", "a button in a form of the shop's does not send it"


def test_slot_does_not_intercept_the_back_button(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    """A page that may not be left says so by the event of the exit intent; a slot is no reason."""
    open_connected(page, server, wait_until, server.page(body=BODY))
    leave = "document.dispatchEvent(new CustomEvent('attimo:exit-intent', {cancelable: true}))"
    push_and_wait(page, server, slot_action(make_action))
    assert page.evaluate(leave) is True
    push_and_wait(page, server, make_action(campaign="stay"))
    assert page.evaluate(leave) is False


CANCEL = {"type": "cancel", "id": "d", "at": 1, "campaign": "hero", "v": 1, "shop": "demo"}


@pytest.mark.parametrize(
    "happens",
    [
        "attimo.consent({marketing: false})",
        "attimo.consent({analytics: false})",
        "attimo.reset()",
        "attimo.track('Order Completed', {order_id: '1'})",
        "attimo.track('Product Added', {product_id: 'p'})",
        "cancel",
    ],
)
def test_cancel_restores_the_original_content(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, happens: str
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.evaluate("document.getElementById('own').onclick = () => { window.alive = true; }")
    push_and_wait(page, server, slot_action(make_action, cancel_on=["Product Added"]))
    push_and_wait(page, server, slot_action(make_action, "side", ".side", content={"title": "Aside"}))
    if happens == "cancel":
        server.push("cancel", CANCEL)
    else:
        page.evaluate(f"() => {{ {happens} }}")
    wait_until(page, lambda: slot_html(page) == ORIGINAL_HTML)
    page.locator("#own").click()
    assert page.evaluate("window.alive"), "the very same elements, with what listens to them"
    all_of_it = happens != "cancel" and "Added" not in happens
    assert ("Aside" in page.locator("#side").inner_text()) is not all_of_it
    assert not server.tracked("Offer Dismissed")


def test_other_events_and_a_new_snapshot_keep_the_slot(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, slot_action(make_action, cancel_on=["Product Added"]))
    page.evaluate("attimo.track('Product Viewed', {product_id: 'p'})")
    page.evaluate("attimo.page()")
    server.preloaded = [make_action(campaign="else")]
    server.close_streams()
    wait_until(page, lambda: page.locator("attimo-offer[data-format=popup]").count() == 1)
    expect(page.get_by_role("heading", name="For you")).to_be_visible()


def test_several_slots_are_filled_beside_other_formats(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, slot_action(make_action))
    push_and_wait(page, server, slot_action(make_action, "side", "aside.side", content={"title": "Aside"}))
    push_and_wait(page, server, make_action("send", "banner", "note", content={"title": "A note"}))
    expect(page.locator("#hero h2")).to_have_text("For you")
    expect(page.locator("#side h2")).to_have_text("Aside")
    expect(page.get_by_role("region", name="A note")).to_be_visible()
    wait_until(page, lambda: set(reported_campaigns(server, "Offer Shown")) == {"hero", "side", "note"})
    page.get_by_role("button", name="No, thanks").click()
    expect(page.locator("#hero h2")).to_have_text("For you")


def test_latest_offer_of_highest_priority_fills_the_element(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, slot_action(make_action))
    push_and_wait(page, server, slot_action(make_action, "next", "div#hero", content={"title": "Next"}))
    expect(page.locator("#hero h2")).to_have_text("Next")
    push_and_wait(page, server, slot_action(make_action, id="again", content={"title": "Again"}))
    expect(page.locator("#hero h2")).to_have_text("Again")
    push_and_wait(page, server, slot_action(make_action, "low", priority=-1, content={"title": "Low"}), "preloaded")
    push_and_wait(page, server, slot_action(make_action, "side", "#side", content={"title": "Aside"}))
    expect(page.locator("#hero h2")).to_have_text("Again")
    server.push("cancel", CANCEL)
    expect(page.locator("#hero h2")).to_have_text("Low")
    server.push("cancel", {**CANCEL, "campaign": "low"})
    wait_until(page, lambda: slot_html(page) == ORIGINAL_HTML)


def test_slot_waits_for_an_element_added_later(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body="<main></main>"))
    push_and_wait(page, server, slot_action(make_action), "preloaded")
    page.evaluate("""() => new Promise((done) => setTimeout(done, 100)).then(() => {
        document.querySelector('main').innerHTML = '<section><div id=hero>Loading</div></section>'; })""")
    expect(page.locator("#hero h2")).to_have_text("For you")
    wait_until(page, lambda: reported_campaigns(server, "Offer Shown") == ["hero"])


def test_element_added_too_late_is_not_filled(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body="<main></main>"))
    page.evaluate("""() => { window.gone = new Promise((done) =>
        document.addEventListener('attimo:cancelled', (event) => done(event.detail.reason))); }""")
    server.push("send", slot_action(make_action, expires_in_ms=50))
    assert page.evaluate("window.gone") == "expired"
    page.evaluate("document.querySelector('main').innerHTML = '<div id=hero>Late</div>'")
    push_and_wait(page, server, make_action("send", "bar", "mark"))
    assert page.locator("#hero").inner_text() == "Late"
    assert reported_campaigns(server, "Offer Shown") in ([], ["mark"])


def test_rerendered_page_is_filled_by_the_next_action(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=f"<main>{BODY}</main>"))
    push_and_wait(page, server, slot_action(make_action))
    page.evaluate("html => { document.querySelector('main').innerHTML = html }", BODY)
    assert slot_html(page) == ORIGINAL_HTML
    push_and_wait(page, server, slot_action(make_action, id="again"))
    expect(page.locator("#hero h2")).to_have_text("For you")
    page.evaluate("html => { document.getElementById('hero').innerHTML = html }", "<p>The shop's news</p>")
    server.push("cancel", CANCEL)
    push_and_wait(page, server, make_action("send", "bar", "mark"))
    assert slot_html(page) == "<p>The shop's news</p>", "what the shop wrote over it is the shop's"


def test_element_removed_immediately_is_not_reported_as_shown(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.evaluate("""document.addEventListener('attimo:shown', ({detail}) =>
        detail.campaign === 'hero' && document.getElementById('hero').remove())""")
    push_and_wait(page, server, slot_action(make_action))
    push_and_wait(page, server, slot_action(make_action, "side", "#side"))
    wait_until(page, lambda: "side" in reported_campaigns(server, "Offer Shown"))
    assert reported_campaigns(server, "Offer Shown") == ["side"]


def test_element_rerendered_by_the_shop_can_be_filled_again(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, slot_action(make_action, priority=9))
    page.evaluate("document.getElementById('hero').textContent = 'News'")
    push_and_wait(page, server, slot_action(make_action, "low", content={"title": "Low"}))
    expect(page.locator("#hero h2")).to_have_text("Low")
    server.push("cancel", {**CANCEL, "campaign": "low"})
    wait_until(page, lambda: slot_html(page) == "News")


def test_offer_without_an_element_waits_for_the_next_page(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    action = slot_action(make_action)
    open_connected(page, server, wait_until, server.page(body="<p>No place</p>"))
    push_and_wait(page, server, action, "preloaded")
    server.preloaded = [action]
    open_connected(page, server, wait_until, server.page("/next", body=BODY))
    expect(page.locator("#hero h2")).to_have_text("For you")
    wait_until(page, lambda: server.tracked("Offer Shown"))
    open_connected(page, server, wait_until, server.page("/last", body=BODY))
    push_and_wait(page, server, make_action("send", "bar", "mark"))
    assert slot_html(page) == ORIGINAL_HTML, "an action is carried out once; the next page needs one of its own"


def test_two_tabs_report_one_impression(
    new_context: Callable[..., BrowserContext], server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    context, url = new_context(), server.page(body=BODY)
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        open_connected(tab, server, wait_until, url)
    server.push("send", slot_action(make_action))
    wait_until(tabs[0], lambda: server.tracked("Offer Shown"))
    has, other = sorted(tabs, key=lambda tab: -tab.locator("#hero h2").count())
    assert (has.locator("#hero h2").count(), other.locator("#hero h2").count()) == (1, 0)
    has.evaluate("""() => { window.heard = new Promise((done) => window.addEventListener('storage', (event) =>
        event.key === 'attimo.claimed' && setTimeout(done))); }""")
    other.evaluate("""() => { const done = JSON.parse(localStorage.getItem('attimo.claimed'));
        localStorage.setItem('attimo.claimed', JSON.stringify([...done, 'another'])); }""")
    has.evaluate("window.heard")
    expect(has.locator("#hero h2")).to_have_text("For you")
    assert reported_campaigns(server, "Offer Shown") == ["hero"], "what another tab did takes nothing back"


@pytest.mark.parametrize(
    "selector",
    [
        "",
        "###",
        "#hero:nth(",
        "div[",
        "a{}",
        "html",
        "body",
        "head",
        "title",
        ":root",
        "#none",
        7,
        None,
        ["#hero"],
        {"a": 1},
        "<img src=x onerror='window.hurt=1'>",
        "x" * 5000,
    ],
)
def test_selector_without_a_match_is_ignored(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, selector: Any
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY.replace('id="hero"', 'id="hero2"')))
    before = page.evaluate("document.body.innerHTML")
    server.push("send", slot_action(make_action, selector=selector))
    push_and_wait(page, server, make_action(campaign="sound"))
    page.evaluate("document.querySelectorAll('attimo-offer').forEach((one) => one.remove())")
    assert page.evaluate("document.body.innerHTML") == before
    assert page.evaluate("window.hurt") is None
    assert not server.tracked("Offer Shown")


@pytest.mark.parametrize(
    "element",
    [
        "<script id=bait type=text/plain>0</script>",
        "<style id=bait>p {}</style>",
        "<textarea id=bait>0</textarea>",
        "<iframe id=bait></iframe>",
        "<noscript id=bait></noscript>",
        "<template id=bait></template>",
        "<svg id=bait></svg>",
        "<select id=bait></select>",
        "<input id=bait>",
    ],
)
def test_hostile_content_is_inert_in_any_element(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, element: str
) -> None:
    words = "window.hurt=1; * { position: fixed }"
    open_connected(page, server, wait_until, server.page(body=element + BODY))
    html = (
        f"{words}<script>{words}</script><img src=x onerror='window.hurt=1'><style>{words}</style>"
        "<div style='position:fixed;inset:0' class='hero' id='own' onclick='window.hurt=1'>over</div>"
        "<form action='https://evil.example'><button formaction='javascript:window.hurt=1'>pay</button></form>"
        "<a href='javascript:window.hurt=1'>bait</a><slot name=x></slot></p></div></body>"
    )
    harm = {
        "title": "<script>window.hurt=1</script>",
        "html": html,
        "url": "javascript:window.hurt=1",
        "image_url": "data:image/svg+xml,<svg/>",
        "button": "<b>go</b>",
        "coupon": "<img src=x>",
    }
    push_and_wait(page, server, slot_action(make_action, "hero", content=harm))
    push_and_wait(page, server, slot_action(make_action, "bait", "#bait", content=harm))
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
    assert page.url == server.url + "/"


def test_content_of_the_wrong_type_is_ignored(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, errors: list[str]
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    for n, content in enumerate(("null", "7", "[]", '{"title": {"a": 1}, "html": 7, "url": [], "button": true}')):
        server.push("send", {**slot_action(make_action, f"odd{n}", "#side"), "content": json.loads(content)})
    push_and_wait(page, server, slot_action(make_action))
    expect(page.get_by_role("heading", name="For you")).to_be_visible()
    errors.clear()  # the console may say what it could not read


def test_a_slot_takes_no_focus_and_does_not_move(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    body = BODY.replace("width: 300px", "width: 300px; height: 400px; overflow: auto")
    open_connected(page, server, wait_until, server.page(body=f"<button id=before>Before</button>{body}"))
    page.locator("#before").focus()
    page.evaluate("""() => { window.moved = 0; new PerformanceObserver((list) => list.getEntries().forEach((one) => {
        window.moved += one.value; })).observe({type: 'layout-shift', buffered: false}); }""")
    push_and_wait(page, server, slot_action(make_action))
    wait_until(page, lambda: server.tracked("Offer Shown"))
    assert page.evaluate("document.activeElement.id") == "before"
    assert page.evaluate("document.getElementById('hero').getAnimations({subtree: true}).length") == 0
    server.push("cancel", CANCEL)
    wait_until(page, lambda: slot_html(page) == ORIGINAL_HTML)
    assert page.evaluate("document.activeElement.id") == "before"
    assert page.evaluate("window.moved") == 0, "an element with its height reserved moves nothing"
