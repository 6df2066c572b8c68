"""Codes: a pool's made-up codes, one for each number, without a list of them anywhere.

The number is put through a permutation that only the shop's secret knows (a Feistel network: halves are swapped and
mixed, so it can be undone and no two numbers meet), and what comes out is written in letters nobody confuses. So two
numbers never share a code, a code says which number it is, and who knows some codes cannot guess another.

>>> codes = Codes(b"a secret", "winback", "BACK-")
>>> codes.code(0), codes.code(1), codes.number(codes.code(1))
('BACK-X37RPR9Q6J', 'BACK-G3F7QPF6MX', 1)
"""

import hmac
from hashlib import blake2b
from typing import Final

ALPHABET: Final = "34679ACDEFGHJKMNPQRTWXY"
"""No letter or digit that is taken for another: neither 0 O, 1 I L, 2 Z, 5 S, 8 B nor U V."""

LENGTH: Final = 10
"""Letters of a code, after its prefix: 41 million million codes, of which a pool has ten million at most."""

_HALF: Final[int] = len(ALPHABET) ** (LENGTH // 2)
_ROUNDS: Final = tuple(bytes((turn,)) for turn in range(8))
_VALUE = {letter: n for n, letter in enumerate(ALPHABET)}
_PAIRS = tuple(one + other for one in ALPHABET for other in ALPHABET)
_WIDE: Final = len(_PAIRS)


class Codes:
    """The codes of one pool. `mark` is the same as long as they are: another secret, name or prefix changes it."""

    __slots__ = ("_keyed", "mark", "prefix")

    def __init__(self, secret: bytes, pool: str, prefix: str) -> None:
        key = hmac.digest(secret, b"coupons\0" + pool.encode(), "sha256")
        self._keyed = blake2b(key=key, digest_size=8)  # taking the key in is half the work, and a copy has it in
        self.prefix = prefix
        self.mark = blake2b(prefix.encode(), key=key, digest_size=8).hexdigest()

    def code(self, number: int) -> str:
        """The code of a number from 0 on."""
        left, right = divmod(number, _HALF)
        for turn in _ROUNDS:
            left, right = right, (left + self._mixed(turn, right)) % _HALF
        return self.prefix + _letters(left) + _letters(right)

    def number(self, code: str) -> int | None:
        """Whose number this code is, whether it is of the pool's size or not; None when it cannot be one of these.

        >>> Codes(b"s", "p", "").number("no such code")
        """
        if not code.startswith(self.prefix) or len(code) != len(self.prefix) + LENGTH:
            return None
        whole = 0
        for letter in code[len(self.prefix):]:
            value = _VALUE.get(letter)
            if value is None:
                return None
            whole = whole * len(ALPHABET) + value
        left, right = divmod(whole, _HALF)
        for turn in reversed(_ROUNDS):
            left, right = (right - self._mixed(turn, left)) % _HALF, left
        return left * _HALF + right

    def _mixed(self, turn: bytes, half: int) -> int:
        said = self._keyed.copy()
        said.update(half.to_bytes(4, "big") + turn)
        return int.from_bytes(said.digest(), "big") % _HALF


def _letters(half: int) -> str:
    rest, last = divmod(half, len(ALPHABET))
    first, second = divmod(rest, _WIDE)
    return _PAIRS[first] + _PAIRS[second] + ALPHABET[last]
