"""What is decided later: quiet hours and delays, each decided again in full; messages and what they need."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Hold, Send
from domain.campaign import Campaign, Content, Trigger, Words
from domain.playbook import Playbook
from domain.shop import QuietHours
from state import later
from state.context import Due
from state.merge import absorb, hand_over
from state.person import MAX_LATER, Later, Person
from state.quiet import end_of
from state.rules import compile_rules
from tests.support import examples
from tests.visitor import T0, Visitor, playbook, short

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NIGHT = {"begin": "21:00", "end": "08:00"}
MORNING = round(datetime(2023, 11, 15, 8, tzinfo=ZoneInfo("Europe/Rome")).timestamp() * 1000) - T0
"""T0 is 23:13 in Rome; this is the next 08:00 there."""


def mail(shop: dict[str, Any] | None = None, **campaign: Any) -> Playbook:
    return playbook(shop={"quiet_hours": NIGHT, **(shop or {})}, campaigns={
        "mail": {"format": "email", "trigger": {"event": "Quiz Finished"}, **campaign}})


def ann(made: Playbook, **visitor: Any) -> Visitor:
    found = Visitor(made, **visitor)
    found.does(0, "Identified", email="ann@shop.example")
    return found


def reasons(visitor: Visitor) -> list[tuple[int, str]]:
    return [(one.at - T0, one.because.reason) for one in visitor.actions if isinstance(one, Hold)]


# -- quiet hours ---------------------------------------------------------------------------------------------------


def test_a_message_waits_for_the_end_of_quiet_hours_and_says_so_once() -> None:
    visitor = ann(mail())
    visitor.does(SECOND, "Quiz Finished")
    visitor.does(HOUR, "Quiz Finished")
    assert (visitor.messages, reasons(visitor)) == ([], [(SECOND, "quiet_hours")])
    assert visitor.person.reserved == [], "it reserves nothing while it waits"
    assert visitor.person.timers["later:mail"] == T0 + MORNING
    visitor.rests()
    visitor.waits(MORNING - 1)
    assert visitor.messages == []
    visitor.waits(MORNING)
    (message,) = visitor.messages
    assert (message.at, message.not_before, message.not_after) == (T0 + MORNING, T0 + MORNING, T0 + MORNING + DAY)
    assert message.because.trigger == 'event "Quiz Finished"', "what it was, though time brings it now"
    assert visitor.person.later == {}


@pytest.mark.parametrize("shop", [{"pressure": {"per_day": 3}}, {"groups": {"g": {}}}])
def test_of_several_that_wait_for_the_morning_the_most_important_one_is_sent(shop: dict[str, Any]) -> None:
    any_of_them: dict[str, Any] = {"format": "email", "trigger": {"event": "Quiz Finished"}}
    visitor = ann(playbook(shop={"quiet_hours": NIGHT, **shop}, campaigns={
        name: {**any_of_them, **({"group": "g"} if "groups" in shop else {}), "priority": priority}
        for name, priority in {"a": 0, "b": 2, "c": 1}.items()}))
    visitor.does(SECOND, "Quiz Finished")
    visitor.waits(MORNING)
    assert [one.campaign for one in visitor.messages] == ["b"]


def test_of_several_with_the_same_delay_the_most_important_one_is_shown() -> None:
    visitor = Visitor(playbook(campaigns={
        name: {"trigger": {"event": "Quiz Finished", "delay": "20s"}, "priority": priority}
        for name, priority in {"a": 0, "b": 2, "c": 1}.items()}))
    visitor.does(0, "Quiz Finished")
    assert [(what, name) for _, what, name in short(visitor.waits(20 * SECOND))] == [
        ("send", "b"), ("hold lower_priority", "c"), ("hold lower_priority", "a")]


def test_what_is_over_at_a_moment_is_over_for_what_comes_at_it() -> None:
    """A place whose time is over is free, and a visit that has ended is no visit, whichever timer fires first."""
    soon = Visitor(playbook(campaigns={"now": {"trigger": {"event": "Quiz Finished"}},
                                       "soon": {"trigger": {"event": "Quiz Finished", "delay": "30s"}}}))
    soon.does(0, "Quiz Finished")
    assert short(soon.waits(30 * SECOND)) == [(30 * SECOND, "send", "soon")]
    late = Visitor(playbook(campaigns={"late": {"trigger": {"event": "Quiz Finished", "delay": "30m"}}}))
    late.does(0, "Quiz Finished")
    assert short(late.waits(30 * MINUTE)) == [(30 * MINUTE, "hold not_on_site", "late")]


def test_who_leaves_a_segment_as_the_visit_ends_is_not_here_any_more() -> None:
    visitor = Visitor(playbook(
        segments={"lately": {"when": {"did": {"event": "Page Viewed", "within": "30m"}}},
                  "here": {"when": {"session": {"pages_at_least": 1}}}},
        campaigns={"stay": {"trigger": {"left_segment": "lately"}}}))
    visitor.does(0, "Page Viewed")
    assert short(visitor.waits(30 * MINUTE)) == [
        (30 * MINUTE, "left", "here"), (30 * MINUTE, "left", "lately"), (30 * MINUTE, "hold not_on_site", "stay")]


def test_it_is_decided_again_in_full() -> None:
    made = mail(when={"cart": {"items_at_least": 1}}, limits={"total": 1})
    visitor = ann(made)
    visitor.does(SECOND, "Product Added", product_id="p", price=5, quantity=1)
    visitor.does(2 * SECOND, "Quiz Finished")
    visitor.does(HOUR, "Cart Cleared")
    visitor.waits(MORNING + 1)
    assert (visitor.messages, reasons(visitor)) == ([], [(2 * SECOND, "quiet_hours"), (MORNING, "audience")])
    visitor.does(DAY, "Product Added", product_id="p", price=5, quantity=1)
    visitor.waits(MORNING + DAY)
    visitor.does(MORNING + DAY + 1, "Quiz Finished")
    assert len(visitor.messages) == 1
    visitor.does(MORNING + DAY + 2, "Consent Updated", marketing=False)
    visitor.does(2 * DAY, "Quiz Finished")
    assert visitor.person.decisions["mail"].reason == "consent"
    assert visitor.person.later == {}, "what may not be sent does not wait for the morning"


def test_a_limit_reached_over_night_holds_in_the_morning() -> None:
    made = playbook(shop={"quiet_hours": NIGHT, "limits": {"per_day": 1}}, campaigns={
        "mail": {"format": "email", "trigger": {"event": "Quiz Finished"}},
        "hello": {"format": "bar", "trigger": {"event": "Quiz Again"}}})
    visitor = ann(made)
    visitor.does(SECOND, "Quiz Finished")
    (send,) = [one for one in visitor.does(MORNING - MINUTE, "Quiz Again") if isinstance(one, Send)]
    visitor.does(MORNING - MINUTE + SECOND, "Offer Shown", action_id=send.id, campaign="hello")
    visitor.waits(MORNING)
    assert reasons(visitor) == [(SECOND, "quiet_hours"), (MORNING, "shop_limit")]


@pytest.mark.parametrize(("campaign", "quiet", "waits"), [
    ({}, NIGHT, True), ({"urgent": True}, NIGHT, False), ({"purpose": "service"}, NIGHT, True),
    ({"purpose": "service", "urgent": True}, NIGHT, False), ({}, {**NIGHT, "channels": ["sms"]}, False),
    ({}, {**NIGHT, "channels": ["sms", "email"]}, True), ({}, {"begin": "00:00", "end": "00:00"}, False),
    ({}, {"begin": "09:00", "end": "20:00"}, False), ({}, {"begin": "23:00", "end": "23:14"}, True),
])
def test_what_waits_and_what_does_not(campaign: dict[str, Any], quiet: dict[str, Any], waits: bool) -> None:
    visitor = ann(mail({"quiet_hours": quiet}, **campaign))
    visitor.does(SECOND, "Quiz Finished")
    assert (len(visitor.messages) == 0) is waits


def test_on_the_site_nobody_sleeps() -> None:
    visitor = ann(playbook(shop={"quiet_hours": NIGHT}, campaigns={"hi": {"trigger": {"event": "Quiz Finished"}}}))
    assert [type(one) for one in visitor.does(SECOND, "Quiz Finished")] == [Send]


def test_it_is_night_where_the_person_is() -> None:
    for where, waits in (("America/New_York", False), ("Asia/Tokyo", True), ("Nowhere/AtAll", True)):
        visitor = ann(mail({"timezone": "Europe/Rome"}), timezone=where)
        visitor.does(SECOND, "Quiz Finished")
        assert (len(visitor.messages) == 0) is waits, where


CLOCKS = st.tuples(st.integers(0, 23), st.sampled_from([0, 30, 45])).map(lambda one: f"{one[0]:02d}:{one[1]:02d}")
CHANGES = [datetime(*day, tzinfo=UTC) for day in (
    (2024, 3, 31), (2024, 10, 27), (2024, 3, 10), (2024, 11, 3), (2024, 4, 7), (2024, 10, 6), (2024, 9, 29),
    (2024, 6, 1))]


@given(CLOCKS, CLOCKS, st.sampled_from(["Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Pacific/Auckland"]),
       st.sampled_from(CHANGES), st.integers(-36 * 60, 36 * 60))
@settings(max_examples=examples(200), deadline=None)
def test_quiet_hours_are_those_on_the_wall(begin: str, end: str, where: str, change: datetime, minutes: int) -> None:
    """Minute by minute on the wall: quiet now, and quiet in every minute until they end."""
    zone = ZoneInfo(where)

    def quiet(when: int) -> bool:
        clock = datetime.fromtimestamp(when / 1000, zone).strftime("%H:%M")
        return begin <= clock < end if begin < end else (clock >= begin or clock < end) and begin != end

    now = round(change.timestamp() * 1000) + minutes * MINUTE
    found = end_of(QuietHours(begin, end), now, where)
    folds = datetime.fromtimestamp(now / 1000, zone).utcoffset() != datetime.fromtimestamp(
        (now - 2 * HOUR) / 1000, zone).utcoffset() or (found and datetime.fromtimestamp(
            now / 1000, zone).utcoffset() != datetime.fromtimestamp((found + HOUR) / 1000, zone).utcoffset())
    if not folds:
        assert bool(found) is quiet(now)
    if found:
        assert found > now
        assert not quiet(found) or folds
        assert folds or all(quiet(when) for when in range(now, found, MINUTE))


# -- delays --------------------------------------------------------------------------------------------------------


def delayed(**campaign: Any) -> Playbook:
    return playbook(campaigns={"hi": {
        "trigger": {"event": "Quiz Finished", "delay": "10m"}, "limits": {"per_session": 9}, **campaign}})


def test_a_delay_is_decided_at_its_time_by_what_is_true_then() -> None:
    visitor = Visitor(delayed(when={"not": {"did": {"event": "Order Completed"}}}))
    visitor.does(0, "Quiz Finished")
    visitor.does(MINUTE, "Quiz Finished")
    assert visitor.actions == []
    visitor.rests()
    visitor.waits(10 * MINUTE)
    (send,) = visitor.actions
    assert isinstance(send, Send)
    assert (send.at, send.because.trigger) == (T0 + 10 * MINUTE, 'event "Quiz Finished", 10 minutes later')
    visitor.does(10 * MINUTE + SECOND, "Order Completed", order_id="1", revenue=1, products=[])
    visitor.waits(11 * MINUTE)
    assert short(visitor.actions)[1:] == [(11 * MINUTE, "hold audience", "hi")], "the second occasion, for itself"


def test_nobody_is_there_any_more() -> None:
    visitor = Visitor(delayed(trigger={"event": "Quiz Finished", "delay": "1h"}))
    visitor.does(0, "Quiz Finished")
    assert short(visitor.waits(2 * HOUR)) == [(HOUR, "hold not_on_site", "hi")]


def test_a_segment_left_and_then_a_delay() -> None:
    busy = {"when": {"did": {"event": "Quiz Finished", "within": "5m"}}}
    visitor = Visitor(playbook(segments={"busy": busy}, campaigns={
        "hi": {"trigger": {"left_segment": "busy", "delay": "5m"}}}))
    visitor.does(0, "Quiz Finished")
    assert short(visitor.waits(20 * MINUTE)) == [(5 * MINUTE, "left", "busy"), (10 * MINUTE, "send", "hi")]


def test_a_delayed_message_that_comes_due_at_night_waits_for_the_morning_too() -> None:
    visitor = ann(mail(trigger={"event": "Quiz Finished", "delay": "30m"}))
    visitor.does(SECOND, "Quiz Finished")
    visitor.waits(HOUR)
    assert reasons(visitor) == [(SECOND + 30 * MINUTE, "quiet_hours")]
    visitor.waits(MORNING)
    assert [one.because.trigger for one in visitor.messages] == ['event "Quiz Finished", 30 minutes later']


def test_a_campaign_that_left_the_playbook_is_not_decided() -> None:
    visitor = Visitor(delayed())
    visitor.does(0, "Quiz Finished")
    visitor.swaps(playbook())
    assert visitor.waits(HOUR) == []
    assert visitor.person.later == {}


def test_what_waits_is_bounded() -> None:
    rules = compile_rules(Playbook(campaigns=tuple(
        Campaign(f"c{n}", "bar", Trigger(event="Quiz Finished", delay="1h"), Content(Words("x"))) for n in range(60))))
    person = Person("a:x")
    for n in range(60):
        later.put_off(person, rules.campaigns[f"c{n}"], 1_000 - n, "x")
    assert sorted(person.later) == sorted(f"c{n}" for n in range(10, 60)), "those farthest off gave way"
    assert len(person.timers) == MAX_LATER
    for due in range(2_000, 2_030):
        later.put_off(person, rules.campaigns["c59"], due, "x")
    assert [one.due for one in person.later["c59"]] == [941, *range(2_000, 2_008), 2_029]
    assert person.timers["later:c59"] == 941
    come = later.came_due(person, Due("later", "c59", 2_001))
    assert [one.due for name, one in come if name == "c59"] == [941, 2_000, 2_001]
    assert person.timers["later:c59"] == 2_002


waiting = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(
    lambda dues: [Later(due, "x") for due in sorted(dues)]), max_size=3)


@given(waiting, waiting)
@settings(deadline=None)
def test_two_ids_of_one_person_wait_together(mine: dict[str, list[Later]], theirs: dict[str, list[Later]]) -> None:
    ann, browser = Person("u:ann"), Person("a:x")
    later.join(ann, mine)
    later.join(browser, theirs)
    absorb(ann, hand_over(browser), T0)
    assert (browser.later, browser.timers) == ({}, {})
    expected = {name: sorted({one.due for one in [*mine.get(name, []), *theirs.get(name, [])]})
                for name in {**mine, **theirs}}
    assert {name: [one.due for one in found] for name, found in ann.later.items()} == expected
    assert ann.timers == {f"later:{name}": dues[0] for name, dues in expected.items()}


def test_what_was_put_off_before_the_login_is_sent_after_it() -> None:
    visitor = ann(mail())
    visitor.does(SECOND, "Quiz Finished")
    known = Visitor(mail(), "ann")
    known.person = Person("u:ann")
    absorb(known.person, hand_over(visitor.person), T0 + HOUR)
    known.now = T0 + HOUR
    known.waits(MORNING)
    assert [(one.person, one.addresses) for one in known.messages] == [("u:ann", {"email": "ann@shop.example"})]


# -- what a message needs ------------------------------------------------------------------------------------------


DAYTIME: dict[str, Any] = {"quiet_hours": {"begin": "00:00", "end": "00:00"}}


def test_an_address() -> None:
    visitor = Visitor(mail(DAYTIME))
    visitor.does(0, "Quiz Finished")
    assert reasons(visitor) == [(0, "no_address")]
    visitor.does(1, "Identified", email="ann@shop.example\r\nBcc: all@shop.example")
    visitor.does(2, "Quiz Finished")
    assert visitor.messages == []


@pytest.mark.parametrize(("answers", "shop", "sent"), [
    ({}, {}, True), ({"marketing": False}, {}, False), ({"email": False}, {}, False), ({"email": True}, {}, True),
    ({"email:marketing": False}, {}, False), ({"sms": False}, {}, True), ({"email:news": False}, {}, True),
    ({"marketing": True, "email:marketing": False}, {}, False),
    ({}, {"default": "denied"}, False), ({"marketing": True}, {"default": "denied"}, True),
    ({}, {"purposes": {"email:marketing": "denied"}}, False),
    ({"email:marketing": True}, {"purposes": {"email:marketing": "denied"}}, True),
    ({"email:marketing": True}, {"default": "denied"}, False),
])
def test_consent_to_the_purpose_and_on_the_channel(answers: dict[str, bool], shop: dict[str, Any], sent: bool) -> None:
    visitor = ann(mail({**DAYTIME, "consent": shop}))
    if answers:
        visitor.does(1, "Consent Updated", **answers)
    visitor.does(2, "Quiz Finished")
    assert bool(visitor.messages) is sent
    if not sent:
        assert reasons(visitor) == [(2, "consent")]


def test_a_message_needs_no_open_visit_and_does_not_count_as_seen_in_one() -> None:
    made = playbook(segments={"idle": {"when": {"did_not": {"event": "Quiz Finished", "within": "1d"},
                                                "did": {"event": "Quiz Finished"}}}},
                    campaigns={"mail": {"format": "email", "trigger": {"segment": "idle"}}})
    visitor = ann(made)
    visitor.does(SECOND, "Quiz Finished")
    visitor.waits(2 * DAY)
    (message,) = visitor.messages
    assert message.at == T0 + SECOND + DAY
    assert [one.campaign for one in visitor.person.reserved] == ["mail"]
    visitor.waits(2 * DAY + 2 * SECOND)
    assert visitor.person.reserved == [], "nobody told of it in time: its place is free"


def test_an_event_takes_a_message_back_that_is_on_its_way() -> None:
    visitor = ann(mail(DAYTIME, disarm_on=["Order Completed"]))
    visitor.does(SECOND, "Quiz Finished")
    visitor.does(MINUTE, "Order Completed", order_id="1", revenue=1, products=[])
    assert visitor.messages[1].withdraws == visitor.messages[0].id
    assert visitor.person.reserved == []


def test_messages_do_not_compete_for_a_place_but_in_a_group() -> None:
    two = {name: {"format": "email", "trigger": {"event": "Quiz Finished"}} for name in "ab"}
    visitor = ann(playbook(campaigns=two))
    visitor.does(SECOND, "Quiz Finished")
    assert [one.campaign for one in visitor.messages] == ["a", "b"]
    grouped = {name: {**one, "group": "g"} for name, one in two.items()}
    visitor = ann(playbook(shop={"groups": {"g": {}}}, campaigns=grouped))
    visitor.does(SECOND, "Quiz Finished")
    assert [one.campaign for one in visitor.messages] == ["a"]
    assert reasons(visitor) == [(SECOND, "lower_priority")]


def test_a_workflow_waits_for_the_morning_and_goes_on_when_it_was_sent() -> None:
    steps = [{"send": "mail"}, {"wait": "3h"}, {"tag": "done"}]
    made = playbook(shop={"quiet_hours": NIGHT}, campaigns={"mail": {"format": "email", "trigger": {"workflow": True}}},
                    segments={"done": {"static": True}},
                    workflows={"w": {"enters": {"event": "Quiz Finished"}, "steps": steps}})
    visitor = ann(made)
    visitor.does(SECOND, "Quiz Finished")
    visitor.waits(MORNING)
    (message,) = visitor.messages
    assert (message.at, message.workflow) == (T0 + MORNING, "w")
    assert "done" not in visitor.person.tags
    visitor.waits(MORNING + 3 * HOUR)
    assert "done" in visitor.person.tags
    assert len(visitor.messages) == 1
    assert [reason for _, reason in reasons(visitor)] == ["quiet_hours"]
