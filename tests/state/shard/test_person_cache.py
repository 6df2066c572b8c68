"""Who stays in memory and who comes back from the store for every event is told the same, and becomes the same.

What is kept with a hot person beside what is stored (answers of conditions, what was last seen) may save work, and may
never change a decision: a restart forgets it.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import data
from connectors.playbook.folder import read_playbook
from domain.action import CouponEvent, Effect, OutboxRow, SegmentChange, WorkflowProgress
from domain.event import Track
from domain.record import ACTIONS, DEFAULT_PARTITIONS, SHARD_MESSAGES, Record, event_stream, partition_of
from operators.steps import STEPS
from state.context import Input, StepContext
from state.person.model import Person
from state.playbook.compiled import Rules, compile_rules
from state.shard.shard import TIMERS_PER_BATCH, Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch
from tests.harness import full_playbook
from tests.harness import shard as harness_shard
from tests.harness.person import make_playbook
from tests.harness.shard import ShardHarness, StepRecorder
from tests.harness.support import examples
from tests.operators.test_advance_workflows import make_workflow

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
def compiled_playbook(tmp_path: Path) -> Rules:
    folder = data.write_playbook(tmp_path / "playbook")
    (folder / "campaigns" / "only-orders.toml").write_text(ONLY_ORDERS)
    (folder / "campaigns" / "only-cart.toml").write_text(ONLY_CART)
    return compile_rules(read_playbook(folder))


def random_records(seed: int, count: int) -> list[Record]:
    """Visits of a few people over some hours; some orders and carts come from the till, while nobody is on the site."""
    traffic, at, found = data.EventGenerator(40, seed), T0, list[Record]()
    for n in range(count):
        one = next(traffic)
        at += 400_000 if n % 37 == 0 else 3_000
        value = one.to_log_json(at)
        if one.name in ("Order Completed", "Product Added") and n % 3 == 0:
            at += 2_000_000
            value = one.to_log_json(at).replace(b'"device"', b'"offline":true,"device"')
        found.append(Record(event_stream(one.call, one.name), 0, n, at, one.anonymous_id.encode(), value))
    return found


def run_shard(
    path: Path, rules: Rules, found: list[Record], hot: int
) -> tuple[list[OutboxRow], list[tuple[str, bytes]]]:
    """What is decided, and who everybody is in the end, with `hot` people in memory at most between batches.

    Time passes up to each record; letters come at once.
    """
    store = SqliteStore(path, 1)
    store.claim([0], "owner")
    shard = Shard(0, store, STEPS, 1, hot, secret=b"s")
    rows: list[OutboxRow] = []

    def turn(record: Record | None, tick: int) -> None:
        shard.apply([record] if record is not None else [], tick, rules, data.model())
        batch = WriteBatch()
        shard.stage(batch)
        store.commit(batch, [])
        for row in batch.outbox_rows:
            rows.append(row)
            if row.stream == SHARD_MESSAGES:
                turn(Record(SHARD_MESSAGES, 0, len(rows), row.at, row.key, row.body), 0)

    for record in found:
        while (due := shard.next_due()) is not None and due < record.log_time:
            turn(None, due)
        turn(record, 0)
    assert not shard.errors
    persons = store.persons(0)
    store.close()
    return rows, persons


@pytest.mark.parametrize("seed", range(examples(1)))
def test_cached_and_reloaded_persons_decide_the_same(tmp_path: Path, compiled_playbook: Rules, seed: int) -> None:
    rows = compare_cache_sizes(tmp_path, compiled_playbook, seed)
    kinds = {row.body.partition(b",")[0] for row in rows}
    assert {b'{"type":"preload"', b'{"type":"send"', b'{"type":"segment_change"'} <= kinds


def test_cache_size_does_not_change_a_full_playbook(tmp_path: Path) -> None:
    rows = compare_cache_sizes(
        tmp_path, compile_rules(read_playbook(full_playbook.write_playbook(tmp_path / "shop"))), 3
    )
    found = full_playbook.decode_actions(row.body for row in rows if row.stream == ACTIONS)
    assert {one.because.reason for one in found if isinstance(one, SegmentChange)} == {"", "expired"}
    assert len({one.run for one in found if isinstance(one, WorkflowProgress) and one.transition == "goal"}) > 20
    assert len({one.code for one in found if isinstance(one, CouponEvent)}) > 20


def test_cache_size_does_not_change_lease_requests(tmp_path: Path) -> None:
    """The codes have not come for ten minutes; the page that they look at then brings none."""
    rules = compile_rules(
        make_playbook(
            coupons=[{"name": "gift", "percent": 10, "codes": ["A1"]}],
            workflows={"w": make_workflow({"coupon": "gift"}, {"goal": "given"})},
        )
    )
    here, asked = partition_of(b"ann", DEFAULT_PARTITIONS), list[list[str]]()
    for hot in (0, 1_000):
        bench = ShardHarness(tmp_path / str(hot), STEPS, here, hot)
        bench.rules = rules
        rows = bench.apply(harness_shard.record("ann", "Cart Viewed", at=T0, offset=1))
        rows += bench.apply(harness_shard.record("ann", at=T0 + 700_000, offset=2))
        asked.append([row.id for row in rows if row.stream == SHARD_MESSAGES])
    assert asked[0] == asked[1] == [f"carts-{here}-1-lease-0"]


def move_timer_step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """A step that sets somebody's timer to the moment that stands in the event, or takes it away."""
    if isinstance(event, Track):
        person.timers.pop("remind:me", None)
        if event.properties["at"]:
            person.timers["remind:me"] = event.properties["at"]
    return ()


@pytest.mark.parametrize("later", [9_000, 0])
def test_cache_size_does_not_change_timer_order(tmp_path: Path, later: int) -> None:
    """Ann's timer moved later (or went), which leaves her entry where it was; then she gets one that is sooner. Whether
    she has her turn before all the others, or in another batch, is the same after a restart: else a re-run, which has
    none, would look at her at another moment.
    """
    here = partition_of(b"ann", DEFAULT_PARTITIONS)
    names = [
        name for name in (f"p{n}" for n in range(10_000)) if partition_of(name.encode(), DEFAULT_PARTITIONS) == here
    ]
    found: list[list[tuple[str, str, int]]] = []
    for how in ("stays", "goes", "restart"):
        tally = StepRecorder()
        bench = ShardHarness(tmp_path / how, [tally, move_timer_step], here, cache_size=0 if how == "goes" else 1_000)
        bench.apply(*[harness_shard.record(name, "Set", properties={"at": 6_000}) for name in names[:TIMERS_PER_BATCH]])
        for at in (5_000, later, 7_000):
            if how == "restart":
                bench.reopen()
            bench.apply(harness_shard.record("ann", "Set", properties={"at": at}))
        bench.apply(tick=8_000)
        assert len(tally.calls) == TIMERS_PER_BATCH + 3 + TIMERS_PER_BATCH, "the others wait for another batch"
        bench.apply(tick=8_000)
        assert ("a:ann", "due remind:me", 7_000) in tally.calls
        found.append(tally.calls)
    assert found[0] == found[1] == found[2]


def compare_cache_sizes(tmp_path: Path, rules: Rules, seed: int) -> list[OutboxRow]:
    found = random_records(seed, 2_000)
    hot = run_shard(tmp_path / "hot.db", rules, found, 1_000)
    cold = run_shard(tmp_path / "cold.db", rules, found, 0)
    assert [row.body for row in hot[0]] == [row.body for row in cold[0]]
    assert hot == cold
    return hot[0]
