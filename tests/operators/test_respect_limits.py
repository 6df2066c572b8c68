"""respect_limits: every reason to hold, and the life of a reservation."""

from typing import Any

import pytest

from domain.action import Arm, Disarm, Hold, Send
from domain.event import Track
from domain.playbook import Playbook
from operators import choose_actions, respect_limits
from state.person import ProductSeen
from tests.visitor import T0, Visitor, playbook, short

HOUR, DAY = 3_600_000, 86_400_000


def on_quiz(shop: dict[str, Any] | None = None, **campaigns: dict[str, Any]) -> Playbook:
    return playbook(shop=shop or {}, campaigns={
        name: {"trigger": {"event": "Quiz Finished"}, **rest} for name, rest in campaigns.items()})


def show(visitor: Visitor, at: int, send: Any) -> list[Any]:
    return visitor.does(at, "Offer Shown", action_id=send.id, campaign=send.campaign)


def sent(actions: list[Any]) -> Send:
    (send,) = [action for action in actions if isinstance(action, Send)]
    return send


# -- the life of a send --------------------------------------------------------------------------------------------


def test_a_send_reserves_showing_spends() -> None:
    visitor = Visitor(on_quiz(hello={}))
    send = sent(visitor.does(0, "Quiz Finished"))
    assert (send.not_after, send.format, send.content.title) == (T0 + 30_000, "popup", "hello")
    assert send.because.playbook == visitor.context.rules.short
    assert [(one.action_id, one.until) for one in visitor.person.reserved] == [(send.id, T0 + 30_000)]
    assert visitor.person.timers[f"reserved:{send.id}"] == T0 + 30_000
    assert visitor.person.said == {}
    (disarm,) = show(visitor, 1_000, send)
    assert isinstance(disarm, Disarm), "the browser's slot is free"
    assert visitor.person.reserved == []
    assert set(visitor.person.timers) == {"session_end:"}
    said = visitor.person.said["hello"]
    assert (said.total, said.in_session, said.in_day, said.last_at) == (1, 1, 1, T0 + 1_000)


def test_what_is_never_shown_gives_its_place_back() -> None:
    visitor = Visitor(on_quiz(hello={}))
    sent(visitor.does(0, "Quiz Finished"))
    assert visitor.waits(29_999) == []
    assert short(visitor.does(29_999, "Quiz Finished")) == [(29_999, "hold limit", "hello")]
    visitor.waits(30_000)
    assert visitor.person.reserved == []
    assert short(visitor.does(30_001, "Quiz Finished")) == [(30_001, "send", "hello")]


def test_what_the_edge_held_gives_its_place_back() -> None:
    visitor = Visitor(on_quiz(hello={}))
    send = sent(visitor.does(0, "Quiz Finished"))
    visitor.does(1, "Offer Held", action_id=send.id, campaign="hello", reason="stale")
    assert visitor.person.reserved == []
    assert short(visitor.does(2, "Quiz Finished")) == [(2, "send", "hello")]


def test_showing_twice_counts_once() -> None:
    visitor = Visitor(on_quiz(hello={"limits": {"per_session": 9}}))
    send = sent(visitor.does(0, "Quiz Finished"))
    show(visitor, 1, send)
    assert show(visitor, 2, send) == []
    assert visitor.person.said["hello"].total == 1


def test_showing_twice_counts_once_whatever_was_decided_in_between() -> None:
    visitor = Visitor(on_quiz(hello={}))
    send = sent(visitor.does(0, "Quiz Finished"))
    show(visitor, 1, send)
    assert short(visitor.does(2, "Quiz Finished")) == [(2, "hold limit", "hello")]
    assert show(visitor, 3, send) == []
    assert visitor.person.said["hello"].total == 1


def test_a_late_showing_counts_all_the_same() -> None:
    visitor = Visitor(on_quiz(hello={}))
    send = sent(visitor.does(0, "Quiz Finished"))
    visitor.waits(31_000)
    show(visitor, 32_000, send)
    assert visitor.person.said["hello"].total == 1


@pytest.mark.parametrize("properties", [
    {}, {"action_id": 7, "campaign": "hello"}, {"action_id": "x", "campaign": ["hello"]},
    {"action_id": "x", "campaign": "zz"},
])
def test_nonsense_about_offers_changes_nothing(properties: dict[str, Any]) -> None:
    visitor = Visitor(on_quiz(hello={}))
    visitor.does(0, "Quiz Finished")
    for name in ("Offer Shown", "Offer Dismissed", "Offer Held"):
        assert visitor.does(1, name, **properties) == []
    assert visitor.person.said == {}
    assert len(visitor.person.reserved) == 1


