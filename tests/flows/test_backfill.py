"""Tests of the backfill: new counters of a playbook include the events in the log."""

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.log.log import Log
from connectors.log.sqlite import SqliteLog
from domain.action import ShardMessage
from domain.playbook.playbook import Playbook
from domain.record import PUBLIC_STREAMS, SHARD_INPUT_STREAMS, SHARD_MESSAGES, NewRecord, Record, partition_of
from flows import backfill
from flows.backfill import CUTOFF_STEP, Backfill
from flows.simulation.replay import replay
from operators.steps import STEPS
from state.person import codec
from state.person.model import EventCounter, Person
from state.playbook.compiled import Rules, compile_rules
from state.shard.backfill import CounterBackfill, apply_backfill, new_counters, pack_counters
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch
from tests.harness.shard import record
from tests.harness.support import examples

PARTITIONS = 2
T0 = 1_700_000_000_000
OLD = {"seen": {"session": {"pages_at_least": 1}}}
NEW = {
    "mugs": {"did": {"event": "Product Viewed", "where": {"category": "mugs"}, "at_least": 2, "within": "1h"}},
    "spent": {"did": {"event": "Order Completed", "sum": {"of": "total", "at_least": 50}}},
    "bought": {"sequence": {"steps": ["Product Viewed", "Product Added", "Order Completed"]}},
}

MUG = {"product_id": "p", "category": "mugs"}


def compile_segments(segments: dict[str, Any]) -> Rules:
    return compile_rules(
        msgspec.convert({"segments": [{"name": name, "when": when} for name, when in segments.items()]}, Playbook)
    )


def person_events(who: str, at: int) -> list[tuple[str, int, dict[str, Any]]]:
    product = {"product_id": "p", "price": 30, "category": "mugs", "quantity": 1}
    return [
        ("Product Viewed", at, product),
        ("Product Viewed", at + 1_000, {**product, "category": "plates"}),
        ("Product Added", at + 2_000, product),
        ("Product Viewed", at + 3_000, product),
        ("Order Completed", at + 4_000, {"order_id": who, "total": 60, "products": [product]}),
    ]


class LoggedCluster:
    """A few shards over a real log."""

    def __init__(self, folder: Path, live: Rules) -> None:
        self.folder, self.live_playbook = folder, live
        self.playbook_by_shard = dict.fromkeys(range(PARTITIONS), live)
        self.log: Log = SqliteLog(folder / "log", PARTITIONS)
        self.store = SqliteStore(folder / "store.db", PARTITIONS)
        self.store.claim(range(PARTITIONS), "shop")
        self.shards = {p: Shard(p, self.store, STEPS, PARTITIONS, 100) for p in range(PARTITIONS)}
        self.clock = 0

    def append(self, *records: Record) -> None:
        """Append records to the log."""
        for one in records:
            self.clock += 100
            self.log.append([NewRecord(one.stream, one.key, one.value, log_time=T0 + self.clock)])

    def read_all(self, limit: int = 1 << 60) -> None:
        """Read until all shards have applied all records and shard messages."""
        while sum(self.read(p, limit) for p in self.shards):
            pass

    def read(self, p: int, limit: int, streams: Sequence[str] = SHARD_INPUT_STREAMS) -> bool:
        """Apply at most `limit` records of these streams to one shard; return whether there were any."""
        shard = self.shards[p]
        found = [
            one
            for stream in streams
            for one in self.log.fetch((stream, p), shard.checkpoint.positions.get(stream, -1) + 1, 1 << 60)
        ]
        if found:
            self._apply_batch(shard, sorted(found, key=lambda one: one.offset)[:limit], 0)
        return bool(found)

    def reevaluate_all(self) -> None:
        while any(shard.checkpoint.reevaluated_to is not None for shard in self.shards.values()):
            for shard in self.shards.values():
                self._apply_batch(shard, [], shard.checkpoint.clock + 1)
        self.read_all()

    def switch_playbook(self, new: Rules, between: Any = lambda: None, tick: bool = True) -> None:
        """Backfill a playbook and make it live; with `tick`, start the re-evaluation."""
        run = Backfill(self.log, self.shards, new, new_counters(new.counter_specs, self.live_playbook.counter_specs))
        while not run.step():
            between()
        for p, found in run.finish().items():
            self.shards[p].backfilled = found
        self.live_playbook = new
        self.playbook_by_shard = dict.fromkeys(self.shards, new)
        if tick:
            for shard in self.shards.values():
                self.tick(shard)

    def switch_shard(self, p: int, new: Rules) -> None:
        """Switch one shard to the new playbook, as if it had its own worker."""
        self.shards[p].backfilled = backfill.rebuild_backfill(
            self.shards[p], self.playbook_by_shard[p], new, self.log.fetch
        )
        self.playbook_by_shard[p] = new

    def tick(self, shard: Shard) -> None:
        """Re-evaluate some people of a shard."""
        self._apply_batch(shard, [], shard.checkpoint.clock + 1)

    def _apply_batch(self, shard: Shard, records: list[Record], tick: int) -> None:
        shard.apply(records, tick, self.playbook_by_shard[shard.partition], None)
        batch = WriteBatch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])
        assert not shard.errors, shard.errors
        for row in batch.outbox_rows:
            if row.stream == SHARD_MESSAGES:
                self.log.append([NewRecord(row.stream, row.key, row.body, log_time=row.at)])

    def persons(self) -> dict[str, Person]:
        return {key: codec.decode(value) for p in range(PARTITIONS) for key, value in self.store.persons(p)}

    def close(self) -> None:
        self.store.close()
        self.log.close()


