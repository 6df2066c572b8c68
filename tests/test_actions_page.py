"""`docs/actions.md` is what others program against: its examples and tables are held to the declaration."""

import json
import re
from typing import Any

import msgspec
import pytest

from domain.action import Arm, Content, Disarm, Send, armed_key, channel, published
from domain.campaign import ON_SITE
from tests.support import ROOT

PAGE = (ROOT / "docs" / "actions.md").read_text("utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(one) for one in re.findall(r"```json\n(.*?)\n```", PAGE, flags=re.DOTALL)]
KINDS: dict[str, type[Send] | type[Arm] | type[Disarm]] = {"send": Send, "arm": Arm, "disarm": Disarm}
UNPUBLISHED = {"person", "because"}
ADDED = {"type", "shop"}


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_there_is_an_example_of_each() -> None:
    assert sorted(one["type"] for one in EXAMPLES) == sorted(KINDS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one["type"])
def test_the_examples_are_what_is_published(example: dict[str, Any]) -> None:
    kind = KINDS[example["type"]]
    plain = {name: value for name, value in example.items() if name not in {"shop", "expires_in_ms"}}
    action = msgspec.convert({**plain, "person": "a:x"}, kind)
    now = example["not_after"] - example["expires_in_ms"] if "not_after" in example else example["at"]
    assert json.loads(json.dumps(published(action, example["shop"], now))) == example


def test_every_field_is_in_the_table_with_its_messages() -> None:
    table = rows("field")
    for kind, declared in KINDS.items():
        fields = {field.name for field in msgspec.structs.fields(declared)} - UNPUBLISHED | ADDED
        if kind != "disarm":
            fields |= {"expires_in_ms"}
        told = {name for name, (messages, *_) in table.items() if messages == "all" or kind in messages.split(", ")}
        assert told == fields, kind
    assert set(rows("`content` | what")) == {field.name for field in msgspec.structs.fields(Content)}


def test_the_formats_are_those_that_a_browser_shows() -> None:
    assert set(rows("format")) == set(ON_SITE)
    assert all(f"`{one}`" in rows("field")["format"][2] for one in ON_SITE)


def test_channel_and_hash_are_named_as_they_are() -> None:
    assert channel("{shop}", "{anonymous_id}") in PAGE
    assert armed_key("{shop}", "{anonymous_id}") in PAGE
