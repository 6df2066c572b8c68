"""Segments over whole visits: the engine, which asks only what can have changed, against asking everything always.

Asked after every happening, at every instant at which time can turn something (and one millisecond before it), with
late news, with people who go to the store and come back, and with people who turn out to be one.
"""

from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import SegmentChange, ShardMessage
from domain.playbook.playbook import Playbook
from state.merge import build_merge_response, merge_into
from state.person import codec
from state.person.model import Coupon, Person
from tests.harness.person import T0, PersonHarness, make_playbook
from tests.harness.support import examples
from tests.models.conditions import Past, PastEvent, is_true
from tests.strategies.conditions import DURATIONS_MS, FUNNEL_STAGES, PREDICATE_KINDS, SHOP, conditions

PRODUCT = {"product_id": "p", "name": "Mug", "price": 9.5, "category": "a", "quantity": 1}
OTHER = {"product_id": "q", "name": "Bag", "price": "19.90", "category": "b", "quantity": 2, "sale": True}
LINES = [{"product_id": "p", "category": "a", "price": 30, "quantity": 2}]
EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Page Viewed", {}),
    ("Product Viewed", PRODUCT),
    ("Product Viewed", OTHER),
    ("Product Added", PRODUCT),
    ("Product Removed", PRODUCT),
    ("Products Searched", {"query": "tea"}),
    ("Cart Cleared", {}),
    ("Exit Intent", {}),
    ("Order Completed", {"order_id": "o", "total": 60, "products": LINES}),
    ("Order Completed", {"order_id": "o2", "total": 20, "price": 20, "quantity": 1}),
    ("Order Cancelled", {"order_id": "o"}),
    ("Identified", {"plan": "gold", "vip": True, "email": "x@shop.example"}),
    ("Consent Updated", {"marketing": False, "profiling": True}),
    ("Quiz Finished", {}),
    ("Quiz Finished", {"category": "Bags", "price": 0.1, "quantity": 3}),
    ("Quiz Finished", {"category": "Bags", "price": -10.5, "quantity": 1}),
    ("Offer Shown", {"campaign": "hello", "action_id": "1"}),
    ("Offer Shown", {"campaign": "hello", "action_id": "2"}),
    ("Offer Shown", {"campaign": "bye", "action_id": "3"}),
)
gaps = st.sampled_from([0, 400, 1_000, 30_000, 61_000, 1_800_000])


class HistoryStep(NamedTuple):
    """What happens next: how long after the last, what, how late we hear of it, whether the person rests after it."""

    gap: int
    what: tuple[str, dict[str, Any]]
    delay: int
    reload: bool


histories = st.lists(
    st.builds(
        HistoryStep, gaps, st.sampled_from(EVENTS), st.sampled_from([0, 0, 0, 500, 29_000, 45_000]), st.booleans()
    ),
    min_size=3,
    max_size=12,
)
segment_conditions = st.lists(conditions | st.one_of(list(PREDICATE_KINDS.values())), min_size=1, max_size=6)
BASE = {"did": {"event": "Product Viewed", "within": "30s"}}


