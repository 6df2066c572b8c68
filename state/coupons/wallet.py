"""Coupons of a person: reserved with an offer, redeemed by an order, expired, released; moved along on login.

    reserved ──(an order contains the code)──▶ redeemed ──(order cancelled)──▶ reserved again, or expired
       ├──(timer `coupon:<code>`)──▶ expired
       └──(duplicate after a merge, or first order placed)──▶ released: still theirs, not offered any more

A reserved coupon stays valid until it expires, whether or not the offer was shown, with the same code in every channel.
Orders decide: a person's code in an order is redeemed even if it has expired here. No code is reserved for two people
(`state/coupons/leasing.py`).

A coupon may be limited to products or a minimum cart value. A trigger about something that the coupon does not cover
does not offer it. Ordered products do not matter, because a coupon is for the next order.
"""

from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter

from domain.action import CouponEvent, Discount, Effect
from domain.event import Track
from domain.money import to_minor
from domain.playbook.coupon import CouponPool
from domain.product import ExchangeRates, InvalidField, Product, parse_product, parse_products
from domain.record import CARTS, PURCHASES, event_stream
from state.context import Input, StepContext
from state.coupons.leasing import NO_COUPON, get_code_cache, take_code
from state.person.model import MAX_COUPONS, Coupon, Person, ViewedProduct
from state.playbook.compiled import Rules
from state.playbook.coupon_pool import PoolRule, normalize_code
from state.profile.profile import merged_profile

STEP_NAME = "coupons"
COUPON_TIMER = "coupon:"

RESERVED, REDEEMED, EXPIRED, RELEASED = "reserved", "redeemed", "expired", "released"
_STATE_RANK = {RESERVED: 0, RELEASED: 1, EXPIRED: 2, REDEEMED: 3}

ONCE_PER_PERSON, FIRST_ORDER_ONLY, NOT_COMBINABLE, TOO_MANY_COUPONS, HISTORY_IMPORT = (
    "coupon_once_per_person",
    "coupon_first_order_only",
    "coupon_not_combinable",
    "coupon_limit",
    "history_import",
)
"""Why a person gets no coupon, besides the reasons of the code cache."""


def active_coupon(person: Person, pool: str, now: int | None = None) -> Coupon | None:
    """Return the reserved coupon of a pool (valid at `now`, if given).

    >>> person = Person(id="a:x", coupons=[Coupon("C1", "p", "expired", 0, 5), Coupon("C2", "p", "reserved", 6, 9)])
    >>> active_coupon(person, "p").code, active_coupon(person, "p", 9)
    ('C2', None)
    """
    for coupon in person.coupons:
        if coupon.pool == pool and coupon.state == RESERVED and (now is None or now < coupon.until):
            return coupon
    return None


def reserve_coupon(person: Person, pool: str, campaign: str, context: StepContext) -> Coupon | str:
    """Return the coupon of this pool to offer to the person now, else the reason why there is none.

    A held coupon is used again. A new one is an effect (`context.emitted`) and triggers a re-evaluation (timer
    `again:`).
    """
    refused = ineligibility(person, pool, context)
    if refused:
        return refused
    rule: PoolRule = context.rules.pools[pool]
    mine, now = person.coupons, context.now
    if mine:
        have = active_coupon(person, pool, now)
        if have is not None:
            return have
        for one in mine:
            if one.pool == pool and one.state == RELEASED and now < one.until:
                return _reserve(person, one, campaign, context)
    if context.history:
        return HISTORY_IMPORT
    code, reason = take_code(rule, person, context)
    if reason:
        return reason
    coupon = Coupon(code, pool, "", now, now + rule.valid_for)
    mine.append(coupon)
    _evict_oldest(person)
    return _reserve(person, coupon, campaign, context)


def ineligibility(person: Person, pool: str, context: StepContext) -> str:
    """Return why the person may not be offered a coupon of this pool, regardless of available codes; "" if they may."""
    rule: PoolRule | None = context.rules.pools.get(pool)
    if rule is None:
        return NO_COUPON
    if rule.first_order_only and merged_profile(person).order_count:
        return FIRST_ORDER_ONLY
    mine, now = person.coupons, context.now
    if not mine or active_coupon(person, pool, now) is not None:
        return ""
    if rule.once and any(one.pool == pool and one.state != RELEASED for one in mine):
        return ONCE_PER_PERSON
    if any(
        one.pool in rule.not_with and (one.state == REDEEMED or (one.state == RESERVED and now < one.until))
        for one in mine
    ):
        return NOT_COMBINABLE
    if any(one.pool == pool and one.state == RELEASED and now < one.until for one in mine):
        return ""
    return TOO_MANY_COUPONS if len(mine) >= MAX_COUPONS and all(one.state == RESERVED for one in mine) else ""


