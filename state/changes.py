"""Changes: what a happening may have changed of what conditions read, so that only those conditions are asked again.

Conditions name their `needs`; a happening names its changes in the same words:

    visit                    another visit, or none                 about     country, device, language, source,
    pages products searches  counted in the visit                             first seen
    ordered                  in the visit                           person    traits, consent: asks everything again
    seen                     last seen                              score     the score or the band
    rfm                      the cell                               cart orders coupons event:<name> segment:<name>
    said:<campaign>          an offer was shown; what messages report asks everything again

Who changes a person after the segments were matched (a coupon reserved, a trait set by a workflow) sets the timer
`again:` to now: everything is then asked again at once, as a happening of its own.

What was last seen is kept with the person while it is hot and never stored (`Person.__dict__`). After a reload it is
not there, and everything is asked again, which changes no answer: an answer depends on the person alone.
"""

from typing import Any

from domain.event_names import CALL_EVENTS, OUR_EVENTS
from domain.letter import Letter
from domain.streams import CARTS, PEOPLE, PURCHASES, stream_of
from state.context import Due, Happening
from state.exposures import MAX_SAID
from state.person import MAX_COUNTS, MAX_TRACES, Facts, Person
from state.properties import property_of

_VISIT = ("visit", "pages", "products", "searches", "ordered", "about")


def changes(person: Person, facts: Facts, event: Happening) -> list[str] | None:
    """What this happening, once it was folded, may have changed.

    >>> from domain.event import Page
    >>> from state.person import Session
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=1))
    >>> changes(person, Facts(), Page()) is None
    True
    >>> person.session.pages = 2
    >>> changes(person, Facts(), Page())
    ['pages', 'event:Page Viewed', 'seen']
    """
    hot = person.__dict__
    before: tuple[Any, ...] | None = hot.get("seen")
    session = person.session
    if session is None:
        seen = ("", 0, 0, 0, False, facts.country, facts.device, facts.locale, facts.last_source, facts.first_source,
                facts.first_seen, person.rfm, person.score, person.band)
    else:
        seen = (session.id, session.pages, session.products, session.searches, session.ordered, facts.country,
                facts.device, facts.locale, facts.last_source, facts.first_source, facts.first_seen, person.rfm,
                person.score, person.band)
    hot["seen"] = seen
    if isinstance(event, Due):
        return _by_time(event.kind, before is None or seen[0] != before[0], before is None or seen[11] != before[11])
    if before is None or isinstance(event, Letter):
        return None
    found: list[str] = []
    if seen != before:
        if seen[0] != before[0]:
            found += _VISIT
        else:
            if seen[1] != before[1]:
                found.append("pages")
            if seen[2] != before[2]:
                found.append("products")
            if seen[3] != before[3]:
                found.append("searches")
            if seen[4] is not before[4]:
                found.append("ordered")
            if seen[5:11] != before[5:11]:
                found.append("about")
        if seen[11] != before[11]:
            found.append("rfm")
        if seen[12:] != before[12:]:
            found.append("score")
    named = _named(event.name)
    if named is None or len(facts.counts) >= MAX_COUNTS or len(facts.traces) >= MAX_TRACES:
        return None  # where a count or a trace may have fallen out, nobody knows which
    found += named
    if event.name in _OFFERS:
        if len(person.said) >= MAX_SAID:
            return None
        campaign = property_of(event, "campaign")
        if isinstance(campaign, str):
            found.append("said:" + campaign)
    return found


def _by_time(kind: str, visit: bool, rfm: bool) -> list[str] | None:
    """What a timer may have changed by itself: each for its own, what else is due now has a timer of its own."""
    if kind == "again":
        return None
    found = [*_VISIT, "score"] if visit or kind == "session_end" else []
    if kind.startswith("coupon"):
        found.append("coupons")
    return [*found, "rfm"] if rfm else found


def _named(event: str) -> tuple[str, ...] | None:
    """What an event of this name may change whatever it says; None: anything."""
    kept = _KEPT.get(event)
    if kept is not None:
        return kept
    stream = stream_of("track", event)
    if stream == PEOPLE or event in CALL_EVENTS[2:] or event.startswith("Coupon "):
        return None
    return ("event:" + event, "seen", *_KEPT["\0" + stream])


_KEPT: dict[str, tuple[str, ...]] = {
    "\0" + CARTS: ("cart",), "\0" + PURCHASES: ("cart", "orders", "coupons"), "\0clicks": ()}
_KEPT["Page Viewed"] = ("event:Page Viewed", "seen")
_KEPT["Product Viewed"] = ("event:Product Viewed", "seen")
_OFFERS = frozenset(name for name in OUR_EVENTS if name.startswith("Offer "))
