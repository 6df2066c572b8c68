"""Tests that the repository has no machine paths, package registry addresses or secrets."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.harness.support import ROOT

# Split strings, so that this file does not match itself.
REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "registry." + "npmjs.org",
    "npm" + "mirror",
    "repo1." + "maven",
    "repo." + "maven",
    "deb." + "debian.org",
    "static.crates" + ".io",
    "index.crates" + ".io",
    "proxy." + "golang.org",
    "arti" + "factory",
]
MACHINE_PATH = re.compile(r"(?<![\w.~$}/-])/(?:work|root|home/\w+|Users/\w+)/\w")
SECRETS = [
    re.compile("-----BEGIN (?:[A-Z]+ )?PRIVATE" + " KEY-----"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    re.compile(r"\bxox[abp]-[0-9A-Za-z-]{20,}"),
    re.compile(r"\bsk_live_[0-9A-Za-z]{16,}"),
    re.compile(r"https?://[^/\s:@'\"{}<>*]+:[^/\s@'\"{}<>*]+@(?!127\.0\.0\.1|localhost|[\w.]*example)"),
]


def tracked_files() -> list[Path]:
    """All files under version control."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def text_files() -> list[tuple[str, str]]:
    found = []
    for path in tracked_files():
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text("utf-8")))
        except UnicodeDecodeError:  # an image, or a binary golden file
            continue
    assert len(found) > 20
    return found


def test_no_machine_paths() -> None:
    found = [f"{name}: {hit[0]}" for name, text in text_files() for hit in MACHINE_PATH.finditer(text)]
    assert not found


def test_no_package_registry_addresses() -> None:
    found = [f"{name}: {host}" for name, text in text_files() for host in REGISTRIES if host in text]
    assert not found


def test_no_secrets() -> None:
    found = [f"{name}: {pattern.pattern}" for name, text in text_files() for pattern in SECRETS if pattern.search(text)]
    assert not found


def test_lock_files_pin_versions_without_registries() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text("utf-8").splitlines():
            assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [\w.\"' !=<>]+)?", line), f"{name}: {line}"
    lock = ROOT / "web" / "package-lock.json"
    if lock.exists():
        assert '"resolved"' not in lock.read_text("utf-8"), "web/.npmrc sets omit-lockfile-registry-resolved=true"


def test_lock_files_agree_with_pyproject() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (ROOT / name).read_text("utf-8").splitlines()
        return {line.split("==")[0]: line.split("==")[1].split(" ;")[0] for line in lines}

    run, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert run.items() <= dev.items(), "tests must use the versions of the product"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[>=<;\[ ]", line)[0] for line in project["dependencies"]}
    extra = {re.split(r"[>=<;\[ ]", line)[0] for line in project["optional-dependencies"]["dev"]}
    assert declared <= run.keys()
    assert extra <= dev.keys()


def test_no_large_files() -> None:
    large = [f"{path.name}: {path.stat().st_size}" for path in tracked_files() if path.stat().st_size > 1_000_000]
    assert not large


@pytest.mark.parametrize("text", ["see /ro" + "ot/notes", "in '/wo" + "rk/main/x'", "at /ho" + "me/ann/attimo"])
def test_path_rule_detects_machine_paths(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["/workflows/x", "a/root/b", "~/work/x", "https://a.example/home/ann/"])
def test_path_rule_allows_ordinary_paths(text: str) -> None:
    assert not MACHINE_PATH.search(text)


def declared_packages(*lines: str) -> set[str]:
    return {re.split(r"[>=<;\[ ]", line)[0].lower().replace("_", "-") for line in lines}


@pytest.mark.parametrize(
    "folders",
    [("attimo.py", "domain", "state", "operators", "connectors", "flows"), ("benchmarks", "tests")],
    ids=["product", "development"],
)
def test_imports_are_declared_dependencies(folders: tuple[str, ...]) -> None:
    """Every imported package is a declared dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = declared_packages(*project["dependencies"])
    if "tests" in folders:
        allowed |= declared_packages(*project["optional-dependencies"]["dev"])
    owners = packages_distributions()
    ours = {"attimo", "domain", "state", "operators", "connectors", "flows", "benchmarks", "tests"}
    missing = set()
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")] + [
        ROOT / name for name in folders if name.endswith(".py")
    ]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else ([node.module] if isinstance(node, ast.ImportFrom) and node.module else [])
            )
            for top in {name.split(".")[0] for name in names} - ours - set(sys.stdlib_module_names):
                if not {owner.lower().replace("_", "-") for owner in owners.get(top, [])} & allowed:
                    missing.add(f"{path.relative_to(ROOT).as_posix()}: {top}")
    assert not missing, "declare it in pyproject.toml"
