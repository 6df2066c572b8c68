"""The audience: which campaigns hold right now, of those that are watched between their occasions.

Exit offers are armed ahead and seconds on the site come without an event, so their audiences are followed all the time;
only what a happening (or time) can have changed is asked again. Of exit offers only the best one is wanted: they are
asked in the order of their rank, and no further than somebody wants to know. Of seconds on the site all are asked.

What was found is kept with the person while they are hot, and is the same as if everything were asked anew.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence

from state.context import Context
from state.finder import Finder
from state.person import Facts, Person
from state.rules import CampaignRule, Rules

NEVER = 1 << 62


class Holding:
    """Campaigns of one kind that hold. Everything up to the rank `upto` has been asked (-1: nothing; NEVER: all).

    `ranks` are those that hold, in rising order, `times` the moments (ms) at which time alone may change one.
    """

    __slots__ = ("_finder", "_given", "_rest", "_rules", "ranks", "times", "upto")

    def __init__(self, rules: Rules, finder: Finder) -> None:
        self._rules, self._finder = rules, finder
        self.forget()

    def forget(self) -> None:
        """Nothing is known."""
        self.ranks: list[int] = []
        self.times: dict[int, int] = {}
        self.upto = self._given = -1
        self._rest: list[int] | None = None

    def begin(self) -> None:
        """Another happening."""
        self._rest = None
        self._given = -1

    def changed(self, which: frozenset[int]) -> None:
        """Of these nothing is known any more: they are to be asked again."""
        if self.ranks:
            self.ranks = [rank for rank in self.ranks if rank not in which]
        if self.times:
            self.times = {rank: at for rank, at in self.times.items() if rank not in which}

    def ask(self, rank: int, person: Person, facts: Facts, now: int) -> bool:
        """Whether this one holds; it is noted, and when time may change that."""
        rule = self._rules.ranked[rank]
        if rule.timed:
            change = rule.next_change(person, facts, now)
            if change is not None:
                self.times[rank] = change
            else:
                self.times.pop(rank, None)
        return rule.holds(person, facts, now)

    def again(self, ranks: Sequence[int], person: Person, facts: Facts, now: int) -> None:
        """Ask these again, as far as they were asked before."""
        for rank in ranks:
            if rank <= self.upto:
                if not self.ask(rank, person, facts, now):
                    if rank in self.ranks:
                        self.ranks.remove(rank)
                elif rank not in self.ranks:
                    insort(self.ranks, rank)

    def time_passes(self, person: Person, facts: Facts, now: int) -> None:
        """Ask those again whose time has come."""
        if self.times and min(self.times.values()) <= now:
            self.again([rank for rank, at in self.times.items() if at <= now], person, facts, now)

    def more(self, person: Person, facts: Facts, now: int) -> bool:
        """Ask further until another one holds; False when there is none."""
        if self.upto == NEVER:
            return False
        if self._rest is None:
            found = self._finder.find(person, facts)
            self._rest = found[bisect_right(found, self.upto):][::-1]
        while self._rest:
            self.upto = rank = self._rest.pop()
            if self.ask(rank, person, facts, now):
                self.ranks.append(rank)
                return True
        self.upto = NEVER
        return False

    def each(self, person: Person, facts: Facts, now: int) -> Iterator[CampaignRule]:
        """Those that hold, by rank, asked for as they are wanted."""
        n = 0
        while n < len(self.ranks) or self.more(person, facts, now):
            self._given = self.ranks[n]
            yield self._rules.ranked[self._given]
            n += 1
        self._given = NEVER

    def until(self) -> int:
        """Until when time alone leaves those that were given as they are (ms); what lies behind them is forgotten."""
        if self._given < self.upto:
            self.upto = last = self._given
            del self.ranks[bisect_right(self.ranks, last):]
            if self.times:
                self.times = {rank: at for rank, at in self.times.items() if rank <= last}
            self._rest = None
        return min(self.times.values()) if self.times else NEVER


class Audience:
    """The watched campaigns that hold for one person."""

    __slots__ = ("exits", "rules", "seconds")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.exits = Holding(rules, rules.exits)
        self.seconds = Holding(rules, rules.seconds)


def audience_of(person: Person, facts: Facts, context: Context) -> Audience:
    """Ask the watched campaigns again whose audience this happening, or time, can have changed."""
    rules, now, changed = context.rules, context.now, context.changed
    kept: Audience | None = person.__dict__.get("audience")
    if kept is None or kept.rules is not rules:
        person.__dict__["audience"] = kept = Audience(rules)
        return kept
    exits, seconds = kept.exits, kept.seconds
    if changed is None or "visit" in changed:
        exits.forget()
        seconds.forget()
        return kept
    exits.begin()
    seconds.begin()
    exits.time_passes(person, facts, now)
    seconds.time_passes(person, facts, now)
    turn = rules.watched.turn(changed) if changed else None
    if turn is not None:
        for which in turn.ranks:
            exits.changed(which)
            seconds.changed(which)
        ranked = rules.ranked
        for finder in turn.finders:
            todo = finder.find(person, facts)
            if todo:
                exits.again([rank for rank in todo if not ranked[rank].seconds], person, facts, now)
                seconds.again([rank for rank in todo if ranked[rank].seconds], person, facts, now)
    return kept


def lost(person: Person) -> None:
    """Nobody follows this person's audiences just now, so what changes meanwhile is not noted: ask anew afterwards."""
    person.__dict__.pop("audience", None)
