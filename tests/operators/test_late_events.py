"""What comes late counts, and begins nothing: receipts of a till, a browser's queue, tags, ways through workflows."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.http import segment_protocol
from connectors.ingest.jsonl import ingest
from connectors.ingest.pos_receipts import read_receipts
from connectors.log.sqlite import SqliteLog
from connectors.playbook.folder import parse_playbook, read_playbook
from domain.action import OutboxRow
from domain.diagnostics import PlaybookError
from domain.record import ACTIONS, DEFAULT_PARTITIONS, MESSAGES, PUBLIC_STREAMS, Record, partition_of
from operators.steps import STEPS
from state.playbook.compiled import compile_rules
from tests.harness.cluster import ShardCluster
from tests.harness.person import T0, PersonHarness, make_playbook, summarize
from tests.harness.shard import offsets, record
from tests.harness.support import ROOT

SHOP = ROOT / "shop"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def to_iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat()


@pytest.fixture
def cluster(tmp_path: Path) -> ShardCluster:
    """The shipped shop, with Ann: a customer with an address, who agreed to letters, and has a page open."""
    found = ShardCluster(tmp_path, STEPS, compile_rules(read_playbook(SHOP)))
    found.feed(
        record("phone", "Page Viewed", T0 - 5_000, userId="ann"),
        record("phone", at=T0 - 4_000, type="identify", userId="ann", traits={"email": "ann@example.org"}),
        record("phone", "Consent Updated", T0 - 3_000, userId="ann", properties={"email:marketing": True}),
        record("phone", "Page Viewed", T0 - 2_000, userId="ann"),
    )
    return found


def receipt_records(folder: Path, at: int, history: bool = False) -> list[Record]:
    """One receipt, as `attimo ingest --receipts` appends it at T0."""
    rows = [b"order_id,at,user_id,total", f"r{at},{to_iso(at)},ann,20".encode()]
    with SqliteLog(folder, clock=lambda: T0) as log:
        ingest(log, read_receipts(rows), history, lambda: T0)
        reader = log.reader([(stream, p) for stream in PUBLIC_STREAMS for p in range(DEFAULT_PARTITIONS)], {})
        found = reader.poll(1_000, 0)
        reader.close()
    return [one._replace(offset=next(offsets)) for one in found if history or one.key]


def started(rows: Iterable[OutboxRow]) -> list[str]:
    """What was said, and which workflows began."""
    found = [orjson.loads(row.body) for row in rows if row.stream in (ACTIONS, MESSAGES)]
    return [
        one.get("campaign") or one["workflow"]
        for one in found
        if one["type"] in ("send", "message") or (one["type"] == "workflow_progress" and one["transition"] == "entered")
    ]


def test_old_receipt_updates_profile_without_triggering(tmp_path: Path, cluster: ShardCluster) -> None:
    rows = cluster.feed(*receipt_records(tmp_path, T0 - 270 * DAY)) + cluster.tick(T0 + 1_000)
    ann = cluster.person("u:ann")
    assert ann is not None
    assert {"customers", "gone_quiet"} <= {*ann.segments}  # where they belong is true now
    assert any(orjson.loads(row.body).get("segment") == "gone_quiet" for row in rows)
    assert started(rows) == []


def test_recent_receipt_triggers_off_site_only(tmp_path: Path, cluster: ShardCluster) -> None:
    assert started(cluster.feed(*receipt_records(tmp_path, T0 - 10 * MINUTE))) == ["after_order"]


def test_history_is_not_late(tmp_path: Path) -> None:
    town = ShardCluster(tmp_path, STEPS, compile_rules(read_playbook(SHOP)))
    town.feed(record("phone", at=T0 - 300 * DAY, type="identify", userId="ann", traits={"email": "ann@example.org"}))
    assert started(town.feed(*receipt_records(tmp_path, T0 - 270 * DAY, history=True)))[:1] == ["after_order"]


@pytest.mark.parametrize("till", [True, False])
def test_late_after_setting_does_not_apply_on_site(tmp_path: Path, cluster: ShardCluster, till: bool) -> None:
    files = {str(path.relative_to(SHOP)): path.read_bytes() for path in SHOP.rglob("*.*") if path.suffix != ".md"}
    cluster.rules = compile_rules(parse_playbook({**files, "shop.toml": b'late_after = "2d"\n' + files["shop.toml"]}))
    some = receipt_records(tmp_path, T0 - 30 * HOUR) if till else [order_record(T0 - 30 * HOUR)]
    assert started(cluster.feed(*some)) == ["after_order"]  # and no bar with thanks


def order_record(at: int) -> Record:
    """An order as the collector takes it at T0 from a browser that could not send it before."""
    call = {
        "event": "Order Completed",
        "messageId": f"o{at}",
        "anonymousId": "phone",
        "userId": "ann",
        "timestamp": to_iso(at),
        "properties": {"order_id": f"o{at}", "total": 20},
    }
    one = segment_protocol.normalize(call, "track", segment_protocol.RequestContext(T0, trusted=True), to_iso(T0))
    return Record(one.stream, partition_of(one.key, DEFAULT_PARTITIONS), next(offsets), T0, one.key, one.value)


@pytest.mark.parametrize(
    ("late", "said"), [(29 * MINUTE, ["thank_you", "after_order"]), (30 * MINUTE, []), (47 * HOUR, [])]
)
def test_late_browser_event_does_not_trigger(cluster: ShardCluster, late: int, said: list[str]) -> None:
    assert sorted(started(cluster.feed(order_record(T0 - late)))) == sorted(said)


@pytest.mark.parametrize(("bound", "wrong"), [("59s", "should be at least 1m"), ("60s", ""), ("9000w", "ten years")])
def test_late_after_has_a_minimum(bound: str, wrong: str) -> None:
    files = {"shop.toml": f'late_after = "{bound}"\n'.encode()}
    if not wrong:
        assert parse_playbook(files).shop.late_after == bound
        return
    with pytest.raises(PlaybookError, match=rf"shop.toml, line 1, late_after: .*{wrong}"):
        parse_playbook(files)


# -- each kind of occasion ------------------------------------------------------------------------------------------


def emit_late(harness: PersonHarness, at: int, by: int, name: str, **properties: Any) -> list[tuple[int, str, str]]:
    """Something that happened `by` ms before we hear of it."""
    harness.delay = by
    try:
        return summarize(harness.emit(at, name, **properties))
    finally:
        harness.delay = 0


def test_late_event_and_its_segment_changes_do_not_trigger() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={"asked": {"when": {"did": {"event": "Quote Asked"}}}},
            campaigns={
                "event": {"trigger": {"event": "Quote Asked"}},
                "move": {"format": "bar", "trigger": {"segment": "asked"}},
                "soon": {"format": "banner", "trigger": {"event": "Quote Asked", "delay": "1m"}},
            },
        )
    )
    visitor.emit(0, "Page Viewed")
    assert emit_late(visitor, HOUR, 30 * MINUTE, "Quote Asked") == [(HOUR, "entered", "asked")]
    assert not visitor.person.deferred
    visitor = PersonHarness(visitor.context.rules.playbook)
    visitor.emit(HOUR - 1, "Page Viewed")
    assert [what for _, what, _ in emit_late(visitor, HOUR, 30 * MINUTE - 1, "Quote Asked")] == [
        "entered",
        "send",
        "send",
    ]


def test_late_event_only_removes_from_static_segments() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={
                "vip": {"static": True, "enter_on": [{"event": "Praised"}], "exit_on": [{"event": "Blamed"}]},
                "after": {"static": True, "enter_on": [{"exited_segment": "vip"}]},
            }
        )
    )
    assert emit_late(visitor, 0, HOUR, "Praised") == []
    assert summarize(visitor.emit(HOUR, "Praised")) == [(HOUR, "entered", "vip")]
    assert emit_late(visitor, 3 * HOUR, 2 * HOUR + 1, "Blamed") == []
    assert emit_late(visitor, 3 * HOUR, 2 * HOUR, "Blamed") == [(3 * HOUR, "exited", "vip")]


def test_late_event_starts_no_workflow() -> None:
    visitor = PersonHarness(
        make_playbook(
            segments={"asked": {"when": {"did": {"event": "Asked"}}}},
            workflows={
                "by_event": {"enter_on": {"event": "Asked"}, "steps": [{"wait": "1d"}]},
                "by_move": {"enter_on": {"segment": "asked"}, "steps": [{"wait": "1d"}]},
                "waits": {
                    "enter_on": {"event": "Began"},
                    "steps": [
                        {"wait_for": {"event": "Came", "timeout": "1d", "then": "yes"}},
                        {"exit": True},
                        {"id": "yes", "goal": "came"},
                    ],
                },
            },
        )
    )
    assert emit_late(visitor, 0, HOUR, "Asked") == [(0, "entered", "asked")]
    visitor.emit(HOUR, "Began")
    assert emit_late(visitor, 2 * HOUR, HOUR + 1, "Came") == []
    assert [what for _, what, _ in emit_late(visitor, 2 * HOUR, HOUR, "Came")] == ["goal came", "finished yes"]


def test_late_event_still_exits_a_workflow() -> None:
    """To be silent is the safe side."""
    visitor = PersonHarness(
        make_playbook(
            workflows={"cart": {"enter_on": {"event": "Began"}, "exit_on": ["Ended"], "steps": [{"wait": "1d"}]}}
        )
    )
    visitor.emit(0, "Began")
    assert [what for _, what, _ in emit_late(visitor, HOUR, DAY, "Ended")] == ['exited step_1 event "Ended"']


def test_late_exit_intent_is_ignored() -> None:
    visitor = PersonHarness(
        make_playbook(
            campaigns={
                "stay": {"trigger": {"exit_intent": True}, "holdout": 1.0, "when": {"session": {"pages_at_least": 1}}}
            }
        )
    )
    visitor.emit(0, "Page Viewed")
    assert emit_late(visitor, 20 * MINUTE, 40 * MINUTE, "Exit Intent") == []
    assert [what for _, what, _ in summarize(visitor.emit(21 * MINUTE, "Exit Intent"))] == ["suppress holdout"]
