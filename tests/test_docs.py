"""Documentation that cannot lie: what there is is described, what is described is there, every link leads somewhere."""

import ast
import os
import re
from pathlib import Path

import click
import msgspec
import pytest

from attimo import cli
from domain.settings import Settings
from tests.reference import GENERATED, MEANING, fill
from tests.support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_made_from_the_code_is_up_to_date(name: str) -> None:
    page = ROOT / name
    text = page.read_text("utf-8")
    fresh = fill(text, GENERATED[name])
    if os.environ.get("ATTIMO_BLESS"):
        page.write_text(fresh, "utf-8")
    else:
        assert text == fresh, f"{name} is out of date: make docs"


def test_every_setting_has_a_meaning() -> None:
    assert sorted(MEANING) == sorted(field.name for field in msgspec.structs.fields(Settings))


def test_every_operator_and_connector_is_described() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    files = [path for folder in ("operators", "connectors") for path in (ROOT / folder).glob("*.py")]
    missing = [named(path) for path in files if path.stem != "__init__" and named(path) not in text]
    assert not missing


def slug(heading: str) -> str:
    """A heading as the anchor that GitHub makes of it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(re.sub(r"[`*\[\]]|\(.*?\)", "", line.lstrip("#"))) for line in page.read_text("utf-8").splitlines()
            if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{named(page)} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{named(page)} links to {target}, which has no such heading"


def code(page: Path) -> str:
    """What stands in code blocks and code spans of a page."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text("utf-8"), flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for target in re.findall(r"(?:^|[`;&]|\n)\s*(?:\$ )?make ([a-z]+)", code(page)):
        assert target in targets, f"{named(page)} says `make {target}`"
    for words in re.findall(r"(?:^|[`;&|/])\s*(?:\$ )?attimo ((?:[a-z]+ ?)+)", code(page), flags=re.MULTILINE):
        command: click.Command = cli
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"{named(page)} says `attimo {words.strip()}`"
            command = command.commands[word]


def test_the_readme_opens_with_the_two_commands() -> None:
    first = code(ROOT / "README.md").split("```")[1]
    assert "make run" in first
    assert "make test" in first


PRODUCT = [path for folder in ("domain", "state", "operators", "connectors", "flows")
           for path in sorted((ROOT / folder).glob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", PRODUCT, ids=named)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{named(path)} has no docstring"
    core = path.parent.name in {"domain", "state", "operators"}
    kinds = (ast.ClassDef, ast.FunctionDef) if core else (ast.ClassDef,)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{named(path)}: {node.name} has no docstring"
