"""The pixel: what it says, to whom, what it keeps, and what it never does without consent."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.shop_server import ShopServer

pytestmark = pytest.mark.browser

Until = Callable[..., Any]
Visitor = Callable[..., BrowserContext]
PRODUCT = {"@type": "Product", "sku": "S1", "name": "Lamp", "brand": {"name": "Lume"}, "category": "Light",
           "image": ["/lamp.svg"], "url": "/p/lamp",
           "offers": {"@type": "Offer", "price": "129.50", "priceCurrency": "EUR"}}


def ld(*nodes: Any) -> str:
    return "".join(f'<script type="application/ld+json">{json.dumps(node)}</script>' for node in nodes)


def settled(page: Page, shop: ShopServer, until: Until) -> None:
    """Wait until everything the pixel said was answered."""
    page.evaluate("attimo.track('Fence')")
    had = len(shop.tracked("Fence"))
    until(page, lambda: len(shop.tracked("Fence")) >= max(1, had))
    until(page, lambda: not queued(page))


def queued(page: Page) -> int:
    """How many calls wait to be answered."""
    return int(page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('attimo.q.')).length"))


def kept(page: Page) -> list[Any]:
    """What the browser has stored: the page's cookies, and the keys in localStorage."""
    return list(page.evaluate("[document.cookie, Object.keys(localStorage).sort()]"))


# What a call looks like


def test_a_page_view_is_a_segment_call(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page() + "?utm_source=news&utm_medium=mail&utm_campaign=spring&x=1#part")
    call = until(page, lambda: shop.tracked("page"))[0]
    request = shop.requests[0]
    assert request["type"].startswith("text/plain"), "which needs no preflight"
    assert request["body"]["writeKey"] == "WK"
    assert request["body"]["sentAt"] >= call["timestamp"]
    assert call["userId"] is None
    assert len(call["anonymousId"]) == 36
    assert call["messageId"].startswith("at-")
    context = call["context"]
    search = "?utm_source=news&utm_medium=mail&utm_campaign=spring&x=1"
    assert context["page"] == {
        "url": f"{shop.url}/{search}", "path": "/", "search": search, "title": "/", "referrer": "",
    }
    assert call["properties"] == context["page"], "the spec says it twice, so that conditions can ask for a path"
    page.evaluate("attimo.page('Help', {section: 'returns', path: '/help'})")
    named = until(page, lambda: shop.tracked("page")[1:])[0]
    assert (named["name"], named["properties"]["section"], named["properties"]["path"]) == ("Help", "returns", "/help")
    assert named["context"]["page"]["path"] == "/"
    assert context["campaign"] == {"source": "news", "medium": "mail", "name": "spring"}
    assert context["userAgentData"] == {"mobile": False}
    assert context["library"] == {"name": "attimo.js", "version": "0.1.0"}
    assert context["locale"] == "en-US"
    assert context["timezone"]
    assert "userAgent" not in context, "the header says it"


def test_the_engine_reads_what_the_pixel_sends(page: Page, shop: ShopServer, until: Until) -> None:
    from domain.event import Page as PageCall
    from domain.event import Track, decode

    page.goto(shop.page(head=ld(PRODUCT)) + "?utm_source=a")
    until(page, lambda: shop.tracked("Product Viewed"))
    events = [decode(json.dumps(message).encode()) for message in shop.unique()]
    assert isinstance(events[0], PageCall)
    assert isinstance(events[1], Track)
    assert events[1].properties["price"] == 129.5
    assert events[0].context is not None
    assert events[0].context.campaign is not None
    assert events[0].context.campaign.source == "a"


def test_calls_before_loading_and_after(page: Page, shop: ShopServer, until: Until) -> None:
    page.add_init_script("window.attimo = [['track', 'Early', {n: 1}], ['config', {country: 'CA'}]]")
    page.goto(shop.page())
    page.evaluate("attimo.push(['track', 'Late'])")
    until(page, lambda: "Late" in shop.names())
    assert shop.names() == ["page", "Early", "Late"]
    assert shop.unique()[0]["context"]["attimo"] == {"country": "CA"}


