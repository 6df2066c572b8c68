"""One person for tests, with the decision steps and a clock of the test.

    ann = PersonHarness(playbook)
    ann.emit(0, "Page Viewed"); ann.advance(60_000); ann.actions

Timers fire as in a shard: those due by the next event fire before it, in the order (due, kind, id), each at its due
time. A timer that an event sets for its own time fires at once.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from domain.action import (
    Action,
    Cancel,
    CouponEvent,
    Message,
    Outcome,
    Preload,
    SegmentChange,
    Send,
    ShardMessage,
    Suppress,
    WorkflowProgress,
    target_name,
)
from domain.event import CollectorContext, Identify, Page, Track
from domain.event import EventContext as About
from domain.playbook.playbook import Playbook
from operators import advance_workflows, decide, match_segments, select_campaigns, update_profile
from state.context import CONTINUE_SUFFIX, StepContext, TimerFired
from state.coupons import leasing
from state.person import codec
from state.person.model import Person
from state.playbook.compiled import compile_rules

T0 = 1_700_000_000_000
STEPS = (update_profile.step, match_segments.step, advance_workflows.step, select_campaigns.step, decide.step)


class PersonHarness:
    """One person; times are ms after T0."""

    def __init__(
        self,
        playbook: Playbook,
        anonymous_id: str = "x",
        country: str = "IT",
        device: str = "desktop",
        timezone: str = "Europe/Rome",
    ) -> None:
        self.context = StepContext(0, compile_rules(playbook))
        self.context.sibling = self._pool_person
        self.person = Person(id=f"a:{anonymous_id}")
        self.pool_persons: dict[str, Person] = {}
        """Code caches and pool allocators by key."""
        self.coupon_events: list[CouponEvent] = []
        self.anonymous_id, self.country, self.device, self.timezone = anonymous_id, country, device, timezone
        self.actions: list[Action] = []
        self.messages: list[Message] = []
        self.outcomes: list[Outcome] = []
        self.now = 0
        self.fired: list[tuple[int, str]] = []
        self.after_each: Callable[[], None] = lambda: None
        self.delay = 0
        """Delay (ms) between the next event and its arrival."""
        self._event_count = 0

    def emit(self, at: int, name: str, /, **properties: Any) -> list[Action]:
        """Apply an event at `at`; return the new actions, those of earlier timers included."""
        start = len(self.actions)
        self._fire_timers(T0 + at)
        context = About(attimo=CollectorContext(country=self.country, device=self.device), timezone=self.timezone)
        common: dict[str, Any] = {"anonymous_id": self.anonymous_id, "context": context}
        event: Any
        if name == "Page Viewed":
            event = Page(properties=properties, **common)
        elif name == "Identified":
            event = Identify(traits=properties, **common)
        else:
            event = Track(event=name, properties=properties, **common)
        self._event_count += 1
        self._apply(f"clicks-0-{self._event_count}", T0 + at, event)
        self._fire_timers(T0 + at)
        return self.actions[start:]

    def advance(self, until: int) -> list[Action]:
        """Advance the clock without events; return the new actions."""
        start = len(self.actions)
        self._fire_timers(T0 + until)
        self.now = max(self.now, T0 + until)
        return self.actions[start:]

    def switch_playbook(self, playbook: Playbook) -> None:
        """Make another playbook live."""
        self.context.rules = compile_rules(playbook)

    def store_and_reload(self) -> None:
        """Encode and decode the person."""
        self.person = codec.decode(codec.encode(self.person))

    def _fire_timers(self, until: int) -> None:
        for _ in range(10_000):
            due = min(
                ((at, *key.partition(":")[::2]) for key, at in self.person.timers.items() if at <= until), default=None
            )
            if due is None:
                return
            at, kind, name = due
            del self.person.timers[f"{kind}:{name}"]
            at = max(at, self.now)
            self.fired.append((at - T0, f"{kind}:{name}"))
            origin = self.context.input_id + CONTINUE_SUFFIX if kind == "again" else f"timer-{kind}-{name}-{at}"
            self._apply(origin, at, TimerFired(kind, name, at))
        raise AssertionError(f"timers fire without end: {self.person.timers}")

    def _apply(self, origin: str, now: int, event: Any) -> None:
        assert now >= self.now, "time does not go back"
        self.now = now
        self.context.start_input(origin, now, now if isinstance(event, TimerFired) else now - self.delay)
        for step in STEPS:
            effects = step(self.person, event, self.context)
            self.actions += [
                one
                for one in effects
                if isinstance(one, (Send, Preload, Cancel, Suppress, SegmentChange, WorkflowProgress))
            ]
            self.messages += [one for one in effects if isinstance(one, Message)]
            self.outcomes += [one for one in effects if isinstance(one, Outcome)]
            self.coupon_events += [one for one in effects if isinstance(one, CouponEvent)]
        while self.context.emitted:
            self._deliver_messages()
        self.after_each()

    def _pool_person(self, key: str) -> Person:
        return self.person if key == self.person.id else self.pool_persons.setdefault(key, Person(id=key))

    def _deliver_messages(self) -> None:
        """Deliver shard messages about coupons at once."""
        emitted, self.context.emitted = self.context.emitted, []
        self.coupon_events += [one for one in emitted if isinstance(one, CouponEvent)]
        for message in [one for one in emitted if isinstance(one, ShardMessage)]:
            self.context.emitted += leasing.handle_message(
                self._pool_person(message.recipient), message, self.context, lambda person: None
            )


def make_playbook(**parts: Any) -> Playbook:
    """Build a playbook from plain values, as in its files."""
    segments = [{"name": name, **rest} for name, rest in parts.pop("segments", {}).items()]
    campaigns = [
        {"name": name, "format": "popup", "content": {"default": {"title": name}}, **rest}
        for name, rest in parts.pop("campaigns", {}).items()
    ]
    workflows = [{"name": name, **rest} for name, rest in parts.pop("workflows", {}).items()]
    return msgspec.convert({**parts, "segments": segments, "campaigns": campaigns, "workflows": workflows}, Playbook)


def summarize(actions: list[Action]) -> list[tuple[int, str, str]]:
    """Actions as (ms after T0, description, target)."""
    return [(action.at - T0, _describe(action), target_name(action)) for action in actions]


def _describe(action: Action) -> str:
    if isinstance(action, SegmentChange):
        return "entered" if action.entered else "exited"
    if isinstance(action, Suppress):
        return f"suppress {action.because.reason}"
    if isinstance(action, WorkflowProgress):
        return " ".join(word for word in (action.transition, action.goal or action.step, action.because.reason) if word)
    return type(action).__name__.lower()
