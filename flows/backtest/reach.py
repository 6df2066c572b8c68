"""Reach analysis: how often each campaign was triggered, how often its conditions were true then, and which failed; and
which conditions kept people out of the segments that trigger campaigns.

It runs as a step before `select_campaigns`, with the same input, and returns no effects.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

from domain.action import Effect, ShardMessage
from flows.backtest.counts import BacktestResult, Counts, Eligibility, Period, TriggerPaths
from flows.simulation.virtual_time import resolve_person
from state.context import Input, StepContext, TimerFired
from state.explain.why_not import workflows_sending
from state.person.model import Person, ProfileFragment
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import Rules
from state.profile.profile import merged_profile

MAX_ANALYZED = 200
"""Campaigns and segments up to which a playbook is analyzed."""

_OBSERVED_VALUE = re.compile(r" \([^()]*\)")


@lru_cache(10_000)
def strip_observed_value(statement: str) -> str:
    """Remove the observed value of one person from a condition text.

    >>> strip_observed_value('not: did "Product Added" (last 5 s ago)')
    'not: did "Product Added"'
    """
    return _OBSERVED_VALUE.sub("", statement)


def trigger_paths(rules: Rules) -> dict[str, TriggerPaths]:
    """The trigger paths by campaign; empty for very large playbooks."""
    if not is_analyzed(rules):
        return {}
    paths = {}
    for name, rule in sorted(rules.campaigns.items()):
        flows = workflows_sending(name, rules) if rule.campaign.trigger.workflow else []
        entries = [entry for flow in flows for entry in rules.workflows.live[flow].workflow.entry_triggers]
        segments = [rule.campaign.trigger.segment, *(entry.segment for entry in entries)]
        events = [entry.event for entry in entries if entry.event]
        special = " with the required properties" if rule.campaign.trigger.properties else ""
        paths[name] = TriggerPaths(
            rule.trigger_description + special, tuple(flows), tuple(filter(None, segments)), tuple(events)
        )
    return paths


def _upstream_segments(rules: Rules) -> set[str]:
    """The segments that lead to a campaign, directly or through other segments."""
    found: set[str] = set()
    ahead = [name for path in trigger_paths(rules).values() for name in path.segments]
    while ahead:
        name = ahead.pop()
        if name not in found and name in rules.segments_by_name:
            found.add(name)
            ahead += [
                dependency.removeprefix("segment:")
                for dependency in rules.segments_by_name[name].depends_on
                if dependency.startswith("segment:")
            ]
    return found


def is_analyzed(rules: Rules) -> bool:
    """Whether this playbook is small enough for the analysis."""
    return len(rules.ranked) + len(rules.segments) <= MAX_ANALYZED


class ReachAnalysis:
    """The reach analysis of one cluster; results add up."""

    def __init__(self, rules: Rules, period: Period) -> None:
        self._rules, self._period, self._enabled = rules, period, is_analyzed(rules)
        self._by_trigger: dict[str, list[CampaignRule]] = defaultdict(list)
        for rule in rules.ranked:
            trigger = rule.campaign.trigger
            self._by_trigger[
                f"event {trigger.event}"
                if trigger.event
                else f"entered {trigger.segment}"
                if trigger.segment
                else f"exited {trigger.exited_segment}"
                if trigger.exited_segment
                else rule.trigger_kind
            ].append(rule)
        self._segments = [
            rules.segments_by_name[name]
            for name in sorted(_upstream_segments(rules))
            if name in rules.segments_by_name and rules.segments_by_name[name].static is None
        ]
        self.reset()

    def reset(self) -> None:
        """Start with a new cluster."""
        self._triggered: Counter[str] = Counter()
        self._eligible: Counter[str] = Counter()
        self._failed: dict[str, Counter[str]] = defaultdict(Counter)
        self._session_results: dict[tuple[str, str], tuple[str, ...] | None] = {}
        self._counted_runs: set[tuple[str, str]] = set()
        self._event_counts: Counter[str] = Counter()
        self._segment_failures: dict[str, dict[str, tuple[str, ...]]] = {}
        self._entered: dict[str, set[str]] = defaultdict(set)

    def step(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        """Count triggers and failed conditions of an input; return no effects."""
        if not self._enabled or person.bot or person.merged_into or context.now not in self._period:
            return ()
        profile, now = merged_profile(person), context.now
        for change in context.segment_changes:
            if change.entered:
                self._entered[person.id].add(change.segment)
            for rule in self._by_trigger.get(f"{'entered' if change.entered else 'exited'} {change.segment}", ()):
                self._count_trigger(rule, person, profile, now)
        for proposal in context.candidates:
            if proposal.run_id and (proposal.run_id, proposal.rule.name) not in self._counted_runs:
                self._counted_runs.add((proposal.run_id, proposal.rule.name))
                self._count_trigger(proposal.rule, person, profile, now)
        if not isinstance(event, (TimerFired, ShardMessage)):
            for rule in self._by_trigger.get(f"event {event.name}", ()):
                if rule.matches(event):
                    self._count_trigger(rule, person, profile, now)
            for rule in self._by_trigger.get("exit_intent", ()) if event.name == "Exit Intent" else ():
                self._count_trigger(rule, person, profile, now)
            self._sample_segments(person, profile, now)
        self._check_time_on_site(person, profile, now)
        return ()

    def _count_trigger(self, rule: CampaignRule, person: Person, profile: ProfileFragment, now: int) -> None:
        self._triggered[rule.name] += 1
        if rule.is_met(person, profile, now):
            self._eligible[rule.name] += 1
        else:
            self._failed[rule.name].update(map(strip_observed_value, rule.explain(person, profile, now)[1]))

    def _check_time_on_site(self, person: Person, profile: ProfileFragment, now: int) -> None:
        """Check time-on-site triggers: one per session, eligible if the conditions are true at or after it."""
        session = person.session
        for rule in self._by_trigger.get("seconds_on_site", ()) if session is not None else ():
            assert session is not None
            key, due = (session.id, rule.name), session.started_at + rule.time_on_site
            at = max(now, due)
            if key in self._session_results and self._session_results[key] is None and now > due:
                continue
            self._session_results[key] = (
                None
                if rule.is_met(person, profile, at)
                else tuple(map(strip_observed_value, rule.explain(person, profile, at)[1]))
            )

    def _sample_segments(self, person: Person, profile: ProfileFragment, now: int) -> None:
        """Note which conditions keep a person out of segments, at their event number 1, 4, 16 …"""
        self._event_counts[person.id] += 1
        n = self._event_counts[person.id]
        if not n & (n - 1) and n.bit_length() % 2:  # sampled, since it costs as much as matching segments
            self._segment_failures[person.id] = {
                rule.name: tuple(map(strip_observed_value, rule.explain(person, profile, now)[1]))
                for rule in self._segments
                if rule.name not in person.segments
            }

    def result(self, people: Mapping[str, Person]) -> BacktestResult:
        """Return the counts; `people` are the people at the end."""
        for (_, name), failed in sorted(self._session_results.items()):
            self._triggered[name] += 1
            if failed is None:
                self._eligible[name] += 1
            else:
                self._failed[name].update(failed)
        entered: dict[str, set[str]] = defaultdict(set)
        for key, names in self._entered.items():
            entered[resolve_person(key, people)] |= names
        last = {resolve_person(key, people): failures for key, failures in self._segment_failures.items()}
        failed_conditions: dict[str, Counter[str]] = defaultdict(Counter)
        for person, failures in sorted(last.items()):
            for name, failed in failures.items():
                if name not in entered[person]:
                    failed_conditions[name].update(failed)
        return BacktestResult(
            eligibility={
                name: Eligibility(n, self._eligible[name], _sorted_counts(self._failed[name]))
                for name, n in sorted(self._triggered.items())
            },
            failed_conditions={
                name: _sorted_counts(counts) for name, counts in sorted(failed_conditions.items()) if counts
            },
        )


def _sorted_counts(counts: Mapping[str, int]) -> Counts:
    return dict(sorted(counts.items()))
