"""Seeded shop events and a playbook of 100 campaigns; equal seeds give equal bytes.

Events belong to sessions: some thousands are open at any time, each event belongs to a random one, and a session ends
after ten events on average. People are drawn by popularity: person number r (from 0) has the weight 1 / (r + 50) **
0.8, so one percent of the people have a quarter of the sessions. Of 100 events about 45 are pages, 36 product views,
6 cart additions, 5 exit intents, 4 searches, 1 an order, and 2 are *markers*: events that always trigger one
campaign, so that its message can be timed. A person gets one marker only, because a person with an unseen offer gets
no other of its kind.

>>> generator = EventGenerator(persons=1_000, seed=1)
>>> template = next(generator)
>>> from domain.event import decode
>>> decode(template.to_log_json(1_700_000_000_000)).name == template.name
True
"""

import random
from bisect import bisect
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from domain.model import Model, ModelQuality
from domain.record import NewRecord, event_stream
from state.profile.session import FEATURE_NAMES

MARKER_EVENT = "Bench Marked"
"""The event that always triggers a campaign."""
MARKER_CAMPAIGN = "mark"
"""The campaign that the marker event triggers."""
MARKER_SHARE = 0.02
OPEN_SESSIONS = 4_000
"""Sessions open at the same time."""
SESSION_LENGTH = 10
"""Events per session, on average."""
PRODUCT_COUNT = 400
MESSAGE_ID_PLACEHOLDER = b'"@message@"'
TIMESTAMP_PLACEHOLDER = b'"@moment@"'

_ADJECTIVES = ("linen", "walnut", "olive", "river", "granite", "copper", "amber", "cloud", "fern", "harbour")
_NOUNS = ("chair", "lamp", "jacket", "kettle", "backpack", "blanket", "mug", "sneaker", "notebook", "scarf")
_COUNTRIES = ("IT",) * 8 + ("DE",) * 4 + ("FR",) * 3 + ("US",) * 2 + ("CA", "CH", "ES")
_LOCALES = {"IT": "it-IT", "DE": "de-DE", "FR": "fr-FR", "US": "en-US", "CA": "en-CA", "CH": "de-CH", "ES": "es-ES"}
_DEVICES = ("mobile",) * 6 + ("desktop",) * 3 + ("tablet",)


class EventTemplate(NamedTuple):
    """One event: its JSON with placeholders for message id and time."""

    anonymous_id: str
    call: str
    name: str
    template: bytes
    number: int

    def to_log_json(self, at: int) -> bytes:
        """The JSON in the log, for an event at `at` (ms)."""
        return self._fill(self.template, at, b"bench-")

    def to_record(self, at: int, log_time: int | None = None) -> NewRecord:
        """The record for the log."""
        return NewRecord(
            event_stream(self.call, self.name), self.anonymous_id.encode(), self.to_log_json(at), None, log_time
        )

    def to_post_body(self, at: int, write_key: str) -> bytes:
        """The body of a browser's POST to /v1/track or /v1/page."""
        template = self.template.replace(b'"receivedAt":"@moment@"', b'"writeKey":"' + write_key.encode() + b'"')
        return self._fill(template, at, b"http-")

    def _fill(self, template: bytes, at: int, prefix: bytes) -> bytes:
        moment = b'"' + iso(at).encode() + b'"'
        return template.replace(TIMESTAMP_PLACEHOLDER, moment).replace(
            MESSAGE_ID_PLACEHOLDER, b'"%s%d-%d"' % (prefix, at, self.number)
        )


def iso(at: int) -> str:
    """Format a time (ms) in ISO 8601.

    >>> iso(1_500)
    '1970-01-01T00:00:01.500Z'
    """
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def anonymous_id(number: int) -> str:
    """The id of a person, as long as a UUID.

    >>> anonymous_id(7)
    '00000007-9e37-4000-8000-0004538453d7'
    """
    return f"{number:08x}-9e37-4000-8000-{number * 0x9E3779B1:012x}"


class Product(NamedTuple):
    """One product of the shop."""

    id: str
    name: str
    category: str
    price: float


