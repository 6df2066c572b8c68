"""One shard for tests, with a store in a temporary folder and steps of the test."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from domain.action import Effect, OutboxRow
from domain.event import Event
from domain.playbook.playbook import Playbook
from domain.record import DEFAULT_PARTITIONS, Record, event_stream, partition_of
from state.context import Input, StepContext, StepFunction, TimerFired
from state.person.model import Person
from state.playbook.compiled import Rules
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch

encode = msgspec.json.Encoder().encode
offsets = itertools.count(1)


def record(
    anonymous_id: str,
    name: str = "Page Viewed",
    at: int = 1_000,
    offset: int | None = None,
    partition: int | None = None,
    **fields: Any,
) -> Record:
    """Build the record of one event; `userId` may be in `fields`."""
    call = {"type": "page"} if name == "Page Viewed" else {"type": "track", "event": name}
    body = {**call, "anonymousId": anonymous_id, "messageId": f"m{next(offsets)}", **fields}
    key = str(body.get("userId") or anonymous_id).encode()
    return Record(
        event_stream(call["type"], name),
        partition_of(key, DEFAULT_PARTITIONS) if partition is None else partition,
        next(offsets) if offset is None else offset,
        at,
        key,
        encode(body),
    )


def empty_playbook() -> Rules:
    """Rules of an empty playbook."""
    return Rules(Playbook(), "empty")


class ShardHarness:
    """One shard with its store; `commit` writes what is staged and returns its rows."""

    def __init__(self, folder: Path, steps: Sequence[StepFunction], partition: int, cache_size: int = 1_000) -> None:
        self.path = folder / "store.db"
        self.steps, self.partition, self.cache_size = steps, partition, cache_size
        self.rules = empty_playbook()
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(self.path, DEFAULT_PARTITIONS)
        self.store.claim([self.partition], "test")
        self.shard = Shard(self.partition, self.store, self.steps, DEFAULT_PARTITIONS, self.cache_size)

    def reopen(self) -> None:
        """Reopen the store as after a kill: uncommitted state is lost."""
        self.store.close()
        self.open()

    def apply(self, *records: Record, tick: int = 0) -> list[OutboxRow]:
        """Apply, commit, and return what would be published."""
        self.shard.apply(records, tick, self.rules, None)
        return self.commit()

    def commit(self) -> list[OutboxRow]:
        batch = WriteBatch()
        self.shard.stage(batch)
        self.store.commit(batch, [])
        return batch.outbox_rows

    def persons(self) -> list[tuple[str, bytes]]:
        return self.store.persons(self.partition)


class StepRecorder:
    """A step that records its calls, in `calls` and as segments of the person."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []

    def __call__(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        what = (
            f"due {event.kind}:{event.id}" if isinstance(event, TimerFired) else getattr(event, "name", "shard_message")
        )
        self.calls.append((person.id, what, context.now))
        person.segments[what] = person.segments.get(what, 0) + 1
        return ()


def set_timer_after(delay: int, timer: str = "remind:me") -> StepFunction:
    """Return a step that sets a timer at every event."""

    def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        if isinstance(event, Event):
            person.timers[timer] = context.now + delay
        return ()

    return step
