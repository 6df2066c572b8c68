"""Failpoints: places where a test can end the process, as `kill -9` does.

`ATTIMO_CRASH_AT=onsite:after_commit` ends the process at the first hit, `...:after_commit#7` at the seventh. Without
the variable a failpoint costs one comparison.

    collector:after_append   the log has the event, the client has no response
    onsite:after_commit      the store has the batch, nothing is published
    onsite:after_redis       published to Redis, not written to the log
    onsite:after_publish     published, the outbox is not acknowledged
    onsite:backfilling       a part of the backfill of a new playbook is done
    onsite:swapping          the backfill is stored, the new playbook is not live
    onsite:reevaluating      some people are re-evaluated under the new playbook
    learning:after_commit    learned, not published
    learning:after_publish   published, the position is not stored
    outreach:after_send      the channel has the message, no feedback is written
    outreach:after_feedback  feedback is written, the position is not stored
    outreach:after_commit    the batch is complete
"""

import os

_CRASH_NAME, _, _CRASH_HIT = os.environ.get("ATTIMO_CRASH_AT", "").partition("#")
_hits_left = int(_CRASH_HIT or 1)


def failpoint(name: str) -> None:
    """End the process with exit code 137 if `name` is selected."""
    if name == _CRASH_NAME:
        _count_hit()


def _count_hit() -> None:
    global _hits_left
    _hits_left -= 1
    if _hits_left <= 0:
        os._exit(137)
