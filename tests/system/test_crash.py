"""Crash tests: SIGKILL at any point loses nothing, and duplicates have known ids.

Real processes, a real Redis, a real log. First each failpoint of `domain/failpoint.py`, then random kills under load.
`ATTIMO_CRASH_ROUNDS` sets the number of random rounds; `make crash`, before a release, runs 50 and more failpoints.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain import action as messages
from domain import action as outcomes
from domain import model as models
from domain.action import Send
from domain.record import NewRecord, Record
from flows.simulation import replay as replays
from state.playbook.compiled import rules_from_source
from state.store.sqlite import SqliteStore
from tests.harness import full_playbook
from tests.harness.full_playbook import make_product
from tests.harness.instance import SECRETS, RunningInstance, running_instance
from tests.harness.pubsub import RedisSubscriber, SimulatedBrowsers
from tests.harness.shard import record
from tests.harness.support import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]
ROUNDS = int(os.environ.get("ATTIMO_CRASH_ROUNDS", "20"))

EVENTS = ("Product Viewed", "Product Added", "Exit Intent", "Order Completed")
STREAMS = ("actions", "outcomes", "messages")
"""Streams of effects that a replay must reproduce."""


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    """A playbook with every kind of file and high frequency caps."""
    return full_playbook.write_playbook(tmp_path / "shop")


class LoadGenerator:
    """Simulated people: they shop, see offers, redeem coupons and log in.

    Every event is sent until it is accepted, some twice.
    """

    def __init__(
        self, instance: RunningInstance, seed: int, subscriber: RedisSubscriber | SimulatedBrowsers, people: int = 40
    ) -> None:
        self.instance, self.random, self.subscriber = instance, random.Random(seed), subscriber
        self.people = [f"visitor-{seed}-{n}" for n in range(people)]
        self.logins = self.people[::8]
        self.identified: set[str] = set()
        self.accepted: dict[str, tuple[str, str]] = {}
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.message_count = 0

    def message(self) -> dict[str, Any]:
        who, self.message_count = self.random.choice(self.people), self.message_count + 1
        if who not in self.identified:
            self.identified.add(who)
            return {
                "type": "identify",
                "messageId": f"m-{who}-{self.message_count}",
                "anonymousId": who,
                "traits": {"email": f"{who}@x.example"},
            }
        event = self.random.choice(EVENTS)
        cup = make_product(self.message_count)
        properties: dict[str, Any] = {} if event == "Exit Intent" else cup
        if event == "Order Completed":
            properties = {
                "order_id": f"o-{who}-{self.message_count}",
                "revenue": 9.5,
                "currency": "EUR",
                "products": [cup],
            }
            if code := self.subscriber.codes.get(who):
                properties["coupon"] = code
        elif self.subscriber.sent and self.random.random() < 0.3:
            action = self.random.choice(list(self.subscriber.sent))
            who, campaign = self.subscriber.sent.pop(action)
            event, properties = "Offer Shown", {"action_id": action, "campaign": campaign}
        return {
            "type": "track",
            "event": event,
            "messageId": f"m-{who}-{self.message_count}",
            "anonymousId": who,
            "properties": properties,
        }

    def send(self, count: int) -> None:
        batch = [self.message() for _ in range(count)]
        self.instance.post("/v1/batch", {"batch": batch})
        if self.random.random() < 0.3:
            self.instance.post("/v1/batch", {"batch": batch})
        self._mark_accepted(batch)
        if self.message_count > 200 and self.logins and self.random.random() < 0.1:
            who = self.logins.pop()
            login = {"type": "identify", "messageId": f"m-{who}-login", "anonymousId": who, "userId": f"user-{who}"}
            self.instance.post("/v1/batch", {"batch": [login]}, key=SECRETS["ATTIMO_SERVER_KEY"])
            self._mark_accepted([login])

    def _mark_accepted(self, batch: list[dict[str, Any]]) -> None:
        for one in batch:
            self.accepted[one["messageId"]] = (one["anonymousId"], one.get("event", "Identified"))

    def has_accepted(self, count: int) -> bool:
        """Whether at least `count` events are accepted."""
        return len(self.accepted) >= count

    def wait_for_more(self) -> None:
        """Wait for 100 more events, at least 150 in total, so that goals are reached."""
        self.instance.wait_until(partial(self.has_accepted, max(150, len(self.accepted) + 100)), "events are accepted")

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self.send(self.random.randint(1, 6))
                time.sleep(self.random.random() * 0.02)
        except BaseException as error:  # noqa: BLE001 - reported by the test that joins this thread
            self.failures.append(error)

    def __enter__(self) -> "LoadGenerator":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.failures, self.failures[0]


def check_instance(instance: RunningInstance, load: LoadGenerator) -> None:
    """Check that every accepted event is applied once, that each decision is in the log once, and the invariants."""
    wait_until_settled(instance)
    assert [record.value for record in instance.records("dead-letters")] == [], instance.logs()
    persons = instance.persons()
    expected = Counter(one for one in load.accepted.values() if one[1] in EVENTS)
    found = Counter[tuple[str, str]]()
    for name, person in persons.items():
        for fragment in person.fragments.values():
            found.update(
                {
                    (name[2:].removeprefix("user-"), event): count.count
                    for event, count in fragment.lifetime_counts.items()
                    if event in EVENTS
                }
            )
    assert found == expected
    effects = check_replay(instance)
    actions = full_playbook.decode_actions(effects["actions"])
    sends = [one for one in actions if isinstance(one, Send)]
    assert {who for who, event in expected if event == "Product Added"} == {
        one.anonymous_id for one in sends if one.campaign == "added"
    }
    instance.wait_until(lambda: not load.subscriber.mismatched(sends), "exactly the decided actions are published", 20)
    assert full_playbook.check_runs_reach_goal_once(actions)
    assert full_playbook.check_codes_have_one_owner(actions, persons.values()) >= len(
        {who for who, event in expected if event == "Product Viewed"}
    )
    assert full_playbook.check_messages_written_once(
        map(messages.decode_message, effects["messages"]), instance.folder / "outbox"
    )
    full_playbook.check_goals_reported_once(map(outcomes.decode_outcome, effects["outcomes"]))
    full_playbook.check_one_variant_each(actions)


def wait_until_settled(instance: RunningInstance) -> None:
    """Wait until all records are applied, all messages have feedback, and no timer is due soon."""
    instance.wait_until(instance.is_drained, "everything is applied and published", 60)
    instance.wait_until(
        lambda: full_playbook.is_settled(instance.persons(), time.time_ns() // 1_000_000),
        "no run, timer or message is pending",
    )
    instance.wait_until(instance.is_drained, "the feedback is applied", 60)


def check_replay(instance: RunningInstance) -> dict[str, set[bytes]]:
    """Return the effects by stream; check that ids are unique and that a replay gives the same effects."""
    effects = {stream: {record.value for record in instance.records(stream)} for stream in STREAMS}
    decided = {msgspec.json.decode(body)["id"]: body for bodies in effects.values() for body in bodies}
    assert len(decided) == sum(map(len, effects.values())), "one id for two decisions"
    assert decided == replay_shards(instance)
    return effects


def replay_shards(instance: RunningInstance) -> dict[str, bytes]:
    """Replay the batch records; check that persons are equal byte for byte; return the effects by id."""
    from flows import backfill
    from operators.steps import STEPS

    store, decided = instance.store(), dict[str, bytes]()
    with instance.open_log() as log:

        @cache
        def all_records(stream_partition: tuple[str, int]) -> list[Record]:
            return log.fetch(stream_partition, 0, 1 << 60)

        def fetch(stream_partition: tuple[str, int], first: int, last: int) -> list[Record]:
            """Like `Log.fetch`, but fast for many small requests."""
            return [record for record in all_records(stream_partition) if first <= record.offset <= last]

        for partition in range(instance.settings.partitions):
            again = SqliteStore(instance.folder / "again" / f"{partition}.db", instance.settings.partitions)
            rows = replays.replay(
                partition,
                store.batch_records(partition),
                fetch,
                again,
                STEPS,
                instance.settings.partitions,
                lambda known: rules_from_source(store.get_blob("playbook", known) or b""),
                lambda known: model_of(store, known),
                SECRETS["ATTIMO_SECRET"].encode(),
                backfilled=lambda shard, before, rules: backfill.rebuild_backfill(shard, before, rules, fetch),
            )
            assert again.persons(partition) == store.persons(partition)
            again.close()
            decided.update({row.id: row.body for row in rows if row.stream in STREAMS})
    store.close()
    return decided


def model_of(store: SqliteStore, known: str) -> models.Model | None:
    """The model of a batch record, by its hash."""
    return models.decode_model(store.get_blob("model", known) or b"") if known else None


@pytest.fixture
def instance(tmp_path: Path, playbook: Path) -> Iterator[RunningInstance]:
    with running_instance(tmp_path / "data", playbook, partitions=8) as made:
        yield made


POINTS = ("onsite:after_commit#7", "onsite:after_publish#1", "outreach:after_send#3")
MORE_POINTS = ("onsite:after_commit#1", "onsite:after_publish#7")


@pytest.mark.parametrize(
    "point", [*POINTS, *(pytest.param(point, marks=pytest.mark.acceptance) for point in MORE_POINTS)]
)
def test_crash_at_each_failpoint(instance: RunningInstance, subscriber: RedisSubscriber, point: str) -> None:
    process = point.partition(":")[0]
    instance.start("edge")
    for name in ("outreach", "onsite"):
        instance.start(name, crash_at=point if name == process else "")
    with LoadGenerator(instance, len(point) + int(point[-1]), subscriber) as crowd:
        assert instance.wait_for_exit(process) == 137, instance.logs()
        instance.start(process)
        crowd.wait_for_more()
    check_instance(instance, crowd)
    assert [instance.stop(name) for name in ("onsite", "outreach")] == [0, 0]


def test_crash_between_redis_and_log(instance: RunningInstance, subscriber: RedisSubscriber) -> None:
    """The action is published again with the same id, and then appended to the log."""

    def only_published() -> set[str]:
        return set(subscriber.publish_counts) - {
            msgspec.json.decode(record.value)["id"] for record in instance.records("actions")
        }

    for name in ("edge", "outreach"):
        instance.start(name)
    instance.start("onsite", crash_at="onsite:after_redis#3")
    with LoadGenerator(instance, 9, subscriber) as crowd:
        assert instance.wait_for_exit("onsite") == 137, instance.logs()
        instance.wait_until(lambda: bool(only_published()), "an action is published that is not in the log")
        ids = only_published()
        instance.start("onsite")
        instance.wait_until(lambda: not only_published() & ids, "the log has the action")
    assert {subscriber.publish_counts[one] for one in ids} == {2}
    check_instance(instance, crowd)


def test_collector_crash_between_append_and_response(instance: RunningInstance, subscriber: RedisSubscriber) -> None:
    instance.start("onsite")
    instance.start("outreach")
    instance.start("edge", crash_at="collector:after_append#3")
    with LoadGenerator(instance, 3, subscriber) as crowd:
        assert instance.wait_for_exit("edge") == 137, instance.logs()
        instance.start("edge")
        crowd.wait_for_more()
    check_instance(instance, crowd)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.acceptance) for n in range(2, ROUNDS))])
def test_random_kills_under_load(instance: RunningInstance, subscriber: RedisSubscriber, seed: int) -> None:
    chance = random.Random(1_000 + seed)
    names = ["edge", "onsite", "learning", "outreach"]
    for name in names:
        instance.start(name)
    with LoadGenerator(instance, 100 + seed, subscriber) as crowd:
        for done in range(4):
            # A count, not a time: a busy machine accepts few events between two kills.
            instance.wait_until(partial(crowd.has_accepted, 30 * (done + 1)), "events are accepted")
            time.sleep(chance.random())
            name = chance.choice(names)
            instance.kill(name)
            instance.start(name)
    check_instance(instance, crowd)
    ended = {
        one.id
        for record in instance.records("outcomes")
        if (one := outcomes.decode_outcome(record.value)).kind != "goal"
    }
    instance.wait_until(lambda: learned_count(instance) == len(ended), "every outcome is learned once")
    assert [instance.stop(name) for name in names] == [0, 0, 0, 0]


def test_random_kills_with_redis_and_open_streams(tmp_path: Path, playbook: Path) -> None:
    """Redis restarts empty, twice. Every browser handles each action once, however often its stream breaks."""
    chance, server = random.Random(7), RedisServer(tmp_path)
    server.start()
    home = RunningInstance(tmp_path / "data", server.url, playbook, partitions=8)
    names = ["edge", "onsite", "outreach"]
    browsers = None
    try:
        for name in names:
            home.start(name)
        browsers = SimulatedBrowsers(home, [f"visitor-300-{n}" for n in range(10)])
        dying = ["edge", "redis", "onsite", "edge", "redis"]  # Redis last: no other restart compensates for it
        with LoadGenerator(home, 300, browsers, people=10) as crowd:
            for done, name in enumerate(dying):
                home.wait_until(partial(crowd.has_accepted, 30 * (done + 1)), "events are accepted")
                time.sleep(chance.random() / 2)
                if name == "redis":
                    server.kill()
                    time.sleep(chance.random() / 2)
                    server.start()
                else:
                    home.kill(name)
                    home.start(name)
        check_instance(home, crowd)
        assert browsers.stream_count > 20, "no stream was reopened"
        assert [home.stop(name) for name in names] == [0, 0, 0]
    finally:
        home.close()
        if browsers is not None:
            browsers.close()
        server.kill()


GROUPS = ("cups", "mugs", "pots")
COUNTS = """
when = {{ did = {{ event = "Product Viewed", at_least = 3, within = "1d", where = {{ category = "{group}" }} }} }}
"""


def test_crash_during_playbook_reload(tmp_path: Path, playbook: Path) -> None:
    """Each playbook adds counters, and the process crashes during the backfill, before the swap, and during the
    re-evaluation. No counter is lost.
    """
    with running_instance(tmp_path / "data", playbook, partitions=2) as home:
        seen: Counter[tuple[str, str]] = Counter()
        append_views(home, seen, 1_100)
        home.start("onsite")
        home.wait_until(home.is_drained, "everything is applied")
        for n, (group, point) in enumerate(zip(GROUPS, ("backfilling#2", "swapping", "reevaluating#2"), strict=True)):
            home.kill("onsite")
            (playbook / "segments" / f"{group}.toml").write_text(COUNTS.format(group=group))
            append_views(home, seen, 100)
            home.start("onsite", crash_at=f"onsite:{point}")
            assert home.wait_for_exit("onsite") == 137, home.logs()
            assert not is_reevaluated(home, n + 1), "it crashed before the end"
            append_views(home, seen, 100)
            home.start("onsite")
            home.wait_until(partial(is_reevaluated, home, n + 1), "the playbook is live")
        wait_until_settled(home)
        for name, person in home.persons().items():
            if name[:2] in ("a:", "u:") and not person.merged_into:
                who = name[2:].removeprefix("user-")
                assert set(GROUPS) & person.segments.keys() == {one for one in GROUPS if seen[who, one] >= 3}, name
        assert all(0 < sum([seen[f"v{n}", one] >= 3 for n in range(260)]) < 260 for one in GROUPS)
        check_replay(home)
        assert home.stop("onsite") == 0


def append_views(instance: RunningInstance, seen: Counter[tuple[str, str]], times: int) -> None:
    """Append `times` product views to the log; some people log in."""
    chance = random.Random(seen.total())
    with instance.open_log() as log:
        for n in range(seen.total(), seen.total() + times):
            who, group = f"v{chance.randrange(260)}", chance.choice(GROUPS)
            user: dict[str, Any] = {"userId": f"user-{who}"} if n % 40 == 7 else {}
            one = record(who, "Product Viewed", messageId=f"m{n}", properties=make_product(n, category=group), **user)
            log.append([NewRecord(one.stream, one.key, one.value)])
            seen[who, group] += 1


def is_reevaluated(instance: RunningInstance, groups: int) -> bool:
    """Whether a playbook with so many segments is live and everybody is re-evaluated under it."""
    store = instance.store()
    try:
        checkpoints = [store.shard_checkpoint(p) for p in range(instance.settings.partitions)]
        live = rules_from_source(
            store.get_blob("playbook", (store.get_blob("live", "playbook") or b"").decode()) or b""
        )
        return len(live.segments_by_name.keys() & set(GROUPS)) == groups and all(
            checkpoint.reevaluated_to is None and checkpoint.playbook_stamp == live.short_hash
            for checkpoint in checkpoints
        )
    finally:
        store.close()


def learned_count(instance: RunningInstance) -> int:
    """The number of examples of the latest model."""
    published = [models.decode_model(record.value) for record in instance.records("models")]
    return max((model.quality.examples for model in published), default=0)
