"""Records of the log, its streams, and partitions.

>>> event_stream("track", "Product Added"), event_stream("identify", "")
('carts', 'people')

The partitioner is murmur2, as in Kafka's Java client, so records of other producers go to the same partition.

>>> partition_of(b"foobar", 64)
62
>>> describe_misrouted(40, 0.04)[:40], describe_misrouted(MIN_MISROUTED_RECORDS - 1, 0.5)
('4 % of the records of the public streams', '')
"""

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions of an invalid value. Any producer can write one to any stream."""


class Record(NamedTuple):
    """One record read from the log.

    `offset` increases within (stream, partition), with gaps. `log_time` is the append time in ms since 1970 (the
    recorded time in a history import, the time of the cause for effects); readers return it in non-decreasing order
    within (stream, partition). A plain tuple is cheap to send between processes.
    """

    stream: str
    partition: int
    offset: int
    log_time: int
    key: bytes | None
    value: bytes


class NewRecord(NamedTuple):
    """One record to append to the log.

    The default partition is murmur2(key). `log_time` is set only for a history import and for effects (the time of the
    cause); otherwise the log sets the append time.
    """

    stream: str
    key: bytes | None
    value: bytes
    partition: int | None = None
    log_time: int | None = None


CLICKS: Final = "clicks"
CARTS: Final = "carts"
PURCHASES: Final = "purchases"
PEOPLE: Final = "people"
SHARD_MESSAGES: Final = "shard-messages"
ACTIONS: Final = "actions"
MESSAGES: Final = "messages"
OUTCOMES: Final = "outcomes"
MODELS: Final = "models"
DEAD_LETTERS: Final = "dead-letters"

PUBLIC_STREAMS: Final = (CLICKS, CARTS, PURCHASES, PEOPLE)
"""Written by the shop, with any producer."""

INTERNAL_STREAMS: Final = (SHARD_MESSAGES, ACTIONS, MESSAGES, OUTCOMES, DEAD_LETTERS)
"""Written by attimo."""

ALL_STREAMS: Final = (*PUBLIC_STREAMS, *INTERNAL_STREAMS, MODELS)

SHARD_INPUT_STREAMS: Final = (*PUBLIC_STREAMS, SHARD_MESSAGES)
"""Input of a shard; the order decides between records with the same log time."""

DEFAULT_PARTITIONS: Final = 64
"""Partitions of every stream except `models`, fixed when the log is created."""

SINGLE_PARTITION_STREAMS: Final = (MODELS,)
"""Streams of one partition."""

_CART_EVENTS: Final = frozenset(
    {
        "Product Added",
        "Product Removed",
        "Cart Viewed",
        "Cart Updated",
        "Cart Cleared",
        "Checkout Started",
        "Checkout Step Viewed",
        "Checkout Step Completed",
        "Payment Info Entered",
        "Coupon Entered",
        "Coupon Applied",
        "Coupon Denied",
        "Coupon Removed",
        "Cart Shared",
        "Wishlist Product Added to Cart",
    }
)
_PURCHASE_EVENTS: Final = frozenset({"Order Completed", "Order Updated", "Order Cancelled", "Order Refunded"})
_PEOPLE_EVENTS: Final = frozenset(
    {
        "Consent Updated",
        "Message Delivered",
        "Message Opened",
        "Message Clicked",
        "Message Bounced",
        "Message Suppressed",
        "Unsubscribed",
        "Offer Suppressed",
        "Signed Out",
    }
)
_PEOPLE_CALL_TYPES: Final = frozenset({"identify", "alias", "group"})


def partition_count(stream: str, partitions: int = DEFAULT_PARTITIONS) -> int:
    """Return the number of partitions of a stream.

    >>> partition_count("models"), partition_count("clicks")
    (1, 64)
    """
    return 1 if stream in SINGLE_PARTITION_STREAMS else partitions


def event_stream(call_type: str, event: str) -> str:
    """Return the public stream of an event, by its call (`type`), then by its name."""
    if call_type in _PEOPLE_CALL_TYPES or event in _PEOPLE_EVENTS:
        return PEOPLE
    if event in _CART_EVENTS:
        return CARTS
    if event in _PURCHASE_EVENTS:
        return PURCHASES
    return CLICKS


_MURMUR2_SEED: Final = 0x9747B28C
_MURMUR2_FACTOR: Final = 0x5BD1E995
_UINT32_MASK: Final = 0xFFFFFFFF

PARTITION_CACHE_SIZE: Final = 65_536
"""Keys whose partition is cached; a lookup is ten times faster than the hash."""


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 hash of Kafka's Java client, as a signed number.

    >>> murmur2(b"21"), murmur2(b"abc")
    (-973932308, 479470107)
    """
    value = _unsigned_murmur2(data)
    return value - (1 << 32) if value >> 31 else value


