"""Chances: how often the occasion of each campaign came in a rehearsal, how often its conditions held then, and what
did not; and what kept people out of the segments that are occasions.

It is a step that watches: it stands before the one that chooses, sees what that one sees, and says nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

from domain.effect import Effect
from domain.letter import Letter
from domain.rehearsal import Chance, Counts, Found, Leads
from state.belonging import senders
from state.context import Context, Due, Happening
from state.person import Facts, Person
from state.rehearsal import Period
from state.rules import CampaignRule, Rules
from state.view import known
from state.virtual import whose

FOLLOWED = 200
"""Campaigns and segments of a playbook whose chances are followed one by one: of more, none are."""

_VALUE = re.compile(r" \([^()]*\)")


@lru_cache(10_000)
def statement(words: str) -> str:
    """A statement without what it found of a person, so that it is the same for everybody.

    >>> statement('not: did "Product Added" (last 5 s ago)')
    'not: did "Product Added"'
    """
    return _VALUE.sub("", words)


def leads_of(rules: Rules) -> dict[str, Leads]:
    """What brings each campaign about, in words and in names; nothing where there are too many of them."""
    if not follows(rules):
        return {}
    found = {}
    for name, rule in sorted(rules.campaigns.items()):
        flows = senders(name, rules) if rule.campaign.trigger.workflow else []
        occasions = [one for flow in flows for one in rules.workflows.live[flow].workflow.occasions]
        segments = [rule.campaign.trigger.segment, *(one.segment for one in occasions)]
        events = [one.event for one in occasions if one.event]
        special = " with the properties it asks for" if rule.campaign.trigger.properties else ""
        found[name] = Leads(rule.occasion + special, tuple(flows), tuple(filter(None, segments)), tuple(events))
    return found


def _leading(rules: Rules) -> set[str]:
    """The segments that lead to a campaign, through whatever other segments."""
    found: set[str] = set()
    ahead = [name for leads in leads_of(rules).values() for name in leads.segments]
    while ahead:
        name = ahead.pop()
        if name not in found and name in rules.segment:
            found.add(name)
            ahead += [need[8:] for need in rules.segment[name].needs if need.startswith("segment:")]
    return found


def follows(rules: Rules) -> bool:
    """Whether the chances of this playbook are followed."""
    return len(rules.ranked) + len(rules.segments) <= FOLLOWED


class Chances:
    """What one family came to; `found` is counted, and adds up."""

    def __init__(self, rules: Rules, period: Period) -> None:
        self._rules, self._period, self._followed = rules, period, follows(rules)
        self._by: dict[str, list[CampaignRule]] = defaultdict(list)
        for rule in rules.ranked:
            trigger = rule.campaign.trigger
            self._by[f"event {trigger.event}" if trigger.event else f"entered {trigger.segment}" if trigger.segment else
                     f"left {trigger.left_segment}" if trigger.left_segment else rule.kind].append(rule)
        self._segments = [rules.segment[name] for name in sorted(_leading(rules)) if name in rules.segment
                          and rules.segment[name].static is None]
        self.turn_to_others()

    def turn_to_others(self) -> None:
        """Other people come."""
        self._came: Counter[str] = Counter()
        self._fitted: Counter[str] = Counter()
        self._failed: dict[str, Counter[str]] = defaultdict(Counter)
        self._visits: dict[tuple[str, str], tuple[str, ...] | None] = {}
        self._runs: set[tuple[str, str]] = set()
        self._happened: Counter[str] = Counter()
        self._outside: dict[str, dict[str, tuple[str, ...]]] = {}
        self._been_in: dict[str, set[str]] = defaultdict(set)

    def step(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        """See what comes."""
        if not self._followed or person.bot or person.alias_of or context.now not in self._period:
            return ()
        facts, now = known(person), context.now
        for move in context.moves:
            if move.entered:
                self._been_in[person.id].add(move.segment)
            for rule in self._by.get(f"{'entered' if move.entered else 'left'} {move.segment}", ()):
                self._comes(rule, person, facts, now)
        for proposal in context.proposals:
            if proposal.run and (proposal.run, proposal.rule.name) not in self._runs:
                self._runs.add((proposal.run, proposal.rule.name))
                self._comes(proposal.rule, person, facts, now)
        if not isinstance(event, (Due, Letter)):
            for rule in self._by.get(f"event {event.name}", ()):
                if rule.matches(event):
                    self._comes(rule, person, facts, now)
            for rule in self._by.get("exit_intent", ()) if event.name == "Exit Intent" else ():
                self._comes(rule, person, facts, now)
            self._look(person, facts, now)
        self._visit(person, facts, now)
        return ()

    def _comes(self, rule: CampaignRule, person: Person, facts: Facts, now: int) -> None:
        self._came[rule.name] += 1
        if rule.holds(person, facts, now):
            self._fitted[rule.name] += 1
        else:
            self._failed[rule.name].update(map(statement, rule.explain(person, facts, now)[1]))

    def _visit(self, person: Person, facts: Facts, now: int) -> None:
        """A second of the visit comes once in each: it fits as soon as the conditions hold at it or later."""
        session = person.session
        for rule in self._by.get("seconds_on_site", ()) if session is not None else ():
            assert session is not None
            key, then = (session.id, rule.name), max(now, session.started_at + rule.seconds)
            if key in self._visits and self._visits[key] is None and now > session.started_at + rule.seconds:
                continue
            self._visits[key] = (None if rule.holds(person, facts, then) else
                                 tuple(map(statement, rule.explain(person, facts, then)[1])))

    def _look(self, person: Person, facts: Facts, now: int) -> None:
        """What keeps them out of segments: looked at with their first event, the fourth, the sixteenth …"""
        self._happened[person.id] += 1
        n = self._happened[person.id]
        if not n & (n - 1) and n.bit_length() % 2:  # to look costs as much as to decide
            self._outside[person.id] = {
                rule.name: tuple(map(statement, rule.explain(person, facts, now)[1]))
                for rule in self._segments if rule.name not in person.segments}

    def found(self, people: Mapping[str, Person]) -> Found:
        """What it comes to, for these people as they are at last."""
        for (_, name), failed in sorted(self._visits.items()):
            self._came[name] += 1
            if failed is None:
                self._fitted[name] += 1
            else:
                self._failed[name].update(failed)
        been: dict[str, set[str]] = defaultdict(set)
        for key, names in self._been_in.items():
            been[whose(key, people)] |= names
        last = {whose(key, people): outside for key, outside in self._outside.items()}
        kept_out: dict[str, Counter[str]] = defaultdict(Counter)
        for who, outside in sorted(last.items()):
            for name, failed in outside.items():
                if name not in been[who]:
                    kept_out[name].update(failed)
        return Found(
            chances={name: Chance(n, self._fitted[name], _plain(self._failed[name]))
                     for name, n in sorted(self._came.items())},
            kept_out={name: _plain(counts) for name, counts in sorted(kept_out.items()) if counts})


def _plain(counts: Mapping[str, int]) -> Counts:
    return dict(sorted(counts.items()))

