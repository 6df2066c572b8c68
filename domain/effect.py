"""Effects: what a step wants done outside the shard. They go through the outbox, in order, and each has one id."""

from domain import action, letter, outcome, reject
from domain.streams import ACTIONS, LETTERS, OUTCOMES, REJECTS

Effect = action.Action | letter.Letter | outcome.Outcome | reject.Reject
"""An effect is a noun that has a stream; its `id` is (stream, partition, offset, step, n) for a record and
(person, timer, due, step, n) for a timer."""


def stream_of(effect: Effect) -> str:
    """The internal stream an effect is written to.

    >>> stream_of(letter.Letter(kind="claim", sender="u:a", to="a:x", seq=1))
    'letters'
    """
    if isinstance(effect, letter.Letter):
        return LETTERS
    if isinstance(effect, outcome.Outcome):
        return OUTCOMES
    if isinstance(effect, reject.Reject):
        return REJECTS
    return ACTIONS
