"""The merge gives one order, however the records came in."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.merge import AT_END, UNKNOWN, Lane, order, release
from domain.record import Record
from domain.streams import SHARD_INPUT

LANES = st.lists(st.lists(st.integers(0, 30), max_size=20), min_size=len(SHARD_INPUT), max_size=len(SHARD_INPUT))


def records_of(times: list[list[int]]) -> list[list[Record]]:
    """For each stream, records at these times, in their order."""
    return [
        [Record(stream, 0, offset, at, None, b"") for offset, at in enumerate(sorted(found))]
        for stream, found in zip(SHARD_INPUT, times, strict=True)
    ]


@given(LANES, st.integers(1, 7))
def test_reading_in_pieces_gives_the_order_of_the_whole(times: list[list[int]], piece: int) -> None:
    streams = records_of(times)
    lanes = [Lane() for _ in streams]
    released: list[Record] = []
    read = [0] * len(streams)
    while any(lane.bound != AT_END for lane in lanes):
        behind = min((lane for lane in lanes if lane.bound != AT_END), key=lambda lane: lane.bound)
        index = lanes.index(behind)
        fresh = streams[index][read[index] : read[index] + piece]
        read[index] += len(fresh)
        behind.rows += fresh
        behind.bound = fresh[-1].log_time if len(fresh) == piece else AT_END
        released += release(lanes)
    assert released == sorted((record for stream in streams for record in stream), key=order)
    assert not any(lane.rows for lane in lanes)


def test_nothing_is_released_while_a_lane_is_unknown() -> None:
    known, unknown = Lane(), Lane()
    known.rows = [Record("clicks", 0, 1, 5, None, b"")]
    known.bound = AT_END
    assert unknown.bound == UNKNOWN
    assert release([known, unknown]) == []
    unknown.bound = 5
    assert release([known, unknown]) == []  # one at the same moment may still come
    unknown.bound = 6
    assert len(release([known, unknown])) == 1


def test_a_tie_goes_to_the_stream_that_comes_first() -> None:
    lanes = [Lane() for _ in SHARD_INPUT]
    for lane, stream in zip(lanes, reversed(SHARD_INPUT), strict=True):
        lane.rows = [Record(stream, 0, 9, 5, None, b""), Record(stream, 0, 10, 5, None, b"")]
        lane.bound = AT_END
    found = release(lanes)
    assert [record.stream for record in found[::2]] == list(SHARD_INPUT)
    assert [record.offset for record in found] == [9, 10] * len(SHARD_INPUT)
