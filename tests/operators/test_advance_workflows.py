"""Workflows: who enters, what each step does, what is waited for, who leaves, and at which moment."""

from pathlib import Path
from typing import Any

import pytest

from domain import action
from domain.action import CouponEvent, WorkflowProgress
from operators.advance_workflows import ENDLESS_LOOP, MAX_STEPS_AT_ONCE, TOO_MANY_RUNS
from operators.steps import STEPS
from state.explain.explain import explain
from state.person.model import MAX_RUNS
from state.playbook.compiled import compile_rules
from state.profile.profile import merged_profile
from tests.harness.cluster import ShardCluster
from tests.harness.person import T0, PersonHarness, make_playbook, summarize
from tests.harness.shard import record

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
WORKFLOW_CAMPAIGN = {"trigger": {"workflow": True}}
OFFER_CAMPAIGN = {"offer": WORKFLOW_CAMPAIGN}


def make_workflow(*steps: dict[str, Any], enters: Any = None, **more: Any) -> dict[str, Any]:
    return {"enter_on": enters or {"event": "Cart Viewed"}, "steps": list(steps), **more}


def progress_of(harness: PersonHarness, since: int = 0) -> list[tuple[int, str]]:
    """How far somebody came: (ms after T0, what)."""
    return [
        (at, what)
        for at, what, _ in summarize([one for one in harness.actions[since:] if isinstance(one, WorkflowProgress)])
    ]


def person_with_workflow(
    *steps: dict[str, Any], segments: Any = None, campaigns: Any = None, **more: Any
) -> PersonHarness:
    """Somebody in a shop with one workflow, `w`."""
    return PersonHarness(
        make_playbook(
            segments=segments or {},
            campaigns=campaigns or OFFER_CAMPAIGN,
            workflows={"w": make_workflow(*steps, **more)},
        )
    )


# -- entering --------------------------------------------------------------------------------------------------


def test_second_workflow_sees_effects_of_the_first() -> None:
    vip = {"event": "Cart Viewed", "when": {"in_segment": "vip"}}
    ann = PersonHarness(
        make_playbook(
            segments={"vip": {"static": True}},
            campaigns=OFFER_CAMPAIGN,
            workflows={
                "a": make_workflow({"add_to_segment": "vip"}, {"wait": "1h"}),
                "b": make_workflow({"wait": "1h"}, enter_on=vip),
                "c": make_workflow(
                    {"wait": "1h"}, enter_on={"event": "Cart Viewed", "when": {"has": {"country": "CA"}}}
                ),
            },
        )
    )
    ann.emit(0, "Cart Viewed")
    assert sorted(run.workflow for run in ann.person.runs.values()) == ["a", "b"]


def test_event_with_properties_enters_the_workflow() -> None:
    ann = person_with_workflow({"wait": "1h"}, enter_on={"event": "Product Viewed", "properties": {"category": "mugs"}})
    ann.emit(0, "Product Viewed", product_id="p", category="cups")
    assert not ann.person.runs
    ann.emit(5, "Product Viewed", product_id="p", category="mugs")
    assert progress_of(ann) == [(5, "entered"), (5, "step step_1")]
    ann.advance(2 * HOUR)
    assert progress_of(ann)[2:] == [(5 + HOUR, "finished step_1")]
    assert not ann.person.runs
    assert ann.person.completed_runs["w"].count == 1
    assert not [name for name in ann.person.timers if name.startswith("workflow:")]


def test_segment_changes_enter_the_workflow() -> None:
    engaged = {"engaged": {"when": {"session": {"pages_at_least": 2}}}}
    ann = PersonHarness(
        make_playbook(
            segments=engaged,
            workflows={
                "come": make_workflow({"goal": "came"}, enter_on={"segment": "engaged"}),
                "gone": make_workflow({"goal": "went"}, enter_on={"exited_segment": "engaged"}),
            },
        )
    )
    ann.emit(0, "Page Viewed")
    ann.emit(10, "Page Viewed")
    ann.advance(HOUR)
    assert progress_of(ann) == [
        (10, "entered"),
        (10, "goal came"),
        (10, "finished step_1"),
        (10 + 30 * MINUTE, "entered"),
        (10 + 30 * MINUTE, "goal went"),
        (10 + 30 * MINUTE, "finished step_1"),
    ]


