"""Coupons of a person: reserved when they are offered, redeemed by an order, expired, released; moved along on login.

    reserved ──(an order names the code)──▶ redeemed ──(it is cancelled)──▶ reserved again, or expired
       ├──(time is up, timer `coupon:<code>`)──▶ expired
       └──(two ids were one person, or the promise fell away)──▶ released: theirs, and not offered any more

A promise is kept: who was reserved a coupon has it until it expires, whether or not the offer was ever shown, and sees
the same code in every channel. An order decides by what the shop says: a code of theirs that it took is redeemed, even
if it had expired here. Whoever is the customer, no code is reserved for two people (`state/desk.py`).
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from domain.action import CouponNews, Discount
from domain.effect import Effect
from state.context import Context
from state.desk import NO_COUPON, desk_of, take
from state.person import MAX_COUPONS, Coupon, Person
from state.pools import PoolRule, plain
from state.rules import Rules
from state.view import known

NAME = "coupons"
COUPON_TIMER = "coupon:"

RESERVED, REDEEMED, EXPIRED, RELEASED = "reserved", "redeemed", "expired", "released"
_FURTHER = {RESERVED: 0, RELEASED: 1, EXPIRED: 2, REDEEMED: 3}

ONCE, FIRST, NOT_WITH, FULL, RECORDED = (
    "coupon_once", "coupon_first_order", "coupon_not_with", "coupon_limit", "recorded_days")
"""Why somebody gets none, besides the reasons of the desk."""


def held(person: Person, pool: str, now: int | None = None) -> Coupon | None:
    """The coupon of a pool that is theirs to use (by `now`, where it is given).

    >>> person = Person(id="a:x", coupons=[Coupon("C1", "p", "expired", 0, 5), Coupon("C2", "p", "reserved", 6, 9)])
    >>> held(person, "p").code, held(person, "p", 9)
    ('C2', None)
    """
    for coupon in person.coupons:
        if coupon.pool == pool and coupon.state == RESERVED and (now is None or now < coupon.until):
            return coupon
    return None


def reserve(person: Person, pool: str, campaign: str, context: Context) -> Coupon | str:
    """The coupon of this pool that the person may be offered now; else the reason why there is none.

    One that they hold is used again. A new one is an effect (`context.news`), and everything is asked once more for it
    (timer `again:`). Reasons: coupon_first_order, coupon_once, coupon_not_with, coupon_limit, recorded_days, and those
    of the desk: coupon_pending, sold_out, codes_changed, no_coupon.
    """
    refused = refusal(person, pool, context)
    if refused:
        return refused
    rule: PoolRule = context.rules.pools[pool]
    mine, now = person.coupons, context.now
    if mine:
        have = held(person, pool, now)
        if have is not None:
            return have
        for one in mine:
            if one.pool == pool and one.state == RELEASED and now < one.until:
                return _hold(person, one, campaign, context)
    if context.history:
        return RECORDED
    code, reason = take(rule, person, context)
    if reason:
        return reason
    coupon = Coupon(code, pool, "", now, now + rule.valid_for)
    mine.append(coupon)
    _trim(person)
    return _hold(person, coupon, campaign, context)


def refusal(person: Person, pool: str, context: Context) -> str:
    """Why the person may not be offered a coupon of this pool, whether or not there are codes; empty when they may."""
    rule: PoolRule | None = context.rules.pools.get(pool)
    if rule is None:
        return NO_COUPON
    if rule.first_order_only and known(person).order_count:
        return FIRST
    mine, now = person.coupons, context.now
    if not mine or held(person, pool, now) is not None:
        return ""
    if rule.once and any(one.pool == pool and one.state != RELEASED for one in mine):
        return ONCE
    if any(one.pool in rule.not_with and (one.state == REDEEMED or (one.state == RESERVED and now < one.until))
           for one in mine):
        return NOT_WITH
    if any(one.pool == pool and one.state == RELEASED and now < one.until for one in mine):
        return ""
    return FULL if len(mine) >= MAX_COUPONS and all(one.state == RESERVED for one in mine) else ""


def _hold(person: Person, coupon: Coupon, campaign: str, context: Context) -> Coupon:
    coupon.campaign = campaign
    context.news.append(become(person, coupon, RESERVED, context))
    person.timers[COUPON_TIMER + coupon.code] = coupon.until
    person.timers["again:"] = context.now
    return coupon


def become(person: Person, coupon: Coupon, state: str, context: Context) -> CouponNews:
    """Give a coupon its new state; the desk of this shard counts it."""
    _, desk = desk_of(coupon.pool, context)
    if coupon.state:
        desk.counts[coupon.state] = desk.counts.get(coupon.state, 0) - 1
    desk.counts[state] = desk.counts.get(state, 0) + 1
    coupon.state = state
    if state != RESERVED:
        person.timers.pop(COUPON_TIMER + coupon.code, None)
    return CouponNews(
        id=context.id(NAME), at=context.now, person=person.id, pool=coupon.pool, code=coupon.code, what=state,
        campaign=coupon.campaign, anonymous_id=person.session.anonymous_id if person.session is not None else "")


def expire(person: Person, code: str, context: Context) -> Sequence[Effect]:
    """The timer of a coupon: its time is up, unless it is no longer waiting for it."""
    for coupon in person.coupons:
        if coupon.code == code and coupon.state == RESERVED:
            if context.now >= coupon.until:
                return (become(person, coupon, EXPIRED, context),)
            person.timers[COUPON_TIMER + code] = coupon.until
    return ()


def redeem(person: Person, codes: Iterable[str], order_id: str, context: Context) -> list[Effect]:
    """An order named these codes. Theirs are redeemed; one that is of a pool and not theirs is counted at its desk."""
    effects: list[Effect] = []
    for code in {plain(one): None for one in codes}:
        ours = [one for one in person.coupons if plain(one.code) == code]
        for coupon in ours:
            if coupon.state != REDEEMED:
                coupon.order_id, coupon.redeemed_at = order_id, context.event_time
                effects.append(become(person, coupon, REDEEMED, context))
        if not ours:
            for rule in context.rules.pools.values():
                if rule.has(code, context.secret):
                    desk_of(rule.name, context)[1].strangers += 1
    return effects


def give_back(person: Person, order_id: str, context: Context) -> list[Effect]:
    """An order was cancelled: what was redeemed by it is good again, unless it has expired meanwhile."""
    effects: list[Effect] = []
    for coupon in person.coupons:
        if coupon.state == REDEEMED and coupon.order_id == order_id:
            coupon.order_id, coupon.redeemed_at = "", 0
            state = RESERVED if context.now < coupon.until else EXPIRED
            effects.append(become(person, coupon, state, context))
            if state == RESERVED:
                person.timers[COUPON_TIMER + coupon.code] = coupon.until
    return effects


def settle(person: Person, context: Context) -> list[Effect]:
    """Release what the promise of its pool no longer allows.

    - Of a `once` pool one stays: none beside a redeemed one; else the one reserved under the known person's own id,
      else the oldest.
    - Of a `first_order_only` pool none stays with who has ordered (what the order redeemed is redeemed).

    What is released stays theirs: if the shop takes it, it is redeemed; it is offered again when nothing forbids it.
    """
    effects: list[Effect] = []
    for pool in sorted({one.pool for one in person.coupons if one.state == RESERVED}):
        rule: PoolRule | None = context.rules.pools.get(pool)
        if rule is None:
            continue
        mine = [one for one in person.coupons if one.pool == pool]
        waiting = sorted((one for one in mine if one.state == RESERVED),
                         key=lambda one: (bool(one.origin), one.at, one.code))
        if not (rule.first_order_only and known(person).order_count):
            if not rule.once:
                continue
            if all(one.state != REDEEMED for one in mine):
                waiting = waiting[1:]
        effects += [become(person, one, RELEASED, context) for one in waiting]
    return effects


def give(person: Person) -> list[Coupon]:
    """The coupons, as they move to the known person; each keeps the id it was reserved under."""
    for one in person.coupons:
        one.origin = one.origin or person.id
    return person.coupons


def join(person: Person, coupons: Sequence[Coupon]) -> None:
    """Take over the coupons of another id of this person, with their timers. `settle` is to follow.

    Commutative, associative and idempotent over what is handed over: of one coupon known to both, the state that is
    further stays.
    """
    if not coupons:
        return
    merged = {(one.pool, one.code): one for one in person.coupons}
    for one in coupons:
        have = merged.get((one.pool, one.code))
        if have is None or _FURTHER.get(one.state, 0) > _FURTHER.get(have.state, 0):
            merged[one.pool, one.code] = one
    person.coupons = sorted(merged.values(), key=lambda one: (one.at, one.pool, one.code))
    _trim(person)
    for one in person.coupons:
        timer = COUPON_TIMER + one.code
        if one.state == RESERVED:
            person.timers[timer] = one.until
        else:
            person.timers.pop(timer, None)


def discount(person: Person, pool: str, rules: Rules) -> Discount | None:
    """What the person's coupon of this pool is worth, for a page that shows prices with it; None without one."""
    coupon, rule = held(person, pool), rules.pools.get(pool)
    return None if coupon is None or rule is None else _discount(rule, coupon.code, coupon.until, rules)


