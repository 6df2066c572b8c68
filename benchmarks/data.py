"""Seeded shop traffic and a playbook of 100 campaigns; the same seed gives the same bytes.

Traffic is made of visits: some thousands are open at any time, each event belongs to a random one of them, and a visit
ends after ten events on average. Who comes is drawn by popularity: person number r (from 0) with a weight of
1 / (r + 50) ** 0.8, so one person in a hundred makes a quarter of the visits. Of a hundred events about 45 are pages,
36 product views, 6 go into the cart, 5 are exit intents, 4 searches, 1 is an order, and 2 are *marks*: an event that
one campaign answers without fail, so that its message can be timed. Nobody is marked twice, because a person who was
sent an offer and has not seen it gets no other of its kind.

>>> traffic = Traffic(persons=1_000, seed=1)
>>> one = next(traffic)
>>> from domain.event import decode
>>> decode(one.canonical(1_700_000_000_000)).name == one.name
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

from domain.model import Model, Quality
from domain.record import Outgoing
from domain.streams import stream_of
from state.features import NAMES

MARK = "Bench Marked"
"""The event that is answered without fail."""
CAMPAIGN = "mark"
"""The campaign that answers it."""
MARKS = 0.02
VISITS = 4_000
"""Visits open at the same time."""
LENGTH = 10
"""Events of a visit, on average."""
PRODUCTS = 400
MESSAGE = b'"@message@"'
MOMENT = b'"@moment@"'

_WORDS = ("linen", "walnut", "olive", "river", "granite", "copper", "amber", "cloud", "fern", "harbour")
_THINGS = ("chair", "lamp", "jacket", "kettle", "backpack", "blanket", "mug", "sneaker", "notebook", "scarf")
_COUNTRIES = ("IT",) * 8 + ("DE",) * 4 + ("FR",) * 3 + ("US",) * 2 + ("CA", "CH", "ES")
_LOCALES = {"IT": "it-IT", "DE": "de-DE", "FR": "fr-FR", "US": "en-US", "CA": "en-CA", "CH": "de-CH", "ES": "es-ES"}
_DEVICES = ("mobile",) * 6 + ("desktop",) * 3 + ("tablet",)


class Happening(NamedTuple):
    """One event to be: of whom (`anonymous_id`), what (`call`, `name`), and its JSON with two holes for id and time."""

    anonymous_id: str
    call: str
    name: str
    template: bytes
    number: int

    def canonical(self, at: int) -> bytes:
        """As the collector writes it to the log, at `at` (ms)."""
        return self._filled(self.template, at, b"bench-")

    def outgoing(self, at: int, log_time: int | None = None) -> Outgoing:
        """As a record for the log."""
        return Outgoing(stream_of(self.call, self.name), self.anonymous_id.encode(), self.canonical(at), None, log_time)

    def posted(self, at: int, write_key: str) -> bytes:
        """As a browser posts it to /v1/track or /v1/page."""
        template = self.template.replace(b'"receivedAt":"@moment@"', b'"writeKey":"' + write_key.encode() + b'"')
        return self._filled(template, at, b"http-")

    def _filled(self, template: bytes, at: int, prefix: bytes) -> bytes:
        moment = b'"' + iso(at).encode() + b'"'
        return template.replace(MOMENT, moment).replace(MESSAGE, b'"%s%d-%d"' % (prefix, at, self.number))


def iso(at: int) -> str:
    """A time (ms) as the wire has it.

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
    """The range of the shop."""
    found = []
    for n in range(PRODUCTS):
        word, thing = _WORDS[n % 10], _THINGS[n // 10 % 10]
        found.append(Product(f"sku-{1000 + n}", f"{word.title()} {thing} no. {n}", f"{thing}s", 9.9 + n * 7 % 180))
    return found


class Visitor:
    """One open visit."""

    __slots__ = ("cart", "last", "person")

    def __init__(self, person: int) -> None:
        self.person = person
        self.last: Product | None = None
        self.cart: list[Product] = []


class Traffic(Iterator[Happening]):
    """An endless stream of events of `persons` people. `marked` people have been marked before."""

    def __init__(self, persons: int, seed: int, marked: int = 0, marks: float = MARKS) -> None:
        self._random = random.Random(seed)
        self._weights = list(accumulate((rank + 50) ** -0.8 for rank in range(persons)))
        self._persons = persons
        self._range = products()
        order = random.Random(0)
        self._whom = list(range(persons))
        order.shuffle(self._whom)
        self.marked = marked
        self._marks = marks
        self._number = seed * 1_000_000_000
        self._visits = [Visitor(self._somebody()) for _ in range(min(VISITS, max(1, persons // 10)))]

    def _somebody(self) -> int:
        return bisect(self._weights, self._random.random() * self._weights[-1])

    def __next__(self) -> Happening:
        self._number += 1
        chance = self._random.random
        if chance() < self._marks:
            person = self._whom[self.marked % self._persons]
            self.marked += 1
            return self._made(person, "track", MARK, {"mark": self._number}, None)
        at = int(chance() * len(self._visits))
        visit = self._visits[at]
        made = self._of(visit, chance())
        if chance() < 1 / LENGTH:
            self._visits[at] = Visitor(self._somebody())
        return made

    def _of(self, visit: Visitor, what: float) -> Happening:
        """The next event of a visit."""
        product = visit.last
        if what < 0.05:
            return self._made(visit.person, "track", "Exit Intent", {"signal": "pointer"}, product)
        if what < 0.09:
            query = _WORDS[int(what * 1e6) % 10]
            return self._made(visit.person, "track", "Products Searched", {"query": query}, None)
        if what < 0.13 and visit.cart:
            cart, visit.cart = visit.cart, []
            return self._made(visit.person, "track", "Order Completed", {
                "order_id": f"o-{self._number}", "revenue": round(sum(one.price for one in cart), 2),
                "products": [{"product_id": one.id, "price": one.price, "quantity": 1} for one in cart],
            }, None)
        if what < 0.20 and product is not None:
            if len(visit.cart) < 20:
                visit.cart.append(product)
            return self._made(visit.person, "track", "Product Added", {**_properties(product), "quantity": 1}, product)
        if what < 0.53:
            visit.last = product = self._range[int(self._random.random() ** 2 * PRODUCTS)]
            return self._made(visit.person, "track", "Product Viewed", _properties(product), product)
        return self._made(visit.person, "page", "Page Viewed", {}, product)

    def _made(
        self, person: int, call: str, name: str, properties: dict[str, Any], product: Product | None
    ) -> Happening:
        who = anonymous_id(person)
        path = f"/products/{product.id}" if product else "/"
        title = product.name if product else "The shop of good things"
        country = _COUNTRIES[person % len(_COUNTRIES)]
        event = {
            "type": call, **({"event": name} if call == "track" else {"name": title}),
            "messageId": "@message@", "anonymousId": who,
            "timestamp": "@moment@", "receivedAt": "@moment@", "properties": properties,
            "context": {
                "page": {"url": f"https://shop.example{path}", "path": path, "title": title},
                "locale": _LOCALES[country],
                "attimo": {"country": country, "device": _DEVICES[person % len(_DEVICES)]},
            },
        }
        return Happening(who, call, name, msgspec.json.encode(event), self._number)


def _properties(product: Product) -> dict[str, Any]:
    return {"product_id": product.id, "name": product.name, "category": product.category, "price": product.price,
            "currency": "EUR"}


def acquaintance(person: int) -> list[Happening]:
    """The first visit of a person: a page and a product, so that the store knows them."""
    made = Traffic(1, person, marks=0)
    made._number = person * 10
    visit = Visitor(person)
    first = made._made(person, "page", "Page Viewed", {}, None)
    made._number += 1
    return [first, made._of(visit, 0.3)]


def model() -> Model:
    """A model as the learner publishes it: a weight for every feature."""
    weights = {name: round(0.3 - 0.02 * n, 3) for n, name in enumerate(NAMES)}
    return Model(
        kind="propensity", version=1, hash="benchmark", weights=weights, means=dict.fromkeys(NAMES, 0.6),
        scales=dict.fromkeys(NAMES, 0.8), intercept=-2.5, at=1,
        quality=Quality(examples=20_000, positives=900, log_loss=0.15, base_log_loss=0.18, roc_auc=0.78))


# -- the playbook ----------------------------------------------------------------------------------------------


def write_playbook(folder: Path) -> Path:
    """50 segments, 100 campaigns (on 20 events, 30 segments, 30 exit intents, 20 moments of a visit), 20 workflows."""
    for kind, made in (("segments", segments()), ("campaigns", campaigns()), ("workflows", workflows())):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, fields in made.items():
            text = "".join(f"{field} = {toml(value)}\n" for field, value in fields.items())
            (folder / kind / f"{name}.toml").write_text(text, "utf-8")
    shop = {"name": "Benchmark", "currency": "EUR", "timezone": "Europe/Rome",
            "limits": {"per_session": 1_000, "per_day": 1_000}, "events": [MARK], "rfm": {}}
    (folder / "shop.toml").write_text("".join(f"{field} = {toml(value)}\n" for field, value in shop.items()), "utf-8")
    return folder


def segments() -> dict[str, dict[str, Any]]:
    """Over everything that a condition can ask: the visit, the cart, what was done, orders, scores, other segments."""
    whens: list[dict[str, Any]] = []
    whens += [{"session": {"pages_at_least": n}} for n in (3, 5, 8, 12, 20)]
    whens += [{"session": {"products_at_least": n}, "has": {"device": "desktop"}} for n in (4, 8, 15)]
    whens += [{"cart": {"value_at_least": value}} for value in (50, 120, 300, 600)]
    whens += [{"cart": {"items_at_least": 2, "contains_category": f"{thing}s"}} for thing in _THINGS[:3]]
    whens += [{"did": {"event": "Product Viewed", "at_least": n}} for n in (5, 20, 60)]
    whens += [{"did": {"event": "Products Searched", "within": "1h"}, "did_not": {"event": "Product Added"}}]
    whens += [{"orders": {"count_at_least": n}} for n in (1, 3, 6)]
    whens += [{"orders": {"value_at_least": 500, "last_within": "30d"}}]
    whens += [{"score": {"at_least": share}} for share in (0.15, 0.4)]
    whens += [{"score": {"band": "likely_buyers"}, "cart": {"empty": True}}]
    whens += [{"has": {"country": ["CA", "US"]}, "session": {"first_visit": False}}]
    whens += [{"any": [{"has": {"source": "newsletter"}}, {"session": {"source": "newsletter"}}]}]
    whens += [{"session": {"seconds_at_least": 120}, "not": {"cart": {"items_at_least": 1}}}]
    whens += [{"session": {"searches_at_least": 2}, "in_segment": ["s01", "s02"]}]
    whens += [{"did": {"event": "Product Viewed", "at_least": n, "within": "7d"}} for n in (10, 30)]
    whens += [{"did": {"event": "Product Viewed", "where": {"category": f"{thing}s"}, "at_least": 3, "within": "30d"}}
              for thing in _THINGS[:6]]
    whens += [{"sequence": {"steps": ["Product Viewed", "Product Added"], "within": "1h", "last_within": "1d"}}]
    whens += [{"rfm": {"group": group}} for group in ("champions", "loyal", "promising", "at_risk")]
    whens += [{"cart": {"untouched_for": span}} for span in ("10m", "1h")]
    whens += [{"has": {"last_seen_before": "30d"}}, {"has": {"visits_at_least": 5}, "in_segment": "s20"}]
    whens += [{"orders": {"last_before": "90d"}}, {"has": {"known": False}, "session": {"pages_at_least": 6}}]
    whens += [{"orders": {"contains_category": "mugs"}}]
    return {f"s{n:02d}": {"description": f"Segment {n}", "when": when} for n, when in enumerate(whens, 1)}


def campaigns() -> dict[str, dict[str, Any]]:
    """Most of them hold their tongue, as in a real shop: a campaign wants few people."""
    countries = ("IT", "DE", "FR", "US", "CA", "CH", "ES")
    events = ("Product Viewed", "Product Added", "Products Searched", "Page Viewed", "Order Completed", "Cart Viewed")
    found: dict[str, dict[str, Any]] = {
        CAMPAIGN: {"format": "bar", "trigger": {"event": MARK}, "priority": 1_000,
                   "content": {"default": {"title": "Marked", "body": "<p>Welcome to {{ shop.name }}</p>"}},
                   "limits": {"per_session": 1_000}, "valid_for": "1h", "purpose": "service"},
    }
    for n in range(20):
        found[f"word-{n:02d}"] = _campaign(n, {"workflow": True}, {"session": {"pages_at_least": 2}})
    for n in range(1, 20):
        device = "desktop" if 6 <= n <= 8 else "tablet"  # as the segments have it
        event = "Products Searched" if n == 19 else events[n % len(events)]  # s19 has nobody who just added something
        found[f"event-{n:02d}"] = _campaign(n, {"event": event}, {
            "in_segment": f"s{n:02d}", "has": {"country": countries[n % 7], "device": device}})
    for n in range(1, 31):
        country = "CA" if n == 27 else countries[n % 7]  # likewise
        found[f"segment-{n:02d}"] = _campaign(n, {"segment": f"s{n:02d}"}, {
            "has": {"country": country}, "session": {"products_at_least": 10 + n}})
    for n in range(1, 31):
        found[f"exit-{n:02d}"] = _campaign(n, {"exit_intent": True}, {
            "cart": {"value_at_least": 100 + 40 * n}, "has": {"country": countries[n % 7]},
            "session": {"pages_at_least": 2 + n % 5}})
    for n in range(1, 21):
        found[f"seconds-{n:02d}"] = _campaign(n, {"seconds_on_site": 15 * n}, {
            "session": {"pages_at_least": 4 + n}, "has": {"country": countries[n % 7]}, "cart": {"empty": True}})
    return found


def workflows() -> dict[str, dict[str, Any]]:
    """Half of them begin with an event, half with a segment; they wait, look, say something, and end with an order (or,
    where they begin with one, when it is given back).
    """
    events = ("Product Added", "Order Completed", "Products Searched", "Exit Intent", "Product Viewed")
    begins = {n: events[n // 2 % 5] for n in range(1, 20, 2)}
    return {f"workflow-{n:02d}": {
        "enters": {**({"event": begins[n]} if n in begins else {"segment": f"s{n + 1:02d}"}), "when": {
            "has": {"country": ("IT", "DE", "FR", "US")[n % 4]}}},
        "again": "after", "again_after": "7d", "leaves": {"did": {
            "event": "Order Refunded" if begins.get(n) == "Order Completed" else "Order Completed", "within": "1h"}},
        "steps": [
            {"wait_for": {"event": "Product Added", "within": "10m", "otherwise": "look"}},
            {"wait": "1m"},
            {"id": "look", "branch": [{"when": {"session": {"products_at_least": 3 + n % 5}}, "go": "end"}]},
            {"send": f"word-{n:02d}", "patience": "10m"},
            {"wait": "2d"},
            {"id": "end", "exit": True},
        ],
    } for n in range(20)}


def _campaign(n: int, trigger: dict[str, Any], when: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": ("popup", "banner")[n % 2], "trigger": trigger, "when": when, "priority": n, "valid_for": "1h",
        "limits": {"per_session": 1, "per_day": 2},
        "content": {"default": {"title": f"Offer {n}", "body": "<p>Something for you, <b>today</b>.</p>",
                                "button": "Show me", "url": "/offers", "coupon": f"CODE{n}"}},
    }


def toml(value: Any) -> str:
    """A value as TOML, on one line.

    >>> toml({"a": [1, True], "b": "x"})
    '{ a = [1, true], b = "x" }'
    """
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return msgspec.json.encode(value).decode()
