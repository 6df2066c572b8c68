"""The playbook: what a marketer declares, whole. `docs/playbook.md` is its reference page.

Its canonical bytes are kept with every hash, so that a decision can be made again with the words it was made with.

>>> source = encode(Playbook())
>>> decode(source) == Playbook(), hash_of(source)[:12] == hash_of(encode(Playbook()))[:12]
(True, True)
"""

from hashlib import sha256

import msgspec

from domain.campaign import Campaign
from domain.coupon import Pool
from domain.segment import Segment
from domain.shop import Shop
from domain.workflow import Workflow


class Playbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything in one shop folder. `templates` holds the Liquid files by their name inside templates/.

    `past` holds earlier versions of workflows that somebody may still be in: who began one finishes it.
    """

    shop: Shop = Shop()
    segments: tuple[Segment, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    templates: dict[str, str] = {}
    workflows: tuple[Workflow, ...] = ()
    coupons: tuple[Pool, ...] = ()
    past: tuple[Workflow, ...] = ()
    v: int = 1


encode = msgspec.json.Encoder(order="sorted").encode
"""A playbook as bytes: the same files give the same bytes, in whatever order they were read."""

decode = msgspec.json.Decoder(Playbook).decode
"""A playbook from its canonical bytes."""


def hash_of(source: bytes) -> str:
    """The content hash of a playbook's canonical bytes; decisions carry its first 12 characters."""
    return sha256(source).hexdigest()
