"""Incoming: what a record says, and of whom; or why it is of no use.

>>> event, key = event_of(b'{"type":"page","userId":"ann","anonymousId":"x"}')
>>> event.name, key
('Page Viewed', 'u:ann')
>>> event_of(b'{"type":"page"}')
Traceback (most recent call last):
    ...
state.incoming.Refused: neither userId nor anonymousId: nobody to remember this of
"""

from domain import event as events
from domain import letter as letters
from domain.event import MAX_ID, Event, text_id
from domain.letter import Letter
from domain.record import UNREADABLE
from state.person import MAX_MAIL, Mail, Person, person_key
from state.sweep import PEOPLE_KEYS

MAX_VALUE = 262_144
"""Bytes of an event that a shard reads; the collector takes far less."""


class Refused(ValueError):
    """A record of no use: `kind` is a short word for counting, the text names the field."""

    def __init__(self, kind: str, because: str) -> None:
        super().__init__(because)
        self.kind = kind


def event_of(value: bytes) -> tuple[Event, str]:
    """The event that is in a record of a public stream, and the key of the person. Refused when it is of no use."""
    if len(value) > MAX_VALUE:
        raise Refused("too_large", f"the event has {len(value)} bytes; at most {MAX_VALUE} are read")
    found = event(value)
    key = person_key(text_id(found.user_id), text_id(found.anonymous_id))
    if not key:
        raise Refused("no_person", "neither userId nor anonymousId: nobody to remember this of")
    if len(key) > MAX_ID + 2:
        raise Refused("too_long", f"userId or anonymousId: at most {MAX_ID} characters")
    return found, key


def event(value: bytes) -> Event:
    """An event. Refused when it cannot be read."""
    try:
        found: Event = events.decode(value)
    except UNREADABLE as wrong:
        raise Refused("unreadable", str(wrong)) from None
    return found


def letter(value: bytes) -> Letter:
    """A letter. Refused when it cannot be read."""
    try:
        return letters.decode(value)
    except UNREADABLE as wrong:
        raise Refused("unreadable", str(wrong)) from None


def is_news(person: Person, letter: Letter) -> bool:
    """Whether this letter is none that was read before; it is noted.

    A human being remembers the last MAX_MAIL who wrote to them: a letter that comes twice comes soon again. Homes and
    desks of coupons have a place for every shard.
    """
    known = person.mail.get(letter.sender)
    if known is not None and letter.seq <= known.received:
        return False
    person.mail.pop(letter.sender, None)
    person.mail[letter.sender] = Mail(known.sent if known is not None else 0, letter.seq)
    if len(person.mail) > MAX_MAIL and person.id[:2] in PEOPLE_KEYS:
        del person.mail[next(iter(person.mail))]
    return True
