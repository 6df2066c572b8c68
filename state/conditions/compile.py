"""Compile conditions into closures over (person, profile, now), and into index clauses.

    is_met(person, profile, now)        whether the condition is true now
    next_change(person, profile, now)   the earliest later time at which time alone can change that, or None
    explain(person, profile, now)       the predicates that passed and failed, as text

`profile` is the merged profile, `now` is ms since 1970. `depends_on` uses the names of
`state/membership/changes.py`.

Clauses are the disjunctive normal form of what an index can look up. Each key of a clause is *necessary* and does not
change with time alone. A predicate without a key costs time but does not change a result.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from domain.playbook.condition import SCORE_BANDS, Condition, Did
from domain.playbook.shop import Shop
from state.conditions import behaviour, history, predicate, visit
from state.conditions import history as known
from state.conditions import person as conditions_person
from state.conditions.predicate import IndexKey, NextChange, Predicate, Test, as_tuple
from state.person.model import Person, ProfileFragment

MAX_STATEMENTS = 12
"""Parts of an explanation that are kept."""
ALL_STATEMENTS = 1_000
"""For who asks why: more parts than a condition has."""


class Combinator(NamedTuple):
    """A conjunction, disjunction or negation of other conditions."""

    kind: str
    test: Test
    children: tuple["Predicate | Combinator", ...]
    next_change: NextChange | None


class CompiledCondition:
    """A compiled condition."""

    __slots__ = ("_root", "depends_on", "is_met", "next_change", "time_dependent")

    def __init__(self, root: Predicate | Combinator) -> None:
        self._root = root
        self.is_met = root.test
        self.depends_on = frozenset(
            need for leaf in _predicates(root) for need in (leaf.depends_on, *leaf.also_depends_on)
        )
        self.time_dependent = root.next_change is not None
        self.next_change: NextChange = root.next_change or _never

    def explain(
        self, person: Person, profile: ProfileFragment, now: int, limit: int = MAX_STATEMENTS
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the predicates that passed and those that failed, up to a maximum of each."""
        held: list[str] = []
        failed: list[str] = []
        _explain(self._root, person, profile, now, False, held, failed)
        return tuple(held[:limit]), tuple(failed[:limit])


def compile_condition(
    condition: Condition, shop: Shop | None = None, extra: Sequence[Predicate] = ()
) -> CompiledCondition:
    """A condition as closures; amounts are read in the shop's currency. What stands in `also` must hold too.

    >>> from domain.playbook.condition import InSession
    >>> from state.person.model import Session
    >>> engaged = compile_condition(Condition(session=InSession(pages_at_least=3)))
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=4))
    >>> engaged.is_met(person, ProfileFragment(), 0), engaged.explain(person, ProfileFragment(), 0)
    (True, (('at least 3 pages this session (has 4)',), ()))
    """
    root = _compile_node(condition, shop or Shop())
    if extra:
        parts = root.children if isinstance(root, Combinator) and root.kind == "all" else (root,)
        root = _combine("all", [*parts, *extra])
    return CompiledCondition(root)


# -- trees -----------------------------------------------------------------------------------------------------


def _compile_node(condition: Condition, shop: Shop) -> Predicate | Combinator:
    parts: list[Predicate | Combinator] = []
    if condition.has is not None:
        parts += conditions_person.profile_predicates(condition.has, shop)
    if condition.session is not None:
        parts += visit.session_predicates(condition.session)
    if condition.cart is not None:
        parts += visit.cart_predicates(condition.cart, shop)
    if condition.orders is not None:
        parts += history.order_predicates(condition.orders, shop)
    if condition.rfm is not None:
        parts += predicate.rfm_predicates(condition.rfm)
    if condition.funnel is not None:
        parts += predicate.funnel_predicates(condition.funnel, shop)
    if condition.score is not None:
        parts += predicate.score_predicates(condition.score)
    if condition.in_segment is not None:
        parts.append(_in_segment(predicate.as_tuple(condition.in_segment)))
    if condition.holds_coupon is not None:
        parts.append(history.coupon_predicate(condition.holds_coupon))
    if condition.was_shown is not None:
        parts.append(history.shown_predicate(condition.was_shown))
    parts += [behaviour.did_predicate(did) for did in _as_tuple(condition.did)]
    parts += [_combine("not", [behaviour.did_predicate(did)]) for did in _as_tuple(condition.did_not)]
    if condition.sequence is not None:
        parts.append(behaviour.sequence_predicate(condition.sequence))
    parts += [_compile_node(child, shop) for child in condition.all]
    if condition.any:
        parts.append(_combine("any", [_compile_node(child, shop) for child in condition.any]))
    if condition.not_ is not None:
        parts.append(_combine("not", [_compile_node(condition.not_, shop)]))
    return parts[0] if len(parts) == 1 else _combine("all", parts)


def _combine(kind: str, children: list[Predicate | Combinator]) -> Combinator:
    tests = [child.test for child in children]
    if kind == "not":
        opposite = tests[0]
        return Combinator(kind, lambda p, f, now: not opposite(p, f, now), tuple(children), children[0].next_change)
    test = _all(tests) if kind == "all" else _any(tests)
    return Combinator(kind, test, tuple(children), _earliest_change(kind, children))


def _earliest_change(kind: str, children: list[Predicate | Combinator]) -> NextChange | None:
    """The soonest change of the parts that time can move, unless one that stays as it is settles the whole."""
    moving = [(child.test, child.next_change) for child in children if child.next_change is not None]
    if not moving:
        return None
    others = [child.test for child in children if child.next_change is None]
    settled = kind == "any"
    still = _all(others) if kind == "all" else _any(others)

    def change(p: Person, f: ProfileFragment, now: int) -> int | None:
        if others and still(p, f, now) is settled:
            return None
        soonest: int | None = None
        for test, moves in moving:
            at = moves(p, f, now)
            if at is None:
                if test(p, f, now) is settled:
                    return None
            elif soonest is None or at < soonest:
                soonest = at
        return soonest

    return change


