"""Who stays in memory and who comes back from the store for every event is told the same, and becomes the same.

What is kept with a hot person beside what is stored (answers of conditions, what was last seen) may save work, and may
never change a decision: a restart forgets it.
"""

from pathlib import Path

import pytest

from benchmarks import data
from connectors.playbook_folder import read
from domain.action import CouponNews, Move, Progress
from domain.effect import Row
from domain.record import Record
from domain.streams import ACTIONS, LETTERS, stream_of
from flows.onsite import STEPS
from state.rules import Rules, compile_rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore
from tests import whole_playbook

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


@pytest.mark.parametrize("seed", range(3))
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


def hot_and_cold(tmp_path: Path, rules: Rules, seed: int) -> list[Row]:
    found = records(seed, 2_000)
    hot = run(tmp_path / "hot.db", rules, found, 1_000)
    cold = run(tmp_path / "cold.db", rules, found, 0)
    assert [row.body for row in hot[0]] == [row.body for row in cold[0]]
    assert hot == cold
    return hot[0]
