"""Merging what a shard reads: by log time, then stream, then offset, as far as it is known what may still come.

A lane is a source of records whose log times never fall within a place (a file of the SQLite log, a topic partition
of Kafka). Its `bound` says that nothing with a log time below it will come after what was read. Records below the
smallest bound can be released; the others wait.

>>> clicks, carts = Lane(), Lane()
>>> clicks.rows = [Record("clicks", 0, 1, 10, None, b""), Record("clicks", 0, 2, 30, None, b"")]
>>> carts.rows = [Record("carts", 0, 1, 20, None, b"")]
>>> clicks.bound, carts.bound = 30, 20
>>> [record.log_time for record in release([clicks, carts])]
[10]
>>> carts.bound = AT_END
>>> [record.log_time for record in release([clicks, carts])]
[20]
"""

from collections.abc import Sequence
from typing import Final

from domain.record import Record
from domain.streams import ALL, SHARD_INPUT

UNKNOWN: Final = -1
"""The bound of a lane of which nothing was read yet."""
AT_END: Final = 1 << 62
"""The bound of a lane that was read to its end."""

RANK: Final = {
    stream: rank for rank, stream in enumerate([*SHARD_INPUT, *(name for name in ALL if name not in SHARD_INPUT)])
}
"""What breaks a tie of log time."""


def order(record: Record) -> tuple[int, int, int]:
    """The sort key of a merge.

    >>> order(Record("carts", 3, 7, 1000, None, b""))
    (1000, 1, 7)
    """
    return record[3], RANK[record[0]], record[2]


class Lane:
    """Records read and not yet released, in the order of the log; nothing below `bound` comes after them."""

    __slots__ = ("bound", "rows")

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self.bound = UNKNOWN


def release(lanes: Sequence[Lane]) -> list[Record]:
    """Take what is below the smallest bound out of the lanes, merged."""
    horizon = min(lane.bound for lane in lanes)
    released: list[Record] = []
    for lane in lanes:
        if rows := lane.rows:
            if horizon == AT_END:
                released += rows
                lane.rows = []
            else:
                released += [record for record in rows if record[3] < horizon]
                lane.rows = [record for record in rows if record[3] >= horizon]
    if len(released) > 1:
        released.sort(key=order)
    return released
