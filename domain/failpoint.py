"""Failpoints: where a test may end the process, as kill -9 would.

`ATTIMO_CRASH_AT=onsite:after_commit` ends the process the first time it gets there; `…:after_commit#7` the
seventh time. Without the variable a failpoint costs one comparison.

    collector:after_append   the log has the event, the sender has no answer
    onsite:after_commit      the store remembers, nobody was told
    onsite:after_redis       Redis has said it, the log does not have it
    onsite:after_publish     told, but the outbox does not know it yet
    onsite:warming           some of what a new playbook counts was gathered from the log
    onsite:swapping          all of it was kept, and the new playbook is not live yet
    onsite:sweeping          some people were looked at again with it
    learning:after_commit    learned, not yet published
    learning:after_publish   published, but not yet noted
    outreach:after_send      the channel has the message, nobody was told
    outreach:after_feedback  told, but the position is not noted
    outreach:after_commit    dealt with
"""

import os

_NAME, _, _NTH = os.environ.get("ATTIMO_CRASH_AT", "").partition("#")
_left = int(_NTH or 1)


def failpoint(name: str) -> None:
    """End the process here, with exit code 137, if this is the chosen place."""
    if name == _NAME:
        _reached()


def _reached() -> None:
    global _left
    _left -= 1
    if _left <= 0:
        os._exit(137)
