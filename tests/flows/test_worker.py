"""Tests of one worker: timers do not delay events, and metrics match the log."""

import gc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from connectors import metrics
from connectors.log.open import open_log
from connectors.redis import publisher
from domain import model as models
from domain.model import Model
from domain.record import ACTIONS, MODELS, SHARD_INPUT_STREAMS, NewRecord
from domain.settings import Settings
from flows import bytewax, worker
from flows.worker import MAX_RECORDS_PER_POLL, MAX_TIMER_SHARDS, Worker, now_ms
from operators.steps import STEPS
from state.person import codec
from state.playbook.compiled import Rules
from state.shard.backfill import BackfilledCounters
from state.shard.shard import NO_TICK, TIMERS_PER_BATCH, Shard
from tests.harness.shard import record

THREE_HOURS = 3_600_000
ALL_PERSONS = [f"p{n}" for n in range(400)]


def make_worker(folder: Path) -> Worker:
    """A worker over a log in which everybody viewed a page nine hours ago."""
    (folder / "shop.toml").write_text('currency = "EUR"\n')
    settings = Settings(data=str(folder / "data"), playbook=str(folder), redis=f"unix://{folder}/nobody", partitions=32)
    began = now_ms() - 3 * THREE_HOURS
    with open_log(settings) as log:
        for n, who in enumerate(ALL_PERSONS):
            log.append([_page_view(who, f"m{n}")._replace(log_time=began + n)])
    return Worker(settings, STEPS)


def _page_view(who: str, message: str) -> NewRecord:
    one = record(who, "Page Viewed", type="page", messageId=message)
    return NewRecord(one.stream, one.key, one.value)


def test_timers_fire_a_few_shards_at_a_time(tmp_path: Path) -> None:
    one = make_worker(tmp_path)
    partitions = range(one.settings.partitions)
    one.claim_partitions(partitions)
    reader = one.reader(partitions)
    ticked, no_ticks = [], 0
    for n in range(300):
        if n == 20:  # while the timers fire, every shard gets events
            with open_log(one.settings) as log:
                log.append([_page_view(who, f"again-{who}") for who in ALL_PERSONS[:100]])
        work = one.read(reader, partitions)
        records = sum(len(found) for _, (_, found, _) in work)
        due = [partition for _, (partition, _, tick) in work if tick != NO_TICK]
        assert len(due) <= MAX_TIMER_SHARDS + records // (2 * TIMERS_PER_BATCH)
        no_ticks += sum(tick == NO_TICK for _, (_, found, tick) in work if found)
        for _, found in work:
            one.apply(found)
        ticked += due
        one.publish()
    assert set(ticked) == set(partitions), "all shards ticked"
    assert no_ticks > len(partitions), "shards without a tick applied records only"
    people = [codec.decode(value) for p in partitions for _, value in one.store.persons(p)]
    assert len(people) == len(ALL_PERSONS)
    here = {f"a:{who}" for who in ALL_PERSONS[:100]}
    assert {person.id for person in people if person.session is not None} == here
    assert {person.id for person in people if person.timers} == here
    reader.close()
    one.drain_and_close()


def test_retired_playbook_is_freed_while_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IDLE_READS", 3)
    one = make_worker(tmp_path)
    assert not one.playbook_retired()
    one._retired = True
    results = []
    for idle_reads in range(5):
        one._idle_reads = idle_reads
        results.append(one.playbook_retired())
    assert results == [False, False, False, True, False]
    one.drain_and_close()


