"""Limits: how much one person is to see, and whether there is room for more.

What was shown (or accepted by a channel) counts; what was sent and not yet shown is reserved and counts until it
expires. An arm reserves nothing. Days, and the last seven of them, are those of the person's time zone.

| limit | counts |
|---|---|
| a campaign's own | its own showings; `per_session` only on the site |
| a group's | the showings of all its campaigns |
| the shop's | everything but slots; `per_session` only what is on the site |
| the pressure budget | everything, by its weight |

What is for `service` counts, and neither the shop's limits nor the pressure budget hold it back. What fills a slot is
part of the page: it waits for nothing that was sent before, and the shop's limits do not count it.
"""

from typing import NamedTuple

from domain.amounts import some
from domain.campaign import OFF_SITE
from domain.duration import roughly, say
from state.days import day_ends, local_day, week_began
from state.leaves import granted
from state.person import Facts, Person, Said
from state.rules import SERVICE, CampaignRule, Rules
from state.sessions import ends_at

_NOTHING = Said()
_FREED = frozenset(("limit", "group_limit", "shop_limit", "pressure", "cooldown"))


class Proposal(NamedTuple):
    """A campaign whose occasion has come and whose audience holds; with a `reason`, why it is held all the same.

    `run` names the way through a workflow that asked for it, `occasion` what it was when that was earlier, `waited`
    that it has waited for codes of coupons in vain.
    """

    rule: CampaignRule
    reason: str = ""
    detail: str = ""
    run: str = ""
    occasion: str = ""
    waited: bool = False


def blocked(person: Person, facts: Facts, rule: CampaignRule, rules: Rules, now: int) -> tuple[str, str]:
    """Why this campaign may not be shown now, as (reason, detail); ("", "") when it may.

    Reasons: consent, dismissed, limit, group_limit, shop_limit, pressure, cooldown.
    """
    refused = no_consent(facts, rule, rules)
    if refused:
        return "consent", refused
    session = person.session
    if session is not None and rule.name in session.dismissed and rule.on_site:
        return "dismissed", "closed by hand in this visit"
    if not person.said and not person.reserved:
        return _too_heavy(rule, rules)
    return limited(person, facts, rule, rules, now)


def no_consent(facts: Facts, rule: CampaignRule, rules: Rules) -> str:
    """Which consent is missing, in words; "" when none is.

    A message needs more than the purpose: where somebody answered for its channel (`email`), or for the purpose on this
    channel (`email:marketing`), that answer counts too; and what the shop says of these names where nobody has.
    """
    purpose = rule.purpose
    if purpose == SERVICE:
        return ""
    if not granted(facts, purpose, rules.shop):
        return f"no consent to {purpose}"
    if rule.on_site:
        return ""
    policy = rules.shop.consent.purposes
    for name in (rule.format, f"{rule.format}:{purpose}"):
        if (name in facts.consent or name in policy) and not granted(facts, name, rules.shop):
            return f"no consent to {purpose} by {rule.format}"
    return ""


def limited(person: Person, facts: Facts, rule: CampaignRule, rules: Rules, now: int) -> tuple[str, str]:
    """Which limit is reached, as (reason, detail)."""
    session, home = person.session, rules.shop.timezone
    visit = session.id if session is not None else ""
    zone = facts.timezone or home
    today = local_day(now, zone, home)
    reached = _own(person, rule, visit, today, zone, home, now)
    if reached:
        return "limit", reached
    if rule.group and (reached := _group(person, rule, rules, visit, today, zone, now)):
        return "group_limit", reached
    if rule.purpose != SERVICE:
        if rule.format != "slot" and (reached := _shop(person, rule, rules, visit, today)):
            return "shop_limit", reached
        if rules.pressed and (reached := _pressure(person, rule, rules, today, zone, now)):
            return "pressure", reached
    if rule.format == "popup" and rules.cooldown and person.said:
        until = cooled_at(person, rules)
        if now < until:
            return "cooldown", f"{roughly((until - now + 999) // 1000 * 1000)} until the next popup"
    return "", ""


def _own(person: Person, rule: CampaignRule, visit: str, today: int, zone: str, home: str, now: int) -> str:
    limits = rule.limits
    said = person.said.get(rule.name, _NOTHING)
    waiting = 0
    if rule.format != "slot":  # what waits to fill a slot makes room for what comes after it
        waiting = sum([1 for one in person.reserved if one.campaign == rule.name])
    if rule.on_site:
        seen = waiting + (said.in_session if visit and said.session == visit else 0)
        if seen >= limits.per_session:
            return f"{seen} of {limits.per_session} in this visit"
    if limits.total is not None and waiting + said.total >= limits.total:
        return f"{waiting + said.total} of {limits.total} in all"
    if limits.per_day is not None:
        seen = waiting + (said.in_day if said.day == today else 0)
        if seen >= limits.per_day:
            return f"{seen} of {limits.per_day} today"
    if limits.per_week is not None:
        seen = waiting + _since(said, week_began(now, zone, home))
        if seen >= limits.per_week:
            return f"{seen} of {limits.per_week} this week"
    if rule.every:
        if waiting:
            return f"one is on its way; {say(rule.every)} between two"
        if said.total and now < said.last_at + rule.every:
            return f"the last one was {roughly(max(0, now - said.last_at))} ago; {say(rule.every)} between two"
    return ""