def counters_of(person: Person) -> dict[str, EventCounter]:
    """The counters of a person, merged over fragments."""
    from state.conditions import counters

    return counters.merge(person.fragments.values())


@pytest.fixture
def visitor_records() -> list[Record]:
    return [
        record(f"v{n}", name, messageId=f"m{n}-{k}", properties=properties)
        for n in range(20)
        for k, (name, _, properties) in enumerate(person_events(f"v{n}", 1_000 * n))
    ]


def test_backfill_matches_an_always_live_playbook(tmp_path: Path, visitor_records: list[Record]) -> None:
    old, new = compile_segments(OLD), compile_segments(NEW)
    changed, always = LoggedCluster(tmp_path / "a", old), LoggedCluster(tmp_path / "b", new)
    for shop in (changed, always):
        shop.append(*visitor_records[:60])
        shop.append(*visitor_records[5:9], record("v1", "Product Viewed", properties={"product_id": {}}))
        shop.read_all()
        shop.append(record("v3", "Product Viewed", userId="ann", messageId="login"), *visitor_records[60:])
        shop.read_all()
    late = iter(visitor_records[:3])
    changed.switch_playbook(new, lambda: changed.append(*[one for one in [next(late, None)] if one is not None]))
    changed.reevaluate_all()
    actual, expected = changed.persons(), always.persons()
    assert len(actual) == len(expected)
    assert any(counters_of(person) for person in expected.values())
    for key, person in expected.items():
        assert counters_of(actual[key]) == counters_of(person), key
        assert set(actual[key].segments) == set(person.segments), key
    assert {name for person in expected.values() for name in person.segments} == {"mugs", "spent", "bought"}
    changed.close()
    always.close()


def test_duplicate_order_is_backfilled_once(tmp_path: Path) -> None:
    """The browser and the shop report the same order in two messages."""
    new = compile_segments(NEW)
    changed, always = LoggedCluster(tmp_path / "a", compile_segments(OLD)), LoggedCluster(tmp_path / "b", new)
    for shop in (changed, always):
        shop.append(
            *(
                record("v1", "Order Completed", messageId=f"m{n}", properties={"order_id": order, "total": 30})
                for n, order in enumerate(("17", "17", "18", 17))
            )
        )
        shop.read_all()
    changed.switch_playbook(new)
    changed.reevaluate_all()
    actual, expected = changed.persons()["a:v1"], always.persons()["a:v1"]
    assert counter_totals(actual) == counter_totals(expected)
    assert {n for n, _ in counter_totals(expected).values()} == {2}
    assert set(actual.segments) == set(expected.segments) == {"spent"}
    changed.close()
    always.close()


def test_backfilled_counters_continue_with_new_events(tmp_path: Path) -> None:
    shop = LoggedCluster(tmp_path, compile_segments(OLD))
    shop.append(record("v1", "Product Viewed", properties={"product_id": "p", "category": "mugs"}))
    shop.read_all()
    shop.switch_playbook(compile_segments(NEW))
    shop.append(record("v1", "Product Viewed", properties={"product_id": "p", "category": "mugs"}))
    shop.read_all()
    shop.reevaluate_all()
    person = shop.persons()["a:v1"]
    assert "mugs" in person.segments
    assert [counter.count for counter in counters_of(person).values() if counter.count == 2]
    shop.close()