def test_an_event_takes_back_what_was_not_shown_yet() -> None:
    visitor = Visitor(on_quiz(hello={"disarm_on": ["Checkout Started"]}))
    visitor.does(0, "Quiz Finished")
    assert short(visitor.does(1, "Checkout Started")) == [(1, "disarm", "hello")]
    assert visitor.person.reserved == []
    assert set(visitor.person.timers) == {"session_end:"}


def test_an_armed_offer_that_was_shown_is_spent_and_disarmed() -> None:
    visitor = Visitor(playbook(campaigns={"stay": {"trigger": {"exit_intent": True}}}))
    (arm,) = visitor.does(0, "Page Viewed")
    assert isinstance(arm, Arm)
    assert visitor.person.reserved == [], "an arm reserves nothing"
    assert short(visitor.does(1_000, "Offer Shown", action_id=arm.id, campaign="stay")) == [(1_000, "disarm", "stay")]
    assert visitor.person.said["stay"].total == 1
    assert visitor.does(2_000, "Page Viewed") == [], "once a visit"
    assert short(visitor.does(3_000, "Exit Intent")) == [(3_000, "hold limit", "stay")]


# -- reasons -------------------------------------------------------------------------------------------------------


def test_per_session() -> None:
    visitor = Visitor(on_quiz(hello={"limits": {"per_session": 2}}))
    for at in (0, 1_000):
        show(visitor, at + 1, sent(visitor.does(at, "Quiz Finished")))
    (hold,) = visitor.does(2_000, "Quiz Finished")
    assert isinstance(hold, Hold)
    assert (hold.because.reason, hold.because.detail) == ("limit", "2 of 2 in this visit")
    show(visitor, 2 * HOUR + 1, sent(visitor.does(2 * HOUR, "Quiz Finished")))


def test_per_day_ends_at_midnight_where_the_person_is() -> None:
    visitor = Visitor(on_quiz(hello={"limits": {"per_day": 1}}))
    midnight = (86_400 - (23 * 3600 + 13 * 60 + 20)) * 1000  # T0 is 22:13:20 UTC, 23:13:20 in Rome
    show(visitor, 1, sent(visitor.does(0, "Quiz Finished")))
    visitor.waits(midnight - 2_000)
    holds = visitor.does(midnight - 1_000, "Page Viewed") + visitor.does(midnight - 1_000, "Quiz Finished")
    assert short(holds) == [(midnight - 1_000, "hold limit", "hello")]
    assert isinstance(holds[0], Hold)
    visitor.person.session = None
    visitor.person.timers.clear()
    assert short(visitor.does(midnight, "Quiz Finished")) == [(midnight, "send", "hello")]


def test_total() -> None:
    visitor = Visitor(on_quiz(hello={"limits": {"total": 2}}))
    for day in range(2):
        show(visitor, day * DAY + 1, sent(visitor.does(day * DAY, "Quiz Finished")))
    (hold,) = visitor.does(2 * DAY, "Quiz Finished")
    assert isinstance(hold, Hold)
    assert hold.because.detail == "2 of 2 in all"


def test_the_shops_limits_count_everything_together() -> None:
    visitor = Visitor(on_quiz({"limits": {"per_session": 2, "per_day": 3}}, a={"format": "bar"}, b={"format": "banner"},
                              c={}))
    actions = visitor.does(0, "Quiz Finished")
    assert short(actions) == [(0, "send", "a"), (0, "send", "b"), (0, "hold shop_limit", "c")]
    for send in actions[:2]:
        show(visitor, 1, send)
    assert isinstance(actions[2], Hold)
    assert actions[2].because.detail == "2 of 2 of all campaigns in this visit"
    visitor.waits(2 * HOUR)
    again = visitor.does(3 * HOUR, "Quiz Finished")
    assert [action.campaign for action in again if isinstance(action, Send)] == ["a", "b"]


def test_the_shops_day() -> None:
    visitor = Visitor(on_quiz({"limits": {"per_session": 9, "per_day": 1}}, a={"limits": {"per_session": 9}}))
    visitor.does(5 * HOUR, "Page Viewed")
    show(visitor, 5 * HOUR + 2, sent(visitor.does(5 * HOUR + 1, "Quiz Finished")))
    (hold,) = visitor.does(8 * HOUR, "Quiz Finished")
    assert isinstance(hold, Hold)
    assert (hold.because.reason, hold.because.detail) == ("shop_limit", "1 of 1 of all campaigns today")


