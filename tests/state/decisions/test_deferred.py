"""What is decided later: quiet hours and delays, each decided again in full; messages and what they need."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Send, Suppress
from domain.playbook.campaign import Campaign, Copy, Creative
from domain.playbook.playbook import Playbook
from domain.playbook.shop import QuietHours
from domain.playbook.trigger import Trigger
from state.context import TimerFired
from state.decisions import deferred
from state.decisions.frequency import quiet_hours_end
from state.merge import build_merge_response, merge_into
from state.person.model import MAX_DEFERRED, DeferredCampaign, Person
from state.playbook.compiled import compile_rules
from tests.harness.person import T0, PersonHarness, make_playbook, summarize
from tests.harness.support import examples

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
QUIET_HOURS = {"start": "21:00", "end": "08:00"}
QUIET_HOURS_END = round(datetime(2023, 11, 15, 8, tzinfo=ZoneInfo("Europe/Rome")).timestamp() * 1000) - T0
"""T0 is 23:13 in Rome; this is the next 08:00 there."""


def email_campaign(shop: dict[str, Any] | None = None, **campaign: Any) -> Playbook:
    return make_playbook(
        shop={"quiet_hours": QUIET_HOURS, **(shop or {})},
        campaigns={"mail": {"format": "email", "trigger": {"event": "Quiz Finished"}, **campaign}},
    )


def person_with_email(made: Playbook, **visitor: Any) -> PersonHarness:
    found = PersonHarness(made, **visitor)
    found.emit(0, "Identified", email="ann@shop.example")
    return found


def suppressions(harness: PersonHarness) -> list[tuple[int, str]]:
    return [(one.at - T0, one.because.reason) for one in harness.actions if isinstance(one, Suppress)]


# -- quiet hours ---------------------------------------------------------------------------------------------------


def test_message_waits_for_the_end_of_quiet_hours() -> None:
    visitor = person_with_email(email_campaign())
    visitor.emit(SECOND, "Quiz Finished")
    visitor.emit(HOUR, "Quiz Finished")
    assert (visitor.messages, suppressions(visitor)) == ([], [(SECOND, "quiet_hours")])
    assert visitor.person.pending_sends == [], "it reserves nothing while it waits"
    assert visitor.person.timers["later:mail"] == T0 + QUIET_HOURS_END
    visitor.store_and_reload()
    visitor.advance(QUIET_HOURS_END - 1)
    assert visitor.messages == []
    visitor.advance(QUIET_HOURS_END)
    (message,) = visitor.messages
    assert (message.at, message.not_before, message.not_after) == (
        T0 + QUIET_HOURS_END,
        T0 + QUIET_HOURS_END,
        T0 + QUIET_HOURS_END + DAY,
    )
    assert message.because.trigger == 'event "Quiz Finished"', "what it was, though time brings it now"
    assert visitor.person.deferred == {}


@pytest.mark.parametrize("shop", [{"contact_pressure": {"per_day": 3}}, {"groups": {"g": {}}}])
def test_highest_priority_wins_after_quiet_hours(shop: dict[str, Any]) -> None:
    any_of_them: dict[str, Any] = {"format": "email", "trigger": {"event": "Quiz Finished"}}
    visitor = person_with_email(
        make_playbook(
            shop={"quiet_hours": QUIET_HOURS, **shop},
            campaigns={
                name: {**any_of_them, **({"group": "g"} if "groups" in shop else {}), "priority": priority}
                for name, priority in {"a": 0, "b": 2, "c": 1}.items()
            },
        )
    )
    visitor.emit(SECOND, "Quiz Finished")
    visitor.advance(QUIET_HOURS_END)
    assert [one.campaign for one in visitor.messages] == ["b"]


def test_highest_priority_wins_at_the_same_delay() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                name: {"trigger": {"event": "Quiz Finished", "delay": "20s"}, "priority": priority}
                for name, priority in {"a": 0, "b": 2, "c": 1}.items()
            }
        )
    )
    visitor.emit(0, "Quiz Finished")
    assert [(what, name) for _, what, name in summarize(visitor.advance(20 * SECOND))] == [
        ("send", "b"),
        ("suppress lower_priority", "c"),
        ("suppress lower_priority", "a"),
    ]


def test_expiry_and_session_end_precede_deferred_campaigns() -> None:
    """A place whose time is over is free, and a visit that has ended is no visit, whichever timer fires first."""
    soon = PersonHarness(
        make_playbook(
            campaigns={
                "now": {"trigger": {"event": "Quiz Finished"}},
                "soon": {"trigger": {"event": "Quiz Finished", "delay": "30s"}},
            }
        )
    )
    soon.emit(0, "Quiz Finished")
    assert summarize(soon.advance(30 * SECOND)) == [(30 * SECOND, "send", "soon")]
    late = PersonHarness(make_playbook(campaigns={"late": {"trigger": {"event": "Quiz Finished", "delay": "30m"}}}))
    late.emit(0, "Quiz Finished")
    assert summarize(late.advance(30 * MINUTE)) == [(30 * MINUTE, "suppress not_on_site", "late")]


def test_session_end_precedes_segment_exit() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "lately": {"when": {"did": {"event": "Page Viewed", "within": "30m"}}},
                "here": {"when": {"session": {"pages_at_least": 1}}},
            },
            campaigns={"stay": {"trigger": {"exited_segment": "lately"}}},
        )
    )
    visitor.emit(0, "Page Viewed")
    assert summarize(visitor.advance(30 * MINUTE)) == [
        (30 * MINUTE, "exited", "here"),
        (30 * MINUTE, "exited", "lately"),
        (30 * MINUTE, "suppress not_on_site", "stay"),
    ]


def test_deferred_campaign_is_fully_reevaluated() -> None:
    made = email_campaign(when={"cart": {"items_at_least": 1}}, frequency_caps={"total": 1})
    visitor = person_with_email(made)
    visitor.emit(SECOND, "Product Added", product_id="p", price=5, quantity=1)
    visitor.emit(2 * SECOND, "Quiz Finished")
    visitor.emit(HOUR, "Cart Cleared")
    visitor.advance(QUIET_HOURS_END + 1)
    assert (visitor.messages, suppressions(visitor)) == (
        [],
        [(2 * SECOND, "quiet_hours"), (QUIET_HOURS_END, "not_eligible")],
    )
    visitor.emit(DAY, "Product Added", product_id="p", price=5, quantity=1)
    visitor.advance(QUIET_HOURS_END + DAY)
    visitor.emit(QUIET_HOURS_END + DAY + 1, "Quiz Finished")
    assert len(visitor.messages) == 1
    visitor.emit(QUIET_HOURS_END + DAY + 2, "Consent Updated", marketing=False)
    visitor.emit(2 * DAY, "Quiz Finished")
    assert visitor.person.decisions["mail"].reason == "consent"
    assert visitor.person.deferred == {}, "what may not be sent does not wait for the morning"


def test_cap_reached_overnight_suppresses_in_the_morning() -> None:
    made = make_playbook(
        shop={"quiet_hours": QUIET_HOURS, "frequency_caps": {"per_day": 1}},
        campaigns={
            "mail": {"format": "email", "trigger": {"event": "Quiz Finished"}},
            "hello": {"format": "bar", "trigger": {"event": "Quiz Again"}},
        },
    )
    visitor = person_with_email(made)
    visitor.emit(SECOND, "Quiz Finished")
    (send,) = [one for one in visitor.emit(QUIET_HOURS_END - MINUTE, "Quiz Again") if isinstance(one, Send)]
    visitor.emit(QUIET_HOURS_END - MINUTE + SECOND, "Offer Shown", action_id=send.id, campaign="hello")
    visitor.advance(QUIET_HOURS_END)
    assert suppressions(visitor) == [(SECOND, "quiet_hours"), (QUIET_HOURS_END, "shop_cap")]


@pytest.mark.parametrize(
    ("campaign", "quiet", "waits"),
    [
        ({}, QUIET_HOURS, True),
        ({"ignore_quiet_hours": True}, QUIET_HOURS, False),
        ({"purpose": "service"}, QUIET_HOURS, True),
        ({"purpose": "service", "ignore_quiet_hours": True}, QUIET_HOURS, False),
        ({}, {**QUIET_HOURS, "channels": ["sms"]}, False),
        ({}, {**QUIET_HOURS, "channels": ["sms", "email"]}, True),
        ({}, {"start": "00:00", "end": "00:00"}, False),
        ({}, {"start": "09:00", "end": "20:00"}, False),
        ({}, {"start": "23:00", "end": "23:14"}, True),
    ],
)
def test_quiet_hours_apply_by_format_and_urgency(campaign: dict[str, Any], quiet: dict[str, Any], waits: bool) -> None:
    visitor = person_with_email(email_campaign({"quiet_hours": quiet}, **campaign))
    visitor.emit(SECOND, "Quiz Finished")
    assert (len(visitor.messages) == 0) is waits


def test_quiet_hours_do_not_apply_on_site() -> None:
    visitor = person_with_email(
        make_playbook(shop={"quiet_hours": QUIET_HOURS}, campaigns={"hi": {"trigger": {"event": "Quiz Finished"}}})
    )
    assert [type(one) for one in visitor.emit(SECOND, "Quiz Finished")] == [Send]


def test_quiet_hours_use_the_persons_time_zone() -> None:
    for where, waits in (("America/New_York", False), ("Asia/Tokyo", True), ("Nowhere/AtAll", True)):
        visitor = person_with_email(email_campaign({"timezone": "Europe/Rome"}), timezone=where)
        visitor.emit(SECOND, "Quiz Finished")
        assert (len(visitor.messages) == 0) is waits, where


CLOCKS = st.tuples(st.integers(0, 23), st.sampled_from([0, 30, 45])).map(lambda one: f"{one[0]:02d}:{one[1]:02d}")
CLOCK_CHANGES = [
    datetime(*day, tzinfo=UTC)
    for day in (
        (2024, 3, 31),
        (2024, 10, 27),
        (2024, 3, 10),
        (2024, 11, 3),
        (2024, 4, 7),
        (2024, 10, 6),
        (2024, 9, 29),
        (2024, 6, 1),
    )
]


@given(
    CLOCKS,
    CLOCKS,
    st.sampled_from(["Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Pacific/Auckland"]),
    st.sampled_from(CLOCK_CHANGES),
    st.integers(-36 * 60, 36 * 60),
)
@settings(max_examples=examples(200), deadline=None)
def test_quiet_hours_follow_local_time(begin: str, end: str, where: str, change: datetime, minutes: int) -> None:
    """Minute by minute on the wall: quiet now, and quiet in every minute until they end."""
    zone = ZoneInfo(where)

    def quiet(when: int) -> bool:
        clock = datetime.fromtimestamp(when / 1000, zone).strftime("%H:%M")
        return begin <= clock < end if begin < end else (clock >= begin or clock < end) and begin != end

    now = round(change.timestamp() * 1000) + minutes * MINUTE
    found = quiet_hours_end(QuietHours(begin, end), now, where)
    folds = datetime.fromtimestamp(now / 1000, zone).utcoffset() != datetime.fromtimestamp(
        (now - 2 * HOUR) / 1000, zone
    ).utcoffset() or (
        found
        and datetime.fromtimestamp(now / 1000, zone).utcoffset()
        != datetime.fromtimestamp((found + HOUR) / 1000, zone).utcoffset()
    )
    if not folds:
        assert bool(found) is quiet(now)
    if found:
        assert found > now
        assert not quiet(found) or folds
        assert folds or all(quiet(when) for when in range(now, found, MINUTE))


# -- delays --------------------------------------------------------------------------------------------------------


def delayed_campaign(**campaign: Any) -> Playbook:
    return make_playbook(
        campaigns={
            "hi": {
                "trigger": {"event": "Quiz Finished", "delay": "10m"},
                "frequency_caps": {"per_session": 9},
                **campaign,
            }
        }
    )


def test_delayed_campaign_is_reevaluated_when_due() -> None:
    visitor = PersonHarness(delayed_campaign(when={"not": {"did": {"event": "Order Completed"}}}))
    visitor.emit(0, "Quiz Finished")
    visitor.emit(MINUTE, "Quiz Finished")
    assert visitor.actions == []
    visitor.store_and_reload()
    visitor.advance(10 * MINUTE)
    (send,) = visitor.actions
    assert isinstance(send, Send)
    assert (send.at, send.because.trigger) == (T0 + 10 * MINUTE, 'event "Quiz Finished", 10 minutes later')
    visitor.emit(10 * MINUTE + SECOND, "Order Completed", order_id="1", revenue=1, products=[])
    visitor.advance(11 * MINUTE)
    assert summarize(visitor.actions)[1:] == [(11 * MINUTE, "suppress not_eligible", "hi")], (
        "the second occasion, for itself"
    )


def test_delayed_campaign_is_suppressed_after_the_session() -> None:
    visitor = PersonHarness(delayed_campaign(trigger={"event": "Quiz Finished", "delay": "1h"}))
    visitor.emit(0, "Quiz Finished")
    assert summarize(visitor.advance(2 * HOUR)) == [(HOUR, "suppress not_on_site", "hi")]


def test_segment_exit_with_a_delay() -> None:
    busy = {"when": {"did": {"event": "Quiz Finished", "within": "5m"}}}
    visitor = PersonHarness(
        make_playbook(segments={"busy": busy}, campaigns={"hi": {"trigger": {"exited_segment": "busy", "delay": "5m"}}})
    )
    visitor.emit(0, "Quiz Finished")
    assert summarize(visitor.advance(20 * MINUTE)) == [(5 * MINUTE, "exited", "busy"), (10 * MINUTE, "send", "hi")]


def test_delayed_message_due_at_night_waits_for_morning() -> None:
    visitor = person_with_email(email_campaign(trigger={"event": "Quiz Finished", "delay": "30m"}))
    visitor.emit(SECOND, "Quiz Finished")
    visitor.advance(HOUR)
    assert suppressions(visitor) == [(SECOND + 30 * MINUTE, "quiet_hours")]
    visitor.advance(QUIET_HOURS_END)
    assert [one.because.trigger for one in visitor.messages] == ['event "Quiz Finished", 30 minutes later']


def test_removed_campaign_is_dropped_when_due() -> None:
    visitor = PersonHarness(delayed_campaign())
    visitor.emit(0, "Quiz Finished")
    visitor.switch_playbook(make_playbook())
    assert visitor.advance(HOUR) == []
    assert visitor.person.deferred == {}


def test_deferred_campaigns_are_bounded() -> None:
    rules = compile_rules(
        Playbook(
            campaigns=tuple(
                Campaign(f"c{n}", "bar", Trigger(event="Quiz Finished", delay="1h"), Creative(Copy("x")))
                for n in range(60)
            )
        )
    )
    person = Person("a:x")
    for n in range(60):
        deferred.defer(person, rules.campaigns[f"c{n}"], 1_000 - n, "x")
    assert sorted(person.deferred) == sorted(f"c{n}" for n in range(10, 60)), "those farthest off gave way"
    assert len(person.timers) == MAX_DEFERRED
    for due in range(2_000, 2_030):
        deferred.defer(person, rules.campaigns["c59"], due, "x")
    assert [one.due for one in person.deferred["c59"]] == [941, *range(2_000, 2_008), 2_029]
    assert person.timers["later:c59"] == 941
    come = deferred.pop_due(person, TimerFired("later", "c59", 2_001))
    assert [one.due for name, one in come if name == "c59"] == [941, 2_000, 2_001]
    assert person.timers["later:c59"] == 2_002


deferred_lists = st.dictionaries(
    st.sampled_from("abc"),
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(
        lambda dues: [DeferredCampaign(due, "x") for due in sorted(dues)]
    ),
    max_size=3,
)


@given(deferred_lists, deferred_lists)
@settings(deadline=None)
def test_login_merges_deferred_campaigns(
    mine: dict[str, list[DeferredCampaign]], theirs: dict[str, list[DeferredCampaign]]
) -> None:
    ann, browser = Person("u:ann"), Person("a:x")
    deferred.merge(ann, mine)
    deferred.merge(browser, theirs)
    merge_into(ann, build_merge_response(browser), T0)
    assert (browser.deferred, browser.timers) == ({}, {})
    expected = {
        name: sorted({one.due for one in [*mine.get(name, []), *theirs.get(name, [])]}) for name in {**mine, **theirs}
    }
    assert {name: [one.due for one in found] for name, found in ann.deferred.items()} == expected
    assert ann.timers == {f"later:{name}": dues[0] for name, dues in expected.items()}


def test_campaign_deferred_before_login_is_sent_after_it() -> None:
    visitor = person_with_email(email_campaign())
    visitor.emit(SECOND, "Quiz Finished")
    known = PersonHarness(email_campaign(), "ann")
    known.person = Person("u:ann")
    merge_into(known.person, build_merge_response(visitor.person), T0 + HOUR)
    known.now = T0 + HOUR
    known.advance(QUIET_HOURS_END)
    assert [(one.person, one.addresses) for one in known.messages] == [("u:ann", {"email": "ann@shop.example"})]


# -- what a message needs ------------------------------------------------------------------------------------------


NO_QUIET_HOURS: dict[str, Any] = {"quiet_hours": {"start": "00:00", "end": "00:00"}}


def test_message_requires_a_valid_address() -> None:
    visitor = PersonHarness(email_campaign(NO_QUIET_HOURS))
    visitor.emit(0, "Quiz Finished")
    assert suppressions(visitor) == [(0, "no_address")]
    visitor.emit(1, "Identified", email="ann@shop.example\r\nBcc: all@shop.example")
    visitor.emit(2, "Quiz Finished")
    assert visitor.messages == []


@pytest.mark.parametrize(
    ("answers", "shop", "sent"),
    [
        ({}, {}, True),
        ({"marketing": False}, {}, False),
        ({"email": False}, {}, False),
        ({"email": True}, {}, True),
        ({"email:marketing": False}, {}, False),
        ({"sms": False}, {}, True),
        ({"email:news": False}, {}, True),
        ({"marketing": True, "email:marketing": False}, {}, False),
        ({}, {"default": "denied"}, False),
        ({"marketing": True}, {"default": "denied"}, True),
        ({}, {"purposes": {"email:marketing": "denied"}}, False),
        ({"email:marketing": True}, {"purposes": {"email:marketing": "denied"}}, True),
        ({"email:marketing": True}, {"default": "denied"}, False),
    ],
)
def test_consent_to_the_purpose_and_on_the_channel(answers: dict[str, bool], shop: dict[str, Any], sent: bool) -> None:
    visitor = person_with_email(email_campaign({**NO_QUIET_HOURS, "consent": shop}))
    if answers:
        visitor.emit(1, "Consent Updated", **answers)
    visitor.emit(2, "Quiz Finished")
    assert bool(visitor.messages) is sent
    if not sent:
        assert suppressions(visitor) == [(2, "consent")]


def test_message_needs_no_open_session() -> None:
    made = make_playbook(
        segments={
            "idle": {"when": {"did_not": {"event": "Quiz Finished", "within": "1d"}, "did": {"event": "Quiz Finished"}}}
        },
        campaigns={"mail": {"format": "email", "trigger": {"segment": "idle"}}},
    )
    visitor = person_with_email(made)
    visitor.emit(SECOND, "Quiz Finished")
    visitor.advance(2 * DAY)
    (message,) = visitor.messages
    assert message.at == T0 + SECOND + DAY
    assert [one.campaign for one in visitor.person.pending_sends] == ["mail"]
    visitor.advance(2 * DAY + 2 * SECOND)
    assert visitor.person.pending_sends == [], "nobody told of it in time: its place is free"


def test_cancel_on_event_withdraws_a_pending_message() -> None:
    visitor = person_with_email(email_campaign(NO_QUIET_HOURS, cancel_on=["Order Completed"]))
    visitor.emit(SECOND, "Quiz Finished")
    visitor.emit(MINUTE, "Order Completed", order_id="1", revenue=1, products=[])
    assert visitor.messages[1].withdrawn_id == visitor.messages[0].id
    assert visitor.person.pending_sends == []


def test_messages_compete_only_within_a_group() -> None:
    two = {name: {"format": "email", "trigger": {"event": "Quiz Finished"}} for name in "ab"}
    visitor = person_with_email(make_playbook(campaigns=two))
    visitor.emit(SECOND, "Quiz Finished")
    assert [one.campaign for one in visitor.messages] == ["a", "b"]
    grouped = {name: {**one, "group": "g"} for name, one in two.items()}
    visitor = person_with_email(make_playbook(shop={"groups": {"g": {}}}, campaigns=grouped))
    visitor.emit(SECOND, "Quiz Finished")
    assert [one.campaign for one in visitor.messages] == ["a"]
    assert suppressions(visitor) == [(SECOND, "lower_priority")]


def test_workflow_send_waits_for_the_end_of_quiet_hours() -> None:
    steps = [{"send": "mail"}, {"wait": "3h"}, {"add_to_segment": "done"}]
    made = make_playbook(
        shop={"quiet_hours": QUIET_HOURS},
        campaigns={"mail": {"format": "email", "trigger": {"workflow": True}}},
        segments={"done": {"static": True}},
        workflows={"w": {"enter_on": {"event": "Quiz Finished"}, "steps": steps}},
    )
    visitor = person_with_email(made)
    visitor.emit(SECOND, "Quiz Finished")
    visitor.advance(QUIET_HOURS_END)
    (message,) = visitor.messages
    assert (message.at, message.workflow) == (T0 + QUIET_HOURS_END, "w")
    assert "done" not in visitor.person.static_segments
    visitor.advance(QUIET_HOURS_END + 3 * HOUR)
    assert "done" in visitor.person.static_segments
    assert len(visitor.messages) == 1
    assert [reason for _, reason in suppressions(visitor)] == ["quiet_hours"]
