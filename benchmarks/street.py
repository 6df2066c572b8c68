"""A street of shops: playbooks side by side over the same visits, each with a shard of its own, in virtual time.

Of the people a quarter come by one of four sources and 200 advertisements, a third have a card of one of 300 shops, one
in six ordered before. Who is sent an offer sees it a second later. CPU is that of the whole shard: decoding, timers,
all steps, staging and the commit to SQLite; not the log and not Redis.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks import data
from benchmarks.data import MESSAGE, MOMENT, Happening
from domain.effect import Row
from domain.playbook import Playbook
from domain.record import Record
from domain.streams import ACTIONS, stream_of
from flows.onsite import STEPS
from state.context import Context, Step
from state.context import Happening as What
from state.person import Person
from state.rules import compile_rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore

DAY = 86_400_000
BEGAN = 1_790_000_000_000
GAP = 20_000
"""Milliseconds between two events of one visit, on average."""
BATCH = 64
MODEL = data.model()


class Lap(NamedTuple):
    """What some events cost one shop: CPU (ns), how many they were, and how many actions came of them."""

    cpu: int
    events: int
    actions: int

    @property
    def each(self) -> float:
        """CPU per event (us)."""
        return self.cpu / self.events / 1_000


class Shop:
    """One playbook with its shard. `spent` is CPU (ns) by step, when `watched`."""

    def __init__(self, folder: Path, playbook: Playbook, watched: bool = False) -> None:
        folder.mkdir(parents=True)
        begun = time.thread_time_ns()
        self.rules = compile_rules(playbook)
        self.compiled = (time.thread_time_ns() - begun) / 1e9
        self.spent: dict[str, int] = {}
        steps = [timed(step, self.spent) for step in STEPS] if watched else list(STEPS)
        self.store = SqliteStore(folder / "store.db", 1)
        self.store.claim([0], "bench")
        self.shard = Shard(0, self.store, steps, 1, 50_000)
        self._offset = 0
        self._shown: list[tuple[int, bytes]] = []
        self._n = 0

    def lap(self, records: Sequence[tuple[str, bytes, bytes, int]]) -> Lap:
        """Let these events happen, and what follows from them."""
        cpu = events = actions = 0
        for start in range(0, len(records), BATCH):
            some = list(records[start:start + BATCH])
            now = some[-1][3]
            seen = [one for one in self._shown if one[0] <= now]
            self._shown = [one for one in self._shown if one[0] > now]
            some += [("clicks", b"", value, now) for _, value in seen]
            batch = [self._record(*one) for one in some]
            begun = time.thread_time_ns()
            self.shard.apply(batch, now, self.rules, MODEL)
            staged = Batch()
            self.shard.stage(staged)
            self.store.commit(staged, [])
            cpu += time.thread_time_ns() - begun
            events += len(batch)
            actions += sum([1 for row in staged.rows if row.stream == ACTIONS])
            self._look(staged.rows, now)
            self.store.commit(Batch(), [row.seq for row in self.store.outbox()])
        if self.shard.bugs:
            raise RuntimeError(self.shard.bugs[0])
        return Lap(cpu, events, actions)

    def _record(self, stream: str, key: bytes, value: bytes, at: int) -> Record:
        self._offset += 1
        return Record(stream, 0, self._offset, at, key, value)

    def _look(self, rows: Sequence[Row], now: int) -> None:
        """Browsers show what they are sent, a second later."""
        for row in rows:
            if row.stream == ACTIONS and b'"type":"send"' in row.body[:40]:
                action = msgspec.json.decode(row.body)
                self._n += 1
                self._shown.append((now + 1_000, msgspec.json.encode({
                    "type": "track", "event": "Offer Shown", "messageId": f"shown-{self._n}",
                    "anonymousId": action["anonymous_id"], "timestamp": data.iso(now + 1_000),
                    "properties": {"action_id": action["id"], "campaign": action["campaign"]}})))

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()


def timed(step: Step, spent: dict[str, int]) -> Step:
    """The step with a clock around it, which adds up in `spent` (ns, by the step's name)."""
    name = step.__module__.rpartition(".")[2]
    spent[name] = 0

    def clocked(person: Person, event: What, context: Context) -> Any:
        begun = time.perf_counter_ns()
        effects = step(person, event, context)
        spent[name] += time.perf_counter_ns() - begun
        return effects

    return clocked


# -- who comes ---------------------------------------------------------------------------------------------------


def acquaintances(persons: int) -> Iterator[tuple[str, bytes, bytes, int]]:
    """Everybody was here two days before; one in six ordered then, one in ten is a silver customer, one in 20 gold."""
    for person in range(persons):
        at = BEGAN - 2 * DAY + person
        for one in data.acquaintance(person):
            yield _as_written(one, at)
        who = data.anonymous_id(person)
        if person % 6 == 0:
            yield _written("purchases", who, at, {
                "type": "track", "event": "Order Completed", "properties": {
                    "order_id": f"before-{person}", "total": 40 + person % 100}})
        if person % 3 == 1:
            plan = {"plan": "silver"} if person % 10 == 1 else {"plan": "gold"} if person % 20 == 3 else {}
            yield _written("people", who, at, {"type": "identify", "traits": {
                "first_name": "Ann", "club": person % 300, **plan}})


def visits(persons: int, seed: int, count: int, began: int) -> Iterator[tuple[str, bytes, bytes, int]]:
    """`count` events of everyday visits, as a collector writes them, beginning at `began` (ms)."""
    traffic = data.Traffic(persons, seed, marks=0.0)
    step = GAP / max(1, min(data.VISITS, persons // 10))
    for n in range(count):
        yield _as_written(next(traffic), began + int(n * step))


def _as_written(one: Happening, at: int) -> tuple[str, bytes, bytes, int]:
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
    value = template.replace(MOMENT, moment).replace(MESSAGE, b'"m-%d-%d"' % (at, one.number))
    return stream_of(one.call, one.name), one.anonymous_id.encode(), value, at


def _written(stream: str, who: str, at: int, event: dict[str, Any]) -> tuple[str, bytes, bytes, int]:
    event = {**event, "messageId": f"{stream}-{who}", "anonymousId": who, "timestamp": data.iso(at)}
    return stream, who.encode(), msgspec.json.encode(event), at


class Street:
    """Shops side by side; the same people visit all of them."""

    def __init__(self, folder: Path, playbooks: dict[str, Playbook], persons: int, watched: bool = False) -> None:
        self.persons = persons
        self.now = BEGAN
        self.shops = {name: Shop(folder / name, playbook, watched) for name, playbook in playbooks.items()}
        before = list(acquaintances(persons))
        for shop in self.shops.values():
            shop.lap(before)
            while (due := shop.shard.next_due()) is not None and due < BEGAN:
                shop.shard.apply([], BEGAN - 1, shop.rules, MODEL)
                staged = Batch()
                shop.shard.stage(staged)
                shop.store.commit(staged, [])

    def lap(self, count: int, seed: int) -> dict[str, Lap]:
        """The next `count` events in every shop, in turns of 500, first one shop first and then the other."""
        found = list(visits(self.persons, seed, count, self.now))
        self.now = found[-1][3] + 1
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            sums: dict[str, Lap] = {name: Lap(0, 0, 0) for name in self.shops}
            names = list(self.shops)
            for start in range(0, count, 500):
                for name in names:
                    lap, whole = self.shops[name].lap(found[start:start + 500]), sums[name]
                    sums[name] = Lap(lap.cpu + whole.cpu, lap.events + whole.events, lap.actions + whole.actions)
                names.reverse()
        finally:
            gc.enable()
            gc.unfreeze()
        return sums

    def close(self) -> None:
        """Let go."""
        for shop in self.shops.values():
            shop.close()
