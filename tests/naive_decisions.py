"""Campaigns read naively: at every instant all of them are asked, over a plain list of what happened and what was said.

Nothing here counts, indexes or remembers what it found: each question goes through the whole past again
(`tests/naive_person.py`, `tests/naive_limits.py`). It is written from docs/playbook.md alone.

Times are ms after T0. `Twin.notes` is what was decided: (when, what, campaign, why).
"""

import re
from collections.abc import Iterator
from datetime import datetime
from heapq import heappop, heappush
from typing import Any

from tests.naive import Happened, ms
from tests.naive_limits import Limited, Said, place
from tests.naive_person import ON_SITE, T0, VISIT, Shown, clock

DAY = 86_400_000
REFILL = ("limit", "group_limit", "pressure")
"""They do not keep a slot from being filled again with the same words."""

Note = tuple[int, str, str, str]


class Twin(Limited):
    """One person in a shop, whom campaigns speak to."""

    def __init__(self, plain: dict[str, Any], who: str, zone: str) -> None:
        super().__init__(plain, who, zone)
        self.segments: dict[str, Any] = plain["segments"]
        self.spans = sorted(set(spans(plain)) | {VISIT})
        self.notes: list[Note] = []
        self.said: list[Said] = []
        self.armed: Said | None = None
        self.away = ""
        """What the latest event took back from the browser."""
        self.reported: set[Said] = set()
        self.bounced: set[Said] = set()
        self.sent: set[tuple[int, str]] = set()
        """What came at its second, by visit: it does so once."""
        self.filled: dict[tuple[int, str], bool] = {}
        """What fills a slot, by visit; whether it is known with which words."""
        self.later: set[tuple[int, str]] = set()
        self.words: dict[str, str] = {}
        """The last word about each campaign."""
        self.reasons: set[tuple[int, str, str]] = set()
        """Why what waits for its second did not come."""
        self.turns: list[int] = []
        self.clocked = 0

    # -- time --------------------------------------------------------------------------------------------------

    def happens(self, at: int, name: str, about: Said | None = None, /, **properties: Any) -> None:
        """Something happens; what was said that it is `about`, if it is."""
        self.passes(at)
        self.now = at
        self.past.append(Happened(name, properties, at))
        self.turn_after(at)
        self.look(self.past[-1], about)

    def passes(self, until: int) -> None:
        """Look at every instant at which time alone may change anything."""
        self.clocks(until)
        while self.turns and self.turns[0] <= until:
            at = heappop(self.turns)
            if at > self.now and self.past:
                self.now = at
                self.look(None, None)
        self.now = until

    def turn_after(self, at: int) -> None:
        for span in self.spans:
            heappush(self.turns, at + span)

    def clocks(self, until: int) -> None:
        """Midnights, the ends of quiet hours, and the dates of campaigns."""
        if not self.clocked:
            for one in self.campaigns.values():
                for field in ("start", "end"):
                    if field in one:
                        heappush(self.turns, self.date(one[field]))
        for number in range(self.clocked, until // DAY + 3):
            day = datetime.fromtimestamp((T0 + number * DAY) / 1000, self.zone)
            for hour in (0, int(self.shop.get("quiet_hours", {"end": "08:00"})["end"][:2])):
                heappush(self.turns, clock(day.replace(hour=hour, minute=0, second=0, microsecond=0)))
        self.clocked = until // DAY + 3

    # -- one instant -------------------------------------------------------------------------------------------

    def look(self, event: Happened | None, about: Said | None) -> None:
        if event is not None:
            self.away = ""
            self.told(event, about)
            self.take_back(event)
        moves = self.moved()
        come = [name for name, one in self.campaigns.items() if self.occasion(one["trigger"], event, moves)
                and self.holds_for(one)]
        for name in [name for name in come if "delay" in self.campaigns[name]["trigger"]]:
            come.remove(name)
            self.put_off(name, self.now + ms(self.campaigns[name]["trigger"]["delay"]))
        proposed = dict.fromkeys(come, "")
        for name in [name for due, name in self.later if due <= self.now]:
            proposed[name] = "" if self.holds_for(self.campaigns[name]) else "audience"
        self.later = {one for one in self.later if one[0] > self.now}
        for name, reason in self.arm(event).items():
            proposed.setdefault(name, reason)
        self.waiting = [one for one in self.waiting if one.until > self.now]
        self.decide(proposed)
        before = -1
        while before != len(self.notes):  # what was said may have used up what was left for the offer held ready
            before = len(self.notes)
            self.arm(None)
        for name, one in self.campaigns.items():
            if "seconds_on_site" in one["trigger"]:
                self.reasons.add((self.now, name, self.why_not(one, name, set())))

    def moved(self) -> dict[str, bool]:
        """Who belongs where is asked anew; what has changed."""
        before, self.member = self.member, set()
        for name, one in self.segments.items():
            if self.holds(one["when"]):
                self.member.add(name)
        changed = {name: name in self.member for name in before ^ self.member}
        self.notes += [(self.now, "entered" if entered else "left", name, "") for name, entered in changed.items()]
        return changed

    def occasion(self, trigger: dict[str, Any], event: Happened | None, moves: dict[str, bool]) -> bool:
        if "event" in trigger:
            return event is not None and event.name == trigger["event"] and all(
                event.properties.get(name) == value for name, value in trigger.get("properties", {}).items())
        if "segment" in trigger:
            return moves.get(trigger["segment"], False)
        if "left_segment" in trigger:
            return not moves.get(trigger["left_segment"], True)
        visit = self.visit()
        return "seconds_on_site" in trigger and visit is not None and (
            self.now >= visit[1] + trigger["seconds_on_site"] * 1000)

    def put_off(self, name: str, until: int) -> None:
        self.later.add((until, name))
        heappush(self.turns, until)

    # -- saying ------------------------------------------------------------------------------------------------

    def decide(self, proposed: dict[str, str]) -> None:
        won: set[str] = set()
        visit = self.visit()
        for name, one in self.campaigns.items():  # by priority, then by name
            if name not in proposed or (visit and (visit[0], name) in self.sent):
                continue
            reason, side = proposed[name] or self.why_not(one, name, won), self.side(one, name)
            if reason in REFILL and visit and self.filled.get((visit[0], name)):
                reason = ""
            if not reason and (until := self.quiet_until(one)):
                self.put_off(name, until)
                reason = "quiet_hours"
            if not reason and side.endswith("holdout"):
                reason = side
            if reason:
                if "seconds_on_site" in one["trigger"]:
                    self.reasons.add((self.now, name, reason))
                else:
                    self.hold(name, reason)
                continue
            won |= {place(one), f"group {one['group']}"} if "group" in one else {place(one)}
            if one["format"] == "slot":
                self.waiting = [other for other in self.waiting if place(self.campaigns[other.campaign]) != place(one)]
            said = Said(self.now, "send", name, self.now + valid(one))
            self.waiting.append(said)
            self.speak(said, side)
            if "seconds_on_site" in one["trigger"] and visit:
                self.sent.add((visit[0], name))

    def hold(self, name: str, reason: str) -> None:
        """Said once, until something else is said of this campaign."""
        if self.words.get(name) != "hold " + reason:
            self.words[name] = "hold " + reason
            self.notes.append((self.now, "hold", name, reason))

    def speak(self, said: Said, side: str) -> None:
        self.said.append(said)
        self.words[said.campaign] = said.what
        self.notes.append((self.now, said.what, said.campaign, side))
        self.turn_after(self.now)

    def arm(self, event: Happened | None) -> dict[str, str]:
        """See to the offer that the browser holds ready; what is to be said of others at an exit."""
        had, visit = self.armed, self.visit()
        if visit is None:
            if had is not None:
                self.disarm("the visit is over")
            return {}
        if had is not None and event is not None:
            if event.name in self.campaigns[had.campaign].get("disarm_on", ()):
                self.away = had.campaign
            if self.away == had.campaign or event.name in ("Order Completed", "Consent Updated"):
                self.words[had.campaign] = "disarm"
                self.disarm("no longer holds")
        proposed, silent = dict[str, str](), dict[str, str]()
        best = ""
        for name, one in self.campaigns.items():
            if "exit_intent" in one["trigger"] and name != self.away and self.holds_for(one):
                reason = self.why_not(one, name, set())
                if reason == "already_reserved":
                    reason = ""
                side = self.side(one, name)
                if not reason and side.endswith("holdout"):
                    proposed[name] = side
                elif not reason:
                    best = name
                    break
                elif not silent:
                    silent[name] = reason
        self.ready(best)
        if event is None or event.name != "Exit Intent":
            return {}
        return proposed | (silent if had is None and not best else {})

    def ready(self, best: str) -> None:
        if self.armed is not None and self.armed.campaign != best:
            self.words[self.armed.campaign] = "disarm"
            self.disarm("replaced" if best else "no longer holds")
        if not best:
            return
        span = valid(self.campaigns[best])
        if self.armed is None or self.now >= self.armed.until - margin(span):
            self.armed = Said(self.now, "arm", best, self.now + span)
            self.speak(self.armed, self.side(self.campaigns[best], best))

    def disarm(self, reason: str) -> None:
        assert self.armed is not None
        self.notes.append((self.now, "disarm", self.armed.campaign, reason))
        self.armed = None

    # -- what became of it -------------------------------------------------------------------------------------

    def told(self, event: Happened, about: Said | None) -> None:
        """What the world says became of what was said."""
        if event.name == "Consent Updated":
            for one in [one for one in self.waiting if self.campaigns[one.campaign]["format"] not in ON_SITE]:
                if not self.consents(self.campaigns[one.campaign]):
                    self.withdraw(one, "consent")
        if about is None:
            return
        visit, name = self.visit(), about.campaign
        armed = self.armed is not None and self.armed.campaign == name
        if event.name in ("Offer Shown", "Message Delivered"):
            if about in self.reported:
                return
            self.reported.add(about)
            known = about in self.waiting
            self.waiting = [one for one in self.waiting if one != about]
            self.words[name] = "shown"
            filled = visit is not None and (visit[0], name) in self.filled
            if self.campaigns[name]["format"] == "slot" and visit is not None:
                self.filled[visit[0], name] = known or self.filled.get((visit[0], name), False)
            if not filled:
                self.shown.append(Shown(self.now, name, None if visit is None else visit[0]))
            if self.campaigns[name]["format"] in ("popup", "banner", "bar"):
                if armed:
                    self.armed = None
                if visit is not None:
                    self.notes.append((self.now, "disarm", name, "shown"))
        elif event.name == "Offer Dismissed" and visit is not None:
            self.closed.add((visit[0], name))
            if armed:
                self.disarm("dismissed")
        elif event.name == "Offer Held":
            self.waiting = [one for one in self.waiting if one != about]
            if self.armed == about:
                self.armed = None
        elif event.name in ("Message Held", "Message Bounced"):
            first = about in self.waiting
            if event.name == "Message Bounced":
                if about in self.bounced:
                    return
                self.bounced.add(about)
                self.reported.add(about)
                self.gone.add(self.trait("email"))
                first = True
            if first:
                self.waiting = [one for one in self.waiting if one != about]
                self.words[name] = "hold held" if event.name == "Message Held" else "hold bounced"

    def take_back(self, event: Happened) -> None:
        for one in list(self.waiting):
            campaign = self.campaigns[one.campaign]
            if event.name in campaign.get("disarm_on", ()):
                if campaign["format"] in ON_SITE:
                    self.waiting.remove(one)
                    self.words[one.campaign] = "disarm"
                    self.notes.append((self.now, "disarm", one.campaign, ""))
                else:
                    self.withdraw(one, f'event "{event.name}"')

    def withdraw(self, one: Said, reason: str) -> None:
        self.waiting.remove(one)
        self.words[one.campaign] = "hold " + reason
        self.notes.append((self.now, "withdraw", one.campaign, reason))


def valid(one: dict[str, Any]) -> int:
    """How long it may be shown, or sent."""
    default = "30m" if "exit_intent" in one["trigger"] else "30s" if one["format"] in ON_SITE else "1d"
    return ms(one.get("valid_for", default))


def margin(span: int) -> int:
    """What the browser holds ready is renewed a minute before its end, or a tenth of its time."""
    return min(60_000, span // 10)


def spans(plain: Any) -> Iterator[int]:
    """Every span of time that a playbook speaks of."""
    if isinstance(plain, dict):
        for word, what in plain.items():
            if word in ("seconds_on_site", "seconds_at_least"):
                yield what * 1000
            yield from spans(what)
        if "format" in plain:
            yield from (valid(plain), valid(plain) - margin(valid(plain)))
    elif isinstance(plain, list):
        for one in plain:
            yield from spans(one)
    elif isinstance(plain, str) and re.fullmatch(r"\d+[smhd]", plain):
        yield ms(plain)
