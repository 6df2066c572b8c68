"""The playbook, compiled: conditions as closures, indexed by what can change them.

>>> rules = compile_rules(Playbook())
>>> rules.hash[:12] == rules_from_source(rules.source).hash[:12]
True

Each lifecycle stage of `shop.toml` is a dynamic segment, `funnel_NAME`. A person is only in the furthest stage whose
condition is true: the condition of a stage excludes the members of all later stages. A person who changes stage exits
one segment and enters the next in the same input.
"""

from collections.abc import Iterable
from typing import Any

from domain.duration import parse_duration
from domain.money import to_major
from domain.playbook import playbook as domain_playbook
from domain.playbook.campaign import OFFSITE_FORMATS, ONSITE_FORMATS
from domain.playbook.condition import Condition
from domain.playbook.playbook import Playbook
from domain.playbook.segment import Segment
from domain.playbook.shop import FunnelStage, Shop, pressure_weight
from state.conditions import counters
from state.conditions.compile import Clause, CompiledCondition, compile_condition, dnf_clauses
from state.conditions.counters import index_by_event
from state.conditions.index import DependencyIndex, EventIndex, PredicateIndex, TriggerDependencies
from state.person.model import Person
from state.playbook.campaign import CACHED_TRIGGER_KINDS, CampaignRule
from state.playbook.coupon_pool import PoolRule
from state.playbook.rfm import declared_thresholds
from state.playbook.trigger import StaticSegmentRule, static_segment_rules
from state.playbook.workflow import Workflows

FUNNEL_PREFIX = "funnel_"


def all_segments(playbook: Playbook) -> tuple[Segment, ...]:
    """Return all segments of a playbook, including the stages of its funnel.

    ValueError if a segment has the name of a stage.
    """
    stages = funnel_segments(playbook.shop.funnel)
    if not stages:
        return playbook.segments
    taken = {stage.name for stage in stages} & {segment.name for segment in playbook.segments}
    if taken:
        raise ValueError(f"a segment is called {min(taken)}: that is the name of a stage of the funnel")
    return (*playbook.segments, *stages)


def funnel_segments(funnel: tuple[FunnelStage, ...]) -> tuple[Segment, ...]:
    """Convert the stages to segments, last stage first.

    >>> first, last = FunnelStage("looking", Condition()), FunnelStage("buying", Condition())
    >>> [(one.name, one.when.not_ and one.when.not_.in_segment) for one in funnel_segments((first, last))]
    [('funnel_buying', None), ('funnel_looking', ('funnel_buying',))]
    """
    found: list[Segment] = []
    for stage in reversed(funnel):
        later = tuple(one.name for one in found)
        when = Condition(all=(stage.when,), not_=Condition(in_segment=later)) if later else stage.when
        found.append(Segment(FUNNEL_PREFIX + stage.name, when, stage.description))
    return tuple(found)


def funnel_stage(person: Person) -> str:
    """Return the stage of a person; empty if none.

    >>> funnel_stage(Person(id="u:ann", segments={"vip": 5, "funnel_buying": 5}))
    'buying'
    """
    return next((name[len(FUNNEL_PREFIX) :] for name in person.segments if name.startswith(FUNNEL_PREFIX)), "")


class SegmentRule:
    """A compiled segment. `order` sorts segments after those they refer to; `static` is set for static segments."""

    __slots__ = (
        "clauses",
        "dependency",
        "depends_on",
        "explain",
        "is_met",
        "name",
        "next_change",
        "order",
        "static",
        "time_dependent",
        "timer",
    )

    def __init__(
        self, segment: Segment, when: CompiledCondition, order: int, shop: Shop, static: StaticSegmentRule | None = None
    ) -> None:
        self.name = segment.name
        self.static = static
        self.order = order
        self.is_met = when.is_met
        self.next_change = when.next_change
        self.explain = when.explain
        self.time_dependent = when.time_dependent
        self.depends_on = when.depends_on if static is None else static.depends_on
        self.clauses: tuple[Clause, ...] = dnf_clauses(segment.when, shop) if static is None else ((),)
        self.dependency = self.timer = "segment:" + segment.name


SERVICE = "service"
"""The purpose that needs no consent: messages that people requested, such as an order confirmation."""