def test_entry_trigger_requires_its_condition() -> None:
    ann = person_with_workflow(
        {"wait": "1h"},
        enter_on=[{"event": "Cart Viewed", "when": {"session": {"pages_at_least": 2}}}, {"event": "Exit Intent"}],
    )
    ann.emit(0, "Cart Viewed")
    assert progress_of(ann) == []
    ann.emit(1, "Exit Intent")
    assert progress_of(ann) == [(1, "entered"), (1, "step step_1")]


def test_true_exit_condition_blocks_entry() -> None:
    ann = person_with_workflow({"wait": "1h"}, exit_when={"did": {"event": "Exit Intent"}})
    ann.emit(0, "Exit Intent")
    ann.emit(1, "Cart Viewed")
    assert progress_of(ann) == []


@pytest.mark.parametrize(
    ("again", "entered"),
    [
        ({}, [0]),
        ({"reentry": "always"}, [0, HOUR, 3 * HOUR]),
        ({"reentry": "after", "reentry_after": "2h"}, [0, 3 * HOUR]),
        ({"reentry": "after", "reentry_after": "1h"}, [0, 3 * HOUR]),
    ],
)
def test_reentry_follows_the_policy(again: dict[str, Any], entered: list[int]) -> None:
    ann = person_with_workflow({"wait": "1h"}, **again)
    for at in (0, HOUR - 1, HOUR, 3 * HOUR):
        ann.emit(at, "Cart Viewed")
    assert [at for at, what in progress_of(ann) if what == "entered"] == entered


def test_reentry_delay_counts_from_the_exit() -> None:
    ann = person_with_workflow({"wait": "1h"}, reentry="after", reentry_after="2h")
    for at in (0, 3 * HOUR - 1, 3 * HOUR):
        ann.emit(at, "Cart Viewed")
    assert [at for at, what in progress_of(ann) if what == "entered"] == [0, 3 * HOUR]


def test_concurrent_runs_are_limited() -> None:
    ann = person_with_workflow({"wait": "1h"}, max_concurrent_runs=2, reentry="always")
    for at in (0, 1, 2, HOUR):
        ann.emit(at, "Cart Viewed")
    assert [at for at, what in progress_of(ann) if what == "entered"] == [0, 1, HOUR]


def test_oldest_run_exits_when_there_are_too_many() -> None:
    ann = PersonHarness(
        make_playbook(
            workflows={f"w{n:02}": make_workflow({"wait": "30d"}) for n in range(MAX_RUNS)}
            | {"zz": make_workflow({"wait": "30d"}, enter_on={"event": "Exit Intent"})}
        )
    )
    ann.emit(0, "Cart Viewed")
    ann.emit(7, "Exit Intent")
    assert len(ann.person.runs) == MAX_RUNS
    assert progress_of(ann)[-3:] == [(7, f"exited step_1 {TOO_MANY_RUNS}"), (7, "entered"), (7, "step step_1")]


# -- steps -----------------------------------------------------------------------------------------------------


def test_steps_run_immediately_until_the_next_wait() -> None:
    ann = person_with_workflow(
        {"goal": "one"},
        {"goto": "three"},
        {"goal": "two"},
        {"id": "three", "goal": "three"},
        {"wait": "2d"},
        {"goal": "four"},
        {"exit": True},
        {"goal": "never"},
    )
    ann.emit(0, "Cart Viewed")
    ann.store_and_reload()
    ann.advance(3 * DAY)
    assert progress_of(ann) == [
        (0, "entered"),
        (0, "goal one"),
        (0, "goal three"),
        (0, "step step_5"),
        (2 * DAY, "goal four"),
        (2 * DAY, "finished step_7"),
    ]


