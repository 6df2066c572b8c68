"""Tests of the architecture: import directions, no import cycles, and no clock or randomness in pure packages."""

import ast
import re
import tomllib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from tokenize import COMMENT, generate_tokens

import pytest

from tests.harness.support import ROOT

MAY_IMPORT = {
    "domain": {"domain"},
    "state": {"domain", "state"},
    "operators": {"domain", "state", "operators"},
    "connectors": {"domain", "connectors"},
    "flows": {"domain", "state", "operators", "connectors", "flows"},
}
OWN_PACKAGES = {*MAY_IMPORT, "attimo", "benchmarks", "tests"}
PURE_PACKAGES = ("domain", "state", "operators")
STORES = "state/store/"
"""The part of `state/` that does I/O; it may not read the clock either."""

FORBIDDEN_MODULES = {
    "random",
    "secrets",
    "socket",
    "ssl",
    "subprocess",
    "urllib",
    "http",
    "requests",
    "aiohttp",
    "asyncio",
    "threading",
    "multiprocessing",
    "redis",
    "confluent_kafka",
}
FORBIDDEN_CALLS = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.sleep",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.date.today",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid4",
    "open",
}
DISABLED_CHECK = re.compile(r"#\s*(noqa|type:\s*ignore)")
DISABLED_WITH_REASON = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])\s*[#-]\s*\w")


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def used_names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """The full names of all imports of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def dotted_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", modules(*MAY_IMPORT), ids=used_names)
def test_imports_go_one_way(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    for name in imported_modules(ast.parse(path.read_text("utf-8"))):
        top = name.split(".")[0]
        assert top not in OWN_PACKAGES - MAY_IMPORT[home], (
            f"{used_names(path)} imports {name}; {home} may not import {top}"
        )


@pytest.mark.parametrize("path", modules(*PURE_PACKAGES), ids=used_names)
def test_pure_packages_use_no_clock_randomness_or_network(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for name in imported_modules(tree):
        assert name.split(".")[0] not in FORBIDDEN_MODULES, f"{used_names(path)} imports {name}"
    calls = {dotted_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    used = calls & (FORBIDDEN_CALLS - ({"open"} if used_names(path).startswith(STORES) else set()))
    assert not used, f"{used_names(path)} calls {', '.join(sorted(used))}: time and randomness are inputs"


def module_name(path: Path) -> str:
    return used_names(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported_at_load(tree: ast.Module) -> Iterator[str]:
    """The names that a module imports when it is loaded."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a cycle in an import graph; empty without a cycle."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        stack = [(start, iter(sorted(graph[start])))] if start not in done else []
        while stack:
            name, following = stack[-1]
            if not path or path[-1] != name:
                path.append(name)
            for other in following:
                if other in path:
                    return [*path[path.index(other) :], other]
                if other not in done:
                    stack.append((other, iter(sorted(graph[other]))))
                    break
            else:
                done.add(name)
                stack.pop()
                path.pop()
    return []


def test_imports_form_no_cycle() -> None:
    paths = {module_name(path): path for path in modules(*MAY_IMPORT)}
    graph = {
        name: {found for found in imported_at_load(ast.parse(path.read_text("utf-8"))) if found in paths} - {name}
        for name, path in paths.items()
    }
    assert sum(map(len, graph.values())) > len(graph), "no imports found"
    assert not cycle(graph)


def without_reason(text: str) -> list[str]:
    """Comments that disable a check without a reason."""
    comments = [one.string for one in generate_tokens(StringIO(text).readline) if one.type == COMMENT]
    return [one for one in comments if DISABLED_CHECK.search(one) and not DISABLED_WITH_REASON.search(one)]


def test_disabled_checks_have_a_reason() -> None:
    files = [ROOT / "attimo.py", *modules(*MAY_IMPORT, "benchmarks", "tests")]
    bare = [f"{used_names(path)}: {one}" for path in files for one in without_reason(path.read_text("utf-8"))]
    assert not bare, "add the reason after the code"


def test_tests_have_no_init_files() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), (
        "an __init__.py under tests/ hides the packages of the product"
    )


def test_top_level_packages_of_the_wheel() -> None:
    """Top-level names can clash with other packages, so new ones need a decision."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert built["py-modules"] == ["attimo"]
    folders = {path.parent for path in modules(*MAY_IMPORT)}
    assert sorted(built["packages"]) == sorted(
        [*(one.relative_to(ROOT).as_posix().replace("/", ".") for one in folders), "attimo_shop", "attimo_web"]
    )
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_architecture_checks_detect_violations() -> None:
    """The checks above detect violations."""
    lines = "from connectors.log import Log", "import time", "def f():", "    import random", "    return time.time()"
    tree = ast.parse("\n".join(lines))
    assert list(imported_modules(tree)) == ["connectors.log", "time", "random"]
    assert "time.time" in {dotted_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert not cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    off = "# noqa", "# noqa: S101", "# type: ignore", "# type: ignore[index]"
    assert without_reason("\n".join([*off, "# noqa: S101 - so", "# type: ignore[index, misc]  # so", "# so"])) == list(
        off
    )
