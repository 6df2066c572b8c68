"""What every log promises; both are held to it."""

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import pytest

from connectors.ingest import ingest
from connectors.log import Log, LogError, Place, Reader
from connectors.merge import order
from connectors.open_log import open_log
from domain.partition import partition_of
from domain.record import Outgoing, Record
from domain.settings import Settings
from domain.streams import ALL, PUBLIC, SHARD_INPUT, partitions_of
from tests.connectors.conftest import PARTITIONS
from tests.support import ROOT

PLACES = [(stream, partition) for stream in SHARD_INPUT for partition in range(PARTITIONS)]


@contextmanager
def reading(
    log: Log, start: Mapping[Place, int] | None = None, places: Sequence[Place] = PLACES,
    history: Mapping[Place, int] | None = None,
) -> Iterator[Reader]:
    reader = log.reader(places, start or {}, history)
    try:
        yield reader
    finally:
        reader.close()


def read(reader: Reader, count: int, limit: int = 1000) -> list[Record]:
    """So many records; fewer only when none comes for ten seconds."""
    found: list[Record] = []
    quiet = 0
    while len(found) < count and quiet < 100:
        batch = reader.poll(min(limit, count - len(found)), 0.1)
        quiet = 0 if batch else quiet + 1
        found += batch
    return found


def all_of(log: Log, count: int, **arguments: object) -> list[Record]:
    with reading(log, **arguments) as reader:  # type: ignore[arg-type]  # each row names one argument
        return read(reader, count)


def clicks(numbers: Iterable[int], people: int = 20) -> list[Outgoing]:
    return [Outgoing("clicks", b"person-%d" % (number % people), b'{"n":%d}' % number) for number in numbers]


def number_of(record: Record) -> int:
    return int(json.loads(record.value)["n"])


def by_place(records: Iterable[Record]) -> dict[Place, list[Record]]:
    found: dict[Place, list[Record]] = defaultdict(list)
    for record in records:
        found[record.stream, record.partition].append(record)
    return found


def test_what_is_appended_is_read_once_in_order_in_the_partition_of_its_key(log: Log) -> None:
    log.append(clicks(range(100)))
    log.append(clicks(range(100, 130)))
    records = all_of(log, 130)
    assert sorted(number_of(record) for record in records) == list(range(130))
    for (_, partition), found in by_place(records).items():
        assert [number_of(record) for record in found] == sorted(number_of(record) for record in found)
        assert [record.offset for record in found] == sorted({record.offset for record in found})
        assert {partition_of(record.key or b"", PARTITIONS) for record in found} == {partition}


def test_every_stream_is_read_and_models_have_one_partition(log: Log) -> None:
    log.append([Outgoing(stream, b"key", stream.encode()) for stream in ALL])
    places = [(stream, p) for stream in ALL for p in range(partitions_of(stream, PARTITIONS))]
    records = all_of(log, len(ALL), places=places)
    assert sorted(record.value.decode() for record in records) == sorted(ALL)
    assert all(record.stream.encode() == record.value for record in records)


def test_log_time_is_the_time_of_the_append_and_never_falls_within_a_place(log: Log) -> None:
    before = time.time_ns() // 1_000_000
    for number in range(10):
        log.append(clicks([number]))
    after = time.time_ns() // 1_000_000
    for found in by_place(all_of(log, 10)).values():
        times = [record.log_time for record in found]
        assert times == sorted(times)
        assert before - 1000 <= times[0] <= times[-1] <= after + 1000


def test_a_record_without_a_key_is_kept_and_has_none(log: Log) -> None:
    log.append([Outgoing("clicks", None, b'{"n":%d}' % number) for number in range(40)])
    records = all_of(log, 40)
    assert {record.key for record in records} == {None}
    assert len({record.partition for record in records}) > 1


def test_a_named_partition_is_obeyed(log: Log) -> None:
    log.append([Outgoing("letters", b"key", b"{}", partition) for partition in range(PARTITIONS)])
    assert [record.partition for record in sorted(all_of(log, PARTITIONS))] == list(range(PARTITIONS))


@pytest.mark.parametrize("record", [
    Outgoing("clocks", b"k", b"{}"),
    Outgoing("clicks", b"k", b"{}", PARTITIONS),
    Outgoing("clicks", b"k", b"{}", -1),
    Outgoing("models", b"k", b"{}", 1),
    Outgoing("clicks", b"k", b"{}", None, 1 << 50),
])
def test_what_has_no_place_is_refused(log: Log, record: Outgoing) -> None:
    with pytest.raises(LogError):
        log.append([record])
    log.append(clicks([1]))
    assert [number_of(found) for found in all_of(log, 1)] == [1]


def test_a_place_that_is_not_there_is_not_read(log: Log) -> None:
    with pytest.raises(LogError, match="clicks/4"):
        log.reader([("clicks", PARTITIONS)], {})


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_reading_resumes_behind_the_positions(log: Log, reopen: Callable[[], Log], limit: int) -> None:
    log.append(clicks(range(60)))
    with reading(log) as reader:
        first = read(reader, 25, limit)
    start = {place: found[-1].offset for place, found in by_place(first).items()}
    log.append(clicks(range(60, 80)))
    rest = all_of(reopen(), 55, start=start)
    assert sorted(number_of(record) for record in first + rest) == list(range(80))
    for place, found in by_place(first + rest).items():
        offsets = [record.offset for record in found]
        assert offsets == sorted(offsets), place


