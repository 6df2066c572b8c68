"""The playbook folder: reads and validates the files of a playbook, and watches them for changes.

    shop/
      shop.toml
      segments/NAME.toml
      campaigns/NAME.toml
      workflows/NAME.toml
      coupons/NAME.toml
      codes/NAME.txt
      templates/NAME.liquid

      scenarios/*.md

A playbook goes live only if it has no errors and no file changed during the read. If it has errors, the last valid
playbook stays live, and the errors are logged once.

`codes/NAME.txt` lists the codes of `coupons/NAME.toml`, one per line; `#` starts a comment. Append new codes at the
end, because codes are issued in the order of the file.

Unused files are reported as warnings: files and folders with an unknown name or place, such as campaign/x.toml,
campaigns/x.TOML, campaigns/spring/x.toml or templates/x.html. Common files, such as a README, are ignored.
"""

import os
import re
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from domain.diagnostics import Diagnostic, PlaybookError
from domain.diagnostics import FieldPath as Field
from domain.event import did_you_mean
from domain.playbook.campaign import Campaign
from domain.playbook.coupon import MAX_LISTED_CODES, CouponPool
from domain.playbook.playbook import Playbook, encode_playbook, playbook_hash
from domain.playbook.scenario import Scenario, parse_scenarios
from domain.playbook.segment import Segment
from domain.playbook.shop import Shop
from domain.playbook.workflow import Workflow
from domain.validation.decode import convert
from domain.validation.names import Finding, PlaybookNames
from domain.validation.toml_source import TextLine, hint_for, line_of, positions
from domain.validation.validate import unresolved_names, validate

MAX_CODES_FILE_BYTES = 8 * 1024 * 1024
"""Maximum bytes of a file of codes: 100,000 codes of maximum length, and comments."""

MAX_CODE_DIAGNOSTICS = 20
"""Maximum errors reported for a file of codes."""

_CODE = re.compile(r"[!-~]{1,64}")
_COMMENT = re.compile(r"(^|\s)#.*")


def parse_codes(path: str, text: str) -> tuple[tuple[str, ...], list[Diagnostic]]:
    r"""Return the codes of a file in order, and its errors.

    >>> parse_codes("codes/a.txt", "# spring\nAB-1\n\nAB-2  # for Ann\n")
    (('AB-1', 'AB-2'), [])
    >>> [str(error) for error in parse_codes("codes/a.txt", "AB-1\nab-1\n")[1]]
    ['codes/a.txt, line 2: "ab-1" is already in line 1 (codes are not case-sensitive)']
    """
    lines: dict[str, int] = {}
    codes: list[str] = []
    errors: list[Diagnostic] = []
    for number, line in enumerate(text.splitlines(), 1):
        code = _COMMENT.sub("", line).strip()
        if not code:
            continue
        known = lines.setdefault(code.upper(), number)
        if _CODE.fullmatch(code) is None:
            errors.append(
                Diagnostic(
                    path,
                    number,
                    "",
                    "should be one code: 1 to 64 letters, digits and punctuation, without "
                    f'spaces or accents; got "{code[:70]}"',
                )
            )
        elif known != number:
            errors.append(
                Diagnostic(path, number, "", f'"{code}" is already in line {known} (codes are not case-sensitive)')
            )
        else:
            codes.append(code)
    if len(codes) > MAX_LISTED_CODES:
        errors.append(Diagnostic(path, 1, "", f"has {len(codes):,} codes; the maximum is {MAX_LISTED_CODES:,}"))
    if not lines:
        errors.append(Diagnostic(path, 1, "", "contains no codes"))
    omitted = len(errors) - MAX_CODE_DIAGNOSTICS
    if omitted > 0:
        first = errors[MAX_CODE_DIAGNOSTICS].line
        errors[MAX_CODE_DIAGNOSTICS:] = [Diagnostic(path, first, "", f"… and {omitted} more errors")]
    return tuple(codes), errors


FOLDERS = {
    "segments": ".toml",
    "campaigns": ".toml",
    "workflows": ".toml",
    "coupons": ".toml",
    "codes": ".txt",
    "templates": ".liquid",
    "scenarios": ".md",
}
"""Folder -> file extension. `shop.toml` is in the top folder ""."""

