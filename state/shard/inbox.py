"""Inbox: decoding of records into events, shard messages and history markers.

>>> event, key = read_event(b'{"type":"page","userId":"ann","anonymousId":"x"}')
>>> event.name, key
('Page Viewed', 'u:ann')
>>> read_event(b'{"type":"page"}')
Traceback (most recent call last):
    ...
state.shard.inbox.InvalidRecord: userId or anonymousId is required
"""

import msgspec

from domain import action as actions
from domain import event as events
from domain.action import ShardMessage
from domain.event import MAX_ID_LENGTH, Event, normalize_id
from domain.record import DECODE_ERRORS
from state.person.model import MAX_PEERS, PeerSequence, Person, person_key
from state.shard.reevaluation import PERSON_PREFIXES

MAX_EVENT_BYTES = 262_144
"""Maximum size of an event that a shard reads; the collector accepts far less."""


class InvalidRecord(ValueError):
    """A record that cannot be used: `kind` is a short code for metrics, the text names the field."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def read_event(value: bytes) -> tuple[Event, str]:
    """Return the event in a record of a public stream, and its person key. Raise InvalidRecord."""
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidRecord("too_large", f"event of {len(value)} bytes; the maximum is {MAX_EVENT_BYTES}")
    found = decode_event(value)
    key = person_key(normalize_id(found.user_id), normalize_id(found.anonymous_id))
    if not key:
        raise InvalidRecord("missing_id", "userId or anonymousId is required")
    if len(key) > MAX_ID_LENGTH + 2:
        raise InvalidRecord("too_long", f"userId or anonymousId: longer than {MAX_ID_LENGTH} characters")
    return found, key


def decode_event(value: bytes) -> Event:
    """Decode an event. Raise InvalidRecord."""
    try:
        found: Event = events.decode(value)
    except DECODE_ERRORS as error:
        raise InvalidRecord("invalid", str(error)) from None
    return found


def decode_message(value: bytes) -> ShardMessage:
    """Decode a shard message. Raise InvalidRecord."""
    try:
        return actions.decode_shard_message(value)
    except DECODE_ERRORS as error:
        raise InvalidRecord("invalid", str(error)) from None


def accept_message(person: Person, message: ShardMessage) -> bool:
    """Return whether this message is new, and store its sequence number.

    Persons store the last MAX_PEERS senders: duplicates arrive soon after the original. Pool allocators and code caches
    store one entry per shard.
    """
    known = person.peer_sequences.get(message.sender)
    if known is not None and message.seq <= known.last_received:
        return False
    person.peer_sequences.pop(message.sender, None)
    person.peer_sequences[message.sender] = PeerSequence(known.last_sent if known is not None else 0, message.seq)
    if len(person.peer_sequences) > MAX_PEERS and person.id[:2] in PERSON_PREFIXES:
        del person.peer_sequences[next(iter(person.peer_sequences))]
    return True


MARKER_PREFIX = b'{"type":"history"'


class _HistoryMarker(msgspec.Struct):
    reached: int = 0
    ended: bool = False


_decode_marker = msgspec.json.Decoder(_HistoryMarker).decode


def update_history(history: dict[str, int], stream: str, value: bytes) -> None:
    """Store in `history` how far this stream was imported (ms). Raise msgspec.DecodeError for an invalid marker.

    >>> reached: dict[str, int] = {}
    >>> update_history(reached, "clicks", b'{"type":"history","reached":5}')
    >>> reached
    {'clicks': 5}
    """
    marker = _decode_marker(value)
    if marker.ended:
        history.pop(stream, None)
    else:
        history[stream] = marker.reached