def _all(tests: list[Test]) -> Test:
    if not tests:
        return lambda p, f, now: True
    if len(tests) == 1:
        return tests[0]
    a, b, *rest = tests
    if not rest:
        return lambda p, f, now: a(p, f, now) and b(p, f, now)
    if len(rest) == 1:
        c = rest[0]
        return lambda p, f, now: a(p, f, now) and b(p, f, now) and c(p, f, now)
    others = _all(rest)
    return lambda p, f, now: a(p, f, now) and b(p, f, now) and others(p, f, now)


def _any(tests: list[Test]) -> Test:
    if not tests:
        return lambda p, f, now: False
    if len(tests) == 1:
        return tests[0]
    a, b, *rest = tests
    if not rest:
        return lambda p, f, now: a(p, f, now) or b(p, f, now)
    others = _any(rest)
    return lambda p, f, now: a(p, f, now) or b(p, f, now) or others(p, f, now)


def _never(person: Person, profile: ProfileFragment, now: int) -> None:
    """Return None: time alone never changes the result."""


def _predicates(node: Predicate | Combinator) -> Iterable[Predicate]:
    if isinstance(node, Predicate):
        yield node
    else:
        for child in node.children:
            yield from _predicates(child)


def _explain(
    node: Predicate | Combinator,
    person: Person,
    profile: ProfileFragment,
    now: int,
    negated: bool,
    passed: list[str],
    failed: list[str],
) -> None:
    if isinstance(node, Predicate):
        words = node.describe(person, profile, now)
        (passed if node.test(person, profile, now) != negated else failed).append("not: " + words if negated else words)
        return
    if node.kind == "not":
        _explain(node.children[0], person, profile, now, not negated, passed, failed)
        return
    children = node.children
    if (node.kind == "any") != negated:  # one passed child is enough: failed siblings explain nothing
        enough = [child for child in children if child.test(person, profile, now) != negated]
        if enough:
            children, failed = tuple(enough), []
    for child in children:
        _explain(child, person, profile, now, negated, passed, failed)


def _as_tuple(value: Did | tuple[Did, ...] | None) -> tuple[Did, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _in_segment(names: tuple[str, ...]) -> Predicate | Combinator:
    parts: list[Predicate | Combinator] = [
        predicate.band_predicate(name) if name in SCORE_BANDS else predicate.segment_predicate(name) for name in names
    ]
    return parts[0] if len(parts) == 1 else _combine("any", parts)


MAX_CLAUSES = 12
"""Maximum clauses of one condition. Further alternatives are not indexed."""

Clause = tuple[IndexKey, ...]
"""Statements all of which are necessary, on one of the alternative ways to make a condition true."""


def dnf_clauses(condition: Condition, shop: Shop) -> tuple[Clause, ...]:
    """The alternative ways to make a condition true, each with what can be looked up of it.

    >>> from domain.playbook.condition import Has
    >>> condition = Condition(has=Has(country="CA", device="mobile"))
    >>> [[key.attribute for key in clause] for clause in dnf_clauses(condition, Shop())]
    [['country', 'device']]
    >>> either = Condition(any=(Condition(has=Has(country="CA")), Condition(in_segment="vip")))
    >>> [[one.attribute for one in way] for way in dnf_clauses(either, Shop())]
    [['country'], ['segment']]
    """
    both: list[IndexKey] = []
    if condition.has is not None:
        both += known.profile_keys(condition.has)
    if condition.session is not None:
        both += visit.session_keys(condition.session)
    if condition.cart is not None:
        both += visit.cart_keys(condition.cart, shop)
    if condition.orders is not None:
        both += known.order_keys(condition.orders, shop)
    if condition.score is not None:
        both += known.score_keys(condition.score)
    did = condition.did if isinstance(condition.did, tuple) else (condition.did,) if condition.did is not None else ()
    for one in did:
        both += known.did_keys(one)
    if condition.sequence is not None:
        both += known.sequence_keys(condition.sequence)
    if condition.rfm is not None:
        both += known.rfm_keys(condition.rfm)
    if condition.holds_coupon is not None:
        both.append(known.coupon_key(condition.holds_coupon))
    if condition.was_shown is not None:
        both.append(known.shown_key(condition.was_shown))
    found: tuple[Clause, ...] = (tuple(both),)
    if condition.in_segment is not None:
        found = _conjoin(found, _segment_clauses(as_tuple(condition.in_segment)))
    if condition.funnel is not None and condition.funnel.stage is not None:
        found = _conjoin(
            found, _segment_clauses(tuple("funnel_" + stage for stage in as_tuple(condition.funnel.stage)))
        )
    for child in condition.all:
        found = _conjoin(found, dnf_clauses(child, shop))
    if condition.any:
        found = _conjoin(found, tuple(way for child in condition.any for way in dnf_clauses(child, shop)))
    return found


def _conjoin(left: tuple[Clause, ...], right: tuple[Clause, ...]) -> tuple[Clause, ...]:
    """Every way of the one with every way of the other; only the one where they would be too many."""
    if len(left) * len(right) > MAX_CLAUSES or () in right:
        return left
    return tuple((*way, *other) for way in left for other in right)


def _segment_clauses(names: tuple[str, ...]) -> tuple[Clause, ...]:
    return tuple((access,) for access in known.segment_keys(names))
