"""The laws that hold for every verb of `flows/onsite.STEPS`, whichever they are, over happenings drawn at random.

Each verb is held where it stands: with the people, the news and the proposals that the verbs before it leave. It is
applied twice, first to copies that come from the bytes of the store, then for good.
"""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import data
from connectors.playbook_folder import read
from domain.effect import Effect
from domain.record import Record
from domain.streams import LETTERS, stream_of
from flows.onsite import STEPS
from state import codec
from state.context import Context, Happening, Step, Unreadable
from state.person import Person
from state.rules import Rules, compile_rules
from state.shard import Shard
from state.store import Batch
from state.store_sqlite import SqliteStore
from tests import whole_playbook
from tests.shards import record

T0 = 1_700_000_000_000
EVENTS = ("Product Viewed", "Product Viewed", "Product Added", "Exit Intent", "Page Viewed", "Checkout Started",
          "Order Completed", "Order Cancelled", "Consent Updated", "Offer Shown", "Offer Dismissed",
          "Message Delivered", "Unsubscribed", "Product Removed")
ONCE = """
format = "banner"
trigger = { event = "Product Added" }
limits = { total = 1 }
content = { default = { title = "Only once" } }
"""
EXIT = """
format = "popup"
trigger = { exit_intent = true }
when = { cart = { items_at_least = 1 } }
content = { default = { title = "Your {{ cart.items[0].name }} waits" } }
"""
CLOCKS = [(time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "localtime")]
CHANCE = [(random, name) for name in ("random", "randrange", "randint", "choice", "shuffle", "getrandbits", "uniform")]


def name_of(step: Step) -> str:
    """The verb a step belongs to.

    >>> [name_of(step) for step in STEPS][:2]
    ['resolve_identity', 'fold_profile']
    """
    return step.__module__.rpartition(".")[2]


class Held:
    """A verb under watch: the shard calls it as it would call the verb, and every law is looked at on every call."""

    asked: Counter[str] = Counter()
    inside: int = 0
    """The thread in which a verb is at work."""

    def __init__(self, step: Step) -> None:
        self.step, self.name = step, name_of(step)
        self.ids: set[str] = set()
        self.did: Counter[str] = Counter()

    def __call__(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        before, said = codec.encode(person), msgspec.json.encode(event)
        asked_before = len(context.news)
        twin, likewise, others = codec.decode(before), copied(context), dict[str, Person]()

        def other(key: str) -> Person:
            if key == person.id:
                return twin
            if key not in others:
                others[key] = codec.decode(codec.encode(context.neighbour(key)))
            return others[key]

        likewise.neighbour = other
        expected = self._apply(twin, event, likewise)
        found = self._apply(person, event, context)
        assert said_by(found) == said_by(expected), f"{self.name} says one thing and then another"
        after = codec.encode(person)
        assert after == codec.encode(twin), f"{self.name} makes different persons of equal ones"
        for key, one in others.items():
            assert codec.encode(one) == codec.encode(context.neighbour(key)), f"{self.name} makes different {key}"
        assert likewise.letters == context.letters
        assert (likewise.news, likewise.moves) == (context.news, context.moves)
        assert [one[1:] for one in likewise.proposals] == [one[1:] for one in context.proposals]
        assert msgspec.json.encode(event) == said, f"{self.name} changes what has happened"
        if isinstance(found, Unreadable):
            assert after == before, f"{self.name} refuses what it has already folded"
            raise found
        for effect in (*found, *context.news[asked_before:]):
            assert effect.id.startswith(f"{context.origin}-"), f"{self.name}: {effect.id} names another origin"
            assert effect.id not in self.ids, f"{self.name}: {effect.id} is there already"
            self.ids.add(effect.id)
        self.did.update(type(effect).__name__ for effect in found)
        self.did["changed"] += after != before
        self.did["proposed"] += bool(context.proposals)
        return found

    def _apply(self, person: Person, event: Happening, context: Context) -> Sequence[Effect] | Unreadable:
        Held.inside = threading.get_ident()
        try:
            return self.step(person, event, context)
        except Unreadable as wrong:
            wrong.with_traceback(None)
            return wrong
        finally:
            Held.inside = 0


def said_by(found: Sequence[Effect] | Unreadable) -> Sequence[object]:
    """What a verb has answered, as something that can be compared."""
    return (found.kind, str(found)) if isinstance(found, Unreadable) else list(found)


def copied(context: Context) -> Context:
    """The same circumstances once more, which may be changed apart."""
    made = Context(context.partition, context.rules, context.model)
    for name in Context.__slots__:
        setattr(made, name, copy(getattr(context, name)) if name not in ("rules", "model", "quintiles") else getattr(
            context, name))
    return made


@pytest.fixture(scope="module")
def forbidden() -> Iterator[None]:
    """No verb asks for the time or for chance."""

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*words: Any, **more: Any) -> Any:
            if Held.inside == threading.get_ident():
                Held.asked[name] += 1
                raise AssertionError(f"a verb asks for {name}")
            return real(*words, **more)

        return ask

    with pytest.MonkeyPatch.context() as patch:
        for module, name in CLOCKS + CHANCE:
            patch.setattr(module, name, guarded(f"{module.__name__}.{name}", getattr(module, name)))
        yield


