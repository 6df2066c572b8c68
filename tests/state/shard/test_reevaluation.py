"""A changed playbook: everybody is looked at again, a slice at a time, and nobody is greeted for it."""

from pathlib import Path
from typing import Any

import msgspec

from domain.action import SegmentChange, Send, Suppress
from domain.action import decode_action as action
from domain.playbook.playbook import Playbook
from domain.record import ACTIONS, DEFAULT_PARTITIONS, partition_of
from operators.steps import STEPS
from state.person import codec
from state.playbook.compiled import Rules, compile_rules
from state.shard.reevaluation import PERSONS_PER_TICK
from state.shard.shard import TIMERS_PER_BATCH
from tests.harness.shard import ShardHarness, record

PERSON_COUNT = 3 * PERSONS_PER_TICK + 7
PARTITION = 5
NAMES = [
    name for name in (f"v{n:05}" for n in range(20_000)) if partition_of(name.encode(), DEFAULT_PARTITIONS) == PARTITION
][:PERSON_COUNT]


def compile_segments(segments: dict[str, Any], campaigns: dict[str, Any] | None = None) -> Rules:
    return compile_rules(
        msgspec.convert(
            {
                "segments": [{"name": name, "when": when} for name, when in segments.items()],
                "campaigns": [
                    {"name": name, "format": "bar", "content": {"default": {"title": name}}, **rest}
                    for name, rest in (campaigns or {}).items()
                ],
            },
            Playbook,
        )
    )


ONE_SEGMENT = {"seen": {"session": {"pages_at_least": 1}}}
TWO_SEGMENTS = {"lately": {"did": {"event": "Page Viewed", "within": "1h"}}}
GREETING_CAMPAIGN = {"hello": {"trigger": {"segment": "lately"}}}


def harness_with_persons(folder: Path, hot: int = 20) -> ShardHarness:
    bench = ShardHarness(folder, STEPS, PARTITION, hot)
    bench.rules = compile_segments(ONE_SEGMENT)
    bench.apply(*[record(name, at=1_000 + n, messageId=name) for n, name in enumerate(NAMES)])
    return bench


def test_reevaluation_updates_everyone_without_triggering(tmp_path: Path) -> None:
    bench = harness_with_persons(tmp_path)
    bench.rules = compile_segments(TWO_SEGMENTS, GREETING_CAMPAIGN)
    rows, ticks = [], 0
    bench.apply(tick=5_000)
    assert bench.shard.checkpoint.reevaluated_to is not None
    while bench.shard.checkpoint.reevaluated_to is not None:
        rows += bench.apply(tick=6_000 + ticks)
        ticks += 1
    assert ticks == PERSON_COUNT // PERSONS_PER_TICK
    people = [codec.decode(value) for _, value in bench.persons()]
    assert len(people) == PERSON_COUNT
    assert all(set(person.segments) == {"lately"} for person in people), "the old segment is gone, the new one is there"
    assert all(person.timers["segment:lately"] == 3_601_000 + NAMES.index(person.id[2:]) for person in people)
    actions = [action(row.body) for row in rows if row.stream == ACTIONS]
    assert not [one for one in actions if isinstance(one, (Send, Suppress))]
    assert {one.because.trigger for one in actions if isinstance(one, SegmentChange)} == {"playbook"}
    for _ in range(PERSON_COUNT // TIMERS_PER_BATCH + 1):  # what was due before is looked at in slices
        assert not [row for row in bench.apply(tick=3_600_999) if row.stream == ACTIONS]
    left = [row for row in bench.apply(tick=3_601_000) if row.stream == ACTIONS]
    assert [action(row.body).at for row in left] == [3_601_000], "and they leave by the mere passing of time"


def test_event_during_reevaluation_updates_the_person_first(tmp_path: Path) -> None:
    bench = harness_with_persons(tmp_path)
    bench.rules = compile_segments(
        {"twice": {"session": {"pages_at_least": 2}}, "once": {"session": {"pages_at_least": 1}}},
        {"hello": {"trigger": {"segment": "twice"}}, "reentry": {"trigger": {"segment": "once"}}},
    )
    found = [action(row.body) for row in bench.apply(record(NAMES[9], at=9_000))]
    moves = [(one.segment, one.because.trigger) for one in found if isinstance(one, SegmentChange) and one.entered]
    assert moves == [("once", "playbook"), ("twice", "Page Viewed")]
    assert [one.campaign for one in found if isinstance(one, (Send, Suppress))] == ["hello"]


def test_reevaluation_resumes_after_a_crash(tmp_path: Path) -> None:
    whole, cut = harness_with_persons(tmp_path / "a"), harness_with_persons(tmp_path / "b", hot=3)
    for bench in (whole, cut):
        bench.rules = compile_segments(TWO_SEGMENTS)
        bench.apply(tick=5_000)
    cut.shard.apply([], 6_000, cut.rules, None)
    kept = cut.rules
    cut.reopen()
    cut.rules = kept
    assert cut.shard.checkpoint.reevaluated_to is not None
    while whole.shard.checkpoint.reevaluated_to is not None:
        whole.apply(tick=6_000)
    while cut.shard.checkpoint.reevaluated_to is not None:
        cut.apply(tick=6_000)
    assert whole.persons() == cut.persons()


def test_new_shard_has_nothing_to_reevaluate(tmp_path: Path) -> None:
    bench = ShardHarness(tmp_path, STEPS, PARTITION)
    bench.rules = compile_segments(ONE_SEGMENT)
    bench.apply(record(NAMES[1]))
    assert bench.shard.checkpoint.reevaluated_to is None
