"""The playbook, compiled: conditions as closures, indexed by what can change them.

>>> rules = compile_rules(Playbook())
>>> rules.hash[:12] == rules_from(rules.source).hash[:12]
True
"""

from collections.abc import Iterable
from typing import Any

from domain import playbook as domain_playbook
from domain.campaign import ON_SITE, Campaign
from domain.duration import parse, say
from domain.money import to_major
from domain.playbook import Playbook
from domain.segment import Segment
from domain.shop import Shop
from state import traces
from state.conditions import Compiled, compile_condition
from state.funnel import segments_of
from state.index import Index
from state.occasions import StaticRule, static_rules
from state.properties import matcher
from state.rfm import declared_cuts

SEND_FOR = 30_000
ARM_FOR = 30 * 60_000
MESSAGE_FOR = 86_400_000
"""How long what was decided may still be shown (ms), where the campaign does not say."""

SERVICE = "service"
"""The purpose that needs no consent: what people asked for themselves, such as a word about their order."""

WATCHED = ("exit_intent", "seconds_on_site")
"""Triggers whose audience is known ahead: the occasion comes later, or again and again."""


class SegmentRule:
    """A segment made ready. `order` puts segments behind those they refer to; `static` is there for a static one."""

    __slots__ = ("explain", "holds", "name", "need", "needs", "next_change", "order", "static", "timed", "timer")

    def __init__(self, segment: Segment, when: Compiled, order: int, static: StaticRule | None = None) -> None:
        self.name = segment.name
        self.static = static
        self.order = order
        self.holds = when.holds
        self.next_change = when.next_change
        self.explain = when.explain
        self.timed = when.timed
        self.needs = when.needs if static is None else static.needs
        self.need = self.timer = "segment:" + segment.name


class CampaignRule:
    """A campaign made ready."""

    __slots__ = ("campaign", "delay", "disarm_on", "every", "explain", "format", "goal", "goal_matches", "goal_within",
                 "group", "holds", "kind", "limits", "matches", "name", "needs", "next_change", "occasion", "on_site",
                 "place", "possible", "priority", "purpose", "rank", "seconds", "sides", "stable", "timed", "valid_for",
                 "weight")

    def __init__(self, campaign: Campaign, when: Compiled, shop: Shop) -> None:
        trigger = campaign.trigger
        self.rank = 0
        self.campaign = campaign
        self.name = campaign.name
        self.format = campaign.format
        self.priority = campaign.priority
        self.limits = campaign.limits
        self.purpose = campaign.purpose
        self.kind = trigger.kind
        self.holds = when.holds
        self.next_change = when.next_change
        self.explain = when.explain
        self.possible = when.possible
        self.timed = when.timed
        self.stable = when.stable
        self.needs = when.needs
        self.seconds = (trigger.seconds_on_site or 0) * 1000
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
        self.occasion = (
            f'event "{trigger.event}"' if trigger.event else f"entered {trigger.segment}" if trigger.segment
            else "exit intent" if trigger.exit_intent else f"{say(self.seconds)} on the site")


