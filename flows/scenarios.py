"""Scenarios: the stories of a playbook are told to the engine, in virtual time, and it must answer as they say.

    scenarios/*.md ─▶ rows ─▶ records, passing time ─▶ the steps of flows/onsite.py ─▶ what came of it ─▶ as expected?

The same shards and steps as live, over a store of nothing. What is shown is taken as seen at once, what is written as
delivered, and an exit offer as seen at the next "Exit Intent", as in a rehearsal (`state/reactions.py`).
"""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from domain.action import Arm, CouponNews, Disarm, Hold, Move, Progress, Send
from domain.amounts import times
from domain.check_scenario import ANSWERED, PARTS, SOMEBODY, check_scenario, given
from domain.message import Message
from domain.model import Model, Quality
from domain.playbook import Playbook
from domain.problem import Problem
from domain.record import Record
from domain.scenario import MOVES, Row, Scenario, Value
from domain.streams import PARTITIONS
from flows.onsite import STEPS
from flows.scenario_events import Teller
from flows.scenario_reasons import Reasons, said
from flows.scenario_words import words_of
from state.person import Person
from state.reactions import Note, Reactions
from state.rules import Rules, compile_rules
from state.virtual import Household, Item, Learned, whose

BEGIN = "2026-03-02 10:00"
"""When stories begin that do not say it: a Monday morning in the shop's time zone."""
_MOVED = {"finished": "went through to the end"}

Decided = Send | Arm | Disarm | Hold | Move | Message | CouponNews | Progress


class Came(NamedTuple):
    """Something that came of the story: the words of the row that would expect it."""

    what: str
    which: str
    at: int
    who: str
    note: Note

    def __str__(self) -> str:
        return f"{self.what} {self.which} at {said(self.at)}"


def tell(scenario: Scenario, rules: Rules) -> list[Problem]:
    """Tell one story; what did not come as expected. The same story gives the same answer every time.

    What the playbook has no name for is said first: such a story is not told.
    """
    return check_scenario(scenario, rules.playbook) or _Telling(scenario, rules).run()


