"""A workflow that changes while people are in it: they finish the one they began, move to the new one, or leave."""

from pathlib import Path
from typing import Any

import pytest

from connectors.log.open import open_log
from domain import action
from domain.action import OutboxRow, ShardMessage, WorkflowProgress
from domain.playbook.playbook import (
    MAX_PREVIOUS_VERSIONS,
    MAX_VERSIONS_PER_WORKFLOW,
    Playbook,
    carry_over_versions,
    decode_playbook,
    encode_playbook,
    playbook_hash,
)
from domain.record import DEFAULT_PARTITIONS, Record, partition_of
from domain.settings import Settings
from flows.simulation.replay import replay
from flows.worker import Worker
from operators.advance_workflows import DUPLICATE_RUN, STEP_REMOVED, VERSION_EXPIRED, WORKFLOW_CHANGED
from operators.steps import STEPS
from state.context import TimerFired
from state.membership.workflow_runs import end_run, merge_runs
from state.merge import build_merge_response, merge_into
from state.person.model import MAX_COMPLETED_RUNS, CompletedRuns, Person, WorkflowRun
from state.playbook.compiled import compile_rules, rules_from_source
from state.store.sqlite import SqliteStore
from tests.harness.person import T0, PersonHarness, make_playbook
from tests.harness.shard import ShardHarness, record
from tests.operators.test_advance_workflows import DAY, HOUR, MINUTE, make_workflow, progress_of

SHORTLY = 10 * MINUTE
"""Before the visit is over, which would be a happening too."""


def workflow_playbook(wait: str = "1d", goal: str = "old", **more: Any) -> Playbook:
    return make_playbook(workflows={"w": make_workflow({"id": "rest", "wait": wait}, {"goal": goal}, **more)})


def switch_version(harness: PersonHarness, new: Playbook) -> None:
    harness.switch_playbook(carry_over_versions(harness.context.rules.playbook, new))


def started_person(first: Playbook) -> PersonHarness:
    ann = PersonHarness(first)
    ann.emit(0, "Cart Viewed")
    assert progress_of(ann) == [(0, "entered"), (0, "step rest")]
    return ann


def test_runs_finish_on_the_version_they_started() -> None:
    ann = started_person(workflow_playbook())
    switch_version(ann, workflow_playbook("2d", "new", reentry="always"))
    ann.store_and_reload()
    ann.advance(2 * DAY)
    assert progress_of(ann)[2:] == [(DAY, "goal old"), (DAY, "finished step_2")]
    ann.emit(2 * DAY, "Cart Viewed")
    ann.advance(5 * DAY)
    assert progress_of(ann)[4:] == [
        (2 * DAY, "entered"),
        (2 * DAY, "step rest"),
        (4 * DAY, "goal new"),
        (4 * DAY, "finished step_2"),
    ]


def test_irrelevant_changes_create_no_new_version() -> None:
    first = workflow_playbook()
    assert (
        carry_over_versions(
            first, workflow_playbook(enter_on={"event": "Exit Intent"}, description="x", on_change="exit")
        ).previous_workflows
        == ()
    )


@pytest.mark.parametrize(("wait", "goal_at"), [("3d", 3 * DAY), ("6h", 6 * HOUR), ("1m", SHORTLY)])
def test_moved_run_continues_at_the_same_step(wait: str, goal_at: int) -> None:
    ann = started_person(workflow_playbook())
    new = make_playbook(
        workflows={
            "w": make_workflow({"goal": "early"}, {"id": "rest", "wait": wait}, {"goal": "new"}, on_change="move")
        }
    )
    switch_version(ann, new)
    ann.emit(SHORTLY, "Page Viewed")
    ann.advance(9 * DAY)
    assert progress_of(ann)[2:] == [(SHORTLY, "step rest"), (goal_at, "goal new"), (goal_at, "finished step_3")]


def test_moved_run_executes_a_changed_step() -> None:
    ann = started_person(workflow_playbook())
    switch_version(
        ann,
        make_playbook(workflows={"w": make_workflow({"wait": "1h"}, {"id": "rest", "goal": "now"}, on_change="move")}),
    )
    ann.emit(SHORTLY, "Page Viewed")
    assert progress_of(ann)[2:] == [(SHORTLY, "step rest"), (SHORTLY, "goal now"), (SHORTLY, "finished rest")]


def test_first_event_after_a_move_can_complete_a_wait() -> None:
    ann = started_person(workflow_playbook())
    switch_version(
        ann,
        make_playbook(
            workflows={
                "w": make_workflow(
                    {"id": "rest", "wait_for": {"event": "Exit Intent"}}, {"goal": "seen"}, on_change="move"
                )
            }
        ),
    )
    ann.emit(SHORTLY, "Exit Intent")
    assert progress_of(ann)[2:] == [(SHORTLY, "step rest"), (SHORTLY, "goal seen"), (SHORTLY, "finished step_2")]


