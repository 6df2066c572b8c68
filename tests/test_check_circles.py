"""What the check says of circles and of tags is what the engine does: whom it blames goes round, whom it spares not."""

from typing import Any

import pytest

from domain.check import findings
from domain.playbook import Playbook
from operators.advance_workflows import CIRCLE
from tests.visitor import Visitor, playbook, short

EMPTY, FULL = {"cart": {"empty": True}}, {"cart": {"items_at_least": 1}}
MARKED = {"in_segment": "marked"}
END = {"id": "end", "exit": True}


def told(*steps: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the check blames a circle of this workflow, and whether anybody went round in one."""
    book = playbook(
        segments={"marked": {"static": True, "enter_on": [{"event": "Products Searched"}]}},
        workflows={"w": {"enters": {"event": "Cart Viewed"}, "steps": list(steps), "again": "always"}})
    return any("goes round for ever" in one.text for one in findings(book)), CIRCLE in went(book)


def went(book: Playbook) -> str:
    """Everything that came of a busy visit, with an empty cart and a full one, marked and not."""
    ann = Visitor(book)
    for at, name in enumerate(("Cart Viewed", "Product Added", "Products Searched", "Cart Viewed", "Page Viewed",
                               "Cart Cleared", "Cart Viewed", "Product Added", "Cart Viewed")):
        ann.does(at * 1_000, name, **({"product_id": f"p{at}", "price": 5} if name == "Product Added" else {}))
    ann.waits(3 * 86_400_000)
    return str(short(ann.actions))


@pytest.mark.parametrize("steps", [
    ({"id": "a", "goal": "seen"}, {"go": "a"}),
    ({"id": "a", "tag": "marked"}, {"wait_for": {"when": EMPTY, "then": "a", "otherwise": "end"}}, END),
    ({"id": "a", "wait_for": {"when": FULL, "otherwise": "end"}}, {"set": {"seen": True}, "go": "a"}, END),
    ({"id": "a", "branch": [{"when": EMPTY, "go": "b"}]}, END, {"id": "b", "goal": "seen", "go": "a"}),
    ({"id": "a", "branch": [{"when": EMPTY, "go": "end"}]}, {"untag": "marked", "go": "a"}, END),
    ({"id": "a", "split": {"b": 1, "c": 1}}, {"id": "b", "go": "a"}, {"id": "c", "go": "a"}),
])
def test_who_is_blamed_goes_round_for_ever(steps: tuple[dict[str, Any], ...]) -> None:
    assert told(*steps) == (True, True)


@pytest.mark.parametrize("steps", [
    ({"id": "a", "wait": "1d"}, {"goal": "seen", "go": "a"}),
    ({"id": "a", "wait_for": {"event": "Page Viewed"}}, {"goal": "seen", "go": "a"}),
    ({"id": "a", "wait_for": {"when": FULL, "otherwise": "end"}},
     {"wait_for": {"when": EMPTY, "then": "a", "otherwise": "end"}}, END),
    ({"id": "a", "wait_for": {"when": MARKED, "within": "1d", "then": "end", "otherwise": "a"}}, END),
    ({"id": "a", "branch": [{"when": MARKED, "go": "b"}]}, END, {"id": "b", "untag": "marked", "go": "a"}),
    ({"id": "a", "branch": [{"when": {"has": {"trait": {"seen": True}}}, "go": "end"}]},
     {"set": {"seen": True}, "go": "a"}, END),
    ({"id": "a", "branch": [{"when": FULL, "go": "b"}]}, END,
     {"id": "b", "branch": [{"when": EMPTY, "go": "a"}]}, {"id": "last", "exit": True}),
])
def test_who_is_spared_does_not(steps: tuple[dict[str, Any], ...]) -> None:
    assert told(*steps) == (False, False)


@pytest.mark.parametrize(("enter", "leave", "blamed"), [
    ({}, {}, True), ({"when": FULL}, {}, True), ({"properties": {"price": 5}}, {}, True),
    ({}, {"when": EMPTY}, False), ({}, {"properties": {"price": 9}}, False),
])
def test_what_takes_out_at_the_same_moment_wins(
    enter: dict[str, Any], leave: dict[str, Any], blamed: bool,
) -> None:
    book = playbook(segments={"marked": {
        "static": True, "enter_on": [{"event": "Product Added", **enter}],
        "leave_on": [{"event": "Product Added", **leave}]}})
    assert any("puts nobody in" in one.text for one in findings(book)) is blamed
    assert ("marked" in went(book)) is not blamed
