"""What is known of somebody, read naively: their visits, cart, traits and answers, each asked of the whole past anew.

Times are ms after T0. It is written from docs/playbook.md alone; `tests/models/frequency.py` goes on from here.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.models.conditions import PastEvent, as_list, did_matches, sequence_matches, to_ms

T0 = 1_700_000_000_000
SESSION_TIMEOUT = 30 * 60_000
ON_SITE = ("popup", "banner", "bar", "slot")
SERVER_EVENTS = (
    "Identified",
    "Consent Updated",
    "Offer Shown",
    "Offer Suppressed",
    "Message Delivered",
    "Message Suppressed",
    "Message Bounced",
)
"""What is reported of a person and not done by them: it begins no visit and keeps none open."""


class Exposure(NamedTuple):
    """What was seen (or accepted by a channel), and in which visit."""

    at: int
    campaign: str
    session: int | None


class PersonModel:
    """One person: all that happened, and what they were shown. `plain` is the playbook as it stands in the files."""

    def __init__(self, plain: dict[str, Any], zone: str) -> None:
        self.shop: dict[str, Any] = plain["shop"]
        self.zone, self.shop_zone = ZoneInfo(zone), ZoneInfo(self.shop["timezone"])
        self.now = 0
        self.past_events: list[PastEvent] = []
        self.exposures: list[Exposure] = []
        self.segments_in: set[str] = set()

    def date(self, text: str) -> int:
        return ms_since_start(datetime.fromisoformat(text).replace(tzinfo=self.shop_zone))

    def day(self, at: int) -> int:
        return datetime.fromtimestamp((T0 + at) / 1000, self.zone).date().toordinal()

    def session(self) -> tuple[int, int, int] | None:
        """The visit that is open: its number, when it began, when it ends unless something happens."""
        found: list[list[int]] = []
        for one in self.past_events:
            if one.name not in SERVER_EVENTS:
                if not found or one.at >= found[-1][1] + SESSION_TIMEOUT:
                    found.append([one.at, one.at])
                found[-1][1] = one.at
        if not found or self.now >= found[-1][1] + SESSION_TIMEOUT:
            return None
        return len(found), found[-1][0], found[-1][1] + SESSION_TIMEOUT

    def count_in_session(self, name: str) -> int:
        """How often this happened in the open visit."""
        visit = self.session()
        return 0 if visit is None else len([one for one in self.past_events if one.name == name and one.at >= visit[1]])

    def cart(self) -> tuple[int, int, int] | None:
        """Pieces, their value, and when it last changed."""
        pieces, touched = 0, 0
        for one in self.past_events:
            if one.name == "Product Added":
                pieces, touched = pieces + 1, one.at
            elif one.name in ("Order Completed", "Cart Cleared"):
                pieces = 0
        return (pieces, pieces * 10, touched) if pieces else None

    def trait(self, name: str) -> Any:
        return next(
            (
                one.properties[name]
                for one in reversed(self.past_events)
                if one.name == "Identified" and name in one.properties
            ),
            None,
        )

    def has_granted(self, name: str) -> bool:
        """The last answer, else the shop's word for it, else the shop's default."""
        policy = self.shop.get("consent", {})
        word = policy.get("purposes", {}).get(name, policy.get("default", "granted"))
        return bool(
            next(
                (
                    one.properties[name]
                    for one in reversed(self.past_events)
                    if one.name == "Consent Updated" and name in one.properties
                ),
                word == "granted",
            )
        )

    def has_answered(self, name: str) -> bool:
        return name in self.shop.get("consent", {}).get("purposes", {}) or any(
            one.name == "Consent Updated" and name in one.properties for one in self.past_events
        )

    def allows(self, campaign: dict[str, Any]) -> bool:
        purpose, form = campaign.get("purpose", "marketing"), campaign["format"]
        if purpose == "service":
            return True
        names = [] if form in ON_SITE else [name for name in (form, f"{form}:{purpose}") if self.has_answered(name)]
        return all(self.has_granted(name) for name in [purpose, *names])

    def is_eligible(self, campaign: dict[str, Any]) -> bool:
        if ("start" in campaign and self.now < self.date(campaign["start"])) or (
            "end" in campaign and self.now >= self.date(campaign["end"])
        ):
            return False
        return self.is_true(campaign.get("when", {})) and not (
            "unless" in campaign and self.is_true(campaign["unless"])
        )

    def is_true(self, condition: dict[str, Any]) -> bool:
        return all(answer for word, what in condition.items() for answer in self.predicate_values(word, what))

    def predicate_values(self, field: str, expected: Any) -> Iterator[bool]:
        visit, cart = self.session(), self.cart()
        if field in ("all", "any"):
            yield (all if field == "all" else any)(self.is_true(one) for one in expected)
        elif field == "not":
            yield not self.is_true(expected)
        elif field in ("did", "did_not"):
            yield from (did_matches(one, self.past_events, self.now) is (field == "did") for one in as_list(expected))
        elif field == "sequence":
            yield sequence_matches(expected, self.past_events, self.now)
        elif field == "in_segment":
            yield any(name in self.segments_in for name in as_list(expected))
        elif field == "session":
            yield visit is not None
            yield self.count_in_session("Page Viewed") >= expected.get("pages_at_least", 0)
            if visit is not None:
                yield self.now - visit[1] >= expected.get("seconds_at_least", 0) * 1000
                yield (visit[0] == 1) is expected.get("first_session", visit[0] == 1)
        elif field == "cart":
            yield cart is not None
            if cart is not None:
                yield cart[1] >= expected.get("value_at_least", 0)
                yield self.now - cart[2] >= to_ms(expected.get("untouched_for", "0s"))
        elif field == "orders":
            times = [one.at for one in self.past_events if one.name == "Order Completed"]
            yield len(times) >= expected.get("count_at_least", 0)
            yield "last_within" not in expected or any(self.now - at < to_ms(expected["last_within"]) for at in times)
        elif field == "was_shown":
            times = [
                one.at
                for one in self.exposures
                if one.campaign in as_list(expected["campaign"])
                and ("within" not in expected or self.now - one.at < to_ms(expected["within"]))
            ]
            yield len(times) >= expected.get("at_least", 1)
        else:
            assert field == "has", field
            yield "consent" not in expected or self.has_granted(expected["consent"])
            yield all(self.trait(name) == value for name, value in expected.get("trait", {}).items())


def ms_since_start(moment: datetime) -> int:
    return round(moment.timestamp() * 1000) - T0