def test_run_exits_when_its_step_is_removed() -> None:
    ann = started_person(workflow_playbook())
    switch_version(ann, make_playbook(workflows={"w": make_workflow({"id": "other", "wait": "1d"}, on_change="move")}))
    ann.emit(SHORTLY, "Page Viewed")
    assert progress_of(ann)[2:] == [(SHORTLY, f"exited rest {STEP_REMOVED}")]


def test_leave_policy_exits_on_the_next_event() -> None:
    ann = started_person(workflow_playbook())
    switch_version(ann, workflow_playbook("2d", on_change="exit"))
    ann._apply("sweep", T0 + SHORTLY, TimerFired("playbook", "", T0 + SHORTLY))
    assert progress_of(ann)[2:] == [(SHORTLY, f"exited rest {WORKFLOW_CHANGED}")]


@pytest.mark.parametrize(
    ("last", "ends"),
    [
        ({}, [(DAY, "goal old"), (DAY, "finished step_2")]),
        ({"on_change": "move"}, [(DAY, "goal old"), (DAY, "finished step_2")]),
        ({"on_change": "exit"}, [(30 * MINUTE, f"exited rest {WORKFLOW_CHANGED}")]),
    ],
)
def test_removed_workflow_follows_its_last_policy(last: dict[str, str], ends: list[tuple[int, str]]) -> None:
    ann = started_person(workflow_playbook(**last))
    switch_version(ann, Playbook())
    ann.advance(2 * DAY)
    assert progress_of(ann)[2:] == ends


def test_run_exits_when_its_version_is_not_kept() -> None:
    ann = started_person(workflow_playbook())
    ann.switch_playbook(workflow_playbook("2d"))
    ann.emit(SHORTLY, "Page Viewed")
    assert progress_of(ann)[2:] == [(SHORTLY, f"exited rest {VERSION_EXPIRED}")]
    ben = started_person(workflow_playbook())
    ben.switch_playbook(Playbook())
    ben.advance(2 * DAY)
    assert progress_of(ben)[2:] == [(30 * MINUTE, f"exited rest {VERSION_EXPIRED}")]


# -- which versions are kept -----------------------------------------------------------------------------------


def test_kept_versions_are_bounded() -> None:
    live = workflow_playbook("1s")
    for n in range(2, MAX_VERSIONS_PER_WORKFLOW + 5):
        live = carry_over_versions(live, workflow_playbook(f"{n}s"))
    assert [one.steps[0].wait for one in live.previous_workflows] == [
        f"{n}s" for n in range(4, MAX_VERSIONS_PER_WORKFLOW + 4)
    ]
    for n in range(MAX_PREVIOUS_VERSIONS + 5):
        live = carry_over_versions(live, make_playbook(workflows={f"w{n:03}": make_workflow({"wait": "1d"})}))
    assert len(live.previous_workflows) == MAX_PREVIOUS_VERSIONS
    assert live.previous_workflows[-1].name == f"w{MAX_PREVIOUS_VERSIONS + 3:03}"


def test_restored_version_becomes_live_again() -> None:
    ann = started_person(workflow_playbook())
    switch_version(ann, workflow_playbook("2d"))
    switch_version(ann, workflow_playbook())
    assert [one.steps[0].wait for one in ann.context.rules.playbook.previous_workflows] == ["2d"]
    ann.advance(2 * DAY)
    assert progress_of(ann)[2:] == [(DAY, "goal old"), (DAY, "finished step_2")]


def test_version_succession_is_idempotent() -> None:
    one = carry_over_versions(workflow_playbook(), workflow_playbook("2d"))
    assert encode_playbook(carry_over_versions(one, workflow_playbook("2d"))) == encode_playbook(one)
    assert decode_playbook(encode_playbook(one)) == one
    assert playbook_hash(encode_playbook(one)) != playbook_hash(encode_playbook(workflow_playbook("2d")))


def test_past_versions_survive_reload_and_restart(tmp_path: Any) -> None:
    shop = tmp_path / "shop"
    (shop / "workflows").mkdir(parents=True)
    (shop / "shop.toml").write_text('name = "x"\n')

    def write(wait: str) -> None:
        (shop / "workflows" / "w.toml").write_text(
            f'enter_on = {{ event = "Cart Viewed" }}\n[[steps]]\nwait = "{wait}"\n'
        )

    settings = Settings(data=str(tmp_path / "data"), playbook=str(shop), redis="unix:///nowhere")
    open_log(settings).close()
    write("1d")
    worker = Worker(settings, STEPS)
    worker.playbook.watcher.poll(0)
    write("2d")
    for n in range(100):
        worker.playbook.watcher.poll(n * 10.0)
    live = worker.playbook
    live.rules = live._compile_successor(live.watcher.load_first(), live._last_live_source())
    live._store_live(live.rules)
    assert [one.steps[0].wait for one in live.rules.playbook.previous_workflows] == ["1d"]
    kept = live.rules.hash
    worker.store.close()
    worker.log.close()
    write("3d")
    again = Worker(settings, STEPS)
    assert [one.steps[0].wait for one in again.playbook.rules.playbook.previous_workflows] == ["1d", "2d"]
    source = again.store.get_blob("playbook", kept)
    assert source is not None
    assert playbook_hash(source) == kept
    again.store.close()
    again.log.close()


