"""What is known of somebody, read naively: their visits, cart, traits and answers, each asked of the whole past anew.

Times are ms after T0. It is written from docs/playbook.md alone; `tests/naive_limits.py` goes on from here.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.naive import Happened, did, many, ms, sequence

T0 = 1_700_000_000_000
VISIT = 30 * 60_000
ON_SITE = ("popup", "banner", "bar", "slot")
TOLD = ("Identified", "Consent Updated", "Offer Shown", "Offer Held", "Message Delivered", "Message Held",
        "Message Bounced")
"""What is reported of a person and not done by them: it begins no visit and keeps none open."""


class Shown(NamedTuple):
    """What was seen (or accepted by a channel), and in which visit."""

    at: int
    campaign: str
    visit: int | None


class Known:
    """One person: all that happened, and what they were shown. `plain` is the playbook as it stands in the files."""

    def __init__(self, plain: dict[str, Any], zone: str) -> None:
        self.shop: dict[str, Any] = plain["shop"]
        self.zone, self.home = ZoneInfo(zone), ZoneInfo(self.shop["timezone"])
        self.now = 0
        self.past: list[Happened] = []
        self.shown: list[Shown] = []
        self.member: set[str] = set()

    def date(self, text: str) -> int:
        return clock(datetime.fromisoformat(text).replace(tzinfo=self.home))

    def day(self, at: int) -> int:
        return datetime.fromtimestamp((T0 + at) / 1000, self.zone).date().toordinal()

    def visit(self) -> tuple[int, int, int] | None:
        """The visit that is open: its number, when it began, when it ends unless something happens."""
        found: list[list[int]] = []
        for one in self.past:
            if one.name not in TOLD:
                if not found or one.at >= found[-1][1] + VISIT:
                    found.append([one.at, one.at])
                found[-1][1] = one.at
        if not found or self.now >= found[-1][1] + VISIT:
            return None
        return len(found), found[-1][0], found[-1][1] + VISIT

    def here(self, name: str) -> int:
        """How often this happened in the open visit."""
        visit = self.visit()
        return 0 if visit is None else len([one for one in self.past if one.name == name and one.at >= visit[1]])

    def cart(self) -> tuple[int, int, int] | None:
        """Pieces, their value, and when it last changed."""
        pieces, touched = 0, 0
        for one in self.past:
            if one.name == "Product Added":
                pieces, touched = pieces + 1, one.at
            elif one.name in ("Order Completed", "Cart Cleared"):
                pieces = 0
        return (pieces, pieces * 10, touched) if pieces else None

    def trait(self, name: str) -> Any:
        return next((one.properties[name] for one in reversed(self.past)
                     if one.name == "Identified" and name in one.properties), None)

    def agreed(self, name: str) -> bool:
        """The last answer, else the shop's word for it, else the shop's default."""
        policy = self.shop.get("consent", {})
        word = policy.get("purposes", {}).get(name, policy.get("default", "granted"))
        return bool(next((one.properties[name] for one in reversed(self.past)
                          if one.name == "Consent Updated" and name in one.properties), word == "granted"))

    def answered(self, name: str) -> bool:
        return name in self.shop.get("consent", {}).get("purposes", {}) or any(
            one.name == "Consent Updated" and name in one.properties for one in self.past)

    def consents(self, one: dict[str, Any]) -> bool:
        purpose, form = one.get("purpose", "marketing"), one["format"]
        if purpose == "service":
            return True
        names = [] if form in ON_SITE else [name for name in (form, f"{form}:{purpose}") if self.answered(name)]
        return all(self.agreed(name) for name in [purpose, *names])

    def holds_for(self, one: dict[str, Any]) -> bool:
        if ("start" in one and self.now < self.date(one["start"])) or ("end" in one and self.now >= self.date(
                one["end"])):
            return False
        return self.holds(one.get("when", {})) and not ("unless" in one and self.holds(one["unless"]))

    def holds(self, when: dict[str, Any]) -> bool:
        return all(answer for word, what in when.items() for answer in self.part(word, what))

    def part(self, word: str, what: Any) -> Iterator[bool]:
        visit, cart = self.visit(), self.cart()
        if word in ("all", "any"):
            yield (all if word == "all" else any)(self.holds(one) for one in what)
        elif word == "not":
            yield not self.holds(what)
        elif word in ("did", "did_not"):
            yield from (did(one, self.past, self.now) is (word == "did") for one in many(what))
        elif word == "sequence":
            yield sequence(what, self.past, self.now)
        elif word == "in_segment":
            yield any(name in self.member for name in many(what))
        elif word == "session":
            yield visit is not None
            yield self.here("Page Viewed") >= what.get("pages_at_least", 0)
            if visit is not None:
                yield self.now - visit[1] >= what.get("seconds_at_least", 0) * 1000
                yield (visit[0] == 1) is what.get("first_visit", visit[0] == 1)
        elif word == "cart":
            yield cart is not None
            if cart is not None:
                yield cart[1] >= what.get("value_at_least", 0)
                yield self.now - cart[2] >= ms(what.get("untouched_for", "0s"))
        elif word == "orders":
            times = [one.at for one in self.past if one.name == "Order Completed"]
            yield len(times) >= what.get("count_at_least", 0)
            yield "last_within" not in what or any(self.now - at < ms(what["last_within"]) for at in times)
        elif word == "was_said":
            times = [one.at for one in self.shown if one.campaign in many(what["campaign"])
                     and ("within" not in what or self.now - one.at < ms(what["within"]))]
            yield len(times) >= what.get("at_least", 1)
        else:
            assert word == "has", word
            yield "consent" not in what or self.agreed(what["consent"])
            yield all(self.trait(name) == value for name, value in what.get("trait", {}).items())


def clock(moment: datetime) -> int:
    return round(moment.timestamp() * 1000) - T0
