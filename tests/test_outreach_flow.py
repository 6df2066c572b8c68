"""The outreach flow: each message once, wherever it is killed, and what became of it told once."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.channel import ChannelError, Told
from connectors.open_log import open_log
from domain import message as messages
from domain.action import Content
from domain.message import Message
from domain.partition import partition_of
from domain.record import Outgoing, Record
from domain.settings import Settings
from domain.streams import MESSAGES, PEOPLE
from flows.outreach import PENDING, Outreach
from state.outreach_store import OutreachStore, OutreachStoreError
from tests.system import House

pytestmark = pytest.mark.timeout(300)
PARTITIONS = 4
NOW = 1_800_000_000_000
DAY = 86_400_000
HOSTILE = "\r\nBcc: all@example.com\n\n<script>x()</script>\u2028\u2029\x85\x0b\x0c\x1e\x7f\x9b31m\x1b[2J\0\"\\,{}"


def message(name: str, at: int = NOW, **fields: Any) -> Message:
    """A message that may go out now, for a day."""
    given: dict[str, Any] = {
        "id": name, "at": at, "person": "u:ann", "channel": "email", "campaign": "hello", "content_key": "hello/a/0",
        "not_before": at, "not_after": at + DAY, "addresses": {"email": "ann@example.com"},
        "content": Content(title="Hello"), **fields}
    return Message(**given)


def record(one: Message) -> Outgoing:
    return Outgoing(MESSAGES, one.person[2:].encode(), messages.encode(one))


class Office:
    """One outreach over one folder, turned by hand, at a time that the test sets."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.now = settings, NOW
        self.open()

    def open(self) -> None:
        self.flow = Outreach(self.settings, lambda: self.now)
        self.flow.open()
        self.flow.patience = 0.002 if self.settings.log == "sqlite" else 0.5

    def close(self) -> None:
        self.flow.reader.close()
        self.flow.close()

    def write(self, *those: Message | Outgoing) -> None:
        self.flow.log.append([one if isinstance(one, Outgoing) else record(one) for one in those])

    def turn(self, until: int = 3) -> None:
        """Read and send until nothing more comes."""
        quiet = 0
        while quiet < until:
            items = self.flow.take()
            quiet = 0 if items else quiet + 1
            if items:
                self.flow.report(self.flow.send(items))

    def told(self) -> list[dict[str, Any]]:
        """The feedback in `people`, in the order of the log (by person)."""
        return [json.loads(one.value) for one in read(self.settings, PEOPLE)]

    def lines(self) -> list[Message]:
        return outbox(Path(self.settings.data))


def read(settings: Settings, stream: str) -> list[Record]:
    with open_log(settings) as log:
        ends = log.ends([(stream, partition) for partition in range(PARTITIONS)])
        return [one for place, end in ends.items() if end >= 0 for one in log.fetch(place, 0, end)]


def outbox(data: Path) -> list[Message]:
    """Every line of the outbox."""
    return [messages.decode(one) for path in sorted((data / "outbox").glob("*.jsonl"))
            for one in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        return Settings(data=str(tmp_path), partitions=PARTITIONS)
    from connectors.kafka_topics import create_topics

    broker = request.getfixturevalue("broker")
    made = Settings(data=str(tmp_path), log=f"kafka://{broker}", shop=f"shop{time.time_ns()}", partitions=PARTITIONS)
    create_topics(made)
    return made


@pytest.fixture
def office(settings: Settings) -> Iterator[Office]:
    made = Office(settings)
    yield made
    made.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Office]:
    """On the embedded log alone."""
    made = Office(Settings(data=str(tmp_path), partitions=PARTITIONS))
    yield made
    made.close()


# -- over both logs -------------------------------------------------------------------------------------------------


