"""workflow_steps: what each step of a workflow does with a person who comes to it.

    arrive   they come to a step    -> the step to go on with at once, or None: they stay
    over     they stand at a step   -> the step to go on with, because what they waited for has come, or None
    due      until when, at most, time alone leaves it so

What happens at the moment when time is up still counts; what brought somebody to a step does not: an event that is
waited for is one that comes after; one that comes late counts if it happened since.
"""

from collections.abc import Callable
from typing import NamedTuple

from domain.action import Because, Progress
from domain.effect import Effect
from domain.letter import Letter
from state.context import Context, Due, Happening, occasion_of
from state.coupons import reserve
from state.desk import PENDING
from state.facts import learn_trait
from state.limits import Proposal
from state.next_time import next_time
from state.person import MAX_TEXT, MAX_TRAITS, Person, Run, Trait
from state.runs import HELD, HOUR, SEND, SENT, TIMER, told, way_of
from state.tags import tag, untag
from state.view import known
from state.workflow_rules import END, StepRule, WorkflowRule

NAME = "advance_workflows"
LAST_WORD = 1 << 32
"""The mark of a trait that a workflow sets: greater than that of any message of the same millisecond."""


class Walk(NamedTuple):
    """One run that is looked at: whose, which, by which version, because of what, and what came of it so far."""

    person: Person
    event: Happening
    context: Context
    effects: list[Effect]
    rule: WorkflowRule
    name: str
    run: Run

    def say(self, what: str, reason: str = "", detail: str = "", goal: str = "", held: tuple[str, ...] = (),
            trigger: str = "") -> None:
        """Tell how far they are."""
        person, context, run = self.person, self.context, self.run
        self.effects.append(Progress(
            id=context.id(NAME), at=context.now, person=person.id, workflow=run.workflow, version=run.version,
            what=what, step=run.at, run=self.name, goal=goal,
            anonymous_id=person.session.anonymous_id if person.session is not None else "",
            because=Because(trigger=trigger or occasion_of(self.event), reason=reason, detail=detail, held=held,
                            playbook=context.rules.short, workflow=run.workflow)))


# -- coming to a step ------------------------------------------------------------------------------------------


def arrive(walk: Walk, step: StepRule) -> int | None:
    """Do what the step says; the index of the next one (or END), or None when they stay. `run.since` is set.

    >>> import msgspec
    >>> from domain.playbook import Playbook
    >>> from state.rules import compile_rules
    >>> rest = {"name": "rest", "enters": {"event": "Quiz Finished"}, "steps": [{"wait": "1h"}, {"tag": "vip"}]}
    >>> context = Context(0, compile_rules(msgspec.convert({"workflows": [rest]}, Playbook)))
    >>> rule, run = context.rules.workflows.live["rest"], Run("rest", "v", began_at=0)
    >>> walk = Walk(Person(id="a:ann"), Due("again", "", 0), context, [], rule, "rest-1", run)
    >>> arrive(walk, rule.steps[0]), run.until
    (None, 3600000)
    """
    return _ARRIVE[step.kind](walk, step)


def _wait(walk: Walk, step: StepRule) -> int | None:
    stand(walk, step)
    return over(walk, step, came=True)


def _branch(walk: Walk, step: StepRule) -> int | None:
    facts = known(walk.person)
    for when, place in step.ways:
        if when.holds(walk.person, facts, walk.context.now):
            return place
    return step.next


def _split(walk: Walk, step: StepRule) -> int | None:
    return way_of(walk.person, walk.rule.name, step)


def _send(walk: Walk, step: StepRule) -> int | None:
    stand(walk, step)
    return ask(walk, step)


def ask(walk: Walk, step: StepRule) -> int | None:
    """Propose what the step sends; `respect_limits` decides in this same happening, and `state.runs.told` notes it.

    Of two runs that ask for the same campaign at the same moment, the first one asks for both.
    """
    person, context = walk.person, walk.context
    rule = context.rules.campaigns.get(step.step.send or "")
    if rule is None:
        return step.otherwise
    if any(one.rule is rule and one.run for one in context.proposals):
        told(person, walk.name, False, "lower_priority", context)
        return None
    facts = known(person)
    if rule.holds(person, facts, context.now):
        context.proposals.append(Proposal(rule, run=walk.name))
    else:
        failed = rule.explain(person, facts, context.now)[1]
        context.proposals.append(Proposal(rule, "audience", "; ".join(failed), walk.name))
    return None


