"""The live page: what happens, who moves, what is decided and why, as text and only as text."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from connectors.http.live_feed import to_entry
from domain.model import Model, ModelQuality, encode_model
from domain.record import Record
from tests.harness.fake_server import FakeServer

pytestmark = pytest.mark.browser

WaitUntil = Callable[..., Any]


@pytest.fixture
def live(page: Page, server: FakeServer, wait_until: WaitUntil) -> Page:
    page.goto(server.url + "/live")
    wait_until(page, lambda: server.feeds)
    return page


def event_line(**more: Any) -> dict[str, Any]:
    return {
        "kind": "event",
        "at": int(time.time() * 1000),
        "person": "a81f02c1",
        "subject": "Product Viewed",
        "stream": "clicks",
        "detail": "Sole candle",
        "country": "CA",
        "device": "desktop",
        "bot": False,
        **more,
    }


def test_events_segment_changes_and_decisions_are_listed(live: Page, server: FakeServer) -> None:
    server.feed(event_line())
    change = {"kind": "segment_change", "at": 1, "person": "a81f02c1"}
    server.feed({**change, "subject": "likely_buyers", "entered": True, "id": "m1"})
    server.feed({**change, "subject": "undecided", "entered": False, "id": "m2"})
    server.feed(
        {
            "kind": "suppress",
            "at": 1,
            "person": "77b0de20",
            "subject": "welcome",
            "id": "h1",
            "because": {
                "trigger": "seconds",
                "reason": "limit",
                "detail": "already shown once in this visit",
                "passed": ["country is CA"],
                "failed": ["first visit"],
                "playbook": "5d2f9ac0",
            },
        }
    )
    server.feed(
        {"kind": "dead_letter", "at": 1, "person": "", "subject": "invalid", "error": "properties.price: is 'abc'"}
    )
    events, moves, decisions = live.locator("#events"), live.locator("#segment-changes"), live.locator("#decisions")
    expect(events).to_contain_text("Product Viewed")
    expect(events).to_contain_text("Sole candle")
    expect(events).to_contain_text("CA, desktop")
    expect(events).to_contain_text("properties.price: is 'abc'")
    expect(moves).to_contain_text("entered")
    expect(moves).to_contain_text("exited")
    for words in ("welcome", "limit: already shown once in this visit", "on seconds", "country is CA", "first visit"):
        expect(decisions).to_contain_text(words)
    expect(live.locator("#counters")).to_contain_text("1 events")
    expect(live.locator("#counters")).to_contain_text("2 segment changes")


def test_model_quality_is_compared_with_the_base_rate(live: Page, server: FakeServer) -> None:
    quality: dict[str, Any] = {
        "examples": 812,
        "positives": 64,
        "log_loss": 0.2,
        "base_log_loss": 0.25,
        "roc_auc": 0.8125,
    }
    model = Model("propensity", 7, "h", {"pages": 1.0}, quality=ModelQuality(**quality, drifts=2))
    told = to_entry(Record("models", 0, 1, 5, b"propensity", encode_model(model)))  # what the edge sends
    assert told is not None
    server.feed(told)
    expect(live.locator("#version")).to_have_text("propensity v7")
    expect(live.locator("#published")).to_contain_text("drifts detected: 2")
    expect(live.locator("#positives")).to_have_text("64 with an order")
    expect(live.locator("#examples")).to_have_text("812")
    expect(live.locator("#log-loss")).to_have_text("0.2000")
    expect(live.locator("#base-log-loss")).to_have_text("base rate: 0.2500, 20.0 % better")
    expect(live.locator("#auc")).to_have_text("0.813")
    server.feed({"kind": "model", "at": 1, "version": 8, **quality, "log_loss": 0.3})
    expect(live.locator("#base-log-loss")).to_contain_text("20.0 % worse")


def test_playbook_errors_are_shown(live: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    banner = live.locator("#playbook")
    expect(banner).to_be_hidden()
    evil = 'segments/a.toml, line 2: <img src=x onerror="window.hurt=1">'
    wrong = {
        "kind": "playbook",
        "folder": "shop",
        "count": 7,
        "since": int(time.time() * 1000),
        "live": "5d2f9ac0",
        "live_since": 1,
        "errors": [evil],
    }
    server.feed(wrong)
    expect(banner).to_contain_text("shop/ has 7 errors since ")
    expect(banner).to_contain_text("1970")
    expect(banner).to_contain_text("stays live")
    expect(banner.locator("li")).to_have_text([evil, "and 6 more; run attimo check shop"])
    assert live.locator("img").count() == 0
    server.feed({"kind": "playbook", "errors": []})
    expect(banner).to_be_hidden()
    server.feed({**wrong, "count": 1, "live": ""})
    expect(banner).to_contain_text("shop/ has 1 error since ")
    expect(banner).to_contain_text("no playbook is live")
    old = server.feeds[0]
    server.close_streams()
    wait_until(live, lambda: server.feeds and server.feeds[0] is not old)
    expect(banner).to_be_hidden()


def test_misrouted_records_show_a_warning(live: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    banner, evil = live.locator("#misrouted"), "4 % of the records <img src=x onerror='window.hurt=1'>"
    expect(banner).to_be_hidden()
    server.feed({"kind": "misrouted", "warning": evil})
    expect(banner).to_have_text(evil)
    assert live.locator("img").count() == 0
    server.feed({"kind": "misrouted", "warning": ""})
    expect(banner).to_be_hidden()
    server.feed({"kind": "misrouted", "warning": evil})
    expect(banner).to_be_visible()
    old = server.feeds[0]
    server.close_streams()
    wait_until(live, lambda: server.feeds and server.feeds[0] is not old)
    expect(banner).to_be_hidden()


def test_markup_from_visitors_is_shown_as_text(live: Page, server: FakeServer) -> None:
    evil = "<img src=x onerror='window.hurt=1'>"
    server.feed(event_line(person=evil, subject=evil, detail=evil, country=evil))
    server.feed(
        {
            "kind": "send",
            "at": evil,
            "person": evil,
            "subject": evil,
            "id": evil,
            "title": evil,
            "format": evil,
            "because": {"passed": [evil, {"a": evil}], "reason": evil, "detail": evil, "model": evil},
        }
    )
    server.feed({"kind": "dead_letter", "at": 1, "subject": evil, "error": evil})
    server.feed({"kind": "error", "error": evil})
    server.feed({"kind": "model", "version": evil, "quality": {"examples": evil, "log_loss": evil}})
    expect(live.locator("#events li")).to_have_count(2)
    expect(live.locator("#decisions li")).to_have_count(1)
    expect(live.locator("#status")).to_contain_text("<img")
    assert live.locator("img").count() == 0
    assert live.evaluate("window.hurt") is None


def test_invalid_lines_are_skipped_and_duplicates_count_once(live: Page, server: FakeServer) -> None:
    for nonsense in ({"kind": "constructor"}, {"kind": "toString", "subject": 1}, {}, {"kind": None}):
        server.feed(nonsense)
    for _ in range(3):
        server.feed({"kind": "preload", "at": 1, "person": "a", "subject": "exit_offer", "id": "same", "because": {}})
    server.feed(event_line(subject="Last"))
    expect(live.locator("#events")).to_contain_text("Last")
    expect(live.locator("main li")).to_have_count(2)
    expect(live.locator("#counters")).to_contain_text("1 preloaded")


def test_lists_are_bounded_and_can_be_paused(live: Page, server: FakeServer) -> None:
    for number in range(300):
        server.feed(event_line(subject=f"Event {number}"))
    expect(live.locator("#counters")).to_contain_text("300 events")
    expect(live.locator("#events li").first).to_contain_text("Event 299")
    expect(live.locator("#events li")).to_have_count(80)
    live.get_by_role("button", name="Pause").click()
    server.feed(event_line(subject="Unseen"))
    expect(live.locator("#counters")).to_contain_text("301 events")
    expect(live.locator("#events")).not_to_contain_text("Unseen")


def test_page_can_be_filtered_to_one_person(live: Page, server: FakeServer) -> None:
    server.feed(event_line(person="aaaaaaaa", subject="First"))
    server.feed(event_line(person="bbbbbbbb", subject="Other"))
    live.get_by_role("button", name="aaaaaaaa").click()
    server.feed(event_line(person="bbbbbbbb", subject="Hidden"))
    server.feed(event_line(person="aaaaaaaa", subject="Second"))
    expect(live.locator("#events li:visible")).to_have_count(2)
    live.get_by_role("button", name="Show all people").click()
    expect(live.locator("#events li:visible")).to_have_count(4)


def test_feed_reconnects_automatically(live: Page, server: FakeServer, wait_until: WaitUntil) -> None:
    expect(live.locator("#status")).to_have_text("Connected")
    old = server.feeds[0]
    server.close_streams()
    wait_until(live, lambda: server.feeds and server.feeds[0] is not old)
    server.feed(event_line())
    expect(live.locator("#events li")).to_have_count(1)
