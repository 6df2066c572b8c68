"""Retention: what is old and read leaves the log; what somebody still has to read, or is young, never does."""

import threading
from pathlib import Path

import pytest

from connectors import log_sqlite_file
from connectors.log_sqlite import SqliteLog
from domain.record import Outgoing
from domain.settings import Settings
from domain.streams import PARTITIONS, SHARD_INPUT
from flows.retention import UNREAD, Retention, positions, trim
from flows.worker import DAY, store_path
from state import outreach_store
from state.learner_store import LearnerStore
from state.outreach_store import OutreachStore
from state.store import Batch, Head, Turn
from state.store_sqlite import SqliteStore

NEVER = threading.Event()


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends are written down whenever they are asked for."""
    monkeypatch.setattr(log_sqlite_file, "ENDS_EVERY", 0)


def written(folder: Path, stream: str, days: int) -> list[int]:
    """One record a day, the first one on day 1; the offsets."""
    with SqliteLog(folder) as log:
        log.append([Outgoing(stream, b"ann", str(day).encode(), None, day * DAY) for day in range(1, days + 1)])
    return offsets(folder, stream)


def offsets(folder: Path, stream: str) -> list[int]:
    with SqliteLog(folder) as log:
        reader = log.reader([(stream, p) for p in range(PARTITIONS)], {})
        found = []
        while batch := reader.poll(1_000, 0.0):
            found += [record.offset for record in batch]
        reader.close()
    return found


def head(settings: Settings, **read: int) -> None:
    store = SqliteStore(store_path(settings), PARTITIONS)
    store.claim(range(PARTITIONS), "test")
    batch = Batch()
    batch.heads = {p: Head(0, dict(read)) for p in range(PARTITIONS)}
    store.commit(batch, [])
    store.close()


def test_what_is_older_goes_in_slices_and_its_place_keeps_its_end(tmp_path: Path) -> None:
    had = written(tmp_path, "clicks", 500)
    path = tmp_path / "log" / "public.db"
    assert trim(path, 100 * DAY, {}, NEVER) == 399
    assert offsets(tmp_path, "clicks") == had[399:]
    assert trim(path, 100 * DAY, {}, NEVER) == 0
    with SqliteLog(tmp_path) as log:
        log.append([Outgoing("carts", b"ann", b"x", None, 9_000 * DAY)])
    trim(path, DAY, {}, NEVER)
    assert offsets(tmp_path, "clicks") == []
    with SqliteLog(tmp_path) as log:
        assert max(log.ends([("clicks", p) for p in range(PARTITIONS)]).values()) == had[-1]


def test_what_a_shard_has_not_read_stays_whatever_its_age(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), retention_days=10)
    had = written(tmp_path, "clicks", 100)
    assert Retention(settings).look() == 0, "no shard has read anything"
    head(settings, clicks=had[49])
    assert Retention(settings).look() == 50
    head(settings, clicks=had[99])
    assert Retention(settings).look() == 39
    assert offsets(tmp_path, "clicks") == had[89:]


@pytest.mark.parametrize("settings", [Settings(retention_days=0, retention_internal_days=0),
                                      Settings(retention_days=100, retention_internal_days=100)])
def test_nothing_goes_that_is_young_or_kept_for_ever(tmp_path: Path, settings: Settings) -> None:
    written(tmp_path, "actions", 100)
    placed = Settings(data=str(tmp_path), retention_days=settings.retention_days,
                      retention_internal_days=settings.retention_internal_days)
    assert Retention(placed).look() == 0
    assert Retention(Settings(data=str(tmp_path))).look() == 69, "nobody has to read decisions"


def test_the_learner_and_outreach_are_waited_for(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    assert positions(settings) == {(stream, p): UNREAD for stream in SHARD_INPUT for p in range(PARTITIONS)}
    outcomes, messages = written(tmp_path, "outcomes", 100), written(tmp_path / "m", "messages", 100)
    learner = LearnerStore(tmp_path / "store" / "learner.db")
    outreach = OutreachStore(tmp_path / "store" / "outreach.db")  # stays open, and locked
    (tmp_path / "m" / "store").symlink_to(tmp_path / "store")
    other = Settings(data=str(tmp_path / "m"))
    assert (Retention(settings).look(), Retention(other).look()) == (0, 0)
    learner.commit({}, dict.fromkeys(range(PARTITIONS), outcomes[9]), {})
    outreach.commit(dict.fromkeys(range(PARTITIONS), messages[19]), {})
    outreach.show()
    assert outreach_store.shown(tmp_path / "store" / "outreach.db")[0] == messages[19]
    assert (Retention(settings).look(), Retention(other).look()) == (10, 20)
    learner.close()
    outreach.close()


def test_turns_go_with_their_records(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", PARTITIONS)
    store.claim([0], "test")
    for day in range(1, 301):
        batch = Batch()
        batch.turns = [Turn(0, 0, day * DAY, (), 0, "", "")]
        store.commit(batch, [])
    assert [store.forget_turns(251 * DAY) for _ in range(4)] == [True, True, False, False]
    assert [turn.clock_after // DAY for turn in store.turns(0)] == list(range(251, 301))
    store.close()
