"""A changed playbook that counts something new: what the log holds is there from the first second on."""

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.log import Log
from connectors.log_sqlite import SqliteLog
from domain.letter import Letter
from domain.partition import partition_of
from domain.playbook import Playbook
from domain.record import Outgoing, Record
from domain.streams import LETTERS, PUBLIC, SHARD_INPUT
from flows import warm_up
from flows.onsite import STEPS
from flows.warm_up import WarmUp
from state import codec
from state.person import Person, Trace
from state.rerun import rerun
from state.rules import Rules, compile_rules
from state.sent_on import STRETCH
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore
from state.warmth import Warmth, missing, pack, warm
from tests.shards import record
from tests.support import examples

PARTITIONS = 2
T0 = 1_700_000_000_000
OLD = {"seen": {"session": {"pages_at_least": 1}}}
NEW = {
    "mugs": {"did": {"event": "Product Viewed", "where": {"category": "mugs"}, "at_least": 2, "within": "1h"}},
    "spent": {"did": {"event": "Order Completed", "sum": {"of": "total", "at_least": 50}}},
    "bought": {"sequence": {"steps": ["Product Viewed", "Product Added", "Order Completed"]}},
}

MUG = {"product_id": "p", "category": "mugs"}


def rules(segments: dict[str, Any]) -> Rules:
    return compile_rules(msgspec.convert(
        {"segments": [{"name": name, "when": when} for name, when in segments.items()]}, Playbook))


def events(who: str, at: int) -> list[tuple[str, int, dict[str, Any]]]:
    product = {"product_id": "p", "price": 30, "category": "mugs", "quantity": 1}
    return [("Product Viewed", at, product), ("Product Viewed", at + 1_000, {**product, "category": "plates"}),
            ("Product Added", at + 2_000, product), ("Product Viewed", at + 3_000, product),
            ("Order Completed", at + 4_000, {"order_id": who, "total": 60, "products": [product]})]


class Shop:
    """A few shards over a real log, as a worker has them."""

    def __init__(self, folder: Path, live: Rules) -> None:
        self.folder, self.live = folder, live
        self.lives = dict.fromkeys(range(PARTITIONS), live)
        self.log: Log = SqliteLog(folder / "log", PARTITIONS)
        self.store = SqliteStore(folder / "store.db", PARTITIONS)
        self.store.claim(range(PARTITIONS), "shop")
        self.shards = {p: Shard(p, self.store, STEPS, PARTITIONS, 100) for p in range(PARTITIONS)}
        self.clock = 0

    def happens(self, *records: Record) -> None:
        """Written to the log; nobody has read it yet."""
        for one in records:
            self.clock += 100
            self.log.append([Outgoing(one.stream, one.key, one.value, log_time=T0 + self.clock)])

    def reads(self, limit: int = 1 << 60) -> None:
        """The shards read what is there, and each other's letters."""
        while sum(self.read(p, limit) for p in self.shards):
            pass

    def read(self, p: int, limit: int, streams: Sequence[str] = SHARD_INPUT) -> bool:
        """One shard reads what is there of these streams, at most `limit` records; whether there was anything."""
        shard = self.shards[p]
        found = [one for stream in streams for one in self.log.fetch(
            (stream, p), shard.head.positions.get(stream, -1) + 1, 1 << 60)]
        if found:
            self._turn(shard, sorted(found, key=lambda one: one.offset)[:limit], 0)
        return bool(found)

    def sweeps(self) -> None:
        while any(shard.head.sweep is not None for shard in self.shards.values()):
            for shard in self.shards.values():
                self._turn(shard, [], shard.head.clock + 1)
        self.reads()

    def swaps(self, new: Rules, between: Any = lambda: None, tick: bool = True) -> None:
        """The new playbook warms up and goes live; with `tick` people begin to be looked at again."""
        warming = WarmUp(self.log, self.shards, new, missing(new.remembered, self.live.remembered))
        while not warming.step():
            between()
        for p, found in warming.finish().items():
            self.shards[p].warm = found
        self.live = new
        self.lives = dict.fromkeys(self.shards, new)
        if tick:
            for shard in self.shards.values():
                self.tick(shard)

    def swap(self, p: int, new: Rules) -> None:
        """One shard alone decides with the new playbook from now on, as with a worker of its own."""
        self.shards[p].warm = warm_up.again(self.shards[p], self.lives[p], new, self.log.fetch)
        self.lives[p] = new

    def tick(self, shard: Shard) -> None:
        """A slice of people is looked at again."""
        self._turn(shard, [], shard.head.clock + 1)

    def _turn(self, shard: Shard, records: list[Record], tick: int) -> None:
        shard.apply(records, tick, self.lives[shard.partition], None)
        batch = Batch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])
        assert not shard.bugs, shard.bugs
        for row in batch.rows:
            if row.stream == LETTERS:
                self.log.append([Outgoing(row.stream, row.key, row.body, log_time=row.at)])

    def people(self) -> dict[str, Person]:
        return {key: codec.decode(value) for p in range(PARTITIONS) for key, value in self.store.persons(p)}

    def close(self) -> None:
        self.store.close()
        self.log.close()


