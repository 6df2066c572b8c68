"""End-to-end tests of messages, from event to outbox to feedback, with real processes and crashes."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain import action as messages
from domain.action import Message
from tests.harness.instance import RunningInstance, running_instance

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

SHOP = """
url = "https://shop.example"
currency = "EUR"
timezone = "Europe/Rome"
custom_events = ["Quiz Finished"]
"""
REMINDER = """
format = "email"
[trigger]
event = "Checkout Started"
[content.default]
title = "Your {{ cart.items[0].name }} waits, {{ first_name }}"
body = "<p>{{ traits.city }}</p>"
url = "/shop/cart.html"
[frequency_caps]
total = 1
"""
WEBHOOK_CAMPAIGN = """
format = "webhook"
[trigger]
event = "Quiz Finished"
[content.default]
title = "Quiz"
"""
CUP = {
    "product_id": "cup",
    "name": "Cup <b>of</b>\r\nBcc: all@x.example\u2028tea",
    "price": 9.5,
    "currency": "EUR",
    "quantity": 2,
}


@pytest.fixture
def instance(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningInstance]:
    """A running instance; a parameter sets `channels`."""
    folder = tmp_path / "shop"
    (folder / "campaigns").mkdir(parents=True)
    (folder / "shop.toml").write_text(SHOP)
    (folder / "campaigns" / "reminder.toml").write_text(REMINDER)
    (folder / "campaigns" / "quiz.toml").write_text(WEBHOOK_CAMPAIGN)
    with running_instance(tmp_path / "data", folder, channels=getattr(request, "param", ("file",))) as made:
        yield made


def post_track(instance: RunningInstance, who: str, event: str, **properties: Any) -> None:
    instance.post("/v1/track", {"event": event, "userId": who, "properties": properties}, key="server-key")


def outbox_messages(instance: RunningInstance) -> list[Message]:
    return [
        messages.decode_message(one)
        for path in sorted((instance.folder / "outbox").glob("*.jsonl"))
        for one in path.read_bytes().split(b"\n")[:-1]
    ]


def exposure_count(instance: RunningInstance, who: str, campaign: str) -> int:
    person = instance.persons().get(f"u:{who}")
    found = person.exposures.get(campaign) if person is not None else None
    return found.total if found is not None else 0


def run_explain(instance: RunningInstance, who: str, campaign: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "attimo", "explain", who, campaign],
        env=instance.environment({}),
        cwd=instance.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def identify_and_shop(instance: RunningInstance, who: str, email: str = "ann@x.example") -> None:
    instance.post(
        "/v1/identify",
        {
            "userId": who,
            "traits": {
                "email": email,
                "first_name": "Ann <script>x()</script>",
                "city": "Roma\r\n<img src=x onerror=y>",
            },
        },
        key="server-key",
    )
    post_track(instance, who, "Product Added", **CUP)
    post_track(instance, who, "Checkout Started", order_id=f"o-{who}", products=[CUP])


def test_event_to_outbox_to_feedback(instance: RunningInstance) -> None:
    for name in ("edge", "onsite", "outreach"):
        instance.start(name)
    identify_and_shop(instance, "ann")
    instance.wait_until(lambda: exposure_count(instance, "ann", "reminder") == 1, "the exposure is recorded")
    (message,) = outbox_messages(instance)
    assert (message.person, message.channel, message.campaign) == ("u:ann", "email", "reminder")
    assert message.addresses == {"email": "ann@x.example"}
    assert message.content.title.isprintable(), "the subject is one line"
    assert "<script" not in message.content.html
    assert "<img src" not in message.content.html
    (path,) = (instance.folder / "outbox").glob("*.jsonl")
    assert len(path.read_text("utf-8").splitlines()) == 1
    assert "shown" in run_explain(instance, "ann", "reminder")
    assert [one.status for one in instance.persons()["u:ann"].messages] == ["delivered"]
    assert instance.persons()["u:ann"].pending_sends == []

    instance.post(
        "/v1/track",
        {
            "event": "Message Bounced",
            "userId": "ann",
            "properties": {"message_id": message.id, "type": "hard", "reason": "550 no such user"},
        },
        key="server-key",
    )
    instance.wait_until(lambda: bool(instance.persons()["u:ann"].suppressed_addresses), "the bounce is recorded")
    assert "bounced: 550 no such user" in run_explain(instance, "ann", "reminder")
    post_track(instance, "ann", "Quiz Finished")
    instance.wait_until(lambda: exposure_count(instance, "ann", "quiz") == 1, "the webhook is sent without an address")
    assert [instance.stop(name) for name in ("outreach", "onsite", "edge")] == [0, 0, 0]


@pytest.mark.parametrize("instance", [("sms:file",)], indirect=True)
def test_missing_address_or_channel_suppresses_with_reason(instance: RunningInstance) -> None:
    for name in ("edge", "onsite", "outreach"):
        instance.start(name)
    identify_and_shop(instance, "eve", "eve@x.example\r\nBcc: all@x.example")
    instance.wait_until(
        lambda: "u:eve" in instance.persons() and "reminder" in instance.persons()["u:eve"].decisions,
        "the message is decided",
    )
    assert "no_address" in run_explain(instance, "eve", "reminder")
    identify_and_shop(instance, "bob", "bob@x.example")
    instance.wait_until(
        lambda: [one.status for p in instance.persons().values() for one in p.messages] == ["suppressed"],
        "the message is suppressed",
    )
    assert "no_channel" in run_explain(instance, "bob", "reminder")
    assert outbox_messages(instance) == []
    assert instance.persons()["u:bob"].pending_sends == []


@pytest.mark.parametrize("failpoint", ["onsite:after_publish#3", "outreach:after_send", "outreach:after_feedback"])
def test_crash_at_any_point_sends_each_message_once(instance: RunningInstance, failpoint: str) -> None:
    name = failpoint.partition(":")[0]
    instance.start("edge")
    for process in ("onsite", "outreach"):
        instance.start(process, crash_at=failpoint if process == name else "")
    people = [f"p{n}" for n in range(12)]
    for who in people[:8]:
        identify_and_shop(instance, who)
    assert instance.wait_for_exit(name, 60) == 137
    instance.start(name)
    for who in people[8:]:
        identify_and_shop(instance, who)
    instance.wait_until(
        lambda: all(exposure_count(instance, who, "reminder") for who in people), "all exposures are recorded"
    )
    instance.wait_until(instance.is_drained, "everything is applied")
    assert Counter(one.person for one in outbox_messages(instance)) == Counter(f"u:{who}" for who in people)
    assert {exposure_count(instance, who, "reminder") for who in people} == {1}
    assert {
        instance.persons()[f"u:{who}"].own_fragment().lifetime_counts["Message Delivered"].count for who in people
    } == {1}
    assert [instance.stop(process) for process in ("outreach", "onsite")] == [0, 0]