def _tag(walk: Walk, step: StepRule) -> int | None:
    walk.effects.extend(tag(walk.person, step.step.tag or "", walk.context, f"workflow {walk.rule.name}"))
    return step.next


def _untag(walk: Walk, step: StepRule) -> int | None:
    walk.effects.extend(untag(walk.person, step.step.untag or "", walk.context, f"workflow {walk.rule.name}"))
    return step.next


def _set(walk: Walk, step: StepRule) -> int | None:
    person, now = walk.person, walk.context.now
    facts = person.own()
    for name, value in step.step.set.items():
        kept = value[:MAX_TEXT] if isinstance(value, str) else value
        learn_trait(facts.traits, name, Trait(now, kept, LAST_WORD), MAX_TRAITS)
    facts.version += 1
    person.timers["again:"] = now
    return step.next


def _coupon(walk: Walk, step: StepRule) -> int | None:
    """Codes come to a shard in blocks: while the next block is on its way, they wait a moment for it."""
    run, context = walk.run, walk.context
    got = reserve(walk.person, step.step.coupon or "", walk.rule.name, context)
    if isinstance(got, str):
        if got == PENDING and context.now < run.since + HOUR:
            run.until, run.waits = run.since + HOUR, "a coupon"
            return None
        walk.say("step", got)
    return step.next


def _goal(walk: Walk, step: StepRule) -> int | None:
    walk.say("goal", goal=step.step.goal or "")
    return step.next


_ARRIVE: dict[str, Callable[[Walk, StepRule], int | None]] = {
    "wait": _wait, "wait_until": _wait, "wait_for": _wait, "branch": _branch, "split": _split, "send": _send,
    "tag": _tag, "untag": _untag, "set": _set, "coupon": _coupon, "goal": _goal,
    "exit": lambda walk, step: END, "go": lambda walk, step: step.next,
}


# -- standing at a step ----------------------------------------------------------------------------------------


def stand(walk: Walk, step: StepRule) -> None:
    """Note until when they wait at this step, counted from `run.since`, and what for."""
    run = walk.run
    if step.step.wait_until is not None:
        zone = walk.context.rules.shop.timezone
        run.until = next_time(step.step.wait_until, run.since, known(walk.person).timezone or zone, zone)
    else:
        run.until = run.since + step.span if step.span or step.kind != "send" else 0
    run.waits = SEND if step.kind == "send" else step.words


def over(walk: Walk, step: StepRule, came: bool = False) -> int | None:
    """Where to go on, when what they wait for has come; None when it has not. They `came` just now: then no event that
    brought them here counts.
    """
    person, run, event, now = walk.person, walk.run, walk.event, walk.context.now
    if step.kind == "send":
        return _sent(walk, step)
    if step.kind == "coupon":  # an event brings no codes: nobody is asked for them because somebody is in memory or not
        return _coupon(walk, step) if isinstance(event, (Due, Letter)) and not _anothers(walk) else None
    if (step.event and not came and not isinstance(event, (Due, Letter)) and event.name == step.event
            and step.matches(event) and (not walk.context.late or walk.context.event_time >= run.since)):
        return step.then
    if step.when is not None and step.when.holds(person, known(person), now):
        return step.then
    return step.otherwise if now >= run.until else None


def _sent(walk: Walk, step: StepRule) -> int | None:
    run, event = walk.run, walk.event
    if run.waits == SENT:
        return step.next
    if run.waits == HELD or (run.until and walk.context.now >= run.until):
        return step.otherwise
    if isinstance(event, Letter) or _anothers(walk):
        return None
    return ask(walk, step)


def _anothers(walk: Walk) -> bool:
    """Whether this is a timer that was not set for this run."""
    event = walk.event
    return isinstance(event, Due) and event.kind != "again" and (
        event.kind != TIMER[:-1] or event.id != walk.name)


def due(walk: Walk, step: StepRule) -> int:
    """The next moment (ms) at which time alone may move them on, or make them leave."""
    person, run, now, rule = walk.person, walk.run, walk.context.now, walk.rule
    at = run.until or now + HOUR
    if step.kind == "send":
        at = min(at, now + HOUR)
    for when in (rule.leaves, step.when):
        if when is not None and when.timed:
            change = when.next_change(person, known(person), now)
            if change is not None and change < at:
                at = change
    return at