def likeness(pool: str, context: Context) -> Discount:
    """What a coupon of this pool would be worth, if it were reserved now; its code is nobody's."""
    rule: PoolRule = context.rules.pools[pool]
    return _discount(rule, rule.pool.prefix + "CODE", context.now + rule.valid_for, context.rules)


def _discount(rule: PoolRule, code: str, until: int, rules: Rules) -> Discount:
    worth = rule.pool
    return Discount(
        code=code, percent=worth.percent or 0.0, amount=float(worth.amount or 0),
        currency=rules.shop.currency if worth.amount or worth.min_value else "", free_shipping=worth.free_shipping,
        min_value=float(worth.min_value or 0), products=worth.products, expires_at=until)


def _trim(person: Person) -> None:
    """No more than MAX_COUPONS: first goes what is over and was followed by another of its pool, oldest first; then
    whatever is over; what is still good goes last.
    """
    mine = person.coupons
    if len(mine) <= MAX_COUPONS:
        return
    latest = {one.pool: one for one in sorted(mine, key=attrgetter("at"))}
    gone = sorted(mine, key=lambda one: (one.state == RESERVED, latest[one.pool] is one, one.at, one.code))
    for one in gone[:len(mine) - MAX_COUPONS]:
        mine.remove(one)
        person.timers.pop(COUPON_TIMER + one.code, None)
