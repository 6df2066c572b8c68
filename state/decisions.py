"""Decisions: what was decided about each campaign and why, kept with the person for `attimo explain`.

The last word about a campaign is kept for the 50 campaigns decided latest; of what was decided before, what was shown,
sent or held is kept 30 times, for 90 days. What the browser was told to hold ready comes and goes: of that only the
last word is kept.
"""


from operator import attrgetter

from state.person import Decision, Earlier, Person

MAX_DECISIONS = 50
"""Campaigns whose last decision is kept; the oldest gives way."""

MAX_EARLIER = 30
EARLIER_FOR = 90 * 86_400_000
"""How many earlier decisions are kept, and how long (ms)."""

MAX_WHY = 240
"""Characters that are kept of the conditions that held."""

_PASSING = ("arm", "disarm")


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
    >>> remember(person, "exit", 9, "send", "exit intent", action_id="i")
    >>> person.decisions
    {'exit': Decision(at=9, kind='send', reason='exit intent', detail='', action_id='i')}
    >>> person.earlier
    [Earlier(campaign='exit', at=5, kind='hold', reason='limit', detail='', action_id='')]
    """
    decisions = person.decisions
    before = decisions.pop(campaign, None)
    decisions[campaign] = Decision(at, kind, reason, detail, action_id)
    if len(decisions) > MAX_DECISIONS:
        oldest = next(iter(decisions))
        _keep(person, oldest, decisions.pop(oldest), at)
    if before is not None and not (action_id and before.action_id == action_id):
        _keep(person, campaign, before, at)


def _keep(person: Person, campaign: str, decision: Decision, now: int) -> None:
    if decision.kind in _PASSING:
        return
    person.earlier.append(_as_earlier(campaign, decision))
    _trim(person, now)


def _as_earlier(campaign: str, decision: Decision) -> Earlier:
    return Earlier(campaign, decision.at, decision.kind, decision.reason, decision.detail, decision.action_id)


def _trim(person: Person, now: int) -> None:
    earlier = person.earlier
    while len(earlier) > MAX_EARLIER or (earlier and earlier[0].at < now - EARLIER_FOR):
        del earlier[0]


def give(person: Person) -> list[Earlier]:
    """What was decided under this id, for the one it turned out to be, oldest first."""
    last = [_as_earlier(campaign, one) for campaign, one in person.decisions.items() if one.kind not in _PASSING]
    return sorted([*person.earlier, *last], key=attrgetter("at", "campaign"))[-MAX_EARLIER:]


def join(person: Person, given: list[Earlier], now: int) -> None:
    """Take over what was decided under another id."""
    if given:
        person.earlier = sorted([*person.earlier, *given], key=attrgetter("at", "campaign"))
        _trim(person, now)


def remember_shown(person: Person, campaign: str, at: int, action_id: str) -> None:
    """Keep that a campaign was shown, with the words why it had been sent or armed."""
    last = person.decisions.get(campaign)
    if last is None or last.kind not in ("send", "arm"):  # it was taken back meanwhile, or forgotten
        remember(person, campaign, at, "shown", action_id=action_id)
        return
    remember(person, campaign, at, "shown", last.reason, last.detail, action_id)


def is_remembered(person: Person, campaign: str, action_id: str) -> bool:
    """Whether it is kept that this was shown, whatever was decided since."""
    last = person.decisions.get(campaign)
    return (last is not None and last.kind == "shown" and last.action_id == action_id) or any(
        one.action_id == action_id and one.kind == "shown" for one in person.earlier)


def told(person: Person, campaign: str, reason: str) -> bool:
    """Whether the last word about a campaign was to hold it for this very reason."""
    last = person.decisions.get(campaign)
    return last is not None and last.kind == "hold" and last.reason == reason
