"""The RFM cell of a customer, and the outcomes from which the quintiles learn.

    profile, thresholds, now ──▶ person.rfm "543", segments rfm_543 and rfm_champions, timer "rfm:" at the next drop
                            └──▶ outcome of kind "rfm" if the thresholds are learned: the old and the new snapshot

`person.population_snapshot` is this customer as counted in the population, so that no one is counted twice. When an id
merges into another person, it first reports its removal; the other person then reports all orders. Each id reports only
its own changes, in order, so the learner may read the shards in any order.
"""

from collections.abc import Sequence

from domain.action import Explanation, Outcome, SegmentChange
from domain.playbook.shop import rfm_group
from state.context import Input, StepContext, trigger_name
from state.membership.static_segments import change_membership
from state.person.model import Person, PopulationSnapshot, ProfileFragment
from state.playbook import rfm
from state.playbook.rfm import RfmThresholds

RFM_TIMER = "rfm:"
RFM_PREFIX = "rfm_"

_learned_thresholds: tuple[object, RfmThresholds | None] = (None, None)


def live_thresholds(context: StepContext) -> RfmThresholds | None:
    """Return the learned thresholds if the shop uses them and they exist, else the shop's own."""
    global _learned_thresholds
    declared = context.rules.rfm_thresholds
    if declared is None or context.quintiles is None or not declared.learned:
        return declared
    if _learned_thresholds[0] is not context.quintiles:
        _learned_thresholds = (context.quintiles, rfm.learned_thresholds(context.quintiles))
    return _learned_thresholds[1]


def update_rfm(
    person: Person, profile: ProfileFragment, event: Input, context: StepContext
) -> Sequence[SegmentChange | Outcome]:
    """Update the RFM cell; return the segment changes and outcomes.

    `person.derived.quintiles` holds the learned model that was used.

    >>> from domain.playbook.playbook import Playbook
    >>> from domain.playbook.shop import RfmSettings, Shop
    >>> from state.context import TimerFired
    >>> from state.playbook.compiled import compile_rules
    >>> day = 86_400_000
    >>> context = StepContext(0, compile_rules(Playbook(Shop(rfm=RfmSettings()))))
    >>> context.start_input("purchases-0-1", 100 * day, 100 * day)
    >>> profile = ProfileFragment(order_count=3, revenue=9_000, last_order_at=99 * day)
    >>> person = Person(id="u:ann", fragments={"u:ann": profile})
    >>> [move.segment for move in update_rfm(person, profile, TimerFired("again", "", 0), context)]
    ['rfm_532', 'rfm_loyal']
    >>> person.rfm, person.timers["rfm:"] // day
    ('532', 129)
    """
    thresholds = live_thresholds(context)
    person.derived.quintiles = context.quintiles
    outcomes = publish_change(person, profile, context)
    cell = rfm.rfm_cell(profile, thresholds, context.now) if thresholds is not None else ""
    due = rfm.next_recency_drop(profile, thresholds, context.now) if thresholds is not None else None
    if due is not None:
        person.timers[RFM_TIMER] = due
    else:
        person.timers.pop(RFM_TIMER, None)
    if cell == person.rfm:
        return outcomes
    before, person.rfm = person.rfm, cell
    old_names, new_names = _segment_names(before), _segment_names(cell)
    because = Explanation(
        trigger=trigger_name(event),
        passed=(f"RFM {cell}, previously {before}" if cell and before else f"RFM {cell or 'none: no orders'}",),
        playbook=context.rules.short_hash,
        model=context.quintiles.hash if context.quintiles is not None else "",
    )
    changes = [change_membership(person, name, False, context, because) for name in old_names if name not in new_names]
    changes += [change_membership(person, name, True, context, because) for name in new_names if name not in old_names]
    return [*changes, *outcomes]


def in_rfm_segment(name: str, person: Person) -> bool:
    """Return whether the segment is the person's RFM cell or its group.

    >>> in_rfm_segment("rfm_champions", Person(id="u:ann", rfm="555")), in_rfm_segment("rfm_lost", Person(id="a:x"))
    (True, False)
    """
    return bool(person.rfm) and name in _segment_names(person.rfm)


def _segment_names(cell: str) -> tuple[str, ...]:
    return (RFM_PREFIX + cell, RFM_PREFIX + rfm_group(cell)) if cell else ()


def publish_change(person: Person, profile: ProfileFragment | None, context: StepContext) -> Sequence[Outcome]:
    """Return the outcome that replaces this customer's snapshot in the population; none if nothing changed.

    `profile` is None for a person who merged into another one.
    """
    declared, new = context.rules.rfm_thresholds, None
    if declared is not None and declared.learned and profile is not None and profile.order_count > 0:
        new = PopulationSnapshot(profile.last_order_at, profile.order_count, profile.revenue)
    old = person.population_snapshot
    if old == new:
        return ()
    person.population_snapshot = new
    features = {**_features("old_", old or PopulationSnapshot()), **_features("new_", new or PopulationSnapshot())}
    return (
        Outcome(
            kind=rfm.MODEL_KIND,
            id=context.next_effect_id("rfm"),
            person=person.id,
            at=context.now,
            features_at=context.now,
            label=True,
            features=features,
        ),
    )


def _features(prefix: str, snapshot: PopulationSnapshot) -> dict[str, float]:
    return {
        prefix + "last_order_at": float(snapshot.last_order_at),
        prefix + "order_count": float(snapshot.order_count),
        prefix + "revenue": float(snapshot.revenue),
    }
