"""`attimo explain`: one person as stored, with the logged explanations of recent decisions.

store (the person, the live playbook) + log (actions, messages) ─▶ state/explain/explain.py ─▶ a page of text
"""

from pathlib import Path

import msgspec

from connectors.log.log import Log, LogError
from connectors.log.open import open_log
from connectors.playbook.folder import read_playbook
from domain import action as actions
from domain import action as messages
from domain.action import Explanation
from domain.diagnostics import PlaybookError
from domain.playbook import playbook as playbooks
from domain.playbook.shop import Shop
from domain.record import ACTIONS, DECODE_ERRORS, MESSAGES, partition_of
from domain.settings import Settings
from flows.worker import now_ms, store_path
from state.explain.explain import decision_key, explain, find_persons
from state.person.model import Person, routing_key
from state.playbook.compiled import rules_from_source
from state.store.sqlite import SqliteStore

LOOKBACK_OFFSETS = 20_000
"""Records per partition, from the end of the log, that are searched for decisions about a person."""


def explain_person(settings: Settings, any_id: str, name: str = "") -> list[str]:
    """Return one page per person with this id; with `name`, about that campaign, workflow or segment.

    Raise ValueError if the id is unknown.
    """
    path = store_path(settings)
    if not path.exists():
        raise ValueError(f"data: no people in {settings.data}/ yet ({path} does not exist)")
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        found = find_persons(any_id, store.person, settings.partitions)
        live = store.get_blob("live", "playbook")
        source = store.get_blob("playbook", live.decode()) if live else None
    finally:
        store.close()
    if not found:
        raise ValueError(f"{any_id}: no person has this id")
    rules = rules_from_source(source) if source is not None and name else None
    shop = _read_shop(settings, source)
    return [
        explain(person, shop.currency, name, rules, now_ms(), shop.timezone, _logged_explanations(settings, person))
        for person in found
    ]


def _read_shop(settings: Settings, source: bytes | None) -> Shop:
    """Shop settings of the live playbook, else of the folder, else without currency and time zone."""
    try:
        return playbooks.decode_playbook(source).shop if source is not None else read_playbook(settings.playbook).shop
    except (PlaybookError, OSError, msgspec.ValidationError):
        return Shop(currency="")


def _logged_explanations(settings: Settings, person: Person) -> dict[str, Explanation]:
    """Logged explanations of decisions about this person; empty if the log cannot be read."""
    if settings.log == "sqlite" and not (Path(settings.data) / "log").exists():
        return {}  # opening the log would create it
    try:
        with open_log(settings) as log:
            return _read_explanations(log, person)
    except (LogError, ValueError):
        return {}


def _read_explanations(log: Log, person: Person) -> dict[str, Explanation]:
    explanations: dict[str, Explanation] = {}
    ids = {person.id, *person.identity_links}
    for stream in (ACTIONS, MESSAGES):
        for partition in sorted({partition_of(routing_key(person_id), log.partitions) for person_id in ids}):
            end = log.end_offsets([(stream, partition)]).get((stream, partition), -1)
            for record in log.fetch((stream, partition), max(0, end - LOOKBACK_OFFSETS), end) if end >= 0 else ():
                try:
                    decision = (
                        actions.decode_action(record.value)
                        if stream == ACTIONS
                        else messages.decode_message(record.value)
                    )
                except DECODE_ERRORS:  # written by another version
                    continue
                if decision.person in ids:
                    explanations[decision.id] = decision.because
                    if isinstance(decision, actions.Suppress):
                        explanations[decision_key(decision.campaign, decision.at)] = decision.because
    return explanations
