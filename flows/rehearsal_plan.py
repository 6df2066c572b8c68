"""The plan of a rehearsal: from when until when, who belongs together, which models were live.

All of it is read, nothing is written: the log and the store are opened for reading only.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from connectors.history import recorded
from connectors.playbook_folder import read
from domain import model as models
from domain.event_names import offered
from domain.playbook import encode
from domain.record import UNREADABLE
from domain.settings import Settings
from domain.streams import MODELS, PUBLIC
from flows.worker import store_path
from state import rfm
from state.days import at, zone
from state.kin import Kin
from state.reactions import REACTIONS
from state.recorded import Models
from state.rules import Rules, compile_rules
from state.store import Turn
from state.store_sqlite import SqliteStore

FOREVER = 1 << 62
VISITS = "propensity"
"""The kind of the model of visits."""

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, of how much; 0: not known)."""


class Wish(NamedTuple):
    """What is to be rehearsed: a folder, from when until when (as typed; left out: all), and how; and about which
    campaign somebody wants to know (left out: about all).
    """

    folder: str
    begin: str = ""
    end: str = ""
    cold: bool = False
    as_recorded: bool = False
    model: str = "recorded"
    processes: int = 0
    campaign: str = ""


class Plan(NamedTuple):
    """What every process needs to know; plain, so that it crosses processes."""

    settings: Settings
    source: bytes
    begin: int
    end: int
    cold: bool
    as_recorded: bool
    parents: dict[str, str]
    recorded_models: Models | None
    models: dict[str, bytes]
    model: str
    shares: int


class Survey(NamedTuple):
    """What a first look at the log has found."""

    kin: Kin
    first: int
    last: int
    records: int
    bytes: int
    known: frozenset[str]


def moment(words: str, timezone: str, last: bool = False) -> int:
    """A time as it is typed ("2026-07-01", "2026-07-01 09:00"), in ms; of a day its beginning, with `last` its end.

    >>> moment("2019-10-01", "UTC", True) - moment("2019-10-01 00:00", "UTC") == 86_400_000
    True
    """
    given = words.strip().replace("T", " ")
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"):
        try:
            found = datetime.strptime(given, form).replace(tzinfo=UTC)  # a wall clock's time; the zone comes below
        except ValueError:
            continue
        if last and form == "%Y-%m-%d":
            found += timedelta(days=1)
        where = zone(timezone)
        return at(found.year, found.month, found.day, found.hour, found.minute, where) + found.second * 1000
    raise ValueError(f"{words}: write a day (2026-07-01) or a minute (2026-07-01 09:00) of the shop's time zone")


def plan_of(
    settings: Settings, wish: Wish, progress: Progress, names: Sequence[str] = ()
) -> tuple[Rules, Plan, Survey]:
    """Read the playbook and look through the log. `names` are person keys that the survey should look out for."""
    playbook = read(wish.folder)
    rules, timezone = compile_rules(playbook), playbook.shop.timezone
    if wish.campaign and wish.campaign not in rules.campaigns:
        raise ValueError(f"--campaign {wish.campaign}: there is none of this name in {wish.folder}"
                         + offered(wish.campaign, sorted(rules.campaigns)))
    begin = moment(wish.begin, timezone) if wish.begin else 0
    end = moment(wish.end, timezone, last=True) if wish.end else 0
    if begin and end and begin >= end:
        raise ValueError(f"--from {wish.begin}: is not before --to {wish.end}")
    survey = _survey(settings, begin if wish.cold else 0, end or FOREVER, progress, names)
    end = end or survey.last + 1
    begin = begin or survey.first
    turns = turns_of(settings) if wish.as_recorded or wish.model == "recorded" else []
    if wish.as_recorded and not turns:
        raise ValueError("--as-recorded: no turns are recorded here; it needs the store of the engine that was live")
    was_live = Models(turns) if turns and wish.model == "recorded" else None
    kept, model = _models(settings, wish.model, was_live)
    if begin >= end:
        raise ValueError(f"--from {wish.begin}: nothing is recorded since then")
    plan = Plan(settings, encode(playbook), begin, end, wish.cold, wish.as_recorded, survey.kin.parents, was_live, kept,
                model, 1)
    return rules, plan, survey


def _survey(settings: Settings, begin: int, end: int, progress: Progress, names: Sequence[str]) -> Survey:
    """Look through the log once: who belongs together, from when until when there is something, how much."""
    kin, first, last, n, size = Kin(), FOREVER, -1, 0, 0
    known: set[str] = set()
    for record in recorded(settings, PUBLIC, end):
        if record.log_time < begin:
            continue
        key = kin.learn(record)
        if key in names:
            known.add(key)
        n += 1
        size += len(record.value)
        if not answers(record.value):
            first, last = min(first, record.log_time), max(last, record.log_time)
        if not n % 5_000:
            progress("reading", n, 0)
    for name in names:
        if not kin.alone(name):
            known.add(name)
    progress("reading", n, n)
    if last < 0:
        raise ValueError("the log holds nothing of this time: there is nothing to rehearse with")
    return Survey(kin, first, last, n, size, frozenset(known))


def turns_of(settings: Settings) -> list[Turn]:
    """The turns of the live shards; none where no engine has run."""
    path = store_path(settings)
    if not path.exists():
        return []
    store = SqliteStore(path, settings.partitions, read_only=True)
    try:
        return store.every_turn()
    finally:
        store.close()


def _models(settings: Settings, wanted: str, was_live: Models | None) -> tuple[dict[str, bytes], str]:
    """The models by hash, and which are used where nothing is recorded. ValueError when one is not there."""
    if wanted == "none":
        return {}, ""
    if was_live is not None:
        names = {name for pair in was_live.hashes for name in models.each_hash(pair) if name}
        return {name: _kept(settings, name) for name in sorted(names)}, ""
    newest: dict[str, bytes] = {}
    for record in recorded(settings, (MODELS,), FOREVER):
        with suppress(*UNREADABLE):  # the worker passed it by, too
            newest[models.decode(record.value).kind] = record.value
    if wanted not in ("recorded", "latest"):
        if not Path(wanted).is_file():
            raise ValueError(f"--model {wanted}: there is no such file; or write recorded, latest or none")
        newest[VISITS] = Path(wanted).read_bytes()
    try:
        found = {kind: models.decode(newest[kind]) if kind in newest else None for kind in (VISITS, rfm.KIND)}
    except msgspec.DecodeError as wrong:
        raise ValueError(f"--model {wanted}: this is no model: {wrong}") from wrong
    kept = {one.hash: newest[kind] for kind, one in found.items() if one is not None}
    return kept, models.hashes(found[VISITS], found[rfm.KIND])


def _kept(settings: Settings, name: str) -> bytes:
    """A model that was live, by its hash."""
    store = SqliteStore(store_path(settings), settings.partitions, read_only=True)
    try:
        found = store.kept("model", name)
    finally:
        store.close()
    if found is None and settings.pinned_model:
        pinned = Path(settings.pinned_model)
        found = pinned.read_bytes() if pinned.is_file() else None
        if found is not None and models.decode(found).hash != name:
            found = None
    if found is None:
        raise ValueError(f"the model {name[:12]} was live then and is not kept: choose one with --model FILE, "
                         "--model latest or --model none")
    return found



_ANSWERS = tuple(f'"{name}"'.encode() for name in sorted(REACTIONS))


def answers(value: bytes) -> bool:
    """Whether a record answers something that was said (quick to see: it may also only look like it)."""
    return (b'"Offer ' in value or b'"Message ' in value) and any(name in value for name in _ANSWERS)
