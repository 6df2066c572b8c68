"""Endless loops and static segments: the check agrees with the engine."""

from typing import Any

import pytest

from domain.playbook.playbook import Playbook
from domain.validation.validate import validate
from operators.advance_workflows import ENDLESS_LOOP
from tests.harness.person import PersonHarness, make_playbook, summarize

EMPTY, FULL = {"cart": {"empty": True}}, {"cart": {"items_at_least": 1}}
MARKED = {"in_segment": "marked"}
END = {"id": "end", "exit": True}


def reported_and_looped(*steps: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether the check reports a loop, and whether the engine ran into one."""
    book = make_playbook(
        segments={"marked": {"static": True, "enter_on": [{"event": "Products Searched"}]}},
        workflows={"w": {"enter_on": {"event": "Cart Viewed"}, "steps": list(steps), "reentry": "always"}},
    )
    return any("endless loop" in one.message for one in validate(book)), ENDLESS_LOOP in outcome_of_session(book)


def outcome_of_session(book: Playbook) -> str:
    """Return the actions of a session with an empty and a full cart, with and without the segment."""
    ann = PersonHarness(book)
    for at, name in enumerate(
        (
            "Cart Viewed",
            "Product Added",
            "Products Searched",
            "Cart Viewed",
            "Page Viewed",
            "Cart Cleared",
            "Cart Viewed",
            "Product Added",
            "Cart Viewed",
        )
    ):
        ann.emit(at * 1_000, name, **({"product_id": f"p{at}", "price": 5} if name == "Product Added" else {}))
    ann.advance(3 * 86_400_000)
    return str(summarize(ann.actions))


@pytest.mark.parametrize(
    "steps",
    [
        ({"id": "a", "goal": "seen"}, {"goto": "a"}),
        ({"id": "a", "add_to_segment": "marked"}, {"wait_for": {"when": EMPTY, "then": "a", "else": "end"}}, END),
        ({"id": "a", "wait_for": {"when": FULL, "else": "end"}}, {"set_traits": {"seen": True}, "goto": "a"}, END),
        ({"id": "a", "branch": [{"when": EMPTY, "goto": "b"}]}, END, {"id": "b", "goal": "seen", "goto": "a"}),
        ({"id": "a", "branch": [{"when": EMPTY, "goto": "end"}]}, {"remove_from_segment": "marked", "goto": "a"}, END),
        ({"id": "a", "split": {"b": 1, "c": 1}}, {"id": "b", "goto": "a"}, {"id": "c", "goto": "a"}),
    ],
)
def test_reported_cycles_loop_in_the_engine(steps: tuple[dict[str, Any], ...]) -> None:
    assert reported_and_looped(*steps) == (True, True)


@pytest.mark.parametrize(
    "steps",
    [
        ({"id": "a", "wait": "1d"}, {"goal": "seen", "goto": "a"}),
        ({"id": "a", "wait_for": {"event": "Page Viewed"}}, {"goal": "seen", "goto": "a"}),
        (
            {"id": "a", "wait_for": {"when": FULL, "else": "end"}},
            {"wait_for": {"when": EMPTY, "then": "a", "else": "end"}},
            END,
        ),
        ({"id": "a", "wait_for": {"when": MARKED, "timeout": "1d", "then": "end", "else": "a"}}, END),
        (
            {"id": "a", "branch": [{"when": MARKED, "goto": "b"}]},
            END,
            {"id": "b", "remove_from_segment": "marked", "goto": "a"},
        ),
        (
            {"id": "a", "branch": [{"when": {"has": {"trait": {"seen": True}}}, "goto": "end"}]},
            {"set_traits": {"seen": True}, "goto": "a"},
            END,
        ),
        (
            {"id": "a", "branch": [{"when": FULL, "goto": "b"}]},
            END,
            {"id": "b", "branch": [{"when": EMPTY, "goto": "a"}]},
            {"id": "last", "exit": True},
        ),
    ],
)
def test_accepted_workflows_do_not_loop(steps: tuple[dict[str, Any], ...]) -> None:
    assert reported_and_looped(*steps) == (False, False)


@pytest.mark.parametrize(
    ("enter", "leave", "reported"),
    [
        ({}, {}, True),
        ({"when": FULL}, {}, True),
        ({"properties": {"price": 5}}, {}, True),
        ({}, {"when": EMPTY}, False),
        ({}, {"properties": {"price": 9}}, False),
    ],
)
def test_exit_on_wins_over_enter_on(enter: dict[str, Any], leave: dict[str, Any], reported: bool) -> None:
    book = make_playbook(
        segments={
            "marked": {
                "static": True,
                "enter_on": [{"event": "Product Added", **enter}],
                "exit_on": [{"event": "Product Added", **leave}],
            }
        }
    )
    assert any("adds no one" in one.message for one in validate(book)) is reported
    assert ("marked" in outcome_of_session(book)) is not reported
