"""Tally: what shards count, and the short tags that stand for people where nobody may be named."""

from collections import Counter
from hashlib import blake2b


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
