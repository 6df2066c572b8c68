"""Virtual time: a few related people in shards of their own, as fast as their records can be read.

    records in order of (log time, stream, offset) ─▶ Shard.apply ─▶ timeline entries
                    shard messages ◀──── at once ─────────┘

Timers fire exactly at their due times. The shards are real, over an in-memory store, so forwarding, deduplication and
dead letters work as in the live engine. The batch records of live shards give the model that was live at a past time,
and the order in which records were read.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from domain import action as actions
from domain import record as dead_letter_codec
from domain.action import OutboxRow
from domain.model import Model
from domain.record import DEAD_LETTERS, SHARD_INPUT_STREAMS, SHARD_MESSAGES, DeadLetter, Record, partition_of
from flows.simulation.reactions import ReactionSimulator, TimelineEntry
from state.coupons.leasing import SOLD_OUT
from state.person import codec
from state.person.model import CodeCache, Person
from state.playbook.compiled import Rules
from state.shard.counts import ShardCounts
from state.shard.shard import Shard
from state.store.store import BatchRecord, ShardCheckpoint, WriteBatch

CACHE_SIZE = 1 << 30
"""No eviction: there are few people."""
MAX_DEAD_LETTERS = 100
"""Dead letters stored per cluster."""

SIMULATED_CODES = 50
"""Initial codes of every code cache, if caches are stocked."""
SIMULATED_SECRET = b"backtest"
"""Replaces the shop's secret: simulated coupon codes are invalid."""


class LiveModels(NamedTuple):
    """The models that are live together: propensity, and the quintiles."""

    model: Model | None = None
    quintiles: Model | None = None


class ScheduledRecord(NamedTuple):
    """A record to apply, with the clock of the live shard if known, and the models that were live.

    `message` names the shard message at this position (`MessageNamer`).
    """

    record: Record
    clock: int
    models: LiveModels
    message: str = ""


class MessageNamer:
    """Names shard messages by sender, recipient and kind, and their number among these.

    Message ids do not identify corresponding messages: they count what else a step decided.

    >>> namer = MessageNamer()
    >>> message = actions.ShardMessage(kind="merge_request", sender="u:a", recipient="a:x", seq=7, id="i")
    >>> value = actions.encode_shard_message(message)
    >>> namer.name_of(value), namer.name_of(value)
    ('merge_request u:a a:x 0', '')
    """

    def __init__(self) -> None:
        self._ids: dict[str, set[str]] = {}

    def name_of(self, value: bytes) -> str:
        """Return the name of a message; "" for a duplicate."""
        message = actions.decode_shard_message(value)
        between = f"{message.kind} {message.sender} {message.recipient}"
        known = self._ids.setdefault(between, set())
        if message.id in known:
            return ""
        known.add(message.id)
        return f"{between} {len(known) - 1}"


