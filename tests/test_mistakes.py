"""Mistakes in the playbook, with real processes: whoever looks sees them, and nothing begins with a broken one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connectors import mistakes_file
from domain.mistakes import KEPT, SHOWN, Mistakes
from domain.problem import Problem
from tests.support import ROOT, free_port
from tests.system import SECRETS, House, house

GOOD = '[when]\nsession = { pages_at_least = 3 }\n'
BROKEN = '[when]\nsesion = { pages_at_least = 3 }\n'
SAID = 'segments/engaged.toml, line 2, when.sesion: there is nothing called "sesion" here; did you mean "session"?'


def shop(folder: Path) -> Path:
    (folder / "segments").mkdir(parents=True)
    (folder / "segments" / "engaged.toml").write_text(GOOD)
    return folder


def attimo(running: House, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "attimo", *words], env=running.environment({}), cwd=running.folder,
                          capture_output=True, text=True, check=False)


@pytest.mark.redis
def test_a_broken_file_is_seen_by_whoever_looks_and_outlives_a_kill(tmp_path: Path) -> None:
    playbook = shop(tmp_path / "shop")
    with house(tmp_path / "data", playbook) as running:
        path = mistakes_file.path_of(running.settings.data)
        running.start("onsite")
        running.wait(lambda: running.folder.joinpath("store", "store.db").exists() and running.drained(), "it runs")
        (playbook / "segments" / "engaged.toml").write_text(BROKEN)
        running.wait(lambda: mistakes_file.read(path) is not None, "the mistake is told")
        seen = attimo(running, "top", "--once").stdout
        assert f"{playbook}/ has 1 mistake, since " in seen
        assert "the playbook of " in seen
        assert f"  {SAID}" in seen
        running.kill("onsite")
        path.unlink()
        running.start("onsite")
        running.wait(lambda: mistakes_file.read(path) is not None, "who starts with a broken folder tells it")
        told = mistakes_file.read(path)
        assert told is not None
        assert told.live_since
        (playbook / "segments" / "engaged.toml").write_text(GOOD)
        running.wait(lambda: not path.exists(), "it is in order again")
        assert "mistake" not in attimo(running, "top", "--once").stdout


def test_nothing_begins_with_a_broken_playbook_when_none_was_live_before(tmp_path: Path) -> None:
    playbook = shop(tmp_path / "shop")
    (playbook / "segments" / "engaged.toml").write_text(BROKEN)
    environment = {**{name: value for name, value in os.environ.items() if name != "REDIS_URL"}, **SECRETS,
                   "PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    refused = subprocess.run(
        [sys.executable, "-m", "attimo", "up", "--playbook", "shop", "--port", str(free_port()), "--metrics-port", "0"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50)
    assert time.monotonic() - begun < 50
    assert refused.returncode == 2
    assert refused.stdout.splitlines() == [SAID]
    assert refused.stderr.splitlines() == [
        "attimo: shop: 1 to put right before anything can start: no playbook was live that could stay live"]
    assert not (tmp_path / "data").exists(), "nothing was started"


def test_few_are_shown_and_all_are_counted() -> None:
    problems = [Problem("shop.toml", n, "", "is wrong") for n in range(1, KEPT + 51)]
    told = Mistakes.of("shop/", problems, since=0)
    said = list(told.lines(str))
    assert said[0].startswith(f"shop/ has {KEPT + 50} mistakes, since 0")
    assert said[SHOWN] == f"  shop.toml, line {SHOWN}: is wrong"
    assert said[SHOWN + 1:] == [f"  and {KEPT + 50 - SHOWN} more: attimo check shop"]


def test_a_file_that_is_not_one_of_ours_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run" / "playbook.json"
    look = mistakes_file.Look(path)
    assert not look.again()
    path.parent.mkdir()
    path.write_text('{"folder": 7}')
    assert not look.again()
    assert look.now is None
    told = Mistakes.of("shop", [Problem("shop.toml", 1, "", "is wrong")], since=5, live="v", live_since=3)
    mistakes_file.tell(path, told)
    assert look.again()
    assert look.now == told
    assert not look.again()
    assert [one.name for one in path.parent.iterdir()] == [path.name]
