"""Access: statements that can be looked up, so that a condition is asked only of people of whom they are true.

    country is one of ("CA",)     looked up in a table by the person's country
    pages is at least 3           looked up in a row of numbers
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from state.person import Facts, Person

Read = Callable[[Person, Facts], Any]


class Access(NamedTuple):
    """One statement that can be looked up. `read` gives what the person has.

    | `kind` | it is true when |
    |---|---|
    | one | that value is among `values` |
    | many | one of those values is |
    | part | one of `values` is a part of that text |
    | least | that number is `least` or more (None: there is none) |

    `about` is the same for statements about the same thing; `share` is a guess of the share of people of whom such a
    statement is true.
    """

    kind: str
    about: str
    read: Read
    share: float
    values: tuple[Any, ...] = ()
    least: float = 0


def equals(about: str, values: Iterable[Any], read: Read, share: float) -> Access:
    """What they have is one of these."""
    return Access("one", about, read, share, tuple(dict.fromkeys(values)))


def includes(about: str, values: Iterable[Any], read: Read, share: float) -> Access:
    """One of those that they have is one of these."""
    return Access("many", about, read, share, tuple(dict.fromkeys(values)))


def reaches(about: str, least: float, read: Read, share: float = 0.3) -> Access:
    """The number that they have is this or more."""
    return Access("least", about, read, share, least=least)


def contains(about: str, values: Iterable[str], read: Read, share: float) -> Access:
    """The text that they have contains one of these."""
    return Access("part", about, read, share, tuple(dict.fromkeys(values)))
