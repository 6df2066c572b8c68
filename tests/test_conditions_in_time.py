"""Segments over whole visits: the engine, which asks only what can have changed, against asking everything always."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Move
from domain.playbook import Playbook
from state import codec
from tests.naive import SHOP, conditions, naive
from tests.visitor import T0, Visitor, playbook

PRODUCT = {"product_id": "p", "name": "Mug", "price": 9.5, "category": "a", "quantity": 1}
HAPPENINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Page Viewed", {}), ("Product Viewed", PRODUCT), ("Product Added", PRODUCT), ("Product Removed", PRODUCT),
    ("Products Searched", {"query": "tea"}), ("Cart Cleared", {}), ("Exit Intent", {}),
    ("Order Completed", {"order_id": "o", "total": 60}), ("Identified", {"plan": "gold", "vip": True}),
    ("Consent Updated", {"marketing": False, "profiling": True}), ("Quiz Finished", {}),
)
gaps = st.sampled_from([0, 400, 1_000, 30_000, 61_000, 1_800_000])
histories = st.lists(st.tuples(gaps, st.sampled_from(HAPPENINGS)), min_size=1, max_size=12)


def truth(plain: list[dict[str, Any]], visitor: Visitor) -> set[str]:
    """Who belongs where, asked from scratch."""
    return {f"s{n}" for n, one in enumerate(plain) if naive(one, visitor.person, visitor.now)}


def segments_of(plain: list[dict[str, Any]]) -> Playbook:
    return playbook(shop={"consent": {"default": SHOP.consent.default, "purposes": SHOP.consent.purposes}},
                    segments={f"s{n}": {"when": one} for n, one in enumerate(plain)})


@given(st.lists(conditions, min_size=1, max_size=4), histories)
@settings(max_examples=150, deadline=None)
def test_membership_is_true_after_every_happening_and_at_every_half_second_between(plain: Any, history: Any) -> None:
    visitor = Visitor(segments_of(plain), country="CA")

    def check() -> None:
        assert set(visitor.person.segments) == truth(plain, visitor)

    visitor.after = check
    at = 0
    for gap, (name, properties) in history:
        at += gap
        visitor.does(at, name, **properties)
    for later in range(at, at + 130_000, 500):
        visitor.waits(later)
        check()


@given(st.lists(conditions, min_size=1, max_size=4), histories)
@settings(max_examples=100, deadline=None)
def test_what_is_kept_in_memory_changes_nothing(plain: Any, history: Any) -> None:
    segments = segments_of(plain)
    campaigns = playbook(campaigns={
        f"c{n}": {"trigger": trigger, "when": one, "format": ("popup", "bar")[n % 2]}
        for n, one in enumerate(plain)
        for trigger in [({"exit_intent": True}, {"seconds_on_site": 30}, {"event": "Product Added"})[n % 3]]})
    whole = Playbook(segments.shop, segments.segments, campaigns.campaigns)
    hot, cold = Visitor(whole), Visitor(whole)
    at = 0
    for gap, (name, properties) in history:
        at += gap
        hot.does(at, name, **properties)
        cold.rests()
        cold.does(at, name, **properties)
    cold.rests()
    assert hot.waits(at + 200_000) == cold.waits(at + 200_000)
    assert hot.actions == cold.actions
    assert hot.fired == cold.fired
    assert codec.encode(hot.person) == codec.encode(cold.person)


def test_entry_and_exit_are_to_the_millisecond() -> None:
    visitor = Visitor(playbook(segments={"there": {"when": {
        "session": {"seconds_at_least": 30}, "did": {"event": "Product Viewed", "within": "1m"}}}}))
    visitor.does(0, "Page Viewed")
    visitor.does(12_345, "Product Viewed", **PRODUCT)
    visitor.waits(29_999)
    assert visitor.actions == []
    visitor.waits(72_344)
    assert [(move.at - T0, move.entered) for move in visitor.actions if isinstance(move, Move)] == [(30_000, True)]
    visitor.waits(72_345)
    assert [(move.at - T0, move.entered) for move in visitor.actions if isinstance(move, Move)] == [
        (30_000, True), (72_345, False)]


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
