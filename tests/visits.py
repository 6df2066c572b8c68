"""A driver without log and store: persons in a dictionary, timers fired in order, one step after the other."""

import heapq
from collections.abc import Iterable, Sequence

from domain.effect import Effect
from domain.event import Event, text_id
from domain.model import Model
from domain.outcome import Outcome
from domain.playbook import Playbook
from operators import fold_profile, score
from state.context import Context, Due, Happening, Step
from state.person import Person, person_key
from state.rules import compile_rules

STEPS: Sequence[Step] = (fold_profile.step, score.step)


class Street:
    """People passing by."""

    def __init__(
        self, playbook: Playbook | None = None, model: Model | None = None, steps: Sequence[Step] = STEPS
    ) -> None:
        self.people: dict[str, Person] = {}
        self.effects: list[Effect] = []
        self.context = Context(0, compile_rules(playbook or Playbook()), model)
        self.steps = steps
        self.n = 0
        self._dues: list[tuple[int, str]] = []

    def person(self, key: str) -> Person:
        """Somebody, by person key."""
        return self.people.setdefault(key, Person(id=key))

    def happens(self, event: Event, at: int, now: int | None = None) -> Person:
        """An event of `at` (ms) arrives at `now` (else at once); what comes due by then comes first."""
        now = at if now is None else now
        self.pass_until(now)
        person = self.person(person_key(text_id(event.user_id), text_id(event.anonymous_id)))
        self.n += 1
        self._step(person, event, f"clicks-0-{self.n}", now, at)
        return person

    def pass_until(self, now: int) -> None:
        """Time passes: every timer due by `now` fires, at its due time."""
        while self._dues and self._dues[0][0] <= now:
            _, key = heapq.heappop(self._dues)
            person = self.people[key]
            while person.timers:
                due, name = min((due, name) for name, due in person.timers.items())
                if due > now:
                    break
                del person.timers[name]
                self._step(person, Due(name.partition(":")[0], name.partition(":")[2], due), f"{key}-{name}-{due}",
                           due, due)

    def _step(self, person: Person, event: Happening, origin: str, now: int, at: int) -> None:
        self.context.begin(origin, now, at)
        for step in self.steps:
            self.effects.extend(step(person, event, self.context))
        if person.timers:
            heapq.heappush(self._dues, (min(person.timers.values()), person.id))

    @property
    def outcomes(self) -> list[Outcome]:
        """The labelled examples so far."""
        return [effect for effect in self.effects if isinstance(effect, Outcome)]


def outcomes_of(events: Iterable[tuple[Event, int]], playbook: Playbook | None = None) -> list[Outcome]:
    """The outcomes of these (event, time in ms), in the order in which they became known; an hour passes at the end."""
    street = Street(playbook)
    last = 0
    for event, at in events:
        street.happens(event, at)
        last = at
    street.pass_until(last + 3_600_000)
    return street.outcomes
