"""Comparison of playbooks: each has its own shard, and all get the same events in virtual time.

A quarter of the people come from one of four sources and 200 advertisements, a third have a card of one of 300
stores, and one in six has an order. Offers are seen a second later. CPU is that of the whole shard: decoding, timers,
steps, staging and the commit to SQLite, without the log and Redis.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks import data
from benchmarks.data import MESSAGE_ID_PLACEHOLDER, TIMESTAMP_PLACEHOLDER, EventTemplate
from domain.action import OutboxRow
from domain.playbook.playbook import Playbook
from domain.record import ACTIONS, Record, event_stream
from operators.steps import STEPS
from state.context import Input as What
from state.context import StepContext, StepFunction
from state.person.model import Person
from state.playbook.compiled import compile_rules
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch

DAY = 86_400_000
START_TIME = 1_790_000_000_000
EVENT_GAP = 20_000
"""Milliseconds between two events of a session, on average."""
BATCH = 64
MODEL = data.model()


class Measurement(NamedTuple):
    """CPU (ns), events and actions of one run."""

    cpu: int
    events: int
    actions: int

    @property
    def cpu_per_event(self) -> float:
        """CPU per event (us)."""
        return self.cpu / self.events / 1_000


class ShardRun:
    """One playbook with its shard; `step_ns` has the time (ns) by step, if measured."""

    def __init__(self, folder: Path, playbook: Playbook, time_steps: bool = False) -> None:
        folder.mkdir(parents=True)
        begun = time.thread_time_ns()
        self.rules = compile_rules(playbook)
        self.compile_seconds = (time.thread_time_ns() - begun) / 1e9
        self.step_ns: dict[str, int] = {}
        steps = [timed_step(step, self.step_ns) for step in STEPS] if time_steps else list(STEPS)
        self.store = SqliteStore(folder / "store.db", 1)
        self.store.claim([0], "bench")
        self.shard = Shard(0, self.store, steps, 1, 50_000)
        self._offset = 0
        self._pending_exposures: list[tuple[int, bytes]] = []
        self._exposure_count = 0

    def apply(self, records: Sequence[tuple[str, bytes, bytes, int]]) -> Measurement:
        """Apply these events and the exposures that follow."""
        cpu = events = actions = 0
        for start in range(0, len(records), BATCH):
            some = list(records[start : start + BATCH])
            now = some[-1][3]
            seen = [one for one in self._pending_exposures if one[0] <= now]
            self._pending_exposures = [one for one in self._pending_exposures if one[0] > now]
            some += [("clicks", b"", value, now) for _, value in seen]
            batch = [self._record(*one) for one in some]
            begun = time.thread_time_ns()
            self.shard.apply(batch, now, self.rules, MODEL)
            staged = WriteBatch()
            self.shard.stage(staged)
            self.store.commit(staged, [])
            cpu += time.thread_time_ns() - begun
            events += len(batch)
            actions += sum([1 for row in staged.outbox_rows if row.stream == ACTIONS])
            self._schedule_exposures(staged.outbox_rows, now)
            self.store.commit(WriteBatch(), [row.seq for row in self.store.outbox()])
        if self.shard.errors:
            raise RuntimeError(self.shard.errors[0])
        return Measurement(cpu, events, actions)

    def _record(self, stream: str, key: bytes, value: bytes, at: int) -> Record:
        self._offset += 1
        return Record(stream, 0, self._offset, at, key, value)

    def _schedule_exposures(self, rows: Sequence[OutboxRow], now: int) -> None:
        """Schedule exposures of sent offers, a second later."""
        for row in rows:
            if row.stream == ACTIONS and b'"type":"send"' in row.body[:40]:
                action = msgspec.json.decode(row.body)
                self._exposure_count += 1
                self._pending_exposures.append(
                    (
                        now + 1_000,
                        msgspec.json.encode(
                            {
                                "type": "track",
                                "event": "Offer Shown",
                                "messageId": f"shown-{self._exposure_count}",
                                "anonymousId": action["anonymous_id"],
                                "timestamp": data.iso(now + 1_000),
                                "properties": {"action_id": action["id"], "campaign": action["campaign"]},
                            }
                        ),
                    )
                )

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def timed_step(step: StepFunction, step_ns: dict[str, int]) -> StepFunction:
    """Wrap a step so that its time is added to `step_ns`."""
    name = step.__module__.rpartition(".")[2]
    step_ns[name] = 0

    def clocked(person: Person, event: What, context: StepContext) -> Any:
        begun = time.perf_counter_ns()
        effects = step(person, event, context)
        step_ns[name] += time.perf_counter_ns() - begun
        return effects

    return clocked


# -- who comes ---------------------------------------------------------------------------------------------------


def first_sessions(persons: int) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Events of everybody two days earlier: one in six ordered, one in ten is silver, one in 20 gold."""
    for person in range(persons):
        at = START_TIME - 2 * DAY + person
        for one in data.first_session(person):
            yield _to_log_record(one, at)
        who = data.anonymous_id(person)
        if person % 6 == 0:
            yield _encode_event(
                "purchases",
                who,
                at,
                {
                    "type": "track",
                    "event": "Order Completed",
                    "properties": {"order_id": f"before-{person}", "total": 40 + person % 100},
                },
            )
        if person % 3 == 1:
            plan = {"plan": "silver"} if person % 10 == 1 else {"plan": "gold"} if person % 20 == 3 else {}
            yield _encode_event(
                "people", who, at, {"type": "identify", "traits": {"first_name": "Ann", "club": person % 300, **plan}}
            )


