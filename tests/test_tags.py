"""Static segments: who puts in, who takes out, until when; held against a plain reading at every instant."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Move, Send
from domain.letter import Letter
from flows.onsite import STEPS
from state import tags
from state.context import Due
from state.merge import absorb, hand_over
from state.person import MAX_TAGS, Person
from state.rules import compile_rules
from tests.shards import record
from tests.support import examples
from tests.town import Town
from tests.visitor import T0, Visitor, playbook, short

SECOND = 1_000


def static(enter: list[dict[str, Any]], leave: list[dict[str, Any]] | None = None, **rest: Any) -> dict[str, Any]:
    return {"static": True, "enter_on": enter, "leave_on": leave or [], **rest}


def test_an_event_with_its_properties_puts_in_and_another_takes_out() -> None:
    visitor = Visitor(playbook(segments={"vip": static(
        [{"event": "Quiz Finished", "properties": {"score": {"at_least": 5}}}], [{"event": "Signed Out"}])}))
    assert short(visitor.does(0, "Quiz Finished", score=3)) == []
    (entered,) = visitor.does(1, "Quiz Finished", score=7)
    assert isinstance(entered, Move)
    assert (entered.entered, entered.because.trigger, entered.because.held) == (
        True, "Quiz Finished", ('event "Quiz Finished"',))
    assert visitor.person.tags == visitor.person.segments == {"vip": T0 + 1}
    assert short(visitor.does(2, "Quiz Finished", score=9)) == [], "who is in is in"
    assert visitor.person.tags == {"vip": T0 + 1}
    assert short(visitor.does(3, "Signed Out")) == [(3, "left", "vip")]
    assert (visitor.person.tags, visitor.person.segments) == ({}, {})


def test_when_is_asked_at_the_occasion_and_only_then() -> None:
    visitor = Visitor(playbook(segments={"keen": static(
        [{"event": "Quiz Finished", "when": {"session": {"pages_at_least": 2}}}])}))
    visitor.does(0, "Page Viewed")
    visitor.does(1, "Quiz Finished")
    visitor.does(2, "Page Viewed")
    assert visitor.person.tags == {}, "that it holds later is no occasion"
    (entered,) = visitor.does(3, "Quiz Finished")
    assert isinstance(entered, Move)
    assert entered.because.held == ('event "Quiz Finished"', "at least 2 pages this visit (has 2)")
    visitor.waits(3_600_000)
    assert set(visitor.person.tags) == {"keen"}, "and that it no longer holds takes nobody out"


def test_a_stay_ends_to_the_millisecond_and_begins_anew_with_every_occasion() -> None:
    visitor = Visitor(playbook(segments={"hot": static([{"event": "Quiz Finished"}], stays="1m")}))
    visitor.does(0, "Quiz Finished")
    visitor.does(30_000, "Quiz Finished")
    assert short(visitor.waits(89_999)) == []
    (left,) = visitor.waits(90_000)
    assert isinstance(left, Move)
    assert (left.at, left.entered, left.because.reason) == (T0 + 90_000, False, "expired")
    assert not [timer for timer in visitor.person.timers if timer.startswith("untag:")]


def test_other_segments_and_campaigns_see_a_tag_in_the_same_happening() -> None:
    visitor = Visitor(playbook(
        segments={"a": {"when": {"in_segment": "z"}}, "m": static([{"segment": "a"}]),
                  "n": static([{"left_segment": "a"}]),
                  "z": static([{"event": "Quiz Finished"}], [{"event": "Signed Out"}])},
        campaigns={"hello": {"trigger": {"segment": "m"}, "when": {"in_segment": "z"}}}))
    assert short(visitor.does(0, "Quiz Finished")) == [
        (0, "entered", "z"), (0, "entered", "a"), (0, "entered", "m"), (0, "send", "hello")]
    assert short(visitor.does(1, "Signed Out")) == [(1, "left", "z"), (1, "left", "a"), (1, "entered", "n")]


def test_what_takes_out_comes_before_what_puts_in_and_that_before_the_end_of_the_stay() -> None:
    both = Visitor(playbook(segments={"one": static([{"event": "Quiz Finished"}], [{"event": "Quiz Finished"}])}))
    assert short(both.does(0, "Quiz Finished")) == []
    again = Visitor(playbook(segments={
        "a": static([{"event": "Quiz Finished"}], stays="1m"),
        "b": static([{"event": "Quiz Finished"}, {"left_segment": "c"}], stays="1m"),
        "c": static([{"event": "Quiz Finished"}], stays="1m")}))
    again.does(0, "Quiz Finished")
    assert short(again.waits(60_000)) == [(60_000, "left", "a"), (60_000, "left", "c")]
    assert short(again.waits(120_000)) == [(120_000, "left", "b")]


def test_a_learned_band_and_an_rfm_cell_are_occasions_too() -> None:
    visitor = Visitor(playbook(
        shop={"rfm": {}}, segments={"bought": static([{"segment": "rfm_511"}]), "group": static([
            {"segment": "rfm_new_customers"}])}))
    visitor.does(0, "Order Completed", order_id="o", total=5)
    assert set(visitor.person.tags) == {"bought", "group"}


# -- for who acts afterwards ---------------------------------------------------------------------------------------


def test_a_tag_of_a_workflow_is_seen_by_everything_at_the_same_instant() -> None:
    visitor = Visitor(playbook(segments={
        "vip": static([], stays="1d"), "follows": static([{"segment": "vip"}]), "dynamic": {"when": {
            "in_segment": "follows"}}, "no": {"when": {}}}))
    visitor.does(0, "Page Viewed")
    person, context = visitor.person, visitor.context
    moves = tags.tag(person, "vip", context, "workflow welcome")
    assert [(move.segment, move.entered, move.because.trigger) for move in moves] == [
        ("vip", True, "workflow welcome"), ("follows", True, "workflow")]
    assert set(moves) <= set(context.moves)
    assert len({move.id for move in visitor.actions if isinstance(move, Move)} | {move.id for move in moves}) == len(
        visitor.actions) + 2
    assert person.timers["again:"] == T0
    assert short(visitor.waits(0)) == [(0, "entered", "dynamic")]
    assert tags.tag(person, "vip", context, "x") == (), "who is in is in"
    assert tags.tag(person, "no", context, "x") == tags.tag(person, "unheard", context, "x") == ()
    assert [move.segment for move in tags.untag(person, "vip", context, "x")] == ["vip"]
    assert tags.untag(person, "vip", context, "x") == ()
    assert "untag:vip" not in person.timers


def test_of_too_many_the_oldest_gives_way() -> None:
    names = [f"t{n:03}" for n in range(MAX_TAGS + 1)]
    visitor = Visitor(playbook(segments={name: static([], stays="1d") for name in names} | {
        "first": {"when": {"in_segment": names[0]}}}))
    visitor.does(0, "Page Viewed")
    for n, name in enumerate(names[:-1]):
        visitor.waits(n + 1)
        tags.tag(visitor.person, name, visitor.context, "x")
    visitor.waits(1_000)
    assert "first" in visitor.person.segments
    moves = tags.tag(visitor.person, names[-1], visitor.context, "x")
    assert [(move.segment, move.entered, move.because.reason) for move in moves] == [
        (names[0], False, "too_many"), (names[-1], True, "")]
    assert len(visitor.person.tags) == MAX_TAGS
    assert "untag:" + names[0] not in visitor.person.timers
    visitor.waits(1_000)
    assert "first" not in visitor.person.segments


# -- another playbook ----------------------------------------------------------------------------------------------


def test_a_tag_survives_a_new_playbook_as_long_as_the_segment_is_static() -> None:
    before = {"kept": static([{"event": "Quiz Finished"}], stays="1m"), "gone": static([{"event": "Quiz Finished"}]),
              "dynamic": static([{"event": "Quiz Finished"}], stays="1m"), "now_tagged": {"when": {}},
              "later": static([{"event": "Quiz Finished"}]), "good": static([{"event": "Quiz Finished"}], stays="1m")}
    visitor = Visitor(playbook(segments=before))
    visitor.does(0, "Quiz Finished")
    assert set(visitor.person.segments) == set(before)
    visitor.swaps(playbook(segments={
        "kept": static([], stays="5m"), "dynamic": {"when": {"session": {"pages_at_least": 1}}},
        "now_tagged": static([]), "later": static([], stays="2m"), "good": static([])}))
    moves = visitor.does(1_000, "Product Viewed", product_id="p")
    assert sorted(short(moves)) == [(1_000, "left", "dynamic"), (1_000, "left", "gone"), (1_000, "left", "now_tagged")]
    assert set(visitor.person.tags) == set(visitor.person.segments) == {"kept", "later", "good"}
    assert short(visitor.waits(60_000)) == [(60_000, "left", "kept")], "a stay that has begun ends when it was to end"
    assert short(visitor.waits(120_000)) == [(120_000, "left", "later")], "counted from when they came in"
    visitor.waits(900_000)
    assert set(visitor.person.tags) == {"good"}


def test_that_everybody_is_looked_at_again_is_no_occasion() -> None:
    visitor = Visitor(playbook(segments={"tagged": static([{"segment": "here"}])}))
    visitor.does(0, "Page Viewed")
    visitor.swaps(playbook(segments={"tagged": static([{"segment": "here"}]), "here": {"when": {}}}))
    visitor._run("playbook-0", T0 + 1, Due("playbook", "", T0 + 1))
    assert set(visitor.person.segments) == {"here"}


# -- two who turn out to be one ------------------------------------------------------------------------------------

some_tags = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 50), st.integers(51, 99)), max_size=4)


def tagged(key: str, some: dict[str, tuple[int, int]]) -> Person:
    return Person(id=key, tags={name: since for name, (since, _) in some.items()},
                  timers={f"untag:{name}": until for name, (_, until) in some.items()})


@given(some_tags, some_tags)
def test_a_login_brings_the_tags_along_since_the_earlier_until_the_later(one: Any, other: Any) -> None:
    ann = tagged("u:ann", one)
    absorb(ann, hand_over(browser := tagged("a:x", other)), 50)
    assert (browser.tags, browser.timers) == ({}, {})
    for name in {*one, *other}:
        both = [some[name] for some in (one, other) if name in some]
        assert ann.tags[name] == min(since for since, _ in both)
        assert ann.timers["untag:" + name] == max(until for _, until in both)
    assert set(ann.tags) == {*one, *other}
    turned = tagged("u:ann", other)
    absorb(turned, hand_over(tagged("a:x", one)), 50)
    assert (turned.tags, turned.timers) == (ann.tags, ann.timers), "it does not matter who of the two was asked first"


def test_a_tag_moves_with_a_login_through_real_shards_and_ends_in_time(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, compile_rules(playbook(
        segments={"vip": static([{"event": "Quiz Finished"}], stays="1h"), "also": {"when": {"in_segment": "vip"}}},
        campaigns={"hello": {"trigger": {"segment": "also"}}})))
    town.feed(record("x", "Quiz Finished", at=1_000))
    town.feed(record("x", at=2_000, userId="ann", context={"attimo": {"verified": True}}))
    ann, browser = town.person("u:ann"), town.person("a:x")
    assert ann is not None
    assert browser is not None
    assert (ann.tags, set(ann.segments), ann.timers["untag:vip"]) == ({"vip": 1_000}, {"vip", "also"}, 3_601_000)
    assert (browser.tags, browser.timers) == ({}, {})
    town.tick(3_600_999)
    assert set((town.person("u:ann") or ann).segments) >= {"vip"}
    town.tick(3_601_000)
    assert (town.person("u:ann") or ann).segments == {}


# -- a plain reading -----------------------------------------------------------------------------------------------

events = st.sampled_from(["A", "B", "C"])


@st.composite
def books(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Segments, each of which refers only to those before it."""
    found: list[dict[str, Any]] = []
    names = draw(st.permutations(["a", "b", "c", "d", "e", "f"]))
    for name in names[:draw(st.integers(1, 6))]:
        before = st.sampled_from([one["name"] for one in found]) if found else st.nothing()
        needs = st.fixed_dictionaries({}, optional={
            "in_segment": before, "not": st.builds(lambda other: {"in_segment": other}, before)}
            if found else {})
        moments = [st.builds(lambda event: {"event": event}, events)]
        if found:
            moments += [st.builds(lambda other: {"segment": other}, before),
                        st.builds(lambda other: {"left_segment": other}, before)]
        occasions = st.lists(st.builds(lambda moment, when: {**moment, "when": when} if when else moment,
                                       st.one_of(moments), needs), max_size=2)
        if draw(st.booleans()):
            found.append({"name": name, **static(draw(occasions), draw(occasions))})
            if (stays := draw(st.integers(0, 9))) > 2:
                found[-1]["stays"] = f"{stays}s"
        else:
            did = {"did": {"event": draw(events), "within": f"{draw(st.integers(1, 9))}s"}}
            when = {**did, **draw(needs)}
            found.append({"name": name, "when": draw(st.sampled_from([when, {"any": [did, draw(needs) or did]}]))})
    return found


