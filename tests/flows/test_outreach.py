"""Tests of the outreach flow: each message is sent and reported once, wherever the process is killed."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.channels.channel import ChannelError, SendResult
from connectors.log.open import open_log
from domain import action as messages
from domain.action import Message, RenderedContent
from domain.record import MESSAGES, PEOPLE, NewRecord, Record, partition_of
from domain.settings import Settings
from flows.outreach import MAX_PENDING, Outreach
from state.store.outreach import OutreachStore, OutreachStoreError
from tests.harness.instance import RunningInstance

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4
NOW = 1_800_000_000_000
DAY = 86_400_000
HOSTILE = '\r\nBcc: all@example.com\n\n<script>x()</script>\u2028\u2029\x85\x0b\x0c\x1e\x7f\x9b31m\x1b[2J\0"\\,{}'


def make_message(name: str, at: int = NOW, **fields: Any) -> Message:
    """A message that is due now and valid for a day."""
    given: dict[str, Any] = {
        "id": name,
        "at": at,
        "person": "u:ann",
        "channel": "email",
        "campaign": "hello",
        "content_key": "hello/a/0",
        "not_before": at,
        "not_after": at + DAY,
        "addresses": {"email": "ann@example.com"},
        "content": RenderedContent(title="Hello"),
        **fields,
    }
    return Message(**given)


def message_record(one: Message) -> NewRecord:
    return NewRecord(MESSAGES, one.person[2:].encode(), messages.encode_message(one))


class OutreachHarness:
    """An outreach flow that the test steps, with a clock that the test sets."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.now = settings, NOW
        self.open()

    def open(self) -> None:
        self.flow = Outreach(self.settings, lambda: self.now)
        self.flow.open()
        self.flow.poll_timeout = 0.002 if self.settings.log == "sqlite" else 0.5

    def close(self) -> None:
        self.flow.reader.close()
        self.flow.close()

    def write(self, *those: Message | NewRecord) -> None:
        self.flow.log.append([one if isinstance(one, NewRecord) else message_record(one) for one in those])

    def run_until_idle(self, quiet_rounds: int = 3) -> None:
        """Read and send until `quiet_rounds` polls return nothing."""
        quiet = 0
        while quiet < quiet_rounds:
            items = self.flow.next_due()
            quiet = 0 if items else quiet + 1
            if items:
                self.flow.report(self.flow.send(items))

    def feedback(self) -> list[dict[str, Any]]:
        """The feedback in `people`, in the order of the log (by person)."""
        return [json.loads(one.value) for one in read_stream(self.settings, PEOPLE)]

    def outbox_messages(self) -> list[Message]:
        return read_outbox(Path(self.settings.data))


def read_stream(settings: Settings, stream: str) -> list[Record]:
    with open_log(settings) as log:
        ends = log.end_offsets([(stream, partition) for partition in range(PARTITIONS)])
        return [one for place, end in ends.items() if end >= 0 for one in log.fetch(place, 0, end)]


def read_outbox(data: Path) -> list[Message]:
    """Every line of the outbox."""
    return [
        messages.decode_message(one)
        for path in sorted((data / "outbox").glob("*.jsonl"))
        for one in path.read_bytes().split(b"\n")[:-1]
    ]


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        return Settings(data=str(tmp_path), partitions=PARTITIONS)
    from connectors.log.kafka_admin import create_topics

    broker = request.getfixturevalue("broker")
    made = Settings(data=str(tmp_path), log=f"kafka://{broker}", shop=f"shop{time.time_ns()}", partitions=PARTITIONS)
    create_topics(made)
    return made


@pytest.fixture
def outreach(settings: Settings) -> Iterator[OutreachHarness]:
    made = OutreachHarness(settings)
    yield made
    made.close()


@pytest.fixture
def sqlite_outreach(tmp_path: Path) -> Iterator[OutreachHarness]:
    """An outreach flow on the SQLite log."""
    made = OutreachHarness(Settings(data=str(tmp_path), partitions=PARTITIONS))
    yield made
    made.close()


