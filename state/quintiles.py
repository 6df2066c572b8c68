"""Quintiles: where the fifths of all customers begin, by last order, number of orders, and money.

    an order of Ann: old (last, orders, money) ─▶ taken out of three histograms, new put in ─▶ cuts ─▶ a model "rfm"

Histograms are counts of customers by bin: days for the last order, whole numbers that grow by 1 % for orders and money.
They add up, so those of two halves of the population are those of the whole. A cut is always an edge of a bin, and how
many customers are below an edge is exact: **who is in class k has at least k-1 fifths of all customers below**, and a
class holds a fifth of them but for the largest bin at its edge. Many who are alike (all who ordered once) are in one
class together, the lowest that is true of them.

Recency cuts are spans back from the newest thing heard of (`clock`), so they go on falling while nothing is published.
A model is published when a cut has moved noticeably, and never before there are 100 customers.

>>> fifths = Quintiles()
>>> for n in range(1, 201):
...     fifths.put(Counted(n * DAY, n, n * 1000))
>>> fifths.cuts()["frequency"], fifths.customers
((41.0, 81.0, 121.0, 161.0), 200)
"""

from bisect import bisect_right
from hashlib import blake2b
from typing import Any

import msgspec

from domain.model import Model, Quality
from domain.outcome import Outcome
from state.person import Counted
from state.rfm import KIND

DAY = 86_400_000
KEPT_DAYS = 1_500
"""Last orders longer ago than this count as of that day."""

ENOUGH = 100
"""Customers below which fifths say nothing."""

NOTICEABLE = 0.05
"""A cut that has moved by less than this share is still the same."""

NOTICEABLE_SPAN = DAY // 4
"""And a cut of recency by less than this (ms)."""

RECENT = 20_000
"""Ids of the latest outcomes, so that a repeat in the log does not count twice."""


