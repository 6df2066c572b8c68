"""Campaigns as whole shards decide them, against asking everything at every instant (`tests/models/decisions.py`).

Every send, hold, arm and disarm agrees, with its time, its reason and the side of the experiment; over marketing and
service, on the site and by mail, with consent, limits, budgets, quiet hours, holdouts, groups, slots and dates.
"""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Cancel, Preload, SegmentChange, Send, Suppress
from domain.action import decode_action as action
from domain.action import decode_message as message
from domain.record import ACTIONS, MESSAGES, Record, event_stream, partition_of
from state.playbook.compiled import compile_rules
from tests.harness.failing_cluster import PARTITION_COUNT, ClusterWithFailures
from tests.harness.person import make_playbook
from tests.harness.support import examples
from tests.models.decisions import DecisionModel, LogEntry
from tests.models.frequency import Decision
from tests.models.person import T0

PlainDict = dict[str, Any]


class EngineAndModel:
    """The same history, told to a shard and to the twin, who must say the same after each event."""

    def __init__(self, plain: PlainDict, anonymous_id: str, zone: str) -> None:
        self.anonymous_id, self.zone = anonymous_id, zone
        self.cluster = ClusterWithFailures(compile_rules(make_playbook(**plain)))
        self.model = DecisionModel(plain, f"a:{anonymous_id}", zone)
        self.timed_campaigns = {name for name, one in plain["campaigns"].items() if "seconds_on_site" in one["trigger"]}
        self.ids: dict[tuple[int, str, str], str] = {}
        self.n = self.rows = self.compared = 0
        self.at = 0

    def emit(self, gap: int, name: str, which: int = 0, /, **properties: Any) -> None:
        """Something happens; of what was said so far, `which` says what it is about."""
        self.n += 1
        self.at += gap + 1
        about = self.decision_for(name, which)
        if about is not None:
            word = "action_id" if name.startswith("Offer") else "message_id"
            properties = {"campaign": about.campaign, word: self.ids[about[:3]], **properties}
            if name == "Message Bounced":
                properties["hard"] = True
        call = {"Page Viewed": "page", "Identified": "identify"}.get(name, "track")
        body: PlainDict = {
            "type": call,
            "anonymousId": self.anonymous_id,
            "messageId": f"m{self.n}",
            "traits" if call == "identify" else "properties": properties,
            "context": {"attimo": {"country": "IT", "device": "desktop"}, "timezone": self.zone},
        }
        if call == "track":
            body["event"] = name
        key = self.anonymous_id.encode()
        self.cluster.advance(T0 + self.at - 1)
        self.cluster.apply(
            Record(
                event_stream(call, name),
                partition_of(key, PARTITION_COUNT),
                self.n,
                T0 + self.at,
                key,
                msgspec.json.encode(body),
            )
        )
        self.model.apply(self.at, name, about, **properties)
        self.compare()

    def advance(self, span: int) -> None:
        self.at += span
        self.cluster.advance(T0 + self.at)
        self.model.advance(self.at)
        self.compare()

    def decision_for(self, name: str, which: int) -> Decision | None:
        mails = name.startswith("Message")
        if not mails and not name.startswith("Offer"):
            return None
        said = [
            one for one in self.model.decisions if (self.model.campaigns[one.campaign]["format"] == "email") is mails
        ]
        return said[-1 - which % len(said)] if said else None

    def compare(self) -> None:
        found = self.engine_log()
        expected = self.model.log[self.compared :]
        self.compared = len(self.model.log)
        holds = [
            (at, campaign, reason)
            for at, what, campaign, reason in found
            if what == "suppress" and campaign in self.timed_campaigns
        ]
        assert set(holds) <= self.model.timer_reasons, holds
        found = sorted(one for one in found if one[1] != "suppress" or one[2] not in self.timed_campaigns)
        assert found == sorted(expected), f"{found} is not {sorted(expected)}"

    def engine_log(self) -> list[LogEntry]:
        found: list[LogEntry] = []
        for row in self.cluster.rows[self.rows :]:
            if row.stream == ACTIONS:
                one = action(row.body)
                at, because = one.at - T0, one.because
                if isinstance(one, SegmentChange):
                    found.append((at, "entered" if one.entered else "left", one.segment, ""))
                elif isinstance(one, (Send, Preload)):
                    what = "send" if isinstance(one, Send) else "preload"
                    self.ids[at, what, one.campaign] = one.id
                    found.append((at, what, one.campaign, because.variant.rpartition("/")[0]))
                elif isinstance(one, (Suppress, Cancel)):
                    found.append((at, type(one).__name__.lower(), one.campaign, because.reason))
            elif row.stream == MESSAGES:
                sent = message(row.body)
                at = sent.at - T0
                if sent.withdrawn_id:
                    found.append((at, "withdraw", sent.campaign, sent.because.reason))
                else:
                    self.ids[at, "send", sent.campaign] = sent.id
                    found.append((at, "send", sent.campaign, sent.variant))
        self.rows = len(self.cluster.rows)
        return found


