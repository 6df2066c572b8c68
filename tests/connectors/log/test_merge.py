"""The merge gives one order, however the records came in."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.log.log import AT_END, NOTHING_READ, MergeInput, merge_key, release_ready
from domain.record import SHARD_INPUT_STREAMS, Record

STREAM_TIMES = st.lists(
    st.lists(st.integers(0, 30), max_size=20), min_size=len(SHARD_INPUT_STREAMS), max_size=len(SHARD_INPUT_STREAMS)
)


def records_of(times: list[list[int]]) -> list[list[Record]]:
    """For each stream, records at these times, in their order."""
    return [
        [Record(stream, 0, offset, at, None, b"") for offset, at in enumerate(sorted(found))]
        for stream, found in zip(SHARD_INPUT_STREAMS, times, strict=True)
    ]


@given(STREAM_TIMES, st.integers(1, 7))
def test_incremental_reads_give_the_full_order(times: list[list[int]], piece: int) -> None:
    streams = records_of(times)
    lanes = [MergeInput() for _ in streams]
    released: list[Record] = []
    read = [0] * len(streams)
    while any(lane.watermark != AT_END for lane in lanes):
        behind = min((lane for lane in lanes if lane.watermark != AT_END), key=lambda lane: lane.watermark)
        index = lanes.index(behind)
        fresh = streams[index][read[index] : read[index] + piece]
        read[index] += len(fresh)
        behind.records += fresh
        behind.watermark = fresh[-1].log_time if len(fresh) == piece else AT_END
        released += release_ready(lanes)
    assert released == sorted((record for stream in streams for record in stream), key=merge_key)
    assert not any(lane.records for lane in lanes)


def test_nothing_is_released_before_every_watermark_is_known() -> None:
    known, unknown = MergeInput(), MergeInput()
    known.records = [Record("clicks", 0, 1, 5, None, b"")]
    known.watermark = AT_END
    assert unknown.watermark == NOTHING_READ
    assert release_ready([known, unknown]) == []
    unknown.watermark = 5
    assert release_ready([known, unknown]) == []  # one at the same moment may still come
    unknown.watermark = 6
    assert len(release_ready([known, unknown])) == 1


def test_ties_are_ordered_by_stream() -> None:
    lanes = [MergeInput() for _ in SHARD_INPUT_STREAMS]
    for lane, stream in zip(lanes, reversed(SHARD_INPUT_STREAMS), strict=True):
        lane.records = [Record(stream, 0, 9, 5, None, b""), Record(stream, 0, 10, 5, None, b"")]
        lane.watermark = AT_END
    found = release_ready(lanes)
    assert [record.stream for record in found[::2]] == list(SHARD_INPUT_STREAMS)
    assert [record.offset for record in found] == [9, 10] * len(SHARD_INPUT_STREAMS)
