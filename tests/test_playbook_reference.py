"""The reference page says what the declarations say, and what it shows as an example works."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.campaign import Campaign
from domain.check import findings
from domain.condition import Condition
from domain.playbook import Playbook
from domain.reference import REASONS, page, schema
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


@pytest.mark.parametrize("kind", ["shop", "segment", "campaign"])
def test_the_schema_refuses_unknown_fields_and_explains_known_ones(kind: Any) -> None:
    one = schema()[kind]
    assert one["additionalProperties"] is False
    assert all("description" in field or "$ref" in field for field in one["properties"].values())
    references = set(re.findall(r'"#/\$defs/(\w+)"', msgspec.json.encode(one).decode()))
    assert references <= set(one["$defs"])


def test_every_reason_the_steps_give_is_on_the_page() -> None:
    code = "".join((ROOT / name).read_text() for name in (
        "operators/respect_limits.py", "operators/arm_ahead.py", "state/limits.py", "state/addresses.py"))
    given = set(re.findall(r'(?:return|reason, detail =) "([a-z_]+)", ', code))
    assert {"limit", "pressure", "lower_priority", "no_address", "audience"} <= given, "the pattern finds the reasons"
    assert given | HELD_OUT | {respect_limits.QUIET, desk.PENDING} <= set(REASONS)