def test_a_login_is_remembered_and_a_logout_makes_somebody_new(page: Page, shop: ShopServer, until: Until) -> None:
    url = shop.page()
    page.goto(url)
    page.evaluate("attimo.identify('ann', {first_name: 'Ann'}, {userHash: 'h1'})")
    settled(page, shop, until)
    page.reload()
    until(page, lambda: len(shop.tracked("page")) == 2)
    later = shop.tracked("page")[1]
    assert (later["userId"], later["context"]["user_hash"]) == ("ann", "h1")
    assert "Ann" not in json.dumps(page.evaluate("({...localStorage})")), "traits are sent, not kept"
    page.evaluate("attimo.reset(); attimo.page()")
    until(page, lambda: len(shop.tracked("page")) == 3)
    out, last = shop.tracked("Signed Out")[0], shop.tracked("page")[2]
    assert (out["userId"], out["anonymousId"]) == ("ann", later["anonymousId"])
    assert last["userId"] is None
    assert "user_hash" not in last["context"]
    assert last["anonymousId"] != out["anonymousId"]
    assert all(len(request["ids"]) == 1 for request in shop.requests), "the server binds to the one id of a request"


def test_another_person_at_the_same_browser(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page())
    page.evaluate("attimo.identify('ann'); attimo.identify('ann', {vip: true}); attimo.identify('bob')")
    until(page, lambda: len(shop.tracked("identify")) == 3)
    assert shop.names() == ["page", "identify", "identify", "Signed Out", "identify"]
    first, again, other = shop.tracked("identify")
    assert first["anonymousId"] == again["anonymousId"] != other["anonymousId"]


def test_alias_names_both_ids(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page())
    page.evaluate("attimo.alias('ann')")
    call = until(page, lambda: shop.tracked("alias"))[0]
    assert (call["userId"], call["previousId"]) == ("ann", call["anonymousId"])


def test_nothing_a_shop_says_breaks_its_page(page: Page, shop: ShopServer, until: Until, errors: list[str]) -> None:
    page.goto(shop.page())
    page.evaluate("""() => {
        const loop = {}; loop.loop = loop;
        attimo.track('Loop', loop);
        attimo.track('Long', {text: 'x'.repeat(40000)});
        attimo.page(null, null);
        attimo.consent();
        attimo.push(['nonsense']);
        attimo.push(null);
        attimo.on('Fine', () => { throw new Error('shop'); });
        attimo.track('Fine'); }""")
    until(page, lambda: "Fine" in shop.names())
    assert "Loop" not in shop.names()
    assert "Long" not in shop.names()
    assert len(errors) >= 4
    assert all("attimo:" in one for one in errors), "said on the console, never thrown"
    errors.clear()


# Who it is


@pytest.mark.parametrize("lost", [
    "document.cookie = 'attimo_id=;path=/;max-age=0'",
    "localStorage.removeItem('attimo.id')",
    "document.cookie = 'attimo_id=<script>;path=/'",
])
def test_the_id_survives_the_loss_of_one_copy(page: Page, shop: ShopServer, until: Until, lost: str) -> None:
    url = shop.page()
    page.goto(url)
    settled(page, shop, until)
    who = page.evaluate("attimo.anonymousId()")
    page.evaluate(f"() => {{ {lost} }}")
    page.goto(url)
    assert page.evaluate("attimo.anonymousId()") == who
    assert page.evaluate("[document.cookie.includes(attimo.anonymousId()), localStorage['attimo.id']]") == [True, who]


def test_without_storage_it_still_speaks(page: Page, shop: ShopServer, until: Until) -> None:
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('forbidden'); }})")
    page.goto(shop.page())
    page.evaluate("attimo.track('Said')")
    until(page, lambda: "Said" in shop.names())
    assert len({message["anonymousId"] for message in shop.unique()}) == 1


# What a page says about itself


