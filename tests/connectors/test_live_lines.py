"""What the live page is told of a record: enough to follow it, nothing that names a person."""

import json
from typing import Any

import pytest

from connectors.live_feed import line, who
from domain import action
from domain import message as messages
from domain.action import Content, CouponNews, Progress
from domain.message import Message
from domain.record import Record

COMMON: dict[str, Any] = {"id": "i", "at": 5, "person": "u:ann"}


def told(stream: str, value: bytes) -> dict[str, Any] | None:
    return line(Record(stream, 0, 1, 5, b"ann", value))


def test_a_message_is_shown_without_its_addresses() -> None:
    message = Message(**COMMON, channel="email", campaign="reminder", content_key="k", not_before=1, not_after=2,
                      addresses={"email": "ann@x.example"}, content=Content(title="Hello"), context={"name": "Ann"})
    shown = told("messages", messages.encode(message))
    assert shown is not None
    assert shown.pop("because") == {}
    assert shown == {"kind": "message", "at": 5, "who": who("u:ann"), "id": "i", "what": "reminder", "format": "email",
                     "title": "Hello"}
    assert "ann" not in json.dumps(shown)


def test_what_takes_a_message_back_is_not_shown() -> None:
    back = Message(**COMMON, channel="email", campaign="c", content_key="", not_before=1, not_after=1, withdraws="m")
    assert told("messages", messages.encode(back)) is None


@pytest.mark.parametrize(("said", "expected"), [
    (Progress(**COMMON, workflow="abandoned", version="v", what="step", step="wait"),
     {"kind": "progress", "what": "abandoned", "detail": "step wait"}),
    (CouponNews(**COMMON, pool="ten", code="SECRET", what="reserved"),
     {"kind": "coupon", "what": "ten", "detail": "reserved"}),
])
def test_every_action_has_a_line(said: action.Action, expected: dict[str, str]) -> None:
    shown = told("actions", action.encode(said))
    assert shown is not None
    assert expected.items() <= shown.items()
    assert "SECRET" not in json.dumps(shown), "a code is its owner's"


@pytest.mark.parametrize("stream", ["messages", "actions", "clicks", "rejects"])
def test_what_cannot_be_read_is_passed_over(stream: str) -> None:
    assert told(stream, b"{nonsense") is None
