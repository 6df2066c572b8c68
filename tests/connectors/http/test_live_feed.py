"""What the live page is told of a record: enough to follow it, nothing that names a person."""

import json
from typing import Any

import pytest

from connectors.http.live_feed import person_hash, to_entry
from domain import action
from domain import action as messages
from domain.action import CouponEvent, Message, RenderedContent, WorkflowProgress
from domain.record import Record

COMMON: dict[str, Any] = {"id": "i", "at": 5, "person": "u:ann"}


def feed_line(stream: str, value: bytes) -> dict[str, Any] | None:
    return to_entry(Record(stream, 0, 1, 5, b"ann", value))


def test_message_line_contains_no_addresses() -> None:
    message = Message(
        **COMMON,
        channel="email",
        campaign="reminder",
        content_key="k",
        not_before=1,
        not_after=2,
        addresses={"email": "ann@x.example"},
        content=RenderedContent(title="Hello"),
        context={"name": "Ann"},
    )
    shown = feed_line("messages", messages.encode_message(message))
    assert shown is not None
    assert shown.pop("because") == {}
    assert shown == {
        "kind": "message",
        "at": 5,
        "person": person_hash("u:ann"),
        "id": "i",
        "subject": "reminder",
        "format": "email",
        "title": "Hello",
    }
    assert "ann" not in json.dumps(shown)


def test_message_withdrawal_has_no_line() -> None:
    back = Message(**COMMON, channel="email", campaign="c", content_key="", not_before=1, not_after=1, withdrawn_id="m")
    assert feed_line("messages", messages.encode_message(back)) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            WorkflowProgress(**COMMON, workflow="abandoned", version="v", transition="step", step="wait"),
            {"kind": "workflow_progress", "subject": "abandoned", "detail": "step wait"},
        ),
        (
            CouponEvent(**COMMON, pool="ten", code="SECRET", status="reserved"),
            {"kind": "coupon_event", "subject": "ten", "detail": "reserved"},
        ),
    ],
)
def test_every_action_has_a_line(said: action.Action, expected: dict[str, str]) -> None:
    shown = feed_line("actions", action.encode_action(said))
    assert shown is not None
    assert expected.items() <= shown.items()
    assert "SECRET" not in json.dumps(shown), "a code is its owner's"


@pytest.mark.parametrize("stream", ["messages", "actions", "clicks", "dead-letters"])
def test_undecodable_records_have_no_line(stream: str) -> None:
    assert feed_line(stream, b"{nonsense") is None
