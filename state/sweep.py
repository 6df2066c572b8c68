"""Sweep: when the playbook has changed, everybody is looked at again, also those who never come back.

A shard goes through its persons in the order of their ids, a slice with each tick, and keeps its place in
`Head.sweep`. Whoever has an event first is looked at just before it. Being looked at again is a happening of its own,
`Due("playbook")`: segments are entered and left by it, and timers set, but it is no occasion for anything: who belongs
to a segment that was just written is not greeted as if they had done something.
"""

from domain.model import Model
from state.rules import Rules
from state.store import Head

PEOPLE_KEYS = ("u:", "a:")
"""How the ids of human beings begin; desks and homes of coupons are none (`state/desk.py`)."""

SWEPT = 50
"""Persons that are looked at with one tick: some milliseconds."""


def stamp_of(rules: Rules, quintiles: Model | None) -> str:
    """What people must be looked at again for when it changes: the playbook, and the population's cuts if it uses them.

    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> rules = compile_rules(Playbook())
    >>> stamp_of(rules, None) == rules.short
    True
    """
    cuts = rules.shop.rfm
    if quintiles is None or cuts is None or not cuts.learned:
        return rules.short
    return f"{rules.short}+{quintiles.hash[:8]}"


def short_of(stamp: str) -> str:
    """The playbook of a stamp.

    >>> short_of("9f8e7d6c5b4a+01234567"), short_of("")
    ('9f8e7d6c5b4a', '')
    """
    return stamp.partition("+")[0]


def turn_to(head: Head, stamp: str) -> None:
    """Begin to look at everybody again when the stamp is another one; a shard that has read nothing has nobody."""
    if stamp != head.rules:
        head.sweep = "" if head.clock or head.rules else None
        head.rules = stamp
