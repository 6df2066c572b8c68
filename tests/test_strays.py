"""Nothing in a playbook is passed over in silence: what nobody reads is said, with what was probably meant."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from attimo import cli
from connectors.playbook_folder import signature
from connectors.scenario_folder import scenarios
from connectors.strays import MOST, PLACES, strays
from tests.support import ROOT


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The shipped shop with few of its stories: here they need not all be played."""
    shop = tmp_path / "shop"
    shutil.copytree(ROOT / "shop", shop)
    for story in (shop / "scenarios").iterdir():
        if story.name != "welcome_canada.md":
            story.unlink()
    return shop


def put(place: Path, name: str) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("")


@pytest.mark.parametrize(("name", "said"), [
    ("campaign/x.toml", "campaign/: nothing in it is read; did you mean campaigns/?"),
    ("Campaigns/x.toml", "Campaigns/: nothing in it is read; did you mean campaigns/?"),
    ("scenario/x.md", "scenario/: nothing in it is read; did you mean scenarios/?"),
    ("emails/x.toml", "emails/: nothing in it is read: the folders of a playbook are segments, campaigns, workflows, "
                      "coupons, codes, templates, scenarios"),
    ("campaigns/x.TOML", "campaigns/x.TOML: is read by nothing: the files in campaigns/ end in .toml; did you mean "
                         '"x.toml"?'),
    ("campaigns/x.toml.txt", 'did you mean "x.toml"?'),
    ("campaigns/spring/x.toml", "campaigns/spring/: nothing in it is read: the files stand in campaigns/ itself"),
    ("templates/x.html", 'did you mean "x.liquid"?'),
    ("templates/x.mjml", "templates/x.mjml: is read by nothing"),
    ("scenarios/x.markdown", 'did you mean "x.md"?'),
    ("codes/winback.csv", 'did you mean "winback.txt"?'),
    ("shop.TOML", 'shop.TOML: is read by nothing; did you mean "shop.toml"?'),
    ("notes.txt", "notes.txt: is read by nothing"),
])
def test_what_nobody_reads_is_said(place: Path, name: str, said: str) -> None:
    put(place, name)
    found = [str(problem) for problem in strays(place)]
    assert len(found) == 1, found
    assert said in found[0]
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 0, result.output
    assert f"warning: {found[0]}" in result.output


@pytest.mark.parametrize("name", [
    "README.md", "campaigns/README.md", "LICENSE", ".git/config", ".gitignore", "products.csv", ".DS_Store",
    "segments/.x.toml.swp", "campaigns/x.toml~"])
def test_what_is_commonly_there_is_left_alone(place: Path, name: str) -> None:
    put(place, name)
    assert strays(place) == []


@pytest.mark.parametrize("name", ["README.md", "readme.md", "ReadMe.md", "README.de.md", "README", "README.txt"])
@pytest.mark.parametrize("folder", ["scenarios", "codes"])
def test_a_readme_is_for_people(place: Path, folder: str, name: str) -> None:
    before = scenarios(place), signature(place)
    (place / folder).mkdir(exist_ok=True)
    (place / folder / name).write_text("# How we write these\n\n| at | what |\n|---|---|\n| 0s | is not a story |\n")
    assert (scenarios(place), signature(place)) == before
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 0, result.output
    assert strays(place) == []
    assert name not in result.output


@pytest.mark.parametrize("folder", PLACES)
def test_what_editors_leave_is_not_read(place: Path, folder: str) -> None:
    before = scenarios(place), signature(place)
    put(place, f"{folder}/.x{PLACES[folder]}")
    (place / folder / f".x{PLACES[folder]}").write_text("half of what x will b")
    assert (scenarios(place), signature(place)) == before


def test_what_is_read_is_no_stray(tmp_path: Path) -> None:
    for name, ending in PLACES.items():
        put(tmp_path, f"{name}/x{ending}")
    read = {name for name, *_ in signature(tmp_path)}
    assert read == {f"{name}/x{ending}" for name, ending in PLACES.items() if name != "scenarios"}
    assert scenarios(tmp_path)[1][0].file == "scenarios/x.md"
    assert strays(tmp_path) == []


def test_many_are_counted(tmp_path: Path) -> None:
    for n in range(MOST + 3):
        put(tmp_path, f"notes{n}.txt")
    assert len(strays(tmp_path)) == MOST + 1
    assert "and 3 more" in str(strays(tmp_path)[-1])


def test_they_are_said_beside_mistakes_too(place: Path) -> None:
    (place / "segments").rename(place / "segment")
    result = CliRunner().invoke(cli, ["check", str(place)])
    assert result.exit_code == 2
    assert "there is no segment" in result.output
    assert "warning: segment/: nothing in it is read; did you mean segments/?" in result.output
