"""Exposures: what was shown to a person, and what was sent and holds a place until it is shown.

    a send ── reserves ──▶ shown (accepted) ── counts for good
                     └──▶ held, or not shown in time ── its place is free again

Whoever learns from the world what became of a send says so here: `shown` for "Offer Shown" and "Message Delivered",
`released` for what was held at the edge or bounced. Both do nothing the second time.
"""

from state import hopes
from state.context import Context
from state.days import local_day
from state.decisions import is_remembered, remember_shown
from state.experiments import side_of
from state.person import MAX_RESERVED, Armed, Person, Reserved, Said, Session
from state.view import known

RESERVED_TIMER = "reserved:"

MAX_SAID = 500
"""Campaigns whose showings are remembered for one person; the one shown longest ago gives way."""

MAX_FILLED = 50
"""Campaigns that fill slots in one visit whose words are remembered; of more, every showing counts."""

MAX_SHOWINGS = 50
"""Newest showings of one campaign whose times are kept: what is counted within a week cannot be more."""


def reserve(person: Person, reserved: Reserved) -> None:
    """Hold a place for what was sent, until it is shown or its time is over. Of too many the oldest one is given back:
    when nobody says for long what became of so many, they may be said again.
    """
    person.reserved.append(reserved)
    person.timers[RESERVED_TIMER + reserved.action_id] = reserved.until
    trim(person)


def trim(person: Person) -> None:
    """Hold no more places than are remembered."""
    while len(person.reserved) > MAX_RESERVED:
        released(person, person.reserved[0].action_id)


def shown(person: Person, action_id: str, campaign: str, context: Context) -> bool:
    """Count that it was shown (or accepted by a channel); whether this was news. From now on its goal is hoped for.

    It is none when it was counted already, and when neither the campaign nor the action is known here: browsers say
    so, so nothing of it is taken for granted: of an action that is known, its own campaign counts. What fills a slot
    again on another page of the visit, and says the same, is news and is not counted again.
    """
    known_here: list[Reserved | Armed] = [*person.reserved, *person.armed.values()]
    campaign = next((one.campaign for one in known_here if one.action_id == action_id), campaign)
    if is_remembered(person, campaign, action_id):
        return False
    ours = released(person, action_id)
    armed = next((one for one in person.armed.values() if one.campaign == campaign), None)
    rules = context.rules
    rule = rules.campaigns.get(campaign)
    if ours is None and armed is None and rule is None:
        return False
    at, session = context.event_time or context.now, person.session
    visit = session if session is not None and at >= session.started_at else None
    remember_shown(person, campaign, context.now, action_id)
    if rule is not None and rule.format == "slot" and visit is not None and _fills_again(visit, campaign, ours):
        return True
    zone = rules.shop.timezone
    spend(person, campaign, visit.id if visit is not None else "", local_day(at, known(person).timezone or zone, zone),
          at)
    if rule is not None and rule.goal is not None:
        decided = ours or armed or side_of(person, rule, rules)
        hopes.begin(person, rule, action_id, at, decided.variant, decided.propensity)
    return True


def fills_already(person: Person, campaign: str, key: str) -> bool:
    """Whether a slot shows these very words in this visit: to fill it again is no further showing."""
    return person.session is not None and person.session.filled.get(campaign) == key


def _fills_again(visit: Session, campaign: str, ours: Reserved | None) -> bool:
    key = ours.content_key if ours is not None else ""
    have = visit.filled.get(campaign)
    if have is None and len(visit.filled) >= MAX_FILLED:
        return False
    if have is None or (key and have and key != have):
        visit.filled[campaign] = key
        return False
    visit.filled[campaign] = key or have
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
