"""Seen: which messages were already folded, so that a sender may repeat itself.

`person.seen` is a row of 12-byte entries, oldest first: 8 bytes of the message id's hash, 4 bytes with the minute.
It remembers 48 hours and at most 2,500 messages; a repeat after that counts as a new message.

>>> person = Person(id="a:x")
>>> already(person, digest("m1"), 0), already(person, digest("m1"), 60_000), already(person, digest("m2"), 60_000)
(False, True, False)
>>> already(person, digest("m1"), SEEN_FOR + 60_000)
False
"""

from hashlib import blake2b

from state.person import MAX_SEEN, SEEN_FOR, Person

WIDTH = 12
HASH = 8
_MINUTE = 60_000
_MOST = MAX_SEEN * WIDTH
_MINUTES = SEEN_FOR // _MINUTE


def digest(message_id: str | bytes) -> bytes:
    """The 8 bytes that stand for a message id (or, where there is none, for the payload)."""
    data = message_id.encode() if isinstance(message_id, str) else message_id
    return blake2b(data, digest_size=HASH).digest()


def already(person: Person, message: bytes, now: int) -> bool:
    """Whether this message (its digest) was seen in the last 48 hours; when not, it is remembered from now on.

    `now` is the shard's clock in ms, which never runs back.
    """
    seen = person.seen
    minute = now // _MINUTE
    if seen:
        if int.from_bytes(seen[HASH:WIDTH], "big") + _MINUTES < minute:
            seen = _young(seen, minute)
        at = seen.find(message)
        while at >= 0:
            if at % WIDTH == 0:
                return True
            at = seen.find(message, at + 1)
        if len(seen) >= _MOST:
            seen = seen[len(seen) - _MOST + WIDTH:]
    person.seen = seen + message + minute.to_bytes(4, "big")
    return False


def union(first: bytes, second: bytes) -> bytes:
    """Both rows as one: a message in both keeps the later minute, the newest 2,500 stay. Commutative, associative (as
    long as they fit) and idempotent.

    >>> a, b = Person(id="a:x"), Person(id="a:y")
    >>> _ = already(a, digest("m1"), 0), already(b, digest("m1"), 60_000), already(b, digest("m0"), 60_000)
    >>> union(a.seen, b.seen) == union(b.seen, a.seen), len(union(a.seen, b.seen)) // WIDTH
    (True, 2)
    """
    latest: dict[bytes, bytes] = {}
    for row in (first, second):
        for at in range(0, len(row) - WIDTH + 1, WIDTH):
            message, minute = row[at:at + HASH], row[at + HASH:at + WIDTH]
            if minute > latest.get(message, b""):
                latest[message] = minute
    ordered = sorted((minute, message) for message, minute in latest.items())[-MAX_SEEN:]
    return b"".join(message + minute for minute, message in ordered)


def _young(seen: bytes, minute: int) -> bytes:
    """Without the entries that are older than 48 hours."""
    low, high = 0, len(seen) // WIDTH
    while low < high:
        middle = (low + high) // 2
        if int.from_bytes(seen[middle * WIDTH + HASH:(middle + 1) * WIDTH], "big") + _MINUTES < minute:
            low = middle + 1
        else:
            high = middle
    return seen[low * WIDTH:]
