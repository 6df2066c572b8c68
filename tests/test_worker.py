"""One worker between its reads: who has an event waits for no more of other people's timers than a slice; and what it
says of itself while the log has more than it reads at once.
"""

import gc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from connectors import metrics, publisher
from connectors.open_log import open_log
from domain import model as models
from domain.model import Model
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import ACTIONS, MODELS, SHARD_INPUT
from flows import garbage, worker
from flows.onsite import STEPS
from flows.worker import LIMIT, TICKED, Worker, wall
from state import codec
from state.rules import Rules
from state.shard import HELD, SLICE, Shard
from state.warmth import Warm
from tests.shards import record

HOURS = 3_600_000
EVERYBODY = [f"p{n}" for n in range(400)]


def made(folder: Path) -> Worker:
    """A worker over a log in which everybody looked at a page three hours ago."""
    (folder / "shop.toml").write_text('currency = "EUR"\n')
    settings = Settings(data=str(folder / "data"), playbook=str(folder), redis=f"unix://{folder}/nobody", partitions=32)
    began = wall() - 3 * HOURS
    with open_log(settings) as log:
        for n, who in enumerate(EVERYBODY):
            log.append([_page(who, f"m{n}")._replace(log_time=began + n)])
    return Worker(settings, STEPS)


def _page(who: str, message: str) -> Outgoing:
    one = record(who, "Page Viewed", type="page", messageId=message)
    return Outgoing(one.stream, one.key, one.value)


def test_timers_of_many_shards_fire_a_few_shards_at_a_time_until_all_have(tmp_path: Path) -> None:
    one = made(tmp_path)
    partitions = range(one.settings.partitions)
    one.own(partitions)
    reader = one.reader(partitions)
    turns, held = [], 0
    for n in range(300):
        if n == 20:  # in the middle of the rush somebody in every shard does something
            with open_log(one.settings) as log:
                log.append([_page(who, f"again-{who}") for who in EVERYBODY[:100]])
        work = one.read(reader, partitions)
        records = sum(len(found) for _, (_, found, _) in work)
        due = [partition for _, (partition, _, tick) in work if tick != HELD]
        assert len(due) <= TICKED + records // (2 * SLICE)
        held += sum(tick == HELD for _, (_, found, tick) in work if found)
        for _, found in work:
            one.apply(found)
        turns += due
        one.publish()
    assert set(turns) == set(partitions), "all had their turns"
    assert held > len(partitions), "whose turn it was not applied what came, and no more"
    people = [codec.decode(value) for p in partitions for _, value in one.store.persons(p)]
    assert len(people) == len(EVERYBODY)
    here = {f"a:{who}" for who in EVERYBODY[:100]}
    assert {person.id for person in people if person.session is not None} == here
    assert {person.id for person in people if person.timers} == here
    reader.close()
    one.finish()


def test_a_playbook_that_was_let_go_of_is_cleared_away_when_there_is_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "AT_REST", 3)
    one = made(tmp_path)
    assert not one.has_let_go()
    one._let_go = True
    said = []
    for quiet in range(5):
        one._quiet = quiet
        said.append(one.has_let_go())
    assert said == [False, False, False, True, False]
    one.finish()


