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

from connectors.ingest.jsonl import ingest
from connectors.log.log import Log, LogError, Reader, StreamPartition, merge_key
from connectors.log.open import open_log
from domain.record import (
    ALL_STREAMS,
    PUBLIC_STREAMS,
    SHARD_INPUT_STREAMS,
    NewRecord,
    Record,
    partition_count,
    partition_of,
)
from domain.settings import Settings
from tests.connectors.log.conftest import PARTITIONS
from tests.harness.support import ROOT

STREAM_PARTITIONS = [(stream, partition) for stream in SHARD_INPUT_STREAMS for partition in range(PARTITIONS)]


@contextmanager
def open_reader(
    log: Log,
    start: Mapping[StreamPartition, int] | None = None,
    places: Sequence[StreamPartition] = STREAM_PARTITIONS,
    history: Mapping[StreamPartition, int] | None = None,
) -> Iterator[Reader]:
    reader = log.reader(places, start or {}, history)
    try:
        yield reader
    finally:
        reader.close()


def read_records(reader: Reader, count: int, limit: int = 1000) -> list[Record]:
    """So many records; fewer only when none comes for ten seconds."""
    found: list[Record] = []
    quiet = 0
    while len(found) < count and quiet < 100:
        batch = reader.poll(min(limit, count - len(found)), 0.1)
        quiet = 0 if batch else quiet + 1
        found += batch
    return found


def read_all(log: Log, count: int, **arguments: object) -> list[Record]:
    with open_reader(log, **arguments) as reader:  # type: ignore[arg-type]  # each row names one argument
        return read_records(reader, count)


def make_clicks(numbers: Iterable[int], people: int = 20) -> list[NewRecord]:
    return [NewRecord("clicks", b"person-%d" % (number % people), b'{"n":%d}' % number) for number in numbers]


def number_of(record: Record) -> int:
    return int(json.loads(record.value)["n"])


def by_partition(records: Iterable[Record]) -> dict[StreamPartition, list[Record]]:
    found: dict[StreamPartition, list[Record]] = defaultdict(list)
    for record in records:
        found[record.stream, record.partition].append(record)
    return found


def test_appended_records_are_read_once_in_key_order(log: Log) -> None:
    log.append(make_clicks(range(100)))
    log.append(make_clicks(range(100, 130)))
    records = read_all(log, 130)
    assert sorted(number_of(record) for record in records) == list(range(130))
    for (_, partition), found in by_partition(records).items():
        assert [number_of(record) for record in found] == sorted(number_of(record) for record in found)
        assert [record.offset for record in found] == sorted({record.offset for record in found})
        assert {partition_of(record.key or b"", PARTITIONS) for record in found} == {partition}


def test_every_stream_is_read_and_models_have_one_partition(log: Log) -> None:
    log.append([NewRecord(stream, b"key", stream.encode()) for stream in ALL_STREAMS])
    places = [(stream, p) for stream in ALL_STREAMS for p in range(partition_count(stream, PARTITIONS))]
    records = read_all(log, len(ALL_STREAMS), places=places)
    assert sorted(record.value.decode() for record in records) == sorted(ALL_STREAMS)
    assert all(record.stream.encode() == record.value for record in records)


def test_log_time_is_append_time_and_never_decreases(log: Log) -> None:
    before = time.time_ns() // 1_000_000
    for number in range(10):
        log.append(make_clicks([number]))
    after = time.time_ns() // 1_000_000
    for found in by_partition(read_all(log, 10)).values():
        times = [record.log_time for record in found]
        assert times == sorted(times)
        assert before - 1000 <= times[0] <= times[-1] <= after + 1000


def test_record_without_a_key_is_kept(log: Log) -> None:
    log.append([NewRecord("clicks", None, b'{"n":%d}' % number) for number in range(40)])
    records = read_all(log, 40)
    assert {record.key for record in records} == {None}
    assert len({record.partition for record in records}) > 1


