"""What a shard promises: order, time, positions, timers, memory, and that a bug stops nothing."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from domain import action as letters
from domain import record as rejects
from domain.action import Effect, SegmentChange, ShardMessage
from domain.record import DEFAULT_PARTITIONS, SHARD_MESSAGES, Record, partition_of
from state.context import Input, InvalidEvent, StepContext, StepFunction, TimerFired
from state.person import codec
from state.person.model import Person
from state.shard.shard import MAX_TIMERS_AT_ONCE, TIMERS_PER_BATCH, Shard
from state.store.sqlite import SqliteStore
from state.store.store import StoreError, WriteBatch
from tests.harness.shard import ShardHarness, StepRecorder, empty_playbook, record, set_timer_after

PARTITION = partition_of(b"ann", DEFAULT_PARTITIONS)
OTHER_PERSON = next(
    name for name in (f"n{i}" for i in range(10_000)) if partition_of(name.encode(), DEFAULT_PARTITIONS) == PARTITION
)


def test_record_is_applied_once(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [tally], PARTITION)
    one = record("ann")
    bench.apply(one)
    bench.apply(one)
    bench.reopen()
    bench.apply(one)
    assert tally.calls == [("a:ann", "Page Viewed", 1_000)]


def test_repeated_message_id_is_ignored(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [tally], PARTITION)
    bench.apply(record("ann", messageId="m-1"))
    bench.reopen()
    bench.apply(record("ann", messageId="m-1"), record("ann", messageId="m-2"))
    assert len(tally.calls) == 2


def test_uncommitted_records_are_applied_again(tmp_path: Path) -> None:
    bench = ShardHarness(tmp_path, [StepRecorder()], PARTITION)
    one = record("ann")
    bench.shard.apply([one], 0, bench.rules, None)
    bench.reopen()
    assert bench.persons() == []
    bench.apply(one)
    assert [name for name, _ in bench.persons()] == ["a:ann"]


def test_clock_is_log_time_and_never_decreases(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [tally], PARTITION)
    bench.apply(record("ann", at=5_000), record("ann", at=3_000), record("ann", at=6_000))
    assert [now for _, _, now in tally.calls] == [5_000, 5_000, 6_000]


def test_timer_fires_before_the_persons_next_record(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(500), tally], PARTITION)
    bench.apply(record("ann", at=1_000), record("ann", at=9_000))
    assert [(what, now) for _, what, now in tally.calls] == [
        ("Page Viewed", 1_000),
        ("due remind:me", 1_500),
        ("Page Viewed", 9_000),
    ]


def test_ticks_fire_timers_after_restart_and_never_early(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(86_400_000), tally], PARTITION)
    bench.apply(record("ann", at=1_000))
    bench.reopen()
    assert bench.shard.next_due() == 86_401_000
    bench.apply(tick=86_400_999)
    assert len(tally.calls) == 1
    bench.reopen()
    bench.apply(tick=86_401_000)
    assert tally.calls[1:] == [("a:ann", "due remind:me", 86_401_000)]
    bench.apply(tick=99_999_999_999)
    assert len(tally.calls) == 2
    assert bench.shard.next_due() is None


def test_every_effect_has_a_batch_record(tmp_path: Path) -> None:
    """A re-run follows the turns: what fires without one would not fire there."""
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(10_000), tally], PARTITION)
    one = record("ann", log_time=1_000)
    bench.apply(one)
    bench.shard.checkpoint.clock = 50_000
    turns = len(bench.store.batch_records(PARTITION))
    bench.apply(one, tick=0)  # it was read before
    assert tally.calls == [("a:ann", "Page Viewed", 1_000)]
    assert len(bench.store.batch_records(PARTITION)) == turns
    bench.apply(tick=50_001)
    assert len(tally.calls) == 2
    assert len(bench.store.batch_records(PARTITION)) == turns + 1


def test_many_timers_fire_once_each_in_slices(tmp_path: Path) -> None:
    names = [
        name
        for name in (f"p{i}" for i in range(60_000))
        if partition_of(name.encode(), DEFAULT_PARTITIONS) == PARTITION
    ][:900]
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(700_000), tally], PARTITION, cache_size=100)
    bench.apply(*[record(name, at=1_000 + n) for n, name in enumerate(names)])
    bench.reopen()
    for n in range(len(names) // TIMERS_PER_BATCH):
        bench.apply(tick=2_000_000)
        assert len(tally.calls) == len(names) + (n + 1) * TIMERS_PER_BATCH, "nobody waits for more than a slice"
    fired = [(now, who) for who, what, now in tally.calls if what.startswith("due")]
    assert len(fired) == len(names) == len(set(fired))
    assert fired == sorted(fired)


def test_a_timer_moved_later_fires_later(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(1_000), tally], PARTITION)
    for at in range(1_000, 5_000, 500):
        bench.apply(record("ann", at=at))
    bench.apply(tick=5_499)
    assert not [what for _, what, _ in tally.calls if what.startswith("due")]
    bench.apply(tick=5_500)
    assert tally.calls[-1] == ("a:ann", "due remind:me", 5_500)


def test_past_due_time_fires_at_the_clock(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(-800), tally], PARTITION)
    bench.apply(record("ann", at=1_000))
    assert tally.calls == [("a:ann", "Page Viewed", 1_000), ("a:ann", "due remind:me", 1_000)]


def test_no_tick_while_history_is_read(tmp_path: Path) -> None:
    def marker(stream: str, body: bytes) -> Record:
        return Record(stream, PARTITION, int.from_bytes(body[-3:-1], "big"), 1_000, None, body)

    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(10), tally], PARTITION)
    bench.apply(marker("clicks", b'{"type":"history","reached":1000}'), record("ann", at=1_000, offset=10**6))
    bench.apply(tick=50_000)
    assert bench.shard.checkpoint.clock == 1_000
    bench.reopen()
    assert bench.shard.checkpoint.history_reached == {"clicks": 1_000}
    bench.apply(Record("clicks", PARTITION, 10**6 + 1, 1_000, None, b'{"type":"history","ended":true}'))
    bench.apply(tick=50_000)
    assert tally.calls[-1] == ("a:ann", "due remind:me", 1_010)


def test_timers_due_in_history_belong_to_history(tmp_path: Path) -> None:
    """Also where the days ended in the same batch, or long before: their letters are not for anybody to get."""
    names = [
        name for name in (f"p{i}" for i in range(6_000)) if partition_of(name.encode(), DEFAULT_PARTITIONS) == PARTITION
    ]
    names = names[: TIMERS_PER_BATCH + 5]
    found: list[tuple[int, bool]] = []

    def say(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if isinstance(event, TimerFired):
            found.append((context.now, context.history))
            return (
                SegmentChange(
                    id=context.next_effect_id("say"), at=context.now, person=person.id, segment="x", entered=True
                ),
            )
        return ()

    bench = ShardHarness(tmp_path, [set_timer_after(10), say], PARTITION)
    days = [
        Record("clicks", PARTITION, 1, 999, None, b'{"type":"history","reached":999}'),
        *(record(name, at=1_000, offset=2 + n) for n, name in enumerate(names)),
        record(names[0], at=1_005, offset=50),
        Record("clicks", PARTITION, 99, 1_010, None, b'{"type":"history","ended":true}'),
    ]
    rows = bench.apply(*days)
    assert len(rows) == TIMERS_PER_BATCH
    bench.reopen()
    rows += bench.apply(tick=50_000)
    assert sorted((row.at, row.history) for row in rows) == [(1_010, 1)] * (len(names) - 1) + [(1_015, 0)]
    assert sorted(found) == [(1_010, True)] * (len(names) - 1) + [(1_015, False)], "what comes due later is of today"


@pytest.mark.parametrize(
    ("value", "kind", "because"),
    [
        (b"{", "invalid", "truncated"),
        (b'{"type":"track"}', "invalid", "`event`"),
        (b'{"type":"page","anonymousId":[1]}', "invalid", "anonymousId"),
        (b'{"type":"page"}', "missing_id", "userId"),
        (b'{"type":"page","anonymousId":"' + b"x" * 300 + b'"}', "too_long", "256"),
        (b"\xff\xfe", "invalid", ""),
    ],
)
def test_undecodable_record_is_a_dead_letter(tmp_path: Path, value: bytes, kind: str, because: str) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [tally], PARTITION)
    rows = bench.apply(Record("clicks", PARTITION, 1, 1_000, b"ann", value), record("ann", offset=2))
    assert [row.stream for row in rows] == ["dead-letters"]
    reject = rejects.decode_dead_letter(rows[0].body)
    assert (reject.kind, reject.id) == (kind, f"clicks-{PARTITION}-1-dead_letter-0")
    assert because in reject.reason
    assert len(tally.calls) == 1


def test_misrouted_records_are_forwarded_in_order(tmp_path: Path) -> None:
    stranger = next(
        name for name in ("b", "c", "d", "e") if partition_of(name.encode(), DEFAULT_PARTITIONS) != PARTITION
    )
    bench = ShardHarness(tmp_path / "1", [StepRecorder()], PARTITION)
    rows = bench.apply(*[record(stranger, partition=PARTITION, at=1_000 + n) for n in range(3)])
    assert [row.stream for row in rows] == [SHARD_MESSAGES] * 3
    assert (bench.shard.counts.events["misrouted"], bench.shard.counts.events["forwarded"]) == (3, 3)
    assert {row.key for row in rows} == {stranger.encode()}
    assert bench.shard.counts.events == {"clicks": 3, "misrouted": 3, "forwarded": 3}
    there, tally = partition_of(stranger.encode(), DEFAULT_PARTITIONS), StepRecorder()
    other = ShardHarness(tmp_path / "2", [tally], there)
    arrived = [Record(SHARD_MESSAGES, there, n, 2_000 + n, row.key, row.body) for n, row in enumerate(rows)]
    other.apply(*arrived)
    other.apply(*[letter._replace(offset=letter.offset + 10) for letter in arrived])
    assert [who for who, _, _ in tally.calls] == [f"a:{stranger}"] * 3


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"identify","userId":[1],"traits":{"email":"ann@example.org"}}',
        b'{"type":"track","event":7,"context":{"locale":"en","traits":{"phone":"ann@example.org"},"ip":"ann@example.org"}}',
        b'{"type":"identify","traits":{"email":"ann@example.org"}',
    ],
)
def test_dead_letter_contains_no_personal_data(tmp_path: Path, value: bytes) -> None:
    """What is refused is kept for a month, where no key can be erased to forget it."""
    rows = ShardHarness(tmp_path, [StepRecorder()], PARTITION).apply(
        Record("people", PARTITION, 1, 1_000, b"ann", value)
    )
    reject = rejects.decode_dead_letter(rows[0].body)
    assert reject.raw.startswith('{"type":')
    assert b"ann@" not in rows[0].body


def test_rejected_shard_message_leaks_no_personal_data(tmp_path: Path) -> None:
    def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        raise InvalidEvent("body", "says nonsense")

    letter = letters.encode_shard_message(
        ShardMessage(kind="merge_response", sender="a:x", recipient="a:ann", seq=3, body={"email": "ann@example.org"})
    )
    rows = ShardHarness(tmp_path, [step], PARTITION).apply(Record(SHARD_MESSAGES, PARTITION, 1, 1_000, b"ann", letter))
    assert rejects.decode_dead_letter(rows[0].body).reason == "body: says nonsense"
    assert b"ann@" not in rows[0].body


def test_repeated_shard_message_is_applied_once(tmp_path: Path) -> None:
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [tally], PARTITION)
    letter = letters.encode_shard_message(ShardMessage(kind="hello", sender="a:x", recipient="a:ann", seq=3))
    bench.apply(
        Record(SHARD_MESSAGES, PARTITION, 1, 1_000, b"ann", letter),
        Record(SHARD_MESSAGES, PARTITION, 2, 1_000, b"ann", letter),
    )
    assert len(tally.calls) == 1


def test_failing_step_dead_letters_one_record_only(tmp_path: Path) -> None:
    def buggy(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        person.segments["half done"] = 1
        if getattr(event, "name", "") == "Boom":
            raise ZeroDivisionError("a bug")
        del person.segments["half done"]
        return ()

    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [buggy, tally], PARTITION)
    rows = bench.apply(record("ann"), record("ann", "Boom"), record(OTHER_PERSON), record("ann"))
    assert [rejects.decode_dead_letter(row.body).kind for row in rows] == ["internal_error"]
    kept = {name: codec.decode(value) for name, value in bench.persons()}
    assert kept["a:ann"].segments == {"Page Viewed": 2}
    assert kept[f"a:{OTHER_PERSON}"].segments == {"Page Viewed": 1}
    assert bench.shard.errors == ["ZeroDivisionError: a bug"]


def test_unencodable_person_dead_letters_the_record(tmp_path: Path) -> None:
    def exaggerate(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if getattr(event, "name", "") == "Boom":
            person.segments["more than a number can be"] = 2**70
        return ()

    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [exaggerate, tally], PARTITION)
    rows = bench.apply(record("ann"), record("ann", "Boom"), record(OTHER_PERSON), record("ann"))
    assert [rejects.decode_dead_letter(row.body).kind for row in rows] == ["internal_error"]
    kept = {name: codec.decode(value) for name, value in bench.persons()}
    assert kept["a:ann"].segments == {"Page Viewed": 2}
    assert kept[f"a:{OTHER_PERSON}"].segments == {"Page Viewed": 1}


def test_failing_timer_is_removed(tmp_path: Path) -> None:
    def buggy(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if isinstance(event, TimerFired):
            raise ZeroDivisionError("a bug")
        return ()

    bench = ShardHarness(tmp_path, [set_timer_after(10), buggy], PARTITION)
    rows = bench.apply(record("ann", at=1_000), record(OTHER_PERSON, at=2_000), tick=5_000)
    assert [rejects.decode_dead_letter(row.body).kind for row in rows] == ["internal_error", "internal_error"]
    assert not any(codec.decode(value).timers for _, value in bench.persons())


def self_renewing_timer(kind: str, also: int = 0) -> StepFunction:
    """A step whose timer sets itself for now whenever it fires, from "Boom" on; and `also` so many new ones."""
    names = itertools.count()

    def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if getattr(event, "name", "") == "Boom" or (isinstance(event, TimerFired) and event.kind == kind):
            person.timers |= {f"{kind}:{next(names)}" if also else f"{kind}:": context.now for _ in range(1 + also)}
            return [
                ShardMessage(
                    kind="x", sender=person.id, recipient=person.id, seq=1, id=context.next_effect_id("renews")
                )
            ]
        return ()

    return step


def test_self_renewing_timer_is_stopped(tmp_path: Path) -> None:
    """What it did until then is taken back; other timers of the same instant and everybody else go on."""
    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [set_timer_after(100), self_renewing_timer("arm"), tally], PARTITION)
    rows = bench.apply(
        record("ann", at=1_000),
        record("ann", "Boom", at=1_000),
        record(OTHER_PERSON, at=1_000),
        record("ann", at=1_100),
    )
    assert [
        (row.stream, rejects.decode_dead_letter(row.body).reason) for row in rows if row.stream != SHARD_MESSAGES
    ] == [("dead-letters", "a step failed at timer arm:")]
    assert len(rows) == 2, "of what the event itself said, nothing is lost"
    assert bench.shard.errors == ["RuntimeError: timers fired 1,001 times at one instant, the last one was arm"]
    kept = {name: codec.decode(value) for name, value in bench.persons()}
    assert kept["a:ann"].segments == {"Page Viewed": 2, "Boom": 1, "due remind:me": 1}
    assert kept["a:ann"].timers == {"remind:me": 1_200}
    assert kept[f"a:{OTHER_PERSON}"].segments == {"Page Viewed": 1, "due remind:me": 1}
    bench.shard.errors.clear()
    bench.apply(tick=9_999)
    assert bench.shard.errors == []
    assert bench.shard.next_due() is None


def test_timers_creating_new_timers_are_stopped(tmp_path: Path) -> None:
    """Each sets new ones, of ever new names: there is no end to setting them aside one by one."""
    bench = ShardHarness(tmp_path, [self_renewing_timer("more", also=2)], PARTITION)
    rows = bench.apply(record("ann", "Boom", at=1_000), record(OTHER_PERSON, at=1_000))
    assert {row.stream for row in rows} == {SHARD_MESSAGES, "dead-letters"}
    assert len(bench.shard.errors) == 1
    assert not codec.decode(dict(bench.persons())["a:ann"]).timers
    assert bench.apply(record("ann", at=2_000)) == []


def test_many_timers_at_one_instant_are_allowed(tmp_path: Path) -> None:
    def many(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if not isinstance(event, TimerFired):
            person.timers |= {f"remind:{n}": context.now for n in range(MAX_TIMERS_AT_ONCE)}
        return ()

    tally = StepRecorder()
    bench = ShardHarness(tmp_path, [many, tally], PARTITION)
    assert bench.apply(record("ann", at=1_000), record("ann", at=1_000)) == []
    assert len(tally.calls) == 2 + 2 * MAX_TIMERS_AT_ONCE


def test_invalid_event_dead_letter_names_the_field(tmp_path: Path) -> None:
    def strict(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        raise InvalidEvent("properties.price", "should be a number")

    bench = ShardHarness(tmp_path, [strict], PARTITION)
    rows = bench.apply(record("ann", "Product Viewed"))
    assert rejects.decode_dead_letter(rows[0].body).reason == "properties.price: should be a number"


def test_evicted_persons_are_not_lost(tmp_path: Path) -> None:
    names = [
        name
        for name in (f"p{i}" for i in range(20_000))
        if partition_of(name.encode(), DEFAULT_PARTITIONS) == PARTITION
    ][:150]
    bench = ShardHarness(tmp_path, [StepRecorder()], PARTITION, cache_size=10)
    for _ in range(2):
        for name in names:
            bench.apply(record(name))
    assert len(bench.shard.cache.resident) <= 10
    assert {codec.decode(value).segments["Page Viewed"] for _, value in bench.persons()} == {2}


def test_effect_ids_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    def talkative(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        return [
            ShardMessage(kind="x", sender=person.id, recipient=person.id, seq=1, id=context.next_effect_id("talkative"))
            for _ in range(2)
        ]

    records = [record("ann", offset=n, at=n) for n in range(1, 5)]
    whole = ShardHarness(tmp_path / "1", [talkative], PARTITION).apply(*records)
    single = ShardHarness(tmp_path / "2", [talkative], PARTITION)
    assert [row.id for row in whole] == [row.id for one in records for row in single.apply(one)]
    assert len({row.id for row in whole}) == 8


def test_previous_owner_cannot_write(tmp_path: Path) -> None:
    bench = ShardHarness(tmp_path, [StepRecorder()], PARTITION)
    other = SqliteStore(bench.path, DEFAULT_PARTITIONS)
    other.claim([PARTITION], "somebody else")
    with pytest.raises(StoreError, match="taken over"):
        bench.apply(record("ann"))
    assert bench.persons() == []


def test_store_with_other_partition_count_is_rejected(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "store.db", 64).close()
    with pytest.raises(StoreError, match="64 partitions"):
        SqliteStore(tmp_path / "store.db", 32)


def test_empty_store_file_is_not_a_version_error(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(StoreError, match=r"is empty: "):
        SqliteStore(tmp_path / "store.db", 64, read_only=True)


def test_outbox_rows_stay_until_acknowledged(tmp_path: Path) -> None:
    bench = ShardHarness(tmp_path, [StepRecorder()], PARTITION)
    bad = [Record("clicks", PARTITION, n, 1_000, b"ann", b"{") for n in range(1, 4)]
    bench.apply(*bad[:2])
    bench.apply(bad[2])
    rows = bench.store.outbox()
    assert [row.seq for row in rows] == [1, 1, 2]
    assert [rejects.decode_dead_letter(row.body).offset for row in rows] == [1, 2, 3]
    bench.store.commit(WriteBatch(), [1])
    bench.reopen()
    assert [row.seq for row in bench.store.outbox()] == [2]


def test_outbox_rows_follow_the_shard_to_a_new_owner(tmp_path: Path) -> None:
    """One worker dies, several take its shards over one after another. What it had decided is sent by whoever has the
    shard, from the first moment on: of two letters to one person the earlier one would count nothing behind the later.
    """
    alone = SqliteStore(tmp_path / "store.db", 4)
    alone.claim(range(4), "alone")
    shards = [Shard(p, alone, [StepRecorder()], 4, 10) for p in range(4)]
    for n in range(2):
        batch = WriteBatch()
        for shard in shards:
            bad = Record("clicks", shard.partition, n, 1_000, None, b"{")
            shard.apply([bad], 0, empty_playbook(), None)
            shard.stage(batch)
        alone.commit(batch, [])
    alone.close()
    for i in range(3):
        worker = SqliteStore(tmp_path / "store.db", 4)
        mine = [p for p in range(4) if p % 3 == i]
        worker.claim(mine, f"worker {i}")
        found = worker.outbox()
        said = [(row.shard, rejects.decode_dead_letter(row.body).offset) for row in found]
        assert said == [(p, n) for n in range(2) for p in mine]
        worker.commit(WriteBatch(), [row.seq for row in found])
        assert worker.outbox() == []
        assert len(worker._db.execute("SELECT seq FROM outbox").fetchall()) == (2 if i < 2 else 0)
        worker.close()


def test_reentrant_steps_get_unique_effect_ids(tmp_path: Path) -> None:
    """Two events in one millisecond, each followed twice at once."""

    def talkative(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if context.continuation_depth() < 2:
            person.timers["again:"] = context.now
        return [
            ShardMessage(kind="x", sender=person.id, recipient=person.id, seq=1, id=context.next_effect_id("talkative"))
        ]

    records = [record("ann", offset=n, at=5) for n in (1, 2)]
    whole = [row.id for row in ShardHarness(tmp_path / "1", [talkative], PARTITION).apply(*records)]
    assert [name.removeprefix(f"clicks-{PARTITION}-").removesuffix("-talkative-0") for name in whole] == [
        "1",
        "1+",
        "1++",
        "2",
        "2+",
        "2++",
    ]
    single = ShardHarness(tmp_path / "2", [talkative], PARTITION)
    assert [row.id for one in records for row in single.apply(one)] == whole


def test_timer_merged_after_firing_gets_a_unique_origin(tmp_path: Path) -> None:
    """Two ids of somebody wait for the end of the night, and the letter of one is read after it: both say something."""
    origins: list[str] = []

    def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if isinstance(event, TimerFired):
            origins.append(context.input_id)
        else:
            person.timers["later:x"] = 5_000
        return ()

    bench = ShardHarness(tmp_path, [step], partition_of(b"ann", DEFAULT_PARTITIONS))
    for at in (1_000, 6_000):
        bench.apply(record("ann", at=at))
    assert len(origins) == len(set(origins)) == 2
