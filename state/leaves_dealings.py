"""What passed between a person and the shop, as leaves: orders, coupons, what was said."""

from operator import attrgetter

from domain.amounts import some
from domain.amounts import times as so_often
from domain.condition import MOST_SHOWN, Holds, Orders, WasSaid
from domain.duration import parse, roughly, say
from domain.money import to_major, to_minor
from domain.shop import Shop
from state.leaves import Leaf, age, either, texts
from state.person import Coupon, Facts, Person


def orders(part: Orders, shop: Shop) -> list[Leaf]:
    """What they bought."""
    found: list[Leaf] = []
    if part.count_at_least is not None:
        least, at_least = part.count_at_least, "at least " + some(part.count_at_least, "order")
        found.append(Leaf(lambda p, f, now: f.order_count >= least,
                          lambda p, f, now: f"{at_least} (has {f.order_count})", "orders"))
    if part.count_is is not None:
        exactly, said = part.count_is, "exactly " + some(part.count_is, "order")
        found.append(Leaf(lambda p, f, now: f.order_count == exactly,
                          lambda p, f, now: f"{said} (has {f.order_count})", "orders"))
    for amount, or_more in ((part.value_at_least, True), (part.value_below, False)):
        if amount is not None:
            found.append(_spent(to_minor(amount, shop.currency), or_more, shop.currency))
    for text, recent in ((part.last_within, True), (part.last_before, False)):
        if text is not None:
            found.append(_last_order(parse(text), recent))
    for what, wanted in (("product", part.contains_product), ("category", part.contains_category)):
        if wanted is not None:
            found.append(_contains(what, texts(wanted)))
    return found


def _contains(what: str, wanted: tuple[str, ...]) -> Leaf:
    """Something of an order that was not cancelled, of the newest that are remembered."""
    among = frozenset(wanted)
    read = attrgetter("products" if what == "product" else "categories")

    def test(p: Person, f: Facts, now: int) -> bool:
        return any(not order.cancelled and not among.isdisjoint(read(order)) for order in f.orders)

    return Leaf(test, lambda p, f, now: f"has ordered {what} {either(wanted)}", "orders")


def _spent(minor: int, least: bool, currency: str) -> Leaf:
    def words(p: Person, f: Facts, now: int) -> str:
        word = "at least" if least else "less than"
        return f"orders worth {word} {to_major(minor, currency)} {currency} (is {to_major(f.revenue, currency)})"

    return Leaf(lambda p, f, now: (f.revenue >= minor) is least, words, "orders")


def _last_order(span: int, recent: bool) -> Leaf:
    def test(p: Person, f: Facts, now: int) -> bool:
        return f.last_order_at > 0 and (now < f.last_order_at + span) is recent

    def change(p: Person, f: Facts, now: int) -> int | None:
        return f.last_order_at + span if f.last_order_at > 0 and now < f.last_order_at + span else None

    def words(p: Person, f: Facts, now: int) -> str:
        ago = f"{roughly(age(now, f.last_order_at))} ago" if f.last_order_at else "never"
        return f"last order {'less than' if recent else 'at least'} {say(span)} ago ({ago})"

    return Leaf(test, words, "orders", change)


def holds_coupon(part: Holds) -> Leaf:
    """They hold a coupon of these pools: reserved, not used, not over; perhaps about to be over."""
    pools = frozenset(texts(part.pool))
    last = parse(part.ends_within) if part.ends_within is not None else None

    def good(coupon: Coupon, now: int) -> bool:
        return now < coupon.until and (last is None or now >= coupon.until - last)

    def held(p: Person) -> list[Coupon]:
        return [one for one in p.coupons if one.state == "reserved" and one.pool in pools]

    def test(p: Person, f: Facts, now: int) -> bool:
        return bool(p.coupons) and any(good(one, now) for one in held(p))

    def change(p: Person, f: Facts, now: int) -> int | None:
        if not p.coupons:
            return None
        mine = held(p)
        turns = [at for one in mine for at in (one.until, one.until - (last or 0)) if at > now]
        truth = any(good(one, now) for one in mine)
        return min([at for at in turns if any(good(one, at) for one in mine) != truth], default=None)

    def words(p: Person, f: Facts, now: int) -> str:
        until = [one.until for one in held(p) if now < one.until]
        left = f"for another {roughly(min(until) - now)}" if until else "has none"
        return (f"holds a coupon of {either(texts(part.pool))}"
                + (f" that ends within {say(last)}" if last is not None else "") + f" ({left})")

    return Leaf(test, words, "coupons", change)


def was_said(part: WasSaid) -> Leaf:
    """We told them one of these campaigns so often, ever or lately. ValueError for more times than are remembered."""
    if part.within is not None and part.at_least > MOST_SHOWN:
        raise ValueError(f"the newest {MOST_SHOWN} times are remembered: at_least = {part.at_least} is more")
    campaigns, least = texts(part.campaign), part.at_least
    window = parse(part.within) if part.within is not None else None
    needs = tuple("said:" + name for name in campaigns)

    def over(p: Person, name: str) -> int:
        """When it is no longer true of this campaign (ms); 0: it never was."""
        said = p.said.get(name)
        return said.times[-least] + (window or 0) if said is not None and len(said.times) >= least else 0

    def ever(p: Person, f: Facts, now: int) -> bool:
        return any((said := p.said.get(name)) is not None and said.total >= least for name in campaigns)

    def lately(p: Person, f: Facts, now: int) -> bool:
        return any(over(p, name) > now for name in campaigns)

    def change(p: Person, f: Facts, now: int) -> int | None:
        at = max([over(p, name) for name in campaigns])
        return at if at > now else None

    def words(p: Person, f: Facts, now: int) -> str:
        times = f" at least {least} times" if least > 1 else ""
        known = [p.said[name] for name in campaigns if name in p.said]
        if window is None:
            return f"was told {either(campaigns)}{times} ({so_often(sum([said.total for said in known]))} so far)"
        last = max([said.last_at for said in known], default=0)
        ago = f"last {roughly(age(now, last))} ago" if last else "never"
        return f"was told {either(campaigns)}{times} in the last {say(window)} ({ago})"

    if window is None:
        return Leaf(ever, words, needs[0], also=needs[1:])
    return Leaf(lately, words, needs[0], change, also=needs[1:])
