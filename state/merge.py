"""Merging: how what was learned under two ids becomes one person, and how it travels there.

    shard of A (anonymous)                               shard of U (known)
    hand_over(A) ── letter: facets, session, cart … ──▶  absorb(U, letter)
    A is empty, and becomes an alias of U

A person's knowledge is a map: origin (the id it was learned under) -> facts with a version. `merge_facets` keeps the
higher version of each; it is commutative, associative and idempotent, so letters may repeat and cross. Who is what is
never mixed into one another: the view (`state/view.py`) adds up while reading, so a wrong merge can be undone.

What is open (session, cart) and what was said moves along. `absorb` guarantees:

- the facets of A are held by U under the id they were learned under;
- U has one open session, as if both had been one: the earlier start (with its id, landing page and source), the sums
  of the counters, the browser and device used last. It counts as one session. At most one outcome can come of it: when
  either half was labelled, the whole is; when one half ordered with nothing to learn from, the other's snapshot stands
  for it, if it was taken before the order;
- the snapshot is one evenly chosen moment of the joined session, the choice again seeded by the session's id;
- the cart holds the lines of both; a product in both has the line that changed last;
- how often something was said adds up; a campaign said in both open sessions was said in the joined one;
- messages seen by either are seen; what is reserved moves along, with its timers;
- what was written to either was written to U, each message in the state that is further; an address that either gave
  up is given up;
- the side of an experiment that U was on stays, else it is the one that A was on; what is hoped for and what is to be
  decided later moves along, with its timers; of two hopes for one campaign the earlier one stays;
- U is in every static segment that either was in, since the earlier moment and until the later one;
- the ways through workflows move along, with their timers, and what either went through counts; of more runs than a
  workflow allows at once the younger ones leave (`operators/advance_workflows.py`);
- the coupons of both are U's, with their timers (what a promise does not allow beside another is released afterwards,
  `state/coupons.py`);
- the timer of the session stands at the joined session's end.

What a browser holds armed does not move: the giver takes it back, and U decides anew. Neither do segments, band and
score: they are found again from what is known now. That A was a bot does not make U one.

Absorbing the same body twice adds the sums twice: letters carry a sequence, and the receiver passes over old ones.
"""

from typing import Any

import msgspec

from state import addresses, coupons, decisions, experiments, exposures, feedback, hopes, later, runs, seen
from state.codec import VERSION
from state.exposures import MAX_SHOWINGS
from state.person import (
    MAX_CART_ITEMS,
    MAX_FACETS,
    Been,
    Cart,
    Coupon,
    Earlier,
    Facts,
    Hope,
    Later,
    Person,
    Reserved,
    Run,
    Said,
    Session,
    Written,
)
from state.sessions import SESSION_TIMER, chance, ends_at
from state.view import combine, earlier

RESERVED_TIMER = "reserved:"
UNTAG_TIMER = "untag:"
MOVING = (RESERVED_TIMER, UNTAG_TIMER, runs.TIMER)
"""Timers that move along."""

OLDER = "~"
"""The origin under which the facets that were seen longest ago are put together, when there are too many."""

_bytes_of = msgspec.msgpack.Encoder(order="deterministic").encode


class Handover(msgspec.Struct, omit_defaults=True):
    """What one person hands to another: the body of a `handover` letter, as plain values in JSON."""

    v: int = VERSION
    facets: dict[str, Facts] = {}
    session: Session | None = None
    cart: Cart | None = None
    said: dict[str, Said] = {}
    reserved: list[Reserved] = []
    timers: dict[str, int] = {}
    seen: bytes = b""
    written: list[Written] = []
    unreachable: dict[str, int] = {}
    assigned: dict[str, str] = {}
    hopes: list[Hope] = []
    later: dict[str, list[Later]] = {}
    tags: dict[str, int] = {}
    runs: dict[str, Run] = {}
    been: dict[str, Been] = {}
    coupons: list[Coupon] = []
    earlier: list[Earlier] = []


def merge_facets(one: dict[str, Facts], other: dict[str, Facts]) -> dict[str, Facts]:
    """Both maps as one: per origin the higher version; of equal versions the one whose bytes are greater.

    Commutative, associative, idempotent, down to the order of the keys.

    >>> merged = merge_facets({"a:x": Facts(version=1)}, {"a:x": Facts(version=2), "u:b": Facts()})
    >>> [(origin, facts.version) for origin, facts in merged.items()]
    [('a:x', 2), ('u:b', 0)]
    """
    merged = {}
    for origin in sorted(one.keys() | other.keys()):
        have, more = one.get(origin), other.get(origin)
        if have is None or more is None:
            merged[origin] = have or more or Facts()
        else:
            merged[origin] = max(have, more, key=_rank)
    return merged