# -- over both logs -------------------------------------------------------------------------------------------------


def test_message_is_sent_and_reported_once(outreach: OutreachHarness) -> None:
    outreach.write(*[make_message(f"m{n}", person=f"u:p{n}") for n in range(20)], make_message("m3", person="u:p3"))
    outreach.run_until_idle()
    assert sorted(one.id for one in outreach.outbox_messages()) == sorted(f"m{n}" for n in range(20))
    feedback = outreach.feedback()
    assert sorted((one["event"], one["userId"], one["messageId"]) for one in feedback) == sorted(
        ("Message Delivered", f"p{n}", f"delivered-m{n}") for n in range(20)
    )
    assert feedback[0]["properties"] == {
        "message_id": feedback[0]["messageId"][10:],
        "campaign": "hello",
        "channel": "email",
    }
    outreach.close()
    outreach.open()
    outreach.write(make_message("m4", person="u:p4"), make_message("late", person="u:p4"))
    outreach.run_until_idle()
    assert sorted(one.id for one in outreach.outbox_messages())[:1] == ["late"]
    assert len(outreach.outbox_messages()) == len(outreach.feedback()) == 21


def test_feedback_goes_to_the_persons_partition(outreach: OutreachHarness) -> None:
    outreach.write(make_message("m", person="a:browser-7"))
    outreach.run_until_idle()
    found = read_stream(outreach.settings, PEOPLE)
    assert [(one.key, one.partition) for one in found] == [(b"browser-7", partition_of(b"browser-7", PARTITIONS))]
    assert json.loads(found[0].value)["anonymousId"] == "browser-7"


# -- time, routes, withdrawals ----------------------------------------------------------------------------------------


def test_late_message_is_suppressed_and_early_one_waits(sqlite_outreach: OutreachHarness) -> None:
    sqlite_outreach.write(
        make_message("late", at=NOW - 2 * DAY), make_message("early", not_before=NOW + 5_000), make_message("now")
    )
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["now"]
    assert {(one["event"], one["properties"].get("reason")) for one in sqlite_outreach.feedback()} == {
        ("Message Suppressed", "stale"),
        ("Message Delivered", None),
    }
    sqlite_outreach.now = NOW + 4_999
    sqlite_outreach.run_until_idle()
    assert len(sqlite_outreach.outbox_messages()) == 1
    sqlite_outreach.now = NOW + 5_000
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["now", "early"]


def test_not_after_is_exclusive(sqlite_outreach: OutreachHarness) -> None:
    sqlite_outreach.write(make_message("edge", not_after=NOW), make_message("just", not_after=NOW + 1))
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["just"]


def test_waiting_message_blocks_no_others_and_is_kept(sqlite_outreach: OutreachHarness) -> None:
    sqlite_outreach.write(make_message("early", not_before=NOW + 5_000), *[make_message(f"m{n}") for n in range(5)])
    sqlite_outreach.run_until_idle()
    assert len(sqlite_outreach.outbox_messages()) == 5
    sqlite_outreach.close()
    sqlite_outreach.open()  # the committed position is before the pending message; the others are known by id
    sqlite_outreach.now = NOW + 6_000
    sqlite_outreach.run_until_idle()
    assert Counter(one.id for one in sqlite_outreach.outbox_messages()) == Counter(
        [*(f"m{n}" for n in range(5)), "early"]
    )
    assert len(sqlite_outreach.feedback()) == 6


def test_withdrawn_message_is_not_sent(sqlite_outreach: OutreachHarness) -> None:
    early = make_message("early", not_before=NOW + 5_000)
    back = make_message("w", withdrawn_id="early", content_key="")
    sqlite_outreach.write(early, back, make_message("m"), make_message("w2", withdrawn_id="m"), make_message("other"))
    sqlite_outreach.run_until_idle()
    sqlite_outreach.now = NOW + 6_000
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["other"], (
        "a withdrawal in the same poll is applied before sending"
    )
    assert [one["messageId"] for one in sqlite_outreach.feedback()] == ["delivered-other"]


