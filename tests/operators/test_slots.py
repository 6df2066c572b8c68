"""Slots: elements of the page that are filled for a person; and offers with a coupon of their own."""

from pathlib import Path
from typing import Any

import msgspec

from domain.action import Cancel, Preload, Send, Suppress
from domain.action import decode_action as action_of
from domain.playbook.playbook import Playbook
from domain.record import DEFAULT_PARTITIONS, Record, partition_of
from operators.steps import STEPS
from state.decisions.exposures import MAX_FILLED_SLOTS, already_filled
from state.person.model import Coupon, Session
from state.playbook.compiled import compile_rules
from tests.harness.cluster import ShardCluster
from tests.harness.person import T0, PersonHarness, make_playbook, summarize

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def slot_playbook(shop: dict[str, Any] | None = None, **campaigns: dict[str, Any]) -> Playbook:
    return make_playbook(
        shop=shop or {},
        campaigns={
            name: {"format": "slot", "slot": "#hero", "trigger": {"event": "Page Viewed"}, **rest}
            for name, rest in campaigns.items()
        },
    )


def filled_on_page(harness: PersonHarness, at: int, show: bool = True) -> list[str]:
    """A page is opened; the campaigns that fill something on it."""
    sent = [one for one in harness.emit(at, "Page Viewed") if isinstance(one, Send)]
    for one in sent if show else ():
        harness.emit(at + SECOND, "Offer Shown", action_id=one.id, campaign=one.campaign)
    return [one.campaign for one in sent]


def test_slot_is_refilled_per_page_and_counts_once() -> None:
    visitor = PersonHarness(slot_playbook(hero={}))
    for n in range(5):
        assert filled_on_page(visitor, n * MINUTE) == ["hero"]
        if n == 2:
            visitor.store_and_reload()
    said = visitor.person.exposures["hero"]
    assert (said.total, said.in_session, said.in_day, len(said.times)) == (1, 1, 1, 1)
    assert filled_on_page(visitor, 3 * HOUR) == ["hero"], "another visit"
    assert visitor.person.exposures["hero"].total == 2


def test_shown_slot_is_not_cancelled() -> None:
    """A cancel restores the default content of a slot; for a shown popup it only removes the record."""
    for form in ({}, {"format": "popup", "slot": ""}):
        visitor = PersonHarness(slot_playbook(hero=form))
        (send,) = [one for one in visitor.emit(0, "Page Viewed") if isinstance(one, Send)]
        told = visitor.emit(SECOND, "Offer Shown", action_id=send.id, campaign="hero")
        assert bool([one for one in told if isinstance(one, Cancel)]) is (form != {})


def test_different_content_is_another_exposure() -> None:
    visitor = PersonHarness(slot_playbook(hero={"content": {"default": {"title": '{{ search | default: "hello" }}'}}}))
    assert filled_on_page(visitor, 0) == ["hero"]
    visitor.emit(MINUTE, "Products Searched", query="tea")
    assert filled_on_page(visitor, 2 * MINUTE) == []
    assert visitor.person.decisions["hero"].detail == "1 of 1 in this session"
    visitor.emit(3 * MINUTE, "Products Searched", query="mug")
    assert filled_on_page(visitor, 4 * MINUTE) == []


def test_fast_page_views_do_not_block_the_slot() -> None:
    visitor = PersonHarness(slot_playbook(hero={}))
    for n in range(4):
        assert filled_on_page(visitor, n * SECOND, show=False) == ["hero"]
    assert [one.campaign for one in visitor.person.pending_sends] == ["hero"], "the last one holds the place"
    assert len([name for name in visitor.person.timers if name.startswith("reserved:")]) == 1


def test_late_slot_exposure_counts_once() -> None:
    visitor = PersonHarness(slot_playbook(hero={}))
    first = visitor.emit(0, "Page Viewed")[0]
    second = visitor.emit(SECOND, "Page Viewed")[0]
    visitor.emit(2 * SECOND, "Offer Shown", action_id=first.id, campaign="hero")
    visitor.emit(3 * SECOND, "Offer Shown", action_id=second.id, campaign="hero")
    assert visitor.person.exposures["hero"].total == 1
    assert filled_on_page(visitor, MINUTE) == ["hero"]
    assert visitor.person.exposures["hero"].total == 1


