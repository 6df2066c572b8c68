"""The counts of a backtest. They add up over people and processes, and contain no ids of people.

>>> totals = Totals()
>>> totals.add(BacktestResult(people=1, coupons={"a": {"reserved": 2}}))
>>> totals.add(BacktestResult(people=2, coupons={"b": {"expired": 1}}))
>>> totals.result().people, totals.result().coupons
(3, {'a': {'reserved': 2}, 'b': {'expired': 1}})

A campaign reached a person if it was sent to them, or shown to them after it was preloaded.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from domain.action import (
    Cancel,
    CouponEvent,
    Effect,
    Message,
    Outcome,
    Preload,
    SegmentChange,
    Send,
    Suppress,
    WorkflowProgress,
)
from flows.simulation.reactions import TimelineEntry
from flows.simulation.virtual_time import resolve_person
from state.local_time import zone_info
from state.person.model import Person

Counts = dict[str, int]


class Suppressions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a campaign was suppressed for one reason, and for how many people."""

    times: int = 0
    people: int = 0


class LiveComparison(msgspec.Struct, frozen=True, omit_defaults=True):
    """Live decisions in the same period: people, decisions, and people who saw the campaign.

    `in_both` counts people reached live and in the backtest, `backtest_only` and `live_only` the others.
    """

    people: int = 0
    times: int = 0
    shown_people: int = 0
    in_both: int = 0
    backtest_only: int = 0
    live_only: int = 0


class CampaignReach(msgspec.Struct, frozen=True, omit_defaults=True):
    """The counts of one campaign.

    people: reached at least once; per_day: contacts by channel and day; preloaded: preloads for an exit intent;
    overlap: its people whom another campaign reached too; lost_to: campaigns that won the same placement;
    dismissed, clicked: recorded reactions to the same decision.
    """

    people: int = 0
    per_day: dict[str, Counts] = {}
    variants: Counts = {}
    preloaded: int = 0
    preloaded_people: int = 0
    cancelled: int = 0
    suppressed: dict[str, Suppressions] = {}
    overlap: Counts = {}
    lost_to: Counts = {}
    dismissed: int = 0
    clicked: int = 0
    goals: dict[str, "GoalCounts"] = {}
    live: LiveComparison = LiveComparison()


class GoalCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Goals of one variant: reached, missed, and pending at the end.

    `value` is the sum over reached goals in hundredths: of a number, or of the minor unit of an amount.
    """

    reached: int = 0
    missed: int = 0
    value: int = 0
    pending: int = 0


class SegmentSize(msgspec.Struct, frozen=True, omit_defaults=True):
    """A segment: entries, exits, people who entered at least once, and size at the end."""

    entered: int = 0
    exited: int = 0
    unique_entered: int = 0
    size: int = 0


class Eligibility(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a campaign was triggered, how often its conditions were true then, and which conditions failed."""

    triggered: int = 0
    eligible: int = 0
    failed_conditions: Counts = {}


class TriggerPaths(msgspec.Struct, frozen=True, omit_defaults=True):
    """The trigger of a campaign as text, the workflows that send it, and the segments and events that lead to it."""

    trigger: str = ""
    workflows: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    events: tuple[str, ...] = ()


class BacktestResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """All counts of a backtest.

    people: active in the period; population: these, and others with a contact or with exceeded contact pressure (the
    base of percentages); reached: people with a contact; contacts: sends, shown preloads and messages;
    people_by_contacts: people by number of contacts (10 means 10 or more); most_contacted: contacts of the person with
    the most, their maximum in one day, and their contacts by campaign; pressured: people by reason (PRESSURE_REASONS),
    pressured_people for any reason; live_decisions: recorded decisions in the same period; failed_conditions: by
    segment, how many people each condition kept out, of those who never entered.
    """

    events: int = 0
    backfill_events: int = 0
    people: int = 0
    population: int = 0
    reached: int = 0
    contacts: int = 0
    timers: int = 0
    people_by_contacts: Counts = {}
    most_contacted: tuple[int, int, tuple[tuple[str, int], ...]] = (0, 0, ())
    pressured: Counts = {}
    pressured_people: int = 0
    campaigns: dict[str, CampaignReach] = {}
    segments: dict[str, SegmentSize] = {}
    workflows: dict[str, Counts] = {}
    coupons: dict[str, Counts] = {}
    dead_letters: Counts = {}
    skipped_reactions: int = 0
    live_decisions: int = 0
    live_reached: int = 0
    live_contacts: int = 0
    eligibility: dict[str, Eligibility] = {}
    failed_conditions: dict[str, Counts] = {}


class ReportHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a backtest covers; times in ms since 1970. `model` is "recorded", "none" or a hash.

    `models` has all hashes, `trigger_paths` is empty for very large playbooks, `value_properties` has the
    `value_property` of each campaign's goal.
    """

    playbook: str
    version: str
    start: int
    end: int
    timezone: str
    currency: str
    models: tuple[str, ...] = ()
    model: str = ""
    reactions: str = "assumed"
    backfilled: bool = True
    campaigns: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    trigger_paths: dict[str, TriggerPaths] = {}
    value_properties: dict[str, str] = {}


class BacktestReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The complete report, as `--json` writes it."""

    header: ReportHeader
    result: BacktestResult
    v: int = 1


PRESSURE_REASONS = {
    "frequency_cap": "a frequency cap of the shop or a group, or the contact pressure limit, suppressed a message",
    "per_day": "received at least {many} contacts in one day (without slots, webhooks and files)",
    "dismissed": "received a contact after dismissing an offer in the same session",
}
"""Reasons why contact pressure counts as exceeded, with their meaning."""

MANY_CONTACTS = 4
"""Contacts in one day of the shop's time zone that are too many."""

PRESSURE_SUPPRESSIONS = frozenset({"shop_cap", "group_cap", "contact_pressure"})
"""Suppression reasons that mean exceeded contact pressure."""

encode_report = msgspec.json.Encoder(order="sorted").encode
"""Encode a report canonically: equal reports give equal bytes."""

decode_report = msgspec.json.Decoder(BacktestReport).decode


class Totals:
    """Sums results: numbers add up, tables by key, and of `most_contacted` the maximum stays.

    The sum does not depend on the order.
    """

    def __init__(self) -> None:
        self._total: dict[str, Any] = {}

    def add(self, result: BacktestResult) -> None:
        """Add a result."""
        _add_into(self._total, msgspec.to_builtins(result))

    def result(self) -> BacktestResult:
        """The sum."""
        return msgspec.convert(self._total, BacktestResult)


