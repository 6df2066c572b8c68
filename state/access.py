"""Access: statements that can be looked up, so that a condition is asked only of people of whom they are true.

    has = { country = "CA" }, session = { pages_at_least = 3 }
        ─▶ country is one of ("CA",)     looked up in a table by the person's country
        ─▶ pages is at least 3           looked up in a row of numbers

Each is *necessary*: of whom one of them is false, the whole condition is false. It is made from the declaration, not
from the closures, so a kind of statement that this module does not know costs time and changes no answer.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from domain.condition import BANDS, Condition, Did, Filter, Has, InCart, InSession, Orders, Rfm, Score
from domain.money import to_minor
from domain.shop import Shop
from state import traces
from state.leaves import texts
from state.person import Cart, Facts, Person
from state.properties import typed
from state.rfm_groups import group_of

Read = Callable[[Person, Facts], Any]

MOST_WAYS = 12
"""Alternatives of one condition that are told apart; of what has more, only what all of them need is looked up."""


class Access(NamedTuple):
    """One statement that can be looked up. `read` gives what the person has.

    | `kind` | it is true when |
    |---|---|
    | one | that value is among `values` |
    | many | one of those values is |
    | part | one of `values` is a part of that text |
    | least | that number is `least` or more (None: there is none) |

    `about` is the same for statements about the same thing; `share` is a guess of the share of people of whom such a
    statement is true.
    """

    kind: str
    about: str
    read: Read
    share: float
    values: tuple[Any, ...] = ()
    least: float = 0


Way = tuple[Access, ...]
"""Statements all of which are necessary, on one of the alternative ways to make a condition true."""


def ways(condition: Condition, shop: Shop) -> tuple[Way, ...]:
    """The alternative ways to make a condition true, each with what can be looked up of it.

    >>> from domain.condition import Has
    >>> [[one.about for one in way] for way in ways(Condition(has=Has(country="CA", device="mobile")), Shop())]
    [['country', 'device']]
    >>> either = Condition(any=(Condition(has=Has(country="CA")), Condition(in_segment="vip")))
    >>> [[one.about for one in way] for way in ways(either, Shop())]
    [['country'], ['segment']]
    """
    both: list[Access] = []
    if condition.has is not None:
        both += _has(condition.has)
    if condition.session is not None:
        both += _session(condition.session)
    if condition.cart is not None:
        both += _cart(condition.cart, shop)
    if condition.orders is not None:
        both += _orders(condition.orders, shop)
    if condition.score is not None:
        both += _score(condition.score)
    did = condition.did if isinstance(condition.did, tuple) else (condition.did,) if condition.did is not None else ()
    both += [_did(one) for one in did]
    if condition.rfm is not None:
        both += _rfm(condition.rfm)
    if condition.holds_coupon is not None:
        both.append(_many("coupon", texts(condition.holds_coupon.pool), lambda p, f: {c.pool for c in p.coupons}, 0.05))
    found: tuple[Way, ...] = (tuple(both),)
    if condition.in_segment is not None:
        found = _times(found, _in_segment(texts(condition.in_segment)))
    if condition.funnel is not None and condition.funnel.stage is not None:
        found = _times(found, _in_segment(tuple("funnel_" + stage for stage in texts(condition.funnel.stage))))
    for child in condition.all:
        found = _times(found, ways(child, shop))
    if condition.any:
        found = _times(found, tuple(way for child in condition.any for way in ways(child, shop)))
    return found


def _times(some: tuple[Way, ...], others: tuple[Way, ...]) -> tuple[Way, ...]:
    """Every way of the one with every way of the other; only the one where they would be too many."""
    if len(some) * len(others) > MOST_WAYS or () in others:
        return some
    return tuple((*way, *other) for way in some for other in others)


def _one(about: str, values: Iterable[Any], read: Read, share: float) -> Access:
    return Access("one", about, read, share, tuple(dict.fromkeys(values)))


def _many(about: str, values: Iterable[Any], read: Read, share: float) -> Access:
    return Access("many", about, read, share, tuple(dict.fromkeys(values)))


def _least(about: str, least: float, read: Read, share: float = 0.3) -> Access:
    return Access("least", about, read, share, least=least)


# -- what is known of the person ---------------------------------------------------------------------------------


def _has(part: Has) -> list[Access]:
    found: list[Access] = []
    if part.country is not None:
        found.append(_one("country", texts(part.country), _country, 0.15))
    if part.device is not None:
        found.append(_one("device", texts(part.device), _device, 0.4))
    if part.language is not None:
        wanted = dict.fromkeys(text.lower().replace("_", "-") for text in texts(part.language))
        found.append(_many("language", wanted, _languages, 0.2))
    if part.source is not None:
        found.append(_one("source", texts(part.source), _source, 0.05))
    if part.visits_at_least is not None:
        found.append(_least("visits", part.visits_at_least, lambda p, f: f.sessions))
    for name, value in part.trait.items():
        if not isinstance(value, Filter):
            values = value if isinstance(value, tuple) else (value,)
            found.append(_one("trait " + name, dict.fromkeys(typed(one) for one in values), _trait(name), 0.05))
    return found


def _country(person: Person, facts: Facts) -> Any:
    session = person.session
    return (session is not None and session.country) or facts.country


def _device(person: Person, facts: Facts) -> Any:
    session = person.session
    return (session is not None and session.device) or facts.device


def _languages(person: Person, facts: Facts) -> tuple[str, ...]:
    locale = facts.locale.lower().replace("_", "-")
    return locale, locale.partition("-")[0]


def _source(person: Person, facts: Facts) -> Any:
    return facts.last_source.source if facts.last_source is not None else None


def _trait(name: str) -> Read:
    def read(person: Person, facts: Facts) -> Any:
        trait = facts.traits.get(name)
        return None if trait is None or trait.value is None else typed(trait.value)

    return read


# -- the visit -----------------------------------------------------------------------------------------------------


def _session(part: InSession) -> list[Access]:
    found: list[Access] = []
    for noun, least in (("pages", part.pages_at_least), ("products", part.products_at_least),
                        ("searches", part.searches_at_least)):
        if least is not None:
            found.append(_least("visit " + noun, least, _of_visit(noun)))
    if part.first_visit is not None:
        found.append(_one("first visit", (part.first_visit,), _of_visit("first_visit"), 0.5))
    for noun, parts in (("landing_page", part.landing_page_contains), ("referrer", part.referrer_contains)):
        if parts is not None:
            found.append(Access("part", "visit " + noun, _of_visit(noun), 0.1, tuple(dict.fromkeys(texts(parts)))))
    for noun, wanted in (("source", part.source), ("medium", part.medium), ("campaign", part.campaign)):
        if wanted is not None:
            found.append(_one("visit " + noun, texts(wanted), _of_visit(noun), 0.05))
    return found


def _of_visit(noun: str) -> Read:
    def read(person: Person, facts: Facts) -> Any:
        session = person.session
        return None if session is None else getattr(session, noun)

    return read


# -- the cart ------------------------------------------------------------------------------------------------------


def _cart(part: InCart, shop: Shop) -> list[Access]:
    if part.empty is True:
        return [_one("cart filled", (False,), _filled, 0.8)]
    found = [_one("cart filled", (True,), _filled, 0.2)]
    if part.items_at_least is not None:
        found.append(_least("cart pieces", part.items_at_least, _pieces, 0.1))
    if part.value_at_least is not None:
        found.append(_least("cart value", to_minor(part.value_at_least, shop.currency), _value, 0.1))
    if part.contains_category is not None:
        found.append(_many("cart category", texts(part.contains_category), _categories, 0.03))
    if part.contains_product is not None:
        found.append(_many("cart product", texts(part.contains_product), _products, 0.005))
    return found


def _lines(person: Person) -> Cart | None:
    cart = person.cart
    return cart if cart is not None and cart.items else None


def _filled(person: Person, facts: Facts) -> bool:
    return _lines(person) is not None


def _pieces(person: Person, facts: Facts) -> int | None:
    cart = _lines(person)
    return None if cart is None else sum([item.quantity for item in cart.items.values()])


def _value(person: Person, facts: Facts) -> int | None:
    cart = _lines(person)
    return None if cart is None else cart.value


def _categories(person: Person, facts: Facts) -> Iterable[str]:
    cart = person.cart
    return () if cart is None else {item.category for item in cart.items.values()}


def _products(person: Person, facts: Facts) -> Iterable[str]:
    cart = person.cart
    return () if cart is None else cart.items


# -- orders, scores, segments, what was done -----------------------------------------------------------------------


def _orders(part: Orders, shop: Shop) -> list[Access]:
    found: list[Access] = []
    if part.count_at_least is not None:
        found.append(_least("orders", part.count_at_least, lambda p, f: f.order_count, 0.15))
    if part.count_is is not None:
        found.append(_one("order count", (part.count_is,), lambda p, f: f.order_count, 0.15 if part.count_is else 0.8))
    if part.value_at_least is not None and part.value_at_least > 0:
        found.append(_least("revenue", to_minor(part.value_at_least, shop.currency), lambda p, f: f.revenue, 0.1))
    if part.last_within is not None or part.last_before is not None:
        found.append(_one("ordered", (True,), lambda p, f: f.last_order_at > 0, 0.15))
    if part.contains_product is not None:
        found.append(_many("bought", texts(part.contains_product), _bought, 0.01))
    if part.contains_category is not None:
        found.append(_many("bought of", texts(part.contains_category), _bought_of, 0.05))
    return found


def _bought(person: Person, facts: Facts) -> set[str]:
    return {product for order in facts.orders for product in order.products}


def _bought_of(person: Person, facts: Facts) -> set[str]:
    return {category for order in facts.orders for category in order.categories}


def _score(part: Score) -> list[Access]:
    found: list[Access] = []
    if part.at_least is not None:
        found.append(_least("score", part.at_least, lambda p, f: p.score, 0.2))
    if part.band is not None:
        found.append(_one("band", (part.band,), lambda p, f: p.band, 0.2))
    return found


def _in_segment(names: tuple[str, ...]) -> tuple[Way, ...]:
    bands = [name for name in names if name in BANDS]
    others = dict.fromkeys(name for name in names if name not in BANDS)
    found: list[Way] = []
    if bands:
        found.append((_one("band", dict.fromkeys(bands), lambda p, f: p.band, 0.3),))
    if others:
        found.append((_many("segment", others, lambda p, f: p.segments, 0.1),))
    return tuple(found)


def _rfm(part: Rfm) -> list[Access]:
    found: list[Access] = []
    if part.group is not None:
        found.append(_one("rfm", texts(part.group), lambda p, f: group_of(p.rfm), 0.05))
    for place, name, least, most in ((0, "recency", part.recency_at_least, part.recency_at_most),
                                     (1, "frequency", part.frequency_at_least, part.frequency_at_most),
                                     (2, "money", part.money_at_least, part.money_at_most)):
        if least is not None or most is not None:
            found.append(_one("rfm " + name, map(str, range(least or 1, (most or 5) + 1)), _digit(place), 0.1))
    return found


def _digit(place: int) -> Read:
    def read(person: Person, facts: Facts) -> str:
        return person.rfm[place:place + 1]

    return read


def _did(part: Did) -> Access:
    """It happened so often; when, and what it came to, is another question."""
    if traces.plain(part):
        return _least("did " + part.event, part.at_least, _count(part.event), 0.2)
    key = traces.key_of(part)
    return _least("trace " + key, part.at_least, _trace(key), 0.15)


def _count(event: str) -> Read:
    def read(person: Person, facts: Facts) -> int | None:
        count = facts.counts.get(event)
        return None if count is None else count.n

    return read


def _trace(key: str) -> Read:
    def read(person: Person, facts: Facts) -> int | None:
        trace = facts.traces.get(key)
        return None if trace is None else trace.n

    return read
