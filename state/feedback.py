"""Feedback: what became of the messages that a person was sent, as channels report it.

    sent ──▶ delivered ──▶ opened ──▶ clicked        a channel took it: it counts as shown
       ├──▶ held        nobody sent it: its place is free again
       └──▶ bounced     it came back; when for good, its address is given up

Feedback comes from outside, twice or never, late or in any order, and from anybody who has the public key. So only a
message that this person was really sent changes anything, and each state is reached once. Refusing is the exception:
whoever says no is heard, whatever else the event holds.
"""

from collections.abc import Sequence
from sys import intern
from typing import Any
from zlib import crc32

from domain.action import Because
from domain.campaign import OFF_SITE
from domain.event import Event, Track
from domain.message import Message
from state import exposures
from state.addresses import give_up
from state.context import Context
from state.decisions import remember
from state.facts import learn_trait
from state.leaves import granted
from state.person import MAX_CONSENT, MAX_WRITTEN, Facts, Person, Trait, Written
from state.rules import SERVICE
from state.traits import MAX_NAME
from state.view import known

NAME = "feedback"
MAX_WHY = 200
"""Characters of what a channel says that are kept."""

RANK = {"sent": 0, "held": 1, "delivered": 2, "opened": 3, "clicked": 4, "bounced": 5}
"""Later states win; what is told of an earlier one after a later one changes nothing."""

NOTHING: tuple[Message, ...] = ()


def note(person: Person, message: Message, address: str) -> None:
    """A message is on its way to this person. Of too many the oldest ones are forgotten: their feedback only counts.

    `address` is the mark of where it goes (`state/addresses.py`).
    """
    person.written.append(Written(message.id, message.campaign, message.channel, message.at, "sent", message.variant,
                                  message.purpose, address))
    trim(person)


def trim(person: Person) -> None:
    """Keep the newest messages."""
    if len(person.written) > MAX_WRITTEN:
        del person.written[:len(person.written) - MAX_WRITTEN]


def find(person: Person, message_id: str) -> Written | None:
    """A message that this person was sent; None for one that nobody knows here (any more)."""
    for written in reversed(person.written):
        if written.message_id == message_id:
            return written
    return None


def joined(one: Sequence[Written], other: Sequence[Written]) -> list[Written]:
    """The messages of two ids of one person: each once, in the state that is further, the newest ones.

    >>> joined([Written("m", "hi", "email", 5)], [Written("m", "hi", "email", 5, "opened")])[0].state
    'opened'
    """
    found: dict[str, Written] = {}
    for written in (*one, *other):
        have = found.get(written.message_id)
        if have is None or _further(written) > _further(have):
            found[written.message_id] = written
    return sorted(found.values(), key=lambda written: (written.at, written.message_id))[-MAX_WRITTEN:]


def _further(written: Written) -> tuple[int, str]:
    return RANK.get(written.state, 0), repr(written)


# -- books: called by event name (operators/books.py) -------------------------------------------------------------


