"""The house rules that a machine can hold: which way imports go, who may know the time, how big a file may grow."""

import ast
import re
import tomllib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from tokenize import COMMENT, generate_tokens

import pytest

from tests.support import ROOT

MAY_IMPORT = {
    "domain": {"domain"},
    "state": {"domain", "state"},
    "operators": {"domain", "state", "operators"},
    "connectors": {"domain", "connectors"},
    "flows": {"domain", "state", "operators", "connectors", "flows"},
}
OURS = {*MAY_IMPORT, "attimo", "benchmarks", "tests"}
PURE = ("domain", "state", "operators")
STORES = {"state/store_sqlite.py", "state/store_redis.py"}
"""The files of `state/` that do I/O; they may not know the time either."""

FORBIDDEN_MODULES = {"random", "secrets", "socket", "ssl", "subprocess", "urllib", "http", "requests", "aiohttp",
                     "asyncio", "threading", "multiprocessing", "redis", "confluent_kafka"}
FORBIDDEN_CALLS = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "time.sleep", "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now",
    "datetime.datetime.utcnow", "datetime.date.today", "os.urandom", "uuid.uuid1", "uuid.uuid4", "uuid4", "open",
}
MAX_LINES = 400
SWITCHED_OFF = re.compile(r"#\s*(noqa|type:\s*ignore)")
WITH_REASON = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])\s*[#-]\s*\w")


def modules(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    """The whole name of everything imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", modules(*MAY_IMPORT), ids=named)
def test_imports_go_one_way(path: Path) -> None:
    home = path.relative_to(ROOT).parts[0]
    for name in imported(ast.parse(path.read_text("utf-8"))):
        top = name.split(".")[0]
        assert top not in OURS - MAY_IMPORT[home], f"{named(path)} imports {name}; {home} may not know {top}"


@pytest.mark.parametrize("path", modules(*PURE), ids=named)
def test_time_chance_and_the_network_stay_outside(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for name in imported(tree):
        assert name.split(".")[0] not in FORBIDDEN_MODULES, f"{named(path)} imports {name}"
    calls = {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    used = calls & (FORBIDDEN_CALLS - ({"open"} if named(path) in STORES else set()))
    assert not used, f"{named(path)} calls {', '.join(sorted(used))}: time and chance are inputs"


@pytest.mark.parametrize("path", [ROOT / "attimo.py", *modules(*MAY_IMPORT)], ids=named)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= MAX_LINES, f"{named(path)} has {lines} lines: split it by noun or verb"


def reasonless(text: str) -> list[str]:
    """The comments that switch a check off and do not say why."""
    comments = [one.string for one in generate_tokens(StringIO(text).readline) if one.type == COMMENT]
    return [one for one in comments if SWITCHED_OFF.search(one) and not WITH_REASON.search(one)]


def test_whatever_is_switched_off_has_its_reason() -> None:
    files = [ROOT / "attimo.py", *modules(*MAY_IMPORT, "benchmarks", "tests")]
    bare = [f"{named(path)}: {one}" for path in files for one in reasonless(path.read_text("utf-8"))]
    assert not bare, "say why, behind it"


def test_tests_are_not_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), "an __init__.py under tests/ hides the product's packages"


def test_what_a_wheel_puts_at_the_top_level() -> None:
    """These names share one space with everybody else's packages: adding one is a decision."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert built["py-modules"] == ["attimo"]
    assert sorted(built["packages"]) == sorted(MAY_IMPORT)
    for package in MAY_IMPORT:
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        assert folders == {ROOT / package}, f"{package}: a folder inside is not in the list of packages"
        assert (ROOT / package / "__init__.py").exists()


def test_the_rules_can_be_broken() -> None:
    """The checks above see what they should see."""
    lines = "from connectors.log import Log", "import time", "def f():", "    import random", "    return time.time()"
    tree = ast.parse("\n".join(lines))
    assert list(imported(tree)) == ["connectors.log", "time", "random"]
    assert "time.time" in {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    off = "# noqa", "# noqa: S101", "# type: ignore", "# type: ignore[index]"
    assert reasonless("\n".join([*off, "# noqa: S101 - so", "# type: ignore[index, misc]  # so", "# so"])) == list(off)
