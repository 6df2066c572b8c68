"""The playbook status file, `data/run/playbook.json`; it exists while the playbook has errors.

The on-site worker that watches the folder writes it atomically; `attimo up`, `attimo top` and `/live` read it.
"""

import os
from pathlib import Path

import msgspec

from domain.diagnostics import PlaybookStatus, decode_status, encode_status


def status_path(data_folder: str) -> Path:
    """Return the path of the status file.

    >>> status_path("data").as_posix()
    'data/run/playbook.json'
    """
    return Path(data_folder) / "run" / "playbook.json"


def write_status(path: Path, status: PlaybookStatus | None) -> None:
    """Write the status file; delete it if `status` is None. Raise OSError if it cannot be written."""
    if status is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(encode_status(status))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_status(path: Path) -> PlaybookStatus | None:
    """Read the status file; return None if it does not exist or has another version."""
    try:
        return decode_status(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


class StatusWatcher:
    """Watches the status file. `status` is its content at the last poll."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status: PlaybookStatus | None = None
        self._signature: tuple[int, int, int] | None = None

    def poll(self) -> bool:
        """Read the file if it changed; return True if the status is different."""
        try:
            stat = self.path.stat()
            signature = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            signature = None
        if signature == self._signature:
            return False
        self._signature = signature
        before, self.status = self.status, read_status(self.path) if signature else None
        return before != self.status
