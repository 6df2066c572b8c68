"""The person: everything the engine stores about one human being.

    Person ── fragments: origin -> ProfileFragment   learned under one id (mergeable, undoable)
          ├── session, cart                          open now (moves along on login)
          ├── segments, exposures, preloaded         memberships and decisions
          └── timers, seen_messages, identity_links  scheduled work, deduplication, other ids

The structs are mutable because the shard updates them in place; all other code treats them as values. All are bounded
in size (see the MAX_ constants). Times are ms since 1970, money is integer minor units.
"""

from collections.abc import Mapping
from functools import cached_property

import msgspec

from domain.record import SHARD_INPUT_STREAMS
from state.person.derived import DerivedState


class ExposureCounter(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """How often a campaign was shown to this person, or sent to them and accepted by a channel.

    `times` are the newest exposures, oldest first (ms).
    """

    total: int = 0
    last_at: int = 0
    session_id: str = ""
    in_session: int = 0
    day: int = 0
    in_day: int = 0
    times: list[int] = []


class PendingSend(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A decided send without confirmation yet (shown, or accepted); released at `until`.

    `content_key` identifies the content of a slot. `run_id` is the run of the `workflow` that requested the send.
    """

    action_id: str
    campaign: str
    until: int
    anonymous_id: str = ""
    variant: str = ""
    propensity: float = 1.0
    workflow: str = ""
    content_key: str = ""
    run_id: str = ""


class PreloadedOffer(msgspec.Struct, array_like=True, gc=False):
    """An offer preloaded in the browser.

    `content_key` identifies the content: a hash of what it is made of, "/", and a hash of the rendered content.
    """

    campaign: str
    action_id: str
    content_key: str
    until: int
    anonymous_id: str = ""
    variant: str = ""
    propensity: float = 1.0


class Decision(msgspec.Struct, array_like=True, gc=False):
    """The last decision about a campaign, for `attimo explain`.

    If the campaign was suppressed, `reason` and `detail` give the reason. If it was sent, preloaded or shown, `reason`
    is the trigger and `detail` the conditions that were true.
    """

    at: int
    kind: str
    reason: str
    detail: str = ""
    action_id: str = ""


class PastDecision(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """An earlier decision about a campaign (see `Decision`)."""

    campaign: str
    at: int
    kind: str
    reason: str = ""
    detail: str = ""
    action_id: str = ""


class WorkflowRun(msgspec.Struct, omit_defaults=True, gc=False):
    """One run of a person through a workflow. `version` is the hash of the workflow at the start of the run.

    `step_index` is the current step (`step_id` its id), `step_since` the time of arrival, `wait_until` the end of the
    wait (0: no wait), `waiting_for` what the step waits for. `trigger` names what made the person enter.
    """

    workflow: str
    version: str
    started_at: int
    step_index: int = 0
    step_since: int = 0
    wait_until: int = 0
    waiting_for: str = ""
    trigger: str = ""
    steps_taken: int = 0
    step_id: str = ""


class CompletedRuns(msgspec.Struct, array_like=True, gc=False):
    """How often a person completed a workflow, and the time of the last exit (ms)."""

    count: int = 0
    last_exit_at: int = 0


class Coupon(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A coupon of this person: `state` is reserved, redeemed, expired or released.

    `origin` is the id it was reserved under, if it moved here from another id.
    """

    code: str
    pool: str
    state: str
    reserved_at: int
    until: int
    campaign: str = ""
    order_id: str = ""
    redeemed_at: int = 0
    origin: str = ""


class PoolAllocator(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The allocator of a code pool: the first `granted` codes are leased to shards.

    `checksum` detects a change of these codes.
    """

    granted: int = 0
    checksum: str = ""


class CodeCache(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """The code cache of one shard for one pool. `codes` are leased and not assigned to a person, oldest first.

    `requested_at` is the time of the open lease request (0: none). `denied_reason` is the reason for an empty grant,
    valid for the playbook `denied_by_playbook`. `waiting` are the persons who wait for codes. `state_counts` counts
    coupons by state; the sum over all caches of the pool is the total. `unknown_redemptions` counts codes of the pool
    in orders of people who do not hold them.
    """

    codes: list[str] = []
    requested_at: int = 0
    denied_reason: str = ""
    denied_by_playbook: str = ""
    waiting: list[str] = []
    state_counts: dict[str, int] = {}
    unknown_redemptions: int = 0


class PendingGoal(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A campaign that was shown (or held out) and whose goal can still be reached, until `until` (ms)."""

    campaign: str
    action_id: str
    opened_at: int
    until: int
    variant: str = ""
    propensity: float = 1.0


class DeferredCampaign(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A campaign to be decided at `due` (ms), because its trigger has a delay or it was postponed
    (`state/decisions/deferred.py`).

    `run_id` is the workflow run that requested it. `pool` is set if it waits for codes of that pool, at most until
    `due`.
    """

    due: int
    trigger: str
    run_id: str = ""
    pool: str = ""


class SentMessage(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A message to this person.

    `status` is sent (decided, on its way), delivered, opened, clicked, bounced or suppressed.
    """

    message_id: str
    campaign: str
    channel: str
    sent_at: int
    status: str = "sent"
    variant: str = ""
    purpose: str = ""
    address_hash: str = ""


class IdentityLink(msgspec.Struct, array_like=True, gc=False):
    """Another id of the same person: `state` is requested or merged."""

    state: str
    at: int


class FirstMerge(msgspec.Struct, array_like=True, gc=False):
    """The first merge of this id: the target, and the shard's positions at that time.

    Records behind these positions were forwarded. See `ordered_positions`.
    """

    target: str
    positions: list[int]


def ordered_positions(positions: Mapping[str, int]) -> list[int]:
    """Return the positions of a shard in the order of SHARD_INPUT_STREAMS.

    >>> ordered_positions({"shard-messages": 7, "clicks": 3})
    [3, -1, -1, -1, 7]
    """
    return [positions.get(stream, -1) for stream in SHARD_INPUT_STREAMS]


class PeerSequence(msgspec.Struct, array_like=True, gc=False):
    """The last shard message sequence sent to and received from another person."""

    last_sent: int = 0
    last_received: int = 0


class PopulationSnapshot(msgspec.Struct, array_like=True, gc=False):
    """A customer as counted in the population (`state/membership/quintiles.py`). `revenue` is net."""

    last_order_at: int = 0
    order_count: int = 0
    revenue: int = 0


class LifetimeCount(msgspec.Struct, array_like=True, gc=False):
    """Number of events, time of the first and of the last."""

    count: int = 0
    first_at: int = 0
    last_at: int = 0


class ViewedProduct(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A viewed product: the data of the latest view, and the number of views.

    `price` is in the shop's currency, unless `currency` names another currency without an exchange rate.
    """

    product_id: str
    name: str = ""
    category: str = ""
    brand: str = ""
    price: int = 0
    url: str = ""
    image_url: str = ""
    views: int = 0
    at: int = 0
    currency: str = ""


class Search(msgspec.Struct, array_like=True, gc=False):
    """A search query and its time."""

    query: str
    at: int


class Order(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One order, in the shop's currency. `value` is the amount paid for goods, `refunded` the amount paid back.

    `currency` is set only for a currency without an exchange rate: such values are stored and not summed.
    """

    order_id: str
    at: int
    value: int = 0
    currency: str = ""
    items: int = 0
    offline: bool = False
    refunded: int = 0
    cancelled: bool = False
    products: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class Trait(msgspec.Struct, array_like=True, gc=False):
    """The latest value of a trait. Later wins, then the greater `tiebreak` (a checksum of the message id)."""

    at: int
    value: str | int | float | bool | None
    tiebreak: int = 0


class Source(msgspec.Struct, array_like=True, gc=False):
    """The traffic source of a session."""

    source: str = ""
    medium: str = ""
    campaign: str = ""
    at: int = 0


class EventCounter(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """Counter of the events that match one condition: total count, total sum, and the newest times, oldest first.

    `amounts` parallels `times` if a property is summed, else it is empty. Eviction of old times does not change `count`
    and `total`.
    """

    count: int = 0
    total: float = 0.0
    first_at: int = 0
    times: list[int] = []
    amounts: list[float] = []


MAX_LIFETIME_COUNTS = 64
MAX_VIEWED_PRODUCTS = 20
MAX_CATEGORIES = 20
MAX_SEARCHES = 10
MAX_ORDERS = 20
MAX_TRAITS = 64
MAX_CART_ITEMS = 100
MAX_SEEN_MESSAGES = 2_500
SEEN_MESSAGES_TTL = 48 * 3_600_000
MAX_TEXT_LENGTH = 256
MAX_FRAGMENTS = 32
MAX_EVICTED_ORDERS = 200
MAX_CONSENT = 32
MAX_COUNTERS = 200
MAX_COUNTER_TIMES = 100
MAX_RUNS = 50
MAX_COMPLETED_RUNS = 200
MAX_COUPONS = 50
MAX_PENDING_GOALS = 100
MAX_DEFERRED = 50
MAX_MESSAGES = 50
MAX_STATIC_SEGMENTS = 200
MAX_PENDING_SENDS = 200
MAX_PEERS = 200
MAX_ASSIGNMENTS = 500


class ProfileFragment(msgspec.Struct, omit_defaults=True, gc=False):
    """What was learned under one id. `version` rises with every change; of two versions the higher one wins.

    `first_seen` is the time of the first event, `last_seen` of the last event by the person (0: only server events).

    `revenue` is net of refunds and cancellations. `order_count` excludes cancelled orders and includes offline orders.
    The lists hold the newest entries, newest last. `evicted_orders` holds 8-byte hashes of the order ids that are no
    longer in the list, oldest first, so that none is counted twice. `counters` belong to the conditions of the live
    playbook (`state/conditions/counters.py`), by a short hash of their specification.
    """

    version: int = 0
    first_seen: int = 0
    last_seen: int = 0
    sessions: int = 0
    pages: int = 0
    lifetime_counts: dict[str, LifetimeCount] = {}
    viewed_products: list[ViewedProduct] = []
    category_views: dict[str, int] = {}
    searches: list[Search] = []
    orders: list[Order] = []
    order_count: int = 0
    revenue: int = 0
    first_order_at: int = 0
    last_order_at: int = 0
    offline_orders: int = 0
    refunds: int = 0
    traits: dict[str, Trait] = {}
    country: str = ""
    device: str = ""
    locale: str = ""
    timezone: str = ""
    first_source: Source | None = None
    last_source: Source | None = None
    consent: dict[str, Trait] = {}
    evicted_orders: bytes = b""
    counters: dict[str, EventCounter] = {}


class Session(msgspec.Struct, omit_defaults=True, gc=False):
    """The open session. It ends 30 minutes after its last event, or when a new campaign source starts another.

    `snapshot` holds the features at one random but reproducible event of the session (`snapshot_at`, ms, out of
    `snapshot_candidates`). It becomes an outcome when the label is known. `labelled`: the outcome was emitted; there is
    at most one. `time_triggered` are the campaigns triggered by the time on site, `dismissed` the dismissed ones;
    neither is shown again in this session. `filled_slots` maps campaigns counted as shown in a slot to a hash of their
    content. `cancelled_offer` is the exit offer that the latest event cancelled: time alone does not preload it again.
    """

    id: str
    started_at: int
    last_at: int
    anonymous_id: str = ""
    first_session: bool = False
    pages: int = 0
    events: int = 0
    products: int = 0
    cart_adds: int = 0
    searches: int = 0
    exit_intents: int = 0
    landing_page: str = ""
    referrer: str = ""
    source: str = ""
    device: str = ""
    country: str = ""
    ordered: bool = False
    snapshot: dict[str, float] = {}
    snapshot_at: int = 0
    snapshot_score: float | None = None
    snapshot_model: str = ""
    snapshot_candidates: int = 0
    labelled: bool = False
    medium: str = ""
    campaign: str = ""
    ordered_at: int = 0
    time_triggered: list[str] = []
    dismissed: list[str] = []
    filled_slots: dict[str, str] = {}
    cancelled_offer: str = ""


class CartItem(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One line of a cart. `price` is per unit; `currency` is set only if it has no exchange rate."""

    quantity: int
    price: int = 0
    name: str = ""
    category: str = ""
    at: int = 0
    currency: str = ""


class Cart(msgspec.Struct, omit_defaults=True, gc=False):
    """The current cart; empty after an order."""

    cart_id: str = ""
    items: dict[str, CartItem] = {}
    currency: str = ""
    created_at: int = 0
    updated_at: int = 0
    checkout_at: int = 0

    @property
    def value(self) -> int:
        """Return the value of the goods, in minor units of the shop's currency.

        >>> Cart(items={"p": CartItem(quantity=2, price=450), "q": CartItem(1, 7, currency="XXX")}).value
        900
        """
        return sum([item.quantity * item.price for item in self.items.values() if not item.currency])


class Person(msgspec.Struct, omit_defaults=True, dict=True):
    """One person. `id` is the person key: "u:" + user_id if known, else "a:" + anonymous_id.

    - `merged_into`: the known person this profile moved to; records are forwarded there. `first_merge` says since when.
    - `playbook_hash`: the first 12 characters of the hash of the playbook that segments were last evaluated with.
    - `timers`: "kind:id" -> due time.
    - `decisions`: the last decision about each campaign; `decision_history`: earlier ones (`state/decisions/log.py`).
    - `static_segments`: also contained in `segments`. `rfm`: the RFM cell ("543").
    - `assignments`: the variant of each experiment. `suppressed_addresses`: see `state/person/addresses.py` (ms).
    - `deferred`: campaigns with a delayed or postponed trigger (timers "later:<campaign>").
    - `population_snapshot`: this customer as counted in the quintiles (`state/membership/rfm.py`).
    - `pool_allocator` and `code_cache` belong to no human being: ids "c:<pool>" and "d:<pool>#…", which no event can
      contain (`state/coupons/leasing.py`).

    `derived` holds computed values while the person is in memory; it is never stored (`dict=True` gives it its place).
    """

    id: str
    v: int = 1
    fragments: dict[str, ProfileFragment] = {}
    session: Session | None = None
    cart: Cart | None = None
    segments: dict[str, int] = {}
    band: str = ""
    score: float | None = None
    exposures: dict[str, ExposureCounter] = {}
    pending_sends: list[PendingSend] = []
    preloaded: dict[str, PreloadedOffer] = {}
    decisions: dict[str, Decision] = {}
    decision_history: list[PastDecision] = []
    timers: dict[str, int] = {}
    seen_messages: bytes = b""
    identity_links: dict[str, IdentityLink] = {}
    peer_sequences: dict[str, PeerSequence] = {}
    merged_into: str = ""
    first_merge: FirstMerge | None = None
    bot: bool = False
    playbook_hash: str = ""
    static_segments: dict[str, int] = {}
    rfm: str = ""
    runs: dict[str, WorkflowRun] = {}
    completed_runs: dict[str, CompletedRuns] = {}
    coupons: list[Coupon] = []
    assignments: dict[str, str] = {}
    pending_goals: list[PendingGoal] = []
    messages: list[SentMessage] = []
    suppressed_addresses: dict[str, int] = {}
    deferred: dict[str, list[DeferredCampaign]] = {}
    pool_allocator: PoolAllocator | None = None
    code_cache: CodeCache | None = None
    population_snapshot: PopulationSnapshot | None = None

    @cached_property
    def derived(self) -> DerivedState:
        """Return the values computed from this person; `del person.derived` drops them."""
        return DerivedState()

    def own_fragment(self) -> ProfileFragment:
        """Return the fragment of the person's own id; create it if missing."""
        fragment = self.fragments.get(self.id)
        if fragment is None:
            fragment = self.fragments[self.id] = ProfileFragment()
        return fragment


def person_key(user_id: str | None, anonymous_id: str | None) -> str:
    """Return the person key of an event; "" if it has no id.

    >>> person_key("ann", "x"), person_key(None, "x"), person_key(None, None)
    ('u:ann', 'a:x', '')
    """
    if user_id:
        return "u:" + user_id
    return "a:" + anonymous_id if anonymous_id else ""


def routing_key(person: str) -> bytes:
    """Return the record key of a person: the id without its prefix, as the shop's producers write it.

    >>> routing_key("u:ann")
    b'ann'
    """
    return person[2:].encode()
