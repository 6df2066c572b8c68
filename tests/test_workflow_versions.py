"""A workflow that changes while people are in it: they finish the one they began, move to the new one, or leave."""

from pathlib import Path
from typing import Any

import pytest

from connectors.open_log import open_log
from domain import action
from domain.action import Progress
from domain.effect import Row
from domain.letter import Letter
from domain.partition import partition_of
from domain.playbook import MOST_PAST, MOST_VERSIONS, Playbook, decode, encode, hash_of, succeed
from domain.record import Record
from domain.settings import Settings
from domain.streams import PARTITIONS
from flows.onsite import STEPS
from flows.worker import Worker
from operators.advance_workflows import CHANGED, GONE, JOINED, NO_STEP
from state.context import Due
from state.merge import absorb, hand_over
from state.person import MAX_BEEN, Been, Person, Run
from state.rerun import rerun
from state.rules import compile_rules, rules_from
from state.runs import end, join
from state.store_sqlite import SqliteStore
from tests.shards import Bench, record
from tests.test_workflows import DAY, HOUR, MINUTE, flow, ways
from tests.visitor import T0, Visitor, playbook

SOON = 10 * MINUTE
"""Before the visit is over, which would be a happening too."""


def book(wait: str = "1d", goal: str = "old", **more: Any) -> Playbook:
    return playbook(workflows={"w": flow({"id": "rest", "wait": wait}, {"goal": goal}, **more)})


def swapped(ann: Visitor, new: Playbook) -> None:
    ann.swaps(succeed(ann.context.rules.playbook, new))


def begun(first: Playbook) -> Visitor:
    ann = Visitor(first)
    ann.does(0, "Cart Viewed")
    assert ways(ann) == [(0, "entered"), (0, "step rest")]
    return ann


def test_who_began_one_finishes_it_and_who_comes_after_goes_through_the_new_one() -> None:
    ann = begun(book())
    swapped(ann, book("2d", "new", again="always"))
    ann.rests()
    ann.waits(2 * DAY)
    assert ways(ann)[2:] == [(DAY, "goal old"), (DAY, "finished step_2")]
    ann.does(2 * DAY, "Cart Viewed")
    ann.waits(5 * DAY)
    assert ways(ann)[4:] == [(2 * DAY, "entered"), (2 * DAY, "step rest"), (4 * DAY, "goal new"),
                             (4 * DAY, "finished step_2")]


def test_what_changes_nothing_for_those_in_it_is_no_new_version() -> None:
    first = book()
    assert succeed(first, book(enters={"event": "Exit Intent"}, description="x", when_changed="leave")).past == ()


@pytest.mark.parametrize(("wait", "goal_at"), [("3d", 3 * DAY), ("6h", 6 * HOUR), ("1m", SOON)])
def test_who_moves_goes_on_at_the_step_of_the_same_name_and_has_stood_there_as_long(wait: str, goal_at: int) -> None:
    ann = begun(book())
    new = playbook(workflows={"w": flow({"goal": "early"}, {"id": "rest", "wait": wait}, {"goal": "new"},
                                        when_changed="move")})
    swapped(ann, new)
    ann.does(SOON, "Page Viewed")
    ann.waits(9 * DAY)
    assert ways(ann)[2:] == [(SOON, "step rest"), (goal_at, "goal new"), (goal_at, "finished step_3")]


def test_who_moves_to_another_kind_of_step_does_what_it_says() -> None:
    ann = begun(book())
    swapped(ann, playbook(workflows={"w": flow({"wait": "1h"}, {"id": "rest", "goal": "now"}, when_changed="move")}))
    ann.does(SOON, "Page Viewed")
    assert ways(ann)[2:] == [(SOON, "step rest"), (SOON, "goal now"), (SOON, "finished rest")]


def test_an_event_that_the_new_version_waits_for_counts_though_it_is_the_first_after_the_change() -> None:
    ann = begun(book())
    swapped(ann, playbook(workflows={"w": flow({"id": "rest", "wait_for": {"event": "Exit Intent"}}, {"goal": "seen"},
                                               when_changed="move")}))
    ann.does(SOON, "Exit Intent")
    assert ways(ann)[2:] == [(SOON, "step rest"), (SOON, "goal seen"), (SOON, "finished step_2")]


