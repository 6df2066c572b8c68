"""A visitor for tests: one person, the steps of deciding over them, and a clock that the test owns.

    ann = Visitor(playbook)
    ann.does(0, "Page Viewed"); ann.waits(60_000); ann.actions

Timers fire like the shard fires them: those due before (or at) the next happening, in the order (due, kind, id), each
at its due time; what a happening sets for its own moment fires at once.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from domain.action import Action, Arm, CouponNews, Disarm, Hold, Move, Progress, Send, subject
from domain.event import Context as About
from domain.event import Identify, Page, Seen, Track
from domain.letter import Letter
from domain.message import Message
from domain.outcome import Outcome
from domain.playbook import Playbook
from operators import advance_workflows, choose_actions, fold_profile, match_segments, respect_limits
from state import codec, desk
from state.context import AGAIN, Context, Due
from state.person import Person
from state.rules import compile_rules

T0 = 1_700_000_000_000
STEPS = (fold_profile.step, match_segments.step, advance_workflows.step, choose_actions.step, respect_limits.step)


class Visitor:
    """Times are ms after T0."""

    def __init__(self, playbook: Playbook, name: str = "x", country: str = "IT", device: str = "desktop",
                 timezone: str = "Europe/Rome") -> None:
        self.context = Context(0, compile_rules(playbook))
        self.context.neighbour = self._neighbour
        self.person = Person(id=f"a:{name}")
        self.neighbours: dict[str, Person] = {}
        """Desks and homes of coupons."""
        self.news: list[CouponNews] = []
        self.name, self.country, self.device, self.timezone = name, country, device, timezone
        self.actions: list[Action] = []
        self.messages: list[Message] = []
        self.outcomes: list[Outcome] = []
        self.now = 0
        self.fired: list[tuple[int, str]] = []
        self.after: Callable[[], None] = lambda: None
        self.late = 0
        """How long before it is told the next happening was (ms)."""
        self._n = 0

    def does(self, at: int, name: str, /, **properties: Any) -> list[Action]:
        """Something happens at `at`; what was decided then (timers before it included)."""
        began = len(self.actions)
        self._fire(T0 + at)
        about = About(attimo=Seen(country=self.country, device=self.device), timezone=self.timezone)
        common: dict[str, Any] = {"anonymous_id": self.name, "context": about}
        event: Any
        if name == "Page Viewed":
            event = Page(properties=properties, **common)
        elif name == "Identified":
            event = Identify(traits=properties, **common)
        else:
            event = Track(event=name, properties=properties, **common)
        self._n += 1
        self._run(f"clicks-0-{self._n}", T0 + at, event)
        self._fire(T0 + at)
        return self.actions[began:]

    def waits(self, until: int) -> list[Action]:
        """Time passes and nothing happens; what was decided meanwhile."""
        began = len(self.actions)
        self._fire(T0 + until)
        self.now = max(self.now, T0 + until)
        return self.actions[began:]

    def swaps(self, playbook: Playbook) -> None:
        """Another playbook goes live."""
        self.context.rules = compile_rules(playbook)

    def rests(self) -> None:
        """The person goes to the store and comes back."""
        self.person = codec.decode(codec.encode(self.person))

    def _fire(self, until: int) -> None:
        for _ in range(10_000):
            due = min(((at, *key.partition(":")[::2]) for key, at in self.person.timers.items() if at <= until),
                      default=None)
            if due is None:
                return
            at, kind, name = due
            del self.person.timers[f"{kind}:{name}"]
            at = max(at, self.now)
            self.fired.append((at - T0, f"{kind}:{name}"))
            origin = self.context.origin + AGAIN if kind == "again" else f"timer-{kind}-{name}-{at}"
            self._run(origin, at, Due(kind, name, at))
        raise AssertionError(f"timers never rest: {self.person.timers}")

    def _run(self, origin: str, now: int, event: Any) -> None:
        assert now >= self.now, "time runs forward"
        self.now = now
        self.context.begin(origin, now, now if isinstance(event, Due) else now - self.late)
        for step in STEPS:
            effects = step(self.person, event, self.context)
            self.actions += [one for one in effects if isinstance(one, (Send, Arm, Disarm, Hold, Move, Progress))]
            self.messages += [one for one in effects if isinstance(one, Message)]
            self.outcomes += [one for one in effects if isinstance(one, Outcome)]
            self.news += [one for one in effects if isinstance(one, CouponNews)]
        while self.context.news:
            self._post()
        self.after()

    def _neighbour(self, key: str) -> Person:
        return self.person if key == self.person.id else self.neighbours.setdefault(key, Person(id=key))

    def _post(self) -> None:
        """Deliver the letters of desks and homes at once."""
        said, self.context.news = self.context.news, []
        self.news += [one for one in said if isinstance(one, CouponNews)]
        for letter in [one for one in said if isinstance(one, Letter)]:
            self.context.news += desk.read(self._neighbour(letter.to), letter, self.context, lambda person: None)


def playbook(**parts: Any) -> Playbook:
    """A playbook from plain values, as they would stand in the files."""
    segments = [{"name": name, **rest} for name, rest in parts.pop("segments", {}).items()]
    campaigns = [{"name": name, "format": "popup", "content": {"default": {"title": name}}, **rest}
                 for name, rest in parts.pop("campaigns", {}).items()]
    workflows = [{"name": name, **rest} for name, rest in parts.pop("workflows", {}).items()]
    return msgspec.convert({**parts, "segments": segments, "campaigns": campaigns, "workflows": workflows}, Playbook)


def short(actions: list[Action]) -> list[tuple[int, str, str]]:
    """Actions as (ms after T0, what, which)."""
    return [(action.at - T0, _word(action), subject(action))
            for action in actions]


def _word(action: Action) -> str:
    if isinstance(action, Move):
        return "entered" if action.entered else "left"
    if isinstance(action, Hold):
        return f"hold {action.because.reason}"
    if isinstance(action, Progress):
        return " ".join(word for word in (action.what, action.goal or action.step, action.because.reason) if word)
    return type(action).__name__.lower()