def test_a_start_beyond_the_end_is_refused(log: Log) -> None:
    log.append(clicks(range(10)))
    with pytest.raises(LogError, match="ends at"):
        log.reader(PLACES, {("clicks", 0): 1_000_000_000})


def test_the_end_itself_is_a_start(log: Log) -> None:
    log.append(clicks(range(20)))
    with reading(log, log.ends(PLACES)) as reader:
        log.append([Outgoing("carts", b"a", b'{"n":20}')])
        assert [number_of(record) for record in read(reader, 1)] == [20]


def test_a_backlog_comes_merged_by_log_time(log: Log) -> None:
    streams = ["purchases", "clicks", "people", "carts", "letters"]
    for number in range(60):
        log.append([Outgoing(streams[number % 5], b"person-%d" % (number % 7), b'{"n":%d}' % number)])
        if number % 6 == 0:
            time.sleep(0.002)
    for limit in (3, 1000):
        with reading(log) as reader:
            records = read(reader, 60, limit)
        assert sorted(number_of(record) for record in records) == list(range(60))
        for partition in range(PARTITIONS):
            found = [record for record in records if record.partition == partition]
            assert found == sorted(found, key=order)


def test_caught_up_says_that_everything_was_read(log: Log) -> None:
    log.append(clicks(range(30)))
    with reading(log) as reader:
        assert not reader.caught_up(0)
        seen = 0
        while not all(reader.caught_up(partition) for partition in range(PARTITIONS)):
            seen += len(reader.poll(4, 0.05))
        assert seen == 30
        while not reader.polled_at():
            reader.poll(100, 0.01)
        moment = reader.polled_at()
        log.append(clicks(range(30, 40)))
        fresh = read(reader, 10)
        assert min(record.log_time for record in fresh) >= moment
        assert reader.polled_at() >= moment


def test_polled_at_follows_the_clock_while_nothing_happens(log: Log) -> None:
    with reading(log) as reader:
        begun = time.time_ns() // 1_000_000
        while reader.polled_at() < begun:
            reader.poll(10, 0.01)
        assert reader.caught_up(0)
        assert reader.polled_at() <= time.time_ns() // 1_000_000


def test_a_poll_wakes_for_an_append_of_somebody_else(log: Log, reopen: Callable[[], Log]) -> None:
    other = reopen()
    with reading(log) as reader:
        while not reader.caught_up(0):
            reader.poll(10, 0.01)
        timer = threading.Timer(0.2, lambda: other.append(clicks([1])))
        timer.start()
        found: list[Record] = []
        while not found:
            found = reader.poll(10, 30)
        timer.join()
        assert [number_of(record) for record in found] == [1]


def test_a_ticket_is_done_when_the_log_has_the_records(log: Log) -> None:
    ticket = log.begin(clicks(range(10)))
    while not ticket.done():
        time.sleep(0.001)
    assert ticket.done()
    assert sum(end >= 0 for end in log.ends(PLACES).values()) == len(by_place(all_of(log, 10)))


def test_ends_and_fetch(log: Log) -> None:
    assert set(log.ends(PLACES).values()) == {-1}
    log.append(clicks(range(50)))
    records = all_of(log, 50)
    ends = log.ends(PLACES)
    for place, found in by_place(records).items():
        assert ends[place] == found[-1].offset
        assert log.fetch(place, found[0].offset, found[-1].offset) == found
        assert log.fetch(place, found[1].offset, found[3].offset) == found[1:4]
        assert log.fetch(place, found[-1].offset + 1, found[-1].offset + 9) == []
    assert ends["people", 0] == -1
    assert log.latest() == max(record.log_time for record in records)


def test_an_append_of_thousands_keeps_its_order(log: Log) -> None:
    log.append(clicks(range(3000)))
    records = all_of(log, 3000)
    assert len(records) == 3000
    for found in by_place(records).values():
        numbers = [number_of(record) for record in found]
        assert numbers == sorted(numbers)


def test_lag_is_what_is_not_read(log: Log) -> None:
    log.append([*clicks(range(30)), Outgoing("carts", b"a", b"{}")])
    with reading(log) as reader:
        assert reader.lag() == {**dict.fromkeys(SHARD_INPUT, 0), "clicks": 30, "carts": 1}
        assert len(read(reader, 31)) == 31
        assert set(reader.lag().values()) == {0}


def test_what_was_read_and_waits_for_its_turn_is_lag_too(log: Log) -> None:
    for number in range(30):
        log.append(clicks([number]))
    got = 0
    with reading(log) as reader:
        while got < 30:
            got += len(reader.poll(7, 1))
            assert got == 0 or reader.lag()["clicks"] == 30 - got


