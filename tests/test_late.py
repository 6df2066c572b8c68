"""What comes late counts, and begins nothing: receipts of a till, a browser's queue, tags, ways through workflows."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors import wire
from connectors.ingest import ingest
from connectors.log_sqlite import SqliteLog
from connectors.playbook_folder import parse, read
from connectors.receipts import read_receipts
from domain.effect import Row
from domain.partition import partition_of
from domain.problem import PlaybookError
from domain.record import Record
from domain.streams import ACTIONS, MESSAGES, PARTITIONS, PUBLIC
from flows.onsite import STEPS
from state.rules import compile_rules
from tests.shards import offsets, record
from tests.town import Town
from tests.visitor import T0, Visitor, playbook, short

SHOP = Path(__file__).parent.parent / "shop"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat()


@pytest.fixture
def town(tmp_path: Path) -> Town:
    """The shipped shop, with Ann: a customer with an address, who agreed to letters, and has a page open."""
    found = Town(tmp_path, STEPS, compile_rules(read(SHOP)))
    found.feed(
        record("phone", "Page Viewed", T0 - 5_000, userId="ann"),
        record("phone", at=T0 - 4_000, type="identify", userId="ann", traits={"email": "ann@example.org"}),
        record("phone", "Consent Updated", T0 - 3_000, userId="ann", properties={"email:marketing": True}),
        record("phone", "Page Viewed", T0 - 2_000, userId="ann"),
    )
    return found


def receipt(folder: Path, at: int, history: bool = False) -> list[Record]:
    """One receipt, as `attimo ingest --receipts` appends it at T0."""
    rows = [b"order_id,at,user_id,total", f"r{at},{iso(at)},ann,20".encode()]
    with SqliteLog(folder, now=lambda: T0) as log:
        ingest(log, read_receipts(rows), history, lambda: T0)
        reader = log.reader([(stream, p) for stream in PUBLIC for p in range(PARTITIONS)], {})
        found = reader.poll(1_000, 0)
        reader.close()
    return [one._replace(offset=next(offsets)) for one in found if history or one.key]


def begun(rows: Iterable[Row]) -> list[str]:
    """What was said, and which workflows began."""
    found = [orjson.loads(row.body) for row in rows if row.stream in (ACTIONS, MESSAGES)]
    return [one.get("campaign") or one["workflow"] for one in found
            if one["type"] in ("send", "message") or (one["type"] == "progress" and one["what"] == "entered")]


def test_an_old_receipt_counts_and_says_nothing(tmp_path: Path, town: Town) -> None:
    rows = town.feed(*receipt(tmp_path, T0 - 270 * DAY)) + town.tick(T0 + 1_000)
    ann = town.person("u:ann")
    assert ann is not None
    assert {"customers", "gone_quiet"} <= {*ann.segments}  # where they belong is true now
    assert any(orjson.loads(row.body).get("segment") == "gone_quiet" for row in rows)
    assert begun(rows) == []


def test_a_receipt_of_just_now_is_an_occasion_but_not_on_the_site(tmp_path: Path, town: Town) -> None:
    assert begun(town.feed(*receipt(tmp_path, T0 - 10 * MINUTE))) == ["after_order"]


def test_recorded_days_have_their_own_clock(tmp_path: Path) -> None:
    town = Town(tmp_path, STEPS, compile_rules(read(SHOP)))
    town.feed(record("phone", at=T0 - 300 * DAY, type="identify", userId="ann", traits={"email": "ann@example.org"}))
    assert begun(town.feed(*receipt(tmp_path, T0 - 270 * DAY, history=True)))[:1] == ["after_order"]


@pytest.mark.parametrize("till", [True, False])
def test_the_shop_says_what_is_late_and_the_site_has_its_own_mind(tmp_path: Path, town: Town, till: bool) -> None:
    files = {str(path.relative_to(SHOP)): path.read_bytes() for path in SHOP.rglob("*.*") if path.suffix != ".md"}
    town.rules = compile_rules(parse({**files, "shop.toml": b'late_after = "2d"\n' + files["shop.toml"]}))
    some = receipt(tmp_path, T0 - 30 * HOUR) if till else [order(T0 - 30 * HOUR)]
    assert begun(town.feed(*some)) == ["after_order"]  # and no bar with thanks


def order(at: int) -> Record:
    """An order as the collector takes it at T0 from a browser that could not send it before."""
    call = {"event": "Order Completed", "messageId": f"o{at}", "anonymousId": "phone", "userId": "ann",
            "timestamp": iso(at), "properties": {"order_id": f"o{at}", "total": 20}}
    one = wire.canonical(call, "track", wire.Caller(T0, trusted=True), iso(T0))
    return Record(one.stream, partition_of(one.key, PARTITIONS), next(offsets), T0, one.key, one.value)


@pytest.mark.parametrize(("late", "said"), [(29 * MINUTE, ["thank_you", "after_order"]), (30 * MINUTE, []),
                                            (47 * HOUR, [])])
def test_what_a_browser_sends_when_it_is_back_is_no_occasion_after_half_an_hour(
    town: Town, late: int, said: list[str]
) -> None:
    assert sorted(begun(town.feed(order(T0 - late)))) == sorted(said)


@pytest.mark.parametrize(("bound", "wrong"), [("59s", "a minute or more"), ("60s", ""), ("9000w", "ten years")])
def test_no_shop_calls_everything_late(bound: str, wrong: str) -> None:
    files = {"shop.toml": f'late_after = "{bound}"\n'.encode()}
    if not wrong:
        assert parse(files).shop.late_after == bound
        return
    with pytest.raises(PlaybookError, match=rf"shop.toml, line 1, late_after: .*{wrong}"):
        parse(files)


# -- each kind of occasion ------------------------------------------------------------------------------------------


def late(visitor: Visitor, at: int, by: int, name: str, **properties: Any) -> list[tuple[int, str, str]]:
    """Something that happened `by` ms before we hear of it."""
    visitor.late = by
    try:
        return short(visitor.does(at, name, **properties))
    finally:
        visitor.late = 0


def test_a_late_event_fires_no_campaign_and_neither_do_the_moves_it_makes() -> None:
    visitor = Visitor(playbook(
        segments={"asked": {"when": {"did": {"event": "Quote Asked"}}}},
        campaigns={"event": {"trigger": {"event": "Quote Asked"}},
                   "move": {"format": "bar", "trigger": {"segment": "asked"}},
                   "soon": {"format": "banner", "trigger": {"event": "Quote Asked", "delay": "1m"}}}))
    visitor.does(0, "Page Viewed")
    assert late(visitor, HOUR, 30 * MINUTE, "Quote Asked") == [(HOUR, "entered", "asked")]
    assert not visitor.person.later
    visitor = Visitor(visitor.context.rules.playbook)
    visitor.does(HOUR - 1, "Page Viewed")
    assert [what for _, what, _ in late(visitor, HOUR, 30 * MINUTE - 1, "Quote Asked")] == ["entered", "send", "send"]


def test_a_late_event_puts_nobody_into_a_static_segment_and_takes_out_who_was_in_by_then() -> None:
    visitor = Visitor(playbook(segments={
        "vip": {"static": True, "enter_on": [{"event": "Praised"}], "leave_on": [{"event": "Blamed"}]},
        "after": {"static": True, "enter_on": [{"left_segment": "vip"}]}}))
    assert late(visitor, 0, HOUR, "Praised") == []
    assert short(visitor.does(HOUR, "Praised")) == [(HOUR, "entered", "vip")]
    assert late(visitor, 3 * HOUR, 2 * HOUR + 1, "Blamed") == []
    assert late(visitor, 3 * HOUR, 2 * HOUR, "Blamed") == [(3 * HOUR, "left", "vip")]


def test_a_late_event_begins_no_workflow_and_ends_no_wait_that_began_after_it() -> None:
    visitor = Visitor(playbook(
        segments={"asked": {"when": {"did": {"event": "Asked"}}}},
        workflows={
            "by_event": {"enters": {"event": "Asked"}, "steps": [{"wait": "1d"}]},
            "by_move": {"enters": {"segment": "asked"}, "steps": [{"wait": "1d"}]},
            "waits": {"enters": {"event": "Began"}, "steps": [
                {"wait_for": {"event": "Came", "within": "1d", "then": "yes"}}, {"exit": True},
                {"id": "yes", "goal": "came"}]}}))
    assert late(visitor, 0, HOUR, "Asked") == [(0, "entered", "asked")]
    visitor.does(HOUR, "Began")
    assert late(visitor, 2 * HOUR, HOUR + 1, "Came") == []
    assert [what for _, what, _ in late(visitor, 2 * HOUR, HOUR, "Came")] == ["goal came", "finished yes"]


def test_what_ends_a_way_ends_it_however_late_it_comes() -> None:
    """To be silent is the safe side."""
    visitor = Visitor(playbook(workflows={
        "cart": {"enters": {"event": "Began"}, "leaves_on": ["Ended"], "steps": [{"wait": "1d"}]}}))
    visitor.does(0, "Began")
    assert [what for _, what, _ in late(visitor, HOUR, DAY, "Ended")] == ['left step_1 event "Ended"']


def test_a_late_exit_is_no_exit() -> None:
    visitor = Visitor(playbook(campaigns={"stay": {
        "trigger": {"exit_intent": True}, "holdout": 1.0, "when": {"session": {"pages_at_least": 1}}}}))
    visitor.does(0, "Page Viewed")
    assert late(visitor, 20 * MINUTE, 40 * MINUTE, "Exit Intent") == []
    assert [what for _, what, _ in short(visitor.does(21 * MINUTE, "Exit Intent"))] == ["hold holdout"]
