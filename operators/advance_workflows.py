"""advance_workflows: who is on a way with us, where they stand, and where they go from here.

    an occasion (event, segment entered or left) ──▶ a run begins ──▶ step, step, … up to the next wait, at one instant
    time, an event, what has become true         ──▶ a run goes on, or leaves: what makes it leave is asked first

Each run that waits has one timer, `workflow:<run id>`: the next moment at which time alone may move it. It is looked at
again when it fires, and whenever something happens that can matter to it. What steps change (tags, traits, coupons) is
asked again at once, by the timer `again:`. A send is proposed, and decided by `respect_limits` in the same happening;
the run goes on, at the same instant, when it was told what became of it.
"""

from collections.abc import Sequence

from domain.action import Because, Disarm
from domain.effect import Effect
from domain.letter import Letter
from domain.workflow import Step, Workflow
from operators.workflow_steps import NAME, Walk, arrive, due, over, stand
from state import feedback, runs
from state.context import Context, Due, Happening, occasion_of
from state.decisions import remember
from state.exposures import released
from state.person import MAX_RUNS, Person, Run
from state.runs import ASKED, TIMER
from state.view import known
from state.workflow_rules import END, Entry, StepRule, WorkflowRule

MOST_AT_ONCE = 100
"""Steps that one run takes at one instant, and happenings that follow each other at once; more is going in circles."""

GONE = "this version is no longer kept"
CHANGED = "the workflow was changed"
NO_STEP = "its step is not in the new version"
CIRCLE = "went in circles without waiting"
CROWDED = "too many workflows at once"
JOINED = "was in it already, under another id"
LEFT = "they left the workflow"

WAITING = frozenset(("wait", "wait_until", "wait_for"))


