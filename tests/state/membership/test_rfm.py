"""RFM: cells to the millisecond, the fifths of a population, and that nobody is counted twice in them."""

import random
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from domain import action as outcomes
from domain.action import Outcome, SegmentChange, ShardMessage
from domain.model import Model
from domain.playbook.condition import RFM_GROUPS
from domain.playbook.playbook import Playbook
from domain.playbook.shop import RFM_GROUP_BY_CELL, RfmSettings, Shop, rfm_group
from domain.record import DEFAULT_PARTITIONS, OUTCOMES, Record
from flows.simulation import replay as reruns
from operators.steps import STEPS
from state.context import TimerFired
from state.explain.explain import explain
from state.membership.quintiles import BIN_EDGES, DAY, Quintiles
from state.merge import build_merge_response, merge_into
from state.person.model import Person, PopulationSnapshot, ProfileFragment
from state.playbook import rfm
from state.playbook.compiled import compile_rules
from state.profile.profile import merged_profile
from state.store.sqlite import SqliteStore
from tests.harness.cluster import ShardCluster
from tests.harness.person import T0, PersonHarness, make_playbook, summarize
from tests.harness.shard import ShardHarness, record
from tests.harness.support import examples

FIXED_CUTS = {"recency": ["10s", "20s", "40s", "80s"], "frequency": [2, 3, 4, 5], "monetary": [10, 20, 40, 80]}
LEARNED_CUTS = {**FIXED_CUTS, "quintiles": True}


def make_model(version: int = 1, **cuts: tuple[float, ...]) -> Model:
    return Model(
        rfm.MODEL_KIND,
        version,
        f"h{version}",
        {},
        thresholds={
            "recency": (5_000, 15_000, 30_000, 60_000),
            "frequency": (2, 2, 3, 4),
            "monetary": (1_000, 1_500, 2_500, 5_000),
            **cuts,
        },
        at=version,
    )


# -- one customer --------------------------------------------------------------------------------------------------


def test_cell_and_group_are_segments_with_exact_recency() -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={"rfm": FIXED_CUTS},
            campaigns={"thanks": {"trigger": {"segment": "rfm_new_customers"}}},
            segments={"fading": {"when": {"rfm": {"recency_at_most": 3}}}},
        )
    )
    assert summarize(visitor.emit(0, "Page Viewed")) == [], "who never ordered stands nowhere"
    assert summarize(visitor.emit(1_000, "Order Completed", order_id="o", total=25)) == [
        (1_000, "entered", "rfm_513"),
        (1_000, "entered", "rfm_new_customers"),
        (1_000, "send", "thanks"),
    ]
    assert summarize(visitor.advance(10_999)) == []
    left, entered = visitor.advance(11_000)
    assert isinstance(left, SegmentChange)
    assert isinstance(entered, SegmentChange)
    assert (left.segment, entered.segment, entered.at) == ("rfm_513", "rfm_413", T0 + 11_000), "the group is the same"
    assert entered.because.passed == ("RFM 413, previously 513",)
    assert summarize(visitor.advance(21_000)) == [
        (21_000, "exited", "rfm_413"),
        (21_000, "exited", "rfm_new_customers"),
        (21_000, "entered", "rfm_313"),
        (21_000, "entered", "rfm_needs_attention"),
        (21_000, "entered", "fading"),
    ]
    assert visitor.person.rfm == "313"
    assert "  rfm             313 (needs attention)" in explain(visitor.person, "EUR")
    visitor.advance(100_000)
    assert visitor.person.rfm == "113"
    assert "rfm:" not in visitor.person.timers, "it cannot fall any further"