def hand_over(person: Person) -> dict[str, Any]:
    """All that must move when this person turns out to be another one, as plain values for a letter.

    Afterwards the giver is empty but for links, mail and what the population still has to unlearn of them: no session
    whose end could give a second outcome, no timer.

    >>> person = Person(id="a:x", facets={"a:x": Facts(pages=1)}, timers={"session_end:": 5})
    >>> hand_over(person)["facets"], person.facets, person.timers
    ({'a:x': {'pages': 1}}, {}, {})
    """
    body: dict[str, Any] = msgspec.to_builtins(Handover(
        facets=person.facets, session=person.session, cart=person.cart, said=person.said, reserved=person.reserved,
        timers={name: due for name, due in person.timers.items() if name.startswith(MOVING)},
        seen=person.seen, written=person.written, unreachable=person.unreachable, assigned=person.assigned,
        hopes=person.hopes, later=person.later, tags=person.tags,
        runs=person.runs, been=person.been, coupons=coupons.give(person), earlier=decisions.give(person)))
    empty = Person(id=person.id, links=person.links, mail=person.mail, alias_of=person.alias_of,
                   moved=person.moved, counted=person.counted)
    for name in person.__struct_fields__:
        setattr(person, name, getattr(empty, name))
    person.__dict__.clear()
    return body


def absorb(person: Person, body: dict[str, Any], now: int) -> None:
    """Take over what another id of this person handed over (see above for what holds afterwards).

    `now` is the shard's clock in ms. msgspec.ValidationError, before anything changed, when the body is no handover.
    """
    given = msgspec.convert(body, Handover)
    if given.v > VERSION:
        raise msgspec.ValidationError(f"a handover of version {given.v}, but this program reads up to {VERSION}")
    person.__dict__.pop("known", None)
    mine, theirs = person.session, given.session
    person.facets = merge_facets(person.facets, given.facets)
    if theirs is not None:
        if mine is None:
            person.session = theirs
        else:
            person.session = join_sessions(mine, theirs)
            own = person.own()
            own.version += 1
            own.sessions -= 1
        _settle_first_visit(person, person.session)
    if (session := person.session) is not None:
        person.timers[SESSION_TIMER] = max(now, ends_at(session))
    person.cart = join_carts(person.cart, given.cart)
    _join_said(person, given.said, {one.id for one in (mine, theirs) if one is not None})
    known = {one.action_id for one in person.reserved}
    person.reserved.extend(one for one in given.reserved if one.action_id not in known)
    for name, due in given.timers.items():
        person.timers[name] = (max if name.startswith(UNTAG_TIMER) else min)(due, person.timers.get(name, due))
    exposures.trim(person)
    for name, since in given.tags.items():
        person.tags[name] = min(since, person.tags.get(name, since))
    runs.join(person, given.runs, given.been)
    coupons.join(person, given.coupons)
    decisions.join(person, given.earlier, now)
    person.seen = seen.union(person.seen, given.seen)
    person.written = feedback.joined(person.written, given.written)
    for name, at in given.unreachable.items():
        person.unreachable[name] = max(at, person.unreachable.get(name, 0))
    addresses.trim(person)
    experiments.join(person, given.assigned)
    hopes.join(person, given.hopes)
    later.join(person, given.later)
    _compact(person)


