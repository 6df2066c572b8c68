"""Records: what the log holds, and what is handed to it."""

from typing import NamedTuple

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a value that is not what it should be brings about when it is decoded. Anybody may write one, to any stream."""


class Record(NamedTuple):
    """One record read from the log.

    `offset` is opaque: it rises within (stream, partition), gaps are allowed. `log_time` is the append
    time in milliseconds since 1970 (for recorded history: the recorded time; for effects: the clock that
    caused them); as a reader gives it, it never falls within (stream, partition). A plain tuple, so that it crosses
    processes cheaply.
    """

    stream: str
    partition: int
    offset: int
    log_time: int
    key: bytes | None
    value: bytes


class Outgoing(NamedTuple):
    """One record on its way into the log.

    The partition is murmur2(key) unless `partition` is given. `log_time` is set only for recorded history and
    for effects, which carry the clock that caused them; else the log stamps the moment of the append.
    """

    stream: str
    key: bytes | None
    value: bytes
    partition: int | None = None
    log_time: int | None = None
