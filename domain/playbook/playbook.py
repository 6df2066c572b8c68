"""The playbook: all structs of a shop folder. `docs/playbook.md` is the reference.

The canonical bytes of a playbook are stored by hash, so that a replay uses the same playbook.

>>> source = encode_playbook(Playbook())
>>> decode_playbook(source) == Playbook(), playbook_hash(source)[:12] == playbook_hash(encode_playbook(Playbook()))[:12]
(True, True)
"""

from hashlib import sha256

import msgspec

from domain.playbook.campaign import Campaign
from domain.playbook.coupon import CouponPool
from domain.playbook.segment import Segment
from domain.playbook.shop import Shop
from domain.playbook.workflow import Workflow, workflow_version

MAX_VERSIONS_PER_WORKFLOW = 20
"""Maximum number of earlier versions of one workflow, the newest ones."""
MAX_PREVIOUS_VERSIONS = 200
"""Maximum number of earlier versions of all workflows."""


class Playbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of a shop folder. `templates` has the Liquid files by file name.

    `previous_workflows` has earlier versions of workflows, which active runs may still use.
    """

    shop: Shop = Shop()
    segments: tuple[Segment, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    templates: dict[str, str] = {}
    workflows: tuple[Workflow, ...] = ()
    coupons: tuple[CouponPool, ...] = ()
    previous_workflows: tuple[Workflow, ...] = ()
    v: int = 1


encode_playbook = msgspec.json.Encoder(order="sorted").encode
"""Encode a playbook as canonical bytes, independent of the order of the files."""

decode_playbook = msgspec.json.Decoder(Playbook).decode
"""Decode a playbook from its canonical bytes."""


def playbook_hash(source: bytes) -> str:
    """Return the hash of canonical bytes; decisions have its first 12 characters."""
    return sha256(source).hexdigest()


def carry_over_versions(previous: Playbook, current: Playbook) -> Playbook:
    """Return the current playbook with the changed or removed workflows of the previous one in `previous_workflows`.

    The oldest version is first. If there are too many, the oldest are dropped, and their runs exit. A version that is
    live again is removed from the list. The function is idempotent.

    >>> step = {"name": "w", "enter_on": {"event": "Cart Viewed"}, "steps": [{"wait": "1h"}]}
    >>> one = msgspec.convert({"workflows": [step]}, Playbook)
    >>> two = msgspec.convert({"workflows": [{**step, "steps": [{"wait": "2h"}]}]}, Playbook)
    >>> later = carry_over_versions(one, two)
    >>> [workflow.steps[0].wait for workflow in later.previous_workflows], carry_over_versions(later, two) == later
    (['1h'], True)
    >>> [workflow.steps[0].wait for workflow in carry_over_versions(later, one).previous_workflows]
    ['2h']
    """
    found: dict[tuple[str, str], Workflow] = {}
    for workflow in (*previous.previous_workflows, *previous.workflows, *current.previous_workflows):
        key = workflow.name, workflow_version(workflow)
        found.pop(key, None)
        found[key] = workflow
    for workflow in current.workflows:
        found.pop((workflow.name, workflow_version(workflow)), None)
    kept: list[Workflow] = []
    count: dict[str, int] = {}
    for workflow in reversed(found.values()):
        count[workflow.name] = count.get(workflow.name, 0) + 1
        if count[workflow.name] <= MAX_VERSIONS_PER_WORKFLOW and len(kept) < MAX_PREVIOUS_VERSIONS:
            kept.append(workflow)
    return msgspec.structs.replace(current, previous_workflows=tuple(reversed(kept)))