@pytest.mark.parametrize("nodes", [
    [PRODUCT],
    [[PRODUCT]],
    [{"@context": "https://schema.org", "@graph": [{"@type": "WebPage"}, PRODUCT]}],
    [{"@type": "ItemPage", "mainEntity": PRODUCT}],
    [{**PRODUCT, "@type": ["Thing", "Product"]}],
    [{**PRODUCT, "@type": "http://schema.org/Product"}],
    [{**PRODUCT, "offers": [PRODUCT["offers"]], "image": {"@type": "ImageObject", "url": "/lamp.svg"}}],
    [{**PRODUCT, "offers": {"@type": "AggregateOffer", "lowPrice": 129.5, "priceCurrency": "EUR"}, "brand": "Lume"}],
    [{**PRODUCT, "offers": {"@type": "AggregateOffer", "offers": [PRODUCT["offers"]]}}],
    [{"@type": "BreadcrumbList"}, "nonsense", PRODUCT, {"@type": "ItemList", "itemListElement": [PRODUCT, PRODUCT]}],
])
def test_a_product_page_is_understood(page: Page, shop: ShopServer, until: Until, nodes: list[Any]) -> None:
    page.goto(shop.page(head=ld(*nodes)))
    call = until(page, lambda: shop.tracked("Product Viewed"))[0]
    assert call["properties"] == {
        "product_id": "S1", "sku": "S1", "name": "Lamp", "brand": "Lume", "category": "Light", "price": 129.5,
        "currency": "EUR", "url": shop.url + "/p/lamp", "image_url": shop.url + "/lamp.svg",
    }


@pytest.mark.parametrize("nodes", [
    [PRODUCT, {**PRODUCT, "sku": "S2", "url": "/p/other"}],
    [{"@type": "ItemList", "itemListElement": [{"item": PRODUCT}]}],
    [{"@type": "ProductCollection"}],
    [{"@type": "Product"}],
    ["Product"],
])
def test_a_list_is_no_product_view(page: Page, shop: ShopServer, until: Until, nodes: list[Any]) -> None:
    page.goto(shop.page(head=ld(*nodes)))
    settled(page, shop, until)
    assert shop.names() == ["page", "Fence"]


def test_of_several_products_the_page_s_own_counts(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page("/p/lamp", head=ld(PRODUCT, {**PRODUCT, "sku": "S2", "url": "/p/other"})))
    assert until(page, lambda: shop.tracked("Product Viewed"))[0]["properties"]["product_id"] == "S1"


def test_a_price_that_is_no_number_is_left_out(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page(head=ld({**PRODUCT, "offers": {"price": "12,50 EUR", "priceCurrency": "EUR"}})))
    assert "price" not in until(page, lambda: shop.tracked("Product Viewed"))[0]["properties"]


def test_what_a_script_adds_later_is_seen_once(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page())
    page.evaluate("(text) => { document.head.insertAdjacentHTML('beforeend', text); }", ld(PRODUCT))
    until(page, lambda: shop.tracked("Product Viewed"))
    page.evaluate("document.body.append('more')")
    page.wait_for_timeout(250)
    assert len(shop.tracked("Product Viewed")) == 1


def test_attributes_speak_for_the_page(page: Page, shop: ShopServer, until: Until) -> None:
    body = """
      <main data-attimo-product='{"product_id":"P1","price":5}'>
        <button id=add data-attimo-add><b>Add</b></button></main>
      <button id=other data-attimo-add='{"product_id":"P2","quantity":3}'>Add</button>
      <button id=gone data-attimo-remove='{"product_id":"P2"}'>Remove</button>
      <section data-attimo-cart='{"cart_id":"c1","products":[]}'></section>
      <i data-attimo-checkout='{"order_id":"o1"}'></i>"""
    page.goto(shop.page(body=body))
    for button in ("#add b", "#other", "#gone"):
        page.click(button)
    until(page, lambda: shop.tracked("Product Removed"))
    assert shop.names() == ["page", "Product Viewed", "Cart Viewed", "Checkout Started",
                            "Product Added", "Product Added", "Product Removed"]
    assert [call["properties"] for call in shop.tracked("Product Added")] == [
        {"quantity": 1, "product_id": "P1", "price": 5}, {"quantity": 3, "product_id": "P2"}]


def test_broken_attributes_say_nothing(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page(body="<main data-attimo-product='{oops'><button data-attimo-add='7,'>Add</button></main>"))
    page.click("button")
    settled(page, shop, until)
    assert shop.names() == ["page", "Fence"]