def test_who_cannot_move_because_the_step_is_gone_leaves() -> None:
    ann = begun(book())
    swapped(ann, playbook(workflows={"w": flow({"id": "other", "wait": "1d"}, when_changed="move")}))
    ann.does(SOON, "Page Viewed")
    assert ways(ann)[2:] == [(SOON, f"left rest {NO_STEP}")]


def test_who_is_to_leave_when_it_changes_leaves_at_the_next_happening() -> None:
    ann = begun(book())
    swapped(ann, book("2d", when_changed="leave"))
    ann._run("sweep", T0 + SOON, Due("playbook", "", T0 + SOON))
    assert ways(ann)[2:] == [(SOON, f"left rest {CHANGED}")]


@pytest.mark.parametrize(("last", "ends"), [
    ({}, [(DAY, "goal old"), (DAY, "finished step_2")]),
    ({"when_changed": "move"}, [(DAY, "goal old"), (DAY, "finished step_2")]),
    ({"when_changed": "leave"}, [(30 * MINUTE, f"left rest {CHANGED}")])])
def test_a_workflow_that_is_removed_is_finished_unless_its_last_version_says_leave(
        last: dict[str, str], ends: list[tuple[int, str]]) -> None:
    ann = begun(book(**last))
    swapped(ann, Playbook())
    ann.waits(2 * DAY)
    assert ways(ann)[2:] == ends


def test_a_version_that_nobody_keeps_is_left() -> None:
    ann = begun(book())
    ann.swaps(book("2d"))
    ann.does(SOON, "Page Viewed")
    assert ways(ann)[2:] == [(SOON, f"left rest {GONE}")]
    ben = begun(book())
    ben.swaps(Playbook())
    ben.waits(2 * DAY)
    assert ways(ben)[2:] == [(30 * MINUTE, f"left rest {GONE}")]


# -- which versions are kept -----------------------------------------------------------------------------------


def test_the_newest_versions_are_kept_and_not_more_than_so_many() -> None:
    live = book("1s")
    for n in range(2, MOST_VERSIONS + 5):
        live = succeed(live, book(f"{n}s"))
    assert [one.steps[0].wait for one in live.past] == [f"{n}s" for n in range(4, MOST_VERSIONS + 4)]
    for n in range(MOST_PAST + 5):
        live = succeed(live, playbook(workflows={f"w{n:03}": flow({"wait": "1d"})}))
    assert len(live.past) == MOST_PAST
    assert live.past[-1].name == f"w{MOST_PAST + 3:03}"


def test_a_version_that_comes_back_is_live_again_and_its_people_are_in_the_live_one() -> None:
    ann = begun(book())
    swapped(ann, book("2d"))
    swapped(ann, book())
    assert [one.steps[0].wait for one in ann.context.rules.playbook.past] == ["2d"]
    ann.waits(2 * DAY)
    assert ways(ann)[2:] == [(DAY, "goal old"), (DAY, "finished step_2")]


def test_succeeding_twice_changes_nothing_and_the_bytes_say_what_is_past() -> None:
    one = succeed(book(), book("2d"))
    assert encode(succeed(one, book("2d"))) == encode(one)
    assert decode(encode(one)) == one
    assert hash_of(encode(one)) != hash_of(encode(book("2d")))


def test_a_worker_keeps_what_was_live_over_a_swap_and_a_restart(tmp_path: Any) -> None:
    shop = tmp_path / "shop"
    (shop / "workflows").mkdir(parents=True)
    (shop / "shop.toml").write_text('name = "x"\n')

    def write(wait: str) -> None:
        (shop / "workflows" / "w.toml").write_text(
            f'enters = {{ event = "Cart Viewed" }}\n[[steps]]\nwait = "{wait}"\n')

    settings = Settings(data=str(tmp_path / "data"), playbook=str(shop), redis="unix:///nowhere")
    open_log(settings).close()
    write("1d")
    worker = Worker(settings, STEPS)
    worker.playbook.watcher.poll(0)
    write("2d")
    for n in range(100):
        worker.playbook.watcher.poll(n * 10.0)
    live = worker.playbook
    live.rules = live._succeeding(live.watcher.first(), live._source())
    live._keep(live.rules)
    assert [one.steps[0].wait for one in live.rules.playbook.past] == ["1d"]
    kept = live.rules.hash
    worker.store.close()
    worker.log.close()
    write("3d")
    again = Worker(settings, STEPS)
    assert [one.steps[0].wait for one in again.playbook.rules.playbook.past] == ["1d", "2d"]
    source = again.store.kept("playbook", kept)
    assert source is not None
    assert hash_of(source) == kept
    again.store.close()
    again.log.close()


