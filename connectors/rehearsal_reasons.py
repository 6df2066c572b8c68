"""Why a campaign was told to nobody in a rehearsal: what failed most often, in the words of its conditions.

    its occasion never came (and who kept out of what leads to it) ─▶ its conditions never held ─▶ it was held back
"""

from collections.abc import Iterator

from domain.amounts import some, times
from domain.rehearsal import Chance, Counts, Found, Leads, Report, Told

DEEP = 4
"""Segments that are followed from one to the next."""
_BELONGS = "belongs to "


def most(failed: Counts) -> tuple[str, int]:
    """The statement that failed most often, and how often; of several the first by its words.

    >>> most({"is in CA": 3, "first visit": 7, "a": 7})
    ('a', 7)
    """
    return min(failed.items(), key=lambda one: (-one[1], one[0])) if failed else ("", 0)


def way(chance: Chance, told: Told, armed: bool) -> str:
    """From its occasions to what was said, in one line.

    >>> way(Chance(30, 12), Told(holds={}), False)
    'came 30 times, its conditions held 12 times, held back 0 times, told 0 times'
    """
    held = sum(one.times for one in told.holds.values())
    said = sum(sum(days.values()) for days in told.per_day.values())
    ready = f", made ready {times(told.armed)}" if armed else ""
    return (f"came {times(chance.came)}, its conditions held {times(chance.fitted)}{ready}, held back {times(held)}, "
            f"told {times(said)}")


def because(name: str, report: Report) -> str:
    """Why it was told to nobody; empty when nothing is known of its chances."""
    found, leads = report.found, report.about.leads.get(name)
    if leads is None:
        return ""
    chance, told = found.chances.get(name, Chance()), found.campaigns.get(name) or Told()
    if not chance.came:
        return "; ".join(_never_came(leads, found))
    if not chance.fitted:
        words, n = most(chance.failed)
        return f"came {times(chance.came)}, and what failed most often is: {words} ({times(n)})"
    if told.holds:
        reason, held = min(told.holds.items(), key=lambda one: (-one[1].times, one[0]))
        return f"its conditions held {times(chance.fitted)}, and it was held back {times(held.times)}: {reason}"
    if told.armed:
        return f"was made ready {times(told.armed)}, and nobody left just then"
    return f"came {times(chance.came)}, its conditions held {times(chance.fitted)}, and something else was said instead"


def _never_came(leads: Leads, found: Found) -> Iterator[str]:
    """Its occasion never came: through what it would have."""
    for name in leads.workflows:
        entered = found.workflows.get(name, {}).get("entered", 0)
        yield (f"{some(entered, 'way')} through the workflow {name} began and none came to it" if entered else
               f"nobody entered the workflow {name}")
        if entered:
            return
    if not leads.workflows:
        yield f"its occasion never came: {leads.occasion}"
    elif leads.events:
        yield "what lets people in never came, or not to those whom it is meant for: " + ", ".join(leads.events)
    for segment in leads.segments:
        yield from _kept_out(segment, found)


def _kept_out(segment: str, found: Found) -> Iterator[str]:
    """What kept people out of a segment, and of the segment that it asks for."""
    for _ in range(DEEP):
        words, people = most(found.kept_out.get(segment, {}))
        if not words:
            return
        yield f"what failed most often for {segment} is: {words} ({some(people, 'person', 'people')})"
        segment = words.removeprefix(_BELONGS)
        if segment == words:
            return
