"""Segments over whole visits: the engine, which asks only what can have changed, against asking everything always.

Asked after every happening, at every instant at which time can turn something (and one millisecond before it), with
late news, with people who go to the store and come back, and with people who turn out to be one.
"""

from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Move
from domain.letter import Letter
from domain.playbook import Playbook
from state import codec
from state.merge import absorb, hand_over
from state.person import Coupon, Person
from tests.arbitrary import KINDS, SHOP, SPANS, STAGES, conditions
from tests.naive import Happened, Past, naive
from tests.support import examples
from tests.visitor import T0, Visitor, playbook

PRODUCT = {"product_id": "p", "name": "Mug", "price": 9.5, "category": "a", "quantity": 1}
OTHER = {"product_id": "q", "name": "Bag", "price": "19.90", "category": "b", "quantity": 2, "sale": True}
LINES = [{"product_id": "p", "category": "a", "price": 30, "quantity": 2}]
HAPPENINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Page Viewed", {}), ("Product Viewed", PRODUCT), ("Product Viewed", OTHER), ("Product Added", PRODUCT),
    ("Product Removed", PRODUCT), ("Products Searched", {"query": "tea"}), ("Cart Cleared", {}), ("Exit Intent", {}),
    ("Order Completed", {"order_id": "o", "total": 60, "products": LINES}),
    ("Order Completed", {"order_id": "o2", "total": 20, "price": 20, "quantity": 1}),
    ("Order Cancelled", {"order_id": "o"}),
    ("Identified", {"plan": "gold", "vip": True, "email": "x@shop.example"}),
    ("Consent Updated", {"marketing": False, "profiling": True}),
    ("Quiz Finished", {}), ("Quiz Finished", {"category": "Bags", "price": 0.1, "quantity": 3}),
    ("Quiz Finished", {"category": "Bags", "price": -10.5, "quantity": 1}),
    ("Offer Shown", {"campaign": "hello", "action_id": "1"}), ("Offer Shown", {"campaign": "hello", "action_id": "2"}),
    ("Offer Shown", {"campaign": "bye", "action_id": "3"}),
)
gaps = st.sampled_from([0, 400, 1_000, 30_000, 61_000, 1_800_000])


class Told(NamedTuple):
    """What happens next: how long after the last, what, how late we hear of it, whether the person rests after it."""

    gap: int
    what: tuple[str, dict[str, Any]]
    late: int
    rests: bool


histories = st.lists(st.builds(
    Told, gaps, st.sampled_from(HAPPENINGS), st.sampled_from([0, 0, 0, 500, 29_000, 45_000]), st.booleans()),
    min_size=3, max_size=12)
questions = st.lists(conditions | st.one_of(list(KINDS.values())), min_size=1, max_size=6)
BASE = {"did": {"event": "Product Viewed", "within": "30s"}}


