"""Workflows: who enters, what each step does, what is waited for, who leaves, and at which moment."""

from pathlib import Path
from typing import Any

import pytest

from domain import action
from domain.action import CouponNews, Progress
from flows.onsite import STEPS
from operators.advance_workflows import CIRCLE, CROWDED, MOST_AT_ONCE
from state.explain import explain
from state.person import MAX_RUNS
from state.rules import compile_rules
from state.view import known
from tests.shards import record
from tests.town import Town
from tests.visitor import T0, Visitor, playbook, short

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
BY_WORKFLOW = {"trigger": {"workflow": True}}
OFFER = {"offer": BY_WORKFLOW}


def flow(*steps: dict[str, Any], enters: Any = None, **more: Any) -> dict[str, Any]:
    return {"enters": enters or {"event": "Cart Viewed"}, "steps": list(steps), **more}


def ways(visitor: Visitor, since: int = 0) -> list[tuple[int, str]]:
    """How far somebody came: (ms after T0, what)."""
    return [(at, what) for at, what, _ in short([one for one in visitor.actions[since:] if isinstance(one, Progress)])]


def visitor(*steps: dict[str, Any], segments: Any = None, campaigns: Any = None, **more: Any) -> Visitor:
    """Somebody in a shop with one workflow, `w`."""
    return Visitor(playbook(
        segments=segments or {}, campaigns=campaigns or OFFER, workflows={"w": flow(*steps, **more)}))


# -- entering --------------------------------------------------------------------------------------------------


def test_of_two_workflows_on_one_event_the_second_knows_what_the_first_has_done() -> None:
    vip = {"event": "Cart Viewed", "when": {"in_segment": "vip"}}
    ann = Visitor(playbook(segments={"vip": {"static": True}}, campaigns=OFFER, workflows={
        "a": flow({"tag": "vip"}, {"wait": "1h"}), "b": flow({"wait": "1h"}, enters=vip),
        "c": flow({"wait": "1h"}, enters={"event": "Cart Viewed", "when": {"has": {"country": "CA"}}})}))
    ann.does(0, "Cart Viewed")
    assert sorted(run.workflow for run in ann.person.runs.values()) == ["a", "b"]


def test_an_event_with_its_properties_makes_people_enter() -> None:
    ann = visitor({"wait": "1h"}, enters={"event": "Product Viewed", "properties": {"category": "mugs"}})
    ann.does(0, "Product Viewed", product_id="p", category="cups")
    assert not ann.person.runs
    ann.does(5, "Product Viewed", product_id="p", category="mugs")
    assert ways(ann) == [(5, "entered"), (5, "step step_1")]
    ann.waits(2 * HOUR)
    assert ways(ann)[2:] == [(5 + HOUR, "finished step_1")]
    assert not ann.person.runs
    assert ann.person.been["w"].times == 1
    assert not [name for name in ann.person.timers if name.startswith("workflow:")]


def test_entering_and_leaving_a_segment_makes_people_enter() -> None:
    engaged = {"engaged": {"when": {"session": {"pages_at_least": 2}}}}
    ann = Visitor(playbook(segments=engaged, workflows={
        "come": flow({"goal": "came"}, enters={"segment": "engaged"}),
        "gone": flow({"goal": "went"}, enters={"left_segment": "engaged"})}))
    ann.does(0, "Page Viewed")
    ann.does(10, "Page Viewed")
    ann.waits(HOUR)
    assert ways(ann) == [(10, "entered"), (10, "goal came"), (10, "finished step_1"),
                         (10 + 30 * MINUTE, "entered"), (10 + 30 * MINUTE, "goal went"),
                         (10 + 30 * MINUTE, "finished step_1")]


def test_an_occasion_goes_only_for_whom_its_condition_holds_then() -> None:
    ann = visitor({"wait": "1h"}, enters=[{"event": "Cart Viewed", "when": {"session": {"pages_at_least": 2}}},
                                          {"event": "Exit Intent"}])
    ann.does(0, "Cart Viewed")
    assert ways(ann) == []
    ann.does(1, "Exit Intent")
    assert ways(ann) == [(1, "entered"), (1, "step step_1")]


