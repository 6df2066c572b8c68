"""Static segments: who puts in, who takes out, until when; held against a plain reading at every instant."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import SegmentChange, Send, ShardMessage
from operators.steps import STEPS
from state.context import TimerFired
from state.membership import static_segments
from state.merge import build_merge_response, merge_into
from state.person.model import MAX_STATIC_SEGMENTS, Person
from state.playbook.compiled import compile_rules
from tests.harness.cluster import ShardCluster
from tests.harness.person import T0, PersonHarness, make_playbook, summarize
from tests.harness.shard import record
from tests.harness.support import examples

SECOND = 1_000


def static_segment(
    enter: list[dict[str, Any]], leave: list[dict[str, Any]] | None = None, **rest: Any
) -> dict[str, Any]:
    return {"static": True, "enter_on": enter, "exit_on": leave or [], **rest}


def test_events_add_to_and_remove_from_a_static_segment() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "vip": static_segment(
                    [{"event": "Quiz Finished", "properties": {"score": {"at_least": 5}}}], [{"event": "Signed Out"}]
                )
            }
        )
    )
    assert summarize(visitor.emit(0, "Quiz Finished", score=3)) == []
    (entered,) = visitor.emit(1, "Quiz Finished", score=7)
    assert isinstance(entered, SegmentChange)
    assert (entered.entered, entered.because.trigger, entered.because.passed) == (
        True,
        "Quiz Finished",
        ('event "Quiz Finished"',),
    )
    assert visitor.person.static_segments == visitor.person.segments == {"vip": T0 + 1}
    assert summarize(visitor.emit(2, "Quiz Finished", score=9)) == [], "who is in is in"
    assert visitor.person.static_segments == {"vip": T0 + 1}
    assert summarize(visitor.emit(3, "Signed Out")) == [(3, "exited", "vip")]
    assert (visitor.person.static_segments, visitor.person.segments) == ({}, {})


def test_entry_condition_is_checked_only_at_the_trigger() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={"keen": static_segment([{"event": "Quiz Finished", "when": {"session": {"pages_at_least": 2}}}])}
        )
    )
    visitor.emit(0, "Page Viewed")
    visitor.emit(1, "Quiz Finished")
    visitor.emit(2, "Page Viewed")
    assert visitor.person.static_segments == {}, "that it holds later is no occasion"
    (entered,) = visitor.emit(3, "Quiz Finished")
    assert isinstance(entered, SegmentChange)
    assert entered.because.passed == ('event "Quiz Finished"', "at least 2 pages this session (has 2)")
    visitor.advance(3_600_000)
    assert set(visitor.person.static_segments) == {"keen"}, "and that it no longer holds takes nobody out"


def test_stay_is_exact_and_renewed_by_each_trigger() -> None:
    visitor = PersonHarness(
        make_playbook(segments={"hot": static_segment([{"event": "Quiz Finished"}], expires_after="1m")})
    )
    visitor.emit(0, "Quiz Finished")
    visitor.emit(30_000, "Quiz Finished")
    assert summarize(visitor.advance(89_999)) == []
    (left,) = visitor.advance(90_000)
    assert isinstance(left, SegmentChange)
    assert (left.at, left.entered, left.because.reason) == (T0 + 90_000, False, "expired")
    assert not [timer for timer in visitor.person.timers if timer.startswith("untag:")]


def test_static_segment_change_is_visible_at_once() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "a": {"when": {"in_segment": "z"}},
                "m": static_segment([{"segment": "a"}]),
                "n": static_segment([{"exited_segment": "a"}]),
                "z": static_segment([{"event": "Quiz Finished"}], [{"event": "Signed Out"}]),
            },
            campaigns={"hello": {"trigger": {"segment": "m"}, "when": {"in_segment": "z"}}},
        )
    )
    assert summarize(visitor.emit(0, "Quiz Finished")) == [
        (0, "entered", "z"),
        (0, "entered", "a"),
        (0, "entered", "m"),
        (0, "send", "hello"),
    ]
    assert summarize(visitor.emit(1, "Signed Out")) == [(1, "exited", "z"), (1, "exited", "a"), (1, "entered", "n")]


def test_leave_precedes_enter_precedes_expiry() -> None:
    both = PersonHarness(
        make_playbook(segments={"one": static_segment([{"event": "Quiz Finished"}], [{"event": "Quiz Finished"}])})
    )
    assert summarize(both.emit(0, "Quiz Finished")) == []
    again = PersonHarness(
        make_playbook(
            segments={
                "a": static_segment([{"event": "Quiz Finished"}], expires_after="1m"),
                "b": static_segment([{"event": "Quiz Finished"}, {"exited_segment": "c"}], expires_after="1m"),
                "c": static_segment([{"event": "Quiz Finished"}], expires_after="1m"),
            }
        )
    )
    again.emit(0, "Quiz Finished")
    assert summarize(again.advance(60_000)) == [(60_000, "exited", "a"), (60_000, "exited", "c")]
    assert summarize(again.advance(120_000)) == [(120_000, "exited", "b")]


def test_score_bands_and_rfm_cells_trigger_entry() -> None:
    visitor = PersonHarness(
        make_playbook(
            shop={"rfm": {}},
            segments={
                "bought": static_segment([{"segment": "rfm_511"}]),
                "group": static_segment([{"segment": "rfm_new_customers"}]),
            },
        )
    )
    visitor.emit(0, "Order Completed", order_id="o", total=5)
    assert set(visitor.person.static_segments) == {"bought", "group"}


# -- for who acts afterwards ---------------------------------------------------------------------------------------


def test_workflow_tag_is_visible_at_once() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "vip": static_segment([], expires_after="1d"),
                "follows": static_segment([{"segment": "vip"}]),
                "dynamic": {"when": {"in_segment": "follows"}},
                "no": {"when": {}},
            }
        )
    )
    visitor.emit(0, "Page Viewed")
    person, context = visitor.person, visitor.context
    moves = static_segments.tag(person, "vip", context, "workflow welcome")
    assert [(move.segment, move.entered, move.because.trigger) for move in moves] == [
        ("vip", True, "workflow welcome"),
        ("follows", True, "workflow"),
    ]
    assert set(moves) <= set(context.segment_changes)
    assert (
        len({move.id for move in visitor.actions if isinstance(move, SegmentChange)} | {move.id for move in moves})
        == len(visitor.actions) + 2
    )
    assert person.timers["again:"] == T0
    assert summarize(visitor.advance(0)) == [(0, "entered", "dynamic")]
    assert static_segments.tag(person, "vip", context, "x") == (), "who is in is in"
    assert static_segments.tag(person, "no", context, "x") == static_segments.tag(person, "unheard", context, "x") == ()
    assert [move.segment for move in static_segments.untag(person, "vip", context, "x")] == ["vip"]
    assert static_segments.untag(person, "vip", context, "x") == ()
    assert "untag:vip" not in person.timers


def test_oldest_static_membership_is_evicted() -> None:
    names = [f"t{n:03}" for n in range(MAX_STATIC_SEGMENTS + 1)]
    visitor = PersonHarness(
        make_playbook(
            segments={name: static_segment([], expires_after="1d") for name in names}
            | {"first": {"when": {"in_segment": names[0]}}}
        )
    )
    visitor.emit(0, "Page Viewed")
    for n, name in enumerate(names[:-1]):
        visitor.advance(n + 1)
        static_segments.tag(visitor.person, name, visitor.context, "x")
    visitor.advance(1_000)
    assert "first" in visitor.person.segments
    moves = static_segments.tag(visitor.person, names[-1], visitor.context, "x")
    assert [(move.segment, move.entered, move.because.reason) for move in moves] == [
        (names[0], False, "max_segments"),
        (names[-1], True, ""),
    ]
    assert len(visitor.person.static_segments) == MAX_STATIC_SEGMENTS
    assert "untag:" + names[0] not in visitor.person.timers
    visitor.advance(1_000)
    assert "first" not in visitor.person.segments


# -- another playbook ----------------------------------------------------------------------------------------------


def test_membership_survives_while_the_segment_is_static() -> None:
    before = {
        "kept": static_segment([{"event": "Quiz Finished"}], expires_after="1m"),
        "gone": static_segment([{"event": "Quiz Finished"}]),
        "dynamic": static_segment([{"event": "Quiz Finished"}], expires_after="1m"),
        "now_tagged": {"when": {}},
        "later": static_segment([{"event": "Quiz Finished"}]),
        "good": static_segment([{"event": "Quiz Finished"}], expires_after="1m"),
    }
    visitor = PersonHarness(make_playbook(segments=before))
    visitor.emit(0, "Quiz Finished")
    assert set(visitor.person.segments) == set(before)
    visitor.switch_playbook(
        make_playbook(
            segments={
                "kept": static_segment([], expires_after="5m"),
                "dynamic": {"when": {"session": {"pages_at_least": 1}}},
                "now_tagged": static_segment([]),
                "later": static_segment([], expires_after="2m"),
                "good": static_segment([]),
            }
        )
    )
    moves = visitor.emit(1_000, "Product Viewed", product_id="p")
    assert sorted(summarize(moves)) == [
        (1_000, "exited", "dynamic"),
        (1_000, "exited", "gone"),
        (1_000, "exited", "now_tagged"),
    ]
    assert set(visitor.person.static_segments) == set(visitor.person.segments) == {"kept", "later", "good"}
    assert summarize(visitor.advance(60_000)) == [(60_000, "exited", "kept")], (
        "a stay that has begun ends when it was to end"
    )
    assert summarize(visitor.advance(120_000)) == [(120_000, "exited", "later")], "counted from when they came in"
    visitor.advance(900_000)
    assert set(visitor.person.static_segments) == {"good"}


def test_reevaluation_triggers_no_static_segment() -> None:
    visitor = PersonHarness(make_playbook(segments={"tagged": static_segment([{"segment": "here"}])}))
    visitor.emit(0, "Page Viewed")
    visitor.switch_playbook(
        make_playbook(segments={"tagged": static_segment([{"segment": "here"}]), "here": {"when": {}}})
    )
    visitor._apply("playbook-0", T0 + 1, TimerFired("playbook", "", T0 + 1))
    assert set(visitor.person.segments) == {"here"}


# -- two who turn out to be one ------------------------------------------------------------------------------------

memberships = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 50), st.integers(51, 99)), max_size=4)


def person_with_tags(key: str, some: dict[str, tuple[int, int]]) -> Person:
    return Person(
        id=key,
        static_segments={name: since for name, (since, _) in some.items()},
        timers={f"untag:{name}": until for name, (_, until) in some.items()},
    )


@given(memberships, memberships)
def test_login_merges_static_memberships(one: Any, other: Any) -> None:
    ann = person_with_tags("u:ann", one)
    merge_into(ann, build_merge_response(browser := person_with_tags("a:x", other)), 50)
    assert (browser.static_segments, browser.timers) == ({}, {})
    for name in {*one, *other}:
        both = [some[name] for some in (one, other) if name in some]
        assert ann.static_segments[name] == min(since for since, _ in both)
        assert ann.timers["untag:" + name] == max(until for _, until in both)
    assert set(ann.static_segments) == {*one, *other}
    turned = person_with_tags("u:ann", other)
    merge_into(turned, build_merge_response(person_with_tags("a:x", one)), 50)
    assert (turned.static_segments, turned.timers) == (ann.static_segments, ann.timers), (
        "it does not matter who of the two was asked first"
    )


def test_static_membership_moves_across_shards_on_login(tmp_path: Path) -> None:
    town = ShardCluster(
        tmp_path,
        STEPS,
        compile_rules(
            make_playbook(
                segments={
                    "vip": static_segment([{"event": "Quiz Finished"}], expires_after="1h"),
                    "also": {"when": {"in_segment": "vip"}},
                },
                campaigns={"hello": {"trigger": {"segment": "also"}}},
            )
        ),
    )
    town.feed(record("x", "Quiz Finished", at=1_000))
    town.feed(record("x", at=2_000, userId="ann", context={"attimo": {"verified": True}}))
    ann, browser = town.person("u:ann"), town.person("a:x")
    assert ann is not None
    assert browser is not None
    assert (ann.static_segments, set(ann.segments), ann.timers["untag:vip"]) == (
        {"vip": 1_000},
        {"vip", "also"},
        3_601_000,
    )
    assert (browser.static_segments, browser.timers) == ({}, {})
    town.tick(3_600_999)
    assert set((town.person("u:ann") or ann).segments) >= {"vip"}
    town.tick(3_601_000)
    assert (town.person("u:ann") or ann).segments == {}


# -- a plain reading -----------------------------------------------------------------------------------------------

events = st.sampled_from(["A", "B", "C"])


@st.composite
def playbooks(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Segments, each of which refers only to those before it."""
    found: list[dict[str, Any]] = []
    names = draw(st.permutations(["a", "b", "c", "d", "e", "f"]))
    for name in names[: draw(st.integers(1, 6))]:
        before = st.sampled_from([one["name"] for one in found]) if found else st.nothing()
        needs = st.fixed_dictionaries(
            {},
            optional={"in_segment": before, "not": st.builds(lambda other: {"in_segment": other}, before)}
            if found
            else {},
        )
        moments = [st.builds(lambda event: {"event": event}, events)]
        if found:
            moments += [
                st.builds(lambda other: {"segment": other}, before),
                st.builds(lambda other: {"exited_segment": other}, before),
            ]
        occasions = st.lists(
            st.builds(lambda moment, when: {**moment, "when": when} if when else moment, st.one_of(moments), needs),
            max_size=2,
        )
        if draw(st.booleans()):
            found.append({"name": name, **static_segment(draw(occasions), draw(occasions))})
            if (stays := draw(st.integers(0, 9))) > 2:
                found[-1]["expires_after"] = f"{stays}s"
        else:
            did = {"did": {"event": draw(events), "within": f"{draw(st.integers(1, 9))}s"}}
            when = {**did, **draw(needs)}
            found.append({"name": name, "when": draw(st.sampled_from([when, {"any": [did, draw(needs) or did]}]))})
    return found


