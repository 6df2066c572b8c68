"""Limits: the engine and a plain list of everything that was ever shown agree, over weeks, zones and clock changes."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Send, Suppress, target_name
from domain.duration import parse_duration
from domain.playbook.condition import MAX_EXPOSURE_TIMES
from domain.playbook.playbook import Playbook
from state.decisions.exposures import record_exposure
from state.local_time import local_day, local_timestamp, week_start, zone_info
from state.person.model import Person
from tests.harness.person import T0, PersonHarness, make_playbook
from tests.harness.support import examples

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
ZONES = [
    "Europe/Rome",
    "America/New_York",
    "Pacific/Auckland",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Tokyo",
]
START_TIMES = [
    round(datetime(*day, tzinfo=UTC).timestamp() * 1000) - T0
    for day in ((2023, 12, 30), (2024, 3, 8), (2024, 3, 29), (2024, 4, 5), (2024, 10, 25), (2024, 11, 1))
]
"""Just before the turn of the year, and before clocks change in one of the zones."""

FORMATS = {"a": "popup", "b": "bar", "c": "bar", "m": "email", "s": "banner", "w": "sms"}


class Exposure(NamedTuple):
    at: int
    campaign: str
    session: str


class FrequencyModel:
    """Everything that was shown, and everything that was sent and may still be; limits are counted over the lists."""

    def __init__(self, made: Playbook, where: str) -> None:
        self.shop = made.shop
        self.campaigns = {one.name: one for one in made.campaigns}
        self.zone = ZoneInfo(where)
        self.exposures: list[Exposure] = []
        self.pending: dict[str, tuple[str, int]] = {}

    def day(self, when: int) -> int:
        return datetime.fromtimestamp(when / 1000, self.zone).date().toordinal()

    def midnight(self, now: int, days: int) -> int:
        """The beginning of a later day, after T0."""
        day = datetime.fromtimestamp(now / 1000, self.zone).date() + timedelta(days=days)
        return round(datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp() * 1000) - T0

    def count(self, now: int, visit: str, names: Any) -> tuple[int, int, int, int]:
        """In this visit, today, this week, ever; of these campaigns."""
        shown = [one for one in self.exposures if one.campaign in names]
        waiting = len([name for name, until in self.pending.values() if name in names and until > now])
        on_site = [one for one in shown if self.campaigns[one.campaign].on_site]
        waiting_here = len(
            [
                name
                for name, until in self.pending.values()
                if name in names and until > now and self.campaigns[name].on_site
            ]
        )
        today = self.day(now)
        return (
            waiting_here + len([one for one in on_site if one.session == visit]),
            waiting + len([one for one in shown if self.day(one.at) == today]),
            waiting + len([one for one in shown if self.day(one.at) > today - 7]),
            waiting + len(shown),
        )

    def points(self, now: int) -> tuple[float, float]:
        weights = {name: self.weight(name) for name in self.campaigns}
        each = {name: self.count(now, "", {name}) for name in self.campaigns}
        return (
            sum(weights[name] * found[1] for name, found in each.items()),
            sum(weights[name] * found[2] for name, found in each.items()),
        )

    def weight(self, name: str) -> float:
        form = self.campaigns[name].format
        return self.shop.contact_pressure.weights.get(form, 1.0 if self.campaigns[name].on_site else 3.0)

    def suppression_reason(self, name: str, now: int, visit: str, taken: set[str]) -> str:
        campaign = self.campaigns[name]
        limits, group = campaign.frequency_caps, self.shop.groups.get(campaign.group or "")
        here, today, week, ever = self.count(now, visit, {name})
        if (
            (campaign.on_site and here >= limits.per_session)
            or cap_reached(ever, limits.total)
            or cap_reached(today, limits.per_day)
            or cap_reached(week, limits.per_week)
        ):
            return "campaign_cap"
        if limits.min_interval is not None:
            last = [one.at for one in self.exposures if one.campaign == name]
            if any(one == name and until > now for one, until in self.pending.values()) or (
                last and now < max(last) + parse_duration(limits.min_interval)
            ):
                return "campaign_cap"
        if group is not None:
            here, today, week, _ = self.count(
                now, visit, {other.name for other in self.campaigns.values() if other.group == campaign.group}
            )
            if (
                (campaign.on_site and cap_reached(here, group.per_session))
                or cap_reached(today, group.per_day)
                or cap_reached(week, group.per_week)
            ):
                return "group_cap"
        if campaign.purpose != "service":
            here, today, _, _ = self.count(now, visit, set(self.campaigns))
            if (
                campaign.on_site and here >= self.shop.frequency_caps.per_session
            ) or today >= self.shop.frequency_caps.per_day:
                return "shop_cap"
            budget = self.shop.contact_pressure
            spent_today, spent_week = self.points(now)
            if self.weight(name) and any(
                most is not None and spent + self.weight(name) > most
                for spent, most in ((spent_today, budget.per_day), (spent_week, budget.per_week))
            ):
                return "contact_pressure"
        if (campaign.group and "group " + campaign.group in taken) or (campaign.on_site and campaign.format in taken):
            return "lower_priority"
        if campaign.on_site and any(
            self.campaigns[other].format == campaign.format and until > now for other, until in self.pending.values()
        ):
            return "already_reserved"
        return ""


def cap_reached(n: int, most: int | None) -> bool:
    return most is not None and n >= most


def some_of(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


small_numbers = st.integers(1, 4)
empty: st.SearchStrategy[dict[str, Any]] = st.just({})
campaign_caps = empty | some_of(
    per_session=small_numbers,
    per_day=small_numbers,
    per_week=st.integers(1, 6),
    total=st.integers(2, 9),
    min_interval=st.sampled_from(["1m", "5h", "2d"]),
)
campaign_limits = campaign_caps.map(lambda drawn: {"per_session": 99, **drawn})
shop_limits = empty | some_of(per_session=small_numbers, per_day=st.integers(2, 8))
weights = some_of(popup=st.sampled_from([0.5, 2]), email=st.sampled_from([0, 1.5]))
group = empty | some_of(per_session=small_numbers, per_day=small_numbers, per_week=st.integers(1, 6))
shops = st.fixed_dictionaries(
    {
        "frequency_caps": shop_limits.map(lambda drawn: {"per_session": 99, "per_day": 99, **drawn}),
        "groups": st.fixed_dictionaries({"g": group}),
    },
    optional={
        "contact_pressure": some_of(
            per_day=st.sampled_from([2, 4.5, 7]), per_week=st.sampled_from([5, 9, 20]), weights=weights
        )
    },
)
gaps = st.sampled_from([2 * SECOND, 40 * SECOND, 20 * MINUTE, HOUR, 7 * HOUR, 23 * HOUR, DAY, 3 * DAY])
around_midnight = st.tuples(st.integers(1, 7), st.sampled_from([-40 * MINUTE, -20 * SECOND, 0, 50 * MINUTE]))


@given(st.data())
@settings(max_examples=examples(120), deadline=None)
def test_frequency_caps_match_the_reference_model(data: Any) -> None:
    where = data.draw(st.sampled_from(ZONES))
    made = make_playbook(
        shop=data.draw(shops),
        campaigns={
            name: {
                "format": form,
                "trigger": {"event": "Quiz Finished"},
                "frequency_caps": data.draw(campaign_limits),
                **({"group": "g"} if name in "bcm" else {}),
                **({"purpose": "service"} if name in "sw" else {}),
            }
            for name, form in FORMATS.items()
        },
    )
    visitor, naive = PersonHarness(made, timezone=where), FrequencyModel(made, where)
    now = data.draw(st.sampled_from(START_TIMES))
    visitor.emit(now, "Identified", email="ann@shop.example", phone="+39333123456")
    for _ in range(data.draw(st.integers(1, 14))):
        days = data.draw(st.none() | around_midnight)
        later = now + data.draw(gaps) if days is None else naive.midnight(T0 + now, days[0]) + days[1]
        now = max(now + 2 * SECOND, later)
        messages = len(visitor.messages)
        actions = visitor.emit(now, "Quiz Finished")
        sent: list[Any] = [*[one for one in actions if isinstance(one, Send)], *visitor.messages[messages:]]
        visit = visitor.person.session.id if visitor.person.session is not None else ""
        expected, won = {}, set[str]()
        for name in sorted(campaign_names(made)):  # all have the same priority: by name
            reason = naive.suppression_reason(name, T0 + now, visit, won)
            expected[name] = reason
            if not reason:
                form, group = FORMATS[name], naive.campaigns[name].group
                won |= {form, f"group {group}"} if group else {form}
                ids = [one for one in sent if one.campaign == name]
                assert ids, f"{name} was not sent: {visitor.person.decisions.get(name)}"
                naive.pending[ids[0].id] = name, ids[0].not_after
        found = {name: one.reason if one.kind == "suppress" else "" for name, one in visitor.person.decisions.items()}
        assert found == expected
        if data.draw(st.booleans()):
            visitor.store_and_reload()
        for one in sent:
            became = data.draw(st.sampled_from(["shown", "shown", "suppressed", "nothing"]))
            now += SECOND
            if became == "shown":
                naive.exposures.append(Exposure(T0 + now, one.campaign, visit))
                del naive.pending[one.id]
            elif became == "suppressed":
                del naive.pending[one.id]
            send_feedback(visitor, now, one, became)


def campaign_names(made: Playbook) -> list[str]:
    return [one.name for one in made.campaigns]


def send_feedback(harness: PersonHarness, now: int, one: Any, became: str) -> None:
    if became == "nothing":
        return
    if isinstance(one, Send):
        harness.emit(
            now, "Offer Shown" if became == "shown" else "Offer Suppressed", action_id=one.id, campaign=one.campaign
        )
    else:
        harness.emit(
            now,
            "Message Delivered" if became == "shown" else "Message Suppressed",
            message_id=one.id,
            campaign=one.campaign,
            channel=one.channel,
        )


# -- one by one ----------------------------------------------------------------------------------------------------


def trigger_and_show(harness: PersonHarness, at: int) -> None:
    """The occasion comes, and whatever is sent is shown."""
    for one in harness.emit(at, "Quiz Finished"):
        if isinstance(one, Send):
            send_feedback(harness, at + SECOND, one, "shown")


def suppression(harness: PersonHarness, at: int) -> tuple[str, str]:
    (hold,) = [one for one in harness.emit(at, "Quiz Finished") if isinstance(one, Suppress)]
    return hold.because.reason, hold.because.detail


def quiz_playbook(shop: dict[str, Any] | None = None, **campaigns: dict[str, Any]) -> Playbook:
    return make_playbook(
        shop=shop or {},
        campaigns={name: {"trigger": {"event": "Quiz Finished"}, **rest} for name, rest in campaigns.items()},
    )


def test_weekly_cap_uses_the_persons_days() -> None:
    """T0 is a Tuesday, 22:13 UTC: 23:13 in Rome. The seventh midnight there opens the week again."""
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"per_week": 2}}))
    trigger_and_show(visitor, 0)
    trigger_and_show(visitor, HOUR)  # a day later on the wall
    midnight = local_timestamp(2023, 11, 21, 0, 0, zone_info("Europe/Rome")) - T0
    assert suppression(visitor, midnight - SECOND) == ("campaign_cap", "2 of 2 this week")
    visitor.advance(midnight + HOUR)
    trigger_and_show(visitor, midnight + HOUR)
    assert visitor.person.exposures["hello"].total == 3


def test_minimum_interval_between_exposures() -> None:
    visitor = PersonHarness(quiz_playbook(hello={"frequency_caps": {"per_session": 9, "min_interval": "2d"}}))
    trigger_and_show(visitor, 0)
    assert suppression(visitor, DAY) == ("campaign_cap", "the last one was 23 hours 59 minutes ago; 2 days between two")
    visitor.advance(2 * DAY)
    assert visitor.emit(2 * DAY, "Quiz Finished") == [], "a second is missing, and that is known"
    assert [one.at - T0 for one in visitor.emit(2 * DAY + SECOND, "Quiz Finished")] == [2 * DAY + SECOND]


def test_group_has_one_winner_and_shared_caps() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"groups": {"sale": {"per_day": 2}}},
            a={"format": "bar", "group": "sale", "priority": 2},
            b={"format": "banner", "group": "sale"},
            c={"format": "slot", "slot": "#x", "group": "sale"},
        )
    )
    first = visitor.emit(0, "Quiz Finished")
    assert [type(one).__name__ for one in first] == ["Send", "Suppress", "Suppress"]
    assert first[1].because.detail == "a of the same group is said"
    send_feedback(visitor, SECOND, first[0], "shown")
    second = visitor.emit(MINUTE, "Quiz Finished")
    assert [(target_name(one), one.because.reason) for one in second] == [
        ("a", "campaign_cap"),
        ("b", ""),
        ("c", "group_cap"),
    ], "what is on its way counts"
    assert second[2].because.detail == "2 of 2 of the group sale today"


def test_delivered_message_does_not_count_per_session() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"groups": {"g": {"per_session": 1}}},
            mail={"format": "email", "group": "g", "priority": 1},
            bar={"format": "bar", "group": "g"},
        )
    )
    visitor.emit(0, "Identified", email="ann@shop.example")
    visitor.emit(SECOND, "Quiz Finished")
    send_feedback(visitor, 2 * SECOND, visitor.messages[0], "shown")
    visitor.switch_playbook(
        quiz_playbook(
            {"groups": {"g": {"per_session": 1}}},
            bar={"format": "bar", "group": "g"},
            mail={"format": "email", "group": "g", "frequency_caps": {"total": 1}},
        )
    )
    assert [type(one) for one in visitor.emit(MINUTE, "Quiz Finished")] == [Send, Suppress]


def test_contact_pressure_covers_site_and_messages() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"contact_pressure": {"per_day": 3}, "frequency_caps": {"per_session": 9}},
            mail={"format": "email"},
            bar={"format": "bar", "frequency_caps": {"per_session": 9}},
            word={"format": "banner", "purpose": "service", "frequency_caps": {"per_session": 9}},
        )
    )
    visitor.emit(0, "Identified", email="ann@shop.example")
    assert [one.campaign for one in visitor.emit(SECOND, "Quiz Finished") if isinstance(one, Send)] == ["bar", "word"]
    assert visitor.person.decisions["mail"].reason == "contact_pressure", "1 + 3 are 4"
    assert visitor.person.decisions["mail"].detail == "1 of 3 points today, and email weighs 3"
    assert visitor.messages == []


def test_service_campaigns_count_but_are_never_capped() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"contact_pressure": {"per_day": 1}, "frequency_caps": {"per_day": 1}},
            word={"format": "banner", "purpose": "service", "frequency_caps": {"per_session": 9}},
            bar={"format": "bar", "priority": -1},
        )
    )
    trigger_and_show(visitor, 0)
    trigger_and_show(visitor, MINUTE)
    assert visitor.person.exposures["word"].total == 2
    assert visitor.person.decisions["bar"].reason == "shop_cap"


def test_pending_send_counts_towards_contact_pressure() -> None:
    visitor = PersonHarness(
        quiz_playbook(
            {"contact_pressure": {"per_week": 3}},
            mail={"format": "email", "frequency_caps": {"per_session": 9}},
            bar={"format": "bar", "priority": -1},
        )
    )
    visitor.emit(0, "Identified", email="ann@shop.example")
    visitor.emit(SECOND, "Quiz Finished")
    assert visitor.person.decisions["bar"].detail == "3 of 3 points this week, and bar weighs 1"
    send_feedback(visitor, MINUTE, visitor.messages[0], "suppressed")
    assert [one.campaign for one in visitor.emit(2 * MINUTE, "Quiz Finished") if isinstance(one, Send)] == []
    assert len(visitor.messages) == 2, "its place was free again, and mail comes first"


def test_budget_below_one_exposure_suppresses_everything() -> None:
    visitor = PersonHarness(quiz_playbook({"contact_pressure": {"per_day": 0.5}}, hello={}))
    assert suppression(visitor, 0) == ("contact_pressure", "0 of 0.5 points today, and popup weighs 1")
    heavy = PersonHarness(quiz_playbook({"contact_pressure": {"per_day": 1, "weights": {"popup": 2}}}, hello={}))
    assert suppression(heavy, 0) == ("contact_pressure", "0 of 1 point today, and popup weighs 2")


def test_exposures_are_bounded_and_counted_on_their_day() -> None:
    person = Person("a:x")
    for n in range(70):
        record_exposure(person, "c", "", 100 + n, n * DAY)
    record_exposure(person, "c", "", 110, 10 * DAY)
    said = person.exposures["c"]
    assert (said.total, said.day, said.in_day, said.last_at) == (71, 169, 1, 69 * DAY)
    assert said.times == [n * DAY for n in range(20, 70)]
    assert len(said.times) == MAX_EXPOSURE_TIMES


# -- days ----------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([*ZONES, "Asia/Beirut", "America/Havana", "Pacific/Apia", "America/St_Johns"]),
    st.integers(1_300_000_000_000, 1_900_000_000_000),
    st.integers(-30, 30),
)
@settings(max_examples=examples(300), deadline=None)
def test_days_and_weeks_follow_local_time(where: str, now: int, hours: int) -> None:
    local_day(now + hours * HOUR, where)  # what is kept of another moment must not be told of this one
    day = datetime.fromtimestamp(now / 1000, ZoneInfo(where)).date()
    assert local_day(now, where) == day.toordinal()
    began = week_start(now, where)
    first = datetime.fromtimestamp(began / 1000, ZoneInfo(where))
    before = datetime.fromtimestamp((began - 1) / 1000, ZoneInfo(where))
    assert (first.date() - (day - timedelta(days=6))).days in (0, 1), "a day that a zone left out has no beginning"
    assert before.date() < day - timedelta(days=6)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe/Rome\0", "x" * 999])
def test_unknown_time_zone_uses_the_fallback(name: str) -> None:
    assert local_day(T0, name, "Asia/Tokyo") == local_day(T0, "Asia/Tokyo")
