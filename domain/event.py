"""Events: the calls of the Segment spec, as the wire carries them.

One declaration gives the decoder, its error messages and the field names of the wire (camelCase). The wire
may carry more than is declared here; what is not declared is ignored.

>>> event = decode(b'{"type":"track","event":"Product Added","anonymousId":"a1","properties":{"price":9.5}}')
>>> event.name, event.anonymous_id
('Product Added', 'a1')
>>> decode(b'{"type":"track","event":7}')
Traceback (most recent call last):
    ...
msgspec.ValidationError: Expected `str`, got `int` - at `$.event`
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

Id = str | int | None
"""Clients send text, some send numbers, some send null."""

MAX_ID = 256
"""Characters of a person's id that are accepted."""


class PageContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Where a browser was."""

    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    title: str | None = None
    search: str | None = None


class CampaignContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Where a visit came from: the utm parameters, without their prefix."""

    source: str | None = None
    medium: str | None = None
    name: str | None = None
    term: str | None = None
    content: str | None = None


class Seen(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """What the collector found out about a call (`context.attimo`); producers on Kafka may send it too.

    `claimed_user_id` is a `userId` that nobody vouched for: it merges nothing and unlocks nothing. `image` is a robot
    that loaded the GIF: it says nothing about the person whose mail or page that is.
    """

    country: str | None = None
    device: str | None = None
    bot: bool = False
    claimed_user_id: str | None = None
    offline: bool = False
    image: bool = False


class Context(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The circumstances of a call; the part of the spec's `context` that attimo reads."""

    page: PageContext | None = None
    campaign: CampaignContext | None = None
    user_agent: str | None = None
    locale: str | None = None
    timezone: str | None = None
    attimo: Seen | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", gc=False):
    """What all calls of the spec share."""

    message_id: str | None = None
    anonymous_id: Id = None
    user_id: Id = None
    timestamp: datetime | None = None
    original_timestamp: datetime | None = None
    sent_at: datetime | None = None
    received_at: datetime | None = None
    context: Context | None = None

    @property
    def name(self) -> str:
        """What the event is called in conditions and counters."""
        return ""


class Track(Call, frozen=True, kw_only=True, rename="camel", tag="track"):
    """Somebody did something."""

    event: str
    properties: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return self.event


class Page(Call, frozen=True, kw_only=True, rename="camel", tag="page"):
    """Somebody looked at a page of the shop. `name` on the wire is the page's; the event is "Page Viewed"."""

    page_name: str | None = msgspec.field(default=None, name="name")
    category: str | None = None
    properties: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Page Viewed"


class Screen(Call, frozen=True, kw_only=True, rename="camel", tag="screen"):
    """Somebody looked at a screen of the app."""

    screen_name: str | None = msgspec.field(default=None, name="name")
    category: str | None = None
    properties: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Screen Viewed"


class Identify(Call, frozen=True, kw_only=True, rename="camel", tag="identify"):
    """Who somebody is, and what is known of them."""

    traits: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Identified"


class Group(Call, frozen=True, kw_only=True, rename="camel", tag="group"):
    """Whom somebody belongs to."""

    group_id: Id = None
    traits: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Grouped"


class Alias(Call, frozen=True, kw_only=True, rename="camel", tag="alias"):
    """Two ids are one person."""

    previous_id: Id = None

    @property
    def name(self) -> str:
        return "Aliased"


Event = Track | Page | Screen | Identify | Group | Alias

_decoder = msgspec.json.Decoder(Event)
decode = _decoder.decode
"""Read one event from JSON bytes; `msgspec.DecodeError` (with the field's path) when it is none."""


def text_id(value: Id) -> str | None:
    """An id as text; nothing for null and the empty text.

    >>> text_id(42), text_id(""), text_id("ann")
    ('42', None, 'ann')
    """
    if type(value) is str:
        return value or None
    return None if value is None else str(value)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970; a time without a zone is read as UTC.

    >>> milliseconds(datetime(1970, 1, 1, 0, 0, 1))
    1000
    """
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def event_time(event: Call, log_time: int) -> int:
    """When it happened, in ms: `timestamp`, else `originalTimestamp`, corrected for the client's clock.

    The collector corrects on receipt (it sets `receivedAt` and the corrected `timestamp`). What a producer writes with
    `sentAt` is corrected here: timestamp + (log time - sentAt), as the Segment spec has it. Never later than the log
    time.

    >>> event_time(Track(event="x"), 5000)
    5000
    """
    stamp = event.original_timestamp or event.timestamp
    if event.received_at is not None and event.timestamp is not None:
        stamp = event.timestamp
    if stamp is None:
        return log_time
    at = milliseconds(stamp)
    if event.sent_at is not None and event.received_at is None:
        at += log_time - milliseconds(event.sent_at)
    return min(at, log_time)
