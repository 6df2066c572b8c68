"""The first playbook: whether there is one to begin with, asked before anything is started.

Later a broken folder stops nothing: what was live stays live. At the very beginning nothing was.
"""

import time
from contextlib import suppress
from pathlib import Path

from connectors import mistakes_file
from connectors.playbook_folder import read
from connectors.settings import secret_of
from domain.mistakes import Mistakes
from domain.playbook import Playbook
from domain.problem import PlaybookError, Problem
from domain.settings import Settings
from state.rules import Rules, compile_rules
from state.store import StoreError
from state.store_sqlite import SqliteStore


def in_the_way(settings: Settings) -> tuple[Problem, ...]:
    """What is wrong with the folder where no playbook was ever live; empty when the house can begin."""
    if _was_live(settings):
        return ()
    try:
        read(settings.playbook)
    except PlaybookError as wrong:
        return wrong.problems
    return ()


def begin(settings: Settings) -> None:
    """What a worker asks before its flow is built. PlaybookError when it has nothing to decide by: whoever looks at the
    mistakes sees them too.
    """
    try:
        if _was_live(settings):
            return
    except StoreError:  # another worker is just making it; or who opens it to write says what is wrong with it
        return
    try:
        ready(read(settings.playbook), secret_of(settings).encode())
        return
    except PlaybookError as broken:
        wrong = broken.problems
    path, now = mistakes_file.path_of(settings.data), time.time_ns() // 1_000_000
    before = mistakes_file.read(path)
    with suppress(OSError):  # they are said all the same
        mistakes_file.tell(path, Mistakes.of(settings.playbook, wrong, before.since if before else now))
    raise PlaybookError(wrong)


def ready(playbook: Playbook, secret: bytes) -> Rules:
    """The rules of a playbook without mistakes. PlaybookError when it cannot be used here all the same."""
    try:
        rules = compile_rules(playbook)
    except ValueError as wrong:  # a mistake that no check knows: it stops nothing either
        raise PlaybookError([Problem("the playbook", 0, "", str(wrong))]) from wrong
    made_up = [name for name, rule in rules.pools.items() if not rule.pool.codes]
    if made_up and not secret:
        raise PlaybookError([Problem(
            f"coupons/{made_up[0]}.toml", 0, "", "its codes are made from the shop's secret, and there is none: "
            f"set ATTIMO_SECRET, the same as for the edge, or list the codes in codes/{made_up[0]}.txt")])
    return rules


def _was_live(settings: Settings) -> bool:
    path = Path(settings.data) / "store" / "store.db"
    if not path.exists():
        return False
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        return bool(store.kept("live", "playbook"))
    finally:
        store.close()
