"""The pixel: what it says, to whom, what it keeps, and what it never does without consent."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.harness.fake_server import FakeServer

pytestmark = pytest.mark.browser

WaitUntil = Callable[..., Any]
NewContext = Callable[..., BrowserContext]
PRODUCT = {
    "@type": "Product",
    "sku": "S1",
    "name": "Lamp",
    "brand": {"name": "Lume"},
    "category": "Light",
    "image": ["/lamp.svg"],
    "url": "/p/lamp",
    "offers": {"@type": "Offer", "price": "129.50", "priceCurrency": "EUR"},
}


def json_ld(*nodes: Any) -> str:
    return "".join(f'<script type="application/ld+json">{json.dumps(node)}</script>' for node in nodes)


def wait_for_queue(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    """Wait until everything the pixel said was answered."""
    page.evaluate("attimo.track('Fence')")
    had = len(server.tracked("Fence"))
    wait_until(page, lambda: len(server.tracked("Fence")) >= max(1, had))
    wait_until(page, lambda: not queue_length(page))


def queue_length(page: Page) -> int:
    """How many calls wait to be answered."""
    return int(page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('attimo.queue.')).length"))


def stored_data(page: Page) -> list[Any]:
    """What the browser has stored: the page's cookies, and the keys in localStorage."""
    return list(page.evaluate("[document.cookie, Object.keys(localStorage).sort()]"))


# What a call looks like


def test_page_view_is_sent_as_a_segment_call(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page() + "?utm_source=news&utm_medium=mail&utm_campaign=spring&x=1#part")
    call = wait_until(page, lambda: server.tracked("page"))[0]
    request = server.requests[0]
    assert request["type"].startswith("text/plain"), "which needs no preflight"
    assert request["body"]["writeKey"] == "WK"
    assert request["body"]["sentAt"] >= call["timestamp"]
    assert call["userId"] is None
    assert len(call["anonymousId"]) == 36
    assert call["messageId"].startswith("at-")
    context = call["context"]
    search = "?utm_source=news&utm_medium=mail&utm_campaign=spring&x=1"
    assert context["page"] == {
        "url": f"{server.url}/{search}",
        "path": "/",
        "search": search,
        "title": "/",
        "referrer": "",
    }
    assert call["properties"] == context["page"], "the spec says it twice, so that conditions can ask for a path"
    page.evaluate("attimo.page('Help', {section: 'returns', path: '/help'})")
    named = wait_until(page, lambda: server.tracked("page")[1:])[0]
    assert (named["name"], named["properties"]["section"], named["properties"]["path"]) == ("Help", "returns", "/help")
    assert named["context"]["page"]["path"] == "/"
    assert context["campaign"] == {"source": "news", "medium": "mail", "name": "spring"}
    assert context["userAgentData"] == {"mobile": False}
    assert context["library"] == {"name": "attimo.js", "version": "0.1.0"}
    assert context["locale"] == "en-US"
    assert context["timezone"]
    assert "userAgent" not in context, "the header says it"


