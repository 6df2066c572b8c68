"""Scenario reasons: why something that a story expects did not come, in words that help to put the story right.

    the campaign's own conditions ─▶ its occasion: a segment, an event, a workflow that sends it ─▶ what holds it back
"""

from collections.abc import Iterator

from domain.duration import say
from domain.scenario import Row
from state.person import Person
from state.rules import CampaignRule, Rules
from state.runs import ASKED
from state.view import known
from state.why_not import why_not

_HOUR = 3_600_000


def said(milliseconds: int) -> str:
    """A moment of the story in words.

    >>> said(90_000), said(90_061_000)
    ('90 s', '1d 1h 1m 1s')
    """
    if milliseconds < _HOUR or milliseconds % _HOUR == 0:
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
        self.who, self.person, self.rules, self.now, self.zero = who, person, rules, now, zero

    def why(self, row: Row) -> str:
        """Why what this row expects did not come; empty when nobody knows."""
        if row.what in ("enters", "is in"):
            return " ".join(self._segment(row.which))
        if row.what in ("leaves", "is not in"):
            return self._still_in(row.which)
        if row.what == "workflow":
            return " ".join(self._workflow(row.which))
        campaign = self.rules.campaigns.get(row.which)
        return " ".join(self._campaign(campaign)) if campaign is not None and row.what != "taken back" else ""

    def _campaign(self, rule: CampaignRule) -> Iterator[str]:
        trigger = rule.campaign.trigger
        _, failed = rule.explain(self.person, known(self.person), self.now)
        if failed:
            yield "What did not hold at the end: " + "; ".join(failed)
            return
        if trigger.workflow:
            flows = [name for name, flow in self.rules.workflows.live.items()
                     if any(step.step.send == rule.name for step in flow.steps)]
            for flow in flows:
                yield from self._workflow(flow)
        elif trigger.segment is not None and trigger.segment not in self.person.segments:
            yield from self._segment(trigger.segment)
        elif trigger.exit_intent and any(one.campaign == rule.name for one in self.person.armed.values()):
            yield "The browser holds it ready, and shows it at the next `Exit Intent`."
            return
        for line in why_not(self.person, rule.name, self.rules, self.now):
            if not line.startswith((" ", "Now:", "They get variant")) and "Its occasion is a workflow" not in line:
                yield line.rstrip(".") + "."

    def _segment(self, name: str) -> Iterator[str]:
        rule = self.rules.segment.get(name)
        since = self.person.segments.get(name)
        if since is not None:
            yield f"{self.who} is in {name}, {self._since(since)}."
        elif rule is None:
            yield f"{self.who} is not in {name}."
        elif rule.static is not None:
            yield f"{self.who} is not in {name}: nothing has put them in."
        else:
            facts = known(self.person)
            _, failed = rule.explain(self.person, facts, self.now)
            because = ": what does not hold is " + "; ".join(failed) if failed else ""
            yield f"{self.who} is not in {name}{because}."
            change = rule.next_change(self.person, facts, self.now)
            if change is not None:
                yield f"The passing of time may change that at {said(change - self.zero)}."

    def _still_in(self, name: str) -> str:
        rule, since = self.rules.segment.get(name), self.person.segments.get(name)
        if since is None:
            return f"{self.who} is not in {name}."
        held = rule.explain(self.person, known(self.person), self.now)[0] if rule is not None else ()
        return f"{self.who} is in {name}, {self._since(since)}" + (": " + "; ".join(held) if held else "") + "."

    def _workflow(self, name: str) -> Iterator[str]:
        runs = [run for run in self.person.runs.values() if run.workflow == name]
        for run in runs:
            until = f", until {said(run.until - self.zero)}" if run.until else ""
            yield f"{self.who} is at the step {run.at} of the workflow {name} and waits {_for(run.waits)}{until}."
        been, flow = self.person.been.get(name), self.rules.workflows.live.get(name)
        if runs or flow is None:
            return
        if been is not None:
            yield f"{self.who} went through the workflow {name} and left it at {said(been.left_at - self.zero)}."
            return
        yield f"{self.who} never entered the workflow {name}."
        for occasion in flow.workflow.occasions:
            if occasion.segment is not None:
                yield from self._segment(occasion.segment)
            elif occasion.event is not None:
                often = known(self.person).counts.get(occasion.event)
                yield f'"{occasion.event}" lets people in, if its conditions hold then: it ' + (
                    f"came {often.n} times, last at {said(often.last_at - self.zero)}." if often else "never came.")

    def _since(self, at: int) -> str:
        return f"since {said(at - self.zero)}" if at >= self.zero else "from the beginning"


def _for(waits: str) -> str:
    """What somebody at a step waits for, as the rest of a sentence."""
    return "for what it sends to be said" if waits in ASKED else f"for {waits}"
