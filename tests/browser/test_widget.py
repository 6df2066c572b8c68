"""The widget: what it shows, when, how often, and how it behaves towards those who do not use a mouse."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from connectors import assets
from tests.browser.shop_server import WEB, ShopServer
from tests.browser.steps import Offer, Until, arm, connected

pytestmark = pytest.mark.browser

EXIT = "document.dispatchEvent(new CustomEvent('attimo:exit-intent', {cancelable: true}))"
BODY = '<button id="before">Before</button><p>Shop</p><a id="after" href="#x">After</a>'


@pytest.mark.parametrize("format", ["popup", "banner", "bar"])
@pytest.mark.parametrize("width", [320, 1000])
def test_each_format_is_shown_in_its_shadow_and_fits(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer, format: str, width: int
) -> None:
    page = visitor(viewport={"width": width, "height": 600}).new_page()
    connected(page, shop, until, shop.page(body=BODY))
    shop.push("send", offer("send", format))
    box = page.get_by_role("dialog" if format == "popup" else "region", name="Before you go")
    expect(box).to_be_visible()
    expect(box.get_by_text("Ten percent off today.")).to_be_visible()
    expect(box.get_by_role("link", name="Show me")).to_have_attribute("href", shop.url + "/offer")
    expect(box.get_by_text("STAY10")).to_be_visible()
    place = box.bounding_box()
    assert place is not None
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = box.locator(".actions > *").evaluate_all("all => all.map((one) => [one.offsetWidth, one.offsetHeight])")
    assert all(size == sizes[0] for size in sizes), "yes and no are equally large"
    assert page.evaluate("document.body.innerText").strip().startswith("Before"), "outside the shadow nothing changed"
    shown = until(page, lambda: shop.tracked("Offer Shown"))
    assert shown[0]["properties"] == {"action_id": "clicks-1-stay-0", "campaign": "stay"}


def test_a_page_s_own_style_does_not_reach_in(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    url = shop.page(body=BODY, head="<style>* {color: red !important; display: block !important} "
                                    "attimo-offer {display: none !important}</style>")
    connected(page, shop, until, url)
    shop.push("send", offer("send"))
    title = page.get_by_role("heading", name="Before you go")
    expect(title).to_be_visible()
    assert title.evaluate("(one) => getComputedStyle(one).color") == "rgb(34, 48, 43)"


def test_the_shadow_is_closed_unless_asked(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    shop.page()
    shop.pages["/"] = shop.pages["/"].replace('data-shadow="open"', "")
    connected(page, shop, until, shop.url + "/")
    arm(page, shop, offer("send"))
    assert page.evaluate("document.querySelector('attimo-offer').shadowRoot") is None


def test_keyboard_focus_is_kept_in_the_popup_and_given_back(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    page.focus("#before")
    arm(page, shop, offer("send"))
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
    assert until(page, lambda: shop.tracked("Offer Dismissed"))[0]["properties"]["campaign"] == "stay"


def test_the_popup_says_what_it_is(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send"))
    dialog = page.get_by_role("dialog", name="Before you go")
    expect(dialog).to_have_attribute("aria-modal", "true")
    expect(dialog).to_have_accessible_description("Ten percent off today.")
    expect(dialog.get_by_role("button", name="Close")).to_have_count(1)
    assert page.evaluate("document.getElementById('before').matches(':focus')") is False
    page.get_by_role("button", name="Before", exact=True).focus()
    assert page.evaluate("document.activeElement.localName") == "attimo-offer", "what is behind is inert"


@pytest.mark.parametrize("format", ["popup", "bar"])
def test_a_picture_for_the_eye_alone_is_not_read_out(
    page: Page, shop: ShopServer, until: Until, offer: Offer, format: str
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    html = "<img src='/shop/img/vento-radio.svg' alt='A radio'><img src='/shop/img/icon.svg' alt=''>"
    arm(page, shop, offer("send", format, content={"image_url": "/shop/img/sole-candle.svg", "html": html}))
    images = page.locator("attimo-offer img")
    assert images.evaluate_all("all => all.map((one) => one.getAttribute('alt'))") == ["", "A radio", ""]


def test_a_bar_of_one_line_holds_its_cross(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send", "bar", content={"html": "", "button": "", "coupon": ""}))
    bar, cross = page.get_by_role("region").bounding_box(), page.get_by_role("button", name="Close").bounding_box()
    assert bar is not None
    assert cross is not None
    assert bar["y"] <= cross["y"]
    assert cross["y"] + cross["height"] <= bar["y"] + bar["height"]


@pytest.mark.parametrize("way", ["No, thanks", "Close", "backdrop", "Escape"])
def test_every_way_out_counts_once_and_holds_for_the_visit(
    page: Page, shop: ShopServer, until: Until, offer: Offer, way: str
) -> None:
    url = shop.page(body=BODY)
    connected(page, shop, until, url)
    arm(page, shop, offer("send"))
    if way == "backdrop":
        page.mouse.click(5, 300)
    elif way == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name=way).click()
    expect(page.locator("attimo-offer")).to_have_count(0)
    until(page, lambda: shop.tracked("Offer Dismissed"))
    connected(page, shop, until, url)
    shop.push("send", offer("send", id="another"))
    arm(page, shop, offer("send", "bar", "other"))
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(shop.tracked("Offer Dismissed")) == 1


@pytest.mark.parametrize("way", ["close", "yes"])
def test_who_answers_at_once_has_seen_it(page: Page, shop: ShopServer, until: Until, offer: Offer, way: str) -> None:
    """Before the frame is drawn, and before it is settled which tab shows it."""
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer(content={"url": "#there", "button": "Show me"}))
    page.evaluate(f"""() => {{
        {EXIT};
        document.querySelector('attimo-offer').shadowRoot.querySelector('.{way}').click(); }}""")
    answer = "Offer Dismissed" if way == "close" else "Offer Clicked"
    until(page, lambda: shop.tracked(answer))
    page.wait_for_timeout(200)
    told = [name for name in shop.names() if name.startswith("Offer ")]
    assert told == ["Offer Shown", answer]


def test_a_drag_that_ends_outside_does_not_dismiss(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send"))
    box = page.get_by_text("Ten percent").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(5, 300)
    page.mouse.up()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_click_is_reported_although_the_page_goes_away(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    shop.page("/offer")
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send"))
    page.get_by_role("link", name="Show me").click()
    page.wait_for_url("**/offer")
    assert until(page, lambda: shop.tracked("Offer Clicked"))[0]["properties"]["action_id"] == "clicks-1-stay-0"
    assert not shop.tracked("Offer Dismissed")


def test_the_coupon_is_copied(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer
) -> None:
    context = visitor(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send"))
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "STAY10"


@pytest.mark.parametrize(("motion", "animations"), [("reduce", 0), ("no-preference", 1)])
def test_motion_is_reduced_where_asked(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer, motion: Any, animations: int
) -> None:
    page = visitor(reduced_motion=motion).new_page()
    connected(page, shop, until, shop.page(body=BODY))
    page.evaluate("""document.addEventListener('attimo:shown', () => {
        const dialog = document.querySelector('attimo-offer').shadowRoot.querySelector('dialog');
        window.moving = dialog.getAnimations().length; })""")
    arm(page, shop, offer("send"))
    assert page.evaluate("window.moving") == animations


# When it is shown


def test_an_exit_intent_shows_what_is_armed_in_the_same_frame_with_the_network_cut(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer,
    measured: list[str],
) -> None:
    context = visitor()
    page = context.new_page()
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer(content={"image_url": "/shop/img/vento-radio.svg"}))
    picture = "document.querySelector('attimo-offer').shadowRoot.querySelector('img').complete"
    until(page, lambda: page.evaluate(picture))
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
    measured.append(f"exit intent to the frame that shows it: drawn within {seen['ms']:.1f} ms (the frame's end)")
    assert not shop.tracked("Exit Intent")
    context.set_offline(False)
    until(page, lambda: shop.tracked("Exit Intent") and shop.tracked("Offer Shown"))


def test_a_send_waits_for_a_hidden_tab(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer
) -> None:
    page = visitor().new_page()
    page.add_init_script("""window.away = false;
        Object.defineProperty(document, 'hidden', {get: () => window.away});""")
    connected(page, shop, until, shop.page(body=BODY))
    page.evaluate("window.away = true")
    arm(page, shop, offer("send"), "armed")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_expiry_follows_the_monotonic_clock(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    page.evaluate("""() => { const now = performance.now.bind(performance); window.ahead = 0;
        performance.now = () => now() + window.ahead; Date.now = () => 0; }""")
    arm(page, shop, offer())
    page.evaluate("window.ahead = 60001")
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("window.ahead = 59000")
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_what_is_expired_is_taken_away(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    page.evaluate("""() => { window.gone = new Promise((done) =>
        document.addEventListener('attimo:disarmed', (event) => done(event.detail.reason))); }""")
    shop.push("arm", offer(campaign="late", expires_in_ms=0))
    shop.push("arm", offer(expires_in_ms=50))
    assert page.evaluate("window.gone") == "expired"
    expect(page.locator("attimo-offer")).to_have_count(0)


def test_the_higher_priority_has_the_slot(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer(campaign="low", content={"title": "Low"}))
    arm(page, shop, offer(campaign="high", priority=5, content={"title": "High"}))
    arm(page, shop, offer(campaign="bar", format="bar", content={"title": "Bar"}))
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog", name="High")).to_be_visible()
    expect(page.get_by_role("dialog", name="Low")).to_have_count(0)
    assert page.locator("attimo-offer[open][data-format=bar]").count() == 1
    shop.push("send", offer("send", campaign="later", content={"title": "Later"}))
    arm(page, shop, offer(campaign="mark", format="banner"))
    expect(page.get_by_role("dialog")).to_have_accessible_name("High")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Later")).to_be_visible()
    shop.push("send", offer("send", campaign="top", priority=9, content={"title": "Top"}))
    expect(page.get_by_role("dialog", name="Top")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(1)


def test_an_action_is_carried_out_once_in_a_browser(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    url = shop.page(body=BODY)
    connected(page, shop, until, url)
    action = offer("send")
    arm(page, shop, action)
    until(page, lambda: shop.tracked("Offer Shown"))
    shop.push("send", action)
    shop.armed = [action]
    connected(page, shop, until, url)
    arm(page, shop, offer("send", "bar", "other"))
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len([one for one in shop.tracked("Offer Shown") if one["properties"]["campaign"] == "stay"]) == 1


@pytest.mark.parametrize("kind", ["send", "arm"])
def test_two_tabs_show_it_once(
    visitor: Callable[..., BrowserContext], shop: ShopServer, until: Until, offer: Offer, kind: str
) -> None:
    context = visitor()
    url = shop.page(body=BODY)
    tabs = [context.new_page(), context.new_page()]
    for tab in tabs:
        connected(tab, shop, until, url)
        tab.evaluate("""() => { window.held = []; window.lost = [];
            document.addEventListener('attimo:armed', (event) => window.held.push(event.detail.campaign));
            document.addEventListener('attimo:disarmed', ({ detail }) =>
                detail.campaign === 'stay' && window.lost.push(detail.reason)); }""")  # the banner is either's
    shop.push(kind, offer(kind))
    shop.push("arm", offer(campaign="next", format="banner"))
    for tab in tabs:
        until(tab, lambda tab=tab: tab.evaluate("window.held.includes('next')"))
    if kind == "arm":
        for tab in tabs:
            tab.evaluate(f"() => {{ {EXIT} }}")
    popup = "attimo-offer[open][data-format=popup]"
    until(tabs[0], lambda: shop.tracked("Offer Shown"))
    until(tabs[0], lambda: sum(tab.locator(popup).count() for tab in tabs) == 1)
    if kind == "arm":
        assert all(tab.evaluate("window.held.length") == 2 for tab in tabs)
        assert sum("elsewhere" in tab.evaluate("window.lost") for tab in tabs) == 1
    tabs[0].wait_for_timeout(200)
    assert sum(tab.locator(popup).count() for tab in tabs) == 1
    assert len([one for one in shop.tracked("Offer Shown") if one["properties"]["campaign"] == "stay"]) == 1


# When it is not


def test_a_disarm_takes_back_what_is_not_shown(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer())
    arm(page, shop, offer(campaign="other", format="bar"))
    shop.push("disarm", {"type": "disarm", "id": "d", "at": 1, "campaign": "stay", "v": 1, "shop": "demo"})
    until(page, lambda: page.locator("attimo-offer").count() == 1)
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.locator("attimo-offer[open][data-format=bar]").count() == 1


@pytest.mark.parametrize(("happens", "left"), [
    ("attimo.track('Product Added', {product_id: 'p'})", 0),
    ("attimo.page()", 1),
    ("attimo.track('Order Completed', {order_id: '1'})", 0),
    ("attimo.reset()", 0),
    ("attimo.consent({marketing: false})", 0),
    ("attimo.consent({analytics: false})", 0),
])
def test_what_disarms_by_itself(
    page: Page, shop: ShopServer, until: Until, offer: Offer, happens: str, left: int
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer(disarm_on=["Product Added", "Cart Viewed"]))
    page.evaluate(f"() => {{ {happens} }}")
    assert page.locator("attimo-offer").count() == left
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_have_count(left)


def test_an_order_also_closes_what_is_open(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send"))
    page.evaluate("attimo.track('Order Completed', {order_id: '1'})")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert not shop.tracked("Offer Dismissed")


# The stream


def test_the_armed_set_is_restored_and_is_the_whole_truth(
    page: Page, shop: ShopServer, until: Until, offer: Offer
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer(campaign="old", format="bar"))
    shop.armed = [offer()]
    shop.hang_up()
    until(page, lambda: page.locator("attimo-offer[data-format=popup]").count() == 1)
    assert page.locator("attimo-offer").count() == 1
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_nothing_breaks_without_a_server(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    shop.token_status = 500
    page.goto(shop.page(body=BODY))
    until(page, lambda: shop.tracked("page"))
    page.evaluate(EXIT)
    shop.token_status = 200
    shop.armed = [offer()]
    until(page, lambda: page.locator("attimo-offer").count() == 1)


def test_an_id_of_another_browser_is_given_up_once(page: Page, shop: ShopServer, until: Until, offer: Offer) -> None:
    shop.bound["stolen-id-1"] = "somebody's nonce"
    page.add_init_script(
        "if (!localStorage.getItem('attimo.rebound')) document.cookie = 'attimo_id=stolen-id-1;path=/'")
    shop.armed = [offer()]
    page.goto(shop.page(body=BODY))
    until(page, lambda: page.locator("attimo-offer").count() == 1)
    ids = [message["anonymousId"] for message in shop.unique()]
    assert ids[0] == "stolen-id-1"
    assert page.evaluate("attimo.anonymousId()") == ids[-1] != "stolen-id-1"
    shop.bound[ids[-1]] = "somebody else's again"
    page.reload()
    until(page, lambda: len(shop.tracked("page")) > 2)
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
def test_hostile_content_does_nothing(page: Page, shop: ShopServer, until: Until, offer: Offer, html: str) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    arm(page, shop, offer("send", content={"html": html + "<p>Kept</p>"}))
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
    assert page.url == shop.url + "/"


@pytest.mark.parametrize("url", [
    "javascript:window.hurt=1", "data:text/html,x", "vbscript:x", " javascript:1", "file:///etc/passwd",
])
def test_only_web_addresses_are_followed(page: Page, shop: ShopServer, until: Until, offer: Offer, url: str) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    title = "<img src=x onerror='window.hurt=1'>"
    arm(page, shop, offer("send", content={"url": url, "image_url": url, "title": title}))
    dialog = page.get_by_role("dialog")
    assert dialog.locator("[href], img").count() == 0
    expect(dialog.get_by_role("heading")).to_have_text(title)
    dialog.get_by_role("button", name="Show me").click()
    assert page.evaluate("window.hurt") is None


@pytest.mark.parametrize("data", [
    "null", "7", "[]", "{}", '{"type":"arm"}',
    '{"type":"arm","id":"1","campaign":"c","format":"takeover","expires_in_ms":9}',
    '{"type":"send","id":"1","campaign":"c","format":"popup","content":null,"expires_in_ms":9000}',
    '{"type":"arm","id":"1","campaign":"c","format":"bar","content":{"title":{"a":1}},"expires_in_ms":"soon"}',
])
def test_nonsense_on_the_stream_is_survived(
    page: Page, shop: ShopServer, until: Until, offer: Offer, errors: list[str], data: str
) -> None:
    connected(page, shop, until, shop.page(body=BODY))
    for name in ("arm", "send", "disarm", "armed"):
        shop.push(name, json.loads(data))
    arm(page, shop, offer(campaign="sound"))
    page.evaluate(EXIT)
    expect(page.get_by_role("dialog", name="Before you go")).to_be_visible()
    errors.clear()  # the console may say what it could not read


def test_pixel_and_widget_are_small() -> None:
    sizes = {name: len(assets.load(WEB / name, spare=True).packed) for name in ("pixel.js", "widget.js")}
    assert sum(sizes.values()) < 12_000, sizes
