"""A live shop in one process: real shards over a real log and store, with a clock, delays and chance of its own.

What production does at some time or other is drawn here: shards read late and in pieces, letters take their time,
clocks tick when all is read, models change, people react to what they see. Everything is recorded as in production.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from connectors.log_sqlite import SqliteLog
from connectors.merge import order
from domain import action as actions
from domain import model as models
from domain.action import Arm, Send
from domain.model import Model
from domain.record import Outgoing, Record
from domain.settings import Settings
from domain.streams import ACTIONS, LETTERS, MESSAGES, MODELS, SHARD_INPUT, stream_of
from flows.onsite import STEPS
from flows.worker import store_path
from state.rules import Rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore

PARTITIONS = 4
T0 = 1_750_000_000_000
encode = msgspec.json.Encoder().encode


class Live:
    """`settings` names its data folder."""

    def __init__(self, folder: Path, rules: Rules, seed: int) -> None:
        self.settings = Settings(data=str(folder), partitions=PARTITIONS)
        self.chance = random.Random(seed)
        self.now = T0
        self.log = SqliteLog(folder, PARTITIONS, now=lambda: self.now)
        self.store = SqliteStore(store_path(self.settings), PARTITIONS)
        self.store.claim(range(PARTITIONS), "live")
        self.rules = rules
        self.model: Model | None = None
        self.shards = [Shard(p, self.store, STEPS, PARTITIONS, 1_000) for p in range(PARTITIONS)]
        self.armed: dict[str, Arm] = {}
        self.store.keep("playbook", rules.hash, rules.source)
        self._n = 0

    def happens(self, who: str, name: str, user: str = "", **fields: Any) -> None:
        """Somebody does something now."""
        self._n += 1
        calls = {"Page Viewed": "page", "Identified": "identify", "Aliased": "alias"}
        call = {"type": calls[name]} if name in calls else {"type": "track", "event": name}
        body = {**call, "anonymousId": who, "messageId": f"m{self._n}", **({"userId": user} if user else {}), **fields}
        stream = stream_of(call["type"], name)
        self.log.append([Outgoing(stream, (user or who).encode(), encode(body))])
        if name == "Exit Intent" and who in self.armed and self.chance.random() < 0.8:
            self.reacts("Offer Shown", self.armed.pop(who), user)

    def reacts(self, name: str, action: Send | Arm, user: str = "") -> None:
        """A browser says what became of something."""
        self.happens(action.anonymous_id, name, user,
                     properties={"action_id": action.id, "campaign": action.campaign})

    def learns(self, model: Model) -> None:
        """A model is published, and live at once."""
        self.model = model
        self.store.keep("model", model.hash, models.encode(model))
        self.log.append([Outgoing(MODELS, b"m", models.encode(model))])

    def reads(self, partition: int, most: int = 1 << 30) -> None:
        """A shard reads what is there, or some of it, and what it decides is published."""
        left = self._unread(partition)
        if left:
            self._turn(partition, left[:most], 0)

    def ticks(self, partition: int) -> None:
        """A shard's clock moves to now, once it has read everything and something is due."""
        shard = self.shards[partition]
        while not self._unread(partition) and (due := shard.next_due()) is not None and due <= self.now:
            self._turn(partition, [], self.now)

    def rests(self) -> None:
        """Everything is read, and all that is due now has come."""
        while any(self._unread(p) for p in range(PARTITIONS)):
            for partition in range(PARTITIONS):
                self.reads(partition)
                self.ticks(partition)

    def decided(self) -> dict[str, bytes]:
        """Every action and message that was published, by id."""
        found = [record for stream in (ACTIONS, MESSAGES) for p in range(PARTITIONS)
                 for record in self.log.fetch((stream, p), 0, 1 << 60)]
        return {msgspec.json.decode(record.value)["id"]: record.value for record in found}

    def close(self) -> None:
        self.store.close()
        self.log.close()

    def _unread(self, partition: int) -> list[Record]:
        positions = self.shards[partition].head.positions
        found = [record for stream in SHARD_INPUT
                 for record in self.log.fetch((stream, partition), positions.get(stream, -1) + 1, 1 << 60)]
        letters = [record for record in found if record.stream == LETTERS]
        public = sorted((record for record in found if record.stream != LETTERS), key=order)
        return letters + public if self.chance.random() < 0.5 else public + letters

    def _turn(self, partition: int, records: Sequence[Record], tick: int) -> None:
        shard = self.shards[partition]
        shard.apply(records, tick, self.rules, self.model)
        assert not shard.bugs, shard.bugs
        batch = Batch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])
        self.log.append([Outgoing(row.stream, row.key, row.body, log_time=row.at) for row in batch.rows])
        for row in batch.rows:
            if row.stream == ACTIONS:
                self._sees(actions.decode(row.body))

    def _sees(self, action: actions.Action) -> None:
        if isinstance(action, Arm):
            self.armed[action.anonymous_id] = action
        elif isinstance(action, Send) and self.chance.random() < 0.8:
            self.reacts("Offer Shown", action)
            if self.chance.random() < 0.3:
                self.reacts("Offer Dismissed", action)


