"""The funnel: everybody is in the furthest stage whose condition holds, in no other, and nowhere between two."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import SegmentChange, ShardMessage
from domain.validation.validate import validate
from state.explain.explain import explain
from state.merge import build_merge_response, merge_into
from state.person.model import Person
from state.playbook.compiled import compile_rules, funnel_stage
from tests.harness.person import T0, PersonHarness, make_playbook, summarize
from tests.harness.support import examples

STAGES = {
    "came": {"session": {"pages_at_least": 1}},
    "looks": {"did": {"event": "Product Viewed", "within": "40s"}},
    "wants": {"cart": {"empty": False}},
    "hurries": {"cart": {"older_than": "20s"}, "not": {"cart": {"older_than": "40s"}}},
    "bought": {"orders": {"last_within": "30s"}},
}
PRODUCT = {"product_id": "p", "price": 5, "quantity": 1}
EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Page Viewed", {}),
    ("Product Viewed", PRODUCT),
    ("Product Added", PRODUCT),
    ("Product Removed", PRODUCT),
    ("Order Completed", {"order_id": "o", "total": 5}),
)


def person_with_funnel(names: list[str], **parts: Any) -> PersonHarness:
    return PersonHarness(
        make_playbook(shop={"funnel": [{"name": name, "when": STAGES[name]} for name in names]}, **parts)
    )


def test_stage_change_is_one_exit_and_one_entry() -> None:
    visitor = person_with_funnel(["came", "looks", "wants"])
    assert summarize(visitor.emit(0, "Page Viewed")) == [(0, "entered", "funnel_came")]
    assert summarize(visitor.emit(1, "Product Added", **PRODUCT)) == [
        (1, "entered", "funnel_wants"),
        (1, "exited", "funnel_came"),
    ], "a stage may be passed over"
    assert summarize(visitor.emit(2, "Product Viewed", **PRODUCT)) == [], "an earlier stage is none any more"
    assert summarize(visitor.emit(3, "Product Removed", **PRODUCT)) == [
        (3, "exited", "funnel_wants"),
        (3, "entered", "funnel_looks"),
    ]
    assert summarize(visitor.advance(40_002)) == [
        (40_002, "exited", "funnel_looks"),
        (40_002, "entered", "funnel_came"),
    ]
    assert summarize(visitor.advance(3_600_000)) == [(1_800_003, "exited", "funnel_came")]


def test_simultaneous_stage_changes_leave_no_gap() -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={
                "funnel": [
                    {"name": "a", "when": {"did": {"event": "Product Viewed", "within": "10s"}}},
                    {"name": "b", "when": {"session": {"seconds_at_least": 10}}},
                ]
            },
            campaigns={"next": {"trigger": {"segment": "funnel_b"}, "when": {"not": {"in_segment": "funnel_a"}}}},
        )
    )
    visitor.emit(0, "Product Viewed", product_id="p")
    moves = visitor.advance(10_000)
    assert sorted(summarize(moves)) == [
        (10_000, "entered", "funnel_b"),
        (10_000, "exited", "funnel_a"),
        (10_000, "send", "next"),
    ]
    assert len({move.id.rpartition("-")[0] for move in moves if isinstance(move, SegmentChange)}) == 1, "one happening"


def test_conditions_and_campaigns_can_refer_to_stages() -> None:
    visitor = person_with_funnel(
        ["came", "looks", "wants"],
        segments={
            "far": {"when": {"funnel": {"at_least": "looks"}}},
            "exactly": {"when": {"funnel": {"stage": "came"}}},
        },
    )
    visitor.emit(0, "Page Viewed")
    assert set(visitor.person.segments) == {"funnel_came", "exactly"}
    visitor.emit(1, "Product Added", **PRODUCT)
    assert set(visitor.person.segments) == {"funnel_wants", "far"}
    assert "  stage           wants\n" in explain(visitor.person, "EUR") + "\n"


def test_segment_cannot_use_a_stage_name() -> None:
    with pytest.raises(ValueError, match="funnel_came"):
        person_with_funnel(["came"], segments={"funnel_came": {"when": {}}})


def test_stage_may_refer_only_to_later_stages() -> None:
    first = {"name": "first", "when": {"not": {"in_segment": "funnel_last"}}}
    last = {"name": "last", "when": {"session": {"pages_at_least": 2}}}
    PersonHarness(make_playbook(shop={"funnel": [first, last]}))
    with pytest.raises(ValueError, match="circle"):
        PersonHarness(make_playbook(shop={"funnel": [last, first]}))


def test_cycle_through_stages_is_rejected() -> None:
    stages = [{"name": "first", "when": STAGES["came"]}, {"name": "last", "when": {"in_segment": "keen"}}]
    declared = make_playbook(shop={"funnel": stages}, segments={"keen": {"when": {"in_segment": "funnel_first"}}})
    [found] = [one for one in validate(declared) if "circular" in one.message]
    assert (found.section, found.name) == ("segments", "keen")
    with pytest.raises(ValueError, match="circle"):
        compile_rules(declared)


def expected_stage(
    harness: PersonHarness,
    names: list[str],
    carts: list[tuple[int, bool]],
    pages: bool,
    looked: int | None,
    bought: int | None,
) -> str:
    """The stage by a plain reading: of the last change of the cart, the visit, the last look, the last order."""
    now = harness.now - T0
    full = bool(carts) and carts[-1][1]
    since = carts[-1][0] if full else 0
    holds = {
        "came": pages,
        "looks": looked is not None and now < looked + 40_000,
        "wants": full,
        "hurries": full and since + 20_000 <= now < since + 40_000,
        "bought": bought is not None and now < bought + 30_000,
    }
    return next((name for name in reversed(names) if holds[name]), "")


@given(
    st.permutations([*STAGES]),
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from([0, 1_000, 9_000, 20_000, 40_000]), st.integers(0, 4), st.booleans()),
        min_size=1,
        max_size=9,
    ),
)
@settings(max_examples=examples(150), deadline=None)
def test_stage_is_always_the_furthest_true_one(order: list[str], n: int, history: Any) -> None:
    names = order[:n]
    visitor = person_with_funnel(names)
    carts: list[tuple[int, bool]] = []
    pages, looked, bought, at = False, None, None, 0

    def check() -> None:
        stage = expected_stage(visitor, names, carts, pages, looked, bought)
        assert list(visitor.person.segments) == (["funnel_" + stage] if stage else [])
        assert funnel_stage(visitor.person) == stage

    for k, (gap, what, rests) in enumerate([*history, (90_000, 0, False)]):
        for moment in sorted({now - before for now in range(at, at + gap + 1, 1_000) for before in (1, 0)}):
            if moment + T0 >= visitor.now and visitor.now:
                visitor.advance(moment)
                check()
        at += gap
        name, properties = EVENTS[what]
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
        visitor.emit(at, name, **properties)
        check()
        if rests:
            visitor.store_and_reload()


def test_merged_persons_have_one_stage() -> None:
    browser, ann = person_with_funnel(["came", "looks", "wants"]), person_with_funnel(["came", "looks", "wants"])
    ann.person, ann.anonymous_id = Person(id="u:ann"), "y"
    browser.emit(0, "Product Added", **PRODUCT)
    ann.emit(1, "Page Viewed")
    assert (funnel_stage(browser.person), funnel_stage(ann.person)) == ("wants", "came")
    merge_into(ann.person, build_merge_response(browser.person), T0 + 2)
    ann._apply(
        "shard-messages-0-1", T0 + 2, ShardMessage(kind="merge_response", sender="a:x", recipient="u:ann", seq=1)
    )
    assert funnel_stage(ann.person) == "wants"
    assert len([name for name in ann.person.segments if name.startswith("funnel_")]) == 1
