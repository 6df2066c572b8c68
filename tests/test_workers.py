"""However the partitions are shared out, the answers are the same: one process, two processes, two Bytewax workers."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.open_log import open_log
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import stream_of
from state import codec
from state.view import known
from tests import whole_playbook
from tests.shards import record
from tests.system import House, house

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}


def written(folder: Path) -> Path:
    """A log with an hour of people who look, add and log in; the same for every run."""
    with open_log(Settings(data=str(folder))) as log:
        for n in range(400):
            who, name = f"v{n % 37}", ("Product Viewed", "Product Added", "Page Viewed")[n % 3]
            more: dict[str, Any] = {} if name == "Page Viewed" else {"properties": CUP}
            if n % 37 < 5 and n > 200:
                more["userId"] = f"user-{n % 37}"
            one = record(who, name, messageId=f"m{n}", **more)
            log.append([Outgoing(stream_of("track", name), one.key, one.value)])
    return folder


def decided(home: House) -> tuple[dict[str, bytes], set[bytes]]:
    """Every person's bytes, and every action."""
    store = home.store()
    persons = {name: value for p in range(home.settings.partitions) for name, value in store.persons(p)}
    store.close()
    return persons, {record.value for record in home.records("actions")}


def run(tmp_path: Path, name: str, log: Path, processes: list[list[str]]) -> tuple[dict[str, bytes], set[bytes]]:
    data, shop = tmp_path / name, tmp_path / "shop"
    shutil.copytree(log / "log", data / "log")
    with house(data, shop) as home:
        for n, command in enumerate(processes):
            with (data / f"onsite{n}.log").open("ab") as out:
                home.running[str(n)] = subprocess.Popen(
                    [sys.executable, "-m", *command], env=home.environment({}), cwd=data, stdout=out, stderr=out)
        home.wait(home.drained, f"{name} has applied everything")
        return decided(home)


def test_the_same_answers_however_the_work_is_shared(tmp_path: Path) -> None:
    whole_playbook.write(tmp_path / "shop")
    log = written(tmp_path / "log")
    alone = run(tmp_path, "alone", log, [["attimo", "run", "onsite"]])
    shared = run(tmp_path, "shared", log, [["attimo", "run", "onsite", "--worker", f"{i}/2"] for i in range(2)])
    bytewax = run(tmp_path, "bytewax", log, [["bytewax.run", "-w", "2", "flows.onsite:flow"]])
    assert len(alone[0]) == 37 + 5
    assert len(alone[1]) >= 37
    for other in (shared, bytewax):
        assert set(other[0]) == set(alone[0])
        for name, value in alone[0].items():
            if not involved(name):
                assert other[0][name] == value
            else:  # when a letter comes is not fixed, what it brings is
                mine, theirs = codec.decode(value), codec.decode(other[0][name])
                assert known(mine).counts == known(theirs).counts
                assert mine.alias_of == theirs.alias_of
        assert anonymous(other[1]) == anonymous(alone[1])


def anonymous(found: set[bytes]) -> set[bytes]:
    """The actions about people who never logged in."""
    return {body for body in found if b"user-" not in body}


def involved(name: str) -> bool:
    """Whether somebody logged in: letters went to and fro."""
    return name.startswith("u:") or int(name.removeprefix("a:v")) < 5