def happenings(seed: int, count: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """What a few people do over some days: (event, ms since the one before, fields). Some log in, some twice."""
    chance = random.Random(seed)
    for n in range(count):
        who, gap = chance.randrange(12), chance.choice((200, 900, 3_000, 40_000, 2_000_000))
        name, cup = chance.choice(EVENTS), whole_playbook.product(n)
        more: dict[str, Any] = {"anonymousId": f"v{who}", "properties": cup}
        if name == "Page Viewed":
            more["properties"] = {}
        elif name.startswith("Order"):
            more["properties"] = {"order_id": f"o{who}-{n // 40}", "revenue": 9.5, "currency": "EUR", "products": [cup]}
        elif name == "Consent Updated":
            more["properties"] = {"marketing": chance.random() < 0.7}
        elif name == "Product Viewed" and chance.random() < 0.05:
            more["properties"] = {"product_id": {"not": "an id"}}
        if chance.random() < 0.1:
            name, more = "identify", {"type": "identify", "anonymousId": f"v{who}",
                                      "traits": {"email": f"{who}@x.example"}}
        if chance.random() < 0.15:
            more["userId"] = f"user-{who // 2}"
        yield name, gap, more


def live(held: Sequence[Held], rules: Rules, folder: Path, seed: int, count: int = 500) -> list[bytes]:
    """Let it all happen to one shard; offers that were sent are shown or closed. What was decided."""
    store = SqliteStore(folder / "store.db", 1)
    store.claim([0], "laws")
    shard = Shard(0, store, held, 1, 1_000, secret=b"s")
    chance, at, decided, told = random.Random(seed), T0, list[bytes](), list[dict[str, Any]]()

    def turn(one: Record | None, tick: int) -> None:
        shard.apply([one] if one is not None else [], tick, rules, data.model())
        assert not shard.bugs, shard.bugs
        batch = Batch()
        shard.stage(batch)
        store.commit(batch, [])
        for row in batch.rows:
            decided.append(row.body)
            if row.stream == LETTERS:
                turn(Record(LETTERS, 0, len(decided), row.at, row.key, row.body), 0)
            elif row.body.startswith(b'{"type":"send"') or row.stream == "messages":
                told.append(msgspec.json.decode(row.body))

    for n, (name, gap, more) in enumerate(happenings(seed, count)):
        at += gap
        while (due := shard.next_due()) is not None and due < at:
            turn(None, due)
        if name.startswith(("Offer", "Message")) and told:
            said = told.pop(chance.randrange(len(told)))
            more["properties"] = {"action_id": said["id"], "message_id": said["id"], "campaign": said["campaign"]}
            more["anonymousId"] = said.get("anonymous_id") or more["anonymousId"]
        one = record(more["anonymousId"], name, at=at, offset=n, partition=0, messageId=f"m{n}", **{
            field: value for field, value in more.items() if field != "anonymousId"})
        turn(one._replace(stream=stream_of(msgspec.json.decode(one.value)["type"], name)), 0)
    store.close()
    return decided


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    folder = whole_playbook.write(tmp_path_factory.mktemp("laws"))
    (folder / "campaigns" / "once.toml").write_text(ONCE)
    (folder / "campaigns" / "leaving.toml").write_text(EXIT)
    return compile_rules(read(folder))


@pytest.fixture(scope="module", params=[1, 2])
def life(
    request: pytest.FixtureRequest, rules: Rules, tmp_path_factory: pytest.TempPathFactory, forbidden: None
) -> dict[str, Held]:
    """All verbs, and what they did."""
    held = [Held(step) for step in STEPS]
    live(held, rules, tmp_path_factory.mktemp("life"), request.param)
    return {one.name: one for one in held}


DOES = {"resolve_identity": "Letter", "match_segments": "Move", "advance_workflows": "Progress",
        "choose_actions": "Arm", "respect_limits": "Send"}
"""What a verb must have done for its laws to say something; one that is not named must have changed people."""


@pytest.mark.parametrize("name", [name_of(step) for step in STEPS])
def test_the_laws_of_a_verb(life: dict[str, Held], name: str) -> None:
    """Every law was looked at on every call; here is that the verb had something to do."""
    assert life[name].did[DOES.get(name, "changed")] > 20, life[name].did
    assert not Held.asked


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_a_verb_says_what_it_does(step: Step) -> None:
    assert step.__doc__
    module = sys.modules[step.__module__]
    assert module.__doc__
    assert module.__doc__.startswith(f"{name_of(step)}: ")
    assert ">>>" in Path(str(module.__file__)).read_text("utf-8"), f"{name_of(step)} has no example that runs"
