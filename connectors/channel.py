"""Channels: what carries a message to a person, and what is said about it afterwards.

    flows/outreach.py ── messages whose time has come ──▶ Channel.send ── Told, one for each ──▶ feedback in `people`

`channels` in the settings says who takes what:

    file               the file worker (`channel_file.py`) takes every channel that is not named otherwise
    email:file         it takes e-mail
    email:elsewhere    a worker of your own reads the stream `messages` for e-mail: attimo leaves those alone
    none               nobody: what is to go out is held, and the reason says so

>>> routes(("file", "email:elsewhere"))["email"], routes(("file", "email:elsewhere"))["sms"], routes(("none",))["sms"]
('elsewhere', 'file', '')
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from domain.campaign import OFF_SITE
from domain.event_names import meant
from domain.message import Message
from domain.record import Outgoing
from domain.streams import PEOPLE

WORKERS: Final = ("file",)
"""The workers that attimo brings along."""
ELSEWHERE: Final = "elsewhere"
NONE: Final = "none"

_EVENTS: Final = {"delivered": "Message Delivered", "bounced": "Message Bounced", "held": "Message Held"}
_encode = msgspec.json.Encoder().encode


class ChannelError(RuntimeError):
    """The channel cannot be reached now: its messages are handed to it again."""


class Told(NamedTuple):
    """What became of a message.

    `delivered`: the channel took it. `bounced`: it came back, when `hard` for good. `held`: it will not be sent, for a
    `reason` in one word. `later`: not now, hand it over again.
    """

    state: Literal["delivered", "bounced", "held", "later"]
    reason: str = ""
    detail: str = ""
    hard: bool = False


class Channel(Protocol):
    """What a channel worker implements."""

    def send(self, messages: Sequence[Message]) -> list[Told]:
        """Carry out these messages, and say what became of each, in their order.

        A message whose id was carried out before is not carried out again: it is told as it was. That holds after a
        crash at any moment, too: what is handed over may be what was sent just before it. ChannelError when nothing can
        be done now.
        """
        ...

    def close(self) -> None: ...


def routes(channels: Sequence[str]) -> dict[str, str]:
    """Which worker takes which channel ("" for none). ValueError names the entry of the setting that is wrong.

    >>> routes(("emial:file",))
    Traceback (most recent call last):
        ...
    ValueError: channels: 'emial:file': there is no channel 'emial'; did you mean "email"?
    """
    named: dict[str, str] = {}
    rest = ""
    for entry in channels:
        channel, colon, worker = entry.strip().partition(":")
        if not colon:
            channel, worker = "", channel
        if worker not in (*WORKERS, *((ELSEWHERE,) if colon else (NONE,))):
            known = (*WORKERS, ELSEWHERE, NONE)
            raise ValueError(f"channels: {entry!r}: there is no worker {worker!r}{meant(worker, known)}; write it as "
                             f"{', '.join(WORKERS)}, CHANNEL:{WORKERS[0]}, CHANNEL:{ELSEWHERE} or {NONE}")
        if not colon:
            rest = "" if worker == NONE else worker
        elif channel not in OFF_SITE:
            raise ValueError(f"channels: {entry!r}: there is no channel {channel!r}{meant(channel, OFF_SITE)}")
        else:
            named[channel] = worker
    return {channel: named.get(channel, rest) for channel in OFF_SITE}


def feedback(message: Message, told: Told) -> Outgoing:
    """The event that tells the person's history what became of a message. Told again, it has the same `messageId`."""
    properties = {
        "message_id": message.id, "campaign": message.campaign, "channel": message.channel, "variant": message.variant,
        "workflow": message.workflow, "reason": told.reason, "detail": told.detail, "hard": told.hard}
    known = message.person.startswith("u:")
    event = {
        "type": "track", "event": _EVENTS[told.state], "messageId": f"{told.state}-{message.id}",
        "userId" if known else "anonymousId": message.person[2:],
        "properties": {name: value for name, value in properties.items() if value},
    }
    return Outgoing(PEOPLE, message.person[2:].encode(), _encode(event))