@lru_cache(PARTITION_CACHE_SIZE)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key.

    >>> partition_of(b"", 1)
    0
    """
    return (_unsigned_murmur2(key) & 0x7FFFFFFF) % partitions


def _unsigned_murmur2(data: bytes) -> int:
    length = len(data)
    value = _MURMUR2_SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MURMUR2_FACTOR & _UINT32_MASK
        word = (word ^ word >> 24) * _MURMUR2_FACTOR & _UINT32_MASK
        value = value * _MURMUR2_FACTOR & _UINT32_MASK ^ word
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * _MURMUR2_FACTOR & _UINT32_MASK
    value = (value ^ value >> 13) * _MURMUR2_FACTOR & _UINT32_MASK
    return value ^ value >> 15


MAX_RAW_LENGTH: Final = 512
"""Characters of an invalid record that are stored."""

REDACTED_FIELDS: Final = frozenset({"writeKey", "traits", "body", "_metadata", "integrations"})
REDACTED_CONTEXT_FIELDS: Final = frozenset({"ip", "user_hash", "userHash", "traits"})
"""Personal data, proofs and keys. The body of a shard message has profile data."""

_REDACTED_KEY: Final = re.compile(r'"(?:traits|body)"')


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An invalid record: its position, the error, and the start of its value.

    `kind` is a label for metrics ("invalid", "missing_id", "too_long", "internal_error"); `reason` names the field.
    `raw` is the start of the value (at most 512 characters, undecodable bytes replaced).
    """

    id: str
    stream: str
    partition: int
    offset: int
    kind: str
    reason: str
    raw: str = ""
    at: int = 0
    v: int = 1


def redact(item: Any) -> str:
    """Return the start of an invalid item as JSON, without keys, addresses, hashes and personal data.

    >>> redact({"event": 7, "traits": {"email": "ann@example.org"}, "context": {"ip": "1.2.3.4", "locale": "en"}})
    '{"event":7,"context":{"locale":"en"}}'
    """
    if isinstance(item, dict):
        item = {name: value for name, value in item.items() if name not in REDACTED_FIELDS}
        if isinstance(item.get("context"), dict):
            item["context"] = {
                name: value for name, value in item["context"].items() if name not in REDACTED_CONTEXT_FIELDS
            }
    try:
        return msgspec.json.encode(item).decode()[:MAX_RAW_LENGTH]
    except (TypeError, ValueError):
        return ""


def redact_bytes(value: bytes) -> str:
    """Return the start of an invalid value, redacted if it has sensitive fields.

    A value that is not JSON is cut before the first sensitive field.

    >>> redact_bytes(b'{"event": 7}'), redact_bytes(b'{"type": "x", "traits": {}}')
    ('{"event": 7}', '{"type":"x"}')
    >>> redact_bytes(b'{"a": 1, "traits": {"em')
    '{"a": 1, '
    """
    try:
        item = msgspec.json.decode(value)
    except DECODE_ERRORS:
        text = _REDACTED_KEY.split(value.decode("utf-8", "replace"), maxsplit=1)[0]
    else:
        about = item.get("context") if isinstance(item, dict) else None
        hides = isinstance(item, dict) and (
            not REDACTED_FIELDS.isdisjoint(item)
            or (isinstance(about, dict) and not REDACTED_CONTEXT_FIELDS.isdisjoint(about))
        )
        text = redact(item) if hides else value[:MAX_RAW_LENGTH].decode("utf-8", "replace")
    return text[:MAX_RAW_LENGTH].replace("\x00", "\N{REPLACEMENT CHARACTER}")


encode_dead_letter = msgspec.json.Encoder().encode
decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode


MIN_MISROUTED_RECORDS: Final = 20
"""Fewer misrouted records cause no warning."""
MAX_MISROUTED_RATIO: Final = 0.01
"""A ratio up to this causes no warning."""


def describe_misrouted(count: float, ratio: float) -> str:
    """Return a warning about `count` misrouted records, a `ratio` (0 to 1) of the latest ones, or ""."""
    if count < MIN_MISROUTED_RECORDS or not ratio > MAX_MISROUTED_RATIO:
        return ""
    return (
        f"{100 * ratio:.0f} % of the records of the public streams are in the wrong partition and are forwarded: "
        "set partitioner=murmur2_random in the producer"
    )
