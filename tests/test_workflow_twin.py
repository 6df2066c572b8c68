"""The naive reading of workflows and the engine agree: who is where at which second, over restarts and new versions."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.action import Progress
from domain.effect import Effect
from domain.playbook import Playbook, succeed
from domain.workflow import WaitUntil
from operators import advance_workflows, fold_profile, match_segments
from operators.advance_workflows import CHANGED, NO_STEP
from state.context import Context, Due, Happening
from state.days import zone
from state.next_time import WEEKDAYS, next_time
from state.person import Person
from state.runs import TIMER, told
from tests import visitor, workflow_twin
from tests.support import examples
from tests.visitor import Visitor, playbook
from tests.workflow_twin import HORIZON, LATELY, Said, Twin, histories, workflows

CAMPAIGNS = {"offer": {"trigger": {"workflow": True}}}
SEGMENTS = {"t": {"static": True}, "lately": {"when": LATELY}}


class Played(Visitor):
    """A visitor whose sends go through whenever the number of events so far can be divided by three."""

    events = 0
    said: dict[str, Said]

    def decide(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        for proposal in context.proposals:
            told(person, proposal.run, self.events % 3 == 0, "limit", context)
        return ()

    def runs(self) -> list[Said]:
        said: dict[str, Said] = {}
        for one in self.actions:
            if isinstance(one, Progress):
                words = [one.what] if one.what == "entered" else [one.what, one.goal or one.step]
                words += [{CHANGED: "changed", NO_STEP: "no step"}.get(one.because.reason, one.because.reason)]
                said.setdefault(one.run, []).append(((one.at - visitor.T0) // 1000, " ".join(w for w in words if w)))
                assert (one.at - visitor.T0) % 1000 == 0
        return list(said.values())


def book(workflow: dict[str, Any]) -> Playbook:
    return playbook(segments=SEGMENTS, campaigns=CAMPAIGNS,
                    workflows={"w": {name: value for name, value in workflow.items() if name != "name"}})


def play(monkeypatch: pytest.MonkeyPatch, workflow: dict[str, Any], history: list[tuple[int, str, str]],
         swap: tuple[int, dict[str, Any]] | None, restarts: bool) -> list[Said]:
    ann = Played(book(workflow))
    monkeypatch.setattr(visitor, "STEPS", (
        fold_profile.step, match_segments.step, advance_workflows.step, ann.decide))
    if restarts:
        ann.after = ann.rests
    for at, name, kind in history:
        if swap is not None and swap[0] <= at:
            swapped(ann, swap)
            swap = None
        ann._fire(visitor.T0 + at * 1000)
        ann.events += 1
        ann.does(at * 1000, name, kind=kind, **({"product_id": "p"} if name == "Product Viewed" else {}))
    if swap is not None:
        swapped(ann, swap)
    ann.waits((HORIZON - 1) * 1000)
    assert set(ann.person.runs) == {name[len(TIMER):] for name in ann.person.timers if name.startswith(TIMER)}
    return ann.runs()


def swapped(ann: Visitor, swap: tuple[int, dict[str, Any]]) -> None:
    """Another playbook goes live, and everybody is looked at."""
    at = visitor.T0 + swap[0] * 1000
    ann._fire(at)
    ann.swaps(succeed(ann.context.rules.playbook, book(swap[1])))
    ann._run(f"sweep-{at}", at, Due("playbook", "", at))
    ann._fire(at)


@given(workflows(), histories)
@settings(max_examples=examples(60), deadline=None)
def test_every_step_of_every_run_is_taken_at_its_second(workflow: dict[str, Any], history: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = Twin(workflow).live(history)
        assert play(patch, workflow, history, None, restarts=False) == expected
        assert play(patch, workflow, history, None, restarts=True) == expected


@given(workflows(), workflows(), histories, st.integers(0, 30).map(lambda n: n * 10 + 5))
@settings(max_examples=examples(50), deadline=None)
def test_a_new_version_in_between_changes_what_it_says_it_changes(
        workflow: dict[str, Any], new: dict[str, Any], history: list[Any], at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        expected = Twin(workflow, (at, new)).live(history)
        assert play(patch, workflow, history, (at, new), restarts=True) == expected


def test_the_twin_would_notice() -> None:
    """Were a wait one second off, they would disagree."""
    workflow = {"name": "w", "enters": {"event": "Cart Viewed"}, "steps": [{"id": "s0", "wait": "20s"}]}
    history = [(0, "Cart Viewed", "a")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow_twin, "HORIZON", 21)
        assert Twin(workflow).live(history) == play(patch, workflow, history, None, restarts=True)
        assert Twin({**workflow, "steps": [{"id": "s0", "wait": "21s"}]}).live(history) != play(
            patch, workflow, history, None, restarts=True)


ZONES = ("Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo", "Pacific/Apia",
         "America/Sao_Paulo", "UTC")


@given(st.sampled_from(ZONES), st.integers(1_300_000_000 // 60, 1_780_000_000 // 60), st.integers(0, 59_999),
       st.none() | st.tuples(st.integers(0, 23), st.integers(0, 59)), st.sets(st.sampled_from(WEEKDAYS), max_size=3))
@settings(max_examples=examples(40), deadline=None)
def test_the_next_time_of_day_is_the_first_minute_at_which_clocks_have_reached_it(
        name: str, minute: int, rest: int, time: tuple[int, int] | None, days: set[str]) -> None:
    where, wanted = zone(name), time or (0, 0)
    until = msgspec.convert({"time": "{:02}:{:02}".format(*wanted) if time else None,
                             "weekday": sorted(days) or None}, WaitUntil)
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
    assert next_time(until, now, name) == at * 60_000


@pytest.mark.parametrize(("name", "on", "until", "found"), [
    ("Europe/Rome", "2024-03-30 12:00", WaitUntil(time="02:30"), "2024-03-31 03:00"),  # skipped
    ("Europe/Rome", "2024-10-26 12:00", WaitUntil(time="02:30"), "2024-10-27 02:30"),  # twice: the first
    ("Africa/Cairo", "2024-04-25 12:00", WaitUntil(weekday="friday"), "2024-04-26 01:00"),  # no midnight
    ("Europe/Rome", "2024-05-01 09:30", WaitUntil(time="09:30"), "2024-05-01 09:30"),  # exactly now
])
def test_clock_changes(name: str, on: str, until: WaitUntil, found: str) -> None:
    where = zone(name)
    now = round(datetime.fromisoformat(on).replace(tzinfo=where).timestamp() * 1000)
    at = datetime.fromtimestamp(next_time(until, now, name) / 1000, where)
    assert at.strftime("%Y-%m-%d %H:%M") == found
    assert not at.fold
    assert next_time(until, now + 60_000, name) > now
    assert timedelta(0) < timedelta(milliseconds=next_time(until, now + 60_000, name) - now) < timedelta(days=8)