def test_wait_until_uses_the_persons_time_zone() -> None:
    ann = person_with_workflow({"wait_until": {"time": "09:30", "weekday": ["monday", "friday"]}}, {"goal": "now"})
    ann.emit(0, "Cart Viewed")  # Tuesday, 14 November 2023, 23:13:20 in Rome
    ann.advance(7 * DAY)
    friday = 2 * DAY + (10 * 3600 + 16 * 60 + 40) * 1000
    assert progress_of(ann)[1:] == [(0, "step step_1"), (friday, "goal now"), (friday, "finished step_2")]


def test_wait_for_ignores_the_entry_event() -> None:
    ann = person_with_workflow(
        {"wait_for": {"event": "Cart Viewed", "where": {"kind": "b"}, "timeout": "1h", "then": "yes"}},
        {"goal": "no"},
        {"exit": True},
        {"id": "yes", "goal": "yes"},
    )
    ann.emit(0, "Cart Viewed", kind="b")
    ann.emit(5, "Cart Viewed", kind="a")
    assert progress_of(ann) == [(0, "entered"), (0, "step step_1")]
    ann.emit(9, "Cart Viewed", kind="b")
    assert progress_of(ann)[2:] == [(9, "goal yes"), (9, "finished yes")]


def test_wait_for_timeout_takes_the_else_branch() -> None:
    ann = person_with_workflow(
        {"wait_for": {"event": "Exit Intent", "timeout": "1h", "else": "late"}},
        {"goal": "early"},
        {"exit": True},
        {"id": "late", "goal": "late"},
    )
    ann.emit(0, "Cart Viewed")
    ann.emit(HOUR, "Exit Intent")
    assert progress_of(ann)[2:] == [(HOUR, "goal late"), (HOUR, "finished late")]


def test_wait_for_condition_can_become_true_over_time() -> None:
    long = {"wait_for": {"when": {"session": {"seconds_at_least": 60}}, "timeout": "1h"}}
    ann = person_with_workflow(long, {"goal": "a"}, long, {"goal": "b"})
    ann.emit(0, "Cart Viewed")
    ann.advance(HOUR)
    assert progress_of(ann)[1:] == [
        (0, "step step_1"),
        (MINUTE, "goal a"),
        (MINUTE, "goal b"),
        (MINUTE, "finished step_4"),
    ]


def test_condition_true_at_the_timeout_counts() -> None:
    long = {"long": {"when": {"session": {"seconds_at_least": 60}}}}
    ann = person_with_workflow(
        {"wait_for": {"when": {"in_segment": "long"}, "timeout": "60s", "then": "yes"}},
        {"goal": "no"},
        {"exit": True},
        {"id": "yes", "goal": "yes"},
        segments=long,
    )
    ann.emit(0, "Cart Viewed")
    ann.advance(HOUR)
    assert progress_of(ann)[2:] == [(MINUTE, "goal yes"), (MINUTE, "finished yes")]


def test_branch_takes_the_first_true_path() -> None:
    ways_of = [{"when": {"session": {"pages_at_least": n}}, "goto": f"p{n}"} for n in (3, 2)]
    for pages, goal in ((1, "none"), (2, "p2"), (3, "p3")):
        ann = person_with_workflow(
            {"branch": ways_of},
            {"id": "none", "goal": "none"},
            {"exit": True},
            {"id": "p2", "goal": "p2"},
            {"exit": True},
            {"id": "p3", "goal": "p3"},
        )
        for n in range(pages):
            ann.emit(n, "Page Viewed")
        ann.emit(10, "Cart Viewed")
        assert (10, f"goal {goal}") in progress_of(ann)


