"""RFM: cells to the millisecond, the fifths of a population, and that nobody is counted twice in them."""

import random
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain import outcome as outcomes
from domain.action import Move
from domain.condition import RFM_GROUPS
from domain.letter import Letter
from domain.model import Model
from domain.outcome import Outcome
from domain.playbook import Playbook
from domain.record import Record
from domain.rfm_groups import GROUPS, group_of
from domain.shop import RfmCuts, Shop
from domain.streams import OUTCOMES, PARTITIONS
from flows.onsite import STEPS
from state import rerun as reruns
from state import rfm
from state.context import Due
from state.explain import explain
from state.merge import absorb, hand_over
from state.person import Counted, Facts, Person
from state.quintiles import DAY, EDGES, Quintiles
from state.rules import compile_rules
from state.store_sqlite import SqliteStore
from state.view import known
from tests.shards import Bench, record
from tests.support import examples
from tests.town import Town
from tests.visitor import T0, Visitor, playbook, short

FIXED = {"recency": ["10s", "20s", "40s", "80s"], "frequency": [2, 3, 4, 5], "money": [10, 20, 40, 80]}
LEARNED = {**FIXED, "learned": True}


def model(version: int = 1, **cuts: tuple[float, ...]) -> Model:
    return Model(rfm.KIND, version, f"h{version}", {}, cuts={
        "recency": (5_000, 15_000, 30_000, 60_000), "frequency": (2, 2, 3, 4), "money": (1_000, 1_500, 2_500, 5_000),
        **cuts}, at=version)


# -- one customer --------------------------------------------------------------------------------------------------


def test_a_cell_is_a_segment_and_so_is_its_group_and_recency_falls_to_the_millisecond() -> None:
    visitor = Visitor(playbook(shop={"rfm": FIXED}, campaigns={"thanks": {"trigger": {"segment": "rfm_new_customers"}}},
                               segments={"fading": {"when": {"rfm": {"recency_at_most": 3}}}}))
    assert short(visitor.does(0, "Page Viewed")) == [], "who never ordered stands nowhere"
    assert short(visitor.does(1_000, "Order Completed", order_id="o", total=25)) == [
        (1_000, "entered", "rfm_513"), (1_000, "entered", "rfm_new_customers"), (1_000, "send", "thanks")]
    assert short(visitor.waits(10_999)) == []
    left, entered = visitor.waits(11_000)
    assert isinstance(left, Move)
    assert isinstance(entered, Move)
    assert (left.segment, entered.segment, entered.at) == ("rfm_513", "rfm_413", T0 + 11_000), "the group is the same"
    assert entered.because.held == ("RFM 413, before 513",)
    assert short(visitor.waits(21_000)) == [
        (21_000, "left", "rfm_413"), (21_000, "left", "rfm_new_customers"), (21_000, "entered", "rfm_313"),
        (21_000, "entered", "rfm_needs_attention"), (21_000, "entered", "fading")]
    assert visitor.person.rfm == "313"
    assert "  rfm             313 (needs attention)" in explain(visitor.person, "EUR")
    visitor.waits(100_000)
    assert visitor.person.rfm == "113"
    assert "rfm:" not in visitor.person.timers, "it cannot fall any further"


def test_a_cancelled_order_takes_the_cell_with_it_and_so_does_a_playbook_without_rfm() -> None:
    visitor = Visitor(playbook(shop={"rfm": FIXED}))
    visitor.does(0, "Order Completed", order_id="o", total=25)
    visitor.does(1, "Order Cancelled", order_id="o")
    assert (visitor.person.rfm, visitor.person.segments, visitor.person.timers.get("rfm:")) == ("", {}, None)
    visitor.does(2, "Order Completed", order_id="o2", total=25)
    visitor.swaps(playbook())
    assert short(visitor.does(3, "Page Viewed")) == [(3, "left", "rfm_513"), (3, "left", "rfm_new_customers")]
    assert (visitor.person.rfm, visitor.person.timers.get("rfm:")) == ("", None)


