"""Sessions: when they begin and end, the snapshot that is learned from, and the features of the model.

A session ends 30 minutes after its last event (event time), or when the person returns through another campaign. The
timer `session_end:` is set once per session and half hour, not per event: when it fires and the session is still
active, it is set again.

An event before the start of the session, or more than 30 minutes old without an open session, is late: it counts for
the person, but does not open, extend or close a session.

Features are numbers in a fixed order. Counts and amounts are log(1 + x), ratios and flags are 0 to 1, so all have a
similar scale. A row contains only what was known at one moment, never the label.

| feature | meaning |
|---|---|
| `events`, `products`, `searches`, `exit_intents` | in this session: events, product views, searches, exit intents |
| `product_view_ratio` | product views per event, 0 to 1 |
| `minutes` | minutes since the session began |
| `events_per_minute` | events per minute |
| `cart_adds` | additions to the cart in this session |
| `cart_items`, `cart_value` | items in the cart now; their value (0.2 of the log of major units) |
| `checkout` | 1 after the checkout was started |
| `repeat_views` | earlier views of the last viewed product |
| `price` | the price of that product (same scale as `cart_value`) |
| `distinct_products` | distinct products among the newest views |
| `sessions`, `orders` | earlier sessions and orders |
| `order_recency` | 1 for an order just now, half of it 30 days ago, 0 for none |
| `mobile` | 1 on a phone |

>>> from state.person.model import Person, Session
>>> person = Person(id="a:x", session=Session("00aa", 0, 60_000, events=3, products=3))
>>> round_features(feature_values(person, 60_000))
{'events': 1.386, 'products': 1.386, 'product_view_ratio': 1.0, 'minutes': 0.693, 'events_per_minute': 1.386}
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import log1p

from domain.action import Outcome
from state.context import StepContext
from state.person.model import Person, ProfileFragment, Session
from state.profile.profile import merged_profile

SESSION_TIMEOUT = 30 * 60_000
"""Milliseconds without an event after which a session ends."""

SESSION_TIMER = "session_end:"

_MASK = (1 << 64) - 1


def ends_at(session: Session) -> int:
    """Return when the session ends without further events (ms)."""
    return session.last_at + SESSION_TIMEOUT


def session_id(person: str, started_at: int) -> str:
    """Return the id of a session; deterministic.

    >>> session_id("a:x", 5), len(session_id("a:x", 6))
    ('6cd66276c547a742', 16)
    """
    return blake2b(f"{person} {started_at}".encode(), digest_size=8).hexdigest()


def session_uniform(session: str, n: int) -> float:
    """Return a number in [0, 1), uniform and independent over `n`, that depends only on the session id and `n`.

    Uses splitmix64, because the draws of a checksum would depend on each other.

    >>> round(session_uniform("6cd66276c547a742", 1), 3), round(session_uniform("6cd66276c547a742", 2), 3)
    (0.727, 0.244)
    """
    z = int(session, 16) + n * 0x9E3779B97F4A7C15 & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return (z ^ z >> 31) / 18446744073709551616.0


def open_session(person: Person, fragment: ProfileFragment, at: int) -> Session:
    """Open a session at `at` (ms), count it, and set its timer."""
    is_first = not fragment.sessions and not any(other.sessions for other in person.fragments.values())
    fragment.sessions += 1
    session = Session(session_id(person.id, at), at, at, first_session=is_first)
    person.session = session
    person.timers[SESSION_TIMER] = at + SESSION_TIMEOUT
    return session


def close_session(person: Person, context: StepContext, step: str) -> Sequence[Outcome]:
    """Close the open session. If it has no outcome yet, its snapshot becomes one: did it end in an order?"""
    session = person.session
    person.session = None
    person.timers.pop(SESSION_TIMER, None)
    if session is None or session.labelled or not session.snapshot:
        return ()
    return (label_session(person, session, session.ordered, context, step),)


def label_session(person: Person, session: Session, ordered: bool, context: StepContext, step: str) -> Outcome:
    """Return the only outcome of a session, with the features of its snapshot."""
    session.labelled = True
    return Outcome(
        kind="propensity",
        id=context.next_effect_id(step),
        person=person.id,
        at=context.now,
        features_at=session.snapshot_at,
        label=ordered,
        features=session.snapshot,
        score=session.snapshot_score,
        model=session.snapshot_model,
    )


def device_class(user_agent: str) -> str:
    """Return the device class from the user agent, for events without one from the collector.

    >>> device_class("Mozilla/5.0 (iPhone; CPU iPhone OS 18_7)"), device_class("Mozilla/5.0 (X11; Linux x86_64)")
    ('mobile', 'desktop')
    """
    if "iPad" in user_agent or "Tablet" in user_agent or ("Android" in user_agent and "Mobile" not in user_agent):
        return "tablet"
    return "mobile" if "Mobi" in user_agent or "iPhone" in user_agent else "desktop"


FEATURE_NAMES = (
    "events",
    "products",
    "searches",
    "exit_intents",
    "product_view_ratio",
    "minutes",
    "events_per_minute",
    "cart_adds",
    "cart_items",
    "cart_value",
    "checkout",
    "repeat_views",
    "price",
    "distinct_products",
    "sessions",
    "orders",
    "order_recency",
    "mobile",
)

_NO_FEATURES = (0.0,) * len(FEATURE_NAMES)
_DAY_MS = 86_400_000.0


def feature_values(person: Person, now: int) -> tuple[float, ...]:
    """Return the features of the open session at `now` (ms), in the order of FEATURE_NAMES; zeros without a session."""
    session = person.session
    if session is None:
        return _NO_FEATURES
    profile = merged_profile(person)
    events = session.events
    minutes = (now - session.started_at) / 60_000 if now > session.started_at else 0.0
    items = value = checkout = 0.0
    cart = person.cart
    if cart is not None:
        items = log1p(sum([item.quantity for item in cart.items.values()]))
        value = 0.2 * log1p(cart.value / 100)
        checkout = 1.0 if cart.checkout_at else 0.0
    repeat_views = price = distinct_products = 0.0
    if profile.viewed_products:
        product = profile.viewed_products[-1]
        repeat_views = log1p(max(0, product.views - 1))
        price = 0.0 if product.currency else 0.2 * log1p(product.price / 100)
        distinct_products = log1p(len(profile.viewed_products) - 1)
    recency = 0.0
    if profile.last_order_at:
        recency = 1.0 / (1.0 + max(0, now - profile.last_order_at) / (30 * _DAY_MS))
    return (
        log1p(events),
        log1p(session.products),
        log1p(session.searches),
        log1p(session.exit_intents),
        session.products / events if events else 0.0,
        log1p(minutes),
        log1p(events / (minutes if minutes > 1 else 1.0)),
        log1p(session.cart_adds),
        items,
        value,
        checkout,
        repeat_views,
        price,
        distinct_products,
        log1p(max(0, profile.sessions - 1)),
        log1p(max(0, profile.order_count)),
        recency,
        1.0 if session.device == "mobile" else 0.0,
    )


def name_features(values: Iterable[float]) -> dict[str, float]:
    """Return a row with names; zeros are omitted and read as 0."""
    return {name: value for name, value in zip(FEATURE_NAMES, values, strict=True) if value}


def round_features(values: Iterable[float]) -> dict[str, float]:
    """Return a row with names, rounded for display."""
    return {name: round(value, 3) for name, value in name_features(values).items()}