MAX_UNUSED_FILES = 50
"""Maximum unused files that are reported."""

_IGNORED_NAMES = re.compile(
    r"(README|LICEN[CS]E|NOTICE|CHANGELOG|Makefile)\b.*|products\.csv|\..*|.*~|__.*__", re.IGNORECASE
)


def is_readme(name: str) -> bool:
    """Return True for a README, with any extension.

    >>> [is_readme(name) for name in ("README.md", "readme.txt", "Readme", "readme_first.md")]
    [True, True, True, False]
    """
    return name.partition(".")[0].lower() == "readme"


def is_playbook_file(name: str, subfolder: str) -> bool:
    """Return True if a file in one of `FOLDERS` is part of the playbook, by its name.

    Hidden files are ignored: `.x.toml` may be a temporary file of an editor.

    >>> [is_playbook_file(name, "scenarios") for name in ("x.md", "x.markdown", ".x.md", "README.md")]
    [True, False, False, False]
    """
    return name.endswith(FOLDERS.get(subfolder, ".toml")) and not name.startswith(".") and not is_readme(name)


def read_error(name: str, error: OSError) -> Diagnostic:
    """Return the diagnostic for a file or folder that cannot be read.

    >>> str(read_error("campaigns", PermissionError(13, "Permission denied")))
    'campaigns: cannot be read: permission denied'
    """
    return Diagnostic(name, 0, "", f"cannot be read: {(error.strerror or type(error).__name__).lower()}")


def unused_files(folder: Path) -> list[Diagnostic]:
    """Return warnings for unused files in a playbook, at most `MAX_UNUSED_FILES`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     (Path(place) / "campaign").mkdir()
    ...     print(*unused_files(Path(place)))
    campaign/: unused folder; did you mean campaigns/?
    """
    found = sorted({*_unused_at_top(folder), *(item for name in FOLDERS for item in _unused_in(folder, name))})
    if len(found) > MAX_UNUSED_FILES:
        found[MAX_UNUSED_FILES:] = [
            Diagnostic(str(folder), 0, "", f"… and {len(found) - MAX_UNUSED_FILES} more unused files")
        ]
    return found


def _unused_at_top(folder: Path) -> Iterator[Diagnostic]:
    for name, is_folder in _list_folder(folder):
        if is_folder and name not in FOLDERS:
            hint = did_you_mean(name, FOLDERS).replace('"', "").removesuffix("?")
            yield Diagnostic(
                f"{name}/",
                0,
                "",
                "unused folder" + (f"{hint}/?" if hint else f": a playbook has the folders {', '.join(FOLDERS)}"),
            )
        elif not is_folder and not name.endswith(".toml"):  # other .toml files are errors
            yield Diagnostic(
                name,
                0,
                "",
                "unused file" + ('; did you mean "shop.toml"?' if Path(name.lower()).stem == "shop" else ""),
            )


def _unused_in(folder: Path, subfolder: str) -> Iterator[Diagnostic]:
    ending = FOLDERS[subfolder]
    for name, is_folder in _list_folder(folder / subfolder):
        if is_folder:
            yield Diagnostic(f"{subfolder}/{name}/", 0, "", f"unused folder: put the files in {subfolder}/ directly")
        elif not name.endswith(ending):
            stem = name.partition(".")[0]
            yield Diagnostic(
                f"{subfolder}/{name}",
                0,
                "",
                f'unused file: files in {subfolder}/ end in {ending}; did you mean "{stem}{ending}"?',
            )


