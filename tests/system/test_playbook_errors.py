"""Tests of playbook errors with real processes: they are shown everywhere, and prevent a first start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.playbook import status
from connectors.playbook.folder import read_playbook
from domain.diagnostics import MAX_SHOWN_ERRORS, MAX_STORED_ERRORS, Diagnostic, PlaybookError, PlaybookStatus
from tests.harness.instance import SECRETS, RunningInstance, running_instance
from tests.harness.support import ROOT, free_port

VALID_SEGMENT = "[when]\nsession = { pages_at_least = 3 }\n"
BROKEN_SEGMENT = "[when]\nsesion = { pages_at_least = 3 }\n"
EXPECTED_ERROR = 'segments/engaged.toml, line 2, when.sesion: unknown field "sesion"; did you mean "session"?'


def write_shop(folder: Path) -> Path:
    (folder / "segments").mkdir(parents=True)
    (folder / "segments" / "engaged.toml").write_text(VALID_SEGMENT)
    return folder


def run_attimo(instance: RunningInstance, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "attimo", *words],
        env=instance.environment({}),
        cwd=instance.folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.redis
def test_playbook_error_is_shown_everywhere_after_a_crash(tmp_path: Path) -> None:
    playbook = write_shop(tmp_path / "shop")
    with running_instance(tmp_path / "data", playbook) as running:
        path = status.status_path(running.settings.data)
        running.start("onsite")
        running.wait_until(
            lambda: running.folder.joinpath("store", "store.db").exists() and running.is_drained(), "onsite runs"
        )
        (playbook / "segments" / "engaged.toml").write_text(BROKEN_SEGMENT)
        running.wait_until(lambda: status.read_status(path) is not None, "the error is reported")
        output = run_attimo(running, "top", "--once").stdout
        assert f"{playbook}/ has 1 error, since " in output
        assert "the playbook of " in output
        assert f"  {EXPECTED_ERROR}" in output
        running.kill("onsite")
        path.unlink()
        running.start("onsite")
        running.wait_until(lambda: status.read_status(path) is not None, "a restart reports the error")
        report = status.read_status(path)
        assert report is not None
        assert report.live_since
        (playbook / "segments" / "engaged.toml").write_text(VALID_SEGMENT)
        running.wait_until(lambda: not path.exists(), "the folder is valid again")
        assert "error" not in run_attimo(running, "top", "--once").stdout


REFUSAL = "attimo: No valid playbook in shop: fix 1 error to start."


def run_without_live_playbook(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder without a live playbook; it must exit by itself."""
    environment = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "ATTIMO_SECRET")}
    return subprocess.run(
        [sys.executable, "-m", "attimo", *words, "--playbook", "shop", "--metrics-port", "0"],
        env={**environment, "PYTHONPATH": str(ROOT), **more},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_up_refuses_a_broken_first_playbook(tmp_path: Path) -> None:
    playbook = write_shop(tmp_path / "shop")
    (playbook / "segments" / "engaged.toml").write_text(BROKEN_SEGMENT)
    refused = run_without_live_playbook(tmp_path, "up", "--port", str(free_port()), **SECRETS)
    assert refused.returncode == 2
    assert refused.stdout.splitlines() == [EXPECTED_ERROR]
    assert refused.stderr.splitlines() == [REFUSAL]
    assert not (tmp_path / "data").exists(), "no process was started"


def test_worker_refuses_a_broken_first_playbook(tmp_path: Path) -> None:
    playbook = write_shop(tmp_path / "shop")
    (playbook / "segments" / "engaged.toml").write_text(BROKEN_SEGMENT)
    for _ in range(2):
        refused = run_without_live_playbook(tmp_path, "run", "onsite", **SECRETS)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.splitlines() == [EXPECTED_ERROR, REFUSAL]
    report = status.read_status(status.status_path(str(tmp_path / "data")))
    assert report is not None
    assert (report.folder, report.live_hash, list(map(str, report.errors))) == ("shop", "", [EXPECTED_ERROR])


def test_worker_refuses_generated_codes_without_a_secret(tmp_path: Path) -> None:
    (write_shop(tmp_path / "shop") / "coupons").mkdir()
    (tmp_path / "shop" / "coupons" / "ten.toml").write_text("percent = 10\n")
    refused = run_without_live_playbook(tmp_path, "run", "onsite")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].startswith("coupons/ten.toml: generating codes needs a secret")
    assert refused.stderr.splitlines()[1:] == [REFUSAL]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("../templates/caf\udce9.liquid", "<p>", "templates/caf\\udce9.liquid: has a file name that is not UTF-8"),
        ("engaged.toml", '[when]\nin_segment = "engagd"\n', 'line 2, when.in_segment: there is no segment "engagd"'),
        (
            "engaged.toml",
            '[when]\nhas = { country = "Italy" }\n',
            "line 2, when.has.country: should be a two-letter code",
        ),
        ("caf\udce9.toml", VALID_SEGMENT, "segments/caf\\udce9.toml, line 1, name: should be lower case letters"),
    ],
)
def test_any_playbook_error_can_be_written_and_read(tmp_path: Path, name: str, text: str, expected: str) -> None:
    """File names may be invalid UTF-8."""
    playbook = write_shop(tmp_path / "shop")
    (playbook / "templates").mkdir()
    (playbook / "segments" / name).write_text(text)
    with pytest.raises(PlaybookError) as broken:
        read_playbook(playbook)
    path = status.status_path(str(tmp_path))
    status.write_status(path, PlaybookStatus.from_errors(str(playbook), broken.value.diagnostics, since=5))
    report = status.read_status(path)
    assert report is not None
    assert expected in "\n".join(report.report_lines(str))


def test_error_list_is_truncated_and_counted() -> None:
    errors = [Diagnostic("shop.toml", n, "", "is wrong") for n in range(1, MAX_STORED_ERRORS + 51)]
    report = PlaybookStatus.from_errors("shop/", errors, since=0)
    lines = list(report.report_lines(str))
    assert lines[0].startswith(f"shop/ has {MAX_STORED_ERRORS + 50} errors, since 0")
    assert lines[MAX_SHOWN_ERRORS] == f"  shop.toml, line {MAX_SHOWN_ERRORS}: is wrong"
    assert lines[MAX_SHOWN_ERRORS + 1 :] == [
        f"  and {MAX_STORED_ERRORS + 50 - MAX_SHOWN_ERRORS} more: attimo check shop"
    ]


def test_invalid_status_file_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "run" / "playbook.json"
    watcher = status.StatusWatcher(path)
    assert not watcher.poll()
    path.parent.mkdir()
    path.write_text('{"folder": 7}')
    assert not watcher.poll()
    assert watcher.status is None
    report = PlaybookStatus.from_errors(
        "shop", [Diagnostic("shop.toml", 1, "", "is wrong")], since=5, live_hash="v", live_since=3
    )
    status.write_status(path, report)
    assert watcher.poll()
    assert watcher.status == report
    assert not watcher.poll()
    assert [one.name for one in path.parent.iterdir()] == [path.name]
