"""A stand-in for the edge, for what runs in a browser: it serves `web/`, binds ids by cookie, keeps what it is sent,
and lets a test say what goes down the streams, what is refused, and when the server is gone."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from connectors.http import responses
from tests.harness.support import ROOT

WEB = ROOT / "web"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: https:; object-src 'none'"
TAGS = (
    '<script src="/pixel.js" data-write-key="WK" data-shadow="open" data-exit-dwell="0" data-exit-cooldown="0" {}'
    ' defer></script><script src="/widget.js" defer></script>'
)


class FakeServer:
    """What a test sees of the server. `messages` are the calls in the order they came, repeats included."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.messages: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.preloaded: list[dict[str, Any]] = []
        self.bound: dict[str, str] = {}
        self.status = 200
        self.token_status = 200
        self.streams: list[queue.Queue[tuple[str, Any] | None]] = []
        self.streams_opened = 0
        self.feeds: list[queue.Queue[dict[str, Any] | None]] = []
        self.lock = threading.Lock()
        self.url = ""

    def page(self, path: str = "/", body: str = "<h1>Shop</h1>", tags: str = "", head: str = "") -> str:
        """Serve a page with pixel and widget; its URL."""
        self.pages[path] = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{path}</title>'
            f'<meta name="viewport" content="width=device-width">{head}{TAGS.format(tags)}<body>{body}</body></html>'
        )
        return self.url + path

    def push(self, event: str, data: Any) -> None:
        """Send an event down every open stream."""
        for one in list(self.streams):
            one.put((event, data))

    def feed(self, shown: dict[str, Any]) -> None:
        """Send a line to every live page."""
        for one in list(self.feeds):
            one.put(shown)

    def close_streams(self) -> None:
        """End every open stream."""
        for stream in list(self.streams):
            stream.put(None)
        for feed in list(self.feeds):
            feed.put(None)

    def unique_messages(self) -> list[dict[str, Any]]:
        """The messages without repeats, as a log that knows message ids keeps them."""
        return list({message["messageId"]: message for message in self.messages}.values())

    def message_names(self) -> list[str]:
        """The unique messages by name."""
        return [message.get("event", message["type"]) for message in self.unique_messages()]

    def tracked(self, event: str) -> list[dict[str, Any]]:
        """The unique calls of one name."""
        return [message for message in self.unique_messages() if message.get("event", message["type"]) == event]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shop: FakeServer

    def log_message(self, *_: Any) -> None:
        """A test's output is for what failed."""

    def reply(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def cookie(self) -> str:
        found: SimpleCookie = SimpleCookie(self.headers.get("Cookie", ""))
        return found["attimo_bind"].value if "attimo_bind" in found else ""

    def do_POST(self) -> None:
        shop, path = self.shop, urlsplit(self.path).path
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        body = json.loads(text) if text else {}
        if path == "/v1/batch":
            with shop.lock:
                shop.requests.append(
                    {
                        "body": body,
                        "type": self.headers.get("Content-Type"),
                        "size": len(text),
                        "ids": {message.get("anonymousId") for message in body["batch"]},
                    }
                )
            if shop.status != 200:
                self.reply(shop.status, b'{"success":false,"code":"no","message":"no"}')
                return
            with shop.lock:
                shop.messages += body["batch"]
                new = ""
                ids = {message.get("anonymousId") for message in body["batch"]}
                if len(ids) == 1 and (who := ids.pop()) not in shop.bound:
                    new = shop.bound[who] = f"nonce{len(shop.bound)}"
            extra = {"Set_Cookie": f"attimo_bind={new}; Path=/; HttpOnly; SameSite=Lax"} if new else {}
            self.reply(200, b'{"success":true}', **extra)
        elif path == "/v1/stream/token":
            if shop.token_status != 200:
                self.reply(shop.token_status, b'{"code":"no","message":"no"}')
            elif not self.cookie() or shop.bound.get(str(body.get("anonymousId"))) != self.cookie():
                self.reply(403, b'{"success":false,"code":"not_bound","message":"no"}')
            else:
                self.reply(200, json.dumps({"token": self.cookie(), "expires_in": 300}).encode())
        elif path == "/shop/login":
            self.reply(200, json.dumps({"user_id": body["user_id"], "user_hash": "vouched"}).encode())
        else:
            self.reply(404, b"{}")

    def do_GET(self) -> None:
        shop, parts = self.shop, urlsplit(self.path)
        if parts.path in shop.pages:
            self.reply(200, shop.pages[parts.path].encode(), "text/html; charset=utf-8")
        elif parts.path == "/v1/stream":
            if parse_qs(parts.query)["token"] != [self.cookie()]:
                self.reply(403, b"{}")
                return
            mine: queue.Queue[tuple[str, Any] | None] = queue.Queue()
            with shop.lock:
                mine.put(("snapshot", list(shop.preloaded)))
                shop.streams.append(mine)
                shop.streams_opened += 1
            self.stream(mine, shop.streams, lambda item: f"event: {item[0]}\ndata: {json.dumps(item[1])}\n\n")
        elif parts.path == "/live/feed":
            fed: queue.Queue[dict[str, Any] | None] = queue.Queue()
            shop.feeds.append(fed)
            self.stream(fed, shop.feeds, lambda item: f"data: {json.dumps(item)}\n\n")
        else:
            name = {"/live": "live.html", "/shop/": "demo/index.html"}.get(
                parts.path, parts.path.replace("/shop/", "/demo/").lstrip("/")
            )
            file = (WEB / name).resolve()
            if file.is_relative_to(WEB) and file.is_file():
                self.reply(200, responses.load_asset(file, strip=file.parent == WEB).body, MEDIA_TYPES[file.suffix])
            else:
                self.reply(404, b"", "text/plain")

    def stream(self, messages: queue.Queue[Any], open_streams: list[Any], write: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                try:
                    item = messages.get(timeout=0.2)
                    if item is None:
                        return
                    text = write(item)
                except queue.Empty:
                    text = ": keep-alive\n\n"
                self.wfile.write(text.encode())
                self.wfile.flush()
        except OSError:
            pass  # the page is gone
        finally:
            open_streams.remove(messages)


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Browsers hang up in the middle of things; that is no failure."""


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """A running server on a free port."""
    shop = FakeServer()
    server = HttpServer(("127.0.0.1", 0), type("Bound", (Handler,), {"shop": shop}))
    shop.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        shop.close_streams()
        server.shutdown()
        server.server_close()
        thread.join(5)
