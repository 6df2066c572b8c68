"""Nothing in a playbook is passed over in silence: what nobody reads is said, with what was probably meant."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.playbook.folder import FOLDERS, MAX_UNUSED_FILES, read_scenarios, signature, unused_files
from tests.harness.support import ROOT


@pytest.fixture
def playbook_folder(tmp_path: Path) -> Path:
    """The shipped shop with few of its stories: here they need not all be played."""
    shop = tmp_path / "shop"
    shutil.copytree(ROOT / "shop", shop)
    for story in (shop / "scenarios").iterdir():
        if story.name != "welcome_canada.md":
            story.unlink()
    return shop


def add_file(place: Path, name: str) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("campaign/x.toml", "campaign/: unused folder; did you mean campaigns/?"),
        ("Campaigns/x.toml", "Campaigns/: unused folder; did you mean campaigns/?"),
        ("scenario/x.md", "scenario/: unused folder; did you mean scenarios/?"),
        (
            "emails/x.toml",
            "emails/: unused folder: a playbook has the folders segments, campaigns, workflows, "
            "coupons, codes, templates, scenarios",
        ),
        ("campaigns/x.TOML", 'campaigns/x.TOML: unused file: files in campaigns/ end in .toml; did you mean "x.toml"?'),
        ("campaigns/x.toml.txt", 'did you mean "x.toml"?'),
        ("campaigns/spring/x.toml", "campaigns/spring/: unused folder: put the files in campaigns/ directly"),
        ("templates/x.html", 'did you mean "x.liquid"?'),
        ("templates/x.mjml", "templates/x.mjml: unused file"),
        ("scenarios/x.markdown", 'did you mean "x.md"?'),
        ("codes/winback.csv", 'did you mean "winback.txt"?'),
        ("shop.TOML", 'shop.TOML: unused file; did you mean "shop.toml"?'),
        ("notes.txt", "notes.txt: unused file"),
    ],
)
def test_unused_file_is_reported(playbook_folder: Path, name: str, said: str) -> None:
    add_file(playbook_folder, name)
    found = [str(problem) for problem in unused_files(playbook_folder)]
    assert len(found) == 1, found
    assert said in found[0]
    result = CliRunner().invoke(cli, ["check", str(playbook_folder)])
    assert result.exit_code == 0, result.output
    assert f"warning: {found[0]}" in result.output


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "campaigns/README.md",
        "LICENSE",
        ".git/config",
        ".gitignore",
        "products.csv",
        ".DS_Store",
        "segments/.x.toml.swp",
        "campaigns/x.toml~",
    ],
)
def test_common_files_are_ignored(playbook_folder: Path, name: str) -> None:
    add_file(playbook_folder, name)
    assert unused_files(playbook_folder) == []


@pytest.mark.parametrize("name", ["README.md", "readme.md", "ReadMe.md", "README.de.md", "README", "README.txt"])
@pytest.mark.parametrize("folder", ["scenarios", "codes"])
def test_readme_files_are_ignored(playbook_folder: Path, folder: str, name: str) -> None:
    before = read_scenarios(playbook_folder), signature(playbook_folder)
    (playbook_folder / folder).mkdir(exist_ok=True)
    (playbook_folder / folder / name).write_text(
        "# How we write these\n\n| at | what |\n|---|---|\n| 0s | is not a story |\n"
    )
    assert (read_scenarios(playbook_folder), signature(playbook_folder)) == before
    result = CliRunner().invoke(cli, ["check", str(playbook_folder)])
    assert result.exit_code == 0, result.output
    assert unused_files(playbook_folder) == []
    assert name not in result.output


@pytest.mark.parametrize("folder", FOLDERS)
def test_editor_files_are_not_read(playbook_folder: Path, folder: str) -> None:
    before = read_scenarios(playbook_folder), signature(playbook_folder)
    add_file(playbook_folder, f"{folder}/.x{FOLDERS[folder]}")
    (playbook_folder / folder / f".x{FOLDERS[folder]}").write_text("half of what x will b")
    assert (read_scenarios(playbook_folder), signature(playbook_folder)) == before


def test_files_that_are_read_are_not_unused(tmp_path: Path) -> None:
    for name, ending in FOLDERS.items():
        add_file(tmp_path, f"{name}/x{ending}")
    read = {name for name, *_ in signature(tmp_path)}
    assert read == {f"{name}/x{ending}" for name, ending in FOLDERS.items() if name != "scenarios"}
    assert read_scenarios(tmp_path)[1][0].file == "scenarios/x.md"
    assert unused_files(tmp_path) == []


def test_many_unused_files_are_counted(tmp_path: Path) -> None:
    for n in range(MAX_UNUSED_FILES + 3):
        add_file(tmp_path, f"notes{n}.txt")
    assert len(unused_files(tmp_path)) == MAX_UNUSED_FILES + 1
    assert "and 3 more" in str(unused_files(tmp_path)[-1])


def test_unused_files_are_reported_beside_errors(playbook_folder: Path) -> None:
    (playbook_folder / "segments").rename(playbook_folder / "segment")
    result = CliRunner().invoke(cli, ["check", str(playbook_folder)])
    assert result.exit_code == 2
    assert "there is no segment" in result.output
    assert "warning: segment/: unused folder; did you mean segments/?" in result.output
