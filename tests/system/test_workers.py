"""Tests of several workers: results do not depend on how partitions are shared."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.log.open import open_log
from domain.action import SegmentChange
from domain.record import NewRecord
from domain.settings import Settings
from flows.worker import now_ms
from state.person import codec
from state.person.model import Person
from state.profile.profile import merged_profile
from state.store.store import StoreError
from tests.harness import full_playbook
from tests.harness.full_playbook import is_at_rest, make_product
from tests.harness.instance import RunningInstance, running_instance
from tests.harness.pubsub import RedisSubscriber
from tests.harness.shard import record
from tests.system.test_crash import LoadGenerator, check_instance

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]


def write_log(folder: Path) -> Path:
    """Write the same log for every run: people give an email address, view, add and log in."""
    start = now_ms() - 60_000  # recent, so that actions do not become stale
    with open_log(Settings(data=str(folder), partitions=8)) as log:
        for n in range(600):
            who, name = f"v{n % 37}", ("Product Viewed", "Product Added", "Page Viewed", "Product Viewed")[n % 4]
            more: dict[str, Any] = {} if name == "Page Viewed" else {"properties": make_product(n)}
            if n % 37 < 5 and n > 200:
                more["userId"] = f"user-{n % 37}"
            one = record(who, name, messageId=f"m{n}", **more)
            if n < 37:
                one = record(who, "identify", type="identify", messageId=f"i{n}", traits={"email": f"{who}@x.example"})
            # Some timers are due between two events.
            log.append([NewRecord(one.stream, one.key, one.value, log_time=start + n * 20)])
    return folder


def decisions_of(instance: RunningInstance) -> tuple[dict[str, bytes], set[bytes]]:
    """The encoded persons, and all actions and messages."""
    store = instance.store()
    persons = {name: value for p in range(instance.settings.partitions) for name, value in store.persons(p)}
    store.close()
    return persons, {record.value for record in instance.records("actions", "messages")}


def run_workers(
    tmp_path: Path, name: str, log: Path, processes: list[list[str]]
) -> tuple[dict[str, bytes], set[bytes]]:
    data, shop = tmp_path / name, tmp_path / "shop"
    shutil.copytree(log / "log", data / "log")
    with running_instance(data, shop, partitions=8) as home:
        for n, command in enumerate(processes):
            with (data / f"onsite{n}.log").open("ab") as out:
                home.processes[str(n)] = subprocess.Popen(
                    [sys.executable, "-m", *command], env=home.environment({}), cwd=data, stdout=out, stderr=out
                )
        home.wait_until(
            lambda: home.is_drained() and is_at_rest(home.persons(), now_ms()), f"{name} has applied everything"
        )
        home.wait_until(home.is_drained, "and everything that followed")
        return decisions_of(home)


def test_results_do_not_depend_on_worker_count(tmp_path: Path) -> None:
    """Byte for byte, without coupons, whose codes depend on the order (see test_coupons.py)."""
    shop = full_playbook.write_playbook(tmp_path / "shop")
    (shop / "campaigns" / "ten.toml").unlink()
    (shop / "coupons" / "ten.toml").unlink()
    log = write_log(tmp_path / "log")
    alone = run_workers(tmp_path, "alone", log, [["attimo", "run", "onsite"]])
    shared = run_workers(tmp_path, "shared", log, [["attimo", "run", "onsite", "--worker", f"{i}/3"] for i in range(3)])
    bytewax = run_workers(tmp_path, "bytewax", log, [["bytewax.run", "-w", "2", "flows.onsite:flow"]])
    assert len(alone[0]) == 37 + 5
    decided = full_playbook.decode_actions(body for body in alone[1] if b'"channel":' not in body)
    assert full_playbook.check_runs_reach_goal_once(decided) > 37
    assert {one.segment for one in decided if isinstance(one, SegmentChange) and not one.entered} == {"basket", "keen"}
    for other in (shared, bytewax):
        assert set(other[0]) == set(alone[0])
        for name, value in alone[0].items():
            if not merged_ids(name):
                assert differences(codec.decode(other[0][name]), codec.decode(value)) == {}, name
                assert other[0][name] == value
            else:  # the arrival of shard messages varies, their content does not
                mine, theirs = codec.decode(value), codec.decode(other[0][name])
                assert merged_profile(mine).lifetime_counts == merged_profile(theirs).lifetime_counts
                assert mine.merged_into == theirs.merged_into
        assert without_merged_persons(other[1]) == without_merged_persons(alone[1])


def differences(one: Person, other: Person) -> dict[str, tuple[Any, Any]]:
    """The fields in which two people differ."""
    return {
        field: (getattr(one, field), getattr(other, field))
        for field in Person.__struct_fields__
        if getattr(one, field) != getattr(other, field)
    }


def without_merged_persons(found: set[bytes]) -> set[bytes]:
    """The effects about people who never logged in."""
    return {body for body in found if not merged_ids(msgspec.json.decode(body)["person"])}


def merged_ids(name: str) -> bool:
    """Whether this person logged in, so that shard messages were sent."""
    return name.startswith("u:") or int(name.removeprefix("a:v")) < 5


def test_one_of_three_workers_is_killed(tmp_path: Path) -> None:
    """Workers share store, coupon pool and log; a successor publishes the outbox of a killed one."""
    with running_instance(tmp_path / "data", full_playbook.write_playbook(tmp_path / "shop"), partitions=8) as home:
        listener = RedisSubscriber(home.settings.redis, home.settings.shop)
        for name in ("edge", "outreach"):
            home.start(name)
        for n in range(3):
            home.start("onsite", worker_share=f"{n}/3", crash_at="onsite:after_commit#9" if n == 1 else "")
        with LoadGenerator(home, 77, listener) as crowd:
            assert home.wait_for_exit("onsite1/3") == 137, home.logs()
            home.start("onsite", worker_share="1/3")
            home.wait_until(partial(crowd.has_accepted, 300), "messages come in")
        check_instance(home, crowd)
        listener.close()


def test_worker_with_lost_shards_exits_with_a_reason(tmp_path: Path) -> None:
    """It writes nothing; the other worker continues."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.toml").write_text('currency = "EUR"\n')
    with running_instance(tmp_path / "data", tmp_path / "shop", partitions=2) as home:

        def owner() -> list[Any]:
            try:
                store = home.store()
            except StoreError:
                return []  # the worker has not created it yet
            try:
                return store._db.execute("SELECT owner FROM owners").fetchall()
            finally:
                store.close()

        home.start("onsite")
        home.wait_until(lambda: bool(owner()), "the first worker owns the shards")
        first, old = owner(), home.processes.pop("onsite")
        home.start("onsite")
        home.wait_until(lambda: owner() != first, "the other worker owns the shards")
        with home.open_log() as log:
            for who in ("ann", "bob", "cem", "dan"):
                one = record(who, "Page Viewed", messageId=f"m-{who}")
                log.append([NewRecord(one.stream, one.key, one.value)])
        assert old.wait(60) == 1
        assert home.logs().rstrip().endswith("another worker has taken over shards of this worker; this worker stops")
        home.wait_until(home.is_drained, "the other worker has applied everything")
        assert len(home.persons()) == 4
        assert home.stop("onsite") == 0
