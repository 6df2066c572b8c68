"""What stands in the way of a campaign, read naively: consent, limits, budgets, quiet hours, holdouts.

Everything that was ever shown, and everything that was sent and may still be, is counted anew for each question. It is
written from docs/playbook.md alone; what it shares with the engine is the number by which a side of an experiment is
drawn.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from state.experiments import chance
from tests.naive import ms
from tests.naive_person import ON_SITE, T0, Known, clock


class Said(NamedTuple):
    """What was said, or held ready (`arm`): the place it has is its own until `until`."""

    at: int
    what: str
    campaign: str
    until: int


class Limited(Known):
    """One person, and what waits to be shown to them."""

    def __init__(self, plain: dict[str, Any], who: str, zone: str) -> None:
        super().__init__(plain, zone)
        self.who = who
        self.campaigns = dict(sorted(plain["campaigns"].items(), key=lambda one: (-one[1].get("priority", 0), one[0])))
        """By priority, then by name."""
        self.waiting: list[Said] = []
        self.closed: set[tuple[int, str]] = set()
        """Campaigns that were closed by hand, by visit."""
        self.gone: set[str] = set()
        """Addresses that messages come back from."""

    def why_not(self, one: dict[str, Any], name: str, won: set[str]) -> str:
        visit, form = self.visit(), one["format"]
        on_site, group = form in ON_SITE, one.get("group", "")
        if on_site and visit is None:
            return "not_on_site"
        if form == "email" and (self.trait("email") is None or self.trait("email") in self.gone):
            return "no_address" if self.trait("email") is None else "unreachable"
        if not self.consents(one):
            return "consent"
        if on_site and visit is not None and (visit[0], name) in self.closed:
            return "dismissed"
        reason = self.limit(one, name) or self.shared(one, group)
        if reason:
            return reason
        cooldown = ms(self.shop.get("limits", {}).get("cooldown", "0s"))
        if form == "popup" and any(self.now < shown.at + cooldown for shown in self.shown
                                   if self.campaigns[shown.campaign]["format"] == "popup"):
            return "cooldown"
        if f"group {group}" in won or (on_site and place(one) in won):
            return "lower_priority"
        if on_site and form != "slot" and any(
                place(self.campaigns[other.campaign]) == place(one) for other in self.waiting):
            return "already_reserved"
        return ""

    def count(self, names: set[str], here: bool = False, days: int = 0) -> int:
        """How often these were seen, or may still be: in this visit on the site, in so many days, or ever (0)."""
        visit = self.visit()
        names = {name for name in names if not here or self.campaigns[name]["format"] in ON_SITE}
        n = len([one for one in self.waiting if one.campaign in names])
        for one in self.shown:
            fits = (visit is not None and one.visit == visit[0]) if here else (
                not days or self.day(one.at) > self.day(self.now) - days)
            n += one.campaign in names and fits
        return n

    def limit(self, one: dict[str, Any], name: str) -> str:
        most, mine = one.get("limits", {}), {name}
        waits = 0
        if one["format"] == "slot":  # what waits to fill a slot makes room for what comes after it
            waits = len([other for other in self.waiting if other.campaign == name])
        full = [most.get(word) is not None and self.count(mine, days=days) - waits >= most[word]
                for word, days in (("per_day", 1), ("per_week", 7), ("total", 0))]
        full.append(one["format"] in ON_SITE and self.count(mine, here=True) - waits >= most.get("per_session", 1))
        if "every" in most:
            full.append(any(other.campaign == name for other in self.waiting) and one["format"] != "slot")
            full.append(any(self.now < shown.at + ms(most["every"]) for shown in self.shown if shown.campaign == name))
        return "limit" if any(full) else ""

    def shared(self, one: dict[str, Any], group: str) -> str:
        on_site, most = one["format"] in ON_SITE, self.shop.get("groups", {}).get(group, {})
        members = {name for name, other in self.campaigns.items() if group and other.get("group") == group}
        waits = 0
        if one["format"] == "slot":
            waits = len([other for other in self.waiting if self.campaigns[other.campaign] is one])
        if (on_site and self.count(members, here=True) - waits >= most.get("per_session", 999)) or any(
                self.count(members, days=days) - waits >= most.get(word, 999)
                for word, days in (("per_day", 1), ("per_week", 7))):
            return "group_limit"
        if one.get("purpose") == "service":
            return ""
        everything, most = {name for name, other in self.campaigns.items() if other["format"] != "slot"}, self.shop.get(
            "limits", {})
        if one["format"] != "slot" and ((on_site and self.count(everything, here=True) >= most.get("per_session", 3))
                                        or self.count(everything, days=1) >= most.get("per_day", 6)):
            return "shop_limit"
        budget, weight = self.shop.get("pressure", {}), self.weight(one)
        for word, days in (("per_day", 1), ("per_week", 7)):
            spent = sum(self.count({name}, days=days) * self.weight(other) for name, other in self.campaigns.items())
            if weight and word in budget and spent + weight > budget[word]:
                return "pressure"
        return ""

    def weight(self, one: dict[str, Any]) -> float:
        form = one["format"]
        own: float = self.shop.get("pressure", {}).get("weights", {}).get(
            form, 0 if form == "slot" else 1 if form in ON_SITE else 3)
        return own

    def quiet_until(self, one: dict[str, Any]) -> int:
        """When the quiet hours end, if this is a message and it is night."""
        hours = self.shop.get("quiet_hours")
        if hours is None or one["format"] in ON_SITE or one.get("urgent"):
            return 0
        begin, end = (int(hours[word][:2]) for word in ("begin", "end"))
        now = datetime.fromtimestamp((T0 + self.now) / 1000, self.zone)
        if begin <= now.hour or now.hour < end:  # they go over midnight
            morning = now.replace(hour=end, minute=0, second=0, microsecond=0)
            return clock(morning if now.hour < end else morning + timedelta(days=1))
        return 0

    def side(self, one: dict[str, Any], name: str) -> str:
        """The variant, or why they are held out."""
        if one.get("purpose") != "service" and chance(self.who, "*") < self.shop.get("holdout", 0):
            return "global_holdout"
        held, drawn = one.get("holdout", 0.0), chance(self.who, name)
        if drawn < held:
            return "holdout"
        weights = {side: what.get("share", 1.0) for side, what in sorted(one.get("variants", {}).items())}
        drawn -= held
        for variant, share in weights.items():
            drawn -= (1 - held) * share / sum(weights.values())
            if drawn < 0:
                return str(variant)
        return ""


def place(one: dict[str, Any]) -> str:
    return f"{one['format']} {one.get('slot', '')}"