class StaticSegmentModel:
    """What the words say, one second after the other."""

    def __init__(self, book: list[dict[str, Any]]) -> None:
        self.segments, self.inside, self.until, self.last = book, set[str](), dict[str, int](), dict[str, int]()

    def advance(self, now: int, event: str) -> list[tuple[str, bool]]:
        """Time alone (no event), or an event; who moves."""
        if event:
            self.last[event] = now
        moves: dict[str, bool] = {}
        for one in self.segments:
            name = one["name"]
            holds = self._static(one, now, event, moves) if "static" in one else self._is_true(one["when"], now)
            if holds is not (name in self.inside):
                moves[name] = holds
                (self.inside.add if holds else self.inside.discard)(name)
        return sorted(moves.items())

    def _static(self, one: dict[str, Any], now: int, event: str, moves: dict[str, bool]) -> bool:
        name = one["name"]
        inside = name in self.inside
        for occasion in one["exit_on"]:
            if self._is_triggered(occasion, now, event, moves):
                return False
        for occasion in one["enter_on"]:
            if self._is_triggered(occasion, now, event, moves):
                self.until[name] = now + int(one.get("expires_after", "999999s")[:-1])
                return True
        return inside and now < self.until[name]

    def _is_triggered(self, occasion: dict[str, Any], now: int, event: str, moves: dict[str, bool]) -> bool:
        if "event" in occasion:
            came = occasion["event"] == event
        elif "segment" in occasion:
            came = moves.get(occasion["segment"]) is True
        else:
            came = moves.get(occasion["exited_segment"]) is False
        return came and self._is_true(occasion.get("when", {}), now)

    def _is_true(self, when: dict[str, Any], now: int) -> bool:
        answers = []
        for word, what in when.items():
            if word == "any":
                answers.append(any(self._is_true(child, now) for child in what))
            elif word == "not":
                answers.append(not self._is_true(what, now))
            elif word == "in_segment":
                answers.append(what in self.inside)
            else:
                answers.append(what["event"] in self.last and now < self.last[what["event"]] + int(what["within"][:-1]))
        return all(answers)


