"""Diagnostics of a playbook: errors with file, line and field, and the status of the playbook folder.

>>> print(Diagnostic("segments/engaged.toml", 4, "when.sesion", 'unknown field "sesion"'))
segments/engaged.toml, line 4, when.sesion: unknown field "sesion"
>>> errors = [Diagnostic("shop.toml", 2, "timezone", "is missing")]
>>> status = PlaybookStatus.from_errors("shop", errors, since=60_000, live_hash="5d2f9ac0")
>>> for line in status.report_lines(lambda at: f"minute {at // 60_000}"):
...     print(line)
shop/ has 1 error, since minute 1: an older playbook stays live
  shop.toml, line 2, timezone: is missing
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

import msgspec

FieldPath = tuple[str | int, ...]
"""Position in a file: field names and list indexes (from 0)."""


class Diagnostic(NamedTuple):
    """One error or warning: file, line (0: none), field and message."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        file, line, field, text = self.to_printable()
        where = [file, f"line {line}" if line else "", field]
        return ", ".join(part for part in where if part) + f": {text}"

    def to_printable(self) -> Self:
        r"""Return a copy without surrogates, which file names can have and terminals reject.

        >>> print(Diagnostic("segments/\udcff.toml", 1, "when", "is missing").to_printable().file)
        segments/\udcff.toml
        """
        return self._replace(
            file=_escape_surrogates(self.file),
            field=_escape_surrogates(self.field),
            message=_escape_surrogates(self.message),
        )


def _escape_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class PlaybookError(ValueError):
    """An invalid playbook, with its errors."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(map(str, self.diagnostics)))


MAX_STORED_ERRORS = 100
"""Errors that are stored; the others are counted."""
MAX_SHOWN_ERRORS = 5
"""Errors that are shown; `attimo check` shows all."""


class PlaybookStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The errors of `folder` since `since` (ms): the first of `error_count` errors.

    `live_hash` is the playbook that stays live; empty if there is none. `live_since` (ms) is 0 if unknown.
    """

    folder: str
    errors: tuple[Diagnostic, ...]
    error_count: int
    since: int
    live_hash: str = ""
    live_since: int = 0

    @classmethod
    def from_errors(
        cls, folder: str, errors: Sequence[Diagnostic], since: int, live_hash: str = "", live_since: int = 0
    ) -> Self:
        """Create the status of a folder; stores at most MAX_STORED_ERRORS errors."""
        kept = tuple(error.to_printable() for error in errors[:MAX_STORED_ERRORS])
        return cls(folder.rstrip("/") or "/", kept, len(errors), since, live_hash, live_since)

    def report_lines(self, format_time: Callable[[int], str]) -> Iterator[str]:
        """Return the report for the marketer; `format_time` formats a time (ms)."""
        count = "1 error" if self.error_count == 1 else f"{self.error_count} errors"
        yield f"{self.folder}/ has {count}, since {format_time(self.since)}: {self.describe_live(format_time)}"
        yield from (f"  {error}" for error in self.errors[:MAX_SHOWN_ERRORS])
        if more := self.error_count - min(MAX_SHOWN_ERRORS, len(self.errors)):
            yield f"  and {more} more: attimo check {self.folder}"

    def describe_live(self, format_time: Callable[[int], str]) -> str:
        """Describe the playbook that stays live."""
        if not self.live_hash:
            return "no playbook is live"
        return (
            f"the playbook of {format_time(self.live_since)}" if self.live_since else "an older playbook"
        ) + " stays live"


encode_status = msgspec.json.Encoder().encode
decode_status = msgspec.json.Decoder(PlaybookStatus).decode
