"""Explaining: one person as the store knows them, with what the log still holds of the decisions about them.

    store (the person, the live playbook) + log (actions, messages) ─▶ state/explain.py ─▶ a page of text
"""

from pathlib import Path

import msgspec

from connectors.log import Log, LogError
from connectors.open_log import open_log
from connectors.playbook_folder import read
from domain import action as actions
from domain import message as messages
from domain import playbook as playbooks
from domain.action import Because
from domain.partition import partition_of
from domain.problem import PlaybookError
from domain.record import UNREADABLE
from domain.settings import Settings
from domain.shop import Shop
from domain.streams import ACTIONS, MESSAGES
from flows.worker import store_path, wall
from state.explain import explain, find, held_at
from state.person import Person, routing_key
from state.rules import rules_from
from state.store_sqlite import SqliteStore

BACK = 20_000
"""How far back (in records of one partition) the log is looked through for the decisions about one person."""


def explained(settings: Settings, who: str, name: str = "") -> list[str]:
    """A page for everybody whom `who` may mean; with `name`, about that campaign, workflow or segment.

    ValueError when nobody is known by that id.
    """
    path = store_path(settings)
    if not path.exists():
        raise ValueError(f"data: nobody is known in {settings.data}/ yet ({path} is not there)")
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        found = find(who, store.person, settings.partitions)
        live = store.kept("live", "playbook")
        source = store.kept("playbook", live.decode()) if live else None
    finally:
        store.close()
    if not found:
        raise ValueError(f"nobody is known as {who}")
    rules = rules_from(source) if source is not None and name else None
    shop = _shop(settings, source)
    return [explain(person, shop.currency, name, rules, wall(), shop.timezone, _told(settings, person))
            for person in found]


def _shop(settings: Settings, source: bytes | None) -> Shop:
    """What holds for the shop: as it is live, else as the folder says; else nothing is said of money and zone."""
    try:
        return playbooks.decode(source).shop if source is not None else read(settings.playbook).shop
    except (PlaybookError, OSError, msgspec.ValidationError):
        return Shop(currency="")


def _told(settings: Settings, person: Person) -> dict[str, Because]:
    """What the log says of the decisions about this person; nothing where it cannot be read: the page goes without."""
    if settings.log == "sqlite" and not (Path(settings.data) / "log").exists():
        return {}  # looking makes none
    try:
        with open_log(settings) as log:
            return _newest(log, person)
    except (LogError, ValueError):
        return {}


def _newest(log: Log, person: Person) -> dict[str, Because]:
    told: dict[str, Because] = {}
    ids = {person.id, *person.links}
    for stream in (ACTIONS, MESSAGES):
        for partition in sorted({partition_of(routing_key(one), log.partitions) for one in ids}):
            end = log.ends([(stream, partition)]).get((stream, partition), -1)
            for record in log.fetch((stream, partition), max(0, end - BACK), end) if end >= 0 else ():
                try:
                    said = (actions if stream == ACTIONS else messages).decode(record.value)
                except UNREADABLE:  # of another version, or nothing of ours
                    continue
                if said.person in ids:
                    told[said.id] = said.because
                    if isinstance(said, actions.Hold):
                        told[held_at(said.campaign, said.at)] = said.because
    return told