def _reserve(person: Person, coupon: Coupon, campaign: str, context: StepContext) -> Coupon:
    coupon.campaign = campaign
    context.emitted.append(set_state(person, coupon, RESERVED, context))
    person.timers[COUPON_TIMER + coupon.code] = coupon.until
    person.timers["again:"] = context.now
    return coupon


def set_state(person: Person, coupon: Coupon, state: str, context: StepContext) -> CouponEvent:
    """Set the state of a coupon and count it in the code cache of this shard."""
    _, desk = get_code_cache(coupon.pool, context)
    if coupon.state:
        desk.state_counts[coupon.state] = desk.state_counts.get(coupon.state, 0) - 1
    desk.state_counts[state] = desk.state_counts.get(state, 0) + 1
    coupon.state = state
    if state != RESERVED:
        person.timers.pop(COUPON_TIMER + coupon.code, None)
    return CouponEvent(
        id=context.next_effect_id(STEP_NAME),
        at=context.now,
        person=person.id,
        pool=coupon.pool,
        code=coupon.code,
        status=state,
        campaign=coupon.campaign,
        anonymous_id=person.session.anonymous_id if person.session is not None else "",
    )


def expire_coupon(person: Person, code: str, context: StepContext) -> Sequence[Effect]:
    """Handle the timer of a coupon: expire it if it is due and still reserved."""
    for coupon in person.coupons:
        if coupon.code == code and coupon.state == RESERVED:
            if context.now >= coupon.until:
                return (set_state(person, coupon, EXPIRED, context),)
            person.timers[COUPON_TIMER + code] = coupon.until
    return ()


def redeem_codes(person: Person, codes: Iterable[str], order_id: str, context: StepContext) -> list[Effect]:
    """Redeem the person's codes of an order; codes of a pool that they do not hold are counted in the code cache."""
    effects: list[Effect] = []
    for code in {normalize_code(one): None for one in codes}:
        ours = [one for one in person.coupons if normalize_code(one.code) == code]
        for coupon in ours:
            if coupon.state != REDEEMED:
                coupon.order_id, coupon.redeemed_at = order_id, context.event_time
                effects.append(set_state(person, coupon, REDEEMED, context))
        if not ours:
            for rule in context.rules.pools.values():
                if rule.contains(code, context.secret):
                    get_code_cache(rule.name, context)[1].unknown_redemptions += 1
    return effects


def undo_redemption(person: Person, order_id: str, context: StepContext) -> list[Effect]:
    """Undo the redemptions of a cancelled order: reserved again, or expired meanwhile."""
    effects: list[Effect] = []
    for coupon in person.coupons:
        if coupon.state == REDEEMED and coupon.order_id == order_id:
            coupon.order_id, coupon.redeemed_at = "", 0
            state = RESERVED if context.now < coupon.until else EXPIRED
            effects.append(set_state(person, coupon, state, context))
            if state == RESERVED:
                person.timers[COUPON_TIMER + coupon.code] = coupon.until
    return effects


def reconcile(person: Person, context: StepContext) -> list[Effect]:
    """Release coupons that their pool no longer allows.

    - Pool with `once_per_person`: one coupon stays; none beside a redeemed one, else the one reserved under the known
      person's own id, else the oldest.
    - Pool with `first_order_only`: none stays after an order.

    A released coupon still belongs to the person: it is redeemed by an order, and offered again if that is allowed.
    """
    effects: list[Effect] = []
    for pool in sorted({one.pool for one in person.coupons if one.state == RESERVED}):
        rule: PoolRule | None = context.rules.pools.get(pool)
        if rule is None:
            continue
        mine = [one for one in person.coupons if one.pool == pool]
        waiting = sorted(
            (one for one in mine if one.state == RESERVED),
            key=lambda one: (bool(one.origin), one.reserved_at, one.code),
        )
        if not (rule.first_order_only and merged_profile(person).order_count):
            if not rule.once:
                continue
            if all(one.state != REDEEMED for one in mine):
                waiting = waiting[1:]
        effects += [set_state(person, one, RELEASED, context) for one in waiting]
    return effects


def export(person: Person) -> list[Coupon]:
    """Return the coupons for a merge; each keeps the id it was reserved under."""
    for one in person.coupons:
        one.origin = one.origin or person.id
    return person.coupons


def merge(person: Person, coupons: Sequence[Coupon]) -> None:
    """Take over the coupons of another id of this person, with their timers. Call `reconcile` afterwards.

    Commutative, associative and idempotent: of a coupon in both, the later state stays.
    """
    if not coupons:
        return
    merged = {(one.pool, one.code): one for one in person.coupons}
    for one in coupons:
        have = merged.get((one.pool, one.code))
        if have is None or _STATE_RANK.get(one.state, 0) > _STATE_RANK.get(have.state, 0):
            merged[one.pool, one.code] = one
    person.coupons = sorted(merged.values(), key=lambda one: (one.reserved_at, one.pool, one.code))
    _evict_oldest(person)
    for one in person.coupons:
        timer = COUPON_TIMER + one.code
        if one.state == RESERVED:
            person.timers[timer] = one.until
        else:
            person.timers.pop(timer, None)