def test_who_would_leave_at_once_does_not_enter() -> None:
    ann = visitor({"wait": "1h"}, leaves={"did": {"event": "Exit Intent"}})
    ann.does(0, "Exit Intent")
    ann.does(1, "Cart Viewed")
    assert ways(ann) == []


@pytest.mark.parametrize(("again", "entered"), [
    ({}, [0]), ({"again": "always"}, [0, HOUR, 3 * HOUR]),
    ({"again": "after", "again_after": "2h"}, [0, 3 * HOUR]), ({"again": "after", "again_after": "1h"}, [0, 3 * HOUR])])
def test_who_went_through_may_enter_again_as_it_says(again: dict[str, Any], entered: list[int]) -> None:
    ann = visitor({"wait": "1h"}, **again)
    for at in (0, HOUR - 1, HOUR, 3 * HOUR):
        ann.does(at, "Cart Viewed")
    assert [at for at, what in ways(ann) if what == "entered"] == entered


def test_entering_again_counts_from_the_moment_they_left() -> None:
    ann = visitor({"wait": "1h"}, again="after", again_after="2h")
    for at in (0, 3 * HOUR - 1, 3 * HOUR):
        ann.does(at, "Cart Viewed")
    assert [at for at, what in ways(ann) if what == "entered"] == [0, 3 * HOUR]


def test_nobody_is_in_it_more_often_at_once_than_it_says() -> None:
    ann = visitor({"wait": "1h"}, at_once=2, again="always")
    for at in (0, 1, 2, HOUR):
        ann.does(at, "Cart Viewed")
    assert [at for at, what in ways(ann) if what == "entered"] == [0, 1, HOUR]


def test_of_too_many_runs_the_oldest_gives_way_and_says_so() -> None:
    ann = Visitor(playbook(workflows={f"w{n:02}": flow({"wait": "30d"}) for n in range(MAX_RUNS)} | {
        "zz": flow({"wait": "30d"}, enters={"event": "Exit Intent"})}))
    ann.does(0, "Cart Viewed")
    ann.does(7, "Exit Intent")
    assert len(ann.person.runs) == MAX_RUNS
    assert ways(ann)[-3:] == [(7, f"left step_1 {CROWDED}"), (7, "entered"), (7, "step step_1")]


# -- steps -----------------------------------------------------------------------------------------------------


def test_steps_follow_each_other_at_one_instant_up_to_the_next_wait() -> None:
    ann = visitor({"goal": "one"}, {"go": "three"}, {"goal": "two"}, {"id": "three", "goal": "three"}, {"wait": "2d"},
                  {"goal": "four"}, {"exit": True}, {"goal": "never"})
    ann.does(0, "Cart Viewed")
    ann.rests()
    ann.waits(3 * DAY)
    assert ways(ann) == [(0, "entered"), (0, "goal one"), (0, "goal three"), (0, "step step_5"),
                         (2 * DAY, "goal four"), (2 * DAY, "finished step_7")]


def test_waiting_for_a_time_of_day_is_in_the_zone_of_the_person() -> None:
    ann = visitor({"wait_until": {"time": "09:30", "weekday": ["monday", "friday"]}}, {"goal": "now"})
    ann.does(0, "Cart Viewed")  # Tuesday, 14 November 2023, 23:13:20 in Rome
    ann.waits(7 * DAY)
    friday = 2 * DAY + (10 * 3600 + 16 * 60 + 40) * 1000
    assert ways(ann)[1:] == [(0, "step step_1"), (friday, "goal now"), (friday, "finished step_2")]


def test_an_event_that_is_waited_for_comes_after() -> None:
    ann = visitor({"wait_for": {"event": "Cart Viewed", "where": {"kind": "b"}, "within": "1h", "then": "yes"}},
                  {"goal": "no"}, {"exit": True}, {"id": "yes", "goal": "yes"})
    ann.does(0, "Cart Viewed", kind="b")
    ann.does(5, "Cart Viewed", kind="a")
    assert ways(ann) == [(0, "entered"), (0, "step step_1")]
    ann.does(9, "Cart Viewed", kind="b")
    assert ways(ann)[2:] == [(9, "goal yes"), (9, "finished yes")]