def test_split_is_weighted_and_stable_per_person() -> None:
    book = make_playbook(
        workflows={
            "w": make_workflow(
                {"split": {"rare": 1, "often": 3}},
                {"id": "rare", "goal": "rare"},
                {"exit": True},
                {"id": "often", "goal": "often"},
                reentry="always",
            )
        }
    )
    taken = {"rare": 0, "often": 0}
    for n in range(400):
        ann = PersonHarness(book, f"v{n}")
        ann.emit(0, "Cart Viewed")
        ann.person.id = "u:somebody else"  # a login gives another id
        ann.emit(1, "Cart Viewed")
        first, second = [what for _, what in progress_of(ann) if what.startswith("goal")]
        assert first == second
        taken[first[5:]] += 1
    assert 70 <= taken["rare"] <= 130


def test_step_tags_and_traits_are_visible_at_once() -> None:
    segments = {
        "vip": {"static": True},
        "gold": {"when": {"has": {"trait": {"plan": "gold"}}}},
        "both": {"when": {"in_segment": "vip", "has": {"trait": {"plan": "gold"}}}},
    }
    ann = PersonHarness(
        make_playbook(
            segments=segments,
            workflows={
                "w": make_workflow(
                    {"add_to_segment": "vip"},
                    {"set_traits": {"plan": "gold"}},
                    {"wait": "1h"},
                    {"remove_from_segment": "vip"},
                ),
                "then": make_workflow({"goal": "both"}, enter_on={"segment": "both"}),
                "over": make_workflow({"goal": "over"}, enter_on={"exited_segment": "vip"}),
            },
        )
    )
    ann.emit(0, "Cart Viewed")
    assert set(ann.person.segments) == {"vip", "gold", "both"}
    assert (0, "goal both") in progress_of(ann)
    ann.advance(2 * HOUR)
    assert set(ann.person.segments) == {"gold"}
    assert (HOUR, "goal over") in progress_of(ann)


# -- sending ---------------------------------------------------------------------------------------------------


def sends_of(harness: PersonHarness) -> list[tuple[int, str, str]]:
    return [one for one in summarize(harness.actions) if one[1].startswith(("send", "suppress", "cancel"))]


def test_successful_send_continues_at_once() -> None:
    ann = person_with_workflow({"send": "offer"}, {"goal": "said"})
    ann.emit(0, "Cart Viewed")
    assert sends_of(ann) == [(0, "send", "offer")]
    assert progress_of(ann) == [(0, "entered"), (0, "step step_1"), (0, "goal said"), (0, "finished step_2")]


def test_suppressed_send_without_timeout_takes_else() -> None:
    ann = person_with_workflow(
        {"send": "offer", "else": "no"}, {"goal": "said"}, {"exit": True}, {"id": "no", "goal": "no"}, reentry="always"
    )
    ann.emit(0, "Cart Viewed")
    ann.emit(5, "Cart Viewed")
    assert sends_of(ann) == [(0, "send", "offer"), (5, "suppress campaign_cap", "offer")]
    assert progress_of(ann)[-2:] == [(5, "goal no"), (5, "finished no")]


def test_send_with_timeout_is_retried() -> None:
    tried = {"send": "offer", "timeout": "1d", "else": "no"}
    ann = person_with_workflow({"wait": "2h"}, tried, {"goal": "said"}, {"exit": True}, {"id": "no", "goal": "no"})
    ann.emit(0, "Cart Viewed")
    ann.advance(5 * HOUR)
    assert sends_of(ann) == [(2 * HOUR, "suppress not_on_site", "offer")]
    ann.emit(5 * HOUR + 7, "Page Viewed")
    assert sends_of(ann)[1:] == [(5 * HOUR + 7, "send", "offer")]
    assert progress_of(ann)[-2:] == [(5 * HOUR + 7, "goal said"), (5 * HOUR + 7, "finished step_4")]
    hourly = [at for at, name in ann.fired if name.startswith("workflow:")]
    assert hourly == [2 * HOUR, 3 * HOUR, 4 * HOUR, 5 * HOUR]