WRITER = """
import sys, msgspec
from connectors.open_log import open_log
from domain.record import Outgoing
from domain.settings import Settings
settings = msgspec.json.decode(sys.argv[1], type=Settings)
with open_log(settings) as log:
    for number in range(100):
        log.append([Outgoing("clicks", b"%s" % sys.argv[2].encode(), b'{"n":%d}' % number)])
"""


def test_two_processes_write_at_once(log: Log, settings: Settings) -> None:
    command = [sys.executable, "-c", WRITER, msgspec.json.encode(settings).decode()]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("anna", "ben")]
    records = all_of(log, 200)
    assert [writer.wait(30) for writer in writers] == [0, 0]
    for name in (b"anna", b"ben"):
        assert [number_of(record) for record in records if record.key == name] == list(range(100))


def test_another_partition_count_is_refused(log: Log, settings: Settings) -> None:
    with pytest.raises(LogError, match=r"partitions.*4"):
        open_log(msgspec.structs.replace(settings, partitions=8))


# -- recorded history --------------------------------------------------------------------------------------------------

NOON = 1_700_000_000_000
NAMES = ["Product Viewed", "Order Completed", "Product Added", "Consent Updated"]


def recorded(count: int) -> list[bytes]:
    """Lines of history: four streams, five people, several in one second."""
    return [
        json.dumps({
            "type": "track", "event": NAMES[number * 7 % 4], "anonymousId": f"p{number % 5}", "messageId": str(number),
            "timestamp": f"2023-11-14T22:{13 + number // 240:02}:{number // 4 % 60:02}Z",
        }).encode()
        for number in range(count)
    ]


def ids(records: Iterable[Record]) -> list[str]:
    return [json.loads(record.value)["messageId"] for record in records if record.key is not None]


def expected(count: int, partition: int) -> list[str]:
    """The ids of one partition in the order of (time, stream, line)."""
    rank = {"Product Viewed": 0, "Product Added": 1, "Order Completed": 2, "Consent Updated": 3}
    events = [json.loads(line) for line in recorded(count)]
    events = [event for event in events if partition_of(event["anonymousId"].encode(), PARTITIONS) == partition]
    return [event["messageId"]
            for event in sorted(events, key=lambda event: (event["timestamp"], rank[event["event"]]))]


@pytest.mark.parametrize("limit", [5, 1000])
def test_history_is_read_in_its_own_order_with_its_own_time(
    log: Log, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.ingest.MARK", 50)
    done = ingest(log, recorded(300), history=True)
    assert (done.accepted, done.rejected) == (300, 0)
    total = sum(end >= 0 for end in log.ends(PLACES).values())
    assert total == 4 * PARTITIONS  # markers reach every place, also where nobody is
    with reading(log) as reader:
        records: list[Record] = []
        while len(ids(records)) < 300 or not all(reader.caught_up(partition) for partition in range(PARTITIONS)):
            records += reader.poll(limit, 0.1)
    for partition in range(PARTITIONS):
        found = [record for record in records if record.partition == partition]
        assert ids(found) == expected(300, partition)
        times = [record.log_time for record in found]
        assert times == sorted(times)
        ends = [record for record in found if record.value == b'{"type":"history","ended":true}']
        assert sorted(record.stream for record in ends) == sorted(PUBLIC)
        first = {json.loads(record.value)["reached"] for record in found[:4]}
        assert first == {NOON - 20_000 - 1}  # 22:13:00, less a millisecond
        for record in found:
            if record.key is not None:
                assert record.log_time == round(
                    time.mktime(time.strptime(json.loads(record.value)["timestamp"][:19], "%Y-%m-%dT%H:%M:%S"))
                    - time.timezone) * 1000
    log.append([Outgoing("clicks", b"p0", b'{"messageId":"live"}')])
    with reading(log) as reader:
        records = []
        while len(ids(records)) < 301:
            records += reader.poll(limit, 0.1)
    live = [record for record in records if record.value == b'{"messageId":"live"}']
    assert [record.log_time > NOON + 10**9 for record in live] == [True]


def test_reading_history_resumes_inside_it(
    log: Log, reopen: Callable[[], Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.ingest.MARK", 50)
    ingest(log, recorded(200), history=True)
    taken: list[Record] = []
    start: dict[Place, int] = {}
    history: dict[Place, int] = {}
    while len(ids(taken)) < 200:  # a restart after every few records
        with reading(log, start, history=history) as reader:
            batch: list[Record] = []
            while not batch:
                batch = reader.poll(37, 0.1)
        taken += batch
        for record in batch:
            place = (record.stream, record.partition)
            start[place] = record.offset
            if record.key is None:
                marker = json.loads(record.value)
                if marker.get("ended"):
                    history.pop(place)
                else:
                    history[place] = marker["reached"]
    for partition in range(PARTITIONS):
        assert ids(record for record in taken if record.partition == partition) == expected(200, partition)


def test_history_behind_what_the_log_holds_is_refused(log: Log) -> None:
    log.append(clicks([1]))
    with pytest.raises(LogError, match="already holds later records"):
        ingest(log, recorded(10), history=True)
    assert len(all_of(log, 1)) == 1