# -- shops and histories -------------------------------------------------------------------------------------------

# Spans of different things differ, and each event has a millisecond of its own: no two moments meet by accident.

conditions: st.SearchStrategy[PlainDict] = st.sampled_from(
    [
        {"session": {"pages_at_least": 2}},
        {"session": {"seconds_at_least": 37}},
        {"session": {"first_session": True}},
        {"did": {"event": "Page Viewed", "at_least": 2, "within": "61s"}},
        {"cart": {"value_at_least": 15}},
        {"not": {"did": {"event": "Page Viewed", "within": "17s"}}},
        {"cart": {"untouched_for": "29s"}},
        {"sequence": {"steps": ["Page Viewed", "Product Added"], "within": "59s"}},
        {"in_segment": "s0"},
        {"has": {"consent": "marketing"}},
        {"has": {"trait": {"plan": "gold"}}},
        {"orders": {"count_at_least": 1}},
        {"was_shown": {"campaign": "c0", "within": "47s"}},
        {"did_not": {"event": "Quiz"}},
        {"any": [{"was_shown": {"campaign": "c1"}}, {"in_segment": "s1"}]},
    ]
)
small_numbers = st.integers(1, 3)


@st.composite
def some_of(draw: st.DrawFn, /, least: int, most: int, **fields: Any) -> PlainDict:
    """A few of these fields."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=least, max_size=most, unique=True))
    return {name: draw(fields[name]) for name in names}


dates = st.sampled_from(
    [{"start": "2023-11-15"}, {"end": "2023-11-15 09:30"}, {"start": "2023-11-14 23:30", "end": "2023-11-17"}]
)
own_limits = st.builds(
    lambda least, drawn: {**least, **drawn},
    st.sampled_from([{"per_session": 9}, {}]),
    some_of(
        0,
        2,
        per_session=small_numbers,
        per_day=small_numbers,
        per_week=small_numbers,
        total=small_numbers,
        min_interval=st.sampled_from(["43s", "11h"]),
    ),
)
shop_settings = st.builds(
    lambda fixed, drawn: {**fixed, **drawn},
    st.fixed_dictionaries(
        {
            "custom_events": st.just(["Quiz"]),
            "timezone": st.sampled_from(["Europe/Rome", "America/New_York"]),
            "frequency_caps": some_of(
                0, 2, per_session=small_numbers, per_day=st.integers(1, 5), cooldown=st.sampled_from(["19s", "5m"])
            ),
            "groups": st.fixed_dictionaries(
                {"g": some_of(1, 2, per_session=small_numbers, per_day=small_numbers, per_week=small_numbers)}
            ),
        }
    ),
    some_of(
        0,
        3,
        holdout=st.just(0.3),
        quiet_hours=st.just({"start": "21:00", "end": "08:00"}),
        contact_pressure=some_of(
            1,
            2,
            per_day=st.sampled_from([1, 3, 4]),
            per_week=st.sampled_from([3, 5]),
            weights=st.sampled_from([{"popup": 2}, {"email": 1, "slot": 1}]),
        ),
        consent=st.sampled_from(
            [
                {"default": "denied"},
                {"default": "denied", "purposes": {"marketing": "granted"}},
                {"purposes": {"email": "denied"}},
                {"purposes": {"email:marketing": "denied"}},
            ]
        ),
    ),
)


@st.composite
def campaigns(draw: st.DrawFn, triggers: st.SearchStrategy[PlainDict]) -> PlainDict:
    trigger = draw(triggers)
    watched = trigger.keys() & {"exit_intent", "seconds_on_site"}
    formats = ("popup", "bar") if watched else ("popup", "popup", "bar", "email", "slot")
    one: PlainDict = {"trigger": trigger, "format": draw(st.sampled_from(formats)), "priority": draw(st.integers(0, 1))}
    fields: dict[str, st.SearchStrategy[Any]] = {
        "when": conditions,
        "unless": conditions,
        "frequency_caps": own_limits,
        "cancel_on": st.just(["Product Added"]),
        "valid_for": st.just("4m") if "exit_intent" in trigger else st.sampled_from(["13s", "7m"]),
        "variants": st.just({"a": {}, "b": {"weight": 2.0}}),
        "ignore_quiet_hours": st.just(True),
        "holdout": st.just(0.4),
        "purpose": st.just("service"),
    }
    if draw(st.booleans()):
        one["frequency_caps"] = {"per_session": 9}
    if one["format"] != "email":
        del fields["ignore_quiet_hours"]
    if "seconds_on_site" not in trigger and draw(st.booleans()):
        one["group"] = "g"  # (of those who wait for their second, the next one would come a moment later)
    one |= draw(some_of(0, 4, **fields))
    if one.get("purpose") == "service":
        one.pop("holdout", None)
    if one["format"] == "slot":
        one["slot"] = draw(st.sampled_from(["#x", "#y"]))
    return one | (draw(dates) if draw(st.integers(0, 5)) == 5 else {})


event_triggers: st.SearchStrategy[PlainDict] = st.sampled_from(
    [
        {"event": "Quiz"},
        {"event": "Quiz"},
        {"event": "Page Viewed"},
        {"event": "Product Added", "properties": {"category": "a"}},
    ]
)
segment_triggers: st.SearchStrategy[PlainDict] = st.sampled_from(
    [
        {"segment": "s0"},
        {"exited_segment": "s0"},
        {"segment": "s1"},
        {"event": "Quiz", "delay": "23s"},
        {"event": "Quiz", "delay": "23s"},
        {"segment": "s1", "delay": "3h"},
    ]
)
on_site_triggers: st.SearchStrategy[PlainDict] = st.sampled_from([{"exit_intent": True}, {"seconds_on_site": 31}])
memberships: st.SearchStrategy[PlainDict] = st.sampled_from(
    [
        {"session": {"pages_at_least": 2}},
        {"did": {"event": "Page Viewed", "within": "41s"}},
        {"has": {"trait": {"plan": "gold"}}},
        {"cart": {"untouched_for": "53s"}},
    ]
)


@st.composite
def playbooks_with(draw: st.DrawFn, triggers: st.SearchStrategy[PlainDict]) -> PlainDict:
    made = draw(st.lists(campaigns(triggers), min_size=2, max_size=5))
    words = {"content": {"default": {"title": "Hello"}}}
    return {
        "shop": draw(shop_settings),
        "campaigns": {f"c{n}": {**words, **one} for n, one in enumerate(made)},
        "segments": {f"s{n}": {"when": draw(memberships)} for n in range(2)},
    }


SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
gaps = st.sampled_from(
    [0, SECOND, 5 * SECOND, 20 * SECOND, 45 * SECOND, 2 * MINUTE, 31 * MINUTE, 5 * HOUR, 9 * HOUR, 24 * HOUR]
)
history_events = st.one_of(
    st.tuples(st.sampled_from(["Quiz", "Quiz", "Page Viewed"])),
    st.tuples(st.sampled_from(["Quiz", "Product Added", "Order Completed", "Exit Intent", "Page Viewed"])),
    st.tuples(st.sampled_from(["Offer Shown", "Message Delivered"]), st.just(0)),
    st.tuples(
        st.sampled_from(
            [
                "Offer Shown",
                "Offer Dismissed",
                "Offer Suppressed",
                "Message Delivered",
                "Message Suppressed",
                "Message Bounced",
            ]
        ),
        st.integers(0, 2),
    ),
    st.dictionaries(
        st.sampled_from(["marketing", "email", "email:marketing"]), st.booleans(), min_size=1, max_size=2
    ).map(lambda answers: ("Consent Updated", 0, answers)),
)
histories = st.lists(st.tuples(gaps, history_events), min_size=8, max_size=20)
person_ids = st.sampled_from(["x", "y", "z", "u", "v"])
zones = st.sampled_from(["Europe/Rome", "America/New_York"])
MUG = {"product_id": "p", "name": "Mug", "price": 10, "category": "a", "quantity": 1}


def run_history(plain: PlainDict, who: str, zone: str, history: Any) -> EngineAndModel:
    both = EngineAndModel(plain, who, zone)
    both.emit(0, "Identified", email="ann@shop.example", plan="gold")
    for gap, (name, *rest) in history:
        which, properties = (*rest, 0, {})[:2] if not rest else (rest[0], rest[1] if len(rest) > 1 else {})
        if name == "Product Added":
            properties = MUG
        elif name == "Order Completed":
            properties = {"order_id": f"o{both.n}", "total": 20}
        if not name.startswith(("Offer", "Message")) or both.decision_for(name, which) is not None:
            both.emit(gap, name, which, **properties)
    both.advance(30 * HOUR)
    return both


@given(playbooks_with(event_triggers), person_ids, zones, histories)
@settings(max_examples=examples(60), deadline=None)
def test_event_triggers_match_the_reference_model(plain: PlainDict, who: str, zone: str, history: Any) -> None:
    run_history(plain, who, zone, history)


@given(playbooks_with(event_triggers | segment_triggers), person_ids, zones, histories)
@settings(max_examples=examples(40), deadline=None)
def test_segments_and_delays_match_the_reference_model(plain: PlainDict, who: str, zone: str, history: Any) -> None:
    run_history(plain, who, zone, history)


@given(playbooks_with(on_site_triggers | on_site_triggers | event_triggers), person_ids, zones, histories)
@settings(max_examples=examples(40), deadline=None)
def test_exit_offers_match_the_reference_model(plain: PlainDict, who: str, zone: str, history: Any) -> None:
    run_history(plain, who, zone, history)
