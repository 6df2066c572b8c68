"""Ingest events from files into the log: JSON lines of Segment calls, receipts, recorded history.

An invalid line does not stop the ingest: it is written to `dead-letters` with its number and the reason. `timestamp` is
not corrected, because there is no client clock, and `userId` is trusted. Without `history`, records get the current log
time and events keep their timestamps.

Recorded history uses the timestamps as log times, so lines must be ordered by time. Lines that are out of order by up
to `SORT_WINDOW` lines are sorted; later ones are rejected. Lines with the same timestamp are ordered by stream. History
markers are written every `MARKER_INTERVAL` lines ("history has reached t") and at the end ("history has ended").
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from heapq import heappop, heappush
from time import time_ns
from typing import Any, Final, NamedTuple

import msgspec

from connectors.log.log import Log, LogError
from domain import event as events
from domain import record
from domain.record import DEAD_LETTERS, PUBLIC_STREAMS, DeadLetter, NewRecord, event_stream

MAX_LINE_BYTES: Final = 256 * 1024
"""Maximum bytes of a line."""
BATCH_SIZE: Final = 1_000
"""Maximum records of one append."""
SORT_WINDOW: Final = 1_000
"""Lines of history in the sort buffer."""
MARKER_INTERVAL: Final = 10_000
"""Lines of history between two markers. A marker is written to every partition of every public stream."""
MAX_REPORTED_ERRORS: Final = 20
"""Maximum errors in the result; the stream `dead-letters` has all of them."""

_STREAM_RANK = {stream: rank for rank, stream in enumerate(PUBLIC_STREAMS)}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class InputLine(NamedTuple):
    """A line of a file, or the error of a line that is no event."""

    number: int
    raw: bytes
    error: str = ""


class LineError(NamedTuple):
    """The error of a rejected line."""

    line: int
    message: str


class IngestResult(msgspec.Struct):
    """Counts and errors of an ingest."""

    accepted: int = 0
    rejected: int = 0
    streams: Counter[str] = msgspec.field(default_factory=Counter)
    errors: list[LineError] = []


class _ParsedEvent(NamedTuple):
    """A valid line; sorts by time, then stream, then line number."""

    at: int
    rank: int
    number: int
    key: bytes
    body: dict[str, Any]
    raw: bytes


class _InvalidLine(ValueError):
    """An invalid line; `code` is the kind of its dead letter."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def now_ms() -> int:
    return time_ns() // 1_000_000


def ingest(
    log: Log,
    lines: Iterable[bytes | InputLine],
    history: bool = False,
    clock: Callable[[], int] = now_ms,
    progress: Callable[[int], None] = lambda _: None,
) -> IngestResult:
    """Append the events of `lines`; call `progress` with the number of lines read.

    Raise LogError if an append fails, or if history begins before the newest record in the log.
    """
    writer = _LogWriter(log, clock, history)
    found = _parse_lines(lines, writer, progress)
    if history:
        _append_history(found, writer)
    else:
        for event in found:
            now = writer.clock()
            event.body["timestamp"] = (
                event.body.get("timestamp") or event.body.get("originalTimestamp") or format_timestamp(now)
            )
            event.body["receivedAt"] = event.body.get("receivedAt") or format_timestamp(now)
            writer.add_event(event, None)
    writer.flush()
    return writer.result


