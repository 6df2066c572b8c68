"""However the partitions are shared out, the answers are the same: one process, two processes, two Bytewax workers."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.open_log import open_log
from domain.action import Move
from domain.record import Outgoing
from domain.settings import Settings
from flows.worker import wall
from state import codec
from state.person import Person
from state.store import StoreError
from state.view import known
from tests import whole_playbook
from tests.listening import Listener
from tests.shards import record
from tests.system import House, house
from tests.test_crash import Crowd, check
from tests.whole_playbook import at_rest, product

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]


def written(folder: Path) -> Path:
    """A log with a while of people who say where to write to, look, add and log in; the same for every run."""
    began = wall() - 60_000  # not earlier: what is said then must be good as long as the test runs
    with open_log(Settings(data=str(folder), partitions=8)) as log:
        for n in range(600):
            who, name = f"v{n % 37}", ("Product Viewed", "Product Added", "Page Viewed", "Product Viewed")[n % 4]
            more: dict[str, Any] = {} if name == "Page Viewed" else {"properties": product(n)}
            if n % 37 < 5 and n > 200:
                more["userId"] = f"user-{n % 37}"
            one = record(who, name, messageId=f"m{n}", **more)
            if n < 37:
                one = record(who, "identify", type="identify", messageId=f"i{n}", traits={"email": f"{who}@x.example"})
            # Time passes: some of what waits for it is due before the next thing happens.
            log.append([Outgoing(one.stream, one.key, one.value, log_time=began + n * 20)])
    return folder


def decided(home: House) -> tuple[dict[str, bytes], set[bytes]]:
    """Every person's bytes, and everything that was said."""
    store = home.store()
    persons = {name: value for p in range(home.settings.partitions) for name, value in store.persons(p)}
    store.close()
    return persons, {record.value for record in home.records("actions", "messages")}


def run(tmp_path: Path, name: str, log: Path, processes: list[list[str]]) -> tuple[dict[str, bytes], set[bytes]]:
    data, shop = tmp_path / name, tmp_path / "shop"
    shutil.copytree(log / "log", data / "log")
    with house(data, shop, partitions=8) as home:
        for n, command in enumerate(processes):
            with (data / f"onsite{n}.log").open("ab") as out:
                home.running[str(n)] = subprocess.Popen(
                    [sys.executable, "-m", *command], env=home.environment({}), cwd=data, stdout=out, stderr=out)
        home.wait(lambda: home.drained() and at_rest(home.persons(), wall()), f"{name} has applied everything")
        home.wait(home.drained, "and what came of it")
        return decided(home)


def test_the_same_answers_however_the_work_is_shared(tmp_path: Path) -> None:
    """Byte for byte; without coupons, since a code is whoever's comes first (the next test is about them)."""
    shop = whole_playbook.write(tmp_path / "shop")
    (shop / "campaigns" / "ten.toml").unlink()
    (shop / "coupons" / "ten.toml").unlink()
    log = written(tmp_path / "log")
    alone = run(tmp_path, "alone", log, [["attimo", "run", "onsite"]])
    shared = run(tmp_path, "shared", log, [["attimo", "run", "onsite", "--worker", f"{i}/3"] for i in range(3)])
    bytewax = run(tmp_path, "bytewax", log, [["bytewax.run", "-w", "2", "flows.onsite:flow"]])
    assert len(alone[0]) == 37 + 5
    ways = whole_playbook.decided(body for body in alone[1] if b'"channel":' not in body)
    assert whole_playbook.each_run_reaches_its_goal_once(ways) > 37
    assert {one.segment for one in ways if isinstance(one, Move) and not one.entered} == {"basket", "keen"}
    for other in (shared, bytewax):
        assert set(other[0]) == set(alone[0])
        for name, value in alone[0].items():
            if not involved(name):
                assert differences(codec.decode(other[0][name]), codec.decode(value)) == {}, name
                assert other[0][name] == value
            else:  # when a letter comes is not fixed, what it brings is
                mine, theirs = codec.decode(value), codec.decode(other[0][name])
                assert known(mine).counts == known(theirs).counts
                assert mine.alias_of == theirs.alias_of
        assert about_strangers(other[1]) == about_strangers(alone[1])


def differences(one: Person, other: Person) -> dict[str, tuple[Any, Any]]:
    """The fields in which two people differ."""
    return {field: (getattr(one, field), getattr(other, field)) for field in Person.__struct_fields__
            if getattr(one, field) != getattr(other, field)}


def about_strangers(found: set[bytes]) -> set[bytes]:
    """What was said about people who never logged in."""
    return {body for body in found if not involved(msgspec.json.decode(body)["person"])}


def involved(name: str) -> bool:
    """Whether somebody logged in: letters went to and fro."""
    return name.startswith("u:") or int(name.removeprefix("a:v")) < 5


def test_three_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    """They share the store, the pool of codes and the log; what one has not sent, its successor sends."""
    with house(tmp_path / "data", whole_playbook.write(tmp_path / "shop"), partitions=8) as home:
        listener = Listener(home.settings.redis, home.settings.shop)
        for name in ("edge", "outreach"):
            home.start(name)
        for n in range(3):
            home.start("onsite", worker=f"{n}/3", crash_at="onsite:after_commit#9" if n == 1 else "")
        with Crowd(home, 77, listener) as crowd:
            assert home.died("onsite1/3") == 137, home.logs()
            home.start("onsite", worker="1/3")
            home.wait(partial(crowd.has, 300), "messages come in")
        check(home, crowd)
        listener.close()


def test_whose_shards_were_taken_over_ends_and_says_why(tmp_path: Path) -> None:
    """And writes nothing: the other one alone answers."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.toml").write_text('currency = "EUR"\n')
    with house(tmp_path / "data", tmp_path / "shop", partitions=2) as home:

        def owner() -> list[Any]:
            try:
                store = home.store()
            except StoreError:
                return []  # the worker has not made it yet, or is just making it
            try:
                return store._db.execute("SELECT owner FROM owners").fetchall()
            finally:
                store.close()

        home.start("onsite")
        home.wait(lambda: bool(owner()), "it has its shards")
        first, old = owner(), home.running.pop("onsite")
        home.start("onsite")
        home.wait(lambda: owner() != first, "the other one has them")
        with home.log() as log:
            for who in ("ann", "bob", "cem", "dan"):
                one = record(who, "Page Viewed", messageId=f"m-{who}")
                log.append([Outgoing(one.stream, one.key, one.value)])
        assert old.wait(60) == 1
        assert home.logs().rstrip().endswith("another worker has taken over shards of this one: this one stops")
        home.wait(home.drained, "the other one has applied everything")
        assert len(home.persons()) == 4
        assert home.stop("onsite") == 0
