"""Effects of the engine: actions, messages, outcomes and shard messages. They go through the outbox, in order.

`Send` shows a campaign now. `Preload` waits in the browser for its trigger. `Cancel` removes a preloaded campaign, or
one that is not shown yet. `Suppress` records why nothing was shown. `docs/actions.md` and `docs/messages.md` describe
the JSON.

>>> encode_action(Cancel(id="clicks-1-2-select_campaigns-0", at=5, person="a:x", campaign="exit"))[:36]
b'{"type":"cancel","id":"clicks-1-2-se'
>>> decode_message(encode_message(Message(id="i", at=1, person="u:ann", channel="email", campaign="hello",
...     content_key="k", not_before=1, not_after=2))).channel
'email'
"""

import typing
from typing import Annotated, Any, NamedTuple

import msgspec

from domain import record
from domain.record import ACTIONS, DEAD_LETTERS, MESSAGES, OUTCOMES, SHARD_MESSAGES


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why a decision was made: trigger, conditions that passed or failed, reason, live playbook and model."""

    trigger: str = ""
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    playbook: str = ""
    model: str = ""
    variant: str = ""
    propensity: float = 1.0
    workflow: str = ""


class Discount(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The value of a coupon, for a page that shows the discounted price.

    `amount` and `min_value` are in major units. An empty `products` means all products. `expires_at` is in ms since
    1970.
    """

    code: str
    percent: float = 0.0
    amount: float = 0.0
    currency: str = ""
    free_shipping: bool = False
    min_value: float = 0.0
    products: tuple[str, ...] = ()
    expires_at: int = 0


class RenderedContent(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Rendered content: sanitized HTML and plain text. `url` is http, https or a path."""

    title: str = ""
    html: str = ""
    button: str = ""
    url: str = ""
    image_url: str = ""
    coupon: str = ""


class BaseAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    """Fields of all actions. `id` is an idempotency key; times are in ms since 1970."""

    id: str
    at: int
    person: str
    anonymous_id: str = ""
    v: int = 1
    because: Explanation = Explanation()


class Send(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="send"):
    """Show a campaign now, but not after `not_after`. `slot` is the element to fill (a CSS selector)."""

    campaign: str
    format: str
    content: RenderedContent
    not_after: int
    priority: int = 0
    cancel_on: tuple[str, ...] = ()
    slot: str = ""
    discount: Discount | None = None


class Preload(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="preload"):
    """Preload a campaign, and show it when `trigger` happens in the browser, but not after `not_after`."""

    campaign: str
    format: str
    content: RenderedContent
    not_after: int
    trigger: str = "exit_intent"
    priority: int = 0
    cancel_on: tuple[str, ...] = ()
    discount: Discount | None = None


class Cancel(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="cancel"):
    """Cancel a campaign that is preloaded or not shown yet."""

    campaign: str


class Suppress(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="suppress"):
    """Record that a trigger fired and nothing is shown; `because.reason` has the reason."""

    campaign: str


class SegmentChange(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="segment_change"):
    """The person entered or exited a segment."""

    segment: str
    entered: bool


class WorkflowProgress(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="workflow_progress"):
    """Progress of a workflow run. `transition` is entered, step, goal, exited or finished.

    `step` is reported for steps that wait or send; `run` identifies the run; `goal` is the name of the goal.
    """

    workflow: str
    version: str
    transition: str
    step: str = ""
    run: str = ""
    goal: str = ""

    @property
    def describe(self) -> str:
        """The transition with its step or goal, such as `step ask` or `goal back_again`."""
        return f"{self.transition} {self.goal or self.step}".rstrip()


class CouponEvent(BaseAction, frozen=True, kw_only=True, omit_defaults=True, tag="coupon_event"):
    """A change of a coupon. `status` is reserved, redeemed, expired or released."""

    pool: str
    code: str
    status: str
    campaign: str = ""


Action = Send | Preload | Cancel | Suppress | SegmentChange | WorkflowProgress | CouponEvent


def target_name(action: Action) -> str:
    """Return the campaign, segment, workflow or coupon pool of an action.

    >>> target_name(Cancel(id="i", at=5, person="u:ann", campaign="exit"))
    'exit'
    """
    if isinstance(action, SegmentChange):
        return action.segment
    if isinstance(action, WorkflowProgress):
        return action.workflow
    return action.pool if isinstance(action, CouponEvent) else action.campaign


_action_encoder = msgspec.json.Encoder()
encode_action = _action_encoder.encode
decode_action = msgspec.json.Decoder(Action).decode


def browser_payload(action: Send | Preload | Cancel, shop: str, now: int) -> dict[str, Any]:
    """Return the action as it is published to the browser: without internal fields, with `expires_in_ms`.

    >>> browser_payload(Cancel(id="i", at=5, person="u:ann", anonymous_id="x", campaign="exit"), "demo", 6)
    {'type': 'cancel', 'id': 'i', 'at': 5, 'anonymous_id': 'x', 'campaign': 'exit', 'v': 1, 'shop': 'demo'}
    """
    plain: dict[str, Any] = msgspec.to_builtins(action)
    plain.pop("person", None)
    plain.pop("because", None)
    plain.update(v=action.v, shop=shop)
    if not isinstance(action, Cancel):
        plain["expires_in_ms"] = max(0, action.not_after - now)
    return plain


def pubsub_channel(shop: str, anonymous_id: str) -> str:
    """Return the Redis pub/sub channel of a browser.

    >>> pubsub_channel("demo", "a1")
    'onsite:demo:a1'
    """
    return f"onsite:{shop}:{anonymous_id}"


def preloaded_key(shop: str, anonymous_id: str) -> str:
    """Return the key of the Redis hash of a browser: campaign to published action.

    >>> preloaded_key("demo", "a1")
    'preloaded:demo:a1'
    """
    return f"preloaded:{shop}:{anonymous_id}"


def cache_ready_key(shop: str) -> str:
    """Return the key that marks the Redis cache as filled. It is missing after Redis lost its data.

    >>> cache_ready_key("demo")
    'attimo:demo:cache_ready'
    """
    return f"attimo:{shop}:cache_ready"


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message to one person. Times are in ms since 1970.

    A channel worker sends `content` once per `id` (the idempotency key), not before `not_before` and before
    `not_after`. It reports the result as events of the person ("Message Delivered", "Message Suppressed", ...) with
    `message_id`.

    `addresses` has the usable addresses (`email`, `phone`, `push`, `chat`). `consent` has the answers ("granted",
    "denied", "default") for the purpose, and for the purpose on this channel ("email:marketing"). `content_key` is
    campaign/variant/hash. `content` is rendered (`title` is the subject); `context` has the unescaped values.

    With `withdrawn_id` it is not a message: it withdraws the message with that id, if it is still waiting. `history`
    marks messages of a history import, which are never sent.
    """

    id: str
    at: int
    person: str
    channel: str
    campaign: str
    content_key: str
    not_before: int
    not_after: int
    variant: str = ""
    purpose: str = "marketing"
    addresses: dict[str, str] = {}
    consent: dict[str, str] = {}
    content: RenderedContent = RenderedContent()
    context: dict[str, Any] = {}
    language: str = ""
    timezone: str = ""
    workflow: str = ""
    because: Explanation = Explanation()
    withdrawn_id: str = ""
    history: bool = False
    v: int = 1


encode_message = msgspec.json.Encoder().encode
decode_message = msgspec.json.Decoder(Message).decode


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One labelled training example, emitted when its label is known.

    `features` were taken at `features_at` (ms); the label is known since `at`. `score` is the prediction of the live
    model for these features (None without a model).

    Kinds: `propensity` (a session: did it end in an order?), `goal` (an exposure or holdout: was the goal reached in
    the attribution window, with what `value`; `variant` and its `propensity` as assigned), `rfm` (an order: its change
    of the RFM distribution, see `state/playbook/rfm.py`).
    """

    kind: str
    id: str
    person: str
    at: int
    features_at: int
    label: bool
    features: dict[str, float]
    score: float | None = None
    model: str = ""
    campaign: str = ""
    variant: str = ""
    propensity: float | None = None  # not 1.0: msgspec omits a default by identity, so bytes would depend on a reload
    value: float = 0.0
    action_id: str = ""
    v: int = 1


encode_outcome = msgspec.json.Encoder().encode
decode_outcome = msgspec.json.Decoder(Outcome).decode


MAX_MESSAGE_SEQ = 2**53
"""Largest integer that every JSON reader represents exactly."""


class ShardMessage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A message from one person (or shard) to another. `seq` increases per (sender, recipient).

    Kinds: merge_request, merge_response, forward, backfill, lease_request, lease_grant, codes_available. `sender` and
    `recipient` are person keys ("u:ann", "a:1f3c"). `body` depends on the kind and has its own version.
    """

    kind: str
    sender: str
    recipient: str
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_MESSAGE_SEQ)]
    body: dict[str, Any] = {}
    id: str = ""
    v: int = 1


