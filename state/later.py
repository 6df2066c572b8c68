"""Later: campaigns whose occasion has come and that are to be decided at another moment.

A delay waits for its time to pass, a message in quiet hours for their end. The timer `later:<campaign>` stands at the
next moment; then the campaign is decided again in full, by what is true of the person then, together with whatever else
waited for that moment. Each occasion of a delayed campaign is decided for itself, that long after it.
"""

from operator import attrgetter

from state.context import Due
from state.person import MAX_LATER, Later, Person
from state.rules import CampaignRule

LATER_TIMER = "later:"
MAX_DUES = 10
"""Moments that one campaign waits for; when there are more, the newest takes the place of the one before it."""

_due = attrgetter("due")


def put_off(person: Person, rule: CampaignRule, due: int, occasion: str, run: str = "", pool: str = "") -> None:
    """Decide this campaign at `due` (ms), as on this occasion; for a way through a workflow, if `run` names one.

    With a `pool` it waits for codes of it, and is decided when they come, at `due` at the latest.

    Of more than MAX_LATER campaigns the one whose moment is farthest off is given up.
    """
    waiting = person.later.get(rule.name, [])
    if any(one.due == due and one.run == run for one in waiting):
        return
    _keep(person, rule.name, [*waiting, Later(due, occasion, run, pool)])
    if len(person.later) > MAX_LATER:
        gone = max(person.later, key=lambda name: (person.later[name][0].due, name))
        _keep(person, gone, [])


def came_due(person: Person, event: Due) -> list[tuple[str, Later]]:
    """What has waited long enough, with the campaign's name; it waits no more.

    It is all that is due at one moment, so that of several for the same place, or of a group, the right one is said.
    """
    found: list[tuple[str, Later]] = []
    for campaign in list(person.later):
        waiting = person.later[campaign]
        come = [one for one in waiting if one.due <= event.due]
        if come:
            _keep(person, campaign, waiting[len(come):])
            found += [(campaign, one) for one in come]
    return found


def codes_came(person: Person, pool: str) -> list[tuple[str, Later]]:
    """What waited for codes of this pool, with the campaign's name; it waits no more."""
    found: list[tuple[str, Later]] = []
    for campaign in list(person.later):
        waiting = person.later[campaign]
        come = [one for one in waiting if one.pool == pool]
        if come:
            _keep(person, campaign, [one for one in waiting if one.pool != pool])
            found += [(campaign, one) for one in come]
    return found


def join(person: Person, later: dict[str, list[Later]]) -> None:
    """Wait for what another id of this person waited for, too."""
    for campaign, more in later.items():
        mine = person.later.get(campaign, [])
        known = {(one.due, one.run) for one in mine}
        _keep(person, campaign, [*mine, *(one for one in more if (one.due, one.run) not in known)])
    for campaign in sorted(person.later, key=lambda name: (person.later[name][0].due, name))[MAX_LATER:]:
        _keep(person, campaign, [])


def _keep(person: Person, campaign: str, waiting: list[Later]) -> None:
    timer = LATER_TIMER + campaign
    if not waiting:
        person.later.pop(campaign, None)
        person.timers.pop(timer, None)
        return
    waiting = sorted(waiting, key=_due)
    if len(waiting) > MAX_DUES:
        waiting = [*waiting[:MAX_DUES - 1], waiting[-1]]
    person.later[campaign] = waiting
    person.timers[timer] = waiting[0].due
