"""The examples and tables of `docs/actions.md` match the structs."""

import json
import re
from typing import Any

import msgspec
import pytest

from domain.action import Cancel, Preload, RenderedContent, Send, browser_payload, preloaded_key, pubsub_channel
from domain.playbook.campaign import ONSITE_FORMATS
from tests.harness.support import ROOT

PAGE = (ROOT / "docs" / "actions.md").read_text("utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(one) for one in re.findall(r"```json\n(.*?)\n```", PAGE, flags=re.DOTALL)]
ACTION_TYPES: dict[str, type[Send] | type[Preload] | type[Cancel]] = {
    "send": Send,
    "preload": Preload,
    "cancel": Cancel,
}
UNPUBLISHED = {"person", "because"}
ADDED = {"type", "shop"}


def table_rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first column has this heading, by their first cell."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_action_type_has_an_example() -> None:
    assert sorted(one["type"] for one in EXAMPLES) == sorted(ACTION_TYPES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one["type"])
def test_examples_match_published_actions(example: dict[str, Any]) -> None:
    kind = ACTION_TYPES[example["type"]]
    plain = {name: value for name, value in example.items() if name not in {"shop", "expires_in_ms"}}
    action = msgspec.convert({**plain, "person": "a:x"}, kind)
    now = example["not_after"] - example["expires_in_ms"] if "not_after" in example else example["at"]
    assert json.loads(json.dumps(browser_payload(action, example["shop"], now))) == example


def test_every_action_field_is_documented() -> None:
    table = table_rows("field")
    for kind, declared in ACTION_TYPES.items():
        fields = {field.name for field in msgspec.structs.fields(declared)} - UNPUBLISHED | ADDED
        if kind != "cancel":
            fields |= {"expires_in_ms"}
        documented = {
            name for name, (messages, *_) in table.items() if messages == "all" or kind in messages.split(", ")
        }
        assert documented == fields, kind
    assert set(table_rows("`content` | what")) == {field.name for field in msgspec.structs.fields(RenderedContent)}


def test_documented_formats_are_the_on_site_formats() -> None:
    assert set(table_rows("format")) == set(ONSITE_FORMATS)
    assert all(f"`{one}`" in table_rows("field")["format"][2] for one in ONSITE_FORMATS)


def test_redis_keys_are_documented() -> None:
    assert pubsub_channel("{shop}", "{anonymous_id}") in PAGE
    assert preloaded_key("{shop}", "{anonymous_id}") in PAGE
