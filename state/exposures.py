"""Exposures: what was shown to a person, and what was sent and holds a place until it is shown.

    a send ── reserves ──▶ shown (accepted) ── counts for good
                     └──▶ held, or not shown in time ── its place is free again

Whoever learns from the world what became of a send says so here: `shown` for "Offer Shown" and "Message Delivered",
`released` for what was held at the edge or bounced. Both do nothing the second time.
"""

from state.context import Context
from state.days import local_day
from state.decisions import remember_shown
from state.person import Person, Reserved, Said
from state.view import known

RESERVED_TIMER = "reserved:"

MAX_SAID = 500
"""Campaigns whose showings are remembered for one person; the one shown longest ago gives way."""

MAX_SHOWINGS = 50
"""Newest showings of one campaign whose times are kept: what is counted within a week cannot be more."""


def reserve(person: Person, reserved: Reserved) -> None:
    """Hold a place for what was sent, until it is shown or its time is over."""
    person.reserved.append(reserved)
    person.timers[RESERVED_TIMER + reserved.action_id] = reserved.until


def shown(person: Person, action_id: str, campaign: str, context: Context) -> bool:
    """Count that it was shown (or accepted by a channel); whether it counted.

    It does not when it was counted already, and when neither the campaign nor the action is known here: browsers say
    so, so nothing of it is taken for granted.
    """
    last = person.decisions.get(campaign)
    if last is not None and last.kind == "shown" and last.action_id == action_id:
        return False
    ours = released(person, action_id)
    armed = any(one.campaign == campaign for one in person.armed.values())
    if ours is None and not armed and campaign not in context.rules.campaigns:
        return False
    at, session = context.event_time or context.now, person.session
    visit = session.id if session is not None and at >= session.started_at else ""
    zone = context.rules.shop.timezone
    spend(person, campaign, visit, local_day(at, known(person).timezone or zone, zone), at)
    remember_shown(person, campaign, context.now, action_id)
    return True


def released(person: Person, action_id: str) -> Reserved | None:
    """Give back the place that was held for a send; what held it, if anything did."""
    for n, reserved in enumerate(person.reserved):
        if reserved.action_id == action_id:
            del person.reserved[n]
            person.timers.pop(RESERVED_TIMER + action_id, None)
            return reserved
    return None


def spend(person: Person, campaign: str, visit: str, today: int, at: int) -> None:
    """Count one showing at `at` (ms), in a visit (empty: in none) and on a day."""
    said = person.said.get(campaign)
    if said is None:
        if len(person.said) >= MAX_SAID:
            del person.said[min(person.said, key=lambda name: (person.said[name].last_at, name))]
        said = person.said[campaign] = Said()
    if visit:
        if said.session != visit:
            said.session, said.in_session = visit, 0
        said.in_session += 1
    if said.day < today:
        said.day, said.in_day = today, 0
    if said.day == today:  # else it is late news of an earlier day
        said.in_day += 1
    said.total += 1
    said.last_at = max(said.last_at, at)
    said.times = sorted([*said.times, at])[-MAX_SHOWINGS:]