def test_cancelled_order_removes_the_cell() -> None:
    visitor = PersonHarness(make_playbook(shop={"rfm": FIXED_CUTS}))
    visitor.emit(0, "Order Completed", order_id="o", total=25)
    visitor.emit(1, "Order Cancelled", order_id="o")
    assert (visitor.person.rfm, visitor.person.segments, visitor.person.timers.get("rfm:")) == ("", {}, None)
    visitor.emit(2, "Order Completed", order_id="o2", total=25)
    visitor.switch_playbook(make_playbook())
    assert summarize(visitor.emit(3, "Page Viewed")) == [(3, "exited", "rfm_513"), (3, "exited", "rfm_new_customers")]
    assert (visitor.person.rfm, visitor.person.timers.get("rfm:")) == ("", None)


def test_new_quintiles_apply_on_the_next_event() -> None:
    visitor = PersonHarness(make_playbook(shop={"rfm": LEARNED_CUTS}))
    visitor.emit(0, "Order Completed", order_id="o", total=25)
    assert visitor.person.rfm == "513", "until there are learned cuts, the shop's own"
    visitor.context.quintiles = make_model()
    assert [move[1:] for move in summarize(visitor.emit(1, "Page Viewed"))] == [
        ("exited", "rfm_513"),
        ("entered", "rfm_514"),
    ]
    assert summarize(visitor.advance(5_000))[0] == (5_000, "exited", "rfm_514"), "the timer is that of the new cuts"
    visitor.context.quintiles = make_model(2, monetary=(1.0, 2.0, 3.0, 4.0))
    visitor._apply("playbook-0", T0 + 5_001, TimerFired("playbook", "", T0 + 5_001))
    assert visitor.person.rfm == "415"
    fixed = PersonHarness(make_playbook(shop={"rfm": FIXED_CUTS}))
    fixed.context.quintiles = make_model()
    fixed.emit(0, "Order Completed", order_id="o", total=25)
    assert fixed.person.rfm == "513", "a shop with cuts of its own is not concerned"
    assert not [one for one in fixed.outcomes if one.kind == rfm.MODEL_KIND], "and tells nothing of its customers"


def test_every_cell_has_a_group() -> None:
    assert len(RFM_GROUP_BY_CELL) == 125
    assert {rfm_group(cell) for cell in RFM_GROUP_BY_CELL} == set(RFM_GROUPS)


amounts = st.integers(1, 9_000)
recency_cuts = st.lists(st.integers(1, 60), min_size=4, max_size=4).map(sorted)
frequency_cuts = st.lists(st.integers(1, 6), min_size=4, max_size=4).map(sorted)


@given(
    recency_cuts,
    frequency_cuts,
    st.lists(st.integers(0, 100), min_size=4, max_size=4).map(sorted),
    st.lists(
        st.tuples(
            st.integers(0, 25), st.sampled_from(["order", "order", "refund", "cancel", "look"]), amounts, st.booleans()
        ),
        min_size=1,
        max_size=10,
    ),
)
@settings(max_examples=examples(150), deadline=None)
def test_cell_matches_the_reference_model(
    recency: list[int], frequency: list[int], money: list[int], history: Any
) -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={"rfm": {"recency": [f"{span}s" for span in recency], "frequency": frequency, "monetary": money}}
        )
    )
    orders: dict[str, int] = {}
    last, at = 0, 0

    def plain() -> str:
        if not orders:
            return ""
        age = (visitor.now - T0 - last) / 1_000
        r = 5 - sum(age >= span for span in recency)
        return (
            f"{r}{1 + sum(len(orders) >= cut for cut in frequency)}"
            f"{1 + sum(sum(orders.values()) >= cut * 100 for cut in money)}"
        )

    def check() -> None:
        cell = plain()
        assert visitor.person.rfm == cell, f"at {visitor.now - T0}"
        inside = {f"rfm_{cell}", f"rfm_{rfm_group(cell)}"} if cell else set()
        assert set(visitor.person.segments) == inside

    for n, (gap, what, amount, rests) in enumerate([*history, (70, "look", 1, False)]):
        for second in range(at + 1, at + gap + 1):
            if visitor.now:
                visitor.advance(second * 1_000 - 1)
                check()
                visitor.advance(second * 1_000)
                check()
        at += gap
        newest = f"o{n - 1}"
        if what == "order":
            visitor.emit(at * 1_000, "Order Completed", order_id=f"o{n}", total=amount / 100)
            orders[f"o{n}"], last = amount, at * 1_000
        elif what == "refund" and newest in orders:
            visitor.emit(at * 1_000, "Order Refunded", order_id=newest)
            orders[newest] = 0
        elif what == "cancel" and newest in orders:
            visitor.emit(at * 1_000, "Order Cancelled", order_id=newest)
            del orders[newest]
        else:
            visitor.emit(at * 1_000, "Page Viewed")
        check()
        if rests:
            visitor.store_and_reload()


