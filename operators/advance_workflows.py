"""advance_workflows: start workflow runs, execute their steps, and exit.

    entry trigger (event, segment entered or exited) ──▶ a run starts ──▶ steps up to the next wait, at one instant
    timer, event or changed condition                ──▶ a run continues or exits; exit conditions are checked first

Each waiting run has one timer, `workflow:<run id>`: the next time at which the run can change without an event. Changes
made by steps (segments, traits, coupons) are re-evaluated immediately through the timer `again:`. `decide` decides a
send in the same input; the run continues at the same instant, when the result is known.

An event at the timeout still counts. A `wait_for` step ignores the event that led to it. A late event counts if its
event time is after the start of the step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from domain.action import Cancel, Effect, Explanation, ShardMessage, WorkflowProgress
from domain.playbook.workflow import Step, Workflow
from state.context import Input, StepContext, TimerFired, trigger_name
from state.coupons.leasing import PENDING
from state.coupons.wallet import reserve_coupon
from state.decisions import messages
from state.decisions.exposures import release
from state.decisions.frequency import Candidate
from state.decisions.log import record_decision
from state.local_time import next_matching_time
from state.membership import workflow_runs
from state.membership.static_segments import tag, untag
from state.membership.workflow_runs import (
    RETRY_INTERVAL,
    RUN_TIMER,
    SEND,
    SEND_STATES,
    SENT,
    SUPPRESSED,
    choose_split,
    report_send,
)
from state.person.model import MAX_RUNS, MAX_TEXT_LENGTH, MAX_TRAITS, Person, Trait, WorkflowRun
from state.playbook.workflow import END, StepRule, WorkflowEntry, WorkflowRule
from state.profile.profile import merged_profile, set_trait

STEP_NAME = "advance_workflows"
WORKFLOW_TIEBREAK = 1 << 32
"""Tiebreak of a trait that a workflow sets: greater than that of any event of the same millisecond."""


class RunContext(NamedTuple):
    """One workflow run with its person, workflow version, input and the effects so far."""

    person: Person
    event: Input
    context: StepContext
    effects: list[Effect]
    rule: WorkflowRule
    run_key: str
    run: WorkflowRun

    def emit(
        self,
        transition: str,
        reason: str = "",
        detail: str = "",
        goal: str = "",
        passed: tuple[str, ...] = (),
        trigger: str = "",
    ) -> None:
        """Append a `WorkflowProgress` effect."""
        person, context, run = self.person, self.context, self.run
        self.effects.append(
            WorkflowProgress(
                id=context.next_effect_id(STEP_NAME),
                at=context.now,
                person=person.id,
                workflow=run.workflow,
                version=run.version,
                transition=transition,
                step=run.step_id,
                run=self.run_key,
                goal=goal,
                anonymous_id=person.session.anonymous_id if person.session is not None else "",
                because=Explanation(
                    trigger=trigger or trigger_name(self.event),
                    reason=reason,
                    detail=detail,
                    passed=passed,
                    playbook=context.rules.short_hash,
                    workflow=run.workflow,
                ),
            )
        )


# -- entering a step -------------------------------------------------------------------------------------------


def enter_step(run_context: RunContext, step: StepRule) -> int | None:
    """Execute a step; return the index of the next step (or END), or None if the run waits.

    `run.step_since` must be set.

    >>> import msgspec
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> rest = {"name": "rest", "enter_on": {"event": "Quiz Finished"},
    ...         "steps": [{"wait": "1h"}, {"add_to_segment": "vip"}]}
    >>> context = StepContext(0, compile_rules(msgspec.convert({"workflows": [rest]}, Playbook)))
    >>> rule, run = context.rules.workflows.live["rest"], WorkflowRun("rest", "v", started_at=0)
    >>> run_context = RunContext(Person(id="a:ann"), TimerFired("again", "", 0), context, [], rule, "rest-1", run)
    >>> enter_step(run_context, rule.steps[0]), run.wait_until
    (None, 3600000)
    """
    return _STEP_HANDLERS[step.kind](run_context, step)


def _wait(run_context: RunContext, step: StepRule) -> int | None:
    wait_at(run_context, step)
    return next_step(run_context, step, just_entered=True)


def _branch(run_context: RunContext, step: StepRule) -> int | None:
    profile = merged_profile(run_context.person)
    for when, step_index in step.branches:
        if when.is_met(run_context.person, profile, run_context.context.now):
            return step_index
    return step.next


def _split(run_context: RunContext, step: StepRule) -> int | None:
    return choose_split(run_context.person, run_context.rule.name, step)


def _send(run_context: RunContext, step: StepRule) -> int | None:
    wait_at(run_context, step)
    return request_send(run_context, step)


def request_send(run_context: RunContext, step: StepRule) -> int | None:
    """Propose the campaign of a `send` step.

    `decide` decides it in the same input and reports to the run through `report_send`. If two runs send the same
    campaign at the same instant, the second run gets `lower_priority`.
    """
    person, context = run_context.person, run_context.context
    rule = context.rules.campaigns.get(step.step.send or "")
    if rule is None:
        return step.else_
    if any(one.rule is rule and one.run_id for one in context.candidates):
        report_send(person, run_context.run_key, False, "lower_priority", context)
        return None
    profile = merged_profile(person)
    if rule.is_met(person, profile, context.now):
        context.candidates.append(Candidate(rule, run_id=run_context.run_key))
    else:
        failed = rule.explain(person, profile, context.now)[1]
        context.candidates.append(Candidate(rule, "not_eligible", "; ".join(failed), run_context.run_key))
    return None


def _tag(run_context: RunContext, step: StepRule) -> int | None:
    run_context.effects.extend(
        tag(
            run_context.person, step.step.add_to_segment or "", run_context.context, f"workflow {run_context.rule.name}"
        )
    )
    return step.next


def _untag(run_context: RunContext, step: StepRule) -> int | None:
    run_context.effects.extend(
        untag(
            run_context.person,
            step.step.remove_from_segment or "",
            run_context.context,
            f"workflow {run_context.rule.name}",
        )
    )
    return step.next


def _set(run_context: RunContext, step: StepRule) -> int | None:
    person, now = run_context.person, run_context.context.now
    profile = person.own_fragment()
    for name, value in step.step.set_traits.items():
        kept = value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value
        set_trait(profile.traits, name, Trait(now, kept, WORKFLOW_TIEBREAK), MAX_TRAITS)
    profile.version += 1
    person.timers["again:"] = now
    return step.next


def _coupon(run_context: RunContext, step: StepRule) -> int | None:
    """Reserve a coupon; while the shard leases more codes, wait up to `RETRY_INTERVAL`."""
    run, context = run_context.run, run_context.context
    reserved = reserve_coupon(run_context.person, step.step.coupon or "", run_context.rule.name, context)
    if isinstance(reserved, str):
        if reserved == PENDING and context.now < run.step_since + RETRY_INTERVAL:
            run.wait_until, run.waiting_for = run.step_since + RETRY_INTERVAL, "coupon_code"
            return None
        run_context.emit("step", reserved)
    return step.next


def _goal(run_context: RunContext, step: StepRule) -> int | None:
    run_context.emit("goal", goal=step.step.goal or "")
    return step.next


_STEP_HANDLERS: dict[str, Callable[[RunContext, StepRule], int | None]] = {
    "wait": _wait,
    "wait_until": _wait,
    "wait_for": _wait,
    "branch": _branch,
    "split": _split,
    "send": _send,
    "add_to_segment": _tag,
    "remove_from_segment": _untag,
    "set_traits": _set,
    "coupon": _coupon,
    "goal": _goal,
    "exit": lambda run_context, step: END,
    "goto": lambda run_context, step: step.next,
}


# -- waiting at a step -----------------------------------------------------------------------------------------


def wait_at(run_context: RunContext, step: StepRule) -> None:
    """Set what the run waits for, and until when, counted from `run.step_since`."""
    run = run_context.run
    if step.step.wait_until is not None:
        zone = run_context.context.rules.shop.timezone
        run.wait_until = next_matching_time(
            step.step.wait_until, run.step_since, merged_profile(run_context.person).timezone or zone, zone
        )
    else:
        run.wait_until = run.step_since + step.duration if step.duration or step.kind != "send" else 0
    run.waiting_for = SEND if step.kind == "send" else step.description


def next_step(run_context: RunContext, step: StepRule, just_entered: bool = False) -> int | None:
    """Return the index of the next step (or END), or None while the run waits.

    If the run has `just_entered` the step, the current event does not count.
    """
    person, run, event, now = run_context.person, run_context.run, run_context.event, run_context.context.now
    if step.kind == "send":
        return _next_after_send(run_context, step)
    if step.kind == "coupon":  # only a timer or a shard message can bring codes, so events do not retry
        return (
            _coupon(run_context, step)
            if isinstance(event, (TimerFired, ShardMessage)) and not _is_other_timer(run_context)
            else None
        )
    if (
        step.event
        and not just_entered
        and not isinstance(event, (TimerFired, ShardMessage))
        and event.name == step.event
        and step.matches(event)
        and (not run_context.context.late or run_context.context.event_time >= run.step_since)
    ):
        return step.then
    if step.when is not None and step.when.is_met(person, merged_profile(person), now):
        return step.then
    return step.else_ if now >= run.wait_until else None


def _next_after_send(run_context: RunContext, step: StepRule) -> int | None:
    run, event = run_context.run, run_context.event
    if run.waiting_for == SENT:
        return step.next
    if run.waiting_for == SUPPRESSED or (run.wait_until and run_context.context.now >= run.wait_until):
        return step.else_
    if isinstance(event, ShardMessage) or _is_other_timer(run_context):
        return None
    return request_send(run_context, step)


def _is_other_timer(run_context: RunContext) -> bool:
    """Return whether the input is a timer of something other than this run."""
    event = run_context.event
    return (
        isinstance(event, TimerFired)
        and event.kind != "again"
        and (event.kind != RUN_TIMER[:-1] or event.id != run_context.run_key)
    )


def wake_at(run_context: RunContext, step: StepRule) -> int:
    """Return the next time (ms) at which the run can continue or exit without an event."""
    person, run, now, rule = run_context.person, run_context.run, run_context.context.now, run_context.rule
    at = run.wait_until or now + RETRY_INTERVAL
    if step.kind == "send":
        at = min(at, now + RETRY_INTERVAL)
    for when in (rule.exit_when, step.when):
        if when is not None and when.time_dependent:
            change = when.next_change(person, merged_profile(person), now)
            if change is not None and change < at:
                at = change
    return at


MAX_STEPS_AT_ONCE = 100
"""Maximum steps of one run, and maximum chained inputs, at one instant; more is an endless loop."""

VERSION_EXPIRED = "this version is no longer kept"
WORKFLOW_CHANGED = "the workflow was changed"
STEP_REMOVED = "its step is not in the new version"
ENDLESS_LOOP = "went in circles without waiting"
TOO_MANY_RUNS = "too many workflows at once"
DUPLICATE_RUN = "was in it already, under another id"
EXITED = "they left the workflow"

WAIT_KINDS = frozenset(("wait", "wait_until", "wait_for"))


def step(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
    """Advance the runs that this input affects, and start the workflows that it triggers.

    >>> import msgspec
    >>> from domain.event import Track
    >>> from domain.playbook.playbook import Playbook
    >>> from state.playbook.compiled import compile_rules
    >>> rest = {"name": "rest", "enter_on": {"event": "Quiz Finished"}, "steps": [{"wait": "1h"}, {"goal": "rested"}]}
    >>> context = StepContext(0, compile_rules(msgspec.convert({"workflows": [rest]}, Playbook)))
    >>> ann, now = Person(id="a:ann"), 1_700_000_000_000
    >>> context.start_input("clicks-0-1", now, now)
    >>> [one.transition for one in step(ann, Track(event="Quiz Finished"), context)]
    ['entered', 'step']
    >>> [at - now for name, at in ann.timers.items() if name.startswith("workflow:")]
    [3600000]
    """
    if not person.runs and not context.segment_changes:
        entry_index = context.rules.workflows.on_event
        if not entry_index or isinstance(event, ShardMessage) or event.name not in entry_index:
            return ()
    if person.bot or person.merged_into:
        return ()
    effects: list[Effect] = []
    if person.runs:
        if isinstance(event, ShardMessage):
            _exit_duplicates(person, event, context, effects)
        for name in _affected_runs(person, event, context):
            run_context = _load_run(person, event, context, effects, name)
            if run_context is not None:
                _advance(run_context)
    if context.rules.workflows.live:
        _enter_workflows(person, event, context, effects)
    return effects


# -- active runs -----------------------------------------------------------------------------------------------


def _affected_runs(person: Person, event: Input, context: StepContext) -> list[str]:
    """Return the runs that this input can affect, oldest first.

    If the changes are unknown, return all runs. Otherwise return the runs that wait for this event, for a due timer
    or for a changed dependency.
    """
    changed, workflows, runs, timers = context.changed_dependencies, context.rules.workflows, person.runs, person.timers
    if changed is None:
        return workflow_runs.oldest_first(person, runs)
    now, event_name = context.now, "" if isinstance(event, (TimerFired, ShardMessage)) else event.name
    found = []
    for name, run in runs.items():
        rule = workflows.versions.get((run.workflow, run.version))
        if rule is not None:
            step = rule.steps[run.step_index]
            if (
                step.depends_on.isdisjoint(changed)
                and not (event_name and (step.sends or event_name == step.event or event_name in rule.exit_on))
                and timers.get(RUN_TIMER + name, 0) > now
            ):  # no timer: it has just fired or was removed
                continue
        found.append(name)
    return found if len(found) < 2 else workflow_runs.oldest_first(person, found)


def _load_run(
    person: Person, event: Input, context: StepContext, effects: list[Effect], run_key: str
) -> RunContext | None:
    """Return a run with its workflow version, or None if the run exited or has already continued."""
    run, workflows = person.runs[run_key], context.rules.workflows
    live = workflows.live.get(run.workflow)
    if live is not None and live.version == run.version:
        return RunContext(person, event, context, effects, live, run_key, run)
    original, latest = workflows.versions.get((run.workflow, run.version)), workflows.latest.get(run.workflow)
    policy = latest.when_changed if latest is not None else "finish"
    if policy == "move" and live is not None:
        if run.step_id in live.step_index:
            return _migrate(RunContext(person, event, context, effects, live, run_key, run))
        reason = STEP_REMOVED
    elif policy == "exit":
        reason = WORKFLOW_CHANGED
    elif original is not None:
        return RunContext(person, event, context, effects, original, run_key, run)
    else:
        reason = VERSION_EXPIRED
    _exit_run(RunContext(person, event, context, effects, _version_or_empty(context, run), run_key, run), reason)
    return None


def _version_or_empty(context: StepContext, run: WorkflowRun) -> WorkflowRule:
    """Return the version of a run that exits, or an empty workflow if the version is no longer kept."""
    workflows = context.rules.workflows
    return workflows.versions.get((run.workflow, run.version)) or WorkflowRule(
        Workflow(run.workflow, (), (Step(exit=True),)), context.rules.shop
    )


def _migrate(run_context: RunContext) -> RunContext | None:
    """Move a run to the step with the same id in the new version; time already waited counts."""
    run = run_context.run
    run.version, run.step_index = run_context.rule.version, run_context.rule.step_index[run.step_id]
    run_context.emit("step", trigger="playbook")
    step, waits = run_context.rule.steps[run.step_index], run.waiting_for
    if step.kind in WAIT_KINDS or (step.kind == "send" and waits in SEND_STATES):
        wait_at(run_context, step)
        run.waiting_for = waits if step.kind == "send" else run.waiting_for
        return run_context
    if not _exit_if_met(run_context):
        _run_steps(run_context, run.step_index, run_context.context.now)
    return None


def _advance(run_context: RunContext) -> None:
    """Exit or continue the run if this input allows it; otherwise reset its timer."""
    step = run_context.rule.steps[run_context.run.step_index]
    if _exit_if_met(run_context):
        return
    step_index = next_step(run_context, step)
    if step_index is None:
        _set_timer(run_context, step)
    elif run_context.context.continuation_depth() >= MAX_STEPS_AT_ONCE:
        _exit_run(run_context, ENDLESS_LOOP)
    else:
        _run_steps(run_context, step_index, run_context.context.now)


def _exit_if_met(run_context: RunContext) -> bool:
    """Exit the run if an exit condition is met; return whether it exited."""
    rule, event, person, now = run_context.rule, run_context.event, run_context.person, run_context.context.now
    if rule.exit_on and not isinstance(event, (TimerFired, ShardMessage)) and event.name in rule.exit_on:
        _exit_run(run_context, f'event "{event.name}"')
        return True
    if rule.exit_when is not None:
        profile = merged_profile(person)
        if rule.exit_when.is_met(person, profile, now):
            _exit_run(run_context, "exit_when", rule.exit_when.explain(person, profile, now)[0])
            return True
    return False


def _run_steps(run_context: RunContext, step_index: int, now: int) -> None:
    """Execute steps from `step_index` until the run waits or ends."""
    rule, run, person = run_context.rule, run_context.run, run_context.person
    for _ in range(MAX_STEPS_AT_ONCE):
        if step_index == END:
            _end_run(run_context, "finished")
            return
        step = rule.steps[step_index]
        run.step_index, run.step_id, run.step_since, run.wait_until, run.waiting_for = step_index, step.id, now, 0, ""
        run.steps_taken += 1
        if rule.exit_when is not None and rule.exit_when.is_met(person, merged_profile(person), now):
            _exit_run(run_context, "exit_when", rule.exit_when.explain(person, merged_profile(person), now)[0])
            return
        next_index = enter_step(run_context, step)
        if next_index is None:
            run_context.emit("step")
            _set_timer(run_context, step)
            return
        step_index = next_index
    _exit_run(run_context, ENDLESS_LOOP)


def _set_timer(run_context: RunContext, step: StepRule) -> None:
    run_context.person.timers[RUN_TIMER + run_context.run_key] = wake_at(run_context, step)


# -- exiting ---------------------------------------------------------------------------------------------------


def _exit_run(run_context: RunContext, reason: str, passed: tuple[str, ...] = ()) -> None:
    """Exit the run before its last step, and cancel its pending sends."""
    _cancel_pending(run_context)
    _end_run(run_context, "exited", reason, passed)


def _end_run(run_context: RunContext, transition: str, reason: str = "", passed: tuple[str, ...] = ()) -> None:
    workflow_runs.end_run(run_context.person, run_context.run_key, run_context.context.now)
    run_context.emit(transition, reason, passed=passed)


def _cancel_pending(run_context: RunContext) -> None:
    """Cancel the sends of this run that were not shown yet, and withdraw its pending messages."""
    person, context = run_context.person, run_context.context
    for one in [one for one in person.pending_sends if one.run_id == run_context.run_key]:
        message = messages.find_message(person, one.action_id)
        if message is not None:
            run_context.effects.append(messages.withdraw(person, message, EXITED, context))
            continue
        release(person, one.action_id)
        run_context.effects.append(
            Cancel(
                id=context.next_effect_id(STEP_NAME),
                at=context.now,
                person=person.id,
                anonymous_id=one.anonymous_id,
                campaign=one.campaign,
                because=Explanation(
                    trigger=trigger_name(run_context.event),
                    reason=EXITED,
                    playbook=context.rules.short_hash,
                    workflow=run_context.run.workflow,
                ),
            )
        )
        record_decision(person, one.campaign, context.now, "cancel", EXITED, action_id=one.action_id)


# -- starting runs ---------------------------------------------------------------------------------------------


def _enter_workflows(person: Person, event: Input, context: StepContext, effects: list[Effect]) -> None:
    """Start the workflows that this input triggers, each at most once per input.

    Playbook changes and late events trigger nothing. After a late event, `context.segment_changes` has only the changes
    that workflow steps made.
    """
    workflows, started = context.rules.workflows, set[str]()
    if isinstance(event, TimerFired) and event.kind == "playbook":
        return
    if not isinstance(event, (TimerFired, ShardMessage)) and not context.late:
        entry_index = workflows.on_event.get(event.name)
        if entry_index is not None:
            entries = entry_index.entries
            for n in entry_index.candidates(event, person, merged_profile(person)):
                _start_run(person, event, context, effects, entries[n], started)
                if started:  # its first steps may have made more entry conditions true
                    for entry in entries[n + 1 :]:
                        _start_run(person, event, context, effects, entry, started)
                    break
    for change in context.segment_changes:  # the list grows while steps add people to segments
        for entry in (workflows.on_segment if change.entered else workflows.on_left).get(change.segment, ()):
            _start_run(person, event, context, effects, entry, started)


def _start_run(
    person: Person, event: Input, context: StepContext, effects: list[Effect], entry: WorkflowEntry, started: set[str]
) -> None:
    rule, trigger, now = entry.rule, entry.trigger, context.now
    if (
        rule.name in started
        or not workflow_runs.may_enter(person, rule, now)
        or context.continuation_depth() >= MAX_STEPS_AT_ONCE
    ):
        return
    profile = merged_profile(person)
    if not trigger.fires(person, profile, event, context.segment_changes, now):
        return
    if rule.exit_when is not None and rule.exit_when.is_met(person, profile, now):
        return
    started.add(rule.name)
    if len(person.runs) >= MAX_RUNS:
        _evict_oldest_run(person, event, context, effects)
    name = workflow_runs.run_id(rule.name, context.input_id)
    run = person.runs[name] = WorkflowRun(rule.name, rule.version, now, trigger=trigger.description)
    run_context = RunContext(person, event, context, effects, rule, name, run)
    run_context.emit("entered", passed=trigger.explain(person, profile, now))
    _run_steps(run_context, 0, now)


def _evict_oldest_run(person: Person, event: Input, context: StepContext, effects: list[Effect]) -> None:
    """Exit the oldest run to make room for another."""
    name = workflow_runs.oldest_first(person, person.runs)[0]
    run = person.runs[name]
    _exit_run(RunContext(person, event, context, effects, _version_or_empty(context, run), name, run), TOO_MANY_RUNS)


def _exit_duplicates(person: Person, event: Input, context: StepContext, effects: list[Effect]) -> None:
    """Exit the runs that exceed a workflow's allowance after a merge, and those above `MAX_RUNS`."""
    latest = context.rules.workflows.latest
    for workflow in sorted({run.workflow for run in person.runs.values()}):
        rule = latest.get(workflow)
        for name in workflow_runs.excess_runs(person, rule) if rule is not None else ():
            run = person.runs[name]
            _exit_run(
                RunContext(person, event, context, effects, _version_or_empty(context, run), name, run), DUPLICATE_RUN
            )
    while len(person.runs) > MAX_RUNS:
        _evict_oldest_run(person, event, context, effects)
