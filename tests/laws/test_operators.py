"""The laws that hold for every step in `operators.steps.STEPS`, over random inputs.

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
from connectors.playbook.folder import read_playbook
from domain.action import Effect
from domain.record import SHARD_MESSAGES, Record, event_stream
from operators.steps import STEPS
from state.context import Input, InvalidEvent, StepContext, StepFunction
from state.person import codec
from state.person.model import Person
from state.playbook.compiled import Rules, compile_rules
from state.shard.shard import Shard
from state.store.sqlite import SqliteStore
from state.store.store import WriteBatch
from tests.harness import full_playbook
from tests.harness.shard import record

T0 = 1_700_000_000_000
EVENTS = (
    "Product Viewed",
    "Product Viewed",
    "Product Added",
    "Exit Intent",
    "Page Viewed",
    "Checkout Started",
    "Order Completed",
    "Order Cancelled",
    "Consent Updated",
    "Offer Shown",
    "Offer Dismissed",
    "Message Delivered",
    "Unsubscribed",
    "Product Removed",
)
ONCE_CAMPAIGN = """
format = "banner"
trigger = { event = "Product Added" }
frequency_caps = { total = 1 }
content = { default = { title = "Only once" } }
"""
EXIT_CAMPAIGN = """
format = "popup"
trigger = { exit_intent = true }
when = { cart = { items_at_least = 1 } }
content = { default = { title = "Your {{ cart.items[0].name }} waits" } }
"""
CLOCK_FUNCTIONS = [
    (time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "localtime")
]
RANDOM_FUNCTIONS = [
    (random, name) for name in ("random", "randrange", "randint", "choice", "shuffle", "getrandbits", "uniform")
]


def name_of(step: StepFunction) -> str:
    """The verb a step belongs to.

    >>> [name_of(step) for step in STEPS][:2]
    ['resolve_identity', 'update_profile']
    """
    return step.__module__.rpartition(".")[2]


class CheckedStep:
    """A verb under watch: the shard calls it as it would call the verb, and every law is looked at on every call."""

    forbidden_calls: Counter[str] = Counter()
    active_thread: int = 0
    """The thread in which a verb is at work."""

    def __init__(self, step: StepFunction) -> None:
        self.step, self.name = step, name_of(step)
        self.ids: set[str] = set()
        self.effect_counts: Counter[str] = Counter()

    def __call__(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        before, said = codec.encode(person), msgspec.json.encode(event)
        asked_before = len(context.emitted)
        twin, likewise, others = codec.decode(before), copy_context(context), dict[str, Person]()

        def other(key: str) -> Person:
            if key == person.id:
                return twin
            if key not in others:
                others[key] = codec.decode(codec.encode(context.sibling(key)))
            return others[key]

        likewise.sibling = other
        expected = self._apply(twin, event, likewise)
        found = self._apply(person, event, context)
        assert comparable(found) == comparable(expected), f"{self.name} says one thing and then another"
        after = codec.encode(person)
        assert after == codec.encode(twin), f"{self.name} makes different persons of equal ones"
        for key, one in others.items():
            assert codec.encode(one) == codec.encode(context.sibling(key)), f"{self.name} makes different {key}"
        assert likewise.message_seq == context.message_seq
        assert (likewise.emitted, likewise.segment_changes) == (context.emitted, context.segment_changes)
        assert [one[1:] for one in likewise.candidates] == [one[1:] for one in context.candidates]
        assert msgspec.json.encode(event) == said, f"{self.name} changes what has happened"
        if isinstance(found, InvalidEvent):
            assert after == before, f"{self.name} refuses what it has already folded"
            raise found
        for effect in (*found, *context.emitted[asked_before:]):
            assert effect.id.startswith(f"{context.input_id}-"), f"{self.name}: {effect.id} names another origin"
            assert effect.id not in self.ids, f"{self.name}: {effect.id} is there already"
            self.ids.add(effect.id)
        self.effect_counts.update(type(effect).__name__ for effect in found)
        self.effect_counts["changed"] += after != before
        self.effect_counts["proposed"] += bool(context.candidates)
        return found

    def _apply(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect] | InvalidEvent:
        CheckedStep.active_thread = threading.get_ident()
        try:
            return self.step(person, event, context)
        except InvalidEvent as wrong:
            wrong.with_traceback(None)
            return wrong
        finally:
            CheckedStep.active_thread = 0


def comparable(found: Sequence[Effect] | InvalidEvent) -> Sequence[object]:
    """What a verb has answered, as something that can be compared."""
    return (found.kind, str(found)) if isinstance(found, InvalidEvent) else list(found)


def copy_context(context: StepContext) -> StepContext:
    """The same circumstances once more, which may be changed apart."""
    made = StepContext(context.partition, context.rules, context.model)
    for name in StepContext.__slots__:
        setattr(
            made,
            name,
            copy(getattr(context, name)) if name not in ("rules", "model", "quintiles") else getattr(context, name),
        )
    return made


@pytest.fixture(scope="module")
def forbid_clock_and_random() -> Iterator[None]:
    """No verb asks for the time or for chance."""

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*words: Any, **more: Any) -> Any:
            if CheckedStep.active_thread == threading.get_ident():
                CheckedStep.forbidden_calls[name] += 1
                raise AssertionError(f"a verb asks for {name}")
            return real(*words, **more)

        return ask

    with pytest.MonkeyPatch.context() as patch:
        for module, name in CLOCK_FUNCTIONS + RANDOM_FUNCTIONS:
            patch.setattr(module, name, guarded(f"{module.__name__}.{name}", getattr(module, name)))
        yield


def random_events(seed: int, count: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """What a few people do over some days: (event, ms since the one before, fields). Some log in, some twice."""
    chance = random.Random(seed)
    for n in range(count):
        who, gap = chance.randrange(12), chance.choice((200, 900, 3_000, 40_000, 2_000_000))
        name, cup = chance.choice(EVENTS), full_playbook.make_product(n)
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
            name, more = (
                "identify",
                {"type": "identify", "anonymousId": f"v{who}", "traits": {"email": f"{who}@x.example"}},
            )
        if chance.random() < 0.15:
            more["userId"] = f"user-{who // 2}"
        yield name, gap, more


def run_shards(held: Sequence[CheckedStep], rules: Rules, folder: Path, seed: int, count: int = 500) -> list[bytes]:
    """Let it all happen to one shard; offers that were sent are shown or closed. What was decided."""
    store = SqliteStore(folder / "store.db", 1)
    store.claim([0], "laws")
    shard = Shard(0, store, held, 1, 1_000, secret=b"s")
    chance, at, decided, told = random.Random(seed), T0, list[bytes](), list[dict[str, Any]]()

    def turn(one: Record | None, tick: int) -> None:
        shard.apply([one] if one is not None else [], tick, rules, data.model())
        assert not shard.errors, shard.errors
        batch = WriteBatch()
        shard.stage(batch)
        store.commit(batch, [])
        for row in batch.outbox_rows:
            decided.append(row.body)
            if row.stream == SHARD_MESSAGES:
                turn(Record(SHARD_MESSAGES, 0, len(decided), row.at, row.key, row.body), 0)
            elif row.body.startswith(b'{"type":"send"') or row.stream == "messages":
                told.append(msgspec.json.decode(row.body))

    for n, (name, gap, more) in enumerate(random_events(seed, count)):
        at += gap
        while (due := shard.next_due()) is not None and due < at:
            turn(None, due)
        if name.startswith(("Offer", "Message")) and told:
            said = told.pop(chance.randrange(len(told)))
            more["properties"] = {"action_id": said["id"], "message_id": said["id"], "campaign": said["campaign"]}
            more["anonymousId"] = said.get("anonymous_id") or more["anonymousId"]
        one = record(
            more["anonymousId"],
            name,
            at=at,
            offset=n,
            partition=0,
            messageId=f"m{n}",
            **{field: value for field, value in more.items() if field != "anonymousId"},
        )
        turn(one._replace(stream=event_stream(msgspec.json.decode(one.value)["type"], name)), 0)
    store.close()
    return decided


@pytest.fixture(scope="module")
def compiled_playbook(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    folder = full_playbook.write_playbook(tmp_path_factory.mktemp("laws"))
    (folder / "campaigns" / "once.toml").write_text(ONCE_CAMPAIGN)
    (folder / "campaigns" / "leaving.toml").write_text(EXIT_CAMPAIGN)
    return compile_rules(read_playbook(folder))


@pytest.fixture(scope="module", params=[1, 2])
def checked_steps(
    request: pytest.FixtureRequest,
    compiled_playbook: Rules,
    tmp_path_factory: pytest.TempPathFactory,
    forbid_clock_and_random: None,
) -> dict[str, CheckedStep]:
    """All verbs, and what they did."""
    held = [CheckedStep(step) for step in STEPS]
    run_shards(held, compiled_playbook, tmp_path_factory.mktemp("life"), request.param)
    return {one.name: one for one in held}


EXPECTED_EFFECT = {
    "resolve_identity": "ShardMessage",
    "match_segments": "SegmentChange",
    "advance_workflows": "WorkflowProgress",
    "select_campaigns": "Preload",
    "decide": "Send",
}
"""What a verb must have done for its laws to say something; one that is not named must have changed people."""


@pytest.mark.parametrize("name", [name_of(step) for step in STEPS])
def test_operator_laws_hold(checked_steps: dict[str, CheckedStep], name: str) -> None:
    """Every law was looked at on every call; here is that the verb had something to do."""
    assert checked_steps[name].effect_counts[EXPECTED_EFFECT.get(name, "changed")] > 20, checked_steps[
        name
    ].effect_counts
    assert not CheckedStep.forbidden_calls


@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_operators_are_documented(step: StepFunction) -> None:
    assert step.__doc__
    module = sys.modules[step.__module__]
    assert module.__doc__
    assert module.__doc__.startswith(f"{name_of(step)}: ")
    assert ">>>" in Path(str(module.__file__)).read_text("utf-8"), f"{name_of(step)} has no example that runs"