def knows(person: Person) -> dict[str, Trace]:
    """All that is counted of a person, over the facets."""
    from state import traces

    return traces.combine(person.facets.values())


@pytest.fixture
def crowd() -> list[Record]:
    return [record(f"v{n}", name, messageId=f"m{n}-{k}", properties=properties)
            for n in range(20) for k, (name, _, properties) in enumerate(events(f"v{n}", 1_000 * n))]


def test_it_is_as_if_the_playbook_had_been_live_from_the_beginning(tmp_path: Path, crowd: list[Record]) -> None:
    old, new = rules(OLD), rules(NEW)
    changed, always = Shop(tmp_path / "a", old), Shop(tmp_path / "b", new)
    for shop in (changed, always):
        shop.happens(*crowd[:60])
        shop.happens(*crowd[5:9], record("v1", "Product Viewed", properties={"product_id": {}}))
        shop.reads()
        shop.happens(record("v3", "Product Viewed", userId="ann", messageId="login"), *crowd[60:])
        shop.reads()
    late = iter(crowd[:3])
    changed.swaps(new, lambda: changed.happens(*[one for one in [next(late, None)] if one is not None]))
    changed.sweeps()
    there, here = changed.people(), always.people()
    assert len(there) == len(here)
    assert any(knows(person) for person in here.values())
    for key, person in here.items():
        assert knows(there[key]) == knows(person), key
        assert set(there[key].segments) == set(person.segments), key
    assert {name for person in here.values() for name in person.segments} == {"mugs", "spent", "bought"}
    changed.close()
    always.close()


def test_an_order_that_is_reported_twice_counts_once(tmp_path: Path) -> None:
    """The browser tells of it, and the shop does: another message, the same order."""
    new = rules(NEW)
    changed, always = Shop(tmp_path / "a", rules(OLD)), Shop(tmp_path / "b", new)
    for shop in (changed, always):
        shop.happens(*(record("v1", "Order Completed", messageId=f"m{n}", properties={"order_id": order, "total": 30})
                       for n, order in enumerate(("17", "17", "18", 17))))
        shop.reads()
    changed.swaps(new)
    changed.sweeps()
    there, here = changed.people()["a:v1"], always.people()["a:v1"]
    assert counts(there) == counts(here)
    assert {n for n, _ in counts(here).values()} == {2}
    assert set(there.segments) == set(here.segments) == {"spent"}
    changed.close()
    always.close()


def test_what_was_found_counts_on_with_what_comes_later(tmp_path: Path) -> None:
    shop = Shop(tmp_path, rules(OLD))
    shop.happens(record("v1", "Product Viewed", properties={"product_id": "p", "category": "mugs"}))
    shop.reads()
    shop.swaps(rules(NEW))
    shop.happens(record("v1", "Product Viewed", properties={"product_id": "p", "category": "mugs"}))
    shop.reads()
    shop.sweeps()
    person = shop.people()["a:v1"]
    assert "mugs" in person.segments
    assert [trace.n for trace in knows(person).values() if trace.n == 2]
    shop.close()


