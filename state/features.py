"""Features: what a model is told of a visit, as a row of plain numbers in a fixed order.

Counts and amounts are log(1 + x), so that the tenth page weighs less than the second; shares and flags are 0 to 1. So
all of them are of a like size, and one rare event cannot throw a model.
Nothing here knows the future, and nothing here is a label: a row is what was known at one moment.

| feature | what it is |
|---|---|
| `events`, `products`, `searches`, `exits` | in this visit: all events, product views, searches, exit intents |
| `views` | product views per event, 0 to 1 |
| `minutes` | minutes since the visit began |
| `pace` | events per minute |
| `added` | how often something was put in the cart in this visit |
| `cart_pieces`, `cart_value` | pieces in the cart now; what they cost (a fifth of the log of major units, about) |
| `checkout` | 1 once the checkout was started |
| `again` | earlier views of the product looked at last |
| `price` | the price of that product (likewise) |
| `breadth` | different products among the newest ones |
| `visits`, `orders` | visits and orders so far, this visit included |
| `order_recency` | 1 for an order just now, half of it 30 days ago, 0 for none |
| `mobile` | 1 on a phone |

>>> from state.person import Person, Session
>>> person = Person(id="a:x", session=Session("00aa", 0, 60_000, events=3, products=3))
>>> described(row(person, 60_000))
{'events': 1.386, 'products': 1.386, 'views': 1.0, 'minutes': 0.693, 'pace': 1.386}
"""

from collections.abc import Iterable
from math import log1p

from state.person import Person
from state.view import known

NAMES = (
    "events", "products", "searches", "exits", "views", "minutes", "pace", "added", "cart_pieces", "cart_value",
    "checkout", "again", "price", "breadth", "visits", "orders", "order_recency", "mobile",
)

_NONE = (0.0,) * len(NAMES)
_DAY = 86_400_000.0


def row(person: Person, now: int) -> tuple[float, ...]:
    """The features of a person's open visit at `now` (ms, its last event), in the order of NAMES; all 0 without one."""
    session = person.session
    if session is None:
        return _NONE
    facts = known(person)
    events = session.events
    minutes = (now - session.started_at) / 60_000 if now > session.started_at else 0.0
    pieces = value = checkout = 0.0
    cart = person.cart
    if cart is not None:
        pieces = log1p(sum([item.quantity for item in cart.items.values()]))
        value = 0.2 * log1p(cart.value / 100)
        checkout = 1.0 if cart.checkout_at else 0.0
    again = price = breadth = 0.0
    if facts.products:
        product = facts.products[-1]
        again = log1p(max(0, product.views - 1))
        price = 0.0 if product.currency else 0.2 * log1p(product.price / 100)
        breadth = log1p(len(facts.products) - 1)
    recency = 0.0
    if facts.last_order_at:
        recency = 1.0 / (1.0 + max(0, now - facts.last_order_at) / (30 * _DAY))
    return (
        log1p(events), log1p(session.products), log1p(session.searches), log1p(session.exits),
        session.products / events if events else 0.0, log1p(minutes), log1p(events / (minutes if minutes > 1 else 1.0)),
        log1p(session.added), pieces, value, checkout, again, price, breadth, log1p(max(0, facts.sessions - 1)),
        log1p(max(0, facts.order_count)), recency, 1.0 if session.device == "mobile" else 0.0,
    )


def named(values: Iterable[float]) -> dict[str, float]:
    """A row with its names; what is 0 is left out, and counts as 0 wherever it is read."""
    return {name: value for name, value in zip(NAMES, values, strict=True) if value}


def described(values: Iterable[float]) -> dict[str, float]:
    """A row with its names, rounded, for people."""
    return {name: round(value, 3) for name, value in named(values).items()}
