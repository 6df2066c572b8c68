"""`docs/messages.md` is what channel workers program against: its examples and tables are held to the declaration."""

import json
import re
from typing import Any

import msgspec
import pytest

from connectors.channel import Told, feedback, routes
from domain import event as events
from domain import message as messages
from domain.campaign import OFF_SITE
from domain.event import Track
from domain.message import Message
from domain.streams import PEOPLE, stream_of
from operators.books import BOOKS
from operators.fold_profile import FEEDBACK, NO_VISIT
from state.addresses import KINDS
from tests.support import ROOT

PAGE = (ROOT / "docs" / "messages.md").read_text("utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(one) for one in re.findall(r"```json\n(.*?)\n```", PAGE, flags=re.DOTALL)]
WRITTEN = [one for one in EXAMPLES if "type" not in one]
TOLD = [one for one in EXAMPLES if "type" in one]


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("example", WRITTEN, ids=lambda one: one["id"])
def test_the_examples_are_what_is_written(example: dict[str, Any]) -> None:
    raw = json.dumps(example).encode()
    assert json.loads(messages.encode(messages.decode(raw))) == example
    strict = type("Strict", (Message,), {}, forbid_unknown_fields=True)
    msgspec.json.decode(raw, type=strict)


def test_one_takes_back_the_other() -> None:
    plain, back = WRITTEN
    assert back["withdraws"] == plain["id"]
    assert plain["channel"] in OFF_SITE


def test_every_field_is_in_the_table() -> None:
    assert set(rows("field")) == {field.name for field in msgspec.structs.fields(Message)}
    assert all(f"`{channel}`" in rows("field")["channel"][1] for channel in OFF_SITE)
    assert all(f"`{kind.name}`" in rows("field")["addresses"][1] for kind in KINDS.values())


def test_every_kind_of_feedback_is_there_with_an_example() -> None:
    table = rows("event")
    assert set(table) == {one["event"] for one in TOLD} == set(FEEDBACK)
    for example in TOLD:
        decoded = events.decode(json.dumps(example).encode())
        assert isinstance(decoded, Track)
        assert decoded.message_id
        assert stream_of("track", decoded.name) == PEOPLE
        assert decoded.name in BOOKS
        assert decoded.name in NO_VISIT
        told = set(re.findall(r"`(\w+)`", table[decoded.name][1])) | {"message_id"}
        assert set(example["properties"]) <= told


def test_the_first_kind_is_what_outreach_says() -> None:
    message = messages.decode(json.dumps({**WRITTEN[0], "variant": "", "workflow": ""}).encode())
    assert json.loads(feedback(message, Told("delivered")).value) == TOLD[0]
    held = next(one for one in TOLD if one["event"] == "Message Held")
    assert json.loads(feedback(message, Told("held", "stale")).value) == held


def test_the_settings_that_are_named_are_understood() -> None:
    for written in rows("`channels`"):
        routes(written.split(","))
    assert 'channels = ["file", "email:elsewhere"]' in PAGE


@pytest.mark.parametrize("wrong", ["pigeon", "email:pigeon", "pigeon:file", "email:", ":file", "", "email:none",
                                   "elsewhere"])
def test_a_wrong_setting_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^channels: "):
        routes([wrong])
