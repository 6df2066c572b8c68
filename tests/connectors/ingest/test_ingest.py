"""Files into the log: every line is accounted for, nothing stops the rest."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from connectors.ingest import jsonl as module
from connectors.ingest.jsonl import IngestResult, InputLine, LineError, ingest
from connectors.ingest.pos_receipts import COLUMNS, read_receipts
from connectors.log.log import Log, LogError
from connectors.log.sqlite import SqliteLog
from domain import event
from domain import record as domain_record
from domain.record import ALL_STREAMS, PUBLIC_STREAMS, NewRecord, Record, partition_count
from tests.harness.support import ROOT, data_path

NOW = 1_750_000_000_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path, 4, clock=lambda: NOW) as found:
        yield found


def make_line(**fields: Any) -> bytes:
    return json.dumps({"type": "track", "event": "Product Viewed", "anonymousId": "a", **fields}).encode()


def records(log: Log) -> list[Record]:
    reader = log.reader(
        [(stream, p) for stream in ALL_STREAMS for p in range(partition_count(stream, log.partitions))], {}
    )
    found: list[Record] = []
    while batch := reader.poll(1000, 0):
        found += batch
    reader.close()
    return found


def events(log: Log) -> list[dict[str, Any]]:
    return [
        json.loads(record.value)
        for record in records(log)
        if record.stream in PUBLIC_STREAMS and record.key is not None
    ]


def markers(log: Log) -> list[Record]:
    return [record for record in records(log) if record.stream in PUBLIC_STREAMS and record.key is None]


def run_ingest(log: Log, lines: Iterable[bytes | InputLine], history: bool = False) -> IngestResult:
    return ingest(log, lines, history, lambda: NOW)


def test_lines_become_normalized_events_in_their_streams(log: SqliteLog) -> None:
    done = run_ingest(
        log,
        [
            make_line(
                timestamp="2024-05-01T10:00:00Z", properties={"price": 9.5, "unknown": {"kept": [1]}}, extra=True
            ),
            make_line(event="Product Added", userId=42),
            make_line(type="identify", traits={"plan": "gold"}, originalTimestamp="2024-05-01T10:00:00+02:00"),
            b"  \n",
            make_line(event="Order Completed", sentAt="2024-05-01T09:00:00Z", timestamp="2024-05-01T08:00:00Z"),
        ],
    )
    assert (done.accepted, done.rejected) == (4, 0)
    assert done.streams == {"clicks": 1, "carts": 1, "people": 1, "purchases": 1}
    clicked, added, ordered, known = events(log)
    assert clicked["properties"] == {"price": 9.5, "unknown": {"kept": [1]}}
    assert clicked["extra"] is True
    assert clicked["receivedAt"] == "2025-06-15T15:06:40.000Z"
    assert added["timestamp"] == added["receivedAt"]
    assert known["timestamp"] == "2024-05-01T10:00:00+02:00"
    found = {record.stream: record for record in records(log)}
    assert found["carts"].key == b"42"
    assert found["clicks"].key == b"a"
    assert {record.log_time for record in found.values()} == {NOW}
    # A file was not sent: when it was written is no sign of a wrong clock.
    assert event.event_time(event.decode(found["purchases"].value), NOW) == 1714550400000
    assert ordered["receivedAt"]


INVALID_LINES = [
    (b"{", "invalid", "truncated"),
    (b"[]", "invalid", "object"),
    (make_line(type="shout"), "invalid", "$.type"),
    (b'{"type":"track","event":7,"anonymousId":"a"}', "invalid", "$.event"),
    (b'{"type":"track","event":"x"}', "missing_id", "userId or anonymousId"),
    (b'{"type":"track","event":"x","anonymousId":"","userId":null}', "missing_id", "userId or anonymousId"),
    (make_line(anonymousId="x" * 257), "too_long", "257 characters"),
    (make_line(properties={"x": "y" * 300_000}), "too_long", "bytes"),
    (
        b'{"type":"track","event":"x","anonymousId":"a","properties":{"deep":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        "invalid",
        "deep",
    ),
    (b'{"type":"track","event":"\xff","anonymousId":"a"}', "invalid", "utf"),
    (make_line(timestamp="yesterday"), "invalid", "$.timestamp"),
    (b'{"type":"track","event":"x","anonymousId":"\\ud800"}', "invalid", ""),
]


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize(("raw", "kind", "because"), INVALID_LINES)
def test_invalid_line_becomes_a_dead_letter(log: SqliteLog, raw: bytes, kind: str, because: str, history: bool) -> None:
    good = make_line(timestamp="2024-05-01T10:00:00Z")
    done = run_ingest(log, [good, raw, good], history)
    assert (done.accepted, done.rejected) == (2, 1)
    (problem,) = done.errors
    assert problem.line == 2
    assert because.lower() in problem.message.lower()
    (kept,) = [
        domain_record.decode_dead_letter(record.value) for record in records(log) if record.stream == "dead-letters"
    ]
    assert (kept.kind, kept.offset, kept.stream) == (kind, 2, "ingest")
    assert kept.reason.startswith("line 2: ")
    assert kept.raw == raw[:512].decode("utf-8", "replace")


@pytest.mark.parametrize("stamp", ["1969-12-31T23:59:59Z", "2025-06-15T15:06:41Z", "0001-01-01T00:00:00Z"])
def test_history_timestamps_must_be_plausible(log: SqliteLog, stamp: str) -> None:
    done = run_ingest(log, [make_line(timestamp=stamp)], history=True)
    assert (done.accepted, done.rejected) == (0, 1)
    assert "timestamp" in done.errors[0].message
    assert markers(log) == []


def test_history_requires_a_timestamp(log: SqliteLog) -> None:
    assert run_ingest(log, [make_line()], history=True).errors == [
        LineError(1, "timestamp is required: it is the log time of recorded history")
    ]


def test_history_is_sorted_by_time_and_stream(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SORT_WINDOW", 3)
    names = ["Order Completed", "Product Viewed", "Product Added", "Product Viewed", "Consent Updated"]
    lines = [make_line(event=name, timestamp="2024-05-01T10:00:05Z", messageId=str(n)) for n, name in enumerate(names)]
    lines.insert(2, make_line(timestamp="2024-05-01T10:00:04Z", messageId="s4"))
    lines += [make_line(timestamp=f"2024-05-01T10:00:0{second}Z", messageId=f"s{second}") for second in (7, 6)]
    lines += [make_line(timestamp="2024-05-01T10:00:09Z", messageId=f"t{n}") for n in range(5)]
    lines += [make_line(timestamp="2024-05-01T10:00:01Z", messageId="late")]
    done = run_ingest(log, lines, history=True)
    assert [found["messageId"] for found in events(log)] == [
        "s4",
        "1",
        "3",
        "2",
        "0",
        "4",
        "s6",
        "s7",
        "t0",
        "t1",
        "t2",
        "t3",
        "t4",
    ]
    (problem,) = done.errors
    assert (problem.line, done.accepted) == (14, 13)
    assert "sort the file" in problem.message
    times = [record.log_time for record in records(log) if record.stream in PUBLIC_STREAMS]
    assert times == sorted(times)


def test_history_markers_report_progress(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MARKER_INTERVAL", 4)
    lines = [make_line(timestamp=f"2024-05-01T10:00:{n // 3:02}Z") for n in range(12)]
    run_ingest(log, lines, history=True)
    first = 1714557600000
    per_place: dict[tuple[str, int], list[Any]] = {}
    for record in markers(log):
        value = json.loads(record.value)
        assert record.log_time == value.get("reached", first + 3000)
        per_place.setdefault((record.stream, record.partition), []).append(value.get("reached", "ended"))
    assert per_place == {
        (stream, partition): [first - 1, first + 1999, "ended"] for stream in PUBLIC_STREAMS for partition in range(4)
    }


def test_interrupted_history_is_marked_as_ended(log: SqliteLog) -> None:
    def lines() -> Iterator[bytes]:
        yield from [make_line(timestamp="2024-05-01T10:00:00Z"), make_line(timestamp="2024-05-01T10:00:01Z")]
        yield from [make_line(timestamp="2024-05-01T10:00:02Z")] * 2000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ingest(log, lines(), history=True)
    assert json.loads(markers(log)[-1].value) == {"type": "history", "ended": True}
    assert len(events(log)) == 2


def test_history_must_be_later_than_earlier_history(log: SqliteLog) -> None:
    run_ingest(log, [make_line(timestamp="2024-05-01T10:00:00Z")], history=True)
    run_ingest(log, [make_line(timestamp="2024-05-01T10:00:01Z")], history=True)
    with pytest.raises(LogError, match="2024-05-01T10:00:01"):
        run_ingest(log, [make_line(timestamp="2024-05-01T10:00:01Z")], history=True)
    assert len(events(log)) == 2


def test_live_event_during_history_is_an_error(log: SqliteLog) -> None:
    def lines() -> Iterator[bytes]:
        yield from [make_line(timestamp="2024-05-01T10:00:00Z")] * 3000
        log.append([NewRecord("clicks", b"live", b"{}")])
        yield from [make_line(timestamp="2024-05-01T10:00:01Z")] * 3000

    with pytest.raises(LogError, match="already holds later records"):
        run_ingest(log, lines(), history=True)
    assert json.loads(markers(log)[-1].value) == {"type": "history", "ended": True}


def test_progress_counts_lines(log: SqliteLog) -> None:
    heard: list[int] = []
    ingest(log, [make_line()] * 2500, False, lambda: NOW, heard.append)
    assert heard == [1000, 2000, 2500]


def test_only_the_first_errors_are_listed(log: SqliteLog) -> None:
    done = run_ingest(log, [b"{"] * 2500)
    assert (done.rejected, len(done.errors)) == (2500, module.MAX_REPORTED_ERRORS)
    assert len(records(log)) == 2500


# -- receipts ----------------------------------------------------------------------------------------------------------

HEADER = b"order_id,at,user_id,email,total,currency,sku,quantity,price\n"


def test_the_rows_of_an_order_become_one_event(log: SqliteLog) -> None:
    done = run_ingest(
        log,
        read_receipts(
            [
                "\ufeff".encode() + HEADER,
                b"1,2024-05-02T10:15:00+02:00,ann,,38.50,eur,A-1,2,15.00\n",
                b"1,2024-05-02T10:15:00+02:00,ann,,38.50,eur,B-7,1,8.50\n",
                b"\n",
                b"2,2024-05-02,,Ann@Example.com,,,C-1,3,1.25\n",
            ],
            "secret",
        ),
    )
    assert (done.accepted, done.rejected, dict(done.streams)) == (2, 0, {"purchases": 2})
    first, second = events(log)
    assert first["event"] == "Order Completed"
    assert first["userId"] == "ann"
    assert first["context"] == {"attimo": {"offline": True}}
    assert first["properties"] == {
        "order_id": "1",
        "total": 38.5,
        "currency": "EUR",
        "products": [
            {"product_id": "A-1", "quantity": 2, "price": 15.0},
            {"product_id": "B-7", "quantity": 1, "price": 8.5},
        ],
    }
    assert second["properties"]["total"] == 3.75
    assert second["timestamp"] == "2024-05-02T00:00:00+00:00"
    assert second["anonymousId"].startswith("email-")
    assert b"xample" not in b"".join(record.value for record in records(log)), "an address is not written"
    assert first["messageId"] != second["messageId"]
    for record in records(log):
        event.decode(record.value)


@pytest.mark.parametrize(
    ("row", "because"),
    [
        (b"1,2024-05-02,ann,,12.5.0,EUR,A,1,1", "column total"),
        (b"1,2024-05-02,ann,,-3,EUR,A,1,1", "column total"),
        (b"1,2024-05-02,ann,,nan,EUR,A,1,1", "column total"),
        (b"1,2024-05-02,ann,,1,EURO,A,1,1", "column currency"),
        (b"1,2.5.2024,ann,,1,EUR,A,1,1", "column at"),
        (b"1,2024-05-02,,,1,EUR,A,1,1", "column user_id"),
        (b",2024-05-02,ann,,1,EUR,A,1,1", "column order_id"),
        (b"1,2024-05-02,ann,,1,EUR,A,many,1", "column quantity"),
        (b"1,2024-05-02,a\xffn,,1,EUR,A,1,1", "column user_id"),
        (b"1,2024-05-02," + b"x" * 300 + b",,1,EUR,A,1,1", "column user_id"),
        (b"1", "column user_id"),
        (b'1,2024-05-02,"' + b"x" * 200_000 + b'",,1,EUR,A,1,1', "field limit"),
        (b"9,2024-05-02,ann,,1,EUR,A,1,1", "was used before"),
    ],
)
def test_invalid_row_drops_its_order_and_is_located(log: SqliteLog, row: bytes, because: str) -> None:
    done = run_ingest(
        log,
        read_receipts(
            [
                HEADER,
                b"9,2024-05-02,ann,,1,EUR,A,1,1\n",
                b"8,2024-05-02,ann,,1,EUR,A,1,1\n",
                row + b"\n",
                b"7,2024-05-02,ann,,1,EUR,A,1,1\n",
            ],
            "secret",
        ),
    )
    assert [found["properties"]["order_id"] for found in events(log)] == ["9", "8", "7"]
    (problem,) = done.errors
    assert problem.line == 4
    assert because in problem.message


def test_dead_letters_contain_no_personal_data(log: SqliteLog) -> None:
    run_ingest(log, [make_line(type="identify", event=None, traits={"email": "ann@example.org"}, anonymousId=None)])
    run_ingest(log, read_receipts([HEADER, b"1,2024-05-02,,ann@example.org,x,EUR,A,1,1\n"], "secret"))
    kept = [
        domain_record.decode_dead_letter(record.value) for record in records(log) if record.stream == "dead-letters"
    ]
    assert [one.kind for one in kept] == ["missing_id", "invalid"]
    assert all(one.raw and "ann@" not in one.raw for one in kept)


def test_one_invalid_row_drops_the_whole_order(log: SqliteLog) -> None:
    done = run_ingest(
        log,
        read_receipts(
            [
                HEADER,
                b"1,2024-05-02,ann,,5,EUR,A,1,1\n",
                b"1,2024-05-02,ann,,5,EUR,B,1,x\n",
                b"2,2024-05-02,ann,,5,EUR,A,1,1\n",
            ],
            "secret",
        ),
    )
    assert done.errors == [LineError(3, "column price: expected a number such as 12.50, 0 or above, got 'x'")]
    assert [found["properties"]["order_id"] for found in events(log)] == ["2"]


def test_order_with_too_many_rows_is_rejected(log: SqliteLog) -> None:
    rows = [HEADER, *[b"1,2024-05-02,ann,,5,EUR,A,1,1\n"] * 1500, b"2,2024-05-02,ann,,5,EUR,A,1,1\n"]
    done = run_ingest(log, read_receipts(rows, "secret"))
    assert (done.accepted, done.rejected) == (1, 1)
    assert "more than 1000 rows" in done.errors[0].message


def test_semicolons_and_decimal_commas_are_accepted(log: SqliteLog) -> None:
    run_ingest(log, read_receipts([b"Order;Date;Card;Total\n", b"1;2024-05-02;4711;12,50\n"], "secret"))
    (found,) = events(log)
    assert found["properties"]["total"] == 12.5
    assert found["anonymousId"].startswith("card-")
    assert "4711" not in found["anonymousId"]


def test_email_and_card_are_hashed_with_the_shop_secret() -> None:
    def whose(column: str, value: str, secret: str) -> str:
        (found,) = read_receipts([f"order,date,total,{column}".encode(), f"1,2024-05-02,1,{value}".encode()], secret)
        return str(json.loads(found.raw)["anonymousId"])

    ann = whose("email", "Ann@example.org ", "a")
    assert ann == whose("e_mail", "ann@example.org", "a")
    others = [
        whose(*one)
        for one in (("email", "ann@example.org", "b"), ("card", "ann@example.org", "a"), ("email", "a@b.c", "a"))
    ]
    assert len({ann[-32:], sha256(b"ann@example.org").hexdigest()[:32], *(other[-32:] for other in others)}) == 5
    with pytest.raises(
        ValueError, match=r"line 1: column card and email: .*needs the shop's secret; set ATTIMO_SECRET"
    ):
        list(read_receipts([b"order,date,user_id,email,card"]))
    assert list(read_receipts([b"order,date,user_id"])) == []


def test_receipt_columns_are_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text().partition("## Import store receipts")[2]
    assert set(re.findall(r"`([a-z_]+)`", page)) >= {name for names in COLUMNS.values() for name in names}


@pytest.mark.parametrize("head", [b"", b"a,b,c", b"order_id,user_id", b"order_id,at,total"])
def test_missing_receipt_column_is_an_error(head: bytes) -> None:
    with pytest.raises(ValueError, match="line 1: no column"):
        list(read_receipts([head] if head else []))


# -- a real shop -------------------------------------------------------------------------------------------------------


def test_ingest_of_recorded_shop_traffic(tmp_path: Path) -> None:
    program = data_path("rees46_to_events.py")
    data_path("rees46_multicategory_2019-Oct_head17k.csv.gz")
    made = subprocess.run([sys.executable, str(program)], check=True, capture_output=True, timeout=50)
    lines = made.stdout.splitlines()
    assert len(lines) == 22_409
    with SqliteLog(tmp_path, 4) as log:
        done = ingest(log, lines, history=True)
        assert (done.accepted, done.rejected) == (22_409, 0)
        read = [record for record in records(log) if record.key is not None]
    assert sorted(json.loads(record.value)["messageId"] for record in read) == sorted(
        json.loads(line)["messageId"] for line in lines
    )
    for record in read[::500]:
        assert event.event_time(event.decode(record.value), record.log_time) == record.log_time
