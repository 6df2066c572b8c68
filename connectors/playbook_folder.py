"""The playbook folder: plain files that a marketer writes, read whole or not at all.

    shop/
      shop.toml
      segments/NAME.toml
      campaigns/NAME.toml
      workflows/NAME.toml
      coupons/NAME.toml
      codes/NAME.txt
      templates/NAME.liquid

What else lies there is not read (`connectors/strays.py`). A folder is taken only when nothing is wrong with it and
nothing changed while it was read. A broken one leaves the last good playbook live; what is wrong is said once.
"""

import os
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from connectors import codes_file
from connectors.codes_file import read_codes
from connectors.strays import PLACES, is_read, unreadable
from domain.campaign import Campaign
from domain.check import findings, names
from domain.coupon import Pool
from domain.known import Finding, Known
from domain.lines import Line, line_of, places
from domain.playbook import Playbook, encode, hash_of
from domain.problem import Path as Field
from domain.problem import PlaybookError, Problem
from domain.reading import convert
from domain.segment import Segment
from domain.shop import Shop
from domain.slips import slip
from domain.workflow import Workflow

LARGEST_FILE = 256 * 1024
MOST_FILES = 20_000
"""Bytes of one file and files of one folder that are accepted."""

logger = structlog.get_logger()

_PARTS: dict[str, type[msgspec.Struct]] = {
    "segments": Segment, "campaigns": Campaign, "workflows": Workflow, "coupons": Pool}
Files = dict[str, bytes]
Signature = tuple[tuple[str, int, int, int], ...]


class Changed(RuntimeError):
    """The folder was written to while it was read; another look will do."""


def read(folder: Path | str) -> Playbook:
    """The playbook of a folder. PlaybookError with everything that is wrong with it."""
    return read_with_files(folder)[0]


def read_with_files(folder: Path | str) -> tuple[Playbook, Files]:
    """The playbook of a folder, and the files it was made of. PlaybookError with everything that is wrong with it."""
    for _ in range(5):
        try:
            files = load(Path(folder))
            return parse(files), files
        except Changed:
            time.sleep(0.02)
    raise PlaybookError([Problem(str(folder), 0, "", "is being written to; try again when that is over")])


