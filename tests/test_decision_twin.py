"""Campaigns as whole shards decide them, against asking everything at every instant (`tests/naive_decisions.py`).

Every send, hold, arm and disarm agrees, with its time, its reason and the side of the experiment; over marketing and
service, on the site and by mail, with consent, limits, budgets, quiet hours, holdouts, groups, slots and dates.
"""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Arm, Disarm, Hold, Move, Send
from domain.action import decode as action
from domain.message import decode as message
from domain.partition import partition_of
from domain.record import Record
from domain.streams import ACTIONS, MESSAGES, stream_of
from state.rules import compile_rules
from tests.hamlet import PARTITIONS, Hamlet
from tests.naive_decisions import Note, Twin
from tests.naive_limits import Said
from tests.naive_person import T0
from tests.support import examples
from tests.visitor import playbook

Plain = dict[str, Any]


class Both:
    """The same history, told to a shard and to the twin, who must say the same after each event."""

    def __init__(self, plain: Plain, who: str, zone: str) -> None:
        self.who, self.zone = who, zone
        self.hamlet = Hamlet(compile_rules(playbook(**plain)))
        self.twin = Twin(plain, f"a:{who}", zone)
        self.quick = {name for name, one in plain["campaigns"].items() if "seconds_on_site" in one["trigger"]}
        self.ids: dict[tuple[int, str, str], str] = {}
        self.n = self.rows = self.compared = 0
        self.at = 0

    def does(self, gap: int, name: str, which: int = 0, /, **properties: Any) -> None:
        """Something happens; of what was said so far, `which` says what it is about."""
        self.n += 1
        self.at += gap + 1
        about = self.about(name, which)
        if about is not None:
            word = "action_id" if name.startswith("Offer") else "message_id"
            properties = {"campaign": about.campaign, word: self.ids[about[:3]], **properties}
            if name == "Message Bounced":
                properties["hard"] = True
        call = {"Page Viewed": "page", "Identified": "identify"}.get(name, "track")
        body: Plain = {
            "type": call, "anonymousId": self.who, "messageId": f"m{self.n}",
            "traits" if call == "identify" else "properties": properties,
            "context": {"attimo": {"country": "IT", "device": "desktop"}, "timezone": self.zone}}
        if call == "track":
            body["event"] = name
        key = self.who.encode()
        self.hamlet.passes(T0 + self.at - 1)
        self.hamlet.happens(Record(stream_of(call, name), partition_of(key, PARTITIONS), self.n, T0 + self.at, key,
                                   msgspec.json.encode(body)))
        self.twin.happens(self.at, name, about, **properties)
        self.compare()

    def waits(self, span: int) -> None:
        self.at += span
        self.hamlet.passes(T0 + self.at)
        self.twin.passes(self.at)
        self.compare()

    def about(self, name: str, which: int) -> Said | None:
        mails = name.startswith("Message")
        if not mails and not name.startswith("Offer"):
            return None
        said = [one for one in self.twin.said
                if (self.twin.campaigns[one.campaign]["format"] == "email") is mails]
        return said[-1 - which % len(said)] if said else None

    def compare(self) -> None:
        found = self.engine()
        expected = self.twin.notes[self.compared:]
        self.compared = len(self.twin.notes)
        holds = [(at, campaign, reason) for at, what, campaign, reason in found
                 if what == "hold" and campaign in self.quick]
        assert set(holds) <= self.twin.reasons, holds
        found = sorted(one for one in found if one[1] != "hold" or one[2] not in self.quick)
        assert found == sorted(expected), f"{found} is not {sorted(expected)}"

    def engine(self) -> list[Note]:
        found: list[Note] = []
        for row in self.hamlet.rows[self.rows:]:
            if row.stream == ACTIONS:
                one = action(row.body)
                at, because = one.at - T0, one.because
                if isinstance(one, Move):
                    found.append((at, "entered" if one.entered else "left", one.segment, ""))
                elif isinstance(one, (Send, Arm)):
                    what = "send" if isinstance(one, Send) else "arm"
                    self.ids[at, what, one.campaign] = one.id
                    found.append((at, what, one.campaign, because.variant.rpartition("/")[0]))
                elif isinstance(one, (Hold, Disarm)):
                    found.append((at, type(one).__name__.lower(), one.campaign, because.reason))
            elif row.stream == MESSAGES:
                sent = message(row.body)
                at = sent.at - T0
                if sent.withdraws:
                    found.append((at, "withdraw", sent.campaign, sent.because.reason))
                else:
                    self.ids[at, "send", sent.campaign] = sent.id
                    found.append((at, "send", sent.campaign, sent.variant))
        self.rows = len(self.hamlet.rows)
        return found