def test_when_time_is_up_they_go_on_otherwise() -> None:
    ann = visitor({"wait_for": {"event": "Exit Intent", "within": "1h", "otherwise": "late"}},
                  {"goal": "early"}, {"exit": True}, {"id": "late", "goal": "late"})
    ann.does(0, "Cart Viewed")
    ann.does(HOUR, "Exit Intent")
    assert ways(ann)[2:] == [(HOUR, "goal late"), (HOUR, "finished late")]


def test_a_condition_that_is_waited_for_may_hold_already_or_become_true_by_time_alone() -> None:
    long = {"wait_for": {"when": {"session": {"seconds_at_least": 60}}, "within": "1h"}}
    ann = visitor(long, {"goal": "a"}, long, {"goal": "b"})
    ann.does(0, "Cart Viewed")
    ann.waits(HOUR)
    assert ways(ann)[1:] == [(0, "step step_1"), (MINUTE, "goal a"), (MINUTE, "goal b"), (MINUTE, "finished step_4")]


def test_what_becomes_true_at_the_moment_when_time_is_up_still_counts() -> None:
    long = {"long": {"when": {"session": {"seconds_at_least": 60}}}}
    ann = visitor({"wait_for": {"when": {"in_segment": "long"}, "within": "60s", "then": "yes"}}, {"goal": "no"},
                  {"exit": True}, {"id": "yes", "goal": "yes"}, segments=long)
    ann.does(0, "Cart Viewed")
    ann.waits(HOUR)
    assert ways(ann)[2:] == [(MINUTE, "goal yes"), (MINUTE, "finished yes")]


def test_a_branch_takes_the_first_way_that_holds_else_goes_on() -> None:
    ways_of = [{"when": {"session": {"pages_at_least": n}}, "go": f"p{n}"} for n in (3, 2)]
    for pages, goal in ((1, "none"), (2, "p2"), (3, "p3")):
        ann = visitor({"branch": ways_of}, {"id": "none", "goal": "none"}, {"exit": True},
                      {"id": "p2", "goal": "p2"}, {"exit": True}, {"id": "p3", "goal": "p3"})
        for n in range(pages):
            ann.does(n, "Page Viewed")
        ann.does(10, "Cart Viewed")
        assert (10, f"goal {goal}") in ways(ann)


def test_a_split_sends_everybody_the_same_way_each_time_by_its_weights() -> None:
    book = playbook(workflows={"w": flow(
        {"split": {"rare": 1, "often": 3}}, {"id": "rare", "goal": "rare"}, {"exit": True},
        {"id": "often", "goal": "often"}, again="always")})
    taken = {"rare": 0, "often": 0}
    for n in range(400):
        ann = Visitor(book, f"v{n}")
        ann.does(0, "Cart Viewed")
        ann.person.id = "u:somebody else"  # a login gives another id
        ann.does(1, "Cart Viewed")
        first, second = [what for _, what in ways(ann) if what.startswith("goal")]
        assert first == second
        taken[first[5:]] += 1
    assert 70 <= taken["rare"] <= 130


def test_tags_and_traits_that_a_step_sets_are_known_at_the_same_instant() -> None:
    segments = {"vip": {"static": True}, "gold": {"when": {"has": {"trait": {"plan": "gold"}}}},
                "both": {"when": {"in_segment": "vip", "has": {"trait": {"plan": "gold"}}}}}
    ann = Visitor(playbook(segments=segments, workflows={
        "w": flow({"tag": "vip"}, {"set": {"plan": "gold"}}, {"wait": "1h"}, {"untag": "vip"}),
        "then": flow({"goal": "both"}, enters={"segment": "both"}),
        "over": flow({"goal": "over"}, enters={"left_segment": "vip"})}))
    ann.does(0, "Cart Viewed")
    assert set(ann.person.segments) == {"vip", "gold", "both"}
    assert (0, "goal both") in ways(ann)
    ann.waits(2 * HOUR)
    assert set(ann.person.segments) == {"gold"}
    assert (HOUR, "goal over") in ways(ann)


# -- sending ---------------------------------------------------------------------------------------------------


