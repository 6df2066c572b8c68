"""Reading files of events into the log: JSON lines of Segment calls, receipts, recorded history.

A line that cannot be read never stops the rest: it goes to `rejects` with its number and the reason. Lines are read as
they are written down: `timestamp` is believed (a file was not sent, so no client's clock can be corrected), `userId` is
trusted. Without `history` they are appended now; their time of happening stays theirs.

Recorded history keeps its recorded time as log time, so lines have to come in its order: what is out of order by up
to a thousand lines is sorted, what is later than that is rejected. Lines of one moment go in the order of their
streams. The markers that shards wait for are written too: "history has reached t" every ten thousand lines, and
"history has ended".
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from heapq import heappop, heappush
from time import time_ns
from typing import Any, Final, NamedTuple

import msgspec

from connectors.log import Log, LogError
from domain import event as events
from domain import reject as rejects
from domain.record import Outgoing
from domain.reject import Reject
from domain.streams import PUBLIC, REJECTS, stream_of

LONGEST: Final = 256 * 1024
"""Bytes of a line."""
BATCH: Final = 1_000
"""Records of one append."""
WINDOW: Final = 1_000
"""Lines of history that are sorted by time."""
MARK: Final = 10_000
"""Lines of history between two markers: each is written to every partition of every public stream."""
SHOWN: Final = 20
"""Problems that are told one by one; the rest is counted, and in `rejects`."""

_RANK = {stream: rank for rank, stream in enumerate(PUBLIC)}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Line(NamedTuple):
    """One line of a file: an event, or why there is none."""

    number: int
    raw: bytes
    because: str = ""


class Problem(NamedTuple):
    """A line that was not read, and why."""

    line: int
    because: str


class Ingested(msgspec.Struct):
    """What became of the lines."""

    accepted: int = 0
    rejected: int = 0
    streams: Counter[str] = msgspec.field(default_factory=Counter)
    problems: list[Problem] = []


class _Event(NamedTuple):
    """A line that can be appended. Sorts by time, then stream, then line."""

    at: int
    rank: int
    number: int
    key: bytes
    body: dict[str, Any]
    raw: bytes


class _Bad(ValueError):
    """A line that cannot be read; `kind` is the short word of its reject."""

    def __init__(self, kind: str, because: str) -> None:
        super().__init__(because)
        self.kind = kind


def _wall() -> int:
    return time_ns() // 1_000_000


def ingest(
    log: Log, lines: Iterable[bytes | Line], history: bool = False, now: Callable[[], int] = _wall,
    progress: Callable[[int], None] = lambda _: None,
) -> Ingested:
    """Append the events of these lines; `progress` hears how many lines were read.

    LogError when the log cannot be written, or when history would come before what the log holds already.
    """
    into = _Into(log, now, history)
    found = _events(lines, into, progress)
    if history:
        _append_history(found, into)
    else:
        for event in found:
            moment = into.now()
            event.body["timestamp"] = event.body.get("timestamp") or event.body.get("originalTimestamp") or iso(moment)
            event.body["receivedAt"] = event.body.get("receivedAt") or iso(moment)
            into.put(event, None)
    into.flush()
    return into.done


def iso(moment: int) -> str:
    """A moment in ms as the wire writes it.

    >>> iso(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Into:
    """The log, a batch at a time, and the count of what went there."""

    def __init__(self, log: Log, now: Callable[[], int], history: bool) -> None:
        self.log = log
        self.now = now
        self.history = history
        self.done = Ingested()
        self.reached = 0
        self._batch: list[Outgoing] = []
        self._rejects: list[Outgoing] = []

    def put(self, event: _Event, log_time: int | None) -> None:
        """An event on its way; it is in the log after the next `flush`."""
        stream = PUBLIC[event.rank]
        self._batch.append(Outgoing(stream, event.key, _encode(event.body), None, log_time))
        self.done.accepted += 1
        self.done.streams[stream] += 1
        if len(self._batch) >= BATCH:
            self.flush()

    def mark(self, value: bytes, log_time: int | None) -> None:
        """The same marker to every partition of every public stream."""
        self.flush()
        self.log.append([
            Outgoing(stream, None, value, partition, log_time)
            for stream in PUBLIC for partition in range(self.log.partitions)
        ])

    def refuse(self, number: int, raw: bytes, kind: str, because: str) -> None:
        """A line that was not read."""
        self.done.rejected += 1
        if len(self.done.problems) < SHOWN:
            self.done.problems.append(Problem(number, because))
        moment = self.reached if self.history and self.reached else self.now()
        kept = Reject(
            id=f"ingest:{number}:{blake2b(raw, digest_size=8).hexdigest()}", stream="ingest", partition=0,
            offset=number, kind=kind, because=f"line {number}: {because}",
            raw=rejects.beginning(raw), at=moment,
        )
        self._rejects.append(Outgoing(REJECTS, None, rejects.encode(kept), None, moment))
        if len(self._rejects) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Append what is waiting."""
        batch, self._batch = self._batch, []
        refused, self._rejects = self._rejects, []
        if batch:
            self.log.append(batch)
        if refused:
            self.log.append(refused)


def _events(lines: Iterable[bytes | Line], into: _Into, progress: Callable[[int], None]) -> Iterator[_Event]:
    """The lines that can be read; the others are refused."""
    count = 0
    for count, line in enumerate(lines, 1):
        number, raw, because = line if isinstance(line, Line) else Line(count, line)
        if count % BATCH == 0:
            progress(count)
        if not raw.strip():
            continue
        try:
            if because:
                raise _Bad("unreadable", because)
            event = _read(number, raw, into.now(), into.history)
        except _Bad as wrong:
            into.refuse(number, raw, wrong.kind, str(wrong))
        else:
            yield event
    progress(count)


def _read(number: int, raw: bytes, now: int, history: bool) -> _Event:
    """One line as an event; _Bad says what is wrong with which field."""
    if len(raw) > LONGEST:
        raise _Bad("too_long", f"{len(raw)} bytes, at most {LONGEST} are read")
    try:
        call = events.decode(raw)
        body = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as wrong:
        raise _Bad("unreadable", str(wrong)) from wrong
    except RecursionError as wrong:
        raise _Bad("unreadable", "nested too deeply") from wrong
    key = events.text_id(call.user_id) or events.text_id(call.anonymous_id)
    if key is None:
        raise _Bad("no_person", "userId or anonymousId is needed")
    if len(key) > events.MAX_ID:
        raise _Bad("too_long", f"an id of {len(key)} characters, at most {events.MAX_ID} are read")
    stamp = call.timestamp or call.original_timestamp
    if stamp is None:
        if history:
            raise _Bad("unreadable", "timestamp is needed: it is the log time of recorded history")
        at = now
    else:
        try:
            at = events.milliseconds(stamp)
        except (OverflowError, ValueError) as wrong:
            raise _Bad("unreadable", f"timestamp: {wrong}") from wrong
        if history and not 0 < at <= now:
            raise _Bad("unreadable", f"timestamp: {iso(at) if at > 0 else stamp} is not between 1970 and now")
    try:
        return _Event(at, _RANK[stream_of(body["type"], call.name)], number, key.encode(), body, raw)
    except UnicodeEncodeError as wrong:
        raise _Bad("unreadable", "userId or anonymousId is not text") from wrong


def _append_history(found: Iterable[_Event], into: _Into) -> None:
    """Append the events in the order of their time, between markers."""
    newest = into.log.latest()
    marked = 0
    begun = False
    try:
        for event in _sorted(found, into):
            if not begun:
                if event.at <= newest:
                    raise LogError(
                        f"history begins at {iso(event.at)}, but the log already holds later records (the last of"
                        f" {iso(newest)}): read history into an empty data folder first"
                    )
                begun, into.reached, marked = True, event.at - 1, MARK
            if marked >= MARK and event.at > into.reached:
                into.mark(b'{"type":"history","reached":%d}' % (event.at - 1), event.at - 1)
                marked = 0
            into.reached = event.at
            event.body["timestamp"] = iso(event.at)
            event.body["receivedAt"] = event.body.get("receivedAt") or iso(event.at)
            into.put(event, event.at)
            marked += 1
    except BaseException:  # passed on
        if begun:  # what was read stays, and shards do not wait for more
            into.mark(b'{"type":"history","ended":true}', None)
        raise
    if begun:
        into.mark(b'{"type":"history","ended":true}', into.reached)


def _sorted(found: Iterable[_Event], into: _Into) -> Iterator[_Event]:
    """The events by time; those of one moment by stream, then line. What comes too late for its place is refused."""
    window: list[_Event] = []
    moment: list[_Event] = []  # those of the time that has been reached
    reached = 0
    for event in found:
        if event.at < reached:
            into.refuse(event.number, event.raw, "out_of_order",
                        f"timestamp: {iso(event.at)} comes after {iso(reached)}; sort the file by timestamp")
            continue
        heappush(window, event)
        if len(window) > WINDOW:
            first = heappop(window)
            if first.at > reached:
                yield from sorted(moment)
                moment, reached = [], first.at
            moment.append(first)
    yield from sorted(moment + window)
