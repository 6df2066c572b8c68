"""Clients that we did not write post to the collector unchanged."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from domain.event import decode
from tests.harness.http_server import SERVER_KEY, WEB_FOLDER, WRITE_KEY, RunningServer, running_server
from tests.harness.support import CHROMIUM, redis_server

CLIENT = WEB_FOLDER / "node_modules" / "@segment" / "analytics-next" / "dist" / "umd"
pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as url:
        yield url


def send_all_calls(client: Any) -> None:
    """The six calls, as both Python libraries have them."""
    client.track("ann", "Order Completed", {"order_id": "o-1", "total": 49.9, "currency": "EUR"})
    client.identify("ann", {"plan": "gold"})
    client.page("ann", "Home", "Start", {"path": "/"})
    client.screen("ann", "Main", "App")
    client.group("ann", "club")
    client.alias("guest-7", "ann")
    client.track(anonymous_id="guest-8", event="Product Added", properties={"product_id": "p-1"})


def check_events(server: RunningServer, count: int = 7) -> None:
    found = {event["type"]: event for event in server.events() if event["userId"]}
    assert len(server.events()) == count
    for record in server.records():
        decode(record.value)
    assert found["track"]["properties"] == {"order_id": "o-1", "total": 49.9, "currency": "EUR"}
    assert found["track"]["userId"] == "ann"
    assert found["identify"]["traits"] == {"plan": "gold"}
    assert (found["page"]["category"], found["page"]["name"]) == ("Home", "Start")
    assert found["group"]["groupId"] == "club"
    assert (found["alias"]["previousId"], found["alias"]["userId"]) == ("guest-7", "ann")
    assert not any(event["context"]["attimo"].get("bot") for event in server.events())
    assert {record.key for record in server.records("carts")} == {b"guest-8"}


@pytest.mark.parametrize("zipped", [False, True])
def test_segment_analytics_python(redis: str, tmp_path: Path, zipped: bool) -> None:
    from segment.analytics.client import Client  # type: ignore[import-untyped]  # has no types

    with running_server(tmp_path, redis) as running:
        wrong: list[Exception] = []
        client = Client(
            SERVER_KEY, host=running.url, gzip=zipped, on_error=lambda error, _: wrong.append(error), max_retries=1
        )
        send_all_calls(client)
        client.flush()
        client.join()
        assert wrong == []
        check_events(running)


def test_segment_analytics_python_receives_errors(redis: str, tmp_path: Path) -> None:
    from segment.analytics.client import Client

    with running_server(tmp_path, redis) as running:
        wrong: list[Exception] = []
        for key in ("nobody's", WRITE_KEY):  # with the public key nobody vouches for a user
            client = Client(key, host=running.url, on_error=lambda error, _: wrong.append(error), max_retries=1)
            client.track("ann", "Order Completed")
            client.flush()
            client.join()
        assert ["invalid_write_key" in str(wrong[0]), "missing_id" in str(wrong[1])] == [True, True]
        assert running.events() == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rudder_sdk_python(redis: str, tmp_path: Path) -> None:
    from rudderstack.analytics.client import Client  # type: ignore[import-untyped]  # has no types

    with running_server(tmp_path, redis) as running:
        wrong: list[Exception] = []
        client = Client(SERVER_KEY, host=running.url, on_error=lambda error, _: wrong.append(error), max_retries=1)
        send_all_calls(client)
        client.flush()
        client.join()
        assert wrong == []
        check_events(running)


class ShopSite(http.server.BaseHTTPRequestHandler):
    """Somebody's shop on its own origin, with the Segment client from npm."""

    page = b""

    def do_GET(self) -> None:
        body, kind = self.page, "text/html"
        if self.path.startswith("/client/"):
            body, kind = (CLIENT / Path(self.path).name).read_bytes(), "text/javascript"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def shop_site() -> Iterator[tuple[str, type[ShopSite]]]:
    handler = type("Shop", (ShopSite,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler
        finally:
            server.shutdown()


PAGE = """<!doctype html><title>A shop</title><script src="/client/index.js"></script><script>
const load = %s;
const analytics = window.AnalyticsNext.AnalyticsBrowser.load(...load);
window.done = (async () => {
  await analytics.page();
  await analytics.identify("ann", {plan: "gold"});
  await analytics.track("Product Added", {product_id: "p-1", price: 9.5});
  await analytics.group("club");
  await analytics.alias("ann-2");
  await analytics.screen("Main");
})();
</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("way", ["settings from us", "batching", "no settings"])
def test_analytics_next_in_chromium(redis: str, tmp_path: Path, way: str) -> None:
    if not CLIENT.exists():
        pytest.skip("the Segment client is not there: npm ci in web/")
    if CHROMIUM is None:
        pytest.skip("Chromium is not there")
    from playwright.sync_api import sync_playwright

    with shop_site() as (origin, handler), running_server(tmp_path, redis, allowed_origins=(origin,)) as running:
        host = running.url.removeprefix("http://") + "/v1"
        segment: dict[str, Any] = {"apiHost": host, "protocol": "http"}
        load: list[Any] = [{"writeKey": WRITE_KEY, "cdnURL": running.url}, {"integrations": {"Segment.io": segment}}]
        if way == "batching":
            segment["deliveryStrategy"] = {"strategy": "batching", "config": {"size": 3, "timeout": 200}}
        elif way == "no settings":
            load = [
                {
                    "writeKey": WRITE_KEY,
                    "cdnSettings": {"integrations": {"Segment.io": {"apiKey": WRITE_KEY, **segment}}},
                }
            ]
        handler.page = (PAGE % orjson.dumps(load).decode()).encode()
        complaints: list[str] = []
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(origin)
            page.evaluate("window.done")
            for _ in range(200):
                if len(running.events()) >= 6:
                    break
                page.wait_for_timeout(50)
            browser.close()
        events = {event["type"]: event for event in running.events()}
        assert complaints == []
        assert sorted(events) == ["alias", "group", "identify", "page", "screen", "track"]
        assert len({event["anonymousId"] for event in events.values()}) == 1
        assert {event["userId"] for event in events.values()} == {None}
        assert events["identify"]["context"]["attimo"]["claimedUserId"] == "ann"
        assert events["track"]["properties"] == {"product_id": "p-1", "price": 9.5}
        assert events["page"]["context"]["page"]["url"].startswith(origin)
        assert events["track"]["context"]["attimo"]["bot"] is True  # this Chromium says that it is headless
