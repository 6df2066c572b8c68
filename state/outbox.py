"""Outbox: effects as rows of bytes, written with what caused them, sent afterwards.

>>> from domain.letter import Letter
>>> row = row_of(Letter(kind="claim", sender="u:a", to="a:x", seq=1, id="i"), b"x", 5, 0)
>>> row.stream, row.at, row.body
('letters', 5, b'{"kind":"claim","sender":"u:a","to":"a:x","seq":1,"id":"i"}')
"""

import msgspec

from domain.effect import Effect, Row, stream_of
from domain.letter import Letter
from domain.record import Record
from domain.reject import Reject, beginning
from state.person import routing_key

_encode = msgspec.json.Encoder().encode


def key_of(effect: Effect) -> bytes:
    """The record key of an effect."""
    if isinstance(effect, Letter):
        return routing_key(effect.to)
    if isinstance(effect, Reject):
        return effect.id.encode()
    return routing_key(effect.person)


def rejected(record: Record, kind: str, because: str, at: int) -> Reject:
    """A record that cannot be used, with the beginning of what it says, but for what names a person."""
    return Reject(id=f"{record.stream}-{record.partition}-{record.offset}-reject-0", stream=record.stream,
                  partition=record.partition, offset=record.offset, kind=kind, because=because[:512],
                  raw=beginning(record.value), at=at)


def rejected_timer(name: str, origin: str, partition: int, at: int) -> Reject:
    """A timer at which a step fails."""
    return Reject(id=f"{origin}-reject-0", stream="", partition=partition, offset=0, kind="internal",
                  because=f"a step failed when {name} came due; the timer was set aside", at=at)


def row_of(effect: Effect, key: bytes, at: int, recorded: int, shard: int = -1) -> Row:
    """An effect of a shard as a row; `at` (ms) is the clock, for effects that do not carry their own.

    What is not later than `recorded` was caused by recorded days.
    """
    at = getattr(effect, "at", at)
    return Row(0, effect.id, stream_of(effect), key, at, int(at <= recorded), _encode(effect), shard)
