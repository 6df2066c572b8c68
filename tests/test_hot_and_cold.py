"""Who stays in memory and who comes back from the store for every event is told the same, and becomes the same.

What is kept with a hot person beside what is stored (answers of conditions, what was last seen) may save work, and may
never change a decision: a restart forgets it.
"""

from pathlib import Path

import pytest

from benchmarks import data
from connectors.playbook_folder import read
from domain.effect import Row
from domain.record import Record
from domain.streams import stream_of
from flows.onsite import STEPS
from state.rules import Rules, compile_rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore

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
    """What is decided, and who everybody is in the end, with `hot` people in memory at most between batches."""
    store = SqliteStore(path, 1)
    store.claim([0], "owner")
    shard = Shard(0, store, STEPS, 1, hot)
    rows: list[Row] = []
    for record in found:
        shard.apply([record], 0, rules, data.model())
        batch = Batch()
        shard.stage(batch)
        store.commit(batch, [])
        rows += batch.rows
    assert not shard.bugs
    persons = store.persons(0)
    store.close()
    return rows, persons


@pytest.mark.parametrize("seed", range(3))
def test_hot_and_cold_decide_the_same(tmp_path: Path, rules: Rules, seed: int) -> None:
    found = records(seed, 2_000)
    hot = run(tmp_path / "hot.db", rules, found, 1_000)
    cold = run(tmp_path / "cold.db", rules, found, 0)
    assert [row.body for row in hot[0]] == [row.body for row in cold[0]]
    assert hot == cold
    kinds = {row.body.partition(b",")[0] for row in hot[0]}
    assert {b'{"type":"arm"', b'{"type":"send"', b'{"type":"move"'} <= kinds
