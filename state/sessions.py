"""Sessions: when a visit begins, goes on and ends; and the one moment of it that is learned from.

A visit ends 30 minutes after its last event (event time), or when somebody comes back through another campaign. The
timer `session_end:` stands at the end as it was known when it was set; when it fires and the visit went on, it is set
again. That costs one timer per visit and half hour, not one per event.

An event that happened before the visit began, or that is more than 30 minutes old when no visit is open, is late: it
counts for the person, but no visit is opened, prolonged or closed in the past for it.
"""

from collections.abc import Sequence
from hashlib import blake2b

from domain.outcome import Outcome
from state.context import Context
from state.person import Facts, Person, Session

SESSION_FOR = 30 * 60_000
"""Milliseconds without an event after which a visit is over."""

SESSION_TIMER = "session_end:"

_MASK = (1 << 64) - 1


def ends_at(session: Session) -> int:
    """When the visit ends, if nothing more happens (ms)."""
    return session.last_at + SESSION_FOR


def session_id(person: str, started_at: int) -> str:
    """The id of a visit: the same whenever it is folded again.

    >>> session_id("a:x", 5), len(session_id("a:x", 6))
    ('6cd66276c547a742', 16)
    """
    return blake2b(f"{person} {started_at}".encode(), digest_size=8).hexdigest()


def chance(session: str, n: int) -> float:
    """A number in [0, 1) that depends on the visit's id and `n` alone, evenly spread and independent over `n`.

    (splitmix64: a checksum would do for one draw, but its draws depend on one another.)

    >>> round(chance("6cd66276c547a742", 1), 3), round(chance("6cd66276c547a742", 2), 3)
    (0.727, 0.244)
    """
    z = int(session, 16) + n * 0x9E3779B97F4A7C15 & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return (z ^ z >> 31) / 18446744073709551616.0


def begin(person: Person, facts: Facts, at: int) -> Session:
    """Open a visit at `at` (ms), count it, and set its timer."""
    first_visit = not facts.sessions and not any(other.sessions for other in person.facets.values())
    facts.sessions += 1
    session = Session(session_id(person.id, at), at, at, first_visit=first_visit)
    person.session = session
    person.timers[SESSION_TIMER] = at + SESSION_FOR
    return session


def close(person: Person, context: Context, step: str) -> Sequence[Outcome]:
    """End the open visit. If nothing was said of it yet, its moment becomes an outcome now: did it end in an order?"""
    session = person.session
    person.session = None
    person.timers.pop(SESSION_TIMER, None)
    if session is None or session.labelled or not session.snapshot:
        return ()
    return (label(person, session, session.ordered, context, step),)


def label(person: Person, session: Session, bought: bool, context: Context, step: str) -> Outcome:
    """The one outcome of a visit, with the features as they were at its moment. Never a second one."""
    session.labelled = True
    return Outcome(
        kind="propensity", id=context.id(step), person=person.id, at=context.now, taken_at=session.snapshot_at,
        label=bought, features=session.snapshot, score=session.snapshot_score, model=session.snapshot_model)


def device_of(user_agent: str) -> str:
    """The device class by a user agent alone, where no collector has looked at it.

    >>> device_of("Mozilla/5.0 (iPhone; CPU iPhone OS 18_7)"), device_of("Mozilla/5.0 (X11; Linux x86_64)")
    ('mobile', 'desktop')
    """
    if "iPad" in user_agent or "Tablet" in user_agent or ("Android" in user_agent and "Mobile" not in user_agent):
        return "tablet"
    return "mobile" if "Mobi" in user_agent or "iPhone" in user_agent else "desktop"
