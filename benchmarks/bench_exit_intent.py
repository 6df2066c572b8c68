"""Time from exit intent to a visible popup in Chromium, with the network off.

Pixel and widget come from the edge, and the flow has preloaded the offer. The floor is a page that opens a prepared
dialog without logic. Both get the same input: the pointer leaves the window. The page measures how many frames pass
until the popup is painted (1 is the next frame), and the time from the first line of script to the end of that frame.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, Route, sync_playwright

from benchmarks.instance import BenchmarkInstance
from benchmarks.report import Budget, Result, make_result, percentile

CAMPAIGN = """format = "popup"
trigger = { exit_intent = true }
priority = 100000
valid_for = "10m"
frequency_caps = { per_session = 1000 }
content.default = { title = "Before you go", body = "<p>For you.</p>", button = "Show", url = "/", coupon = "STAY10" }
"""

PROBE = """
window.probe = new Promise((done) => {
  const seen = () => {
    const offer = document.querySelector("attimo-offer[open]");
    const box = offer ? offer.shadowRoot.querySelector("dialog") : document.querySelector("dialog[open]");
    return box && box.open && box.getBoundingClientRect().height > 0;
  };
  addEventListener("mouseout", (event) => {
    if (event.relatedTarget || event.clientY > 0) return;
    const heard = performance.now();
    let frames = 0, opened = -1;
    const watch = new MutationObserver(() => { if (opened < 0 && seen()) opened = performance.now(); });
    watch.observe(document, { subtree: true, attributes: true });
    requestAnimationFrame(function look() {
      frames += 1;
      if (!seen()) return frames < 120 ? requestAnimationFrame(look) : done({ frames, painted: -1 });
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => done({ frames, opened: opened - heard, painted: performance.now() - heard });
      port2.postMessage(0); // runs when this frame is painted
    });
  }, true);
});
"""

OUR_PAGE = """<!doctype html><html lang="en"><title>Shop</title><body><h1>A shop</h1><p>Text.</p>
<script src="/pixel.js" data-write-key="{key}" data-exit-dwell="0" data-exit-cooldown="0" data-shadow="open"></script>
<script src="/widget.js"></script></body></html>"""

FLOOR_PAGE = """<!doctype html><html lang="en"><title>Shop</title><body><h1>A shop</h1><p>Text.</p>
<dialog><h2>Before you go</h2><p>For you.</p><code>STAY10</code><button>Show</button></dialog>
<script>document.addEventListener("mouseout", (event) => {
  if (!event.relatedTarget && event.clientY <= 0) document.querySelector("dialog").showModal();
}, true);</script></body></html>"""

USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
"""A headless browser names itself in its user agent, and bots get no offers."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Run(NamedTuple):
    """One popup: frames until painted, ms until open, ms until painted."""

    frames: int
    opened: float
    ms: float


def measure(instance: BenchmarkInstance, times: int) -> list[Result]:
    """Measure the worst number of frames and the median time. Raise RuntimeError without Chromium."""
    (instance.folder / "playbook" / "campaigns" / "before-you-go.toml").write_text(CAMPAIGN)
    instance.start_attimo("onsite")
    instance.wait_until_ready("onsite")
    instance.start_attimo("edge")
    ours: list[Run] = []
    floor: list[Run] = []
    try:
        with _browser() as browser:
            for _ in range(times):
                floor.append(_measure_floor(browser, instance))
                ours.append(_measure_ours(browser, instance))
    finally:
        instance.stop("edge")
        instance.stop("onsite")
    frames = [float(run.frames) for run in ours]
    times_ms = [run.ms for run in ours]
    note = (
        f"{times} sessions each, network off before the pointer leaves; slowest {max(times_ms):.3g} ms "
        f"(floor {max(run.ms for run in floor):.3g} ms), most frames {max(frames):.0f}; "
        f"open (before the paint) after {percentile([run.opened for run in ours], 0.5):.3g} ms, the floor's after "
        f"{percentile([run.opened for run in floor], 0.5):.3g} ms"
    )
    return [
        make_result(
            "exit intent -> popup visible, frames",
            "frames",
            frames,
            [float(run.frames) for run in floor],
            Budget("<= 1 frame, no network", at_most=1),
            note,
        ),
        make_result(
            "exit intent -> popup visible, time",
            "ms",
            times_ms,
            [run.ms for run in floor],
            Budget("<= 16 ms", at_most=16),
        ),
    ]


@contextmanager
def _browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        raise RuntimeError("this benchmark needs Chromium, and there is none on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _page(browser: Browser, instance: BenchmarkInstance, html: str) -> Iterator[Page]:
    """A new person on a page of the edge."""

    def answer(route: Route) -> None:
        route.fulfill(body=html, content_type="text/html; charset=utf-8")

    context = browser.new_context(user_agent=USER_AGENT)
    try:
        page = context.new_page()
        page.add_init_script(PROBE)
        page.route("**/bench-page", answer)
        page.mouse.move(400, 300)
        page.goto(f"{instance.url}/bench-page")
        yield page
    finally:
        context.close()


def _measure_floor(browser: Browser, instance: BenchmarkInstance) -> Run:
    with _page(browser, instance, FLOOR_PAGE) as page:
        return _move_out(page)


def _measure_ours(browser: Browser, instance: BenchmarkInstance) -> Run:
    with _page(browser, instance, OUR_PAGE.format(key=instance.settings.write_key)) as page:
        page.wait_for_selector("attimo-offer", state="attached", timeout=20_000)
        return _move_out(page)


def _move_out(page: Page) -> Run:
    """Turn the network off, then move the pointer out at the top."""
    page.context.set_offline(True)
    page.mouse.move(400, 200)
    page.mouse.move(400, 60)
    page.mouse.move(400, -5)
    found: dict[str, Any] = page.evaluate("() => window.probe")
    if found["painted"] < 0:
        raise RuntimeError("the popup did not appear within 120 frames")
    return Run(int(found["frames"]), float(found["opened"]), float(found["painted"]))
