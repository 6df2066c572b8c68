"""Decisions: the last word about each campaign, kept with the person for `attimo explain`."""

from state.person import Decision, Person

MAX_DECISIONS = 50
"""Campaigns whose last decision is kept; the oldest gives way."""


def remember(person: Person, campaign: str, at: int, kind: str, reason: str = "", detail: str = "",
             action_id: str = "") -> None:
    """Keep this as the last word about a campaign.

    >>> person = Person(id="a:x")
    >>> remember(person, "exit", 5, "hold", "limit")
    >>> person.decisions
    {'exit': Decision(at=5, kind='hold', reason='limit', detail='', action_id='')}
    """
    decisions = person.decisions
    decisions.pop(campaign, None)
    decisions[campaign] = Decision(at, kind, reason, detail, action_id)
    if len(decisions) > MAX_DECISIONS:
        del decisions[next(iter(decisions))]


def told(person: Person, campaign: str, reason: str) -> bool:
    """Whether the last word about a campaign was to hold it for this very reason."""
    last = person.decisions.get(campaign)
    return last is not None and last.kind == "hold" and last.reason == reason