def _group(person: Person, rule: CampaignRule, rules: Rules, visit: str, today: int, zone: str, now: int) -> str:
    limits = rules.shop.groups.get(rule.group)
    if limits is None:
        return ""
    name, members = rule.group, rules.groups[rule.group]
    in_session = in_day = in_week = 0
    for one in person.reserved:
        if one.campaign in members and not (rule.format == "slot" and one.campaign == rule.name):
            in_day += 1
            in_session += rules.campaigns[one.campaign].on_site
    in_week = in_day
    began = week_began(now, zone, rules.shop.timezone)
    for member in members:
        said = person.said.get(member)
        if said is not None:
            if visit and said.session == visit and rules.campaigns[member].on_site:
                in_session += said.in_session
            if said.day == today:
                in_day += said.in_day
            in_week += _since(said, began)
    if rule.on_site and limits.per_session is not None and in_session >= limits.per_session:
        return f"{in_session} of {limits.per_session} of the group {name} in this visit"
    if limits.per_day is not None and in_day >= limits.per_day:
        return f"{in_day} of {limits.per_day} of the group {name} today"
    if limits.per_week is not None and in_week >= limits.per_week:
        return f"{in_week} of {limits.per_week} of the group {name} this week"
    return ""


def _shop(person: Person, rule: CampaignRule, rules: Rules, visit: str, today: int) -> str:
    limits = rules.shop.limits
    in_session = in_day = 0
    for one in person.reserved:
        form = format_of(one.campaign, rules)
        in_day += form != "slot"
        in_session += form != "slot" and form not in OFF_SITE
    for name, said in person.said.items():
        if ((visit and said.session == visit) or said.day == today) and (form := format_of(name, rules)) != "slot":
            if said.day == today:
                in_day += said.in_day
            if visit and said.session == visit and form not in OFF_SITE:
                in_session += said.in_session
    if rule.on_site and in_session >= limits.per_session:
        return f"{in_session} of {limits.per_session} of all campaigns in this visit"
    if in_day >= limits.per_day:
        return f"{in_day} of {limits.per_day} of all campaigns today"
    return ""


def _too_heavy(rule: CampaignRule, rules: Rules) -> tuple[str, str]:
    """A budget that one showing alone exceeds lets nothing through, not even the first one."""
    if not rules.pressed or rule.purpose == SERVICE:
        return "", ""
    pressure = rules.shop.pressure
    for budget, span in ((pressure.per_day, "today"), (pressure.per_week, "this week")):
        if budget is not None and rule.weight > budget:
            return "pressure", _points(0.0, budget, span, rule)
    return "", ""


def _pressure(person: Person, rule: CampaignRule, rules: Rules, today: int, zone: str, now: int) -> str:
    pressure = rules.shop.pressure
    if not rule.weight:
        return ""
    in_day = 0.0
    for one in person.reserved:
        in_day += weight_of(one.campaign, rules)
    in_week = in_day
    began = week_began(now, zone, rules.shop.timezone)
    for name, said in person.said.items():
        if said.last_at >= began or said.day == today:
            weight = weight_of(name, rules)
            in_week += weight * _since(said, began)
            if said.day == today:
                in_day += weight * said.in_day
    for spent, budget, span in ((in_day, pressure.per_day, "today"), (in_week, pressure.per_week, "this week")):
        if budget is not None and spent + rule.weight > budget + 1e-9:
            return _points(spent, budget, span, rule)
    return ""


def _points(spent: float, budget: float, span: str, rule: CampaignRule) -> str:
    return f"{spent:g} of {some(budget, 'point')} {span}, and {rule.format} weighs {rule.weight:g}"


def _since(said: Said, began: int) -> int:
    """How many of the newest showings are not older than this."""
    return sum([1 for at in said.times if at >= began])


def cooled_at(person: Person, rules: Rules) -> int:
    """When the next popup may be shown (ms); 0 without a popup so far or without a cooldown."""
    if not rules.cooldown or not person.said:
        return 0
    shown = [said.last_at for name, said in person.said.items()
             if said.total and format_of(name, rules) == "popup"]
    return max(shown) + rules.cooldown if shown else 0


def freed_at(person: Person, facts: Facts, rule: CampaignRule, rules: Rules, reason: str, now: int) -> int | None:
    """When time alone may let through what is held back for this reason (ms), as far as the open visit reaches.

    Another day, the end of a cooldown, or of the least time between two.
    """
    session, found = person.session, []
    if session is None or reason not in _FREED:
        return None
    if reason == "cooldown":
        found.append(cooled_at(person, rules))
    else:
        if reason == "limit" and rule.every and (said := person.said.get(rule.name)) is not None:
            found.append(said.last_at + rule.every)
        found.append(day_ends(now, facts.timezone or rules.shop.timezone, rules.shop.timezone))
    return min((at for at in found if now < at < ends_at(session)), default=None)


def format_of(campaign: str, rules: Rules) -> str:
    """How a campaign looks; one that left the playbook may have been a popup."""
    rule = rules.campaigns.get(campaign)
    return "popup" if rule is None else rule.format


def weight_of(campaign: str, rules: Rules) -> float:
    """What one showing of a campaign weighs."""
    rule = rules.campaigns.get(campaign)
    return rules.weights["popup"] if rule is None else rule.weight
