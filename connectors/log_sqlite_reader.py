"""Reading the SQLite log: one SELECT per file and poll, the files merged by log time, woken by a bell."""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from connectors.bell import Bell
from connectors.log import LogError, Place
from connectors.log_sqlite_file import FILE_OF, FILES, connect, ends, sequence, text
from connectors.merge import AT_END, Lane, release
from domain.record import Record
from domain.streams import LETTERS, SHARD_INPUT, partitions_of

PROVE: Final = 5
"""Milliseconds between two proofs that no writer is in the middle of an append."""
APART: Final = 20
"""Milliseconds between two looks at files that are not merged (`models`), beside those that are."""
LARGEST: Final = 1 << 17
"""Rows of one log time that are held to be merged; beyond that they come in the order of the append."""
COUNTED: Final = 1_000
"""Rows that a lag is counted over; beyond that it is estimated."""
SPAN: Final = 50_000
"""Ids that one poll looks through at most when it leaves some rows out."""

_SELECT: Final = "SELECT stream, partition, id, time, key, value FROM records WHERE id > ? AND id <= ?"


class Tail(Lane):
    """One file, read onward from a position."""

    def __init__(self, path: Path, wanted: Sequence[Place], start: Mapping[Place, int], partitions: int) -> None:
        super().__init__()
        found, last = ends(path)
        self._from: dict[Place, int] = {}
        for place in wanted:
            begin = start.get(place, -1)
            if begin > last:
                raise LogError(
                    f"{place[0]}/{place[1]} is to be read after offset {begin}, but {path} ends at {last}:"
                    " this log has lost records, or it is not the log that was read before"
                )
            # A place that has nothing new need not be searched for from where it stands.
            self._from[place] = last if found.get(place, -1) <= begin else begin
        streams = sorted({stream for stream, _ in wanted})
        numbers = sorted({partition for _, partition in wanted})
        where = ""
        if len(streams) < sum(FILE_OF[stream] == FILE_OF[streams[0]] for stream in FILE_OF):
            where += f" AND stream IN ({', '.join(repr(stream) for stream in streams)})"
        if len(numbers) < partitions_of(streams[0], partitions):
            where += f" AND partition IN ({', '.join(map(str, numbers))})"
        self._all = not where
        self._steady = FILE_OF[streams[0]] != FILE_OF[LETTERS]
        self._seen: dict[int, int] = {}
        self._select = f"{_SELECT}{where} ORDER BY id LIMIT ?"
        self.position = min(self._from.values())
        # Up to here rows are looked at one by one: behind it, all that is selected is wanted.
        product = len(streams) * len(numbers) == len(self._from)
        self._searched = max(self._from.values()) if product else AT_END
        self._connection = connect(path)
        self._prover = connect(path, patience=0)
        self.end = False

    def read(self, limit: int) -> None:
        """Read up to `limit` rows more."""
        try:
            last = upto = AT_END
            if not self._all:  # what is left out must not be looked through again and again
                last = sequence(self._connection)
                if last <= self.position:
                    self.bound, self.end = AT_END, True
                    return
                upto = min(last, self.position + SPAN)
            rows = self._connection.execute(self._select, (self.position, upto, limit)).fetchall()
        except sqlite3.Error as wrong:
            raise LogError(f"the log cannot be read: {text(wrong)}") from wrong
        if rows:
            before, self.position = self.position, rows[-1][2]
            records = list(map(Record._make, rows))
            if before < self._searched:
                start = self._from
                records = [record for record in records if record[2] > start.get(record[:2], AT_END)]
            self.rows += records if self._steady else self._steadied(records)
            self.bound = max(self.bound, rows[-1][3]) if self.bound != AT_END else rows[-1][3]
        self.end = len(rows) < limit and upto == last
        if self.end:
            self.bound = AT_END
        if len(rows) < limit and upto != AT_END:
            self.position = max(self.position, upto)

    def _steadied(self, records: list[Record]) -> list[Record]:
        """The records with log times that never fall within a partition: shards with different clocks wrote them."""
        seen = self._seen
        for index, record in enumerate(records):
            last = seen.get(record[1], 0)
            if record[3] < last:
                records[index] = record._replace(log_time=last)
            else:
                seen[record[1]] = record[3]
        return records

    def rest(self) -> None:
        """No reading this time: so the end is not known any more."""
        if self.rows:
            self.bound, self.end = self.rows[-1][3], False

    def lag(self) -> dict[str, int]:
        """Rows not yet read, by stream."""
        last = self._connection.execute("SELECT max(id) FROM records").fetchone()[0] or 0
        if last <= self.position:
            return {}
        counts = dict(self._connection.execute(
            "SELECT stream, count(*) FROM (SELECT stream FROM records WHERE id > ? LIMIT ?) GROUP BY stream",
            (self.position, COUNTED),
        ).fetchall())
        counted = sum(counts.values())
        scale = (last - self.position) / counted if counted == COUNTED else 1
        return {stream: round(count * scale) for stream, count in counts.items()}

    def quiet(self) -> bool:
        """Whether no writer is in the middle of an append: then what is appended later gets a later log time."""
        try:
            self._prover.execute("BEGIN IMMEDIATE")
            self._prover.execute("ROLLBACK")
        except sqlite3.OperationalError as wrong:
            if wrong.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise LogError(f"the log cannot be read: {text(wrong)}") from wrong
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        self._prover.close()


