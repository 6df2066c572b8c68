"""Deduplication of messages, so that senders may retry.

`person.seen_messages` is a sequence of 12-byte entries, oldest first: 8 bytes hash of the message id, 4 bytes minute.
It covers 48 hours and at most 2,500 messages; a duplicate after that counts as a new message.

>>> person = Person(id="a:x")
>>> check_duplicate(person, digest("m1"), 0), check_duplicate(person, digest("m1"), 60_000)
(False, True)
>>> check_duplicate(person, digest("m2"), 60_000)
False
>>> check_duplicate(person, digest("m1"), SEEN_MESSAGES_TTL + 60_000)
False
"""

from hashlib import blake2b

from state.person.model import MAX_SEEN_MESSAGES, SEEN_MESSAGES_TTL, Person

ENTRY_BYTES = 12
HASH_BYTES = 8
_MINUTE_MS = 60_000
_MAX_BYTES = MAX_SEEN_MESSAGES * ENTRY_BYTES
_WINDOW_MINUTES = SEEN_MESSAGES_TTL // _MINUTE_MS


def digest(message_id: str | bytes) -> bytes:
    """Return the 8-byte hash of a message id (or of the payload, if there is no id)."""
    data = message_id.encode() if isinstance(message_id, str) else message_id
    return blake2b(data, digest_size=HASH_BYTES).digest()


def check_duplicate(person: Person, message_digest: bytes, now: int) -> bool:
    """Return whether this message digest was seen in the last 48 hours; if not, store it.

    `now` is the shard's clock in ms; it never runs backwards.
    """
    seen = person.seen_messages
    minute = now // _MINUTE_MS
    if seen:
        if int.from_bytes(seen[HASH_BYTES:ENTRY_BYTES], "big") + _WINDOW_MINUTES < minute:
            seen = _drop_expired(seen, minute)
        at = seen.find(message_digest)
        while at >= 0:
            if at % ENTRY_BYTES == 0:
                return True
            at = seen.find(message_digest, at + 1)
        if len(seen) >= _MAX_BYTES:
            seen = seen[len(seen) - _MAX_BYTES + ENTRY_BYTES :]
    person.seen_messages = seen + message_digest + minute.to_bytes(4, "big")
    return False


def merge_seen(first: bytes, second: bytes) -> bytes:
    """Merge two sequences: the later minute per message, the newest 2,500 messages.

    Commutative, idempotent, and associative below the maximum.

    >>> a, b = Person(id="a:x"), Person(id="a:y")
    >>> _ = check_duplicate(a, digest("m1"), 0), check_duplicate(b, digest("m1"), 60_000)
    >>> _ = check_duplicate(b, digest("m0"), 60_000)
    >>> merged = merge_seen(a.seen_messages, b.seen_messages)
    >>> merged == merge_seen(b.seen_messages, a.seen_messages), len(merged) // ENTRY_BYTES
    (True, 2)
    """
    latest: dict[bytes, bytes] = {}
    for row in (first, second):
        for at in range(0, len(row) - ENTRY_BYTES + 1, ENTRY_BYTES):
            message, minute = row[at : at + HASH_BYTES], row[at + HASH_BYTES : at + ENTRY_BYTES]
            if minute > latest.get(message, b""):
                latest[message] = minute
    ordered = sorted((minute, message) for message, minute in latest.items())[-MAX_SEEN_MESSAGES:]
    return b"".join(message + minute for minute, message in ordered)


def _drop_expired(seen: bytes, minute: int) -> bytes:
    """Drop the entries that are older than 48 hours."""
    low, high = 0, len(seen) // ENTRY_BYTES
    while low < high:
        middle = (low + high) // 2
        if (
            int.from_bytes(seen[middle * ENTRY_BYTES + HASH_BYTES : (middle + 1) * ENTRY_BYTES], "big")
            + _WINDOW_MINUTES
            < minute
        ):
            low = middle + 1
        else:
            high = middle
    return seen[low * ENTRY_BYTES :]
