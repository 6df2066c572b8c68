"""Pools of codes, made ready: which code has which number, how many are leased at a time, whether a code is of a pool.

>>> rule = PoolRule(CouponPool("winback", size=100_000))
>>> rule.lease_size(64), rule.low_watermark(64), PoolRule(CouponPool("first", size=100)).lease_size(64)
(50, 12, 1)
"""

from hashlib import blake2b
from typing import Final

from domain.duration import parse_duration
from domain.playbook.coupon import CodeGenerator, CouponPool

MAX_LEASE_SIZE: Final = 50
"""Maximum number of codes per lease of a large pool."""

SHARE_DIVISOR: Final = 8
"""A desk is leased at most this part of its even share at a time: little stays behind on desks where nobody comes."""


class PoolRule:
    """A compiled coupon pool. `size` counts its codes, `valid_for` is in ms."""

    __slots__ = (
        "_generator",
        "_listed_codes",
        "_secret",
        "first_order_only",
        "name",
        "not_with",
        "once",
        "pool",
        "size",
        "valid_for",
    )

    def __init__(self, pool: CouponPool) -> None:
        self.pool = pool
        self.name = pool.name
        self.size = len(pool.codes) or pool.size
        self.valid_for = parse_duration(pool.valid_for)
        self.once = pool.once_per_person
        self.first_order_only = pool.first_order_only
        self.not_with = frozenset(pool.not_combinable_with)
        self._secret: bytes | None = None
        self._generator = CodeGenerator(b"", pool.name, pool.prefix)
        self._listed_codes: frozenset[str] | None = None

    def codes(self, first: int, last: int, secret: bytes) -> list[str]:
        """Return the codes from `first` up to, not including, `last`; fewer at the end of the pool."""
        if self.pool.codes:
            return list(self.pool.codes[first:last])
        made = self._get_generator(secret)
        return [made.code(number) for number in range(first, min(last, self.size))]

    def checksum(self, granted: int, secret: bytes) -> str:
        """Return a hash that changes if any of the first `granted` codes changes."""
        if self.pool.codes:
            return blake2b("\n".join(self.pool.codes[:granted]).encode(), digest_size=8).hexdigest()
        return self._get_generator(secret).fingerprint

    def contains(self, code: str, secret: bytes) -> bool:
        """Return whether this is a code of the pool, ignoring case.

        >>> rule = PoolRule(CouponPool("old", codes=("Abc-1",)))
        >>> rule.contains("abc-1 ", b""), rule.contains("abc-2", b"")
        (True, False)
        """
        if self.pool.codes:
            if self._listed_codes is None:
                self._listed_codes = frozenset(map(normalize_code, self.pool.codes))
            return normalize_code(code) in self._listed_codes
        number = self._get_generator(secret).number(normalize_code(code))
        return number is not None and number < self.size

    def lease_size(self, partitions: int) -> int:
        """Return the number of codes per lease of a code cache."""
        return max(1, min(MAX_LEASE_SIZE, self.size // (partitions * SHARE_DIVISOR)))

    def low_watermark(self, partitions: int) -> int:
        """A desk with fewer codes than this asks for more; 0: it asks when somebody wants one (a small pool)."""
        return self.lease_size(partitions) // 4

    def _get_generator(self, secret: bytes) -> CodeGenerator:
        if self._secret != secret:
            self._secret, self._generator = secret, CodeGenerator(secret, self.name, self.pool.prefix)
        return self._generator


def normalize_code(code: str) -> str:
    """Normalize a code for comparison: strip it and convert it to upper case.

    >>> normalize_code(" back-x3 ")
    'BACK-X3'
    """
    return code.strip().upper()
