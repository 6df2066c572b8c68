"""Campaigns read naively: at every instant all of them are asked, over a plain list of what happened and what was said.

Nothing here counts, indexes or remembers what it found: each question goes through the whole past again
(`tests/models/person.py`, `tests/models/frequency.py`). It is written from docs/playbook.md alone.

Times are ms after T0. `Twin.notes` is what was decided: (when, what, campaign, why).
"""

import re
from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush
from typing import Any

from tests.models.conditions import PastEvent, to_ms
from tests.models.frequency import Decision, FrequencyModel, placement
from tests.models.person import ON_SITE, SESSION_TIMEOUT, T0, Exposure, ms_since_start

DAY = 86_400_000
REFILL_REASONS = ("campaign_cap", "group_cap", "contact_pressure")
"""They do not keep a slot from being filled again with the same words."""

LogEntry = tuple[int, str, str, str]


class DecisionModel(FrequencyModel):
    """One person in a shop, whom campaigns speak to."""

    def __init__(self, plain: dict[str, Any], who: str, zone: str) -> None:
        super().__init__(plain, who, zone)
        self.segments: dict[str, Any] = plain["segments"]
        self.durations = sorted(set(all_durations(plain)) | {SESSION_TIMEOUT})
        self.log: list[LogEntry] = []
        self.decisions: list[Decision] = []
        self.preloaded: Decision | None = None
        self.cancelled_campaign = ""
        """What the latest event took back from the browser."""
        self.confirmed: set[Decision] = set()
        self.bounced: set[Decision] = set()
        self.fired_in_session: set[tuple[int, str]] = set()
        """What came at its second, by visit: it does so once."""
        self.filled_slots: dict[tuple[int, str], bool] = {}
        """What fills a slot, by visit; whether it is known with which words."""
        self.deferred: set[tuple[int, str]] = set()
        self.last_states: dict[str, str] = {}
        """The last word about each campaign."""
        self.timer_reasons: set[tuple[int, str, str]] = set()
        """Why what waits for its second did not come."""
        self.check_times: list[int] = []
        self.days_scheduled = 0

    # -- time --------------------------------------------------------------------------------------------------

    def apply(self, at: int, name: str, decision: Decision | None = None, /, **properties: Any) -> None:
        """Something happens; what was said that it is `about`, if it is."""
        self.advance(at)
        self.now = at
        self.past_events.append(PastEvent(name, properties, at))
        self.schedule_after(at)
        self.evaluate(self.past_events[-1], decision)

    def advance(self, until: int) -> None:
        """Look at every instant at which time alone may change anything."""
        self.schedule_clock_times(until)
        while self.check_times and self.check_times[0] <= until:
            at = heappop(self.check_times)
            if at > self.now and self.past_events:
                self.now = at
                self.evaluate(None, None)
        self.now = until

    def schedule_after(self, at: int) -> None:
        for span in self.durations:
            heappush(self.check_times, at + span)

    def schedule_clock_times(self, until: int) -> None:
        """Midnights, the ends of quiet hours, and the dates of campaigns."""
        if not self.days_scheduled:
            for one in self.campaigns.values():
                for field in ("start", "end"):
                    if field in one:
                        heappush(self.check_times, self.date(one[field]))
        for number in range(self.days_scheduled, until // DAY + 3):
            day = datetime.fromtimestamp((T0 + number * DAY) / 1000, self.zone)
            for hour in (0, int(self.shop.get("quiet_hours", {"end": "08:00"})["end"][:2])):
                heappush(self.check_times, ms_since_start(day.replace(hour=hour, minute=0, second=0, microsecond=0)))
        self.days_scheduled = until // DAY + 3

    # -- one instant -------------------------------------------------------------------------------------------

    def evaluate(self, event: PastEvent | None, decision: Decision | None) -> None:
        if event is not None:
            self.cancelled_campaign = ""
            self.apply_feedback(event, decision)
            self.cancel_on_event(event)
        moves = self.update_segments()
        come = [
            name
            for name, one in self.campaigns.items()
            if self.is_triggered(one["trigger"], event, moves) and self.is_eligible(one)
        ]
        for name in [name for name in come if "delay" in self.campaigns[name]["trigger"]]:
            come.remove(name)
            self.defer(name, self.now + to_ms(self.campaigns[name]["trigger"]["delay"]))
        proposed = dict.fromkeys(come, "")
        for name in [name for due, name in self.deferred if due <= self.now]:
            proposed[name] = "" if self.is_eligible(self.campaigns[name]) else "not_eligible"
        self.deferred = {one for one in self.deferred if one[0] > self.now}
        for name, reason in self.update_preload(event).items():
            proposed.setdefault(name, reason)
        self.pending = [one for one in self.pending if one.until > self.now]
        self.decide(proposed)
        before = -1
        while before != len(self.log):  # what was said may have used up what was left for the offer held ready
            before = len(self.log)
            self.update_preload(None)
        for name, one in self.campaigns.items():
            if "seconds_on_site" in one["trigger"]:
                self.timer_reasons.add((self.now, name, self.suppression_reason(one, name, set())))

    def update_segments(self) -> dict[str, bool]:
        """Who belongs where is asked anew; what has changed."""
        before, self.segments_in = self.segments_in, set()
        for name, one in self.segments.items():
            if self.is_true(one["when"]):
                self.segments_in.add(name)
        changed = {name: name in self.segments_in for name in before ^ self.segments_in}
        self.log += [(self.now, "entered" if entered else "left", name, "") for name, entered in changed.items()]
        return changed

    def is_triggered(self, trigger: dict[str, Any], event: PastEvent | None, changes: dict[str, bool]) -> bool:
        if "event" in trigger:
            return (
                event is not None
                and event.name == trigger["event"]
                and all(event.properties.get(name) == value for name, value in trigger.get("properties", {}).items())
            )
        if "segment" in trigger:
            return changes.get(trigger["segment"], False)
        if "exited_segment" in trigger:
            return not changes.get(trigger["exited_segment"], True)
        visit = self.session()
        return (
            "seconds_on_site" in trigger
            and visit is not None
            and (self.now >= visit[1] + trigger["seconds_on_site"] * 1000)
        )

    def defer(self, name: str, until: int) -> None:
        self.deferred.add((until, name))
        heappush(self.check_times, until)

    # -- saying ------------------------------------------------------------------------------------------------

    def decide(self, candidates: dict[str, str]) -> None:
        won: set[str] = set()
        visit = self.session()
        for name, one in self.campaigns.items():  # by priority, then by name
            if name not in candidates or (visit and (visit[0], name) in self.fired_in_session):
                continue
            reason, side = candidates[name] or self.suppression_reason(one, name, won), self.variant(one, name)
            if reason in REFILL_REASONS and visit and self.filled_slots.get((visit[0], name)):
                reason = ""
            if not reason and (until := self.quiet_until(one)):
                self.defer(name, until)
                reason = "quiet_hours"
            if not reason and side.endswith("holdout"):
                reason = side
            if reason:
                if "seconds_on_site" in one["trigger"]:
                    self.timer_reasons.add((self.now, name, reason))
                else:
                    self.suppress(name, reason)
                continue
            won |= {placement(one), f"group {one['group']}"} if "group" in one else {placement(one)}
            if one["format"] == "slot":
                self.pending = [
                    other for other in self.pending if placement(self.campaigns[other.campaign]) != placement(one)
                ]
            said = Decision(self.now, "send", name, self.now + valid_for(one))
            self.pending.append(said)
            self.record(said, side)
            if "seconds_on_site" in one["trigger"] and visit:
                self.fired_in_session.add((visit[0], name))

    def suppress(self, name: str, reason: str) -> None:
        """Said once, until something else is said of this campaign."""
        if self.last_states.get(name) != "suppress " + reason:
            self.last_states[name] = "suppress " + reason
            self.log.append((self.now, "suppress", name, reason))

    def record(self, decision: Decision, variant: str) -> None:
        self.decisions.append(decision)
        self.last_states[decision.campaign] = decision.kind
        self.log.append((self.now, decision.kind, decision.campaign, variant))
        self.schedule_after(self.now)

    def update_preload(self, event: PastEvent | None) -> dict[str, str]:
        """See to the offer that the browser holds ready; what is to be said of others at an exit."""
        had, visit = self.preloaded, self.session()
        if visit is None:
            if had is not None:
                self.cancel("the visit is over")
            return {}
        if had is not None and event is not None:
            if event.name in self.campaigns[had.campaign].get("cancel_on", ()):
                self.cancelled_campaign = had.campaign
            if self.cancelled_campaign == had.campaign or event.name in ("Order Completed", "Consent Updated"):
                self.last_states[had.campaign] = "cancel"
                self.cancel("no longer holds")
        proposed, silent = dict[str, str](), dict[str, str]()
        best = ""
        for name, one in self.campaigns.items():
            if "exit_intent" in one["trigger"] and name != self.cancelled_campaign and self.is_eligible(one):
                reason = self.suppression_reason(one, name, set())
                if reason == "already_reserved":
                    reason = ""
                side = self.variant(one, name)
                if not reason and side.endswith("holdout"):
                    proposed[name] = side
                elif not reason:
                    best = name
                    break
                elif not silent:
                    silent[name] = reason
        self.preload(best)
        if event is None or event.name != "Exit Intent":
            return {}
        return proposed | (silent if had is None and not best else {})

    def preload(self, best: str) -> None:
        if self.preloaded is not None and self.preloaded.campaign != best:
            self.last_states[self.preloaded.campaign] = "cancel"
            self.cancel("replaced" if best else "no longer holds")
        if not best:
            return
        span = valid_for(self.campaigns[best])
        if self.preloaded is None or self.now >= self.preloaded.until - renewal_margin(span):
            self.preloaded = Decision(self.now, "preload", best, self.now + span)
            self.record(self.preloaded, self.variant(self.campaigns[best], best))

    def cancel(self, reason: str) -> None:
        assert self.preloaded is not None
        self.log.append((self.now, "cancel", self.preloaded.campaign, reason))
        self.preloaded = None

    # -- what became of it -------------------------------------------------------------------------------------

    def apply_feedback(self, event: PastEvent, decision: Decision | None) -> None:
        """What the world says became of what was said."""
        if event.name == "Consent Updated":
            for one in [one for one in self.pending if self.campaigns[one.campaign]["format"] not in ON_SITE]:
                if not self.allows(self.campaigns[one.campaign]):
                    self.withdraw(one, "consent")
        if decision is None:
            return
        visit, name = self.session(), decision.campaign
        armed = self.preloaded is not None and self.preloaded.campaign == name
        if event.name in ("Offer Shown", "Message Delivered"):
            if decision in self.confirmed:
                return
            self.confirmed.add(decision)
            known = decision in self.pending
            self.pending = [one for one in self.pending if one != decision]
            self.last_states[name] = "shown"
            filled = visit is not None and (visit[0], name) in self.filled_slots
            if self.campaigns[name]["format"] == "slot" and visit is not None:
                self.filled_slots[visit[0], name] = known or self.filled_slots.get((visit[0], name), False)
            if not filled:
                self.exposures.append(Exposure(self.now, name, None if visit is None else visit[0]))
            if self.campaigns[name]["format"] in ("popup", "banner", "bar"):
                if armed:
                    self.preloaded = None
                if visit is not None:
                    self.log.append((self.now, "cancel", name, "shown"))
        elif event.name == "Offer Dismissed" and visit is not None:
            self.dismissed.add((visit[0], name))
            if armed:
                self.cancel("dismissed")
        elif event.name == "Offer Suppressed":
            self.pending = [one for one in self.pending if one != decision]
            if self.preloaded == decision:
                self.preloaded = None
        elif event.name in ("Message Suppressed", "Message Bounced"):
            first = decision in self.pending
            if event.name == "Message Bounced":
                if decision in self.bounced:
                    return
                self.bounced.add(decision)
                self.confirmed.add(decision)
                self.bounced_addresses.add(self.trait("email"))
                first = True
            if first:
                self.pending = [one for one in self.pending if one != decision]
                self.last_states[name] = (
                    "suppress suppressed" if event.name == "Message Suppressed" else "suppress bounced"
                )

    def cancel_on_event(self, event: PastEvent) -> None:
        for one in list(self.pending):
            campaign = self.campaigns[one.campaign]
            if event.name in campaign.get("cancel_on", ()):
                if campaign["format"] in ON_SITE:
                    self.pending.remove(one)
                    self.last_states[one.campaign] = "cancel"
                    self.log.append((self.now, "cancel", one.campaign, ""))
                else:
                    self.withdraw(one, f'event "{event.name}"')

    def withdraw(self, one: Decision, reason: str) -> None:
        self.pending.remove(one)
        self.last_states[one.campaign] = "suppress " + reason
        self.log.append((self.now, "withdraw", one.campaign, reason))


def valid_for(one: dict[str, Any]) -> int:
    """How long it may be shown, or sent."""
    default = "30m" if "exit_intent" in one["trigger"] else "30s" if one["format"] in ON_SITE else "1d"
    return to_ms(one.get("valid_for", default))


def renewal_margin(span: int) -> int:
    """What the browser holds ready is renewed a minute before its end, or a tenth of its time."""
    return min(60_000, span // 10)


def all_durations(plain: Any) -> Iterator[int]:
    """Every span of time that a playbook speaks of."""
    if isinstance(plain, dict):
        for word, what in plain.items():
            if word in ("seconds_on_site", "seconds_at_least"):
                yield what * 1000
            yield from all_durations(what)
        if "format" in plain:
            yield from (valid_for(plain), valid_for(plain) - renewal_margin(valid_for(plain)))
    elif isinstance(plain, list):
        for one in plain:
            yield from all_durations(one)
    elif isinstance(plain, str) and re.fullmatch(r"\d+[smhd]", plain):
        yield to_ms(plain)
