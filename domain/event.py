"""Events: the calls of the Segment spec, their decoder, and the known event names.

The structs define the decoder, its error messages and the camelCase field names of the wire. Unknown fields are
ignored.

>>> event = decode(b'{"type":"track","event":"Product Added","anonymousId":"a1","properties":{"price":9.5}}')
>>> event.name, event.anonymous_id
('Product Added', 'a1')
>>> decode(b'{"type":"track","event":7}')
Traceback (most recent call last):
    ...
msgspec.ValidationError: Expected `str`, got `int` - at `$.event`
>>> "Product Added" in EVENT_NAMES, closest("Product Aded", EVENT_NAMES)
(True, 'Product Added')
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

import msgspec

SHOP_EVENTS: Final = (
    "Products Searched",
    "Product List Viewed",
    "Product List Filtered",
    "Promotion Viewed",
    "Promotion Clicked",
    "Product Clicked",
    "Product Viewed",
    "Product Added",
    "Product Removed",
    "Cart Viewed",
    "Cart Updated",
    "Cart Cleared",
    "Checkout Started",
    "Checkout Step Viewed",
    "Checkout Step Completed",
    "Payment Info Entered",
    "Order Completed",
    "Order Updated",
    "Order Cancelled",
    "Order Refunded",
    "Coupon Entered",
    "Coupon Applied",
    "Coupon Denied",
    "Coupon Removed",
    "Product Added to Wishlist",
    "Product Removed from Wishlist",
    "Wishlist Product Added to Cart",
    "Product Shared",
    "Cart Shared",
    "Product Reviewed",
)
"""E-commerce events of the Segment spec."""

CALL_EVENTS: Final = ("Page Viewed", "Screen Viewed", "Identified", "Grouped", "Aliased")
"""Names of the other calls of the spec in conditions."""

ATTIMO_EVENTS: Final = (
    "Exit Intent",
    "Offer Shown",
    "Offer Clicked",
    "Offer Dismissed",
    "Offer Suppressed",
    "Consent Updated",
    "Signed Out",
    "Message Delivered",
    "Message Opened",
    "Message Clicked",
    "Message Bounced",
    "Message Suppressed",
    "Unsubscribed",
)
"""Events that attimo adds."""

EVENT_NAMES: Final = frozenset((*SHOP_EVENTS, *CALL_EVENTS, *ATTIMO_EVENTS))


def closest(word: str, candidates: Iterable[str]) -> str:
    """Return the most similar candidate; empty if none is similar.

    >>> closest("pages_atleast", ["pages_at_least", "seconds_at_least"]), closest("order completed", EVENT_NAMES)
    ('pages_at_least', 'Order Completed')
    >>> closest("pages", ["pages_at_least", "seconds_at_least"]), closest("xyz", EVENT_NAMES)
    ('pages_at_least', '')
    """
    by_lower = {name.lower(): name for name in sorted(candidates)}
    word = word.lower()[:100]
    found = get_close_matches(word, by_lower, n=1, cutoff=0.7)
    if not found and len(word) >= 3:
        found = [name for name in by_lower if name.startswith(word)][:1]
    return by_lower[found[0]] if found else ""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return a suggestion to append to an error; empty if no candidate is similar.

    >>> did_you_mean("Ordr Completed", EVENT_NAMES)
    '; did you mean "Order Completed"?'
    """
    found = closest(word, candidates)
    return f'; did you mean "{found}"?' if found else ""


MAX_LISTED_NAMES = 12
"""Names that are listed if none is similar."""


def did_you_mean_or_list(word: str, candidates: Iterable[str]) -> str:
    """Return a suggestion to append to an error, else a list of the candidates.

    >>> names = ["name", "quantity"]
    >>> did_you_mean_or_list("quantiy", names), did_you_mean_or_list("colour", names), did_you_mean_or_list("x", [])
    ('; did you mean "quantity"?', '; there are name and quantity', '; there are none')
    """
    names = list(candidates)
    if hint := did_you_mean(word, names):
        return hint
    if not names:
        return "; there are none"
    more = [f"{len(names) - MAX_LISTED_NAMES} more"] if len(names) > MAX_LISTED_NAMES else []
    *first, last = names[:MAX_LISTED_NAMES] + more
    return f"; there {'are' if first else 'is only'} {', '.join(first)}{' and ' if first else ''}{last}"