def format_timestamp(at: int) -> str:
    """Format a time (epoch ms) as ISO 8601.

    >>> format_timestamp(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _LogWriter:
    """Appends to the log in batches, and counts."""

    def __init__(self, log: Log, clock: Callable[[], int], history: bool) -> None:
        self.log = log
        self.clock = clock
        self.history = history
        self.result = IngestResult()
        self.last_time = 0
        self._batch: list[NewRecord] = []
        self._dead_letters: list[NewRecord] = []

    def add_event(self, event: _ParsedEvent, log_time: int | None) -> None:
        """Add an event to the batch; `flush` appends it."""
        stream = PUBLIC_STREAMS[event.rank]
        self._batch.append(NewRecord(stream, event.key, _encode(event.body), None, log_time))
        self.result.accepted += 1
        self.result.streams[stream] += 1
        if len(self._batch) >= BATCH_SIZE:
            self.flush()

    def add_marker(self, value: bytes, log_time: int | None) -> None:
        """Append a marker to every partition of every public stream."""
        self.flush()
        self.log.append(
            [
                NewRecord(stream, None, value, partition, log_time)
                for stream in PUBLIC_STREAMS
                for partition in range(self.log.partitions)
            ]
        )

    def add_dead_letter(self, number: int, raw: bytes, code: str, message: str) -> None:
        """Add a dead letter for an invalid line."""
        self.result.rejected += 1
        if len(self.result.errors) < MAX_REPORTED_ERRORS:
            self.result.errors.append(LineError(number, message))
        at = self.last_time if self.history and self.last_time else self.clock()
        dead_letter = DeadLetter(
            id=f"ingest:{number}:{blake2b(raw, digest_size=8).hexdigest()}",
            stream="ingest",
            partition=0,
            offset=number,
            kind=code,
            reason=f"line {number}: {message}",
            raw=record.redact_bytes(raw),
            at=at,
        )
        self._dead_letters.append(NewRecord(DEAD_LETTERS, None, record.encode_dead_letter(dead_letter), None, at))
        if len(self._dead_letters) >= BATCH_SIZE:
            self.flush()

    def flush(self) -> None:
        """Append the batch and the dead letters."""
        batch, self._batch = self._batch, []
        dead_letters, self._dead_letters = self._dead_letters, []
        if batch:
            self.log.append(batch)
        if dead_letters:
            self.log.append(dead_letters)


def _parse_lines(
    lines: Iterable[bytes | InputLine], writer: _LogWriter, progress: Callable[[int], None]
) -> Iterator[_ParsedEvent]:
    """Yield the valid lines as events; add dead letters for the others."""
    count = 0
    for count, line in enumerate(lines, 1):
        number, raw, line_error = line if isinstance(line, InputLine) else InputLine(count, line)
        if count % BATCH_SIZE == 0:
            progress(count)
        if not raw.strip():
            continue
        try:
            if line_error:
                raise _InvalidLine("invalid", line_error)
            event = _parse_line(number, raw, writer.clock(), writer.history)
        except _InvalidLine as error:
            writer.add_dead_letter(number, raw, error.code, str(error))
        else:
            yield event
    progress(count)


def _parse_line(number: int, raw: bytes, now: int, history: bool) -> _ParsedEvent:
    """Parse one line. Raise _InvalidLine with the invalid field."""
    if len(raw) > MAX_LINE_BYTES:
        raise _InvalidLine("too_long", f"the line has {len(raw)} bytes; the maximum is {MAX_LINE_BYTES}")
    try:
        call = events.decode(raw)
        body = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _InvalidLine("invalid", str(error)) from error
    except RecursionError as error:
        raise _InvalidLine("invalid", "nested too deeply") from error
    key = events.normalize_id(call.user_id) or events.normalize_id(call.anonymous_id)
    if key is None:
        raise _InvalidLine("missing_id", "userId or anonymousId is required")
    if len(key) > events.MAX_ID_LENGTH:
        raise _InvalidLine("too_long", f"an id has {len(key)} characters; the maximum is {events.MAX_ID_LENGTH}")
    stamp = call.timestamp or call.original_timestamp
    if stamp is None:
        if history:
            raise _InvalidLine("invalid", "timestamp is required: it is the log time of recorded history")
        at = now
    else:
        try:
            at = events.epoch_ms(stamp)
        except (OverflowError, ValueError) as error:
            raise _InvalidLine("invalid", f"timestamp: {error}") from error
        if history and not 0 < at <= now:
            raise _InvalidLine(
                "invalid", f"timestamp: {format_timestamp(at) if at > 0 else stamp} is not between 1970 and now"
            )
    try:
        return _ParsedEvent(at, _STREAM_RANK[event_stream(body["type"], call.name)], number, key.encode(), body, raw)
    except UnicodeEncodeError as error:
        raise _InvalidLine("invalid", "userId or anonymousId is not text") from error


def _append_history(parsed: Iterable[_ParsedEvent], writer: _LogWriter) -> None:
    """Append the events in time order, with history markers."""
    newest = writer.log.latest_log_time()
    marked = 0
    begun = False
    try:
        for event in _sort_by_time(parsed, writer):
            if not begun:
                if event.at <= newest:
                    raise LogError(
                        f"history begins at {format_timestamp(event.at)}, but the log already holds later records (the"
                        f" last one of {format_timestamp(newest)}): ingest history into an empty data folder"
                    )
                begun, writer.last_time, marked = True, event.at - 1, MARKER_INTERVAL
            if marked >= MARKER_INTERVAL and event.at > writer.last_time:
                writer.add_marker(b'{"type":"history","reached":%d}' % (event.at - 1), event.at - 1)
                marked = 0
            writer.last_time = event.at
            event.body["timestamp"] = format_timestamp(event.at)
            event.body["receivedAt"] = event.body.get("receivedAt") or format_timestamp(event.at)
            writer.add_event(event, event.at)
            marked += 1
    except BaseException:  # re-raised
        if begun:  # appended records stay, and shards do not wait for more
            writer.add_marker(b'{"type":"history","ended":true}', None)
        raise
    if begun:
        writer.add_marker(b'{"type":"history","ended":true}', writer.last_time)


def _sort_by_time(parsed: Iterable[_ParsedEvent], writer: _LogWriter) -> Iterator[_ParsedEvent]:
    """Yield the events by time, stream and line number; add dead letters for those outside of the sort window."""
    window: list[_ParsedEvent] = []
    moment: list[_ParsedEvent] = []  # events at the time `reached`
    reached = 0
    for event in parsed:
        if event.at < reached:
            writer.add_dead_letter(
                event.number,
                event.raw,
                "out_of_order",
                f"timestamp: {format_timestamp(event.at)} follows {format_timestamp(reached)};"
                " sort the file by timestamp",
            )
            continue
        heappush(window, event)
        if len(window) > SORT_WINDOW:
            first = heappop(window)
            if first.at > reached:
                yield from sorted(moment)
                moment, reached = [], first.at
            moment.append(first)
    yield from sorted(moment + window)
