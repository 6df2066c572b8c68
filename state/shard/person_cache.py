"""Person cache of a shard: which persons are in memory, which changed, and when each must be visited again.

A bounded number of persons is in memory; the others are bytes in the store. Changed persons are encoded once per batch.

The timer queue keeps the near due times in a heap and the others in the store. A person has one entry: the soonest of
their timers, *or earlier*. Moving a timer later costs nothing: the old entry comes due, and the entry is set again.
Moving it earlier replaces the entry.
"""

from collections import OrderedDict
from heapq import heapify, heappop, heappush

from state.person import codec
from state.person.model import Person
from state.store.store import Store, WriteBatch

LOAD_AHEAD = 60_000
PAGE_SIZE = 512


class TimerQueue:
    """A heap over the entries up to `_loaded_until`; `staged` holds what the next commit writes (None: delete)."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store = store
        self._partition = partition
        self.staged: dict[str, int | None] = {}
        self.reset()

    def reset(self) -> None:
        """Drop everything that is in memory and not committed."""
        self.staged.clear()
        self._heap: list[tuple[int, str]] = []
        self._near: dict[str, int] = {}
        self._loaded_until: tuple[int, str] = (-1, "")
        self._next_stored: int | None = -1

    def set(self, person: str, due: int) -> None:
        """Set the person's entry to `due`."""
        self.staged[person] = due
        if (due, person) <= self._loaded_until:
            self._near[person] = due
            heappush(self._heap, (due, person))
        else:
            self._near.pop(person, None)
            if self._next_stored is None or due < self._next_stored:
                self._next_stored = due

    def clear(self, person: str) -> None:
        """Delete the person's entry."""
        self.staged[person] = None
        self._near.pop(person, None)

    def due_time(self, person: str) -> int | None:
        """Return the person's entry, including staged changes."""
        if person in self.staged:
            return self.staged[person]
        return self._store.due_time(self._partition, person)

    def pop(self, clock: int) -> str | None:
        """Return the next person due at `clock`, in the order (due, person); None if there is none.

        The caller sets or clears the entry of this person before the next call.
        """
        while True:
            if not self._heap and not self._load_more(clock):
                return None
            due, person = self._heap[0]
            if due > clock:
                return None
            heappop(self._heap)
            if self._near.get(person) == due:
                return person

    def _load_more(self, clock: int) -> bool:
        """Load the entries up to a little after `clock` into the heap; return False if none is due by `clock`."""
        if self._loaded_until[0] > clock:
            return False
        self._next_stored = -1
        until = clock + LOAD_AHEAD
        found = self._store.due_persons(self._partition, self._loaded_until, until, PAGE_SIZE)
        upto = found[-1] if len(found) == PAGE_SIZE else (until, "\U0010ffff")
        merged = [entry for entry in found if entry[1] not in self.staged]
        merged += [
            (due, person)
            for person, due in self.staged.items()
            if due is not None and self._loaded_until < (due, person) <= upto
        ]
        self._loaded_until = upto
        self._near.update({person: due for due, person in merged})
        self._heap += merged
        heapify(self._heap)
        return bool(self._heap) or (self._loaded_until[0] <= clock and self._load_more(clock))

    def next_due(self) -> int | None:
        """Return when the next entry is due; reads the store only if the heap is empty."""
        while self._heap:
            due, person = self._heap[0]
            if self._near.get(person) == due:
                return due
            heappop(self._heap)
        if self._next_stored == -1:  # -1: unknown. Afterwards it can only be too early, which costs one lookup.
            staged = [due for due in self.staged.values() if due is not None]
            found = self._store.next_due(self._partition)
            self._next_stored = min([*staged, found] if found is not None else staged, default=None)
        return self._next_stored


CONSUMED = 1 << 62
"""Replaces an entry that came due, so that any remaining timer is entered again."""


class PersonCache:
    """The persons of one shard. `dirty` are those changed by the current batch."""

    def __init__(self, partition: int, store: Store, limit: int) -> None:
        self.timers = TimerQueue(store, partition)
        self.resident: OrderedDict[str, Person] = OrderedDict()
        self.dirty: dict[str, Person] = {}
        self._partition = partition
        self._store = store
        self._limit = limit
        self._next_timers: dict[str, int] = {}
        self._staged: dict[str, bytes] = {}

    def person(self, key: str) -> Person:
        """Return a person from memory, else from the store, else a new one."""
        person = self.resident.get(key)
        if person is not None:
            self.resident.move_to_end(key)
            return person
        stored = self._staged.get(key) or self._store.person(self._partition, key)
        person = Person(id=key) if stored is None else codec.decode(stored)
        self.resident[key] = person
        return person

    def peek(self, key: str) -> Person | None:
        """Return a person read-only, without loading it into the cache or creating it."""
        if (person := self.resident.get(key)) is not None:
            return person
        stored = self._staged.get(key) or self._store.person(self._partition, key)
        return codec.decode(stored) if stored is not None else None

    def person_ids(self, after: str, limit: int) -> list[str]:
        """Return at most `limit` person ids after `after`, in order, including uncommitted ones."""
        found = set(self._store.person_ids(self._partition, after, limit))
        found.update(key for key in self._staged if key > after)
        return sorted(found)[:limit]

    def next_timer(self, key: str) -> int:
        """Return a time before which no timer of this person is due (0: unknown)."""
        return self._next_timers.get(key, 0)

    def pop_due(self, clock: int) -> Person | None:
        """Return the next due person; call `reschedule` before the next call."""
        key = self.timers.pop(clock)
        if key is None:
            return None
        self._next_timers[key] = CONSUMED
        return self.person(key)

    def reschedule(self, person: Person) -> None:
        """Update the entry of a person whose timers fired."""
        if person.timers:
            self.schedule(person)
        else:
            self._next_timers.pop(person.id, None)
            self.timers.clear(person.id)

    def schedule(self, person: Person) -> None:
        """Keep the person's entry no later than their soonest timer.

        The entry must not depend on which persons are in memory: an early entry takes a place in a slice, so it decides
        which timers fire in this batch and which in the next.
        """
        due = min(person.timers.values())
        known = self._next_timers.get(person.id)
        if known is None:
            known = self.timers.due_time(person.id)
        if known is None or due < known:
            self.timers.set(person.id, due)
            known = due
        self._next_timers[person.id] = known

    def encode_dirty(self) -> dict[str, bytes]:
        """Return the changed persons as bytes."""
        return {key: codec.encode(person) for key, person in self.dirty.items()}

    def freeze(self, changed: dict[str, bytes]) -> None:
        """Keep the changed persons as bytes; from here on they cannot be rolled back."""
        self._staged.update(changed)
        self.dirty.clear()

    def rollback(self, due_times: dict[str, int | None]) -> None:
        """Drop every change since the last `freeze`; `due_times` are the entries that were staged then."""
        for key in self.dirty:
            self.resident.pop(key, None)
        self.dirty.clear()
        self._next_timers.clear()
        self.timers.reset()
        for key, due in due_times.items():
            self.timers.clear(key) if due is None else self.timers.set(key, due)

    def stage(self, batch: WriteBatch) -> None:
        """Move all changes into a batch; from here on they count as committed."""
        for key, value in self._staged.items():
            batch.persons[self._partition, key] = value
        for key, due in self.timers.staged.items():
            batch.due_times[self._partition, key] = due
        self._staged = {}
        self.timers.staged.clear()
        while len(self.resident) > self._limit:
            key, _ = self.resident.popitem(last=False)
            self._next_timers.pop(key, None)