def test_explicit_partition_is_used(log: Log) -> None:
    log.append([NewRecord("shard-messages", b"key", b"{}", partition) for partition in range(PARTITIONS)])
    assert [record.partition for record in sorted(read_all(log, PARTITIONS))] == list(range(PARTITIONS))


@pytest.mark.parametrize(
    "record",
    [
        NewRecord("clocks", b"k", b"{}"),
        NewRecord("clicks", b"k", b"{}", PARTITIONS),
        NewRecord("clicks", b"k", b"{}", -1),
        NewRecord("models", b"k", b"{}", 1),
        NewRecord("clicks", b"k", b"{}", None, 1 << 50),
    ],
)
def test_unknown_stream_or_partition_is_rejected(log: Log, record: NewRecord) -> None:
    with pytest.raises(LogError):
        log.append([record])
    log.append(make_clicks([1]))
    assert [number_of(found) for found in read_all(log, 1)] == [1]


def test_reading_an_unknown_partition_fails(log: Log) -> None:
    with pytest.raises(LogError, match="clicks/4"):
        log.reader([("clicks", PARTITIONS)], {})


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_reading_resumes_after_the_stored_offsets(log: Log, open_again: Callable[[], Log], limit: int) -> None:
    log.append(make_clicks(range(60)))
    with open_reader(log) as reader:
        first = read_records(reader, 25, limit)
    start = {place: found[-1].offset for place, found in by_partition(first).items()}
    log.append(make_clicks(range(60, 80)))
    rest = read_all(open_again(), 55, start=start)
    assert sorted(number_of(record) for record in first + rest) == list(range(80))
    for place, found in by_partition(first + rest).items():
        offsets = [record.offset for record in found]
        assert offsets == sorted(offsets), place


def test_start_beyond_the_end_is_rejected(log: Log) -> None:
    log.append(make_clicks(range(10)))
    with pytest.raises(LogError, match="ends at"):
        log.reader(STREAM_PARTITIONS, {("clicks", 0): 1_000_000_000})


def test_reading_can_start_at_the_end(log: Log) -> None:
    log.append(make_clicks(range(20)))
    with open_reader(log, log.end_offsets(STREAM_PARTITIONS)) as reader:
        log.append([NewRecord("carts", b"a", b'{"n":20}')])
        assert [number_of(record) for record in read_records(reader, 1)] == [20]


def test_backlog_is_merged_by_log_time(log: Log) -> None:
    streams = ["purchases", "clicks", "people", "carts", "shard-messages"]
    for number in range(60):
        log.append([NewRecord(streams[number % 5], b"person-%d" % (number % 7), b'{"n":%d}' % number)])
        if number % 6 == 0:
            time.sleep(0.002)
    for limit in (3, 1000):
        with open_reader(log) as reader:
            records = read_records(reader, 60, limit)
        assert sorted(number_of(record) for record in records) == list(range(60))
        for partition in range(PARTITIONS):
            found = [record for record in records if record.partition == partition]
            assert found == sorted(found, key=merge_key)


def test_caught_up_is_true_after_everything_was_read(log: Log) -> None:
    log.append(make_clicks(range(30)))
    with open_reader(log) as reader:
        assert not reader.caught_up(0)
        seen = 0
        while not all(reader.caught_up(partition) for partition in range(PARTITIONS)):
            seen += len(reader.poll(4, 0.05))
        assert seen == 30
        while not reader.watermark():
            reader.poll(100, 0.01)
        moment = reader.watermark()
        log.append(make_clicks(range(30, 40)))
        fresh = read_records(reader, 10)
        assert min(record.log_time for record in fresh) >= moment
        assert reader.watermark() >= moment


def test_polled_at_advances_while_idle(log: Log) -> None:
    with open_reader(log) as reader:
        begun = time.time_ns() // 1_000_000
        while reader.watermark() < begun:
            reader.poll(10, 0.01)
        assert reader.caught_up(0)
        assert reader.watermark() <= time.time_ns() // 1_000_000


