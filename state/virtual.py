"""Virtual time: a few people who belong together, in shards of their own, as fast as their records can be read.

    records in order of (log time, stream, offset) ─▶ Shard.apply ─▶ what was noted
                    letters ◀───────── at once ────────────┘

Timers fire exactly at their due times. A shard here is a real one over a store of nothing (`Scratch`), so all that goes
for the live engine goes here: forwarded records, repeats, rejects.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from domain import letter as letters
from domain import reject as rejects
from domain.effect import Row
from domain.model import Model
from domain.partition import partition_of
from domain.record import Record
from domain.reject import Reject
from domain.streams import LETTERS, REJECTS
from state import codec
from state.desk import SOLD_OUT
from state.person import Desk, Person
from state.reactions import Note, Reactions
from state.rules import Rules
from state.shard import Shard
from state.store import Batch, Head, Turn
from state.tally import Tally

HOT = 1 << 30
"""Nobody has to make room: there are few of them."""
MOST_REFUSED = 100
"""Records that could not be read which are kept, of one household."""

CODES = 50
"""Codes that every desk has from the beginning, where desks are stocked."""
SECRET = b"rehearsal"
"""In place of the shop's: codes of coupons that are made up in a rehearsal are good for nothing."""


class Learned(NamedTuple):
    """The models that are live together: of visits, and the population's fifths."""

    model: Model | None = None
    quintiles: Model | None = None


class Item(NamedTuple):
    """A record to apply; at the clock of the live shard, where that is known; with the models that were live then.

    `letter` names the letter that stood at this place (`Numbers`).
    """

    record: Record
    clock: int
    learned: Learned
    letter: str = ""


class Numbers:
    """Names letters by who writes to whom about what, and how many of these there were before.

    (An id does not tell which letters answer each other: it counts what a step decided besides.)

    >>> numbers, letter = Numbers(), letters.encode(letters.Letter(kind="claim", sender="u:a", to="a:x", seq=7, id="i"))
    >>> numbers.place(letter), numbers.place(letter)
    ('claim u:a a:x 0', '')
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def place(self, value: bytes) -> str:
        """The name of a letter; empty when it was written before."""
        letter = letters.decode(value)
        between = f"{letter.kind} {letter.sender} {letter.to}"
        known = self._known.setdefault(between, set())
        if letter.id in known:
            return ""
        known.add(letter.id)
        return f"{between} {len(known) - 1}"


class Scratch:
    """A store that lasts as long as the rehearsal of a few people. See state.store.Store.

    With the name of a playbook in `stocked`, desks of coupons have codes from the beginning (`state/desk.py`).
    """

    def __init__(self, stocked: str = "") -> None:
        self._stocked = stocked
        self._persons: dict[tuple[int, str], bytes | None] = {}
        self._dues: dict[tuple[int, str], int | None] = {}

    def claim(self, partitions: Sequence[int], owner: str) -> None:
        """Nobody else is here."""

    def head(self, partition: int) -> Head:
        return Head()

    def person(self, partition: int, person: str) -> bytes | None:
        if person[:2] == "d:" and self._stocked:
            return self._persons.get((partition, person)) or _stock(person, self._stocked)
        return self._persons.get((partition, person))

    def ids(self, partition: int, after: str, limit: int) -> list[str]:
        return sorted(person for at, person in self._persons if at == partition and person > after)[:limit]

    def dues(self, partition: int, after: tuple[int, str], until: int, limit: int) -> list[tuple[int, str]]:
        found = [(due, person) for (at, person), due in self._dues.items()
                 if at == partition and due is not None and after < (due, person) and due <= until]
        return sorted(found)[:limit]

    def due(self, partition: int, person: str) -> int | None:
        return self._dues.get((partition, person))

    def next_due(self, partition: int) -> int | None:
        return min((due for (at, _), due in self._dues.items() if at == partition and due is not None), default=None)

    def commit(self, batch: Batch, sent: Sequence[int]) -> int:
        self._persons.update(batch.persons)
        self._dues.update(batch.dues)
        return 0

    def outbox(self) -> list[Row]:
        return []

    def turns(self, partition: int) -> list[Turn]:
        return []

    def keep(self, kind: str, hash: str, content: bytes) -> None:
        """Nothing outlives a rehearsal."""

    def note(self, kind: str, name: str, content: bytes) -> None:
        """Nothing outlives a rehearsal."""

    def kept(self, kind: str, hash: str) -> bytes | None:
        return None

    def tidy(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to close."""


@lru_cache(4_096)
def _stock(desk: str, playbook: str) -> bytes:
    """A desk with some codes, which asks for no more: nobody has to wait for a letter."""
    codes = [f"REHEARSED-{n}" for n in range(CODES)]
    return codec.encode(Person(id=desk, desk=Desk(codes=codes, shut=SOLD_OUT, shut_by=playbook)))