class _Telling:
    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario, self.rules = scenario, rules
        self.problems: list[Problem] = []
        self.zero = _begin(scenario, rules)
        learned = Learned(_model(scenario))
        self.reactions = Reactions(STEPS, assumed=True, bounces=True)
        background = compile_rules(Playbook(rules.shop))
        self.household = Household(self.reactions, background, PARTITIONS, lambda partition, at: learned)
        self.learned = learned
        self.tellers: dict[str, Teller] = {}
        self.offset = 0
        self.told_by: dict[int, int] = {}
        """Lines by the offset of the record that a row became."""
        self.noted = 0
        self.clock = self.zero

    def run(self) -> list[Problem]:
        rows = [row for row in self.scenario.rows if row.what != "given"]
        for who in dict.fromkeys(row.who or SOMEBODY for row in self.scenario.rows):
            teller, consent = self._teller(who)
            for record in teller.beginning(consent, self.zero - 1, PARTITIONS):
                self._apply(record, self.scenario.line)
        self.household.rules = self.rules  # what is given was so before this playbook was: it is no occasion
        self.noted = len(self.reactions.notes)
        block: list[Row] = []
        for n, row in enumerate(rows):
            if row.what in MOVES:
                if n and rows[n - 1].what not in MOVES:
                    self._check(block)
                    block = []
                self._move(row)
            else:
                block.append(row)
        self._check(block)
        for refused in self.household.refused:
            self.problems.append(Problem(self.scenario.file, self.told_by.get(refused.offset, 0), "details",
                                         f"this event would be refused: {refused.because}"))
        bugs = {bug for shard in self.household.shards.values() for bug in shard.bugs}
        self.problems += [Problem(self.scenario.file, self.scenario.line, "", f"the engine failed: {bug}")
                          for bug in sorted(bugs)]
        return sorted(self.problems, key=lambda problem: problem.line)

    # -- telling ---------------------------------------------------------------------------------------------------

    def _teller(self, who: str) -> tuple[Teller, dict[str, Value]]:
        about_them: dict[str, Value] = {}
        traits: dict[str, Value] = {}
        consent: dict[str, Value] = {}
        for row in self.scenario.rows:
            if row.what == "given" and (row.who or who) == who:
                name, _, about = row.which.partition(" ")
                value = given(row)
                if name == "trait":
                    traits[about] = value
                elif name == "consent":
                    consent[about] = str(value).lower() not in ("denied", "no", "false", "refused")
                else:
                    about_them[name] = value
        teller = self.tellers[who] = Teller(who, about_them, traits)
        return teller, consent

    def _move(self, row: Row) -> None:
        at = self.zero + row.at if row.at is not None else self.clock
        if row.what == "time passes":
            self.household.live([], at, False)
        else:
            teller = self.tellers[row.who or SOMEBODY]
            filled = {name: self._filled(value, teller, row) for name, value in row.values.items()}
            filled = self._answering(row, filled, teller)
            self._apply(teller.record(Row(row.line, row.what, row.which, values=filled), at, PARTITIONS), row.line)
        self.clock = max(self.clock, at)

    def _apply(self, record: Record, line: int) -> None:
        self.offset += 1
        self.told_by[self.offset] = line
        item = Item(record._replace(offset=self.offset), record.log_time, self.learned)
        self.household.live([item], record.log_time, False)

    def _person(self, who: str) -> Person | None:
        people = self.household.people()
        return people.get(whose(self.tellers[who].person, people))

    def _filled(self, value: Value, teller: Teller, row: Row) -> Value:
        """`{pool}` is the code of the coupon that the person holds."""
        found = re.fullmatch(r"\{([a-z0-9_-]+)\}", value) if isinstance(value, str) else None
        if found is None or found[1] not in self.rules.pools:
            return value
        person = self._person(teller.who)
        for coupon in reversed(person.coupons if person is not None else ()):
            if coupon.pool == found[1]:
                return coupon.code
        self.problems.append(Problem(self.scenario.file, row.line, "details",
                                     f"{teller.who} has no coupon of {found[1]} at that time"))
        return value

    def _answering(self, row: Row, values: dict[str, Value], teller: Teller) -> dict[str, Value]:
        """Which of our decisions an answer is about: the latest one of the campaign it names that was for them."""
        campaign, people = values.get("campaign"), self.household.people()
        if not row.which.startswith(ANSWERED) or campaign is None:
            return values
        key = whose(teller.person, people)
        for note in reversed(self.reactions.notes):
            effect = note.effect
            if whose(note.person, people) != key:
                continue
            if isinstance(effect, Message) and effect.campaign == campaign and not effect.withdraws:
                return {"message_id": effect.id, "channel": effect.channel, **values}
            if isinstance(effect, (Send, Arm)) and effect.campaign == campaign:
                return {"action_id": effect.id, **values}
        self.problems.append(Problem(self.scenario.file, row.line, "details", (
            f"{teller.who} was told nothing of {campaign} by then: there is nothing to answer")))
        return values

    # -- checking --------------------------------------------------------------------------------------------------

    def _came(self) -> Iterator[Came]:
        people = self.household.people()
        for note in self.reactions.notes[self.noted:]:
            words = _words(note)
            if words is not None:
                yield Came(*words, note.at - self.zero, whose(note.person, people), note)

    def _name(self, person: str) -> str:
        """What a person is called in the story."""
        people = self.household.people()
        return next((who for who, one in self.tellers.items() if whose(one.person, people) == person), person)

    def _check(self, rows: Sequence[Row]) -> None:
        came = list(self._came())
        self.noted = len(self.reactions.notes)
        mentioned: set[int] = set()
        taken: set[int] = set()
        for row in rows:
            wrong = self._row(row, came, mentioned, taken)
            if wrong:
                self.problems.append(Problem(self.scenario.file, row.line, row.what, wrong))
        loud = [one for n, one in enumerate(came) if one.what in ("shown", "message") and n not in mentioned]
        line = rows[-1].line if rows else self.scenario.line
        self.problems += [Problem(self.scenario.file, line, one.what,
                                  f"nobody expected that {self._name(one.who)} gets {one.which} at {said(one.at)}: "
                                  "if that is right, say so in a row here") for one in loud]

    def _row(self, row: Row, came: list[Came], mentioned: set[int], taken: set[int]) -> str:
        """What is wrong with a row. What a row stands for is `taken` by it; what is not as it says is `mentioned` too,
        and another row may still stand for it.
        """
        who = row.who or SOMEBODY
        person = self._person(who)
        if row.what in ("is in", "is not in"):
            inside = person is not None and row.which in person.segments
            if inside is (row.what == "is in"):
                return ""
            return (Reasons(who, person, self.rules, self.clock, self.zero).why(row) if person is not None
                    else f"{who} has not been here yet")
        if row.what == "nothing":
            return ""
        people = self.household.people()
        key = whose(self.tellers[who].person, people)
        what = "shown" if row.what == "not shown" else row.what
        same = [(n, one) for n, one in enumerate(came) if one.what == what and one.which == row.which
                and (not row.who or one.who == key)]
        fits = [(n, one) for n, one in same if not self._differs(row, one)]
        if row.what == "not shown":
            fits = [(n, one) for n, one in enumerate(came) if one.what in ("shown", "message")
                    and one.which == row.which and (not row.who or one.who == key)]
            return f"{row.which} was shown at {said(fits[0][1].at)}" if fits else ""
        fresh = [n for n, _ in fits if n not in taken]
        if fresh:
            mentioned.add(fresh[0])
            taken.add(fresh[0])
            return ""
        if fits:
            return f"it came only {times(len(fits))}"
        if same:
            mentioned.update(n for n, _ in same)
            return "; ".join(self._differs(row, one) for _, one in same)
        return f"{row.which} did not come. " + self._why_not(row, who, person, came)

    def _differs(self, row: Row, one: Came) -> str:
        """What is not as the row has it."""
        if row.at is not None and row.at != one.at:
            return f"it came at {said(one.at)}"
        effect = one.note.effect
        if effect is None and one.note.about is not None:  # an offer that was ready: its words are those of the arm
            effect = next((note.effect for note in reversed(self.reactions.notes)
                           if isinstance(note.effect, Arm) and note.effect.id == one.note.about.action_id), None)
        because = getattr(effect, "because", None)
        for detail in row.details:
            word, _, rest = detail.partition(" ")
            if word in ("as", "by"):
                form = effect.channel if isinstance(effect, Message) else getattr(effect, "format", "")
                if form != rest:
                    return f"it came as {form}"
            elif word in PARTS:
                verb, _, part = rest.partition(" ")
                text = words_of(effect, word)
                if (part.strip('"').lower() in text.lower()) is not (verb == "contains"):
                    return f"its {word} is {text[:300]!r}"
            elif word == "because":
                reason = because.reason if because is not None else ""
                if because is None or not reason.startswith(rest):
                    more = because.detail if because is not None else ""
                    return f"it was held because {reason}: {more}".rstrip(": ")
            elif word == "variant":
                if because is None or rest not in (because.variant, *because.variant.split("/")):
                    return f"it was variant {because.variant}" if because is not None else "it has no variants"
            elif isinstance(effect, CouponNews) and effect.what != word:
                return f"it was {effect.what}"
            elif isinstance(effect, Progress) and (
                    effect.step != rest if word == "step" else effect.what != word or rest not in ("", effect.goal)):
                return f"they came to {effect.step}" if effect.what == "step" else (
                    f"they reached the goal {effect.goal}" if effect.what == "goal" else
                    f"they {_MOVED.get(effect.what, effect.what)} at {said(one.at)}")
        return ""

    def _why_not(self, row: Row, who: str, person: Person | None, came: list[Came]) -> str:
        """Why something did not come, as well as it can be told."""
        key = person.id if person is not None else ""
        held = [one for one in came if one.what == "held" and one.which == row.which and one.who == key]
        if held and isinstance(held[0].note.effect, Hold):
            because = held[0].note.effect.because
            return f"It was held at {said(held[0].at)} because {because.reason}: {because.detail}".rstrip(": ")
        others = [f"{one.what} at {said(one.at)}" + (f" to {self._name(one.who)}" if one.who != key else "")
                  for one in came if one.which == row.which]
        reasons = Reasons(who, person, self.rules, self.clock, self.zero).why(row) if person is not None else ""
        if others and row.what not in ("enters", "leaves", "workflow"):
            return f"What came of it: {', '.join(others)}." + (" " + reasons if "Exit Intent" in reasons else "")
        if reasons:
            return reasons
        others = [str(one) for one in came if one.what == row.what]
        return "What came: " + ", ".join(others) if others else "Nothing of the kind came."