def test_a_message_is_written_once_told_once_and_never_read_again(office: Office) -> None:
    office.write(*[message(f"m{n}", person=f"u:p{n}") for n in range(20)], message("m3", person="u:p3"))
    office.turn()
    assert sorted(one.id for one in office.lines()) == sorted(f"m{n}" for n in range(20))
    told = office.told()
    assert sorted((one["event"], one["userId"], one["messageId"]) for one in told) == sorted(
        ("Message Delivered", f"p{n}", f"delivered-m{n}") for n in range(20))
    assert told[0]["properties"] == {"message_id": told[0]["messageId"][10:], "campaign": "hello", "channel": "email"}
    office.close()
    office.open()
    office.write(message("m4", person="u:p4"), message("late", person="u:p4"))
    office.turn()
    assert sorted(one.id for one in office.lines())[:1] == ["late"]
    assert len(office.lines()) == len(office.told()) == 21


def test_feedback_goes_to_the_partition_of_the_person(office: Office) -> None:
    office.write(message("m", person="a:browser-7"))
    office.turn()
    found = read(office.settings, PEOPLE)
    assert [(one.key, one.partition) for one in found] == [(b"browser-7", partition_of(b"browser-7", PARTITIONS))]
    assert json.loads(found[0].value)["anonymousId"] == "browser-7"


# -- time, routes, withdrawals ----------------------------------------------------------------------------------------


def test_too_late_is_held_and_too_early_waits(here: Office) -> None:
    here.write(message("late", at=NOW - 2 * DAY), message("early", not_before=NOW + 5_000), message("now"))
    here.turn()
    assert [one.id for one in here.lines()] == ["now"]
    assert {(one["event"], one["properties"].get("reason")) for one in here.told()} == {
        ("Message Held", "stale"), ("Message Delivered", None)}
    here.now = NOW + 4_999
    here.turn()
    assert len(here.lines()) == 1
    here.now = NOW + 5_000
    here.turn()
    assert [one.id for one in here.lines()] == ["now", "early"]


def test_the_last_moment_is_too_late(here: Office) -> None:
    here.write(message("edge", not_after=NOW), message("just", not_after=NOW + 1))
    here.turn()
    assert [one.id for one in here.lines()] == ["just"]


def test_one_that_waits_holds_back_neither_others_nor_is_it_lost(here: Office) -> None:
    here.write(message("early", not_before=NOW + 5_000), *[message(f"m{n}") for n in range(5)])
    here.turn()
    assert len(here.lines()) == 5
    here.close()
    here.open()  # the position stands before the one that waits; the others are known by their ids
    here.now = NOW + 6_000
    here.turn()
    assert Counter(one.id for one in here.lines()) == Counter([*(f"m{n}" for n in range(5)), "early"])
    assert len(here.told()) == 6


def test_what_is_taken_back_in_time_is_not_sent(here: Office) -> None:
    early = message("early", not_before=NOW + 5_000)
    back = message("w", withdraws="early", content_key="")
    here.write(early, back, message("m"), message("w2", withdraws="m"), message("other"))
    here.turn()
    here.now = NOW + 6_000
    here.turn()
    assert [one.id for one in here.lines()] == ["other"], "whoever reads on before sending sees what is taken back"
    assert [one["messageId"] for one in here.told()] == ["delivered-other"]


@pytest.mark.parametrize(("channels", "sent", "held"), [
    (("file",), ["email", "sms", "webhook"], []),
    (("none",), [], ["email", "sms", "webhook"]),
    ((), [], ["email", "sms", "webhook"]),
    (("email:file",), ["email"], ["sms", "webhook"]),
    (("file", "email:elsewhere"), ["sms", "webhook"], []),
])
def test_who_takes_which_channel(tmp_path: Path, channels: tuple[str, ...], sent: list[str], held: list[str]) -> None:
    office = Office(Settings(data=str(tmp_path), partitions=PARTITIONS, channels=channels))
    office.write(*[message(channel, channel=channel) for channel in ("email", "sms", "webhook")])
    office.turn()
    assert sorted(one.channel for one in office.lines()) == sent
    told = [one for one in office.told() if one["event"] == "Message Held"]
    assert sorted(one["properties"]["channel"] for one in told) == held
    assert {one["properties"]["reason"] for one in told} == ({"no_channel"} if held else set())
    office.close()