# -- a population --------------------------------------------------------------------------------------------------


def class_shares(fifths: Quintiles, people: list[PopulationSnapshot]) -> dict[str, list[float]]:
    """How large a share of these people is in class 1, 2, 3, 4, 5 now."""
    cuts = rfm.learned_thresholds(Model(rfm.MODEL_KIND, 1, "h", {}, thresholds=fifths.cuts()))
    found = {"recency": [0] * 5, "frequency": [0] * 5, "monetary": [0] * 5}
    for one in people:
        cell = rfm.rfm_cell(
            ProfileFragment(order_count=one.order_count, revenue=one.revenue, last_order_at=one.last_order_at),
            cuts,
            fifths.clock,
        )
        for digit, row in zip(cell, found.values(), strict=True):
            row[int(digit) - 1] += 1
    return {name: [n / len(people) for n in row] for name, row in found.items()}


def random_customers(seed: int, n: int, days: int = 400, worth: float = 1.0) -> list[PopulationSnapshot]:
    """Customers as they are: orders few and many, money log-normal, last orders rather lately than long ago."""
    chance = random.Random(seed)
    return [
        PopulationSnapshot(
            T0 - int(min(chance.expovariate(1 / 90), days) * DAY) - chance.randrange(DAY),
            1 + int(chance.paretovariate(0.6)) % 500,
            int(worth * 100 * chance.lognormvariate(3.5, 1.1)),
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_each_quintile_holds_about_a_fifth(seed: int) -> None:
    people = random_customers(seed, 3_000)
    fifths = Quintiles()
    for one in people:
        fifths.add(one)
    found = class_shares(fifths, people)
    # A cut is an edge of a bin: a class is off by the customers of the bin at either edge. Money: a bin is 1 % wide.
    # Days: the fullest one holds some 1.2 %. Orders come in whole numbers: one order alone is many customers.
    for name, tolerance in (("monetary", 0.015), ("recency", 0.025)):
        assert all(abs(share - 0.2) <= tolerance for share in found[name]), (name, found[name])
    once = max(sum(one.order_count == n for one in people) for n in range(1, 500)) / len(people)
    assert all(share <= 0.2 + once for share in found["frequency"])
    for row in found.values():
        assert sum(row) == pytest.approx(1)


@given(
    st.lists(
        st.builds(
            PopulationSnapshot,
            st.integers(0, 60).map(lambda day: T0 - day * DAY),
            st.integers(1, 12),
            st.integers(0, 10_000),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_quintile_k_has_k_minus_one_fifths_below(people: list[PopulationSnapshot]) -> None:
    fifths = Quintiles()
    for one in people:
        fifths.add(one)
    cuts = fifths.cuts()
    for name, read in (("frequency", attrgetter("order_count")), ("monetary", attrgetter("revenue"))):
        for k, cut in enumerate(cuts[name], 2):
            below = sum(read(one) < cut for one in people)
            assert below * 5 >= (k - 1) * len(people)
            assert cut in BIN_EDGES
    for k, span in zip((5, 4, 3, 2), cuts["recency"], strict=True):
        longer_ago = sum(fifths.clock - one.last_order_at >= span for one in people)
        assert longer_ago * 5 >= (k - 1) * len(people)
    assert list(cuts["recency"]) == sorted(cuts["recency"])


def rfm_outcome(n: int, old: PopulationSnapshot, new: PopulationSnapshot, at: int = T0) -> Outcome:
    def features(prefix: str, one: PopulationSnapshot) -> dict[str, float]:
        return {
            prefix + "last_order_at": one.last_order_at,
            prefix + "order_count": one.order_count,
            prefix + "revenue": one.revenue,
        }

    return Outcome(
        rfm.MODEL_KIND, f"purchases-0-{n}-rfm-0", f"u:{n}", at, at, True, features("old_", old) | features("new_", new)
    )


def test_quintiles_are_published_only_when_they_change() -> None:
    fifths, nobody = Quintiles(), PopulationSnapshot()
    people = random_customers(1, 99)
    for n, one in enumerate(people):
        fifths.learn(rfm_outcome(n, nobody, one))
    assert not fifths.update_published(), "99 customers are too few"
    people += random_customers(2, 1_901)
    for n, one in enumerate(people[99:]):
        fifths.learn(rfm_outcome(99 + n, nobody, one))
    assert fifths.update_published()
    first = fifths.to_model(1, T0)
    assert first.quality.examples == 2_000
    assert not fifths.update_published(), "nothing has moved"
    fifths.learn(rfm_outcome(5_000, nobody, people[0]))
    assert not fifths.update_published(), "one customer in 2,000 moves nothing"
    richer = [PopulationSnapshot(one.last_order_at, one.order_count, one.revenue * 3) for one in people]
    for n, (old, new) in enumerate(zip(people, richer, strict=True)):
        fifths.learn(rfm_outcome(10_000 + n, old, new))
    fifths.add(people[0], -1)
    assert fifths.update_published()
    second = fifths.to_model(2, T0)
    assert second.hash != first.hash
    assert second.thresholds["frequency"] == first.thresholds["frequency"]
    for old_cut, new_cut in zip(first.thresholds["monetary"], second.thresholds["monetary"], strict=True):
        assert new_cut == pytest.approx(3 * old_cut, rel=0.02), "a bin is 1 % wide at either end"
    assert all(abs(share - 0.2) <= 0.015 for share in class_shares(fifths, richer)["monetary"])


def test_duplicate_updates_count_once() -> None:
    fifths, one = Quintiles(), PopulationSnapshot(T0, 2, 500)
    assert fifths.learn(rfm_outcome(1, PopulationSnapshot(), one))
    assert not fifths.learn(rfm_outcome(1, PopulationSnapshot(), one))
    assert (fifths.customers, fifths.duplicates) == (1, 1)
    fifths.learn(rfm_outcome(2, one, PopulationSnapshot()))
    fifths.learn(rfm_outcome(3, one, PopulationSnapshot()))
    assert (fifths.customers, fifths.days, fifths.orders, fifths.money) == (0, {}, {}, {})
    fifths.learn(rfm_outcome(4, PopulationSnapshot(), PopulationSnapshot(T0, 10**9, 10**15)))
    assert fifths.cuts()["monetary"][0] == BIN_EDGES[-1], "beyond all bounds is the last bin"


order_days = st.integers(0, 2_000).map(lambda day: T0 - day * DAY)
customer_lists = st.lists(
    st.builds(PopulationSnapshot, order_days, st.integers(1, 40), st.integers(-5, 10**13)), max_size=30
)


@given(customer_lists, customer_lists)
def test_quintile_histograms_merge_without_loss(one: list[PopulationSnapshot], other: list[PopulationSnapshot]) -> None:
    whole, left, right = Quintiles(), Quintiles(), Quintiles()
    for half, some in ((left, one), (right, other)):
        for n, who in enumerate(some):
            half.learn(rfm_outcome(n, PopulationSnapshot(), who, at=who.last_order_at))
            whole.learn(rfm_outcome(n + 100 * (half is right), PopulationSnapshot(), who, at=who.last_order_at))
    left.merge(right)
    assert (left.days, left.orders, left.money, left.clock) == (
        whole.days,
        whole.orders,
        whole.money,
        whole.clock,
    ) or left.cuts() == whole.cuts()
    assert left.cuts() == whole.cuts()
    again = Quintiles(whole.to_dict())
    assert again.to_dict() == whole.to_dict()
    assert again.cuts() == whole.cuts()


def test_histogram_is_bounded_and_keeps_all_customers() -> None:
    fifths = Quintiles()
    for day in range(4_000):
        fifths.add(PopulationSnapshot(T0 + day * DAY, 1 + day, 10**9 + day * 10**8))
    fifths.cuts()
    assert len(fifths.days) <= 1_502
    assert sum(fifths.days.values()) == fifths.customers == 4_000
    assert len(fifths.money) + len(fifths.orders) <= 2 * len(BIN_EDGES)
    fifths.add(PopulationSnapshot(T0, 1, 10**9), -1)
    assert sum(fifths.days.values()) == fifths.customers == 3_999, "who ordered long ago can still be taken out"


# -- what shards tell ----------------------------------------------------------------------------------------------


def histogram_of(told_of: list[Outcome]) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    fifths = Quintiles()
    for one in told_of:
        fifths.learn(one)
    return fifths.days, fifths.orders, fifths.money


COMPILED = compile_rules(Playbook(Shop(rfm=RfmSettings(quintiles=True))))
history_steps = st.lists(
    st.tuples(
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from(["", "ann", "ben"]),
        st.sampled_from(["Order Completed", "Order Completed", "Page Viewed", "Order Refunded", "Order Cancelled"]),
        st.integers(0, 4),
        st.integers(1, 50),
    ),
    min_size=1,
    max_size=14,
)


@given(history_steps)
@settings(max_examples=examples(60), deadline=None)
def test_merged_customers_are_counted_once_in_any_order(tmp_path_factory: pytest.TempPathFactory, some: Any) -> None:
    town = ShardCluster(tmp_path_factory.mktemp("town"), STEPS, COMPILED)
    keys = set()
    for n, (browser, user, name, order, value) in enumerate(some):
        signed: dict[str, Any] = {"userId": user, "context": {"attimo": {"verified": True}}} if user else {}
        properties = {"order_id": f"{browser}{order}", "total": value} if name != "Page Viewed" else {}
        town.feed(record(browser, name, at=T0 + n * 1_000, properties=properties, **signed))
        keys |= {"a:" + browser} | ({"u:" + user} if user else set())
    for key in sorted(keys):
        known_as: dict[str, Any] = {"userId": key[2:]} if key[0] == "u" else {}
        town.feed(record(key[2:], at=T0 + 100_000, **known_as))
    found = [
        one
        for one in town.decoded(OUTCOMES, outcomes.decode_outcome)
        if isinstance(one, Outcome) and one.kind == rfm.MODEL_KIND
    ]
    assert len({one.id for one in found}) == len(found)
    expected = Quintiles()
    for key in sorted(keys):
        person = town.person(key)
        if person is None or person.merged_into:
            continue
        facts = merged_profile(person)
        now = PopulationSnapshot(facts.last_order_at, facts.order_count, facts.revenue)
        assert person.population_snapshot == (now if now.order_count > 0 else None)
        if now.order_count > 0:
            expected.add(now)
    by_person: dict[str, list[Outcome]] = {}
    for one in found:
        by_person.setdefault(one.person, []).append(one)
    for order in (
        found,
        [one for key in sorted(by_person) for one in by_person[key]],
        [one for key in sorted(by_person, reverse=True) for one in by_person[key]],
    ):
        assert histogram_of(order) == (expected.days, expected.orders, expected.money), "read in any order"
    town.store.close()


def test_merged_customers_are_counted_once() -> None:
    shop = make_playbook(shop={"rfm": LEARNED_CUTS})
    one, other = PersonHarness(shop), PersonHarness(shop, anonymous_id="y")
    other.person = Person(id="u:ann")
    one.emit(0, "Order Completed", order_id="o", total=25)
    other.emit(0, "Order Completed", order_id="o2", total=30)
    merge_into(other.person, build_merge_response(one.person), T0 + 5)
    one.person.merged_into = "u:ann"
    one._apply("shard-messages-0-1", T0 + 5, ShardMessage(kind="merge_request", sender="u:ann", recipient="a:x", seq=1))
    assert one.person.population_snapshot is None, "the browser is nobody any more"
    other._apply(
        "shard-messages-0-2", T0 + 5, ShardMessage(kind="merge_response", sender="a:x", recipient="u:ann", seq=1)
    )
    assert other.person.population_snapshot == PopulationSnapshot(T0, 2, 5_500)
    assert other.person.rfm == "524"
    found = [replace(told_of, id=f"{n}") for n, told_of in enumerate([*one.outcomes, *other.outcomes])]
    days, orders, money = histogram_of([told_of for told_of in found if told_of.kind == rfm.MODEL_KIND])
    assert (list(days.values()), orders, sum(money.values())) == ([1], {2: 1}, 1)


def test_fixed_cuts_stop_the_counting() -> None:
    visitor = PersonHarness(make_playbook(shop={"rfm": LEARNED_CUTS}))
    visitor.emit(0, "Order Completed", order_id="o", total=25)
    visitor.emit(1, "Page Viewed")
    assert len([one for one in visitor.outcomes if one.kind == rfm.MODEL_KIND]) == 1, (
        "what has not changed is not told again"
    )
    visitor.switch_playbook(make_playbook(shop={"rfm": FIXED_CUTS}))
    visitor.emit(2, "Page Viewed")
    assert visitor.person.population_snapshot is None
    assert histogram_of([one for one in visitor.outcomes if one.kind == rfm.MODEL_KIND]) == ({}, {}, {})


# -- run again -----------------------------------------------------------------------------------------------------


def test_replay_with_both_model_kinds_is_exact(tmp_path: Path) -> None:
    chance = random.Random(4)
    bench = ShardHarness(tmp_path, STEPS, 5, cache_size=3)
    bench.rules = compile_rules(
        make_playbook(shop={"rfm": LEARNED_CUTS}, campaigns={"hello": {"trigger": {"segment": "rfm_champions"}}})
    )
    names = [name for name in (f"p{n}" for n in range(2_000)) if record(name).partition == 5][:8]
    kept = {
        one.hash: one
        for one in (make_model(1), make_model(2, monetary=(1, 2, 3, 4)), Model("propensity", 1, "p1", {"pages": 0.5}))
    }
    written: dict[tuple[str, int], list[Record]] = {}
    live: list[tuple[Model | None, Model | None]] = [
        (None, None),
        (None, kept["h1"]),
        (kept["p1"], kept["h1"]),
        (kept["p1"], kept["h2"]),
        (kept["p1"], None),
    ]
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
    turns = bench.store.batch_records(5)
    assert {turn.model_hash for turn in turns} == {"", "+h1", "p1+h1", "p1+h2", "p1"}
    again = SqliteStore(tmp_path / "again.db", DEFAULT_PARTITIONS)
    reruns.replay(
        5,
        turns,
        lambda place, first, last: [one for one in written.get(place, []) if first <= one.offset <= last],
        again,
        STEPS,
        DEFAULT_PARTITIONS,
        lambda known: bench.rules,
        kept.get,
    )
    assert again.persons(5) == bench.persons()
    assert {len(set(value)) > 1 for _, value in bench.persons()} == {True}
    forgotten = SqliteStore(tmp_path / "forgotten.db", DEFAULT_PARTITIONS)
    reruns.replay(
        5,
        turns,
        lambda place, first, last: [one for one in written.get(place, []) if first <= one.offset <= last],
        forgotten,
        STEPS,
        DEFAULT_PARTITIONS,
        lambda known: bench.rules,
        lambda known: kept.get(known) if known == "p1" else None,
    )
    assert forgotten.persons(5) != bench.persons(), "the cuts are part of what a turn was made of"
    again.close()
    forgotten.close()
