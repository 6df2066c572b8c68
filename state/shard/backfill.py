"""Backfill: the counters of a new playbook, computed from the recorded events before the playbook goes live.

    records of one partition, up to the shard's position ─▶ CounterBackfill.read ─▶ person -> counters

A condition that counts within thirty days is therefore correct from its first second. The result does not depend on
how a reader orders the streams, so it is the same live and in a replay. A forwarded event counts once
(`flows/backfill.py`).
"""

from collections.abc import Callable, Container, Mapping

import msgspec
from msgspec.structs import replace

from domain import event as events
from domain.action import ShardMessage
from domain.event import Event, event_time, normalize_id
from domain.record import DECODE_ERRORS, SHARD_MESSAGES, Record
from state.conditions.counters import CounterSpec, index_by_event
from state.conditions.properties import get_property
from state.person import dedup
from state.person.model import EventCounter, Person, ProfileFragment, person_key
from state.shard import inbox
from state.shard.inbox import InvalidRecord

BackfilledCounters = dict[str, dict[str, EventCounter]]
"""Person key -> counters of the events under that key."""

ORDER_EVENT = "Order Completed"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(BackfilledCounters).decode


def new_counters(new: Mapping[str, CounterSpec], existing: Mapping[str, CounterSpec]) -> dict[str, CounterSpec]:
    """Return the counters that the new playbook needs and the live one lacks, with the steps of sequences."""
    found = {key: rule for key, rule in new.items() if key not in existing}
    for rule in list(found.values()):
        if rule.sequence is not None:
            found.update({key: new[key] for key in rule.sequence[0]})
    return {key: new[key] for key in new if key in found}


class CounterBackfill:
    """Computes the counters of one partition.

    `readable` returns whether the engine accepts an event. `was_forwarded(key, stream, offset)` returns whether the
    shard forwarded a record. An event forwarded at `cutoff` (ms) or before counts at its original record, later ones at
    the forward message.
    """

    def __init__(
        self,
        specs: Mapping[str, CounterSpec],
        readable: Callable[[Event], bool],
        was_forwarded: Callable[[str, str, int], bool] = lambda key, stream, offset: False,
        cutoff: int = 0,
    ) -> None:
        self._keys = tuple(specs)
        self._index = index_by_event(specs)
        self._readable, self._was_forwarded, self._cutoff = readable, was_forwarded, cutoff
        self._fragments: dict[str, ProfileFragment] = {}
        self._dedup: dict[str, Person] = {}
        self._bots: set[str] = set()
        self._orders: set[tuple[str, str]] = set()

    def read(self, record: Record) -> None:
        """Read one record. Invalid records, duplicates and bot events count nothing."""
        if record.stream == SHARD_MESSAGES:
            self._read_message(record)
            return
        if record.value.startswith(inbox.MARKER_PREFIX):
            return
        try:
            event = events.decode(record.value)
        except DECODE_ERRORS:
            return
        if key := person_key(normalize_id(event.user_id), normalize_id(event.anonymous_id)):
            self._count_event(key, event, record, record.log_time)

    def _read_message(self, record: Record) -> None:
        """Read a forwarded event."""
        try:
            message = inbox.decode_message(record.value)
            if message.kind != "forward" or not inbox.accept_message(self._dedup_state(message.recipient), message):
                return
            inner = record._replace(value=str(message.body.get("value", "")).encode())
            event = inbox.decode_event(inner.value)
        except InvalidRecord:
            return
        at = message.body.get("at")
        at = at if type(at) is int else record.log_time
        if at > self._cutoff or message.sender.startswith("s:"):
            self._count_event(message.recipient, event, inner, at)

    def _count_event(self, key: str, event: Event, record: Record, at: int) -> None:
        """Count an event of a person; `at` is its log time."""
        if key in self._bots:
            return
        client = event.context.attimo if event.context is not None else None
        if client is not None and client.bot:
            if key[0] == "a":
                self._bots.add(key)
            return
        wanted = self._index.get(event.name)
        if wanted is None or not self._readable(event):
            return
        if at > self._cutoff and self._was_forwarded(key, record.stream, record.offset):
            return
        if dedup.check_duplicate(
            self._dedup_state(key), dedup.digest(event.message_id or record.value), record.log_time
        ):
            return
        if event.name == ORDER_EVENT and self._is_duplicate_order(key, event):
            return
        fragment = self._fragments.get(key)
        if fragment is None:
            fragment = self._fragments[key] = ProfileFragment()
        wanted.add_event(fragment, event, event_time(event, at))

    def _is_duplicate_order(self, key: str, event: Event) -> bool:
        """Return whether this order was reported before."""
        order = get_property(event, "order_id")
        if order is None or order == "":  # identified by its message id, which was deduplicated
            return False
        known = key, str(order)
        duplicate = known in self._orders
        self._orders.add(known)
        return duplicate

    def _dedup_state(self, key: str) -> Person:
        """Return the deduplication state of a person."""
        known = self._dedup.get(key)
        if known is None:
            known = self._dedup[key] = Person(id=key)
        return known

    def result(self) -> BackfilledCounters:
        """Return the persons with counters.

        Counters are in the order of the playbook, not of the records: the order is stored with them, and a replay reads
        the records in another order.
        """
        return {
            key: {name: fragment.counters[name] for name in self._keys if name in fragment.counters}
            for key, fragment in self._fragments.items()
            if fragment.counters
        }


