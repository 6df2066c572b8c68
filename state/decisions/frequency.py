"""Frequency caps, contact pressure and quiet hours.

Exposures count, and pending sends count until they expire. A preload reserves nothing. Days, and the last seven of
them, are those of the person's time zone.

| cap | counts |
|---|---|
| campaign | its own exposures; `per_session` only on the site |
| group | the exposures of all its campaigns |
| shop | everything but slots; `per_session` only on the site |
| contact pressure | everything, by its weight |

`service` campaigns count, but shop caps and contact pressure do not suppress them. Slots ignore pending sends of their
own campaign, and shop caps do not count them.

Quiet hours defer off-site messages until they end, in the person's time zone. `ignore_quiet_hours` overrides them.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from domain.duration import format_duration, format_rough_duration, pluralize
from domain.playbook.campaign import OFFSITE_FORMATS
from domain.playbook.shop import QuietHours
from state.conditions.predicate import has_consent
from state.local_time import day_end, local_day, local_timestamp, week_start, zone_info
from state.person.model import ExposureCounter, Person, ProfileFragment
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import SERVICE, Rules
from state.profile.session import ends_at

_NO_EXPOSURES = ExposureCounter()
_TIME_LIMITED = frozenset(("campaign_cap", "group_cap", "shop_cap", "contact_pressure", "cooldown"))


class Candidate(NamedTuple):
    """A campaign whose occasion has come and whose audience holds; with a `reason`, why it is held all the same.

    `run` names the way through a workflow that asked for it, `occasion` what it was when that was earlier, `waited`
    that it has waited for codes of coupons in vain.
    """

    rule: CampaignRule
    reason: str = ""
    detail: str = ""
    run_id: str = ""
    trigger: str = ""
    waited_for_codes: bool = False


def suppression_reason(
    person: Person, profile: ProfileFragment, rule: CampaignRule, rules: Rules, now: int
) -> tuple[str, str]:
    """Why this campaign may not be shown now, as (reason, detail); ("", "") when it may.

    Reasons: consent, dismissed, limit, group_limit, shop_limit, pressure, cooldown.
    """
    refused = missing_consent(profile, rule, rules)
    if refused:
        return "consent", refused
    session = person.session
    if session is not None and rule.name in session.dismissed and rule.on_site:
        return "dismissed", "closed by hand in this session"
    if not person.exposures and not person.pending_sends:
        return _exceeds_budget(rule, rules)
    return cap_reached(person, profile, rule, rules, now)


def missing_consent(profile: ProfileFragment, rule: CampaignRule, rules: Rules) -> str:
    """Describe the missing consent; "" if none is missing.

    A message needs more than the purpose: where somebody answered for its channel (`email`), or for the purpose on this
    channel (`email:marketing`), that answer counts too; and what the shop says of these names where nobody has.
    """
    purpose = rule.purpose
    if purpose == SERVICE:
        return ""
    if not has_consent(profile, purpose, rules.shop):
        return f"no consent to {purpose}"
    if rule.on_site:
        return ""
    policy = rules.shop.consent.purposes
    for name in (rule.format, f"{rule.format}:{purpose}"):
        if (name in profile.consent or name in policy) and not has_consent(profile, name, rules.shop):
            return f"no consent to {purpose} by {rule.format}"
    return ""


def cap_reached(
    person: Person, profile: ProfileFragment, rule: CampaignRule, rules: Rules, now: int
) -> tuple[str, str]:
    """Return the frequency cap that is reached, as (reason, detail)."""
    session, home = person.session, rules.shop.timezone
    visit = session.id if session is not None else ""
    zone = profile.timezone or home
    today = local_day(now, zone, home)
    reached = _campaign_cap(person, rule, visit, today, zone, home, now)
    if reached:
        return "campaign_cap", reached
    if rule.group and (reached := _group_cap(person, rule, rules, visit, today, zone, now)):
        return "group_cap", reached
    if rule.purpose != SERVICE:
        if rule.format != "slot" and (reached := _shop_cap(person, rule, rules, visit, today)):
            return "shop_cap", reached
        if rules.has_pressure_budget and (reached := _pressure_cap(person, rule, rules, today, zone, now)):
            return "contact_pressure", reached
    if rule.format == "popup" and rules.cooldown and person.exposures:
        until = cooldown_ends(person, rules)
        if now < until:
            return "cooldown", f"{format_rough_duration((until - now + 999) // 1000 * 1000)} until the next popup"
    return "", ""


def _campaign_cap(
    person: Person, rule: CampaignRule, session_id: str, today: int, timezone: str, fallback: str, now: int
) -> str:
    limits = rule.limits
    said = person.exposures.get(rule.name, _NO_EXPOSURES)
    waiting = 0
    if rule.format != "slot":  # what waits to fill a slot makes room for what comes after it
        waiting = sum([1 for one in person.pending_sends if one.campaign == rule.name])
    if rule.on_site:
        seen = waiting + (said.in_session if session_id and said.session_id == session_id else 0)
        if seen >= limits.per_session:
            return f"{seen} of {limits.per_session} in this session"
    if limits.total is not None and waiting + said.total >= limits.total:
        return f"{waiting + said.total} of {limits.total} in all"
    if limits.per_day is not None:
        seen = waiting + (said.in_day if said.day == today else 0)
        if seen >= limits.per_day:
            return f"{seen} of {limits.per_day} today"
    if limits.per_week is not None:
        seen = waiting + _count_since(said, week_start(now, timezone, fallback))
        if seen >= limits.per_week:
            return f"{seen} of {limits.per_week} this week"
    if rule.min_interval:
        if waiting:
            return f"one is on its way; {format_duration(rule.min_interval)} between two"
        if said.total and now < said.last_at + rule.min_interval:
            return (
                f"the last one was {format_rough_duration(max(0, now - said.last_at))} ago; "
                f"{format_duration(rule.min_interval)} between two"
            )
    return ""


def _group_cap(
    person: Person, rule: CampaignRule, rules: Rules, session_id: str, today: int, timezone: str, now: int
) -> str:
    limits = rules.shop.groups.get(rule.group)
    if limits is None:
        return ""
    name, members = rule.group, rules.campaign_groups[rule.group]
    in_session = in_day = in_week = 0
    for one in person.pending_sends:
        if one.campaign in members and not (rule.format == "slot" and one.campaign == rule.name):
            in_day += 1
            in_session += rules.campaigns[one.campaign].on_site
    in_week = in_day
    began = week_start(now, timezone, rules.shop.timezone)
    for member in members:
        said = person.exposures.get(member)
        if said is not None:
            if session_id and said.session_id == session_id and rules.campaigns[member].on_site:
                in_session += said.in_session
            if said.day == today:
                in_day += said.in_day
            in_week += _count_since(said, began)
    if rule.on_site and limits.per_session is not None and in_session >= limits.per_session:
        return f"{in_session} of {limits.per_session} of the group {name} in this session"
    if limits.per_day is not None and in_day >= limits.per_day:
        return f"{in_day} of {limits.per_day} of the group {name} today"
    if limits.per_week is not None and in_week >= limits.per_week:
        return f"{in_week} of {limits.per_week} of the group {name} this week"
    return ""


def _shop_cap(person: Person, rule: CampaignRule, rules: Rules, session_id: str, today: int) -> str:
    limits = rules.shop.frequency_caps
    in_session = in_day = 0
    for one in person.pending_sends:
        form = campaign_format(one.campaign, rules)
        in_day += form != "slot"
        in_session += form != "slot" and form not in OFFSITE_FORMATS
    for name, said in person.exposures.items():
        if ((session_id and said.session_id == session_id) or said.day == today) and (
            form := campaign_format(name, rules)
        ) != "slot":
            if said.day == today:
                in_day += said.in_day
            if session_id and said.session_id == session_id and form not in OFFSITE_FORMATS:
                in_session += said.in_session
    if rule.on_site and in_session >= limits.per_session:
        return f"{in_session} of {limits.per_session} of all campaigns in this session"
    if in_day >= limits.per_day:
        return f"{in_day} of {limits.per_day} of all campaigns today"
    return ""


def _exceeds_budget(rule: CampaignRule, rules: Rules) -> tuple[str, str]:
    """A budget that one showing alone exceeds lets nothing through, not even the first one."""
    if not rules.has_pressure_budget or rule.purpose == SERVICE:
        return "", ""
    pressure = rules.shop.contact_pressure
    for budget, span in ((pressure.per_day, "today"), (pressure.per_week, "this week")):
        if budget is not None and rule.weight > budget:
            return "contact_pressure", _describe_pressure(0.0, budget, span, rule)
    return "", ""


def _pressure_cap(person: Person, rule: CampaignRule, rules: Rules, today: int, timezone: str, now: int) -> str:
    pressure = rules.shop.contact_pressure
    if not rule.weight:
        return ""
    in_day = 0.0
    for one in person.pending_sends:
        in_day += campaign_weight(one.campaign, rules)
    in_week = in_day
    began = week_start(now, timezone, rules.shop.timezone)
    for name, said in person.exposures.items():
        if said.last_at >= began or said.day == today:
            weight = campaign_weight(name, rules)
            in_week += weight * _count_since(said, began)
            if said.day == today:
                in_day += weight * said.in_day
    for spent, budget, span in ((in_day, pressure.per_day, "today"), (in_week, pressure.per_week, "this week")):
        if budget is not None and spent + rule.weight > budget + 1e-9:
            return _describe_pressure(spent, budget, span, rule)
    return ""


def _describe_pressure(spent: float, budget: float, period: str, rule: CampaignRule) -> str:
    return f"{spent:g} of {pluralize(budget, 'point')} {period}, and {rule.format} weighs {rule.weight:g}"


def _count_since(exposure: ExposureCounter, start: int) -> int:
    """Count the newest exposures that are not older than this."""
    return sum([1 for at in exposure.times if at >= start])


def cooldown_ends(person: Person, rules: Rules) -> int:
    """When the next popup may be shown (ms); 0 without a popup so far or without a cooldown."""
    if not rules.cooldown or not person.exposures:
        return 0
    shown = [
        said.last_at
        for name, said in person.exposures.items()
        if said.total and campaign_format(name, rules) == "popup"
    ]
    return max(shown) + rules.cooldown if shown else 0


def cap_resets_at(
    person: Person, profile: ProfileFragment, rule: CampaignRule, rules: Rules, reason: str, now: int
) -> int | None:
    """When time alone may let through what is held back for this reason (ms), as far as the open visit reaches.

    Another day, the end of a cooldown, or of the least time between two.
    """
    session, found = person.session, []
    if session is None or reason not in _TIME_LIMITED:
        return None
    if reason == "cooldown":
        found.append(cooldown_ends(person, rules))
    else:
        if reason == "campaign_cap" and rule.min_interval and (said := person.exposures.get(rule.name)) is not None:
            found.append(said.last_at + rule.min_interval)
        found.append(day_end(now, profile.timezone or rules.shop.timezone, rules.shop.timezone))
    return min((at for at in found if now < at < ends_at(session)), default=None)


def campaign_format(campaign: str, rules: Rules) -> str:
    """How a campaign looks; one that left the playbook may have been a popup."""
    rule = rules.campaigns.get(campaign)
    return "popup" if rule is None else rule.format


def campaign_weight(campaign: str, rules: Rules) -> float:
    """Return the contact pressure weight of one exposure of a campaign."""
    rule = rules.campaigns.get(campaign)
    return rules.weights["popup"] if rule is None else rule.weight


def quiet_until(rule: CampaignRule, profile: ProfileFragment, rules: Rules, now: int) -> int:
    """Return when the quiet hours for this message end (ms); 0 outside quiet hours."""
    quiet = rules.shop.quiet_hours
    if (
        quiet is None
        or rule.on_site
        or rule.campaign.ignore_quiet_hours
        or (quiet.channels and rule.format not in quiet.channels)
    ):
        return 0
    return quiet_hours_end(quiet, now, profile.timezone, rules.shop.timezone)


def quiet_hours_end(quiet_hours: QuietHours, now: int, timezone: str, fallback: str = "UTC") -> int:
    """When the quiet hours end in which `now` is, in a time zone; 0 when it is in none.

    They begin and end when a clock on the wall says so, also when it was changed in between.

    >>> night = QuietHours("22:00", "08:00")
    >>> hour = 3_600_000
    >>> midnight = 1_711_839_600_000  # 2024-03-31 in Rome; at 02:00 it is 03:00
    >>> [(quiet_hours_end(night, midnight + n * hour, "Europe/Rome") - midnight) // hour for n in (-1, 0, 6)]
    [7, 7, 7]
    >>> quiet_hours_end(night, midnight + 7 * hour, "Europe/Rome")
    0
    """
    begin, end = _minute_of_day(quiet_hours.start), _minute_of_day(quiet_hours.end)
    if begin == end:
        return 0
    where = zone_info(timezone, fallback)
    today = datetime.fromtimestamp(now / 1000, where)
    for days in (-1, 0):
        day = today + timedelta(days=days)
        last = day + timedelta(days=int(end < begin))
        begins = local_timestamp(day.year, day.month, day.day, *divmod(begin, 60), where)
        ends = local_timestamp(last.year, last.month, last.day, *divmod(end, 60), where)
        if begins <= now < ends:
            return ends
    return 0


def _minute_of_day(time_of_day: str) -> int:
    hour, _, minute = time_of_day.partition(":")
    return int(hour) * 60 + int(minute)
