"""No code is ever given to two people: whatever is late, comes twice, crashes, fails or logs in, in whatever order."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import action as actions
from domain.action import CouponEvent, Effect, OutboxRow
from domain.event import Track
from domain.playbook.playbook import Playbook
from domain.record import DEFAULT_PARTITIONS, SHARD_MESSAGES, Record, partition_of
from operators import resolve_identity, update_profile
from state.context import Input, StepContext, TimerFired
from state.coupons.leasing import allocator_key, code_cache_key
from state.coupons.wallet import merge, reconcile, reserve_coupon
from state.person import codec
from state.person.model import Coupon, Person
from state.playbook.compiled import compile_rules
from state.shard.shard import Shard
from tests.harness.cluster import ShardCluster
from tests.harness.shard import record
from tests.harness.support import examples

T0 = 1_700_000_000_000
DAY = 86_400_000


def pool_playbook(**pools: Any) -> Playbook:
    """A playbook of pools alone."""
    return msgspec.convert(
        {"coupons": [{"name": name, "percent": 10, **rest} for name, rest in pools.items()]}, Playbook
    )


class ReserveStep:
    """A step that asks for a coupon at "Wished" and again whenever it is told to; `told` is what came of it."""

    def __init__(self) -> None:
        self.requested_pools: dict[str, set[str]] = {}
        self.results: dict[tuple[str, str], Coupon | str] = {}

    def __call__(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if isinstance(event, Track) and event.name == "Wished Boom":
            reserve_coupon(person, event.properties["pool"], "test", context)
            raise ZeroDivisionError("a bug in a step, after a code was taken")
        if isinstance(event, Track) and event.name == "Wished":
            self.requested_pools.setdefault(person.id, set()).add(event.properties["pool"])
        elif not (isinstance(event, TimerFired) and event.kind == "again"):
            return ()
        elif event.id:  # codes have come: for this person, or for who they were before they logged in
            self.requested_pools.setdefault(person.id, set()).add(event.id.partition("#")[0])
        if not person.merged_into:
            for pool in sorted(self.requested_pools.get(person.id, ())):
                self.results[person.id, pool] = reserve_coupon(person, pool, "test", context)
        return ()


class CouponCluster(ShardCluster):
    """A town in which people wish for coupons; letters wait until they are delivered, some of them twice."""

    def __init__(self, folder: Path, book: Playbook) -> None:
        self.reserve_step = ReserveStep()
        self.steps = (resolve_identity.step, update_profile.step, self.reserve_step)
        super().__init__(folder, self.steps, compile_rules(book))
        self.clock = T0
        self.delivered: list[OutboxRow] = []
        self.numbers = itertools.count(1)

    def make_record(self, who: str, name: str, **fields: Any) -> Record:
        """Something `who` ("a:x", "u:ann") does now."""
        ids = {"userId": who[2:]} if who[0] == "u" else {}
        made = record(who[2:], name, at=self.clock, offset=next(self.numbers), **{**fields, **ids})
        return (
            made
            if who[0] == "a" or "anonymousId" in fields
            else made._replace(
                value=msgspec.json.encode(
                    {k: v for k, v in msgspec.json.decode(made.value).items() if k != "anonymousId"}
                )
            )
        )

    def emit(self, who: str, name: str, **fields: Any) -> None:
        self.feed(self.make_record(who, name, **fields), deliver=False)

    def request(self, who: str, pool: str = "ten", name: str = "Wished") -> Coupon | str:
        """Wish, and see to it that every letter arrives; what came of it."""
        self.emit(who, name, properties={"pool": pool})
        self.deliver()
        return self.reserve_step.results[who, pool]

    def deliver_message(self, row: OutboxRow) -> None:
        """Deliver one letter."""
        self.delivered.append(row)
        there = partition_of(row.key, DEFAULT_PARTITIONS)
        self._apply_batch(
            there, [Record(SHARD_MESSAGES, there, next(self.numbers) + 10**6, self.clock, row.key, row.body)], 0
        )

    def deliver(self) -> None:
        while self.pending_messages:
            self.deliver_message(self.pending_messages.pop(0))

    def crash(self, lost: Record) -> None:
        """The shard of this record applies it and dies before it commits; the record comes again."""
        self.shards[lost.partition].apply([lost], 0, self.rules, None)
        self.shards[lost.partition] = Shard(lost.partition, self.store, self.steps, DEFAULT_PARTITIONS, 1_000)
        self._apply_batch(lost.partition, [lost], 0)

    def fail_step(self, who: str) -> None:
        """A step fails after a code was taken: the record is set aside, and the code is back on the desk."""
        shard = self.shards[partition_of(who[2:].encode(), DEFAULT_PARTITIONS)]
        shard.apply([self.make_record(who, "Wished Boom", properties={"pool": "ten"})], 0, self.rules, None)
        assert shard.errors == ["ZeroDivisionError: a bug in a step, after a code was taken"]
        shard.errors.clear()
        self._apply_batch(shard.partition, [], self.clock)

    def persons(self) -> dict[str, Person]:
        return {name: codec.decode(value) for p in range(DEFAULT_PARTITIONS) for name, value in self.store.persons(p)}

    def coupon_events(self) -> list[CouponEvent]:
        found = [actions.decode_action(row.body) for row in self.rows if row.stream == "actions"]
        return [one for one in found if isinstance(one, CouponEvent)]


def check_invariants(cluster: CouponCluster, pool: str) -> None:
    """What holds whatever happened."""
    people = cluster.persons()
    mine = [one for person in people.values() for one in person.coupons if one.pool == pool]
    desks = [
        person.code_cache for name, person in people.items() if name.startswith(f"d:{pool}#") and person.code_cache
    ]
    kept = [code for desk in desks for code in desk.codes]
    given = [one.code for one in mine]
    home = people.get(allocator_key(pool))
    granted = home.pool_allocator.granted if home is not None and home.pool_allocator is not None else 0
    assert len(set(kept + given)) == len(kept) + len(given), "a code is in two places"
    rule = cluster.rules.pools[pool]
    # A grant may be under way, or (if it came late, behind a newer one) be lost; it is never given out twice.
    assert set(kept + given) <= set(rule.codes(0, granted, b""))
    counted: Counter[str] = Counter()
    for desk in desks:
        counted.update(desk.state_counts)
    moving = sum(1 for row in cluster.pending_messages if b'"merge_response"' in row.body)
    assert moving or {state: n for state, n in counted.items() if n} == Counter(one.state for one in mine)
    reserved = Counter(
        one.code
        for one in cluster.coupon_events()
        if one.pool == pool and one.status == "reserved" and not one.id.startswith("again")
    )
    assert set(given) <= set(reserved)


PEOPLE = ["a:x0", "a:x1", "a:x2", "a:x3", "a:x4", "a:x5", "u:ann", "u:bob"]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "wish",
                "wish",
                "wish",
                "hand",
                "hand",
                "hand",
                "twice",
                "crash",
                "boom",
                "login",
                "order",
                "borrow",
                "cancel",
                "wait",
            ]
        ),
        st.integers(0, 20),
        st.integers(0, 20),
    ),
    max_size=40,
)


@settings(max_examples=examples(60), deadline=None)
@given(size=st.integers(1, 12), once=st.booleans(), operations=OPERATIONS)
def test_no_code_is_ever_given_to_two_people(size: int, once: bool, operations: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        town = CouponCluster(
            Path(folder), pool_playbook(ten={"size": size, "once_per_person": once, "valid_for": "5d"})
        )
        for what, one, other in operations:
            town.clock += 1_000
            run_operation(town, what, one, other)
            check_invariants(town, "ten")
        town.deliver()
        town.tick(town.clock + 1)
        town.deliver()
        check_invariants(town, "ten")
        people = town.persons()
        for who, told in ((who, told) for (who, _), told in town.reserve_step.results.items()):
            if not people[who].merged_into:
                assert told != "coupon_pending", "everybody who waited was looked at again"
        assert not any(
            person.code_cache.waiting or person.code_cache.requested_at
            for person in people.values()
            if person.code_cache
        )
        town.store.close()


def run_operation(cluster: CouponCluster, what: str, one: int, other: int) -> None:
    who = PEOPLE[one % len(PEOPLE)]
    if what == "wish":
        cluster.emit(who, "Wished", properties={"pool": "ten"})
    elif what == "hand" and cluster.pending_messages:
        cluster.deliver_message(cluster.pending_messages.pop(one % len(cluster.pending_messages)))
    elif what == "twice" and cluster.delivered:
        cluster.deliver_message(cluster.delivered[one % len(cluster.delivered)])
    elif what == "crash":
        cluster.crash(cluster.make_record(who, "Wished", properties={"pool": "ten"}))
    elif what == "boom" and not getattr(cluster.person(who), "alias_of", ""):
        cluster.fail_step(who)
    elif what == "login":
        cluster.emit(PEOPLE[6 + one % 2], "Page Viewed", anonymousId=PEOPLE[other % 6][2:])
    elif what in ("order", "borrow"):
        whose = who if what == "order" else PEOPLE[other % len(PEOPLE)]
        person = cluster.person(whose)
        code = person.coupons[-1].code.lower() if person is not None and person.coupons else "no-code"
        cluster.emit(who, "Order Completed", properties={"order_id": f"o{one}", "total": 5, "coupon": f" {code} "})
    elif what == "cancel":
        cluster.emit(who, "Order Cancelled", properties={"order_id": f"o{one}"})
    elif what == "wait":
        cluster.clock += one * DAY // 4
        cluster.tick(cluster.clock)


def test_code_cache_key_maps_to_its_own_shard() -> None:
    keys = {code_cache_key("ten", p, DEFAULT_PARTITIONS) for p in range(DEFAULT_PARTITIONS)}
    assert len(keys) == DEFAULT_PARTITIONS
    assert all(key[:2] == "d:" for key in keys)


COUPONS = st.lists(
    st.builds(
        Coupon,
        code=st.sampled_from(["A", "B", "C", "D", "E", "F"]),
        pool=st.sampled_from(["ten", "five"]),
        state=st.just("reserved"),
        reserved_at=st.integers(0, 5),
        until=st.just(99),
        origin=st.sampled_from(["a:x", "a:y", "a:z"]),
    ),
    max_size=4,
    unique_by=lambda one: one.code,
)


def merge_shares(*shares: list[Coupon]) -> list[Coupon]:
    """What one person holds who took these over, one after the other."""
    person, keepers = Person(id="u:ann"), dict[str, Person]()
    context = StepContext(0, compile_rules(pool_playbook(ten={}, five={"once_per_person": False})))
    context.sibling = lambda key: keepers.setdefault(key, Person(id=key))
    for share in shares:
        merge(person, msgspec.convert(msgspec.to_builtins(share), list[Coupon]))
        reconcile(person, context)
    return person.coupons


@settings(deadline=None)
@given(COUPONS, COUPONS, COUPONS)
def test_coupon_merge_does_not_depend_on_order(a: list[Coupon], b: list[Coupon], c: list[Coupon]) -> None:
    """A code is in one hand alone, so the shares are made disjoint first."""
    mine = {one.code: one for one in [*c, *b, *a]}
    shares = [[one for one in share if mine[one.code] is one] for share in (a, b, c)]
    first = merge_shares(*shares)
    for order in itertools.permutations(shares):
        assert merge_shares(*order) == first
    assert merge_shares(*shares, *shares) == first
    assert sum([one.pool == "ten" and one.state == "reserved" for one in first]) <= 1