class Watched:
    """A visitor whose whole past is written down, and whose segments are held against it."""

    def __init__(self, plain: list[dict[str, Any]], name: str = "x") -> None:
        self.plain = plain
        self.visitor = Visitor(segments_of(plain), name=name, country="CA")
        self.visitor.person.coupons = [Coupon("c", "ten", "reserved", T0, T0 + 60_000),
                                       Coupon("d", "five", "reserved", T0, T0 + 91_500)]
        self.visitor.after = self.check
        desks: dict[str, Person] = {}
        self.visitor.context.neighbour = lambda key: desks.setdefault(key, Person(id=key))
        self.past: Past = []
        self.orders: set[Any] = set()

    def check(self) -> None:
        """Who belongs where, asked from scratch (of who was never heard of, nobody asks)."""
        if not self.past:
            return
        person, now = self.visitor.person, self.visitor.now
        truth = {f"s{n}" for n, one in enumerate(self.plain) if naive(one, person, now, self.past)}
        truth |= {"base"} if naive(BASE, person, now, self.past) else set()
        for name in reversed(STAGES):
            if naive(STAGES[name], person, now, self.past):
                truth.add("funnel_" + name)
                break
        assert {name for name in person.segments if not name.startswith("rfm_")} == truth, f"at {now - T0}"

    def told(self, at: int, news: Told) -> None:
        """Something happens: an order that is known is no second one, but whoever tells of it is here."""
        visitor, (name, properties) = self.visitor, news.what
        self.waits(at - 1)
        visitor.waits(at)
        order = properties.get("order_id") if name == "Order Completed" else None
        known = order is not None and order in self.orders
        self.orders |= {order} - {None}
        self.past.append(Happened(name + " (known)" * known, properties, T0 + at - news.late))
        visitor.late = news.late
        visitor.does(at, name, **properties)
        visitor.late = 0
        self.check()
        if news.rests:
            visitor.rests()

    def waits(self, until: int) -> None:
        """Time passes: look at every instant at which something may turn, and one ms before it."""
        visitor = self.visitor
        for at in self.turns():
            if visitor.now - T0 < at <= until:
                visitor.waits(at)
                self.check()
        visitor.waits(max(until, visitor.now - T0))
        self.check()

    def turns(self) -> list[int]:
        """Where time can turn something: by the past, and by what the engine itself means to look at."""
        person = self.visitor.person
        began = {happened.at for happened in self.past} | {coupon.until - 90_000 for coupon in person.coupons}
        began |= {session.started_at for session in [person.session] if session is not None}
        found = {at + span for at in began for span in (*SPANS, 89_000)} | set(person.timers.values())
        found |= {coupon.until - span for coupon in person.coupons for span in (0, *SPANS)}
        return sorted({at - T0 - before for at in found for before in (1, 0)})


def segments_of(plain: list[dict[str, Any]]) -> Playbook:
    funnel = [{"name": name, "when": when} for name, when in STAGES.items()]
    return playbook(
        shop={"consent": {"default": SHOP.consent.default, "purposes": SHOP.consent.purposes}, "funnel": funnel,
              "rfm": {"recency": ["30s", "1m", "90s", "2m"], "frequency": [1, 2, 3, 4], "money": [10, 50, 70, 100]}},
        segments={"base": {"when": BASE}} | {f"s{n}": {"when": one} for n, one in enumerate(plain)},
        campaigns={name: {"trigger": {"event": "Never"}} for name in ("hello", "bye")})


@given(questions, histories)
@settings(max_examples=examples(120), deadline=None)
def test_membership_is_true_after_every_happening_and_at_every_turn_between(plain: Any, history: Any) -> None:
    watched, at = Watched(plain), 0
    for news in history:
        at += news.gap
        watched.told(at, news)
    watched.waits(at + 130_000)


@given(questions, histories, histories, histories)
@settings(max_examples=examples(60), deadline=None)
def test_two_who_turn_out_to_be_one_belong_where_one_would(plain: Any, one: Any, other: Any, both: Any) -> None:
    browser, customer = Watched(plain, "x"), Watched(plain, "y")
    customer.visitor.person = Person(id="u:ann")
    at = 0
    for n in range(max(len(one), len(other))):
        for who, history in ((browser, one), (customer, other)):
            if n < len(history):
                at += history[n].gap
                who.told(at, history[n])
    browser.waits(at)
    customer.waits(at)
    joined = customer.visitor
    absorb(joined.person, hand_over(browser.visitor.person), joined.now)
    customer.past = browser.past + customer.past
    customer.orders |= browser.orders
    joined._run(f"letters-0-{at}", joined.now, Letter(kind="handover", sender="a:x", to="u:ann", seq=1))
    for news in both:
        at += news.gap
        customer.told(at, news)
    customer.waits(at + 130_000)


