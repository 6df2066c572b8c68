"""Decision history: what was decided about each campaign and why, for `attimo explain`.

The latest decision is kept for 50 campaigns, and 30 earlier sends, exposures and suppressions for 90 days. Of preloads
and cancels only the latest decision is kept.
"""

from operator import attrgetter

from state.person.model import Decision, PastDecision, Person

MAX_DECISIONS = 50
"""Campaigns whose last decision is kept; the oldest gives way."""

MAX_HISTORY = 30
HISTORY_TTL = 90 * 86_400_000
"""How many earlier decisions are kept, and how long (ms)."""

MAX_DETAIL = 240
"""Maximum length of the stored conditions that passed, in characters."""

_TRANSIENT = ("preload", "cancel")


def summarize_conditions(passed: tuple[str, ...]) -> str:
    """Join the conditions that passed into the text that is stored.

    >>> summarize_conditions(("first session", "is in CA (CA)")), len(summarize_conditions(("x" * 999,)))
    ('first session; is in CA (CA)', 240)
    """
    words = "; ".join(passed)
    return words if len(words) <= MAX_DETAIL else words[: MAX_DETAIL - 1] + "…"


def record_decision(
    person: Person, campaign: str, at: int, kind: str, reason: str = "", detail: str = "", action_id: str = ""
) -> None:
    """Store the latest decision about a campaign.

    >>> person = Person(id="a:x")
    >>> record_decision(person, "exit", 5, "suppress", "campaign_cap")
    >>> record_decision(person, "exit", 9, "send", "exit intent", action_id="i")
    >>> person.decisions
    {'exit': Decision(at=9, kind='send', reason='exit intent', detail='', action_id='i')}
    >>> person.decision_history
    [PastDecision(campaign='exit', at=5, kind='suppress', reason='campaign_cap', detail='', action_id='')]
    """
    decisions = person.decisions
    before = decisions.pop(campaign, None)
    decisions[campaign] = Decision(at, kind, reason, detail, action_id)
    if len(decisions) > MAX_DECISIONS:
        oldest = next(iter(decisions))
        _archive(person, oldest, decisions.pop(oldest), at)
    if before is not None and not (action_id and before.action_id == action_id):
        _archive(person, campaign, before, at)


def _archive(person: Person, campaign: str, decision: Decision, now: int) -> None:
    if decision.kind in _TRANSIENT:
        return
    person.decision_history.append(_to_past(campaign, decision))
    _evict_oldest(person, now)


def _to_past(campaign: str, decision: Decision) -> PastDecision:
    return PastDecision(campaign, decision.at, decision.kind, decision.reason, decision.detail, decision.action_id)


def _evict_oldest(person: Person, now: int) -> None:
    earlier = person.decision_history
    while len(earlier) > MAX_HISTORY or (earlier and earlier[0].at < now - HISTORY_TTL):
        del earlier[0]


def export(person: Person) -> list[PastDecision]:
    """Return the decisions under this id for the merge into another person, oldest first."""
    last = [_to_past(campaign, one) for campaign, one in person.decisions.items() if one.kind not in _TRANSIENT]
    return sorted([*person.decision_history, *last], key=attrgetter("at", "campaign"))[-MAX_HISTORY:]


def merge(person: Person, history: list[PastDecision], now: int) -> None:
    """Merge the decisions made under another id."""
    if history:
        person.decision_history = sorted([*person.decision_history, *history], key=attrgetter("at", "campaign"))
        _evict_oldest(person, now)


def record_shown(person: Person, campaign: str, at: int, action_id: str) -> None:
    """Record that a campaign was shown, with the reason why it was sent or preloaded."""
    last = person.decisions.get(campaign)
    if last is None or last.kind not in ("send", "preload"):  # canceled or evicted meanwhile
        record_decision(person, campaign, at, "shown", action_id=action_id)
        return
    record_decision(person, campaign, at, "shown", last.reason, last.detail, action_id)


def was_shown(person: Person, campaign: str, action_id: str) -> bool:
    """Return whether the action is recorded as shown, regardless of later decisions."""
    last = person.decisions.get(campaign)
    return (last is not None and last.kind == "shown" and last.action_id == action_id) or any(
        one.action_id == action_id and one.kind == "shown" for one in person.decision_history
    )


def is_repeat(person: Person, campaign: str, reason: str) -> bool:
    """Return whether the latest decision suppressed the campaign for the same reason."""
    last = person.decisions.get(campaign)
    return last is not None and last.kind == "suppress" and last.reason == reason
