"""The playbook, compiled: conditions as closures, indexed by what can change them.

>>> rules = compile_rules(Playbook())
>>> rules.hash[:12] == rules_from(rules.source).hash[:12]
True
"""

from collections.abc import Iterable
from typing import Any

from domain import playbook as domain_playbook
from domain.campaign import OFF_SITE, ON_SITE
from domain.duration import parse
from domain.money import to_major
from domain.playbook import Playbook
from domain.shop import weight_of
from state import traces
from state.campaign_rule import WATCHED, CampaignRule
from state.conditions import Compiled, compile_condition
from state.event_traces import event_traces
from state.finder import EventFinder, Finder
from state.funnel import segments_of
from state.index import Index
from state.occasions import static_rules
from state.pools import PoolRule
from state.rfm import declared_cuts
from state.segment_rule import SegmentRule
from state.watched import Watched
from state.workflow_rules import Workflows

__all__ = ["SERVICE", "CampaignRule", "Rules", "SegmentRule", "compile_rules", "in_order", "rules_from"]

SERVICE = "service"
"""The purpose that needs no consent: what people asked for themselves, such as a word about their order."""


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
        self.late_after = parse(shop.late_after)
        self.rfm = declared_cuts(shop)
        segments = segments_of(playbook)
        compiled = {segment.name: (segment, compile_condition(segment.when, shop)) for segment in segments}
        static = static_rules(segments, shop)
        order = in_order({name: static[name].refers if name in static else _referred(when)
                          for name, (_, when) in compiled.items()})
        self.segments = tuple(SegmentRule(*compiled[name], n, shop, static.get(name)) for n, name in enumerate(order))
        self.segment = {rule.name: rule for rule in self.segments}
        campaigns = [CampaignRule(one, shop) for one in playbook.campaigns]
        campaigns.sort(key=lambda one: (-one.priority, one.name))
        for rank, one in enumerate(campaigns):
            one.rank = rank
        self.campaigns = {rule.name: rule for rule in campaigns}
        """In the order in which they come first: by priority, then by name."""
        self.ranked = tuple(campaigns)
        self.places = {rule.place: rule.on_site for rule in campaigns}
        """Where something may be said at the same time as elsewhere, and whether that is on the site."""
        self.delays = any(rule.delay for rule in campaigns)
        self.exempt = any(rule.purpose == SERVICE or rule.format == "slot" or not rule.on_site for rule in campaigns)
        """Whether there is anything that the shop's limit on the site does not hold back."""
        occasions = _grouped((one.campaign.trigger.event, one) for one in campaigns)
        self.on_event = {event: EventFinder((one.rank, one.campaign.trigger.properties, one.ways) for one in some)
                         for event, some in occasions.items()}
        self.on_entered = _found(_grouped((one.campaign.trigger.segment, one) for one in campaigns))
        self.on_left = _found(_grouped((one.campaign.trigger.left_segment, one) for one in campaigns))
        """Which campaigns may be meant by an event, by who enters or leaves a segment (numbers are ranks)."""
        watched = [one for one in campaigns if one.kind in WATCHED]
        self.exits = _finder(one for one in watched if one.kind == "exit_intent")
        self.seconds = _finder(one for one in watched if one.kind == "seconds_on_site")
        self.last_exempt_exit = max((one.rank for one in watched if one.kind == "exit_intent"
                                     and one.purpose == SERVICE), default=-1)
        """The rank of the last exit offer that the shop's limits do not hold back."""
        self.watched = Watched((one.rank, one.needs, one.ways) for one in watched)
        """Those whose audience is followed between their occasions, by what can change it."""
        self.disarming = frozenset(event for one in campaigns for event in one.disarm_on)
        self.goals = _grouped((one.goal.event if one.goal is not None else None, one) for one in campaigns)
        """Campaigns by the event that they hope for."""
        self.groups = {name: frozenset(one.name for one in grouped) for name, grouped in
                       _grouped((one.group or None, one) for one in campaigns).items()}
        """Campaigns by their group."""
        self.weights = {form: weight_of(form, shop) for form in (*ON_SITE, *OFF_SITE)}
        self.pressed = shop.pressure.per_day is not None or shop.pressure.per_week is not None
        self.remembered = traces.needed(playbook)
        self.traces = event_traces(self.remembered)
        """What conditions count beyond `Facts.counts`: by key, and by the name of the event."""
        self.words: dict[tuple[str, ...], Any] = {}
        """Parsed templates by campaign and variant; `operators/render.py` fills it as they are used."""
        self.workflows = Workflows(playbook)
        self.pools = {pool.name: PoolRule(pool) for pool in playbook.coupons}
        self.segment_index = Index((rule.name, rule.needs, rule.ways) for rule in self.segments)
        """Over `segments`."""

    def money(self, minor: int) -> str:
        """An amount of the shop's currency, in major units."""
        return to_major(minor, self.shop.currency)


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


def _grouped(pairs: Iterable[tuple[str | None, CampaignRule]]) -> dict[str, tuple[CampaignRule, ...]]:
    groups: dict[str, list[CampaignRule]] = {}
    for key, rule in pairs:
        if key is not None:
            groups.setdefault(key, []).append(rule)
    return {key: tuple(rules) for key, rules in groups.items()}


def _found(groups: dict[str, tuple[CampaignRule, ...]]) -> dict[str, Finder]:
    return {key: _finder(rules) for key, rules in groups.items()}


def _finder(rules: Iterable[CampaignRule]) -> Finder:
    return Finder((rule.rank, rule.ways) for rule in rules)
