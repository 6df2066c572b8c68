"""Messages: what a channel worker needs to write to one person off the site. Stream `messages`.

The worker sends what is in `content`, once per `id` (its idempotency key), not before `not_before`, and not at or after
`not_after`. What becomes of it comes back as events of the person: "Message Delivered", "Message Opened",
"Message Clicked", "Message Bounced", "Unsubscribed", "Message Held", each with `message_id`, `campaign`, `channel`.
`docs/messages.md` documents the stream; a test holds it to this declaration.

>>> decode(encode(Message(id="i", at=1, person="u:ann", channel="email", campaign="hello", content_key="k",
...     not_before=1, not_after=2))).channel
'email'
"""

from typing import Any

import msgspec

from domain.action import Because, Content


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One message to one person. Times are ms since 1970.

    `addresses` has the addresses that may be used (`email`, `phone`, `push`, `chat`), `consent` says for the message's
    `purpose`, and for it on this channel ("email:marketing"), what the person answered ("granted", "denied",
    "default"). `content_key` names the words (campaign/variant/hash), `content` is the words made for this person (its
    `title` is the subject), `context` the values they were made of: plain, from outside, not escaped.

    With `withdraws` it is no message: it takes back the one of that id, if that is still waiting. `history` marks what
    recorded days caused: it is never sent, and nothing is said about it.
    """

    id: str
    at: int
    person: str
    channel: str
    campaign: str
    content_key: str
    not_before: int
    not_after: int
    variant: str = ""
    purpose: str = "marketing"
    addresses: dict[str, str] = {}
    consent: dict[str, str] = {}
    content: Content = Content()
    context: dict[str, Any] = {}
    language: str = ""
    timezone: str = ""
    workflow: str = ""
    because: Because = Because()
    withdraws: str = ""
    history: bool = False
    v: int = 1


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Message).decode