def load(folder: Path) -> Files:
    """The files of a playbook by their path inside the folder. Changed when they do not belong together."""
    before = signature(folder)
    if not folder.is_dir():
        raise PlaybookError([Problem(str(folder), 0, "", "there is no such folder")])
    if len(before) > MOST_FILES:
        raise PlaybookError([Problem(str(folder), 0, "", f"has more than {MOST_FILES} files")])
    files: Files = {}
    for name, _, size, _ in before:
        most = codes_file.LARGEST_FILE if name.startswith("codes/") else LARGEST_FILE
        if size > most:
            raise PlaybookError([Problem(name, 0, "", f"is larger than {most // 1024} kB")])
        try:
            files[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            raise Changed from None
        except OSError as wrong:
            raise PlaybookError([unreadable(name, wrong)]) from None
    if signature(folder) != before:
        raise Changed
    return files


def signature(folder: Path) -> Signature:
    """What tells whether a folder has changed: its files, when and how large they were written.

    PlaybookError when it, or a folder in it, cannot be looked into.
    """
    return tuple(sorted(_stats(folder)))


def _stats(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for name in ("", *PLACES):
        if name == "scenarios":  # stories are told to a playbook, they are no part of it
            continue
        try:
            with os.scandir(folder / name) as entries:
                for entry in entries:
                    if is_read(entry.name, name) and entry.is_file():
                        stat = entry.stat()
                        path = f"{name}/{entry.name}" if name else entry.name
                        yield path, stat.st_mtime_ns, stat.st_size, stat.st_ino
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as wrong:
            raise PlaybookError([unreadable(name or str(folder), wrong)]) from None


def parse(files: Files) -> Playbook:
    """A playbook from its files. PlaybookError with everything that is wrong with them."""
    reading = _Reading(files)
    shop = reading.toml("shop.toml", Shop) if "shop.toml" in files else Shop()
    declared = shop or next((rest for _, rest, _ in reading.rests), None)
    """What shop.toml says, as far as it can be read."""
    parts: dict[str, list[Any]] = {part: [] for part in _PARTS}
    templates: dict[str, str] = {}
    for path in sorted(files):
        folder, _, name = path.rpartition("/")
        if folder in _PARTS:
            part = reading.toml(path, _PARTS[folder], stem=name.removesuffix(".toml"))
            if part is not None:
                parts[folder].append(part)
        elif folder == "templates" and name != name.encode(errors="replace").decode():
            reading.problems.append(Problem(path, 0, "", "has a name that is no text in UTF-8"))
        elif folder == "templates":
            templates[name] = reading.text(path)
        elif folder == "codes":
            reading.codes(path)
        elif not folder and name != "shop.toml":
            reading.problems.append(Problem(path, 1, "", "has no meaning here: did you mean segments/ or campaigns/?"))
    parts["coupons"] = reading.filled(parts["coupons"])
    playbook = Playbook(declared or Shop(), tuple(parts["segments"]), tuple(parts["campaigns"]), templates,
                        tuple(parts["workflows"]), tuple(parts["coupons"]))
    whole = {part: {one.name for one in some} for part, some in parts.items()}
    broken = {part: [name for path in files if path.startswith(part + "/")
                     and (name := path[len(part) + 1:-5]) not in whole[part]] for part in _PARTS}
    found = findings(playbook, broken)
    if shop is None:  # nobody is to blame for what it may have declared
        found = [one for one in found if one.part != "shop" and (declared or not one.asks_the_shop)]
    reading.problems += [reading.problem(*one) for one in found]
    if declared is not None:
        reading.ask_for_names(Known(playbook, broken))
    if "shop.toml" not in files and any("shop.toml" in problem.text for problem in reading.problems):
        reading.problems.append(Problem(
            "shop.toml", 0, "", "is not there: it names the shop's events, stages, groups and purposes"))
    if reading.problems:
        raise PlaybookError(sorted(set(reading.problems)))
    return playbook


def located(files: Files, found: Iterable[Finding]) -> list[Problem]:
    """What was found in a playbook, with the file and the line where it stands; in the order of the files."""
    reading = _Reading(files)
    for path in files:
        reading.text(path)
    return sorted({reading.problem(*one) for one in found})


class _Reading:
    """The files, and what was found wrong with them so far."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.problems: list[Problem] = []
        self.rests: list[tuple[str, Any, Callable[[Field], Field]]] = []
        """Of files with mistakes what remains without them, and where its fields stand in the file."""
        self.unreadable: set[str] = set()
        self._texts: dict[str, str] = {}
        self._codes: dict[str, tuple[str, ...]] = {}

    def text(self, path: str) -> str:
        try:
            text = self.files[path].decode("utf-8-sig")
        except UnicodeDecodeError as wrong:
            line = self.files[path].count(b"\n", 0, wrong.start) + 1
            self.problems.append(Problem(path, line, "", f"should be UTF-8 text ({wrong.reason})"))
            self.unreadable.add(path)
            text = ""
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            self.problems.append(Problem(path, line, "", "should be text, has NUL characters"))
        self._texts[path] = text
        return text

    def codes(self, path: str) -> None:
        """The codes of one file, for the pool of the same name."""
        codes, problems = read_codes(path, self.text(path))
        self._codes[path[6:-4]] = codes
        self.problems += problems
        if f"coupons/{path[6:-4]}.toml" not in self.files:
            self.problems.append(Problem(path, 1, "", f"belongs to no coupons: there is no coupons/{path[6:-4]}.toml"))

    def filled(self, pools: list[Pool]) -> list[Pool]:
        """The pools with the codes that their files list."""
        for pool in pools:
            if pool.codes and pool.name in self._codes:
                self.problems.append(self.problem("coupons", pool.name, ("codes",),
                                                  f"stands beside codes/{pool.name}.txt: choose one"))
        return [msgspec.structs.replace(pool, codes=self._codes.get(pool.name, pool.codes)) for pool in pools]

    def toml(self, path: str, kind: type[Any], stem: str = "") -> Any:
        """One file as `kind`, or nothing. It is called what its file is called."""
        text = self.text(path)
        if path in self.unreadable:
            return None
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as wrong:
            line, field, words = slip(text, str(wrong))
            self.problems.append(Problem(path, line, _dotted(field), words))
            return None
        except RecursionError:
            self.problems.append(Problem(path, max(places(text).fields.values()), "", "nests too deep"))
            return None
        if stem and raw.setdefault("name", stem) != stem and isinstance(raw["name"], str):
            self.problems.append(Problem(
                path, line_of(text, ("name",)), "name", f'should be "{stem}", as the file is called (or be left out)'))
        try:
            read = convert(raw, kind)
        except RecursionError:
            self.problems.append(Problem(path, max(places(text).fields.values()), "", "nests too deep"))
            return None
        self.problems += [Problem(path, line_of(text, place), _dotted(place), words)
                          for place, words in read.mistakes]
        if read.value is None and read.rest is not None:
            self.rests.append((path, read.rest, read.place))
        return read.value

    def ask_for_names(self, known: Known) -> None:
        """In files with mistakes: which other names in them nobody declares."""
        for path, rest, place in self.rests:
            part, _, name = path.removesuffix(".toml").rpartition("/")
            self.problems += [self.problem(part or "shop", name, place(field), words)
                              for field, words in names(part or "shop", rest, known)]

    def problem(self, part: str, name: str, path: tuple[str | int, ...], words: str) -> Problem:
        file = {"shop": "shop.toml", "templates": f"templates/{name}"}.get(part, f"{part}/{name}.toml")
        own = path[-1] if path and isinstance(path[-1], Line) else 1
        line = line_of(self._texts.get(file, ""), path) if file.endswith(".toml") else int(own)
        return Problem(file, line, _dotted(path), words)


class _Seen(NamedTuple):
    signature: Signature
    at: float


class Watcher:
    """Looks at a folder from time to time. `problems` are what is wrong with it now; empty when it is live."""

    def __init__(self, folder: Path | str, every: float = 0.5) -> None:
        self.folder = Path(folder)
        self.every = every
        self.problems: tuple[Problem, ...] = ()
        self._live = ""
        self._taken: Signature | None = None
        self._last: Signature | None = None
        self._next = 0.0

    def first(self) -> Playbook:
        """The playbook to begin with. PlaybookError when there is none that can be taken."""
        try:
            before = signature(self.folder)
            playbook = read(self.folder)
        except PlaybookError as wrong:
            self.problems = wrong.problems
            raise
        self._taken, self._last = before, before
        self._live = hash_of(encode(playbook))
        return playbook

    def poll(self, now: float) -> Playbook | None:
        """A playbook that has become different and is whole; None otherwise. `now` is a monotonic clock in seconds."""
        if now < self._next:
            return None
        began = time.perf_counter()
        try:
            current = signature(self.folder)
        except PlaybookError as wrong:
            self._next, self._taken, self._last = now + self.every, None, None
            self._refuse(wrong)
            return None
        spent = time.perf_counter() - began
        self._next = now + max(self.every, 50 * spent)  # looking costs at most a fiftieth, however many files
        settled, self._last = current == self._last, current
        if current == self._taken or not settled:  # two looks must agree: nobody is in the middle of writing
            return None
        try:
            playbook = parse(load(self.folder))
        except Changed:
            return None
        except PlaybookError as wrong:
            self._taken = current
            self._refuse(wrong)
            return None
        self._taken, self.problems = current, ()
        changed = hash_of(encode(playbook))
        if changed == self._live:
            return None
        self._live = changed
        return playbook

    def _refuse(self, wrong: PlaybookError) -> None:
        """The last good playbook stays live; why is said once."""
        if wrong.problems != self.problems:
            self.problems = wrong.problems
            logger.warning("the playbook has mistakes, the last good one stays live",
                           problems=[str(problem) for problem in self.problems])


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        if isinstance(part, Line):
            continue
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text
