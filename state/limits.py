"""Limits: how much one person is to see, and whether there is room for more.

What was shown counts; what was sent and not yet shown is reserved and counts until it expires. An arm reserves nothing.
"""

from typing import NamedTuple

from state.days import local_day
from state.leaves import granted
from state.person import Facts, Person, Said
from state.rules import SERVICE, CampaignRule, Rules

_NOTHING = Said()


class Proposal(NamedTuple):
    """A campaign whose occasion has come and whose audience holds; with a `reason`, why it is held all the same.

    `run` names the way through a workflow that asked for it.
    """

    rule: CampaignRule
    reason: str = ""
    detail: str = ""
    run: str = ""


def blocked(person: Person, facts: Facts, rule: CampaignRule, rules: Rules, now: int) -> tuple[str, str]:
    """Why this campaign may not be shown now, as (reason, detail); ("", "") when it may.

    Reasons: consent, dismissed, limit, shop_limit, cooldown.
    """
    if rule.purpose != SERVICE and not granted(facts, rule.purpose, rules.shop):
        return "consent", f"no consent to {rule.purpose}"
    session = person.session
    visit = session.id if session is not None else ""
    if session is not None and rule.name in session.dismissed:
        return "dismissed", "closed by hand in this visit"
    if not person.said and not person.reserved:
        return "", ""
    return _limited(person, facts, rule, rules, visit, now)


def _limited(person: Person, facts: Facts, rule: CampaignRule, rules: Rules, visit: str, now: int) -> tuple[str, str]:
    limits = rule.limits
    said = person.said.get(rule.name, _NOTHING)
    waiting = sum([1 for one in person.reserved if one.campaign == rule.name])
    in_session = waiting + (said.in_session if visit and said.session == visit else 0)
    if in_session >= limits.per_session:
        return "limit", f"{in_session} of {limits.per_session} in this visit"
    if limits.total is not None and waiting + said.total >= limits.total:
        return "limit", f"{waiting + said.total} of {limits.total} in all"
    today = local_day(now, facts.timezone or rules.shop.timezone, rules.shop.timezone)
    if limits.per_day is not None:
        in_day = waiting + (said.in_day if said.day == today else 0)
        if in_day >= limits.per_day:
            return "limit", f"{in_day} of {limits.per_day} today"
    return _shop_limited(person, rule, rules, visit, today, now)


def _shop_limited(
    person: Person, rule: CampaignRule, rules: Rules, visit: str, today: int, now: int,
) -> tuple[str, str]:
    in_session = in_day = len(person.reserved)
    until = 0
    for name, said in person.said.items():
        if visit and said.session == visit:
            in_session += said.in_session
        if said.day == today:
            in_day += said.in_day
        if rules.cooldown and said.total and is_popup(name, rules):
            until = max(until, said.last_at + rules.cooldown)
    limits = rules.shop.limits
    if in_session >= limits.per_session:
        return "shop_limit", f"{in_session} of {limits.per_session} of all campaigns in this visit"
    if in_day >= limits.per_day:
        return "shop_limit", f"{in_day} of {limits.per_day} of all campaigns today"
    if rule.format == "popup" and now < until:
        return "cooldown", f"{(until - now + 999) // 1000} s until the next popup"
    return "", ""


def cooled_at(person: Person, rules: Rules) -> int:
    """When the next popup may be shown (ms); 0 without a popup so far or without a cooldown."""
    if not rules.cooldown or not person.said:
        return 0
    shown = [said.last_at for name, said in person.said.items() if said.total and is_popup(name, rules)]
    return max(shown) + rules.cooldown if shown else 0


def is_popup(name: str, rules: Rules) -> bool:
    """Whether this campaign shows popups; one that left the playbook may have."""
    rule = rules.campaigns.get(name)
    return rule is None or rule.format == "popup"