def _add_into(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add_into(total.setdefault(name, {}), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value
        else:
            total[name] = max(total.get(name, value), value)


UNOBTRUSIVE_CHANNELS = ("slot", "webhook", "file")
"""Channels that do not count towards contact pressure: part of the page, or not addressed to the person."""


class Period:
    """A period in ms (end exclusive), with the days of a time zone."""

    def __init__(self, start: int, end: int, timezone: str) -> None:
        self.start, self.end = start, end
        zone = zone_info(timezone)

        @lru_cache(4096)
        def day(quarter: int) -> str:  # in every zone, days start at a quarter of an hour
            return datetime.fromtimestamp(quarter * 900, zone).strftime("%Y-%m-%d")

        self._day = day

    def __contains__(self, at: int) -> bool:
        return self.start <= at < self.end

    def day(self, at: int) -> str:
        """The day (YYYY-MM-DD) of a time in ms."""
        return self._day(at // 900_000)


class _CampaignCounts:
    """Mutable counts of one campaign, by person."""

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        self.per_day: dict[str, Counter[str]] = defaultdict(Counter)
        self.preloaded: Counter[str] = Counter()
        self.suppressed: dict[str, Counter[str]] = defaultdict(Counter)
        self.goals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.variants: Counter[str] = Counter()
        self.lost_to: Counter[str] = Counter()
        self.cancelled = self.dismissed = self.clicked = 0
        self.live: Counter[str] = Counter()
        self.live_shown: set[str] = set()

    def reach(self, overlap: Counts) -> CampaignReach:
        reached, live = self.reached.keys(), self.live.keys()
        return CampaignReach(
            people=len(reached),
            per_day={channel: _sorted(days) for channel, days in sorted(self.per_day.items())},
            variants=_sorted(self.variants),
            preloaded=self.preloaded.total(),
            preloaded_people=len(self.preloaded),
            cancelled=self.cancelled,
            suppressed={
                reason: Suppressions(people.total(), len(people)) for reason, people in sorted(self.suppressed.items())
            },
            overlap=overlap,
            lost_to=_sorted(self.lost_to),
            dismissed=self.dismissed,
            clicked=self.clicked,
            goals={variant: GoalCounts(*numbers) for variant, numbers in sorted(self.goals.items())},
            live=LiveComparison(
                people=len(live),
                times=self.live.total(),
                shown_people=len(self.live_shown),
                in_both=len(reached & live),
                backtest_only=len(reached - live),
                live_only=len(live - reached),
            ),
        )


class BacktestCounter:
    """Counts the timeline entries of one identity cluster."""

    def __init__(self, people: Mapping[str, Person], period: Period, names: Collection[str] = ()) -> None:
        self._people, self._period, self._names = people, period, names
        self._campaigns: dict[str, _CampaignCounts] = defaultdict(_CampaignCounts)
        self._contacts: dict[str, Counter[str]] = defaultdict(Counter)
        self._contacts_per_day: dict[str, Counter[str]] = defaultdict(Counter)
        self._intrusive: Counter[tuple[str, str]] = Counter()
        """Contacts of channels that count towards contact pressure, by person and day."""
        self._pressured: dict[str, set[str]] = defaultdict(set)
        self._dismissed: set[tuple[str, str]] = set()
        self._segment_changes: dict[str, tuple[Counter[str], Counter[str]]] = defaultdict(
            lambda: (Counter(), Counter())
        )
        self._workflows: dict[str, Counter[str]] = defaultdict(Counter)
        self._coupons: dict[str, Counter[str]] = defaultdict(Counter)
        self._live_contacts: Counter[str] = Counter()
        self._live_decisions = 0

    # -- backtest ----------------------------------------------------------------------------------------------

    def add(self, entries: Iterable[TimelineEntry]) -> None:
        """Count timeline entries."""
        for entry in entries:
            if entry.at not in self._period:
                continue
            person, delivery = resolve_person(entry.person, self._people), entry.delivery
            if entry.effect is not None:
                self._count_effect(person, entry, entry.effect)
            elif entry.kind == "dismissed":
                self._dismissed.add((person, entry.session))
                if delivery is not None:
                    self._campaigns[delivery.campaign].dismissed += 1
            elif delivery is not None and entry.kind == "clicked":
                self._campaigns[delivery.campaign].clicked += 1
            elif delivery is not None and entry.kind == "shown" and delivery.trigger:
                self._count_contact(person, entry, delivery.campaign, delivery.channel, delivery.variant)

    def _count_effect(self, person: str, entry: TimelineEntry, effect: Effect) -> None:
        if isinstance(effect, SegmentChange):
            self._segment_changes[effect.segment][0 if effect.entered else 1][person] += 1
        elif isinstance(effect, Send):
            self._count_contact(person, entry, effect.campaign, effect.format, effect.because.variant)
        elif isinstance(effect, Message) and not effect.withdrawn_id:
            self._count_contact(person, entry, effect.campaign, effect.channel, effect.variant)
        elif isinstance(effect, Preload):
            self._campaigns[effect.campaign].preloaded[person] += 1
        elif isinstance(effect, Suppress):
            self._count_suppressed(person, effect)
        elif isinstance(effect, Cancel | Message):
            if not isinstance(effect, Cancel) or effect.because.reason != "shown":
                self._campaigns[effect.campaign].cancelled += 1
        elif isinstance(effect, WorkflowProgress):
            key = effect.describe if effect.transition in ("step", "goal") else effect.transition
            self._workflows[effect.workflow][key] += 1
        elif isinstance(effect, CouponEvent):
            self._coupons[effect.pool][effect.status] += 1
        elif isinstance(effect, Outcome) and effect.kind == "goal":
            numbers = self._campaigns[effect.campaign].goals[effect.variant]
            numbers[0 if effect.label else 1] += 1
            numbers[2] += round(effect.value * 100)

    def _count_contact(self, person: str, entry: TimelineEntry, campaign: str, channel: str, variant: str) -> None:
        counts, day = self._campaigns[campaign], self._period.day(entry.at)
        counts.reached[person] += 1
        counts.per_day[channel][day] += 1
        counts.variants[variant] += 1
        self._contacts[person][campaign] += 1
        self._contacts_per_day[person][day] += 1
        if channel in UNOBTRUSIVE_CHANNELS:
            return
        self._intrusive[person, day] += 1
        if self._intrusive[person, day] >= MANY_CONTACTS:
            self._pressured["per_day"].add(person)
        if entry.session and (person, entry.session) in self._dismissed:
            self._pressured["dismissed"].add(person)

    def _count_suppressed(self, person: str, suppress: Suppress) -> None:
        reason = suppress.because.reason
        counts = self._campaigns[suppress.campaign]
        counts.suppressed[reason][person] += 1
        if reason in PRESSURE_SUPPRESSIONS:
            self._pressured["frequency_cap"].add(person)
        winner = suppress.because.detail.partition(" ")[0]
        if winner != suppress.campaign and winner in self._names:
            counts.lost_to[winner] += 1

    # -- live --------------------------------------------------------------------------------------------------

    def add_live(self, effects: Iterable[Effect], shown: Mapping[str, str]) -> None:
        """Count live decisions; `shown` has the person who saw a decision, by its id."""
        for effect in effects:
            if not isinstance(effect, Send | Preload | Suppress | Cancel | Message) or effect.at not in self._period:
                continue
            self._live_decisions += 1
            seen_by = shown.get(effect.id)
            reached: str | None = None
            if isinstance(effect, Send) or (isinstance(effect, Message) and not effect.withdrawn_id):
                reached = effect.person
            elif isinstance(effect, Preload):
                reached = seen_by
            if reached is not None:
                person = resolve_person(reached, self._people)
                self._campaigns[effect.campaign].live[person] += 1
                self._live_contacts[person] += 1
            if seen_by is not None:
                self._campaigns[effect.campaign].live_shown.add(resolve_person(seen_by, self._people))

    # -- result ------------------------------------------------------------------------------------------------

    def result(self, active_ids: Collection[str]) -> BacktestResult:
        """Return the counts; `active_ids` are the ids with events in the period."""
        people = {
            key: person for key, person in self._people.items() if not person.merged_into and key[:2] in ("u:", "a:")
        }
        sizes = Counter(name for person in people.values() for name in person.segments)
        for person in people.values():
            for run in person.runs.values():
                self._workflows[run.workflow]["active"] += 1
            for goal in person.pending_goals:
                if goal.opened_at in self._period:
                    self._campaigns[goal.campaign].goals[goal.variant][3] += 1
        people_by_contacts = Counter(min(contacts.total(), 10) for contacts in self._contacts.values())
        overlap: dict[str, Counter[str]] = defaultdict(Counter)
        for contacts in self._contacts.values():
            for name in contacts:
                overlap[name].update(other for other in contacts if other != name)
        active = {resolve_person(key, self._people) for key in active_ids}
        return BacktestResult(
            people=len(active),
            population=len(active.union(self._contacts, *self._pressured.values())),
            reached=len(self._contacts),
            contacts=sum(contacts.total() for contacts in self._contacts.values()),
            people_by_contacts={str(n): count for n, count in sorted(people_by_contacts.items())},
            most_contacted=max(
                (
                    (contacts.total(), max(self._contacts_per_day[key].values()), tuple(sorted(contacts.items())))
                    for key, contacts in self._contacts.items()
                ),
                default=(0, 0, ()),
            ),
            pressured={reason: len(keys) for reason, keys in sorted(self._pressured.items())},
            pressured_people=len(set().union(*self._pressured.values())),
            campaigns={name: counts.reach(_sorted(overlap[name])) for name, counts in sorted(self._campaigns.items())},
            segments={
                name: SegmentSize(
                    self._segment_changes[name][0].total(),
                    self._segment_changes[name][1].total(),
                    len(self._segment_changes[name][0]),
                    sizes[name],
                )
                for name in sorted({*self._segment_changes, *sizes})
            },
            workflows={name: _sorted(counts) for name, counts in sorted(self._workflows.items())},
            coupons={name: _sorted(counts) for name, counts in sorted(self._coupons.items())},
            live_decisions=self._live_decisions,
            live_reached=len(self._live_contacts),
            live_contacts=self._live_contacts.total(),
        )


def _sorted(counts: Mapping[str, int]) -> Counts:
    return dict(sorted(counts.items()))


def entries_for(entries: Sequence[TimelineEntry], members: Collection[str]) -> list[TimelineEntry]:
    """The entries of these ids, in time order."""
    return sorted((entry for entry in entries if entry.person in members), key=lambda entry: entry.at)
