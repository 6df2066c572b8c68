"""Counts of shard operations for metrics, and hashes that stand for person keys in logs."""

from collections import Counter
from hashlib import blake2b

from domain.record import describe_misrouted

DECAY_WINDOW = 10_000
"""Number of records after which earlier records count half."""


def person_hash(person: str) -> str:
    """Return a short hash of a person key, for effect ids and logs."""
    return blake2b(person.encode(), digest_size=6).hexdigest()


class ShardCounts:
    """Counts for metrics: events by stream (and other operations), effects by (kind, reason).

    A batch that is applied again after an error counts its events again.
    """

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.effects: Counter[tuple[str, str]] = Counter()


class MisroutedMonitor:
    """The share of recent records of the public streams in a partition other than that of their key.

    Earlier records fade: after every DECAY_WINDOW records, the counts are halved. `warning` describes the problem and
    the fix; it is empty if there is none.

    >>> seen = MisroutedMonitor()
    >>> seen.add(40, 1_000)[:16], seen.add(0, 10), seen.warning[:16]
    ('4 % of the recor', '', '4 % of the recor')
    """

    def __init__(self) -> None:
        self.warning = ""
        self._misrouted = self._total = self._since_decay = 0

    @property
    def share(self) -> float:
        """Return the share, between 0 and 1."""
        return self._misrouted / self._total if self._total else 0.0

    def add(self, misrouted: int, total: int) -> str:
        """Count `total` more records, `misrouted` of them misrouted. Return the warning if it is due (again)."""
        had = bool(self.warning)
        self._misrouted, self._total, self._since_decay = (
            self._misrouted + misrouted,
            self._total + total,
            self._since_decay + total,
        )
        self.warning = describe_misrouted(self._misrouted, self.share)
        again = self._since_decay >= DECAY_WINDOW
        if again:
            self._misrouted, self._total, self._since_decay = self._misrouted // 2, self._total // 2, 0
        return self.warning if again or not had else ""