def test_idle_clocks_advance_before_a_backfill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards without events for weeks use the same cutoff for forwarded records as the others."""
    one = make_worker(tmp_path)
    partitions = range(one.settings.partitions)
    one.claim_partitions(partitions)
    reader = one.reader(partitions)

    def reads(times: int) -> None:
        for _ in range(times):
            for _, found in one.read(reader, partitions):
                one.apply(found)
            one.publish()

    reads(300)
    for shard in one.shards.values():
        shard.checkpoint.clock -= 20 * 24 * THREE_HOURS
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "keen.toml").write_text(
        'when = { did = { event = "Page Viewed", at_least = 2, within = "1h" } }\n'
    )
    clocks = list[int]()
    swap = one.playbook._swap

    def recorded(rules: Rules, found: Mapping[int, BackfilledCounters], shards: Mapping[int, Shard]) -> None:
        clocks.extend(shard.checkpoint.clock for shard in shards.values())
        swap(rules, found, shards)

    monkeypatch.setattr(one.playbook, "_swap", recorded)
    for _ in range(500):
        reads(10)
        if clocks:
            break
    assert len(clocks) == len(partitions)
    assert min(clocks) > now_ms() - THREE_HOURS
    reader.close()
    one.drain_and_close()


def test_garbage_collection_runs_only_between_batches() -> None:
    """Young reference cycles are collected between batches; frozen objects are not."""

    class Circle:
        def __init__(self) -> None:
            self.me = self

    def circles() -> int:
        return sum(type(one) is Circle for one in gc.get_objects())

    bytewax.collect_and_freeze()
    try:
        assert not gc.isenabled()
        for _ in range(bytewax.MIN_YOUNG_OBJECTS + 1):
            Circle()
        assert circles() > bytewax.MIN_YOUNG_OBJECTS, "not collected yet"
        bytewax.collect_young()
        assert not circles()
        assert gc.get_freeze_count() > 1_000
    finally:
        bytewax.restore_gc()
    assert gc.isenabled()
    assert not gc.get_freeze_count()


def test_undecodable_models_are_skipped(tmp_path: Path) -> None:
    one = make_worker(tmp_path)
    good = models.encode_model(Model("propensity", 1, "hash", {"pages": 1.0}))
    with open_log(one.settings) as log:
        log.append(
            [
                NewRecord(MODELS, b"m", value)
                for value in (b"", b"null", b'{"kind":"rfm"}', b'{"kind":"\xff"}', b'{"kind":' + b"[" * 100_000, good)
            ]
        )
    reader = one.reader([0])
    for _ in range(50):
        one.read(reader, [0])
    assert one.model is not None
    assert one.model.hash == "hash"
    reader.close()
    one.drain_and_close()


def test_lag_per_stream_counts_unread_records(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "shop.toml").write_text('currency = "EUR"\n')
    settings = Settings(data=str(tmp_path / "data"), playbook=str(shop), redis="unix:///nowhere", partitions=2)
    with open_log(settings) as log:
        for name, count in (
            ("Page Viewed", MAX_RECORDS_PER_POLL + 300),
            ("Product Added", 400),
        ):  # few enough for an exact count
            found = [record(f"v{n}", name, offset=n) for n in range(count)]
            log.append([NewRecord(one.stream, one.key, one.value) for one in found])
    worker = Worker(settings, STEPS)
    worker.claim_partitions(range(2))
    reader = worker.reader(range(2))
    work = worker.read(reader, range(2))
    read = Counter(one.stream for _, (_, records, _) in work for one in records)
    assert 0 < read.total() <= MAX_RECORDS_PER_POLL
    lag = {name: metrics.LAG_RECORDS.labels(name)._value.get() for name in (*SHARD_INPUT_STREAMS, MODELS)}
    assert lag == {
        **dict.fromkeys((*SHARD_INPUT_STREAMS, MODELS), 0),
        "clicks": MAX_RECORDS_PER_POLL + 300 - read["clicks"],
        "carts": 400 - read["carts"],
    }
    reader.close()
    worker.drain_and_close()


def test_effects_are_flushed_before_the_worker_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FLUSH_INTERVAL", 3_600.0)
    monkeypatch.setattr(publisher, "MAX_BUFFERED", 1_000_000)
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "here.toml").write_text("when = {session = {pages_at_least = 1}}\n")
    one = make_worker(tmp_path)
    partitions = range(one.settings.partitions)
    one.claim_partitions(partitions)
    reader = one.reader(partitions)
    with open_log(one.settings) as log:
        log.append([_page_view("late", "m-late")])
        stream_partitions = [(ACTIONS, p) for p in partitions]
        appended = 0
        while not appended:
            before = sum(end >= 0 for end in log.end_offsets(stream_partitions).values())
            work = one.read(reader, partitions)
            for _, found in work:
                one.apply(found)
            one.publish()
            appended = sum(end >= 0 for end in log.end_offsets(stream_partitions).values())
            if any(records for _, (_, records, _) in work):
                assert appended == before, "the worker was busy"
    reader.close()
    one.drain_and_close()


def test_effects_are_flushed_under_constant_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FLUSH_INTERVAL", 3_600.0)
    monkeypatch.setattr(worker, "MAX_RECORDS_PER_POLL", 1)
    monkeypatch.setattr(publisher, "MAX_BUFFERED", 1_000_000)
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "here.toml").write_text("when = {session = {pages_at_least = 1}}\n")
    one = make_worker(tmp_path)
    partitions = range(one.settings.partitions)
    one.claim_partitions(partitions)
    reader = one.reader(partitions)
    for _ in range(100):
        for _, found in one.read(reader, partitions):
            one.apply(found)
        one.publish()
        if one.publisher.has_buffered:
            break
    assert one.publisher.has_buffered
    assert not one.publisher.flush_due
    one.publisher._flush_interval = 0.0
    assert one.read(reader, partitions), "the log has more records"
    assert not one.publisher.has_buffered
    reader.close()
    one.drain_and_close()
