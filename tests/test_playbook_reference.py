"""The reference page says what the declarations say, and what it shows as an example works."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from attimo import cli
from domain.campaign import Campaign
from domain.check import findings
from domain.condition import Condition
from domain.playbook import Playbook
from domain.reference import KINDS, REASONS, page, schema
from operators import respect_limits
from state import desk
from state.experiments import HELD_OUT

ROOT = Path(__file__).resolve().parent.parent


def test_the_committed_page_is_what_the_declarations_say() -> None:
    assert (ROOT / "docs" / "playbook.md").read_text() == page(), "run: python -m domain.reference > docs/playbook.md"


def test_every_condition_is_on_the_page() -> None:
    for field in msgspec.structs.fields(Condition):
        assert f"| `{field.encode_name}` |" in page()


def test_the_example_on_the_page_is_a_campaign() -> None:
    example = re.search(r"```toml\n(.*?)```", page(), re.DOTALL)
    assert example is not None
    campaign = msgspec.convert({"name": "welcome_canada", **tomllib.loads(example[1])}, Campaign)
    assert findings(Playbook(campaigns=(campaign,))) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_refuses_unknown_fields_and_explains_known_ones(kind: Any) -> None:
    one = schema()[kind]
    assert one["additionalProperties"] is False
    assert all("description" in field or "$ref" in field for field in one["properties"].values())
    references = set(re.findall(r'"#/\$defs/(\w+)"', msgspec.json.encode(one).decode()))
    assert references <= set(one["$defs"])


FOLDERS = {"": "shop", "segments": "segment", "campaigns": "campaign", "workflows": "workflow", "coupons": "pool"}


@pytest.mark.parametrize("file", sorted((ROOT / "shop").rglob("*.toml")), ids=lambda path: path.name)
def test_every_file_of_the_shipped_shop_is_valid_under_its_schema(file: Path) -> None:
    folder = file.relative_to(ROOT / "shop").parent.name
    jsonschema.Draft202012Validator(schema()[FOLDERS[folder]]).validate(tomllib.loads(file.read_text()))


@pytest.mark.parametrize(("kind", "file"), [
    ("segment", "[when]\nsesion = {}"), ("segment", "stays = '3 days'"), ("campaign", "format = 'bar'"),
    ("workflow", "enters = { event = 'x' }\nsteps = []"), ("pool", "percent = 110"), ("shop", "currency = 'euro'")])
def test_the_schema_refuses_what_check_refuses(kind: str, file: str) -> None:
    validator = jsonschema.Draft202012Validator(schema()[kind])
    validator.check_schema(schema()[kind])
    assert not validator.is_valid(tomllib.loads(file))


def descriptions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (one for name, one in value.items() if name == "description" and isinstance(one, str))
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from descriptions(one)


def test_descriptions_are_whole_sentences_without_code() -> None:
    found = list(descriptions(list(schema().values())))
    assert len(found) > 100
    for text in (*found, page()):
        assert not re.search(r"[\"']\s*\n\s*[\"']", text), text
    for text in found:
        assert '"\n' not in text, text
        assert ">>>" not in text, text
        assert "\n  " not in text, "an editor shows what is indented as code"


def test_the_command_prints_one_schema_or_all() -> None:
    one = CliRunner().invoke(cli, ["schema", "campaign"])
    assert json.loads(one.output) == json.loads(msgspec.json.encode(schema()["campaign"]))
    assert list(json.loads(CliRunner().invoke(cli, ["schema"]).output)) == list(KINDS)
    slip = CliRunner().invoke(cli, ["schema", "campain"])
    assert (slip.exit_code, slip.output) == (
        2, 'attimo: campain: there is no such kind of file; did you mean "campaign"?\n')


def test_every_reason_the_steps_give_is_on_the_page() -> None:
    code = "".join((ROOT / name).read_text() for name in (
        "operators/respect_limits.py", "operators/arm_ahead.py", "state/limits.py", "state/addresses.py"))
    given = set(re.findall(r'(?:return|reason, detail =) "([a-z_]+)", ', code))
    assert {"limit", "pressure", "lower_priority", "no_address", "audience"} <= given, "the pattern finds the reasons"
    assert given | HELD_OUT | {respect_limits.QUIET, desk.PENDING} <= set(REASONS)
