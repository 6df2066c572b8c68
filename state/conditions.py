"""Conditions, compiled: closures over (person, facts, now), made once for each playbook.

    holds(person, facts, now)         whether it is true at this moment
    next_change(person, facts, now)   the earliest moment after `now` at which mere time may change that; None: never
    explain(person, facts, now)       the parts that held and the parts that failed, in plain words

`facts` is `state.view.known(person)`, `now` is ms since 1970. `needs` says what can change the answer, in the words of
`state/changes.py`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from domain.condition import BANDS, Condition, Did
from domain.shop import Shop
from state import leaves, leaves_dealings, leaves_did, leaves_has, leaves_visit
from state.leaves import Change, Leaf, Test
from state.person import Facts, Person

SAID_AT_MOST = 12
"""Parts of an explanation that are kept."""
ALL_OF_THEM = 1_000
"""For who asks why: more parts than a condition has."""


class Node(NamedTuple):
    """All, any, or the opposite, of other conditions."""

    kind: str
    test: Test
    children: tuple["Leaf | Node", ...]
    change: Change | None


class Compiled:
    """A condition made ready to be asked."""

    __slots__ = ("_root", "holds", "needs", "next_change", "timed")

    def __init__(self, root: Leaf | Node) -> None:
        self._root = root
        self.holds = root.test
        self.needs = frozenset(need for leaf in _leaves(root) for need in (leaf.needs, *leaf.also))
        self.timed = root.change is not None
        self.next_change: Change = root.change or _never

    def explain(self, person: Person, facts: Facts, now: int,
                most: int = SAID_AT_MOST) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The statements that held and those that failed, at most so many of each."""
        held: list[str] = []
        failed: list[str] = []
        _explain(self._root, person, facts, now, False, held, failed)
        return tuple(held[:most]), tuple(failed[:most])


def compile_condition(condition: Condition, shop: Shop | None = None, also: Sequence[Leaf] = ()) -> Compiled:
    """A condition as closures; amounts are read in the shop's currency. What stands in `also` must hold too.

    >>> from domain.condition import InSession
    >>> from state.person import Session
    >>> engaged = compile_condition(Condition(session=InSession(pages_at_least=3)))
    >>> person = Person(id="a:x", session=Session("s", 0, 0, pages=4))
    >>> engaged.holds(person, Facts(), 0), engaged.explain(person, Facts(), 0)
    (True, (('at least 3 pages this visit (has 4)',), ()))
    """
    root = _node(condition, shop or Shop())
    if also:
        parts = root.children if isinstance(root, Node) and root.kind == "all" else (root,)
        root = _join("all", [*parts, *also])
    return Compiled(root)


# -- trees -----------------------------------------------------------------------------------------------------


def _node(condition: Condition, shop: Shop) -> Leaf | Node:
    parts: list[Leaf | Node] = []
    if condition.has is not None:
        parts += leaves_has.has(condition.has, shop)
    if condition.session is not None:
        parts += leaves_visit.session(condition.session)
    if condition.cart is not None:
        parts += leaves_visit.cart(condition.cart, shop)
    if condition.orders is not None:
        parts += leaves_dealings.orders(condition.orders, shop)
    if condition.rfm is not None:
        parts += leaves.rfm(condition.rfm)
    if condition.funnel is not None:
        parts += leaves.funnel(condition.funnel, shop)
    if condition.score is not None:
        parts += leaves.score(condition.score)
    if condition.in_segment is not None:
        parts.append(_in_segment(leaves.texts(condition.in_segment)))
    if condition.holds_coupon is not None:
        parts.append(leaves_dealings.holds_coupon(condition.holds_coupon))
    if condition.was_said is not None:
        parts.append(leaves_dealings.was_said(condition.was_said))
    parts += [leaves_did.did(did) for did in _list(condition.did)]
    parts += [_join("not", [leaves_did.did(did)]) for did in _list(condition.did_not)]
    if condition.sequence is not None:
        parts.append(leaves_did.sequence(condition.sequence))
    parts += [_node(child, shop) for child in condition.all]
    if condition.any:
        parts.append(_join("any", [_node(child, shop) for child in condition.any]))
    if condition.not_ is not None:
        parts.append(_join("not", [_node(condition.not_, shop)]))
    return parts[0] if len(parts) == 1 else _join("all", parts)


def _join(kind: str, children: list[Leaf | Node]) -> Node:
    tests = [child.test for child in children]
    if kind == "not":
        opposite = tests[0]
        return Node(kind, lambda p, f, now: not opposite(p, f, now), tuple(children), children[0].change)
    test = _all(tests) if kind == "all" else _any(tests)
    return Node(kind, test, tuple(children), _soonest(kind, children))


def _soonest(kind: str, children: list[Leaf | Node]) -> Change | None:
    """The soonest change of the parts that time can move, unless one that stays as it is settles the whole."""
    moving = [(child.test, child.change) for child in children if child.change is not None]
    if not moving:
        return None
    others = [child.test for child in children if child.change is None]
    settled = kind == "any"
    still = _all(others) if kind == "all" else _any(others)

    def change(p: Person, f: Facts, now: int) -> int | None:
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


def _never(p: Person, f: Facts, now: int) -> None:
    """Time alone changes nothing."""


def _leaves(part: Leaf | Node) -> Iterable[Leaf]:
    if isinstance(part, Leaf):
        yield part
    else:
        for child in part.children:
            yield from _leaves(child)


def _explain(part: Leaf | Node, person: Person, facts: Facts, now: int, negated: bool, held: list[str],
             failed: list[str]) -> None:
    if isinstance(part, Leaf):
        words = part.words(person, facts, now)
        (held if part.test(person, facts, now) != negated else failed).append("not: " + words if negated else words)
        return
    if part.kind == "not":
        _explain(part.children[0], person, facts, now, not negated, held, failed)
        return
    children = part.children
    if (part.kind == "any") != negated:  # one is enough: what failed beside it is nobody's reason
        enough = [child for child in children if child.test(person, facts, now) != negated]
        if enough:
            children, failed = tuple(enough), []
    for child in children:
        _explain(child, person, facts, now, negated, held, failed)


def _list(value: Did | tuple[Did, ...] | None) -> tuple[Did, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)


def _in_segment(names: tuple[str, ...]) -> Leaf | Node:
    parts: list[Leaf | Node] = [leaves.band(name) if name in BANDS else leaves.member(name) for name in names]
    return parts[0] if len(parts) == 1 else _join("any", parts)