def test_send_timeout_takes_the_else_branch() -> None:
    ann = person_with_workflow(
        {"wait": "2h"},
        {"send": "offer", "timeout": "90m", "else": "no"},
        {"goal": "said"},
        {"exit": True},
        {"id": "no", "goal": "no"},
    )
    ann.emit(0, "Cart Viewed")
    ann.advance(DAY)
    assert progress_of(ann)[2:] == [
        (2 * HOUR, "step step_2"),
        (2 * HOUR + 90 * MINUTE, "goal no"),
        (2 * HOUR + 90 * MINUTE, "finished no"),
    ]


def test_send_checks_the_campaign_condition() -> None:
    only = {"offer": {**WORKFLOW_CAMPAIGN, "when": {"session": {"pages_at_least": 9}}}}
    ann = person_with_workflow(
        {"send": "offer", "else": "no"}, {"goal": "said"}, {"exit": True}, {"id": "no", "goal": "no"}, campaigns=only
    )
    ann.emit(0, "Cart Viewed")
    assert sends_of(ann) == [(0, "suppress not_eligible", "offer")]
    assert progress_of(ann)[-1] == (0, "finished no")


def test_simultaneous_sends_of_two_runs_send_once() -> None:
    ann = PersonHarness(
        make_playbook(
            campaigns=OFFER_CAMPAIGN,
            workflows={
                "a": make_workflow({"send": "offer"}, {"goal": "a"}),
                "b": make_workflow(
                    {"send": "offer", "else": "n"}, {"goal": "b"}, {"exit": True}, {"id": "n", "goal": "not_b"}
                ),
            },
        )
    )
    ann.emit(0, "Cart Viewed")
    assert sends_of(ann) == [(0, "send", "offer")]
    assert {what for _, what in progress_of(ann) if what.startswith("goal")} == {"goal a", "goal not_b"}


def test_send_of_a_removed_campaign_takes_else() -> None:
    ann = person_with_workflow(
        {"wait": "1h"}, {"send": "offer", "else": "no"}, {"exit": True}, {"id": "no", "goal": "no"}
    )
    ann.emit(0, "Cart Viewed")
    book = ann.context.rules.playbook
    ann.switch_playbook(type(book)(workflows=book.workflows))
    ann.advance(DAY)
    assert progress_of(ann)[-1] == (HOUR, "finished no")


# -- leaving ---------------------------------------------------------------------------------------------------


def test_exit_condition_is_exact_over_time() -> None:
    ann = person_with_workflow({"wait": "2d"}, {"goal": "never"}, exit_when={"session": {"seconds_at_least": 90}})
    ann.emit(0, "Cart Viewed")
    ann.advance(3 * DAY)
    assert progress_of(ann) == [(0, "entered"), (0, "step step_1"), (90_000, "exited step_1 exit_when")]


def test_exit_event_precedes_step_progress() -> None:
    ann = person_with_workflow(
        {"wait_for": {"event": "Exit Intent"}}, {"goal": "never"}, exit_on=["Exit Intent"], reentry="always"
    )
    ann.emit(0, "Cart Viewed")
    ann.emit(9, "Exit Intent")
    assert progress_of(ann)[2:] == [(9, 'exited step_1 event "Exit Intent"')]
    assert not ann.person.runs
    assert ann.person.completed_runs["w"].count == 1


def test_step_making_exit_condition_true_is_the_last() -> None:
    ann = person_with_workflow(
        {"add_to_segment": "done"},
        {"goal": "never"},
        segments={"done": {"static": True}},
        exit_when={"in_segment": "done"},
    )
    ann.emit(0, "Cart Viewed")
    assert progress_of(ann) == [(0, "entered"), (0, "exited step_2 exit_when")]


