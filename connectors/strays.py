"""Strays: files and folders in a playbook that nobody reads, because they are called or placed differently.

    campaign/x.toml  campaigns/x.TOML  campaigns/spring/x.toml  templates/x.html    nothing of this goes live

A playbook may lie beside whatever else belongs to a shop: what is commonly there is left alone.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from domain.event_names import meant
from domain.problem import Problem

PLACES = {"segments": ".toml", "campaigns": ".toml", "workflows": ".toml", "coupons": ".toml", "codes": ".txt",
          "templates": ".liquid", "scenarios": ".md"}
"""The folders that are read, and how the files in them end; `shop.toml` stands beside them, as place ""."""

MOST = 50
"""Strays that are named."""

_OTHERS = re.compile(r"(README|LICEN[CS]E|NOTICE|CHANGELOG|Makefile)\b.*|products\.csv|\..*|.*~|__.*__", re.IGNORECASE)


def is_readme(name: str) -> bool:
    """Whether a file is for people who read the folder, whatever the files beside it are called.

    >>> [is_readme(name) for name in ("README.md", "readme.txt", "Readme", "readme_first.md")]
    [True, True, True, False]
    """
    return name.partition(".")[0].lower() == "readme"


def is_read(name: str, place: str) -> bool:
    """Whether a file in one of `PLACES` is part of the playbook, by its name.

    What begins with a dot is an editor's or the system's: `.x.toml` may be half of what `x.toml` will be.

    >>> [is_read(name, "scenarios") for name in ("x.md", "x.markdown", ".x.md", "README.md")]
    [True, False, False, False]
    """
    return name.endswith(PLACES.get(place, ".toml")) and not name.startswith(".") and not is_readme(name)


def unreadable(name: str, wrong: OSError) -> Problem:
    """What to say of a file or folder that the system does not let us read.

    >>> str(unreadable("campaigns", PermissionError(13, "Permission denied")))
    'campaigns: cannot be read: permission denied'
    """
    return Problem(name, 0, "", f"cannot be read: {(wrong.strerror or type(wrong).__name__).lower()}")


def strays(folder: Path) -> list[Problem]:
    """What lies in a playbook and is not read, as warnings; the first ones, where there are many.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     (Path(place) / "campaign").mkdir()
    ...     print(*strays(Path(place)))
    campaign/: nothing in it is read; did you mean campaigns/?
    """
    found = sorted({*_beside(folder), *(one for name in PLACES for one in _within(folder, name))})
    if len(found) > MOST:
        found[MOST:] = [Problem(str(folder), 0, "", f"… and {len(found) - MOST} more that nobody reads")]
    return found


def _beside(folder: Path) -> Iterator[Problem]:
    for name, is_folder in _entries(folder):
        if is_folder and name not in PLACES:
            hint = meant(name, PLACES).replace('"', "").removesuffix("?")
            yield Problem(f"{name}/", 0, "", "nothing in it is read" + (
                f"{hint}/?" if hint else f": the folders of a playbook are {', '.join(PLACES)}"))
        elif not is_folder and not name.endswith(".toml"):  # of those with another name the playbook itself complains
            yield Problem(name, 0, "", "is read by nothing" + (
                '; did you mean "shop.toml"?' if Path(name.lower()).stem == "shop" else ""))


def _within(folder: Path, place: str) -> Iterator[Problem]:
    ending = PLACES[place]
    for name, is_folder in _entries(folder / place):
        if is_folder:
            yield Problem(f"{place}/{name}/", 0, "", f"nothing in it is read: the files stand in {place}/ itself")
        elif not name.endswith(ending):
            stem = name.partition(".")[0]
            yield Problem(f"{place}/{name}", 0, "", f"is read by nothing: the files in {place}/ end in {ending}; "
                          f'did you mean "{stem}{ending}"?')


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """The names in a folder that may be meant for the playbook, and which of them are folders."""
    try:
        with os.scandir(folder) as entries:
            yield from ((entry.name, entry.is_dir()) for entry in entries if _OTHERS.fullmatch(entry.name) is None)
    except OSError:  # it is not there; or it cannot be looked into, which whoever reads it says
        return