def test_recorded_turns_give_the_same_again_over_new_versions(tmp_path: Path) -> None:
    """Each turn names the playbook it was made with, and its bytes hold what is past."""
    versions = [book("1d", "one")]
    versions.append(succeed(versions[-1], book("2d", "two")))
    versions.append(succeed(versions[-1], book("3d", "three", when_changed="move")))
    rules = [compile_rules(one) for one in versions]
    here = partition_of(b"ann", PARTITIONS)
    bench = Bench(tmp_path / "live", STEPS, here)
    records = [record("ann", name, at=T0 + at, offset=n) for n, (at, name) in enumerate(
        [(0, "Cart Viewed"), (HOUR, "Page Viewed"), (DAY + HOUR, "Cart Viewed"), (2 * DAY, "Page Viewed")])]
    rows: list[Row] = []
    for n, one in enumerate(records):
        bench.rules = rules[min(n, 2)]
        rows += bench.apply(one)
        bench.reopen()
    rows += bench.apply(tick=T0 + 9 * DAY)
    goals = [one.goal for row in rows if row.stream == "actions"
             and isinstance(one := action.decode(row.body), Progress) and one.goal]
    assert goals == ["three"], "the first was moved on by the last version"
    kept = {one.hash: one.source for one in rules}
    turns = bench.store.turns(here)

    def fetch(place: tuple[str, int], first: int, last: int) -> list[Record]:
        return [one for one in records if one.stream == place[0] and first <= one.offset <= last]

    again = SqliteStore(tmp_path / "again.db", PARTITIONS)
    same = rerun(here, turns, fetch, again, STEPS, PARTITIONS, lambda name: rules_from(kept[name]), lambda name: None)
    assert [row[1:] for row in same] == [row[1:] for row in rows]
    assert again.persons(here) == bench.persons()


# -- login -----------------------------------------------------------------------------------------------------


def test_who_is_in_it_under_both_ids_stays_in_the_older_one() -> None:
    known, browser = Visitor(book()), Visitor(book(), "y")
    known.person.id = "u:ann"
    browser.does(0, "Cart Viewed")
    known.does(0, "Page Viewed")
    known.does(HOUR, "Cart Viewed")
    absorb(known.person, hand_over(browser.person), T0 + 2 * HOUR)
    assert browser.person.runs == {}
    assert not [name for name in browser.person.timers if name.startswith("workflow:")]
    known._run("letter", T0 + 2 * HOUR, Letter("handover", "a:y", "u:ann", 1))
    assert ways(known)[2:] == [(2 * HOUR, f"left rest {JOINED}")]
    known.waits(3 * DAY)
    assert ways(known)[3:] == [(DAY, "goal old"), (DAY, "finished step_2")]
    assert known.person.been["w"].times == 2


def test_what_was_gone_through_adds_up_and_the_order_of_joining_does_not_matter() -> None:
    def ways_of(*names: str) -> Person:
        return Person("u:x", been={name: Been(len(name), T0 + len(name)) for name in names},
                      runs={name + "-1": Run(name, "v", T0, at="rest") for name in names})

    one, other = ways_of("a", "bb"), ways_of("bb", "ccc")
    join(one, other.runs, other.been)
    again, first = ways_of("bb", "ccc"), ways_of("a", "bb")
    join(again, first.runs, first.been)
    assert one.been == again.been == {"a": Been(1, T0 + 1), "bb": Been(4, T0 + 2), "ccc": Been(3, T0 + 3)}
    assert one.runs == again.runs


def test_of_too_many_workflows_gone_through_the_one_left_longest_ago_is_forgotten() -> None:
    ann = Person("u:ann")
    for n in range(MAX_BEEN + 3):
        ann.runs["r"] = Run(f"w{n}", "v", T0)
        end(ann, "r", T0 + n)
    assert len(ann.been) == MAX_BEEN
    assert "w2" not in ann.been
    assert "w3" in ann.been
