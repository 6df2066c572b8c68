r"""Codec: a person as versioned bytes. Every read and write of stored persons goes through it.

    b"\x02" + MessagePack of the person, as declared in `state/person/model.py`

The first byte is the version. The bytes contain field names and leave out fields at their default, so a new field with
a default needs no new version. Any other change does (a renamed field, another meaning): raise VERSION and add the
upgrade to `UPGRADES`. Bytes of every released version must load (`tests/golden/person.*`).

Encoding is stable: decoding and encoding an unchanged person returns the same bytes.

>>> decode(encode(Person(id="a:x", bot=True))).bot
True
>>> decode(b"\x63...")
Traceback (most recent call last):
    ...
state.person.codec.UnsupportedVersion: person of version 99; this program reads up to version 2. Update attimo.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from state.person.model import Person

VERSION = 2

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each old version, the pure function that turns a person in plain values into the next version. Each names the
release that introduced it.
"""

_VERSION_BYTE = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Person).decode
_decode_plain = msgspec.msgpack.Decoder(dict[str, Any]).decode


class UnsupportedVersion(ValueError):
    """Bytes that are not a person of a supported version."""


def encode(person: Person) -> bytes:
    """Encode a person (typically some hundreds of bytes)."""
    return _VERSION_BYTE + _encode(person)


def decode(data: bytes) -> Person:
    """Decode a person of this version or an older one.

    Raise UnsupportedVersion for other versions, msgspec.DecodeError for damaged bytes.
    """
    if data[:1] == _VERSION_BYTE:
        return _decode(memoryview(data)[1:])
    return _decode_older(data)


def _decode_older(data: bytes) -> Person:
    if not data:
        raise UnsupportedVersion("empty bytes instead of a person")
    version = data[0]
    if version > VERSION:
        raise UnsupportedVersion(
            f"person of version {version}; this program reads up to version {VERSION}. Update attimo."
        )
    plain = _decode_plain(data[1:])
    while version < VERSION:
        if version not in UPGRADES:
            raise UnsupportedVersion(
                f"person of version {version}, written before the first release; this program reads version {VERSION}. "
                "Start with an empty data folder."
            )
        plain = UPGRADES[version](plain)
        version += 1
    return msgspec.convert(plain, Person)
