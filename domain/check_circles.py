"""Circles of a workflow: ways round on which nobody ever has to wait. Such a run is ended after a hundred steps.

    wait, wait_until, wait_for an event, time that is up    always a wait: no circle through it is blamed
    wait_for a condition                                    no wait for whom it holds when they come by

Who has come by way of a condition comes by again at the very same instant, so it holds again, unless a step of the
circle changes what it asks for (`tag`, `untag`, `set`, `coupon`). So a circle is blamed when it has no wait, its
conditions can hold together, and none of its steps can change one of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from domain.check_condition import walk
from domain.condition import Condition, Has, Holds
from domain.contradiction import contradiction
from domain.known import Known
from domain.workflow import Workflow

MOST_TRIED = 20_000
"""Steps that are taken to find circles in one workflow; what is found until then is said."""


class Edge(NamedTuple):
    """Where a step leads at once, for those of whom this is true."""

    to: int
    when: tuple[Condition, ...] = ()


def circles(one: Workflow, ids: dict[str, int], reached: set[int], known: Known) -> Iterator[list[int]]:
    """The circles to blame, each as its steps (from 0), the first one once more at its end."""
    edges = {n: [edge for edge in _at_once(one, n, ids) if edge.to in reached] for n in sorted(reached)}
    round_trip = {n for n in edges if n in _beyond(n, edges)}
    tried = 0
    blamed: set[frozenset[int]] = set()
    for start in sorted(round_trip):
        todo: list[tuple[tuple[int, ...], tuple[Condition, ...]]] = [((start,), ())]
        while todo and tried < MOST_TRIED:
            tried += 1
            path, conditions = todo.pop()
            for edge in reversed(edges[path[-1]]):
                asked = (*conditions, *edge.when)
                if edge.to == start:
                    if frozenset(path) not in blamed and not _ends(one, path, asked, known):
                        blamed.add(frozenset(path))
                        yield [*path, start]
                elif edge.to > start and edge.to in round_trip and edge.to not in path:
                    todo.append(((*path, edge.to), asked))


def _at_once(one: Workflow, n: int, ids: dict[str, int]) -> Iterator[Edge]:
    """Where the n-th step leads without any time passing."""
    step = one.steps[n]
    onward = ids.get(step.go, n + 1) if step.go else n + 1
    if step.exit or step.wait or step.wait_until is not None:
        return
    if step.wait_for is not None:
        if step.wait_for.when is not None and step.wait_for.event is None:
            yield Edge(ids.get(step.wait_for.then, onward) if step.wait_for.then else onward, (step.wait_for.when,))
        return
    if step.split:
        yield from (Edge(ids[name]) for name in step.split if name in ids)
        return
    others: tuple[Condition, ...] = ()
    for way in step.branch:
        if way.go in ids:
            yield Edge(ids[way.go], (*others, way.when))
        others = (*others, Condition(not_=way.when))
    yield Edge(onward, others)
    if step.otherwise in ids:
        yield Edge(ids[step.otherwise])


def _beyond(n: int, edges: dict[int, list[Edge]]) -> set[int]:
    """The steps that may come after the n-th at the same instant."""
    found, todo = set[int](), [n]
    while todo:
        for edge in edges[todo.pop()]:
            if edge.to not in found:
                found.add(edge.to)
                todo.append(edge.to)
    return found


def _ends(one: Workflow, path: tuple[int, ...], asked: tuple[Condition, ...], known: Known) -> bool:
    """Whether a circle ends by itself, because somebody who goes round once does not go round again."""
    if not asked:
        return False
    if contradiction(Condition(all=asked), known.conditions, known.stages):
        return True
    segments = traits = coupons = False
    for when in asked:
        for _, part, _ in walk(when):
            segments |= isinstance(part, Condition) and part.in_segment is not None
            traits |= isinstance(part, Has)
            coupons |= isinstance(part, Holds)
    kinds = {one.steps[n].kind for n in path}
    tags = "tag" in kinds or "untag" in kinds
    return ((segments and (tags or "set" in kinds or "coupon" in kinds)) or (traits and "set" in kinds)
            or (coupons and "coupon" in kinds))