def test_new_cuts_count_from_the_next_happening_on_also_for_who_is_hot() -> None:
    visitor = Visitor(playbook(shop={"rfm": LEARNED}))
    visitor.does(0, "Order Completed", order_id="o", total=25)
    assert visitor.person.rfm == "513", "until there are learned cuts, the shop's own"
    visitor.context.quintiles = model()
    assert [move[1:] for move in short(visitor.does(1, "Page Viewed"))] == [
        ("left", "rfm_513"), ("entered", "rfm_514")]
    assert short(visitor.waits(5_000))[0] == (5_000, "left", "rfm_514"), "the timer is that of the new cuts"
    visitor.context.quintiles = model(2, money=(1.0, 2.0, 3.0, 4.0))
    visitor._run("playbook-0", T0 + 5_001, Due("playbook", "", T0 + 5_001))
    assert visitor.person.rfm == "415"
    fixed = Visitor(playbook(shop={"rfm": FIXED}))
    fixed.context.quintiles = model()
    fixed.does(0, "Order Completed", order_id="o", total=25)
    assert fixed.person.rfm == "513", "a shop with cuts of its own is not concerned"
    assert not [one for one in fixed.outcomes if one.kind == rfm.KIND], "and tells nothing of its customers"


def test_every_cell_has_a_group() -> None:
    assert len(GROUPS) == 125
    assert {group_of(cell) for cell in GROUPS} == set(RFM_GROUPS)


amounts = st.integers(1, 9_000)
spans = st.lists(st.integers(1, 60), min_size=4, max_size=4).map(sorted)
counts = st.lists(st.integers(1, 6), min_size=4, max_size=4).map(sorted)


@given(spans, counts, st.lists(st.integers(0, 100), min_size=4, max_size=4).map(sorted),
       st.lists(st.tuples(st.integers(0, 25), st.sampled_from(["order", "order", "refund", "cancel", "look"]), amounts,
                          st.booleans()), min_size=1, max_size=10))
@settings(max_examples=examples(150), deadline=None)
def test_at_every_second_the_cell_is_what_a_plain_reading_says(
        recency: list[int], frequency: list[int], money: list[int], history: Any) -> None:
    visitor = Visitor(playbook(shop={"rfm": {
        "recency": [f"{span}s" for span in recency], "frequency": frequency, "money": money}}))
    orders: dict[str, int] = {}
    last, at = 0, 0

    def plain() -> str:
        if not orders:
            return ""
        age = (visitor.now - T0 - last) / 1_000
        r = 5 - sum(age >= span for span in recency)
        return f"{r}{1 + sum(len(orders) >= cut for cut in frequency)}" \
               f"{1 + sum(sum(orders.values()) >= cut * 100 for cut in money)}"

    def check() -> None:
        cell = plain()
        assert visitor.person.rfm == cell, f"at {visitor.now - T0}"
        inside = {f"rfm_{cell}", f"rfm_{group_of(cell)}"} if cell else set()
        assert set(visitor.person.segments) == inside

    for n, (gap, what, amount, rests) in enumerate([*history, (70, "look", 1, False)]):
        for second in range(at + 1, at + gap + 1):
            if visitor.now:
                visitor.waits(second * 1_000 - 1)
                check()
                visitor.waits(second * 1_000)
                check()
        at += gap
        newest = f"o{n - 1}"
        if what == "order":
            visitor.does(at * 1_000, "Order Completed", order_id=f"o{n}", total=amount / 100)
            orders[f"o{n}"], last = amount, at * 1_000
        elif what == "refund" and newest in orders:
            visitor.does(at * 1_000, "Order Refunded", order_id=newest)
            orders[newest] = 0
        elif what == "cancel" and newest in orders:
            visitor.does(at * 1_000, "Order Cancelled", order_id=newest)
            del orders[newest]
        else:
            visitor.does(at * 1_000, "Page Viewed")
        check()
        if rests:
            visitor.rests()


# -- a population --------------------------------------------------------------------------------------------------


def shares(fifths: Quintiles, people: list[Counted]) -> dict[str, list[float]]:
    """How large a share of these people is in class 1, 2, 3, 4, 5 now."""
    cuts = rfm.learned_cuts(Model(rfm.KIND, 1, "h", {}, cuts=fifths.cuts()))
    found = {"recency": [0] * 5, "frequency": [0] * 5, "money": [0] * 5}
    for one in people:
        cell = rfm.cell(Facts(order_count=one.orders, revenue=one.money, last_order_at=one.last_at), cuts, fifths.clock)
        for digit, row in zip(cell, found.values(), strict=True):
            row[int(digit) - 1] += 1
    return {name: [n / len(people) for n in row] for name, row in found.items()}


