"""Re-evaluation of all persons after a playbook change, including those who never return.

A shard goes through its persons in the order of their ids, a slice per tick, and stores its progress in
`ShardCheckpoint.reevaluated_to`. A person with an event is re-evaluated just before it. Re-evaluation is an input of
its own, `TimerFired("playbook")`: it changes segments and timers and fires no triggers, so entering a new segment does
not start its campaigns.
"""

from domain.model import Model
from state.playbook.compiled import Rules
from state.store.store import ShardCheckpoint

PERSON_PREFIXES = ("u:", "a:")
"""Id prefixes of human beings; code caches and pool allocators have others (`state/coupons/leasing.py`)."""

PERSONS_PER_TICK = 50
"""Persons re-evaluated per tick: some milliseconds."""


def playbook_stamp(rules: Rules, quintiles: Model | None) -> str:
    """Return what triggers re-evaluation when it changes: the playbook, and the quintiles if the playbook uses them.

    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> rules = compile_rules(Playbook())
    >>> playbook_stamp(rules, None) == rules.short_hash
    True
    """
    settings = rules.shop.rfm
    if quintiles is None or settings is None or not settings.quintiles:
        return rules.short_hash
    return f"{rules.short_hash}+{quintiles.hash[:8]}"


def playbook_of_stamp(stamp: str) -> str:
    """Return the playbook hash of a stamp.

    >>> playbook_of_stamp("9f8e7d6c5b4a+01234567"), playbook_of_stamp("")
    ('9f8e7d6c5b4a', '')
    """
    return stamp.partition("+")[0]


def start_reevaluation(checkpoint: ShardCheckpoint, stamp: str) -> None:
    """Start the re-evaluation if the stamp changed; a shard without data has no one to re-evaluate."""
    if stamp != checkpoint.playbook_stamp:
        checkpoint.reevaluated_to = "" if checkpoint.clock or checkpoint.playbook_stamp else None
        checkpoint.playbook_stamp = stamp
