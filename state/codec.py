r"""The codec: a person as versioned bytes and back. The only door between what is stored and what runs.

    b"\x01" + MessagePack of the person, as `state/person.py` declares it

The first byte is the version. Field names are in the bytes and fields at their default are not, so a new field with a
default needs no new version. Anything else (a renamed field, another meaning) does: raise VERSION and put the way up
into `UPGRADES`; bytes of every version ever released must still load (`tests/golden/person.*`).

Bytes are stable: a person that was decoded and not changed gives the same bytes again.

>>> decode(encode(Person(id="a:x", bot=True))).bot
True
>>> decode(b"\x63...")
Traceback (most recent call last):
    ...
state.codec.WrongVersion: a person of version 99, but this program reads up to version 1: update it
"""

from collections.abc import Callable
from typing import Any

import msgspec

from state.person import Person

VERSION = 1

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each old version, how a person in plain values becomes one of the next version. Pure functions; each names the
release that brought it."""

_HEAD = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Person).decode
_plain = msgspec.msgpack.Decoder(dict[str, Any]).decode


class WrongVersion(ValueError):
    """Bytes written by a newer program, or no person at all."""


def encode(person: Person) -> bytes:
    """A person as bytes: what changed is written whole, some hundreds of bytes for a typical one."""
    return _HEAD + _encode(person)


def decode(data: bytes) -> Person:
    """A person from bytes of this version or an older one.

    WrongVersion for a newer one; msgspec.DecodeError when the bytes are damaged.
    """
    if data[:1] == _HEAD:
        return _decode(memoryview(data)[1:])
    return _older(data)


def _older(data: bytes) -> Person:
    if not data:
        raise WrongVersion("no bytes where a person should be")
    version = data[0]
    if version > VERSION:
        raise WrongVersion(
            f"a person of version {version}, but this program reads up to version {VERSION}: update it")
    plain = _plain(data[1:])
    while version < VERSION:
        if version not in UPGRADES:
            raise WrongVersion(f"nobody says how a person of version {version} becomes one of version {version + 1}")
        plain = UPGRADES[version](plain)
        version += 1
    return msgspec.convert(plain, Person)