def test_poll_wakes_on_an_append_by_another_process(log: Log, open_again: Callable[[], Log]) -> None:
    other = open_again()
    with open_reader(log) as reader:
        while not reader.caught_up(0):
            reader.poll(10, 0.01)
        timer = threading.Timer(0.2, lambda: other.append(make_clicks([1])))
        timer.start()
        found: list[Record] = []
        while not found:
            found = reader.poll(10, 30)
        timer.join()
        assert [number_of(record) for record in found] == [1]


def test_pending_append_completes_when_written(log: Log) -> None:
    ticket = log.start_append(make_clicks(range(10)))
    while not ticket.done():
        time.sleep(0.001)
    assert ticket.done()
    assert sum(end >= 0 for end in log.end_offsets(STREAM_PARTITIONS).values()) == len(by_partition(read_all(log, 10)))


def test_ends_and_fetch(log: Log) -> None:
    assert set(log.end_offsets(STREAM_PARTITIONS).values()) == {-1}
    log.append(make_clicks(range(50)))
    records = read_all(log, 50)
    ends = log.end_offsets(STREAM_PARTITIONS)
    for place, found in by_partition(records).items():
        assert ends[place] == found[-1].offset
        assert log.fetch(place, found[0].offset, found[-1].offset) == found
        assert log.fetch(place, found[1].offset, found[3].offset) == found[1:4]
        assert log.fetch(place, found[-1].offset + 1, found[-1].offset + 9) == []
    assert ends["people", 0] == -1
    assert log.latest_log_time() == max(record.log_time for record in records)


def test_large_append_keeps_its_order(log: Log) -> None:
    log.append(make_clicks(range(3000)))
    records = read_all(log, 3000)
    assert len(records) == 3000
    for found in by_partition(records).values():
        numbers = [number_of(record) for record in found]
        assert numbers == sorted(numbers)


def test_lag_counts_unread_records(log: Log) -> None:
    log.append([*make_clicks(range(30)), NewRecord("carts", b"a", b"{}")])
    with open_reader(log) as reader:
        assert reader.lag() == {**dict.fromkeys(SHARD_INPUT_STREAMS, 0), "clicks": 30, "carts": 1}
        assert len(read_records(reader, 31)) == 31
        assert set(reader.lag().values()) == {0}


def test_lag_includes_buffered_records(log: Log) -> None:
    for number in range(30):
        log.append(make_clicks([number]))
    got = 0
    with open_reader(log) as reader:
        while got < 30:
            got += len(reader.poll(7, 1))
            assert got == 0 or reader.lag()["clicks"] == 30 - got


WRITER = """
import sys, msgspec
from connectors.log.open import open_log
from domain.record import NewRecord
from domain.settings import Settings
settings = msgspec.json.decode(sys.argv[1], type=Settings)
with open_log(settings) as log:
    for number in range(100):
        log.append([NewRecord("clicks", b"%s" % sys.argv[2].encode(), b'{"n":%d}' % number)])
"""


def test_two_processes_write_at_once(log: Log, settings: Settings) -> None:
    command = [sys.executable, "-c", WRITER, msgspec.json.encode(settings).decode()]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("anna", "ben")]
    records = read_all(log, 200)
    assert [writer.wait(30) for writer in writers] == [0, 0]
    for name in (b"anna", b"ben"):
        assert [number_of(record) for record in records if record.key == name] == list(range(100))


def test_different_partition_count_is_rejected(log: Log, settings: Settings) -> None:
    with pytest.raises(LogError, match=r"partitions.*4"):
        open_log(msgspec.structs.replace(settings, partitions=8))


# -- recorded history --------------------------------------------------------------------------------------------------

NOON = 1_700_000_000_000
NAMES = ["Product Viewed", "Order Completed", "Product Added", "Consent Updated"]