class ModelComparison:
    """A visitor whose whole past is written down, and whose segments are held against it."""

    def __init__(self, plain: list[dict[str, Any]], name: str = "x") -> None:
        self.plain = plain
        self.harness = PersonHarness(segment_playbook(plain), anonymous_id=name, country="CA")
        self.harness.person.coupons = [
            Coupon("c", "ten", "reserved", T0, T0 + 60_000),
            Coupon("d", "five", "reserved", T0, T0 + 91_500),
        ]
        self.harness.after_each = self.check
        desks: dict[str, Person] = {}
        self.harness.context.sibling = lambda key: desks.setdefault(key, Person(id=key))
        self.past_events: Past = []
        self.orders: set[Any] = set()

    def check(self) -> None:
        """Who belongs where, asked from scratch (of who was never heard of, nobody asks)."""
        if not self.past_events:
            return
        person, now = self.harness.person, self.harness.now
        truth = {f"s{n}" for n, one in enumerate(self.plain) if is_true(one, person, now, self.past_events)}
        truth |= {"base"} if is_true(BASE, person, now, self.past_events) else set()
        for name in reversed(FUNNEL_STAGES):
            if is_true(FUNNEL_STAGES[name], person, now, self.past_events):
                truth.add("funnel_" + name)
                break
        assert {name for name in person.segments if not name.startswith("rfm_")} == truth, f"at {now - T0}"

    def emit(self, at: int, step: HistoryStep) -> None:
        """Something happens: an order that is known is no second one, but whoever tells of it is here."""
        visitor, (name, properties) = self.harness, step.what
        self.advance(at - 1)
        visitor.advance(at)
        order = properties.get("order_id") if name == "Order Completed" else None
        known = order is not None and order in self.orders
        self.orders |= {order} - {None}
        self.past_events.append(PastEvent(name + " (known)" * known, properties, T0 + at - step.delay))
        visitor.delay = step.delay
        visitor.emit(at, name, **properties)
        visitor.delay = 0
        self.check()
        if step.reload:
            visitor.store_and_reload()

    def advance(self, until: int) -> None:
        """Time passes: look at every instant at which something may turn, and one ms before it."""
        visitor = self.harness
        for at in self.check_times():
            if visitor.now - T0 < at <= until:
                visitor.advance(at)
                self.check()
        visitor.advance(max(until, visitor.now - T0))
        self.check()

    def check_times(self) -> list[int]:
        """Where time can turn something: by the past, and by what the engine itself means to look at."""
        person = self.harness.person
        began = {happened.at for happened in self.past_events} | {coupon.until - 90_000 for coupon in person.coupons}
        began |= {session.started_at for session in [person.session] if session is not None}
        found = {at + span for at in began for span in (*DURATIONS_MS, 89_000)} | set(person.timers.values())
        found |= {coupon.until - span for coupon in person.coupons for span in (0, *DURATIONS_MS)}
        return sorted({at - T0 - before for at in found for before in (1, 0)})


def segment_playbook(plain: list[dict[str, Any]]) -> Playbook:
    funnel = [{"name": name, "when": when} for name, when in FUNNEL_STAGES.items()]
    return make_playbook(
        shop={
            "consent": {"default": SHOP.consent.default, "purposes": SHOP.consent.purposes},
            "funnel": funnel,
            "rfm": {"recency": ["30s", "1m", "90s", "2m"], "frequency": [1, 2, 3, 4], "monetary": [10, 50, 70, 100]},
        },
        segments={"base": {"when": BASE}} | {f"s{n}": {"when": one} for n, one in enumerate(plain)},
        campaigns={name: {"trigger": {"event": "Never"}} for name in ("hello", "bye")},
    )


@given(segment_conditions, histories)
@settings(max_examples=examples(120), deadline=None)
def test_membership_is_exact_after_events_and_over_time(plain: Any, history: Any) -> None:
    watched, at = ModelComparison(plain), 0
    for news in history:
        at += news.gap
        watched.emit(at, news)
    watched.advance(at + 130_000)


@given(segment_conditions, histories, histories, histories)
@settings(max_examples=examples(60), deadline=None)
def test_merged_persons_have_the_segments_of_one(plain: Any, one: Any, other: Any, both: Any) -> None:
    browser, customer = ModelComparison(plain, "x"), ModelComparison(plain, "y")
    customer.harness.person = Person(id="u:ann")
    at = 0
    for n in range(max(len(one), len(other))):
        for who, history in ((browser, one), (customer, other)):
            if n < len(history):
                at += history[n].gap
                who.emit(at, history[n])
    browser.advance(at)
    customer.advance(at)
    joined = customer.harness
    merge_into(joined.person, build_merge_response(browser.harness.person), joined.now)
    customer.past_events = browser.past_events + customer.past_events
    customer.orders |= browser.orders
    joined._apply(
        f"shard-messages-0-{at}",
        joined.now,
        ShardMessage(kind="merge_response", sender="a:x", recipient="u:ann", seq=1),
    )
    for news in both:
        at += news.gap
        customer.emit(at, news)
    customer.advance(at + 130_000)