@given(questions, histories)
@settings(max_examples=examples(60), deadline=None)
def test_what_is_kept_in_memory_changes_nothing(plain: Any, history: Any) -> None:
    segments = segments_of(plain)
    campaigns = playbook(campaigns={
        f"c{n}": {"trigger": trigger, "when": one, "format": ("popup", "bar")[n % 2]}
        for n, one in enumerate(plain)
        for trigger in [({"exit_intent": True}, {"seconds_on_site": 30}, {"event": "Product Added"})[n % 3]]})
    whole = Playbook(segments.shop, segments.segments, campaigns.campaigns)
    hot, cold = Visitor(whole), Visitor(whole)
    at = 0
    for news in history:
        at += news.gap
        name, properties = news.what
        hot.late = cold.late = news.late
        hot.does(at, name, **properties)
        cold.rests()
        cold.does(at, name, **properties)
    cold.rests()
    assert hot.waits(at + 200_000) == cold.waits(at + 200_000)
    assert hot.actions == cold.actions
    assert hot.fired == cold.fired
    assert codec.encode(hot.person) == codec.encode(cold.person)


# -- to the millisecond --------------------------------------------------------------------------------------------


def moves(visitor: Visitor) -> list[tuple[int, bool]]:
    return [(move.at - T0, move.entered) for move in visitor.actions if isinstance(move, Move)]


def lone(**when: Any) -> Visitor:
    """A visitor with one segment to belong to."""
    return Visitor(playbook(segments={"there": {"when": when}}))


def test_entry_and_exit_are_to_the_millisecond() -> None:
    visitor = lone(session={"seconds_at_least": 30}, did={"event": "Product Viewed", "within": "1m"})
    visitor.does(0, "Page Viewed")
    visitor.does(12_345, "Product Viewed", **PRODUCT)
    visitor.waits(29_999)
    assert visitor.actions == []
    visitor.waits(72_344)
    assert moves(visitor) == [(30_000, True)]
    visitor.waits(72_345)
    assert moves(visitor) == [(30_000, True), (72_345, False)]


def test_of_three_within_a_minute_the_oldest_ends_it() -> None:
    visitor = lone(did={"event": "Product Viewed", "at_least": 3, "within": "1m"})
    for at in (0, 10_000, 20_000, 50_000):
        visitor.does(at, "Product Viewed", **PRODUCT)
    visitor.waits(69_999)
    assert moves(visitor) == [(20_000, True)]
    visitor.waits(600_000)
    assert moves(visitor) == [(20_000, True), (70_000, False)]


def test_late_news_takes_its_place_in_the_window() -> None:
    visitor = lone(did={"event": "Product Viewed", "at_least": 2, "within": "1m"})
    visitor.does(50_000, "Product Viewed", **PRODUCT)
    visitor.late = 45_000
    visitor.does(55_000, "Product Viewed", **PRODUCT)
    visitor.late = 0
    visitor.waits(600_000)
    assert moves(visitor) == [(55_000, True), (70_000, False)]


def test_a_sum_within_a_time_falls_as_the_orders_leave_it() -> None:
    visitor = lone(did={"event": "Order Completed", "within": "1h", "sum": {"of": "total", "at_least": 60}})
    for n, (at, total) in enumerate(((0, 20.10), (60_000, 19.90), (120_000, 20), (180_000, 20))):
        visitor.does(at, "Order Completed", order_id=f"o{n}", total=total)
    visitor.waits(3_599_999)
    assert moves(visitor) == [(120_000, True)]
    visitor.waits(3_600_000)
    assert moves(visitor) == [(120_000, True), (3_600_000, False)]


def test_a_sum_that_must_stay_below_is_entered_again_as_time_passes() -> None:
    visitor = lone(did={"event": "Order Completed", "within": "1h", "sum": {"of": "total", "below": 50}})
    for n, at in enumerate((0, 60_000)):
        visitor.does(at, "Order Completed", order_id=f"o{n}", total=30)
    visitor.waits(10_000_000)
    assert moves(visitor) == [(0, True), (60_000, False), (3_600_000, True), (3_660_000, False)]


