"""Exposures: what was shown to a person, and sends that reserve a place until they are shown.

    a send ── reserves ──▶ shown (accepted) ── counts permanently
                     └──▶ suppressed or expired ── its place is released

Both operations are idempotent.
"""

from domain.playbook.condition import MAX_EXPOSURE_TIMES
from state.context import StepContext
from state.decisions import goals
from state.decisions.experiments import assign
from state.decisions.log import record_shown, was_shown
from state.local_time import local_day
from state.person.model import MAX_PENDING_SENDS, ExposureCounter, PendingSend, Person, PreloadedOffer, Session
from state.profile.profile import merged_profile

PENDING_SEND_TIMER = "reserved:"

MAX_EXPOSURES = 500
"""Campaigns whose showings are remembered for one person; the one shown longest ago gives way."""

MAX_FILLED_SLOTS = 50
"""Campaigns that fill slots in one visit whose words are remembered; of more, every showing counts."""


def reserve(person: Person, pending: PendingSend) -> None:
    """Hold a place for what was sent, until it is shown or its time is over. Of too many the oldest one is given back:
    when nobody says for long what became of so many, they may be said again.
    """
    person.pending_sends.append(pending)
    person.timers[PENDING_SEND_TIMER + pending.action_id] = pending.until
    evict_oldest(person)


def evict_oldest(person: Person) -> None:
    """Limit the pending sends to the maximum."""
    while len(person.pending_sends) > MAX_PENDING_SENDS:
        release(person, person.pending_sends[0].action_id)


def confirm(person: Person, action_id: str, campaign: str, context: StepContext) -> bool:
    """Count that it was shown (or accepted by a channel); whether this was news. From now on its goal is hoped for.

    It is none when it was counted already, and when neither the campaign nor the action is known here: browsers say
    so, so nothing of it is taken for granted: of an action that is known, its own campaign counts. What fills a slot
    again on another page of the visit, and says the same, is news and is not counted again.
    """
    known_here: list[PendingSend | PreloadedOffer] = [*person.pending_sends, *person.preloaded.values()]
    campaign = next((one.campaign for one in known_here if one.action_id == action_id), campaign)
    if was_shown(person, campaign, action_id):
        return False
    ours = release(person, action_id)
    armed = next((one for one in person.preloaded.values() if one.campaign == campaign), None)
    rules = context.rules
    rule = rules.campaigns.get(campaign)
    if ours is None and armed is None and rule is None:
        return False
    at, session = context.event_time or context.now, person.session
    visit = session if session is not None and at >= session.started_at else None
    record_shown(person, campaign, context.now, action_id)
    if rule is not None and rule.format == "slot" and visit is not None and _refills_slot(visit, campaign, ours):
        return True
    zone = rules.shop.timezone
    record_exposure(
        person,
        campaign,
        visit.id if visit is not None else "",
        local_day(at, merged_profile(person).timezone or zone, zone),
        at,
    )
    if rule is not None and rule.goal is not None:
        decided = ours or armed or assign(person, rule, rules)
        goals.open_goal(person, rule, action_id, at, decided.variant, decided.propensity)
    return True


def already_filled(person: Person, campaign: str, content_key: str) -> bool:
    """Return whether a slot already shows this content in this session; refilling it is no new exposure."""
    return person.session is not None and person.session.filled_slots.get(campaign) == content_key


def _refills_slot(session: Session, campaign: str, pending: PendingSend | None) -> bool:
    key = pending.content_key if pending is not None else ""
    have = session.filled_slots.get(campaign)
    if have is None and len(session.filled_slots) >= MAX_FILLED_SLOTS:
        return False
    if have is None or (key and have and key != have):
        session.filled_slots[campaign] = key
        return False
    session.filled_slots[campaign] = key or have
    return True


def release(person: Person, action_id: str) -> PendingSend | None:
    """Release and return the pending send of an action; None if there is none."""
    for n, reserved in enumerate(person.pending_sends):
        if reserved.action_id == action_id:
            del person.pending_sends[n]
            person.timers.pop(PENDING_SEND_TIMER + action_id, None)
            return reserved
    return None


def record_exposure(person: Person, campaign: str, session_id: str, today: int, at: int) -> None:
    """Count one exposure at `at` (ms), in a session (empty: none) and on a day."""
    said = person.exposures.get(campaign)
    if said is None:
        if len(person.exposures) >= MAX_EXPOSURES:
            del person.exposures[min(person.exposures, key=lambda name: (person.exposures[name].last_at, name))]
        said = person.exposures[campaign] = ExposureCounter()
    if session_id:
        if said.session_id != session_id:
            said.session_id, said.in_session = session_id, 0
        said.in_session += 1
    if said.day < today:
        said.day, said.in_day = today, 0
    if said.day == today:  # else it is late news of an earlier day
        said.in_day += 1
    said.total += 1
    said.last_at = max(said.last_at, at)
    said.times = sorted([*said.times, at])[-MAX_EXPOSURE_TIMES:]