def test_highest_priority_fills_each_slot() -> None:
    visitor = PersonHarness(slot_playbook(low={}, high={"priority": 5}, side={"slot": ".side"}))
    actions = visitor.emit(0, "Page Viewed")
    assert [(one.campaign, one.slot) for one in actions if isinstance(one, Send)] == [
        ("high", "#hero"),
        ("side", ".side"),
    ]
    assert summarize(actions)[1:2] == [(0, "suppress lower_priority", "low")]
    assert [type(one) for one in visitor.emit(SECOND, "Page Viewed")] == [Send, Send]


def test_slots_do_not_count_towards_shop_caps() -> None:
    made = make_playbook(
        shop={"frequency_caps": {"per_session": 1, "per_day": 1, "cooldown": "1h"}, "contact_pressure": {"per_day": 1}},
        campaigns={
            "hero": {"format": "slot", "slot": "#hero", "trigger": {"event": "Page Viewed"}},
            "pop": {"trigger": {"event": "Quiz Finished"}},
        },
    )
    visitor = PersonHarness(made)
    assert filled_on_page(visitor, 0) == ["hero"]
    (pop,) = visitor.emit(MINUTE, "Quiz Finished")
    assert isinstance(pop, Send), "the slot has used up nothing"
    visitor.emit(MINUTE + SECOND, "Offer Shown", action_id=pop.id, campaign="pop")
    assert filled_on_page(visitor, 2 * MINUTE) == ["hero"], "nor does the popup stand in its way"


def test_slot_respects_its_total_cap() -> None:
    visitor = PersonHarness(slot_playbook(hero={"frequency_caps": {"total": 1}}))
    assert filled_on_page(visitor, 0) == ["hero"]
    assert filled_on_page(visitor, MINUTE) == ["hero"]
    assert filled_on_page(visitor, DAY) == []


def test_dismissed_slot_stays_empty() -> None:
    visitor = PersonHarness(slot_playbook(hero={}))
    assert filled_on_page(visitor, 0) == ["hero"]
    visitor.emit(MINUTE, "Offer Dismissed", action_id="x", campaign="hero")
    assert filled_on_page(visitor, 2 * MINUTE) == []
    assert visitor.person.decisions["hero"].reason == "dismissed"


def test_slot_weight_counts_towards_contact_pressure() -> None:
    visitor = PersonHarness(
        slot_playbook({"contact_pressure": {"per_day": 1, "weights": {"slot": 1}}}, a={}, b={"slot": ".b"})
    )
    assert filled_on_page(visitor, 0) == ["a"]
    assert visitor.person.decisions["b"].reason == "contact_pressure"
    assert filled_on_page(visitor, MINUTE) == ["a"], "filled again it weighs nothing more"


def test_filled_slots_are_bounded() -> None:
    visitor = PersonHarness(slot_playbook(hero={}))
    visitor.emit(0, "Page Viewed")
    session = visitor.person.session
    assert isinstance(session, Session)
    session.filled_slots = {f"c{n}": "x" for n in range(MAX_FILLED_SLOTS)}
    filled_on_page(visitor, MINUTE)
    assert len(session.filled_slots) == MAX_FILLED_SLOTS
    assert not already_filled(visitor.person, "hero", "x")
    assert visitor.person.exposures["hero"].total == 1


# -- coupons -------------------------------------------------------------------------------------------------------


COUPON_CONTENT = {"title": "{{ coupon.percent }} % for you", "body": "<p>{{ coupon.code }}</p>"}
POOL = {"name": "ten", "percent": 10, "min_value": 20, "once_per_person": True}


def coupon_playbook(**campaign: Any) -> Playbook:
    return make_playbook(
        coupons=[POOL],
        campaigns={
            "win": {
                "trigger": {"event": "Quiz Finished"},
                "coupon": "ten",
                "content": {"default": COUPON_CONTENT},
                **campaign,
            }
        },
    )


