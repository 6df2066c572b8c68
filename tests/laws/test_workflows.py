"""The naive reading of workflows and the engine agree: who is where at which second, over restarts and new versions."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Effect, WorkflowProgress
from domain.playbook.playbook import Playbook, carry_over_versions
from domain.playbook.workflow import WaitUntil
from operators import advance_workflows, match_segments, update_profile
from operators.advance_workflows import STEP_REMOVED, WORKFLOW_CHANGED
from state.context import Input, StepContext, TimerFired
from state.local_time import WEEKDAYS, next_matching_time, zone_info
from state.membership.workflow_runs import RUN_TIMER, report_send
from state.person.model import Person
from tests.harness import person as harness_person
from tests.harness.person import PersonHarness, make_playbook
from tests.harness.support import examples
from tests.models import workflows
from tests.models.workflows import HORIZON, RECENTLY, RunLog, WorkflowModel, histories, workflow_definitions

CAMPAIGNS = {"offer": {"trigger": {"workflow": True}}}
SEGMENTS = {"t": {"static": True}, "lately": {"when": RECENTLY}}


class WorkflowHarness(PersonHarness):
    """A visitor whose sends go through whenever the number of events so far can be divided by three."""

    events = 0
    run_logs: dict[str, RunLog]

    def decide(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        for proposal in context.candidates:
            report_send(person, proposal.run_id, self.events % 3 == 0, "campaign_cap", context)
        return ()

    def runs(self) -> list[RunLog]:
        said: dict[str, RunLog] = {}
        for one in self.actions:
            if isinstance(one, WorkflowProgress):
                words = [one.transition] if one.transition == "entered" else [one.transition, one.goal or one.step]
                words += [
                    {WORKFLOW_CHANGED: "changed", STEP_REMOVED: "no step"}.get(one.because.reason, one.because.reason)
                ]
                said.setdefault(one.run, []).append(
                    ((one.at - harness_person.T0) // 1000, " ".join(w for w in words if w))
                )
                assert (one.at - harness_person.T0) % 1000 == 0
        return list(said.values())


def workflow_playbook(workflow: dict[str, Any]) -> Playbook:
    return make_playbook(
        segments=SEGMENTS,
        campaigns=CAMPAIGNS,
        workflows={"w": {name: value for name, value in workflow.items() if name != "name"}},
    )


def run_engine(
    monkeypatch: pytest.MonkeyPatch,
    workflow: dict[str, Any],
    history: list[tuple[int, str, str]],
    swap: tuple[int, dict[str, Any]] | None,
    restarts: bool,
) -> list[RunLog]:
    ann = WorkflowHarness(workflow_playbook(workflow))
    monkeypatch.setattr(
        harness_person, "STEPS", (update_profile.step, match_segments.step, advance_workflows.step, ann.decide)
    )
    if restarts:
        ann.after_each = ann.store_and_reload
    for at, name, kind in history:
        if swap is not None and swap[0] <= at:
            switch_version(ann, swap)
            swap = None
        ann._fire_timers(harness_person.T0 + at * 1000)
        ann.events += 1
        ann.emit(at * 1000, name, kind=kind, **({"product_id": "p"} if name == "Product Viewed" else {}))
    if swap is not None:
        switch_version(ann, swap)
    ann.advance((HORIZON - 1) * 1000)
    assert set(ann.person.runs) == {name[len(RUN_TIMER) :] for name in ann.person.timers if name.startswith(RUN_TIMER)}
    return ann.runs()


def switch_version(harness: PersonHarness, swap: tuple[int, dict[str, Any]]) -> None:
    """Another playbook goes live, and everybody is looked at."""
    at = harness_person.T0 + swap[0] * 1000
    harness._fire_timers(at)
    harness.switch_playbook(carry_over_versions(harness.context.rules.playbook, workflow_playbook(swap[1])))
    harness._apply(f"sweep-{at}", at, TimerFired("playbook", "", at))
    harness._fire_timers(at)


@given(workflow_definitions(), histories)
@settings(max_examples=examples(60), deadline=None)
def test_workflow_runs_match_the_reference_model(workflow: dict[str, Any], history: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = WorkflowModel(workflow).run(history)
        assert run_engine(patch, workflow, history, None, restarts=False) == expected
        assert run_engine(patch, workflow, history, None, restarts=True) == expected


@given(workflow_definitions(), workflow_definitions(), histories, st.integers(0, 30).map(lambda n: n * 10 + 5))
@settings(max_examples=examples(50), deadline=None)
def test_version_changes_match_the_reference_model(
    workflow: dict[str, Any], new: dict[str, Any], history: list[Any], at: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = WorkflowModel(workflow, (at, new)).run(history)
        assert run_engine(patch, workflow, history, (at, new), restarts=True) == expected


def test_reference_model_detects_a_one_second_error() -> None:
    """Were a wait one second off, they would disagree."""
    workflow = {"name": "w", "enter_on": {"event": "Cart Viewed"}, "steps": [{"id": "s0", "wait": "20s"}]}
    history = [(0, "Cart Viewed", "a")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflows, "HORIZON", 21)
        assert WorkflowModel(workflow).run(history) == run_engine(patch, workflow, history, None, restarts=True)
        assert WorkflowModel({**workflow, "steps": [{"id": "s0", "wait": "21s"}]}).run(history) != run_engine(
            patch, workflow, history, None, restarts=True
        )


ZONES = (
    "Europe/Rome",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "UTC",
)


@given(
    st.sampled_from(ZONES),
    st.integers(1_300_000_000 // 60, 1_780_000_000 // 60),
    st.integers(0, 59_999),
    st.none() | st.tuples(st.integers(0, 23), st.integers(0, 59)),
    st.sets(st.sampled_from(WEEKDAYS), max_size=3),
)
@settings(max_examples=examples(40), deadline=None)
def test_next_time_of_day_is_the_first_matching_minute(
    name: str, minute: int, rest: int, time: tuple[int, int] | None, days: set[str]
) -> None:
    where, wanted = zone_info(name), time or (0, 0)
    until = msgspec.convert(
        {"time": "{:02}:{:02}".format(*wanted) if time else None, "weekday": sorted(days) or None}, WaitUntil
    )
    now = minute * 60_000 + rest
    start = minute - 26 * 60  # from the day before on, so that each day's first such minute is known
    reached: set[Any] = set()
    at = start
    while True:
        local = datetime.fromtimestamp(at * 60, where)
        if (local.hour, local.minute) >= wanted and local.date() not in reached:
            reached.add(local.date())
            first = at > start  # what was there at the very beginning may have begun before
            if first and at * 60_000 >= now and (not days or WEEKDAYS[local.weekday()] in days):
                break
        at += 1
    assert next_matching_time(until, now, name) == at * 60_000


@pytest.mark.parametrize(
    ("name", "on", "until", "found"),
    [
        ("Europe/Rome", "2024-03-30 12:00", WaitUntil(time="02:30"), "2024-03-31 03:00"),  # skipped
        ("Europe/Rome", "2024-10-26 12:00", WaitUntil(time="02:30"), "2024-10-27 02:30"),  # twice: the first
        ("Africa/Cairo", "2024-04-25 12:00", WaitUntil(weekday="friday"), "2024-04-26 01:00"),  # no midnight
        ("Europe/Rome", "2024-05-01 09:30", WaitUntil(time="09:30"), "2024-05-01 09:30"),  # exactly now
    ],
)
def test_next_time_of_day_across_clock_changes(name: str, on: str, until: WaitUntil, found: str) -> None:
    where = zone_info(name)
    now = round(datetime.fromisoformat(on).replace(tzinfo=where).timestamp() * 1000)
    at = datetime.fromtimestamp(next_matching_time(until, now, name) / 1000, where)
    assert at.strftime("%Y-%m-%d %H:%M") == found
    assert not at.fold
    assert next_matching_time(until, now + 60_000, name) > now
    assert (
        timedelta(0) < timedelta(milliseconds=next_matching_time(until, now + 60_000, name) - now) < timedelta(days=8)
    )
