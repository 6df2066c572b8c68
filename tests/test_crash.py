"""Kill -9 at any point: nothing lost, nothing repeated that is not recognised.

Real processes, a real Redis, a real log; the failpoints of `domain/failpoint.py` one by one, then kills at random under
load. `ATTIMO_CRASH_ROUNDS` sets how many random rounds there are (3 here; `make crash`, before a release, plays 50, and
every failpoint also at another moment).
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

from domain import message as messages
from domain import model as models
from domain import outcome as outcomes
from domain.action import Send
from domain.record import Outgoing, Record
from state import rerun as reruns
from state.rules import rules_from
from state.store_sqlite import SqliteStore
from tests import whole_playbook
from tests.listening import Browsers, Listener
from tests.shards import record
from tests.support import Server
from tests.system import SECRETS, House, house
from tests.whole_playbook import product

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]
ROUNDS = int(os.environ.get("ATTIMO_CRASH_ROUNDS", "3"))

EVENTS = ("Product Viewed", "Product Added", "Exit Intent", "Order Completed")
STREAMS = ("actions", "outcomes", "messages")
"""What is decided."""


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    """A shop with one of everything, without a limit: what must come out can be counted."""
    return whole_playbook.write(tmp_path / "shop")


class Crowd:
    """People who put things into their carts, see what they are shown, use their coupons, log in now and then; and who
    send every message until it is accepted (and some of them twice).
    """

    def __init__(self, house: House, seed: int, listener: Listener | Browsers, people: int = 40) -> None:
        self.house, self.random, self.listener = house, random.Random(seed), listener
        self.people = [f"visitor-{seed}-{n}" for n in range(people)]
        self.logins = self.people[::8]
        self.known: set[str] = set()
        self.accepted: dict[str, tuple[str, str]] = {}
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.n = 0

    def message(self) -> dict[str, Any]:
        who, self.n = self.random.choice(self.people), self.n + 1
        if who not in self.known:
            self.known.add(who)
            return {"type": "identify", "messageId": f"m-{who}-{self.n}", "anonymousId": who,
                    "traits": {"email": f"{who}@x.example"}}
        event = self.random.choice(EVENTS)
        cup = product(self.n)
        properties: dict[str, Any] = {} if event == "Exit Intent" else cup
        if event == "Order Completed":
            properties = {"order_id": f"o-{who}-{self.n}", "revenue": 9.5, "currency": "EUR", "products": [cup]}
            if code := self.listener.codes.get(who):
                properties["coupon"] = code
        elif self.listener.told and self.random.random() < 0.3:
            action = self.random.choice(list(self.listener.told))
            who, campaign = self.listener.told.pop(action)
            event, properties = "Offer Shown", {"action_id": action, "campaign": campaign}
        return {"type": "track", "event": event, "messageId": f"m-{who}-{self.n}", "anonymousId": who,
                "properties": properties}

    def send(self, count: int) -> None:
        batch = [self.message() for _ in range(count)]
        self.house.post("/v1/batch", {"batch": batch})
        if self.random.random() < 0.3:
            self.house.post("/v1/batch", {"batch": batch})
        self._note(batch)
        if self.n > 200 and self.logins and self.random.random() < 0.1:
            who = self.logins.pop()
            login = {"type": "identify", "messageId": f"m-{who}-login", "anonymousId": who, "userId": f"user-{who}"}
            self.house.post("/v1/batch", {"batch": [login]}, key=SECRETS["ATTIMO_SERVER_KEY"])
            self._note([login])

    def _note(self, batch: list[dict[str, Any]]) -> None:
        for one in batch:
            self.accepted[one["messageId"]] = (one["anonymousId"], one.get("event", "Identified"))

    def has(self, count: int) -> bool:
        """Whether so many messages were accepted."""
        return len(self.accepted) >= count

    def goes_on(self) -> None:
        """Wait for so many more messages that somebody reaches a goal: their number decides, not the time."""
        self.house.wait(partial(self.has, max(150, len(self.accepted) + 100)), "messages come in")

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self.send(self.random.randint(1, 6))
                time.sleep(self.random.random() * 0.02)
        except BaseException as failed:  # noqa: BLE001 - shown by the test that waits for this thread
            self.failures.append(failed)

    def __enter__(self) -> "Crowd":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.failures, self.failures[0]


def check(house: House, crowd: Crowd) -> None:
    """Every accepted message folded exactly once; each decision stands in the log once after de-duplication, none
    missing; the laws of everything that was decided.
    """
    settle(house)
    assert [record.value for record in house.records("rejects")] == [], house.logs()
    persons = house.persons()
    expected = Counter(one for one in crowd.accepted.values() if one[1] in EVENTS)
    found = Counter[tuple[str, str]]()
    for name, person in persons.items():
        for facts in person.facets.values():
            found.update({(name[2:].removeprefix("user-"), event): count.n for event, count in facts.counts.items()
                          if event in EVENTS})
    assert found == expected
    told = told_and_told_again(house)
    actions = whole_playbook.decided(told["actions"])
    sends = [one for one in actions if isinstance(one, Send)]
    assert {who for who, event in expected if event == "Product Added"} == {
        one.anonymous_id for one in sends if one.campaign == "added"}
    house.wait(lambda: not crowd.listener.astray(sends), "what was decided is heard, and nothing else", 20)
    assert whole_playbook.each_run_reaches_its_goal_once(actions)
    assert whole_playbook.each_code_is_one_persons(actions, persons.values()) >= len(
        {who for who, event in expected if event == "Product Viewed"})
    assert whole_playbook.each_message_is_written_once(map(messages.decode, told["messages"]), house.folder / "outbox")
    whole_playbook.each_goal_is_told_once(map(outcomes.decode, told["outcomes"]))
    whole_playbook.one_variant_each(actions)


def settle(house: House) -> None:
    """Until all that was said is applied and answered for, and time alone will change nothing for a while."""
    house.wait(house.drained, "everything is applied and published", 60)
    house.wait(lambda: whole_playbook.settled(house.persons(), time.time_ns() // 1_000_000), "everything is at rest")
    house.wait(house.drained, "what channels report is applied", 60)


def told_and_told_again(house: House) -> dict[str, set[bytes]]:
    """What was decided, by stream: each id once, and the same when the recorded turns are run again."""
    told = {stream: {record.value for record in house.records(stream)} for stream in STREAMS}
    decided = {msgspec.json.decode(body)["id"]: body for bodies in told.values() for body in bodies}
    assert len(decided) == sum(map(len, told.values())), "one id, two decisions"
    assert decided == rerun(house)
    return told


def rerun(house: House) -> dict[str, bytes]:
    """The recorded turns, run again from the log, give the same persons byte for byte; what was decided, by id."""
    from flows import warm_up
    from flows.onsite import STEPS

    store, decided = house.store(), dict[str, bytes]()
    with house.log() as log:

        @cache
        def whole(place: tuple[str, int]) -> list[Record]:
            return log.fetch(place, 0, 1 << 60)

        def fetch(place: tuple[str, int], first: int, last: int) -> list[Record]:
            """As the log does, which answers slowly where it is asked for every batch."""
            return [record for record in whole(place) if first <= record.offset <= last]

        for partition in range(house.settings.partitions):
            turns = store.turns(partition)
            again = SqliteStore(house.folder / "again" / f"{partition}.db", house.settings.partitions)
            rows = reruns.rerun(
                partition, turns, fetch, again, STEPS, house.settings.partitions,
                lambda known: rules_from(store.kept("playbook", known) or b""), lambda known: model_of(store, known),
                SECRETS["ATTIMO_SECRET"].encode(),
                warmed=lambda shard, before, rules: warm_up.again(shard, before, rules, fetch))
            assert again.persons(partition) == store.persons(partition)
            again.close()
            decided.update({row.id: row.body for row in rows if row.stream in STREAMS})
    store.close()
    return decided


def model_of(store: SqliteStore, known: str) -> models.Model | None:
    """The model of a turn, by its hash."""
    return models.decode(store.kept("model", known) or b"") if known else None


@pytest.fixture
def home(tmp_path: Path, playbook: Path) -> Iterator[House]:
    with house(tmp_path / "data", playbook, partitions=8) as made:
        yield made


POINTS = ("onsite:after_commit#7", "onsite:after_publish#1", "outreach:after_send#3")
MORE_POINTS = ("onsite:after_commit#1", "onsite:after_publish#7")


@pytest.mark.parametrize("point", [*POINTS, *(MORE_POINTS if ROUNDS > 3 else ())])
def test_a_flow_dies_at_a_failpoint(home: House, listener: Listener, point: str) -> None:
    dies = point.partition(":")[0]
    home.start("edge")
    for name in ("outreach", "onsite"):
        home.start(name, crash_at=point if name == dies else "")
    with Crowd(home, len(point) + int(point[-1]), listener) as crowd:
        assert home.died(dies) == 137, home.logs()
        home.start(dies)
        crowd.goes_on()
    check(home, crowd)
    assert [home.stop(name) for name in ("onsite", "outreach")] == [0, 0]


def test_redis_has_said_what_the_log_does_not_have(home: House, listener: Listener) -> None:
    """It is said once more, with the same id, and only then it is in the log."""

    def heard_alone() -> set[str]:
        return set(listener.said) - {msgspec.json.decode(record.value)["id"] for record in home.records("actions")}

    for name in ("edge", "outreach"):
        home.start(name)
    home.start("onsite", crash_at="onsite:after_redis#3")
    with Crowd(home, 9, listener) as crowd:
        assert home.died("onsite") == 137, home.logs()
        home.wait(lambda: bool(heard_alone()), "Redis has said what the log does not have")
        alone = heard_alone()
        home.start("onsite")
        home.wait(lambda: not heard_alone() & alone, "the log has it now")
    assert {listener.said[one] for one in alone} == {2}
    check(home, crowd)


def test_the_collector_dies_between_log_and_answer(home: House, listener: Listener) -> None:
    home.start("onsite")
    home.start("outreach")
    home.start("edge", crash_at="collector:after_append#3")
    with Crowd(home, 3, listener) as crowd:
        assert home.died("edge") == 137, home.logs()
        home.start("edge")
        crowd.goes_on()
    check(home, crowd)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_random_under_load(home: House, listener: Listener, seed: int) -> None:
    chance = random.Random(1_000 + seed)
    names = ["edge", "onsite", "learning", "outreach"]
    for name in names:
        home.start(name)
    with Crowd(home, 100 + seed, listener) as crowd:
        for done in range(4):
            # On a busy machine little gets through between two kills: the count decides, not the time.
            home.wait(partial(crowd.has, 30 * (done + 1)), "messages come in")
            time.sleep(chance.random())
            name = chance.choice(names)
            home.kill(name)
            home.start(name)
    check(home, crowd)
    ended = {one.id for record in home.records("outcomes") if (one := outcomes.decode(record.value)).kind != "goal"}
    home.wait(lambda: learned(home) == len(ended), "every outcome is learned, once")
    assert [home.stop(name) for name in names] == [0, 0, 0, 0]


def test_killed_at_random_with_redis_while_browsers_listen(tmp_path: Path, playbook: Path) -> None:
    """Redis comes back empty, twice. Every browser carries out each action once, however often its stream breaks."""
    chance, server = random.Random(7), Server(tmp_path)
    server.start()
    home = House(tmp_path / "data", server.url, playbook, partitions=8)
    names = ["edge", "onsite", "outreach"]
    browsers = None
    try:
        for name in names:
            home.start(name)
        browsers = Browsers(home, [f"visitor-300-{n}" for n in range(10)])
        dying = ["edge", "redis", "onsite", "edge", "redis"]  # Redis last: nobody who starts again makes up for it
        with Crowd(home, 300, browsers, people=10) as crowd:
            for done, name in enumerate(dying):
                home.wait(partial(crowd.has, 30 * (done + 1)), "messages come in")
                time.sleep(chance.random() / 2)
                if name == "redis":
                    server.kill()
                    time.sleep(chance.random() / 2)
                    server.start()
                else:
                    home.kill(name)
                    home.start(name)
        check(home, crowd)
        assert browsers.streams > 20, "nobody had to come back"
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


def test_killed_while_a_playbook_is_swapped(tmp_path: Path, playbook: Path) -> None:
    """Each playbook counts something new, and the process dies three times on the way: while the log is read for it,
    before it goes live, and while people are looked at again. Nobody loses what the log holds of them.
    """
    with house(tmp_path / "data", playbook, partitions=2) as home:
        seen: Counter[tuple[str, str]] = Counter()
        visit(home, seen, 1_100)
        home.start("onsite")
        home.wait(home.drained, "everything is applied")
        for n, (group, point) in enumerate(zip(GROUPS, ("warming#2", "swapping", "sweeping#2"), strict=True)):
            home.kill("onsite")
            (playbook / "segments" / f"{group}.toml").write_text(COUNTS.format(group=group))
            visit(home, seen, 100)
            home.start("onsite", crash_at=f"onsite:{point}")
            assert home.died("onsite") == 137, home.logs()
            assert not swept(home, n + 1), "it has died on the way"
            visit(home, seen, 100)
            home.start("onsite")
            home.wait(partial(swept, home, n + 1), "it is live")
        settle(home)
        for name, person in home.persons().items():
            if name[:2] in ("a:", "u:") and not person.alias_of:
                who = name[2:].removeprefix("user-")
                assert set(GROUPS) & person.segments.keys() == {one for one in GROUPS if seen[who, one] >= 3}, name
        assert all(0 < sum([seen[f"v{n}", one] >= 3 for n in range(260)]) < 260 for one in GROUPS)
        told_and_told_again(home)
        assert home.stop("onsite") == 0


def visit(home: House, seen: Counter[tuple[str, str]], times: int) -> None:
    """So many visits, straight into the log: people look at things, and some log in."""
    chance = random.Random(seen.total())
    with home.log() as log:
        for n in range(seen.total(), seen.total() + times):
            who, group = f"v{chance.randrange(260)}", chance.choice(GROUPS)
            user: dict[str, Any] = {"userId": f"user-{who}"} if n % 40 == 7 else {}
            one = record(who, "Product Viewed", messageId=f"m{n}", properties=product(n, category=group), **user)
            log.append([Outgoing(one.stream, one.key, one.value)])
            seen[who, group] += 1


def swept(home: House, groups: int) -> bool:
    """Whether a playbook that counts so many groups is live, and everybody was looked at with it."""
    store = home.store()
    try:
        heads = [store.head(p) for p in range(home.settings.partitions)]
        live = rules_from(store.kept("playbook", (store.kept("live", "playbook") or b"").decode()) or b"")
        return (len(live.segment.keys() & set(GROUPS)) == groups
                and all(head.sweep is None and head.rules == live.short for head in heads))
    finally:
        store.close()


def learned(home: House) -> int:
    """How many examples the latest model has seen."""
    published = [models.decode(record.value) for record in home.records("models")]
    return max((model.quality.examples for model in published), default=0)