@pytest.mark.parametrize(
    ("channels", "sent", "suppressed"),
    [
        (("file",), ["email", "sms", "webhook"], []),
        (("none",), [], ["email", "sms", "webhook"]),
        ((), [], ["email", "sms", "webhook"]),
        (("email:file",), ["email"], ["sms", "webhook"]),
        (("file", "email:external"), ["sms", "webhook"], []),
    ],
)
def test_channel_routing(tmp_path: Path, channels: tuple[str, ...], sent: list[str], suppressed: list[str]) -> None:
    outreach = OutreachHarness(Settings(data=str(tmp_path), partitions=PARTITIONS, channels=channels))
    outreach.write(*[make_message(channel, channel=channel) for channel in ("email", "sms", "webhook")])
    outreach.run_until_idle()
    assert sorted(one.channel for one in outreach.outbox_messages()) == sent
    events = [one for one in outreach.feedback() if one["event"] == "Message Suppressed"]
    assert sorted(one["properties"]["channel"] for one in events) == suppressed
    assert {one["properties"]["reason"] for one in events} == ({"no_channel"} if suppressed else set())
    outreach.close()


@pytest.mark.parametrize("channel", ["pigeon", "", "file\r\n"])
def test_unknown_channel_is_suppressed(sqlite_outreach: OutreachHarness, channel: str) -> None:
    sqlite_outreach.write(make_message("m", channel=channel))
    sqlite_outreach.run_until_idle()
    assert [one["properties"]["reason"] for one in sqlite_outreach.feedback()] == ["no_channel"]


def test_history_sends_nothing(sqlite_outreach: OutreachHarness) -> None:
    sqlite_outreach.write(make_message("m", history=True), make_message("old", at=NOW - 400 * DAY, history=True))
    sqlite_outreach.run_until_idle()
    assert sqlite_outreach.outbox_messages() == []
    assert sqlite_outreach.feedback() == []


def test_undecodable_messages_are_skipped(sqlite_outreach: OutreachHarness) -> None:
    sqlite_outreach.write(
        NewRecord(MESSAGES, b"x", b"{broken"),
        NewRecord(MESSAGES, b"x", b"\xff\xfe"),
        make_message("m"),
        NewRecord(MESSAGES, None, b"{}"),
        NewRecord(MESSAGES, b"x", b'{"context":' + b"[" * 100_000),
    )
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["m"]
    assert sqlite_outreach.flow.unreadable == 4
    sqlite_outreach.close()
    sqlite_outreach.open()
    sqlite_outreach.run_until_idle(1)
    assert sqlite_outreach.flow.unreadable == 0, "they are not read again"


def test_failing_channel_is_retried_until_not_after(sqlite_outreach: OutreachHarness) -> None:
    unavailable = True

    class FlakyChannel:
        def send(self, those: list[Message]) -> list[SendResult]:
            if unavailable:
                raise ChannelError("connection refused")
            return [SendResult("bounced", "550 no such user", hard=True) for _ in those]

        def close(self) -> None: ...

    sqlite_outreach.flow.channels["file"] = FlakyChannel()  # type: ignore[assignment] # a list is a sequence
    sqlite_outreach.write(make_message("short", not_after=NOW + 3_000), make_message("long"))
    sqlite_outreach.run_until_idle()
    assert sqlite_outreach.feedback() == []
    sqlite_outreach.now += 3_500
    sqlite_outreach.run_until_idle()
    assert [one["messageId"] for one in sqlite_outreach.feedback()] == ["suppressed-short"]
    unavailable = False
    sqlite_outreach.now += 2_000
    sqlite_outreach.run_until_idle()
    last = sqlite_outreach.feedback()[-1]
    assert (last["event"], last["properties"]["hard"], last["properties"]["reason"]) == (
        "Message Bounced",
        True,
        "550 no such user",
    )


