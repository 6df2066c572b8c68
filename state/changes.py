"""Changes: what a happening may have changed of what conditions read, so that only those conditions are asked again.

Conditions name their `needs`; a happening names its changes in the same words:

    visit                    another visit, or none                 about     country, device, language, source
    pages products searches  counted in the visit                   person    traits, consent: asks everything again
    score                    the score or the band                  cart orders event:<name> segment:<name>

Who changes a person after the segments were matched (a coupon reserved, a trait set by a workflow) sets the timer
`again:` to now: everything is then asked again at once, as a happening of its own.

What was last seen is kept with the person while it is hot and never stored (`Person.__dict__`). After a reload it is
not there, and everything is asked again, which changes no answer: an answer depends on the person alone.
"""

from typing import Any

from domain.event_names import CALL_EVENTS
from domain.letter import Letter
from domain.streams import CARTS, PEOPLE, PURCHASES, stream_of
from state.context import Due, Happening
from state.person import Facts, Person

_VISIT = ("visit", "pages", "products", "searches", "about")


def changes(person: Person, facts: Facts, event: Happening) -> list[str] | None:
    """What this happening, once it was folded, may have changed.

    >>> from domain.event import Page
    >>> from state.person import Session
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=1))
    >>> changes(person, Facts(), Page()) is None
    True
    >>> person.session.pages = 2
    >>> changes(person, Facts(), Page())
    ['pages', 'event:Page Viewed']
    """
    hot = person.__dict__
    before: tuple[Any, ...] | None = hot.get("seen")
    session = person.session
    if session is None:
        seen = ("", 0, 0, 0, facts.country, facts.device, facts.locale, facts.last_source, person.score, person.band)
    else:
        seen = (session.id, session.pages, session.products, session.searches, facts.country, facts.device,
                facts.locale, facts.last_source, person.score, person.band)
    hot["seen"] = seen
    if isinstance(event, Due) and event.kind == "again":
        return None
    if isinstance(event, Due):  # each timer for its own: what else is due now has a timer of its own
        return [*_VISIT, "score"] if event.kind == "session_end" else []
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
            if seen[4:8] != before[4:8]:
                found.append("about")
        if seen[8:] != before[8:]:
            found.append("score")
    named = _named(event.name)
    if named is None:
        return None
    found += named
    return found


def _named(event: str) -> tuple[str, ...] | None:
    """What an event of this name may change whatever it says; None: anything."""
    kept = _KEPT.get(event)
    if kept is not None:
        return kept
    stream = stream_of("track", event)
    if stream == PEOPLE or event in CALL_EVENTS[2:]:
        return None
    return _KEPT["\0" + stream] + ("event:" + event,)


_KEPT: dict[str, tuple[str, ...]] = {"\0" + CARTS: ("cart",), "\0" + PURCHASES: ("cart", "orders"), "\0clicks": ()}
_KEPT["Page Viewed"] = ("event:Page Viewed",)
_KEPT["Product Viewed"] = ("event:Product Viewed",)