def test_popups_keep_their_distance_bars_need_not() -> None:
    visitor = Visitor(on_quiz({"limits": {"cooldown": "2m"}}, a={"limits": {"per_session": 9}},
                              bar={"format": "bar", "limits": {"per_session": 9}}))
    show(visitor, 1_000, visitor.does(0, "Quiz Finished")[0])
    visitor.waits(40_000)
    actions = visitor.does(50_000, "Quiz Finished")
    assert short(actions) == [(50_000, "hold cooldown", "a"), (50_000, "send", "bar")]
    assert actions[0].because.detail == "71 s until the next popup"
    visitor.waits(120_000)
    assert "send" in {word for _, word, name in short(visitor.does(121_000, "Quiz Finished")) if name == "a"}


def test_an_exit_popup_waits_for_the_distance_and_comes_back_by_itself() -> None:
    visitor = Visitor(playbook(shop={"limits": {"cooldown": "2m"}}, campaigns={
        "now": {"trigger": {"event": "Quiz Finished"}}, "exit": {"trigger": {"exit_intent": True}}}))
    visitor.does(0, "Page Viewed")
    shown = show(visitor, 2_000, sent(visitor.does(1_000, "Quiz Finished")))
    assert short(shown) == [(2_000, "disarm", "now"), (2_000, "disarm", "exit")], "taken back at once"
    assert short(visitor.does(4_000, "Exit Intent")) == [(4_000, "hold cooldown", "exit")]
    assert short(visitor.waits(200_000)) == [(122_000, "arm", "exit")]


def test_consent_is_asked_for_by_purpose() -> None:
    visitor = Visitor(on_quiz(
        {"consent": {"default": "denied"}}, ad={}, thanks={"purpose": "service", "format": "bar"}))
    assert short(visitor.does(0, "Quiz Finished")) == [(0, "hold consent", "ad"), (0, "send", "thanks")]
    visitor.waits(40_000)
    visitor.does(50_000, "Consent Updated", marketing=True)
    assert (60_000, "send", "ad") in short(visitor.does(60_000, "Quiz Finished"))


def test_what_was_closed_by_hand_does_not_come_back_in_this_visit() -> None:
    visitor = Visitor(on_quiz(hello={"limits": {"per_session": 9}}))
    send = sent(visitor.does(0, "Quiz Finished"))
    show(visitor, 1, send)
    visitor.does(2, "Offer Dismissed", action_id=send.id, campaign="hello")
    assert short(visitor.does(3, "Quiz Finished")) == [(3, "hold dismissed", "hello")]
    visitor.waits(2 * HOUR)
    assert short(visitor.does(3 * HOUR, "Quiz Finished")) == [(3 * HOUR, "send", "hello")]


def test_of_several_for_the_same_place_one_is_shown() -> None:
    visitor = Visitor(on_quiz(low={"priority": 1}, high={"priority": 2}, bar={"format": "bar"}))
    actions = visitor.does(0, "Quiz Finished")
    assert short(actions) == [(0, "send", "high"), (0, "hold lower_priority", "low"), (0, "send", "bar")]
    assert actions[1].because.detail == "high is shown"


def test_while_something_is_on_its_way_to_a_place_nothing_follows() -> None:
    visitor = Visitor(playbook(campaigns={
        "quiz": {"trigger": {"event": "Quiz Finished"}}, "other": {"trigger": {"event": "Product Reviewed"}}}))
    visitor.does(0, "Quiz Finished")
    (hold,) = visitor.does(1, "Product Reviewed")
    assert isinstance(hold, Hold)
    assert (hold.because.reason, hold.because.detail) == ("already_reserved", "quiz was sent and not shown yet")


def test_nobody_on_the_site() -> None:
    visitor = Visitor(playbook(campaigns={"thanks": {"trigger": {"event": "Order Refunded"}}}))
    visitor.does(0, "Page Viewed")
    visitor.waits(2 * HOUR)
    assert short(visitor.does(3 * HOUR, "Order Refunded", order_id="o")) == [(3 * HOUR, "hold not_on_site", "thanks")]


def test_a_missing_value_is_a_reason_not_a_blank() -> None:
    content = {"default": {"title": "{{ product.name }}"}}
    visitor = Visitor(on_quiz(named={"content": content, "priority": 9}, plain={}))
    assert short(visitor.does(0, "Quiz Finished")) == [(0, "hold missing product", "named"), (0, "send", "plain")]