class InMemoryStore:
    """A store for the simulation of a few people. See state.store.Store.

    `stocked` is a playbook hash: if set, code caches have codes from the beginning (`state/coupons/leasing.py`).
    """

    def __init__(self, stocked: str = "") -> None:
        self._stocked = stocked
        self._persons: dict[tuple[int, str], bytes | None] = {}
        self._due_times: dict[tuple[int, str], int | None] = {}

    def claim(self, partitions: Sequence[int], owner: str) -> None:
        """Do nothing: there is no other owner."""

    def shard_checkpoint(self, partition: int) -> ShardCheckpoint:
        return ShardCheckpoint()

    def person(self, partition: int, person: str) -> bytes | None:
        if person[:2] == "d:" and self._stocked:
            return self._persons.get((partition, person)) or _stocked_code_cache(person, self._stocked)
        return self._persons.get((partition, person))

    def person_ids(self, partition: int, after: str, limit: int) -> list[str]:
        return sorted(person for at, person in self._persons if at == partition and person > after)[:limit]

    def due_persons(self, partition: int, after: tuple[int, str], until: int, limit: int) -> list[tuple[int, str]]:
        found = [
            (due, person)
            for (at, person), due in self._due_times.items()
            if at == partition and due is not None and after < (due, person) and due <= until
        ]
        return sorted(found)[:limit]

    def due_time(self, partition: int, person: str) -> int | None:
        return self._due_times.get((partition, person))

    def next_due(self, partition: int) -> int | None:
        return min(
            (due for (at, _), due in self._due_times.items() if at == partition and due is not None), default=None
        )

    def commit(self, batch: WriteBatch, sent: Sequence[int]) -> int:
        self._persons.update(batch.persons)
        self._due_times.update(batch.due_times)
        return 0

    def outbox(self) -> list[OutboxRow]:
        return []

    def batch_records(self, partition: int) -> list[BatchRecord]:
        return []

    def put_blob(self, kind: str, hash: str, content: bytes) -> None:
        """Do nothing."""

    def put_named(self, kind: str, name: str, content: bytes) -> None:
        """Do nothing."""

    def get_blob(self, kind: str, hash: str) -> bytes | None:
        return None

    def maintain(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@lru_cache(4_096)
def _stocked_code_cache(cache_id: str, playbook: str) -> bytes:
    """Return a code cache with codes that requests no more."""
    codes = [f"TEST-{n}" for n in range(SIMULATED_CODES)]
    return codec.encode(
        Person(id=cache_id, code_cache=CodeCache(codes=codes, denied_reason=SOLD_OUT, denied_by_playbook=playbook))
    )


class ClusterSimulation:
    """Simulates people who share ids. `models_at(partition, time)` returns the models for a timer.

    `stocked`: code caches have codes, so there are no lease messages.
    """

    def __init__(
        self,
        reactions: ReactionSimulator,
        rules: Rules,
        partitions: int,
        models_at: Callable[[int, int], LiveModels],
        counts: ShardCounts | None = None,
        stocked: bool = False,
    ) -> None:
        self.reactions, self.rules, self.partitions, self.models_at = reactions, rules, partitions, models_at
        self.counts = counts or ShardCounts()
        self.shards: dict[int, Shard] = {}
        self.message_count = 0
        self.dead_letters: list[DeadLetter] = []
        """The first dead letters."""
        self._store = InMemoryStore(rules.short_hash if stocked else "")
        self._messages: list[Record] = []
        self._recorded_messages: set[str] = set()
        self._waiting_messages: dict[str, Record] = {}
        self._namer = MessageNamer()

    def run(self, items: Sequence[ScheduledRecord], until: int, isolated: bool) -> None:
        """Apply records in order, shard messages at once; then advance the time to `until`.

        `isolated`: one id in one partition without messages, so records are applied in whole batches.
        """
        groups = (
            [list(group) for _, group in groupby(items, lambda item: id(item.models))]
            if isolated
            else [[item] for item in items]
        )
        for group in groups:
            first = group[0]
            self._advance_time(first.clock)
            self._apply(first.record.partition, [item.record for item in group], 0, first.models)
            self._deliver_messages()
        self._advance_time(until)

    def replay(
        self, items_by_partition: Mapping[int, Sequence[ScheduledRecord]], end_clocks: Mapping[int, int]
    ) -> None:
        """Apply the records of each shard in their recorded order, shard messages at their recorded positions.

        The content of a message comes from the simulation. A recorded message that is not sent now is skipped; a
        message without a recorded position is delivered at once. Then the time advances to `end_clocks`, by partition.
        """
        left = {partition: deque(queue) for partition, queue in sorted(items_by_partition.items())}
        self._recorded_messages = {
            item.message for queue in items_by_partition.values() for item in queue if item.message
        }
        while any(left.values()):
            heads = [(item.clock, partition) for partition, queue in left.items() if queue for item in (queue[0],)]
            ready = [
                (clock, p)
                for clock, p in heads
                if not left[p][0].message or left[p][0].message in self._waiting_messages
            ]
            if not ready:
                left[min(heads)[1]].popleft()
                continue
            _, partition = min(ready)
            item = left[partition].popleft()
            record = item.record
            if item.message:
                record = record._replace(value=self._waiting_messages.pop(item.message).value)
            self._advance_time(item.clock, partition)
            if item.clock > record.log_time:
                self._apply(partition, (), item.clock, item.models)
            self._apply(partition, [record], 0, item.models)
            self._deliver_messages()
        for partition in sorted(self.shards):
            self._advance_time(end_clocks.get(partition, 0), partition)

    def _advance_time(self, until: int, only_partition: int = -1) -> None:
        """Fire everything due by `until`, in all shards or one, in order of time."""
        while True:
            due, partition = min(
                (
                    (due, p)
                    for p, shard in self.shards.items()
                    if only_partition in (-1, p)
                    if (due := shard.next_due()) is not None and due <= until
                ),
                default=(0, -1),
            )
            if partition < 0:
                return
            self._apply(partition, (), due, self.models_at(partition, due))
            self._deliver_messages()

    def _deliver_messages(self) -> None:
        while self._messages:
            messages, self._messages = self._messages, []
            for message in messages:
                self._apply(message.partition, [message], 0, self.models_at(message.partition, message.log_time))

    def _apply(self, partition: int, records: Sequence[Record], tick: int, models: LiveModels) -> None:
        """Apply one batch to one shard; queue its messages."""
        shard = self.shards.get(partition)
        if shard is None:
            shard = self.shards[partition] = Shard(
                partition, self._store, self.reactions.steps, self.partitions, CACHE_SIZE, self.counts, SIMULATED_SECRET
            )
        notes, began, bugs = self.reactions.entries, len(self.reactions.entries), len(shard.errors)
        shard.apply(records, tick, self.rules, models.model, models.quintiles)
        batch = WriteBatch()
        shard.stage(batch)
        self._store.commit(batch, ())
        if len(shard.errors) > bugs:  # applied again without the failed input: only staged effects count
            notes[began:] = _deduplicate(notes[began:], {row.id for row in batch.outbox_rows})
        for row in batch.outbox_rows:
            if row.stream == DEAD_LETTERS and len(self.dead_letters) < MAX_DEAD_LETTERS:
                self.dead_letters.append(dead_letter_codec.decode_dead_letter(row.body))
            elif row.stream == SHARD_MESSAGES:
                if self._recorded_messages and (place := self._namer.name_of(row.body)) in self._recorded_messages:
                    self._waiting_messages[place] = Record(
                        SHARD_MESSAGES, partition, 0, shard.checkpoint.clock, row.key, row.body
                    )
                    continue
                self.message_count += 1
                self._messages.append(
                    Record(
                        SHARD_MESSAGES,
                        partition_of(row.key, self.partitions),
                        self.message_count,
                        shard.checkpoint.clock,
                        row.key,
                        row.body,
                    )
                )

    def people(self) -> dict[str, Person]:
        """Return everyone in their final state, including merged ids."""
        return {key: person for _, shard in sorted(self.shards.items()) for key, person in shard.cache.resident.items()}


def resolve_person(key: str, people: Mapping[str, Person]) -> str:
    """Return the final person key, following merges.

    >>> resolve_person("a:x", {"a:x": Person(id="a:x", merged_into="u:ann")})
    'u:ann'
    """
    for _ in range(8):
        person = people.get(key)
        if person is None or not person.merged_into:
            break
        key = person.merged_into
    return key


def _deduplicate(entries: Iterable[TimelineEntry], staged: set[str]) -> list[TimelineEntry]:
    found: dict[object, TimelineEntry] = {}
    for note in entries:
        if note.effect is None:
            found[note.at, note.person, note.kind, note.delivery, id(note.event)] = note
        elif note.effect.id in staged:
            found[note.effect.id] = note
    return list(found.values())


StreamPartition = tuple[str, int]
"""(stream, partition)."""


class ModelHistory:
    """The model (by hash) that was live for a record, or at a time, in each partition.

    >>> first = BatchRecord(0, 0, 10, ((0, 1, 4),), 0, "r", "m1")
    >>> second = BatchRecord(0, 10, 20, ((0, 5, 9),), 0, "r", "m2")
    >>> models = ModelHistory([first, second])
    >>> models.for_record("clicks", 0, 4), models.for_record("clicks", 0, 5)
    ('m1', 'm2')
    >>> models.at_time(0, 10), models.at_time(0, 11), models.at_time(0, 99)
    ('m1', 'm2', 'm2')
    """

    def __init__(self, batch_records: Iterable[BatchRecord]) -> None:
        self.hashes: set[str] = set()
        self._changes: dict[tuple[str, int], tuple[list[int], list[str]]] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._last_model: dict[int, str] = {}
        for turn in batch_records:
            self._add(turn)

    def _add(self, batch_record: BatchRecord) -> None:
        partition = batch_record.partition
        if self._last_model.get(partition) != batch_record.model_hash:
            self._last_model[partition] = batch_record.model_hash
            self.hashes.add(batch_record.model_hash)
            for stream in SHARD_INPUT_STREAMS:
                self._add_change(
                    stream, partition, self._positions.get((stream, partition), -1), batch_record.model_hash
                )
            self._add_change("", partition, batch_record.clock_before, batch_record.model_hash)
        for stream_index, _, last in batch_record.offset_ranges:
            self._positions[SHARD_INPUT_STREAMS[stream_index], partition] = last

    def _add_change(self, stream: str, partition: int, after: int, model: str) -> None:
        bounds, models = self._changes.setdefault((stream, partition), ([], []))
        if bounds and bounds[-1] == after:
            models[-1] = model
        else:
            bounds.append(after)
            models.append(model)

    def for_record(self, stream: str, partition: int, offset: int) -> str:
        """Return the model a record was applied with; the last one if it was not applied yet, "" without any."""
        found = self._changes.get((stream, partition))
        if found is None:
            return ""
        return found[1][max(0, bisect_left(found[0], offset) - 1)]

    def at_time(self, partition: int, time: int) -> str:
        """Return the model that a timer of this time fired with."""
        return self.for_record("", partition, time)


class ClockedRecord(NamedTuple):
    """A record and the clock at which a live shard read it."""

    record: Record
    clock: int


def recorded_order(
    batch_records: Sequence[BatchRecord], records: Mapping[StreamPartition, Sequence[Record]]
) -> tuple[list[ClockedRecord], int]:
    """Return the records of one shard in reading order, and its final clock.

    `records` are those of the partition, by stream and in the order of offsets; records not read yet are left out.
    """
    found: list[ClockedRecord] = []
    at = dict.fromkeys(records, 0)
    clock = 0
    for turn in batch_records:
        clock = max(clock, turn.clock_before)
        for index, first, last in turn.offset_ranges:
            place = SHARD_INPUT_STREAMS[index], turn.partition
            rows = records.get(place, ())
            n = at.get(place, 0)
            while n < len(rows) and rows[n].offset <= last:
                if rows[n].offset >= first:
                    clock = max(clock, rows[n].log_time)
                    found.append(ClockedRecord(rows[n], clock))
                n += 1
            at[place] = n
        clock = max(clock, turn.clock_after)
    return found, clock
