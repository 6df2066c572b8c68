"""The mistakes of the playbook folder as a file, `data/run/playbook.json`: there while there are any.

The on-site worker that looks at the folder writes it, whole or not at all; `attimo up`, `attimo top` and the page
`/live` look at it.
"""

import os
from pathlib import Path

import msgspec

from domain.mistakes import Mistakes, decode, encode


def path_of(data: str) -> Path:
    """Where the file is.

    >>> path_of("data").as_posix()
    'data/run/playbook.json'
    """
    return Path(data) / "run" / "playbook.json"


def tell(path: Path, mistakes: Mistakes | None) -> None:
    """Make the mistakes known; None when there are none any more. OSError when the disk is full."""
    if mistakes is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(encode(mistakes))
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read(path: Path) -> Mistakes | None:
    """The mistakes that are there now; None when there are none, or when the file is of another version."""
    try:
        return decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


class Look:
    """Looks at the file from time to time. `now` is what it said at the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now: Mistakes | None = None
        self._seen: tuple[int, int, int] | None = None

    def again(self) -> bool:
        """Whether something else is said than at the look before. Costs next to nothing while nothing changes."""
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return False
        self._seen = seen
        before, self.now = self.now, read(self.path) if seen else None
        return before != self.now
