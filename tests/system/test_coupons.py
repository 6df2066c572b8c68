"""Tests of coupons with real processes: a code has one owner, with several workers and after crashes."""

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
from connectors.log.open import open_log
from domain import action as actions
from domain.action import CouponEvent, Send
from domain.record import NewRecord, event_stream
from domain.settings import Settings
from flows.simulation import replay as replays
from state.person import codec
from state.playbook.compiled import rules_from_source
from state.store.sqlite import SqliteStore
from tests.harness.instance import SECRETS, RunningInstance, running_instance
from tests.harness.shard import record

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]
PEOPLE, LOGINS = 150, 15
CUP = {"product_id": "cup", "name": "Cup", "price": 9.5, "currency": "EUR", "quantity": 1}
SECRET = SECRETS["ATTIMO_SECRET"].encode()


def write_shop(folder: Path, size: int) -> Path:
    """Write a playbook that sends a coupon for every added product."""
    for name in ("campaigns", "coupons"):
        (folder / name).mkdir(parents=True)
    (folder / "shop.toml").write_text('currency = "EUR"\ntimezone = "Europe/Rome"\n')
    (folder / "coupons" / "ten.toml").write_text(f'percent = 10\nsize = {size}\nprefix = "TEN-"\n')
    (folder / "campaigns" / "added.toml").write_text(
        'format = "bar"\nvalid_for = "10m"\ncoupon = "ten"\ntrigger = { event = "Product Added" }\n'
        '[content.default]\ntitle = "10 % with {{ coupon }}"\n'
    )
    return folder


def write_log(folder: Path) -> Path:
    """Write a log in which everybody adds a product, some twice, and some log in."""
    with open_log(Settings(data=str(folder))) as log:
        for n in range(PEOPLE * 2):
            who = f"v{n % PEOPLE}"
            name = "Product Added" if n < PEOPLE or n % 3 == 0 else "Page Viewed"
            more: dict[str, Any] = {} if name == "Page Viewed" else {"properties": CUP}
            if n >= PEOPLE and n % 10 == 0:
                more["userId"] = f"user-{who}"
            one = record(who, name, messageId=f"m{n}", **more)
            log.append([NewRecord(event_stream("track", name), one.key, one.value)])
    return folder


def check_codes(instance: RunningInstance, size: int) -> None:
    """Check that every code has one owner, that codes are not left over, and the replay."""
    bodies = {record.value for record in instance.records("actions")}
    decided = [actions.decode_action(value) for value in bodies]
    reserved = Counter(one.code for one in decided if isinstance(one, CouponEvent) and one.status == "reserved")
    assert set(reserved.values()) == {1}
    persons = instance.persons().values()
    held = [one.code for person in persons for one in person.coupons]
    cached = [code for person in persons if person.code_cache is not None for code in person.code_cache.codes]
    assert sorted(held) == sorted(reserved)
    assert not set(held) & set(cached)
    if size >= PEOPLE:
        assert len(held) == PEOPLE
    else:  # a code granted for a person who was merged meanwhile stays in the code cache
        assert len(held) + len(cached) == size
        assert len(cached) <= LOGINS
    shown = {one.content.coupon for one in decided if isinstance(one, Send)}
    assert shown == set(held), "every holder got the offer with the code"
    runner = CliRunner(env={"ATTIMO_SECRET": SECRETS["ATTIMO_SECRET"]})
    options = ["--data", instance.settings.data, "--playbook", instance.settings.playbook]
    exported = runner.invoke(cli, ["coupons", "export", "ten", *options]).output.split()
    assert len(exported) == len(set(exported)) == size
    assert set(held) <= set(exported)
    page = runner.invoke(cli, ["coupons", "show", "ten", *options]).output
    assert f"ten: {size:,} codes, generated; a code is valid for 14 days" in page
    assert f"{len(held):>10,}  reserved   valid, held" in page
    assert "No more codes are granted" not in page
    assert (
        "No more codes are granted"
        in runner.invoke(cli, ["coupons", "show", "ten", *options], env={"ATTIMO_SECRET": "another"}).output
    )
    unknown = runner.invoke(cli, ["coupons", "show", "tne", *options])
    assert unknown.exit_code == 2
    assert 'unknown coupon pool "tne" in coupons/; there is only ten' in unknown.output
    check_replay(instance)


def plain_persons(store: SqliteStore, partition: int) -> dict[str, object]:
    """The persons of a shard as plain values."""
    return {name: msgspec.to_builtins(codec.decode(value)) for name, value in store.persons(partition)}


def check_replay(instance: RunningInstance) -> None:
    """Check that a replay with the secret gives the same persons, code caches and pool allocators."""
    from operators.steps import STEPS

    store = instance.store()
    with instance.open_log() as log:
        for partition in range(instance.settings.partitions):
            again = SqliteStore(instance.folder / "again" / f"{partition}.db", instance.settings.partitions)
            replays.replay(
                partition,
                store.batch_records(partition),
                log.fetch,
                again,
                STEPS,
                instance.settings.partitions,
                lambda known: rules_from_source(store.get_blob("playbook", known) or b""),
                lambda known: None,
                SECRET,
            )
            assert plain_persons(again, partition) == plain_persons(store, partition)
            assert again.persons(partition) == store.persons(partition)
            again.close()
    store.close()


@pytest.mark.parametrize(("workers", "size"), [(1, 100_000), (3, 100_000), (3, 40)])
def test_code_has_one_owner_with_any_worker_count(tmp_path: Path, workers: int, size: int) -> None:
    shutil.copytree(write_log(tmp_path / "log") / "log", tmp_path / "data" / "log")
    with running_instance(tmp_path / "data", write_shop(tmp_path / "shop", size)) as home:
        for n in range(workers):
            home.start("onsite", worker_share=f"{n}/{workers}")
        home.wait_until(home.is_drained, "everything is applied")
        check_codes(home, size)


@pytest.mark.parametrize("point", ["onsite:after_commit#4", "onsite:after_publish#3"])
def test_code_has_one_owner_after_worker_crash(tmp_path: Path, point: str) -> None:
    shutil.copytree(write_log(tmp_path / "log") / "log", tmp_path / "data" / "log")
    with running_instance(tmp_path / "data", write_shop(tmp_path / "shop", 2_000)) as home:
        home.start("onsite", crash_at=point)
        assert home.wait_for_exit("onsite") == 137
        home.start("onsite")
        home.wait_until(home.is_drained, "everything is applied")
        check_codes(home, 2_000)


def test_generated_codes_require_a_secret(tmp_path: Path) -> None:
    with running_instance(tmp_path / "data", write_shop(tmp_path / "shop", 40)) as home:
        environment = home.environment({"ATTIMO_SECRET": ""})
        ended = subprocess.run(
            [sys.executable, "-m", "attimo", "run", "onsite"],
            env=environment,
            cwd=home.folder,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert ended.returncode != 0
        assert "coupons/ten.toml: generating codes needs a secret, and none is set" in ended.stderr