def test_backfill_message_before_reevaluation_is_merged(tmp_path: Path) -> None:
    """Half of the events have another id; their counters arrive by shard message first."""
    here, there = (
        next(name for name in (f"{kind}{n}" for n in range(99)) if partition_of(name.encode(), 2) == p)
        for p, kind in enumerate(("visitor", "user"))
    )
    shop = LoggedCluster(tmp_path, compile_segments(OLD))
    seen = {"product_id": "p", "category": "mugs"}
    logins: tuple[dict[str, Any], ...] = ({}, {"userId": there})
    for more in logins:
        shop.append(record(here, "Product Viewed", properties=seen, **more))
        shop.read_all()
    shop.switch_playbook(compile_segments(NEW), tick=False)
    for shard in shop.shards.values():
        shop.tick(shard)
        shop.read_all()
    assert set(shop.persons()[f"u:{there}"].segments) == {"mugs"}
    shop.close()


def test_backfill_is_applied_once_per_person() -> None:
    """An applied backfill changes nothing, and later events do not change the pending counters."""
    person, found = Person(id="a:v1"), {"k": EventCounter(count=1, first_at=5, times=[5])}
    apply_backfill(person, "a:v1", found)
    person.fragments["a:v1"].counters["k"].count += 1
    person.fragments["a:v1"].counters["k"].times.append(7)
    assert found == {"k": EventCounter(count=1, first_at=5, times=[5])}
    before = codec.encode(person)
    apply_backfill(person, "a:v1", found)
    apply_backfill(person, "a:v2", {})
    assert codec.encode(person) == before
    apply_backfill(person, "a:v1", {**found, "l": EventCounter(count=1)})
    assert (person.fragments["a:v1"].version, person.fragments["a:v1"].counters["k"].times) == (2, [5, 7])


@pytest.mark.parametrize("seed", range(examples(3)))
def test_records_in_flight_are_counted_once(tmp_path: Path, seed: int) -> None:
    """With logins, misrouted records, delayed shard messages and shards that switch at different times, the counters
    are the same as with a playbook that was always live.
    """
    chance, new = random.Random(seed), compile_segments({name: NEW[name] for name in ("mugs", "spent")})
    changed, always = LoggedCluster(tmp_path / "a", compile_segments(OLD)), LoggedCluster(tmp_path / "b", new)
    todo = set(changed.shards)
    for n in range(100):
        who = f"v{chance.randrange(6)}"
        more: dict[str, Any] = {"userId": f"user-{who}"} if chance.random() < 0.1 else {}
        where = "other" if chance.random() < 0.05 else who
        one = record(who, "Product Viewed", messageId=f"m{n}", properties=MUG, **more)
        for shop in (changed, always):
            shop.append(one._replace(key=where.encode()))
        for _ in range(chance.randrange(3)):
            changed.read(
                chance.randrange(PARTITIONS), chance.randint(1, 4), chance.choice([SHARD_INPUT_STREAMS, PUBLIC_STREAMS])
            )
        if n > 50 and todo and chance.random() < 0.2:
            changed.switch_shard(todo.pop(), new)
        if chance.random() < 0.2:
            changed.tick(changed.shards[chance.randrange(PARTITIONS)])
    assert not todo
    for shop in (changed, always):
        shop.read_all()
        shop.reevaluate_all()
    actual, expected = changed.persons(), always.persons()
    assert any(person.merged_into for person in expected.values())
    for key, person in expected.items():
        assert counter_totals(actual[key]) == counter_totals(person), key
    changed.close()
    always.close()


def test_records_forwarded_long_ago_count_in_place() -> None:
    """Old forwarded records count in their partition, since their shard message may be deleted; new ones do not."""
    new, found = compile_segments(NEW), []
    for at, with_message in ((1_000, True), (1_000, False), (3_000, True), (3_000, False)):
        counted = CounterBackfill(
            new.counter_specs, backfill.event_filter(new), lambda key, *_: key == "a:x", cutoff=2_000
        )
        one = record("x", "Product Viewed", at=at, properties=MUG)
        counted.read(one)
        if with_message:
            body = {"value": one.value.decode(), "at": at}
            sent = ShardMessage(kind="forward", sender="a:x", recipient="u:ann", seq=1, id="l", body=body)
            for _ in range(2):
                counted.read(Record(SHARD_MESSAGES, 0, 1, at + 5, b"ann", msgspec.json.encode(sent)))
        found.append({key: sum(counter.count for counter in some.values()) for key, some in counted.result().items()})
    once = found[0]["a:x"]
    assert found == [{"a:x": once}, {"a:x": once}, {"u:ann": once}, {}]