def test_what_was_not_done_so_often_becomes_true_by_waiting() -> None:
    visitor = lone(did_not={"event": "Product Viewed", "at_least": 2, "within": "1m"}, has={"country": "IT"})
    for at in (0, 1_000, 2_000):
        visitor.does(at, "Product Viewed", **PRODUCT)
    visitor.waits(600_000)
    assert moves(visitor) == [(0, True), (1_000, False), (61_000, True)]


def test_a_sequence_within_a_time() -> None:
    visitor = lone(sequence={"steps": [{"event": "Product Viewed", "where": {"category": "a"}}, "Product Added",
                                       "Order Completed"], "within": "1m", "last_within": "2m"})
    visitor.does(0, "Product Viewed", **PRODUCT)
    visitor.does(10_000, "Product Added", **PRODUCT)
    visitor.does(60_000, "Order Completed", order_id="late", total=1)
    assert moves(visitor) == []
    visitor.does(61_000, "Product Viewed", **PRODUCT)
    visitor.does(62_000, "Product Viewed", **OTHER)
    visitor.does(63_000, "Product Added", **OTHER)
    visitor.does(120_999, "Order Completed", order_id="soon", total=1)
    visitor.waits(600_000)
    assert moves(visitor) == [(120_999, True), (240_999, False)]


def test_what_was_done_in_order_stays_done_when_the_times_of_its_steps_fall_out() -> None:
    visitor = lone(sequence={"steps": ["Product Added", "Exit Intent"], "within": "1m"})
    visitor.does(0, "Product Added", **PRODUCT)
    visitor.does(1_000, "Exit Intent")
    for n in range(150):
        visitor.does(100_000 + n * 1_000, "Product Added", **PRODUCT)
    visitor.rests()
    visitor.does(900_000, "Product Added", **PRODUCT)
    assert moves(visitor) == [(1_000, True)]


def test_a_sequence_begun_under_one_id_is_completed_under_another() -> None:
    browser, visitor = Visitor(playbook()), lone(sequence={"steps": ["Product Added", "Exit Intent"], "within": "1m"})
    browser.context.rules = visitor.context.rules
    browser.does(0, "Product Added", **PRODUCT)
    visitor.person = Person(id="u:ann")
    visitor.does(1_000, "Exit Intent")
    assert moves(visitor) == []
    absorb(visitor.person, hand_over(browser.person), visitor.now)
    visitor._run("letters-0-1", T0 + 2_000, Letter(kind="handover", sender="a:x", to="u:ann", seq=1))
    assert moves(visitor) == [(2_000, True)]


def test_a_sum_with_refunds_in_it_rises_and_falls_by_waiting() -> None:
    visitor = lone(did={"event": "Paid", "within": "1m", "sum": {"of": "amount", "at_least": 10}})
    for at, amount in ((0, -5), (10_000, 8), (20_000, 4)):
        visitor.does(at, "Paid", amount=amount)
    visitor.waits(600_000)
    assert moves(visitor) == [(60_000, True), (70_000, False)]


def test_what_was_done_after_is_asked_again_when_the_other_event_comes() -> None:
    visitor = lone(did={"event": "Product Added", "after": "Order Completed"})
    for at, name in ((0, "Product Added"), (1_000, "Order Completed"), (2_000, "Product Added"),
                     (3_000, "Order Completed")):
        visitor.does(at, name, **({"order_id": str(at), "total": 1} if name == "Order Completed" else PRODUCT))
    assert moves(visitor) == [(2_000, True), (3_000, False)]


def test_a_stage_or_a_later_one_follows_every_stage() -> None:
    funnel = [{"name": name, "when": {"did": {"event": event, "within": "1m"}}}
              for name, event in (("looks", "Page Viewed"), ("wants", "Product Added"), ("has", "Exit Intent"))]
    there = {"when": {"funnel": {"at_least": "wants"}}}
    visitor = Visitor(playbook(shop={"funnel": funnel}, segments={"there": there}))
    visitor.does(0, "Page Viewed")
    visitor.does(1_000, "Product Added", **PRODUCT)
    visitor.does(2_000, "Exit Intent")
    visitor.waits(61_999)
    assert "there" in visitor.person.segments
    visitor.waits(62_000)
    assert "there" not in visitor.person.segments


