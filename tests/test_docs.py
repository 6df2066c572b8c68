"""Tests of the documentation: it is complete, its commands exist, and its links resolve."""

import ast
import os
import re
from pathlib import Path

import click
import msgspec
import pytest

from attimo import cli
from domain.settings import Settings
from tests.harness.generated_docs import GENERATED, SETTING_DESCRIPTIONS, fill_blocks
from tests.harness.support import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def documented_names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("name", GENERATED)
def test_generated_blocks_are_up_to_date(name: str) -> None:
    page = ROOT / name
    text = page.read_text("utf-8")
    expected = fill_blocks(text, GENERATED[name])
    if os.environ.get("ATTIMO_BLESS"):
        page.write_text(expected, "utf-8")
    else:
        assert text == expected, f"{name} is out of date: make docs"


def test_every_setting_is_described() -> None:
    assert sorted(SETTING_DESCRIPTIONS) == sorted(field.name for field in msgspec.structs.fields(Settings))


def test_every_operator_and_connector_is_documented() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    files = [path for folder in ("operators", "connectors") for path in (ROOT / folder).rglob("*.py")]
    missing = [
        documented_names(path) for path in files if path.stem != "__init__" and documented_names(path) not in text
    ]
    assert not missing


def heading_slug(heading: str) -> str:
    """The anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def page_anchors(page: Path) -> set[str]:
    return {
        heading_slug(re.sub(r"[`*\[\]]|\(.*?\)", "", line.lstrip("#")))
        for line in page.read_text("utf-8").splitlines()
        if line.startswith("#")
    }


@pytest.mark.parametrize("page", PAGES, ids=documented_names)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{documented_names(page)} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in page_anchors(found), (
                f"{documented_names(page)} links to {target}, which has no such heading"
            )


def code_blocks(page: Path) -> str:
    """The code blocks and code spans of a page."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text("utf-8"), flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=documented_names)
def test_documented_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for target in re.findall(r"(?:^|[`;&]|\n)\s*(?:\$ )?make ([a-z]+)", code_blocks(page)):
        assert target in targets, f"{documented_names(page)} mentions `make {target}`"
    for words in re.findall(r"(?:^|[`;&|/])\s*(?:\$ )?attimo ((?:[a-z]+ ?)+)", code_blocks(page), flags=re.MULTILINE):
        command: click.Command = cli
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"{documented_names(page)} mentions `attimo {words.strip()}`"
            command = command.commands[word]


def test_readme_starts_with_the_two_commands() -> None:
    first = code_blocks(ROOT / "README.md").split("```")[1]
    assert "make run" in first
    assert "make test" in first


PACKAGES = [
    path
    for folder in ("domain", "state", "operators", "connectors", "flows")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "__init__.py"
]


@pytest.mark.parametrize("path", PACKAGES, ids=documented_names)
def test_public_definitions_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{documented_names(path)} has no docstring"
    core = path.relative_to(ROOT).parts[0] in {"domain", "state", "operators"}
    kinds = (ast.ClassDef, ast.FunctionDef) if core else (ast.ClassDef,)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{documented_names(path)}: {node.name} has no docstring"