class Rules:
    """An immutable compiled playbook. ValueError if the playbook contradicts itself.

    `source` is the encoded playbook and `hash` its hash; a replay compiles the same rules from `source`.
    """

    def __init__(self, playbook: Playbook, hash: str = "", source: bytes = b"") -> None:
        shop = playbook.shop
        self.playbook = playbook
        self.source = source or domain_playbook.encode_playbook(playbook)
        self.hash = hash or domain_playbook.playbook_hash(self.source)
        self.short_hash = self.hash[:12]
        self.shop = shop
        self.cooldown = parse_duration(shop.frequency_caps.cooldown)
        self.late_after = parse_duration(shop.late_after)
        self.rfm_thresholds = declared_thresholds(shop)
        segments = all_segments(playbook)
        compiled = {segment.name: (segment, compile_condition(segment.when, shop)) for segment in segments}
        static = static_segment_rules(segments, shop)
        order = topological_order(
            {
                name: static[name].references if name in static else _referenced_segments(when)
                for name, (_, when) in compiled.items()
            }
        )
        self.segments = tuple(SegmentRule(*compiled[name], n, shop, static.get(name)) for n, name in enumerate(order))
        self.segments_by_name = {rule.name: rule for rule in self.segments}
        campaigns = [CampaignRule(one, shop) for one in playbook.campaigns]
        campaigns.sort(key=lambda one: (-one.priority, one.name))
        for rank, one in enumerate(campaigns):
            one.rank = rank
        self.campaigns = {rule.name: rule for rule in campaigns}
        """In the order in which they come first: by priority, then by name."""
        self.ranked = tuple(campaigns)
        self.placements = {rule.placement: rule.on_site for rule in campaigns}
        """Where something may be said at the same time as elsewhere, and whether that is on the site."""
        self.has_delays = any(rule.delay for rule in campaigns)
        self.has_cap_exempt = any(
            rule.purpose == SERVICE or rule.format == "slot" or not rule.on_site for rule in campaigns
        )
        """Whether there is anything that the shop's limit on the site does not hold back."""
        occasions = _group((one.campaign.trigger.event, one) for one in campaigns)
        self.on_event = {
            event: EventIndex((one.rank, one.campaign.trigger.properties, one.clauses) for one in some)
            for event, some in occasions.items()
        }
        self.on_entered = _index_groups(_group((one.campaign.trigger.segment, one) for one in campaigns))
        self.on_left = _index_groups(_group((one.campaign.trigger.exited_segment, one) for one in campaigns))
        """Which campaigns may be meant by an event, by who enters or leaves a segment (numbers are ranks)."""
        watched = [one for one in campaigns if one.trigger_kind in CACHED_TRIGGER_KINDS]
        self.exit_offers = _build_index(one for one in watched if one.trigger_kind == "exit_intent")
        self.time_on_site = _build_index(one for one in watched if one.trigger_kind == "seconds_on_site")
        self.last_exempt_exit_rank = max(
            (one.rank for one in watched if one.trigger_kind == "exit_intent" and one.purpose == SERVICE), default=-1
        )
        """The rank of the last exit offer that the shop's limits do not hold back."""
        self.trigger_dependencies = TriggerDependencies((one.rank, one.depends_on, one.clauses) for one in watched)
        """Those whose audience is followed between their occasions, by what can change it."""
        self.cancelling_events = frozenset(event for one in campaigns for event in one.cancel_on)
        self.by_goal_event = _group((one.goal.event if one.goal is not None else None, one) for one in campaigns)
        """Campaigns by the event that they hope for."""
        self.campaign_groups = {
            name: frozenset(one.name for one in grouped)
            for name, grouped in _group((one.group or None, one) for one in campaigns).items()
        }
        """Campaigns by their group."""
        self.weights = {form: pressure_weight(form, shop) for form in (*ONSITE_FORMATS, *OFFSITE_FORMATS)}
        self.has_pressure_budget = (
            shop.contact_pressure.per_day is not None or shop.contact_pressure.per_week is not None
        )
        self.counter_specs = counters.required_specs(playbook)
        self.counters_by_event = index_by_event(self.counter_specs)
        """What conditions count beyond `Facts.counts`: by key, and by the name of the event."""
        self.templates: dict[tuple[str, ...], Any] = {}
        """Parsed templates by campaign and variant; `operators/render.py` fills it as they are used."""
        self.workflows = Workflows(playbook)
        self.pools = {pool.name: PoolRule(pool) for pool in playbook.coupons}
        self.segment_index = DependencyIndex((rule.name, rule.depends_on, rule.clauses) for rule in self.segments)
        """Over `segments`."""

    def format_money(self, minor: int) -> str:
        """An amount of the shop's currency, in major units."""
        return to_major(minor, self.shop.currency)


def compile_rules(playbook: Playbook) -> Rules:
    """A playbook made ready to be asked."""
    return Rules(playbook)


def rules_from_source(source: bytes) -> Rules:
    """The same rules again, from the bytes that were kept of them."""
    return Rules(domain_playbook.decode_playbook(source), source=source)


def topological_order(references: dict[str, list[str]]) -> list[str]:
    """Names, each behind those it refers to; by name where that leaves a choice. ValueError names a circle.

    >>> topological_order({"a": ["c"], "b": [], "c": ["b"]})
    ['b', 'c', 'a']
    """
    done: dict[str, None] = {}
    for name in sorted(references):
        _visit(name, references, done, [])
    return list(done)


def _visit(name: str, references: dict[str, list[str]], done: dict[str, None], path: list[str]) -> None:
    if name in done or name not in references:
        return
    if name in path:
        circle = [*path[path.index(name) :], name]
        raise ValueError("segments that refer to each other in a circle: " + " -> ".join(circle))
    for other in sorted(references[name]):
        _visit(other, references, done, [*path, name])
    done[name] = None


def _referenced_segments(when: CompiledCondition) -> list[str]:
    return [need[8:] for need in when.depends_on if need.startswith("segment:")]


def _group(pairs: Iterable[tuple[str | None, CampaignRule]]) -> dict[str, tuple[CampaignRule, ...]]:
    groups: dict[str, list[CampaignRule]] = {}
    for key, rule in pairs:
        if key is not None:
            groups.setdefault(key, []).append(rule)
    return {key: tuple(rules) for key, rules in groups.items()}


def _index_groups(groups: dict[str, tuple[CampaignRule, ...]]) -> dict[str, PredicateIndex]:
    return {key: _build_index(rules) for key, rules in groups.items()}


def _build_index(rules: Iterable[CampaignRule]) -> PredicateIndex:
    return PredicateIndex((rule.rank, rule.clauses) for rule in rules)
