"""A live engine in one process: real shards over a real log and store, with a simulated clock and random delays.

Shards read late and in parts, shard messages are delayed, clocks tick, models change, and people react to offers. All
of it is recorded as in production.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from connectors.log.log import merge_key
from connectors.log.sqlite import SqliteLog
from domain import action as actions
from domain import model as models
from domain.action import Preload, Send
from domain.model import Model
from domain.record import (
    ACTIONS,
    MESSAGES,
    MODELS,
    SHARD_INPUT_STREAMS,
    SHARD_MESSAGES,
    NewRecord,
    Record,
    event_stream,
)
from domain.settings import Settings
from flows.worker import store_path
from operators.steps import STEPS
from state.playbook.compiled import Rules
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch

PARTITIONS = 4
T0 = 1_750_000_000_000
encode = msgspec.json.Encoder().encode


class LiveShop:
    """A live engine; its data folder is in `settings`."""

    def __init__(self, folder: Path, rules: Rules, seed: int) -> None:
        self.settings = Settings(data=str(folder), partitions=PARTITIONS)
        self.random = random.Random(seed)
        self.now = T0
        self.log = SqliteLog(folder, PARTITIONS, clock=lambda: self.now)
        self.store = SqliteStore(store_path(self.settings), PARTITIONS)
        self.store.claim(range(PARTITIONS), "live")
        self.rules = rules
        self.model: Model | None = None
        self.shards = [Shard(p, self.store, STEPS, PARTITIONS, 1_000) for p in range(PARTITIONS)]
        self.preloaded: dict[str, Preload] = {}
        self.store.put_blob("playbook", rules.hash, rules.source)
        self._event_count = 0

    def emit(self, anonymous_id: str, name: str, user_id: str = "", **fields: Any) -> None:
        """Append an event at the current time."""
        self._event_count += 1
        calls = {"Page Viewed": "page", "Identified": "identify", "Aliased": "alias"}
        call = {"type": calls[name]} if name in calls else {"type": "track", "event": name}
        body = {
            **call,
            "anonymousId": anonymous_id,
            "messageId": f"m{self._event_count}",
            **({"userId": user_id} if user_id else {}),
            **fields,
        }
        stream = event_stream(call["type"], name)
        self.log.append([NewRecord(stream, (user_id or anonymous_id).encode(), encode(body))])
        if name == "Exit Intent" and anonymous_id in self.preloaded and self.random.random() < 0.8:
            self.send_feedback("Offer Shown", self.preloaded.pop(anonymous_id), user_id)

    def send_feedback(self, name: str, action: Send | Preload, user_id: str = "") -> None:
        """Append a browser's feedback on an action."""
        self.emit(action.anonymous_id, name, user_id, properties={"action_id": action.id, "campaign": action.campaign})

    def publish_model(self, model: Model) -> None:
        """Publish a model and make it live."""
        self.model = model
        self.store.put_blob("model", model.hash, models.encode_model(model))
        self.log.append([NewRecord(MODELS, b"m", models.encode_model(model))])

    def read(self, partition: int, limit: int = 1 << 30) -> None:
        """Apply at most `limit` unread records to a shard and publish its effects."""
        unread = self._unread(partition)
        if unread:
            self._apply_batch(partition, unread[:limit], 0)

    def tick(self, partition: int) -> None:
        """Tick a shard that has read everything and has a due timer."""
        shard = self.shards[partition]
        while not self._unread(partition) and (due := shard.next_due()) is not None and due <= self.now:
            self._apply_batch(partition, [], self.now)

    def drain(self) -> None:
        """Read everything and fire all due timers."""
        while any(self._unread(p) for p in range(PARTITIONS)):
            for partition in range(PARTITIONS):
                self.read(partition)
                self.tick(partition)

    def published_decisions(self) -> dict[str, bytes]:
        """All published actions and messages by id."""
        found = [
            record
            for stream in (ACTIONS, MESSAGES)
            for p in range(PARTITIONS)
            for record in self.log.fetch((stream, p), 0, 1 << 60)
        ]
        return {msgspec.json.decode(record.value)["id"]: record.value for record in found}

    def close(self) -> None:
        self.store.close()
        self.log.close()

    def _unread(self, partition: int) -> list[Record]:
        positions = self.shards[partition].checkpoint.positions
        found = [
            record
            for stream in SHARD_INPUT_STREAMS
            for record in self.log.fetch((stream, partition), positions.get(stream, -1) + 1, 1 << 60)
        ]
        shard_messages = [record for record in found if record.stream == SHARD_MESSAGES]
        public = sorted((record for record in found if record.stream != SHARD_MESSAGES), key=merge_key)
        return shard_messages + public if self.random.random() < 0.5 else public + shard_messages

    def _apply_batch(self, partition: int, records: Sequence[Record], tick: int) -> None:
        shard = self.shards[partition]
        shard.apply(records, tick, self.rules, self.model)
        assert not shard.errors, shard.errors
        batch = WriteBatch()
        shard.stage(batch)
        self.store.commit(batch, [row.seq for row in self.store.outbox()])
        self.log.append([NewRecord(row.stream, row.key, row.body, log_time=row.at) for row in batch.outbox_rows])
        for row in batch.outbox_rows:
            if row.stream == ACTIONS:
                self._react(actions.decode_action(row.body))

    def _react(self, action: actions.Action) -> None:
        if isinstance(action, Preload):
            self.preloaded[action.anonymous_id] = action
        elif isinstance(action, Send) and self.random.random() < 0.8:
            self.send_feedback("Offer Shown", action)
            if self.random.random() < 0.3:
                self.send_feedback("Offer Dismissed", action)
