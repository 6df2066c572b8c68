"""Slots: elements of the page that are filled for a person; and offers with a coupon of their own."""

from pathlib import Path
from typing import Any

import msgspec

from domain.action import Arm, Disarm, Hold, Send
from domain.action import decode as action_of
from domain.partition import partition_of
from domain.playbook import Playbook
from domain.record import Record
from domain.streams import PARTITIONS
from flows.onsite import STEPS
from state.exposures import MAX_FILLED, fills_already
from state.person import Coupon, Session
from state.rules import compile_rules
from tests.town import Town
from tests.visitor import T0, Visitor, playbook, short

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def slots(shop: dict[str, Any] | None = None, **campaigns: dict[str, Any]) -> Playbook:
    return playbook(shop=shop or {}, campaigns={name: {
        "format": "slot", "slot": "#hero", "trigger": {"event": "Page Viewed"}, **rest}
        for name, rest in campaigns.items()})


def pages(visitor: Visitor, at: int, show: bool = True) -> list[str]:
    """A page is opened; the campaigns that fill something on it."""
    sent = [one for one in visitor.does(at, "Page Viewed") if isinstance(one, Send)]
    for one in sent if show else ():
        visitor.does(at + SECOND, "Offer Shown", action_id=one.id, campaign=one.campaign)
    return [one.campaign for one in sent]


def test_a_slot_is_filled_again_on_every_page_and_counts_once() -> None:
    visitor = Visitor(slots(hero={}))
    for n in range(5):
        assert pages(visitor, n * MINUTE) == ["hero"]
        if n == 2:
            visitor.rests()
    said = visitor.person.said["hero"]
    assert (said.total, said.in_session, said.in_day, len(said.times)) == (1, 1, 1, 1)
    assert pages(visitor, 3 * HOUR) == ["hero"], "another visit"
    assert visitor.person.said["hero"].total == 2


def test_what_fills_a_slot_is_not_taken_back_once_it_is_shown() -> None:
    """A disarm gives the page back what stood there; a popup that was shown is only forgotten."""
    for form in ({}, {"format": "popup", "slot": ""}):
        visitor = Visitor(slots(hero=form))
        (send,) = [one for one in visitor.does(0, "Page Viewed") if isinstance(one, Send)]
        told = visitor.does(SECOND, "Offer Shown", action_id=send.id, campaign="hero")
        assert bool([one for one in told if isinstance(one, Disarm)]) is (form != {})


def test_other_words_are_another_showing() -> None:
    visitor = Visitor(slots(hero={"content": {"default": {"title": '{{ search | default: "hello" }}'}}}))
    assert pages(visitor, 0) == ["hero"]
    visitor.does(MINUTE, "Products Searched", query="tea")
    assert pages(visitor, 2 * MINUTE) == []
    assert visitor.person.decisions["hero"].detail == "1 of 1 in this visit"
    visitor.does(3 * MINUTE, "Products Searched", query="mug")
    assert pages(visitor, 4 * MINUTE) == []


def test_pages_that_follow_each_other_fast_do_not_block_the_slot() -> None:
    visitor = Visitor(slots(hero={}))
    for n in range(4):
        assert pages(visitor, n * SECOND, show=False) == ["hero"]
    assert [one.campaign for one in visitor.person.reserved] == ["hero"], "the last one holds the place"
    assert len([name for name in visitor.person.timers if name.startswith("reserved:")]) == 1


def test_a_showing_that_is_told_late_counts_once_too() -> None:
    visitor = Visitor(slots(hero={}))
    first = visitor.does(0, "Page Viewed")[0]
    second = visitor.does(SECOND, "Page Viewed")[0]
    visitor.does(2 * SECOND, "Offer Shown", action_id=first.id, campaign="hero")
    visitor.does(3 * SECOND, "Offer Shown", action_id=second.id, campaign="hero")
    assert visitor.person.said["hero"].total == 1
    assert pages(visitor, MINUTE) == ["hero"]
    assert visitor.person.said["hero"].total == 1


def test_several_slots_are_filled_at_once_and_for_each_the_most_important_wins() -> None:
    visitor = Visitor(slots(low={}, high={"priority": 5}, side={"slot": ".side"}))
    actions = visitor.does(0, "Page Viewed")
    assert [(one.campaign, one.slot) for one in actions if isinstance(one, Send)] == [
        ("high", "#hero"), ("side", ".side")]
    assert short(actions)[1:2] == [(0, "hold lower_priority", "low")]
    assert [type(one) for one in visitor.does(SECOND, "Page Viewed")] == [Send, Send]


def test_slots_are_part_of_the_page_not_one_offer_more() -> None:
    made = playbook(shop={"limits": {"per_session": 1, "per_day": 1, "cooldown": "1h"}, "pressure": {"per_day": 1}},
                    campaigns={
                        "hero": {"format": "slot", "slot": "#hero", "trigger": {"event": "Page Viewed"}},
                        "pop": {"trigger": {"event": "Quiz Finished"}}})
    visitor = Visitor(made)
    assert pages(visitor, 0) == ["hero"]
    (pop,) = visitor.does(MINUTE, "Quiz Finished")
    assert isinstance(pop, Send), "the slot has used up nothing"
    visitor.does(MINUTE + SECOND, "Offer Shown", action_id=pop.id, campaign="pop")
    assert pages(visitor, 2 * MINUTE) == ["hero"], "nor does the popup stand in its way"


def test_a_slot_that_has_had_its_days_is_not_filled_on_another_one() -> None:
    visitor = Visitor(slots(hero={"limits": {"total": 1}}))
    assert pages(visitor, 0) == ["hero"]
    assert pages(visitor, MINUTE) == ["hero"]
    assert pages(visitor, DAY) == []


