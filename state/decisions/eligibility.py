"""Eligible campaigns: the on-site campaigns whose conditions are true, updated incrementally.

Exit offers are evaluated by rank, only as far as needed. All time-on-site campaigns are evaluated. The result is cached
with the person in memory and equals a full evaluation.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence

from state.conditions.index import PredicateIndex
from state.context import StepContext
from state.person.model import Person, ProfileFragment
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import Rules

NEVER = 1 << 62


class KindCache:
    """Campaigns of one kind that hold. Everything up to the rank `upto` has been asked (-1: nothing; NEVER: all).

    `ranks` are those that hold, in rising order, `times` the moments (ms) at which time alone may change one.
    """

    __slots__ = ("_index", "_last_yielded", "_remaining", "_rules", "change_times", "evaluated_to", "ranks")

    def __init__(self, rules: Rules, index: PredicateIndex) -> None:
        self._rules, self._index = rules, index
        self.clear()

    def clear(self) -> None:
        """Nothing is known."""
        self.ranks: list[int] = []
        self.change_times: dict[int, int] = {}
        self.evaluated_to = self._last_yielded = -1
        self._remaining: list[int] | None = None

    def restart(self) -> None:
        """Another happening."""
        self._remaining = None
        self._last_yielded = -1

    def discard(self, ranks: frozenset[int]) -> None:
        """Of these nothing is known any more: they are to be asked again."""
        if self.ranks:
            self.ranks = [rank for rank in self.ranks if rank not in ranks]
        if self.change_times:
            self.change_times = {rank: at for rank, at in self.change_times.items() if rank not in ranks}

    def evaluate(self, rank: int, person: Person, profile: ProfileFragment, now: int) -> bool:
        """Whether this one holds; it is noted, and when time may change that."""
        rule = self._rules.ranked[rank]
        if rule.time_dependent:
            change = rule.next_change(person, profile, now)
            if change is not None:
                self.change_times[rank] = change
            else:
                self.change_times.pop(rank, None)
        return rule.is_met(person, profile, now)

    def recheck(self, ranks: Sequence[int], person: Person, profile: ProfileFragment, now: int) -> None:
        """Ask these again, as far as they were asked before."""
        for rank in ranks:
            if rank <= self.evaluated_to:
                if not self.evaluate(rank, person, profile, now):
                    if rank in self.ranks:
                        self.ranks.remove(rank)
                elif rank not in self.ranks:
                    insort(self.ranks, rank)

    def recheck_due(self, person: Person, profile: ProfileFragment, now: int) -> None:
        """Ask those again whose time has come."""
        if self.change_times and min(self.change_times.values()) <= now:
            self.recheck([rank for rank, at in self.change_times.items() if at <= now], person, profile, now)

    def find_next(self, person: Person, profile: ProfileFragment, now: int) -> bool:
        """Ask further until another one holds; False when there is none."""
        if self.evaluated_to == NEVER:
            return False
        if self._remaining is None:
            found = self._index.candidates(person, profile)
            self._remaining = found[bisect_right(found, self.evaluated_to) :][::-1]
        while self._remaining:
            self.evaluated_to = rank = self._remaining.pop()
            if self.evaluate(rank, person, profile, now):
                self.ranks.append(rank)
                return True
        self.evaluated_to = NEVER
        return False

    def iterate(self, person: Person, profile: ProfileFragment, now: int) -> Iterator[CampaignRule]:
        """Those that hold, by rank, asked for as they are wanted."""
        n = 0
        while n < len(self.ranks) or self.find_next(person, profile, now):
            self._last_yielded = self.ranks[n]
            yield self._rules.ranked[self._last_yielded]
            n += 1
        self._last_yielded = NEVER

    def valid_until(self) -> int:
        """Until when time alone leaves those that were given as they are (ms); what lies behind them is forgotten."""
        if self._last_yielded < self.evaluated_to:
            self.evaluated_to = last = self._last_yielded
            del self.ranks[bisect_right(self.ranks, last) :]
            if self.change_times:
                self.change_times = {rank: at for rank, at in self.change_times.items() if rank <= last}
            self._remaining = None
        return min(self.change_times.values()) if self.change_times else NEVER


class EligibilityCache:
    """The watched campaigns that hold for one person."""

    __slots__ = ("exit_offers", "rules", "time_on_site")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.exit_offers = KindCache(rules, rules.exit_offers)
        self.time_on_site = KindCache(rules, rules.time_on_site)


def update_eligibility(person: Person, profile: ProfileFragment, context: StepContext) -> EligibilityCache:
    """Ask the watched campaigns again whose audience this happening, or time, can have changed."""
    rules, now, changed = context.rules, context.now, context.changed_dependencies
    kept = person.derived.eligibility
    if kept is None or kept.rules is not rules:
        person.derived.eligibility = kept = EligibilityCache(rules)
        return kept
    exits, seconds = kept.exit_offers, kept.time_on_site
    if changed is None or "session" in changed:
        exits.clear()
        seconds.clear()
        return kept
    exits.restart()
    seconds.restart()
    exits.recheck_due(person, profile, now)
    seconds.recheck_due(person, profile, now)
    turn = rules.trigger_dependencies.affected_by(changed) if changed else None
    if turn is not None:
        for which in turn.ranks:
            exits.discard(which)
            seconds.discard(which)
        ranked = rules.ranked
        for finder in turn.indexes:
            todo = finder.candidates(person, profile)
            if todo:
                exits.recheck([rank for rank in todo if not ranked[rank].time_on_site], person, profile, now)
                seconds.recheck([rank for rank in todo if ranked[rank].time_on_site], person, profile, now)
    return kept


def invalidate(person: Person) -> None:
    """Drop the cached results, because changes are not tracked until the next evaluation."""
    person.derived.eligibility = None