def test_backlog_larger_than_memory_is_sent(sqlite_outreach: OutreachHarness) -> None:
    sqlite_outreach.write(*[make_message(f"m{n}", person=f"u:p{n}") for n in range(MAX_PENDING + 700)])
    sqlite_outreach.run_until_idle(quiet_rounds=10)  # messages are sent only after the backlog is read
    assert (
        len(sqlite_outreach.outbox_messages())
        == len({one.id for one in sqlite_outreach.outbox_messages()})
        == MAX_PENDING + 700
    )


def test_one_outreach_process_per_data_folder(sqlite_outreach: OutreachHarness) -> None:
    with pytest.raises(OutreachStoreError, match="in use by another `attimo run outreach`"):
        OutreachStore(Path(sqlite_outreach.settings.data) / "store" / "outreach.db", lock_timeout=0.0)


# -- the file ---------------------------------------------------------------------------------------------------------


def test_hostile_values_stay_on_one_line(sqlite_outreach: OutreachHarness) -> None:
    hostile = make_message(
        "m",
        person=f"a:{HOSTILE}",
        campaign="hello",
        language=HOSTILE,
        timezone=HOSTILE,
        addresses={"email": HOSTILE},
        consent={HOSTILE: "granted"},
        context={HOSTILE: [HOSTILE, 1]},
        content=RenderedContent(title=HOSTILE, html=HOSTILE, url="/x"),
    )
    sqlite_outreach.write(hostile, make_message("next"))
    sqlite_outreach.run_until_idle()
    (path,) = (Path(sqlite_outreach.settings.data) / "outbox").glob("*.jsonl")
    assert len(path.read_text("utf-8").splitlines()) == 2, "str.splitlines splits at every line separator"
    assert path.read_text("utf-8").isascii() or all(c.isprintable() for c in path.read_text("utf-8").replace("\n", ""))
    assert sqlite_outreach.outbox_messages()[0] == hostile, "the message is unchanged"
    assert path.stat().st_mode & 0o077 == 0, "only the owner can read addresses"
    assert path.name == "2027-01-15.jsonl"


@pytest.mark.parametrize("torn", [b'{"id":"half', b'{"id":"m9","at":1', b"\n{", b"x" * 3_000_000])
def test_torn_last_line_is_rewritten(sqlite_outreach: OutreachHarness, torn: bytes) -> None:
    sqlite_outreach.write(make_message("m0"))
    sqlite_outreach.run_until_idle()
    (path,) = (Path(sqlite_outreach.settings.data) / "outbox").glob("*.jsonl")
    sqlite_outreach.close()
    with path.open("ab") as file:
        file.write(torn)
    sqlite_outreach.open()
    sqlite_outreach.write(make_message("m1"))
    sqlite_outreach.run_until_idle()
    text = path.read_bytes()
    assert text.endswith(b"\n")
    assert [json.loads(one)["id"] for one in text.split(b"\n") if one] == ["m0", "m1"]


def test_outbox_file_prevents_resending_after_store_loss(sqlite_outreach: OutreachHarness) -> None:
    """After a power failure that lost the last commits of the store, all messages are read again."""
    sqlite_outreach.write(*[make_message(f"m{n}") for n in range(300)])
    sqlite_outreach.run_until_idle()
    sqlite_outreach.close()
    store = Path(sqlite_outreach.settings.data) / "store"
    with sqlite3.connect(store / "outreach.db") as raw:
        raw.execute("DELETE FROM processed")
        raw.execute("DELETE FROM positions")
    raw.close()
    sqlite_outreach.open()
    sqlite_outreach.now += DAY // 2  # the next day uses a new file
    sqlite_outreach.run_until_idle()
    assert len(sqlite_outreach.outbox_messages()) == 300
    assert Counter(Counter(one["messageId"] for one in sqlite_outreach.feedback()).values()) == {2: 300}, (
        "reported twice with the same id"
    )


