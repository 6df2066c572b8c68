"""Letters: how shards talk, and the only way."""

from typing import Annotated, Any

import msgspec

MAX_SEQ = 2**53
"""Beyond this, not every reader of JSON tells whole numbers apart."""


class Letter(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """From one person to another: `claim`, `handover`, `forward`. `seq` rises per (from, to).

    `sender` and `to` are person keys ("u:ann", "a:1f3c"). `body` depends on the kind and is itself versioned.
    """

    kind: str
    sender: str
    to: str
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    body: dict[str, Any] = {}
    id: str = ""
    v: int = 1


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Letter).decode