class Rules:
    """A playbook made ready to be asked; nothing in it changes. ValueError when it contradicts itself.

    `source` are its bytes and `hash` their hash: what was decided with it can be decided again from them.
    """

    def __init__(self, playbook: Playbook, hash: str = "", source: bytes = b"") -> None:
        shop = playbook.shop
        self.playbook = playbook
        self.source = source or domain_playbook.encode(playbook)
        self.hash = hash or domain_playbook.hash_of(self.source)
        self.short = self.hash[:12]
        self.shop = shop
        self.cooldown = parse(shop.limits.cooldown)
        self.rfm = declared_cuts(shop)
        segments = segments_of(playbook)
        compiled = {segment.name: (segment, compile_condition(segment.when, shop)) for segment in segments}
        static = static_rules(segments, shop)
        order = in_order({name: static[name].refers if name in static else _referred(when)
                          for name, (_, when) in compiled.items()})
        self.segments = tuple(SegmentRule(*compiled[name], n, static.get(name)) for n, name in enumerate(order))
        self.segment = {rule.name: rule for rule in self.segments}
        campaigns = [CampaignRule(one, compile_condition(one.when, shop), shop) for one in playbook.campaigns]
        campaigns.sort(key=lambda one: (-one.priority, one.name))
        for rank, one in enumerate(campaigns):
            one.rank = rank
        self.campaigns = {rule.name: rule for rule in campaigns}
        """In the order in which they come first: by priority, then by name."""
        self.on_event = _grouped((one.campaign.trigger.event, one) for one in campaigns)
        self.on_segment = _grouped((one.campaign.trigger.segment, one) for one in campaigns)
        self.exit_intent = tuple(one for one in campaigns if one.kind == "exit_intent")
        self.seconds = tuple(sorted((one for one in campaigns if one.kind == "seconds_on_site"),
                                    key=lambda one: one.seconds))
        self.disarming = frozenset(event for one in campaigns for event in one.disarm_on)
        self.goals = _grouped((one.goal.event if one.goal is not None else None, one) for one in campaigns)
        """Campaigns by the event that they hope for."""
        self.remembered = traces.needed(playbook)
        self.traces = traces.by_event(self.remembered)
        """What conditions count beyond `Facts.counts`: by key, and by the name of the event."""
        self.words: dict[tuple[str, ...], Any] = {}
        """Parsed templates by campaign and variant; `operators/render.py` fills it as they are used."""
        self.segment_index = Index(rule.needs for rule in self.segments)
        """Over `segments`."""
        self.audience_index = Index(
            rule.needs if rule.kind in WATCHED else () for rule in campaigns)
        """Over `ranked`: those whose audience is watched between their occasions."""
        self.ranked = tuple(campaigns)
        self.watched = _mask(one for one in campaigns if one.kind in WATCHED)
        self.exit_mask = _mask(self.exit_intent)
        self.exit_timed = _mask(one for one in self.exit_intent if one.timed)
        self.seconds_mask = _mask(self.seconds)
        self.seconds_timed = _mask(one for one in self.seconds if one.timed)

    def money(self, minor: int) -> str:
        """An amount of the shop's currency, in major units."""
        return to_major(minor, self.shop.currency)


def weight_of(format: str, shop: Shop) -> float:
    """What one showing weighs in the pressure budget: as the shop says, else on site 1, slots 0, messages 3."""
    return shop.pressure.weights.get(format, 0.0 if format == "slot" else 1.0 if format in ON_SITE else 3.0)


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


def compile_rules(playbook: Playbook) -> Rules:
    """A playbook made ready to be asked."""
    return Rules(playbook)


def rules_from(source: bytes) -> Rules:
    """The same rules again, from the bytes that were kept of them."""
    return Rules(domain_playbook.decode(source), source=source)


def in_order(refers: dict[str, list[str]]) -> list[str]:
    """Names, each behind those it refers to; by name where that leaves a choice. ValueError names a circle.

    >>> in_order({"a": ["c"], "b": [], "c": ["b"]})
    ['b', 'c', 'a']
    """
    done: dict[str, None] = {}
    for name in sorted(refers):
        _visit(name, refers, done, [])
    return list(done)


def _visit(name: str, refers: dict[str, list[str]], done: dict[str, None], path: list[str]) -> None:
    if name in done or name not in refers:
        return
    if name in path:
        circle = [*path[path.index(name):], name]
        raise ValueError("segments that refer to each other in a circle: " + " -> ".join(circle))
    for other in sorted(refers[name]):
        _visit(other, refers, done, [*path, name])
    done[name] = None


def _referred(when: Compiled) -> list[str]:
    return [need[8:] for need in when.needs if need.startswith("segment:")]


def _mask(rules: Iterable[CampaignRule]) -> int:
    mask = 0
    for rule in rules:
        mask |= 1 << rule.rank
    return mask


def _grouped(pairs: Iterable[tuple[str | None, CampaignRule]]) -> dict[str, tuple[CampaignRule, ...]]:
    groups: dict[str, list[CampaignRule]] = {}
    for key, rule in pairs:
        if key is not None:
            groups.setdefault(key, []).append(rule)
    return {key: tuple(rules) for key, rules in groups.items()}
