"""Compiled campaigns: one condition from `when`, `unless`, `start` and `end`, with its index keys."""

from datetime import datetime
from zoneinfo import ZoneInfo

from domain.duration import format_duration, parse_duration
from domain.playbook.campaign import Campaign
from domain.playbook.condition import Condition
from domain.playbook.shop import Shop, pressure_weight
from domain.playbook.trigger import Trigger
from state import local_time
from state.conditions.compile import Clause, compile_condition, dnf_clauses
from state.conditions.predicate import NextChange, Predicate, Test
from state.conditions.properties import matcher
from state.person.model import Person, ProfileFragment

SEND_TTL = 30_000
PRELOAD_TTL = 30 * 60_000
MESSAGE_TTL = 86_400_000
"""Default validity of a decision (ms), used if the campaign does not set `valid_for`."""

CACHED_TRIGGER_KINDS = ("exit_intent", "seconds_on_site")
"""Triggers whose offers are preloaded, because the trigger fires in the browser later or repeatedly."""


class CampaignRule:
    """A compiled campaign.

    `is_met` combines `when`, `unless`, `start`, `end` and the time on site. `clauses` are for the predicate index.
    `rank` is the position among all campaigns; the lowest rank is considered first.
    """

    __slots__ = (
        "campaign",
        "cancel_on",
        "clauses",
        "delay",
        "depends_on",
        "explain",
        "format",
        "goal",
        "goal_matches",
        "goal_within",
        "group",
        "is_met",
        "limits",
        "matches",
        "min_interval",
        "name",
        "next_change",
        "on_site",
        "placement",
        "priority",
        "purpose",
        "rank",
        "time_dependent",
        "time_on_site",
        "trigger_description",
        "trigger_kind",
        "valid_for",
        "variant_shares",
        "weight",
    )

    def __init__(self, campaign: Campaign, shop: Shop) -> None:
        trigger = campaign.trigger
        self.rank = 0
        self.campaign = campaign
        self.name = campaign.name
        self.format = campaign.format
        self.priority = campaign.priority
        self.limits = campaign.frequency_caps
        self.purpose = campaign.purpose
        self.trigger_kind = trigger.kind
        self.time_on_site = (trigger.seconds_on_site or 0) * 1000
        self._compile(campaign, shop)
        self.delay = parse_duration(trigger.delay) if trigger.delay else 0
        self.on_site = campaign.on_site
        self.group = campaign.group or ""
        self.placement = "slot " + campaign.slot if campaign.format == "slot" else campaign.format
        self.min_interval = (
            parse_duration(campaign.frequency_caps.min_interval) if campaign.frequency_caps.min_interval else 0
        )
        self.weight = pressure_weight(campaign.format, shop)
        self.variant_shares = variant_shares(campaign)
        self.goal = goal = campaign.goal
        self.goal_within = parse_duration(goal.within) if goal is not None else 0
        self.goal_matches = matcher(goal.where if goal is not None else {})
        default = PRELOAD_TTL if trigger.exit_intent else SEND_TTL if campaign.on_site else MESSAGE_TTL
        self.valid_for = parse_duration(campaign.valid_for) if campaign.valid_for else default
        self.cancel_on = frozenset(campaign.cancel_on)
        self.matches = matcher(trigger.properties)
        self.trigger_description = _describe_trigger(trigger)

    def _compile(self, campaign: Campaign, shop: Shop) -> None:
        whole = campaign.when
        if campaign.unless is not None:
            whole = Condition(all=(campaign.when,), not_=campaign.unless)
        span = [_start_predicate(campaign.start, shop)] if campaign.start else []
        span += [_end_predicate(campaign.end, shop)] if campaign.end else []
        when = compile_condition(whole, shop, span)
        self.explain = when.explain
        self.depends_on = when.depends_on
        self.clauses: tuple[Clause, ...] = dnf_clauses(whole, shop)
        self.is_met, self.next_change, self.time_dependent = when.is_met, when.next_change, when.time_dependent
        if self.time_on_site:  # the trigger states the second, so the explanation omits it
            self.is_met, self.time_dependent = _after_time_on_site(self.time_on_site, when.is_met), True
            self.next_change = (
                _change_at_time_on_site(self.time_on_site, when.is_met)
                if not when.time_dependent
                else compile_condition(whole, shop, [_time_on_site_predicate(self.time_on_site), *span]).next_change
            )