@given(segment_conditions, histories)
@settings(max_examples=examples(60), deadline=None)
def test_cached_state_does_not_change_results(plain: Any, history: Any) -> None:
    segments = segment_playbook(plain)
    campaigns = make_playbook(
        campaigns={
            f"c{n}": {"trigger": trigger, "when": one, "format": ("popup", "bar")[n % 2]}
            for n, one in enumerate(plain)
            for trigger in [({"exit_intent": True}, {"seconds_on_site": 30}, {"event": "Product Added"})[n % 3]]
        }
    )
    whole = Playbook(segments.shop, segments.segments, campaigns.campaigns)
    hot, cold = PersonHarness(whole), PersonHarness(whole)
    at = 0
    for news in history:
        at += news.gap
        name, properties = news.what
        hot.delay = cold.delay = news.delay
        hot.emit(at, name, **properties)
        cold.store_and_reload()
        cold.emit(at, name, **properties)
    cold.store_and_reload()
    assert hot.advance(at + 200_000) == cold.advance(at + 200_000)
    assert hot.actions == cold.actions
    assert hot.fired == cold.fired
    assert codec.encode(hot.person) == codec.encode(cold.person)


# -- to the millisecond --------------------------------------------------------------------------------------------


def changes_of(harness: PersonHarness) -> list[tuple[int, bool]]:
    return [(move.at - T0, move.entered) for move in harness.actions if isinstance(move, SegmentChange)]


def person_with_segment(**when: Any) -> PersonHarness:
    """A visitor with one segment to belong to."""
    return PersonHarness(make_playbook(segments={"there": {"when": when}}))


def test_entry_and_exit_are_exact_to_the_millisecond() -> None:
    visitor = person_with_segment(session={"seconds_at_least": 30}, did={"event": "Product Viewed", "within": "1m"})
    visitor.emit(0, "Page Viewed")
    visitor.emit(12_345, "Product Viewed", **PRODUCT)
    visitor.advance(29_999)
    assert visitor.actions == []
    visitor.advance(72_344)
    assert changes_of(visitor) == [(30_000, True)]
    visitor.advance(72_345)
    assert changes_of(visitor) == [(30_000, True), (72_345, False)]


def test_window_ends_when_the_oldest_event_leaves() -> None:
    visitor = person_with_segment(did={"event": "Product Viewed", "at_least": 3, "within": "1m"})
    for at in (0, 10_000, 20_000, 50_000):
        visitor.emit(at, "Product Viewed", **PRODUCT)
    visitor.advance(69_999)
    assert changes_of(visitor) == [(20_000, True)]
    visitor.advance(600_000)
    assert changes_of(visitor) == [(20_000, True), (70_000, False)]


def test_late_event_is_counted_at_its_event_time() -> None:
    visitor = person_with_segment(did={"event": "Product Viewed", "at_least": 2, "within": "1m"})
    visitor.emit(50_000, "Product Viewed", **PRODUCT)
    visitor.delay = 45_000
    visitor.emit(55_000, "Product Viewed", **PRODUCT)
    visitor.delay = 0
    visitor.advance(600_000)
    assert changes_of(visitor) == [(55_000, True), (70_000, False)]


def test_windowed_sum_falls_as_orders_leave_it() -> None:
    visitor = person_with_segment(
        did={"event": "Order Completed", "within": "1h", "sum": {"of": "total", "at_least": 60}}
    )
    for n, (at, total) in enumerate(((0, 20.10), (60_000, 19.90), (120_000, 20), (180_000, 20))):
        visitor.emit(at, "Order Completed", order_id=f"o{n}", total=total)
    visitor.advance(3_599_999)
    assert changes_of(visitor) == [(120_000, True)]
    visitor.advance(3_600_000)
    assert changes_of(visitor) == [(120_000, True), (3_600_000, False)]


def test_sum_below_becomes_true_again_over_time() -> None:
    visitor = person_with_segment(did={"event": "Order Completed", "within": "1h", "sum": {"of": "total", "below": 50}})
    for n, at in enumerate((0, 60_000)):
        visitor.emit(at, "Order Completed", order_id=f"o{n}", total=30)
    visitor.advance(10_000_000)
    assert changes_of(visitor) == [(0, True), (60_000, False), (3_600_000, True), (3_660_000, False)]


