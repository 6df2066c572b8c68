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
from domain.workflow import Workflow, version_of

MOST_VERSIONS = 20
"""Earlier versions of one workflow that are kept, the newest."""
MOST_PAST = 200
"""Earlier versions of all workflows together."""


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


def succeed(old: Playbook, new: Playbook) -> Playbook:
    """The new playbook, with the workflows of the old one that it changes or no longer has in its `past`.

    `past` has the oldest version first; of too many the oldest fall out, and who is still in one leaves. A version that
    is live again is no longer past, and what has succeeded once changes nothing when it succeeds again.

    >>> step = {"name": "w", "enters": {"event": "Cart Viewed"}, "steps": [{"wait": "1h"}]}
    >>> one = msgspec.convert({"workflows": [step]}, Playbook)
    >>> two = msgspec.convert({"workflows": [{**step, "steps": [{"wait": "2h"}]}]}, Playbook)
    >>> later = succeed(one, two)
    >>> [workflow.steps[0].wait for workflow in later.past], succeed(later, two) == later
    (['1h'], True)
    >>> [workflow.steps[0].wait for workflow in succeed(later, one).past]
    ['2h']
    """
    found: dict[tuple[str, str], Workflow] = {}
    for workflow in (*old.past, *old.workflows, *new.past):
        key = workflow.name, version_of(workflow)
        found.pop(key, None)
        found[key] = workflow
    for workflow in new.workflows:
        found.pop((workflow.name, version_of(workflow)), None)
    kept: list[Workflow] = []
    count: dict[str, int] = {}
    for workflow in reversed(found.values()):
        count[workflow.name] = count.get(workflow.name, 0) + 1
        if count[workflow.name] <= MOST_VERSIONS and len(kept) < MOST_PAST:
            kept.append(workflow)
    return msgspec.structs.replace(new, past=tuple(reversed(kept)))
