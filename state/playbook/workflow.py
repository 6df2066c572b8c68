"""Workflows, compiled: their steps as places to go to, indexed by what makes people enter.

The live version of a workflow is what people enter; those who began an earlier one are found in `versions`. What is to
become of them is the live version's word (`when_changed`); of a workflow that was removed, its last version's.

>>> flows = Workflows(Playbook())
>>> flows.live, flows.on_event
({}, {})
"""

from collections.abc import Iterable
from typing import NamedTuple

from domain.duration import parse_duration
from domain.playbook.playbook import Playbook
from domain.playbook.shop import Shop
from domain.playbook.workflow import Step, Workflow, workflow_version
from state.conditions.compile import CompiledCondition, compile_condition, dnf_clauses
from state.conditions.index import EventIndex
from state.conditions.properties import matcher
from state.playbook.trigger import TriggerRule

END = -1
"""Index that follows the last step."""


class StepRule:
    """A step made ready. `next`, `then` and `otherwise` are indexes of steps, or END; `span` is how long it waits (ms).

    `needs` is what can end the waiting (or the run), in the words of `state/membership/changes.py`.
    """

    __slots__ = (
        "branches",
        "depends_on",
        "description",
        "duration",
        "else_",
        "event",
        "id",
        "kind",
        "matches",
        "next",
        "sends",
        "split",
        "step",
        "then",
        "when",
    )

    def __init__(
        self, workflow: Workflow, n: int, step_index: dict[str, int], exit_when: CompiledCondition | None, shop: Shop
    ) -> None:
        step = self.step = workflow.steps[n]
        self.id = workflow.step_id(n)
        self.kind = step.kind
        self.sends = step.send is not None
        if not self.kind:
            raise ValueError(f"workflow {workflow.name}, {self.id}: should do exactly one thing")

        def place(name: str | None, otherwise: int) -> int:
            if name is None:
                return otherwise
            if name not in step_index:
                raise ValueError(f'workflow {workflow.name}, {self.id}: there is no step "{name}"')
            return step_index[name]

        self.next = place(step.goto, n + 1 if n + 1 < len(workflow.steps) else END)
        self.then = self.next
        self.else_ = place(step.else_, self.next)
        self.event, self.matches = "", matcher({})
        self.when: CompiledCondition | None = None
        self.duration = parse_duration(step.wait or step.timeout or "0s")
        wait = step.wait_for
        if wait is not None:
            self.event, self.matches = wait.event or "", matcher(wait.where)
            self.when = compile_condition(wait.when, shop) if wait.when is not None else None
            self.then, self.else_ = place(wait.then, self.next), place(wait.else_, self.next)
            self.duration = parse_duration(wait.timeout)
        self.branches = tuple((compile_condition(way.when, shop), place(way.goto, END)) for way in step.branch)
        # In the order of their names: the bytes that are kept of a playbook know no other.
        self.split = tuple((name, weight, place(name, END)) for name, weight in sorted(step.split.items()))
        self.description = _describe_step(step)
        self.depends_on: frozenset[str] = frozenset().union(
            *(one.depends_on for one in (exit_when, self.when) if one is not None)
        )


class WorkflowRule:
    """One compiled version of a workflow. ValueError if a step refers to an unknown step."""

    __slots__ = (
        "exit_on",
        "exit_when",
        "max_concurrent",
        "name",
        "reentry",
        "reentry_after",
        "step_index",
        "steps",
        "version",
        "when_changed",
        "workflow",
    )

    def __init__(self, workflow: Workflow, shop: Shop) -> None:
        self.workflow = workflow
        self.name = workflow.name
        self.version = workflow_version(workflow)
        self.exit_when = compile_condition(workflow.exit_when, shop) if workflow.exit_when is not None else None
        self.exit_on = frozenset(workflow.exit_on)
        self.reentry = workflow.reentry
        self.reentry_after = parse_duration(workflow.reentry_after)
        self.max_concurrent = workflow.max_concurrent_runs
        self.when_changed = workflow.on_change
        self.step_index: dict[str, int] = {}
        """Return the index of each step by id; the first one for duplicate ids."""
        for n in range(len(workflow.steps)):
            self.step_index.setdefault(workflow.step_id(n), n)
        self.steps = tuple(
            StepRule(workflow, n, self.step_index, self.exit_when, shop) for n in range(len(workflow.steps))
        )


class WorkflowEntry(NamedTuple):
    """A trigger through which people enter a workflow."""

    rule: WorkflowRule
    trigger: TriggerRule


class WorkflowEntryIndex:
    """The entries that one event may be the occasion of, in order; `find` gives the places of those that it may be."""

    __slots__ = ("candidates", "entries")

    def __init__(self, entries: tuple[WorkflowEntry, ...], shop: Shop) -> None:
        self.entries = entries
        self.candidates = EventIndex(
            (n, one.trigger.properties, dnf_clauses(one.trigger.when, shop)) for n, one in enumerate(entries)
        ).candidates


class Workflows:
    """All workflows of a playbook. `on_event`, `on_segment` and `on_left` are what makes people enter the live ones."""

    __slots__ = ("latest", "live", "on_event", "on_left", "on_segment", "versions")

    def __init__(self, playbook: Playbook) -> None:
        shop = playbook.shop
        self.live = {one.name: WorkflowRule(one, shop) for one in playbook.workflows}
        self.versions: dict[tuple[str, str], WorkflowRule] = {}
        self.latest: dict[str, WorkflowRule] = {}
        """Return the live version, or the last one before the workflow was removed."""
        for rule in (*_past_versions(playbook), *self.live.values()):
            self.versions[rule.name, rule.version] = rule
            self.latest[rule.name] = rule
        entries = [
            WorkflowEntry(rule, TriggerRule(occasion, shop))
            for _, rule in sorted(self.live.items())
            for occasion in rule.workflow.entry_triggers
        ]
        self.on_event = {
            event: WorkflowEntryIndex(some, shop)
            for event, some in _group((one.trigger.event, one) for one in entries if one.trigger.event).items()
        }
        moves = [one for one in entries if not one.trigger.event]
        self.on_segment = _group((one.trigger.segment, one) for one in moves if not one.trigger.on_exit)
        self.on_left = _group((one.trigger.segment, one) for one in moves if one.trigger.on_exit)


def _past_versions(playbook: Playbook) -> Iterable[WorkflowRule]:
    """The earlier versions, oldest first. One that says what this program no longer understands is gone."""
    for one in playbook.previous_workflows:
        try:
            yield WorkflowRule(one, playbook.shop)
        except ValueError:
            continue


def _group(pairs: Iterable[tuple[str, WorkflowEntry]]) -> dict[str, tuple[WorkflowEntry, ...]]:
    groups: dict[str, tuple[WorkflowEntry, ...]] = {}
    for key, entry in pairs:
        groups[key] = (*groups.get(key, ()), entry)
    return groups


def _describe_step(step: Step) -> str:
    """Describe what a run at this step waits for."""
    if step.send is not None:
        return f"to be told {step.send}"
    if step.wait_for is not None:
        return f'event "{step.wait_for.event}"' if step.wait_for.event else "something to become true"
    if step.wait_until is not None:
        days = step.wait_until.weekday
        named = " or ".join(days if isinstance(days, tuple) else [days] if days else [])
        return " ".join(word for word in (named, step.wait_until.time) if word)
    return "time to pass"