def test_closed_by_hand_it_stays_away() -> None:
    visitor = Visitor(slots(hero={}))
    assert pages(visitor, 0) == ["hero"]
    visitor.does(MINUTE, "Offer Dismissed", action_id="x", campaign="hero")
    assert pages(visitor, 2 * MINUTE) == []
    assert visitor.person.decisions["hero"].reason == "dismissed"


def test_a_slot_weighs_in_the_budget_when_the_shop_says_so() -> None:
    visitor = Visitor(slots({"pressure": {"per_day": 1, "weights": {"slot": 1}}}, a={}, b={"slot": ".b"}))
    assert pages(visitor, 0) == ["a"]
    assert visitor.person.decisions["b"].reason == "pressure"
    assert pages(visitor, MINUTE) == ["a"], "filled again it weighs nothing more"


def test_what_fills_slots_is_bounded() -> None:
    visitor = Visitor(slots(hero={}))
    visitor.does(0, "Page Viewed")
    session = visitor.person.session
    assert isinstance(session, Session)
    session.filled = {f"c{n}": "x" for n in range(MAX_FILLED)}
    pages(visitor, MINUTE)
    assert len(session.filled) == MAX_FILLED
    assert not fills_already(visitor.person, "hero", "x")
    assert visitor.person.said["hero"].total == 1


# -- coupons -------------------------------------------------------------------------------------------------------


CODE = {"title": "{{ coupon.percent }} % for you", "body": "<p>{{ coupon.code }}</p>"}
POOL = {"name": "ten", "percent": 10, "min_value": 20, "once": True}


def with_coupon(**campaign: Any) -> Playbook:
    return playbook(coupons=[POOL], campaigns={"win": {
        "trigger": {"event": "Quiz Finished"}, "coupon": "ten", "content": {"default": CODE}, **campaign}})


def holding(made: Playbook, until: int = DAY) -> Visitor:
    visitor = Visitor(made)
    visitor.person.coupons.append(Coupon("TEN-1", "ten", "reserved", T0, T0 + until))
    return visitor


def test_the_coupon_of_the_person_is_in_the_words_and_its_worth_beside_them() -> None:
    (send,) = holding(with_coupon()).does(0, "Quiz Finished")
    assert isinstance(send, Send)
    assert (send.content.title, send.content.html, send.content.coupon) == ("10 % for you", "<p>TEN-1</p>", "TEN-1")
    assert send.discount is not None
    assert (send.discount.code, send.discount.percent, send.discount.min_value) == ("TEN-1", 10.0, 20.0)
    assert send.discount.expires_at == T0 + DAY


def test_an_armed_offer_shows_the_real_code_and_not_longer_than_it_is_good() -> None:
    visitor = holding(with_coupon(trigger={"exit_intent": True}), until=10 * MINUTE)
    (arm,) = visitor.does(0, "Page Viewed")
    assert isinstance(arm, Arm)
    assert (arm.content.coupon, arm.not_after) == ("TEN-1", T0 + 10 * MINUTE)
    assert arm.discount is not None


def test_who_had_theirs_gets_none() -> None:
    visitor = Visitor(with_coupon())
    visitor.person.coupons.append(Coupon("TEN-1", "ten", "redeemed", T0, T0 + DAY))
    (hold,) = visitor.does(0, "Quiz Finished")
    assert isinstance(hold, Hold)
    assert (hold.because.reason, hold.because.detail) == ("coupon_once", "of ten")
    exit_offer = Visitor(with_coupon(trigger={"exit_intent": True}))
    exit_offer.person.coupons.append(Coupon("TEN-1", "ten", "redeemed", T0, T0 + DAY))
    assert exit_offer.does(0, "Page Viewed") == []
    assert short(exit_offer.does(SECOND, "Exit Intent")) == [(SECOND, "hold coupon_once", "win")]


def said(town: Town) -> list[tuple[str, str]]:
    actions = [action_of(row.body) for row in town.rows if row.stream == "actions"]
    return [(type(one).__name__, one.because.reason) for one in actions if isinstance(one, (Send, Hold))]


def quiz(who: str, n: int, at: int) -> Record:
    body = msgspec.json.encode({"type": "track", "event": "Quiz Finished", "anonymousId": who, "messageId": f"m{n}"})
    return Record("clicks", partition_of(who.encode(), PARTITIONS), n, at, who.encode(), body)


def test_who_must_wait_for_codes_is_decided_again_the_moment_they_come(tmp_path: Path) -> None:
    small = small_pool(size=2)
    town = Town(tmp_path, STEPS, compile_rules(small))
    town.feed(quiz("x", 1, T0))
    assert said(town) == [("Hold", "coupon_pending"), ("Send", "")]
    (send,) = [one for row in town.rows if row.stream == "actions" and isinstance(one := action_of(row.body), Send)]
    assert send.because.trigger == 'event "Quiz Finished"'
    assert send.discount is not None
    person = town.person("a:x")
    assert person is not None
    assert person.later == {}


def test_codes_that_never_come_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, compile_rules(small_pool(size=2)))
    town.feed(quiz("x", 1, T0), post=False)
    assert said(town) == [("Hold", "coupon_pending")]
    town.letters.clear()
    town.tick(T0 + DAY)
    person = town.person("a:x")
    assert person is not None
    assert (person.later, said(town)) == ({}, [("Hold", "coupon_pending")])


def small_pool(**pool: Any) -> Playbook:
    return playbook(coupons=[{**POOL, **pool}], campaigns={"win": {
        "trigger": {"event": "Quiz Finished"}, "coupon": "ten", "content": {"default": CODE}}})
