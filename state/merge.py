"""Merging of two ids into one person, and the body of the message that carries it.

    shard of A (anonymous)                                    shard of U (known)
    build_merge_response(A) ── fragments, session, cart … ──▶ merge_into(U, body)
    A is empty and forwards to U

A profile is a map: origin (the id it was learned under) -> fragment with a version. `merge_fragment_maps` keeps the
higher version of each origin. It is commutative, associative and idempotent, so messages may repeat and cross.
Fragments are never mixed: `state/profile/profile.py` combines them on reading, so a wrong merge can be undone.

`merge_into` guarantees:

- U holds the fragments of A under their origins.
- U has one open session with the earlier start (its id, landing page, source), the summed counters, and the latest
  browser and device. It counts as one session and gives at most one outcome: if either half was labelled, the whole
  is. If the half that ordered has no snapshot, the snapshot of the other half is used if it was taken before the order.
- The snapshot is one evenly chosen event of the merged session, seeded by the session id.
- The cart holds the lines of both; a product in both has the line that changed last.
- Exposures add up; exposures in both open sessions count in the merged session.
- Messages seen by either are seen. Pending sends move along with their timers.
- Sent messages of both are kept, each in its later status. Addresses suppressed by either are suppressed.
- The experiment variant of U wins over that of A. Pending goals and deferred campaigns move along with their timers;
  of two pending goals for one campaign the earlier one stays.
- U is in every static segment of either, since the earlier time, until the later one.
- Workflow runs move along with their timers, completed runs count. Runs beyond `max_concurrent_runs` exit, youngest
  first (`operators/advance_workflows.py`).
- U has the coupons of both with their timers; coupons that may not coexist are released (`state/coupons/wallet.py`).
- The session timer is set to the end of the merged session.

Preloaded offers do not move: A cancels them and U decides again. Segments, band and score are not moved either; they
are evaluated again. If A is a bot, U does not become one.

Absorbing the same body twice adds the sums twice; the receiver skips duplicates by the message sequence.
"""

from typing import Any

import msgspec

from domain.playbook.condition import MAX_EXPOSURE_TIMES
from state.coupons import wallet
from state.decisions import deferred, experiments, exposures, goals, log, messages
from state.membership import workflow_runs
from state.person import addresses, dedup
from state.person.codec import VERSION
from state.person.model import (
    MAX_CART_ITEMS,
    MAX_FRAGMENTS,
    Cart,
    CompletedRuns,
    Coupon,
    DeferredCampaign,
    ExposureCounter,
    PastDecision,
    PendingGoal,
    PendingSend,
    Person,
    ProfileFragment,
    SentMessage,
    Session,
    WorkflowRun,
)
from state.profile.profile import earliest, merge_fragments
from state.profile.session import SESSION_TIMER, ends_at, session_uniform

PENDING_SEND_TIMER = "reserved:"
UNTAG_TIMER = "untag:"
MOVED_TIMERS = (PENDING_SEND_TIMER, UNTAG_TIMER, workflow_runs.RUN_TIMER)
"""Prefixes of the timers that move along."""