def test_a_receipt_is_one_order_however_often_it_is_loaded(page: Page, shop: ShopServer, until: Until) -> None:
    url = shop.page("/thanks", body="<p data-attimo-order='{\"order_id\":\"7\",\"total\":9.5}'>Thanks</p>")
    for times in (1, 2, 3):
        page.goto(url)
        until(page, lambda times=times: len(shop.tracked("page")) == times)
        settled(page, shop, until)
    assert len(shop.tracked("Order Completed")) == 1


def test_single_page_shops_view_pages_too(page: Page, shop: ShopServer, until: Until) -> None:
    page.goto(shop.page())
    page.evaluate("history.pushState({}, '', '/list?c=1'); document.title = 'List'")
    until(page, lambda: len(shop.tracked("page")) == 2)
    page.evaluate("history.replaceState({}, '', '/list?c=1#top')")
    page.go_back()
    until(page, lambda: len(shop.tracked("page")) == 3)
    settled(page, shop, until)
    pages = [call["context"]["page"] for call in shop.tracked("page")]
    assert [one["path"] + one["search"] for one in pages] == ["/", "/list?c=1", "/"]
    assert pages[1]["title"] == "List"
    assert pages[1]["referrer"] == shop.url + "/"


def test_a_page_that_is_only_prepared_is_not_viewed(page: Page, shop: ShopServer, until: Until) -> None:
    page.add_init_script("Object.defineProperty(document, 'prerendering', {value: true, writable: true})")
    page.goto(shop.page(head=ld(PRODUCT)))
    page.wait_for_timeout(200)
    assert [shop.requests, *kept(page)] == [[], "", []]
    page.evaluate("document.prerendering = false; document.dispatchEvent(new Event('prerenderingchange'))")
    until(page, lambda: shop.names() == ["page", "Product Viewed"])


# Consent


