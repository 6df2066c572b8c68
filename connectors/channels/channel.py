"""Channels: the interface of channel workers, the routing of channels, and the feedback on messages.

    flows/outreach.py ── due messages ──▶ Channel.send ── SendResult ──▶ feedback event in `people`

The setting `channels` assigns a worker to each channel:

    file              the file worker (`connectors/channels/file.py`), for all channels without an entry of their own
    email:file        the file worker, for email
    email:external    a worker of yours, which reads email messages from the stream `messages`
    none              no worker: messages are suppressed with the reason `no_channel`

>>> routes = route_table(("file", "email:external"))
>>> routes["email"], routes["sms"], route_table(("none",))["sms"]
('external', 'file', '')
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from domain.action import Message
from domain.event import did_you_mean
from domain.playbook.campaign import OFFSITE_FORMATS
from domain.record import PEOPLE, NewRecord

WORKERS: Final = ("file",)
"""The built-in workers."""
EXTERNAL: Final = "external"
NONE: Final = "none"

_FEEDBACK_EVENTS: Final = {
    "delivered": "Message Delivered",
    "bounced": "Message Bounced",
    "suppressed": "Message Suppressed",
}
_encode = msgspec.json.Encoder().encode


class ChannelError(RuntimeError):
    """The channel is unavailable; its messages are sent again later."""


class SendResult(NamedTuple):
    """The result for one message.

    `delivered`: the channel accepted it. `bounced`: it was returned; `hard` means permanently. `suppressed`: it will
    not be sent, for the one-word `reason`. `retry`: send it again later.
    """

    status: Literal["delivered", "bounced", "suppressed", "retry"]
    reason: str = ""
    detail: str = ""
    hard: bool = False


class Channel(Protocol):
    """Interface of a channel worker."""

    def send(self, messages: Sequence[Message]) -> list[SendResult]:
        """Send messages and return their results in the same order.

        Must be idempotent: a message whose id was sent before, also just before a crash, is not sent again and gets the
        same result. Raise ChannelError if the channel is unavailable.
        """
        ...

    def close(self) -> None: ...


def route_table(channels: Sequence[str]) -> dict[str, str]:
    """Return the worker of each channel; "" means none. Raise ValueError for an invalid entry.

    >>> route_table(("emial:file",))
    Traceback (most recent call last):
        ...
    ValueError: channels: 'emial:file': unknown channel 'emial'; did you mean "email"?
    """
    named: dict[str, str] = {}
    rest = ""
    for entry in channels:
        channel, colon, worker = entry.strip().partition(":")
        if not colon:
            channel, worker = "", channel
        if worker not in (*WORKERS, *((EXTERNAL,) if colon else (NONE,))):
            known = (*WORKERS, EXTERNAL, NONE)
            raise ValueError(
                f"channels: {entry!r}: unknown worker {worker!r}{did_you_mean(worker, known)}; expected "
                f"{', '.join(WORKERS)}, CHANNEL:{WORKERS[0]}, CHANNEL:{EXTERNAL} or {NONE}"
            )
        if not colon:
            rest = "" if worker == NONE else worker
        elif channel not in OFFSITE_FORMATS:
            raise ValueError(
                f"channels: {entry!r}: unknown channel {channel!r}{did_you_mean(channel, OFFSITE_FORMATS)}"
            )
        else:
            named[channel] = worker
    return {channel: named.get(channel, rest) for channel in OFFSITE_FORMATS}


def feedback_event(message: Message, result: SendResult) -> NewRecord:
    """Return the feedback event for a message; a duplicate has the same `messageId`."""
    properties = {
        "message_id": message.id,
        "campaign": message.campaign,
        "channel": message.channel,
        "variant": message.variant,
        "workflow": message.workflow,
        "reason": result.reason,
        "detail": result.detail,
        "hard": result.hard,
    }
    is_user = message.person.startswith("u:")
    event = {
        "type": "track",
        "event": _FEEDBACK_EVENTS[result.status],
        "messageId": f"{result.status}-{message.id}",
        "userId" if is_user else "anonymousId": message.person[2:],
        "properties": {name: value for name, value in properties.items() if value},
    }
    return NewRecord(PEOPLE, message.person[2:].encode(), _encode(event))
