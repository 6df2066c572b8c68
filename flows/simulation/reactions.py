"""Simulated reactions: the steps of the engine, with people who react to the simulated playbook.

No one was shown what is only simulated, so reactions are assumed:

    Send      ── at once ──▶ "Offer Shown"
    Message   ── at once ──▶ "Message Delivered"
    Preload   ── at the next recorded "Exit Intent" while preloaded ──▶ "Offer Shown"

A reaction passes through all steps at the same instant, as a timer of the person. Recorded reactions belong to the
playbook that was live, so they are skipped, with two exceptions: clicks and dismissals of a decision that the
simulation made as well (same id and campaign), and final decisions of people ("Unsubscribed"). With `assumed` false,
the recorded reactions count as they are.

All effects and reactions are recorded as timeline entries.
"""

from collections.abc import Sequence
from typing import NamedTuple

from domain.action import Effect, Message, Preload, Send, ShardMessage
from domain.event import Event, Track
from state.context import Input, StepContext, StepFunction, TimerFired
from state.person.model import Person

SHOWN_EVENTS = frozenset({"Offer Shown", "Message Delivered"})
UNDELIVERED_EVENTS = frozenset({"Offer Suppressed", "Message Suppressed", "Message Bounced"})
DISMISSED_EVENTS = frozenset({"Offer Dismissed"})
REACTION_EVENTS = (
    SHOWN_EVENTS | UNDELIVERED_EVENTS | DISMISSED_EVENTS | {"Offer Clicked", "Message Opened", "Message Clicked"}
)
"""Events that react to a decision."""

REACTION_TIMER = "reaction"


class Delivery(NamedTuple):
    """A decision that a person may react to; `trigger` is set for preloaded offers."""

    action_id: str
    campaign: str
    channel: str
    variant: str
    trigger: str = ""


class TimelineEntry(NamedTuple):
    """An effect, or (if `kind` is not empty) an event, with the delivery it reacts to."""

    at: int
    person: str
    session: str
    kind: str
    effect: Effect | None = None
    delivery: Delivery | None = None
    event: Event | None = None


