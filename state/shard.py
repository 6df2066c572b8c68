"""A shard: an actor over its partition.

    apply(records in log order, tick) -> what is staged        stage(batch) -> what the next commit writes

Pure inside: no clock, no network, no randomness. The clock is the log time of what was read and never runs back.
Before a record is applied to a person, their timers due by then have fired, each at its due time; other people's fire
in bounded slices at the end of a batch.

A bug in a step must not stop the flow: the shard puts the batch back as it was, sets the record aside as a reject, and
applies the rest again.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from domain.effect import Effect, Row, kind_of
from domain.event import Event, event_time
from domain.letter import Letter
from domain.model import Model, hashes
from domain.partition import partition_of
from domain.record import Record
from domain.streams import LETTERS, SHARD_INPUT
from state import desk, incoming, markers, seen
from state.context import AGAIN, Context, Due, Happening, Step, Unreadable
from state.incoming import Refused
from state.memory import Memory
from state.outbox import key_of, rejected, rejected_timer, row_of
from state.person import Person, routing_key
from state.rules import Rules
from state.store import ALWAYS, Batch, Head, Store, Turn
from state.sweep import PEOPLE_KEYS, SWEPT, stamp_of, turn_to
from state.tally import Tally, person_tag
from state.warmth import Warm, passed_on, warm

ALL = -2
"""In place of a record's index: the batch as a whole."""
SLICE = 10
"""Other people's timers that fire at the end of one batch; the rest follow in the next, and nobody waits for them."""
HELD = -1
"""In place of a tick: the clock does not tick, and other people's timers wait for another batch."""
MOST_AT_ONCE = 1_000
"""Timers of one person that fire at one instant; more is a step that sets its timer for now again and again."""
_STREAM_INDEX = {stream: n for n, stream in enumerate(SHARD_INPUT)}


