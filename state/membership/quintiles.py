"""Quintiles: the class bounds of all customers by last order, number of orders, and revenue.

    an order: old snapshot ─▶ subtracted from three histograms, new snapshot added ─▶ cuts ─▶ a model of kind "rfm"

Histograms count customers by bin: days for the last order, integers that grow by 1 % for orders and revenue. They add
up, so the histograms of two halves of the population give those of the whole. A cut is always the edge of a bin, and
the number of customers below an edge is exact: **class k has at least k-1 fifths of all customers below it**. A class
holds a fifth of the customers, except for the largest bin at its edge. Equal customers (all with one order) are in one
class, the lowest that applies.

Recency cuts are durations before the newest data (`clock`), so recency classes drop over time without a new model. A
model is published when a cut has moved noticeably, and only from 100 customers.

>>> quintiles = Quintiles()
>>> for n in range(1, 201):
...     quintiles.add(PopulationSnapshot(n * DAY, n, n * 1000))
>>> quintiles.cuts()["frequency"], quintiles.customers
((41.0, 81.0, 121.0, 161.0), 200)
"""

from bisect import bisect_right
from hashlib import blake2b
from typing import Any

import msgspec

from domain.action import Outcome
from domain.model import Model, ModelQuality
from state.person.model import PopulationSnapshot
from state.playbook.rfm import MODEL_KIND

DAY = 86_400_000
MAX_DAYS = 1_500
"""Earlier last orders count as of this day."""

MIN_CUSTOMERS = 100
"""Minimum number of customers for meaningful quintiles."""

MIN_SHIFT = 0.05
"""A cut is unchanged if it moved by less than this share."""

MIN_RECENCY_SHIFT = DAY // 4
"""A recency cut is also unchanged if it moved by less than this (ms)."""

MAX_RECENT_IDS = 20_000
"""Ids of the latest outcomes stored for deduplication."""


