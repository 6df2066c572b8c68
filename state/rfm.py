"""RFM: the cell of a customer, from how lately, how often and for how much they order.

    last order 12 days ago, 4 orders, 180.00  ──▶  "543": recency 5, frequency 4, money 3, each from 1 to 5

The cuts are the shop's own, or fifths of all its customers (`state/quintiles.py`). Recency falls as time passes: at the
very moment `next_fall`, the others only with an order, a refund or a cancellation.
"""

from bisect import bisect_right
from typing import NamedTuple

from domain.duration import parse
from domain.model import Model
from domain.money import to_minor
from domain.shop import Shop
from state.person import Facts

KIND = "rfm"
"""What the learned cuts are called among the models, and what is told of customers among the outcomes."""


class Cuts(NamedTuple):
    """Where classes begin, each row rising.

    `recency`: the last order is less than this long ago (ms): class 5, 4, 3, 2. `frequency` and `money` (orders, minor
    units): at least this: class 2, 3, 4, 5. `learned`: they stand in until there are learned ones.
    """

    recency: tuple[float, ...]
    frequency: tuple[float, ...]
    money: tuple[float, ...]
    learned: bool = False


def declared_cuts(shop: Shop) -> Cuts | None:
    """The cuts that the shop declares; None when it has none."""
    rfm = shop.rfm
    if rfm is None:
        return None
    return Cuts(tuple(sorted([parse(span) for span in rfm.recency])), tuple(sorted(rfm.frequency)),
                tuple(sorted([to_minor(amount, shop.currency) for amount in rfm.money])), rfm.learned)


def learned_cuts(model: Model) -> Cuts:
    """The cuts of a learned model.

    >>> learned_cuts(Model(KIND, 1, "h", {}, cuts={"recency": (5, 6, 7, 8), "frequency": (1, 2, 2, 3),
    ...     "money": (100, 200, 300, 400)})).frequency
    (1, 2, 2, 3)
    """
    cuts = model.cuts
    return Cuts(tuple(sorted(cuts["recency"])), tuple(sorted(cuts["frequency"])), tuple(sorted(cuts["money"])))


def cell(facts: Facts, cuts: Cuts, now: int) -> str:
    """The cell of somebody at `now` (ms); empty for who has no orders.

    >>> day = 86_400_000
    >>> cuts = Cuts((30 * day, 90 * day, 180 * day, 365 * day), (2, 3, 5, 10), (5000, 10000, 25000, 50000))
    >>> ann = Facts(order_count=4, revenue=18_000, last_order_at=100 * day)
    >>> cell(ann, cuts, 112 * day), cell(ann, cuts, 130 * day), cell(Facts(), cuts, 0)
    ('533', '433', '')
    """
    if facts.order_count <= 0:
        return ""
    recency = 5 - bisect_right(cuts.recency, now - facts.last_order_at)
    frequency = 1 + bisect_right(cuts.frequency, facts.order_count)
    money = 1 + bisect_right(cuts.money, facts.revenue)
    return f"{recency}{frequency}{money}"


def next_fall(facts: Facts, cuts: Cuts, now: int) -> int | None:
    """When, if no order comes, recency falls next (ms); None when it cannot fall any more."""
    if facts.order_count <= 0:
        return None
    last = facts.last_order_at
    fallen = bisect_right(cuts.recency, now - last)
    if fallen == len(cuts.recency):
        return None
    return max(now + 1, -int(-cuts.recency[fallen] // 1) + last)