def test_full_disk_leaves_no_partial_line(sqlite_outreach: OutreachHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    real = os.write
    sqlite_outreach.write(make_message("m0"))
    sqlite_outreach.run_until_idle()

    def full(file: int, data: bytes) -> int:
        real(file, bytes(data[:20]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("connectors.channels.file.os.write", full)
    sqlite_outreach.write(make_message("m1"))
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["m0"]
    monkeypatch.setattr("connectors.channels.file.os.write", real)
    sqlite_outreach.now += 2_000
    sqlite_outreach.run_until_idle()
    assert [one.id for one in sqlite_outreach.outbox_messages()] == ["m0", "m1"]


# -- the process ------------------------------------------------------------------------------------------------------


class OutreachProcess:
    """The outreach process, with messages to send."""

    def __init__(self, folder: Path) -> None:
        self.instance = RunningInstance(folder, "", folder / "shop", partitions=PARTITIONS)
        self.appended = 0

    def append_messages(self, n: int, times: int = 1) -> None:
        now = time.time_ns() // 1_000_000
        those = [make_message(f"m{self.appended + k}", now, person=f"u:p{k}") for k in range(n)]
        self.appended += n
        with self.instance.open_log() as log:
            for _ in range(times):
                log.append([message_record(one) for one in those])

    def feedback_ids(self) -> list[str]:
        return [json.loads(one.value)["messageId"] for one in self.instance.records(PEOPLE)]

    def all_reported(self) -> bool:
        return len(set(self.feedback_ids())) == self.appended


@pytest.fixture
def outreach_process(tmp_path: Path) -> Iterator[OutreachProcess]:
    made = OutreachProcess(tmp_path)
    yield made
    made.instance.close()


@pytest.mark.parametrize(
    "failpoint",
    [
        "outreach:after_send",
        "outreach:after_feedback",
        "outreach:after_commit",
        "outreach:after_send#2",
        "outreach:after_feedback#2",
        "outreach:after_commit#2",
    ],
)
def test_crash_at_failpoint_sends_each_message_once(outreach_process: OutreachProcess, failpoint: str) -> None:
    outreach_process.instance.start("outreach", crash_at=failpoint)
    outreach_process.append_messages(30, times=2)
    if failpoint.endswith("#2"):
        outreach_process.instance.wait_until(outreach_process.all_reported, "the first messages are reported")
        outreach_process.append_messages(10)
    assert outreach_process.instance.wait_for_exit("outreach") == 137
    outreach_process.append_messages(20)
    outreach_process.instance.start("outreach")
    outreach_process.instance.wait_until(outreach_process.all_reported, "all messages are reported")
    assert outreach_process.instance.stop("outreach") == 0
    assert Counter(one.id for one in read_outbox(outreach_process.instance.folder)) == Counter(
        f"m{n}" for n in range(outreach_process.appended)
    )
    assert set(outreach_process.feedback_ids()) == {f"delivered-m{n}" for n in range(outreach_process.appended)}


def test_random_kills_send_each_message_once(outreach_process: OutreachProcess) -> None:
    for n in range(4):
        outreach_process.instance.start("outreach")
        for _ in range(6):
            outreach_process.append_messages(40)
            time.sleep(0.06 * n)
        outreach_process.instance.kill("outreach")
    outreach_process.instance.start("outreach")
    outreach_process.append_messages(5)
    outreach_process.instance.wait_until(outreach_process.all_reported, "all messages are reported")
    assert outreach_process.instance.stop("outreach") == 0
    assert Counter(one.id for one in read_outbox(outreach_process.instance.folder)) == Counter(
        f"m{n}" for n in range(outreach_process.appended)
    )


def test_message_encoding_round_trips() -> None:
    one = make_message("m", context={"a": [1, {"b": None}]})
    assert messages.decode_message(messages.encode_message(one)) == one
    assert msgspec.json.decode(messages.encode_message(one))["id"] == "m"
