"""A shard: applies the records of its partition to persons.

    apply(records in log order, tick) -> staged changes        stage(batch) -> written by the next commit

The shard has no clock of its own, no network and no randomness. The clock is the log time of the records and never runs
backwards. Before a record is applied to a person, their due timers fire, each at its due time. Timers of other persons
fire in bounded slices at the end of a batch.

An error in a step does not stop the flow: the shard rolls the batch back, sends the record to the dead letters, and
applies the rest again.

Effects are encoded as outbox rows in the same commit as their cause, and sent afterwards:

>>> from domain.action import ShardMessage
>>> message = ShardMessage(kind="merge_request", sender="u:a", recipient="a:x", seq=1, id="i")
>>> row = outbox_row(message, b"x", 5, 0)
>>> row.stream, row.at, row.body
('shard-messages', 5, b'{"kind":"merge_request","sender":"u:a","recipient":"a:x","seq":1,"id":"i"}')
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from domain.action import Effect, OutboxRow, ShardMessage, effect_kind, effect_stream
from domain.event import Event, event_time
from domain.model import Model, join_hashes
from domain.record import SHARD_INPUT_STREAMS, SHARD_MESSAGES, DeadLetter, Record, partition_of, redact_bytes
from state.context import CONTINUE_SUFFIX, Input, InvalidEvent, StepContext, StepFunction, TimerFired
from state.coupons import leasing
from state.person import dedup
from state.person.model import Person, routing_key
from state.playbook.compiled import Rules
from state.shard import inbox
from state.shard.backfill import BackfilledCounters, apply_backfill, backfill_message
from state.shard.counts import ShardCounts, person_hash
from state.shard.inbox import InvalidRecord
from state.shard.person_cache import PersonCache
from state.shard.reevaluation import PERSON_PREFIXES, PERSONS_PER_TICK, playbook_stamp, start_reevaluation
from state.store.store import HISTORY_OPEN, BatchRecord, ShardCheckpoint, Store, WriteBatch

_encode_effect = msgspec.json.Encoder().encode


def record_key(effect: Effect) -> bytes:
    """Return the record key of an effect."""
    if isinstance(effect, ShardMessage):
        return routing_key(effect.recipient)
    if isinstance(effect, DeadLetter):
        return effect.id.encode()
    return routing_key(effect.person)


def dead_letter(record: Record, kind: str, reason: str, at: int) -> DeadLetter:
    """Return the dead letter of a record, with the beginning of its content, without personal data."""
    return DeadLetter(
        id=f"{record.stream}-{record.partition}-{record.offset}-dead_letter-0",
        stream=record.stream,
        partition=record.partition,
        offset=record.offset,
        kind=kind,
        reason=reason[:512],
        raw=redact_bytes(record.value),
        at=at,
    )


def timer_dead_letter(name: str, origin: str, partition: int, at: int) -> DeadLetter:
    """Return the dead letter of a timer at which a step fails."""
    return DeadLetter(
        id=f"{origin}-dead_letter-0",
        stream="",
        partition=partition,
        offset=0,
        kind="internal_error",
        reason=f"a step failed at timer {name}",
        at=at,
    )


def outbox_row(effect: Effect, key: bytes, at: int, history_until: int, shard: int = -1) -> OutboxRow:
    """Return an effect as an outbox row; `at` (ms) is the clock, for effects without a time.

    Effects up to `history_until` belong to a history import.
    """
    at = getattr(effect, "at", at)
    return OutboxRow(
        0, effect.id, effect_stream(effect), key, at, int(at <= history_until), _encode_effect(effect), shard
    )


WHOLE_BATCH = -2
"""Replaces the record index: the batch as a whole."""
TIMERS_PER_BATCH = 10
"""Persons whose timers fire at the end of one batch; the rest follow in the next batches."""
NO_TICK = -1
"""Replaces a tick: the clock does not advance, and timers of other persons wait."""
MAX_TIMERS_AT_ONCE = 1_000
"""Timers of one person that fire at one instant; more indicates a step that keeps setting a timer to now."""
_STREAM_INDEX = {stream: n for n, stream in enumerate(SHARD_INPUT_STREAMS)}


class Shard:
    """The persons of one partition, their timers, and the positions in the log."""

    def __init__(
        self,
        partition: int,
        store: Store,
        steps: Sequence[StepFunction],
        partitions: int,
        cache_size: int,
        counts: ShardCounts | None = None,
        secret: bytes = b"",
    ) -> None:
        self.partition = partition
        self.checkpoint: ShardCheckpoint = store.shard_checkpoint(partition)
        self.cache = PersonCache(partition, store, cache_size)
        self.counts = counts or ShardCounts()
        self.errors: list[str] = []
        self.backfilled: BackfilledCounters = {}
        self._current_timer: tuple[str, str] | None = None
        self._last_person = ""  # the person of the last input in this batch
        self._poison_timers: set[tuple[str, str]] = set()
        self._steps = tuple(steps)
        self._partitions = partitions
        self._secret = secret
        self._opened_playbook = ""
        self._effects: list[tuple[Effect, bytes]] = []
        self._batch_records: list[BatchRecord] = []
        self._outbox_rows: list[OutboxRow] = []
        self._context: StepContext | None = None

    # -- one batch ---------------------------------------------------------------------------------------------

    def apply(
        self, records: Sequence[Record], tick: int, rules: Rules, model: Model | None, quintiles: Model | None = None
    ) -> None:
        """Apply records in the given order, then advance the clock to `tick` (0 or NO_TICK: no advance).

        The changes are kept until `stage`. Records at or before the shard's position are skipped.
        """
        context = self._context
        if context is None:
            context = self._context = StepContext(self.partition, rules, model)
            context.partitions, context.secret, context.sibling = self._partitions, self._secret, self._sibling
        context.rules, context.model, context.quintiles = rules, model, quintiles
        context.message_seq, context.history_until = self.checkpoint.message_seq, self.checkpoint.history_until
        before = self.checkpoint
        staged_due_times = dict(self.cache.timers.staged)
        poison: set[int] = set()
        encode_each = False
        self._poison_timers.clear()
        ranges: list[list[int]]
        while True:
            self._current_timer, self._last_person = None, ""
            self.checkpoint = ShardCheckpoint(
                before.clock,
                dict(before.positions),
                before.message_seq,
                dict(before.history_reached),
                before.playbook_stamp,
                before.reevaluated_to,
                before.history_until,
            )
            start_reevaluation(self.checkpoint, playbook_stamp(rules, quintiles))
            context.positions = self.checkpoint.positions
            index, ranges = -1, []
            try:
                for index, record in enumerate(records):
                    if record.offset <= self.checkpoint.positions.get(record.stream, -1):
                        continue
                    self._advance_offset(ranges, record)
                    if index in poison:
                        self._dead_letter(record, "internal_error", "a step failed on this record")
                    else:
                        self._apply_record(record, context)
                    if encode_each:
                        self._encode_changes()
                index = -1
                if ranges or tick:  # without either there is no batch record
                    self._advance_clock(tick, context)
                index = WHOLE_BATCH
                self._stage_changes()
                break
            except (
                Exception
            ) as error:  # outermost handler of step errors: reported, and the record becomes a dead letter
                self.errors.append(f"{type(error).__name__}: {error}")
                if self._current_timer and self._current_timer not in self._poison_timers:
                    self._poison_timers.add(self._current_timer)
                elif not self._current_timer and index >= 0 and index not in poison:
                    poison.add(index)
                elif index == WHOLE_BATCH and not encode_each:
                    encode_each = True  # something cannot be encoded: find the record by encoding after each one
                else:
                    raise  # an error of the shard itself
                self._rollback(before, staged_due_times, context)
        if ranges or tick:
            self._batch_records.append(
                BatchRecord(
                    self.partition,
                    before.clock,
                    self.checkpoint.clock,
                    tuple((s, a, b) for s, a, b in ranges),
                    tick,
                    rules.hash,
                    join_hashes(model, quintiles),
                )
            )
        self.checkpoint.message_seq = context.message_seq

    def _advance_offset(self, ranges: list[list[int]], record: Record) -> None:
        """Advance the clock and the position, and store the offset range."""
        head = self.checkpoint
        if record.log_time > head.clock:
            head.clock = record.log_time
        head.positions[record.stream] = record.offset
        stream = _STREAM_INDEX[record.stream]
        if ranges and ranges[-1][0] == stream:
            ranges[-1][2] = record.offset
        else:
            ranges.append([stream, record.offset, record.offset])
        self.counts.events[record.stream] += 1

    def _advance_clock(self, tick: int, context: StepContext) -> None:
        """Advance the clock unless a history import is running, and fire a slice of the due timers."""
        if tick > self.checkpoint.clock and not self.checkpoint.history_reached:
            self.checkpoint.clock = tick
        if self._opened_playbook != context.rules.short_hash:
            self._opened_playbook = context.rules.short_hash
            if leasing.prefetch(context, self.checkpoint.clock):
                self._last_person = ""
                self._flush_emitted(context)
        if tick == NO_TICK:
            return
        for _ in range(TIMERS_PER_BATCH):
            person = self.cache.pop_due(self.checkpoint.clock)
            if person is None:
                break
            self._fire_timers(person, context)
            self.cache.reschedule(person)
        if tick and self.checkpoint.reevaluated_to is not None:
            ids = self.cache.person_ids(self.checkpoint.reevaluated_to, PERSONS_PER_TICK)
            for key in ids:
                self._reevaluate_next(self.cache.person(key), context)
            self.checkpoint.reevaluated_to = ids[-1] if len(ids) == PERSONS_PER_TICK else None

    def _reevaluate_next(self, person: Person, context: StepContext) -> None:
        """Re-evaluate a person; forward the backfilled counters of a merged id to its target."""
        if person.merged_into:
            if found := self.backfilled.get(person.id):
                self._send_message(
                    backfill_message(
                        person, found, f"playbook-{person_hash(person.id)}-{self.checkpoint.playbook_stamp}"
                    ),
                    context,
                )
        elif not person.bot and person.id[:2] in PERSON_PREFIXES:
            self._reevaluate(person, context)
            self._fire_and_reschedule(person, context, self.checkpoint.clock)

    def _reevaluate(self, person: Person, context: StepContext) -> None:
        """Re-evaluate a person under the new playbook. Fires no triggers."""
        clock, name = self.checkpoint.clock, (person.id, "playbook:")
        if name in self._poison_timers:
            return
        self._current_timer = name
        if found := self.backfilled.get(person.id):
            apply_backfill(person, person.id, found)
        context.stream, context.offset = "", 0
        context.start_input(f"playbook-{person_hash(person.id)}-{self.checkpoint.playbook_stamp}-{clock}", clock, clock)
        self._run_steps(person, TimerFired("playbook", self.checkpoint.playbook_stamp, clock), context)
        self._current_timer = None

    def next_due(self) -> int | None:
        """Return when the next timer of this shard is due, in ms."""
        return self.cache.timers.next_due()

    # -- one record --------------------------------------------------------------------------------------------

    def _apply_record(self, record: Record, context: StepContext) -> None:
        if record.stream == SHARD_MESSAGES:
            self._apply_message(record, context)
            return
        if record.value.startswith(inbox.MARKER_PREFIX):
            self._apply_marker(record, context)
            return
        try:
            event, key = inbox.read_event(record.value)
        except InvalidRecord as error:
            self._dead_letter(record, error.kind, str(error))
            return
        origin = f"{record.stream}-{record.partition}-{record.offset}"
        if key not in self.cache.resident and partition_of(routing_key(key), self._partitions) != self.partition:
            self.counts.events["misrouted"] += 1
            self._forward(f"s:{self.partition}", key, record.value, record.log_time, origin, context)
            return
        self._apply_event(self.cache.person(key), event, record, origin, record.log_time, context)

    def _apply_event(
        self, person: Person, event: Event, record: Record, origin: str, at: int, context: StepContext
    ) -> None:
        """Apply one event of one person; `at` is the log time by which the event's own time is corrected."""
        if person.merged_into:
            self._forward(person.id, person.merged_into, record.value, at, origin, context)
            self.cache.dirty[person.id] = person
            return
        clock = self.checkpoint.clock
        if self.cache.next_timer(person.id) <= clock:
            self._fire_timers(person, context)
        if dedup.check_duplicate(person, dedup.digest(event.message_id or record.value), clock):
            self.counts.events["duplicate"] += 1
            return
        if person.playbook_hash != context.rules.short_hash and person.playbook_hash:
            self._reevaluate(person, context)
        context.stream, context.offset = record.stream, record.offset
        context.start_input(origin, clock, event_time(event, min(at, clock)))
        try:
            self._run_steps(person, event, context)
        except InvalidEvent as error:
            self._dead_letter(record, error.kind, str(error))
            self.cache.dirty[person.id] = person
            return
        self._fire_and_reschedule(person, context, clock)

    def _apply_message(self, record: Record, context: StepContext) -> None:
        try:
            message = inbox.decode_message(record.value)
        except InvalidRecord as error:
            self._dead_letter(record, error.kind, str(error))
            return
        person = self.cache.person(message.recipient)
        if not inbox.accept_message(person, message):
            self.counts.events["duplicate"] += 1
            return
        self.cache.dirty[person.id] = person
        self._fire_timers(person, context)
        origin = f"{record.stream}-{record.partition}-{record.offset}"
        if message.kind == "forward":
            inner = record._replace(value=str(message.body.get("value", "")).encode())
            try:
                event = inbox.decode_event(inner.value)
            except InvalidRecord as error:
                self._dead_letter(inner, error.kind, str(error))
                return
            at = message.body.get("at")
            self._apply_event(person, event, inner, origin, at if type(at) is int else record.log_time, context)
            return
        if (
            message.kind not in leasing.MESSAGE_KINDS
            and person.playbook_hash != context.rules.short_hash
            and person.playbook_hash
        ):
            self._reevaluate(person, context)
        context.start_input(origin, self.checkpoint.clock, self.checkpoint.clock)
        if message.kind in leasing.MESSAGE_KINDS:
            self._last_person = person.id
            try:
                context.emitted += leasing.handle_message(person, message, context, self.cache.schedule)
            except InvalidEvent as error:
                self._dead_letter(record, error.kind, str(error))
            self._flush_emitted(context)
            return
        try:
            self._run_steps(person, message, context)
        except InvalidEvent as error:
            self._dead_letter(record, error.kind, str(error))
        self._fire_and_reschedule(person, context, self.checkpoint.clock)

    def _apply_marker(self, record: Record, context: StepContext) -> None:
        """Apply a marker of a history import: its progress, or its end."""
        try:
            inbox.update_history(self.checkpoint.history_reached, record.stream, record.value)
        except msgspec.DecodeError as error:
            self._dead_letter(record, "invalid", str(error))
            return
        self.checkpoint.history_until = context.history_until = (
            HISTORY_OPEN if self.checkpoint.history_reached else self.checkpoint.clock
        )

    def _run_steps(self, person: Person, event: Input, context: StepContext) -> None:
        effects = self._effects
        self._last_person = person.id
        self.cache.dirty[person.id] = person  # first, so that changes of a failing step are rolled back too
        for step in self._steps:
            for effect in step(person, event, context):
                effects.append((effect, record_key(effect)))
        if context.emitted:
            self._flush_emitted(context)

    def _flush_emitted(self, context: StepContext) -> None:
        """Add the additional effects that steps emitted."""
        self._effects += [(effect, record_key(effect)) for effect in context.emitted]
        context.emitted = []

    def _sibling(self, key: str) -> Person:
        """Return another person of this shard, to be changed in the same commit."""
        person = self.cache.dirty[key] = self.cache.person(key)
        return person

    def _fire_timers(self, person: Person, context: StepContext, not_before: int = 0) -> None:
        """Fire the person's timers due by the clock, in the order (due, name), each at its due time."""
        timers = person.timers
        if not timers:
            return
        clock = self.checkpoint.clock
        if person.playbook_hash != context.rules.short_hash and person.playbook_hash and min(timers.values()) <= clock:
            self._reevaluate(person, context)
            not_before = clock
        fired = last = 0
        while timers:
            due, name = min((due, name) for name, due in timers.items())
            if due > clock:
                return
            del timers[name]
            kind, _, timer_id = name.partition(":")
            at = not_before = max(due, not_before)
            fired, last = fired + 1 if at == last else 1, at
            context.stream, context.offset = "", 0
            if kind == "again" and self._last_person == person.id:
                # A continuation is named after its input: several inputs may share a millisecond.
                origin = context.input_id + CONTINUE_SUFFIX
            else:
                origin = f"timer-{person_hash(person.id)}-{name}-{due}" + (f"-{at}" if at > due else "")
            context.start_input(origin, at, at)
            endless = fired > MAX_TIMERS_AT_ONCE
            if (person.id, name if not endless else "") in self._poison_timers:
                self._effects.append((timer_dead_letter(name, origin, self.partition, at), origin.encode()))
                self.cache.dirty[person.id] = person
                continue
            self._current_timer = (person.id, name)
            if endless:
                self._poison_timers.add(
                    (person.id, "")
                )  # block all timers of this person, should it continue without this one
                raise RuntimeError(f"timers fired {fired:,} times at one instant, the last one was {kind}")
            self._run_steps(person, TimerFired(kind, timer_id, due), context)
            self._current_timer = None
            self.counts.events["timer_fired"] += 1

    def _forward(self, sender: str, to: str, value: bytes, at: int, origin: str, context: StepContext) -> None:
        """Forward a record to the person it belongs to."""
        body = {"value": value.decode(), "at": at}
        self._send_message(
            ShardMessage(kind="forward", sender=sender, recipient=to, seq=0, id=f"{origin}-forward-0", body=body),
            context,
        )
        self.counts.events["forwarded"] += 1

    def _send_message(self, message: ShardMessage, context: StepContext) -> None:
        context.message_seq += 1
        self._effects.append((replace(message, seq=context.message_seq), record_key(message)))

    def _dead_letter(self, record: Record, kind: str, reason: str) -> None:
        origin = f"{record.stream}-{record.partition}-{record.offset}"
        self._effects.append((dead_letter(record, kind, reason, self.checkpoint.clock), origin.encode()))

    def _fire_and_reschedule(self, person: Person, context: StepContext, not_before: int) -> None:
        """Fire the timers set for now or earlier (effective at `not_before`), and schedule the next one."""
        if person.timers and min(person.timers.values()) <= self.checkpoint.clock:
            self._fire_timers(person, context, not_before)
        if person.timers:
            self.cache.schedule(person)

    # -- staging -----------------------------------------------------------------------------------------------

    def _rollback(self, before: ShardCheckpoint, due_times: dict[str, int | None], context: StepContext) -> None:
        """Restore the state before the batch."""
        context.message_seq, context.history_until = before.message_seq, before.history_until
        self._effects.clear()
        self._opened_playbook = ""
        self.cache.rollback(due_times)

    def _stage_changes(self) -> None:
        """Encode all changes of the batch; if anything cannot be encoded, stage nothing."""
        persons, rows = self._encode_changes()
        self.cache.freeze(persons)
        if rows:
            for effect, _ in self._effects:
                self.counts.effects[effect_kind(effect)] += 1
            self._effects.clear()
            self._outbox_rows += rows

    def _encode_changes(self) -> tuple[dict[str, bytes], list[OutboxRow]]:
        """Return the changed persons as bytes and the effects as rows."""
        head, here = self.checkpoint, self.partition
        return self.cache.encode_dirty(), [
            outbox_row(effect, key, head.clock, head.history_until, here) for effect, key in self._effects
        ]

    def stage(self, batch: WriteBatch) -> None:
        """Move all changes into a batch; from here on they count as committed."""
        self.cache.stage(batch)
        batch.checkpoints[self.partition] = self.checkpoint
        batch.outbox_rows += self._outbox_rows
        batch.batch_records += self._batch_records
        self._outbox_rows, self._batch_records = [], []
        self.backfilled = self.backfilled if self.checkpoint.reevaluated_to is not None else {}