def session_events(persons: int, seed: int, count: int, start: int) -> Iterator[tuple[str, bytes, bytes, int]]:
    """`count` events of ordinary sessions from `start` (ms) on, as in the log."""
    traffic = data.EventGenerator(persons, seed, marker_share=0.0)
    step = EVENT_GAP / max(1, min(data.OPEN_SESSIONS, persons // 10))
    for n in range(count):
        yield _to_log_record(next(traffic), start + int(n * step))


def _to_log_record(one: EventTemplate, at: int) -> tuple[str, bytes, bytes, int]:
    template = one.template
    person = int(one.anonymous_id[:8], 16)
    source = person % 16
    if source < 4:  # a quarter come by one of four campaigns
        name = (b"spring", b"newsletter", b"search", b"friends")[source]
        came = b'"context":{"campaign":{"source":"%s","name":"ad-%d"},' % (name, person % 200)
        template = template.replace(b'"context":{', came, 1)
    if person % 20 == 7 and one.name == "Page Viewed":
        template = template.replace(b"https://shop.example", b"https://shop.example/sale", 1)
    moment = b'"' + data.iso(at).encode() + b'"'
    value = template.replace(TIMESTAMP_PLACEHOLDER, moment).replace(
        MESSAGE_ID_PLACEHOLDER, b'"m-%d-%d"' % (at, one.number)
    )
    return event_stream(one.call, one.name), one.anonymous_id.encode(), value, at


def _encode_event(stream: str, who: str, at: int, event: dict[str, Any]) -> tuple[str, bytes, bytes, int]:
    event = {**event, "messageId": f"{stream}-{who}", "anonymousId": who, "timestamp": data.iso(at)}
    return stream, who.encode(), msgspec.json.encode(event), at


class PlaybookComparison:
    """Several playbooks with the same events."""

    def __init__(self, folder: Path, playbooks: dict[str, Playbook], persons: int, time_steps: bool = False) -> None:
        self.persons = persons
        self.now = START_TIME
        self.runs = {name: ShardRun(folder / name, playbook, time_steps) for name, playbook in playbooks.items()}
        before = list(first_sessions(persons))
        for shop in self.runs.values():
            shop.apply(before)
            while (due := shop.shard.next_due()) is not None and due < START_TIME:
                shop.shard.apply([], START_TIME - 1, shop.rules, MODEL)
                staged = WriteBatch()
                shop.shard.stage(staged)
                shop.store.commit(staged, [])

    def measure(self, count: int, seed: int) -> dict[str, Measurement]:
        """Run the next `count` events with every playbook, alternating every 500 events."""
        found = list(session_events(self.persons, seed, count, self.now))
        self.now = found[-1][3] + 1
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            sums: dict[str, Measurement] = {name: Measurement(0, 0, 0) for name in self.runs}
            names = list(self.runs)
            for start in range(0, count, 500):
                for name in names:
                    lap, whole = self.runs[name].apply(found[start : start + 500]), sums[name]
                    sums[name] = Measurement(
                        lap.cpu + whole.cpu, lap.events + whole.events, lap.actions + whole.actions
                    )
                names.reverse()
        finally:
            gc.enable()
            gc.unfreeze()
        return sums

    def close(self) -> None:
        """Close all stores."""
        for shop in self.runs.values():
            shop.close()
