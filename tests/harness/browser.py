"""What tests of the widget do again and again."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

from tests.harness.fake_server import FakeServer

Offer = Callable[..., dict[str, Any]]
Until = Callable[..., Any]


def open_connected(page: Page, server: FakeServer, wait_until: Until, url: str) -> None:
    """Open a page and wait until its stream is open."""
    had = server.streams_opened
    page.goto(url)
    wait_until(page, lambda: server.streams_opened > had)


def push_and_wait(page: Page, server: FakeServer, action: dict[str, Any], expected_event: str = "") -> None:
    """Push an action and wait until the widget has preloaded or shown it."""
    page.evaluate(
        """([id, name]) => { window.ready = new Promise((done) =>
        document.addEventListener('attimo:' + name, (event) => event.detail.action_id === id && done())); }
    """,
        [action["id"], expected_event or ("shown" if action["type"] == "send" else "preloaded")],
    )
    server.push(action["type"], action)
    page.evaluate("window.ready")
