"""The audience: which campaigns hold right now, of those that are watched between their occasions.

Exit offers are armed ahead and seconds on the site come without an event, so their audiences are followed all the time;
only what a happening (or time) can have changed is asked again.
"""

from typing import NamedTuple

from state.conditions import STABLE
from state.context import Context
from state.person import Facts, Person
from state.rules import Rules


class Audience(NamedTuple):
    """Which of the watched campaigns hold now (a mask by rank), and until when time alone leaves that so (ms).

    `asleep` has a mask for each need of STABLE: campaigns that cannot hold until that changes.
    """

    rules: Rules
    mask: int
    exit_until: int
    seconds_until: int
    asleep: tuple[int, ...]


NEVER = 1 << 62
_AWAKE = (0,) * len(STABLE)


def audience_of(person: Person, facts: Facts, context: Context) -> Audience:
    """Ask the watched campaigns again whose audience this happening, or time, can have changed.

    The answers are kept with the person while they are hot; without them everything is asked again, to the same end.
    """
    rules, now = context.rules, context.now
    kept: Audience | None = person.__dict__.get("audience")
    if kept is None or kept.rules is not rules or context.changed is None:
        mask, todo, exit_until, seconds_until, slept = 0, rules.watched, NEVER, NEVER, _AWAKE
    else:
        _, mask, exit_until, seconds_until, slept = kept
        todo = rules.audience_index.affected(context.changed)
        if now >= exit_until:
            todo |= rules.exit_timed
            exit_until = NEVER
        if now >= seconds_until:
            todo |= rules.seconds_timed
            seconds_until = NEVER
        if not todo:
            return kept
        for need, sleeping in zip(STABLE, slept, strict=True):
            if sleeping and need not in context.changed:
                todo &= ~sleeping
    asleep = [sleeping & ~todo for sleeping in slept]
    while todo:
        low = todo & -todo
        todo ^= low
        rule = rules.ranked[low.bit_length() - 1]
        if rule.holds(person, facts, now):
            mask |= low
        else:
            mask &= ~low
            for which, test in rule.stable:
                if not test(person, facts, now):
                    asleep[which] |= low
                    break
        if rule.timed:
            change = rule.next_change(person, facts, now)
            if change is not None:
                if rule.seconds:
                    seconds_until = min(seconds_until, change)
                else:
                    exit_until = min(exit_until, change)
    person.__dict__["audience"] = found = Audience(rules, mask, exit_until, seconds_until, tuple(asleep))
    return found


def lost(person: Person) -> None:
    """Nobody follows this person's audiences just now, so what changes meanwhile is not noted: ask anew afterwards."""
    person.__dict__.pop("audience", None)
