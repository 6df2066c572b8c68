"""Customers: where one stands by recency, frequency and money; and what the population is told of it.

    facts, cuts, now ──▶ person.rfm "543", segments rfm_543 and rfm_champions, timer "rfm:" at the next fall
                   └───▶ an outcome of kind "rfm" when the cuts are learned: what this customer was, what they are now

`person.counted` is what the population knows of them, so that nobody is ever counted twice: who turns out to be another
person says so and is gone, before that other one is told of with all their orders. Each says only what they were
themselves, in the order in which it was so: the learner may read the shards of a shop in any order.
"""

from collections.abc import Sequence

from domain.action import Because, Move
from domain.outcome import Outcome
from domain.rfm_groups import group_of
from state import rfm
from state.context import Context, Happening, occasion_of
from state.person import Counted, Facts, Person
from state.rfm import Cuts
from state.tags import move

RFM_TIMER = "rfm:"
PREFIX = "rfm_"

_live: tuple[object, Cuts | None] = (None, None)


def cuts_in(context: Context) -> Cuts | None:
    """The cuts that count now: the learned ones where the shop wants them and there are any, else its own."""
    global _live
    declared = context.rules.rfm
    if declared is None or context.quintiles is None or not declared.learned:
        return declared
    if _live[0] is not context.quintiles:
        _live = (context.quintiles, rfm.learned_cuts(context.quintiles))
    return _live[1]


def stand(person: Person, facts: Facts, event: Happening, context: Context) -> Sequence[Move | Outcome]:
    """Find the cell again, because orders, cuts or time can have moved it; the moves, and what the population is told.

    `person.__dict__["cuts"]` holds the learned model that was asked (only while they are hot).

    >>> from domain.playbook import Playbook
    >>> from domain.shop import RfmCuts, Shop
    >>> from state.context import Due
    >>> from state.rules import compile_rules
    >>> day = 86_400_000
    >>> context = Context(0, compile_rules(Playbook(Shop(rfm=RfmCuts()))))
    >>> context.begin("purchases-0-1", 100 * day, 100 * day)
    >>> facts = Facts(order_count=3, revenue=9_000, last_order_at=99 * day)
    >>> person = Person(id="u:ann", facets={"u:ann": facts})
    >>> [move.segment for move in stand(person, facts, Due("again", "", 0), context)]
    ['rfm_532', 'rfm_loyal']
    >>> person.rfm, person.timers["rfm:"] // day
    ('532', 129)
    """
    cuts = cuts_in(context)
    person.__dict__["cuts"] = context.quintiles
    told = tell(person, facts, context)
    cell = rfm.cell(facts, cuts, context.now) if cuts is not None else ""
    due = rfm.next_fall(facts, cuts, context.now) if cuts is not None else None
    if due is not None:
        person.timers[RFM_TIMER] = due
    else:
        person.timers.pop(RFM_TIMER, None)
    if cell == person.rfm:
        return told
    before, person.rfm = person.rfm, cell
    was, now_in = _names(before), _names(cell)
    because = Because(
        trigger=occasion_of(event),
        held=(f"RFM {cell}, before {before}" if cell and before else f"RFM {cell or 'none: no orders'}",),
        playbook=context.rules.short, model=context.quintiles.hash if context.quintiles is not None else "")
    moves = [move(person, name, False, context, because) for name in was if name not in now_in]
    moves += [move(person, name, True, context, because) for name in now_in if name not in was]
    return [*moves, *told]


def is_standing(name: str, person: Person) -> bool:
    """Whether this segment is the person's own cell, or the group of it.

    >>> is_standing("rfm_champions", Person(id="u:ann", rfm="555")), is_standing("rfm_lost", Person(id="a:x"))
    (True, False)
    """
    return bool(person.rfm) and name in _names(person.rfm)


def _names(cell: str) -> tuple[str, ...]:
    return (PREFIX + cell, PREFIX + group_of(cell)) if cell else ()


def tell(person: Person, facts: Facts | None, context: Context) -> Sequence[Outcome]:
    """What the population has to unlearn and to learn of this customer; nothing when nothing has changed.

    Without `facts` they are no customer any more: they turned out to be somebody else.
    """
    declared, new = context.rules.rfm, None
    if declared is not None and declared.learned and facts is not None and facts.order_count > 0:
        new = Counted(facts.last_order_at, facts.order_count, facts.revenue)
    old = person.counted
    if old == new:
        return ()
    person.counted = new
    features = {**_features("old_", old or Counted()), **_features("new_", new or Counted())}
    return (Outcome(kind=rfm.KIND, id=context.id("rfm"), person=person.id, at=context.now, taken_at=context.now,
                    label=True, features=features),)


def _features(prefix: str, counted: Counted) -> dict[str, float]:
    return {prefix + "last_at": float(counted.last_at), prefix + "orders": float(counted.orders),
            prefix + "money": float(counted.money)}
