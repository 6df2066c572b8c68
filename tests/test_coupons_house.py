"""Coupons in real processes: whoever shares the work, and whenever one is killed, a code is one person's."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.open_log import open_log
from domain import action as actions
from domain.action import CouponNews, Send
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import stream_of
from state import codec
from state import rerun as reruns
from state.rules import rules_from
from state.store_sqlite import SqliteStore
from tests.shards import record
from tests.system import SECRETS, House, house

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]
PEOPLE, LOGINS = 150, 15
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}
SECRET = SECRETS["ATTIMO_SECRET"].encode()


def shop(folder: Path, size: int) -> Path:
    """A shop that gives everybody who adds something a coupon."""
    for name in ("campaigns", "coupons"):
        (folder / name).mkdir(parents=True)
    (folder / "shop.toml").write_text('currency = "EUR"\ntimezone = "Europe/Rome"\n')
    (folder / "coupons" / "ten.toml").write_text(f'percent = 10\nsize = {size}\nprefix = "TEN-"\n')
    (folder / "campaigns" / "added.toml").write_text(
        'format = "bar"\nvalid_for = "10m"\ncoupon = "ten"\ntrigger = { event = "Product Added" }\n'
        '[content.default]\ntitle = "10 % with {{ coupon }}"\n')
    return folder


def written(folder: Path) -> Path:
    """A log in which everybody adds a cup, some of them twice, and one in ten logs in."""
    with open_log(Settings(data=str(folder))) as log:
        for n in range(PEOPLE * 2):
            who = f"v{n % PEOPLE}"
            name = "Product Added" if n < PEOPLE or n % 3 == 0 else "Page Viewed"
            more: dict[str, Any] = {} if name == "Page Viewed" else {"properties": CUP}
            if n >= PEOPLE and n % 10 == 0:
                more["userId"] = f"user-{who}"
            one = record(who, name, messageId=f"m{n}", **more)
            log.append([Outgoing(stream_of("track", name), one.key, one.value)])
    return folder


def check(home: House, size: int) -> None:
    """Every code is one person's, and everybody has one as long as there are any; a re-run agrees."""
    told = {record.value for record in home.records("actions")}
    decided = [actions.decode(value) for value in told]
    reserved = Counter(one.code for one in decided if isinstance(one, CouponNews) and one.what == "reserved")
    assert set(reserved.values()) == {1}
    everybody = home.persons().values()
    held = [one.code for person in everybody for one in person.coupons]
    kept = [code for person in everybody if person.desk is not None for code in person.desk.codes]
    assert sorted(held) == sorted(reserved)
    assert not set(held) & set(kept)
    if size >= PEOPLE:
        assert len(held) == PEOPLE
    else:  # a code that was granted for somebody who logged in elsewhere meanwhile stays on that desk
        assert len(held) + len(kept) == size
        assert len(kept) <= LOGINS
    shown = {one.content.coupon for one in decided if isinstance(one, Send)}
    assert shown == set(held), "who holds one was told so, once it was there"
    runner = CliRunner(env={"ATTIMO_SECRET": SECRETS["ATTIMO_SECRET"]})
    options = ["--data", home.settings.data, "--playbook", home.settings.playbook]
    exported = runner.invoke(cli, ["coupons", "export", "ten", *options]).output.split()
    assert len(exported) == len(set(exported)) == size
    assert set(held) <= set(exported)
    page = runner.invoke(cli, ["coupons", "show", "ten", *options]).output
    assert f"ten: {size:,} codes, made up; a code is good for 14 days" in page
    assert f"{len(held):>10,}  reserved   are good" in page
    assert "No more are given out" not in page
    assert "No more are given out" in runner.invoke(
        cli, ["coupons", "show", "ten", *options], env={"ATTIMO_SECRET": "another"}).output
    missing = runner.invoke(cli, ["coupons", "show", "tne", *options])
    assert missing.exit_code == 2
    assert 'there are no coupons "tne" in coupons/; there is only ten' in missing.output
    rerun(home)


def plain(store: SqliteStore, partition: int) -> dict[str, object]:
    """The persons of a shard, to be compared and read."""
    return {name: msgspec.to_builtins(codec.decode(value)) for name, value in store.persons(partition)}


def rerun(home: House) -> None:
    """The recorded turns, run again with the shop's secret, give the same persons, desks and homes, byte for byte."""
    from flows.onsite import STEPS

    store = home.store()
    with home.log() as log:
        for partition in range(home.settings.partitions):
            again = SqliteStore(home.folder / "again" / f"{partition}.db", home.settings.partitions)
            reruns.rerun(
                partition, store.turns(partition), log.fetch, again, STEPS, home.settings.partitions,
                lambda known: rules_from(store.kept("playbook", known) or b""), lambda known: None, SECRET)
            assert plain(again, partition) == plain(store, partition)
            assert again.persons(partition) == store.persons(partition)
            again.close()
    store.close()


@pytest.mark.parametrize(("workers", "size"), [(1, 100_000), (3, 100_000), (3, 40)])
def test_a_code_is_one_persons_however_the_work_is_shared(tmp_path: Path, workers: int, size: int) -> None:
    shutil.copytree(written(tmp_path / "log") / "log", tmp_path / "data" / "log")
    with house(tmp_path / "data", shop(tmp_path / "shop", size)) as home:
        for n in range(workers):
            home.start("onsite", worker=f"{n}/{workers}")
        home.wait(home.drained, "everything is applied")
        check(home, size)


@pytest.mark.parametrize("point", ["onsite:after_commit#4", "onsite:after_publish#3"])
def test_a_code_is_one_persons_when_the_worker_is_killed(tmp_path: Path, point: str) -> None:
    shutil.copytree(written(tmp_path / "log") / "log", tmp_path / "data" / "log")
    with house(tmp_path / "data", shop(tmp_path / "shop", 2_000)) as home:
        home.start("onsite", crash_at=point)
        assert home.died("onsite") == 137
        home.start("onsite")
        home.wait(home.drained, "everything is applied")
        check(home, 2_000)


def test_codes_that_are_made_up_need_a_secret(tmp_path: Path) -> None:
    with house(tmp_path / "data", shop(tmp_path / "shop", 40)) as home:
        environment = home.environment({"ATTIMO_SECRET": ""})
        ended = subprocess.run([sys.executable, "-m", "attimo", "run", "onsite"], env=environment,
                               cwd=home.folder, capture_output=True, check=False, text=True, timeout=60)
        assert ended.returncode != 0
        assert "coupons/ten.toml: its codes are made from the shop's secret, and there is none" in ended.stderr