class Plain:
    """What the words say, one second after the other."""

    def __init__(self, book: list[dict[str, Any]]) -> None:
        self.book, self.inside, self.until, self.last = book, set[str](), dict[str, int](), dict[str, int]()

    def second(self, now: int, event: str) -> list[tuple[str, bool]]:
        """Time alone (no event), or an event; who moves."""
        if event:
            self.last[event] = now
        moves: dict[str, bool] = {}
        for one in self.book:
            name = one["name"]
            holds = self._static(one, now, event, moves) if "static" in one else self._holds(one["when"], now)
            if holds is not (name in self.inside):
                moves[name] = holds
                (self.inside.add if holds else self.inside.discard)(name)
        return sorted(moves.items())

    def _static(self, one: dict[str, Any], now: int, event: str, moves: dict[str, bool]) -> bool:
        name = one["name"]
        inside = name in self.inside
        for occasion in one["leave_on"]:
            if self._comes(occasion, now, event, moves):
                return False
        for occasion in one["enter_on"]:
            if self._comes(occasion, now, event, moves):
                self.until[name] = now + int(one.get("stays", "999999s")[:-1])
                return True
        return inside and now < self.until[name]

    def _comes(self, occasion: dict[str, Any], now: int, event: str, moves: dict[str, bool]) -> bool:
        if "event" in occasion:
            came = occasion["event"] == event
        elif "segment" in occasion:
            came = moves.get(occasion["segment"]) is True
        else:
            came = moves.get(occasion["left_segment"]) is False
        return came and self._holds(occasion.get("when", {}), now)

    def _holds(self, when: dict[str, Any], now: int) -> bool:
        answers = []
        for word, what in when.items():
            if word == "any":
                answers.append(any(self._holds(child, now) for child in what))
            elif word == "not":
                answers.append(not self._holds(what, now))
            elif word == "in_segment":
                answers.append(what in self.inside)
            else:
                answers.append(what["event"] in self.last and
                               now < self.last[what["event"]] + int(what["within"][:-1]))
        return all(answers)