def sends(ann: Visitor) -> list[tuple[int, str, str]]:
    return [one for one in short(ann.actions) if one[1].startswith(("send", "hold", "disarm"))]


def test_a_send_goes_on_at_once_when_it_was_sent() -> None:
    ann = visitor({"send": "offer"}, {"goal": "said"})
    ann.does(0, "Cart Viewed")
    assert sends(ann) == [(0, "send", "offer")]
    assert ways(ann) == [(0, "entered"), (0, "step step_1"), (0, "goal said"), (0, "finished step_2")]


def test_a_send_that_is_held_goes_on_otherwise_at_once_without_patience() -> None:
    ann = visitor({"send": "offer", "otherwise": "no"}, {"goal": "said"}, {"exit": True}, {"id": "no", "goal": "no"},
                  again="always")
    ann.does(0, "Cart Viewed")
    ann.does(5, "Cart Viewed")
    assert sends(ann) == [(0, "send", "offer"), (5, "hold limit", "offer")]
    assert ways(ann)[-2:] == [(5, "goal no"), (5, "finished no")]


def test_with_patience_a_send_is_tried_again_at_the_next_event_and_every_hour() -> None:
    tried = {"send": "offer", "patience": "1d", "otherwise": "no"}
    ann = visitor({"wait": "2h"}, tried, {"goal": "said"}, {"exit": True}, {"id": "no", "goal": "no"})
    ann.does(0, "Cart Viewed")
    ann.waits(5 * HOUR)
    assert sends(ann) == [(2 * HOUR, "hold not_on_site", "offer")]
    ann.does(5 * HOUR + 7, "Page Viewed")
    assert sends(ann)[1:] == [(5 * HOUR + 7, "send", "offer")]
    assert ways(ann)[-2:] == [(5 * HOUR + 7, "goal said"), (5 * HOUR + 7, "finished step_4")]
    hourly = [at for at, name in ann.fired if name.startswith("workflow:")]
    assert hourly == [2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR]


def test_patience_ends() -> None:
    ann = visitor({"wait": "2h"}, {"send": "offer", "patience": "90m", "otherwise": "no"}, {"goal": "said"},
                  {"exit": True}, {"id": "no", "goal": "no"})
    ann.does(0, "Cart Viewed")
    ann.waits(DAY)
    assert ways(ann)[2:] == [(2 * HOUR, "step step_2"), (2 * HOUR + 90 * MINUTE, "goal no"),
                             (2 * HOUR + 90 * MINUTE, "finished no")]


def test_a_send_asks_the_audience_of_its_campaign() -> None:
    only = {"offer": {**BY_WORKFLOW, "when": {"session": {"pages_at_least": 9}}}}
    ann = visitor({"send": "offer", "otherwise": "no"}, {"goal": "said"}, {"exit": True}, {"id": "no", "goal": "no"},
                  campaigns=only)
    ann.does(0, "Cart Viewed")
    assert sends(ann) == [(0, "hold audience", "offer")]
    assert ways(ann)[-1] == (0, "finished no")


def test_two_runs_that_ask_for_the_same_at_once_ask_once() -> None:
    ann = Visitor(playbook(campaigns=OFFER, workflows={
        "a": flow({"send": "offer"}, {"goal": "a"}), "b": flow({"send": "offer", "otherwise": "n"}, {"goal": "b"},
                                                              {"exit": True}, {"id": "n", "goal": "not_b"})}))
    ann.does(0, "Cart Viewed")
    assert sends(ann) == [(0, "send", "offer")]
    assert {what for _, what in ways(ann) if what.startswith("goal")} == {"goal a", "goal not_b"}


def test_a_campaign_that_is_gone_is_passed_over() -> None:
    ann = visitor({"wait": "1h"}, {"send": "offer", "otherwise": "no"}, {"exit": True}, {"id": "no", "goal": "no"})
    ann.does(0, "Cart Viewed")
    book = ann.context.rules.playbook
    ann.swaps(type(book)(workflows=book.workflows))
    ann.waits(DAY)
    assert ways(ann)[-1] == (HOUR, "finished no")


