"""Runs steps without log and store: people in a dictionary, timers in order."""

import heapq
from collections.abc import Iterable, Sequence

from domain.action import Effect, Outcome
from domain.event import Event, normalize_id
from domain.model import Model
from domain.playbook.playbook import Playbook
from operators import score, update_profile
from state.context import Input, StepContext, StepFunction, TimerFired
from state.person.model import Person, person_key
from state.playbook.compiled import compile_rules

STEPS: Sequence[StepFunction] = (update_profile.step, score.step)


class StepRunner:
    """Applies events to people in memory."""

    def __init__(
        self, playbook: Playbook | None = None, model: Model | None = None, steps: Sequence[StepFunction] = STEPS
    ) -> None:
        self.people: dict[str, Person] = {}
        self.effects: list[Effect] = []
        self.context = StepContext(0, compile_rules(playbook or Playbook()), model)
        self.steps = steps
        self.event_count = 0
        self._due_times: list[tuple[int, str]] = []

    def person(self, key: str) -> Person:
        """The person with this key."""
        return self.people.setdefault(key, Person(id=key))

    def apply(self, event: Event, event_time: int, now: int | None = None) -> Person:
        """Apply an event that happened at `event_time` and arrives at `now` (ms); due timers fire first."""
        now = event_time if now is None else now
        self.advance(now)
        person = self.person(person_key(normalize_id(event.user_id), normalize_id(event.anonymous_id)))
        self.event_count += 1
        self._step(person, event, f"clicks-0-{self.event_count}", now, event_time)
        return person

    def advance(self, now: int) -> None:
        """Fire all timers due by `now`, each at its due time."""
        while self._due_times and self._due_times[0][0] <= now:
            _, key = heapq.heappop(self._due_times)
            person = self.people[key]
            while person.timers:
                due, name = min((due, name) for name, due in person.timers.items())
                if due > now:
                    break
                del person.timers[name]
                self._step(
                    person,
                    TimerFired(name.partition(":")[0], name.partition(":")[2], due),
                    f"{key}-{name}-{due}",
                    due,
                    due,
                )

    def _step(self, person: Person, event: Input, origin: str, now: int, at: int) -> None:
        self.context.start_input(origin, now, at)
        for step in self.steps:
            self.effects.extend(step(person, event, self.context))
        if person.timers:
            heapq.heappush(self._due_times, (min(person.timers.values()), person.id))

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes so far."""
        return [effect for effect in self.effects if isinstance(effect, Outcome)]


def outcomes_of(events: Iterable[tuple[Event, int]], playbook: Playbook | None = None) -> list[Outcome]:
    """The outcomes of these (event, time in ms), one hour after the last event."""
    runner = StepRunner(playbook)
    last = 0
    for event, at in events:
        runner.apply(event, at)
        last = at
    runner.advance(last + 3_600_000)
    return runner.outcomes