def test_an_order_in_the_visit_and_the_end_of_the_visit_are_noticed() -> None:
    before, after = lone(session={"ordered": False}), lone(session={"ordered": True})
    for visitor in (before, after):
        visitor.does(0, "Page Viewed")
        visitor.does(1_000, "Order Completed", order_id="o", total=1)
        visitor.waits(3_600_000)
        visitor.does(3_600_000, "Page Viewed")
        visitor.waits(7_200_000)
    assert moves(after) == [(1_000, True), (1_801_000, False)]
    assert moves(before) == [(0, True), (1_000, False), (3_600_000, True), (5_400_000, False)]


def test_a_cell_that_changes_is_noticed_at_once_and_when_it_falls() -> None:
    cuts = {"recency": ["1m", "2m", "3m", "4m"], "frequency": [1, 2, 3, 4], "money": [1, 2, 3, 4]}
    visitor = Visitor(playbook(shop={"rfm": cuts}, segments={"there": {"when": {"rfm": {"recency_at_least": 5}}}}))
    visitor.does(0, "Page Viewed")
    visitor.does(1_000, "Order Completed", order_id="o", total=1)
    visitor.waits(600_000)
    assert [move.at - T0 for move in visitor.actions if isinstance(move, Move) and move.segment == "there"] == [
        1_000, 61_000]


def test_a_coupon_ends_at_its_last_millisecond() -> None:
    visitor = lone(holds_coupon={"pool": "ten", "ends_within": "10s"})
    visitor.person.coupons.append(Coupon("c", "ten", "reserved", T0, T0 + 60_000))
    visitor.does(0, "Page Viewed")
    visitor.waits(600_000)
    assert moves(visitor) == [(50_000, True), (60_000, False)]


def test_who_comes_back_was_seen_just_now() -> None:
    visitor = lone(has={"last_seen_before": "7d"})
    day = 86_400_000
    visitor.does(0, "Page Viewed")
    visitor.does(3 * day, "Identified", plan="gold")  # we hear of them, they are not here
    visitor.does(8 * day, "Page Viewed")
    visitor.waits(9 * day)
    assert moves(visitor) == [(7 * day, True), (8 * day, False)]


def test_one_timer_at_a_time_however_many_events() -> None:
    visitor = Visitor(playbook(segments={"lately": {"when": {"did": {"event": "Page Viewed", "within": "7d"}}}}))
    for n in range(100):
        visitor.does(n * 1_000, "Page Viewed")
    assert list(visitor.person.timers) == ["session_end:", "segment:lately"]
    assert visitor.person.timers["segment:lately"] == T0 + 7 * 86_400_000
    visitor.waits(7 * 86_400_000 + 98_999)
    assert "lately" in visitor.person.segments
    visitor.waits(7 * 86_400_000 + 99_000)
    assert "lately" not in visitor.person.segments
    assert visitor.fired[-2:] == [(7 * 86_400_000, "segment:lately"), (7 * 86_400_000 + 99_000, "segment:lately")]


def test_what_is_due_sooner_does_not_wait_for_a_timer_that_was_set_for_later() -> None:
    visitor = Visitor(playbook(segments={"slow": {"when": {"any": [
        {"session": {"seconds_at_least": 600}}, {"cart": {"untouched_for": "10s"}}]}}}))
    visitor.does(0, "Page Viewed")
    assert visitor.person.timers["segment:slow"] == T0 + 600_000
    visitor.does(1_000, "Product Added", **PRODUCT)
    assert visitor.person.timers["segment:slow"] == T0 + 11_000
    visitor.waits(11_000)
    assert "slow" in visitor.person.segments
