"""Check of workflows: steps that lead nowhere, that nobody reaches, that go round for ever."""

from collections.abc import Iterator

import msgspec

from domain.check_circles import circles
from domain.check_condition import asks_more, condition, duration, never_comes
from domain.condition import EVERYONE, Condition
from domain.duration import UNITS
from domain.event_names import offered
from domain.known import Found, Known
from domain.problem import Path
from domain.trigger import Occasion
from domain.workflow import STEP_KINDS, Step, Workflow

_AGAIN_AFTER = next(field.default for field in msgspec.structs.fields(Workflow) if field.name == "again_after")


def workflow(one: Workflow, known: Known) -> Found:
    """All mistakes of one workflow."""
    for n, moment in enumerate(one.occasions):
        yield from occasion(moment, ("enters", n) if isinstance(one.enters, tuple) else ("enters",), known)
    if one.leaves is not None:
        if one.leaves == EVERYONE:
            yield ("leaves",), "says nothing: everybody would leave at once"
        for path, text in condition(one.leaves, known):
            yield ("leaves", *path), text
        yield from _turned_away(one, one.leaves, known)
    for event in one.leaves_on:
        yield from known.event_at(("leaves_on",), event)
    yield from duration(("again_after",), one.again_after)
    if one.again != "after" and one.again_after != _AGAIN_AFTER:
        yield ("again_after",), f'goes only with again = "after", and again is "{one.again}"'
    ids: dict[str, int] = {}
    for n in range(len(one.steps)):
        name = one.id_of(n)
        if name in ids:
            yield ("steps", n, "id"), f'"{name}" is the name of step {ids[name] + 1} already'
        ids.setdefault(name, n)
    for n, step in enumerate(one.steps):
        for path, text in _step(step, ids, known):
            yield ("steps", n, *path), text
    yield from _ways(one, ids, known)


def _turned_away(one: Workflow, leaves: Condition, known: Known) -> Found:
    """Occasions that let nobody in, because `leaves` holds for all of them already."""
    for n, moment in enumerate(one.occasions):
        if not never_comes(moment, known) and (why := never_comes(moment, known, leaves)):
            yield ("enters", n) if isinstance(one.enters, tuple) else ("enters",), (
                f"lets nobody in, because `leaves` holds for all of them already: {why}")


def occasion(moment: Occasion, path: Path, known: Known) -> Found:
    """All mistakes of one occasion."""
    given = [name for name in ("event", "segment", "left_segment") if getattr(moment, name)]
    if len(given) != 1:
        yield path, "should be exactly one of event, segment, left_segment"
    if moment.properties and moment.event is None:
        yield (*path, "properties"), "go only with `event`"
    yield from known.event_at((*path, "event"), moment.event)
    yield from known.segment_at((*path, "segment"), moment.segment)
    yield from known.segment_at((*path, "left_segment"), moment.left_segment)
    mistakes = list(condition(moment.when, known))
    for inner, text in mistakes:
        yield (*path, "when", *inner), text
    if not mistakes and (why := never_comes(moment, known)):
        yield (*path, "when"), f"can never hold on this occasion: {why}"


