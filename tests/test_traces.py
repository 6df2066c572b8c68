"""Traces: what is remembered of events, bounded, in order of event time, and the same however it came together."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.condition import MOST_REMEMBERED, MOST_SHOWN, Condition, Did, Sequence, Sum
from domain.event import Track
from domain.playbook import Playbook
from domain.rfm_groups import CELLS, GROUPS
from state import traces
from state.event_traces import event_traces
from state.exposures import MAX_SHOWINGS
from state.person import MAX_TIMES, MAX_TRACES, Facts, Person, Trace
from state.traces import by_event, chain_of, combine, fold, forget, key_of, needed, of_conditions
from state.view import known
from tests.arbitrary import conditions, past_of, people, remember
from tests.visitor import T0, Visitor, playbook

SUMMED = Did("Order Completed", sum=Sum("total", at_least=1), within="1h")
CHAIN = Sequence(("Product Viewed", "Product Added"), within="1s")
RULES = of_conditions([Condition(did=SUMMED, sequence=CHAIN)])
NAMES = ("Order Completed", "Product Viewed", "Product Added")
events = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 50), st.sampled_from([0.1, 0.2, 5, "7.5", None])))
Told = list[tuple[str, int, Any]]


def folded(told: Told) -> Facts:
    facts = Facts(version=1)
    wanted = event_traces(RULES)
    for name, at, total in told:
        if name in wanted:
            wanted[name].remember(facts, Track(event=name, properties={"total": total}), at)
    return facts


# -- laws ----------------------------------------------------------------------------------------------------------


@given(events, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_late_news_leads_to_the_same_as_news_in_time(told: Told, chance: Any) -> None:
    late = list(told)
    chance.shuffle(late)
    in_time, mixed = folded(sorted(told, key=lambda one: one[1])).traces, folded(late).traces
    assert in_time.keys() == mixed.keys()
    for key, trace in in_time.items():
        if RULES[key].chain is not None:  # how often it was the newest depends on when we heard of it
            assert mixed[key].times == trace.times
            continue
        other = mixed[key]
        assert (other.n, other.total, other.first_at, other.times) == (
            trace.n, trace.total, trace.first_at, trace.times)
        assert sorted(zip(other.times, other.amounts, strict=False)) == sorted(
            zip(trace.times, trace.amounts, strict=False))


@given(st.lists(conditions, min_size=1, max_size=12), people())
@settings(deadline=None)
def test_what_an_event_concerns_is_found_as_a_plain_loop_over_all_would_find_it(plain: Any, person: Person) -> None:
    rules = of_conditions([msgspec.convert(one, Condition) for one in plain])
    facts, naive = Facts(), Facts()
    for happened in past_of(person):
        event, tried = Track(event=happened.name, properties=happened.properties), by_event(rules).get(happened.name)
        if tried is not None:
            event_traces(rules)[happened.name].remember(facts, event, happened.at)
            remember(naive, tried, event, happened.at)
    assert facts.traces == naive.traces


def test_of_ten_thousand_only_those_are_tried_that_an_event_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    about = [Did("Product Viewed", where={"category": "mugs", "product_id": f"p{n}"}) for n in range(5_000)]
    rules = of_conditions([
        *(Condition(did=did) for did in about),
        *(Condition(sequence=Sequence((did, "Product Added"), within=f"{n}s")) for n, did in enumerate(about, 1))])
    tried: list[str] = []

    def watched(real: Any) -> Any:
        def call(facts: Facts, rule: traces.TraceRule, *rest: Any) -> Any:
            tried.append(rule.key)
            return real(facts, rule, *rest)

        return call

    monkeypatch.setattr("state.event_traces.fold", watched(fold))
    monkeypatch.setattr("state.event_traces.complete", watched(traces.complete))
    facts, wanted = Facts(), event_traces(rules)
    viewed = Track(event="Product Viewed", properties={"category": "mugs", "product_id": "p7"})
    wanted["Product Viewed"].remember(facts, viewed, T0)
    assert tried == [key_of(about[7]), chain_of(Sequence((about[7], "Product Added"), within="8s")).key]
    tried.clear()
    wanted["Product Added"].remember(facts, Track(event="Product Added"), T0 + 1)
    assert tried == [key_of(Did("Product Added")), chain_of(Sequence((about[7], "Product Added"), within="8s")).key]
    assert len(facts.traces) == 3


@given(events, events, events)
@settings(deadline=None)
def test_facets_come_together_in_any_order_and_grouping(a: Told, b: Told, c: Told) -> None:
    one, two, three = folded(a), folded(b), folded(c)
    whole = combine([one, two, three])
    assert combine([three, one, two]) == whole
    assert combine([Facts(traces=combine([one, two])), three]) == whole
    assert combine([one, Facts()]) == one.traces
    key = key_of(SUMMED)
    together = folded([*a, *b, *c]).traces.get(key)
    if together is not None:
        assert (whole[key].n, whole[key].total, whole[key].times) == (together.n, together.total, together.times)


@given(events, events)
@settings(deadline=None)
def test_putting_facets_together_changes_none_of_them(a: Told, b: Told) -> None:
    one, two = folded(a), folded(b)
    before = msgspec.msgpack.encode([one, two])
    combine([one, two])
    assert msgspec.msgpack.encode([one, two]) == before


# -- bounds --------------------------------------------------------------------------------------------------------


def test_the_newest_hundred_times_are_kept_and_all_are_counted() -> None:
    facts = folded([("Order Completed", at, 1) for at in range(1, MAX_TIMES + 31)])
    event_traces(RULES)["Order Completed"].remember(
        facts, Track(event="Order Completed", properties={"total": 5}), 7)
    trace = facts.traces[key_of(SUMMED)]
    assert (trace.n, trace.total, trace.first_at) == (131, 135.0, 1)
    assert trace.times == list(range(31, MAX_TIMES + 31))
    assert trace.amounts == [1.0] * MAX_TIMES
    assert MAX_TIMES == MOST_REMEMBERED
    assert MAX_SHOWINGS == MOST_SHOWN
    both = combine([facts, facts])[key_of(SUMMED)]
    assert (both.n, len(both.times), both.times[0]) == (262, MAX_TIMES, 81)


def test_of_too_many_traces_the_one_counted_longest_ago_falls_out() -> None:
    rules = list(of_conditions([Condition(did=Did("X", where={"n": n})) for n in range(MAX_TRACES + 1)]).values())
    facts = Facts()
    for n, rule in enumerate(rules):
        fold(facts, rule, Track(event="X", properties={"n": n}), T0 + (n or 10_000))
    assert len(facts.traces) == MAX_TRACES
    assert rules[0].key in facts.traces
    assert rules[1].key not in facts.traces
    assert len(combine([facts, Facts(traces={"k": Trace(1, 0, 1, [1])})])) == MAX_TRACES


def test_sums_are_exact_in_decimals_and_absurd_numbers_are_none() -> None:
    facts = folded([("Order Completed", at, 0.1) for at in range(1, 31)])
    assert facts.traces[key_of(SUMMED)].total == 3.0
    for value in (1e300, float("nan"), "1e99", True, [1], {"a": 1}, "x" * 10_000):
        assert folded([("Order Completed", 1, value)]).traces[key_of(SUMMED)].total == 0.0


# -- what is needed ------------------------------------------------------------------------------------------------


def test_two_who_count_the_same_share_a_trace_and_what_is_plain_needs_none() -> None:
    rules = of_conditions([
        Condition(did=(Did("A", where={"k": "v"}, within="1d"), Did("A", where={"k": "v"}, at_least=3)),
                  did_not=Did("A", at_least=2, within="1d")),
        Condition(did=(Did("A"), Did("B", within="1d"), Did("C", at_least=5), Did("D", last_before="1d"),
                       Did("E", after="F"), Did("E", before="F")))])
    assert len(rules) == 2
    assert set(by_event(rules)) == {"A"}


def test_a_sequence_stands_behind_its_steps() -> None:
    for rules in by_event(needed(playbook(segments={"s": {"when": {"any": [
            {"not": {"sequence": {"steps": ["A", "B", "A"]}}}]}}}))).values():
        assert [rule.chain is None for rule in rules] == [True, False]
    assert chain_of(CHAIN).key != chain_of(Sequence(CHAIN.steps, within="2s")).key


def every_condition(value: Any) -> Iterator[Condition]:
    """All conditions anywhere in a value, whatever the declarations call them."""
    if isinstance(value, Condition):
        yield value
        return
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [
        getattr(value, name) for name in value.__struct_fields__] if isinstance(value, msgspec.Struct) else []
    for part in parts:
        yield from every_condition(part)


def test_the_conditions_of_every_part_of_a_playbook_are_seen() -> None:
    def when(name: str) -> dict[str, Any]:
        return {"did": {"event": name, "at_least": 2, "within": "1d"}}

    occasion = {"event": "X"}
    workflow = {"name": "w", "enters": [{**occasion, "when": when("E")}], "leaves": when("F"), "steps": [
        {"wait_for": {"when": when("G")}}, {"branch": [{"when": when("H"), "go": "step_1"}]}, {"exit": True}]}
    whole: Playbook = msgspec.convert({
        "shop": {"funnel": [{"name": "f", "when": when("I")}]},
        "segments": [{"name": "s", "when": when("A")}, {
            "name": "t", "static": True, "enter_on": [{**occasion, "when": when("B")}],
            "leave_on": [{**occasion, "when": when("C")}]}],
        "campaigns": [{"name": "c", "format": "popup", "trigger": {"event": "X"}, "content": {"default": {}},
                       "when": when("D"), "unless": when("J")}],
        "workflows": [workflow], "past": [{**workflow, "name": "p", "leaves": when("K")}]}, Playbook)
    seen = {id(condition) for condition in traces.conditions_of(whole)}
    assert {id(condition) for condition in every_condition(whole)} == seen
    assert set(by_event(needed(whole))) == set("ABCDEFGHIJK")


# -- in a life -----------------------------------------------------------------------------------------------------


def often(name: str) -> Any:
    return playbook(segments={"s": {"when": {"did": {"event": name, "at_least": 2, "within": "7d"}}}})


def test_a_new_playbook_drops_what_it_does_not_need_and_begins_what_is_new() -> None:
    visitor = Visitor(often("Quiz Finished"))
    for at in (0, 1_000):
        visitor.does(at, "Quiz Finished")
    assert "s" in visitor.person.segments
    kept = next(iter(visitor.person.own().traces))
    visitor.swaps(often("Exit Intent"))
    visitor.does(2_000, "Page Viewed")
    assert visitor.person.own().traces == {}
    visitor.swaps(often("Quiz Finished"))
    visitor.does(3_000, "Quiz Finished")
    assert visitor.person.own().traces[kept].times == [T0 + 3_000]


def test_what_was_dropped_of_another_id_is_not_read_from_memory() -> None:
    person = Person(id="u:ann", facets={"u:ann": Facts(version=1), "a:x": Facts(version=1, traces={"k": Trace(1)})})
    assert "k" in known(person).traces
    forget(person, {})
    assert known(person).traces == {}


def test_events_that_are_refused_or_known_already_are_not_remembered() -> None:
    visitor = Visitor(often("Order Completed"))
    for at in (0, 1_000):
        visitor.does(at, "Order Completed", order_id="o", total=1)
    assert "s" not in visitor.person.segments
    visitor.does(2_000, "Order Completed", order_id="p", total=1)
    assert "s" in visitor.person.segments


@pytest.mark.parametrize("group", CELLS)
def test_every_group_has_cells_and_every_cell_one_group(group: str) -> None:
    assert CELLS[group]
    assert sum(len(cells) for cells in CELLS.values()) == len(GROUPS) == 125
