"""Which persons of a shard are in memory, which of them changed, and when each must be looked at again.

A bounded number stays hot; the others are bytes in the store. What changed is turned into bytes once a batch.
"""

from collections import OrderedDict

from state import codec
from state.dues import Dues
from state.person import Person
from state.store import Batch, Store

USED_UP = 1 << 62
"""In place of an entry: it has come due, and whatever timer there is then is entered anew."""


class Memory:
    """The persons of one shard. `touched` are those the current batch has changed."""

    def __init__(self, partition: int, store: Store, limit: int) -> None:
        self.dues = Dues(store, partition)
        self.hot: OrderedDict[str, Person] = OrderedDict()
        self.touched: dict[str, Person] = {}
        self._partition = partition
        self._store = store
        self._limit = limit
        self._entry: dict[str, int] = {}
        self._staged: dict[str, bytes] = {}

    def person(self, key: str) -> Person:
        """The person of this key: hot, else from the store, else new."""
        person = self.hot.get(key)
        if person is not None:
            self.hot.move_to_end(key)
            return person
        kept = self._staged.get(key) or self._store.person(self._partition, key)
        person = Person(id=key) if kept is None else codec.decode(kept)
        self.hot[key] = person
        return person

    def glance(self, key: str) -> Person | None:
        """The person of this key as they are now, to be looked at only: nobody becomes hot by it, or is made."""
        if (person := self.hot.get(key)) is not None:
            return person
        kept = self._staged.get(key) or self._store.person(self._partition, key)
        return codec.decode(kept) if kept is not None else None

    def ids(self, after: str, limit: int) -> list[str]:
        """The ids of persons behind `after`, in order, at most `limit`; those not committed yet included."""
        found = set(self._store.ids(self._partition, after, limit))
        found.update(key for key in self._staged if key > after)
        return sorted(found)[:limit]

    def entry(self, key: str) -> int:
        """No timer of this person comes due before this time (0: not known)."""
        return self._entry.get(key, 0)

    def due(self, clock: int) -> Person | None:
        """The next person who must be looked at; `looked_at` is to be called before the next one is asked for."""
        key = self.dues.pop(clock)
        if key is None:
            return None
        self._entry[key] = USED_UP
        return self.person(key)

    def looked_at(self, person: Person) -> None:
        """The timers of a person who was due have fired."""
        if person.timers:
            self.index(person)
        else:
            self._entry.pop(person.id, None)
            self.dues.clear(person.id)

    def index(self, person: Person) -> None:
        """Keep the person's entry no later than their soonest timer.

        Whether it is moved may not depend on who is in memory: an entry that is earlier than it need be takes its turn
        in a slice, so it decides whose timers fire in this batch, and whose in the next.
        """
        due = min(person.timers.values())
        known = self._entry.get(person.id)
        if known is None:
            known = self.dues.of(person.id)
        if known is None or due < known:
            self.dues.set(person.id, due)
            known = due
        self._entry[person.id] = known

    def sealed(self) -> dict[str, bytes]:
        """What changed, as bytes."""
        return {key: codec.encode(person) for key, person in self.touched.items()}

    def seal(self, changed: dict[str, bytes]) -> None:
        """Keep what changed, as bytes: from here on it can no longer be taken back."""
        self._staged.update(changed)
        self.touched.clear()

    def take_back(self, dues: dict[str, int | None]) -> None:
        """Forget every change since the last `seal`; `dues` are the entries that were staged then."""
        for key in self.touched:
            self.hot.pop(key, None)
        self.touched.clear()
        self._entry.clear()
        self.dues.reset()
        for key, due in dues.items():
            self.dues.clear(key) if due is None else self.dues.set(key, due)

    def stage(self, batch: Batch) -> None:
        """Hand over what is to be committed; from now on it counts as committed."""
        for key, value in self._staged.items():
            batch.persons[self._partition, key] = value
        for key, due in self.dues.staged.items():
            batch.dues[self._partition, key] = due
        self._staged = {}
        self.dues.staged.clear()
        while len(self.hot) > self._limit:
            key, _ = self.hot.popitem(last=False)
            self._entry.pop(key, None)