def test_engine_decodes_pixel_events(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    from domain.event import Page as PageCall
    from domain.event import Track, decode

    page.goto(server.page(head=json_ld(PRODUCT)) + "?utm_source=a")
    wait_until(page, lambda: server.tracked("Product Viewed"))
    events = [decode(json.dumps(message).encode()) for message in server.unique_messages()]
    assert isinstance(events[0], PageCall)
    assert isinstance(events[1], Track)
    assert events[1].properties["price"] == 129.5
    assert events[0].context is not None
    assert events[0].context.campaign is not None
    assert events[0].context.campaign.source == "a"


def test_calls_before_and_after_loading_are_sent(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.add_init_script("window.attimo = [['track', 'Early', {n: 1}], ['config', {country: 'CA'}]]")
    page.goto(server.page())
    page.evaluate("attimo.push(['track', 'Late'])")
    wait_until(page, lambda: "Late" in server.message_names())
    assert server.message_names() == ["page", "Early", "Late"]
    assert server.unique_messages()[0]["context"]["attimo"] == {"country": "CA"}


def test_login_is_stored_and_logout_creates_a_new_id(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    url = server.page()
    page.goto(url)
    page.evaluate("attimo.identify('ann', {first_name: 'Ann'}, {userHash: 'h1'})")
    wait_for_queue(page, server, wait_until)
    page.reload()
    wait_until(page, lambda: len(server.tracked("page")) == 2)
    later = server.tracked("page")[1]
    assert (later["userId"], later["context"]["user_hash"]) == ("ann", "h1")
    assert "Ann" not in json.dumps(page.evaluate("({...localStorage})")), "traits are sent, not kept"
    page.evaluate("attimo.reset(); attimo.page()")
    wait_until(page, lambda: len(server.tracked("page")) == 3)
    out, last = server.tracked("Signed Out")[0], server.tracked("page")[2]
    assert (out["userId"], out["anonymousId"]) == ("ann", later["anonymousId"])
    assert last["userId"] is None
    assert "user_hash" not in last["context"]
    assert last["anonymousId"] != out["anonymousId"]
    assert all(len(request["ids"]) == 1 for request in server.requests), "the server binds to the one id of a request"


def test_second_login_in_one_browser_creates_a_new_id(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page())
    page.evaluate("attimo.identify('ann'); attimo.identify('ann', {vip: true}); attimo.identify('bob')")
    wait_until(page, lambda: len(server.tracked("identify")) == 3)
    assert server.message_names() == ["page", "identify", "identify", "Signed Out", "identify"]
    first, again, other = server.tracked("identify")
    assert first["anonymousId"] == again["anonymousId"] != other["anonymousId"]


def test_alias_sends_both_ids(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page())
    page.evaluate("attimo.alias('ann')")
    call = wait_until(page, lambda: server.tracked("alias"))[0]
    assert (call["userId"], call["previousId"]) == ("ann", call["anonymousId"])


def test_invalid_calls_do_not_break_the_page(
    page: Page, server: FakeServer, wait_until: WaitUntil, errors: list[str]
) -> None:
    page.goto(server.page())
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
    wait_until(page, lambda: "Fine" in server.message_names())
    assert "Loop" not in server.message_names()
    assert "Long" not in server.message_names()
    assert len(errors) >= 4
    assert all("attimo:" in one for one in errors), "said on the console, never thrown"
    errors.clear()


# Who it is


@pytest.mark.parametrize(
    "lost",
    [
        "document.cookie = 'attimo_id=;path=/;max-age=0'",
        "localStorage.removeItem('attimo.id')",
        "document.cookie = 'attimo_id=<script>;path=/'",
    ],
)
def test_id_survives_loss_of_cookie_or_storage(
    page: Page, server: FakeServer, wait_until: WaitUntil, lost: str
) -> None:
    url = server.page()
    page.goto(url)
    wait_for_queue(page, server, wait_until)
    who = page.evaluate("attimo.anonymousId()")
    page.evaluate(f"() => {{ {lost} }}")
    page.goto(url)
    assert page.evaluate("attimo.anonymousId()") == who
    assert page.evaluate("[document.cookie.includes(attimo.anonymousId()), localStorage['attimo.id']]") == [True, who]


def test_events_are_sent_without_storage(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('forbidden'); }})")
    page.goto(server.page())
    page.evaluate("attimo.track('Said')")
    wait_until(page, lambda: "Said" in server.message_names())
    assert len({message["anonymousId"] for message in server.unique_messages()}) == 1


# What a page says about itself


@pytest.mark.parametrize(
    "nodes",
    [
        [PRODUCT],
        [[PRODUCT]],
        [{"@context": "https://schema.org", "@graph": [{"@type": "WebPage"}, PRODUCT]}],
        [{"@type": "ItemPage", "mainEntity": PRODUCT}],
        [{**PRODUCT, "@type": ["Thing", "Product"]}],
        [{**PRODUCT, "@type": "http://schema.org/Product"}],
        [{**PRODUCT, "offers": [PRODUCT["offers"]], "image": {"@type": "ImageObject", "url": "/lamp.svg"}}],
        [
            {
                **PRODUCT,
                "offers": {"@type": "AggregateOffer", "lowPrice": 129.5, "priceCurrency": "EUR"},
                "brand": "Lume",
            }
        ],
        [{**PRODUCT, "offers": {"@type": "AggregateOffer", "offers": [PRODUCT["offers"]]}}],
        [
            {"@type": "BreadcrumbList"},
            "nonsense",
            PRODUCT,
            {"@type": "ItemList", "itemListElement": [PRODUCT, PRODUCT]},
        ],
    ],
)
def test_product_page_sends_product_viewed(
    page: Page, server: FakeServer, wait_until: WaitUntil, nodes: list[Any]
) -> None:
    page.goto(server.page(head=json_ld(*nodes)))
    call = wait_until(page, lambda: server.tracked("Product Viewed"))[0]
    assert call["properties"] == {
        "product_id": "S1",
        "sku": "S1",
        "name": "Lamp",
        "brand": "Lume",
        "category": "Light",
        "price": 129.5,
        "currency": "EUR",
        "url": server.url + "/p/lamp",
        "image_url": server.url + "/lamp.svg",
    }


@pytest.mark.parametrize(
    "nodes",
    [
        [PRODUCT, {**PRODUCT, "sku": "S2", "url": "/p/other"}],
        [{"@type": "ItemList", "itemListElement": [{"item": PRODUCT}]}],
        [{"@type": "ProductCollection"}],
        [{"@type": "Product"}],
        ["Product"],
    ],
)
def test_product_list_sends_no_product_viewed(
    page: Page, server: FakeServer, wait_until: WaitUntil, nodes: list[Any]
) -> None:
    page.goto(server.page(head=json_ld(*nodes)))
    wait_for_queue(page, server, wait_until)
    assert server.message_names() == ["page", "Fence"]


def test_main_product_is_chosen_among_several(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page("/p/lamp", head=json_ld(PRODUCT, {**PRODUCT, "sku": "S2", "url": "/p/other"})))
    assert wait_until(page, lambda: server.tracked("Product Viewed"))[0]["properties"]["product_id"] == "S1"


def test_non_numeric_price_is_omitted(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page(head=json_ld({**PRODUCT, "offers": {"price": "12,50 EUR", "priceCurrency": "EUR"}})))
    assert "price" not in wait_until(page, lambda: server.tracked("Product Viewed"))[0]["properties"]


def test_product_added_by_script_is_reported_once(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page())
    page.evaluate("(text) => { document.head.insertAdjacentHTML('beforeend', text); }", json_ld(PRODUCT))
    wait_until(page, lambda: server.tracked("Product Viewed"))
    page.evaluate("document.body.append('more')")
    page.wait_for_timeout(250)
    assert len(server.tracked("Product Viewed")) == 1


def test_data_attributes_describe_the_page(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    body = """
      <main data-attimo-product='{"product_id":"P1","price":5}'>
        <button id=add data-attimo-add><b>Add</b></button></main>
      <button id=other data-attimo-add='{"product_id":"P2","quantity":3}'>Add</button>
      <button id=gone data-attimo-remove='{"product_id":"P2"}'>Remove</button>
      <section data-attimo-cart='{"cart_id":"c1","products":[]}'></section>
      <i data-attimo-checkout='{"order_id":"o1"}'></i>"""
    page.goto(server.page(body=body))
    for button in ("#add b", "#other", "#gone"):
        page.click(button)
    wait_until(page, lambda: server.tracked("Product Removed"))
    assert server.message_names() == [
        "page",
        "Product Viewed",
        "Cart Viewed",
        "Checkout Started",
        "Product Added",
        "Product Added",
        "Product Removed",
    ]
    assert [call["properties"] for call in server.tracked("Product Added")] == [
        {"quantity": 1, "product_id": "P1", "price": 5},
        {"quantity": 3, "product_id": "P2"},
    ]


def test_invalid_data_attributes_are_ignored(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page(body="<main data-attimo-product='{oops'><button data-attimo-add='7,'>Add</button></main>"))
    page.click("button")
    wait_for_queue(page, server, wait_until)
    assert server.message_names() == ["page", "Fence"]


def test_reloaded_receipt_sends_one_order(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    url = server.page("/thanks", body='<p data-attimo-order=\'{"order_id":"7","total":9.5}\'>Thanks</p>')
    for times in (1, 2, 3):
        page.goto(url)
        wait_until(page, lambda times=times: len(server.tracked("page")) == times)
        wait_for_queue(page, server, wait_until)
    assert len(server.tracked("Order Completed")) == 1


def test_single_page_navigation_sends_page_views(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.goto(server.page())
    page.evaluate("history.pushState({}, '', '/list?c=1'); document.title = 'List'")
    wait_until(page, lambda: len(server.tracked("page")) == 2)
    page.evaluate("history.replaceState({}, '', '/list?c=1#top')")
    page.go_back()
    wait_until(page, lambda: len(server.tracked("page")) == 3)
    wait_for_queue(page, server, wait_until)
    pages = [call["context"]["page"] for call in server.tracked("page")]
    assert [one["path"] + one["search"] for one in pages] == ["/", "/list?c=1", "/"]
    assert pages[1]["title"] == "List"
    assert pages[1]["referrer"] == server.url + "/"


def test_prerendered_page_is_not_counted_as_viewed(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.add_init_script("Object.defineProperty(document, 'prerendering', {value: true, writable: true})")
    page.goto(server.page(head=json_ld(PRODUCT)))
    page.wait_for_timeout(200)
    assert [server.requests, *stored_data(page)] == [[], "", []]
    page.evaluate("document.prerendering = false; document.dispatchEvent(new Event('prerenderingchange'))")
    wait_until(page, lambda: server.message_names() == ["page", "Product Viewed"])


# Consent


def test_nothing_is_stored_or_sent_before_consent(
    new_context: NewContext, server: FakeServer, wait_until: WaitUntil
) -> None:
    context = new_context()
    page = context.new_page()
    page.goto(server.page(head=json_ld(PRODUCT), tags='data-consent="required"'))
    page.evaluate("attimo.identify('ann', {}, {userHash: 'h'}); attimo.track('Curious')")
    page.wait_for_timeout(300)
    assert [server.requests, stored_data(page), context.cookies()] == [[], ["", []], []]
    assert page.evaluate("attimo.anonymousId()") is None
    page.evaluate("attimo.consent({analytics: true, marketing: true})")
    wait_until(page, lambda: "Curious" in server.message_names())
    assert server.message_names() == ["Consent Updated", "page", "Product Viewed", "identify", "Curious"]
    times = [call["timestamp"] for call in server.unique_messages()]
    assert times[1:] == sorted(times[1:])
    assert times[1] < times[0], "calls keep the time when they were made"
    assert len({call["anonymousId"] for call in server.unique_messages()}) == 1
    page.reload()
    wait_until(page, lambda: len(server.tracked("page")) == 2)
    assert server.tracked("page")[1]["userId"] == "ann"
    assert len(server.tracked("Consent Updated")) == 1, "said once"


def test_consent_refusal_is_the_only_thing_stored(new_context: NewContext, server: FakeServer) -> None:
    context = new_context()
    page = context.new_page()
    page.goto(server.page(tags='data-consent="required"'))
    page.evaluate("attimo.consent({analytics: false, marketing: false})")
    page.reload()
    page.evaluate("attimo.track('Curious')")
    page.wait_for_timeout(300)
    assert [server.requests, stored_data(page), context.cookies()] == [[], ["", ["attimo.consent"]], []]


@pytest.mark.parametrize("mistake", ["'false'", "0", "'yes'", "null", "1"])
def test_only_true_counts_as_consent(page: Page, server: FakeServer, mistake: str) -> None:
    page.goto(server.page(tags='data-consent="required"'))
    page.evaluate(f"attimo.consent({{analytics: {mistake}, marketing: true}})")
    page.wait_for_timeout(100)
    assert page.evaluate("attimo.anonymousId()") is None
    assert server.requests == []


def test_consent_withdrawal_is_sent_last_and_clears_data(
    new_context: NewContext, server: FakeServer, wait_until: WaitUntil
) -> None:
    context = new_context()
    page, other = context.new_page(), context.new_page()
    url = server.page()
    page.goto(url)
    page.evaluate("attimo.identify('ann')")
    wait_for_queue(page, server, wait_until)
    who = page.evaluate("attimo.anonymousId()")
    other.goto(url)
    wait_for_queue(other, server, wait_until)
    server.status = 503
    page.evaluate("attimo.track('Unsent')")
    wait_until(page, lambda: server.requests[-1]["body"]["batch"][0].get("event") == "Unsent")
    server.status = 200
    page.evaluate("attimo.consent({analytics: false, marketing: false})")
    assert stored_data(page) == ["", ["attimo.consent"]]
    last = wait_until(page, lambda: server.tracked("Consent Updated"))[0]
    assert (last["anonymousId"], last["userId"]) == (who, "ann")
    assert last["properties"] == {"analytics": False, "marketing": False}
    wait_until(other, lambda: other.evaluate("attimo.anonymousId()") is None)
    for one in (page, other):
        one.evaluate("attimo.track('After')")
        one.reload()
        one.wait_for_timeout(200)
    assert len(server.tracked("Consent Updated")) == 1, "one tab says it"
    assert not {"After", "Unsent"} & set(server.message_names())
    assert stored_data(page) == ["", ["attimo.consent"]]
    page.evaluate("attimo.consent({analytics: true})")
    wait_until(page, lambda: len(server.tracked("Consent Updated")) == 2)
    assert page.evaluate("attimo.anonymousId()") != who


def test_global_privacy_control_denies_marketing(
    new_context: NewContext, server: FakeServer, wait_until: WaitUntil
) -> None:
    page = new_context().new_page()
    page.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {value: true})")
    url = server.page()
    page.goto(url)
    wait_until(page, lambda: server.tracked("page"))
    assert server.message_names() == ["Consent Updated", "page"]
    assert server.unique_messages()[0]["properties"] == {"analytics": True, "marketing": False}
    page.evaluate("attimo.consent({analytics: true, marketing: true})")
    page.reload()
    wait_until(page, lambda: len(server.tracked("page")) == 2)
    page.wait_for_timeout(200)
    assert len(server.tracked("Consent Updated")) == 1
    assert server.streams == [], "nobody asks for offers"


def test_global_privacy_control_can_deny_all_consent(new_context: NewContext, server: FakeServer) -> None:
    context = new_context()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'globalPrivacyControl', {value: true})")
    page.goto(server.page(tags='data-gpc-analytics="false"'))
    page.wait_for_timeout(200)
    assert [server.requests, stored_data(page), context.cookies()] == [[], ["", []], []]


# Delivery


def test_unanswered_event_is_resent_with_the_same_id(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    server.status = 503
    url = server.page()
    page.goto(url)
    wait_until(page, lambda: server.requests)
    page.evaluate("attimo.track('Kept', {n: 1})")
    first = server.requests[0]["body"]["batch"][0]["messageId"]
    server.status = 200
    page.reload()
    wait_until(page, lambda: len(server.tracked("page")) == 2 and "Kept" in server.message_names())
    assert server.message_names() == ["page", "Kept", "page"]
    assert server.unique_messages()[0]["messageId"] == first
    wait_for_queue(page, server, wait_until)


def test_events_queue_offline_and_are_sent_later(
    new_context: NewContext, server: FakeServer, wait_until: WaitUntil
) -> None:
    context = new_context()
    page = context.new_page()
    page.goto(server.page())
    wait_for_queue(page, server, wait_until)
    context.set_offline(True)
    page.evaluate("for (let n = 0; n < 250; n++) attimo.track('Offline', {n})")
    page.wait_for_timeout(100)
    context.set_offline(False)
    wait_until(page, lambda: any(call["properties"]["n"] == 249 for call in server.tracked("Offline")))
    numbers = [call["properties"]["n"] for call in server.tracked("Offline")]
    assert numbers == sorted(numbers)
    assert 190 <= len(numbers) <= 200, "the oldest made room"
    assert all(len(request["body"]["batch"]) <= 50 for request in server.requests)


def test_many_tabs_lose_no_events(new_context: NewContext, server: FakeServer, wait_until: WaitUntil) -> None:
    context = new_context()
    url = server.page()
    tabs = [context.new_page() for _ in range(3)]
    server.status = 503
    for number, tab in enumerate(tabs):
        tab.goto(url)
        tab.evaluate("(n) => { for (let i = 0; i < 5; i++) attimo.track('Said', {n: n * 5 + i}); }", number)
    tabs[2].close()
    server.status = 200
    tabs[0].reload()
    wait_until(tabs[0], lambda: len(server.tracked("Said")) == 15)
    wait_until(tabs[0], lambda: not queue_length(tabs[0]))
    assert sorted(call["properties"]["n"] for call in server.tracked("Said")) == list(range(15))


def test_permanently_rejected_event_is_dropped(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    server.status = 400
    page.goto(server.page())
    wait_until(page, lambda: server.requests)
    wait_until(page, lambda: not queue_length(page))
    server.status = 200
    page.evaluate("attimo.track('Next')")
    wait_until(page, lambda: server.message_names() == ["Next"])


def test_events_older_than_the_dedup_window_are_dropped(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    page.add_init_script("""if (!sessionStorage.done) {
        sessionStorage.done = 1;
        for (const [hours, event] of [[48, 'Old'], [46, 'Young']])
            localStorage.setItem(`attimo.queue.${Date.now() - hours * 3600e3}.1.x`,
                JSON.stringify({type: 'track', event, messageId: event, anonymousId: 'somebody-1'}));
        localStorage.setItem('attimo.queue.1.broken', '{'); }""")
    page.goto(server.page())
    wait_for_queue(page, server, wait_until)
    assert server.message_names() == ["Young", "page", "Fence"]


def test_leaving_the_page_sends_a_beacon(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    server.status = 503
    server.page("/next")
    page.add_init_script("""const send = navigator.sendBeacon; navigator.sendBeacon = function (...args) {
        localStorage.beacons = Number(localStorage.beacons || 0) + 1; return send.apply(this, args); };""")
    page.goto(server.page())
    wait_until(page, lambda: server.requests)
    page.wait_for_timeout(100)
    page.goto(server.url + "/next")
    assert page.evaluate("localStorage.beacons") == "1"
    assert len(server.requests) >= 2


# Exit intent

RECORD_EXITS = """() => {
    window.exits = [];
    document.addEventListener('attimo:exit-intent', (event) => window.exits.push(event.detail.signal)); }"""


DISPATCH_EVENT = """() => { window.say = (type, time, more) => {
    const event = Object.assign(new Event(type, {bubbles: true}), more);
    Object.defineProperty(event, 'timeStamp', {value: time}); document.dispatchEvent(event); }; }"""


def move_pointer(page: Page, *heights: int) -> None:
    for height in heights:
        page.mouse.move(400, height)


def test_leaving_at_the_top_is_one_exit_intent_per_page(page: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    def leaves() -> list[str]:
        """The pointer leaves; on a busy machine it may arrive so late that it was slow, and then it leaves again."""
        move_pointer(page, 300, 200, -5)
        found: list[str] = page.evaluate("window.exits")
        return found

    page.goto(server.page())
    page.evaluate(RECORD_EXITS)
    assert wait_until(page, leaves) == ["pointer"]
    move_pointer(page, 300, 200, -5)
    assert page.evaluate("window.exits") == ["pointer"]
    assert wait_until(page, lambda: server.tracked("Exit Intent"))[0]["properties"] == {"signal": "pointer"}
    page.evaluate("attimo.page()")
    assert wait_until(page, lambda: leaves()[1:]) == ["pointer"]


def test_leaving_sideways_or_slowly_is_no_exit_intent(page: Page, server: FakeServer) -> None:
    page.goto(server.page())
    page.evaluate(RECORD_EXITS)
    page.mouse.move(400, 300)
    page.mouse.move(-5, 300)
    page.evaluate(DISPATCH_EVENT)
    page.evaluate("""() => {
        for (let n = 0; n <= 20; n++) say('mousemove', 10000 + n * 40, {clientY: 20 - n});
        say('mouseout', 10840, {clientY: -1}); }""")
    assert page.evaluate("window.exits") == []


def test_exit_intent_dwell_time_and_cooldown(new_context: NewContext, server: FakeServer) -> None:
    page = new_context().new_page()
    server.page()
    server.pages["/"] = server.pages["/"].replace('exit-dwell="0"', 'exit-dwell="600000"')
    page.goto(server.url)
    page.evaluate(RECORD_EXITS)
    move_pointer(page, 300, 200, -5)
    assert page.evaluate("window.exits") == []
    patient = server.pages["/"].replace('exit-dwell="600000"', 'exit-dwell="0"')
    server.pages["/"] = patient.replace('cooldown="0"', 'cooldown="600000"')
    for expected in (["pointer"], []):
        page.goto(server.url)
        page.evaluate(RECORD_EXITS)
        move_pointer(page, 300, 200, -5)
        assert page.evaluate("window.exits") == expected


def test_fast_scroll_up_on_a_phone_is_an_exit_intent(
    new_context: NewContext, server: FakeServer, wait_until: WaitUntil
) -> None:
    context = new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.page(body="<div style='height:6000px'>long</div>"))
    page.evaluate(RECORD_EXITS)
    page.evaluate(DISPATCH_EVENT)
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


def test_real_touch_events_trigger_exit_intent(
    new_context: NewContext, server: FakeServer, wait_until: WaitUntil
) -> None:
    context = new_context(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.page(body="<div style='height:6000px'>long</div>"))
    page.evaluate(RECORD_EXITS)
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
    wait_until(page, lambda: page.evaluate("window.exits") == ["scroll_up"])


@pytest.mark.parametrize(("tags", "exits"), [("", []), ('data-exit-idle="60000"', ["idle"])])
def test_inactivity_is_an_exit_intent_when_configured(
    page: Page, server: FakeServer, tags: str, exits: list[str]
) -> None:
    page.clock.install()
    page.goto(server.page(tags=tags))
    page.evaluate(RECORD_EXITS)
    page.clock.run_for(35_000)  # real time passes besides, on a busy machine some seconds of it
    page.mouse.move(300, 300)
    page.clock.run_for(35_000)
    assert page.evaluate("window.exits") == []
    page.clock.run_for(35_000)
    assert page.evaluate("window.exits") == exits


@pytest.mark.parametrize(("tags", "exits", "stays"), [("", [], False), ('data-exit-back="true"', ["back"], True)])
def test_back_button_is_intercepted_only_when_configured(
    page: Page, server: FakeServer, wait_until: WaitUntil, tags: str, exits: list[str], stays: bool
) -> None:
    server.page("/from", body="<a href='/'>on</a>")
    page.goto(server.url + "/from")
    page.goto(server.page(tags=tags))
    page.mouse.click(300, 300)
    page.evaluate(RECORD_EXITS)
    page.evaluate("document.addEventListener('attimo:exit-intent', (event) => event.preventDefault())")
    page.evaluate("() => { history.back(); }")
    if stays:
        wait_until(page, lambda: page.evaluate("window.exits") == exits)
        assert page.url == server.url + "/"
    else:
        page.wait_for_url("**/from")