def test_nothing_is_stored_or_sent_before_consent(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    context = visitor()
    page = context.new_page()
    page.goto(shop.page(head=ld(PRODUCT), tags='data-consent="required"'))
    page.evaluate("attimo.identify('ann', {}, {userHash: 'h'}); attimo.track('Curious')")
    page.wait_for_timeout(300)
    assert [shop.requests, kept(page), context.cookies()] == [[], ["", []], []]
    assert page.evaluate("attimo.anonymousId()") is None
    page.evaluate("attimo.consent({analytics: true, marketing: true})")
    until(page, lambda: "Curious" in shop.names())
    assert shop.names() == ["Consent Updated", "page", "Product Viewed", "identify", "Curious"]
    times = [call["timestamp"] for call in shop.unique()]
    assert times[1:] == sorted(times[1:])
    assert times[1] < times[0], "calls keep the time when they were made"
    assert len({call["anonymousId"] for call in shop.unique()}) == 1
    page.reload()
    until(page, lambda: len(shop.tracked("page")) == 2)
    assert shop.tracked("page")[1]["userId"] == "ann"
    assert len(shop.tracked("Consent Updated")) == 1, "said once"


def test_a_refusal_is_remembered_and_nothing_else(visitor: Visitor, shop: ShopServer) -> None:
    context = visitor()
    page = context.new_page()
    page.goto(shop.page(tags='data-consent="required"'))
    page.evaluate("attimo.consent({analytics: false, marketing: false})")
    page.reload()
    page.evaluate("attimo.track('Curious')")
    page.wait_for_timeout(300)
    assert [shop.requests, kept(page), context.cookies()] == [[], ["", ["attimo.consent"]], []]


@pytest.mark.parametrize("mistake", ["'false'", "0", "'yes'", "null", "1"])
def test_only_true_is_consent(page: Page, shop: ShopServer, mistake: str) -> None:
    page.goto(shop.page(tags='data-consent="required"'))
    page.evaluate(f"attimo.consent({{analytics: {mistake}, marketing: true}})")
    page.wait_for_timeout(100)
    assert page.evaluate("attimo.anonymousId()") is None
    assert shop.requests == []


def test_withdrawal_forgets_and_is_said_last(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    context = visitor()
    page, other = context.new_page(), context.new_page()
    url = shop.page()
    page.goto(url)
    page.evaluate("attimo.identify('ann')")
    settled(page, shop, until)
    who = page.evaluate("attimo.anonymousId()")
    other.goto(url)
    settled(other, shop, until)
    shop.status = 503
    page.evaluate("attimo.track('Unsent')")
    until(page, lambda: shop.requests[-1]["body"]["batch"][0].get("event") == "Unsent")
    shop.status = 200
    page.evaluate("attimo.consent({analytics: false, marketing: false})")
    assert kept(page) == ["", ["attimo.consent"]]
    last = until(page, lambda: shop.tracked("Consent Updated"))[0]
    assert (last["anonymousId"], last["userId"]) == (who, "ann")
    assert last["properties"] == {"analytics": False, "marketing": False}
    until(other, lambda: other.evaluate("attimo.anonymousId()") is None)
    for one in (page, other):
        one.evaluate("attimo.track('After')")
        one.reload()
        one.wait_for_timeout(200)
    assert len(shop.tracked("Consent Updated")) == 1, "one tab says it"
    assert not {"After", "Unsent"} & set(shop.names())
    assert kept(page) == ["", ["attimo.consent"]]
    page.evaluate("attimo.consent({analytics: true})")
    until(page, lambda: len(shop.tracked("Consent Updated")) == 2)
    assert page.evaluate("attimo.anonymousId()") != who


def test_global_privacy_control_is_a_no_to_marketing(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    page = visitor().new_page()
    page.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {value: true})")
    url = shop.page()
    page.goto(url)
    until(page, lambda: shop.tracked("page"))
    assert shop.names() == ["Consent Updated", "page"]
    assert shop.unique()[0]["properties"] == {"analytics": True, "marketing": False}
    page.evaluate("attimo.consent({analytics: true, marketing: true})")
    page.reload()
    until(page, lambda: len(shop.tracked("page")) == 2)
    page.wait_for_timeout(200)
    assert len(shop.tracked("Consent Updated")) == 1
    assert shop.streams == [], "nobody asks for offers"


def test_a_shop_may_take_global_privacy_control_for_a_no_to_everything(visitor: Visitor, shop: ShopServer) -> None:
    context = visitor()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {value: true})")
    page.goto(shop.page(tags='data-gpc-analytics="false"'))
    page.wait_for_timeout(200)
    assert [shop.requests, kept(page), context.cookies()] == [[], ["", []], []]


# Delivery


def test_what_was_not_answered_is_sent_again_under_the_same_id(page: Page, shop: ShopServer, until: Until) -> None:
    shop.status = 503
    url = shop.page()
    page.goto(url)
    until(page, lambda: shop.requests)
    page.evaluate("attimo.track('Kept', {n: 1})")
    first = shop.requests[0]["body"]["batch"][0]["messageId"]
    shop.status = 200
    page.reload()
    until(page, lambda: len(shop.tracked("page")) == 2 and "Kept" in shop.names())
    assert shop.names() == ["page", "Kept", "page"]
    assert shop.unique()[0]["messageId"] == first
    settled(page, shop, until)


def test_offline_and_back(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    context = visitor()
    page = context.new_page()
    page.goto(shop.page())
    settled(page, shop, until)
    context.set_offline(True)
    page.evaluate("for (let n = 0; n < 250; n++) attimo.track('Offline', {n})")
    page.wait_for_timeout(100)
    context.set_offline(False)
    until(page, lambda: any(call["properties"]["n"] == 249 for call in shop.tracked("Offline")))
    numbers = [call["properties"]["n"] for call in shop.tracked("Offline")]
    assert numbers == sorted(numbers)
    assert 190 <= len(numbers) <= 200, "the oldest made room"
    assert all(len(request["body"]["batch"]) <= 50 for request in shop.requests)


def test_many_tabs_lose_nothing(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    context = visitor()
    url = shop.page()
    tabs = [context.new_page() for _ in range(3)]
    shop.status = 503
    for number, tab in enumerate(tabs):
        tab.goto(url)
        tab.evaluate("(n) => { for (let i = 0; i < 5; i++) attimo.track('Said', {n: n * 5 + i}); }", number)
    tabs[2].close()
    shop.status = 200
    tabs[0].reload()
    until(tabs[0], lambda: len(shop.tracked("Said")) == 15)
    until(tabs[0], lambda: not queued(tabs[0]))
    assert sorted(call["properties"]["n"] for call in shop.tracked("Said")) == list(range(15))


def test_what_is_refused_for_good_is_not_sent_for_ever(page: Page, shop: ShopServer, until: Until) -> None:
    shop.status = 400
    page.goto(shop.page())
    until(page, lambda: shop.requests)
    until(page, lambda: not queued(page))
    shop.status = 200
    page.evaluate("attimo.track('Next')")
    until(page, lambda: shop.names() == ["Next"])


def test_what_the_server_would_not_recognise_any_more_is_given_up(page: Page, shop: ShopServer, until: Until) -> None:
    page.add_init_script("""if (!sessionStorage.done) {
        sessionStorage.done = 1;
        for (const [hours, event] of [[48, 'Old'], [46, 'Young']])
            localStorage.setItem(`attimo.q.${Date.now() - hours * 3600e3}.1.x`,
                JSON.stringify({type: 'track', event, messageId: event, anonymousId: 'somebody-1'}));
        localStorage.setItem('attimo.q.1.broken', '{'); }""")
    page.goto(shop.page())
    settled(page, shop, until)
    assert shop.names() == ["Young", "page", "Fence"]


def test_a_page_that_goes_away_leaves_a_beacon(page: Page, shop: ShopServer, until: Until) -> None:
    shop.status = 503
    shop.page("/next")
    page.add_init_script("""const send = navigator.sendBeacon; navigator.sendBeacon = function (...args) {
        localStorage.beacons = Number(localStorage.beacons || 0) + 1; return send.apply(this, args); };""")
    page.goto(shop.page())
    until(page, lambda: shop.requests)
    page.wait_for_timeout(100)
    page.goto(shop.url + "/next")
    assert page.evaluate("localStorage.beacons") == "1"
    assert len(shop.requests) >= 2


# Exit intent

WATCH = """() => {
    window.exits = [];
    document.addEventListener('attimo:exit-intent', (event) => window.exits.push(event.detail.signal)); }"""


SAY = """() => { window.say = (type, time, more) => {
    const event = Object.assign(new Event(type, {bubbles: true}), more);
    Object.defineProperty(event, 'timeStamp', {value: time}); document.dispatchEvent(event); }; }"""


def leave(page: Page, *heights: int) -> None:
    for height in heights:
        page.mouse.move(400, height)


def test_leaving_upwards_is_an_exit_intent_once_a_page(page: Page, shop: ShopServer, until: Until) -> None:
    def leaves() -> list[str]:
        """The pointer leaves; on a busy machine it may arrive so late that it was slow, and then it leaves again."""
        leave(page, 300, 200, -5)
        found: list[str] = page.evaluate("window.exits")
        return found

    page.goto(shop.page())
    page.evaluate(WATCH)
    assert until(page, leaves) == ["pointer"]
    leave(page, 300, 200, -5)
    assert page.evaluate("window.exits") == ["pointer"]
    assert until(page, lambda: shop.tracked("Exit Intent"))[0]["properties"] == {"signal": "pointer"}
    page.evaluate("attimo.page()")
    assert until(page, lambda: leaves()[1:]) == ["pointer"]


def test_leaving_sideways_or_slowly_is_none(page: Page, shop: ShopServer) -> None:
    page.goto(shop.page())
    page.evaluate(WATCH)
    page.mouse.move(400, 300)
    page.mouse.move(-5, 300)
    page.evaluate(SAY)
    page.evaluate("""() => {
        for (let n = 0; n <= 20; n++) say('mousemove', 10000 + n * 40, {clientY: 20 - n});
        say('mouseout', 10840, {clientY: -1}); }""")
    assert page.evaluate("window.exits") == []


def test_dwell_and_cooldown(visitor: Visitor, shop: ShopServer) -> None:
    page = visitor().new_page()
    shop.page()
    shop.pages["/"] = shop.pages["/"].replace('exit-dwell="0"', 'exit-dwell="600000"')
    page.goto(shop.url)
    page.evaluate(WATCH)
    leave(page, 300, 200, -5)
    assert page.evaluate("window.exits") == []
    patient = shop.pages["/"].replace('exit-dwell="600000"', 'exit-dwell="0"')
    shop.pages["/"] = patient.replace('cooldown="0"', 'cooldown="600000"')
    for expected in (["pointer"], []):
        page.goto(shop.url)
        page.evaluate(WATCH)
        leave(page, 300, 200, -5)
        assert page.evaluate("window.exits") == expected


def test_a_fast_scroll_up_by_hand_is_one_on_a_phone(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    context = visitor(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(shop.page(body="<div style='height:6000px'>long</div>"))
    page.evaluate(WATCH)
    page.evaluate(SAY)
    page.evaluate("""() => { let height = 0; Object.defineProperty(window, 'scrollY', {get: () => height});
        window.scrolls = (start, from, step, ms, byHand) => { for (let n = 0; n < 10; n++) { height = from + n * step;
            if (byHand) say('touchmove', start + n * ms); say('scroll', start + n * ms); } }; }""")
    page.evaluate("scrolls(10000, 0, 300, 16, true)")
    page.evaluate("scrolls(20000, 3000, -300, 16, false)")
    assert page.evaluate("window.exits") == [], "a button that scrolls up is no hand"
    page.evaluate("scrolls(30000, 3000, -15, 16, true)")
    assert page.evaluate("window.exits") == [], "reading again is no leaving"
    page.evaluate("scrolls(40000, 3000, -60, 16, true)")
    assert page.evaluate("window.exits") == ["scroll_up"]


def test_the_events_of_a_real_touch_are_heard(visitor: Visitor, shop: ShopServer, until: Until) -> None:
    context = visitor(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(shop.page(body="<div style='height:6000px'>long</div>"))
    page.evaluate(WATCH)
    page.evaluate("""() => {
        scrollTo(0, 3000); // the clock of the events is made slow, so that a slow machine swipes fast
        const real = Object.getOwnPropertyDescriptor(Event.prototype, 'timeStamp').get;
        Object.defineProperty(Event.prototype, 'timeStamp', {get() { return real.call(this) / 1000; }}); }""")
    page.wait_for_timeout(100)
    finger = context.new_cdp_session(page)
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": 180, "y": 60}]})
    for height in range(100, 600, 60):
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": 180, "y": height}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    until(page, lambda: page.evaluate("window.exits") == ["scroll_up"])


@pytest.mark.parametrize(("tags", "exits"), [("", []), ('data-exit-idle="60000"', ["idle"])])
def test_who_does_nothing_leaves_if_the_shop_says_so(
    page: Page, shop: ShopServer, tags: str, exits: list[str]
) -> None:
    page.clock.install()
    page.goto(shop.page(tags=tags))
    page.evaluate(WATCH)
    page.clock.run_for(35_000)  # real time passes besides, on a busy machine some seconds of it
    page.mouse.move(300, 300)
    page.clock.run_for(35_000)
    assert page.evaluate("window.exits") == []
    page.clock.run_for(35_000)
    assert page.evaluate("window.exits") == exits


@pytest.mark.parametrize(("tags", "exits", "stays"), [("", [], False), ('data-exit-back="true"', ["back"], True)])
def test_the_back_button_goes_back_unless_the_shop_asks(
    page: Page, shop: ShopServer, until: Until, tags: str, exits: list[str], stays: bool
) -> None:
    shop.page("/from", body="<a href='/'>on</a>")
    page.goto(shop.url + "/from")
    page.goto(shop.page(tags=tags))
    page.mouse.click(300, 300)
    page.evaluate(WATCH)
    page.evaluate("document.addEventListener('attimo:exit-intent', (event) => event.preventDefault())")
    page.evaluate("() => { history.back(); }")
    if stays:
        until(page, lambda: page.evaluate("window.exits") == exits)
        assert page.url == shop.url + "/"
    else:
        page.wait_for_url("**/from")
