"""Warmth: what a new playbook counts, found in what the log holds already, for people as they are when it goes live.

    records and letters of one partition, up to its shard's position ─▶ Warmth.read ─▶ person -> traces ─▶ Shard.warm

A condition that counts within thirty days is right from its first second on: the traces it needs are made from the
recorded events before the playbook that needs them is swapped in. Records come in the order in which a reader gives
them, so it is the same live and in a re-run. What was sent on to somebody else counts once (`state/sent_on.py`).
"""

from collections.abc import Callable, Container, Mapping

import msgspec
from msgspec.structs import replace

from domain import event as events
from domain.event import Event, event_time, text_id
from domain.letter import Letter
from domain.record import UNREADABLE, Record
from domain.streams import LETTERS
from state import incoming, markers, seen
from state.event_traces import event_traces
from state.incoming import Refused
from state.person import Facts, Person, Trace, person_key
from state.properties import property_of
from state.traces import TraceRule

Warm = dict[str, dict[str, Trace]]
"""Person key -> the traces of the events under that key."""

ORDER = "Order Completed"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Warm).decode


def missing(new: Mapping[str, TraceRule], have: Mapping[str, TraceRule]) -> dict[str, TraceRule]:
    """The traces that a new playbook needs and the live one does not keep; the steps of a sequence come with it."""
    found = {key: rule for key, rule in new.items() if key not in have}
    for rule in list(found.values()):
        if rule.chain is not None:
            found.update({key: new[key] for key in rule.chain[0]})
    return {key: new[key] for key in new if key in found}


class Warmth:
    """Gathers the traces of one partition.

    `readable` tells whether the engine folded an event or refused it, `sent_on(key, stream, offset)` whether the shard
    sent a record on. What was sent on at `horizon` (ms) or before counts where it stands, later by its letter.
    """

    def __init__(self, rules: Mapping[str, TraceRule], readable: Callable[[Event], bool],
                 sent_on: Callable[[str, str, int], bool] = lambda key, stream, offset: False,
                 horizon: int = 0) -> None:
        self._wanted = tuple(rules)
        self._rules = event_traces(rules)
        self._readable, self._sent_on, self._horizon = readable, sent_on, horizon
        self._facts: dict[str, Facts] = {}
        self._seen: dict[str, Person] = {}
        self._bots: set[str] = set()
        self._orders: set[tuple[str, str]] = set()

    def read(self, record: Record) -> None:
        """One record more. What cannot be read, what came twice and what robots did counts nothing."""
        if record.stream == LETTERS:
            self._letter(record)
            return
        if record.value.startswith(markers.START):
            return
        try:
            event = events.decode(record.value)
        except UNREADABLE:
            return
        if key := person_key(text_id(event.user_id), text_id(event.anonymous_id)):
            self._event(key, event, record, record.log_time)

    def _letter(self, record: Record) -> None:
        """An event that was sent on to here."""
        try:
            letter = incoming.letter(record.value)
            if letter.kind != "forward" or not incoming.is_news(self._person(letter.to), letter):
                return
            inner = record._replace(value=str(letter.body.get("value", "")).encode())
            event = incoming.event(inner.value)
        except Refused:
            return
        at = letter.body.get("at")
        at = at if type(at) is int else record.log_time
        if at > self._horizon or letter.sender.startswith("s:"):
            self._event(letter.to, event, inner, at)

    def _event(self, key: str, event: Event, record: Record, at: int) -> None:
        """What happened to this person; `at` is when it came, by the log."""
        if key in self._bots:
            return
        about = event.context.attimo if event.context is not None else None
        if about is not None and about.bot:
            if key[0] == "a":
                self._bots.add(key)
            return
        wanted = self._rules.get(event.name)
        if wanted is None or not self._readable(event):
            return
        if at > self._horizon and self._sent_on(key, record.stream, record.offset):
            return
        if seen.already(self._person(key), seen.digest(event.message_id or record.value), record.log_time):
            return
        if event.name == ORDER and self._ordered(key, event):
            return
        facts = self._facts.get(key)
        if facts is None:
            facts = self._facts[key] = Facts()
        wanted.remember(facts, event, event_time(event, at))

    def _ordered(self, key: str, event: Event) -> bool:
        """Whether this order was told of before: whoever reports it again, it counts once."""
        order = property_of(event, "order_id")
        if order is None or order == "":  # then it is known by its message, which has come once
            return False
        known = key, str(order)
        again = known in self._orders
        self._orders.add(known)
        return again

    def _person(self, key: str) -> Person:
        """What is known of what this person was told already."""
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = Person(id=key)
        return known

    def found(self) -> Warm:
        """Everybody of whom something was found. In which order their traces stand is the playbook's word, not that of
        the records: it is kept with them, and a re-run reads these in another order.
        """
        return {key: {name: facts.traces[name] for name in self._wanted if name in facts.traces}
                for key, facts in self._facts.items() if facts.traces}


