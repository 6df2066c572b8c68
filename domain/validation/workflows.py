"""Check of workflows: unknown steps, unreachable steps, and endless loops.

A loop is endless if a run passes through it without a wait. `wait`, `wait_until`, `wait_for` an event and a timeout are
waits. `wait_for` a condition is no wait if the condition is true already. A condition that was true is true again at
the same instant, unless a step of the loop changes it (`add_to_segment`, `remove_from_segment`, `set_traits`,
`coupon`). So a loop is reported if it has no wait, its conditions can be true together, and no step changes one of
them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from domain.diagnostics import FieldPath
from domain.duration import UNIT_MS
from domain.event import did_you_mean_or_list
from domain.playbook.condition import EVERYONE, Condition, Has, HoldsCoupon
from domain.playbook.trigger import EntryTrigger
from domain.playbook.workflow import STEP_KINDS, Step, Workflow
from domain.validation.conditions import check_condition, check_duration, implies, walk, why_unreachable
from domain.validation.names import Findings, PlaybookNames
from domain.validation.satisfiability import why_unsatisfiable

MAX_PATHS_TRIED = 20_000
"""Paths that are tried to find loops in one workflow; loops found until then are reported."""


class Transition(NamedTuple):
    """A step that follows at the same instant if the conditions are true."""

    target: int
    when: tuple[Condition, ...] = ()


def endless_cycles(
    workflow: Workflow, step_index: dict[str, int], reachable: set[int], symbols: PlaybookNames
) -> Iterator[list[int]]:
    """Yield the endless loops as step indexes (from 0); the first step is repeated at the end."""
    edges = {
        n: [edge for edge in _immediate_transitions(workflow, n, step_index) if edge.target in reachable]
        for n in sorted(reachable)
    }
    in_loops = {n for n in edges if n in _reachable_from(n, edges)}
    tried = 0
    reported: set[frozenset[int]] = set()
    for start in sorted(in_loops):
        todo: list[tuple[tuple[int, ...], tuple[Condition, ...]]] = [((start,), ())]
        while todo and tried < MAX_PATHS_TRIED:
            tried += 1
            path, conditions = todo.pop()
            for edge in reversed(edges[path[-1]]):
                combined = (*conditions, *edge.when)
                if edge.target == start:
                    if frozenset(path) not in reported and not _terminates(workflow, path, combined, symbols):
                        reported.add(frozenset(path))
                        yield [*path, start]
                elif edge.target > start and edge.target in in_loops and edge.target not in path:
                    todo.append(((*path, edge.target), combined))


def _immediate_transitions(workflow: Workflow, n: int, step_index: dict[str, int]) -> Iterator[Transition]:
    """Yield the transitions of step `n` that need no time."""
    step = workflow.steps[n]
    onward = step_index.get(step.goto, n + 1) if step.goto else n + 1
    if step.exit or step.wait or step.wait_until is not None:
        return
    if step.wait_for is not None:
        if step.wait_for.when is not None and step.wait_for.event is None:
            yield Transition(
                step_index.get(step.wait_for.then, onward) if step.wait_for.then else onward, (step.wait_for.when,)
            )
        return
    if step.split:
        yield from (Transition(step_index[name]) for name in step.split if name in step_index)
        return
    others: tuple[Condition, ...] = ()
    for branch in step.branch:
        if branch.goto in step_index:
            yield Transition(step_index[branch.goto], (*others, branch.when))
        others = (*others, Condition(not_=branch.when))
    yield Transition(onward, others)
    if step.else_ in step_index:
        yield Transition(step_index[step.else_])


def _reachable_from(n: int, transitions: dict[int, list[Transition]]) -> set[int]:
    """Return the steps that can follow step `n` at the same instant."""
    found, todo = set[int](), [n]
    while todo:
        for edge in transitions[todo.pop()]:
            if edge.target not in found:
                found.add(edge.target)
                todo.append(edge.target)
    return found


def _terminates(
    workflow: Workflow, path: tuple[int, ...], conditions: tuple[Condition, ...], symbols: PlaybookNames
) -> bool:
    """Return whether a loop ends because its conditions cannot be true a second time."""
    if not conditions:
        return False
    if why_unsatisfiable(Condition(all=conditions), symbols.condition_segments, symbols.stage_names):
        return True
    segments = traits = coupons = False
    for when in conditions:
        for _, part, _ in walk(when):
            segments |= isinstance(part, Condition) and part.in_segment is not None
            traits |= isinstance(part, Has)
            coupons |= isinstance(part, HoldsCoupon)
    kinds = {workflow.steps[n].kind for n in path}
    membership = "add_to_segment" in kinds or "remove_from_segment" in kinds
    return (
        (segments and (membership or "set_traits" in kinds or "coupon" in kinds))
        or (traits and "set_traits" in kinds)
        or (coupons and "coupon" in kinds)
    )


_DEFAULT_REENTRY_AFTER = next(
    field.default for field in msgspec.structs.fields(Workflow) if field.name == "reentry_after"
)


def check_workflow(workflow: Workflow, symbols: PlaybookNames) -> Findings:
    """Yield all errors of a workflow."""
    for n, trigger in enumerate(workflow.entry_triggers):
        yield from check_entry_trigger(
            trigger, ("enter_on", n) if isinstance(workflow.enter_on, tuple) else ("enter_on",), symbols
        )
    if workflow.exit_when is not None:
        if workflow.exit_when == EVERYONE:
            yield ("exit_when",), "is empty: everyone would exit at once"
        for path, text in check_condition(workflow.exit_when, symbols):
            yield ("exit_when", *path), text
        yield from _check_entry_blocked(workflow, workflow.exit_when, symbols)
    for event in workflow.exit_on:
        yield from symbols.check_event_name(("exit_on",), event)
    yield from check_duration(("reentry_after",), workflow.reentry_after)
    if workflow.reentry != "after" and workflow.reentry_after != _DEFAULT_REENTRY_AFTER:
        yield ("reentry_after",), f'is used only with reentry = "after"; reentry is "{workflow.reentry}"'
    ids: dict[str, int] = {}
    for n in range(len(workflow.steps)):
        name = workflow.step_id(n)
        if name in ids:
            yield ("steps", n, "id"), f'step {ids[name] + 1} already has the id "{name}"'
        ids.setdefault(name, n)
    for n, step in enumerate(workflow.steps):
        for path, text in _check_step(step, ids, symbols):
            yield ("steps", n, *path), text
    yield from _check_reachability(workflow, ids, symbols)


def _check_entry_blocked(workflow: Workflow, exit_when: Condition, symbols: PlaybookNames) -> Findings:
    """Yield entry triggers that only match people for whom `exit_when` is true."""
    for n, trigger in enumerate(workflow.entry_triggers):
        if not why_unreachable(trigger, symbols) and (why := why_unreachable(trigger, symbols, exit_when)):
            yield (
                ("enter_on", n) if isinstance(workflow.enter_on, tuple) else ("enter_on",),
                (f"no one can enter: `exit_when` is already true for everyone who matches: {why}"),
            )


def check_entry_trigger(trigger: EntryTrigger, path: FieldPath, symbols: PlaybookNames) -> Findings:
    """Yield all errors of an entry trigger."""
    given = [name for name in ("event", "segment", "exited_segment") if getattr(trigger, name)]
    if len(given) != 1:
        yield path, "should be exactly one of event, segment, exited_segment"
    if trigger.properties and trigger.event is None:
        yield (*path, "properties"), "is allowed only with `event`"
    yield from symbols.check_event_name((*path, "event"), trigger.event)
    yield from symbols.check_segment_name((*path, "segment"), trigger.segment)
    yield from symbols.check_segment_name((*path, "exited_segment"), trigger.exited_segment)
    errors = list(check_condition(trigger.when, symbols))
    for inner, text in errors:
        yield (*path, "when", *inner), text
    if not errors and (why := why_unreachable(trigger, symbols)):
        yield (*path, "when"), f"can never be true for this trigger: {why}"


def _check_step(step: Step, step_index: dict[str, int], symbols: PlaybookNames) -> Findings:
    given = [name for name in STEP_KINDS if getattr(step, name)]
    if not step.kind:
        yield (
            (),
            (
                "should do exactly one thing"
                + (f", but does {' and '.join(given)}" if given else f": one of {', '.join(STEP_KINDS)}, goto")
            ),
        )
    for path, name in _step_references(step):
        if name not in step_index:
            yield path, f'there is no step "{name}"{did_you_mean_or_list(name, step_index)}'
    if step.exit and step.goto:
        yield ("goto",), "is never used: the run ends at `exit`"
    if step.goto and step.split:
        yield ("goto",), "is never used: every run follows one of the paths of `split`"
    if step.goto and step.wait_for is not None and step.wait_for.then and step.wait_for.else_:
        yield ("goto",), "is never used: `then` and `else` name the next step"
    for field, value in (("timeout", step.timeout), ("else", step.else_)):
        if value and not step.send:
            yield (field,), "is allowed only with `send`"
    yield from check_duration(("wait",), step.wait, UNIT_MS["s"])
    yield from check_duration(("timeout",), step.timeout, UNIT_MS["s"])
    if step.wait_until is not None and step.wait_until.time is None and step.wait_until.weekday is None:
        yield ("wait_until",), "is empty: it needs a time, a weekday, or both"
    if (wait := step.wait_for) is not None:
        if (wait.event is None) == (wait.when is None):
            yield ("wait_for",), "should be exactly one of event, when"
        if wait.where and wait.event is None:
            yield ("wait_for", "where"), "is allowed only with `event`"
        yield from symbols.check_event_name(("wait_for", "event"), wait.event)
        yield from check_duration(("wait_for", "timeout"), wait.timeout, UNIT_MS["s"])
        for path, text in check_condition(wait.when or EVERYONE, symbols):
            yield ("wait_for", "when", *path), text
    for n, branch in enumerate(step.branch):
        if branch.when == EVERYONE:
            yield ("branch", n, "when"), "is empty: every run would take this branch"
        for path, text in check_condition(branch.when, symbols):
            yield ("branch", n, "when", *path), text
        for m, earlier in enumerate(step.branch[:n]):
            if earlier.when != EVERYONE and implies(branch.when, earlier.when):
                yield (
                    ("branch", n),
                    (
                        f"is never taken: branch {m + 1} comes first and its condition is "
                        + ("the same" if branch.when == earlier.when else "less strict")
                    ),
                )
                break
    if len(step.split) == 1:
        yield ("split",), "needs at least two paths"
    if step.send is not None:
        yield from symbols.check_campaign_name(("send",), step.send)
        sent = symbols.campaigns_by_name.get(step.send)
        if sent is not None and not sent.trigger.workflow:
            yield (("send",), (f'campaign "{step.send}" has its own trigger; set its trigger to {{ workflow = true }}'))
    yield from symbols.check_static_segment_name(("add_to_segment",), step.add_to_segment)
    yield from symbols.check_static_segment_name(("remove_from_segment",), step.remove_from_segment)
    yield from symbols.check_pool_name(("coupon",), step.coupon)


def _step_references(step: Step) -> Iterator[tuple[FieldPath, str]]:
    """Yield the step names that a step refers to, with their paths."""
    if step.goto:
        yield ("goto",), step.goto
    if step.else_:
        yield ("else",), step.else_
    if step.wait_for is not None:
        if step.wait_for.then:
            yield ("wait_for", "then"), step.wait_for.then
        if step.wait_for.else_:
            yield ("wait_for", "else"), step.wait_for.else_
    for n, branch in enumerate(step.branch):
        yield ("branch", n, "goto"), branch.goto
    for name in step.split:
        yield ("split", name), name


def next_steps(workflow: Workflow, n: int, step_index: dict[str, int]) -> set[int]:
    """Return the steps that can follow step `n` (from 0); the number of steps is the end."""
    step = workflow.steps[n]
    if step.exit:
        return {len(workflow.steps)}
    onward = step_index.get(step.goto, n + 1) if step.goto else n + 1
    found: set[int] = set()
    if step.wait_for is not None:
        found |= {
            step_index.get(name, onward) if name else onward for name in (step.wait_for.then, step.wait_for.else_)
        }
    elif step.split:
        found |= {step_index[name] for name in step.split if name in step_index}
    else:
        found.add(onward)
        found |= {step_index[branch.goto] for branch in step.branch if branch.goto in step_index}
    if step.else_:
        found.add(step_index.get(step.else_, onward))
    return found


def _check_reachability(workflow: Workflow, step_index: dict[str, int], symbols: PlaybookNames) -> Findings:
    """Yield unreachable steps and endless loops."""
    reached, todo = {0}, [0]
    while todo:
        for n in next_steps(workflow, todo.pop(), step_index):
            if n < len(workflow.steps) and n not in reached:
                reached.add(n)
                todo.append(n)
    for n in range(len(workflow.steps)):
        if n not in reached:
            yield ("steps", n), f'step "{workflow.step_id(n)}" is unreachable: no step leads to it'
    for loop in endless_cycles(workflow, step_index, reached, symbols):
        waits = [workflow.step_id(n) for n in loop[:-1] if workflow.steps[n].wait_for is not None]
        yield (
            ("steps", loop[0]),
            (
                "endless loop without a wait: "
                + " -> ".join(map(workflow.step_id, loop))
                + (f'; the condition of "{waits[0]}" is already true when the run returns to it' if waits else "")
            ),
        )
