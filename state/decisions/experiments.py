"""Experiments: assign a person to a variant or a control group, the same on every device.

    global holdout (shop.holdout) ─▶ campaign holdout ─▶ one of the variants, by weight

The assignment is a hash of the campaign name and the person id. It is stored with its propensity and moves along on
login: the assignment of the known person wins. New weights apply only to people without an assignment. If a variant is
removed, its people are assigned again. The propensities of all variants and holdouts add up to 1.
"""

from hashlib import blake2b
from typing import NamedTuple

from domain.action import Explanation
from state.person.model import MAX_ASSIGNMENTS, Person
from state.playbook.campaign import CampaignRule
from state.playbook.compiled import SERVICE, Rules

HOLDOUT = "holdout"
GLOBAL_HOLDOUT = "global_holdout"
HOLDOUT_REASONS = frozenset((HOLDOUT, GLOBAL_HOLDOUT))
SHOP_WIDE = "*"
"""Name of the shop-wide holdout, used in place of a campaign name."""

SALT = "attimo"
_HASH_RANGE = float(1 << 64)


DEFAULT_PROPENSITY = Explanation().propensity
"""1.0: the very object that is the default there, so that it is not written out."""


class Assignment(NamedTuple):
    """The variant ("" where there is no experiment) and its share; `held_out` is a reason to hold, or empty."""

    variant: str = ""
    propensity: float = DEFAULT_PROPENSITY
    holdout_reason: str = ""


NO_EXPERIMENT = Assignment()
"""Assignment for a campaign without an experiment."""


def assign(person: Person, rule: CampaignRule, rules: Rules) -> Assignment:
    """Return the person's assignment in this campaign; draw and store one if there is none.

    >>> from domain.playbook.trigger import Trigger
    >>> from domain.playbook.campaign import Campaign, Creative, Variant, Copy
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> halves = Campaign("c", "popup", Trigger(exit_intent=True), Creative(Copy()), holdout=0.2,
    ...                   variants={"a": Variant(), "b": Variant(3.0)})
    >>> rules, person = compile_rules(Playbook(campaigns=(halves,))), Person("a:z")
    >>> assign(person, rules.campaigns["c"], rules).variant, person.assignments
    ('b', {'c': 'b 0.6'})
    """
    everything = rules.shop.holdout if rule.purpose != SERVICE else 0.0
    if not everything and not rule.variant_shares:
        return NO_EXPERIMENT
    shown = DEFAULT_PROPENSITY
    if everything:
        side, shown = _assign_variant(person, SHOP_WIDE, ((HOLDOUT, everything), ("in", 1.0 - everything)))
        if side == HOLDOUT:
            return Assignment(HOLDOUT, _holdout_share(person, rule, shown), GLOBAL_HOLDOUT)
    if not rule.variant_shares:
        return Assignment("", shown)
    side, share = _assign_variant(person, rule.name, rule.variant_shares)
    if side == HOLDOUT:
        return Assignment(HOLDOUT, 1.0 - shown + shown * share if everything else share, HOLDOUT)
    return Assignment(side, shown * share)


def assigned_variant(person: Person, campaign: str) -> str:
    """Return the assigned variant; "" without an assignment."""
    return person.assignments.get(campaign, "").rpartition(" ")[0]


def unit_hash(person: str, campaign: str) -> float:
    """Return a hash in [0, 1) of the person and the campaign.

    >>> round(unit_hash("a:x", "c"), 4), unit_hash("a:x", "c") == unit_hash("a:x", "d")
    (0.0825, False)
    """
    seed = f"{campaign}\0{SALT}\0{person}".encode()
    return int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") / _HASH_RANGE


def merge(person: Person, assignments: dict[str, str]) -> None:
    """Merge the assignments of another id of this person; existing ones win."""
    for campaign, side in assignments.items():
        person.assignments.setdefault(campaign, side)
    while len(person.assignments) > MAX_ASSIGNMENTS:
        del person.assignments[next(iter(person.assignments))]


def _holdout_share(person: Person, rule: CampaignRule, share: float) -> float:
    """The share of people who do not get this campaign, whichever holdout keeps them from it."""
    own = dict(rule.variant_shares).get(HOLDOUT, 0.0)
    return share + (1.0 - share) * own


def _assign_variant(person: Person, name: str, shares: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """Return the stored assignment with its share; draw and store one if there is none."""
    kept = person.assignments.get(name)
    if kept is not None:
        had, _, as_drawn = kept.rpartition(" ")
        if any(had == one for one, _ in shares):
            return had, float(as_drawn)
    where = unit_hash(person.id, name)
    chosen = shares[-1]
    for one in shares:
        where -= one[1]
        if where < 0:
            chosen = one
            break
    side, share = chosen
    if kept is None and len(person.assignments) >= MAX_ASSIGNMENTS:
        del person.assignments[next(iter(person.assignments))]
    person.assignments[name] = f"{side} {share:.9g}"
    return side, share
