r"""The file channel: every message is one line of JSON in data/outbox/YYYY-MM-DD.jsonl. Nothing leaves this machine.

The embedded default: what would be sent can be looked at, and any program may take it from there. A line is the message
as `docs/messages.md` has it; whatever is in it, it is one line (control characters and line separators are escaped).

Never twice: on start the newest lines are read back, so what was written just before a crash is known again. A last
line that a crash tore off is taken away: its message was not told as delivered, and comes again. The files hold
addresses; only their owner may read them. Delete old ones as you like, the newest one only while outreach is stopped.

>>> line(Message(id="i", at=1, person="u:ann", channel="sms", campaign="c", content_key="k", not_before=1, not_after=2,
...      language="\n\u2028\x85"))[-58:]
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

from connectors.channel import ChannelError, Told
from domain.message import Message, encode

READ_BACK: Final = 2_000
"""Newest lines of a file whose ids are read back; more than are ever handed over at once."""
FILES: Final = 3
"""Files that are looked at: a clock that is put back writes into yesterday's once more."""
BLOCK: Final = 1 << 20
KNOWN: Final = 10_000
"""Ids that are kept in memory."""

_UNSEEN = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
DELIVERED: Final = Told("delivered")

logger = structlog.get_logger()


class _Named(msgspec.Struct):
    id: str


_named = msgspec.json.Decoder(_Named).decode


def wall() -> int:
    """The wall clock in ms."""
    return time.time_ns() // 1_000_000


def line(message: Message) -> bytes:
    """A message as one line, for every program's idea of a line."""
    return _UNSEEN.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), encode(message)) + b"\n"


class FileChannel:
    """The outbox in one folder. One process writes it (`flows/outreach.py` sees to that)."""

    def __init__(self, folder: Path, now: Callable[[], int] = wall) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._now = now
        self._known: dict[str, None] = {}
        newest = sorted(folder.glob("????-??-??.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in newest[-FILES:]:
            mend(path)
            self._note(ids(path))

    def send(self, messages: Sequence[Message]) -> list[Told]:
        """Write them, and have them on the disk. ChannelError when that is not possible: then none is written."""
        fresh = {message.id: message for message in messages if message.id not in self._known}
        if fresh:
            self._write(b"".join([line(message) for message in fresh.values()]))
            self._note(list(fresh))
        return [DELIVERED] * len(messages)

    def _write(self, lines: bytes) -> None:
        day = datetime.fromtimestamp(self._now() / 1000, UTC).date()
        path = self._folder / f"{day}.jsonl"
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as wrong:
            raise ChannelError(f"{path}: {wrong.strerror}") from wrong
        try:
            before = os.fstat(file).st_size
            try:
                left = memoryview(lines)
                while left:
                    left = left[os.write(file, left):]
                os.fsync(file)
                if not before:  # a new file: its name, too
                    _sync(self._folder)
            except OSError:
                os.ftruncate(file, before)
                raise
        except OSError as wrong:
            raise ChannelError(f"{path}: {wrong.strerror}") from wrong
        finally:
            os.close(file)

    def _note(self, known: list[str]) -> None:
        self._known.update(dict.fromkeys(known))
        for gone in list(self._known)[:max(0, len(self._known) - KNOWN)]:
            del self._known[gone]

    def close(self) -> None:
        """Nothing stays open."""


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def mend(path: Path) -> None:
    """Take away a last line that has no end."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            logger.warning("the last line was torn off; its message is written anew", file=str(path))
            file.truncate(end)
            os.fsync(file.fileno())


def ids(path: Path) -> list[str]:
    """The ids of the newest lines, the newest one last; what cannot be read is passed over."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        kept = b""
        while start and kept.count(b"\n") <= READ_BACK:
            begin = max(0, start - BLOCK)
            file.seek(begin)
            kept = file.read(start - begin) + kept
            start = begin
    found = []
    for one in kept.split(b"\n")[-READ_BACK - 1:]:
        try:
            found.append(_named(one).id)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found
