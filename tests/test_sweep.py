"""A changed playbook: everybody is looked at again, a slice at a time, and nobody is greeted for it."""

from pathlib import Path
from typing import Any

import msgspec

from domain.action import Hold, Move, Send
from domain.action import decode as action
from domain.partition import partition_of
from domain.playbook import Playbook
from domain.streams import ACTIONS, PARTITIONS
from flows.onsite import STEPS
from state import codec
from state.rules import Rules, compile_rules
from state.shard import SLICE
from state.sweep import SWEPT
from tests.shards import Bench, record

MANY = 3 * SWEPT + 7
P = 5
NAMES = [name for name in (f"v{n:05}" for n in range(20_000)) if partition_of(name.encode(), PARTITIONS) == P][:MANY]


def rules(segments: dict[str, Any], campaigns: dict[str, Any] | None = None) -> Rules:
    return compile_rules(msgspec.convert({
        "segments": [{"name": name, "when": when} for name, when in segments.items()],
        "campaigns": [{"name": name, "format": "bar", "content": {"default": {"title": name}}, **rest}
                      for name, rest in (campaigns or {}).items()]}, Playbook))


ONE = {"seen": {"session": {"pages_at_least": 1}}}
TWO = {"lately": {"did": {"event": "Page Viewed", "within": "1h"}}}
GREETS = {"hello": {"trigger": {"segment": "lately"}}}


def filled(folder: Path, hot: int = 20) -> Bench:
    bench = Bench(folder, STEPS, P, hot)
    bench.rules = rules(ONE)
    bench.apply(*[record(name, at=1_000 + n, messageId=name) for n, name in enumerate(NAMES)])
    return bench


def test_everybody_is_looked_at_again_and_nobody_is_greeted(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.rules = rules(TWO, GREETS)
    rows, ticks = [], 0
    bench.apply(tick=5_000)
    assert bench.shard.head.sweep is not None
    while bench.shard.head.sweep is not None:
        rows += bench.apply(tick=6_000 + ticks)
        ticks += 1
    assert ticks == MANY // SWEPT
    people = [codec.decode(value) for _, value in bench.persons()]
    assert len(people) == MANY
    assert all(set(person.segments) == {"lately"} for person in people), "the old segment is gone, the new one is there"
    assert all(person.timers["segment:lately"] == 3_601_000 + NAMES.index(person.id[2:]) for person in people)
    actions = [action(row.body) for row in rows if row.stream == ACTIONS]
    assert not [one for one in actions if isinstance(one, (Send, Hold))]
    assert {one.because.trigger for one in actions if isinstance(one, Move)} == {"playbook"}
    for _ in range(MANY // SLICE + 1):  # what was due before is looked at in slices
        assert not [row for row in bench.apply(tick=3_600_999) if row.stream == ACTIONS]
    left = [row for row in bench.apply(tick=3_601_000) if row.stream == ACTIONS]
    assert [action(row.body).at for row in left] == [3_601_000], "and they leave by the mere passing of time"


def test_who_comes_first_is_looked_at_just_before(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.rules = rules({"twice": {"session": {"pages_at_least": 2}}, "once": {"session": {"pages_at_least": 1}}},
                        {"hello": {"trigger": {"segment": "twice"}}, "again": {"trigger": {"segment": "once"}}})
    found = [action(row.body) for row in bench.apply(record(NAMES[9], at=9_000))]
    moves = [(one.segment, one.because.trigger) for one in found if isinstance(one, Move) and one.entered]
    assert moves == [("once", "playbook"), ("twice", "Page Viewed")]
    assert [one.campaign for one in found if isinstance(one, (Send, Hold))] == ["hello"]


def test_a_sweep_goes_on_after_a_kill_and_is_the_same_however_it_is_cut(tmp_path: Path) -> None:
    whole, cut = filled(tmp_path / "a"), filled(tmp_path / "b", hot=3)
    for bench in (whole, cut):
        bench.rules = rules(TWO)
        bench.apply(tick=5_000)
    cut.shard.apply([], 6_000, cut.rules, None)
    kept = cut.rules
    cut.reopen()
    cut.rules = kept
    assert cut.shard.head.sweep is not None
    while whole.shard.head.sweep is not None:
        whole.apply(tick=6_000)
    while cut.shard.head.sweep is not None:
        cut.apply(tick=6_000)
    assert whole.persons() == cut.persons()


def test_a_fresh_shard_has_nobody_to_look_at(tmp_path: Path) -> None:
    bench = Bench(tmp_path, STEPS, P)
    bench.rules = rules(ONE)
    bench.apply(record(NAMES[1]))
    assert bench.shard.head.sweep is None
