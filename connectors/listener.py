"""A listener: one open event stream of one browser, and what it has already been given."""

import asyncio
from collections import OrderedDict, deque
from typing import Any, Final

import orjson

QUEUE: Final = 64
"""Events that wait for a slow browser; one more ends the stream, and the browser comes back for the armed set."""

REMEMBERED: Final = 512
"""Action ids kept per stream."""


def sse(event: str, data: bytes) -> bytes:
    r"""One server-sent event; JSON has no raw line breaks.

    >>> sse("armed", b"[]")
    b'event: armed\ndata: []\n\n'
    """
    return b"event: %s\ndata: %s\n\n" % (event.encode(), data)


class Listener:
    """Not yet `ready`, live messages wait: the armed set comes first."""

    __slots__ = ("_ids", "_queue", "_wake", "anonymous_id", "ended", "listed", "ready", "turn", "waiting")

    def __init__(self, anonymous_id: str) -> None:
        self.anonymous_id = anonymous_id
        self.ready = False
        self.turn = 0
        self.waiting: list[dict[str, Any]] = []
        self.listed: dict[str, int] = {}
        self.ended = asyncio.Event()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()

    def is_news(self, action: dict[str, Any]) -> bool:
        """Whether a live action was not yet given, neither live nor with the armed set.

        The set was read on another connection, so messages that led to it may arrive after it: per campaign, what is
        not younger than the listed action is already in the set.
        """
        campaign = action.get("campaign")
        if isinstance(campaign, str) and campaign in self.listed and _at(action) <= self.listed[campaign]:
            return False
        return action["id"] not in self._ids

    def remember(self, action_id: str) -> None:
        """Note that an action has been given."""
        self._ids[action_id] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)

    def armed(self, actions: list[dict[str, Any]]) -> None:
        """Give the whole set of what should be held now."""
        self.listed = {str(action.get("campaign")): _at(action) for action in actions}
        for action in actions:
            self.remember(action["id"])
        self.give(sse("armed", orjson.dumps(actions)))

    def give(self, event: bytes) -> bool:
        """Queue an event; False (and the end of the stream) when the browser is too slow."""
        if len(self._queue) >= QUEUE:
            self.ended.set()
            return False
        self._queue.append(event)
        self._wake.set()
        return True

    async def next(self, keep_alive: float) -> bytes:
        """What to write next: all that waits, or a comment after `keep_alive` seconds of silence."""
        if not self._queue:
            self._wake.clear()
            try:
                async with asyncio.timeout(keep_alive):
                    await self._wake.wait()
            except TimeoutError:
                return b": still here\n\n"
        found = b"".join(self._queue)
        self._queue.clear()
        return found


def _at(action: dict[str, Any]) -> int:
    at = action.get("at")
    return at if isinstance(at, int) else 0