def test_replay_across_versions_is_exact(tmp_path: Path) -> None:
    """Each turn names the playbook it was made with, and its bytes hold what is past."""
    versions = [workflow_playbook("1d", "one")]
    versions.append(carry_over_versions(versions[-1], workflow_playbook("2d", "two")))
    versions.append(carry_over_versions(versions[-1], workflow_playbook("3d", "three", on_change="move")))
    rules = [compile_rules(one) for one in versions]
    here = partition_of(b"ann", DEFAULT_PARTITIONS)
    bench = ShardHarness(tmp_path / "live", STEPS, here)
    records = [
        record("ann", name, at=T0 + at, offset=n)
        for n, (at, name) in enumerate(
            [(0, "Cart Viewed"), (HOUR, "Page Viewed"), (DAY + HOUR, "Cart Viewed"), (2 * DAY, "Page Viewed")]
        )
    ]
    rows: list[OutboxRow] = []
    for n, one in enumerate(records):
        bench.rules = rules[min(n, 2)]
        rows += bench.apply(one)
        bench.reopen()
    rows += bench.apply(tick=T0 + 9 * DAY)
    goals = [
        one.goal
        for row in rows
        if row.stream == "actions" and isinstance(one := action.decode_action(row.body), WorkflowProgress) and one.goal
    ]
    assert goals == ["three"], "the first was moved on by the last version"
    kept = {one.hash: one.source for one in rules}
    turns = bench.store.batch_records(here)

    def fetch(place: tuple[str, int], first: int, last: int) -> list[Record]:
        return [one for one in records if one.stream == place[0] and first <= one.offset <= last]

    again = SqliteStore(tmp_path / "again.db", DEFAULT_PARTITIONS)
    same = replay(
        here,
        turns,
        fetch,
        again,
        STEPS,
        DEFAULT_PARTITIONS,
        lambda name: rules_from_source(kept[name]),
        lambda name: None,
    )
    assert [row[1:] for row in same] == [row[1:] for row in rows]
    assert again.persons(here) == bench.persons()


# -- login -----------------------------------------------------------------------------------------------------


def test_merge_keeps_the_older_run() -> None:
    known, browser = PersonHarness(workflow_playbook()), PersonHarness(workflow_playbook(), "y")
    known.person.id = "u:ann"
    browser.emit(0, "Cart Viewed")
    known.emit(0, "Page Viewed")
    known.emit(HOUR, "Cart Viewed")
    merge_into(known.person, build_merge_response(browser.person), T0 + 2 * HOUR)
    assert browser.person.runs == {}
    assert not [name for name in browser.person.timers if name.startswith("workflow:")]
    known._apply("shard-message", T0 + 2 * HOUR, ShardMessage("merge_response", "a:y", "u:ann", 1))
    assert progress_of(known)[2:] == [(2 * HOUR, f"exited rest {DUPLICATE_RUN}")]
    known.advance(3 * DAY)
    assert progress_of(known)[3:] == [(DAY, "goal old"), (DAY, "finished step_2")]
    assert known.person.completed_runs["w"].count == 2


def test_completed_runs_merge_in_any_order() -> None:
    def ways_of(*names: str) -> Person:
        return Person(
            "u:x",
            completed_runs={name: CompletedRuns(len(name), T0 + len(name)) for name in names},
            runs={name + "-1": WorkflowRun(name, "v", T0, step_id="rest") for name in names},
        )

    one, other = ways_of("a", "bb"), ways_of("bb", "ccc")
    merge_runs(one, other.runs, other.completed_runs)
    again, first = ways_of("bb", "ccc"), ways_of("a", "bb")
    merge_runs(again, first.runs, first.completed_runs)
    assert (
        one.completed_runs
        == again.completed_runs
        == {"a": CompletedRuns(1, T0 + 1), "bb": CompletedRuns(4, T0 + 2), "ccc": CompletedRuns(3, T0 + 3)}
    )
    assert one.runs == again.runs


def test_oldest_completed_run_is_evicted() -> None:
    ann = Person("u:ann")
    for n in range(MAX_COMPLETED_RUNS + 3):
        ann.runs["r"] = WorkflowRun(f"w{n}", "v", T0)
        end_run(ann, "r", T0 + n)
    assert len(ann.completed_runs) == MAX_COMPLETED_RUNS
    assert "w2" not in ann.completed_runs
    assert "w3" in ann.completed_runs