def _edges() -> tuple[int, ...]:
    edges, edge = [], 1
    while edge <= 10**12:
        edges.append(edge)
        edge = max(edge + 1, -(-edge * 101 // 100))
    return tuple(edges)


EDGES = _edges()
"""Bin n holds the whole numbers from EDGES[n - 1] up to, and without, EDGES[n]; bin 0 what is below 1."""


class Quintiles:
    """The customers of a shop, counted by bin. `clock` is the newest thing heard of, in ms."""

    def __init__(self, plain: dict[str, Any] | None = None) -> None:
        self.days: dict[int, int] = {}
        self.orders: dict[int, int] = {}
        self.money: dict[int, int] = {}
        self.clock = 0
        self.examples = self.repeated = 0
        self.said: dict[str, tuple[float, ...]] = {}
        self.said_of = 0
        self._recent: dict[bytes, None] = {}
        self._low = -KEPT_DAYS
        if plain is not None:
            self._restore(plain)

    @property
    def customers(self) -> int:
        """How many customers are counted."""
        return sum(self.orders.values())

    # -- counting ----------------------------------------------------------------------------------------------

    def learn(self, outcome: Outcome) -> bool:
        """What became of one customer. False, and nothing happens, for an outcome that was learned before."""
        mark = blake2b(outcome.id.encode(), digest_size=8).digest()
        if mark in self._recent:
            self.repeated += 1
            return False
        self._recent[mark] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        self.examples += 1
        self.clock = max(self.clock, outcome.at)
        old, new = _counted(outcome.features, "old_"), _counted(outcome.features, "new_")
        if old.orders > 0:
            self.put(old, -1)
        if new.orders > 0:
            self.put(new)
        return True

    def put(self, one: Counted, n: int = 1) -> None:
        """Count n customers more like this one. What was never counted cannot be taken away."""
        self.clock = max(self.clock, one.last_at)
        if self._floor() > self._low:
            self._compact()
        for bins, place in ((self.days, max(one.last_at // DAY, self._low)), (self.orders, _bin(one.orders)),
                            (self.money, _bin(one.money))):
            left = bins.get(place, 0) + n
            if left > 0:
                bins[place] = left
            else:
                bins.pop(place, None)

    def merge(self, other: "Quintiles") -> None:
        """Count another half of the population too."""
        self.clock = max(self.clock, other.clock)
        self.examples += other.examples
        for mine, theirs in ((self.days, other.days), (self.orders, other.orders), (self.money, other.money)):
            for place, n in theirs.items():
                mine[place] = mine.get(place, 0) + n
        self._compact()

    def _floor(self) -> int:
        """The first day that is still counted by itself."""
        return self.clock // DAY - KEPT_DAYS

    def _compact(self) -> None:
        self._low = floor = self._floor()
        for day in [day for day in self.days if day < floor]:
            self.days[floor] = self.days.get(floor, 0) + self.days.pop(day)

    # -- cutting -----------------------------------------------------------------------------------------------

    def cuts(self) -> dict[str, tuple[float, ...]]:
        """Where the classes begin: recency (ms ago; class 5, 4, 3, 2), frequency and money (class 2, 3, 4, 5)."""
        self._compact()
        since = [(day + 1) * DAY for day in _fifths(self.days)]
        return {
            "recency": tuple(float(max(0, self.clock - at + 1)) for at in reversed(since)),
            "frequency": tuple(float(EDGES[place]) for place in _fifths(self.orders)),
            "money": tuple(float(EDGES[place]) for place in _fifths(self.money)),
        }

    def settle(self) -> bool:
        """Whether there is news: enough customers, and a cut that moved noticeably since they were last said.

        From then on these cuts are the ones that are said.
        """
        if self.customers < ENOUGH:
            return False
        cuts = self.cuts()
        if self.said and not any(
                _moved(old, new, NOTICEABLE_SPAN if name == "recency" else 0.0)
                for name, row in cuts.items() for old, new in zip(self.said[name], row, strict=True)):
            return False
        self.said, self.said_of = cuts, self.customers
        return True

    def model(self, version: int, at: int) -> Model:
        """The cuts that are said, as they travel; `at` is when they are published (ms)."""
        numbers = msgspec.json.encode(sorted(self.said.items()))
        return Model(kind=KIND, version=version, hash=blake2b(numbers, digest_size=8).hexdigest(), weights={},
                     quality=Quality(examples=self.said_of), cuts=self.said, at=at)

    # -- as plain numbers --------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """All of it as plain numbers."""
        return {"v": 1, "days": dict(self.days), "orders": dict(self.orders), "money": dict(self.money),
                "clock": self.clock, "examples": self.examples, "repeated": self.repeated,
                "said": {name: list(row) for name, row in self.said.items()}, "said_of": self.said_of,
                "recent": b"".join(self._recent)}

    def _restore(self, plain: dict[str, Any]) -> None:
        if plain["v"] != 1:
            raise ValueError(f"quintiles of version {plain['v']}, but this program reads version 1")
        self.days, self.orders, self.money = dict(plain["days"]), dict(plain["orders"]), dict(plain["money"])
        self.clock, self.examples, self.repeated = plain["clock"], plain["examples"], plain["repeated"]
        self.said = {name: tuple(row) for name, row in plain["said"].items()}
        self.said_of = plain["said_of"]
        recent = plain["recent"]
        self._recent = {recent[at:at + 8]: None for at in range(0, len(recent), 8)}


def _fifths(bins: dict[int, int]) -> list[int]:
    """The bins behind which one, two, three and four fifths of all are complete.

    >>> _fifths({0: 1, 1: 1, 2: 1, 3: 1, 4: 1}), _fifths({7: 9, 8: 1})
    ([0, 1, 2, 3], [7, 7, 7, 7])
    """
    total, below, found = sum(bins.values()), 0, list[int]()
    for place in sorted(bins):
        below += bins[place]
        while len(found) < 4 and below * 5 >= total * (len(found) + 1):
            found.append(place)
    return found or [0, 0, 0, 0]


def _bin(number: int) -> int:
    return min(bisect_right(EDGES, number), len(EDGES) - 1)


def _moved(old: float, new: float, least: float) -> bool:
    return abs(new - old) > max(NOTICEABLE * abs(old), least)


def _counted(features: dict[str, float], prefix: str) -> Counted:
    get = features.get
    return Counted(int(get(prefix + "last_at", 0)), int(get(prefix + "orders", 0)), int(get(prefix + "money", 0)))
