"""RFM: the cell of a customer by recency, frequency and monetary value of their orders.

    last order 12 days ago, 4 orders, 180.00  ──▶  "543": recency 5, frequency 4, money 3, each from 1 to 5

The cuts are the shop's own, or fifths of all its customers (`state/membership/quintiles.py`). Recency falls as time
passes: at the
very moment `next_fall`, the others only with an order, a refund or a cancellation.
"""

from bisect import bisect_right
from typing import NamedTuple

from domain.duration import parse_duration
from domain.model import Model
from domain.money import to_minor
from domain.playbook.shop import Shop
from state.person.model import ProfileFragment

MODEL_KIND = "rfm"
"""What the learned cuts are called among the models, and what is told of customers among the outcomes."""


class RfmThresholds(NamedTuple):
    """Where classes begin, each row rising.

    `recency`: the last order is less than this long ago (ms): class 5, 4, 3, 2. `frequency` and `money` (orders, minor
    units): at least this: class 2, 3, 4, 5. `learned`: they stand in until there are learned ones.
    """

    recency: tuple[float, ...]
    frequency: tuple[float, ...]
    money: tuple[float, ...]
    learned: bool = False


def declared_thresholds(shop: Shop) -> RfmThresholds | None:
    """Return the thresholds that the shop declares; None if there are none."""
    rfm = shop.rfm
    if rfm is None:
        return None
    return RfmThresholds(
        tuple(sorted([parse_duration(span) for span in rfm.recency])),
        tuple(sorted(rfm.frequency)),
        tuple(sorted([to_minor(amount, shop.currency) for amount in rfm.monetary])),
        rfm.quintiles,
    )


def learned_thresholds(model: Model) -> RfmThresholds:
    """Return the thresholds of a learned model.

    >>> learned_thresholds(Model(MODEL_KIND, 1, "h", {}, thresholds={"recency": (5, 6, 7, 8), "frequency": (1, 2, 2, 3),
    ...     "monetary": (100, 200, 300, 400)})).frequency
    (1, 2, 2, 3)
    """
    cuts = model.thresholds
    return RfmThresholds(
        tuple(sorted(cuts["recency"])), tuple(sorted(cuts["frequency"])), tuple(sorted(cuts["monetary"]))
    )


def rfm_cell(profile: ProfileFragment, thresholds: RfmThresholds, now: int) -> str:
    """Return the RFM cell of a person at `now` (ms); empty without orders.

    >>> day = 86_400_000
    >>> cuts = RfmThresholds((30 * day, 90 * day, 180 * day, 365 * day), (2, 3, 5, 10), (5000, 10000, 25000, 50000))
    >>> ann = ProfileFragment(order_count=4, revenue=18_000, last_order_at=100 * day)
    >>> rfm_cell(ann, cuts, 112 * day), rfm_cell(ann, cuts, 130 * day), rfm_cell(ProfileFragment(), cuts, 0)
    ('533', '433', '')
    """
    if profile.order_count <= 0:
        return ""
    recency = 5 - bisect_right(thresholds.recency, now - profile.last_order_at)
    frequency = 1 + bisect_right(thresholds.frequency, profile.order_count)
    money = 1 + bisect_right(thresholds.money, profile.revenue)
    return f"{recency}{frequency}{money}"


def next_recency_drop(profile: ProfileFragment, thresholds: RfmThresholds, now: int) -> int | None:
    """Return when recency falls next without a new order (ms); None at the lowest class."""
    if profile.order_count <= 0:
        return None
    last = profile.last_order_at
    fallen = bisect_right(thresholds.recency, now - last)
    if fallen == len(thresholds.recency):
        return None
    return max(now + 1, -int(-thresholds.recency[fallen] // 1) + last)