def variant_shares(campaign: Campaign) -> tuple[tuple[str, float], ...]:
    """Return the variants of a campaign's experiment with their shares, holdout first; empty without experiment.

    >>> from domain.playbook.campaign import Creative, Trigger, Variant, Copy
    >>> variant_shares(Campaign("c", "popup", Trigger(exit_intent=True), Creative(Copy()), holdout=0.5,
    ...                variants={"b": Variant(3.0), "a": Variant()}))
    (('holdout', 0.5), ('a', 0.125), ('b', 0.375))
    """
    found = [("holdout", campaign.holdout)] if campaign.holdout else []
    rest = 1.0 - campaign.holdout
    weights = {name: variant.weight for name, variant in sorted(campaign.variants.items())} or {"": 1.0}
    found += [(name, rest * weight / sum(weights.values())) for name, weight in weights.items()]
    return tuple(found) if len(found) > 1 or campaign.variants else ()


def parse_local_time(text: str, timezone: str) -> int:
    """Convert a local date or minute of a playbook to ms (`state/local_time.py`).

    ValueError for an invalid date or an unknown time zone.

    >>> parse_local_time("2026-07-01", "Europe/Rome"), parse_local_time("2026-07-01 09:30", "UTC")
    (1782856800000, 1782898200000)
    >>> skipped = parse_local_time("2026-03-29 02:30", "Europe/Rome")
    >>> skipped == parse_local_time("2026-03-29 03:00", "Europe/Rome")
    True
    >>> parse_local_time("9999-12-31 23:59", "America/New_York")
    253402318740000
    """
    try:
        where = ZoneInfo(timezone)
    except (KeyError, OSError):
        raise ValueError(f'there is no time zone "{timezone}"') from None
    day = datetime.fromisoformat(text)
    return local_time.local_timestamp(day.year, day.month, day.day, day.hour, day.minute, where)


def _start_predicate(text: str, shop: Shop) -> Predicate:
    at = parse_local_time(text, shop.timezone)
    words = f"not before {text} ({shop.timezone})"
    return Predicate(
        lambda p, f, now: now >= at, lambda p, f, now: words, "clock", lambda p, f, now: at if now < at else None
    )


def _end_predicate(text: str, shop: Shop) -> Predicate:
    at = parse_local_time(text, shop.timezone)
    words = f"before {text} ({shop.timezone})"
    return Predicate(
        lambda p, f, now: now < at, lambda p, f, now: words, "clock", lambda p, f, now: at if now < at else None
    )


def _time_on_site_predicate(duration: int) -> Predicate:
    """Build the predicate on the age of the session (ms)."""

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        return p.session is not None and now >= p.session.started_at + duration

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        session = p.session
        return session.started_at + duration if session is not None and now < session.started_at + duration else None

    return Predicate(test, lambda p, f, now: f"{format_duration(duration)} on the site", "session", change)


def _after_time_on_site(duration: int, is_met: Test) -> Test:
    """Build the test of a condition that is false before `duration` (ms) of the session."""

    def test(p: Person, f: ProfileFragment, now: int) -> bool:
        session = p.session
        return session is not None and now >= session.started_at + duration and is_met(p, f, now)

    return test


def _change_at_time_on_site(duration: int, is_met: Test) -> NextChange:
    """Build `next_change` for a condition that depends on time only through the time on site."""

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        session = p.session
        if session is None or now >= session.started_at + duration or not is_met(p, f, now):
            return None
        return session.started_at + duration

    return change


def _describe_trigger(trigger: Trigger) -> str:
    """Describe the trigger."""
    if trigger.event:
        said = f'event "{trigger.event}"'
    elif trigger.segment:
        said = f"entered {trigger.segment}"
    elif trigger.exited_segment:
        said = f"left {trigger.exited_segment}"
    elif trigger.exit_intent:
        said = "exit intent"
    elif trigger.workflow:
        said = "workflow"
    else:
        said = f"{format_duration((trigger.seconds_on_site or 0) * 1000)} on the site"
    return f"{said}, {format_duration(parse_duration(trigger.delay))} later" if trigger.delay else said
