"""Actions: what was decided for one person, and why. `docs/actions.md` documents the JSON.

`Send` shows now; `Arm` waits in the browser for its trigger; `Disarm` takes an arm (or a send not yet shown)
back; `Hold` is a decision to stay silent, with its reason. `Move` says that a person entered or left a segment,
`Progress` how far they are in a workflow, `CouponNews` what became of a coupon.

>>> encode(Disarm(id="clicks-1-2-choose_actions-0", at=5, person="a:x", anonymous_id="x", campaign="exit"))[:36]
b'{"type":"disarm","id":"clicks-1-2-ch'
"""

from typing import Any

import msgspec


class Because(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why: what triggered it, the conditions that held or failed, and what was live when it was decided."""

    trigger: str = ""
    held: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    playbook: str = ""
    model: str = ""
    variant: str = ""
    propensity: float = 1.0
    workflow: str = ""


class Discount(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a coupon is worth, for a page that shows the price with it: `amount` and `min_value` in major units.

    `products` names the products it is for (none: all); `expires_at` is in ms since 1970.
    """

    code: str
    percent: float = 0.0
    amount: float = 0.0
    currency: str = ""
    free_shipping: bool = False
    min_value: float = 0.0
    products: tuple[str, ...] = ()
    expires_at: int = 0


class Content(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is shown: rendered, sanitised HTML and plain texts; `url` is checked (http, https or a path)."""

    title: str = ""
    html: str = ""
    button: str = ""
    url: str = ""
    image_url: str = ""
    coupon: str = ""


class Base(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """What all decisions share. `id` is the same however often the decision is sent; times are ms since 1970."""

    id: str
    at: int
    person: str
    anonymous_id: str = ""
    v: int = 1
    because: Because = Because()


class Send(Base, frozen=True, kw_only=True, omit_defaults=True, tag="send"):
    """Show this now, unless it is later than `not_after`. `slot` is the element it fills (a CSS selector)."""

    campaign: str
    format: str
    content: Content
    not_after: int
    priority: int = 0
    disarm_on: tuple[str, ...] = ()
    slot: str = ""
    discount: Discount | None = None


class Arm(Base, frozen=True, kw_only=True, omit_defaults=True, tag="arm"):
    """Keep this ready, and show it when `trigger` happens in the browser, unless it is later than `not_after`."""

    campaign: str
    format: str
    content: Content
    not_after: int
    trigger: str = "exit_intent"
    priority: int = 0
    disarm_on: tuple[str, ...] = ()
    discount: Discount | None = None


class Disarm(Base, frozen=True, kw_only=True, omit_defaults=True, tag="disarm"):
    """Forget the arm (or the unshown send) of this campaign."""

    campaign: str


class Hold(Base, frozen=True, kw_only=True, omit_defaults=True, tag="hold"):
    """A trigger fired and nothing is shown: `because.reason` says why."""

    campaign: str


class Move(Base, frozen=True, kw_only=True, omit_defaults=True, tag="move"):
    """The person entered (or left) a segment."""

    segment: str
    entered: bool


class Progress(Base, frozen=True, kw_only=True, omit_defaults=True, tag="progress"):
    """A person entered a workflow, came to a step that waits or sends, or left: `what` is entered, step, goal, left,
    finished. `run` is this way through it; `goal` is the name of the goal.
    """

    workflow: str
    version: str
    what: str
    step: str = ""
    run: str = ""
    goal: str = ""

    @property
    def words(self) -> str:
        """What came about, and where: `step ask`, or `goal back_again`."""
        return f"{self.what} {self.goal or self.step}".rstrip()


class CouponNews(Base, frozen=True, kw_only=True, omit_defaults=True, tag="coupon"):
    """What became of a coupon: `what` is reserved, redeemed, expired, released."""

    pool: str
    code: str
    what: str
    campaign: str = ""


Action = Send | Arm | Disarm | Hold | Move | Progress | CouponNews

def subject(action: Action) -> str:
    """What an action is about: its campaign, segment, workflow or pool of coupons.

    >>> subject(Disarm(id="i", at=5, person="u:ann", campaign="exit"))
    'exit'
    """
    if isinstance(action, Move):
        return action.segment
    if isinstance(action, Progress):
        return action.workflow
    return action.pool if isinstance(action, CouponNews) else action.campaign


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
decode = msgspec.json.Decoder(Action).decode


def published(action: Send | Arm | Disarm, shop: str, now: int) -> dict[str, Any]:
    """What goes out on Redis pub/sub: the action without what is nobody's business outside, plus `expires_in_ms`.

    >>> published(Disarm(id="i", at=5, person="u:ann", anonymous_id="x", campaign="exit"), "demo", 6)
    {'type': 'disarm', 'id': 'i', 'at': 5, 'anonymous_id': 'x', 'campaign': 'exit', 'v': 1, 'shop': 'demo'}
    """
    plain: dict[str, Any] = msgspec.to_builtins(action)
    plain.pop("person", None)
    plain.pop("because", None)
    plain.update(v=action.v, shop=shop)
    if not isinstance(action, Disarm):
        plain["expires_in_ms"] = max(0, action.not_after - now)
    return plain


def channel(shop: str, anonymous_id: str) -> str:
    """The Redis pub/sub channel of one browser.

    >>> channel("demo", "a1")
    'onsite:demo:a1'
    """
    return f"onsite:{shop}:{anonymous_id}"


def armed_key(shop: str, anonymous_id: str) -> str:
    """The Redis hash (campaign -> published action) of what one browser should hold.

    >>> armed_key("demo", "a1")
    'armed:demo:a1'
    """
    return f"armed:{shop}:{anonymous_id}"


def filled_key(shop: str) -> str:
    """Where Redis says that it holds what browsers should hold; one that has come back empty does not, for a while.

    >>> filled_key("demo")
    'attimo:demo:filled'
    """
    return f"attimo:{shop}:filled"
