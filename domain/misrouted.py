"""Misrouted: when too many records lie in another partition than their key's, and what is said of it.

>>> problem(40, 0.04)[:40], problem(FEW - 1, 0.5), problem(400, TOLERATED)
('4 % of the records of the public streams', '', '')
"""

from typing import Final

FEW: Final = 20
"""Misrouted records of which nothing is said yet."""
TOLERATED: Final = 0.01
"""The share of them of which nothing is said."""


def problem(wrong: float, share: float) -> str:
    """What is wrong and what to do, where `wrong` records were misrouted, a `share` (0 to 1) of the latest; or ""."""
    if wrong < FEW or not share > TOLERATED:
        return ""
    return (f"{100 * share:.0f} % of the records of the public streams lie in the wrong partition and are forwarded: "
            "set partitioner=murmur2_random in the producer")
