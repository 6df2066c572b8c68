"""What stands in the way of a campaign, read naively: consent, limits, budgets, quiet hours, holdouts.

Everything that was ever shown, and everything that was sent and may still be, is counted anew for each question. It is
written from docs/playbook.md alone; what it shares with the engine is the number by which a side of an experiment is
drawn.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from state.decisions.experiments import unit_hash
from tests.models.conditions import to_ms
from tests.models.person import ON_SITE, T0, PersonModel, ms_since_start


class Decision(NamedTuple):
    """What was said, or held ready (`arm`): the place it has is its own until `until`."""

    at: int
    kind: str
    campaign: str
    until: int


class FrequencyModel(PersonModel):
    """One person, and what waits to be shown to them."""

    def __init__(self, plain: dict[str, Any], who: str, zone: str) -> None:
        super().__init__(plain, zone)
        self.who = who
        self.campaigns = dict(sorted(plain["campaigns"].items(), key=lambda one: (-one[1].get("priority", 0), one[0])))
        """By priority, then by name."""
        self.pending: list[Decision] = []
        self.dismissed: set[tuple[int, str]] = set()
        """Campaigns that were closed by hand, by visit."""
        self.bounced_addresses: set[str] = set()
        """Addresses that messages come back from."""

    def suppression_reason(self, one: dict[str, Any], name: str, taken: set[str]) -> str:
        visit, form = self.session(), one["format"]
        on_site, group = form in ON_SITE, one.get("group", "")
        if on_site and visit is None:
            return "not_on_site"
        if form == "email" and (self.trait("email") is None or self.trait("email") in self.bounced_addresses):
            return "no_address" if self.trait("email") is None else "suppressed_address"
        if not self.allows(one):
            return "consent"
        if on_site and visit is not None and (visit[0], name) in self.dismissed:
            return "dismissed"
        reason = self.campaign_cap(one, name) or self.shared_cap(one, group)
        if reason:
            return reason
        cooldown = to_ms(self.shop.get("frequency_caps", {}).get("cooldown", "0s"))
        if form == "popup" and any(
            self.now < shown.at + cooldown
            for shown in self.exposures
            if self.campaigns[shown.campaign]["format"] == "popup"
        ):
            return "cooldown"
        if f"group {group}" in taken or (on_site and placement(one) in taken):
            return "lower_priority"
        if (
            on_site
            and form != "slot"
            and any(placement(self.campaigns[other.campaign]) == placement(one) for other in self.pending)
        ):
            return "already_reserved"
        return ""

    def count(self, names: set[str], here: bool = False, days: int = 0) -> int:
        """How often these were seen, or may still be: in this visit on the site, in so many days, or ever (0)."""
        visit = self.session()
        names = {name for name in names if not here or self.campaigns[name]["format"] in ON_SITE}
        n = len([one for one in self.pending if one.campaign in names])
        for one in self.exposures:
            fits = (
                (visit is not None and one.session == visit[0])
                if here
                else (not days or self.day(one.at) > self.day(self.now) - days)
            )
            n += one.campaign in names and fits
        return n

    def campaign_cap(self, one: dict[str, Any], name: str) -> str:
        most, mine = one.get("frequency_caps", {}), {name}
        waits = 0
        if one["format"] == "slot":  # what waits to fill a slot makes room for what comes after it
            waits = len([other for other in self.pending if other.campaign == name])
        full = [
            most.get(word) is not None and self.count(mine, days=days) - waits >= most[word]
            for word, days in (("per_day", 1), ("per_week", 7), ("total", 0))
        ]
        full.append(one["format"] in ON_SITE and self.count(mine, here=True) - waits >= most.get("per_session", 1))
        if "min_interval" in most:
            full.append(any(other.campaign == name for other in self.pending) and one["format"] != "slot")
            full.append(
                any(
                    self.now < shown.at + to_ms(most["min_interval"])
                    for shown in self.exposures
                    if shown.campaign == name
                )
            )
        return "campaign_cap" if any(full) else ""

    def shared_cap(self, one: dict[str, Any], group: str) -> str:
        on_site, most = one["format"] in ON_SITE, self.shop.get("groups", {}).get(group, {})
        members = {name for name, other in self.campaigns.items() if group and other.get("group") == group}
        waits = 0
        if one["format"] == "slot":
            waits = len([other for other in self.pending if self.campaigns[other.campaign] is one])
        if (on_site and self.count(members, here=True) - waits >= most.get("per_session", 999)) or any(
            self.count(members, days=days) - waits >= most.get(word, 999)
            for word, days in (("per_day", 1), ("per_week", 7))
        ):
            return "group_cap"
        if one.get("purpose") == "service":
            return ""
        everything, most = (
            {name for name, other in self.campaigns.items() if other["format"] != "slot"},
            self.shop.get("frequency_caps", {}),
        )
        if one["format"] != "slot" and (
            (on_site and self.count(everything, here=True) >= most.get("per_session", 3))
            or self.count(everything, days=1) >= most.get("per_day", 6)
        ):
            return "shop_cap"
        budget, weight = self.shop.get("contact_pressure", {}), self.weight(one)
        for word, days in (("per_day", 1), ("per_week", 7)):
            spent = sum(self.count({name}, days=days) * self.weight(other) for name, other in self.campaigns.items())
            if weight and word in budget and spent + weight > budget[word]:
                return "contact_pressure"
        return ""

    def weight(self, one: dict[str, Any]) -> float:
        form = one["format"]
        own: float = (
            self.shop.get("contact_pressure", {})
            .get("weights", {})
            .get(form, 0 if form == "slot" else 1 if form in ON_SITE else 3)
        )
        return own

    def quiet_until(self, one: dict[str, Any]) -> int:
        """When the quiet hours end, if this is a message and it is night."""
        hours = self.shop.get("quiet_hours")
        if hours is None or one["format"] in ON_SITE or one.get("ignore_quiet_hours"):
            return 0
        begin, end = (int(hours[word][:2]) for word in ("start", "end"))
        now = datetime.fromtimestamp((T0 + self.now) / 1000, self.zone)
        if begin <= now.hour or now.hour < end:  # they go over midnight
            morning = now.replace(hour=end, minute=0, second=0, microsecond=0)
            return ms_since_start(morning if now.hour < end else morning + timedelta(days=1))
        return 0

    def variant(self, one: dict[str, Any], name: str) -> str:
        """The variant, or why they are held out."""
        if one.get("purpose") != "service" and unit_hash(self.who, "*") < self.shop.get("holdout", 0):
            return "global_holdout"
        held, drawn = one.get("holdout", 0.0), unit_hash(self.who, name)
        if drawn < held:
            return "holdout"
        weights = {side: what.get("weight", 1.0) for side, what in sorted(one.get("variants", {}).items())}
        drawn -= held
        for variant, share in weights.items():
            drawn -= (1 - held) * share / sum(weights.values())
            if drawn < 0:
                return str(variant)
        return ""


def placement(one: dict[str, Any]) -> str:
    return f"{one['format']} {one.get('slot', '')}"