class Shard:
    """One partition's persons, their timers and their place in the log."""

    def __init__(
        self, partition: int, store: Store, steps: Sequence[Step], partitions: int, hot: int,
        tally: Tally | None = None, secret: bytes = b"",
    ) -> None:
        self.partition = partition
        self.head: Head = store.head(partition)
        self.memory = Memory(partition, store, hot)
        self.tally = tally or Tally()
        self.bugs: list[str] = []
        self.warm: Warm = {}
        self._firing: tuple[str, str] | None = None
        self._latest = ""  # whose happening it was that was last gone through, in this batch
        self._poison_timers: set[tuple[str, str]] = set()
        self._steps = tuple(steps)
        self._partitions = partitions
        self._secret = secret
        self._opened = ""
        self._effects: list[tuple[Effect, bytes]] = []
        self._turns: list[Turn] = []
        self._rows: list[Row] = []
        self._context: Context | None = None

    # -- one batch ---------------------------------------------------------------------------------------------

    def apply(self, records: Sequence[Record], tick: int, rules: Rules, model: Model | None,
              quintiles: Model | None = None) -> None:
        """Apply records in the given order, then let the clock tick to `tick` (0 or HELD: it does not).

        What came of it is staged until `stage`. Records at or before the shard's position are skipped.
        """
        context = self._context
        if context is None:
            context = self._context = Context(self.partition, rules, model)
            context.partitions, context.secret, context.neighbour = self._partitions, self._secret, self._neighbour
        context.rules, context.model, context.quintiles = rules, model, quintiles
        context.letters, context.recorded = self.head.letters, self.head.recorded
        before = self.head
        kept_dues = dict(self.memory.dues.staged)
        poison: set[int] = set()
        careful = False
        self._poison_timers.clear()
        runs: list[list[int]]
        while True:
            self._firing, self._latest = None, ""
            self.head = Head(before.clock, dict(before.positions), before.letters, dict(before.history), before.rules,
                             before.sweep, before.recorded)
            turn_to(self.head, stamp_of(rules, quintiles))
            context.positions = self.head.positions
            index, runs = -1, []
            try:
                for index, record in enumerate(records):
                    if record.offset <= self.head.positions.get(record.stream, -1):
                        continue
                    self._note(runs, record)
                    if index in poison:
                        self._reject(record, "internal", "a step failed on this record; it was set aside")
                    else:
                        self._record(record, context)
                    if careful:
                        self._sealed()
                index = -1
                if runs or tick:  # else what happened then would stand in no turn
                    self._advance(tick, context)
                index = ALL
                self._seal()
                break
            except Exception as bug:  # the outermost edge of the steps: kept in `bugs`, told; its record is a reject
                self.bugs.append(f"{type(bug).__name__}: {bug}")
                if self._firing and self._firing not in self._poison_timers:
                    self._poison_timers.add(self._firing)
                elif not self._firing and index >= 0 and index not in poison:
                    poison.add(index)
                elif index == ALL and not careful:
                    careful = True  # something cannot be written down: look after each record which one it is
                else:
                    raise  # the shard itself fails: nothing can be set aside
                self._restore(before, kept_dues, context)
        if runs or tick:
            self._turns.append(Turn(self.partition, before.clock, self.head.clock, tuple((s, a, b) for s, a, b in runs),
                                    tick, rules.hash, hashes(model, quintiles)))
        self.head.letters = context.letters

    def _note(self, runs: list[list[int]], record: Record) -> None:
        """Move the clock and the position, and note the run."""
        head = self.head
        if record.log_time > head.clock:
            head.clock = record.log_time
        head.positions[record.stream] = record.offset
        stream = _STREAM_INDEX[record.stream]
        if runs and runs[-1][0] == stream:
            runs[-1][2] = record.offset
        else:
            runs.append([stream, record.offset, record.offset])
        self.tally.events[record.stream] += 1

    def _advance(self, tick: int, context: Context) -> None:
        """Move the clock on, if nothing recorded is still to come, and fire what is due, a slice of it."""
        if tick > self.head.clock and not self.head.history:
            self.head.clock = tick
        if self._opened != context.rules.short:
            self._opened = context.rules.short
            if desk.open_desks(context, self.head.clock):
                self._latest = ""
                self._tell(context)
        if tick == HELD:
            return
        for _ in range(SLICE):
            person = self.memory.due(self.head.clock)
            if person is None:
                break
            self._fire(person, context)
            self.memory.looked_at(person)
        if tick and self.head.sweep is not None:
            ids = self.memory.ids(self.head.sweep, SWEPT)
            for key in ids:
                self._visit(self.memory.person(key), context)
            self.head.sweep = ids[-1] if len(ids) == SWEPT else None

    def _visit(self, person: Person, context: Context) -> None:
        """The sweep has come to somebody. What was found of who became known as another is sent on there."""
        if person.alias_of:
            if found := self.warm.get(person.id):
                self._write(passed_on(person, found, f"playbook-{person_tag(person.id)}-{self.head.rules}"), context)
        elif not person.bot and person.id[:2] in PEOPLE_KEYS:
            self._look_again(person, context)
            self._settle(person, context, self.head.clock)

    def _look_again(self, person: Person, context: Context) -> None:
        """Look at somebody with another playbook than the one they were last looked at with. It is no occasion."""
        clock, name = self.head.clock, (person.id, "playbook:")
        if name in self._poison_timers:
            return
        self._firing = name
        if found := self.warm.get(person.id):
            warm(person, person.id, found)
        context.stream, context.offset = "", 0
        context.begin(f"playbook-{person_tag(person.id)}-{self.head.rules}-{clock}", clock, clock)
        self._steps_over(person, Due("playbook", self.head.rules, clock), context)
        self._firing = None

    def next_due(self) -> int | None:
        """When the next timer of this shard comes due, in ms."""
        return self.memory.dues.next()

    # -- one record --------------------------------------------------------------------------------------------

    def _record(self, record: Record, context: Context) -> None:
        if record.stream == LETTERS:
            self._letter(record, context)
            return
        if record.value.startswith(markers.START):
            self._history(record, context)
            return
        try:
            event, key = incoming.event_of(record.value)
        except Refused as wrong:
            self._reject(record, wrong.kind, str(wrong))
            return
        origin = f"{record.stream}-{record.partition}-{record.offset}"
        if key not in self.memory.hot and partition_of(routing_key(key), self._partitions) != self.partition:
            self.tally.events["misrouted"] += 1
            self._forward(f"s:{self.partition}", key, record.value, record.log_time, origin, context)
            return
        self._event(self.memory.person(key), event, record, origin, record.log_time, context)

    def _event(self, person: Person, event: Event, record: Record, origin: str, at: int, context: Context) -> None:
        """One event of one person; `at` is the log time by which the event's own time is corrected."""
        if person.alias_of:
            self._forward(person.id, person.alias_of, record.value, at, origin, context)
            self.memory.touched[person.id] = person
            return
        clock = self.head.clock
        if self.memory.entry(person.id) <= clock:
            self._fire(person, context)
        if seen.already(person, seen.digest(event.message_id or record.value), clock):
            self.tally.events["repeated"] += 1
            return
        if person.rules != context.rules.short and person.rules:
            self._look_again(person, context)
        context.stream, context.offset = record.stream, record.offset
        context.begin(origin, clock, event_time(event, min(at, clock)))
        try:
            self._steps_over(person, event, context)
        except Unreadable as wrong:
            self._reject(record, wrong.kind, str(wrong))
            self.memory.touched[person.id] = person
            return
        self._settle(person, context, clock)

    def _letter(self, record: Record, context: Context) -> None:
        try:
            letter = incoming.letter(record.value)
        except Refused as wrong:
            self._reject(record, wrong.kind, str(wrong))
            return
        person = self.memory.person(letter.to)
        if not incoming.is_news(person, letter):
            self.tally.events["repeated"] += 1
            return
        self.memory.touched[person.id] = person
        self._fire(person, context)
        origin = f"{record.stream}-{record.partition}-{record.offset}"
        if letter.kind == "forward":
            inner = record._replace(value=str(letter.body.get("value", "")).encode())
            try:
                event = incoming.event(inner.value)
            except Refused as wrong:
                self._reject(inner, wrong.kind, str(wrong))
                return
            at = letter.body.get("at")
            self._event(person, event, inner, origin, at if type(at) is int else record.log_time, context)
            return
        if letter.kind not in desk.KINDS and person.rules != context.rules.short and person.rules:
            self._look_again(person, context)
        context.begin(origin, self.head.clock, self.head.clock)
        if letter.kind in desk.KINDS:
            self._latest = person.id
            try:
                context.news += desk.read(person, letter, context, self.memory.index)
            except Unreadable as wrong:
                self._reject(record, wrong.kind, str(wrong))
            self._tell(context)
            return
        try:
            self._steps_over(person, letter, context)
        except Unreadable as wrong:
            self._reject(record, wrong.kind, str(wrong))
        self._settle(person, context, self.head.clock)

    def _history(self, record: Record, context: Context) -> None:
        """A marker of recorded days: how far they have been written, or that they ended."""
        try:
            markers.note(self.head.history, record.stream, record.value)
        except msgspec.DecodeError as wrong:
            self._reject(record, "unreadable", str(wrong))
            return
        self.head.recorded = context.recorded = ALWAYS if self.head.history else self.head.clock

    def _steps_over(self, person: Person, event: Happening, context: Context) -> None:
        effects = self._effects
        self._latest = person.id
        self.memory.touched[person.id] = person  # first: what a step that fails has changed is taken back too
        for step in self._steps:
            for effect in step(person, event, context):
                effects.append((effect, key_of(effect)))
        if context.news:
            self._tell(context)

    def _tell(self, context: Context) -> None:
        """Say what was asked for on the way."""
        self._effects += [(effect, key_of(effect)) for effect in context.news]
        context.news = []

    def _neighbour(self, key: str) -> Person:
        """Somebody else of this shard, who is changed with the person at hand: in one commit, or not at all."""
        person = self.memory.touched[key] = self.memory.person(key)
        return person

    def _fire(self, person: Person, context: Context, floor: int = 0) -> None:
        """Fire the person's timers due by the clock, in the order (due, kind, id), each at its due time."""
        timers = person.timers
        if not timers:
            return
        clock = self.head.clock
        if person.rules != context.rules.short and person.rules and min(timers.values()) <= clock:
            self._look_again(person, context)
            floor = clock
        fired = last = 0
        while timers:
            due, name = min((due, name) for name, due in timers.items())
            if due > clock:
                return
            del timers[name]
            kind, _, about = name.partition(":")
            at = floor = max(due, floor)
            fired, last = fired + 1 if at == last else 1, at
            context.stream, context.offset = "", 0
            if kind == "again" and self._latest == person.id:
                # What follows at once is named after what it follows: several happenings share a millisecond.
                origin = context.origin + AGAIN
            else:
                origin = f"timer-{person_tag(person.id)}-{name}-{due}" + (f"-{at}" if at > due else "")
            context.begin(origin, at, at)
            endless = fired > MOST_AT_ONCE
            if (person.id, name if not endless else "") in self._poison_timers:
                self._effects.append((rejected_timer(name, origin, self.partition, at), origin.encode()))
                self.memory.touched[person.id] = person
                continue
            self._firing = (person.id, name)
            if endless:
                self._poison_timers.add((person.id, ""))  # should it go on without this one, all the others end too
                raise RuntimeError(f"timers fired {fired:,} times at one instant, the last one was {kind}")
            self._steps_over(person, Due(kind, about, due), context)
            self._firing = None
            self.tally.events["timers"] += 1

    def _forward(self, sender: str, to: str, value: bytes, at: int, origin: str, context: Context) -> None:
        """Send a record on to the person it belongs to."""
        body = {"value": value.decode(), "at": at}
        self._write(Letter(kind="forward", sender=sender, to=to, seq=0, id=f"{origin}-forward-0", body=body), context)
        self.tally.events["forwarded"] += 1

    def _write(self, letter: Letter, context: Context) -> None:
        context.letters += 1
        self._effects.append((replace(letter, seq=context.letters), key_of(letter)))

    def _reject(self, record: Record, kind: str, because: str) -> None:
        origin = f"{record.stream}-{record.partition}-{record.offset}"
        self._effects.append((rejected(record, kind, because, self.head.clock), origin.encode()))

    def _settle(self, person: Person, context: Context, floor: int) -> None:
        """Fire what was set for now or earlier (it takes effect at `floor`), and note when to look again."""
        if person.timers and min(person.timers.values()) <= self.head.clock:
            self._fire(person, context, floor)
        if person.timers:
            self.memory.index(person)

    # -- staging -----------------------------------------------------------------------------------------------

    def _restore(self, before: Head, dues: dict[str, int | None], context: Context) -> None:
        """Put everything back as it was before the batch."""
        context.letters, context.recorded = before.letters, before.recorded
        self._effects.clear()
        self._opened = ""
        self.memory.take_back(dues)

    def _seal(self) -> None:
        """Turn what the last batch did into bytes and rows; all of it or, when something cannot be written, nothing."""
        persons, rows = self._sealed()
        self.memory.seal(persons)
        if rows:
            for effect, _ in self._effects:
                self.tally.kinds[kind_of(effect)] += 1
            self._effects.clear()
            self._rows += rows

    def _sealed(self) -> tuple[dict[str, bytes], list[Row]]:
        """What changed, as bytes and rows."""
        head, here = self.head, self.partition
        return self.memory.sealed(), [
            row_of(effect, key, head.clock, head.recorded, here) for effect, key in self._effects]

    def stage(self, batch: Batch) -> None:
        """Hand over what is to be committed; from now on it counts as committed."""
        self.memory.stage(batch)
        batch.heads[self.partition] = self.head
        batch.rows += self._rows
        batch.turns += self._turns
        self._rows, self._turns = [], []
        self.warm = self.warm if self.head.sweep is not None else {}
