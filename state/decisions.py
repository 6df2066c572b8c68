"""Decisions: the last word about each campaign, kept with the person for `attimo explain`."""

from state.person import Decision, Person

MAX_DECISIONS = 50
"""Campaigns whose last decision is kept; the oldest gives way."""

MAX_WHY = 240
"""Characters that are kept of the conditions that held."""


def because(held: tuple[str, ...]) -> str:
    """The conditions that held, as the words that are kept.

    >>> because(("first visit", "is in CA (CA)")), len(because(("x" * 999,)))
    ('first visit; is in CA (CA)', 240)
    """
    words = "; ".join(held)
    return words if len(words) <= MAX_WHY else words[:MAX_WHY - 1] + "…"


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


def remember_shown(person: Person, campaign: str, at: int, action_id: str) -> None:
    """Keep that a campaign was shown, with the words why it had been sent or armed."""
    last = person.decisions.get(campaign)
    if last is None or last.kind not in ("send", "arm"):  # it was taken back meanwhile, or forgotten
        remember(person, campaign, at, "shown", action_id=action_id)
        return
    remember(person, campaign, at, "shown", last.reason, last.detail, action_id)


def told(person: Person, campaign: str, reason: str) -> bool:
    """Whether the last word about a campaign was to hold it for this very reason."""
    last = person.decisions.get(campaign)
    return last is not None and last.kind == "hold" and last.reason == reason
