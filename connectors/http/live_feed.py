"""The live feed for the page `/live`: events, decisions, messages, dead letters and models in real time.

A thread reads the log from its end while at least one viewer is connected. Each viewer first gets the newest model and
the current alerts. People appear as short hashes.
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

from connectors import metrics
from connectors.log.log import Log, LogError
from connectors.playbook import status
from domain import action, event, model
from domain import record as domain_record
from domain.diagnostics import MAX_SHOWN_ERRORS, PlaybookStatus
from domain.record import ACTIONS, DEAD_LETTERS, DECODE_ERRORS, MESSAGES, MODELS, PUBLIC_STREAMS, Record
from domain.settings import Settings

FEED_STREAMS: Final = (*PUBLIC_STREAMS, ACTIONS, MESSAGES, DEAD_LETTERS)
MODEL_PARTITION: Final = (MODELS, 0)
MODEL_LOOKBACK: Final = 100
"""Newest records of `models` that are searched for a propensity model."""
MAX_VIEWERS: Final = 20
MAX_ENTRIES_PER_POLL: Final = 100
"""Maximum entries of one poll (every 0.1 s); further entries are counted, not shown."""

MAX_QUEUED_ENTRIES: Final = 1_000


def person_hash(person: str) -> str:
    """Return a short hash of a person's id, with or without its prefix.

    >>> person_hash("u:ann") == person_hash("ann") != person_hash("bob"), len(person_hash("ann"))
    (True, 8)
    """
    plain = person[2:] if person[:2] in ("u:", "a:") else person
    return hashlib.blake2b(plain.encode(), digest_size=4).hexdigest() if plain else ""


def to_entry(record: Record) -> dict[str, Any] | None:
    """Convert a record to an entry of the feed; return None if it cannot be decoded.

    >>> to_entry(Record("clicks", 0, 1, 5, b"a1", b'{"type":"page","anonymousId":"a1","properties":{}}'))["subject"]
    'Page Viewed'
    """
    try:
        if record.stream == DEAD_LETTERS:
            dead_letter = domain_record.decode_dead_letter(record.value)
            return {
                "kind": "dead_letter",
                "at": record.log_time,
                "person": "",
                "subject": dead_letter.kind,
                "error": dead_letter.reason,
                "stream": dead_letter.stream,
            }
        if record.stream == ACTIONS:
            return _action_entry(record)
        if record.stream == MESSAGES:
            return _message_entry(record)
        if record.stream == MODELS:
            return _model_entry(record)
        return _event_entry(record)
    except DECODE_ERRORS:
        return None


def _action_entry(record: Record) -> dict[str, Any]:
    found = action.decode_action(record.value)
    shown: dict[str, Any] = {
        "at": found.at,
        "person": person_hash(found.person),
        "id": found.id,
        "because": msgspec.to_builtins(found.because),
    }
    if isinstance(found, action.SegmentChange):
        return {"kind": "segment_change", "subject": found.segment, "entered": found.entered, **shown}
    kind: str = msgspec.to_builtins(found)["type"]
    if isinstance(found, action.Send | action.Preload):
        shown["format"], shown["title"] = found.format, found.content.title
    elif isinstance(found, action.WorkflowProgress):
        shown["detail"] = found.describe
    elif isinstance(found, action.CouponEvent):
        shown["detail"] = found.status
    return {"kind": kind, "subject": action.target_name(found), **shown}


def _message_entry(record: Record) -> dict[str, Any] | None:
    """Convert a message, without addresses; withdrawals are not shown."""
    found = action.decode_message(record.value)
    if found.withdrawn_id:
        return None
    return {
        "kind": "message",
        "at": found.at,
        "person": person_hash(found.person),
        "id": found.id,
        "subject": found.campaign,
        "format": found.channel,
        "title": found.content.title,
        "because": msgspec.to_builtins(found.because),
    }


def _model_entry(record: Record) -> dict[str, Any] | None:
    found = model.decode_model(record.value)
    if found.kind != "propensity":
        return None
    quality = found.quality
    return {
        "kind": "model",
        "at": found.at or record.log_time,
        "version": found.version,
        "quality": {
            "examples": quality.examples,
            "positives": quality.positives,
            "log_loss": quality.log_loss,
            "base_log_loss": quality.base_log_loss,
            "roc_auc": quality.roc_auc,
            "drifts": quality.drifts,
        },
    }


def _event_entry(record: Record) -> dict[str, Any]:
    found = event.decode(record.value)
    key = event.normalize_id(found.user_id) or event.normalize_id(found.anonymous_id) or ""
    shown: dict[str, Any] = {
        "kind": "event",
        "at": record.log_time,
        "person": person_hash(key),
        "subject": found.name,
        "stream": record.stream,
        "detail": _event_detail(found),
    }
    seen = found.context.attimo if found.context else None
    if seen is not None:
        shown.update(country=seen.country, device=seen.device, bot=seen.bot, signed_in=found.user_id is not None)
    return shown


def _event_detail(decoded: event.Event) -> str:
    properties = getattr(decoded, "properties", {})
    for name in ("name", "query", "path", "order_id", "product_id", "campaign"):
        value = properties.get(name)
        if isinstance(value, str | int | float) and value != "":
            return str(value)[:80]
    page = decoded.context.page if decoded.context else None
    return (page.path or "")[:80] if page else ""


def playbook_entry(status: PlaybookStatus | None) -> dict[str, Any]:
    """Convert the status of the playbook folder; without errors the playbook is valid.

    >>> playbook_entry(None)
    {'kind': 'playbook', 'errors': []}
    """
    if status is None:
        return {"kind": "playbook", "errors": []}
    return {
        "kind": "playbook",
        "errors": list(map(str, status.errors[:MAX_SHOWN_ERRORS])),
        "count": status.error_count,
        "folder": status.folder,
        "since": status.since,
        "live": status.live_hash,
        "live_since": status.live_since,
    }


class LiveFeed:
    """Streams entries to viewers. `log_factory` opens a separate connection to the log for the thread."""

    def __init__(self, log_factory: Callable[[], Log], settings: Settings) -> None:
        self._log_factory, self._settings = log_factory, settings
        self._viewers: set[asyncio.Queue[bytes]] = set()
        self._stop: threading.Event | None = None
        self._latest_model = b""
        """The entry of the newest model; empty without viewers."""
        self._active_alerts: dict[str, bytes] = {}
        """Entries of current alerts by kind; an empty entry means no alert."""
        self._stopping = asyncio.Event()

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle GET /live/feed. The caller has checked the permission."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(MAX_QUEUED_ENTRIES)
        self._viewers.add(queue)
        if self._stop is None:
            self._stop = threading.Event()
            threading.Thread(
                target=self._tail_log, args=(asyncio.get_running_loop(), self._stop), daemon=True, name="live-feed"
            ).start()
        else:
            for entry in filter(None, (self._latest_model, *self._active_alerts.values())):
                queue.put_nowait(entry)
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"text/event-stream; charset=utf-8"),
                        (b"cache-control", b"no-store"),
                        (b"x-accel-buffering", b"no"),
                        (b"x-content-type-options", b"nosniff"),
                    ],
                }
            )
            await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
            tasks = [
                loop.create_task(_write_entries(queue, send)),
                loop.create_task(_until_disconnect(receive)),
                loop.create_task(self._stopping.wait()),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                tasks[0].cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in tasks:
                task.cancel()
            self._viewers.discard(queue)
            if not self._viewers and self._stop is not None:
                self._stop.set()
                self._stop, self._latest_model, self._active_alerts = None, b"", {}

    @property
    def full(self) -> bool:
        """True if the maximum number of viewers is connected."""
        return len(self._viewers) >= MAX_VIEWERS

    def end_streams(self) -> None:
        """End all streams, so that the server can stop."""
        self._stopping.set()
        if self._stop is not None:
            self._stop.set()

    def _broadcast(self, entries: list[bytes], latest_model: bytes) -> None:
        self._latest_model = latest_model or self._latest_model
        for queue in self._viewers:
            for entry in entries:
                if queue.full():
                    break  # a slow page misses entries
                queue.put_nowait(entry)

    def _set_alert(self, entry: dict[str, Any], active: bool) -> None:
        """Broadcast an alert, and store it for later viewers while it is active."""
        encoded = _encode_entry(entry)
        self._active_alerts[entry["kind"]] = encoded if active else b""
        self._broadcast([encoded], b"")

    def _tail_log(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """Read new records every 0.1 s until the last viewer leaves. Runs in the thread."""
        playbook = status.StatusWatcher(status.status_path(self._settings.data))
        misrouted = metrics.MisroutedWatcher(self._settings)
        while not stop.is_set():
            try:
                with self._log_factory() as log:
                    places = [(stream, number) for stream in FEED_STREAMS for number in range(log.partitions)]
                    places.append(MODEL_PARTITION)
                    ends = log.end_offsets(places)
                    reader = log.reader(places, ends)
                    try:
                        self._broadcast_threadsafe(
                            loop, [_encode_entry({"kind": "connected", "at": time.time_ns() // 1_000_000})]
                        )
                        if (last := ends[MODEL_PARTITION]) >= 0:
                            self._broadcast_threadsafe(
                                loop, *_encode_entries(log.fetch(MODEL_PARTITION, max(0, last - MODEL_LOOKBACK), last))
                            )
                        while not stop.is_set():
                            if playbook.poll():
                                self._call_threadsafe(
                                    loop, self._set_alert, playbook_entry(playbook.status), playbook.status is not None
                                )
                            if misrouted.poll():
                                entry = {"kind": "misrouted", "warning": misrouted.warning}
                                self._call_threadsafe(loop, self._set_alert, entry, bool(misrouted.warning))
                            self._broadcast_threadsafe(loop, *_encode_entries(reader.poll(2_000, 0.25)))
                            time.sleep(0.1)
                    finally:
                        reader.close()
            except LogError as error:
                self._broadcast_threadsafe(loop, [_encode_entry({"kind": "error", "error": str(error)})])
                stop.wait(1.0)

    def _broadcast_threadsafe(
        self, loop: asyncio.AbstractEventLoop, entries: list[bytes], latest_model: bytes = b""
    ) -> None:
        if entries:
            self._call_threadsafe(loop, self._broadcast, entries, latest_model)

    def _call_threadsafe(self, loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
        try:
            loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the server has stopped


def _encode_entries(records: list[Record]) -> tuple[list[bytes], bytes]:
    """Encode the entries of one poll; also return the entry of the newest model (older ones are dropped)."""
    found = [entry for entry in map(to_entry, records) if entry is not None]
    models = [entry for entry in found if entry["kind"] == "model"]
    found = [entry for entry in found if entry["kind"] != "model"] if models else found
    lines = [_encode_entry(entry) for entry in found[:MAX_ENTRIES_PER_POLL]]
    if len(found) > MAX_ENTRIES_PER_POLL:
        lines.append(_encode_entry({"kind": "skipped", "count": len(found) - MAX_ENTRIES_PER_POLL}))
    newest = _encode_entry(models[-1]) if models else b""
    return [*lines, newest] if newest else lines, newest


def _encode_entry(entry: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(entry) + b"\n\n"


async def _write_entries(queue: asyncio.Queue[bytes], send: Send) -> None:
    while True:
        try:
            async with asyncio.timeout(15):
                body = await queue.get()
        except TimeoutError:
            body = b": keep-alive\n\n"
        while not queue.empty():
            body += queue.get_nowait()
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