class ReactionSimulator:
    """The steps for people who react. `entries` grows; `include_events` records every event too.

    With `allow_bounces`, a message assumed to be delivered may bounce (used by scenarios).
    """

    def __init__(
        self,
        steps: Sequence[StepFunction],
        assumed: bool = True,
        include_events: bool = False,
        allow_bounces: bool = False,
    ) -> None:
        self.steps: tuple[StepFunction, ...] = (self._before_steps, *map(self._wrap_step, steps), self._after_steps)
        self.skipped = 0
        self._assumed = assumed
        self._include_events = include_events
        self._simulated = SHOWN_EVENTS | UNDELIVERED_EVENTS - ({"Message Bounced"} if allow_bounces else set())
        self.reset()

    def reset(self) -> None:
        """Start with other people."""
        self.entries: list[TimelineEntry] = []
        self._deliveries: dict[str, Delivery] = {}
        self._pending_reactions: dict[str, tuple[Track, Delivery]] = {}
        self._current_input: Input | None = None
        self._exit_offers: list[Delivery] = []

    def _before_steps(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        """Determine the input before the steps."""
        self._current_input = event
        if type(event) is TimerFired:
            if event.kind == REACTION_TIMER:
                self._current_input, delivery = self._pending_reactions.get(event.id, (None, None))
                self._add_entry(person, context, "shown", delivery=delivery)
        elif type(event) is Track:
            self._on_track(person, event, context)
        if (
            self._include_events
            and self._current_input is not None
            and not isinstance(event, (TimerFired, ShardMessage))
        ):
            self._add_entry(person, context, "event", event=event)
        return ()

    def _on_track(self, person: Person, event: Track, context: StepContext) -> None:
        if event.event in REACTION_EVENTS:
            self._on_reaction(person, event, context)
        elif event.event == "Exit Intent" and person.preloaded and self._assumed:
            ready = [
                self._deliveries[offer.action_id]
                for offer in person.preloaded.values()
                if offer.action_id in self._deliveries
            ]
            self._exit_offers = [delivery for delivery in ready if delivery.trigger == "exit_intent"]

    def _on_reaction(self, person: Person, event: Track, context: StepContext) -> None:
        """Handle a recorded reaction, to a simulated decision or to one of the playbook that was live."""
        name = event.event
        action_id = event.properties.get("message_id" if name.startswith("Message") else "action_id")
        delivery = self._deliveries.get(action_id) if isinstance(action_id, str) else None
        other = delivery is not None and event.properties.get("campaign", delivery.campaign) != delivery.campaign
        if other:  # same trigger, but another campaign was decided
            delivery = None
        if name in DISMISSED_EVENTS:
            self._add_entry(person, context, "dismissed", delivery=delivery)
        if other or (self._assumed and (delivery is None or name in self._simulated)):
            self._current_input = None
            self.skipped += 1
        elif delivery is not None and name in SHOWN_EVENTS:
            self._add_entry(person, context, "shown", delivery=delivery)
        elif delivery is not None and name.endswith("Clicked"):
            self._add_entry(person, context, "clicked", delivery=delivery)

    def _wrap_step(self, step: StepFunction) -> StepFunction:
        def wrapped(person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
            current = self._current_input
            if current is None:
                return ()
            effects = step(person, current, context)
            for effect in effects:
                if not isinstance(effect, ShardMessage):
                    self._on_effect(person, effect, context)
            return effects

        return wrapped

    def _on_effect(self, person: Person, effect: Effect, context: StepContext) -> None:
        self._add_entry(person, context, "", effect=effect)
        if isinstance(effect, Message):
            if effect.withdrawn_id:
                return
            delivery = Delivery(effect.id, effect.campaign, effect.channel, effect.variant)
            properties = {"message_id": effect.id, "campaign": effect.campaign, "channel": effect.channel}
            self._schedule_reaction(person, delivery, Track(event="Message Delivered", properties=properties), context)
        elif isinstance(effect, Send):
            delivery = Delivery(effect.id, effect.campaign, effect.format, effect.because.variant)
            self._schedule_reaction(person, delivery, _offer_shown(delivery, effect.anonymous_id), context)
        elif isinstance(effect, Preload):
            self._deliveries[effect.id] = Delivery(
                effect.id, effect.campaign, effect.format, effect.because.variant, effect.trigger
            )

    def _schedule_reaction(self, person: Person, delivery: Delivery, reaction: Track, context: StepContext) -> None:
        """Schedule a reaction at this instant, after all steps."""
        self._deliveries[delivery.action_id] = delivery
        if self._assumed:
            self._pending_reactions[delivery.action_id] = reaction, delivery
            person.timers[f"{REACTION_TIMER}:{delivery.action_id}"] = context.now

    def _after_steps(self, person: Person, event: Input, context: StepContext) -> Sequence[Effect]:
        """Record the additional effects of the steps, and show exit offers."""
        for effect in context.emitted:
            if not isinstance(effect, ShardMessage):
                self._add_entry(person, context, "", effect=effect)
        if self._exit_offers:
            exit_offers, self._exit_offers = self._exit_offers, []
            anonymous_id = person.session.anonymous_id if person.session is not None else ""
            for delivery in exit_offers:
                self._schedule_reaction(person, delivery, _offer_shown(delivery, anonymous_id), context)
        return ()

    def _add_entry(
        self,
        person: Person,
        context: StepContext,
        kind: str,
        *,
        effect: Effect | None = None,
        delivery: Delivery | None = None,
        event: Event | None = None,
    ) -> None:
        session = person.session.id if person.session is not None else ""
        self.entries.append(TimelineEntry(context.now, person.id, session, kind, effect, delivery, event))


def _offer_shown(delivery: Delivery, anonymous_id: str) -> Track:
    """Return the event that a browser sends when it shows an offer."""
    return Track(
        event="Offer Shown",
        anonymous_id=anonymous_id or None,
        properties={"action_id": delivery.action_id, "campaign": delivery.campaign},
    )