def test_exit_cancels_unshown_sends() -> None:
    ann = person_with_workflow({"send": "offer"}, {"wait": "1h"}, exit_on=["Exit Intent"])
    ann.emit(0, "Cart Viewed")
    assert len(ann.person.pending_sends) == 1
    ann.emit(9, "Exit Intent")
    assert sends_of(ann) == [(0, "send", "offer"), (9, "cancel", "offer")]
    assert not ann.person.pending_sends


def test_exit_withdraws_only_messages_of_the_run() -> None:
    mail = {"mail": {**WORKFLOW_CAMPAIGN, "format": "email"}, "other": {"trigger": {"event": "Cart Viewed"}}}
    ann = person_with_workflow({"send": "mail"}, {"wait": "1h"}, campaigns=mail, exit_on=["Exit Intent"])
    ann.emit(0, "Identified", email="ann@example.com")
    ann.emit(1, "Cart Viewed")
    assert [one.campaign for one in ann.person.pending_sends] == ["mail", "other"]
    assert progress_of(ann) == [(1, "entered"), (1, "step step_1"), (1, "step step_2")]
    ann.emit(9, "Exit Intent")
    assert [one.campaign for one in ann.person.pending_sends] == ["other"]
    assert ann.person.messages[-1].status == "suppressed"


def test_holdout_takes_the_else_branch_at_once() -> None:
    out = {"offer": {**WORKFLOW_CAMPAIGN, "holdout": 1.0}}
    ann = person_with_workflow(
        {"send": "offer", "timeout": "1d", "else": "no"}, {"exit": True}, {"id": "no", "goal": "no"}, campaigns=out
    )
    ann.emit(0, "Cart Viewed")
    assert progress_of(ann)[-2:] == [(0, "goal no"), (0, "finished no")]


# -- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [{"goal": "round"}, {"goto": "step_1"}],
        [{"send": "offer"}, {"goto": "step_1"}],
        [{"wait_for": {"when": {"session": {"pages_at_least": 0 + 1}}}}, {"goto": "step_1"}],
        [{"set_traits": {"n": 1}}, {"send": "offer"}, {"goto": "step_1"}],
    ],
)
def test_endless_workflow_cycle_is_stopped(steps: list[dict[str, Any]]) -> None:
    ann = person_with_workflow(*steps)
    ann.emit(0, "Page Viewed")
    ann.emit(1, "Cart Viewed")
    assert progress_of(ann)[-1][1].endswith(ENDLESS_LOOP)
    assert not ann.person.runs
    assert len(progress_of(ann)) <= MAX_STEPS_AT_ONCE + 2


def test_mutually_starting_workflows_are_stopped() -> None:
    ann = PersonHarness(
        make_playbook(
            segments={"t": {"static": True}},
            workflows={
                "on": make_workflow(
                    {"add_to_segment": "t"},
                    enter_on=[{"event": "Cart Viewed"}, {"exited_segment": "t"}],
                    reentry="always",
                ),
                "off": make_workflow(
                    {"wait_for": {"when": {"in_segment": "t"}}},
                    {"remove_from_segment": "t"},
                    enter_on={"segment": "t"},
                    reentry="always",
                ),
            },
        )
    )
    ann.emit(0, "Cart Viewed")
    assert len(progress_of(ann)) < 20 * MAX_STEPS_AT_ONCE
    assert ann.now == T0


# -- the whole house -------------------------------------------------------------------------------------------


def test_explain_shows_the_step_and_its_wait() -> None:
    ann = person_with_workflow({"wait_for": {"event": "Exit Intent", "timeout": "1h"}}, reentry="always")
    ann.emit(0, "Cart Viewed")
    ann.emit(HOUR + 5, "Cart Viewed")
    page = explain(ann.person, "EUR").splitlines()
    since = "2023-11-14 23:13:20"
    assert f'  in workflow     w since {since} (event "Cart Viewed"), at step_1 since {since}' in page
    assert '                  waits for event "Exit Intent", until 2023-11-15 00:13:20' in page
    assert f"  was in workflow w: once, last exit {since}" in page


