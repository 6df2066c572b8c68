"""Changed dependencies: which data an input may have changed.

Only the conditions that depend on that data are evaluated.
Conditions list their `depends_on`; an input gives its changes in the same terms:

    session                  another session, or none    profile    country, device, language, source, first seen
    pages products searches  counted in the session      traits     traits, consent, addresses: evaluates everything
    ordered                  in the session              score      the score or the band
    last_seen                last event                  rfm        the RFM cell
    shown:<campaign>         an offer was shown          cart orders coupons event:<name> segment:<name>

Message events evaluate everything.

Code that changes a person after segments were matched (a coupon reserved, a trait set by a workflow) sets the timer
`again:` to now: everything is then evaluated again at the same instant, as an input of its own.

The last observed values are kept in `Person.derived`, which is never stored. After a reload
everything is evaluated. The result is the same, because it depends on the person alone.
"""

from typing import Any

from domain.action import ShardMessage
from domain.event import ATTIMO_EVENTS, CALL_EVENTS
from domain.record import CARTS, PEOPLE, PURCHASES, event_stream
from state.conditions.properties import get_property
from state.context import Input, TimerFired
from state.decisions.exposures import MAX_EXPOSURES
from state.person.model import MAX_COUNTERS, MAX_LIFETIME_COUNTS, Person, ProfileFragment

_SESSION_DEPENDENCIES = ("session", "pages", "products", "searches", "ordered", "profile")


def changed_dependencies(person: Person, profile: ProfileFragment, event: Input) -> list[str] | None:
    """Return what this input may have changed, after it was applied; None: anything.

    >>> from domain.event import Page
    >>> from state.person.model import Session
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=1))
    >>> changed_dependencies(person, ProfileFragment(), Page()) is None
    True
    >>> person.session.pages = 2
    >>> changed_dependencies(person, ProfileFragment(), Page())
    ['pages', 'event:Page Viewed', 'last_seen']
    """
    derived = person.derived
    before = derived.observed
    observed: tuple[Any, ...]
    session = person.session
    if session is None:
        observed = (
            "",
            0,
            0,
            0,
            False,
            profile.country,
            profile.device,
            profile.locale,
            profile.last_source,
            profile.first_source,
            profile.first_seen,
            person.rfm,
            person.score,
            person.band,
        )
    else:
        observed = (
            session.id,
            session.pages,
            session.products,
            session.searches,
            session.ordered,
            profile.country,
            profile.device,
            profile.locale,
            profile.last_source,
            profile.first_source,
            profile.first_seen,
            person.rfm,
            person.score,
            person.band,
        )
    derived.observed = observed
    if isinstance(event, TimerFired):
        return _changed_by_timer(
            event.kind, before is None or observed[0] != before[0], before is None or observed[11] != before[11]
        )
    if before is None or isinstance(event, ShardMessage):
        return None
    found: list[str] = []
    if observed != before:
        if observed[0] != before[0]:
            found += _SESSION_DEPENDENCIES
        else:
            if observed[1] != before[1]:
                found.append("pages")
            if observed[2] != before[2]:
                found.append("products")
            if observed[3] != before[3]:
                found.append("searches")
            if observed[4] is not before[4]:
                found.append("ordered")
            if observed[5:11] != before[5:11]:
                found.append("profile")
        if observed[11] != before[11]:
            found.append("rfm")
        if observed[12:] != before[12:]:
            found.append("score")
    named = _changed_by_event(event.name)
    if named is None or len(profile.lifetime_counts) >= MAX_LIFETIME_COUNTS or len(profile.counters) >= MAX_COUNTERS:
        return None  # a count or counter may have been evicted
    found += named
    if event.name in _OFFER_EVENTS:
        if len(person.exposures) >= MAX_EXPOSURES:
            return None
        campaign = get_property(event, "campaign")
        if isinstance(campaign, str):
            found.append("shown:" + campaign)
    return found


def _changed_by_timer(kind: str, session_changed: bool, rfm_changed: bool) -> list[str] | None:
    """Return what a timer may have changed. Other timers due now are handled by themselves."""
    if kind == "again":
        return None
    found = [*_SESSION_DEPENDENCIES, "score"] if session_changed or kind == "session_end" else []
    if kind.startswith("coupon"):
        found.append("coupons")
    return [*found, "rfm"] if rfm_changed else found


def _changed_by_event(event: str) -> tuple[str, ...] | None:
    """Return what an event of this name may change; None: anything."""
    known = _BY_EVENT.get(event)
    if known is not None:
        return known
    stream = event_stream("track", event)
    if stream == PEOPLE or event in CALL_EVENTS[2:] or event.startswith("Coupon "):
        return None
    return ("event:" + event, "last_seen", *_BY_EVENT["\0" + stream])


_BY_EVENT: dict[str, tuple[str, ...]] = {
    "\0" + CARTS: ("cart",),
    "\0" + PURCHASES: ("cart", "orders", "coupons"),
    "\0clicks": (),
}
_BY_EVENT["Page Viewed"] = ("event:Page Viewed", "last_seen")
_BY_EVENT["Product Viewed"] = ("event:Product Viewed", "last_seen")
_OFFER_EVENTS = frozenset(name for name in ATTIMO_EVENTS if name.startswith("Offer "))