OVERFLOW_ORIGIN = "~"
"""The origin of the combined oldest fragments, beyond MAX_FRAGMENTS."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class MergeResponse(msgspec.Struct, omit_defaults=True):
    """Body of a `merge_response` message."""

    v: int = VERSION
    fragments: dict[str, ProfileFragment] = {}
    session: Session | None = None
    cart: Cart | None = None
    exposures: dict[str, ExposureCounter] = {}
    pending_sends: list[PendingSend] = []
    timers: dict[str, int] = {}
    seen_messages: bytes = b""
    messages: list[SentMessage] = []
    suppressed_addresses: dict[str, int] = {}
    assignments: dict[str, str] = {}
    pending_goals: list[PendingGoal] = []
    deferred: dict[str, list[DeferredCampaign]] = {}
    static_segments: dict[str, int] = {}
    runs: dict[str, WorkflowRun] = {}
    completed_runs: dict[str, CompletedRuns] = {}
    coupons: list[Coupon] = []
    decision_history: list[PastDecision] = []


def merge_fragment_maps(
    left: dict[str, ProfileFragment], right: dict[str, ProfileFragment]
) -> dict[str, ProfileFragment]:
    """Merge two maps: per origin the higher version; of equal versions the one with the greater bytes.

    Commutative, associative and idempotent, including the order of keys.

    >>> merged = merge_fragment_maps({"a:x": ProfileFragment(version=1)}, {"a:x": ProfileFragment(version=2)})
    >>> [(origin, fragment.version) for origin, fragment in merged.items()]
    [('a:x', 2)]
    """
    merged = {}
    for origin in sorted(left.keys() | right.keys()):
        have, more = left.get(origin), right.get(origin)
        if have is None or more is None:
            merged[origin] = have or more or ProfileFragment()
        else:
            merged[origin] = max(have, more, key=_fragment_rank)
    return merged


def build_merge_response(person: Person) -> dict[str, Any]:
    """Return all state that moves to the known person, as plain values.

    Afterwards the person holds only links, message sequences and the population snapshot: no session that could give a
    second outcome, no timer.

    >>> person = Person(id="a:x", fragments={"a:x": ProfileFragment(pages=1)}, timers={"session_end:": 5})
    >>> build_merge_response(person)["fragments"], person.fragments, person.timers
    ({'a:x': {'pages': 1}}, {}, {})
    """
    body: dict[str, Any] = msgspec.to_builtins(
        MergeResponse(
            fragments=person.fragments,
            session=person.session,
            cart=person.cart,
            exposures=person.exposures,
            pending_sends=person.pending_sends,
            timers={name: due for name, due in person.timers.items() if name.startswith(MOVED_TIMERS)},
            seen_messages=person.seen_messages,
            messages=person.messages,
            suppressed_addresses=person.suppressed_addresses,
            assignments=person.assignments,
            pending_goals=person.pending_goals,
            deferred=person.deferred,
            static_segments=person.static_segments,
            runs=person.runs,
            completed_runs=person.completed_runs,
            coupons=wallet.export(person),
            decision_history=log.export(person),
        )
    )
    empty = Person(
        id=person.id,
        identity_links=person.identity_links,
        peer_sequences=person.peer_sequences,
        merged_into=person.merged_into,
        first_merge=person.first_merge,
        population_snapshot=person.population_snapshot,
    )
    for name in person.__struct_fields__:
        setattr(person, name, getattr(empty, name))
    person.__dict__.clear()  # drops `derived`
    return body


def merge_into(person: Person, body: dict[str, Any], now: int) -> None:
    """Apply the merge response of another id of this person (see the guarantees above).

    `now` is the shard's clock in ms. Raise msgspec.ValidationError, before any change, if the body is invalid.
    """
    given = msgspec.convert(body, MergeResponse)
    if given.v > VERSION:
        raise msgspec.ValidationError(f"merge response of version {given.v}; this program reads up to {VERSION}")
    person.derived.profile = None
    mine, theirs = person.session, given.session
    person.fragments = merge_fragment_maps(person.fragments, given.fragments)
    if theirs is not None:
        if mine is None:
            person.session = theirs
        else:
            person.session = merge_sessions(mine, theirs)
            own = person.own_fragment()
            own.version += 1
            own.sessions -= 1
        _update_first_session(person, person.session)
    if (session := person.session) is not None:
        person.timers[SESSION_TIMER] = max(now, ends_at(session))
    person.cart = merge_carts(person.cart, given.cart)
    _merge_exposures(person, given.exposures, {session.id for session in (mine, theirs) if session is not None})
    known = {send.action_id for send in person.pending_sends}
    person.pending_sends.extend(send for send in given.pending_sends if send.action_id not in known)
    for name, due in given.timers.items():
        person.timers[name] = (max if name.startswith(UNTAG_TIMER) else min)(due, person.timers.get(name, due))
    exposures.evict_oldest(person)
    for name, since in given.static_segments.items():
        person.static_segments[name] = min(since, person.static_segments.get(name, since))
    workflow_runs.merge_runs(person, given.runs, given.completed_runs)
    wallet.merge(person, given.coupons)
    log.merge(person, given.decision_history, now)
    person.seen_messages = dedup.merge_seen(person.seen_messages, given.seen_messages)
    person.messages = messages.merge(person.messages, given.messages)
    for name, at in given.suppressed_addresses.items():
        person.suppressed_addresses[name] = max(at, person.suppressed_addresses.get(name, 0))
    addresses.evict_oldest(person)
    experiments.merge(person, given.assignments)
    goals.merge(person, given.pending_goals)
    deferred.merge(person, given.deferred)
    _compact_fragments(person)


def merge_sessions(left: Session, right: Session) -> Session:
    """Merge two open sessions of one person. The order of the arguments does not matter.

    >>> joined = merge_sessions(Session("2b", 5, 9, pages=1, device="mobile"), Session("1a", 3, 4, pages=2))
    >>> joined.id, joined.started_at, joined.last_at, joined.pages, joined.device
    ('1a', 3, 9, 3, 'mobile')
    """
    first, second = sorted((left, right), key=lambda session: (session.started_at, session.id))
    older, newer = sorted((left, right), key=lambda session: (session.last_at, session.id))
    joined = Session(
        id=first.id,
        started_at=first.started_at,
        last_at=newer.last_at,
        anonymous_id=newer.anonymous_id or older.anonymous_id,
        first_session=first.first_session and second.first_session,
        pages=first.pages + second.pages,
        events=first.events + second.events,
        products=first.products + second.products,
        cart_adds=first.cart_adds + second.cart_adds,
        searches=first.searches + second.searches,
        exit_intents=first.exit_intents + second.exit_intents,
        landing_page=first.landing_page or second.landing_page,
        referrer=first.referrer or second.referrer,
        source=first.source,
        medium=first.medium,
        campaign=first.campaign,
        device=newer.device or older.device,
        country=newer.country or older.country,
        ordered=left.ordered or right.ordered,
        ordered_at=earliest(left.ordered_at, right.ordered_at),
        labelled=left.labelled or right.labelled,
        snapshot_candidates=left.snapshot_candidates + right.snapshot_candidates,
        time_triggered=sorted({*left.time_triggered, *right.time_triggered}),
        dismissed=sorted({*left.dismissed, *right.dismissed}),
        filled_slots={**older.filled_slots, **newer.filled_slots},
    )
    if not (joined.source or joined.medium or joined.campaign):
        joined.source, joined.medium, joined.campaign = second.source, second.medium, second.campaign
    usable = [
        half
        for half in (first, second)
        if half.snapshot and not (joined.ordered_at and half.snapshot_at > joined.ordered_at)
    ]
    if usable:
        total = sum([max(1, half.snapshot_candidates) for half in usable])
        keep = usable[0]
        if len(usable) == 2 and session_uniform(joined.id, -joined.snapshot_candidates) * total >= max(
            1, keep.snapshot_candidates
        ):
            keep = usable[1]
        joined.snapshot, joined.snapshot_at = keep.snapshot, keep.snapshot_at
        joined.snapshot_score, joined.snapshot_model = keep.snapshot_score, keep.snapshot_model
    return joined


def merge_carts(left: Cart | None, right: Cart | None) -> Cart | None:
    """Merge two carts; a product in both has the line that changed last. The order of the arguments does not matter.

    >>> from state.person.model import CartItem
    >>> merge_carts(Cart(items={"p": CartItem(1, 5, at=1)}), Cart(items={"p": CartItem(2, 5, at=2)})).value
    10
    """
    if left is None or right is None:
        return left or right
    old, new = sorted((left, right), key=lambda cart: (cart.updated_at, cart.created_at, cart.cart_id))
    items = dict(old.items)
    for product_id, item in new.items.items():
        have = items.get(product_id)
        if have is None or (item.at, item.quantity, item.price) >= (have.at, have.quantity, have.price):
            items[product_id] = item
    newest = sorted(items, key=lambda product_id: (items[product_id].at, product_id))[-MAX_CART_ITEMS:]
    return Cart(
        cart_id=new.cart_id or old.cart_id,
        items={product_id: items[product_id] for product_id in newest},
        currency=new.currency or old.currency,
        created_at=earliest(old.created_at, new.created_at),
        updated_at=new.updated_at,
        checkout_at=max(old.checkout_at, new.checkout_at),
    )


def _fragment_rank(fragment: ProfileFragment) -> tuple[int, bytes]:
    return fragment.version, _encode(fragment)


def _update_first_session(person: Person, session: Session) -> None:
    """Keep `first_session` only if the fragments count a single session."""
    if session.first_session:
        session.first_session = sum([fragment.sessions for fragment in person.fragments.values()]) <= 1


def _merge_exposures(person: Person, counters: dict[str, ExposureCounter], open_sessions: set[str]) -> None:
    now_open = person.session.id if person.session is not None else ""
    for campaign, more in counters.items():
        have = person.exposures.setdefault(campaign, ExposureCounter())
        have.total += more.total
        if more.day == have.day:
            have.in_day += more.in_day
        elif more.day > have.day:
            have.day, have.in_day = more.day, more.in_day
        open_now = [counter for counter in (have, more) if counter.session_id in open_sessions]
        if open_now:
            have.session_id, have.in_session = now_open, sum([counter.in_session for counter in open_now])
        elif more.last_at > have.last_at:
            have.session_id, have.in_session = more.session_id, more.in_session
        have.last_at = max(have.last_at, more.last_at)
        have.times = sorted([*have.times, *more.times])[-MAX_EXPOSURE_TIMES:]
    for have in person.exposures.values():
        if have.session_id in open_sessions:
            have.session_id = now_open


def _compact_fragments(person: Person) -> None:
    """Combine the oldest fragments beyond MAX_FRAGMENTS under OVERFLOW_ORIGIN (these cannot be undone)."""
    if len(person.fragments) <= MAX_FRAGMENTS:
        return
    others = [origin for origin in person.fragments if origin not in (person.id, OVERFLOW_ORIGIN)]
    others.sort(key=lambda origin: (person.fragments[origin].last_seen, origin))
    evicted = others[: len(person.fragments) - MAX_FRAGMENTS + (OVERFLOW_ORIGIN not in person.fragments)]
    older = merge_fragments(
        [person.fragments[origin] for origin in (*evicted, OVERFLOW_ORIGIN) if origin in person.fragments]
    )
    for origin in evicted:
        del person.fragments[origin]
    person.fragments[OVERFLOW_ORIGIN] = older