def delivered(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """A channel took it: it counts as shown."""
    return _reached(person, event, "delivered", context)


def opened(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """They looked at it; so it must have arrived."""
    return _reached(person, event, "opened", context)


def clicked(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """They followed a link in it; so it must have arrived."""
    return _reached(person, event, "clicked", context)


def _reached(person: Person, event: Event, state: str, context: Context) -> Sequence[Message]:
    written = _about(person, event)
    if written is None or RANK.get(written.state, 0) >= RANK[state]:
        return NOTHING
    first = written.state in ("sent", "held")
    written.state = state
    if first:
        exposures.shown(person, written.message_id, written.campaign, context)
    return NOTHING


def bounced(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """It came back. When it always will (`hard`), nobody writes to that address again."""
    written = _about(person, event)
    if written is None or written.state == "bounced":
        return NOTHING
    properties = _properties(event)
    hard = properties.get("hard") is True or text(properties.get("type")).lower() == "hard"
    written.state = "bounced"
    exposures.released(person, written.message_id)
    if hard and written.address:
        give_up(person, written.channel, written.address, context.now)
    why = text(properties.get("reason"))
    remember(person, written.campaign, context.now, "hold", "bounced", why or ("for good" if hard else ""),
             written.message_id)
    return NOTHING


def held(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """Nobody sent it: its place is free again, and the reason is kept."""
    written = _about(person, event)
    if written is None or written.state != "sent":
        return NOTHING
    properties = _properties(event)
    written.state = "held"
    exposures.released(person, written.message_id)
    remember(person, written.campaign, context.now, "hold", word(properties.get("reason")) or "held",
             text(properties.get("detail")), written.message_id)
    return NOTHING


def unsubscribed(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """They do not want such messages any more: on this channel, or, when none is named, on any.

    `channel` and `purpose` say which; what they leave out is as in the message of `message_id`.
    """
    properties = _properties(event)
    written = _about(person, event)
    channel, purpose = properties.get("channel"), properties.get("purpose")
    if channel not in OFF_SITE:
        channel = written.channel if written is not None else ""
    if not isinstance(purpose, str) or not 0 < len(purpose) <= MAX_NAME:
        purpose = written.purpose if written is not None else ""
    if purpose in ("", SERVICE):  # `service` asks for no consent: who refuses such a mail means the others
        purpose = "marketing"
    facts = person.own()
    name = f"{channel}:{purpose}" if channel else purpose
    have = facts.consent.get(name)
    no = Trait(context.event_time or context.now, False, crc32((event.message_id or "").encode()))
    if have is None:
        learn_trait(facts.consent, name, no, MAX_CONSENT)
    elif have.at <= no.at:  # a no that is told late counts too, unless they agreed after it
        facts.consent[name] = no
    facts.version += 1
    return refused(person, event, context)


def refused(person: Person, event: Event, context: Context) -> Sequence[Message]:
    """Take back what is on its way and not wanted (any more)."""
    if not person.reserved or not person.written:
        return NOTHING
    facts = known(person)
    return [withdraw(person, written, "consent", context) for written in person.written
            if written.state == "sent" and not allowed(facts, written.channel, written.purpose, context)
            and any(one.action_id == written.message_id for one in person.reserved)]


def allowed(facts: Facts, channel: str, purpose: str, context: Context) -> bool:
    """Whether a person agrees to messages of a purpose on a channel: a no to one of the two, or to both, is a no."""
    if purpose in ("", SERVICE):
        return True
    shop = context.rules.shop
    policy = shop.consent.purposes
    names = [name for name in (channel, f"{channel}:{purpose}") if name in facts.consent or name in policy]
    return all(granted(facts, name, shop) for name in (purpose, *names))


def withdraw(person: Person, written: Written, reason: str, context: Context) -> Message:
    """Take back a message that is on its way: its place is free, and whoever still has it drops it.

    (Its purpose is interned, so that the bytes leave out the default one, whether or not it comes from the store.)
    """
    written.state = "held"
    exposures.released(person, written.message_id)
    remember(person, written.campaign, context.now, "hold", reason, "", written.message_id)
    return Message(id=context.id(NAME), at=context.now, person=person.id, channel=written.channel,
                   campaign=written.campaign, content_key="", not_before=context.now, not_after=context.now,
                   variant=written.variant, purpose=intern(written.purpose), because=Because(reason=reason),
                   withdraws=written.message_id, history=context.history)


def _properties(event: Event) -> dict[str, Any]:
    return event.properties if type(event) is Track else {}


def _about(person: Person, event: Event) -> Written | None:
    """The message that an event is about, if this person was sent it."""
    message_id = _properties(event).get("message_id")
    return find(person, message_id) if isinstance(message_id, str) and person.written else None


def text(value: Any) -> str:
    r"""What somebody outside says, as one short line.

    >>> text("550 5.1.1\r\nno such user"), text(None), len(text("x" * 999))
    ('550 5.1.1 no such user', '', 200)
    """
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value[:MAX_WHY]).split())


def word(value: Any) -> str:
    """A reason as one word of small letters; what is none is put aside.

    >>> word("no_channel"), word("<b>"), word(7)
    ('no_channel', '', '')
    """
    fine = isinstance(value, str) and 0 < len(value) <= 40 and value.isascii() and value.replace("_", "").isalnum()
    return str(value).lower() if fine else ""

