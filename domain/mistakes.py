"""Mistakes: what keeps the playbook folder from going live, since when, and which older playbook stays live meanwhile.

>>> mistakes = Mistakes.of("shop", [Problem("shop.toml", 2, "timezone", "is missing")], since=60_000, live="5d2f9ac0")
>>> for line in mistakes.lines(lambda at: f"minute {at // 60_000}"):
...     print(line)
shop/ has 1 mistake, since minute 1: an older playbook stays live
  shop.toml, line 2, timezone: is missing
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Self

import msgspec

from domain.problem import Problem

KEPT = 100
"""Problems that are kept; the others are counted."""
SHOWN = 5
"""Problems that are shown at once; `attimo check` says them all."""


class Mistakes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with `folder` since `since` (ms): the first of `count` problems.

    `live` is the version of the playbook that stays live, and `live_since` (ms) when it went live, 0 where that is not
    known; without `live` there never was one.
    """

    folder: str
    problems: tuple[Problem, ...]
    count: int
    since: int
    live: str = ""
    live_since: int = 0

    @classmethod
    def of(cls, folder: str, problems: Sequence[Problem], since: int, live: str = "", live_since: int = 0) -> Self:
        """The mistakes of a folder, however many there are."""
        kept = tuple(problem.tellable() for problem in problems[:KEPT])
        return cls(folder.rstrip("/") or "/", kept, len(problems), since, live, live_since)

    def lines(self, when: Callable[[int], str]) -> Iterator[str]:
        """What to tell the marketer; `when` says a time (ms) in words."""
        some = "1 mistake" if self.count == 1 else f"{self.count} mistakes"
        yield f"{self.folder}/ has {some}, since {when(self.since)}: {self.meanwhile(when)}"
        yield from (f"  {problem}" for problem in self.problems[:SHOWN])
        if more := self.count - min(SHOWN, len(self.problems)):
            yield f"  and {more} more: attimo check {self.folder}"

    def meanwhile(self, when: Callable[[int], str]) -> str:
        """What is live instead."""
        if not self.live:
            return "nothing is decided, for no playbook was live before"
        return (f"the playbook of {when(self.live_since)}" if self.live_since else "an older playbook") + " stays live"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Mistakes).decode