def join_sessions(one: Session, other: Session) -> Session:
    """Two open visits of one person as one visit. The order of the two does not matter.

    >>> joined = join_sessions(Session("2b", 5, 9, pages=1, device="mobile"), Session("1a", 3, 4, pages=2))
    >>> joined.id, joined.started_at, joined.last_at, joined.pages, joined.device
    ('1a', 3, 9, 3, 'mobile')
    """
    first, second = sorted((one, other), key=lambda session: (session.started_at, session.id))
    older, newer = sorted((one, other), key=lambda session: (session.last_at, session.id))
    joined = Session(
        id=first.id, started_at=first.started_at, last_at=newer.last_at,
        anonymous_id=newer.anonymous_id or older.anonymous_id, first_visit=first.first_visit and second.first_visit,
        pages=first.pages + second.pages, events=first.events + second.events,
        products=first.products + second.products, added=first.added + second.added,
        searches=first.searches + second.searches, exits=first.exits + second.exits,
        landing_page=first.landing_page or second.landing_page, referrer=first.referrer or second.referrer,
        source=first.source, medium=first.medium, campaign=first.campaign,
        device=newer.device or older.device, country=newer.country or older.country,
        ordered=one.ordered or other.ordered, ordered_at=earlier(one.ordered_at, other.ordered_at),
        labelled=one.labelled or other.labelled, snapshots=one.snapshots + other.snapshots,
        sent=sorted({*one.sent, *other.sent}), dismissed=sorted({*one.dismissed, *other.dismissed}),
        filled={**older.filled, **newer.filled},
    )
    if not (joined.source or joined.medium or joined.campaign):
        joined.source, joined.medium, joined.campaign = second.source, second.medium, second.campaign
    usable = [half for half in (first, second) if half.snapshot
              and not (joined.ordered_at and half.snapshot_at > joined.ordered_at)]
    if usable:
        total = sum([max(1, half.snapshots) for half in usable])
        keep = usable[0]
        if len(usable) == 2 and chance(joined.id, -joined.snapshots) * total >= max(1, keep.snapshots):
            keep = usable[1]
        joined.snapshot, joined.snapshot_at = keep.snapshot, keep.snapshot_at
        joined.snapshot_score, joined.snapshot_model = keep.snapshot_score, keep.snapshot_model
    return joined


def join_carts(one: Cart | None, other: Cart | None) -> Cart | None:
    """The lines of both carts; of a product in both the line that changed last. The order of the two does not matter.

    >>> from state.person import CartItem
    >>> join_carts(Cart(items={"p": CartItem(1, 5, at=1)}), Cart(items={"p": CartItem(2, 5, at=2)})).value
    10
    """
    if one is None or other is None:
        return one or other
    old, new = sorted((one, other), key=lambda cart: (cart.updated_at, cart.created_at, cart.cart_id))
    items = dict(old.items)
    for product_id, item in new.items.items():
        have = items.get(product_id)
        if have is None or (item.at, item.quantity, item.price) >= (have.at, have.quantity, have.price):
            items[product_id] = item
    newest = sorted(items, key=lambda product_id: (items[product_id].at, product_id))[-MAX_CART_ITEMS:]
    return Cart(
        cart_id=new.cart_id or old.cart_id, items={product_id: items[product_id] for product_id in newest},
        currency=new.currency or old.currency, created_at=earlier(old.created_at, new.created_at),
        updated_at=new.updated_at, checkout_at=max(old.checkout_at, new.checkout_at))


def _rank(facts: Facts) -> tuple[int, bytes]:
    return facts.version, _bytes_of(facts)


def _settle_first_visit(person: Person, session: Session) -> None:
    """A joined visit is the first one only if it is the only one that any facet counts."""
    if session.first_visit:
        session.first_visit = sum([facts.sessions for facts in person.facets.values()]) <= 1


def _join_said(person: Person, said: dict[str, Said], open_sessions: set[str]) -> None:
    now_open = person.session.id if person.session is not None else ""
    for campaign, more in said.items():
        have = person.said.setdefault(campaign, Said())
        have.total += more.total
        if more.day == have.day:
            have.in_day += more.in_day
        elif more.day > have.day:
            have.day, have.in_day = more.day, more.in_day
        open_now = [one for one in (have, more) if one.session in open_sessions]
        if open_now:
            have.session, have.in_session = now_open, sum([one.in_session for one in open_now])
        elif more.last_at > have.last_at:
            have.session, have.in_session = more.session, more.in_session
        have.last_at = max(have.last_at, more.last_at)
        have.times = sorted([*have.times, *more.times])[-MAX_SHOWINGS:]
    for have in person.said.values():
        if have.session in open_sessions:
            have.session = now_open


def _compact(person: Person) -> None:
    """No more than MAX_FACETS: those seen longest ago become one, under the origin "~" (they cannot be undone)."""
    if len(person.facets) <= MAX_FACETS:
        return
    others = [origin for origin in person.facets if origin not in (person.id, OLDER)]
    others.sort(key=lambda origin: (person.facets[origin].last_seen, origin))
    gone = others[:len(person.facets) - MAX_FACETS + (OLDER not in person.facets)]
    older = combine([person.facets[origin] for origin in (*gone, OLDER) if origin in person.facets])
    for origin in gone:
        del person.facets[origin]
    person.facets[OLDER] = older