def _list_folder(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the names in a folder, except ignored ones, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (
                (entry.name, entry.is_dir()) for entry in entries if _IGNORED_NAMES.fullmatch(entry.name) is None
            )
    except OSError:  # it does not exist, or reading it reports the error
        return


MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 20_000
"""Maximum bytes of one file, and maximum files."""

logger = structlog.get_logger()

_STRUCTS: dict[str, type[msgspec.Struct]] = {
    "segments": Segment,
    "campaigns": Campaign,
    "workflows": Workflow,
    "coupons": CouponPool,
}
Files = dict[str, bytes]
Signature = tuple[tuple[str, int, int, int], ...]


class FolderChanged(RuntimeError):
    """The folder changed while it was read; read it again."""


def read_playbook(folder: Path | str) -> Playbook:
    """Read the playbook in a folder. Raise PlaybookError with all errors."""
    return read_with_files(folder)[0]


def read_with_files(folder: Path | str) -> tuple[Playbook, Files]:
    """Return the playbook in a folder and its files. Raise PlaybookError with all errors."""
    for _ in range(5):
        try:
            files = load_files(Path(folder))
            return parse_playbook(files), files
        except FolderChanged:
            time.sleep(0.02)
    raise PlaybookError([Diagnostic(str(folder), 0, "", "is being changed; try again later")])


def load_files(folder: Path) -> Files:
    """Return the files of a playbook by relative path. Raise FolderChanged if a file changed meanwhile."""
    before = signature(folder)
    if not folder.is_dir():
        raise PlaybookError([Diagnostic(str(folder), 0, "", "no such folder")])
    if len(before) > MAX_FILES:
        raise PlaybookError([Diagnostic(str(folder), 0, "", f"has more than {MAX_FILES} files")])
    files: Files = {}
    for name, _, size, _ in before:
        most = MAX_CODES_FILE_BYTES if name.startswith("codes/") else MAX_FILE_BYTES
        if size > most:
            raise PlaybookError([Diagnostic(name, 0, "", f"is larger than {most // 1024} kB")])
        try:
            files[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            raise FolderChanged from None
        except OSError as error:
            raise PlaybookError([read_error(name, error)]) from None
    if signature(folder) != before:
        raise FolderChanged
    return files


def signature(folder: Path) -> Signature:
    """Return names, modification times, sizes and inodes of the files, to detect changes.

    Raise PlaybookError if a folder cannot be read.
    """
    return tuple(sorted(_stats(folder)))


def _stats(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for name in ("", *FOLDERS):
        if name == "scenarios":  # scenarios test a playbook, they are not part of it
            continue
        try:
            with os.scandir(folder / name) as entries:
                for entry in entries:
                    if is_playbook_file(entry.name, name) and entry.is_file():
                        stat = entry.stat()
                        path = f"{name}/{entry.name}" if name else entry.name
                        yield path, stat.st_mtime_ns, stat.st_size, stat.st_ino
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise PlaybookError([read_error(name or str(folder), error)]) from None


def parse_playbook(files: Files) -> Playbook:
    """Parse and validate the files of a playbook. Raise PlaybookError with all errors."""
    reader = _PlaybookParser(files)
    shop = reader.parse_toml("shop.toml", Shop) if "shop.toml" in files else Shop()
    declared = shop or next((rest for _, rest, _ in reader.partial_files), None)
    """The valid part of shop.toml."""
    parts: dict[str, list[Any]] = {part: [] for part in _STRUCTS}
    templates: dict[str, str] = {}
    for path in sorted(files):
        folder, _, name = path.rpartition("/")
        if folder in _STRUCTS:
            part = reader.parse_toml(path, _STRUCTS[folder], stem=name.removesuffix(".toml"))
            if part is not None:
                parts[folder].append(part)
        elif folder == "templates" and name != name.encode(errors="replace").decode():
            reader.diagnostics.append(Diagnostic(path, 0, "", "has a file name that is not UTF-8"))
        elif folder == "templates":
            templates[name] = reader.decode_text(path)
        elif folder == "codes":
            reader.add_codes(path)
        elif not folder and name != "shop.toml":
            reader.diagnostics.append(
                Diagnostic(path, 1, "", "does not belong here; did you mean segments/ or campaigns/?")
            )
    parts["coupons"] = reader.with_codes(parts["coupons"])
    playbook = Playbook(
        declared or Shop(),
        tuple(parts["segments"]),
        tuple(parts["campaigns"]),
        templates,
        tuple(parts["workflows"]),
        tuple(parts["coupons"]),
    )
    valid = {part: {item.name for item in items} for part, items in parts.items()}
    broken = {
        part: [
            name
            for path in files
            if path.startswith(part + "/") and (name := path[len(part) + 1 : -5]) not in valid[part]
        ]
        for part in _STRUCTS
    }
    found = validate(playbook, broken)
    if shop is None:  # do not report names that shop.toml may declare
        found = [item for item in found if item.section != "shop" and (declared or not item.depends_on_shop)]
    reader.diagnostics += [reader.locate(*item) for item in found]
    if declared is not None:
        reader.check_names(PlaybookNames(playbook, broken))
    if "shop.toml" not in files and any("shop.toml" in error.message for error in reader.diagnostics):
        reader.diagnostics.append(
            Diagnostic("shop.toml", 0, "", "is missing: it declares the shop's events, stages, groups and purposes")
        )
    if reader.diagnostics:
        raise PlaybookError(sorted(set(reader.diagnostics)))
    return playbook


def locate_diagnostics(files: Files, diagnostics: Iterable[Finding]) -> list[Diagnostic]:
    """Return findings with file and line, in the order of the files."""
    reader = _PlaybookParser(files)
    for path in files:
        reader.decode_text(path)
    return sorted({reader.locate(*item) for item in diagnostics})


class _PlaybookParser:
    """Parses files and collects diagnostics."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.diagnostics: list[Diagnostic] = []
        self.partial_files: list[tuple[str, Any, Callable[[Field], Field]]] = []
        """(path, valid part, mapping of field paths to those in the file) of files with errors."""
        self.undecodable: set[str] = set()
        self._texts: dict[str, str] = {}
        self._codes: dict[str, tuple[str, ...]] = {}

    def decode_text(self, path: str) -> str:
        try:
            text = self.files[path].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self.files[path].count(b"\n", 0, error.start) + 1
            self.diagnostics.append(Diagnostic(path, line, "", f"should be UTF-8 text ({error.reason})"))
            self.undecodable.add(path)
            text = ""
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            self.diagnostics.append(Diagnostic(path, line, "", "should be text, but contains NUL characters"))
        self._texts[path] = text
        return text

    def add_codes(self, path: str) -> None:
        """Add the codes of one file to the pool of the same name."""
        codes, errors = parse_codes(path, self.decode_text(path))
        self._codes[path[6:-4]] = codes
        self.diagnostics += errors
        if f"coupons/{path[6:-4]}.toml" not in self.files:
            self.diagnostics.append(
                Diagnostic(path, 1, "", f"belongs to no coupon: coupons/{path[6:-4]}.toml does not exist")
            )

    def with_codes(self, pools: list[CouponPool]) -> list[CouponPool]:
        """Return the pools with the codes from their files."""
        for pool in pools:
            if pool.codes and pool.name in self._codes:
                self.diagnostics.append(
                    self.locate("coupons", pool.name, ("codes",), f"codes/{pool.name}.txt exists too: use one of them")
                )
        return [msgspec.structs.replace(pool, codes=self._codes.get(pool.name, pool.codes)) for pool in pools]

    def parse_toml(self, path: str, struct: type[Any], stem: str = "") -> Any:
        """Parse a file as `struct`; return None if it has errors. Its name must match the file name."""
        text = self.decode_text(path)
        if path in self.undecodable:
            return None
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line, field, message = hint_for(text, str(error))
            self.diagnostics.append(Diagnostic(path, line, _field_path(field), message))
            return None
        except RecursionError:
            self.diagnostics.append(Diagnostic(path, max(positions(text).fields.values()), "", "is nested too deeply"))
            return None
        if stem and raw.setdefault("name", stem) != stem and isinstance(raw["name"], str):
            self.diagnostics.append(
                Diagnostic(
                    path, line_of(text, ("name",)), "name", f'should be "{stem}", like the file name (or be omitted)'
                )
            )
        try:
            read = convert(raw, struct)
        except RecursionError:
            self.diagnostics.append(Diagnostic(path, max(positions(text).fields.values()), "", "is nested too deeply"))
            return None
        self.diagnostics += [
            Diagnostic(path, line_of(text, place), _field_path(place), message) for place, message in read.errors
        ]
        if read.value is None and read.partial is not None:
            self.partial_files.append((path, read.partial, read.original_path))
        return read.value

    def check_names(self, names_in_playbook: PlaybookNames) -> None:
        """Report undeclared names in the valid parts of files with errors."""
        for path, rest, place in self.partial_files:
            part, _, name = path.removesuffix(".toml").rpartition("/")
            self.diagnostics += [
                self.locate(part or "shop", name, place(field), message)
                for field, message in unresolved_names(part or "shop", rest, names_in_playbook)
            ]

    def locate(self, part: str, name: str, path: tuple[str | int, ...], message: str) -> Diagnostic:
        file = {"shop": "shop.toml", "templates": f"templates/{name}"}.get(part, f"{part}/{name}.toml")
        own = path[-1] if path and isinstance(path[-1], TextLine) else 1
        line = line_of(self._texts.get(file, ""), path) if file.endswith(".toml") else int(own)
        return Diagnostic(file, line, _field_path(path), message)


class PlaybookWatcher:
    """Watches a playbook folder. `diagnostics` are its current errors; empty if it is live."""

    def __init__(self, folder: Path | str, interval: float = 0.5) -> None:
        self.folder = Path(folder)
        self.interval = interval
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self._live_hash = ""
        self._live_signature: Signature | None = None
        self._last_signature: Signature | None = None
        self._next_poll = 0.0

    def load_first(self) -> Playbook:
        """Read the first playbook. Raise PlaybookError if it has errors."""
        try:
            before = signature(self.folder)
            playbook = read_playbook(self.folder)
        except PlaybookError as error:
            self.diagnostics = error.diagnostics
            raise
        self._live_signature, self._last_signature = before, before
        self._live_hash = playbook_hash(encode_playbook(playbook))
        return playbook

    def poll(self, now: float) -> Playbook | None:
        """Return a changed, valid playbook, else None. `now` is a monotonic time in seconds."""
        if now < self._next_poll:
            return None
        started = time.perf_counter()
        try:
            current = signature(self.folder)
        except PlaybookError as error:
            self._next_poll, self._live_signature, self._last_signature = now + self.interval, None, None
            self._report_errors(error)
            return None
        spent = time.perf_counter() - started
        self._next_poll = now + max(self.interval, 50 * spent)  # polling takes at most 2 % of the time
        settled, self._last_signature = current == self._last_signature, current
        if current == self._live_signature or not settled:  # two polls must agree, so that no file is being written
            return None
        try:
            playbook = parse_playbook(load_files(self.folder))
        except FolderChanged:
            return None
        except PlaybookError as error:
            self._live_signature = current
            self._report_errors(error)
            return None
        self._live_signature, self.diagnostics = current, ()
        changed = playbook_hash(encode_playbook(playbook))
        if changed == self._live_hash:
            return None
        self._live_hash = changed
        return playbook

    def _report_errors(self, error: PlaybookError) -> None:
        """Store and log new errors once; the last valid playbook stays live."""
        if error.diagnostics != self.diagnostics:
            self.diagnostics = error.diagnostics
            logger.warning(
                "invalid playbook; the last valid one stays live",
                errors=[str(diagnostic) for diagnostic in self.diagnostics],
            )


def _field_path(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        if isinstance(part, TextLine):
            continue
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


MAX_SCENARIO_BYTES = 256 * 1024
MAX_SCENARIOS = 1_000
"""Maximum bytes of one file, and maximum files."""


def read_scenarios(folder: Path) -> tuple[list[Scenario], list[Diagnostic]]:
    """Return all scenarios in `folder`/scenarios in file order, and the errors of the files."""
    found: list[Scenario] = []
    errors: list[Diagnostic] = []
    try:
        paths = sorted(path for path in (folder / "scenarios").iterdir() if is_playbook_file(path.name, "scenarios"))
    except (FileNotFoundError, NotADirectoryError):
        paths = []
    except OSError as error:
        return [], [read_error("scenarios", error)]
    if len(paths) > MAX_SCENARIOS:
        errors.append(Diagnostic("scenarios", 0, "", f"has more than {MAX_SCENARIOS} files"))
    for path in paths[:MAX_SCENARIOS]:
        name = f"scenarios/{path.name}"
        try:
            if path.stat().st_size > MAX_SCENARIO_BYTES:
                errors.append(Diagnostic(name, 0, "", f"is larger than {MAX_SCENARIO_BYTES // 1024} kB"))
                continue
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            errors.append(Diagnostic(name, 0, "", "should be UTF-8 text"))
            continue
        except OSError as error:
            errors.append(read_error(name, error))
            continue
        scenarios, file_errors = parse_scenarios(name, text)
        found += scenarios
        errors += file_errors
    return found, errors
