"""Tally: what shards count, and the short tags that stand for people where nobody may be named."""

from collections import Counter
from hashlib import blake2b

from domain.misrouted import problem

WINDOW = 10_000
"""Records after which the ones before them count half."""


def person_tag(person: str) -> str:
    """A short hash of a person key, for effect ids and logs."""
    return blake2b(person.encode(), digest_size=6).hexdigest()


class Tally:
    """What shards count, for whoever shows it: events by stream (and a few words), effects by (kind, reason).

    A batch that is applied again after a bug counts its events again.
    """

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()


class Misrouted:
    """Which share of the latest records of the public streams lay in another partition than their key's.

    What came before fades: each time WINDOW records have come, what was counted counts half. `problem` says in one text
    what is wrong and what to do, and is empty when nothing is.

    >>> seen = Misrouted()
    >>> seen.add(40, 1_000)[:16], seen.add(0, 10), seen.problem[:16]
    ('4 % of the recor', '', '4 % of the recor')
    """

    def __init__(self) -> None:
        self.problem = ""
        self._wrong = self._of = self._fresh = 0

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self._wrong / self._of if self._of else 0.0

    def add(self, wrong: int, of: int) -> str:
        """Count `of` more records, `wrong` of them misrouted. `problem`, when it is to be said (again)."""
        had = bool(self.problem)
        self._wrong, self._of, self._fresh = self._wrong + wrong, self._of + of, self._fresh + of
        self.problem = problem(self._wrong, self.share)
        again = self._fresh >= WINDOW
        if again:
            self._wrong, self._of, self._fresh = self._wrong // 2, self._of // 2, 0
        return self.problem if again or not had else ""