class Household:
    """People who share ids. `learned_at(partition, time)` is what was live when a timer came due.

    `stocked`: desks of coupons have codes, so that no letters go about them.
    """

    def __init__(self, reactions: Reactions, rules: Rules, partitions: int,
                 learned_at: Callable[[int, int], Learned], tally: Tally | None = None,
                 stocked: bool = False) -> None:
        self.reactions, self.rules, self.partitions, self.learned_at = reactions, rules, partitions, learned_at
        self.tally = tally or Tally()
        self.shards: dict[int, Shard] = {}
        self.letters = 0
        self.refused: list[Reject] = []
        """What could not be read, the first of it."""
        self._store = Scratch(rules.short if stocked else "")
        self._mail: list[Record] = []
        self._places: set[str] = set()
        self._kept: dict[str, Record] = {}
        self._numbers = Numbers()

    def live(self, items: Sequence[Item], until: int, alone: bool) -> None:
        """Apply records in their order, letters at once; then let time pass until `until`.

        `alone` says that it is one id in one partition: nobody is there to write a letter to, so that records go in
        whole batches.
        """
        groups = ([list(group) for _, group in groupby(items, lambda item: id(item.learned))] if alone
                  else [[item] for item in items])
        for group in groups:
            first = group[0]
            self._pass(first.clock)
            self._apply(first.record.partition, [item.record for item in group], 0, first.learned)
            self._deliver()
        self._pass(until)

    def follow(self, ways: Mapping[int, Sequence[Item]], ends: Mapping[int, int]) -> None:
        """Apply what each shard read, in the order in which it read it, letters at their recorded places.

        A letter is the one that is written now; a place whose letter is not written now is passed over, and a letter
        that has no place is delivered at once. Then time passes until `ends`, by partition.
        """
        left = {partition: deque(way) for partition, way in sorted(ways.items())}
        self._places = {item.letter for way in ways.values() for item in way if item.letter}
        while any(left.values()):
            heads = [(item.clock, partition) for partition, way in left.items() if way for item in (way[0],)]
            ready = [(clock, p) for clock, p in heads if not left[p][0].letter or left[p][0].letter in self._kept]
            if not ready:
                left[min(heads)[1]].popleft()
                continue
            _, partition = min(ready)
            item = left[partition].popleft()
            record = item.record
            if item.letter:
                record = record._replace(value=self._kept.pop(item.letter).value)
            self._pass(item.clock, partition)
            if item.clock > record.log_time:
                self._apply(partition, (), item.clock, item.learned)
            self._apply(partition, [record], 0, item.learned)
            self._deliver()
        for partition in sorted(self.shards):
            self._pass(ends.get(partition, 0), partition)

    def _pass(self, until: int, only: int = -1) -> None:
        """Time passes: whatever comes due by then, wherever (or in one shard), in the order of time."""
        while True:
            due, partition = min(((due, p) for p, shard in self.shards.items() if only in (-1, p)
                                  if (due := shard.next_due()) is not None and due <= until), default=(0, -1))
            if partition < 0:
                return
            self._apply(partition, (), due, self.learned_at(partition, due))
            self._deliver()

    def _deliver(self) -> None:
        while self._mail:
            mail, self._mail = self._mail, []
            for letter in mail:
                self._apply(letter.partition, [letter], 0, self.learned_at(letter.partition, letter.log_time))

    def _apply(self, partition: int, records: Sequence[Record], tick: int, learned: Learned) -> None:
        """One batch of one shard; its letters are put into the mail."""
        shard = self.shards.get(partition)
        if shard is None:
            shard = self.shards[partition] = Shard(
                partition, self._store, self.reactions.steps, self.partitions, HOT, self.tally, SECRET)
        notes, began, bugs = self.reactions.notes, len(self.reactions.notes), len(shard.bugs)
        shard.apply(records, tick, self.rules, learned.model, learned.quintiles)
        batch = Batch()
        shard.stage(batch)
        self._store.commit(batch, ())
        if len(shard.bugs) > bugs:  # it was applied again, without what failed: what counts is what was staged
            notes[began:] = _once(notes[began:], {row.id for row in batch.rows})
        for row in batch.rows:
            if row.stream == REJECTS and len(self.refused) < MOST_REFUSED:
                self.refused.append(rejects.decode(row.body))
            elif row.stream == LETTERS:
                if self._places and (place := self._numbers.place(row.body)) in self._places:
                    self._kept[place] = Record(LETTERS, partition, 0, shard.head.clock, row.key, row.body)
                    continue
                self.letters += 1
                self._mail.append(Record(LETTERS, partition_of(row.key, self.partitions), self.letters,
                                         shard.head.clock, row.key, row.body))

    def people(self) -> dict[str, Person]:
        """Everybody, as they are at last; those who became known as somebody else too."""
        return {key: person for _, shard in sorted(self.shards.items()) for key, person in shard.memory.hot.items()}


def whose(key: str, people: Mapping[str, Person]) -> str:
    """Who somebody is at last: follows the ids that became known as another.

    >>> whose("a:x", {"a:x": Person(id="a:x", alias_of="u:ann")})
    'u:ann'
    """
    for _ in range(8):
        person = people.get(key)
        if person is None or not person.alias_of:
            break
        key = person.alias_of
    return key


def _once(notes: Iterable[Note], staged: set[str]) -> list[Note]:
    found: dict[object, Note] = {}
    for note in notes:
        if note.effect is None:
            found[note.at, note.person, note.what, note.about, id(note.event)] = note
        elif note.effect.id in staged:
            found[note.effect.id] = note
    return list(found.values())