def test_a_letter_to_who_was_not_looked_at_yet_does_not_stand_in_its_way(tmp_path: Path) -> None:
    """Half of what counts was done under another id: what is found of it comes first, by letter."""
    here, there = (next(name for name in (f"{kind}{n}" for n in range(99)) if partition_of(name.encode(), 2) == p)
                   for p, kind in enumerate(("visitor", "user")))
    shop = Shop(tmp_path, rules(OLD))
    seen = {"product_id": "p", "category": "mugs"}
    logins: tuple[dict[str, Any], ...] = ({}, {"userId": there})
    for more in logins:
        shop.happens(record(here, "Product Viewed", properties=seen, **more))
        shop.reads()
    shop.swaps(rules(NEW), tick=False)
    for shard in shop.shards.values():
        shop.tick(shard)
        shop.reads()
    assert set(shop.people()[f"u:{there}"].segments) == {"mugs"}
    shop.close()


def test_what_was_found_is_given_once_however_often_somebody_is_looked_at() -> None:
    """Nothing new is no change of what is known; and what is counted on with is not what waits to be given."""
    person, found = Person(id="a:v1"), {"k": Trace(n=1, first_at=5, times=[5])}
    warm(person, "a:v1", found)
    person.facets["a:v1"].traces["k"].n += 1
    person.facets["a:v1"].traces["k"].times.append(7)
    assert found == {"k": Trace(n=1, first_at=5, times=[5])}
    before = codec.encode(person)
    warm(person, "a:v1", found)
    warm(person, "a:v2", {})
    assert codec.encode(person) == before
    warm(person, "a:v1", {**found, "l": Trace(n=1)})
    assert (person.facets["a:v1"].version, person.facets["a:v1"].traces["k"].times) == (2, [5, 7])


@pytest.mark.parametrize("seed", range(examples(3)))
def test_whatever_is_under_way_counts_once(tmp_path: Path, seed: int) -> None:
    """People log in on the way, some are named in the wrong partition, letters are read when it suits, and each shard
    goes over to the new playbook at a moment of its own: what is counted is as if it had been live from the beginning.
    """
    chance, new = random.Random(seed), rules({name: NEW[name] for name in ("mugs", "spent")})
    changed, always = Shop(tmp_path / "a", rules(OLD)), Shop(tmp_path / "b", new)
    todo = set(changed.shards)
    for n in range(100):
        who = f"v{chance.randrange(6)}"
        more: dict[str, Any] = {"userId": f"user-{who}"} if chance.random() < 0.1 else {}
        where = "elsewhere" if chance.random() < 0.05 else who
        one = record(who, "Product Viewed", messageId=f"m{n}", properties=MUG, **more)
        for shop in (changed, always):
            shop.happens(one._replace(key=where.encode()))
        for _ in range(chance.randrange(3)):
            changed.read(chance.randrange(PARTITIONS), chance.randint(1, 4), chance.choice([SHARD_INPUT, PUBLIC]))
        if n > 50 and todo and chance.random() < 0.2:
            changed.swap(todo.pop(), new)
        if chance.random() < 0.2:
            changed.tick(changed.shards[chance.randrange(PARTITIONS)])
    assert not todo
    for shop in (changed, always):
        shop.reads()
        shop.sweeps()
    there, here = changed.people(), always.people()
    assert any(person.alias_of for person in here.values())
    for key, person in here.items():
        assert counts(there[key]) == counts(person), key
    changed.close()
    always.close()


def test_what_was_sent_on_long_ago_counts_where_it_stands() -> None:
    """Its letter may have left the log; what was sent on lately counts by its letter alone."""
    new, found = rules(NEW), []
    for at, letters in ((1_000, True), (1_000, False), (3_000, True), (3_000, False)):
        warmth = Warmth(new.remembered, warm_up.readable_by(new), lambda key, *_: key == "a:x", horizon=2_000)
        one = record("x", "Product Viewed", at=at, properties=MUG)
        warmth.read(one)
        if letters:
            body = {"value": one.value.decode(), "at": at}
            sent = Letter(kind="forward", sender="a:x", to="u:ann", seq=1, id="l", body=body)
            for _ in range(2):
                warmth.read(Record(LETTERS, 0, 1, at + 5, b"ann", msgspec.json.encode(sent)))
        found.append({key: sum(trace.n for trace in some.values()) for key, some in warmth.found().items()})
    once = found[0]["a:x"]
    assert found == [{"a:x": once}, {"a:x": once}, {"u:ann": once}, {}]