encode_shard_message = msgspec.json.Encoder().encode
decode_shard_message = msgspec.json.Decoder(ShardMessage).decode


Effect = Action | ShardMessage | Message | Outcome | record.DeadLetter
"""An effect has a stream. Its id is (stream, partition, offset, step, n) of a record, or (person, timer, due, step, n)
of a timer."""


def effect_stream(effect: Effect) -> str:
    """Return the internal stream of an effect.

    >>> effect_stream(ShardMessage(kind="merge_request", sender="u:a", recipient="a:x", seq=1))
    'shard-messages'
    """
    return _STREAM_BY_TYPE.get(type(effect), ACTIONS)


_STREAM_BY_TYPE: dict[type, str] = {
    ShardMessage: SHARD_MESSAGES,
    Outcome: OUTCOMES,
    record.DeadLetter: DEAD_LETTERS,
    Message: MESSAGES,
}


def effect_kind(effect: Effect) -> tuple[str, str]:
    """Return the metric labels of an effect: its kind, and the reason (suppress) or kind (dead letter).

    >>> effect_kind(ShardMessage(kind="merge_request", sender="u:a", recipient="a:x", seq=1))
    ('shard_message', '')
    """
    if isinstance(effect, Suppress):
        return "suppress", effect.because.reason
    if isinstance(effect, record.DeadLetter):
        return "dead_letter", effect.kind
    return _KIND_BY_TYPE[type(effect)]


_KIND_BY_TYPE: dict[type, tuple[str, str]] = {
    **{kind: (str(kind.__struct_config__.tag), "") for kind in typing.get_args(Action)},
    ShardMessage: ("shard_message", ""),
    Message: ("message", ""),
    Outcome: ("outcome", ""),
}


class OutboxRow(NamedTuple):
    """One effect in the outbox. `seq` is the number of its commit (0 until committed); `at` is the time of its cause.

    `history` is 1 for effects of a history import. `body` is JSON. `shard` is the shard that owns the row (-1 if
    unknown); the row moves to another worker with its shard.
    """

    seq: int
    id: str
    stream: str
    key: bytes
    at: int
    history: int
    body: bytes
    shard: int = -1