@given(playbooks(), st.lists(st.tuples(st.integers(0, 4), events, st.booleans()), min_size=1, max_size=10))
@settings(max_examples=examples(60), deadline=None)
def test_static_segments_match_the_reference_model(
    book: list[dict[str, Any]], history: list[tuple[int, str, bool]]
) -> None:
    visitor, plain = (
        PersonHarness(make_playbook(segments={one["name"]: {**one} for one in book})),
        StaticSegmentModel(book),
    )
    visitor.emit(0, "Page Viewed")
    assert changes_at(visitor, 0) == plain.advance(0, "")
    now = 0
    for gap, event, rests in [*history, (30, "", False)]:
        for second in range(now + 1, now + gap + 1):
            assert summarize(visitor.advance(second * SECOND - 1)) == []
            visitor.advance(second * SECOND)
            assert changes_at(visitor, second) == plain.advance(second, ""), f"at {second} s"
        now += gap
        if event:
            began = len(visitor.actions)
            visitor.emit(now * SECOND, event)
            assert changes_at(visitor, now, began) == plain.advance(now, event), f"{event} at {now} s"
        assert set(visitor.person.segments) == plain.inside
        if rests:
            visitor.store_and_reload()


def changes_at(harness: PersonHarness, second: int, began: int = 0) -> list[tuple[str, bool]]:
    """Who moved at this second, as it was said from action `began` on."""
    return sorted(
        (move.segment, move.entered)
        for move in harness.actions[began:]
        if isinstance(move, SegmentChange) and move.at == T0 + second * SECOND
    )


def test_merged_membership_triggers_its_campaign_once() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={"vip": static_segment([{"event": "Quiz Finished"}])},
            campaigns={"hello": {"trigger": {"segment": "vip"}, "frequency_caps": {"total": 1}}},
        )
    )
    visitor.emit(0, "Quiz Finished")
    ann = PersonHarness(make_playbook(segments={"vip": static_segment([])}), anonymous_id="y")
    ann.person = Person(id="u:ann")
    merge_into(ann.person, build_merge_response(visitor.person), T0 + 5)
    ann._apply(
        "shard-messages-0-1", T0 + 5, ShardMessage(kind="merge_response", sender="a:x", recipient="u:ann", seq=1)
    )
    assert summarize(ann.actions) == [(5, "entered", "vip")]
    assert len([one for one in visitor.actions if isinstance(one, Send)]) == 1