def step(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
    """Move every run on that this happening concerns, and begin those whose occasion it is.

    >>> import msgspec
    >>> from domain.event import Track
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> rest = {"name": "rest", "enters": {"event": "Quiz Finished"}, "steps": [{"wait": "1h"}, {"goal": "rested"}]}
    >>> context = Context(0, compile_rules(msgspec.convert({"workflows": [rest]}, Playbook)))
    >>> ann, now = Person(id="a:ann"), 1_700_000_000_000
    >>> context.begin("clicks-0-1", now, now)
    >>> [one.what for one in step(ann, Track(event="Quiz Finished"), context)]
    ['entered', 'step']
    >>> [at - now for name, at in ann.timers.items() if name.startswith("workflow:")]
    [3600000]
    """
    if not person.runs and not context.moves:
        entering = context.rules.workflows.on_event
        if not entering or isinstance(event, Letter) or event.name not in entering:
            return ()
    if person.bot or person.alias_of:
        return ()
    effects: list[Effect] = []
    if person.runs:
        if isinstance(event, Letter):
            _joined(person, event, context, effects)
        for name in _concerned(person, event, context):
            walk = _walk(person, event, context, effects, name)
            if walk is not None:
                _look(walk)
    if context.rules.workflows.live:
        _enter(person, event, context, effects)
    return effects


# -- those who are on their way --------------------------------------------------------------------------------


def _concerned(person: Person, event: Happening, context: Context) -> list[str]:
    """The runs that this happening can matter to, the one that began first first: all, where anything can have changed;
    else those that wait for this event, for time that has come, or for what has changed.
    """
    changed, flows, mine, timers = context.changed, context.rules.workflows, person.runs, person.timers
    if changed is None:
        return runs.oldest(person, mine)
    now, happened = context.now, "" if isinstance(event, (Due, Letter)) else event.name
    found = []
    for name, run in mine.items():
        rule = flows.versions.get((run.workflow, run.version))
        if rule is not None:
            step = rule.steps[run.step]
            if (step.needs.isdisjoint(changed)
                    and not (happened and (step.sends or happened == step.event or happened in rule.leaves_on))
                    and timers.get(TIMER + name, 0) > now):  # without a timer: it has just fired, or was set aside
                continue
        found.append(name)
    return found if len(found) < 2 else runs.oldest(person, found)


def _walk(person: Person, event: Happening, context: Context, effects: list[Effect], name: str) -> Walk | None:
    """A run with the version it goes by; None when there is none any more, or the new one wants nobody of the old."""
    run, flows = person.runs[name], context.rules.workflows
    live = flows.live.get(run.workflow)
    if live is not None and live.version == run.version:
        return Walk(person, event, context, effects, live, name, run)
    began, newest = flows.versions.get((run.workflow, run.version)), flows.newest.get(run.workflow)
    policy = newest.when_changed if newest is not None else "finish"
    if policy == "move" and live is not None:
        if run.at in live.at:
            return _moved(Walk(person, event, context, effects, live, name, run))
        reason = NO_STEP
    elif policy == "leave":
        reason = CHANGED
    elif began is not None:
        return Walk(person, event, context, effects, began, name, run)
    else:
        reason = GONE
    _leave(Walk(person, event, context, effects, _known(context, run), name, run), reason)
    return None


def _known(context: Context, run: Run) -> WorkflowRule:
    """The version of a run that is about to leave; where it is no longer kept, one with nothing in it."""
    flows = context.rules.workflows
    return flows.versions.get((run.workflow, run.version)) or WorkflowRule(
        Workflow(run.workflow, (), (Step(exit=True),)), context.rules.shop)


def _moved(walk: Walk) -> Walk | None:
    """At the step of the same name in the new version. If they wait there too, how long they have done so counts."""
    run = walk.run
    run.version, run.step = walk.rule.version, walk.rule.at[run.at]
    walk.say("step", trigger="playbook")
    step, waits = walk.rule.steps[run.step], run.waits
    if step.kind in WAITING or (step.kind == "send" and waits in ASKED):
        stand(walk, step)
        run.waits = waits if step.kind == "send" else run.waits
        return walk
    if not _leaves(walk):
        _follow(walk, run.step, walk.context.now)
    return None


def _look(walk: Walk) -> None:
    """See whether this happening makes the run leave or go on."""
    step = walk.rule.steps[walk.run.step]
    if _leaves(walk):
        return
    place = over(walk, step)
    if place is None:
        _set_timer(walk, step)
    elif walk.context.at_once() >= MOST_AT_ONCE:
        _leave(walk, CIRCLE)
    else:
        _follow(walk, place, walk.context.now)


def _leaves(walk: Walk) -> bool:
    """Whether something made them leave; then they have left."""
    rule, event, person, now = walk.rule, walk.event, walk.person, walk.context.now
    if rule.leaves_on and not isinstance(event, (Due, Letter)) and event.name in rule.leaves_on:
        _leave(walk, f'event "{event.name}"')
        return True
    if rule.leaves is not None:
        facts = known(person)
        if rule.leaves.holds(person, facts, now):
            _leave(walk, "leaves", rule.leaves.explain(person, facts, now)[0])
            return True
    return False


def _follow(walk: Walk, place: int, now: int) -> None:
    """Take the steps from `place` on, up to one where they stay, or the end."""
    rule, run, person = walk.rule, walk.run, walk.person
    for _ in range(MOST_AT_ONCE):
        if place == END:
            _end(walk, "finished")
            return
        step = rule.steps[place]
        run.step, run.at, run.since, run.until, run.waits = place, step.id, now, 0, ""
        run.steps_taken += 1
        if rule.leaves is not None and rule.leaves.holds(person, known(person), now):
            _leave(walk, "leaves", rule.leaves.explain(person, known(person), now)[0])
            return
        onward = arrive(walk, step)
        if onward is None:
            walk.say("step")
            _set_timer(walk, step)
            return
        place = onward
    _leave(walk, CIRCLE)


def _set_timer(walk: Walk, step: StepRule) -> None:
    walk.person.timers[TIMER + walk.name] = due(walk, step)


# -- leaving ---------------------------------------------------------------------------------------------------


def _leave(walk: Walk, reason: str, held: tuple[str, ...] = ()) -> None:
    """Leave before the end; what was sent and not yet shown is taken back."""
    _take_back(walk)
    _end(walk, "left", reason, held)


def _end(walk: Walk, what: str, reason: str = "", held: tuple[str, ...] = ()) -> None:
    runs.end(walk.person, walk.name, walk.context.now)
    walk.say(what, reason, held=held)


def _take_back(walk: Walk) -> None:
    """What this run said, and nobody has seen yet, is not to be said any more: in the browser, or by its channel."""
    person, context = walk.person, walk.context
    for one in [one for one in person.reserved if one.run == walk.name]:
        written = feedback.find(person, one.action_id)
        if written is not None:
            walk.effects.append(feedback.withdraw(person, written, LEFT, context))
            continue
        released(person, one.action_id)
        walk.effects.append(Disarm(
            id=context.id(NAME), at=context.now, person=person.id, anonymous_id=one.anonymous_id,
            campaign=one.campaign, because=Because(trigger=occasion_of(walk.event), reason=LEFT,
                                                   playbook=context.rules.short, workflow=walk.run.workflow)))
        remember(person, one.campaign, context.now, "disarm", LEFT, action_id=one.action_id)


# -- entering --------------------------------------------------------------------------------------------------


def _enter(person: Person, event: Happening, context: Context, effects: list[Effect]) -> None:
    """Begin the workflows whose occasion this is. Each begins at most once in one happening.

    That the playbook has changed is an occasion for nothing: nobody did anything. Nor is what is late: the moves that
    are left then are those of steps, which are taken now.
    """
    flows, begun = context.rules.workflows, set[str]()
    if isinstance(event, Due) and event.kind == "playbook":
        return
    if not isinstance(event, (Due, Letter)) and not context.late:
        entering = flows.on_event.get(event.name)
        if entering is not None:
            entries = entering.entries
            for n in entering.find(event, person, known(person)):
                _begin(person, event, context, effects, entries[n], begun)
                if begun:  # what its first steps have changed may make more of them hold
                    for entry in entries[n + 1:]:
                        _begin(person, event, context, effects, entry, begun)
                    break
    for move in context.moves:  # it grows while steps tag people
        for entry in (flows.on_segment if move.entered else flows.on_left).get(move.segment, ()):
            _begin(person, event, context, effects, entry, begun)


def _begin(person: Person, event: Happening, context: Context, effects: list[Effect], entry: Entry,
           begun: set[str]) -> None:
    rule, occasion, now = entry.rule, entry.occasion, context.now
    if rule.name in begun or not runs.may_enter(person, rule, now) or context.at_once() >= MOST_AT_ONCE:
        return
    facts = known(person)
    if not occasion.comes(person, facts, event, context.moves, now):
        return
    if rule.leaves is not None and rule.leaves.holds(person, facts, now):
        return
    begun.add(rule.name)
    if len(person.runs) >= MAX_RUNS:
        _crowded(person, event, context, effects)
    name = runs.run_id(rule.name, context.origin)
    run = person.runs[name] = Run(rule.name, rule.version, now, origin=occasion.words)
    walk = Walk(person, event, context, effects, rule, name, run)
    walk.say("entered", held=occasion.why(person, facts, now))
    _follow(walk, 0, now)


def _crowded(person: Person, event: Happening, context: Context, effects: list[Effect]) -> None:
    """One run more than are kept: the one that began first gives way."""
    name = runs.oldest(person, person.runs)[0]
    run = person.runs[name]
    _leave(Walk(person, event, context, effects, _known(context, run), name, run), CROWDED)


def _joined(person: Person, event: Happening, context: Context, effects: list[Effect]) -> None:
    """After a login: nobody is in a workflow more often than it allows because they had two ids."""
    newest = context.rules.workflows.newest
    for workflow in sorted({run.workflow for run in person.runs.values()}):
        rule = newest.get(workflow)
        for name in runs.too_many(person, rule) if rule is not None else ():
            run = person.runs[name]
            _leave(Walk(person, event, context, effects, _known(context, run), name, run), JOINED)
    while len(person.runs) > MAX_RUNS:
        _crowded(person, event, context, effects)