# -- shops and histories -------------------------------------------------------------------------------------------

# Spans of different things differ, and each event has a millisecond of its own: no two moments meet by accident.

conditions: st.SearchStrategy[Plain] = st.sampled_from([
    {"session": {"pages_at_least": 2}}, {"session": {"seconds_at_least": 37}}, {"session": {"first_visit": True}},
    {"did": {"event": "Page Viewed", "at_least": 2, "within": "61s"}}, {"cart": {"value_at_least": 15}},
    {"not": {"did": {"event": "Page Viewed", "within": "17s"}}}, {"cart": {"untouched_for": "29s"}},
    {"sequence": {"steps": ["Page Viewed", "Product Added"], "within": "59s"}}, {"in_segment": "s0"},
    {"has": {"consent": "marketing"}}, {"has": {"trait": {"plan": "gold"}}}, {"orders": {"count_at_least": 1}},
    {"was_said": {"campaign": "c0", "within": "47s"}}, {"did_not": {"event": "Quiz"}},
    {"any": [{"was_said": {"campaign": "c1"}}, {"in_segment": "s1"}]}])
few = st.integers(1, 3)


@st.composite
def some(draw: st.DrawFn, /, least: int, most: int, **fields: Any) -> Plain:
    """A few of these fields."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=least, max_size=most, unique=True))
    return {name: draw(fields[name]) for name in names}


dates = st.sampled_from([{"start": "2023-11-15"}, {"end": "2023-11-15 09:30"},
                         {"start": "2023-11-14 23:30", "end": "2023-11-17"}])
own_limits = st.builds(lambda least, drawn: {**least, **drawn}, st.sampled_from([{"per_session": 9}, {}]), some(
    0, 2, per_session=few, per_day=few, per_week=few, total=few, every=st.sampled_from(["43s", "11h"])))
shops = st.builds(
    lambda fixed, drawn: {**fixed, **drawn}, st.fixed_dictionaries({
        "events": st.just(["Quiz"]), "timezone": st.sampled_from(["Europe/Rome", "America/New_York"]),
        "limits": some(0, 2, per_session=few, per_day=st.integers(1, 5), cooldown=st.sampled_from(["19s", "5m"])),
        "groups": st.fixed_dictionaries({"g": some(1, 2, per_session=few, per_day=few, per_week=few)})}),
    some(0, 3, holdout=st.just(0.3), quiet_hours=st.just({"begin": "21:00", "end": "08:00"}), pressure=some(
        1, 2, per_day=st.sampled_from([1, 3, 4]), per_week=st.sampled_from([3, 5]), weights=st.sampled_from(
            [{"popup": 2}, {"email": 1, "slot": 1}])), consent=st.sampled_from([
                {"default": "denied"}, {"default": "denied", "purposes": {"marketing": "granted"}},
                {"purposes": {"email": "denied"}}, {"purposes": {"email:marketing": "denied"}}])))


@st.composite
def campaigns(draw: st.DrawFn, triggers: st.SearchStrategy[Plain]) -> Plain:
    trigger = draw(triggers)
    watched = trigger.keys() & {"exit_intent", "seconds_on_site"}
    formats = ("popup", "bar") if watched else ("popup", "popup", "bar", "email", "slot")
    one: Plain = {"trigger": trigger, "format": draw(st.sampled_from(formats)), "priority": draw(st.integers(0, 1))}
    fields: dict[str, st.SearchStrategy[Any]] = {
        "when": conditions, "unless": conditions, "limits": own_limits, "disarm_on": st.just(["Product Added"]),
        "valid_for": st.just("4m") if "exit_intent" in trigger else st.sampled_from(["13s", "7m"]),
        "variants": st.just({"a": {}, "b": {"share": 2.0}}), "urgent": st.just(True),
        "holdout": st.just(0.4), "purpose": st.just("service")}
    if draw(st.booleans()):
        one["limits"] = {"per_session": 9}
    if one["format"] != "email":
        del fields["urgent"]
    if "seconds_on_site" not in trigger and draw(st.booleans()):
        one["group"] = "g"  # (of those who wait for their second, the next one would come a moment later)
    one |= draw(some(0, 4, **fields))
    if one.get("purpose") == "service":
        one.pop("holdout", None)
    if one["format"] == "slot":
        one["slot"] = draw(st.sampled_from(["#x", "#y"]))
    return one | (draw(dates) if draw(st.integers(0, 5)) == 5 else {})


by_events: st.SearchStrategy[Plain] = st.sampled_from([
    {"event": "Quiz"}, {"event": "Quiz"}, {"event": "Page Viewed"},
    {"event": "Product Added", "properties": {"category": "a"}}])
by_moves: st.SearchStrategy[Plain] = st.sampled_from([
    {"segment": "s0"}, {"left_segment": "s0"}, {"segment": "s1"}, {"event": "Quiz", "delay": "23s"},
    {"event": "Quiz", "delay": "23s"}, {"segment": "s1", "delay": "3h"}])
by_being_here: st.SearchStrategy[Plain] = st.sampled_from([{"exit_intent": True}, {"seconds_on_site": 31}])
memberships: st.SearchStrategy[Plain] = st.sampled_from([
    {"session": {"pages_at_least": 2}}, {"did": {"event": "Page Viewed", "within": "41s"}},
    {"has": {"trait": {"plan": "gold"}}}, {"cart": {"untouched_for": "53s"}}])


@st.composite
def shops_with(draw: st.DrawFn, triggers: st.SearchStrategy[Plain]) -> Plain:
    made = draw(st.lists(campaigns(triggers), min_size=2, max_size=5))
    words = {"content": {"default": {"title": "Hello"}}}
    return {"shop": draw(shops), "campaigns": {f"c{n}": {**words, **one} for n, one in enumerate(made)},
            "segments": {f"s{n}": {"when": draw(memberships)} for n in range(2)}}


SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
gaps = st.sampled_from([0, SECOND, 5 * SECOND, 20 * SECOND, 45 * SECOND, 2 * MINUTE, 31 * MINUTE, 5 * HOUR, 9 * HOUR,
                        24 * HOUR])
doings = st.one_of(
    st.tuples(st.sampled_from(["Quiz", "Quiz", "Page Viewed"])),
    st.tuples(st.sampled_from(["Quiz", "Product Added", "Order Completed", "Exit Intent", "Page Viewed"])),
    st.tuples(st.sampled_from(["Offer Shown", "Message Delivered"]), st.just(0)),
    st.tuples(st.sampled_from(["Offer Shown", "Offer Dismissed", "Offer Held", "Message Delivered", "Message Held",
                               "Message Bounced"]), st.integers(0, 2)),
    st.dictionaries(st.sampled_from(["marketing", "email", "email:marketing"]), st.booleans(), min_size=1,
                    max_size=2).map(lambda answers: ("Consent Updated", 0, answers)))
histories = st.lists(st.tuples(gaps, doings), min_size=8, max_size=20)
people = st.sampled_from(["x", "y", "z", "u", "v"])
zones = st.sampled_from(["Europe/Rome", "America/New_York"])
MUG = {"product_id": "p", "name": "Mug", "price": 10, "category": "a", "quantity": 1}


def lived(plain: Plain, who: str, zone: str, history: Any) -> Both:
    both = Both(plain, who, zone)
    both.does(0, "Identified", email="ann@shop.example", plan="gold")
    for gap, (name, *rest) in history:
        which, properties = (*rest, 0, {})[:2] if not rest else (rest[0], rest[1] if len(rest) > 1 else {})
        if name == "Product Added":
            properties = MUG
        elif name == "Order Completed":
            properties = {"order_id": f"o{both.n}", "total": 20}
        if not name.startswith(("Offer", "Message")) or both.about(name, which) is not None:
            both.does(gap, name, which, **properties)
    both.waits(30 * HOUR)
    return both


@given(shops_with(by_events), people, zones, histories)
@settings(max_examples=examples(60), deadline=None)
def test_occasions_that_are_events(plain: Plain, who: str, zone: str, history: Any) -> None:
    lived(plain, who, zone, history)


@given(shops_with(by_events | by_moves), people, zones, histories)
@settings(max_examples=examples(40), deadline=None)
def test_segments_and_delays(plain: Plain, who: str, zone: str, history: Any) -> None:
    lived(plain, who, zone, history)


@given(shops_with(by_being_here | by_being_here | by_events), people, zones, histories)
@settings(max_examples=examples(40), deadline=None)
def test_exit_offers_and_seconds_on_the_site(plain: Plain, who: str, zone: str, history: Any) -> None:
    lived(plain, who, zone, history)
