"""Pools of codes, made ready: which code has which number, how many are leased at a time, whether a code is of a pool.

>>> rule = PoolRule(Pool("winback", size=100_000))
>>> rule.block(64), rule.low(64), PoolRule(Pool("first", size=100)).block(64)
(50, 12, 1)
"""

from hashlib import blake2b
from typing import Final

from domain.codes import Codes
from domain.coupon import Pool
from domain.duration import parse

BLOCK: Final = 50
"""Codes that are leased at a time, of a large pool."""

SHARE: Final = 8
"""A desk is leased at most this part of its even share at a time: little stays behind on desks where nobody comes."""


class PoolRule:
    """A pool made ready. `size` counts its codes, `valid_for` is in ms."""

    __slots__ = ("_codes", "_listed", "_secret", "first_order_only", "name", "not_with", "once", "pool", "size",
                 "valid_for")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.name = pool.name
        self.size = len(pool.codes) or pool.size
        self.valid_for = parse(pool.valid_for)
        self.once = pool.once
        self.first_order_only = pool.first_order_only
        self.not_with = frozenset(pool.not_with)
        self._secret: bytes | None = None
        self._codes = Codes(b"", pool.name, pool.prefix)
        self._listed: frozenset[str] | None = None

    def codes(self, first: int, last: int, secret: bytes) -> list[str]:
        """The codes from number `first` up to, not including, `last`; fewer where the pool ends."""
        if self.pool.codes:
            return list(self.pool.codes[first:last])
        made = self._made(secret)
        return [made.code(number) for number in range(first, min(last, self.size))]

    def mark(self, granted: int, secret: bytes) -> str:
        """Tells whether the first `granted` codes are still what they were."""
        if self.pool.codes:
            return blake2b("\n".join(self.pool.codes[:granted]).encode(), digest_size=8).hexdigest()
        return self._made(secret).mark

    def has(self, code: str, secret: bytes) -> bool:
        """Whether this is a code of the pool, in whatever letters it was typed.

        >>> rule = PoolRule(Pool("old", codes=("Abc-1",)))
        >>> rule.has("abc-1 ", b""), rule.has("abc-2", b"")
        (True, False)
        """
        if self.pool.codes:
            if self._listed is None:
                self._listed = frozenset(map(plain, self.pool.codes))
            return plain(code) in self._listed
        number = self._made(secret).number(plain(code))
        return number is not None and number < self.size

    def block(self, partitions: int) -> int:
        """How many codes a desk is leased at a time."""
        return max(1, min(BLOCK, self.size // (partitions * SHARE)))

    def low(self, partitions: int) -> int:
        """A desk with fewer codes than this asks for more; 0: it asks when somebody wants one (a small pool)."""
        return self.block(partitions) // 4

    def _made(self, secret: bytes) -> Codes:
        if self._secret != secret:
            self._secret, self._codes = secret, Codes(secret, self.name, self.pool.prefix)
        return self._codes


def plain(code: str) -> str:
    """A code as it is compared: without blanks around it, in capitals.

    >>> plain(" back-x3 ")
    'BACK-X3'
    """
    return code.strip().upper()
