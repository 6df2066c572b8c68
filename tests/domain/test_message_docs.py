"""The examples and tables of `docs/messages.md` match the structs."""

import json
import re
from typing import Any

import msgspec
import pytest

from connectors.channels.channel import SendResult, feedback_event, route_table
from domain import action as messages
from domain import event as events
from domain.action import Message
from domain.event import Track
from domain.playbook.campaign import OFFSITE_FORMATS
from domain.record import PEOPLE, event_stream
from operators.record_feedback import HANDLERS
from operators.update_profile import FEEDBACK_EVENTS, NON_SESSION_EVENTS
from state.person.addresses import ADDRESS_TYPES
from tests.harness.support import ROOT

PAGE = (ROOT / "docs" / "messages.md").read_text("utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(one) for one in re.findall(r"```json\n(.*?)\n```", PAGE, flags=re.DOTALL)]
MESSAGE_EXAMPLES = [one for one in EXAMPLES if "type" not in one]
FEEDBACK_EXAMPLES = [one for one in EXAMPLES if "type" in one]


def table_rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("example", MESSAGE_EXAMPLES, ids=lambda one: one["id"])
def test_examples_match_the_message_schema(example: dict[str, Any]) -> None:
    raw = json.dumps(example).encode()
    assert json.loads(messages.encode_message(messages.decode_message(raw))) == example
    strict = type("Strict", (Message,), {}, forbid_unknown_fields=True)
    msgspec.json.decode(raw, type=strict)


def test_second_example_withdraws_the_first() -> None:
    plain, back = MESSAGE_EXAMPLES
    assert back["withdrawn_id"] == plain["id"]
    assert plain["channel"] in OFFSITE_FORMATS


def test_every_message_field_is_documented() -> None:
    assert set(table_rows("field")) == {field.name for field in msgspec.structs.fields(Message)}
    assert all(f"`{channel}`" in table_rows("field")["channel"][1] for channel in OFFSITE_FORMATS)
    assert all(f"`{kind.name}`" in table_rows("field")["addresses"][1] for kind in ADDRESS_TYPES.values())


def test_every_feedback_event_has_an_example() -> None:
    table = table_rows("event")
    assert set(table) == {one["event"] for one in FEEDBACK_EXAMPLES} == set(FEEDBACK_EVENTS)
    for example in FEEDBACK_EXAMPLES:
        decoded = events.decode(json.dumps(example).encode())
        assert isinstance(decoded, Track)
        assert decoded.message_id
        assert event_stream("track", decoded.name) == PEOPLE
        assert decoded.name in HANDLERS
        assert decoded.name in NON_SESSION_EVENTS
        documented = set(re.findall(r"`(\w+)`", table[decoded.name][1])) | {"message_id"}
        assert set(example["properties"]) <= documented


def test_delivered_example_matches_outreach() -> None:
    message = messages.decode_message(json.dumps({**MESSAGE_EXAMPLES[0], "variant": "", "workflow": ""}).encode())
    assert json.loads(feedback_event(message, SendResult("delivered")).value) == FEEDBACK_EXAMPLES[0]
    suppressed = next(one for one in FEEDBACK_EXAMPLES if one["event"] == "Message Suppressed")
    assert json.loads(feedback_event(message, SendResult("suppressed", "stale")).value) == suppressed


def test_documented_channel_settings_are_valid() -> None:
    for written in table_rows("`channels`"):
        route_table(written.split(","))
    assert 'channels = ["file", "email:external"]' in PAGE


@pytest.mark.parametrize(
    "wrong", ["pigeon", "email:pigeon", "pigeon:file", "email:", ":file", "", "email:none", "external"]
)
def test_invalid_channel_setting_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^channels: "):
        route_table([wrong])