def unknown(found: Warm, have: Container[str]) -> Warm:
    """Of what was found only what was not counted before: steps of a new sequence may have been, and are complete.

    >>> unknown({"a:x": {"step": Trace(1), "new": Trace(2)}, "a:y": {"step": Trace(1)}}, {"step"})
    {'a:x': {'new': Trace(n=2, total=0.0, first_at=0, times=[], amounts=[])}}
    """
    fresh = {key: {name: trace for name, trace in some.items() if name not in have} for key, some in found.items()}
    return {key: some for key, some in fresh.items() if some}


def together(waiting: Warm, found: Warm, remembered: Container[str]) -> Warm:
    """What people are to be given who were to be given something before, and were not looked at meanwhile; only what
    is `remembered` by the playbook that goes live now.

    >>> together({"a:x": {"old": Trace(1)}, "a:y": {"gone": Trace(1)}}, {"a:x": {"new": Trace(2)}}, ("old", "new"))
    {'a:x': {'old': Trace(n=1, total=0.0, first_at=0, times=[], amounts=[]), 'new': Trace(n=2, total=0.0, first_at=0, \
times=[], amounts=[])}}
    """
    both = {key: {**waiting.get(key, {}), **found.get(key, {})} for key in (*waiting, *found)}
    kept = {key: {name: trace for name, trace in some.items() if name in remembered} for key, some in both.items()}
    return {key: some for key, some in kept.items() if some}


def warm(person: Person, origin: str, found: Mapping[str, Trace]) -> None:
    """Give a person the traces that were found of them under the id `origin`; what they have already stays.

    Somebody may be looked at more than once, and is given the same each time: nothing new changes nothing. What was
    found is given as a copy, for it is given again when a step fails and what it has changed is taken back.
    """
    facts = person.facets.get(origin)
    new = [key for key in found if facts is None or key not in facts.traces]
    if not new:
        return
    if facts is None:
        facts = person.facets[origin] = Facts()
    for key in new:
        trace = found[key]
        facts.traces[key] = replace(trace, times=[*trace.times], amounts=[*trace.amounts])
    facts.version += 1


def passed_on(person: Person, found: Mapping[str, Trace], origin: str) -> Letter:
    """What was found of somebody who became known as another one, for that one. The sender gives it its number."""
    to = person.moved.to if person.moved is not None else person.alias_of
    return Letter(kind="warmed", sender=person.id, to=to, seq=0, id=f"{origin}-warmed-0",
                  body={"traces": msgspec.to_builtins(dict(found))})


def pack(found: Warm) -> bytes:
    """What was found, as bytes, so that it outlives a restart.

    >>> unpack(pack({"a:x": {"k": Trace(n=1, first_at=5, times=[5])}}))
    {'a:x': {'k': Trace(n=1, total=0.0, first_at=5, times=[5], amounts=[])}}
    """
    return _encode(found)


def unpack(packed: bytes) -> Warm:
    """What was found, from bytes."""
    return _decode(packed)