@given(books(), st.lists(st.tuples(st.integers(0, 4), events, st.booleans()), min_size=1, max_size=10))
@settings(max_examples=examples(60), deadline=None)
def test_the_engine_and_a_plain_reading_agree_at_every_second(
        book: list[dict[str, Any]], history: list[tuple[int, str, bool]]) -> None:
    visitor, plain = Visitor(playbook(segments={one["name"]: {**one} for one in book})), Plain(book)
    visitor.does(0, "Page Viewed")
    assert moved(visitor, 0) == plain.second(0, "")
    now = 0
    for gap, event, rests in [*history, (30, "", False)]:
        for second in range(now + 1, now + gap + 1):
            assert short(visitor.waits(second * SECOND - 1)) == []
            visitor.waits(second * SECOND)
            assert moved(visitor, second) == plain.second(second, ""), f"at {second} s"
        now += gap
        if event:
            began = len(visitor.actions)
            visitor.does(now * SECOND, event)
            assert moved(visitor, now, began) == plain.second(now, event), f"{event} at {now} s"
        assert set(visitor.person.segments) == plain.inside
        if rests:
            visitor.rests()


def moved(visitor: Visitor, second: int, began: int = 0) -> list[tuple[str, bool]]:
    """Who moved at this second, as it was said from action `began` on."""
    return sorted((move.segment, move.entered) for move in visitor.actions[began:]
                  if isinstance(move, Move) and move.at == T0 + second * SECOND)


def test_a_campaign_of_a_tag_that_came_along_is_decided_once() -> None:
    visitor = Visitor(playbook(segments={"vip": static([{"event": "Quiz Finished"}])},
                               campaigns={"hello": {"trigger": {"segment": "vip"}, "limits": {"total": 1}}}))
    visitor.does(0, "Quiz Finished")
    ann = Visitor(playbook(segments={"vip": static([])}), name="y")
    ann.person = Person(id="u:ann")
    absorb(ann.person, hand_over(visitor.person), T0 + 5)
    ann._run("letters-0-1", T0 + 5, Letter(kind="handover", sender="a:x", to="u:ann", seq=1))
    assert short(ann.actions) == [(5, "entered", "vip")]
    assert len([one for one in visitor.actions if isinstance(one, Send)]) == 1