def test_did_not_becomes_true_over_time() -> None:
    visitor = person_with_segment(
        did_not={"event": "Product Viewed", "at_least": 2, "within": "1m"}, has={"country": "IT"}
    )
    for at in (0, 1_000, 2_000):
        visitor.emit(at, "Product Viewed", **PRODUCT)
    visitor.advance(600_000)
    assert changes_of(visitor) == [(0, True), (1_000, False), (61_000, True)]


def test_windowed_sequence() -> None:
    visitor = person_with_segment(
        sequence={
            "steps": [{"event": "Product Viewed", "where": {"category": "a"}}, "Product Added", "Order Completed"],
            "within": "1m",
            "last_within": "2m",
        }
    )
    visitor.emit(0, "Product Viewed", **PRODUCT)
    visitor.emit(10_000, "Product Added", **PRODUCT)
    visitor.emit(60_000, "Order Completed", order_id="late", total=1)
    assert changes_of(visitor) == []
    visitor.emit(61_000, "Product Viewed", **PRODUCT)
    visitor.emit(62_000, "Product Viewed", **OTHER)
    visitor.emit(63_000, "Product Added", **OTHER)
    visitor.emit(120_999, "Order Completed", order_id="soon", total=1)
    visitor.advance(600_000)
    assert changes_of(visitor) == [(120_999, True), (240_999, False)]


def test_completed_sequence_survives_evicted_step_times() -> None:
    visitor = person_with_segment(sequence={"steps": ["Product Added", "Exit Intent"], "within": "1m"})
    visitor.emit(0, "Product Added", **PRODUCT)
    visitor.emit(1_000, "Exit Intent")
    for n in range(150):
        visitor.emit(100_000 + n * 1_000, "Product Added", **PRODUCT)
    visitor.store_and_reload()
    visitor.emit(900_000, "Product Added", **PRODUCT)
    assert changes_of(visitor) == [(1_000, True)]


def test_sequence_completes_across_merged_ids() -> None:
    browser, visitor = (
        PersonHarness(make_playbook()),
        person_with_segment(sequence={"steps": ["Product Added", "Exit Intent"], "within": "1m"}),
    )
    browser.context.rules = visitor.context.rules
    browser.emit(0, "Product Added", **PRODUCT)
    visitor.person = Person(id="u:ann")
    visitor.emit(1_000, "Exit Intent")
    assert changes_of(visitor) == []
    merge_into(visitor.person, build_merge_response(browser.person), visitor.now)
    visitor._apply(
        "shard-messages-0-1", T0 + 2_000, ShardMessage(kind="merge_response", sender="a:x", recipient="u:ann", seq=1)
    )
    assert changes_of(visitor) == [(2_000, True)]


def test_sum_with_refunds_rises_and_falls_over_time() -> None:
    visitor = person_with_segment(did={"event": "Paid", "within": "1m", "sum": {"of": "amount", "at_least": 10}})
    for at, amount in ((0, -5), (10_000, 8), (20_000, 4)):
        visitor.emit(at, "Paid", amount=amount)
    visitor.advance(600_000)
    assert changes_of(visitor) == [(60_000, True), (70_000, False)]


def test_did_after_is_reevaluated_on_the_reference_event() -> None:
    visitor = person_with_segment(did={"event": "Product Added", "after": "Order Completed"})
    for at, name in (
        (0, "Product Added"),
        (1_000, "Order Completed"),
        (2_000, "Product Added"),
        (3_000, "Order Completed"),
    ):
        visitor.emit(at, name, **({"order_id": str(at), "total": 1} if name == "Order Completed" else PRODUCT))
    assert changes_of(visitor) == [(2_000, True), (3_000, False)]


