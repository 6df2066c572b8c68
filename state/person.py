"""A person: everything the engine remembers of one human being, as one value.

    Person ── facets: origin -> Facts      what was learned under one id (mergeable, undoable)
          ├── session, cart                what is open right now (moves along on login)
          ├── segments, said, armed        where they belong, what was said to them
          └── timers, seen, links          what is due, what was already folded, who else they are

The structs are mutable because the shard folds in place; every other user treats them as values. All are bounded
in size (the limits stand beside the fields). All times are ms since 1970, all money is integer minor units.
"""

import msgspec

from state.dealings import (
    Armed,
    Been,
    Counted,
    Coupon,
    Decision,
    Desk,
    Earlier,
    Home,
    Hope,
    Later,
    Link,
    Mail,
    Moved,
    Reserved,
    Run,
    Said,
    Written,
)

__all__ = [
    "MAX_ASSIGNED",
    "MAX_BEEN",
    "MAX_CART_ITEMS",
    "MAX_CATEGORIES",
    "MAX_CONSENT",
    "MAX_COUNTS",
    "MAX_COUPONS",
    "MAX_FACETS",
    "MAX_HOPES",
    "MAX_LATER",
    "MAX_MAIL",
    "MAX_OLDER_ORDERS",
    "MAX_ORDERS",
    "MAX_PRODUCTS",
    "MAX_RESERVED",
    "MAX_RUNS",
    "MAX_SEARCHES",
    "MAX_SEEN",
    "MAX_TAGS",
    "MAX_TEXT",
    "MAX_TIMES",
    "MAX_TRACES",
    "MAX_TRAITS",
    "MAX_WRITTEN",
    "SEEN_FOR",
    "Armed",
    "Been",
    "Cart",
    "CartItem",
    "Count",
    "Counted",
    "Coupon",
    "Decision",
    "Desk",
    "Earlier",
    "Facts",
    "Home",
    "Hope",
    "Later",
    "Link",
    "Mail",
    "Moved",
    "Order",
    "Person",
    "ProductSeen",
    "Reserved",
    "Run",
    "Said",
    "Search",
    "Session",
    "Source",
    "Trace",
    "Trait",
    "Written",
    "person_key",
    "routing_key",
]


class Count(msgspec.Struct, array_like=True, gc=False):
    """How often, first when, last when."""

    n: int = 0
    first_at: int = 0
    last_at: int = 0


