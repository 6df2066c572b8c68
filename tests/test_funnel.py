"""The funnel: everybody is in the furthest stage whose condition holds, in no other, and nowhere between two."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Move
from domain.check import findings
from domain.letter import Letter
from state.explain import explain
from state.funnel import stage_of
from state.merge import absorb, hand_over
from state.person import Person
from state.rules import compile_rules
from tests.support import examples
from tests.visitor import T0, Visitor, playbook, short

STAGES = {
    "came": {"session": {"pages_at_least": 1}},
    "looks": {"did": {"event": "Product Viewed", "within": "40s"}},
    "wants": {"cart": {"empty": False}},
    "hurries": {"cart": {"older_than": "20s"}, "not": {"cart": {"older_than": "40s"}}},
    "bought": {"orders": {"last_within": "30s"}},
}
PRODUCT = {"product_id": "p", "price": 5, "quantity": 1}
HAPPENINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Page Viewed", {}), ("Product Viewed", PRODUCT), ("Product Added", PRODUCT), ("Product Removed", PRODUCT),
    ("Order Completed", {"order_id": "o", "total": 5}))


def funnel(names: list[str], **parts: Any) -> Visitor:
    return Visitor(playbook(shop={"funnel": [{"name": name, "when": STAGES[name]} for name in names]}, **parts))


def test_who_moves_leaves_one_stage_and_enters_the_next_in_one_happening() -> None:
    visitor = funnel(["came", "looks", "wants"])
    assert short(visitor.does(0, "Page Viewed")) == [(0, "entered", "funnel_came")]
    assert short(visitor.does(1, "Product Added", **PRODUCT)) == [
        (1, "entered", "funnel_wants"), (1, "left", "funnel_came")], "a stage may be passed over"
    assert short(visitor.does(2, "Product Viewed", **PRODUCT)) == [], "an earlier stage is none any more"
    assert short(visitor.does(3, "Product Removed", **PRODUCT)) == [
        (3, "left", "funnel_wants"), (3, "entered", "funnel_looks")]
    assert short(visitor.waits(40_002)) == [(40_002, "left", "funnel_looks"), (40_002, "entered", "funnel_came")]
    assert short(visitor.waits(3_600_000)) == [(1_800_003, "left", "funnel_came")]


def test_stages_that_change_at_the_same_instant_leave_nobody_between_them() -> None:
    visitor = Visitor(playbook(
        shop={"funnel": [
            {"name": "a", "when": {"did": {"event": "Product Viewed", "within": "10s"}}},
            {"name": "b", "when": {"session": {"seconds_at_least": 10}}}]},
        campaigns={"next": {"trigger": {"segment": "funnel_b"}, "when": {"not": {"in_segment": "funnel_a"}}}}))
    visitor.does(0, "Product Viewed", product_id="p")
    moves = visitor.waits(10_000)
    assert sorted(short(moves)) == [(10_000, "entered", "funnel_b"), (10_000, "left", "funnel_a"),
                                    (10_000, "send", "next")]
    assert len({move.id.rpartition("-")[0] for move in moves if isinstance(move, Move)}) == 1, "one happening"


def test_conditions_and_campaigns_speak_of_stages() -> None:
    visitor = funnel(["came", "looks", "wants"], segments={
        "far": {"when": {"funnel": {"at_least": "looks"}}}, "exactly": {"when": {"funnel": {"stage": "came"}}}})
    visitor.does(0, "Page Viewed")
    assert set(visitor.person.segments) == {"funnel_came", "exactly"}
    visitor.does(1, "Product Added", **PRODUCT)
    assert set(visitor.person.segments) == {"funnel_wants", "far"}
    assert "  stage           wants\n" in explain(visitor.person, "EUR") + "\n"


def test_a_segment_cannot_take_the_name_of_a_stage() -> None:
    with pytest.raises(ValueError, match="funnel_came"):
        funnel(["came"], segments={"funnel_came": {"when": {}}})


def test_a_stage_may_speak_of_a_later_one_and_not_of_an_earlier_one() -> None:
    first = {"name": "first", "when": {"not": {"in_segment": "funnel_last"}}}
    last = {"name": "last", "when": {"session": {"pages_at_least": 2}}}
    Visitor(playbook(shop={"funnel": [first, last]}))
    with pytest.raises(ValueError, match="circle"):
        Visitor(playbook(shop={"funnel": [last, first]}))


def test_a_circle_by_way_of_the_stages_is_found_before_it_is_live() -> None:
    stages = [{"name": "first", "when": STAGES["came"]}, {"name": "last", "when": {"in_segment": "keen"}}]
    declared = playbook(shop={"funnel": stages}, segments={"keen": {"when": {"in_segment": "funnel_first"}}})
    [found] = [one for one in findings(declared) if "circle" in one.text]
    assert (found.part, found.name) == ("segments", "keen")
    with pytest.raises(ValueError, match="circle"):
        compile_rules(declared)


def furthest(visitor: Visitor, names: list[str], carts: list[tuple[int, bool]], pages: bool, looked: int | None,
             bought: int | None) -> str:
    """The stage by a plain reading: of the last change of the cart, the visit, the last look, the last order."""
    now = visitor.now - T0
    full = bool(carts) and carts[-1][1]
    since = carts[-1][0] if full else 0
    holds = {"came": pages, "looks": looked is not None and now < looked + 40_000, "wants": full,
             "hurries": full and since + 20_000 <= now < since + 40_000,
             "bought": bought is not None and now < bought + 30_000}
    return next((name for name in reversed(names) if holds[name]), "")


@given(st.permutations([*STAGES]), st.integers(1, 5),
       st.lists(st.tuples(st.sampled_from([0, 1_000, 9_000, 20_000, 40_000]), st.integers(0, 4), st.booleans()),
                min_size=1, max_size=9))
@settings(max_examples=examples(150), deadline=None)
def test_at_every_instant_the_furthest_stage_that_holds(order: list[str], n: int, history: Any) -> None:
    names = order[:n]
    visitor = funnel(names)
    carts: list[tuple[int, bool]] = []
    pages, looked, bought, at = False, None, None, 0

    def check() -> None:
        stage = furthest(visitor, names, carts, pages, looked, bought)
        assert list(visitor.person.segments) == (["funnel_" + stage] if stage else [])
        assert stage_of(visitor.person) == stage

    for k, (gap, what, rests) in enumerate([*history, (90_000, 0, False)]):
        for moment in sorted({now - before for now in range(at, at + gap + 1, 1_000) for before in (1, 0)}):
            if moment + T0 >= visitor.now and visitor.now:
                visitor.waits(moment)
                check()
        at += gap
        name, properties = HAPPENINGS[what]
        if name == "Order Completed":
            properties = {**properties, "order_id": f"o{k}"}
            carts.append((at, False))
            bought = at
        elif name == "Product Added" and not (carts and carts[-1][1]):
            carts.append((at, True))
        elif name == "Product Removed" and carts and carts[-1][1]:
            left = visitor.person.cart.items["p"].quantity if visitor.person.cart else 0
            if left == 1:
                carts.append((at, False))
        elif name == "Page Viewed":
            pages = True
        elif name == "Product Viewed":
            looked = at
        visitor.does(at, name, **properties)
        check()
        if rests:
            visitor.rests()


def test_the_stage_of_two_who_turn_out_to_be_one_is_that_of_one() -> None:
    browser, ann = funnel(["came", "looks", "wants"]), funnel(["came", "looks", "wants"])
    ann.person, ann.name = Person(id="u:ann"), "y"
    browser.does(0, "Product Added", **PRODUCT)
    ann.does(1, "Page Viewed")
    assert (stage_of(browser.person), stage_of(ann.person)) == ("wants", "came")
    absorb(ann.person, hand_over(browser.person), T0 + 2)
    ann._run("letters-0-1", T0 + 2, Letter(kind="handover", sender="a:x", to="u:ann", seq=1))
    assert stage_of(ann.person) == "wants"
    assert len([name for name in ann.person.segments if name.startswith("funnel_")]) == 1
