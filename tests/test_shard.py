"""What a shard promises: order, time, positions, timers, memory, and that a bug stops nothing."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from domain import letter as letters
from domain import reject as rejects
from domain.action import Move
from domain.effect import Effect
from domain.letter import Letter
from domain.partition import partition_of
from domain.record import Record
from domain.streams import LETTERS, PARTITIONS
from state import codec
from state.context import Context, Due, Happening, Step, Unreadable
from state.person import Person
from state.shard import MOST_AT_ONCE, SLICE, Shard
from state.store import Batch, StoreError
from state.store_sqlite import SqliteStore
from tests.shards import Bench, Tally, record, shop, timer_after

HERE = partition_of(b"ann", PARTITIONS)
NEIGHBOUR = next(name for name in (f"n{i}" for i in range(10_000)) if partition_of(name.encode(), PARTITIONS) == HERE)


def test_a_record_is_applied_once_however_often_it_is_read(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [tally], HERE)
    one = record("ann")
    bench.apply(one)
    bench.apply(one)
    bench.reopen()
    bench.apply(one)
    assert tally.seen == [("a:ann", "Page Viewed", 1_000)]


def test_a_message_sent_again_is_recognised_by_its_id(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [tally], HERE)
    bench.apply(record("ann", messageId="m-1"))
    bench.reopen()
    bench.apply(record("ann", messageId="m-1"), record("ann", messageId="m-2"))
    assert len(tally.seen) == 2


def test_what_is_not_committed_is_forgotten_and_comes_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [Tally()], HERE)
    one = record("ann")
    bench.shard.apply([one], 0, bench.rules, None)
    bench.reopen()
    assert bench.persons() == []
    bench.apply(one)
    assert [name for name, _ in bench.persons()] == ["a:ann"]


def test_the_clock_is_log_time_and_never_runs_back(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [tally], HERE)
    bench.apply(record("ann", at=5_000), record("ann", at=3_000), record("ann", at=6_000))
    assert [now for _, _, now in tally.seen] == [5_000, 5_000, 6_000]


def test_a_timer_fires_at_its_due_time_before_the_next_record_of_that_person(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(500), tally], HERE)
    bench.apply(record("ann", at=1_000), record("ann", at=9_000))
    assert [(what, now) for _, what, now in tally.seen] == [
        ("Page Viewed", 1_000), ("due remind:me", 1_500), ("Page Viewed", 9_000)]


def test_timers_fire_by_ticks_over_restarts_and_never_early(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(86_400_000), tally], HERE)
    bench.apply(record("ann", at=1_000))
    bench.reopen()
    assert bench.shard.next_due() == 86_401_000
    bench.apply(tick=86_400_999)
    assert len(tally.seen) == 1
    bench.reopen()
    bench.apply(tick=86_401_000)
    assert tally.seen[1:] == [("a:ann", "due remind:me", 86_401_000)]
    bench.apply(tick=99_999_999_999)
    assert len(tally.seen) == 2
    assert bench.shard.next_due() is None


def test_nothing_happens_of_which_no_turn_tells(tmp_path: Path) -> None:
    """A re-run follows the turns: what fires without one would not fire there."""
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(10_000), tally], HERE)
    one = record("ann", log_time=1_000)
    bench.apply(one)
    bench.shard.head.clock = 50_000
    turns = len(bench.store.turns(HERE))
    bench.apply(one, tick=0)  # it was read before
    assert tally.seen == [("a:ann", "Page Viewed", 1_000)]
    assert len(bench.store.turns(HERE)) == turns
    bench.apply(tick=50_001)
    assert len(tally.seen) == 2
    assert len(bench.store.turns(HERE)) == turns + 1


def test_many_timers_of_many_people_fire_once_each_in_slices(tmp_path: Path) -> None:
    names = [name for name in (f"p{i}" for i in range(60_000)) if partition_of(name.encode(), PARTITIONS) == HERE][:900]
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(700_000), tally], HERE, hot=100)
    bench.apply(*[record(name, at=1_000 + n) for n, name in enumerate(names)])
    bench.reopen()
    for n in range(len(names) // SLICE):
        bench.apply(tick=2_000_000)
        assert len(tally.seen) == len(names) + (n + 1) * SLICE, "nobody waits for more than a slice"
    fired = [(now, who) for who, what, now in tally.seen if what.startswith("due")]
    assert len(fired) == len(names) == len(set(fired))
    assert fired == sorted(fired)


def test_a_timer_moved_later_fires_later(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(1_000), tally], HERE)
    for at in range(1_000, 5_000, 500):
        bench.apply(record("ann", at=at))
    bench.apply(tick=5_499)
    assert not [what for _, what, _ in tally.seen if what.startswith("due")]
    bench.apply(tick=5_500)
    assert tally.seen[-1] == ("a:ann", "due remind:me", 5_500)


def test_a_due_time_in_the_past_takes_effect_at_the_clock(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(-800), tally], HERE)
    bench.apply(record("ann", at=1_000))
    assert tally.seen == [("a:ann", "Page Viewed", 1_000), ("a:ann", "due remind:me", 1_000)]


def test_no_tick_while_recorded_days_are_read(tmp_path: Path) -> None:
    def marker(stream: str, body: bytes) -> Record:
        return Record(stream, HERE, int.from_bytes(body[-3:-1], "big"), 1_000, None, body)

    tally = Tally()
    bench = Bench(tmp_path, [timer_after(10), tally], HERE)
    bench.apply(marker("clicks", b'{"type":"history","reached":1000}'), record("ann", at=1_000, offset=10**6))
    bench.apply(tick=50_000)
    assert bench.shard.head.clock == 1_000
    bench.reopen()
    assert bench.shard.head.history == {"clicks": 1_000}
    bench.apply(Record("clicks", HERE, 10**6 + 1, 1_000, None, b'{"type":"history","ended":true}'))
    bench.apply(tick=50_000)
    assert tally.seen[-1] == ("a:ann", "due remind:me", 1_010)


def test_what_comes_due_in_recorded_days_belongs_to_them_whenever_it_fires(tmp_path: Path) -> None:
    """Also where the days ended in the same batch, or long before: their letters are not for anybody to get."""
    names = [name for name in (f"p{i}" for i in range(6_000)) if partition_of(name.encode(), PARTITIONS) == HERE]
    names = names[:SLICE + 5]
    found: list[tuple[int, bool]] = []

    def say(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if isinstance(event, Due):
            found.append((context.now, context.history))
            return (Move(id=context.id("say"), at=context.now, person=person.id, segment="x", entered=True),)
        return ()

    bench = Bench(tmp_path, [timer_after(10), say], HERE)
    days = [Record("clicks", HERE, 1, 999, None, b'{"type":"history","reached":999}'),
            *(record(name, at=1_000, offset=2 + n) for n, name in enumerate(names)),
            record(names[0], at=1_005, offset=50),
            Record("clicks", HERE, 99, 1_010, None, b'{"type":"history","ended":true}')]
    rows = bench.apply(*days)
    assert len(rows) == SLICE
    bench.reopen()
    rows += bench.apply(tick=50_000)
    assert sorted((row.at, row.history) for row in rows) == [(1_010, 1)] * (len(names) - 1) + [(1_015, 0)]
    assert sorted(found) == [(1_010, True)] * (len(names) - 1) + [(1_015, False)], "what comes due later is of today"


@pytest.mark.parametrize(("value", "kind", "because"), [
    (b"{", "unreadable", "truncated"),
    (b'{"type":"track"}', "unreadable", "`event`"),
    (b'{"type":"page","anonymousId":[1]}', "unreadable", "anonymousId"),
    (b'{"type":"page"}', "no_person", "userId"),
    (b'{"type":"page","anonymousId":"' + b"x" * 300 + b'"}', "too_long", "256"),
    (b"\xff\xfe", "unreadable", ""),
])
def test_what_cannot_be_read_is_a_reject_with_its_reason(tmp_path: Path, value: bytes, kind: str, because: str) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [tally], HERE)
    rows = bench.apply(Record("clicks", HERE, 1, 1_000, b"ann", value), record("ann", offset=2))
    assert [row.stream for row in rows] == ["rejects"]
    reject = rejects.decode(rows[0].body)
    assert (reject.kind, reject.id) == (kind, f"clicks-{HERE}-1-reject-0")
    assert because in reject.because
    assert len(tally.seen) == 1


def test_a_record_in_the_wrong_partition_is_forwarded_in_order(tmp_path: Path) -> None:
    stranger = next(name for name in ("b", "c", "d", "e") if partition_of(name.encode(), PARTITIONS) != HERE)
    bench = Bench(tmp_path / "1", [Tally()], HERE)
    rows = bench.apply(*[record(stranger, partition=HERE, at=1_000 + n) for n in range(3)])
    assert [row.stream for row in rows] == [LETTERS] * 3
    assert (bench.shard.tally.events["misrouted"], bench.shard.tally.events["forwarded"]) == (3, 3)
    assert {row.key for row in rows} == {stranger.encode()}
    assert bench.shard.tally.events == {"clicks": 3, "misrouted": 3, "forwarded": 3}
    there, tally = partition_of(stranger.encode(), PARTITIONS), Tally()
    other = Bench(tmp_path / "2", [tally], there)
    arrived = [Record(LETTERS, there, n, 2_000 + n, row.key, row.body) for n, row in enumerate(rows)]
    other.apply(*arrived)
    other.apply(*[letter._replace(offset=letter.offset + 10) for letter in arrived])
    assert [who for who, _, _ in tally.seen] == [f"a:{stranger}"] * 3


@pytest.mark.parametrize("value", [
    b'{"type":"identify","userId":[1],"traits":{"email":"ann@example.org"}}',
    b'{"type":"track","event":7,"context":{"locale":"en","traits":{"phone":"ann@example.org"},"ip":"ann@example.org"}}',
    b'{"type":"identify","traits":{"email":"ann@example.org"}',
])
def test_a_reject_names_nobody(tmp_path: Path, value: bytes) -> None:
    """What is refused is kept for a month, where no key can be erased to forget it."""
    rows = Bench(tmp_path, [Tally()], HERE).apply(Record("people", HERE, 1, 1_000, b"ann", value))
    reject = rejects.decode(rows[0].body)
    assert reject.raw.startswith('{"type":')
    assert b"ann@" not in rows[0].body


def test_a_letter_that_is_refused_tells_nothing_of_whom_it_is_about(tmp_path: Path) -> None:
    def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        raise Unreadable("body", "says nonsense")

    letter = letters.encode(Letter(kind="handover", sender="a:x", to="a:ann", seq=3, body={"email": "ann@example.org"}))
    rows = Bench(tmp_path, [step], HERE).apply(Record(LETTERS, HERE, 1, 1_000, b"ann", letter))
    assert rejects.decode(rows[0].body).because == "body: says nonsense"
    assert b"ann@" not in rows[0].body


def test_a_letter_that_comes_twice_is_read_once(tmp_path: Path) -> None:
    tally = Tally()
    bench = Bench(tmp_path, [tally], HERE)
    letter = letters.encode(Letter(kind="hello", sender="a:x", to="a:ann", seq=3))
    bench.apply(Record(LETTERS, HERE, 1, 1_000, b"ann", letter), Record(LETTERS, HERE, 2, 1_000, b"ann", letter))
    assert len(tally.seen) == 1


def test_a_bug_in_a_step_sets_one_record_aside_and_loses_no_other(tmp_path: Path) -> None:
    def buggy(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        person.segments["half done"] = 1
        if getattr(event, "name", "") == "Boom":
            raise ZeroDivisionError("a bug")
        del person.segments["half done"]
        return ()

    tally = Tally()
    bench = Bench(tmp_path, [buggy, tally], HERE)
    rows = bench.apply(record("ann"), record("ann", "Boom"), record(NEIGHBOUR), record("ann"))
    assert [rejects.decode(row.body).kind for row in rows] == ["internal"]
    kept = {name: codec.decode(value) for name, value in bench.persons()}
    assert kept["a:ann"].segments == {"Page Viewed": 2}
    assert kept[f"a:{NEIGHBOUR}"].segments == {"Page Viewed": 1}
    assert bench.shard.bugs == ["ZeroDivisionError: a bug"]


def test_what_cannot_be_written_down_is_set_aside_too(tmp_path: Path) -> None:
    def exaggerate(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if getattr(event, "name", "") == "Boom":
            person.segments["more than a number can be"] = 2**70
        return ()

    tally = Tally()
    bench = Bench(tmp_path, [exaggerate, tally], HERE)
    rows = bench.apply(record("ann"), record("ann", "Boom"), record(NEIGHBOUR), record("ann"))
    assert [rejects.decode(row.body).kind for row in rows] == ["internal"]
    kept = {name: codec.decode(value) for name, value in bench.persons()}
    assert kept["a:ann"].segments == {"Page Viewed": 2}
    assert kept[f"a:{NEIGHBOUR}"].segments == {"Page Viewed": 1}


def test_a_bug_behind_a_timer_sets_the_timer_aside(tmp_path: Path) -> None:
    def buggy(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if isinstance(event, Due):
            raise ZeroDivisionError("a bug")
        return ()

    bench = Bench(tmp_path, [timer_after(10), buggy], HERE)
    rows = bench.apply(record("ann", at=1_000), record(NEIGHBOUR, at=2_000), tick=5_000)
    assert [rejects.decode(row.body).kind for row in rows] == ["internal", "internal"]
    assert not any(codec.decode(value).timers for _, value in bench.persons())


def renews(kind: str, also: int = 0) -> Step:
    """A step whose timer sets itself for now whenever it fires, from "Boom" on; and `also` so many new ones."""
    names = itertools.count()

    def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if getattr(event, "name", "") == "Boom" or (isinstance(event, Due) and event.kind == kind):
            person.timers |= {f"{kind}:{next(names)}" if also else f"{kind}:": context.now for _ in range(1 + also)}
            return [Letter(kind="x", sender=person.id, to=person.id, seq=1, id=context.id("renews"))]
        return ()

    return step


def test_a_timer_that_sets_itself_for_now_for_ever_is_set_aside(tmp_path: Path) -> None:
    """What it did until then is taken back; other timers of the same instant and everybody else go on."""
    tally = Tally()
    bench = Bench(tmp_path, [timer_after(100), renews("arm"), tally], HERE)
    rows = bench.apply(record("ann", at=1_000), record("ann", "Boom", at=1_000), record(NEIGHBOUR, at=1_000),
                       record("ann", at=1_100))
    assert [(row.stream, rejects.decode(row.body).because) for row in rows if row.stream != LETTERS] == [
        ("rejects", "a step failed when arm: came due; the timer was set aside")]
    assert len(rows) == 2, "of what the event itself said, nothing is lost"
    assert bench.shard.bugs == ["RuntimeError: timers fired 1,001 times at one instant, the last one was arm"]
    kept = {name: codec.decode(value) for name, value in bench.persons()}
    assert kept["a:ann"].segments == {"Page Viewed": 2, "Boom": 1, "due remind:me": 1}
    assert kept["a:ann"].timers == {"remind:me": 1_200}
    assert kept[f"a:{NEIGHBOUR}"].segments == {"Page Viewed": 1, "due remind:me": 1}
    bench.shard.bugs.clear()
    bench.apply(tick=9_999)
    assert bench.shard.bugs == []
    assert bench.shard.next_due() is None


def test_a_timer_behind_a_timer_behind_a_timer_ends_too(tmp_path: Path) -> None:
    """Each sets new ones, of ever new names: there is no end to setting them aside one by one."""
    bench = Bench(tmp_path, [renews("more", also=2)], HERE)
    rows = bench.apply(record("ann", "Boom", at=1_000), record(NEIGHBOUR, at=1_000))
    assert {row.stream for row in rows} == {LETTERS, "rejects"}
    assert len(bench.shard.bugs) == 1
    assert not codec.decode(dict(bench.persons())["a:ann"]).timers
    assert bench.apply(record("ann", at=2_000)) == []


def test_many_timers_at_one_instant_are_no_mistake(tmp_path: Path) -> None:
    def many(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if not isinstance(event, Due):
            person.timers |= {f"remind:{n}": context.now for n in range(MOST_AT_ONCE)}
        return ()

    tally = Tally()
    bench = Bench(tmp_path, [many, tally], HERE)
    assert bench.apply(record("ann", at=1_000), record("ann", at=1_000)) == []
    assert len(tally.seen) == 2 + 2 * MOST_AT_ONCE


def test_an_event_a_step_cannot_read_is_a_reject_that_names_the_field(tmp_path: Path) -> None:
    def strict(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        raise Unreadable("properties.price", "should be a number")

    bench = Bench(tmp_path, [strict], HERE)
    rows = bench.apply(record("ann", "Product Viewed"))
    assert rejects.decode(rows[0].body).because == "properties.price: should be a number"


def test_memory_is_bounded_and_what_left_it_is_not_lost(tmp_path: Path) -> None:
    names = [name for name in (f"p{i}" for i in range(20_000)) if partition_of(name.encode(), PARTITIONS) == HERE][:150]
    bench = Bench(tmp_path, [Tally()], HERE, hot=10)
    for _ in range(2):
        for name in names:
            bench.apply(record(name))
    assert len(bench.shard.memory.hot) <= 10
    assert {codec.decode(value).segments["Page Viewed"] for _, value in bench.persons()} == {2}


def test_effect_ids_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    def talkative(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        return [Letter(kind="x", sender=person.id, to=person.id, seq=1, id=context.id("talkative")) for _ in range(2)]

    records = [record("ann", offset=n, at=n) for n in range(1, 5)]
    whole = Bench(tmp_path / "1", [talkative], HERE).apply(*records)
    single = Bench(tmp_path / "2", [talkative], HERE)
    assert [row.id for row in whole] == [row.id for one in records for row in single.apply(one)]
    assert len({row.id for row in whole}) == 8


def test_an_old_owner_can_write_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [Tally()], HERE)
    other = SqliteStore(bench.path, PARTITIONS)
    other.claim([HERE], "somebody else")
    with pytest.raises(StoreError, match="taken over"):
        bench.apply(record("ann"))
    assert bench.persons() == []


def test_a_store_of_another_size_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "store.db", 64).close()
    with pytest.raises(StoreError, match="64 partitions"):
        SqliteStore(tmp_path / "store.db", 32)


def test_a_store_that_is_just_being_made_is_no_store_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(StoreError, match=r"nothing in .* yet"):
        SqliteStore(tmp_path / "store.db", 64, read_only=True)


def test_outbox_rows_stay_until_they_are_said_to_be_sent(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [Tally()], HERE)
    bad = [Record("clicks", HERE, n, 1_000, b"ann", b"{") for n in range(1, 4)]
    bench.apply(*bad[:2])
    bench.apply(bad[2])
    rows = bench.store.outbox()
    assert [row.seq for row in rows] == [1, 1, 2]
    assert [rejects.decode(row.body).offset for row in rows] == [1, 2, 3]
    bench.store.commit(Batch(), [1])
    bench.reopen()
    assert [row.seq for row in bench.store.outbox()] == [2]


def test_what_waits_in_the_outbox_goes_with_its_shard(tmp_path: Path) -> None:
    """One worker dies, several take its shards over one after another. What it had decided is sent by whoever has the
    shard, from the first moment on: of two letters to one person the earlier one would count nothing behind the later.
    """
    alone = SqliteStore(tmp_path / "store.db", 4)
    alone.claim(range(4), "alone")
    shards = [Shard(p, alone, [Tally()], 4, 10) for p in range(4)]
    for n in range(2):
        batch = Batch()
        for shard in shards:
            bad = Record("clicks", shard.partition, n, 1_000, None, b"{")
            shard.apply([bad], 0, shop(), None)
            shard.stage(batch)
        alone.commit(batch, [])
    alone.close()
    for i in range(3):
        worker = SqliteStore(tmp_path / "store.db", 4)
        mine = [p for p in range(4) if p % 3 == i]
        worker.claim(mine, f"worker {i}")
        found = worker.outbox()
        said = [(row.shard, rejects.decode(row.body).offset) for row in found]
        assert said == [(p, n) for n in range(2) for p in mine]
        worker.commit(Batch(), [row.seq for row in found])
        assert worker.outbox() == []
        assert len(worker._db.execute("SELECT seq FROM outbox").fetchall()) == (2 if i < 2 else 0)
        worker.close()


def test_what_follows_at_once_has_ids_of_its_own(tmp_path: Path) -> None:
    """Two events in one millisecond, each followed twice at once."""

    def talkative(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if context.at_once() < 2:
            person.timers["again:"] = context.now
        return [Letter(kind="x", sender=person.id, to=person.id, seq=1, id=context.id("talkative"))]

    records = [record("ann", offset=n, at=5) for n in (1, 2)]
    whole = [row.id for row in Bench(tmp_path / "1", [talkative], HERE).apply(*records)]
    assert [name.removeprefix(f"clicks-{HERE}-").removesuffix("-talkative-0") for name in whole] == [
        "1", "1+", "1++", "2", "2+", "2++"]
    single = Bench(tmp_path / "2", [talkative], HERE)
    assert [row.id for one in records for row in single.apply(one)] == whole


def test_a_timer_that_a_login_brings_after_its_like_has_fired_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Two ids of somebody wait for the end of the night, and the letter of one is read after it: both say something."""
    origins: list[str] = []

    def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if isinstance(event, Due):
            origins.append(context.origin)
        else:
            person.timers["later:x"] = 5_000
        return ()

    bench = Bench(tmp_path, [step], partition_of(b"ann", PARTITIONS))
    for at in (1_000, 6_000):
        bench.apply(record("ann", at=at))
    assert len(origins) == len(set(origins)) == 2
