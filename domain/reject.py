"""Rejects: what could not be read, kept with its reason."""

import re
from typing import Any, Final

import msgspec

from domain.record import UNREADABLE

LONGEST: Final = 512
"""Characters that are kept of what was refused."""

HIDDEN: Final = frozenset({"writeKey", "traits", "body", "_metadata", "integrations"})
HIDDEN_CONTEXT: Final = frozenset({"ip", "user_hash", "userHash", "traits"})
"""What names a person, proves something or is a key. A letter's body holds what is known of somebody."""

_FROM_THERE: Final = re.compile(r'"(?:traits|body)"')


class Reject(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A record that was refused: where it was, what was wrong with which field, and how it began.

    `kind` is a short word for counting ("unreadable", "no_person", "too_long", "internal"); `because` is a sentence
    that names the field. `raw` is the beginning of the value (at most 512 characters, undecodable bytes replaced).
    """

    id: str
    stream: str
    partition: int
    offset: int
    kind: str
    because: str
    raw: str = ""
    at: int = 0
    v: int = 1


def evidence(item: Any) -> str:
    """How a refused item began: without keys, addresses, hashes, or what names a person.

    >>> evidence({"event": 7, "traits": {"email": "ann@example.org"}, "context": {"ip": "1.2.3.4", "locale": "en"}})
    '{"event":7,"context":{"locale":"en"}}'
    """
    if isinstance(item, dict):
        item = {name: value for name, value in item.items() if name not in HIDDEN}
        if isinstance(item.get("context"), dict):
            item["context"] = {name: value for name, value in item["context"].items() if name not in HIDDEN_CONTEXT}
    try:
        return msgspec.json.encode(item).decode()[:LONGEST]
    except (TypeError, ValueError):
        return ""


def beginning(value: bytes) -> str:
    """How a refused value began, as it stands, unless something in it is not to be kept (see `evidence`).

    What is no JSON is kept up to the place where that would begin.

    >>> beginning(b'{"event": 7}'), beginning(b'{"type": "x", "traits": {}}'), beginning(b'{"a": 1, "traits": {"em')
    ('{"event": 7}', '{"type":"x"}', '{"a": 1, ')
    """
    try:
        item = msgspec.json.decode(value)
    except UNREADABLE:
        text = _FROM_THERE.split(value.decode("utf-8", "replace"), maxsplit=1)[0]
    else:
        about = item.get("context") if isinstance(item, dict) else None
        hides = isinstance(item, dict) and (
            not HIDDEN.isdisjoint(item) or (isinstance(about, dict) and not HIDDEN_CONTEXT.isdisjoint(about)))
        text = evidence(item) if hides else value[:LONGEST].decode("utf-8", "replace")
    return text[:LONGEST].replace("\x00", "\N{REPLACEMENT CHARACTER}")


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Reject).decode
