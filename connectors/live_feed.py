"""The live feed: events, segment moves, decisions, messages, rejects and models as they happen, for the page `/live`.

It tails the log from its end, in a thread of its own, and only while somebody watches; only the newest model is told to
everybody who comes. People appear as short hashes.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson
from starlette.types import Receive, Scope, Send

from connectors import misrouted, mistakes_file
from connectors.log import Log, LogError
from domain import action, event, message, model, reject
from domain.mistakes import SHOWN as PROBLEMS
from domain.mistakes import Mistakes
from domain.record import UNREADABLE, Record
from domain.settings import Settings
from domain.streams import ACTIONS, MESSAGES, MODELS, PUBLIC, REJECTS

WATCHED: Final = (*PUBLIC, ACTIONS, MESSAGES, REJECTS)
NEWEST_MODEL: Final = (MODELS, 0)
AMONG: Final = 100
"""The newest model of visits is among so many models of all kinds."""
WATCHERS: Final = 20
SHOWN: Final = 100
"""Lines of one round (a tenth of a second); what is more is counted and not shown."""

QUEUE: Final = 1_000


def who(person: str) -> str:
    """A person, recognisable and not named.

    >>> who("u:ann") == who("ann") != who("bob"), len(who("ann"))
    (True, 8)
    """
    plain = person[2:] if person[:2] in ("u:", "a:") else person
    return hashlib.blake2b(plain.encode(), digest_size=4).hexdigest() if plain else ""


def line(record: Record) -> dict[str, Any] | None:
    """What the page shows of a record; None for what cannot be read.

    >>> line(Record("clicks", 0, 1, 5, b"a1", b'{"type":"page","anonymousId":"a1","properties":{"path":"/x"}}'))["what"]
    'Page Viewed'
    """
    try:
        if record.stream == REJECTS:
            refused = reject.decode(record.value)
            return {"kind": "reject", "at": record.log_time, "who": "", "what": refused.kind,
                    "because": refused.because, "stream": refused.stream}
        if record.stream == ACTIONS:
            return _action(record)
        if record.stream == MESSAGES:
            return _message(record)
        if record.stream == MODELS:
            return _model(record)
        return _event(record)
    except UNREADABLE:
        return None


def _action(record: Record) -> dict[str, Any]:
    found = action.decode(record.value)
    shown: dict[str, Any] = {"at": found.at, "who": who(found.person), "id": found.id,
                             "because": msgspec.to_builtins(found.because)}
    if isinstance(found, action.Move):
        return {"kind": "move", "what": found.segment, "entered": found.entered, **shown}
    kind: str = msgspec.to_builtins(found)["type"]
    if isinstance(found, action.Send | action.Arm):
        shown["format"], shown["title"] = found.format, found.content.title
    elif isinstance(found, action.Progress):
        shown["detail"] = found.words
    elif isinstance(found, action.CouponNews):
        shown["detail"] = found.what
    return {"kind": kind, "what": action.subject(found), **shown}


def _message(record: Record) -> dict[str, Any] | None:
    """A message, without its addresses; what takes one back is not shown."""
    found = message.decode(record.value)
    if found.withdraws:
        return None
    return {"kind": "message", "at": found.at, "who": who(found.person), "id": found.id, "what": found.campaign,
            "format": found.channel, "title": found.content.title, "because": msgspec.to_builtins(found.because)}


def _model(record: Record) -> dict[str, Any] | None:
    found = model.decode(record.value)
    if found.kind != "propensity":
        return None
    quality = found.quality
    return {"kind": "model", "at": found.at or record.log_time, "version": found.version, "quality": {
        "examples": quality.examples, "positives": quality.positives, "log_loss": quality.log_loss,
        "base_log_loss": quality.base_log_loss, "roc_auc": quality.roc_auc, "drifts": quality.drifts}}


def _event(record: Record) -> dict[str, Any]:
    found = event.decode(record.value)
    key = event.text_id(found.user_id) or event.text_id(found.anonymous_id) or ""
    shown: dict[str, Any] = {"kind": "event", "at": record.log_time, "who": who(key), "what": found.name,
                             "stream": record.stream, "detail": _detail(found)}
    seen = found.context.attimo if found.context else None
    if seen is not None:
        shown.update(country=seen.country, device=seen.device, bot=seen.bot, known=found.user_id is not None)
    return shown


def _detail(found: event.Event) -> str:
    properties = getattr(found, "properties", {})
    for name in ("name", "query", "path", "order_id", "product_id", "campaign"):
        value = properties.get(name)
        if isinstance(value, str | int | float) and value != "":
            return str(value)[:80]
    page = found.context.page if found.context else None
    return (page.path or "")[:80] if page else ""


def standing(mistakes: Mistakes | None) -> dict[str, Any]:
    """What the page shows of the playbook folder; without problems it is in order.

    >>> standing(None)
    {'kind': 'playbook', 'problems': []}
    """
    if mistakes is None:
        return {"kind": "playbook", "problems": []}
    return {"kind": "playbook", "problems": list(map(str, mistakes.problems[:PROBLEMS])), "count": mistakes.count,
            "folder": mistakes.folder, "since": mistakes.since, "live": mistakes.live,
            "live_since": mistakes.live_since}


class LiveFeed:
    """`opener` opens the log anew: the feed has its own connection, in its own thread."""

    def __init__(self, opener: Callable[[], Log], settings: Settings) -> None:
        self._opener, self._settings = opener, settings
        self._watchers: set[asyncio.Queue[bytes]] = set()
        self._stop: threading.Event | None = None
        self._newest = b""
        """The line about the newest model; empty while nobody watches."""
        self._standing: dict[str, bytes] = {}
        """The lines about what is wrong, by their kind; empty ones while nothing is."""
        self._ending = asyncio.Event()

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer GET /live/feed. The caller has checked that the asker may watch."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
        self._watchers.add(queue)
        if self._stop is None:
            self._stop = threading.Event()
            threading.Thread(target=self._tail, args=(asyncio.get_running_loop(), self._stop), daemon=True,
                             name="live-feed").start()
        else:
            for told in filter(None, (self._newest, *self._standing.values())):
                queue.put_nowait(told)
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await send({
                "type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"),
                            (b"x-accel-buffering", b"no"), (b"x-content-type-options", b"nosniff")],
            })
            await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
            tasks = [loop.create_task(_write(queue, send)), loop.create_task(_gone(receive)),
                     loop.create_task(self._ending.wait())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._ending.is_set():
                tasks[0].cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in tasks:
                task.cancel()
            self._watchers.discard(queue)
            if not self._watchers and self._stop is not None:
                self._stop.set()
                self._stop, self._newest, self._standing = None, b"", {}

    @property
    def full(self) -> bool:
        """Whether no further watcher is let in."""
        return len(self._watchers) >= WATCHERS

    def end(self) -> None:
        """End all streams, so that the server can stop."""
        self._ending.set()
        if self._stop is not None:
            self._stop.set()

    def _give(self, lines: list[bytes], newest: bytes) -> None:
        self._newest = newest or self._newest
        for queue in self._watchers:
            for one in lines:
                if queue.full():
                    break  # a page that does not keep up misses lines, and loses nothing else
                queue.put_nowait(one)

    def _judge(self, shown: dict[str, Any], wrong: bool) -> None:
        """Tell it now; and while something is wrong, to whoever comes later."""
        told = _sse(shown)
        self._standing[shown["kind"]] = told if wrong else b""
        self._give([told], b"")

    def _tail(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """Runs in its thread: read what is new, a tenth of a second at a time, until nobody watches."""
        playbook = mistakes_file.Look(mistakes_file.path_of(self._settings.data))
        records = misrouted.Look(self._settings)
        while not stop.is_set():
            try:
                with self._opener() as log:
                    places = [(stream, number) for stream in WATCHED for number in range(log.partitions)]
                    places.append(NEWEST_MODEL)
                    ends = log.ends(places)
                    reader = log.reader(places, ends)
                    try:
                        self._give_all(loop, [_sse({"kind": "watching", "at": time.time_ns() // 1_000_000})])
                        if (last := ends[NEWEST_MODEL]) >= 0:
                            self._give_all(loop, *_lines(log.fetch(NEWEST_MODEL, max(0, last - AMONG), last)))
                        while not stop.is_set():
                            if playbook.again():
                                self._call(loop, self._judge, standing(playbook.now), playbook.now is not None)
                            if records.again():
                                shown = {"kind": "misrouted", "problem": records.now}
                                self._call(loop, self._judge, shown, bool(records.now))
                            self._give_all(loop, *_lines(reader.poll(2_000, 0.25)))
                            time.sleep(0.1)
                    finally:
                        reader.close()
            except LogError as wrong:
                self._give_all(loop, [_sse({"kind": "error", "because": str(wrong)})])
                stop.wait(1.0)

    def _give_all(self, loop: asyncio.AbstractEventLoop, lines: list[bytes], newest: bytes = b"") -> None:
        if lines:
            self._call(loop, self._give, lines, newest)

    def _call(self, loop: asyncio.AbstractEventLoop, what: Callable[..., None], *given: Any) -> None:
        try:
            loop.call_soon_threadsafe(what, *given)
        except RuntimeError:
            pass  # the server has stopped


def _lines(records: list[Record]) -> tuple[list[bytes], bytes]:
    """The lines of one round, and among them the one about the newest model (of several only the last is shown)."""
    found = [one for one in map(line, records) if one is not None]
    models = [one for one in found if one["kind"] == "model"]
    found = [one for one in found if one["kind"] != "model"] if models else found
    lines = [_sse(one) for one in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(_sse({"kind": "skipped", "n": len(found) - SHOWN}))
    newest = _sse(models[-1]) if models else b""
    return [*lines, newest] if newest else lines, newest


def _sse(shown: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(shown) + b"\n\n"


async def _write(queue: asyncio.Queue[bytes], send: Send) -> None:
    while True:
        try:
            async with asyncio.timeout(15):
                body = await queue.get()
        except TimeoutError:
            body = b": still here\n\n"
        while not queue.empty():
            body += queue.get_nowait()
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
