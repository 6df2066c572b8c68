"""Effects: what a step wants done outside the shard. They go through the outbox, in order, and each has one id."""

from typing import NamedTuple

from domain import action, letter, message, outcome, reject
from domain.streams import ACTIONS, LETTERS, MESSAGES, OUTCOMES, REJECTS

Effect = action.Action | letter.Letter | message.Message | outcome.Outcome | reject.Reject
"""An effect is a noun that has a stream; its `id` is (stream, partition, offset, step, n) for a record and
(person, timer, due, step, n) for a timer."""


def stream_of(effect: Effect) -> str:
    """The internal stream an effect is written to.

    >>> stream_of(letter.Letter(kind="claim", sender="u:a", to="a:x", seq=1))
    'letters'
    """
    return _STREAMS.get(type(effect), ACTIONS)


_STREAMS: dict[type, str] = {letter.Letter: LETTERS, outcome.Outcome: OUTCOMES, reject.Reject: REJECTS,
                             message.Message: MESSAGES}


def kind_of(effect: Effect) -> tuple[str, str]:
    """What an effect is counted as: its kind, and the reason of a hold or the kind of a reject.

    >>> kind_of(letter.Letter(kind="claim", sender="u:a", to="a:x", seq=1))
    ('letter', '')
    """
    kind = type(effect)
    plain = _KINDS.get(kind)
    if plain is not None:
        return plain
    if isinstance(effect, action.Hold):
        return "hold", effect.because.reason
    if isinstance(effect, reject.Reject):
        return "reject", effect.kind
    plain = _KINDS[kind] = kind.__name__.lower(), ""
    return plain


_KINDS: dict[type, tuple[str, str]] = {}


class Row(NamedTuple):
    """One effect in the outbox. `seq` is its commit's number (0 until committed); `at` is the clock that caused it.

    `history` is 1 for what recorded days caused. `body` is the effect as JSON. `shard` is whose effect it is (-1 where
    that was not noted): with the shard it goes to another worker.
    """

    seq: int
    id: str
    stream: str
    key: bytes
    at: int
    history: int
    body: bytes
    shard: int = -1