def person_with_coupon(made: Playbook, until: int = DAY) -> PersonHarness:
    visitor = PersonHarness(made)
    visitor.person.coupons.append(Coupon("TEN-1", "ten", "reserved", T0, T0 + until))
    return visitor


def test_send_contains_coupon_code_and_discount() -> None:
    (send,) = person_with_coupon(coupon_playbook()).emit(0, "Quiz Finished")
    assert isinstance(send, Send)
    assert (send.content.title, send.content.html, send.content.coupon) == ("10 % for you", "<p>TEN-1</p>", "TEN-1")
    assert send.discount is not None
    assert (send.discount.code, send.discount.percent, send.discount.min_value) == ("TEN-1", 10.0, 20.0)
    assert send.discount.expires_at == T0 + DAY


def test_preload_contains_the_code_until_it_expires() -> None:
    visitor = person_with_coupon(coupon_playbook(trigger={"exit_intent": True}), until=10 * MINUTE)
    (arm,) = visitor.emit(0, "Page Viewed")
    assert isinstance(arm, Preload)
    assert (arm.content.coupon, arm.not_after) == ("TEN-1", T0 + 10 * MINUTE)
    assert arm.discount is not None


def test_once_per_person_coupon_is_not_offered_again() -> None:
    visitor = PersonHarness(coupon_playbook())
    visitor.person.coupons.append(Coupon("TEN-1", "ten", "redeemed", T0, T0 + DAY))
    (hold,) = visitor.emit(0, "Quiz Finished")
    assert isinstance(hold, Suppress)
    assert (hold.because.reason, hold.because.detail) == ("coupon_once_per_person", "of ten")
    exit_offer = PersonHarness(coupon_playbook(trigger={"exit_intent": True}))
    exit_offer.person.coupons.append(Coupon("TEN-1", "ten", "redeemed", T0, T0 + DAY))
    assert exit_offer.emit(0, "Page Viewed") == []
    assert summarize(exit_offer.emit(SECOND, "Exit Intent")) == [(SECOND, "suppress coupon_once_per_person", "win")]


def decision_reasons(cluster: ShardCluster) -> list[tuple[str, str]]:
    actions = [action_of(row.body) for row in cluster.rows if row.stream == "actions"]
    return [(type(one).__name__, one.because.reason) for one in actions if isinstance(one, (Send, Suppress))]


def quiz_record(who: str, n: int, at: int) -> Record:
    body = msgspec.json.encode({"type": "track", "event": "Quiz Finished", "anonymousId": who, "messageId": f"m{n}"})
    return Record("clicks", partition_of(who.encode(), DEFAULT_PARTITIONS), n, at, who.encode(), body)


def test_campaign_waiting_for_codes_is_decided_on_arrival(tmp_path: Path) -> None:
    small = small_pool_playbook(size=2)
    town = ShardCluster(tmp_path, STEPS, compile_rules(small))
    town.feed(quiz_record("x", 1, T0))
    assert decision_reasons(town) == [("Suppress", "coupon_pending"), ("Send", "")]
    (send,) = [one for row in town.rows if row.stream == "actions" and isinstance(one := action_of(row.body), Send)]
    assert send.because.trigger == 'event "Quiz Finished"'
    assert send.discount is not None
    person = town.person("a:x")
    assert person is not None
    assert person.deferred == {}


def test_waiting_for_codes_times_out(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, compile_rules(small_pool_playbook(size=2)))
    town.feed(quiz_record("x", 1, T0), deliver=False)
    assert decision_reasons(town) == [("Suppress", "coupon_pending")]
    town.pending_messages.clear()
    town.tick(T0 + DAY)
    person = town.person("a:x")
    assert person is not None
    assert (person.deferred, decision_reasons(town)) == ({}, [("Suppress", "coupon_pending")])


def small_pool_playbook(**pool: Any) -> Playbook:
    return make_playbook(
        coupons=[{**POOL, **pool}],
        campaigns={
            "win": {"trigger": {"event": "Quiz Finished"}, "coupon": "ten", "content": {"default": COUPON_CONTENT}}
        },
    )
