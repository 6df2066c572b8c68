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
        wrong = unusable(compile_rules(read(settings.playbook)), secret_of(settings).encode())
    except PlaybookError as broken:
        wrong = broken.problems
    if not wrong:
        return
    path, now = mistakes_file.path_of(settings.data), time.time_ns() // 1_000_000
    before = mistakes_file.read(path)
    with suppress(OSError):  # they are said all the same
        mistakes_file.tell(path, Mistakes.of(settings.playbook, wrong, before.since if before else now))
    raise PlaybookError(wrong)


def unusable(rules: Rules, secret: bytes) -> tuple[Problem, ...]:
    """Why a playbook that is whole cannot be used here."""
    made_up = [name for name, rule in rules.pools.items() if not rule.pool.codes]
    if not made_up or secret:
        return ()
    return (Problem(
        f"coupons/{made_up[0]}.toml", 0, "", "its codes are made from the shop's secret, and there is none: "
        f"set ATTIMO_SECRET, the same as for the edge, or list the codes in codes/{made_up[0]}.txt"),)


def _was_live(settings: Settings) -> bool:
    path = Path(settings.data) / "store" / "store.db"
    if not path.exists():
        return False
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        return bool(store.kept("live", "playbook"))
    finally:
        store.close()
