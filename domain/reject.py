"""Rejects: what could not be read, kept with its reason."""

import msgspec


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


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Reject).decode
