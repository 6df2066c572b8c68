"""The first playbook: whether there is one to begin with, asked before anything is started.

Later a broken folder stops nothing: what was live stays live. At the very beginning nothing was.
"""

from pathlib import Path

from connectors.playbook_folder import read
from domain.problem import PlaybookError, Problem
from domain.settings import Settings
from state.store_sqlite import SqliteStore


def in_the_way(settings: Settings) -> tuple[Problem, ...]:
    """What is wrong with the folder where no playbook was ever live; empty when the house can begin."""
    path = Path(settings.data) / "store" / "store.db"
    if path.exists():
        store = SqliteStore(path, settings.partitions, read_only=True)
        try:
            if store.kept("live", "playbook"):
                return ()
        finally:
            store.close()
    try:
        read(settings.playbook)
    except PlaybookError as wrong:
        return wrong.problems
    return ()
