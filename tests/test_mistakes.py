"""Mistakes in the playbook, with real processes: whoever looks sees them, and nothing begins with a broken one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from connectors import mistakes_file
from connectors.playbook_folder import read
from domain.mistakes import KEPT, SHOWN, Mistakes
from domain.problem import PlaybookError, Problem
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


REFUSED = "attimo: shop: 1 to put right before anything can start: no playbook was live that could stay live"


def begins(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What comes of it in a folder where no playbook was ever live; it must end by itself."""
    environment = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "ATTIMO_SECRET")}
    return subprocess.run([sys.executable, "-m", "attimo", *words, "--playbook", "shop", "--metrics-port", "0"],
                          env={**environment, "PYTHONPATH": str(ROOT), **more}, cwd=folder, capture_output=True,
                          text=True, check=False, timeout=50)


def test_nothing_begins_with_a_broken_playbook_when_none_was_live_before(tmp_path: Path) -> None:
    playbook = shop(tmp_path / "shop")
    (playbook / "segments" / "engaged.toml").write_text(BROKEN)
    refused = begins(tmp_path, "up", "--port", str(free_port()), **SECRETS)
    assert refused.returncode == 2
    assert refused.stdout.splitlines() == [SAID]
    assert refused.stderr.splitlines() == [REFUSED]
    assert not (tmp_path / "data").exists(), "nothing was started"


def test_a_worker_alone_refuses_in_the_same_words_and_tells_whoever_looks(tmp_path: Path) -> None:
    playbook = shop(tmp_path / "shop")
    (playbook / "segments" / "engaged.toml").write_text(BROKEN)
    for _ in range(2):
        refused = begins(tmp_path, "run", "onsite", **SECRETS)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.splitlines() == [SAID, REFUSED]
    told = mistakes_file.read(mistakes_file.path_of(str(tmp_path / "data")))
    assert told is not None
    assert (told.folder, told.live, list(map(str, told.problems))) == ("shop", "", [SAID])


def test_codes_without_a_secret_to_make_them_from_are_refused_in_words(tmp_path: Path) -> None:
    (shop(tmp_path / "shop") / "coupons").mkdir()
    (tmp_path / "shop" / "coupons" / "ten.toml").write_text("percent = 10\n")
    refused = begins(tmp_path, "run", "onsite")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].startswith("coupons/ten.toml: its codes are made from the shop's secret")
    assert refused.stderr.splitlines()[1:] == [REFUSED]


@pytest.mark.parametrize(("name", "text", "said"), [
    ("../templates/caf\udce9.liquid", "<p>", "templates/caf\\udce9.liquid: has a name that is no text in UTF-8"),
    ("engaged.toml", '[when]\nin_segment = "engagd"\n', 'line 2, when.in_segment: there is no segment "engagd"'),
    ("engaged.toml", '[when]\nhas = { country = "Italy" }\n', 'line 2, when.has.country: should be a two-letter code'),
    ("caf\udce9.toml", GOOD, "segments/caf\\udce9.toml, line 1, name: should be lower case letters"),
])
def test_whatever_is_wrong_can_be_told(tmp_path: Path, name: str, text: str, said: str) -> None:
    """A name that nobody declares is what is wrong most often; and names of files need not be text at all."""
    playbook = shop(tmp_path / "shop")
    (playbook / "templates").mkdir()
    (playbook / "segments" / name).write_text(text)
    with pytest.raises(PlaybookError) as broken:
        read(playbook)
    path = mistakes_file.path_of(str(tmp_path))
    mistakes_file.tell(path, Mistakes.of(str(playbook), broken.value.problems, since=5))
    told = mistakes_file.read(path)
    assert told is not None
    assert said in "\n".join(told.lines(str))


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