def only_new(counters: BackfilledCounters, existing: Container[str]) -> BackfilledCounters:
    """Drop counters that exist already: the steps of a new sequence may be counted by the live playbook.

    >>> only_new({"a:x": {"step": EventCounter(1), "new": EventCounter(2)}, "a:y": {"step": EventCounter(1)}}, {"step"})
    {'a:x': {'new': EventCounter(count=2, total=0.0, first_at=0, times=[], amounts=[])}}
    """
    fresh = {
        key: {name: counter for name, counter in found.items() if name not in existing}
        for key, found in counters.items()
    }
    return {key: found for key, found in fresh.items() if found}


def merge_pending(
    pending: BackfilledCounters, counters: BackfilledCounters, keep_keys: Container[str]
) -> BackfilledCounters:
    """Combine the counters of an unfinished backfill with new ones; keep only those of the new playbook (`keep_keys`).

    >>> pending = {"a:x": {"old": EventCounter(1)}, "a:y": {"removed": EventCounter(1)}}
    >>> merged = merge_pending(pending, {"a:x": {"new": EventCounter(2)}}, ("old", "new"))
    >>> {key: {name: counter.count for name, counter in found.items()} for key, found in merged.items()}
    {'a:x': {'old': 1, 'new': 2}}
    """
    both = {key: {**pending.get(key, {}), **counters.get(key, {})} for key in (*pending, *counters)}
    kept = {key: {name: counter for name, counter in found.items() if name in keep_keys} for key, found in both.items()}
    return {key: found for key, found in kept.items() if found}


def apply_backfill(person: Person, origin: str, counters: Mapping[str, EventCounter]) -> None:
    """Add the counters found under the id `origin` to a person; existing counters stay.

    Repeating this changes nothing. The counters are copied, because they are applied again after a failed step is
    rolled back.
    """
    fragment = person.fragments.get(origin)
    new = [key for key in counters if fragment is None or key not in fragment.counters]
    if not new:
        return
    if fragment is None:
        fragment = person.fragments[origin] = ProfileFragment()
    for key in new:
        counter = counters[key]
        fragment.counters[key] = replace(counter, times=[*counter.times], amounts=[*counter.amounts])
    fragment.version += 1


def backfill_message(person: Person, counters: Mapping[str, EventCounter], origin: str) -> ShardMessage:
    """Return the message that sends the counters of a merged id to its target. The sender sets the sequence number."""
    to = person.first_merge.target if person.first_merge is not None else person.merged_into
    return ShardMessage(
        kind="backfill",
        sender=person.id,
        recipient=to,
        seq=0,
        id=f"{origin}-backfill-0",
        body={"counters": msgspec.to_builtins(dict(counters))},
    )


def pack_counters(counters: BackfilledCounters) -> bytes:
    """Encode counters, so that they survive a restart.

    >>> unpack_counters(pack_counters({"a:x": {"k": EventCounter(count=1, first_at=5, times=[5])}}))
    {'a:x': {'k': EventCounter(count=1, total=0.0, first_at=5, times=[5], amounts=[])}}
    """
    return _encode(counters)


def unpack_counters(packed: bytes) -> BackfilledCounters:
    """Decode counters."""
    return _decode(packed)
