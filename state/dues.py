"""Due times of one shard: those that come soon in a heap, the others in the store.

A person has one entry: the soonest of their timers, *or earlier*. Moving a timer later therefore costs nothing: the old
entry comes due, the person is looked at, and the entry is set anew. Moving it earlier replaces the entry.
"""

from heapq import heapify, heappop, heappush

from state.store import Store

WINDOW = 60_000
SLICE = 512


class Dues:
    """A heap over the entries up to `_upto`; `staged` holds what the next commit writes (None: take it out)."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store = store
        self._partition = partition
        self.staged: dict[str, int | None] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what is in memory and not committed."""
        self.staged.clear()
        self._heap: list[tuple[int, str]] = []
        self._soon: dict[str, int] = {}
        self._upto: tuple[int, str] = (-1, "")
        self._later: int | None = -1

    def set(self, person: str, due: int) -> None:
        """The person's entry is now `due`."""
        self.staged[person] = due
        if (due, person) <= self._upto:
            self._soon[person] = due
            heappush(self._heap, (due, person))
        else:
            self._soon.pop(person, None)
            if self._later is None or due < self._later:
                self._later = due

    def clear(self, person: str) -> None:
        """The person has no timer."""
        self.staged[person] = None
        self._soon.pop(person, None)

    def of(self, person: str) -> int | None:
        """The person's entry, as it will be committed."""
        if person in self.staged:
            return self.staged[person]
        return self._store.due(self._partition, person)

    def pop(self, clock: int) -> str | None:
        """The next person whose entry is due at `clock`, in the order (due, person); None when nobody is.

        The caller sets or clears that person's entry before asking again.
        """
        while True:
            if not self._heap and not self._extend(clock):
                return None
            due, person = self._heap[0]
            if due > clock:
                return None
            heappop(self._heap)
            if self._soon.get(person) == due:
                return person

    def _extend(self, clock: int) -> bool:
        """Bring the entries up to `clock` and a little further into the heap; False when there are none by `clock`."""
        if self._upto[0] > clock:
            return False
        self._later = -1
        until = clock + WINDOW
        found = self._store.dues(self._partition, self._upto, until, SLICE)
        upto = found[-1] if len(found) == SLICE else (until, "\U0010ffff")
        merged = [entry for entry in found if entry[1] not in self.staged]
        merged += [(due, person) for person, due in self.staged.items()
                   if due is not None and self._upto < (due, person) <= upto]
        self._upto = upto
        self._soon.update({person: due for due, person in merged})
        self._heap += merged
        heapify(self._heap)
        return bool(self._heap) or (self._upto[0] <= clock and self._extend(clock))

    def next(self) -> int | None:
        """When the next entry comes due; asks the store only when nothing is near."""
        while self._heap:
            due, person = self._heap[0]
            if self._soon.get(person) == due:
                return due
            heappop(self._heap)
        if self._later == -1:  # -1: not known; from here on it can only be too early, which costs one look
            staged = [due for due in self.staged.values() if due is not None]
            found = self._store.next_due(self._partition)
            self._later = min([*staged, found] if found is not None else staged, default=None)
        return self._later
