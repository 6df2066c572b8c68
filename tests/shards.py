"""A shard of one's own for tests: a store in a temporary folder, steps of the test's choosing."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from domain.effect import Effect, Row
from domain.event import Event
from domain.partition import partition_of
from domain.playbook import Playbook
from domain.record import Record
from domain.streams import PARTITIONS, stream_of
from state.context import Context, Due, Happening, Step
from state.person import Person
from state.rules import Rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore

encode = msgspec.json.Encoder().encode
offsets = itertools.count(1)


def record(
    who: str, name: str = "Page Viewed", at: int = 1_000, offset: int | None = None, partition: int | None = None,
    **fields: Any,
) -> Record:
    """A record of one event; `who` is an anonymous id unless `userId` is given."""
    call = {"type": "page"} if name == "Page Viewed" else {"type": "track", "event": name}
    body = {**call, "anonymousId": who, "messageId": f"m{next(offsets)}", **fields}
    key = str(body.get("userId") or who).encode()
    return Record(stream_of(call["type"], name), partition_of(key, PARTITIONS) if partition is None else partition,
                  next(offsets) if offset is None else offset, at, key, encode(body))


def shop() -> Rules:
    """An empty playbook."""
    return Rules(Playbook(), "empty")


class Bench:
    """One shard with its store; `commit` writes what is staged and returns its rows."""

    def __init__(self, folder: Path, steps: Sequence[Step], partition: int, hot: int = 1_000) -> None:
        self.path = folder / "store.db"
        self.steps, self.partition, self.hot = steps, partition, hot
        self.rules = shop()
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(self.path, PARTITIONS)
        self.store.claim([self.partition], "test")
        self.shard = Shard(self.partition, self.store, self.steps, PARTITIONS, self.hot)

    def reopen(self) -> None:
        """As after a kill: what was not committed is gone."""
        self.store.close()
        self.open()

    def apply(self, *records: Record, tick: int = 0) -> list[Row]:
        """Apply, commit, and return what would be published."""
        self.shard.apply(records, tick, self.rules, None)
        return self.commit()

    def commit(self) -> list[Row]:
        batch = Batch()
        self.shard.stage(batch)
        self.store.commit(batch, [])
        return batch.rows

    def persons(self) -> list[tuple[str, bytes]]:
        return self.store.persons(self.partition)


class Tally:
    """A step that notes what it saw: on the person (events by name) and in `seen` (moments, in order)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []

    def __call__(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        what = f"due {event.kind}:{event.id}" if isinstance(event, Due) else getattr(event, "name", "letter")
        self.seen.append((person.id, what, context.now))
        person.segments[what] = person.segments.get(what, 0) + 1
        return ()


def timer_after(delay: int, name: str = "remind:me") -> Step:
    """A step that sets a timer at every event."""

    def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        if isinstance(event, Event):
            person.timers[name] = context.now + delay
        return ()

    return step
