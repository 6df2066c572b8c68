"""Traces: what is remembered of events, bounded, in order of event time, and the same however it came together."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.event import Track
from domain.playbook.condition import MAX_EVENT_TIMES, Condition, Did, Sequence, Sum
from domain.playbook.playbook import Playbook
from domain.playbook.shop import RFM_CELLS_BY_GROUP, RFM_GROUP_BY_CELL
from state.conditions import counters
from state.conditions.counters import (
    add,
    counter_key,
    index_by_event,
    merge,
    prune,
    required_specs,
    sequence_spec,
    specs_by_event,
    specs_for_conditions,
)
from state.person.model import MAX_COUNTER_TIMES, MAX_COUNTERS, EventCounter, Person, ProfileFragment
from state.profile.profile import merged_profile
from tests.harness.person import T0, PersonHarness, make_playbook
from tests.strategies.conditions import conditions, past_of, persons, update_counters

SUM_CONDITION = Did("Order Completed", sum=Sum("total", at_least=1), within="1h")
SEQUENCE = Sequence(("Product Viewed", "Product Added"), within="1s")
RULES = specs_for_conditions([Condition(did=SUM_CONDITION, sequence=SEQUENCE)])
NAMES = ("Order Completed", "Product Viewed", "Product Added")
events = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 50), st.sampled_from([0.1, 0.2, 5, "7.5", None])))
EventList = list[tuple[str, int, Any]]


def apply_events(told: EventList) -> ProfileFragment:
    facts = ProfileFragment(version=1)
    wanted = index_by_event(RULES)
    for name, at, total in told:
        if name in wanted:
            wanted[name].add_event(facts, Track(event=name, properties={"total": total}), at)
    return facts


# -- laws ----------------------------------------------------------------------------------------------------------


@given(events, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_late_events_give_the_same_counters(told: EventList, chance: Any) -> None:
    late = list(told)
    chance.shuffle(late)
    in_time, mixed = apply_events(sorted(told, key=lambda one: one[1])).counters, apply_events(late).counters
    assert in_time.keys() == mixed.keys()
    for key, trace in in_time.items():
        if RULES[key].sequence is not None:  # how often it was the newest depends on when we heard of it
            assert mixed[key].times == trace.times
            continue
        other = mixed[key]
        assert (other.count, other.total, other.first_at, other.times) == (
            trace.count,
            trace.total,
            trace.first_at,
            trace.times,
        )
        assert sorted(zip(other.times, other.amounts, strict=False)) == sorted(
            zip(trace.times, trace.amounts, strict=False)
        )


@given(st.lists(conditions, min_size=1, max_size=12), persons())
@settings(deadline=None)
def test_event_counter_index_matches_a_full_scan(plain: Any, person: Person) -> None:
    rules = specs_for_conditions([msgspec.convert(one, Condition) for one in plain])
    facts, naive = ProfileFragment(), ProfileFragment()
    for happened in past_of(person):
        event, tried = (
            Track(event=happened.name, properties=happened.properties),
            specs_by_event(rules).get(happened.name),
        )
        if tried is not None:
            index_by_event(rules)[happened.name].add_event(facts, event, happened.at)
            update_counters(naive, tried, event, happened.at)
    assert facts.counters == naive.counters


def test_event_updates_only_its_own_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    about = [Did("Product Viewed", where={"category": "mugs", "product_id": f"p{n}"}) for n in range(5_000)]
    rules = specs_for_conditions(
        [
            *(Condition(did=did) for did in about),
            *(Condition(sequence=Sequence((did, "Product Added"), within=f"{n}s")) for n, did in enumerate(about, 1)),
        ]
    )
    tried: list[str] = []

    def watched(real: Any) -> Any:
        def call(facts: ProfileFragment, rule: counters.CounterSpec, *rest: Any) -> Any:
            tried.append(rule.key)
            return real(facts, rule, *rest)

        return call

    monkeypatch.setattr("state.conditions.counters.add", watched(add))
    monkeypatch.setattr("state.conditions.counters.update_sequence", watched(counters.update_sequence))
    facts, wanted = ProfileFragment(), index_by_event(rules)
    viewed = Track(event="Product Viewed", properties={"category": "mugs", "product_id": "p7"})
    wanted["Product Viewed"].add_event(facts, viewed, T0)
    assert tried == [counter_key(about[7]), sequence_spec(Sequence((about[7], "Product Added"), within="8s")).key]
    tried.clear()
    wanted["Product Added"].add_event(facts, Track(event="Product Added"), T0 + 1)
    assert tried == [
        counter_key(Did("Product Added")),
        sequence_spec(Sequence((about[7], "Product Added"), within="8s")).key,
    ]
    assert len(facts.counters) == 3


@given(events, events, events)
@settings(deadline=None)
def test_counter_merge_is_commutative_and_associative(a: EventList, b: EventList, c: EventList) -> None:
    one, two, three = apply_events(a), apply_events(b), apply_events(c)
    whole = merge([one, two, three])
    assert merge([three, one, two]) == whole
    assert merge([ProfileFragment(counters=merge([one, two])), three]) == whole
    assert merge([one, ProfileFragment()]) == one.counters
    key = counter_key(SUM_CONDITION)
    together = apply_events([*a, *b, *c]).counters.get(key)
    if together is not None:
        assert (whole[key].count, whole[key].total, whole[key].times) == (
            together.count,
            together.total,
            together.times,
        )


@given(events, events)
@settings(deadline=None)
def test_counter_merge_does_not_change_its_inputs(a: EventList, b: EventList) -> None:
    one, two = apply_events(a), apply_events(b)
    before = msgspec.msgpack.encode([one, two])
    merge([one, two])
    assert msgspec.msgpack.encode([one, two]) == before


# -- bounds --------------------------------------------------------------------------------------------------------


def test_newest_100_times_are_kept_and_all_are_counted() -> None:
    facts = apply_events([("Order Completed", at, 1) for at in range(1, MAX_COUNTER_TIMES + 31)])
    index_by_event(RULES)["Order Completed"].add_event(
        facts, Track(event="Order Completed", properties={"total": 5}), 7
    )
    trace = facts.counters[counter_key(SUM_CONDITION)]
    assert (trace.count, trace.total, trace.first_at) == (131, 135.0, 1)
    assert trace.times == list(range(31, MAX_COUNTER_TIMES + 31))
    assert trace.amounts == [1.0] * MAX_COUNTER_TIMES
    assert MAX_COUNTER_TIMES == MAX_EVENT_TIMES
    both = merge([facts, facts])[counter_key(SUM_CONDITION)]
    assert (both.count, len(both.times), both.times[0]) == (262, MAX_COUNTER_TIMES, 81)


def test_least_recently_updated_counter_is_evicted() -> None:
    rules = list(
        specs_for_conditions([Condition(did=Did("X", where={"n": n})) for n in range(MAX_COUNTERS + 1)]).values()
    )
    facts = ProfileFragment()
    for n, rule in enumerate(rules):
        add(facts, rule, Track(event="X", properties={"n": n}), T0 + (n or 10_000))
    assert len(facts.counters) == MAX_COUNTERS
    assert rules[0].key in facts.counters
    assert rules[1].key not in facts.counters
    assert len(merge([facts, ProfileFragment(counters={"k": EventCounter(1, 0, 1, [1])})])) == MAX_COUNTERS


def test_sums_are_exact_and_absurd_numbers_are_ignored() -> None:
    facts = apply_events([("Order Completed", at, 0.1) for at in range(1, 31)])
    assert facts.counters[counter_key(SUM_CONDITION)].total == 3.0
    for value in (1e300, float("nan"), "1e99", True, [1], {"a": 1}, "x" * 10_000):
        assert apply_events([("Order Completed", 1, value)]).counters[counter_key(SUM_CONDITION)].total == 0.0


# -- what is needed ------------------------------------------------------------------------------------------------


def test_equal_counter_specs_share_one_counter() -> None:
    rules = specs_for_conditions(
        [
            Condition(
                did=(Did("A", where={"k": "v"}, within="1d"), Did("A", where={"k": "v"}, at_least=3)),
                did_not=Did("A", at_least=2, within="1d"),
            ),
            Condition(
                did=(
                    Did("A"),
                    Did("B", within="1d"),
                    Did("C", at_least=5),
                    Did("D", last_before="1d"),
                    Did("E", after="F"),
                    Did("E", before="F"),
                )
            ),
        ]
    )
    assert len(rules) == 2
    assert set(specs_by_event(rules)) == {"A"}


def test_sequence_counter_follows_its_step_counters() -> None:
    for rules in specs_by_event(
        required_specs(
            make_playbook(segments={"s": {"when": {"any": [{"not": {"sequence": {"steps": ["A", "B", "A"]}}}]}}})
        )
    ).values():
        assert [rule.sequence is None for rule in rules] == [True, False]
    assert sequence_spec(SEQUENCE).key != sequence_spec(Sequence(SEQUENCE.steps, within="2s")).key


def all_conditions(value: Any) -> Iterator[Condition]:
    """All conditions anywhere in a value, whatever the declarations call them."""
    if isinstance(value, Condition):
        yield value
        return
    parts = (
        value.values()
        if isinstance(value, dict)
        else value
        if isinstance(value, tuple)
        else [getattr(value, name) for name in value.__struct_fields__]
        if isinstance(value, msgspec.Struct)
        else []
    )
    for part in parts:
        yield from all_conditions(part)


def test_counters_are_collected_from_every_condition() -> None:
    def when(name: str) -> dict[str, Any]:
        return {"did": {"event": name, "at_least": 2, "within": "1d"}}

    occasion = {"event": "X"}
    workflow = {
        "name": "w",
        "enter_on": [{**occasion, "when": when("E")}],
        "exit_when": when("F"),
        "steps": [
            {"wait_for": {"when": when("G")}},
            {"branch": [{"when": when("H"), "goto": "step_1"}]},
            {"exit": True},
        ],
    }
    whole: Playbook = msgspec.convert(
        {
            "shop": {"funnel": [{"name": "f", "when": when("I")}]},
            "segments": [
                {"name": "s", "when": when("A")},
                {
                    "name": "t",
                    "static": True,
                    "enter_on": [{**occasion, "when": when("B")}],
                    "exit_on": [{**occasion, "when": when("C")}],
                },
            ],
            "campaigns": [
                {
                    "name": "c",
                    "format": "popup",
                    "trigger": {"event": "X"},
                    "content": {"default": {}},
                    "when": when("D"),
                    "unless": when("J"),
                }
            ],
            "workflows": [workflow],
            "previous_workflows": [{**workflow, "name": "p", "exit_when": when("K")}],
        },
        Playbook,
    )
    seen = {id(condition) for condition in counters.all_conditions(whole)}
    assert {id(condition) for condition in all_conditions(whole)} == seen
    assert set(specs_by_event(required_specs(whole))) == set("ABCDEFGHIJK")


# -- in a life -----------------------------------------------------------------------------------------------------


def repeat_playbook(name: str) -> Any:
    return make_playbook(segments={"s": {"when": {"did": {"event": name, "at_least": 2, "within": "7d"}}}})


def test_new_playbook_drops_unused_counters() -> None:
    visitor = PersonHarness(repeat_playbook("Quiz Finished"))
    for at in (0, 1_000):
        visitor.emit(at, "Quiz Finished")
    assert "s" in visitor.person.segments
    kept = next(iter(visitor.person.own_fragment().counters))
    visitor.switch_playbook(repeat_playbook("Exit Intent"))
    visitor.emit(2_000, "Page Viewed")
    assert visitor.person.own_fragment().counters == {}
    visitor.switch_playbook(repeat_playbook("Quiz Finished"))
    visitor.emit(3_000, "Quiz Finished")
    assert visitor.person.own_fragment().counters[kept].times == [T0 + 3_000]


def test_dropped_counters_of_merged_ids_are_not_cached() -> None:
    person = Person(
        id="u:ann",
        fragments={
            "u:ann": ProfileFragment(version=1),
            "a:x": ProfileFragment(version=1, counters={"k": EventCounter(1)}),
        },
    )
    assert "k" in merged_profile(person).counters
    prune(person, {})
    assert merged_profile(person).counters == {}


def test_rejected_and_duplicate_events_are_not_counted() -> None:
    visitor = PersonHarness(repeat_playbook("Order Completed"))
    for at in (0, 1_000):
        visitor.emit(at, "Order Completed", order_id="o", total=1)
    assert "s" not in visitor.person.segments
    visitor.emit(2_000, "Order Completed", order_id="p", total=1)
    assert "s" in visitor.person.segments


@pytest.mark.parametrize("group", RFM_CELLS_BY_GROUP)
def test_every_rfm_cell_has_exactly_one_group(group: str) -> None:
    assert RFM_CELLS_BY_GROUP[group]
    assert sum(len(cells) for cells in RFM_CELLS_BY_GROUP.values()) == len(RFM_GROUP_BY_CELL) == 125
