"""Dealings: what passed between a person and us, as parts of a `Person`: said, promised, begun, hoped for.

All times are ms since 1970.
"""

from collections.abc import Mapping

import msgspec

from domain.streams import SHARD_INPUT


class Said(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """How often a campaign was shown to this person, or sent to them and accepted by a channel.

    `times` are the newest showings, oldest first (ms).
    """

    total: int = 0
    last_at: int = 0
    session: str = ""
    in_session: int = 0
    day: int = 0
    in_day: int = 0
    times: list[int] = []


class Reserved(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A send that was decided and not yet seen to be shown (or accepted); released when it expires.

    `content_key` tells, of what fills a slot, whether it is what was there already; `run` names the way through the
    `workflow` that asked for it.
    """

    action_id: str
    campaign: str
    until: int
    anonymous_id: str = ""
    variant: str = ""
    propensity: float = 1.0
    workflow: str = ""
    content_key: str = ""
    run: str = ""


class Armed(msgspec.Struct, array_like=True, gc=False):
    """What the browser holds ready. `content_key` tells whether what would be shown has changed: a hash of what it is
    made of, "/", and a hash of what was told.
    """

    campaign: str
    action_id: str
    content_key: str
    until: int
    anonymous_id: str = ""
    variant: str = ""
    propensity: float = 1.0


class Decision(msgspec.Struct, array_like=True, gc=False):
    """The last words about a campaign, kept for `attimo explain`: what, when, and why.

    Of a hold `reason` and `detail` say what stood in the way; of what was sent, armed or shown, `reason` is the
    occasion and `detail` the conditions that held.
    """

    at: int
    kind: str
    reason: str
    detail: str = ""
    action_id: str = ""


class Earlier(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """An earlier decision about a campaign, before the last one (see `Decision`)."""

    campaign: str
    at: int
    kind: str
    reason: str = ""
    detail: str = ""
    action_id: str = ""


class Run(msgspec.Struct, omit_defaults=True, gc=False):
    """One way of a person through a workflow. `version` is the hash of the workflow they began with.

    `step` is where they stand (an index into its steps; `at` is the step's id), `since` when they came there, `until`
    when waiting ends (0: it does not wait), `waits` what for. `origin` names what made them enter.
    """

    workflow: str
    version: str
    began_at: int
    step: int = 0
    since: int = 0
    until: int = 0
    waits: str = ""
    origin: str = ""
    steps_taken: int = 0
    at: str = ""


class Been(msgspec.Struct, array_like=True, gc=False):
    """How often a person went through a workflow, and when they last left it (ms)."""

    times: int = 0
    left_at: int = 0


class Coupon(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A coupon of this person: `state` is reserved, redeemed, expired or released.

    `origin` is the id it was reserved under, when it moved here from another one.
    """

    code: str
    pool: str
    state: str
    at: int
    until: int
    campaign: str = ""
    order_id: str = ""
    redeemed_at: int = 0
    origin: str = ""


class Home(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The home of a pool of codes, which leases them: the first `granted` are leased.

    `mark` tells whether those codes are still what they were then.
    """

    granted: int = 0
    mark: str = ""


class Desk(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The desk of a shard for one pool: `codes` are leased to it, and nobody has them yet, oldest first.

    `asked_at` says when it asked for more (0: it does not wait for an answer). `shut` is why there are none to be had,
    in the words of the playbook `shut_by`. `waiting` are the persons who wanted one meanwhile. `counts` says how many
    coupons became what here; over all desks of the pool it adds up. `strangers` counts codes of the pool in orders of
    people who do not have them.
    """

    codes: list[str] = []
    asked_at: int = 0
    shut: str = ""
    shut_by: str = ""
    waiting: list[str] = []
    counts: dict[str, int] = {}
    strangers: int = 0


class Hope(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A campaign that was shown (or held out) and whose goal may still be reached, until `until` (ms)."""

    campaign: str
    action_id: str
    at: int
    until: int
    variant: str = ""
    propensity: float = 1.0


class Later(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A campaign is to be decided at `due` (ms), because its occasion was delayed or put off (`state/later.py`).

    `run` names the way through a workflow that asked for it. `pool` is there when it waits for codes of that pool, at
    most until `due`.
    """

    due: int
    occasion: str
    run: str = ""
    pool: str = ""


class Written(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A message to this person: `state` is sent (decided, on its way), delivered, opened, clicked, bounced or held.

    `address` is a short hash of where it went.
    """

    message_id: str
    campaign: str
    channel: str
    at: int
    state: str = "sent"
    variant: str = ""
    purpose: str = ""
    address: str = ""


class Link(msgspec.Struct, array_like=True, gc=False):
    """Another id of the same person: `claimed` (asked), `joined` (answered)."""

    state: str
    at: int


class Moved(msgspec.Struct, array_like=True, gc=False):
    """To whom these facts moved first, and where the shard stood then: what it read `after` these offsets (by stream,
    in the order of SHARD_INPUT) was sent on.
    """

    to: str
    after: list[int]


def stands(positions: Mapping[str, int]) -> list[int]:
    """The positions of a shard in the order of SHARD_INPUT.

    >>> stands({"letters": 7, "clicks": 3})
    [3, -1, -1, -1, 7]
    """
    return [positions.get(stream, -1) for stream in SHARD_INPUT]


class Mail(msgspec.Struct, array_like=True, gc=False):
    """The last letter sequence sent to and received from another person."""

    sent: int = 0
    received: int = 0


class Counted(msgspec.Struct, array_like=True, gc=False):
    """A customer as the population counts them (`state/quintiles.py`): last order (ms), orders, net money."""

    last_at: int = 0
    orders: int = 0
    money: int = 0
