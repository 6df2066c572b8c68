"""Message feedback: the status of sent messages, as channels report it.

    sent ──▶ delivered ──▶ opened ──▶ clicked        accepted by a channel: counts as shown
       ├──▶ suppressed  not sent: its place is released
       └──▶ bounced     after a hard bounce the address is suppressed

Feedback is untrusted, repeated and unordered. It changes only messages that were sent to this person, and each status
is reached once. An opt-out is always accepted.
"""

from collections.abc import Sequence
from sys import intern
from typing import Any
from zlib import crc32

from domain.action import Explanation, Message
from domain.event import Event, Track
from domain.playbook.campaign import OFFSITE_FORMATS
from state.conditions.predicate import has_consent
from state.context import StepContext
from state.decisions import exposures
from state.decisions.log import record_decision
from state.person.addresses import suppress_address
from state.person.model import MAX_CONSENT, MAX_MESSAGES, Person, ProfileFragment, SentMessage, Trait
from state.playbook.compiled import SERVICE
from state.profile.ecommerce import MAX_TRAIT_NAME
from state.profile.profile import merged_profile, set_trait

STEP_NAME = "feedback"
MAX_REASON = 200
"""Maximum length of stored channel texts, in characters."""

STATUS_RANK = {"sent": 0, "suppressed": 1, "delivered": 2, "opened": 3, "clicked": 4, "bounced": 5}
"""Rank of each status. A status of lower rank never replaces one of higher rank."""

NO_MESSAGES: tuple[Message, ...] = ()


def track_message(person: Person, message: Message, address_hash: str) -> None:
    """Track a message that was sent to this person. Above the maximum, the oldest messages are evicted.

    `address_hash` identifies the recipient address (`state/person/addresses.py`).
    """
    person.messages.append(
        SentMessage(
            message.id,
            message.campaign,
            message.channel,
            message.at,
            "sent",
            message.variant,
            message.purpose,
            address_hash,
        )
    )
    evict_oldest(person)


def evict_oldest(person: Person) -> None:
    """Keep the newest messages."""
    if len(person.messages) > MAX_MESSAGES:
        del person.messages[: len(person.messages) - MAX_MESSAGES]


def find_message(person: Person, message_id: str) -> SentMessage | None:
    """Return a message that was sent to this person; None if it is unknown or evicted."""
    for written in reversed(person.messages):
        if written.message_id == message_id:
            return written
    return None


def merge(left: Sequence[SentMessage], right: Sequence[SentMessage]) -> list[SentMessage]:
    """Merge the messages of two ids of one person: each once, with the furthest status, newest kept.

    >>> merge([SentMessage("m", "hi", "email", 5)], [SentMessage("m", "hi", "email", 5, "opened")])[0].status
    'opened'
    """
    found: dict[str, SentMessage] = {}
    for written in (*left, *right):
        have = found.get(written.message_id)
        if have is None or _status_rank(written) > _status_rank(have):
            found[written.message_id] = written
    return sorted(found.values(), key=lambda written: (written.sent_at, written.message_id))[-MAX_MESSAGES:]


def _status_rank(message: SentMessage) -> tuple[int, str]:
    return STATUS_RANK.get(message.status, 0), repr(message)


# -- handlers by event name (operators/record_feedback.py) -----------------------------------------------------


