"""books: what became of what we said, as the world reports it, before anything new is decided.

    "Offer Shown" …      ── shown, dismissed, held at the edge
    "Message Opened" …   ── delivered, opened, clicked, bounced, unsubscribed
    "Order Completed" …  ── goals that were reached, coupons that were redeemed

Each entry is called by `fold_profile`, after the event itself was folded and before segments are matched.
"""

from collections.abc import Callable, Mapping, Sequence

from domain.effect import Effect
from domain.event import Event
from operators import offers, redeem
from state import feedback, hopes
from state.context import Context
from state.person import Person

Book = Callable[[Person, Event, Context], Sequence[Effect]]

BOOKS: Mapping[str, tuple[Book, ...]] = {
    "Offer Shown": (offers.shown,),
    "Offer Dismissed": (offers.dismissed,),
    "Offer Held": (offers.held,),
    "Message Delivered": (feedback.delivered,),
    "Message Opened": (feedback.opened,),
    "Message Clicked": (feedback.clicked,),
    "Message Bounced": (feedback.bounced,),
    "Message Held": (feedback.held,),
    "Unsubscribed": (feedback.unsubscribed,),
    "Consent Updated": (feedback.refused,),
    "Identified": (feedback.refused,),
    "Order Completed": (redeem.ordered,),
    "Order Cancelled": (redeem.cancelled,),
}
"""By event name."""

EVERY: tuple[Book, ...] = ()
"""Books that look at every event; each must be quick to see that it is not concerned."""


def keep(person: Person, event: Event, context: Context) -> Sequence[Effect]:
    """Keep every book that this event concerns.

    >>> from domain.event import Track
    >>> from domain.playbook import Playbook
    >>> from state.person import Reserved
    >>> from state.rules import compile_rules
    >>> ann = Person(id="a:ann", reserved=[Reserved("an-action", "hello", 1_000, 9_000)])
    >>> held = Track(event="Offer Held", properties={"action_id": "an-action", "campaign": "hello"})
    >>> keep(ann, held, Context(0, compile_rules(Playbook()))), ann.reserved
    ([], [])
    """
    effects: list[Effect] = []
    for book in BOOKS.get(event.name, ()):
        effects += book(person, event, context)
    if person.hopes:
        effects += hopes.reached(person, event, context)
    for book in EVERY:
        effects += book(person, event, context)
    return effects