RawId = str | int | None
"""Clients send text, numbers or null."""

MAX_ID_LENGTH = 256
"""Maximum length of a person's id."""


class PageContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The page of a call."""

    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    title: str | None = None
    search: str | None = None


class CampaignContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The UTM parameters, without their prefix."""

    source: str | None = None
    medium: str | None = None
    name: str | None = None
    term: str | None = None
    content: str | None = None


class CollectorContext(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Fields that the collector adds to a call (`context.attimo`); producers on Kafka may set them, too.

    `claimed_user_id` is an unverified `userId`, which does not merge profiles. `tracking_image` marks a request of a
    bot for the tracking GIF, which is no activity of the person.
    """

    country: str | None = None
    device: str | None = None
    bot: bool = False
    claimed_user_id: str | None = None
    offline: bool = False
    tracking_image: bool = False


class EventContext(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """The part of the spec's `context` that attimo reads."""

    page: PageContext | None = None
    campaign: CampaignContext | None = None
    user_agent: str | None = None
    locale: str | None = None
    timezone: str | None = None
    attimo: CollectorContext | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", gc=False):
    """Fields of all calls."""

    message_id: str | None = None
    anonymous_id: RawId = None
    user_id: RawId = None
    timestamp: datetime | None = None
    original_timestamp: datetime | None = None
    sent_at: datetime | None = None
    received_at: datetime | None = None
    context: EventContext | None = None

    @property
    def name(self) -> str:
        """The name of the event in conditions and counters."""
        return ""


class Track(Call, frozen=True, kw_only=True, rename="camel", tag="track"):
    """An event of a person."""

    event: str
    properties: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return self.event


class Page(Call, frozen=True, kw_only=True, rename="camel", tag="page"):
    """A page view. `name` on the wire is the name of the page; the event is "Page Viewed"."""

    page_name: str | None = msgspec.field(default=None, name="name")
    category: str | None = None
    properties: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Page Viewed"


class Screen(Call, frozen=True, kw_only=True, rename="camel", tag="screen"):
    """A screen view in the app."""

    screen_name: str | None = msgspec.field(default=None, name="name")
    category: str | None = None
    properties: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Screen Viewed"


class Identify(Call, frozen=True, kw_only=True, rename="camel", tag="identify"):
    """The id and the traits of a person."""

    traits: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Identified"


class Group(Call, frozen=True, kw_only=True, rename="camel", tag="group"):
    """The group of a person."""

    group_id: RawId = None
    traits: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "Grouped"


class Alias(Call, frozen=True, kw_only=True, rename="camel", tag="alias"):
    """A link between two ids of one person."""

    previous_id: RawId = None

    @property
    def name(self) -> str:
        return "Aliased"


Event = Track | Page | Screen | Identify | Group | Alias

_decoder = msgspec.json.Decoder(Event)
decode = _decoder.decode
"""Decode an event from JSON; raises `msgspec.DecodeError` with the path of the field."""


def normalize_id(value: RawId) -> str | None:
    """Return an id as text; None for null and empty text.

    >>> normalize_id(42), normalize_id(""), normalize_id("ann")
    ('42', None, 'ann')
    """
    if type(value) is str:
        return value or None
    return None if value is None else str(value)


def epoch_ms(timestamp: datetime) -> int:
    """Return ms since 1970; a timestamp without a time zone is UTC.

    >>> epoch_ms(datetime(1970, 1, 1, 0, 0, 1))
    1000
    """
    if timestamp.tzinfo is None:
        timestamp = timestamp.replace(tzinfo=UTC)
    return round(timestamp.timestamp() * 1000)


def event_time(event: Call, log_time: int) -> int:
    """Return the time of an event in ms: `timestamp`, else `originalTimestamp`, corrected for the client's clock.

    The collector sets `receivedAt` and a corrected `timestamp`. Events of other producers with `sentAt` are corrected
    here, as in the Segment spec: timestamp + (log time - sentAt). The result is never later than the log time.

    >>> event_time(Track(event="x"), 5000)
    5000
    """
    stamp = event.original_timestamp or event.timestamp
    if event.received_at is not None and event.timestamp is not None:
        stamp = event.timestamp
    if stamp is None:
        return log_time
    at = epoch_ms(stamp)
    if event.sent_at is not None and event.received_at is None:
        at += log_time - epoch_ms(event.sent_at)
    return min(at, log_time)
