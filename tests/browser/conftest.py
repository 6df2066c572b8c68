"""Chromium for tests, and a shop it can visit. Override `base_url` to let the demo shop's tests visit a real one."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.harness.fake_server import FakeServer, fake_server
from tests.harness.support import CHROMIUM

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


MEASUREMENTS: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured on the way; nothing depends on it."""
    for line in MEASUREMENTS:
        terminalreporter.write_line(line)


@pytest.fixture
def measurements() -> list[str]:
    return MEASUREMENTS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium a module: while Playwright is open it keeps an event loop running, which is in the way of others."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield found
        found.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as found:
        yield found


@pytest.fixture
def base_url(server: FakeServer) -> str:
    return server.url


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What pages complained about; a test that expects a complaint clears the list."""
    found: list[str] = []
    yield found
    assert not found


@pytest.fixture
def new_context(browser: Browser, errors: list[str]) -> Iterator[Callable[..., BrowserContext]]:
    """Makes visitors: a browser context each, with its own cookies and storage."""
    opened: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 700}, **options})
        context.set_default_timeout(10_000)
        context.on("page", lambda page: page.on("pageerror", lambda wrong: errors.append(str(wrong))))
        context.on("console", lambda said: errors.append(said.text) if "attimo:" in said.text else None)
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    return new_context().new_page()


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Wait until something holds. The time limit only ends a test that has already failed."""

    def wait(page: Page, holds: Callable[[], Any]) -> Any:
        for _ in range(1000):
            if found := holds():
                return found
            page.wait_for_timeout(10)
        raise AssertionError("it never came to hold")

    return wait


@pytest.fixture
def make_action() -> Callable[..., dict[str, Any]]:
    """Published messages, as `domain.action.published` writes them."""

    def make(kind: str = "preload", format: str = "popup", campaign: str = "stay", **more: Any) -> dict[str, Any]:
        content = {
            "title": "Before you go",
            "html": "<p>Ten percent off <b>today</b>.</p>",
            "button": "Show me",
            "url": "/offer",
            "coupon": "STAY10",
            **more.pop("content", {}),
        }
        return {
            "type": kind,
            "id": f"clicks-1-{campaign}-0",
            "at": int(time.time() * 1000),
            "anonymous_id": "x",
            "v": 1,
            "shop": "demo",
            "campaign": campaign,
            "format": format,
            "content": content,
            "expires_in_ms": 60_000,
            **more,
        }

    return make
