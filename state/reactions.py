"""Reactions: the steps as they are, with people who react to what a rehearsed playbook says.

Nobody was really shown what is only rehearsed, so a reaction is taken for granted:

    Send      ── at once ──▶ "Offer Shown"
    Message   ── at once ──▶ "Message Delivered"
    Arm       ── at the next recorded "Exit Intent", while it is armed ─▶ "Offer Shown"

It goes through all steps at the same instant, as a timer of the person. What is recorded of what was live then says
nothing of the rehearsed playbook: such events are passed over, but for clicks and closings of a decision that the
rehearsal took as well (id and campaign are the same), and for everything that people decided for good ("Unsubscribed").
With `assumed` false nothing is taken for granted: the recorded reactions count as they are.

Everything that was decided or became of it is noted.
"""

from collections.abc import Sequence
from typing import NamedTuple

from domain.action import Arm, Send
from domain.effect import Effect
from domain.event import Event, Track
from domain.letter import Letter
from domain.message import Message
from state.context import Context, Due, Happening, Step
from state.person import Person

SHOWN = frozenset({"Offer Shown", "Message Delivered"})
HELD = frozenset({"Offer Held", "Message Held", "Message Bounced"})
CLOSED = frozenset({"Offer Dismissed"})
REACTIONS = SHOWN | HELD | CLOSED | {"Offer Clicked", "Message Opened", "Message Clicked"}
"""Events that answer something we said."""

TIMER = "rehearsed"


class Said(NamedTuple):
    """A decision that somebody may react to; `trigger` is what it waits for, of what was armed."""

    action_id: str
    campaign: str
    channel: str
    variant: str
    trigger: str = ""


class Note(NamedTuple):
    """Something that happened to a person: an effect, or (`what` is not empty) an event, with what it answers."""

    at: int
    person: str
    session: str
    what: str
    effect: Effect | None = None
    about: Said | None = None
    event: Event | None = None


class Reactions:
    """The steps for people who react. `notes` grow; `diary` notes every event too.

    With `bounces` a message that was taken for delivered may come back (whoever tells a story says so).
    """

    def __init__(self, steps: Sequence[Step], assumed: bool = True, diary: bool = False, bounces: bool = False) -> None:
        self.steps: tuple[Step, ...] = (self._open, *map(self._watched, steps), self._close)
        self.passed_over = 0
        self._assumed = assumed
        self._diary = diary
        self._settled = SHOWN | HELD - ({"Message Bounced"} if bounces else set())
        self.turn_to_others()

    def turn_to_others(self) -> None:
        """Other people come, who know nothing of what was said to the ones before."""
        self.notes: list[Note] = []
        self._said: dict[str, Said] = {}
        self._reacting: dict[str, tuple[Track, Said]] = {}
        self._event: Happening | None = None
        self._leaving: list[Said] = []

    def _open(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        """Before the steps: what is it that happens?"""
        self._event = event
        if type(event) is Due:
            if event.kind == TIMER:
                self._event, said = self._reacting.get(event.id, (None, None))
                self._note(person, context, "shown", about=said)
        elif type(event) is Track:
            self._track(person, event, context)
        if self._diary and self._event is not None and not isinstance(event, (Due, Letter)):
            self._note(person, context, "event", event=event)
        return ()

    def _track(self, person: Person, event: Track, context: Context) -> None:
        if event.event in REACTIONS:
            self._answer(person, event, context)
        elif event.event == "Exit Intent" and person.armed and self._assumed:
            ready = [self._said[one.action_id] for one in person.armed.values() if one.action_id in self._said]
            self._leaving = [said for said in ready if said.trigger == "exit_intent"]

    def _answer(self, person: Person, event: Track, context: Context) -> None:
        """A recorded answer to something we said: ours, or that of what was live then."""
        name = event.event
        action_id = event.properties.get("message_id" if name.startswith("Message") else "action_id")
        said = self._said.get(action_id) if isinstance(action_id, str) else None
        other = said is not None and event.properties.get("campaign", said.campaign) != said.campaign
        if other:  # the same occasion, but another campaign had the word
            said = None
        if name in CLOSED:
            self._note(person, context, "closed", about=said)
        if other or (self._assumed and (said is None or name in self._settled)):
            self._event = None
            self.passed_over += 1
        elif said is not None and name in SHOWN:
            self._note(person, context, "shown", about=said)
        elif said is not None and name.endswith("Clicked"):
            self._note(person, context, "clicked", about=said)

    def _watched(self, step: Step) -> Step:
        def watched(person: Person, event: Happening, context: Context) -> Sequence[Effect]:
            happening = self._event
            if happening is None:
                return ()
            effects = step(person, happening, context)
            for effect in effects:
                if not isinstance(effect, Letter):
                    self._decided(person, effect, context)
            return effects

        return watched

    def _decided(self, person: Person, effect: Effect, context: Context) -> None:
        self._note(person, context, "", effect=effect)
        if isinstance(effect, Message):
            if effect.withdraws:
                return
            said = Said(effect.id, effect.campaign, effect.channel, effect.variant)
            properties = {"message_id": effect.id, "campaign": effect.campaign, "channel": effect.channel}
            self._expect(person, said, Track(event="Message Delivered", properties=properties), context)
        elif isinstance(effect, Send):
            said = Said(effect.id, effect.campaign, effect.format, effect.because.variant)
            self._expect(person, said, _shown(said, effect.anonymous_id), context)
        elif isinstance(effect, Arm):
            self._said[effect.id] = Said(effect.id, effect.campaign, effect.format, effect.because.variant,
                                         effect.trigger)

    def _expect(self, person: Person, said: Said, reaction: Track, context: Context) -> None:
        """They react at this very instant, when all steps are done."""
        self._said[said.action_id] = said
        if self._assumed:
            self._reacting[said.action_id] = reaction, said
            person.timers[f"{TIMER}:{said.action_id}"] = context.now

    def _close(self, person: Person, event: Happening, context: Context) -> Sequence[Effect]:
        """After the steps: what they left for the shard; and who leaves now sees what was ready for that."""
        for effect in context.news:
            if not isinstance(effect, Letter):
                self._note(person, context, "", effect=effect)
        if self._leaving:
            leaving, self._leaving = self._leaving, []
            anonymous_id = person.session.anonymous_id if person.session is not None else ""
            for said in leaving:
                self._expect(person, said, _shown(said, anonymous_id), context)
        return ()

    def _note(self, person: Person, context: Context, what: str, *, effect: Effect | None = None,
              about: Said | None = None, event: Event | None = None) -> None:
        session = person.session.id if person.session is not None else ""
        self.notes.append(Note(context.now, person.id, session, what, effect, about, event))


def _shown(said: Said, anonymous_id: str) -> Track:
    """What a browser says when it shows an offer."""
    return Track(event="Offer Shown", anonymous_id=anonymous_id or None,
                 properties={"action_id": said.action_id, "campaign": said.campaign})