def active_discount(person: Person, pool: str, rules: Rules) -> Discount | None:
    """Return the discount of the person's coupon of this pool, for pages that show reduced prices; None without one."""
    coupon, rule = active_coupon(person, pool), rules.pools.get(pool)
    return None if coupon is None or rule is None else _discount(rule, coupon.code, coupon.until, rules)


def placeholder(pool: str, context: StepContext) -> Discount:
    """Return the discount of a coupon of this pool as if reserved now; its code is invalid."""
    rule: PoolRule = context.rules.pools[pool]
    return _discount(rule, rule.pool.prefix + "CODE", context.now + rule.valid_for, context.rules)


def _discount(rule: PoolRule, code: str, until: int, rules: Rules) -> Discount:
    worth = rule.pool
    return Discount(
        code=code,
        percent=worth.percent or 0.0,
        amount=float(worth.amount or 0),
        currency=rules.shop.currency if worth.amount or worth.min_value else "",
        free_shipping=worth.free_shipping,
        min_value=float(worth.min_value or 0),
        products=worth.products,
        expires_at=until,
    )


def _evict_oldest(person: Person) -> None:
    """Evict coupons beyond MAX_COUPONS: first finished ones with a successor in their pool, oldest first; then other
    finished ones; reserved ones last.
    """
    mine = person.coupons
    if len(mine) <= MAX_COUPONS:
        return
    latest = {one.pool: one for one in sorted(mine, key=attrgetter("reserved_at"))}
    gone = sorted(mine, key=lambda one: (one.state == RESERVED, latest[one.pool] is one, one.reserved_at, one.code))
    for one in gone[: len(mine) - MAX_COUPONS]:
        mine.remove(one)
        person.timers.pop(COUPON_TIMER + one.code, None)


PRODUCT_NOT_COVERED, BELOW_MIN_VALUE = "coupon_product_not_covered", "coupon_below_min_value"


def eligible_products(viewed: Iterable[ViewedProduct], products: Collection[str]) -> list[ViewedProduct]:
    """Return the viewed products that a coupon for these products covers (none given: all), in the same order.

    >>> [one.product_id for one in eligible_products([ViewedProduct("lamp"), ViewedProduct("mug")], ("lamp",))]
    ['lamp']
    """
    return [one for one in viewed if not products or one.product_id in products]


def ineligible_trigger(
    person: Person, pool: CouponPool, event: Input, rules: Rules, *, states_minimum: bool
) -> tuple[str, str]:
    """Return (reason, detail) if this input does not fit a coupon of the pool, else ("", "").

    `states_minimum`: the content states the minimum value itself.
    """
    if not (pool.products or pool.min_value) or not isinstance(event, Track):
        return "", ""
    stream = event_stream("track", event.event)
    if stream == PURCHASES:
        return "", ""
    about = _event_products(event, rules)
    cart = person.cart.items if person.cart is not None and stream == CARTS else {}
    if pool.products:
        ids = [one.product_id for one in about if one.product_id] or list(cart)
        if ids and not any(one in pool.products for one in ids):
            return PRODUCT_NOT_COVERED, f"{pool.name} does not cover {', '.join(ids[:3])}"
    if pool.min_value and not states_minimum and (about or cart):
        worth, least = _cart_value_with(person, about), to_minor(pool.min_value, rules.shop.currency)
        if worth is not None and worth < least:
            return (
                BELOW_MIN_VALUE,
                f"{pool.name} requires {rules.format_money(least)}; the cart would be {rules.format_money(worth)}",
            )
    return "", ""


def _event_products(event: Track, rules: Rules) -> Sequence[Product]:
    """Return the products of an event; empty if missing or invalid."""
    prices, said = ExchangeRates(rules.shop.currency, rules.shop.exchange_rates), event.properties
    try:
        return parse_products(said, prices, require_id=False) or (
            [parse_product(said, "properties", prices)] if _has_product_id(said) else []
        )
    except InvalidField:
        return ()


def _has_product_id(properties: Collection[str]) -> bool:
    return "product_id" in properties or "sku" in properties


def _cart_value_with(person: Person, products: Sequence[Product]) -> int | None:
    """Return the cart value including these products (minor units); None if a price is unknown."""
    cart = person.cart
    inside = cart.items if cart is not None else {}
    more = [one for one in products if one.product_id not in inside]
    if any(not one.price or one.currency for one in more):
        return None
    return (cart.value if cart is not None else 0) + sum(one.price * (one.quantity or 1) for one in more)
