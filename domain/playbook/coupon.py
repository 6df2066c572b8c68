"""Coupons: pools of codes, and the generator of their codes. A code is reserved when offered and redeemed by an order.

>>> pool = msgspec.convert({"name": "winback", "percent": 10}, CouponPool)
>>> pool.size, pool.valid_for
(100000, '14d')

Generated codes are not stored. A Feistel network, keyed with the shop's secret, maps each number to a code and back.
Two numbers never share a code, and known codes do not reveal others.

>>> codes = CodeGenerator(b"a secret", "winback", "BACK-")
>>> codes.code(0), codes.code(1), codes.number(codes.code(1))
('BACK-X37RPR9Q6J', 'BACK-G3F7QPF6MX', 1)
"""

import hmac
from hashlib import blake2b
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from domain.duration import Duration
from domain.playbook.condition import Amount, Text
from domain.playbook.trigger import Name

CouponCode = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[!-~]+$",
        description='letters, digits and signs, without spaces or accents, such as "SPRING-7"',
    ),
]
CodePrefix = Annotated[
    str, Meta(max_length=16, pattern=r"^[A-Z0-9-]*$", description='capital letters, digits and -, such as "SPRING-"')
]
MAX_LISTED_CODES = 100_000


DEFAULT_POOL_SIZE = 100_000
"""Default number of generated codes."""


class CouponPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pool of coupon codes, each for one person. Codes are generated, or listed in `codes/NAME.txt`."""

    name: Name
    description: Annotated[str, Meta(max_length=2_000, description="a note for your team")] = ""
    percent: Annotated[Annotated[float, Meta(gt=0, le=100)] | None, Meta(description="the discount in percent")] = None
    amount: Annotated[Amount | None, Meta(description="or the discount as an amount, in the shop's currency")] = None
    free_shipping: Annotated[bool, Meta(description="or free shipping")] = False
    min_value: Annotated[Amount | None, Meta(description="only for carts worth at least this")] = None
    products: Annotated[
        tuple[Text, ...], Meta(max_length=1_000, description="only for these products (product_id)")
    ] = ()
    prefix: Annotated[CodePrefix, Meta(description="the prefix of generated codes: capital letters, digits and -")] = ""
    size: Annotated[Annotated[int, Meta(ge=1, le=10_000_000)], Meta(description="the number of generated codes")] = (
        DEFAULT_POOL_SIZE
    )
    codes: Annotated[
        tuple[CouponCode, ...],
        Meta(
            max_length=MAX_LISTED_CODES, description="the codes, if they are not generated (read from codes/NAME.txt)"
        ),
    ] = ()
    valid_for: Annotated[Duration, Meta(description="how long a code is valid after it was reserved")] = "14d"
    once_per_person: Annotated[bool, Meta(description="a person gets only one coupon of this pool")] = True
    first_order_only: Annotated[bool, Meta(description="only for people without orders")] = False
    not_combinable_with: Annotated[
        tuple[Name, ...], Meta(max_length=50, description="not for people who hold or used a coupon of these pools")
    ] = ()


CODE_ALPHABET: Final = "34679ACDEFGHJKMNPQRTWXY"
"""Letters and digits that cannot be confused: without 0 O, 1 I L, 2 Z, 5 S, 8 B, U V."""

CODE_LENGTH: Final = 10
"""Characters after the prefix: 41 trillion codes, of which a pool has at most 10 million."""

_HALF_RANGE: Final[int] = len(CODE_ALPHABET) ** (CODE_LENGTH // 2)
_ROUND_KEYS: Final = tuple(bytes((turn,)) for turn in range(8))
_LETTER_VALUES = {letter: n for n, letter in enumerate(CODE_ALPHABET)}
_LETTER_PAIRS = tuple(one + other for one in CODE_ALPHABET for other in CODE_ALPHABET)
_PAIR_BASE: Final = len(_LETTER_PAIRS)


class CodeGenerator:
    """The codes of one pool. `fingerprint` changes with the secret, the name and the prefix."""

    __slots__ = ("_keyed_hash", "fingerprint", "prefix")

    def __init__(self, secret: bytes, pool: str, prefix: str) -> None:
        key = hmac.digest(secret, b"coupons\0" + pool.encode(), "sha256")
        self._keyed_hash = blake2b(key=key, digest_size=8)  # keyed once: each code uses a copy
        self.prefix = prefix
        self.fingerprint = blake2b(prefix.encode(), key=key, digest_size=8).hexdigest()

    def code(self, number: int) -> str:
        """Return the code of a number (from 0)."""
        left, right = divmod(number, _HALF_RANGE)
        for turn in _ROUND_KEYS:
            left, right = right, (left + self._round_function(turn, right)) % _HALF_RANGE
        return self.prefix + _encode_half(left) + _encode_half(right)

    def number(self, code: str) -> int | None:
        """Return the number of a code, or None if it cannot be a code of this pool. The pool size is not checked.

        >>> CodeGenerator(b"s", "p", "").number("no such code")
        """
        if not code.startswith(self.prefix) or len(code) != len(self.prefix) + CODE_LENGTH:
            return None
        whole = 0
        for letter in code[len(self.prefix) :]:
            value = _LETTER_VALUES.get(letter)
            if value is None:
                return None
            whole = whole * len(CODE_ALPHABET) + value
        left, right = divmod(whole, _HALF_RANGE)
        for turn in reversed(_ROUND_KEYS):
            left, right = (right - self._round_function(turn, left)) % _HALF_RANGE, left
        return left * _HALF_RANGE + right

    def _round_function(self, round_key: bytes, half: int) -> int:
        digest = self._keyed_hash.copy()
        digest.update(half.to_bytes(4, "big") + round_key)
        return int.from_bytes(digest.digest(), "big") % _HALF_RANGE


def _encode_half(half: int) -> str:
    rest, last = divmod(half, len(CODE_ALPHABET))
    first, second = divmod(rest, _PAIR_BASE)
    return _LETTER_PAIRS[first] + _LETTER_PAIRS[second] + CODE_ALPHABET[last]
