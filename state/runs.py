"""Runs: the ways of a person through workflows, as they are kept: who may enter, who gives way, what is waited for.

    person.runs     run id -> Run: which workflow and version, at which step, since when, until when
    person.been     workflow -> how often they went through it, and when they last left
    timers          "workflow:<run id>": the next moment at which time alone may move this run

The timer's name sorts behind all others, so what else becomes true at the same moment is known when a run is looked at.
"""

from collections.abc import Iterable
from hashlib import blake2b

from state.context import Context
from state.experiments import HELD_OUT, chance
from state.person import MAX_ASSIGNED, MAX_BEEN, Been, Person, Run
from state.workflow_rules import StepRule, WorkflowRule

TIMER = "workflow:"
HOUR = 3_600_000
"""How often a send that was held is tried again, when nothing happens meanwhile."""

SEND, SENT, HELD = "send", "sent", "held"
"""What `Run.waits` is at a step that sends: it asked and may ask again; it was told that it was sent, or held."""

ASKED = frozenset((SEND, SENT, HELD))

FINAL = HELD_OUT
"""Reasons to hold that no patience outlasts."""

PENDING = frozenset(("coupon_pending", "quiet_hours", "later"))
"""Reasons to hold that pass by themselves: also without patience they are waited for, for a day at most."""
DAY = 86_400_000


def run_id(workflow: str, origin: str) -> str:
    """The key of a run in `person.runs`: one happening begins a workflow at most once.

    >>> run_id("welcome", "clicks-1-2")
    'welcome-b046b9dd26f5'
    """
    return f"{workflow}-{blake2b(origin.encode(), digest_size=6).hexdigest()}"


def may_enter(person: Person, rule: WorkflowRule, now: int) -> bool:
    """Whether the rules of re-entry let this person begin (again).

    `again_after` counts from when they last left; at that very moment they may.
    """
    been = person.been.get(rule.name)
    if been is not None and (rule.again == "never"
                             or (rule.again == "after" and now < been.left_at + rule.again_after)):
        return False
    return sum([1 for run in person.runs.values() if run.workflow == rule.name]) < rule.at_once


def oldest(person: Person, names: Iterable[str]) -> list[str]:
    """These runs, the one that began first first."""
    return sorted(names, key=lambda name: (person.runs[name].began_at, name))


def too_many(person: Person, rule: WorkflowRule) -> list[str]:
    """The runs beyond `at_once`: what two ids of one person began, each for itself. The older ones stay."""
    return oldest(person, [name for name, run in person.runs.items() if run.workflow == rule.name])[rule.at_once:]


def end(person: Person, name: str, now: int) -> Run:
    """Take a run out; it counts as having been through the workflow."""
    run = person.runs.pop(name)
    person.timers.pop(TIMER + name, None)
    been = person.been.pop(run.workflow, None) or Been()
    person.been[run.workflow] = Been(been.times + 1, max(been.left_at, now))
    bound(person.been)
    return run


def bound(been: dict[str, Been]) -> None:
    """At most MAX_BEEN workflows are remembered as gone through; the one left longest ago is forgotten, and may be
    entered as if for the first time.
    """
    while len(been) > MAX_BEEN:
        del been[min(been, key=lambda name: (been[name].left_at, name))]


def join(person: Person, runs: dict[str, Run], been: dict[str, Been]) -> None:
    """Take over the runs of another id of this person, and what they went through.

    Who is in one workflow more often than `at_once` allows leaves the younger runs at the next step
    (`operators/advance_workflows.py`), which knows the rules.
    """
    for name, run in runs.items():
        person.runs.setdefault(name, run)
    for name, more in been.items():
        have = person.been.get(name, Been())
        person.been[name] = Been(have.times + more.times, max(have.left_at, more.left_at))
    bound(person.been)


def told(person: Person, run: str, sent: bool, reason: str, context: Context) -> None:
    """What became of a send that a run asked for. The run goes on at once, by the timer `again:`; while it has
    patience, a send that was held is asked for again later.
    """
    found = person.runs.get(run)
    if found is None or found.waits != SEND:
        return
    if not sent and reason in PENDING and not found.until:
        found.until = context.now + DAY
    if sent:
        found.waits = SENT
    elif reason in FINAL or not found.until:
        found.waits = HELD
    else:
        return
    person.timers["again:"] = context.now


def way_of(person: Person, workflow: str, step: StepRule) -> int:
    """The step that a split leads this person to: drawn once, by the weights, and kept with the person.

    It is the same however often they come by, also after a login or when the weights change; a way that is not there
    any more is drawn anew. Of too many that are kept the one drawn longest ago is forgotten: its draw is the same again
    unless the weights or the person's id have changed.
    """
    key = f"{workflow}/{step.id}"
    kept = person.assigned.get(key, "").rpartition(" ")[0]
    for name, _, place in step.split:
        if name == kept:
            return place
    whole = sum(weight for _, weight, _ in step.split)
    where = chance(person.id, key) * whole
    drawn = step.split[-1]
    for drawn in step.split:
        where -= drawn[1]
        if where < 0:
            break
    name, weight, place = drawn
    if key not in person.assigned and len(person.assigned) >= MAX_ASSIGNED:
        del person.assigned[next(iter(person.assigned))]
    person.assigned[key] = f"{name} {weight / whole:.9g}"
    return place