def products() -> list[Product]:
    """All products of the shop."""
    found = []
    for n in range(PRODUCT_COUNT):
        word, thing = _ADJECTIVES[n % 10], _NOUNS[n // 10 % 10]
        found.append(Product(f"sku-{1000 + n}", f"{word.title()} {thing} no. {n}", f"{thing}s", 9.9 + n * 7 % 180))
    return found


class OpenSession:
    """An open session."""

    __slots__ = ("cart", "last_product", "person")

    def __init__(self, person: int) -> None:
        self.person = person
        self.last_product: Product | None = None
        self.cart: list[Product] = []


class EventGenerator(Iterator[EventTemplate]):
    """An endless stream of events of `persons` people; `marked_persons` had a marker before."""

    def __init__(self, persons: int, seed: int, marked_persons: int = 0, marker_share: float = MARKER_SHARE) -> None:
        self._random = random.Random(seed)
        self._weights = list(accumulate((rank + 50) ** -0.8 for rank in range(persons)))
        self._persons = persons
        self._products = products()
        order = random.Random(0)
        self._marker_order = list(range(persons))
        order.shuffle(self._marker_order)
        self.marked_persons = marked_persons
        self._marker_share = marker_share
        self._number = seed * 1_000_000_000
        self._sessions = [OpenSession(self._random_person()) for _ in range(min(OPEN_SESSIONS, max(1, persons // 10)))]

    def _random_person(self) -> int:
        return bisect(self._weights, self._random.random() * self._weights[-1])

    def __next__(self) -> EventTemplate:
        self._number += 1
        chance = self._random.random
        if chance() < self._marker_share:
            person = self._marker_order[self.marked_persons % self._persons]
            self.marked_persons += 1
            return self._make_event(person, "track", MARKER_EVENT, {"mark": self._number}, None)
        at = int(chance() * len(self._sessions))
        visit = self._sessions[at]
        made = self._next_event(visit, chance())
        if chance() < 1 / SESSION_LENGTH:
            self._sessions[at] = OpenSession(self._random_person())
        return made

    def _next_event(self, session: OpenSession, draw: float) -> EventTemplate:
        """The next event of a session."""
        product = session.last_product
        if draw < 0.05:
            return self._make_event(session.person, "track", "Exit Intent", {"signal": "pointer"}, product)
        if draw < 0.09:
            query = _ADJECTIVES[int(draw * 1e6) % 10]
            return self._make_event(session.person, "track", "Products Searched", {"query": query}, None)
        if draw < 0.13 and session.cart:
            cart, session.cart = session.cart, []
            return self._make_event(
                session.person,
                "track",
                "Order Completed",
                {
                    "order_id": f"o-{self._number}",
                    "revenue": round(sum(one.price for one in cart), 2),
                    "products": [{"product_id": one.id, "price": one.price, "quantity": 1} for one in cart],
                },
                None,
            )
        if draw < 0.20 and product is not None:
            if len(session.cart) < 20:
                session.cart.append(product)
            return self._make_event(
                session.person, "track", "Product Added", {**_properties(product), "quantity": 1}, product
            )
        if draw < 0.53:
            session.last_product = product = self._products[int(self._random.random() ** 2 * PRODUCT_COUNT)]
            return self._make_event(session.person, "track", "Product Viewed", _properties(product), product)
        return self._make_event(session.person, "page", "Page Viewed", {}, product)

    def _make_event(
        self, person: int, call: str, name: str, properties: dict[str, Any], product: Product | None
    ) -> EventTemplate:
        who = anonymous_id(person)
        path = f"/products/{product.id}" if product else "/"
        title = product.name if product else "The shop of good things"
        country = _COUNTRIES[person % len(_COUNTRIES)]
        event = {
            "type": call,
            **({"event": name} if call == "track" else {"name": title}),
            "messageId": "@message@",
            "anonymousId": who,
            "timestamp": "@moment@",
            "receivedAt": "@moment@",
            "properties": properties,
            "context": {
                "page": {"url": f"https://shop.example{path}", "path": path, "title": title},
                "locale": _LOCALES[country],
                "attimo": {"country": country, "device": _DEVICES[person % len(_DEVICES)]},
            },
        }
        return EventTemplate(who, call, name, msgspec.json.encode(event), self._number)


def _properties(product: Product) -> dict[str, Any]:
    return {
        "product_id": product.id,
        "name": product.name,
        "category": product.category,
        "price": product.price,
        "currency": "EUR",
    }


def first_session(person: int) -> list[EventTemplate]:
    """The first session of a person, a page and a product, to create the person in the store."""
    made = EventGenerator(1, person, marker_share=0)
    made._number = person * 10
    visit = OpenSession(person)
    first = made._make_event(person, "page", "Page Viewed", {}, None)
    made._number += 1
    return [first, made._next_event(visit, 0.3)]


def model() -> Model:
    """A model with a weight for every feature."""
    weights = {name: round(0.3 - 0.02 * n, 3) for n, name in enumerate(FEATURE_NAMES)}
    return Model(
        kind="propensity",
        version=1,
        hash="benchmark",
        weights=weights,
        means=dict.fromkeys(FEATURE_NAMES, 0.6),
        scales=dict.fromkeys(FEATURE_NAMES, 0.8),
        intercept=-2.5,
        at=1,
        quality=ModelQuality(examples=20_000, positives=900, log_loss=0.15, base_log_loss=0.18, roc_auc=0.78),
    )


# -- the playbook ----------------------------------------------------------------------------------------------


def write_playbook(folder: Path) -> Path:
    """Write 50 segments, 20 workflows and 120 campaigns (by event, segment, exit intent, time on site, workflow)."""
    for kind, made in (("segments", segments()), ("campaigns", campaigns()), ("workflows", workflows())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, fields in made.items():
            text = "".join(f"{field} = {toml(value)}\n" for field, value in fields.items())
            (folder / kind / f"{name}.toml").write_text(text, "utf-8")
    shop = {
        "name": "Benchmark",
        "currency": "EUR",
        "timezone": "Europe/Rome",
        "frequency_caps": {"per_session": 1_000, "per_day": 1_000},
        "custom_events": [MARKER_EVENT],
        "rfm": {},
    }
    (folder / "shop.toml").write_text("".join(f"{field} = {toml(value)}\n" for field, value in shop.items()), "utf-8")
    return folder


def segments() -> dict[str, dict[str, Any]]:
    """Segments with all kinds of conditions."""
    whens: list[dict[str, Any]] = []
    whens += [{"session": {"pages_at_least": n}} for n in (3, 5, 8, 12, 20)]
    whens += [{"session": {"products_at_least": n}, "has": {"device": "desktop"}} for n in (4, 8, 15)]
    whens += [{"cart": {"value_at_least": value}} for value in (50, 120, 300, 600)]
    whens += [{"cart": {"items_at_least": 2, "contains_category": f"{thing}s"}} for thing in _NOUNS[:3]]
    whens += [{"did": {"event": "Product Viewed", "at_least": n}} for n in (5, 20, 60)]
    whens += [{"did": {"event": "Products Searched", "within": "1h"}, "did_not": {"event": "Product Added"}}]
    whens += [{"orders": {"count_at_least": n}} for n in (1, 3, 6)]
    whens += [{"orders": {"value_at_least": 500, "last_within": "30d"}}]
    whens += [{"score": {"at_least": share}} for share in (0.15, 0.4)]
    whens += [{"score": {"band": "likely_buyers"}, "cart": {"empty": True}}]
    whens += [{"has": {"country": ["CA", "US"]}, "session": {"first_session": False}}]
    whens += [{"any": [{"has": {"source": "newsletter"}}, {"session": {"source": "newsletter"}}]}]
    whens += [{"session": {"seconds_at_least": 120}, "not": {"cart": {"items_at_least": 1}}}]
    whens += [{"session": {"searches_at_least": 2}, "in_segment": ["s01", "s02"]}]
    whens += [{"did": {"event": "Product Viewed", "at_least": n, "within": "7d"}} for n in (10, 30)]
    whens += [
        {"did": {"event": "Product Viewed", "where": {"category": f"{thing}s"}, "at_least": 3, "within": "30d"}}
        for thing in _NOUNS[:6]
    ]
    whens += [{"sequence": {"steps": ["Product Viewed", "Product Added"], "within": "1h", "last_within": "1d"}}]
    whens += [{"rfm": {"group": group}} for group in ("champions", "loyal", "promising", "at_risk")]
    whens += [{"cart": {"untouched_for": span}} for span in ("10m", "1h")]
    whens += [{"has": {"last_seen_before": "30d"}}, {"has": {"sessions_at_least": 5}, "in_segment": "s20"}]
    whens += [{"orders": {"last_before": "90d"}}, {"has": {"identified": False}, "session": {"pages_at_least": 6}}]
    whens += [{"orders": {"contains_category": "mugs"}}]
    return {f"s{n:02d}": {"description": f"Segment {n}", "when": when} for n, when in enumerate(whens, 1)}


def campaigns() -> dict[str, dict[str, Any]]:
    """Campaigns that are eligible for few people, as in a real shop."""
    countries = ("IT", "DE", "FR", "US", "CA", "CH", "ES")
    events = ("Product Viewed", "Product Added", "Products Searched", "Page Viewed", "Order Completed", "Cart Viewed")
    found: dict[str, dict[str, Any]] = {
        MARKER_CAMPAIGN: {
            "format": "bar",
            "trigger": {"event": MARKER_EVENT},
            "priority": 1_000,
            "content": {"default": {"title": "Marked", "body": "<p>Welcome to {{ shop.name }}</p>"}},
            "frequency_caps": {"per_session": 1_000},
            "valid_for": "1h",
            "purpose": "service",
        }
    }
    for n in range(20):
        found[f"message-{n:02d}"] = _campaign(n, {"workflow": True}, {"session": {"pages_at_least": 2}})
    for n in range(1, 20):
        device = "desktop" if 6 <= n <= 8 else "tablet"  # matches the segments
        event = "Products Searched" if n == 19 else events[n % len(events)]  # people in s19 have added nothing recently
        found[f"event-{n:02d}"] = _campaign(
            n, {"event": event}, {"in_segment": f"s{n:02d}", "has": {"country": countries[n % 7], "device": device}}
        )
    for n in range(1, 31):
        country = "CA" if n == 27 else countries[n % 7]  # likewise
        found[f"segment-{n:02d}"] = _campaign(
            n, {"segment": f"s{n:02d}"}, {"has": {"country": country}, "session": {"products_at_least": 10 + n}}
        )
    for n in range(1, 31):
        found[f"exit-{n:02d}"] = _campaign(
            n,
            {"exit_intent": True},
            {
                "cart": {"value_at_least": 100 + 40 * n},
                "has": {"country": countries[n % 7]},
                "session": {"pages_at_least": 2 + n % 5},
            },
        )
    for n in range(1, 21):
        found[f"seconds-{n:02d}"] = _campaign(
            n,
            {"seconds_on_site": 15 * n},
            {"session": {"pages_at_least": 4 + n}, "has": {"country": countries[n % 7]}, "cart": {"empty": True}},
        )
    return found


def workflows() -> dict[str, dict[str, Any]]:
    """Workflows, half with an event and half with a segment as entry trigger; an order, or a refund, ends them."""
    events = ("Product Added", "Order Completed", "Products Searched", "Exit Intent", "Product Viewed")
    begins = {n: events[n // 2 % 5] for n in range(1, 20, 2)}
    return {
        f"workflow-{n:02d}": {
            "enter_on": {
                **({"event": begins[n]} if n in begins else {"segment": f"s{n + 1:02d}"}),
                "when": {"has": {"country": ("IT", "DE", "FR", "US")[n % 4]}},
            },
            "reentry": "after",
            "reentry_after": "7d",
            "exit_when": {
                "did": {
                    "event": "Order Refunded" if begins.get(n) == "Order Completed" else "Order Completed",
                    "within": "1h",
                }
            },
            "steps": [
                {"wait_for": {"event": "Product Added", "timeout": "10m", "else": "look"}},
                {"wait": "1m"},
                {"id": "look", "branch": [{"when": {"session": {"products_at_least": 3 + n % 5}}, "goto": "end"}]},
                {"send": f"message-{n:02d}", "timeout": "10m"},
                {"wait": "2d"},
                {"id": "end", "exit": True},
            ],
        }
        for n in range(20)
    }


def _campaign(n: int, trigger: dict[str, Any], when: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": ("popup", "banner")[n % 2],
        "trigger": trigger,
        "when": when,
        "priority": n,
        "valid_for": "1h",
        "frequency_caps": {"per_session": 1, "per_day": 2},
        "content": {
            "default": {
                "title": f"Offer {n}",
                "body": "<p>Something for you, <b>today</b>.</p>",
                "button": "Show me",
                "url": "/offers",
                "coupon": f"CODE{n}",
            }
        },
    }


def toml(value: Any) -> str:
    """Format a value as TOML on one line.

    >>> toml({"a": [1, True], "b": "x"})
    '{ a = [1, true], b = "x" }'
    """
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return msgspec.json.encode(value).decode()
