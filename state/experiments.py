"""Experiments: which side of a campaign a person is on. The same one every time, on every device.

    held out of everything (shop.holdout) ─▶ held out of this campaign (holdout) ─▶ one of its variants, by their shares

A side is drawn by a hash of the campaign's name and the person's id, so it is the same wherever it is drawn. What was
drawn is kept with the person, with its share, and moves along on login: what the known person had wins, else what the
browser had. So shares that change later are for people who have no side yet; a side that is not there any more is drawn
anew. `propensity` is the share of the side as it was drawn, holdouts included: the shares of all sides add up to 1.
"""

from hashlib import blake2b
from typing import NamedTuple

from domain.action import Because
from state.person import MAX_ASSIGNED, Person
from state.rules import SERVICE, CampaignRule, Rules

HOLDOUT = "holdout"
GLOBAL_HOLDOUT = "global_holdout"
HELD_OUT = frozenset((HOLDOUT, GLOBAL_HOLDOUT))
EVERYTHING = "*"
"""In the place of a campaign's name: the holdout of the whole shop."""

SALT = "attimo"
_SPACE = float(1 << 64)


CERTAIN = Because().propensity
"""1.0: the very object that is the default there, so that it is not written out."""


class Side(NamedTuple):
    """The variant ("" where there is no experiment) and its share; `held_out` is a reason to hold, or empty."""

    variant: str = ""
    propensity: float = CERTAIN
    held_out: str = ""


NOBODY = Side()
"""Of a campaign without an experiment."""


def side_of(person: Person, rule: CampaignRule, rules: Rules) -> Side:
    """The side of this campaign that the person is on; drawn and kept if they had none.

    >>> from domain.campaign import Campaign, Content, Trigger, Variant, Words
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> halves = Campaign("c", "popup", Trigger(exit_intent=True), Content(Words()), holdout=0.2,
    ...                   variants={"a": Variant(), "b": Variant(3.0)})
    >>> rules, person = compile_rules(Playbook(campaigns=(halves,))), Person("a:z")
    >>> side_of(person, rules.campaigns["c"], rules).variant, person.assigned
    ('b', {'c': 'b 0.6'})
    """
    everything = rules.shop.holdout if rule.purpose != SERVICE else 0.0
    if not everything and not rule.sides:
        return NOBODY
    shown = CERTAIN
    if everything:
        side, shown = _drawn(person, EVERYTHING, ((HOLDOUT, everything), ("in", 1.0 - everything)))
        if side == HOLDOUT:
            return Side(HOLDOUT, _both(person, rule, shown), GLOBAL_HOLDOUT)
    if not rule.sides:
        return Side("", shown)
    side, share = _drawn(person, rule.name, rule.sides)
    if side == HOLDOUT:
        return Side(HOLDOUT, 1.0 - shown + shown * share if everything else share, HOLDOUT)
    return Side(side, shown * share)


def assigned(person: Person, campaign: str) -> str:
    """The side a person was found to be on; "" when that was never asked."""
    return person.assigned.get(campaign, "").rpartition(" ")[0]


def chance(person: str, campaign: str) -> float:
    """A number in [0, 1) that is a person's own in this campaign, and nothing else's.

    >>> round(chance("a:x", "c"), 4), chance("a:x", "c") == chance("a:x", "d")
    (0.0825, False)
    """
    seed = f"{campaign}\0{SALT}\0{person}".encode()
    return int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") / _SPACE


def join(person: Person, sides: dict[str, str]) -> None:
    """Take over the sides that another id of this person was on, where they have none of their own."""
    for campaign, side in sides.items():
        person.assigned.setdefault(campaign, side)
    while len(person.assigned) > MAX_ASSIGNED:
        del person.assigned[next(iter(person.assigned))]


def _both(person: Person, rule: CampaignRule, share: float) -> float:
    """The share of people who do not get this campaign, whichever holdout keeps them from it."""
    own = dict(rule.sides).get(HOLDOUT, 0.0)
    return share + (1.0 - share) * own


def _drawn(person: Person, name: str, sides: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """The side kept under this name, with its share; else one drawn by the shares, and kept."""
    kept = person.assigned.get(name)
    if kept is not None:
        had, _, as_drawn = kept.rpartition(" ")
        if any(had == one for one, _ in sides):
            return had, float(as_drawn)
    where = chance(person.id, name)
    chosen = sides[-1]
    for one in sides:
        where -= one[1]
        if where < 0:
            chosen = one
            break
    side, share = chosen
    if kept is None and len(person.assigned) >= MAX_ASSIGNED:
        del person.assigned[next(iter(person.assigned))]
    person.assigned[name] = f"{side} {share:.9g}"
    return side, share
