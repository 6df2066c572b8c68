"""Segment rules: segments made ready to be matched."""

from domain.segment import Segment
from domain.shop import Shop
from state.conditions import Compiled
from state.occasions import StaticRule
from state.ways import Way, ways


class SegmentRule:
    """A segment made ready. `order` puts segments behind those they refer to; `static` is there for a static one."""

    __slots__ = ("explain", "holds", "name", "need", "needs", "next_change", "order", "static", "timed", "timer",
                 "ways")

    def __init__(
        self, segment: Segment, when: Compiled, order: int, shop: Shop, static: StaticRule | None = None,
    ) -> None:
        self.name = segment.name
        self.static = static
        self.order = order
        self.holds = when.holds
        self.next_change = when.next_change
        self.explain = when.explain
        self.timed = when.timed
        self.needs = when.needs if static is None else static.needs
        self.ways: tuple[Way, ...] = ways(segment.when, shop) if static is None else ((),)
        self.need = self.timer = "segment:" + segment.name
