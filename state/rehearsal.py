"""Rehearsal: what was noted of a few people, counted. What is counted adds up over everybody (`domain/rehearsal.py`).

A person "got" a campaign when it was sent to them, or shown to them after it had been armed.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from domain.action import Arm, CouponNews, Disarm, Hold, Move, Progress, Send
from domain.effect import Effect
from domain.message import Message
from domain.outcome import Outcome
from domain.rehearsal import MANY, PRESSURE, Belong, Counts, Found, Goals, Holds, Live, Told
from state.days import zone
from state.person import Person
from state.reactions import Note
from state.virtual import whose

UNOBTRUSIVE = ("slot", "webhook", "file")
"""What is part of the page, or is not told to people: it annoys nobody."""


class Period:
    """From when until when (ms, the end is not in it), in days of a time zone."""

    def __init__(self, begin: int, end: int, timezone: str) -> None:
        self.begin, self.end = begin, end
        where = zone(timezone)

        @lru_cache(4096)
        def day(quarter: int) -> str:  # no zone changes its day but at a quarter of an hour
            return datetime.fromtimestamp(quarter * 900, where).strftime("%Y-%m-%d")

        self._day = day

    def __contains__(self, at: int) -> bool:
        return self.begin <= at < self.end

    def day(self, at: int) -> str:
        """The day of a moment."""
        return self._day(at // 900_000)


class _Campaign:
    """What one campaign comes to."""

    def __init__(self) -> None:
        self.got: Counter[str] = Counter()
        self.per_day: dict[str, Counter[str]] = defaultdict(Counter)
        self.armed: Counter[str] = Counter()
        self.holds: dict[str, Counter[str]] = defaultdict(Counter)
        self.goals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.variants: Counter[str] = Counter()
        self.lost_to: Counter[str] = Counter()
        self.taken_back = self.closed = self.clicked = 0
        self.live: Counter[str] = Counter()
        self.live_shown: set[str] = set()

    def told(self, also: Counts) -> Told:
        got, live = self.got.keys(), self.live.keys()
        return Told(
            people=len(got), per_day={channel: _plain(days) for channel, days in sorted(self.per_day.items())},
            variants=_plain(self.variants), armed=self.armed.total(), armed_people=len(self.armed),
            taken_back=self.taken_back,
            holds={reason: Holds(who.total(), len(who)) for reason, who in sorted(self.holds.items())},
            also=also, lost_to=_plain(self.lost_to), closed=self.closed, clicked=self.clicked,
            goals={variant: Goals(*numbers) for variant, numbers in sorted(self.goals.items())},
            live=Live(people=len(live), times=self.live.total(), shown_people=len(self.live_shown),
                      both=len(got & live), new=len(got - live), gone=len(live - got)))


class Books:
    """Counts what was noted of people who share ids; `found()` is what it comes to."""

    def __init__(self, people: Mapping[str, Person], period: Period, names: Collection[str] = ()) -> None:
        self._people, self._period, self._names = people, period, names
        self._campaigns: dict[str, _Campaign] = defaultdict(_Campaign)
        self._things: dict[str, Counter[str]] = defaultdict(Counter)
        self._days: dict[str, Counter[str]] = defaultdict(Counter)
        self._loud: Counter[tuple[str, str]] = Counter()
        """What is told aloud, by person and day."""
        self._annoyed: dict[str, set[str]] = defaultdict(set)
        self._closed: set[tuple[str, str]] = set()
        self._moves: dict[str, tuple[Counter[str], Counter[str]]] = defaultdict(lambda: (Counter(), Counter()))
        self._workflows: dict[str, Counter[str]] = defaultdict(Counter)
        self._coupons: dict[str, Counter[str]] = defaultdict(Counter)
        self._live_things: Counter[str] = Counter()
        self._decided_live = 0

    # -- what is rehearsed -------------------------------------------------------------------------------------

    def note(self, notes: Iterable[Note]) -> None:
        """Count what was noted."""
        for note in notes:
            if note.at not in self._period:
                continue
            who = whose(note.person, self._people)
            if note.effect is not None:
                self._effect(who, note, note.effect)
            elif note.what == "closed":
                self._closed.add((who, note.session))
                if note.about is not None:
                    self._campaigns[note.about.campaign].closed += 1
            elif note.about is not None and note.what == "clicked":
                self._campaigns[note.about.campaign].clicked += 1
            elif note.about is not None and note.what == "shown" and note.about.trigger:
                self._got(who, note, note.about.campaign, note.about.channel, note.about.variant)

    def _effect(self, who: str, note: Note, effect: Effect) -> None:
        if isinstance(effect, Move):
            self._moves[effect.segment][0 if effect.entered else 1][who] += 1
        elif isinstance(effect, Send):
            self._got(who, note, effect.campaign, effect.format, effect.because.variant)
        elif isinstance(effect, Message) and not effect.withdraws:
            self._got(who, note, effect.campaign, effect.channel, effect.variant)
        elif isinstance(effect, Arm):
            self._campaigns[effect.campaign].armed[who] += 1
        elif isinstance(effect, Hold):
            self._held(who, effect)
        elif isinstance(effect, Disarm | Message):
            if not isinstance(effect, Disarm) or effect.because.reason != "shown":
                self._campaigns[effect.campaign].taken_back += 1
        elif isinstance(effect, Progress):
            what = effect.words if effect.what in ("step", "goal") else effect.what
            self._workflows[effect.workflow][what] += 1
        elif isinstance(effect, CouponNews):
            self._coupons[effect.pool][effect.what] += 1
        elif isinstance(effect, Outcome) and effect.kind == "goal":
            numbers = self._campaigns[effect.campaign].goals[effect.variant]
            numbers[0 if effect.label else 1] += 1
            numbers[2] += round(effect.value * 100)

    def _got(self, who: str, note: Note, campaign: str, channel: str, variant: str) -> None:
        one, day = self._campaigns[campaign], self._period.day(note.at)
        one.got[who] += 1
        one.per_day[channel][day] += 1
        one.variants[variant] += 1
        self._things[who][campaign] += 1
        self._days[who][day] += 1
        if channel in UNOBTRUSIVE:
            return
        self._loud[who, day] += 1
        if self._loud[who, day] >= MANY:
            self._annoyed["day"].add(who)
        if note.session and (who, note.session) in self._closed:
            self._annoyed["closed"].add(who)

    def _held(self, who: str, hold: Hold) -> None:
        reason = hold.because.reason
        one = self._campaigns[hold.campaign]
        one.holds[reason][who] += 1
        if reason in PRESSURE:
            self._annoyed["limit"].add(who)
        winner = hold.because.detail.partition(" ")[0]
        if winner != hold.campaign and winner in self._names:
            one.lost_to[winner] += 1

    # -- what really happened ----------------------------------------------------------------------------------

    def live(self, decided: Iterable[Effect], shown: Mapping[str, str]) -> None:
        """Count what was decided live; `shown` says who was shown it, by the id of the decision."""
        for effect in decided:
            if not isinstance(effect, Send | Arm | Hold | Disarm | Message) or effect.at not in self._period:
                continue
            self._decided_live += 1
            seen_by = shown.get(effect.id)
            got_by: str | None = None
            if isinstance(effect, Send) or (isinstance(effect, Message) and not effect.withdraws):
                got_by = effect.person
            elif isinstance(effect, Arm):
                got_by = seen_by
            if got_by is not None:
                who = whose(got_by, self._people)
                self._campaigns[effect.campaign].live[who] += 1
                self._live_things[who] += 1
            if seen_by is not None:
                self._campaigns[effect.campaign].live_shown.add(whose(seen_by, self._people))

    # -- together ----------------------------------------------------------------------------------------------

    def found(self, present: Collection[str]) -> Found:
        """What it all comes to; `present` are the ids that did something in the time that is reported."""
        everybody = {key: person for key, person in self._people.items()
                     if not person.alias_of and key[:2] in ("u:", "a:")}
        sizes = Counter(name for person in everybody.values() for name in person.segments)
        for person in everybody.values():
            for run in person.runs.values():
                self._workflows[run.workflow]["inside"] += 1
            for hope in person.hopes:
                if hope.at in self._period:
                    self._campaigns[hope.campaign].goals[hope.variant][3] += 1
        told = Counter(min(things.total(), 10) for things in self._things.values())
        also: dict[str, Counter[str]] = defaultdict(Counter)
        for things in self._things.values():
            for one in things:
                also[one].update(other for other in things if other != one)
        here = {whose(key, self._people) for key in present}
        return Found(
            people=len(here), everybody=len(here.union(self._things, *self._annoyed.values())),
            reached=len(self._things), things=sum(told.total() for told in self._things.values()),
            by_things={str(n): people for n, people in sorted(told.items())},
            busiest=max(((things.total(), max(self._days[who].values()), tuple(sorted(things.items())))
                         for who, things in self._things.items()), default=(0, 0, ())),
            annoyed={why: len(who) for why, who in sorted(self._annoyed.items())},
            annoyed_people=len(set().union(*self._annoyed.values())),
            campaigns={name: one.told(_plain(also[name])) for name, one in sorted(self._campaigns.items())},
            segments={name: Belong(self._moves[name][0].total(), self._moves[name][1].total(),
                                   len(self._moves[name][0]), sizes[name])
                      for name in sorted({*self._moves, *sizes})},
            workflows={name: _plain(counts) for name, counts in sorted(self._workflows.items())},
            coupons={name: _plain(counts) for name, counts in sorted(self._coupons.items())},
            decided_live=self._decided_live, live_reached=len(self._live_things),
            live_things=self._live_things.total())


def _plain(counts: Mapping[str, int]) -> Counts:
    return dict(sorted(counts.items()))


def timeline(notes: Sequence[Note], members: Collection[str]) -> list[Note]:
    """What was noted of some ids, in the order of time."""
    return sorted((note for note in notes if note.person in members), key=lambda note: note.at)
