"""Scenario reasons: why something that a story expects did not come, in words that help to put the story right.

    the campaign's own conditions ─▶ its occasion: a segment, an event, a workflow that sends it ─▶ what holds it back
"""

from collections.abc import Iterator

from domain.duration import say
from domain.scenario import Row
from state.belonging import Belonging, Teller, senders
from state.person import Person
from state.rules import CampaignRule, Rules
from state.view import known
from state.why_not import why_not

_HOUR, _DAY = 3_600_000, 86_400_000


def said(milliseconds: int) -> str:
    """A moment of the story in words.

    >>> said(90_000), said(90_061_000), said(7_200_000), said(93_600_000), said(172_800_000)
    ('90 s', '1d 1h 1m 1s', '2 hours', '1d 2h', '2 days')
    """
    if milliseconds < _HOUR or milliseconds % _DAY == 0 or (milliseconds < _DAY and milliseconds % _HOUR == 0):
        return say(milliseconds)
    seconds = milliseconds / 1000
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return " ".join(f"{amount:g}{unit}" for amount, unit in parts if amount)


class Reasons:
    """What can be said of one person of a story: `who` they are called, at `now`; the story began at `zero` (ms)."""

    def __init__(self, who: str, person: Person, rules: Rules, now: int, zero: int) -> None:
        self.who, self.person, self.rules, self.now = who, person, rules, now
        self.belonging = Belonging(person, rules, now, Teller(
            who, lambda at: f"at {said(at - zero)}",
            lambda at: f"since {said(at - zero)}" if at >= zero else "from the beginning",
            lambda at: f"until {said(at - zero)}"))

    def why(self, row: Row) -> str:
        """Why what this row expects did not come; empty when nobody knows."""
        if row.what in ("enters", "is in"):
            return " ".join(self.belonging.segment(row.which))
        if row.what in ("leaves", "is not in"):
            return self.belonging.inside(row.which)
        if row.what == "workflow":
            return " ".join(self.belonging.workflow(row.which))
        campaign = self.rules.campaigns.get(row.which)
        return " ".join(self._campaign(campaign)) if campaign is not None and row.what != "taken back" else ""

    def _campaign(self, rule: CampaignRule) -> Iterator[str]:
        trigger = rule.campaign.trigger
        _, failed = rule.explain(self.person, known(self.person), self.now)
        if failed:
            yield "What did not hold at the end: " + "; ".join(failed)
            return
        if trigger.workflow:
            for flow in senders(rule.name, self.rules):
                yield from self.belonging.workflow(flow)
        elif trigger.segment is not None and trigger.segment not in self.person.segments:
            yield from self.belonging.segment(trigger.segment)
        elif trigger.exit_intent and any(one.campaign == rule.name for one in self.person.armed.values()):
            yield "The browser holds it ready, and shows it at the next `Exit Intent`."
            return
        for line in why_not(self.person, rule.name, self.rules, self.now):
            if not line.startswith((" ", "Now:", "They get variant")) and "Its occasion is a workflow" not in line:
                yield line.rstrip(".") + "."
