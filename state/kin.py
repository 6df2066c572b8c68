"""Kin: which ids may be one person, because they stood together in one event.

Whoever is not in the map has only one id. The name of a family is the smallest of its ids, in whatever order they met.

>>> kin = Kin()
>>> kin.met("u:ann", "a:y"); kin.met("a:x", "u:ann")
>>> kin.family("a:y"), kin.family("u:bob"), kin.alone("u:bob"), sorted(kin.members("a:x"))
('a:x', 'u:bob', True, ['a:x', 'a:y', 'u:ann'])
"""

from collections.abc import Callable

import msgspec

from domain.event import Id, text_id
from domain.letter import Letter
from domain.record import UNREADABLE, Record
from domain.streams import LETTERS
from state.person import person_key


class _Ids(msgspec.Struct, rename="camel"):
    """What of an event says whose it is."""

    user_id: Id = None
    anonymous_id: Id = None
    previous_id: Id = None


_ids: Callable[[bytes], _Ids] = msgspec.json.Decoder(_Ids).decode
_letter = msgspec.json.Decoder(Letter).decode


class Kin:
    """Families of person keys ("u:ann", "a:x")."""

    def __init__(self, parents: dict[str, str] | None = None) -> None:
        self.parents = parents or {}

    def met(self, one: str, other: str) -> None:
        """These two belong together."""
        first, second = self.family(one), self.family(other)
        if first != second:
            low, high = min(first, second), max(first, second)
            self.parents[high] = low
            self.parents.setdefault(low, low)

    def family(self, key: str) -> str:
        """The name of the family that an id belongs to."""
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

    def alone(self, key: str) -> bool:
        """Whether an id never stood beside another."""
        return key not in self.parents

    def members(self, key: str) -> list[str]:
        """Everybody of the family of an id."""
        family = self.family(key)
        return [name for name in self.parents if self.family(name) == family] or [key]

    def learn(self, record: Record) -> str:
        """Read one record; whose it is (a person key), empty when nobody is named."""
        key, others = named(record)
        for other in others:
            if other != key:
                self.met(key, other)
        return key


def named(record: Record) -> tuple[str, tuple[str, ...]]:
    """Whose a record is, and which other ids stand in it. Nobody is named by what cannot be read.

    >>> named(Record("clicks", 0, 1, 5, None, b'{"userId":"ann","anonymousId":7}'))
    ('u:ann', ('a:7',))
    """
    try:
        if record.stream == LETTERS:
            letter = _letter(record.value)
            return (letter.to, ()) if letter.to[:2] in ("u:", "a:") else ("", ())
        ids = _ids(record.value)
    except UNREADABLE:
        return "", ()
    user, anonymous = text_id(ids.user_id), text_id(ids.anonymous_id)
    key = person_key(user, anonymous)
    if not key or not user:
        return key, ()
    previous = text_id(ids.previous_id)
    others = ["a:" + name for name in (anonymous, previous) if name]
    return key, tuple(others)