class SqliteReader:
    """A position in some partitions of some streams. See connectors.log.Reader."""

    def __init__(
        self, folder: Path, bells: Path, places: Sequence[Place], start: Mapping[Place, int], partitions: int,
        now: Callable[[], int],
    ) -> None:
        for stream, partition in places:
            if stream not in FILE_OF or not 0 <= partition < partitions_of(stream, partitions):
                raise LogError(f"there is no {stream}/{partition} in this log")
        self._now = now
        files = [file for file in FILES if any(FILE_OF[stream] == file for stream, _ in places)]
        self._bell = Bell(bells, sorted({stream for stream, _ in places}))
        self._tails = [
            Tail(folder / f"{file}.db", [place for place in places if FILE_OF[place[0]] == file], start, partitions)
            for file in files
        ]
        shards = {FILE_OF[stream] for stream in SHARD_INPUT}
        self._merged = [tail for tail, file in zip(self._tails, files, strict=True) if file in shards]
        self._apart = [tail for tail, file in zip(self._tails, files, strict=True) if file not in shards]
        self._streams = sorted({stream for stream, _ in places})
        self._ready: list[Record] = []
        self._end = False
        self._polled_at = 0
        self._proven = 0
        self._apart_at = 0

    def poll(self, limit: int, wait: float) -> list[Record]:
        """What is new: waits up to `wait` seconds for the first record, then takes what is there, up to `limit`."""
        if self._ready:
            return self._take(limit)
        self._read(limit)
        if self._ready or wait <= 0:
            return self._take(limit)
        deadline = time.monotonic() + wait
        while not self._ready and (left := deadline - time.monotonic()) > 0:
            self._bell.wait(left)
            self._read(limit)
        return self._take(limit)

    def _take(self, limit: int) -> list[Record]:
        taken = self._ready
        if len(taken) > limit:
            taken, self._ready = taken[:limit], taken[limit:]
        else:
            self._ready = []
        return taken

    def _read(self, limit: int) -> None:
        """Read the files; what can be released becomes ready."""
        now = self._now()
        proven = False
        if self._end and not 0 <= now - self._proven < PROVE:
            self._proven = now
            proven = all(tail.quiet() for tail in self._merged)
        if not self._merged or not 0 <= now - self._apart_at < APART:
            self._apart_at = now
            for tail in self._apart:
                tail.read(limit)
                self._ready += tail.rows
                tail.rows = []
        if self._merged:
            self._ready += self._merge(limit)
        self._end = all(tail.end for tail in self._tails) and not any(tail.rows for tail in self._merged)
        if self._end and proven:
            self._polled_at = max(self._polled_at, now)

    def _merge(self, limit: int) -> list[Record]:
        for tail in self._merged:
            if len(tail.rows) < limit:
                tail.read(limit)
            else:
                tail.rest()
        while not (released := release(self._merged)):
            behind = [tail for tail in self._merged if not tail.end]
            if not behind or not any(tail.rows for tail in self._merged):
                break
            # All that was read has one log time, and there may be more of it.
            tail = min(behind, key=lambda tail: tail.bound)
            if len(tail.rows) >= LARGEST:
                tail.bound += 1
            else:
                tail.read(max(limit, len(tail.rows)))
        return released

    def caught_up(self, partition: int) -> bool:
        """Whether, at the start of the last poll, every stream had been read to its end (of any partition)."""
        return self._end and not self._ready

    def polled_at(self) -> int:
        """The moment (ms) up to which the end is known: no append was under way when the end was read."""
        return self._polled_at

    def lag(self) -> dict[str, int]:
        """Records not yet read, by stream (an estimate: of a file's partitions all are counted)."""
        found: dict[str, int] = {}
        for tail in self._tails:
            found |= tail.lag()
        for record in chain(self._ready, *(tail.rows for tail in self._tails)):
            found[record[0]] = found.get(record[0], 0) + 1
        return {stream: found.get(stream, 0) for stream in self._streams}

    def close(self) -> None:
        """Close the files and take the bell down."""
        for tail in self._tails:
            tail.close()
        self._bell.close()