def test_funnel_at_least_follows_every_stage() -> None:
    funnel = [
        {"name": name, "when": {"did": {"event": event, "within": "1m"}}}
        for name, event in (("looks", "Page Viewed"), ("wants", "Product Added"), ("has", "Exit Intent"))
    ]
    there = {"when": {"funnel": {"at_least": "wants"}}}
    visitor = PersonHarness(make_playbook(shop={"funnel": funnel}, segments={"there": there}))
    visitor.emit(0, "Page Viewed")
    visitor.emit(1_000, "Product Added", **PRODUCT)
    visitor.emit(2_000, "Exit Intent")
    visitor.advance(61_999)
    assert "there" in visitor.person.segments
    visitor.advance(62_000)
    assert "there" not in visitor.person.segments


def test_session_order_and_session_end_are_detected() -> None:
    before, after = person_with_segment(session={"ordered": False}), person_with_segment(session={"ordered": True})
    for visitor in (before, after):
        visitor.emit(0, "Page Viewed")
        visitor.emit(1_000, "Order Completed", order_id="o", total=1)
        visitor.advance(3_600_000)
        visitor.emit(3_600_000, "Page Viewed")
        visitor.advance(7_200_000)
    assert changes_of(after) == [(1_000, True), (1_801_000, False)]
    assert changes_of(before) == [(0, True), (1_000, False), (3_600_000, True), (5_400_000, False)]


def test_rfm_cell_changes_are_detected() -> None:
    cuts = {"recency": ["1m", "2m", "3m", "4m"], "frequency": [1, 2, 3, 4], "monetary": [1, 2, 3, 4]}
    visitor = PersonHarness(
        make_playbook(shop={"rfm": cuts}, segments={"there": {"when": {"rfm": {"recency_at_least": 5}}}})
    )
    visitor.emit(0, "Page Viewed")
    visitor.emit(1_000, "Order Completed", order_id="o", total=1)
    visitor.advance(600_000)
    assert [
        move.at - T0 for move in visitor.actions if isinstance(move, SegmentChange) and move.segment == "there"
    ] == [1_000, 61_000]


def test_coupon_ends_at_its_last_millisecond() -> None:
    visitor = person_with_segment(holds_coupon={"pool": "ten", "expires_within": "10s"})
    visitor.person.coupons.append(Coupon("c", "ten", "reserved", T0, T0 + 60_000))
    visitor.emit(0, "Page Viewed")
    visitor.advance(600_000)
    assert changes_of(visitor) == [(50_000, True), (60_000, False)]


def test_returning_person_was_seen_recently() -> None:
    visitor = person_with_segment(has={"last_seen_before": "7d"})
    day = 86_400_000
    visitor.emit(0, "Page Viewed")
    visitor.emit(3 * day, "Identified", plan="gold")  # we hear of them, they are not here
    visitor.emit(8 * day, "Page Viewed")
    visitor.advance(9 * day)
    assert changes_of(visitor) == [(7 * day, True), (8 * day, False)]


def test_one_timer_regardless_of_event_count() -> None:
    visitor = PersonHarness(
        make_playbook(segments={"lately": {"when": {"did": {"event": "Page Viewed", "within": "7d"}}}})
    )
    for n in range(100):
        visitor.emit(n * 1_000, "Page Viewed")
    assert list(visitor.person.timers) == ["session_end:", "segment:lately"]
    assert visitor.person.timers["segment:lately"] == T0 + 7 * 86_400_000
    visitor.advance(7 * 86_400_000 + 98_999)
    assert "lately" in visitor.person.segments
    visitor.advance(7 * 86_400_000 + 99_000)
    assert "lately" not in visitor.person.segments
    assert visitor.fired[-2:] == [(7 * 86_400_000, "segment:lately"), (7 * 86_400_000 + 99_000, "segment:lately")]


def test_earlier_change_moves_the_timer_forward() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "slow": {"when": {"any": [{"session": {"seconds_at_least": 600}}, {"cart": {"untouched_for": "10s"}}]}}
            }
        )
    )
    visitor.emit(0, "Page Viewed")
    assert visitor.person.timers["segment:slow"] == T0 + 600_000
    visitor.emit(1_000, "Product Added", **PRODUCT)
    assert visitor.person.timers["segment:slow"] == T0 + 11_000
    visitor.advance(11_000)
    assert "slow" in visitor.person.segments
