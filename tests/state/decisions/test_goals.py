"""Goals: every hope ends once, in time or not, with the side and the worth that it had."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Outcome, Send
from domain.playbook.playbook import Playbook
from state.decisions import goals as decisions_goals
from state.merge import build_merge_response, merge_into
from state.person.model import MAX_PENDING_GOALS, PendingGoal, Person
from state.playbook.compiled import compile_rules
from tests.harness.person import T0, PersonHarness, make_playbook

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def quiz_campaign(goal: dict[str, Any], shop: dict[str, Any] | None = None, **rest: Any) -> Playbook:
    return make_playbook(
        shop=shop or {},
        campaigns={
            "c": {
                "trigger": {"event": "Quiz Finished"},
                "format": "bar",
                "goal": goal,
                "frequency_caps": {"per_session": 99},
                **rest,
            }
        },
    )


def send_and_show(harness: PersonHarness, at: int) -> str:
    """The offer comes and is shown a second later."""
    (send,) = [one for one in harness.emit(at, "Quiz Finished") if isinstance(one, Send)]
    harness.emit(at + SECOND, "Offer Shown", action_id=send.id, campaign="c")
    return send.id


def goal_outcomes(harness: PersonHarness) -> list[Outcome]:
    return [one for one in harness.outcomes if one.kind == "goal"]


def test_goal_reached_in_time_yields_positive_outcome() -> None:
    visitor = PersonHarness(quiz_campaign({"event": "Order Completed", "within": "7d", "value": "revenue"}))
    action_id = send_and_show(visitor, 0)
    assert visitor.person.timers[f"goal:{action_id}"] == T0 + SECOND + 7 * DAY
    visitor.emit(HOUR, "Order Completed", order_id="1", revenue="19.90", products=[])
    (outcome,) = goal_outcomes(visitor)
    assert (outcome.label, outcome.value, outcome.campaign, outcome.action_id) == (True, 1990.0, "c", action_id)
    assert (outcome.features_at, outcome.at, outcome.variant, outcome.propensity) == (T0 + SECOND, T0 + HOUR, "", 1.0)
    assert (visitor.person.pending_goals, f"goal:{action_id}" in visitor.person.timers) == ([], False)
    visitor.emit(2 * HOUR, "Order Completed", order_id="2", revenue=5, products=[])
    visitor.advance(9 * DAY)
    assert len(goal_outcomes(visitor)) == 1, "one hope, one outcome"


def test_goal_not_reached_yields_negative_outcome() -> None:
    visitor = PersonHarness(quiz_campaign({"within": "2h"}))
    send_and_show(visitor, 0)
    visitor.advance(2 * HOUR)
    assert goal_outcomes(visitor) == []
    visitor.emit(SECOND + 2 * HOUR, "Order Completed", order_id="1", revenue=1, products=[])
    (outcome,) = goal_outcomes(visitor)
    assert (outcome.label, outcome.value, outcome.at) == (False, 0.0, T0 + SECOND + 2 * HOUR)


def test_unshown_send_opens_no_goal() -> None:
    visitor = PersonHarness(quiz_campaign({}))
    visitor.emit(0, "Quiz Finished")
    visitor.emit(SECOND, "Order Completed", order_id="1", revenue=1, products=[])
    assert goal_outcomes(visitor) == []


def test_second_exposure_joins_the_pending_goal() -> None:
    visitor = PersonHarness(quiz_campaign({"within": "1d"}))
    first = send_and_show(visitor, 0)
    send_and_show(visitor, HOUR)
    assert [one.action_id for one in visitor.person.pending_goals] == [first]
    visitor.emit(2 * HOUR, "Order Completed", order_id="1", revenue=1, products=[])
    send_and_show(visitor, 3 * HOUR)
    visitor.advance(3 * DAY)
    assert [(one.label, one.action_id == first) for one in goal_outcomes(visitor)] == [(True, True), (False, False)]


def test_goal_matches_properties_of_any_event() -> None:
    visitor = PersonHarness(
        quiz_campaign({"event": "Quiz Again", "where": {"level": {"at_least": 3}}, "value": "score"})
    )
    send_and_show(visitor, 0)
    visitor.emit(MINUTE, "Quiz Again", level=2, score=7)
    assert goal_outcomes(visitor) == []
    visitor.emit(2 * MINUTE, "Quiz Again", level=3, score=7.5)
    assert [(one.label, one.value) for one in goal_outcomes(visitor)] == [(True, 7.5)]


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"revenue": 10, "currency": "USD"}, 900.0),
        ({"revenue": 10, "currency": "XTS"}, 0.0),
        ({"revenue": 10}, 1000.0),
        ({}, 0.0),
        ({"revenue": "0.005"}, 1.0),
    ],
)
def test_goal_value_is_in_minor_units_of_shop_currency(properties: dict[str, Any], value: float) -> None:
    visitor = PersonHarness(
        quiz_campaign({"event": "Order Completed", "value": "revenue"}, {"exchange_rates": {"USD": 0.9}})
    )
    send_and_show(visitor, 0)
    visitor.emit(MINUTE, "Order Completed", order_id="1", products=[], **properties)
    assert [one.value for one in goal_outcomes(visitor)] == [value]


@pytest.mark.parametrize("worth", ["many", None, [1], float("inf"), {"a": 1}, True])
def test_invalid_goal_value_is_zero(worth: Any) -> None:
    visitor = PersonHarness(quiz_campaign({"event": "Quiz Again", "value": "score"}))
    send_and_show(visitor, 0)
    visitor.emit(MINUTE, "Quiz Again", score=worth)
    assert [(one.label, one.value) for one in goal_outcomes(visitor)] == [(True, 0.0)]


def test_late_event_before_exposure_is_not_attributed() -> None:
    visitor = PersonHarness(quiz_campaign({}))
    send_and_show(visitor, HOUR)
    visitor.delay = 2 * HOUR
    visitor.emit(HOUR + MINUTE, "Order Completed", order_id="1", revenue=1, products=[])
    assert goal_outcomes(visitor) == []
    visitor.delay = 0
    visitor.emit(HOUR + 2 * MINUTE, "Order Completed", order_id="2", revenue=1, products=[])
    assert [one.label for one in goal_outcomes(visitor)] == [True]


def test_holdout_is_measured_like_a_variant() -> None:
    visitor = PersonHarness(quiz_campaign({"within": "1d"}, holdout=0.999))
    visitor.emit(0, "Quiz Finished")
    visitor.emit(HOUR, "Quiz Finished")
    visitor.emit(2 * HOUR, "Order Completed", order_id="1", revenue=1, products=[])
    visitor.emit(3 * HOUR, "Quiz Finished")
    visitor.advance(2 * DAY)
    assert [(one.variant, one.propensity, one.label) for one in goal_outcomes(visitor)] == [
        ("holdout", 0.999, True),
        ("holdout", 0.999, False),
    ]
    assert len({one.action_id for one in goal_outcomes(visitor)}) == 2
    assert visitor.person.exposures == {}


def test_message_goal_starts_at_delivery() -> None:
    visitor = PersonHarness(quiz_campaign({"event": "Message Clicked"}, format="email"))
    visitor.emit(0, "Identified", email="ann@shop.example")
    visitor.emit(SECOND, "Quiz Finished")
    (message,) = visitor.messages
    assert visitor.person.pending_goals == []
    visitor.emit(MINUTE, "Message Delivered", message_id=message.id, campaign="c", channel="email")
    assert [one.opened_at for one in visitor.person.pending_goals] == [T0 + MINUTE]
    visitor.emit(HOUR, "Message Clicked", message_id=message.id, campaign="c", channel="email")
    assert [one.label for one in goal_outcomes(visitor)] == [True]


def test_removed_campaign_yields_no_outcome() -> None:
    visitor = PersonHarness(quiz_campaign({"within": "1d"}))
    send_and_show(visitor, 0)
    visitor.switch_playbook(make_playbook())
    visitor.advance(2 * DAY)
    assert (goal_outcomes(visitor), visitor.person.pending_goals) == ([], [])


def test_pending_goals_are_bounded() -> None:
    rules = compile_rules(quiz_campaign({}))
    person = Person("a:x", pending_goals=[PendingGoal(f"c{n}", f"id{n}", 0, 9) for n in range(MAX_PENDING_GOALS)])
    decisions_goals.open_goal(person, rules.campaigns["c"], "id", 5, "", 1.0)
    assert len(person.pending_goals) == MAX_PENDING_GOALS
    decisions_goals.merge(person, [PendingGoal("d", "id", 0, 9)])
    assert len(person.pending_goals) == MAX_PENDING_GOALS


pending_goal_lists = st.dictionaries(
    st.sampled_from("abc"), st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=3
).map(lambda drawn: [PendingGoal(name, f"{name}{at}{mark}", at, at + 9) for name, (at, mark) in drawn.items()])


@given(pending_goal_lists, pending_goal_lists)
@settings(deadline=None)
def test_login_merges_pending_goals(mine: list[PendingGoal], theirs: list[PendingGoal]) -> None:
    def together(one: list[PendingGoal], other: list[PendingGoal]) -> dict[str, PendingGoal]:
        ann, browser = Person("u:ann"), Person("a:x")
        decisions_goals.merge(ann, one)
        decisions_goals.merge(browser, other)
        merge_into(ann, build_merge_response(browser), T0)
        assert {f"goal:{hope.action_id}": hope.until for hope in ann.pending_goals} == ann.timers
        return {hope.campaign: hope for hope in ann.pending_goals}

    found = together(mine, theirs)
    assert found == together(theirs, mine)
    for campaign, hope in found.items():
        assert hope.opened_at == min(one.opened_at for one in [*mine, *theirs] if one.campaign == campaign)
