"""offers: what a browser says became of an offer: it was shown, closed by hand, or held at the edge.

Books (`operators/books.py`). Browsers say so, so nothing of it is taken for granted.
"""

from collections.abc import Sequence
from typing import Any

from domain.action import Because, Disarm
from domain.effect import Effect
from domain.event import Event, Track
from state import exposures
from state.context import Context
from state.person import Person

NAME = "offers"
MAX_ACTION_ID = 1_024
"""Characters; our own are shorter. What is longer is nobody's."""

MAX_DISMISSED = 50


def shown(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    """It is on the screen: it counts, and nothing of this campaign waits in the browser any more.

    What fills a slot is not taken back: there a disarm means that what the page had there comes back.
    """
    named = _named(event)
    if named is None or not exposures.shown(person, *named, context):
        return ()
    rule = context.rules.campaigns.get(named[1])
    if rule is not None and rule.format == "slot":
        return ()
    return _clear(person, named[1], context, "shown")


def dismissed(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    """It was closed by hand: it does not come back in this visit.

    >>> import msgspec
    >>> from domain.playbook import Playbook
    >>> from state.person import Session
    >>> from state.rules import compile_rules
    >>> hello = {"name": "hello", "format": "bar", "trigger": {"event": "Quiz Finished"},
    ...          "content": {"default": {"title": "Hello"}}}
    >>> context = Context(0, compile_rules(msgspec.convert({"campaigns": [hello]}, Playbook)))
    >>> ann = Person(id="a:ann", session=Session("s", 0, 0))
    >>> dismissed(ann, Track(event="Offer Dismissed", properties={"action_id": "x", "campaign": "hello"}), context)
    ()
    >>> ann.session.dismissed
    ['hello']
    """
    named, session = _named(event), person.session
    if named is None or session is None or named[1] not in context.rules.campaigns:
        return ()
    campaign = named[1]
    if campaign not in session.dismissed and len(session.dismissed) < MAX_DISMISSED:
        session.dismissed.append(campaign)
    if any(armed.campaign == campaign for armed in person.armed.values()):
        return _clear(person, campaign, context, "dismissed")
    return ()


def held(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    """What was decided came too late to be shown: its place is free again."""
    named = _named(event)
    if named is None:
        return ()
    exposures.released(person, named[0])
    for slot in [slot for slot, armed in person.armed.items() if armed.action_id == named[0]]:
        del person.armed[slot]
    return ()


def _named(event: Event) -> tuple[str, str] | None:
    """The action and the campaign that an event is about."""
    if type(event) is not Track:
        return None
    action_id: Any = event.properties.get("action_id")
    campaign: Any = event.properties.get("campaign")
    if not isinstance(action_id, str) or not isinstance(campaign, str) or len(action_id) > MAX_ACTION_ID:
        return None
    return action_id, campaign


def _clear(person: Person, campaign: str, context: Context, reason: str) -> list[Effect]:
    """Nothing of this campaign waits in the browser any more; what is on the screen stays there."""
    for slot in [slot for slot, armed in person.armed.items() if armed.campaign == campaign]:
        del person.armed[slot]
    session = person.session
    if session is None or not session.anonymous_id:
        return []
    return [Disarm(id=context.id(NAME), at=context.now, person=person.id, anonymous_id=session.anonymous_id,
                   campaign=campaign, because=Because(reason=reason, playbook=context.rules.short))]
