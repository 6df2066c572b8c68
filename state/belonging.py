"""Belonging: why a person is in a segment or on a way through a workflow, or why not, in plain words.

    a segment:  what holds and what does not, or what has (not) put them in ─▶ what the passing of time will change
    a workflow: where they stand ─▶ when they left ─▶ what lets people in, and why it did not
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from domain.amounts import times
from domain.duration import roughly
from state.conditions import ALL_OF_THEM
from state.person import Person
from state.rules import Rules
from state.runs import ASKED
from state.view import known
from state.workflow_rules import WorkflowRule


class Teller(NamedTuple):
    """How the person is called, and how times are said: `at` with its preposition, `since` for what lasts."""

    who: str
    at: Callable[[int], str]
    since: Callable[[int], str]
    until: Callable[[int], str]
    plural: bool = False

    def be(self) -> str:
        """The person with the verb.

        >>> Teller("Ann", str, str, str).be(), Teller("They", str, str, str, plural=True).be()
        ('Ann is', 'They are')
        """
        return f"{self.who} {'are' if self.plural else 'is'}"


class Belonging:
    """What can be said of one person at `now` (ms). The person is looked at, not changed."""

    def __init__(self, person: Person, rules: Rules, now: int, teller: Teller) -> None:
        self.person, self.rules, self.now, self.teller = person, rules, now, teller

    def segment(self, name: str, told: frozenset[str] = frozenset()) -> Iterator[str]:
        """Whether they are in it, and if not, what does not hold; of the segments it asks for (all but `told`) too."""
        since = self.person.segments.get(name)
        if since is not None:
            yield f"{self.teller.be()} in {name}, {self.teller.since(since)}."
            return
        rule = self.rules.segment.get(name)
        if rule is None:
            yield f"{self.teller.be()} not in {name}."
        elif rule.static is not None:
            yield f"{self.teller.be()} not in {name}: nothing has put them in, or it is over."
        else:
            facts = known(self.person)
            _, failed = rule.explain(self.person, facts, self.now, ALL_OF_THEM)
            because = ": what does not hold is " + "; ".join(failed) if failed else ""
            yield f"{self.teller.be()} not in {name}{because}."
            change = rule.next_change(self.person, facts, self.now)
            if change is not None:
                yield f"The passing of time may change that {self.teller.at(change)}."
            yield from self.asked_for(failed, told | {name})

    def asked_for(self, failed: tuple[str, ...], told: frozenset[str] = frozenset()) -> Iterator[str]:
        """Why they are not in the segments that these statements ask for."""
        for words in failed:
            other = words.removeprefix("belongs to ")
            if other in self.rules.segment and other != words and other not in told:
                yield from self.segment(other, told)

    def inside(self, name: str) -> str:
        """That they are in it, and what holds."""
        rule, since = self.rules.segment.get(name), self.person.segments.get(name)
        if since is None:
            return f"{self.teller.be()} not in {name}."
        held = rule.explain(self.person, known(self.person), self.now, ALL_OF_THEM)[0] if rule is not None else ()
        because = ": " + "; ".join(held) if held else ""
        return f"{self.teller.be()} in {name}, {self.teller.since(since)}{because}."

    def workflow(self, name: str) -> Iterator[str]:
        """Where they stand in it, or why they are not in it."""
        teller, waits = self.teller, "wait" if self.teller.plural else "waits"
        runs = [run for run in self.person.runs.values() if run.workflow == name]
        for run in runs:
            until = f", {teller.until(run.until)}" if run.until else ""
            yield f"{teller.be()} at the step {run.at} of the workflow {name} and {waits} {_for(run.waits)}{until}."
        been, flow = self.person.been.get(name), self.rules.workflows.live.get(name)
        if runs or flow is None:
            return
        if been is not None:
            yield (f"{teller.who} {'were' if teller.plural else 'was'} in the workflow {name} and left it "
                   f"{teller.at(been.left_at)}.")
            if flow.again == "never":
                yield "It lets nobody in a second time."
                return
            if flow.again == "after" and self.now < been.left_at + flow.again_after:
                yield f"It lets them in again {teller.at(been.left_at + flow.again_after)} at the earliest."
        else:
            yield f"{teller.who} never entered the workflow {name}."
        if flow.leaves is not None:
            facts = known(self.person)
            if flow.leaves.holds(self.person, facts, self.now):
                held, _ = flow.leaves.explain(self.person, facts, self.now)
                yield f"What makes people leave it holds already, so it does not let them in: {'; '.join(held)}."
        yield from self._ways_in(flow)

    def _ways_in(self, flow: WorkflowRule) -> Iterator[str]:
        for occasion in flow.workflow.occasions:
            if occasion.segment is not None:
                yield from self.segment(occasion.segment)
            elif occasion.left_segment is not None:
                still = "still in it" if occasion.left_segment in self.person.segments else "not in it"
                yield f"Leaving {occasion.left_segment} lets people in. {self.teller.be()} {still}."
            elif occasion.event is not None:
                often = known(self.person).counts.get(occasion.event)
                yield f'"{occasion.event}" lets people in, if its conditions hold then: it ' + (
                    f"came {times(often.n)}, last {self.teller.at(often.last_at)}." if often else "never came.")


def senders(campaign: str, rules: Rules) -> list[str]:
    """The workflows that send a campaign."""
    return [name for name, flow in sorted(rules.workflows.live.items())
            if any(step.step.send == campaign for step in flow.steps)]


def by_the_wall(now: int, moment: Callable[[int], str]) -> Teller:
    """Times as `moment` writes them, with how long ago that is."""

    def at(time: int) -> str:
        apart = f"{roughly(now - time)} ago" if time <= now else f"in {roughly(time - now)}"
        return f"on {moment(time)} ({apart})"

    return Teller("They", at, lambda time: f"since {moment(time)}", lambda time: f"until {moment(time)}", plural=True)


def _for(waits: str) -> str:
    """What somebody at a step waits for, as the rest of a sentence."""
    return "for what it sends to be said" if waits in ASKED else f"for {waits}"
