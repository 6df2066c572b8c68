"""Campaign rules: campaigns made ready to be asked.

    when, unless, start, end  ─▶  one condition: holds, next_change, explain, needs; and how it can be looked up
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from domain.campaign import Campaign
from domain.condition import Condition
from domain.duration import parse, say
from domain.shop import Shop, weight_of
from domain.trigger import Trigger
from state import days
from state.conditions import compile_condition
from state.leaves import Change, Leaf, Test
from state.person import Facts, Person
from state.properties import matcher
from state.ways import Way, ways

SEND_FOR = 30_000
ARM_FOR = 30 * 60_000
MESSAGE_FOR = 86_400_000
"""How long what was decided may still be shown (ms), where the campaign does not say."""

WATCHED = ("exit_intent", "seconds_on_site")
"""Triggers whose audience is known ahead: the occasion comes later, or again and again."""


class CampaignRule:
    """A campaign made ready.

    `holds` is whether it may be said now (`when`, `unless`, `start`, `end`, and the second of the visit); `ways` is how
    to find out quickly that it does not. `rank` is its place among all, the first one being said first.
    """

    __slots__ = ("campaign", "delay", "disarm_on", "every", "explain", "format", "goal", "goal_matches", "goal_within",
                 "group", "holds", "kind", "limits", "matches", "name", "needs", "next_change", "occasion", "on_site",
                 "place", "priority", "purpose", "rank", "seconds", "sides", "timed", "valid_for", "ways", "weight")

    def __init__(self, campaign: Campaign, shop: Shop) -> None:
        trigger = campaign.trigger
        self.rank = 0
        self.campaign = campaign
        self.name = campaign.name
        self.format = campaign.format
        self.priority = campaign.priority
        self.limits = campaign.limits
        self.purpose = campaign.purpose
        self.kind = trigger.kind
        self.seconds = (trigger.seconds_on_site or 0) * 1000
        self._compile(campaign, shop)
        self.delay = parse(trigger.delay) if trigger.delay else 0
        self.on_site = campaign.on_site
        self.group = campaign.group or ""
        self.place = "slot " + campaign.slot if campaign.format == "slot" else campaign.format
        self.every = parse(campaign.limits.every) if campaign.limits.every else 0
        self.weight = weight_of(campaign.format, shop)
        self.sides = sides(campaign)
        self.goal = goal = campaign.goal
        self.goal_within = parse(goal.within) if goal is not None else 0
        self.goal_matches = matcher(goal.where if goal is not None else {})
        default = ARM_FOR if trigger.exit_intent else SEND_FOR if campaign.on_site else MESSAGE_FOR
        self.valid_for = parse(campaign.valid_for) if campaign.valid_for else default
        self.disarm_on = frozenset(campaign.disarm_on)
        self.matches = matcher(trigger.properties)
        self.occasion = _occasion(trigger)

    def _compile(self, campaign: Campaign, shop: Shop) -> None:
        whole = campaign.when
        if campaign.unless is not None:
            whole = Condition(all=(campaign.when,), not_=campaign.unless)
        span = [_from(campaign.start, shop)] if campaign.start else []
        span += [_until(campaign.end, shop)] if campaign.end else []
        when = compile_condition(whole, shop, span)
        self.explain = when.explain
        self.needs = when.needs
        self.ways: tuple[Way, ...] = ways(whole, shop)
        self.holds, self.next_change, self.timed = when.holds, when.next_change, when.timed
        if self.seconds:  # the occasion says which second: it is no reason of its own
            self.holds, self.timed = _since(self.seconds, when.holds), True
            self.next_change = _then(self.seconds, when.holds) if not when.timed else compile_condition(
                whole, shop, [_second(self.seconds), *span]).next_change


def sides(campaign: Campaign) -> tuple[tuple[str, float], ...]:
    """The sides of a campaign's experiment with their shares, the holdout first; none when there is no experiment.

    >>> from domain.campaign import Content, Trigger, Variant, Words
    >>> sides(Campaign("c", "popup", Trigger(exit_intent=True), Content(Words()), holdout=0.5,
    ...                variants={"b": Variant(3.0), "a": Variant()}))
    (('holdout', 0.5), ('a', 0.125), ('b', 0.375))
    """
    found = [("holdout", campaign.holdout)] if campaign.holdout else []
    rest = 1.0 - campaign.holdout
    weights = {name: variant.share for name, variant in sorted(campaign.variants.items())} or {"": 1.0}
    found += [(name, rest * weight / sum(weights.values())) for name, weight in weights.items()]
    return tuple(found) if len(found) > 1 or campaign.variants else ()


def moment(text: str, zone: str) -> int:
    """A day or a minute of a playbook in ms, as on the wall (`state/days.py`). ValueError for what is none, or where
    there is no such time zone.

    >>> moment("2026-07-01", "Europe/Rome"), moment("2026-07-01 09:30", "UTC")
    (1782856800000, 1782898200000)
    >>> moment("2026-03-29 02:30", "Europe/Rome") == moment("2026-03-29 03:00", "Europe/Rome")  # skipped
    True
    >>> moment("9999-12-31 23:59", "America/New_York")
    253402318740000
    """
    try:
        where = ZoneInfo(zone)
    except (KeyError, OSError):
        raise ValueError(f'there is no time zone "{zone}"') from None
    day = datetime.fromisoformat(text)
    return days.at(day.year, day.month, day.day, day.hour, day.minute, where)


def _from(text: str, shop: Shop) -> Leaf:
    at = moment(text, shop.timezone)
    words = f"not before {text} ({shop.timezone})"
    return Leaf(lambda p, f, now: now >= at, lambda p, f, now: words, "clock",
                lambda p, f, now: at if now < at else None)


def _until(text: str, shop: Shop) -> Leaf:
    at = moment(text, shop.timezone)
    words = f"before {text} ({shop.timezone})"
    return Leaf(lambda p, f, now: now < at, lambda p, f, now: words, "clock",
                lambda p, f, now: at if now < at else None)


def _second(span: int) -> Leaf:
    """The visit is this old (ms)."""

    def test(p: Person, f: Facts, now: int) -> bool:
        return p.session is not None and now >= p.session.started_at + span

    def change(p: Person, f: Facts, now: int) -> int | None:
        session = p.session
        return session.started_at + span if session is not None and now < session.started_at + span else None

    return Leaf(test, lambda p, f, now: f"{say(span)} on the site", "visit", change)


def _since(span: int, holds: Test) -> Test:
    """From that second of the visit on."""

    def test(p: Person, f: Facts, now: int) -> bool:
        session = p.session
        return session is not None and now >= session.started_at + span and holds(p, f, now)

    return test


def _then(span: int, holds: Test) -> Change:
    """At that second, if it holds then: the same as the change of all of it, where time does not change the rest."""

    def change(p: Person, f: Facts, now: int) -> int | None:
        session = p.session
        if session is None or now >= session.started_at + span or not holds(p, f, now):
            return None
        return session.started_at + span

    return change


def _occasion(trigger: Trigger) -> str:
    """The occasion in words."""
    if trigger.event:
        said = f'event "{trigger.event}"'
    elif trigger.segment:
        said = f"entered {trigger.segment}"
    elif trigger.left_segment:
        said = f"left {trigger.left_segment}"
    elif trigger.exit_intent:
        said = "exit intent"
    elif trigger.workflow:
        said = "workflow"
    else:
        said = f"{say((trigger.seconds_on_site or 0) * 1000)} on the site"
    return f"{said}, {say(parse(trigger.delay))} later" if trigger.delay else said