def test_words_that_fail_are_a_reason_with_the_error() -> None:
    content = {"default": {"title": "x", "url": "{{ product.url }}"}}
    visitor = Visitor(on_quiz(bad={"content": content}))
    visitor.does(0, "Page Viewed")
    visitor.person.own().products.append(ProductSeen("p", url="javascript:alert(1)"))
    (hold,) = visitor.does(1, "Quiz Finished")
    assert isinstance(hold, Hold)
    assert hold.because.reason == "template"
    assert "url: should be a path" in hold.because.detail


def test_the_same_hold_is_said_once_until_something_else_is_decided() -> None:
    visitor = Visitor(on_quiz(hello={}))
    show(visitor, 1, sent(visitor.does(0, "Quiz Finished")))
    assert len(visitor.does(2, "Quiz Finished")) == 1
    assert visitor.does(3, "Quiz Finished") == []
    assert visitor.does(4, "Quiz Finished") == []
    visitor.does(5, "Consent Updated", marketing=False)
    assert short(visitor.does(6, "Quiz Finished")) == [(6, "hold consent", "hello")]


def last_words(visitor: Visitor, campaign: str) -> tuple[str, str, str]:
    kept = visitor.person.decisions[campaign]
    return kept.kind, kept.reason, kept.detail


def test_what_was_shown_keeps_the_words_why() -> None:
    twice = {"session": {"pages_at_least": 2}}
    visitor = Visitor(playbook(campaigns={
        "stay": {"trigger": {"exit_intent": True}, "when": twice},
        "hello": {"trigger": {"event": "Quiz Finished"}, "format": "bar",
                  "when": {**twice, "has": {"country": "IT"}}}}))
    visitor.does(0, "Page Viewed")
    (arm,) = visitor.does(1, "Page Viewed")
    send = sent(visitor.does(2, "Quiz Finished"))
    why_armed = ("exit intent", "at least 2 pages this visit (has 2)")
    why_sent = ('event "Quiz Finished"', "is in IT (IT); at least 2 pages this visit (has 2)")
    assert last_words(visitor, "stay") == ("arm", *why_armed)
    assert last_words(visitor, "hello") == ("send", *why_sent)
    show(visitor, 3, send)
    show(visitor, 4, arm)
    assert last_words(visitor, "stay") == ("shown", *why_armed)
    assert last_words(visitor, "hello") == ("shown", *why_sent)
    show(visitor, 5, send)
    assert last_words(visitor, "hello") == ("shown", *why_sent), "said twice, still known"


def test_what_was_taken_back_before_it_was_shown_has_no_words() -> None:
    visitor = Visitor(on_quiz(hello={"disarm_on": ["Checkout Started"]}))
    send = sent(visitor.does(0, "Quiz Finished"))
    visitor.does(1, "Checkout Started")
    show(visitor, 2, send)
    assert last_words(visitor, "hello") == ("shown", "", "")


def test_decisions_are_kept_for_explaining_and_bounded() -> None:
    visitor = Visitor(on_quiz({"consent": {"default": "denied"}}, **{
        f"c{n}": {"trigger": {"event": f"Quiz {n % 6}"}} for n in range(60)}))
    for n in range(6):
        visitor.does(n, f"Quiz {n}")
    assert len(visitor.person.decisions) == 50
    assert {one.reason for one in visitor.person.decisions.values()} == {"consent"}


def test_a_late_event_decides_as_usual_and_its_end_is_counted_from_the_clock() -> None:
    visitor = Visitor(on_quiz(hello={}))
    visitor.does(0, "Page Viewed")
    context = visitor.context
    context.begin("clicks-0-9", T0 + 600_000, T0 + 1_000)
    quiz = Track(event="Quiz Finished", anonymous_id="x")
    choose_actions.step(visitor.person, quiz, context)
    (send,) = respect_limits.step(visitor.person, quiz, context)
    assert isinstance(send, Send)
    assert (send.at, send.not_after) == (T0 + 600_000, T0 + 630_000)


def test_a_browser_that_names_another_campaign_spends_that_of_the_action() -> None:
    visitor = Visitor(playbook(campaigns={
        "one": {"trigger": {"event": "Product Added"}}, "two": {"trigger": {"event": "Cart Viewed"}}}))
    visitor.does(0, "Page Viewed")
    [sent] = [action for action in visitor.does(1_000, "Product Added", product_id="p") if isinstance(action, Send)]
    visitor.does(2_000, "Offer Shown", action_id=sent.id, campaign="two")
    assert list(visitor.person.said) == ["one"]
    assert not visitor.person.reserved