def _words(note: Note) -> tuple[str, str] | None:
    """The words of the row that expects this."""
    effect = note.effect
    if effect is None:
        armed = note.what == "shown" and note.about is not None and note.about.trigger
        return ("shown", note.about.campaign) if armed and note.about is not None else None
    if isinstance(effect, Message):
        return ("taken back" if effect.withdraws else "message"), effect.campaign
    if isinstance(effect, Move):
        return ("enters" if effect.entered else "leaves"), effect.segment
    if isinstance(effect, Disarm):
        return None if effect.because.reason == "shown" else ("taken back", effect.campaign)
    named = {Send: "shown", Arm: "armed", Hold: "held"}
    if isinstance(effect, (Send, Arm, Hold)):
        return named[type(effect)], effect.campaign
    if isinstance(effect, CouponNews):
        return "coupon", effect.pool
    return ("workflow", effect.workflow) if isinstance(effect, Progress) else None


def _begin(scenario: Scenario, rules: Rules) -> int:
    starts = next((str(given(row)) for row in scenario.rows if row.what == "given" and row.which == "starts"), BEGIN)
    moment = datetime.fromisoformat(starts).replace(tzinfo=ZoneInfo(rules.shop.timezone))
    return int(moment.timestamp() * 1000)


def _model(scenario: Scenario) -> Model | None:
    """A model that gives everybody the score of the story."""
    scores = [row for row in scenario.rows if row.what == "given" and row.which == "score"]
    if not scores:
        return None
    share = min(0.999, max(0.001, float(given(scores[0]))))
    quality = Quality(examples=1_000, positives=100, base_rate=0.1)
    return Model("propensity", 1, f"story-{share:g}", {}, intercept=math.log(share / (1 - share)), quality=quality)
