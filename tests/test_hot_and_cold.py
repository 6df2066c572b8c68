"""Who stays in memory and who comes back from the store for every event is told the same, and becomes the same.

What is kept with a hot person beside what is stored (answers of conditions, what was last seen) may save work, and may
never change a decision: a restart forgets it.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import data
from connectors.playbook_folder import read
from domain.action import CouponNews, Move, Progress
from domain.effect import Effect, Row
from domain.event import Track
from domain.partition import partition_of
from domain.record import Record
from domain.streams import ACTIONS, LETTERS, PARTITIONS, stream_of
from flows.onsite import STEPS
from state.context import Context, Happening
from state.person import Person
from state.rules import Rules, compile_rules
from state.shard import SLICE, Shard
from state.store import Batch
from state.store_sqlite import SqliteStore
from tests import shards, whole_playbook
from tests.shards import Bench, Tally
from tests.support import examples
from tests.test_workflows import flow
from tests.visitor import playbook

T0 = 1_700_000_000_000
ONLY_ORDERS = """format = "popup"
trigger = { exit_intent = true }
when = { orders = { count_at_least = 1 } }
content = { default = { title = "Welcome back" } }
"""
ONLY_CART = """format = "banner"
trigger = { seconds_on_site = 5 }
when = { cart = { items_at_least = 1 } }
content = { default = { title = "Still there" } }
"""


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    folder = data.write_playbook(tmp_path / "playbook")
    (folder / "campaigns" / "only-orders.toml").write_text(ONLY_ORDERS)
    (folder / "campaigns" / "only-cart.toml").write_text(ONLY_CART)
    return compile_rules(read(folder))


def records(seed: int, count: int) -> list[Record]:
    """Visits of a few people over some hours; some orders and carts come from the till, while nobody is on the site."""
    traffic, at, found = data.Traffic(40, seed), T0, list[Record]()
    for n in range(count):
        one = next(traffic)
        at += 400_000 if n % 37 == 0 else 3_000
        value = one.canonical(at)
        if one.name in ("Order Completed", "Product Added") and n % 3 == 0:
            at += 2_000_000
            value = one.canonical(at).replace(b'"device"', b'"offline":true,"device"')
        found.append(Record(stream_of(one.call, one.name), 0, n, at, one.anonymous_id.encode(), value))
    return found


def run(path: Path, rules: Rules, found: list[Record], hot: int) -> tuple[list[Row], list[tuple[str, bytes]]]:
    """What is decided, and who everybody is in the end, with `hot` people in memory at most between batches.

    Time passes up to each record; letters come at once.
    """
    store = SqliteStore(path, 1)
    store.claim([0], "owner")
    shard = Shard(0, store, STEPS, 1, hot, secret=b"s")
    rows: list[Row] = []

    def turn(record: Record | None, tick: int) -> None:
        shard.apply([record] if record is not None else [], tick, rules, data.model())
        batch = Batch()
        shard.stage(batch)
        store.commit(batch, [])
        for row in batch.rows:
            rows.append(row)
            if row.stream == LETTERS:
                turn(Record(LETTERS, 0, len(rows), row.at, row.key, row.body), 0)

    for record in found:
        while (due := shard.next_due()) is not None and due < record.log_time:
            turn(None, due)
        turn(record, 0)
    assert not shard.bugs
    persons = store.persons(0)
    store.close()
    return rows, persons


@pytest.mark.parametrize("seed", range(examples(1)))
def test_hot_and_cold_decide_the_same(tmp_path: Path, rules: Rules, seed: int) -> None:
    rows = hot_and_cold(tmp_path, rules, seed)
    kinds = {row.body.partition(b",")[0] for row in rows}
    assert {b'{"type":"arm"', b'{"type":"send"', b'{"type":"move"'} <= kinds


def test_hot_and_cold_with_workflows_tags_coupons_and_messages(tmp_path: Path) -> None:
    rows = hot_and_cold(tmp_path, compile_rules(read(whole_playbook.write(tmp_path / "shop"))), 3)
    found = whole_playbook.decided(row.body for row in rows if row.stream == ACTIONS)
    assert {one.because.reason for one in found if isinstance(one, Move)} == {"", "expired"}
    assert len({one.run for one in found if isinstance(one, Progress) and one.what == "goal"}) > 20
    assert len({one.code for one in found if isinstance(one, CouponNews)}) > 20


def test_who_waits_for_a_coupon_asks_for_codes_at_the_same_moments(tmp_path: Path) -> None:
    """The codes have not come for ten minutes; the page that they look at then brings none."""
    rules = compile_rules(playbook(coupons=[{"name": "gift", "percent": 10, "codes": ["A1"]}],
                                   workflows={"w": flow({"coupon": "gift"}, {"goal": "given"})}))
    here, asked = partition_of(b"ann", PARTITIONS), list[list[str]]()
    for hot in (0, 1_000):
        bench = Bench(tmp_path / str(hot), STEPS, here, hot)
        bench.rules = rules
        rows = bench.apply(shards.record("ann", "Cart Viewed", at=T0, offset=1))
        rows += bench.apply(shards.record("ann", at=T0 + 700_000, offset=2))
        asked.append([row.id for row in rows if row.stream == LETTERS])
    assert asked[0] == asked[1] == [f"carts-{here}-1-desk-0"]


def moves_timer(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """A step that sets somebody's timer to the moment that stands in the event, or takes it away."""
    if isinstance(event, Track):
        person.timers.pop("remind:me", None)
        if event.properties["at"]:
            person.timers["remind:me"] = event.properties["at"]
    return ()


@pytest.mark.parametrize("later", [9_000, 0])
def test_whose_timers_fire_in_a_slice_does_not_depend_on_who_is_in_memory(tmp_path: Path, later: int) -> None:
    """Ann's timer moved later (or went), which leaves her entry where it was; then she gets one that is sooner. Whether
    she has her turn before all the others, or in another batch, is the same after a restart: else a re-run, which has
    none, would look at her at another moment.
    """
    here = partition_of(b"ann", PARTITIONS)
    names = [name for name in (f"p{n}" for n in range(10_000)) if partition_of(name.encode(), PARTITIONS) == here]
    found: list[list[tuple[str, str, int]]] = []
    for how in ("stays", "goes", "restart"):
        tally = Tally()
        bench = Bench(tmp_path / how, [tally, moves_timer], here, hot=0 if how == "goes" else 1_000)
        bench.apply(*[shards.record(name, "Set", properties={"at": 6_000}) for name in names[:SLICE]])
        for at in (5_000, later, 7_000):
            if how == "restart":
                bench.reopen()
            bench.apply(shards.record("ann", "Set", properties={"at": at}))
        bench.apply(tick=8_000)
        assert len(tally.seen) == SLICE + 3 + SLICE, "the others wait for another batch"
        bench.apply(tick=8_000)
        assert ("a:ann", "due remind:me", 7_000) in tally.seen
        found.append(tally.seen)
    assert found[0] == found[1] == found[2]


def hot_and_cold(tmp_path: Path, rules: Rules, seed: int) -> list[Row]:
    found = records(seed, 2_000)
    hot = run(tmp_path / "hot.db", rules, found, 1_000)
    cold = run(tmp_path / "cold.db", rules, found, 0)
    assert [row.body for row in hot[0]] == [row.body for row in cold[0]]
    assert hot == cold
    return hot[0]