@pytest.mark.parametrize("channel", ["pigeon", "", "file\r\n"])
def test_a_channel_that_does_not_exist_is_held(here: Office, channel: str) -> None:
    here.write(message("m", channel=channel))
    here.turn()
    assert [one["properties"]["reason"] for one in here.told()] == ["no_channel"]


def test_recorded_days_send_nothing_and_say_nothing(here: Office) -> None:
    here.write(message("m", history=True), message("old", at=NOW - 400 * DAY, history=True))
    here.turn()
    assert here.lines() == []
    assert here.told() == []


def test_what_is_no_message_is_passed_over(here: Office) -> None:
    here.write(Outgoing(MESSAGES, b"x", b"{broken"), Outgoing(MESSAGES, b"x", b"\xff\xfe"), message("m"),
               Outgoing(MESSAGES, None, b"{}"), Outgoing(MESSAGES, b"x", b'{"context":' + b"[" * 100_000))
    here.turn()
    assert [one.id for one in here.lines()] == ["m"]
    assert here.flow.unreadable == 4
    here.close()
    here.open()
    here.turn(1)
    assert here.flow.unreadable == 0, "they are behind us"


def test_a_channel_that_is_away_gets_its_messages_again_until_they_are_too_late(here: Office) -> None:
    away = True

    class Moody:
        def send(self, those: list[Message]) -> list[Told]:
            if away:
                raise ChannelError("nobody there")
            return [Told("bounced", "550 no such user", hard=True) for _ in those]

        def close(self) -> None: ...

    here.flow.channels["file"] = Moody()  # type: ignore[assignment] # a list is a sequence
    here.write(message("short", not_after=NOW + 3_000), message("long"))
    here.turn()
    assert here.told() == []
    here.now += 3_500
    here.turn()
    assert [one["messageId"] for one in here.told()] == ["held-short"]
    away = False
    here.now += 2_000
    here.turn()
    last = here.told()[-1]
    assert (last["event"], last["properties"]["hard"], last["properties"]["reason"]) == (
        "Message Bounced", True, "550 no such user")


def test_more_than_fits_in_memory_comes_too(here: Office) -> None:
    here.write(*[message(f"m{n}", person=f"u:p{n}") for n in range(PENDING + 700)])
    here.turn(until=10)  # while there is more to be read, nothing is handed over
    assert len(here.lines()) == len({one.id for one in here.lines()}) == PENDING + 700


def test_there_is_one_outreach_on_a_folder(here: Office) -> None:
    with pytest.raises(OutreachStoreError, match="in use: another `attimo run outreach`"):
        OutreachStore(Path(here.settings.data) / "store" / "outreach.db", patience=0.0)


# -- the file ---------------------------------------------------------------------------------------------------------


def test_nothing_breaks_a_line(here: Office) -> None:
    hostile = message("m", person=f"a:{HOSTILE}", campaign="hello", language=HOSTILE, timezone=HOSTILE,
                      addresses={"email": HOSTILE}, consent={HOSTILE: "granted"}, context={HOSTILE: [HOSTILE, 1]},
                      content=Content(title=HOSTILE, html=HOSTILE, url="/x"))
    here.write(hostile, message("next"))
    here.turn()
    (path,) = (Path(here.settings.data) / "outbox").glob("*.jsonl")
    assert len(path.read_text("utf-8").splitlines()) == 2, "str.splitlines knows every line separator there is"
    assert path.read_text("utf-8").isascii() or all(c.isprintable() for c in path.read_text("utf-8").replace("\n", ""))
    assert here.lines()[0] == hostile, "and nothing is lost"
    assert path.stat().st_mode & 0o077 == 0, "addresses are nobody else's business"
    assert path.name == "2027-01-15.jsonl"


@pytest.mark.parametrize("torn", [b'{"id":"half', b'{"id":"m9","at":1', b"\n{", b"x" * 3_000_000])
def test_a_torn_last_line_is_written_anew(here: Office, torn: bytes) -> None:
    here.write(message("m0"))
    here.turn()
    (path,) = (Path(here.settings.data) / "outbox").glob("*.jsonl")
    here.close()
    with path.open("ab") as file:
        file.write(torn)
    here.open()
    here.write(message("m1"))
    here.turn()
    text = path.read_bytes()
    assert text.endswith(b"\n")
    assert [json.loads(one)["id"] for one in text.split(b"\n") if one] == ["m0", "m1"]