def test_in_which_order_the_log_is_read_changes_nothing_of_what_was_found() -> None:
    """A re-run reads it in another one, and ends with the same bytes."""
    new = rules(NEW)
    some = [record("x", name, at=at, properties=properties) for name, at, properties in [
        *events("x", 1_000), *events("y", 20_000)]]
    found = []
    for records in (some, some[::-1], sorted(some, key=lambda one: one.stream)):
        warmth = Warmth(new.remembered, warm_up.readable_by(new))
        for one in records:
            warmth.read(one)
        found.append(pack(warmth.found()))
    assert len(set(found)) == 1


def test_what_was_named_in_the_wrong_partition_counts_by_its_letter_however_long_ago() -> None:
    """Where it stands is nobody to whom it could be given."""
    new = rules(NEW)
    one = record("x", "Product Viewed", at=1_000, properties=MUG)
    for moved, times in ((False, 1), (True, 1)):
        warmth = Warmth(new.remembered, warm_up.readable_by(new), lambda *_, moved=moved: moved, horizon=2_000)
        sent = Letter(kind="forward", sender="s:1", to="a:x", seq=1, id="l",
                      body={"value": one.value.decode(), "at": 1_000})
        warmth.read(Record(LETTERS, 0, 1, 1_005, b"x", msgspec.json.encode(sent)))
        assert {trace.n for some in warmth.found().values() for trace in some.values()} == {times}


def test_steps_of_a_new_sequence_that_are_counted_already_are_not_given_anew(tmp_path: Path) -> None:
    """Who was sent on counts them as they come, and would have them twice."""
    added = {"did": {"event": "Product Added", "at_least": 2, "within": "1d"}}
    old, new = rules({"added": added}), rules({"added": added, "bought": NEW["bought"]})
    shop = Shop(tmp_path, old)
    shop.happens(*(record("v1", name, properties=properties) for name, _, properties in events("v1", 0)))
    shop.reads()
    found = [name for shard in shop.shards.values()
             for some in warm_up.again(shard, old, new, shop.log.fetch).values() for name in some]
    assert set(found) == set(new.remembered) - set(old.remembered)
    shop.close()


def test_what_has_left_the_log_is_not_waited_for(tmp_path: Path) -> None:
    shop = Shop(tmp_path, rules(OLD))
    shop.happens(record("v1", "Product Viewed", properties=MUG))
    shop.reads()
    with closing(sqlite3.connect(tmp_path / "log" / "log" / "public.db")) as file, file:
        assert file.execute("DELETE FROM records").rowcount == 1
    shop.swaps(rules(NEW))
    shop.sweeps()
    assert not knows(shop.people()["a:v1"])
    shop.close()


def test_it_is_gathered_anew_when_the_moment_moves_from_which_letters_count(tmp_path: Path) -> None:
    new, shop = rules(NEW), Shop(tmp_path, rules(OLD))
    shop.happens(record("v1", "Product Viewed", properties=MUG))
    shop.reads()
    warming = WarmUp(shop.log, shop.shards, new, new.remembered)
    shop.clock += STRETCH
    shop.happens(record("v1", "Product Viewed", messageId="2", properties=MUG))
    shop.reads()
    assert [warming.step() for _ in range(3)] == [False, True, True]
    found = [some for warm in warming.finish().values() for some in warm.values()]
    assert {trace.n for some in found for trace in some.values()} == {2}
    shop.close()


def counts(person: Person) -> dict[str, tuple[int, float]]:
    """How often and how much, whatever the moments in the log."""
    return {key: (trace.n, trace.total) for key, trace in knows(person).items()}


def test_a_rerun_gathers_the_same(tmp_path: Path, crowd: list[Record]) -> None:
    old, new = rules(OLD), rules(NEW)
    shop = Shop(tmp_path, old)
    shop.happens(*crowd[:70])
    shop.reads()
    shop.happens(record("v3", "Product Viewed", userId="ann"))
    shop.reads()
    shop.swaps(new)
    shop.happens(*crowd[70:])
    shop.reads()
    shop.sweeps()
    book = {one.hash: one for one in (old, new)}
    for p in range(PARTITIONS):
        again = SqliteStore(tmp_path / f"again{p}.db", PARTITIONS)
        rerun(p, shop.store.turns(p), shop.log.fetch, again, STEPS, PARTITIONS, lambda known: book[known],
              lambda known: None,
              warmed=lambda shard, before, after: warm_up.again(shard, before, after, shop.log.fetch))
        assert again.persons(p) == shop.store.persons(p)
        again.close()
    shop.close()
