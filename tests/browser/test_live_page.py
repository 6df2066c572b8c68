"""The live page: what happens, who moves, what is decided and why, as text and only as text."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from connectors.live_feed import line
from domain.model import Model, Quality, encode
from domain.record import Record
from tests.browser.shop_server import ShopServer

pytestmark = pytest.mark.browser

Until = Callable[..., Any]


@pytest.fixture
def live(page: Page, shop: ShopServer, until: Until) -> Page:
    page.goto(shop.url + "/live")
    until(page, lambda: shop.feeds)
    return page


def event(**more: Any) -> dict[str, Any]:
    return {"kind": "event", "at": int(time.time() * 1000), "who": "a81f02c1", "what": "Product Viewed",
            "stream": "clicks", "detail": "Sole candle", "country": "CA", "device": "desktop", "bot": False, **more}


def test_the_three_columns(live: Page, shop: ShopServer) -> None:
    shop.feed(event())
    shop.feed({"kind": "move", "at": 1, "who": "a81f02c1", "what": "likely_buyers", "entered": True, "id": "m1"})
    shop.feed({"kind": "move", "at": 1, "who": "a81f02c1", "what": "undecided", "entered": False, "id": "m2"})
    shop.feed({"kind": "hold", "at": 1, "who": "77b0de20", "what": "welcome", "id": "h1", "because": {
        "trigger": "seconds", "reason": "limit", "detail": "already shown once in this visit",
        "held": ["country is CA"], "failed": ["first visit"], "playbook": "5d2f9ac0"}})
    shop.feed({"kind": "reject", "at": 1, "who": "", "what": "unreadable", "because": "properties.price: is 'abc'"})
    events, moves, decisions = live.locator("#events"), live.locator("#moves"), live.locator("#decisions")
    expect(events).to_contain_text("Product Viewed")
    expect(events).to_contain_text("Sole candle")
    expect(events).to_contain_text("CA, desktop")
    expect(events).to_contain_text("properties.price: is 'abc'")
    expect(moves).to_contain_text("enters")
    expect(moves).to_contain_text("leaves")
    for words in ("welcome", "limit: already shown once in this visit", "on seconds", "country is CA", "first visit"):
        expect(decisions).to_contain_text(words)
    expect(live.locator("#counters")).to_contain_text("1 events")
    expect(live.locator("#counters")).to_contain_text("2 moves")


def test_the_model_against_the_base_rate(live: Page, shop: ShopServer) -> None:
    quality: dict[str, Any] = {
        "examples": 812, "positives": 64, "log_loss": 0.2, "base_log_loss": 0.25, "roc_auc": 0.8125}
    model = Model("propensity", 7, "h", {"pages": 1.0}, quality=Quality(**quality, drifts=2))
    told = line(Record("models", 0, 1, 5, b"propensity", encode(model)))  # what the edge sends
    assert told is not None
    shop.feed(told)
    expect(live.locator("#version")).to_have_text("propensity v7")
    expect(live.locator("#age")).to_contain_text("2 drifts seen")
    expect(live.locator("#positives")).to_have_text("64 of them bought")
    expect(live.locator("#examples")).to_have_text("812")
    expect(live.locator("#loss")).to_have_text("0.2000")
    expect(live.locator("#base")).to_have_text("the base rate alone: 0.2500, 20.0 % better")
    expect(live.locator("#auc")).to_have_text("0.813")
    shop.feed({"kind": "model", "at": 1, "version": 8, **quality, "log_loss": 0.3})
    expect(live.locator("#base")).to_contain_text("20.0 % worse")


def test_what_is_wrong_with_the_playbook(live: Page, shop: ShopServer, until: Until) -> None:
    banner = live.locator("#playbook")
    expect(banner).to_be_hidden()
    evil = 'segments/a.toml, line 2: <img src=x onerror="window.hurt=1">'
    wrong = {"kind": "playbook", "folder": "shop", "count": 7, "since": int(time.time() * 1000), "live": "5d2f9ac0",
             "live_since": 1, "problems": [evil]}
    shop.feed(wrong)
    expect(banner).to_contain_text("shop/ has 7 mistakes, since ")
    expect(banner).to_contain_text("1970")
    expect(banner).to_contain_text("stays live")
    expect(banner.locator("li")).to_have_text([evil, "and 6 more: attimo check shop"])
    assert live.locator("img").count() == 0
    shop.feed({"kind": "playbook", "problems": []})
    expect(banner).to_be_hidden()
    shop.feed({**wrong, "count": 1, "live": ""})
    expect(banner).to_contain_text("shop/ has 1 mistake, since ")
    expect(banner).to_contain_text("nothing is decided")
    old = shop.feeds[0]
    shop.hang_up()
    until(live, lambda: shop.feeds and shop.feeds[0] is not old)
    expect(banner).to_be_hidden()


def test_records_in_the_wrong_partition(live: Page, shop: ShopServer, until: Until) -> None:
    banner, evil = live.locator("#misrouted"), "4 % of the records <img src=x onerror='window.hurt=1'>"
    expect(banner).to_be_hidden()
    shop.feed({"kind": "misrouted", "problem": evil})
    expect(banner).to_have_text(evil)
    assert live.locator("img").count() == 0
    shop.feed({"kind": "misrouted", "problem": ""})
    expect(banner).to_be_hidden()
    shop.feed({"kind": "misrouted", "problem": evil})
    expect(banner).to_be_visible()
    old = shop.feeds[0]
    shop.hang_up()
    until(live, lambda: shop.feeds and shop.feeds[0] is not old)
    expect(banner).to_be_hidden()


def test_what_visitors_write_is_text(live: Page, shop: ShopServer) -> None:
    evil = "<img src=x onerror='window.hurt=1'>"
    shop.feed(event(who=evil, what=evil, detail=evil, country=evil))
    shop.feed({"kind": "send", "at": evil, "who": evil, "what": evil, "id": evil, "title": evil, "format": evil,
               "because": {"held": [evil, {"a": evil}], "reason": evil, "detail": evil, "model": evil}})
    shop.feed({"kind": "reject", "at": 1, "what": evil, "because": evil})
    shop.feed({"kind": "error", "because": evil})
    shop.feed({"kind": "model", "version": evil, "quality": {"examples": evil, "log_loss": evil}})
    expect(live.locator("#events li")).to_have_count(2)
    expect(live.locator("#decisions li")).to_have_count(1)
    expect(live.locator("#status")).to_contain_text("<img")
    assert live.locator("img").count() == 0
    assert live.evaluate("window.hurt") is None


def test_nonsense_is_passed_over_and_repeats_count_once(live: Page, shop: ShopServer) -> None:
    for nonsense in ({"kind": "constructor"}, {"kind": "toString", "what": 1}, {}, {"kind": None}):
        shop.feed(nonsense)
    for _ in range(3):
        shop.feed({"kind": "arm", "at": 1, "who": "a", "what": "exit_offer", "id": "same", "because": {}})
    shop.feed(event(what="Last"))
    expect(live.locator("#events")).to_contain_text("Last")
    expect(live.locator("main li")).to_have_count(2)
    expect(live.locator("#counters")).to_contain_text("1 armed")


def test_it_stays_bounded_and_can_be_paused(live: Page, shop: ShopServer) -> None:
    for number in range(300):
        shop.feed(event(what=f"Event {number}"))
    expect(live.locator("#counters")).to_contain_text("300 events")
    expect(live.locator("#events li").first).to_contain_text("Event 299")
    expect(live.locator("#events li")).to_have_count(80)
    live.get_by_role("button", name="Pause").click()
    shop.feed(event(what="Unseen"))
    expect(live.locator("#counters")).to_contain_text("301 events")
    expect(live.locator("#events")).not_to_contain_text("Unseen")


def test_one_person_can_be_followed(live: Page, shop: ShopServer) -> None:
    shop.feed(event(who="aaaaaaaa", what="First"))
    shop.feed(event(who="bbbbbbbb", what="Other"))
    live.get_by_role("button", name="aaaaaaaa").click()
    shop.feed(event(who="bbbbbbbb", what="Hidden"))
    shop.feed(event(who="aaaaaaaa", what="Second"))
    expect(live.locator("#events li:visible")).to_have_count(2)
    live.get_by_role("button", name="Show everybody").click()
    expect(live.locator("#events li:visible")).to_have_count(4)


def test_it_comes_back_on_its_own(live: Page, shop: ShopServer, until: Until) -> None:
    expect(live.locator("#status")).to_have_text("Watching")
    old = shop.feeds[0]
    shop.hang_up()
    until(live, lambda: shop.feeds and shop.feeds[0] is not old)
    shop.feed(event())
    expect(live.locator("#events li")).to_have_count(1)
