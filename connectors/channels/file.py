r"""The file channel, the embedded default: it writes each message as a line of JSON to data/outbox/YYYY-MM-DD.jsonl.

Nothing leaves the machine; other programs may read the files. `docs/messages.md` describes the format. A message is
always one line: control characters and line separators are escaped.

No message is written twice: at the start, the ids of the newest lines are read. An incomplete last line (after a crash)
is removed; its message was not reported as delivered and is sent again. The files contain addresses, so only their
owner can read them. Old files may be deleted, the newest one only while outreach is stopped.

>>> encode_line(Message(id="i", at=1, person="u:ann", channel="sms", campaign="c", content_key="k", not_before=1,
...      not_after=2, language="\n\u2028\x85"))[-58:]
b'"not_before":1,"not_after":2,"language":"\\n\\u2028\\u0085"}\n'
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from connectors.channels.channel import ChannelError, SendResult
from domain.action import Message, encode_message

RELOADED_LINES: Final = 2_000
"""Newest lines of a file whose ids are read at the start; more than one call can contain."""
RELOADED_FILES: Final = 3
"""Newest files that are read at the start: a clock that is set back writes to an older file."""
BLOCK_SIZE: Final = 1 << 20
MAX_CACHED_IDS: Final = 10_000
"""Number of ids kept in memory."""

_LINE_BREAKS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
DELIVERED: Final = SendResult("delivered")

logger = structlog.get_logger()


class _MessageId(msgspec.Struct):
    id: str


_decode_id = msgspec.json.Decoder(_MessageId).decode


def now_ms() -> int:
    """Return the wall clock in ms."""
    return time.time_ns() // 1_000_000


def encode_line(message: Message) -> bytes:
    """Encode a message as one line, for any definition of a line break."""
    return _LINE_BREAKS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), encode_message(message)) + b"\n"


class FileChannel:
    """Writes to one outbox folder. Only one process may write it, which `flows/outreach.py` ensures."""

    def __init__(self, folder: Path, clock: Callable[[], int] = now_ms) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock
        self._sent_ids: dict[str, None] = {}
        newest = sorted(folder.glob("????-??-??.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in newest[-RELOADED_FILES:]:
            truncate_partial_line(path)
            self._add_sent_ids(read_ids(path))

    def send(self, messages: Sequence[Message]) -> list[SendResult]:
        """Write messages and flush them to disk. If that fails, write none and raise ChannelError."""
        unsent = {message.id: message for message in messages if message.id not in self._sent_ids}
        if unsent:
            self._write(b"".join([encode_line(message) for message in unsent.values()]))
            self._add_sent_ids(list(unsent))
        return [DELIVERED] * len(messages)

    def _write(self, lines: bytes) -> None:
        day = datetime.fromtimestamp(self._clock() / 1000, UTC).date()
        path = self._folder / f"{day}.jsonl"
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise ChannelError(f"{path}: {error.strerror}") from error
        try:
            before = os.fstat(file).st_size
            try:
                left = memoryview(lines)
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
                if not before:  # a new file: flush its directory entry, too
                    _fsync_folder(self._folder)
            except OSError:
                os.ftruncate(file, before)
                raise
        except OSError as error:
            raise ChannelError(f"{path}: {error.strerror}") from error
        finally:
            os.close(file)

    def _add_sent_ids(self, ids: list[str]) -> None:
        self._sent_ids.update(dict.fromkeys(ids))
        for gone in list(self._sent_ids)[: max(0, len(self._sent_ids) - MAX_CACHED_IDS)]:
            del self._sent_ids[gone]

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _fsync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder to disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def truncate_partial_line(path: Path) -> None:
    """Remove an incomplete last line."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - BLOCK_SIZE)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            logger.warning("truncated an incomplete line at the end of the outbox file", file=str(path))
            file.truncate(end)
            os.fsync(file.fileno())


def read_ids(path: Path) -> list[str]:
    """Return the ids of the newest lines, the newest one last; skip invalid lines."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        tail = b""
        while start and tail.count(b"\n") <= RELOADED_LINES:
            begin = max(0, start - BLOCK_SIZE)
            file.seek(begin)
            tail = file.read(start - begin) + tail
            start = begin
    found = []
    for line in tail.split(b"\n")[-RELOADED_LINES - 1 :]:
        try:
            found.append(_decode_id(line).id)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found