def test_what_the_position_forgot_the_file_knows(here: Office) -> None:
    """As after a power cut that took the last commits of the store: the log gives everything once more."""
    here.write(*[message(f"m{n}") for n in range(300)])
    here.turn()
    here.close()
    store = Path(here.settings.data) / "store"
    with sqlite3.connect(store / "outreach.db") as raw:
        raw.execute("DELETE FROM done")
        raw.execute("DELETE FROM positions")
    raw.close()
    here.open()
    here.now += DAY // 2  # the next day has a file of its own
    here.turn()
    assert len(here.lines()) == 300
    assert Counter(Counter(one["messageId"] for one in here.told()).values()) == {2: 300}, "told twice, by the same id"


def test_a_full_disk_writes_nothing_by_halves(here: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    real = os.write
    here.write(message("m0"))
    here.turn()

    def full(file: int, data: bytes) -> int:
        real(file, bytes(data[:20]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("connectors.channel_file.os.write", full)
    here.write(message("m1"))
    here.turn()
    assert [one.id for one in here.lines()] == ["m0"]
    monkeypatch.setattr("connectors.channel_file.os.write", real)
    here.now += 2_000
    here.turn()
    assert [one.id for one in here.lines()] == ["m0", "m1"]


# -- the process ------------------------------------------------------------------------------------------------------


class Post:
    """The process, with messages to send."""

    def __init__(self, folder: Path) -> None:
        self.house = House(folder, "", folder / "shop", partitions=PARTITIONS)
        self.given = 0

    def give(self, n: int, times: int = 1) -> None:
        now = time.time_ns() // 1_000_000
        those = [message(f"m{self.given + k}", now, person=f"u:p{k}") for k in range(n)]
        self.given += n
        with self.house.log() as log:
            for _ in range(times):
                log.append([record(one) for one in those])

    def told(self) -> list[str]:
        return [json.loads(one.value)["messageId"] for one in self.house.records(PEOPLE)]

    def all_told(self) -> bool:
        return len(set(self.told())) == self.given


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.house.close()


@pytest.mark.parametrize("place", [
    "outreach:after_send", "outreach:after_feedback", "outreach:after_commit", "outreach:after_send#2",
    "outreach:after_feedback#2", "outreach:after_commit#2"])
def test_killed_at_a_failpoint_each_message_is_sent_once(post: Post, place: str) -> None:
    post.house.start("outreach", crash_at=place)
    post.give(30, times=2)
    if place.endswith("#2"):
        post.house.wait(post.all_told, "the first ones are told")
        post.give(10)
    assert post.house.died("outreach") == 137
    post.give(20)
    post.house.start("outreach")
    post.house.wait(post.all_told, "all are told")
    assert post.house.stop("outreach") == 0
    assert Counter(one.id for one in outbox(post.house.folder)) == Counter(f"m{n}" for n in range(post.given))
    assert set(post.told()) == {f"delivered-m{n}" for n in range(post.given)}


def test_killed_at_any_time_under_load_each_message_is_sent_once(post: Post) -> None:
    for n in range(4):
        post.house.start("outreach")
        for _ in range(6):
            post.give(40)
            time.sleep(0.06 * n)
        post.house.kill("outreach")
    post.house.start("outreach")
    post.give(5)
    post.house.wait(post.all_told, "all are told")
    assert post.house.stop("outreach") == 0
    assert Counter(one.id for one in outbox(post.house.folder)) == Counter(f"m{n}" for n in range(post.given))


def test_the_message_in_a_line_decodes_as_it_was_encoded() -> None:
    one = message("m", context={"a": [1, {"b": None}]})
    assert messages.decode(messages.encode(one)) == one
    assert msgspec.json.decode(messages.encode(one))["id"] == "m"
