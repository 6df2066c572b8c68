"""Goals: every hope ends once, in time or not, with the side and the worth that it had."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Send
from domain.outcome import Outcome
from domain.playbook import Playbook
from state import hopes
from state.merge import absorb, hand_over
from state.person import MAX_HOPES, Hope, Person
from state.rules import compile_rules
from tests.visitor import T0, Visitor, playbook

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def on_quiz(goal: dict[str, Any], shop: dict[str, Any] | None = None, **rest: Any) -> Playbook:
    return playbook(shop=shop or {}, campaigns={"c": {
        "trigger": {"event": "Quiz Finished"}, "format": "bar", "goal": goal, "limits": {"per_session": 99}, **rest}})


def shown(visitor: Visitor, at: int) -> str:
    """The offer comes and is shown a second later."""
    (send,) = [one for one in visitor.does(at, "Quiz Finished") if isinstance(one, Send)]
    visitor.does(at + SECOND, "Offer Shown", action_id=send.id, campaign="c")
    return send.id


def goals(visitor: Visitor) -> list[Outcome]:
    return [one for one in visitor.outcomes if one.kind == "goal"]


def test_a_goal_that_is_reached_in_time() -> None:
    visitor = Visitor(on_quiz({"event": "Order Completed", "within": "7d", "value": "revenue"}))
    action_id = shown(visitor, 0)
    assert visitor.person.timers[f"hope:{action_id}"] == T0 + SECOND + 7 * DAY
    visitor.does(HOUR, "Order Completed", order_id="1", revenue="19.90", products=[])
    (outcome,) = goals(visitor)
    assert (outcome.label, outcome.value, outcome.campaign, outcome.action_id) == (True, 1990.0, "c", action_id)
    assert (outcome.taken_at, outcome.at, outcome.variant, outcome.propensity) == (T0 + SECOND, T0 + HOUR, "", 1.0)
    assert (visitor.person.hopes, f"hope:{action_id}" in visitor.person.timers) == ([], False)
    visitor.does(2 * HOUR, "Order Completed", order_id="2", revenue=5, products=[])
    visitor.waits(9 * DAY)
    assert len(goals(visitor)) == 1, "one hope, one outcome"


def test_a_goal_that_is_not() -> None:
    visitor = Visitor(on_quiz({"within": "2h"}))
    shown(visitor, 0)
    visitor.waits(2 * HOUR)
    assert goals(visitor) == []
    visitor.does(SECOND + 2 * HOUR, "Order Completed", order_id="1", revenue=1, products=[])
    (outcome,) = goals(visitor)
    assert (outcome.label, outcome.value, outcome.at) == (False, 0.0, T0 + SECOND + 2 * HOUR)


def test_what_was_only_sent_is_not_hoped_for() -> None:
    visitor = Visitor(on_quiz({}))
    visitor.does(0, "Quiz Finished")
    visitor.does(SECOND, "Order Completed", order_id="1", revenue=1, products=[])
    assert goals(visitor) == []


def test_while_one_hope_is_open_another_showing_belongs_to_it() -> None:
    visitor = Visitor(on_quiz({"within": "1d"}))
    first = shown(visitor, 0)
    shown(visitor, HOUR)
    assert [one.action_id for one in visitor.person.hopes] == [first]
    visitor.does(2 * HOUR, "Order Completed", order_id="1", revenue=1, products=[])
    shown(visitor, 3 * HOUR)
    visitor.waits(3 * DAY)
    assert [(one.label, one.action_id == first) for one in goals(visitor)] == [(True, True), (False, False)]


def test_properties_and_words_of_any_event() -> None:
    visitor = Visitor(on_quiz({"event": "Quiz Again", "where": {"level": {"at_least": 3}}, "value": "score"}))
    shown(visitor, 0)
    visitor.does(MINUTE, "Quiz Again", level=2, score=7)
    assert goals(visitor) == []
    visitor.does(2 * MINUTE, "Quiz Again", level=3, score=7.5)
    assert [(one.label, one.value) for one in goals(visitor)] == [(True, 7.5)]


@pytest.mark.parametrize(("properties", "value"), [
    ({"revenue": 10, "currency": "USD"}, 900.0), ({"revenue": 10, "currency": "XTS"}, 0.0), ({"revenue": 10}, 1000.0),
    ({}, 0.0), ({"revenue": "0.005"}, 1.0),
])
def test_amounts_are_told_in_minor_units_of_the_shops_currency(properties: dict[str, Any], value: float) -> None:
    visitor = Visitor(on_quiz({"event": "Order Completed", "value": "revenue"}, {"rates": {"USD": 0.9}}))
    shown(visitor, 0)
    visitor.does(MINUTE, "Order Completed", order_id="1", products=[], **properties)
    assert [one.value for one in goals(visitor)] == [value]


@pytest.mark.parametrize("worth", ["many", None, [1], float("inf"), {"a": 1}, True])
def test_nonsense_is_worth_nothing(worth: Any) -> None:
    visitor = Visitor(on_quiz({"event": "Quiz Again", "value": "score"}))
    shown(visitor, 0)
    visitor.does(MINUTE, "Quiz Again", score=worth)
    assert [(one.label, one.value) for one in goals(visitor)] == [(True, 0.0)]


def test_what_happened_before_it_was_shown_and_is_told_late_is_no_merit() -> None:
    visitor = Visitor(on_quiz({}))
    shown(visitor, HOUR)
    visitor.late = 2 * HOUR
    visitor.does(HOUR + MINUTE, "Order Completed", order_id="1", revenue=1, products=[])
    assert goals(visitor) == []
    visitor.late = 0
    visitor.does(HOUR + 2 * MINUTE, "Order Completed", order_id="2", revenue=1, products=[])
    assert [one.label for one in goals(visitor)] == [True]


def test_who_is_held_out_counts_as_a_side() -> None:
    visitor = Visitor(on_quiz({"within": "1d"}, holdout=0.999))
    visitor.does(0, "Quiz Finished")
    visitor.does(HOUR, "Quiz Finished")
    visitor.does(2 * HOUR, "Order Completed", order_id="1", revenue=1, products=[])
    visitor.does(3 * HOUR, "Quiz Finished")
    visitor.waits(2 * DAY)
    assert [(one.variant, one.propensity, one.label) for one in goals(visitor)] == [
        ("holdout", 0.999, True), ("holdout", 0.999, False)]
    assert len({one.action_id for one in goals(visitor)}) == 2
    assert visitor.person.said == {}


def test_a_message_is_hoped_for_from_when_it_was_accepted() -> None:
    visitor = Visitor(on_quiz({"event": "Message Clicked"}, format="email"))
    visitor.does(0, "Identified", email="ann@shop.example")
    visitor.does(SECOND, "Quiz Finished")
    (message,) = visitor.messages
    assert visitor.person.hopes == []
    visitor.does(MINUTE, "Message Delivered", message_id=message.id, campaign="c", channel="email")
    assert [one.at for one in visitor.person.hopes] == [T0 + MINUTE]
    visitor.does(HOUR, "Message Clicked", message_id=message.id, campaign="c", channel="email")
    assert [one.label for one in goals(visitor)] == [True]


def test_a_campaign_that_left_the_playbook_leaves_no_outcome() -> None:
    visitor = Visitor(on_quiz({"within": "1d"}))
    shown(visitor, 0)
    visitor.swaps(playbook())
    visitor.waits(2 * DAY)
    assert (goals(visitor), visitor.person.hopes) == ([], [])


def test_hopes_are_bounded() -> None:
    rules = compile_rules(on_quiz({}))
    person = Person("a:x", hopes=[Hope(f"c{n}", f"id{n}", 0, 9) for n in range(MAX_HOPES)])
    hopes.begin(person, rules.campaigns["c"], "id", 5, "", 1.0)
    assert len(person.hopes) == MAX_HOPES
    hopes.join(person, [Hope("d", "id", 0, 9)])
    assert len(person.hopes) == MAX_HOPES


hope_lists = st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=3).map(
    lambda drawn: [Hope(name, f"{name}{at}{mark}", at, at + 9) for name, (at, mark) in drawn.items()])


@given(hope_lists, hope_lists)
@settings(deadline=None)
def test_two_ids_of_one_person_hope_together(mine: list[Hope], theirs: list[Hope]) -> None:
    def together(one: list[Hope], other: list[Hope]) -> dict[str, Hope]:
        ann, browser = Person("u:ann"), Person("a:x")
        hopes.join(ann, one)
        hopes.join(browser, other)
        absorb(ann, hand_over(browser), T0)
        assert {f"hope:{hope.action_id}": hope.until for hope in ann.hopes} == ann.timers
        return {hope.campaign: hope for hope in ann.hopes}

    found = together(mine, theirs)
    assert found == together(theirs, mine)
    for campaign, hope in found.items():
        assert hope.at == min(one.at for one in [*mine, *theirs] if one.campaign == campaign)
