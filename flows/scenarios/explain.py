"""Failure explanations of scenarios, and the rendered content that scenario rows can check.

Explanations follow the order: conditions of the campaign, its trigger, then the reason why it was suppressed.
"""

from collections.abc import Iterator

from domain.action import Discount, Effect, Message, Preload, Send
from domain.duration import format_duration
from domain.playbook.scenario import ScenarioRow
from state.explain.why_not import MembershipExplainer, Wording, why_not, workflows_sending
from state.person.model import Person
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import Rules
from state.profile.profile import merged_profile

_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000


def format_offset(milliseconds: int) -> str:
    """Format a time since the start of a scenario.

    >>> [format_offset(at) for at in (90_000, 90_061_000, 7_200_000, 93_600_000, 172_800_000)]
    ['90 s', '1d 1h 1m 1s', '2 hours', '1d 2h', '2 days']
    """
    if (
        milliseconds < _HOUR_MS
        or milliseconds % _DAY_MS == 0
        or (milliseconds < _DAY_MS and milliseconds % _HOUR_MS == 0)
    ):
        return format_duration(milliseconds)
    seconds = milliseconds / 1000
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return " ".join(f"{amount:g}{unit}" for amount, unit in parts if amount)


class ScenarioExplainer:
    """Explains why a row failed for one person of a scenario, at `now`; the scenario started at `start` (ms)."""

    def __init__(self, name: str, person: Person, rules: Rules, now: int, start: int) -> None:
        self.name, self.person, self.rules, self.now = name, person, rules, now
        self.membership = MembershipExplainer(
            person,
            rules,
            now,
            Wording(
                name,
                lambda at: f"at {format_offset(at - start)}",
                lambda at: f"since {format_offset(at - start)}" if at >= start else "since the start",
                lambda at: f"until {format_offset(at - start)}",
            ),
        )

    def explain(self, row: ScenarioRow) -> str:
        """Explain why the expected result is missing; empty if unknown."""
        if row.step in ("enters", "is in"):
            return " ".join(self.membership.explain_segment(row.name))
        if row.step in ("exits", "is not in"):
            return self.membership.explain_member(row.name)
        if row.step == "workflow":
            return " ".join(self.membership.explain_workflow(row.name))
        campaign = self.rules.campaigns.get(row.name)
        return " ".join(self._explain_campaign(campaign)) if campaign is not None and row.step != "cancelled" else ""

    def _explain_campaign(self, rule: CampaignRule) -> Iterator[str]:
        trigger = rule.campaign.trigger
        _, failed = rule.explain(self.person, merged_profile(self.person), self.now)
        if failed:
            yield "False at the end: " + "; ".join(failed)
            return
        if trigger.workflow:
            for flow in workflows_sending(rule.name, self.rules):
                yield from self.membership.explain_workflow(flow)
        elif trigger.segment is not None and trigger.segment not in self.person.segments:
            yield from self.membership.explain_segment(trigger.segment)
        elif trigger.exit_intent and any(preload.campaign == rule.name for preload in self.person.preloaded.values()):
            yield "The browser has preloaded it and shows it at the next `Exit Intent`."
            return
        for line in why_not(self.person, rule.name, self.rules, self.now):
            if not line.startswith((" ", "Now:", "They get variant")) and "Trigger: workflow step" not in line:
                yield line.rstrip(".") + "."


_CONTENT_FIELDS = {"body": "html", "image": "image_url", "subject": "title", "text": "title"}


def content_part(effect: Effect | None, part: str) -> str:
    """Return one part of the rendered content; empty if there is none.

    >>> from domain.action import RenderedContent
    >>> content_part(Message(id="i", at=1, person="u:ann", channel="sms", campaign="c", content_key="k", not_before=1,
    ...                  not_after=2, content=RenderedContent(title="Hello", url="/lamp")), "url")
    '/lamp'
    """
    if not isinstance(effect, (Send, Preload, Message)):
        return ""
    if part == "discount":
        return "" if isinstance(effect, Message) or effect.discount is None else describe_discount(effect.discount)
    return str(getattr(effect.content, _CONTENT_FIELDS.get(part, part)))


def describe_discount(discount: Discount) -> str:
    """Describe the value of a coupon.

    >>> describe_discount(Discount("A", percent=15, products=("lamp", "candle")))
    '15 percent, for lamp, candle'
    >>> describe_discount(Discount("B", 0, 5, "EUR", min_value=40))
    '5 EUR, from 40 EUR'
    """
    parts = [
        f"{discount.percent:g} percent"
        if discount.percent
        else f"{discount.amount:g} {discount.currency}"
        if discount.amount
        else "free shipping"
    ]
    if discount.min_value:
        parts.append(f"from {discount.min_value:g} {discount.currency}")
    if discount.products:
        parts.append("for " + ", ".join(discount.products))
    return ", ".join(parts)
