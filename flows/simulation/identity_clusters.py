"""Identity clusters: ids that may belong to one person, because they occurred in one event.

An id outside the map forms a cluster of its own. The name of a cluster is its smallest id.

>>> clusters = IdentityClusters()
>>> clusters.union("u:ann", "a:y"); clusters.union("a:x", "u:ann")
>>> clusters.find("a:y"), clusters.find("u:bob"), clusters.is_singleton("u:bob"), sorted(clusters.members("a:x"))
('a:x', 'u:bob', True, ['a:x', 'a:y', 'u:ann'])
"""

from collections.abc import Callable

import msgspec

from domain.action import ShardMessage
from domain.event import RawId, normalize_id
from domain.record import DECODE_ERRORS, SHARD_MESSAGES, Record
from state.person.model import person_key


class _EventIds(msgspec.Struct, rename="camel"):
    """The ids of an event."""

    user_id: RawId = None
    anonymous_id: RawId = None
    previous_id: RawId = None


_decode_ids: Callable[[bytes], _EventIds] = msgspec.json.Decoder(_EventIds).decode
_decode_message = msgspec.json.Decoder(ShardMessage).decode


class IdentityClusters:
    """Clusters of person keys ("u:ann", "a:x"), as a union-find structure."""

    def __init__(self, parents: dict[str, str] | None = None) -> None:
        self.parents = parents or {}

    def union(self, left: str, right: str) -> None:
        """Join two clusters."""
        first, second = self.find(left), self.find(right)
        if first != second:
            low, high = min(first, second), max(first, second)
            self.parents[high] = low
            self.parents.setdefault(low, low)

    def find(self, key: str) -> str:
        """Return the name of the cluster of an id."""
        parents = self.parents
        parent = parents.get(key)
        if parent is None:
            return key
        root = parent
        while (above := parents[root]) != root:
            root = above
        while parent != root:
            parents[key] = root
            key, parent = parent, parents[parent]
        return root

    def is_singleton(self, key: str) -> bool:
        """Return whether an id never occurred with another one."""
        return key not in self.parents

    def members(self, key: str) -> list[str]:
        """Return all ids of the cluster."""
        cluster = self.find(key)
        return [name for name in self.parents if self.find(name) == cluster] or [key]

    def add_record(self, record: Record) -> str:
        """Read a record; return its person key, "" if it has none."""
        key, others = ids_in_record(record)
        for other in others:
            if other != key:
                self.union(key, other)
        return key


def ids_in_record(record: Record) -> tuple[str, tuple[str, ...]]:
    """Return the person key of a record and the other ids in it; empty if it is invalid.

    >>> ids_in_record(Record("clicks", 0, 1, 5, None, b'{"userId":"ann","anonymousId":7}'))
    ('u:ann', ('a:7',))
    """
    try:
        if record.stream == SHARD_MESSAGES:
            message = _decode_message(record.value)
            return (message.recipient, ()) if message.recipient[:2] in ("u:", "a:") else ("", ())
        ids = _decode_ids(record.value)
    except DECODE_ERRORS:
        return "", ()
    user, anonymous = normalize_id(ids.user_id), normalize_id(ids.anonymous_id)
    key = person_key(user, anonymous)
    if not key or not user:
        return key, ()
    previous = normalize_id(ids.previous_id)
    others = ["a:" + name for name in (anonymous, previous) if name]
    return key, tuple(others)