def test_run_across_login_and_restart_has_unique_effect_ids(tmp_path: Path) -> None:
    """Shards, letters and the store, as in production: begun by a browser, finished by the customer it belongs to."""
    rules = compile_rules(
        make_playbook(
            campaigns=OFFER_CAMPAIGN,
            segments={"t": {"static": True}},
            workflows={
                "w": make_workflow(
                    {"add_to_segment": "t"}, {"set_traits": {"plan": "gold"}}, {"wait": "2d"}, {"goal": "late"}
                ),
                "then": make_workflow({"send": "offer"}, {"goal": "told"}, enter_on={"segment": "t"}),
            },
        )
    )
    town = ShardCluster(tmp_path, STEPS, rules)
    town.feed(record("x", "Cart Viewed", at=T0))
    town.feed(record("x", "Page Viewed", at=T0 + 1, userId="ann"))
    town.tick(T0 + DAY)
    town.store.close()
    rows, town = town.rows, ShardCluster(tmp_path, STEPS, rules)
    town.tick(T0 + 3 * DAY)
    rows += town.rows
    said = [action.decode_action(row.body) for row in rows if row.stream == "actions"]
    progress = [
        (one.person, one.at - T0, one.transition, one.goal) for one in said if isinstance(one, WorkflowProgress)
    ]
    assert progress == [
        ("a:x", 0, "entered", ""),
        ("a:x", 0, "step", ""),
        ("a:x", 0, "entered", ""),
        ("a:x", 0, "step", ""),
        ("a:x", 0, "goal", "told"),
        ("a:x", 0, "finished", ""),
        ("u:ann", 2 * DAY, "goal", "late"),
        ("u:ann", 2 * DAY, "finished", ""),
    ]
    assert len({row.id for row in rows}) == len(rows)
    ann = town.person("u:ann")
    assert ann is not None
    assert ann.runs == {}
    assert (ann.completed_runs["w"].count, ann.completed_runs["then"].count) == (1, 1)
    assert merged_profile(ann).traits["plan"].value == "gold"


def test_coupon_step_waits_for_codes(tmp_path: Path) -> None:
    town = ShardCluster(
        tmp_path,
        STEPS,
        compile_rules(
            make_playbook(
                coupons=[{"name": "gift", "percent": 10, "codes": ["A1", "A2"]}],
                workflows={
                    "w": make_workflow(
                        {"coupon": "gift"}, {"goal": "given"}, {"wait": "1h"}, {"coupon": "gone"}, {"goal": "on"}
                    )
                },
            )
        ),
    )
    town.feed(record("x", "Cart Viewed", at=T0))
    town.tick(T0 + 2 * HOUR)
    said = [action.decode_action(row.body) for row in town.rows if row.stream == "actions"]
    progress = [
        (one.at - T0, one.transition, one.step, one.goal, one.because.reason)
        for one in said
        if isinstance(one, WorkflowProgress)
    ]
    waited = [one for one in progress if one[1:3] == ("step", "step_1")]
    assert [one for one in progress if one not in waited] == [
        (0, "entered", "", "", ""),
        (0, "goal", "step_2", "given", ""),
        (0, "step", "step_3", "", ""),
        (HOUR, "step", "step_4", "", "no_coupon"),
        (HOUR, "goal", "step_5", "on", ""),
        (HOUR, "finished", "step_5", "", ""),
    ]
    person = town.person("a:x")
    assert person is not None
    [coupon] = person.coupons
    assert (coupon.pool, coupon.state, coupon.campaign) == ("gift", "reserved", "w")
    assert [one.status for one in said if isinstance(one, CouponEvent)] == ["reserved"]
