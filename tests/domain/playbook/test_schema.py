"""The reference page matches the structs, and its example is a valid campaign."""

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
from domain.playbook.campaign import Campaign
from domain.playbook.condition import Condition
from domain.playbook.playbook import Playbook
from domain.playbook.schema import FILE_STRUCTS, SUPPRESSION_REASONS, json_schemas, reference_page
from domain.validation.validate import validate
from operators import decide
from state.coupons import leasing
from state.decisions.experiments import HOLDOUT_REASONS
from tests.harness.support import ROOT


def test_committed_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "playbook.md").read_text() == reference_page(), "make docs"


def test_every_condition_is_on_the_page() -> None:
    for field in msgspec.structs.fields(Condition):
        assert f"| `{field.encode_name}` |" in reference_page()


def test_example_on_the_page_is_a_valid_campaign() -> None:
    example = re.search(r"```toml\n(.*?)```", reference_page(), re.DOTALL)
    assert example is not None
    campaign = msgspec.convert({"name": "welcome_canada", **tomllib.loads(example[1])}, Campaign)
    assert validate(Playbook(campaigns=(campaign,))) == []


@pytest.mark.parametrize("kind", FILE_STRUCTS)
def test_schema_rejects_unknown_fields_and_describes_fields(kind: Any) -> None:
    one = json_schemas()[kind]
    assert one["additionalProperties"] is False
    assert all("description" in field or "$ref" in field for field in one["properties"].values())
    references = set(re.findall(r'"#/\$defs/(\w+)"', msgspec.json.encode(one).decode()))
    assert references <= set(one["$defs"])


FOLDERS = {"": "shop", "segments": "segment", "campaigns": "campaign", "workflows": "workflow", "coupons": "pool"}


@pytest.mark.parametrize("file", sorted((ROOT / "shop").rglob("*.toml")), ids=lambda path: path.name)
def test_shipped_shop_files_match_their_schema(file: Path) -> None:
    folder = file.relative_to(ROOT / "shop").parent.name
    jsonschema.Draft202012Validator(json_schemas()[FOLDERS[folder]]).validate(tomllib.loads(file.read_text()))


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("segment", "[when]\nsesion = {}"),
        ("segment", "expires_after = '3 days'"),
        ("campaign", "format = 'bar'"),
        ("workflow", "enter_on = { event = 'x' }\nsteps = []"),
        ("pool", "percent = 110"),
        ("shop", "currency = 'euro'"),
    ],
)
def test_schema_rejects_what_check_rejects(kind: str, file: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schemas()[kind])
    validator.check_schema(json_schemas()[kind])
    assert not validator.is_valid(tomllib.loads(file))


def schema_descriptions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (one for name, one in value.items() if name == "description" and isinstance(one, str))
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from schema_descriptions(one)


def test_descriptions_contain_no_code() -> None:
    found = list(schema_descriptions(list(json_schemas().values())))
    assert len(found) > 100
    for text in (*found, reference_page()):
        assert not re.search(r"[\"']\s*\n\s*[\"']", text), text
    for text in found:
        assert '"\n' not in text, text
        assert ">>>" not in text, text
        assert "\n  " not in text, "an editor shows what is indented as code"


def test_schema_command_prints_one_or_all() -> None:
    one = CliRunner().invoke(cli, ["schema", "campaign"])
    assert json.loads(one.output) == json.loads(msgspec.json.encode(json_schemas()["campaign"]))
    assert list(json.loads(CliRunner().invoke(cli, ["schema"]).output)) == list(FILE_STRUCTS)
    result = CliRunner().invoke(cli, ["schema", "campain"])
    assert (result.exit_code, result.output) == (2, 'attimo: campain: unknown kind of file; did you mean "campaign"?\n')


def test_every_suppression_reason_is_documented() -> None:
    code = "".join(
        (ROOT / name).read_text()
        for name in (
            "operators/decide.py",
            "operators/select_campaigns.py",
            "state/decisions/frequency.py",
            "state/person/addresses.py",
        )
    )
    given = set(re.findall(r'(?:return|reason, detail =) \(?\s*"([a-z_]+)",', code))
    assert {"campaign_cap", "contact_pressure", "lower_priority", "not_eligible", "no_address"} <= given, (
        "the pattern finds the reasons"
    )
    assert given | HOLDOUT_REASONS | {decide.QUIET_HOURS, leasing.PENDING} <= set(SUPPRESSION_REASONS)