# -- leaving ---------------------------------------------------------------------------------------------------


def test_a_condition_makes_them_leave_at_the_very_moment_also_by_mere_time() -> None:
    ann = visitor({"wait": "2d"}, {"goal": "never"}, leaves={"session": {"seconds_at_least": 90}})
    ann.does(0, "Cart Viewed")
    ann.waits(3 * DAY)
    assert ways(ann) == [(0, "entered"), (0, "step step_1"), (90_000, "left step_1 leaves")]


def test_an_event_makes_them_leave_before_steps_move_on() -> None:
    ann = visitor({"wait_for": {"event": "Exit Intent"}}, {"goal": "never"}, leaves_on=["Exit Intent"], again="always")
    ann.does(0, "Cart Viewed")
    ann.does(9, "Exit Intent")
    assert ways(ann)[2:] == [(9, 'left step_1 event "Exit Intent"')]
    assert not ann.person.runs
    assert ann.person.been["w"].times == 1


def test_a_step_that_makes_leaving_true_is_the_last_one() -> None:
    ann = visitor({"tag": "done"}, {"goal": "never"}, segments={"done": {"static": True}},
                  leaves={"in_segment": "done"})
    ann.does(0, "Cart Viewed")
    assert ways(ann) == [(0, "entered"), (0, "left step_2 leaves")]


def test_what_was_sent_and_not_shown_is_taken_back_from_who_leaves() -> None:
    ann = visitor({"send": "offer"}, {"wait": "1h"}, leaves_on=["Exit Intent"])
    ann.does(0, "Cart Viewed")
    assert len(ann.person.reserved) == 1
    ann.does(9, "Exit Intent")
    assert sends(ann) == [(0, "send", "offer"), (9, "disarm", "offer")]
    assert not ann.person.reserved


def test_a_message_on_its_way_is_withdrawn_from_who_leaves_and_only_what_this_run_sent() -> None:
    mail = {"mail": {**BY_WORKFLOW, "format": "email"}, "other": {"trigger": {"event": "Cart Viewed"}}}
    ann = visitor({"send": "mail"}, {"wait": "1h"}, campaigns=mail, leaves_on=["Exit Intent"])
    ann.does(0, "Identified", email="ann@example.com")
    ann.does(1, "Cart Viewed")
    assert [one.campaign for one in ann.person.reserved] == ["mail", "other"]
    assert ways(ann) == [(1, "entered"), (1, "step step_1"), (1, "step step_2")]
    ann.does(9, "Exit Intent")
    assert [one.campaign for one in ann.person.reserved] == ["other"]
    assert ann.person.written[-1].state == "held"


def test_who_is_held_out_is_not_waited_for() -> None:
    out = {"offer": {**BY_WORKFLOW, "holdout": 1.0}}
    ann = visitor({"send": "offer", "patience": "1d", "otherwise": "no"}, {"exit": True}, {"id": "no", "goal": "no"},
                  campaigns=out)
    ann.does(0, "Cart Viewed")
    assert ways(ann)[-2:] == [(0, "goal no"), (0, "finished no")]


# -- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [
    [{"goal": "round"}, {"go": "step_1"}], [{"send": "offer"}, {"go": "step_1"}],
    [{"wait_for": {"when": {"session": {"pages_at_least": 0 + 1}}}}, {"go": "step_1"}],
    [{"set": {"n": 1}}, {"send": "offer"}, {"go": "step_1"}]])
def test_going_in_circles_ends(steps: list[dict[str, Any]]) -> None:
    ann = visitor(*steps)
    ann.does(0, "Page Viewed")
    ann.does(1, "Cart Viewed")
    assert ways(ann)[-1][1].endswith(CIRCLE)
    assert not ann.person.runs
    assert len(ways(ann)) <= MOST_AT_ONCE + 2


def test_workflows_that_start_each_other_at_once_end() -> None:
    ann = Visitor(playbook(segments={"t": {"static": True}}, workflows={
        "on": flow({"tag": "t"}, enters=[{"event": "Cart Viewed"}, {"left_segment": "t"}], again="always"),
        "off": flow({"wait_for": {"when": {"in_segment": "t"}}}, {"untag": "t"}, enters={"segment": "t"},
                    again="always")}))
    ann.does(0, "Cart Viewed")
    assert len(ways(ann)) < 20 * MOST_AT_ONCE
    assert ann.now == T0


