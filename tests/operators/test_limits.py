"""Limits: the engine and a plain list of everything that was ever shown agree, over weeks, zones and clock changes."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Hold, Send, subject
from domain.duration import parse
from domain.playbook import Playbook
from state.days import at, local_day, week_began, zone
from state.exposures import MAX_SHOWINGS, spend
from state.person import Person
from tests.support import examples
from tests.visitor import T0, Visitor, playbook

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
ZONES = ["Europe/Rome", "America/New_York", "Pacific/Auckland", "Australia/Lord_Howe", "America/Sao_Paulo",
         "Asia/Tokyo"]
BEGINNINGS = [round(datetime(*day, tzinfo=UTC).timestamp() * 1000) - T0 for day in (
    (2023, 12, 30), (2024, 3, 8), (2024, 3, 29), (2024, 4, 5), (2024, 10, 25), (2024, 11, 1))]
"""Just before the turn of the year, and before clocks change in one of the zones."""

FORMATS = {"a": "popup", "b": "bar", "c": "bar", "m": "email", "s": "banner", "w": "sms"}


class Showing(NamedTuple):
    at: int
    campaign: str
    visit: str


class Naive:
    """Everything that was shown, and everything that was sent and may still be; limits are counted over the lists."""

    def __init__(self, made: Playbook, where: str) -> None:
        self.shop = made.shop
        self.campaigns = {one.name: one for one in made.campaigns}
        self.zone = ZoneInfo(where)
        self.shown: list[Showing] = []
        self.waiting: dict[str, tuple[str, int]] = {}

    def day(self, when: int) -> int:
        return datetime.fromtimestamp(when / 1000, self.zone).date().toordinal()

    def midnight(self, now: int, days: int) -> int:
        """The beginning of a later day, after T0."""
        day = datetime.fromtimestamp(now / 1000, self.zone).date() + timedelta(days=days)
        return round(datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp() * 1000) - T0

    def count(self, now: int, visit: str, names: Any) -> tuple[int, int, int, int]:
        """In this visit, today, this week, ever; of these campaigns."""
        shown = [one for one in self.shown if one.campaign in names]
        waiting = len([name for name, until in self.waiting.values() if name in names and until > now])
        on_site = [one for one in shown if self.campaigns[one.campaign].on_site]
        waiting_here = len([name for name, until in self.waiting.values()
                            if name in names and until > now and self.campaigns[name].on_site])
        today = self.day(now)
        return (waiting_here + len([one for one in on_site if one.visit == visit]),
                waiting + len([one for one in shown if self.day(one.at) == today]),
                waiting + len([one for one in shown if self.day(one.at) > today - 7]),
                waiting + len(shown))

    def points(self, now: int) -> tuple[float, float]:
        weights = {name: self.weight(name) for name in self.campaigns}
        each = {name: self.count(now, "", {name}) for name in self.campaigns}
        return (sum(weights[name] * found[1] for name, found in each.items()),
                sum(weights[name] * found[2] for name, found in each.items()))

    def weight(self, name: str) -> float:
        form = self.campaigns[name].format
        return self.shop.pressure.weights.get(form, 1.0 if self.campaigns[name].on_site else 3.0)

    def why_not(self, name: str, now: int, visit: str, won: set[str]) -> str:
        campaign = self.campaigns[name]
        limits, group = campaign.limits, self.shop.groups.get(campaign.group or "")
        here, today, week, ever = self.count(now, visit, {name})
        if (campaign.on_site and here >= limits.per_session) or reached(ever, limits.total) or reached(
                today, limits.per_day) or reached(week, limits.per_week):
            return "limit"
        if limits.every is not None:
            last = [one.at for one in self.shown if one.campaign == name]
            if any(one == name and until > now for one, until in self.waiting.values()) or (
                    last and now < max(last) + parse(limits.every)):
                return "limit"
        if group is not None:
            here, today, week, _ = self.count(
                now, visit, {other.name for other in self.campaigns.values() if other.group == campaign.group})
            if (campaign.on_site and reached(here, group.per_session)) or reached(today, group.per_day) or reached(
                    week, group.per_week):
                return "group_limit"
        if campaign.purpose != "service":
            here, today, _, _ = self.count(now, visit, set(self.campaigns))
            if (campaign.on_site and here >= self.shop.limits.per_session) or today >= self.shop.limits.per_day:
                return "shop_limit"
            budget = self.shop.pressure
            spent_today, spent_week = self.points(now)
            if self.weight(name) and any(
                    most is not None and spent + self.weight(name) > most
                    for spent, most in ((spent_today, budget.per_day), (spent_week, budget.per_week))):
                return "pressure"
        if (campaign.group and "group " + campaign.group in won) or (campaign.on_site and campaign.format in won):
            return "lower_priority"
        if campaign.on_site and any(self.campaigns[other].format == campaign.format and until > now
                                    for other, until in self.waiting.values()):
            return "already_reserved"
        return ""


def reached(n: int, most: int | None) -> bool:
    return most is not None and n >= most


def some(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


few = st.integers(1, 4)
nothing: st.SearchStrategy[dict[str, Any]] = st.just({})
own = nothing | some(per_session=few, per_day=few, per_week=st.integers(1, 6), total=st.integers(2, 9),
                         every=st.sampled_from(["1m", "5h", "2d"]))
limits = own.map(lambda drawn: {"per_session": 99, **drawn})
shop_limits = nothing | some(per_session=few, per_day=st.integers(2, 8))
weights = some(popup=st.sampled_from([0.5, 2]), email=st.sampled_from([0, 1.5]))
group = nothing | some(per_session=few, per_day=few, per_week=st.integers(1, 6))
shops = st.fixed_dictionaries(
    {"limits": shop_limits.map(lambda drawn: {"per_session": 99, "per_day": 99, **drawn}),
     "groups": st.fixed_dictionaries({"g": group})},
    optional={"pressure": some(per_day=st.sampled_from([2, 4.5, 7]), per_week=st.sampled_from([5, 9, 20]),
                               weights=weights)})
gaps = st.sampled_from([2 * SECOND, 40 * SECOND, 20 * MINUTE, HOUR, 7 * HOUR, 23 * HOUR, DAY, 3 * DAY])
around_midnight = st.tuples(st.integers(1, 7), st.sampled_from([-40 * MINUTE, -20 * SECOND, 0, 50 * MINUTE]))


@given(st.data())
@settings(max_examples=examples(120), deadline=None)
def test_the_engine_counts_as_a_plain_list_does(data: Any) -> None:
    where = data.draw(st.sampled_from(ZONES))
    made = playbook(shop=data.draw(shops), campaigns={
        name: {"format": form, "trigger": {"event": "Quiz Finished"}, "limits": data.draw(limits),
               **({"group": "g"} if name in "bcm" else {}), **({"purpose": "service"} if name in "sw" else {})}
        for name, form in FORMATS.items()})
    visitor, naive = Visitor(made, timezone=where), Naive(made, where)
    now = data.draw(st.sampled_from(BEGINNINGS))
    visitor.does(now, "Identified", email="ann@shop.example", phone="+39333123456")
    for _ in range(data.draw(st.integers(1, 14))):
        days = data.draw(st.none() | around_midnight)
        later = now + data.draw(gaps) if days is None else naive.midnight(T0 + now, days[0]) + days[1]
        now = max(now + 2 * SECOND, later)
        messages = len(visitor.messages)
        actions = visitor.does(now, "Quiz Finished")
        sent: list[Any] = [*[one for one in actions if isinstance(one, Send)], *visitor.messages[messages:]]
        visit = visitor.person.session.id if visitor.person.session is not None else ""
        expected, won = {}, set[str]()
        for name in sorted(made_names(made)):  # all have the same priority: by name
            reason = naive.why_not(name, T0 + now, visit, won)
            expected[name] = reason
            if not reason:
                form, group = FORMATS[name], naive.campaigns[name].group
                won |= {form, f"group {group}"} if group else {form}
                ids = [one for one in sent if one.campaign == name]
                assert ids, f"{name} was not sent: {visitor.person.decisions.get(name)}"
                naive.waiting[ids[0].id] = name, ids[0].not_after
        found = {name: one.reason if one.kind == "hold" else "" for name, one in visitor.person.decisions.items()}
        assert found == expected
        if data.draw(st.booleans()):
            visitor.rests()
        for one in sent:
            became = data.draw(st.sampled_from(["shown", "shown", "held", "nothing"]))
            now += SECOND
            if became == "shown":
                naive.shown.append(Showing(T0 + now, one.campaign, visit))
                del naive.waiting[one.id]
            elif became == "held":
                del naive.waiting[one.id]
            tell(visitor, now, one, became)


def made_names(made: Playbook) -> list[str]:
    return [one.name for one in made.campaigns]


def tell(visitor: Visitor, now: int, one: Any, became: str) -> None:
    if became == "nothing":
        return
    if isinstance(one, Send):
        visitor.does(now, "Offer Shown" if became == "shown" else "Offer Held", action_id=one.id, campaign=one.campaign)
    else:
        visitor.does(now, "Message Delivered" if became == "shown" else "Message Held", message_id=one.id,
                     campaign=one.campaign, channel=one.channel)


# -- one by one ----------------------------------------------------------------------------------------------------


def show(visitor: Visitor, at: int) -> None:
    """The occasion comes, and whatever is sent is shown."""
    for one in visitor.does(at, "Quiz Finished"):
        if isinstance(one, Send):
            tell(visitor, at + SECOND, one, "shown")


def held(visitor: Visitor, at: int) -> tuple[str, str]:
    (hold,) = [one for one in visitor.does(at, "Quiz Finished") if isinstance(one, Hold)]
    return hold.because.reason, hold.because.detail


def quiz(shop: dict[str, Any] | None = None, **campaigns: dict[str, Any]) -> Playbook:
    return playbook(shop=shop or {}, campaigns={
        name: {"trigger": {"event": "Quiz Finished"}, **rest} for name, rest in campaigns.items()})


def test_seven_days_of_the_person_not_of_the_shop() -> None:
    """T0 is a Tuesday, 22:13 UTC: 23:13 in Rome. The seventh midnight there opens the week again."""
    visitor = Visitor(quiz(hello={"limits": {"per_week": 2}}))
    show(visitor, 0)
    show(visitor, HOUR)  # a day later on the wall
    midnight = at(2023, 11, 21, 0, 0, zone("Europe/Rome")) - T0
    assert held(visitor, midnight - SECOND) == ("limit", "2 of 2 this week")
    visitor.waits(midnight + HOUR)
    show(visitor, midnight + HOUR)
    assert visitor.person.said["hello"].total == 3


def test_the_least_time_between_two() -> None:
    visitor = Visitor(quiz(hello={"limits": {"per_session": 9, "every": "2d"}}))
    show(visitor, 0)
    assert held(visitor, DAY) == ("limit", "the last one was 23 hours 59 minutes ago; 2 days between two")
    visitor.waits(2 * DAY)
    assert visitor.does(2 * DAY, "Quiz Finished") == [], "a second is missing, and that is known"
    assert [one.at - T0 for one in visitor.does(2 * DAY + SECOND, "Quiz Finished")] == [2 * DAY + SECOND]


def test_of_a_group_one_wins_at_a_moment_and_its_limits_are_shared() -> None:
    visitor = Visitor(quiz(
        {"groups": {"sale": {"per_day": 2}}}, a={"format": "bar", "group": "sale", "priority": 2},
        b={"format": "banner", "group": "sale"}, c={"format": "slot", "slot": "#x", "group": "sale"}))
    first = visitor.does(0, "Quiz Finished")
    assert [type(one).__name__ for one in first] == ["Send", "Hold", "Hold"]
    assert first[1].because.detail == "a of the same group is said"
    tell(visitor, SECOND, first[0], "shown")
    second = visitor.does(MINUTE, "Quiz Finished")
    assert [(subject(one), one.because.reason) for one in second] == [
        ("a", "limit"), ("b", ""), ("c", "group_limit")], "what is on its way counts"
    assert second[2].because.detail == "2 of 2 of the group sale today"


def test_a_message_is_not_seen_in_the_visit_during_which_it_is_accepted() -> None:
    visitor = Visitor(quiz({"groups": {"g": {"per_session": 1}}}, mail={"format": "email", "group": "g", "priority": 1},
                           bar={"format": "bar", "group": "g"}))
    visitor.does(0, "Identified", email="ann@shop.example")
    visitor.does(SECOND, "Quiz Finished")
    tell(visitor, 2 * SECOND, visitor.messages[0], "shown")
    visitor.swaps(quiz({"groups": {"g": {"per_session": 1}}}, bar={"format": "bar", "group": "g"},
                       mail={"format": "email", "group": "g", "limits": {"total": 1}}))
    assert [type(one) for one in visitor.does(MINUTE, "Quiz Finished")] == [Send, Hold]


def test_one_budget_over_the_site_and_messages() -> None:
    visitor = Visitor(quiz({"pressure": {"per_day": 3}, "limits": {"per_session": 9}}, mail={"format": "email"},
                           bar={"format": "bar", "limits": {"per_session": 9}},
                           word={"format": "banner", "purpose": "service", "limits": {"per_session": 9}}))
    visitor.does(0, "Identified", email="ann@shop.example")
    assert [one.campaign for one in visitor.does(SECOND, "Quiz Finished") if isinstance(one, Send)] == ["bar", "word"]
    assert visitor.person.decisions["mail"].reason == "pressure", "1 + 3 are 4"
    assert visitor.person.decisions["mail"].detail == "1 of 3 points today, and email weighs 3"
    assert visitor.messages == []


def test_service_counts_and_is_never_held_back() -> None:
    visitor = Visitor(quiz({"pressure": {"per_day": 1}, "limits": {"per_day": 1}},
                           word={"format": "banner", "purpose": "service", "limits": {"per_session": 9}},
                           bar={"format": "bar", "priority": -1}))
    show(visitor, 0)
    show(visitor, MINUTE)
    assert visitor.person.said["word"].total == 2
    assert visitor.person.decisions["bar"].reason == "shop_limit"


def test_what_is_sent_and_not_yet_accepted_weighs_already() -> None:
    visitor = Visitor(quiz({"pressure": {"per_week": 3}}, mail={"format": "email", "limits": {"per_session": 9}},
                           bar={"format": "bar", "priority": -1}))
    visitor.does(0, "Identified", email="ann@shop.example")
    visitor.does(SECOND, "Quiz Finished")
    assert visitor.person.decisions["bar"].detail == "3 of 3 points this week, and bar weighs 1"
    tell(visitor, MINUTE, visitor.messages[0], "held")
    assert [one.campaign for one in visitor.does(2 * MINUTE, "Quiz Finished") if isinstance(one, Send)] == []
    assert len(visitor.messages) == 2, "its place was free again, and mail comes first"


def test_a_budget_smaller_than_one_showing_lets_nothing_through() -> None:
    visitor = Visitor(quiz({"pressure": {"per_day": 0.5}}, hello={}))
    assert held(visitor, 0) == ("pressure", "0 of 0.5 points today, and popup weighs 1")
    heavy = Visitor(quiz({"pressure": {"per_day": 1, "weights": {"popup": 2}}}, hello={}))
    assert held(heavy, 0) == ("pressure", "0 of 1 point today, and popup weighs 2")


def test_showings_are_bounded_and_late_ones_find_their_day() -> None:
    person = Person("a:x")
    for n in range(70):
        spend(person, "c", "", 100 + n, n * DAY)
    spend(person, "c", "", 110, 10 * DAY)
    said = person.said["c"]
    assert (said.total, said.day, said.in_day, said.last_at) == (71, 169, 1, 69 * DAY)
    assert said.times == [n * DAY for n in range(20, 70)]
    assert len(said.times) == MAX_SHOWINGS


# -- days ----------------------------------------------------------------------------------------------------------


@given(st.sampled_from([*ZONES, "Asia/Beirut", "America/Havana", "Pacific/Apia", "America/St_Johns"]),
       st.integers(1_300_000_000_000, 1_900_000_000_000), st.integers(-30, 30))
@settings(max_examples=examples(300), deadline=None)
def test_a_day_and_a_week_are_those_of_the_wall(where: str, now: int, hours: int) -> None:
    local_day(now + hours * HOUR, where)  # what is kept of another moment must not be told of this one
    day = datetime.fromtimestamp(now / 1000, ZoneInfo(where)).date()
    assert local_day(now, where) == day.toordinal()
    began = week_began(now, where)
    first = datetime.fromtimestamp(began / 1000, ZoneInfo(where))
    before = datetime.fromtimestamp((began - 1) / 1000, ZoneInfo(where))
    assert (first.date() - (day - timedelta(days=6))).days in (0, 1), "a day that a zone left out has no beginning"
    assert before.date() < day - timedelta(days=6)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe/Rome\0", "x" * 999])
def test_a_zone_that_nobody_knows_is_the_other_one(name: str) -> None:
    assert local_day(T0, name, "Asia/Tokyo") == local_day(T0, "Asia/Tokyo")