def on_delivered(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Record a delivery: the message counts as shown."""
    return _advance_status(person, event, "delivered", context)


def on_opened(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Record an open, which implies delivery."""
    return _advance_status(person, event, "opened", context)


def on_clicked(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Record a click, which implies delivery."""
    return _advance_status(person, event, "clicked", context)


def _advance_status(person: Person, event: Event, status: str, context: StepContext) -> Sequence[Message]:
    written = _referenced_message(person, event)
    if written is None or STATUS_RANK.get(written.status, 0) >= STATUS_RANK[status]:
        return NO_MESSAGES
    first = written.status in ("sent", "suppressed")
    written.status = status
    if first:
        exposures.confirm(person, written.message_id, written.campaign, context)
    return NO_MESSAGES


def on_bounced(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Record a bounce. A hard bounce suppresses the address."""
    written = _referenced_message(person, event)
    if written is None or written.status == "bounced":
        return NO_MESSAGES
    properties = _properties(event)
    hard = properties.get("hard") is True or clean_text(properties.get("type")).lower() == "hard"
    written.status = "bounced"
    exposures.release(person, written.message_id)
    if hard and written.address_hash:
        suppress_address(person, written.channel, written.address_hash, context.now)
    why = clean_text(properties.get("reason"))
    record_decision(
        person,
        written.campaign,
        context.now,
        "suppress",
        "bounced",
        why or ("for good" if hard else ""),
        written.message_id,
    )
    return NO_MESSAGES


def on_suppressed(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Record that the channel suppressed the message: release its exposure and store the reason."""
    written = _referenced_message(person, event)
    if written is None or written.status != "sent":
        return NO_MESSAGES
    properties = _properties(event)
    written.status = "suppressed"
    exposures.release(person, written.message_id)
    record_decision(
        person,
        written.campaign,
        context.now,
        "suppress",
        clean_reason(properties.get("reason")) or "suppressed",
        clean_text(properties.get("detail")),
        written.message_id,
    )
    return NO_MESSAGES


def on_unsubscribed(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Record an opt-out for a channel, or for all channels if none is known.

    `channel` and `purpose` default to those of the message with `message_id`.
    """
    properties = _properties(event)
    written = _referenced_message(person, event)
    channel, purpose = properties.get("channel"), properties.get("purpose")
    if channel not in OFFSITE_FORMATS:
        channel = written.channel if written is not None else ""
    if not isinstance(purpose, str) or not 0 < len(purpose) <= MAX_TRAIT_NAME:
        purpose = written.purpose if written is not None else ""
    if purpose in ("", SERVICE):  # `service` needs no consent, so the opt-out applies to marketing
        purpose = "marketing"
    facts = person.own_fragment()
    name = f"{channel}:{purpose}" if channel else purpose
    have = facts.consent.get(name)
    no = Trait(context.event_time or context.now, False, crc32((event.message_id or "").encode()))
    if have is None:
        set_trait(facts.consent, name, no, MAX_CONSENT)
    elif have.at <= no.at:  # a late opt-out counts too, unless newer consent exists
        facts.consent[name] = no
    facts.version += 1
    return consent_refused(person, event, context)


def consent_refused(person: Person, event: Event, context: StepContext) -> Sequence[Message]:
    """Withdraw pending messages that have no consent."""
    if not person.pending_sends or not person.messages:
        return NO_MESSAGES
    facts = merged_profile(person)
    return [
        withdraw(person, written, "consent", context)
        for written in person.messages
        if written.status == "sent"
        and not has_message_consent(facts, written.channel, written.purpose, context)
        and any(one.action_id == written.message_id for one in person.pending_sends)
    ]


def has_message_consent(profile: ProfileFragment, channel: str, purpose: str, context: StepContext) -> bool:
    """Return whether a person consents to the purpose, the channel and the combination of both."""
    if purpose in ("", SERVICE):
        return True
    shop = context.rules.shop
    policy = shop.consent.purposes
    names = [name for name in (channel, f"{channel}:{purpose}") if name in profile.consent or name in policy]
    return all(has_consent(profile, name, shop) for name in (purpose, *names))


def withdraw(person: Person, message: SentMessage, reason: str, context: StepContext) -> Message:
    """Withdraw a pending message: release its exposure and return the withdrawal for the channel worker.

    The purpose is interned, so that the encoder omits the default also for messages read from the store.
    """
    message.status = "suppressed"
    exposures.release(person, message.message_id)
    record_decision(person, message.campaign, context.now, "suppress", reason, "", message.message_id)
    return Message(
        id=context.next_effect_id(STEP_NAME),
        at=context.now,
        person=person.id,
        channel=message.channel,
        campaign=message.campaign,
        content_key="",
        not_before=context.now,
        not_after=context.now,
        variant=message.variant,
        purpose=intern(message.purpose),
        because=Explanation(reason=reason),
        withdrawn_id=message.message_id,
        history=context.history,
    )


def _properties(event: Event) -> dict[str, Any]:
    return event.properties if type(event) is Track else {}


def _referenced_message(person: Person, event: Event) -> SentMessage | None:
    """Return the message that an event refers to, if it was sent to this person."""
    message_id = _properties(event).get("message_id")
    return find_message(person, message_id) if isinstance(message_id, str) and person.messages else None


def clean_text(value: Any) -> str:
    r"""Normalize external text to one short line.

    >>> clean_text("550 5.1.1\r\nno such user"), clean_text(None), len(clean_text("x" * 999))
    ('550 5.1.1 no such user', '', 200)
    """
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value[:MAX_REASON]).split())


def clean_reason(value: Any) -> str:
    """Return a reason as one lowercase word; empty if it is invalid.

    >>> clean_reason("no_channel"), clean_reason("<b>"), clean_reason(7)
    ('no_channel', '', '')
    """
    fine = isinstance(value, str) and 0 < len(value) <= 40 and value.isascii() and value.replace("_", "").isalnum()
    return str(value).lower() if fine else ""
