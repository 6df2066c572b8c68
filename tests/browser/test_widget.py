"""The widget: what it shows, when, how often, and how it behaves towards those who do not use a mouse."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from connectors.http import responses
from tests.harness.browser import Offer, Until, open_connected, push_and_wait
from tests.harness.fake_server import WEB, FakeServer

pytestmark = pytest.mark.browser

EXIT = "document.dispatchEvent(new CustomEvent('attimo:exit-intent', {cancelable: true}))"
BODY = '<button id="before">Before</button><p>Shop</p><a id="after" href="#x">After</a>'


@pytest.mark.parametrize("format", ["popup", "banner", "bar"])
@pytest.mark.parametrize("width", [320, 1000])
def test_each_format_renders_in_its_shadow_root_and_fits(
    new_context: Callable[..., BrowserContext],
    server: FakeServer,
    wait_until: Until,
    make_action: Offer,
    format: str,
    width: int,
) -> None:
    page = new_context(viewport={"width": width, "height": 600}).new_page()
    open_connected(page, server, wait_until, server.page(body=BODY))
    server.push("send", make_action("send", format))
    box = page.get_by_role("dialog" if format == "popup" else "region", name="Before you go")
    expect(box).to_be_visible()
    expect(box.get_by_text("Ten percent off today.")).to_be_visible()
    expect(box.get_by_role("link", name="Show me")).to_have_attribute("href", server.url + "/offer")
    expect(box.get_by_text("STAY10")).to_be_visible()
    place = box.bounding_box()
    assert place is not None
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = box.locator(".actions > *").evaluate_all("all => all.map((one) => [one.offsetWidth, one.offsetHeight])")
    assert all(size == sizes[0] for size in sizes), "yes and no are equally large"
    assert page.evaluate("document.body.innerText").strip().startswith("Before"), "outside the shadow nothing changed"
    shown = wait_until(page, lambda: server.tracked("Offer Shown"))
    assert shown[0]["properties"] == {"action_id": "clicks-1-stay-0", "campaign": "stay"}


def test_page_styles_do_not_affect_the_widget(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    url = server.page(
        body=BODY,
        head="<style>* {color: red !important; display: block !important} "
        "attimo-offer {display: none !important}</style>",
    )
    open_connected(page, server, wait_until, url)
    server.push("send", make_action("send"))
    title = page.get_by_role("heading", name="Before you go")
    expect(title).to_be_visible()
    assert title.evaluate("(one) => getComputedStyle(one).color") == "rgb(34, 48, 43)"


def test_shadow_root_is_closed_by_default(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    server.page()
    server.pages["/"] = server.pages["/"].replace('data-shadow="open"', "")
    open_connected(page, server, wait_until, server.url + "/")
    push_and_wait(page, server, make_action("send"))
    assert page.evaluate("document.querySelector('attimo-offer').shadowRoot") is None


def test_keyboard_focus_is_trapped_and_restored(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.focus("#before")
    push_and_wait(page, server, make_action("send"))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_focused()
    inside = "document.activeElement.localName === 'attimo-offer'"
    words = []
    for _ in range(5):
        page.keyboard.press("Tab")
        assert page.evaluate(inside)
        words.append(page.evaluate("document.activeElement.shadowRoot.activeElement.textContent"))
    assert words == ["Copy", "Show me", "No, thanks", "×", "Copy"]
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.shadowRoot.activeElement.textContent") == "×"
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "before"
    assert wait_until(page, lambda: server.tracked("Offer Dismissed"))[0]["properties"]["campaign"] == "stay"


def test_popup_has_accessible_name_and_role(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send"))
    dialog = page.get_by_role("dialog", name="Before you go")
    expect(dialog).to_have_attribute("aria-modal", "true")
    expect(dialog).to_have_accessible_description("Ten percent off today.")
    expect(dialog.get_by_role("button", name="Close")).to_have_count(1)
    assert page.evaluate("document.getElementById('before').matches(':focus')") is False
    page.get_by_role("button", name="Before", exact=True).focus()
    assert page.evaluate("document.activeElement.localName") == "attimo-offer", "what is behind is inert"


@pytest.mark.parametrize("format", ["popup", "bar"])
def test_decorative_image_has_empty_alt_text(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, format: str
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    html = "<img src='/shop/img/vento-radio.svg' alt='A radio'><img src='/shop/img/icon.svg' alt=''>"
    push_and_wait(
        page, server, make_action("send", format, content={"image_url": "/shop/img/sole-candle.svg", "html": html})
    )
    images = page.locator("attimo-offer img")
    assert images.evaluate_all("all => all.map((one) => one.getAttribute('alt'))") == ["", "A radio", ""]


def test_single_line_bar_contains_its_close_button(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send", "bar", content={"html": "", "button": "", "coupon": ""}))
    bar, cross = page.get_by_role("region").bounding_box(), page.get_by_role("button", name="Close").bounding_box()
    assert bar is not None
    assert cross is not None
    assert bar["y"] <= cross["y"]
    assert cross["y"] + cross["height"] <= bar["y"] + bar["height"]


@pytest.mark.parametrize("way", ["No, thanks", "Close", "backdrop", "Escape"])
def test_every_dismissal_is_reported_once_per_session(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, way: str
) -> None:
    url = server.page(body=BODY)
    open_connected(page, server, wait_until, url)
    push_and_wait(page, server, make_action("send"))
    if way == "backdrop":
        page.mouse.click(5, 300)
    elif way == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name=way).click()
    expect(page.locator("attimo-offer")).to_have_count(0)
    wait_until(page, lambda: server.tracked("Offer Dismissed"))
    open_connected(page, server, wait_until, url)
    server.push("send", make_action("send", id="another"))
    push_and_wait(page, server, make_action("send", "bar", "other"))
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(server.tracked("Offer Dismissed")) == 1


@pytest.mark.parametrize("way", ["close", "primary"])
def test_immediate_click_also_reports_the_impression(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, way: str
) -> None:
    """Before the frame is drawn, and before it is settled which tab shows it."""
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action(content={"url": "#there", "button": "Show me"}))
    page.evaluate(f"""() => {{
        {EXIT};
        document.querySelector('attimo-offer').shadowRoot.querySelector('.{way}').click(); }}""")
    answer = "Offer Dismissed" if way == "close" else "Offer Clicked"
    wait_until(page, lambda: server.tracked(answer))
    page.wait_for_timeout(200)
    told = [name for name in server.message_names() if name.startswith("Offer ")]
    assert told == ["Offer Shown", answer]


def test_a_drag_that_ends_outside_does_not_dismiss(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send"))
    box = page.get_by_text("Ten percent").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(5, 300)
    page.mouse.up()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_click_is_reported_when_the_page_unloads(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    server.page("/offer")
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send"))
    page.get_by_role("link", name="Show me").click()
    page.wait_for_url("**/offer")
    assert wait_until(page, lambda: server.tracked("Offer Clicked"))[0]["properties"]["action_id"] == "clicks-1-stay-0"
    assert not server.tracked("Offer Dismissed")


def test_coupon_code_is_copied(
    new_context: Callable[..., BrowserContext], server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    context = new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send"))
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "STAY10"


@pytest.mark.parametrize(("motion", "animations"), [("reduce", 0), ("no-preference", 1)])
def test_reduced_motion_is_respected(
    new_context: Callable[..., BrowserContext],
    server: FakeServer,
    wait_until: Until,
    make_action: Offer,
    motion: Any,
    animations: int,
) -> None:
    page = new_context(reduced_motion=motion).new_page()
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.evaluate("""document.addEventListener('attimo:shown', () => {
        const dialog = document.querySelector('attimo-offer').shadowRoot.querySelector('dialog');
        window.moving = dialog.getAnimations().length; })""")
    push_and_wait(page, server, make_action("send"))
    assert page.evaluate("window.moving") == animations


# When it is shown


def test_exit_intent_shows_preloaded_offer_offline(
    new_context: Callable[..., BrowserContext],
    server: FakeServer,
    wait_until: Until,
    make_action: Offer,
    measurements: list[str],
) -> None:
    context = new_context()
    page = context.new_page()
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action(content={"image_url": "/shop/img/vento-radio.svg"}))
    picture = "document.querySelector('attimo-offer').shadowRoot.querySelector('img').complete"
    wait_until(page, lambda: page.evaluate(picture))
    expect(page.get_by_role("dialog")).to_have_count(0)
    context.set_offline(True)
    page.evaluate("""() => {
        const visible = () => {
            const one = document.querySelector('attimo-offer').shadowRoot.querySelector('dialog');
            return one.checkVisibility({visibilityProperty: true, opacityProperty: true})
                && one.getBoundingClientRect().height > 100 && one.querySelector('img').naturalWidth > 0; };
        window.seen = new Promise((done) => document.addEventListener('attimo:exit-intent', () => {
            const found = {synchronously: visible()};
            requestAnimationFrame(() => {
                found.inFrame = visible();
                requestAnimationFrame((next) => {
                    found.ms = next - performance.getEntriesByName('attimo:exit-intent')[0].startTime;
                    done(found); }); });
        })); }""")
    page.mouse.move(400, 300)
    page.mouse.move(400, 120)
    page.mouse.move(400, -5)
    seen = page.evaluate("window.seen")
    assert seen["synchronously"], "visible before the event was over"
    assert seen["inFrame"], "and when the frame of the event was drawn"
    order = page.evaluate("performance.getEntriesByType('mark').map((one) => one.name)")
    assert order == ["attimo:exit-intent", "attimo:shown"]
    measurements.append(f"exit intent to the frame that shows it: drawn within {seen['ms']:.1f} ms (the frame's end)")
    assert not server.tracked("Exit Intent")
    context.set_offline(False)
    wait_until(page, lambda: server.tracked("Exit Intent") and server.tracked("Offer Shown"))


def test_a_send_waits_for_a_hidden_tab(
    new_context: Callable[..., BrowserContext], server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    page = new_context().new_page()
    page.add_init_script("""window.away = false;
        Object.defineProperty(document, 'hidden', {get: () => window.away});""")
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.evaluate("window.away = true")
    push_and_wait(page, server, make_action("send"), "preloaded")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_expiry_follows_the_monotonic_clock(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.evaluate("""() => { const now = performance.now.bind(performance); window.ahead = 0;
        performance.now = () => now() + window.ahead; Date.now = () => 0; }""")
    push_and_wait(page, server, make_action())
    page.evaluate("window.ahead = 60001")
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("window.ahead = 59000")
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_expired_offer_is_removed(page: Page, server: FakeServer, wait_until: Until, make_action: Offer) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    page.evaluate("""() => { window.gone = new Promise((done) =>
        document.addEventListener('attimo:cancelled', (event) => done(event.detail.reason))); }""")
    server.push("preload", make_action(campaign="late", expires_in_ms=0))
    server.push("preload", make_action(expires_in_ms=50))
    assert page.evaluate("window.gone") == "expired"
    expect(page.locator("attimo-offer")).to_have_count(0)


def test_highest_priority_offer_is_shown(page: Page, server: FakeServer, wait_until: Until, make_action: Offer) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action(campaign="low", content={"title": "Low"}))
    push_and_wait(page, server, make_action(campaign="high", priority=5, content={"title": "High"}))
    push_and_wait(page, server, make_action(campaign="bar", format="bar", content={"title": "Bar"}))
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog", name="High")).to_be_visible()
    expect(page.get_by_role("dialog", name="Low")).to_have_count(0)
    assert page.locator("attimo-offer[open][data-format=bar]").count() == 1
    server.push("send", make_action("send", campaign="later", content={"title": "Later"}))
    push_and_wait(page, server, make_action(campaign="mark", format="banner"))
    expect(page.get_by_role("dialog")).to_have_accessible_name("High")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Later")).to_be_visible()
    server.push("send", make_action("send", campaign="top", priority=9, content={"title": "Top"}))
    expect(page.get_by_role("dialog", name="Top")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(1)


def test_action_is_executed_once_per_browser(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    url = server.page(body=BODY)
    open_connected(page, server, wait_until, url)
    action = make_action("send")
    push_and_wait(page, server, action)
    wait_until(page, lambda: server.tracked("Offer Shown"))
    server.push("send", action)
    server.preloaded = [action]
    open_connected(page, server, wait_until, url)
    push_and_wait(page, server, make_action("send", "bar", "other"))
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len([one for one in server.tracked("Offer Shown") if one["properties"]["campaign"] == "stay"]) == 1


@pytest.mark.parametrize("kind", ["send", "preload"])
def test_two_tabs_show_the_offer_once(
    new_context: Callable[..., BrowserContext], server: FakeServer, wait_until: Until, make_action: Offer, kind: str
) -> None:
    context = new_context()
    url = server.page(body=BODY)
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        open_connected(tab, server, wait_until, url)
        tab.evaluate("""() => { window.preloaded = []; window.lost = [];
            document.addEventListener('attimo:preloaded', (event) => window.preloaded.push(event.detail.campaign));
            document.addEventListener('attimo:cancelled', ({ detail }) =>
                detail.campaign === 'stay' && window.lost.push(detail.reason)); }""")  # the banner is either's
    server.push(kind, make_action(kind))
    server.push("preload", make_action(campaign="next", format="banner"))
    for tab in tabs:
        wait_until(tab, lambda tab=tab: tab.evaluate("window.preloaded.includes('next')"))
    if kind == "preload":
        for tab in tabs:
            tab.evaluate(f"() => {{ {EXIT} }}")
    popup = "attimo-offer[open][data-format=popup]"
    wait_until(tabs[0], lambda: server.tracked("Offer Shown"))
    wait_until(tabs[0], lambda: sum(tab.locator(popup).count() for tab in tabs) == 1)
    if kind == "preload":
        assert all(tab.evaluate("window.preloaded.length") == 2 for tab in tabs)
        assert sum("other_tab" in tab.evaluate("window.lost") for tab in tabs) == 1
    tabs[0].wait_for_timeout(200)
    assert sum(tab.locator(popup).count() for tab in tabs) == 1
    assert len([one for one in server.tracked("Offer Shown") if one["properties"]["campaign"] == "stay"]) == 1


# When it is not


def test_cancel_removes_an_offer_not_yet_shown(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action())
    push_and_wait(page, server, make_action(campaign="other", format="bar"))
    server.push("cancel", {"type": "cancel", "id": "d", "at": 1, "campaign": "stay", "v": 1, "shop": "demo"})
    wait_until(page, lambda: page.locator("attimo-offer").count() == 1)
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.locator("attimo-offer[open][data-format=bar]").count() == 1


@pytest.mark.parametrize(
    ("happens", "left"),
    [
        ("attimo.track('Product Added', {product_id: 'p'})", 0),
        ("attimo.page()", 1),
        ("attimo.track('Order Completed', {order_id: '1'})", 0),
        ("attimo.reset()", 0),
        ("attimo.consent({marketing: false})", 0),
        ("attimo.consent({analytics: false})", 0),
    ],
)
def test_events_that_cancel_preloaded_offers(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, happens: str, left: int
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action(cancel_on=["Product Added", "Cart Viewed"]))
    page.evaluate(f"() => {{ {happens} }}")
    assert page.locator("attimo-offer").count() == left
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_have_count(left)


def test_order_closes_an_open_offer(page: Page, server: FakeServer, wait_until: Until, make_action: Offer) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send"))
    page.evaluate("attimo.track('Order Completed', {order_id: '1'})")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert not server.tracked("Offer Dismissed")


# The stream


def test_snapshot_replaces_all_preloaded_offers(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action(campaign="old", format="bar"))
    server.preloaded = [make_action()]
    server.close_streams()
    wait_until(page, lambda: page.locator("attimo-offer[data-format=popup]").count() == 1)
    assert page.locator("attimo-offer").count() == 1
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_widget_recovers_from_server_errors(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    server.token_status = 500
    page.goto(server.page(body=BODY))
    wait_until(page, lambda: server.tracked("page"))
    page.evaluate(EXIT)
    server.token_status = 200
    server.preloaded = [make_action()]
    wait_until(page, lambda: page.locator("attimo-offer").count() == 1)


def test_id_bound_to_another_browser_is_replaced_once(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer
) -> None:
    server.bound["stolen-id-1"] = "somebody's nonce"
    page.add_init_script(
        "if (!localStorage.getItem('attimo.rebound_at')) document.cookie = 'attimo_id=stolen-id-1;path=/'"
    )
    server.preloaded = [make_action()]
    page.goto(server.page(body=BODY))
    wait_until(page, lambda: page.locator("attimo-offer").count() == 1)
    ids = [message["anonymousId"] for message in server.unique_messages()]
    assert ids[0] == "stolen-id-1"
    assert page.evaluate("attimo.anonymousId()") == ids[-1] != "stolen-id-1"
    server.bound[ids[-1]] = "somebody else's again"
    page.reload()
    wait_until(page, lambda: len(server.tracked("page")) > 2)
    page.wait_for_timeout(300)
    assert page.evaluate("attimo.anonymousId()") == ids[-1], "not on every page"


# Content that means harm: the server has cleaned it, and the widget does not rely on it.

ATTACKS = [
    "<script>window.hurt=1</script>",
    "<img src=x onerror='window.hurt=1'>",
    "<svg onload='window.hurt=1'><script>window.hurt=1</script></svg>",
    "<a href='javascript:window.hurt=1' id=bait>bait</a>",
    "<a href='java\tscript:window.hurt=1'>bait</a><a href='data:text/html,<script>1</script>'>bait</a>",
    "<iframe srcdoc='<script>parent.hurt=1</script>'></iframe>",
    "<div onmouseover='window.hurt=1' style='position:fixed;inset:0'>over</div>",
    "<math><mtext><table><mglyph><style><img src=x onerror='window.hurt=1'></style></mglyph></table></mtext></math>",
    "<form action='https://evil.example'><input><button formaction='javascript:window.hurt=1'>pay</button></form>",
    "<base href='https://evil.example/'><meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<noscript><p title=\"</noscript><img src=x onerror='window.hurt=1'>\"></noscript>",
    "<template><script>window.hurt=1</script></template><object data='javascript:window.hurt=1'></object>",
]


@pytest.mark.parametrize("html", ATTACKS)
def test_hostile_content_is_inert(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, html: str
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    push_and_wait(page, server, make_action("send", content={"html": html + "<p>Kept</p>"}))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Kept")).to_be_visible()
    for bait in dialog.get_by_text("bait").all():
        bait.hover()
        bait.click()
        if not dialog.count():
            break
    left = page.evaluate("""[...document.querySelectorAll('attimo-offer')].flatMap((host) =>
        [...host.shadowRoot.querySelectorAll('.text *')].map((one) =>
            one.localName + [...one.attributes].map((it) => ` ${it.name}=${it.value}`).join('')))""")
    bad = ("script", " on", "style", "iframe", "form", "input", "svg", "base", "meta", "data:")
    assert not [one for one in left if any(word in one for word in bad)]
    page.wait_for_timeout(50)
    assert page.evaluate("window.hurt") is None
    assert page.url == server.url + "/"


@pytest.mark.parametrize(
    "url", ["javascript:window.hurt=1", "data:text/html,x", "vbscript:x", " javascript:1", "file:///etc/passwd"]
)
def test_only_web_addresses_are_followed(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, url: str
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    title = "<img src=x onerror='window.hurt=1'>"
    push_and_wait(page, server, make_action("send", content={"url": url, "image_url": url, "title": title}))
    dialog = page.get_by_role("dialog")
    assert dialog.locator("[href], img").count() == 0
    expect(dialog.get_by_role("heading")).to_have_text(title)
    dialog.get_by_role("button", name="Show me").click()
    assert page.evaluate("window.hurt") is None


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "7",
        "[]",
        "{}",
        '{"type":"preload"}',
        '{"type":"preload","id":"1","campaign":"c","format":"takeover","expires_in_ms":9}',
        '{"type":"send","id":"1","campaign":"c","format":"popup","content":null,"expires_in_ms":9000}',
        '{"type":"preload","id":"1","campaign":"c","format":"bar","content":{"title":{"a":1}},"expires_in_ms":"soon"}',
    ],
)
def test_invalid_stream_messages_are_ignored(
    page: Page, server: FakeServer, wait_until: Until, make_action: Offer, errors: list[str], data: str
) -> None:
    open_connected(page, server, wait_until, server.page(body=BODY))
    for name in ("preload", "send", "cancel", "snapshot"):
        server.push(name, json.loads(data))
    push_and_wait(page, server, make_action(campaign="sound"))
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog", name="Before you go")).to_be_visible()
    errors.clear()  # the console may say what it could not read


def test_pixel_and_widget_are_small() -> None:
    sizes = {name: len(responses.load_asset(WEB / name, strip=True).gzipped) for name in ("pixel.js", "widget.js")}
    assert sum(sizes.values()) < 12_000, sizes