def history_lines(count: int) -> list[bytes]:
    """Lines of history: four streams, five people, several in one second."""
    return [
        json.dumps(
            {
                "type": "track",
                "event": NAMES[number * 7 % 4],
                "anonymousId": f"p{number % 5}",
                "messageId": str(number),
                "timestamp": f"2023-11-14T22:{13 + number // 240:02}:{number // 4 % 60:02}Z",
            }
        ).encode()
        for number in range(count)
    ]


def message_ids(records: Iterable[Record]) -> list[str]:
    return [json.loads(record.value)["messageId"] for record in records if record.key is not None]


def expected_ids(count: int, partition: int) -> list[str]:
    """The ids of one partition in the order of (time, stream, line)."""
    rank = {"Product Viewed": 0, "Product Added": 1, "Order Completed": 2, "Consent Updated": 3}
    events = [json.loads(line) for line in history_lines(count)]
    events = [event for event in events if partition_of(event["anonymousId"].encode(), PARTITIONS) == partition]
    return [
        event["messageId"] for event in sorted(events, key=lambda event: (event["timestamp"], rank[event["event"]]))
    ]


@pytest.mark.parametrize("limit", [5, 1000])
def test_history_keeps_its_order_and_time(log: Log, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.ingest.jsonl.MARKER_INTERVAL", 50)
    done = ingest(log, history_lines(300), history=True)
    assert (done.accepted, done.rejected) == (300, 0)
    total = sum(end >= 0 for end in log.end_offsets(STREAM_PARTITIONS).values())
    assert total == 4 * PARTITIONS  # markers reach every place, also where nobody is
    with open_reader(log) as reader:
        records: list[Record] = []
        while len(message_ids(records)) < 300 or not all(
            reader.caught_up(partition) for partition in range(PARTITIONS)
        ):
            records += reader.poll(limit, 0.1)
    for partition in range(PARTITIONS):
        found = [record for record in records if record.partition == partition]
        assert message_ids(found) == expected_ids(300, partition)
        times = [record.log_time for record in found]
        assert times == sorted(times)
        ends = [record for record in found if record.value == b'{"type":"history","ended":true}']
        assert sorted(record.stream for record in ends) == sorted(PUBLIC_STREAMS)
        first = {json.loads(record.value)["reached"] for record in found[:4]}
        assert first == {NOON - 20_000 - 1}  # 22:13:00, less a millisecond
        for record in found:
            if record.key is not None:
                assert (
                    record.log_time
                    == round(
                        time.mktime(time.strptime(json.loads(record.value)["timestamp"][:19], "%Y-%m-%dT%H:%M:%S"))
                        - time.timezone
                    )
                    * 1000
                )
    log.append([NewRecord("clicks", b"p0", b'{"messageId":"live"}')])
    with open_reader(log) as reader:
        records = []
        while len(message_ids(records)) < 301:
            records += reader.poll(limit, 0.1)
    live = [record for record in records if record.value == b'{"messageId":"live"}']
    assert [record.log_time > NOON + 10**9 for record in live] == [True]


def test_reading_resumes_inside_history(
    log: Log, open_again: Callable[[], Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.ingest.jsonl.MARKER_INTERVAL", 50)
    ingest(log, history_lines(200), history=True)
    taken: list[Record] = []
    start: dict[StreamPartition, int] = {}
    history: dict[StreamPartition, int] = {}
    while len(message_ids(taken)) < 200:  # a restart after every few records
        with open_reader(log, start, history=history) as reader:
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
        assert message_ids(record for record in taken if record.partition == partition) == expected_ids(200, partition)


def test_history_older_than_the_log_is_rejected(log: Log) -> None:
    log.append(make_clicks([1]))
    with pytest.raises(LogError, match="already holds later records"):
        ingest(log, history_lines(10), history=True)
    assert len(read_all(log, 1)) == 1