def _step(step: Step, ids: dict[str, int], known: Known) -> Found:
    given = [name for name in STEP_KINDS if getattr(step, name)]
    if not step.kind:
        yield (), ("should do exactly one thing" + (f", does {' and '.join(given)}" if given else
                                                    f": one of {', '.join(STEP_KINDS)}, go"))
    for path, name in _named(step):
        if name not in ids:
            yield path, f'there is no step "{name}"{offered(name, ids)}'
    if step.exit and step.go:
        yield ("go",), "nothing comes after the end"
    if step.go and step.split:
        yield ("go",), "nobody takes it: everybody takes one of the ways of the split"
    if step.go and step.wait_for is not None and step.wait_for.then and step.wait_for.otherwise:
        yield ("go",), "nobody takes it: `then` and `otherwise` say where to go on"
    for field in ("patience", "otherwise"):
        if getattr(step, field) and not step.send:
            yield (field,), "goes only with `send`"
    yield from duration(("wait",), step.wait, UNITS["s"])
    yield from duration(("patience",), step.patience, UNITS["s"])
    if step.wait_until is not None and step.wait_until.time is None and step.wait_until.weekday is None:
        yield ("wait_until",), "says nothing: it needs a time, a weekday, or both"
    if (wait := step.wait_for) is not None:
        if (wait.event is None) == (wait.when is None):
            yield ("wait_for",), "should be exactly one of event, when"
        if wait.where and wait.event is None:
            yield ("wait_for", "where"), "goes only with `event`"
        yield from known.event_at(("wait_for", "event"), wait.event)
        yield from duration(("wait_for", "within"), wait.within, UNITS["s"])
        for path, text in condition(wait.when or EVERYONE, known):
            yield ("wait_for", "when", *path), text
    for n, way in enumerate(step.branch):
        if way.when == EVERYONE:
            yield ("branch", n, "when"), "says nothing: everybody would take this way"
        for path, text in condition(way.when, known):
            yield ("branch", n, "when", *path), text
        for m, earlier in enumerate(step.branch[:n]):
            if earlier.when != EVERYONE and asks_more(way.when, earlier.when):
                yield ("branch", n), (f"nobody takes this way: who could takes way {m + 1}, which stands before it and "
                                      + ("asks the same" if way.when == earlier.when else "asks less"))
                break
    if len(step.split) == 1:
        yield ("split",), "a split needs at least two ways"
    if step.send is not None:
        yield from known.campaign_at(("send",), step.send)
        sent = known.campaign.get(step.send)
        if sent is not None and not sent.trigger.workflow:
            yield ("send",), (f'campaign "{step.send}" has an occasion of its own; '
                              "give it trigger = { workflow = true }")
    yield from known.static_at(("tag",), step.tag)
    yield from known.static_at(("untag",), step.untag)
    yield from known.pool_at(("coupon",), step.coupon)


def _named(step: Step) -> Iterator[tuple[Path, str]]:
    """The steps that a step names."""
    if step.go:
        yield ("go",), step.go
    if step.otherwise:
        yield ("otherwise",), step.otherwise
    if step.wait_for is not None:
        for field in ("then", "otherwise"):
            if name := getattr(step.wait_for, field):
                yield ("wait_for", field), name
    for n, way in enumerate(step.branch):
        yield ("branch", n, "go"), way.go
    for name in step.split:
        yield ("split", name), name


def following(one: Workflow, n: int, ids: dict[str, int]) -> set[int]:
    """The steps that may come after the n-th (from 0); the number of steps stands for the end."""
    step = one.steps[n]
    if step.exit:
        return {len(one.steps)}
    onward = ids.get(step.go, n + 1) if step.go else n + 1
    found: set[int] = set()
    if step.wait_for is not None:
        found |= {ids.get(name, onward) if name else onward for name in (step.wait_for.then, step.wait_for.otherwise)}
    elif step.split:
        found |= {ids[name] for name in step.split if name in ids}
    else:
        found.add(onward)
        found |= {ids[way.go] for way in step.branch if way.go in ids}
    if step.otherwise:
        found.add(ids.get(step.otherwise, onward))
    return found


def _ways(one: Workflow, ids: dict[str, int], known: Known) -> Found:
    """Steps that nobody reaches, and circles in which nobody ever waits."""
    reached, todo = {0}, [0]
    while todo:
        for n in following(one, todo.pop(), ids):
            if n < len(one.steps) and n not in reached:
                reached.add(n)
                todo.append(n)
    for n in range(len(one.steps)):
        if n not in reached:
            yield ("steps", n), f'nobody ever comes to "{one.id_of(n)}": no step leads to it'
    for circle in circles(one, ids, reached, known):
        waits = [one.id_of(n) for n in circle[:-1] if one.steps[n].wait_for is not None]
        yield ("steps", circle[0]), ("goes round for ever without waiting: " + " -> ".join(map(one.id_of, circle)) + (
            f'; what "{waits[0]}" waits for holds when they come back to it' if waits else ""))