def test_backfill_does_not_depend_on_read_order() -> None:
    """A replay reads records in another order and gives the same bytes."""
    new = compile_segments(NEW)
    some = [
        record("x", name, at=at, properties=properties)
        for name, at, properties in [*person_events("x", 1_000), *person_events("y", 20_000)]
    ]
    found = []
    for records in (some, some[::-1], sorted(some, key=lambda one: one.stream)):
        counted = CounterBackfill(new.counter_specs, backfill.event_filter(new))
        for one in records:
            counted.read(one)
        found.append(pack_counters(counted.result()))
    assert len(set(found)) == 1


def test_misrouted_records_count_by_their_shard_message() -> None:
    """The partition that has the record does not have the person."""
    new = compile_segments(NEW)
    one = record("x", "Product Viewed", at=1_000, properties=MUG)
    for forwarded, times in ((False, 1), (True, 1)):
        counted = CounterBackfill(
            new.counter_specs, backfill.event_filter(new), lambda *_, forwarded=forwarded: forwarded, cutoff=2_000
        )
        sent = ShardMessage(
            kind="forward",
            sender="s:1",
            recipient="a:x",
            seq=1,
            id="l",
            body={"value": one.value.decode(), "at": 1_000},
        )
        counted.read(Record(SHARD_MESSAGES, 0, 1, 1_005, b"x", msgspec.json.encode(sent)))
        assert {counter.count for some in counted.result().values() for counter in some.values()} == {times}


def test_already_counted_sequence_steps_are_not_backfilled(tmp_path: Path) -> None:
    """Live counters of forwarded people must not be added twice."""
    added = {"did": {"event": "Product Added", "at_least": 2, "within": "1d"}}
    old, new = compile_segments({"added": added}), compile_segments({"added": added, "bought": NEW["bought"]})
    shop = LoggedCluster(tmp_path, old)
    shop.append(*(record("v1", name, properties=properties) for name, _, properties in person_events("v1", 0)))
    shop.read_all()
    found = [
        name
        for shard in shop.shards.values()
        for some in backfill.rebuild_backfill(shard, old, new, shop.log.fetch).values()
        for name in some
    ]
    assert set(found) == set(new.counter_specs) - set(old.counter_specs)
    shop.close()


def test_trimmed_records_are_not_waited_for(tmp_path: Path) -> None:
    shop = LoggedCluster(tmp_path, compile_segments(OLD))
    shop.append(record("v1", "Product Viewed", properties=MUG))
    shop.read_all()
    with closing(sqlite3.connect(tmp_path / "log" / "log" / "public.db")) as file, file:
        assert file.execute("DELETE FROM records").rowcount == 1
    shop.switch_playbook(compile_segments(NEW))
    shop.reevaluate_all()
    assert not counters_of(shop.persons()["a:v1"])
    shop.close()


def test_backfill_restarts_when_its_cutoff_moves(tmp_path: Path) -> None:
    new, shop = compile_segments(NEW), LoggedCluster(tmp_path, compile_segments(OLD))
    shop.append(record("v1", "Product Viewed", properties=MUG))
    shop.read_all()
    run = Backfill(shop.log, shop.shards, new, new.counter_specs)
    shop.clock += CUTOFF_STEP
    shop.append(record("v1", "Product Viewed", messageId="2", properties=MUG))
    shop.read_all()
    assert [run.step() for _ in range(3)] == [False, True, True]
    found = [some for found in run.finish().values() for some in found.values()]
    assert {counter.count for some in found for counter in some.values()} == {2}
    shop.close()


def counter_totals(person: Person) -> dict[str, tuple[int, float]]:
    """Counts and totals by counter, without log times."""
    return {key: (counter.count, counter.total) for key, counter in counters_of(person).items()}


def test_replay_backfills_the_same(tmp_path: Path, visitor_records: list[Record]) -> None:
    old, new = compile_segments(OLD), compile_segments(NEW)
    shop = LoggedCluster(tmp_path, old)
    shop.append(*visitor_records[:70])
    shop.read_all()
    shop.append(record("v3", "Product Viewed", userId="ann"))
    shop.read_all()
    shop.switch_playbook(new)
    shop.append(*visitor_records[70:])
    shop.read_all()
    shop.reevaluate_all()
    book = {one.hash: one for one in (old, new)}
    for p in range(PARTITIONS):
        again = SqliteStore(tmp_path / f"again{p}.db", PARTITIONS)
        replay(
            p,
            shop.store.batch_records(p),
            shop.log.fetch,
            again,
            STEPS,
            PARTITIONS,
            lambda known: book[known],
            lambda known: None,
            backfilled=lambda shard, before, after: backfill.rebuild_backfill(shard, before, after, shop.log.fetch),
        )
        assert again.persons(p) == shop.store.persons(p)
        again.close()
    shop.close()