def population(seed: int, n: int, days: int = 400, worth: float = 1.0) -> list[Counted]:
    """Customers as they are: orders few and many, money log-normal, last orders rather lately than long ago."""
    chance = random.Random(seed)
    return [Counted(T0 - int(min(chance.expovariate(1 / 90), days) * DAY) - chance.randrange(DAY),
                    1 + int(chance.paretovariate(0.6)) % 500, int(worth * 100 * chance.lognormvariate(3.5, 1.1)))
            for _ in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_each_class_holds_about_a_fifth(seed: int) -> None:
    people = population(seed, 3_000)
    fifths = Quintiles()
    for one in people:
        fifths.put(one)
    found = shares(fifths, people)
    # A cut is an edge of a bin: a class is off by the customers of the bin at either edge. Money: a bin is 1 % wide.
    # Days: the fullest one holds some 1.2 %. Orders come in whole numbers: one order alone is many customers.
    for name, tolerance in (("money", 0.015), ("recency", 0.025)):
        assert all(abs(share - 0.2) <= tolerance for share in found[name]), (name, found[name])
    once = max(sum(one.orders == n for one in people) for n in range(1, 500)) / len(people)
    assert all(share <= 0.2 + once for share in found["frequency"])
    for row in found.values():
        assert sum(row) == pytest.approx(1)


@given(st.lists(st.builds(Counted, st.integers(0, 60).map(lambda day: T0 - day * DAY), st.integers(1, 12),
                          st.integers(0, 10_000)), min_size=1, max_size=60))
def test_who_is_in_class_k_has_k_minus_one_fifths_below(people: list[Counted]) -> None:
    fifths = Quintiles()
    for one in people:
        fifths.put(one)
    cuts = fifths.cuts()
    for name, read in (("frequency", attrgetter("orders")), ("money", attrgetter("money"))):
        for k, cut in enumerate(cuts[name], 2):
            below = sum(read(one) < cut for one in people)
            assert below * 5 >= (k - 1) * len(people)
            assert cut in EDGES
    for k, span in zip((5, 4, 3, 2), cuts["recency"], strict=True):
        longer_ago = sum(fifths.clock - one.last_at >= span for one in people)
        assert longer_ago * 5 >= (k - 1) * len(people)
    assert list(cuts["recency"]) == sorted(cuts["recency"])


def told(n: int, old: Counted, new: Counted, at: int = T0) -> Outcome:
    def features(prefix: str, one: Counted) -> dict[str, float]:
        return {prefix + "last_at": one.last_at, prefix + "orders": one.orders, prefix + "money": one.money}

    return Outcome(rfm.KIND, f"purchases-0-{n}-rfm-0", f"u:{n}", at, at, True,
                   features("old_", old) | features("new_", new))


def test_the_fifths_move_when_the_population_moves_and_are_published_then_alone() -> None:
    fifths, nobody = Quintiles(), Counted()
    people = population(1, 99)
    for n, one in enumerate(people):
        fifths.learn(told(n, nobody, one))
    assert not fifths.settle(), "99 customers are too few"
    people += population(2, 1_901)
    for n, one in enumerate(people[99:]):
        fifths.learn(told(99 + n, nobody, one))
    assert fifths.settle()
    first = fifths.model(1, T0)
    assert first.quality.examples == 2_000
    assert not fifths.settle(), "nothing has moved"
    fifths.learn(told(5_000, nobody, people[0]))
    assert not fifths.settle(), "one customer in 2,000 moves nothing"
    richer = [Counted(one.last_at, one.orders, one.money * 3) for one in people]
    for n, (old, new) in enumerate(zip(people, richer, strict=True)):
        fifths.learn(told(10_000 + n, old, new))
    fifths.put(people[0], -1)
    assert fifths.settle()
    second = fifths.model(2, T0)
    assert second.hash != first.hash
    assert second.cuts["frequency"] == first.cuts["frequency"]
    for old_cut, new_cut in zip(first.cuts["money"], second.cuts["money"], strict=True):
        assert new_cut == pytest.approx(3 * old_cut, rel=0.02), "a bin is 1 % wide at either end"
    assert all(abs(share - 0.2) <= 0.015 for share in shares(fifths, richer)["money"])


def test_a_repeat_counts_once_and_what_was_never_counted_cannot_be_taken_away() -> None:
    fifths, one = Quintiles(), Counted(T0, 2, 500)
    assert fifths.learn(told(1, Counted(), one))
    assert not fifths.learn(told(1, Counted(), one))
    assert (fifths.customers, fifths.repeated) == (1, 1)
    fifths.learn(told(2, one, Counted()))
    fifths.learn(told(3, one, Counted()))
    assert (fifths.customers, fifths.days, fifths.orders, fifths.money) == (0, {}, {}, {})
    fifths.learn(told(4, Counted(), Counted(T0, 10**9, 10**15)))
    assert fifths.cuts()["money"][0] == EDGES[-1], "beyond all bounds is the last bin"


days = st.integers(0, 2_000).map(lambda day: T0 - day * DAY)
crowds = st.lists(st.builds(Counted, days, st.integers(1, 40), st.integers(-5, 10**13)), max_size=30)


@given(crowds, crowds)
def test_two_halves_add_up_and_plain_numbers_lose_nothing(one: list[Counted], other: list[Counted]) -> None:
    whole, left, right = Quintiles(), Quintiles(), Quintiles()
    for half, some in ((left, one), (right, other)):
        for n, who in enumerate(some):
            half.learn(told(n, Counted(), who, at=who.last_at))
            whole.learn(told(n + 100 * (half is right), Counted(), who, at=who.last_at))
    left.merge(right)
    assert (left.days, left.orders, left.money, left.clock) == (whole.days, whole.orders, whole.money, whole.clock) or \
        left.cuts() == whole.cuts()
    assert left.cuts() == whole.cuts()
    again = Quintiles(whole.plain())
    assert again.plain() == whole.plain()
    assert again.cuts() == whole.cuts()


def test_a_histogram_stays_small_and_forgets_no_customer() -> None:
    fifths = Quintiles()
    for day in range(4_000):
        fifths.put(Counted(T0 + day * DAY, 1 + day, 10**9 + day * 10**8))
    fifths.cuts()
    assert len(fifths.days) <= 1_502
    assert sum(fifths.days.values()) == fifths.customers == 4_000
    assert len(fifths.money) + len(fifths.orders) <= 2 * len(EDGES)
    fifths.put(Counted(T0, 1, 10**9), -1)
    assert sum(fifths.days.values()) == fifths.customers == 3_999, "who ordered long ago can still be taken out"


# -- what shards tell ----------------------------------------------------------------------------------------------


def counted_by(told_of: list[Outcome]) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    fifths = Quintiles()
    for one in told_of:
        fifths.learn(one)
    return fifths.days, fifths.orders, fifths.money


RULES = compile_rules(Playbook(Shop(rfm=RfmCuts(learned=True))))
steps = st.lists(st.tuples(
    st.sampled_from(["x", "y", "z"]), st.sampled_from(["", "ann", "ben"]),
    st.sampled_from(["Order Completed", "Order Completed", "Page Viewed", "Order Refunded", "Order Cancelled"]),
    st.integers(0, 4), st.integers(1, 50)), min_size=1, max_size=14)


@given(steps)
@settings(max_examples=examples(60), deadline=None)
def test_nobody_is_counted_twice_whoever_logs_in_when(tmp_path_factory: pytest.TempPathFactory, some: Any) -> None:
    town = Town(tmp_path_factory.mktemp("town"), STEPS, RULES)
    keys = set()
    for n, (browser, user, name, order, value) in enumerate(some):
        signed: dict[str, Any] = {"userId": user, "context": {"attimo": {"verified": True}}} if user else {}
        properties = {"order_id": f"{browser}{order}", "total": value} if name != "Page Viewed" else {}
        town.feed(record(browser, name, at=T0 + n * 1_000, properties=properties, **signed))
        keys |= {"a:" + browser} | ({"u:" + user} if user else set())
    for key in sorted(keys):
        known_as: dict[str, Any] = {"userId": key[2:]} if key[0] == "u" else {}
        town.feed(record(key[2:], at=T0 + 100_000, **known_as))
    found = [one for one in town.said(OUTCOMES, outcomes.decode) if isinstance(one, Outcome) and one.kind == rfm.KIND]
    assert len({one.id for one in found}) == len(found)
    expected = Quintiles()
    for key in sorted(keys):
        person = town.person(key)
        if person is None or person.alias_of:
            continue
        facts = known(person)
        now = Counted(facts.last_order_at, facts.order_count, facts.revenue)
        assert person.counted == (now if now.orders > 0 else None)
        if now.orders > 0:
            expected.put(now)
    by_person: dict[str, list[Outcome]] = {}
    for one in found:
        by_person.setdefault(one.person, []).append(one)
    for order in (found, [one for key in sorted(by_person) for one in by_person[key]],
                  [one for key in sorted(by_person, reverse=True) for one in by_person[key]]):
        assert counted_by(order) == (expected.days, expected.orders, expected.money), "read in any order"
    town.store.close()


def test_two_customers_who_turn_out_to_be_one_are_one() -> None:
    shop = playbook(shop={"rfm": LEARNED})
    one, other = Visitor(shop), Visitor(shop, name="y")
    other.person = Person(id="u:ann")
    one.does(0, "Order Completed", order_id="o", total=25)
    other.does(0, "Order Completed", order_id="o2", total=30)
    absorb(other.person, hand_over(one.person), T0 + 5)
    one.person.alias_of = "u:ann"
    one._run("letters-0-1", T0 + 5, Letter(kind="claim", sender="u:ann", to="a:x", seq=1))
    assert one.person.counted is None, "the browser is nobody any more"
    other._run("letters-0-2", T0 + 5, Letter(kind="handover", sender="a:x", to="u:ann", seq=1))
    assert other.person.counted == Counted(T0, 2, 5_500)
    assert other.person.rfm == "524"
    found = [replace(told_of, id=f"{n}") for n, told_of in enumerate([*one.outcomes, *other.outcomes])]
    days, orders, money = counted_by([told_of for told_of in found if told_of.kind == rfm.KIND])
    assert (list(days.values()), orders, sum(money.values())) == ([1], {2: 1}, 1)


def test_a_shop_that_no_longer_learns_is_counted_no_more() -> None:
    visitor = Visitor(playbook(shop={"rfm": LEARNED}))
    visitor.does(0, "Order Completed", order_id="o", total=25)
    visitor.does(1, "Page Viewed")
    assert len([one for one in visitor.outcomes if one.kind == rfm.KIND]) == 1, "what has not changed is not told again"
    visitor.swaps(playbook(shop={"rfm": FIXED}))
    visitor.does(2, "Page Viewed")
    assert visitor.person.counted is None
    assert counted_by([one for one in visitor.outcomes if one.kind == rfm.KIND]) == ({}, {}, {})


# -- run again -----------------------------------------------------------------------------------------------------


def test_a_rerun_with_models_of_both_kinds_is_exact(tmp_path: Path) -> None:
    chance = random.Random(4)
    bench = Bench(tmp_path, STEPS, 5, hot=3)
    bench.rules = compile_rules(playbook(
        shop={"rfm": LEARNED}, campaigns={"hello": {"trigger": {"segment": "rfm_champions"}}}))
    names = [name for name in (f"p{n}" for n in range(2_000)) if record(name).partition == 5][:8]
    kept = {one.hash: one for one in (
        model(1), model(2, money=(1, 2, 3, 4)), Model("propensity", 1, "p1", {"pages": 0.5}))}
    written: dict[tuple[str, int], list[Record]] = {}
    live: list[tuple[Model | None, Model | None]] = [
        (None, None), (None, kept["h1"]), (kept["p1"], kept["h1"]), (kept["p1"], kept["h2"]), (kept["p1"], None)]
    at = T0
    for visits, quintiles in live:
        for _ in range(6):
            batch: list[Record] = []
            for _ in range(4):
                at += chance.randrange(9_000)
                name = chance.choice(["Order Completed", "Page Viewed", "Order Completed"])
                n = len(batch) + at
                one = record(chance.choice(names), name, at=at, properties={"order_id": f"o{n}", "total": n % 90})
                batch.append(one)
                written.setdefault((one.stream, 5), []).append(one)
            bench.shard.apply(batch, at + 1_000, bench.rules, visits, quintiles)
            bench.commit()
    turns = bench.store.turns(5)
    assert {turn.model for turn in turns} == {"", "+h1", "p1+h1", "p1+h2", "p1"}
    again = SqliteStore(tmp_path / "again.db", PARTITIONS)
    reruns.rerun(5, turns, lambda place, first, last: [
        one for one in written.get(place, []) if first <= one.offset <= last], again, STEPS, PARTITIONS,
        lambda known: bench.rules, kept.get)
    assert again.persons(5) == bench.persons()
    assert {len(set(value)) > 1 for _, value in bench.persons()} == {True}
    forgotten = SqliteStore(tmp_path / "forgotten.db", PARTITIONS)
    reruns.rerun(5, turns, lambda place, first, last: [
        one for one in written.get(place, []) if first <= one.offset <= last], forgotten, STEPS, PARTITIONS,
        lambda known: bench.rules, lambda known: kept.get(known) if known == "p1" else None)
    assert forgotten.persons(5) != bench.persons(), "the cuts are part of what a turn was made of"
    again.close()
    forgotten.close()