# -- the whole house -------------------------------------------------------------------------------------------


def test_explain_says_where_they_are_and_what_they_wait_for() -> None:
    ann = visitor({"wait_for": {"event": "Exit Intent", "within": "1h"}}, again="always")
    ann.does(0, "Cart Viewed")
    ann.does(HOUR + 5, "Cart Viewed")
    page = explain(ann.person, "EUR").splitlines()
    since = "2023-11-14 23:13:20"
    assert f'  in workflow     w since {since} (event "Cart Viewed"), at step_1 since {since}' in page
    assert '                  waits for event "Exit Intent", until 2023-11-15 00:13:20' in page
    assert f"  was in workflow w: once, last left {since}" in page


def test_two_days_over_a_login_and_a_restart_and_every_effect_has_its_own_id(tmp_path: Path) -> None:
    """Shards, letters and the store, as in production: begun by a browser, finished by the customer it belongs to."""
    rules = compile_rules(playbook(campaigns=OFFER, segments={"t": {"static": True}}, workflows={
        "w": flow({"tag": "t"}, {"set": {"plan": "gold"}}, {"wait": "2d"}, {"goal": "late"}),
        "then": flow({"send": "offer"}, {"goal": "told"}, enters={"segment": "t"})}))
    town = Town(tmp_path, STEPS, rules)
    town.feed(record("x", "Cart Viewed", at=T0))
    town.feed(record("x", "Page Viewed", at=T0 + 1, userId="ann"))
    town.tick(T0 + DAY)
    town.store.close()
    rows, town = town.rows, Town(tmp_path, STEPS, rules)
    town.tick(T0 + 3 * DAY)
    rows += town.rows
    said = [action.decode(row.body) for row in rows if row.stream == "actions"]
    progress = [(one.person, one.at - T0, one.what, one.goal) for one in said if isinstance(one, Progress)]
    assert progress == [
        ("a:x", 0, "entered", ""), ("a:x", 0, "step", ""), ("a:x", 0, "entered", ""), ("a:x", 0, "step", ""),
        ("a:x", 0, "goal", "told"), ("a:x", 0, "finished", ""),
        ("u:ann", 2 * DAY, "goal", "late"), ("u:ann", 2 * DAY, "finished", "")]
    assert len({row.id for row in rows}) == len(rows)
    ann = town.person("u:ann")
    assert ann is not None
    assert ann.runs == {}
    assert (ann.been["w"].times, ann.been["then"].times) == (1, 1)
    assert known(ann).traits["plan"].value == "gold"


def test_a_coupon_is_reserved_also_when_the_codes_are_still_on_their_way(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, compile_rules(playbook(
        coupons=[{"name": "gift", "percent": 10, "codes": ["A1", "A2"]}],
        workflows={"w": flow({"coupon": "gift"}, {"goal": "given"}, {"wait": "1h"}, {"coupon": "gone"},
                             {"goal": "on"})})))
    town.feed(record("x", "Cart Viewed", at=T0))
    town.tick(T0 + 2 * HOUR)
    said = [action.decode(row.body) for row in town.rows if row.stream == "actions"]
    progress = [(one.at - T0, one.what, one.step, one.goal, one.because.reason)
                for one in said if isinstance(one, Progress)]
    waited = [one for one in progress if one[1:3] == ("step", "step_1")]
    assert [one for one in progress if one not in waited] == [
        (0, "entered", "", "", ""), (0, "goal", "step_2", "given", ""), (0, "step", "step_3", "", ""),
        (HOUR, "step", "step_4", "", "no_coupon"), (HOUR, "goal", "step_5", "on", ""),
        (HOUR, "finished", "step_5", "", "")]
    person = town.person("a:x")
    assert person is not None
    [coupon] = person.coupons
    assert (coupon.pool, coupon.state, coupon.campaign) == ("gift", "reserved", "w")
    assert [one.what for one in said if isinstance(one, CouponNews)] == ["reserved"]
