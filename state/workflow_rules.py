"""Workflows, compiled: their steps as places to go to, indexed by what makes people enter.

The live version of a workflow is what people enter; those who began an earlier one are found in `versions`. What is to
become of them is the live version's word (`when_changed`); of a workflow that was removed, its last version's.

>>> flows = Workflows(Playbook())
>>> flows.live, flows.on_event
({}, {})
"""

from collections.abc import Iterable
from typing import NamedTuple

from domain.duration import parse
from domain.playbook import Playbook
from domain.shop import Shop
from domain.workflow import Step, Workflow, version_of
from state.conditions import Compiled, compile_condition
from state.finder import EventFinder
from state.occasions import OccasionRule
from state.properties import matcher
from state.ways import ways

END = -1
"""Where the last step leads to."""


class StepRule:
    """A step made ready. `next`, `then` and `otherwise` are indexes of steps, or END; `span` is how long it waits (ms).

    `needs` is what can end the waiting (or the run), in the words of `state/changes.py`.
    """

    __slots__ = ("event", "id", "kind", "matches", "needs", "next", "otherwise", "sends", "span", "split", "step",
                 "then", "ways", "when", "words")

    def __init__(self, workflow: Workflow, n: int, places: dict[str, int], leaves: Compiled | None, shop: Shop) -> None:
        step = self.step = workflow.steps[n]
        self.id = workflow.id_of(n)
        self.kind = step.kind
        self.sends = step.send is not None
        if not self.kind:
            raise ValueError(f"workflow {workflow.name}, {self.id}: should do exactly one thing")

        def place(name: str | None, otherwise: int) -> int:
            if name is None:
                return otherwise
            if name not in places:
                raise ValueError(f'workflow {workflow.name}, {self.id}: there is no step "{name}"')
            return places[name]

        self.next = place(step.go, n + 1 if n + 1 < len(workflow.steps) else END)
        self.then = self.next
        self.otherwise = place(step.otherwise, self.next)
        self.event, self.matches = "", matcher({})
        self.when: Compiled | None = None
        self.span = parse(step.wait or step.patience or "0s")
        wait = step.wait_for
        if wait is not None:
            self.event, self.matches = wait.event or "", matcher(wait.where)
            self.when = compile_condition(wait.when, shop) if wait.when is not None else None
            self.then, self.otherwise = place(wait.then, self.next), place(wait.otherwise, self.next)
            self.span = parse(wait.within)
        self.ways = tuple((compile_condition(way.when, shop), place(way.go, END)) for way in step.branch)
        # In the order of their names: the bytes that are kept of a playbook know no other.
        self.split = tuple((name, weight, place(name, END)) for name, weight in sorted(step.split.items()))
        self.words = _words(step)
        self.needs: frozenset[str] = frozenset().union(*(one.needs for one in (leaves, self.when) if one is not None))


class WorkflowRule:
    """One version of a workflow made ready. ValueError when a step leads nowhere."""

    __slots__ = ("again", "again_after", "at", "at_once", "leaves", "leaves_on", "name", "steps", "version",
                 "when_changed", "workflow")

    def __init__(self, workflow: Workflow, shop: Shop) -> None:
        self.workflow = workflow
        self.name = workflow.name
        self.version = version_of(workflow)
        self.leaves = compile_condition(workflow.leaves, shop) if workflow.leaves is not None else None
        self.leaves_on = frozenset(workflow.leaves_on)
        self.again = workflow.again
        self.again_after = parse(workflow.again_after)
        self.at_once = workflow.at_once
        self.when_changed = workflow.when_changed
        self.at: dict[str, int] = {}
        """Where each step is, by its id; of two with one id the first."""
        for n in range(len(workflow.steps)):
            self.at.setdefault(workflow.id_of(n), n)
        self.steps = tuple(StepRule(workflow, n, self.at, self.leaves, shop) for n in range(len(workflow.steps)))


class Entry(NamedTuple):
    """An occasion on which people enter a workflow."""

    rule: WorkflowRule
    occasion: OccasionRule


class Entering:
    """The entries that one event may be the occasion of, in order; `find` gives the places of those that it may be."""

    __slots__ = ("entries", "find")

    def __init__(self, entries: tuple[Entry, ...], shop: Shop) -> None:
        self.entries = entries
        self.find = EventFinder((n, one.occasion.properties, ways(one.occasion.when, shop))
                                for n, one in enumerate(entries)).find


class Workflows:
    """All workflows of a playbook. `on_event`, `on_segment` and `on_left` are what makes people enter the live ones."""

    __slots__ = ("live", "newest", "on_event", "on_left", "on_segment", "versions")

    def __init__(self, playbook: Playbook) -> None:
        shop = playbook.shop
        self.live = {one.name: WorkflowRule(one, shop) for one in playbook.workflows}
        self.versions: dict[tuple[str, str], WorkflowRule] = {}
        self.newest: dict[str, WorkflowRule] = {}
        """The live version, or the last one before the workflow was removed."""
        for rule in (*_past(playbook), *self.live.values()):
            self.versions[rule.name, rule.version] = rule
            self.newest[rule.name] = rule
        entries = [Entry(rule, OccasionRule(occasion, shop)) for _, rule in sorted(self.live.items())
                   for occasion in rule.workflow.occasions]
        self.on_event = {event: Entering(some, shop) for event, some in _grouped(
            (one.occasion.event, one) for one in entries if one.occasion.event).items()}
        moves = [one for one in entries if not one.occasion.event]
        self.on_segment = _grouped((one.occasion.segment, one) for one in moves if not one.occasion.left)
        self.on_left = _grouped((one.occasion.segment, one) for one in moves if one.occasion.left)


def _past(playbook: Playbook) -> Iterable[WorkflowRule]:
    """The earlier versions, oldest first. One that says what this program no longer understands is gone."""
    for one in playbook.past:
        try:
            yield WorkflowRule(one, playbook.shop)
        except ValueError:
            continue


def _grouped(pairs: Iterable[tuple[str, Entry]]) -> dict[str, tuple[Entry, ...]]:
    groups: dict[str, tuple[Entry, ...]] = {}
    for key, entry in pairs:
        groups[key] = (*groups.get(key, ()), entry)
    return groups


def _words(step: Step) -> str:
    """What somebody at this step waits for, in words."""
    if step.send is not None:
        return f"to be told {step.send}"
    if step.wait_for is not None:
        return f'event "{step.wait_for.event}"' if step.wait_for.event else "something to become true"
    if step.wait_until is not None:
        days = step.wait_until.weekday
        named = " or ".join(days if isinstance(days, tuple) else [days] if days else [])
        return " ".join(word for word in (named, step.wait_until.time) if word)
    return "time to pass"
