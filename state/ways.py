"""Ways: what can be looked up of a condition, so that it is asked only of people of whom it may be true.

    has = { country = "CA" }, session = { pages_at_least = 3 }   ─▶  one way: country is CA, and pages is at least 3
    any = [...]                                                  ─▶  one way for each alternative

Each statement is *necessary*: where one of a way is false, the condition is not true that way, and time alone does not
change that. They are made from the declaration, not from the closures, so a kind of statement that these modules do not
know costs time and changes no answer.
"""

from domain.condition import Condition
from domain.shop import Shop
from state import access_known as known
from state import access_visit as visit
from state.access import Access
from state.leaves import texts

MOST_WAYS = 12
"""Alternatives of one condition that are told apart; of what has more, only what all of them need is looked up."""

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
        both += known.has(condition.has)
    if condition.session is not None:
        both += visit.session(condition.session)
    if condition.cart is not None:
        both += visit.cart(condition.cart, shop)
    if condition.orders is not None:
        both += known.orders(condition.orders, shop)
    if condition.score is not None:
        both += known.score(condition.score)
    did = condition.did if isinstance(condition.did, tuple) else (condition.did,) if condition.did is not None else ()
    for one in did:
        both += known.did(one)
    if condition.sequence is not None:
        both += known.sequence(condition.sequence)
    if condition.rfm is not None:
        both += known.rfm(condition.rfm)
    if condition.holds_coupon is not None:
        both.append(known.coupon(condition.holds_coupon))
    if condition.was_said is not None:
        both.append(known.was_said(condition.was_said))
    found: tuple[Way, ...] = (tuple(both),)
    if condition.in_segment is not None:
        found = _times(found, _alternatives(texts(condition.in_segment)))
    if condition.funnel is not None and condition.funnel.stage is not None:
        found = _times(found, _alternatives(tuple("funnel_" + stage for stage in texts(condition.funnel.stage))))
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


def _alternatives(names: tuple[str, ...]) -> tuple[Way, ...]:
    return tuple((access,) for access in known.in_segment(names))