def test_clocks_that_stood_still_are_moved_on_before_a_playbook_warms_up(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has happened here for weeks, and elsewhere it has: what was sent on counts once, by the same moment."""
    one = made(tmp_path)
    partitions = range(one.settings.partitions)
    one.own(partitions)
    reader = one.reader(partitions)

    def reads(times: int) -> None:
        for _ in range(times):
            for _, found in one.read(reader, partitions):
                one.apply(found)
            one.publish()

    reads(300)
    for shard in one.shards.values():
        shard.head.clock -= 20 * 24 * HOURS
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "keen.toml").write_text(
        'when = { did = { event = "Page Viewed", at_least = 2, within = "1h" } }\n')
    clocks = list[int]()
    swap = one.playbook._swap

    def noted(rules: Rules, found: Mapping[int, Warm], shards: Mapping[int, Shard]) -> None:
        clocks.extend(shard.head.clock for shard in shards.values())
        swap(rules, found, shards)

    monkeypatch.setattr(one.playbook, "_swap", noted)
    for _ in range(500):
        reads(10)
        if clocks:
            break
    assert len(clocks) == len(partitions)
    assert min(clocks) > wall() - HOURS
    reader.close()
    one.finish()


def test_garbage_is_looked_for_in_steps_and_never_meanwhile() -> None:
    """What goes round in a circle is found by the next step; what is there already is not looked at again."""

    class Circle:
        def __init__(self) -> None:
            self.me = self

    def circles() -> int:
        return sum(type(one) is Circle for one in gc.get_objects())

    garbage.settle()
    try:
        assert not gc.isenabled()
        for _ in range(garbage.YOUNG + 1):
            Circle()
        assert circles() > garbage.YOUNG, "nobody has looked yet"
        garbage.step()
        assert not circles()
        assert gc.get_freeze_count() > 1_000
    finally:
        garbage.leave()
    assert gc.isenabled()
    assert not gc.get_freeze_count()


def test_what_is_no_model_is_passed_by(tmp_path: Path) -> None:
    one = made(tmp_path)
    good = models.encode(Model("propensity", 1, "hash", {"pages": 1.0}))
    with open_log(one.settings) as log:
        log.append([Outgoing(MODELS, b"m", value) for value in (
            b"", b"null", b'{"kind":"rfm"}', b'{"kind":"\xff"}', b'{"kind":' + b"[" * 100_000, good)])
    reader = one.reader([0])
    for _ in range(50):
        one.read(reader, [0])
    assert one.model is not None
    assert one.model.hash == "hash"
    reader.close()
    one.finish()


def test_the_lag_of_each_stream_is_what_is_left_to_read(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.toml").write_text('currency = "EUR"\n')
    settings = Settings(data=str(tmp_path / "data"), playbook=str(shop), redis="unix:///nowhere", partitions=2)
    with open_log(settings) as log:
        for name, count in (("Page Viewed", LIMIT + 300), ("Product Added", 400)):  # so few are counted, not estimated
            found = [record(f"v{n}", name, offset=n) for n in range(count)]
            log.append([Outgoing(one.stream, one.key, one.value) for one in found])
    worker = Worker(settings, STEPS)
    worker.own(range(2))
    reader = worker.reader(range(2))
    work = worker.read(reader, range(2))
    read = Counter(one.stream for _, (_, records, _) in work for one in records)
    assert 0 < read.total() <= LIMIT
    left = {name: metrics.LAG.labels(name)._value.get() for name in (*SHARD_INPUT, MODELS)}
    assert left == {**dict.fromkeys((*SHARD_INPUT, MODELS), 0), "clicks": LIMIT + 300 - read["clicks"],
                    "carts": 400 - read["carts"]}
    reader.close()
    worker.finish()


def test_what_was_decided_is_in_the_log_before_the_worker_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GATHER", 3_600.0)
    monkeypatch.setattr(publisher, "GATHERED", 1_000_000)
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "here.toml").write_text("when = {session = {pages_at_least = 1}}\n")
    one = made(tmp_path)
    partitions = range(one.settings.partitions)
    one.own(partitions)
    reader = one.reader(partitions)
    with open_log(one.settings) as log:
        log.append([_page("late", "m-late")])
        places = [(ACTIONS, p) for p in partitions]
        told = 0
        while not told:
            before = sum(end >= 0 for end in log.ends(places).values())
            work = one.read(reader, partitions)
            for _, found in work:
                one.apply(found)
            one.publish()
            told = sum(end >= 0 for end in log.ends(places).values())
            if any(records for _, (_, records, _) in work):
                assert told == before, "there was something to do yet"
    reader.close()
    one.finish()


def test_the_log_is_told_in_time_also_while_there_is_always_more_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GATHER", 3_600.0)
    monkeypatch.setattr(worker, "LIMIT", 1)
    monkeypatch.setattr(publisher, "GATHERED", 1_000_000)
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "here.toml").write_text("when = {session = {pages_at_least = 1}}\n")
    one = made(tmp_path)
    partitions = range(one.settings.partitions)
    one.own(partitions)
    reader = one.reader(partitions)
    for _ in range(100):
        for _, found in one.read(reader, partitions):
            one.apply(found)
        one.publish()
        if one.publisher.gathers:
            break
    assert one.publisher.gathers
    assert not one.publisher.overdue
    one.publisher._gather = 0.0
    assert one.read(reader, partitions), "there is more to read"
    assert not one.publisher.gathers
    reader.close()
    one.finish()