def _bin_edges() -> tuple[int, ...]:
    edges, edge = [], 1
    while edge <= 10**12:
        edges.append(edge)
        edge = max(edge + 1, -(-edge * 101 // 100))
    return tuple(edges)


BIN_EDGES = _bin_edges()
"""Bin n holds the integers from BIN_EDGES[n - 1] up to, but excluding, BIN_EDGES[n]; bin 0 holds those below 1."""


class Quintiles:
    """The customers of a shop, counted by bin. `clock` is the time of the newest data in ms."""

    def __init__(self, data: dict[str, Any] | None = None) -> None:
        self.days: dict[int, int] = {}
        self.orders: dict[int, int] = {}
        self.money: dict[int, int] = {}
        self.clock = 0
        self.examples = self.duplicates = 0
        self.published: dict[str, tuple[float, ...]] = {}
        self.published_customers = 0
        self._recent_ids: dict[bytes, None] = {}
        self._first_day = -MAX_DAYS
        if data is not None:
            self._restore(data)

    @property
    def customers(self) -> int:
        """Return the number of customers."""
        return sum(self.orders.values())

    # -- counting ----------------------------------------------------------------------------------------------

    def learn(self, outcome: Outcome) -> bool:
        """Learn the change of one customer. Return False for duplicates."""
        outcome_hash = blake2b(outcome.id.encode(), digest_size=8).digest()
        if outcome_hash in self._recent_ids:
            self.duplicates += 1
            return False
        self._recent_ids[outcome_hash] = None
        if len(self._recent_ids) > MAX_RECENT_IDS:
            del self._recent_ids[next(iter(self._recent_ids))]
        self.examples += 1
        self.clock = max(self.clock, outcome.at)
        old, new = _snapshot_from(outcome.features, "old_"), _snapshot_from(outcome.features, "new_")
        if old.order_count > 0:
            self.add(old, -1)
        if new.order_count > 0:
            self.add(new)
        return True

    def add(self, customer: PopulationSnapshot, n: int = 1) -> None:
        """Count n customers like this one; a negative n removes them. Counts never drop below zero."""
        self.clock = max(self.clock, customer.last_order_at)
        if self._oldest_day() > self._first_day:
            self._compact()
        for bins, place in (
            (self.days, max(customer.last_order_at // DAY, self._first_day)),
            (self.orders, _bin_of(customer.order_count)),
            (self.money, _bin_of(customer.revenue)),
        ):
            left = bins.get(place, 0) + n
            if left > 0:
                bins[place] = left
            else:
                bins.pop(place, None)

    def merge(self, other: "Quintiles") -> None:
        """Add the counts of another part of the population."""
        self.clock = max(self.clock, other.clock)
        self.examples += other.examples
        for mine, theirs in ((self.days, other.days), (self.orders, other.orders), (self.money, other.money)):
            for place, n in theirs.items():
                mine[place] = mine.get(place, 0) + n
        self._compact()

    def _oldest_day(self) -> int:
        """Return the first day with a bin of its own."""
        return self.clock // DAY - MAX_DAYS

    def _compact(self) -> None:
        self._first_day = floor = self._oldest_day()
        for day in [day for day in self.days if day < floor]:
            self.days[floor] = self.days.get(floor, 0) + self.days.pop(day)

    # -- cutting -----------------------------------------------------------------------------------------------

    def cuts(self) -> dict[str, tuple[float, ...]]:
        """Return the class bounds: recency (ms ago; class 5, 4, 3, 2), frequency, monetary (class 2, 3, 4, 5)."""
        self._compact()
        since = [(day + 1) * DAY for day in _quintile_bins(self.days)]
        return {
            "recency": tuple(float(max(0, self.clock - at + 1)) for at in reversed(since)),
            "frequency": tuple(float(BIN_EDGES[place]) for place in _quintile_bins(self.orders)),
            "monetary": tuple(float(BIN_EDGES[place]) for place in _quintile_bins(self.money)),
        }

    def update_published(self) -> bool:
        """Return whether a new model is due: enough customers, and a cut that moved noticeably since the last one.

        If so, the current cuts become the published ones.
        """
        if self.customers < MIN_CUSTOMERS:
            return False
        cuts = self.cuts()
        if self.published and not any(
            _has_shifted(old, new, MIN_RECENCY_SHIFT if name == "recency" else 0.0)
            for name, row in cuts.items()
            for old, new in zip(self.published[name], row, strict=True)
        ):
            return False
        self.published, self.published_customers = cuts, self.customers
        return True

    def to_model(self, version: int, at: int) -> Model:
        """Return the published cuts as a model; `at` is the time of publication (ms)."""
        numbers = msgspec.json.encode(sorted(self.published.items()))
        return Model(
            kind=MODEL_KIND,
            version=version,
            hash=blake2b(numbers, digest_size=8).hexdigest(),
            weights={},
            quality=ModelQuality(examples=self.published_customers),
            thresholds=self.published,
            at=at,
        )

    # -- as plain numbers --------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "v": 2,
            "days": dict(self.days),
            "orders": dict(self.orders),
            "monetary": dict(self.money),
            "clock": self.clock,
            "examples": self.examples,
            "duplicates": self.duplicates,
            "published": {name: list(row) for name, row in self.published.items()},
            "published_customers": self.published_customers,
            "recent_ids": b"".join(self._recent_ids),
        }

    def _restore(self, data: dict[str, Any]) -> None:
        if data["v"] != 2:
            raise ValueError(f"quintiles of version {data['v']}; this program reads version 2")
        self.days, self.orders, self.money = dict(data["days"]), dict(data["orders"]), dict(data["monetary"])
        self.clock, self.examples, self.duplicates = data["clock"], data["examples"], data["duplicates"]
        self.published = {name: tuple(row) for name, row in data["published"].items()}
        self.published_customers = data["published_customers"]
        recent = data["recent_ids"]
        self._recent_ids = {recent[at : at + 8]: None for at in range(0, len(recent), 8)}


def _quintile_bins(bins: dict[int, int]) -> list[int]:
    """Return the bins at which one, two, three and four fifths of the total are complete.

    >>> _quintile_bins({0: 1, 1: 1, 2: 1, 3: 1, 4: 1}), _quintile_bins({7: 9, 8: 1})
    ([0, 1, 2, 3], [7, 7, 7, 7])
    """
    total, below, found = sum(bins.values()), 0, list[int]()
    for place in sorted(bins):
        below += bins[place]
        while len(found) < 4 and below * 5 >= total * (len(found) + 1):
            found.append(place)
    return found or [0, 0, 0, 0]


def _bin_of(number: int) -> int:
    return min(bisect_right(BIN_EDGES, number), len(BIN_EDGES) - 1)


def _has_shifted(old: float, new: float, minimum: float) -> bool:
    return abs(new - old) > max(MIN_SHIFT * abs(old), minimum)


def _snapshot_from(features: dict[str, float], prefix: str) -> PopulationSnapshot:
    get = features.get
    return PopulationSnapshot(
        int(get(prefix + "last_order_at", 0)), int(get(prefix + "order_count", 0)), int(get(prefix + "revenue", 0))
    )