class ProductSeen(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """A product this person looked at: the latest view and how many.

    `price` is in the shop's currency, unless `currency` names another one that has no rate.
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
    """What they searched for, and when."""

    query: str
    at: int


class Order(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One order, in the shop's currency. `value` is what was paid for goods; `refunded` of it came back.

    `currency` is set only when it is another one that has no rate: such a value is kept, and not summed.
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
    """The latest value of a trait; the later one wins, then the greater mark (a checksum of the message id)."""

    at: int
    value: str | int | float | bool | None
    mark: int = 0


class Source(msgspec.Struct, array_like=True, gc=False):
    """Where a visit came from."""

    source: str = ""
    medium: str = ""
    campaign: str = ""
    at: int = 0


class Trace(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One kind of event that a condition counts: how often in all, the sum in all, and the newest times, oldest first.

    `amounts` goes with `times` where a number in the events is summed, else it is empty. `n` and `total` go on counting
    when old times are dropped.
    """

    n: int = 0
    total: float = 0.0
    first_at: int = 0
    times: list[int] = []
    amounts: list[float] = []


MAX_COUNTS = 64
MAX_PRODUCTS = 20
MAX_CATEGORIES = 20
MAX_SEARCHES = 10
MAX_ORDERS = 20
MAX_TRAITS = 64
MAX_CART_ITEMS = 100
MAX_SEEN = 2_500
SEEN_FOR = 48 * 3_600_000
MAX_TEXT = 256
MAX_FACETS = 32
MAX_OLDER_ORDERS = 200
MAX_CONSENT = 32
MAX_TRACES = 200
MAX_TIMES = 100
MAX_RUNS = 50
MAX_BEEN = 200
MAX_COUPONS = 50
MAX_HOPES = 100
MAX_LATER = 50
MAX_WRITTEN = 50
MAX_TAGS = 200
MAX_RESERVED = 200
MAX_MAIL = 200
MAX_ASSIGNED = 500


class Facts(msgspec.Struct, omit_defaults=True, gc=False):
    """What was learned under one id. `version` rises with every fold; of two versions the higher one is kept.

    `first_seen` is when they were first heard of, `last_seen` when they were last here (0: only told of).

    `revenue` is net of refunds and cancellations, `order_count` is without cancelled orders, offline ones included.
    The lists hold the newest entries, newest last. `older_orders` holds 8-byte hashes of the order ids that are no
    longer in the list, oldest first, so that none of them is counted twice. `traces` are kept for the conditions of the
    live playbook (`state/traces.py`), by a short hash of what they count.
    """

    version: int = 0
    first_seen: int = 0
    last_seen: int = 0
    sessions: int = 0
    pages: int = 0
    counts: dict[str, Count] = {}
    products: list[ProductSeen] = []
    categories: dict[str, int] = {}
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
    older_orders: bytes = b""
    traces: dict[str, Trace] = {}


class Session(msgspec.Struct, omit_defaults=True, gc=False):
    """The visit that is open: it ends 30 minutes after its last event, or when a new campaign source starts another.

    `snapshot` holds the features at one moment of the visit, chosen evenly among its events and reproducibly
    (`snapshot_at`, ms; `snapshots` moments were offered so far); it becomes an outcome when the label is known.
    `labelled` says that the outcome was emitted: there is never a second one. `sent` names the campaigns that fired
    once because of the time spent in this visit, `dismissed` those that were closed by hand; neither comes again in it.
    `filled` has what was counted as shown in a slot in this visit: campaign -> what it said (a hash). `taken_back` is
    the exit offer that the latest event took back: time alone does not arm it again.
    """

    id: str
    started_at: int
    last_at: int
    anonymous_id: str = ""
    first_visit: bool = False
    pages: int = 0
    events: int = 0
    products: int = 0
    added: int = 0
    searches: int = 0
    exits: int = 0
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
    snapshots: int = 0
    labelled: bool = False
    medium: str = ""
    campaign: str = ""
    ordered_at: int = 0
    sent: list[str] = []
    dismissed: list[str] = []
    filled: dict[str, str] = {}
    taken_back: str = ""


class CartItem(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """One line of a cart; `price` is of one piece, in the shop's currency unless `currency` names one with no rate."""

    quantity: int
    price: int = 0
    name: str = ""
    category: str = ""
    at: int = 0
    currency: str = ""


class Cart(msgspec.Struct, omit_defaults=True, gc=False):
    """The cart as it stands; empty after an order."""

    cart_id: str = ""
    items: dict[str, CartItem] = {}
    currency: str = ""
    created_at: int = 0
    updated_at: int = 0
    checkout_at: int = 0

    @property
    def value(self) -> int:
        """What the goods cost, in minor units of the shop's currency.

        >>> Cart(items={"p": CartItem(quantity=2, price=450), "q": CartItem(1, 7, currency="XXX")}).value
        900
        """
        return sum([item.quantity * item.price for item in self.items.values() if not item.currency])


class Person(msgspec.Struct, omit_defaults=True, dict=True):
    """One person. `id` is the person key: "u:" + user_id where known, else "a:" + anonymous_id.

    `alias_of` is set when these facts moved to a known person: from then on, records are forwarded there.
    `moved` says to whom that was first, and since which records.
    `rules` is the hash of the playbook that the segments were last matched with (its first 12 characters).
    `timers` maps "kind:id" to its due time. `seen` holds 8-byte hashes and minutes of the last message ids.
    `decisions` are the last words about each campaign, `earlier` what was decided before them (`state/decisions.py`).
    `tags` are the static segments they were put into (they stand in `segments` too), `rfm` is their cell ("543"),
    `runs` their ways through workflows by run id, `been` those they finished, `assigned` the variant of each
    experiment, `unreachable` the addresses that were given up (`state/addresses.py`; ms), `later` the campaigns whose
    occasion was delayed or put off, with what it was (timers "later:<campaign>").
    `counted` is what the population's fifths know of them (`state/customers.py`).
    `home` and `desk` belong to no human being: where a pool of codes is leased out, and where a shard keeps what it was
    leased (ids "c:<pool>" and "d:<pool>#…", which no event can name; `state/desk.py`).
    (`dict=True` leaves room for what may be derived from a person while it is hot; it is never stored.)
    """

    id: str
    v: int = 1
    facets: dict[str, Facts] = {}
    session: Session | None = None
    cart: Cart | None = None
    segments: dict[str, int] = {}
    band: str = ""
    score: float | None = None
    said: dict[str, Said] = {}
    reserved: list[Reserved] = []
    armed: dict[str, Armed] = {}
    decisions: dict[str, Decision] = {}
    earlier: list[Earlier] = []
    timers: dict[str, int] = {}
    seen: bytes = b""
    links: dict[str, Link] = {}
    mail: dict[str, Mail] = {}
    alias_of: str = ""
    moved: Moved | None = None
    bot: bool = False
    rules: str = ""
    tags: dict[str, int] = {}
    rfm: str = ""
    runs: dict[str, Run] = {}
    been: dict[str, Been] = {}
    coupons: list[Coupon] = []
    assigned: dict[str, str] = {}
    hopes: list[Hope] = []
    written: list[Written] = []
    unreachable: dict[str, int] = {}
    later: dict[str, list[Later]] = {}
    home: Home | None = None
    desk: Desk | None = None
    counted: Counted | None = None

    def own(self) -> Facts:
        """The facet of the person's own id, made when first asked for."""
        facts = self.facets.get(self.id)
        if facts is None:
            facts = self.facets[self.id] = Facts()
        return facts


def person_key(user_id: str | None, anonymous_id: str | None) -> str:
    """The person key: who this is about; empty when nobody is named.

    >>> person_key("ann", "x"), person_key(None, "x"), person_key(None, None)
    ('u:ann', 'a:x', '')
    """
    if user_id:
        return "u:" + user_id
    return "a:" + anonymous_id if anonymous_id else ""


def routing_key(person: str) -> bytes:
    """The record key of a person: the id without its prefix, as the shop's producers write it.

    >>> routing_key("u:ann")
    b'ann'
    """
    return person[2:].encode()
