"""Workflow runs of a person: entry rules, completed runs, waiting for sends, split assignments.

    person.runs             run id -> WorkflowRun: workflow and version, current step, since when, until when
    person.completed_runs   workflow -> number of completed runs and the last exit
    timers                  "workflow:<run id>": the next time at which time alone may advance this run

The timer name sorts after all others, so everything else due at the same moment is applied first.
"""

from collections.abc import Iterable
from hashlib import blake2b

from state.context import StepContext
from state.decisions.experiments import HOLDOUT_REASONS, unit_hash
from state.person.model import MAX_ASSIGNMENTS, MAX_COMPLETED_RUNS, CompletedRuns, Person, WorkflowRun
from state.playbook.workflow import StepRule, WorkflowRule

RUN_TIMER = "workflow:"
RETRY_INTERVAL = 3_600_000
"""Interval at which a suppressed send is retried (ms)."""

SEND, SENT, SUPPRESSED = "send", "sent", "suppressed"
"""Values of `WorkflowRun.waiting_for` at a send step: requested, sent, or suppressed for good."""

SEND_STATES = frozenset((SEND, SENT, SUPPRESSED))

FINAL_REASONS = HOLDOUT_REASONS
"""Suppression reasons that are not retried."""

TEMPORARY_REASONS = frozenset(("coupon_pending", "quiet_hours", "later"))
"""Suppression reasons that pass; the run waits for them even without a timeout, for at most a day."""
MAX_SEND_WAIT = 86_400_000


def run_id(workflow: str, origin: str) -> str:
    """Return the key of a run: one input starts a workflow at most once.

    >>> run_id("welcome", "clicks-1-2")
    'welcome-b046b9dd26f5'
    """
    return f"{workflow}-{blake2b(origin.encode(), digest_size=6).hexdigest()}"


def may_enter(person: Person, rule: WorkflowRule, now: int) -> bool:
    """Return whether the re-entry rules allow another run.

    `reentry_after` counts from the last exit; at that moment entry is allowed.
    """
    completed = person.completed_runs.get(rule.name)
    if completed is not None and (
        rule.reentry == "never" or (rule.reentry == "after" and now < completed.last_exit_at + rule.reentry_after)
    ):
        return False
    return sum([1 for run in person.runs.values() if run.workflow == rule.name]) < rule.max_concurrent


def oldest_first(person: Person, run_keys: Iterable[str]) -> list[str]:
    """Sort runs by start, oldest first."""
    return sorted(run_keys, key=lambda name: (person.runs[name].started_at, name))


def excess_runs(person: Person, rule: WorkflowRule) -> list[str]:
    """Return the youngest runs beyond `max_concurrent_runs`, which can result from a merge."""
    return oldest_first(person, [name for name, run in person.runs.items() if run.workflow == rule.name])[
        rule.max_concurrent :
    ]


def end_run(person: Person, run_key: str, now: int) -> WorkflowRun:
    """Remove a run and count it as completed."""
    run = person.runs.pop(run_key)
    person.timers.pop(RUN_TIMER + run_key, None)
    completed = person.completed_runs.pop(run.workflow, None) or CompletedRuns()
    person.completed_runs[run.workflow] = CompletedRuns(completed.count + 1, max(completed.last_exit_at, now))
    evict_completed(person.completed_runs)
    return run


def evict_completed(completed: dict[str, CompletedRuns]) -> None:
    """Evict the workflows with the oldest exit beyond the maximum; they may be entered again as for the first time."""
    while len(completed) > MAX_COMPLETED_RUNS:
        del completed[min(completed, key=lambda name: (completed[name].last_exit_at, name))]


def merge_runs(person: Person, runs: dict[str, WorkflowRun], completed: dict[str, CompletedRuns]) -> None:
    """Take over the runs and completed runs of another id of this person.

    Excess runs exit at the next step (`operators/advance_workflows.py`), which knows the rules.
    """
    for name, run in runs.items():
        person.runs.setdefault(name, run)
    for name, more in completed.items():
        have = person.completed_runs.get(name, CompletedRuns())
        person.completed_runs[name] = CompletedRuns(have.count + more.count, max(have.last_exit_at, more.last_exit_at))
    evict_completed(person.completed_runs)


def report_send(person: Person, run_key: str, sent: bool, reason: str, context: StepContext) -> None:
    """Record the result of a send requested by a run. The run continues at once (timer `again:`).

    A suppressed send is retried until the step's timeout.
    """
    run = person.runs.get(run_key)
    if run is None or run.waiting_for != SEND:
        return
    if not sent and reason in TEMPORARY_REASONS and not run.wait_until:
        run.wait_until = context.now + MAX_SEND_WAIT
    if sent:
        run.waiting_for = SENT
    elif reason in FINAL_REASONS or not run.wait_until:
        run.waiting_for = SUPPRESSED
    else:
        return
    person.timers["again:"] = context.now


def choose_split(person: Person, workflow: str, step: StepRule) -> int:
    """Return the step index that a split assigns to this person, drawn by weight and stored.

    The assignment is stable across merges and weight changes; it is drawn again only if its branch was removed. Beyond
    the maximum, the oldest assignment is evicted; drawing it again gives the same result unless the weights or the id
    changed.
    """
    key = f"{workflow}/{step.id}"
    stored = person.assignments.get(key, "").rpartition(" ")[0]
    for name, _, target in step.split:
        if name == stored:
            return target
    total_weight = sum(weight for _, weight, _ in step.split)
    position = unit_hash(person.id, key) * total_weight
    drawn = step.split[-1]
    for drawn in step.split:
        position -= drawn[1]
        if position < 0:
            break
    name, weight, target = drawn
    if key not in person.assignments and len(person.assignments) >= MAX_ASSIGNMENTS:
        del person.assignments[next(iter(person.assignments))]
    person.assignments[key] = f"{name} {weight / total_weight:.9g}"
    return target
