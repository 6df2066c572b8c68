"""What tests of the widget do again and again."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

from tests.browser.shop_server import ShopServer

Offer = Callable[..., dict[str, Any]]
Until = Callable[..., Any]


def connected(page: Page, shop: ShopServer, until: Until, url: str) -> None:
    """Open a page and wait until its stream is open."""
    had = shop.opened
    page.goto(url)
    until(page, lambda: shop.opened > had)


def arm(page: Page, shop: ShopServer, action: dict[str, Any], then: str = "") -> None:
    """Push an action and wait until the widget holds it (an arm) or shows it (a send)."""
    page.evaluate("""([id, name]) => { window.ready = new Promise((done) =>
        document.addEventListener('attimo:' + name, (event) => event.detail.action_id === id && done())); }
    """, [action["id"], then or ("shown" if action["type"] == "send" else "armed")])
    shop.push(action["type"], action)
    page.evaluate("window.ready")
