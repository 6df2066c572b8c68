"""Deferred campaigns: decisions that wait for a delay or for the end of quiet hours.

The timer `later:<campaign>` is the next due time. The campaign is then decided again in full, with the state of the
person at that time. Each trigger of a delayed campaign is decided separately.
"""

from operator import attrgetter

from state.context import TimerFired
from state.person.model import MAX_DEFERRED, DeferredCampaign, Person
from state.playbook.campaign import CampaignRule

DEFERRED_TIMER = "later:"
MAX_DUE_TIMES = 10
"""Moments that one campaign waits for; when there are more, the newest takes the place of the one before it."""

_by_due = attrgetter("due")


def defer(person: Person, rule: CampaignRule, due: int, trigger: str, run_id: str = "", pool: str = "") -> None:
    """Decide this campaign at `due` (ms), as on this occasion; for a way through a workflow, if `run` names one.

    With a `pool` it waits for codes of it, and is decided when they come, at `due` at the latest.

    Of more than MAX_LATER campaigns the one whose moment is farthest off is given up.
    """
    waiting = person.deferred.get(rule.name, [])
    if any(one.due == due and one.run_id == run_id for one in waiting):
        return
    _set_entries(person, rule.name, [*waiting, DeferredCampaign(due, trigger, run_id, pool)])
    if len(person.deferred) > MAX_DEFERRED:
        gone = max(person.deferred, key=lambda name: (person.deferred[name][0].due, name))
        _set_entries(person, gone, [])


def pop_due(person: Person, event: TimerFired) -> list[tuple[str, DeferredCampaign]]:
    """Remove and return the deferred decisions that are due, with the campaign name.

    It is all that is due at one moment, so that of several for the same place, or of a group, the right one is said.
    """
    found: list[tuple[str, DeferredCampaign]] = []
    for campaign in list(person.deferred):
        waiting = person.deferred[campaign]
        come = [one for one in waiting if one.due <= event.due]
        if come:
            _set_entries(person, campaign, waiting[len(come) :])
            found += [(campaign, one) for one in come]
    return found


def pop_waiting_for(person: Person, pool: str) -> list[tuple[str, DeferredCampaign]]:
    """Remove and return the decisions that wait for codes of this pool, with the campaign name."""
    found: list[tuple[str, DeferredCampaign]] = []
    for campaign in list(person.deferred):
        waiting = person.deferred[campaign]
        come = [one for one in waiting if one.pool == pool]
        if come:
            _set_entries(person, campaign, [one for one in waiting if one.pool != pool])
            found += [(campaign, one) for one in come]
    return found


def merge(person: Person, deferred: dict[str, list[DeferredCampaign]]) -> None:
    """Merge the deferred decisions of another id of this person."""
    for campaign, more in deferred.items():
        mine = person.deferred.get(campaign, [])
        known = {(one.due, one.run_id) for one in mine}
        _set_entries(person, campaign, [*mine, *(one for one in more if (one.due, one.run_id) not in known)])
    for campaign in sorted(person.deferred, key=lambda name: (person.deferred[name][0].due, name))[MAX_DEFERRED:]:
        _set_entries(person, campaign, [])


def _set_entries(person: Person, campaign: str, entries: list[DeferredCampaign]) -> None:
    timer = DEFERRED_TIMER + campaign
    if not entries:
        person.deferred.pop(campaign, None)
        person.timers.pop(timer, None)
        return
    entries = sorted(entries, key=_by_due)
    if len(entries) > MAX_DUE_TIMES:
        entries = [*entries[: MAX_DUE_TIMES - 1], entries[-1]]
    person.deferred[campaign] = entries
    person.timers[timer] = entries[0].due
